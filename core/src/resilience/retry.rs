//! Whether to try again, when, and if not, why not.

use super::{Backoff, Budget, BudgetRule, Deadline, Ending, Triggers, backoff};
use crate::call::ErrorType;
use crate::units::Timestamp;
use std::time::Duration;

/// How much of a request's body is kept for another attempt, unless `replay_bytes` says otherwise.
pub const REPLAY_BYTES: u64 = 64 << 10;

/// `attempts` and what belongs to it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryRule {
    /// `attempts`: how many there may be, the first one included.
    pub attempts: u32,
    /// `backoff`: how long to wait between them.
    pub backoff: Backoff,
    /// `retry_on`: the endings after which it may help to try again.
    pub on: Triggers,
    /// `not_processed`: the statuses with which this vendor says that it did nothing at all, so that any
    /// method may be tried again. Nothing unless the rule says so.
    pub not_processed: Triggers,
    /// `retry_budget` and `retry_budget_least`: how many retries the vendor gets.
    pub budget: BudgetRule,
    /// `max_wait`: the longest wait before an attempt that is worth it, whoever asks for it.
    pub max_wait: Duration,
    /// `replay_bytes`: how large a body may be that is sent again. Without it [`REPLAY_BYTES`], where one has to be kept
    /// for that, and whatever the client has in memory anyway.
    pub replay_bytes: Option<u64>,
    /// `idempotency_header`: the field that this vendor takes as an idempotency key, where the catalogue does
    /// not know one.
    pub idempotency_header: Option<Box<str>>,
    /// `over_sdk`: whether to retry also where the SDK above retries by itself.
    pub over_sdk: bool,
}

impl Default for RetryRule {
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff::default(),
            on: Triggers::TRANSIENT,
            not_processed: Triggers::NONE,
            budget: BudgetRule::new(crate::units::Share::from_ratio(0.2).unwrap_or_default(), 3),
            max_wait: Duration::from_secs(60),
            replay_bytes: None,
            idempotency_header: None,
            over_sdk: false,
        }
    }
}

/// What a decision about a retry rests on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RetryFacts<'a> {
    /// The request method.
    pub method: &'a str,
    /// How the last attempt ended.
    pub ending: Ending,
    /// How many attempts there were, 1 after the first.
    pub attempt: u32,
    /// Whether any byte of the request may have reached the vendor. True unless the adapter knows better.
    pub sent: bool,
    /// Whether a byte of the response's body was given to the application: from then on, another attempt would
    /// give it a second beginning.
    pub handed_over: bool,
    /// Whether the request's body can be sent again: it is empty, or kept, and within `replay_bytes`.
    pub replayable: bool,
    /// Whether the request that was sent carried an idempotency key.
    pub key_on_wire: bool,
    /// Whether the vendor honours that key, as the catalogue or the rule says.
    pub key_honoured: bool,
    /// Whether the SDK above would try again by itself.
    pub sdk_retries: bool,
    /// What the vendor said about another attempt ([`should_retry`]).
    pub told: Option<bool>,
    /// The moment that the vendor named (Retry-After, RFC 9110 section 10.2.3).
    pub retry_at: Option<Timestamp>,
    /// When the call must be over.
    pub deadline: Deadline,
    /// Now.
    pub now: Timestamp,
    /// The call's seed.
    pub seed: u64,
}

impl<'a> RetryFacts<'a> {
    /// The facts of a plain attempt: sent, replayable, without key, SDK, Retry-After or deadline.
    #[must_use]
    pub const fn new(method: &'a str, ending: Ending, attempt: u32, now: Timestamp, seed: u64) -> Self {
        Self {
            method,
            ending,
            attempt,
            sent: true,
            handed_over: false,
            replayable: true,
            key_on_wire: false,
            key_honoured: false,
            sdk_retries: false,
            told: None,
            retry_at: None,
            deadline: Deadline::NONE,
            now,
            seed,
        }
    }
}

/// Whether to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RetryVerdict {
    /// Send another attempt.
    Retry {
        /// When.
        at: Timestamp,
        /// Who chose that moment.
        reason: RetryReason,
    },
    /// This ending is the call's.
    Stop(Stop),
}

/// Who chose the moment of a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// The rule's backoff.
    Backoff,
    /// The vendor, by Retry-After.
    RetryAfter,
}

impl RetryReason {
    /// The reason in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backoff => "after the rule's backoff",
            Self::RetryAfter => "when the vendor asked for it",
        }
    }
}

/// Why a call is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// The ending is none that `retry_on` names.
    Final,
    /// The vendor said that another attempt would be of no use.
    VendorRefuses,
    /// All `attempts` are used.
    AttemptsUsed,
    /// A part of the response's body is with the application.
    HandedOver,
    /// The SDK above tries again by itself.
    SdkRetries,
    /// The method may have had an effect, and no idempotency key was on the wire.
    NotIdempotent,
    /// An idempotency key was on the wire, but the vendor is not known to honour it.
    KeyNotHonoured,
    /// The request's body is gone.
    NotReplayable,
    /// The next attempt would begin after the call's deadline.
    Deadline {
        /// When it would begin.
        at: Timestamp,
    },
    /// The vendor asks for a longer wait than `max_wait`.
    WaitTooLong {
        /// When it would begin.
        at: Timestamp,
    },
    /// The vendor's retry budget is used up.
    Budget,
}

impl Stop {
    /// The reason in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Final => "this ending is not one to retry",
            Self::VendorRefuses => "the vendor says that another attempt is of no use",
            Self::AttemptsUsed => "all attempts are used",
            Self::HandedOver => "a part of the response is already with the application",
            Self::SdkRetries => "the SDK retries by itself",
            Self::NotIdempotent => "the method is not idempotent and no idempotency key was sent",
            Self::KeyNotHonoured => "the vendor is not known to honour the idempotency key",
            Self::NotReplayable => "the request's body cannot be sent again",
            Self::Deadline { .. } => "the next attempt would begin after the deadline",
            Self::WaitTooLong { .. } => "the vendor asks for a longer wait than max_wait",
            Self::Budget => "the vendor's retry budget is used up",
        }
    }
}

impl RetryRule {
    /// Decides what follows from an ending, and takes a retry out of the vendor's `budget` if there is to be
    /// one. Nothing is taken for a verdict that stops.
    pub fn retry(&self, facts: &RetryFacts<'_>, budget: &Budget) -> RetryVerdict {
        match self.decide(facts) {
            RetryVerdict::Retry { .. } if !budget.take(&self.budget, facts.now) => {
                RetryVerdict::Stop(Stop::Budget)
            }
            verdict => verdict,
        }
    }

    /// Whether there is anything to decide about an ending: where not, the verdict is [`Stop::Final`].
    pub(crate) fn concerns(&self, ending: Ending, told: Option<bool>) -> bool {
        told.is_some() || self.on.has(ending) || self.not_processed.has(ending)
    }

    /// Whether it has a call that ended so tried again, whatever the vendor says and if nothing stands in the way.
    pub(crate) fn tries_again_after(&self, ending: Ending) -> bool {
        self.attempts > 1 && (self.on.has(ending) || self.not_processed.has(ending))
    }

    /// The verdict without the budget. Reasons that no rule can change come first, so that the reason given is
    /// the one to act on.
    fn decide(&self, facts: &RetryFacts<'_>) -> RetryVerdict {
        let stop = RetryVerdict::Stop;
        if let (Ending::Status(_), Some(false)) = (facts.ending, facts.told) {
            return stop(Stop::VendorRefuses);
        }
        // A conflict over a lock, say, which only the vendor can tell from other conflicts.
        let asked_to = matches!(facts.ending, Ending::Status(400..)) && facts.told == Some(true);
        if !self.on.has(facts.ending) && !self.not_processed.has(facts.ending) && !asked_to {
            return stop(Stop::Final);
        }
        if facts.handed_over {
            return stop(Stop::HandedOver);
        }
        if facts.attempt >= self.attempts {
            return stop(Stop::AttemptsUsed);
        }
        if facts.sdk_retries && !self.over_sdk {
            return stop(Stop::SdkRetries);
        }
        if !self.is_safe_to_repeat(facts) {
            return stop(if facts.key_on_wire { Stop::KeyNotHonoured } else { Stop::NotIdempotent });
        }
        if !facts.replayable {
            return stop(Stop::NotReplayable);
        }
        let (at, reason) = self.moment(facts);
        // The longest wait is judged without jitter, so that equal answers are judged equally.
        if at.since(facts.now) > self.max_wait {
            return stop(Stop::WaitTooLong { at });
        }
        if !facts.deadline.allows(at) {
            return stop(Stop::Deadline { at });
        }
        RetryVerdict::Retry { at, reason }
    }

    fn is_safe_to_repeat(&self, facts: &RetryFacts<'_>) -> bool {
        let never_arrived = !facts.sent
            && matches!(
                facts.ending,
                Ending::Error(
                    ErrorType::Dns
                        | ErrorType::Connect
                        | ErrorType::Tls
                        | ErrorType::Timeout
                        | ErrorType::Reset
                )
            );
        is_idempotent(facts.method)
            || never_arrived
            || (facts.key_on_wire && facts.key_honoured)
            || self.not_processed.has(facts.ending)
    }

    fn moment(&self, facts: &RetryFacts<'_>) -> (Timestamp, RetryReason) {
        let Some(asked) = facts.retry_at.filter(|at| *at > facts.now) else {
            // Also where the vendor named a moment in the past: then it said nothing.
            return (facts.now.plus(self.backoff.wait(facts.attempt, facts.seed)), RetryReason::Backoff);
        };
        // Everybody was given the same moment: come a little apart, but never earlier, and not beyond what
        // would have been in time.
        let apart = asked.plus(backoff::jitter(self.backoff.first, facts.attempt, facts.seed));
        let late = !facts.deadline.allows(apart) || apart.since(facts.now) > self.max_wait;
        (if late { asked } else { apart }, RetryReason::RetryAfter)
    }
}

/// The header fields of a response by which a vendor says whether another attempt is of use: OpenAI's and
/// Anthropic's, and Stripe's.
pub const SHOULD_RETRY_HEADERS: [&str; 2] = ["x-should-retry", "stripe-should-retry"];

/// What a response says about another attempt; `header` gives the value of a field of [`SHOULD_RETRY_HEADERS`].
/// Anything but `true` and `false` says nothing.
#[must_use]
pub fn should_retry<'h>(header: impl Fn(&'static str) -> Option<&'h str>) -> Option<bool> {
    SHOULD_RETRY_HEADERS.into_iter().find_map(|name| match header(name)?.trim() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    })
}

/// Whether a method is safe: it asks for no change (RFC 9110, section 9.2.1).
#[must_use]
pub fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// Whether sending a request of this method twice has the effect of sending it once (RFC 9110, section 9.2.2).
/// Methods are case-sensitive.
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    is_safe(method) || matches!(method, "PUT" | "DELETE")
}

#[cfg(test)]
mod tests;
