//! What vendors state is charged by the calls that it is about, by what those use of it, and by no others.
#![allow(clippy::unwrap_used)]

use farcall::{Caller, Config, Engine, Head, RefusedBy, Step, Timestamp};

const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);

fn engine(rules: &str) -> Engine {
    let config = Config::parse("farcall.toml", rules).unwrap_or_else(|errors| panic!("{errors:?}"));
    Engine::new(config, Caller::new("checkout"), 1, 42)
}

fn keeping(vendor: &str) -> Engine {
    engine(&format!("[[quota]]\nname = \"keep\"\nmatch = {{ vendor = \"{vendor}\" }}\nmax_wait = \"0s\"\n"))
}

/// A call with these headers and this body, which is answered so; whether it went, or the reason why not.
fn call(
    engine: &Engine,
    (method, url): (&str, &str),
    content: &[u8],
    (status, headers, body): (u16, &[(&str, &str)], &[u8]),
    now: Timestamp,
) -> Result<(), String> {
    let sent = [("authorization", "Bearer a")];
    let sent = sent.as_slice();
    let length = content.len() as u64;
    let head = Head::new(method, url).headers(&sent).body(Some(length), true).content(content);
    let mut call = engine.begin(&head, now, 7);
    match call.step(engine, now) {
        Step::Send(_) => {}
        Step::Refuse(refusal) => {
            assert_eq!((refusal.by, &*refusal.rule), (RefusedBy::Quota, "keep"));
            return Err(refusal.reason.to_string());
        }
        step => panic!("{step:?}"),
    }
    call.answer(engine, status, &headers, now);
    call.read(body);
    assert_eq!(call.step(engine, now), Step::Settled);
    call.end(engine, now);
    Ok(())
}

const MESSAGES: (&str, &str) = ("POST", "https://api.anthropic.com/v1/messages");

/// A request of 10,000 tokens, of whose answer as many are wanted.
fn prompt(max_tokens: u64) -> Vec<u8> {
    let text = "word ".repeat(8_000);
    format!(r#"{{"model":"claude-haiku-4-5","max_tokens":{max_tokens},"messages":"{text}"}}"#).into_bytes()
}

/// What Anthropic says of input and of output tokens: the limit and what is left of it, until this minute of 04:00.
fn anthropic(input: (&str, &str), output: (&str, &str), minute: u64) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (unit, (limit, left)) in [("input", input), ("output", output)] {
        let reset = format!("2025-11-21T04:{minute}:00Z");
        for (what, value) in [("limit", limit), ("remaining", left), ("reset", &reset)] {
            headers.push((format!("anthropic-ratelimit-{unit}-tokens-{what}"), value.to_owned()));
        }
    }
    headers
}

#[test]
fn a_prompt_above_the_limit_for_answers_goes_all_the_same() {
    let engine = keeping("anthropic");
    // It may be answered by 4,096 tokens of the 8,000 that are allowed in a minute, whatever it asks.
    for minute in 0..10 {
        let now = T0.plus_millis(minute * 60_000 + 1);
        let said = anthropic(("50000", "45000"), ("8000", "7900"), 41 + minute);
        let said: Vec<_> = said.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = br#"{"usage":{"input_tokens":9000,"output_tokens":100}}"#;
        for _ in 0..2 {
            assert_eq!(
                call(&engine, MESSAGES, &prompt(4_096), (200, &said, answer), now),
                Ok(()),
                "{minute}"
            );
        }
    }
    // One that may be answered by more than there ever is goes when all of it is there.
    let late = |seconds: u64| T0.plus_millis(660_000 + seconds * 1_000);
    let went = |now| call(&engine, MESSAGES, &prompt(16_000), (200, &[], b"{}"), now).is_ok();
    assert!(went(late(0)) && !went(late(0)));
}

/// What GitHub says of one of its limits; its windows end a minute after [`T0`].
fn github<'a>(name: &'a str, limit: &'a str, left: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("x-ratelimit-resource", name),
        ("x-ratelimit-limit", limit),
        ("x-ratelimit-remaining", left),
        ("x-ratelimit-reset", "1763700060"),
    ]
}

#[test]
fn a_limit_that_the_vendor_names_holds_where_its_answers_name_it() {
    let engine = keeping("github");
    let get = |path: &str, said: &[(&str, &str)], millis: u64| {
        let url = format!("https://api.github.com{path}");
        call(&engine, ("GET", &url), b"", (200, said, b""), T0.plus_millis(millis)).is_ok()
    };
    let core = |left| github("core", "5000", left);
    assert!(get("/search/issues", &github("search", "30", "29"), 0));
    assert!(get("/user", &core("4999"), 1) && get("/orgs/acme", &core("4998"), 2));
    for n in 0..100 {
        assert!(get("/user", &core("4000"), 10 + n), "the {n}th is none of the 30 searches");
    }
    assert!(get("/search/issues", &github("search", "30", "0"), 200));
    assert!(!get("/search/issues", &[], 201));
    assert!(get("/orgs/acme", &core("0"), 202), "a search is none of the others");
    assert!(!get("/user", &core("0"), 203), "what all others share is used up");
    assert!(get("/search/code", &github("code_search", "10", "9"), 204));
    // The search's minute is over, and that of the others with it.
    assert!(get("/search/issues", &[], 60_100) && get("/user", &[], 60_101));
}

#[test]
fn a_refusal_without_a_name_is_about_the_limit_that_was_named_before() {
    let engine = keeping("datadog");
    let get = |path: &str, status: u16, said: &[(&str, &str)]| {
        let url = format!("https://api.datadoghq.com{path}");
        call(&engine, ("GET", &url), b"", (status, said, b""), T0).is_ok()
    };
    let said = |left: &'static str| {
        [("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", left), ("x-ratelimit-reset", "7")]
    };
    let named = |name: &'static str| [said("99").as_slice(), &[("x-ratelimit-name", name)]].concat();
    assert!(get("/api/v1/query", 200, &named("metrics_query")));
    assert!(get("/api/v1/monitor", 200, &named("monitors")));
    assert!(get("/api/v1/query", 429, &said("0")));
    assert!(!get("/api/v1/query", 200, &[]));
    assert!(get("/api/v1/monitor", 200, &named("monitors")));
}

#[test]
fn a_limit_is_kept_by_requests_that_are_each_signed_anew() {
    let engine = keeping("github");
    let goes = |key: &str, signature: u32| {
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential={key}/20251121/us-east-1/s3/aws4_request, Signature={signature:x}"
        );
        let sent = [("authorization", signed.as_str())];
        let sent = sent.as_slice();
        let head = Head::new("GET", "https://api.github.com/user").headers(&sent);
        let mut call = engine.begin(&head, T0, 7);
        let goes = matches!(call.step(&engine, T0), Step::Send(_));
        if goes {
            call.answer(&engine, 200, &github("core", "5000", "0"), T0);
            call.end(&engine, T0);
        }
        goes
    };
    assert!(goes("AKIA1", 1) && !goes("AKIA1", 2) && !goes("AKIA1", 3));
    assert!(goes("AKIA2", 4), "another key has its own");
}

#[test]
fn a_wait_begins_when_the_vendor_says_it_and_not_when_its_body_is_read() {
    let engine = keeping("github");
    let sent = [("authorization", "Bearer a")];
    let sent = sent.as_slice();
    let begin = |now| engine.begin(&Head::new("GET", "https://api.github.com/user").headers(&sent), now, 7);
    let mut call = begin(T0);
    assert!(matches!(call.step(&engine, T0), Step::Send(_)));
    let said = [("retry-after", "5")];
    call.answer(&engine, 403, &said.as_slice(), T0);
    call.read(b"You have exceeded a secondary rate limit.");
    let late = T0.plus_millis(4_000);
    assert_eq!(call.step(&engine, late), Step::Settled);
    call.end(&engine, late);
    let mut next = begin(T0.plus_millis(4_500));
    assert!(matches!(next.step(&engine, T0.plus_millis(4_500)), Step::Refuse(_)));
    let mut after = begin(T0.plus_millis(5_500));
    assert!(matches!(after.step(&engine, T0.plus_millis(5_500)), Step::Send(_)));
}
