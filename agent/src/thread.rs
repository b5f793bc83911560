//! Threads of the agent's own, which take none of the program's signals.
//!
//! A signal that is sent to a process goes to any of its threads that does not block it. So a program with one thread,
//! which blocks a signal for a while, or waits for it (`sigwait`, `signalfd`), would have it taken by a thread that it
//! does not know of: its handler would run where nothing was to disturb, or the signal would kill.
#![allow(unsafe_code)] // The standard library has no signals.

#[cfg(feature = "outbox")]
use libc::sigemptyset;
use libc::{SIG_BLOCK, SIG_SETMASK, pthread_sigmask, sigdelset, sigfillset, sigset_t};
use std::io;
use std::mem::MaybeUninit;
#[cfg(feature = "outbox")]
use std::os::unix::process::CommandExt as _;
#[cfg(feature = "outbox")]
use std::process::Command;
use std::ptr::{null, null_mut};
use std::thread::{Builder, JoinHandle};

/// What a thread does itself: blocked, they kill.
const OWN: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS, libc::SIGABRT];

/// Starts a thread that takes no signals.
///
/// # Errors
/// Where the system has no room for another thread.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    // A new thread has the mask of the one that starts it: blocked within it, they would be so a moment too late.
    let before = Mask::swap(SIG_BLOCK, &Mask::all());
    #[expect(clippy::disallowed_methods, reason = "here is where it is done")]
    let spawned = Builder::new().name(name.into()).spawn(run);
    before.put();
    spawned
}

/// Starts a thread that runs what is the program's own, which may start programs in turn: it has the signals that `mask`
/// says.
///
/// # Errors
/// As of [`spawn`].
#[cfg(feature = "outbox")]
pub(crate) fn spawn_with<T: Send + 'static>(
    mask: Mask,
    name: impl Into<String>,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    spawn(name, move || {
        mask.put();
        run()
    })
}

/// Has a program that is started from here get all signals, as one that is started by a shell does.
#[cfg(feature = "outbox")]
pub(crate) fn with_signals(command: &mut Command) -> &mut Command {
    // SAFETY: what the child does there is one system call, and neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(|| {
            Mask::none().put();
            Ok(())
        })
    }
}

/// Which signals a thread does not take.
#[derive(Clone, Copy)]
pub(crate) struct Mask(sigset_t);

impl Mask {
    /// That of this thread.
    #[cfg(feature = "outbox")]
    pub(crate) fn current() -> Self {
        Self::swap(SIG_BLOCK, &Self::none())
    }

    #[cfg(feature = "outbox")]
    fn none() -> Self {
        Self::made(|mask| {
            // SAFETY: there is room for it.
            unsafe { sigemptyset(mask) };
        })
    }

    fn all() -> Self {
        Self::made(|mask| {
            // SAFETY: there is room for it, and it is filled in before something is taken out.
            unsafe {
                sigfillset(mask);
                for signal in OWN {
                    sigdelset(mask, signal);
                }
            }
        })
    }

    fn made(fill: impl FnOnce(*mut sigset_t)) -> Self {
        let mut mask = MaybeUninit::<sigset_t>::zeroed();
        fill(mask.as_mut_ptr());
        // SAFETY: all zeros are a mask, and so is what was filled in.
        Self(unsafe { mask.assume_init() })
    }

    /// Changes this thread's; returns what it was.
    fn swap(how: libc::c_int, by: &Self) -> Self {
        Self::made(|before| {
            // SAFETY: both live through the call. It fails only where `how` is none that there is.
            unsafe { pthread_sigmask(how, &raw const by.0, before) };
        })
    }

    /// Makes it this thread's.
    pub(crate) fn put(&self) {
        // SAFETY: as of `swap`.
        unsafe { pthread_sigmask(SIG_SETMASK, &raw const self.0, null_mut()) };
    }
}

/// Whether this thread has that signal wait.
#[must_use]
pub(crate) fn blocks(signal: libc::c_int) -> bool {
    let mut mask = MaybeUninit::<sigset_t>::zeroed();
    // SAFETY: there is room for the mask, which is not changed; all zeros are one.
    unsafe {
        pthread_sigmask(SIG_BLOCK, null(), mask.as_mut_ptr()) == 0
            && libc::sigismember(mask.as_ptr(), signal) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The signals that this thread has wait, as the kernel has them.
    fn blocked() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    }

    fn has(mask: u64, signal: libc::c_int) -> bool {
        mask & 1 << (signal - 1) != 0
    }

    #[test]
    fn a_thread_of_ours_takes_none_of_the_program_s_signals_and_its_own_faults() {
        let before = blocked();
        let theirs = spawn("farcall-test", blocked).unwrap().join().unwrap();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGCHLD, libc::SIGPROF]
        {
            assert!(has(theirs, signal), "{signal}");
        }
        for signal in OWN {
            assert!(!has(theirs, signal), "{signal}");
        }
        assert_eq!(blocked(), before);
    }

    #[test]
    fn whether_a_signal_waits_is_known() {
        assert!(!blocks(libc::SIGTERM));
        assert!(spawn("farcall-test", || blocks(libc::SIGTERM)).unwrap().join().unwrap());
    }

    #[cfg(feature = "outbox")]
    #[test]
    fn what_is_the_program_s_own_and_what_is_started_from_there_have_their_signals() {
        let mask = Mask::current();
        let before = blocked();
        assert_eq!(spawn_with(mask, "farcall-test", blocked).unwrap().join().unwrap(), before);
        let none = || {
            let mut grep = Command::new("grep");
            grep.args(["-q", "^SigBlk:.0*$", "/proc/self/status"]);
            let plain = grep.status().unwrap().success();
            (plain, with_signals(&mut grep).status().unwrap().success())
        };
        assert_eq!(spawn("farcall-test", none).unwrap().join().unwrap(), (false, true));
    }
}
