//! The one thread of this process that writes, and group commit: what is asked for while a sync is under way goes
//! into the next transaction together, and all of it is answered when that is on the disk.

use super::OutboxError;
use super::clock::Anchor;
use super::file::{Open, Place};
use super::pending::{Pending, Reply, pair};
use crate::say;
use rusqlite::{ErrorCode, Transaction, TransactionBehavior};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
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
    anchor: Anchor,
    /// Rings after each commit.
    committed: Arc<Notify>,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Box<dyn Job>>,
    bytes: usize,
    /// With so many jobs the thread wants to be woken; 0 while it is at work.
    wanted: usize,
    running: bool,
    ending: bool,
    stopped: Option<OutboxError>,
}

trait Job: Send {
    /// An error where it is one of the whole transaction.
    fn run(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, committed: Result<(), OutboxError>, place: &Place);
    fn bytes(&self) -> usize;
    fn nature(&self) -> Nature;
}

/// What kind of work it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// Any number of statements: all of them take effect, or none.
    Whole,
    /// One statement, which SQLite itself undoes where it fails. Deliveries hear of it once it is on the disk.
    Put,
    /// The same, for nobody to hear of yet.
    QuietPut,
}

struct Task<F, T> {
    work: Option<F>,
    done: Option<rusqlite::Result<T>>,
    reply: Reply<T>,
    bytes: usize,
    nature: Nature,
}

impl<F, T> Job for Task<F, T>
where
    F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let done = match self.nature {
            Nature::Whole => {
                transaction.execute_batch("SAVEPOINT job")?;
                let done = work(transaction);
                if done.is_err() && !transaction.is_autocommit() {
                    transaction.execute_batch("ROLLBACK TO job")?;
                }
                if !transaction.is_autocommit() {
                    transaction.execute_batch("RELEASE job")?;
                }
                done
            }
            Nature::Put | Nature::QuietPut => work(transaction),
        };
        match done {
            // SQLite may have undone what others asked for, too.
            Err(error) if transaction.is_autocommit() || is_of_the_file(&error) => Err(error),
            done => {
                self.done = Some(done);
                Ok(())
            }
        }
    }

    fn answer(mut self: Box<Self>, committed: Result<(), OutboxError>, place: &Place) {
        let done = self.done.take();
        self.reply.answer(committed.and_then(|()| match done {
            Some(done) => done.map_err(|error| place.failure(&error)),
            None => Err(OutboxError::Busy),
        }));
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn nature(&self) -> Nature {
        self.nature
    }
}

/// Whether an error says something about the file, and not about what was to be written.
fn is_of_the_file(error: &rusqlite::Error) -> bool {
    use ErrorCode::*;
    matches!(
        error.sqlite_error_code(),
        Some(
            SystemIoFailure
                | DatabaseCorrupt
                | NotADatabase
                | DiskFull
                | OutOfMemory
                | DatabaseBusy
                | DatabaseLocked
                | ReadOnly
                | CannotOpen
                | FileLockingProtocolFailed
                | OperationInterrupted
                | OperationAborted
        )
    )
}

/// How many puts to wait for. Producers that were answered together come back together, and each group costs a
/// sync: it is worth a part of one to have all of them in the next.
#[derive(Debug, Default)]
struct Pace {
    /// How many producers there are, as far as the last group tells.
    producers: usize,
    /// How long a transaction takes.
    took: Duration,
    /// For so many groups nobody is waited for, since the last time it was in vain.
    rest: u32,
    in_vain: u32,
}

impl Pace {
    /// The longest that anybody is waited for.
    const MOST: Duration = Duration::from_micros(500);

    /// For how many to wait, and for how long.
    fn wait(&mut self) -> Option<(usize, Duration)> {
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        (self.producers > 1).then(|| (self.producers, (self.took / 2).min(Self::MOST)))
    }

    fn waited(&mut self, came: usize) {
        if came >= self.producers - self.producers / 4 {
            self.in_vain = 0;
        } else {
            self.in_vain = (self.in_vain + 1).min(6);
            self.rest = (1 << self.in_vain) - 1;
        }
    }

    fn wrote(&mut self, producers: usize, took: Duration) {
        self.producers = producers;
        self.took = if self.took.is_zero() { took } else { (self.took * 7 + took) / 8 };
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
            anchor: Anchor::default(),
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
        self.enqueue(bytes, Nature::Whole, work)
    }

    /// The same, for work of some nature.
    pub(super) fn enqueue<T: Send + 'static>(
        &self,
        bytes: usize,
        nature: Nature,
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
            queue.jobs.push(Box::new(Task { work: Some(work), done: None, reply, bytes, nature }));
            if queue.running {
                let wanted = queue.wanted > 0 && queue.jobs.len() >= queue.wanted;
                drop(queue);
                if wanted {
                    self.shared.changed.notify_all();
                }
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
                let place = &self.shared.place;
                std::mem::take(&mut queue.jobs)
                    .into_iter()
                    .for_each(|job| job.answer(Err(error.clone()), place));
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let (mut open, mut in_log, mut pace) = (None, 0, Pace::default());
        while self.wait(&mut open, &mut pace) {
            if let Err(error @ OutboxError::Stopped(_)) = self.write(&mut open, &mut in_log, &mut pace) {
                self.stop(error);
            }
        }
    }

    /// Waits for work. Whether there is any; else the thread is to end, and then the file is closed.
    fn wait(&self, open: &mut Option<Open>, pace: &mut Pace) -> bool {
        let mut queue = self.lock();
        loop {
            if !queue.jobs.is_empty() {
                if let Some((wanted, patience)) = pace.wait().filter(|(wanted, _)| queue.jobs.len() < *wanted)
                {
                    let few = |queue: &mut Queue| queue.jobs.len() < wanted && !queue.ending;
                    queue = self.sleep(queue, wanted, patience, few).0;
                    pace.waited(queue.jobs.len());
                }
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

    /// What waits, as much of it as goes into a transaction that has `room` for so many.
    fn take(&self, room: usize) -> Vec<Box<dyn Job>> {
        let mut queue = self.lock();
        let many = queue.jobs.len().min(room);
        let rest = queue.jobs.split_off(many);
        let jobs = std::mem::replace(&mut queue.jobs, rest);
        queue.bytes -= jobs.iter().map(|job| job.bytes()).sum::<usize>();
        jobs
    }

    fn write(&self, open: &mut Option<Open>, in_log: &mut usize, pace: &mut Pace) -> Result<(), OutboxError> {
        let mut jobs = Vec::new();
        let begun = Instant::now();
        let result = self.commit(open, &mut jobs, in_log);
        if result.is_err() {
            // Whatever it was, the next transaction starts from what is on the disk.
            *open = None;
            self.open.store(false, Ordering::Release);
        }
        let puts = jobs.iter().filter(|job| job.nature() != Nature::Whole).count();
        let rings = jobs.iter().any(|job| job.nature() != Nature::QuietPut);
        pace.wrote(puts + self.lock().jobs.len(), begun.elapsed());
        *in_log += jobs.iter().map(|job| job.bytes() + ROW).sum::<usize>();
        jobs.into_iter().for_each(|job| job.answer(result.clone(), &self.place));
        result?;
        if rings {
            self.committed.notify_one();
        }
        match open {
            Some(open) if *in_log > CHECKPOINT => {
                *in_log = 0;
                self.checkpoint(open)
            }
            _ => Ok(()),
        }
    }

    /// Does in one transaction what waits, and what comes while that is done.
    fn commit(
        &self,
        open: &mut Option<Open>,
        jobs: &mut Vec<Box<dyn Job>>,
        in_log: &mut usize,
    ) -> Result<(), OutboxError> {
        jobs.extend(self.take(MAX_JOBS));
        if open.as_ref().is_some_and(|open| !self.place.is_same(open)) {
            *open = None;
        }
        let new = open.is_none();
        if new {
            self.open.store(true, Ordering::Release);
            *open = Some(self.place.open()?);
            // What earlier threads and processes left there counts: one that writes seldom never fills it itself.
            *in_log = self.place.log_length();
        }
        let Some(opened) = open.as_mut() else { return Err(OutboxError::Busy) };
        let wrong = |error: rusqlite::Error| self.place.failure(&error);
        let transaction =
            opened.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
        if new || self.anchor.is_off() {
            self.anchor.follow(&transaction).map_err(wrong)?;
        }
        let mut done = 0;
        while done < jobs.len() {
            for job in &mut jobs[done..] {
                job.run(&transaction).map_err(wrong)?;
            }
            done = jobs.len();
            jobs.extend(self.take(MAX_JOBS - done));
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
        jobs.into_iter().for_each(|job| job.answer(Err(error.clone()), &self.place));
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
        jobs.into_iter().for_each(|job| job.answer(Err(error.clone()), &self.place));
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

    /// Adds a row to the table of leases.
    fn add(queue: Option<String>) -> impl FnOnce(&Transaction<'_>) -> rusqlite::Result<usize> + Send {
        move |db| db.execute("INSERT INTO lease VALUES (?1, 1, '', '', 0)", [queue])
    }

    #[test]
    fn of_those_who_share_a_commit_only_the_one_that_fails_gets_an_error() {
        let home = tempfile::tempdir().unwrap();
        let writer = Writer::new(Place::new(home.path()), Arc::default());
        let (started, starts) = std::sync::mpsc::channel();
        let (go, goes) = std::sync::mpsc::channel::<()>();
        let first = writer.submit(0, move |db| {
            started.send(()).unwrap();
            goes.recv().unwrap();
            add(Some("first".into()))(db)
        });
        starts.recv().unwrap();
        // From here on all wait for the first one, and share its transaction.
        let pending: Vec<_> = (0..40)
            .map(|number| match number % 4 {
                0 => writer.enqueue(0, Nature::Put, add(None)),
                1 => writer.submit(0, move |db| {
                    add(Some(format!("half {number}")))(db)?;
                    add(Some("first".into()))(db)
                }),
                2 => writer.enqueue(0, Nature::QuietPut, add(Some(number.to_string()))),
                _ => writer.submit(0, move |db| add(Some(number.to_string()))(db)),
            })
            .collect();
        go.send(()).unwrap();
        assert_eq!(first.wait(), Ok(1));
        for (number, pending) in pending.into_iter().enumerate() {
            match number % 4 {
                0 | 1 => assert!(matches!(pending.wait(), Err(OutboxError::Unavailable { .. })), "{number}"),
                _ => assert_eq!(pending.wait(), Ok(1), "{number}"),
            }
        }
        let there = writer.submit(0, |db| {
            db.query_row("SELECT count(*), sum(queue LIKE 'half%') FROM lease", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
        });
        assert_eq!(there.wait(), Ok((21, 0)), "nothing is left of what was half done");
    }

    #[test]
    fn nobody_is_waited_for_where_one_producer_puts_and_seldom_where_it_was_in_vain() {
        let mut pace = Pace::default();
        pace.wrote(1, Duration::from_millis(1));
        assert_eq!(pace.wait(), None);
        pace.wrote(16, Duration::from_millis(1));
        let (wanted, patience) = pace.wait().unwrap();
        assert_eq!((wanted, patience), (16, Pace::MOST));
        pace.waited(16);
        assert!(pace.wait().is_some());
        let mut waits = 0;
        for _ in 0..1_000 {
            if pace.wait().is_some() {
                pace.waited(1);
                waits += 1;
            }
        }
        assert!(waits < 30, "{waits}");
    }
}
