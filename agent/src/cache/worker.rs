//! The threads that read and write what lies further away than memory: no call waits for a disk or the network but for
//! an answer that may be there.

use super::Memory;
use super::changes::Changes;
use super::leases::Leases;
use super::seal::Seal;
use farcall::Timestamp;
use farcall::cache::{Answer, Fetch, Kept, Key, Landing, Store};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes that wait to be written at most; what comes beyond is not.
const MOST_BYTES: usize = 32 << 20;
/// Jobs that wait at most.
const MOST_JOBS: usize = 65_536;
/// How often there is something to do beside.
const TICK: Duration = Duration::from_secs(1);
/// A purge is minded for so long, for what was under way when it came, or could not be removed: longer lies nothing.
const MINDED: Duration = Duration::from_secs(7 * 86_400);
const MOST_PURGES: usize = 1_024;
/// Of those that a tier could not do, so many are tried again.
const MOST_UNDONE: usize = 64;
/// Nobody's clock is ahead by so much: what came then was made under one that was.
const AHEAD: Duration = Duration::from_secs(60);

/// Where sealed answers lie.
pub(super) trait Tier: fmt::Debug + Send {
    /// What lies under a key.
    fn read(&mut self, key: Key) -> io::Result<Option<Vec<u8>>>;

    /// Puts it there, where it is of use for so long.
    fn write(&mut self, key: Key, sealed: &[u8], useful_for: Duration) -> io::Result<()>;

    /// Forgets it.
    fn remove(&mut self, key: Key) -> io::Result<()>;

    /// Shows all there is, and removes what is wanted; how many those were.
    fn walk(&mut self, wants: &mut dyn FnMut(Key, Vec<u8>) -> bool) -> io::Result<u64>;

    /// Tells other hosts what was changed here, and learns what was changed there; as of `now`. Called about once a
    /// second, and when there is something to tell.
    fn exchange(&mut self, _changes: &Changes, _now: Timestamp) -> io::Result<()> {
        Ok(())
    }

    /// Called about once a second.
    fn tick(&mut self) {}
}

pub(super) type Which = Arc<dyn Fn(&Answer) -> bool + Send + Sync>;

/// What a thread is to do, in this order.
pub(super) enum Job {
    Fetch(Key, Fetch),
    /// What is of use for so long.
    Put(Key, Kept, Duration),
    Remove(Key),
    /// The call that asked for it is over: others may go on.
    Land(Key, Landing, Timestamp),
    /// Something was changed of which other hosts do not know.
    Changed,
    Purge(Which, Timestamp),
}

/// What all threads of a cache share.
pub(super) struct Common {
    pub(super) memory: Memory,
    pub(super) seal: Seal,
    pub(super) clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    purges: Mutex<Vec<(Which, Timestamp)>>,
    /// Where other hosts share what is kept.
    pub(super) changes: Option<Changes>,
    pub(super) counts: Counts,
}

/// What could not be done as asked.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Answers that were not written where others would find them.
    pub(super) unwritten: AtomicU64,
    /// Records that are not whole, or nobody's who has the key.
    pub(super) unreadable: AtomicU64,
    /// Reads that failed.
    pub(super) failed: AtomicU64,
    /// How often other hosts could not be told, or asked, what was changed.
    pub(super) untold: AtomicU64,
}

impl Common {
    pub(super) fn new(memory: Memory, seal: Seal, clock: Box<dyn Fn() -> Timestamp + Send + Sync>) -> Self {
        let (purges, counts) = (Mutex::default(), Counts::default());
        Self { memory, seal, clock, purges, changes: None, counts }
    }

    /// Takes what was found for an answer, where it is one; whether it is at hand now.
    fn take_in(&self, key: Key, sealed: Vec<u8>) -> bool {
        let now = (self.clock)();
        let Some(kept) = self.seal.open(key, sealed) else {
            self.counts.unreadable.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        if let Kept::Answer(answer) = &kept {
            let purged = |(which, at): &(Which, Timestamp)| answer.requested_at() <= *at && which(answer);
            if answer.received_at() > now.plus(AHEAD) || lock(&self.purges).iter().any(purged) {
                return false;
            }
            if let Some(Kept::Answer(ours)) = self.memory.get(key)
                && ours.received_at() >= answer.received_at()
            {
                return true;
            }
        }
        self.memory.put(key, kept);
        true
    }

    pub(super) fn purge(&self, which: Which, now: Timestamp) {
        let mut purges = lock(&self.purges);
        purges.retain(|(_, at)| now.since(*at) < MINDED);
        if purges.len() >= MOST_PURGES {
            purges.remove(0);
        }
        purges.push((which, now));
    }

    fn is_wanted(&self, which: &Which, at: Timestamp, key: Key, sealed: Vec<u8>) -> bool {
        match self.seal.open(key, sealed) {
            Some(Kept::Answer(answer)) => answer.requested_at() <= at && which(&answer),
            _ => false,
        }
    }
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common")
            .field("memory", &self.memory)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

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

#[derive(Default)]
struct Queue {
    running: bool,
    jobs: VecDeque<Job>,
    bytes: usize,
    /// Nobody is asked until then.
    rests_until: Option<Instant>,
    rest: Duration,
    /// What is not written until then, is not.
    ends_at: Option<Instant>,
    /// The thread that is to go on; one that is older, and hung when it was to stop, ends.
    number: u64,
    /// Whether that thread has ended.
    ended: bool,
    /// Purges that failed, which are tried again.
    undone: Vec<(Which, Timestamp)>,
    /// Since when it does what it does.
    busy_since: Option<Instant>,
}

/// A tier that is at one thing for longer than this gets nothing more to do: a disk that hangs must not delay one call
/// after the other.
const HANGS: Duration = Duration::from_secs(1);

/// After a failure a tier is left alone for so long, doubling up to the second number.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl Queue {
    fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether what is still to be written or read is let go of: the tier failed just now, or the time is over.
    fn is_given_up(&self) -> bool {
        self.rests() || !self.running && self.ends_at.is_some_and(|at| Instant::now() >= at)
    }
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
        let join = std::thread::Builder::new().name(self.name.into()).spawn(move || worker.run(number));
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

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Hangs until it is let go.
    #[derive(Debug)]
    struct Stuck(Sender<()>, Receiver<()>);

    impl Tier for Stuck {
        fn read(&mut self, _: Key) -> io::Result<Option<Vec<u8>>> {
            let _ = (self.0.send(()), self.1.recv());
            Ok(None)
        }

        fn write(&mut self, _: Key, _: &[u8], _: Duration) -> io::Result<()> {
            let _ = (self.0.send(()), self.1.recv());
            Err(io::ErrorKind::TimedOut.into())
        }

        fn remove(&mut self, _: Key) -> io::Result<()> {
            Ok(())
        }

        fn walk(&mut self, _: &mut dyn FnMut(Key, Vec<u8>) -> bool) -> io::Result<u64> {
            Ok(0)
        }
    }

    #[test]
    fn no_end_of_a_call_waits_behind_a_tier_that_hangs() {
        let home = tempfile::tempdir().unwrap();
        let common =
            Common::new(Memory::new(1 << 20), Seal::of(home.path()).unwrap(), Box::new(|| Timestamp::EPOCH));
        let ((told, reads), (go, goes)) = (channel(), channel());
        let worker = Worker::new("stuck", Arc::new(common), None, Box::new(Stuck(told, goes)), None, HANGS);
        let worker = Arc::new(worker);
        worker.start().unwrap();
        let land = || worker.give(Job::Land(Key::of(1), Landing::Over, Timestamp::EPOCH));
        assert!(land(), "in its turn");
        assert!(worker.give(Job::Fetch(Key::of(1), Fetch::new(Timestamp::EPOCH))));
        reads.recv().unwrap();
        let begun = Instant::now();
        while land() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it waits behind what hangs");
            std::thread::sleep(Duration::from_millis(20));
        }
        go.send(()).unwrap();
        worker.stop(Instant::now() + Duration::from_secs(60));
    }

    #[test]
    fn nobody_who_ends_or_forks_waits_for_a_tier_that_hangs_nor_for_each_answer_of_one_that_fails() {
        let home = tempfile::tempdir().unwrap();
        let common =
            Common::new(Memory::new(1 << 20), Seal::of(home.path()).unwrap(), Box::new(|| Timestamp::EPOCH));
        let ((told, writes), (go, goes)) = (channel(), channel());
        let worker = Worker::new("stuck", Arc::new(common), None, Box::new(Stuck(told, goes)), None, MINDED);
        let worker = Arc::new(worker);
        worker.start().unwrap();
        let kept = || Kept::Varies(["accept".into()].into());
        for number in 0..1_000 {
            worker.give(Job::Put(Key::of(number), kept(), TICK));
        }
        writes.recv().unwrap();
        let (done, is_done) = channel();
        let stops = Arc::clone(&worker);
        std::thread::spawn(move || {
            stops.stop(Instant::now() + Duration::from_millis(10));
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(60)).expect("it waits for what never answers");
        // It goes on, as after a fork; what hung ends when it comes back, and all else is let go of.
        worker.start().unwrap();
        drop(go);
        worker.stop(Instant::now() + Duration::from_secs(60));
        let more = writes.try_iter().count();
        assert!(more < 500, "{more} of 1,000 were tried at a tier that fails");
        assert!(worker.common.counts.unwritten.load(Ordering::Relaxed) > 500);
    }

    /// Fails to forget until it is whole again.
    #[derive(Debug)]
    struct Broken(Arc<AtomicU64>, Sender<()>);

    impl Tier for Broken {
        fn read(&mut self, _: Key) -> io::Result<Option<Vec<u8>>> {
            Ok(None)
        }

        fn write(&mut self, _: Key, _: &[u8], _: Duration) -> io::Result<()> {
            Ok(())
        }

        fn remove(&mut self, _: Key) -> io::Result<()> {
            Ok(())
        }

        fn walk(&mut self, _: &mut dyn FnMut(Key, Vec<u8>) -> bool) -> io::Result<u64> {
            if self.0.load(Ordering::Relaxed) > 0 {
                self.0.fetch_sub(1, Ordering::Relaxed);
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            self.1.send(()).map_err(io::Error::other)?;
            Ok(0)
        }
    }

    #[test]
    fn a_tier_that_could_not_forget_is_told_until_it_has() {
        let home = tempfile::tempdir().unwrap();
        let common =
            Common::new(Memory::new(1 << 20), Seal::of(home.path()).unwrap(), Box::new(|| Timestamp::EPOCH));
        let (told, purged) = channel();
        let broken = Broken(Arc::new(AtomicU64::new(2)), told);
        let worker = Arc::new(Worker::new("broken", Arc::new(common), None, Box::new(broken), None, HANGS));
        worker.start().unwrap();
        for _ in 0..3 {
            assert!(worker.give(Job::Purge(Arc::new(|_| true), Timestamp::EPOCH)));
        }
        for number in 0..3 {
            let gone = purged.recv_timeout(Duration::from_secs(120));
            assert!(gone.is_ok(), "purge {number} was forgotten instead");
        }
        worker.stop(Instant::now() + Duration::from_secs(60));
        assert_eq!(purged.try_iter().count(), 0, "and told once");
    }
}
