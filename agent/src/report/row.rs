//! What a ledger's tables hold, a row at a time, with names resolved.

use farcall::Caller;
use farcall::ledger::{Sketch, Sums};
use rusqlite::Row as SqlRow;
use rusqlite::types::FromSql;
use std::rc::Rc;
use std::time::Duration;

/// A rollup with its names.
pub(super) struct Row<'r> {
    /// How many minutes it spans; 0 where it is no rollup of calls.
    pub(super) span: u64,
    pub(super) vendor: &'r Rc<str>,
    /// What the catalogue tags the vendor with.
    pub(super) vendor_tags: &'r [String],
    pub(super) endpoint: &'r Rc<str>,
    pub(super) customer: &'r Rc<str>,
    pub(super) tags: &'r str,
    pub(super) caller: &'r Rc<Caller>,
    pub(super) tap: &'r str,
    pub(super) status: u16,
    pub(super) outcome: &'r str,
    pub(super) sums: Sums,
    pub(super) latency: Sketch,
}

/// A single call that was kept.
pub(super) struct Kept {
    pub(super) id: u64,
    pub(super) begun: u64,
    pub(super) duration: Duration,
    pub(super) ttfb: Option<Duration>,
    pub(super) bytes_out: u64,
    pub(super) bytes_in: u64,
    pub(super) attempts: u32,
    pub(super) waited: Duration,
    /// In nano-units, as far as known; `None` where nothing of it is.
    pub(super) cost: Option<i64>,
    /// Why that is not all; `None` where it is, or nobody wrote it down.
    pub(super) cost_unknown: Option<String>,
    /// A line for each event.
    pub(super) events: String,
}

/// A rollup of connections, with its names.
pub(super) struct ConnectionRow<'r> {
    pub(super) caller: &'r Rc<Caller>,
    pub(super) vendor: &'r Rc<str>,
    pub(super) name: &'r Rc<str>,
    pub(super) address: &'r Rc<str>,
    pub(super) library: &'r Rc<str>,
    pub(super) reason: &'r Rc<str>,
    pub(super) verdict: String,
    pub(super) explained_by: String,
    pub(super) connections: u64,
    pub(super) bytes_out: u64,
    pub(super) bytes_in: u64,
}

impl Row<'_> {
    pub(super) fn is_kernel(&self) -> bool {
        self.tap == farcall::Tap::Kernel.as_str()
    }

    /// A call that was not made, because a rule said so.
    pub(super) fn is_refused(&self) -> bool {
        is_refused(self.outcome)
    }

    /// A call that the cache answered.
    pub(super) fn is_cached(&self) -> bool {
        is_cached(self.outcome)
    }

    /// A call that failed, or was answered with 4xx or 5xx.
    pub(super) fn is_error(&self) -> bool {
        is_error(self.status, self.outcome)
    }
}

/// A call that the cache answered.
pub(super) fn is_cached(outcome: &str) -> bool {
    matches!(outcome, "cached" | "stale")
}

pub(super) fn is_error(status: u16, outcome: &str) -> bool {
    if is_cached(outcome) {
        return status >= 400;
    }
    !is_refused(outcome) && (status >= 400 || !matches!(outcome, "complete" | "abandoned" | UNKNOWN))
}

/// The outcome of a call whose answer the sidecar lost.
pub(super) const UNKNOWN: &str = "unknown";

/// The outcome as it is shown: whoever saw an answer to its end saw its status.
pub(super) fn outcome(status: u16, written: String) -> String {
    if status == 0 && written == "complete" { UNKNOWN.to_owned() } else { written }
}

/// A call that was not made, because a rule said so.
pub(super) fn is_refused(outcome: &str) -> bool {
    outcome.starts_with("refused-")
}

/// A number that is never negative.
pub(super) fn get<T: TryFrom<i64> + Default>(
    row: &SqlRow<'_>,
    column: impl rusqlite::RowIndex,
) -> rusqlite::Result<T>
where
    i64: FromSql,
{
    Ok(T::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}

/// A number of calls or connections: no more than can be added up over all rows there are. Nobody made as many; a
/// damaged ledger may say so.
pub(super) fn count(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<u64> {
    const MOST: u64 = 1 << 40;
    Ok(get::<u64>(row, column)?.min(MOST))
}
