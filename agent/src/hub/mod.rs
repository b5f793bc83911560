//! The agent's end of the hub (docs/hub.md): tells a sidecar, where there is one, which calls the library saw.

mod outbox;

use crate::kept::Kept;
use crate::tally::Tallies;
use farcall::Timestamp;
use farcall::ledger::Sighting;
use outbox::Outbox;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// A connection to the sidecar, made again whenever it breaks.
#[derive(Debug)]
pub(crate) struct Hub {
    socket: PathBuf,
    connected: Option<(Kept<UnixStream>, Outbox)>,
}

impl Hub {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, connected: None }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    /// Looks for a sidecar; whether one is there now that was not before.
    pub(crate) fn look(&mut self) -> bool {
        if self.connected.is_some() {
            return false;
        }
        self.connected = dial(&self.socket).map(|stream| (Kept::new(stream), Outbox::new()));
        self.connected.is_some()
    }

    /// The first thing to say: see docs/hub.md.
    pub(crate) fn hello(&mut self, anchor: u64, since: Timestamp, sightings_from: Timestamp) {
        if let Some((_, outbox)) = &mut self.connected {
            outbox.hello(anchor, since, sightings_from);
        }
        self.send();
    }

    /// Sends the calls since the last time, or that there were none.
    pub(crate) fn tell(&mut self, sightings: &[Sighting], tallies: &Tallies) {
        if let Some((_, outbox)) = &mut self.connected {
            let untold = outbox.frame(sightings);
            Tallies::add(&tallies.untold_sightings, untold as u64);
        }
        self.send();
    }

    /// Lets go of the connection. In the child of a fork, it is the parent's.
    pub(crate) fn leave(&mut self) {
        self.connected = None;
    }

    fn send(&mut self) {
        if let Some((stream, outbox)) = &mut self.connected
            && stream.get().is_none_or(|mut stream| outbox.send(&mut stream).is_err())
        {
            self.connected = None;
        }
    }
}

/// Connects without waiting: the standard library would wait while the sidecar's queue is full.
fn dial(socket: &std::path::Path) -> Option<UnixStream> {
    let address = SocketAddrUnix::new(socket).ok()?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let dialled = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&dialled, &address).ok()?;
    Some(dialled.into())
}
