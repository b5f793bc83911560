//! A call under way, in the hands of whoever sees its events: the future, then the response's body.

mod sent;

pub(crate) use sent::Sent;

use crate::scope::{Customer, Tags};
use crate::timer::{Pause, Timer};
use farcall::attribution::MAX_TAGS;
use farcall::outbox::Terms;
use farcall::resilience::Ending;
use farcall::{Attempt, ErrorType, Head, Step, Timestamp};
use farcall_agent::outbox::{OutboxError, Parcel, Parking, Receipt};
use farcall_agent::{CallGuard, Farcall};
use http::{HeaderMap, Response};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// A call in the agent's guard, which knows of forks, and the bytes of its request. Dropped before the end, it counts
/// the call as abandoned.
#[derive(Debug)]
pub(crate) struct Watched {
    guard: CallGuard,
    sent: Option<Sent>,
    /// Whether it was told to wait and cannot.
    hasty: bool,
}

/// What a call whose request has a body begins with.
pub(crate) struct Opened {
    /// Whether the body is to be kept.
    pub(crate) keeps: bool,
    /// `None` where the body is to be shown first.
    pub(crate) step: Option<Step>,
}

impl Watched {
    /// Begins a call at `now`. `None` where nothing is counted.
    #[cfg(any(test, feature = "reqwest"))]
    pub(crate) fn begin(
        farcall: &Farcall,
        head: Head<'_>,
        customer: Option<&Customer>,
        tags: Option<&Tags>,
        now: Timestamp,
    ) -> Option<Self> {
        if !farcall.is_enabled() {
            return None;
        }
        attributed(head, customer, tags, |head| {
            let guard = unharmed(farcall, || farcall.guard(farcall.begin_at(head, now)))?;
            Some(Self::of(guard))
        })
    }

    /// Begins a call at `now`, and asks at once what to do. The call goes into `watched` unless that was all. `None`
    /// where nothing is counted.
    pub(crate) fn open(
        farcall: &Farcall,
        head: Head<'_>,
        customer: Option<&Customer>,
        tags: Option<&Tags>,
        now: Timestamp,
        watched: &mut Option<Self>,
    ) -> Option<Step> {
        if !farcall.is_enabled() {
            return None;
        }
        attributed(head, customer, tags, |head| {
            // Written by the closure, so that it hands nothing large on.
            let (mut guard, mut step) = (None, None);
            unharmed(farcall, || step = Some(farcall.open_at(head, now, &mut guard)));
            if let Some(guard) = guard {
                *watched = Some(Self::of(guard));
            }
            step
        })
    }

    /// As [`Watched::open`], of a request with a body of so many bytes at most.
    pub(crate) fn open_with_body(
        farcall: &Farcall,
        head: Head<'_>,
        (customer, tags): (Option<&Customer>, Option<&Tags>),
        most: Option<u64>,
        now: Timestamp,
        watched: &mut Option<Self>,
    ) -> Option<Opened> {
        if !farcall.is_enabled() {
            return None;
        }
        attributed(head, customer, tags, |head| {
            unharmed(farcall, || {
                let mut call = farcall.begin_at(head, now);
                let keeps = call.keep(most);
                let step = match keeps && call.wants_content() {
                    true => None,
                    false => Some(call.step(farcall.engine(), now)),
                };
                if !call.is_over() {
                    *watched = Some(Self::of(farcall.guard(call)));
                }
                Opened { keeps, step }
            })
        })
    }

    #[inline]
    fn of(guard: CallGuard) -> Self {
        Self { guard, sent: None, hasty: false }
    }

    /// A timer for a moment of the engine's clock; `None` where there is no clock to ring.
    pub(crate) fn timer(&self, until: Timestamp) -> Option<Timer> {
        let timer = Timer::new(self.now(), until);
        if timer.is_none() {
            self.guard.farcall().count_failure("tower_without_timer");
        }
        timer
    }

    /// The wait of a step until this moment, or until something comes that it waits for: then this is woken.
    pub(crate) fn pause(&mut self, until: Timestamp, waker: &Waker) -> Pause {
        let woken = self.guard.wake(waker);
        let timer = self.timer(woken.unwrap_or(until));
        self.hasty = timer.is_none() && woken.is_none();
        Pause::new(timer, woken.is_some())
    }

    /// Waits until this moment.
    #[cfg(feature = "reqwest")]
    pub(crate) async fn wait(&mut self, until: Timestamp) {
        match self.timer(until) {
            Some(timer) => timer.await,
            None => self.hasty = true,
        }
    }

    /// Counts what the request's body sends as bytes of this call.
    pub(crate) fn count(&mut self, sent: Option<Sent>) {
        self.add_sent();
        self.sent = sent;
    }

    /// What to do next, as of `now`. Who cannot wait is not told to once more: the request goes out, as one that the rules
    /// overlooked.
    pub(crate) fn step(&mut self, now: Timestamp) -> Step {
        match std::mem::take(&mut self.hasty) {
            true => self.guard.step_at_once(now),
            false => self.guard.step_at(now),
        }
    }

    /// Shows the request with its body, before the first step.
    pub(crate) fn show(&mut self, head: &Head<'_>) {
        self.guard.show(head);
    }

    /// A second attempt beside the slow one under way, where the rules allow one.
    pub(crate) fn hedge(&mut self) -> Option<Attempt> {
        self.guard.hedge()
    }

    /// Of two attempts under way this one ended so, or was given up for the other's answer.
    pub(crate) fn lost(&mut self, number: u32, ending: Option<Ending>) {
        self.guard.lost(number, ending);
    }

    /// A copy to send beside the call, where the rules want one.
    pub(crate) fn shadow(&mut self) -> Option<(Self, Attempt)> {
        self.guard.shadow().map(|(guard, attempt)| (Self::of(guard), attempt))
    }

    /// Hands the request over to the outbox.
    pub(crate) fn park(&self, terms: &Terms, request: Parcel) -> Parking {
        self.guard.park(terms, request)
    }

    /// What came of that.
    pub(crate) fn parked(&mut self, taken: &Result<Receipt, OutboxError>) {
        // Where it was taken the call settles, and what its attempts sent belongs to it.
        if taken.is_ok() {
            self.add_sent();
        }
        self.guard.parked(taken);
    }

    /// It could not be handed over.
    pub(crate) fn not_parked(&mut self, why: &str) {
        self.guard.not_parked(why);
    }

    /// A request to send beside the call, where it was answered with something stale.
    pub(crate) fn refresh(&mut self) -> Option<(Self, Attempt)> {
        self.guard.refresh().map(|(guard, attempt)| (Self::of(guard), attempt))
    }

    #[cfg(any(test, feature = "reqwest"))]
    pub(crate) fn begun(&self) -> Timestamp {
        self.guard.call().begun()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.guard.now()
    }

    #[cfg(feature = "hyper")]
    pub(crate) fn connected(&mut self, times: farcall::ConnectTimes) {
        self.guard.connected(times);
    }

    /// The answer is not one to the request that the call began with.
    #[cfg(feature = "reqwest")]
    pub(crate) fn uncacheable(&mut self) {
        self.guard.uncacheable();
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.guard.sent(bytes);
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn head(&mut self, status: u16, now: Timestamp) {
        self.guard.head_at(status, now);
    }

    /// The head of a response arrived.
    pub(crate) fn answer<B>(&mut self, response: &Response<B>, now: Timestamp) {
        #[cfg(feature = "hyper")]
        if let Some(times) = crate::connector::first_use(response.extensions()) {
            self.connected(times);
        }
        self.answered(response.status().as_u16(), response.headers(), now);
    }

    /// The head of a response arrived, of which no more is at hand.
    pub(crate) fn answered(&mut self, status: u16, headers: &HeaderMap, now: Timestamp) {
        match self.guard.call().wants_headers(status) {
            true => self.guard.answer_at(status, headers, now),
            false => self.guard.head_at(status, now),
        }
    }

    pub(crate) fn body(&mut self, chunk: &[u8]) {
        match self.guard.call().wants_body() {
            true => self.guard.read(chunk),
            false => self.guard.body(chunk.len() as u64),
        }
    }

    /// Whether the cache keeps the body that is read.
    pub(crate) fn keeps_body(&self) -> bool {
        self.guard.call().keeps_body()
    }

    /// The attempt failed.
    pub(crate) fn failed(&mut self, error: ErrorType) {
        self.guard.failed(error);
    }

    /// The attempt failed: counts the call.
    pub(crate) fn fail(mut self, error: ErrorType) {
        self.close(Some(error));
    }

    /// A response of this status arrived, all of it that there is to see: counts the call.
    #[cfg(feature = "reqwest")]
    pub(crate) fn stopped(mut self, status: u16) {
        let now = self.now();
        self.head(status, now);
        self.end_at(now);
    }

    /// The last byte arrived: counts the call.
    pub(crate) fn end(mut self) {
        self.close(None);
    }

    /// The last byte arrived at `now`: counts the call.
    pub(crate) fn end_at(mut self, now: Timestamp) {
        self.add_sent();
        self.guard.end_at(now);
    }

    fn close(&mut self, error: Option<ErrorType>) {
        if let Some(error) = error {
            self.guard.failed(error);
        }
        self.add_sent();
        let now = self.now();
        self.guard.end_at(now);
    }

    fn add_sent(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.guard.sent(sent.bytes());
            sent.give_back();
        }
    }
}

impl Drop for Watched {
    /// The guard, which goes next, counts the call, unless it has been.
    fn drop(&mut self) {
        self.add_sent();
    }
}

/// A call of which the response's body is on its way. In a box, since responses are moved from hand to hand; boxes are
/// used again, so that a call allocates none. Dropped before the end, it counts the call as abandoned.
#[derive(Debug)]
pub(crate) struct Carried(Box<Option<Watched>>);

/// Counters and boxes kept for the next call, on each thread.
const SPARE: usize = 64;

#[allow(clippy::vec_box)] // A box is what is kept.
mod boxes {
    use super::Watched;
    use std::cell::RefCell;

    thread_local! {
        pub(super) static BOXES: RefCell<Vec<Box<Option<Watched>>>> = const { RefCell::new(Vec::new()) };
    }
}
use boxes::BOXES;

impl Carried {
    pub(crate) fn new(watched: Watched) -> Self {
        let spare = BOXES.try_with(|boxes| boxes.try_borrow_mut().ok().and_then(|mut boxes| boxes.pop()));
        let mut place = spare.ok().flatten().unwrap_or_default();
        *place = Some(watched);
        Self(place)
    }

    pub(crate) fn body(&mut self, chunk: &[u8]) {
        if let Some(watched) = &mut *self.0 {
            watched.body(chunk);
        }
    }

    /// The last byte arrived, or this error instead: counts the call.
    pub(crate) fn close(mut self, error: Option<ErrorType>) {
        if let Some(watched) = &mut *self.0 {
            watched.close(error);
        }
        *self.0 = None;
        let _ = BOXES.try_with(|boxes| {
            if let Ok(mut boxes) = boxes.try_borrow_mut()
                && boxes.len() < SPARE
            {
                boxes.push(self.0);
            }
        });
    }
}

/// Shows the head of a call with its customer and tags.
fn attributed<R>(
    head: Head<'_>,
    customer: Option<&Customer>,
    tags: Option<&Tags>,
    see: impl FnOnce(&Head<'_>) -> R,
) -> R {
    let head = head.customer(customer.map(Customer::name));
    let pairs = tags.map_or(&[][..], Tags::pairs);
    if pairs.is_empty() {
        return see(&head);
    }
    // One more than the engine keeps, so that it counts what it drops.
    let mut borrowed = [("", ""); MAX_TAGS + 1];
    for (slot, (key, value)) in borrowed.iter_mut().zip(pairs) {
        *slot = (key, value);
    }
    see(&head.tags(&borrowed[..pairs.len().min(borrowed.len())]))
}

/// Keeps a panic of ours from the application, and counts it.
fn unharmed<R>(farcall: &Farcall, f: impl FnOnce() -> R) -> Option<R> {
    // What a panic may leave half done is the engine's, whose locks recover from poison.
    let result = catch_unwind(AssertUnwindSafe(f));
    if result.is_err() {
        farcall.count_failure("tower_panics");
    }
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use farcall_agent::Options;

    #[test]
    fn a_panic_of_ours_is_counted_and_goes_no_further() {
        let home = tempfile::tempdir().unwrap();
        let options = Options {
            home: Some(home.path().to_owned()),
            flush_every: None,
            hub: false,
            enabled: true,
            ..Options::default()
        };
        let farcall = Farcall::start(options);
        assert_eq!(unharmed(&farcall, || -> u8 { panic!("ours") }), None);
        assert_eq!(unharmed(&farcall, || 1), Some(1));
        assert!(farcall.counters().contains(&("tower_panics".to_owned(), 1)));
    }

    /// The body of the child process of the next test; as a test of its own it has nothing to do.
    #[test]
    fn child_body() {
        let Some(home) = std::env::var_os("FARCALL_TEST_FORKS") else { return };
        let options = Options {
            home: Some(home.into()),
            flush_every: None,
            hub: false,
            enabled: true,
            ..Options::default()
        };
        let farcall = Farcall::start(options);
        let counter = |name: &str| farcall.counters().into_iter().find(|(known, _)| known == name).unwrap().1;
        let calls =
            || farcall.engine().drain(farcall.now()).rows.iter().map(|row| row.sums.calls).sum::<u64>();
        let begin = || {
            let head = Head::new("GET", "https://api.stripe.com/v1/balance");
            Watched::begin(&farcall, head, None, None, farcall.now()).unwrap()
        };
        let (mut ended, dropped) = (begin(), begin());
        let _send = ended.step(ended.begun());
        farcall.before_fork();
        match fork::fork().unwrap() {
            fork::Fork::Child => {
                farcall.after_fork();
                let now = ended.now();
                ended.answered(200, &HeaderMap::new(), now);
                ended.end();
                drop(dropped);
                let fine = calls() == 0 && counter("foreign_calls") == 0 && counter("panics") == 0;
                std::process::exit(i32::from(!fine));
            }
            fork::Fork::Parent(pid) => {
                farcall.after_fork_in_parent();
                assert_eq!(fork::waitpid(pid).unwrap(), 0, "the child touched its parent's calls");
                ended.end();
                drop(dropped);
                assert_eq!(calls(), 2);
            }
        }
    }

    #[test]
    fn a_call_under_way_at_a_fork_stays_the_parents() {
        let home = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "watched::tests::child_body", "--test-threads=1"]);
        let output = child.env("FARCALL_TEST_FORKS", home.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
