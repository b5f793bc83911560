//! What a drain tells of the vendors' quotas: what changed, of each of them, and a bounded number at a time.
#![allow(clippy::unwrap_used)]

use farcall::quota::NamedStanding;
use farcall::{Caller, Config, Engine, Head, Step, Timestamp};
use std::collections::BTreeSet;

const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);

/// A vendor of which it is known what it states.
const VENDOR: &str = r#"
[[vendor]]
name = "example"
label = "Example"
hosts = ["api.example.com"]
limit = [
    { policy = "per-minute", limit = "x-limit", remaining = "x-left", reset = "x-reset", reset_as = "delta-s", window = "1m" },
]
"#;

fn engine(rules: &str) -> Engine {
    let config = Config::parse("f", &format!("{VENDOR}{rules}")).unwrap();
    Engine::new(config, Caller::new("checkout"), 1, 42)
}

/// A call with this credential, after which the vendor says that so many of a hundred are left for half a minute.
fn call(engine: &Engine, credential: &str, remaining: u32, now: Timestamp) {
    let sent: &[(&str, &str)] = &[("authorization", credential)];
    let head = Head::new("GET", "https://api.example.com/v1/things").headers(&sent).body(Some(0), true);
    let mut call = engine.begin(&head, now, 7);
    assert!(matches!(call.step(engine, now), Step::Send(_)));
    let remaining = remaining.to_string();
    let said = [("x-limit", "100"), ("x-left", remaining.as_str()), ("x-reset", "30")];
    call.answer(engine, 200, &said.as_slice(), now);
    assert_eq!(call.step(engine, now), Step::Settled);
    call.end(engine, now);
}

fn told(engine: &Engine, now: Timestamp) -> Vec<NamedStanding> {
    engine.drain(now).quotas
}

#[test]
fn a_drain_tells_of_the_quotas_that_changed_and_of_no_others() {
    let rule = "[[quota]]\nname = \"keep\"\nmatch = { vendor = \"example\" }\nmax_wait = \"2s\"\n";
    for (rules, name) in [("", ""), (rule, "keep")] {
        let engine = engine(rules);
        // From its first answer the engine learns that the vendor states a quota at all.
        call(&engine, "Bearer none", 99, T0);
        let _ = told(&engine, T0);
        call(&engine, "Bearer one", 99, T0);
        call(&engine, "Bearer two", 40, T0);
        let both = told(&engine, T0.plus_millis(1_000));
        let mut left: Vec<_> = both.iter().map(|quota| quota.standing.left).collect();
        left.sort_unstable();
        assert_eq!(left, [Some(40), Some(99)]);
        let quota = &both[0];
        assert_eq!((&*quota.vendor, &*quota.policy, &*quota.rule), ("example", "per-minute", name));
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
    for remaining in [42, 41, 40, 34] {
        call(&engine, "Bearer one", remaining, T0);
    }
    let standing = told(&engine, T0.plus_millis(1))[0].standing;
    assert_eq!((standing.counted, standing.foreign), (2, 5), "two counted after the first two answers");
}

#[test]
fn of_too_many_quotas_each_comes_to_its_turn() {
    let engine = engine("");
    call(&engine, "Bearer first", 99, T0);
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
