//! The loaded programs: attached to one cgroup, read through one ring buffer.

use std::{
    cell::RefCell,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd},
    rc::Rc,
    time::Duration,
};

use libbpf_rs::{
    Link, MapCore, MapFlags, OpenObject, RingBufferBuilder,
    skel::{OpenSkel, SkelBuilder},
};
use serde::Serialize;

use super::{AttachError, Attempting, cgroup::Cgroup};
use crate::{
    tap::{Observation, Observer},
    wire::record::Socket,
};

#[allow(unsafe_code, missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::unwrap_used)]
mod skeleton {
    // SAFETY (all blocks of the generated file): libbpf-cargo keeps maps and programs alive as long as the object.
    include!(concat!(env!("OUT_DIR"), "/farcall.skel.rs"));
}
use skeleton::{FarcallSkel, FarcallSkelBuilder};

/// What to capture.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether connections to this machine's own loopback addresses count as egress.
    pub include_loopback: bool,
}

/// How often the kernel could not deliver something, by reason. All zero is the normal state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// The ring buffer was full.
    pub ring_full: u64,
    /// Payload was withheld so that connection records keep their room.
    pub ring_pressure: u64,
    /// An application's buffer could not be read.
    pub fault: u64,
    /// More connections at once than the kernel map holds.
    pub connection_map: u64,
    /// More threads inside a TLS call than the kernel map holds.
    pub call_map: u64,
    /// More TLS streams than the kernel map holds.
    pub stream_map: u64,
    /// Bytes beyond the cap of one operation, which were not copied.
    pub cut_bytes: u64,
    /// Packets whose payload could not be read.
    pub packet: u64,
}

impl Losses {
    /// Whether nothing was lost.
    #[must_use]
    pub fn none(&self) -> bool {
        *self == Self::default()
    }
}

/// A running capture. Dropping it detaches everything.
pub struct Capture<'obj> {
    skel: FarcallSkel<'obj>,
    links: Vec<Link>,
    ring: libbpf_rs::RingBuffer<'obj>,
    observer: Rc<RefCell<Observer>>,
}

impl std::fmt::Debug for Capture<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("links", &self.links.len()).finish_non_exhaustive()
    }
}

/// Connections read from the kernel's map at once.
const BATCH: u32 = 256;

impl<'obj> Capture<'obj> {
    /// Loads the programs into `storage` and attaches them to `cgroup`. Nothing outside of it is reported.
    ///
    /// # Errors
    /// When the kernel lacks a feature that Level 0 needs, or privileges are missing.
    pub fn start(
        storage: &'obj mut MaybeUninit<OpenObject>,
        cgroup: &Cgroup,
        options: &Options,
    ) -> Result<Self, AttachError> {
        let mut open = FarcallSkelBuilder::default().open(storage).attempting("opening the BPF object")?;
        if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
            rodata.fc_include_loopback = options.include_loopback;
        }
        let skel = open.load().attempting("loading the BPF programs")?;
        let scope = cgroup.directory.as_raw_fd();
        skel.maps
            .fc_scope
            .update(&0u32.to_ne_bytes(), &(scope as u32).to_ne_bytes(), MapFlags::ANY)
            .attempting("setting the scope")?;
        let observer = Rc::new(RefCell::new(Observer::default()));
        let sink = Rc::clone(&observer);
        let mut builder = RingBufferBuilder::new();
        builder
            .add(&skel.maps.fc_events, move |bytes| {
                sink.borrow_mut().record(bytes);
                0
            })
            .attempting("mapping the ring buffer")?;
        let ring = builder.build().attempting("mapping the ring buffer")?;
        let mut capture = Self { skel, links: Vec::new(), ring, observer };
        capture.attach_level0(scope)?;
        Ok(capture)
    }

    fn attach_level0(&mut self, scope: i32) -> Result<(), AttachError> {
        let programs = &self.skel.progs;
        // Processes first: who connects a moment later is then known.
        let links = [
            programs.fc_exec.attach_trace().attempting("attaching to sched_process_exec")?,
            programs.fc_exit.attach_trace().attempting("attaching to sched_process_exit")?,
            programs.fc_tcp_state.attach_trace().attempting("attaching to inet_sock_set_state")?,
            programs.fc_egress.attach_cgroup(scope).attempting("attaching to the cgroup's egress")?,
            programs.fc_ingress.attach_cgroup(scope).attempting("attaching to the cgroup's ingress")?,
        ];
        self.links.extend(links);
        Ok(())
    }

    /// The ring buffer's descriptor, readable when records wait.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.ring.epoll_fd()
    }

    /// Waits for records, at most `timeout`, and returns what they tell.
    ///
    /// # Errors
    /// When the ring buffer cannot be read.
    pub fn poll(&mut self, timeout: Duration) -> Result<Vec<Observation>, AttachError> {
        self.ring.poll(timeout).or_else(ignore_interruption).attempting("reading the ring buffer")?;
        Ok(self.observer.borrow_mut().observations())
    }

    /// Takes all waiting records and the counters of connections still open, and returns what they tell.
    ///
    /// # Errors
    /// When the kernel's maps cannot be read.
    pub fn sweep(&mut self) -> Result<Vec<Observation>, AttachError> {
        // A socket in the map may close at any moment, so its counters are applied before the record that ends it.
        let mut sockets = Vec::new();
        let map = &self.skel.maps.fc_conns;
        for (_, value) in
            map.lookup_batch(BATCH, MapFlags::ANY, MapFlags::ANY).attempting("reading connections")?
        {
            sockets.extend(Socket::decode(&value));
        }
        let (ended, open): (Vec<_>, Vec<_>) = sockets.into_iter().partition(|socket| socket.closed != 0);
        for socket in &open {
            self.observer.borrow_mut().counted(socket);
        }
        self.ring.consume().or_else(ignore_interruption).attempting("reading the ring buffer")?;
        // Closed and still in the map: its last record found no room.
        let mut observer = self.observer.borrow_mut();
        for socket in &ended {
            observer.closed(socket);
            // An entry that is gone already is as good as deleted.
            let _gone = map.delete(&socket.cookie.to_ne_bytes());
        }
        Ok(observer.observations())
    }

    /// What the kernel could not deliver since the start.
    ///
    /// # Errors
    /// When the kernel's map cannot be read.
    pub fn losses(&self) -> Result<Losses, AttachError> {
        let count = |reason: u32| -> Result<u64, AttachError> {
            let per_cpu = self
                .skel
                .maps
                .fc_losses
                .lookup_percpu(&reason.to_ne_bytes(), MapFlags::ANY)
                .attempting("reading losses")?;
            Ok(per_cpu
                .unwrap_or_default()
                .iter()
                .filter_map(|value| value.get(..8)?.try_into().ok().map(u64::from_ne_bytes))
                .sum())
        };
        Ok(Losses {
            ring_full: count(0)?,
            ring_pressure: count(1)?,
            fault: count(2)?,
            connection_map: count(3)?,
            call_map: count(4)?,
            stream_map: count(5)?,
            cut_bytes: count(6)?,
            packet: count(7)?,
        })
    }

    /// The cgroup array that holds the scope, for tests of the map itself.
    #[must_use]
    pub fn scope_map(&self) -> std::os::fd::BorrowedFd<'_> {
        self.skel.maps.fc_scope.as_fd()
    }
}

fn ignore_interruption(error: libbpf_rs::Error) -> Result<(), libbpf_rs::Error> {
    if error.kind() == libbpf_rs::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}
