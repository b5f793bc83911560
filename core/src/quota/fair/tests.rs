//! Simulations with a virtual clock: scripted customers on one quota.

use super::super::*;
use crate::units::Timestamp;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const T0: u64 = 1_700_000_000_000_000_000;

/// A customer that asks `rate` times a second from `from` on, in seconds.
#[derive(Clone, Copy, Debug)]
struct Asker {
    rate: f64,
    weight: u32,
    priority: Priority,
    from: f64,
}

impl Asker {
    const fn new(rate: f64) -> Self {
        Self { rate, weight: 1_000, priority: Priority::Interactive, from: 0.0 }
    }
}

#[derive(Debug, Default, Clone, PartialEq)]
struct Served {
    asked: u64,
    went: u64,
    /// Of those, after three seconds.
    late: u64,
    waited: f64,
}

/// The vendor of a simulation: none, or one that counts in windows and says so in every answer.
#[derive(Clone, Copy, Debug)]
struct Vendor {
    limit: u64,
    window: f64,
}

/// Who asks: for the first time, or again with its claim, and when it asked first.
type Event = (usize, Option<(Claim, u64)>);

/// Lets the askers ask for so long; gives what each got, and how many calls the vendor refused.
fn run(rule: &Rule, vendor: Option<Vendor>, askers: &[Asker], seconds: f64, seed: u64) -> (Vec<Served>, u64) {
    let quota = State::new(rule);
    let mut random = seed | 1;
    let mut uniform = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((random >> 11) as f64 / (1u64 << 53) as f64).max(1e-12)
    };
    let nanos = |seconds: f64| T0 + (seconds * 1e9) as u64;
    // (time, order) -> what happens then.
    let mut events: BTreeMap<(u64, u64), Event> = BTreeMap::new();
    let mut order = 0;
    for (index, asker) in askers.iter().enumerate() {
        order += 1;
        events.insert((nanos(asker.from - uniform().ln() / asker.rate), order), (index, None));
    }
    let mut served = vec![Served::default(); askers.len()];
    let (mut counted, mut refused) = (BTreeMap::<u64, u64>::new(), 0);
    let mut answers: Vec<(u64, Claim, Stated)> = Vec::new();
    while let Some(((now, _), (index, waiting))) = events.pop_first() {
        if now > nanos(seconds) {
            break;
        }
        let moment = Timestamp::from_nanos(now);
        for (_, claim, stated) in answers.extract_if(.., |(at, ..)| *at <= now) {
            quota.state(rule, &claim, &stated, moment);
        }
        let asker = askers[index];
        let (mut claim, asked) = waiting.unwrap_or_else(|| {
            order += 1;
            events.insert((now + (-uniform().ln() / asker.rate * 1e9) as u64, order), (index, None));
            served[index].asked += 1;
            (Claim::new(), now)
        });
        let ask = Ask::one().priority(asker.priority).customer(index as u64, Weight(asker.weight));
        let user = User { customer: index as u32, ..User::default() };
        match quota.before(rule, &mut claim, &ask, &user, moment) {
            Verdict::Wait { until, .. } => {
                assert!(until.as_nanos() <= asked + rule.max_wait.as_nanos() as u64);
                order += 1;
                events.insert((until.as_nanos(), order), (index, Some((claim, asked))));
            }
            Verdict::Refuse { .. } => {}
            Verdict::Pass => {
                served[index].went += 1;
                served[index].late += u64::from(now > nanos(3.0));
                served[index].waited += (now - asked) as f64 / 1e9;
                if let Some(vendor) = vendor {
                    let length = (vendor.window * 1e9) as u64;
                    let window = (now - T0) / length;
                    let used = counted.entry(window).or_default();
                    *used += 1;
                    refused += u64::from(*used > vendor.limit && window > 0);
                    let stated = Stated {
                        limit: Some(vendor.limit),
                        remaining: Some(vendor.limit.saturating_sub(*used)),
                        resets_at: Some(Timestamp::from_nanos(T0 + (window + 1) * length)),
                        window: Some(Duration::from_nanos(length)),
                    };
                    answers.push((now + 40_000_000, claim, stated));
                }
                quota.end(&mut claim);
            }
        }
    }
    (served, refused)
}

fn fair(limit: u64) -> Rule {
    Rule { fair: true, ..Rule::limit(limit, Unit::Requests, Duration::from_secs(1)) }
}

fn went(served: &[Served]) -> u64 {
    served.iter().map(|served| served.went).sum()
}

fn with_aggressor(others: usize, load: f64, limit: u64) -> (Vec<Asker>, Vec<Asker>) {
    let share = limit as f64 / (others + 1) as f64;
    let alone = vec![Asker::new(share * load); others];
    let mut all = alone.clone();
    all.push(Asker { from: 2.0, ..Asker::new(share * 100.0) });
    (alone, all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn one_customer_at_a_hundred_times_its_share_costs_the_others_at_most_five_percent(
        others in 3usize..12,
        load in 0.3f64..0.97,
        limit in 100u64..300,
        seed in any::<u64>(),
    ) {
        let (alone, all) = with_aggressor(others, load, limit);
        let rule = fair(limit);
        let (before, _) = run(&rule, None, &alone, 20.0, seed);
        let (after, _) = run(&rule, None, &all, 20.0, seed);
        for (index, after) in after[..others].iter().enumerate() {
            // To one call.
            let kept = (after.went + 1) as f64 / after.asked as f64;
            let kept_before = before[index].went as f64 / before[index].asked as f64;
            prop_assert!(kept >= 0.95 * kept_before, "customer {index}: {kept} after {kept_before}");
            prop_assert!(after.waited / (after.went as f64) < 1.0, "{after:?}");
        }
        // What the others leave is used.
        let used = after.iter().map(|served| served.late).sum::<u64>() as f64 / (limit as f64 * 17.0);
        prop_assert!((0.97..1.01).contains(&used), "{used}");
    }

    #[test]
    fn that_holds_for_a_vendors_window_too(
        others in 3usize..8,
        load in 0.3f64..0.9,
        pace in prop_oneof![Just(Pace::Off), Just(Pace::Smooth)],
        seed in any::<u64>(),
    ) {
        let vendor = Vendor { limit: 1_200, window: 10.0 };
        let (alone, all) = with_aggressor(others, load, 120);
        let rule = Rule { fair: true, pace, ..Rule::default() };
        let (before, _) = run(&rule, Some(vendor), &alone, 40.0, seed);
        let (after, refused) = run(&rule, Some(vendor), &all, 40.0, seed);
        for (index, after) in after[..others].iter().enumerate() {
            let kept = after.went as f64 / after.asked as f64;
            let kept_before = before[index].went as f64 / before[index].asked as f64;
            prop_assert!(kept >= 0.95 * kept_before, "customer {index}: {kept} after {kept_before} {after:?}");
        }
        prop_assert!(refused <= 1_200 * 3 / 100, "{refused} refused by the vendor");
    }
}

#[test]
fn weights_share_a_scarce_quota_in_proportion() {
    let askers = [Asker { weight: 3_000, ..Asker::new(500.0) }, Asker::new(500.0)];
    let (served, _) = run(&fair(100), None, &askers, 20.0, 7);
    let ratio = served[0].went as f64 / served[1].went as f64;
    assert!((2.6..=3.4).contains(&ratio), "{ratio} {served:?}");
    assert!(went(&served) >= 1_940, "{served:?}");
}

#[test]
fn what_others_leave_is_borrowed() {
    let (served, _) = run(&fair(100), None, &[Asker::new(5.0), Asker::new(1_000.0)], 20.0, 3);
    assert!(went(&served) >= 1_900, "{served:?}");
    assert!(served[0].went * 100 >= served[0].asked * 97, "{served:?}");
}

#[test]
fn interactive_calls_come_first_and_batches_do_not_starve() {
    let batch = Asker { priority: Priority::Batch, ..Asker::new(1_000.0) };
    let (served, _) = run(&fair(100), None, &[Asker::new(60.0), batch], 20.0, 5);
    assert!(served[0].went * 100 >= served[0].asked * 95, "{served:?}");
    assert!(served[1].went >= 500, "{served:?}");
    let (served, _) = run(&fair(100), None, &[Asker::new(500.0), batch], 20.0, 5);
    assert!(served[1].went >= 60, "{served:?}");
    assert!(served[0].went >= 1_700, "{served:?}");
}

#[test]
fn thousands_of_customers_beyond_those_told_apart_still_get_through() {
    let mut askers = vec![Asker::new(0.5); 3_000];
    askers.push(Asker::new(5_000.0));
    let (served, _) = run(&fair(2_000), None, &askers, 5.0, 11);
    let (asked, got) =
        served[..3_000].iter().fold((0, 0), |(asked, got), served| (asked + served.asked, got + served.went));
    assert!(got * 100 >= asked * 60, "{got} of {asked}");
}

#[test]
fn a_quota_that_is_not_scarce_pays_nothing_for_fairness() {
    let (served, _) = run(&fair(1_000), None, &[Asker::new(20.0), Asker::new(200.0)], 10.0, 1);
    for served in served {
        assert_eq!(served.went, served.asked);
        assert!(served.waited / (served.went as f64) < 0.002, "{served:?}");
    }
}

#[test]
fn the_same_inputs_give_the_same_verdicts() {
    let askers = [Asker::new(50.0), Asker::new(900.0), Asker::new(3.0)];
    assert_eq!(run(&fair(100), None, &askers, 5.0, 9), run(&fair(100), None, &askers, 5.0, 9));
}

/// One program without concurrency, as a loop in a script is: it asks again as soon as it was served.
#[test]
fn who_is_alone_gets_the_whole_rate_from_the_first_call_on() {
    let limit = Rule::limit(20, Unit::Requests, Duration::from_secs(1));
    for (burst, max_wait) in [(5, 200), (1, 150), (20, 1_000)] {
        let rule = Rule {
            fair: true,
            burst: Some(burst),
            max_wait: Duration::from_millis(max_wait),
            ..limit.clone()
        };
        let quota = State::new(&rule);
        let ask = Ask::one().customer(7, Weight::default());
        let (mut now, mut went) = (T0, 0);
        while now < T0 + 2_000_000_000 {
            let mut claim = Claim::new();
            loop {
                let at = Timestamp::from_nanos(now);
                match quota.before(&rule, &mut claim, &ask, &User::default(), at) {
                    Verdict::Pass => break,
                    Verdict::Wait { until, .. } => now = until.as_nanos(),
                    refused => panic!("after {went} calls: {refused:?}"),
                }
            }
            went += 1;
            now += 1_000_000;
        }
        assert!((37..=42 + burst).contains(&went), "burst {burst}: {went} calls in two seconds");
    }
}

/// Lets customers ask in turns, a millisecond apart, and counts the calls that go at once.
fn at_once(quota: &State, rule: &Rule, calls: &[usize]) -> Vec<usize> {
    let (mut now, mut went) = (T0, vec![0; calls.len()]);
    for turn in 0..calls.iter().copied().max().unwrap_or(0) {
        for (customer, _) in calls.iter().enumerate().filter(|(_, calls)| turn < **calls) {
            let ask = Ask::one().customer(customer as u64, Weight::default());
            let at = Timestamp::from_nanos(now);
            let verdict = quota.before(rule, &mut Claim::new(), &ask, &User::default(), at);
            went[customer] += usize::from(verdict == Verdict::Pass);
            now += 1_000_000;
        }
    }
    went
}

#[test]
fn who_exceeds_nothing_is_kept_from_nothing() {
    let rule = |limit: u64, period| Rule {
        fair: true,
        burst: Some(limit),
        max_wait: Duration::ZERO,
        ..Rule::limit(limit, Unit::Requests, Duration::from_secs(period))
    };
    let slow = rule(20, 20);
    assert_eq!(at_once(&State::new(&slow), &slow, &[20]), [20], "alone");
    let quick = rule(100, 1);
    assert_eq!(at_once(&State::new(&quick), &quick, &[40, 40]), [40, 40], "together within the burst");
    let window = Rule { fair: true, max_wait: Duration::ZERO, ..Rule::default() };
    let quota = State::new(&window);
    let resets_at = Some(Timestamp::from_nanos(T0 + 20_000_000_000));
    let stated = Stated { limit: Some(20), remaining: Some(20), resets_at, window: None };
    quota.state(&window, &Claim::new(), &stated, Timestamp::from_nanos(T0));
    assert_eq!(at_once(&quota, &window, &[20]), [20], "alone in a window");
}

/// Many at once, as slow clients are: in crowds, of which none is more than the burst holds.
#[test]
fn who_keeps_within_the_burst_is_kept_from_nothing_however_its_calls_come() {
    let quick = Rule { burst: Some(100), max_wait: Duration::ZERO, ..fair(100) };
    for spread in [20, 100, 250, 500, 1_000, 3_000] {
        for seed in 1..20 {
            let quota = State::new(&quick);
            for round in 0..3u64 {
                let mut random = seed * 31 + round;
                let mut calls: Vec<(u64, u64)> = (0..80u64)
                    .map(|call| {
                        random = random
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        ((random >> 33) % (spread * 1_000_000), call % 2)
                    })
                    .collect();
                calls.sort_unstable();
                let refused = calls.iter().filter(|(after, customer)| {
                    let ask = Ask::one().customer(*customer, Weight::default());
                    let at = Timestamp::from_nanos(T0 + round * 6_000_000_000 + after);
                    quota.before(&quick, &mut Claim::new(), &ask, &User::default(), at) != Verdict::Pass
                });
                assert_eq!(refused.count(), 0, "of 80 within {spread} ms, round {round}, seed {seed}");
            }
        }
    }
}

#[test]
fn customers_whose_calls_fit_into_a_slow_window_do_not_wait_for_chance() {
    let vendor = Vendor { limit: 900, window: 600.0 };
    for seed in 1..6 {
        let rule = Rule { fair: true, ..Rule::default() };
        let (served, _) = run(&rule, Some(vendor), &[Asker::new(1.0), Asker::new(0.35)], 3_000.0, seed);
        for served in served {
            assert!(served.went * 1_000 >= served.asked * 995, "seed {seed}: {served:?}");
            assert!(served.waited / (served.went as f64) < 0.1, "seed {seed}: {served:?}");
        }
    }
}
