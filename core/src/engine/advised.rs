//! What is noted of a call for advice: at its begin, at its answer, and at its end.

use super::Engine;
use super::call::Call;
use super::plan::Standing;
use super::request::Request;
use crate::advise::{AdviseConfig, Asked, CredentialUse, Look, Marks, Settlement};
use crate::attribution::CallerId;
use crate::cache::tells_apart;
use crate::call::{Head, Headers, Outcome, Tap};
use crate::inspect;
use crate::ledger::{Batch, Found, Shard};
use crate::units::Timestamp;
use std::sync::atomic::Ordering;

impl Engine {
    /// What the headers of a request say, for adapters that have them when a request is made and not any more when its
    /// call begins: [`Head::marks`] takes it. Nothing where nobody wants to know.
    #[must_use]
    pub fn marks(&self, headers: &dyn Headers) -> Option<Marks> {
        self.advice.is_on().then(|| {
            let mut request = Request::new();
            request.see(headers);
            let by = self.fingerprinter.get().unwrap_or(&self.own_fingerprinter);
            let secret = by.of_value(request.credential());
            self.with_others(Marks::new(&self.advice.hasher, &request.advice(), secret), headers)
        })
    }

    /// With all headers that would keep a request apart from others in the cache.
    fn with_others(&self, mut marks: Marks, headers: &dyn Headers) -> Marks {
        headers.each(&mut |name, value| {
            if tells_apart(name) {
                marks.add(&self.advice.hasher, name, value);
            }
        });
        marks
    }

    pub(super) fn advise_as(&self, config: AdviseConfig) {
        self.advice.set(config);
    }

    /// A call begins, on the shard `number`. `secret`: its credential's fingerprint, where that is known already;
    /// `about` stands for its request, and `lot` is any number that differs from call to call.
    pub(super) fn look_at(
        &self,
        (number, shard): (usize, &Shard),
        (about, lot): (u64, u64),
        found: Found,
        head: &Head<'_>,
        request: Option<(&Request<'_>, u64)>,
        now: Timestamp,
    ) -> Option<Look> {
        if !self.advice.is_on() || head.tap != Tap::Library || head.caller != CallerId::SELF {
            return None;
        }
        let endpoint = u64::from(found.vendor) << 32 | u64::from(found.endpoint);
        let level = self.advice.takes(number, endpoint, about, lot, now)?;
        self.look_closely(shard, found, head, request, level, now)
    }

    /// Looks at one of the calls that are looked at. It counts for two to the power of `level`.
    #[inline(never)]
    fn look_closely(
        &self,
        shard: &Shard,
        found: Found,
        head: &Head<'_>,
        request: Option<(&Request<'_>, u64)>,
        level: u8,
        now: Timestamp,
    ) -> Option<Look> {
        let hasher = &self.advice.hasher;
        let exact = head.exact || head.caches || head.marks.is_some();
        let marks = match (head.marks, request) {
            (Some(marks), _) => marks,
            (None, Some((request, secret))) if exact => {
                self.with_others(Marks::new(hasher, &request.advice(), secret), head.headers)
            }
            (None, Some((request, secret))) => Marks::new(hasher, &request.advice(), secret),
            (None, None) if exact => self.marks(head.headers).unwrap_or_default(),
            (None, None) => Marks::default(),
        };
        let marks = marks.of_kind(head.client);
        let asked = Asked::new(hasher, head.method, &head.target, head.customer, marks);
        let (vendor, endpoint, ..) = shard.names(&self.catalogue, found);
        let look = self.advice.begin(vendor, endpoint, asked, exact, level, now);
        if look.is_none() {
            self.tallies.unadvised_calls.fetch_add(1, Ordering::Relaxed);
        }
        look
    }

    /// A call is over.
    pub(super) fn advise_on(
        &self,
        call: &Call,
        outcome: Outcome,
        (cost, cost_unknown): (i64, bool),
        now: Timestamp,
    ) {
        // What was not made cannot be saved.
        let made = matches!(outcome, Outcome::Complete | Outcome::Abandoned | Outcome::Failed(_));
        if let Some(look) = &call.look
            && made
            && call.attempts > 0
        {
            self.advise_on_looked_at(call, look, outcome, (cost, cost_unknown), now);
        }
    }

    #[inline(never)]
    fn advise_on_looked_at(
        &self,
        call: &Call,
        look: &Look,
        outcome: Outcome,
        (cost, cost_unknown): (i64, bool),
        now: Timestamp,
    ) {
        let standing = call.flow.as_ref();
        if standing.is_some_and(|standing| standing.flow.is_copy) {
            return;
        }
        let counted = call.watches
            || self.attended.has_stated(call.found.vendor)
            || standing.is_some_and(|Standing { plan, .. }| !plan.quotas.is_empty());
        let falls_back = |Standing { plan, .. }: &Standing| {
            let keeps = plan.cache.as_ref().is_some_and(|part| part.rule.stale_if_error.is_some());
            plan.resilience.breaker.is_some() || plan.resilience.failover.is_some() || keeps
        };
        let settlement = Settlement {
            begun: call.begun,
            answered: call.head_at,
            ended: now,
            status: if matches!(outcome, Outcome::Failed(_)) { 0 } else { call.status },
            whole: outcome == Outcome::Complete,
            bytes_in: call.bytes_in,
            quota: if counted { call.attempts } else { 0 },
            cost,
            cost_unknown,
            deadline: standing.is_some_and(|Standing { plan, flow }| {
                flow.deadline.at().is_some() || plan.resilience.attempt_timeout.is_some()
            }),
            fallback: standing.is_some_and(falls_back),
        };
        self.advice.settle(look, &settlement, call.shard);
    }

    pub(super) fn drain_advice(&self, now: Timestamp, batch: &mut Batch) {
        let (observed, credentials) = self.advice.drain(now);
        batch.advice = observed;
        batch.credentials.extend(credentials.into_iter().map(|used| {
            CredentialUse::new(now.minute(), used.vendor, inspect::in_words(used.secret), used.calls)
        }));
    }
}
