//! What is done before a quota is used up: spreading it, and keeping a share of it.

use super::*;

#[test]
fn smooth_spreads_what_is_left_until_the_reset() {
    let (cell, rule) = (Cell::new(), Rule { pace: Pace::Smooth, ..patient(60) });
    let claim = pass(&cell, &rule, at(0));
    cell.state(&claim, &says(100, 60, at(60_000)), at(0));
    let mut starts = Vec::new();
    for _ in 0..50 {
        starts.push(match ask(&cell, &rule, at(0)) {
            Verdict::Pass => T0,
            Verdict::Wait { until, why: Why::Paced } => until,
            other => panic!("{other:?}"),
        });
    }
    // A tenth of the time ahead, and then about one a second.
    let at_once = starts.iter().filter(|start| **start == T0).count();
    assert!((5..=9).contains(&at_once), "{at_once}");
    let half = starts.iter().filter(|start| **start < at(30_000)).count();
    assert!((30..=42).contains(&half), "{half} in the first half");
}

#[test]
fn a_reserve_is_kept_for_interactive_calls() {
    let reserve = Some(Reserve { priority: Priority::Interactive, per_mille: 200 });
    let rule = Rule { pace: Pace::Reserve, reserve, ..Rule::default() };
    let cell = Cell::new();
    let claim = pass(&cell, &rule, at(0));
    cell.state(&claim, &says(100, 50, at(60_000)), at(0));
    let batch = Ask::one().priority(Priority::Batch);
    let passed = |ask: &Ask| {
        (0..200).filter(|_| cell.before(&rule, &mut Claim::new(), ask, at(1)) == Verdict::Pass).count()
    };
    assert_eq!(passed(&batch), 30);
    assert!(matches!(
        cell.before(&rule, &mut Claim::new(), &batch, at(1)),
        Verdict::Refuse { why: Why::Reserved, .. }
    ));
    assert_eq!(passed(&Ask::one()), 20);
}

#[test]
fn a_reserve_of_a_configured_rate_never_makes_interactive_calls_wait_behind_batches() {
    let reserve = Some(Reserve { priority: Priority::Interactive, per_mille: 200 });
    let limited = Rule::limit(100, Unit::Requests, Duration::from_secs(1));
    let rule = Rule { pace: Pace::Reserve, reserve, ..limited };
    let cell = Cell::new();
    let batch = Ask::one().priority(Priority::Batch);
    let mut waiting: Vec<(Timestamp, Claim)> = Vec::new();
    let (mut batches, mut longest) = (0, Duration::ZERO);
    for milli in 0..10_000 {
        let now = at(milli);
        for (until, mut claim) in std::mem::take(&mut waiting) {
            if until > now {
                waiting.push((until, claim));
                continue;
            }
            match cell.before(&rule, &mut claim, &batch, now) {
                Verdict::Pass => batches += 1,
                Verdict::Wait { until, .. } => waiting.push((until, claim)),
                Verdict::Refuse { .. } => {}
            }
        }
        // Batches come ten times as fast as they may go, interactive calls at an eighth of the rate.
        let mut claim = Claim::new();
        match cell.before(&rule, &mut claim, &batch, now) {
            Verdict::Pass => batches += 1,
            Verdict::Wait { until, .. } => waiting.push((until, claim)),
            Verdict::Refuse { .. } => {}
        }
        if milli % 80 == 0 {
            match ask(&cell, &rule, now) {
                Verdict::Pass => {}
                Verdict::Wait { until, .. } => longest = longest.max(until.since(now)),
                Verdict::Refuse { .. } => panic!("an interactive call was refused"),
            }
        }
    }
    assert!(longest <= Duration::from_millis(40), "{longest:?}");
    assert!((760..=820).contains(&batches), "{batches}");
}

#[test]
fn a_reserve_is_taken_from_the_burst_of_a_configured_rate_once() {
    let reserve = Some(Reserve { priority: Priority::Interactive, per_mille: 200 });
    let limited = Rule::limit(100, Unit::Requests, Duration::from_secs(1));
    let rule = Rule { pace: Pace::Reserve, reserve, burst: Some(21), max_wait: Duration::ZERO, ..limited };
    let batch = Ask::one().priority(Priority::Batch);
    let passed = |cell: &Cell, ask: &Ask, now| {
        (0..100).filter(|_| cell.before(&rule, &mut Claim::new(), ask, now) == Verdict::Pass).count()
    };
    // Four fifths of the twenty that may come ahead of time, and the one whose time it is.
    let cell = Cell::new();
    assert_eq!((passed(&cell, &batch, at(0)), passed(&cell, &Ask::one(), at(0))), (17, 4));
    // Calls that the rate refuses take nothing of what the reserve leaves to those after them.
    let cell = Cell::new();
    assert_eq!((passed(&cell, &Ask::one(), at(0)), passed(&cell, &batch, at(0))), (21, 0));
    assert_eq!(passed(&cell, &batch, at(100)), 10, "as many as came free since");
}

#[test]
fn a_call_above_what_the_reserve_leaves_goes_when_all_of_that_is_there() {
    let (cell, kept) = (Cell::new(), Reserve { priority: Priority::Interactive, per_mille: 200 });
    let rule = Rule { pace: Pace::Reserve, reserve: Some(kept), max_wait: Duration::ZERO, ..Rule::default() };
    let first = pass(&cell, &rule, at(0));
    cell.state(&first, &says(1_000, 1_000, at(60_000)), at(1));
    let batch = Ask::one().units(5_000).priority(Priority::Batch);
    assert_eq!(cell.before(&rule, &mut Claim::new(), &batch, at(2)), Verdict::Pass);
    let verdict = cell.before(&rule, &mut Claim::new(), &batch, at(3));
    assert!(matches!(verdict, Verdict::Refuse { .. }), "{verdict:?}");
}
