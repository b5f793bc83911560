//! The state of the outbox, and what this process delivered, as metrics.

use super::{Inner, OutboxError, wall};
use crate::export::otlp::{Attributes, Instrument, Metrics, Number, Point};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Vendors that are told apart; those beyond are added up.
const MAX_VENDORS: usize = 256;
const OTHER: &str = "other";

const CALLS: Instrument = Instrument {
    name: "farcall.outbox.calls",
    unit: "{call}",
    description: "Calls in the outbox that are not delivered: those that wait, and dead letters",
};
const OLDEST: Instrument = Instrument {
    name: "farcall.outbox.oldest_age",
    unit: "s",
    description: "How long ago the oldest call that waits was put",
};
const DELIVERED: Instrument = Instrument {
    name: "farcall.outbox.delivered",
    unit: "{call}",
    description: "Calls that this process delivered",
};
const FAILED: Instrument = Instrument {
    name: "farcall.outbox.failed_attempts",
    unit: "{attempt}",
    description: "Attempts of this process to deliver a call that the vendor did not take",
};
const GIVEN_UP: Instrument = Instrument {
    name: "farcall.outbox.given_up",
    unit: "{call}",
    description: "Calls that this process gave up as dead letters",
};

/// What the deliveries of one process came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deliveries {
    pub(super) delivered: u64,
    pub(super) failed_attempts: u64,
    pub(super) given_up: u64,
}

/// The same by vendor; bounded, with exact totals.
#[derive(Debug, Default)]
pub(super) struct ByVendor(Mutex<BTreeMap<String, Deliveries>>);

impl ByVendor {
    pub(super) fn count(&self, vendor: &str, count: impl FnOnce(&mut Deliveries)) {
        let mut vendors = self.lock();
        let name = if vendors.len() < MAX_VENDORS || vendors.contains_key(vendor) { vendor } else { OTHER };
        count(vendors.entry(name.to_owned()).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Deliveries>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Name and value of each counter.
    pub(crate) fn counters(&self) -> [(String, u64); 3] {
        let vendors = self.deliveries.lock();
        let sum = |name: &str, of: fn(&Deliveries) -> u64| (name.to_owned(), vendors.values().map(of).sum());
        [
            sum("delivered_calls", |of| of.delivered),
            sum("failed_deliveries", |of| of.failed_attempts),
            sum("given_up_calls", |of| of.given_up),
        ]
    }

    /// Adds what this process delivered.
    pub(crate) fn count_deliveries(&self, metrics: &mut Metrics) {
        let vendors = self.deliveries.lock().clone();
        let points = |of: fn(&Deliveries) -> u64| {
            vendors.iter().map(|(vendor, deliveries)| point(vendor, None, of(deliveries))).collect()
        };
        metrics.sum(DELIVERED, points(|deliveries| deliveries.delivered));
        metrics.sum(FAILED, points(|deliveries| deliveries.failed_attempts));
        metrics.sum(GIVEN_UP, points(|deliveries| deliveries.given_up));
    }

    /// Adds how many calls of this service are not delivered, and for how long they have waited; nothing where `stop`
    /// says so meanwhile.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub(crate) fn measure(&self, metrics: &mut Metrics, stop: &AtomicBool) -> Result<(), OutboxError> {
        let standings = self.store()?.standings(&self.service, stop)?;
        if stop.load(Ordering::Acquire) {
            return Ok(());
        }
        let (now, mut calls, mut oldest) = (wall(), Vec::new(), Vec::new());
        for (vendor, standing) in &standings.0 {
            let Standing { pending, dead, since } = *standing;
            for (state, many) in [("pending", pending), ("dead", dead)] {
                calls.push(point(vendor, Some(state), many));
            }
            let waited = since.map_or(0, |since| now.saturating_sub(since).max(0));
            let value = Number::Broken(waited as f64 / 1e9);
            oldest.push(Point { value, ..point(vendor, None, 0) });
        }
        metrics.gauge(CALLS, calls);
        metrics.gauge(OLDEST, oldest);
        Ok(())
    }
}

/// How the calls to one vendor stand that are not delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) pending: u64,
    pub(super) dead: u64,
    /// When the oldest of those that wait was put.
    pub(super) since: Option<i64>,
}

/// The same by vendor; bounded, with exact totals.
#[derive(Debug, Default)]
pub(super) struct Standings(BTreeMap<String, Standing>);

impl Standings {
    pub(super) fn add(&mut self, vendor: &str, one: Standing) {
        let known = self.0.len() < MAX_VENDORS || self.0.contains_key(vendor);
        let name = if known { vendor } else { OTHER };
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), Standing::default());
        }
        let Some(standing) = self.0.get_mut(name) else { return };
        standing.pending += one.pending;
        standing.dead += one.dead;
        standing.since = standing.since.into_iter().chain(one.since).min();
    }

    /// Has the moments shown by another clock.
    pub(super) fn show(&mut self, by: &dyn Fn(i64) -> i64) {
        self.0.values_mut().for_each(|standing| standing.since = standing.since.map(by));
    }

    /// When the oldest call that waits was put.
    #[cfg(test)]
    pub(super) fn oldest(&self) -> Option<i64> {
        self.0.values().filter_map(|standing| standing.since).min()
    }

    pub(super) fn add_all(&mut self, others: Self) {
        others.0.into_iter().for_each(|(vendor, standing)| self.add(&vendor, standing));
    }
}

fn point(vendor: &str, state: Option<&str>, value: u64) -> Point {
    let attributes = Attributes::default()
        .text("farcall.vendor", vendor)
        .text("farcall.outbox.state", state.unwrap_or_default());
    Point { attributes, value: Number::Whole(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(pending: u64, since: Option<i64>) -> Standing {
        Standing { pending, dead: 1, since }
    }

    #[test]
    fn calls_of_a_vendor_are_added_up_and_the_oldest_of_them_counts() {
        let mut standings = Standings::default();
        for (vendor, pending, since) in
            [("a", 1, Some(70)), ("a", 2, Some(50)), ("a", 0, None), ("b", 0, None)]
        {
            standings.add(vendor, standing(pending, since));
        }
        assert_eq!(standings.0["a"], Standing { pending: 3, dead: 3, since: Some(50) });
        assert_eq!(standings.0["b"].since, None);
    }

    #[test]
    fn vendors_beyond_the_bound_are_added_up_and_none_is_lost() {
        let mut standings = Standings::default();
        (0..1_000).for_each(|number| standings.add(&format!("v{number:04}"), standing(1, Some(number))));
        assert_eq!(standings.0.len(), MAX_VENDORS + 1);
        assert_eq!(standings.0.values().map(|standing| standing.pending).sum::<u64>(), 1_000);
        assert_eq!(standings.0[OTHER].since, Some(MAX_VENDORS as i64));
        let deliveries = ByVendor::default();
        (0..1_000).for_each(|number| deliveries.count(&format!("v{number}"), |of| of.delivered += 1));
        let all = deliveries.lock();
        assert_eq!((all.len(), all.values().map(|of| of.delivered).sum::<u64>()), (MAX_VENDORS + 1, 1_000));
    }
}
