//! The engine: what happens to a call, in which order.

mod call;
mod pipeline;
mod step;

pub use call::Call;
pub use step::{Attempt, Step};

use crate::attribution::{Caller, CallerId};
use crate::catalogue::{Catalogue, Learner};
use crate::config::Config;
use crate::ledger::{Batch, Shards};
use crate::units::Timestamp;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// The state that all calls of a process share. Every method takes `&self`; calls on different threads do not
/// wait for each other.
#[derive(Debug)]
pub struct Engine {
    catalogue: Catalogue,
    learner: Mutex<Learner>,
    learned: AtomicU32,
    shards: Shards,
    callers: RwLock<Callers>,
    sightings: AtomicBool,
    /// Tells this engine's calls from another's.
    identity: u32,
    tallies: Tallies,
}

static NEXT_IDENTITY: AtomicU32 = AtomicU32::new(1);

/// Callers beyond this many at a time are added to the engine's own.
const MAX_CALLERS: usize = 65_536;

#[derive(Debug, Default)]
struct Callers {
    known: Vec<Option<Arc<Caller>>>,
    free: Vec<u32>,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the engine could not do as asked since its birth; `farcall doctor` shows what is not zero.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Tallies {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Tallies {
            fn read(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl Counters {
            /// Name and value of each.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Calls whose URL could not be read; counted under the vendor `unreadable`.
    unreadable_targets,
    /// Customers or tags that were too long or too many, and were cut.
    cut_names,
    /// Calls whose vendor was added to `other`, because there were too many unknown ones.
    folded_vendors,
    /// Calls whose endpoint was added to `other`.
    folded_endpoints,
    /// Calls whose customer was added to `other`.
    folded_customers,
    /// Calls whose tags were added to `other`.
    folded_tags,
    /// Calls that were added to a less detailed series, because there were too many series.
    folded_series,
    /// Callers that were added to the engine's own, because there were too many.
    folded_callers,
    /// Sightings that did not fit between two drains: the sidecar may count such a call again.
    lost_sightings,
    /// How often the learner of endpoints was full and started anew.
    relearned,
    /// Calls that ended in another engine than they began in, such as across a fork; not counted here.
    foreign_calls,
    /// Events that no order of events explains, such as a response before a request; ignored.
    misplaced_events,
}

impl Engine {
    /// An engine for the program `caller`, with `shards` shards (one for each thread that makes calls at the
    /// same time is ideal), and a seed against hash flooding.
    #[must_use]
    pub fn new(config: Config, caller: Caller, shards: usize, seed: u64) -> Self {
        Self {
            shards: Shards::new(shards, config.ledger.max_series, seed),
            catalogue: Catalogue::new(config.vendors),
            learner: Mutex::new(Learner::new()),
            learned: AtomicU32::new(0),
            callers: RwLock::new(Callers { known: vec![Some(Arc::new(caller))], free: Vec::new() }),
            sightings: AtomicBool::new(false),
            identity: NEXT_IDENTITY.fetch_add(1, Ordering::Relaxed),
            tallies: Tallies::default(),
        }
    }

    /// The vendors that the engine knows.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Whether any rule can decide anything. Where none can, every call's first step is to send it as it is and
    /// its second to settle, so that an adapter need only watch.
    #[must_use]
    pub fn decides(&self) -> bool {
        false
    }

    /// Makes another program known, whose calls this engine accounts for. Where there are too many, the
    /// engine's own.
    pub fn add_caller(&self, caller: Caller) -> CallerId {
        let mut callers = self.callers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = callers.free.pop() {
            callers.known[number as usize] = Some(Arc::new(caller));
            return CallerId(number);
        }
        if callers.known.len() >= MAX_CALLERS {
            self.tallies.folded_callers.fetch_add(1, Ordering::Relaxed);
            return CallerId::SELF;
        }
        callers.known.push(Some(Arc::new(caller)));
        CallerId(u32::try_from(callers.known.len() - 1).unwrap_or(0))
    }

    /// Forgets a program. Only after a drain that followed its last call: the number goes to the next one.
    pub fn remove_caller(&self, id: CallerId) {
        let mut callers = self.callers.write().unwrap_or_else(PoisonError::into_inner);
        if id != CallerId::SELF
            && let Some(slot) = callers.known.get_mut(id.0 as usize)
            && slot.take().is_some()
        {
            callers.free.push(id.0);
        }
    }

    /// The program of this number.
    #[must_use]
    pub fn caller(&self, id: CallerId) -> Option<Arc<Caller>> {
        let callers = self.callers.read().unwrap_or_else(PoisonError::into_inner);
        callers.known.get(id.0 as usize).cloned().flatten()
    }

    /// Whether each call is recorded for the sidecar to match. Off at birth.
    pub fn record_sightings(&self, on: bool) {
        self.sightings.store(on, Ordering::Relaxed);
    }

    /// Takes all that was counted since the last drain. To be called about once a second, by one at a time:
    /// two at once lose nothing, but each gets a part.
    pub fn drain(&self, _now: Timestamp) -> Batch {
        let mut batch = Batch::default();
        for number in 0..self.shards.len() {
            self.shards.drain(number, &self.catalogue, &mut batch);
        }
        batch
    }

    /// What could not be done as asked since the engine's birth.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tallies.read()
    }
}
