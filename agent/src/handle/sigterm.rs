//! SIGTERM: the last flush, then the death that the signal meant.

use super::process::Process;
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::fs;
use std::sync::{Arc, Weak};

/// Flushes on SIGTERM and ends the process by it. Whether it could be set up. Only where the disposition is the
/// default one (or ours, in the child of a fork): an application that handles or ignores the signal keeps its
/// own meaning of it.
pub(super) fn watch(process: &Arc<Process>) -> bool {
    let Ok(mut signals) = Signals::new([SIGTERM]) else { return false };
    let watched = Arc::downgrade(process);
    // Without the thread the signal would do nothing at all.
    let handle = signals.handle();
    let thread = std::thread::Builder::new().name("farcall-sigterm".into()).spawn(move || {
        if signals.forever().next().is_some() {
            if let Some(process) = Weak::upgrade(&watched) {
                process.shut_down();
            }
            die();
        }
    });
    if thread.is_err() {
        handle.close();
    }
    thread.is_ok()
}

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
