//! Which calls are parked in the outbox when they fail, and on what terms.
//!
//! The outbox itself is the agent's. Here is what a rule says about it, and the one question that it answers: may
//! this call, which came to nothing, be delivered later instead? A call that may have reached the vendor is only
//! where a second delivery does no harm: the method says so (RFC 9110, section 9.2.2), or an idempotency key that the
//! vendor honours, or the rule.

mod alarm;
mod rule;
mod terms;

pub use alarm::{Alarms, Failed};
pub use rule::{OrderedBy, Park, Refusals, Rule};
pub use terms::{Parked, Terms};

use crate::call::{ErrorType, RefusedBy};
use crate::resilience::{Ending, is_idempotent, is_safe};

/// Why a call came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its last attempt ended so.
    Ended(Ending),
    /// A rule refused it, or its next attempt.
    Refused(RefusedBy),
}

impl Failure {
    /// Whether somebody who depends on the call wants to know: it was not made or not answered, the vendor is ill, or
    /// does not know us any more. What else it says is its answer; of a delivery, of which nobody reads that, only 2xx is.
    #[must_use]
    pub const fn is_alarming(self, delivery: bool) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Ended(Ending::Error(error)) => !matches!(error, ErrorType::Cancelled),
            Self::Ended(Ending::Status(status)) => {
                status >= 500 || matches!(status, 401 | 403 | 407 | 408 | 429) || (delivery && status >= 300)
            }
        }
    }
}

/// What the decision rests on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Facts<'a> {
    /// The request method.
    pub method: &'a str,
    /// Why the call came to nothing.
    pub failure: Failure,
    /// Whether any attempt may have reached the vendor, and been acted upon.
    pub reached: bool,
    /// Whether all that went out carried the idempotency key under which it would be delivered, in a field that the
    /// vendor honours.
    pub keyed: bool,
    /// Whether the request's body is still there.
    pub replayable: bool,
}

impl<'a> Facts<'a> {
    /// The facts of a call that did not reach the vendor, without a key, and whose body is there.
    #[must_use]
    pub const fn new(method: &'a str, failure: Failure) -> Self {
        Self { method, failure, reached: false, keyed: false, replayable: true }
    }
}

/// Whether a call is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It goes into the outbox.
    Park,
    /// The rule is not about failures like this.
    Leave,
    /// The rule is about it, and yet it cannot be; why.
    Cannot(&'static str),
}

impl Park {
    /// Whether a call that came to nothing is parked.
    pub fn after(&self, facts: &Facts<'_>) -> Verdict {
        let meant = match facts.failure {
            Failure::Ended(ending) => self.on.has(ending),
            Failure::Refused(by) => self.refused.has(by),
        };
        if !meant {
            return Verdict::Leave;
        }
        if is_safe(facts.method) && !self.safe_methods {
            // It asks for something, and has nobody to give it to later.
            return Verdict::Leave;
        }
        if !facts.replayable {
            return Verdict::Cannot("its body cannot be sent again");
        }
        if facts.reached && !self.duplicates && !is_idempotent(facts.method) && !facts.keyed {
            return Verdict::Cannot(
                "the vendor may have acted on it, and would not know a second delivery by its idempotency key",
            );
        }
        Verdict::Park
    }
}

/// Whether an attempt that ended so may have been acted upon. A connection that was never made carried nothing; 429
/// says that the request was not served (RFC 6585, section 4).
#[must_use]
pub const fn may_have_been_acted_upon(ending: Ending) -> bool {
    !matches!(
        ending,
        Ending::Error(ErrorType::Dns | ErrorType::Connect | ErrorType::Tls) | Ending::Status(429)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(rule: &Park, method: &str, ending: Ending, keyed: bool) -> Verdict {
        let reached = may_have_been_acted_upon(ending);
        rule.after(&Facts { reached, keyed, ..Facts::new(method, Failure::Ended(ending)) })
    }

    const GONE: Ending = Ending::Error(ErrorType::Connect);
    const LATE: Ending = Ending::Error(ErrorType::Timeout);

    #[test]
    fn what_may_have_been_done_already_is_parked_only_where_twice_is_as_good_as_once() {
        let rule = Park::default();
        for ending in [LATE, Ending::Status(503), Ending::Error(ErrorType::Reset)] {
            assert!(matches!(verdict(&rule, "POST", ending, false), Verdict::Cannot(_)), "{ending:?}");
            assert_eq!(verdict(&rule, "POST", ending, true), Verdict::Park, "{ending:?}");
            assert_eq!(verdict(&rule, "PUT", ending, false), Verdict::Park, "{ending:?}");
            let willing = Park { duplicates: true, ..Park::default() };
            assert_eq!(verdict(&willing, "POST", ending, false), Verdict::Park, "{ending:?}");
        }
        for ending in [GONE, Ending::Status(429)] {
            assert_eq!(verdict(&rule, "POST", ending, false), Verdict::Park, "{ending:?}");
        }
    }

    #[test]
    fn what_the_vendor_decided_and_what_only_asks_is_left_alone() {
        let rule = Park::default();
        for status in [200, 301, 400, 402, 404, 409, 422] {
            assert_eq!(verdict(&rule, "POST", Ending::Status(status), true), Verdict::Leave, "{status}");
        }
        assert_eq!(verdict(&rule, "GET", GONE, false), Verdict::Leave);
        let all = Park { safe_methods: true, ..Park::default() };
        assert_eq!(verdict(&all, "GET", GONE, false), Verdict::Park);
    }

    #[test]
    fn a_refusal_is_parked_where_it_passes_with_time() {
        let rule = Park::default();
        for by in RefusedBy::ALL {
            let passes = matches!(
                by,
                RefusedBy::Breaker | RefusedBy::Quota | RefusedBy::Budget | RefusedBy::Concurrency
            );
            let expected = if passes { Verdict::Park } else { Verdict::Leave };
            assert_eq!(rule.after(&Facts::new("POST", Failure::Refused(by))), expected, "{by:?}");
        }
    }

    #[test]
    fn a_body_that_is_gone_cannot_be_parked() {
        let facts = Facts { replayable: false, ..Facts::new("POST", Failure::Ended(GONE)) };
        assert!(matches!(Park::default().after(&facts), Verdict::Cannot(_)));
    }
}
