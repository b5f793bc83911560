use super::*;
use crate::rollout::{By, Rollout, RolloutVerdict, Rule};
use crate::units::spread;

/// A side of a simulated vendor.
#[derive(Clone, Copy)]
struct Behaviour {
    errors: f64,
    slowness: f64,
}

const USUAL: Behaviour = Behaviour { errors: 0.02, slowness: 1.0 };

fn share(ratio: f64) -> Share {
    Share::from_ratio(ratio).unwrap()
}

fn rule(steps: &[f64]) -> Rule {
    let steps = steps.iter().map(|step| share(*step)).collect();
    Rule {
        canary: Some(CanaryRule { steps, hold: Duration::from_secs(1), ..CanaryRule::default() }),
        ..Rule::new("test", By::Call)
    }
}

fn sample(behaviour: Behaviour, draw: u64) -> Sample {
    if share(behaviour.errors).covers(draw) {
        return Sample::failed();
    }
    // Exponential: a long tail, as latencies have.
    let uniform = (spread(draw) >> 11) as f64 / 2f64.powi(53);
    Sample::answered(Duration::from_secs_f64(0.05 * behaviour.slowness * -(1.0 - uniform).ln()))
}

/// Plays `calls` calls, one a millisecond. Gives the last change and after how many calls of the new side.
fn play(rule: &Rule, run: u64, calls: u64, old: Behaviour, new: Behaviour) -> (Option<Change>, u64) {
    let start = Timestamp::from_nanos(1_700_000_000_000_000_000);
    let rollout = Rollout::new(rule, start);
    let (mut last, mut seen) = (None, 0);
    for call in 0..calls {
        let (seed, now) = (spread(run << 32 | call), start.plus_millis(call));
        let (side, behaviour) = match rollout.before(rule, None, seed, true) {
            RolloutVerdict::New { side } => (side, new),
            RolloutVerdict::Old { side, .. } => (side, old),
            RolloutVerdict::Refuse => panic!("nothing was killed"),
        };
        seen += u64::from(side.is_new());
        if let Some(change) = rollout.after(rule, side, sample(behaviour, spread(!seed)), now) {
            last = Some(change);
            if matches!(change, Change::RolledBack { .. } | Change::Finished { .. }) {
                break;
            }
        }
    }
    (last, seen)
}

#[test]
fn equal_sides_are_rarely_rolled_back_and_go_through() {
    let rule = rule(&[0.1, 0.5, 1.0]);
    let ends: Vec<_> = (0..40).map(|run| play(&rule, run, 200_000, USUAL, USUAL).0).collect();
    let back = ends.iter().filter(|end| matches!(end, Some(Change::RolledBack { .. }))).count();
    let through = ends.iter().filter(|end| matches!(end, Some(Change::Finished { .. }))).count();
    assert!(back <= 2, "{back} of 40 were rolled back");
    assert!(through >= 36, "{through} of 40 went through");
}

/// The hardest case that must still be left alone: exactly as much worse as is allowed.
#[test]
fn a_canary_at_the_edge_of_what_is_allowed_is_rolled_back_in_one_of_twenty_at_most() {
    let rule = rule(&[0.5]);
    let edge = Behaviour { errors: 0.03, slowness: 1.0 };
    let back = (0..100)
        .filter(|run| matches!(play(&rule, *run, 10_000, USUAL, edge).0, Some(Change::RolledBack { .. })));
    let back = back.count();
    assert!(back <= 5, "{back} of 100");
}

#[test]
fn a_canary_at_the_edge_of_what_is_allowed_is_rarely_taken_for_good() {
    let rule = rule(&[0.5]);
    let edge = Behaviour { errors: 0.0301, slowness: 1.0 };
    let through = (0..100)
        .filter(|run| matches!(play(&rule, *run, 10_000, USUAL, edge).0, Some(Change::Finished { .. })));
    let through = through.count();
    assert!(through <= 5, "{through} of 100");
}

#[test]
fn a_doubled_error_rate_is_rolled_back_within_three_thousand_calls() {
    let rule = rule(&[0.2, 1.0]);
    let (old, new) = (Behaviour { errors: 0.05, ..USUAL }, Behaviour { errors: 0.1, ..USUAL });
    let found = (0..100).filter(|run| {
        let (change, calls) = play(&rule, *run, 20_000, old, new);
        change == Some(Change::RolledBack { reason: RollbackReason::Errors }) && calls <= 3_000
    });
    let found = found.count();
    assert!(found >= 95, "{found} of 100");
}

#[test]
fn a_canary_that_fails_outright_is_rolled_back_within_twenty_calls() {
    let rule = rule(&[0.05, 1.0]);
    for run in 0..50 {
        let (change, calls) = play(&rule, run, 20_000, USUAL, Behaviour { errors: 1.0, ..USUAL });
        assert_eq!(change, Some(Change::RolledBack { reason: RollbackReason::Errors }));
        assert!(calls <= 20, "{calls}");
    }
}

#[test]
fn a_canary_twice_as_slow_is_rolled_back_for_its_p99() {
    let rule = rule(&[0.2, 1.0]);
    let found = (0..50).filter(|run| {
        let (change, calls) = play(&rule, *run, 20_000, USUAL, Behaviour { slowness: 2.0, ..USUAL });
        change == Some(Change::RolledBack { reason: RollbackReason::Slow }) && calls <= 1_000
    });
    let found = found.count();
    assert!(found >= 48, "{found} of 50");
}

#[test]
fn a_step_lasts_as_long_and_as_many_calls_as_the_rule_says() {
    let mut rule = rule(&[0.5, 1.0]);
    rule.canary.as_mut().unwrap().hold = Duration::from_secs(60);
    let never = |rule: &Rule| {
        play(rule, 1, 30_000, Behaviour { errors: 0.0, ..USUAL }, Behaviour { errors: 0.0, ..USUAL }).0
    };
    assert_eq!(never(&rule), None, "30 seconds are no minute");
    rule.canary.as_mut().unwrap().hold = Duration::from_secs(1);
    assert_eq!(never(&rule), Some(Change::Finished { share: Share::ALL }));
    rule.canary.as_mut().unwrap().min_calls = 100_000;
    assert_eq!(never(&rule), None);
}

/// What comes of a step of 4,000 calls on each side, of which so many fail and are slow, spread evenly.
fn after_4_000_calls(max_calls: u64, old: (u64, u64), new: (u64, u64)) -> Option<Change> {
    let mut rule = rule(&[0.5, 1.0]);
    let canary = rule.canary.as_mut().unwrap();
    (canary.max_calls, canary.hold) = (max_calls, Duration::ZERO);
    let now = Timestamp::from_nanos(1_700_000_000_000_000_000);
    let rollout = Rollout::new(&rule, now);
    let sides = [false, true].map(|new| Side { new, ..Side::default() });
    // The old side's p99 is known first.
    for _ in 0..LEAST {
        let _ = rollout.after(&rule, sides[0], Sample::answered(Duration::from_millis(10)), now);
    }
    (1..=4_000_u64).find_map(|call| {
        let falls = |of: u64| call * of / 4_000 > (call - 1) * of / 4_000;
        [(sides[0], old), (sides[1], new)].into_iter().find_map(|(side, (failed, slow))| {
            let sample = match () {
                () if falls(failed) => Sample::failed(),
                () if falls(slow) => Sample::answered(Duration::from_millis(50)),
                () => Sample::answered(Duration::from_millis(10)),
            };
            rollout.after(&rule, side, sample, now)
        })
    })
}

#[test]
fn a_step_in_which_nothing_is_proven_ends_with_what_was_counted() {
    let finished = Some(Change::Finished { share: Share::ALL });
    let back = |reason| Some(Change::RolledBack { reason });
    // Errors, then slow calls: a little less, and a little more than 1% above those of the old side.
    for (old, new, end) in [
        ((80, 0), (104, 0), finished),
        ((80, 0), (128, 0), back(RollbackReason::Errors)),
        ((0, 60), (0, 92), finished),
        ((0, 60), (0, 108), back(RollbackReason::Slow)),
    ] {
        assert_eq!(after_4_000_calls(1_000_000, old, new), None, "{new:?} after {old:?} is not proven");
        assert_eq!(after_4_000_calls(3_200, old, new), end, "{new:?} after {old:?}");
    }
}

#[test]
fn after_a_rollback_all_take_the_old_side_and_late_news_change_nothing() {
    let rule = rule(&[0.5, 1.0]);
    let now = Timestamp::from_nanos(1);
    let rollout = Rollout::new(&rule, now);
    let canary = rollout.canary().unwrap();
    let reasons = [None, Some(RollbackReason::Errors), Some(RollbackReason::Slow)];
    for reason in reasons {
        // Without a reason: as an earlier version left it.
        canary.state.store(reason.map_or(ROLLED_BACK, phase_for) << 8, Relaxed);
        for seed in 0..1_000 {
            assert!(matches!(rollout.before(&rule, None, seed, true), RolloutVerdict::Old { .. }));
        }
        let late = Side { new: true, ..Side::default() };
        for _ in 0..1_000 {
            assert_eq!(rollout.after(&rule, late, Sample::failed(), now), None);
        }
        assert_eq!((canary.status(), canary.rolled_back_for()), (CanaryStatus::RolledBack, reason));
    }
    canary.restart(now);
    assert_eq!((canary.status(), canary.rolled_back_for()), (CanaryStatus::Step(0), None));
}

#[test]
fn what_a_canary_did_is_told_in_words_with_what_it_was_judged_by() {
    let seen = Evidence {
        old_calls: 119,
        new_calls: 122,
        new_errors: 41,
        old_timed: 118,
        new_timed: 81,
        new_slow: 9,
        slow_after: Duration::from_micros(240_900),
        ..Evidence::default()
    };
    let words = |change: Change| change.in_words(&seen);
    assert_eq!(
        words(Change::RolledBack { reason: RollbackReason::Errors }),
        "was rolled back: more of its calls fail than max_error_rate_increase allows (new 41 of 122 failed, old 0 of 119)"
    );
    assert_eq!(
        words(Change::RolledBack { reason: RollbackReason::Slow }),
        "was rolled back: more of its calls are slow than max_p99_increase allows (slower than 241 ms: new 9 of 81, \
         old 0 of 118)"
    );
    assert_eq!(words(Change::Promoted { share: share(0.25) }), "went on to 25% of its calls");
    let finished = words(Change::Finished { share: Share::ALL });
    assert_eq!(finished, "finished, with 100% of its calls on the new side");
}

#[test]
fn a_canary_goes_on_where_it_was_left_until_it_is_started_over() {
    let rule = rule(&[0.1, 0.5, 1.0]);
    let now = Timestamp::from_nanos(1);
    let cell: CanaryHome = Arc::new(Canary::new());
    let canary = (*cell).as_ref();
    let count = || {
        // As a process that starts now.
        let rollout = Rollout::at(Arc::clone(&cell), &rule, now);
        (0..10_000)
            .filter(|seed| matches!(rollout.before(&rule, None, *seed, true), RolloutVerdict::New { .. }))
            .count()
    };
    assert!((900..1_100).contains(&count()));
    canary.state.store(1, Relaxed);
    assert!((4_800..5_200).contains(&count()));
    canary.state.store(FINISHED << 8 | 2, Relaxed);
    assert_eq!(count(), 10_000);
    // Not written by anybody here: a torn page, say.
    for state in [200, u64::MAX, 77 << 8] {
        canary.state.store(state, Relaxed);
        assert_eq!(count(), 0, "{state}");
    }
    canary.restart(now);
    assert_eq!((canary.status(), canary.evidence()), (CanaryStatus::Step(0), Evidence::default()));
    assert!((900..1_100).contains(&count()));
}

#[test]
fn what_was_found_out_before_a_canary_started_over_is_no_verdict_on_what_came_after() {
    let rule = rule(&[0.5, 1.0]);
    let canary_rule = rule.canary.as_ref().unwrap();
    let now = Timestamp::from_nanos(1);
    let rollout = Rollout::new(&rule, now);
    let canary = rollout.canary().unwrap();
    let new = |side| Side { new: true, ..side };
    let (_, before) = canary.deal(canary_rule);
    let worse = |side: Side| {
        let calls = (0..400).map(|_| (new(side), Sample::failed()));
        let calls = calls.chain((0..400).map(|_| (side, Sample::answered(Duration::ZERO))));
        calls.map(|(side, sample)| canary.record(canary_rule, side, sample)).filter(|worth| *worth).count()
    };
    assert!(worse(before) > 0);
    // Somebody restarts it between the evidence and the verdict.
    canary.restart(now);
    let (_, after) = canary.deal(canary_rule);
    assert_eq!(worse(before), 0, "calls of before are not counted");
    assert_eq!(canary.evidence(), Evidence::default());
    assert!(worse(after) > 0);
    assert_eq!(canary.weigh(canary_rule, before, now), None);
    assert_eq!(canary.status(), CanaryStatus::Step(0));
    let verdict = canary.weigh(canary_rule, after, now);
    assert_eq!(verdict, Some(Change::RolledBack { reason: RollbackReason::Errors }));
}

#[test]
fn processes_that_share_a_canary_find_out_sooner_and_obey_at_once() {
    let rule = rule(&[0.5, 1.0]);
    let now = Timestamp::from_nanos(1);
    let sample = |failed| if failed { Sample::failed() } else { Sample::answered(Duration::ZERO) };
    let plays = |process: &Rollout| {
        let calls = (0..40).flat_map(|call| [(true, call % 6 == 0), (false, false)]);
        let change =
            |(new, failed)| process.after(&rule, Side { new, ..Side::default() }, sample(failed), now);
        calls.filter_map(change).collect::<Vec<_>>()
    };
    assert_eq!(plays(&Rollout::new(&rule, now)), [], "none of them is sure by itself");
    let cell: CanaryHome = Arc::new(Canary::new());
    let processes = [(); 4].map(|()| Rollout::at(Arc::clone(&cell), &rule, now));
    let changes: Vec<Change> = processes.iter().flat_map(plays).collect();
    assert_eq!(changes, [Change::RolledBack { reason: RollbackReason::Errors }], "one of them tells it");
    for process in &processes {
        assert!(
            (0..100)
                .all(|seed| matches!(process.before(&rule, None, seed, true), RolloutVerdict::Old { .. }))
        );
    }
}

#[test]
fn of_many_threads_one_reports_each_change() {
    let rule = rule(&[0.5, 1.0]);
    let now = Timestamp::from_nanos(1);
    for _ in 0..50 {
        let cell: CanaryHome = Arc::new(Canary::new());
        let changes = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            // Two threads of each of two processes.
            let processes = [(); 2].map(|()| Arc::new(Rollout::at(Arc::clone(&cell), &rule, now)));
            for rollout in processes.iter().chain(&processes).map(Arc::clone) {
                let (rule, changes) = (&rule, &changes);
                scope.spawn(move || {
                    for call in 0..400u32 {
                        let side = Side { new: call % 2 == 0, ..Side::default() };
                        let sample =
                            if side.new { Sample::failed() } else { Sample::answered(Duration::ZERO) };
                        let change = rollout.after(rule, side, sample, now);
                        changes.fetch_add(u32::from(change.is_some()), Relaxed);
                    }
                });
            }
        });
        assert_eq!(changes.into_inner(), 1);
    }
}

#[test]
fn a_limit_is_rounded_in_a_verdict_as_where_the_canary_is_shown() {
    let evidence = Evidence { slow_after: Duration::from_micros(30_720), ..Evidence::default() };
    assert!(evidence.in_words(RollbackReason::Slow).starts_with("slower than 31 ms: "), "{evidence:?}");
}
