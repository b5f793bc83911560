//! What happened to rules: budgets that reached a mark, canaries that moved their share, alarms.

use super::source::Source;
use super::{Query, ReportError, Window, time};
use farcall::Caller;
use farcall::matcher::{Fields, Subject};
use rusqlite::params;
use serde::Serialize;

/// Notices, the newest first.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Notices {
    /// Which report this is: `notices`.
    pub report: &'static str,
    /// The time that it covers.
    pub window: Window,
    /// The notices, at most as many as the query's `limit` says.
    pub rows: Vec<NoticeRow>,
    /// What a reader should know, in sentences.
    pub notes: Vec<String>,
}

/// Something that happened to a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NoticeRow {
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// What kind of rule it is: `budget`, `rollout`, `alarm`.
    pub concept: String,
    /// The rule's name.
    pub rule: String,
    /// What happened, as a sentence without its subject: `reached 80% of its limit of 50.00 USD / month`. Of an alarm
    /// the call that failed.
    pub what: String,
    /// The service whose process told it; another may have met it at the same time.
    pub service: String,
    /// That process; 0 where it is not known any more.
    pub pid: u32,
}

/// What happened to rules, the newest first.
///
/// # Errors
/// When there is no ledger, it cannot be read, or a filter asks for what notices do not have.
pub fn notices(query: &Query) -> Result<Notices, ReportError> {
    let source = Source::open(query)?;
    let mut rows = Vec::new();
    let mut more = 0;
    each(&source, |row, caller| {
        let mut subject = Subject::default();
        subject.caller = caller;
        for filter in &query.filters {
            if !filter.matches_other(&subject, Fields::CALLER, "notices")? {
                return Ok(());
            }
        }
        match rows.len() < query.most() {
            true => rows.push(row),
            false => more += 1,
        }
        Ok(())
    })?;
    let mut notes = Vec::new();
    if more > 0 {
        notes.push(format!("{more} earlier ones with --limit {}.", rows.len() + more));
    }
    Ok(Notices { report: "notices", window: query.window(), rows, notes })
}

/// Each notice of the window with the caller that told it, the newest first.
pub(super) fn each(
    source: &Source<'_>,
    mut each: impl FnMut(NoticeRow, &Caller) -> Result<(), ReportError>,
) -> Result<(), ReportError> {
    let Some(connection) = source.connection() else { return Ok(()) };
    let from = source.query.first_minute().saturating_mul(60_000_000_000);
    let [from, to] =
        [from, source.query.now.as_nanos()].map(|nanos| i64::try_from(nanos).unwrap_or(i64::MAX));
    let mut statement = connection.prepare(
        "SELECT at, caller, concept, rule, what FROM notices WHERE at >= ?1 AND at <= ?2 ORDER BY at DESC, id DESC",
    )?;
    let mut rows = statement.query(params![from, to])?;
    let unknown = Caller::default();
    while let Some(row) = rows.next()? {
        let caller = source.caller(row.get(1)?).map_or(&unknown, |caller| &**caller);
        let notice = NoticeRow {
            at: time::rfc3339(row.get::<_, i64>(0)?.unsigned_abs()),
            concept: row.get(2)?,
            rule: row.get(3)?,
            what: row.get(4)?,
            service: caller.service.clone(),
            pid: caller.pid,
        };
        each(notice, caller)?;
    }
    Ok(())
}
