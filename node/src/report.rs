//! The read side: a question, and its answer as the JSON that the command line prints.

use crate::handle::{farcall, unharmed};
use farcall_agent::report::{Filter, Query, Question};
use napi::bindgen_prelude::{AsyncTask, Env, Result};
use napi::{Error, Status, Task};
use napi_derive::napi;
use std::time::Duration;

/// Reads the ledger on a thread of libuv's pool.
pub(crate) struct ReportTask {
    question: String,
    since: Duration,
    filters: Vec<String>,
}

impl Task for ReportTask {
    type Output = String;
    type JsValue = String;

    fn compute(&mut self) -> Result<String> {
        unharmed(|| answer(self).map_err(|error| Error::new(Status::GenericFailure, error.to_string())))
    }

    fn resolve(&mut self, _env: Env, answer: String) -> Result<String> {
        Ok(answer)
    }
}

fn answer(task: &ReportTask) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let question: Question = task.question.parse()?;
    let home = farcall().ok().and_then(farcall_agent::Farcall::home);
    let mut query =
        Query::here(home.as_deref()).ok_or(farcall_agent::report::ReportError::NoHome)?.since(task.since);
    for filter in &task.filters {
        query = query.filter(filter.parse::<Filter>()?);
    }
    Ok(question.ask(&query)?.to_json())
}

/// Answers a question of the command line (`vendors`) from the ledger of this process, over the last
/// `since_ms` milliseconds and only for what all `filters` match (`customer=acme`).
#[napi]
pub(crate) fn report(question: String, since_ms: f64, filters: Vec<String>) -> AsyncTask<ReportTask> {
    let since = Duration::try_from_secs_f64(since_ms / 1_000.0).unwrap_or(Duration::MAX);
    AsyncTask::new(ReportTask { question, since, filters })
}
