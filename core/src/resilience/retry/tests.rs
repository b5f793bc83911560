use super::*;
use proptest::prelude::*;

const UNAVAILABLE: Ending = Ending::Status(503);

fn now() -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000)
}

fn facts(method: &str, ending: Ending) -> RetryFacts<'_> {
    RetryFacts::new(method, ending, 1, now(), 7)
}

fn verdict(facts: &RetryFacts<'_>) -> RetryVerdict {
    RetryRule::default().retry(facts, &Budget::new())
}

fn retries(facts: &RetryFacts<'_>) -> bool {
    matches!(verdict(facts), RetryVerdict::Retry { .. })
}

#[test]
fn only_what_is_safe_to_repeat_is_repeated() {
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
        assert!(retries(&facts(method, UNAVAILABLE)), "{method}");
    }
    for method in ["POST", "PATCH", "CONNECT", "get", "LOCK", ""] {
        assert_eq!(verdict(&facts(method, UNAVAILABLE)), RetryVerdict::Stop(Stop::NotIdempotent), "{method}");
    }
}

#[test]
fn an_idempotency_key_counts_on_the_wire_and_where_it_is_honoured() {
    let mut facts = facts("POST", UNAVAILABLE);
    facts.key_honoured = true;
    assert_eq!(
        verdict(&facts),
        RetryVerdict::Stop(Stop::NotIdempotent),
        "the vendor would, but none was sent"
    );
    facts.key_on_wire = true;
    assert!(retries(&facts));
    facts.key_honoured = false;
    assert_eq!(verdict(&facts), RetryVerdict::Stop(Stop::KeyNotHonoured));
}

#[test]
fn what_never_left_may_be_sent_by_any_method() {
    for error in [ErrorType::Connect, ErrorType::Dns, ErrorType::Timeout, ErrorType::Reset] {
        let mut facts = facts("POST", Ending::Error(error));
        assert_eq!(verdict(&facts), RetryVerdict::Stop(Stop::NotIdempotent), "{error:?}");
        facts.sent = false;
        assert!(retries(&facts), "{error:?}");
    }
}

#[test]
fn a_response_that_the_application_has_begun_to_read_is_not_begun_again() {
    let mut facts = facts("GET", Ending::Error(ErrorType::Reset));
    assert!(retries(&facts), "a reset in the middle of a body that nobody has seen");
    facts.handed_over = true;
    assert_eq!(verdict(&facts), RetryVerdict::Stop(Stop::HandedOver));
}

#[test]
fn a_body_that_is_gone_is_not_sent_again() {
    let mut facts = facts("PUT", UNAVAILABLE);
    facts.replayable = false;
    assert_eq!(verdict(&facts), RetryVerdict::Stop(Stop::NotReplayable));
}

#[test]
fn the_sdk_above_goes_first() {
    let mut facts = facts("GET", UNAVAILABLE);
    facts.sdk_retries = true;
    assert_eq!(verdict(&facts), RetryVerdict::Stop(Stop::SdkRetries));
    let rule = RetryRule { over_sdk: true, ..RetryRule::default() };
    assert!(matches!(rule.retry(&facts, &Budget::new()), RetryVerdict::Retry { .. }));
}

#[test]
fn answers_are_final_unless_the_rule_names_them() {
    for status in [200, 301, 400, 404, 409, 499] {
        assert_eq!(
            verdict(&facts("GET", Ending::Status(status))),
            RetryVerdict::Stop(Stop::Final),
            "{status}"
        );
    }
    let cancelled = facts("GET", Ending::Error(ErrorType::Cancelled));
    assert_eq!(verdict(&cancelled), RetryVerdict::Stop(Stop::Final));
}

#[test]
fn the_vendor_knows_best_whether_another_attempt_is_of_use() {
    let mut conflict = facts("GET", Ending::Status(409));
    conflict.told = should_retry(|name| (name == "stripe-should-retry").then_some("true"));
    assert!(retries(&conflict));
    conflict.method = "POST";
    assert_eq!(verdict(&conflict), RetryVerdict::Stop(Stop::NotIdempotent), "of use is not the same as safe");
    let mut down = facts("GET", UNAVAILABLE);
    down.told = should_retry(|name| (name == "x-should-retry").then_some("false"));
    assert_eq!(verdict(&down), RetryVerdict::Stop(Stop::VendorRefuses));
    let mut done = facts("GET", Ending::Status(200));
    done.told = Some(true);
    assert_eq!(verdict(&done), RetryVerdict::Stop(Stop::Final));
    assert_eq!(should_retry(|_| Some("perhaps")), None);
}

#[test]
fn a_status_that_means_nothing_happened_allows_any_method() {
    let rule = RetryRule { not_processed: Triggers::NONE.status(429), ..RetryRule::default() };
    let verdict = |status| rule.retry(&facts("POST", Ending::Status(status)), &Budget::new());
    assert!(matches!(verdict(429), RetryVerdict::Retry { .. }));
    assert_eq!(verdict(503), RetryVerdict::Stop(Stop::NotIdempotent));
}

#[test]
fn the_attempts_include_the_first() {
    let mut facts = facts("GET", UNAVAILABLE);
    facts.attempt = 2;
    assert!(retries(&facts));
    facts.attempt = 3;
    assert_eq!(verdict(&facts), RetryVerdict::Stop(Stop::AttemptsUsed));
}

#[test]
fn a_wait_beyond_the_deadline_is_refused_at_once_with_its_moment() {
    let mut facts = facts("GET", Ending::Status(429));
    facts.retry_at = Some(now().plus_millis(5_000));
    facts.deadline = Deadline::new(now(), Some(Duration::from_secs(5)), None);
    assert_eq!(verdict(&facts), RetryVerdict::Stop(Stop::Deadline { at: now().plus_millis(5_000) }));
    facts.deadline = Deadline::new(now(), Some(Duration::from_millis(5_001)), None);
    assert_eq!(
        verdict(&facts),
        RetryVerdict::Retry { at: now().plus_millis(5_000), reason: RetryReason::RetryAfter },
        "rather exactly then than too late for jitter"
    );
}

#[test]
fn a_vendor_that_asks_for_a_thousand_years_is_not_waited_for() {
    let mut facts = facts("GET", Ending::Status(429));
    let at = Timestamp::from_nanos(u64::MAX);
    facts.retry_at = Some(at);
    assert_eq!(verdict(&facts), RetryVerdict::Stop(Stop::WaitTooLong { at }));
}

#[test]
fn a_moment_in_the_past_is_no_statement() {
    let mut facts = facts("GET", Ending::Status(429));
    facts.retry_at = Some(Timestamp::EPOCH);
    assert!(matches!(verdict(&facts), RetryVerdict::Retry { reason: RetryReason::Backoff, .. }));
}

#[test]
fn the_budget_is_only_touched_by_retries() {
    let (rule, budget) = (RetryRule::default(), Budget::new());
    for _ in 0..100 {
        let _ = rule.retry(&facts("POST", UNAVAILABLE), &budget);
    }
    for _ in 0..3 {
        assert!(matches!(rule.retry(&facts("GET", UNAVAILABLE), &budget), RetryVerdict::Retry { .. }));
    }
    assert_eq!(rule.retry(&facts("GET", UNAVAILABLE), &budget), RetryVerdict::Stop(Stop::Budget));
}

proptest! {
    #[test]
    fn a_retry_is_never_early_nor_late(
        retry_in in prop::option::of(0u64..200_000), deadline in prop::option::of(1u64..100_000),
        attempt in 1u32..3, seed: u64, method in prop::sample::select(vec!["GET", "POST", "PUT"]),
    ) {
        let mut facts = facts(method, Ending::Status(429));
        facts.attempt = attempt;
        facts.seed = seed;
        facts.retry_at = retry_in.map(|millis| now().plus_millis(millis));
        facts.deadline = Deadline::new(now(), deadline.map(Duration::from_millis), None);
        if let RetryVerdict::Retry { at, reason } = verdict(&facts) {
            prop_assert!(method != "POST");
            prop_assert!(facts.deadline.allows(at));
            prop_assert!(at.since(now()) <= RetryRule::default().max_wait);
            prop_assert!(at >= facts.retry_at.unwrap_or(now()));
            prop_assert_eq!(reason == RetryReason::RetryAfter, retry_in.is_some_and(|millis| millis > 0));
        }
    }

    #[test]
    fn equal_inputs_give_equal_verdicts(seed: u64, attempt in 1u32..5) {
        let mut facts = facts("GET", UNAVAILABLE);
        (facts.seed, facts.attempt) = (seed, attempt);
        prop_assert_eq!(verdict(&facts), verdict(&facts));
    }
}
