//! What a drain tells of the vendors' quotas: what changed, of each of them, and a bounded number at a time.
#![allow(clippy::unwrap_used)]

use farcall::quota::NamedStanding;
use farcall::{Caller, Config, Engine, Head, Step, Timestamp};
use std::collections::BTreeSet;

const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);

fn engine(rules: &str) -> Engine {
    Engine::new(Config::parse("f", rules).unwrap(), Caller::new("checkout"), 1, 42)
}

/// A call with this credential, after which the vendor says that so many of a hundred are left for half a minute.
fn call(engine: &Engine, credential: &str, remaining: u32, now: Timestamp) {
    let sent: &[(&str, &str)] = &[("authorization", credential)];
    let head = Head::new("GET", "https://api.example.com/v1/things").headers(&sent).body(Some(0), true);
    let mut call = engine.begin(&head, now, 7);
    assert!(matches!(call.step(engine, now), Step::Send(_)));
    let limit = format!("\"per-minute\";r={remaining};t=30");
    let said = [("ratelimit-policy", "\"per-minute\";q=100;w=60"), ("ratelimit", limit.as_str())];
    call.answer(engine, 200, &said.as_slice(), now);
    assert_eq!(call.step(engine, now), Step::Settled);
    call.end(engine, now);
}

fn told(engine: &Engine, now: Timestamp) -> Vec<NamedStanding> {
    engine.drain(now).quotas
}

#[test]
fn a_drain_tells_of_the_quotas_that_changed_and_of_no_others() {
    let rule = "[[quota]]\nname = \"keep\"\nmatch = { vendor = \"example.com\" }\n";
    for (rules, name) in [("", ""), (rule, "keep")] {
        let engine = engine(rules);
        call(&engine, "Bearer one", 99, T0);
        call(&engine, "Bearer two", 40, T0);
        let both = told(&engine, T0.plus_millis(1_000));
        let mut left: Vec<_> = both.iter().map(|quota| quota.standing.left).collect();
        left.sort_unstable();
        assert_eq!(left, [Some(40), Some(99)]);
        let quota = &both[0];
        assert_eq!((&*quota.vendor, &*quota.policy, &*quota.rule), ("example.com", "per-minute", name));
        assert_eq!((quota.unit, quota.countable, quota.of_vendor), ("requests", true, false));
        assert_ne!(both[0].credential, both[1].credential);

        // Neither time nor the end of the window is news.
        assert_eq!(told(&engine, T0.plus_millis(2_000)), []);
        assert_eq!(told(&engine, T0.plus_millis(90_000)), []);
        call(&engine, "Bearer one", 98, T0.plus_millis(91_000));
        let one = told(&engine, T0.plus_millis(92_000));
        assert_eq!((one.len(), one[0].standing.remaining, one[0].standing.counted), (1, Some(98), 1));
    }
}

#[test]
fn what_was_used_before_we_counted_is_not_counted_as_ours() {
    let engine = engine("");
    call(&engine, "Bearer one", 40, T0);
    call(&engine, "Bearer one", 34, T0);
    let standing = told(&engine, T0.plus_millis(1))[0].standing;
    assert_eq!((standing.counted, standing.foreign), (2, 5), "59 were used before");
}

#[test]
fn of_too_many_quotas_each_comes_to_its_turn() {
    let engine = engine("");
    for n in 0..2_500 {
        call(&engine, &format!("Bearer {n}"), 99, T0);
    }
    let mut seen = BTreeSet::new();
    for (second, expected) in [(1, 1_024), (2, 1_024), (3, 452), (4, 0)] {
        let told = told(&engine, T0.plus_millis(second * 1_000));
        assert_eq!(told.len(), expected);
        seen.extend(told.into_iter().map(|quota| quota.credential));
    }
    assert_eq!(seen.len(), 2_500);
}
