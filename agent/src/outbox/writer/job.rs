//! What the writer is asked for: calls to be put, and everything else.

use super::super::clock::Ahead;
use super::super::file::Place;
use super::super::pending::Reply;
use super::super::table::{self, New};
use super::super::{OutboxError, Receipt};
use rusqlite::{ErrorCode, Transaction};
use std::sync::Arc;

pub(super) enum Job {
    Put(Put),
    Task(Box<dyn Task>),
}

/// A call to be added: one statement, which SQLite itself undoes where it fails.
pub(super) struct Put {
    pub(super) new: Arc<New>,
    /// Whether delivery hears of it once it is on the disk.
    pub(super) rings: bool,
    pub(super) done: Option<rusqlite::Result<i64>>,
    pub(super) reply: Reply<Receipt>,
}

/// Any number of statements: all of them take effect, or none.
pub(super) trait Task: Send {
    /// An error where it is one of the whole transaction.
    fn run(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()>;
    fn answer(&mut self, committed: Result<(), OutboxError>, place: &Place);
    fn bytes(&self) -> usize;
}

impl Job {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put(put) => put.new.request.len(),
            Self::Task(task) => task.bytes(),
        }
    }

    pub(super) fn is_put(&self) -> bool {
        matches!(self, Self::Put(_))
    }

    pub(super) fn rings(&self) -> bool {
        match self {
            Self::Put(put) => put.rings,
            Self::Task(_) => true,
        }
    }

    /// `committed` says whether what was done is on the disk.
    pub(super) fn answer(&mut self, committed: Result<(), OutboxError>, place: &Place) {
        match self {
            Self::Put(Put { new, done, reply, .. }) => {
                reply.tell(committed.and_then(|()| {
                    let id = done.take().ok_or(OutboxError::Busy)?.map_err(|error| place.failure(&error))?;
                    // Copied only where somebody else has the call, too.
                    let key = Arc::get_mut(new).map(|new| std::mem::take(&mut new.idempotency_key));
                    Ok(Receipt { id, idempotency_key: key.unwrap_or_else(|| new.idempotency_key.clone()) })
                }));
            }
            Self::Task(task) => task.answer(committed, place),
        }
    }

    /// A call that needs no place in a line, where it is one: a statement can add some of these together.
    fn free(&self) -> Option<&New> {
        match self {
            Self::Put(put) if put.new.order_key.is_none() => Some(&put.new),
            _ => None,
        }
    }

    /// `clock`: that of the file.
    fn run(&mut self, transaction: &Transaction<'_>, clock: Ahead) -> rusqlite::Result<()> {
        match self {
            Self::Put(put) => {
                put.done = Some(alone(table::add(transaction, &put.new, clock), transaction)?);
                Ok(())
            }
            Self::Task(task) => task.run(transaction),
        }
    }
}

/// Does these, in this order. An error where it is one of the whole transaction.
pub(super) fn run(mut jobs: &mut [Job], transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let clock = Ahead::of(transaction)?;
    while !jobs.is_empty() {
        let alike = jobs.iter().take(table::MOST_TOGETHER).take_while(|job| job.free().is_some()).count();
        let (these, rest) = jobs.split_at_mut(table::together(alike));
        // One of them may be at fault: then each is tried by itself.
        if these.len() == 1 || !put_together(these, transaction, clock)? {
            these.iter_mut().try_for_each(|job| job.run(transaction, clock))?;
        }
        jobs = rest;
    }
    Ok(())
}

/// Whether they were added.
fn put_together(jobs: &mut [Job], transaction: &Transaction<'_>, clock: Ahead) -> rusqlite::Result<bool> {
    let calls: Vec<&New> = jobs.iter().filter_map(Job::free).collect();
    let added = table::add_together(transaction, &calls, clock);
    let Ok(first) = alone(added, transaction)? else { return Ok(false) };
    for (job, id) in jobs.iter_mut().zip(first..) {
        if let Job::Put(put) = job {
            put.done = Some(Ok(id));
        }
    }
    Ok(true)
}

/// What was done, or the error of this job alone; an error where it is one of the whole transaction.
fn alone<T>(
    done: rusqlite::Result<T>,
    transaction: &Transaction<'_>,
) -> rusqlite::Result<rusqlite::Result<T>> {
    match done {
        // SQLite may have undone what others asked for, too.
        Err(error) if transaction.is_autocommit() || is_of_the_file(&error) => Err(error),
        done => Ok(done),
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

/// A question and its answer.
pub(super) struct Question<F, T> {
    pub(super) work: Option<F>,
    pub(super) done: Option<rusqlite::Result<T>>,
    pub(super) reply: Reply<T>,
    pub(super) bytes: usize,
}

impl<F, T> Task for Question<F, T>
where
    F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        transaction.execute_batch("SAVEPOINT job")?;
        let done = work(transaction);
        if done.is_err() && !transaction.is_autocommit() {
            transaction.execute_batch("ROLLBACK TO job")?;
        }
        if !transaction.is_autocommit() {
            transaction.execute_batch("RELEASE job")?;
        }
        self.done = Some(alone(done, transaction)?);
        Ok(())
    }

    fn answer(&mut self, committed: Result<(), OutboxError>, place: &Place) {
        let done = self.done.take();
        self.reply.tell(committed.and_then(|()| match done {
            Some(done) => done.map_err(|error| place.failure(&error)),
            None => Err(OutboxError::Busy),
        }));
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}
