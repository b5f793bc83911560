//! Where answers lie: what the embedder brings.

use super::flights::{Landing, Place};
use super::{Answer, Key};
use crate::units::Timestamp;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// Where answers lie. Called for each call that a rule of `[[cache]]` is about, from many threads at once.
///
/// The first four are about what is at hand: they must not wait for a disk or the network. The others are for a store
/// that other processes share; one that has a [`secret`](Store::secret) is taken for such.
pub trait Store: fmt::Debug + Send + Sync {
    /// What is kept under this key.
    fn get(&self, key: Key) -> Option<Kept>;

    /// Keeps it, instead of what was there; or not, where there is no room.
    fn put(&self, key: Key, kept: Kept);

    /// As [`put`](Store::put), of what is of no use after so long: neither fresh, nor to be handed out stale.
    fn put_for(&self, key: Key, kept: Kept, _useful_for: Duration) {
        self.put(key, kept);
    }

    /// Whether it would be there after a [`put`](Store::put), as far as its size says: who waits for what will not be
    /// there waits in vain.
    fn takes(&self, _kept: &Kept) -> bool {
        true
    }

    /// Forgets what is kept under this key.
    fn remove(&self, key: Key);

    /// Forgets every answer at hand that `which` says; returns how many.
    fn purge(&self, which: &dyn Fn(&Answer) -> bool) -> u64;

    /// What keys are made with, so that all who share the store make the same, and nobody else can. Asked once.
    fn secret(&self) -> Option<[u8; 16]> {
        None
    }

    /// Begins to look for what is not at hand, as of `now`; [`get`](Store::get) has it when that is over. `None` where
    /// there is nowhere to look.
    fn fetch(&self, _key: Key, _now: Timestamp) -> Option<Fetch> {
        None
    }

    /// A process wants to ask the vendor for what is to be kept under this key: whether it is the one to do so. Asked
    /// again and again while the answer is [`Place::Wait`]; [`Place::Lead`] is given up by [`land`](Store::land).
    fn join(&self, _key: Key, _now: Timestamp) -> Place {
        Place::Lead
    }

    /// The process that was to ask has done so. What it [`put`](Store::put) before is there for whoever joins next.
    fn land(&self, _key: Key, _landing: Landing, _now: Timestamp) {}

    /// What this number stands for was changed: answers that were asked for before are of no use to any process.
    fn changed(&self, _uri: u64, _now: Timestamp) {}

    /// When it, or something that cannot be told from it, was last changed.
    fn last_change(&self, _uri: u64) -> Timestamp {
        Timestamp::EPOCH
    }

    /// Forgets everywhere what `which` says of the answers that were asked for until now, in its own time.
    fn purge_beyond(&self, _which: Arc<dyn Fn(&Answer) -> bool + Send + Sync>, _now: Timestamp) {}
}

/// What lies under one key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Kept {
    /// An answer.
    Answer(Arc<Answer>),
    /// The names of the headers that requests must agree in (`Vary`): the answers lie under other keys.
    Varies(Arc<[Box<str>]>),
}

impl Kept {
    /// Bytes that it takes, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Answer(answer) => answer.weight(),
            Self::Varies(names) => names.iter().map(|name| name.len() + 16).sum::<usize>() + 64,
        }
    }
}

/// Looking for an answer that is not at hand: one end with the call that waits, one with whoever looks.
#[derive(Clone, Debug)]
pub struct Fetch(Arc<Fetching>);

#[derive(Debug)]
struct Fetching {
    done: AtomicBool,
    until: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Fetch {
    /// One for which nobody waits longer than until then.
    #[must_use]
    pub fn new(until: Timestamp) -> Self {
        let until = AtomicU64::new(until.as_nanos());
        Self(Arc::new(Fetching { done: AtomicBool::new(false), until, waker: Mutex::new(None) }))
    }

    /// Until when the call waits.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.until.load(Ordering::Acquire))
    }

    /// Nobody waits longer than until then, from now on.
    pub fn wait_until(&self, until: Timestamp) {
        self.0.until.store(until.as_nanos(), Ordering::Release);
    }

    /// It is over; the call that waits is woken.
    pub fn finish(&self) {
        self.0.done.store(true, Ordering::Release);
        let waker = self.0.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.done.load(Ordering::Acquire)
    }

    /// Has this woken when it is over: at once where it is.
    pub(crate) fn wake(&self, waker: &Waker) {
        *self.0.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        if self.is_over() {
            self.finish();
        }
    }
}
