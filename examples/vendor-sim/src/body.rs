//! An answer's body on its way through hyper: paced, metered, and able to end badly.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::answer::{Content, Ending, Pieces};
use crate::counts::Exchange;
use crate::wire::{Fate, RESET_GRACE};

/// The body that hyper sends.
pub(crate) struct SimBody {
    source: Source,
    exchange: Option<Exchange>,
    /// Bytes still to come, where the length is announced.
    left: Option<u64>,
}

enum Source {
    Whole(Bytes),
    Paced(Box<Paced>),
}

struct Paced {
    pieces: Pieces,
    /// Bytes until the ending strikes; `None` for an ordinary end.
    until: Option<u64>,
    ending: Ending,
    every: Duration,
    first: bool,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    fate: Arc<Fate>,
    /// Bytes that the connection must have flushed before the ending may strike.
    target: u64,
}

/// Tells hyper to break the exchange off.
#[derive(Debug)]
pub(crate) struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the exchange was broken off")
    }
}

impl std::error::Error for BrokenOff {}

impl SimBody {
    /// A body of which nobody keeps count (the control interface, answers to HEAD).
    pub(crate) fn uncounted(bytes: Bytes) -> Self {
        Self { left: Some(bytes.len() as u64), source: Source::Whole(bytes), exchange: None }
    }

    /// A counted body.
    pub(crate) fn new(
        content: Content,
        sized: bool,
        ending: Ending,
        exchange: Exchange,
        fate: Arc<Fate>,
    ) -> Self {
        let left = if sized { content.len() } else { None };
        let until = match ending {
            Ending::Complete | Ending::ResetBeforeHead => None,
            Ending::Reset(k) | Ending::Close(k) | Ending::Stall(k) => Some(k),
        };
        let source = match content {
            Content::Whole(bytes) if sized && until.is_none() => Source::Whole(bytes),
            content => Source::Paced(Box::new(Paced {
                every: content.every(),
                pieces: content.into_pieces(),
                until,
                ending,
                first: true,
                waiting: None,
                target: fate.written() + until.map_or(0, on_the_wire),
                fate,
            })),
        };
        let mut body = Self { source, exchange: Some(exchange), left };
        if left == Some(0) && until.is_none() {
            body.settle();
        }
        body
    }

    fn settle(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.settle();
        }
    }

    fn sent(&mut self, n: u64) {
        if let Some(exchange) = &mut self.exchange {
            exchange.sent(n);
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(n);
        }
        if self.left == Some(0) {
            self.settle();
        }
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let piece = match &mut self.source {
            Source::Whole(bytes) if bytes.is_empty() => None,
            Source::Whole(bytes) => Some(Ok(std::mem::take(bytes))),
            Source::Paced(paced) => ready!(paced.poll_piece(cx)),
        };
        Poll::Ready(match piece {
            Some(Ok(piece)) => {
                self.sent(piece.len() as u64);
                Some(Ok(Frame::data(piece)))
            }
            Some(Err(broken)) => {
                self.exchange = None;
                Some(Err(broken))
            }
            None => {
                self.settle();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Paced(paced) => self.left == Some(0) && paced.until.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Paced {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if self.until == Some(0) {
            return self.poll_ending(cx);
        }
        if !self.first && !self.every.is_zero() {
            let every = self.every;
            let waiting = self.waiting.get_or_insert_with(|| Box::pin(pause(every)));
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        self.first = false;
        let Some(mut piece) = self.pieces.next() else {
            return Poll::Ready(None);
        };
        if let Some(until) = &mut self.until {
            piece.truncate(usize::try_from(*until).unwrap_or(usize::MAX));
            *until -= piece.len() as u64;
        }
        Poll::Ready(Some(Ok(piece)))
    }

    /// HTTP/2 only: HTTP/1.1 answers that end badly are written by `raw`.
    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        let ending = self.ending;
        let (fate, target) = (&self.fate, self.target);
        let waiting = self.waiting.get_or_insert_with(|| {
            let fate = Arc::clone(fate);
            match ending {
                Ending::Stall(_) => Box::pin(std::future::pending()),
                // hyper may still buffer the last piece, and both RST and RST_STREAM discard it; a client that gets both
                // at once may discard it, too.
                _ => Box::pin(async move {
                    fate.flushed_to(target).await;
                    tokio::time::sleep(RESET_GRACE).await;
                }),
            }
        });
        ready!(waiting.as_mut().poll(cx));
        if matches!(ending, Ending::Reset(_)) {
            self.fate.reset();
        }
        Poll::Ready(Some(Err(BrokenOff)))
    }
}

/// The least that so many bytes take as HTTP/2 frames behind a HEADERS frame (RFC 9113 section 4.1).
fn on_the_wire(body: u64) -> u64 {
    const FRAME_HEADER: u64 = 9;
    const MAX_FRAME: u64 = 16_384;
    FRAME_HEADER + 1 + body + body.div_ceil(MAX_FRAME) * FRAME_HEADER
}

fn pause(every: Duration) -> Sleep {
    tokio::time::sleep(every)
}
