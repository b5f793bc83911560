//! A second attempt beside a first one that is slow (Dean and Barroso, "The Tail at Scale", CACM 2013).

use super::{Budget, BudgetRule, Deadline, is_safe};
use crate::quantile::Latencies;
use crate::units::{Share, Timestamp};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// `hedge = { after = "p95", budget = "5%" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HedgeRule {
    /// `after`: how slow the first attempt must be.
    pub after: HedgeAfter,
    /// `budget`: which share of the endpoint's calls may be hedged, and one in ten seconds in any case.
    pub budget: BudgetRule,
}

impl Default for HedgeRule {
    fn default() -> Self {
        Self {
            after: HedgeAfter::Quantile(950),
            budget: BudgetRule::new(Share::from_ratio(0.05).unwrap_or_default(), 1),
        }
    }
}

/// When a first attempt counts as slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    /// Slower than this many thousandths of the endpoint's recent calls; `"p95"` is 950.
    Quantile(u32),
    /// After a fixed time.
    Fixed(Duration),
}

/// The latencies of one endpoint and its budget for hedges: 160 bytes.
#[derive(Debug)]
pub struct Hedge {
    latencies: Latencies<1_024>,
    /// The quantile as of the last recalculation, in microseconds; 0 before the first.
    slow: AtomicU32,
    budget: Budget,
}

/// So few latencies say nothing about a p95.
const LEAST: u32 = 20;
/// How many calls pass between two recalculations.
const EVERY: u32 = 32;

impl Default for Hedge {
    fn default() -> Self {
        Self::new()
    }
}

impl Hedge {
    /// An endpoint that was never called.
    #[must_use]
    pub fn new() -> Self {
        Self { latencies: Latencies::new(), slow: AtomicU32::new(0), budget: Budget::new() }
    }

    /// Counts a call, and says when a second attempt is due if the first, begun at `now`, has no response by
    /// then. `None` where the method is not safe, the body cannot be sent again, the endpoint is too little
    /// known, or the deadline comes first.
    #[must_use]
    #[inline(never)]
    pub fn before(
        &self,
        rule: &HedgeRule,
        method: &str,
        replayable: bool,
        deadline: Deadline,
        now: Timestamp,
    ) -> Option<Timestamp> {
        self.budget.call(now);
        if !is_safe(method) || !replayable {
            return None;
        }
        let after = match rule.after {
            HedgeAfter::Fixed(after) => after,
            HedgeAfter::Quantile(_) => match self.slow.load(Relaxed) {
                0 => return None,
                micros => Duration::from_micros(u64::from(micros)),
            },
        };
        Some(now.plus(after)).filter(|at| deadline.allows(*at))
    }

    /// Takes a hedge out of the budget when it is due.
    #[must_use]
    pub fn take(&self, rule: &HedgeRule, now: Timestamp) -> bool {
        self.budget.take(&rule.budget, now)
    }

    /// Gives back a hedge that was taken and not sent.
    pub fn give_back(&self) {
        self.budget.give_back();
    }

    /// Counts how long an attempt took until its response began. For one that was given up because the other
    /// was faster, what it had taken until then: leaving the slow ones out would hide the tail.
    pub fn after(&self, rule: &HedgeRule, latency: Duration) {
        let HedgeAfter::Quantile(per_mille) = rule.after else { return };
        let seen = self.latencies.record(latency);
        if (seen == LEAST || seen.is_multiple_of(EVERY))
            && let Some(slow) = self.latencies.quantile(per_mille, LEAST)
        {
            self.slow.store(u32::try_from(slow.as_micros()).unwrap_or(u32::MAX).max(1), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1_700_000_000_000_000_000).plus_millis(millis)
    }

    fn due(hedge: &Hedge, method: &str) -> Option<Timestamp> {
        hedge.before(&HedgeRule::default(), method, true, Deadline::NONE, at(0))
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Hedge>() <= 192);
    }

    #[test]
    fn a_second_attempt_is_due_after_the_p95_of_the_endpoint() {
        let (hedge, rule) = (Hedge::new(), HedgeRule::default());
        for n in 0..LEAST - 1 {
            hedge.after(&rule, Duration::from_millis(u64::from(n)));
            assert_eq!(due(&hedge, "GET"), None, "too little is known");
        }
        for n in 0..2_000u64 {
            hedge.after(&rule, Duration::from_millis(n % 100));
        }
        let after = due(&hedge, "GET").unwrap().since(at(0));
        assert!((Duration::from_millis(85)..Duration::from_millis(115)).contains(&after), "{after:?}");
    }

    #[test]
    fn only_safe_methods_in_time_are_hedged() {
        let (hedge, rule) = (
            Hedge::new(),
            HedgeRule { after: HedgeAfter::Fixed(Duration::from_millis(300)), ..HedgeRule::default() },
        );
        let deadline = |millis| Deadline::new(at(0), Some(Duration::from_millis(millis)), None);
        assert_eq!(hedge.before(&rule, "GET", true, deadline(301), at(0)), Some(at(300)));
        assert_eq!(hedge.before(&rule, "GET", true, deadline(300), at(0)), None);
        assert_eq!(hedge.before(&rule, "GET", false, Deadline::NONE, at(0)), None);
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(hedge.before(&rule, method, true, Deadline::NONE, at(0)), None, "{method}");
        }
    }

    #[test]
    fn hedges_stay_within_their_share() {
        let (hedge, rule) = (Hedge::new(), HedgeRule::default());
        let granted = (0..20_000).filter(|millis| {
            let _ = hedge.before(&rule, "GET", true, Deadline::NONE, at(*millis));
            hedge.take(&rule, at(*millis))
        });
        let granted = granted.count();
        assert!((900..=1_010).contains(&granted), "{granted}");
    }
}
