//! What one answer said about our quota.

use super::{PolicyIndex, PolicyName, Scope, Unit};
use crate::units::Timestamp;
use std::time::Duration;

/// The most statements that one answer may make; vendors make up to four.
pub const MAX_STATEMENTS: usize = 8;

/// What one answer said: of a fixed size, made without allocation.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Reading {
    statements: [Statement; MAX_STATEMENTS],
    len: u8,
    /// The moment from which the vendor wants to be called again: `Retry-After` in all its forms. It wins
    /// over every statement. Also given with an error of the server (5xx), which is no refusal.
    pub retry_at: Option<Timestamp>,
    /// That the answer is a refusal, and of which kind.
    pub refusal: Option<Refusal>,
    /// Headers that were there and were not believed: malformed, contradictory or implausible ones.
    pub ignored: u32,
    /// The answer came out of a cache on the way, and so says nothing about now; the rest is empty.
    pub cached: bool,
}

/// Why a vendor refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Too many calls for now: come back in a moment.
    Rate,
    /// What was allowed or paid for is used up: come back tomorrow, next month, or never.
    Exhausted,
}

/// What a vendor says of one policy.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Statement {
    /// Which policy of the dialect.
    pub policy: PolicyIndex,
    /// The vendor's own name for it, where the answer gave one.
    pub name: PolicyName,
    /// What is counted.
    pub unit: Unit,
    /// Whose calls are counted together.
    pub scope: Scope,
    /// How many are allowed in the window; never 0.
    pub limit: Option<u64>,
    /// How many are left, at most `limit`.
    pub remaining: Option<u64>,
    /// When the window ends, from now to a year ahead.
    pub resets_at: Option<Timestamp>,
    /// The window's length.
    pub window: Option<Duration>,
}

impl Statement {
    const NONE: Self = Self {
        policy: PolicyIndex::NONE,
        name: PolicyName::NONE,
        unit: Unit::Requests,
        scope: Scope::Credential,
        limit: None,
        remaining: None,
        resets_at: None,
        window: None,
    };

    /// The time in which `remaining` has to do: until the reset, else the window's length.
    fn time_left(&self, now: Timestamp) -> Option<Duration> {
        self.resets_at.map(|reset| reset.since(now)).or(self.window)
    }
}

impl Reading {
    pub(super) const NOTHING: Self = Self {
        statements: [Statement::NONE; MAX_STATEMENTS],
        len: 0,
        retry_at: None,
        refusal: None,
        ignored: 0,
        cached: false,
    };
    pub(super) const CACHED: Self = Self { cached: true, ..Self::NOTHING };

    pub(super) fn push(&mut self, statement: Statement) {
        match self.statements.get_mut(usize::from(self.len)) {
            Some(place) => {
                *place = statement;
                self.len += 1;
            }
            None => self.ignored = self.ignored.saturating_add(1),
        }
    }

    pub(super) fn ignore(&mut self) {
        self.ignored = self.ignored.saturating_add(1);
    }

    /// What it says, policy by policy, in the order of the dialect.
    #[must_use]
    pub fn statements(&self) -> &[Statement] {
        &self.statements[..usize::from(self.len)]
    }

    /// Whether the answer said nothing at all about quota.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0 && self.retry_at.is_none() && self.refusal.is_none()
    }

    /// The statement that governs among those about `unit`: one with nothing left and the latest reset, else
    /// the one that allows the fewest per second from now on, else the one with the least left.
    #[must_use]
    pub fn strictest(&self, unit: Unit, now: Timestamp) -> Option<&Statement> {
        self.statements()
            .iter()
            .filter(|statement| statement.unit == unit && statement.remaining.is_some())
            .min_by(|a, b| strictness(a, now).cmp(&strictness(b, now)))
    }

    /// The moment before which another call would be refused: `retry_at`, else the latest reset of a policy
    /// with nothing left. `None` where the answer leaves it open or more calls are allowed.
    #[must_use]
    pub fn wait_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.retry_at.or_else(|| {
            let used_up = self.statements().iter().filter(|statement| statement.remaining == Some(0));
            used_up.filter_map(|statement| statement.resets_at).max().filter(|reset| *reset > now)
        })
    }
}

/// Smaller is stricter. Rates are compared as (calls left x 2^20) per nanosecond, in integers.
fn strictness(statement: &Statement, now: Timestamp) -> (u128, u64) {
    let left = statement.remaining.unwrap_or(u64::MAX);
    let nanos = statement.time_left(now).map(|time| time.as_nanos());
    match (left, nanos) {
        // Used up: a later reset is stricter, an unknown one the least strict of these.
        (0, nanos) => (0, u64::MAX - u64::try_from(nanos.unwrap_or(0)).unwrap_or(u64::MAX)),
        (_, Some(nanos)) => (1 + (u128::from(left) << 60) / nanos.max(1), left),
        (_, None) => (u128::MAX, left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

    fn reading(rows: &[(u64, Option<u64>)]) -> Reading {
        let mut reading = Reading::NOTHING;
        for (place, (remaining, seconds)) in rows.iter().enumerate() {
            reading.push(Statement {
                policy: PolicyIndex::fixed(place),
                remaining: Some(*remaining),
                resets_at: seconds.map(|seconds| NOW.plus_millis(seconds * 1_000)),
                ..Statement::NONE
            });
        }
        reading
    }

    fn governing(rows: &[(u64, Option<u64>)]) -> u16 {
        reading(rows).strictest(Unit::Requests, NOW).unwrap().policy.number()
    }

    #[test]
    fn the_strictest_window_governs() {
        assert_eq!(
            governing(&[(50, Some(60)), (1_000, Some(86_400))]),
            1,
            "a day's rest allows fewer per second"
        );
        assert_eq!(governing(&[(0, Some(5)), (0, Some(3_600)), (1, Some(7_200))]), 1, "used up longest");
        assert_eq!(governing(&[(0, None), (0, Some(1))]), 1);
        assert_eq!(governing(&[(7, None), (3, None)]), 1);
        assert!(reading(&[(7, None)]).strictest(Unit::Tokens, NOW).is_none());
    }

    #[test]
    fn a_wait_is_until_the_last_window_that_is_used_up() {
        assert_eq!(
            reading(&[(0, Some(5)), (0, Some(9)), (1, Some(99))]).wait_until(NOW),
            Some(NOW.plus_millis(9_000))
        );
        assert_eq!(reading(&[(3, Some(9))]).wait_until(NOW), None);
        let mut told = reading(&[(0, Some(9))]);
        told.retry_at = Some(NOW.plus_millis(2_000));
        assert_eq!(told.wait_until(NOW), Some(NOW.plus_millis(2_000)), "Retry-After wins");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let reading = reading(&[(1, None); MAX_STATEMENTS + 3]);
        assert_eq!(reading.statements().len(), MAX_STATEMENTS);
        assert_eq!(reading.ignored, 3);
    }
}
