//! One call, as an adapter in Python holds it.

use crate::handle::{Handle, handle};
use crate::headers::Shown;
use crate::scope::Scope;
use crate::stage::Stage;
use farcall::outbox::Terms;
use farcall::resilience::Ending;
use farcall::{Attempt, ConnectTimes, ErrorType, Head, Headers, Step, Target, Timestamp};
use farcall_agent::CallGuard;
use farcall_agent::outbox::{Detour, OutboxError, Parcel, Parking, Receipt};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A call under way. An object that is let go of unsettled (garbage-collected with the response that held
/// it) counts as abandoned; one that a fork copied counts in the parent alone.
pub(crate) struct Call {
    // Held for some ten nanoseconds, and contended only where two threads read the same response.
    state: Mutex<State>,
}

struct State {
    stage: Stage,
    /// On which the outbox is to take it.
    terms: Option<Box<Terms>>,
    /// What has been told of making the connection.
    times: Option<Box<ConnectTimes>>,
    /// Whether the method says that the response has no body. A CONNECT that succeeds makes a tunnel, whose bytes
    /// are not one.
    bodiless: bool,
    /// Whether the adapter's library has headers as bytes.
    octets: bool,
    /// Whether it began as one for which rules decide.
    decides: bool,
    /// Whether the TLS handshake of the present attempt failed.
    insecure: bool,
    /// Whether it waits for the hook that is to carry it.
    held: bool,
}

impl State {
    /// One that begins.
    fn new(stage: Stage, method: &str, octets: bool, decides: bool) -> Self {
        Self {
            stage,
            terms: None,
            times: None,
            bodiless: matches!(method, "HEAD" | "CONNECT"),
            octets,
            decides,
            insecure: false,
            held: false,
        }
    }

    fn hold(&mut self, held: bool) {
        if let Some(handle) = handle().filter(|_| self.held != held) {
            self.held = held;
            if held { handle.note_held() } else { handle.note_taken() }
        }
    }

    /// Whether a body may follow (RFC 9112, section 6.3; after 101 it is another protocol); where none can, the call
    /// settles.
    fn opened(&mut self, status: u16) -> bool {
        let has_body = !(self.bodiless || matches!(status, 101 | 204 | 304));
        if !has_body {
            self.stage.end();
        }
        has_body
    }
}

/// One more than the engine keeps, so that it notices and counts that there were too many.
const TAGS: usize = farcall::attribution::MAX_TAGS + 1;

/// What an adapter knows of a request before it is sent.
pub(crate) struct Request<'a> {
    /// The number of the adapter that saw it, for `calls()`.
    pub(crate) adapter: usize,
    pub(crate) method: &'a str,
    pub(crate) scheme: &'a str,
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
    /// What the request line says: a path, perhaps with a query, or (to a proxy) an absolute URL.
    pub(crate) path: &'a str,
    pub(crate) scope: Option<&'a Scope>,
}

impl<'a> Request<'a> {
    fn target(&self) -> Target<'a> {
        let tls = matches!(self.scheme, "https" | "wss");
        let port = self.port.unwrap_or(if tls { 443 } else { 80 });
        match self.path.starts_with('/') {
            true => Target::new(tls, self.host, port, self.path),
            false => Target::parse(self.path).unwrap_or_else(|| Target::new(tls, self.host, port, "/")),
        }
    }
}

/// What an adapter knows besides, where rules decide.
pub(crate) struct Details<'a> {
    pub(crate) headers: &'a Shown<'a>,
    /// The size of the request's body, where it is known.
    pub(crate) length: Option<u64>,
    /// The request's body, where it is in memory.
    pub(crate) content: &'a [u8],
    /// Whether the request can be sent again.
    pub(crate) replayable: bool,
    /// How long the client would wait for an answer, where it says.
    pub(crate) patience: Option<Duration>,
    /// Whether a second attempt can be made beside a slow one.
    pub(crate) hedges: bool,
}

/// What a client says of its timeout, in seconds; `None` where that is no time.
pub(crate) fn patience(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|patience| !patience.is_zero())
}

/// What a response's head says of what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// No body can follow: the call has settled.
    Settled,
    /// A body may follow.
    Body,
    /// The engine wants to see the headers: nothing was reported yet but the bytes that went out.
    ShowHeaders,
}

impl Call {
    /// Begins a call that goes out as it is; `None` between `uninstall()` and `install()`, and where rules decide.
    pub(crate) fn begin(request: &Request<'_>) -> Option<Self> {
        let handle = handle().filter(|handle| handle.only_watches())?;
        let target = request.target();
        let words = request.scope.map(|scope| &scope.words);
        let begun = match handle.farcall.note(request.method, &target, words) {
            Ok(note) => {
                handle.tally(request.adapter);
                return Some(Self::of(State::new(Stage::Noted(note), request.method, false, false)));
            }
            Err(begun) => begun,
        };
        let mut guard = guard(handle, request, None, begun);
        match guard.step_at(begun) {
            // Anything else is for adapters that can act on it: rules came into force this moment.
            Step::Send(_) => Some(Self::of(State::new(Stage::Begun(guard), request.method, false, false))),
            _ => None,
        }
    }

    /// Begins a call for which rules decide: what to do is what [`Call::step`] says. `None` between `uninstall()` and
    /// `install()`.
    pub(crate) fn begin_deciding(request: &Request<'_>, details: &Details<'_>) -> Option<Self> {
        let handle = handle().filter(|handle| handle.is_watching())?;
        let guard = guard(handle, request, Some(details), handle.farcall.now());
        let octets = details.headers.are_octets();
        Some(Self::of(State::new(Stage::Begun(guard), request.method, octets, true)))
    }

    fn of(state: State) -> Self {
        Self { state: Mutex::new(state) }
    }

    /// It waits for the hook that is to carry it, or no longer does.
    pub(crate) fn hold(&self, held: bool) {
        self.lock().hold(held);
    }

    /// What to do next, the moment as of which, and whether headers are to be told as bytes.
    pub(crate) fn step(&self) -> (Step, Timestamp, bool) {
        let state = &mut *self.lock();
        state.insecure = false;
        let octets = state.octets;
        // Nothing is to be done about one that no rule is about.
        let Some(guard) = state.stage.guard() else { return (Step::Settled, Timestamp::EPOCH, octets) };
        let now = guard.now();
        let step = guard.step_at(now);
        if let Step::Park(terms) = &step {
            state.terms = Some(terms.clone());
        }
        (step, now, octets)
    }

    /// The terms of the last step, where that was to park it; once.
    pub(crate) fn take_terms(&self) -> Option<Box<Terms>> {
        self.lock().terms.take()
    }

    /// Hands the request over to the outbox.
    pub(crate) fn begin_parking(&self, terms: &Terms, parcel: Parcel) -> Option<Parking> {
        self.lock().stage.guard().map(|guard| guard.park(terms, parcel))
    }

    /// What came of that.
    pub(crate) fn parked(&self, taken: &Result<Receipt, OutboxError>) {
        if let Some(guard) = self.lock().stage.guard() {
            guard.parked(taken);
        }
    }

    /// The request cannot be handed over.
    pub(crate) fn not_parked(&self, detour: Detour) {
        if let Some(guard) = self.lock().stage.guard() {
            guard.not_parked(detour.as_str());
        }
    }

    /// A second attempt beside a slow first one, and the moment as of which; `None` where no budget or quota has room.
    pub(crate) fn hedge(&self) -> Option<(Attempt, Timestamp)> {
        let state = &mut *self.lock();
        let guard = state.stage.guard()?;
        Some((guard.hedge()?, guard.now()))
    }

    /// Of two attempts that of this number ended so; `None`: it was given up, for the other one answered.
    pub(crate) fn lost(&self, number: u32, ending: Option<Ending>) {
        if let Some(guard) = self.lock().stage.guard() {
            guard.lost(number, ending);
        }
    }

    /// A copy to send beside the call, its attempt, and the moment as of which; `None` where there is no room for one.
    pub(crate) fn shadow(&self) -> Option<(Self, Attempt, Timestamp)> {
        let state = &mut *self.lock();
        let (guard, attempt) = state.stage.guard()?.shadow()?;
        let now = guard.now();
        let copy =
            State { bodiless: state.bodiless, ..State::new(Stage::Begun(guard), "", state.octets, true) };
        Some((Self::of(copy), attempt, now))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Making a connection took so many seconds. Parts may be told one by one; `None` is a part that is told at
    /// another time, did not happen or could not be seen.
    pub(crate) fn connected(&self, dns: Option<f64>, connect: Option<f64>, tls: Option<f64>) {
        let time = |seconds: Option<f64>| seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
        let state = &mut *self.lock();
        let known = state.times.as_deref().copied().unwrap_or_default();
        let times = ConnectTimes {
            dns: time(dns).or(known.dns),
            connect: time(connect).or(known.connect),
            tls: time(tls).or(known.tls),
        };
        state.times = Some(Box::new(times));
        state.stage.connected(times);
    }

    /// The head of the response arrived, and before it `sent` bytes of the request's body went out.
    pub(crate) fn head(&self, status: u16, sent: u64) -> Opened {
        let state = &mut *self.lock();
        state.stage.sent(sent);
        if !state.stage.head(status) {
            return Opened::ShowHeaders;
        }
        match state.opened(status) {
            true => Opened::Body,
            false => Opened::Settled,
        }
    }

    /// The head of the response arrived, with headers to look at.
    pub(crate) fn answer(&self, status: u16, headers: &dyn Headers) {
        self.lock().stage.answer(status, headers);
    }

    /// The application gets the response that was answered. Returns whether a body may follow; where none can, the
    /// call has settled.
    pub(crate) fn opened(&self, status: u16) -> bool {
        self.lock().opened(status)
    }

    /// So many bytes of the request's body went out.
    pub(crate) fn sent(&self, count: u64) {
        self.lock().stage.sent(count);
    }

    /// So many more bytes of the response's body arrived.
    pub(crate) fn body(&self, count: u64) {
        self.lock().stage.body(count);
    }

    /// More of the response's body arrived.
    pub(crate) fn read(&self, chunk: &[u8]) {
        self.lock().stage.read(chunk);
    }

    /// The attempt failed; another may follow.
    pub(crate) fn failed(&self, error: ErrorType) {
        self.lock().stage.failed(error);
    }

    /// The TLS handshake failed. Where rules decide there may be another attempt: then who made this one asks, and tells.
    pub(crate) fn handshake_failed(&self) {
        let decides = {
            let state = &mut *self.lock();
            state.insecure = state.decides;
            state.decides
        };
        if !decides {
            self.fail(ErrorType::Tls, 0, 0);
        }
    }

    /// Whether the handshake of this attempt failed; once.
    pub(crate) fn take_insecure(&self) -> bool {
        std::mem::take(&mut self.lock().insecure)
    }

    /// Whether the call has been counted.
    pub(crate) fn is_settled(&self) -> bool {
        self.lock().stage.is_settled()
    }

    /// The last byte of the response's body arrived, or the call failed. Does nothing once settled.
    pub(crate) fn end(&self) {
        self.lock().stage.end();
    }

    /// The call failed, after `sent` bytes of the request's body went out and `count` more of the response's
    /// arrived. Does nothing once settled.
    pub(crate) fn fail(&self, error: ErrorType, sent: u64, count: u64) {
        let stage = &mut self.lock().stage;
        if !stage.is_settled() {
            stage.sent(sent);
            stage.body(count);
            stage.failed(error);
            stage.end();
        }
    }

    /// The application let go of the response. Does nothing once settled.
    pub(crate) fn abandon(&self) {
        self.lock().stage.abandon();
    }
}

/// Begins a call, for somebody or for nobody in particular.
fn guard(handle: &Handle, request: &Request<'_>, details: Option<&Details<'_>>, now: Timestamp) -> CallGuard {
    handle.tally(request.adapter);
    let mut head = Head::to(request.method, request.target());
    if let Some(details) = details {
        head = head
            .headers(details.headers)
            .body(details.length, details.replayable)
            .patience(details.patience)
            .content(details.content)
            .caches(true)
            .exact(true)
            .parks(true)
            .hedges(details.hedges);
    }
    let begin = |head: &Head<'_>| handle.farcall.guard(handle.farcall.begin_at(head, now));
    let Some(scope) = request.scope else { return begin(&head) };
    let mut tags = [("", ""); TAGS];
    let kept = scope.words.tags.len().min(TAGS);
    for (slot, (key, value)) in tags.iter_mut().zip(&scope.words.tags) {
        *slot = (key, value);
    }
    begin(&head.customer(scope.words.customer.as_deref()).tags(&tags[..kept]).priority(scope.priority))
}

impl Drop for Call {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.hold(false);
        if !state.stage.is_settled() {
            if let Some(handle) = handle() {
                handle.note_late();
            }
            state.stage.abandon();
        }
    }
}
