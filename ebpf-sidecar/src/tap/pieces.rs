//! What payload tells: names, and exchanges of plain and of TLS streams.

use std::sync::Arc;

use super::{
    NameSource, Observer,
    exchange::{observe, tell_of_loose},
    stream::{self, Stream},
};
use crate::{
    identity::executable::Tls,
    wire::{
        client_hello::{self, Hello},
        dns,
        exchange::{self, End, Understanding},
        record::Piece,
    },
};

/// How long a stream that was freed in the middle of an exchange waits for the end of its connection.
const FREED_NS: u64 = 5_000_000_000;
/// Streams followed at once. Beyond, new ones are not followed, and counted.
pub(super) const MAX_STREAMS: usize = 32_768;

impl Observer {
    pub(super) fn hello(&mut self, piece: &Piece<'_>) {
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

    pub(super) fn answer(&mut self, piece: &Piece<'_>) {
        let Some(answer) = dns::parse_response(piece.bytes) else { return };
        let name: Arc<str> = answer.name.into();
        for address in answer.addresses {
            self.names.learn(piece.library, address, &name);
        }
    }

    pub(super) fn plain(&mut self, piece: &Piece<'_>) {
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
        live.named_by(&exchanges);
        live.tunnelled_by(stream);
        // Reports go out while the first exchange is under way: by its end they would have been of nobody.
        if live.takes_a_host()
            && let Some(host) = stream.host_under_way()
        {
            live.named(host);
        }
        live.connection.exchanges += exchanges.len() as u64;
        self.out.extend(exchanges.into_iter().map(|http| observe(&live.connection, http, false)));
    }

    pub(super) fn tls(&mut self, piece: &Piece<'_>) {
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
            live.tunnelled_by(stream);
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

    /// The library freed a stream. Its connection may live on: as a rule it is closed a moment later, and that tells who
    /// ended what was under way.
    pub(super) fn tls_freed(&mut self, id: u64, at: u64) {
        let Some(stream) = self.tls.get_mut(&id) else { return };
        let live = self.live.get(&stream.cookie);
        let is_open = live.is_some_and(|live| live.connection.closed == 0 && live.tls_stream == Some(id));
        if is_open && stream.is_under_way() {
            stream.freed = Some(at);
            self.freed.push_back((at.saturating_add(FREED_NS), id));
        } else {
            self.tls_ended(id, at);
        }
    }

    /// Ends a stream that was freed, and whose connection was not closed since: so it was the program, unless the vendor has
    /// closed its half.
    pub(super) fn expire_freed(&mut self, limit: u64) {
        while let Some(&(until, id)) = self.freed.front().filter(|(until, _)| *until <= limit) {
            self.freed.pop_front();
            let Some(cookie) = self.tls.get(&id).map(|stream| stream.cookie) else { continue };
            if let Some(live) = self.live.get_mut(&cookie) {
                live.let_go();
            }
            self.tls_ended(id, until);
        }
    }

    /// Nothing more will come on a stream.
    pub(super) fn tls_ended(&mut self, id: u64, at: u64) {
        let Some(mut stream) = self.tls.remove(&id) else { return };
        let live = self.live.get(&stream.cookie);
        stream.lost = stream.lost.max(live.map_or(0, |live| live.lost));
        let exchanges = stream.close(at, live.map_or(End::Unknown, |live| live.ended_by(true)));
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
    pub(super) fn exited(&mut self, tgid: u32, at: u64) {
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

    /// Tells of exchanges inside TLS whose connection is unknown.
    pub(super) fn tell_of_loose(&mut self, stream: &Stream, exchanges: Vec<exchange::Exchange>) {
        let process = stream.process.clone().or_else(|| self.processes.latest(stream.tgid));
        self.unowned += tell_of_loose(process, stream.cookie, exchanges, &mut self.out);
    }
}
