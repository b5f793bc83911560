//! What the concept promises.

use super::*;
use crate::units::{Currency, Timestamp};
use proptest::prelude::*;

mod threads;

/// 2026-11-21 10:00 UTC.
const NOW: Timestamp = Timestamp::from_nanos(1_795_255_200_000_000_000);

fn requests(amount: u64, period: Period, over: Action) -> Rule {
    let mut rule = Rule::new(Limit { amount, unit: Unit::Requests, period });
    rule.over = over;
    rule
}

fn known(known: u64) -> Spent {
    Spent { known, all: true }
}

fn admitted(verdict: Verdict) -> Reservation {
    match verdict {
        Verdict::Admit(admission) => admission.reservation,
        other => panic!("{other:?}"),
    }
}

fn used(state: &State, rule: &Rule, now: Timestamp) -> u64 {
    state.status(rule, now).used
}

#[test]
fn a_state_is_small() {
    assert!(size_of::<State>() <= 128);
    assert!(size_of::<Reservation>() <= 16);
    assert_eq!(size_of::<Tally>(), 128, "lines of its own");
}

#[test]
fn what_a_call_reserved_and_did_not_spend_is_given_back() {
    let rule = requests(100, Period::Day, Action::Refuse);
    let state = State::new();
    let first = admitted(state.reserve(&rule, 80, NOW));
    let until = Period::Day.end(NOW);
    assert_eq!(state.reserve(&rule, 30, NOW), Verdict::Refuse { until: Some(until) });
    let _ = state.settle(&rule, first, known(50), NOW);
    assert_eq!(used(&state, &rule, NOW), 50);
    let second = admitted(state.reserve(&rule, 50, NOW));
    let _ = state.settle(&rule, second, Spent::NOTHING, NOW);
    assert_eq!((used(&state, &rule, NOW), state.settled()), (50, 50));
    assert_eq!(state.status(&rule, NOW).refused, 1);
}

#[test]
fn a_call_that_alone_is_more_than_the_limit_never_passes() {
    let rule = requests(100, Period::Day, Action::Refuse);
    assert_eq!(State::new().reserve(&rule, 101, NOW), Verdict::Refuse { until: None });
    assert_eq!(State::new().reserve(&rule, u64::MAX, NOW), Verdict::Refuse { until: None });
    let rule = requests(100, Period::Day, Action::Throttle);
    assert_eq!(State::new().reserve(&rule, 101, NOW), Verdict::Refuse { until: None });
}

#[test]
fn what_is_unknown_counts_as_much_as_was_reserved_for_it() {
    let rule = requests(100, Period::Day, Action::Refuse);
    let state = State::new();
    let call = admitted(state.reserve(&rule, 40, NOW));
    let _ = state.settle(&rule, call, Spent { known: 10, all: false }, NOW);
    assert_eq!((used(&state, &rule, NOW), state.settled(), state.status(&rule, NOW).unknown), (40, 40, 1));
    let call = admitted(state.reserve(&rule, 5, NOW));
    let _ = state.settle(&rule, call, Spent { known: 20, all: false }, NOW);
    assert_eq!(used(&state, &rule, NOW), 60, "what is known is more already");
}

#[test]
fn a_new_period_begins_with_nothing_and_counts_what_settles_in_it() {
    let rule = requests(100, Period::Month, Action::Refuse);
    let state = State::new();
    let call = admitted(state.reserve(&rule, 90, NOW));
    let next = Period::Month.end(NOW);
    assert_eq!(used(&state, &rule, next), 0);
    let _ = state.settle(&rule, call, known(70), next);
    assert_eq!(used(&state, &rule, next), 70, "charged when it is spent, and not twice");
    assert_eq!(state.settled(), 70);
}

#[test]
fn a_clock_that_goes_back_a_little_opens_no_second_budget() {
    let rule = requests(10, Period::Minute, Action::Refuse);
    let state = State::new();
    for _ in 0..10 {
        let call = admitted(state.reserve(&rule, 1, NOW));
        let _ = state.settle(&rule, call, known(1), NOW);
    }
    let back = NOW.minus(std::time::Duration::from_secs(300));
    assert!(matches!(state.reserve(&rule, 1, back), Verdict::Refuse { .. }));
    assert!(matches!(state.reserve(&rule, 1, NOW), Verdict::Refuse { .. }), "nor the way forth");
}

#[test]
fn a_leap_of_the_clock_and_back_stops_nobody_for_good() {
    let rule = requests(10, Period::Day, Action::Refuse);
    let state = State::new();
    let far = NOW.plus(std::time::Duration::from_secs(80 * 365 * 86_400));
    let call = admitted(state.reserve(&rule, 10, far));
    let _ = state.settle(&rule, call, known(10), far);
    assert!(
        matches!(state.reserve(&rule, 1, NOW), Verdict::Refuse { until: Some(until) } if until == Period::Day.end(NOW))
    );
    let tomorrow = Period::Day.end(NOW);
    let call = admitted(state.reserve(&rule, 10, tomorrow));
    let _ = state.settle(&rule, call, known(10), tomorrow);
    let end = Timestamp::from_nanos(u64::MAX);
    let _ = admitted(state.reserve(&rule, 10, end));
}

#[test]
fn each_share_warns_once_in_a_period() {
    let mut rule = requests(100, Period::Hour, Action::Warn);
    rule.at = vec![(50, Action::Warn), (80, Action::Warn)];
    let state = State::new();
    let spend = |amount: u64, now: Timestamp| {
        let call = admitted(state.reserve(&rule, amount, now));
        state.settle(&rule, call, known(amount), now).warning
    };
    assert_eq!(spend(49, NOW), None);
    assert_eq!(spend(1, NOW), Some(50));
    assert_eq!(spend(10, NOW), None);
    assert_eq!(spend(50, NOW), Some(100), "beyond two at once: the highest");
    assert_eq!(spend(1, NOW), None);
    let next = Period::Hour.end(NOW);
    assert_eq!(spend(85, next), Some(80), "anew in the next period");
    // Many periods later, when the tag of the first is used again.
    let later = (0..16).fold(next, |now, _| {
        assert_eq!(used(&state, &rule, Period::Hour.end(now)), 0);
        Period::Hour.end(now)
    });
    assert_eq!(spend(50, later), Some(50));
}

#[test]
fn whoever_keeps_a_tally_is_warned_of_each_share_once_too() {
    let mut rule = requests(100, Period::Hour, Action::Warn);
    rule.at = vec![(50, Action::Warn), (80, Action::Warn)];
    let state = State::new();
    let tally = state.tally(0);
    let settle =
        |call: Reservation, spent: u64| state.settle_by(&tally, &rule, call, known(spent), NOW).warning;
    let calls: Vec<_> = (0..6).map(|_| admitted(state.reserve(&rule, 10, NOW))).collect();
    // The fifth reached the first share, and is not through; those before it had not.
    assert!(calls[..4].iter().all(|call| settle(*call, 10).is_none()));
    assert_eq!(settle(calls[5], 10), Some(50), "who came after it, and ended first");
    assert_eq!(settle(calls[4], 10), None);
    // One that reaches a share and gives it back.
    let (back, after) = (admitted(state.reserve(&rule, 20, NOW)), admitted(state.reserve(&rule, 1, NOW)));
    assert_eq!(settle(back, 0), None);
    assert_eq!((settle(after, 1), used(&state, &rule, NOW)), (None, 61));
    let spends_more = admitted(state.reserve(&rule, 1, NOW));
    assert_eq!(settle(spends_more, 30), Some(80));
    // What others spend shows with the next call.
    state.set_elsewhere(&rule, 10, NOW);
    let next = admitted(state.reserve(&rule, 1, NOW));
    assert_eq!(settle(next, 1), Some(100));
    assert_eq!((used(&state, &rule, NOW), state.settled()), (92, 92));
}

#[test]
fn what_stands_in_a_tally_counts_whoever_holds_it() {
    let rule = requests(1_000, Period::Hour, Action::Refuse);
    let state = State::new();
    for round in 1..=40 {
        let tally = state.tally(round as usize % 3);
        let call = admitted(state.reserve(&rule, 3, NOW));
        let _ = state.settle_by(&tally, &rule, call, known(3), NOW);
        assert_eq!(state.settled(), 3 * round);
    }
    assert_eq!((state.settled(), used(&state, &rule, NOW)), (120, 120));
}

#[test]
fn beyond_the_limit_calls_pass_or_wait_or_take_a_cheaper_model_as_the_rule_says() {
    let then = |over| {
        let rule = requests(10, Period::Day, over);
        let state = State::new();
        let _ = admitted(state.reserve(&rule, 10, NOW));
        state.reserve(&rule, 1, NOW)
    };
    assert!(matches!(then(Action::Warn), Verdict::Admit(Admission { then: Some(Then::Over), .. })));
    assert!(matches!(then(Action::Downgrade), Verdict::Admit(Admission { then: Some(Then::Downgrade), .. })));
    assert_eq!(then(Action::Throttle), Verdict::Wait { until: Period::Day.end(NOW) });
    assert_eq!(then(Action::Refuse), Verdict::Refuse { until: Some(Period::Day.end(NOW)) });
}

#[test]
fn from_a_share_on_calls_take_a_cheaper_model() {
    let mut rule = requests(10, Period::Day, Action::Refuse);
    rule.at = vec![(50, Action::Warn), (80, Action::Downgrade)];
    let state = State::new();
    let verdict = |state: &State| state.reserve(&rule, 1, NOW);
    for _ in 0..8 {
        assert!(matches!(verdict(&state), Verdict::Admit(Admission { then: None, .. })));
    }
    assert!(matches!(verdict(&state), Verdict::Admit(Admission { then: Some(Then::Downgrade), .. })));
}

#[test]
fn a_throttle_spreads_what_is_left_over_the_rest_of_the_period() {
    let mut rule = requests(100, Period::Hour, Action::Refuse);
    rule.at = vec![(80, Action::Throttle)];
    let state = State::new();
    let start = Period::Hour.start(Period::Hour.number(NOW));
    // Eighty at once, ten minutes into the hour.
    let mut now = start.plus_millis(600_000);
    let _ = admitted(state.reserve(&rule, 80, now));
    let mut passed = 0;
    let end = Period::Hour.end(start);
    let mut last = now;
    while now < end {
        match state.reserve(&rule, 1, now) {
            Verdict::Admit(_) => {
                passed += 1;
                let gap = now.since(last).as_secs();
                assert!((149..=151).contains(&gap), "every 150 seconds, not {gap}");
                last = now;
            }
            Verdict::Wait { until } => {
                assert!(until > now && until <= end);
                now = until;
            }
            Verdict::Refuse { .. } => break,
        }
    }
    assert!((19..=20).contains(&passed), "{passed}");
}

#[test]
fn what_others_spent_counts_in_its_period_only() {
    let rule = requests(100, Period::Minute, Action::Refuse);
    let state = State::new();
    state.set_elsewhere(&rule, 95, NOW);
    assert!(matches!(state.reserve(&rule, 10, NOW), Verdict::Refuse { .. }));
    let _ = admitted(state.reserve(&rule, 5, NOW));
    state.set_elsewhere(&rule, u64::MAX, NOW);
    assert!(matches!(state.reserve(&rule, 1, NOW), Verdict::Refuse { .. }));
    // Also where the tag comes around again after sixteen periods.
    for periods in 1..=33 {
        let later = NOW.plus(std::time::Duration::from_secs(60 * periods));
        let _ = admitted(state.reserve(&rule, 100, later));
    }
}

#[test]
fn a_budget_counts_one_currency_and_tallies_the_others() {
    let limit = Limit { amount: 1_000, unit: Unit::Money(Currency::USD), period: Period::Day };
    let rule = Rule::new(limit);
    let eur = Money::from_nanos(500, Currency::EUR);
    assert_eq!(rule.amount(eur, 7), 0);
    assert_eq!(rule.spent(eur, true, Some(7)), Spent { known: 0, all: false });
    assert_eq!(rule.spent(Money::zero(Currency::EUR), true, None), Spent::NOTHING);
    let usd = Money::from_nanos(500, Currency::USD);
    assert_eq!((rule.amount(usd, 7), rule.spent(usd, false, None)), (500, Spent { known: 500, all: false }));
    assert_eq!(rule.amount(Money::from_nanos(-5, Currency::USD), 7), 0);
    let tokens = Rule::new(Limit { unit: Unit::Tokens, ..limit });
    assert_eq!((tokens.amount(usd, 7), tokens.spent(usd, true, None)), (7, Spent { known: 0, all: false }));
}

#[test]
fn a_thread_that_was_late_counts_in_the_period_that_there_is() {
    let rule = requests(40, Period::Minute, Action::Refuse);
    let state = State::new();
    let minute = |number: u64| NOW.plus_millis(number * 60_000);
    // It looks at the clock, and the others go on and spend all of a later minute.
    let late = minute(0);
    let _ = admitted(state.reserve(&rule, 40, minute(60)));
    assert!(matches!(state.reserve(&rule, 1, late), Verdict::Refuse { .. }));
    assert!(matches!(state.reserve(&rule, 1, minute(60)), Verdict::Refuse { .. }), "it is not opened again");
    assert_eq!(used(&state, &rule, minute(60)), 40);
    // One that reserved before the turn and settles after it takes nothing of the next account but what it spent.
    let reserved = admitted(state.reserve(&rule, 3, minute(61)));
    let _ = admitted(state.reserve(&rule, 5, minute(62)));
    let _ = state.settle(&rule, reserved, known(1), minute(61));
    assert_eq!(used(&state, &rule, minute(62)), 6);
}

#[test]
fn a_clock_that_leaps_back_and_returns_finds_what_was_spent() {
    for (period, away) in [(Period::Minute, 3_660), (Period::Day, 3 * 86_400), (Period::Month, 100 * 86_400)]
    {
        let rule = requests(40, period, Action::Refuse);
        let state = State::new();
        let before = Timestamp::from_nanos(NOW.as_nanos() - away * 1_000_000_000);
        let _ = admitted(state.reserve(&rule, 30, NOW));
        // So does a thread that was held up for so long after it looked at the clock.
        let _ = admitted(state.reserve(&rule, 4, before));
        assert_eq!(used(&state, &rule, before), 34);
        assert_eq!(used(&state, &rule, NOW), 34);
        let _ = admitted(state.reserve(&rule, 6, NOW));
        assert!(matches!(state.reserve(&rule, 1, before), Verdict::Refuse { .. }));
        assert!(matches!(state.reserve(&rule, 1, NOW), Verdict::Refuse { .. }));
        // The next period is one of its own, also after that of a leap.
        let next = period.start(period.number(NOW) + 1);
        assert_eq!((used(&state, &rule, before), used(&state, &rule, next)), (40, 0));
    }
}

#[derive(Clone, Debug)]
enum Event {
    Reserve(u64),
    /// Which call, what it cost (`None`: what was set aside), whether that is all, and by which tally.
    Settle(usize, Option<u64>, bool, usize),
    /// The tally of that number goes, and another one comes.
    Anew(usize),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0u64..400).prop_map(Event::Reserve),
        4 => (0usize..8, proptest::option::of(0u64..600), any::<bool>(), 0usize..3)
            .prop_map(|(which, cost, all, by)| Event::Settle(which, cost, all, by)),
        1 => (0usize..2).prop_map(Event::Anew),
        1 => (0u64..90).prop_map(Event::Pass),
    ]
}

proptest! {
    #[test]
    fn the_account_is_what_a_ledger_of_all_calls_says(events in proptest::collection::vec(event(), 1..200)) {
        let rule = requests(1_000, Period::Minute, Action::Refuse);
        let state = State::new();
        let mut tallies = [state.tally(0), state.tally(5)];
        let mut now = NOW;
        let mut open: Vec<(Reservation, u64, u64)> = Vec::new();
        // What was charged in the current period, and by all calls ever.
        let (mut charged, mut ever) = (0u64, 0u64);
        for event in events {
            let minute = Period::Minute.number(now);
            let reserved: u64 = open.iter().filter(|(_, _, of)| *of == minute).map(|(_, amount, _)| amount).sum();
            prop_assert_eq!(used(&state, &rule, now), charged + reserved);
            match event {
                Event::Reserve(amount) => match state.reserve(&rule, amount, now) {
                    Verdict::Admit(admission) => {
                        prop_assert!(charged + reserved + amount <= 1_000);
                        open.push((admission.reservation, amount, minute));
                    }
                    _ => prop_assert!(charged + reserved + amount > 1_000),
                },
                Event::Settle(which, cost, all, by) if !open.is_empty() => {
                    let (call, amount, _) = open.swap_remove(which % open.len());
                    let cost = cost.unwrap_or(amount);
                    let spent = Spent { known: cost, all };
                    let _ = match tallies.get(by) {
                        Some(tally) => state.settle_by(tally, &rule, call, spent, now),
                        None => state.settle(&rule, call, spent, now),
                    };
                    let charge = if all { cost } else { cost.max(amount) };
                    (charged, ever) = (charged + charge, ever + charge);
                }
                Event::Settle(..) => {}
                Event::Anew(which) => tallies[which] = state.tally(which),
                Event::Pass(seconds) => {
                    now = now.plus_millis(seconds * 1_000);
                    if Period::Minute.number(now) != minute {
                        charged = 0;
                    }
                }
            }
            prop_assert_eq!(state.settled(), ever);
        }
    }

    #[test]
    fn no_clock_and_no_amount_make_it_panic_or_hang(
        steps in proptest::collection::vec((any::<u64>(), any::<u64>(), 0usize..5, any::<bool>()), 1..60),
    ) {
        let state = State::new();
        for (nanos, amount, which, all) in steps {
            let mut rule = requests(Limit::MAX, Period::WORDS[which].1, Action::Throttle);
            rule.at = vec![(1, Action::Throttle), (50, Action::Warn)];
            let now = Timestamp::from_nanos(nanos);
            match state.reserve(&rule, amount, now) {
                Verdict::Admit(admission) => {
                    let _ = state.settle(&rule, admission.reservation, Spent { known: amount / 2, all }, now);
                }
                Verdict::Wait { until } => prop_assert!(until >= now),
                Verdict::Refuse { .. } => {}
            }
        }
    }
}
