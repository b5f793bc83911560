//! The order of decisions.
//!
//! A call passes these steps from top to bottom when it begins, and back up when it ends. Each step is a
//! concept with a module of its own that knows none of the others; only this file joins them. The order is
//! the design's: catalogue, attribution, (policy, rollout, cache, budget, quota, breaker,) attempt, (cost,)
//! ledger. What stands in brackets is not built yet, and so is not here.

use super::call::State;
use super::{Attempt, Call, Engine, Step};
use crate::attribution::{TagText, cut};
use crate::call::{Head, Headers, Outcome, Target};
use crate::catalogue::{UNREADABLE, name_of_unknown, normalise};
use crate::ledger::{Entry, Found, RequestKeys, SeriesKey, Settled, Shard, Text};
use crate::units::Timestamp;
use std::num::NonZeroU64;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

impl Engine {
    /// Begins a call. `seed` is any number that differs from call to call: all randomness of the call comes
    /// from it, so that the same inputs give the same decisions.
    pub fn begin(&self, head: &Head<'_>, now: Timestamp, seed: u64) -> Call {
        let lower: Text<256>;
        let host = if head.target.mixed_case {
            lower = Text::lower(head.target.host);
            lower.as_str()
        } else {
            head.target.host
        };
        let number = self.shards.own();
        let mut shard = self.shards.lock(number);

        // Whom the call goes to comes first: every rule matches on vendor and endpoint.
        let vendor = self.find_vendor(&mut shard, host);
        let endpoint = self.find_endpoint(&mut shard, vendor, head);
        // On whose behalf: captured by value now, so that a stream abandoned later still settles on the right
        // customer.
        let (customer, tags) = self.find_customer(&mut shard, head);
        drop(shard);

        Call {
            id: mix(seed),
            shard: number,
            found: Found { vendor, endpoint, customer, tags },
            caller: head.caller,
            tap: head.tap,
            // Both taps recognise a call by these. Taken in any case: somebody may begin to listen before it ends.
            keys: RequestKeys::new(head.method, host, head.target.path),
            engine: self.identity,
            begun: now,
            head_at: now,
            times: crate::call::ConnectTimes::default(),
            bytes_out: 0,
            bytes_in: 0,
            status: 0,
            attempts: 0,
            waited: 0,
            state: State::Begun,
        }
    }

    /// Looks at what an answer says.
    pub(super) fn read_answer(&self, _call: &mut Call, _headers: &dyn Headers, _now: Timestamp) {}

    /// Counts a call that came out as `outcome`.
    pub(super) fn settle(&self, call: &mut Call, outcome: Outcome, now: Timestamp) {
        call.state = State::Settled;
        if call.engine != self.identity {
            // Begun before a fork, say: its names live in another engine, which counts it or is gone.
            self.tallies.foreign_calls.fetch_add(1, Ordering::Relaxed);
            return;
        }
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
        let entry = Entry {
            id: call.id,
            begun: call.begun,
            duration: nanos_between(call.begun, now),
            // A head in the same nanosecond counts as one.
            ttfb: (call.status != 0).then(|| {
                NonZeroU64::MIN.saturating_add(nanos_between(call.begun, call.head_at).saturating_sub(1))
            }),
            bytes_out: call.bytes_out,
            bytes_in: call.bytes_in,
            attempts: call.attempts,
            waited: call.waited,
            cost: 0,
            cost_unknown: true,
            tokens_in: 0,
            tokens_out: 0,
        };
        let sighting = self.sightings.load(Ordering::Relaxed).then_some(call.keys);
        let settled = Settled { found: call.found, key, entry, times: call.times, ended: now, sighting };
        // The shard where the call began, whatever thread it ends on: its names live there.
        self.shards.lock(call.shard).settle(&settled, &self.tallies);
    }

    fn find_vendor(&self, shard: &mut Shard, host: &str) -> u32 {
        if host.is_empty() {
            self.tallies.unreadable_targets.fetch_add(1, Ordering::Relaxed);
            return shard.learned_vendor(UNREADABLE, &self.tallies);
        }
        if let Some(vendor) = shard.hosts.get(0, host) {
            shard.keep_vendor(vendor, &self.tallies);
            return vendor;
        }
        let vendor = match self.catalogue.find(host) {
            Some(vendor) => Shard::known_vendor(vendor),
            None => shard.learned_vendor(name_of_unknown(host), &self.tallies),
        };
        shard.hosts.insert(0, host, vendor);
        vendor
    }

    fn find_endpoint(&self, shard: &mut Shard, vendor: u32, head: &Head<'_>) -> u32 {
        let Target { path, .. } = head.target;
        if vendor < self.catalogue.vendor_count()
            && let Some(known) =
                self.catalogue.find_endpoint(crate::catalogue::VendorIndex(vendor), head.method, path)
        {
            return known;
        }
        let normalised = normalise(head.method, path);
        let generation = self.learned.load(Ordering::Acquire);
        if shard.generation != generation {
            // Something was merged since: what was found before may have another template now.
            shard.paths.clear();
            shard.generation = generation;
        }
        if let Some(seen) = shard.paths.get(vendor, normalised.as_str()) {
            shard.keep_endpoint(seen, &self.tallies);
            return seen;
        }
        let template = {
            let mut learner = self.learner.lock().unwrap_or_else(PoisonError::into_inner);
            let template = learner.template(shard.vendor_name(&self.catalogue, vendor), normalised.as_str());
            self.tallies.relearned.store(learner.resets(), Ordering::Relaxed);
            self.learned.store(learner.generation(), Ordering::Release);
            template
        };
        let endpoint = shard.learned_endpoint(vendor, template.as_str(), &self.tallies);
        shard.paths.insert(vendor, normalised.as_str(), endpoint);
        endpoint
    }

    fn find_customer(&self, shard: &mut Shard, head: &Head<'_>) -> (u32, u32) {
        let name = head.customer.map(cut);
        if name.map(str::len) != head.customer.map(str::len) {
            self.tallies.cut_names.fetch_add(1, Ordering::Relaxed);
        }
        let customer = shard.customer(name, &self.tallies);
        if head.tags.is_empty() {
            return (customer, Shard::no_tags());
        }
        let text = TagText::new(head.tags);
        self.tallies.cut_names.fetch_add(u64::from(text.cut), Ordering::Relaxed);
        (customer, shard.tag_set(text.as_str(), &self.tallies))
    }
}

impl Call {
    /// What to do next. Stale after every event: ask again after [`Call::head`] or [`Call::failed`].
    pub fn step(&mut self, _engine: &Engine, _now: Timestamp) -> Step {
        match self.state {
            State::Begun => {
                self.attempts += 1;
                self.state = State::Sent;
                Step::Send(Attempt::plain(self.attempts))
            }
            State::Sent | State::Answered | State::Failed(_) | State::Refused(_) | State::Settled => {
                Step::Settled
            }
        }
    }
}

const fn nanos_between(earlier: Timestamp, later: Timestamp) -> u64 {
    later.as_nanos().saturating_sub(earlier.as_nanos())
}

/// Spreads a seed over all 64 bits (the finaliser of SplitMix64).
const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
