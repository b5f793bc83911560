//! The outbox's part of a call: the last resort of one that came to nothing, after the cache.

use super::after::in_words;
use super::call::State;
use super::events::What;
use super::flow::Flow;
use super::plan::{Plan, Standing};
use super::{Call, Engine, Step};
use crate::call::{ErrorType, Head, Outcome, Refusal, RefusedBy, Stored};
use crate::ledger::Notice;
use crate::outbox::{Facts, Failed, Failure, OrderedBy, Park, Parked, Terms, Verdict};
use crate::resilience::{Ending, is_idempotent};
use crate::units::{Timestamp, spread};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How far a call has come with the outbox.
#[derive(Debug)]
pub(super) enum Parking {
    /// It did not fail, or not yet.
    Not,
    /// The adapter was asked at this moment to hand it over; otherwise this follows.
    Asked { rule: Arc<str>, why: String, status: u16, instead: Instead, at: Timestamp },
    /// The outbox took it, under this number and key.
    Taken { why: String, status: u16, id: i64, key: String },
    /// The outbox did not take it.
    Declined(Instead),
    /// Nothing more is done about it.
    Over,
}

/// What follows where a call is not parked.
#[derive(Debug)]
pub(super) enum Instead {
    /// The application gets what the last attempt came to.
    Settled,
    Refuse(Refusal),
    /// An injected fault.
    Respond(Arc<Stored>),
    Fail(ErrorType),
}

/// How long a delivery waits that nobody named a time for: the vendor has just failed.
const SOON: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(86_400);
/// The outbox takes no longer names.
const MAX_ORDER_KEY: usize = 256;

impl Flow {
    /// The field for an idempotency key of our own, where the call is to have one.
    pub(super) fn own_key(&self, plan: &Plan) -> Option<Arc<str>> {
        let header = plan.idempotency_header.as_ref()?;
        let retries = plan.resilience.retry.is_some() && self.method == "POST" && self.sdk.is_none();
        // One that cannot be handed over all the same is told from one that must not be by its key.
        let could = self.parks || self.unparkable.is_some();
        let parks = plan.park.is_some() && could && !is_idempotent(self.method);
        let wanted = !self.key_on_wire && !self.is_copy && (retries || parks);
        wanted.then(|| Arc::clone(header))
    }

    /// The idempotency key of the call, the same for all its attempts.
    pub(super) fn key(&self) -> u128 {
        u128::from(self.key) << 64 | u128::from(spread(self.key ^ 0x6B65_7921))
    }
}

/// How the call failed, for people.
fn words_of(failure: Failure, plan: &Plan, flow: &Flow) -> String {
    match (failure, &flow.stood_in) {
        (Failure::Ended(ending), None) => in_words(ending),
        // Who is told need not get up for it.
        (Failure::Ended(ending), Some(fault)) => {
            format!("{} by the fault `{}`", in_words(ending), plan.rules.faults[fault.place].name)
        }
        (Failure::Refused(by), _) => format!("refused by {}", by.as_str()),
    }
}

impl Engine {
    /// Has somebody told of a critical call that failed.
    #[inline]
    pub(super) fn critical(&self, plan: &Plan, flow: &mut Flow, failure: Failure, call: u64, now: Timestamp) {
        if let Some(rule) = &plan.critical
            && !flow.is_copy
        {
            self.critical_failed(plan, rule, flow, failure, call, now);
        }
    }

    #[inline(never)]
    fn critical_failed(
        &self,
        plan: &Plan,
        rule: &Arc<str>,
        flow: &mut Flow,
        failure: Failure,
        call: u64,
        now: Timestamp,
    ) {
        if failure.is_alarming(flow.delivers)
            && self.tell(plan, rule, &words_of(failure, plan, flow), (call, flow.delivers), now)
        {
            flow.events.add(now, What::Alarm { rule: Arc::clone(rule) });
        }
    }

    /// A delivery from the outbox could not be tried, for a reason that is a failure and goes behind its endpoint's name:
    /// `got no credential`. Has somebody told where it is critical; nothing is counted, as no call was made.
    pub fn undelivered(&self, head: &Head<'_>, failure: &str, now: Timestamp) {
        let plan = self.know(head, now, |known, _| known.plan);
        if let Some(plan) = plan
            && let Some(rule) = &plan.critical
        {
            self.tell(&plan, rule, failure, (0, true), now);
        }
    }

    /// Whether an alarm goes out.
    fn tell(
        &self,
        plan: &Plan,
        rule: &Arc<str>,
        failure: &str,
        (call, delivery): (u64, bool),
        now: Timestamp,
    ) -> bool {
        let Some(alarms) = self.alarms.get() else { return false };
        let told = alarms.failed(&Failed {
            rule,
            vendor: &plan.vendor_name,
            endpoint: &plan.endpoint_name,
            customer: plan.customer_name.as_deref(),
            failure,
            call,
            delivery,
            at: now,
        });
        if told {
            let what = format!("{} of {} {failure}", plan.endpoint_name, plan.vendor_name);
            // The alarm itself is what people hear.
            let (rule, urgent) = (Arc::clone(rule), false);
            self.notice(Notice { at: now, concept: "alarm", rule, what, urgent, same_since: None });
        }
        told
    }

    /// Whether any rule parks calls.
    #[must_use]
    pub fn has_parking(&self) -> bool {
        let rules = self.rules.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        rules.outbox.iter().any(|rule| rule.then.park.is_some())
    }

    /// What the adapter told of the outbox decides how the call goes on; `None` where it was not asked.
    #[inline]
    pub(super) fn after_parking(&self, call: &mut Call, now: Timestamp) -> Option<Step> {
        match call.flow.as_ref()?.flow.parking {
            Parking::Not => None,
            _ => self.parked_or_not(call, now),
        }
    }

    #[inline(never)]
    fn parked_or_not(&self, call: &mut Call, now: Timestamp) -> Option<Step> {
        let Standing { flow, .. } = call.flow.as_mut()?;
        match std::mem::replace(&mut flow.parking, Parking::Over) {
            Parking::Taken { why, status, id, key } => {
                let (headers, body) = Parked { id, idempotency_key: &key }.answer(&why);
                call.head_at = now;
                self.settle(call, Outcome::Parked, now);
                Some(Step::Respond(Arc::new(Stored { status, headers, body })))
            }
            Parking::Asked { rule, instead, .. } => {
                let why = "the adapter did not say what came of it".to_owned();
                flow.events.add(now, What::NotParked { rule, why });
                self.tallies.unparked_calls.fetch_add(1, Ordering::Relaxed);
                Some(self.instead(call, instead, now))
            }
            Parking::Declined(instead) => Some(self.instead(call, instead, now)),
            Parking::Not | Parking::Over => Some(Step::Settled),
        }
    }

    /// No other attempt follows: the application gets what the last one came to, unless a rule has the call parked.
    pub(super) fn at_last(&self, call: &mut Call, now: Timestamp) -> Step {
        match Self::stood_in(call) {
            Some(instead) => self.park_or(call, instead, now),
            None => self.park_failed(call, now).unwrap_or(Step::Settled),
        }
    }

    /// The last attempt is over, and no other follows: a rule may have the call parked.
    fn park_failed(&self, call: &mut Call, now: Timestamp) -> Option<Step> {
        let parks = call.flow.as_ref().is_some_and(|Standing { plan, .. }| plan.park.is_some());
        if !parks || !matches!(call.state, State::Answered | State::Failed(_)) {
            return None;
        }
        self.park(call, Instead::Settled, now).ok()
    }

    /// The call is not made: a rule may have it parked.
    pub(super) fn park_or(&self, call: &mut Call, instead: Instead, now: Timestamp) -> Step {
        self.park(call, instead, now).unwrap_or_else(|instead| self.instead(call, instead, now))
    }

    #[inline(never)]
    fn park(&self, call: &mut Call, instead: Instead, now: Timestamp) -> Result<Step, Instead> {
        let (state, status, attempts) = (call.state, call.status, call.attempts);
        let Some(Standing { plan, flow }) = &mut call.flow else { return Err(instead) };
        let Some((rule, park)) = &plan.park else { return Err(instead) };
        let (failure, until) = match (&instead, state) {
            (Instead::Settled, State::Failed(error)) => (Failure::Ended(Ending::Error(error)), flow.retry_at),
            (Instead::Settled, _) => (Failure::Ended(Ending::Status(status)), flow.retry_at),
            (Instead::Refuse(refusal), _) => (Failure::Refused(refusal.by), refusal.until),
            (Instead::Respond(stored), _) => (Failure::Ended(Ending::Status(stored.status)), flow.retry_at),
            (Instead::Fail(error), _) => (Failure::Ended(Ending::Error(*error)), None),
        };
        let mut facts = Facts::new(flow.method, failure);
        facts.reached = flow.reached && attempts + flow.faulted > 0;
        // A backup may know nothing of a key that the vendor does.
        facts.keyed = plan.idempotency_header.is_some()
            && !flow.failed_over
            && (flow.key_on_wire || flow.own_key(plan).is_some());
        facts.replayable = flow.whole || flow.keeps;
        // The outbox tries its own again by itself.
        let verdict = if flow.is_copy || flow.delivers { Verdict::Leave } else { park.after(&facts) };
        let after = words_of(failure, plan, flow);
        match verdict {
            Verdict::Leave => return Err(instead),
            Verdict::Cannot(why) => {
                flow.events.add(now, What::NotParked { rule: Arc::clone(rule), why: why.to_owned() });
                return Err(instead);
            }
            Verdict::Park if !flow.parks => {
                self.tallies.unparkable_calls.fetch_add(1, Ordering::Relaxed);
                let why = flow.unparkable.unwrap_or("this adapter cannot hand it over").to_owned();
                flow.events.add(now, What::NotParked { rule: Arc::clone(rule), why });
                return Err(instead);
            }
            Verdict::Park => {}
        }
        if let Instead::Refuse(refusal) = &instead {
            flow.refused(refusal, now);
        }
        let wait = until.map_or(SOON, |until| until.since(now)).min(LATE);
        let terms = terms(plan, flow, (rule, park), after.clone(), wait);
        flow.parking =
            Parking::Asked { rule: Arc::clone(rule), why: after, status: park.answer, instead, at: now };
        Ok(Step::Park(Box::new(terms)))
    }

    /// The call comes to what it would have come to without an outbox.
    fn instead(&self, call: &mut Call, instead: Instead, now: Timestamp) -> Step {
        match instead {
            Instead::Settled => Step::Settled,
            Instead::Refuse(refusal) => {
                self.tallies.refused_calls.fetch_add(1, Ordering::Relaxed);
                if let Some(Standing { flow, .. }) = &mut call.flow
                    && matches!(flow.parking, Parking::Not)
                {
                    flow.refused(&refusal, now);
                }
                self.settle(call, Outcome::Refused(refusal.by), now);
                Step::Refuse(refusal)
            }
            Instead::Respond(stored) => {
                call.head_at = now;
                self.settle_as(call, Outcome::Refused(RefusedBy::Fault), stored.status, now);
                Step::Respond(stored)
            }
            Instead::Fail(error) => {
                self.settle(call, Outcome::Refused(RefusedBy::Fault), now);
                Step::Fail(error)
            }
        }
    }
}

impl Call {
    /// Whether a rule may have it parked by an adapter like this one, so that the step after its failure matters, and
    /// what would be handed over is worth keeping.
    #[must_use]
    pub fn may_be_parked(&self) -> bool {
        let parks =
            |flow: &Flow| (flow.parks || flow.unparkable.is_some()) && !flow.is_copy && !flow.delivers;
        self.flow.as_ref().is_some_and(|Standing { plan, flow }| plan.park.is_some() && parks(flow))
    }

    /// The adapter cannot hand this one over although it can others: why, in words for whoever reads the call's events.
    pub fn unparkable(&mut self, why: &'static str) {
        if let Some(Standing { flow, .. }) = &mut self.flow {
            (flow.parks, flow.unparkable) = (false, Some(why));
        }
    }

    /// Whether the adapter has the whole body by now, of a request that it cannot send again
    /// ([`Head::keeps`](crate::Head::keeps)). Said before the step that follows an attempt.
    pub fn keeps(&mut self, keeps: bool) {
        if let Some(Standing { flow, .. }) = &mut self.flow {
            flow.keeps = keeps;
        }
    }

    /// What came of [`Step::Park`]: the outbox took the call, and it is on the disk; or it did not, and why. Does
    /// nothing where it was not asked for.
    pub fn parked(&mut self, engine: &Engine, taken: Result<Parked<'_>, &str>, now: Timestamp) {
        match taken {
            Ok(Parked { id, idempotency_key }) => {
                let Some(Standing { flow, .. }) = &mut self.flow else { return };
                flow.parking = match std::mem::replace(&mut flow.parking, Parking::Over) {
                    // Not said before: of one that the outbox does not take it would be untrue.
                    Parking::Asked { rule, why, status, at, .. } => {
                        flow.events.add(at, What::Park { rule, after: why.clone() });
                        flow.events.add(now, What::Parked { id });
                        Parking::Taken { why, status, id, key: idempotency_key.to_owned() }
                    }
                    other => other,
                };
            }
            Err(why) => self.declined(&engine.tallies.unparked_calls, why, now),
        }
    }

    /// What came of [`Step::Park`]: the adapter cannot hand this one over, as it finds only now, and why. Does nothing
    /// where it was not asked for.
    pub fn not_parked(&mut self, engine: &Engine, why: &str, now: Timestamp) {
        self.declined(&engine.tallies.unparkable_calls, why, now);
    }

    fn declined(&mut self, counter: &AtomicU64, why: &str, now: Timestamp) {
        let Some(Standing { flow, .. }) = &mut self.flow else { return };
        flow.parking = match std::mem::replace(&mut flow.parking, Parking::Over) {
            Parking::Asked { rule, instead, .. } => {
                counter.fetch_add(1, Ordering::Relaxed);
                flow.events.add(now, What::NotParked { rule, why: why.to_owned() });
                Parking::Declined(instead)
            }
            other => other,
        };
    }
}

fn terms(plan: &Plan, flow: &Flow, (rule, park): (&Arc<str>, &Park), why: String, delay: Duration) -> Terms {
    let order_key = match park.ordered_by {
        OrderedBy::Nothing => None,
        OrderedBy::Rule => Some(rule.to_string()),
        OrderedBy::Customer => {
            let customer = plan.customer_name.as_deref().unwrap_or(crate::attribution::UNKNOWN);
            Some(format!("{rule}/{customer}"))
        }
    };
    Terms {
        rule: Arc::clone(rule),
        why,
        customer: plan.customer_name.clone(),
        order_key: order_key.map(|mut key| {
            key.truncate(key.floor_char_boundary(MAX_ORDER_KEY));
            key
        }),
        idempotency_header: plan.idempotency_header.clone(),
        idempotency_key: flow.own_key(plan).map(|_| format!("{:032x}", flow.key())),
        delay,
        max_age: park.max_age,
        max_attempts: park.max_attempts,
    }
}
