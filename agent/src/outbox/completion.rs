//! Being told when a call was delivered or given up, by whichever process.
//!
//! Another process may deliver it, so one thread looks into the file for all who wait, more and more rarely; it is there
//! while somebody waits.

use super::pending::{Pending, pair};
use super::{Inner, Item, Outbox, OutboxError, State};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Between two looks at a call: from the one to the other, as it takes longer.
const FIRST: Duration = Duration::from_millis(20);
const LAST: Duration = Duration::from_secs(1);
/// Who waits at a time; each costs a look now and then.
const MAX_WATCHES: usize = 4_096;

type Told = Box<dyn FnOnce(Result<Item, OutboxError>) + Send>;

/// Those who wait.
#[derive(Default)]
pub(super) struct Completions {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    watches: Vec<Watch>,
    runs: bool,
    /// Whether the file is not to be looked at, because of a fork that comes.
    paused: bool,
    looks: bool,
}

struct Watch {
    id: i64,
    told: Told,
    due: Instant,
    pause: Duration,
}

impl Outbox {
    /// Resolves once a call was delivered or given up: how it stands then ([`answer`](Outbox::answer) has what the vendor
    /// said). To be awaited, or waited for.
    pub fn done(&self, id: i64) -> Pending<Item> {
        let (reply, pending) = pair();
        self.on_done(id, move |item| reply.answer(item));
        pending
    }

    /// Calls `told` once a call was delivered or given up, on a thread of the outbox; at once with an error where there
    /// is no such call, or more than 4,096 wait. Not called where the process ends before.
    pub fn on_done(&self, id: i64, told: impl FnOnce(Result<Item, OutboxError>) + Send + 'static) {
        if let Err(told) = self.inner.completions.add(id, Box::new(told)) {
            told(Err(OutboxError::Busy));
            return;
        }
        Completions::start(&self.inner);
    }
}

impl Completions {
    fn add(&self, id: i64, told: Told) -> Result<(), Told> {
        let mut state = self.lock();
        if state.watches.len() >= MAX_WATCHES {
            return Err(told);
        }
        state.watches.push(Watch { id, told, due: Instant::now(), pause: FIRST });
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Starts the thread, where somebody waits and there is none.
    pub(super) fn start(inner: &Arc<Inner>) {
        let mut state = inner.completions.lock();
        state.paused = false;
        if state.runs || state.watches.is_empty() {
            drop(state);
            inner.completions.changed.notify_all();
            return;
        }
        let weak = Arc::downgrade(inner);
        state.runs = crate::thread::spawn("farcall-done", move || run(&weak)).is_ok();
        let left = if state.runs { Vec::new() } else { std::mem::take(&mut state.watches) };
        drop(state);
        left.into_iter().for_each(|watch| (watch.told)(Err(OutboxError::Busy)));
    }

    /// Does not look into the file from now on, until it is started again.
    pub(super) fn pause(&self) {
        let mut state = self.lock();
        state.paused = true;
        drop(self.changed.wait_while(state, |state| state.looks).unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a call is to be looked at; `None` where nobody waits.
    fn next(&self) -> Option<Watch> {
        let mut state = self.lock();
        loop {
            let soonest = (0..state.watches.len()).min_by_key(|place| state.watches[*place].due);
            let Some(place) = soonest else {
                state.runs = false;
                return None;
            };
            let left = state.watches[place].due.saturating_duration_since(Instant::now());
            if left.is_zero() && !state.paused {
                state.looks = true;
                return Some(state.watches.swap_remove(place));
            }
            // Looked at again now and then, also while paused, so that nothing depends on being rung.
            let wait = if state.paused { LAST } else { left };
            (state, _) = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn looked(&self, again: Option<Watch>) {
        let mut state = self.lock();
        state.looks = false;
        state.watches.extend(again);
        drop(state);
        self.changed.notify_all();
    }
}

/// Ends when nobody waits any more.
fn run(weak: &Weak<Inner>) {
    loop {
        let Some(inner) = weak.upgrade() else { return };
        let Some(mut watch) = inner.completions.next() else { return };
        let item = inner.get(watch.id).map(|(item, ..)| item);
        match item {
            // The file is looked at again: it may be busy, or away for a moment, as a server may.
            item if is_pending(&item) => {
                watch.due = Instant::now() + watch.pause;
                watch.pause = (watch.pause * 3 / 2).min(LAST);
                inner.completions.looked(Some(watch));
            }
            item => {
                inner.completions.looked(None);
                // What it does is not ours; a panic of it must not end what others wait for.
                let told = std::panic::AssertUnwindSafe(|| (watch.told)(item));
                let _ = std::panic::catch_unwind(told);
            }
        }
    }
}

fn is_pending(item: &Result<Item, OutboxError>) -> bool {
    match item {
        Ok(item) => item.state == State::Pending,
        Err(error) => error.is_passing(),
    }
}

impl fmt::Debug for Completions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completions").field("waiting", &self.lock().watches.len()).finish_non_exhaustive()
    }
}
