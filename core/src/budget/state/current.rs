//! The account of the current period: one word, which the next period's takes the place of.

use super::State;
use crate::units::{Period, Timestamp};
use std::sync::atomic::Ordering;

const SHIFT: u32 = 60;
pub(super) const AMOUNT: u64 = (1 << SHIFT) - 1;

/// Beside the number of a period: it is the one that the clock leapt back from before.
const RETURNED: u32 = 1 << 31;
/// The number of no period.
pub(super) const NO_PERIOD: u32 = u32::MAX;

/// What [`State::enter`] found.
#[derive(Clone, Copy)]
pub(super) struct Current {
    word: u64,
    pub(super) generation: u32,
    pub(super) number: u32,
}

impl Current {
    pub(super) const fn used(self) -> u64 {
        self.word & AMOUNT
    }

    pub(super) const fn tag(self) -> u64 {
        tag_of(self.generation)
    }

    pub(super) const fn with(self, used: u64) -> u64 {
        self.tag() | if used > AMOUNT { AMOUNT } else { used }
    }
}

const fn tag_of(generation: u32) -> u64 {
    (generation as u64 & 15) << SHIFT
}

impl State {
    pub(super) fn swap(&self, current: Current, used: u64) -> bool {
        let next = current.with(used);
        self.word.compare_exchange(current.word, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The account of the period that `now` is in, begun if need be.
    pub(super) fn enter(&self, period: Period, now: Timestamp) -> Current {
        let number = number_of(period, now);
        loop {
            let word = self.word.load(Ordering::Acquire);
            let place = (word >> SHIFT & 1) as usize;
            let entry = self.periods[place].load(Ordering::Acquire);
            let generation = (entry >> 32) as u32;
            if tag_of(generation) != word & !AMOUNT {
                continue; // The word moved on between the two loads.
            }
            let current = Current { word, generation, number: entry as u32 & !RETURNED };
            if number == current.number || is_a_little_before(period, number, current.number) {
                return current;
            }
            self.begin_next(current, number);
        }
    }

    /// One attempt to begin another period; somebody else's may come first.
    #[cold]
    #[inline(never)]
    fn begin_next(&self, current: Current, number: u32) {
        let generation = current.generation.wrapping_add(1);
        let place = &self.periods[(generation & 1) as usize];
        let mut entry = place.load(Ordering::Acquire);
        if (entry >> 32) as u32 == generation.wrapping_sub(2) {
            let before = entry as u32 & !RETURNED;
            let returned = if number == before && current.number < before { RETURNED } else { 0 };
            let mine = u64::from(generation) << 32 | u64::from(number | returned);
            let _ = place.compare_exchange(entry, mine, Ordering::AcqRel, Ordering::Acquire);
            entry = place.load(Ordering::Acquire);
        }
        if (entry >> 32) as u32 != generation {
            return; // Long past: the account is further on.
        }
        // A clock that came back from a leap takes along what was spent, there and back.
        let (number, returned) = (entry as u32 & !RETURNED, entry as u32 & RETURNED != 0);
        let used = if number < current.number || returned { current.used() } else { 0 };
        let next = tag_of(generation) | used;
        if self.word.compare_exchange(current.word, next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            // So that no tag of sixteen periods ago is taken for this one's. What was set meanwhile stays.
            for tagged in [&self.elsewhere, &self.throttled, &self.warned] {
                let old = tagged.load(Ordering::Acquire);
                if old & !AMOUNT != tag_of(generation) {
                    let _ =
                        tagged.compare_exchange(old, tag_of(generation), Ordering::AcqRel, Ordering::Acquire);
                }
            }
        }
    }
}

/// The number of the period that a moment is in.
pub(super) fn number_of(period: Period, now: Timestamp) -> u32 {
    // Minutes since the epoch fit for as long as nanoseconds do.
    u32::try_from(period.number(now)).unwrap_or(u32::MAX) & !RETURNED
}

/// Whether a period is so little before the account's that the clock was only set, or the thread was late.
fn is_a_little_before(period: Period, number: u32, current: u32) -> bool {
    let slack = match period {
        Period::Minute => 60,
        Period::Hour => 2,
        Period::Day | Period::Week | Period::Month => 1,
    };
    number < current && current - number <= slack
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_slept_through_periods_spoils_none() {
        let state = State::new();
        let minute = |number: u64| Timestamp::from_nanos(number * 60_000_000_000);
        let stale = state.enter(Period::Minute, minute(1_000_000));
        for generations in 1..6 {
            let current = state.enter(Period::Minute, minute(1_000_000 + generations));
            assert!(state.swap(current, 7));
            // It still believes that the first minute is over, and a later one than all has begun.
            state.begin_next(stale, 2_000_000);
            assert!(!state.swap(stale, 99));
            let found = state.enter(Period::Minute, minute(1_000_000 + generations));
            assert_eq!((found.number, found.used()), (current.number, 7));
        }
    }
}
