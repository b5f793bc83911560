//! Quotas that a fleet shares through Redis or Valkey.
//!
//! No call waits for the network. A thread beside the calls fetches grants ahead of them, a few times a second and
//! as many units as will be used until the next time; calls use what is there. When the store is slow, dead or
//! wiped, the grants run out within a fraction of a second, each host goes on with its share of the limit, and the
//! first answer of the store puts things right again.

mod store;
mod worker;

use super::memory::SharedCell;
use farcall::Timestamp;
use farcall::config::ShareConfig;
use farcall::quota::{Cell, CellHome, Lease, Limit, Rule, Shared};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use store::Store;
use worker::Worker;

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
    broken: AtomicU64,
}

#[derive(Debug)]
struct State {
    running: bool,
    /// How many hosts there are, as far as known.
    hosts: u32,
    /// Whether it was said that the store cannot tell how many.
    said: bool,
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
    /// Whether it was said that something else lies under its keys.
    said: bool,
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
    /// Units that hosts may owe together.
    debt: f64,
}

impl Leased {
    fn new(cell: FleetCell, limit: Limit, rule: &Rule, hosts: u32) -> Self {
        let mut lease = Lease::new(limit);
        lease.expects(cell.cell(), hosts);
        Self {
            limit,
            cell,
            lease,
            rate: Rate::of(limit, rule),
            due: Instant::now(),
            rests: false,
            said: false,
        }
    }

    /// The rule may be another one since a reload. Gives whether there is something to ask at once.
    fn follows(&mut self, limit: Limit, rule: &Rule, hosts: u32) -> bool {
        let rate = Rate::of(limit, rule);
        if self.rests {
            self.lease = Lease::anew(limit);
            self.lease.expects(self.cell.cell(), hosts);
        } else if self.limit != limit || self.rate != rate {
            self.lease.change(limit);
        } else {
            return false;
        }
        (self.limit, self.rate, self.due, self.rests) = (limit, rate, Instant::now(), false);
        true
    }
}

impl Rate {
    fn of(limit: Limit, rule: &Rule) -> Self {
        let per_second = limit.units as f64 / limit.period.as_secs_f64();
        let first = rule.burst.unwrap_or_else(|| (limit.units / 100).max(1)) as f64;
        // What refills between two questions must not be lost, also where the second is half a question late, nor the
        // part of a unit that cannot be granted yet.
        let most = first.max(1.5 * per_second * Lease::new(limit).interval().as_secs_f64() + 1.0);
        Self { per_second, most, first, debt: limit.most_owed() as f64 }
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
        f.write_str(if self.is_shared() { "Shared" } else { "Own" })
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

    fn resigns(&self, process: u32) {
        if let Self::Shared(cell) = self {
            cell.resigns(process);
        }
    }

    const fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }
}

impl Fleet {
    pub(crate) fn new(share: &ShareConfig, host: u64, process: u64) -> Self {
        let state = State { running: false, hosts: share.hosts, said: false, quotas: HashMap::new() };
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
        let hosts = state.hosts;
        match state.quotas.get_mut(&key) {
            // The same place: what is owed for it stays owed.
            Some(leased) if leased.cell.is_shared() && cell.is_shared() => {
                leased.cell = cell.clone();
                leased.follows(limit, rule, hosts);
            }
            _ => {
                state.quotas.insert(key, Leased::new(cell.clone(), limit, rule, hosts));
            }
        }
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
        if leased.follows(limit, rule, hosts) {
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
        let worker = self.worker(clock);
        let join = crate::thread::spawn("farcall-share", move || worker.run())?;
        *thread = Some(join);
        Ok(())
    }

    fn worker(&self, clock: impl Fn() -> Timestamp + Send + 'static) -> Worker {
        Worker {
            store: Store::new(&self.share, self.host),
            process: self.process,
            state: Arc::clone(&self.state),
            tallies: Arc::clone(&self.tallies),
            clock: Box::new(clock),
            dice: (self.host as u32 ^ self.process) | 1,
            beat: Instant::now(),
            failures: 0,
            said: false,
        }
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

    /// Questions about a quota under whose keys something else lies.
    pub(crate) fn broken(&self) -> u64 {
        self.tallies.broken.load(Ordering::Relaxed)
    }

    /// Quotas that are not shared with other hosts, because there are too many.
    pub(crate) fn unleased(&self) -> u64 {
        self.tallies.unleased.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
