//! SIGTERM: the last flush, then the death that the signal meant.

use super::process::Process;
use rustix::thread::futex;
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::{emulate_default_handler, register, unregister};
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
    // SAFETY: a handler may store to an atomic, ask for the process's number, make a system call that neither waits nor sets
    // `errno` (rustix does not), and die as the signal would have it, which signal-hook allows a handler to.
    let Ok(handler) = (unsafe { register(SIGTERM, tell) }) else { return false };
    let watched = Arc::downgrade(process);
    let thread = crate::thread::spawn("farcall-sigterm", move || {
        while came.load(Ordering::Acquire) == 0 {
            let _ = futex::wait(&came, futex::Flags::PRIVATE, 0, None);
        }
        if let Some(process) = Weak::upgrade(&watched) {
            process.shut_down();
        }
        die();
    });
    match thread {
        Ok(_) => WATCHED.store(std::process::id(), Ordering::Release),
        // Without the thread the signal would do nothing at all.
        Err(_) => {
            unregister(handler);
        }
    }
    WATCHED.load(Ordering::Acquire) == std::process::id()
}

/// The process whose thread waits for the signal.
static WATCHED: AtomicU32 = AtomicU32::new(0);

/// What the signal does where nobody handles it.
pub(super) fn die() {
    let _ = emulate_default_handler(SIGTERM);
}

/// Whether SIGTERM is neither caught nor ignored, by `/proc/self/status`.
pub(super) fn is_default() -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return false };
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let bit = 1_u64 << (SIGTERM - 1);
    matches!((mask("SigCgt:"), mask("SigIgn:")), (Some(caught), Some(ignored)) if (caught | ignored) & bit == 0)
}
