//! The cache's part of a call: looked up before anything is asked or paid for, kept on the way back, and the last
//! resort where the vendor fails or may not be asked.

use super::call::State;
use super::decide::Halt;
use super::events::What;
use super::flow::Flow;
use super::plan::{CachePart, Plan, Standing};
use super::step::Stored;
use super::{Call, Engine, Step};
use crate::cache::{
    Answer, Ask, Cache, Forwarded, Found, Key, Landing, Place, Received, Status, Store, Unkept, Use,
};
use crate::call::{Head, Headers, Outcome, Refusal, RefusedBy, Target};
use crate::matcher::{Matcher, Subject};
use crate::resilience::is_safe;
use crate::units::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How far a call has come with the cache. Nothing in it has memory of its own where no rule is about the call.
#[derive(Debug, Default)]
pub(super) struct Cached {
    stage: Stage,
    ask: Ask,
    /// Under which the call leads, or waits for another.
    key: Key,
    /// Origin and URI of a request that changes something there.
    changes: Option<(u64, u64)>,
    /// Set while others wait for this call.
    leads: Option<Arc<Cache>>,
    waits_since: Option<Timestamp>,
    /// What was found, and is not fresh.
    found: Option<Arc<Answer>>,
    /// Whether the vendor is asked whether it is still good.
    conditional: bool,
    declined: bool,
    /// The vendor said that it is.
    confirmed: Option<Arc<Answer>>,
    storing: Option<Box<Storing>>,
    status: Status,
    /// Bytes and nano-units that did not have to be spent.
    pub(super) saved: (u64, i64),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// No rule is about it.
    #[default]
    Off,
    /// It is to be looked up.
    Asks,
    /// It goes to the vendor.
    Sent,
    /// Nothing more is done about it.
    Done,
}

/// An answer whose body is on its way to the application.
#[derive(Debug)]
struct Storing {
    answer: Answer,
    body: Vec<u8>,
    limit: usize,
}

/// A waiting call looks again after a part of the time that it waited, within these bounds.
const SOONEST: Duration = Duration::from_millis(1);
const LATEST: Duration = Duration::from_millis(20);

impl Cached {
    /// Makes it that of a call that begins.
    pub(super) fn begin(&mut self, engine: &Engine, plan: &Plan, head: &Head<'_>, credential: u64) {
        if self.stage != Stage::Off || self.changes.is_some() {
            self.forget();
        }
        if !plan.caches || !engine.cache.has_store() {
            return;
        }
        let Some(part) = &plan.cache else {
            self.changes = (!is_safe(head.method)).then(|| engine.cache.uri_of(head));
            return;
        };
        if !part.rule.covers(head.method) {
            self.changes = (!is_safe(head.method)).then(|| engine.cache.uri_of(head));
            return;
        }
        if !head.caches {
            engine.tallies.uncached_calls.fetch_add(1, Ordering::Relaxed);
            return;
        }
        engine.cache.read(&mut self.ask, &part.rule, &part.name, head, credential);
        self.changes = self.ask.is_overridden().then(|| engine.cache.uri_of(head));
        self.stage = Stage::Asks;
    }

    /// What the attempt is sent with, so that the vendor need not send again what is here.
    pub(super) fn condition(&mut self, failed_over: bool) -> Vec<(&'static str, String)> {
        self.conditional = false;
        let Some(found) = self.found.as_ref().filter(|_| self.stage == Stage::Sent && !failed_over) else {
            return Vec::new();
        };
        let condition = found.condition();
        self.conditional = !condition.is_empty();
        condition
    }

    /// The answer that comes belongs to another request.
    pub(super) fn decline(&mut self) {
        // Where no rule is about the call, nothing may be left for the next one.
        self.declined = self.stage != Stage::Off;
    }

    /// Whether the body is to be shown.
    pub(super) fn wants_body(&self) -> bool {
        self.storing.is_some()
    }

    /// More of the body.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        let Some(storing) = &mut self.storing else { return };
        if storing.body.len() + chunk.len() <= storing.limit {
            storing.body.extend_from_slice(chunk);
            return;
        }
        let at = storing.answer.received_at();
        self.storing = None;
        self.status.detail = Some("too-large");
        self.land(Landing::Unshared, at);
    }

    fn land(&mut self, landing: Landing, now: Timestamp) {
        if let Some(cache) = self.leads.take() {
            cache.flights.land(self.key, self.ask.number(), landing, now);
        }
    }

    /// The call is over.
    pub(super) fn finish(
        &mut self,
        engine: &Engine,
        part: &CachePart,
        whole: bool,
        cost: Option<i64>,
        now: Timestamp,
    ) {
        let mut landing = Landing::Over;
        if let Some(storing) = self.storing.take() {
            let Storing { mut answer, mut body, .. } = *storing;
            // One that broke off is none (RFC 9111, section 3.3).
            let promised = answer.length().is_none_or(|length| length == body.len() as u64);
            if whole && promised {
                // Room that is not used would be held beside what is weighed.
                body.shrink_to_fit();
                (answer.body, answer.cost) = (body.into(), cost);
                let shareable = answer.is_fresh(&part.rule, now);
                self.status.stored = engine.cache.keep(&self.ask, &part.rule, Arc::new(answer));
                if !self.status.stored || !shareable {
                    landing = Landing::Unshared;
                }
            }
        }
        self.land(landing, now);
    }

    /// Of a call before.
    pub(super) fn forget(&mut self) {
        self.ask.forget();
        let ask = std::mem::take(&mut self.ask);
        *self = Self { ask, ..Self::default() };
    }
}

/// What is kept need not be asked for again; of equal calls one asks, and the others wait for it.
pub(super) fn before(engine: &Engine, plan: &Plan, flow: &mut Flow, now: Timestamp) -> Result<(), Halt> {
    let Some(part) = plan.cache.as_ref().filter(|_| flow.cached.stage == Stage::Asks) else { return Ok(()) };
    let Flow { cached, events, side, .. } = flow;
    if let Some(why) = cached.ask.bypass() {
        cached.stage = Stage::Done;
        cached.status = Status { forwarded: Some(Forwarded::Bypass), detail: Some(why), ..Status::default() };
        events.add(now, What::Cache { rule: Arc::clone(&part.name), status: cached.status });
        return Ok(());
    }
    if cached.waits_since.is_none() {
        let variant = side.filter(|(_, side)| side.is_new()).map(|(place, _)| place);
        cached.ask.apart(variant, flow.seed);
    }
    let (found, key) = engine.cache.find(&cached.ask, &part.rule);
    let waited = cached.waits_since.is_some();
    let (mut why, mut meanwhile) = (Forwarded::UriMiss, None);
    match found {
        Found::Nothing => {}
        Found::OtherHeaders => why = Forwarded::VaryMiss,
        Found::Answer(answer) => match answer.judge(&part.rule, &cached.ask, now) {
            Use::Fresh(ttl) | Use::Accepted(ttl) => {
                cached.status = Status { ttl: Some(ttl), ..Status::default() };
                if waited {
                    (cached.status.forwarded, cached.status.collapsed) = (Some(why), true);
                }
                return Err(Halt::Cached(answer, Outcome::Cached));
            }
            Use::Validate { requested, ttl, meanwhile: may } => {
                why = if requested { Forwarded::Request } else { Forwarded::Stale };
                meanwhile = may.then_some(ttl);
                cached.found = Some(answer);
            }
        },
    }
    if cached.ask.only_if_cached() {
        cached.status = Status { detail: Some("only-if-cached"), ..Status::default() };
        return Err(Halt::Cached(Answer::gateway_timeout(), Outcome::Cached));
    }
    let coalesces = !part.rule.coalesce.is_zero() && !cached.ask.insists();
    let place = match coalesces {
        true => engine.cache.flights.join(key, cached.ask.number(), now),
        false => Place::Alone,
    };
    match (place, meanwhile, &cached.found) {
        (Place::Lead, ..) => {
            cached.leads = Some(Arc::clone(&engine.cache));
            cached.key = key;
            // Whoever led before may have come to its end since the first look.
            if let (Found::Answer(answer), _) = engine.cache.find(&cached.ask, &part.rule)
                && let Use::Fresh(ttl) | Use::Accepted(ttl) = answer.judge(&part.rule, &cached.ask, now)
            {
                cached.land(Landing::Over, now);
                cached.status =
                    Status { forwarded: Some(why), ttl: Some(ttl), collapsed: true, ..Status::default() };
                return Err(Halt::Cached(answer, Outcome::Cached));
            }
        }
        (Place::Wait, Some(ttl), Some(found)) => {
            cached.status =
                Status { ttl: Some(ttl), detail: Some("stale-while-revalidate"), ..Status::default() };
            return Err(Halt::Cached(Arc::clone(found), Outcome::Cached));
        }
        (Place::Wait, ..) => {
            let since = *cached.waits_since.get_or_insert(now);
            let waited = now.since(since);
            if waited < part.rule.coalesce {
                if waited.is_zero() {
                    events.add(now, What::Joined { rule: Arc::clone(&part.name) });
                }
                return Err(Halt::Wait(now.plus((waited / 8).clamp(SOONEST, LATEST))));
            }
        }
        (Place::Alone, ..) => {}
    }
    cached.stage = Stage::Sent;
    cached.status.forwarded = Some(why);
    Ok(())
}

impl Engine {
    /// Where answers lie from now on; without one nothing is kept. Said once.
    pub fn set_cache_store(&self, store: Arc<dyn Store>) {
        self.cache.set_store(store);
    }

    /// Forgets the answers that a matcher says, by vendor, endpoint, method and customer, and does not keep those
    /// that are under way; returns how many there were.
    pub fn purge_cache(&self, which: &Matcher, now: Timestamp) -> u64 {
        let purges = |answer: &Answer| {
            let label = &answer.label;
            let method = label.endpoint.split(' ').next().unwrap_or_default();
            which.matches(&Subject {
                vendor: &label.vendor,
                endpoint: &label.endpoint,
                method,
                customer: label.customer.as_deref().unwrap_or(crate::attribution::UNKNOWN),
                ..Subject::default()
            })
        };
        self.cache.purge(&purges, now)
    }

    /// Whether any rule keeps answers.
    #[must_use]
    pub fn has_caches(&self) -> bool {
        let rules = self.rules.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        !rules.caches.is_empty()
    }

    /// The head of a response, as the cache sees it.
    pub(super) fn cache_answer(&self, call: &mut Call, headers: &dyn Headers, now: Timestamp) {
        let status = call.status;
        let Some(Standing { plan, flow }) = &mut call.flow else { return };
        if let Some(changes) = flow.cached.changes
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
                    let shareable = cached.status.stored && answer.is_fresh(&part.rule, now);
                    cached.confirmed = Some(answer);
                    cached.land(if shareable { Landing::Over } else { Landing::Unshared }, now);
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
    fn invalidate(&self, (origin, uri): (u64, u64), headers: &dyn Headers, now: Timestamp) {
        self.cache.invalidate(uri, now);
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
    pub(super) fn cache_instead(&self, call: &mut Call, now: Timestamp) -> Option<Step> {
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
            State::Answered if call.status == 429 => true,
            State::Failed(_) => false,
            _ => return None,
        };
        let found = cached.found.as_ref()?;
        let ttl = found.instead(&part.rule, refused, now)?;
        let answer = Arc::clone(found);
        cached.status.forwarded_status = (state == State::Answered).then_some(call.status);
        (cached.status.ttl, cached.status.detail) = (Some(ttl), Some("stale-if-error"));
        cached.storing = None;
        Some(self.respond(call, &answer, Outcome::Stale, now))
    }

    /// What the application gets instead of a refusal, where something is kept that is not too old.
    pub(super) fn cache_instead_of(
        &self,
        call: &mut Call,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Option<Step> {
        use RefusedBy::{Breaker, Budget, Concurrency, Deadline, Quota};
        let Standing { plan, flow } = call.flow.as_mut()?;
        let part = plan.cache.as_ref().filter(|_| flow.cached.stage == Stage::Sent)?;
        if !matches!(refusal.by, Breaker | Budget | Concurrency | Deadline | Quota) {
            return None;
        }
        let found = flow.cached.found.as_ref()?;
        let ttl = found.instead(&part.rule, true, now)?;
        let answer = Arc::clone(found);
        let status = &mut flow.cached.status;
        (status.ttl, status.detail) = (Some(ttl), Some(refusal.by.as_str()));
        flow.refused(refusal, now);
        Some(self.respond(call, &answer, Outcome::Stale, now))
    }

    /// Answers from the cache, and settles the call.
    pub(super) fn respond(
        &self,
        call: &mut Call,
        answer: &Arc<Answer>,
        outcome: Outcome,
        now: Timestamp,
    ) -> Step {
        let mut status = Status::default();
        if let Some(Standing { plan, flow }) = &mut call.flow {
            status = flow.cached.status;
            let spared = if call.attempts == 0 { answer.cost.unwrap_or_default() } else { 0 };
            flow.cached.saved = (answer.body.len() as u64, spared);
            flow.cached.conditional = false;
            if let Some(part) = &plan.cache
                && (status.forwarded.is_some() || outcome == Outcome::Stale || self.cache.tells(now))
            {
                flow.events.add(now, What::Cache { rule: Arc::clone(&part.name), status });
            }
            flow.cached.stage = Stage::Done;
        }
        call.status = answer.status;
        call.head_at = now;
        self.settle(call, outcome, now);
        Step::Respond(Stored::kept(answer, status, now))
    }

    /// The end of a call that was sent.
    pub(super) fn cache_close(
        &self,
        plan: &Plan,
        flow: &mut Flow,
        outcome: Outcome,
        cost: Option<i64>,
        now: Timestamp,
    ) {
        let Some(part) = plan.cache.as_ref().filter(|_| flow.cached.stage != Stage::Off) else { return };
        flow.cached.finish(self, part, outcome == Outcome::Complete, cost, now);
        if flow.cached.stage == Stage::Sent {
            let status = flow.cached.status;
            flow.events.add(now, What::Cache { rule: Arc::clone(&part.name), status });
        }
    }
}
