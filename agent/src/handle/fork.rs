//! Forks that nobody announces: a server written in C that forks its workers, such as uWSGI.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many forks there are between the program that was started and this process.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks there are between the program that was started and this process, since [`watch`].
pub(super) fn so_far() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Counts each `fork()` of this process's from now on.
#[allow(unsafe_code)]
pub(super) fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        // SAFETY: the handler may run in any child, for it only adds to an atomic. What loads a library with it never
        // unloads it; where it did, the C library forgets the handler.
        let _ = unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    });
}

extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}
