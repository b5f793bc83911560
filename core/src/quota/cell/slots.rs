//! Slots for those who wait, and how fast a quota may be used.

use super::super::rule::{Pace, Rule, Shared, nanos};
use super::super::tick::{Tick, unpack};
use super::super::{Verdict, Why};
use super::gcra::Turn;
use super::vendor::Left;
use super::{Cell, Claim, learned, refuse};
use crate::units::Timestamp;
use std::sync::atomic::Ordering::Relaxed;

const SECOND: u64 = 1_000_000_000;
/// Those who wait for a reset go at most so far apart: the quota is whole again then.
const RESET_SPACING: u64 = 20_000_000;
/// How late a call may come for its slot and still find its units.
const LATE: u64 = 50_000_000;

impl Cell {
    /// A slot at `until` or after it, in line with all others who wait for that.
    #[inline(never)]
    pub(super) fn book_beyond(
        &self,
        rule: &Rule,
        claim: &mut Claim,
        until: u64,
        why: Why,
        bound: u64,
        now: u64,
    ) -> Result<u64, Verdict> {
        let unit = self.spacing();
        let limit = self.stated_limit();
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
        // More than a window holds takes a window, and not the turns of those behind it.
        let units = if limit == 0 { claim.units } else { claim.units.min(limit) };
        let cost = unit.saturating_mul(u64::from(units));
        let turn = Turn { cost, tolerance: 0, earliest, bound, horizon: patience };
        let slot = turn.take(&self.slots).map_err(|until| refuse(until, why))?;
        claim.why = why;
        claim.booked = true;
        claim.slot = claim.slot.or(Some((false, slot)));
        Ok(slot.start)
    }

    /// How far apart the units go of those who wait for a moment: as far as the limit says, at most 20 ms.
    fn spacing(&self) -> u64 {
        let limit = self.stated_limit();
        let length = self.window_length();
        let even = if limit == 0 || length == 0 { RESET_SPACING / 2 } else { length / u64::from(limit) };
        even.clamp(1, RESET_SPACING)
    }

    /// Units with a slot still to come in the present window that are not counted yet.
    pub(super) fn pending(&self, rule: &Rule, left: &Left, now: u64) -> i64 {
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
    pub(super) fn paced(
        &self,
        rule: &Rule,
        units: u32,
        earliest: u64,
        bound: u64,
        now: u64,
    ) -> Option<(Turn, Why)> {
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

    /// Whether the configured rate has a slot at this moment that nobody has taken.
    pub(in super::super) fn idles(&self, rule: &Rule, now: u64) -> bool {
        rule.limit.is_some() && rule.shared != Shared::Fleet && self.due.load(Relaxed) <= now
    }

    /// When all of the configured burst may go; `None` where the rule states no limit, or a fleet's store grants it.
    pub(in super::super) fn due_at(&self, rule: &Rule, now: Timestamp) -> Option<Timestamp> {
        let limit = rule.limit.filter(|_| rule.shared != Shared::Fleet)?;
        let (due, at) = (self.due.load(Relaxed), now.as_nanos());
        // Honest calls book no later; what is later is the slot of another clock.
        let ahead = limit.rate(rule.burst).tolerance.saturating_add(nanos(limit.period).saturating_mul(2));
        let latest = at.saturating_add(rule.max_wait_nanos()).saturating_add(ahead);
        Some(Timestamp::from_nanos(if due > latest { 0 } else { due }))
    }

    /// Whether half of what may go at once is there, of the configured burst or the vendor's window.
    pub(in super::super) fn is_roomy(&self, rule: &Rule, now: u64) -> bool {
        match &rule.limit {
            Some(_) if rule.shared == Shared::Fleet => false,
            Some(limit) => self.due.load(Relaxed) <= now.saturating_add(limit.rate(rule.burst).tolerance / 2),
            None => self.left(now).is_some_and(|left| left.units.saturating_mul(2) >= i64::from(left.limit)),
        }
    }

    /// Units per second, in thousandths, that the quota allows lately; `None` where it has no limit that we know.
    pub(in super::super) fn capacity(&self, rule: &Rule, now: u64) -> Option<u64> {
        let own = rule.limit.map(|limit| {
            let whole = scale(1_000 * SECOND, limit.units, nanos(limit.period));
            if rule.shared != Shared::Fleet {
                return whole;
            }
            let share = scale(whole, u64::from(self.share()), 1_000_000);
            // A lease may hold more than an even share: what went lately shows how much.
            if self.leased(now, 0).is_some() {
                share.max(self.observed(now) / 4 * 5).min(whole)
            } else {
                share
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

/// `value * by / over`, rounded up, saturating.
pub(super) fn scale(value: u64, by: u64, over: u64) -> u64 {
    let over = over.max(1);
    match value.checked_mul(by) {
        Some(product) => product.div_ceil(over),
        None => {
            u64::try_from((u128::from(value) * u128::from(by)).div_ceil(u128::from(over))).unwrap_or(u64::MAX)
        }
    }
}
