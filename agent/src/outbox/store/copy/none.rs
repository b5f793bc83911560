//! A copy in a place that cannot be told here, such as one in an environment variable that is not set: it takes
//! nothing. Whoever only looks at the outbox does without it.

use super::super::super::pending::Pending;
use super::super::super::table::{New, State};
use super::super::super::{OutboxError, Receipt};
use super::super::moving::Copied;
use super::{Belonging, CopyStore, Owner};
use farcall::config::OutboxPlace;
use std::path::Path;
use std::sync::Arc;

/// Answers each question with why it is none.
#[derive(Debug)]
pub(in super::super) struct NoCopy {
    name: String,
    why: OutboxError,
}

impl NoCopy {
    pub(in super::super) fn new(place: &OutboxPlace, why: OutboxError) -> Self {
        let name = match place {
            OutboxPlace::Variable(name) => format!("${name}"),
            OutboxPlace::File(path) => path.display().to_string(),
            // Its address may hold a password.
            _ => "in a PostgreSQL".to_owned(),
        };
        Self { name, why }
    }

    fn answer<T>(&self) -> Pending<T> {
        Pending::ready(Err(self.why.clone()))
    }
}

impl CopyStore for NoCopy {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn add(&self, _new: &Arc<New>) -> Pending<Receipt> {
        self.answer()
    }

    fn belong(&self, _store: &str, _home: &Path) -> Pending<Belonging> {
        self.answer()
    }

    fn adopt(&self, _lost: &str, _store: &str) -> Pending<()> {
        self.answer()
    }

    fn copied(&self, _after: i64, _many: i64) -> Pending<Vec<Copied>> {
        self.answer()
    }

    fn mark(&self, _changes: Vec<(i64, Option<State>)>) -> Pending<()> {
        self.answer()
    }

    fn heard(&self, _store: &str) -> Pending<i64> {
        self.answer()
    }

    fn hear(&self, _store: &str, _reached: i64) -> Pending<()> {
        self.answer()
    }

    fn there(&self) -> Result<(), OutboxError> {
        Err(self.why.clone())
    }

    fn can_be_written(&self) -> Pending<()> {
        match self.name.starts_with('$') {
            true => Pending::ready(Err(self.why.as_seen_from_here())),
            false => self.answer(),
        }
    }

    fn owners(&self) -> Pending<Vec<Owner>> {
        self.answer()
    }

    fn last(&self) -> Pending<i64> {
        self.answer()
    }

    fn in_order(&self, _owner: &str, _state: State) -> Pending<Vec<i64>> {
        self.answer()
    }

    fn these(&self, _ids: &[i64]) -> Pending<Vec<(i64, New)>> {
        self.answer()
    }

    fn add_missing(&self, news: &[Arc<New>]) -> Vec<Result<(), OutboxError>> {
        news.iter().map(|_| Err(self.why.clone())).collect()
    }

    fn pause(&self) {}

    fn is_open(&self) -> bool {
        false
    }

    fn resume(&self) -> Result<(), OutboxError> {
        Ok(())
    }
}
