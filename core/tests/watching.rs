//! What calls cost that no rule decides about, through the engine alone.
#![allow(clippy::unwrap_used)]

use farcall::ledger::Sums;
use farcall::{Caller, Config, Engine, Head, Step, Timestamp};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);
const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const ANSWER: &[u8] = br#"{"model":"gpt-4o-2024-08-06","usage":{"prompt_tokens":40,"completion_tokens":60}}"#;

fn engine(text: &str) -> Engine {
    let config = Config::parse("farcall.toml", text).unwrap_or_else(|errors| panic!("{errors:?}"));
    let engine = Engine::new(config, Caller::new("checkout"), 1, 42);
    assert!(!engine.decides());
    engine
}

/// A call as an adapter that watches makes it: without headers and body of the request.
fn watched(engine: &Engine, url: &str, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Sums {
    let mut call = engine.begin(&Head::new("POST", url), T0, 7);
    assert!(matches!(call.step(engine, T0), Step::Send(attempt) if attempt == farcall::Attempt::default()));
    match call.wants_headers(status) {
        true => call.answer(engine, status, &headers, T0),
        false => call.head(status, T0),
    }
    assert_eq!(call.step(engine, T0), Step::Settled);
    for chunk in body.chunks(7) {
        match call.wants_body() {
            true => call.read(chunk),
            false => call.body(chunk.len() as u64),
        }
    }
    call.end(engine, T0);
    let batch = engine.drain(T0.plus_millis(1_000));
    assert_eq!((batch.rows.len(), batch.rows[0].sums.calls), (1, 1));
    batch.rows[0].sums
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_language_model_costs_what_its_answer_states_without_any_configuration() {
    let engine = engine("");
    let json = ("content-type", "application/json");
    let sums = watched(&engine, CHAT, 200, &[json], ANSWER);
    // 40 x 2.50 USD and 60 x 10 USD for a million tokens.
    assert_eq!((sums.cost, sums.cost_unknown, sums.tokens_in, sums.tokens_out), (700_000, 0, 40, 60));

    let packed = gzip(ANSWER);
    let sums = watched(&engine, CHAT, 200, &[json, ("content-encoding", "gzip")], &packed);
    assert_eq!((sums.cost, sums.bytes_in), (700_000, packed.len() as u64), "counted as it was on the wire");

    let stream = [b"data: ", ANSWER, b"\n\ndata: [DONE]\n\n"].concat();
    let headers = [("content-type", "text/event-stream"), ("content-encoding", "gzip")];
    assert_eq!(watched(&engine, CHAT, 200, &headers, &gzip(&stream)).cost, 700_000);

    let sums = watched(&engine, CHAT, 200, &[json, ("content-encoding", "zstd")], b"whatever");
    assert_eq!((sums.cost, sums.cost_unknown), (0, 1), "what cannot be read is unknown, not free");
    let sums = watched(&engine, CHAT, 200, &[json, ("content-encoding", "gzip")], b"no such thing at all");
    assert_eq!((sums.cost, sums.cost_unknown), (0, 1), "nor is what only claims to be compressed");
    let sums =
        watched(&engine, CHAT, 200, &[json, ("content-encoding", "gzip")], &packed[..packed.len() / 2]);
    assert_eq!(sums.cost_unknown, 1);
    let sums = watched(&engine, CHAT, 500, &[json], b"{}");
    assert_eq!((sums.cost, sums.cost_unknown), (0, 0), "an error is not charged for");
}

#[test]
fn a_price_per_call_is_charged_also_when_nothing_decides() {
    let engine = engine(
        r#"
        [[price]]
        vendor = "stripe"
        call = "0.01 USD / call"
        [[price]]
        vendor = "unlisted.example"
        call = "1 USD / 1k calls"
        "#,
    );
    assert_eq!(watched(&engine, "https://api.stripe.com/v1/charges", 200, &[], b"{}").cost, 10_000_000);
    assert_eq!(watched(&engine, "https://api.stripe.com/v1/charges", 402, &[], b"{}").cost, 0);
    let unlisted = watched(&engine, "https://api.unlisted.example/v1", 200, &[], b"{}");
    assert_eq!((unlisted.cost, unlisted.cost_unknown), (1_000_000, 0));
    let other = watched(&engine, "https://api.elsewhere.example/v1", 200, &[], b"{}");
    assert_eq!((other.cost, other.cost_unknown), (0, 1), "nobody knows what it costs");
}

#[test]
fn prices_come_and_go_with_a_reload() {
    let engine = engine("");
    let charge = || watched(&engine, "https://api.stripe.com/v1/charges", 200, &[], b"{}");
    assert_eq!(charge().cost_unknown, 1);
    engine
        .reload(&Config::parse("f", "[[price]]\nvendor = \"stripe\"\ncall = \"0.01 USD / call\"\n").unwrap());
    assert_eq!((charge().cost, charge().cost_unknown), (10_000_000, 0));
    engine.reload(&Config::default());
    assert_eq!(charge().cost_unknown, 1);
}

#[test]
fn adapters_are_told_whose_answers_to_show() {
    let engine = engine("[[price]]\nvendor = \"stripe\"\ncall = \"0.01 USD / call\"\n");
    // For what they cost, and for what is left of a quota.
    let read = ["generativelanguage.googleapis.com", "api.cerebras.ai", "api.openai.com", "api.github.com"];
    for host in read {
        assert!(engine.reads_answers(host), "{host}");
    }
    for host in ["api.stripe.com", "hooks.slack.com", "example.com", "", "127.0.0.1"] {
        assert!(!engine.reads_answers(host), "{host}");
    }
    // Who refuses one call is looked at from there on.
    watched(&engine, "https://api.stripe.com/v1/balance", 429, &[], b"");
    assert!(engine.reads_answers("api.stripe.com") && !engine.reads_answers("example.com"));
}

#[test]
fn a_vendor_that_is_silent_about_its_quotas_after_all_is_not_worth_it() {
    let engine = engine("");
    let user = |headers: &[(&str, &str)]| watched(&engine, "https://api.github.com/user", 200, headers, b"");
    for _ in 0..15 {
        user(&[]);
        assert!(engine.reads_answers("api.github.com"));
    }
    user(&[]);
    assert!(!engine.reads_answers("api.github.com"));
    // What it says once holds for good: a rule may have had the answer read.
    user(&[("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", "4999")]);
    for _ in 0..64 {
        user(&[]);
    }
    assert!(engine.reads_answers("api.github.com"));
}
