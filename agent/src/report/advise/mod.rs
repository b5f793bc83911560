//! Which calls need not have been made, and what else is worth a line of configuration: each with what it is worth,
//! what it rests on, what it risks, and the lines.

mod caching;
mod config;
mod credentials;
mod facts;
mod found;
mod loops;
mod protection;
mod storms;

use super::findings::Finding;
use super::numbers::decimal;
use super::source::Source;
use super::{Query, ReportError, Window};
use facts::{Facts, Seen};
use farcall::Currency;
use serde::Serialize;
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::time::Duration;

/// What to do, and why.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Advice {
    /// `advise`.
    pub report: &'static str,
    /// The time that it covers.
    pub window: Window,
    /// What is worth most first.
    pub rows: Vec<Advised>,
    /// How far answers could be compared.
    pub answers: Answers,
    /// What a reader should know, in sentences.
    pub notes: Vec<String>,
}

/// How far answers could be compared with earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Answers {
    /// Calls that libraries made.
    pub calls: u64,
    /// Of these, those that were compared; an estimate where an endpoint has very many URLs.
    pub compared: u64,
    /// Calls that should have been and could not.
    pub not_compared: u64,
}

/// One thing to do.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Advised {
    /// The rule that found it; docs/advise.md lists them.
    pub rule: &'static str,
    /// What it is, in a sentence or two.
    pub sentence: String,
    /// The vendor that it is about; null where it is about none.
    pub vendor: Option<String>,
    /// The endpoint that it is about; null likewise.
    pub endpoint: Option<String>,
    /// The services that it is about.
    pub callers: Vec<String>,
    /// What it is worth, over the window.
    pub worth: Worth,
    /// What can be wrong about it, or go wrong with it; null where nothing can.
    pub risk: Option<String>,
    /// What to do.
    pub remedy: String,
    /// The lines of `farcall.toml` that do it; null where none can.
    pub config: Option<String>,
    /// The numbers that it rests on.
    pub evidence: Map<String, Value>,
}

/// What would be saved, or is at stake.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Worth {
    /// Calls that would not be made, or that are concerned.
    pub calls: u64,
    /// Money that would not be spent, as an exact decimal number; null where nothing is known of it.
    pub cost: Option<String>,
    /// The currency of `cost`.
    pub currency: String,
    /// Seconds that nobody would wait.
    pub seconds: f64,
    /// Requests of the vendor's quota that would not be used.
    pub quota: u64,
}

/// An [`Advised`] under way.
struct Draft {
    finding: Finding,
    calls: u64,
    /// In nano-units; `None` where nothing is known.
    cost: Option<i64>,
    time: Duration,
    quota: u64,
    risk: Option<String>,
    remedy: String,
    config: Option<String>,
    /// Nothing that was seen speaks for it.
    uncertain: bool,
}

impl Draft {
    /// To be done because of a finding that concerns so many calls.
    fn new(finding: Finding, calls: u64, remedy: impl Into<String>) -> Self {
        Self {
            finding,
            calls,
            cost: None,
            time: Duration::ZERO,
            quota: 0,
            risk: None,
            remedy: remedy.into(),
            config: None,
            uncertain: false,
        }
    }

    fn done(self) -> Advised {
        let Finding { rule, sentence, vendor, endpoint, callers, evidence } = self.finding;
        let worth = Worth {
            calls: self.calls,
            cost: self.cost.map(decimal),
            currency: Currency::USD.to_string(),
            seconds: (self.time.as_secs_f64() * 1e3).round() / 1e3,
            quota: self.quota,
        };
        let Self { risk, remedy, config, .. } = self;
        Advised { rule, sentence, vendor, endpoint, callers, worth, risk, remedy, config, evidence }
    }
}

/// What to do, what is worth most first: money, then time, then calls; last what may well be in order as it is. At
/// most [`Query::limit`] of them.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn advise(query: &Query) -> Result<Advice, ReportError> {
    let source = Source::open(query)?;
    let facts = Facts::read(&source)?;
    let mut drafts = Vec::new();
    caching::find(&source, &facts, &mut drafts);
    protection::find(&source, &facts, &mut drafts);
    storms::find(&source, &facts, &mut drafts);
    loops::find(&source, &facts, &mut drafts);
    credentials::find(&source, &facts, &mut drafts);
    found::find(query, &facts, &mut drafts)?;
    drafts.sort_by_key(|draft| {
        let worth = (draft.cost.unwrap_or_default(), draft.time, draft.config.is_some(), draft.calls);
        (draft.uncertain, Reverse(worth))
    });
    let mut notes: Vec<String> = source.config_problem.clone().into_iter().collect();
    let all = drafts.len();
    if all > query.most() {
        notes.push(format!("{} more with --limit {all}.", all - query.most()));
        drafts.truncate(query.most());
    }
    let answers = answers(&facts);
    if answers.not_compared > 0 {
        notes.push(format!(
            "{} could not be compared with earlier ones: nobody showed their headers, or their answers vary by more \
             than is known of a request. In Python and Node, `[advise] compare = \"all\"` in farcall.toml shows all.",
            super::findings::words::count(answers.not_compared, "call")
        ));
    }
    let rows = drafts.into_iter().map(Draft::done).collect();
    Ok(Advice { report: "advise", window: query.window(), rows, answers, notes })
}

fn answers(facts: &Facts) -> Answers {
    let mut answers = Answers::default();
    for Seen { sums, .. } in facts.vendors.values() {
        answers.calls += sums.calls;
        answers.compared += sums.compared;
        answers.not_compared += sums.apart;
    }
    answers
}
