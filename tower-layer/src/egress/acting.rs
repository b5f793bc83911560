//! A call for which rules decide: the loop over [`Step`], as a future's state.

use super::future::hand_out;
use super::opening::{Asked, Held, Opening};
use super::parking::Handing;
use super::reading::{Read, Reading};
use super::sendable::Sendable;
use super::{Counted, EgressError, Rebody, RequestBody, ResponseBody};
use crate::client::Client;
use crate::error::{Cause, classify};
use crate::shadows::Beside;
use crate::timer::{Pause, Timer};
use crate::watched::{Opened, Sent, Watched};
use farcall::resilience::Ending;
use farcall::{Attempt, ErrorType, Step, Stored, Timestamp};
use farcall_agent::Farcall;
use http::header::CONTENT_LENGTH;
use http::{Request, Response, StatusCode, Uri, request};
use http_body::Body;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_service::Service;

/// A call that has not begun. Most of those that a rule answers come no further, so that nothing of this is moved.
pub(super) struct Asking<S, R, B> {
    service: S,
    beside: Beside,
    rebody: R,
    body: Sendable<B>,
    opening: Opening<Held>,
}

/// One that is under way. In a box: nobody who hands the future on moves it.
pub(super) struct Acting<S, R, B> {
    asking: Asking<S, R, B>,
    /// Whether the service was made ready for the next request.
    ready: bool,
    watched: Option<Watched>,
    next: Next<B>,
    /// The wait under way.
    pause: Option<Pause>,
    /// The attempts under way: mostly one, and a second one beside it where the first is slow.
    legs: [Leg; 2],
    /// When a second attempt is due.
    hedge: Option<Timer>,
    /// After how many bytes the response breaks off.
    truncate: Option<u64>,
}

/// An attempt under way, beside its future.
#[derive(Default)]
struct Leg {
    number: u32,
    /// When it is given up.
    timer: Option<Timer>,
}

/// What an attempt came to.
type Came<T> = Result<T, (ErrorType, EgressError)>;

enum Next<B> {
    /// Have the body first.
    Read(Reading<B>),
    /// Ask the engine.
    Ask,
    /// Do what it said already.
    Take(Step),
    /// Hand the request over to the outbox.
    Hand(Handing<B>),
    /// Wait until the pause is over.
    Wait,
    /// Send as soon as the service is ready.
    Send(Attempt),
    /// Wait for the answer.
    Answer,
}

impl<S, R, B: Body> Asking<S, R, B> {
    /// `service` is ready for one request. Inlined, so that it is made where it stays.
    #[inline]
    pub(super) fn new(
        farcall: &Farcall,
        service: S,
        beside: Beside,
        rebody: R,
        (parts, body): (request::Parts, B),
        (origin, client): (Option<&Uri>, Client),
    ) -> Self {
        let size = body.size_hint();
        let most = size.upper();
        // Of one that is not empty the engine says whether it is kept.
        let empty = most == Some(0);
        let refreshes = beside.refreshes.is_some();
        let held = Held::new(parts, origin, client, size.exact(), empty, refreshes);
        let opening = Opening::new(farcall, held);
        Self { service, beside, rebody, body: Sendable::Unread { body, most, again: empty }, opening }
    }

    /// Begins the call, and asks what to do; `None` where rules look at its body first.
    pub(super) fn begin(&mut self, watched: &mut Option<Watched>) -> Option<Step> {
        let step = match &mut self.body {
            Sendable::Unread { most, again, .. } if *most != Some(0) => {
                let opened = self.opening.open_with_body(*most, watched);
                *again = opened.as_ref().is_some_and(|opened| opened.keeps);
                match opened {
                    Some(Opened { step: None, .. }) => return None,
                    opened => opened.and_then(|opened| opened.step),
                }
            }
            _ => self.opening.open(watched),
        };
        // The engine failed where it says nothing: the call goes out, uncounted.
        Some(step.unwrap_or_else(|| Step::Send(Attempt::default())))
    }

    fn read(&mut self) -> Next<B> {
        let Sendable::Unread { most: Some(most), .. } = self.body else { return Next::Ask };
        self.body.reader().map_or(Next::Ask, |reader| Next::Read(Reading::new(reader, most)))
    }

    /// A response that no vendor sent now. Inlined, so that it is made where it is handed out.
    #[inline]
    pub(super) fn respond<ResB, M>(
        &self,
        stored: &Stored,
        watched: &mut Option<Watched>,
    ) -> Response<ResponseBody<ResB, M>> {
        if let (Some(refreshes), Some(watched)) = (&self.beside.refreshes, watched) {
            let request::Parts { method, uri, headers, .. } = &self.opening.asked.parts;
            refreshes.refresh(watched, method, uri.clone(), headers);
        }
        let mut response = Response::new(ResponseBody::stored(stored.body.clone()));
        *response.status_mut() =
            StatusCode::from_u16(stored.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        response.headers_mut().clone_from(&stored.headers);
        response
    }
}

impl<S, R, B: Body> Acting<S, R, B> {
    /// What `asking` began goes on with this step; without one its body is read first.
    pub(super) fn new(mut asking: Asking<S, R, B>, watched: Option<Watched>, step: Option<Step>) -> Self {
        let next = match step {
            Some(step) => Next::Take(step),
            None => asking.read(),
        };
        Self {
            asking,
            ready: true,
            watched,
            next,
            pause: None,
            legs: Default::default(),
            hedge: None,
            truncate: None,
        }
    }

    pub(super) fn poll<ResB, Me, Mb>(
        &mut self,
        mut sending: [Pin<&mut Option<S::Future>>; 2],
        last: &mut Option<Result<Response<ResB>, EgressError>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<ResponseBody<ResB, Mb>>, EgressError>>
    where
        S: Service<Request<R::Body>, Response = Response<ResB>>,
        S::Error: Cause<Me>,
        R: Rebody<B>,
        ResB: Body,
    {
        // `last` is what the last attempt came to; handed out when the engine has no better idea.
        loop {
            match &mut self.next {
                Next::Read(reading) => {
                    let Asking { body, opening: Opening { asked, .. }, .. } = &self.asking;
                    let watched = &mut self.watched;
                    let patience = || {
                        let watched = watched.as_ref()?;
                        watched.timer(watched.now().plus(asked.patience()))
                    };
                    match ready!(reading.poll(cx, patience)) {
                        Read::Whole => {
                            if let Sendable::Again(replay) = body
                                && let (Some(content), Some(watched)) = (replay.content(), watched)
                            {
                                asked.show(watched.now(), |head| watched.show(&head.content(&content)));
                            }
                        }
                        Read::InPart => {}
                        Read::Failed => {
                            self.watched = None;
                            let why = "the request's body failed before it was sent";
                            return Poll::Ready(Err(EgressError::Service(why.into())));
                        }
                    }
                    self.next = Next::Ask;
                }
                Next::Ask => {
                    self.next = Next::Take(match &mut self.watched {
                        Some(watched) => watched.step(watched.now()),
                        None => Step::Settled,
                    });
                }
                Next::Take(_) => {
                    let Next::Take(step) = std::mem::replace(&mut self.next, Next::Ask) else { continue };
                    match step {
                        Step::Send(attempt) => {
                            *last = None;
                            self.next = Next::Send(attempt);
                        }
                        Step::Wait(until) => {
                            *last = None;
                            self.pause =
                                self.watched.as_mut().map(|watched| watched.pause(until, cx.waker()));
                            self.next = Next::Wait;
                        }
                        Step::Refuse(refusal) => return Poll::Ready(Err(EgressError::Refused(refusal))),
                        Step::Fail(error) => return Poll::Ready(Err(EgressError::Injected(error))),
                        Step::Respond(stored) => {
                            return Poll::Ready(Ok(self.asking.respond(&stored, &mut self.watched)));
                        }
                        Step::Park(terms) => {
                            // Where it goes out once the engine was told so, and does not ask for it again.
                            if let Some(reader) = self.asking.body.reader() {
                                self.next = Next::Hand(Handing::new(terms, reader));
                            }
                        }
                        // Settled, or a step of a later version: the application gets what there is.
                        _ => return Poll::Ready(self.hand_out(last.take())),
                    }
                }
                Next::Hand(handing) => {
                    if let Some(watched) = &mut self.watched {
                        let Held { parts, .. } = &self.asking.opening.asked;
                        ready!(handing.poll(cx, watched, parts, self.asking.opening.asked.uri()));
                    }
                    self.next = Next::Ask;
                }
                Next::Wait => {
                    if let Some(pause) = &mut self.pause {
                        ready!(Pin::new(pause).poll(cx));
                    }
                    self.pause = None;
                    self.next = Next::Ask;
                }
                Next::Send(_) => {
                    if !self.ready
                        && let Err(error) = ready!(self.asking.service.poll_ready(cx))
                    {
                        *last = Some(self.came(Err(failed(error))));
                        continue;
                    }
                    let Next::Send(attempt) = std::mem::replace(&mut self.next, Next::Answer) else {
                        continue;
                    };
                    self.hedge = attempt.hedge_at.and_then(|at| self.timer(at));
                    let [first, _] = &mut sending;
                    if !self.send(0, &attempt, first.as_mut()) {
                        // The engine was told that this body goes out once.
                        return Poll::Ready(self.hand_out(last.take()));
                    }
                    if attempt.shadow
                        && let (Some(shadows), Some(watched)) =
                            (&self.asking.beside.shadows, &mut self.watched)
                    {
                        let request::Parts { method, uri, headers, .. } = &self.asking.opening.asked.parts;
                        shadows.send(watched, method, uri.clone(), headers);
                    }
                }
                Next::Answer => {
                    self.poll_hedge(&mut sending, cx);
                    let came = ready!(self.poll_legs(&mut sending, cx));
                    self.hedge = None;
                    *last = Some(self.came(came));
                }
            }
        }
    }

    fn timer(&self, until: Timestamp) -> Option<Timer> {
        self.watched.as_ref().and_then(|watched| watched.timer(until))
    }

    /// Sends an attempt with the service, which is ready; `false` where its body is gone.
    fn send(&mut self, place: usize, attempt: &Attempt, mut sending: Pin<&mut Option<S::Future>>) -> bool
    where
        S: Service<Request<R::Body>>,
        R: Rebody<B>,
    {
        let Some(request) = self.request(attempt) else { return false };
        let timer = attempt.give_up_at.and_then(|at| self.timer(at));
        self.legs[place] = Leg { number: attempt.number, timer };
        self.truncate = attempt.truncate;
        self.ready = false;
        sending.set(Some(self.asking.service.call(request)));
        true
    }

    /// Sends a second attempt beside a slow one once it is due and the service is ready for it: no hedge is worth
    /// waiting for.
    fn poll_hedge(&mut self, sending: &mut [Pin<&mut Option<S::Future>>; 2], cx: &mut Context<'_>)
    where
        S: Service<Request<R::Body>>,
        R: Rebody<B>,
    {
        let [_, second] = sending;
        let Some(timer) = &mut self.hedge else { return };
        if Pin::new(timer).poll(cx).is_pending() {
            return;
        }
        self.hedge = None;
        // What the service says of itself here, it says again when it is asked for the next attempt.
        if !matches!(self.asking.service.poll_ready(cx), Poll::Ready(Ok(()))) {
            return;
        }
        self.ready = true;
        if let Some(attempt) = self.watched.as_mut().and_then(Watched::hedge) {
            let number = attempt.number;
            if !self.send(1, &attempt, second.as_mut())
                && let Some(watched) = &mut self.watched
            {
                watched.lost(number, None);
            }
        }
    }

    /// What comes of the attempts under way: the first answer that is of use. One that fails while another one is
    /// under way is let go of.
    fn poll_legs<Me, ResB>(
        &mut self,
        sending: &mut [Pin<&mut Option<S::Future>>; 2],
        cx: &mut Context<'_>,
    ) -> Poll<Came<Response<ResB>>>
    where
        S: Service<Request<R::Body>, Response = Response<ResB>>,
        S::Error: Cause<Me>,
        R: Rebody<B>,
    {
        for place in 0..2 {
            let Some(inner) = sending[place].as_mut().as_pin_mut() else { continue };
            let came = match inner.poll(cx) {
                Poll::Ready(Ok(response)) => Ok(response),
                Poll::Ready(Err(error)) => Err(failed(error)),
                Poll::Pending => {
                    let timer = self.legs[place].timer.as_mut();
                    if timer.is_none_or(|timer| Pin::new(timer).poll(cx).is_pending()) {
                        continue;
                    }
                    Err((ErrorType::Timeout, EgressError::TimedOut))
                }
            };
            sending[place].set(None);
            let beside = &mut sending[1 - place];
            if beside.is_none() {
                return Poll::Ready(came);
            }
            let of_use = matches!(&came, Ok(response) if is_of_use(response.status()));
            if of_use {
                beside.set(None);
                self.lost(1 - place, None);
                return Poll::Ready(came);
            }
            let ending = match &came {
                Ok(response) => Ending::Status(response.status().as_u16()),
                Err((error, _)) => Ending::Error(*error),
            };
            self.lost(place, Some(ending));
        }
        match sending.iter().any(|sending| sending.is_some()) {
            true => Poll::Pending,
            // An attempt that was never sent: the engine is asked what now.
            false => Poll::Ready(Err((ErrorType::Other, EgressError::TimedOut))),
        }
    }

    fn lost(&mut self, place: usize, ending: Option<Ending>) {
        let number = std::mem::take(&mut self.legs[place]).number;
        if let Some(watched) = &mut self.watched {
            watched.lost(number, ending);
        }
    }

    /// Reports what the attempt came to.
    fn came<ResB>(&mut self, came: Came<Response<ResB>>) -> Result<Response<ResB>, EgressError> {
        self.next = Next::Ask;
        self.legs = Default::default();
        let Some(watched) = &mut self.watched else { return came.map_err(|(_, error)| error) };
        match came {
            Ok(response) => {
                let now = watched.now();
                watched.answer(&response, now);
                Ok(response)
            }
            Err((kind, error)) => {
                watched.failed(kind);
                Err(error)
            }
        }
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
        let changed = attempt.model.as_deref().and_then(|model| self.asking.body.with_model(model));
        let (body, length) = match changed {
            Some((reader, length)) => (RequestBody::kept(reader, sent), Some(length)),
            None => (self.asking.body.next(sent)?, None),
        };
        let request::Parts { method, uri, version, headers, extensions, .. } =
            &self.asking.opening.asked.parts;
        let mut request = Request::new(self.asking.rebody.rebody(body));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.version_mut() = *version;
        *request.headers_mut() = headers.clone();
        *request.extensions_mut() = extensions.clone();
        request.extensions_mut().insert(Counted);
        attempt.apply(&mut request);
        if let Some(length) = length
            && let Some(said) = request.headers_mut().get_mut(CONTENT_LENGTH)
        {
            *said = length.into();
        }
        Some(request)
    }

    fn hand_out<ResB: Body, Mb>(
        &mut self,
        last: Option<Result<Response<ResB>, EgressError>>,
    ) -> Result<Response<ResponseBody<ResB, Mb>>, EgressError> {
        let watched = self.watched.take();
        match (last, watched) {
            (Some(Ok(response)), Some(watched)) => {
                let (bodiless, now) =
                    (self.asking.opening.asked.parts.method == http::Method::HEAD, watched.now());
                Ok(hand_out(response, watched, bodiless, self.truncate, now))
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

/// Whether an answer ends the race of two attempts: the vendor did not fail, nor ask to be left alone.
pub(crate) fn is_of_use(status: StatusCode) -> bool {
    !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS
}

fn failed<M>(error: impl Cause<M>) -> (ErrorType, EgressError) {
    (classify(error.cause()), EgressError::Service(error.into_boxed()))
}
