//! A copy in a place that cannot be told here, such as one in an environment variable that is not set: it takes
//! nothing. Whoever only looks at the outbox does without it.

use super::super::super::pending::Pending;
use super::super::super::table::{New, State};
use super::super::super::{OutboxError, Receipt};
use super::super::moving::Copied;
use super::{Belonging, CopyStore, Owner};
use std::path::Path;
use std::sync::Arc;

/// Answers each question with why it is none.
#[derive(Debug)]
pub(in super::super) struct NoCopy(pub(in super::super) OutboxError);

impl NoCopy {
    fn answer<T>(&self) -> Pending<T> {
        Pending::ready(Err(self.0.clone()))
    }
}

impl CopyStore for NoCopy {
    fn name(&self) -> String {
        self.0.to_string()
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
        Err(self.0.clone())
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
        news.iter().map(|_| Err(self.0.clone())).collect()
    }

    fn pause(&self) {}

    fn is_open(&self) -> bool {
        false
    }

    fn resume(&self) -> Result<(), OutboxError> {
        Ok(())
    }
}
