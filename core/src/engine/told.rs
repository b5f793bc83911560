//! Calls that the engine is told of when they are over: those that no rule is about, and whose answers it does not
//! read. Between two calls an application's own work empties the caches; many calls in a row find them warm.

use super::attended::Costs;
use super::call::State;
use super::{Call, Engine};
use crate::call::{Head, Tap};
use crate::catalogue::name_of_unknown;
use crate::units::Timestamp;
use std::sync::PoisonError;

impl Engine {
    /// Whether a call to this host that began now would be counted and nothing else, unless it is answered with 429: no
    /// rule decides, and its vendor neither states quotas nor has a price. An adapter may note what happens to such a
    /// call and when, and tell of it when it is over ([`Engine::went_out`]). Holds until [`Engine::attention`] changes.
    /// `host` in lower case.
    #[must_use]
    pub fn only_counts(&self, host: &str) -> bool {
        let number = self.catalogue.find(host).map_or(u32::MAX, |vendor| vendor.0);
        let (states, costs) = self.attended.of(number);
        let priced = || match costs {
            Costs::No => false,
            Costs::Yes => true,
            Costs::Perhaps => {
                let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
                rules.prices.has(name_of_unknown(host))
            }
        };
        !(self.decides() || states || self.catalogue.states_quotas(number) || priced())
    }

    /// Counts up whenever a call may be more than counted that was not before: other rules, a vendor that stated a quota.
    #[must_use]
    pub fn attention(&self) -> u32 {
        self.attended.changes()
    }

    /// A call that went out at `begun`, when it was to be counted and nothing else ([`Engine::only_counts`]), whatever
    /// rules came into force since: what happened to it then is to follow, with the times at which it did. `seed` as of
    /// [`Engine::begin`].
    pub fn went_out(&self, head: &Head<'_>, begun: Timestamp, seed: u64) -> Call {
        debug_assert_eq!(head.tap, Tap::Library);
        let mut call =
            self.know_as::<false, _>(head, begun, |known, held| self.begun(known, held, head, begun, seed));
        call.attempts = 1;
        call.state = State::Sent;
        call
    }
}
