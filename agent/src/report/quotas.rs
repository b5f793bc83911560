//! What do the vendors allow us, and how much of it is left? Each process writes down what it knows of a quota;
//! together that is one row.

use super::findings::words;
use super::row::get;
use super::source::Source;
use super::{Filter, Query, ReportError, Window, incidents, time};
use crate::store::MAX_PROCESSES;
use farcall::matcher::{Fields, Subject};
use farcall::quota::Why;
use farcall::{Caller, Tap};
use rusqlite::params;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The vendors' quotas and the limits of the user's rules, those that hold calls up first.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Quotas {
    /// Which report this is: `quotas`.
    pub report: &'static str,
    /// The time that it covers: quotas of which something was heard or used in it.
    pub window: Window,
    /// A row for each vendor, credential and policy, and for each limit of a rule.
    pub rows: Vec<QuotaRow>,
    /// What a reader should know, in sentences.
    pub notes: Vec<String>,
}

/// One quota of a vendor, or one limit of a rule, as the processes of this home know it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct QuotaRow {
    /// Whose limit it is: `vendor` where the vendor stated it or taught it by 429s, `rule` where a rule states it.
    pub source: &'static str,
    /// The vendor's name; empty where a rule limits calls to several vendors together.
    pub vendor: String,
    /// The name as the vendor writes it.
    pub label: String,
    /// The credential's fingerprint; empty where none was seen, or the quota is not one credential's.
    pub credential: String,
    /// What the vendor calls it; `unstated` where it refused calls and stated nothing. Of a rule's limit the rule's name,
    /// and what it is kept apart by.
    pub policy: String,
    /// What is counted: `requests`, `tokens`, `input-tokens`, ...
    pub unit: String,
    /// How many of it a window holds, as the vendor or the rule states it.
    pub limit: Option<u64>,
    /// How long a window is; null where nobody stated it.
    pub window_seconds: Option<f64>,
    /// What the vendor said was left, in the window that lasts.
    pub remaining: Option<u64>,
    /// When it said so, RFC 3339 in UTC.
    pub stated_at: Option<String>,
    /// What is left by that word and by what went out since; of a rule's limit, how many units may go at once.
    pub left: Option<u64>,
    /// How many units may go back to back where the limit is a rule's and nothing went before.
    pub burst: Option<u64>,
    /// When a call of one unit would pass a rule's limit that is used up; null where it passes at once.
    pub free_at: Option<String>,
    /// When the window ends, or ended.
    pub resets_at: Option<String>,
    /// Units that we counted in the window.
    pub own: Option<u64>,
    /// Units that the vendor counted while we did, and that no call of ours explains: somebody else on this credential.
    pub foreign: Option<u64>,
    /// Calls to the vendor that only the kernel saw since the window began, in whole minutes: with which credential nobody
    /// knows, so as many of `foreign` may be theirs. Null where all credentials share the quota, it counts something
    /// else than requests, or `foreign` is null.
    pub kernel_calls: Option<u64>,
    /// The limit that was learned from 429s, in units a second; null where none was.
    pub learned_per_second: Option<f64>,
    /// The vendor said to stay away until then.
    pub blocked_until: Option<String>,
    /// Why: `rate` (too fast), `exhausted` (used up).
    pub blocked_why: Option<&'static str>,
    /// What that comes to for a call: `blocked`, `used_up`, `open`, `learned` (paced by what was learned), `over` (the
    /// window has ended, and nobody asked since).
    pub now: &'static str,
    /// The rules that keep to it, or the one that states it; none where it is only watched.
    pub rules: Vec<String>,
    /// When something was last heard or used of it.
    pub seen: String,
    /// The service whose process saw that.
    pub service: String,
    /// That process.
    pub pid: u32,
    /// How many processes know of the window.
    pub processes: u64,
}

/// What one process wrote down. What is missing is empty: a later version may say more, an earlier one less.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Stored {
    rule: String,
    unit: String,
    countable: bool,
    shared: bool,
    limit: Option<u64>,
    remaining: Option<u64>,
    stated_at: Option<u64>,
    opened_at: Option<u64>,
    resets_at: Option<u64>,
    window: Option<u64>,
    own: u64,
    foreign: u64,
    left: Option<u64>,
    blocked_until: Option<u64>,
    blocked_why: Option<String>,
    learned_per_second: Option<u64>,
    learned_until: Option<u64>,
    configured: bool,
    burst: Option<u64>,
    due_at: Option<u64>,
}

/// What there is to say where there is none.
pub(super) const NOTHING_STATED: &str = "No vendor stated a quota in this window, none was learned from 429s, and no \
                                         rule limited calls. Look further back with --since 7d.";

/// How far ahead a clock may be, in nanoseconds, for what is told by it to count.
const AHEAD: u64 = 60_000_000_000;

/// Windows that are shorter, in nanoseconds, are over before anybody can tell what was used of them.
const SHORT: u64 = 1_000_000_000;

/// That, by whom and when.
struct Part {
    caller: Rc<Caller>,
    at: u64,
    stored: Stored,
}

/// By vendor, credential and policy, those of vendors apart from those of rules.
type Groups = BTreeMap<(String, String, String, bool), Vec<Part>>;

/// What the vendors and the user's rules allow, and how much of it is left: the quotas that were heard of or used in the
/// window, those that hold calls up first, as many as the query's `limit` says.
///
/// # Errors
/// When there is no ledger, it cannot be read, or a filter asks for what quotas do not have.
pub fn quotas(query: &Query) -> Result<Quotas, ReportError> {
    let source = Source::open(query)?;
    let from = query.first_minute().saturating_mul(60_000_000_000);
    let (groups, unread) = read(&source, from)?;
    let mut rows = Vec::new();
    for ((vendor, credential, policy, _), mut parts) in groups {
        parts.sort_by_key(|part| Reverse(part.at));
        // Processes go on while this is read, and their clocks may be a little ahead; one that was an hour ahead is not.
        parts.retain(|part| part.at <= query.now.as_nanos().saturating_add(AHEAD));
        let heard = parts.first().is_some_and(|part| part.at >= from);
        if heard && fits(&query.filters, &source, &vendor, &parts)? {
            let label = source.label(&vendor);
            let mut row = QuotaRow::new((vendor, label, credential, policy), &parts, query.now.as_nanos());
            row.kernel_calls = kernel_calls(&source, &row, &parts)?;
            rows.push(row);
        }
    }
    rows.sort_by(|a, b| a.urgency().total_cmp(&b.urgency()));
    let notes = notes(&rows, unread, query);
    rows.truncate(query.most());
    Ok(Quotas { report: "quotas", window: query.window(), rows, notes })
}

/// What `concurrency` of rules refused: how many calls are under way at once is not used up, and so no quota with a rest.
fn full(query: &Query) -> Vec<String> {
    // By a filter that incidents do not have, nobody can tell which of them to show.
    let Ok(incidents) = incidents(query) else { return Vec::new() };
    let mut refused: BTreeMap<(String, String), (u64, i64)> = BTreeMap::new();
    for row in incidents.rows.into_iter().filter(|row| row.why == Why::Concurrency.as_str()) {
        let (calls, newest) = refused.entry((row.policy, row.label)).or_default();
        (*calls, *newest) = (*calls + row.count, (*newest).max(row.id));
    }
    let told = refused.into_iter().map(|((rule, label), (calls, newest))| {
        format!(
            "[[quota]] {rule} refused {} to {label}, because as many as its `concurrency` allows were under way: \
             farcall explain incident {newest}",
            words::count(calls, "call")
        )
    });
    told.collect()
}

fn notes(rows: &[QuotaRow], unread: u64, query: &Query) -> Vec<String> {
    let mut notes: Vec<String> = rows.iter().filter_map(QuotaRow::about_others).take(3).collect();
    let full = full(query);
    let none_full = full.is_empty();
    notes.extend(full);
    let mut stated = rows.iter().filter(|row| row.source == "vendor").peekable();
    if rows.is_empty() && none_full {
        notes.push(NOTHING_STATED.to_owned());
    } else if stated.peek().is_some() && stated.all(|row| row.rules.is_empty()) {
        notes.push(
            "What vendors state is only watched: a [[quota]] rule keeps to it (docs/quota.md).".to_owned(),
        );
    }
    if rows.len() > query.most() {
        let (more, all) = (rows.len() - query.most(), rows.len());
        notes.push(format!(
            "{more} more, which hold calls up less, with --limit {all}; vendor=NAME and caller=NAME narrow it down."
        ));
    }
    if unread > 0 {
        notes.push(format!(
            "{unread} of the ledger's quotas cannot be read: a later version of farcall wrote them."
        ));
    }
    notes
}

/// What was written since `from`, and what still says something of then: others may have counted in the same window.
fn read(source: &Source<'_>, from: u64) -> Result<(Groups, u64), ReportError> {
    let (mut groups, mut unread) = (Groups::new(), 0);
    let Some(connection) = source.connection() else { return Ok((groups, unread)) };
    let mut statement = connection.prepare(
        "SELECT vendor, credential, policy, caller, at, standing FROM quotas WHERE at >= ?1 OR ends > ?1",
    )?;
    let mut rows = statement.query([i64::try_from(from).unwrap_or(i64::MAX)])?;
    while let Some(row) = rows.next()? {
        let stored: Result<Stored, _> = serde_json::from_str(&row.get::<_, String>(5)?);
        match (source.caller(row.get(3)?), stored) {
            (Some(caller), Ok(stored)) => {
                let part = Part { caller: Rc::clone(caller), at: get(row, 4)?, stored };
                let key = (row.get(0)?, row.get(1)?, row.get(2)?, part.stored.configured);
                groups.entry(key).or_default().push(part);
            }
            _ => unread += 1,
        }
    }
    Ok((groups, unread))
}

/// Whether the filters let a quota through: by the vendor, and by any process that knows of it.
fn fits(filters: &[Filter], source: &Source<'_>, vendor: &str, parts: &[Part]) -> Result<bool, ReportError> {
    let known = Fields::VENDOR | Fields::VENDOR_TAG | Fields::CALLER;
    let mut any = false;
    for part in parts {
        let mut subject = Subject::default();
        subject.vendor = vendor;
        subject.vendor_tags = source.tags(vendor);
        subject.caller = &part.caller;
        let mut all = true;
        for filter in filters {
            all &= filter.matches_other(&subject, known, "quotas")?;
        }
        any |= all;
    }
    Ok(any)
}

/// See [`QuotaRow::kernel_calls`]; whatever the filters say of who made them.
fn kernel_calls(source: &Source<'_>, row: &QuotaRow, parts: &[Part]) -> Result<Option<u64>, ReportError> {
    if row.credential.is_empty() || row.unit != "requests" || row.foreign.is_none() {
        return Ok(None);
    }
    let of_window = parts.iter().filter(|part| part.shares_window(&parts[0]));
    let began = of_window.filter_map(|part| part.stored.opened_at).min();
    let (Some(connection), Some(began)) = (source.connection(), began) else { return Ok(None) };
    let sql = "SELECT coalesce(sum(calls), 0) FROM rollups JOIN names ON names.id = vendor
               WHERE tap = ?1 AND name = ?2 AND minute + span > ?3";
    let minute = i64::try_from(began / 60_000_000_000).unwrap_or(i64::MAX);
    let seen =
        connection.query_row(sql, params![Tap::Kernel.as_str(), row.vendor, minute], |row| get(row, 0))?;
    Ok(Some(seen))
}

impl QuotaRow {
    /// `parts` from the newest on; there is one at least.
    fn new(
        (vendor, label, credential, policy): (String, String, String, String),
        parts: &[Part],
        now: u64,
    ) -> Self {
        let newest = &parts[0];
        if newest.stored.configured {
            return Self::of_rule((vendor, label, policy), parts, now);
        }
        let present: Vec<&Part> = parts.iter().filter(|part| part.shares_window(newest)).collect();
        // Of two who heard at once, who heard of less heard later.
        let heard =
            |part: &&&Part| (part.stored.stated_at, Reverse(part.stored.remaining.unwrap_or(u64::MAX)));
        let spoken = present.iter().max_by_key(heard).unwrap_or(&newest);
        let Stored { limit, window, resets_at, left, .. } = spoken.stored;
        let lasts = resets_at.is_some_and(|at| at > now);
        // What was said before the window began is about another one.
        let in_window = lasts && spoken.stored.stated_at >= spoken.stored.opened_at;
        // What one of them cannot count, nobody can add up: tokens, of programs that are only seen from outside.
        let countable = present.iter().all(|part| part.stored.countable) && spoken.stored.is_counted();
        // Of more processes not all are known; and who has counted more than is used has counted in an earlier window,
        // too, as where each answer moves the reset ahead.
        let used = limit.zip(left).map(|(limit, left)| limit.saturating_sub(left));
        let counted = (countable && parts.len() < MAX_PROCESSES).then(|| own(&present));
        let counted =
            counted.filter(|own| used.is_none_or(|used| *own <= used.saturating_add(a_little(limit))));
        let blocked = parts.iter().filter(|part| part.stored.blocked_until > Some(now));
        let blocked = blocked.max_by_key(|part| part.stored.blocked_until).map(|part| &part.stored);
        let learned = parts.iter().find(|part| part.stored.learned_until > Some(now));
        let learned = learned.and_then(|part| part.stored.learned_per_second);
        let moment = |at: Option<u64>| at.map(time::rfc3339);
        #[allow(clippy::cast_precision_loss)] // To people.
        let thousandths = |value: u64| value as f64 / 1e3;
        Self {
            source: "vendor",
            burst: None,
            free_at: None,
            vendor,
            label,
            credential,
            policy,
            unit: newest.stored.unit.clone(),
            limit,
            window_seconds: window.map(|window| thousandths(window / 1_000_000)),
            remaining: spoken.stored.remaining.filter(|_| in_window),
            stated_at: moment(spoken.stored.stated_at),
            left: left.filter(|_| lasts),
            resets_at: moment(resets_at),
            own: counted,
            foreign: counted.map(|_| foreign(&present)),
            kernel_calls: None,
            learned_per_second: learned.map(thousandths),
            blocked_until: moment(blocked.and_then(|stored| stored.blocked_until)),
            blocked_why: blocked.map(|stored| match stored.blocked_why.as_deref() {
                Some("exhausted") => "exhausted",
                _ => "rate",
            }),
            now: match (blocked, resets_at) {
                (Some(_), _) => "blocked",
                (None, Some(_)) if !lasts && spoken.stored.is_counted() => "over",
                (None, Some(_)) if left == Some(0) => "used_up",
                (None, None) if learned.is_some() => "learned",
                (None, _) => "open",
            },
            rules: rules(&present),
            seen: time::rfc3339(newest.at),
            service: newest.caller.service.clone(),
            pid: newest.caller.pid,
            processes: present.iter().map(|part| part.caller.pid).collect::<BTreeSet<_>>().len() as u64,
        }
    }

    /// A limit that a rule states: what it says is the newest's, for who shares it shares its state, too.
    fn of_rule((vendor, label, policy): (String, String, String), parts: &[Part], now: u64) -> Self {
        let newest = &parts[0];
        let Stored { limit, window, burst, due_at, .. } = newest.stored;
        let (limit, burst) = (limit.unwrap_or(1).max(1), burst.unwrap_or(1).max(1));
        let cost = window.unwrap_or(0).div_ceil(limit).max(1);
        // A unit goes once no more than the others of a burst lie ahead of an even spread.
        let room = |due: u64| now.saturating_add(cost.saturating_mul(burst)).checked_sub(due.max(now));
        let left = due_at.map(|due| room(due).map_or(0, |room| (room / cost).min(burst)));
        let free_at = due_at.map(|due| due.saturating_sub(cost.saturating_mul(burst - 1)));
        #[allow(clippy::cast_precision_loss)] // To people.
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        Self {
            source: "rule",
            vendor,
            label,
            credential: String::new(),
            policy,
            unit: newest.stored.unit.clone(),
            limit: Some(limit),
            window_seconds: window.map(seconds),
            remaining: None,
            stated_at: None,
            left,
            burst: Some(burst),
            free_at: free_at.filter(|at| *at > now).map(time::rfc3339),
            resets_at: None,
            own: None,
            foreign: None,
            kernel_calls: None,
            learned_per_second: None,
            blocked_until: None,
            blocked_why: None,
            now: if left == Some(0) { "used_up" } else { "open" },
            rules: vec![newest.stored.rule.clone()],
            seen: time::rfc3339(newest.at),
            service: newest.caller.service.clone(),
            pid: newest.caller.pid,
            processes: parts.iter().map(|part| part.caller.pid).collect::<BTreeSet<_>>().len() as u64,
        }
    }

    /// What holds calls up comes first, then where least is left of what vendors state.
    fn urgency(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)] // To sort by.
        let share = self.left.zip(self.limit).map_or(1.0, |(left, limit)| left as f64 / limit.max(1) as f64);
        match self.now {
            "blocked" => -2.0,
            "used_up" => -1.0,
            "over" => 3.0,
            _ if self.source == "rule" => 2.0,
            _ => share,
        }
    }

    fn about_others(&self) -> Option<String> {
        // Calls that begin before a process's first answer arrived are counted by nobody.
        let few = (2 * self.processes).max(a_little(self.limit));
        let foreign = self.foreign.filter(|foreign| *foreign > few)?;
        let with = match self.credential.as_str() {
            "" => String::new(),
            credential => format!(" with the credential {credential}"),
        };
        let (unit, label, policy) = (&self.unit, &self.label, &self.policy);
        if let Some(seen) = self.kernel_calls.filter(|seen| *seen > 0) {
            let (calls, theirs) = (if seen == 1 { "call" } else { "calls" }, seen.min(foreign));
            let rest = if seen < foreign { " The rest is somebody else's." } else { "" };
            return Some(format!(
                "{foreign} {unit} of the window of `{policy}` of {label}{with} are no call of the programs here that have \
                 the library. Since it began the kernel saw {seen} {calls} to {label} of programs without; with which \
                 credential it cannot tell, so up to {theirs} of the {foreign} may be theirs.{rest}"
            ));
        }
        Some(format!(
            "Somebody else asks {label}{with}, too: {foreign} {unit} of the window of `{policy}` are no call of the \
             programs here."
        ))
    }
}

impl Part {
    /// Whether what it counted is of the same window as what the newest knows of.
    fn shares_window(&self, newest: &Self) -> bool {
        std::ptr::eq(self, newest) || self.stored.resets_at > newest.stored.opened_at
    }
}

impl Stored {
    /// Whether the window lasts for as long as what was counted in it says anything: a quota that is whole again sooner is
    /// filled up while it is used.
    fn is_counted(&self) -> bool {
        let seen = |ends: u64| self.opened_at.map(|began| ends.saturating_sub(began));
        self.resets_at.is_some_and(|ends| self.window.max(seen(ends)).is_none_or(|lasts| lasts >= SHORT))
    }
}

/// What each of those counted who count for themselves, and what is counted together.
fn counts<'p>(parts: &'p [&'p Part]) -> impl Iterator<Item = &'p Stored> {
    // They come from the newest on.
    let shared = parts.iter().find(|part| part.stored.shared);
    let alone = parts.iter().filter(|part| !part.stored.shared);
    shared.into_iter().chain(alone).map(|part| &part.stored)
}

/// What the two accounts may differ by: answers on their way, and calls for which the vendor asks nothing.
fn a_little(limit: Option<u64>) -> u64 {
    (limit.unwrap_or(0) / 20).max(5)
}

fn own(parts: &[&Part]) -> u64 {
    counts(parts).fold(0, |sum, stored| sum.saturating_add(stored.own))
}

/// What nobody here counted. Each knows how much the vendor counted since it began to, beyond its own calls; what the
/// others counted may be part of that.
fn foreign(parts: &[&Part]) -> u64 {
    let all = own(parts);
    let unexplained = |stored: &Stored| stored.foreign.saturating_sub(all - stored.own.min(all));
    counts(parts).map(unexplained).max().unwrap_or(0)
}

fn rules(parts: &[&Part]) -> Vec<String> {
    let names = parts.iter().map(|part| &part.stored.rule).filter(|rule| !rule.is_empty());
    names.collect::<BTreeSet<_>>().into_iter().cloned().collect()
}
