//! What the fleet granted to this host, as the cell sees it. Who asks for grants is [`Lease`](crate::quota::Lease).

use super::super::tick::{Tick, pack, unpack};
use super::Cell;
use std::sync::atomic::Ordering::Relaxed;

/// Millionths.
const WHOLE: u32 = 1_000_000;

impl Cell {
    /// Units that may still go under the lease, and until when; `None` where no lease is in force, and the
    /// local share holds. A lease that ran out is waited for so long as `grace`: the next one is on its way.
    pub(in super::super) fn leased(&self, now: u64, grace: u64) -> Option<(i64, u64)> {
        let word = self.lease.load(Relaxed);
        if word == 0 {
            return None;
        }
        let (until, horizon) = unpack(word);
        let until = Tick(until).nanos(now);
        let units = i64::from(horizon.wrapping_sub(self.begun.load(Relaxed) as u32) as i32);
        if until > now {
            return Some((units, until));
        }
        let until = until.saturating_add(grace);
        (until > now).then_some((0, until))
    }

    /// Whether there ever was a lease.
    pub(in super::super) fn was_leased(&self) -> bool {
        self.lease.load(Relaxed) != 0
    }

    /// Adds granted units, all usable until `until`; what is left of an earlier lease stays usable. What went beyond one
    /// that has run out, because nobody settled it, is taken off these.
    pub(in super::super) fn extend(&self, units: u32, until: u64, now: u64) {
        let _ = self.lease.fetch_update(Relaxed, Relaxed, |seen| {
            let begun = self.begun.load(Relaxed) as u32;
            let (old_until, horizon) = unpack(seen);
            let left = horizon.wrapping_sub(begun) as i32;
            let in_force = seen != 0 && Tick(old_until).nanos(now) > now;
            let units = i64::from(units.min(i32::MAX as u32));
            let left = match i64::from(left) {
                left if in_force => left,
                _ if seen == 0 => 0,
                left => left.clamp(-units, 0),
            };
            let units = left + units;
            let units = units.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
            Some(pack(Tick::floor(until).0, begun.wrapping_add(units as u32)))
        });
    }

    /// Takes back what a lease still allows beyond `keep` units; gives how much that was.
    pub(in super::super) fn give_back(&self, keep: u32, now: u64) -> u32 {
        let mut seen = self.lease.load(Relaxed);
        loop {
            let (until, horizon) = unpack(seen);
            let begun = self.begun.load(Relaxed) as u32;
            let left = (horizon.wrapping_sub(begun) as i32).max(0) as u32;
            if seen == 0 || Tick(until).nanos(now) <= now || left <= keep {
                return 0;
            }
            let kept = pack(until, begun.wrapping_add(keep));
            match self.lease.compare_exchange(seen, kept, Relaxed, Relaxed) {
                Ok(_) => return left - keep,
                Err(other) => seen = other,
            }
        }
    }

    /// What is left of a lease that has run out, or (below zero) what went beyond it on the local share; it is even
    /// afterwards. 0 where one is in force, or none ever was.
    pub(in super::super) fn settle_lease(&self, now: u64) -> i64 {
        let mut seen = self.lease.load(Relaxed);
        loop {
            let (until, horizon) = unpack(seen);
            if seen == 0 || Tick(until).nanos(now) > now {
                return 0;
            }
            let begun = self.begun.load(Relaxed) as u32;
            match self.lease.compare_exchange(seen, pack(until, begun), Relaxed, Relaxed) {
                Ok(_) => return i64::from(horizon.wrapping_sub(begun) as i32),
                Err(other) => seen = other,
            }
        }
    }

    /// Takes units off what a lease allows, into debt where it allows no more.
    pub(in super::super) fn owe(&self, units: u64) {
        let units = units.min(i32::MAX as u64) as i32;
        let _ = self.lease.fetch_update(Relaxed, Relaxed, |seen| {
            let (until, horizon) = unpack(seen);
            let begun = self.begun.load(Relaxed) as u32;
            let left = (horizon.wrapping_sub(begun) as i32).saturating_sub(units);
            (seen != 0 && units > 0).then(|| pack(until, begun.wrapping_add(left as u32)))
        });
    }

    /// Nobody owes what went beyond a lease that lasted no longer than until `since`.
    pub(in super::super) fn forgive(&self, since: u64, now: u64) {
        let _ = self.lease.fetch_update(Relaxed, Relaxed, |seen| {
            let (until, horizon) = unpack(seen);
            let begun = self.begun.load(Relaxed) as u32;
            let forgiven =
                seen != 0 && Tick(until).nanos(now) <= since && (horizon.wrapping_sub(begun) as i32) < 0;
            forgiven.then(|| pack(until, begun))
        });
    }

    /// What this host may use of the limit when no lease is in force.
    pub(in super::super) fn set_share(&self, millionths: u32) {
        let _ = self.terms.fetch_update(Relaxed, Relaxed, |seen| {
            let (window, share) = unpack(seen);
            (share != millionths).then(|| pack(window, millionths))
        });
    }

    pub(in super::super) fn share(&self) -> u32 {
        match unpack(self.terms.load(Relaxed)).1 {
            0 => WHOLE,
            share => share.min(WHOLE),
        }
    }

    pub(in super::super) fn units_begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }
}
