//! A limit that nobody states: additive increase, multiplicative decrease (Chiu and Jain, 1989).
//!
//! The word holds the rate after the last decrease and when that was; the increase since is computed, not
//! stored, so that a quota in use costs one load.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SECOND: u64 = 1_000_000_000;
/// 32 bits of seconds: with fewer, what is long forgotten would come back when they have gone round.
const RATE_BITS: u32 = 32;
const RATE_MASK: u64 = (1 << RATE_BITS) - 1;
const SECONDS_MASK: u64 = (1 << (64 - RATE_BITS)) - 1;
/// From so many seconds on, a difference is a negative one.
const BEFORE: u64 = SECONDS_MASK / 2;
/// After a 429 the rate falls to so many hundredths.
const DECREASE: u64 = 70;
/// In so many seconds without a 429 the rate grows by itself.
const DOUBLING: u64 = 60;
/// A rate that grew to so many times itself is no limit any more.
const FORGOTTEN: u64 = 8;
/// A clock that went back by more makes it void.
const AN_HOUR: u64 = 3_600;
/// One call in ten seconds: the least.
const LEAST: u64 = 100;

/// The rate now, in thousandths of a unit per second; `None` where none was learned, or long ago.
pub(crate) fn rate(word: u64, now: u64) -> Option<u64> {
    let base = word & RATE_MASK;
    if base == 0 {
        return None;
    }
    let passed = passed(word, now);
    // Seconds from the future: the clock went back. By a little, the rate stays as it was.
    let passed = match passed {
        BEFORE.. if SECONDS_MASK - passed >= AN_HOUR => return None,
        BEFORE.. => 0,
        passed => passed,
    };
    let rate = base + base * passed / DOUBLING;
    (rate <= base * FORGOTTEN).then_some(rate)
}

/// When the rate is forgotten, in nanoseconds; `None` where there is none.
pub(crate) fn until(word: u64, now: u64) -> Option<u64> {
    let passed = match passed(word, now) {
        _ if rate(word, now).is_none() => return None,
        BEFORE.. => 0,
        passed => passed,
    };
    Some(now.saturating_add((DOUBLING * (FORGOTTEN - 1)).saturating_sub(passed).saturating_mul(SECOND)))
}

/// A 429 came for a call that began at `begun`, while calls went out at `observed` thousandths per second. All
/// the 429s of one burst are one decrease.
pub(crate) fn decrease(word: &AtomicU64, observed: u64, begun: u64, now: u64) {
    let _ = word.fetch_update(Relaxed, Relaxed, |seen| {
        let current = match rate(seen, now) {
            Some(_) if matches!(passed(seen, begun), 0 | BEFORE..) => return None,
            Some(rate) if observed > 0 => rate.min(observed.max(rate / 2)),
            Some(rate) => rate,
            // Of calls that nobody counted so far nothing can be learned: the first refusal begins the count.
            None if observed == 0 => return None,
            None => observed,
        };
        let lower = (current.min(RATE_MASK) * DECREASE / 100).clamp(LEAST, RATE_MASK);
        Some(((now / SECOND) << RATE_BITS) | lower)
    });
}

fn passed(word: u64, now: u64) -> u64 {
    (now / SECOND).wrapping_sub(word >> RATE_BITS) & SECONDS_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn a_429_lowers_the_rate_and_time_raises_it() {
        let word = AtomicU64::new(0);
        assert_eq!(rate(0, NOW), None);
        decrease(&word, 100_000, NOW, NOW);
        let word_now = word.load(Relaxed);
        assert_eq!(rate(word_now, NOW), Some(70_000));
        assert_eq!(rate(word_now, NOW + 30 * SECOND), Some(105_000));
        assert_eq!(rate(word_now, NOW + 600 * SECOND), None, "long forgotten");
        let forgotten = until(word_now, NOW + 30 * SECOND).unwrap();
        assert_eq!(forgotten, NOW + 420 * SECOND);
        assert!(rate(word_now, forgotten).is_some() && rate(word_now, forgotten + SECOND).is_none());
        assert_eq!(until(word_now, NOW + 600 * SECOND), None);
        assert_eq!(rate(word_now, NOW - 30 * SECOND), Some(70_000), "a clock that went back");
        assert_eq!(rate(word_now, NOW - 7_200 * SECOND), None, "by too much for it to wait");
    }

    #[test]
    fn what_is_forgotten_stays_so() {
        let word = AtomicU64::new(0);
        decrease(&word, 100_000, NOW, NOW);
        let later = (2..200_000).filter(|n| rate(word.load(Relaxed), NOW + n * 300 * SECOND).is_some());
        assert_eq!(later.count(), 0, "of two years");
    }

    #[test]
    fn the_429s_of_one_burst_are_one_decrease() {
        let word = AtomicU64::new(0);
        for late in 0..50 {
            decrease(&word, 100_000, NOW, NOW + late * 20_000_000);
        }
        assert_eq!(rate(word.load(Relaxed), NOW), Some(70_000));
        decrease(&word, 70_000, NOW + 2 * SECOND, NOW + 2 * SECOND);
        assert!(rate(word.load(Relaxed), NOW + 2 * SECOND).unwrap() < 52_000);
    }

    #[test]
    fn it_converges_on_a_limit_that_nobody_states() {
        let word = AtomicU64::new(0);
        let (limit, demand) = (50_000u64, 400_000u64);
        let mut sum = 0;
        for second in 0..2_000 {
            let now = NOW + second * SECOND;
            let sent = rate(word.load(Relaxed), now).map_or(demand, |rate| rate.min(demand));
            if sent > limit {
                decrease(&word, sent, now, now);
            }
            if second >= 1_000 {
                sum += sent.min(limit);
            }
        }
        let used = sum / 1_000;
        assert!(used > limit * 80 / 100, "{used} of {limit}");
    }
}
