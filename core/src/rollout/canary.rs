//! A share that grows by itself while the new side proves to be no worse, and falls to nothing when it proves
//! to be worse.
//!
//! Two things are tested, both against the old side of the same minutes, both with intervals that hold however
//! often one looks (see `evidence`):
//!
//! - **Errors.** The canary is rolled back when the least that its error rate can be lies more than
//!   `max_error_rate_increase` above the most that the old side's can be. It goes on to the next step when the
//!   most that its rate can be lies no more than that above the least that the old side's can be.
//! - **p99.** The old side's p99, and `max_p99_increase` on top, is the limit of a step; a call above it is
//!   slow. If both sides are alike, at most one in a hundred is. The canary is rolled back when its rate of slow
//!   calls must be above one in a hundred and above the old side's. It goes on when that rate can be at most
//!   two in a hundred, or one in a hundred above the old side's.
//!
//! Sides whose difference lies close to what is allowed could go on for ever without either being proven. After
//! `max_calls` calls of the new side in a step what was counted decides, as it is: the rates themselves, in the place
//! of their intervals.
//!
//! All that it remembers is one block of atomics ([`Canary`]), which may lie in memory that processes share: then
//! their calls are weighed together, and a change that one of them makes is at once that of all.
//!
//! Over all steps and looks together, a canary that is no worse than allowed is rolled back with a probability
//! of at most 5%, as long as `max_calls` does not decide. What is assumed: each call is a draw of its own. Where one customer's calls fail together,
//! and sides are dealt out by customer, a side with few customers proves less than its number of calls says.

mod verdict;

pub use verdict::{CanaryStatus, Change, Evidence, RollbackReason};

use super::Side;
use super::evidence::interval;
use crate::quantile::Latencies;
use crate::units::{Share, Timestamp};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

/// `canary = { steps = ["1%", "5%", "25%", "100%"], ... }`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CanaryRule {
    /// `steps`: the shares it goes through, each larger than the one before. At most
    /// [`CanaryRule::MAX_STEPS`].
    pub steps: Vec<Share>,
    /// `min_calls`: how many calls the new side must have had in a step, at least, before the next. 500.
    pub min_calls: u64,
    /// `max_calls`: after how many calls of the new side in a step what was counted decides, proven or not. 50,000, or a
    /// hundred times the configured `min_calls`.
    pub max_calls: u64,
    /// `hold`: how long a step lasts at least. A minute.
    pub hold: Duration,
    /// `max_error_rate_increase`: by how much the error rate may rise, in absolute terms. 1%.
    pub max_error_rate_increase: Share,
    /// `max_p99_increase`: by which part the p99 may rise. 20%.
    pub max_p99_increase: Share,
}

impl CanaryRule {
    /// How many steps there may be.
    pub const MAX_STEPS: usize = 20;
}

impl Default for CanaryRule {
    fn default() -> Self {
        let share = |ratio| Share::from_ratio(ratio).unwrap_or_default();
        Self {
            steps: vec![share(0.01), share(0.05), share(0.25), Share::ALL],
            min_calls: 500,
            max_calls: 50_000,
            hold: Duration::from_secs(60),
            max_error_rate_increase: share(0.01),
            max_p99_increase: share(0.2),
        }
    }
}

/// How a call ended, for a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// Whether it failed.
    pub failed: bool,
    /// How long it took until its response began; `None` where there was none.
    pub latency: Option<Duration>,
}

impl Sample {
    /// A call that was answered after this time.
    #[must_use]
    pub const fn answered(latency: Duration) -> Self {
        Self { failed: false, latency: Some(latency) }
    }

    /// A call that failed. Its time is not counted: a fast failure is no fast answer.
    #[must_use]
    pub const fn failed() -> Self {
        Self { failed: true, latency: None }
    }
}

/// The state of one canary: atomics and nothing else, each of which may be changed by any process at any time. All
/// zero is one that nobody asked yet.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Canary {
    /// The step in the lowest byte, [`RUNNING`], [`FINISHED`] or that it was rolled back in the next one, and above them
    /// how often it started over: what somebody found out before is no verdict on what came after.
    state: AtomicU64,
    /// One for each step, so that none has to be cleared while others count.
    steps: [Step; CanaryRule::MAX_STEPS],
    old: Latencies<4_096>,
}

/// Where a canary lies: on the heap, or in memory that processes share.
pub type CanaryHome = Arc<dyn AsRef<Canary> + Send + Sync>;

#[derive(Debug)]
#[repr(C)]
struct Step {
    old: Arm,
    new: Arm,
    /// In microseconds; 0 before it is known.
    slow_after: AtomicU64,
    /// When it began, in Unix nanoseconds; 0 before it did.
    began: AtomicU64,
}

#[derive(Debug)]
#[repr(C)]
struct Arm {
    calls: AtomicU64,
    errors: AtomicU64,
    timed: AtomicU64,
    slow: AtomicU64,
}

impl Arm {
    const fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            timed: AtomicU64::new(0),
            slow: AtomicU64::new(0),
        }
    }

    fn clear(&self) {
        for count in [&self.calls, &self.errors, &self.timed, &self.slow] {
            count.store(0, Relaxed);
        }
    }
}

impl Step {
    const fn new() -> Self {
        Self { old: Arm::new(), new: Arm::new(), slow_after: AtomicU64::new(0), began: AtomicU64::new(0) }
    }
}

impl AsRef<Self> for Canary {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self::new()
    }
}

const RUNNING: u64 = 0;
const FINISHED: u64 = 1;
/// For whatever reason: so a version wrote that kept none.
const ROLLED_BACK: u64 = 2;
/// What that version takes for rolled back, too.
const FAILED: u64 = 3;
const SLOWED: u64 = 4;

const fn phase_for(reason: RollbackReason) -> u64 {
    match reason {
        RollbackReason::Errors => FAILED,
        RollbackReason::Slow => SLOWED,
    }
}

const fn phase_of(state: u64) -> u64 {
    state >> 8 & 0xFF
}

/// How often it started over, as far as a [`Side`] remembers it.
const fn start_of(state: u64) -> u16 {
    (state >> START) as u16
}

const START: u32 = 16;
const STARTS: u64 = !0 << START;

/// The probability of rolling back a canary that is no worse than allowed, over all steps and looks.
const ALPHA: f64 = 0.05;
/// How many latencies of the old side make a p99.
const LEAST: u32 = 500;
/// How many calls of the new side pass between two looks while all is well.
const LOOK: u64 = 32;

impl Canary {
    /// One that nobody asked yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: AtomicU64::new(RUNNING),
            steps: [const { Step::new() }; CanaryRule::MAX_STEPS],
            old: Latencies::new(),
        }
    }

    /// It is asked for from now on, unless it was before.
    pub(super) fn begin(&self, now: Timestamp) {
        let _ = self.steps[0].began.compare_exchange(0, now.as_nanos().max(1), Relaxed, Relaxed);
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> CanaryStatus {
        let state = self.state.load(Relaxed);
        match phase_of(state) {
            RUNNING => CanaryStatus::Step(state as u8),
            FINISHED => CanaryStatus::Finished,
            // What nobody here wrote is no reason to send anybody to the new side.
            _ => CanaryStatus::RolledBack,
        }
    }

    /// Why it was rolled back; `None` where it was not, or an earlier version did it, which told nobody.
    #[must_use]
    pub fn rolled_back_for(&self) -> Option<RollbackReason> {
        match phase_of(self.state.load(Relaxed)) {
            FAILED => Some(RollbackReason::Errors),
            SLOWED => Some(RollbackReason::Slow),
            _ => None,
        }
    }

    /// Has it start over at `now`, with its first step and without evidence.
    pub fn restart(&self, now: Timestamp) {
        // In no step of it anything is counted meanwhile.
        let start = |state: u64| Some((state & STARTS).wrapping_add(1 << START) | ROLLED_BACK << 8);
        let before = self.state.fetch_update(AcqRel, Relaxed, start).unwrap_or_else(|state| state);
        for step in &self.steps {
            step.old.clear();
            step.new.clear();
            step.slow_after.store(0, Relaxed);
            step.began.store(0, Relaxed);
        }
        self.old.clear();
        self.begin(now);
        self.state.store((before & STARTS).wrapping_add(1 << START) | RUNNING << 8, Release);
    }

    /// What was counted in the present step.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.evidence_of(self.state.load(Acquire) as u8)
    }

    fn evidence_of(&self, step: u8) -> Evidence {
        let Some(step) = self.steps.get(usize::from(step)) else { return Evidence::default() };
        Evidence {
            old_calls: step.old.calls.load(Relaxed),
            old_errors: step.old.errors.load(Relaxed),
            new_calls: step.new.calls.load(Relaxed),
            new_errors: step.new.errors.load(Relaxed),
            old_timed: step.old.timed.load(Relaxed),
            old_slow: step.old.slow.load(Relaxed),
            new_timed: step.new.timed.load(Relaxed),
            new_slow: step.new.slow.load(Relaxed),
            slow_after: Duration::from_micros(step.slow_after.load(Relaxed)),
        }
    }

    /// The share that takes the new side.
    #[must_use]
    pub fn share(&self, rule: &CanaryRule) -> Share {
        self.deal(rule).0
    }

    /// The share that takes the new side, and what a call on the old side remembers of it.
    pub(super) fn deal(&self, rule: &CanaryRule) -> (Share, Side) {
        let state = self.state.load(Relaxed);
        let step = state as u8;
        let share = match phase_of(state) {
            RUNNING | FINISHED => rule.steps.get(usize::from(step)).copied().unwrap_or_default(),
            _ => Share::NONE,
        };
        (share, Side { new: false, step, start: start_of(state) })
    }

    /// The state, while it is in the step in which this side was dealt out.
    fn still(&self, side: Side) -> Option<u64> {
        let state = self.state.load(Acquire);
        let same = phase_of(state) == RUNNING && state as u8 == side.step && start_of(state) == side.start;
        same.then_some(state)
    }

    /// Counts how a call ended. Whether the evidence is worth a look now.
    pub(super) fn record(&self, rule: &CanaryRule, side: Side, sample: Sample) -> bool {
        // What comes late changes nothing.
        if self.still(side).is_none() {
            return false;
        }
        let Some(step) = self.steps.get(usize::from(side.step)) else { return false };
        let arm = if side.new { &step.new } else { &step.old };
        let mut slow = false;
        if let Some(latency) = sample.latency {
            let limit = step.slow_after.load(Relaxed);
            if limit != 0 {
                slow = latency.as_micros() > u128::from(limit);
                if slow {
                    arm.slow.fetch_add(1, Relaxed);
                }
                arm.timed.fetch_add(1, Relaxed);
            }
            if !side.new {
                self.old.record(latency);
                if limit == 0 {
                    self.limit(rule, step);
                }
            }
        }
        if sample.failed {
            arm.errors.fetch_add(1, Relaxed);
        }
        let calls = arm.calls.fetch_add(1, Relaxed) + 1;
        side.new && (sample.failed || slow || calls.is_multiple_of(LOOK))
    }

    /// Fixes what counts as slow in a step, once the old side is known well enough.
    fn limit(&self, rule: &CanaryRule, step: &Step) {
        if let Some(p99) = self.old.quantile(990, LEAST) {
            let limit = p99.mul_f64(1.0 + rule.max_p99_increase.ratio()).as_micros();
            let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
            let _ = step.slow_after.compare_exchange(0, limit, Relaxed, Relaxed);
        }
    }

    /// Weighs the evidence of the step in which this side was dealt out, and does what follows from it. Of all who find
    /// out at the same time one is told the change.
    pub(super) fn weigh(&self, rule: &CanaryRule, side: Side, now: Timestamp) -> Option<Change> {
        let state = self.still(side)?;
        let number = side.step;
        let goes = |to: u64| self.state.compare_exchange(state, to, AcqRel, Relaxed).is_ok().then_some(());
        let seen = self.evidence_of(number);
        // Shared out evenly to the steps, the two tests, and the two intervals of each.
        let alpha = ALPHA / rule.steps.len().max(1) as f64 / 4.0;
        let errors_new = interval(seen.new_errors, seen.new_calls, alpha);
        let errors_old = interval(seen.old_errors, seen.old_calls, alpha);
        let slow_new = interval(seen.new_slow, seen.new_timed, alpha);
        let slow_old = interval(seen.old_slow, seen.old_timed, alpha);

        let margin = rule.max_error_rate_increase.ratio();
        let reason = if errors_new.0 > errors_old.1 + margin {
            Some(RollbackReason::Errors)
        } else if slow_new.0 > slow_old.1.max(0.01) {
            Some(RollbackReason::Slow)
        } else {
            None
        };
        if let Some(reason) = reason {
            return goes(phase_for(reason) << 8 | state).map(|()| Change::RolledBack { reason });
        }

        let proven =
            errors_new.1 - errors_old.0 <= margin && (slow_new.1 <= 0.02 || slow_new.1 - slow_old.0 <= 0.01);
        let over = seen.new_calls >= rule.max_calls;
        if !(proven || over)
            || seen.new_calls < rule.min_calls
            || now.since(self.began(number, now)) < rule.hold
        {
            return None;
        }
        if !proven && let Some(reason) = seen.says_against_it(margin) {
            return goes(phase_for(reason) << 8 | state).map(|()| Change::RolledBack { reason });
        }
        let share = |at: u8| rule.steps.get(usize::from(at)).copied();
        let Some(next) = share(number.saturating_add(1)) else {
            let share = share(number).unwrap_or_default();
            return goes(FINISHED << 8 | state).map(|()| Change::Finished { share });
        };
        if next == Share::ALL {
            // Nobody is left to compare with.
            return goes(FINISHED << 8 | (state + 1)).map(|()| Change::Finished { share: next });
        }
        // Before anybody is in it. Who dies in between leaves what the next one to look writes anew.
        if let Some(next) = self.steps.get(usize::from(number) + 1) {
            self.limit(rule, next);
            next.began.store(now.as_nanos().max(1), Relaxed);
        }
        goes(state + 1).map(|()| Change::Promoted { share: next })
    }

    /// When a step began; now, where nobody knows.
    fn began(&self, number: u8, now: Timestamp) -> Timestamp {
        let Some(step) = self.steps.get(usize::from(number)) else { return now };
        match step.began.compare_exchange(0, now.as_nanos().max(1), Relaxed, Relaxed) {
            Ok(_) => now,
            Err(began) => Timestamp::from_nanos(began),
        }
    }
}

#[cfg(test)]
mod tests;
