//! HTTP/2 in both directions of one connection (RFC 9113), followed from its first byte.
//!
//! Header compression makes every header block depend on those before it. So a conversation is understood from its
//! preface on, and once bytes of a header block are missing, or make no sense, the rest is unknown for good. Content is
//! counted by frame and never kept.

mod hpack;
mod huffman;

use std::collections::HashMap;

use hpack::{Decoder, Field, Name};

use super::{
    exchange::{Chunk, End, Exchange, Outcome, Understanding},
    record::Direction,
};

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Streams that are open at once at most; more are not believed.
const MAX_STREAMS: usize = 4_096;
/// Longest header block, with its continuations.
const MAX_BLOCK: usize = 256 * 1024;
/// Longest path that is kept; the rest is cut.
const MAX_PATH: usize = 16 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const FRAME_HEAD: usize = 9;

/// One direction.
#[derive(Debug, Default)]
struct Side {
    preface_left: usize,
    head: Vec<u8>,
    frame: Option<Frame>,
    /// Header block under way: stream, whether it ends the stream, and its bytes.
    block: Option<(u32, bool, Vec<u8>)>,
    decoder: Decoder,
    offset: u64,
}

/// A frame whose payload is under way.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    left: usize,
    /// Payload that is kept: of frames with header blocks, and the first octet of padded ones.
    kept: Vec<u8>,
    /// Octets of padding at the end of a DATA frame, once known.
    padding: usize,
    /// Whether the padding's length is still to come.
    padding_unread: bool,
}

#[derive(Debug)]
struct Stream {
    exchange: Exchange,
    sent: bool,
    answered: bool,
}

/// Both directions of one connection.
#[derive(Debug)]
pub struct Conversation {
    sides: [Side; 2],
    streams: HashMap<u32, Stream>,
    done: Vec<Exchange>,
    broken_at: Option<u64>,
}

impl Default for Conversation {
    fn default() -> Self {
        let sides = [Side { preface_left: PREFACE.len(), ..Side::default() }, Side::default()];
        Self { sides, streams: HashMap::new(), done: Vec::new(), broken_at: None }
    }
}

/// The bytes are no HTTP/2, or beyond our bounds.
struct Malformed;

impl Conversation {
    /// Takes the next bytes of one direction.
    pub fn feed(&mut self, direction: Direction, chunk: Chunk<'_>) {
        let side = &mut self.sides[direction as usize];
        let start = side.offset;
        side.offset = start.saturating_add(chunk.bytes.len() as u64);
        if self.broken_at.is_none() && self.follow(direction, chunk).is_err() {
            self.lose(start, chunk.at);
        }
    }

    /// Says that the next bytes of one direction were not seen. Content may be missing; nothing else.
    pub fn skip(&mut self, direction: Direction, missing: u64, at: u64) {
        let side = &mut self.sides[direction as usize];
        let start = side.offset;
        side.offset = start.saturating_add(missing);
        if self.broken_at.is_some() || missing == 0 {
            return;
        }
        let Some(frame) = side.frame.as_mut().filter(|frame| frame.can_miss(missing)) else {
            return self.lose(start, at);
        };
        let missing = missing as usize;
        let content = frame.content(missing);
        frame.left -= missing;
        let stream = frame.stream;
        self.content(direction, stream, content);
        self.end_frame(direction, at);
    }

    /// Says that the connection has ended, and by whom: what is open is broken off.
    pub fn close(&mut self, at: u64, by: End) {
        let broken = self.broken_at.is_some();
        let mut open: Vec<_> = self.streams.drain().collect();
        open.sort_unstable_by_key(|(id, _)| *id);
        for (_, stream) in open {
            let outcome = if broken { Outcome::Unknown } else { stream.broken_off(by) };
            self.done.push(Exchange { outcome, ended: at, ..stream.exchange });
        }
    }

    /// The exchanges that ended since the last time.
    pub fn exchanges(&mut self) -> Vec<Exchange> {
        std::mem::take(&mut self.done)
    }

    /// Host of the oldest request under way that says one.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        let saying = self.streams.iter().filter_map(|(id, stream)| Some((id, stream.exchange.said_host()?)));
        saying.min_by_key(|(id, _)| **id).map(|(_, host)| host)
    }

    /// Whether a request waits for its answer, or the rest of it.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        !self.streams.is_empty()
    }

    /// How much is understood so far.
    #[must_use]
    pub fn understanding(&self) -> Understanding {
        self.broken_at.map_or(Understanding::Whole, |at| Understanding::Broken { at })
    }

    fn follow(&mut self, direction: Direction, chunk: Chunk<'_>) -> Result<(), Malformed> {
        let mut rest = chunk.bytes;
        while !rest.is_empty() {
            let side = &mut self.sides[direction as usize];
            if side.preface_left > 0 {
                let len = side.preface_left.min(rest.len());
                let at = PREFACE.len() - side.preface_left;
                if rest[..len] != PREFACE[at..at + len] {
                    return Err(Malformed);
                }
                side.preface_left -= len;
                rest = &rest[len..];
                continue;
            }
            let Some(frame) = &mut side.frame else {
                let len = (FRAME_HEAD - side.head.len()).min(rest.len());
                side.head.extend_from_slice(&rest[..len]);
                rest = &rest[len..];
                if side.head.len() == FRAME_HEAD {
                    let frame = Frame::begin(&side.head);
                    side.head.clear();
                    // Nothing may come between the parts of a header block (RFC 9113 section 4.3).
                    let continues = side.block.as_ref().map(|(stream, ..)| *stream);
                    if continues.is_some_and(|stream| frame.kind != CONTINUATION || frame.stream != stream)
                        || (continues.is_none() && frame.kind == CONTINUATION)
                    {
                        return Err(Malformed);
                    }
                    side.frame = Some(frame);
                    self.finish_frame(direction, chunk)?;
                }
                continue;
            };
            let taken = frame.left.min(rest.len());
            let content = frame.take(&rest[..taken])?;
            rest = &rest[taken..];
            let stream = frame.stream;
            self.content(direction, stream, content);
            self.finish_frame(direction, chunk)?;
        }
        Ok(())
    }

    fn content(&mut self, direction: Direction, stream: u32, content: usize) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            match direction {
                Direction::Out => stream.exchange.body_out += content as u64,
                Direction::In => stream.exchange.body_in += content as u64,
            }
        }
    }

    /// Acts on a frame whose payload is complete.
    fn finish_frame(&mut self, direction: Direction, chunk: Chunk<'_>) -> Result<(), Malformed> {
        let side = &mut self.sides[direction as usize];
        let Some(frame) = side.frame.take_if(|frame| frame.left == 0) else { return Ok(()) };
        match frame.kind {
            DATA if frame.flags & END_STREAM != 0 => self.end_stream(direction, frame.stream, chunk.at),
            RST_STREAM => self.reset(direction, &frame, chunk.at),
            HEADERS | PUSH_PROMISE | CONTINUATION => {
                let fragment = frame.fragment()?;
                let (stream, ends, block) = side
                    .block
                    .get_or_insert_with(|| (frame.stream, frame.flags & END_STREAM != 0, Vec::new()));
                if frame.kind == PUSH_PROMISE {
                    // It decides on a promised stream that nobody asked for; only the table must follow.
                    (*stream, *ends) = (0, false);
                }
                block.extend_from_slice(fragment);
                if block.len() > MAX_BLOCK {
                    return Err(Malformed);
                }
                if frame.flags & END_HEADERS != 0
                    && let Some((stream, ends, block)) = side.block.take()
                {
                    let fields = side.decoder.decode(&block).map_err(|_| Malformed)?;
                    self.headers(direction, stream, &fields, chunk)?;
                    if ends {
                        self.end_stream(direction, stream, chunk.at);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The same where the end of the payload was not seen: only content can be missing.
    fn end_frame(&mut self, direction: Direction, at: u64) {
        let side = &mut self.sides[direction as usize];
        if let Some(frame) = side.frame.take_if(|frame| frame.left == 0)
            && frame.kind == DATA
            && frame.flags & END_STREAM != 0
        {
            self.end_stream(direction, frame.stream, at);
        }
    }

    fn headers(
        &mut self,
        direction: Direction,
        id: u32,
        fields: &[Field],
        chunk: Chunk<'_>,
    ) -> Result<(), Malformed> {
        let value =
            |name: Name| fields.iter().find(|field| field.name == name).map(|field| field.value.as_str());
        match direction {
            Direction::Out => {
                // The second block of a stream is its trailers.
                let Some(method) = value(Name::Method).filter(|_| !self.streams.contains_key(&id)) else {
                    return Ok(());
                };
                if self.streams.len() == MAX_STREAMS {
                    return Err(Malformed);
                }
                let authority = value(Name::Authority).or_else(|| value(Name::Host)).unwrap_or_default();
                let (host, port) = super::http1::split_authority(authority);
                let path = value(Name::Path).unwrap_or_default();
                let path = &path[..path.find(['?', '#']).unwrap_or(path.len())];
                let path = path[..path.floor_char_boundary(MAX_PATH)].to_owned();
                let exchange = Exchange {
                    method: method.to_owned(),
                    host,
                    port,
                    path,
                    status: 0,
                    begun: chunk.begun,
                    head: 0,
                    ended: 0,
                    body_out: 0,
                    body_in: 0,
                    outcome: Outcome::Complete,
                    stated: Vec::new(),
                    bent: false,
                };
                self.streams.insert(id, Stream { exchange, sent: false, answered: false });
            }
            Direction::In => {
                let status = value(Name::Status).and_then(|status| status.parse::<u16>().ok());
                if let (Some(status @ 200..), Some(stream)) = (status, self.streams.get_mut(&id))
                    && stream.exchange.status == 0
                {
                    stream.exchange.status = status;
                    stream.exchange.head = chunk.at;
                    let stated = fields.iter().filter_map(|field| match field.name {
                        Name::Stated(place) => Some((place.name(), field.value.clone())),
                        _ => None,
                    });
                    stream.exchange.stated = stated.collect();
                }
            }
        }
        Ok(())
    }

    fn end_stream(&mut self, direction: Direction, id: u32, at: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match direction {
            Direction::Out => stream.sent = true,
            Direction::In => stream.answered = true,
        }
        if stream.sent && stream.answered {
            self.settle(id, at, Outcome::Complete);
        }
    }

    /// A stream was reset. Where the answer was complete, the rest of the request was merely unwanted.
    fn reset(&mut self, direction: Direction, frame: &Frame, at: u64) {
        if let Some(stream) = self.streams.get(&frame.stream) {
            let outcome = match direction {
                Direction::In => stream.broken_off(End::Vendor),
                Direction::Out if frame.blames_the_peer() && !stream.answered => Outcome::Malformed,
                Direction::Out => stream.broken_off(End::Program),
            };
            self.settle(frame.stream, at, outcome);
        }
    }

    fn settle(&mut self, id: u32, at: u64, outcome: Outcome) {
        if let Some(stream) = self.streams.remove(&id) {
            self.done.push(Exchange { outcome, ended: at, ..stream.exchange });
        }
    }

    fn lose(&mut self, offset: u64, at: u64) {
        self.broken_at = Some(offset);
        self.close(at, End::Unknown);
        self.sides = [
            Side { offset: self.sides[0].offset, ..Side::default() },
            Side { offset: self.sides[1].offset, ..Side::default() },
        ];
    }
}

impl Stream {
    fn broken_off(&self, by: End) -> Outcome {
        if self.answered { Outcome::Complete } else { by.cut_off(self.exchange.status) }
    }
}

impl Frame {
    /// From the nine octets of a frame's head (RFC 9113 section 4.1).
    fn begin(head: &[u8]) -> Self {
        let left = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        Self {
            kind,
            flags,
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
            left,
            kept: Vec::new(),
            padding: 0,
            padding_unread: kind == DATA && flags & PADDED != 0,
        }
    }

    /// Takes payload. Returns how much of it is content.
    fn take(&mut self, mut payload: &[u8]) -> Result<usize, Malformed> {
        if self.is_read() {
            self.kept.extend_from_slice(payload);
            if self.kept.len() > MAX_BLOCK {
                return Err(Malformed);
            }
        }
        if self.padding_unread
            && let Some((&padding, tail)) = payload.split_first()
        {
            self.padding_unread = false;
            self.padding = usize::from(padding);
            self.left -= 1;
            payload = tail;
            if self.padding > self.left {
                return Err(Malformed);
            }
        }
        let content = self.content(payload.len());
        self.left -= payload.len();
        Ok(content)
    }

    /// How many of the next `len` octets are content: those of a DATA frame before its padding.
    fn content(&self, len: usize) -> usize {
        if self.kind == DATA { len.min(self.left.saturating_sub(self.padding)) } else { 0 }
    }

    /// Whether octets of the payload may be missing: nothing in them needs to be read.
    fn can_miss(&self, missing: u64) -> bool {
        !(self.is_read() || self.padding_unread) && missing <= self.left as u64
    }

    /// Whether its payload is kept.
    fn is_read(&self) -> bool {
        matches!(self.kind, HEADERS | RST_STREAM | PUSH_PROMISE | CONTINUATION)
    }

    /// Whether it is a reset that finds fault with what came (RFC 9113 section 7): PROTOCOL_ERROR, FLOW_CONTROL_ERROR,
    /// STREAM_CLOSED, FRAME_SIZE_ERROR.
    fn blames_the_peer(&self) -> bool {
        matches!(self.kept.as_slice(), [0, 0, 0, 1 | 3 | 5 | 6])
    }

    /// The part of a header block that the frame carries, without padding and priority (sections 6.2 and 6.6).
    fn fragment(&self) -> Result<&[u8], Malformed> {
        let mut fragment = self.kept.as_slice();
        if self.kind == CONTINUATION {
            return Ok(fragment);
        }
        let mut padding = 0;
        if self.flags & PADDED != 0 {
            let (&len, tail) = fragment.split_first().ok_or(Malformed)?;
            (padding, fragment) = (usize::from(len), tail);
        }
        let fixed = match self.kind {
            PUSH_PROMISE => 4,
            _ if self.flags & PRIORITY != 0 => 5,
            _ => 0,
        };
        let end = fragment.len().checked_sub(padding).filter(|end| *end >= fixed).ok_or(Malformed)?;
        Ok(&fragment[fixed..end])
    }
}

#[cfg(test)]
mod tests;
