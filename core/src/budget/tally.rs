//! What was charged to a budget by one of those who make many calls, on a cache line of its own.
//!
//! Most calls spend what was set aside for them, such as a price for each call. The account counted that when they
//! began; when they end, nothing is left to do but to add to the total of what was ever charged. In the account itself,
//! that would move its line from thread to thread once more for each call.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A part of what was ever charged to a budget. Threads may share one, but should not.
///
/// On two lines: processors fetch the one beside it along.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tally(AtomicU64);

/// Larger charges, and those upon a larger sum, go to the account: then a sum cannot wrap before 254 threads are between
/// the look at it and what they add.
const FULL: u64 = 1 << 56;

impl Tally {
    /// Adds a charge; `false` where it does not fit, and is to be counted elsewhere.
    pub(super) fn add(&self, charge: u64) -> bool {
        let fits = charge < FULL && self.0.load(Relaxed) < FULL;
        if fits {
            self.0.fetch_add(charge, Relaxed);
        }
        fits
    }

    pub(super) fn sum(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
