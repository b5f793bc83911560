use super::acting::{Acting, Asking};
use super::opening::{Handed, Opening};
use super::{EgressError, Rebody, ResponseBody};
use crate::error::{Cause, classify};
use crate::watched::Watched;
use farcall::Step;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_service::Service;

pin_project! {
    /// The future of a call. Dropped before it is ready, it counts the call as cancelled.
    #[must_use = "futures do nothing unless polled"]
    pub struct EgressFuture<S, R, B, M>
    where
        S: Service<Request<R::Body>>,
        R: Rebody<B>,
    {
        #[pin]
        way: Way<S, R, B, S::Future, S::Response>,
        errors: PhantomData<fn() -> M>,
    }
}

pin_project! {
    #[project = WayProjected]
    #[allow(clippy::large_enum_variant, reason = "a box would cost what most calls are spared")]
    enum Way<S, R, B, F, T> {
        /// No rule can decide anything: the request is on its way, and is watched.
        Watching { #[pin] inner: F, opening: Option<Opening<Handed>>, watched: Option<Watched>, bodiless: bool },
        /// Rules decide; nobody asked them yet.
        Asking { asking: Option<Asking<S, R, B>> },
        /// Rules decide.
        Acting {
            acting: Box<Acting<S, R, B>>,
            #[pin]
            first: Option<F>,
            #[pin]
            second: Option<F>,
            last: Option<Result<T, EgressError>>,
        },
    }
}

impl<S, R, B, M> EgressFuture<S, R, B, M>
where
    S: Service<Request<R::Body>>,
    R: Rebody<B>,
{
    pub(super) fn watching(inner: S::Future, opening: Option<Opening<Handed>>) -> Self {
        let bodiless = opening.as_ref().is_some_and(|opening| opening.asked.method == Method::HEAD);
        Self { way: Way::Watching { inner, opening, watched: None, bodiless }, errors: PhantomData }
    }

    #[inline]
    pub(super) fn asking(asking: Asking<S, R, B>) -> Self {
        Self { way: Way::Asking { asking: Some(asking) }, errors: PhantomData }
    }
}

impl<S, R, B, ResB, Me, Mb> Future for EgressFuture<S, R, B, (Me, Mb)>
where
    S: Service<Request<R::Body>, Response = Response<ResB>>,
    S::Error: Cause<Me>,
    R: Rebody<B>,
    B: Body,
    ResB: Body,
    ResB::Error: Cause<Mb>,
{
    type Output = Result<Response<ResponseBody<ResB, Mb>>, EgressError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut way = self.project().way;
        if let WayProjected::Asking { asking: place } = way.as_mut().project()
            && let Some(asking) = place
        {
            let mut watched = None;
            let step = asking.begin(&mut watched);
            if let Some(Step::Respond(stored)) = &step {
                // Made where it is handed out: most calls come no further, and nothing of them is moved.
                let answer = Poll::Ready(Ok(asking.respond(stored, &mut watched)));
                *place = None;
                return answer;
            }
            if let Some(asking) = place.take() {
                let acting = Box::new(Acting::new(asking, watched, step));
                way.set(Way::Acting { acting, first: None, second: None, last: None });
            }
        }
        match way.project() {
            WayProjected::Asking { .. } => {
                Poll::Ready(Err(EgressError::Service("the future of a call was polled after its end".into())))
            }
            WayProjected::Watching { inner, opening, watched, bodiless } => {
                if let Some(mut opening) = opening.take() {
                    opening.begin(watched);
                }
                let answer = ready!(inner.poll(cx));
                let Some(mut watched) = watched.take() else {
                    return Poll::Ready(match answer {
                        Ok(response) => Ok(response.map(ResponseBody::uncounted)),
                        Err(error) => Err(EgressError::Service(error.into_boxed())),
                    });
                };
                Poll::Ready(match answer {
                    Ok(response) => {
                        let now = watched.now();
                        watched.answer(&response, now);
                        let _settled = watched.step(now);
                        Ok(hand_out(response, watched, *bodiless, None, now))
                    }
                    Err(error) => {
                        watched.fail(classify(error.cause()));
                        Err(EgressError::Service(error.into_boxed()))
                    }
                })
            }
            WayProjected::Acting { acting, first, second, last } => acting.poll([first, second], last, cx),
        }
    }
}

/// The response as the application gets it: counted at its last byte, and cut short where a rule says so.
pub(super) fn hand_out<B: Body, M>(
    response: Response<B>,
    watched: Watched,
    bodiless: bool,
    truncate: Option<u64>,
    now: farcall::Timestamp,
) -> Response<ResponseBody<B, M>> {
    let bodiless = bodiless
        || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || response.body().is_end_stream();
    match bodiless {
        true => {
            watched.end_at(now);
            response.map(ResponseBody::uncounted)
        }
        false => response.map(|body| ResponseBody::counted(body, watched, truncate)),
    }
}
