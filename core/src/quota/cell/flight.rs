//! How many calls are under way.
//!
//! A process may die with calls under way, and nobody ends them. So holds are counted by the generation in which
//! they began, and a generation is forgotten after the next one: a lost hold costs at most ten minutes, and a
//! call that takes longer than that is no longer counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const GENERATION: u64 = 300_000_000_000;
const NUMBERS: u64 = 1 << 12;
const COUNT_BITS: u32 = 26;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// A word of `[generation: 12][begun in it: 26][begun in the one before: 26]`.
#[derive(Clone, Copy)]
struct Flight {
    generation: u64,
    current: u64,
    previous: u64,
}

impl Flight {
    fn read(word: u64, generation: u64) -> Self {
        let flight = Self {
            generation: word >> (2 * COUNT_BITS),
            current: (word >> COUNT_BITS) & COUNT_MASK,
            previous: word & COUNT_MASK,
        };
        match generation.wrapping_sub(flight.generation) % NUMBERS {
            0 => flight,
            1 => Self { generation, current: 0, previous: flight.current },
            // The clock went back by up to an hour: the holds are as old as they are.
            behind if behind >= NUMBERS - 12 => flight,
            _ => Self { generation, current: 0, previous: 0 },
        }
    }

    fn word(self) -> u64 {
        (self.generation << (2 * COUNT_BITS)) | (self.current << COUNT_BITS) | self.previous
    }
}

/// Counts one more call, if fewer than `most` are under way; gives the generation to end it with.
pub(crate) fn begin(word: &AtomicU64, most: u32, now: u64) -> Option<u16> {
    let mut seen = word.load(Relaxed);
    loop {
        let mut flight = Flight::read(seen, now / GENERATION % NUMBERS);
        if flight.current + flight.previous >= u64::from(most).min(COUNT_MASK) {
            return None;
        }
        flight.current += 1;
        match word.compare_exchange_weak(seen, flight.word(), Relaxed, Relaxed) {
            Ok(_) => return Some(flight.generation as u16),
            Err(now) => seen = now,
        }
    }
}

/// Ends a call that [`begin`] counted in `generation`.
pub(crate) fn end(word: &AtomicU64, generation: u16) {
    let mut seen = word.load(Relaxed);
    loop {
        let mut flight = Flight::read(seen, seen >> (2 * COUNT_BITS));
        match flight.generation.wrapping_sub(u64::from(generation)) % NUMBERS {
            0 => flight.current = flight.current.saturating_sub(1),
            1 => flight.previous = flight.previous.saturating_sub(1),
            _ => return,
        }
        match word.compare_exchange_weak(seen, flight.word(), Relaxed, Relaxed) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

/// How many are under way.
pub(crate) fn count(word: &AtomicU64, now: u64) -> u64 {
    let flight = Flight::read(word.load(Relaxed), now / GENERATION % NUMBERS);
    flight.current + flight.previous
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn no_more_than_the_limit_are_under_way() {
        let word = AtomicU64::new(0);
        let holds: Vec<u16> = (0..5).filter_map(|_| begin(&word, 3, NOW)).collect();
        assert_eq!(holds.len(), 3);
        end(&word, holds[0]);
        assert!(begin(&word, 3, NOW).is_some());
        assert!(begin(&word, 3, NOW).is_none());
    }

    #[test]
    fn holds_of_a_dead_process_are_forgotten() {
        let word = AtomicU64::new(0);
        for _ in 0..3 {
            begin(&word, 3, NOW).unwrap();
        }
        assert!(begin(&word, 3, NOW + GENERATION).is_none());
        let hold = begin(&word, 3, NOW + 2 * GENERATION).unwrap();
        assert_eq!(count(&word, NOW + 2 * GENERATION), 1);
        end(&word, hold);
        end(&word, hold);
        assert_eq!(count(&word, NOW + 2 * GENERATION), 0);
    }

    #[test]
    fn a_clock_that_goes_back_frees_nobody_and_loses_nobody() {
        let word = AtomicU64::new(0);
        let first = begin(&word, 2, NOW).unwrap();
        let second = begin(&word, 2, NOW - 3 * GENERATION).unwrap();
        assert!(begin(&word, 2, NOW - 3 * GENERATION).is_none());
        end(&word, first);
        end(&word, second);
        assert_eq!(count(&word, NOW), 0);
    }
}
