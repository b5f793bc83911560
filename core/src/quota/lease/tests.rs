use super::*;
use crate::quota::{Ask, Claim, OnError, Rule, Shared, Unit, Verdict, Why};
use std::collections::HashSet;
use std::ops::Range;

const T0: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

fn rule(limit: u64) -> Rule {
    let limited = Rule::limit(limit, Unit::Requests, Duration::from_secs(1));
    Rule { shared: Shared::Fleet, max_wait: Duration::ZERO, ..limited }
}

fn went(cell: &Cell, rule: &Rule, now: Timestamp) -> bool {
    cell.before(rule, &mut Claim::new(), &Ask::one(), now) == Verdict::Pass
}

fn grant(units: u64, hosts: u32) -> Grant {
    Grant { units, hosts, spilled: 0 }
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
                    lease.granted(cell, grant(units, calls.len() as u32), until, now);
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
#[derive(Default)]
struct Bucket {
    level: f64,
    spilled: f64,
    milli: u64,
    debts: HashSet<u64>,
}

impl Bucket {
    fn grant(&mut self, wanted: Wanted, milli: u64) -> Grant {
        let refilled = (milli - std::mem::replace(&mut self.milli, milli)) as f64;
        self.level += refilled + wanted.returned as f64;
        self.spilled += (self.level - 100.0).max(0.0);
        let mut owed = wanted.owed as f64;
        if owed > 0.0 && !self.debts.insert(wanted.debt) {
            owed = 0.0;
        }
        let paid = owed.min(wanted.spilled.map_or(0.0, |seen| (self.spilled - seen as f64).max(0.0)));
        self.spilled -= paid;
        self.level = self.level.min(100.0) - (owed - paid);
        let units = wanted.units.min(self.level.max(0.0) as u64);
        self.level -= units as f64;
        Grant { units, hosts: 2, spilled: self.spilled as u64 }
    }
}

/// What befalls one of two hosts that share 1,000 units a second, in milliseconds.
#[derive(Clone, Default)]
struct Fate {
    /// It has no time to ask.
    silent: Range<u64>,
    /// It has none to call either, or no need.
    idle: Range<u64>,
    /// The store hears it, and its answers are lost.
    unanswered: Range<u64>,
    /// The store does not hear it.
    unheard: Range<u64>,
}

/// What went in each millisecond of a minute, of both hosts together.
fn two_hosts(fates: [Fate; 2]) -> Vec<u64> {
    let rule = rule(1_000);
    let mut hosts = [(); 2].map(|()| (Cell::new(), Lease::new(rule.limit.unwrap())));
    let (mut bucket, mut got) = (Bucket::default(), vec![0; 60_000]);
    for milli in 0..60_000 {
        let now = T0.plus_millis(milli);
        for (index, ((cell, lease), fate)) in hosts.iter_mut().zip(&fates).enumerate() {
            if (milli + 50 * index as u64).is_multiple_of(100) && !fate.silent.contains(&milli) {
                let wanted = lease.wanted(cell, now);
                let heard = (!fate.unheard.contains(&milli)).then(|| bucket.grant(wanted, milli));
                match heard.filter(|_| !fate.unanswered.contains(&milli)) {
                    Some(grant) => lease.granted(cell, grant, now.plus(wanted.hold), now),
                    None => lease.failed(),
                }
            }
            if !fate.idle.contains(&milli) {
                got[milli as usize] += (0..4).filter(|_| went(cell, &rule, now)).count() as u64;
            }
        }
    }
    got
}

fn sum(fates: [Fate; 2]) -> u64 {
    two_hosts(fates).iter().sum()
}

fn undisturbed() -> u64 {
    sum([Fate::default(), Fate::default()])
}

#[test]
fn a_host_that_had_no_time_to_ask_pays_for_what_went_meanwhile() {
    let undisturbed = undisturbed();
    // A grant holds for 0.3 s and is waited for another 0.2 s; then the host goes on with its 500 a second.
    for silent in [4_000..4_300, 4_000..4_800, 4_000..5_500, 4_000..14_000, 4_000..28_000] {
        let sum = sum([Fate { silent: silent.clone(), ..Fate::default() }, Fate::default()]);
        assert!(sum.abs_diff(undisturbed) <= 110, "{silent:?}: {sum} instead of {undisturbed}");
    }
}

#[test]
fn a_debt_is_told_until_the_store_answers_and_counts_once() {
    let undisturbed = undisturbed();
    let silent = 4_000..6_000;
    for unanswered in [6_000..6_001, 6_000..6_300] {
        for heard in [false, true] {
            let lost = Fate { silent: silent.clone(), ..Fate::default() };
            let lost = match heard {
                true => Fate { unanswered: unanswered.clone(), ..lost },
                false => Fate { unheard: unanswered.clone(), ..lost },
            };
            // While it gets no answer, its share is its right.
            let right = (unanswered.end - unanswered.start) / 2 + 50;
            let sum = sum([lost, Fate::default()]);
            assert!(sum <= undisturbed + right + 110, "{unanswered:?}: {sum} instead of {undisturbed}");
            assert!(sum + 110 >= undisturbed, "{unanswered:?}: {sum} instead of {undisturbed}");
        }
    }
}

#[test]
fn what_nobody_took_meanwhile_pays_for_a_debt() {
    let still = |silent: Range<u64>| Fate { silent, ..Fate::default() };
    let never = Fate { idle: 0..60_000, ..Fate::default() };
    let alone = sum([Fate::default(), never.clone()]);
    // The other one is there and wants nothing.
    let sum_alone = sum([still(4_000..14_000), never]);
    // Beside its share, which is half of the limit, the ten seconds hold what the grant and the burst left.
    let lost = alone - sum_alone;
    assert!((4_900..=5_400).contains(&lost), "{sum_alone} instead of {alone}");
    // Both stand still, and neither took what was the other's.
    let both = sum([still(4_000..14_000), still(4_000..14_000)]);
    let undisturbed = undisturbed();
    assert!(both <= undisturbed + 110 && both + 600 >= undisturbed, "{both} instead of {undisturbed}");
}

#[test]
fn a_debt_is_paid_before_anything_else_is_granted() {
    let got = two_hosts([Fate { silent: 4_000..8_000, ..Fate::default() }, Fate::default()]);
    let of = |range: Range<usize>| got[range].iter().sum::<u64>();
    // 3.5 s at 500 beside what the other one had, and that much less until it is even.
    let (over, after) = (of(4_000..8_000), of(8_000..12_000));
    assert!((5_500..=6_000).contains(&over) && over + after <= 8_150, "{over}, {after}");
    assert!((3_900..=4_040).contains(&of(12_000..16_000)), "{}", of(12_000..16_000));
}

#[test]
fn what_goes_before_the_stores_first_answer_is_owed_unless_it_was_away() {
    let rule = rule(100);
    let goes =
        |cell: &Cell| (0..500).filter(|milli| went(cell, &rule, T0.plus_millis(*milli))).count() as u64;
    for away in [false, true] {
        let cell = Cell::new();
        assert!(went(&cell, &rule, T0), "before it was the fleet's");
        let mut lease = Lease::new(rule.limit.unwrap());
        lease.expects(&cell, 2);
        let passed = goes(&cell);
        assert!(passed > 20);
        assert_eq!(lease.wanted(&cell, T0.plus_millis(500)).owed, 0);
        if away {
            lease.failed();
        }
        lease.granted(&cell, grant(5, 2), T0.plus_millis(800), T0.plus_millis(501));
        let owed = lease.wanted(&cell, T0.plus_millis(600)).owed;
        assert_eq!(owed, if away { 0 } else { passed });
    }
}

#[test]
fn no_number_is_owed_that_would_stop_a_fleet_for_longer_than_half_a_minute() {
    let (cell, rule) = (Cell::new(), rule(100));
    let mut lease = Lease::new(rule.limit.unwrap());
    lease.granted(&cell, grant(5, 1), T0.plus_millis(300), T0);
    assert!(went(&cell, &rule, T0));
    cell.owe(1_000_000_000);
    assert_eq!(lease.wanted(&cell, T0.plus_millis(1_000)).owed, 3_000);
    let hourly = Limit { units: 100, period: Duration::from_secs(3_600), ..rule.limit.unwrap() };
    lease.change(hourly);
    assert_eq!(lease.wanted(&cell, T0.plus_millis(1_100)).owed, 100);
}

#[test]
fn what_went_under_another_rule_or_long_ago_is_nobodys_debt() {
    let rule = rule(100);
    let alone = Rule { shared: Shared::Host, ..rule.clone() };
    let cell = Cell::new();
    let went = |rule: &Rule, from: u64, to: u64| {
        (from..to).filter(|milli| went(&cell, rule, T0.plus_millis(*milli))).count()
    };
    let mut lease = Lease::new(rule.limit.unwrap());
    let _ = lease.wanted(&cell, T0);
    lease.granted(&cell, grant(5, 1), T0.plus_millis(300), T0);
    // A reload makes it the host's, and another one the fleet's again, also before the lease has run out.
    for (from, to) in [(0, 200), (200, 2_000), (2_000, 40_000)] {
        assert!(went(&alone, from, to) > 5);
        lease = Lease::anew(rule.limit.unwrap());
        let wanted = lease.wanted(&cell, T0.plus_millis(to));
        assert_eq!(wanted.owed, 0, "{to}");
        assert!(cell.leased(T0.plus_millis(to).as_nanos(), 0).is_none_or(|(units, _)| units >= 0), "{to}");
    }
    // A process that starts finds what others left; of a while ago only.
    lease.granted(&cell, grant(5, 1), T0.plus_millis(40_300), T0.plus_millis(40_000));
    assert!(went(&alone, 40_000, 42_000) > 5);
    let late = |milli| Lease::new(rule.limit.unwrap()).wanted(&cell, T0.plus_millis(milli)).owed;
    assert_eq!(late(101_000), 0);
    lease.granted(&cell, grant(5, 1), T0.plus_millis(101_300), T0.plus_millis(101_000));
    assert!(went(&alone, 101_000, 103_000) > 5);
    assert!(late(103_000) > 0);
}

#[test]
fn what_one_process_could_not_tell_its_host_pays_once_another_one_gets_grants() {
    let (cell, rule) = (Cell::new(), rule(1_000));
    let limit = rule.limit.unwrap();
    let (mut deaf, mut other) = (Lease::new(limit), Lease::new(limit));
    let _wanted = deaf.wanted(&cell, T0);
    other.stands_by(&cell, T0);
    deaf.granted(&cell, grant(5, 1), T0.plus_millis(300), T0);
    let passed = (0..1_000).filter(|milli| went(&cell, &rule, T0.plus_millis(*milli))).count() as u64;
    let owed = deaf.wanted(&cell, T0.plus_millis(1_000)).owed;
    assert_eq!(owed, passed - 5);
    deaf.failed();
    // What goes while nobody can ask is the host's right.
    let right = (1_000..2_000).filter(|milli| went(&cell, &rule, T0.plus_millis(*milli))).count();
    assert!(right > 0);
    deaf.stands_by(&cell, T0.plus_millis(2_000));
    let wanted = other.wanted(&cell, T0.plus_millis(2_001));
    assert_eq!(wanted.owed, 0);
    other.granted(&cell, grant(10, 1), T0.plus_millis(2_300), T0.plus_millis(2_001));
    deaf.stands_by(&cell, T0.plus_millis(2_002));
    let left = cell.leased(T0.plus_millis(2_002).as_nanos(), 0).unwrap().0;
    assert_eq!(left, 10 - owed as i64);
    deaf.stands_by(&cell, T0.plus_millis(2_003));
    assert_eq!(cell.leased(T0.plus_millis(2_003).as_nanos(), 0).unwrap().0, left, "once");
}

#[test]
fn what_a_grant_had_left_when_it_ran_out_goes_back() {
    let undisturbed = undisturbed();
    // The bucket is empty before and after, so a unit that is lost is one that nobody uses.
    let away = Fate { silent: 4_001..4_600, idle: 4_001..4_600, ..Fate::default() };
    let sum = sum([away, Fate::default()]);
    assert!(sum + 20 >= undisturbed, "{sum} instead of {undisturbed}");
}

#[test]
fn a_host_whose_store_was_away_owes_nothing() {
    let (cell, rule) = (Cell::new(), rule(100));
    let mut lease = Lease::new(rule.limit.unwrap());
    lease.granted(&cell, grant(5, 2), T0.plus_millis(300), T0);
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
            lease.granted(&cell, grant(units, 1), now.plus(wanted.hold), now);
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
    lease.granted(&cell, grant(u64::MAX, 0), Timestamp::from_nanos(u64::MAX), T0);
    let passed = (0..1_000).filter(|_| went(&cell, &rule, T0)).count();
    assert_eq!(passed, 100);
    let verdict = cell.before(&rule, &mut Claim::new(), &Ask::one(), T0);
    assert!(matches!(verdict, Verdict::Refuse { why: Why::Lease, .. }), "{verdict:?}");
    let patient = Rule { max_wait: Duration::from_secs(1), ..rule.clone() };
    let mut claim = Claim::new();
    let verdict = cell.before(&patient, &mut claim, &Ask::one(), T0);
    let Verdict::Wait { until, why: Why::Lease } = verdict else { panic!("{verdict:?}") };
    assert!(until <= T0.plus_millis(100));
    lease.granted(&cell, grant(5, 1), T0.plus_millis(2_000), until);
    assert_eq!(cell.before(&patient, &mut claim, &Ask::one(), until), Verdict::Pass);
    // A grant that is over already grants nothing.
    let late = T0.plus_millis(120_000);
    lease.granted(&cell, grant(50, 2), T0, late);
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

    lease.granted(&cell, grant(5, 1), T0.plus_millis(1_300), T0.plus_millis(1_000));
    assert_eq!((0..100).filter(|_| went(&cell, &rule, T0.plus_millis(1_010))).count(), 5);
    // No more came: nobody waits for what may be gone for long.
    let late = T0.plus_millis(10_000);
    lease.failed();
    let verdict = cell.before(&rule, &mut Claim::new(), &Ask::one(), late);
    assert_eq!(verdict, Verdict::Refuse { until: late.plus_millis(1_000), why: Why::Unshared });
    lease.granted(&cell, grant(5, 1), late.plus_millis(300), late);
    assert!(went(&cell, &rule, late));
}
