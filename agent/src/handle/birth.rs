//! Calls that the engine is told of only when they are over.

use super::process::caught;
use super::{CallGuard, Farcall};
use farcall::{Engine, Head, Timestamp};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// When a call began, and in which process. Nothing else is known of it until it is over.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    generation: usize,
    at: Timestamp,
}

impl Birth {
    /// When it was.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// In which process, counted in forks from the one that started the handle.
    #[must_use]
    pub const fn generation(&self) -> usize {
        self.generation
    }
}

impl Farcall {
    /// A call is sent now. The engine is [`told`](Farcall::tell) when it is over.
    pub fn birth(&self) -> Birth {
        let at = self.process().clock.now();
        if self.process().is_untended(at) {
            self.tend();
            return Birth { generation: self.generation(), at: self.now() };
        }
        Birth { generation: self.generation(), at }
    }

    /// The [`generation`](Birth::generation) of a call that would begin now.
    #[must_use]
    pub fn birth_place(&self) -> usize {
        self.generation()
    }

    /// This moment, by the clock that the call began by.
    #[must_use]
    pub fn now_since(&self, birth: Birth) -> Timestamp {
        self.nth(birth.generation).clock.now()
    }

    /// Shows the engine in which the call began, and a fresh seed, to `tell`. In the child of a fork such a call is the
    /// parent's, and nothing is done. A panic of ours is counted.
    pub fn tell(&self, birth: Birth, tell: impl FnOnce(&Engine, u64)) {
        let process = self.nth(birth.generation);
        if process.next.get().is_none()
            && catch_unwind(AssertUnwindSafe(|| tell(&process.engine, process.seed()))).is_err()
        {
            caught(process);
        }
    }

    /// A guard for a call that was sent at its birth ([`Engine::begin_sent`]). `None` for one of the parent's, in the
    /// child of a fork.
    pub fn begin_sent(&self, birth: Birth, head: &Head<'_>) -> Option<CallGuard> {
        let process = self.nth(birth.generation);
        process.next.get().is_none().then(|| {
            let call = match process.engine.decides() {
                // Rules came into force since.
                true => process.engine.begin_sent(head, birth.at, process.seed()),
                false => process.engine.begin(head, birth.at, process.seed()),
            };
            let mut guard = CallGuard::of(self.clone(), birth.generation, call);
            let _ = guard.step_at(birth.at);
            guard
        })
    }
}
