//! Who has a call: the engine, or a note of it that the engine is shown when it is over.

use crate::handle::handle;
use farcall::{ConnectTimes, ErrorType, Headers};
use farcall_agent::{CallGuard, Note};

/// What happens to a call goes to one or the other.
#[expect(clippy::large_enum_variant, reason = "a call of rules should not take memory of its own, either")]
pub(crate) enum Stage {
    /// No rule is about it: the engine is told of it when it is over.
    Noted(Note),
    /// The engine has it.
    Begun(CallGuard),
    /// It was noted, and is over.
    Over,
}

impl Stage {
    /// The call as the engine has it; `None` of one that no rule is about.
    pub(crate) fn guard(&mut self) -> Option<&mut CallGuard> {
        match self {
            Self::Begun(guard) => Some(guard),
            Self::Noted(_) | Self::Over => None,
        }
    }

    /// Has the engine know of it now. `None` where it is over, and in the child of a fork.
    fn begin(&mut self) -> Option<&mut CallGuard> {
        if let Self::Noted(note) = self {
            *self = Self::Begun(note.begin(handle()?.farcall)?);
        }
        self.guard()
    }

    pub(crate) fn is_settled(&self) -> bool {
        match self {
            Self::Noted(_) => false,
            Self::Begun(guard) => guard.is_settled(),
            Self::Over => true,
        }
    }

    pub(crate) fn connected(&mut self, times: ConnectTimes) {
        match self {
            Self::Noted(note) => note.connected(times),
            Self::Begun(guard) => guard.connected(times),
            Self::Over => {}
        }
    }

    /// The head of the response arrived. `false` where the engine wants to look at the headers, and was told nothing yet.
    pub(crate) fn head(&mut self, status: u16) -> bool {
        if let Self::Noted(note) = self {
            if !note.wants_headers(status) {
                if let Some(handle) = handle() {
                    note.head(handle.farcall, status);
                }
                return true;
            }
            return self.begin().is_none();
        }
        let Some(guard) = self.guard() else { return true };
        if guard.call().wants_headers(status) {
            return false;
        }
        guard.head(status);
        true
    }

    pub(crate) fn answer(&mut self, status: u16, headers: &dyn Headers) {
        if let Some(guard) = self.begin() {
            guard.answer(status, headers);
        }
    }

    pub(crate) fn sent(&mut self, count: u64) {
        match self {
            Self::Noted(note) => note.sent(count),
            Self::Begun(guard) => guard.sent(count),
            Self::Over => {}
        }
    }

    pub(crate) fn body(&mut self, count: u64) {
        match self {
            Self::Noted(note) => note.body(count),
            Self::Begun(guard) => guard.body(count),
            Self::Over => {}
        }
    }

    pub(crate) fn read(&mut self, chunk: &[u8]) {
        match self {
            Self::Noted(note) => note.body(chunk.len() as u64),
            Self::Begun(guard) => guard.read(chunk),
            Self::Over => {}
        }
    }

    pub(crate) fn failed(&mut self, error: ErrorType) {
        match self {
            Self::Noted(note) => note.failed(error),
            Self::Begun(guard) => guard.failed(error),
            Self::Over => {}
        }
    }

    /// Does nothing once settled.
    pub(crate) fn end(&mut self) {
        if let Self::Begun(guard) = self {
            if !guard.is_settled() {
                guard.end();
            }
        } else if let (Self::Noted(note), Some(handle)) = (std::mem::replace(self, Self::Over), handle()) {
            note.end(handle.farcall);
        }
    }

    /// Does nothing once settled.
    pub(crate) fn abandon(&mut self) {
        if let Self::Begun(guard) = self {
            guard.abandon();
        } else if let (Self::Noted(note), Some(handle)) = (std::mem::replace(self, Self::Over), handle()) {
            note.abandon(handle.farcall);
        }
    }
}
