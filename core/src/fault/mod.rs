//! Faults on purpose: what a service, and what its rules, do when a vendor is slow, refuses or breaks off, tried before
//! it happens. A fault takes the vendor's place in one attempt.
//!
//! [`Rule`] is one `[[fault]]` of `farcall.toml`. There are none unless the file says `allow_faults = true` at its
//! top, and none after its moment of expiry, which each rule must name: a fault that was forgotten ends by
//! itself.

use crate::call::ErrorType;
use crate::units::{Share, Timestamp, spread, stable_hash};
use std::time::Duration;

/// One `[[fault]]`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// `name`, or where the rule stands: salts the draw, so that two faults meet different attempts.
    pub name: Box<str>,
    /// `share`: which share of the attempts meets the fault.
    pub share: Share,
    /// `latency`: how long an attempt is held back first: a time, or evenly between two.
    pub latency: Option<(Duration, Duration)>,
    /// `error`, `status` or `truncate`: what happens then.
    pub effect: Effect,
    /// `expires`: from this moment on there is no fault.
    pub expires: Timestamp,
}

/// What a fault does to an attempt, after its latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: the attempt is sent as usual.
    #[default]
    Send,
    /// The attempt is not sent, and fails so.
    Fail(ErrorType),
    /// The attempt is not sent, and is answered with this status and an empty body.
    Respond {
        /// The status.
        status: u16,
        /// The Retry-After that the answer carries.
        retry_after: Option<Duration>,
    },
    /// The attempt is sent, and its response breaks off after so many bytes of its body, with
    /// [`ErrorType::Reset`]. A shorter body stays whole.
    Truncate {
        /// How many bytes the application still gets.
        bytes: u64,
    },
}

/// What happens to an attempt that meets a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Fault {
    /// How long it is held back first.
    pub delay: Duration,
    /// What happens then.
    pub effect: Effect,
}

impl Rule {
    /// A fault of this name that meets every attempt until `expires`, and does nothing to it yet.
    #[must_use]
    pub fn new(name: &str, expires: Timestamp) -> Self {
        Self { name: name.into(), share: Share::ALL, latency: None, effect: Effect::Send, expires }
    }

    /// Whether an attempt of a call meets the fault, by its number, from 1. Drawn from the call's seed: the same attempt
    /// of the same call always meets the same faults.
    #[must_use]
    pub fn before(&self, seed: u64, attempt: u32, now: Timestamp) -> Option<Fault> {
        if now >= self.expires {
            return None;
        }
        let seed = spread(seed ^ u64::from(attempt) << 32);
        let draw = spread(seed ^ stable_hash(0, self.name.as_bytes()));
        self.share.covers(draw).then(|| Fault { delay: self.delay(spread(draw)), effect: self.effect })
    }

    fn delay(&self, draw: u64) -> Duration {
        let Some((least, most)) = self.latency else { return Duration::ZERO };
        let width = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX);
        least + Duration::from_nanos(((u128::from(draw) * u128::from(width)) >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.plus_millis(seconds * 1_000)
    }

    #[test]
    fn a_share_of_the_calls_meets_the_fault() {
        let rule = Rule { share: Share::from_ratio(0.05).unwrap(), ..Rule::new("slow", at(100)) };
        let met = (0..20_000).filter(|seed| rule.before(*seed, 1, at(1)).is_some()).count();
        assert!((900..=1_100).contains(&met), "{met}");
    }

    #[test]
    fn two_faults_meet_different_calls() {
        let rule = |name| Rule { share: Share::from_ratio(0.5).unwrap(), ..Rule::new(name, at(100)) };
        let (a, b) = (rule("a"), rule("b"));
        let both = (0..20_000)
            .filter(|seed| a.before(*seed, 1, at(1)).is_some() && b.before(*seed, 1, at(1)).is_some());
        let both = both.count();
        assert!((4_750..=5_250).contains(&both), "{both}");
    }

    #[test]
    fn each_attempt_of_a_call_has_a_draw_of_its_own() {
        let rule = Rule { share: Share::from_ratio(0.5).unwrap(), ..Rule::new("slow", at(100)) };
        let met = |seed| (1..=2).filter(|attempt| rule.before(seed, *attempt, at(1)).is_some()).count();
        let by_count = (0..20_000).fold([0; 3], |mut counts, seed| {
            counts[met(seed)] += 1;
            counts
        });
        assert!((4_750..=5_250).contains(&by_count[0]), "{by_count:?}");
        assert!((4_750..=5_250).contains(&by_count[2]), "{by_count:?}");
    }

    proptest! {
        #[test]
        fn no_fault_outlives_its_expiry(expires: u64, now: u64, seed: u64, attempt: u32) {
            let rule = Rule::new("x", Timestamp::from_nanos(expires));
            let met = rule.before(seed, attempt, Timestamp::from_nanos(now));
            prop_assert_eq!(met.is_some(), now < expires);
        }

        #[test]
        fn the_same_attempt_meets_the_same_fault(seed: u64, attempt: u32, least in 0u64..1_000, more in 0u64..1_000) {
            let latency = (Duration::from_millis(least), Duration::from_millis(least + more));
            let effect = Effect::Respond { status: 429, retry_after: Some(Duration::from_secs(2)) };
            let rule = Rule { latency: Some(latency), effect, ..Rule::new("x", at(100)) };
            let fault = rule.before(seed, attempt, at(1)).unwrap();
            prop_assert_eq!(Some(fault), rule.before(seed, attempt, at(99)));
            prop_assert!((latency.0..=latency.1).contains(&fault.delay));
            prop_assert_eq!(fault.effect, effect);
        }
    }
}
