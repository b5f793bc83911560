//! Attempts: which are made again and under which key, and what the breaker refuses.

use crate::support::{T0, at, engine, get, pass, refused, sent};
use farcall::{Engine, ErrorType, Head, RefusedBy, Step};

#[test]
fn failures_are_tried_again_when_the_vendor_asked_for_it_and_open_the_breaker() {
    let engine = engine(
        r#"
        [[resilience]]
        match = { vendor = "stripe" }
        attempts = 3
        backoff = "100ms..1s"
        breaker = { consecutive = 5, open = "30s" }
        "#,
    );
    let mut call = engine.begin(&get("acme"), T0, 1);
    assert_eq!(sent(&mut call, &engine, T0).number, 1);
    call.answer(&engine, 503, &[("retry-after", "2")], at(50));
    let Step::Wait(until) = call.step(&engine, at(50)) else { panic!("a 503 of a GET is worth a retry") };
    assert!(
        (at(2_050)..at(2_300)).contains(&until),
        "when the vendor asked for it, spread a little: {until:?}"
    );
    assert_eq!(sent(&mut call, &engine, until).number, 2);
    call.answer(&engine, 200, &[("x", "y")], at(2_100));
    assert_eq!(call.step(&engine, at(2_100)), Step::Settled);
    call.end(&engine, at(2_110));
    let batch = engine.drain(at(3_000));
    assert_eq!((batch.rows[0].sums.calls, batch.rows[0].sums.attempts, batch.rows[0].status), (1, 2, 200));
    let events = &batch.exemplars.iter().find(|exemplar| !exemplar.events.is_empty()).unwrap().events;
    assert!(events.contains("answered 503: tries again"), "{events}");

    // A charge without an idempotency key is not sent twice where the vendor would not know.
    let post = Head::new("POST", "https://hooks.slack.com/services/T0/B0/x").body(Some(9), true);
    pass(&engine, &post, at(3_000), 2, 503, &[]);

    let mut n = 10;
    let refusal = loop {
        n += 1;
        let mut call = engine.begin(&get("acme"), at(4_000 + n), n);
        match call.step(&engine, at(4_000 + n)) {
            Step::Send(_) => {
                call.failed(ErrorType::Reset);
                call.end(&engine, at(4_000 + n));
            }
            Step::Refuse(refusal) => break refusal,
            step => panic!("{step:?}"),
        }
        assert!(n < 30, "five failures in a row open the breaker");
    };
    assert_eq!(refusal.by, RefusedBy::Breaker);
}

#[test]
fn a_charge_gets_an_idempotency_key_where_the_vendor_honours_one_and_is_tried_again() {
    let engine = engine("[[resilience]]\nmatch = { vendor = \"stripe\" }\nattempts = 2\n");
    let post = Head::new("POST", "https://api.stripe.com/v1/charges").body(Some(9), true);
    let mut call = engine.begin(&post, T0, 1);
    let first =
        sent(&mut call, &engine, T0).idempotency_header().map(|(name, key)| (name.to_owned(), key)).unwrap();
    assert_eq!(first.0, "idempotency-key");
    call.failed(ErrorType::Reset);
    let Step::Wait(until) = call.step(&engine, at(10)) else { panic!("the key makes it safe") };
    let second = sent(&mut call, &engine, until);
    assert_eq!(second.idempotency_header().unwrap().1, first.1, "the same call has the same key");
}

#[test]
fn what_an_open_breaker_refuses_takes_no_place_among_the_calls_under_way() {
    let engine = engine(
        r#"
        [[resilience]]
        match = { vendor = "stripe" }
        attempts = 1
        concurrency = { limit = 2, max_wait = "0s" }
        breaker = { consecutive = 1, open = "10s" }
        "#,
    );
    pass(&engine, &get("acme"), at(0), 1, 500, &[]);
    for seed in 2..12 {
        let mut call = engine.begin(&get("acme"), at(seed), seed);
        assert_eq!(refused(&mut call, &engine, at(seed)).by, RefusedBy::Breaker);
    }
    pass(&engine, &get("acme"), at(60_000), 20, 200, &[]);
}

#[test]
fn a_body_beyond_replay_bytes_goes_out_once() {
    let rules = |bytes: &str| {
        engine(&format!("[[resilience]]\nmatch = {{ vendor = \"stripe\" }}\nattempts = 2\n{bytes}"))
    };
    let again = |engine: &Engine, size: u64| {
        let put = Head::new("PUT", "https://api.stripe.com/v1/charges").body(Some(size), true);
        let mut call = engine.begin(&put, T0, 1);
        let _ = sent(&mut call, engine, T0);
        call.head(503, at(10));
        matches!(call.step(engine, at(10)), Step::Wait(_))
    };
    for (bytes, most) in
        [("", 64 << 10), ("replay_bytes = \"1KiB\"", 1 << 10), ("replay_bytes = \"1MiB\"", 1 << 20)]
    {
        let engine = rules(bytes);
        assert!(again(&engine, most), "{bytes}");
        // What is in memory anyway has no bound that nobody wrote.
        assert_eq!(again(&engine, most + 1), bytes.is_empty(), "{bytes}");
        // Of one that says no size, and of one that an adapter has to keep.
        let put = Head::new("PUT", "https://api.stripe.com/v1/charges").body(None, false);
        for (size, kept) in [(Some(most), true), (Some(most + 1), false), (None, false)] {
            assert_eq!(engine.begin(&put, T0, 2).keep(size), kept, "{bytes} {size:?}");
        }
    }
}

#[test]
fn a_body_that_is_kept_while_it_goes_out_is_sent_again_once_it_is_whole() {
    let engine =
        engine("[[resilience]]\nmatch = { vendor = \"stripe\" }\nattempts = 2\nreplay_bytes = \"1KiB\"");
    let put = Head::new("PUT", "https://api.stripe.com/v1/charges").body(Some(1 << 10), false);
    for (whole, again) in [(None, false), (Some(1 << 10), true), (Some((1 << 10) + 1), false)] {
        let mut call = engine.begin(&put, T0, 1);
        assert_eq!(call.replay_bytes(), 1 << 10);
        let _ = sent(&mut call, &engine, T0);
        call.head(503, at(10));
        call.replays(whole);
        assert_eq!(matches!(call.step(&engine, at(10)), Step::Wait(_)), again, "{whole:?}");
    }
}

#[test]
fn a_body_is_worth_keeping_where_a_rule_goes_by_it() {
    let of = |rules: &str| {
        let engine = engine(rules);
        let put = Head::new("PUT", "https://api.stripe.com/v1/charges").body(Some(7), false);
        (engine.replay_bytes(), engine.begin(&put, T0, 1).replay_bytes())
    };
    assert_eq!(of(""), (0, 0));
    assert_eq!(of("[[resilience]]\nmatch = {}\nbreaker = {}"), (0, 0));
    assert_eq!(of("[[resilience]]\nmatch = {}\nattempts = 1"), (0, 0));
    assert_eq!(of("[[resilience]]\nmatch = {}\nattempts = 2"), (64 << 10, 64 << 10));
    assert_eq!(of("[[resilience]]\nmatch = { vendor = \"openai\" }\nattempts = 2"), (64 << 10, 0));
    assert_eq!(of("[[resilience]]\nmatch = {}\nattempts = 2\nreplay_bytes = \"1MiB\""), (1 << 20, 1 << 20));
    let backup =
        "[[resilience]]\nmatch = {}\nfailover = { host = \"backup.example.net\", keep_credentials = true }";
    assert_eq!(of(backup), (64 << 10, 64 << 10));
    assert_eq!(of("[[resilience]]\nmatch = {}\nhedge = { after = \"1s\" }"), (64 << 10, 64 << 10));
    let judged = [
        "[[budget]]\nmatch = {}\nlimit = \"5 USD / day\"",
        "[[quota]]\nmatch = {}\nlimit = \"100 tokens / 1s\"",
        "[[policy]]\nmatch = { bytes = \">1KiB\" }\nverdict = \"deny\"",
    ];
    for rules in judged {
        assert_eq!(of(rules), (256 << 10, 0), "{rules}");
    }
    assert_eq!(of("[[budget]]\nmatch = {}\nlimit = \"5 requests / day\""), (0, 0));
}

#[test]
fn what_was_not_sent_goes_to_the_backup_of_an_open_breaker_whatever_its_body() {
    let engine = engine(
        r#"
        [[resilience]]
        match = { vendor = "stripe" }
        breaker = { consecutive = 1, open = "10s" }
        failover = { host = "backup.example.net", when = ["breaker"], keep_credentials = true }
        "#,
    );
    pass(&engine, &get("acme"), at(0), 1, 500, &[]);
    let head = Head::new("GET", "https://api.stripe.com/v1/charges").body(None, false);
    let mut call = engine.begin(&head, at(10), 2);
    let changes = sent(&mut call, &engine, at(10)).changes.unwrap();
    assert_eq!(changes.host.as_deref(), Some("backup.example.net"));
    // An adapter that cannot change where it goes asks to be refused.
    let mut other = engine.begin(&head, at(20), 3);
    let Step::Refuse(refusal) = other.step_at_once(&engine, at(20)) else {
        panic!("it would go to the vendor")
    };
    assert_eq!(refusal.by, RefusedBy::Breaker);
}
