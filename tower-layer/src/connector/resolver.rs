use super::MAKING;
use crate::local::look;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tower_service::Service;

/// A resolver whose time is measured, for
/// [`HttpConnector::new_with_resolver`](hyper_util::client::legacy::connect::HttpConnector::new_with_resolver).
#[derive(Clone, Debug)]
pub struct TimedResolver<R> {
    inner: R,
}

impl<R> TimedResolver<R> {
    /// Measures this resolver.
    pub const fn new(inner: R) -> Self {
        Self { inner }
    }

    /// The resolver inside.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The resolver inside, to change.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The resolver inside; it is no longer measured.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Service<N>, N> Service<N> for TimedResolver<R> {
    type Response = R::Response;
    type Error = R::Error;
    type Future = Resolving<R::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), R::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, name: N) -> Self::Future {
        Resolving { began: Instant::now(), inner: self.inner.call(name) }
    }
}

pin_project! {
    /// The future of a [`TimedResolver`].
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct Resolving<F> {
        #[pin]
        inner: F,
        began: Instant,
    }
}

impl<F: Future> Future for Resolving<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        let took = this.began.elapsed();
        look(&MAKING, |parts| {
            if let Some(parts) = parts {
                parts.dns = Some(took);
            }
        });
        Poll::Ready(answer)
    }
}
