//! A call in the hands of an adapter.

use super::Farcall;
use super::process::Process;
use farcall::{Call, ConnectTimes, ErrorType, Step};

/// Owns a call and its handle, reads the clock for it, and abandons it when it is dropped before its end: a
/// response that the application lets go of, an exception, a cancelled future.
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

    /// What to do next; see [`Call::step`].
    pub fn step(&mut self) -> Step {
        let process = self.farcall.nth(self.generation);
        self.call.step(&process.engine, process.clock.now())
    }

    /// Making the connection took so long; see [`Call::connected`].
    pub fn connected(&mut self, times: ConnectTimes) {
        self.call.connected(times);
    }

    /// So many more bytes of the request's body went out.
    pub fn sent(&mut self, bytes: u64) {
        self.call.sent(bytes);
    }

    /// The head of a response arrived.
    pub fn head(&mut self, status: u16) {
        self.call.head(status, self.farcall.nth(self.generation).clock.now());
    }

    /// So many more bytes of the response's body arrived.
    pub fn body(&mut self, bytes: u64) {
        self.call.body(bytes);
    }

    /// The attempt failed; [`end`](CallGuard::end) or the drop counts it.
    pub fn failed(&mut self, error: ErrorType) {
        self.call.failed(error);
    }

    /// The last byte arrived, or the call failed: counts it.
    pub fn end(&mut self) {
        if let Some(process) = Self::ours(&self.farcall, self.generation) {
            self.call.end(&process.engine, process.clock.now());
        }
    }

    /// The application let go of the response, or cancelled the call: counts it, once.
    pub fn abandon(&mut self) {
        if let Some(process) = Self::ours(&self.farcall, self.generation) {
            self.call.abandon(&process.engine, process.clock.now());
        }
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

    /// The process that the call began in, unless this one was forked from it since: the copy must not be counted
    /// again, and its engine's locks may be held for ever here.
    fn ours(farcall: &Farcall, generation: usize) -> Option<&Process> {
        Some(farcall.nth(generation)).filter(|process| process.next.get().is_none())
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.abandon();
    }
}
