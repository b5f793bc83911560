//! What the engine is told of a call that is over, by adapters that note what happens and tell of it later.

use farcall::{Call, ConnectTimes, Engine, ErrorType, Timestamp};

/// What happened to a call after it went out, and when.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// How long making its connection took.
    pub times: ConnectTimes,
    /// Bytes of the request's body that went out.
    pub sent: u64,
    /// The status that it was answered with, and when the head of the answer arrived.
    pub head: Option<(u16, Timestamp)>,
    /// Bytes of the response's body that arrived.
    pub received: u64,
    /// How it came out.
    pub how: How,
    /// When it did.
    pub ended: Timestamp,
}

/// How a call came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Whole, if it was answered.
    Complete,
    /// The application let go of it.
    Abandoned,
    /// It failed, before or after the head of a response.
    Failed(ErrorType),
}

const TOO_MANY: u16 = 429;
const NO_HEADERS: &[(&str, &str)] = &[];

impl Told {
    /// Tells the engine of it, event by event.
    pub fn tell(&self, engine: &Engine, call: &mut Call) {
        let Self { times, sent, head, received, how, ended } = *self;
        if times != ConnectTimes::default() {
            call.connected(times);
        }
        call.sent(sent);
        match head {
            // A refusal, and what this vendor's next answers say matters from here on.
            Some((TOO_MANY, at)) => call.answer(engine, TOO_MANY, &NO_HEADERS, at),
            Some((status, at)) => call.head(status, at),
            None => {}
        }
        call.body(received);
        match how {
            How::Complete => call.end(engine, ended),
            How::Abandoned => call.abandon(engine, ended),
            How::Failed(error) => {
                call.failed(error);
                call.end(engine, ended);
            }
        }
    }
}
