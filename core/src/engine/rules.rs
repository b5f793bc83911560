//! All rules of a configuration, made ready for calls.

use crate::config::{Config, Rule};
use crate::cost::Prices;
use crate::inspect::Carried;
use crate::matcher::Fields;
use crate::policy::PolicySet;
use crate::{budget, cache, fault, outbox, quota, resilience, rollout};

/// The rules in force. Never changed: a reload puts another set in its place.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(super) policy: PolicySet,
    pub(super) rollouts: Vec<Rule<rollout::Rule>>,
    pub(super) faults: Vec<Rule<fault::Rule>>,
    pub(super) budgets: Vec<Rule<budget::Rule>>,
    pub(super) quotas: Vec<Rule<quota::Rule>>,
    pub(super) resilience: Vec<Rule<resilience::Rule>>,
    pub(super) caches: Vec<Rule<cache::Rule>>,
    pub(super) outbox: Vec<Rule<outbox::Rule>>,
    pub(super) data: Vec<Rule<Carried>>,
    pub(super) prices: Prices,
    /// What any of them looks at.
    pub(super) depends: Fields,
}

impl Rules {
    pub(super) fn new(config: &Config) -> Self {
        fn fields<T>(rules: &[Rule<T>]) -> Fields {
            rules.iter().fold(Fields::NONE, |all, rule| all | rule.matcher.depends())
        }
        let policy = PolicySet::new(config.policies.clone());
        let faults = if config.allow_faults { config.faults.clone() } else { Vec::new() };
        Self {
            depends: policy.depends()
                | fields(&config.rollouts)
                | fields(&faults)
                | fields(&config.budgets)
                | fields(&config.quotas)
                | fields(&config.resilience)
                | fields(&config.caches)
                | fields(&config.outbox)
                | fields(&config.data),
            policy,
            rollouts: config.rollouts.clone(),
            faults,
            budgets: config.budgets.clone(),
            quotas: config.quotas.clone(),
            resilience: config.resilience.clone(),
            caches: config.caches.clone(),
            outbox: config.outbox.clone(),
            data: config.data.clone(),
            prices: Prices::new(config.own_prices()),
        }
    }

    /// Whether any of them can make a call other than it is.
    pub(super) fn decide(&self) -> bool {
        !(self.policy.is_empty()
            && self.rollouts.is_empty()
            && self.faults.is_empty()
            && self.budgets.is_empty()
            && self.quotas.is_empty()
            && self.resilience.is_empty()
            && self.caches.is_empty()
            && self.outbox.is_empty())
    }
}
