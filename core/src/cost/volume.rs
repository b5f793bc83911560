//! How much was used of a price this month, for prices that fall with volume.

use crate::units::{Period, Timestamp};
use std::sync::atomic::{AtomicU64, Ordering};

/// The volume of the current calendar month (UTC). One word, so that month and volume change together; the
/// volume saturates at 2^48.
#[derive(Debug, Default)]
pub struct Volume(AtomicU64);

const BITS: u32 = 48;
const MASK: u64 = (1 << BITS) - 1;

impl Volume {
    /// The volume of the month so far.
    #[must_use]
    pub fn so_far(&self, now: Timestamp) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        if word >> BITS >= month(now) { word & MASK } else { 0 }
    }

    /// Adds to the month's volume, and gives what it was before. A clock that went back adds to the later
    /// month.
    pub fn add(&self, amount: u64, now: Timestamp) -> u64 {
        let month = month(now);
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (current, so_far) =
                if word >> BITS >= month { (word >> BITS, word & MASK) } else { (month, 0) };
            let next = current << BITS | so_far.saturating_add(amount).min(MASK);
            match self.0.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return so_far,
                Err(seen) => word = seen,
            }
        }
    }
}

fn month(now: Timestamp) -> u64 {
    Period::Month.number(now) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_at_zero_and_a_clock_that_goes_back_changes_nothing() {
        let volume = Volume::default();
        let day = |days: u64| Timestamp::from_nanos(days * 86_400_000_000_000);
        assert_eq!(volume.add(5, day(0)), 0);
        assert_eq!(volume.add(7, day(30)), 5);
        assert_eq!(volume.so_far(day(30)), 12);
        assert_eq!(volume.add(1, day(31)), 0, "February");
        assert_eq!(volume.add(1, day(3)), 1, "the clock went back");
        assert_eq!(volume.add(u64::MAX, day(40)), 2);
        assert_eq!(volume.so_far(day(40)), MASK);
    }
}
