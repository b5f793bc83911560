//! The threads that read and write what lies further away than memory: no call waits for a disk or the network but for
//! an answer that may be there.

mod queue;
#[cfg(test)]
mod tests;

pub(super) use queue::Job;

use super::common::{Common, MINDED, Which, lock};
use super::leases::Leases;
use super::tier::Tier;
use farcall::Timestamp;
use farcall::cache::{Fetch, Key};
use queue::{MOST_BYTES, MOST_JOBS, MOST_UNDONE, Queue, REST};
use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often there is something to do beside.
const TICK: Duration = Duration::from_secs(1);
/// A tier that is at one thing for longer than this gets nothing more to do: a disk that hangs must not delay one call
/// after the other.
const HANGS: Duration = Duration::from_secs(1);

/// A tier, the thread that asks it, and what it is to do.
pub(super) struct Worker {
    name: &'static str,
    common: Arc<Common>,
    leases: Option<Arc<Leases>>,
    tier: Arc<Mutex<Box<dyn Tier>>>,
    /// Who is asked for what is not here.
    next: Option<(Arc<Self>, Duration)>,
    hangs: Duration,
    queue: Mutex<Queue>,
    more: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    pub(super) fn new(
        name: &'static str,
        common: Arc<Common>,
        leases: Option<Arc<Leases>>,
        tier: Box<dyn Tier>,
        next: Option<(Arc<Self>, Duration)>,
        patience: Duration,
    ) -> Self {
        let tier = Arc::new(Mutex::new(tier));
        Self {
            name,
            common,
            leases,
            tier,
            next,
            hangs: patience.max(HANGS),
            queue: Mutex::default(),
            more: Condvar::new(),
            thread: Mutex::new(None),
        }
    }

    /// Starts the thread, unless it runs.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_some() {
            return Ok(());
        }
        let number = {
            let mut queue = lock(&self.queue);
            queue.number += 1;
            (queue.running, queue.ended, queue.ends_at) = (true, false, None);
            queue.number
        };
        let worker = Arc::clone(self);
        let join = crate::thread::spawn(self.name, move || worker.run(number));
        match join {
            Ok(join) => *thread = Some(join),
            Err(error) => {
                let mut queue = lock(&self.queue);
                (queue.running, queue.ended) = (false, true);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Tells the thread to end when it has done what it was given, or at that moment.
    pub(super) fn wind_down(&self, until: Instant) {
        let mut queue = lock(&self.queue);
        (queue.running, queue.ends_at) = (false, Some(until));
        drop(queue);
        self.more.notify_all();
    }

    /// Waits until the thread has ended, but not longer than until then: what it waits for itself may never answer.
    pub(super) fn stop(&self, until: Instant) {
        self.wind_down(until);
        let Some(thread) = lock(&self.thread).take() else { return };
        if thread.thread().id() == std::thread::current().id() {
            return;
        }
        let mut queue = lock(&self.queue);
        while !queue.ended && !thread.is_finished() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(queue);
                // Others of the host need not wait until that is seen.
                if let Some(leases) = &self.leases {
                    leases.release_all();
                }
                return;
            }
            queue = self.more.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(queue);
        let _ = thread.join();
    }

    /// Gives the thread something to do; `false` where it does not run, rests, or has too much to do.
    pub(super) fn give(&self, job: Job) -> bool {
        let bytes = match &job {
            Job::Put(_, kept, _) => kept.weight(),
            _ => 0,
        };
        let mut queue = lock(&self.queue);
        let asks = matches!(job, Job::Fetch(..) | Job::Put(..));
        let full = queue.jobs.len() >= MOST_JOBS || (queue.bytes > 0 && queue.bytes + bytes > MOST_BYTES);
        let rests = queue.rests();
        let hangs = queue.busy_since.is_some_and(|since| since.elapsed() > self.hangs);
        // Others must not wait for what is not written: the end of a call is behind nothing that hangs.
        let lands = matches!(job, Job::Land(..));
        if !queue.running || asks && (full || rests) || (asks || lands) && hangs {
            return false;
        }
        queue.bytes += bytes;
        queue.jobs.push_back(job);
        drop(queue);
        self.more.notify_one();
        true
    }

    fn run(&self, number: u64) {
        let mut ticked = Instant::now();
        // Before anything comes from there that is of no use any more.
        self.exchange();
        let mut queue = lock(&self.queue);
        loop {
            if queue.number != number {
                // Another one has taken its place while it hung.
                return;
            }
            let job = queue.jobs.pop_front();
            if job.is_none() && !queue.running {
                break;
            }
            if job.is_some() || ticked.elapsed() >= TICK {
                queue.busy_since = Some(Instant::now());
                drop(queue);
                if ticked.elapsed() >= TICK {
                    ticked = Instant::now();
                    self.tick();
                }
                let bytes = job.map_or(0, |job| self.work(job));
                queue = lock(&self.queue);
                queue.bytes -= bytes;
                queue.busy_since = None;
                continue;
            }
            let left = TICK.saturating_sub(ticked.elapsed()).max(Duration::from_millis(1));
            queue = self.more.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(leases) = &self.leases {
            leases.release_all();
        }
        queue.ended = true;
        drop(queue);
        self.more.notify_all();
    }

    fn tick(&self) {
        if let Some(leases) = &self.leases {
            leases.renew((self.common.clock)());
        }
        lock(&self.tier).tick();
        self.exchange();
        self.purge_again();
    }

    /// What a tier could not be made to forget, it is told again.
    fn purge_again(&self) {
        let undone = {
            let mut queue = lock(&self.queue);
            if queue.rests() { Vec::new() } else { std::mem::take(&mut queue.undone) }
        };
        let now = (self.common.clock)();
        for (which, at) in undone.into_iter().filter(|(_, at)| now.since(*at) < MINDED) {
            self.purge(which, at);
        }
    }

    fn purge(&self, which: Which, at: Timestamp) {
        // Not asked while it rests, but told later.
        let walked = (!lock(&self.queue).rests()).then(|| {
            lock(&self.tier).walk(&mut |key, sealed| self.common.is_wanted(&which, at, key, sealed))
        });
        let done = matches!(walked, Some(Ok(_)));
        if let Some(walked) = walked {
            self.note(walked.err());
        }
        if !done {
            let mut queue = lock(&self.queue);
            if queue.undone.len() >= MOST_UNDONE {
                queue.undone.remove(0);
            }
            queue.undone.push((which, at));
        }
    }

    /// A tier that rests is not asked; what is to be told waits.
    fn exchange(&self) {
        let Some(changes) = &self.common.changes else { return };
        if !lock(&self.queue).rests() {
            // Answers may be had although this fails: the tier is not to rest for it.
            if lock(&self.tier).exchange(changes, (self.common.clock)()).is_err() {
                self.common.counts.untold.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Does a job; the bytes of it that waited.
    fn work(&self, job: Job) -> usize {
        let counts = &self.common.counts;
        match job {
            Job::Fetch(key, fetch) => self.fetch(key, fetch),
            Job::Put(_, kept, _) if lock(&self.queue).is_given_up() => {
                counts.unwritten.fetch_add(1, Ordering::Relaxed);
                return kept.weight();
            }
            Job::Put(key, kept, useful_for) => {
                let sealed = self.common.seal.seal(key, &kept);
                let written = sealed.map(|sealed| lock(&self.tier).write(key, &sealed, useful_for));
                if !matches!(written, Some(Ok(()))) {
                    counts.unwritten.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(written) = written {
                    self.note(written.err().filter(|error| error.kind() != io::ErrorKind::FileTooLarge));
                }
                return kept.weight();
            }
            Job::Remove(key) => {
                let removed = lock(&self.tier).remove(key);
                self.note(removed.err());
            }
            Job::Land(key, landing, at) => {
                if let Some(leases) = &self.leases {
                    leases.release(key, landing, at);
                }
            }
            Job::Changed => self.exchange(),
            Job::Purge(which, at) => self.purge(which, at),
        }
        0
    }

    fn fetch(&self, key: Key, fetch: Fetch) {
        if fetch.until() < (self.common.clock)() || lock(&self.queue).is_given_up() {
            // Nobody waits any more: who is slow is not asked for nothing.
            self.common.counts.failed.fetch_add(1, Ordering::Relaxed);
            return fetch.finish();
        }
        let read = lock(&self.tier).read(key);
        let found = match read {
            Ok(found) => {
                self.note(None);
                found
            }
            Err(error) => {
                self.common.counts.failed.fetch_add(1, Ordering::Relaxed);
                self.note(Some(error));
                None
            }
        };
        let here = found.is_some_and(|sealed| {
            let taken = self.common.take_in(key, sealed);
            if !taken {
                let _ = lock(&self.tier).remove(key);
            }
            taken
        });
        if !here && let Some((next, patience)) = &self.next {
            fetch.wait_until((self.common.clock)().plus(*patience));
            if next.give(Job::Fetch(key, fetch.clone())) {
                return;
            }
        }
        fetch.finish();
    }

    /// Leaves the tier alone for a while after a failure.
    fn note(&self, failure: Option<io::Error>) {
        let mut queue = lock(&self.queue);
        match failure {
            None => (queue.rest, queue.rests_until) = (Duration::ZERO, None),
            Some(_) => {
                queue.rest = (queue.rest * 2).clamp(REST.0, REST.1);
                queue.rests_until = Some(Instant::now() + queue.rest);
            }
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("name", &self.name).finish_non_exhaustive()
    }
}
