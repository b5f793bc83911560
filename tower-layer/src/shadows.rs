//! What is sent beside a call: shadow copies to the variant of a rollout, whose answers are measured and thrown away, and
//! requests that ask whether a stale answer is still good, whose answers are kept.
//!
//! Each runs in a task of its own, on a client of its own, so that no call waits for one, nor loses its connection
//! to one.

use crate::egress::Counted;
use crate::error::{Cause, classify};
use crate::timer::Timer;
use crate::watched::Watched;
use bytes::Buf;
use farcall::{Attempt, ErrorType};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Body;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tower_service::Service;

/// No more is read of an answer that nobody keeps.
const READ: u64 = 4 * 1024 * 1024;

type Sending = dyn Fn(&Handle, Request<()>, Watched, Option<Timer>) + Send + Sync;

/// Through which clients requests go that are sent beside calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beside {
    pub(crate) shadows: Option<Shadows>,
    pub(crate) refreshes: Option<Shadows>,
}

/// Where copies are sent.
#[derive(Clone)]
pub(crate) struct Shadows(Arc<Sending>);

impl Shadows {
    pub(crate) fn through<C, B, ResB, Me, Mb>(client: C) -> Self
    where
        C: Service<Request<B>, Response = Response<ResB>> + Clone + Send + 'static,
        C::Future: Send,
        C::Error: Cause<Me>,
        B: Default + Send,
        ResB: Body + Send + 'static,
        ResB::Data: Send,
        ResB::Error: Cause<Mb>,
        Mb: 'static,
    {
        let client = Mutex::new(client);
        Self(Arc::new(move |runtime, request, watched, timer| {
            let mut client = client.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let answering = async move {
                poll_fn(|cx| client.poll_ready(cx)).await.map_err(|error| classify(error.cause()))?;
                let request = request.map(|()| B::default());
                client.call(request).await.map_err(|error| classify(error.cause()))
            };
            drop(runtime.spawn(perform(answering, watched, timer)));
        }))
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn through_reqwest(client: ::reqwest::Client) -> Self {
        Self(Arc::new(move |runtime, request, watched, timer| {
            let client = client.clone();
            let answering = async move {
                let request = request.map(|()| ::reqwest::Body::default());
                let request = ::reqwest::Request::try_from(request).map_err(|error| classify(&error))?;
                let response = client.execute(request).await.map_err(|error| classify(&error))?;
                Ok(Response::from(response))
            };
            drop(runtime.spawn(perform(answering, watched, timer)));
        }))
    }

    /// Sends a copy of a call that was just sent, where the engine has one for it.
    pub(crate) fn send(&self, call: &mut Watched, method: &Method, uri: Uri, headers: &HeaderMap) {
        // Without a runtime there is nobody to send it.
        let Ok(runtime) = Handle::try_current() else { return };
        if let Some((copy, attempt)) = call.shadow() {
            self.send_beside(&runtime, copy, &attempt, method, uri, headers);
        }
    }

    /// Asks whether what a call was just answered with is still good, where the engine wants to know.
    pub(crate) fn refresh(&self, call: &mut Watched, method: &Method, uri: Uri, headers: &HeaderMap) {
        let Some((copy, attempt)) = call.refresh() else { return };
        // Without a runtime it is dropped, and counted as cancelled.
        if let Ok(runtime) = Handle::try_current() {
            self.send_beside(&runtime, copy, &attempt, method, uri, headers);
        }
    }

    fn send_beside(
        &self,
        runtime: &Handle,
        copy: Watched,
        attempt: &Attempt,
        method: &Method,
        uri: Uri,
        headers: &HeaderMap,
    ) {
        let mut request = Request::new(());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();
        // The client for copies may have a layer of ours.
        request.extensions_mut().insert(Counted);
        attempt.apply(&mut request);
        let timer = attempt.give_up_at.and_then(|at| copy.timer(at));
        (self.0)(runtime, request, copy, timer);
    }
}

impl fmt::Debug for Shadows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadows").finish_non_exhaustive()
    }
}

/// Makes the copy's one attempt, reads its answer and throws it away.
async fn perform<ResB, M>(
    answering: impl Future<Output = Result<Response<ResB>, ErrorType>>,
    mut copy: Watched,
    timer: Option<Timer>,
) where
    ResB: Body,
    ResB::Error: Cause<M>,
{
    // Whether nothing more is to come of it.
    let working = async {
        let response = match answering.await {
            Ok(response) => response,
            Err(error) => {
                copy.failed(error);
                return true;
            }
        };
        let now = copy.now();
        copy.answer(&response, now);
        let (mut body, mut read) = (pin!(response.into_body()), 0);
        // One that is to be kept is of use only as a whole; its rule says how much that may be.
        while read < READ || copy.keeps_body() {
            match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                Some(Ok(frame)) => {
                    let Ok(mut data) = frame.into_data() else { continue };
                    while data.has_remaining() {
                        let length = data.chunk().len();
                        copy.body(data.chunk());
                        data.advance(length);
                        read += length as u64;
                    }
                }
                Some(Err(error)) => {
                    copy.failed(classify(error.cause()));
                    return true;
                }
                None => return true,
            }
        }
        false
    };
    let over = match timer {
        None => Some(working.await),
        Some(timer) => tokio::select! {
            over = working => Some(over),
            () = timer => None,
        },
    };
    match over {
        Some(true) => copy.end(),
        // Dropped, it counts as abandoned.
        Some(false) => drop(copy),
        None => copy.fail(ErrorType::Timeout),
    }
}
