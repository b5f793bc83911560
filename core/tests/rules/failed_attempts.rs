//! What an attempt that came to nothing means for the rest of its call: it is not repeated where it may have had its
//! effect, it is paid for once, and it says what it says of its side, whatever the application gets instead.

use crate::support::{T0, at, engine, sent, waited};
use farcall::{ErrorType, Head, RefusedBy, Step};

#[test]
fn an_applications_own_key_is_left_alone_whatever_the_vendor_calls_it() {
    let engine = engine("[[resilience]]\nmatch = { vendor = \"paypal\" }\nattempts = 2\n");
    let post = || Head::new("POST", "https://api.paypal.com/v2/checkout/orders").body(Some(9), true);
    let own = [("PayPal-Request-Id", "order-17")];
    let mut call = engine.begin(&post().headers(&own.as_slice()), T0, 1);
    assert_eq!(sent(&mut call, &engine, T0).idempotency_header(), None);
    call.failed(ErrorType::Reset);
    let until = waited(&mut call, &engine, at(10));
    assert_eq!(sent(&mut call, &engine, until).idempotency_header(), None, "its own key makes it safe");

    // What the vendor does not look at protects nothing.
    let other = [("Idempotency-Key", "order-17")];
    let mut call = engine.begin(&post().headers(&other.as_slice()), T0, 2);
    let (name, _) =
        sent(&mut call, &engine, T0).idempotency_header().map(|(name, key)| (name.to_owned(), key)).unwrap();
    assert_eq!(name, "paypal-request-id");
}

#[test]
fn a_charge_that_may_have_been_made_does_not_go_over_to_a_host_that_does_not_know_its_key() {
    let engine = engine(
        r#"
        [[resilience]]
        match = { vendor = "stripe" }
        attempts = 3
        breaker = { consecutive = 1, open = "30s" }
        failover = { host = "backup.example.com", when = ["breaker", "connect"], keep_credentials = true }
        "#,
    );
    let post = Head::new("POST", "https://api.stripe.com/v1/charges").body(Some(9), true);
    let mut call = engine.begin(&post, T0, 1);
    assert!(sent(&mut call, &engine, T0).changes.is_none());
    // It opens the breaker, and the key makes it safe to ask the same host again.
    call.failed(ErrorType::Timeout);
    let until = waited(&mut call, &engine, at(10));
    let Step::Refuse(refusal) = call.step(&engine, until) else { panic!("not at the other host") };
    assert_eq!(refusal.by, RefusedBy::Breaker);
    // What was never sent goes over.
    let mut call = engine.begin(&post, at(100), 2);
    assert!(sent(&mut call, &engine, at(100)).changes.is_some());
}

#[test]
fn a_call_that_ends_between_two_attempts_costs_what_the_first_one_did() {
    let engine = engine(
        r#"
        [[price]]
        vendor = "stripe"
        call = "0.01 USD / call"

        [[budget]]
        name = "all"
        match = { vendor = "stripe" }
        limit = "1 USD / day"

        [[resilience]]
        match = { vendor = "stripe" }
        attempts = 3
        "#,
    );
    let get = Head::new("GET", "https://api.stripe.com/v1/charges").body(Some(0), true);
    let mut call = engine.begin(&get, T0, 1);
    let _ = sent(&mut call, &engine, T0);
    call.answer(&engine, 503, &[("x", "y")], at(10));
    let _ = waited(&mut call, &engine, at(10));
    // Somebody gives up while it backs off.
    call.abandon(&engine, at(20));
    let batch = engine.drain(at(1_000));
    assert_eq!((batch.rows[0].sums.cost, batch.rows[0].sums.cost_unknown), (0, 0), "a 503 is free");
    assert_eq!(batch.budgets.iter().map(|budget| budget.spent).sum::<u64>(), 0);
}

#[test]
fn a_budget_of_requests_counts_a_call_that_ends_between_two_attempts() {
    let engine = engine(
        r#"
        [[budget]]
        name = "few"
        match = { vendor = "stripe" }
        limit = "2 requests / day"
        over = "refuse"

        [[resilience]]
        match = { vendor = "stripe" }
        attempts = 3
        "#,
    );
    let get = Head::new("GET", "https://api.stripe.com/v1/charges").body(Some(0), true);
    for n in 1..=2 {
        let mut call = engine.begin(&get, T0, n);
        let _ = sent(&mut call, &engine, T0);
        call.answer(&engine, 503, &[("x", "y")], at(10));
        let _ = waited(&mut call, &engine, at(10));
        call.abandon(&engine, at(20));
    }
    let mut call = engine.begin(&get, at(30), 3);
    assert!(matches!(call.step(&engine, at(30)), Step::Refuse(refusal) if refusal.by == RefusedBy::Budget));
}

#[test]
fn a_clock_that_is_set_back_during_a_wait_does_not_prolong_it() {
    let rules = "[[resilience]]\nmatch = { vendor = \"stripe\" }\nattempts = 2\n";
    let engine = engine(rules);
    let get = Head::new("GET", "https://api.stripe.com/v1/charges").body(Some(0), true);
    let hour = 3_600_000;
    let mut call = engine.begin(&get, at(hour), 1);
    let _ = sent(&mut call, &engine, at(hour));
    call.answer(&engine, 503, &[("retry-after", "5")], at(hour));
    assert!(waited(&mut call, &engine, at(hour)) >= at(hour + 5_000));
    assert!(waited(&mut call, &engine, at(hour + 1_000)) >= at(hour + 5_000));
    let _ = sent(&mut call, &engine, at(6_000));
}

/// What is told of a GET whose vendor answers so, or fails, until nothing follows.
fn told(rules: &str, answer: Result<u16, ErrorType>) -> String {
    let engine = engine(rules);
    let get = Head::new("GET", "https://api.stripe.com/v1/charges").body(Some(0), true);
    let mut call = engine.begin(&get, T0, 1);
    while let Step::Send(attempt) = call.step(&engine, T0) {
        match answer {
            _ if attempt.changes.is_some() => call.answer(&engine, 200, &[("x", "y")], T0),
            Ok(status) => call.answer(&engine, status, &[("x", "y")], T0),
            Err(error) => call.failed(error),
        }
    }
    call.end(&engine, T0);
    engine.drain(T0).exemplars.iter().map(|call| call.events.as_str()).collect()
}

#[test]
fn an_attempt_that_a_backup_takes_over_leaves_how_it_ended() {
    let rules = "[[resilience]]\nmatch = { vendor = \"stripe\" }\n\
                 failover = { host = \"backup.example.com\", when = [\"5xx\", \"connect\"], keep_credentials = true }\n";
    let goes = "goes to the backup `backup.example.com`, as the vendor failed";
    assert_eq!(told(rules, Ok(502)), format!("+0.0 ms  answered 502: {goes}\n"));
    assert_eq!(told(rules, Err(ErrorType::Connect)), format!("+0.0 ms  failed (connect): {goes}\n"));
    let both = told(&format!("{rules}attempts = 1\n"), Ok(503));
    let stops = "answered 503: no further attempt, all attempts are used";
    assert_eq!(both, format!("+0.0 ms  {stops}\n+0.0 ms  answered 503: {goes}\n"));
}

#[test]
fn an_answer_that_breaks_off_says_why_it_is_not_asked_for_again() {
    let engine = engine("[[resilience]]\nmatch = { vendor = \"stripe\" }\nattempts = 3\n");
    let get = |url: &'static str| Head::new("GET", url).body(Some(0), true);
    let told = |url, error: Option<ErrorType>| {
        let mut call = engine.begin(&get(url), T0, 1);
        let _ = sent(&mut call, &engine, T0);
        call.answer(&engine, 200, &[("x", "y")], T0);
        assert_eq!(call.step(&engine, T0), Step::Settled);
        call.read(b"half of ");
        if let Some(error) = error {
            call.failed(error);
        }
        call.end(&engine, at(5));
        let batch = engine.drain(at(5));
        batch.exemplars.iter().map(|call| call.events.as_str()).collect::<String>()
    };
    let stripe = "https://api.stripe.com/v1/charges";
    let why = "no further attempt, a part of the response is already with the application";
    assert_eq!(told(stripe, Some(ErrorType::Reset)), format!("+5.0 ms  failed (reset): {why}\n"));
    // Nobody would have tried again: it came whole, the application gave it up, or no rule is about it.
    assert_eq!(told(stripe, None), "");
    assert_eq!(told(stripe, Some(ErrorType::Cancelled)), "");
    assert_eq!(told("https://api.github.com/user", Some(ErrorType::Reset)), "");
}
