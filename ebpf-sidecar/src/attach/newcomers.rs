//! Processes that are moved into the cgroup while it is looked at, with whatever they have open.
//!
//! Service managers and container runtimes move each child that they start, before it has opened anything: whoever has no
//! socket is not looked at any further.

use std::{
    collections::HashSet,
    fs,
    time::{Duration, Instant},
};

/// Who was moved, and whose sockets nobody looked at yet.
#[derive(Debug)]
pub(super) struct Newcomers {
    waiting: HashSet<u32>,
    looked: Instant,
    takes: Duration,
}

impl Newcomers {
    pub(super) fn new() -> Self {
        Self { waiting: HashSet::new(), looked: Instant::now(), takes: Duration::ZERO }
    }

    /// A process was moved into the scope, or within it.
    pub(super) fn moved(&mut self, tgid: u32) {
        self.waiting.insert(tgid);
    }

    /// Those that have sockets, which are to be looked at now. Looking visits every file of this machine: it may take a
    /// twentieth of the time, however often somebody comes.
    pub(super) fn due(&mut self) -> HashSet<u32> {
        if self.waiting.is_empty() || self.looked.elapsed() < self.takes * 20 {
            return HashSet::new();
        }
        let mut due = std::mem::take(&mut self.waiting);
        due.retain(|tgid| has_sockets(*tgid));
        due
    }

    /// Their sockets were looked at, in this time.
    pub(super) fn looked(&mut self, takes: Duration) {
        (self.looked, self.takes) = (Instant::now(), takes);
    }
}

/// Whether a living process has a socket of any kind open.
fn has_sockets(tgid: u32) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{tgid}/fd")) else { return false };
    files.flatten().any(|file| {
        fs::read_link(file.path()).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{net::UdpSocket, process::Command};

    use super::*;

    #[test]
    fn who_has_no_socket_is_not_looked_at_and_looking_takes_a_twentieth_of_the_time() {
        let mut idle = Command::new("sleep").arg("100").spawn().unwrap();
        let _socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut newcomers = Newcomers::new();
        for tgid in [std::process::id(), idle.id(), u32::MAX] {
            newcomers.moved(tgid);
        }
        newcomers.looked(Duration::from_secs(60));
        assert!(newcomers.due().is_empty(), "it is too early");
        newcomers.looked(Duration::ZERO);
        let due = newcomers.due();
        assert!(due.contains(&std::process::id()) && !due.contains(&u32::MAX), "{due:?}");
        assert_eq!(due.contains(&idle.id()), has_sockets(idle.id()));
        assert!(newcomers.due().is_empty(), "once");
        idle.kill().unwrap();
        idle.wait().unwrap();
    }
}
