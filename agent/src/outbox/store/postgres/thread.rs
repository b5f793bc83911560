//! The one thread of this process that talks to the server, over one connection. What is put or settled while a
//! commit is under way goes into the next transaction together, and is answered when that is on the server's disk.

use super::super::super::OutboxError;
use super::super::super::Receipt;
use super::super::super::pending::{Pending, pair};
use super::super::super::table::{Item, New, Settlement};
use super::clock::ServerClock;
use super::job::{Asked, Job, Put, Settled};
use super::schema::Tables;
use super::{calls, copy, schema};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::timeout;

/// What waits for the server, at most, in bytes.
const MAX_WAITING: usize = 64 * 1024 * 1024;
/// One transaction, at most: its keys' locks have to fit into the server's table of them.
const MAX_JOBS: usize = 256;
/// A server that cannot be reached is not tried again so soon: who asks meanwhile hears of it at once.
const AGAIN: Duration = Duration::from_secs(1);

/// Where the server is.
pub(super) struct Server {
    pub(super) options: PgConnectOptions,
    /// Without the password.
    pub(super) name: String,
    /// How long it may take.
    pub(super) timeout: Duration,
    /// What is kept there.
    pub(super) tables: Tables,
}

/// Asks in the order of the questions.
pub(super) struct Thread {
    shared: Arc<Shared>,
    join: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    server: Server,
    /// By which moments are in a copy.
    clock: Arc<ServerClock>,
    queue: Mutex<Queue>,
    changed: Notify,
    /// Rings when the thread has ended that was told to.
    ended: Condvar,
    /// Rings after each commit that added or settled something.
    committed: Arc<Notify>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    running: bool,
    ending: bool,
}

impl Thread {
    pub(super) fn new(server: Server, committed: Arc<Notify>) -> Self {
        let shared = Shared {
            server,
            clock: Arc::default(),
            queue: Mutex::default(),
            changed: Notify::new(),
            ended: Condvar::new(),
            committed,
        };
        Self { shared: Arc::new(shared), join: Mutex::new(None) }
    }

    pub(super) fn name(&self) -> &str {
        &self.shared.server.name
    }

    pub(super) fn server(&self) -> &Server {
        &self.shared.server
    }

    pub(super) fn clock(&self) -> Arc<ServerClock> {
        Arc::clone(&self.shared.clock)
    }

    /// `owner` says whose it is, in a copy.
    pub(super) fn put(&self, new: Arc<New>, owner: Option<Arc<str>>) -> Pending<Receipt> {
        let (reply, pending) = pair();
        self.submit(Job::Put(Put { new, id: None, owner, reply }));
        pending
    }

    pub(super) fn settle(&self, token: i64, item: &Item, settlement: Arc<Settlement>) -> Pending<bool> {
        let (reply, pending) = pair();
        let item = item.clone();
        self.submit(Job::Settled(Box::new(Settled { token, item, settlement, done: false, reply })));
        pending
    }

    /// Does `work` in a transaction, perhaps twice where the connection was lost meanwhile.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        work: impl AsyncFn(&mut PgConnection) -> sqlx::Result<T> + Send + 'static,
    ) -> Pending<T> {
        let (reply, pending) = pair();
        self.submit(Job::Question(Box::new(Asked { work, done: None, reply })));
        pending
    }

    fn submit(&self, job: Job) {
        let bytes = job.bytes();
        // Where a fork is near: what is asked from now on is for the next thread.
        let queue = self.shared.ended.wait_while(self.shared.lock(), |queue| queue.ending);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        if queue.bytes + bytes > MAX_WAITING && !queue.jobs.is_empty() {
            drop(queue);
            return job.answer(Err(OutboxError::Busy));
        }
        queue.bytes += bytes;
        queue.jobs.push_back(job);
        if !queue.running
            && let Err(error) = self.spawn(&mut queue)
        {
            let jobs = queue.take();
            drop(queue);
            jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
            return;
        }
        drop(queue);
        self.shared.changed.notify_one();
    }

    fn spawn(&self, queue: &mut MutexGuard<'_, Queue>) -> Result<(), OutboxError> {
        let wrong = |error: std::io::Error| self.shared.wrong(&format!("cannot start a thread: {error}"));
        let shared = Arc::clone(&self.shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(wrong)?;
        let spawned = crate::thread::spawn("farcall-postgres", move || {
            // Where it panics nobody waits for it forever.
            let _ended = Ended(Arc::clone(&shared));
            runtime.block_on(shared.work());
            runtime.shutdown_background();
        });
        let join = spawned.map_err(wrong)?;
        queue.running = true;
        *self.join.lock().unwrap_or_else(PoisonError::into_inner) = Some(join);
        Ok(())
    }

    /// Does what waits, and closes the connection. What is asked meanwhile waits; it opens another.
    pub(super) fn pause(&self) {
        self.shared.lock().ending = true;
        self.shared.changed.notify_one();
        let join = self.join.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(join) = join {
            let _ = join.join();
        }
        self.shared.lock().ending = false;
        self.shared.ended.notify_all();
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.pause();
    }
}

impl std::fmt::Debug for Thread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Thread").field("name", &self.name()).finish_non_exhaustive()
    }
}

struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut queue = self.0.lock();
        queue.running = false;
        let jobs = queue.take();
        drop(queue);
        let error = self.0.wrong("an error of farcall's own");
        jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
    }
}

impl Queue {
    fn take(&mut self) -> VecDeque<Job> {
        self.bytes = 0;
        std::mem::take(&mut self.jobs)
    }

    /// The jobs of the next transaction.
    fn next(&mut self) -> Vec<Job> {
        let alone = |job: &Job| matches!(job, Job::Question(_));
        let together = self.jobs.iter().take(MAX_JOBS).take_while(|job| !alone(job)).count();
        let jobs: Vec<Job> = self.jobs.drain(..together.max(1).min(self.jobs.len())).collect();
        self.bytes -= jobs.iter().map(Job::bytes).sum::<usize>();
        jobs
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self, what: &str) -> OutboxError {
        OutboxError::unavailable(self.server.name.as_ref(), what)
    }

    fn unreachable(&self, what: &str) -> OutboxError {
        self.server.unreachable(what)
    }

    /// When to try again, after a failure that took so long. Calls wait for each copy, also where they can do without
    /// it: one that hangs takes a small part of their time.
    fn again(&self, took: Duration) -> Duration {
        match self.server.tables {
            Tables::Store => AGAIN,
            Tables::Copy => AGAIN.max(took * 5),
        }
    }

    async fn work(&self) {
        let mut connection = None;
        let mut down: Option<(Instant, Duration, OutboxError)> = None;
        loop {
            let jobs = {
                let mut queue = self.lock();
                if queue.jobs.is_empty() && queue.ending {
                    queue.running = false;
                    break;
                }
                queue.next()
            };
            if jobs.is_empty() {
                self.changed.notified().await;
                continue;
            }
            if let Some((since, again, error)) = &down
                && since.elapsed() < *again
            {
                jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
                continue;
            }
            let begun = Instant::now();
            let failed = self.work_on(&mut connection, jobs).await.err();
            down = failed.map(|error| (Instant::now(), self.again(begun.elapsed()), error));
            if let Some((.., error)) = &down {
                // They have waited for the same.
                let others = self.lock().take();
                others.into_iter().for_each(|job| job.answer(Err(error.clone())));
            }
        }
        if let Some(connection) = connection {
            let _ = timeout(Duration::from_millis(200), connection.close()).await;
        }
    }

    /// Does these jobs, and answers them. An error where the server cannot be reached.
    async fn work_on(
        &self,
        connection: &mut Option<PgConnection>,
        mut jobs: Vec<Job>,
    ) -> Result<(), OutboxError> {
        let done = timeout(self.server.timeout, self.attempt(connection, &mut jobs)).await;
        let done = done.unwrap_or_else(|_| {
            let limit = self.server.timeout.as_secs_f64();
            Err(Failure::Unreachable(self.unreachable(&format!("it did not answer within {limit} s"))))
        });
        match done {
            Ok(()) => {
                let news = jobs.iter().any(|job| !matches!(job, Job::Question(_)));
                jobs.into_iter().for_each(|job| job.answer(Ok(())));
                if news {
                    self.committed.notify_one();
                }
                Ok(())
            }
            Err(Failure::Refused(error)) if jobs.len() == 1 => {
                jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
                Ok(())
            }
            // It was one of them.
            Err(Failure::Refused(_)) => {
                for job in jobs {
                    Box::pin(self.work_on(connection, vec![job])).await?;
                }
                Ok(())
            }
            Err(Failure::Unreachable(error)) => {
                *connection = None;
                jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
                Err(error)
            }
        }
    }

    /// Does them in one transaction; once more where the connection turned out to be lost, since nothing that is
    /// asked here does harm when it was done already.
    async fn attempt(&self, connection: &mut Option<PgConnection>, jobs: &mut [Job]) -> Result<(), Failure> {
        let mut lost = None;
        for _ in 0..2 {
            if connection.is_none() {
                *connection = Some(self.server.connect().await.map_err(Failure::Unreachable)?);
            }
            let Some(db) = connection.as_mut() else { continue };
            match self.transact(db, jobs).await {
                Ok(()) => return Ok(()),
                Err(sqlx::Error::Database(error)) if !is_ending(error.code().as_deref()) => {
                    if sqlx::raw_sql("ROLLBACK").execute(&mut *db).await.is_err() {
                        *connection = None;
                    }
                    let its_own = matches!(jobs, [Job::Put(_)]) && is_of_the_call(error.code().as_deref());
                    return Err(Failure::Refused(match its_own {
                        true => OutboxError::Invalid(format!("PostgreSQL refuses it: {}", error.message())),
                        false => self.wrong(error.message()),
                    }));
                }
                Err(error) => {
                    *connection = None;
                    lost = Some(error);
                }
            }
        }
        let why = lost.map_or_else(|| "the connection was lost".to_owned(), |error| error.to_string());
        Err(Failure::Unreachable(self.unreachable(&why)))
    }

    async fn transact(&self, db: &mut PgConnection, jobs: &mut [Job]) -> sqlx::Result<()> {
        sqlx::raw_sql(schema::BEGIN).execute(&mut *db).await?;
        if let [Job::Question(question)] = jobs {
            question.ask(db).await?;
        } else {
            let (mut puts, mut settled) = (Vec::new(), Vec::new());
            for job in jobs {
                match job {
                    Job::Put(put) => puts.push(put),
                    Job::Settled(one) => settled.push(one),
                    Job::Question(_) => {}
                }
            }
            if self.server.tables == Tables::Copy {
                copy::add(db, &self.clock, &mut puts).await?;
                return sqlx::raw_sql("COMMIT").execute(db).await.map(|_| ());
            }
            let news = puts.iter().map(|put| calls::line(&put.new.queue, put.new.order_key.as_deref()));
            let old = settled.iter().map(|one| calls::line(&one.item.queue(), one.item.order_key.as_deref()));
            calls::lock(db, news.chain(old).flatten()).await?;
            calls::add(db, &mut puts).await?;
            for one in settled {
                one.done = calls::settle(db, one.token, &one.item, &one.settlement).await?;
            }
        }
        sqlx::raw_sql("COMMIT").execute(db).await.map(|_| ())
    }
}

impl Server {
    /// A connection on which all that is asked for holds.
    pub(super) async fn connect(&self) -> Result<PgConnection, OutboxError> {
        let unreachable = |error: sqlx::Error| self.unreachable(&explain(&error));
        let mut db = self.options.connect().await.map_err(unreachable)?;
        let prepared = schema::prepare(&mut db, &self.name, self.timeout, self.tables).await;
        prepared.map_err(unreachable)??;
        Ok(db)
    }

    pub(super) fn unreachable(&self, what: &str) -> OutboxError {
        OutboxError::Unreachable { place: self.name.clone(), what: what.into() }
    }
}

enum Failure {
    /// The server said no; the connection is as good as before.
    Refused(OutboxError),
    /// It cannot be used now.
    Unreachable(OutboxError),
}

/// Whether the server ends, or ended this session (class 57P: shutdown, crash, starting up; 25P: it sat idle in a
/// transaction).
fn is_ending(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.starts_with("57P") || code.starts_with("25P") || code.starts_with("08"))
}

/// Whether the server will never take this call (data exception, constraint, limit), and not just none now.
fn is_of_the_call(code: Option<&str>) -> bool {
    code.is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
}

/// In words, with what lies beneath.
pub(super) fn explain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        other => other.to_string(),
    }
}
