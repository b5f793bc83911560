//! The one handle of this process.

use farcall_agent::{Farcall, Options};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The most adapters that calls are counted by.
const ADAPTERS: usize = 16;

static HANDLE: OnceLock<Handle> = OnceLock::new();

/// The agent, and what Python's side of it needs beside.
pub(crate) struct Handle {
    pub(crate) farcall: &'static Farcall,
    watching: AtomicBool,
    /// How many calls began above the hook that is to carry them, and wait for it.
    held: AtomicUsize,
    /// Whether the last flush is over, and whether a call was counted after it.
    ended: AtomicBool,
    late: AtomicBool,
    calls: [AtomicU64; ADAPTERS],
}

/// The handle; `None` before `start`.
pub(crate) fn handle() -> Option<&'static Handle> {
    HANDLE.get()
}

impl Handle {
    /// Whether calls are to be counted: between `install()` and `uninstall()`.
    pub(crate) fn is_watching(&self) -> bool {
        self.watching.load(Ordering::Relaxed)
    }

    /// Whether rules decide about the calls that begin now, or did about one that is held: whatever the rules are by
    /// then, the hook that it waits for is to look for it before it begins another.
    pub(crate) fn decides(&self) -> bool {
        self.is_watching() && self.may_decide()
    }

    /// Whether calls that begin now are counted, and go out as they are.
    pub(crate) fn only_watches(&self) -> bool {
        self.is_watching() && !self.may_decide()
    }

    fn may_decide(&self) -> bool {
        self.farcall.engine().decides() || self.held.load(Ordering::Relaxed) != 0
    }

    /// A call waits for the hook that is to carry it.
    pub(crate) fn note_held(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// One of these does no longer.
    pub(crate) fn note_taken(&self) {
        // The child of a fork begins from zero, with what the parent held.
        let _ = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| held.checked_sub(1));
    }

    /// Whether a rule may keep an answer to the calls that begin now.
    pub(crate) fn caches(&self) -> bool {
        self.decides() && self.farcall.engine().has_caches()
    }

    /// A call begins, or was let go of and counts as abandoned: where the last flush is over, there is one more for it at the
    /// interpreter's very end.
    pub(crate) fn note_late(&self) {
        if self.ended.load(Ordering::Relaxed) {
            self.late.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn tally(&self, adapter: usize) {
        // What was registered with `atexit` before us runs after us.
        self.note_late();
        if let Some(calls) = self.calls.get(adapter) {
            calls.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Starts the agent. Returns whether this was the first time; later ones do nothing.
#[pyfunction]
#[pyo3(signature = (service, service_hint, home, /))]
pub(crate) fn start(
    py: Python<'_>,
    service: Option<String>,
    service_hint: Option<String>,
    home: Option<PathBuf>,
) -> bool {
    // Opening the ledger may wait for the disk: other threads go on.
    py.detach(|| {
        let mut first = false;
        HANDLE.get_or_init(|| {
            first = true;
            let options =
                || Options { service, service_hint, home, handle_sigterm: true, ..Options::default() };
            Handle {
                farcall: Farcall::start_global(options),
                watching: AtomicBool::new(false),
                held: AtomicUsize::new(0),
                ended: AtomicBool::new(false),
                late: AtomicBool::new(false),
                calls: [const { AtomicU64::new(0) }; ADAPTERS],
            }
        });
        // Before the program can set a handler of its own.
        crate::sigterm::mind_sigterm();
        first
    })
}

/// Whether anything is counted; False where `FARCALL_DISABLED` says so, and before `start`.
#[pyfunction]
pub(crate) fn is_enabled() -> bool {
    handle().is_some_and(|handle| handle.farcall.is_enabled())
}

/// Counts the calls that begin from now on, or no longer does.
#[pyfunction]
#[pyo3(signature = (on, /))]
pub(crate) fn watch(on: bool) {
    if let Some(handle) = handle() {
        handle.watching.store(on, Ordering::Relaxed);
    }
}

/// Notes in the ledger that this process is attached to a library.
#[pyfunction]
#[pyo3(signature = (library, /))]
pub(crate) fn attached(py: Python<'_>, library: &str) {
    if let Some(handle) = handle() {
        py.detach(|| handle.farcall.adapter_installed(library));
    }
}

/// Counts a failure of a hook.
#[pyfunction]
pub(crate) fn failed() {
    if let Some(handle) = handle() {
        handle.farcall.count_failure("python_hook_errors");
    }
}

/// Writes what was counted to the ledger, now.
#[pyfunction]
pub(crate) fn flush(py: Python<'_>) {
    if let Some(handle) = handle() {
        py.detach(|| handle.farcall.flush());
    }
}

/// Writes what was counted, and stops the agent's thread.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>) {
    if let Some(handle) = handle() {
        py.detach(|| handle.farcall.shutdown());
        handle.ended.store(true, Ordering::Relaxed);
    }
}

/// Writes at the very end of the interpreter what it let go of or called on the way there: responses in global variables
/// live longer than `atexit`, and functions that were registered before ours run after it.
#[pyfunction]
pub(crate) fn flush_late() -> bool {
    // SAFETY: the function is valid for the life of the process, and calls nothing of Python, which is over
    // when it runs.
    #[allow(unsafe_code)]
    let registered = unsafe { pyo3::ffi::Py_AtExit(Some(at_exit)) };
    registered == 0
}

extern "C" fn at_exit() {
    if let Some(handle) = handle().filter(|handle| handle.late.load(Ordering::Relaxed)) {
        // A panic must not cross into C.
        let _ = std::panic::catch_unwind(|| handle.farcall.shutdown());
    }
}

/// Before a fork: stops the agent's thread, so that no lock is held when the process is copied.
#[pyfunction]
pub(crate) fn before_fork(py: Python<'_>) {
    if let Some(handle) = handle() {
        py.detach(|| handle.farcall.before_fork());
    }
}

/// After a fork, in the parent: goes on.
#[pyfunction]
pub(crate) fn after_fork_in_parent(py: Python<'_>) {
    if let Some(handle) = handle() {
        py.detach(|| handle.farcall.after_fork_in_parent());
    }
}

/// After a fork, in the child: begins from zero; what the parent had counted is the parent's.
#[pyfunction]
pub(crate) fn after_fork(py: Python<'_>) {
    if let Some(handle) = handle() {
        py.detach(|| handle.farcall.after_fork());
        handle.held.store(0, Ordering::Relaxed);
        for calls in &handle.calls {
            calls.store(0, Ordering::Relaxed);
        }
    }
}

/// How many calls each adapter began in this process, by the adapter's number.
#[pyfunction]
pub(crate) fn calls() -> Vec<u64> {
    handle().map_or_else(Vec::new, |handle| handle.calls.iter().map(|n| n.load(Ordering::Relaxed)).collect())
}

/// What could not be done as asked, by name.
#[pyfunction]
pub(crate) fn counters(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let named = PyDict::new(py);
    if let Some(handle) = handle() {
        for (name, value) in handle.farcall.counters() {
            named.set_item(name, value)?;
        }
    }
    Ok(named)
}

/// The folder of the ledger that this process writes to.
#[pyfunction]
pub(crate) fn home() -> Option<PathBuf> {
    handle().and_then(|handle| handle.farcall.home())
}
