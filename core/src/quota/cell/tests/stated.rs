//! What the vendor states: which of its words is believed, and who used what it counts.

use super::*;

#[test]
fn an_older_answer_after_a_newer_never_raises_what_is_left() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let first = pass(&cell, &rule, at(0));
    let second = pass(&cell, &rule, at(1));
    assert_eq!(cell.state(&second, &says(100, 3, at(60_000)), at(50)), Reading::Taken);
    assert_eq!(cell.state(&first, &says(100, 80, at(60_000)), at(51)), Reading::Older);
    assert_eq!(cell.standing(at(52)).left, Some(3));
    assert_eq!(cell.state(&first, &says(100, 1, at(60_000)), at(53)), Reading::Older);
    assert_eq!(cell.standing(at(54)).left, Some(1), "bad news counts, however old");
}

#[test]
fn calls_under_way_reserve_what_is_left() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let first = pass(&cell, &rule, at(0));
    for _ in 0..4 {
        pass(&cell, &rule, at(1));
    }
    // The vendor had seen the first only: four more are on their way to it.
    cell.state(&first, &says(10, 9, at(60_000)), at(20));
    assert_eq!(cell.standing(at(21)).left, Some(5));
}

#[test]
fn use_by_somebody_else_is_told_apart_from_ours() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let window = Some(Duration::from_secs(60));
    let said = |remaining, reset| Stated { window, ..says(1_000, remaining, reset) };
    let first = pass(&cell, &rule, at(0));
    // What was used before we looked is nobody's.
    cell.state(&first, &said(600, at(10_000)), at(20));
    assert_eq!(cell.standing(at(21)).foreign, 0);
    for _ in 0..9 {
        pass(&cell, &rule, at(22));
    }
    let last = pass(&cell, &rule, at(30));
    cell.state(&last, &said(550, at(10_000)), at(50));
    assert_eq!(cell.standing(at(51)).foreign, 40);
    // The next window begins with a clean slate.
    let next = pass(&cell, &rule, at(10_100));
    cell.state(&next, &said(999, at(70_000)), at(10_150));
    let standing = cell.standing(at(10_160));
    assert_eq!((standing.foreign, standing.own), (0, 1));
}

#[test]
fn a_window_that_begins_before_our_clock_ends_the_last_one_is_a_window_of_its_own() {
    // Whole seconds until the reset, rounded up: the last answers of a minute move its end ahead of the next one's begin.
    for window in [None, Some(Duration::from_secs(60))] {
        let (cell, rule) = (Cell::new(), Rule::default());
        for tenth in 0..1_500 {
            let now = at(tenth * 100);
            let claim = pass(&cell, &rule, now);
            let within = tenth % 600;
            let reset = now.plus(Duration::from_secs((600 - within).div_ceil(10)));
            // Of every ten units, somebody else uses one.
            let used = within + 1 + (within + 1) / 10;
            cell.state(&claim, &Stated { window, ..says(1_000, 1_000 - used, reset) }, now);
        }
        let standing = cell.standing(at(149_901));
        assert_eq!((standing.own, standing.foreign, standing.left), (300, 30, Some(670)), "{window:?}");
        assert!(standing.opened_at.unwrap() >= at(119_900));
    }
}

#[test]
fn a_reset_that_moves_ahead_with_each_answer_begins_no_window() {
    for length in [1, 10, 3_600] {
        let (cell, rule) = (Cell::new(), Rule::default());
        let window = Some(Duration::from_secs(length));
        for n in 1..=200 {
            let now = at(n * length * 100);
            let claim = pass(&cell, &rule, now);
            let reset = now.plus(Duration::from_secs(length));
            cell.state(&claim, &Stated { window, ..says(100, 90, reset) }, now);
        }
        let standing = cell.standing(at(200 * length * 100));
        assert!(standing.own > 190, "since {length}: {}", standing.own);
    }
}

#[test]
fn however_the_clock_jumps_no_more_calls_are_ours_than_the_vendor_counted() {
    for jump in [-7_200_000i64, -90_000, -1_500, 1_500, 58_500, 90_000, 7_200_000] {
        let (cell, rule) = (Cell::new(), Rule::default());
        let mut used = 0;
        for n in 0..100u64 {
            let jumped = if n < 50 { 0 } else { jump };
            let now = at((10_000_000 + n * 100).checked_add_signed(jumped).unwrap());
            let claim = pass(&cell, &rule, now);
            used += 1;
            let reset = now.plus(Duration::from_millis(60_000 - n * 100));
            cell.state(&claim, &says(1_000, 1_000 - used, reset), now);
            let standing = cell.standing(now);
            assert!(standing.own <= used, "{jump}: {standing:?}");
        }
    }
}

#[test]
fn headers_that_lie_are_no_statement() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let claim = pass(&cell, &rule, at(0));
    for lie in [
        says(10, 11, at(1_000)),
        says(10, 0, Timestamp::from_nanos(T0.as_nanos() - SECOND)),
        says(10, 0, T0.plus(Duration::from_secs(1_000 * 365 * 86_400))),
        says(10, 0, Timestamp::from_nanos(u64::MAX)),
        says(0, 5, at(1_000)),
        Stated { limit: Some(10), remaining: Some(0), resets_at: None, window: Some(Duration::MAX) },
    ] {
        assert_eq!(cell.state(&claim, &lie, at(0)), Reading::Implausible, "{lie:?}");
        pass(&cell, &rule, at(1));
    }
    // Nothing left, but nobody says until when: no reason to wait for ever.
    cell.state(&claim, &Stated { limit: Some(40), remaining: Some(0), ..Stated::default() }, at(2));
    pass(&cell, &rule, at(3));
    assert_eq!(cell.standing(at(3)).remaining, Some(0));
}

#[test]
fn limits_beyond_32_bits_do_not_wrap() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let claim = pass(&cell, &rule, at(0));
    let huge = Stated { window: Some(Duration::from_secs(60)), ..says(u64::MAX, u64::MAX, at(60_000)) };
    cell.state(&claim, &huge, at(1));
    for minute in 0..10 {
        let ask = Ask::one().units(1 << 40);
        let now = at(60_000 * minute + 30_000);
        let verdict = cell.before(&rule, &mut Claim::new(), &ask, now);
        assert!(minute == 0 || verdict == Verdict::Pass, "{verdict:?}");
    }
}

#[test]
fn a_word_that_nothing_is_left_is_put_to_the_test_once_a_minute() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let claim = pass(&cell, &rule, at(0));
    cell.state(&claim, &says(100, 0, T0.plus(Duration::from_secs(30 * 86_400))), at(1));
    let passed =
        (0..600).filter(|second| ask(&cell, &rule, at(second * 1_000 + 500)) == Verdict::Pass).count();
    assert!((8..=10).contains(&passed), "{passed} in ten minutes");
}

#[test]
fn a_call_that_no_rule_matches_goes_and_is_counted() {
    let cell = Cell::new();
    let mut claim = Claim::new();
    cell.watch(&mut claim, &Ask::one(), at(0));
    cell.state(&claim, &says(100, 0, at(60_000)), at(1));
    for _ in 0..5 {
        cell.watch(&mut Claim::new(), &Ask::one(), at(2));
    }
    let standing = cell.standing(at(3));
    assert_eq!((standing.left, standing.remaining), (Some(0), Some(0)));
    assert!(matches!(ask(&cell, &Rule::default(), at(3)), Verdict::Refuse { .. }));
}
