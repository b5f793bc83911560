//! The way back: what comes of an answer or a failure, and what the application gets in its place.

use super::{Saved, Stage, Storing};
use crate::cache::{Answer, Landing, Origin, Received, Status, Unkept};
use crate::call::{ErrorType, Headers, Outcome, Refusal, RefusedBy, Target};
use crate::engine::call::State;
use crate::engine::events::What;
use crate::engine::flow::Flow;
use crate::engine::plan::{CachePart, Plan, Standing};
use crate::engine::{Call, Engine, Step};
use crate::resilience::Ending;
use crate::units::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// Who lets go of a call before this found nothing wrong with its vendor.
const PATIENT: Duration = Duration::from_secs(1);

impl Engine {
    /// The head of a response, as the cache sees it.
    #[inline]
    pub(in super::super) fn cache_answer(&self, call: &mut Call, headers: &dyn Headers, now: Timestamp) {
        let status = call.status;
        let Some(Standing { plan, flow }) = &mut call.flow else { return };
        if flow.cached.changes.is_some() || plan.cache.is_some() && flow.cached.stage == Stage::Sent {
            self.take_answer(plan, flow, (status, headers), now);
        }
    }

    /// The same of one that the cache has to do with.
    #[inline(never)]
    fn take_answer(
        &self,
        plan: &Plan,
        flow: &mut Flow,
        (status, headers): (u16, &dyn Headers),
        now: Timestamp,
    ) {
        if let Some(changes) = &flow.cached.changes
            && (200..400).contains(&status)
        {
            self.invalidate(changes, headers, now);
        }
        let Some(part) = plan.cache.as_ref().filter(|_| flow.cached.stage == Stage::Sent) else { return };
        let untrue = flow.failed_over || flow.cheaper.is_some() || flow.cached.declined;
        let cached = &mut flow.cached;
        cached.storing = None;
        let got = Received { status, headers, requested_at: flow.sent_at, received_at: now };
        if status == 304 && cached.conditional {
            cached.status.forwarded_status = Some(304);
            // To another request than the one that the condition is about it says nothing.
            let found = cached.found.as_ref().filter(|_| !untrue);
            let confirmed = found.and_then(|found| found.confirmed(&part.rule, &got));
            match confirmed {
                Some(answer) => {
                    let answer = Arc::new(answer);
                    cached.status.stored = answer.may_be_kept(&part.rule, &cached.ask).is_ok()
                        && self.cache.keep(&cached.ask, &part.rule, Arc::clone(&answer));
                    let shareable = cached.status.stored && answer.is_of_use(&part.rule, now);
                    cached.confirmed = Some(answer);
                    cached.land(if shareable { Landing::Kept } else { Landing::Unshared }, now);
                }
                // What is here is something else: the whole of it is asked for.
                None => cached.found = None,
            }
            return;
        }
        if untrue {
            // Not what this vendor answers to this request.
            cached.status.detail = Some("changed");
            cached.land(Landing::Unshared, now);
            return;
        }
        match Answer::read(&part.rule, &cached.ask, &got, &part.label) {
            Ok(answer) => {
                let limit = usize::try_from(part.rule.max_bytes).unwrap_or(usize::MAX);
                let length = answer.length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
                let body = Vec::with_capacity(length.min(limit));
                cached.storing = Some(Box::new(Storing { answer, body, limit }));
            }
            Err(Unkept(why)) => {
                cached.status.detail = Some(why);
                // Where the vendor failed, another call may have more luck; but not all of them at once.
                let failed = status >= 500 || status == 429;
                cached.land(if failed { Landing::Over } else { Landing::Unshared }, now);
            }
        }
    }

    /// RFC 9111, section 4.4.
    fn invalidate(&self, (origin, uri): &(Origin, u64), headers: &dyn Headers, now: Timestamp) {
        self.cache.invalidate(*uri, now);
        for name in ["location", "content-location"] {
            let Some(place) = headers.get(name).and_then(|value| std::str::from_utf8(value).ok()) else {
                continue;
            };
            match Target::parse(place) {
                Some(target) => self.cache.invalidate_target(origin, &target, now),
                None if place.starts_with('/') => self.cache.invalidate_path(origin, place, now),
                None => {}
            }
        }
    }

    /// What the application gets instead of what the last attempt came to; `None`: what it came to.
    #[inline]
    pub(in super::super) fn cache_instead(&self, call: &mut Call, now: Timestamp) -> Option<Step> {
        let Standing { plan, flow } = call.flow.as_ref()?;
        match plan.cache.is_some() && flow.cached.stage == Stage::Sent {
            true => self.kept_instead(call, now),
            false => None,
        }
    }

    /// The same of a call whose answers are kept.
    #[inline(never)]
    fn kept_instead(&self, call: &mut Call, now: Timestamp) -> Option<Step> {
        let state = call.state;
        let Standing { plan, flow } = call.flow.as_mut()?;
        let part = plan.cache.as_ref().filter(|_| flow.cached.stage == Stage::Sent)?;
        let cached = &mut flow.cached;
        if let Some(answer) = cached.confirmed.take() {
            return Some(self.respond(call, &answer, Outcome::Complete, now));
        }
        let refused = match state {
            State::Answered if call.status == 304 && cached.conditional && cached.found.is_none() => {
                // Once more, without the condition.
                cached.conditional = false;
                self.again(call);
                return Some(self.next(call, now));
            }
            State::Answered if matches!(call.status, 500 | 502 | 503 | 504) => false,
            // Those by which vendors and what stands before them say the same in words of their own: 520 to 526, 529.
            State::Answered if matches!(call.status, 429 | 505..=599) => true,
            State::Failed(_) => false,
            _ => return None,
        };
        let found = cached.found.as_ref().filter(|found| self.cache.stands(found, cached.looked))?;
        let ttl = found.instead(&part.rule, refused, now)?;
        let answer = Arc::clone(found);
        cached.status.forwarded_status = (state == State::Answered).then_some(call.status);
        (cached.status.ttl, cached.status.detail) = (Some(ttl), Some("stale-if-error"));
        cached.storing = None;
        if state == State::Failed(ErrorType::Timeout) {
            // Whoever waited for it would hang as long, one after the other.
            cached.land(Landing::Unshared, now);
        }
        Some(self.respond(call, &answer, Outcome::Stale, now))
    }

    /// What the application gets instead of a refusal, where something is kept that is not too old.
    pub(in super::super) fn cache_instead_of(
        &self,
        call: &mut Call,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Option<Step> {
        use RefusedBy::{Breaker, Budget, Concurrency, Deadline, Quota};
        let Standing { plan, flow } = call.flow.as_mut()?;
        // One that waits for an equal call has looked as well: its deadline passes while it still asks.
        let part = plan.cache.as_ref().filter(|_| matches!(flow.cached.stage, Stage::Asks | Stage::Sent))?;
        if !matches!(refusal.by, Breaker | Budget | Concurrency | Deadline | Quota) {
            return None;
        }
        let cached = &flow.cached;
        let found = cached.found.as_ref().filter(|found| self.cache.stands(found, cached.looked))?;
        let ttl = found.instead(&part.rule, true, now)?;
        let answer = Arc::clone(found);
        let status = &mut flow.cached.status;
        (status.ttl, status.detail) = (Some(ttl), Some(refusal.by.as_str()));
        flow.refused(refusal, now);
        Some(self.respond(call, &answer, Outcome::Stale, now))
    }

    /// Answers from the cache, and settles the call.
    pub(in super::super) fn respond(
        &self,
        call: &mut Call,
        answer: &Arc<Answer>,
        outcome: Outcome,
        now: Timestamp,
    ) -> Step {
        let mut status = Status::default();
        if let Some(Standing { plan, flow }) = &mut call.flow {
            status = flow.cached.status;
            flow.cached.conditional = false;
            if let Some(part) = &plan.cache
                && (status.forwarded.is_some() || outcome != Outcome::Cached || self.cache.tells(now))
            {
                flow.events.add(now, What::Cache { rule: Arc::clone(&part.name), status });
            }
            flow.cached.stage = Stage::Done;
        }
        if call.flow.as_ref().is_some_and(|standing| standing.flow.cached.refreshing) {
            call.refresh = self.refresh(call, now);
        }
        if let Some(Standing { flow, .. }) = &mut call.flow {
            // What is asked beside the call is spent all the same, and what would have been refused is never spent.
            flow.cached.saved = match outcome {
                _ if call.refresh.is_some() => Saved::default(),
                Outcome::Cached if call.attempts == 0 => Saved::by(answer),
                _ => Saved { bytes: answer.body.len() as u64, ..Saved::default() },
            };
        }
        call.head_at = now;
        self.settle_as(call, outcome, answer.status, now);
        Step::Respond(answer.handed_out(status, now))
    }

    /// The end of a call that was sent, where the cache has to do with it.
    #[inline(never)]
    pub(in super::super) fn cache_close(
        &self,
        part: &CachePart,
        flow: &mut Flow,
        (outcome, was_sent): (Outcome, bool),
        used: (Option<i64>, Option<u64>),
        now: Timestamp,
    ) {
        let hung = match outcome {
            Outcome::Failed(ErrorType::Timeout) => true,
            // Its application gave it up after a while.
            Outcome::Failed(ErrorType::Cancelled) | Outcome::Abandoned => {
                was_sent && now.since(flow.sent_at) >= PATIENT
            }
            Outcome::Refused(RefusedBy::Fault) => flow.judged == Some(Ending::Error(ErrorType::Timeout)),
            _ => false,
        };
        flow.cached.finish(self, part, (outcome, hung), used, now);
        if flow.cached.stage == Stage::Sent {
            let status = flow.cached.status;
            flow.events.add(now, What::Cache { rule: Arc::clone(&part.name), status });
        }
    }
}
