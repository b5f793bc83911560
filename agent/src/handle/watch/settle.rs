//! Waits until the file changed and whoever writes it is done.

#[cfg(target_os = "linux")]
use super::inotify::Watches;
use crate::kept::Kept;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// So long nothing may happen before the file is read: editors write in several steps.
const QUIET: Duration = Duration::from_millis(10);
/// The same while somebody has written to the file and not closed it yet.
const OPEN: Duration = Duration::from_millis(50);
/// Who writes for longer is not waited for.
const LONGEST: Duration = Duration::from_millis(100);

/// Why a wait ended.
#[derive(Debug)]
pub(super) enum Woken {
    Stop,
    Changed,
    Late,
}

/// Ends a wait, at once where nobody closed its descriptors. Dropping it does.
#[derive(Debug)]
pub(super) struct Stop {
    asked: Arc<AtomicBool>,
    wake: Kept<UnixStream>,
}

/// The other end of it.
#[derive(Debug)]
pub(super) struct Stopped {
    asked: Arc<AtomicBool>,
    woken: Kept<UnixStream>,
}

impl Stop {
    pub(super) fn pair() -> io::Result<(Self, Stopped)> {
        let (wake, woken) = UnixStream::pair()?;
        let asked = Arc::new(AtomicBool::new(false));
        let stopped = Stopped { asked: Arc::clone(&asked), woken: Kept::new(woken) };
        Ok((Self { asked, wake: Kept::new(wake) }, stopped))
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.asked.store(true, Ordering::Release);
        if let Some(wake) = self.wake.get() {
            let _ = wake.shutdown(Shutdown::Both);
        }
    }
}

impl Stopped {
    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

/// Where changes are told, if the system does so.
#[derive(Debug)]
pub(super) struct Changes {
    #[cfg(target_os = "linux")]
    watches: Option<Watches>,
}

impl Changes {
    pub(super) fn of(candidates: &[PathBuf]) -> Self {
        #[cfg(not(target_os = "linux"))]
        let _ = candidates;
        Self {
            // None where this user has used up his watches (`fs.inotify.max_user_instances`, 128).
            #[cfg(target_os = "linux")]
            watches: Watches::on(candidates).ok(),
        }
    }

    pub(super) fn are_told(&self) -> bool {
        self.source().is_some()
    }

    fn source(&self) -> Option<BorrowedFd<'_>> {
        #[cfg(target_os = "linux")]
        return self.watches.as_ref()?.source();
        #[cfg(not(target_os = "linux"))]
        return None;
    }

    /// Whether the writer is not done, as far as can be known.
    fn take_events(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.watches.as_ref().is_some_and(Watches::take_events);
        #[cfg(not(target_os = "linux"))]
        return false;
    }

    /// Waits for a change to be complete, for a stop, or for so long.
    pub(super) fn wait(&self, stop: &Stopped, every: Duration) -> Woken {
        let first = self.ready(stop, every);
        if !matches!(first, Woken::Changed) {
            return first;
        }
        let begun = Instant::now();
        loop {
            let patience = if self.take_events() { OPEN } else { QUIET };
            let left = LONGEST.saturating_sub(begun.elapsed());
            match self.ready(stop, patience.min(left)) {
                Woken::Stop => return Woken::Stop,
                Woken::Changed if !left.is_zero() => {}
                _ => return Woken::Changed,
            }
        }
    }

    fn ready(&self, stop: &Stopped, timeout: Duration) -> Woken {
        let until = Instant::now() + timeout;
        loop {
            if stop.is_asked() {
                return Woken::Stop;
            }
            // Looked for each time: what somebody closed says nothing of ours any more.
            let (woken, source) = (stop.woken.get(), self.source());
            let told = usize::from(woken.is_some());
            let mut fds = Vec::with_capacity(2);
            fds.extend(woken.map(|woken| PollFd::from_borrowed_fd(woken.as_fd(), PollFlags::IN)));
            fds.extend(source.map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN)));
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or_default();
            let polled = poll(&mut fds, Some(&left));
            let has_told = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
            match polled {
                Err(Errno::INTR) => {}
                // Nothing that a retry would mend: as if nobody told of changes.
                Err(_) => {
                    std::thread::sleep(timeout);
                    return Woken::Late;
                }
                Ok(_) if told == 1 && has_told(0) && stop.woken.get().is_some() => return Woken::Stop,
                Ok(_) if has_told(told) && self.are_told() => return Woken::Changed,
                Ok(_) if Instant::now() >= until => return Woken::Late,
                Ok(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_change_is_told_and_needs_no_look_at_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("farcall.toml");
        fs::write(&file, "before").unwrap();
        let (_stop, woken) = Stop::pair().unwrap();
        let written = || fs::write(&file, "after").unwrap();
        let replaced = || {
            fs::write(directory.path().join("new"), "after").unwrap();
            fs::rename(directory.path().join("new"), &file).unwrap();
        };
        let removed = || fs::remove_file(&file).unwrap();
        for change in [&written as &dyn Fn(), &replaced, &removed] {
            let changes = Changes::of(std::slice::from_ref(&file));
            assert!(changes.are_told());
            change();
            let why = changes.wait(&woken, Duration::from_secs(30));
            assert!(matches!(why, Woken::Changed), "{why:?}");
        }
    }

    #[test]
    fn whoever_stops_it_is_heard_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let (stop, woken) = Stop::pair().unwrap();
        drop(stop);
        let changes = Changes::of(&[directory.path().join("farcall.toml")]);
        assert!(matches!(changes.wait(&woken, Duration::from_secs(30)), Woken::Stop));
    }
}
