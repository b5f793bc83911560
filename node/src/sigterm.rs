//! SIGTERM that Node does not tell of, and SIGTERM while the last that was counted is written.
//!
//! Node hears of a signal in its event loop: once that has ended, nobody is told of one that is listened to, and one that
//! nobody listens to kills before the ledger has what was counted. Farcall listens, so that a process in which nobody else
//! does would outlive a signal of the last turn. So each is noted on its way to Node, and held while the ledger is
//! written; whoever held it sends it again.
#![allow(unsafe_code)] // The standard library has no signals.

use libc::{
    SA_RESETHAND, SA_RESTART, SA_SIGINFO, SIG_DFL, SIG_IGN, SIGTERM, c_int, c_void, sigaction, siginfo_t,
};
use napi_derive::napi;
use std::mem::{transmute, zeroed};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether one came while it was held.
static CAME: AtomicBool = AtomicBool::new(false);
/// What was to be done at SIGTERM before it was held.
static BEFORE: Mutex<Option<sigaction>> = Mutex::new(None);

/// Whether one is on its way to Node, which has not told of it.
static ON_ITS_WAY: AtomicBool = AtomicBool::new(false);
/// Node's own handler; 0 before there was one.
static NODES: AtomicUsize = AtomicUsize::new(0);
/// Whether that takes three arguments.
static NODES_TAKES_INFO: AtomicBool = AtomicBool::new(false);

/// Notes a signal, and hands it on to Node.
extern "C" fn hand_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    ON_ITS_WAY.store(true, Ordering::Relaxed);
    let handler = NODES.load(Ordering::Acquire);
    if handler == 0 {
        return;
    }
    // SAFETY: the system had this address as the handler that takes these arguments, and Node's is there as long as the
    // process is.
    unsafe {
        if NODES_TAKES_INFO.load(Ordering::Relaxed) {
            transmute::<usize, extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(handler)(
                signal, info, context,
            );
        } else {
            transmute::<usize, extern "C" fn(c_int)>(handler)(signal);
        }
    }
}

/// From now on each SIGTERM that Node hears of is noted, until nobody listens to it any more. None is on its way.
#[napi(catch_unwind)]
pub(crate) fn note_sigterm() {
    // SAFETY: zeroes are a `sigaction` with an empty mask; all places live through the calls, and the handler does no
    // more than store to an atomic, which any may, and what Node's own does.
    unsafe {
        let mut nodes: sigaction = zeroed();
        if sigaction(SIGTERM, null(), &raw mut nodes) != 0 {
            return;
        }
        let handler = nodes.sa_sigaction;
        let is_ours = handler == hand_on as *const () as usize;
        // What is to be called once is no handler to be called by another.
        let is_nodes = ![SIG_DFL, SIG_IGN].contains(&handler) && nodes.sa_flags & SA_RESETHAND == 0;
        if !is_ours && is_nodes {
            NODES_TAKES_INFO.store(nodes.sa_flags & SA_SIGINFO != 0, Ordering::Relaxed);
            NODES.store(handler, Ordering::Release);
            let mut action = nodes;
            action.sa_sigaction = hand_on as *const () as usize;
            action.sa_flags |= SA_SIGINFO;
            sigaction(SIGTERM, &raw const action, null_mut());
        }
    }
    ON_ITS_WAY.store(false, Ordering::Relaxed);
}

/// Node has told of it, or is not going to. Whether one was on its way.
#[napi(catch_unwind)]
pub(crate) fn take_sigterm() -> bool {
    ON_ITS_WAY.swap(false, Ordering::Relaxed)
}

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
