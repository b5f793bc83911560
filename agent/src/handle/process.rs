//! What belongs to one process. A fork leaves its copy untouched and starts another: locks that some thread of
//! the parent held at that moment are never free in the child.

use super::flush::Writer;
use super::notes::Notes;
use super::thread::Thread;
use super::watch::Watch;
use super::{Setup, fork, sigterm};
#[cfg(feature = "outbox")]
use crate::alarm::{Alarm, Bell};
#[cfg(feature = "shared-cache")]
use crate::cache::Shared;
use crate::clock::Clock;
#[cfg(feature = "outbox")]
use crate::export::otlp::Metrics;
#[cfg(feature = "outbox")]
use crate::export::{Exporter, Source};
#[cfg(feature = "outbox")]
use crate::outbox::{self, OutboxError};
use crate::share::Share;
use crate::store::{Confirmation, ConnectionRollup, Pending};
use crate::tally::Tallies;
use crate::{caller, say};
use farcall::{Caller, Engine, Timestamp};
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// A flush thread that did not show up for so long is looked for.
const UNTENDED: Duration = Duration::from_millis(1_400);

#[derive(Debug)]
pub(super) struct Process {
    pub(super) setup: Arc<Setup>,
    pub(super) pid: u32,
    /// [`fork::so_far`] in it.
    forks: u32,
    pub(super) caller: Caller,
    pub(super) engine: Engine,
    pub(super) clock: Clock,
    pub(super) tallies: Tallies,
    pub(super) since: Timestamp,
    /// When somebody last looked after this process, in Unix nanoseconds.
    pub(super) tended: AtomicU64,
    /// How often the engine was drained, and what it gave has its callers by name.
    pub(super) drains: AtomicU64,
    /// Whether a flush has the ledger open. A fork at that moment makes SQLite unusable in the child.
    pub(super) writing: AtomicBool,
    /// Whether SQLite is unusable, because of that.
    pub(super) unusable: bool,
    pub(super) adapters: Mutex<Adapters>,
    pub(super) thread: Thread,
    pub(super) watch: Watch,
    /// Calls that are over and that the engine was not told of yet.
    pub(super) notes: Notes,
    /// The process that was forked from this one, seen from there.
    pub(super) next: OnceLock<Arc<Process>>,
    writer: Mutex<Writer>,
    pub(super) share: OnceLock<Arc<Share>>,
    #[cfg(feature = "shared-cache")]
    pub(super) cache: OnceLock<Arc<Shared>>,
    #[cfg(feature = "outbox")]
    pub(super) alarm: Arc<Alarm>,
    #[cfg(feature = "outbox")]
    pub(super) exporter: Exporter,
    #[cfg(feature = "outbox")]
    outbox: OnceLock<Arc<outbox::Inner>>,
    /// What the program's callbacks have for deliveries from it.
    #[cfg(feature = "outbox")]
    credentials: Arc<outbox::Credentials>,
    /// Whether the outbox was open when this process was forked.
    #[cfg(feature = "outbox")]
    outbox_unusable: bool,
    /// What the sidecar added since the last flush, which must not wait for one.
    incoming: Mutex<Incoming>,
    pub(super) salt: u64,
    ended: AtomicBool,
    watches_sigterm: AtomicBool,
}

/// The adapters that said they are in place, and since when the first one is.
#[derive(Clone, Debug, Default)]
pub(super) struct Adapters {
    pub(super) names: Vec<String>,
    pub(super) since: Option<Timestamp>,
}

/// What the sidecar adds beside calls.
#[derive(Debug, Default)]
struct Incoming {
    connections: Vec<ConnectionRollup>,
    confirmed: Vec<Confirmation>,
}

/// Nobody who ends or forks waits longer than this for answers that are still to be written.
#[cfg(feature = "shared-cache")]
const CACHE_PATIENCE: Duration = Duration::from_secs(1);

/// Entries of each kind that wait for one flush.
const MAX_INCOMING: usize = 65_536;

/// How many adapters are listed.
const MAX_ADAPTERS: usize = 32;

impl Process {
    pub(super) fn start(setup: Arc<Setup>, adapters: Vec<String>) -> Arc<Self> {
        let process = Arc::new(Self::new(setup, adapters, false));
        process.begin(process.setup.options.handle_sigterm && sigterm::is_default());
        process
    }

    pub(super) fn start_forked(parent: &Self) -> Arc<Self> {
        // Held for ever where another thread of the parent had it: then the list starts empty.
        let adapters = parent.adapters.try_lock().map(|adapters| adapters.names.clone()).unwrap_or_default();
        if let Ok(mut writer) = parent.writer.try_lock() {
            // The socket is the parent's; its copy here would keep the sidecar from seeing the parent's end.
            writer.leave_hub();
        }
        let unusable = parent.unusable || parent.writing.load(Ordering::Acquire);
        let process = Self::new(Arc::clone(&parent.setup), adapters, unusable);
        #[cfg(feature = "outbox")]
        let process = Self {
            outbox_unusable: unusable || parent.outbox_is_open(),
            credentials: Arc::new(parent.credentials.forked()),
            ..process
        };
        let process = Arc::new(process);
        // Its engine has the rules of the parent's start; no call may go by them.
        process.watch.inherit(&parent.watch, &process);
        process.watch.check(&process, true);
        process.begin(parent.watches_sigterm.load(Ordering::Relaxed));
        process
    }

    fn new(setup: Arc<Setup>, adapters: Vec<String>, unusable: bool) -> Self {
        let clock = Clock::new();
        let since = clock.now();
        let caller = caller::of_this_process(setup.service.clone());
        let salt = RandomState::new().hash_one((caller.pid, since.as_nanos()));
        let shards = std::thread::available_parallelism().map_or(4, usize::from);
        let tallies = Tallies::default();
        Tallies::add(&tallies.config_errors, setup.config_errors);
        Self {
            pid: caller.pid,
            forks: fork::so_far(),
            engine: Engine::new(setup.config.clone(), caller.clone(), shards, salt),
            clock,
            tallies,
            since,
            tended: AtomicU64::new(since.as_nanos()),
            drains: AtomicU64::new(0),
            writing: AtomicBool::new(false),
            unusable,
            adapters: Mutex::new(Adapters {
                since: (!adapters.is_empty()).then_some(since),
                names: adapters,
            }),
            thread: Thread::default(),
            watch: Watch::new(&setup),
            notes: Notes::default(),
            next: OnceLock::new(),
            writer: Mutex::new(Writer::new(&setup)),
            share: OnceLock::new(),
            #[cfg(feature = "shared-cache")]
            cache: OnceLock::new(),
            #[cfg(feature = "outbox")]
            alarm: Alarm::new(&setup.config, &caller.service, caller.pid, setup.home.as_deref()),
            #[cfg(feature = "outbox")]
            exporter: Exporter::new(&setup.config.otlp, &caller.service, caller.pid, setup.home.as_deref()),
            #[cfg(feature = "outbox")]
            outbox: OnceLock::new(),
            #[cfg(feature = "outbox")]
            credentials: Arc::default(),
            #[cfg(feature = "outbox")]
            outbox_unusable: false,
            incoming: Mutex::default(),
            salt,
            ended: AtomicBool::new(false),
            watches_sigterm: AtomicBool::new(false),
            caller,
            setup,
        }
    }

    fn begin(self: &Arc<Self>, watch_sigterm: bool) {
        if !self.setup.options.enabled {
            return;
        }
        self.take_key();
        self.read_environment();
        self.share_quotas();
        #[cfg(feature = "outbox")]
        self.engine.set_alarms(Arc::new(Bell(Arc::clone(&self.alarm))));
        self.engine.set_cache_store(self.cache_store());
        // Before the first call, so that a sidecar that is there already learns of every one.
        let mut writer = self.writer();
        writer.look_for_hub(self);
        // So that a restart gives no budget anew.
        writer.learn_spending(self);
        writer.learn_purges(self);
        drop(writer);
        Self::start_thread(self);
        if watch_sigterm {
            self.watches_sigterm.store(sigterm::watch(self), Ordering::Relaxed);
        }
    }

    /// Flushes on SIGTERM from now on, where the disposition is the default one. Whether it does.
    pub(super) fn handle_sigterm(self: &Arc<Self>) -> bool {
        if !self.watches_sigterm.load(Ordering::Relaxed)
            && self.setup.options.enabled
            && self.is_current()
            && sigterm::is_default()
        {
            self.watches_sigterm.store(sigterm::watch(self), Ordering::Relaxed);
        }
        self.watches_sigterm.load(Ordering::Relaxed)
    }

    /// The end: nothing of it is written any more but by another flush.
    pub(super) fn shut_down(&self) {
        self.stop_thread();
        self.flush(true);
        self.export_last();
        self.stop_cache();
    }

    /// Goes by the clock of all who share quotas. Whether this process's own moved.
    pub(super) fn agree_on_clock(&self) -> bool {
        let shared = self.share.get().and_then(|share| share.anchor());
        shared.is_some_and(|shared| self.clock.agree(shared))
    }

    /// What the shared quotas have to do now and then.
    pub(super) fn tick_share(&self) {
        if let Some(share) = self.share.get() {
            share.tick();
        }
    }

    /// Whether this is the process that runs. Asks the system.
    pub(super) fn is_current(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Whether nobody looked after this process for too long, or this is a child of it.
    pub(super) fn is_untended(&self, now: Timestamp) -> bool {
        self.forks != fork::so_far()
            || now.since(Timestamp::from_nanos(self.tended.load(Ordering::Relaxed))) > UNTENDED
    }

    /// Does what can be done without a flush thread, at most about once a second.
    pub(super) fn tend(process: &Arc<Self>) {
        process.tended.store(process.clock.now().as_nanos(), Ordering::Relaxed);
        if !process.setup.options.enabled {
            // Counted by adapters that did not ask whether to; without this it would add up in memory.
            process.tell();
            drop(process.engine.drain(process.clock.now()));
        } else if process.thread.is_missing() && !process.has_ended() {
            Self::start_thread(process);
        }
    }

    pub(super) fn start_thread(process: &Arc<Self>) {
        let options = &process.setup.options;
        #[cfg(feature = "outbox")]
        process.exporter.resume();
        if let Some(share) = process.share.get().filter(|_| options.enabled) {
            let clock = Arc::clone(process);
            if let Err(error) = share.start(move || clock.clock.now()) {
                process.writer().say_once("fleet", &format!("cannot start the thread of the fleet: {error}"));
            }
        }
        #[cfg(feature = "shared-cache")]
        if let Some(cache) = process.cache.get().filter(|_| options.enabled)
            && let Err(error) = cache.start()
        {
            process.writer().say_once("cache", &format!("cannot start a thread of the cache: {error}"));
        }
        let Some(every) = options.flush_every.filter(|_| options.enabled) else { return };
        if let Err(error) = process.thread.start(process, every) {
            process.writer().say_once("thread", &format!("cannot start the flush thread: {error}"));
        }
        Self::watch_config(process);
    }

    /// Starts to watch the configuration, unless that is done: there may have been no descriptor left for it.
    pub(super) fn watch_config(process: &Arc<Self>) {
        if let Err(error) = process.watch.start(process) {
            let why = format!("cannot watch the configuration: {error}; that is tried again each second");
            process.writer().say_once("watch", &why);
        }
    }

    /// What this process has of the outbox.
    #[cfg(feature = "outbox")]
    pub(super) fn outbox(
        &self,
        farcall: impl FnOnce() -> super::WeakFarcall,
    ) -> Result<Arc<outbox::Inner>, OutboxError> {
        if !self.setup.options.enabled {
            return Err(OutboxError::Disabled);
        }
        let home = self.setup.home.as_deref().ok_or(OutboxError::NoHome)?;
        let new = || {
            let (service, settings) = (&self.caller.service, &self.setup.config.outbox_store);
            let alarm = Some(Arc::clone(&self.alarm));
            let credentials = Arc::clone(&self.credentials);
            let unusable = self.outbox_unusable;
            outbox::Inner::new(home, service, Some(farcall()), alarm, credentials, unusable, Ok(settings))
        };
        Ok(Arc::clone(self.outbox.get_or_init(new)))
    }

    #[cfg(feature = "outbox")]
    fn outbox_is_open(&self) -> bool {
        self.outbox_unusable || self.outbox.get().is_some_and(|outbox| outbox.is_open())
    }

    pub(super) fn stop_thread(&self) {
        #[cfg(feature = "outbox")]
        self.exporter.pause();
        #[cfg(feature = "outbox")]
        if let Some(outbox) = self.outbox.get() {
            outbox.pause();
        }
        #[cfg(feature = "outbox")]
        self.alarm.wind_down();
        if let Some(share) = self.share.get() {
            share.stop();
        }
        // It would start the other one again.
        self.thread.stop();
        self.watch.stop();
    }

    /// Sends the metrics that are due.
    pub(super) fn export(self: &Arc<Self>) {
        #[cfg(feature = "outbox")]
        Exporter::tick(self);
    }

    /// After the last flush: what was counted since the last message.
    pub(super) fn export_last(&self) {
        #[cfg(feature = "outbox")]
        if self.setup.options.enabled && self.setup.options.flush_every.is_some() {
            Exporter::last(self);
        }
    }

    /// After the last flush: what cannot be written in time costs an answer, and nothing that was counted.
    pub(super) fn stop_cache(&self) {
        #[cfg(feature = "shared-cache")]
        if let Some(cache) = self.cache.get() {
            cache.stop(CACHE_PATIENCE);
        }
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_connections(&self, connections: Vec<ConnectionRollup>) {
        let mut incoming = self.incoming();
        for connection in connections {
            if incoming.connections.len() < MAX_INCOMING {
                incoming.connections.push(connection);
            } else {
                Tallies::add(&self.tallies.lost_connections, connection.connections);
            }
        }
    }

    pub(super) fn add_confirmed(&self, confirmed: Vec<Confirmation>) {
        let mut incoming = self.incoming();
        for confirmation in confirmed {
            if incoming.confirmed.len() < MAX_INCOMING {
                incoming.confirmed.push(confirmation);
            } else {
                Tallies::add(&self.tallies.lost_confirmations, confirmation.calls);
            }
        }
    }

    /// Moves what the sidecar added to what is written next.
    pub(super) fn take_incoming(&self, pending: &mut Pending) {
        let Incoming { connections, confirmed } = std::mem::take(&mut *self.incoming());
        pending.add_connections(connections, &self.tallies.lost_connections);
        pending.add_confirmed(confirmed, &self.tallies.lost_confirmations);
    }

    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn adapter_installed(&self, name: &str) {
        let now = self.clock.now();
        let mut adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        adapters.since.get_or_insert(now);
        let name = name.replace(',', "_");
        if adapters.names.len() < MAX_ADAPTERS && !adapters.names.contains(&name) {
            adapters.names.push(name);
        }
    }

    pub(super) fn adapters(&self) -> Adapters {
        self.adapters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn counters(&self) -> Vec<(String, u64)> {
        self.tell();
        let engine = self.engine.counters();
        let engine = engine.named().into_iter().map(|(name, value)| (name.to_owned(), value));
        let share = self.share.get().map(|share| share.counters()).into_iter().flatten();
        #[cfg(feature = "shared-cache")]
        let share = share.chain(self.cache.get().map(|cache| cache.counters()).into_iter().flatten());
        let all = engine.chain(self.tallies.all()).chain(share);
        #[cfg(feature = "outbox")]
        let all = all
            .chain(self.alarm.counters())
            .chain(self.exporter.counters())
            .chain(self.outbox.get().map(|outbox| outbox.counters()).into_iter().flatten());
        all.collect()
    }

    pub(super) fn mark_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// A Weyl sequence for each thread, told apart by where its counter lives; the engine spreads its bits.
    pub(super) fn seed(&self) -> u64 {
        thread_local! {
            static COUNT: Cell<u64> = const { Cell::new(0) };
        }
        COUNT.with(|count| {
            if count.get() == 0 {
                count.set(RandomState::new().hash_one(std::thread::current().id()) | 1);
            }
            count.set(count.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
            count.get() ^ self.salt
        })
    }
}

#[cfg(feature = "outbox")]
impl Source for Process {
    fn exporter(&self) -> &Exporter {
        &self.exporter
    }

    fn counted(&self, metrics: &mut Metrics) {
        self.alarm.count(metrics);
        if let Some(outbox) = self.outbox.get() {
            outbox.count_deliveries(metrics);
        }
    }

    fn has_state(&self) -> bool {
        self.outbox.get().is_some_and(|outbox| outbox.exists())
    }

    fn state(&self, metrics: &mut Metrics, stop: &AtomicBool) -> Result<(), String> {
        let Some(outbox) = self.outbox.get() else { return Ok(()) };
        outbox.measure(metrics, stop).map_err(|error| error.to_string())
    }
}

/// Says that a panic of ours was caught; once.
pub(super) fn caught(process: &Process) {
    if process.tallies.panics.fetch_add(1, Ordering::Relaxed) == 0 {
        say::say("an error of farcall's own was caught (please report it); the program goes on");
    }
}
