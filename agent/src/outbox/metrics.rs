//! The state of the outbox, and what this process delivered, as metrics.

use super::{Inner, OutboxError, VendorCount, wall};
use crate::export::otlp::{Attributes, Instrument, Metrics, Number, Point};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Vendors that are told apart; those beyond are added up.
const MAX_VENDORS: usize = 256;
const OTHER: &str = "other";

const CALLS: Instrument = Instrument {
    name: "farcall.outbox.calls",
    unit: "{call}",
    description: "Calls in the outbox: those that wait, those delivered that are remembered, and dead letters",
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

    /// Adds how many calls of this service there are, and for how long they have waited.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    pub(crate) fn measure(&self, metrics: &mut Metrics) -> Result<(), OutboxError> {
        let counts = self.store()?.vendors().wait()?;
        let vendors = by_vendor(counts.iter().filter(|count| count.service == self.queue));
        let (now, mut calls, mut oldest) = (wall(), Vec::new(), Vec::new());
        for (vendor, standing) in &vendors {
            let Standing { pending, delivered, dead, since } = *standing;
            for (state, many) in [("pending", pending), ("delivered", delivered), ("dead", dead)] {
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

/// How the calls to one vendor stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    pending: u64,
    delivered: u64,
    dead: u64,
    /// When the oldest of those that wait was put.
    since: Option<i64>,
}

fn by_vendor<'a>(counts: impl Iterator<Item = &'a VendorCount>) -> BTreeMap<&'a str, Standing> {
    let mut vendors: BTreeMap<&str, Standing> = BTreeMap::new();
    for count in counts {
        let known = vendors.contains_key(count.vendor.as_str()) || vendors.len() < MAX_VENDORS;
        let standing = vendors.entry(if known { &count.vendor } else { OTHER }).or_default();
        standing.pending += count.pending;
        standing.delivered += count.delivered;
        standing.dead += count.dead;
        standing.since = match (standing.since, count.oldest) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    vendors
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

    fn count(vendor: &str, pending: u64, oldest: Option<i64>) -> VendorCount {
        let (service, vendor, endpoint) = ("shop".into(), vendor.into(), String::new());
        VendorCount { service, vendor, endpoint, pending, oldest, delivered: 2, dead: 1, attempts: 0 }
    }

    #[test]
    fn endpoints_of_a_vendor_are_added_up_and_the_oldest_of_them_counts() {
        let counts =
            [count("a", 1, Some(70)), count("a", 2, Some(50)), count("a", 0, None), count("b", 0, None)];
        let vendors = by_vendor(counts.iter());
        assert_eq!(vendors["a"], Standing { pending: 3, delivered: 6, dead: 3, since: Some(50) });
        assert_eq!(vendors["b"].since, None);
    }

    #[test]
    fn vendors_beyond_the_bound_are_added_up_and_none_is_lost() {
        let counts: Vec<_> =
            (0..1_000).map(|number| count(&format!("v{number:04}"), 1, Some(number))).collect();
        let vendors = by_vendor(counts.iter());
        assert_eq!(vendors.len(), MAX_VENDORS + 1);
        assert_eq!(vendors.values().map(|standing| standing.pending).sum::<u64>(), 1_000);
        assert_eq!(vendors[OTHER].since, Some(MAX_VENDORS as i64));
        let deliveries = ByVendor::default();
        (0..1_000).for_each(|number| deliveries.count(&format!("v{number}"), |of| of.delivered += 1));
        let all = deliveries.lock();
        assert_eq!((all.len(), all.values().map(|of| of.delivered).sum::<u64>()), (MAX_VENDORS + 1, 1_000));
    }
}
