//! What stands between a call and the wire: one small function for each concept, in the order in which
//! [`pipeline`](super::pipeline) asks them. Each may be asked again after a wait, and then goes on where it was.

use super::Engine;

use super::account::Tokens;
use super::events::What;
use super::faults::{self, StoodIn};
use super::flow::Flow;
use super::plan::{BudgetUse, Part, Parts, Plan, Priced};
use super::step::Attempt;
use crate::budget;
use crate::cache::Answer;
use crate::call::{Changes, Outcome, Refusal, RefusedBy};
use crate::config::Rule;
use crate::cost::Ahead;
use crate::policy::{OnError, Verdict as PolicyVerdict};
use crate::quota::{self, Ask, Verdict as QuotaVerdict};
use crate::resilience::{
    BreakerVerdict, Concurrency, ConcurrencyRule, ConcurrencyVerdict, FailoverWhen, is_safe,
};
use crate::rollout::RolloutVerdict;
use crate::units::{Currency, Money, Timestamp};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a call is not sent now.
#[derive(Debug)]
pub(super) enum Halt {
    Wait(Timestamp),
    Refuse(Refusal),
    /// A fault takes its place.
    Fault(StoodIn),
    /// A fault holds it back, and a second one beside it is due.
    Hedge,
    /// It is answered from the cache, and comes out so.
    Cached(Arc<Answer>, Outcome),
}

#[cold]
#[inline(never)]
fn refuse(by: RefusedBy, rule: &Arc<str>, reason: &str, until: Option<Timestamp>, now: Timestamp) -> Halt {
    Halt::Refuse(Refusal { by, rule: Arc::clone(rule), reason: reason.into(), until, at: now })
}

/// The call must still have time.
pub(super) fn deadline(flow: &Flow, now: Timestamp) -> Result<(), Halt> {
    match flow.deadline.passed(now) {
        true => Err(too_late(now)),
        false => Ok(()),
    }
}

#[cold]
#[inline(never)]
fn too_late(now: Timestamp) -> Halt {
    refuse(RefusedBy::Deadline, &"deadline".into(), "", None, now)
}

/// The policy must not deny it.
pub(super) fn policy(engine: &Engine, plan: &Plan, flow: &mut Flow, now: Timestamp) -> Result<(), Halt> {
    if flow.began {
        return Ok(());
    }
    flow.began = true;
    match plan.policy.is_silent() {
        true => Ok(()),
        false => told_by_policy(engine, plan, flow, now),
    }
}

/// Why a rule that refuses what it cannot tell refuses.
const UNTOLD: &str = "its condition could not be told";

#[inline(never)]
fn told_by_policy(engine: &Engine, plan: &Plan, flow: &mut Flow, now: Timestamp) -> Result<(), Halt> {
    let Flow { events, earlier, .. } = flow;
    let decision = plan.policy;
    let rule = |index| plan.rules.policy.rule(index);
    if let Some(index) = decision.untold {
        engine.tallies.untold_conditions.fetch_add(1, Ordering::Relaxed);
        let rule = rule(index);
        let would = match rule.then.on_error {
            OnError::Allow => "cannot tell its condition, and lets it pass",
            OnError::Refuse => "cannot tell its condition",
        };
        events.add(now, What::Warned { rule: Arc::clone(&rule.name), would });
    }
    for warned in plan.warned.iter().flatten() {
        // What an SDK tries again is one call.
        if earlier.is_none() {
            warned.count();
        }
        events.add(now, What::Warned { rule: Arc::clone(&warned.rule), would: warned.in_words() });
    }
    if decision.verdict == PolicyVerdict::Deny
        && let Some(index) = decision.rule
    {
        let rule = rule(index);
        let said = rule.then.reason.as_deref().unwrap_or("");
        let reason: Cow<'_, str> = match decision.untold == Some(index) {
            false => said.into(),
            true if said.is_empty() => UNTOLD.into(),
            true => format!("{said}; {UNTOLD}").into(),
        };
        return Err(refuse(RefusedBy::Policy, &rule.name, &reason, None, now));
    }
    Ok(())
}

/// Rollouts choose its variant, and kill switches end it.
pub(super) fn rollout(plan: &Plan, flow: &mut Flow, now: Timestamp) -> Result<(), Halt> {
    match flow.side.is_some() || plan.rollouts.is_empty() {
        true => Ok(()),
        false => choose_variant(plan, flow, now),
    }
}

#[inline(never)]
fn choose_variant(plan: &Plan, flow: &mut Flow, now: Timestamp) -> Result<(), Halt> {
    let Flow { side, shadow, events, seed, method, body, .. } = flow;
    for (place, state, _) in &plan.rollouts {
        let rule = &plan.rules.rollouts[*place];
        let safe = is_safe(method) && *body == 0;
        match state.before(&rule.then, plan.customer_name.as_deref(), *seed, safe) {
            RolloutVerdict::Refuse => {
                return Err(refuse(RefusedBy::Rollout, &rule.name, "", None, now));
            }
            RolloutVerdict::New { side: new } => {
                events.add(now, What::Variant { rule: Arc::clone(&rule.name) });
                *side = Some((*place, new));
                break;
            }
            RolloutVerdict::Old { side: old, shadow: copied } => {
                *side = side.or(Some((*place, old)));
                *shadow = shadow.or(copied.then_some(*place));
            }
        }
    }
    Ok(())
}

/// Budgets must have room for what it may cost.
pub(super) fn budget(plan: &Plan, flow: &mut Flow, now: Timestamp) -> Result<(), Halt> {
    for at in 0..plan.budgets.len() {
        if flow.reserved[at].is_some() {
            continue;
        }
        let BudgetUse { place, state, .. } = &plan.budgets[at];
        let rule = &plan.rules.budgets[*place];
        let mut amount = rule.then.amount(estimate(plan, flow, now), flow.tokens_ahead(plan).all);
        if rule.then.downgrades_in_time() && goes_cheaper(plan, flow, (rule, state), amount, now) {
            amount = rule.then.amount(estimate(plan, flow, now), flow.tokens_ahead(plan).all);
        }
        match state.reserve(&rule.then, amount, now) {
            budget::Verdict::Admit(admission) => {
                flow.reserved[at] = Some(admission.reservation);
                if let Some(then) = admission.then {
                    admitted_but(plan, flow, rule, then, now);
                }
            }
            budget::Verdict::Wait { until, .. }
                if flow.deadline.allows(until) && until.since(now) <= LONGEST_WAIT =>
            {
                return Err(wait(
                    flow,
                    &rule.name,
                    "what is left of the budget is spread over its period",
                    until,
                    now,
                ));
            }
            budget::Verdict::Wait { until, .. } => {
                return Err(refuse(RefusedBy::Budget, &rule.name, "", Some(until), now));
            }
            budget::Verdict::Refuse { until } => {
                return Err(refuse(RefusedBy::Budget, &rule.name, "", until, now));
            }
        }
    }
    Ok(())
}

/// Whether a call that its budget has no room for is to ask the cheaper model that the budget knows.
#[inline(never)]
fn goes_cheaper(
    plan: &Plan,
    flow: &mut Flow,
    (rule, state): (&Rule<budget::Rule>, &budget::State),
    amount: u64,
    now: Timestamp,
) -> bool {
    let stands = state.status(&rule.then, now);
    let fits = stands.used.saturating_add(stands.elsewhere).saturating_add(amount) <= stands.limit;
    !fits && flow.cheaper.is_none() && downgrade(plan, flow, rule, now)
}

/// Has the call ask the cheaper model; `false` where there is none, or what it asks stands in no body that is at hand.
fn downgrade(plan: &Plan, flow: &mut Flow, rule: &Rule<budget::Rule>, now: Timestamp) -> bool {
    let Some(model) = rule.then.cheaper(flow.model.as_str()).filter(|_| flow.names_model) else {
        return false;
    };
    let name = Arc::clone(&rule.name);
    flow.events.add(now, What::Budget { rule: name, says: "sends a cheaper model" });
    flow.cheaper = Some(model.into());
    flow.find_place(plan);
    true
}

/// A budget lets the call go, and has something done with it.
#[inline(never)]
fn admitted_but(plan: &Plan, flow: &mut Flow, rule: &Rule<budget::Rule>, then: budget::Then, now: Timestamp) {
    match then {
        budget::Then::Downgrade if flow.cheaper.is_none() => {
            downgrade(plan, flow, rule, now);
        }
        // Already so.
        budget::Then::Downgrade => {}
        budget::Then::Over => {
            let name = Arc::clone(&rule.name);
            flow.events.add(now, What::Budget { rule: name, says: "over the limit, and passes" });
        }
    }
}

/// No rule holds a call back for longer: who waits has a thread, a socket or a user waiting with him.
const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(30);

fn estimate(plan: &Plan, flow: &Flow, now: Timestamp) -> Money {
    match &plan.price {
        Priced::Never => Money::zero(Currency::USD),
        Priced::Each(money) => *money,
        Priced::Same(_) | Priced::ByModel => estimate_by_price(plan, flow, now),
    }
}

#[inline(never)]
fn estimate_by_price(plan: &Plan, flow: &Flow, now: Timestamp) -> Money {
    let ahead = Ahead::new(flow.body, now).prompt(flow.prompt).asks(flow.most_output(), flow.tier);
    let money = match &plan.price {
        Priced::Never => None,
        Priced::Each(money) => Some(*money),
        Priced::Same(price) => Some(price.estimate(&ahead)),
        Priced::ByModel => {
            let (vendor, endpoint) = (&plan.vendor_name, &plan.endpoint_name);
            plan.rules.prices.estimate(vendor, endpoint, flow.asked_model(), &ahead)
        }
    };
    money.unwrap_or(Money::zero(Currency::USD))
}

#[cold]
#[inline(never)]
fn wait(flow: &mut Flow, rule: &Arc<str>, why: &'static str, until: Timestamp, now: Timestamp) -> Halt {
    let lasts = until.since(now);
    flow.events.wait(now, rule, why, lasts);
    Halt::Wait(until)
}

/// Quotas, ours and the vendor's, must leave room before the deadline.
pub(super) fn quota(engine: &Engine, plan: &Plan, flow: &mut Flow, now: Timestamp) -> Result<(), Halt> {
    let tokens = flow.tokens_ahead(plan);
    let ask = Ask::one().priority(flow.priority).deadline(flow.deadline.at());
    for (at, quota) in plan.quotas.iter().enumerate() {
        let ask = ask.units(units_of(&quota.rule, tokens.all, flow.body)).rate(quota.rate);
        let ask = ask.customer(plan.customer, quota.weight);
        flow.claimed.0 = flow.claimed.0.max(at + 1);
        let verdict = quota.state.before_by(&quota.rule, &mut flow.claims[at], &ask, &quota.tally, now);
        by_quota(flow, &quota.name, verdict, now)?;
    }
    match plan.account.is_stated() {
        true => stated_quota(engine, plan, flow, (ask, tokens), now),
        false => Ok(()),
    }
}

/// The same of the vendor's.
#[inline(never)]
fn stated_quota(
    engine: &Engine,
    plan: &Plan,
    flow: &mut Flow,
    (ask, tokens): (Ask, Tokens),
    now: Timestamp,
) -> Result<(), Halt> {
    for (at, stated) in plan.account.asked(flow.place) {
        let ask = ask.units(stated.units(tokens)).customer(plan.customer, plan.weight);
        stated.touch();
        flow.claimed.1 = flow.claimed.1.max(at + 1);
        match &plan.keep {
            Some((name, rule)) => {
                let claim = &mut flow.stated[at];
                let verdict = match stated.is_countable() {
                    true => stated.state.before(rule, claim, &ask, &plan.user, now),
                    false => stated.state.heed(rule, claim, &ask, &plan.user, now),
                };
                by_quota(flow, name, verdict, now)?;
            }
            None => stated.state.watch(&engine.watch_rule, &mut flow.stated[at], &ask, &plan.user, now),
        }
    }
    Ok(())
}

/// How many units of a quota of ours a call uses.
pub(super) fn units_of(rule: &quota::Rule, tokens: u64, bytes: u64) -> u64 {
    match rule.limit.as_ref().map(|limit| limit.unit) {
        Some(quota::Unit::Tokens) => tokens,
        Some(quota::Unit::Bytes) => bytes,
        _ => 1,
    }
}

fn by_quota(flow: &mut Flow, name: &Arc<str>, verdict: QuotaVerdict, now: Timestamp) -> Result<(), Halt> {
    match verdict {
        QuotaVerdict::Pass => Ok(()),
        QuotaVerdict::Wait { until, why } => Err(wait(flow, name, why.in_words(), until, now)),
        QuotaVerdict::Refuse { until, why } => {
            // Where nobody can tell when it would pass, `until` is when it is looked for.
            let until = why.can_be_foreseen().then_some(until);
            Err(refuse(RefusedBy::Quota, name, why.as_str(), until, now))
        }
    }
}

/// There must be a place among those under way.
#[inline]
pub(super) fn concurrency(plan: &Plan, flow: &mut Flow, now: Timestamp) -> Result<(), Halt> {
    match &plan.resilience.concurrency {
        Some(part) if !flow.placed => take_place(part, flow, now),
        _ => Ok(()),
    }
}

#[inline(never)]
fn take_place(
    Part { name, rule, state }: &Part<ConcurrencyRule, Concurrency>,
    flow: &mut Flow,
    now: Timestamp,
) -> Result<(), Halt> {
    // A clock that was set back is no reason to wait for longer than the rule says.
    let since = flow.asked_for_place.map_or(now, |since| since.min(now));
    flow.asked_for_place = Some(since);
    match state.before(rule, since, flow.deadline, now) {
        ConcurrencyVerdict::Pass => {
            flow.placed = true;
            Ok(())
        }
        ConcurrencyVerdict::Wait { until } => Err(wait(flow, name, "all places are taken", until, now)),
        ConcurrencyVerdict::Full => Err(refuse(RefusedBy::Concurrency, name, "", None, now)),
    }
}

/// The breaker must be closed, or the call go to a backup.
pub(super) fn breaker(engine: &Engine, plan: &Plan, flow: &mut Flow, now: Timestamp) -> Result<(), Halt> {
    let Some(Part { name, rule, state }) = &plan.resilience.breaker else { return Ok(()) };
    if flow.pass.is_some() || flow.failed_over {
        return Ok(());
    }
    match state.before(rule, now) {
        BreakerVerdict::Pass(pass) => {
            flow.pass = Some(pass);
            Ok(())
        }
        BreakerVerdict::Open { until } => breaker_is_open(engine, plan, flow, name, until, now),
    }
}

/// The call goes to a backup, or is refused.
#[inline(never)]
fn breaker_is_open(
    engine: &Engine,
    plan: &Plan,
    flow: &mut Flow,
    name: &Arc<str>,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), Halt> {
    let backup = plan.resilience.failover.as_ref().filter(|(failover, _)| {
        let when = FailoverWhen::BreakerOpen { reached: flow.reached };
        let can_go = flow.replayable || flow.unsent;
        failover.before(flow.method, when, can_go, flow.deadline, now).is_some()
    });
    if let Some((_, changes)) = backup {
        flow.failed_over = true;
        let to = Arc::clone(changes);
        flow.events.add(now, What::Failover { after: None, to, why: "the breaker is open" });
        return Ok(());
    }
    engine.tallies.breaker_refusals.fetch_add(1, Ordering::Relaxed);
    Err(refuse(RefusedBy::Breaker, name, "", Some(until), now))
}

/// Whether it may be sent with something else than the application said.
pub(super) fn is_changed(flow: &Flow) -> bool {
    flow.failed_over || flow.side.is_some_and(|(_, side)| side.is_new())
}

/// What an attempt is sent with instead: to the backup, or as the variant that it takes.
#[inline(never)]
pub(super) fn changes_of<'p>(plan: &'p Plan, flow: &Flow) -> Option<&'p Arc<Changes>> {
    if flow.failed_over {
        return plan.resilience.failover.as_ref().map(|(_, changes)| changes);
    }
    let (place, _) = flow.side.filter(|(_, side)| side.is_new())?;
    plan.rollouts.iter().find(|(known, ..)| *known == place).map(|(_, _, changes)| changes)
}

/// An attempt that began: its number, when, and when a second one beside it is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) number: u32,
    pub(super) since: Timestamp,
    pub(super) hedge_at: Option<Timestamp>,
}

/// An attempt begins. With its first one a call is counted where budgets go by calls.
#[inline]
pub(super) fn begin_attempt(plan: &Plan, flow: &mut Flow, number: u32, now: Timestamp) -> Begun {
    let Parts { retry, hedge, .. } = &plan.resilience;
    (flow.sent_at, flow.timed) = (now, true);
    if let Some(retry) = retry
        && number == 1
    {
        retry.state.call_in(plan.lane, now);
    }
    let hedge_at = hedge.as_ref().filter(|_| number == 1).and_then(|Part { rule, state, .. }| {
        let due = state.before(rule, flow.method, flow.replayable, flow.deadline, now)?;
        Some(due.plus(faults::delay_of_second(plan, flow, due)))
    });
    Begun { number, since: now, hedge_at }
}

/// Nothing stands in the way of an attempt: what to send. Inlined, so that it is made where it is handed over.
#[inline]
pub(super) fn attempt(plan: &Plan, flow: &mut Flow, begun: Begun, now: Timestamp) -> Attempt {
    let Begun { number, since, hedge_at } = begun;
    flow.unsent = false;
    let give_up_at = flow.deadline.of_attempt(since, plan.resilience.attempt_timeout);
    let changes = if is_changed(flow) { changes_of(plan, flow).map(Arc::clone) } else { None };
    let key = flow.own_key(plan);
    if key.is_some() && number == 1 + flow.faulted {
        flow.events.add(now, What::Key);
    }
    Attempt {
        number,
        give_up_at,
        changes,
        model: flow.cheaper.clone(),
        truncate: flow.truncate,
        shadow: flow.shadow.is_some(),
        hedge_at,
        idempotency_key: key.map(|header| (header, flow.key().to_be_bytes())),
        condition: flow.cached.condition(flow.failed_over),
    }
}
