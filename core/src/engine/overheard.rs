//! Answers that other programs got, seen from outside: what they say about the vendors' quotas. The account is kept apart
//! from that of this process's own calls, and beside it tells which calls are nobody else's.

use super::account::{Account, MAX_ASKED, Place, Stated, Tokens, stated};
use super::states::Key;
use super::{Call, Engine};
use crate::call::Headers;
use crate::quota::dialect::{Answer, MAX_STATEMENTS};
use crate::quota::{Ask, Claim, State, User};
use crate::units::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Engine {
    /// Counts a call that is answered, and takes what the head of its answer says. Calls are told of when it is decided
    /// whose they are: not in the order in which they were answered.
    ///
    /// Nothing where rules are in force: these keep credentials apart, of which nobody knows anything here.
    #[cold]
    #[inline(never)]
    pub(super) fn overhear(&self, call: &Call, headers: &dyn Headers, now: Timestamp) {
        let vendor = call.found.vendor;
        if self.decides() || !self.catalogue.states_quotas(vendor) {
            return;
        }
        let dialect = self.catalogue.dialect(vendor);
        let reading = dialect.read(&Answer::new(call.status, headers), now);
        self.tallies.ignored_limits.fetch_add(reading.ignored.into(), Ordering::Relaxed);
        if reading.cached {
            return;
        }
        let (vendor, endpoint) = {
            let held = self.shards.lock(call.shard);
            let (vendor, endpoint, ..) = held.shard.names(&self.catalogue, call.found);
            (vendor.to_owned(), endpoint.to_owned())
        };
        let key = Key::of("overheard").and(&vendor);
        let Some(account) = self.states.accounts.get(key, || Account::overheard(&vendor)) else { return };
        let number = Place::number(&endpoint);
        let place = Place { model: Place::number(""), endpoint: number, named: account.named_at(number) };
        let mut claims = [Claim::new(); 2 * MAX_ASKED];
        for (at, known) in account.asked(place) {
            self.count_overheard(known, &mut claims[at], now);
        }
        let mut named = [None; MAX_STATEMENTS];
        for (statement, named) in reading.statements().iter().zip(&mut named) {
            let make = |_, _| Arc::new(State::new(&self.watch_rule));
            let Some(policy) = account.of(statement, dialect, place, ("", &endpoint), make) else {
                self.tallies.folded_policies.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            *named = Some(policy);
            // What it said then, a later answer has said better.
            let is_late = heard(policy, now) > Some(now);
            let mut asked = account.asked(place);
            let at = asked.find(|(_, known)| Arc::ptr_eq(&known.name, &policy.name)).map(|(at, _)| at);
            let mut first = Claim::new();
            let claim = at.map_or(&mut first, |at| &mut claims[at]);
            // Who was refused may not have been counted by the vendor, either.
            if reading.refusal.is_none() && (at.is_some() || policy.is_named()) {
                self.count_overheard(policy, claim, now);
            }
            if !is_late {
                policy.state.state(&self.watch_rule, claim, &stated(statement), now);
            }
        }
        if dialect.has_scopes() {
            account.names(number, named.into_iter().flatten());
        }
    }

    /// Counts it once. What was answered before the newest answer is told of as of then: a clock does not go back.
    fn count_overheard(&self, policy: &Stated, claim: &mut Claim, now: Timestamp) {
        policy.touch();
        let now = heard(policy, now).map_or(now, |heard| heard.max(now));
        let ask = Ask::one().units(policy.units(Tokens::ahead(0, 0)));
        policy.state.watch(&self.watch_rule, claim, &ask, &User::default(), now);
    }
}

/// When an answer last spoke of it.
fn heard(policy: &Stated, now: Timestamp) -> Option<Timestamp> {
    policy.state.glance(now)?.1.stated_at
}
