//! How long a call may take, whatever is tried within it.

use crate::units::Timestamp;
use std::time::Duration;

/// The moment by which a call is over. [`Deadline::NONE`] where nobody set one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Timestamp);

impl Deadline {
    /// No deadline.
    pub const NONE: Self = Self(Timestamp::from_nanos(u64::MAX));

    /// The deadline of a call that began at `begun`: what the rule allows, or when the application stops waiting,
    /// whichever is sooner.
    #[must_use]
    pub fn new(begun: Timestamp, rule: Option<Duration>, application: Option<Timestamp>) -> Self {
        let rule = rule.map(|duration| begun.plus(duration));
        let soonest = match (rule, application) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        };
        soonest.map_or(Self::NONE, Self)
    }

    /// The moment, where there is a deadline.
    #[must_use]
    pub fn at(self) -> Option<Timestamp> {
        (self != Self::NONE).then_some(self.0)
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(self, now: Timestamp) -> bool {
        now >= self.0
    }

    /// Whether something that begins at `moment` still has time.
    #[must_use]
    pub fn allows(self, moment: Timestamp) -> bool {
        moment < self.0
    }

    /// When an attempt that begins at `now` is given up that may take `most`. `None` where nothing limits it.
    #[must_use]
    pub fn of_attempt(self, now: Timestamp, most: Option<Duration>) -> Option<Timestamp> {
        let own = most.map(|most| now.plus(most));
        match self.at() {
            Some(at) => Some(own.map_or(at, |own| own.min(at)).max(now)),
            None => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sooner_of_two_deadlines_holds() {
        let begun = Timestamp::from_nanos(5);
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(2));
        let sooner = Deadline::new(begun, Some(short), Some(begun.plus(long)));
        assert_eq!(sooner, Deadline::new(begun, Some(long), Some(begun.plus(short))));
        assert_eq!(Deadline::new(begun, Some(short), None).at(), Some(begun.plus_millis(1_000)));
        assert_eq!(Deadline::new(begun, None, Some(begun)).at(), Some(begun));
        assert_eq!(Deadline::new(begun, None, None), Deadline::NONE);
        assert!(!Deadline::NONE.passed(Timestamp::from_nanos(u64::MAX - 1)));
    }

    #[test]
    fn an_attempt_gets_what_is_left() {
        let begun = Timestamp::from_nanos(0);
        let deadline = Deadline::new(begun, Some(Duration::from_secs(10)), None);
        let now = begun.plus_millis(9_000);
        let most = Some(Duration::from_secs(3));
        assert_eq!(deadline.of_attempt(now, most), Some(begun.plus_millis(10_000)));
        assert_eq!(deadline.of_attempt(begun, most), Some(begun.plus_millis(3_000)));
        assert_eq!(deadline.of_attempt(begun.plus_millis(20_000), None), Some(begun.plus_millis(20_000)));
        assert_eq!(Deadline::NONE.of_attempt(now, None), None);
        assert!(deadline.passed(begun.plus_millis(10_000)) && !deadline.allows(begun.plus_millis(10_000)));
    }
}
