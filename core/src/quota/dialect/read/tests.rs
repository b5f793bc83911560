use super::*;
use crate::config::Config;
use crate::quota::dialect::Unit;
use proptest::prelude::*;

/// 2026-11-21T10:00:00Z.
const NOW: Timestamp = Timestamp::from_nanos(1_795_255_200_000_000_000);

fn generic(headers: &[(&str, &str)]) -> Reading {
    Dialect::generic().read(&Answer::new(200, &headers), NOW)
}

/// The dialect of a vendor that is written as a user would.
fn written(limits: &str) -> Dialect {
    let text = format!("[[vendor]]\nname = \"v\"\nhosts = [\"v.example\"]\n{limits}");
    Dialect::new(&Config::parse("farcall.toml", &text).unwrap().vendors[0].dialect)
}

/// (limit, remaining, seconds to the reset) of each statement.
fn numbers(reading: &Reading) -> Vec<(Option<u64>, Option<u64>, Option<u64>)> {
    let row =
        |s: &super::super::Statement| (s.limit, s.remaining, s.resets_at.map(|at| at.since(NOW).as_secs()));
    reading.statements().iter().map(row).collect()
}

#[test]
fn a_vendor_without_a_dialect_is_read_by_the_usual_names() {
    for names in [
        ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
        ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
        ["X-Rate-Limit-Limit", "X-Rate-Limit-Remaining", "X-Rate-Limit-Reset"],
    ] {
        for reset in ["60", "1795255260", "1795255260000", "2026-11-21T10:01:00Z", "1m0s"] {
            let headers: Vec<_> = names.into_iter().zip(["100", "7", reset]).collect();
            assert_eq!(numbers(&generic(&headers)), [(Some(100), Some(7), Some(60))], "{names:?} {reset}");
        }
    }
}

#[test]
fn both_generations_of_the_draft_are_one_statement_not_two() {
    let reading = generic(&[
        ("ratelimit-policy", "\"default\";q=100;w=60"),
        ("ratelimit", "\"default\";r=50;t=30"),
        ("ratelimit-limit", "100"),
        ("ratelimit-remaining", "50"),
        ("ratelimit-reset", "30"),
        ("x-ratelimit-limit", "100"),
        ("x-ratelimit-remaining", "50"),
    ]);
    assert_eq!(numbers(&reading), [(Some(100), Some(50), Some(30))]);
    assert_eq!(reading.statements()[0].name.as_str(), "default");
    assert_eq!(reading.statements()[0].window, Some(std::time::Duration::from_secs(60)));
}

#[test]
fn the_drafts_policies_have_units_windows_and_names_of_their_own() {
    let reading = generic(&[
        (
            "ratelimit-policy",
            "\"burst\";q=100;w=60, \"daily\";q=1000000;qu=\"content-bytes\";w=86400;pk=:c2lt:",
        ),
        ("ratelimit", "\"burst\";r=0;t=30;pk=:c2lt:, \"daily\";r=999000;t=3600"),
    ]);
    assert_eq!(
        numbers(&reading),
        [(Some(100), Some(0), Some(30)), (Some(1_000_000), Some(999_000), Some(3_600))]
    );
    assert_eq!(reading.statements()[1].unit, Unit::Bytes);
    assert_ne!(reading.statements()[0].policy, reading.statements()[1].policy);
    let unknown = generic(&[("ratelimit-policy", "a;q=5;qu=\"moons\""), ("ratelimit", "a;r=3;t=1")]);
    assert_eq!((numbers(&unknown).len(), unknown.ignored), (0, 1), "numbers of something unknown");
}

#[test]
fn one_malformed_field_is_ignored_and_the_other_believed() {
    let reading = generic(&[("ratelimit-policy", "\"a\";q=100;"), ("ratelimit", "\"a\";r=50;t=30")]);
    assert_eq!((numbers(&reading), reading.ignored), (vec![(None, Some(50), Some(30))], 1));
    let reading = generic(&[("ratelimit-policy", "\"a\";q=100"), ("ratelimit", "a;r=-1")]);
    assert_eq!((numbers(&reading).len(), reading.ignored), (0, 1));
}

#[test]
fn what_headers_lie_about_is_no_statement_and_counted() {
    for (limit, remaining, reset) in [
        ("100", "101", "60"),                          // more left than allowed
        ("0", "0", "60"),                              // placeholders
        ("-1", "-1", "60"),                            // placeholders
        ("100", "-3", "60"),                           // negative
        ("100", "NaN", "60"),                          // no number
        ("100", "5", "1795250000"),                    // long past
        ("100", "5", "33325000000"),                   // in a thousand years
        ("100", "5", "Fri, 21 Nov 2025 10:00:00 GMT"), // last year
        ("100", "5", "45000"),                         // seconds or milliseconds?
        ("100", "", "60"),
        ("99999999999999999999", "5", "60"),
    ] {
        let reading = generic(&[
            ("x-ratelimit-limit", limit),
            ("x-ratelimit-remaining", remaining),
            ("x-ratelimit-reset", reset),
        ]);
        assert_eq!((numbers(&reading).len(), reading.ignored), (0, 1), "{limit} {remaining} {reset}");
        assert_eq!(reading.wait_until(NOW), None);
    }
}

#[test]
fn what_came_out_of_a_cache_says_nothing_about_now() {
    let limit = [("x-ratelimit-limit", "9"), ("x-ratelimit-remaining", "0"), ("retry-after", "9")];
    for cache in [
        ("age", "1"),
        ("x-cache", "HIT"),
        ("x-cache", "Hit from cloudfront"),
        ("x-cache", "MISS, HIT"),
        ("cf-cache-status", "HIT"),
        ("cache-status", "ExampleCache; hit; ttl=376"),
    ] {
        let headers: Vec<_> = limit.into_iter().chain([cache]).collect();
        let reading = Dialect::generic().read(&Answer::new(429, &headers), NOW);
        assert!(reading.cached && reading.is_empty(), "{cache:?}");
    }
    for fresh in
        [("age", "0"), ("x-cache", "MISS"), ("cf-cache-status", "DYNAMIC"), ("cache-status", "x; fwd=miss")]
    {
        let headers: Vec<_> = limit.into_iter().chain([fresh]).collect();
        let reading = Dialect::generic().read(&Answer::new(429, &headers), NOW);
        assert!(!reading.cached && reading.refusal.is_some(), "{fresh:?}");
    }
}

#[test]
fn retry_after_is_understood_in_all_its_forms_and_wins() {
    let read = |headers: &[(&str, &str)], status| {
        let reading = Dialect::generic().read(&Answer::new(status, &headers), NOW);
        (reading.wait_until(NOW).map(|at| at.since(NOW).as_millis()), reading.ignored)
    };
    for (name, value, millis) in [
        ("retry-after", "7", 7_000),
        ("retry-after", "2.5", 2_500),
        ("retry-after", "0", 0),
        ("retry-after", "Sat, 21 Nov 2026 10:00:09 GMT", 9_000),
        ("retry-after", "2026-11-21T10:00:09Z", 9_000),
        ("retry-after-ms", "720", 720),
    ] {
        let reset = [("x-ratelimit-limit", "5"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "99")];
        let headers: Vec<_> = reset.into_iter().chain([(name, value)]).collect();
        assert_eq!(read(&headers, 429), (Some(millis), 0), "{name}: {value}");
    }
    for value in ["-5", "NaN", "soon", "1e3", "99999999999", "Fri, 21 Nov 2025 10:00:00 GMT"] {
        assert_eq!(read(&[("retry-after", value)], 429), (None, 1), "{value}");
    }
    assert_eq!(read(&[("retry-after", "7")], 503), (Some(7_000), 0), "an error of the server is no refusal");
    assert_eq!(read(&[("retry-after", "7")], 202), (None, 0), "a job to poll is neither");
}

#[test]
fn equal_names_mean_what_the_vendor_says_they_mean() {
    let headers =
        [("x-ratelimit-limit", "10"), ("x-ratelimit-remaining", "3"), ("x-ratelimit-reset", "3000")];
    for (encoding, seconds) in [("delta-s", 3_000), ("delta-ms", 3)] {
        let dialect = written(&format!(
            "[[vendor.limit]]\nlimit = \"x-ratelimit-limit\"\nremaining = \"X-RateLimit-Remaining\"\nreset = \"x-ratelimit-reset\"\nreset_as = \"{encoding}\""
        ));
        assert_eq!(
            numbers(&dialect.read(&Answer::new(200, &headers), NOW)),
            [(Some(10), Some(3), Some(seconds))]
        );
    }
}

#[test]
fn rules_about_refusals_are_tried_in_order_and_each_condition_counts() {
    let dialect = written(
        "refusal = [{ status = [400], header = \"x-kind\", value = \"quota\", body = [\"used up\"], means = \"exhausted\" }, { status = [400, 429], header = \"x-kind\", means = \"other\" }]",
    );
    let read = |status, kind: Option<&str>, body: &str| {
        let headers: Vec<(&str, &str)> = kind.map(|kind| ("x-kind", kind)).into_iter().collect();
        dialect.read(&Answer::new(status, &headers).body_prefix(body.as_bytes()), NOW).refusal
    };
    assert_eq!(read(400, Some("Quota"), "all used up"), Some(Refusal::Exhausted));
    assert_eq!(read(400, Some("quota"), "something else"), None);
    assert_eq!(read(429, Some("lock"), ""), None, "a 429 that is none");
    assert_eq!(read(429, None, ""), Some(Refusal::Rate), "a 429 that nothing else tells about");
    assert!(dialect.wants_body(400) && !dialect.wants_body(429) && !dialect.wants_body(200));
    let late = format!("{}all used up", " ".repeat(BODY_PREFIX));
    assert_eq!(read(400, Some("quota"), &late), None, "only the body's beginning is looked at");
}

#[test]
fn it_asks_for_the_headers_that_it_reads_and_no_others() {
    let dialect = written("limit = [{ form = \"fraction\", header = \"X-Usage\", key = \"calls\" }]");
    let names: Vec<&str> = dialect.headers().iter().map(|name| &**name).collect();
    assert_eq!(
        names,
        [
            "age",
            "cache-status",
            "cf-cache-status",
            "date",
            "retry-after",
            "retry-after-ms",
            "x-cache",
            "x-usage"
        ]
    );
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic_or_wait_for_more_than_a_year(
        values in proptest::collection::vec(
            proptest::collection::vec(
                prop_oneof![any::<u8>(), proptest::sample::select(b"0123456789.-:;=, \"TZrtqwGMT".to_vec())],
                0..60,
            ),
            20,
        ),
        body in proptest::collection::vec(any::<u8>(), 0..100),
        status in 100..600_u16,
        now in 0..u64::MAX / 2,
    ) {
        let now = Timestamp::from_nanos(now);
        let dialect = Dialect::generic();
        let headers: Vec<(&str, &[u8])> =
            dialect.headers().iter().zip(&values).map(|(name, value)| (&**name, value.as_slice())).collect();
        let reading = dialect.read(&Answer::new(status, &headers).body_prefix(&body), now);
        for statement in reading.statements() {
            prop_assert!(statement.limit != Some(0));
            prop_assert!(statement.remaining.zip(statement.limit).is_none_or(|(left, limit)| left <= limit));
        }
        if let Some(until) = reading.wait_until(now) {
            prop_assert!(until >= now && until.since(now) <= crate::quota::dialect::clock::YEAR);
        }
        for unit in [Unit::Requests, Unit::Tokens, Unit::Bytes] {
            let _ = reading.strictest(unit, now);
        }
    }
}
