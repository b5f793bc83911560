use crate::error::{Cause, Plain, classify};
use crate::watched::{Sent, Watched};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Bytes that a buffer still holds.
fn len<D: bytes::Buf, E>(polled: &Option<Result<Frame<D>, E>>) -> usize {
    match polled {
        Some(Ok(frame)) => frame.data_ref().map_or(0, bytes::Buf::remaining),
        _ => 0,
    }
}

pin_project! {
    /// A request's body, of which the transport's share is counted.
    #[derive(Debug)]
    pub struct RequestBody<B> {
        #[pin]
        inner: B,
        sent: Option<Sent>,
    }
}

impl<B> RequestBody<B> {
    pub(crate) fn counted(inner: B, sent: Sent) -> Self {
        Self { inner, sent: Some(sent) }
    }

    pub(crate) fn uncounted(inner: B) -> Self {
        Self { inner, sent: None }
    }

    /// The body inside.
    pub fn get_ref(&self) -> &B {
        &self.inner
    }

    /// The body inside; what is read from it from now on is not counted.
    pub fn into_inner(self) -> B {
        self.inner
    }
}

impl<B: Body> Body for RequestBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let polled = ready!(this.inner.poll_frame(cx));
        if let Some(sent) = this.sent {
            sent.add(len(&polled));
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    /// A response's body that counts its call at its last byte, its trailers or its error, and as abandoned when
    /// it is dropped before. `M` tells how its errors are looked into.
    pub struct ResponseBody<B, M = Plain> {
        #[pin]
        inner: B,
        watched: Option<Watched>,
        errors: PhantomData<fn() -> M>,
    }
}

impl<B, M> ResponseBody<B, M> {
    pub(crate) fn counted(inner: B, watched: Watched) -> Self {
        Self { inner, watched: Some(watched), errors: PhantomData }
    }

    pub(crate) fn uncounted(inner: B) -> Self {
        Self { inner, watched: None, errors: PhantomData }
    }

    /// The body inside.
    pub fn get_ref(&self) -> &B {
        &self.inner
    }
}

impl<B, M> Body for ResponseBody<B, M>
where
    B: Body,
    B::Error: Cause<M>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let polled = ready!(this.inner.as_mut().poll_frame(cx));
        let Some(watched) = this.watched else { return Poll::Ready(polled) };
        watched.body(len(&polled));
        let last = match &polled {
            // Trailers come last (RFC 9110, section 6.5), and many readers stop at the last byte: nobody has to
            // ask once more for the call to be counted.
            Some(Ok(frame)) => frame.is_trailers() || this.inner.is_end_stream(),
            Some(Err(_)) | None => true,
        };
        if last && let Some(watched) = this.watched.take() {
            match &polled {
                Some(Err(error)) => watched.fail(classify(error.cause())),
                Some(Ok(_)) | None => watched.end(),
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: fmt::Debug, M> fmt::Debug for ResponseBody<B, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}
