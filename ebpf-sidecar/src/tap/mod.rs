//! From records to connections and exchanges.
//!
//! [`Observer`] is fed every record in order and, once a second, the counters of the sockets still open. It answers
//! with [`Observation`]s: what a ledger needs and what coverage needs, each byte and each exchange once.

mod connection;
mod stream;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use connection::Live;
pub use connection::{Connection, NameSource, Progress};
use stream::Stream;

use crate::{
    identity::{
        Names, Process, Processes,
        executable::{Executables, Tls},
    },
    wire::{
        client_hello::{self, Hello},
        dns,
        exchange::{self, Understanding},
        record::{Piece, Record, Socket},
    },
};

/// What the observer has to tell.
#[derive(Clone, Debug)]
pub enum Observation {
    /// A connection was opened, moved bytes, or ended.
    Connection(Progress),
    /// An exchange ended.
    Exchange(Exchange),
}

/// An HTTP exchange, and who made it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Who made the call.
    pub process: Arc<Process>,
    /// The connection that carried it, where it is known.
    pub connection: Option<u64>,
    /// Whether it travelled inside TLS.
    pub tls: bool,
    /// The vendor's host: the `Host` field, else the connection's name, else its address.
    pub host: String,
    /// The vendor's port.
    pub port: u16,
    /// What was exchanged. Times are `CLOCK_MONOTONIC` nanoseconds.
    pub http: exchange::Exchange,
}

/// Streams followed at once. Beyond, new ones are not followed, and counted.
const MAX_STREAMS: usize = 32_768;

/// How long a closed connection waits for what the TLS library still returns of it.
const LINGER_NS: u64 = 500_000_000;

/// Joins records into observations. Its memory is bounded by the kernel's maps and the caps of its parts.
#[derive(Debug, Default)]
pub struct Observer {
    processes: Processes,
    names: Names,
    executables: Executables,
    live: HashMap<u64, Live>,
    /// Until when, and whom, as in `ended`.
    lingering: VecDeque<(u64, (u64, u64))>,
    tls: HashMap<u64, Stream>,
    plain: HashMap<u64, Stream>,
    /// Processes with TLS streams whose socket is unknown.
    loose: HashSet<u32>,
    ended: Recent,
    fresh: Vec<Fresh>,
    out: Vec<Observation>,
    /// Bytes that plain streams keep until earlier ones come.
    stashed: usize,
    undecodable: u64,
    unfollowed: u64,
    unowned: u64,
}

/// A process that may map libraries which nobody has probed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// It has just executed a program: libraries come in the next milliseconds.
    Executed(u32),
    /// It connects: what it needs for that is mapped.
    Connecting(u32),
}

impl Observer {
    /// Takes one record of the ring buffer.
    pub fn record(&mut self, bytes: &[u8]) {
        match Record::decode(bytes) {
            Some(Record::Open(socket)) => {
                self.fresh.push(Fresh::Connecting(socket.tgid));
                self.seen(&socket);
            }
            Some(Record::Up(socket)) => {
                self.seen(&socket);
            }
            Some(Record::Close(socket)) => self.closed(&socket),
            Some(Record::Exec(execution)) => {
                self.fresh.push(Fresh::Executed(execution.tgid));
                self.executables.forget(execution.tgid, execution.started);
                self.processes.executed(&execution);
            }
            Some(Record::Exit { tgid, at }) => self.exited(tgid, at),
            Some(Record::Hello(piece)) => self.hello(&piece),
            Some(Record::Dns(piece)) => self.answer(&piece),
            Some(Record::Plain(piece)) => self.plain(&piece),
            Some(Record::Tls(piece)) => self.tls(&piece),
            Some(Record::TlsEnd { stream, at }) => self.tls_ended(stream, at),
            None => self.undecodable += 1,
        }
    }

    /// Takes over a socket that was open before we looked. Its bytes until now are none of ours.
    pub fn adopt(&mut self, socket: &Socket) {
        if self.seen(socket)
            && let Some(live) = self.live.get_mut(&socket.cookie)
        {
            live.begin_here();
        }
    }

    /// Whether it is this connection of the socket that is followed. Where it is not, records of an earlier one may still
    /// wait.
    #[must_use]
    pub fn follows(&self, socket: &Socket) -> bool {
        self.live.get(&socket.cookie).is_some_and(|live| live.connection.opened == socket.opened)
    }

    fn knows_an_earlier(&self, socket: &Socket) -> bool {
        self.live.get(&socket.cookie).is_some_and(|live| live.connection.opened < socket.opened)
    }

    /// Takes the counters, as of `now` in `CLOCK_MONOTONIC` nanoseconds, of a socket that is open.
    pub fn counted(&mut self, socket: &Socket, now: u64) {
        if !self.seen(socket) {
            return;
        }
        let Some(live) = self.live.get_mut(&socket.cookie) else { return };
        if live.has_news() && !live.is_young(now) {
            let stream = stream_of(live, &self.tls, &self.plain);
            self.out.push(Observation::Connection(live.report(stream, false)));
        }
    }

    /// Takes the final counters of a socket. The second time for the same socket does nothing.
    pub fn closed(&mut self, socket: &Socket) {
        if !self.seen(socket) {
            return;
        }
        let Some(live) = self.live.get_mut(&socket.cookie) else { return };
        let at = socket.closed;
        if live.tls_stream.is_some_and(|stream| self.tls.contains_key(&stream)) {
            // The program may still read what has arrived, until it frees the stream.
            self.lingering.push_back((at.saturating_add(LINGER_NS), (socket.cookie, socket.opened)));
        } else {
            self.settle(socket.cookie, at);
        }
    }

    /// Ends what has waited long enough at `now`, in `CLOCK_MONOTONIC` nanoseconds.
    pub fn expire(&mut self, now: u64) {
        self.expire_before(now, now);
    }

    fn expire_before(&mut self, limit: u64, now: u64) {
        while let Some(&(until, (cookie, opened))) =
            self.lingering.front().filter(|(until, _)| *until <= limit)
        {
            self.lingering.pop_front();
            if self.live.get(&cookie).is_some_and(|live| live.connection.opened == opened) {
                self.settle(cookie, now.min(until));
            }
        }
    }

    /// Ends everything at `now`, in `CLOCK_MONOTONIC` nanoseconds, because nobody will look any more. Connections still open
    /// are reported as they are, calls under way with an unknown outcome.
    pub fn finish(&mut self, now: u64) {
        self.expire_before(u64::MAX, now);
        let mut cookies: Vec<u64> = self.live.keys().copied().collect();
        cookies.sort_unstable();
        for cookie in cookies {
            let Some(live) = self.live.get_mut(&cookie) else { continue };
            let tls = live.tls_stream.is_some();
            let mut stream = match live.tls_stream {
                Some(id) => self.tls.remove(&id),
                None => self.plain.remove(&cookie),
            };
            if let Some(stream) = &mut stream {
                let exchanges = stream.abandon(now);
                live.connection.exchanges += exchanges.len() as u64;
                self.out.extend(exchanges.into_iter().map(|http| observe(&live.connection, http, tls)));
            }
            if live.has_news() {
                self.out.push(Observation::Connection(live.report(stream.as_ref(), false)));
            }
        }
        for (_, mut stream) in std::mem::take(&mut self.tls) {
            let exchanges = stream.abandon(now);
            self.tell_of_loose(&stream, exchanges);
        }
        self.plain.clear();
        self.stashed = 0;
    }

    /// Everything learned since the last time.
    pub fn observations(&mut self) -> Vec<Observation> {
        std::mem::take(&mut self.out)
    }

    /// Processes that executed a program or connected since the last time.
    pub fn fresh(&mut self) -> Vec<Fresh> {
        std::mem::take(&mut self.fresh)
    }

    /// How many connections have been seen to open and not to end.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.live.len()
    }

    /// Records that could not be decoded: programs and user space of different builds. Never anything but 0.
    #[must_use]
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Streams that were not followed because too many were open at once.
    #[must_use]
    pub fn unfollowed(&self) -> u64 {
        self.unfollowed
    }

    /// Exchanges that nobody heard of, because their process was unknown.
    #[must_use]
    pub fn unowned(&self) -> u64 {
        self.unowned
    }

    /// Tells of exchanges inside TLS whose connection is unknown.
    fn tell_of_loose(&mut self, stream: &Stream, exchanges: Vec<exchange::Exchange>) {
        let process = stream.process.clone().or_else(|| self.processes.latest(stream.tgid));
        self.unowned += tell_of_loose(process, stream.cookie, exchanges, &mut self.out);
    }

    /// Takes the counters of a connection. Returns `false` for one that has ended. A socket may connect again, after a
    /// refusal for one, and then keeps its cookie.
    fn seen(&mut self, socket: &Socket) -> bool {
        if self.ended.contains((socket.cookie, socket.opened)) {
            return false;
        }
        if self.knows_an_earlier(socket) {
            // Its end was lost; it was then, at the latest.
            if let Some(earlier) = self.live.get_mut(&socket.cookie).map(|live| &mut live.connection) {
                earlier.closed = if earlier.closed == 0 { socket.opened } else { earlier.closed };
            }
            self.settle(socket.cookie, socket.opened);
        }
        let live = self.live.entry(socket.cookie).or_insert_with(|| {
            let process = self.processes.of(socket);
            let name = self.names.of(socket.cgroup, socket.remote.0).map(|name| (name, NameSource::Dns));
            Live::new(socket, process, name)
        });
        let is_latest = live.connection.opened == socket.opened;
        if is_latest {
            live.update(socket);
        }
        is_latest
    }

    /// Reports a connection for the last time.
    fn settle(&mut self, cookie: u64, at: u64) {
        let Some(mut live) = self.live.remove(&cookie) else { return };
        self.ended.insert((cookie, live.connection.opened));
        // In any case: a tunnel has a plain stream below its TLS one.
        let plain = self.plain.remove(&cookie);
        self.stashed -= plain.as_ref().map_or(0, Stream::stashed);
        let mut stream = match live.tls_stream {
            Some(id) => self.tls.remove(&id),
            None => plain,
        };
        if let Some(stream) = &mut stream {
            let exchanges = stream.close(at);
            live.connection.exchanges += exchanges.len() as u64;
            let tls = live.tls_stream.is_some();
            self.out.extend(exchanges.into_iter().map(|http| observe(&live.connection, http, tls)));
        }
        live.process_has_loose_streams = self.loose.contains(&live.connection.process.tgid);
        self.out.push(Observation::Connection(live.report(stream.as_ref(), true)));
    }

    fn hello(&mut self, piece: &Piece<'_>) {
        let Some(live) = self.live.get_mut(&piece.cookie) else { return };
        let Some(bytes) = live.hello.as_mut() else { return };
        if piece.offset != bytes.len() as u64 || bytes.len() + piece.bytes.len() > client_hello::MAX_BYTES {
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
        let process = &live.connection.process;
        live.connection.tls = Some(self.executables.tls_of(process.tgid, process.started));
    }

    fn answer(&mut self, piece: &Piece<'_>) {
        let Some(answer) = dns::parse_response(piece.bytes) else { return };
        let name: Arc<str> = answer.name.into();
        for address in answer.addresses {
            self.names.learn(piece.library, address, &name);
        }
    }

    fn plain(&mut self, piece: &Piece<'_>) {
        let Some(live) = self.live.get_mut(&piece.cookie) else { return };
        if self.plain.len() >= MAX_STREAMS && !self.plain.contains_key(&piece.cookie) {
            self.unfollowed += 1;
            return;
        }
        let process = &live.connection.process;
        let stream = self
            .plain
            .entry(piece.cookie)
            .or_insert_with(|| Stream::new(piece.tgid, Some(Arc::clone(process))));
        let others = self.stashed - stream.stashed();
        let exchanges = stream.unordered(piece, stream::stash_limit(self.stashed));
        self.stashed = others + stream.stashed();
        for http in exchanges {
            live.connection.exchanges += 1;
            if live.connection.name.is_none() && !http.host.is_empty() {
                live.connection.name = Some((http.host.as_str().into(), NameSource::Host));
            }
            self.out.push(observe(&live.connection, http, false));
        }
    }

    fn tls(&mut self, piece: &Piece<'_>) {
        if self.tls.len() >= MAX_STREAMS && !self.tls.contains_key(&piece.stream) {
            self.unfollowed += 1;
            return;
        }
        let processes = &self.processes;
        let stream = self
            .tls
            .entry(piece.stream)
            .or_insert_with(|| Stream::new(piece.tgid, processes.latest(piece.tgid)));
        let exchanges = stream.ordered(piece);
        if stream.cookie == 0 && self.loose.len() < MAX_STREAMS {
            self.loose.insert(piece.tgid);
        }
        if let Some(live) = self.live.get_mut(&stream.cookie) {
            // It may have been gone before anybody looked at what it maps; that this library served it is certain.
            if matches!(live.connection.tls, None | Some(Tls::Unknown)) {
                live.connection.tls = Some(Tls::OpenSsl);
            }
            // Of TLS inside TLS, the outer stream is a tunnel: the connection is what the inner one is.
            let says_more = !matches!(stream.understanding(), Understanding::Opaque(_));
            if says_more || (live.tls_stream.is_none() && live.past.is_none()) {
                live.tls_stream = Some(piece.stream);
            }
            live.connection.exchanges += exchanges.len() as u64;
            self.out.extend(exchanges.into_iter().map(|http| observe(&live.connection, http, true)));
        } else if !exchanges.is_empty() {
            let process = stream.process.clone().or_else(|| self.processes.latest(piece.tgid));
            self.unowned += tell_of_loose(process, stream.cookie, exchanges, &mut self.out);
        }
    }

    /// The library freed a stream. Its connection may live on.
    fn tls_ended(&mut self, id: u64, at: u64) {
        let Some(mut stream) = self.tls.remove(&id) else { return };
        let exchanges = stream.close(at);
        match self.live.get_mut(&stream.cookie) {
            Some(live) => {
                live.connection.exchanges += exchanges.len() as u64;
                let its = live.tls_stream == Some(id);
                if its {
                    live.past = Some(stream.understanding());
                    live.tls_stream = None;
                }
                let closed = live.connection.closed != 0;
                self.out.extend(exchanges.into_iter().map(|http| observe(&live.connection, http, true)));
                if closed && its {
                    self.settle(stream.cookie, at);
                }
            }
            None => self.tell_of_loose(&stream, exchanges),
        }
    }

    /// A process ended without freeing its streams. Those with a socket end with it.
    fn exited(&mut self, tgid: u32, at: u64) {
        self.loose.remove(&tgid);
        let ended: Vec<u64> = self
            .tls
            .iter()
            .filter(|(_, stream)| stream.tgid == tgid)
            .filter(|(_, stream)| {
                self.live.get(&stream.cookie).is_none_or(|live| live.connection.closed != 0)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            self.tls_ended(id, at);
        }
    }
}

fn stream_of<'a>(
    live: &Live,
    tls: &'a HashMap<u64, Stream>,
    plain: &'a HashMap<u64, Stream>,
) -> Option<&'a Stream> {
    match live.tls_stream {
        Some(id) => tls.get(&id),
        None => plain.get(&live.connection.id),
    }
}

fn observe(connection: &Connection, http: exchange::Exchange, tls: bool) -> Observation {
    let host = match (&http.host, &connection.name) {
        (host, _) if !host.is_empty() => host.clone(),
        (_, Some((name, _))) => name.to_string(),
        (_, None) => connection.remote.0.to_string(),
    };
    Observation::Exchange(Exchange {
        process: Arc::clone(&connection.process),
        connection: Some(connection.id),
        tls,
        host,
        port: http.port.unwrap_or(connection.remote.1),
        http,
    })
}

/// Tells of exchanges inside TLS whose connection nobody follows. How many had no process.
fn tell_of_loose(
    process: Option<Arc<Process>>,
    cookie: u64,
    mut exchanges: Vec<exchange::Exchange>,
    out: &mut Vec<Observation>,
) -> u64 {
    // Over a socket that was left out, to this machine: a proxy's, whose tunnels lead to whom their requests name.
    exchanges.retain(|http| cookie == 0 || !is_this_machine(&http.host));
    let Some(process) = process else { return exchanges.len() as u64 };
    out.extend(exchanges.into_iter().map(|http| observe_loose(&process, http)));
    0
}

/// Whether a request's host is the machine that it is made on.
fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// An exchange inside TLS whose socket is unknown.
fn observe_loose(process: &Arc<Process>, http: exchange::Exchange) -> Observation {
    Observation::Exchange(Exchange {
        process: Arc::clone(process),
        connection: None,
        tls: true,
        host: http.host.clone(),
        port: http.port.unwrap_or(443),
        http,
    })
}

/// Cookies and openings of the latest connections that ended, so that a late record does not bring one back.
#[derive(Debug, Default)]
struct Recent {
    known: HashSet<(u64, u64)>,
    order: VecDeque<(u64, u64)>,
}

impl Recent {
    const CAPACITY: usize = 65_536;

    fn insert(&mut self, id: (u64, u64)) {
        if self.known.insert(id) {
            self.order.push_back(id);
        }
        while self.order.len() > Self::CAPACITY {
            let Some(oldest) = self.order.pop_front() else { break };
            self.known.remove(&oldest);
        }
    }

    fn contains(&self, id: (u64, u64)) -> bool {
        self.known.contains(&id)
    }
}

#[cfg(test)]
mod tests;
