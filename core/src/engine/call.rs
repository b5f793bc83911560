//! One call, from begin to settlement.

use super::plan::Standing;
use super::{Attempt, Engine};
use crate::advise::Look;
use crate::attribution::CallerId;
use crate::call::{ConnectTimes, ErrorType, Headers, Outcome, Tap};
use crate::ledger::{Found, RequestKeys};
use crate::resilience::Ending;
use crate::units::Timestamp;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

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
    /// Nanoseconds waited before and between attempts, because a rule said so.
    pub(super) waited: u64,
    /// Since when it waits, where it does.
    pub(super) waiting_since: Option<Timestamp>,
    /// Whether the vendor states its quotas in headers, so that every answer is worth a look.
    pub(super) watches: bool,
    /// What is noted of it for advice; `None` of one that is not looked at.
    pub(super) look: Option<Look>,
    /// Its standing with the rules; `None` where none looks at it.
    pub(super) flow: Option<Standing>,
    /// The call that asks whether what it was answered with is still good.
    pub(super) refresh: Option<Box<(Self, Attempt)>>,
}

/// Who is to be woken looks by himself after so long: nobody hangs on being told.
const WOKEN: Duration = Duration::from_millis(250);

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing was sent yet, or the next attempt is due.
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

impl Call {
    /// After a [`Step::Wait`](super::Step): has this woken where something may come earlier than its moment, such as the
    /// answer to an equal call. Returns until when nobody need look then; `None`: until the moment of the step.
    pub fn wake(&mut self, engine: &Engine, waker: &Waker, now: Timestamp) -> Option<Timestamp> {
        let Standing { flow, .. } = self.flow.as_ref()?;
        let patient_until = flow.cached.patient_until().filter(|until| *until > now);
        let latest = patient_until.map_or(now.plus(WOKEN), |until| until.min(now.plus(WOKEN)));
        flow.cached.wake(engine, waker).then_some(latest)
    }

    /// Making a connection for this attempt took so long.
    pub fn connected(&mut self, times: ConnectTimes) {
        self.times = times;
    }

    /// The answer that comes is not one to the request that the call began with, such as where the client followed
    /// redirects by itself: it is not kept. Said before [`Call::answer`].
    pub fn uncacheable(&mut self) {
        if let Some(look) = &mut self.look {
            look.decline();
        }
        if let Some(Standing { flow, .. }) = &mut self.flow {
            flow.cached.decline();
        }
    }

    /// So many more bytes of the request's body went out.
    pub fn sent(&mut self, bytes: u64) {
        self.bytes_out = self.bytes_out.saturating_add(bytes);
    }

    /// The head of a response arrived, with headers to look at. An interim one (1xx) is not reported.
    ///
    /// Asking [`wants_headers`](Call::wants_headers) first spares an adapter the work of showing headers that
    /// nobody looks at.
    pub fn answer(&mut self, engine: &Engine, status: u16, headers: &dyn Headers, now: Timestamp) {
        self.head(status, now);
        if self.state == State::Answered {
            engine.read_answer(self, headers, now);
        }
    }

    /// The head of a response arrived, of which only the status is known. An interim one (1xx) is not reported.
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

    /// More of the response's body arrived, as it was on the wire or as its `Content-Encoding` says (the headers
    /// that were shown tell which): to be counted and looked at. Where [`wants_body`](Call::wants_body)
    /// says no, [`Call::body`] does as well.
    pub fn read(&mut self, chunk: &[u8]) {
        self.body(chunk.len() as u64);
        if let Some(look) = self.look.as_mut().filter(|look| look.wants_body()) {
            look.push(chunk);
        }
        if let Some(Standing { flow, .. }) = &mut self.flow
            && flow.wants_body()
        {
            Engine::read_body(flow, chunk);
        }
    }

    /// Whether the engine looks at the bytes of the response's body.
    #[must_use]
    pub fn wants_body(&self) -> bool {
        self.look.as_ref().is_some_and(Look::wants_body)
            || self.flow.as_ref().is_some_and(|Standing { flow, .. }| flow.wants_body())
    }

    /// A second attempt beside the one under way, which is slow ([`Attempt::hedge_at`](super::Attempt) has come), or the
    /// first beside that, which a fault held back: what to send, or `None` where the budget for that is used up, or a
    /// quota, or a fault took its place. Then one of the two is
    /// [`lost`](Call::lost), and what the other comes to is reported as ever.
    pub fn hedge(&mut self, engine: &Engine, now: Timestamp) -> Option<Attempt> {
        engine.hedge(self, now)
    }

    /// Of two attempts under way that of this number is of no more interest: it ended so, or (`None`) the other one
    /// answered and this one was given up. To be told before the other one's answer is.
    pub fn lost(&mut self, engine: &Engine, number: u32, ending: Option<Ending>, now: Timestamp) {
        engine.lost(self, number, ending, now);
    }

    /// A copy of the call to send beside it ([`Attempt::shadow`](super::Attempt)): a call of its own, marked in the
    /// ledger by the tag `shadow` with its rollout's name, and the one attempt that it makes. It is to be sent without
    /// holding up the call, to be reported as any other, and its answer read (a few MiB at most) and thrown away.
    /// `None` where too many are under way, or a quota has no room for one at once.
    pub fn shadow(&mut self, engine: &Engine, now: Timestamp) -> Option<(Call, Attempt)> {
        engine.shadow(self, now)
    }

    /// After [`Step::Respond`](super::Step): a request to send beside the call, where what it was answered with is
    /// stale (RFC 5861, section 3). A call of its own, marked in the ledger by the tag `refresh` with the rule's name,
    /// and the one attempt that it makes; to be sent and reported as [`shadow`](Call::shadow) says, with the
    /// application's own headers. `None` otherwise, and for an adapter that did not say that it can
    /// ([`Head::refreshes`](crate::Head)).
    pub fn refresh(&mut self) -> Option<(Self, Attempt)> {
        self.refresh.take().map(|refresh| *refresh)
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

    /// Whether the engine looks at the headers of an answer with this status; where not, [`Call::head`] does as
    /// well as [`Call::answer`].
    #[must_use]
    pub fn wants_headers(&self, status: u16) -> bool {
        self.watches
            || self.flow.is_some()
            || self.look.as_ref().is_some_and(Look::wants_headers)
            || status == 429
    }

    /// Whether the call has been counted.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.state == State::Settled
    }

    /// Whether nothing more is to be done with it: it has been counted, and has no request to be sent beside it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_settled() && self.refresh.is_none()
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
