//! The generic cell rate algorithm (ITU-T I.371) on one atomic word, with booking: a call that has to wait takes
//! its slot at once, so that those who wait never meet at the same moment.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a turn costs, and how far ahead of time one may be taken. All in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// How long the quota needs to make up for it.
    pub(crate) cost: u64,
    /// How far ahead of an even spread it may come.
    pub(crate) tolerance: u64,
    /// No turn is earlier; `now`, or later.
    pub(crate) earliest: u64,
    /// No turn may be later.
    pub(crate) bound: u64,
    /// The word is never honestly this far ahead of `earliest`: then a clock jumped, and it starts anew.
    pub(crate) horizon: u64,
}

/// A slot, and how to give it back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// When it is.
    pub(crate) start: u64,
    before: u64,
    after: u64,
}

impl Turn {
    /// Takes the next slot.
    ///
    /// # Errors
    /// With the slot's time, when it is later than the bound; then nothing was taken.
    pub(crate) fn take(&self, word: &AtomicU64) -> Result<Slot, u64> {
        let mut seen = word.load(Relaxed);
        loop {
            let due = self.due(seen);
            let start = due.saturating_sub(self.tolerance).max(self.earliest);
            if start > self.bound {
                return Err(start);
            }
            let after = due.saturating_add(self.cost);
            match word.compare_exchange_weak(seen, after, Relaxed, Relaxed) {
                Ok(_) => return Ok(Slot { start, before: seen, after }),
                Err(now) => seen = now,
            }
        }
    }

    /// The theoretical arrival time.
    fn due(&self, seen: u64) -> u64 {
        if seen > self.earliest.saturating_add(self.horizon) {
            self.earliest
        } else {
            seen.max(self.earliest)
        }
    }
}

impl Slot {
    /// Gives the slot back, if nobody took one after it. A slot in the middle stays empty: to move it to the end
    /// would let two calls go at once.
    pub(crate) fn give_back(&self, word: &AtomicU64) {
        let _ = word.compare_exchange(self.after, self.before, Relaxed, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_window_sees_more_than_limit_and_burst(
            limit in 1u64..50,
            burst in 1u64..20,
            period in 1_000u64..1_000_000,
            gaps in proptest::collection::vec(0u64..200_000, 1..400),
            max_wait in 0u64..2_000_000,
        ) {
            let word = AtomicU64::new(0);
            let cost = period.div_ceil(limit);
            let mut now = 1_000_000_000u64;
            let mut sent = Vec::new();
            for gap in gaps {
                now += gap;
                let turn = Turn {
                    cost,
                    tolerance: cost * (burst - 1),
                    earliest: now,
                    bound: now + max_wait,
                    horizon: max_wait + period + cost * burst,
                };
                if let Ok(slot) = turn.take(&word) {
                    prop_assert!(slot.start >= now && slot.start <= now + max_wait);
                    sent.push(slot.start);
                }
            }
            sent.sort_unstable();
            for (index, &start) in sent.iter().enumerate() {
                let within = sent[index..].iter().take_while(|&&at| at < start + period).count() as u64;
                prop_assert!(within <= limit + burst, "{within} in a period of {limit} + {burst}");
            }
        }

        #[test]
        fn a_clock_that_jumps_gives_no_burst_and_no_long_wait(
            jumps in proptest::collection::vec(-10_000_000_000i64..10_000_000_000, 1..200),
        ) {
            let word = AtomicU64::new(0);
            let (cost, burst, max_wait) = (1_000_000u64, 5u64, 20_000_000u64);
            let mut now = 1_000_000_000_000u64;
            for jump in jumps {
                now = now.saturating_add_signed(jump);
                let turn = Turn {
                    cost,
                    tolerance: cost * (burst - 1),
                    earliest: now,
                    bound: now + max_wait,
                    horizon: max_wait + cost * burst,
                };
                let mut at_once = 0;
                let mut latest = now;
                while let Ok(slot) = turn.take(&word) {
                    at_once += u64::from(slot.start == now);
                    latest = latest.max(slot.start);
                }
                prop_assert!(at_once <= burst);
                prop_assert!(latest <= now + max_wait);
            }
        }
    }

    #[test]
    fn only_the_last_slot_is_given_back() {
        let word = AtomicU64::new(0);
        let turn = Turn { cost: 10, tolerance: 0, earliest: 100, bound: 1_000, horizon: 1_000 };
        let first = turn.take(&word).unwrap();
        let second = turn.take(&word).unwrap();
        first.give_back(&word);
        assert_eq!(word.load(Relaxed), 120);
        second.give_back(&word);
        assert_eq!(word.load(Relaxed), 110);
    }
}
