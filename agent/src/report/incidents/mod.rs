//! Why were we rate limited? Each 429, and each call that a quota refused, as an incident with who used the
//! window.

mod explain;
mod joined;
mod stored;

pub use explain::{ExplainedIncident, explain_incident};

use super::numbers::share;
use super::source::Source;
use super::{Filter, Query, ReportError, Window, time};
use farcall::Caller;
use farcall::matcher::{Fields, Subject};
use farcall::quota::{Answers, Kind, NamedIncident, NamedMix, NamedShare};
use joined::{Joined, Rows};
use rusqlite::params;
use serde::Serialize;

/// Incidents, the newest first.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Incidents {
    /// Which report this is: `incidents`.
    pub report: &'static str,
    /// The time that it covers.
    pub window: Window,
    /// The incidents.
    pub rows: Vec<IncidentRow>,
    /// What a reader should know, in sentences.
    pub notes: Vec<String>,
}

/// What happened to one quota in one window. All 429s and refusals of a window are one incident, whichever of the
/// processes that share the quota met them.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct IncidentRow {
    /// Its number in this ledger, for `farcall explain incident`.
    pub id: i64,
    /// The first 429 or refusal, RFC 3339 in UTC.
    pub at: String,
    /// The vendor's name.
    pub vendor: String,
    /// The name as the vendor writes it.
    pub label: String,
    /// How many processes told what they used of the window: more than one where they share the quota.
    pub processes: u64,
    /// The credential's fingerprint; empty where none was seen.
    pub credential: String,
    /// What the vendor or the rule calls the quota.
    pub policy: String,
    /// What a rule keeps this quota apart by, as `customer=acme`; empty where it does not.
    pub partition: String,
    /// `rate` (the vendor said: too fast), `exhausted` (used up), `own` (refused here).
    pub kind: String,
    /// Where `kind` is `own`, by which part of the rule.
    pub why: String,
    /// How many 429s, or refusals.
    pub count: u64,
    /// What the vendor's refusals were, by status and meaning; empty where none of them was the vendor's.
    pub answers: Vec<IncidentAnswers>,
    /// Calls that were refused here.
    pub refused: u64,
    /// Whose calls these were, by customer, the most first: `units` are calls, `share` is of `refused`.
    pub refused_customers: Vec<IncidentShare>,
    /// When the window began; null where no window is known.
    pub began: Option<String>,
    /// When it ends or ended.
    pub ends: Option<String>,
    /// What the quota counts: `requests`, `tokens`, `points`, ...
    pub unit: String,
    /// The limit, where one is known.
    pub limit: Option<u64>,
    /// In which time that many may go, in seconds; null where nobody stated it.
    pub limit_window_seconds: Option<f64>,
    /// What the vendor said was left.
    pub remaining: Option<u64>,
    /// When the vendor said that it resets.
    pub resets_at: Option<String>,
    /// When calls may go again.
    pub retry_at: Option<String>,
    /// Our units in the window; null where only the vendor knows what calls use of it.
    pub own: Option<u64>,
    /// Units that the vendor counted and no call of ours explains; null where our count cannot be set against it.
    pub foreign: Option<u64>,
    /// What we counted in the window, of which the shares are shares: `own`, or calls where that is null.
    pub counted: u64,
    /// What `counted` and the shares count: `unit`, or `requests`.
    pub counted_in: String,
    /// Who used the window, by customer, the largest first.
    pub customers: Vec<IncidentShare>,
    /// By caller.
    pub callers: Vec<IncidentShare>,
    /// By endpoint.
    pub endpoints: Vec<IncidentShare>,
    /// By credential.
    pub credentials: Vec<IncidentShare>,
    /// Who asked for what through whom.
    pub mixes: Vec<IncidentMix>,
}

/// Refusals of a vendor that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct IncidentAnswers {
    /// Their status: not every vendor says by a 429 that calls come too fast.
    pub status: u16,
    /// `rate` (too fast), `exhausted` (used up).
    pub kind: &'static str,
    /// How many there were.
    pub count: u64,
}

/// What one of many used of a window.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct IncidentShare {
    /// Its name.
    pub name: String,
    /// Units: never too few.
    pub units: u64,
    /// Units that it used for certain.
    pub at_least: u64,
    /// `units` as a share of what we counted, 0 to 1.
    pub share: f64,
}

/// What one customer used of one endpoint through one caller.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct IncidentMix {
    /// The customer.
    pub customer: String,
    /// The endpoint.
    pub endpoint: String,
    /// The caller.
    pub caller: String,
    /// Units: never too few.
    pub units: u64,
    /// Units for certain.
    pub at_least: u64,
}

/// Why were we rate limited: the incidents of the window, the newest first. Filters by customer, caller and
/// endpoint look at the one that used most.
///
/// # Errors
/// When there is no ledger, it cannot be read, or a filter asks for what incidents do not have.
pub fn incidents(query: &Query) -> Result<Incidents, ReportError> {
    let source = Source::open(query)?;
    let mut found = Rows::default();
    if let Some(connection) = source.connection() {
        let from = i64::try_from(query.first_minute().saturating_mul(60_000_000_000)).unwrap_or(i64::MAX);
        let to = i64::try_from(query.now.as_nanos()).unwrap_or(i64::MAX);
        let mut statement = connection
            .prepare("SELECT id, source, incident FROM incidents WHERE at >= ?1 AND at <= ?2 ORDER BY id")?;
        let mut rows = statement.query(params![from, to])?;
        while let Some(row) = rows.next()? {
            found.add(row.get(0)?, &row.get::<_, String>(1)?, &row.get::<_, String>(2)?);
        }
    }
    let (mut rows, unread) = (Vec::new(), found.unread);
    for joined in found.join() {
        if matches(&query.filters, &source, &joined.incident)? {
            rows.push(IncidentRow::new(&joined, &source));
        }
    }
    let mut notes = Vec::new();
    if let Some(row) = rows.first() {
        notes.push(format!("Who used it, and what would help: farcall explain incident {}", row.id));
    }
    if unread > 0 {
        notes.push(format!(
            "{unread} incidents of the ledger cannot be read: a later version of farcall wrote them."
        ));
    }
    Ok(Incidents { report: "incidents", window: query.window(), rows, notes })
}

fn matches(filters: &[Filter], source: &Source<'_>, incident: &NamedIncident) -> Result<bool, ReportError> {
    let first = |shares: &'_ [NamedShare]| shares.first().map(|share| share.name.clone()).unwrap_or_default();
    let (customer, endpoint) = (first(&incident.customers), first(&incident.endpoints));
    let caller = Caller::new(first(&incident.callers));
    let mut subject = Subject::default();
    subject.vendor = &incident.vendor;
    subject.vendor_tags = source.tags(&incident.vendor);
    subject.country = source.country(&incident.vendor);
    subject.customer = &customer;
    subject.endpoint = &endpoint;
    subject.method = endpoint.split_once(' ').map_or("", |(method, _)| method);
    subject.caller = &caller;
    let known = Fields::VENDOR
        | Fields::VENDOR_TAG
        | Fields::CUSTOMER
        | Fields::ENDPOINT
        | Fields::METHOD
        | Fields::SERVICE;
    for filter in filters {
        if !filter.matches_other(&subject, known, "incidents")? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl IncidentRow {
    fn new(joined: &Joined, source: &Source<'_>) -> Self {
        let Joined { id, incident, processes, .. } = joined;
        let moment = |at: farcall::Timestamp| time::rfc3339(at.as_nanos());
        let window = has_window(incident);
        let of = |shares: &[NamedShare], total: u64| -> Vec<IncidentShare> {
            let share = |known: &NamedShare| IncidentShare {
                name: known.name.clone(),
                units: known.units,
                at_least: known.at_least,
                share: share(known.units.min(total), total),
            };
            shares.iter().map(share).collect()
        };
        let shares = |shares: &[NamedShare]| of(shares, incident.own);
        let mix = |mix: &NamedMix| IncidentMix {
            customer: mix.customer.clone(),
            endpoint: mix.endpoint.clone(),
            caller: mix.caller.clone(),
            units: mix.units,
            at_least: mix.at_least,
        };
        Self {
            id: *id,
            processes: *processes,
            at: moment(incident.at),
            label: source.label(&incident.vendor),
            vendor: incident.vendor.clone(),
            credential: incident.credential.clone(),
            policy: incident.policy.clone(),
            partition: incident.partition.clone(),
            kind: incident.kind.clone(),
            why: incident.why.clone(),
            count: incident.count,
            answers: incident.answers.iter().map(answers).collect(),
            refused: incident.refused,
            refused_customers: of(&incident.kept_back, incident.refused),
            began: window.then(|| moment(incident.began)),
            ends: window.then(|| moment(incident.ends)),
            unit: incident.unit.clone(),
            limit: incident.limit,
            limit_window_seconds: incident.limit_window.map(|window| window.as_secs_f64()),
            remaining: incident.remaining,
            resets_at: incident.resets_at.map(moment),
            retry_at: incident.retry_at.map(moment),
            own: incident.is_countable().then_some(incident.own),
            foreign: incident.foreign.filter(|_| incident.is_countable()),
            counted: incident.own,
            counted_in: incident.counted_in.clone(),
            customers: shares(&incident.customers),
            callers: shares(&incident.callers),
            endpoints: shares(&incident.endpoints),
            credentials: shares(&incident.credentials),
            mixes: incident.mixes.iter().map(mix).collect(),
        }
    }
}

fn answers(answers: &Answers) -> IncidentAnswers {
    let kind = if answers.exhausted { Kind::Exhausted } else { Kind::Rate };
    IncidentAnswers { status: answers.status, kind: kind.as_str(), count: answers.count }
}

fn has_window(incident: &NamedIncident) -> bool {
    incident.ends > incident.began && incident.began.as_nanos() > 0
}
