//! What SDKs try again by themselves is one call: through the engine alone, time is a number, nothing is sent.
#![allow(clippy::unwrap_used)]

use farcall::ledger::{Batch, Rollup};
use farcall::resilience::EarlierAttempts;
use farcall::{Caller, Config, Engine, ErrorType, Head, Outcome, RefusedBy, Step, Timestamp};
use std::time::Duration;

/// Ten seconds before a minute turns.
const T0: Timestamp = Timestamp::from_nanos(1_763_700_050_000_000_000);
/// A rule about another vendor: grouping needs headers, and these are looked at where any rule is.
const ANY: &str = "[[quota]]\nmatch = { vendor = \"github\" }\nmax_wait = \"1s\"\n";

fn engine(rules: &str) -> Engine {
    let config = Config::parse("farcall.toml", rules).unwrap_or_else(|errors| panic!("{errors:?}"));
    Engine::new(config, Caller::new("checkout"), 2, 42)
}

fn at(millis: u64) -> Timestamp {
    T0.plus_millis(millis)
}

type Fields<'a> = &'a [(&'a str, &'a str)];

const URL: &str = "https://api.openai.com/v1/responses";

/// An attempt from `begun` to `ended`, of ten bytes out and five in.
fn attempt(
    engine: &Engine,
    sent: Fields<'_>,
    customer: &str,
    answer: Result<(u16, Fields<'_>), ErrorType>,
    (begun, ended): (u64, u64),
) -> u64 {
    let head = Head::new("POST", URL).customer(Some(customer)).headers(&sent).body(Some(10), true);
    let mut call = engine.begin(&head, at(begun), begun);
    let Step::Send(_) = call.step(engine, at(begun)) else { panic!("not sent") };
    call.sent(10);
    match answer {
        Ok((status, headers)) => call.answer(engine, status, &headers, at(ended)),
        Err(error) => call.failed(error),
    }
    assert_eq!(call.step(engine, at(ended)), Step::Settled);
    call.body(5);
    call.end(engine, at(ended));
    call.id()
}

const FIRST: Fields<'_> = &[("x-stainless-retry-count", "0")];
const SECOND: Fields<'_> = &[("x-stainless-retry-count", "1")];
const THIRD: Fields<'_> = &[("x-stainless-retry-count", "2")];

fn only(batch: &Batch) -> &Rollup {
    assert_eq!(batch.rows.len(), 1, "{:?}", batch.rows);
    &batch.rows[0]
}

#[test]
fn attempts_of_an_sdk_are_one_call_with_the_last_ones_outcome_and_all_that_they_took() {
    let engine = engine(ANY);
    let first = attempt(&engine, FIRST, "acme", Ok((503, &[])), (0, 120));
    assert!(engine.drain(at(130)).rows.is_empty(), "nobody knows yet whether that was all");
    let second = attempt(&engine, SECOND, "acme", Err(ErrorType::Reset), (620, 700));
    assert!(engine.drain(at(710)).rows.is_empty());
    let third = attempt(&engine, THIRD, "acme", Ok((200, &[])), (1_700, 2_000));
    let batch = engine.drain(at(2_000));
    let row = only(&batch);
    assert_eq!((row.status, row.outcome), (200, Outcome::Complete));
    assert_eq!((row.sums.calls, row.sums.attempts), (1, 3));
    assert_eq!((row.sums.bytes_out, row.sums.bytes_in), (30, 15));
    assert_eq!(row.sums.duration, Duration::from_millis(2_000), "the SDK's waits are the application's");
    assert_eq!(row.sums.ttfb, Duration::from_millis(2_000));
    assert_eq!((first, second), (third, third), "one id");
    let exemplar = &batch.exemplars[0];
    assert_eq!((exemplar.id, exemplar.begun, exemplar.attempts), (first, T0, 3));
    let lines: Vec<&str> = exemplar.events.lines().collect();
    assert_eq!(lines[0], "+120.0 ms  answered 503: the SDK above (stainless) tries again after 500.0 ms");
    assert_eq!(lines[1], "+700.0 ms  failed (reset): the SDK above (stainless) tries again after 1000.0 ms");
    assert!(engine.drain(at(300_000)).rows.is_empty(), "counted once");
}

#[test]
fn an_sdk_that_gives_up_is_counted_as_it_was_in_its_own_minute() {
    let engine = engine(ANY);
    attempt(&engine, FIRST, "acme", Ok((503, &[])), (0, 100));
    attempt(&engine, SECOND, "acme", Ok((503, &[])), (600, 700));
    assert!(engine.drain(at(9_000)).rows.is_empty(), "the SDK may wait eight seconds");
    attempt(&engine, FIRST, "acme", Ok((503, &[("x-should-retry", "false")])), (10_500, 10_600));
    let batch = engine.drain(at(11_000));
    let minute = |row: &&Rollup| row.minute;
    assert_eq!(batch.rows.len(), 2);
    let (before, after) =
        (batch.rows.iter().min_by_key(minute).unwrap(), batch.rows.iter().max_by_key(minute).unwrap());
    assert_eq!((before.minute, before.sums.calls, before.sums.attempts), (at(700).minute(), 1, 2));
    assert_eq!(before.sums.duration, Duration::from_millis(700));
    assert_eq!((after.minute, after.sums.calls, after.sums.attempts), (at(10_600).minute(), 1, 1));
    assert_ne!(
        before.minute, after.minute,
        "what nobody retries is counted at once, and the minute had turned"
    );
}

#[test]
fn what_waits_is_counted_before_the_end() {
    let engine = engine(ANY);
    attempt(&engine, FIRST, "acme", Ok((429, &[("retry-after", "60")])), (0, 100));
    assert!(engine.drain(at(30_000)).rows.is_empty(), "it was asked to come back after a minute");
    engine.finish();
    let batch = engine.drain(at(30_000));
    assert_eq!((only(&batch).status, only(&batch).sums.calls), (429, 1));
}

#[test]
fn calls_that_interleave_stay_apart() {
    let engine = engine(ANY);
    let key = |key: &'static str| [("x-stripe-client-user-agent", "{}"), ("idempotency-key", key)];
    let (a, b) = (key("a"), key("b"));
    attempt(&engine, &a, "acme", Ok((503, &[])), (0, 10));
    attempt(&engine, &b, "globex", Ok((503, &[])), (1, 11));
    attempt(&engine, &b, "acme", Ok((200, &[])), (500, 510));
    attempt(&engine, &a, "acme", Ok((200, &[])), (600, 610));
    engine.finish();
    let mut rows = engine.drain(at(700)).rows;
    rows.sort_by_key(|row| (row.customer.to_string(), row.sums.attempts));
    let rows: Vec<_> =
        rows.iter().map(|row| (&*row.customer, row.status, row.sums.calls, row.sums.attempts)).collect();
    // Two of acme's: one with two attempts, one with one. Its second did not go on from globex's.
    assert_eq!(rows, [("acme", 200, 2, 3), ("globex", 503, 1, 1)]);
}

#[test]
fn the_sidecar_is_told_of_each_attempt_when_it_ends() {
    let engine = engine(ANY);
    engine.record_sightings(true);
    attempt(&engine, FIRST, "acme", Ok((503, &[])), (0, 120));
    let told = engine.drain(at(130)).sightings;
    assert_eq!((told.len(), told[0].status, told[0].attempts), (1, 503, 1));
    assert_eq!((told[0].begun, told[0].ended), (at(0), at(120)));
    attempt(&engine, SECOND, "acme", Ok((200, &[])), (620, 700));
    let told = engine.drain(at(710)).sightings;
    assert_eq!((told.len(), told[0].status, told[0].attempts), (1, 200, 1));
    assert_eq!((told[0].begun, told[0].ended), (at(620), at(700)));
    engine.finish();
    assert!(engine.drain(at(720)).sightings.is_empty(), "told once");
}

#[test]
fn an_attempt_that_a_rule_refuses_ends_the_call() {
    let engine = engine("[[resilience]]\nmatch = { vendor = \"openai\" }\nbreaker = { consecutive = 1 }\n");
    attempt(&engine, FIRST, "acme", Ok((503, &[])), (0, 100));
    let head = Head::new("POST", URL).customer(Some("acme")).headers(&SECOND).body(Some(10), true);
    let mut second = engine.begin(&head, at(600), 2);
    let Step::Refuse(_) = second.step(&engine, at(600)) else { panic!("the breaker is open") };
    let batch = engine.drain(at(600));
    assert_eq!(only(&batch).outcome, Outcome::Refused(RefusedBy::Breaker));
    assert_eq!((only(&batch).sums.calls, only(&batch).sums.attempts), (1, 1), "one attempt went out");
}

#[test]
fn a_flood_of_failures_is_counted_whole() {
    let engine = engine(ANY);
    let many = EarlierAttempts::<()>::MAX as u64 + 3_000;
    for number in 0..many {
        let key = number.to_string();
        let fields = [("x-stripe-client-user-agent", "{}"), ("idempotency-key", key.as_str())];
        attempt(&engine, &fields, "acme", Ok((503, &[])), (number, number + 1));
    }
    assert!(engine.counters().ungrouped_attempts >= 3_000);
    engine.finish();
    let rows = engine.drain(at(many)).rows;
    assert_eq!(rows.iter().map(|row| row.sums.calls).sum::<u64>(), many);
}

#[test]
fn a_vendors_word_about_another_attempt_is_believed() {
    let engine = engine("[[resilience]]\nmatch = { vendor = \"openai\" }\nattempts = 3\n");
    let tries = |status: u16, word: &str| {
        let head = Head::new("GET", URL).body(Some(0), true);
        let mut call = engine.begin(&head, T0, 7);
        let Step::Send(_) = call.step(&engine, T0) else { panic!("not sent") };
        call.answer(&engine, status, &[("x-should-retry", word)], T0);
        let again = matches!(call.step(&engine, T0), Step::Wait(_) | Step::Send(_));
        call.abandon(&engine, T0);
        again
    };
    assert!(tries(503, "perhaps"));
    assert!(!tries(503, "false"), "of no use");
    assert!(!tries(404, "perhaps"));
    assert!(tries(404, "true"), "worth it, whatever its status");
}
