use super::EgressError;
use super::replay::{Reader, whole};
use crate::error::{Cause, Plain, classify};
use crate::watched::{Carried, Sent, Watched};
use bytes::Bytes;
use farcall::ErrorType;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The bytes of a frame, if it is one of data.
fn data<E>(polled: &Option<Result<Frame<Bytes>, E>>) -> &[u8] {
    match polled {
        Some(Ok(frame)) => frame.data_ref().map_or(&[], |data| data.as_ref()),
        _ => &[],
    }
}

pin_project! {
    /// A request's body, of which the transport's share is counted.
    #[derive(Debug)]
    pub struct RequestBody<B> {
        #[pin]
        from: From<B>,
        sent: Option<Sent>,
    }
}

pin_project! {
    #[project = FromProjected]
    #[derive(Debug)]
    enum From<B> {
        /// The application's body itself.
        Application { #[pin] body: B },
        /// What was kept of it, since it may be sent more than once.
        Kept { reader: Reader<B> },
    }
}

impl<B> RequestBody<B> {
    pub(crate) fn counted(body: B, sent: Sent) -> Self {
        Self { from: From::Application { body }, sent: Some(sent) }
    }

    pub(crate) fn uncounted(body: B) -> Self {
        Self { from: From::Application { body }, sent: None }
    }

    pub(super) fn kept(reader: Reader<B>, sent: Sent) -> Self {
        Self { from: From::Kept { reader }, sent: Some(sent) }
    }

    /// The application's body; `None` where it may be sent more than once, and so is shared.
    pub fn get_ref(&self) -> Option<&B> {
        match &self.from {
            From::Application { body } => Some(body),
            From::Kept { .. } => None,
        }
    }
}

impl<B: Body> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let polled = match this.from.project() {
            FromProjected::Application { body } => {
                ready!(body.poll_frame(cx)).map(|frame| frame.map(|frame| frame.map_data(whole)))
            }
            FromProjected::Kept { reader } => ready!(reader.poll_frame(cx)),
        };
        if let Some(sent) = this.sent {
            sent.add(data(&polled).len());
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        match &self.from {
            From::Application { body } => body.is_end_stream(),
            From::Kept { reader } => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            From::Application { body } => body.size_hint(),
            From::Kept { reader } => reader.size_hint(),
        }
    }
}

pin_project! {
    /// A response's body that counts its call at its last byte, its trailers or its error, and as abandoned when
    /// it is dropped before. It fails as the service's own body does, or with [`EgressError::Injected`] where a rule
    /// of `[[fault]]` cuts it short. `M` tells how the own body's errors are looked into.
    pub struct ResponseBody<B, M = Plain> {
        #[pin]
        inner: Option<B>,
        stored: Option<Bytes>,
        watched: Option<Carried>,
        // After how many more bytes it breaks off, where a rule says so.
        left: Option<u64>,
        errors: PhantomData<fn() -> M>,
    }
}

impl<B, M> ResponseBody<B, M> {
    /// `left`: after how many bytes it breaks off, where a rule says so.
    pub(crate) fn counted(inner: B, watched: Watched, left: Option<u64>) -> Self {
        Self {
            inner: Some(inner),
            stored: None,
            watched: Some(Carried::new(watched)),
            left,
            errors: PhantomData,
        }
    }

    pub(crate) fn uncounted(inner: B) -> Self {
        Self { inner: Some(inner), stored: None, watched: None, left: None, errors: PhantomData }
    }

    /// A body that no vendor sent.
    pub(super) fn stored(body: Bytes) -> Self {
        let stored = Some(body).filter(|body| !body.is_empty());
        Self { inner: None, stored, watched: None, left: None, errors: PhantomData }
    }

    /// The body of the service below; `None` where the response came from a rule.
    pub fn get_ref(&self) -> Option<&B> {
        self.inner.as_ref()
    }
}

impl<B, M> Body for ResponseBody<B, M>
where
    B: Body,
    B::Error: Cause<M>,
{
    type Data = Bytes;
    type Error = EgressError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(match this.left.take() {
                Some(_) => {
                    if let Some(watched) = this.watched.take() {
                        watched.close(Some(ErrorType::Reset));
                    }
                    Some(Err(EgressError::Injected(ErrorType::Reset)))
                }
                None => this.stored.take().map(|body| Ok(Frame::data(body))),
            });
        };
        let polled =
            ready!(inner.as_mut().poll_frame(cx)).map(|frame| frame.map(|frame| frame.map_data(whole)));
        let Some(watched) = this.watched else {
            return Poll::Ready(polled.map(|frame| frame.map_err(below)));
        };
        if let Some(left) = this.left {
            let length = data(&polled).len() as u64;
            if length > *left {
                // What is left of it, and at the next poll the break; the connection goes now.
                let part = Bytes::copy_from_slice(&data(&polled)[..usize::try_from(*left).unwrap_or(0)]);
                watched.body(&part);
                this.inner.set(None);
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            *left -= length;
        }
        watched.body(data(&polled));
        let last = match &polled {
            // Trailers come last (RFC 9110, section 6.5), and many readers stop at the last byte: nobody has to
            // ask once more for the call to be counted.
            Some(Ok(frame)) => frame.is_trailers() || inner.is_end_stream(),
            Some(Err(_)) | None => true,
        };
        if last && let Some(watched) = this.watched.take() {
            watched.close(match &polled {
                Some(Err(error)) => Some(classify(error.cause())),
                Some(Ok(_)) | None => None,
            });
        }
        Poll::Ready(polled.map(|frame| frame.map_err(below)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().map_or(self.stored.is_none() && self.left.is_none(), Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let stored = self.stored.as_ref().map_or(0, |body| body.len() as u64);
        self.inner.as_ref().map_or(SizeHint::with_exact(stored), Body::size_hint)
    }
}

/// The error of the body below.
fn below<M>(error: impl Cause<M>) -> EgressError {
    EgressError::Service(error.into_boxed())
}

impl<B: fmt::Debug, M> fmt::Debug for ResponseBody<B, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("inner", &self.inner).finish_non_exhaustive()
    }
}
