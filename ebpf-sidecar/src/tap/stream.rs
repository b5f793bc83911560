//! Pieces of one stream, put in order and followed as HTTP.

use std::{collections::BTreeMap, sync::Arc};

use super::exchange::unbracketed;
use crate::{
    identity::Process,
    wire::{
        exchange::{Chunk, Conversation, End, Exchange, Outcome, Understanding},
        record::{Direction, Piece},
    },
};

/// Bytes kept per direction while an earlier piece is missing: a round trip of a fast network.
const STASH_LIMIT: usize = 4 * 1024 * 1024;
/// Bytes kept over all streams, until each gets by with [`STASH_LEAST`].
const STASH_BUDGET: usize = 64 * 1024 * 1024;
const STASH_LEAST: usize = 256 * 1024;

/// How many bytes a direction of one stream may keep, while all streams keep so many.
pub(super) fn stash_limit(kept: usize) -> usize {
    if kept < STASH_BUDGET { STASH_LIMIT } else { STASH_LEAST }
}

/// One stream in both directions: the plaintext of a TLS library, or of a socket.
#[derive(Debug)]
pub(super) struct Stream {
    conversation: Conversation,
    lanes: [Lane; 2],
    /// Pieces that the kernel could not deliver.
    pub(super) lost: u32,
    /// Exchanges yielded so far.
    pub(super) exchanges: u64,
    /// The socket, 0 while it is unknown.
    pub(super) cookie: u64,
    /// Identifier of the process.
    pub(super) tgid: u32,
    /// The process, where it was known when the stream began.
    pub(super) process: Option<Arc<Process>>,
    /// Host of the latest request.
    pub(super) host: String,
    /// The host that it became a tunnel to (CONNECT).
    pub(super) tunnel: Option<Arc<str>>,
    /// When its library freed it, where who ended it is still to be seen.
    pub(super) freed: Option<u64>,
}

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    next: u64,
    early: BTreeMap<u64, Early>,
    stashed: usize,
}

#[derive(Debug)]
struct Early {
    bytes: Vec<u8>,
    begun: u64,
    at: u64,
    first: bool,
}

impl Stream {
    pub(super) fn new(tgid: u32, process: Option<Arc<Process>>) -> Self {
        Self {
            conversation: Conversation::default(),
            lanes: [Lane::default(), Lane::default()],
            lost: 0,
            exchanges: 0,
            cookie: 0,
            tgid,
            process,
            host: String::new(),
            tunnel: None,
            freed: None,
        }
    }

    /// Takes a piece of a TLS library's plaintext: in order, so whatever is skipped is missing for good.
    pub(super) fn ordered(&mut self, piece: &Piece<'_>) -> Vec<Exchange> {
        self.lost = self.lost.max(piece.lost);
        if piece.cookie != 0 {
            self.cookie = piece.cookie;
        }
        let lane = &mut self.lanes[piece.direction as usize];
        if piece.offset > lane.next {
            self.conversation.skip(piece.direction, piece.offset - lane.next, piece.at);
        }
        lane.next = piece.offset + piece.bytes.len() as u64;
        let chunk = Chunk { bytes: piece.bytes, begun: piece.begun, at: piece.at, boundary: piece.first };
        self.conversation.feed(piece.direction, chunk);
        self.settled()
    }

    /// Takes a piece of a packet: packets come again and out of order, and their offsets count modulo 2^32.
    /// No more than `limit` bytes are kept for later.
    pub(super) fn unordered(&mut self, piece: &Piece<'_>, limit: usize) -> Vec<Exchange> {
        let newly_lost = piece.lost > self.lost;
        self.lost = self.lost.max(piece.lost);
        let lane = &mut self.lanes[piece.direction as usize];
        let distance = (piece.offset as u32).wrapping_sub(lane.next as u32) as i32;
        let Some(offset) = lane.next.checked_add_signed(i64::from(distance)) else { return Vec::new() };
        // What comes again may be cut elsewhere: the longer one has all of the shorter.
        if lane.early.get(&offset).is_none_or(|known| known.bytes.len() < piece.bytes.len()) {
            let early =
                Early { bytes: piece.bytes.to_vec(), begun: piece.begun, at: piece.at, first: piece.first };
            lane.stashed += early.bytes.len();
            if let Some(replaced) = lane.early.insert(offset, early) {
                lane.stashed -= replaced.bytes.len();
            }
        }
        self.advance(piece.direction);
        // What the kernel lost will not come again; what is merely late must not fill our memory.
        if newly_lost {
            self.give_up_waiting(piece.direction);
        }
        while self.lanes[piece.direction as usize].stashed > limit {
            self.give_up_waiting(piece.direction);
        }
        self.settled()
    }

    /// Bytes kept until earlier ones come.
    pub(super) fn stashed(&self) -> usize {
        self.lanes.iter().map(|lane| lane.stashed).sum()
    }

    /// Says that nothing more will come, and who ended it.
    pub(super) fn close(&mut self, at: u64, by: End) -> Vec<Exchange> {
        self.give_up_waiting_for_all();
        let mut exchanges = self.settled();
        self.conversation.close(self.freed.unwrap_or(at), by);
        let mut cut_off = self.settled();
        // The rest of the answer may be among what was lost: that is ours, not the vendor's nor the program's.
        if self.lost > 0 {
            for cut in &mut cut_off {
                if !matches!(cut.outcome, Outcome::Complete | Outcome::Malformed) {
                    cut.outcome = Outcome::Unknown;
                }
            }
        }
        exchanges.append(&mut cut_off);
        exchanges
    }

    /// Says that nobody looks any more: how what is under way will end is unknown.
    pub(super) fn abandon(&mut self, at: u64) -> Vec<Exchange> {
        self.give_up_waiting_for_all();
        let mut exchanges = self.settled();
        let cut_off = self.close(at, End::Unknown);
        exchanges.extend(cut_off.into_iter().map(|cut| Exchange { outcome: Outcome::Unknown, ..cut }));
        exchanges
    }

    fn give_up_waiting_for_all(&mut self) {
        for direction in [Direction::Out, Direction::In] {
            while !self.lanes[direction as usize].early.is_empty() {
                self.give_up_waiting(direction);
            }
        }
    }

    /// Host of the oldest request under way that says one.
    pub(super) fn host_under_way(&self) -> Option<&str> {
        self.conversation.host()
    }

    /// Whether a request waits for its answer, or the rest of it.
    pub(super) fn is_under_way(&self) -> bool {
        self.conversation.is_under_way()
    }

    pub(super) fn understanding(&self) -> Understanding {
        self.conversation.understanding()
    }

    /// Passes on what is next in order.
    fn advance(&mut self, direction: Direction) {
        let lane = &mut self.lanes[direction as usize];
        while let Some(entry) = lane.early.first_entry().filter(|entry| *entry.key() <= lane.next) {
            let (offset, early) = entry.remove_entry();
            lane.stashed -= early.bytes.len();
            let known = usize::try_from(lane.next - offset).unwrap_or(usize::MAX);
            let Some(fresh) = early.bytes.get(known..).filter(|fresh| !fresh.is_empty()) else { continue };
            lane.next += fresh.len() as u64;
            let boundary = early.first && known == 0;
            self.conversation
                .feed(direction, Chunk { bytes: fresh, begun: early.begun, at: early.at, boundary });
        }
    }

    /// Takes the bytes before the earliest piece for missing.
    fn give_up_waiting(&mut self, direction: Direction) {
        let lane = &mut self.lanes[direction as usize];
        let Some((&offset, early)) = lane.early.first_key_value() else { return };
        self.conversation.skip(direction, offset.saturating_sub(lane.next), early.at);
        lane.next = lane.next.max(offset);
        self.advance(direction);
    }

    fn settled(&mut self) -> Vec<Exchange> {
        let mut exchanges = self.conversation.exchanges();
        // Opening a tunnel is not a call: the calls are inside, and the library knows only of those.
        let tunnels = exchanges.extract_if(.., |exchange| exchange.method == "CONNECT");
        if let Some(opened) = tunnels.filter(|tunnel| tunnel.outcome == Outcome::Switched).last() {
            self.tunnel = Some(unbracketed(&opened.host).into());
        }
        self.exchanges += exchanges.len() as u64;
        if let Some(last) = exchanges.last() {
            self.host.clone_from(&last.host);
        }
        exchanges
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(direction: Direction, offset: u64, bytes: &[u8]) -> Piece<'_> {
        Piece {
            cookie: 1,
            stream: 1,
            tgid: 1,
            offset,
            begun: 0,
            at: 0,
            total: bytes.len() as u32,
            lost: 0,
            first: true,
            direction,
            library: 0,
            bytes,
        }
    }

    const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

    #[test]
    fn a_lost_piece_of_a_body_is_counted_and_one_of_a_head_breaks() {
        let mut stream = Stream::new(1, None);
        stream.ordered(&piece(Direction::Out, 0, REQUEST));
        stream.ordered(&piece(Direction::In, 0, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"));
        let exchanges = stream.ordered(&piece(Direction::In, 40 + 90, b"0123456789"));
        assert_eq!(exchanges.first().map(|exchange| exchange.body_in), Some(100));
        assert_eq!(stream.understanding(), Understanding::Whole);
        stream.ordered(&piece(Direction::Out, 500, REQUEST));
        assert_eq!(stream.understanding(), Understanding::Broken { at: REQUEST.len() as u64 });
    }

    #[test]
    fn the_middle_of_a_chunk_may_be_left_out() {
        let mut stream = Stream::new(1, None);
        let head = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\nabc";
        stream.ordered(&piece(Direction::Out, 0, head));
        let mut tail = piece(Direction::Out, head.len() as u64 + 990, b"0123456\r\n0\r\n\r\n");
        tail.first = false;
        stream.ordered(&tail);
        let exchanges =
            stream.ordered(&piece(Direction::In, 0, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(exchanges.first().map(|exchange| exchange.body_out), Some(1000));
        assert_eq!(stream.understanding(), Understanding::Whole);
    }

    #[test]
    fn offsets_of_packets_wrap() {
        let mut stream = Stream::new(1, None);
        stream.lanes[0].next = u64::from(u32::MAX) - 4;
        stream.unordered(&piece(Direction::Out, u64::from(u32::MAX) - 4, &REQUEST[..10]), STASH_LIMIT);
        stream.unordered(&piece(Direction::Out, 5, &REQUEST[10..]), STASH_LIMIT);
        assert_eq!(stream.lanes[0].next, u64::from(u32::MAX) - 4 + REQUEST.len() as u64);
        assert_eq!(stream.understanding(), Understanding::Whole);
    }

    #[test]
    fn what_waits_for_a_missing_packet_is_bounded() {
        let mut stream = Stream::new(1, None);
        let flood = vec![b'x'; 16 * 1024];
        for n in 0..1000 {
            let limit = if n < 300 { STASH_LIMIT } else { STASH_LEAST };
            stream.unordered(&piece(Direction::Out, 1 + n * flood.len() as u64, &flood), limit);
            assert!(stream.stashed() <= limit);
        }
        assert_eq!(stream.understanding(), Understanding::Broken { at: 0 });
    }

    #[test]
    fn a_short_piece_that_comes_again_leaves_the_longer_one() {
        let mut stream = Stream::new(1, None);
        for late in [&REQUEST[5..], &REQUEST[5..9]] {
            assert!(stream.unordered(&piece(Direction::Out, 5, late), STASH_LIMIT).is_empty());
        }
        assert_eq!(stream.stashed(), REQUEST.len() - 5);
        stream.unordered(&piece(Direction::Out, 0, &REQUEST[..5]), STASH_LIMIT);
        assert_eq!((stream.lanes[0].next, stream.stashed()), (REQUEST.len() as u64, 0));
    }

    #[test]
    fn what_is_under_way_when_nobody_looks_any_more_has_an_unknown_end() {
        for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "HTTP/1.1 200 OK\r\n\r\nabc"] {
            let mut stream = Stream::new(1, None);
            stream.ordered(&piece(Direction::Out, 0, REQUEST));
            stream.ordered(&piece(Direction::In, 0, answer.as_bytes()));
            let exchanges = stream.abandon(77);
            assert_eq!(exchanges.len(), 1);
            assert_eq!((exchanges[0].outcome, exchanges[0].ended), (Outcome::Unknown, 77));
        }
    }

    #[test]
    fn what_ends_without_an_answer_is_the_vendors_fault_only_where_nothing_was_lost() {
        for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"] {
            for lost in [0, 1] {
                let mut stream = Stream::new(1, None);
                stream.ordered(&piece(Direction::Out, 0, REQUEST));
                stream.ordered(&piece(Direction::In, 0, answer.as_bytes()));
                stream.lost = lost;
                let unknown = stream.close(77, End::Vendor)[0].outcome == Outcome::Unknown;
                assert_eq!(unknown, lost > 0, "{answer:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn packets_in_any_order_and_again_give_the_same_exchanges(
            cuts in proptest::collection::vec(0usize..200, 1..8),
            other_cuts in proptest::collection::vec(0usize..200, 1..8),
            order in proptest::collection::vec(0usize..1000, 20),
        ) {
            let wire: Vec<u8> = [REQUEST, b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n123456789"].concat();
            let pieces = |cuts: &[usize]| -> Vec<(usize, usize)> {
                let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % wire.len()).chain([0, wire.len()]).collect();
                bounds.sort_unstable();
                bounds.windows(2).map(|pair| (pair[0], pair[1])).collect()
            };
            // What is sent again is cut anew.
            let (pieces, other) = (pieces(&cuts), pieces(&other_cuts));
            let mut stream = Stream::new(1, None);
            let late = order.iter().map(|n| if n % 2 == 0 { pieces[n % pieces.len()] } else { other[n % other.len()] });
            for (start, end) in late.chain(pieces.iter().copied()) {
                stream.unordered(&piece(Direction::Out, start as u64, &wire[start..end]), STASH_LIMIT);
            }
            let exchanges = stream.close(0, End::Vendor);
            prop_assert_eq!(exchanges.len(), 2);
            prop_assert_eq!(exchanges[1].body_out, 9);
            prop_assert_eq!(stream.understanding(), Understanding::Whole);
        }
    }
}
