//! The one thread of this process that writes, and group commit: what is asked for while a sync is under way goes
//! into the next transaction together, and all of it is answered when that is on the disk.

mod job;
mod pace;
#[cfg(test)]
mod tests;

use super::clock::{self, Anchor};
use super::file::{Open, Place};
use super::pending::{Ending, Pending, pair};
use super::table::New;
use super::{OutboxError, Receipt};
use crate::say;
use job::{Job, Put, Question};
use pace::Pace;
use rusqlite::{Transaction, TransactionBehavior};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What waits for the disk, at most, in bytes.
const MAX_WAITING: usize = 64 * 1024 * 1024;
/// One transaction, at most: so many, and so many bytes beside those of its last one.
const MAX_JOBS: usize = 4_096;
const MAX_BATCH: usize = 16 * 1024 * 1024;
/// So many bytes in the log are worth moving into the file.
const CHECKPOINT: usize = 4 * 1024 * 1024;
/// A thread that had nothing to do for so long closes the file and ends.
const IDLE: Duration = Duration::from_secs(2);

/// Writes, in the order of the questions.
pub(super) struct Writer {
    shared: Arc<Shared>,
    join: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    place: Place,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Whether the file is open. A fork at that moment makes SQLite unusable in the child.
    open: AtomicBool,
    anchor: Anchor,
    /// Rings after each commit.
    committed: Arc<Notify>,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    /// That of these jobs.
    round: Ending,
    bytes: usize,
    /// With so many jobs the thread wants to be woken; 0 while it is at work.
    wanted: usize,
    running: bool,
    ending: bool,
    stopped: Option<OutboxError>,
}

/// What goes into one transaction. Dropped, it answers whom nothing else did.
#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    bytes: usize,
    rounds: Vec<Ending>,
}

impl Writer {
    /// `committed` rings after each commit.
    pub(super) fn new(place: Place, committed: Arc<Notify>) -> Self {
        let shared = Shared {
            place,
            queue: Mutex::default(),
            changed: Condvar::new(),
            open: AtomicBool::new(false),
            anchor: Anchor::default(),
            committed,
        };
        Self { shared: Arc::new(shared), join: Mutex::new(None) }
    }

    /// Adds a call, and answers once it is on the disk. Where it `rings`, delivery hears of it then.
    pub(super) fn put(&self, new: Arc<New>, rings: bool) -> Pending<Receipt> {
        let (reply, pending) = pair();
        self.enqueue(Job::Put(Put { new, rings, done: None, reply }), pending)
    }

    /// Does `work` in a transaction, and answers once that is on the disk. `bytes` is what it writes, about.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Pending<T> {
        let (reply, pending) = pair();
        let question = Question { work: Some(work), done: None, reply, bytes };
        self.enqueue(Job::Task(Box::new(question)), pending)
    }

    fn enqueue<T>(&self, mut job: Job, pending: Pending<T>) -> Pending<T> {
        let bytes = job.bytes();
        let ending = |queue: &mut Queue| queue.ending;
        let queue = self.shared.changed.wait_while(self.shared.lock(), ending);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        if let Some(stopped) = queue.stopped.clone() {
            drop(queue);
            job.answer(Err(stopped), &self.shared.place);
            return pending;
        }
        if queue.bytes + bytes > MAX_WAITING && !queue.jobs.is_empty() {
            drop(queue);
            job.answer(Err(OutboxError::Busy), &self.shared.place);
            return pending;
        }
        queue.bytes += bytes;
        queue.jobs.push(job);
        let pending = pending.within(queue.round.round());
        if queue.running {
            let wanted = queue.wanted > 0 && queue.jobs.len() >= queue.wanted;
            if wanted {
                // Who comes before the thread is awake need not wake it again.
                queue.wanted = 0;
            }
            drop(queue);
            if wanted {
                self.shared.changed.notify_all();
            }
        } else {
            self.spawn(&mut queue);
        }
        pending
    }

    fn spawn(&self, queue: &mut MutexGuard<'_, Queue>) {
        let shared = Arc::clone(&self.shared);
        let spawned = crate::thread::spawn("farcall-outbox", move || {
            if catch_unwind(AssertUnwindSafe(|| shared.work())).is_err() {
                shared.broke();
            }
        });
        match spawned {
            Ok(join) => {
                queue.running = true;
                *self.join.lock().unwrap_or_else(PoisonError::into_inner) = Some(join);
            }
            Err(error) => {
                let error = self.shared.place.unavailable(format!("cannot start a thread: {error}"));
                queue.take_all().answer(&Err(error), &self.shared.place);
            }
        }
    }

    /// Writes what waits, and closes the file. What is asked for meanwhile waits; it opens the file again.
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

    /// Whether the clock has jumped, and the moments in the file have not: the next transaction moves them.
    pub(super) fn is_behind_the_clock(&self) -> bool {
        self.shared.anchor.is_off()
    }

    pub(super) fn is_open(&self) -> bool {
        self.shared.open.load(Ordering::Acquire)
    }
}

impl Queue {
    fn take_all(&mut self) -> Batch {
        let (jobs, bytes) = (std::mem::take(&mut self.jobs), std::mem::take(&mut self.bytes));
        Batch { jobs, bytes, rounds: vec![std::mem::take(&mut self.round)] }
    }

    /// Adds to a batch what waits, as much of it as it has room for: else whoever puts faster than the disk takes it
    /// would fill the memory.
    fn take_into(&mut self, batch: &mut Batch) {
        let (room, bytes) =
            (MAX_JOBS.saturating_sub(batch.jobs.len()), MAX_BATCH.saturating_sub(batch.bytes));
        if self.jobs.is_empty() || room == 0 || bytes == 0 {
            return;
        }
        batch.rounds.push(std::mem::take(&mut self.round));
        if self.jobs.len() <= room && self.bytes <= bytes {
            batch.bytes += std::mem::take(&mut self.bytes);
            batch.jobs.append(&mut self.jobs);
            return;
        }
        let (mut many, mut taken) = (0, 0);
        while many < room.min(self.jobs.len()) && taken < bytes {
            taken += self.jobs[many].bytes();
            many += 1;
        }
        self.bytes -= taken;
        batch.bytes += taken;
        batch.jobs.extend(self.jobs.drain(..many));
    }
}

impl Batch {
    /// Leaves it empty.
    fn answer(&mut self, committed: &Result<(), OutboxError>, place: &Place) {
        self.jobs.iter_mut().for_each(|job| job.answer(committed.clone(), place));
        self.bytes = 0;
        self.rounds.clear();
        // Those who wait are woken before what they put is let go.
        self.jobs.clear();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let (mut open, mut batch, mut pace) = (None, Batch::default(), Pace::default());
        while self.wait(&mut open, &mut pace) {
            if let Err(error) = self.write(&mut open, &mut batch, &mut pace)
                && error.is_stop()
            {
                self.stop(error);
            }
        }
    }

    /// Waits for work. Whether there is any; else the thread is to end, and then the file is closed.
    fn wait(&self, open: &mut Option<Open>, pace: &mut Pace) -> bool {
        let mut queue = self.lock();
        if let Some((wanted, patience)) = pace.wait().filter(|(wanted, _)| queue.jobs.len() < *wanted) {
            // Also where none is there yet: so the thread is woken once for all of them.
            let few = |queue: &mut Queue| queue.jobs.len() < wanted && !queue.ending;
            queue = self.sleep(queue, wanted, patience, few).0;
            pace.waited(queue.jobs.len());
        }
        loop {
            if !queue.jobs.is_empty() {
                return true;
            }
            let idle = |queue: &mut Queue| queue.jobs.is_empty() && !queue.ending;
            let (again, timed_out) = self.sleep(queue, 1, IDLE, idle);
            queue = again;
            if queue.jobs.is_empty() && (queue.ending || timed_out) {
                if open.is_some() {
                    drop(queue);
                    *open = None;
                    self.open.store(false, Ordering::Release);
                    queue = self.lock();
                    continue;
                }
                queue.running = false;
                return false;
            }
        }
    }

    /// Waits for so many jobs.
    fn sleep<'a>(
        &self,
        mut queue: MutexGuard<'a, Queue>,
        wanted: usize,
        at_most: Duration,
        condition: impl FnMut(&mut Queue) -> bool,
    ) -> (MutexGuard<'a, Queue>, bool) {
        queue.wanted = wanted;
        let slept = self.changed.wait_timeout_while(queue, at_most, condition);
        let (mut queue, timeout) = slept.unwrap_or_else(PoisonError::into_inner);
        queue.wanted = 0;
        (queue, timeout.timed_out())
    }

    fn write(&self, open: &mut Option<Open>, batch: &mut Batch, pace: &mut Pace) -> Result<(), OutboxError> {
        let begun = Instant::now();
        let result = self.commit(open, batch);
        if result.is_err() {
            // Whatever it was, the next transaction starts from what is on the disk.
            *open = None;
            self.open.store(false, Ordering::Release);
        }
        let puts = batch.jobs.iter().filter(|job| job.is_put()).count();
        let rings = batch.jobs.iter().any(Job::rings);
        pace.wrote(puts + self.lock().jobs.len(), begun.elapsed());
        batch.answer(&result, &self.place);
        result?;
        if rings {
            self.committed.notify_one();
        }
        let Some(open) = open else { return Ok(()) };
        if open.in_log() > CHECKPOINT
            && let Err(error) = open.checkpoint()
        {
            let error = self.place.failure(&error);
            if error.is_stop() {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Does in one transaction what waits, and what comes while that is done.
    fn commit(&self, open: &mut Option<Open>, batch: &mut Batch) -> Result<(), OutboxError> {
        self.lock().take_into(batch);
        if open.as_ref().is_some_and(|open| !self.place.is_same(open)) {
            *open = None;
        }
        let new = open.is_none();
        if new {
            self.open.store(true, Ordering::Release);
            *open = Some(self.place.open()?);
        }
        let Some(opened) = open.as_mut() else { return Err(OutboxError::Busy) };
        let wrong = |error: rusqlite::Error| self.place.failure(&error);
        let transaction =
            opened.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
        let mut followed = None;
        if new || self.anchor.is_off() {
            followed = Some(clock::follow(&transaction).map_err(wrong)?);
        }
        let mut done = 0;
        while done < batch.jobs.len() {
            job::run(&mut batch.jobs[done..], &transaction).map_err(wrong)?;
            done = batch.jobs.len();
            self.lock().take_into(batch);
        }
        transaction.commit().map_err(wrong)?;
        // Not before: until then others read what is there by the clock from before the jump.
        if let Some(ahead) = followed {
            self.anchor.set(ahead);
        }
        if !self.place.is_same(opened) {
            return Err(self
                .place
                .unavailable("the file was removed or replaced while it was being written"));
        }
        // What another process could not sync may lie before this in the log.
        self.place.stopped()
    }

    /// An error of ours. What was acknowledged is on the disk; what was not gets its answer.
    fn broke(&self) {
        self.open.store(false, Ordering::Release);
        let mut queue = self.lock();
        queue.running = false;
        let mut batch = queue.take_all();
        drop(queue);
        say::say("an error of farcall's own in the outbox was caught (please report it)");
        let error = self.place.unavailable("an error of farcall's own");
        batch.answer(&Err(error), &self.place);
    }

    /// After a failed sync nobody can tell what is on the disk (the system may drop what it could not write and
    /// report the error once), so nothing is written any more, by no process.
    fn stop(&self, error: OutboxError) {
        if let OutboxError::Stopped(why) | OutboxError::CopyStopped { why, .. } = &error {
            self.place.stop(why);
        }
        let mut queue = self.lock();
        if queue.stopped.is_none() {
            say::say(&error.to_string());
        }
        queue.stopped = Some(error.clone());
        let mut batch = queue.take_all();
        drop(queue);
        batch.answer(&Err(error), &self.place);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.pause();
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("open", &self.is_open()).finish_non_exhaustive()
    }
}
