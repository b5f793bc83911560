//! The read side, as JSON: the text that `farcall report --json` prints. And what is told to all programs of the ledger.

use crate::handle::handle;
use farcall::config::parse_duration;
use farcall_agent::Farcall;
use farcall_agent::report::{Filter, Query, Question, ReportError};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

/// Answers a question from the ledger, as JSON. `home` is the ledger's folder; None is this process's own.
#[pyfunction]
#[pyo3(signature = (question, since, filters, limit, home, /))]
pub(crate) fn report(
    py: Python<'_>,
    question: &str,
    since: &str,
    filters: Vec<String>,
    limit: usize,
    home: Option<PathBuf>,
) -> PyResult<String> {
    let question: Question = question.parse().map_err(to_python)?;
    let since = parse_duration(since)
        .ok_or_else(|| PyValueError::new_err(format!("`{since}` is not a time span; write 15m, 1h or 7d")))?;
    let filters: Result<Vec<Filter>, _> = filters.iter().map(|filter| filter.parse()).collect();
    let filters = filters.map_err(|error| to_python(ReportError::Filter(error)))?;
    let home = home.or_else(|| handle()?.farcall.home());
    let query = Query::here(home.as_deref()).ok_or(ReportError::NoHome).map_err(to_python)?;
    let query = Query { since, filters, limit, ..query };
    py.detach(|| question.ask(&query)).map(|report| report.to_json()).map_err(to_python)
}

/// Has the programs of this machine forget the answers that match all `conditions`; this one has when it returns, where
/// the ledger is its own. Returns how many programs were told.
#[pyfunction]
#[pyo3(signature = (conditions, home, /))]
pub(crate) fn purge_cache(
    py: Python<'_>,
    conditions: Vec<(String, String)>,
    home: Option<PathBuf>,
) -> PyResult<u64> {
    let purge = || {
        let farcall = handle().map(|handle| handle.farcall);
        let own = farcall.and_then(Farcall::home);
        let is_own = |own: &PathBuf| home.as_ref().is_none_or(|home| is_same(home, own));
        if let (Some(farcall), true) = (farcall, own.as_ref().is_some_and(is_own)) {
            return farcall.purge_cache(&conditions);
        }
        let home = farcall_agent::home(home.as_deref()).ok_or(ReportError::NoHome)?;
        farcall_agent::purge_cache(&home, &conditions)
    };
    py.detach(purge).map_err(|error| match error {
        ReportError::NotFound(why) => PyValueError::new_err(why),
        other => to_python(other),
    })
}

/// Whether two names are one folder's.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || fs::canonicalize(one).ok().is_some_and(|one| fs::canonicalize(other).ok() == Some(one))
}

fn to_python(error: ReportError) -> PyErr {
    match error {
        ReportError::NoSuchReport(_) | ReportError::Filter(_) => PyValueError::new_err(error.to_string()),
        other => PyOSError::new_err(other.to_string()),
    }
}
