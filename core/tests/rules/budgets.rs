//! Budgets: what calls cost, and what follows when it is spent.

use crate::support::{T0, at, engine, get, pass, refused, sent};
use farcall::ledger::Spent;
use farcall::{Engine, Head, RefusedBy, Step};

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
fn a_call_that_only_the_cheaper_model_leaves_room_for_asks_that_one() {
    let engine = engine(
        r#"
        [[budget]]
        match = { vendor = "openai" }
        limit = "0.01 USD / day"
        at_80_percent = "downgrade"
        over = "refuse"
        downgrade = { from = "gpt-4o", to = "gpt-4o-mini" }

        [[budget]]
        name = "all"
        match = { vendor = "openai", customer = "acme" }
        limit = "0.01 USD / day"
        over = "refuse"
        "#,
    );
    // 600 tokens of an answer: 0.006 USD from the one, 0.00036 from the other.
    let request = br#"{"model":"gpt-4o","max_tokens":600,"messages":[]}"#;
    let head = Head::new("POST", "https://api.openai.com/v1/chat/completions")
        .customer(Some("acme"))
        .body(Some(request.len() as u64), true)
        .content(request);
    let mut models = Vec::new();
    let mut under_way = Vec::new();
    for n in 0..12 {
        let mut call = engine.begin(&head, T0, n);
        let Step::Send(attempt) = call.step(&engine, T0) else { break };
        models.push(attempt.model);
        under_way.push(call);
    }
    // Sixty percent are taken after the first: the second would not fit, and at four fifths each asks the cheaper.
    assert_eq!(models[0], None);
    assert_eq!(models.len(), 11, "of 0.004 USD ten times 0.00036 or a little more");
    assert!(models[1..].iter().all(|model| model.as_deref() == Some("gpt-4o-mini")), "{models:?}");
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

#[test]
fn a_body_that_is_shown_later_is_paid_for_like_one_that_was_there() {
    let engine = engine(
        r#"
        [[budget]]
        match = { vendor = "openai" }
        limit = "3.5 USD / day"
        over = "refuse"
        "#,
    );
    // 10 USD for a million tokens of an answer.
    let request = br#"{"model":"gpt-4o","max_tokens":100000,"messages":[]}"#;
    let head = Head::new("POST", "https://api.openai.com/v1/chat/completions")
        .body(Some(request.len() as u64), false);
    let mut under_way = Vec::new();
    for n in 0..3 {
        let mut call = engine.begin(&head, T0, n);
        assert!(call.wants_content() && call.keep(head.body));
        call.show(&head.content(request));
        assert!(!call.wants_content());
        let _ = sent(&mut call, &engine, T0);
        under_way.push(call);
    }
    let mut fourth = engine.begin(&head, T0, 4);
    fourth.show(&head.content(request));
    assert_eq!(refused(&mut fourth, &engine, T0).by, RefusedBy::Budget);
    assert_eq!(engine.counters().unread_requests, 0);

    // One that nobody shows is counted; a form, a GET and an empty body have nothing to show.
    let mut unseen = engine.begin(&head, T0, 5);
    let _ = sent(&mut unseen, &engine, T0);
    assert_eq!(engine.counters().unread_requests, 1);
    let upload: &[(&str, &str)] = &[("content-type", "multipart/form-data; boundary=x")];
    for (method, size, headers) in
        [("GET", None, &[][..]), ("POST", Some(0), &[][..]), ("POST", Some(9), upload)]
    {
        let head = Head::new(method, "https://api.openai.com/v1/files").body(size, false).headers(&headers);
        assert!(!engine.begin(&head, T0, 6).wants_content(), "{method} {size:?}");
    }
}

#[test]
fn a_call_that_was_refused_has_no_unread_request() {
    let engine = engine(
        r#"
        [[budget]]
        match = { vendor = "openai" }
        limit = "1M tokens / day"
        [[budget]]
        match = { vendor = "openai" }
        limit = "1 request / day"
        over = "refuse"
        [[quota]]
        match = { vendor = "anthropic" }
        limit = "50 tokens / 1s"
        "#,
    );
    let unread = || engine.counters().unread_requests;
    let head = |url| Head::new("POST", url).body(Some(200), false);
    let openai = head("https://api.openai.com/v1/chat/completions");
    let mut first = engine.begin(&openai, T0, 1);
    assert!(first.wants_content());
    let _ = sent(&mut first, &engine, T0);
    assert_eq!(unread(), 1);
    assert_eq!(refused(&mut engine.begin(&openai, T0, 2), &engine, T0).by, RefusedBy::Budget);
    assert_eq!(unread(), 1, "the second went nowhere");

    // One that waits is sent in the end, and counts once; meanwhile nobody need show it any more.
    let anthropic = head("https://api.anthropic.com/v1/messages");
    let _ = sent(&mut engine.begin(&anthropic, T0, 4), &engine, T0);
    let mut waits = engine.begin(&anthropic, T0, 5);
    let Step::Wait(until) = waits.step(&engine, T0) else { panic!("its tokens come within two seconds") };
    assert_eq!((unread(), waits.wants_content()), (2, false));
    let _ = sent(&mut waits, &engine, until);
    assert_eq!(unread(), 3);
}
