//! What the threads of a cache have in common: the memory that they bring answers to, and what was purged meanwhile.

use super::Memory;
use super::changes::Changes;
use super::seal::Seal;
use farcall::Timestamp;
use farcall::cache::{Answer, Kept, Key, Store};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A purge is minded for so long, for what was under way when it came, or could not be removed: longer lies nothing.
pub(super) const MINDED: Duration = Duration::from_secs(7 * 86_400);
const MOST_PURGES: usize = 1_024;
/// Nobody's clock is ahead by so much: what came then was made under one that was.
const AHEAD: Duration = Duration::from_secs(60);

pub(super) type Which = Arc<dyn Fn(&Answer) -> bool + Send + Sync>;

/// What all threads of a cache share.
pub(super) struct Common {
    pub(super) memory: Memory,
    pub(super) seal: Seal,
    pub(super) clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    purges: Mutex<Vec<(Which, Timestamp)>>,
    /// Where other hosts share what is kept.
    pub(super) changes: Option<Changes>,
    pub(super) counts: Counts,
}

/// What could not be done as asked.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Answers that were not written where others would find them.
    pub(super) unwritten: AtomicU64,
    /// Records that are not whole, or nobody's who has the key.
    pub(super) unreadable: AtomicU64,
    /// Reads that failed.
    pub(super) failed: AtomicU64,
    /// How often other hosts could not be told, or asked, what was changed.
    pub(super) untold: AtomicU64,
}

impl Common {
    pub(super) fn new(memory: Memory, seal: Seal, clock: Box<dyn Fn() -> Timestamp + Send + Sync>) -> Self {
        let (purges, counts) = (Mutex::default(), Counts::default());
        Self { memory, seal, clock, purges, changes: None, counts }
    }

    /// Takes what was found for an answer, where it is one; whether it is at hand now.
    pub(super) fn take_in(&self, key: Key, sealed: Vec<u8>) -> bool {
        let now = (self.clock)();
        let Some(kept) = self.seal.open(key, sealed) else {
            self.counts.unreadable.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        if let Kept::Answer(answer) = &kept {
            let purged = |(which, at): &(Which, Timestamp)| answer.requested_at() <= *at && which(answer);
            if answer.received_at() > now.plus(AHEAD) || lock(&self.purges).iter().any(purged) {
                return false;
            }
            if let Some(Kept::Answer(ours)) = self.memory.get(key)
                && ours.received_at() >= answer.received_at()
            {
                return true;
            }
        }
        self.memory.put(key, kept);
        true
    }

    pub(super) fn purge(&self, which: Which, now: Timestamp) {
        let mut purges = lock(&self.purges);
        purges.retain(|(_, at)| now.since(*at) < MINDED);
        if purges.len() >= MOST_PURGES {
            purges.remove(0);
        }
        purges.push((which, now));
    }

    pub(super) fn is_wanted(&self, which: &Which, at: Timestamp, key: Key, sealed: Vec<u8>) -> bool {
        match self.seal.open(key, sealed) {
            Some(Kept::Answer(answer)) => answer.requested_at() <= at && which(&answer),
            _ => false,
        }
    }
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common")
            .field("memory", &self.memory)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
