//! Where to go instead.

use super::{Deadline, Ending, Triggers, is_idempotent};
use crate::call::Changes;
use crate::units::Timestamp;

/// `failover = { host = "...", when = ["breaker", "5xx"], ... }`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FailoverRule {
    /// What changes in the request.
    pub changes: Changes,
    /// `"breaker"` in `when`: whether an open breaker sends the call over.
    pub on_breaker: bool,
    /// The endings in `when` that send the call over.
    pub on: Triggers,
}

impl Default for FailoverRule {
    fn default() -> Self {
        Self { changes: Changes::default(), on_breaker: true, on: Triggers::NONE }
    }
}

/// What makes a call think of its backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailoverWhen {
    /// The breaker is open.
    BreakerOpen {
        /// Whether an attempt before may have been acted upon.
        reached: bool,
    },
    /// An attempt ended so, and no other attempt at the same host is to follow.
    Ended {
        /// How it ended.
        ending: Ending,
        /// Whether any byte of the request, in this attempt or in one before, may have reached the vendor.
        sent: bool,
        /// Whether a byte of the response is with the application.
        handed_over: bool,
    },
}

impl FailoverRule {
    /// What to change in the request, where the call goes to the backup now; `None` where it stays what it is.
    ///
    /// Another host does not know the first one's idempotency keys, so only a method that is idempotent goes
    /// there after something may have arrived. The engine asks once a call: a backup has no backup.
    #[must_use]
    pub fn before(
        &self,
        method: &str,
        when: FailoverWhen,
        replayable: bool,
        deadline: Deadline,
        now: Timestamp,
    ) -> Option<&Changes> {
        let goes = match when {
            FailoverWhen::BreakerOpen { reached } => self.on_breaker && (!reached || is_idempotent(method)),
            FailoverWhen::Ended { ending, sent, handed_over } => {
                self.on.has(ending) && !handed_over && (!sent || is_idempotent(method))
            }
        };
        (goes && replayable && deadline.allows(now)).then_some(&self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::ErrorType;

    #[test]
    fn a_call_goes_over_only_for_the_reasons_named() {
        let now = Timestamp::from_nanos(1);
        let rule =
            FailoverRule { on_breaker: false, on: Triggers::NONE.status(503), ..FailoverRule::default() };
        let goes =
            |method, when, replayable| rule.before(method, when, replayable, Deadline::NONE, now).is_some();
        let ended = |status, sent, handed_over| FailoverWhen::Ended {
            ending: Ending::Status(status),
            sent,
            handed_over,
        };
        assert!(goes("GET", ended(503, true, false), true));
        assert!(!goes("GET", ended(500, true, false), true));
        assert!(!goes("GET", ended(503, true, true), true), "half of the answer is with the application");
        assert!(!goes("POST", ended(503, true, false), true), "it may have had its effect at the first host");
        assert!(!goes("GET", ended(503, true, false), false));
        assert!(!goes("GET", FailoverWhen::BreakerOpen { reached: false }, true));
        assert!(
            rule.before("GET", ended(503, true, false), true, Deadline::new(now, None, Some(now)), now)
                .is_none()
        );
    }

    #[test]
    fn what_was_not_sent_goes_over_by_any_method() {
        let rule = FailoverRule { on: Triggers::NONE.error(ErrorType::Connect), ..FailoverRule::default() };
        let now = Timestamp::from_nanos(1);
        let ended = FailoverWhen::Ended {
            ending: Ending::Error(ErrorType::Connect),
            sent: false,
            handed_over: false,
        };
        let goes = |when| rule.before("POST", when, true, Deadline::NONE, now).is_some();
        assert!(goes(ended) && goes(FailoverWhen::BreakerOpen { reached: false }));
        assert!(
            !goes(FailoverWhen::BreakerOpen { reached: true }),
            "it may have had its effect at the first host"
        );
    }
}
