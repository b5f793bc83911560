//! Calls that an adapter cannot hold back: what rules still do about them, and how they are counted.
#![allow(clippy::unwrap_used)]

use farcall::{Call, Caller, Config, Engine, Head, Outcome, RefusedBy, Step, Timestamp};

const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);

const RULES: &str = r#"
[[policy]]
name = "nobody"
match = { customer = "denied" }
verdict = "deny"

[[quota]]
match = { customer = "paced" }
limit = "1 requests / 1m"
burst = 1
max_wait = "1h"
"#;

fn engine() -> Engine {
    let config = Config::parse("farcall.toml", RULES).unwrap_or_else(|errors| panic!("{errors:?}"));
    Engine::new(config, Caller::new("checkout"), 1, 42)
}

fn begin(engine: &Engine, customer: &str) -> Call {
    let head =
        Head::new("GET", "https://api.stripe.com/v1/charges").customer(Some(customer)).body(Some(0), true);
    engine.begin(&head, T0, 1)
}

fn answered(mut call: Call, engine: &Engine) {
    call.head(200, T0.plus_millis(1));
    call.end(engine, T0.plus_millis(2));
}

/// How many calls came out so, and how many attempts they made.
fn counted(engine: &Engine, outcome: Outcome) -> (u64, u64) {
    let rows = engine.drain(T0.plus_millis(3)).rows;
    let of = || rows.iter().filter(|row| row.outcome == outcome);
    assert_eq!(of().count(), rows.len(), "{rows:?}");
    (of().map(|row| row.sums.calls).sum(), of().map(|row| row.sums.attempts).sum())
}

#[test]
fn what_cannot_wait_is_refused_all_the_same() {
    let engine = engine();
    let mut call = begin(&engine, "denied");
    assert!(matches!(call.step_at_once(&engine, T0), Step::Refuse(_)));
    assert!(call.is_settled());
    assert_eq!(counted(&engine, Outcome::Refused(RefusedBy::Policy)), (1, 0));
    assert_eq!(engine.counters().overlooked_calls, 0);
}

#[test]
fn what_cannot_wait_goes_out_where_it_would_have_to() {
    let engine = engine();
    for overlooked in 0..3 {
        let mut call = begin(&engine, "paced");
        assert!(matches!(call.step_at_once(&engine, T0), Step::Send(_)));
        assert!(matches!(call.step_at_once(&engine, T0), Step::Settled));
        answered(call, &engine);
        assert_eq!(engine.counters().overlooked_calls, overlooked);
    }
    assert_eq!(counted(&engine, Outcome::Complete), (3, 3));
}

#[test]
fn what_cannot_wait_keeps_the_key_that_makes_it_safe_to_send_again() {
    let rules = "[[resilience]]\nmatch = { vendor = \"stripe\" }\nattempts = 2\n";
    let engine = Engine::new(Config::parse("farcall.toml", rules).unwrap(), Caller::new("checkout"), 1, 42);
    let post = Head::new("POST", "https://api.stripe.com/v1/charges").body(Some(9), true);
    let mut call = engine.begin(&post, T0, 1);
    let Step::Send(first) = call.step(&engine, T0) else { panic!("nothing holds it up") };
    call.answer(&engine, 503, &[("x", "y")], T0.plus_millis(1));
    assert!(matches!(call.step(&engine, T0.plus_millis(1)), Step::Wait(_)));
    let Step::Send(second) = call.step_at_once(&engine, T0.plus_millis(1)) else { panic!("it goes out") };
    assert!(first.idempotency_key.is_some());
    assert_eq!((second.number, second.idempotency_key), (2, first.idempotency_key));
}

#[test]
fn what_went_out_already_counts_as_what_it_was_whatever_the_rules_say() {
    let engine = engine();
    for (overlooked, customer) in (1..).zip(["denied", "denied"]) {
        let mut call = begin(&engine, customer);
        call.send_regardless(&engine, T0);
        answered(call, &engine);
        assert_eq!(engine.counters().overlooked_calls, overlooked);
    }
    let mut call = begin(&engine, "free");
    call.send_regardless(&engine, T0);
    answered(call, &engine);
    assert_eq!(engine.counters().overlooked_calls, 2);
    assert_eq!(counted(&engine, Outcome::Complete), (3, 3));
}
