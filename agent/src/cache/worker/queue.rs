//! What a thread is to do, and whether it is to do anything at all: a tier that fails is left alone.

use super::super::common::Which;
use farcall::Timestamp;
use farcall::cache::{Fetch, Kept, Key, Landing};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes that wait to be written at most; what comes beyond is not.
pub(super) const MOST_BYTES: usize = 32 << 20;
/// Jobs that wait at most.
pub(super) const MOST_JOBS: usize = 65_536;
/// Of those that a tier could not do, so many are tried again.
pub(super) const MOST_UNDONE: usize = 64;
/// After a failure a tier is left alone for so long, doubling up to the second number.
pub(super) const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a thread is to do, in this order.
pub(in super::super) enum Job {
    Fetch(Key, Fetch),
    /// What is of use for so long.
    Put(Key, Kept, Duration),
    Remove(Key),
    /// The call that asked for it is over: others may go on.
    Land(Key, Landing, Timestamp),
    /// Something was changed of which other hosts do not know.
    Changed,
    Purge(Which, Timestamp),
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) running: bool,
    pub(super) jobs: VecDeque<Job>,
    pub(super) bytes: usize,
    /// Nobody is asked until then.
    pub(super) rests_until: Option<Instant>,
    pub(super) rest: Duration,
    /// What is not written until then, is not.
    pub(super) ends_at: Option<Instant>,
    /// The thread that is to go on; one that is older, and hung when it was to stop, ends.
    pub(super) number: u64,
    /// Whether that thread has ended.
    pub(super) ended: bool,
    /// Purges that failed, which are tried again.
    pub(super) undone: Vec<(Which, Timestamp)>,
    /// Since when it does what it does.
    pub(super) busy_since: Option<Instant>,
}

impl Queue {
    pub(super) fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether what is still to be written or read is let go of: the tier failed just now, or the time is over.
    pub(super) fn is_given_up(&self) -> bool {
        self.rests() || !self.running && self.ends_at.is_some_and(|at| Instant::now() >= at)
    }
}
