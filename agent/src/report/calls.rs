//! Single calls: the slowest of each series and second, those without a whole response, and those of which there is
//! something to tell.

use super::numbers::{Account, decimal, millis};
use super::refusal::Warning;
use super::row::{Kept, Row, UNKNOWN, is_error};
use super::source::Source;
use super::{Query, ReportError, Table, refusal, render, time};
use farcall::cost::Unknown;
use farcall::{Caller, Currency};
use serde::Serialize;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

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
    /// `complete`, `abandoned`, `cached`, `stale`, `parked`, the error's type, `refused-` and the concept that refused it, or
    /// `unknown` where the sidecar lost the answer.
    pub outcome: String,
    /// Whether it failed, or was answered with 4xx or 5xx.
    pub error: bool,
    /// The rule that refused it; null where none did, or its name was not kept.
    pub rule: Option<String>,
    /// Why it was refused, and when the same call would have passed; null where it was not, or that was not kept.
    pub why: Option<String>,
    /// What rules of the policy told of it that let it pass.
    pub warned: Vec<Warning>,
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
    /// What it waited because a rule said so, in milliseconds.
    pub waited_ms: f64,
    /// What it cost as far as known, in units of `currency`, as an exact decimal number; null where nothing of it is.
    pub cost: Option<String>,
    /// Why `cost` is not known, or not all of it: a reason of docs/cost.md; null where it is, or nobody wrote it down.
    pub cost_unknown: Option<String>,
    /// The currency of `cost`.
    pub currency: String,
    /// What happened to it besides being sent and answered, a line for each event.
    pub events: Vec<String>,
}

impl CallRow {
    pub(super) fn new(row: &Row<'_>, kept: &Kept) -> Self {
        Self {
            id: format!("{:016x}", kept.id),
            begun: time::rfc3339(kept.begun),
            service: row.caller.service.clone(),
            pid: row.caller.pid,
            customer: row.customer.to_string(),
            tags: row.tags.to_owned(),
            vendor: row.vendor.to_string(),
            endpoint: row.endpoint.to_string(),
            tap: row.tap.to_owned(),
            status: row.status,
            outcome: row.outcome.to_owned(),
            error: is_error(row.status, row.outcome),
            rule: refusal::rule(row.outcome, &kept.events),
            why: refusal::why(row.outcome, &kept.events),
            warned: refusal::warned(&kept.events),
            duration_ms: millis(kept.duration),
            ttfb_ms: kept.ttfb.map(millis),
            bytes_out: kept.bytes_out,
            bytes_in: kept.bytes_in,
            attempts: kept.attempts,
            waited_ms: millis(kept.waited),
            cost: kept.cost.map(decimal),
            cost_unknown: kept.cost_unknown.clone(),
            currency: Currency::USD.to_string(),
            events: kept.events.lines().map(str::to_owned).collect(),
        }
    }
}

/// Single calls, the newest first, at most [`Query::limit`] of them (0: all). The totals are those of all calls that
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
        if rows.len() >= query.most() {
            return false;
        }
        rows.push(CallRow::new(row, &kept));
        true
    })?;
    let notes = vec![format!(
        "{} of {} calls: kept are those without a whole response, those that a rule did something to and the slowest \
         of each kind and second, the newest 20,000.",
        rows.len(),
        totals.sums.calls
    )];
    Ok(Table { report: "calls", window: query.window(), rows, totals: totals.numbers(), notes })
}

/// A single call, with what happened to it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExplainedCall {
    /// Which report this is: `call`.
    pub report: &'static str,
    /// The call.
    pub call: CallRow,
    /// What it was and how it came out, in sentences; `call.events` is what happened in between.
    pub sentences: Vec<String>,
}

/// Fewer digits of an id are too likely to be those of several calls.
const MIN_DIGITS: usize = 6;

/// What happened to a single call, by its id or how that begins. The window and the filters of the query are
/// not used.
///
/// # Errors
/// When there is no ledger, it cannot be read, or not exactly one call is kept under this id.
pub fn explain_call(query: &Query, id: &str) -> Result<ExplainedCall, ReportError> {
    // Tables cut the id where there is no room for it.
    let wanted = id.trim().trim_end_matches('…').to_ascii_lowercase();
    if wanted.len() < MIN_DIGITS || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ReportError::NotFound(format!(
            "`{id}` is no call's id; write the hexadecimal digits that farcall report calls shows, at least \
             {MIN_DIGITS} of them"
        )));
    }
    let mut all = query.clone();
    all.since = Duration::from_nanos(all.now.as_nanos());
    all.filters.clear();
    let source = Source::open(&all)?;
    let mut found: Option<(CallRow, Rc<Caller>, String)> = None;
    let mut ids = BTreeSet::new();
    source.kept(|row, kept| {
        let id = format!("{:016x}", kept.id);
        if id.starts_with(&wanted) && ids.insert(id) && found.is_none() {
            found = Some((CallRow::new(row, &kept), Rc::clone(row.caller), source.label(row.vendor)));
        }
        ids.len() < 8
    })?;
    let (call, caller, label) = found.ok_or_else(|| {
        ReportError::NotFound(format!(
            "no call {wanted} is kept in this ledger: it keeps those without a whole response, those that a \
             rule did something to and the slowest of each kind and second, the newest 20,000; farcall report calls lists them"
        ))
    })?;
    if ids.len() > 1 {
        let ids: Vec<String> = ids.into_iter().collect();
        return Err(ReportError::NotFound(format!(
            "several calls begin with {wanted}; write more digits: {}",
            ids.join(", ")
        )));
    }
    let mut sentences = sentences(&call, &label);
    sentences.splice(2..2, refusal::sentences(&source, &call, &caller)?);
    Ok(ExplainedCall { report: "call", sentences, call })
}

fn sentences(call: &CallRow, label: &str) -> Vec<String> {
    let CallRow { service, pid, endpoint, .. } = call;
    let at = call.begun.get(..23).unwrap_or(&call.begun).replace('T', " ");
    let whom = match call.customer.as_str() {
        farcall::attribution::UNKNOWN => "nobody in particular".to_owned(),
        name => format!("customer {name}"),
    };
    let tags = if call.tags.is_empty() { String::new() } else { format!(" ({})", call.tags) };
    let mut sentences =
        vec![format!("At {at} UTC {service} (pid {pid}) asked {label} for {endpoint}, for {whom}{tags}.")];
    let took = render::millis(Some(call.duration_ms));
    let waited = match call.waited_ms {
        waited if waited > 0.0 => {
            format!(", {} of it waiting because a rule said so", render::millis(Some(waited)))
        }
        _ => String::new(),
    };
    let attempts = match (call.attempts, refusal::stood_in(&call.events)) {
        (0, 0 | 1) => "nothing was sent".to_owned(),
        (0, faulted) => format!("{faulted} attempts, and nothing was sent"),
        (1, 0) => "one attempt".to_owned(),
        (attempts, 0) => format!("{attempts} attempts"),
        (sent, faulted) => {
            let were = if sent == 1 { "was" } else { "were" };
            format!("{} attempts, of which {sent} {were} sent", sent as usize + faulted)
        }
    };
    let rule = call.rule.as_ref().map_or(String::new(), |rule| format!(" `{rule}`"));
    sentences.push(match (call.outcome.strip_prefix("refused-"), call.status) {
        // A fault refuses nothing: the application gets what a vendor in trouble would give it.
        (Some("fault"), 0) => format!("It failed by the fault{rule} after {took}{waited}: {attempts}."),
        (Some("fault"), status) => {
            format!("It was answered with {status} by the fault{rule} in {took}{waited}: {attempts}.")
        }
        (Some(concept), _) => {
            format!("It was refused by the {concept}{rule} after {took}{waited}: {attempts}.")
        }
        (None, 0) if call.outcome == "parked" => {
            format!("It was parked in the outbox, unanswered, after {took}{waited}: {attempts}.")
        }
        (None, 0) if call.outcome == UNKNOWN => {
            format!("What it came to is not known after {took}, for the sidecar lost its answer: {attempts}.")
        }
        (None, 0) => format!("It failed ({}) after {took}{waited}: {attempts}.", call.outcome),
        (None, status) => {
            let whole = match call.outcome.as_str() {
                "complete" => String::new(),
                "parked" => ": the outbox took it for delivery".to_owned(),
                "cached" => ", from the cache".to_owned(),
                "stale" => {
                    ", from the cache, and stale: the vendor failed, or was not to be asked".to_owned()
                }
                "abandoned" => ", and the application let go of the response before its end".to_owned(),
                outcome => format!(", and failed ({outcome}) before its last byte"),
            };
            let head = call.ttfb_ms.map_or(String::new(), |ttfb| {
                format!(" (the response began after {})", render::millis(Some(ttfb)))
            });
            format!("It was answered with {status} in {took}{head}{waited}{whole}: {attempts}.")
        }
    });
    let why = call.cost_unknown.as_deref().map_or(String::new(), |word| {
        let known = Unknown::ALL.into_iter().find(|reason| reason.as_str() == word);
        format!(" ({word}{})", known.map_or(String::new(), |reason| format!(": {}", reason.because())))
    });
    let cost = match (&call.cost, why.is_empty()) {
        (Some(cost), true) => format!("It cost {cost} {}", call.currency),
        (Some(cost), false) => format!("It cost at least {cost} {}{why}", call.currency),
        (None, _) => format!("What it cost is not known{why}"),
    };
    sentences.push(format!("{cost}; {} bytes of body went out, {} came in.", call.bytes_out, call.bytes_in));
    if call.tap == farcall::Tap::Kernel.as_str() {
        sentences.push("Only the kernel saw it: no rule of a library was asked.".to_owned());
    }
    sentences
}
