//! What a vendor states about one model or one endpoint holds for that one alone.
#![allow(clippy::unwrap_used)]

use farcall::{Caller, Config, Engine, Head, RefusedBy, Step, Timestamp};

const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);
const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const NOTHING_LEFT: &[(&str, &str)] = &[
    ("x-ratelimit-limit-requests", "500"),
    ("x-ratelimit-remaining-requests", "0"),
    ("x-ratelimit-reset-requests", "50s"),
];
const MUCH_LEFT: &[(&str, &str)] = &[
    ("x-ratelimit-limit-requests", "500"),
    ("x-ratelimit-remaining-requests", "499"),
    ("x-ratelimit-reset-requests", "50s"),
];

fn engine(rules: &str) -> Engine {
    let config = Config::parse("farcall.toml", rules).unwrap_or_else(|errors| panic!("{errors:?}"));
    Engine::new(config, Caller::new("checkout"), 1, 42)
}

fn keeping(vendor: &str) -> Engine {
    engine(&format!("[[quota]]\nname = \"keep\"\nmatch = {{ vendor = \"{vendor}\" }}\nmax_wait = \"0s\"\n"))
}

/// Whether a call goes that asks for this model with this key, and is answered so.
fn goes(engine: &Engine, url: &str, key: &str, model: &str, answer: &[(&str, &str)], now: Timestamp) -> bool {
    let content = if model.is_empty() { "{}".to_owned() } else { format!("{{\"model\":\"{model}\"}}") };
    let headers = [("authorization", key)];
    let headers = headers.as_slice();
    let head = Head::new("POST", url)
        .headers(&headers)
        .body(Some(content.len() as u64), true)
        .content(content.as_bytes());
    let mut call = engine.begin(&head, now, 7);
    match call.step(engine, now) {
        Step::Send(_) => {}
        Step::Refuse(refusal) => {
            assert_eq!((refusal.by, &*refusal.rule), (RefusedBy::Quota, "keep"));
            return false;
        }
        step => panic!("{step:?}"),
    }
    call.answer(engine, 200, &answer, now);
    assert_eq!(call.step(engine, now), Step::Settled);
    call.end(engine, now);
    true
}

#[test]
fn a_model_that_is_used_up_holds_up_no_other_model() {
    let engine = keeping("openai");
    let call = |key: &str, model: &str, answer| goes(&engine, CHAT, key, model, answer, T0);
    assert!(call("Bearer a", "gpt-4o", NOTHING_LEFT));
    assert!(!call("Bearer a", "gpt-4o", MUCH_LEFT));
    assert!(call("Bearer a", "gpt-4o-mini", MUCH_LEFT));
    assert!(call("Bearer a", "gpt-4o-mini", NOTHING_LEFT), "the other's answer was not about it");
    assert!(!call("Bearer a", "gpt-4o-mini", MUCH_LEFT));
    assert!(call("Bearer b", "gpt-4o", MUCH_LEFT), "another credential has its own");
    // What nobody names is a kind of its own.
    assert!(call("Bearer a", "", NOTHING_LEFT));
    assert!(!call("Bearer a", "", MUCH_LEFT));
    assert!(call("Bearer a", "o3", MUCH_LEFT));
}

#[test]
fn a_deployment_in_the_path_is_its_model() {
    let engine = keeping("azure-openai");
    let url = |name: &str| {
        format!(
            "https://shop.openai.azure.com/openai/deployments/{name}/chat/completions?api-version=2026-01-01"
        )
    };
    let spent = &[
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "0"),
        ("retry-after", "50"),
    ];
    for (name, answer, went) in [
        ("large", MUCH_LEFT, true),
        ("large", spent.as_slice(), true),
        ("large", MUCH_LEFT, false),
        ("small", MUCH_LEFT, true),
    ] {
        assert_eq!(goes(&engine, &url(name), "Bearer a", "", answer, T0), went, "{name}");
    }
}

#[test]
fn an_endpoint_that_is_used_up_holds_up_no_other_endpoint() {
    let engine = keeping("x");
    let resets = (T0.as_secs() + 600).to_string();
    let spent = [
        ("x-rate-limit-limit", "15"),
        ("x-rate-limit-remaining", "0"),
        ("x-rate-limit-reset", resets.as_str()),
    ];
    let call = |path: &str| goes(&engine, &format!("https://api.x.com{path}"), "Bearer a", "", &spent, T0);
    assert!(call("/2/tweets"));
    assert!(!call("/2/tweets"));
    assert!(call("/2/oauth2/token"));
    assert!(!call("/2/oauth2/token"));
}

#[test]
fn a_cheaper_model_counts_as_what_it_is() {
    let engine = engine(
        "[[quota]]\nname = \"keep\"\nmatch = { vendor = \"openai\" }\nmax_wait = \"0s\"\n\
         [[budget]]\nmatch = { vendor = \"openai\" }\nlimit = \"1 requests / day\"\nover = \"downgrade\"\n\
         downgrade = { from = \"gpt-4o\", to = \"gpt-4o-mini\" }\n",
    );
    assert!(goes(&engine, CHAT, "Bearer a", "gpt-4o", MUCH_LEFT, T0));
    assert!(goes(&engine, CHAT, "Bearer a", "gpt-4o", NOTHING_LEFT, T0), "asks for the small one by now");
    assert!(!goes(&engine, CHAT, "Bearer a", "gpt-4o-mini", MUCH_LEFT, T0));
    assert!(goes(&engine, CHAT, "Bearer a", "o3", MUCH_LEFT, T0));
}

#[test]
fn an_incident_names_the_model_whose_limit_it_was() {
    let engine = keeping("openai");
    assert!(goes(&engine, CHAT, "Bearer a", "gpt-4o", NOTHING_LEFT, T0));
    assert!(!goes(&engine, CHAT, "Bearer a", "gpt-4o", MUCH_LEFT, T0));
    let batch = engine.drain(T0.plus_millis(1_000));
    let policies: Vec<_> = batch.incidents.iter().map(|incident| incident.policy.as_str()).collect();
    assert_eq!(policies, ["requests (gpt-4o)"]);
}

#[test]
fn more_models_than_there_is_room_for_go_unheld_and_are_counted() {
    let engine = keeping("openai");
    for number in 0..100 {
        assert!(goes(&engine, CHAT, "Bearer a", &format!("model-{number}"), NOTHING_LEFT, T0));
    }
    let held = (0..100)
        .filter(|number| !goes(&engine, CHAT, "Bearer a", &format!("model-{number}"), MUCH_LEFT, T0))
        .count();
    assert_eq!(held, 64);
    assert!(engine.counters().folded_policies >= 36);
}
