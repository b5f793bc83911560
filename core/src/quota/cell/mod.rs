//! The shareable state of one quota.

mod before;
mod claim;
pub(super) mod flight;
pub(super) mod gcra;
mod learned;
mod leased;
mod slots;
mod vendor;

pub use claim::{Ask, Claim};
pub(super) use claim::{first_wait, refuse};
pub use vendor::Standing;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The state of one quota: sixteen atomic words, two cache lines.
///
/// A cell may lie on the heap or in memory that processes share. It holds no pointer, zeroes are its valid
/// beginning, and every transition of a word is one compare-exchange (or one store, add or exchange) that leaves
/// the cell valid: a process killed between any two instructions costs at most the accuracy of one call. Times
/// are nanoseconds since the Unix epoch, so the processes that share a cell must share a clock, as those of one
/// host do.
///
/// Units are told apart modulo 2^32: a vendor's limit above 2,147,483,647 counts as that many.
///
/// ```
/// use farcall::Timestamp;
/// use farcall::quota::{Ask, Cell, Claim, Rule, Unit, Verdict};
/// use std::time::Duration;
///
/// let (cell, rule) = (Cell::new(), Rule::limit(10, Unit::Requests, Duration::from_secs(1)));
/// let t0 = Timestamp::from_nanos(1_700_000_000_000_000_000);
///
/// assert_eq!(cell.before(&rule, &mut Claim::new(), &Ask::one(), t0), Verdict::Pass);
/// // The next one waits for its slot, a tenth of a second later, and then passes.
/// let mut claim = Claim::new();
/// let Verdict::Wait { until, .. } = cell.before(&rule, &mut claim, &Ask::one(), t0) else { unreachable!() };
/// assert_eq!(until, t0.plus_millis(100));
/// assert_eq!(cell.before(&rule, &mut claim, &Ask::one(), until), Verdict::Pass);
/// ```
#[derive(Default)]
#[repr(C, align(128))]
pub struct Cell {
    /// All units of ours that ever went, or have a slot in the present window. Its low half numbers the tickets.
    begun: AtomicU64,
    /// When the configured rate is next due, in nanoseconds (GCRA's theoretical arrival time).
    due: AtomicU64,
    /// The same for calls that must leave a reserve alone.
    due_low: AtomicU64,
    /// The same for what the vendor states or was learned, and for who waits for a reset.
    slots: AtomicU64,
    /// The vendor's window: `[reset: tick][ticket up to which calls may go]`.
    window: AtomicU64,
    /// `[beginning of the window: tick][ticket at its beginning]`.
    opened: AtomicU64,
    /// When a 429 or a refusal was noted last, by any of those who share the cell; 0 before any was.
    breached: AtomicU64,
    /// What the vendor said last: `[limit][remaining]`.
    stated: AtomicU64,
    /// `[newest ticket whose answer spoke][when: tick]`.
    newest: AtomicU64,
    /// A 429 said to stay away: `[until: tick][since: tick, whose lowest bit says exhausted]`.
    blocked: AtomicU64,
    /// What the fleet granted: `[until: tick][ticket up to which calls may go]`.
    lease: AtomicU64,
    /// `[length of the vendor's window in ms][this host's share of a fleet's limit, in millionths]`.
    terms: AtomicU64,
    /// See [`learned`].
    learned: AtomicU64,
    /// `[beginning of the second being measured: tick][ticket then]`.
    pulse: AtomicU64,
    /// Units begun per second over the last measured one, in thousandths.
    rate: AtomicU64,
    /// See [`flight`].
    flying: AtomicU64,
}

const _: () = assert!(size_of::<Cell>() == 128 && align_of::<Cell>() == 128);

impl Cell {
    /// An empty cell, equal to 128 bytes of zeroes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the cell empty again. Calls under way keep what they hold.
    pub fn clear(&self) {
        for word in self.words() {
            word.store(0, Relaxed);
        }
    }

    /// Notes a 429 or a refusal, so that all who share the cell tell what they used of its window.
    pub(super) fn breach(&self, now: u64) {
        self.breached.store(now, Relaxed);
    }

    /// When anybody noted one last; 0 before anybody did.
    pub(super) fn breached_at(&self) -> u64 {
        self.breached.load(Relaxed)
    }

    fn words(&self) -> [&AtomicU64; 16] {
        let Self { begun, due, due_low, slots, window, opened, breached, stated, .. } = self;
        let Self { newest, blocked, lease, terms, learned, pulse, rate, flying, .. } = self;
        [
            begun, due, due_low, slots, window, opened, breached, stated, newest, blocked, lease, terms,
            learned, pulse, rate, flying,
        ]
    }
}

impl AsRef<Cell> for Cell {
    fn as_ref(&self) -> &Cell {
        self
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.words()).finish()
    }
}

#[cfg(test)]
mod tests;
