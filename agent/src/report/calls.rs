//! Single calls: the slowest of each series and second, and the failed ones.

use super::numbers::{Account, millis};
use super::source::{Source, is_error};
use super::{Query, ReportError, Table, time};
use serde::Serialize;

/// A single call that was kept as an example.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CallRow {
    /// Its id, 16 hexadecimal digits.
    pub id: String,
    /// When it began, RFC 3339 in UTC.
    pub begun: String,
    /// The service that made it.
    pub service: String,
    /// The process that made it.
    pub pid: u32,
    /// On whose behalf.
    pub customer: String,
    /// Its tags, `key=value,key=value`.
    pub tags: String,
    /// The vendor's name.
    pub vendor: String,
    /// Method and URL template.
    pub endpoint: String,
    /// Where it was seen: `library` or `kernel`.
    pub tap: String,
    /// The HTTP status; 0 where no response came.
    pub status: u16,
    /// `complete`, `abandoned`, or the error's type.
    pub outcome: String,
    /// Whether it failed, or was answered with 4xx or 5xx.
    pub error: bool,
    /// From begin to the last byte, in milliseconds.
    pub duration_ms: f64,
    /// From begin to the head of the response; null where there was none.
    pub ttfb_ms: Option<f64>,
    /// Bytes of the request's body.
    pub bytes_out: u64,
    /// Bytes of the response's body.
    pub bytes_in: u64,
    /// Exchanges on the wire.
    pub attempts: u32,
}

/// Single calls, the newest first, at most [`Query::limit`] of them. The totals are those of all calls that
/// the filters let through, kept or not.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn calls(query: &Query) -> Result<Table<CallRow>, ReportError> {
    let source = Source::open(query)?;
    let mut totals = Account::default();
    source.rows(|row| totals.add(row))?;
    let mut rows = Vec::new();
    source.kept(|row, kept| {
        if rows.len() >= query.limit {
            return false;
        }
        rows.push(CallRow {
            id: format!("{:016x}", kept.id),
            begun: time::rfc3339(kept.begun),
            service: row.caller.service.clone(),
            pid: row.caller.pid,
            customer: row.customer.to_string(),
            tags: row.tags.to_string(),
            vendor: row.vendor.to_string(),
            endpoint: row.endpoint.to_string(),
            tap: row.tap.to_owned(),
            status: row.status,
            outcome: row.outcome.to_owned(),
            error: is_error(row.status, row.outcome),
            duration_ms: millis(kept.duration),
            ttfb_ms: kept.ttfb.map(millis),
            bytes_out: kept.bytes_out,
            bytes_in: kept.bytes_in,
            attempts: kept.attempts,
        });
        true
    })?;
    let notes = vec![format!(
        "{} of {} calls: kept are the failed ones and the slowest of each kind and second, the newest \
         20,000.",
        rows.len(),
        totals.sums.calls
    )];
    Ok(Table { report: "calls", window: query.window(), rows, totals: totals.numbers(), notes })
}
