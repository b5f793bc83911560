//! The account of one request as reqwest performs it: one call for each hop of a redirect chain.

use crate::error::classify;
use crate::local::{InForce, Slot, look};
use crate::scope::Scope;
use crate::watched::{Sent, Watched};
use crate::{RequestBody, ResponseBody};
use ::reqwest::{Body, Request, Response, ResponseBuilderExt, Url};
use ::reqwest_middleware::Error;
use farcall::advise::Marks;
use farcall::{ErrorType, Head, Step, Target, Timestamp};
use farcall_agent::Farcall;
use http::header::LOCATION;
use http::{Extensions, Method, StatusCode};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

thread_local! {
    /// The exchange whose future is being polled.
    static EXCHANGE: Slot<Exchange> = const { RefCell::new(None) };
}

/// Shows the exchange in force to `f`, if there is one.
pub(super) fn in_force(f: impl FnOnce(&mut Exchange)) {
    look(&EXCHANGE, |exchange| {
        if let Some(exchange) = exchange {
            f(exchange);
        }
    });
}

/// A request under way.
pub(super) struct Exchange {
    farcall: Farcall,
    scope: Scope,
    method: Method,
    url: Url,
    /// The length of a body that reqwest can send again, as it does after a 307.
    replayable: u64,
    /// The call of the hop under way; none once it is counted.
    watched: Option<Watched>,
    /// A redirect that the policy was asked about; what comes next tells whether it was followed.
    asked: Option<Redirect>,
    /// What the headers of the first hop say. Those of further ones reqwest makes by itself.
    marks: Option<Marks>,
}

struct Redirect {
    at: Timestamp,
    status: StatusCode,
    to: Url,
}

impl Exchange {
    /// Begins the first call, and counts what a streaming body sends.
    pub(super) fn begin(
        farcall: &Farcall,
        client: &[u8],
        request: &mut Request,
        extensions: &Extensions,
    ) -> Self {
        let mut exchange = Self {
            farcall: farcall.clone(),
            scope: Scope::of(extensions),
            method: request.method().clone(),
            url: without_fragment(request.url()),
            replayable: 0,
            watched: None,
            asked: None,
            marks: farcall.engine().marks(request.headers()).map(|marks| marks.of_client(client)),
        };
        let mut watched = exchange.begin_call(None);
        if let Some(body) = request.body_mut()
            && let Some(watched) = &mut watched
        {
            match body.as_bytes() {
                // Left as it is: wrapped, it could not be sent a second time.
                Some(bytes) => exchange.replayable = bytes.len() as u64,
                None => count_streaming(body, watched),
            }
        }
        exchange.watched = watched;
        exchange
    }

    fn begin_call(&mut self, at: Option<Timestamp>) -> Option<Watched> {
        let target = Target::parse(self.url.as_str()).unwrap_or(Target::UNREADABLE);
        let Scope { customer, tags } = &self.scope;
        let method = self.method.as_str();
        let mut watched = Watched::begin(
            &self.farcall,
            Head::to(method, target).marks(self.marks.take()),
            customer.as_ref(),
            Some(tags),
            at.unwrap_or_else(|| self.farcall.now()),
        )?;
        // One exchange a call; the step says so, and there is no other yet.
        let _send: Step = watched.step(watched.begun());
        Some(watched)
    }

    /// The policy is asked whether to follow a redirect. It was asked before: so it followed then.
    pub(super) fn redirected(&mut self, status: StatusCode, to: &Url) {
        self.follow();
        let at = self.farcall.now();
        if let Some(watched) = &mut self.watched {
            watched.sent(self.replayable);
            watched.head(status.as_u16(), at);
        }
        self.asked = Some(Redirect { at, status, to: without_fragment(to) });
    }

    /// The redirect in question was followed: its call is over, the next one began at the same moment.
    fn follow(&mut self) {
        let Some(Redirect { at, status, to }) = self.asked.take() else { return };
        if let Some(watched) = self.watched.take() {
            watched.end_at(at);
        }
        if next_method(status, &mut self.method) {
            self.replayable = 0;
        }
        self.url = to;
        self.watched = self.begin_call(Some(at));
    }

    /// A response came: what the application gets of it.
    pub(super) fn answered(mut self, response: Response) -> Response {
        if self.asked.is_some() {
            // Had this redirect been followed and led to another one, the policy would have been asked again.
            let same = without_fragment(response.url()) == self.url;
            match same && response.status().is_redirection() && response.headers().contains_key(LOCATION) {
                true => return self.handed_over(response),
                false => self.follow(),
            }
        }
        if without_fragment(response.url()) != self.url {
            // Followed below a policy that is not ours: `farcall doctor` shows that calls were not told apart.
            self.farcall.count_failure("reqwest_unseen_redirects");
        }
        if let Some(watched) = &mut self.watched {
            watched.sent(self.replayable);
            let now = watched.now();
            watched.answered(response.status().as_u16(), response.headers(), now);
        }
        self.handed_over(response)
    }

    fn handed_over(mut self, response: Response) -> Response {
        self.asked = None;
        match self.watched.take() {
            Some(watched) => hand_out(response, watched, &self.method, None),
            None => response,
        }
    }

    /// No response came.
    pub(super) fn failed(mut self, error: &Error) {
        let refused = matches!(error, Error::Reqwest(error) if error.is_redirect() || error.is_builder());
        match self.asked.take() {
            // The policy or the next URL ended the chain; the redirect itself arrived whole.
            Some(asked) if refused => {
                if let Some(watched) = self.watched.take() {
                    watched.end_at(asked.at);
                }
                return;
            }
            asked => self.asked = asked,
        }
        self.follow();
        let Some(mut watched) = self.watched.take() else { return };
        let kind = classify(error);
        let unconnected = matches!(error, Error::Reqwest(error) if error.is_connect())
            || matches!(kind, ErrorType::Dns | ErrorType::Connect | ErrorType::Tls);
        if !unconnected {
            watched.sent(self.replayable);
        }
        watched.fail(kind);
    }
}

impl Drop for Exchange {
    /// Cancelled in the middle of a chain: the redirect was followed, and the call after it is what ends.
    fn drop(&mut self) {
        self.follow();
    }
}

/// Counts what a body sends that reqwest cannot send a second time.
pub(super) fn count_streaming(body: &mut Body, watched: &mut Watched) {
    let sent = Sent::take();
    watched.count(Some(sent.clone()));
    let streaming = std::mem::replace(body, Body::from(""));
    *body = Body::wrap(RequestBody::counted(streaming, sent));
}

/// The response as the application gets it: counted at its last byte, and cut short where a rule says so.
pub(super) fn hand_out(
    response: Response,
    watched: Watched,
    method: &Method,
    truncate: Option<u64>,
) -> Response {
    let bodiless = *method == Method::HEAD
        || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let url = response.url().clone();
    let (mut parts, body) = http::Response::<Body>::from(response).into_parts();
    // The conversion drops the URL; it travels in an extension that only this builder can make.
    if let Ok(carrier) = http::Response::builder().url(url).body(()) {
        parts.extensions.extend(carrier.into_parts().0.extensions);
    }
    let body = match bodiless || http_body::Body::is_end_stream(&body) {
        true => {
            watched.end();
            body
        }
        false => Body::wrap(ResponseBody::<Body>::counted(body, watched, truncate)),
    };
    Response::from(http::Response::from_parts(parts, body))
}

/// Makes it the method of the request that follows a redirect, and says whether that leaves out the body (RFC 9110,
/// sections 15.4.2 to 15.4.4, as reqwest reads them).
pub(super) fn next_method(status: StatusCode, method: &mut Method) -> bool {
    let rewritten = match status {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => *method == Method::POST,
        StatusCode::SEE_OTHER => *method != Method::HEAD,
        _ => false,
    };
    if rewritten {
        *method = Method::GET;
    }
    rewritten || status == StatusCode::SEE_OTHER
}

pub(super) fn without_fragment(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_fragment(None);
    url
}

/// The future of reqwest, with its exchange in force while it is polled.
pub(super) struct Exchanging<F> {
    pub(super) inner: F,
    pub(super) exchange: Option<Exchange>,
}

impl<F: Future + Unpin> Future for Exchanging<F> {
    /// The exchange is there unless the thread is ending.
    type Output = (F::Output, Option<Exchange>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let polled = {
            let _in_force = InForce::new(&EXCHANGE, &mut this.exchange);
            Pin::new(&mut this.inner).poll(cx)
        };
        Poll::Ready((ready!(polled), this.exchange.take()))
    }
}
