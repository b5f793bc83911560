//! What was changed where, as hosts tell each other: requests with unsafe methods make useless what all of them keep.
//!
//! URIs have places in a table of moments, as in the engine's own: those that share a place lose an answer now and then,
//! and nothing grows. What is still to be told is a set of places; where it could not be told, it is the next time.

use super::common::lock;
use farcall::Timestamp;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const PLACES: u64 = 8_192;

#[derive(Debug)]
pub(super) struct Changes {
    /// When other hosts last changed something at a place, in nanoseconds.
    moments: Box<[AtomicU64]>,
    untold: Mutex<BTreeSet<u64>>,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self { moments: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), untold: Mutex::default() }
    }

    /// This process changed something there; whether others are to be told of anything for the first time.
    pub(super) fn add(&self, uri: u64) -> bool {
        let mut untold = lock(&self.untold);
        untold.insert(uri % PLACES) && untold.len() == 1
    }

    /// The places that others are to be told of.
    pub(super) fn untold(&self) -> BTreeSet<u64> {
        std::mem::take(&mut *lock(&self.untold))
    }

    /// They could not be told.
    pub(super) fn put_back(&self, places: BTreeSet<u64>) {
        lock(&self.untold).extend(places);
    }

    /// Another host says that something was changed at a place, at the latest then.
    pub(super) fn learn(&self, place: u64, at: Timestamp) {
        self.moment(place).fetch_max(at.as_nanos(), Ordering::AcqRel);
    }

    /// When another host last changed something there.
    pub(super) fn last(&self, uri: u64) -> Timestamp {
        Timestamp::from_nanos(self.moment(uri).load(Ordering::Acquire))
    }

    fn moment(&self, uri: u64) -> &AtomicU64 {
        #[allow(clippy::cast_possible_truncation)] // A remainder of a small number.
        let place = (uri % PLACES) as usize;
        &self.moments[place]
    }
}
