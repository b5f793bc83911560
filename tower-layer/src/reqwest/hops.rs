//! The redirects that reqwest follows of a request for which rules decide.
//!
//! reqwest asks its policy in the middle of its future, where nobody can wait and no engine can tell what the
//! application's own policy will say. But once the policy has said to follow, that future stands still before it
//! sends the next request: it gives the task back to the executor, with a wake-up under way. There it is held until
//! the rules let the next hop go, or dropped where they do not.

use super::acting::respond;
use super::exchange::{hand_out, next_method, without_fragment};
use crate::egress::EgressError;
use crate::error::classify;
use crate::local::{InForce, Slot, look};
use crate::scope::Scope;
use crate::timer::Timer;
use crate::watched::Watched;
use ::reqwest::redirect::Attempt as Asked;
use ::reqwest::{Response, StatusCode, Url};
use ::reqwest_middleware::{Error, Result};
use farcall::{Attempt, ErrorType, Head, Priority, Step, Stored, Target, Timestamp};
use farcall_agent::Farcall;
use http::{HeaderMap, Method};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

/// What the policy was asked while a leg was polled.
#[derive(Default)]
struct Question(Option<Redirect>);

thread_local! {
    static QUESTION: Slot<Question> = const { RefCell::new(None) };
}

/// The policy is asked whether to follow a redirect.
pub(super) fn asked(attempt: &Asked<'_>) {
    look(&QUESTION, |question| {
        if let (Some(question), Some(from)) = (question, attempt.previous().last()) {
            let (status, from, to) = (attempt.status(), from.clone(), attempt.url().clone());
            question.0 = Some(Redirect { status, from, to });
        }
    });
}

/// A redirect that the policy was asked about.
pub(super) struct Redirect {
    pub(super) status: StatusCode,
    from: Url,
    to: Url,
}

/// One hop after another of a request under way.
pub(super) struct Leg<'a> {
    sending: Pin<Box<dyn Future<Output = Result<Response>> + Send + 'a>>,
    question: Option<Question>,
}

/// What a hop came to.
pub(super) enum Hop {
    /// A response, which the application gets.
    Answered(Response),
    /// None.
    Failed(ErrorType, Error),
    /// A redirect, which arrived whole; the policy, or where it leads, made an error of it.
    Stopped(StatusCode, Error),
    /// A redirect that is followed as soon as the leg goes on.
    Followed(Redirect),
}

impl<'a> Leg<'a> {
    pub(super) fn new(sending: Pin<Box<dyn Future<Output = Result<Response>> + Send + 'a>>) -> Self {
        Self { sending, question: None }
    }

    /// Makes one hop, and gives it up when its time has come. Dropped before it is over, it can be taken up again.
    pub(super) async fn hop(&mut self, patience: Option<Timer>) -> Hop {
        let going = poll_fn(|cx| {
            self.question = Some(Question::default());
            let polled = {
                let _in_force = InForce::new(&QUESTION, &mut self.question);
                self.sending.as_mut().poll(cx)
            };
            let redirect = self.question.take().and_then(|question| question.0);
            match (polled, redirect) {
                (Poll::Ready(Ok(response)), _) => Poll::Ready(Hop::Answered(response)),
                (Poll::Ready(Err(error)), redirect) => Poll::Ready(failed(error, redirect)),
                (Poll::Pending, Some(redirect)) => Poll::Ready(Hop::Followed(redirect)),
                (Poll::Pending, None) => Poll::Pending,
            }
        });
        match patience {
            None => going.await,
            Some(timer) => tokio::select! {
                hop = going => hop,
                () = timer => Hop::Failed(ErrorType::Timeout, Error::middleware(EgressError::TimedOut)),
            },
        }
    }
}

fn failed(error: Error, redirect: Option<Redirect>) -> Hop {
    let refused = matches!(&error, Error::Reqwest(error) if error.is_redirect() || error.is_builder());
    match redirect {
        Some(Redirect { status, .. }) if refused => Hop::Stopped(status, error),
        _ => Hop::Failed(classify(&error), error),
    }
}

/// What is the same for all hops of a request.
pub(super) struct Chain<'a> {
    pub(super) farcall: &'a Farcall,
    pub(super) scope: &'a Scope,
    pub(super) headers: HeaderMap,
    pub(super) priority: Priority,
    pub(super) deadline: Option<Timestamp>,
    pub(super) method: Method,
    /// A body that reqwest can send again, as it does after a 307.
    pub(super) content: &'a [u8],
}

impl Chain<'_> {
    /// Goes on after the first redirect, `watched` being the call that it answered. Each hop is a call of its own,
    /// about which the rules decide; one that they refuse is not sent, and the refusal is what the application gets.
    /// None is tried again: what reqwest follows cannot be sent from its middle.
    pub(super) async fn follow(
        mut self,
        mut leg: Leg<'_>,
        mut redirect: Redirect,
        mut watched: Watched,
    ) -> Result<Response> {
        loop {
            let at = watched.now();
            watched.head(redirect.status.as_u16(), at);
            watched.end_at(at);
            let url = self.turn(redirect);
            let Some(next) = self.begin(&url, at) else { return leg.sending.await };
            watched = next;
            let attempt = match go(&mut watched).await {
                Go::Send(attempt) => attempt,
                Go::Not(error) => return Err(Error::middleware(error)),
                Go::Respond(stored) => return Ok(respond(&stored, url)),
            };
            if attempt.changes.is_some() || attempt.model.is_some() {
                self.farcall.count_failure("reqwest_unchanged_redirects");
            }
            let patience = attempt.give_up_at.and_then(|at| watched.timer(at));
            let sent = self.content.len() as u64;
            match leg.hop(patience).await {
                Hop::Answered(response) => {
                    note_unseen(self.farcall, &url, &response);
                    watched.sent(sent);
                    let now = watched.now();
                    watched.answered(response.status().as_u16(), response.headers(), now);
                    return Ok(hand_out(response, watched, &self.method, attempt.truncate));
                }
                Hop::Failed(kind, error) => {
                    if was_sent(kind) {
                        watched.sent(sent);
                    }
                    watched.fail(kind);
                    return Err(error);
                }
                Hop::Stopped(status, error) => {
                    watched.sent(sent);
                    watched.stopped(status.as_u16());
                    return Err(error);
                }
                Hop::Followed(next) => {
                    watched.sent(sent);
                    redirect = next;
                }
            }
        }
    }

    /// Makes it the request that follows a redirect, as reqwest does, and says where it goes.
    fn turn(&mut self, Redirect { status, from, to }: Redirect) -> Url {
        if next_method(status, &mut self.method) {
            self.content = &[];
        }
        if origin(&from) != origin(&to) {
            for name in CREDENTIALS {
                self.headers.remove(name);
            }
        }
        to
    }

    fn begin(&self, url: &Url, at: Timestamp) -> Option<Watched> {
        let target = Target::parse(url.as_str()).unwrap_or(Target::UNREADABLE);
        let head = Head::to(self.method.as_str(), target)
            .headers(&self.headers)
            .body(Some(self.content.len() as u64), false)
            .content(self.content)
            .priority(self.priority)
            .deadline(self.deadline);
        Watched::begin(self.farcall, head, self.scope.customer.as_ref(), Some(&self.scope.tags), at)
    }
}

/// What reqwest leaves out on the way to another origin.
const CREDENTIALS: [&str; 5] =
    ["authorization", "cookie", "cookie2", "proxy-authorization", "www-authenticate"];

fn origin(url: &Url) -> (&str, Option<&str>, Option<u16>) {
    (url.scheme(), url.host_str(), url.port_or_known_default())
}

/// What the rules say about a hop.
enum Go {
    Send(Attempt),
    Not(EgressError),
    Respond(Arc<Stored>),
}

async fn go(watched: &mut Watched) -> Go {
    loop {
        return match watched.step(watched.now()) {
            Step::Send(attempt) => Go::Send(attempt),
            Step::Wait(until) => {
                watched.wait(until).await;
                continue;
            }
            Step::Refuse(refusal) => Go::Not(EgressError::Refused(refusal)),
            Step::Fail(error) => Go::Not(EgressError::Injected(error)),
            Step::Respond(stored) => Go::Respond(stored),
            _ => Go::Not(EgressError::Service("farcall settled a call that was not sent".into())),
        };
    }
}

/// Whether anything of a request left that came to this. A body that found no connection never did.
pub(super) fn was_sent(kind: ErrorType) -> bool {
    !matches!(kind, ErrorType::Dns | ErrorType::Connect | ErrorType::Tls)
}

/// Counts an answer from elsewhere than asked: reqwest followed a redirect, and its policy was not ours.
pub(super) fn note_unseen(farcall: &Farcall, url: &Url, response: &Response) {
    // The response's has no fragment: only the application's own may differ by that.
    if url != response.url() && without_fragment(url) != without_fragment(response.url()) {
        farcall.count_failure("reqwest_unseen_redirects");
    }
}
