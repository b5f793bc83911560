//! A call in the hands of an adapter.

use super::Farcall;
use super::process::{Process, caught};
use farcall::resilience::Ending;
use farcall::{Attempt, Call, ConnectTimes, ErrorType, Head, Headers, Step, Timestamp};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Owns a call and its handle, reads the clock for it, and abandons it when it is dropped before its end: a
/// response that the application lets go of, an exception, a cancelled future.
///
/// What it does at the end of the call never panics; a panic of ours is counted.
#[derive(Debug)]
pub struct CallGuard {
    farcall: Farcall,
    /// In which process the call began, counted in forks. In the child of a fork it is the parent's.
    generation: usize,
    call: Call,
}

impl CallGuard {
    pub(super) fn new(farcall: Farcall, call: Call) -> Self {
        Self { generation: farcall.generation(), farcall, call }
    }

    /// This moment, by the clock that the call began by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.farcall.nth(self.generation).clock.now()
    }

    /// What to do next; see [`Call::step`].
    pub fn step(&mut self) -> Step {
        self.step_at(self.now())
    }

    /// What to do next, as of `now`: for who knows the time already.
    pub fn step_at(&mut self, now: Timestamp) -> Step {
        self.call.step(&self.farcall.nth(self.generation).engine, now)
    }

    /// Has this woken where something may come before the moment of a wait; see [`Call::wake`].
    pub fn wake(&mut self, waker: &Waker) -> Option<Timestamp> {
        self.call.wake(&self.farcall.nth(self.generation).engine, waker, self.now())
    }

    /// A second attempt beside a slow first one; see [`Call::hedge`].
    pub fn hedge(&mut self) -> Option<Attempt> {
        self.call.hedge(&self.farcall.nth(self.generation).engine, self.now())
    }

    /// One of two attempts is of no more interest; see [`Call::lost`].
    pub fn lost(&mut self, number: u32, ending: Option<Ending>) {
        self.call.lost(&self.farcall.nth(self.generation).engine, number, ending, self.now());
    }

    /// A copy to send beside the call, in a guard of its own; see [`Call::shadow`].
    pub fn shadow(&mut self) -> Option<(Self, Attempt)> {
        let (call, attempt) = self.call.shadow(&self.farcall.nth(self.generation).engine, self.now())?;
        Some((Self { farcall: self.farcall.clone(), generation: self.generation, call }, attempt))
    }

    /// A request to send beside the call, in a guard of its own; see [`Call::refresh`].
    pub fn refresh(&mut self) -> Option<(Self, Attempt)> {
        let (call, attempt) = self.call.refresh()?;
        Some((Self { farcall: self.farcall.clone(), generation: self.generation, call }, attempt))
    }

    /// What to do next with a request that can be stopped, but not held up; see [`Call::step_at_once`].
    pub fn step_at_once(&mut self, now: Timestamp) -> Step {
        self.call.step_at_once(&self.farcall.nth(self.generation).engine, now)
    }

    /// Making the connection took so long; see [`Call::connected`].
    pub fn connected(&mut self, times: ConnectTimes) {
        self.call.connected(times);
    }

    /// The answer is not one to the request that the call began with; see [`Call::uncacheable`].
    pub fn uncacheable(&mut self) {
        self.call.uncacheable();
    }

    /// The adapter cannot hand this one over; see [`Call::unparkable`].
    pub fn unparkable(&mut self, why: &'static str) {
        self.call.unparkable(why);
    }

    /// Whether the adapter has the whole body by now; see [`Call::keeps`].
    pub fn keeps(&mut self, keeps: bool) {
        self.call.keeps(keeps);
    }

    /// Of how many bytes the body is that can be sent again by now; see [`Call::replays`].
    pub fn replays(&mut self, whole: Option<u64>) {
        self.call.replays(whole);
    }

    /// Shows the request's body; see [`Call::show`].
    pub fn show(&mut self, head: &Head<'_>) {
        self.call.show(head);
    }

    /// So many more bytes of the request's body went out.
    pub fn sent(&mut self, bytes: u64) {
        self.call.sent(bytes);
    }

    /// The head of a response arrived.
    pub fn head(&mut self, status: u16) {
        self.head_at(status, self.now());
    }

    /// The head of a response arrived at `now`.
    pub fn head_at(&mut self, status: u16, now: Timestamp) {
        self.call.head(status, now);
    }

    /// The head of a response arrived, with headers to look at; see [`Call::answer`].
    pub fn answer(&mut self, status: u16, headers: &dyn Headers) {
        self.answer_at(status, headers, self.now());
    }

    /// The head of a response arrived at `now`, with headers to look at; see [`Call::answer`].
    pub fn answer_at(&mut self, status: u16, headers: &dyn Headers, now: Timestamp) {
        self.call.answer(&self.farcall.nth(self.generation).engine, status, headers, now);
    }

    /// More of the response's body arrived; see [`Call::read`].
    pub fn read(&mut self, body: &[u8]) {
        self.call.read(body);
    }

    /// So many more bytes of the response's body arrived.
    pub fn body(&mut self, bytes: u64) {
        self.call.body(bytes);
    }

    /// The attempt failed; [`end`](CallGuard::end) or the drop counts it.
    pub fn failed(&mut self, error: ErrorType) {
        self.call.failed(error);
    }

    /// What came of [`Step::Park`]; see [`Call::parked`].
    #[cfg(feature = "outbox")]
    pub(crate) fn tell_parked(&mut self, taken: Result<farcall::outbox::Parked<'_>, &str>) {
        self.call.parked(&self.farcall.nth(self.generation).engine, taken, self.now());
    }

    /// The adapter cannot hand this one over, as it finds only now; see [`Call::not_parked`]. The next step follows.
    pub fn not_parked(&mut self, why: &str) {
        self.call.not_parked(&self.farcall.nth(self.generation).engine, why, self.now());
    }

    /// The last byte arrived, or the call failed: counts it.
    pub fn end(&mut self) {
        self.end_at(self.now());
    }

    /// The last byte arrived, or the call failed, at `now`: counts it.
    pub fn end_at(&mut self, now: Timestamp) {
        self.settle(|call, process| call.end(&process.engine, now));
    }

    /// The application let go of the response, or cancelled the call: counts it, once.
    pub fn abandon(&mut self) {
        self.settle(|call, process| call.abandon(&process.engine, process.clock.now()));
    }

    /// Whether the call has been counted.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.call.is_settled()
    }

    /// The call itself.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// The handle.
    #[must_use]
    pub fn farcall(&self) -> &Farcall {
        &self.farcall
    }

    /// Counts the call in the process that it began in. In one that was forked from it since, nothing is done: the
    /// copy must not be counted again, and its engine's locks may be held for ever here.
    fn settle(&mut self, count: impl FnOnce(&mut Call, &Process)) {
        let process = self.farcall.nth(self.generation);
        if process.next.get().is_some() {
            return;
        }
        // What a panic may leave half done is the engine's, whose locks recover from poison.
        if catch_unwind(AssertUnwindSafe(|| count(&mut self.call, process))).is_err() {
            caught(process);
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.abandon();
    }
}
