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
    assert_eq!((standing.counted, standing.foreign), (4, 5));
}

#[test]
fn calls_that_began_before_the_first_answer_came_are_ours() {
    let rule = "[[quota]]\nname = \"keep\"\nmatch = { vendor = \"example\" }\nmax_wait = \"2s\"\n";
    for rules in ["", rule] {
        let engine = engine(rules);
        let sent: &[(&str, &str)] = &[("authorization", "Bearer one")];
        let head = Head::new("GET", "https://api.example.com/v1/things").headers(&sent).body(Some(0), true);
        let mut calls: Vec<_> = (0..20).map(|seed| engine.begin(&head, T0, seed)).collect();
        for call in &mut calls {
            assert!(matches!(call.step(&engine, T0), Step::Send(_)));
        }
        for (used, call) in calls.iter_mut().enumerate() {
            // The vendor counted ten of somebody else between the first and the second.
            let remaining = if used == 0 { 99 } else { 89 - used };
            let remaining = remaining.to_string();
            let said = [("x-limit", "100"), ("x-left", remaining.as_str()), ("x-reset", "30")];
            call.answer(&engine, 200, &said.as_slice(), T0.plus_millis(10));
            assert_eq!(call.step(&engine, T0.plus_millis(10)), Step::Settled);
            call.end(&engine, T0.plus_millis(20));
        }
        let standing = told(&engine, T0.plus_millis(30))[0].standing;
        assert_eq!((standing.counted, standing.foreign, standing.left), (20, 10, Some(70)));
    }
}

#[test]
fn calls_are_ours_from_the_first_on_also_where_only_its_answer_names_the_quota() {
    let rule = "[[quota]]\nname = \"keep\"\nmatch = { vendor = \"github\" }\nmax_wait = \"2s\"\n";
    for rules in ["", rule] {
        let engine = engine(rules);
        let mut remaining = (0..5_000).rev();
        let mut counted = 0;
        // Endpoints of one quota, and one that moves to another.
        for (path, resource) in [("user", "core"), ("users/1", "core"), ("user", "core"), ("user", "search")]
        {
            for _ in 0..3 {
                let url = format!("https://api.github.com/{path}");
                let mut call = engine.begin(&Head::new("GET", &url).body(Some(0), true), T0, 7);
                assert!(matches!(call.step(&engine, T0), Step::Send(_)));
                let remaining = remaining.next().unwrap().to_string();
                let said = [
                    ("x-ratelimit-limit", "5000"),
                    ("x-ratelimit-remaining", remaining.as_str()),
                    ("x-ratelimit-reset", "1763703600"),
                    ("x-ratelimit-resource", resource),
                ];
                call.answer(&engine, 200, &said.as_slice(), T0);
                assert_eq!(call.step(&engine, T0), Step::Settled);
                call.end(&engine, T0);
            }
        }
        for quota in told(&engine, T0.plus_millis(1)) {
            counted += quota.standing.counted;
            assert_eq!(quota.standing.foreign, 0, "{quota:?}");
        }
        // The first that was of another quota than the last was before is of both.
        assert_eq!(counted, 13);
    }
}

#[test]
fn a_vendor_that_states_nothing_after_all_is_looked_at_no_longer() {
    let engine = engine("");
    let head = Head::new("GET", "https://api.example.com/v1/things").body(Some(0), true);
    let silent: &[(&str, &str)] = &[];
    for seed in 0..40 {
        let mut call = engine.begin(&head, T0, seed);
        assert!(matches!(call.step(&engine, T0), Step::Send(_)));
        call.answer(&engine, 200, &silent, T0);
        assert_eq!(call.step(&engine, T0), Step::Settled);
        call.end(&engine, T0);
    }
    assert_eq!(told(&engine, T0), []);
    // The first call of which it says something is as good as not counted, the next one counts.
    call(&engine, "Bearer one", 99, T0);
    assert_eq!(told(&engine, T0), []);
    call(&engine, "Bearer one", 98, T0);
    let standing = told(&engine, T0)[0].standing;
    assert_eq!((standing.counted, standing.foreign), (1, 0));
}

#[test]
fn the_limits_of_rules_are_told_by_whoever_uses_them() {
    let rules = r#"
[[quota]]
name = "ours"
match = { vendor = "example", customer = "*" }
limit = "10 requests / 1s"
burst = 4

[[policy]]
name = "slowly"
match = { vendor.tag = "!none" }
verdict = "throttle"
throttle = "5 requests / 1s"
"#;
    let engine = engine(rules);
    let ask = |customer: &'static str, now: Timestamp| {
        let head = Head::new("GET", "https://api.example.com/v1/things")
            .customer(Some(customer))
            .body(Some(0), true);
        let mut call = engine.begin(&head, now, 7);
        let sent = matches!(call.step(&engine, now), Step::Send(_));
        let silent: &[(&str, &str)] = &[];
        if sent {
            call.answer(&engine, 200, &silent, now);
        }
        call.end(&engine, now);
        sent
    };
    assert_eq!(told(&engine, T0), []);
    assert!(ask("acme", T0));
    assert!(ask("globex", T0.plus_millis(500)));
    let mut all = told(&engine, T0.plus_millis(600));
    all.sort_by(|a, b| a.policy.cmp(&b.policy));
    let names: Vec<_> = all.iter().map(|limit| (&*limit.policy, &*limit.rule, &*limit.vendor)).collect();
    // What throttles is about all vendors together.
    assert_eq!(
        names,
        [
            ("ours (customer=acme)", "ours", "example"),
            ("ours (customer=globex)", "ours", "example"),
            ("slowly", "slowly", "")
        ]
    );
    let globex = all[1].configured.unwrap();
    assert_eq!((globex.limit.units, globex.burst), (10, 4));
    assert_eq!(globex.due_at, Some(T0.plus_millis(600)), "a tenth of a second after its call");
    // Time is no news, and what one uses is none of the other.
    assert_eq!(told(&engine, T0.plus_millis(5_000)), []);
    assert!(ask("acme", T0.plus_millis(6_000)));
    let mut names: Vec<_> = told(&engine, T0.plus_millis(6_100)).into_iter().map(|one| one.policy).collect();
    names.sort();
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["ours (customer=acme)", "slowly"]);
}

#[test]
fn of_too_many_limits_each_comes_to_its_turn() {
    let rule = "[[quota]]\nname = \"ours\"\nmatch = { customer = \"*\" }\nlimit = \"10 requests / 1s\"\n";
    let engine = engine(rule);
    let mut seen = BTreeSet::new();
    for second in 0..4 {
        // All of them are used, every second.
        for n in 0..2_500 {
            let customer = format!("c{n}");
            let head =
                Head::new("GET", "https://host.example/").customer(Some(&customer)).body(Some(0), true);
            let now = T0.plus_millis(second * 1_000);
            let mut call = engine.begin(&head, now, 7);
            assert!(matches!(call.step(&engine, now), Step::Send(_)));
            call.end(&engine, now);
        }
        let told = told(&engine, T0.plus_millis(second * 1_000 + 1));
        assert!(told.len() <= 1_024);
        seen.extend(told.into_iter().map(|limit| limit.policy));
    }
    assert_eq!(seen.len(), 2_500);
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
