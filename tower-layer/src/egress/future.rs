use super::ResponseBody;
use super::opening::Opening;
use crate::error::{Cause, classify};
use crate::watched::Watched;
use farcall::Step;
use http::{Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

pin_project! {
    /// The future of a counted call. Dropped before it is ready, it counts the call as cancelled.
    #[must_use = "futures do nothing unless polled"]
    pub struct EgressFuture<F, M> {
        #[pin]
        inner: F,
        opening: Option<Opening>,
        watched: Option<Watched>,
        bodiless: bool,
        errors: PhantomData<fn() -> M>,
    }
}

impl<F, M> EgressFuture<F, M> {
    pub(super) fn new(inner: F, opening: Option<Opening>) -> Self {
        let bodiless = opening.as_ref().is_some_and(Opening::is_head);
        Self { inner, opening, watched: None, bodiless, errors: PhantomData }
    }
}

impl<F, B, E, Me, Mb> Future for EgressFuture<F, (Me, Mb)>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Cause<Me>,
    B: Body,
    B::Error: Cause<Mb>,
{
    type Output = Result<Response<ResponseBody<B, Mb>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(mut opening) = this.opening.take() {
            *this.watched = opening.begin();
        }
        let answer = ready!(this.inner.poll(cx));
        let Some(mut watched) = this.watched.take() else {
            return Poll::Ready(answer.map(|response| response.map(ResponseBody::uncounted)));
        };
        let response = match answer {
            Ok(response) => response,
            Err(error) => {
                watched.fail(classify(error.cause()));
                return Poll::Ready(Err(error));
            }
        };
        let now = watched.now();
        #[cfg(feature = "hyper")]
        if let Some(times) = crate::connector::first_use(response.extensions()) {
            watched.connected(times);
        }
        watched.head(response.status().as_u16(), now);
        // Nothing but the answer can follow an attempt yet. What retries add is a second `Step::Send` here, and
        // with it a loop.
        let _settled: Step = watched.step(now);
        let bodiless = *this.bodiless
            || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || response.body().is_end_stream();
        Poll::Ready(Ok(match bodiless {
            true => {
                watched.end_at(now);
                response.map(ResponseBody::uncounted)
            }
            false => response.map(|body| ResponseBody::counted(body, watched)),
        }))
    }
}
