//! A call that the cache answers at once: begun, answered and counted in one. What it would hold while it is under way
//! is not made, so that a hit costs little more than to be found and counted.
//!
//! Only where nothing is asked before the cache, and only for what is at hand and good as it is: then it comes out, and
//! stands in the ledger, as it would step by step. Every other call goes on from here as ever.

use super::cached::Saved;
use super::events::{Events, What};
use super::pipeline::Known;
use super::plans::Plans;
use super::{Call, Engine, Step, flow, lookup};
use crate::cache::{Answer, Status};
use crate::call::{ConnectTimes, Head, Outcome};
use crate::ledger::{Entry, Held, SeriesKey, Settled};
use crate::resilience::Deadline;
use crate::units::{Timestamp, spread};
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

impl Engine {
    /// Begins a call and asks what to do, as [`Engine::begin`] and [`Call::step`] do one after the other; in less time
    /// where the cache has the answer at hand. The call goes to `keep` unless that was all there is to it.
    pub fn open(&self, head: &Head<'_>, now: Timestamp, seed: u64, keep: impl FnOnce(Call)) -> Step {
        self.know(head, now, |mut known, held| {
            let held = match self.answer_at_once(&mut known, held, head, now, seed) {
                Ok(step) => return step,
                Err(held) => held,
            };
            let mut call = self.begun(known, held, head, now, seed);
            let step = call.step(self, now);
            if !call.is_over() {
                keep(call);
            }
            step
        })
    }

    /// What answers the call at once; else the lock of its shard.
    fn answer_at_once<'e>(
        &'e self,
        known: &mut Known<'_, '_>,
        held: MutexGuard<'e, Held<Plans>>,
        head: &Head<'_>,
        now: Timestamp,
        seed: u64,
    ) -> Result<Step, MutexGuard<'e, Held<Plans>>> {
        let (Some(request), Some(plan)) = (known.request, &known.plan) else { return Err(held) };
        let Some(part) = plan.cache.as_ref().filter(|part| part.is_first && part.rule.covers(head.method))
        else {
            return Err(held);
        };
        // What an SDK tries again goes on with its call, and who does not wait any more is told so.
        let waits = !Deadline::new(now, plan.resilience.deadline, head.deadline).passed(now);
        if !waits || request.sdk().is_some() {
            return Err(held);
        }
        // A store is somebody else's: nothing is held while it is asked.
        drop(held);
        let mut flow = flow::spare();
        flow.cached.begin(self, plan, head, request.credential().is_some());
        let Some((answer, ttl)) = lookup::at_hand(self, part, &flow.cached, now) else {
            known.flow = Some(flow);
            return Err(self.shards.lock(known.number));
        };
        flow.cached.let_go();
        flow::put_back(flow);
        let status = Status { ttl: Some(ttl), ..Status::default() };
        self.count_hit(known, (&answer, status), head, now, seed);
        Ok(Step::Respond(answer.handed_out(status, now)))
    }

    /// Counts a call that nothing was done for but to be answered.
    fn count_hit(
        &self,
        known: &mut Known<'_, '_>,
        (answer, status): (&Answer, Status),
        head: &Head<'_>,
        now: Timestamp,
        seed: u64,
    ) {
        let found = known.found;
        let Saved { bytes, cost, requests, tokens } = Saved::by(answer);
        let entry = Entry {
            id: spread(seed),
            begun: now,
            ttfb: Some(NonZeroU64::MIN),
            saved_bytes: bytes,
            saved_cost: cost,
            saved_requests: requests,
            saved_tokens: tokens,
            ..Entry::default()
        };
        let key = SeriesKey {
            vendor: found.vendor,
            endpoint: found.endpoint,
            customer: found.customer,
            tags: found.tags,
            caller: head.caller.0,
            status: answer.status,
            outcome: SeriesKey::outcome_number(Outcome::Cached),
            tap: head.tap as u8,
        };
        let listens = self.sightings.load(Ordering::Relaxed);
        let sighting = listens.then(|| known.keys.sighting(now, now, answer.status, 0));
        let plan = known.plan.take();
        let part = plan.as_ref().and_then(|plan| plan.cache.as_ref()).filter(|_| self.cache.tells(now));
        let story = part.map(|part| {
            let mut events = Events::default();
            events.add(now, What::Cache { rule: Arc::clone(&part.name), status });
            events.text(now)
        });
        let times = ConnectTimes::default();
        let settled = Settled { found, key, entry, times, ended: now, sighting, story };
        let mut held = self.shards.lock(known.number);
        held.shard.settle(&settled, &self.tallies);
        let last = plan.and_then(|plan| held.beside.give_back(plan));
        drop(held);
        drop(last);
    }
}
