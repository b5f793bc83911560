//! SIGTERM while the last that was counted is written.
//!
//! Node hears of a signal in its event loop: once that has ended, nobody is told of one that is listened to, and one that
//! nobody listens to kills before the ledger has what was counted. So it is noted meanwhile; whoever held it sends it
//! again.
#![allow(unsafe_code)] // The standard library has no signals.

use libc::{SA_RESTART, SIGTERM, c_int, sigaction};
use napi_derive::napi;
use std::mem::zeroed;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether one came while it was held.
static CAME: AtomicBool = AtomicBool::new(false);
/// What was to be done at SIGTERM before it was held.
static BEFORE: Mutex<Option<sigaction>> = Mutex::new(None);

extern "C" fn come(_signal: c_int) {
    CAME.store(true, Ordering::Relaxed);
}

/// From now on SIGTERM is noted, and nothing else.
#[napi(catch_unwind)]
pub(crate) fn hold_sigterm() {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    if before.is_some() {
        return;
    }
    CAME.store(false, Ordering::Relaxed);
    // SAFETY: zeroes are a `sigaction` with an empty mask; both places live through the call, and the handler does no
    // more than store to an atomic, which any may.
    unsafe {
        let (mut action, mut old): (sigaction, sigaction) = (zeroed(), zeroed());
        action.sa_sigaction = come as *const () as usize;
        action.sa_flags = SA_RESTART;
        if sigaction(SIGTERM, &raw const action, &raw mut old) == 0 {
            *before = Some(old);
        }
    }
}

/// At SIGTERM is done again what was before, unless somebody said meanwhile what is to be done. Whether one came.
#[napi(catch_unwind)]
pub(crate) fn release_sigterm() -> bool {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(before) = before.take() else { return false };
    // SAFETY: both places live through the calls; `before` is what the system told of.
    unsafe {
        let mut action: sigaction = zeroed();
        if sigaction(SIGTERM, null(), &raw mut action) == 0
            && action.sa_sigaction == come as *const () as usize
        {
            sigaction(SIGTERM, &raw const before, null_mut());
        }
    }
    CAME.swap(false, Ordering::Relaxed)
}
