//! The customers that are told apart, in a table of fixed size.

use super::level::{self, fill, per_second};
use super::{Ask, Cell, Claim, Rule, class};
use crate::quota::rule::{Priority, Weight};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(super) const SECOND: u64 = 1_000_000_000;
/// How often the level is computed.
pub(super) const EPOCH: u64 = SECOND / 10;
/// How many customers (each priority counts) are told apart; the rest share as one customer of weight 1.
pub const TRACKED: usize = 1_024;
/// Demand is measured over about so long, at least.
const MEMORY: u64 = 7 * EPOCH;
/// And over so many units of the quota: how many of a few come within a second is chance.
const MEMORY_UNITS: u64 = 64;
/// And no longer than so.
const LONGEST_MEMORY: u64 = 60 * SECOND;
/// A customer that asked for nothing for so long gives its place to another.
const IDLE_SECONDS: u64 = 10;
/// How many places a customer may have.
const PROBES: usize = 8;
/// How long scarcity is taken for granted after a call found no slot.
const SCARCE: u64 = 10 * EPOCH;
/// So few calls at once are no crowd.
const LEAST_TRIP: u64 = 4;
const HELD_BACK: u64 = 1 << 63;

/// The fair share of one quota: 66 KiB of atomics that, like a [`Cell`], may lie on the heap or in memory that
/// processes share. Zeroes are its valid beginning.
#[repr(C, align(128))]
pub struct Shares {
    /// When the level was computed last, in nanoseconds.
    epoch: AtomicU64,
    /// The cell's count of units then.
    begun: AtomicU64,
    /// Whether demand is measured (1), and has been (2).
    active: AtomicU64,
    /// So many units within one epoch are too many to wait for its end.
    trip: AtomicU64,
    /// Until then, calls found no slot lately.
    scarce_until: AtomicU64,
    /// Thousandths of a unit per second for a weight of one, by priority; 0 for no bound.
    levels: [AtomicU64; 2],
    /// `[who asked last: 24][when, in seconds: 20][when two asked within a short while, likewise: 20]`.
    company: AtomicU64,
    slots: [Slot; TRACKED],
    /// Those for whom there is no place, by priority.
    rest: [Slot; 2],
}

/// One customer, of one priority.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Slot {
    key: AtomicU64,
    /// When its next turn is due, in nanoseconds.
    pub(super) due: AtomicU64,
    /// Units asked for in this epoch; the highest bit says that some had to wait.
    pub(super) asked: AtomicU64,
    /// Units asked for per second, in thousandths.
    pub(super) demand: AtomicU64,
    /// `[weight in thousandths: 32][last seen, in seconds: 31][batch: 1]`.
    meta: AtomicU64,
}

impl Slot {
    const fn new() -> Self {
        Self {
            key: AtomicU64::new(0),
            due: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            demand: AtomicU64::new(0),
            meta: AtomicU64::new(0),
        }
    }

    pub(super) fn weight(&self) -> u32 {
        match (self.meta.load(Relaxed) >> 32) as u32 {
            0 => 1_000,
            weight => weight,
        }
    }

    /// Notes that demand is higher than what is asked: who waits asks for less.
    pub(super) fn hold_back(&self) {
        self.asked.fetch_or(HELD_BACK, Relaxed);
    }

    fn is_batch(&self) -> bool {
        self.meta.load(Relaxed) & 1 == 1
    }

    fn idle_seconds(&self, now: u64) -> u64 {
        let seen = (self.meta.load(Relaxed) >> 1) & 0x7FFF_FFFF;
        (now / SECOND).wrapping_sub(seen) & 0x7FFF_FFFF
    }

    fn describe(&self, weight: Weight, priority: Priority, now: u64) {
        let seen = (now / SECOND) & 0x7FFF_FFFF;
        let batch = u64::from(priority == Priority::Batch);
        self.meta.store(u64::from(weight.0.max(1)) << 32 | seen << 1 | batch, Relaxed);
    }

    fn measure(&self, level: u64, elapsed: u64, memory: u64, now: u64) {
        let asked = self.asked.swap(0, Relaxed);
        let before = self.demand.load(Relaxed);
        if asked == 0 && before == 0 {
            return;
        }
        let lately = per_second(asked & !HELD_BACK, elapsed);
        // Rounded down: what nobody asks for any more comes to nothing.
        let sum = u128::from(before) * u128::from(memory) + u128::from(lately) * u128::from(elapsed);
        let mean = sum / u128::from(elapsed.saturating_add(memory).max(1));
        let mut demand = mean.min(u128::from(u64::MAX >> 16)) as u64;
        if demand < 10 {
            demand = 0;
        }
        if asked & HELD_BACK != 0 && level != u64::MAX {
            let share = level.saturating_mul(u64::from(self.weight())) / 1_000;
            demand = demand.max(share.saturating_add(share / 4));
        }
        self.demand.store(demand, Relaxed);
        if asked != 0 {
            let batch = if self.is_batch() { Priority::Batch } else { Priority::Interactive };
            self.describe(Weight(self.weight()), batch, now);
        }
    }
}

impl Shares {
    /// Shares that nobody has asked for.
    #[must_use]
    pub fn new() -> Box<Self> {
        Box::new(Self {
            epoch: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            active: AtomicU64::new(0),
            trip: AtomicU64::new(0),
            scarce_until: AtomicU64::new(0),
            levels: [const { AtomicU64::new(0) }; 2],
            company: AtomicU64::new(0),
            slots: [const { Slot::new() }; TRACKED],
            rest: [const { Slot::new() }; 2],
        })
    }

    pub(super) fn is_active(&self) -> bool {
        self.active.load(Relaxed) != 0
    }

    /// Whether the levels are guesses: demand is measured only since a moment ago.
    pub(super) fn is_guessing(&self) -> bool {
        self.active.load(Relaxed) == 1
    }

    /// Up to where customers of this priority are served; `u64::MAX` where all demand fits.
    pub(super) fn level(&self, priority: Priority) -> u64 {
        match self.levels[class(priority)].load(Relaxed) {
            0 => u64::MAX,
            level => level,
        }
    }

    /// A call found the next slots taken: shares matter now, whatever was measured.
    #[cold]
    #[inline(never)]
    pub(in crate::quota) fn wake(&self, rule: &Rule, cell: &Cell, now: u64) {
        self.scarce_until.store(now.saturating_add(SCARCE), Relaxed);
        if !self.is_active()
            && let Some(capacity) = cell.capacity(rule, now)
        {
            self.activate(cell, capacity, now);
        }
    }

    /// A call went: where the present epoch has seen more than its part of the quota by now, shares matter from here on.
    /// By the call's ticket, since to read the cell's count would be one more turn of its cache line between threads.
    pub(in crate::quota) fn went(&self, rule: &Rule, cell: &Cell, claim: &Claim, now: u64) {
        let before = self.begun.load(Relaxed) as u32;
        let used = claim.ticket_or(before).wrapping_sub(before) as i32;
        if !self.is_active() && i64::from(used) >= self.trip.load(Relaxed).clamp(LEAST_TRIP, 1 << 31) as i64 {
            self.wake(rule, cell, now);
        }
    }

    fn activate(&self, cell: &Cell, capacity: u64, now: u64) {
        self.epoch.store(now, Relaxed);
        self.begun.store(cell.units_begun(), Relaxed);
        // What was asked before is long ago.
        for slot in self.all() {
            slot.demand.store(0, Relaxed);
        }
        // Nothing is known of who asks for what: as if there were a few.
        self.levels[0].store((capacity / 4).max(1), Relaxed);
        self.levels[1].store((capacity / 20).max(1), Relaxed);
        self.active.store(1, Relaxed);
    }

    /// Whether nobody else has asked lately: then there is nobody to be fair to. Written about once a second.
    pub(super) fn is_alone(&self, ask: &Ask, now: u64) -> bool {
        const SECONDS: u64 = (1 << 20) - 1;
        let seen = self.company.load(Relaxed);
        let (who, at, company) = (seen >> 40, (seen >> 20) & SECONDS, seen & SECONDS);
        let mine = ((key(ask) >> 40) & !1) | class(ask.priority) as u64;
        let second = ((now / SECOND) & SECONDS).max(1);
        let lately = |then: u64| then != 0 && second.wrapping_sub(then) & SECONDS <= IDLE_SECONDS;
        let company = if who != mine && lately(at) { second } else { company };
        let next = (mine << 40) | (second << 20) | company;
        // While many ask at once, the first of a second speaks for all.
        if (at, company) != (second, seen & SECONDS) || (who != mine && company != second) {
            self.company.store(next, Relaxed);
        }
        !lately(company)
    }

    /// The customer's place.
    pub(super) fn find(&self, ask: &Ask, now: u64) -> &Slot {
        let key = key(ask);
        let start = (key >> 20) as usize;
        let places = || (0..PROBES).map(|step| &self.slots[(start + step) % TRACKED]);
        for slot in places() {
            let seen = slot.key.load(Relaxed);
            if seen == key {
                if slot.weight() != ask.weight.0.max(1) {
                    // The configuration was reloaded.
                    slot.describe(ask.weight, ask.priority, now);
                }
                return slot;
            }
            if seen == 0 {
                match slot.key.compare_exchange(0, key, Relaxed, Relaxed) {
                    Ok(_) => {
                        slot.describe(ask.weight, ask.priority, now);
                        return slot;
                    }
                    Err(other) if other == key => return slot,
                    Err(_) => {}
                }
            }
        }
        for slot in places() {
            let seen = slot.key.load(Relaxed);
            let idle = slot.idle_seconds(now) >= IDLE_SECONDS && slot.asked.load(Relaxed) == 0;
            if idle && slot.key.compare_exchange(seen, key, Relaxed, Relaxed).is_ok() {
                slot.due.store(0, Relaxed);
                slot.demand.store(0, Relaxed);
                slot.describe(ask.weight, ask.priority, now);
                return slot;
            }
        }
        let rest = &self.rest[class(ask.priority)];
        if rest.key.load(Relaxed) == 0 {
            rest.describe(Weight::default(), ask.priority, now);
            rest.key.store(1, Relaxed);
        }
        rest
    }

    /// Computes the level, once an epoch.
    pub(super) fn refresh(&self, rule: &Rule, cell: &Cell, now: u64) {
        let seen = self.epoch.load(Relaxed);
        let elapsed = now.saturating_sub(seen);
        let jumped = seen > now.saturating_add(SECOND);
        if seen == 0 || elapsed >= EPOCH || jumped {
            self.compute(rule, cell, (seen, elapsed, jumped), now);
        }
    }

    /// Computes it, for one of those who found that it is time.
    #[cold]
    #[inline(never)]
    fn compute(&self, rule: &Rule, cell: &Cell, (seen, elapsed, jumped): (u64, u64, bool), now: u64) {
        if self.epoch.compare_exchange(seen, now, Relaxed, Relaxed).is_err() {
            return;
        }
        let elapsed = if jumped || seen == 0 { EPOCH } else { elapsed };
        let begun = cell.units_begun();
        let used = begun.saturating_sub(self.begun.swap(begun, Relaxed));
        let Some(capacity) = cell.capacity(rule, now) else {
            self.active.store(0, Relaxed);
            return;
        };
        self.trip.store((capacity / 10_000).max(LEAST_TRIP), Relaxed);
        let scarce = self.scarce_until.load(Relaxed);
        let scarce = scarce > now && scarce <= now.saturating_add(SCARCE);
        let usage = if seen == 0 { 0 } else { per_second(used, elapsed) };
        if !self.is_active() {
            if scarce || usage >= capacity / 2 {
                self.activate(cell, capacity, now);
            }
            return;
        }
        let guessed = self.is_guessing();
        let memory = level::time_of(MEMORY_UNITS, capacity).clamp(MEMORY, LONGEST_MEMORY);
        let slow = memory > MEMORY;
        // The first epoch is taken as it is, but for what a quota of few units needs to tell a rate from chance.
        let memory = if guessed { memory - MEMORY } else { memory };
        for slot in self.all() {
            let level = self.level(if slot.is_batch() { Priority::Batch } else { Priority::Interactive });
            slot.measure(level, elapsed, memory, now);
            if guessed {
                // Turns at the rate of a guess are no debt.
                slot.due.store(0, Relaxed);
            }
        }
        let demand = |batch: bool| self.members(batch).map(|(demand, _)| demand).fold(0, u64::saturating_add);
        let (urgent, patient) = (demand(false), demand(true));
        // What is used of a slow quota at a moment says nothing of its use.
        let least = if slow { 1 } else { capacity / 5 * 2 };
        let usage = if slow { 0 } else { usage };
        if !scarce && usage.max(urgent.saturating_add(patient)) < least {
            self.active.store(0, Relaxed);
            return;
        }
        self.active.store(2, Relaxed);
        // Of a rate, a little more than there is: what one moment leaves is gone in the next, and its own slots bound
        // the queue, which is for those with less than their share. What a window leaves
        // stays, and must not run short at its end.
        let budget = if rule.limit.is_some() { capacity + capacity / 20 } else { capacity - capacity / 50 };
        let floor = patient.min(capacity / 20);
        let first = budget.saturating_sub(floor);
        self.set_level(0, first, scarce);
        self.set_level(1, budget.saturating_sub(urgent.min(first)).max(floor).max(1), scarce);
    }

    fn set_level(&self, class: usize, budget: u64, scarce: bool) {
        let level = match fill(budget, || self.members(class == 1)) {
            // On average all fits, and yet calls found no slot: at least nobody asks for more than there is.
            u64::MAX if scarce => budget.max(1),
            level => level,
        };
        self.levels[class].store(if level == u64::MAX { 0 } else { level }, Relaxed);
    }

    fn all(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().chain(&self.rest)
    }

    fn members(&self, batch: bool) -> impl Iterator<Item = (u64, u64)> {
        self.all().filter_map(move |slot| {
            let demand = slot.demand.load(Relaxed);
            (demand > 0 && slot.is_batch() == batch).then(|| (demand, u64::from(slot.weight())))
        })
    }
}

/// Stands for the customer, in one priority.
fn key(ask: &Ask) -> u64 {
    let mut key = ask.customer.wrapping_add(0x9E37_79B9_7F4A_7C15);
    key = (key ^ (key >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    key = (key ^ (key >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((key ^ (key >> 31)) << 1 | class(ask.priority) as u64).max(2)
}

impl AsRef<Shares> for Shares {
    fn as_ref(&self) -> &Shares {
        self
    }
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shares")
            .field("active", &self.is_active())
            .field("levels", &self.levels)
            .field("customers", &self.members(false).chain(self.members(true)).count())
            .finish_non_exhaustive()
    }
}
