//! The handle that every adapter holds.

mod flush;
mod fork;
mod guard;
mod heard;
pub(crate) mod key;
mod note;
mod notes;
mod process;
mod provide;
mod sigterm;
mod thread;
mod told;
mod watch;

pub use flush::Flush;
pub use guard::CallGuard;
pub use note::{Note, Scope};
pub use told::{How, Told};

use crate::report::ReportError;
use crate::store::{Confirmation, ConnectionRollup};
use crate::tally::Tallies;
use crate::{Options, caller, home, say};
use farcall::{Call, Config, Engine, Head, Step, Timestamp};
use process::Process;
use std::path::PathBuf;
#[cfg(feature = "outbox")]
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// The agent of this process: one engine, one flush thread, one place in the ledger. Cheap to clone; when the
/// last clone goes, what is left is written.
///
/// Nothing here ever fails or delays the application. See the [crate's example](crate).
///
/// # Forks
/// A fork is survived where the binding says so: [`before_fork`](Farcall::before_fork) ahead of it,
/// [`after_fork_in_parent`](Farcall::after_fork_in_parent) and [`after_fork`](Farcall::after_fork) behind it
/// (Python: `os.register_at_fork`). The child starts from zero, with a flush thread and a ledger connection of
/// its own; calls that were under way stay the parent's. A `fork()` that nobody announced is noticed by the child's
/// first call.
#[derive(Clone, Debug)]
pub struct Farcall {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    /// The process that started it; its forks hang behind it.
    first: Arc<Process>,
}

/// What a handle was started with, resolved. The same in all forks.
#[derive(Debug)]
struct Setup {
    options: Options,
    home: Option<PathBuf>,
    config: Config,
    /// Where the configuration may be, the first choice first; absolute.
    config_files: Vec<PathBuf>,
    /// The one that was read at the start; absolute.
    config_file: Option<PathBuf>,
    /// Stands for its text at the start.
    config_text: Option<u64>,
    config_errors: u64,
    service: Option<String>,
}

/// A handle that does not keep Farcall alive: for threads of the agent's own.
#[cfg(feature = "outbox")]
#[derive(Clone, Debug)]
pub(crate) struct WeakFarcall(Weak<Handle>);

#[cfg(feature = "outbox")]
impl WeakFarcall {
    pub(crate) fn upgrade(&self) -> Option<Farcall> {
        self.0.upgrade().map(|handle| Farcall { handle })
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

static GLOBAL: OnceLock<Farcall> = OnceLock::new();

// No panic leaves anything half done behind it: each lock in there is taken over from whoever died with it, and what is
// shared with other threads is whole between any two of its operations.
impl std::panic::UnwindSafe for Farcall {}
impl std::panic::RefUnwindSafe for Farcall {}

impl Farcall {
    /// Starts Farcall in this process. Never fails: what goes wrong is counted and said once on stderr, and
    /// the rest works.
    #[must_use]
    pub fn start(options: Options) -> Self {
        fork::watch();
        let first = Process::start(Arc::new(Setup::resolve(options)), Vec::new());
        let farcall = Self { handle: Arc::new(Handle { first }) };
        farcall.look_after_outbox();
        farcall
    }

    /// The one of this process, started with [`Options::default`] where nobody called
    /// [`start_global`](Farcall::start_global) before. It is never dropped: end it with
    /// [`shutdown`](Farcall::shutdown).
    pub fn global() -> &'static Self {
        Self::start_global(Options::default)
    }

    /// The one of this process, started with these options unless it was before.
    pub fn start_global(options: impl FnOnce() -> Options) -> &'static Self {
        GLOBAL.get_or_init(|| Self::start(options()))
    }

    /// Whether anything is counted. An adapter that finds `false` need not hook anything.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.process().setup.options.enabled
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.process().engine
    }

    /// This moment, by one clock read: monotonic, anchored to the wall clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.process().clock.now()
    }

    /// A number that differs from call to call, in all threads and processes; costs a few nanoseconds.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.process().seed()
    }

    /// Begins a call: [`Engine::begin`] with this moment and a fresh seed.
    pub fn begin(&self, head: &Head<'_>) -> Call {
        let mut process = self.process();
        let mut now = process.clock.now();
        if process.is_untended(now) {
            self.tend();
            process = self.process();
            now = process.clock.now();
        }
        process.engine.begin(head, now, process.seed())
    }

    /// Begins a call at a moment that the caller read from [`now`](Farcall::now) already.
    pub fn begin_at(&self, head: &Head<'_>, now: Timestamp) -> Call {
        let mut process = self.process();
        if process.is_untended(now) {
            self.tend();
            process = self.process();
        }
        process.engine.begin(head, now, process.seed())
    }

    /// Begins a call as [`begin_at`](Farcall::begin_at) does, and asks at once what to do. The call goes into `guard`
    /// unless that was all, as where it is answered from the cache: then it is not moved at all.
    pub fn open_at(&self, head: &Head<'_>, now: Timestamp, guard: &mut Option<CallGuard>) -> Step {
        let mut process = self.process();
        if process.is_untended(now) {
            self.tend();
            process = self.process();
        }
        let keep = |call| *guard = Some(CallGuard::new(self.clone(), call));
        process.engine.open(head, now, process.seed(), keep)
    }

    /// A guard that owns the call: dropping it abandons the call, so that none is lost.
    #[must_use]
    pub fn guard(&self, call: Call) -> CallGuard {
        CallGuard::new(self.clone(), call)
    }

    /// Tells that an adapter (`requests`, `fetch`, `tower`) is in place. `farcall doctor` lists them: an
    /// adapter that never attached looks just like a program that makes no calls.
    pub fn adapter_installed(&self, name: &str) {
        self.process().adapter_installed(name);
    }

    /// The outbox of this process: where calls are put that must not be lost, to be delivered by this process or
    /// another one of the same service and home directory.
    ///
    /// # Errors
    /// Where Farcall is switched off, or has no home directory.
    #[cfg(feature = "outbox")]
    pub fn outbox(&self) -> Result<crate::outbox::Outbox, crate::outbox::OutboxError> {
        self.after_fork();
        self.process().outbox(|| WeakFarcall(Arc::downgrade(&self.handle))).map(crate::outbox::Outbox::of)
    }

    /// Delivers what an earlier process of this service left.
    fn look_after_outbox(&self) {
        #[cfg(feature = "outbox")]
        {
            let process = self.process();
            if process.setup.options.flush_every.is_some()
                && process.setup.options.role == crate::Role::Program
                && let Ok(outbox) = process.outbox(|| WeakFarcall(Arc::downgrade(&self.handle)))
                && (outbox.exists() || outbox.is_needed())
            {
                outbox.start();
            }
        }
    }

    /// Counts a failure of an adapter under a name (`python_hook_errors`); `farcall doctor` shows it.
    pub fn count_failure(&self, name: &str) {
        self.count_failures(name, 1);
    }

    /// Counts `count` failures of one name, as [`count_failure`](Self::count_failure) counts one.
    pub fn count_failures(&self, name: &str, count: u64) {
        self.process().tallies.count(name, count);
    }

    /// Adds connections that the sidecar saw; written with the next flush. Does not wait for one that is under
    /// way.
    pub fn record_connections(&self, connections: Vec<ConnectionRollup>) {
        self.process().add_connections(connections);
    }

    /// Adds calls of a library that the sidecar saw too; written with the next flush, likewise.
    pub fn record_confirmed(&self, confirmed: Vec<Confirmation>) {
        self.process().add_confirmed(confirmed);
    }

    /// How often the engine was drained so far, by flushes that are over. A program's number may go to another
    /// ([`Engine::remove_caller`]) once two drains are over that were not when its last call ended: one of them began
    /// after that.
    #[must_use]
    pub fn drains(&self) -> u64 {
        self.process().drains.load(Ordering::Acquire)
    }

    /// The home directory of the ledger; `None` where none could be found, and nothing is written.
    #[must_use]
    pub fn home(&self) -> Option<PathBuf> {
        self.process().setup.home.clone()
    }

    /// Name and value of each counter of engine and agent: what could not be done as asked.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, u64)> {
        self.process().counters()
    }

    /// Writes what was counted until now. Waits for a flush that is under way.
    pub fn flush(&self) -> Flush {
        self.tend();
        let process = self.process();
        if process.setup.options.flush_every.is_none() {
            process.watch.check(process, false);
        }
        process.flush(false)
    }

    /// Has this program forget the answers that these conditions are about before it returns, and the other programs of
    /// its ledger as [`purge_cache`](crate::purge_cache) does. Returns how many programs there are, this one included.
    ///
    /// # Errors
    /// As [`purge_cache`](crate::purge_cache); where there is no home directory.
    pub fn purge_cache(&self, conditions: &[(String, String)]) -> Result<u64, ReportError> {
        // Programs are told through the ledger, which is there from the first flush on, with this one in it.
        self.flush();
        self.process().purge_cache(conditions)
    }

    /// To be called right before a fork: stops the flush thread, so that no lock is held and no file is open
    /// when the process is copied.
    pub fn before_fork(&self) {
        let process = self.process();
        if process.is_current() {
            process.stop_thread();
            process.stop_cache();
        }
    }

    /// To be called in the parent after a fork that [`before_fork`](Farcall::before_fork) was called for.
    pub fn after_fork_in_parent(&self) {
        let process = self.process();
        if process.is_current() {
            Process::start_thread(process);
            self.look_after_outbox();
        }
    }

    /// To be called in the child after a fork: an engine without the parent's counts, a flush thread and a
    /// ledger connection of its own. Does nothing in any other process.
    pub fn after_fork(&self) {
        let process = self.process();
        if !process.is_current() {
            process.next.get_or_init(|| Process::start_forked(process));
            self.look_after_outbox();
        }
    }

    /// The last flush: stops the thread, writes what is left, and says in the ledger that the process ended.
    /// Calls after it are still counted, and written by another `shutdown` or [`flush`](Farcall::flush).
    /// Bindings call it at exit.
    pub fn shutdown(&self) {
        let process = self.process();
        if process.is_current() {
            process.shut_down();
        }
    }

    /// Handles SIGTERM from now on as [`Options::handle_sigterm`] says, where it is neither caught nor ignored any more:
    /// the program had a handler of its own, and let go of it. Whether it is handled, now or already.
    pub fn handle_sigterm(&self) -> bool {
        self.process().handle_sigterm()
    }

    /// The last flush, then the death that SIGTERM means where nobody handles it. For bindings whose program is about to
    /// end itself by that signal: its threads would go on until the handler's own is done. Does nothing where the thread
    /// that calls it has the signal wait, and in the first process of a PID namespace, which does not die of it.
    pub fn end_by_sigterm(&self) {
        if !sigterm::is_deadly() || crate::thread::blocks(signal_hook::consts::SIGTERM) {
            return;
        }
        self.shutdown();
        sigterm::die();
    }

    /// What belongs to this process, or to the nearest one that it was forked from.
    fn process(&self) -> &Arc<Process> {
        self.newest().0
    }

    /// How many forks lie between the process that started this handle and this one.
    fn generation(&self) -> usize {
        self.newest().1
    }

    /// What belongs to this process, and how many forks lie between the first one and it.
    fn newest(&self) -> (&Arc<Process>, usize) {
        let mut generation = 0;
        let mut process = &self.handle.first;
        while let Some(next) = process.next.get() {
            process = next;
            generation += 1;
        }
        (process, generation)
    }

    /// The process of a generation that there is.
    fn nth(&self, generation: usize) -> &Process {
        let mut process = &self.handle.first;
        for _ in 0..generation {
            match process.next.get() {
                Some(next) => process = next,
                None => break,
            }
        }
        process
    }

    /// Does what a flush thread would, in its absence: the fork that nobody announced, a handle that is
    /// switched off, a thread that could not be started.
    #[cold]
    fn tend(&self) {
        let process = self.process();
        if process.is_current() {
            Process::tend(process);
            return;
        }
        Tallies::add(&self.forked().tallies.late_forks, 1);
    }

    fn forked(&self) -> &Arc<Process> {
        self.after_fork();
        self.process()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut process = &self.first;
        while let Some(next) = process.next.get() {
            process = next;
        }
        if process.is_current() {
            process.stop_thread();
            // After a shutdown, only what was counted since.
            process.flush(!process.has_ended());
            process.export_last();
            process.stop_cache();
        }
    }
}

impl Setup {
    fn resolve(options: Options) -> Self {
        let home = home::find(options.home.as_deref());
        let mut setup = Self {
            home,
            config: Config::default(),
            config_files: Vec::new(),
            config_file: None,
            config_text: None,
            config_errors: 0,
            service: None,
            options,
        };
        if setup.options.enabled {
            // The program may go to another directory.
            let files = home::config_candidates(setup.options.config.as_deref(), setup.home.as_deref());
            setup.config_files = files.iter().filter_map(|file| std::path::absolute(file).ok()).collect();
            setup.read_config();
            if setup.home.is_none() {
                say::say("there is no home directory for the ledger; set FARCALL_HOME. Nothing is recorded");
            }
        }
        setup.service = setup
            .options
            .service
            .clone()
            .or_else(|| setup.config.service.clone())
            .or_else(caller::service_of_environment)
            .or_else(|| setup.options.service_hint.clone())
            .filter(|name| !name.trim().is_empty());
        setup
    }

    /// Takes what is right in the file; says and counts what is not.
    fn read_config(&mut self) {
        let Some(file) = home::find_config(self.options.config.as_deref(), self.home.as_deref()) else {
            return;
        };
        let name = file.display().to_string();
        match home::config_text(&file) {
            Ok(text) => {
                let (config, errors) = Config::read(&name, &text);
                errors.iter().for_each(|error| say::say(&error.to_string()));
                if errors.is_empty() {
                    watch::warn(&config, &name, &text);
                }
                self.config_errors = errors.len() as u64;
                self.config = config;
                self.config_file = std::path::absolute(&file).ok();
                self.config_text = Some(watch::hash_of(&Ok(text)));
            }
            Err(error) => {
                say::say(&format!("{error}; going on without this file"));
                self.config_errors = 1;
            }
        }
    }
}
