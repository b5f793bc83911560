//! SIGTERM: the last flush, then the death that the signal meant.

use super::process::Process;
use rustix::thread::futex;
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::{emulate_default_handler, register};
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// Flushes on SIGTERM and ends the process by it. Whether it could be set up. Only where the disposition is the
/// default one (or ours, in the child of a fork): an application that handles or ignores the signal keeps its
/// own meaning of it.
///
/// The handler wakes the thread without a descriptor: a program that closes all that it finds open, as daemons do, would
/// not be ended by the signal any more, or write into what it opened next.
#[allow(unsafe_code)]
pub(super) fn watch(process: &Arc<Process>) -> bool {
    let came = Arc::new(AtomicU32::new(0));
    let comes = Arc::clone(&came);
    let tell = move || {
        if WATCHED.load(Ordering::Acquire) == std::process::id() {
            comes.store(1, Ordering::Release);
            let _ = futex::wake(&comes, futex::Flags::PRIVATE, 1);
        } else {
            // A child that was forked a moment ago, or has no use for Farcall: it has this handler, and not the thread.
            die();
        }
    };
    let watched = Arc::downgrade(process);
    let waiting = Arc::clone(&came);
    // Before the handler: where there is no room for the thread, nothing of the signal may have changed.
    let thread = crate::thread::spawn("farcall-sigterm", move || {
        while waiting.load(Ordering::Acquire) == 0 {
            let _ = futex::wait(&waiting, futex::Flags::PRIVATE, 0, None);
        }
        if waiting.load(Ordering::Acquire) == UNHANDLED {
            return;
        }
        if let Some(process) = Weak::upgrade(&watched) {
            process.shut_down();
        }
        die();
    });
    if thread.is_err() {
        return false;
    }
    // SAFETY: a handler may store to an atomic, ask for the process's number, make a system call that neither waits nor sets
    // `errno` (rustix does not), and die as the signal would have it, which signal-hook allows a handler to.
    let is_handled = unsafe { register(SIGTERM, tell) }.is_ok();
    if is_handled {
        WATCHED.store(std::process::id(), Ordering::Release);
    } else {
        came.store(UNHANDLED, Ordering::Release);
        let _ = futex::wake(&came, futex::Flags::PRIVATE, 1);
    }
    is_handled
}

/// What the thread is told where there is no handler after all.
const UNHANDLED: u32 = 2;

/// The process whose thread waits for the signal.
static WATCHED: AtomicU32 = AtomicU32::new(0);

/// What the signal does where nobody handles it.
pub(super) fn die() {
    if !is_deadly() {
        return;
    }
    let _ = emulate_default_handler(SIGTERM);
}

/// Whether SIGTERM kills where nobody handles it. The first process of a PID namespace, as in most containers, lives on
/// (`pid_namespaces(7)`).
pub(super) fn is_deadly() -> bool {
    std::process::id() != 1
}

/// Whether SIGTERM is neither caught nor ignored, by `/proc/self/status`, and kills.
pub(super) fn is_default() -> bool {
    if !is_deadly() {
        return false;
    }
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return false };
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let bit = 1_u64 << (SIGTERM - 1);
    matches!((mask("SigCgt:"), mask("SigIgn:")), (Some(caught), Some(ignored)) if (caught | ignored) & bit == 0)
}
