//! What a call asks of a quota, and what it holds of it.

use super::super::rule::{Priority, Rate, Rule, Weight};
use super::super::{Verdict, Why};
use super::gcra::Slot;
use crate::units::Timestamp;

/// What the first of two waits leaves for the second: a quarter of the time, at most this.
const SECOND_WAIT: u64 = 200_000_000;
/// Where no slot can be booked, a call asks again after so long, doubling up to the second number.
const POLL: (u64, u32) = (5_000_000, 4);

/// What a call asks of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ask {
    /// How many units it will use; an estimate, which [`Cell::settle`] corrects.
    pub units: u64,
    /// How urgent it is.
    pub priority: Priority,
    /// When its answer is of no use any more.
    pub deadline: Option<Timestamp>,
    /// On whose behalf: any number that stands for the customer, in all processes that share a fair share.
    pub customer: u64,
    /// That customer's weight.
    pub weight: Weight,
    /// The rule's, where whoever asks has worked it out already.
    pub(super) rate: Option<Rate>,
}

impl Ask {
    /// One unit, interactive, without a deadline, for nobody in particular.
    #[must_use]
    pub const fn one() -> Self {
        let (priority, weight) = (Priority::Interactive, Weight(1_000));
        Self { units: 1, priority, deadline: None, customer: 0, weight, rate: None }
    }

    /// So many units.
    #[must_use]
    pub const fn units(mut self, units: u64) -> Self {
        self.units = units;
        self
    }

    /// So urgent.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Of no use after `deadline`.
    #[must_use]
    pub const fn deadline(mut self, deadline: Option<Timestamp>) -> Self {
        self.deadline = deadline;
        self
    }

    /// By a rule of which this is the rate.
    pub(crate) const fn rate(mut self, rate: Option<Rate>) -> Self {
        self.rate = rate;
        self
    }

    /// For this customer, of this weight.
    #[must_use]
    pub const fn customer(mut self, customer: u64, weight: Weight) -> Self {
        self.customer = customer;
        self.weight = weight;
        self
    }
}

/// What one attempt holds of one quota: nothing yet, a booked slot, or its units. The attempt keeps it from the
/// first [`Cell::before`] to [`Cell::end`] or [`Cell::undo`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Claim {
    /// When it first asked; 0 before that.
    pub(super) asked: u64,
    /// When it may ask again, or go.
    pub(super) until: u64,
    /// The ticket of its last unit, where `charged`.
    pub(super) ticket: u32,
    pub(super) units: u32,
    pub(super) why: Why,
    pub(super) polls: u8,
    /// Its units are counted.
    pub(super) charged: bool,
    /// It has a slot, and its units are counted when that comes.
    pub(super) booked: bool,
    /// It may go.
    pub(super) held: bool,
    /// It has waited for what the reserve leaves.
    pub(super) passed_low: bool,
    /// It has waited for its customer's share.
    pub(in super::super) passed_fair: bool,
    /// The generation in which it began to be under way.
    pub(super) flight: Option<u16>,
    pub(super) slot: Option<(bool, Slot)>,
}

impl Claim {
    /// A claim that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the call may go.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.held
    }

    /// Whether it is counted among those under way.
    pub(in super::super) const fn is_under_way(&self) -> bool {
        self.flight.is_some()
    }

    /// Whether nothing is left to ask but whether its slot still holds.
    pub(in super::super) const fn has_slot(&self) -> bool {
        self.charged || self.booked
    }

    pub(in super::super) fn asked_at(&self) -> Option<u64> {
        (self.asked != 0).then_some(self.asked)
    }

    pub(in crate::quota) fn ticket_or(&self, otherwise: u32) -> u32 {
        if self.charged { self.ticket } else { otherwise }
    }

    /// Notes when it first asked, and gives the latest moment at which it may go.
    pub(in super::super) fn bound(&mut self, rule: &Rule, ask: &Ask, now: u64) -> u64 {
        // Zero stands for never.
        if self.asked == 0 || self.asked > now {
            self.asked = now.max(1);
        }
        let patience = self.asked.saturating_add(rule.max_wait_nanos());
        ask.deadline.map_or(patience, |deadline| patience.min(deadline.as_nanos())).max(now)
    }

    /// A wait that is not over.
    pub(in super::super) fn waiting(&self, bound: u64, now: u64) -> Option<Verdict> {
        // A slot beyond the bound was booked under a clock that has gone back since.
        (self.until > now && self.until <= bound).then_some(self.wait())
    }

    pub(in super::super) fn wait_until(&mut self, until: u64, why: Why) -> Verdict {
        (self.until, self.why) = (until, why);
        self.wait()
    }

    fn wait(&self) -> Verdict {
        Verdict::Wait { until: Timestamp::from_nanos(self.until), why: self.why }
    }

    /// Asks again soon, where no slot can be booked.
    pub(in super::super) fn poll(&mut self, why: Why, bound: u64, now: u64) -> Verdict {
        let until = now.saturating_add(POLL.0 << u32::from(self.polls).min(POLL.1));
        self.polls = self.polls.saturating_add(1);
        if bound <= now {
            return refuse(until, why);
        }
        self.wait_until(until.min(bound), why)
    }
}

pub(in super::super) fn refuse(until: u64, why: Why) -> Verdict {
    Verdict::Refuse { until: Timestamp::from_nanos(until), why }
}

/// The bound of a wait after which there may be another.
pub(in super::super) fn first_wait(bound: u64, now: u64) -> u64 {
    bound - (bound.saturating_sub(now) / 4).min(SECOND_WAIT)
}
