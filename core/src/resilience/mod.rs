//! Calls that fail, and what is done about it: deadlines, retries, breakers, hedges, failover, limits on what
//! is under way.
//!
//! [`Rule`] is one `[[resilience]]` of `farcall.toml`. Each part is an `Option`: a rule speaks only of what it
//! names, and the engine takes each part from the first rule that has it. The states are structs of atomics,
//! one for each key that the engine chooses: [`Budget`] a vendor, [`Breaker`] a vendor and endpoint, [`Hedge`]
//! an endpoint, [`Concurrency`] a vendor. Many threads call them at once through `&self`.
//!
//! Two kinds of evidence make a repetition safe: the method (RFC 9110, section 9.2.2), or an idempotency key
//! that is on the wire and that the vendor honours. Where neither holds, a call is tried once, unless nothing
//! of it had been sent.

mod backoff;
mod breaker;
mod budget;
mod concurrency;
mod deadline;
mod failover;
mod hedge;
mod retry;
mod sdk;
mod trigger;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerRule, BreakerVerdict, Judgement, Pass, Phase};
pub use budget::{Budget, BudgetRule};
pub use concurrency::{Concurrency, ConcurrencyRule, ConcurrencyVerdict, Limit, Released};
pub use deadline::Deadline;
pub use failover::{FailoverRule, FailoverWhen};
pub use hedge::{Hedge, HedgeAfter, HedgeRule};
pub use retry::{
    REPLAY_BYTES, RetryFacts, RetryReason, RetryRule, RetryVerdict, SHOULD_RETRY_HEADERS, Stop,
    is_idempotent, is_safe, should_retry,
};
pub use sdk::{EarlierAttempts, HEADERS as SDK_HEADERS, SdkAttempt, followed_until, recognise};
pub(crate) use sdk::{may_be_sdk, recognise_by};
pub use trigger::{Ending, Triggers};

use std::time::Duration;

/// One `[[resilience]]`: what is done about calls that fail.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// `deadline`: how long a call may take, all its attempts and waits together.
    pub deadline: Option<Duration>,
    /// `attempt_timeout`: how long one attempt may take until its response begins.
    pub attempt_timeout: Option<Duration>,
    /// `attempts` and what belongs to it: when to try again.
    pub retry: Option<RetryRule>,
    /// `breaker`: when to stop asking a vendor that fails.
    pub breaker: Option<BreakerRule>,
    /// `hedge`: when to send a second attempt beside a slow first one.
    pub hedge: Option<HedgeRule>,
    /// `failover`: where to go instead.
    pub failover: Option<FailoverRule>,
    /// `concurrency`: how many calls may be under way at once.
    pub concurrency: Option<ConcurrencyRule>,
}

impl Rule {
    /// This rule, with the parts that it leaves open as `weaker` has them. For the rules of one call, in their
    /// order; not on the hot path.
    #[must_use]
    pub fn or(&self, weaker: &Self) -> Self {
        Self {
            deadline: self.deadline.or(weaker.deadline),
            attempt_timeout: self.attempt_timeout.or(weaker.attempt_timeout),
            retry: self.retry.as_ref().or(weaker.retry.as_ref()).cloned(),
            breaker: self.breaker.or(weaker.breaker),
            hedge: self.hedge.or(weaker.hedge),
            failover: self.failover.as_ref().or(weaker.failover.as_ref()).cloned(),
            concurrency: self.concurrency.or(weaker.concurrency),
        }
    }

    /// How much of a request's body may be kept for another attempt because of this rule. 0 where it has none sent.
    pub(crate) fn replay_bytes(&self) -> u64 {
        let repeats = self.retry.as_ref().filter(|retry| retry.attempts > 1);
        let stated = self.retry.as_ref().and_then(|retry| retry.replay_bytes);
        let again = repeats.is_some() || self.failover.is_some() || self.hedge.is_some();
        if again { stated.unwrap_or(REPLAY_BYTES) } else { 0 }
    }
}

#[cfg(test)]
mod tests;
