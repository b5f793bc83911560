//! What one user used, added up apart from all others until somebody asks.
//!
//! An account that all threads write to costs a call its cache lines. Whoever makes many calls as one user keeps a
//! [`Tally`] of its own, on a line of its own; the account collects them when it tells of an incident.

use super::User;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Units are counted in so many bits; above them stands the turn of the window that they belong to.
const UNITS: u32 = 40;
const UNITS_MASK: u64 = (1 << UNITS) - 1;
/// From here on units go to the account at once, so that they never reach the turn.
const FULL: u64 = 1 << (UNITS - 1);

/// The units of one user in one window of a quota. Threads may share one, but should not.
///
/// On two lines: processors fetch the one beside it along.
#[derive(Debug)]
#[repr(align(128))]
pub struct Tally {
    user: User,
    /// `[turn: 24][units: 40]`. Units leave by a swap, together with their turn, so that each counts once.
    word: AtomicU64,
}

/// Units that a tally let go of, with the turn that they belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) turn: u64,
    pub(super) units: u64,
}

/// A turn as tallies know it.
pub(super) const fn short(turn: u64) -> u64 {
    turn & (u64::MAX >> UNITS)
}

const fn word(turn: u64, units: u64) -> u64 {
    short(turn) << UNITS | units
}

const fn left(word: u64) -> Left {
    Left { turn: word >> UNITS, units: word & UNITS_MASK }
}

impl Tally {
    pub(super) fn new(user: User) -> Self {
        Self { user, word: AtomicU64::new(0) }
    }

    /// Whose it is.
    #[must_use]
    pub fn user(&self) -> &User {
        &self.user
    }

    /// Adds units of a window; what has to leave for that, or does not fit.
    pub(super) fn add(&self, turn: u64, units: u64) -> Left {
        let seen = left(self.word.load(Relaxed));
        if units > u64::from(u32::MAX) || seen.turn == short(turn) && seen.units >= FULL {
            return Left { turn: short(turn), units };
        }
        if seen.turn == short(turn) {
            // It takes 128 others between the two to reach the turn. If the turn changes between them, the units
            // count in the window that follows.
            self.word.fetch_add(units, Relaxed);
            return Left { turn: 0, units: 0 };
        }
        left(self.word.swap(word(turn, units), Relaxed))
    }

    /// A number that changes with what it holds; 0 before it held anything.
    pub(super) fn mark(&self) -> u64 {
        self.word.load(Relaxed)
    }

    /// Takes all that it holds.
    pub(super) fn take(&self) -> Left {
        let seen = self.word.load(Relaxed);
        match seen & UNITS_MASK {
            0 => left(0),
            _ => left(self.word.swap(seen & !UNITS_MASK, Relaxed)),
        }
    }
}
