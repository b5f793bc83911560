//! Waiting until a moment of the engine's clock.

use farcall::Timestamp;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep};

/// Rings at a moment.
#[derive(Debug)]
pub(crate) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    /// A timer; `None` outside a Tokio runtime, where there is no clock to ring: then nobody waits.
    pub(crate) fn new(now: Timestamp, until: Timestamp) -> Option<Self> {
        Handle::try_current().ok().map(|_| Self(Box::pin(sleep(until.since(now)))))
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}
