//! What an attempt that came out so means for the call.

use super::super::table::{Item, Settlement};
use super::super::{Answer, nanos};
use farcall::resilience::Backoff;
use std::time::Duration;

/// The longest wait that a vendor may ask for.
pub(in super::super) const FARTHEST: Duration = Duration::from_secs(86_400);
/// Attempts are at most this far apart where the vendor says nothing.
const MOST: Duration = Duration::from_secs(600);
const FIRST: Duration = Duration::from_secs(1);

/// How an attempt came out. Waits are from its end, whatever the clock says by then.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The vendor answered.
    Answered {
        answer: Answer,
        /// For so long it is not to be asked again.
        retry_after: Option<Duration>,
    },
    /// No answer came, or one after which a rule would have it tried again; it may have had an effect.
    Failed { status: Option<u16>, why: String, wait: Option<Duration> },
    /// A rule kept it from being sent, or what it takes to send it is not here.
    NotSent { why: String, wait: Option<Duration> },
    /// It can never be sent, and was not.
    Hopeless(String),
}

impl Outcome {
    /// No answer came.
    pub(super) const fn failed(why: String) -> Self {
        Self::Failed { status: None, why, wait: None }
    }

    /// What becomes of the call, which becomes too old at `expires_at` by the clock that shows `now`. `seal` encrypts
    /// the answer.
    pub(super) fn settle(
        self,
        item: &Item,
        expires_at: i64,
        now: i64,
        seed: u64,
        seal: impl FnOnce(&Answer) -> Vec<u8>,
    ) -> Settlement {
        let mut backoff = Backoff::default();
        (backoff.first, backoff.most) = (FIRST, MOST);
        let at = |asked: Option<Duration>| {
            // At least a little, so that no rule or clock makes it spin.
            let own = backoff.wait(item.attempts.saturating_add(1), seed).max(Duration::from_millis(50));
            now.saturating_add(nanos(own.max(asked.unwrap_or_default()).min(FARTHEST)))
        };
        let (status, error, wait, counts) = match self {
            Self::Answered { answer, .. } if (200..300).contains(&answer.status) => {
                return Settlement::Delivered { status: answer.status, response: seal(&answer) };
            }
            Self::Answered { answer, retry_after } => {
                let (status, error) = (answer.status, format!("the vendor answered {}", answer.status));
                if !may_pass(status) {
                    return Settlement::Dead { counts: true, status: Some(status), error };
                }
                (Some(status), error, retry_after, true)
            }
            Self::Failed { status, why, wait } => (status, why, wait, true),
            Self::NotSent { why, wait } => (None, why, wait, false),
            Self::Hopeless(error) => {
                return Settlement::Dead { counts: false, status: None, error };
            }
        };
        if counts && item.max_attempts.is_some_and(|most| item.attempts.saturating_add(1) >= most) {
            return Settlement::Dead { counts, status, error };
        }
        Settlement::Later { at: at(wait).min(expires_at), now, counts, status, error }
    }
}

/// Whether the same request may get another answer later. 401 and 403 may, since credentials are looked up at each
/// delivery.
fn may_pass(status: u16) -> bool {
    matches!(status, 401 | 403 | 407 | 408 | 409 | 421 | 423 | 425 | 429) || status >= 500
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::outbox::State;
    use http::HeaderMap;

    pub(in super::super) fn item(attempts: u32) -> Item {
        Item {
            id: 1,
            service: "s".into(),
            credential: None,
            state: State::Pending,
            method: "POST".into(),
            vendor: "v".into(),
            endpoint: String::new(),
            host: "h".into(),
            customer: None,
            order_key: None,
            blocked: false,
            idempotency_key: "k".into(),
            attempts,
            put_at: 0,
            next_at: 0,
            expires_at: nanos(Duration::from_secs(259_200)),
            settled_at: None,
            status: None,
            error: None,
            bytes: 0,
            max_attempts: Some(5),
        }
    }

    fn answered(status: u16, retry_after: Option<Duration>) -> Outcome {
        Outcome::Answered { answer: Answer::new(status, &HeaderMap::new(), Vec::new(), false), retry_after }
    }

    fn settle(outcome: Outcome, attempts: u32, seed: u64) -> Settlement {
        outcome.settle(&item(attempts), item(attempts).expires_at, 1_000, seed, |_| Vec::new())
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_cannot_is_given_up() {
        for status in [200, 201, 204] {
            assert!(matches!(settle(answered(status, None), 0, 1), Settlement::Delivered { .. }));
        }
        for status in [401, 409, 429, 500, 503] {
            assert!(matches!(settle(answered(status, None), 0, 1), Settlement::Later { counts: true, .. }));
        }
        for status in [301, 400, 404, 422] {
            let settled = settle(answered(status, None), 0, 1);
            assert!(matches!(settled, Settlement::Dead { counts: true, .. }), "{status}");
        }
        let last = settle(answered(500, None), 4, 1);
        assert!(matches!(last, Settlement::Dead { counts: true, status: Some(500), .. }));
        let refused = Outcome::NotSent { why: "budget".into(), wait: None };
        assert!(matches!(settle(refused, 4, 1), Settlement::Later { counts: false, .. }));
        let never = settle(Outcome::Hopeless("too old".into()), 4, 1);
        assert!(matches!(never, Settlement::Dead { counts: false, .. }));
    }

    #[test]
    fn waits_grow_with_jitter_and_heed_the_vendor_within_bounds() {
        let wait = |attempts, seed| match settle(Outcome::failed("x".into()), attempts, seed) {
            Settlement::Later { at, .. } => at - 1_000,
            _ => panic!("it is tried again"),
        };
        let mean = |attempts| (0..200).map(|seed| wait(attempts, seed) / 200).sum::<i64>();
        assert!(
            mean(3) > 3 * mean(1) && mean(1) > nanos(Duration::from_millis(500)),
            "{} {}",
            mean(1),
            mean(3)
        );
        assert!((0..200).all(|seed| wait(3, seed) <= nanos(MOST)));
        let asked = |wait| match settle(answered(429, Some(wait)), 0, 1) {
            Settlement::Later { at, .. } => at - 1_000,
            _ => panic!("it is tried again"),
        };
        let hour = Duration::from_secs(3_600);
        assert_eq!(asked(hour), nanos(hour));
        assert_eq!(asked(Duration::MAX), nanos(FARTHEST));
    }

    #[test]
    fn no_wait_goes_beyond_the_maximum_age() {
        let settled = Outcome::failed("x".into()).settle(&item(0), 2_000, 1_000, 1, |_| Vec::new());
        assert!(matches!(settled, Settlement::Later { at: 2_000, .. }));
    }
}
