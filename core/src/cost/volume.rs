//! How much was used of a price this month, for prices that fall with volume.

use crate::units::{Period, Timestamp};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The volume of a calendar month (UTC). Month and volume are one word each time, so that they change together; a
/// volume saturates at 2^48.
#[derive(Debug, Default)]
pub struct Volume {
    own: AtomicU64,
    /// What of the own one others have been told.
    told: AtomicU64,
    /// What others have used: other processes, and this one before its restart.
    elsewhere: AtomicU64,
}

const BITS: u32 = 48;
const MASK: u64 = (1 << BITS) - 1;

impl Volume {
    /// The volume of the month so far.
    #[must_use]
    pub fn so_far(&self, now: Timestamp) -> u64 {
        self.with_elsewhere(self.own.load(Relaxed), now)
    }

    /// Adds to the month's volume, and gives what it was before. A clock that went back adds to the later
    /// month.
    pub fn add(&self, amount: u64, now: Timestamp) -> u64 {
        let month = month(now);
        let mut word = self.own.load(Relaxed);
        loop {
            let (current, so_far) =
                if word >> BITS >= month { (word >> BITS, word & MASK) } else { (month, 0) };
            let next = (current << BITS) | so_far.saturating_add(amount).min(MASK);
            match self.own.compare_exchange_weak(word, next, Relaxed, Relaxed) {
                Ok(_) => return self.with_elsewhere((current << BITS) | so_far, now),
                Err(seen) => word = seen,
            }
        }
    }

    /// What was added since this was asked last, with the number of its month.
    pub(crate) fn untold(&self) -> Option<(u64, u64)> {
        let word = self.own.load(Relaxed);
        let told = self.told.fetch_max(word, Relaxed);
        if told >= word {
            return None;
        }
        let before = if told >> BITS == word >> BITS { told & MASK } else { 0 };
        Some((word >> BITS, (word & MASK) - before))
    }

    /// Tells what all have used in a month, this process included as far as it told.
    pub(crate) fn tell(&self, of: u64, total: u64) {
        let told = self.told.load(Relaxed);
        let own = if told >> BITS == of { told & MASK } else { 0 };
        self.elsewhere.store((of << BITS) | total.saturating_sub(own).min(MASK), Relaxed);
    }

    fn with_elsewhere(&self, own: u64, now: Timestamp) -> u64 {
        let month = month(now);
        let elsewhere = self.elsewhere.load(Relaxed);
        let of = |word: u64| if word >> BITS >= month { word & MASK } else { 0 };
        of(own).saturating_add(of(elsewhere)).min(MASK)
    }
}

fn month(now: Timestamp) -> u64 {
    Period::Month.number(now) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn day(days: u64) -> Timestamp {
        Timestamp::from_nanos(days * 86_400_000_000_000)
    }

    #[test]
    fn a_month_begins_at_zero_and_a_clock_that_goes_back_changes_nothing() {
        let volume = Volume::default();
        assert_eq!(volume.add(5, day(0)), 0);
        assert_eq!(volume.add(7, day(30)), 5);
        assert_eq!(volume.so_far(day(30)), 12);
        assert_eq!(volume.add(1, day(31)), 0, "February");
        assert_eq!(volume.add(1, day(3)), 1, "the clock went back");
        assert_eq!(volume.add(u64::MAX, day(40)), 2);
        assert_eq!(volume.so_far(day(40)), MASK);
    }

    #[test]
    fn what_others_use_counts_and_ones_own_once() {
        let (volume, january) = (Volume::default(), month(day(0)));
        volume.tell(january, 100);
        assert_eq!(volume.add(5, day(0)), 100);
        assert_eq!(volume.untold(), Some((january, 5)));
        assert_eq!(volume.untold(), None);
        volume.add(2, day(1));
        // Others used 10 more; the 5 are among what is told, the 2 are not.
        volume.tell(january, 115);
        assert_eq!(volume.so_far(day(2)), 117);
        assert_eq!(volume.untold(), Some((january, 2)));
        assert_eq!(volume.add(1, day(31)), 0, "what others used in January is not February's");
        assert_eq!(volume.untold(), Some((january + 1, 1)));
    }
}
