//! What applies to a call: the rules that are about it, and the states that belong to it. Resolved once, then kept for
//! all calls that agree in everything that rules look at.

mod resolve;

use super::account::Account;
use super::flow::Flow;
use super::rules::Rules;
use super::warned::Warned;
use crate::call::Changes;
use crate::cost::Price;
use crate::matcher::Fields;
use crate::policy::Decision;
use crate::quota::{self, User, Weight};
use crate::resilience::{self, Breaker, Concurrency, Hedge};
use crate::rollout::Rollout;
use crate::units::{Money, stable_hash};
use crate::{budget, cache, outbox};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Quotas and budgets of one call, the first ones of the file; rules beyond that are not asked, and counted
/// (`unkept_rules`).
pub(super) const MAX_QUOTAS: usize = 4;
pub(super) const MAX_BUDGETS: usize = 4;

/// What applies to a call.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) rules: Arc<Rules>,
    /// Which shard's threads make its calls.
    pub(super) lane: usize,
    /// Where among the shard's plans it lies, where it does.
    pub(super) place: u16,
    pub(super) policy: Decision,
    /// The rules of the policy that tell something of a call that they let pass: in report mode, then one that warns.
    pub(super) warned: [Option<Arc<Warned>>; 2],
    /// The kill switches first, then in the order of the file.
    pub(super) rollouts: Vec<(usize, Arc<Rollout>, Arc<Changes>)>,
    pub(super) faults: Vec<usize>,
    pub(super) budgets: Vec<BudgetUse>,
    /// What limits itself by rules: `limit` of `[[quota]]`, and `throttle` of `[[policy]]`.
    pub(super) quotas: Vec<QuotaUse>,
    /// How the vendor's own quotas are kept to; `None` where no rule says: then they are only watched.
    pub(super) keep: Option<(Arc<str>, Arc<quota::Rule>)>,
    /// What the vendor said to this credential.
    pub(super) account: Arc<Account>,
    /// Whether some of the vendor's quotas are about a part of the credential's calls.
    pub(super) scoped: bool,
    /// Stands for the endpoint there.
    pub(super) endpoint_number: u64,
    pub(super) resilience: Parts,
    /// Whether and how it is parked when it fails.
    pub(super) park: Option<(Arc<str>, outbox::Park)>,
    /// The rule that has somebody told when it fails.
    pub(super) critical: Option<Arc<str>>,
    /// How its answers are kept.
    pub(super) cache: Option<CachePart>,
    /// Whether any rule keeps answers: then a call that changes something makes them useless.
    pub(super) caches: bool,
    /// What its calls cost.
    pub(super) price: Priced,
    /// Whether the request's model matters: to a price, or to a budget that knows a cheaper one.
    pub(super) asks_model: bool,
    /// Whether a budget or a quota counts the tokens that its calls use.
    pub(super) counts_tokens: bool,
    /// The header by which the vendor takes an idempotency key.
    pub(super) idempotency_header: Option<Arc<str>>,
    /// The customer, in all processes of all hosts.
    pub(super) customer: u64,
    pub(super) weight: Weight,
    pub(super) user: User,
    pub(super) customer_name: Option<Arc<str>>,
    pub(super) vendor_name: Arc<str>,
    pub(super) endpoint_name: Arc<str>,
    /// What applies to shadow copies of its calls, once there is one.
    pub(super) copied: OnceLock<Arc<Plan>>,
    /// What applies to the calls that ask whether a stale answer to its calls is still good, once there is one.
    pub(super) refreshed: OnceLock<Arc<Plan>>,
}

/// A call's plan, and how far it has come with it.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) plan: Arc<Plan>,
    pub(super) flow: Box<Flow>,
}

/// What calls cost.
#[derive(Clone, Debug)]
pub(super) enum Priced {
    /// Nobody knows.
    Never,
    /// The same for each call, and nothing for one that is answered with an error.
    Each(Money),
    /// All of them by the same rates, whatever their bodies say.
    Same(Box<Price>),
    /// It depends on the model, on what was used, or on the month's volume.
    ByModel,
}

/// A budget that a rule states.
#[derive(Clone, Debug)]
pub(super) struct BudgetUse {
    /// The rule's place.
    pub(super) place: usize,
    /// What its account is kept apart by, in words: `customer=acme`; empty where it is one for all.
    pub(super) partition: Arc<str>,
    pub(super) state: Arc<budget::State>,
    /// What the calls of this lane were charged.
    pub(super) tally: Arc<budget::Tally>,
}

/// A quota that a rule states.
#[derive(Clone, Debug)]
pub(super) struct QuotaUse {
    pub(super) name: Arc<str>,
    pub(super) rule: Arc<quota::Rule>,
    pub(super) state: Arc<quota::State>,
    /// What the calls of this plan used of it.
    pub(super) tally: Arc<quota::Tally>,
    pub(super) weight: Weight,
    /// The limit's.
    pub(super) rate: Option<quota::Rate>,
}

/// Each part of `[[resilience]]`, from the most specific rule that has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) deadline: Option<Duration>,
    pub(super) attempt_timeout: Option<Duration>,
    pub(super) retry: Option<Part<resilience::RetryRule, resilience::Budget>>,
    pub(super) breaker: Option<Part<resilience::BreakerRule, Breaker>>,
    pub(super) hedge: Option<Part<resilience::HedgeRule, Hedge>>,
    pub(super) failover: Option<(resilience::FailoverRule, Arc<Changes>)>,
    pub(super) concurrency: Option<Part<resilience::ConcurrencyRule, Concurrency>>,
}

/// How answers are kept, by the most specific rule.
#[derive(Clone, Debug)]
pub(super) struct CachePart {
    pub(super) name: Arc<str>,
    pub(super) rule: cache::Rule,
    pub(super) label: Arc<cache::Label>,
    /// Whether no other rule has a say before the cache: nothing is denied, warned of, chosen or broken on purpose.
    pub(super) is_first: bool,
}

/// A part and its state.
#[derive(Debug)]
pub(super) struct Part<R, S> {
    pub(super) name: Arc<str>,
    pub(super) rule: R,
    pub(super) state: Arc<S>,
}

impl<R: Clone, S> Clone for Part<R, S> {
    fn clone(&self) -> Self {
        Self { name: Arc::clone(&self.name), rule: self.rule.clone(), state: Arc::clone(&self.state) }
    }
}

impl Plan {
    /// How much of a request's body is kept for another attempt.
    pub(super) fn replay_bytes(&self) -> u64 {
        self.stated_replay_bytes().unwrap_or(resilience::REPLAY_BYTES)
    }

    /// Whether a body of this size that the adapter has anyway is sent again; of one whose size is not known its word
    /// holds.
    pub(super) fn replays(&self, size: Option<u64>) -> bool {
        let bound = self.stated_replay_bytes();
        size.zip(bound).is_none_or(|(size, bound)| size <= bound)
    }

    fn stated_replay_bytes(&self) -> Option<u64> {
        self.resilience.retry.as_ref().and_then(|retry| retry.rule.replay_bytes)
    }

    /// Whether a rule of ours goes by what the request's body says.
    pub(super) fn judges_content(&self) -> bool {
        self.counts_tokens
            || self.budgets.iter().map(|budget| &self.rules.budgets[budget.place].then).any(|budget| {
                !budget.downgrades.is_empty()
                    || matches!(budget.limit.unit, budget::Unit::Money(_))
                        && matches!(self.price, Priced::ByModel)
            })
    }
}

/// What of a call beside its names tells plans apart: what rules look at that changes from call to call.
pub(super) fn extra(depends: Fields, method: &str, host: &str, bytes: Option<u64>) -> u64 {
    let extra = method.as_bytes().iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
    match depends.contains(Fields::HOST) || depends.contains(Fields::BYTES) {
        true => extra_of(depends, extra, host, bytes),
        false => extra,
    }
}

#[inline(never)]
fn extra_of(depends: Fields, mut extra: u64, host: &str, bytes: Option<u64>) -> u64 {
    if depends.contains(Fields::HOST) {
        extra = stable_hash(extra, host.as_bytes());
    }
    if depends.contains(Fields::BYTES) {
        extra = stable_hash(extra, &bytes.unwrap_or(u64::MAX).to_le_bytes());
    }
    extra
}
