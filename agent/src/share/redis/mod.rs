//! Quotas that a fleet shares through Redis or Valkey.
//!
//! No call waits for the network. A thread beside the calls fetches grants ahead of them, a few times a second and
//! as many units as will be used until the next time; calls use what is there. When the store is slow, dead or
//! wiped, the grants run out within a fraction of a second, each host goes on with its share of the limit, and the
//! first answer of the store puts things right again.

mod store;

use super::memory::SharedCell;
use crate::say;
use farcall::Timestamp;
use farcall::config::ShareConfig;
use farcall::quota::{Cell, CellHome, Lease, Limit, Rule, Shared};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use store::{Question, Store};

/// How often a host says that it is there.
const BEAT: Duration = Duration::from_secs(1);
/// After a failure the store is left alone for so long, doubling up to the second number.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// So long a process keeps asking for its host without an answer; more than the longest pause.
const LEADS_IN_VAIN: Duration = Duration::from_secs(3);
/// Quotas that one process fetches grants for.
const MAX_QUOTAS: usize = 4_096;

/// The fleet, as one process sees it.
#[derive(Debug)]
pub(crate) struct Fleet {
    share: ShareConfig,
    /// Stands for this host among others.
    host: u64,
    /// Stands for this process among those of its host; 24 bits.
    process: u32,
    state: Arc<(Mutex<State>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
    tallies: Arc<Tallies>,
}

#[derive(Debug, Default)]
struct Tallies {
    failures: AtomicU64,
    unleased: AtomicU64,
}

#[derive(Debug)]
struct State {
    running: bool,
    /// How many hosts there are, as far as known.
    hosts: u32,
    quotas: HashMap<u64, Leased>,
}

#[derive(Debug)]
struct Leased {
    limit: Limit,
    cell: FleetCell,
    lease: Lease,
    rate: Rate,
    due: Instant,
    /// Since a reload it is no quota of the fleet's: nothing is fetched, which other hosts would have to do without.
    rests: bool,
}

/// How a quota refills, as the store has to know it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rate {
    /// Units per second.
    per_second: f64,
    /// Units that may gather while nobody asks.
    most: f64,
    /// Units that are there at first.
    first: f64,
}

impl Leased {
    fn new(cell: FleetCell, limit: Limit, rule: &Rule, hosts: u32) -> Self {
        let mut lease = Lease::new(limit);
        lease.expects(cell.cell(), hosts);
        Self { limit, cell, lease, rate: Rate::of(limit, rule), due: Instant::now(), rests: false }
    }
}

impl Rate {
    fn of(limit: Limit, rule: &Rule) -> Self {
        let per_second = limit.units as f64 / limit.period.as_secs_f64();
        let first = rule.burst.unwrap_or_else(|| (limit.units / 100).max(1)) as f64;
        // What refills between two questions must not be lost, also where the second is half a question late, nor the
        // part of a unit that cannot be granted yet.
        let most = first.max(1.5 * per_second * Lease::new(limit).interval().as_secs_f64() + 1.0);
        Self { per_second, most, first }
    }
}

/// Where the cell of a fleet's quota lies on this host.
#[derive(Clone)]
pub(crate) enum FleetCell {
    /// In memory that processes share: one of them asks for all.
    Shared(Arc<SharedCell>),
    /// In this process.
    Own(CellHome),
}

impl std::fmt::Debug for FleetCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Shared(_)) { "Shared" } else { "Own" })
    }
}

impl FleetCell {
    fn cell(&self) -> &Cell {
        match self {
            Self::Shared(cell) => (**cell).as_ref(),
            Self::Own(cell) => (**cell).as_ref(),
        }
    }

    fn leads(&self, process: u32, now: Timestamp, lasts: Duration) -> bool {
        match self {
            Self::Shared(cell) => {
                let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
                cell.leads(process, now.as_nanos() / 1_000_000, lasts)
            }
            Self::Own(_) => true,
        }
    }
}

impl Fleet {
    pub(crate) fn new(share: &ShareConfig, host: u64, process: u64) -> Self {
        let state = State { running: false, hosts: share.hosts, quotas: HashMap::new() };
        Self {
            share: share.clone(),
            host,
            process: (process as u32) & 0x00FF_FFFF,
            state: Arc::new((Mutex::new(state), Condvar::new())),
            thread: Mutex::new(None),
            tallies: Arc::default(),
        }
    }

    /// From now on grants are fetched for this quota; until the first, this host has its share of the limit.
    pub(crate) fn register(&self, key: u64, rule: &Rule, cell: &FleetCell) {
        let Some(limit) = rule.limit else { return };
        let mut state = lock(&self.state.0);
        if state.quotas.len() >= MAX_QUOTAS && !state.quotas.contains_key(&key) {
            self.tallies.unleased.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let leased = Leased::new(cell.clone(), limit, rule, state.hosts);
        state.quotas.insert(key, leased);
        drop(state);
        self.state.1.notify_all();
    }

    /// A reload may have given the quota another limit, have taken it from the fleet, or given it back.
    pub(crate) fn keeps(&self, key: u64, rule: &Rule) {
        let mut state = lock(&self.state.0);
        let hosts = state.hosts;
        let Some(leased) = state.quotas.get_mut(&key) else { return };
        let Some(limit) = rule.limit.filter(|_| rule.shared == Shared::Fleet) else {
            leased.rests = true;
            return;
        };
        if leased.rests || leased.limit != limit || leased.rate != Rate::of(limit, rule) {
            *leased = Leased::new(leased.cell.clone(), limit, rule, hosts);
            drop(state);
            self.state.1.notify_all();
        }
    }

    /// Starts the thread, unless it runs. `clock` is the one that calls are told the time by.
    pub(crate) fn start(&self, clock: impl Fn() -> Timestamp + Send + 'static) -> io::Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_some() {
            return Ok(());
        }
        lock(&self.state.0).running = true;
        let worker = Worker {
            store: Store::new(&self.share, self.host),
            process: self.process,
            state: Arc::clone(&self.state),
            tallies: Arc::clone(&self.tallies),
            clock: Box::new(clock),
            dice: (self.host as u32 ^ self.process) | 1,
            beat: Instant::now(),
            failures: 0,
            said: false,
        };
        let join = std::thread::Builder::new().name("farcall-share".into()).spawn(move || worker.run())?;
        *thread = Some(join);
        Ok(())
    }

    /// Stops the thread and waits for it, a question that is under way included.
    pub(crate) fn stop(&self) {
        lock(&self.state.0).running = false;
        self.state.1.notify_all();
        let join = lock(&self.thread).take();
        if let Some(join) = join
            && join.thread().id() != std::thread::current().id()
        {
            let _ = join.join();
        }
    }

    /// Questions that the store did not answer.
    pub(crate) fn failures(&self) -> u64 {
        self.tallies.failures.load(Ordering::Relaxed)
    }

    /// Quotas that are not shared with other hosts, because there are too many.
    pub(crate) fn unleased(&self) -> u64 {
        self.tallies.unleased.load(Ordering::Relaxed)
    }
}

struct Worker {
    store: Store,
    process: u32,
    state: Arc<(Mutex<State>, Condvar)>,
    tallies: Arc<Tallies>,
    clock: Box<dyn Fn() -> Timestamp + Send>,
    /// Never zero.
    dice: u32,
    /// When the host has to say again that it is there.
    beat: Instant,
    /// In a row.
    failures: u32,
    said: bool,
}

impl Worker {
    fn run(mut self) {
        let shared = Arc::clone(&self.state);
        let mut state = lock(&shared.0);
        while state.running {
            let now = Instant::now();
            let next = state
                .quotas
                .values()
                .filter(|leased| !leased.rests)
                .map(|leased| leased.due)
                .min()
                .map_or(self.beat, |due| due.min(self.beat));
            if let Some(wait) = next.checked_duration_since(now).filter(|wait| !wait.is_zero()) {
                state = shared.1.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let questions = self.questions(&mut state, now);
            drop(state);
            // The network is asked without the lock: a call that makes a quota known must not wait for it.
            let answers = self.store.ask(&questions);
            state = lock(&shared.0);
            self.take(&mut state, &questions, answers);
        }
    }

    fn questions(&mut self, state: &mut State, now: Instant) -> Vec<Question> {
        let time = (self.clock)();
        let mut questions = Vec::new();
        for (key, leased) in &mut state.quotas {
            if leased.rests || leased.due > now {
                continue;
            }
            leased.due = now + about(leased.lease.interval(), &mut self.dice);
            // As long as what it asks for holds: when it dies, another asks before calls go by the share. While the
            // store is away, which is asked less often then, no other one has to try as well.
            let lasts = if self.failures == 0 { leased.lease.hold() } else { LEADS_IN_VAIN };
            if leased.cell.leads(self.process, time, lasts) {
                let wanted = leased.lease.wanted(leased.cell.cell(), time);
                questions.push(Question { key: *key, wanted, rate: leased.rate, asked: time });
            } else {
                leased.lease.observe(leased.cell.cell(), time);
            }
        }
        if self.beat <= now {
            self.beat = now + BEAT;
        }
        questions
    }

    fn take(
        &mut self,
        state: &mut State,
        questions: &[Question],
        answers: redis::RedisResult<store::Answers>,
    ) {
        match answers {
            Ok(answers) => {
                self.failures = 0;
                state.hosts = answers.hosts;
                for (question, grant) in questions.iter().zip(answers.grants) {
                    if let Some(Leased { cell, lease, .. }) = state.quotas.get_mut(&question.key) {
                        let until = question.asked.plus(question.wanted.hold);
                        lease.granted(cell.cell(), grant.units, until, grant.hosts, (self.clock)());
                    }
                }
            }
            Err(error) => {
                self.tallies.failures.fetch_add(1, Ordering::Relaxed);
                for question in questions {
                    if let Some(leased) = state.quotas.get_mut(&question.key) {
                        leased.lease.failed();
                    }
                }
                let pause = (BACKOFF.0 * 2_u32.pow(self.failures.min(10))).min(BACKOFF.1);
                self.failures += 1;
                let next = Instant::now() + pause;
                self.beat = self.beat.max(next);
                state.quotas.values_mut().for_each(|leased| leased.due = leased.due.max(next));
                if !std::mem::replace(&mut self.said, true) {
                    // Without the address, which may hold a password.
                    say::say(&format!(
                        "the store of shared quotas does not answer ({}); this host goes on with its share",
                        error.category()
                    ));
                }
            }
        }
    }
}

/// About this time, by an eighth more or less. Where hosts want more than there is, each gets what refilled since
/// another one asked: who always asked right after another would get nothing.
fn about(time: Duration, dice: &mut u32) -> Duration {
    // Xorshift (Marsaglia 2003).
    *dice ^= *dice << 13;
    *dice ^= *dice >> 17;
    *dice ^= *dice << 5;
    time * (224 + (*dice >> 26)) / 256
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use farcall::quota::Unit;

    #[test]
    fn what_a_reload_takes_from_the_fleet_is_not_fetched_until_it_is_given_back() {
        let alone = Rule::limit(10, Unit::Requests, Duration::from_secs(1));
        let mut rule = alone.clone();
        rule.shared = Shared::Fleet;
        let fleet = Fleet::new(&ShareConfig::default(), 1, 1);
        fleet.register(7, &rule, &FleetCell::Own(Arc::new(Cell::new())));
        let mut worker = Worker {
            store: Store::new(&fleet.share, 1),
            process: 1,
            state: Arc::clone(&fleet.state),
            tallies: Arc::default(),
            clock: Box::new(|| Timestamp::from_nanos(1_700_000_000_000_000_000)),
            dice: 1,
            beat: Instant::now(),
            failures: 0,
            said: false,
        };
        let late = Instant::now() + Duration::from_secs(3_600);
        let mut asks = |hours| worker.questions(&mut lock(&fleet.state.0), late + BEAT * hours).len();
        assert_eq!(asks(1), 1);
        fleet.keeps(7, &alone);
        assert_eq!(asks(2), 0);
        fleet.keeps(7, &rule);
        assert_eq!(asks(3), 1);
    }
}
