//! Fair share: weighted max-min across customers, whenever demand exceeds the quota.
//!
//! While less than half of the quota is used, a call pays one comparison. Beyond that each customer's demand is
//! measured, and ten times a second the level is computed up to which all are served alike: who asks for less
//! than that gets all of it, and what it leaves is shared by the others. A customer above the level waits for
//! turns of its own, at the rate of its share, so its queue is in nobody's way.

mod level;
mod table;

pub use table::{Shares, TRACKED};

use super::cell::gcra::Turn;
use super::cell::{Ask, Cell, Claim, first_wait};
use super::rule::{Priority, Rule, Shared, nanos};
use super::{Verdict, Why};
use std::sync::atomic::Ordering::Relaxed;
use table::{EPOCH, SECOND};

/// How far ahead of now slots of the quota are for those who have more than their share, or before shares are
/// known.
const AHEAD: u64 = EPOCH / 2;
/// No wait and no debt of a customer is honestly further ahead than this and the rule's `max_wait`.
const HORIZON: u64 = 60 * SECOND;

impl Shares {
    /// Whether the customer's share lets the call ask the quota, and how far ahead it may take a slot there.
    ///
    /// # Errors
    /// The verdict, where the call has to wait for its customer's turn, or has no time to.
    pub(super) fn pass(
        &self,
        rule: &Rule,
        cell: &Cell,
        claim: &mut Claim,
        ask: &Ask,
        (first, bound, now): (bool, u64, u64),
    ) -> Result<u64, Verdict> {
        let alone = self.is_alone(ask, now);
        self.refresh(rule, cell, now);
        match self.is_active() {
            true => self.pass_in_turn(rule, cell, claim, ask, alone, (first, bound, now)),
            false => Ok(AHEAD),
        }
    }

    /// The same while shares matter.
    #[inline(never)]
    fn pass_in_turn(
        &self,
        rule: &Rule,
        cell: &Cell,
        claim: &mut Claim,
        ask: &Ask,
        alone: bool,
        (first, bound, now): (bool, u64, u64),
    ) -> Result<u64, Verdict> {
        let slot = self.find(ask, now);
        if first {
            slot.asked.fetch_add(ask.units.min(1 << 40), Relaxed);
        }
        // Of slots to come it takes no more than those of a moment: somebody else may come any time.
        if alone || self.is_guessing() && cell.is_roomy(rule, now) {
            return Ok(AHEAD);
        }
        let level = self.level(ask.priority);
        let rate = level.saturating_mul(u64::from(slot.weight())) / 1_000;
        // Who is a little above its share at the moment may be below it on average.
        let over = level == u64::MAX || slot.demand.load(Relaxed) > rate.saturating_add(rate / 2);
        // A batch that has waited for its turn while urgent calls are held back has come to its floor.
        let floor = ask.priority == Priority::Batch
            && claim.passed_fair
            && self.level(Priority::Interactive) != u64::MAX;
        let ahead = if over && !floor { AHEAD } else { u64::MAX };
        if claim.passed_fair || level == u64::MAX {
            return Ok(ahead);
        }
        if cell.idles(rule, now) {
            // Nobody wants the slot that would pass unused; levels are averages.
            return Ok(0);
        }
        let cost = level::per_second(ask.units, rate.max(1));
        // Its part of a burst is its own, however much it asks for; a window's part, or a lease's, is its own by and by.
        let bursts = rule.limit.is_some() && rule.shared != Shared::Fleet;
        let tolerance = if over && !bursts { EPOCH } else { tolerance(rule, cell, now) };
        let horizon = rule.max_wait_nanos().saturating_add(tolerance).saturating_add(HORIZON);
        let reach = if self.is_guessing() { bound.min(now + EPOCH) } else { bound };
        let turn = Turn { cost, tolerance, earliest: now, bound: first_wait(reach, now), horizon };
        match turn.take(&slot.due) {
            // A slot at the rate of a guess would outlast it, and nobody is refused for a guess.
            Err(_) if reach < bound => {
                slot.hold_back();
                Err(claim.poll(Why::FairShare, bound, now))
            }
            Err(until) => {
                slot.hold_back();
                Err(super::cell::refuse(until, Why::FairShare))
            }
            Ok(taken) => {
                claim.passed_fair = true;
                if taken.start > now {
                    slot.hold_back();
                    return Err(claim.wait_until(taken.start, Why::FairShare));
                }
                Ok(ahead)
            }
        }
    }
}

/// How far a customer that asks for less than its share may run ahead of an even spread of it: its part of the
/// burst, a tenth of a window, at least one epoch.
fn tolerance(rule: &Rule, cell: &Cell, now: u64) -> u64 {
    let ahead = match &rule.limit {
        Some(limit) => (nanos(limit.period) / 10).max(limit.rate(rule.burst).tolerance),
        None => cell.time_left(now).unwrap_or(SECOND) / 10,
    };
    ahead.clamp(EPOCH, 3_600 * SECOND)
}

/// The two classes that are served one after the other.
const fn class(priority: Priority) -> usize {
    match priority {
        Priority::Interactive => 0,
        Priority::Batch => 1,
    }
}

#[cfg(test)]
mod tests;
