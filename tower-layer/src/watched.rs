//! A call under way, in the hands of whoever sees its events: the future, then the response's body.

use crate::scope::{Customer, Tags};
use farcall::attribution::MAX_TAGS;
use farcall::{Call, ErrorType, Head, Step, Target, Timestamp};
use farcall_agent::Farcall;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A call and the handle that counts it. Dropped before the end, it counts the call as abandoned.
#[derive(Debug)]
pub(crate) struct Watched {
    farcall: Farcall,
    call: Call,
    sent: Option<Sent>,
}

impl Watched {
    /// Begins a call that started at `at`, or else now. `None` where nothing is counted.
    pub(crate) fn begin_at(
        farcall: &Farcall,
        method: &str,
        target: Target<'_>,
        customer: Option<&Customer>,
        tags: Option<&Tags>,
        at: Option<Timestamp>,
    ) -> Option<Self> {
        if !farcall.is_enabled() {
            return None;
        }
        let pairs = tags.map_or(&[][..], Tags::pairs);
        // One more than the engine keeps, so that it counts what it drops.
        let mut borrowed = [("", ""); MAX_TAGS + 1];
        for (slot, (key, value)) in borrowed.iter_mut().zip(pairs) {
            *slot = (key, value);
        }
        let head = Head::to(method, target)
            .customer(customer.map(Customer::name))
            .tags(&borrowed[..pairs.len().min(borrowed.len())]);
        let call = unharmed(farcall, || match at {
            Some(at) => farcall.engine().begin(&head, at, farcall.seed()),
            None => farcall.begin(&head),
        })?;
        Some(Self { farcall: farcall.clone(), call, sent: None })
    }

    /// Counts what the request's body sends as bytes of this call.
    pub(crate) fn count(&mut self, sent: Option<Sent>) {
        self.sent = sent;
    }

    /// What to do next, as of `now`.
    pub(crate) fn step(&mut self, now: Timestamp) -> Step {
        self.call.step(self.farcall.engine(), now)
    }

    pub(crate) fn begun(&self) -> Timestamp {
        self.call.begun()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.farcall.now()
    }

    #[cfg(feature = "hyper")]
    pub(crate) fn connected(&mut self, times: farcall::ConnectTimes) {
        self.call.connected(times);
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.call.sent(bytes);
    }

    pub(crate) fn head(&mut self, status: u16, now: Timestamp) {
        self.call.head(status, now);
    }

    pub(crate) fn body(&mut self, bytes: usize) {
        self.call.body(bytes as u64);
    }

    /// The attempt failed: counts the call.
    pub(crate) fn fail(mut self, error: ErrorType) {
        self.call.failed(error);
        self.end();
    }

    /// The last byte arrived: counts the call.
    pub(crate) fn end(self) {
        let now = self.now();
        self.end_at(now);
    }

    /// The last byte arrived at `now`: counts the call.
    pub(crate) fn end_at(mut self, now: Timestamp) {
        self.add_sent();
        let Self { farcall, call, .. } = &mut self;
        unharmed(farcall, || call.end(farcall.engine(), now));
    }

    fn add_sent(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.call.sent(sent.bytes());
            sent.give_back();
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.call.is_settled() {
            self.add_sent();
            let Self { farcall, call, .. } = self;
            unharmed(farcall, || call.abandon(farcall.engine(), farcall.now()));
        }
    }
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

/// Bytes of a request's body that the transport has taken. The body goes its own way, into the connection's
/// task, hence the sharing; counters are used again, so that a call allocates none.
#[derive(Clone, Debug)]
pub(crate) struct Sent(Arc<AtomicU64>);

/// Counters kept for the next call, on each thread.
const SPARE_COUNTERS: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Sent>> = const { RefCell::new(Vec::new()) };
}

impl Sent {
    pub(crate) fn take() -> Self {
        let spare = SPARE.try_with(|spare| spare.try_borrow_mut().ok().and_then(|mut spare| spare.pop()));
        spare.ok().flatten().unwrap_or_else(|| Self(Arc::new(AtomicU64::new(0))))
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Keeps the counter for another call, unless the body still holds it.
    fn give_back(mut self) {
        if let Some(bytes) = Arc::get_mut(&mut self.0) {
            *bytes.get_mut() = 0;
            let _ = SPARE.try_with(|spare| {
                if let Ok(mut spare) = spare.try_borrow_mut()
                    && spare.len() < SPARE_COUNTERS
                {
                    spare.push(self);
                }
            });
        }
    }
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

    #[test]
    fn counters_are_used_again_once_their_body_is_gone() {
        let (first, held) = (Sent::take(), Sent::take());
        let body = held.clone();
        let place = Arc::as_ptr(&first.0);
        first.add(5);
        first.give_back();
        held.give_back();
        let next = Sent::take();
        assert_eq!((Arc::as_ptr(&next.0), next.bytes()), (place, 0));
        assert!(!Arc::ptr_eq(&Sent::take().0, &body.0), "a counter that a body still holds is left to it");
    }
}
