use crate::quota::*;
use crate::units::Timestamp;
use proptest::prelude::*;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const T0: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
const SECOND: u64 = 1_000_000_000;

fn at(millis: u64) -> Timestamp {
    T0.plus_millis(millis)
}

fn says(limit: u64, remaining: u64, resets_at: Timestamp) -> Stated {
    Stated { limit: Some(limit), remaining: Some(remaining), resets_at: Some(resets_at), window: None }
}

fn pass(cell: &Cell, rule: &Rule, now: Timestamp) -> Claim {
    let mut claim = Claim::new();
    assert_eq!(cell.before(rule, &mut claim, &Ask::one(), now), Verdict::Pass);
    claim
}

fn ask(cell: &Cell, rule: &Rule, now: Timestamp) -> Verdict {
    cell.before(rule, &mut Claim::new(), &Ask::one(), now)
}

fn patient(seconds: u64) -> Rule {
    Rule { max_wait: Duration::from_secs(seconds), ..Rule::default() }
}

#[test]
fn an_exhausted_window_refuses_with_the_time_of_its_reset() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let claim = pass(&cell, &rule, at(0));
    assert_eq!(cell.state(&claim, &says(100, 1, at(60_000)), at(50)), Reading::Taken);
    pass(&cell, &rule, at(60));
    let Verdict::Refuse { until, why } = ask(&cell, &rule, at(70)) else { panic!("it passed") };
    assert_eq!(why, Why::Exhausted);
    assert!(until >= at(60_000) && until <= at(60_100), "{until:?}");
    pass(&cell, &rule, at(60_100));
}

#[test]
fn those_who_wait_for_a_reset_get_slots_of_their_own_and_pass_at_them() {
    let (cell, rule) = (Cell::new(), patient(2));
    let claim = pass(&cell, &rule, at(0));
    cell.state(&claim, &Stated { window: Some(Duration::from_secs(1)), ..says(50, 0, at(1_000)) }, at(1));
    let mut claims = [Claim::new(); 30];
    let mut slots = Vec::new();
    for claim in &mut claims {
        let Verdict::Wait { until, .. } = cell.before(&rule, claim, &Ask::one(), at(10)) else { panic!() };
        assert!(until >= at(1_000) && until < at(2_010));
        slots.push(until);
    }
    assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "{slots:?}");
    // Asked early, the answer is the same; fresh calls of the new window leave the booked slots alone.
    let early = cell.before(&rule, &mut claims[3], &Ask::one(), at(20));
    assert!(matches!(early, Verdict::Wait { until, .. } if until == slots[3]));
    let mut fresh = 0;
    let now = at(1_020);
    while matches!(ask(&cell, &rule, now), Verdict::Pass) {
        fresh += 1;
    }
    assert!((15..=22).contains(&fresh), "{fresh} beside 30 booked of 50");
    for (claim, slot) in claims.iter_mut().zip(slots) {
        assert_eq!(cell.before(&rule, claim, &Ask::one(), slot.max(now)), Verdict::Pass);
    }
}

#[test]
fn more_waiting_calls_than_a_window_holds_go_to_the_window_after_it() {
    let (cell, rule) = (Cell::new(), patient(600));
    let claim = pass(&cell, &rule, at(0));
    cell.state(&claim, &Stated { window: Some(Duration::from_secs(60)), ..says(5, 0, at(30_000)) }, at(1));
    let mut per_window = [0; 3];
    for _ in 0..15 {
        let Verdict::Wait { until, .. } = ask(&cell, &rule, at(10)) else { panic!() };
        per_window[(until.since(at(30_000)).as_secs() / 60) as usize] += 1;
    }
    assert_eq!(per_window, [5, 5, 5]);
}

#[test]
fn a_wait_never_exceeds_the_deadline_nor_max_wait() {
    let (cell, rule) = (Cell::new(), patient(10));
    let claim = pass(&cell, &rule, at(0));
    cell.state(&claim, &says(100, 0, at(5_000)), at(1));
    let soon = Ask::one().deadline(Some(at(3_000)));
    let verdict = cell.before(&rule, &mut Claim::new(), &soon, at(2));
    assert!(matches!(verdict, Verdict::Refuse { until, .. } if until >= at(5_000)), "{verdict:?}");
    let later = Ask::one().deadline(Some(at(6_000)));
    assert!(matches!(cell.before(&rule, &mut Claim::new(), &later, at(2)), Verdict::Wait { .. }));
    let impatient = Rule { max_wait: Duration::ZERO, ..Rule::default() };
    assert!(matches!(ask(&cell, &impatient, at(2)), Verdict::Refuse { .. }));
}

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

#[test]
fn a_clock_that_jumps_back_forgets_what_was_noted_under_the_other_clock() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let ahead = 3_600_000;
    let claim = pass(&cell, &rule, at(ahead));
    cell.state(&claim, &says(10, 0, at(ahead + 60_000)), at(ahead));
    assert!(matches!(ask(&cell, &rule, at(ahead)), Verdict::Refuse { .. }));
    pass(&cell, &rule, at(0));
    cell.limited(&claim, Limited::Rate, Some(at(ahead + 60_000)), at(ahead));
    assert!(matches!(ask(&cell, &rule, at(ahead)), Verdict::Refuse { .. }));
    pass(&cell, &rule, at(0));
}

#[test]
fn eight_threads_on_one_cell_never_get_more_than_the_limit() {
    let rule =
        Rule { max_wait: Duration::ZERO, ..Rule::limit(1_000, Unit::Requests, Duration::from_secs(1)) };
    let (cell, window) = (Cell::new(), Cell::new());
    let first = pass(&window, &Rule::default(), at(0));
    window.state(&first, &says(1_000, 700, at(60_000)), at(0));
    let (paced, counted): (Vec<u64>, Vec<u64>) = std::thread::scope(|scope| {
        let work = |thread: u64| {
            let (cell, window, rule) = (&cell, &window, &rule);
            move || {
                let (mut paced, mut counted) = (0, 0);
                for milli in 0..1_000 {
                    for _ in 0..3 {
                        paced += u64::from(ask(cell, rule, at(milli)) == Verdict::Pass);
                    }
                    let mut claim = Claim::new();
                    let verdict = window.before(&Rule::default(), &mut claim, &Ask::one(), at(milli));
                    counted += u64::from(verdict == Verdict::Pass);
                    if (milli + thread).is_multiple_of(3) && verdict == Verdict::Pass {
                        window.undo(&mut claim);
                        counted -= 1;
                    }
                }
                (paced, counted)
            }
        };
        let threads: Vec<_> = (0..8).map(|thread| scope.spawn(work(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).unzip()
    });
    let (paced, counted) = (paced.iter().sum::<u64>(), counted.iter().sum::<u64>());
    // A thread that lags behind sees an earlier time, which counts as the latest one seen.
    assert!((990..=1_011).contains(&paced), "{paced}");
    assert_eq!(counted, 700);
}

proptest! {
    /// Whatever a dying process left in a cell, or somebody wrote there: nothing panics, no wait is longer than
    /// allowed, and within a minute of the vendor's answers all is well again.
    #[test]
    fn any_words_are_a_state_that_heals(
        words in proptest::collection::vec(any::<u64>(), 16),
        zeroed in 0u16..,
        millis in 0u64..100_000,
        smooth in any::<bool>(),
    ) {
        let cell = Cell::new();
        for (index, (word, value)) in cell.words().into_iter().zip(words).enumerate() {
            word.store(if zeroed >> index & 1 == 1 { 0 } else { value }, Relaxed);
        }
        let limited = Rule::limit(10, Unit::Requests, Duration::from_secs(1));
        let pace = if smooth { Pace::Smooth } else { Pace::Off };
        let rule = Rule { pace, concurrency: Some(1 << 25), shared: Shared::Fleet, ..limited };
        let mut now = at(millis);
        for _ in 0..50 {
            let mut claim = Claim::new();
            match cell.before(&rule, &mut claim, &Ask::one(), now) {
                Verdict::Wait { until, .. } => prop_assert!(until <= now.plus(rule.max_wait)),
                Verdict::Pass | Verdict::Refuse { .. } => {}
            }
            let _ = cell.standing(now);
            cell.state(&claim, &says(100, 90, now.plus_millis(30_000)), now);
            cell.limited(&claim, Limited::Rate, None, now);
            cell.end(&mut claim);
            now = now.plus_millis(7);
        }
        // An hour later the vendor speaks twice, and calls go.
        let hour = at(3_600_000 + millis);
        let mut went = 0;
        for second in 0..1_200 {
            let now = hour.plus_millis(second * 1_000);
            let mut claim = Claim::new();
            if cell.before(&Rule::default(), &mut claim, &Ask::one(), now) == Verdict::Pass {
                went += 1;
                cell.state(&claim, &says(100, 90, now.plus_millis(30_000)), now);
            }
        }
        prop_assert!(went > 0, "{cell:?} {:?} {:?}", cell.standing(hour), ask(&cell, &Rule::default(), hour));
    }

    /// A vendor with a fixed window, answers that overtake each other, and somebody else on the credential.
    #[test]
    fn the_vendors_window_is_kept_to_and_used(
        limit in 20u64..200,
        latency in 1u64..120,
        foreign_every in prop_oneof![Just(0u64), 200u64..2_000],
        seed in any::<u64>(),
        smooth in any::<bool>(),
    ) {
        let (length, windows) = (2_000u64, 6u64);
        let cell = Cell::new();
        let rule = Rule { pace: if smooth { Pace::Smooth } else { Pace::Off }, max_wait: Duration::ZERO, ..Rule::default() };
        let mut random = seed | 1;
        let mut under_way: Vec<(u64, Claim, Stated)> = Vec::new();
        let (mut refused, mut used) = (0u64, vec![0u64; windows as usize + 1]);
        for milli in 0..windows * length {
            let window = (milli / length) as usize;
            for (_, mut claim, stated) in under_way.extract_if(.., |(due, ..)| *due <= milli) {
                cell.state(&claim, &stated, at(milli));
                cell.end(&mut claim);
            }
            if foreign_every > 0 && milli % foreign_every == 0 && used[window] < limit {
                used[window] += 1;
            }
            // Twice as many calls as may go.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (random >> 33) % length >= (2 * limit).min(length) {
                continue;
            }
            let mut claim = Claim::new();
            if cell.before(&rule, &mut claim, &Ask::one(), at(milli)) != Verdict::Pass {
                continue;
            }
            // The vendor counts at once, its answer takes a while.
            if used[window] < limit { used[window] += 1 } else if window > 0 { refused += 1 }
            let stated = Stated {
                limit: Some(limit),
                remaining: Some(limit - used[window]),
                resets_at: Some(at((window as u64 + 1) * length)),
                window: Some(Duration::from_millis(length)),
            };
            under_way.push((milli + 1 + (random >> 20) % latency, claim, stated));
        }
        let whole: u64 = used[1..windows as usize].iter().sum();
        let allowed = limit * (windows - 1);
        // Somebody else's calls are seen one answer late.
        let unseen = length.checked_div(foreign_every).map_or(0, |calls| (windows - 1) * (1 + calls));
        prop_assert!(refused <= unseen, "{refused} refused");
        prop_assert!(whole * 100 >= allowed * 90, "{whole} of {allowed} used");
    }
}

#[test]
fn a_call_above_the_stated_limit_takes_a_whole_window_and_not_forever() {
    for (rule, why) in
        [(Rule { max_wait: Duration::ZERO, ..Rule::default() }, "refused"), (patient(120), "waits")]
    {
        let cell = Cell::new();
        let window = Some(Duration::from_secs(60));
        let mut first = pass(&cell, &rule, at(0));
        cell.state(&first, &Stated { window, ..says(8_000, 7_900, at(60_000)) }, at(500));
        cell.end(&mut first);
        let (mut went, mut now) = (0, at(1_000));
        while now < at(600_000) {
            let mut claim = Claim::new();
            loop {
                match cell.before(&rule, &mut claim, &Ask::one().units(14_000), now) {
                    Verdict::Wait { until, .. } => now = until,
                    Verdict::Refuse { until, .. } => {
                        assert!(until > now, "{why}");
                        break;
                    }
                    Verdict::Pass => {
                        went += 1;
                        cell.end(&mut claim);
                        break;
                    }
                }
            }
            now = now.plus_millis(1_000);
        }
        // One in each window but the first, of which a part was used already.
        assert!((9..=10).contains(&went), "{why}: {went} in ten minutes");
    }
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
