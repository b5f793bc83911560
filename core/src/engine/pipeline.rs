//! The order of decisions.
//!
//! A call passes these steps from top to bottom when it begins, and back up when it ends. Each step is a
//! concept with a module of its own that knows none of the others; only this folder joins them. The order is
//! the design's: catalogue, attribution, policy, rollout, cache, budget, quota, concurrency, breaker, fault,
//! attempt, cost, ledger.

use super::call::State;
use super::decide::{self, Begun, Halt};
use super::faults::{self, Met};
use super::flow::{self, Flow};
use super::lookup;
use super::parking::Instead;
use super::plan::{Plan, Standing};
use super::plans::Plans;
use super::request::Request;
use super::unfinished::Unfinished;
use super::{Attempt, Call, Engine, Step};
use crate::call::{Head, Outcome, Tap};
use crate::ledger::{Entry, Found, Held, RequestKeys, SeriesKey, Settled, Text};
use crate::outbox::Failure;
use crate::units::{Timestamp, spread};
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

/// What is known of a call when it begins: whom it goes to, on whose behalf, and which rules are about it.
pub(super) struct Known<'k, 'h> {
    /// Of its shard.
    pub(super) number: usize,
    pub(super) keys: RequestKeys,
    pub(super) found: Found,
    /// Its headers, where anybody may look at them.
    pub(super) request: Option<&'k Request<'h>>,
    pub(super) plan: Option<Arc<Plan>>,
    /// What it begins with, where it was looked up already.
    pub(super) flow: Option<Box<Flow>>,
}

impl Engine {
    /// Begins a call. `seed` is any number that differs from call to call: all randomness of the call comes
    /// from it, so that the same inputs give the same decisions.
    pub fn begin(&self, head: &Head<'_>, now: Timestamp, seed: u64) -> Call {
        self.know(head, now, |known, held| self.begun(known, held, head, now, seed))
    }

    /// Shows what is known of a call, under the lock of its shard.
    #[inline]
    pub(super) fn know<'e, R>(
        &'e self,
        head: &Head<'_>,
        now: Timestamp,
        see: impl FnOnce(Known<'_, '_>, MutexGuard<'e, Held<Plans>>) -> R,
    ) -> R {
        self.know_as::<true, R>(head, now, see)
    }

    /// As [`Engine::know`]; of a call that is not `RULED`, no rule is looked for.
    #[inline]
    pub(super) fn know_as<'e, const RULED: bool, R>(
        &'e self,
        head: &Head<'_>,
        now: Timestamp,
        see: impl FnOnce(Known<'_, '_>, MutexGuard<'e, Held<Plans>>) -> R,
    ) -> R {
        let lower: Text<256>;
        let host = if head.target.mixed_case {
            lower = Text::lower(head.target.host);
            lower.as_str()
        } else {
            head.target.host
        };
        let number = self.shards.own();
        let mut held = self.shards.lock(number);
        let Held { shard, beside: plans } = &mut *held;

        // Both taps recognise a call by these. Taken in any case: somebody may begin to listen before it ends.
        let keys = RequestKeys::new(head.method, host, head.target.path);
        // Whom the call goes to comes first: every rule matches on vendor and endpoint.
        let (vendor, endpoint) = self.find(shard, keys.request, host, head);
        // On whose behalf: captured by value now, so that a stream abandoned later still settles on the right
        // customer.
        let (customer, tags) = self.find_customer(shard, head);
        let found = Found { vendor, endpoint, customer, tags };
        // Which rules are about it, where any may be; or what it costs.
        let mut read;
        let request = match RULED && self.takes_part(shard, vendor, head.tap) {
            true => {
                read = Request::new();
                Some(read.see(head.headers))
            }
            false => None,
        };
        let plan =
            request.map(|request| self.plan_of((shard, plans), number, found, host, head, request, now));
        see(Known { number, keys, found, request, plan, flow: None }, held)
    }

    /// The call that is known.
    #[inline]
    pub(super) fn begun(
        &self,
        known: Known<'_, '_>,
        held: MutexGuard<'_, Held<Plans>>,
        head: &Head<'_>,
        now: Timestamp,
        seed: u64,
    ) -> Call {
        let Known { number, keys, found, request, plan, flow } = known;
        let mut flow = request.zip(plan).map(|(request, plan)| {
            let flow = flow.unwrap_or_else(|| {
                let mut flow = flow::spare();
                flow.cached.begin(self, &plan, head, request.credential().is_some());
                flow
            });
            flow::take(flow, plan, head, request, now, spread(seed))
        });
        let secret = flow.as_ref().map_or(0, |standing| standing.plan.account.secret);
        let id = spread(seed);
        let look = self.look_at(
            (number, &held.shard),
            (keys.request, id >> 32),
            found,
            head,
            request.map(|read| (read, secret)),
            now,
        );
        let watches = head.tap == Tap::Library && self.catalogue.states_quotas(found.vendor);
        drop(held);

        // What an SDK tries again goes on with its call.
        let id = flow.as_mut().and_then(|flow| self.go_on(flow, keys, head.caller, now)).unwrap_or(id);
        let call = |look| Call {
            id,
            shard: number,
            found,
            caller: head.caller,
            tap: head.tap,
            keys,
            engine: self.identity,
            begun: now,
            head_at: now,
            times: crate::call::ConnectTimes::default(),
            bytes_out: 0,
            bytes_in: 0,
            status: 0,
            attempts: 0,
            waited: 0,
            waiting_since: None,
            watches,
            look,
            flow,
            refresh: None,
            state: State::Begun,
        };
        // Made where it stays, and what is noted, which is large, copied only where there is any.
        match look {
            None => call(None),
            look => call(look),
        }
    }

    /// Counts a call that came out as `outcome`.
    pub(super) fn settle(&self, call: &mut Call, outcome: Outcome, now: Timestamp) {
        self.settle_as(call, outcome, call.status, now);
    }

    /// As [`Engine::settle`], of a call whose application gets another status than the vendor's.
    pub(super) fn settle_as(&self, call: &mut Call, outcome: Outcome, status: u16, now: Timestamp) {
        let outcome = Self::by_fault(call, outcome);
        // What it used and cost, while it is still known how it came to an end.
        let account = self.close(call, outcome, now);
        let seen = Self::seen(call);
        call.state = State::Settled;
        call.status = status;
        if call.engine != self.identity {
            // Begun before a fork, say: its names live in another engine, which counts it or is gone.
            self.tallies.foreign_calls.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.advise_on(call, outcome, (account.cost, account.unknown.is_some()), now);
        let standing = call.flow.take();
        if standing.as_ref().is_some_and(|standing| standing.flow.is_copy) {
            self.shadows.fetch_sub(1, Ordering::AcqRel);
        }
        let earlier = standing.as_ref().and_then(|standing| standing.flow.earlier.as_deref());
        let key = SeriesKey {
            vendor: call.found.vendor,
            endpoint: call.found.endpoint,
            customer: call.found.customer,
            tags: call.found.tags,
            caller: call.caller.0,
            status: call.status,
            outcome: SeriesKey::outcome_number(outcome),
            tap: call.tap as u8,
        };
        // What an SDK tries again is one call, from its first attempt on.
        let begun = earlier.map_or(call.begun, Unfinished::begun);
        // The sidecar saw this attempt alone.
        let sighting = self.sightings.load(Ordering::Relaxed).then(|| {
            call.keys.sighting(call.begun, now, seen, u16::try_from(call.attempts).unwrap_or(u16::MAX))
        });
        // Made where it is handed over: as large as it is, a copy takes long.
        let mut settled = Settled {
            found: call.found,
            key,
            entry: Entry {
                id: call.id,
                begun,
                duration: nanos_between(begun, now),
                // A head in the same nanosecond counts as one.
                ttfb: (call.status != 0).then(|| {
                    NonZeroU64::MIN.saturating_add(nanos_between(begun, call.head_at).saturating_sub(1))
                }),
                bytes_out: call.bytes_out,
                bytes_in: call.bytes_in,
                attempts: call.attempts,
                waited: call.waited,
                cost: account.cost,
                cost_unknown: account.unknown,
                tokens_in: account.tokens_in,
                tokens_out: account.tokens_out,
                saved_bytes: account.saved.bytes,
                saved_cost: account.saved.cost,
                saved_requests: account.saved.requests,
                saved_tokens: account.saved.tokens,
            },
            times: call.times,
            ended: now,
            sighting,
            story: None,
        };
        if let Some(earlier) = earlier {
            earlier.add_to(&mut settled.entry);
        }
        self.count(&mut settled, standing, call, outcome);
    }
}

impl Call {
    /// What to do next. Stale after every event: ask again after [`Call::answer`], [`Call::head`] or
    /// [`Call::failed`], and when the time of a [`Step::Wait`] has come.
    pub fn step(&mut self, engine: &Engine, now: Timestamp) -> Step {
        if let Some(since) = self.waiting_since.take() {
            self.waited = self.waited.saturating_add(nanos_between(since, now));
        }
        if let Some(step) = engine.after_parking(self, now) {
            return step;
        }
        let again =
            matches!(self.state, State::Answered | State::Failed(_)) && engine.after_attempt(self, now);
        if !again && let Some(step) = engine.cache_instead(self, now) {
            return step;
        }
        match again || self.state == State::Begun {
            true => engine.next(self, now),
            false => engine.at_last(self, now),
        }
    }
}

impl Call {
    /// As [`Call::step`], for an adapter that can stop a request but neither hold it up nor answer it: what would
    /// have to wait, or be answered, goes out, and is one of the `overlooked_calls`.
    pub fn step_at_once(&mut self, engine: &Engine, now: Timestamp) -> Step {
        match self.state {
            State::Begun => {
                self.stays();
                engine.next_at_once(self, now)
            }
            _ => Step::Settled,
        }
    }

    /// An attempt goes out whatever the rules say, or did already: the adapter could not ask. What they let go
    /// counts with them like any other; the rest are the `overlooked_calls`.
    pub fn send_regardless(&mut self, engine: &Engine, now: Timestamp) {
        if self.state == State::Begun {
            self.stays();
            match engine.ask(self, now) {
                Ok(()) => _ = Engine::attempt(self, now),
                Err(_) => _ = engine.overlook(self),
            }
        }
    }
}

impl Engine {
    fn next_at_once(&self, call: &mut Call, now: Timestamp) -> Step {
        match self.ask(call, now) {
            Ok(()) => Step::Send(Self::attempt(call, now)),
            // It is not held up, and otherwise goes as the rules say: under the key that makes it safe to send again.
            Err(Halt::Wait(_)) => {
                self.tallies.overlooked_calls.fetch_add(1, Ordering::Relaxed);
                call.attempts += 1;
                call.state = State::Sent;
                Step::Send(Self::attempt(call, now))
            }
            Err(Halt::Fault(stood_in)) if stood_in.answers() => Step::Send(self.overlook(call)),
            Err(Halt::Cached(..)) => Step::Send(self.overlook(call)),
            Err(halt) => {
                // It makes no other attempt.
                if let Some(Standing { flow, .. }) = &mut call.flow {
                    flow.replayable = false;
                }
                self.halt(call, halt, now)
            }
        }
    }

    /// What the rules would not let go as it is goes out.
    fn overlook(&self, call: &mut Call) -> Attempt {
        self.tallies.overlooked_calls.fetch_add(1, Ordering::Relaxed);
        call.attempts += 1;
        call.state = State::Sent;
        Attempt::plain(call.attempts)
    }

    /// The next attempt, or what stands in its way.
    pub(super) fn next(&self, call: &mut Call, now: Timestamp) -> Step {
        match self.ask(call, now) {
            Ok(()) => Step::Send(Self::attempt(call, now)),
            Err(halt) => self.halt(call, halt, now),
        }
    }

    /// Asks the rules about the next attempt, which goes out where they let it.
    fn ask(&self, call: &mut Call, now: Timestamp) -> Result<(), Halt> {
        if let Some(Standing { plan, flow }) = &mut call.flow {
            // Nothing refuses what a fault holds back.
            if flow.met.is_none() {
                self.decide(plan, flow, now)?;
            }
            // What a rule breaks on purpose looks to all others like the vendor's doing.
            faults::before(plan, flow, call.attempts + flow.faulted + 1, now)?;
            // What is not sent needs no reserve.
            if std::mem::take(&mut flow.unseen) && plan.judges_content() {
                self.tallies.unread_requests.fetch_add(1, Ordering::Relaxed);
            }
        }
        call.attempts += 1;
        call.state = State::Sent;
        Ok(())
    }

    /// The attempt that goes out.
    fn attempt(call: &mut Call, now: Timestamp) -> Attempt {
        match &mut call.flow {
            None => Attempt::plain(call.attempts),
            Some(Standing { plan, flow }) => {
                let begun = match flow.met.take() {
                    // It began when a fault began to hold it back.
                    Some(Met { begun, .. }) => {
                        Begun { hedge_at: begun.hedge_at.filter(|at| *at > now), ..begun }
                    }
                    None => decide::begin_attempt(plan, flow, call.attempts + flow.faulted, now),
                };
                decide::attempt(plan, flow, begun, now)
            }
        }
    }

    /// The attempt does not go out now.
    fn halt(&self, call: &mut Call, halt: Halt, now: Timestamp) -> Step {
        match halt {
            Halt::Wait(until) => {
                call.waiting_since = Some(now);
                Step::Wait(until)
            }
            Halt::Cached(answer, outcome) => self.respond(call, &answer, outcome, now),
            Halt::Refuse(refusal) => {
                if let Some(step) = self.cache_instead_of(call, &refusal, now) {
                    return step;
                }
                if let Some(Standing { plan, flow }) = &mut call.flow {
                    self.critical(plan, flow, Failure::Refused(refusal.by), call.id, now);
                }
                self.park_or(call, Instead::Refuse(refusal), now)
            }
            Halt::Fault(stood_in) => self.stand_in(call, stood_in, now),
            Halt::Hedge => self.hedge_held(call, now),
        }
    }

    /// The order of decisions before an attempt. Asked again after each wait, and for each attempt; a concept that
    /// has said its word for the call, or given the attempt what it needs, is silent the second time.
    fn decide(&self, plan: &Plan, flow: &mut Flow, now: Timestamp) -> Result<(), Halt> {
        // A retry comes at its time, whatever its rules say then.
        flow.back_off(now)?;
        // Somebody must still be waiting for the answer.
        decide::deadline(flow, now)?;
        // What must not be asked at all comes before what it would cost.
        decide::policy(self, plan, flow, now)?;
        // Which host it goes to, and whether the switch is off.
        decide::rollout(plan, flow, now)?;
        // What is kept need not be paid for, nor asked for twice.
        lookup::before(self, plan, flow, now)?;
        // Money is set aside before a place is taken: who cannot pay must not hold others up.
        decide::budget(plan, flow, now)?;
        // The vendor's limits and ours; the first that may take time.
        decide::quota(self, plan, flow, now)?;
        // Places are held for as long as an attempt lasts, so they are taken late.
        decide::concurrency(plan, flow, now)?;
        // A probe that passes must be sent: nothing may refuse after it.
        decide::breaker(self, plan, flow, now)
    }
}

const fn nanos_between(earlier: Timestamp, later: Timestamp) -> u64 {
    later.as_nanos().saturating_sub(earlier.as_nanos())
}
