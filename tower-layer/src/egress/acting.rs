//! A call for which rules decide: the loop over [`Step`], as a future's state.

use super::changes;
use super::future::hand_out;
use super::opening::Opening;
use super::replay::Replay;
use super::{EgressError, Rebody, RequestBody, ResponseBody};
use crate::error::{Cause, classify};
use crate::timer::Timer;
use crate::watched::{Sent, Watched};
use farcall::{Attempt, ErrorType, Step, Stored};
use http::{Request, Response, StatusCode, request};
use http_body::Body;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_service::Service;

/// Bodies up to this size can be sent again.
const REPLAYED: u64 = 64 * 1024;

pub(super) struct Acting<S, R, B> {
    service: S,
    /// Whether the service was made ready for the next request.
    ready: bool,
    rebody: R,
    parts: request::Parts,
    body: Sendable<B>,
    opening: Option<Opening>,
    watched: Option<Watched>,
    next: Next,
    /// Of the wait under way, or of the attempt that is given up when it rings.
    timer: Option<Timer>,
}

/// What the request's body is good for.
enum Sendable<B> {
    /// As often as it takes.
    Again(Replay<B>),
    Once(B),
    Gone,
}

enum Next {
    /// Ask the engine.
    Ask,
    /// Wait for the timer.
    Wait,
    /// Send as soon as the service is ready.
    Send(Attempt),
    /// Wait for the answer.
    Answer,
}

impl<S, R, B: Body> Acting<S, R, B> {
    /// `service` is ready for one request.
    pub(super) fn new(service: S, rebody: R, parts: request::Parts, body: B, mut opening: Opening) -> Self {
        let size = body.size_hint();
        let again = size.upper().is_some_and(|upper| upper <= REPLAYED);
        opening.describe(size.exact(), again);
        let body = if again { Sendable::Again(Replay::new(body)) } else { Sendable::Once(body) };
        Self {
            service,
            ready: true,
            rebody,
            parts,
            body,
            opening: Some(opening),
            watched: None,
            next: Next::Ask,
            timer: None,
        }
    }

    pub(super) fn poll<ResB, Me, Mb>(
        &mut self,
        mut sending: Pin<&mut Option<S::Future>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<ResponseBody<ResB, Mb>>, EgressError>>
    where
        S: Service<Request<R::Body>, Response = Response<ResB>>,
        S::Error: Cause<Me>,
        R: Rebody<B>,
        ResB: Body,
    {
        if let Some(mut opening) = self.opening.take() {
            self.watched = opening.open();
        }
        // What the last attempt came to; handed out when the engine has no better idea.
        let mut last = None;
        loop {
            match &mut self.next {
                Next::Ask => {
                    let step = match &mut self.watched {
                        Some(watched) => watched.step(watched.now()),
                        // The engine failed: the call goes out, uncounted.
                        None if last.is_none() => Step::Send(Attempt::default()),
                        None => Step::Settled,
                    };
                    match step {
                        Step::Send(attempt) => {
                            last = None;
                            self.next = Next::Send(attempt);
                        }
                        Step::Wait(until) => {
                            last = None;
                            self.timer = self.watched.as_ref().and_then(|watched| watched.timer(until));
                            self.next = Next::Wait;
                        }
                        Step::Refuse(refusal) => return Poll::Ready(Err(EgressError::Refused(refusal))),
                        Step::Fail(error) => return Poll::Ready(Err(EgressError::Injected(error))),
                        Step::Respond(stored) => return Poll::Ready(Ok(respond(stored))),
                        // Settled, or a step of a later version: the application gets what there is.
                        _ => return Poll::Ready(self.hand_out(last)),
                    }
                }
                Next::Wait => {
                    if let Some(timer) = &mut self.timer {
                        ready!(Pin::new(timer).poll(cx));
                    }
                    self.timer = None;
                    self.next = Next::Ask;
                }
                Next::Send(_) => {
                    if !self.ready
                        && let Err(error) = ready!(self.service.poll_ready(cx))
                    {
                        last = Some(self.failed(error));
                        continue;
                    }
                    self.ready = false;
                    let Next::Send(attempt) = std::mem::replace(&mut self.next, Next::Answer) else {
                        continue;
                    };
                    let Some(request) = self.request(&attempt) else {
                        // The engine was told that this body goes out once.
                        return Poll::Ready(self.hand_out(last));
                    };
                    self.timer = attempt
                        .give_up_at
                        .and_then(|at| self.watched.as_ref().and_then(|watched| watched.timer(at)));
                    sending.set(Some(self.service.call(request)));
                }
                Next::Answer => {
                    let Some(inner) = sending.as_mut().as_pin_mut() else {
                        self.next = Next::Ask;
                        continue;
                    };
                    let answer = match inner.poll(cx) {
                        Poll::Ready(answer) => Some(answer),
                        Poll::Pending => {
                            let Some(timer) = &mut self.timer else { return Poll::Pending };
                            ready!(Pin::new(timer).poll(cx));
                            None
                        }
                    };
                    sending.set(None);
                    self.timer = None;
                    last = Some(match answer {
                        Some(Ok(response)) => {
                            if let Some(watched) = &mut self.watched {
                                let now = watched.now();
                                watched.answer(&response, now);
                            }
                            self.next = Next::Ask;
                            Ok(response)
                        }
                        Some(Err(error)) => self.failed(error),
                        None => {
                            if let Some(watched) = &mut self.watched {
                                watched.failed(ErrorType::Timeout);
                            }
                            self.next = Next::Ask;
                            Err(EgressError::TimedOut)
                        }
                    });
                }
            }
        }
    }

    fn failed<Me, T, E: Cause<Me>>(&mut self, error: E) -> Result<T, EgressError> {
        if let Some(watched) = &mut self.watched {
            watched.failed(classify(error.cause()));
        }
        self.next = Next::Ask;
        Err(EgressError::Service(error.into_boxed()))
    }

    /// The request of one attempt; `None` where its body is gone.
    fn request(&mut self, attempt: &Attempt) -> Option<Request<R::Body>>
    where
        R: Rebody<B>,
    {
        let sent = Sent::take();
        if let Some(watched) = &mut self.watched {
            watched.count(Some(sent.clone()));
        }
        let body = match std::mem::replace(&mut self.body, Sendable::Gone) {
            Sendable::Again(replay) => {
                let reader = replay.reader();
                self.body = Sendable::Again(replay);
                RequestBody::kept(reader, sent)
            }
            Sendable::Once(body) => RequestBody::counted(body, sent),
            Sendable::Gone => return None,
        };
        let mut request = Request::new(self.rebody.rebody(body));
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = self.parts.uri.clone();
        *request.version_mut() = self.parts.version;
        *request.headers_mut() = self.parts.headers.clone();
        *request.extensions_mut() = self.parts.extensions.clone();
        changes::apply(&mut request, attempt);
        Some(request)
    }

    fn hand_out<ResB: Body, Mb>(
        &mut self,
        last: Option<Result<Response<ResB>, EgressError>>,
    ) -> Result<Response<ResponseBody<ResB, Mb>>, EgressError> {
        let watched = self.watched.take();
        match (last, watched) {
            (Some(Ok(response)), Some(watched)) => {
                let (bodiless, now) = (self.parts.method == http::Method::HEAD, watched.now());
                Ok(hand_out(response, watched, bodiless, now))
            }
            (Some(Ok(response)), None) => Ok(response.map(ResponseBody::uncounted)),
            (Some(Err(error)), watched) => {
                if let Some(watched) = watched {
                    watched.end();
                }
                Err(error)
            }
            // Nothing was sent and nothing refused: an engine that settles at once.
            (None, watched) => {
                drop(watched);
                Err(EgressError::Service("farcall settled a call that was not sent".into()))
            }
        }
    }
}

/// A response that no vendor sent now.
fn respond<B, M>(stored: Stored) -> Response<ResponseBody<B, M>> {
    let mut response = Response::new(ResponseBody::stored(stored.body));
    *response.status_mut() = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    *response.headers_mut() = stored.headers;
    response
}
