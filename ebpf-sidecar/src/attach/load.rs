//! The loaded programs: attached to one cgroup, read through one ring buffer.

use std::{
    cell::RefCell,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use libbpf_rs::{
    IterOpts, Link, MapCore, MapFlags, MapIterOpts, OpenObject, RingBufferBuilder,
    skel::{OpenSkel, SkelBuilder},
};
use serde::Serialize;

use super::{
    AttachError, Attempting, adopt,
    cgroup::Cgroup,
    check,
    discover::{Discovery, Library},
    losses::Losses,
    newcomers::Newcomers,
    probe::attach_openssl,
    reconcile::Reconciliation,
    skeleton::{FarcallSkel, FarcallSkelBuilder},
    sockets,
};
use crate::{
    clock,
    tap::{Fresh, Observation, Observer},
    wire::record::Socket,
};

/// What to capture.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether connections to this machine's own loopback addresses count as egress.
    pub include_loopback: bool,
    /// TLS libraries to probe before any process maps them.
    pub libraries: Vec<PathBuf>,
    /// Folders, in each mount namespace of the scope, whose TLS libraries are probed likewise. Everybody who maps one of
    /// these files pays for the traps, in the scope or not. [`WELL_KNOWN`](super::WELL_KNOWN) are the usual ones.
    pub folders: Vec<PathBuf>,
}

/// A library that was found and could not be probed.
#[derive(Clone, Debug, Serialize)]
pub struct Unprobed {
    /// Its file name; or what else is not followed.
    pub library: String,
    /// Why not.
    pub reason: String,
}

/// A running capture. Dropping it detaches everything.
pub struct Capture<'obj> {
    skel: FarcallSkel<'obj>,
    links: Vec<Link>,
    /// Those of programs of the cgroup.
    scope_links: Vec<Link>,
    list: Link,
    reconciliation: Reconciliation,
    ends_found: u64,
    ring: libbpf_rs::RingBuffer<'obj>,
    observer: Rc<RefCell<Observer>>,
    discovery: Discovery,
    newcomers: Newcomers,
    cgroup: &'obj Cgroup,
    /// The cgroup that came after it at its path.
    successor: Option<Cgroup>,
    successions: u64,
    libraries: Vec<(Library, Vec<Link>)>,
    looked: Instant,
    look_takes: Duration,
    unprobed: Vec<Unprobed>,
}

impl std::fmt::Debug for Capture<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("links", &self.links.len()).finish_non_exhaustive()
    }
}

/// How often all processes are looked at, for libraries that they loaded late.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl<'obj> Capture<'obj> {
    /// Loads the programs into `storage` and attaches them to `cgroup`. Nothing outside of it is reported.
    ///
    /// # Errors
    /// When the kernel lacks a feature that connections need, or privileges are missing.
    pub fn start(
        storage: &'obj mut MaybeUninit<OpenObject>,
        cgroup: &'obj Cgroup,
        options: &Options,
    ) -> Result<Self, AttachError> {
        raise_descriptor_limit();
        let mut open = FarcallSkelBuilder::default().open(storage).attempting("opening the BPF object")?;
        if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
            rodata.fc_include_loopback = options.include_loopback;
        }
        let can_pair = check::has_socket_lengths();
        open.progs.fc_sock_send.set_autoload(can_pair);
        open.progs.fc_sock_recv.set_autoload(can_pair);
        open.progs.fc_tcp_recv.set_autoload(!can_pair);
        open.progs.fc_moved.set_autoload(check::tells_of_moves());
        let skel = open.load().attempting("loading the BPF programs")?;
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
        let sockets = IterOpts::Map(MapIterOpts::from_fd(skel.maps.fc_sockets.as_fd()));
        let list = skel.progs.fc_list.attach_iter_with_opts(sockets).attempting("attaching to sockets")?;
        let mut capture = Self {
            skel,
            links: Vec::new(),
            scope_links: Vec::new(),
            list,
            reconciliation: Reconciliation::new(),
            ends_found: 0,
            ring,
            observer,
            discovery: Discovery::with_folders(options.folders.clone()),
            newcomers: Newcomers::new(),
            cgroup,
            successor: None,
            successions: 0,
            libraries: Vec::new(),
            looked: Instant::now(),
            look_takes: Duration::ZERO,
            unprobed: Vec::new(),
        };
        capture.attach_everywhere(can_pair)?;
        for path in &options.libraries {
            let library = capture.discovery.named(path);
            let library = library.map_err(|source| AttachError::Read { path: path.clone(), source })?;
            capture.probe(library);
        }
        capture.look_at_everyone();
        if capture.scope().processes().is_empty() {
            // Whoever comes will most likely live where the machine's first process does, or where we do.
            let mut found = Vec::new();
            for tgid in [1, std::process::id()] {
                capture.discovery.look_into_folders(tgid, Instant::now(), &mut found);
            }
            capture.probe(found);
        }
        capture.adopt(|_| true)?;
        Ok(capture)
    }

    /// The cgroup that is looked at.
    fn scope(&self) -> &Cgroup {
        self.successor.as_ref().unwrap_or(self.cgroup)
    }

    fn attach_everywhere(&mut self, can_pair: bool) -> Result<(), AttachError> {
        let programs = &self.skel.progs;
        // Processes first: who connects a moment later is then known.
        self.links.extend([
            programs.fc_exec.attach_trace().attempting("attaching to sched_process_exec")?,
            programs.fc_exit.attach_trace().attempting("attaching to sched_process_exit")?,
            programs.fc_tcp_state.attach_trace().attempting("attaching to inet_sock_set_state")?,
        ]);
        self.attach_to_scope()?;
        let programs = &self.skel.progs;
        if programs.fc_moved.autoload() {
            self.links.push(programs.fc_moved.attach_trace().attempting("attaching to cgroup_attach_task")?);
        }
        let pairing = if can_pair {
            vec![&programs.fc_sock_send, &programs.fc_sock_recv]
        } else {
            vec![&programs.fc_tcp_recv]
        };
        for program in pairing {
            self.links.push(program.attach_trace().attempting("attaching to reads and writes of sockets")?);
        }
        Ok(())
    }

    /// Attaches to the cgroup itself, and has every program look at it and its descendants.
    fn attach_to_scope(&mut self) -> Result<(), AttachError> {
        let descriptor = self.scope().directory.as_raw_fd();
        self.skel
            .maps
            .fc_scope
            .update(&0u32.to_ne_bytes(), &descriptor.to_ne_bytes(), MapFlags::ANY)
            .attempting("setting the scope")?;
        let id = self.scope().id;
        if let Some(variables) = self.skel.maps.bss_data.as_deref_mut() {
            variables.fc_scope_id = id;
        }
        let programs = &self.skel.progs;
        let mut links = vec![
            programs.fc_egress.attach_cgroup(descriptor).attempting("attaching to the cgroup's egress")?,
            programs.fc_ingress.attach_cgroup(descriptor).attempting("attaching to the cgroup's ingress")?,
        ];
        match programs.fc_tcp_of_scope.attach_cgroup(descriptor) {
            Ok(link) => links.push(link),
            // Another program may hold the place alone. An end that is missed without it is found in the list of sockets.
            Err(error) => self.unprobed.push(Unprobed {
                library: "the end of each connection in the cgroup".to_owned(),
                reason: format!("{error}; those that the tracepoint misses are found some seconds late"),
            }),
        }
        self.scope_links = links;
        Ok(())
    }

    /// Follows the cgroup that is at the path now, where the one that was looked at is gone.
    fn succeed(&mut self) -> Result<(), AttachError> {
        let Some(successor) = self.scope().successor() else { return Ok(()) };
        self.successor = Some(successor);
        self.successions += 1;
        if let Err(error) = self.attach_to_scope() {
            // It may be gone already; then the next one is waited for.
            return if self.scope().is_there() { Err(error) } else { Ok(()) };
        }
        self.look_at_everyone();
        self.adopt(|_| true)
    }

    /// Takes over the connections that those who were moved here have brought along.
    fn adopt_newcomers(&mut self) -> Result<(), AttachError> {
        let newcomers = self.newcomers.due();
        if newcomers.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        // A socket of the scope was seen to connect, or came from outside.
        self.adopt(|socket| socket.foreign && newcomers.contains(&socket.tgid))?;
        self.newcomers.looked(begun.elapsed());
        Ok(())
    }

    /// Takes over those of the connections that are open already which are meant.
    fn adopt(&mut self, is_meant: impl Fn(&Socket) -> bool) -> Result<(), AttachError> {
        let programs = &self.skel.progs;
        let iterator =
            programs.fc_adopt.attach_iter_with_opts(IterOpts::None).attempting("attaching to open files")?;
        let connections = &self.skel.maps.fc_conns;
        for (socket, value) in adopt::open_connections(self.scope(), &self.skel.maps.fc_adoptees, &iterator)?
        {
            // One that was opened since, or is held by two processes, is known already.
            if is_meant(&socket)
                && connections.update(&socket.cookie.to_ne_bytes(), &value, MapFlags::NO_EXIST).is_ok()
            {
                self.observer.borrow_mut().adopt(&socket);
            }
        }
        Ok(())
    }

    /// Waits for records, at most `timeout`, and returns what they tell.
    ///
    /// # Errors
    /// When the ring buffer cannot be read.
    pub fn poll(&mut self, timeout: Duration) -> Result<Vec<Observation>, AttachError> {
        let now = Instant::now();
        let until_look = self.discovery.next().map(|next| next.saturating_duration_since(now));
        // The descriptor waits in whole milliseconds.
        let timeout = until_look.map_or(timeout, |look| look.min(timeout).max(Duration::from_millis(1)));
        self.ring.poll(timeout).or_else(ignore_interruption).attempting("reading the ring buffer")?;
        self.succeed()?;
        self.discover();
        self.adopt_newcomers()?;
        Ok(self.observer.borrow_mut().observations())
    }

    /// Takes all waiting records and the counters of connections still open, and returns what they tell.
    ///
    /// # Errors
    /// When the kernel's maps cannot be read.
    pub fn sweep(&mut self) -> Result<Vec<Observation>, AttachError> {
        // A socket in the map may close at any moment, so its counters are applied before the record that ends it.
        let map = &self.skel.maps.fc_conns;
        let sockets = sockets::all(map).attempting("reading connections")?;
        let (ended, open): (Vec<_>, Vec<_>) = sockets.into_iter().partition(|socket| socket.closed != 0);
        // Nor what a socket does after it connected again, before the end of what it did before.
        let (known, anew): (Vec<_>, Vec<_>) =
            open.iter().partition(|socket| self.observer.borrow().follows(socket));
        for socket in known {
            self.observer.borrow_mut().counted(socket, clock::monotonic());
        }
        self.ring.consume().or_else(ignore_interruption).attempting("reading the ring buffer")?;
        for socket in anew {
            self.observer.borrow_mut().counted(socket, clock::monotonic());
        }
        // Closed and still in the map: its last record found no room.
        for socket in &ended {
            self.observer.borrow_mut().closed(socket);
            // The socket may have connected anew since.
            if sockets::one(map, (socket.cookie, socket.opened)).attempting("reading connections")?.is_some()
            {
                sockets::forget(map, socket.cookie);
            }
        }
        if self.reconciliation.is_due() {
            for key in self.reconciliation.look(&open, &self.list)? {
                let entry = sockets::one(map, key).attempting("reading connections")?;
                // It is there and not closed: no program saw the end, and none will.
                if let Some(mut socket) = entry.filter(|socket| socket.closed == 0) {
                    socket.closed = clock::monotonic();
                    self.observer.borrow_mut().closed(&socket);
                    sockets::forget(map, socket.cookie);
                    self.ends_found += 1;
                }
            }
        }
        self.observer.borrow_mut().expire(clock::monotonic());
        self.discover();
        self.adopt_newcomers()?;
        // Looking reads a file for each process: it may take a twentieth of the time, however many there are.
        if self.looked.elapsed() > LOOK_EVERY.max(self.look_takes * 20) {
            self.look_at_everyone();
        }
        Ok(self.observer.borrow_mut().observations())
    }

    /// Takes everything that waits, and ends every connection that has been closed. For the end of a capture.
    ///
    /// # Errors
    /// When the kernel's maps cannot be read.
    pub fn finish(&mut self) -> Result<Vec<Observation>, AttachError> {
        let mut observations = self.sweep()?;
        let mut observer = self.observer.borrow_mut();
        observer.finish(clock::monotonic());
        observations.extend(observer.observations());
        Ok(observations)
    }

    /// Probes the libraries of processes that came or connect, where they are new.
    fn discover(&mut self) {
        let now = Instant::now();
        let mut found = Vec::new();
        let fresh = self.observer.borrow_mut().fresh();
        for process in fresh {
            match process {
                Fresh::Executed(tgid) => self.discovery.expect(tgid, now),
                Fresh::Connecting(tgid) => self.discovery.connects(tgid, now, &mut found),
                Fresh::Moved(tgid) => {
                    self.newcomers.moved(tgid);
                    self.discovery.connects(tgid, now, &mut found);
                }
            }
        }
        found.extend(self.discovery.look_at_due(now));
        self.probe(found);
    }

    /// Probes the libraries of all processes of the scope, where they are new, and lets go of those that nobody maps.
    fn look_at_everyone(&mut self) {
        let now = Instant::now();
        let mut found = Vec::new();
        for tgid in self.scope().processes() {
            self.discovery.look_at(tgid, now, &mut found);
        }
        let discovery = &mut self.discovery;
        self.libraries.retain(|(library, _)| !discovery.forget_unused(library, now));
        self.probe(found);
        self.looked = now;
        self.look_takes = now.elapsed();
    }

    fn probe(&mut self, libraries: impl IntoIterator<Item = Library>) {
        for library in libraries {
            match attach_openssl(&self.skel.progs, &library) {
                Ok(links) => self.libraries.push((library, links)),
                Err(error) => {
                    self.unprobed.push(Unprobed { library: library.name, reason: error.to_string() })
                }
            }
        }
    }

    /// How many connections have been seen to open and not to end.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.observer.borrow().open_connections()
    }

    /// File names of the libraries that are probed.
    #[must_use]
    pub fn libraries(&self) -> Vec<&str> {
        self.libraries.iter().map(|(library, _)| library.name.as_str()).collect()
    }

    /// Libraries that could not be probed, and why.
    #[must_use]
    pub fn unprobed(&self) -> &[Unprobed] {
        &self.unprobed
    }

    /// What the kernel could not deliver since the start.
    ///
    /// # Errors
    /// When the kernel's map cannot be read.
    pub fn losses(&self) -> Result<Losses, AttachError> {
        let (ends_found, successions) = (self.ends_found, self.successions);
        Ok(Losses { ends_found, successions, ..Losses::read(&self.skel, &self.observer.borrow())? })
    }
}

/// Each probe takes descriptors, and the usual soft limit is a hundred libraries. What cannot be raised is tried anyway.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _unchanged = setrlimit(Resource::Nofile, limit);
}

fn ignore_interruption(error: libbpf_rs::Error) -> Result<(), libbpf_rs::Error> {
    if error.kind() == libbpf_rs::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests;
