//! From records to connections and exchanges.
//!
//! [`Observer`] is fed every record in order and, once a second, the counters of the sockets still open. It answers
//! with [`Observation`]s: what a ledger needs and what coverage needs, each byte and each exchange once.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use serde::Serialize;

use crate::{
    coverage::Completeness,
    identity::{
        Names, Process, Processes,
        executable::{Executables, Tls},
    },
    wire::{
        client_hello::{self, Hello},
        dns,
        record::{Piece, Protocol, Record, Socket},
    },
};

/// Where a connection's name comes from, the most certain first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NameSource {
    /// The server name that the client sent in its ClientHello.
    Sni,
    /// The `Host` field of a plaintext request.
    Host,
    /// The DNS answer that gave the address.
    Dns,
}

/// An outbound TCP connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The socket's cookie: unique until the machine restarts.
    pub id: u64,
    /// Who connected.
    pub process: Arc<Process>,
    /// Address and port on this machine.
    pub local: (IpAddr, u16),
    /// The vendor's address and port.
    pub remote: (IpAddr, u16),
    /// The vendor's name, and who said so.
    pub name: Option<(Arc<str>, NameSource)>,
    /// Payload sent so far, in bytes; retransmissions do not count.
    pub bytes_out: u64,
    /// Payload received so far, in bytes.
    pub bytes_in: u64,
    /// When `connect` was called, `CLOCK_MONOTONIC` nanoseconds.
    pub opened: u64,
    /// When the TCP handshake was complete, 0 if it never was.
    pub established: u64,
    /// When the socket was closed, 0 while it is open.
    pub closed: u64,
    /// Smoothed round-trip time in microseconds, 0 where it is unknown.
    pub rtt_us: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// What the first bytes looked like.
    pub protocol: Protocol,
    /// The TLS implementation, where the connection uses TLS.
    pub tls: Option<Tls>,
    /// Application protocols that the client offered in its ClientHello.
    pub offered: Vec<String>,
    /// Exchanges seen on it.
    pub exchanges: u64,
    /// How much of it was understood, so far.
    pub verdict: Completeness,
}

/// News of a connection since the last report of it.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The connection as it is now.
    pub connection: Connection,
    /// Whether it is reported for the first time.
    pub first: bool,
    /// Whether it is closed: the last report.
    pub last: bool,
    /// Bytes sent since the last report.
    pub new_out: u64,
    /// Bytes received since the last report.
    pub new_in: u64,
}

/// What the observer has to tell.
#[derive(Clone, Debug)]
pub enum Observation {
    /// A connection was opened, moved bytes, or ended.
    Connection(Progress),
}

/// Bytes of ClientHello kept over all connections that have not shown theirs completely.
const HELLO_LIMIT: usize = client_hello::MAX_BYTES;

#[derive(Debug)]
struct Live {
    connection: Connection,
    hello: Option<Vec<u8>>,
    lost: u32,
    reported: Option<(u64, u64)>,
}

/// Joins records into observations. Holds the state of open connections, bounded by the kernel's own map.
#[derive(Debug, Default)]
pub struct Observer {
    processes: Processes,
    names: Names,
    executables: Executables,
    live: HashMap<u64, Live>,
    ended: Recent,
    out: Vec<Observation>,
    undecodable: u64,
}

impl Observer {
    /// Takes one record of the ring buffer.
    pub fn record(&mut self, bytes: &[u8]) {
        match Record::decode(bytes) {
            Some(Record::Open(socket) | Record::Up(socket)) => self.seen(&socket),
            Some(Record::Close(socket)) => self.closed(&socket),
            Some(Record::Exec(execution)) => {
                self.processes.executed(&execution);
            }
            Some(Record::Hello(piece)) => self.hello(&piece),
            Some(Record::Dns(piece)) => self.answer(&piece),
            Some(Record::Exit { .. } | Record::Plain(_) | Record::Tls(_) | Record::TlsEnd { .. }) => {}
            None => self.undecodable += 1,
        }
    }

    /// Takes the counters of a socket that is open.
    pub fn counted(&mut self, socket: &Socket) {
        self.seen(socket);
        if let Some(live) = self.live.get_mut(&socket.cookie) {
            let moved = live.reported != Some((live.connection.bytes_out, live.connection.bytes_in));
            if live.connection.established != 0 && moved {
                self.out.push(Observation::Connection(live.report(false)));
            }
        }
    }

    /// Takes the final counters of a socket. The second time for the same socket does nothing.
    pub fn closed(&mut self, socket: &Socket) {
        self.seen(socket);
        let Some(mut live) = self.live.remove(&socket.cookie) else { return };
        self.ended.insert(socket.cookie);
        live.connection.verdict = live.verdict();
        self.out.push(Observation::Connection(live.report(true)));
    }

    /// Everything learned since the last time.
    pub fn observations(&mut self) -> Vec<Observation> {
        std::mem::take(&mut self.out)
    }

    /// Records that could not be decoded: programs and user space of different builds. Never anything but 0.
    #[must_use]
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    fn seen(&mut self, socket: &Socket) {
        if self.ended.contains(socket.cookie) {
            return;
        }
        if !self.live.contains_key(&socket.cookie) {
            let process = self.processes.of(socket);
            let name = self.names.of(socket.cgroup, socket.remote.0).map(|name| (name, NameSource::Dns));
            self.live.insert(socket.cookie, Live::new(socket, process, name));
        }
        if let Some(live) = self.live.get_mut(&socket.cookie) {
            live.update(socket);
        }
    }

    fn hello(&mut self, piece: &Piece<'_>) {
        let Some(live) = self.live.get_mut(&piece.cookie) else { return };
        let Some(bytes) = live.hello.as_mut() else { return };
        if piece.offset != bytes.len() as u64 || bytes.len() + piece.bytes.len() > HELLO_LIMIT {
            live.hello = None; // a piece is missing: the name stays what DNS said
            return;
        }
        bytes.extend_from_slice(piece.bytes);
        match client_hello::parse(bytes) {
            Hello::Partial => return,
            Hello::Unreadable => {}
            Hello::Read(hello) => {
                if let Some(name) = hello.server_name {
                    live.connection.name = Some((name.into(), NameSource::Sni));
                }
                live.connection.offered = hello.protocols;
            }
        }
        live.hello = None;
        live.connection.tls = Some(self.executables.tls_of(live.connection.process.tgid));
    }

    fn answer(&mut self, piece: &Piece<'_>) {
        let Some(answer) = dns::parse_response(piece.bytes) else { return };
        let name: Arc<str> = answer.name.into();
        for address in answer.addresses {
            self.names.learn(piece.library, address, &name);
        }
    }
}

/// Identifiers of the latest connections that ended, so that a late record does not bring one back.
#[derive(Debug, Default)]
struct Recent {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Recent {
    const CAPACITY: usize = 65_536;

    fn insert(&mut self, id: u64) {
        if self.known.insert(id) {
            self.order.push_back(id);
        }
        while self.order.len() > Self::CAPACITY {
            let Some(oldest) = self.order.pop_front() else { break };
            self.known.remove(&oldest);
        }
    }

    fn contains(&self, id: u64) -> bool {
        self.known.contains(&id)
    }
}

impl Live {
    fn new(socket: &Socket, process: Arc<Process>, name: Option<(Arc<str>, NameSource)>) -> Self {
        let connection = Connection {
            id: socket.cookie,
            process,
            local: socket.local,
            remote: socket.remote,
            name,
            bytes_out: 0,
            bytes_in: 0,
            opened: socket.opened,
            established: 0,
            closed: 0,
            rtt_us: 0,
            retransmits: 0,
            protocol: socket.protocol,
            tls: None,
            offered: Vec::new(),
            exchanges: 0,
            verdict: Completeness::Complete,
        };
        Self { connection, hello: Some(Vec::new()), lost: 0, reported: None }
    }

    fn update(&mut self, socket: &Socket) {
        self.lost = self.lost.max(socket.lost);
        let connection = &mut self.connection;
        connection.local = socket.local;
        connection.established = connection.established.max(socket.established);
        connection.closed = socket.closed;
        // Counters are read on several CPUs: one read a moment earlier may arrive a moment later.
        connection.bytes_out = connection.bytes_out.max(socket.bytes_out);
        connection.bytes_in = connection.bytes_in.max(socket.bytes_in);
        connection.retransmits = connection.retransmits.max(socket.retransmits);
        connection.rtt_us = if socket.rtt_us == 0 { connection.rtt_us } else { socket.rtt_us };
        if socket.protocol != Protocol::Unseen {
            connection.protocol = socket.protocol;
        }
        self.connection.verdict = self.verdict();
    }

    fn report(&mut self, last: bool) -> Progress {
        let (out, inn) = self.reported.unwrap_or_default();
        let first = self.reported.is_none();
        self.reported = Some((self.connection.bytes_out, self.connection.bytes_in));
        Progress {
            new_out: self.connection.bytes_out - out,
            new_in: self.connection.bytes_in - inn,
            connection: self.connection.clone(),
            first,
            last,
        }
    }

    fn verdict(&self) -> Completeness {
        let opaque = |reason: &str| Completeness::Opaque { reason: reason.to_owned() };
        match self.connection.protocol {
            Protocol::Unseen if self.connection.bytes_out + self.connection.bytes_in == 0 => {
                Completeness::Complete
            }
            Protocol::Unseen => opaque("the first bytes were not seen"),
            Protocol::Http2 => opaque("HTTP/2 is not decoded yet"),
            Protocol::Other => opaque("not a protocol that we know"),
            Protocol::Http1 => opaque("HTTP/1 is not decoded yet"),
            Protocol::Tls => opaque(self.connection.tls.unwrap_or(Tls::Unknown).name()),
        }
    }
}
