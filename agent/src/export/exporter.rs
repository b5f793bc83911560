//! Metrics, now and then, to the collector that the configuration or the environment names.
//!
//! What a process counted, it tells itself. The state of an outbox that many processes have in common one of them tells:
//! whoever has the turn in a file of the home directory, where the last one keeps it while it lives. Each message has a
//! thread of its own, of which there is one at a time; none runs where there is nothing to tell.

use super::otlp::{self, Destination, Metrics, Resource, Signal, Whither, process_environment};
use crate::turn::{self, Turn};
use crate::{say, thread};
use farcall::config::OtlpConfig;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const FILE: &str = "metrics.json";
/// OpenTelemetry's default.
const EVERY: Duration = Duration::from_secs(60);
/// An interval is longer than it says by up to this part of it: processes that were started together must not all
/// come to the collector at once.
const JITTER: f64 = 0.1;
/// How long the end of the process waits for its last message.
const LAST: Duration = Duration::from_secs(1);

/// What there is to tell.
pub(crate) trait Source: Send + Sync + 'static {
    fn exporter(&self) -> &Exporter;

    /// Adds what this process counted; nothing where that is all zero.
    fn counted(&self, metrics: &mut Metrics);

    /// Whether there is something that processes have in common.
    fn has_state(&self) -> bool;

    /// Adds that; given up soon after `stop` says so.
    ///
    /// # Errors
    /// Where it cannot be had.
    fn state(&self, metrics: &mut Metrics, stop: &AtomicBool) -> Result<(), String>;
}

/// The metrics of one process.
#[derive(Debug)]
pub(crate) struct Exporter {
    service: String,
    pid: u32,
    /// The file in which the processes of this host say who tells.
    turns: Option<PathBuf>,
    /// Since when this process counts, in nanoseconds since the Unix epoch.
    since: u64,
    state: Mutex<State>,
    /// Held while the state is read: that may open a file.
    reading: Mutex<()>,
    /// Whether whoever reads it is to end.
    stop: AtomicBool,
    /// Messages that no collector took.
    failed: AtomicU64,
    /// Whether the last one failed: said once.
    fails: AtomicBool,
    /// Whether the state could not be read when that was tried last: said once.
    unread: AtomicBool,
}

#[derive(Debug)]
struct State {
    config: Arc<OtlpConfig>,
    /// When the next message is due.
    next: Instant,
    /// When it is this process's turn to look at the state again.
    next_state: Instant,
    /// When it told of the state last, in milliseconds since the Unix epoch.
    told_at_ms: u64,
    /// Whether a thread is there.
    runs: bool,
    /// Whether nothing may be opened.
    paused: bool,
    /// What this process counted, as it was told last.
    told: String,
}

impl Exporter {
    pub(crate) fn new(config: &OtlpConfig, service: &str, pid: u32, home: Option<&Path>) -> Self {
        // Looks at the environment while the application starts.
        let next = Instant::now() + spread(every(config), random());
        Self {
            service: service.to_owned(),
            pid,
            turns: home.map(|home| home.join(FILE)),
            since: now(),
            state: Mutex::new(State {
                config: Arc::new(config.clone()),
                next,
                next_state: next,
                told_at_ms: 0,
                runs: false,
                paused: false,
                told: String::new(),
            }),
            reading: Mutex::new(()),
            stop: AtomicBool::new(false),
            failed: AtomicU64::new(0),
            fails: AtomicBool::new(false),
            unread: AtomicBool::new(false),
        }
    }

    /// The file of the configuration says something else.
    pub(crate) fn reload(&self, config: &OtlpConfig) {
        let mut state = self.lock();
        let soon = Instant::now() + spread(every(config), random());
        (state.next, state.next_state) = (state.next.min(soon), state.next_state.min(soon));
        state.config = Arc::new(config.clone());
    }

    /// Name and value of each counter.
    pub(crate) fn counters(&self) -> [(String, u64); 1] {
        [("failed_exports".to_owned(), self.failed.load(Ordering::Relaxed))]
    }

    /// Sends what is due, by a thread of its own.
    pub(crate) fn tick(source: &Arc<impl Source>) {
        let exporter = source.exporter();
        let mut state = exporter.lock();
        if state.runs || state.paused || Instant::now() < state.next {
            return;
        }
        state.runs = true;
        drop(state);
        let told = Arc::clone(source);
        let spawned = thread::spawn("farcall-metrics", move || {
            told.exporter().send(&*told);
        });
        if spawned.is_err() {
            exporter.lock().runs = false;
        }
    }

    /// Opens nothing from now on, and waits until nothing is open.
    pub(crate) fn pause(&self) {
        self.lock().paused = true;
        self.stop.store(true, Ordering::Release);
        drop(self.reading.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn resume(&self) {
        self.stop.store(false, Ordering::Release);
        self.lock().paused = false;
    }

    /// The end of the process: tells what it counted since the last message, if that can be done soon.
    pub(crate) fn last(source: &impl Source) {
        let exporter = source.exporter();
        // What is counted from here on is in the message, or in the next one.
        let mark = mark(source);
        let mut metrics = exporter.metrics();
        source.counted(&mut metrics);
        if metrics.is_empty() || exporter.lock().told == mark {
            return;
        }
        let Some(mut to) = exporter.destination() else { return };
        to.timeout = to.timeout.min(LAST);
        // Tried once, whatever comes of it: nobody waits twice at the end of a process.
        exporter.lock().told = mark;
        exporter.deliver(&to, metrics);
    }

    fn send(&self, source: &impl Source) {
        let _over = Over(self);
        let config = Arc::clone(&self.lock().config);
        let every = every(&config);
        self.lock().next = Instant::now() + spread(every, random());
        let mark = mark(source);
        let mut metrics = self.metrics();
        source.counted(&mut metrics);
        if metrics.is_empty() && !source.has_state() {
            return;
        }
        let Some(to) = self.destination() else { return };
        let turn = self.turn(source, every, to.timeout);
        let read = turn.is_some() && self.read(source, &mut metrics);
        let taken = !metrics.is_empty() && self.deliver(&to, metrics);
        if taken {
            self.lock().told = mark;
        }
        if let (Some(at_ms), Some(file)) = (turn, &self.turns) {
            match taken && read {
                true => turn::told(file, &self.service, at_ms),
                false => turn::forget(file, &self.service),
            }
        }
    }

    /// When it took its turn to tell of the state, where it has it.
    fn turn(&self, source: &impl Source, every: Duration, timeout: Duration) -> Option<u64> {
        /// A process that has not said for so long after its time was up that it told has died.
        const AROUND: Duration = Duration::from_secs(5);
        let at_ms = now() / 1_000_000;
        if !source.has_state() || Instant::now() < self.lock().next_state {
            return None;
        }
        let Some(file) = &self.turns else { return Some(at_ms) };
        let asked = turn::turn(file, &self.service, (every, timeout + AROUND), 0, at_ms);
        let mut state = self.lock();
        match asked {
            Turn::Tell { .. } => {
                (state.told_at_ms, state.next_state) = (at_ms, Instant::now());
                Some(at_ms)
            }
            Turn::NotBefore { at_ms: until } => {
                let wait = Duration::from_millis(until.saturating_sub(at_ms)).min(every);
                // Whoever told last goes first, so that it stays the one who tells; the others see whether it does.
                let ours = until == state.told_at_ms.saturating_add(millis(every));
                state.next_state = Instant::now() + if ours { wait } else { wait + every / 2 };
                state.next = state.next.min(state.next_state);
                None
            }
        }
    }

    /// Adds what processes have in common; `false` where that cannot be had.
    fn read(&self, source: &impl Source, metrics: &mut Metrics) -> bool {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lock().paused {
            return false;
        }
        let read = source.state(metrics, &self.stop);
        if self.stop.load(Ordering::Acquire) {
            return read.is_ok();
        }
        if let Err(why) = &read {
            self.failed.fetch_add(1, Ordering::Relaxed);
            if !self.unread.swap(true, Ordering::Relaxed) {
                say::say(&format!("metrics go out without the state of the outbox: {why}"));
            }
        } else {
            self.unread.store(false, Ordering::Relaxed);
        }
        read.is_ok()
    }

    fn deliver(&self, to: &Destination, metrics: Metrics) -> bool {
        let resource = Resource::new(&self.service, self.pid, &process_environment);
        match otlp::send(to, Signal::Metrics, &metrics.into_json(&resource)) {
            Ok(()) => {
                self.fails.store(false, Ordering::Relaxed);
                true
            }
            Err(why) => {
                self.failed(&why);
                false
            }
        }
    }

    fn failed(&self, why: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        if !self.fails.swap(true, Ordering::Relaxed) {
            say::say(&format!("metrics did not go out: {why}"));
        }
    }

    fn destination(&self) -> Option<Destination> {
        let config = Arc::clone(&self.lock().config);
        match Whither::of(&config, Signal::Metrics, &process_environment) {
            Whither::To(to) => Some(to),
            Whither::Wrong(why) => {
                self.failed(&why);
                None
            }
            Whither::Nowhere | Whither::Otherwise(_) => None,
        }
    }

    fn metrics(&self) -> Metrics {
        Metrics::new(self.since, now())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever becomes of a message, another thread may send the next one.
struct Over<'a>(&'a Exporter);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.lock().runs = false;
    }
}

/// Stands for what was counted.
fn mark(source: &impl Source) -> String {
    let mut metrics = Metrics::new(0, 0);
    source.counted(&mut metrics);
    format!("{metrics:?}")
}

/// How often: what the file says, else the environment (in milliseconds), else OpenTelemetry's default.
fn every(config: &OtlpConfig) -> Duration {
    let said = || process_environment("OTEL_METRIC_EXPORT_INTERVAL")?.trim().parse().ok();
    let said = config.interval.or_else(|| said().map(Duration::from_millis));
    said.filter(|every| *every >= Duration::from_secs(1)).unwrap_or(EVERY)
}

/// So long, and a part of the jitter: `random` is from 0 to 1.
fn spread(every: Duration, random: f64) -> Duration {
    every + every.mul_f64(JITTER * random.clamp(0.0, 1.0))
}

/// From 0 to 1, without a source of its own.
fn random() -> f64 {
    RandomState::new().hash_one(now()) as f64 / u64::MAX as f64
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a state that takes forever to read, where the second says so.
    struct Shop(Exporter, AtomicBool);

    impl Shop {
        fn new(pid: u32, home: Option<&Path>) -> Self {
            Self(Exporter::new(&OtlpConfig::default(), "shop", pid, home), AtomicBool::new(false))
        }
    }

    impl Source for Shop {
        fn exporter(&self) -> &Exporter {
            &self.0
        }

        fn counted(&self, _: &mut Metrics) {}

        fn has_state(&self) -> bool {
            true
        }

        fn state(&self, _: &mut Metrics, stop: &AtomicBool) -> Result<(), String> {
            while self.1.load(Ordering::Acquire) && !stop.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            Ok(())
        }
    }

    #[test]
    fn one_process_of_a_home_tells_of_the_state_and_keeps_doing_so() {
        let home = tempfile::tempdir().unwrap();
        let every = Duration::from_secs(3_600);
        let shop = |pid| {
            let shop = Shop::new(pid, Some(home.path()));
            shop.0.lock().next_state = Instant::now();
            shop
        };
        let turn = |shop: &Shop| {
            let turn = shop.0.turn(shop, every, Duration::ZERO);
            turn.inspect(|at_ms| turn::told(shop.0.turns.as_deref().unwrap(), "shop", *at_ms))
        };
        let (one, other) = (shop(1), shop(2));
        assert!(turn(&one).is_some());
        assert_eq!(turn(&other), None);
        assert_eq!(turn(&one), None, "a little early");
        let next = [&one, &other].map(|shop| shop.0.lock().next_state);
        assert!(next[0] + every / 3 < next[1], "the one who told comes before the other looks again");
        let billing = Exporter::new(&OtlpConfig::default(), "billing", 3, Some(home.path()));
        let elsewhere = Shop(billing, AtomicBool::new(false));
        elsewhere.0.lock().next_state = Instant::now();
        assert!(turn(&elsewhere).is_some(), "each service has its own");
    }

    #[test]
    fn processes_that_start_together_come_to_the_collector_at_different_moments_and_none_too_early() {
        let every = Duration::from_secs(60);
        assert_eq!([0.0, 1.0].map(|random| spread(every, random)), [every, every + every / 10]);
        let waits: std::collections::BTreeSet<_> = (0..50).map(|_| spread(every, random())).collect();
        assert!(waits.len() > 40 && waits.iter().all(|wait| *wait >= every && *wait <= every + every / 10));
    }

    #[test]
    fn nothing_is_opened_in_a_process_that_is_about_to_fork() {
        let shop = Shop::new(1, None);
        shop.0.pause();
        shop.0.lock().next = Instant::now();
        let shop = Arc::new(shop);
        Exporter::tick(&shop);
        assert!(!shop.0.lock().runs);
        shop.0.resume();
        Exporter::tick(&shop);
        assert!(Instant::now() < shop.0.lock().next || shop.0.lock().runs);
    }

    #[test]
    fn a_fork_waits_for_no_state_that_is_being_read() {
        let shop = Arc::new(Shop::new(1, None));
        shop.1.store(true, Ordering::Release);
        let reader = Arc::clone(&shop);
        let read = std::thread::spawn(move || reader.0.read(&*reader, &mut reader.0.metrics()));
        while shop.0.reading.try_lock().is_ok() {
            std::thread::yield_now();
        }
        shop.0.pause();
        assert!(shop.0.reading.try_lock().is_ok());
        read.join().unwrap();
        assert_eq!(shop.0.counters()[0].1, 0, "nothing failed");
    }
}
