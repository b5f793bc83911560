//! A second attempt beside a slow first one, through the engine alone.
#![allow(clippy::unwrap_used)]

use farcall::resilience::Ending;
use farcall::{Attempt, Call, Caller, Config, Engine, ErrorType, Head, Outcome, Step, Timestamp};
use std::time::Duration;

const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);
const HEDGED: &str =
    "[[resilience]]\nmatch = { vendor = \"stripe\" }\nhedge = { after = \"100ms\", budget = \"50%\" }\n";

fn engine(rules: &str) -> Engine {
    let config = Config::parse("farcall.toml", rules).unwrap_or_else(|errors| panic!("{errors:?}"));
    Engine::new(config, Caller::new("checkout"), 1, 42)
}

fn at(millis: u64) -> Timestamp {
    T0.plus_millis(millis)
}

fn begin(engine: &Engine) -> (Call, Attempt) {
    let head = Head::new("GET", "https://api.stripe.com/v1/charges").body(Some(0), true);
    let mut call = engine.begin(&head, T0, 1);
    match call.step(engine, T0) {
        Step::Send(attempt) => (call, attempt),
        step => panic!("{step:?}"),
    }
}

#[test]
fn the_faster_of_two_attempts_is_the_calls_answer() {
    let engine = engine(HEDGED);
    let (mut call, first) = begin(&engine);
    assert_eq!((first.number, first.hedge_at), (1, Some(at(100))));
    let second = call.hedge(&engine, at(100)).unwrap();
    assert_eq!((second.number, second.hedge_at), (2, None));
    assert!(call.hedge(&engine, at(101)).is_none(), "two at a time");
    call.lost(&engine, 1, None, at(150));
    call.answer(&engine, 200, &[("x", "y")], at(150));
    assert_eq!(call.step(&engine, at(150)), Step::Settled);
    call.end(&engine, at(160));
    let batch = engine.drain(at(200));
    let row = &batch.rows[0];
    assert_eq!((row.status, row.sums.calls, row.sums.attempts), (200, 1, 2));
    assert_eq!(row.sums.ttfb, Duration::from_millis(150));
    let events: Vec<&str> = batch.exemplars[0].events.lines().collect();
    assert_eq!(events[0], "+100.0 ms  no answer yet: a second attempt beside the first");
    assert_eq!(events[1], "+150.0 ms  of the two the first was given up: the other one counts");
}

#[test]
fn one_that_fails_leaves_the_other_one_under_way() {
    let engine = engine(HEDGED);
    let (mut call, _) = begin(&engine);
    call.hedge(&engine, at(100)).unwrap();
    call.lost(&engine, 2, Some(Ending::Error(ErrorType::Connect)), at(110));
    call.answer(&engine, 200, &[("x", "y")], at(400));
    assert_eq!(call.step(&engine, at(400)), Step::Settled);
    call.end(&engine, at(400));
    let batch = engine.drain(at(500));
    assert_eq!((batch.rows[0].outcome, batch.rows[0].sums.attempts), (Outcome::Complete, 2));
    assert!(batch.exemplars[0].events.contains("the second failed (connect)"), "{:?}", batch.exemplars[0]);
}

#[test]
fn a_quota_without_room_allows_no_second_attempt_and_loses_nothing() {
    let quota = "[[quota]]\nmatch = { vendor = \"stripe\" }\nlimit = \"3 requests / 1h\"\nburst = 3\nmax_wait = \"5s\"\n";
    let engine = engine(&format!("{HEDGED}{quota}"));
    let (mut first, _) = begin(&engine);
    assert!(first.hedge(&engine, at(100)).is_some(), "that makes two of three");
    let (mut last, _) = begin(&engine);
    assert!(last.hedge(&engine, at(100)).is_none(), "there is no fourth");
    last.head(200, at(110));
    assert_eq!(last.step(&engine, at(110)), Step::Settled);
    last.end(&engine, at(110));
    first.end(&engine, at(110));
    assert!(engine.drain(at(200)).incidents.is_empty(), "nobody was refused");
}
