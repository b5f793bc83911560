//! Answers that are kept, so that calls need not be made: a private HTTP cache by RFC 9111, with the extensions of
//! RFC 5861 and its decisions in the words of RFC 9211.
//!
//! What may be kept and for how long is decided here; where it lies is the business of a [`Store`], which the
//! embedder gives the engine ([`Engine::set_cache_store`](crate::Engine::set_cache_store)). Without one nothing is
//! kept. A store may be shared by processes: then equal calls of all of them make one.

mod answer;
mod ask;
mod control;
mod flights;
mod invalid;
mod json;
mod key;
mod record;
mod rule;
mod status;
mod store;

pub use answer::{Answer, Label};
pub use flights::{Landing, Place};
pub use key::Key;
pub use rule::{Methods, Query, Rule};
pub use status::{Forwarded, Status};
pub use store::{Fetch, Kept, Store};

pub(crate) use answer::{Received, Unkept, Use};
pub(crate) use ask::{Ask, Origin, tells_apart};

use crate::call::{Head, Target};
use crate::units::Timestamp;
use flights::Flights;
use invalid::Invalidations;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// All that the cache knows beside the answers.
#[derive(Debug)]
pub(crate) struct Cache {
    /// A panic in a store is the store's: what it holds is not looked at half done.
    store: OnceLock<AssertUnwindSafe<Arc<dyn Store>>>,
    pub(crate) flights: Flights,
    invalidations: OnceLock<Invalidations>,
    /// When somebody last wanted to be rid of answers: those asked for before are not kept.
    purged: AtomicU64,
    /// When a hit was last told of.
    told: AtomicU64,
    /// Of this process; keys are made with the store's, where that has one.
    seed: [u8; 16],
    shared: OnceLock<[u8; 16]>,
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    /// Answers to requests that differ in a header.
    OtherHeaders,
    Answer(Arc<Answer>),
}

/// Of the calls that are answered from the cache, no more than one in this time is told of in full.
const TOLD_EVERY: u64 = 10_000_000;

impl Cache {
    pub(crate) fn new(seed: u64) -> Self {
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&seed.to_le_bytes());
        secret[8..].copy_from_slice(&crate::units::spread(seed ^ 0x6361_6368_6521).to_le_bytes());
        Self {
            store: OnceLock::new(),
            flights: Flights::default(),
            invalidations: OnceLock::new(),
            purged: AtomicU64::new(0),
            told: AtomicU64::new(0),
            seed: secret,
            shared: OnceLock::new(),
        }
    }

    pub(crate) fn set_store(&self, store: Arc<dyn Store>) {
        if self.store.get().is_none()
            && let Some(secret) = store.secret()
        {
            // Before the store: no key of this process's own gets into one that is shared.
            let _ = self.shared.set(secret);
        }
        let _ = self.store.set(AssertUnwindSafe(store));
    }

    fn secret(&self) -> &[u8; 16] {
        self.shared.get().unwrap_or(&self.seed)
    }

    /// The store, where other processes share it.
    pub(crate) fn shared(&self) -> Option<&Arc<dyn Store>> {
        self.shared.get().and_then(|_| self.store.get()).map(|store| &store.0)
    }

    /// The call that led in this process, and among those of the host where `hosted`, has come to an end.
    pub(crate) fn land(&self, key: Key, call: u64, hosted: bool, landing: Landing, now: Timestamp) {
        if hosted && let Some(store) = self.shared() {
            store.land(key, landing, now);
        }
        self.flights.land(key, call, landing, now);
    }

    pub(crate) fn has_store(&self) -> bool {
        self.store.get().is_some()
    }

    /// Reads a request.
    pub(crate) fn read(&self, ask: &mut Ask, rule: &Rule, name: &str, head: &Head<'_>, authorized: bool) {
        ask.read(rule, name, head, authorized, self.secret());
    }

    /// Stands for the origin and the URI of a request that changes something there.
    pub(crate) fn uri_of(&self, head: &Head<'_>) -> (Origin, u64) {
        ask::uri_of(head, self.secret())
    }

    /// What there is for a request, and the key under which equal ones are known.
    pub(crate) fn find(&self, ask: &Ask, rule: &Rule) -> (Found, Key) {
        let Some(store) = self.store.get() else { return (Found::Nothing, ask.key) };
        let (answer, key) = match store.get(ask.key) {
            None => return (Found::Nothing, ask.key),
            Some(Kept::Answer(answer)) => (answer, ask.key),
            Some(Kept::Varies(names)) => {
                let Some(key) = ask.varied(&names, rule, self.secret()) else {
                    return (Found::OtherHeaders, ask.key);
                };
                match store.get(key) {
                    Some(Kept::Answer(answer)) => (answer, key),
                    _ => return (Found::OtherHeaders, key),
                }
            }
        };
        match self.is_outdated(&answer) {
            true => (Found::Nothing, key),
            false => (Found::Answer(answer), key),
        }
    }

    /// Keeps an answer to `ask`; whether it was kept.
    pub(crate) fn keep(&self, ask: &Ask, rule: &Rule, answer: Arc<Answer>) -> bool {
        let Some(store) = self.store.get() else { return false };
        if self.is_outdated(&answer)
            || answer.requested_at().as_nanos() <= self.purged.load(Ordering::Acquire)
        {
            return false;
        }
        let (vary, useful_for) = (answer.vary(), answer.useful_for(rule));
        let kept = Kept::Answer(answer);
        if !store.takes(&kept) {
            return false;
        }
        if vary.is_empty() {
            store.put_for(ask.key, kept, useful_for);
            return true;
        }
        let Some(key) = ask.varied(&vary, rule, self.secret()) else { return false };
        // Before what leads to it: whoever finds that finds it too.
        store.put_for(key, kept, useful_for);
        // Others that vary from this one may be of use for longer.
        store.put_for(ask.key, Kept::Varies(vary.into()), useful_for.max(Duration::from_secs(3_600)));
        true
    }

    /// Something was changed at a URI (RFC 9111, section 4.4): what was asked for before is of no use.
    pub(crate) fn invalidate(&self, uri: u64, now: Timestamp) {
        self.invalidations.get_or_init(Invalidations::new).add(uri, now);
        if let Some(store) = self.shared() {
            store.changed(uri, now);
        }
    }

    /// Something was changed at a path of this origin, which an answer names.
    pub(crate) fn invalidate_path(&self, origin: &Origin, path: &str, now: Timestamp) {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        self.invalidate(origin.uri(path), now);
    }

    /// The same, unless it is of another origin: nobody is to invalidate what is not his.
    pub(crate) fn invalidate_target(&self, origin: &Origin, target: &Target<'_>, now: Timestamp) {
        if Origin::of(target, self.secret()) == *origin {
            self.invalidate_path(origin, target.path, now);
        }
    }

    /// Whether what was found then may still be handed out: nothing was changed there, nor was anybody to be rid of
    /// answers since (RFC 9111, section 4.4).
    pub(crate) fn stands(&self, answer: &Answer, found_at: Timestamp) -> bool {
        found_at.as_nanos() > self.purged.load(Ordering::Acquire) && !self.is_outdated(answer)
    }

    fn is_outdated(&self, answer: &Answer) -> bool {
        let known = self.invalidations.get();
        known.is_some_and(|known| known.since(answer.uri, answer.requested_at()))
            || self.shared().is_some_and(|store| store.last_change(answer.uri) >= answer.requested_at())
    }

    /// Forgets the answers that `which` says, and does not keep what is under way now; returns how many.
    pub(crate) fn purge(&self, which: &dyn Fn(&Answer) -> bool, now: Timestamp) -> u64 {
        self.purged.fetch_max(now.as_nanos(), Ordering::AcqRel);
        self.store.get().map_or(0, |store| store.purge(which))
    }

    /// Whether a hit is to be told of: to tell of each would cost more than the hit.
    pub(crate) fn tells(&self, now: Timestamp) -> bool {
        let (now, told) = (now.as_nanos(), self.told.load(Ordering::Relaxed));
        let due = now.saturating_sub(told) >= TOLD_EVERY;
        due && self.told.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
