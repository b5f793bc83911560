//! A fleet's quota: how much to ask of the shared store, and when.
//!
//! Calls never wait for the network: they use what was granted before they came. Somebody beside them (the agent)
//! asks a [`Lease`] a few times a second what to fetch, and tells it what came. When nothing comes any more, the
//! grant runs out and the cell goes on with this host's share of the limit; when the store is back, grants take
//! over again. Nothing of this waits.
//!
//! A host that had no time to ask goes on with its share as well, while the others were granted the whole limit. The
//! store hears of what went that way with the next question, and takes it out of what it grants.

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
    /// When the cell was seen last, and its count then.
    observed: Option<(u64, u64)>,
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
    /// Units that went without a grant, because nobody asked for one in time.
    pub owed: u64,
    /// For how long the grant should hold.
    pub hold: Duration,
}

impl Lease {
    /// Nothing granted yet: the cell goes on with the whole limit, until the store says how many share it.
    #[must_use]
    pub const fn new(limit: Limit) -> Self {
        Self { limit, demand: 0, observed: None, batch: 0, hosts: 1, failures: 0 }
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

    /// Sees how much goes, so that whoever asks next knows it; for those who do not ask, because another process of
    /// the host does.
    pub fn observe(&mut self, cell: &Cell, now: Timestamp) {
        let (at, begun) = (now.as_nanos(), cell.units_begun());
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
        self.observe(cell, now);
        let even = cell.settle_lease(at);
        let left = cell.leased(at, 0).map_or(0, |(units, _)| units.max(0) as u64);
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
        let owed = if self.failures == 0 { even.min(0).unsigned_abs() } else { 0 };
        let unused = even.max(0).unsigned_abs();
        Wanted {
            units: target.saturating_sub(left),
            returned: u64::from(returned).saturating_add(unused).min(self.limit.units),
            owed: owed.min(self.limit.units),
            hold: self.hold(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Ask, Claim, OnError, Rule, Shared, Unit, Verdict, Why};

    const T0: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

    fn rule(limit: u64) -> Rule {
        let limited = Rule::limit(limit, Unit::Requests, Duration::from_secs(1));
        Rule { shared: Shared::Fleet, max_wait: Duration::ZERO, ..limited }
    }

    fn went(cell: &Cell, rule: &Rule, now: Timestamp) -> bool {
        cell.before(rule, &mut Claim::new(), &Ask::one(), now) == Verdict::Pass
    }

    /// A store that grants a limit by the second, to whoever asks first.
    struct Store {
        limit: u64,
        second: u64,
        granted: u64,
    }

    impl Store {
        fn grant(&mut self, wanted: Wanted, now: Timestamp) -> (u64, Timestamp) {
            let second = now.as_secs();
            if second != self.second {
                (self.second, self.granted) = (second, 0);
            }
            self.granted -= wanted.returned.min(self.granted);
            let units = wanted.units.min(self.limit - self.granted);
            self.granted += units;
            (units, Timestamp::from_nanos((second + 1) * SECOND).min(now.plus(wanted.hold)))
        }
    }

    /// Hosts with so many calls per millisecond each; gives what each got in each second.
    fn fleet(limit: u64, calls: &[u64], seconds: u64, dead: std::ops::Range<u64>) -> Vec<Vec<u64>> {
        let rule = rule(limit);
        let mut store = Store { limit, second: 0, granted: 0 };
        let mut hosts: Vec<(Cell, Lease)> =
            calls.iter().map(|_| (Cell::new(), Lease::new(rule.limit.unwrap()))).collect();
        let mut got = vec![vec![0; seconds as usize]; calls.len()];
        for milli in 0..seconds * 1_000 {
            let (now, second) = (T0.plus_millis(milli), milli / 1_000);
            for (index, (cell, lease)) in hosts.iter_mut().enumerate() {
                if milli % lease.interval().as_millis() as u64 == 0 {
                    let wanted = lease.wanted(cell, now);
                    if dead.contains(&second) {
                        lease.failed();
                    } else {
                        let (units, until) = store.grant(wanted, now);
                        lease.granted(cell, units, until, calls.len() as u32, now);
                    }
                }
                for _ in 0..calls[index] {
                    got[index][second as usize] += u64::from(went(cell, &rule, now));
                }
            }
        }
        got
    }

    #[test]
    fn leases_follow_demand_and_keep_to_the_limit() {
        let got = fleet(1_000, &[4, 0, 1], 8, 0..0);
        for second in 1..8 {
            let sum: u64 = got.iter().map(|host| host[second]).sum();
            assert!((970..=1_010).contains(&sum), "{got:?}");
        }
        assert!(got[0][7] > 400, "{got:?}");
        assert_eq!(got[1][7], 0);
    }

    #[test]
    fn without_the_store_each_host_keeps_to_its_share_and_recovers() {
        let got = fleet(1_000, &[4, 4], 12, 4..8);
        for second in 5..8 {
            for host in &got {
                assert!((480..=520).contains(&host[second]), "{got:?}");
            }
        }
        for second in 9..12 {
            let sum: u64 = got.iter().map(|host| host[second]).sum();
            assert!((970..=1_020).contains(&sum), "{got:?}");
        }
    }

    /// A token bucket of 1,000 units a second that keeps a tenth of them, as the fleet's store does.
    struct Bucket {
        level: f64,
        milli: u64,
    }

    impl Bucket {
        fn grant(&mut self, wanted: Wanted, milli: u64) -> u64 {
            let refilled = (milli - std::mem::replace(&mut self.milli, milli)) as f64;
            self.level = (self.level + refilled + wanted.returned as f64).min(100.0) - wanted.owed as f64;
            let units = wanted.units.min(self.level.max(0.0) as u64);
            self.level -= units as f64;
            units
        }
    }

    /// What each of two hosts got in ten seconds of a limit of 1,000, where the first has no time to ask in `silent`
    /// milliseconds, and none to call in `busy` ones.
    fn two_hosts(silent: std::ops::Range<u64>, busy: std::ops::Range<u64>) -> [u64; 2] {
        let rule = rule(1_000);
        let mut hosts = [(); 2].map(|()| (Cell::new(), Lease::new(rule.limit.unwrap())));
        let (mut bucket, mut got) = (Bucket { level: 0.0, milli: 0 }, [0; 2]);
        for milli in 0..10_000 {
            let now = T0.plus_millis(milli);
            for (index, (cell, lease)) in hosts.iter_mut().enumerate() {
                if (milli + 50 * index as u64).is_multiple_of(100) && (index == 1 || !silent.contains(&milli))
                {
                    let wanted = lease.wanted(cell, now);
                    let units = bucket.grant(wanted, milli);
                    lease.granted(cell, units, now.plus(wanted.hold), 2, now);
                }
                if index == 1 || !busy.contains(&milli) {
                    got[index] += (0..4).filter(|_| went(cell, &rule, now)).count() as u64;
                }
            }
        }
        got
    }

    #[test]
    fn a_host_that_had_no_time_to_ask_pays_for_what_went_meanwhile() {
        let undisturbed: u64 = two_hosts(0..0, 0..0).iter().sum();
        // A grant holds for 0.3 s and is waited for another 0.2 s; then the host goes on with its 500 a second.
        for silent in [4_000..4_300, 4_000..4_800, 4_000..5_500] {
            let sum: u64 = two_hosts(silent.clone(), 0..0).iter().sum();
            assert!(sum.abs_diff(undisturbed) <= 110, "{silent:?}: {sum} instead of {undisturbed}");
        }
    }

    #[test]
    fn what_a_grant_had_left_when_it_ran_out_goes_back() {
        let undisturbed: u64 = two_hosts(0..0, 0..0).iter().sum();
        // The bucket is empty before and after, so a unit that is lost is one that nobody uses.
        let sum: u64 = two_hosts(4_001..4_600, 4_001..4_600).iter().sum();
        assert!(sum + 20 >= undisturbed, "{sum} instead of {undisturbed}");
    }

    #[test]
    fn a_host_whose_store_was_away_owes_nothing() {
        let (cell, rule) = (Cell::new(), rule(100));
        let mut lease = Lease::new(rule.limit.unwrap());
        lease.granted(&cell, 5, T0.plus_millis(300), 2, T0);
        let late = T0.plus_millis(2_000);
        assert!(went(&cell, &rule, late));
        lease.failed();
        assert_eq!(lease.wanted(&cell, late).owed, 0);
    }

    #[test]
    fn before_the_store_ever_answered_the_limit_holds() {
        let (cell, rule) = (Cell::new(), rule(100));
        let passed = (0..1_000).filter(|milli| went(&cell, &rule, T0.plus_millis(*milli))).count();
        assert!((100..=101).contains(&passed), "{passed}");
    }

    #[test]
    fn calls_of_many_units_go_after_an_idle_time_and_keep_to_the_limit_in_a_crowd() {
        let rule = Rule {
            shared: Shared::Fleet,
            max_wait: Duration::ZERO,
            ..Rule::limit(150_000, Unit::Tokens, Duration::from_secs(60))
        };
        let (cell, mut lease) = (Cell::new(), Lease::new(rule.limit.unwrap()));
        // A bucket that refills by 2,500 a second, which the store asks once in that time.
        let mut level = 0;
        let (mut few, mut many) = (0, 0);
        for milli in 0..720_000u64 {
            let (now, minute) = (T0.plus_millis(milli), milli / 60_000);
            if milli % lease.interval().as_millis() as u64 == 0 {
                let wanted = lease.wanted(&cell, now);
                level = (level + 2_500 + wanted.returned).min(2_500);
                let units = wanted.units.min(level);
                level -= units;
                lease.granted(&cell, units, now.plus(wanted.hold), 1, now);
            }
            let ask = Ask::one().units(1_000);
            let went = || cell.before(&rule, &mut Claim::new(), &ask, now) == Verdict::Pass;
            match minute {
                // Nobody calls; then one a second does, and then all that can.
                0 => {}
                1 => few += u64::from(milli % 1_000 == 500 && went()),
                _ => many += u64::from(milli % 10 == 0 && went()),
            }
        }
        assert!((59..=60).contains(&few), "{few} of 60");
        assert!((1_450..=1_510).contains(&many), "{many} in ten minutes of 150 each");
    }

    #[test]
    fn absurd_grants_are_cut_and_calls_never_wait_beyond_their_time() {
        let (cell, rule) = (Cell::new(), rule(100));
        let mut lease = Lease::new(rule.limit.unwrap());
        lease.granted(&cell, u64::MAX, Timestamp::from_nanos(u64::MAX), 0, T0);
        let passed = (0..1_000).filter(|_| went(&cell, &rule, T0)).count();
        assert_eq!(passed, 100);
        let verdict = cell.before(&rule, &mut Claim::new(), &Ask::one(), T0);
        assert!(matches!(verdict, Verdict::Refuse { why: Why::Lease, .. }), "{verdict:?}");
        let patient = Rule { max_wait: Duration::from_secs(1), ..rule.clone() };
        let mut claim = Claim::new();
        let verdict = cell.before(&patient, &mut claim, &Ask::one(), T0);
        let Verdict::Wait { until, why: Why::Lease } = verdict else { panic!("{verdict:?}") };
        assert!(until <= T0.plus_millis(100));
        lease.granted(&cell, 5, T0.plus_millis(2_000), 1, until);
        assert_eq!(cell.before(&patient, &mut claim, &Ask::one(), until), Verdict::Pass);
        // A grant that is over already grants nothing.
        let late = T0.plus_millis(120_000);
        lease.granted(&cell, 50, T0, 2, late);
        let passed = (0..100).filter(|_| went(&cell, &rule, late)).count();
        assert_eq!(passed, 1, "the local share of 50 a second");
    }

    #[test]
    fn a_rule_that_refuses_on_errors_lets_nothing_go_that_was_not_granted() {
        let cell = Cell::new();
        let rule = Rule { on_error: OnError::Refuse, max_wait: Duration::from_secs(1), ..rule(100) };
        let mut lease = Lease::new(rule.limit.unwrap());
        // The store was not asked yet: its first answer is waited for, and no longer than that.
        let mut claim = Claim::new();
        let verdict = cell.before(&rule, &mut claim, &Ask::one(), T0);
        let Verdict::Wait { until, why: Why::Unshared } = verdict else { panic!("{verdict:?}") };
        assert!(until <= T0.plus_millis(100), "{until:?}");
        let verdict = cell.before(&rule, &mut claim, &Ask::one(), T0.plus_millis(1_000));
        assert!(matches!(verdict, Verdict::Refuse { why: Why::Unshared, .. }), "{verdict:?}");

        lease.granted(&cell, 5, T0.plus_millis(1_300), 1, T0.plus_millis(1_000));
        assert_eq!((0..100).filter(|_| went(&cell, &rule, T0.plus_millis(1_010))).count(), 5);
        // No more came: nobody waits for what may be gone for long.
        let late = T0.plus_millis(10_000);
        lease.failed();
        let verdict = cell.before(&rule, &mut Claim::new(), &Ask::one(), late);
        assert_eq!(verdict, Verdict::Refuse { until: late.plus_millis(1_000), why: Why::Unshared });
        lease.granted(&cell, 5, late.plus_millis(300), 1, late);
        assert!(went(&cell, &rule, late));
    }
}
