//! The thread that takes calls through the chain, many at once, and in between lets the spool's calls go on and
//! compares the copies.

use super::super::super::pending::{Pending, Reply, pair};
use super::super::super::table::New;
use super::super::super::{OutboxError, Receipt};
use super::Links;
use super::complete::Place;
use super::forward::AGAIN;
use super::spool::Spool;
use crate::say;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So many calls at once, at most.
const MANY: usize = 1_024;
/// What waits, at most, in bytes.
const MAX_WAITING: usize = 64 * 1024 * 1024;
/// So long after a call was taken the copies hear how far the store is.
const TOLD: Duration = Duration::from_secs(1);
/// With nothing to do for so long, the thread ends.
const IDLE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Thread {
    shared: Arc<Shared>,
    join: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    links: Arc<Links>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// Calls, and who waits for them.
type Calls = Vec<(Arc<New>, Reply<Receipt>)>;

#[derive(Default)]
struct Queue {
    calls: Calls,
    bytes: usize,
    /// Which copy is compared, and from which call on.
    compare: Option<(usize, i64)>,
    /// Where to go on copying the calls that were taken without their copies.
    complete: Option<Place>,
    /// Whether the spool is to be looked at.
    look: bool,
    running: bool,
    ending: bool,
}

impl Queue {
    /// The next calls.
    fn take(&mut self) -> Calls {
        let rest = self.calls.split_off(self.calls.len().min(MANY));
        let calls = std::mem::replace(&mut self.calls, rest);
        self.bytes -= calls.iter().map(|(new, _)| new.request.len()).sum::<usize>();
        calls
    }

    fn is_idle(&self) -> bool {
        self.calls.is_empty()
            && self.compare.is_none()
            && self.complete.is_none()
            && !self.look
            && !self.ending
    }
}

/// What the thread does next.
enum Work {
    Take(Calls),
    Forward,
    Compare(usize, i64),
    Complete(Place),
    /// Say in the copies how far the store is.
    Tell,
    End,
}

impl Thread {
    pub(super) fn new(links: Arc<Links>) -> Self {
        let shared = Shared { links, queue: Mutex::default(), changed: Condvar::new() };
        Self { shared: Arc::new(shared), join: Mutex::new(None) }
    }

    pub(super) fn add(&self, new: Arc<New>) -> Pending<Receipt> {
        let (reply, pending) = pair();
        let mut queue = self.ready();
        let bytes = new.request.len();
        if queue.bytes + bytes > MAX_WAITING && !queue.calls.is_empty() {
            reply.answer(Err(OutboxError::Busy));
            return pending;
        }
        queue.bytes += bytes;
        queue.calls.push((new, reply));
        self.run(queue);
        pending
    }

    /// Compares the copies with the store, where that is not under way.
    pub(super) fn compare(&self) {
        if self.shared.links.copies.many() > 0 {
            let mut queue = self.ready();
            queue.compare.get_or_insert((0, 0));
            queue.complete.get_or_insert_default();
            self.run(queue);
        }
    }

    /// Lets the spool's calls go on.
    pub(super) fn wake(&self) {
        let mut queue = self.ready();
        queue.look = true;
        self.run(queue);
    }

    fn ready(&self) -> MutexGuard<'_, Queue> {
        let queue = self.shared.changed.wait_while(self.shared.lock(), |queue| queue.ending);
        queue.unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut queue: MutexGuard<'_, Queue>) {
        if queue.running {
            drop(queue);
            self.shared.changed.notify_all();
            return;
        }
        let shared = Arc::clone(&self.shared);
        let spawned = crate::thread::spawn("farcall-copies", move || {
            if catch_unwind(AssertUnwindSafe(|| shared.work())).is_err() {
                say::say("an error of farcall's own in the outbox was caught (please report it)");
                let mut queue = shared.lock();
                queue.running = false;
                // Dropped, they answer that nothing was taken.
                drop(std::mem::take(&mut *queue));
            }
        });
        match spawned {
            Ok(join) => {
                queue.running = true;
                *self.join.lock().unwrap_or_else(PoisonError::into_inner) = Some(join);
            }
            Err(error) => {
                queue.bytes = 0;
                let error = self.shared.links.store.unavailable(&format!("cannot start a thread: {error}"));
                let calls = std::mem::take(&mut queue.calls);
                calls.into_iter().for_each(|(_, reply)| reply.answer(Err(error.clone())));
            }
        }
    }

    /// Takes what waits, and ends the thread.
    pub(super) fn pause(&self) {
        self.shared.lock().ending = true;
        self.shared.changed.notify_all();
        let join = self.join.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(join) = join {
            let _ = join.join();
        }
        self.shared.lock().ending = false;
        self.shared.changed.notify_all();
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.pause();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        // When the spool is looked at next, where there may be anything in it.
        let mut due = self.links.spool.as_ref().map(|_| Instant::now());
        let mut took = false;
        let mut tell = None;
        loop {
            let work = self.next(due, tell, took);
            took = matches!(work, Work::Take(_));
            match work {
                Work::Take(calls) => {
                    self.take(calls);
                    if self.links.copies.many() > 0 {
                        tell = tell.or(Some(Instant::now() + TOLD));
                    }
                    if self.links.copies.are_back() {
                        self.lock().complete.get_or_insert_default();
                    }
                    // What went into it goes on as soon as it can.
                    if due.is_none() && self.links.spool.as_ref().is_some_and(Spool::is_filled) {
                        due = Some(Instant::now() + AGAIN / 10);
                    }
                }
                Work::Forward => due = self.forward().map(|wait| Instant::now() + wait),
                Work::Compare(which, after) => {
                    let next = self.compare(which, after);
                    self.lock().compare = next;
                }
                Work::Complete(at) => {
                    let next = self.links.complete(&at).unwrap_or_default();
                    self.lock().complete = next;
                }
                Work::Tell => {
                    tell = None;
                    self.links.copies.tell_numbers(&*self.links.store);
                }
                Work::End => return,
            }
        }
    }

    /// Waits for something to do. Who puts all the time holds up what is in the spool no more than that holds up him.
    fn next(&self, due: Option<Instant>, tell: Option<Instant>, took: bool) -> Work {
        let mut queue = self.lock();
        loop {
            let soonest = due.into_iter().chain(tell).min();
            let wait = soonest.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
            if queue.is_idle() && !wait.is_zero() {
                let waited = self.changed.wait_timeout_while(queue, wait, |queue| queue.is_idle());
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            let forwards = queue.look || due.is_some_and(|due| due <= Instant::now());
            if !(queue.calls.is_empty() || took && forwards && !queue.ending) {
                return Work::Take(queue.take());
            }
            if tell.is_some_and(|tell| queue.ending || tell <= Instant::now()) {
                return Work::Tell;
            }
            if queue.ending || (queue.is_idle() && due.is_none() && tell.is_none()) {
                queue.running = false;
                return Work::End;
            }
            if forwards {
                queue.look = false;
                return Work::Forward;
            }
            if let Some(at) = &queue.complete {
                return Work::Complete(at.clone());
            }
            if let Some((which, after)) = queue.compare {
                return Work::Compare(which, after);
            }
        }
    }

    fn take(&self, calls: Calls) {
        // Whose copies they are is said once there are any calls of this store.
        if let Err(error) = self.links.copies.look(&*self.links.store, &self.links.file, false, None)
            && self.links.spool.is_none()
        {
            calls.into_iter().for_each(|(_, reply)| reply.answer(Err(error.clone())));
            return;
        }
        let (news, replies): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        for (reply, answer) in replies.into_iter().zip(self.links.add(&news)) {
            reply.answer(answer);
        }
    }

    /// Compares a part; where to go on.
    fn compare(&self, which: usize, after: i64) -> Option<(usize, i64)> {
        let states = |names: Vec<Vec<u8>>| self.links.states(names);
        // At the beginning in any case: it may be an older file by now that another process copied back.
        let doubted = (after == 0).then_some(which);
        let looked = self.links.copies.look(&*self.links.store, &self.links.file, true, doubted);
        // One that cannot be read now is compared the next time.
        let elsewhere = self.links.spool.is_some() && self.links.store.is_shared();
        match looked.and_then(|()| self.links.copies.compare(which, after, elsewhere, &states)) {
            Ok(Some(after)) => Some((which, after)),
            _ => (which + 1 < self.links.copies.many()).then_some((which + 1, 0)),
        }
    }

    /// Lets some of the spool's calls go on. How long until the next look; `None` where none wait.
    fn forward(&self) -> Option<Duration> {
        let spool = self.links.spool.as_ref().filter(|spool| spool.is_filled())?;
        Some(spool.forward(&*self.links.store).unwrap_or(AGAIN))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("links", &self.links).finish_non_exhaustive()
    }
}
