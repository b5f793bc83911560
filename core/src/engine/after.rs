//! The end of an attempt: what it held is given back, and another one follows or not.

use super::call::State;
use super::events::What;
use super::flow::{Flow, Until};
use super::plan::{Part, Parts, Plan, Standing};
use super::{Call, Engine};
use crate::call::ErrorType;
use crate::outbox::{self, Failure};
use crate::quota::{self, Claim};
use crate::resilience::{
    Ending, FailoverWhen, Judgement, Released, RetryFacts, RetryRule, RetryVerdict, Stop,
};
use crate::units::Timestamp;
use std::sync::Arc;

impl Engine {
    /// An attempt is over. Gives back what it held, and says whether another one follows: then the call stands
    /// as if it had not been sent.
    pub(super) fn after_attempt(&self, call: &mut Call, now: Timestamp) -> bool {
        let ending = match call.state {
            State::Answered => Ending::Status(call.status),
            State::Failed(error) => Ending::Error(error),
            _ => return false,
        };
        let attempts = call.attempts;
        if let Some(Standing { flow, .. }) = &call.flow
            && flow.met.is_some()
            && self.waits_for_held(call, ending, now)
        {
            return true;
        }
        let Some(Standing { plan, flow }) = &mut call.flow else { return false };
        // One that was sent beside another is no retry.
        let attempt = (attempts + flow.faulted).saturating_sub(flow.hedges);
        self.close_attempt(plan, flow, ending, now);
        flow.reached |= outbox::may_have_been_acted_upon(ending);
        flow.judged = Some(ending);
        self.critical(plan, flow, Failure::Ended(ending), call.id, now);
        if !Self::another(plan, flow, ending, attempt, now) {
            return false;
        }
        if flow.stood_in.is_none() {
            self.lose(plan, flow, Some(ending), now);
        }
        self.again(call);
        true
    }

    /// Another attempt follows: the units of this one are used, and the next one asks for its own.
    #[inline(never)]
    pub(super) fn again(&self, call: &mut Call) {
        if let Some(Standing { plan, flow }) = &mut call.flow {
            let went_out = flow.stood_in.take().is_none();
            Self::release_claims(plan, flow, went_out);
            if went_out {
                flow.seen = call.status;
            }
            // What the next attempt is told of is its own.
            (flow.usage, flow.coding, flow.prefix) = (None, None, None);
            (flow.told, flow.retry_at, flow.judged) = (None, None, None);
        }
        if let Some(look) = &mut call.look {
            look.again();
        }
        call.status = 0;
        call.state = State::Begun;
    }

    pub(super) fn close_attempt(&self, plan: &Plan, flow: &mut Flow, ending: Ending, now: Timestamp) {
        if let Some(hedge) = &plan.resilience.hedge
            && std::mem::take(&mut flow.timed)
        {
            let sent = flow.pair.map_or(flow.sent_at, |pair| pair.first.1);
            hedge.state.after(&hedge.rule, now.since(sent));
        }
        if flow.pair.take().is_some() && flow.met.is_none() {
            // Nobody waited for either of the two.
            self.lose(plan, flow, None, now);
        }
        if let Some(Part { name: _, rule, state }) = &plan.resilience.breaker
            && let Some(pass) = flow.pass.take()
            && let Some(phase) = state.after(rule, pass, Judgement::of(ending), now)
        {
            flow.events.add(now, What::Breaker { phase: phase.as_str() });
        }
        if flow.placed {
            let released = match ending {
                Ending::Status(429 | 503) | Ending::Error(ErrorType::Timeout) => Released::Overloaded,
                Ending::Status(_) => Released::Answered(now.since(flow.sent_at)),
                Ending::Error(_) => Released::Nothing,
            };
            Self::release_place(plan, flow, released, now);
        }
    }

    #[inline(never)]
    pub(super) fn release_place(plan: &Plan, flow: &mut Flow, released: Released, now: Timestamp) {
        if let Some(Part { rule, state, .. }) = &plan.resilience.concurrency
            && std::mem::take(&mut flow.placed)
        {
            state.after(rule, released, now);
            flow.asked_for_place = None;
        }
    }

    /// Whether another attempt follows.
    #[inline]
    fn another(plan: &Plan, flow: &mut Flow, ending: Ending, attempt: u32, now: Timestamp) -> bool {
        let Parts { retry, failover, .. } = &plan.resilience;
        let concerns = |retry: &Part<RetryRule, _>| retry.rule.concerns(ending, flow.told);
        match failover.is_some() || retry.as_ref().is_some_and(concerns) {
            true => Self::tries_again(plan, flow, ending, attempt, now),
            false => false,
        }
    }

    /// The same where a rule may say so.
    #[inline(never)]
    fn tries_again(plan: &Plan, flow: &mut Flow, ending: Ending, attempt: u32, now: Timestamp) -> bool {
        let sent = !matches!(ending, Ending::Error(ErrorType::Dns | ErrorType::Connect | ErrorType::Tls));
        let words = || in_words(ending);
        if let Some(Part { rule, state, .. }) = &plan.resilience.retry
            && !flow.failed_over
            && rule.concerns(ending, flow.told)
        {
            let mut facts = RetryFacts::new(flow.method, ending, attempt, now, flow.seed);
            facts.sent = sent;
            facts.replayable = flow.replayable;
            facts.key_honoured = plan.idempotency_header.is_some();
            facts.key_on_wire =
                flow.key_on_wire || (facts.key_honoured && flow.method == "POST" && flow.sdk.is_none());
            facts.sdk_retries = flow.sdk.is_some_and(|sdk| sdk.retries);
            facts.told = flow.told;
            facts.retry_at = flow.retry_at;
            facts.deadline = flow.deadline;
            match rule.retry(&facts, state) {
                RetryVerdict::Retry { at, reason } => {
                    let lasts = at.since(now);
                    flow.events.add(now, What::Retry { after: words(), why: reason.as_str(), lasts });
                    flow.resume = Some(Until::new(now, at));
                    return true;
                }
                RetryVerdict::Stop(Stop::Final) => {}
                RetryVerdict::Stop(stop) => {
                    flow.events.add(now, What::NoRetry { after: words(), why: stop.as_str() });
                }
            }
        }
        let Some((failover, changes)) = &plan.resilience.failover else { return false };
        let when = FailoverWhen::Ended { ending, sent: sent || flow.reached, handed_over: false };
        let goes = !flow.failed_over
            && failover.before(flow.method, when, flow.replayable, flow.deadline, now).is_some();
        if goes {
            flow.failed_over = true;
            let (after, to) = (Some(words()), Arc::clone(changes));
            flow.events.add(now, What::Failover { after, to, why: "as the vendor failed" });
        }
        goes
    }

    /// An answer breaks off that the application has the beginning of: what would have been tried again is not.
    #[cold]
    #[inline(never)]
    pub(super) fn broke_off(plan: &Plan, flow: &mut Flow, ending: Ending, now: Timestamp) {
        if let Some(Part { rule, .. }) = &plan.resilience.retry
            && !flow.failed_over
            && rule.tries_again_after(ending)
        {
            let why = Stop::HandedOver.as_str();
            flow.events.add(now, What::NoRetry { after: in_words(ending), why });
        }
    }

    /// The units are used; those of an attempt that did not go out are given back.
    fn release_claims(plan: &Plan, flow: &mut Flow, went_out: bool) {
        let release = |state: &quota::State, claim: &mut Claim| {
            match went_out {
                true => state.end(claim),
                false => state.undo(claim),
            }
            *claim = Claim::new();
        };
        for (quota, claim) in plan.quotas.iter().zip(&mut flow.claims) {
            release(&quota.state, claim);
        }
        for (at, policy) in plan.account.asked(flow.place) {
            release(&policy.state, &mut flow.stated[at]);
        }
    }
}

/// How an attempt ended, for people.
pub(super) fn in_words(ending: Ending) -> String {
    match ending {
        Ending::Status(status) => format!("answered {status}"),
        Ending::Error(error) => format!("failed ({})", error.as_str()),
    }
}
