//! One call, from begin to settlement.

use super::Engine;
use crate::attribution::CallerId;
use crate::call::{ConnectTimes, ErrorType, Outcome, Tap};
use crate::ledger::{Found, RequestKeys};
use crate::units::Timestamp;
use std::sync::atomic::Ordering;

/// A call under way. Made by [`Engine::begin`]; the adapter asks [`step`](Call::step) what to do, reports
/// what it saw, and ends with [`end`](Call::end) or [`abandon`](Call::abandon).
///
/// Plain data: moves between threads, and holds no lock and no memory of its own. A call that is dropped
/// without an end is not counted, and keeps its names in memory: adapters hold it in a guard.
#[derive(Debug)]
#[must_use = "a call that is never ended is never counted"]
pub struct Call {
    pub(super) id: u64,
    pub(super) shard: usize,
    pub(super) found: Found,
    pub(super) caller: CallerId,
    pub(super) tap: Tap,
    pub(super) keys: RequestKeys,
    /// The engine that it began in: its numbers mean nothing to another.
    pub(super) engine: u32,
    pub(super) begun: Timestamp,
    pub(super) head_at: Timestamp,
    pub(super) times: ConnectTimes,
    pub(super) bytes_out: u64,
    pub(super) bytes_in: u64,
    pub(super) status: u16,
    pub(super) attempts: u32,
    pub(super) state: State,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing was sent yet.
    Begun,
    /// An attempt is under way, without an answer.
    Sent,
    /// The head of a response arrived.
    Answered,
    /// The attempt ended without a (whole) response.
    Failed(ErrorType),
    /// In the ledger; nothing more can happen.
    Settled,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Step {
    /// Perform one exchange on the wire. Stale after [`Call::head`] or [`Call::failed`].
    Send(Attempt),
    /// Hand the application what there is, the response or the error; its body is still reported by
    /// [`Call::body`] and [`Call::end`]. Final.
    Settled,
}

/// One exchange on the wire that is to be performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Which attempt of the call this is, from 1.
    pub number: u32,
}

impl Call {
    /// Making a connection for this attempt took so long.
    pub fn connected(&mut self, times: ConnectTimes) {
        self.times = times;
    }

    /// So many more bytes of the request's body went out.
    pub fn sent(&mut self, bytes: u64) {
        self.bytes_out = self.bytes_out.saturating_add(bytes);
    }

    /// The head of a response arrived. An interim one (1xx) is not reported.
    pub fn head(&mut self, status: u16, now: Timestamp) {
        if self.state == State::Settled {
            return;
        }
        self.status = status;
        self.head_at = now;
        self.state = State::Answered;
    }

    /// So many more bytes of the response's body arrived.
    pub fn body(&mut self, bytes: u64) {
        self.bytes_in = self.bytes_in.saturating_add(bytes);
    }

    /// The attempt failed, before or after the head of a response.
    pub fn failed(&mut self, error: ErrorType) {
        if self.state != State::Settled {
            self.state = State::Failed(error);
        }
    }

    /// The last byte of the response arrived, or the call failed: counts it. Does nothing the second time.
    pub fn end(&mut self, engine: &Engine, now: Timestamp) {
        let outcome = match self.state {
            State::Answered => Outcome::Complete,
            State::Failed(error) => Outcome::Failed(error),
            State::Begun | State::Sent => Outcome::Failed(ErrorType::Cancelled),
            State::Settled => {
                engine.tallies.misplaced_events.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        engine.settle(self, outcome, now);
    }

    /// The application let go of the response, or cancelled the call: counts it. Does nothing once settled,
    /// so that a guard may call it in any case.
    pub fn abandon(&mut self, engine: &Engine, now: Timestamp) {
        let outcome = match self.state {
            State::Answered => Outcome::Abandoned,
            State::Failed(error) => Outcome::Failed(error),
            State::Begun | State::Sent => Outcome::Failed(ErrorType::Cancelled),
            State::Settled => return,
        };
        engine.settle(self, outcome, now);
    }

    /// Whether the call has been counted.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.state == State::Settled
    }

    /// The call's id, as its exemplar shows it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// When the call began.
    #[must_use]
    pub fn begun(&self) -> Timestamp {
        self.begun
    }
}
