//! From records to connections and exchanges.
//!
//! [`Observer`] is fed every record in order and, once a second, the counters of the sockets still open. It answers
//! with [`Observation`]s: what a ledger needs and what coverage needs, each byte and each exchange once.

mod connection;
mod exchange;
mod pieces;
mod recent;
mod stream;

use std::collections::{HashMap, HashSet, VecDeque};

use connection::Live;
pub use connection::{Connection, NameSource, Progress};
pub use exchange::Exchange;
use exchange::observe;
use recent::Recent;
use stream::Stream;

use crate::{
    clock,
    identity::{Hosts, Names, Processes, executable::Executables},
    wire::record::{Record, Socket},
};

/// What the observer has to tell.
#[derive(Clone, Debug)]
pub enum Observation {
    /// A connection was opened, moved bytes, or ended.
    Connection(Progress),
    /// An exchange ended.
    Exchange(Exchange),
}

/// How long a closed connection waits for what the TLS library still returns of it.
const LINGER_NS: u64 = 500_000_000;

/// Joins records into observations. Its memory is bounded by the kernel's maps and the caps of its parts.
#[derive(Debug, Default)]
pub struct Observer {
    processes: Processes,
    names: Names,
    hosts: Hosts,
    executables: Executables,
    live: HashMap<u64, Live>,
    /// Until when, and whom, as in `ended`.
    lingering: VecDeque<(u64, (u64, u64))>,
    tls: HashMap<u64, Stream>,
    /// Until when, and which of those in `tls` were freed.
    freed: VecDeque<(u64, u64)>,
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

/// What became of a process: it may map libraries which nobody has probed yet, or have connections that nobody follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// It has just executed a program: libraries come in the next milliseconds.
    Executed(u32),
    /// It connects: what it needs for that is mapped.
    Connecting(u32),
    /// It was moved into the cgroup, or from one cgroup of the scope to another, with what it has open and mapped.
    Moved(u32),
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
                // It may be gone when its connection is told of.
                self.hosts.look(execution.cgroup, execution.tgid, clock::monotonic());
                self.processes.executed(&execution);
            }
            Some(Record::Moved(execution)) => {
                self.fresh.push(Fresh::Moved(execution.tgid));
                self.hosts.look(execution.cgroup, execution.tgid, clock::monotonic());
                self.processes.moved(&execution);
            }
            Some(Record::Exit { tgid, at }) => self.exited(tgid, at),
            Some(Record::Hello(piece)) => self.hello(&piece),
            Some(Record::Dns(piece)) => self.answer(&piece),
            Some(Record::Plain(piece)) => self.plain(&piece),
            Some(Record::Tls(piece)) => self.tls(&piece),
            Some(Record::TlsEnd { stream, at }) => self.tls_freed(stream, at),
            None => self.undecodable += 1,
        }
    }

    /// Takes over a socket that was open before it was followed. Its bytes until now are none of ours.
    pub fn adopt(&mut self, socket: &Socket) {
        if self.seen(socket)
            && let Some(live) = self.live.get_mut(&socket.cookie)
        {
            live.begin_here(socket.foreign);
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
        let tls_stream = live.tls_stream.and_then(|stream| self.tls.get(&stream));
        if tls_stream.is_some_and(|stream| stream.freed.is_none()) {
            // The program may still read what has arrived, until it frees the stream.
            self.lingering.push_back((at.saturating_add(LINGER_NS), (socket.cookie, socket.opened)));
        } else {
            self.settle(socket.cookie, at);
        }
    }

    /// Ends what has waited long enough at `now`, in `CLOCK_MONOTONIC` nanoseconds.
    pub fn expire(&mut self, now: u64) {
        self.expire_freed(now);
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
                if !tls {
                    live.named_by(&exchanges);
                }
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

    /// Processes that executed a program, connected or were moved since the last time.
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

    /// How often a hosts file could not be read that may have had a connection's name.
    #[must_use]
    pub fn unread_hosts(&self) -> u64 {
        self.hosts.unread()
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
            let (cgroup, address) = (socket.cgroup, socket.remote.0);
            let name = self.names.of(cgroup, address).map(|name| (name, NameSource::Dns)).or_else(|| {
                self.hosts.look(cgroup, socket.tgid, socket.opened);
                self.hosts.of(cgroup, address).map(|name| (name, NameSource::Hosts))
            });
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
            stream.lost = stream.lost.max(live.lost);
            let tls = live.tls_stream.is_some();
            let exchanges = stream.close(at, live.ended_by(tls));
            if !tls {
                // A request whose answer never began is told of only here.
                live.named_by(&exchanges);
            }
            live.connection.exchanges += exchanges.len() as u64;
            self.out.extend(exchanges.into_iter().map(|http| observe(&live.connection, http, tls)));
        }
        live.process_has_loose_streams = self.loose.contains(&live.connection.process.tgid);
        self.out.push(Observation::Connection(live.report(stream.as_ref(), true)));
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

#[cfg(test)]
mod tests;
