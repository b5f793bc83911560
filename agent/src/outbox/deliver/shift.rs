//! The queues of one thread: that of its service, and one for each callback that this process knows.

use super::super::Inner;
use super::super::store::Store;
use super::round::Round;
use crate::handle::WeakFarcall;
use crate::say;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// With nothing to do for so long, the thread ends; the next put starts it again.
const IDLE: Duration = Duration::from_secs(60);

/// What the rounds of a thread have in common.
pub(super) struct Shift {
    pub(super) inner: Arc<Inner>,
    pub(super) store: Arc<dyn Store>,
    pub(super) farcall: WeakFarcall,
    /// Whether this thread is to end; another one may run already.
    ending: Arc<AtomicBool>,
    /// Whether one of them has ended: then all do.
    over: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// When there was something to do.
    worked: Instant,
    said: Option<String>,
}

impl Shift {
    pub(super) fn new(
        inner: &Arc<Inner>,
        store: &Arc<dyn Store>,
        farcall: &WeakFarcall,
        ending: &Arc<AtomicBool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            store: Arc::clone(store),
            farcall: farcall.clone(),
            ending: Arc::clone(ending),
            over: AtomicBool::new(false),
            state: Mutex::new(State { worked: Instant::now(), said: None }),
        })
    }

    /// Delivers from each queue, until there is nothing to do for long, or this is to end.
    pub(super) async fn run(self: Arc<Self>) {
        let (mut rounds, mut wakes) = (JoinSet::new(), BTreeMap::<String, Arc<Notify>>::new());
        loop {
            if !self.is_over() {
                for queue in self.inner.queues() {
                    wakes.entry(queue).or_insert_with_key(|queue| {
                        let wake = Arc::default();
                        rounds.spawn(Round::new(Arc::clone(&self), queue.clone(), Arc::clone(&wake)).run());
                        wake
                    });
                }
            }
            tokio::select! {
                ended = rounds.join_next() => {
                    self.over.store(true, Ordering::Release);
                    if ended.is_none() {
                        return;
                    }
                }
                () = self.inner.wake.notified() => {}
            }
            wakes.values().for_each(|wake| wake.notify_one());
        }
    }

    pub(super) fn is_over(&self) -> bool {
        // Others may put calls at any time that wait for a callback of this process.
        let idle = || self.is_idle() && !self.store.is_shared() && !self.inner.credentials.are_there();
        self.ending.load(Ordering::Acquire)
            || self.over.load(Ordering::Acquire)
            || !self.farcall.is_alive()
            || idle()
    }

    /// There is something to do.
    pub(super) fn works(&self) {
        self.lock().worked = Instant::now();
    }

    /// Whether there was nothing to do for long.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().worked.elapsed() > IDLE
    }

    /// Says it, unless that was said last.
    pub(super) fn say(&self, sentence: String) {
        let mut state = self.lock();
        if state.said.as_ref() != Some(&sentence) {
            say::say(&sentence);
            state.said = Some(sentence);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
