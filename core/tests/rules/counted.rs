//! What budgets count.

use crate::support::{T0, at, engine, sent};
use farcall::ledger::Spent;
use farcall::units::Period;
use farcall::{Call, Config, Engine, ErrorType, Head, RefusedBy, Step};

const TOKENS: &str = "[[budget]]\nname = \"llm\"\nmatch = { vendor = \"openai\" }\nlimit = \"20k tokens / day\"\nover = \"refuse\"\n";
const CHAT: &str = r#"{"model":"gpt-4o","max_tokens":4096,"messages":[]}"#;

fn config(rules: &str) -> Config {
    Config::parse("farcall.toml", rules).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn post<'a>(url: &'a str, body: &'a str) -> Head<'a> {
    Head::new("POST", url).content(body.as_bytes()).body(Some(body.len() as u64), true)
}

fn chat() -> Head<'static> {
    post("https://api.openai.com/v1/chat/completions", CHAT)
}

fn begun(engine: &Engine, head: &Head<'_>) -> Result<Call, RefusedBy> {
    let mut call = engine.begin(head, T0, 7);
    match call.step(engine, T0) {
        Step::Send(_) => Ok(call),
        Step::Refuse(refusal) => Err(refusal.by),
        step => panic!("{step:?}"),
    }
}

/// Makes a call that is answered so.
fn call(engine: &Engine, head: &Head<'_>, status: u16, body: &str) -> Result<(), RefusedBy> {
    let mut call = begun(engine, head)?;
    let headers: &[(&str, &str)] = &[("content-type", "application/json")];
    call.answer(engine, status, &headers, T0);
    assert_eq!(call.step(engine, T0), Step::Settled);
    call.read(body.as_bytes());
    call.end(engine, T0);
    Ok(())
}

/// What the ledger is told of all budgets.
fn told(engine: &Engine) -> Vec<(String, u64)> {
    let budgets = engine.drain(T0).budgets;
    budgets.iter().map(|spending| (spending.budget.to_string(), spending.spent)).collect()
}

#[test]
fn an_outage_uses_up_no_budget_of_tokens() {
    let engine = engine(TOKENS);
    for status in [500, 429, 400, 503].repeat(50) {
        assert_eq!(call(&engine, &chat(), status, r#"{"error":{}}"#), Ok(()), "{status}");
    }
    let answer =
        r#"{"model":"gpt-4o","usage":{"prompt_tokens":9000,"completion_tokens":1000,"total_tokens":10000}}"#;
    assert_eq!(call(&engine, &chat(), 200, answer), Ok(()));
    assert_eq!(call(&engine, &chat(), 200, answer), Ok(()));
    assert_eq!(call(&engine, &chat(), 200, answer), Err(RefusedBy::Budget));
}

#[test]
fn calls_that_ask_no_model_use_no_tokens() {
    let engine = engine(TOKENS);
    let poll = Head::new("GET", "https://api.openai.com/v1/batches/batch_1").body(Some(0), true);
    let upload = post("https://api.openai.com/v1/files", "--x\r\nContent-Disposition: form-data")
        .body(Some(10_000_000), false);
    let headers: &[(&str, &str)] = &[("content-type", "multipart/form-data; boundary=x")];
    let unseen =
        Head::new("POST", "https://api.openai.com/v1/files").headers(&headers).body(Some(10_000_000), false);
    for head in [poll, upload, unseen] {
        for _ in 0..100 {
            assert_eq!(call(&engine, &head, 200, r#"{"id":"x"}"#), Ok(()), "{head:?}");
        }
    }
    assert_eq!(told(&engine), [("llm, tokens / day".to_owned(), 0)]);
}

#[test]
fn a_picture_in_a_prompt_is_not_taken_for_a_million_tokens() {
    let engine = engine(TOKENS);
    let data = "iVBORw0KGgo".repeat(500_000);
    let body = format!(
        r#"{{"model":"gpt-4o","max_tokens":100,"messages":[{{"content":"data:image/png;base64,{data}"}}]}}"#
    );
    let head = post("https://api.openai.com/v1/chat/completions", &body);
    assert!(begun(&engine, &head).is_ok());
}

#[test]
fn what_was_spent_stays_so_wherever_its_rule_stands_in_the_file() {
    let rule =
        "[[budget]]\nmatch = { vendor = \"stripe\" }\nlimit = \"3 requests / day\"\nover = \"refuse\"\n";
    let other =
        "[[budget]]\nmatch = { vendor = \"github\" }\nlimit = \"1000 requests / day\"\nover = \"refuse\"\n";
    let engine = engine(&format!("{rule}{other}"));
    let charge = Head::new("GET", "https://api.stripe.com/v1/charges");
    let user = Head::new("GET", "https://api.github.com/user");
    for _ in 0..3 {
        assert_eq!(call(&engine, &charge, 200, ""), Ok(()));
    }
    engine.reload(&config(&format!("# Nothing but a comment, and another order.\n\n{other}{rule}")));
    assert_eq!(call(&engine, &charge, 200, ""), Err(RefusedBy::Budget));
    assert_eq!(call(&engine, &user, 200, ""), Ok(()), "what others spent is not this one's");
    // And what is in the ledger under its account is found by the next process, whose file is yet another.
    let spent = told(&engine).into_iter().find(|(_, spent)| *spent == 3).unwrap();
    let next = crate::support::engine(&format!("\n\n\n\n{rule}"));
    let day = Period::Day.number(T0);
    next.tell_spending([Spent::new(spent.0, String::new(), day, spent.1)], T0);
    assert_eq!(call(&next, &charge, 200, ""), Err(RefusedBy::Budget));
}

#[test]
fn amounts_of_another_unit_or_period_are_not_taken_for_those_of_this_one() {
    let rule = |limit: &str| {
        config(&format!(
            "[[budget]]\nname = \"b\"\nmatch = {{ vendor = \"stripe\" }}\nlimit = \"{limit}\"\nover = \"refuse\"\n"
        ))
    };
    let engine = engine("");
    let charge = Head::new("GET", "https://api.stripe.com/v1/charges");
    engine.reload(&rule("40 requests / month"));
    for _ in 0..40 {
        assert_eq!(call(&engine, &charge, 200, ""), Ok(()));
    }
    assert_eq!(call(&engine, &charge, 200, ""), Err(RefusedBy::Budget));
    engine.reload(&rule("10 requests / day"));
    assert_eq!(call(&engine, &charge, 200, ""), Ok(()));
    engine.reload(&rule("10 USD / month"));
    assert_eq!(call(&engine, &charge, 200, ""), Ok(()));
    engine.reload(&rule("40 requests / month"));
    assert_eq!(call(&engine, &charge, 200, ""), Err(RefusedBy::Budget), "and back");
}

#[test]
fn others_are_told_what_was_taken_for_a_call_of_which_not_all_is_known() {
    let engine = engine(TOKENS);
    // A stream without its usage: what was set aside for it is charged here, so that others must know it.
    assert_eq!(call(&engine, &chat(), 200, r#"{"model":"gpt-4o","choices":[]}"#), Ok(()));
    let [(account, spent)] = <[_; 1]>::try_from(told(&engine)).unwrap();
    assert!((4_096..4_200).contains(&spent), "{spent}");
    let other = crate::support::engine(TOKENS);
    let day = Period::Day.number(T0);
    other.tell_spending([Spent::new(account, String::new(), day, 4 * spent)], T0);
    assert_eq!(call(&other, &chat(), 200, "{}"), Err(RefusedBy::Budget));
}

#[test]
fn tokens_are_counted_at_vendors_without_a_price_too() {
    let rules = TOKENS.replace("openai", "azure-openai");
    let engine = engine(&rules);
    let url = "https://acme.openai.azure.com/openai/deployments/own/chat/completions";
    let body = r#"{"max_tokens":100,"messages":[]}"#;
    let answer = r#"{"usage":{"prompt_tokens":9000,"completion_tokens":1000,"total_tokens":10000}}"#;
    assert_eq!(call(&engine, &post(url, body), 200, answer), Ok(()));
    assert_eq!(call(&engine, &post(url, body), 200, answer), Ok(()));
    assert_eq!(call(&engine, &post(url, body), 200, answer), Err(RefusedBy::Budget));
}

#[test]
fn a_model_that_only_the_path_names_is_not_said_to_be_replaced() {
    let rules = "[[budget]]\nname = \"llm\"\nmatch = { vendor = \"gemini\" }\nlimit = \"1 requests / day\"\nover = \"downgrade\"\n\
                 downgrade = { from = \"gemini-2.5-pro\", to = \"gemini-2.5-flash\" }\n";
    let engine = engine(rules);
    let url = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-pro:generateContent";
    let head = post(url, r#"{"contents":[]}"#);
    for number in 0..3 {
        let mut call = engine.begin(&head, T0, number);
        assert_eq!(sent(&mut call, &engine, T0).model, None);
        call.abandon(&engine, T0);
    }
    let told = engine.drain(at(1_000)).exemplars;
    assert!(told.iter().all(|call| !call.events.contains("cheaper")), "{told:?}");
}

#[test]
fn what_a_backup_of_another_vendor_says_and_costs_is_not_the_first_ones() {
    let engine = engine(
        r#"
        [[quota]]
        match = { vendor = "openai" }
        max_wait = "1s"
        [[resilience]]
        match = { vendor = "openai" }
        failover = { host = "acme.openai.azure.com", when = ["connect"], keep_credentials = true }
        "#,
    );
    let mut first = engine.begin(&chat(), T0, 1);
    let _ = sent(&mut first, &engine, T0);
    first.failed(ErrorType::Connect);
    assert!(sent(&mut first, &engine, T0).changes.is_some());
    let none_left: &[(&str, &str)] = &[
        ("content-type", "application/json"),
        ("x-ratelimit-limit-requests", "10"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "60s"),
    ];
    first.answer(&engine, 200, &none_left, at(10));
    assert_eq!(first.step(&engine, at(10)), Step::Settled);
    first.read(
        br#"{"model":"gpt-4o","usage":{"prompt_tokens":9000,"completion_tokens":1000,"total_tokens":10000}}"#,
    );
    first.end(&engine, at(20));
    let mut second = engine.begin(&chat(), at(30), 2);
    assert!(
        matches!(second.step(&engine, at(30)), Step::Send(_)),
        "the first vendor has said nothing of that"
    );
    second.abandon(&engine, at(40));
    let rows = engine.drain(at(1_000)).rows;
    let (cost, unknown) =
        rows.iter().fold((0, 0), |sum, row| (sum.0 + row.sums.cost, sum.1 + row.sums.cost_unknown));
    assert_eq!((cost, unknown > 0), (0, true), "nobody knows what the backup asks: {rows:?}");
}

#[test]
fn a_fifth_budget_for_the_same_calls_is_counted_as_not_asked() {
    let rule = |name: &str| {
        format!(
            "[[budget]]\nname = \"{name}\"\nmatch = {{}}\nlimit = \"1000 requests / day\"\nover = \"refuse\"\n"
        )
    };
    let unasked = |rules: &[&str]| {
        let engine = engine(&rules.iter().map(|name| rule(name)).collect::<String>());
        assert_eq!(call(&engine, &chat(), 200, "{}"), Ok(()));
        engine.counters().unkept_rules
    };
    assert_eq!(unasked(&["a", "b", "c", "d"]), 0);
    assert_eq!(unasked(&["a", "b", "c", "d", "e"]), 1);
}

#[test]
fn a_request_whose_model_lies_beyond_what_is_read_is_still_taken_for_one() {
    let engine = engine(TOKENS);
    let text = "many words ".repeat(1_000);
    let spaced = format!("\n {{\"messages\":\"{text}\",\"model\":\"gpt-4o\",\"max_tokens\":16000}}");
    let head = post("https://api.openai.com/v1/chat/completions", &spaced);
    let first = begun(&engine, &head).unwrap();
    assert_eq!(
        begun(&engine, &head).err(),
        Some(RefusedBy::Budget),
        "the first one has reserved what it allows"
    );
    drop(first);
    let engine = crate::support::engine(TOKENS.replace("20k", "80k").as_str());
    let long = format!("{{\"messages\":\"{}\",\"model\":\"gpt-4o\"}}", "many words ".repeat(28_000));
    let head = post("https://api.openai.com/v1/chat/completions", &long);
    // 77,000 tokens of prompt, and as many of the answer as usual.
    let mut call = begun(&engine, &head).unwrap();
    let headers: &[(&str, &str)] = &[("content-type", "application/json")];
    call.answer(&engine, 200, &headers, T0);
    call.read(b"{}");
    call.end(&engine, T0);
    let spent = told(&engine)[0].1;
    assert!(spent > 77_500, "{spent}");
}

#[test]
fn an_error_of_a_backup_without_a_price_costs_nothing() {
    let engine = engine(
        r#"
        [[budget]]
        name = "money"
        match = { vendor = "openai" }
        limit = "1 USD / day"
        over = "refuse"
        [[resilience]]
        match = { vendor = "openai" }
        failover = { host = "backup.example.com", when = ["connect"], keep_credentials = true }
        "#,
    );
    let mut call = engine.begin(&chat(), T0, 1);
    let _ = sent(&mut call, &engine, T0);
    call.failed(ErrorType::Connect);
    let _ = sent(&mut call, &engine, T0);
    let headers: &[(&str, &str)] = &[("content-type", "application/json")];
    call.answer(&engine, 500, &headers, at(10));
    assert_eq!(call.step(&engine, at(10)), Step::Settled);
    call.end(&engine, at(20));
    let batch = engine.drain(at(1_000));
    assert_eq!(batch.rows[0].sums.cost_unknown, 0);
    assert_eq!(batch.budgets[0].spent, 0);
}

const MAPS: &str = r#"
[[vendor]]
name = "maps"
hosts = ["maps.example.com"]
[[vendor.price]]
call = "5 USD / 1k calls"
[[vendor.price.tier]]
above_volume = "10"
call = "4 USD / 1k calls"
"#;

/// Makes so many calls, and gives what they are booked at, in thousandths of a dollar; and what the ledger is told.
fn routes(engine: &Engine, calls: usize) -> (i64, Vec<Spent>) {
    let route = Head::new("GET", "https://maps.example.com/v1/route");
    for _ in 0..calls {
        assert_eq!(call(engine, &route, 200, "{}"), Ok(()));
    }
    let batch = engine.drain(T0);
    let told = batch
        .volumes
        .iter()
        .map(|used| Spent::new(used.price.to_string(), String::new(), used.month, used.amount));
    (batch.rows.iter().map(|row| row.sums.cost).sum::<i64>() / 1_000_000, told.collect())
}

#[test]
fn a_price_that_falls_with_the_months_volume_knows_what_others_used() {
    let (first, second) = (engine(MAPS), engine(MAPS));
    assert!(first.asks_spending());
    let (cost, told) = routes(&first, 8);
    assert_eq!(cost, 8 * 5);
    // Both share a ledger.
    first.tell_spending(told.clone(), T0);
    second.tell_spending(told, T0);
    assert_eq!(routes(&second, 5).0, 3 * 5 + 2 * 4, "above ten in all");
    assert_eq!(routes(&first, 4).0, 3 * 5 + 4, "of its own, since it was told of no other's yet");
}

#[test]
fn a_reload_begins_no_month_anew() {
    let engine = engine(MAPS);
    assert_eq!(routes(&engine, 12).0, 11 * 5 + 4);
    engine.reload(&config(&MAPS.replace("5 USD", "6 USD").replace("4 USD", "3 USD")));
    assert_eq!(routes(&engine, 2).0, 2 * 3, "other rates, the same volume");
    engine.reload(&config(&MAPS.replace("\"10\"", "\"20\"")));
    assert_eq!(routes(&engine, 8).0, 7 * 5 + 4, "14 of 20 used");
    engine.reload(&config("[[vendor]]\nname = \"maps\"\nhosts = [\"maps.example.com\"]\n"));
    assert!(!engine.asks_spending());
}

#[test]
fn the_ledgers_rows_of_earlier_periods_change_nothing_in_whatever_order_they_come() {
    let engine = engine(MAPS);
    let (_, told) = routes(&engine, 1);
    let [now] = told.as_slice() else { panic!("{told:?}") };
    let month = Period::Month.number(T0);
    let of = |month, total| Spent::new("volume: maps * * calls".to_owned(), String::new(), month, total);
    assert_eq!(*now, of(month, 1));
    engine.tell_spending([of(month, 11), of(month - 1, 500)], T0);
    assert_eq!(routes(&engine, 1).0, 4, "11 of 10 used this month");
}
