//! A fleet's quota: how much to ask of the shared store, and when.
//!
//! Calls never wait for the network: they use what was granted before they came. Somebody beside them (the agent)
//! asks a [`Lease`] a few times a second what to fetch, and tells it what came. When nothing comes any more, the
//! grant runs out and the cell goes on with this host's share of the limit; when the store is back, grants take
//! over again. Nothing of this waits.

use super::cell::Cell;
use super::rule::{Limit, nanos};
use crate::units::Timestamp;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// What this host asks the shared store for.
#[derive(Debug, Clone)]
pub struct Lease {
    limit: Limit,
    /// Units per second that went lately, in thousandths.
    demand: u64,
    /// The last question: when, and the cell's count then.
    asked: Option<(u64, u64)>,
    /// What the last grant brought.
    batch: u64,
    /// How many hosts share the limit, as the store said last.
    hosts: u32,
    failures: u32,
}

/// What to ask of the shared store now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanted {
    /// Units to be granted; 0 to only be counted among the hosts.
    pub units: u64,
    /// Units of an earlier grant that this host gives back.
    pub returned: u64,
    /// For how long the grant should hold.
    pub hold: Duration,
}

impl Lease {
    /// Nothing granted yet: the cell goes on with the whole limit, until the store says how many share it.
    #[must_use]
    pub const fn new(limit: Limit) -> Self {
        Self { limit, demand: 0, asked: None, batch: 0, hosts: 1, failures: 0 }
    }

    /// How often to ask: ten times a period, between 20 times a second and once a second.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_nanos((nanos(self.limit.period) / 10).clamp(SECOND / 20, SECOND))
    }

    /// What to ask for now: what will be used until the next question, as far as that can be known, less what is
    /// left. What nobody used goes back, so that other hosts can have it.
    pub fn wanted(&mut self, cell: &Cell, now: Timestamp) -> Wanted {
        let at = now.as_nanos();
        let interval = nanos(self.interval());
        let begun = cell.units_begun();
        let left = cell.leased(at).map_or(0, |(units, _)| units.max(0) as u64);
        let starved = self.batch > 0 && left == 0;
        if let Some((then, count)) = self.asked {
            let elapsed = at.saturating_sub(then).clamp(1_000_000, 10 * SECOND);
            let lately =
                u128::from(begun.saturating_sub(count)) * 1_000 * u128::from(SECOND) / u128::from(elapsed);
            let lately = u64::try_from(lately).unwrap_or(u64::MAX >> 1);
            // Up at once, down slowly: too little makes calls wait, too much comes back.
            self.demand =
                if lately > self.demand { lately } else { self.demand - (self.demand - lately) / 4 };
        }
        self.asked = Some((at, begun));
        let used = u128::from(self.demand) * u128::from(interval) / u128::from(1_000 * SECOND);
        let used = u64::try_from(used).unwrap_or(u64::MAX >> 1);
        let mut target = used.saturating_add(used / 4).saturating_add(1);
        if starved {
            target = target.max(self.batch.saturating_mul(2));
        }
        let target = target.min(self.limit.units);
        // Less than a quarter more than needed is not worth giving back.
        let returned = if left > target.saturating_add(target / 4) {
            cell.give_back(target.min(u64::from(u32::MAX)) as u32, at)
        } else {
            0
        };
        let left = left - u64::from(returned).min(left);
        Wanted {
            units: target.saturating_sub(left),
            returned: u64::from(returned),
            hold: Duration::from_nanos(interval.saturating_mul(3)),
        }
    }

    /// The store granted `units` until `until`, and knows of so many `hosts`. Fewer units than were wanted is a
    /// normal answer; absurd ones are cut to the limit, and a grant lasts at most a minute.
    pub fn granted(&mut self, cell: &Cell, units: u64, until: Timestamp, hosts: u32, now: Timestamp) {
        let units = units.min(self.limit.units).min(i32::MAX as u64);
        self.failures = 0;
        self.batch = units;
        self.hosts = hosts.clamp(1, 100_000);
        cell.set_share((1_000_000 / self.hosts).max(1));
        let until = until.as_nanos().min(now.as_nanos().saturating_add(60 * SECOND));
        cell.extend(units as u32, until, now.as_nanos());
    }

    /// So many hosts share the limit, as far as anybody knows before the store was asked about this quota.
    pub fn expects(&mut self, cell: &Cell, hosts: u32) {
        self.hosts = hosts.clamp(1, 100_000);
        cell.set_share((1_000_000 / self.hosts).max(1));
    }

    /// The store did not answer, or with nonsense. The grant in force runs out; then this host's share holds.
    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.batch = 0;
    }

    /// How often in a row the store did not answer.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// How many hosts share the limit, as the store said last.
    #[must_use]
    pub const fn hosts(&self) -> u32 {
        self.hosts
    }
}
