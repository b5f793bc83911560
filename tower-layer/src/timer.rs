//! Waiting until a moment of the engine's clock.

use farcall::Timestamp;
use std::future::Future;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep};

/// Rings at a moment.
#[derive(Debug)]
pub(crate) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    /// A timer; `None` outside a Tokio runtime, and in one without timers, where there is no clock to ring: then nobody
    /// waits.
    pub(crate) fn new(now: Timestamp, until: Timestamp) -> Option<Self> {
        Handle::try_current().ok()?;
        // Panics in a runtime that was built without `enable_time`, and nothing else tells.
        catch_unwind(|| Self(Box::pin(sleep(until.since(now))))).ok()
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

/// A wait that a rule asks for, in which something may come earlier.
#[derive(Debug)]
pub(crate) struct Pause {
    /// `None` where there is no clock: then nobody waits.
    timer: Option<Timer>,
    /// Whether the task is woken when it is time to look again.
    wakes: bool,
    polled: bool,
}

impl Pause {
    pub(crate) fn new(timer: Option<Timer>, wakes: bool) -> Self {
        Self { timer, wakes, polled: false }
    }
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let again = std::mem::replace(&mut self.polled, true);
        if self.wakes && again {
            // Woken for this, or for something else: a look costs little.
            return Poll::Ready(());
        }
        if let Some(timer) = &mut self.timer {
            ready!(Pin::new(timer).poll(cx));
        }
        Poll::Ready(())
    }
}
