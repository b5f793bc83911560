//! Waiting until a moment of the engine's clock.

use farcall::Timestamp;
use std::future::Future;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::runtime::{Handle, Id};
use tokio::time::{Sleep, sleep};

/// Runtimes that were seen to have no timers; so many at most, the latest ones.
static WITHOUT: Mutex<Vec<Id>> = Mutex::new(Vec::new());
const MOST: usize = 64;
/// Whether there was one.
static ANY: AtomicBool = AtomicBool::new(false);

/// Rings at a moment.
#[derive(Debug)]
pub(crate) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    /// A timer; `None` outside a Tokio runtime, and in one without timers, where there is no clock to ring: then nobody
    /// waits.
    pub(crate) fn new(now: Timestamp, until: Timestamp) -> Option<Self> {
        let runtime = Handle::try_current().ok()?.id();
        let known = || WITHOUT.lock().unwrap_or_else(PoisonError::into_inner);
        if ANY.load(Ordering::Acquire) && known().contains(&runtime) {
            return None;
        }
        // Panics in a runtime that was built without `enable_time`, and nothing else tells: the program's hook for panics
        // hears of it, once.
        catch_unwind(|| Self(Box::pin(sleep(until.since(now)))))
            .inspect_err(|_| {
                let mut known = known();
                if known.len() >= MOST {
                    known.remove(0);
                }
                known.push(runtime);
                ANY.store(true, Ordering::Release);
            })
            .ok()
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
        let wakes = self.wakes;
        match &mut self.timer {
            Some(timer) => ready!(Pin::new(timer).poll(cx)),
            // Whoever waits for something looks again and again.
            None if wakes && later(cx.waker()) => return Poll::Pending,
            None => {}
        }
        Poll::Ready(())
    }
}

/// How often is looked where there is no clock, and what is waited for may come by the time alone.
const LOOK: Duration = Duration::from_millis(20);

/// Has the task woken a moment later. `false` where the system has no room for a thread.
fn later(waker: &Waker) -> bool {
    let waker = waker.clone();
    farcall_agent::spawn_thread("farcall-wait", move || {
        std::thread::sleep(LOOK);
        waker.wake();
    })
    .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::task::Wake;
    use tokio::runtime::Builder;

    #[test]
    fn a_program_s_hook_for_panics_hears_once_of_a_runtime_without_timers() {
        let here = std::thread::current().id();
        let heard = Arc::new(AtomicUsize::new(0));
        let (hears, before) = (Arc::clone(&heard), Arc::new(std::panic::take_hook()));
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().id() == here {
                hears.fetch_add(1, Ordering::Relaxed);
            } else {
                before(info);
            }
        }));
        let (now, soon) = (Timestamp::EPOCH, Timestamp::from_nanos(1));
        for runtimes in 1..=2 {
            let runtime = Builder::new_current_thread().build().unwrap();
            let _within = runtime.enter();
            for _ in 0..100 {
                assert!(Timer::new(now, soon).is_none());
            }
            assert_eq!(heard.load(Ordering::Relaxed), runtimes);
        }
        let with = Builder::new_current_thread().enable_time().build().unwrap();
        let _within = with.enter();
        assert!(Timer::new(now, soon).is_some());
    }

    #[test]
    fn where_there_is_no_clock_what_may_come_is_looked_for_now_and_then() {
        struct Woken(mpsc::Sender<()>);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                let _ = self.0.send(());
            }
        }
        let (woken, wakes) = mpsc::channel();
        let waker = Waker::from(Arc::new(Woken(woken)));
        let mut pause = Pause::new(None, true);
        assert!(Pin::new(&mut pause).poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(wakes.recv_timeout(Duration::from_secs(60)), Ok(()));
        assert!(Pin::new(&mut pause).poll(&mut Context::from_waker(&waker)).is_ready());
        let mut nothing = Pause::new(None, false);
        assert!(Pin::new(&mut nothing).poll(&mut Context::from_waker(&waker)).is_ready());
    }
}
