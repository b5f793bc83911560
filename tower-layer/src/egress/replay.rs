//! A request body that can be sent again.
//!
//! The first attempt reads the application's body and keeps what it reads; a further one reads what was kept,
//! then goes on where the one before stopped, so that a body is never read twice and never sent by half.

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

/// A body, and what was read of it so far. Only for bodies whose size is known to be within bounds.
pub(super) struct Replay<B> {
    shared: Arc<Mutex<Shared<B>>>,
}

struct Shared<B> {
    /// `None` where all of it is kept.
    inner: Option<Pin<Box<B>>>,
    kept: Vec<Kept>,
    over: bool,
}

#[derive(Clone)]
enum Kept {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

impl<B: Body> Replay<B> {
    pub(super) fn new(body: B) -> Self {
        let shared = Shared { inner: Some(Box::pin(body)), kept: Vec::new(), over: false };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// The body from its start.
    pub(super) fn reader(&self) -> Reader<B> {
        Reader { shared: Arc::clone(&self.shared), next: 0 }
    }

    /// All that it says, where it was read to its end.
    pub(super) fn content(&self) -> Option<Bytes> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pieces = shared.kept.iter().filter_map(Kept::data);
        let first = pieces.next().filter(|_| shared.over)?;
        Some(match pieces.next() {
            None => first.clone(),
            Some(second) => {
                let mut all = BytesMut::from(first.as_ref());
                [second].into_iter().chain(pieces).for_each(|piece| all.extend_from_slice(piece));
                all.freeze()
            }
        })
    }

    /// It with this content instead, and its trailers, once it was read to its end.
    pub(super) fn with(&self, content: Bytes) -> Reader<B> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let trailers = shared.kept.iter().filter(|kept| kept.data().is_none()).cloned();
        let kept = [Kept::Data(content)].into_iter().chain(trailers).collect();
        Reader { shared: Arc::new(Mutex::new(Shared { inner: None, kept, over: true })), next: 0 }
    }
}

impl Kept {
    fn data(&self) -> Option<&Bytes> {
        match self {
            Self::Data(data) => Some(data),
            Self::Trailers(_) => None,
        }
    }
}

/// One attempt's way through a body.
pub(super) struct Reader<B> {
    shared: Arc<Mutex<Shared<B>>>,
    next: usize,
}

impl<B: Body> Reader<B> {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = shared.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(match kept.clone() {
                Kept::Data(data) => Frame::data(data),
                Kept::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if shared.over {
            return Poll::Ready(None);
        }
        let Some(inner) = &mut shared.inner else { return Poll::Ready(None) };
        let frame = match ready!(inner.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => frame.map_data(whole),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => {
                shared.over = true;
                return Poll::Ready(None);
            }
        };
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Some(Kept::Data(data.clone())),
            (None, Some(trailers)) => Some(Kept::Trailers(trailers.clone())),
            (None, None) => None,
        };
        if let Some(kept) = kept {
            shared.kept.push(kept);
            self.next += 1;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        self.next == shared.kept.len()
            && (shared.over || shared.inner.as_ref().is_none_or(|inner| inner.is_end_stream()))
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let pieces = shared.kept[self.next..].iter().filter_map(Kept::data);
        let ahead: u64 = pieces.map(|data| data.len() as u64).sum();
        let rest = shared.inner.as_ref().map_or(SizeHint::with_exact(0), |inner| inner.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead);
        }
        hint
    }
}

/// A buffer as one piece: without a copy where it is one already.
pub(super) fn whole<D: Buf>(mut data: D) -> Bytes {
    data.copy_to_bytes(data.remaining())
}

impl<B> fmt::Debug for Reader<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for Replay<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};
    use std::convert::Infallible;

    fn read(reader: &mut Reader<impl Body<Data = Bytes, Error = Infallible>>, frames: usize) -> String {
        let mut text = String::new();
        tokio_test::block_on(async {
            for _ in 0..frames {
                let frame = std::future::poll_fn(|cx| reader.poll_frame(cx)).await;
                let Some(Ok(frame)) = frame else { break };
                text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            }
        });
        text
    }

    #[test]
    fn an_attempt_after_half_a_body_sends_all_of_it() {
        let frames = ["a", "b", "c"].map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
        let replay = Replay::new(StreamBody::new(tokio_stream::iter(frames)).boxed());
        let mut first = replay.reader();
        assert_eq!(read(&mut first, 2), "ab");
        let mut second = replay.reader();
        assert_eq!(read(&mut second, 9), "abc");
        assert!(second.is_end_stream());
        assert_eq!(read(&mut replay.reader(), 9), "abc");
    }
}
