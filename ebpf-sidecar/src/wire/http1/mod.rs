//! HTTP/1.1 in both directions of one connection (RFC 9112), followed from outside.
//!
//! A [`Conversation`] takes the bytes of both directions as they were seen and yields [`Exchange`]s. It keeps heads
//! while they are incomplete and nothing of bodies. Where bytes are missing or make no sense it stops believing: what
//! was under way is reported as broken off, the call whose answer broke the rules as malformed, and the conversation resumes only where a program begins an operation with a
//! complete request head. Nothing is guessed in between.

mod body;
mod head;

use std::collections::VecDeque;

use body::{Body, NoBody};
use head::MAX_HEAD;

/// Host in lower case without user information, and port, of an authority as HTTP writes it.
pub(super) fn split_authority(authority: &str) -> (String, Option<u16>) {
    head::split_authority(authority)
}
use head::NoHead;

use super::{
    exchange::{Chunk, End, Exchange, Outcome, Understanding},
    record::Direction,
};

/// Requests that wait for their response at most; a longer pipeline is not believed.
const MAX_PENDING: usize = 256;

#[derive(Debug)]
enum Half {
    /// At or in a head; the bytes of an incomplete one.
    Head(Vec<u8>),
    /// In the body of the newest request, or of the response to the oldest.
    Body(Body),
    /// Behind the head of a CONNECT request, until the response says what follows.
    Undecided,
    /// Lost.
    Lost,
}

#[derive(Debug)]
struct Pending {
    exchange: Exchange,
    sent: bool,
    answered: bool,
}

/// Both directions of one connection.
#[derive(Debug)]
pub struct Conversation {
    requests: Half,
    responses: Half,
    pending: VecDeque<Pending>,
    done: Vec<Exchange>,
    offsets: [u64; 2],
    broken_at: Option<u64>,
    opaque: Option<&'static str>,
}

impl Default for Conversation {
    fn default() -> Self {
        Self {
            requests: Half::Head(Vec::new()),
            responses: Half::Head(Vec::new()),
            pending: VecDeque::new(),
            done: Vec::new(),
            offsets: [0; 2],
            broken_at: None,
            opaque: None,
        }
    }
}

impl Conversation {
    /// Takes the next bytes of one direction.
    pub fn feed(&mut self, direction: Direction, chunk: Chunk<'_>) {
        let start = self.offsets[direction as usize];
        self.offsets[direction as usize] = start.saturating_add(chunk.bytes.len() as u64);
        if self.opaque.is_some() || chunk.bytes.is_empty() {
            return;
        }
        match direction {
            Direction::Out => self.feed_requests(chunk, start),
            Direction::In => self.feed_responses(chunk, start),
        }
    }

    /// Says that the next bytes of one direction were not seen.
    pub fn skip(&mut self, direction: Direction, missing: u64, at: u64) {
        let start = self.offsets[direction as usize];
        self.offsets[direction as usize] = start.saturating_add(missing);
        if self.opaque.is_some() || missing == 0 {
            return;
        }
        let half = match direction {
            Direction::Out => &mut self.requests,
            Direction::In => &mut self.responses,
        };
        let done = match half {
            Half::Lost => return,
            Half::Body(body) => body.skip(missing).then(|| body.is_empty()),
            Half::Head(_) | Half::Undecided => None,
        };
        match (done, direction) {
            (Some(done), Direction::Out) => self.request_progress(missing, done, at),
            (Some(done), Direction::In) => self.response_progress(missing, done, at),
            (None, _) => self.lose(start, at),
        }
    }

    /// Says that the connection has ended, and by whom. Messages that only this could end are complete unless the program
    /// let go of them or it broke (RFC 9112 section 8), others broken off.
    pub fn close(&mut self, at: u64, by: End) {
        if matches!(self.responses, Half::Body(Body::UntilClose)) && matches!(by, End::Vendor | End::Unknown)
        {
            self.response_progress(0, true, at);
        }
        let switched = self.opaque.is_some();
        for mut pending in std::mem::take(&mut self.pending) {
            pending.exchange.outcome = match () {
                () if switched => Outcome::Unknown,
                // The server had answered in full and did not want the rest of the request.
                () if pending.answered => Outcome::Complete,
                () => by.cut_off(pending.exchange.status),
            };
            if pending.exchange.outcome != Outcome::Complete {
                pending.exchange.ended = at;
            }
            self.done.push(pending.exchange);
        }
        // What comes all the same belongs to nothing that is known.
        self.requests = Half::Lost;
        self.responses = Half::Lost;
    }

    /// The exchanges that ended since the last time.
    pub fn exchanges(&mut self) -> Vec<Exchange> {
        std::mem::take(&mut self.done)
    }

    /// Host of the oldest request under way that says one.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.pending.iter().find_map(|pending| pending.exchange.said_host())
    }

    /// Whether a request waits for its answer, or the rest of it.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        !self.pending.is_empty()
    }

    /// How much is understood so far.
    #[must_use]
    pub fn understanding(&self) -> Understanding {
        match (self.opaque, self.broken_at) {
            (Some(reason), _) => Understanding::Opaque(reason),
            (None, Some(at)) => Understanding::Broken { at },
            (None, None) => Understanding::Whole,
        }
    }

    fn feed_requests(&mut self, chunk: Chunk<'_>, start: u64) {
        let mut rest = chunk.bytes;
        if matches!(self.requests, Half::Lost) {
            // Resume with a whole head at the beginning of an operation; a part of one could be anything.
            if !chunk.boundary || !head::request(rest).is_ok_and(|request| !request.host.is_empty()) {
                return;
            }
            self.requests = Half::Head(Vec::new());
            self.responses = Half::Lost;
        }
        while !rest.is_empty() {
            let here = start + (chunk.bytes.len() - rest.len()) as u64;
            match &mut self.requests {
                Half::Head(buffer) => match next_head(buffer, &mut rest, head::request) {
                    Ok(request) => {
                        if !self.begin(request, chunk) {
                            return self.lose(here, chunk.at);
                        }
                    }
                    Err(NoHead::Partial) => {
                        return;
                    }
                    Err(NoHead::Http2) => return self.switch("HTTP/2 whose beginning was not seen"),
                    Err(NoHead::Malformed | NoHead::TooLong) => return self.lose(here, chunk.at),
                },
                Half::Body(body) => match body.feed(rest) {
                    Ok(progress) => {
                        rest = &rest[progress.taken..];
                        self.request_progress(progress.content, progress.done, chunk.at);
                    }
                    Err(_) => return self.lose(here, chunk.at),
                },
                Half::Undecided | Half::Lost => return self.lose(here, chunk.at),
            }
        }
    }

    /// Notes a request. Returns `false` where the pipeline is longer than is believed.
    fn begin(&mut self, request: head::Request, chunk: Chunk<'_>) -> bool {
        if self.pending.len() == MAX_PENDING {
            return false;
        }
        let tunnel = request.method == "CONNECT";
        let exchange = Exchange {
            method: request.method,
            host: request.host,
            port: request.port,
            path: request.path,
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
        let sent = request.body.is_empty();
        self.pending.push_back(Pending { exchange, sent, answered: false });
        self.requests = match request.body {
            _ if tunnel => Half::Undecided,
            _ if sent => Half::Head(Vec::new()),
            body => Half::Body(body),
        };
        true
    }

    fn request_progress(&mut self, content: u64, done: bool, at: u64) {
        if done {
            self.requests = Half::Head(Vec::new());
        }
        let Some(pending) = self.pending.back_mut() else { return };
        pending.exchange.body_out += content;
        if done {
            pending.sent = true;
            self.settle(at);
        }
    }

    fn feed_responses(&mut self, chunk: Chunk<'_>, start: u64) {
        let mut rest = chunk.bytes;
        if matches!(self.responses, Half::Lost) {
            // A request was understood since; its answer begins an operation, and with a head.
            if !chunk.boundary || self.pending.is_empty() || head::response(rest).is_err() {
                return;
            }
            self.responses = Half::Head(Vec::new());
        }
        while !rest.is_empty() {
            let here = start + (chunk.bytes.len() - rest.len()) as u64;
            match &mut self.responses {
                Half::Head(_) if self.pending.is_empty() => return self.lose(here, chunk.at),
                Half::Head(buffer) => match next_head(buffer, &mut rest, head::response) {
                    Ok(response) => self.answer(response, chunk.at),
                    Err(NoHead::Partial) => {
                        return;
                    }
                    Err(no_head) => {
                        let status = head::status(if buffer.is_empty() { rest } else { buffer });
                        self.answered_with(status, chunk.at);
                        return match no_head {
                            NoHead::Malformed => self.refuse(here, chunk.at),
                            NoHead::Http2 | NoHead::TooLong | NoHead::Partial => self.lose(here, chunk.at),
                        };
                    }
                },
                Half::Body(body) => match body.feed(rest) {
                    Ok(progress) => {
                        rest = &rest[progress.taken..];
                        self.response_progress(progress.content, progress.done, chunk.at);
                    }
                    Err(NoBody::Malformed) => return self.refuse(here, chunk.at),
                    Err(NoBody::TooLong) => return self.lose(here, chunk.at),
                },
                Half::Undecided | Half::Lost => return,
            }
            if self.opaque.is_some() {
                return;
            }
        }
    }

    /// Takes the head of a response to the oldest request (RFC 9112 section 6.3 for its body).
    fn answer(&mut self, response: head::Response, at: u64) {
        let Some(pending) = self.pending.front_mut() else { return };
        if response.status == 101 {
            return self.hand_over(response.status, at, "switched to another protocol (101)");
        }
        if response.status < 200 {
            self.responses = Half::Head(Vec::new());
            return;
        }
        if pending.exchange.method == "CONNECT" {
            if response.status < 300 {
                return self.hand_over(response.status, at, "a tunnel (CONNECT)");
            }
            self.requests = Half::Head(Vec::new());
        }
        pending.exchange.status = response.status;
        pending.exchange.head = at;
        pending.exchange.stated = response.stated;
        pending.exchange.bent = response.bent;
        let bodiless = pending.exchange.method == "HEAD" || matches!(response.status, 204 | 304);
        let body = if bodiless { Body::Length(0) } else { response.body };
        let empty = body.is_empty();
        self.responses = Half::Body(body);
        if empty {
            self.response_progress(0, true, at);
        }
    }

    /// Takes the status of an answer to the oldest request, where its head cannot be read for the rest.
    fn answered_with(&mut self, status: u16, at: u64) {
        if let Some(Pending { exchange, answered: false, .. }) = self.pending.front_mut()
            && status >= 200
        {
            (exchange.status, exchange.head, exchange.bent) = (status, at, true);
        }
    }

    fn response_progress(&mut self, content: u64, done: bool, at: u64) {
        if done {
            self.responses = Half::Head(Vec::new());
        }
        let Some(pending) = self.pending.front_mut() else { return };
        pending.exchange.body_in += content;
        if done {
            pending.answered = true;
            pending.exchange.ended = at;
            self.settle(at);
        }
    }

    /// Ends the oldest exchanges that are complete both ways. One that is answered before it was sent is still open.
    fn settle(&mut self, at: u64) {
        while self.pending.front().is_some_and(|pending| pending.sent && pending.answered) {
            let Some(mut pending) = self.pending.pop_front() else { break };
            pending.exchange.ended = pending.exchange.ended.max(at);
            self.done.push(pending.exchange);
        }
    }

    /// Ends the oldest exchange with a response behind which the connection is something else.
    fn hand_over(&mut self, status: u16, at: u64, reason: &'static str) {
        if let Some(mut pending) = self.pending.pop_front() {
            pending.exchange.status = status;
            pending.exchange.head = at;
            pending.exchange.ended = at;
            pending.exchange.outcome = Outcome::Switched;
            self.done.push(pending.exchange);
        }
        self.break_off(at);
        self.switch(reason);
    }

    fn switch(&mut self, reason: &'static str) {
        self.opaque = Some(reason);
        self.requests = Half::Lost;
        self.responses = Half::Lost;
    }

    /// Ends the oldest exchange as one whose answer no client can read, and stops believing. Where understanding had
    /// broken before, what makes no sense may be our own fault.
    fn refuse(&mut self, offset: u64, at: u64) {
        if self.broken_at.is_none()
            && let Some(mut pending) = self.pending.pop_front()
        {
            pending.exchange.outcome = Outcome::Malformed;
            pending.exchange.ended = at;
            self.done.push(pending.exchange);
        }
        self.lose(offset, at);
    }

    /// Stops believing both directions: what was under way can no longer be told apart.
    fn lose(&mut self, offset: u64, at: u64) {
        self.broken_at.get_or_insert(offset);
        self.break_off(at);
        self.requests = Half::Lost;
        self.responses = Half::Lost;
    }

    fn break_off(&mut self, at: u64) {
        for mut pending in std::mem::take(&mut self.pending) {
            pending.exchange.outcome = Outcome::Unknown;
            pending.exchange.ended = at;
            self.done.push(pending.exchange);
        }
    }
}

/// While a head is shorter than this it is tried with every piece, so that garbage shows at once; longer ones only with
/// a line end, so that a head that drips in costs linear time.
const EAGER: usize = 4096;

/// Takes a head from the bytes kept and the next ones. What is left behind it stays in `rest`.
fn next_head<T: HeadLen>(
    buffer: &mut Vec<u8>,
    rest: &mut &[u8],
    parse: fn(&[u8]) -> Result<T, NoHead>,
) -> Result<T, NoHead> {
    if buffer.is_empty() {
        return match parse(rest) {
            Ok(head) => {
                *rest = &rest[head.head_len()..];
                Ok(head)
            }
            Err(NoHead::Partial) => {
                if rest.len() > MAX_HEAD {
                    return Err(NoHead::TooLong);
                }
                buffer.extend_from_slice(rest);
                Err(NoHead::Partial)
            }
            Err(other) => Err(other),
        };
    }
    let before = buffer.len();
    let room = MAX_HEAD + 1 - before.min(MAX_HEAD);
    buffer.extend_from_slice(&rest[..rest.len().min(room)]);
    if before >= EAGER && !buffer[before..].contains(&b'\n') && buffer.len() <= MAX_HEAD {
        return Err(NoHead::Partial);
    }
    match parse(buffer) {
        Ok(head) => {
            *rest = &rest[head.head_len().saturating_sub(before).min(rest.len())..];
            Ok(head)
        }
        Err(NoHead::Partial) if buffer.len() > MAX_HEAD => Err(NoHead::TooLong),
        Err(other) => Err(other),
    }
}

trait HeadLen {
    fn head_len(&self) -> usize;
}

impl HeadLen for head::Request {
    fn head_len(&self) -> usize {
        self.len
    }
}

impl HeadLen for head::Response {
    fn head_len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests;
