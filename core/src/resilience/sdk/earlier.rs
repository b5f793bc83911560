//! How the attempts that an SDK makes of one call find each other.

use super::SdkAttempt;
use crate::call::ErrorType;
use crate::resilience::Ending;
use crate::units::Timestamp;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Failed attempts of SDKs that another attempt may follow: how attempts of one call find each other.
///
/// Bounded to [`EarlierAttempts::MAX`]; an attempt that finds nobody is a call of its own, as if there were no
/// grouping. Only failed attempts are kept, and asking costs one atomic load while there are none.
#[derive(Debug, Default)]
pub struct EarlierAttempts {
    kept: Mutex<Vec<Earlier>>,
    count: AtomicUsize,
}

#[derive(Clone, Copy, Debug)]
struct Earlier {
    key: u64,
    group: Option<u64>,
    /// Whether the SDK numbers its attempts.
    numbered: bool,
    /// How many attempts there were, this one included.
    attempts: u32,
    call: u64,
    ended: Timestamp,
}

/// The call that an attempt belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Follows {
    /// The number under which the engine knows the call.
    pub call: u64,
    /// How many attempts it had before this one.
    pub attempts: u32,
}

/// No SDK waits longer between two attempts (openai obeys a Retry-After of up to two minutes).
const LONGEST: Duration = Duration::from_secs(180);
/// The same where nothing but the request itself tells that it is a repetition (a GET of stripe, got).
const LONGEST_UNMARKED: Duration = Duration::from_secs(30);

impl EarlierAttempts {
    /// How many are kept.
    pub const MAX: usize = 256;

    /// Asks when an attempt begins whether it goes on with an earlier call, and takes that one out. `key` tells
    /// apart what cannot be the same call: vendor, customer, credential, method and path (not only its template).
    #[must_use]
    pub fn follows(&self, key: u64, attempt: &SdkAttempt, now: Timestamp) -> Option<Follows> {
        if self.count.load(Relaxed) == 0 || attempt.number == Some(1) {
            return None;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|earlier| {
            let age = now.since(earlier.ended);
            earlier.key == key
                && age < LONGEST
                && match (attempt.group, attempt.number) {
                    (Some(group), _) => earlier.group == Some(group),
                    // Without anything in common, the numbers must fit.
                    (None, Some(number)) => {
                        earlier.group.is_none() && earlier.numbered && earlier.attempts + 1 == number
                    }
                    (None, None) => earlier.group.is_none() && !earlier.numbered && age < LONGEST_UNMARKED,
                }
        })?;
        let earlier = kept.remove(at);
        self.count.store(kept.len(), Relaxed);
        Some(Follows { call: earlier.call, attempts: earlier.attempts })
    }

    /// Keeps an attempt of the call `call`, the `attempts`th of it, for the one that may follow. Nothing is kept
    /// of an `ending` after which no SDK tries again, nor of an attempt that says it is the last.
    pub fn ended(
        &self,
        key: u64,
        attempt: &SdkAttempt,
        ending: Ending,
        call: u64,
        attempts: u32,
        now: Timestamp,
    ) {
        let may_follow = match ending {
            Ending::Status(status) => matches!(status, 408 | 409 | 425 | 429 | 500..),
            Ending::Error(error) => error != ErrorType::Cancelled,
        };
        if !may_follow || !attempt.retries {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|earlier| now.since(earlier.ended) < LONGEST);
        if kept.len() >= Self::MAX {
            kept.remove(0);
        }
        kept.push(Earlier {
            key,
            group: attempt.group,
            numbered: attempt.number.is_some(),
            attempts: attempt.number.unwrap_or(attempts),
            call,
            ended: now,
        });
        self.count.store(kept.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::recognise;
    use super::*;

    fn of<'h>(headers: &'h [(&'static str, &'h str)]) -> Option<SdkAttempt> {
        recognise(|name| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value))
    }

    const DOWN: Ending = Ending::Status(503);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(1_700_000_000_000_000_000).plus_millis(seconds * 1_000)
    }

    #[test]
    fn attempts_of_one_call_find_each_other() {
        let earlier = EarlierAttempts::default();
        let attempt = |count| of(&[("x-stainless-retry-count", count)]).unwrap();
        assert_eq!(earlier.follows(1, &attempt("1"), at(0)), None);
        earlier.ended(1, &attempt("0"), DOWN, 77, 1, at(0));
        assert_eq!(earlier.follows(2, &attempt("1"), at(1)), None, "another endpoint or credential");
        assert_eq!(earlier.follows(1, &attempt("2"), at(1)), None, "not the next one");
        assert_eq!(earlier.follows(1, &attempt("0"), at(1)), None, "a new call");
        assert_eq!(earlier.follows(1, &attempt("1"), at(1)), Some(Follows { call: 77, attempts: 1 }));
        assert_eq!(earlier.follows(1, &attempt("1"), at(1)), None, "only once");
        earlier.ended(1, &attempt("1"), DOWN, 77, 2, at(2));
        assert_eq!(earlier.follows(1, &attempt("2"), at(3)), Some(Follows { call: 77, attempts: 2 }));
    }

    #[test]
    fn keys_keep_interleaved_calls_apart() {
        let earlier = EarlierAttempts::default();
        let attempt = |key| of(&[("x-stripe-client-user-agent", "{}"), ("idempotency-key", key)]).unwrap();
        for (call, key) in [(1, "a"), (2, "b"), (3, "c")] {
            earlier.ended(9, &attempt(key), DOWN, call, 1, at(0));
        }
        for (call, key) in [(2, "b"), (3, "c"), (1, "a")] {
            assert_eq!(earlier.follows(9, &attempt(key), at(1)), Some(Follows { call, attempts: 1 }));
        }
    }

    #[test]
    fn what_nothing_marks_is_found_by_the_request_itself_for_a_short_time() {
        let earlier = EarlierAttempts::default();
        let get = of(&[("x-stripe-client-user-agent", "{}")]).unwrap();
        earlier.ended(1, &get, DOWN, 7, 1, at(0));
        assert_eq!(earlier.follows(2, &get, at(1)), None, "another path");
        assert_eq!(earlier.follows(1, &get, at(1)), Some(Follows { call: 7, attempts: 1 }));
        earlier.ended(1, &get, DOWN, 7, 2, at(2));
        assert_eq!(earlier.follows(1, &get, at(40)), None, "the application asks again");
    }

    #[test]
    fn answers_that_no_sdk_retries_are_followed_by_new_calls() {
        let earlier = EarlierAttempts::default();
        let get = of(&[("x-stripe-client-user-agent", "{}")]).unwrap();
        for ending in [Ending::Status(200), Ending::Status(404), Ending::Error(ErrorType::Cancelled)] {
            earlier.ended(1, &get, ending, 7, 1, at(0));
            assert_eq!(earlier.follows(1, &get, at(1)), None, "{ending:?}");
        }
    }

    #[test]
    fn the_last_attempt_and_old_ones_wait_for_nobody() {
        let earlier = EarlierAttempts::default();
        let aws = |request| of(&[("amz-sdk-invocation-id", "x"), ("amz-sdk-request", request)]).unwrap();
        earlier.ended(1, &aws("attempt=3; max=3"), DOWN, 1, 3, at(0));
        assert_eq!(earlier.follows(1, &aws("attempt=4; max=3"), at(0)), None);
        earlier.ended(1, &aws("attempt=1; max=3"), DOWN, 1, 1, at(0));
        assert_eq!(earlier.follows(1, &aws("attempt=2; max=3"), at(200)), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let earlier = EarlierAttempts::default();
        let attempt = of(&[("x-stainless-retry-count", "0")]).unwrap();
        (0..10_000).for_each(|call| earlier.ended(call, &attempt, DOWN, call, 1, at(0)));
        assert_eq!(earlier.kept.lock().unwrap().len(), EarlierAttempts::MAX);
        let next = SdkAttempt { number: Some(2), ..attempt };
        assert_eq!(earlier.follows(9_999, &next, at(1)), Some(Follows { call: 9_999, attempts: 1 }));
    }
}
