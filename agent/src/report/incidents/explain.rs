//! One incident in plain sentences.

use super::joined::{Joined, Rows};
use super::{IncidentRow, has_window, stored};
use crate::report::row::Row;
use crate::report::source::Source;
use crate::report::{Query, ReportError};
use farcall::Timestamp;
use farcall::quota::{NamedIncident, NamedMix, NamedShare, explain};
use rusqlite::{OptionalExtension, params};
use serde::Serialize;
use std::collections::HashMap;
use std::time::Duration;

/// An incident, with what happened, who used the window, and what would help.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExplainedIncident {
    /// Which report this is: `incident`.
    pub report: &'static str,
    /// The incident.
    pub incident: IncidentRow,
    /// What happened, who used the window, what would help: a sentence or a few each.
    pub sentences: Vec<String>,
    /// What the shares rest on: `window` (what was counted in the quota's window), `minutes` (the rollups of
    /// the minutes, hours or days that the window lies in), `none`.
    pub shares_from: &'static str,
}

/// The most names of one kind, as in an incident's own account.
const MOST: usize = 16;

/// What an incident was, in plain sentences. The window and the filters of the query are not used.
///
/// Where the incident was the first of its quota nothing was counted before it: then the shares are those of
/// the ledger's rollups, and a sentence says so.
///
/// # Errors
/// When there is no ledger, it cannot be read, or there is no such incident.
pub fn explain_incident(query: &Query, id: i64) -> Result<ExplainedIncident, ReportError> {
    let source = Source::open(query)?;
    let mut joined = find(&source, id)?;
    let incident = &mut joined.incident;
    let mut shares_from = "window";
    let mut note = (joined.processes > 1).then(|| {
        format!(
            "These shares are those of all {} processes that used this quota in the window.",
            joined.processes
        )
    });
    if incident.customers.is_empty() || incident.own == 0 {
        (shares_from, note) = match shares_of_minutes(query, incident)? {
            Some(sentence) => ("minutes", Some(sentence)),
            None => ("none", None),
        };
    }
    let mut sentences: Vec<String> = explain(incident).lines().map(str::to_owned).collect();
    // It belongs to the sentence of who used the window, which is the second.
    if let Some(note) = note {
        sentences.insert(sentences.len().min(2), note);
    }
    let incident = IncidentRow::new(&joined, &source);
    Ok(ExplainedIncident { report: "incident", incident, sentences, shares_from })
}

/// The incident that this row of the ledger belongs to, with the rows of other processes that do as well.
fn find(source: &Source<'_>, id: i64) -> Result<Joined, ReportError> {
    let none = || {
        ReportError::NotFound(format!(
            "there is no incident {id} in this ledger; farcall report incidents --since 7d lists them"
        ))
    };
    let connection = source.connection().ok_or_else(none)?;
    let found: Option<(i64, String, String)> = connection
        .query_row("SELECT at, vendor, incident FROM incidents WHERE id = ?1", [id], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let (at, vendor, text) = found.ok_or_else(none)?;
    let incident = stored::read(&text).map_err(|error| {
        ReportError::Unreadable(format!(
            "incident {id} cannot be read ({error}): a later version of farcall wrote it; update farcall"
        ))
    })?;
    // Whatever overlaps with its window was noted within two of them.
    let length = incident.ends.since(incident.began).as_nanos();
    let length = i64::try_from(length).unwrap_or(i64::MAX).saturating_mul(2);
    let mut rows = Rows::default();
    let mut statement = connection.prepare(
        "SELECT id, source, incident FROM incidents WHERE at >= ?1 AND at <= ?2 AND vendor = ?3 ORDER BY id",
    )?;
    let mut near = statement.query(params![at.saturating_sub(length), at.saturating_add(length), vendor])?;
    while let Some(row) = near.next()? {
        rows.add(row.get(0)?, &row.get::<_, String>(1)?, &row.get::<_, String>(2)?);
    }
    // What a process used of a window of which nobody told a refusal any more is none.
    rows.join().into_iter().find(|joined| joined.rows.contains(&id)).ok_or_else(none)
}

/// Takes the shares from the rollups of the window's minutes, and says so; `None` where these hold no call.
fn shares_of_minutes(query: &Query, incident: &mut NamedIncident) -> Result<Option<String>, ReportError> {
    let (began, ends) = match has_window(incident) {
        true => (incident.began, incident.ends.min(query.now).max(incident.at)),
        false => (incident.at, incident.at),
    };
    // A window that ends on a whole minute has nothing in the next one.
    let last = if ends > began { ends.minus(Duration::from_nanos(1)) } else { ends };
    let mut minutes = Query::at(&query.home);
    minutes.now = last;
    minutes.since = last.since(began);
    let source = Source::open(&minutes)?;
    let mut used = Used::default();
    // In the quota's own unit where the ledger counts it, else in calls on the wire.
    for unit in [incident.counted_in.clone(), "requests".to_owned()] {
        used = Used::default();
        source.rows(|row| {
            let units = match unit.as_str() {
                "tokens" => row.sums.tokens_in.saturating_add(row.sums.tokens_out),
                "input-tokens" => row.sums.tokens_in,
                "output-tokens" => row.sums.tokens_out,
                // Those of request bodies.
                "bytes" => row.sums.bytes_out,
                "requests" => row.sums.attempts,
                _ => 0,
            };
            if **row.vendor == incident.vendor && units > 0 {
                used.add(row, units);
            }
        })?;
        if used.total > 0 {
            incident.counted_in = unit;
            break;
        }
    }
    if used.total == 0 {
        return Ok(None);
    }
    let span = used.span;
    used.write(incident);
    // The sentences speak of the time that was added up, in whole minutes.
    let width = span * 60;
    let floor = |at: Timestamp| at.as_secs() / width * width;
    let (from, to) = (floor(began), floor(last) + width);
    incident.began = Timestamp::from_nanos(from * 1_000_000_000);
    incident.ends = Timestamp::from_nanos(to * 1_000_000_000);
    let (unit, clock) = match span {
        1 => ("minute", 11..16),
        60 => ("hour", 0..16),
        _ => ("day", 0..10),
    };
    let moment = |secs: u64| {
        let text = crate::report::time::rfc3339(secs * 1_000_000_000);
        text.get(clock.clone()).unwrap_or_default().replace('T', " ")
    };
    Ok(Some(format!(
        "These shares are by the {unit}: nothing was counted for this quota before the incident, so they are \
         those of all calls to {} in the ledger from {} to {} UTC.",
        incident.vendor,
        moment(from),
        moment(to)
    )))
}

/// Who used how many units.
#[derive(Default)]
struct Used {
    total: u64,
    span: u64,
    customers: HashMap<String, u64>,
    callers: HashMap<String, u64>,
    endpoints: HashMap<String, u64>,
    /// By customer, endpoint and caller.
    mixes: HashMap<[String; 3], u64>,
}

impl Used {
    fn add(&mut self, row: &Row<'_>, units: u64) {
        self.total += units;
        self.span = self.span.max(row.span);
        let (customer, caller, endpoint) =
            (row.customer.to_string(), row.caller.service.clone(), row.endpoint.to_string());
        *self.customers.entry(customer.clone()).or_default() += units;
        *self.callers.entry(caller.clone()).or_default() += units;
        *self.endpoints.entry(endpoint.clone()).or_default() += units;
        *self.mixes.entry([customer, endpoint, caller]).or_default() += units;
    }

    fn write(self, incident: &mut NamedIncident) {
        incident.own = self.total;
        incident.customers = shares(self.customers);
        incident.callers = shares(self.callers);
        incident.endpoints = shares(self.endpoints);
        let mut mixes: Vec<NamedMix> = self
            .mixes
            .into_iter()
            .map(|([customer, endpoint, caller], units)| NamedMix {
                customer,
                endpoint,
                caller,
                units,
                at_least: units,
            })
            .collect();
        mixes.sort_by(|a, b| {
            let name = |mix: &NamedMix| [mix.customer.clone(), mix.endpoint.clone(), mix.caller.clone()];
            b.units.cmp(&a.units).then_with(|| name(a).cmp(&name(b)))
        });
        mixes.truncate(MOST);
        incident.mixes = mixes;
    }
}

/// The largest first.
fn shares(sums: HashMap<String, u64>) -> Vec<NamedShare> {
    let mut shares: Vec<NamedShare> =
        sums.into_iter().map(|(name, units)| NamedShare { name, units, at_least: units }).collect();
    shares.sort_by(|a, b| b.units.cmp(&a.units).then_with(|| a.name.cmp(&b.name)));
    shares.truncate(MOST);
    shares
}
