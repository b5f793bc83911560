//! Delivery: one thread of a process. It delivers from each queue of which the process holds the lease.

mod attempt;
mod client;
mod fence;
mod outcome;
mod round;
mod shift;
mod under_way;

use super::Inner;
use crate::handle::{Farcall, WeakFarcall};
use crate::say;
pub(super) use outcome::FARTHEST;
pub(super) use round::DEAD;
use shift::Shift;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The thread that delivers, where there is one.
#[derive(Debug)]
pub(super) struct Delivery {
    /// `None` where nothing is ever delivered: an operator's.
    farcall: Option<WeakFarcall>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    join: JoinHandle<()>,
    /// Tells this thread, and no later one, to end.
    ending: Arc<AtomicBool>,
    /// Whether somebody asked for delivery since the thread looked last.
    again: bool,
    /// Whether it has looked for the last time.
    over: bool,
}

impl Delivery {
    pub(super) fn new(farcall: Option<WeakFarcall>) -> Self {
        Self { farcall, running: Mutex::new(None) }
    }

    /// The handle through whose engine it delivers; `None` once the last clone of it is gone.
    pub(super) fn farcall(&self) -> Option<Farcall> {
        self.farcall.as_ref()?.upgrade()
    }

    /// Starts the thread, unless it runs or the handle that it would deliver for is gone.
    pub(super) fn start(&self, inner: &Arc<Inner>) {
        let Some(farcall) = self.farcall.clone() else { return };
        let mut running = self.lock();
        if let Some(running) = running.as_mut().filter(|running| !running.over && !running.join.is_finished())
        {
            running.again = true;
            return;
        }
        let ending = Arc::new(AtomicBool::new(false));
        let (weak, told) = (Arc::downgrade(inner), Arc::clone(&ending));
        let spawned = crate::thread::spawn("farcall-deliver", move || {
            let Some(inner) = weak.upgrade() else { return };
            loop {
                run(&inner, &farcall, &told);
                if inner.delivery.is_over(&farcall, &told) {
                    return;
                }
            }
        });
        match spawned {
            Ok(join) => *running = Some(Running { join, ending, again: false, over: false }),
            Err(error) => {
                say::say(&format!("cannot start the thread that delivers from the outbox: {error}"))
            }
        }
    }

    /// Ends the thread: what is on its way may still arrive, within two seconds.
    pub(super) fn stop(&self, inner: &Inner) {
        let running = self.lock().take();
        if let Some(running) = &running {
            running.ending.store(true, Ordering::Release);
        }
        inner.wake.notify_one();
        if let Some(Running { join, .. }) = running
            && join.thread().id() != std::thread::current().id()
        {
            let _ = join.join();
        }
    }

    /// Whether the thread may end: nobody asked for delivery since it last looked. Whoever asks from then on starts
    /// another.
    fn is_over(&self, farcall: &WeakFarcall, ending: &Arc<AtomicBool>) -> bool {
        match &mut *self.lock() {
            // Stopped from outside; what runs now is another.
            Some(running) if !Arc::ptr_eq(&running.ending, ending) => true,
            Some(running) if running.again && farcall.is_alive() => {
                running.again = false;
                false
            }
            Some(running) => {
                running.over = true;
                true
            }
            // Stopped from outside.
            None => true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(inner: &Arc<Inner>, farcall: &WeakFarcall, ending: &Arc<AtomicBool>) {
    let Ok(store) = inner.store() else { return };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            runtime.block_on(Shift::new(inner, store, farcall, ending).run());
            // A name that is being looked up must not hold up the end of the program.
            runtime.shutdown_background();
        }
        Err(error) => say::say(&format!("cannot deliver from the outbox: {error}")),
    }
}
