//! Whether a call may go now, later, or not.

use super::super::rule::{Limit, Pace, Priority, Rule, Shared, Weight, nanos};
use super::super::tick::{Tick, pack, unpack};
use super::super::{Verdict, Why};
use super::gcra::{Slot, Turn};
use super::vendor::Left;
use super::{Cell, flight, learned};
use crate::units::Timestamp;
use std::sync::atomic::Ordering::Relaxed;

const SECOND: u64 = 1_000_000_000;
/// Those who wait for a reset go at most so far apart: the quota is whole again then.
const RESET_SPACING: u64 = 20_000_000;
/// How late a call may come for its slot and still find its units.
const LATE: u64 = 50_000_000;
/// What the first of two waits leaves for the second: a quarter of the time, at most this.
const SECOND_WAIT: u64 = 100_000_000;
/// Where no slot can be booked, a call asks again after so long, doubling up to the second number.
const POLL: (u64, u32) = (5_000_000, 4);
/// A vendor's word that nothing is left is put to the test after so long without an answer, by one call: a
/// header that lied must not keep a service quiet for a month.
const PROBE: u64 = 60 * SECOND;

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
}

impl Ask {
    /// One unit, interactive, without a deadline, for nobody in particular.
    #[must_use]
    pub const fn one() -> Self {
        Self { units: 1, priority: Priority::Interactive, deadline: None, customer: 0, weight: Weight(1_000) }
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
    asked: u64,
    /// When it may ask again, or go.
    until: u64,
    /// The ticket of its last unit, where `charged`.
    ticket: u32,
    units: u32,
    why: Why,
    polls: u8,
    /// Its units are counted.
    charged: bool,
    /// It has a slot, and its units are counted when that comes.
    booked: bool,
    /// It may go.
    held: bool,
    /// It has waited for what the reserve leaves.
    passed_low: bool,
    /// It has waited for its customer's share.
    pub(in super::super) passed_fair: bool,
    /// The generation in which it began to be under way.
    flight: Option<u16>,
    slot: Option<(bool, Slot)>,
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

    /// Whether nothing is left to ask but whether its slot still holds.
    pub(in super::super) const fn has_slot(&self) -> bool {
        self.charged || self.booked
    }

    pub(in super::super) fn asked_at(&self) -> Option<u64> {
        (self.asked != 0).then_some(self.asked)
    }

    pub(super) fn ticket_or(&self, otherwise: u32) -> u32 {
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

impl Cell {
    /// Whether a call may go: now, at a slot that was booked for it, or not within the time that it has.
    ///
    /// After [`Verdict::Wait`] ask again at that time, with the same claim; asking early gives the same answer.
    /// After [`Verdict::Pass`] further questions pass at no charge. After [`Verdict::Refuse`] the claim holds
    /// nothing.
    pub fn before(&self, rule: &Rule, claim: &mut Claim, ask: &Ask, now: Timestamp) -> Verdict {
        self.ask(rule, claim, ask, now.as_nanos(), u64::MAX)
    }

    /// The same, taking no slot that is later than `ahead` from now: for whoever has more than its share.
    pub(in super::super) fn ask(
        &self,
        rule: &Rule,
        claim: &mut Claim,
        ask: &Ask,
        now: u64,
        ahead: u64,
    ) -> Verdict {
        if claim.held {
            return Verdict::Pass;
        }
        let bound = claim.bound(rule, ask, now);
        if let Some(wait) = claim.waiting(bound, now) {
            return wait;
        }
        claim.units = ask.units.min(i32::MAX as u64) as u32;
        self.beat(now);
        self.roll(now);
        if let Some(most) = rule.concurrency
            && claim.flight.is_none()
        {
            claim.flight = flight::begin(&self.flying, most, now);
            if claim.flight.is_none() {
                let verdict = claim.poll(Why::Concurrency, bound, now);
                if matches!(verdict, Verdict::Refuse { .. }) {
                    self.undo(claim);
                }
                return verdict;
            }
        }
        let reach = bound.min(now.saturating_add(ahead));
        let verdict = if claim.charged || claim.booked {
            self.confirm(rule, claim, bound, now)
        } else {
            self.charge(rule, claim, ask, reach, now)
        };
        match verdict {
            Verdict::Pass => claim.held = true,
            Verdict::Wait { .. } => self.land(claim),
            Verdict::Refuse { until, .. } => {
                let passed = (claim.passed_low, claim.passed_fair, claim.polls);
                self.undo(claim);
                if reach < bound && until.as_nanos() <= bound {
                    // It would fit, but the slots up to there are for those who have less than their share.
                    (claim.passed_low, claim.passed_fair, claim.polls) = passed;
                    return claim.poll(Why::FairShare, bound, now);
                }
            }
        }
        verdict
    }

    /// Counts a call that goes in any case.
    pub(in super::super) fn watch(&self, claim: &mut Claim, ask: &Ask, now: u64) {
        if claim.held {
            return;
        }
        claim.asked = now.max(1);
        claim.units = ask.units.min(i32::MAX as u64) as u32;
        self.beat(now);
        self.roll(now);
        self.count(claim);
        claim.held = true;
    }

    /// The call did not go, or is not going to: gives back what can be given back.
    pub fn undo(&self, claim: &mut Claim) {
        self.land(claim);
        if claim.charged {
            self.uncount(claim);
        }
        if let Some((local, slot)) = claim.slot {
            slot.give_back(if local { &self.due } else { &self.slots });
        }
        *claim = Claim { asked: claim.asked, ..Claim::default() };
    }

    /// The call is over. Its units stay used.
    pub fn end(&self, claim: &mut Claim) {
        self.land(claim);
    }

    /// Corrects an estimate: the call used `units`.
    pub fn settle(&self, rule: &Rule, claim: &mut Claim, units: u64) {
        if !claim.charged {
            return;
        }
        let units = units.min(i32::MAX as u64) as u32;
        let (more, fewer) = (units.saturating_sub(claim.units), claim.units.saturating_sub(units));
        let _ = self
            .begun
            .fetch_update(Relaxed, Relaxed, |begun| (begun + u64::from(more)).checked_sub(u64::from(fewer)));
        if let Some(limit) = &rule.limit
            && claim.slot.is_some_and(|(local, _)| local)
        {
            let (later, sooner) = (limit.time_of(u64::from(more)), limit.time_of(u64::from(fewer)));
            let _ = self.due.fetch_update(Relaxed, Relaxed, |due| {
                (more != fewer).then(|| due.saturating_add(later).saturating_sub(sooner))
            });
        }
        claim.slot = None;
        claim.units = units;
    }

    fn land(&self, claim: &mut Claim) {
        if let Some(generation) = claim.flight.take() {
            flight::end(&self.flying, generation);
        }
    }

    fn charge(&self, rule: &Rule, claim: &mut Claim, ask: &Ask, bound: u64, now: u64) -> Verdict {
        let leased = if rule.shared == Shared::Fleet { self.leased(now) } else { None };
        if let Some((left, until)) = leased {
            if left < i64::from(claim.units) {
                return claim.poll(Why::Lease, bound.min(until.max(now + 1)).max(now), now);
            }
        } else if let Some(limit) = &rule.limit
            && let Err(verdict) = self.take_local(rule, limit, claim, ask, bound, now)
        {
            return verdict;
        }
        let earliest = claim.slot.map_or(now, |(_, slot)| slot.start);
        if earliest > now {
            claim.why = Why::OwnLimit;
        }
        match self.take_stated(rule, claim, ask, earliest, bound, now) {
            Ok(start) if start <= now => Verdict::Pass,
            Ok(start) => claim.wait_until(start, claim.why),
            Err(verdict) => verdict,
        }
    }

    /// The configured rate.
    fn take_local(
        &self,
        rule: &Rule,
        limit: &Limit,
        claim: &mut Claim,
        ask: &Ask,
        bound: u64,
        now: u64,
    ) -> Result<(), Verdict> {
        let share = if rule.shared == Shared::Fleet { self.share() } else { 1_000_000 };
        let scaled = |time: u64| {
            if share == 1_000_000 { time } else { scale(time, 1_000_000, u64::from(share)) }
        };
        let cost = scaled(limit.time_of(u64::from(claim.units)));
        let burst = rule.burst.unwrap_or_else(|| limit.default_burst());
        // Not scaled: what all hosts together may do back to back is shared out as well.
        let tolerance = if burst == 1 { 0 } else { limit.time_of(burst - 1) };
        let horizon = rule
            .max_wait_nanos()
            .saturating_add(tolerance)
            .saturating_add(scaled(nanos(limit.period)))
            .saturating_add(cost);
        let kept = u64::from(rule.kept_from(ask.priority));
        if kept > 0 && !claim.passed_low {
            let low = Turn {
                cost: scale(cost, 1_000, 1_000 - kept),
                tolerance: scale(tolerance, 1_000 - kept, 1_000),
                earliest: now,
                bound: first_wait(bound, now),
                horizon: scale(horizon, 1_000, 1_000 - kept),
            };
            let slot = low.take(&self.due_low).map_err(|until| refuse(until, Why::Reserved))?;
            claim.passed_low = true;
            if slot.start > now {
                return Err(claim.wait_until(slot.start, Why::Reserved));
            }
        }
        let turn = Turn { cost, tolerance, earliest: now, bound, horizon };
        let slot = turn.take(&self.due).map_err(|until| refuse(until, Why::OwnLimit))?;
        claim.slot = Some((true, slot));
        Ok(())
    }

    /// What the vendor stated, or what was learned; charges the units.
    fn take_stated(
        &self,
        rule: &Rule,
        claim: &mut Claim,
        ask: &Ask,
        earliest: u64,
        bound: u64,
        now: u64,
    ) -> Result<u64, Verdict> {
        let kept = u64::from(rule.kept_from(ask.priority));
        let units = i64::from(claim.units);
        loop {
            let begun = self.begun.load(Relaxed);
            let Some(left) = self.left(now).filter(|left| left.resets_at > now) else { break };
            let floor = (u64::from(left.limit) * kept / 1_000) as i64;
            let free = left.units - self.pending(rule, &left, now);
            if free - units < floor {
                let why = if free < units { Why::Exhausted } else { Why::Reserved };
                if why == Why::Exhausted && self.block(now).is_none() && self.probes(left.resets_at, now) {
                    self.count(claim);
                    return Ok(earliest);
                }
                return self.book_beyond(rule, claim, left.resets_at.max(earliest), why, bound, now);
            }
            if self.block(now).is_some() || rule.pace == Pace::Smooth {
                break;
            }
            // The usual case: something is left, and nothing says to wait.
            let after = begun.wrapping_add(units as u64);
            if self.begun.compare_exchange(begun, after, Relaxed, Relaxed).is_ok() {
                (claim.ticket, claim.charged) = (after as u32, true);
                return Ok(earliest);
            }
        }
        if let Some((until, why)) = self.block(now) {
            return self.book_beyond(rule, claim, until.max(earliest), why, bound, now);
        }
        let Some((turn, why)) = self.paced(rule, claim.units, earliest, bound, now) else {
            self.count(claim);
            return Ok(earliest);
        };
        let slot = turn.take(&self.slots).map_err(|until| refuse(until, why))?;
        if slot.start > earliest {
            claim.why = why;
        }
        claim.slot = claim.slot.or(Some((false, slot)));
        if self.left(now).is_some_and(|left| slot.start >= left.resets_at) {
            claim.booked = true;
        } else {
            self.count(claim);
        }
        Ok(slot.start)
    }

    /// A slot was booked, and its time has come: it holds unless the vendor has spoken since.
    fn confirm(&self, rule: &Rule, claim: &mut Claim, bound: u64, now: u64) -> Verdict {
        let units = i64::from(claim.units);
        let barrier = self.block(now).or_else(|| {
            let left = self.left(now).filter(|left| left.resets_at > now)?;
            // What went after this claim was counted does not take its place.
            let later = if claim.charged {
                i64::from((self.begun.load(Relaxed) as u32).wrapping_sub(claim.ticket) as i32) + units
            } else {
                0
            };
            (left.units + later < units).then_some((left.resets_at, Why::Exhausted))
        });
        let Some((until, why)) = barrier else {
            if !claim.charged {
                self.count(claim);
            }
            return Verdict::Pass;
        };
        if claim.charged {
            self.uncount(claim);
        }
        match self.book_beyond(rule, claim, until, why, bound, now) {
            Ok(start) if start <= now => Verdict::Pass,
            Ok(start) => claim.wait_until(start, why),
            Err(verdict) => verdict,
        }
    }

    /// A slot at `until` or after it, in line with all others who wait for that.
    fn book_beyond(
        &self,
        rule: &Rule,
        claim: &mut Claim,
        until: u64,
        why: Why,
        bound: u64,
        now: u64,
    ) -> Result<u64, Verdict> {
        let unit = self.spacing();
        let (limit, _) = unpack(self.stated.load(Relaxed));
        let mut earliest = until.max(now);
        let due = self.slots.load(Relaxed);
        let patience = rule.max_wait_nanos().saturating_add(RESET_SPACING);
        if limit != 0 && due > earliest && due <= earliest.saturating_add(patience) {
            // A window's worth of slots for each window.
            let length = self.window_length().max(SECOND);
            let (windows, within) = ((due - earliest) / length, (due - earliest) % length);
            let full = within / unit >= u64::from(limit);
            earliest = earliest.saturating_add((windows + u64::from(full)).saturating_mul(length));
        }
        let cost = unit.saturating_mul(u64::from(claim.units));
        let turn = Turn { cost, tolerance: 0, earliest, bound, horizon: patience };
        let slot = turn.take(&self.slots).map_err(|until| refuse(until, why))?;
        claim.why = why;
        claim.booked = true;
        claim.slot = claim.slot.or(Some((false, slot)));
        Ok(slot.start)
    }

    /// How far apart the units go of those who wait for a moment: as far as the limit says, at most 20 ms.
    fn spacing(&self) -> u64 {
        let (limit, _) = unpack(self.stated.load(Relaxed));
        let length = self.window_length();
        let even = if limit == 0 || length == 0 { RESET_SPACING / 2 } else { length / u64::from(limit) };
        even.clamp(1, RESET_SPACING)
    }

    /// Units with a slot still to come in the present window that are not counted yet.
    fn pending(&self, rule: &Rule, left: &Left, now: u64) -> i64 {
        let due = self.slots.load(Relaxed);
        // Slots beyond the reset are the next window's; when pacing, the slots themselves keep the order.
        if due <= now || due >= left.resets_at || rule.pace == Pace::Smooth {
            return 0;
        }
        if due > now.saturating_add(rule.max_wait_nanos()).saturating_add(RESET_SPACING) {
            return 0;
        }
        // Who has a slot may come for it a little late.
        let (opened, _) = unpack(self.opened.load(Relaxed));
        let since = now.saturating_sub(LATE).max(Tick(opened).nanos(now));
        (due.saturating_sub(since) / self.spacing()).min(u64::from(left.limit)) as i64
    }

    /// Turns that spread what is left until the reset, or keep to what was learned.
    fn paced(&self, rule: &Rule, units: u32, earliest: u64, bound: u64, now: u64) -> Option<(Turn, Why)> {
        if let Some(left) = self.left(now).filter(|left| left.resets_at > now) {
            if rule.pace != Pace::Smooth {
                return None;
            }
            let time = left.resets_at - now;
            let spread = left.units.max(1) as u64;
            // Those who have a slot are not left any more, so what is left lies behind theirs.
            let due = self.slots.load(Relaxed);
            let behind =
                if due > left.resets_at.saturating_add(rule.max_wait_nanos()) { now } else { due.max(now) };
            let rest = left.resets_at.saturating_sub(behind);
            let cost =
                scale(rest, u64::from(units), spread).max(self.spacing().saturating_mul(u64::from(units)));
            let tolerance = rule.burst.map_or(time / 10, |burst| scale(time, burst - 1, spread).min(time));
            let horizon = rule.max_wait_nanos().saturating_add(time);
            return Some((Turn { cost, tolerance, earliest, bound, horizon }, Why::Paced));
        }
        if self.stated.load(Relaxed) != 0 {
            return None;
        }
        let rate = learned::rate(self.learned.load(Relaxed), now)?;
        let cost = scale(1_000 * SECOND, u64::from(units), rate);
        let horizon = rule.max_wait_nanos().saturating_add(SECOND).saturating_add(cost);
        Some((Turn { cost, tolerance: SECOND / 10, earliest, bound, horizon }, Why::Learned))
    }

    /// One call a minute may see whether nothing is left, still.
    fn probes(&self, resets_at: u64, now: u64) -> bool {
        let newest = self.newest.load(Relaxed);
        let (ticket, at) = unpack(newest);
        let heard = Tick(at).nanos(now);
        let lately = heard <= now.saturating_add(SECOND) && now.saturating_sub(heard) < PROBE;
        if newest == 0 || lately || resets_at.saturating_sub(now) < PROBE {
            return false;
        }
        let probing = pack(ticket, Tick::floor(now).0);
        self.newest.compare_exchange(newest, probing, Relaxed, Relaxed).is_ok()
    }

    /// Counts the units, whatever is left.
    fn count(&self, claim: &mut Claim) {
        let units = u64::from(claim.units);
        let after = self.begun.fetch_add(units, Relaxed).wrapping_add(units);
        (claim.ticket, claim.charged) = (after as u32, true);
    }

    fn uncount(&self, claim: &mut Claim) {
        let units = u64::from(claim.units);
        let _ = self.begun.fetch_update(Relaxed, Relaxed, |begun| begun.checked_sub(units));
        claim.charged = false;
    }

    /// Units per second, in thousandths, that the quota allows lately; `None` where it has no limit that we know.
    pub(in super::super) fn capacity(&self, rule: &Rule, now: u64) -> Option<u64> {
        let own = rule.limit.map(|limit| {
            let whole = scale(1_000 * SECOND, limit.units, nanos(limit.period));
            if rule.shared == Shared::Fleet {
                scale(whole, u64::from(self.share()), 1_000_000)
            } else {
                whole
            }
        });
        let stated = self.left(now).map(|left| {
            let time = left.resets_at.saturating_sub(now).max(SECOND / 20);
            let length = self.window_length();
            // When all is used, those who wait for the next window still share it.
            let least =
                if length == 0 { 0 } else { scale(1_000 * SECOND, u64::from(left.limit), length) / 4 };
            scale(1_000 * SECOND, left.units.max(0) as u64, time).max(least).max(1)
        });
        let learned =
            learned::rate(self.learned.load(Relaxed), now).filter(|_| self.stated.load(Relaxed) == 0);
        [own, stated, learned].into_iter().flatten().min()
    }
}

/// The bound of a wait after which there may be another.
pub(in super::super) fn first_wait(bound: u64, now: u64) -> u64 {
    bound - (bound.saturating_sub(now) / 4).min(SECOND_WAIT)
}

/// `value * by / over`, rounded up, saturating.
fn scale(value: u64, by: u64, over: u64) -> u64 {
    let over = over.max(1);
    match value.checked_mul(by) {
        Some(product) => product.div_ceil(over),
        None => {
            u64::try_from((u128::from(value) * u128::from(by)).div_ceil(u128::from(over))).unwrap_or(u64::MAX)
        }
    }
}
