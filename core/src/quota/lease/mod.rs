//! A fleet's quota: how much to ask of the shared store, and when.
//!
//! Calls never wait for the network: they use what was granted before they came. Somebody beside them (the agent)
//! asks a [`Lease`] a few times a second what to fetch, and tells it what came. When nothing comes any more, the
//! grant runs out and the cell goes on with this host's share of the limit; when the store is back, grants take
//! over again. Nothing of this waits.
//!
//! A host that had no time to ask goes on with its share as well, while the others were granted the whole limit. That
//! is its debt: the store hears of it with the next question, and takes it out of what it grants, less what nobody took
//! meanwhile. A debt stays until the store has answered to it.

use super::cell::Cell;
use super::rule::{Limit, nanos};
use crate::units::Timestamp;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
/// What went beyond a lease that ran out so long before a process saw it is nobody's debt: who knows by which rule it
/// went.
const FORGOTTEN: u64 = 60 * SECOND;

/// What this host asks the shared store for.
#[derive(Debug, Clone)]
pub struct Lease {
    limit: Limit,
    /// Units per second that went lately, in thousandths.
    demand: u64,
    /// When the cell was seen last, and its count then.
    observed: Option<(u64, u64)>,
    /// What the last grant brought.
    batch: u64,
    /// How many hosts share the limit, as the store said last.
    hosts: u32,
    failures: u32,
    /// Units that went without a grant and that the store has not answered to, and the number they go by there.
    owed: u64,
    debt: u64,
    /// What had run over in the store when it answered last; `None` where that says nothing about a debt.
    spilled: Option<u64>,
    /// What went before the first question was under another rule.
    anew: bool,
    /// The cell's count when this began, where that is known.
    born: Option<u64>,
}

/// What to ask of the shared store now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanted {
    /// Units to be granted; 0 to only be counted among the hosts.
    pub units: u64,
    /// Units of an earlier grant that this host gives back.
    pub returned: u64,
    /// Units that went without a grant, because nobody asked for one in time.
    pub owed: u64,
    /// Stands for what is owed. Told again under the same number, because no answer came, it counts once.
    pub debt: u64,
    /// [`Grant::spilled`] of the last answer: what ran over since then pays for what is owed.
    pub spilled: Option<u64>,
    /// For how long the grant should hold.
    pub hold: Duration,
}

/// What the shared store answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Units that may go. Fewer than were wanted is a normal answer.
    pub units: u64,
    /// How many hosts share the limit.
    pub hosts: u32,
    /// Units that ran over so far, because nobody took them in time, less those that paid for what hosts owed.
    pub spilled: u64,
}

impl Lease {
    /// Nothing granted yet: the cell goes on with the whole limit, until the store says how many share it.
    #[must_use]
    pub const fn new(limit: Limit) -> Self {
        Self {
            limit,
            demand: 0,
            observed: None,
            batch: 0,
            hosts: 1,
            failures: 0,
            owed: 0,
            debt: 0,
            spilled: None,
            anew: false,
            born: None,
        }
    }

    /// The same for a quota that was not the fleet's for a while: what went under its other rule is nobody's debt.
    #[must_use]
    pub const fn anew(limit: Limit) -> Self {
        Self { anew: true, ..Self::new(limit) }
    }

    /// The limit is another one from now on. What is owed stays owed.
    pub fn change(&mut self, limit: Limit) {
        self.limit = limit;
        self.batch = self.batch.min(limit.units);
        self.owed = self.owed.min(limit.most_owed());
    }

    /// How often to ask: ten times a period, between 20 times a second and once a second.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.limit.renewal())
    }

    /// For how long what is asked for holds: three questions.
    #[must_use]
    pub fn hold(&self) -> Duration {
        Duration::from_nanos(self.limit.renewal().saturating_mul(3))
    }

    /// For those who do not ask, because another process of the host does: sees how much goes, to know it when their
    /// turn comes.
    pub fn stands_by(&mut self, cell: &Cell, now: Timestamp) {
        let at = now.as_nanos();
        self.observe(cell, at);
        if cell.leased(at, 0).is_some() {
            // Somebody else reaches the store, and what this process could not tell is paid out of the host's grant.
            cell.owe(std::mem::take(&mut self.owed));
            self.failures = 0;
        } else if self.failures > 0 {
            let _by_right = cell.settle_lease(at);
        }
    }

    fn observe(&mut self, cell: &Cell, at: u64) {
        if self.observed.is_none() {
            let since = if std::mem::take(&mut self.anew) { u64::MAX } else { at.saturating_sub(FORGOTTEN) };
            cell.forgive(since, at);
        }
        let begun = cell.units_begun();
        if let Some((then, count)) = self.observed {
            let elapsed = at.saturating_sub(then).clamp(1_000_000, 10 * SECOND);
            let lately =
                u128::from(begun.saturating_sub(count)) * 1_000 * u128::from(SECOND) / u128::from(elapsed);
            let lately = u64::try_from(lately).unwrap_or(u64::MAX >> 1);
            // Up at once, down slowly: too little makes calls wait, too much comes back.
            self.demand =
                if lately > self.demand { lately } else { self.demand - (self.demand - lately) / 4 };
        }
        self.observed = Some((at, begun));
    }

    /// What to ask for now: what will be used until the next question, as far as that can be known, less what is
    /// left. What nobody used goes back.
    pub fn wanted(&mut self, cell: &Cell, now: Timestamp) -> Wanted {
        let at = now.as_nanos();
        let interval = nanos(self.interval());
        let before = self.demand;
        self.observe(cell, at);
        let even = cell.settle_lease(at);
        let left = cell.leased(at, 0).map_or(0, |(units, _)| units.max(0) as u64);
        if self.failures == 0 && self.batch == 0 && left == 0 {
            // Nothing was granted, so nothing can have gone: nobody wants less for that.
            self.demand = self.demand.max(before);
        }
        let starved = self.batch > 0 && left == 0;
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
        // While the store was away, each host's share was its right.
        if self.failures == 0 && even < 0 {
            self.owes(even.unsigned_abs(), at);
        }
        let unused = even.max(0).unsigned_abs();
        Wanted {
            units: target.saturating_sub(left),
            returned: u64::from(returned).saturating_add(unused).min(self.limit.units),
            owed: self.owed,
            debt: self.debt,
            spilled: self.spilled,
            hold: self.hold(),
        }
    }

    fn owes(&mut self, units: u64, at: u64) {
        self.owed = self.owed.saturating_add(units).min(self.limit.most_owed());
        self.debt = at;
    }

    /// The store granted this until `until`. Absurd units are cut to the limit, and a grant lasts at most a minute.
    pub fn granted(&mut self, cell: &Cell, grant: Grant, until: Timestamp, now: Timestamp) {
        let at = now.as_nanos();
        let units = grant.units.min(self.limit.units).min(i32::MAX as u64);
        self.owed = 0;
        // What went while the answer was under way, and before the first one.
        let even = match self.born.take().filter(|_| !cell.was_leased()) {
            Some(born) => 0_i64.saturating_sub_unsigned(cell.units_begun().saturating_sub(born)),
            None => cell.settle_lease(at),
        };
        if std::mem::take(&mut self.failures) == 0 && even < 0 {
            self.owes(even.unsigned_abs(), at);
        }
        self.spilled = Some(grant.spilled);
        self.batch = units;
        self.shares_with(cell, grant.hosts);
        cell.extend(units as u32, until.as_nanos().min(at.saturating_add(60 * SECOND)), at);
    }

    /// So many hosts share the limit, as far as anybody knows before the store was asked about this quota. What goes from
    /// here to its first answer is owed.
    pub fn expects(&mut self, cell: &Cell, hosts: u32) {
        self.born = Some(cell.units_begun());
        self.shares_with(cell, hosts);
    }

    /// So many hosts share the limit, as far as anybody knows who cannot ask the store about this quota.
    pub fn shares_with(&mut self, cell: &Cell, hosts: u32) {
        self.hosts = hosts.clamp(1, 100_000);
        cell.set_share((1_000_000 / self.hosts).max(1));
    }

    /// The store did not answer, or with nonsense. The grant in force runs out; then this host's share holds.
    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.batch = 0;
        // What others used by right meanwhile ran over in the store, and pays for nothing.
        self.spilled = None;
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

#[cfg(test)]
mod tests;
