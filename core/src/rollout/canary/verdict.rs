//! What a canary did, where it stands and what it has seen.

use crate::units::Share;
use std::time::Duration;

/// What a canary did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It went on to this share.
    Promoted {
        /// The share that takes the new side from now on.
        share: Share,
    },
    /// It is through its last step, at this share.
    Finished {
        /// The share that takes the new side from now on.
        share: Share,
    },
    /// All take the old side again.
    RolledBack {
        /// Why.
        reason: RollbackReason,
    },
}

impl Change {
    /// What it did, as a sentence without its subject, with what it was judged by: `seen` is what was counted in the
    /// step in which it did it.
    #[must_use]
    pub fn in_words(self, seen: &Evidence) -> String {
        match self {
            Self::Promoted { share } => format!("went on to {share:?} of its calls"),
            Self::Finished { share } => format!("finished, with {share:?} of its calls on the new side"),
            Self::RolledBack { reason } => {
                format!("was rolled back: {} ({})", reason.as_str(), seen.in_words(reason))
            }
        }
    }
}

/// Why a canary was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RollbackReason {
    /// More of its calls fail.
    Errors,
    /// More of its calls are slow.
    Slow,
}

impl RollbackReason {
    /// The reason in one word: `errors`, `slow`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Slow => "slow",
        }
    }

    /// The reason in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Errors => "more of its calls fail than max_error_rate_increase allows",
            Self::Slow => "more of its calls are slow than max_p99_increase allows",
        }
    }
}

/// Where a canary stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanaryStatus {
    /// In this step, from 0.
    Step(u8),
    /// Through its last step.
    Finished,
    /// Rolled back.
    RolledBack,
}

/// What was counted in the present step; for people who ask why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evidence {
    /// Calls of the old side and how many failed.
    pub old_calls: u64,
    /// How many of them failed.
    pub old_errors: u64,
    /// Calls of the new side.
    pub new_calls: u64,
    /// How many of them failed.
    pub new_errors: u64,
    /// Answered calls of the old side since the limit is known.
    pub old_timed: u64,
    /// How many of them were slow.
    pub old_slow: u64,
    /// Answered calls of the new side since the limit is known.
    pub new_timed: u64,
    /// How many of them were slow.
    pub new_slow: u64,
    /// Above which time a call is slow; zero before it is known.
    pub slow_after: Duration,
}

impl Evidence {
    /// The counts that speak of this.
    pub(super) fn in_words(&self, of: RollbackReason) -> String {
        match of {
            RollbackReason::Errors => format!(
                "new {} of {} failed, old {} of {}",
                self.new_errors, self.new_calls, self.old_errors, self.old_calls
            ),
            RollbackReason::Slow => format!(
                "slower than {:.0} ms: new {} of {}, old {} of {}",
                self.slow_after.as_secs_f64() * 1_000.0,
                self.new_slow,
                self.new_timed,
                self.old_slow,
                self.old_timed
            ),
        }
    }

    /// What the rates themselves say against the new side, whether it is proven or not. `margin` is by how much its
    /// error rate may be the higher one.
    pub(super) fn says_against_it(&self, margin: f64) -> Option<RollbackReason> {
        let rate = |hits: u64, calls: u64| if calls == 0 { 0.0 } else { hits as f64 / calls as f64 };
        let slow = rate(self.new_slow, self.new_timed);
        if rate(self.new_errors, self.new_calls) > rate(self.old_errors, self.old_calls) + margin {
            Some(RollbackReason::Errors)
        } else if slow > 0.02 && slow > rate(self.old_slow, self.old_timed) + 0.01 {
            Some(RollbackReason::Slow)
        } else {
            None
        }
    }
}
