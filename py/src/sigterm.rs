//! SIGTERM where the program had a handler of its own, and let go of it: Python then sets the default disposition, and
//! the agent's handler, which writes before the process dies, is gone.

use crate::handle::handle;
use pyo3::prelude::*;
use std::sync::OnceLock;

/// How the agent handles it, once it did.
static OURS: OnceLock<libc::sigaction> = OnceLock::new();

/// For when SIGTERM has its default meaning again, by Python's own record: puts the agent's handler there. Returns
/// whether it is.
#[pyfunction]
pub(crate) fn mind_sigterm() -> bool {
    if !handle().is_some_and(|handle| handle.farcall.handle_sigterm()) {
        return false;
    }
    match (OURS.get(), current()) {
        (Some(ours), Some(now)) if now.sa_sigaction == libc::SIG_DFL => put(ours),
        (Some(ours), Some(now)) => now.sa_sigaction == ours.sa_sigaction,
        // The agent set it just now.
        (None, Some(now)) => OURS.set(now).is_ok(),
        (_, None) => false,
    }
}

/// For a program that sends itself SIGTERM and is to die of it, by Python's own record: writes what was counted, and
/// dies. Comes back only where somebody else handles the signal, or nothing is counted.
#[pyfunction]
pub(crate) fn end_by_sigterm(py: Python<'_>) {
    let (Some(handle), Some(now)) = (handle(), current()) else { return };
    let is_ours = OURS.get().is_some_and(|ours| ours.sa_sigaction == now.sa_sigaction);
    if handle.farcall.is_enabled() && (is_ours || now.sa_sigaction == libc::SIG_DFL) {
        py.detach(|| handle.farcall.end_by_sigterm());
    }
}

#[allow(unsafe_code)]
fn current() -> Option<libc::sigaction> {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set, `now` has room for what is, and all zeros are a value of its type.
    unsafe {
        let asked = libc::sigaction(libc::SIGTERM, std::ptr::null(), now.as_mut_ptr());
        (asked == 0).then(|| now.assume_init())
    }
}

/// Sets it as it was set before.
#[allow(unsafe_code)]
fn put(action: &libc::sigaction) -> bool {
    // SAFETY: the action was in force in this process, so its handler is a valid one, and stays so: nothing that sets
    // handlers of signals is ever unloaded.
    unsafe { libc::sigaction(libc::SIGTERM, action, std::ptr::null_mut()) == 0 }
}
