//! The heaviest of many in constant memory: the space-saving sketch (Metwally, Agrawal, El Abbadi, 2005), on
//! atomics. Counts are never too low, and too high by at most the least count kept.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const KEPT: usize = 16;

/// The sixteen heaviest keys. Additions that meet may be a few units off; whoever needs the exact total counts
/// it besides.
#[derive(Debug, Default)]
pub(super) struct Heavy {
    /// Keys and units; a key of 0 is a free place.
    places: [(AtomicU64, AtomicU64); KEPT],
    /// Some key lost its place to another.
    crowded: AtomicU64,
}

impl Heavy {
    /// Adds to a key, which is not 0.
    pub(super) fn add(&self, key: u64, units: u64) {
        let mut least = (u64::MAX, 0);
        for (index, (place, count)) in self.places.iter().enumerate() {
            let seen = place.load(Relaxed);
            if seen == key
                || seen == 0
                    && place.compare_exchange(0, key, Relaxed, Relaxed).unwrap_or_else(|other| other) == key
                || seen == 0 && place.load(Relaxed) == key
            {
                count.fetch_add(units, Relaxed);
                return;
            }
            least = least.min((count.load(Relaxed), index));
        }
        let (place, count) = &self.places[least.1];
        self.crowded.store(1, Relaxed);
        place.store(key, Relaxed);
        count.fetch_add(units, Relaxed);
    }

    /// Keys with units and the units that are certain, heaviest first.
    pub(super) fn top(&self) -> Vec<(u64, u64, u64)> {
        let mut top: Vec<_> = self
            .places
            .iter()
            .map(|(key, count)| (key.load(Relaxed), count.load(Relaxed)))
            .filter(|&(key, count)| key != 0 && count != 0)
            .collect();
        top.sort_unstable_by_key(|&(key, count)| (std::cmp::Reverse(count), key));
        let crowded = self.crowded.load(Relaxed) != 0;
        let error = if crowded { top.last().map_or(0, |&(_, count)| count) } else { 0 };
        top.into_iter().map(|(key, count)| (key, count, count.saturating_sub(error))).collect()
    }

    pub(super) fn clear(&self) {
        for (key, count) in &self.places {
            key.store(0, Relaxed);
            count.store(0, Relaxed);
        }
        self.crowded.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn counts_are_never_too_low_and_their_error_is_known(
            adds in proptest::collection::vec((1u64..60, 1u64..20), 0..2_000),
        ) {
            let heavy = Heavy::default();
            let mut exact: HashMap<u64, u64> = HashMap::new();
            for (key, units) in adds {
                // Skewed: low keys come more often.
                let key = 1 + (key * key / 60);
                heavy.add(key, units);
                *exact.entry(key).or_default() += units;
            }
            let total: u64 = exact.values().sum();
            let top = heavy.top();
            for &(key, units, at_least) in &top {
                prop_assert!(at_least <= exact[&key] && exact[&key] <= units);
            }
            // Whoever used more than a sixteenth is among them.
            for (key, units) in exact {
                prop_assert!(units <= total / 16 || top.iter().any(|(kept, ..)| *kept == key));
            }
        }
    }
}
