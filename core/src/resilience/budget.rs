//! How many retries (or hedges) a vendor gets: a share of its calls.
//!
//! Retries that multiply what a failing vendor receives keep it down. A share of the recent calls, as in
//! Finagle's `RetryBudget` and Envoy's `retry_budget` (20%, at least 3), bounds the extra load whatever the
//! number of callers; the minimum lets a quiet service retry at all.

use crate::units::{Share, Timestamp};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// `retry_budget = "20%"`, at least 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BudgetRule {
    /// Which share of the calls of the last ten seconds may be repeated.
    pub share: Share,
    /// How many may be repeated in any case.
    pub least: u16,
}

impl BudgetRule {
    /// A budget of `share`, and `least` in any case.
    #[must_use]
    pub const fn new(share: Share, least: u16) -> Self {
        Self { share, least }
    }
}

/// The budget of one vendor: its calls and retries of about the last ten seconds.
///
/// Both counts lose a tenth each second, so what is allowed follows the traffic without any window's edge. A
/// clock that goes backwards counts as standing still.
#[derive(Debug)]
pub struct Budget {
    /// Calls, in sixteenths.
    calls: AtomicU64,
    /// Calls of threads that have lanes: all of them are counted, and no two shall write to the same line for that.
    lanes: Vec<Lane>,
    /// Retries, in sixteenths.
    retries: AtomicU64,
    /// The second up to which the counts have decayed.
    second: AtomicU64,
}

/// A line, and the one beside it, which processors fetch along.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane(AtomicU64);

/// One call or retry.
const ONE: u64 = 16;

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl Budget {
    /// The budget of a vendor that was never called.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            lanes: Vec::new(),
            retries: AtomicU64::new(0),
            second: AtomicU64::new(0),
        }
    }

    /// The same, for threads that call at once.
    #[must_use]
    pub fn with_lanes(lanes: usize) -> Self {
        Self { lanes: (0..lanes).map(|_| Lane::default()).collect(), ..Self::new() }
    }

    /// Counts a call: its first attempt, not its retries.
    pub fn call(&self, now: Timestamp) {
        self.call_in(usize::MAX, now);
    }

    /// The same, of a thread in this lane.
    pub fn call_in(&self, lane: usize, now: Timestamp) {
        self.decay(now);
        let calls = self.lanes.get(lane).map_or(&self.calls, |lane| &lane.0);
        calls.fetch_add(ONE, Relaxed);
    }

    /// Takes one retry out of the budget, if there is one.
    #[must_use]
    pub fn take(&self, rule: &BudgetRule, now: Timestamp) -> bool {
        self.decay(now);
        let calls = self.calls().map(|calls| calls.load(Relaxed)).sum();
        let allowed = rule.share.of(calls).max(u64::from(rule.least) * ONE);
        self.retries
            .fetch_update(Relaxed, Relaxed, |retries| (retries + ONE <= allowed).then_some(retries + ONE))
            .is_ok()
    }

    /// Gives back one that was taken for a retry that was not made after all.
    pub fn give_back(&self) {
        let _ = self.retries.fetch_update(Relaxed, Relaxed, |retries| Some(retries.saturating_sub(ONE)));
    }

    fn calls(&self) -> impl Iterator<Item = &AtomicU64> {
        self.lanes.iter().map(|lane| &lane.0).chain([&self.calls])
    }

    fn decay(&self, now: Timestamp) {
        let (now, seen) = (now.as_secs(), self.second.load(Relaxed));
        if now > seen {
            self.decay_from(seen, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn decay_from(&self, seen: u64, now: u64) {
        if self.second.compare_exchange(seen, now, Relaxed, Relaxed).is_err() {
            return;
        }
        // Only the thread that moved the second gets here; others see undecayed counts for a moment at most. Calls
        // go first: between the two too few retries are granted rather than too many.
        for count in self.calls().chain([&self.retries]) {
            let _ = count.fetch_update(Relaxed, Relaxed, |count| Some(lessened(count, now - seen)));
        }
    }
}

/// A count after so many seconds: nine tenths for each, rounded down so that it reaches zero.
fn lessened(mut count: u64, steps: u64) -> u64 {
    for _ in 0..steps {
        if count == 0 {
            break;
        }
        count -= count.div_ceil(10);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1_700_000_000_000_000_000).plus_millis(millis)
    }

    fn rule() -> BudgetRule {
        BudgetRule::new(Share::from_ratio(0.2).unwrap(), 3)
    }

    #[test]
    fn a_quiet_service_may_still_retry() {
        let budget = Budget::new();
        budget.call(at(0));
        let granted = (0..10).filter(|_| budget.take(&rule(), at(0))).count();
        assert_eq!(granted, 3);
        assert!(!budget.take(&rule(), at(900)), "the minimum is for ten seconds, not for each");
        assert!(budget.take(&rule(), at(20_000)));
    }

    #[test]
    fn a_busy_service_retries_its_share_and_no_more() {
        let budget = Budget::new();
        let (mut calls, mut retries) = (0, 0);
        for millis in 0..60_000 {
            budget.call(at(millis));
            calls += 1;
            retries += u32::from(budget.take(&rule(), at(millis)));
        }
        let share = f64::from(retries) / f64::from(calls);
        assert!((0.19..=0.205).contains(&share), "{share}");
    }

    #[test]
    fn an_outage_after_heavy_traffic_does_not_keep_the_old_allowance() {
        let budget = Budget::new();
        (0..10_000).for_each(|_| budget.call(at(0)));
        let granted = (0..10_000).filter(|_| budget.take(&rule(), at(60_000))).count();
        assert!(granted <= 6, "{granted}");
    }

    proptest! {
        #[test]
        fn a_clock_that_goes_backwards_grants_nothing_more(
            steps in prop::collection::vec((any::<bool>(), any::<u32>()), 1..400)
        ) {
            let budget = Budget::new();
            budget.call(at(u64::from(u32::MAX)));
            let (mut calls, mut granted) = (1u64, 0u64);
            for (call, millis) in steps {
                if call {
                    budget.call(at(u64::from(millis)));
                    calls += 1;
                }
                granted += u64::from(budget.take(&rule(), at(u64::from(millis))));
            }
            prop_assert!(granted <= (calls / 5).max(3), "{granted} of {calls}");
        }

        #[test]
        fn a_leap_forward_grants_the_minimum_at_most(calls in 0u64..10_000, leap in 200_000u64..u64::MAX / 2_000_000) {
            let budget = Budget::new();
            (0..calls).for_each(|_| budget.call(at(0)));
            let granted = (0..100).filter(|_| budget.take(&rule(), at(leap))).count();
            prop_assert_eq!(granted, 3);
        }
    }

    #[test]
    fn calls_count_alike_in_whatever_lane() {
        let (one, many) = (Budget::new(), Budget::with_lanes(3));
        for n in 0..10_000 {
            one.call(at(n));
            many.call_in(n as usize % 5, at(n));
        }
        let granted = |budget: &Budget| (0..10_000).filter(|_| budget.take(&rule(), at(10_000))).count();
        let (one, many) = (granted(&one), granted(&many));
        // Each lane is rounded by itself.
        assert!(one.abs_diff(many) <= 4 && one > 1_000, "{one} {many}");
    }

    #[test]
    fn many_threads_never_take_more_than_there_is() {
        let budget = Budget::new();
        (0..1_000).for_each(|_| budget.call(at(0)));
        let granted = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        granted.fetch_add(u64::from(budget.take(&rule(), at(0))), Relaxed);
                    }
                });
            }
        });
        assert_eq!(granted.into_inner(), 200);
    }
}
