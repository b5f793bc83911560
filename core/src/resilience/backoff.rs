//! How long to wait before the next attempt.

use crate::units::spread;
use std::time::Duration;

/// `backoff = "200ms..8s"`: exponential, with full jitter: evenly between nothing and the doubled wait. Among
/// the usual kinds of jitter it costs a recovering server the fewest calls (Brooker, "Exponential Backoff And
/// Jitter", AWS Architecture Blog, 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// The longest wait before the second attempt.
    pub first: Duration,
    /// The longest wait before any attempt.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), most: Duration::from_secs(8) }
    }
}

impl Backoff {
    /// The wait after `attempts` attempts, drawn from the call's seed.
    #[must_use]
    pub fn wait(&self, attempts: u32, seed: u64) -> Duration {
        let doubled = 2u32.saturating_pow(attempts.saturating_sub(1));
        jitter(self.first.saturating_mul(doubled).min(self.most), attempts, seed)
    }
}

/// Evenly between nothing and `most`.
pub(super) fn jitter(most: Duration, attempts: u32, seed: u64) -> Duration {
    let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    let draw = spread(seed ^ u64::from(attempts).rotate_right(8));
    Duration::from_nanos(((u128::from(draw) * u128::from(most)) >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_never_exceeds_its_bounds(attempts: u32, seed: u64) {
            let backoff = Backoff::default();
            let wait = backoff.wait(attempts, seed);
            prop_assert!(wait <= backoff.most);
            prop_assert!(attempts > 1 || wait <= backoff.first);
            prop_assert_eq!(wait, backoff.wait(attempts, seed));
        }
    }

    #[test]
    fn waits_grow_and_spread_evenly() {
        let backoff = Backoff::default();
        let mut earlier = Duration::ZERO;
        for attempts in 1..=5 {
            let waits: Vec<Duration> = (0..2_000).map(|seed| backoff.wait(attempts, seed)).collect();
            let most = backoff.first * 2u32.pow(attempts - 1);
            let mean = waits.iter().sum::<Duration>() / 2_000;
            assert!(mean > most * 45 / 100 && mean < most * 55 / 100, "{mean:?} of {most:?}");
            assert!(mean > earlier);
            earlier = mean;
        }
    }
}
