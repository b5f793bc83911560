//! A request's body that rules look at: it is read before they are asked.

use super::replay::Reader;
use crate::timer::Timer;
use http_body::Body;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub(super) struct Reading<B> {
    reader: Reader<B>,
    /// How many bytes more there may be.
    left: u64,
    /// Runs from when it is first waited for.
    patience: Option<Timer>,
}

/// What it came to.
pub(super) enum Read {
    Whole,
    /// It is longer than it said, or slow to come: what was read of it goes out first, then the rest.
    InPart,
    Failed,
}

impl<B: Body> Reading<B> {
    pub(super) fn new(reader: Reader<B>, most: u64) -> Self {
        Self { reader, left: most, patience: None }
    }

    /// `patience` is for as long as it may take; without one nobody waits.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        patience: impl FnOnce() -> Option<Timer>,
    ) -> Poll<Read> {
        loop {
            match self.reader.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    match self.left.checked_sub(length) {
                        Some(left) => self.left = left,
                        None => return Poll::Ready(Read::InPart),
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Read::Failed),
                Poll::Ready(None) => return Poll::Ready(Read::Whole),
                Poll::Pending => break,
            }
        }
        if self.patience.is_none() {
            self.patience = patience();
        }
        match &mut self.patience {
            Some(patience) => Pin::new(patience).poll(cx).map(|()| Read::InPart),
            None => Poll::Ready(Read::InPart),
        }
    }
}
