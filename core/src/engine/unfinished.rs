//! Calls that an SDK tries again by itself: one call with several attempts, as the application sees it.
//!
//! Nobody says when an SDK is done with a call. So a failed attempt that it may go on from does not reach the ledger
//! at once: it is kept until the next one comes and takes it in, or until none can come any more. Then it is counted
//! as it was, in the minute in which it ended. The sidecar is told of each attempt when it ends.

use super::after::in_words;
use super::events::{Events, What};
use super::flow::{self, Flow};
use super::plan::{Plan, Standing};
use super::{Call, Engine};
use crate::attribution::CallerId;
use crate::call::{ConnectTimes, Outcome, RefusedBy};
use crate::ledger::{Entry, RequestKeys, Settled};
use crate::outbox;
use crate::resilience::{Ending, SdkAttempt, followed_until};
use crate::units::{Timestamp, spread};
use std::sync::atomic::Ordering;

/// What an SDK has tried so far of a call.
#[derive(Debug)]
pub(super) struct Unfinished {
    settled: Settled,
    /// Where its names live.
    shard: usize,
    ending: Ending,
    events: Events,
}

impl Unfinished {
    pub(super) fn begun(&self) -> Timestamp {
        self.settled.entry.begun
    }

    /// Makes these attempts part of the call that went on.
    #[inline(never)]
    pub(super) fn add_to(&self, entry: &mut Entry) {
        let earlier = &self.settled.entry;
        entry.attempts = entry.attempts.saturating_add(earlier.attempts);
        entry.bytes_out = entry.bytes_out.saturating_add(earlier.bytes_out);
        entry.bytes_in = entry.bytes_in.saturating_add(earlier.bytes_in);
        entry.waited = entry.waited.saturating_add(earlier.waited);
        entry.cost = entry.cost.saturating_add(earlier.cost);
        entry.cost_unknown = entry.cost_unknown.or(earlier.cost_unknown);
        entry.tokens_in = entry.tokens_in.saturating_add(earlier.tokens_in);
        entry.tokens_out = entry.tokens_out.saturating_add(earlier.tokens_out);
    }
}

impl Engine {
    /// If the SDK that makes this attempt made others of the same call before, they become part of it: then that call's
    /// id.
    pub(super) fn go_on(
        &self,
        Standing { plan, flow }: &mut Standing,
        keys: RequestKeys,
        caller: CallerId,
        now: Timestamp,
    ) -> Option<u64> {
        let sdk = flow.sdk?;
        self.go_on_from(plan, flow, &sdk, keys, caller, now)
    }

    #[inline(never)]
    fn go_on_from(
        &self,
        plan: &Plan,
        flow: &mut Flow,
        sdk: &SdkAttempt,
        keys: RequestKeys,
        caller: CallerId,
        now: Timestamp,
    ) -> Option<u64> {
        let mut earlier = self.unfinished.follows(key(keys, caller, plan), sdk, now)?;
        self.shards.lock(earlier.shard).shard.release(earlier.settled.found);
        flow.events = std::mem::take(&mut earlier.events);
        let (after, lasts) = (in_words(earlier.ending), now.since(earlier.settled.ended));
        flow.events.add(earlier.settled.ended, What::SdkRetry { after, sdk: sdk.sdk, lasts });
        let id = earlier.settled.entry.id;
        // Under one key, and what the vendor may have acted upon before still counts.
        flow.key = id;
        flow.reached |= outbox::may_have_been_acted_upon(earlier.ending);
        flow.earlier = Some(earlier);
        Some(id)
    }

    /// Counts a call that is over, or keeps it for the attempt with which its SDK may go on.
    pub(super) fn count(
        &self,
        settled: &mut Settled,
        standing: Option<Standing>,
        call: &Call,
        outcome: Outcome,
    ) {
        let shard = call.shard;
        let Some(Standing { plan, flow }) = standing else {
            return self.shards.lock(shard).shard.settle(settled, &self.tallies);
        };
        if flow.sdk.is_some() || flow.earlier.is_some() {
            return self.count_or_keep(settled, Standing { plan, flow }, call, outcome);
        }
        settled.story = flow::give_back(flow, settled.entry.begun);
        let mut held = self.shards.lock(shard);
        held.shard.settle(settled, &self.tallies);
        let last = held.beside.give_back(plan);
        drop(held);
        drop(last);
    }

    /// The same of a call that an SDK makes.
    #[inline(never)]
    fn count_or_keep(
        &self,
        settled: &mut Settled,
        Standing { plan, mut flow }: Standing,
        call: &Call,
        outcome: Outcome,
    ) {
        let (shard, now) = (call.shard, settled.ended);
        if settled.times == ConnectTimes::default()
            && let Some(earlier) = &flow.earlier
        {
            settled.times = earlier.settled.times;
        }
        let ending = match outcome {
            Outcome::Complete | Outcome::Abandoned => Some(Ending::Status(settled.key.status)),
            Outcome::Failed(error) => Some(Ending::Error(error)),
            // To the SDK it is the vendor's.
            Outcome::Refused(RefusedBy::Fault) => flow.judged,
            Outcome::Refused(_) | Outcome::Cached | Outcome::Stale | Outcome::Parked => None,
        };
        let followed = ending.zip(flow.sdk).and_then(|(ending, sdk)| {
            let until = followed_until(&sdk, ending, flow.told, flow.retry_at, now)?;
            Some((ending, sdk, until))
        });
        let Some((ending, sdk, until)) = followed else {
            settled.story = flow::give_back(flow, settled.entry.begun);
            return self.shards.lock(shard).shard.settle(settled, &self.tallies);
        };
        if let Some(sighting) = settled.sighting.take() {
            self.shards.lock(shard).shard.sight(sighting, &self.tallies);
        }
        let events = std::mem::take(&mut flow.events);
        let _no_story = flow::give_back(flow, settled.entry.begun);
        let unfinished = Box::new(Unfinished { settled: settled.clone(), shard, ending, events });
        let key = key(call.keys, call.caller, &plan);
        if let Some(displaced) = self.unfinished.keep(key, &sdk, until, unfinished) {
            self.tallies.ungrouped_attempts.fetch_add(1, Ordering::Relaxed);
            self.count_as_it_was(*displaced);
        }
    }

    /// Counts the attempts that no SDK goes on from any more.
    pub(super) fn count_expired(&self, now: Timestamp) {
        for unfinished in self.unfinished.expired(now) {
            self.count_as_it_was(*unfinished);
        }
    }

    /// Counts at once the failed attempts that wait for their SDK's next one. Before the last drain: who comes after
    /// it is not counted.
    pub fn finish(&self) {
        for unfinished in self.unfinished.all() {
            self.count_as_it_was(*unfinished);
        }
    }

    fn count_as_it_was(&self, unfinished: Unfinished) {
        let Unfinished { mut settled, shard, events, .. } = unfinished;
        settled.story = (!events.is_empty()).then(|| events.text(settled.entry.begun));
        self.shards.lock(shard).shard.settle(&settled, &self.tallies);
    }
}

/// What tells calls apart that cannot be the same.
fn key(keys: RequestKeys, caller: CallerId, plan: &Plan) -> u64 {
    let whose = spread(plan.customer ^ plan.account.secret.rotate_left(32) ^ u64::from(caller.0));
    spread(keys.request ^ whose)
}
