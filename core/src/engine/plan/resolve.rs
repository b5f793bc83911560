//! Which rules are about a call, and which states are theirs for it.

use super::{BudgetUse, CachePart, MAX_BUDGETS, MAX_QUOTAS, Part, Parts, Plan, Priced, QuotaUse};
use crate::config::Rule;
use crate::engine::Engine;
use crate::engine::account::{Account, Place, ScopeOf};
use crate::engine::rules::Rules;
use crate::engine::states::{Key, Of};
use crate::matcher::{Fields, Matcher, Partition, Subject};
use crate::policy::Verdict;
use crate::quota::dialect::Dialect;
use crate::quota::{self, User, Weight};
use crate::resilience::{self, Breaker, Concurrency, Hedge};
use crate::rollout::Kill;
use crate::units::{Timestamp, stable_hash};
use crate::{budget, cache};
use std::cmp::Reverse;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

impl Engine {
    /// What applies to the call that `subject` describes.
    pub(in crate::engine) fn plan(
        &self,
        rules: &Arc<Rules>,
        subject: &Subject<'_>,
        dialect: &Dialect,
        secret: u64,
        lane: usize,
        now: Timestamp,
    ) -> Plan {
        let vendor = subject.vendor;
        let policy = rules.policy.decide(subject);
        let warned = [(policy.would, policy.would_be), (policy.warned, Verdict::Warn)]
            .map(|(rule, verdict)| Some(self.warned(&rules.policy.rule(rule?).name, verdict, subject)));
        let mut rollouts: Vec<_> = matching(&rules.rollouts, subject)
            .filter_map(|(place, rule)| {
                let state =
                    self.states.rollouts.get(Key(rule.then.key()), || self.rollout_state(&rule.then, now));
                Some((place, state?, Arc::new(rule.then.variant.clone())))
            })
            .collect();
        // A kill switch is asked first: it stops the variants of the rules before it, too.
        rollouts.sort_by_key(|(place, ..)| rules.rollouts[*place].then.kill != Some(Kill::Calls));
        let budgets = matching(&rules.budgets, subject)
            .filter_map(|(place, rule)| {
                let account: Arc<str> = rule.then.account(&rule.account).into();
                let key = Key::of(&account).and_partition(rule.matcher.partition(), subject);
                let state = self.kept(self.states.budgets.get(key, budget::State::new))?;
                let of = of(&rule.matcher, subject);
                let partition = Arc::clone(&of.partition);
                let then = Arc::new(rule.then.clone());
                if self.states.noted_budgets.note(key, &account, of, &then, &state) {
                    self.recall_spending(&account, &partition, &then, &state, now);
                }
                let tally = state.tally(lane);
                Some(BudgetUse { place, partition, state, tally })
            })
            .take(MAX_BUDGETS)
            .collect();
        let quotas_of_our_own =
            matching(&rules.quotas, subject).filter(|(_, rule)| of_our_own(&rule.then).is_some());
        let beyond = matching(&rules.budgets, subject).count().saturating_sub(MAX_BUDGETS)
            + quotas_of_our_own.count().saturating_sub(MAX_QUOTAS - 1);
        self.tallies.unkept_rules.fetch_add(beyond as u64, Ordering::Relaxed);
        let user = User {
            customer: self.names.number(subject.customer),
            caller: self.names.number(&subject.caller.service),
            endpoint: self.names.number(subject.endpoint),
            credential: self.names.number(&crate::inspect::in_words(secret)),
        };
        let mut quotas: Vec<QuotaUse> = matching(&rules.quotas, subject)
            .filter_map(|(_, rule)| {
                let then = self.as_shared(of_our_own(&rule.then)?);
                let key = Key::of(&rule.account).and_partition(rule.matcher.partition(), subject);
                self.quota_use(key, (&rule.name, of(&rule.matcher, subject)), Arc::new(then), subject, user)
            })
            .take(MAX_QUOTAS - 1)
            .collect();
        if policy.verdict == Verdict::Throttle
            && let Some(rule) = policy.rule.map(|index| rules.policy.rule(index))
            && let Some(rate) = rule.then.throttle
        {
            let key = Key::of(&rule.account).and("policy").and_partition(rule.matcher.partition(), subject);
            let limit = quota::Rule::limit(rate.calls.into(), quota::Unit::Requests, rate.per);
            let named = (&rule.name, of(&rule.matcher, subject));
            quotas.extend(self.quota_use(key, named, Arc::new(limit), subject, user));
        }
        let keep = most_specific(&rules.quotas, subject).find(|rule| rule.then.limit.is_none()).map(|rule| {
            // Calls under way are counted once, not for each policy that the vendor states.
            let then = quota::Rule { concurrency: None, ..rule.then.clone() };
            (Arc::clone(&rule.name), Arc::new(then))
        });
        let account_key = Key::of("account").and(vendor).and_number(secret);
        let account_key = keep.as_ref().map_or(account_key, |(name, _)| account_key.and(name));
        let account_key = keep.as_ref().map_or(account_key, |(_, rule)| account_key.kept_as(rule));
        let account_of = || Account::new(vendor, secret, keep.as_ref().map(|(name, _)| name));
        let mut account = self.states.accounts.get(account_key, account_of);
        if let Some((known, (_, rule))) = account.as_mut().zip(keep.as_ref())
            && known.is_cut_off(rule)
        {
            let again = known.again(|key, scope| self.stated_state(key, scope, rule));
            *known = self.states.accounts.replace(account_key, again);
        }
        let account = account.unwrap_or_else(|| Arc::new(account_of()));
        let weight = keep.as_ref().map_or_else(Weight::default, |(_, rule)| rule.weight(subject.customer));
        let known = subject.customer != crate::attribution::UNKNOWN;
        let parts = self.parts(rules, subject);
        let price = priced(rules, vendor, subject.endpoint);
        let park = most_specific(&rules.outbox, subject)
            .find_map(|rule| Some((Arc::clone(&rule.name), rule.then.park.clone()?)));
        let critical = most_specific(&rules.outbox, subject)
            .find_map(|rule| Some((Arc::clone(&rule.name), rule.then.critical?)))
            .and_then(|(name, critical)| critical.then_some(name));
        let own_header = parts.retry.as_ref().and_then(|retry| retry.rule.idempotency_header.clone());
        let own_header = park.as_ref().and_then(|(_, park)| park.idempotency_header.clone()).or(own_header);
        let cache = most_specific(&rules.caches, subject).next().map(|rule| {
            let customer = known.then(|| subject.customer.into()).filter(|_| !rule.then.share_customers);
            let label = Arc::new(cache::Label::new(vendor.into(), subject.endpoint.into(), customer));
            let is_first = policy.is_silent() && matching(&rules.rollouts, subject).next().is_none();
            CachePart { name: Arc::clone(&rule.name), rule: rule.then.clone(), label, is_first }
        });
        let in_tokens = |limit: &quota::Limit| limit.unit == quota::Unit::Tokens;
        let counts_tokens = matching(&rules.budgets, subject)
            .any(|(_, rule)| rule.then.limit.unit == budget::Unit::Tokens)
            || matching(&rules.quotas, subject)
                .any(|(_, rule)| rule.then.limit.as_ref().is_some_and(in_tokens));
        Plan {
            park,
            critical,
            cache,
            caches: !rules.caches.is_empty(),
            idempotency_header: self.idempotency_header(vendor, own_header.as_deref()),
            lane,
            place: u16::MAX,
            policy,
            warned,
            rollouts,
            faults: matching(&rules.faults, subject).map(|(place, _)| place).collect(),
            budgets,
            quotas,
            keep,
            scoped: dialect.has_scopes(),
            endpoint_number: Place::number(subject.endpoint),
            account,
            resilience: parts,
            asks_model: matches!(price, Priced::ByModel)
                || dialect.asks_model()
                || counts_tokens
                || matching(&rules.budgets, subject).any(|(_, rule)| !rule.then.downgrades.is_empty()),
            counts_tokens,
            price,
            customer: stable_hash(0, subject.customer.as_bytes()),
            weight,
            user,
            customer_name: known.then(|| subject.customer.into()),
            vendor_name: vendor.into(),
            endpoint_name: subject.endpoint.into(),
            rules: Arc::clone(rules),
            copied: OnceLock::new(),
            refreshed: OnceLock::new(),
        }
    }

    /// Counts a rule that goes unasked.
    pub(in crate::engine) fn kept<S>(&self, state: Option<S>) -> Option<S> {
        if state.is_none() {
            self.tallies.unkept_rules.fetch_add(1, Ordering::Relaxed);
        }
        state
    }

    fn quota_use(
        &self,
        key: Key,
        (name, of): (&Arc<str>, Of),
        rule: Arc<quota::Rule>,
        subject: &Subject<'_>,
        user: User,
    ) -> Option<QuotaUse> {
        let state = self.kept_state(key, &rule)?;
        self.tell_home(key, &rule);
        self.states.noted_quotas.note(key.kept_as(&rule), name, of, &rule, &state);
        let (tally, weight) = (state.tally(user), rule.weight(subject.customer));
        let rate = rule.limit.map(|limit| limit.rate(rule.burst));
        Some(QuotaUse { name: Arc::clone(name), rule, state, tally, weight, rate })
    }

    /// The state of a quota that several plans use; looked for again where what is shared could not be had.
    fn kept_state(&self, key: Key, rule: &quota::Rule) -> Option<Arc<quota::State>> {
        let make = || self.quota_state(key, rule);
        let kept = key.kept_as(rule);
        let state = self.kept(self.states.quotas.get(kept, make))?;
        match rule.on_error == quota::OnError::Refuse && state.is_cut_off() {
            true => Some(self.states.quotas.replace(kept, make())),
            false => Some(state),
        }
    }

    /// The state of a quota that the vendor stated.
    pub(in crate::engine) fn stated_state(
        &self,
        key: Key,
        scope: ScopeOf,
        rule: &quota::Rule,
    ) -> Arc<quota::State> {
        // Only what all credentials use together belongs to more than one account.
        let kept = if scope == ScopeOf::Vendor { self.kept_state(key, rule) } else { None };
        kept.unwrap_or_else(|| Arc::new(self.quota_state(key, rule)))
    }

    fn parts(&self, rules: &Rules, subject: &Subject<'_>) -> Parts {
        let mut parts = Parts::default();
        for rule in most_specific(&rules.resilience, subject) {
            let (name, then) = (&rule.name, &rule.then);
            let key = |kind: &str| {
                Key::of(&rule.account)
                    .and(kind)
                    .and(subject.vendor)
                    .and_partition(rule.matcher.partition(), subject)
            };
            parts.deadline = parts.deadline.or(then.deadline);
            parts.attempt_timeout = parts.attempt_timeout.or(then.attempt_timeout);
            fn part<R: Clone, S>(name: &Arc<str>, rule: &R, state: Option<Arc<S>>) -> Option<Part<R, S>> {
                state.map(|state| Part { name: Arc::clone(name), rule: rule.clone(), state })
            }
            if let (None, Some(retry)) = (&parts.retry, &then.retry) {
                let budget = || resilience::Budget::with_lanes(self.shards.len());
                parts.retry = part(name, retry, self.states.retries.get(key("retry"), budget));
            }
            if let (None, Some(breaker)) = (&parts.breaker, &then.breaker) {
                let key = key("breaker").and(subject.endpoint);
                parts.breaker = part(name, breaker, self.states.breakers.get(key, Breaker::new));
            }
            if let (None, Some(hedge)) = (&parts.hedge, &then.hedge) {
                let key = key("hedge").and(subject.endpoint);
                parts.hedge = part(name, hedge, self.states.hedges.get(key, Hedge::new));
            }
            if let (None, Some(failover)) = (&parts.failover, &then.failover) {
                parts.failover = Some((failover.clone(), Arc::new(failover.changes.clone())));
            }
            if let (None, Some(limit)) = (&parts.concurrency, &then.concurrency) {
                let state = self.states.concurrency.get(key("concurrency"), Concurrency::new);
                parts.concurrency = part(name, limit, state);
            }
        }
        parts
    }
}

/// What a rule limits whatever the vendor says; `None` where it says only how the vendor's word is kept to.
fn of_our_own(rule: &quota::Rule) -> Option<quota::Rule> {
    let alone = || quota::Rule {
        concurrency: rule.concurrency,
        max_wait: rule.max_wait,
        shared: rule.shared,
        on_error: rule.on_error,
        ..quota::Rule::default()
    };
    match rule.limit {
        Some(_) => Some(rule.clone()),
        None => rule.concurrency.map(|_| alone()),
    }
}

fn priced(rules: &Rules, vendor: &str, endpoint: &str) -> Priced {
    if !rules.prices.has(vendor) {
        return Priced::Never;
    }
    match rules.prices.find(vendor, endpoint, "") {
        Some(price) if price.models.is_empty() && !price.asks_response() && !price.asks_volume() => {
            // A price for a model would come before it; a call that names one is not this vendor's.
            let by_model =
                rules.prices.iter().any(|other| other.vendor == vendor && !other.models.is_empty());
            match price.each() {
                _ if by_model => Priced::ByModel,
                Some(money) => Priced::Each(money),
                None => Priced::Same(Box::new(price.clone())),
            }
        }
        _ => Priced::ByModel,
    }
}

fn matching<'r, T>(
    rules: &'r [Rule<T>],
    subject: &Subject<'_>,
) -> impl Iterator<Item = (usize, &'r Rule<T>)> {
    rules.iter().enumerate().filter(|(_, rule)| rule.matcher.matches(subject))
}

/// What the state of a rule with this matcher is about, of which this call asks.
fn of(matcher: &Matcher, subject: &Subject<'_>) -> Of {
    let names_one = matcher.written().any(|(key, texts)| {
        key == "vendor" && matches!(texts, [text] if text.eq_ignore_ascii_case(subject.vendor))
    });
    Of {
        partition: in_words(matcher.partition(), subject).into(),
        vendor: subject.vendor.into(),
        one_vendor: names_one || matcher.partition().fields().contains(Fields::VENDOR),
    }
}

/// What a state is kept apart by, as people read it: `customer=acme`.
fn in_words(partition: &Partition, subject: &Subject<'_>) -> String {
    let keys = partition.fields().without(Fields::TAG);
    let keys = keys.iter().map(|field| field.as_str().to_owned());
    let keys = keys.chain(partition.tags().map(|tag| format!("tag.{tag}")));
    let pairs = keys.zip(partition.values(subject)).map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(" ")
}

/// The rules that match, the most specific first; of equals the earlier one.
fn most_specific<'r, T>(rules: &'r [Rule<T>], subject: &Subject<'_>) -> impl Iterator<Item = &'r Rule<T>> {
    let mut matching: Vec<_> = matching(rules, subject).map(|(_, rule)| rule).collect();
    matching.sort_by_key(|rule| Reverse(rule.matcher.specificity()));
    matching.into_iter()
}
