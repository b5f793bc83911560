//! What other programs use of the vendors' quotas, as somebody sees it who looks on from outside: the sidecar.
#![allow(clippy::unwrap_used)]

use farcall::quota::NamedStanding;
use farcall::{Caller, Config, Engine, Head, Step, Tap, Timestamp};

const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);
const RULE: &str = "[[quota]]\nname = \"keep\"\nmatch = { vendor = \"example\" }\nmax_wait = \"2s\"\n";

/// Vendors of which it is known what they state.
const VENDORS: &str = r#"
[[vendor]]
name = "example"
label = "Example"
hosts = ["api.example.com"]
limit = [
    { policy = "per-hour", limit = "x-limit", remaining = "x-left", reset = "x-reset", reset_as = "delta-s", window = "1h" },
    { policy = "tokens", unit = "tokens", limit = "x-tokens", remaining = "x-tokens-left", reset = "x-reset", reset_as = "delta-s", window = "1h" },
]

[[vendor]]
name = "apart"
label = "Apart"
hosts = ["api.apart.com"]
limit = [
    { policy = "per-hour", scope = "endpoint", limit = "x-limit", remaining = "x-left", reset = "x-reset", reset_as = "delta-s", window = "1h" },
]
"#;

fn engine(rules: &str) -> Engine {
    let config = Config::parse("f", &format!("{VENDORS}{rules}")).unwrap();
    Engine::new(config, Caller::new("farcall-sidecar"), 1, 42)
}

/// A call of another program, answered `at` so many milliseconds; so many of a thousand are left, if the answer says so.
fn overhear(engine: &Engine, url: &str, status: u16, remaining: Option<u32>, at: u64) {
    let caller = engine.add_caller(Caller::new("curl"));
    let head = Head::new("GET", url).seen(caller, Tap::Kernel);
    let mut call = engine.begin(&head, T0.plus_millis(at), at);
    assert!(matches!(call.step(engine, T0.plus_millis(at)), Step::Send(_)));
    let remaining = remaining.map(|remaining| remaining.to_string());
    let said: Vec<(&str, &str)> = remaining
        .iter()
        .flat_map(|left| [("x-limit", "1000"), ("x-left", left.as_str()), ("x-reset", "3000")])
        .chain(
            [("x-tokens", "100000"), ("x-tokens-left", "99000")].into_iter().filter(|_| remaining.is_some()),
        )
        .collect();
    call.answer(engine, status, &said.as_slice(), T0.plus_millis(at));
    call.end(engine, T0.plus_millis(at));
}

fn told(engine: &Engine, at: u64) -> Vec<NamedStanding> {
    let mut told = engine.drain(T0.plus_millis(at)).quotas;
    told.sort_by(|one, other| one.policy.cmp(&other.policy));
    told
}

const URL: &str = "https://api.example.com/v1/things";

#[test]
fn what_other_programs_use_is_counted_by_who_sees_it() {
    let engine = engine("");
    for (at, remaining) in [(0, 990), (10, 989), (20, 979)] {
        overhear(&engine, URL, 200, Some(remaining), at);
    }
    // An answer that says nothing is counted all the same.
    overhear(&engine, URL, 404, None, 30);
    let told = told(&engine, 1_000);
    let [requests, tokens] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((&*requests.vendor, &*requests.policy, &*requests.rule), ("example", "per-hour", ""));
    assert_eq!((requests.credential.as_str(), requests.shared, requests.countable), ("", false, true));
    // Ten were used before anybody looked on, and nine by others since.
    assert_eq!((requests.standing.counted, requests.standing.foreign), (4, 9));
    assert_eq!((requests.standing.limit, requests.standing.left), (Some(1_000), Some(978)));
    assert_eq!((&*tokens.policy, tokens.countable), ("tokens", false), "what they used of it, nobody saw");
    assert_eq!(self::told(&engine, 2_000), []);
}

#[test]
fn a_call_that_is_told_of_late_is_counted_and_says_nothing() {
    let engine = engine("");
    overhear(&engine, URL, 200, Some(999), 0);
    overhear(&engine, URL, 200, Some(997), 90_000);
    // It was decided only now that nobody else counted this one.
    overhear(&engine, URL, 200, Some(998), 20_000);
    let standing = told(&engine, 91_000)[0].standing;
    assert_eq!((standing.counted, standing.remaining), (3, Some(997)));
    overhear(&engine, URL, 200, Some(996), 92_000);
    let standing = told(&engine, 93_000)[0].standing;
    assert_eq!((standing.counted, standing.foreign, standing.left), (4, 0, Some(996)));
}

#[test]
fn quotas_of_endpoints_are_kept_apart_under_the_names_that_programs_of_our_own_have_for_them() {
    let engine = engine("");
    for (at, path) in [(0, "v1/things/1111111"), (1, "v1/things/2222222"), (2, "v1/people")] {
        overhear(&engine, &format!("https://api.apart.com/{path}"), 200, Some(900), at);
    }
    let names: Vec<String> = told(&engine, 10).iter().map(|told| told.policy.to_string()).collect();
    assert_eq!(names, ["per-hour (GET /v1/people)", "per-hour (GET /v1/things/{id})"]);
}

#[test]
fn a_vendor_that_states_nothing_and_credentials_that_rules_keep_apart_are_left_alone() {
    let silent = engine("");
    overhear(&silent, "https://elsewhere.example/", 200, Some(900), 0);
    overhear(&silent, "https://elsewhere.example/", 429, Some(0), 1);
    assert_eq!(told(&silent, 10), []);
    let ruled = engine(RULE);
    overhear(&ruled, URL, 200, Some(900), 0);
    assert_eq!(told(&ruled, 10), []);
}
