//! What rules make of calls, through the engine alone: time is a number, nothing is sent.
#![allow(clippy::unwrap_used)]

use farcall::ledger::{Batch, Spent};
use farcall::{Call, Caller, Config, Engine, ErrorType, Head, Outcome, Priority, RefusedBy, Step, Timestamp};

const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);

fn engine(rules: &str) -> Engine {
    let config = Config::parse("farcall.toml", rules).unwrap_or_else(|errors| panic!("{errors:?}"));
    Engine::new(config, Caller::new("checkout"), 1, 42)
}

fn at(millis: u64) -> Timestamp {
    T0.plus_millis(millis)
}

fn get<'a>(customer: &'a str) -> Head<'a> {
    Head::new("GET", "https://api.stripe.com/v1/charges").customer(Some(customer)).body(Some(0), true)
}

fn sent(call: &mut Call, engine: &Engine, now: Timestamp) -> farcall::Attempt {
    match call.step(engine, now) {
        Step::Send(attempt) => attempt,
        step => panic!("{step:?}"),
    }
}

fn refused(call: &mut Call, engine: &Engine, now: Timestamp) -> farcall::Refusal {
    match call.step(engine, now) {
        Step::Refuse(refusal) => refusal,
        step => panic!("{step:?}"),
    }
}

/// Makes a call that is sent and answered at once.
fn pass(engine: &Engine, head: &Head<'_>, now: Timestamp, seed: u64, status: u16, headers: &[(&str, &str)]) {
    let mut call = engine.begin(head, now, seed);
    let _ = sent(&mut call, engine, now);
    call.answer(engine, status, &headers, now);
    assert_eq!(call.step(engine, now), Step::Settled);
    call.end(engine, now);
}

fn calls(batch: &Batch, outcome: Outcome) -> u64 {
    batch.rows.iter().filter(|row| row.outcome == outcome).map(|row| row.sums.calls).sum()
}

#[test]
fn what_the_policy_denies_is_refused_with_its_reason_and_counted() {
    let engine = engine(
        r#"
        [[policy]]
        name = "only-billing"
        match = { vendor = "stripe", caller.service = "!billing" }
        verdict = "deny"
        reason = "only billing talks to Stripe"
        "#,
    );
    assert!(engine.decides());
    let mut call = engine.begin(&get("acme"), T0, 1);
    let refusal = refused(&mut call, &engine, T0);
    assert_eq!((refusal.by, refusal.rule.as_ref()), (RefusedBy::Policy, "only-billing"));
    assert!(refusal.to_string().contains("only billing talks to Stripe"), "{refusal}");
    assert!(call.is_settled());
    let batch = engine.drain(T0);
    assert_eq!(calls(&batch, Outcome::Refused(RefusedBy::Policy)), 1);
    assert_eq!(batch.rows[0].sums.attempts, 0, "nothing went out");
    assert!(batch.exemplars[0].events.contains("refused by policy `only-billing`"), "{:?}", batch.exemplars);
    pass(&engine, &Head::new("GET", "https://api.github.com/user"), T0, 2, 200, &[]);
    assert_eq!(calls(&engine.drain(T0), Outcome::Complete), 1);
}

#[test]
fn a_rate_of_our_own_makes_calls_wait_for_a_slot_and_no_longer_than_their_deadline() {
    let engine = engine(
        r#"
        [[quota]]
        match = { vendor = "stripe" }
        limit = "10 requests / 1s"
        burst = 1
        max_wait = "5s"
        "#,
    );
    pass(&engine, &get("acme"), T0, 1, 200, &[]);
    let mut second = engine.begin(&get("acme"), T0, 2);
    let Step::Wait(until) = second.step(&engine, T0) else { panic!("it went at once") };
    assert_eq!(until, at(100));
    let _ = sent(&mut second, &engine, until);
    let mut late = engine.begin(&get("acme").deadline(Some(at(150))), T0, 3);
    let refusal = refused(&mut late, &engine, T0);
    assert_eq!(refusal.by, RefusedBy::Quota);
    assert_eq!(refusal.until, Some(at(200)), "it is told when it would pass");
    second.answer(&engine, 200, &[("x", "y")], at(120));
    second.end(&engine, at(120));
    let batch = engine.drain(at(200));
    let waited: u64 = batch.rows.iter().map(|row| row.sums.waited.as_millis() as u64).sum();
    assert_eq!(waited, 100);
}

#[test]
fn a_vendors_own_word_holds_calls_back_until_its_reset() {
    let engine = engine(
        r#"
        [[quota]]
        match = { vendor = "github" }
        max_wait = "30s"
        "#,
    );
    let head = Head::new("GET", "https://api.github.com/user").body(Some(0), true);
    let reset = at(20_000).as_secs().to_string();
    let headers = [
        ("x-ratelimit-limit", "60"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", reset.as_str()),
        ("x-ratelimit-resource", "core"),
    ];
    pass(&engine, &head, T0, 1, 200, &headers);
    let mut call = engine.begin(&head, at(10), 2);
    let Step::Wait(until) = call.step(&engine, at(10)) else { panic!("nothing is left") };
    assert!(until.since(T0).as_secs() >= 19, "{until:?}");
    let mut soon = engine.begin(&head.deadline(Some(at(1_000))), at(10), 3);
    assert_eq!(refused(&mut soon, &engine, at(10)).by, RefusedBy::Quota);
}

#[test]
fn a_429_is_an_incident_that_names_who_used_the_window() {
    let engine = engine(
        r#"
        [[quota]]
        match = { vendor = "github" }
        pace = "off"
        "#,
    );
    let head = |customer| Head::new("GET", "https://api.github.com/user").customer(Some(customer));
    let reset = at(60_000).as_secs().to_string();
    for n in 0..20 {
        let left = (19 - n).to_string();
        let headers = [
            ("x-ratelimit-limit", "20"),
            ("x-ratelimit-remaining", left.as_str()),
            ("x-ratelimit-reset", reset.as_str()),
            ("x-ratelimit-resource", "core"),
        ];
        pass(&engine, &head(if n % 10 == 0 { "globex" } else { "acme" }), at(n), n, 200, &headers);
    }
    let headers = [
        ("x-ratelimit-limit", "20"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", reset.as_str()),
        ("x-ratelimit-resource", "core"),
    ];
    let mut call = engine.begin(&head("acme"), at(30), 99);
    // Nobody knows yet that nothing is left, or it would not be sent: another process used the last one.
    let _ = call.step(&engine, at(30));
    call.answer(&engine, 429, &headers, at(40));
    call.end(&engine, at(40));
    let batch = engine.drain(at(1_000));
    let incident = batch.incidents.first().expect("a 429 is an incident");
    assert_eq!((incident.vendor.as_str(), incident.limit, incident.count), ("github", Some(20), 1));
    assert_eq!(incident.customers[0].name, "acme");
    assert_eq!(incident.retry_at.unwrap().as_secs(), at(60_000).as_secs(), "not before the reset");
    assert!(farcall::quota::explain(incident).contains("acme"), "{}", farcall::quota::explain(incident));
}

#[test]
fn a_429_counts_once_whatever_its_body_makes_of_it() {
    for (body, kind) in [("slow down", "rate"), (r#"{"error":{"code":"insufficient_quota"}}"#, "exhausted")] {
        let engine = engine("[[quota]]\nmatch = { vendor = \"openai\" }\npace = \"off\"");
        let head = Head::new("POST", "https://api.openai.com/v1/chat/completions").customer(Some("acme"));
        let mut begun: Vec<Call> = (0..3).map(|n| engine.begin(&head, at(0), n)).collect();
        for call in &mut begun {
            let _ = sent(call, &engine, at(0));
        }
        for (call, n) in begun.iter_mut().zip(0..) {
            let headers: &[(&str, &str)] = &[];
            call.answer(&engine, 429, &headers, at(n));
            if n == 1 {
                // The head is told of, before anybody knows what the body says.
                assert_eq!(engine.drain(at(n)).incidents.len(), 1);
            }
            call.read(body.as_bytes());
            assert_eq!(call.step(&engine, at(n)), Step::Settled);
            call.end(&engine, at(n));
        }
        let batch = engine.drain(at(1_000));
        let incident = &batch.incidents[0];
        assert_eq!((incident.kind.as_str(), incident.count, batch.incidents.len()), (kind, 3, 1));
    }
}

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
fn a_budget_is_spent_by_what_calls_cost_and_then_refuses() {
    let engine = engine(
        r#"
        [[budget]]
        name = "llm"
        match = { vendor = "openai", customer = "*" }
        limit = "0.001 USD / day"
        over = "refuse"
        "#,
    );
    let request = br#"{"model":"gpt-4o","max_tokens":50,"messages":[]}"#;
    let head = |customer| {
        Head::new("POST", "https://api.openai.com/v1/chat/completions")
            .customer(Some(customer))
            .body(Some(request.len() as u64), true)
            .content(request)
    };
    let answer = br#"{"model":"gpt-4o-2024-08-06","usage":{"prompt_tokens":40,"completion_tokens":60}}"#;
    let mut call = engine.begin(&head("acme"), T0, 1);
    let _ = sent(&mut call, &engine, T0);
    call.answer(&engine, 200, &[("content-type", "application/json")], at(100));
    assert_eq!(call.step(&engine, at(100)), Step::Settled);
    assert!(call.wants_body());
    call.read(answer);
    call.end(&engine, at(120));
    let batch = engine.drain(at(1_000));
    let sums = batch.rows[0].sums;
    // 40 x 2.50 USD and 60 x 10 USD for a million tokens.
    assert_eq!((sums.cost, sums.cost_unknown, sums.tokens_in, sums.tokens_out), (700_000, 0, 40, 60));
    assert_eq!((batch.budgets[0].budget.as_ref(), batch.budgets[0].spent), ("llm, USD / day", 700_000));
    assert_eq!(batch.budgets[0].partition.as_ref(), "customer=acme");

    let mut second = engine.begin(&head("acme"), at(2_000), 2);
    let refusal = refused(&mut second, &engine, at(2_000));
    assert_eq!((refusal.by, refusal.rule.as_ref()), (RefusedBy::Budget, "llm"));
    assert!(refusal.until.is_some(), "it passes when the day ends");
    let mut other = engine.begin(&head("globex"), at(2_000), 3);
    let _ = sent(&mut other, &engine, at(2_000));

    // What other processes have spent counts as well.
    let period = batch.budgets[0].period;
    let told = |partition: &str| Spent::new("llm, USD / day".into(), partition.into(), period, 1_000_000);
    engine.tell_spending([told("customer=globex"), told("customer=initech")], at(2_000));
    let mut third = engine.begin(&head("globex"), at(2_000), 4);
    assert_eq!(refused(&mut third, &engine, at(2_000)).by, RefusedBy::Budget);
    // Also of what no call asked for here before.
    let mut fourth = engine.begin(&head("initech"), at(2_000), 5);
    assert_eq!(refused(&mut fourth, &engine, at(2_000)).by, RefusedBy::Budget);
}

#[test]
fn a_reload_holds_for_the_next_call_and_not_for_those_under_way() {
    let engine = engine("");
    assert!(!engine.decides());
    let mut under_way = engine.begin(&get("acme"), T0, 1);
    let deny = "[[policy]]\nmatch = { vendor = \"stripe\" }\nverdict = \"deny\"\n";
    engine.reload(&Config::parse("f", deny).unwrap());
    let _ = sent(&mut under_way, &engine, T0);
    under_way.abandon(&engine, T0);
    let mut next = engine.begin(&get("acme"), T0, 2);
    assert_eq!(refused(&mut next, &engine, T0).by, RefusedBy::Policy);
    engine.reload(&Config::default());
    pass(&engine, &get("acme"), T0, 3, 200, &[]);
    assert_eq!(engine.counters().reloads, 2);
}

#[test]
fn a_kill_switch_refuses_and_a_variant_goes_elsewhere() {
    let engine = engine(
        r#"
        [[rollout]]
        name = "off"
        match = { vendor = "slack" }
        kill = true
        [[rollout]]
        name = "eu"
        match = { vendor = "stripe" }
        share = "100%"
        variant = { host = "eu.stripe.example", keep_credentials = true }
        "#,
    );
    let slack = Head::new("POST", "https://slack.com/api/chat.postMessage");
    let mut call = engine.begin(&slack, T0, 1);
    assert_eq!(refused(&mut call, &engine, T0).by, RefusedBy::Rollout);
    let mut call = engine.begin(&get("acme"), T0, 2);
    let attempt = sent(&mut call, &engine, T0);
    assert_eq!(attempt.changes.as_ref().unwrap().host.as_deref(), Some("eu.stripe.example"));
}

#[test]
fn a_fault_is_injected_only_where_the_file_allows_it() {
    let fault = r#"
        [[fault]]
        match = { vendor = "stripe" }
        share = "100%"
        latency = "50ms"
        status = 503
        expires = "2030-01-01T00:00:00Z"
        "#;
    let engine = engine(&format!("allow_faults = true\n{fault}"));
    let mut call = engine.begin(&get("acme"), T0, 1);
    assert_eq!(call.step(&engine, T0), Step::Wait(at(50)));
    let Step::Respond(stored) = call.step(&engine, at(50)) else { panic!("no fault") };
    assert_eq!(stored.status, 503);
    let (config, _errors) = Config::read("f", fault);
    let off = Engine::new(config, Caller::new("x"), 1, 1);
    pass(&off, &get("acme"), T0, 1, 200, &[]);
}

#[test]
fn batch_calls_leave_what_is_kept_for_interactive_ones() {
    let engine = engine(
        r#"
        [[quota]]
        match = { vendor = "stripe" }
        limit = "10 requests / 10s"
        burst = 10
        pace = "reserve"
        reserve = { priority = "interactive", share = "50%" }
        max_wait = "1ms"
        "#,
    );
    let sends = |priority, from: u64| {
        (0..10)
            .filter(|n| {
                let mut call = engine.begin(&get("acme").priority(priority), T0, from + n);
                let sent = matches!(call.step(&engine, T0), Step::Send(_));
                call.abandon(&engine, T0);
                sent
            })
            .count()
    };
    assert!(sends(Priority::Batch, 0) <= 6);
    assert!(sends(Priority::Interactive, 100) >= 4);
}

#[test]
fn a_budget_sends_the_cheaper_model_also_where_nobody_knows_a_price() {
    let engine = engine(
        r#"
        [[budget]]
        match = { vendor = "notion" }
        limit = "1 requests / day"
        over = "downgrade"
        downgrade = { from = "large", to = "small" }
        "#,
    );
    let request = br#"{"model":"large"}"#;
    let head = Head::new("POST", "https://api.notion.com/v1/search")
        .body(Some(request.len() as u64), true)
        .content(request);
    let mut first = engine.begin(&head, T0, 1);
    assert_eq!(sent(&mut first, &engine, T0).model, None);
    first.head(200, T0);
    first.end(&engine, T0);
    let mut second = engine.begin(&head, at(10), 2);
    assert_eq!(sent(&mut second, &engine, at(10)).model.as_deref(), Some("small"));
    second.abandon(&engine, at(20));
}

#[test]
fn calls_under_way_are_limited_also_where_the_vendor_states_nothing() {
    let engine = engine(
        "[[quota]]\nname = \"q\"\nmatch = { vendor = \"stripe\" }\nconcurrency = 2\nmax_wait = \"0s\"\n",
    );
    let head = get("acme");
    let mut first = engine.begin(&head, at(0), 1);
    let mut second = engine.begin(&head, at(0), 2);
    let _ = (sent(&mut first, &engine, at(0)), sent(&mut second, &engine, at(0)));
    let mut third = engine.begin(&head, at(1), 3);
    let refusal = refused(&mut third, &engine, at(1));
    assert_eq!((&*refusal.rule, &*refusal.reason), ("q", "concurrency"));
    first.answer(&engine, 200, &[("x", "y")].as_slice(), at(2));
    assert_eq!(first.step(&engine, at(2)), Step::Settled);
    first.end(&engine, at(2));
    let mut fourth = engine.begin(&head, at(3), 4);
    let _ = sent(&mut fourth, &engine, at(3));
    second.abandon(&engine, at(4));
    fourth.abandon(&engine, at(4));
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
fn rules_find_the_country_the_kinds_of_data_and_where_a_credential_came_from() {
    let engine = engine(
        r#"
        [[vendor]]
        name = "werk"
        hosts = ["api.werk.example"]
        country = "de"
        [[data]]
        match = { vendor = "werk", endpoint = "POST *" }
        kinds = ["card", "email"]
        [[data]]
        match = { vendor = "werk" }
        kinds = ["email"]
        [[policy]]
        name = "abroad"
        match = { country = "!DE" }
        verdict = "deny"
        [[policy]]
        name = "no-cards"
        match = { data = "card" }
        verdict = "deny"
        [[policy]]
        name = "not-that-key"
        match = { credential.origin = "LIVE_*" }
        verdict = "deny"
        "#,
    );
    engine.set_environment([("LIVE_KEY", "sk-live-0123456789"), ("TEST_KEY", "sk-test-0123456789")]);
    let decided = |method: &str, url: &str, key: &str| {
        let headers = [("authorization", key)];
        let headers = headers.as_slice();
        let mut call = engine.begin(&Head::new(method, url).headers(&headers), T0, 7);
        match call.step(&engine, T0) {
            Step::Send(_) => {
                call.abandon(&engine, T0);
                None
            }
            Step::Refuse(refusal) => Some(refusal.rule.to_string()),
            step => panic!("{step:?}"),
        }
    };
    let werk = "https://api.werk.example/v1/orders";
    assert_eq!(decided("GET", werk, "Bearer sk-test-0123456789"), None);
    assert_eq!(decided("POST", werk, "Bearer sk-test-0123456789").as_deref(), Some("no-cards"));
    assert_eq!(decided("GET", werk, "Bearer sk-live-0123456789").as_deref(), Some("not-that-key"));
    assert_eq!(decided("GET", werk, "Bearer from-a-file-0123"), None);
    assert_eq!(decided("GET", "https://api.stripe.com/v1/charges", "").as_deref(), Some("abroad"));
    assert_eq!(
        decided("GET", "https://who.example/v1", "").as_deref(),
        Some("abroad"),
        "not known is not DE"
    );
}

#[test]
fn the_hundred_thousandth_customer_has_a_budget_too() {
    let engine = engine(
        r#"
        [[budget]]
        name = "each"
        match = { vendor = "stripe", customer = "*" }
        limit = "2 requests / day"
        over = "refuse"
        "#,
    );
    let mut known = std::collections::HashMap::new();
    let mut tell = |engine: &Engine| {
        // Once a second, say: what was spent so far, by all processes.
        for each in engine.drain(T0).budgets {
            *known.entry((each.partition.to_string(), each.period)).or_insert(0) += each.spent;
        }
        let totals = known.iter().map(|((partition, period), spent)| {
            Spent::new("each, requests / day".into(), partition.clone(), *period, *spent)
        });
        engine.tell_spending(totals, T0);
    };
    let mut come = |numbers: std::ops::Range<u64>| {
        for n in numbers {
            pass(&engine, &get(&format!("customer-{n}")), T0, n, 200, &[]);
            if n % 8_000 == 0 {
                tell(&engine);
            }
        }
        (0..3).for_each(|_| tell(&engine));
    };
    come(0..60_000);
    // Those of long ago come again: what they spent before is counted, and once.
    come(0..3);
    for n in 0..3 {
        let mut call = engine.begin(&get(&format!("customer-{n}")), T0, 300_000 + n);
        assert_eq!(refused(&mut call, &engine, T0).by, RefusedBy::Budget, "the third of two");
    }
    come(60_000..100_000);
    pass(&engine, &get("customer-99999"), T0, 400_000, 200, &[]);
    let mut call = engine.begin(&get("customer-99999"), T0, 400_001);
    assert_eq!(refused(&mut call, &engine, T0).by, RefusedBy::Budget);
    assert_eq!(engine.counters().unkept_rules, 0);
    tell(&engine);
    assert_eq!(known.values().sum::<u64>(), 100_004);
}
