//! What a policy would have done to calls that were made.

use super::{PolicySet, RuleIndex, Verdict};
use crate::matcher::Subject;
use std::collections::{BTreeMap, BTreeSet};

/// Calls of the ledger that are alike: one rollup.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Observed<'a> {
    /// What they had in common. A rollup knows no body, so that conditions on bytes and data see none.
    pub subject: Subject<'a>,
    /// How many there were.
    pub calls: u64,
    /// What they cost, in nano-units of the currency; `None` where it is not known.
    pub cost: Option<i128>,
    /// The currency of the cost (ISO 4217); empty where there is none.
    pub currency: &'a str,
}

impl<'a> Observed<'a> {
    /// Calls whose cost is not known.
    #[must_use]
    pub fn new(subject: Subject<'a>, calls: u64) -> Self {
        Self { subject, calls, cost: None, currency: "" }
    }

    /// Sets what they cost.
    #[must_use]
    pub fn cost(mut self, nanos: i128, currency: &'a str) -> Self {
        self.cost = Some(nanos);
        self.currency = currency;
        self
    }
}

/// Calls and whom they concern. Sums saturate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Effects {
    /// How many calls.
    pub calls: u64,
    /// Calls of them whose cost is not known.
    pub calls_of_unknown_cost: u64,
    /// What the others cost, in nano-units of each currency.
    pub cost: BTreeMap<String, i128>,
    /// Their customers.
    pub customers: BTreeSet<String>,
    /// Their vendors.
    pub vendors: BTreeSet<String>,
}

impl Effects {
    fn add(&mut self, row: &Observed<'_>) {
        self.calls = self.calls.saturating_add(row.calls);
        match row.cost {
            Some(nanos) => {
                let sum = self.cost.entry(row.currency.to_owned()).or_default();
                *sum = sum.saturating_add(nanos);
            }
            None => self.calls_of_unknown_cost = self.calls_of_unknown_cost.saturating_add(row.calls),
        }
        if !self.customers.contains(row.subject.customer) {
            self.customers.insert(row.subject.customer.to_owned());
        }
        if !self.vendors.contains(row.subject.vendor) {
            self.vendors.insert(row.subject.vendor.to_owned());
        }
    }
}

/// What one rule would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuleEffects {
    /// The calls that it decided, or warned of.
    pub decided: Effects,
    /// The calls that it would have denied or throttled, were it not in report mode.
    pub reported: Effects,
}

/// What the policy would have done to all of `rows`: for each verdict, and for each rule by its place in the
/// file. A rule that is not in it would have done nothing.
#[must_use]
pub fn backtest<'a>(
    policy: &PolicySet,
    rows: impl IntoIterator<Item = Observed<'a>>,
) -> (BTreeMap<Verdict, Effects>, BTreeMap<RuleIndex, RuleEffects>) {
    let mut verdicts: BTreeMap<Verdict, Effects> = BTreeMap::new();
    let mut rules: BTreeMap<RuleIndex, RuleEffects> = BTreeMap::new();
    for row in rows {
        let decision = policy.decide(&row.subject);
        verdicts.entry(decision.verdict).or_default().add(&row);
        if let Some(rule) = decision.rule {
            rules.entry(rule).or_default().decided.add(&row);
        }
        if let Some(rule) = decision.warned.filter(|rule| decision.rule != Some(*rule)) {
            rules.entry(rule).or_default().decided.add(&row);
        }
        if let Some(rule) = decision.would {
            rules.entry(rule).or_default().reported.add(&row);
        }
    }
    (verdicts, rules)
}
