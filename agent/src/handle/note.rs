//! A call that is counted and nothing else, while it is under way: no rule is about it, and the engine does not read its
//! answer. What happens to it is noted with the time, and the engine is told of many in a row.
//!
//! Between two calls the application's own work empties the caches, so that what a call costs is by how many places of
//! code and memory it touches, and the engine's begin and end are most of them. The account is the same: the engine has
//! no clock of its own.

use super::notes::Route;
use super::process::Process;
use super::told::{How, Told};
use super::{CallGuard, Farcall};
use farcall::{Call, ConnectTimes, ErrorType, Head, Target, Timestamp};
use std::sync::Arc;

/// On whose behalf calls are made, kept for when the engine is told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The customer, where the application said so.
    pub customer: Option<String>,
    /// Keys and values.
    pub tags: Vec<(String, String)>,
}

/// A call under way that the engine does not know of yet. Made by [`Farcall::note`]; one that is dropped without an end
/// is not counted.
#[derive(Debug)]
#[must_use = "a call that is never ended is never counted"]
pub struct Note {
    /// In which process it began, counted in forks.
    generation: usize,
    begun: Timestamp,
    head_at: Timestamp,
    ended: Timestamp,
    sent: u64,
    received: u64,
    route: Arc<Route>,
    scope: Option<Arc<Scope>>,
    /// Few calls make a connection.
    times: Option<Box<ConnectTimes>>,
    path: Path,
    status: u16,
    state: State,
    abandoned: bool,
}

// What is larger is copied by each call, and is in the caches at the cost of something else.
const _: () = assert!(size_of::<Note>() <= 160);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sent,
    Answered,
    Failed(ErrorType),
}

/// One more than the engine keeps, so that it notices and counts that there were too many.
const TAGS: usize = farcall::attribution::MAX_TAGS + 1;

/// How long a path and a method may be that are kept.
const LONG: usize = 512;

/// A path; most are short enough to be kept where the note is.
#[derive(Debug)]
enum Path {
    Short(u8, [u8; Self::SHORT]),
    Long(Box<str>),
}

impl Path {
    const SHORT: usize = 54;

    fn of(path: &str) -> Self {
        let mut bytes = [0; Self::SHORT];
        match (bytes.get_mut(..path.len()), u8::try_from(path.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(path.as_bytes());
                Self::Short(length, bytes)
            }
            _ => Self::Long(path.into()),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            // It was copied from a text, whole.
            Self::Short(length, bytes) => {
                std::str::from_utf8(&bytes[..usize::from(*length)]).unwrap_or_default()
            }
            Self::Long(path) => path,
        }
    }
}

impl Farcall {
    /// A call that goes out now, of which the engine is told when it is over.
    ///
    /// # Errors
    /// Where it is more than counted ([`Engine::only_counts`](farcall::Engine::only_counts)): the moment at which it is
    /// to begin as ever, by [`begin_at`](Farcall::begin_at).
    pub fn note(
        &self,
        method: &str,
        target: &Target<'_>,
        scope: Option<&Arc<Scope>>,
    ) -> Result<Note, Timestamp> {
        let (mut process, mut generation) = self.newest();
        let mut begun = process.clock.now();
        if process.is_untended(begun) {
            self.tend();
            (process, generation) = self.newest();
            begun = process.clock.now();
        }
        if target.path.len() > LONG || method.len() > LONG {
            return Err(begun);
        }
        let Some(route) = process.notes.route(&process.engine, method, target) else { return Err(begun) };
        Ok(Note {
            generation,
            begun,
            head_at: begun,
            ended: begun,
            sent: 0,
            received: 0,
            route,
            scope: scope.map(Arc::clone),
            times: None,
            path: Path::of(target.path),
            status: 0,
            state: State::Sent,
            abandoned: false,
        })
    }
}

impl Note {
    /// This moment, by the clock that the call began by.
    fn now(&self, farcall: &Farcall) -> Timestamp {
        farcall.nth(self.generation).clock.now()
    }

    /// Making the connection took so long.
    pub fn connected(&mut self, times: ConnectTimes) {
        self.times = Some(Box::new(times));
    }

    /// So many more bytes of the request's body went out.
    pub fn sent(&mut self, bytes: u64) {
        self.sent = self.sent.saturating_add(bytes);
    }

    /// Whether the engine looks at the headers of an answer with this status: then the call is to begin
    /// ([`Note::begin`]), and [`CallGuard::answer`] follows.
    #[must_use]
    pub const fn wants_headers(&self, status: u16) -> bool {
        // As `Call::wants_headers` of a call that nothing else looks at.
        status == 429
    }

    /// The head of a response arrived.
    pub fn head(&mut self, farcall: &Farcall, status: u16) {
        (self.status, self.head_at, self.state) = (status, self.now(farcall), State::Answered);
    }

    /// So many more bytes of the response's body arrived.
    pub fn body(&mut self, bytes: u64) {
        self.received = self.received.saturating_add(bytes);
    }

    /// It failed; [`end`](Note::end) counts it.
    pub fn failed(&mut self, error: ErrorType) {
        self.state = State::Failed(error);
    }

    /// The last byte arrived, or the call failed.
    pub fn end(mut self, farcall: &Farcall) {
        self.ended = self.now(farcall);
        self.settle(farcall);
    }

    /// The application let go of the response, or cancelled the call.
    pub fn abandon(mut self, farcall: &Farcall) {
        self.ended = self.now(farcall);
        self.abandoned = true;
        self.settle(farcall);
    }

    fn settle(self, farcall: &Farcall) {
        let process = farcall.nth(self.generation);
        // In the child of a fork it is the parent's.
        if process.next.get().is_none() {
            process.add(self);
        }
    }

    /// Begins the call after all, as of when it went out: the engine is to know of it before it is over. `None` in the
    /// child of a fork, where the call is the parent's.
    #[must_use]
    pub fn begin(&self, farcall: &Farcall) -> Option<CallGuard> {
        let process = farcall.nth(self.generation);
        if process.next.get().is_some() {
            return None;
        }
        // What its answer says is of no concern to those that are over.
        process.tell();
        let mut call = self.went_out(process);
        if let Some(times) = &self.times {
            call.connected(**times);
        }
        call.sent(self.sent);
        if self.status != 0 {
            call.head(self.status, self.head_at);
        }
        call.body(self.received);
        if let State::Failed(error) = self.state {
            call.failed(error);
        }
        Some(CallGuard::new(farcall.clone(), call))
    }

    fn went_out(&self, process: &Process) -> Call {
        let Route { tls, host, port, method } = &*self.route;
        let head = Head::to(method, Target::new(*tls, host, *port, self.path.as_str()));
        let begin = |head: &Head<'_>| process.engine.went_out(head, self.begun, process.seed());
        let Some(scope) = &self.scope else { return begin(&head) };
        let mut tags = [("", ""); TAGS];
        let kept = scope.tags.len().min(TAGS);
        for (slot, (key, value)) in tags.iter_mut().zip(&scope.tags) {
            *slot = (key, value);
        }
        begin(&head.customer(scope.customer.as_deref()).tags(&tags[..kept]))
    }

    /// Tells the engine of it.
    pub(super) fn tell(&self, process: &Process) {
        let told = Told {
            times: self.times.as_deref().copied().unwrap_or_default(),
            sent: self.sent,
            head: (self.status != 0 || self.state == State::Answered).then_some((self.status, self.head_at)),
            received: self.received,
            how: match self.state {
                State::Failed(error) => How::Failed(error),
                _ if self.abandoned => How::Abandoned,
                _ => How::Complete,
            },
            ended: self.ended,
        };
        told.tell(&process.engine, &mut self.went_out(process));
    }
}
