//! A call that was sent while no rule decides: the engine is told of it when it is over.

use crate::handle::Handle;
use crate::scope::Words;
use crate::waiting::{self, Told};
use farcall::{ConnectTimes, ErrorType, Head, Target, Timestamp};
use farcall_agent::{Birth, CallGuard};
use std::sync::Arc;

/// What is known so far of a call that nobody decides about.
pub(crate) struct Sent {
    handle: &'static Handle,
    birth: Birth,
    state: State,
    status: u16,
    head_at: Timestamp,
    bytes_out: u64,
    bytes_in: u64,
    times: ConnectTimes,
    facts: Facts,
}

/// Where a call stands, by the engine's words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Sent,
    Answered,
    Failed(ErrorType),
    Settled,
}

impl Sent {
    pub(crate) fn new(handle: &'static Handle, facts: Facts) -> Self {
        let birth = handle.farcall.birth();
        Self {
            handle,
            birth,
            state: State::Sent,
            status: 0,
            head_at: birth.at(),
            bytes_out: 0,
            bytes_in: 0,
            times: ConnectTimes::default(),
            facts,
        }
    }

    /// The same call in the engine's own books, where it wants to see more of it; `None` for one of the parent's, in
    /// the child of a fork. To be asked before the head of a response.
    pub(crate) fn hand_over(&mut self) -> Option<CallGuard> {
        let birth = self.birth;
        let mut guard = self.facts.with(|head| self.handle.farcall.begin_sent(birth, head))?;
        guard.connected(self.times);
        guard.sent(self.bytes_out);
        self.state = State::Settled;
        Some(guard)
    }

    /// Whether the engine looks at the headers of an answer with this status.
    pub(crate) fn wants_headers(&self, status: u16) -> bool {
        status == 429 || waiting::reads_answers(self.handle, self.birth, self.facts.words().1)
    }

    pub(crate) fn connected(&mut self, times: ConnectTimes) {
        self.times = times;
    }

    pub(crate) fn sent(&mut self, bytes: u64) {
        self.bytes_out = self.bytes_out.saturating_add(bytes);
    }

    pub(crate) fn head(&mut self, status: u16) {
        if self.state != State::Settled {
            self.status = status;
            self.head_at = self.now();
            self.state = State::Answered;
        }
    }

    pub(crate) fn body(&mut self, bytes: u64) {
        self.bytes_in = self.bytes_in.saturating_add(bytes);
    }

    pub(crate) fn failed(&mut self, error: ErrorType) {
        if self.state != State::Settled {
            self.state = State::Failed(error);
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.state == State::Settled
    }

    pub(crate) fn end(&mut self) {
        self.settle(false);
    }

    pub(crate) fn abandon(&mut self) {
        self.settle(true);
    }

    fn settle(&mut self, abandoned: bool) {
        let failed = match self.state {
            State::Settled => return,
            State::Failed(error) => Some(error),
            State::Sent | State::Answered => None,
        };
        self.state = State::Settled;
        let told = Told {
            birth: self.birth,
            ended: self.now(),
            head_at: self.head_at,
            status: self.status,
            bytes_out: self.bytes_out,
            bytes_in: self.bytes_in,
            times: self.times,
            failed,
            abandoned,
        };
        waiting::push(self.handle, told, &mut self.facts);
    }

    fn now(&self) -> Timestamp {
        self.handle.farcall.now_since(self.birth)
    }
}

/// Texts up to this long need no memory of their own.
const INLINE: usize = 160;

/// Whom a call goes to, how, and on whose behalf.
pub(crate) struct Facts {
    pub(crate) tls: bool,
    pub(crate) port: u16,
    pub(crate) lengths: Lengths,
    inline: [u8; INLINE],
    long: Option<Box<[u8]>>,
    pub(crate) scope: Option<Arc<Words>>,
}

/// How long method, host and path are that follow each other in a text.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lengths {
    method: usize,
    host: usize,
    path: usize,
}

impl Lengths {
    fn all(self) -> usize {
        self.method + self.host + self.path
    }

    /// Method, host and path; and how much of the text they take.
    pub(crate) fn split(self, text: &[u8]) -> ([&str; 3], usize) {
        let (method, rest) = text.split_at(self.method);
        let (host, rest) = rest.split_at(self.host);
        let words = [method, host, &rest[..self.path]];
        // They were text when they came.
        (words.map(|word| std::str::from_utf8(word).unwrap_or_default()), self.all())
    }
}

impl Facts {
    pub(crate) fn new(method: &str, target: &Target<'_>, scope: Option<Arc<Words>>) -> Self {
        let words = [method, target.host, target.path];
        let lengths = Lengths { method: method.len(), host: target.host.len(), path: target.path.len() };
        let mut inline = [0; INLINE];
        let mut long = None;
        match inline.get_mut(..lengths.all()) {
            Some(text) => {
                let (first, rest) = text.split_at_mut(lengths.method);
                let (second, third) = rest.split_at_mut(lengths.host);
                first.copy_from_slice(words[0].as_bytes());
                second.copy_from_slice(words[1].as_bytes());
                third.copy_from_slice(words[2].as_bytes());
            }
            None => long = Some(words.concat().into_bytes().into()),
        }
        Self { tls: target.tls, port: target.port, lengths, inline, long, scope }
    }

    /// Method, host and path in a row.
    pub(crate) fn text(&self) -> &[u8] {
        self.long.as_deref().unwrap_or(&self.inline[..self.lengths.all()])
    }

    fn words(&self) -> (&str, &str, &str) {
        let ([method, host, path], _) = self.lengths.split(self.text());
        (method, host, path)
    }

    fn with<R>(&self, with: impl FnOnce(&Head<'_>) -> R) -> R {
        let (method, host, path) = self.words();
        let head = Head::to(method, Target::new(self.tls, host, self.port, path));
        match &self.scope {
            None => with(&head),
            Some(scope) => scope.with(head, with),
        }
    }
}
