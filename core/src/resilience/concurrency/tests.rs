use super::*;
use proptest::prelude::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000).plus_millis(millis)
}

fn fixed(limit: u32) -> ConcurrencyRule {
    ConcurrencyRule::new(Limit::Fixed(limit))
}

fn ask(state: &Concurrency, rule: &ConcurrencyRule) -> ConcurrencyVerdict {
    state.before(rule, at(0), Deadline::NONE, at(0))
}

/// Asks as one who has waited.
fn ask_again(state: &Concurrency, rule: &ConcurrencyRule) -> ConcurrencyVerdict {
    state.before(rule, at(0), Deadline::NONE, at(1))
}

#[test]
fn a_fixed_limit_holds_and_a_dropped_call_gives_its_place_back() {
    let rule = fixed(2);
    let state = Concurrency::new();
    assert_eq!(ask(&state, &rule), ConcurrencyVerdict::Pass);
    assert_eq!(ask(&state, &rule), ConcurrencyVerdict::Pass);
    assert_eq!(ask(&state, &rule), ConcurrencyVerdict::Wait { until: at(1) });
    state.after(&rule, Released::Nothing, at(0));
    assert_eq!(ask_again(&state, &rule), ConcurrencyVerdict::Pass);
    assert_eq!(state.under_way(), 2);
}

#[test]
fn a_reloaded_rule_holds_at_once() {
    let (state, wide, narrow) = (Concurrency::new(), fixed(100), fixed(2));
    for _ in 0..10 {
        assert_eq!(ask(&state, &wide), ConcurrencyVerdict::Pass);
    }
    assert_ne!(ask(&state, &narrow), ConcurrencyVerdict::Pass);
    let bounded = ConcurrencyRule::new(Limit::Adaptive { least: 1, most: 5 });
    assert_eq!(state.limit(&bounded), 5);
}

#[test]
fn nobody_waits_longer_than_the_rule_or_the_deadline_says() {
    let rule = fixed(1);
    let state = Concurrency::new();
    let _ = ask(&state, &rule);
    let (mut now, mut asked) = (at(0), 0);
    while let ConcurrencyVerdict::Wait { until } = state.before(&rule, at(0), Deadline::NONE, now) {
        (now, asked) = (until, asked + 1);
    }
    assert!(now.since(at(0)) <= rule.max_wait && asked <= 1_000);
    let deadline = Deadline::new(at(0), Some(Duration::from_millis(1)), None);
    assert_eq!(state.before(&rule, at(0), deadline, at(0)), ConcurrencyVerdict::Full);
    let patient = ConcurrencyRule { max_wait: Duration::ZERO, ..rule };
    assert_eq!(ask(&state, &patient), ConcurrencyVerdict::Full);
}

#[test]
fn a_call_that_comes_leaves_the_place_to_one_that_waits() {
    let rule = fixed(1);
    let state = Concurrency::new();
    let _ = ask(&state, &rule);
    let ConcurrencyVerdict::Wait { until } = ask(&state, &rule) else { panic!("it is taken") };
    state.after(&rule, Released::Nothing, at(0));
    assert!(matches!(ask(&state, &rule), ConcurrencyVerdict::Wait { .. }), "it is somebody else's turn");
    assert_eq!(state.before(&rule, at(0), Deadline::NONE, until), ConcurrencyVerdict::Pass);
    state.after(&rule, Released::Nothing, until);
    // Who may not wait takes what is free, and nobody who waits no more keeps it from others for long.
    let impatient = ConcurrencyRule { max_wait: Duration::ZERO, ..rule };
    assert_eq!(ask(&state, &impatient), ConcurrencyVerdict::Pass);
    state.after(&rule, Released::Nothing, until);
    let later = until.plus_millis(80);
    assert_eq!(state.before(&rule, later, Deadline::NONE, later), ConcurrencyVerdict::Pass);
}

/// What comes of `callers`, each of whom makes one call after another, of `millis` each, for a minute: how many
/// calls were made in all, by him who made fewest, how often places were asked for, and the longest wait.
fn a_minute_of(callers: usize, rule: &ConcurrencyRule, millis: u64) -> (u64, u64, u64, Duration) {
    use std::{cmp::Reverse, collections::BinaryHeap};
    let state = Concurrency::new();
    let (mut made, mut asks, mut longest) = (vec![0; callers], 0, Duration::ZERO);
    // Whose moment it is, and since when he waits; one who has a place gives it back.
    let mut moments: BinaryHeap<_> = (0..callers).map(|who| Reverse((at(0), who, Some(at(0))))).collect();
    while let Some(Reverse((now, who, since))) = moments.pop()
        && now < at(60_000)
    {
        if since.is_none() {
            state.after(rule, Released::Answered(Duration::from_millis(millis)), now);
            made[who] += 1;
        }
        let since = since.unwrap_or(now);
        asks += 1;
        moments.push(Reverse(match state.before(rule, since, Deadline::NONE, now) {
            ConcurrencyVerdict::Pass => {
                longest = longest.max(now.since(since));
                (now.plus_millis(millis), who, None)
            }
            ConcurrencyVerdict::Wait { until } => (until, who, Some(since)),
            ConcurrencyVerdict::Full => panic!("{who} ran out of patience at {now:?}"),
        }));
    }
    (made.iter().sum(), made.into_iter().min().unwrap(), asks, longest)
}

#[test]
fn many_who_wait_ask_seldom_and_each_of_them_gets_his_turn() {
    for (callers, limit, millis) in [(200, 40, 1_000), (44, 4, 20), (2, 1, 500), (200, 8, 4)] {
        let rule = ConcurrencyRule { max_wait: Duration::from_secs(60), ..fixed(limit) };
        let (made, fewest, asks, longest) = a_minute_of(callers, &rule, millis);
        let told = format!("{callers} over {limit}, {millis} ms: {made}, {fewest}, {asks}, {longest:?}");
        let could = 60_000 / millis * u64::from(limit);
        assert!(made * 4 >= could * 3, "places stand empty: {told}");
        assert!(fewest * callers as u64 * 3 >= made, "some go before others: {told}");
        assert!(asks <= made * 100, "{told}");
    }
}

#[test]
fn a_place_given_back_twice_opens_no_second_one() {
    let rule = fixed(1);
    let state = Concurrency::new();
    state.after(&rule, Released::Nothing, at(0));
    assert_eq!(state.under_way(), 0);
    assert_eq!(ask(&state, &rule), ConcurrencyVerdict::Pass);
    assert!(matches!(ask(&state, &rule), ConcurrencyVerdict::Wait { .. }));
}

/// A vendor that serves `capacity` calls at once in 100 ms each, and queues what is beyond.
fn settle_at(capacity: u32, rule: &ConcurrencyRule) -> u32 {
    let state = Concurrency::new();
    for round in 0..3_000 {
        let mut sent = 0;
        while ask_again(&state, rule) == ConcurrencyVerdict::Pass {
            sent += 1;
        }
        let latency = 100.0 * (f64::from(sent) / f64::from(capacity)).max(1.0);
        for _ in 0..sent {
            state.after(rule, Released::Answered(Duration::from_secs_f64(latency / 1e3)), at(round));
        }
    }
    // What it goes back to, where a measurement is under way at the end.
    state.limit(rule).max(state.gradient.lock().unwrap().held as u32)
}

#[test]
fn an_adaptive_limit_finds_about_what_the_vendor_takes() {
    let rule = ConcurrencyRule::new(Limit::ADAPTIVE);
    assert_eq!(settle_at(100_000, &rule), 200, "a vendor that never slows down is limited by `most`");
    for capacity in [2, 10, 60] {
        let limit = settle_at(capacity, &rule);
        assert!((capacity..=capacity * 2 + 2).contains(&limit), "{limit} for {capacity}");
    }
}

#[test]
fn answers_of_too_much_shrink_it_but_not_to_nothing() {
    let rule = ConcurrencyRule::new(Limit::ADAPTIVE);
    let state = Concurrency::new();
    (0..100).for_each(|_| state.after(&rule, Released::Overloaded, at(0)));
    assert_eq!(state.limit(&rule), 18, "once in a tenth of a second");
    (0..100_000).for_each(|millis| state.after(&rule, Released::Overloaded, at(millis)));
    assert_eq!(state.limit(&rule), 1);
}

#[test]
fn it_does_not_grow_while_it_is_not_used() {
    let rule = ConcurrencyRule::new(Limit::ADAPTIVE);
    let state = Concurrency::new();
    for millis in 0..10_000 {
        let _ = ask(&state, &rule);
        state.after(&rule, Released::Answered(Duration::from_millis(1)), at(millis));
    }
    assert_eq!(state.limit(&rule), INITIAL);
}

proptest! {
    #[test]
    fn the_limit_stays_within_its_bounds(
        least in 1u32..50, more in 0u32..500, events in prop::collection::vec((0u8..3, any::<u64>()), 1..500)
    ) {
        let rule = ConcurrencyRule::new(Limit::Adaptive { least, most: least + more });
        let state = Concurrency::new();
        for (what, number) in events {
            let _ = state.before(&rule, at(0), Deadline::NONE, Timestamp::from_nanos(number));
            let released = match what {
                0 => Released::Answered(Duration::from_micros(number)),
                1 => Released::Overloaded,
                _ => Released::Nothing,
            };
            state.after(&rule, released, Timestamp::from_nanos(number));
            prop_assert!((least..=least + more).contains(&state.limit(&rule)), "{}", state.limit(&rule));
        }
    }
}

#[test]
fn many_threads_never_exceed_the_limit_and_lose_no_place() {
    let rule = fixed(3);
    let (state, inside) = (Concurrency::new(), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    if ask_again(&state, &rule) == ConcurrencyVerdict::Pass {
                        assert!(inside.fetch_add(1, Relaxed) < 3);
                        std::hint::spin_loop();
                        inside.fetch_sub(1, Relaxed);
                        state.after(&rule, Released::Answered(Duration::from_millis(1)), at(0));
                    }
                }
            });
        }
    });
    assert_eq!(state.under_way(), 0);
}
