//! 429s: how long they hold calls up, and what they teach.

use super::*;

#[test]
fn a_429_blocks_until_retry_after_and_then_lets_pass_one_by_one() {
    let (cell, rule) = (Cell::new(), patient(3));
    let claim = pass(&cell, &rule, at(0));
    cell.limited(&claim, Limited::Rate, Some(at(2_000)), at(10));
    let mut claims = [Claim::new(); 5];
    let mut slots: Vec<Timestamp> = Vec::new();
    for claim in &mut claims {
        let verdict = cell.before(&rule, claim, &Ask::one(), at(20));
        let Verdict::Wait { until, why: Why::RateLimited } = verdict else { panic!("{verdict:?}") };
        slots.push(until);
    }
    assert!(slots[0] >= at(2_000) && slots.windows(2).all(|pair| pair[0] < pair[1]), "{slots:?}");
    assert_eq!(cell.before(&rule, &mut claims[0], &Ask::one(), slots[0]), Verdict::Pass);
    // Exhausted is another thing: come back tomorrow.
    cell.limited(&claim, Limited::Exhausted, Some(at(86_400_000)), slots[0]);
    let verdict = cell.before(&rule, &mut claims[1], &Ask::one(), slots[1]);
    assert!(matches!(verdict, Verdict::Refuse { why: Why::Exhausted, .. }), "{verdict:?}");
}

#[test]
fn of_calls_refused_in_one_burst_the_one_that_says_for_how_long_holds() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let burst = [pass(&cell, &rule, at(0)), pass(&cell, &rule, at(1))];
    let blocked_until = |now| cell.standing(at(now)).blocked_until;
    cell.limited(&burst[0], Limited::Rate, Some(at(30_000)), at(200));
    cell.limited(&burst[1], Limited::Rate, None, at(300));
    assert!(blocked_until(400) >= Some(at(30_000)), "{:?}", blocked_until(400));
    // One that went later, by a rule or a program that does not wait, has seen more of the vendor.
    let mut later = Claim::new();
    cell.watch(&mut later, &Ask::one(), at(10_000));
    cell.limited(&later, Limited::Rate, None, at(10_100));
    let until = blocked_until(10_200);
    assert!(until >= Some(at(11_100)) && until < Some(at(12_000)), "{until:?}");
}

#[test]
fn an_absurd_retry_after_blocks_for_a_day_at_most() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let claim = pass(&cell, &rule, at(0));
    cell.limited(&claim, Limited::Rate, Some(Timestamp::from_nanos(u64::MAX)), at(0));
    assert!(matches!(ask(&cell, &rule, at(1)), Verdict::Refuse { .. }));
    pass(&cell, &rule, at(86_400_000 + 50));
    // And one in the past blocks nothing.
    cell.limited(&claim, Limited::Exhausted, Some(Timestamp::EPOCH), at(86_400_100));
    pass(&cell, &rule, at(86_400_101));
}

#[test]
fn a_learned_limit_paces_calls_until_it_is_forgotten() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let mut last = Claim::new();
    for milli in 0..2_000 {
        last = pass(&cell, &rule, at(milli * 10));
    }
    cell.limited(&last, Limited::Rate, Some(at(20_010)), at(20_000));
    let learned = cell.standing(at(20_000)).learned_per_second.unwrap();
    assert!((65_000..=75_000).contains(&learned), "{learned}: seven tenths of a hundred a second");
    let went = (0..1_000)
        .filter(|milli| {
            matches!(
                cell.before(
                    &Rule { max_wait: Duration::ZERO, ..rule.clone() },
                    &mut Claim::new(),
                    &Ask::one(),
                    at(20_100 + milli)
                ),
                Verdict::Pass
            )
        })
        .count();
    assert!((70..=80).contains(&went), "{went}");
    assert_eq!(cell.standing(at(3_000_000)).learned_per_second, None);
}
