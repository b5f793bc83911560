//! A connection: what is known of it while it lives, and the verdict on it.

use std::{net::IpAddr, sync::Arc};

use serde::Serialize;

use super::{exchange::unbracketed, stream::Stream};
use crate::{
    coverage::Completeness,
    identity::{Process, executable::Tls},
    wire::{
        exchange::{self, End, Understanding},
        record::{Protocol, Socket},
    },
};

/// Where a connection's name comes from, the most certain first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NameSource {
    /// The server name that the client sent in its ClientHello.
    Sni,
    /// The DNS answer that gave the address.
    Dns,
    /// The `Host` field of a plaintext request.
    Host,
    /// The hosts file that the process sees, where it has this name alone for the address.
    Hosts,
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
    /// The host that it is a tunnel to, where it leads through a proxy (CONNECT).
    pub tunnel: Option<Arc<str>>,
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

/// Since when a connection is followed that was open before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joined {
    /// Since we began to look.
    Start,
    /// Since its process was moved into the cgroup.
    Move,
}

/// How long a connection may take until its first call shows.
const YOUNG_NS: u64 = 5_000_000_000;

/// A connection that is open, or closed a moment ago.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) connection: Connection,
    /// The ClientHello so far; `None` once it is read or hopeless.
    pub(super) hello: Option<Vec<u8>>,
    /// The TLS library's stream on this socket.
    pub(super) tls_stream: Option<u64>,
    /// What was understood of streams that have ended.
    pub(super) past: Option<Understanding>,
    /// Whether its process has TLS streams without a socket.
    pub(super) process_has_loose_streams: bool,
    /// Since when it is followed, where it was open before.
    joined: Option<Joined>,
    pub(super) lost: u32,
    ended: End,
    unread: bool,
    reported: Option<(u64, u64)>,
}

impl Live {
    pub(super) fn new(socket: &Socket, process: Arc<Process>, name: Option<(Arc<str>, NameSource)>) -> Self {
        let connection = Connection {
            id: socket.cookie,
            process,
            local: socket.local,
            remote: socket.remote,
            name,
            tunnel: None,
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
        Self {
            connection,
            hello: Some(Vec::new()),
            tls_stream: None,
            past: None,
            process_has_loose_streams: false,
            joined: None,
            lost: 0,
            ended: End::Unknown,
            unread: false,
            reported: None,
        }
    }

    /// Takes the kernel's counters.
    pub(super) fn update(&mut self, socket: &Socket) {
        self.lost = self.lost.max(socket.lost);
        if socket.ended != End::Unknown {
            (self.ended, self.unread) = (socket.ended, socket.unread);
        }
        let connection = &mut self.connection;
        connection.local = socket.local;
        connection.established = connection.established.max(socket.established);
        connection.closed = connection.closed.max(socket.closed);
        // Counters are read on several CPUs: one read a moment earlier may arrive a moment later.
        connection.bytes_out = connection.bytes_out.max(socket.bytes_out);
        connection.bytes_in = connection.bytes_in.max(socket.bytes_in);
        connection.retransmits = connection.retransmits.max(socket.retransmits);
        connection.rtt_us = if socket.rtt_us == 0 { connection.rtt_us } else { socket.rtt_us };
        if socket.protocol != Protocol::Unseen {
            connection.protocol = socket.protocol;
        }
    }

    /// Takes the name that a plaintext request says, where nothing more certain said one.
    pub(super) fn named_by(&mut self, exchanges: &[exchange::Exchange]) {
        if self.takes_a_host()
            && let Some(http) = exchanges.iter().find(|http| !http.host.is_empty())
        {
            self.named(&http.host);
        }
    }

    /// Whether a plaintext request says better than what is known whom the connection leads to.
    pub(super) fn takes_a_host(&self) -> bool {
        matches!(self.connection.name, None | Some((_, NameSource::Hosts)))
    }

    /// Takes the name that a plaintext request says.
    pub(super) fn named(&mut self, host: &str) {
        self.connection.name = Some((unbracketed(host).into(), NameSource::Host));
    }

    /// Takes the host that a stream on it opened a tunnel to.
    pub(super) fn tunnelled_by(&mut self, stream: &Stream) {
        if self.connection.tunnel.is_none() {
            self.connection.tunnel.clone_from(&stream.tunnel);
        }
    }

    /// Notes that the program let go of it, where nobody had ended it.
    pub(super) fn let_go(&mut self) {
        if self.ended == End::Unknown {
            self.ended = End::Program;
        }
    }

    /// Who ended a stream on it. Packets are seen as they come, what TLS carried only as the program reads it: where it left
    /// some, it let go before the vendor's end reached it.
    pub(super) fn ended_by(&self, tls: bool) -> End {
        if tls && self.unread { End::Program } else { self.ended }
    }

    /// Leaves what moved until now out of all reports.
    pub(super) fn begin_here(&mut self, is_foreign: bool) {
        self.joined = Some(if is_foreign { Joined::Move } else { Joined::Start });
        self.reported = Some((self.connection.bytes_out, self.connection.bytes_in));
    }

    /// Whether bytes moved since the last report, or there was none.
    pub(super) fn has_news(&self) -> bool {
        let now = (self.connection.bytes_out, self.connection.bytes_in);
        self.connection.established != 0 && self.reported != Some(now)
    }

    /// Whether it is too early to say anything of it: its handshake may be under way, and its bytes would go under a
    /// verdict that does not last.
    pub(super) fn is_young(&self, now: u64) -> bool {
        let connection = &self.connection;
        let is_tls_to_come = self.tls_stream.is_none() && self.past.is_none();
        let undecided = match connection.protocol {
            // Any other protocol may be a proxy's (SOCKS), with TLS to a vendor behind its greeting.
            Protocol::Tls | Protocol::Unseen | Protocol::Other => is_tls_to_come,
            Protocol::Http1 if connection.tunnel.is_some() => is_tls_to_come,
            // The head of its first request may still be on its way.
            Protocol::Http1 | Protocol::Http2 => self.joined.is_none() && self.takes_a_host(),
        };
        undecided && now.saturating_sub(connection.established) < YOUNG_NS
    }

    /// A report of it, with the verdict so far.
    pub(super) fn report(&mut self, stream: Option<&Stream>, last: bool) -> Progress {
        let (out, inn) = self.reported.unwrap_or_default();
        let first = self.reported.is_none();
        self.connection.verdict = self.verdict(stream);
        self.reported = Some((self.connection.bytes_out, self.connection.bytes_in));
        Progress {
            new_out: self.connection.bytes_out - out,
            new_in: self.connection.bytes_in - inn,
            connection: self.connection.clone(),
            first,
            last,
        }
    }

    fn verdict(&self, stream: Option<&Stream>) -> Completeness {
        let connection = &self.connection;
        let lost = self.lost.max(stream.map_or(0, |stream| stream.lost));
        let understanding = stream.map(Stream::understanding);
        // What a TLS library had to say on it says more than the plain stream below, which is a tunnel where there is one.
        let understanding = if self.tls_stream.is_some() {
            understanding.or_else(|| self.past.clone())
        } else {
            self.past.clone().or(understanding)
        };
        match (connection.protocol, understanding) {
            _ if connection.bytes_out + connection.bytes_in == 0 => Completeness::Complete,
            (Protocol::Other, None) => opaque("the protocol is unknown"),
            (Protocol::Http2, None) => opaque("its first bytes were not seen"),
            (Protocol::Unseen, None) if self.joined.is_some() => opaque(self.how_it_joined()),
            (Protocol::Unseen, None) if connection.bytes_out == 0 => {
                opaque("the server spoke first: not HTTP")
            }
            (Protocol::Unseen, None) => opaque("its first bytes were not seen"),
            (Protocol::Tls, None) => opaque(&self.why_tls_is_opaque()),
            (_, Some(Understanding::Opaque(reason))) => opaque(reason),
            (_, Some(Understanding::Broken { .. })) if connection.exchanges == 0 && lost == 0 => {
                opaque(self.why_it_is_not_understood())
            }
            (_, Some(_) | None) if lost > 0 => Completeness::Lost { events: u64::from(lost) },
            (_, Some(Understanding::Broken { at })) => Completeness::Truncated { at },
            (_, Some(Understanding::Whole) | None) => Completeness::Complete,
        }
    }

    /// Why there was no exchange in what was read.
    fn why_it_is_not_understood(&self) -> &'static str {
        match () {
            // In the middle of HTTP/2 the header compression is not known, and nothing tells it from other protocols.
            () if self.connection.offered.iter().any(|name| name == "h2") => {
                "HTTP/2 whose beginning was not seen, or no HTTP"
            }
            () if self.joined.is_some() => self.how_it_joined(),
            () => "what it carries is not HTTP",
        }
    }

    /// Why its beginning is not known.
    fn how_it_joined(&self) -> &'static str {
        match self.joined {
            Some(Joined::Move) => "it was open before its process was moved into the cgroup",
            _ => "it was open before we looked",
        }
    }

    fn why_tls_is_opaque(&self) -> String {
        match self.connection.tls {
            Some(Tls::OpenSsl) if self.process_has_loose_streams => {
                "the program does the I/O of OpenSSL itself (memory BIO): its calls are seen, but not joined with this socket".to_owned()
            }
            // It maps OpenSSL, which says nothing of what this connection used.
            Some(Tls::OpenSsl) => {
                "nothing crossed SSL_read or SSL_write of OpenSSL's shared library since it was probed: the program may use BIO_read and BIO_write, or another TLS library for it".to_owned()
            }
            Some(Tls::Unknown) | None => {
                format!("unknown TLS implementation in {}", self.connection.process.executable)
            }
            Some(tls) => format!("{}: not tapped yet", tls.name()),
        }
    }
}

fn opaque(reason: &str) -> Completeness {
    Completeness::Opaque { reason: reason.to_owned() }
}
