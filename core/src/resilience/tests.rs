//! The parts together, against a simulated vendor: what an outage costs.

use super::*;
use crate::units::Timestamp;

/// Two minutes of 100 calls a second, the vendor down from the tenth second to the fortieth.
struct Outage {
    /// Attempts while the vendor was down.
    during: u32,
    /// Calls that failed, or were not sent, while it was up.
    lost_after: u32,
    /// Calls while it was down.
    calls: u32,
}

fn play(retry: Option<&RetryRule>, breaker: Option<&BreakerRule>) -> Outage {
    let start = Timestamp::from_nanos(1_700_000_000_000_000_000);
    let (budget, state) = (Budget::new(), Breaker::new());
    let mut told = Outage { during: 0, lost_after: 0, calls: 0 };
    // (moment, seed, attempts so far), in the order of time.
    let mut due: std::collections::BTreeSet<(Timestamp, u64, u32)> =
        (0..12_000).map(|n| (start.plus_millis(n * 10), n, 0)).collect();
    while let Some((now, seed, attempts)) = due.pop_first() {
        let down = (10..40).contains(&now.since(start).as_secs());
        if attempts == 0 {
            budget.call(now);
            told.calls += u32::from(down);
        }
        let mut pass = Pass::Normal;
        if let Some(rule) = breaker {
            match state.before(rule, now) {
                BreakerVerdict::Pass(passed) => pass = passed,
                BreakerVerdict::Open { .. } => {
                    told.lost_after += u32::from(!down);
                    continue;
                }
            }
        }
        told.during += u32::from(down);
        let ending = Ending::Status(if down { 503 } else { 200 });
        if let Some(rule) = breaker {
            state.after(rule, pass, Judgement::of(ending), now);
        }
        let facts = RetryFacts::new("GET", ending, attempts + 1, now, seed);
        if let Some(RetryVerdict::Retry { at, .. }) = retry.map(|rule| rule.retry(&facts, &budget)) {
            due.insert((at, seed, attempts + 1));
        }
    }
    told
}

#[test]
fn retries_add_a_fifth_of_the_calls_of_the_outage_and_of_the_ten_seconds_before() {
    let (without, with) = (play(None, None), play(Some(&RetryRule::default()), None));
    assert_eq!(without.during, without.calls);
    let (retries, allowed) = (with.during - without.during, (without.calls + 10 * 100) / 5);
    assert!(retries > allowed / 2 && retries <= allowed, "{retries} retries for {allowed}");
}

#[test]
fn a_breaker_spares_a_vendor_that_is_down_and_lets_calls_through_when_it_is_back() {
    let told = play(Some(&RetryRule::default()), Some(&BreakerRule::default()));
    assert!(told.during <= 10, "{} of {} attempts reached it", told.during, told.calls);
    // It opened just after the tenth second, and asks again half a minute later.
    assert!(told.lost_after <= 20, "{}", told.lost_after);
}

#[test]
fn no_retry_comes_after_the_deadline_in_any_outage() {
    let (rule, budget) = (RetryRule { attempts: 20, ..RetryRule::default() }, Budget::new());
    let start = Timestamp::from_nanos(1_700_000_000_000_000_000);
    for seed in 0..500 {
        budget.call(start.plus_millis(seed * 1_000));
        let begun = start.plus_millis(seed * 1_000);
        let deadline = Deadline::new(begun, Some(Duration::from_secs(2)), None);
        let (mut now, mut attempt) = (begun, 1);
        loop {
            let facts =
                RetryFacts { deadline, ..RetryFacts::new("GET", Ending::Status(500), attempt, now, seed) };
            match rule.retry(&facts, &budget) {
                RetryVerdict::Retry { at, .. } => (now, attempt) = (at, attempt + 1),
                RetryVerdict::Stop(_) => break,
            }
            assert!(now.since(begun) < Duration::from_secs(2));
        }
    }
}

#[test]
fn each_part_comes_from_the_first_rule_that_has_it() {
    let strong = Rule { deadline: Some(Duration::from_secs(1)), ..Rule::default() };
    let weak = Rule {
        deadline: Some(Duration::from_secs(9)),
        breaker: Some(BreakerRule::default()),
        retry: Some(RetryRule::default()),
        ..Rule::default()
    };
    let rule = strong.or(&weak);
    assert_eq!(rule.deadline, strong.deadline);
    assert_eq!((rule.breaker, &rule.retry, rule.hedge), (weak.breaker, &weak.retry, None));
}
