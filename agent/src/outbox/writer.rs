//! The one thread of this process that writes, and group commit: what is asked for while a sync is under way goes
//! into the next transaction together, and all of it is answered when that is on the disk.

use super::OutboxError;
use super::file::{Open, Place};
use super::pending::{Pending, Reply, pair};
use crate::say;
use rusqlite::{Transaction, TransactionBehavior};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::Notify;

/// What waits for the disk, at most, in bytes.
const MAX_WAITING: usize = 64 * 1024 * 1024;
/// One transaction, at most.
const MAX_JOBS: usize = 4_096;
/// So many bytes in the log are worth moving into the file.
const CHECKPOINT: usize = 4 * 1024 * 1024;
/// What a row takes in the log beside its bytes: pages of the table and its indices.
const ROW: usize = 4_096;
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
    /// Rings after each commit.
    committed: Arc<Notify>,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Box<dyn Job>>,
    bytes: usize,
    running: bool,
    ending: bool,
    stopped: Option<OutboxError>,
}

trait Job: Send {
    fn run(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, committed: Result<(), OutboxError>);
    fn bytes(&self) -> usize;
}

struct Task<F, T> {
    work: Option<F>,
    done: Option<T>,
    reply: Reply<T>,
    bytes: usize,
}

impl<F, T> Job for Task<F, T>
where
    F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.done = Some(work(transaction)?);
        }
        Ok(())
    }

    fn answer(mut self: Box<Self>, committed: Result<(), OutboxError>) {
        let done = self.done.take().ok_or(OutboxError::Busy);
        self.reply.answer(committed.and(done));
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Writer {
    /// `committed` rings after each commit.
    pub(super) fn new(place: Place, committed: Arc<Notify>) -> Self {
        let shared = Shared {
            place,
            queue: Mutex::default(),
            changed: Condvar::new(),
            open: AtomicBool::new(false),
            committed,
        };
        Self { shared: Arc::new(shared), join: Mutex::new(None) }
    }

    /// Does `work` in a transaction, and answers once that is on the disk. `bytes` is what it writes, about.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Pending<T> {
        let (reply, pending) = pair();
        let ending = |queue: &mut Queue| queue.ending;
        let queue = self.shared.changed.wait_while(self.shared.lock(), ending);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        if let Some(stopped) = &queue.stopped {
            reply.answer(Err(stopped.clone()));
        } else if queue.bytes + bytes > MAX_WAITING && !queue.jobs.is_empty() {
            reply.answer(Err(OutboxError::Busy));
        } else {
            queue.bytes += bytes;
            queue.jobs.push(Box::new(Task { work: Some(work), done: None, reply, bytes }));
            if queue.running {
                drop(queue);
                self.shared.changed.notify_all();
            } else {
                self.spawn(&mut queue);
            }
        }
        pending
    }

    fn spawn(&self, queue: &mut MutexGuard<'_, Queue>) {
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new().name("farcall-outbox".into()).spawn(move || {
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
                queue.bytes = 0;
                let error = self.shared.place.unavailable(format!("cannot start a thread: {error}"));
                std::mem::take(&mut queue.jobs).into_iter().for_each(|job| job.answer(Err(error.clone())));
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

    pub(super) fn is_open(&self) -> bool {
        self.shared.open.load(Ordering::Acquire)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut open = None;
        let mut in_log = 0;
        loop {
            let jobs = self.next(&mut open);
            if jobs.is_empty() {
                return;
            }
            let result = self.write(&mut open, jobs, &mut in_log);
            if let Err(error @ OutboxError::Stopped(_)) = result {
                self.stop(error);
            }
        }
    }

    /// The jobs of the next transaction; none where the thread is to end, and then the file is closed.
    fn next(&self, open: &mut Option<Open>) -> Vec<Box<dyn Job>> {
        let mut queue = self.lock();
        loop {
            if !queue.jobs.is_empty() {
                let many = queue.jobs.len().min(MAX_JOBS);
                let rest = queue.jobs.split_off(many);
                let jobs = std::mem::replace(&mut queue.jobs, rest);
                queue.bytes -= jobs.iter().map(|job| job.bytes()).sum::<usize>();
                return jobs;
            }
            let (again, timeout) = self
                .changed
                .wait_timeout_while(queue, IDLE, |queue| queue.jobs.is_empty() && !queue.ending)
                .unwrap_or_else(PoisonError::into_inner);
            queue = again;
            if queue.jobs.is_empty() && (queue.ending || timeout.timed_out()) {
                if open.is_some() {
                    drop(queue);
                    *open = None;
                    self.open.store(false, Ordering::Release);
                    queue = self.lock();
                    continue;
                }
                queue.running = false;
                return Vec::new();
            }
        }
    }

    fn write(
        &self,
        open: &mut Option<Open>,
        mut jobs: Vec<Box<dyn Job>>,
        in_log: &mut usize,
    ) -> Result<(), OutboxError> {
        let bytes: usize = jobs.iter().map(|job| job.bytes() + ROW).sum();
        let result = self.commit(open, &mut jobs, in_log);
        if result.is_err() {
            // Whatever it was, the next transaction starts from what is on the disk.
            *open = None;
            self.open.store(false, Ordering::Release);
        }
        jobs.into_iter().for_each(|job| job.answer(result.clone()));
        result?;
        self.committed.notify_one();
        *in_log += bytes;
        match open {
            Some(open) if *in_log > CHECKPOINT => {
                *in_log = 0;
                self.checkpoint(open)
            }
            _ => Ok(()),
        }
    }

    fn commit(
        &self,
        open: &mut Option<Open>,
        jobs: &mut [Box<dyn Job>],
        in_log: &mut usize,
    ) -> Result<(), OutboxError> {
        if open.as_ref().is_some_and(|open| !self.place.is_same(open)) {
            *open = None;
        }
        if open.is_none() {
            self.open.store(true, Ordering::Release);
            *open = Some(self.place.open()?);
            // What earlier threads and processes left there counts: one that writes seldom never fills it itself.
            *in_log = self.place.log_length();
        }
        let Some(opened) = open.as_mut() else { return Err(OutboxError::Busy) };
        let wrong = |error: rusqlite::Error| self.place.failure(&error);
        let transaction =
            opened.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
        for job in jobs {
            job.run(&transaction).map_err(wrong)?;
        }
        transaction.commit().map_err(wrong)?;
        if !self.place.is_same(opened) {
            return Err(self
                .place
                .unavailable("the file was removed or replaced while it was being written"));
        }
        Ok(())
    }

    /// Moves the log into the file as far as readers allow; the log starts over when all of it was moved.
    fn checkpoint(&self, open: &Open) -> Result<(), OutboxError> {
        let moved = open.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        match moved.map_err(|error| self.place.failure(&error)) {
            Err(error @ OutboxError::Stopped(_)) => Err(error),
            _ => Ok(()),
        }
    }

    /// An error of ours. What was acknowledged is on the disk; what was not gets its answer.
    fn broke(&self) {
        self.open.store(false, Ordering::Release);
        let mut queue = self.lock();
        queue.running = false;
        queue.bytes = 0;
        let jobs = std::mem::take(&mut queue.jobs);
        drop(queue);
        say::say("an error of farcall's own in the outbox was caught (please report it)");
        let error = self.place.unavailable("an error of farcall's own");
        jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
    }

    /// After a failed sync nobody can tell what is on the disk (the system may drop what it could not write and
    /// report the error once), so nothing is written any more, by no process.
    fn stop(&self, error: OutboxError) {
        if let OutboxError::Stopped(why) = &error {
            self.place.stop(why);
        }
        let mut queue = self.lock();
        if queue.stopped.is_none() {
            say::say(&error.to_string());
        }
        queue.stopped = Some(error.clone());
        queue.bytes = 0;
        let jobs = std::mem::take(&mut queue.jobs);
        drop(queue);
        jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stays_short_although_the_thread_ends_after_each_write() {
        let home = tempfile::tempdir().unwrap();
        let writer = Writer::new(Place::new(home.path()), Arc::default());
        const SIZE: usize = 512 * 1024;
        for _ in 0..8 * CHECKPOINT / SIZE {
            let write = |db: &Transaction<'_>| {
                let sql = "INSERT INTO lease VALUES ('q', 1, ?1, '', 0) ON CONFLICT (queue) DO UPDATE SET holder = ?1";
                db.execute(sql, ["x".repeat(SIZE)])
            };
            writer.submit(SIZE, write).wait().unwrap();
            writer.pause();
        }
        let log = std::fs::metadata(home.path().join("outbox.db-wal")).unwrap().len();
        assert!(log < 2 * CHECKPOINT as u64, "{log} bytes");
    }
}
