//! What a rule allows by itself: its rate, its places, and what calls give back.

use super::*;

#[test]
fn concurrency_is_bounded_and_freed() {
    let rule = Rule { concurrency: Some(2), ..Rule::default() };
    let cell = Cell::new();
    let mut first = pass(&cell, &rule, at(0));
    pass(&cell, &rule, at(0));
    let mut third = Claim::new();
    let Verdict::Wait { until, why } = cell.before(&rule, &mut third, &Ask::one(), at(0)) else { panic!() };
    assert_eq!(why, Why::Concurrency);
    cell.end(&mut first);
    cell.end(&mut first);
    assert_eq!(cell.before(&rule, &mut third, &Ask::one(), until), Verdict::Pass);
    assert_eq!(cell.standing(until).under_way, 2);
    // Nobody ends: the call asks again until its time is over, and is then refused.
    let (mut claim, mut now) = (Claim::new(), until);
    let refused_at = loop {
        match cell.before(&rule, &mut claim, &Ask::one(), now) {
            Verdict::Wait { until, .. } => now = until,
            Verdict::Refuse { .. } => break now,
            Verdict::Pass => panic!("a third call passed"),
        }
    };
    assert!(refused_at <= until.plus_millis(2_000), "{refused_at:?}");
}

#[test]
fn what_a_refused_call_held_is_free_again() {
    let rule = Rule { concurrency: Some(1), ..Rule::limit(1, Unit::Requests, Duration::from_secs(1)) };
    let cell = Cell::new();
    let mut claim = pass(&cell, &rule, at(0));
    cell.undo(&mut claim);
    let mut claim = pass(&cell, &rule, at(0));
    cell.end(&mut claim);
    assert!(matches!(ask(&cell, &rule, at(1)), Verdict::Wait { .. }));
}

#[test]
fn an_estimate_is_corrected() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let mut claim = Claim::new();
    assert_eq!(cell.before(&rule, &mut claim, &Ask::one().units(500), at(0)), Verdict::Pass);
    cell.state(&claim, &says(1_000, 500, at(60_000)), at(1));
    let mut claim = Claim::new();
    assert_eq!(cell.before(&rule, &mut claim, &Ask::one().units(400), at(2)), Verdict::Pass);
    assert_eq!(cell.standing(at(3)).left, Some(100));
    cell.settle(&rule, &mut claim, 150);
    assert_eq!(cell.standing(at(4)).left, Some(350));
    cell.settle(&rule, &mut claim, 450);
    assert_eq!(cell.standing(at(5)).left, Some(50));
}

#[test]
fn a_call_that_asks_for_more_than_the_limit_costs_one_period() {
    let (cell, rule) = (Cell::new(), Rule::limit(1_000, Unit::Tokens, Duration::from_secs(60)));
    let huge = Ask::one().units(u64::MAX);
    assert_eq!(cell.before(&rule, &mut Claim::new(), &huge, at(0)), Verdict::Pass);
    for second in [1, 30, 56] {
        assert!(matches!(ask(&cell, &rule, at(second * 1_000)), Verdict::Refuse { why: Why::OwnLimit, .. }));
    }
    assert_eq!(ask(&cell, &rule, at(60_000)), Verdict::Pass);
}
