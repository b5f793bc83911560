//! What was spent of a budget in the current period, by many threads at once.
//!
//! All decisions hang on one word that holds what is spent and reserved, and the generation of the period that
//! it belongs to, so that both change together: a call admitted by the old period's account cannot end up in
//! the new one's. Nobody waits for anybody; whoever finds the period over prepares the next and swaps the word,
//! and others help.

mod current;

use super::tally::Tally;
use super::{Action, MAX_MARKS, Rule, Spent};
use crate::units::Timestamp;
use current::{AMOUNT, Current, NO_PERIOD, number_of};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The account of one budget (of one customer, say). A cache line, and another one for the list of its tallies; all
/// methods through `&self`. An account belongs to one rule: after a change of its period or unit it is another one's
/// ([`Rule::account`]).
///
/// Periods are those of the calendar. A call counts in the period in which it settles; what it had reserved in
/// an earlier one is gone with that. A clock that goes back a little changes nothing; one that comes back from
/// a leap of more than an hour (and two periods) takes the account with it, so that no leap can stop the
/// calls of a year; and back again, if it returns to the period that it left. A thread that is held up for so
/// long between its look at the clock and the account is taken for such a leap.
#[derive(Debug)]
#[repr(C, align(64))] // The words that calls touch come first, on one line.
pub struct State {
    /// Generation (4 bits) and what is spent and reserved (60 bits).
    word: AtomicU64,
    /// Of the last two generations, by parity: the whole generation and the number of its period, and whether
    /// the clock [`RETURNED`] to it.
    periods: [AtomicU64; 2],
    /// Generation, and what others have spent.
    elsewhere: AtomicU64,
    /// Generation, and since when calls are throttled, in milliseconds.
    throttled: AtomicU64,
    /// Generation, and which warnings were given.
    warned: AtomicU64,
    /// All that was ever charged and stands in no tally, what is taken for the unknown rest of a call included.
    settled: AtomicU64,
    /// Calls of which not all was known.
    unknown: AtomicU32,
    /// Calls that were refused.
    refused: AtomicU32,
    /// What was charged by those who keep a tally of their own, by their number.
    tallies: Mutex<Vec<Option<Arc<Tally>>>>,
}

/// What a call may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Go on; settle the reservation in any case.
    Admit(Admission),
    /// Ask again then: it is another call's turn, or the period's budget is spent.
    Wait {
        /// When.
        until: Timestamp,
    },
    /// Refused.
    Refuse {
        /// When it would pass, if nothing else is spent; `None` where it alone is more than the limit.
        until: Option<Timestamp>,
    },
}

/// A call that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// To be settled.
    pub reservation: Reservation,
    /// What is to be done beside.
    pub then: Option<Then>,
}

/// What is to be done with a call that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is beyond the limit, and passes all the same.
    Over,
    /// Send it with a cheaper model: [`Rule::cheaper`].
    Downgrade,
}

/// An amount set aside for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a reservation that is never settled is never given back before the period ends"]
pub struct Reservation {
    amount: u64,
    generation: u32,
    /// The number of the period in whose account it stands, where all marks that this account has reached with it are
    /// warned of; else [`NO_PERIOD`].
    quiet_in: u32,
}

impl Reservation {
    /// How much is set aside.
    #[must_use]
    pub const fn amount(&self) -> u64 {
        self.amount
    }
}

/// What a settlement brought to light.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The highest share of the limit, in percent, that was reached for the first time in this period and that
    /// the rule warns at. 100 where the limit was.
    pub warning: Option<u8>,
}

/// How a budget stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Spent here, and reserved by calls under way.
    pub used: u64,
    /// Spent elsewhere.
    pub elsewhere: u64,
    /// The limit.
    pub limit: u64,
    /// When the period ends.
    pub until: Timestamp,
    /// Calls of which not all was known, ever.
    pub unknown: u32,
    /// Calls refused, ever.
    pub refused: u32,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// An account of which nothing is spent.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            // Generation 0 is of period 0, the one before it of none.
            periods: [AtomicU64::new(0), AtomicU64::new((u32::MAX as u64) << 32)],
            elsewhere: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            warned: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            unknown: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            tallies: Mutex::new(Vec::new()),
        }
    }

    /// The tally of those who make calls in this lane; there are as many as the highest number that was asked for.
    #[must_use]
    pub fn tally(&self, lane: usize) -> Arc<Tally> {
        let mut tallies = self.tallies();
        if tallies.len() <= lane {
            tallies.resize(lane + 1, None);
        }
        Arc::clone(tallies[lane].get_or_insert_default())
    }

    /// Sets an amount aside for a call, or says why not.
    pub fn reserve(&self, rule: &Rule, amount: u64, now: Timestamp) -> Verdict {
        loop {
            let current = self.enter(rule.limit.period, now);
            let taken = current.used().saturating_add(self.elsewhere_of(current));
            let after = taken.saturating_add(amount);
            let verdict = if after > rule.limit.amount {
                self.over(rule, current, amount)
            } else {
                self.within(rule, current, taken, after, now)
            };
            let then = match verdict {
                Ok(then) => then,
                Err(verdict) => return verdict,
            };
            if self.swap(current, current.used().saturating_add(amount)) {
                let quiet = self.to_warn_of(rule, current, after).is_none();
                let quiet_in = if quiet { current.number } else { NO_PERIOD };
                let reservation = Reservation { amount, generation: current.generation, quiet_in };
                return Verdict::Admit(Admission { reservation, then });
            }
        }
    }

    /// Counts what a call spent and gives back the rest of what it had reserved; in any case exactly once, also
    /// for a call that was never sent ([`Spent::NOTHING`]) or was let go of.
    #[inline(never)]
    pub fn settle(&self, rule: &Rule, reservation: Reservation, spent: Spent, now: Timestamp) -> Settled {
        let charge = if spent.all { spent.known } else { spent.known.max(reservation.amount) };
        self.count(rule, reservation, spent, charge, now)
    }

    /// The same for one who keeps a [`tally`](Self::tally): a call that spent what was set aside for it, in the period
    /// in which it was, does not touch the account. That has counted the amount, whoever reached a mark with it warns
    /// of that, and what is left is the total. A mark that is reached meanwhile by what is spent elsewhere is told with
    /// the next call; a call that is under way while the clock leaps far ahead and back is missing in this one period.
    pub fn settle_by(
        &self,
        tally: &Tally,
        rule: &Rule,
        reservation: Reservation,
        spent: Spent,
        now: Timestamp,
    ) -> Settled {
        let as_reserved = spent.all && spent.known == reservation.amount;
        if as_reserved && reservation.quiet_in == number_of(rule.limit.period, now) && tally.add(spent.known)
        {
            return Settled::default();
        }
        self.settle(rule, reservation, spent, now)
    }

    /// Counts what an attempt spent for which nothing was set aside; where not all of that is known, never less than
    /// `guess`.
    pub fn settle_more(&self, rule: &Rule, guess: u64, spent: Spent, now: Timestamp) -> Settled {
        let charge = if spent.all { spent.known } else { spent.known.max(guess) };
        let nothing = Reservation { amount: 0, generation: 0, quiet_in: NO_PERIOD };
        self.count(rule, nothing, spent, charge, now)
    }

    fn count(
        &self,
        rule: &Rule,
        reservation: Reservation,
        spent: Spent,
        charge: u64,
        now: Timestamp,
    ) -> Settled {
        self.add_settled(charge);
        if !spent.all {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
        loop {
            let current = self.enter(rule.limit.period, now);
            // What was reserved in an earlier period went with that.
            let reserved = if current.generation == reservation.generation { reservation.amount } else { 0 };
            let used = current.used().saturating_sub(reserved).saturating_add(charge);
            // What was set aside is what was spent: the usual case of a price for each call.
            if used == current.used() || self.swap(current, used) {
                let total = used.saturating_add(self.elsewhere_of(current));
                return Settled { warning: self.newly_reached(rule, current, total) };
            }
        }
    }

    /// Tells what others (other processes, or this one before its restart) have spent in the current period.
    /// Replaces what was told before; to be called by one at a time.
    pub fn set_elsewhere(&self, rule: &Rule, amount: u64, now: Timestamp) {
        let current = self.enter(rule.limit.period, now);
        self.elsewhere.store(current.with(amount), Ordering::Release);
    }

    /// How the budget stands.
    #[must_use]
    pub fn status(&self, rule: &Rule, now: Timestamp) -> Status {
        let current = self.enter(rule.limit.period, now);
        Status {
            used: current.used(),
            elsewhere: self.elsewhere_of(current),
            limit: rule.limit.amount,
            until: rule.limit.period.start(u64::from(current.number) + 1),
            unknown: self.unknown.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// What was spent here in the present period, reservations included.
    #[must_use]
    pub fn used_in_period(&self, rule: &Rule, now: Timestamp) -> u64 {
        self.enter(rule.limit.period, now).used()
    }

    /// All that was ever charged, what is taken for the unknown rest of a call included: what others are told, so that
    /// they and the next process keep to the limit as this one does.
    #[must_use]
    pub fn settled(&self) -> u64 {
        let settled = self.settled.load(Ordering::Relaxed);
        self.tallies().iter().flatten().map(|tally| tally.sum()).fold(settled, u64::saturating_add)
    }

    fn tallies(&self) -> MutexGuard<'_, Vec<Option<Arc<Tally>>>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_settled(&self, charge: u64) {
        let add = |settled: u64| Some(settled.saturating_add(charge));
        let _ = self.settled.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// A call that does not fit.
    #[cold]
    #[inline(never)]
    fn over(&self, rule: &Rule, current: Current, amount: u64) -> Result<Option<Then>, Verdict> {
        let next = rule.limit.period.start(u64::from(current.number) + 1);
        let ever = amount <= rule.limit.amount;
        match rule.over {
            Action::Warn => Ok(Some(Then::Over)),
            Action::Downgrade => Ok(Some(Then::Downgrade)),
            Action::Throttle if ever => Err(Verdict::Wait { until: next }),
            Action::Throttle | Action::Refuse => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(Verdict::Refuse { until: ever.then_some(next) })
            }
        }
    }

    /// A call that fits: the highest share that is reached says what happens to it.
    fn within(
        &self,
        rule: &Rule,
        current: Current,
        taken: u64,
        after: u64,
        now: Timestamp,
    ) -> Result<Option<Then>, Verdict> {
        let reached = rule.at.iter().rev().filter(|(_, action)| *action != Action::Warn);
        let Some((percent, action)) = reached.copied().find(|(percent, _)| taken >= rule.part(*percent))
        else {
            return Ok(None);
        };
        match action {
            Action::Throttle => self.throttle(rule, current, percent, after, now),
            action => Ok((action == Action::Downgrade).then_some(Then::Downgrade)),
        }
    }

    /// A call beyond the share from which calls are held up.
    #[inline(never)]
    fn throttle(
        &self,
        rule: &Rule,
        current: Current,
        percent: u8,
        after: u64,
        now: Timestamp,
    ) -> Result<Option<Then>, Verdict> {
        // What was left at the share is allowed along a line to the period's end.
        let since = self.throttled_since(current, now);
        let end = rule.limit.period.start(u64::from(current.number) + 1);
        let base = rule.part(percent);
        let left = u128::from(rule.limit.amount - base).max(1);
        let need = u128::from(after - base);
        let wait = need * u128::from(end.since(since).as_nanos() as u64) / left;
        let until = since.plus(Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)));
        if until <= now { Ok(None) } else { Err(Verdict::Wait { until: until.min(end) }) }
    }

    /// When the throttled share was reached: now, for the first to come.
    fn throttled_since(&self, current: Current, now: Timestamp) -> Timestamp {
        let from = |word: u64| Timestamp::EPOCH.plus_millis(word & AMOUNT);
        let word = self.throttled.load(Ordering::Acquire);
        if word & !AMOUNT == current.tag() && word & AMOUNT != 0 {
            return from(word);
        }
        let mine = current.with((now.as_nanos() / 1_000_000).max(1));
        match self.throttled.compare_exchange(word, mine, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => from(mine),
            Err(seen) => from(seen),
        }
    }

    /// The highest share to warn at that was not reached before in this period.
    fn newly_reached(&self, rule: &Rule, current: Current, total: u64) -> Option<u8> {
        let Reached { bits, highest, percent } = self.to_warn_of(rule, current, total)?;
        let mut word = self.warned.load(Ordering::Acquire);
        loop {
            let known = warned_in(current, word);
            if known & highest != 0 {
                return None;
            }
            let next = current.tag() | known | bits;
            match self.warned.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(percent),
                Err(seen) => word = seen,
            }
        }
    }

    /// The shares to warn at that a total reaches, if nobody was warned of the highest of them in this period.
    #[inline]
    fn to_warn_of(&self, rule: &Rule, current: Current, total: u64) -> Option<Reached> {
        let least = rule.at.first().map_or(100, |(percent, _)| *percent);
        match total < rule.part(least) && total < rule.limit.amount {
            true => None,
            false => self.to_warn_of_reached(rule, current, total),
        }
    }

    #[inline(never)]
    fn to_warn_of_reached(&self, rule: &Rule, current: Current, total: u64) -> Option<Reached> {
        let reached = Reached::by(rule, total)?;
        let known = warned_in(current, self.warned.load(Ordering::Acquire));
        (known & reached.highest == 0).then_some(reached)
    }

    fn elsewhere_of(&self, current: Current) -> u64 {
        let word = self.elsewhere.load(Ordering::Acquire);
        if word & !AMOUNT == current.tag() { word & AMOUNT } else { 0 }
    }
}

/// Shares to warn at that were reached.
#[derive(Clone, Copy)]
struct Reached {
    /// A bit for each.
    bits: u64,
    /// The bit of the highest, and which share that is.
    highest: u64,
    percent: u8,
}

impl Reached {
    fn by(rule: &Rule, total: u64) -> Option<Self> {
        let mut reached = None;
        let mut bits = 0;
        let mut mark = |bit: usize, percent: u8| {
            if total >= rule.part(percent) {
                bits |= 1 << bit;
                reached = Some(Self { bits, highest: 1 << bit, percent });
            }
        };
        for (bit, (percent, action)) in rule.at.iter().take(MAX_MARKS).enumerate() {
            if *action == Action::Warn {
                mark(bit, *percent);
            }
        }
        mark(MAX_MARKS, 100);
        reached
    }
}

/// The shares that were warned of in the period of `current`, of the word that holds them.
fn warned_in(current: Current, word: u64) -> u64 {
    if word & !AMOUNT == current.tag() { word & AMOUNT } else { 0 }
}
