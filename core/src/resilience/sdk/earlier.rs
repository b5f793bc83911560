//! How the attempts that an SDK makes of one call find each other.

use super::SdkAttempt;
use crate::call::ErrorType;
use crate::resilience::Ending;
use crate::units::{Timestamp, spread};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Failed attempts of SDKs that another attempt may follow, each with what its keeper wants back then.
///
/// Bounded to [`EarlierAttempts::MAX`]; the oldest leave first. Only failed attempts are kept, and asking costs an
/// atomic load while there are none.
#[derive(Debug)]
pub struct EarlierAttempts<T> {
    /// By what attempts have in common: who asks for one call does not wait for those who ask for others.
    parts: [Part<T>; PARTS],
}

#[derive(Debug)]
struct Part<T> {
    count: AtomicUsize,
    kept: Mutex<VecDeque<Earlier<T>>>,
}

#[derive(Debug)]
struct Earlier<T> {
    /// Equal to that of the attempt that follows.
    tag: u64,
    until: Timestamp,
    what: T,
}

const PARTS: usize = 8;
/// Attempts in one part.
const EACH: usize = 1_024;
/// No SDK waits longer between two attempts (openai obeys a Retry-After of up to two minutes).
const LONGEST: Duration = Duration::from_secs(180);
/// An SDK takes its time also where it does not wait: to read a body, to make a connection.
const MARGIN: Duration = Duration::from_secs(2);

/// How long an SDK waits before another attempt, where the vendor does not ask it to wait longer.
fn longest(sdk: &str) -> Duration {
    Duration::from_secs(match sdk {
        "stainless" => 8,
        "stripe" => 5,
        "aws" => 20,
        "google-cloud" => 60,
        "azure" => 30,
        _ => 10,
    })
}

/// Until when another attempt may follow one that came to this `ending`; `None` where none will. `told`: what the
/// vendor said about another one ([`should_retry`](super::super::should_retry)); `retry_at`: when it wants to be
/// asked again.
#[must_use]
pub fn followed_until(
    attempt: &SdkAttempt,
    ending: Ending,
    told: Option<bool>,
    retry_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    // got marks nothing at all: whether it or the application tries again cannot be told.
    let retries = attempt.retries && attempt.sdk != "got";
    let retried = match ending {
        Ending::Status(status @ 400..) => {
            told.unwrap_or(matches!(status, 408 | 409 | 413 | 425 | 429 | 500..))
        }
        Ending::Status(_) | Ending::Error(ErrorType::Cancelled) => false,
        Ending::Error(_) => true,
    };
    let wait = retry_at.map_or(Duration::ZERO, |at| at.since(now)).max(longest(attempt.sdk));
    (retried && retries).then(|| now.plus((wait + MARGIN).min(LONGEST)))
}

impl<T> Default for EarlierAttempts<T> {
    fn default() -> Self {
        let part = |_| Part { count: AtomicUsize::new(0), kept: Mutex::new(VecDeque::new()) };
        Self { parts: std::array::from_fn(part) }
    }
}

impl<T> EarlierAttempts<T> {
    /// How many are kept.
    pub const MAX: usize = PARTS * EACH;

    /// Asks when an attempt begins whether it goes on with an earlier one, and takes that out. `key` tells apart
    /// what cannot be the same call: vendor, customer, credential, method and path (not only its template).
    #[must_use]
    pub fn follows(&self, key: u64, attempt: &SdkAttempt, now: Timestamp) -> Option<T> {
        if attempt.number == Some(1) {
            return None;
        }
        let tag = tag(key, attempt.group, attempt.number);
        let part = self.part(tag);
        if part.count.load(Relaxed) == 0 {
            return None;
        }
        let mut kept = part.lock();
        let at = kept.iter().position(|earlier| earlier.tag == tag && now < earlier.until)?;
        let earlier = kept.remove(at)?;
        part.count.store(kept.len(), Relaxed);
        Some(earlier.what)
    }

    /// Keeps an attempt for the one that may follow `until` then. Gives back what has to make room for it.
    #[must_use]
    pub fn keep(&self, key: u64, attempt: &SdkAttempt, until: Timestamp, what: T) -> Option<T> {
        let next = attempt.number.map(|number| number.saturating_add(1));
        let tag = tag(key, attempt.group, next);
        let part = self.part(tag);
        let mut kept = part.lock();
        let displaced = (kept.len() >= EACH).then(|| kept.pop_front()).flatten();
        kept.push_back(Earlier { tag, until, what });
        part.count.store(kept.len(), Relaxed);
        displaced.map(|earlier| earlier.what)
    }

    /// Takes out those that nothing can follow any more.
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> Vec<T> {
        self.take(|earlier| earlier.until <= now)
    }

    /// Takes out all.
    #[must_use]
    pub fn all(&self) -> Vec<T> {
        self.take(|_| true)
    }

    fn take(&self, wanted: impl Fn(&Earlier<T>) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for part in self.parts.iter().filter(|part| part.count.load(Relaxed) > 0) {
            let mut kept = part.lock();
            let (leaving, staying) = std::mem::take(&mut *kept).into_iter().partition(&wanted);
            *kept = staying;
            part.count.store(kept.len(), Relaxed);
            let leaving: VecDeque<Earlier<T>> = leaving;
            taken.extend(leaving.into_iter().map(|earlier| earlier.what));
        }
        taken
    }

    fn part(&self, tag: u64) -> &Part<T> {
        &self.parts[(tag % PARTS as u64) as usize]
    }
}

impl<T> Part<T> {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Earlier<T>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an attempt and the one that goes on with it have in common: what the SDK sends with both; else their numbers,
/// of which `number` is the later one's; else only the request itself.
fn tag(key: u64, group: Option<u64>, number: Option<u32>) -> u64 {
    match (group, number) {
        (Some(group), _) => spread(key ^ spread(group)),
        (None, Some(number)) => spread(key.rotate_left(32) ^ u64::from(number)),
        (None, None) => spread(key),
    }
}

#[cfg(test)]
mod tests {
    use super::super::recognise;
    use super::*;

    fn of<'h>(headers: &'h [(&'static str, &'h str)]) -> Option<SdkAttempt> {
        recognise(|name| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value))
    }

    fn stainless(count: &str) -> SdkAttempt {
        of(&[("x-stainless-retry-count", count)]).unwrap()
    }

    const DOWN: Ending = Ending::Status(503);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(1_700_000_000_000_000_000).plus_millis(seconds * 1_000)
    }

    #[test]
    fn attempts_of_one_call_find_each_other() {
        let earlier = EarlierAttempts::default();
        assert_eq!(earlier.follows(1, &stainless("1"), at(0)), None);
        assert_eq!(earlier.keep(1, &stainless("0"), at(9), 77), None);
        assert_eq!(earlier.follows(2, &stainless("1"), at(1)), None, "another endpoint or credential");
        assert_eq!(earlier.follows(1, &stainless("2"), at(1)), None, "not the next one");
        assert_eq!(earlier.follows(1, &stainless("0"), at(1)), None, "a new call");
        assert_eq!(earlier.follows(1, &stainless("1"), at(1)), Some(77));
        assert_eq!(earlier.follows(1, &stainless("1"), at(1)), None, "only once");
        assert_eq!(earlier.keep(1, &stainless("1"), at(9), 78), None);
        assert_eq!(earlier.follows(1, &stainless("2"), at(3)), Some(78));
    }

    #[test]
    fn keys_keep_interleaved_calls_apart() {
        let earlier = EarlierAttempts::default();
        let attempt = |key| of(&[("x-stripe-client-user-agent", "{}"), ("idempotency-key", key)]).unwrap();
        for (call, key) in [(1, "a"), (2, "b"), (3, "c")] {
            assert_eq!(earlier.keep(9, &attempt(key), at(9), call), None);
        }
        for (call, key) in [(2, "b"), (3, "c"), (1, "a")] {
            assert_eq!(earlier.follows(9, &attempt(key), at(1)), Some(call));
        }
    }

    #[test]
    fn what_nothing_marks_is_found_by_the_request_itself_while_its_sdk_may_wait() {
        let earlier = EarlierAttempts::default();
        let get = of(&[("x-stripe-client-user-agent", "{}")]).unwrap();
        let until = followed_until(&get, DOWN, None, None, at(0)).unwrap();
        assert_eq!(earlier.keep(1, &get, until, 7), None);
        assert_eq!(earlier.follows(2, &get, at(1)), None, "another path");
        assert_eq!(earlier.follows(1, &get, at(1)), Some(7));
        assert_eq!(earlier.keep(1, &get, until, 7), None);
        assert_eq!(earlier.follows(1, &get, at(8)), None, "the application asks again");
        assert_eq!(earlier.expired(at(8)), [7]);
    }

    #[test]
    fn only_what_an_sdk_retries_is_waited_for() {
        let get = of(&[("x-stripe-client-user-agent", "{}")]).unwrap();
        let until = |ending, told| followed_until(&get, ending, told, None, at(0));
        for ending in [Ending::Status(200), Ending::Status(404), Ending::Error(ErrorType::Cancelled)] {
            assert_eq!(until(ending, None), None, "{ending:?}");
        }
        assert_eq!(until(DOWN, Some(false)), None, "the vendor says that it is of no use");
        assert!(until(Ending::Status(400), Some(true)).is_some());
        assert!(until(Ending::Error(ErrorType::Reset), None).is_some());
        let got = of(&[("user-agent", "got (https://github.com/sindresorhus/got)")]).unwrap();
        assert_eq!(followed_until(&got, DOWN, None, None, at(0)), None, "its retries are not marked");
        let aws = |request| of(&[("amz-sdk-invocation-id", "x"), ("amz-sdk-request", request)]).unwrap();
        assert_eq!(followed_until(&aws("attempt=3; max=3"), DOWN, None, None, at(0)), None, "the last");
        assert!(followed_until(&aws("attempt=2; max=3"), DOWN, None, None, at(0)).is_some());
    }

    #[test]
    fn it_is_waited_as_long_as_the_sdk_waits_and_never_for_ever() {
        let until = |retry_at| followed_until(&stainless("0"), DOWN, None, retry_at, at(0));
        assert_eq!(until(None), Some(at(10)));
        assert_eq!(until(Some(at(1))), Some(at(10)), "its own wait is longer");
        assert_eq!(until(Some(at(60))), Some(at(62)));
        assert_eq!(until(Some(at(86_400))), Some(at(180)));
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_is_given_back() {
        let earlier = EarlierAttempts::default();
        let many = EarlierAttempts::<u64>::MAX as u64 * 2;
        let displaced = (0..many).filter_map(|call| earlier.keep(call, &stainless("0"), at(9), call)).count();
        let last = many - 1;
        assert_eq!(earlier.follows(last, &stainless("1"), at(1)), Some(last));
        let kept = earlier.all();
        assert!(kept.len() < EarlierAttempts::<u64>::MAX);
        assert_eq!(displaced + kept.len() + 1, many as usize, "nothing is lost");
        assert!(earlier.all().is_empty());
    }
}
