//! What would this file have done to the ledger?

use super::{alike, mode, open};
use crate::report::numbers::decimal;
use crate::report::{Query, ReportError, Window};
use farcall::catalogue::Catalogue;
use farcall::config::Rule;
use farcall::matcher::Fields;
use farcall::policy::{Condition, Effects, Observed, Policy, PolicySet, Verdict, backtest};
use farcall::{Config, Currency};
use serde::Serialize;

/// What a policy would have done to the calls of a window.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Backtest {
    /// Which report this is: `policy-backtest`.
    pub report: &'static str,
    /// The time that it covers.
    pub window: Window,
    /// A row for each rule of the file and what it would have done, in the order of the file.
    pub rows: Vec<BacktestRow>,
    /// All calls that were looked at.
    pub calls: u64,
    /// Calls of them that would have been refused.
    pub denied: u64,
    /// Calls of those denied that a policy refused already, at the time.
    pub denied_already: u64,
    /// Calls that would have been throttled.
    pub throttled: u64,
    /// What the refused ones cost as far as known, in `currency`, as an exact decimal number; null where that is
    /// not known of any.
    pub denied_cost: Option<String>,
    /// Customers of refused calls.
    pub denied_customers: Vec<String>,
    /// The currency of all costs.
    pub currency: String,
    /// What a reader should know, in sentences.
    pub notes: Vec<String>,
}

/// What one rule would have done.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BacktestRow {
    /// The rule's name.
    pub rule: String,
    /// Its line in the file.
    pub line: usize,
    /// `allow`, `warn`, `throttle` or `deny`.
    pub verdict: &'static str,
    /// `enforce` or `report`; in report mode the row says what it would have done, were it enforced.
    pub mode: &'static str,
    /// Calls that it decided, or warned of.
    pub calls: u64,
    /// What they cost as far as known; null where that is not known of any.
    pub cost: Option<String>,
    /// Calls of them whose cost is not known.
    pub cost_unknown_calls: u64,
    /// Their customers, at most 100.
    pub customers: Vec<String>,
    /// How many customers.
    pub customer_count: usize,
    /// Their vendors.
    pub vendors: Vec<String>,
}

const MAX_NAMED: usize = 100;

/// What the ledger does not keep of a call, and so no rule can be tried by.
const UNKNOWN: [Fields; 5] = [Fields::HOST, Fields::CREDENTIAL, Fields::ORIGIN, Fields::DATA, Fields::BYTES];

/// What the policy of a configuration would have done to the calls of the window that the filters let through.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn policy_backtest(query: &Query, config: &Config) -> Result<Backtest, ReportError> {
    let source = open(query)?;
    let policy = PolicySet::new(config.policies.clone());
    let own = Catalogue::new(config.vendors.clone());
    let known = |vendor: &str| {
        let own = own.vendors().iter().find(|known| known.name == vendor);
        own.or_else(|| source.find_vendor(vendor))
    };
    let alike = alike(&source, true)?;
    let mut observed = Vec::with_capacity(alike.len());
    for calls in &alike {
        let subject = calls.subject(known(&calls.vendor));
        let known = calls.calls.saturating_sub(calls.cost_unknown);
        if known > 0 || calls.cost != 0 {
            observed.push(Observed::new(subject, known).cost(calls.cost.into(), CURRENCY));
        }
        if calls.cost_unknown > 0 {
            observed.push(Observed::new(subject, calls.cost_unknown));
        }
    }
    let (verdicts, rules) = backtest(&policy, observed.iter().copied());
    let mut rows = Vec::new();
    let mut decided_by_rules = 0;
    for (place, rule) in policy.rules().iter().enumerate() {
        let effects = rules.iter().find(|(index, _)| index.get() == place).map(|(_, effects)| effects);
        let reports = mode(rule.then.mode) == "report" && stops(rule);
        let effects = effects.map(|effects| if reports { &effects.reported } else { &effects.decided });
        rows.push(BacktestRow::new(rule, effects));
    }
    let mut denied_already = 0;
    for calls in &alike {
        let decision = policy.decide(&calls.subject(known(&calls.vendor)));
        if decision.rule.is_some() {
            decided_by_rules += calls.calls;
        }
        if decision.verdict == Verdict::Deny {
            denied_already += calls.refused;
        }
    }
    let calls: u64 = alike.iter().map(|calls| calls.calls).sum();
    let of = |verdict: Verdict| verdicts.get(&verdict).cloned().unwrap_or_default();
    let denied = of(Verdict::Deny);
    let mut notes = Vec::new();
    let untried: Vec<String> = policy
        .rules()
        .iter()
        .filter(|rule| {
            let when = rule.then.when.as_ref().map_or(Fields::NONE, Condition::depends);
            UNKNOWN.into_iter().any(|field| (rule.matcher.depends() | when).contains(field))
        })
        .map(|rule| format!("`{}`", rule.name))
        .collect();
    if !untried.is_empty() {
        notes.push(format!(
            "Not tried as they are: {}. The ledger keeps no host, credential, data or size of single \
             calls, so what these rules say about that was compared with nothing.",
            untried.join(", ")
        ));
    }
    if rows.iter().any(|row| row.mode == "report" && row.calls > 0) {
        notes.push("Rules in report mode refuse nothing: their rows say what they would do.".to_owned());
    }
    if calls > decided_by_rules && !policy.is_empty() {
        notes.push(format!(
            "No rule that is enforced is about {} of the {} calls: they pass.",
            crate::report::render::grouped(calls - decided_by_rules),
            crate::report::render::grouped(calls)
        ));
    }
    Ok(Backtest {
        report: "policy-backtest",
        window: query.window(),
        rows,
        calls,
        denied: denied.calls,
        denied_already,
        throttled: of(Verdict::Throttle).calls,
        denied_cost: cost(&denied),
        denied_customers: denied.customers.into_iter().take(MAX_NAMED).collect(),
        currency: CURRENCY.to_owned(),
        notes,
    })
}

/// The ledger's one currency.
const CURRENCY: &str = "USD";

fn stops(rule: &Rule<Policy>) -> bool {
    matches!(rule.then.verdict, Verdict::Deny | Verdict::Throttle)
}

fn cost(effects: &Effects) -> Option<String> {
    debug_assert_eq!(CURRENCY, Currency::USD.to_string());
    let nanos = effects.cost.get(CURRENCY)?;
    Some(decimal(i64::try_from(*nanos).unwrap_or(i64::MAX)))
}

impl BacktestRow {
    fn new(rule: &Rule<Policy>, effects: Option<&Effects>) -> Self {
        let nothing = Effects::default();
        let effects = effects.unwrap_or(&nothing);
        Self {
            rule: rule.name.to_string(),
            line: rule.line,
            verdict: rule.then.verdict.as_str(),
            mode: mode(rule.then.mode),
            calls: effects.calls,
            cost: cost(effects),
            cost_unknown_calls: effects.calls_of_unknown_cost,
            customers: effects.customers.iter().take(MAX_NAMED).cloned().collect(),
            customer_count: effects.customers.len(),
            vendors: effects.vendors.iter().cloned().collect(),
        }
    }
}
