//! Whether a call may go now, later, or not.

use super::super::rule::{Limit, OnError, Pace, Rate, Rule, Shared, nanos};
use super::super::state::ASK_AGAIN;
use super::super::tick::{Tick, pack, unpack};
use super::super::{Verdict, Why};
use super::gcra::{Slot, Turn};
use super::slots::scale;
use super::{Ask, Cell, Claim, first_wait, flight, refuse};
use crate::units::Timestamp;
use std::sync::atomic::Ordering::Relaxed;

const SECOND: u64 = 1_000_000_000;
/// A vendor's word that nothing is left is put to the test after so long without an answer, by one call: a
/// header that lied must not keep a service quiet for a month.
const PROBE: u64 = 60 * SECOND;

impl Cell {
    /// Whether a call may go: now, at a slot that was booked for it, or not within the time that it has.
    ///
    /// After [`Verdict::Wait`] ask again at that time, with the same claim; asking early gives the same answer.
    /// After [`Verdict::Pass`] further questions pass at no charge. After [`Verdict::Refuse`] the claim holds
    /// nothing.
    pub fn before(&self, rule: &Rule, claim: &mut Claim, ask: &Ask, now: Timestamp) -> Verdict {
        if claim.held {
            return Verdict::Pass;
        }
        let now = now.as_nanos();
        let bound = claim.bound(rule, ask, now);
        if let Some(wait) = claim.waiting(bound, now) {
            return wait;
        }
        self.ask(rule, claim, ask, (bound, u64::MAX), now)
    }

    /// The same of a claim that does not wait, which may go at `bound` at the latest; taking no slot that is later than
    /// `ahead` from now: for whoever has more than its share.
    pub(in super::super) fn ask(
        &self,
        rule: &Rule,
        claim: &mut Claim,
        ask: &Ask,
        (bound, ahead): (u64, u64),
        now: u64,
    ) -> Verdict {
        claim.units = ask.units.min(i32::MAX as u64) as u32;
        self.beat(now);
        self.roll(now);
        if let Some(most) = rule.concurrency
            && claim.flight.is_none()
            && let Some(verdict) = self.take_off(most, claim, bound, now)
        {
            return verdict;
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
                let fits = reach < bound && until.as_nanos() <= bound;
                return self.refused(claim, verdict, fits, bound, now);
            }
        }
        verdict
    }

    /// Takes a place among those under way; where there is none, what to do.
    #[inline(never)]
    fn take_off(&self, most: u32, claim: &mut Claim, bound: u64, now: u64) -> Option<Verdict> {
        claim.flight = flight::begin(&self.flying, most, now);
        if claim.flight.is_some() {
            return None;
        }
        let verdict = claim.poll(Why::Concurrency, bound, now);
        if matches!(verdict, Verdict::Refuse { .. }) {
            self.undo(claim);
        }
        Some(verdict)
    }

    /// There is no slot as early as it may have one; `fits`: there is one within its time.
    #[cold]
    #[inline(never)]
    fn refused(&self, claim: &mut Claim, verdict: Verdict, fits: bool, bound: u64, now: u64) -> Verdict {
        let passed = (claim.passed_low, claim.passed_fair, claim.polls);
        self.undo(claim);
        if fits {
            // It would fit, but the slots up to there are for those who have less than their share.
            (claim.passed_low, claim.passed_fair, claim.polls) = passed;
            return claim.poll(Why::FairShare, bound, now);
        }
        verdict
    }

    /// Counts a call that goes in any case, because no rule says otherwise.
    pub fn watch(&self, claim: &mut Claim, ask: &Ask, now: Timestamp) {
        if claim.held {
            return;
        }
        let at = now.as_nanos();
        claim.asked = at.max(1);
        claim.units = ask.units.min(i32::MAX as u64) as u32;
        self.beat(at);
        self.roll(at);
        self.count(claim);
        claim.held = true;
    }

    /// Whether a call may go by a quota that is counted in what only the vendor knows: what is left is compared with
    /// nothing, and counted as by [`watch`](Self::watch), but nobody goes before the end of a time for which the vendor said
    /// to stay away.
    pub fn heed(&self, rule: &Rule, claim: &mut Claim, ask: &Ask, now: Timestamp) -> Verdict {
        if claim.held {
            return Verdict::Pass;
        }
        let at = now.as_nanos();
        let bound = claim.bound(rule, ask, at);
        if let Some(wait) = claim.waiting(bound, at) {
            return wait;
        }
        match self.block(at) {
            Some((until, why)) if until > bound => refuse(until, why),
            Some((until, why)) => claim.wait_until(until, why),
            None => {
                self.watch(claim, ask, now);
                Verdict::Pass
            }
        }
    }

    /// The call did not go, or is not going to: gives back what can be given back.
    #[inline(never)]
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
    #[inline(never)]
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
            let period = nanos(limit.period);
            let (later, sooner) =
                (limit.time_of(u64::from(more)).min(period), limit.time_of(u64::from(fewer)).min(period));
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
        let taken = match &rule.limit {
            _ if rule.shared == Shared::Fleet => self.take_leased(rule, claim, ask, bound, now),
            Some(limit) => self.take_local(rule, limit, claim, ask, bound, now),
            None => Ok(()),
        };
        if let Err(verdict) = taken {
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

    /// A fleet's grant; without one, this host's share of the configured rate.
    #[inline(never)]
    fn take_leased(
        &self,
        rule: &Rule,
        claim: &mut Claim,
        ask: &Ask,
        bound: u64,
        now: u64,
    ) -> Result<(), Verdict> {
        let leased = rule.limit.as_ref().and_then(|limit| self.leased(now, 2 * limit.renewal()));
        if let Some((left, until)) = leased {
            // Who asks for many at once goes into debt, which the next grants pay: what nobody used was never asked for.
            return match left < i64::from(claim.units.min(1)) {
                true => Err(claim.poll(Why::Lease, bound.min(until.max(now + 1)).max(now), now)),
                false => Ok(()),
            };
        }
        if rule.on_error == OnError::Refuse {
            return Err(match self.was_leased() {
                false => claim.poll(Why::Unshared, bound, now),
                true => refuse(now.saturating_add(nanos(ASK_AGAIN)), Why::Unshared),
            });
        }
        match &rule.limit {
            Some(limit) => self.take_local(rule, limit, claim, ask, bound, now),
            None => Ok(()),
        }
    }

    /// The configured rate.
    #[inline]
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
        let period = scaled(nanos(limit.period));
        let Rate { cost, tolerance } = ask.rate.unwrap_or_else(|| limit.rate(rule.burst));
        // Who asks for more than the limit can never have it; a period without anybody else is what that costs.
        let cost = if claim.units == 1 { cost } else { limit.time_of(u64::from(claim.units)) };
        // The tolerance is not scaled: what all hosts together may do back to back is shared out as well.
        let cost = scaled(cost).min(period);
        // Calls that used more than they asked for may owe another period.
        let horizon =
            rule.max_wait_nanos().saturating_add(tolerance).saturating_add(period.saturating_mul(2));
        let kept = u64::from(rule.kept_from(ask.priority));
        let turn = Turn { cost, tolerance, earliest: now, bound, horizon };
        let slot = match kept > 0 && !claim.passed_low {
            true => self.take_beside_reserve(&turn, kept, claim)?,
            false => turn.take(&self.due).map_err(|until| refuse(until, Why::OwnLimit))?,
        };
        claim.slot = Some((true, slot));
        Ok(())
    }

    /// A turn of what the reserve leaves, and then of all.
    #[inline(never)]
    fn take_beside_reserve(&self, turn: &Turn, kept: u64, claim: &mut Claim) -> Result<Slot, Verdict> {
        let Turn { cost, earliest: now, bound, horizon, .. } = *turn;
        // The cost alone leaves the share alone, of the rate and of the burst.
        let low = Turn {
            cost: scale(cost, 1_000, 1_000 - kept),
            bound: first_wait(bound, now),
            horizon: scale(horizon, 1_000, 1_000 - kept),
            ..*turn
        };
        let taken = low.take(&self.due_low).map_err(|until| refuse(until, Why::Reserved))?;
        claim.passed_low = true;
        if taken.start > now {
            return Err(claim.wait_until(taken.start, Why::Reserved));
        }
        turn.take(&self.due).map_err(|until| {
            // Who does not go takes nothing of what the reserve leaves.
            taken.give_back(&self.due_low);
            claim.passed_low = false;
            refuse(until, Why::OwnLimit)
        })
    }

    /// What the vendor stated, or what was learned; charges the units.
    #[inline]
    fn take_stated(
        &self,
        rule: &Rule,
        claim: &mut Claim,
        ask: &Ask,
        earliest: u64,
        bound: u64,
        now: u64,
    ) -> Result<u64, Verdict> {
        if [&self.window, &self.blocked, &self.learned].iter().all(|word| word.load(Relaxed) == 0) {
            // Nothing was stated and nothing learned: it is a limit of ours.
            self.count(claim);
            return Ok(earliest);
        }
        self.take_as_stated(rule, claim, ask, earliest, bound, now)
    }

    #[inline(never)]
    fn take_as_stated(
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
            let floor = left.floor(kept);
            let needs = left.needs(claim.units, kept);
            let free = left.units - self.pending(rule, &left, now);
            if free - needs < floor {
                let why = if free < needs { Why::Exhausted } else { Why::Reserved };
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
    #[inline(never)]
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
            (left.units + later < left.needs(claim.units, 0)).then_some((left.resets_at, Why::Exhausted))
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

    /// One call a minute may see whether nothing is left, still.
    #[cold]
    #[inline(never)]
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
}
