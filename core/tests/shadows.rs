//! Copies of calls for a rollout's variant, through the engine alone.
#![allow(clippy::unwrap_used)]

use farcall::{Attempt, Call, Caller, Config, Engine, ErrorType, Head, Outcome, Step, Timestamp};

const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);
const SHADOWED: &str = r#"
[[rollout]]
name = "v2"
match = { vendor = "stripe" }
by = "call"
shadow = "100%"
variant = { path_prefix = "/v2" }

[[resilience]]
match = { vendor = "stripe" }
attempts = 3
breaker = { consecutive = 1 }
hedge = { after = "100ms" }
"#;

fn engine(rules: &str) -> Engine {
    let config = Config::parse("farcall.toml", rules).unwrap_or_else(|errors| panic!("{errors:?}"));
    Engine::new(config, Caller::new("checkout"), 1, 42)
}

fn at(millis: u64) -> Timestamp {
    T0.plus_millis(millis)
}

fn begin(engine: &Engine, method: &str, tags: &[(&str, &str)]) -> (Call, Attempt) {
    let head = Head::new(method, "https://api.stripe.com/v1/charges").body(Some(0), true).tags(tags);
    let mut call = engine.begin(&head, T0, 1);
    match call.step(engine, T0) {
        Step::Send(attempt) => (call, attempt),
        step => panic!("{step:?}"),
    }
}

fn finish(engine: &Engine, mut call: Call, status: u16) {
    call.head(status, at(20));
    assert_eq!(call.step(engine, at(20)), Step::Settled, "a copy is not tried again");
    call.body(5);
    call.end(engine, at(30));
}

#[test]
fn a_copy_goes_to_the_variant_and_is_a_marked_call_of_its_own() {
    let engine = engine(SHADOWED);
    let (mut call, attempt) = begin(&engine, "GET", &[("team", "growth"), ("shadow", "no")]);
    assert!(attempt.shadow && attempt.changes.is_none(), "the call itself takes the old side");
    let (copy, sent) = call.shadow(&engine, T0).unwrap();
    assert_eq!(sent.changes.unwrap().path_prefix.as_deref(), Some("/v2"));
    assert!(sent.give_up_at.is_some() && sent.hedge_at.is_none() && !sent.shadow);
    assert!(call.shadow(&engine, T0).is_none(), "one copy");
    assert_ne!(copy.id(), call.id());
    finish(&engine, copy, 500);
    finish(&engine, call, 200);
    let batch = engine.drain(at(40));
    let mut rows: Vec<_> =
        batch.rows.iter().map(|row| (&*row.tags, row.status, row.sums.calls, row.sums.attempts)).collect();
    rows.sort_unstable();
    assert_eq!(rows, [("shadow=no,team=growth", 200, 1, 1), ("shadow=v2,team=growth", 500, 1, 1)]);
    assert!(batch.rows.iter().all(|row| &*row.endpoint == "GET /v1/charges"), "side by side");
    let (next, _) = begin(&engine, "GET", &[]);
    finish(&engine, next, 200);
}

#[test]
fn what_a_copy_comes_to_decides_nothing() {
    let engine = engine(SHADOWED);
    for error in [ErrorType::Connect, ErrorType::Timeout, ErrorType::Reset] {
        let (mut call, _) = begin(&engine, "GET", &[]);
        let (mut copy, _) = call.shadow(&engine, T0).unwrap();
        copy.failed(error);
        assert_eq!(copy.step(&engine, at(10)), Step::Settled, "it is not tried again");
        copy.end(&engine, at(10));
        finish(&engine, call, 200);
    }
    assert_eq!(engine.counters().breaker_refusals, 0);
    let failed =
        engine.drain(at(40)).rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_))).count();
    assert_eq!(failed, 3, "and all of it is told");
}

#[test]
fn no_copy_is_made_of_what_must_not_be_repeated() {
    let engine = engine(SHADOWED);
    let (mut call, attempt) = begin(&engine, "POST", &[]);
    assert!(!attempt.shadow);
    assert!(call.shadow(&engine, T0).is_none());
    finish(&engine, call, 200);
}

#[test]
fn copies_under_way_are_few_and_each_makes_room_at_its_end() {
    let engine = engine(SHADOWED);
    let mut calls: Vec<Call> = (0..40).map(|_| begin(&engine, "GET", &[]).0).collect();
    let mut copies: Vec<Call> =
        calls.iter_mut().filter_map(|call| call.shadow(&engine, T0)).map(|(copy, _)| copy).collect();
    assert_eq!((copies.len(), engine.counters().skipped_shadows), (32, 8));
    copies.pop().unwrap().abandon(&engine, at(10));
    let (mut call, _) = begin(&engine, "GET", &[]);
    let (copy, _) = call.shadow(&engine, T0).expect("there is room again");
    calls.push(call);
    copies.push(copy);
    for call in calls.into_iter().chain(copies) {
        finish(&engine, call, 200);
    }
    let rows = engine.drain(at(50)).rows;
    assert_eq!(rows.iter().map(|row| row.sums.calls).sum::<u64>(), 41 + 33);
}

#[test]
fn a_copy_uses_quotas_like_any_call_and_never_waits_for_them() {
    let quota = "[[quota]]\nmatch = { vendor = \"stripe\" }\nlimit = \"3 requests / 1h\"\nburst = 3\nmax_wait = \"5s\"\n";
    let engine = engine(&format!("{SHADOWED}{quota}"));
    let (mut first, _) = begin(&engine, "GET", &[]);
    let (copy, _) = first.shadow(&engine, T0).unwrap();
    let (mut third, _) = begin(&engine, "GET", &[]);
    assert!(third.shadow(&engine, T0).is_none(), "there is no fourth");
    finish(&engine, copy, 200);
    finish(&engine, first, 200);
    finish(&engine, third, 200);
    let rows = engine.drain(at(40)).rows;
    let sent: u32 = rows.iter().map(|row| u32::try_from(row.sums.attempts).unwrap()).sum();
    assert_eq!(sent, 3);
}
