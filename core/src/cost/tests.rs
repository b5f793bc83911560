//! What the concept promises, over all of its parts.

use super::*;
use crate::units::{Currency, Money, Timestamp};
use proptest::prelude::*;
use std::fmt::Write as _;

const NOW: Timestamp = Timestamp::from_nanos(1_795_255_200_000_000_000); // 2026-11-21 10:00 UTC, a Saturday

fn read(content_type: &str, body: &str, whole: bool) -> Usage {
    let mut reader = UsageReader::new(None, Some(content_type), None);
    reader.push(body.as_bytes());
    reader.finish(whole)
}

fn json(body: &str) -> Usage {
    read("application/json; charset=utf-8", body, true)
}

fn events(documents: &[&str]) -> String {
    documents.iter().fold(String::new(), |mut text, document| {
        let _ = write!(text, "data: {document}\n\n");
        text
    })
}

/// The kinds that are not zero.
fn kinds(usage: &Usage) -> Vec<(Kind, u64)> {
    Kind::ALL
        .iter()
        .filter_map(|kind| Some((*kind, usage.get(*kind)?)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

const CHAT: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1741569952,"model":"gpt-4o-2024-08-06",
 "choices":[{"index":0,"message":{"role":"assistant","content":"He said: \"usage\": {\"prompt_tokens\": 9}\\"},"finish_reason":"stop"}],
 "usage":{"prompt_tokens":1200,"completion_tokens":300,"total_tokens":1500,
 "prompt_tokens_details":{"cached_tokens":1024,"audio_tokens":0},
 "completion_tokens_details":{"reasoning_tokens":200,"audio_tokens":0,"accepted_prediction_tokens":0}},
 "service_tier":"default"}"#;

const CHAT_STREAM: [&str; 5] = [
    r#"{"object":"chat.completion.chunk","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#,
    r#"{"object":"chat.completion.chunk","model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}],"usage":null}"#,
    r#"{"object":"chat.completion.chunk","model":"gpt-4o-mini","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}"#,
    r#"{"object":"chat.completion.chunk","model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}}"#,
    "[DONE]",
];

const RESPONSES_STREAM: [&str; 3] = [
    r#"{"type":"response.created","response":{"id":"resp_1","model":"gpt-5","usage":null}}"#,
    r#"{"type":"response.output_text.delta","delta":"Hi"}"#,
    r#"{"type":"response.completed","response":{"id":"resp_1","model":"gpt-5-2025-08-07","service_tier":"flex","output":[{"type":"message"}],"usage":{"input_tokens":328,"input_tokens_details":{"cached_tokens":128},"output_tokens":52,"output_tokens_details":{"reasoning_tokens":40},"total_tokens":380}}}"#,
];

const ANTHROPIC_STREAM: [&str; 6] = [
    r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[],"stop_reason":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":1000,"cache_read_input_tokens":4000,"cache_creation":{"ephemeral_5m_input_tokens":600,"ephemeral_1h_input_tokens":400},"output_tokens":1,"service_tier":"standard"}}}"#,
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello {\"usage\":1}"}}"#,
    r#"{"type":"content_block_stop","index":0}"#,
    r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":150}}"#,
    r#"{"type":"message_stop"}"#,
];

const GEMINI: &str = r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"finishReason":"STOP"}],
 "usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":100,"totalTokenCount":1150,"cachedContentTokenCount":300,"thoughtsTokenCount":50,
 "promptTokensDetails":[{"modality":"TEXT","tokenCount":800},{"tokenCount":200,"modality":"AUDIO"}],
 "cacheTokensDetails":[{"modality":"AUDIO","tokenCount":100}]},
 "modelVersion":"gemini-2.5-flash"}"#;

#[test]
fn openai_counts_caches_and_thinking_within() {
    let usage = json(CHAT);
    assert_eq!(
        kinds(&usage),
        [(Kind::Input, 176), (Kind::CachedInput, 1024), (Kind::Output, 100), (Kind::Reasoning, 200)]
    );
    assert_eq!(
        (usage.model.as_str(), usage.unknown, usage.tokens()),
        ("gpt-4o-2024-08-06", None, Some(1500))
    );
}

#[test]
fn openai_streams_state_their_usage_last() {
    let usage = read("text/event-stream", &events(&CHAT_STREAM), true);
    assert_eq!(kinds(&usage), [(Kind::Input, 19), (Kind::Output, 10)]);
    assert_eq!((usage.model.as_str(), usage.unknown), ("gpt-4o-mini", None));
    let usage = read("text/event-stream", &events(&RESPONSES_STREAM), true);
    assert_eq!(
        kinds(&usage),
        [(Kind::Input, 200), (Kind::CachedInput, 128), (Kind::Output, 12), (Kind::Reasoning, 40)]
    );
    assert_eq!((usage.model.as_str(), usage.tier), ("gpt-5-2025-08-07", ServiceTier::Flex));
}

#[test]
fn anthropic_counts_caches_beside_and_its_output_grows() {
    let usage = read("text/event-stream", &events(&ANTHROPIC_STREAM), true);
    let expected = [
        (Kind::Input, 25),
        (Kind::CachedInput, 4000),
        (Kind::CacheWrite, 600),
        (Kind::CacheWriteLong, 400),
        (Kind::Output, 150),
    ];
    assert_eq!(kinds(&usage), expected);
    assert_eq!((usage.model.as_str(), usage.unknown), ("claude-sonnet-4-5-20250929", None));
    let whole = json(
        r#"{"model":"claude-opus-4-5","stop_reason":"end_turn","usage":{"input_tokens":5,"output_tokens":7,"speed":"fast","server_tool_use":{"web_search_requests":2}}}"#,
    );
    assert_eq!(kinds(&whole), [(Kind::Input, 5), (Kind::Output, 7), (Kind::Search, 2)]);
    assert_eq!(whole.tier, ServiceTier::Fast);
}

#[test]
fn gemini_counts_thoughts_beside_and_audio_within_in_all_three_forms() {
    let expected = [
        (Kind::Input, 600),
        (Kind::CachedInput, 200),
        (Kind::AudioInput, 100),
        (Kind::CachedAudio, 100),
        (Kind::Output, 100),
        (Kind::Reasoning, 50),
    ];
    let first = r#"{"candidates":[{"content":{"parts":[{"text":"H"}]}}],"usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":3}}"#;
    for (kind, body) in [
        ("application/json", GEMINI.to_owned()),
        ("application/json", format!("[{first}\n,\n{GEMINI}\n]")),
        ("text/event-stream", events(&[first, &GEMINI.replace('\n', "")])),
    ] {
        let usage = read(kind, &body, true);
        assert_eq!(kinds(&usage), expected, "{body}");
        assert_eq!((usage.model.as_str(), usage.unknown), ("gemini-2.5-flash", None));
    }
}

#[test]
fn other_vendors_ways_of_counting_are_made_one() {
    // xAI counts thinking beside the answer; only the total tells.
    let xai = json(
        r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":115,"completion_tokens_details":{"reasoning_tokens":100}}}"#,
    );
    assert_eq!(kinds(&xai), [(Kind::Input, 10), (Kind::Output, 5), (Kind::Reasoning, 100)]);
    let deepseek = json(
        r#"{"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":2}}"#,
    );
    assert_eq!(kinds(&deepseek), [(Kind::Input, 2), (Kind::CachedInput, 8), (Kind::Output, 5)]);
    let groq = read(
        "text/event-stream",
        &events(&[
            r#"{"choices":[{"finish_reason":"stop"}],"x_groq":{"usage":{"prompt_tokens":4,"completion_tokens":6}}}"#,
        ]),
        true,
    );
    assert_eq!(kinds(&groq), [(Kind::Input, 4), (Kind::Output, 6)]);
    let cohere = json(
        r#"{"usage":{"billed_units":{"input_tokens":5,"output_tokens":9.0},"tokens":{"input_tokens":71,"output_tokens":9}}}"#,
    );
    assert_eq!(kinds(&cohere), [(Kind::Input, 5), (Kind::Output, 9)]);
    let converse = json(
        r#"{"stopReason":"end_turn","usage":{"inputTokens":30,"outputTokens":628,"totalTokens":658,"cacheReadInputTokens":7}}"#,
    );
    assert_eq!(kinds(&converse), [(Kind::Input, 30), (Kind::CachedInput, 7), (Kind::Output, 628)]);
    let embedding =
        json(r#"{"data":[{"embedding":[0.1,-2e-5]}],"model":"voyage-3.5","usage":{"total_tokens":12}}"#);
    assert_eq!(kinds(&embedding), [(Kind::Input, 12)]);
    assert_eq!(embedding.unknown, None);
}

#[test]
fn an_abandoned_stream_keeps_what_was_stated_and_knows_no_more() {
    let usage = read("text/event-stream", &events(&ANTHROPIC_STREAM[..4]), false);
    assert_eq!(usage.get(Kind::CachedInput), Some(4000));
    assert_eq!(usage.get(Kind::Output), Some(1), "what the start of the message says");
    assert_eq!(usage.unknown, Some(Unknown::Abandoned));

    let usage = read("text/event-stream", &events(&CHAT_STREAM[..2]), false);
    assert_eq!((kinds(&usage), usage.tokens(), usage.unknown), (vec![], None, Some(Unknown::Abandoned)));

    let first = r#"{"candidates":[{"content":{}}],"usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":3}}"#;
    let usage = read("text/event-stream", &events(&[first]), false);
    assert_eq!((usage.get(Kind::Output), usage.unknown), (Some(3), Some(Unknown::Abandoned)));
}

#[test]
fn a_stream_let_go_of_after_its_last_statement_is_known() {
    for (documents, output) in
        [(&CHAT_STREAM[..4], 10), (&RESPONSES_STREAM[..], 12), (&ANTHROPIC_STREAM[..5], 150)]
    {
        let usage = read("text/event-stream", &events(documents), false);
        assert_eq!((usage.get(Kind::Output), usage.unknown), (Some(output), None), "{documents:?}");
    }
}

#[test]
fn a_stream_that_never_says_is_unknown_and_not_zero() {
    let usage = read("text/event-stream", &events(&CHAT_STREAM[..3]), true);
    assert_eq!((usage.tokens(), usage.unknown), (None, Some(Unknown::NotStated)));
}

#[test]
fn what_cannot_be_read_says_why() {
    let unknown = |reader: UsageReader| reader.finish(true).unknown;
    assert_eq!(
        unknown(UsageReader::new(None, Some("application/json"), Some("gzip"))),
        Some(Unknown::Encoded)
    );
    assert_eq!(unknown(UsageReader::new(None, Some("audio/mpeg"), None)), Some(Unknown::OtherContent));
    assert_eq!(
        unknown(UsageReader::new(None, Some("application/json"), Some("Identity"))),
        Some(Unknown::NotStated)
    );
    let mut unsaid = UsageReader::new(None, None, None);
    unsaid.push(b"  ");
    unsaid.push(b"<html>");
    assert_eq!(unknown(unsaid), Some(Unknown::OtherContent));
    let mut unsaid = UsageReader::new(None, None, None);
    unsaid.push(b"event: x\r\n");
    unsaid.push(b"data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\r\n\r\n");
    assert_eq!(unsaid.finish(true).tokens(), Some(3));
}

#[test]
fn numbers_that_make_no_sense_are_counted_and_not_believed() {
    for number in [
        "-5",
        "1.5",
        "1e30",
        "NaN",
        "\"12\"",
        "1000000000001",
        "true",
        "[1]",
        "{}",
        "99999999999999999999999",
    ] {
        let usage = json(&format!(r#"{{"usage":{{"prompt_tokens":{number},"completion_tokens":7}}}}"#));
        assert_eq!(usage.get(Kind::Input), None, "{number}");
        assert_eq!(usage.get(Kind::Output), Some(7), "{number}");
        let structure = number.starts_with(['[', '{']);
        assert_eq!(usage.refused > 0, !structure, "{number}");
        assert_eq!(usage.unknown, (!structure).then_some(Unknown::Malformed), "{number}");
        let cost = gpt_4o().settle(&Facts::new(&usage, Answer::Status(200), NOW));
        assert!(cost.unknown.is_some(), "{number}");
    }
    let usage = json(
        r#"{"usage":{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":6}}}"#,
    );
    assert_eq!((usage.get(Kind::Input), usage.unknown), (None, Some(Unknown::Contradictory)));
}

#[test]
fn a_body_that_breaks_off_or_is_no_json_is_unknown() {
    let cut = &CHAT[..CHAT.len() - 300];
    assert_eq!(read("application/json", cut, false).unknown, Some(Unknown::Abandoned));
    assert_eq!(json("{]").unknown, Some(Unknown::Malformed));
    assert_eq!(json("").unknown, Some(Unknown::NotStated));
}

#[test]
fn a_broken_event_spoils_no_other() {
    let body = format!("data: {{\"usage\":{{\n\ndata: }}}}]\n\n: ping\n\n{}", events(&CHAT_STREAM));
    let usage = read("text/event-stream", &body, true);
    assert_eq!((usage.tokens(), usage.unknown), (Some(29), None));
    assert!(usage.refused > 0, "and it is counted");
}

#[test]
fn lines_of_one_event_are_joined_by_a_line_feed() {
    let read = |body: &str| read("text/event-stream", body, true).tokens();
    assert_eq!(
        read("data: {\"usage\":\ndata:{\"prompt_tokens\":12,\ndata: \"completion_tokens\":5\ndata: }}\n\n"),
        Some(17)
    );
    assert_eq!(
        read("data: {\"usage\":{\"prompt_tokens\":12\ndata:34}}\n\n"),
        Some(12),
        "and no number goes on"
    );
}

#[test]
fn a_body_of_any_size_passes_through_a_small_state() {
    assert!(size_of::<UsageReader>() <= 1024, "{}", size_of::<UsageReader>());
    assert!(size_of::<RequestReader>() <= 512, "{}", size_of::<RequestReader>());
    let mut reader = UsageReader::new(None, Some("application/json"), None);
    reader.push(br#"{"model":"gpt-4o","choices":[{"message":{"content":""#);
    let chunk = [b'x'; 65_536];
    for _ in 0..160 {
        reader.push(&chunk);
    }
    reader.push(br#""}},"#);
    // As deep as anybody likes.
    reader.push(&[b'['; 65_536]);
    reader.push(&[b']'; 65_536]);
    reader.push(br#"],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#);
    assert_eq!(reader.finish(true).tokens(), Some(7));
}

fn gpt_4o() -> Price {
    Prices::default().find("openai", "POST /v1/chat/completions", "gpt-4o").unwrap().clone()
}

#[test]
fn a_call_costs_what_the_vendor_bills() {
    let prices = Prices::default();
    let cost = |vendor: &str, usage: &Usage| {
        prices.settle(vendor, "POST /v1/x", "", &Facts::new(usage, Answer::Status(200), NOW)).unwrap()
    };
    // 176 * 2.50 + 1024 * 1.25 + 300 * 10 dollars a million.
    assert_eq!(cost("openai", &json(CHAT)).whole().unwrap().to_string(), "0.00472 USD");
    // 25 * 3 + 4000 * 0.30 + 600 * 3.75 + 400 * 6 + 150 * 15.
    let usage = read("text/event-stream", &events(&ANTHROPIC_STREAM), true);
    assert_eq!(cost("anthropic", &usage).whole().unwrap().to_string(), "0.008175 USD");
    // 600 * 0.30 + 200 * 0.03 + 100 * 1 + 100 * 0.10 + 150 * 2.50.
    assert_eq!(cost("gemini", &json(GEMINI)).whole().unwrap().to_string(), "0.000671 USD");
}

#[test]
fn half_a_statement_is_a_known_part_and_a_reason() {
    let prices = Prices::default();
    let usage = read("text/event-stream", &events(&ANTHROPIC_STREAM[..4]), false);
    let facts = Facts::new(&usage, Answer::Status(200), NOW);
    let cost = prices.settle("anthropic", "POST /v1/messages", "claude-sonnet-4-5", &facts).unwrap();
    assert_eq!((cost.part().to_string().as_str(), cost.whole()), ("0.00594 USD", None));
    assert_eq!(cost.unknown, Some(Unknown::Abandoned));
}

#[test]
fn a_large_prompt_costs_the_larger_price() {
    let prices = Prices::default();
    let price = prices.find("gemini", "", "gemini-2.5-pro").unwrap();
    let cost = |tokens: u64| {
        let usage = Usage::unknown(Unknown::NotStated).with(Kind::Input, tokens).with(Kind::Output, 0);
        price.settle(&Facts::new(&usage, Answer::Status(200), NOW)).whole().unwrap().to_string()
    };
    assert_eq!(cost(200_000), "0.25 USD");
    assert_eq!(cost(200_001), "0.5000025 USD");
}

#[test]
fn of_several_tiers_the_narrowest_holds() {
    let text = r#"
        [[price]]
        vendor = "v"
        input = "1 USD / token"
        [[price.tier]]
        above_prompt = "1k"
        input = "3 USD / token"
        [[price.tier]]
        above_prompt = "100"
        input = "2 USD / token"
        [[price.tier]]
        hours = "09:00-11:00"
        input = "0.5 USD / token"
        [[price.tier]]
        days = ["sat"]
        input = "0.7 USD / token"
        [[price.tier]]
        service_tier = "flex"
        above_prompt = "100"
        input = "0.1 USD / token"
    "#;
    let prices = Prices::new(crate::config::read_prices("f", text).0);
    let price = prices.find("v", "", "").unwrap();
    let rate = |tokens: u64, tier, hours: i64| {
        let mut usage = Usage::unknown(Unknown::NotStated).with(Kind::Input, tokens);
        usage.tier = tier;
        let at = Timestamp::from_nanos((1_795_255_200 + hours * 3_600) as u64 * 1_000_000_000);
        price.settle(&Facts::new(&usage, Answer::Status(200), at)).nanos
            / i64::try_from(tokens).unwrap()
            / 1_000_000
    };
    assert_eq!(rate(1_001, ServiceTier::Standard, 0), 3_000);
    assert_eq!(rate(1_000, ServiceTier::Standard, 0), 2_000);
    assert_eq!(rate(100, ServiceTier::Standard, 0), 500, "10:00 on a Saturday");
    assert_eq!(rate(100, ServiceTier::Standard, 1), 700, "11:00 on a Saturday");
    assert_eq!(rate(100, ServiceTier::Standard, -24), 500, "10:00 on a Friday");
    assert_eq!(rate(100, ServiceTier::Standard, -23), 1_000, "11:00 on a Friday");
    assert_eq!(rate(101, ServiceTier::Flex, 0), 100);
    assert_eq!(rate(100, ServiceTier::Flex, 0), 0, "no price for a small prompt in flex: unknown");
}

#[test]
fn a_service_tier_has_its_own_price_or_none() {
    let price = gpt_4o();
    let mut usage = Usage::unknown(Unknown::NotStated).with(Kind::Input, 1_000_000).with(Kind::Output, 0);
    let cost = |usage: &Usage| price.settle(&Facts::new(usage, Answer::Status(200), NOW));
    assert_eq!(cost(&usage).whole().unwrap().to_string(), "2.50 USD");
    usage.tier = ServiceTier::Priority;
    assert_eq!(cost(&usage).whole().unwrap().to_string(), "4.25 USD");
    usage.tier = ServiceTier::Other;
    assert_eq!(cost(&usage), Cost::unknown(Unknown::UnpricedTier, Currency::USD));
}

#[test]
fn hours_and_days_have_their_prices() {
    let prices = Prices::default();
    let price = prices.find("deepseek", "", "deepseek-flash").unwrap();
    let usage = Usage::unknown(Unknown::NotStated).with(Kind::Input, 1_000_000).with(Kind::Output, 0);
    let cost = |at: &str, now: Timestamp| {
        (at.to_owned(), price.settle(&Facts::new(&usage, Answer::Status(200), now)).part().to_string())
    };
    let hours = |hours: i64| Timestamp::from_nanos((1_795_255_200 + hours * 3_600) as u64 * 1_000_000_000);
    assert_eq!(cost("Saturday 10:00", hours(0)).1, "0.15 USD");
    assert_eq!(cost("Saturday 07:00", hours(-3)).1, "0.15 USD");
    assert_eq!(cost("Friday 07:00", hours(-27)).1, "0.30 USD");
    assert_eq!(cost("Friday 10:00", hours(-24)).1, "0.15 USD");
}

#[test]
fn calls_that_fail_cost_nothing_and_calls_without_an_answer_cost_who_knows() {
    let price = gpt_4o();
    let usage = json(r#"{"error":{"message":"slow down"}}"#);
    let cost = |answer| price.settle(&Facts::new(&usage, answer, NOW));
    assert_eq!(cost(Answer::Status(429)).whole(), Some(Money::zero(Currency::USD)));
    assert_eq!(cost(Answer::NotSent).whole(), Some(Money::zero(Currency::USD)));
    assert_eq!(cost(Answer::None).unknown, Some(Unknown::NoAnswer));
    assert_eq!(cost(Answer::Status(200)).unknown, Some(Unknown::NotStated));
}

#[test]
fn what_has_no_price_is_unknown_and_what_asks_for_none_is_nothing() {
    let prices = Prices::default();
    let none = json(r#"{"data":[]}"#);
    let facts = Facts::new(&none, Answer::Status(200), NOW);
    assert_eq!(prices.settle("openai", "GET /v1/models", "", &facts), None);
    let chat = json(CHAT);
    let facts = Facts::new(&chat, Answer::Status(200), NOW);
    assert_eq!(prices.settle("nobody", "POST /x", "", &facts).unwrap().unknown, Some(Unknown::NoPrice));
    let facts = Facts::new(&none, Answer::Status(200), NOW);
    assert_eq!(prices.settle("openai", "POST /x", "gpt-99", &facts).unwrap().unknown, Some(Unknown::NoPrice));
    // A search that Gemini's price list does not have.
    let usage = chat.with(Kind::Search, 1);
    let cost = gpt_4o().settle(&Facts::new(&usage, Answer::Status(200), NOW));
    assert_eq!(
        (cost.part().to_string().as_str(), cost.unknown),
        ("0.00472 USD", Some(Unknown::UnpricedKind))
    );
}

#[test]
fn a_vendors_own_statement_of_the_cost_is_taken_to_the_nano_unit() {
    let prices = Prices::default();
    let price = prices.find("openrouter", "POST /api/v1/chat/completions", "any/model").unwrap();
    for (stated, cost) in [("0.95", "0.95 USD"), ("1.23456789e-05", "0.000012346 USD"), ("3", "3.00 USD")] {
        let body = format!(
            r#"{{"model":"any/model","usage":{{"prompt_tokens":1,"completion_tokens":2,"cost":{stated}}}}}"#
        );
        let mut reader = UsageReader::new(Some(price), Some("application/json"), None);
        reader.push(body.as_bytes());
        let usage = reader.finish(true);
        assert_eq!(
            price.settle(&Facts::new(&usage, Answer::Status(200), NOW)).whole().unwrap().to_string(),
            cost
        );
    }
    let usage = UsageReader::new(Some(price), Some("application/json"), None).finish(true);
    let cost = price.settle(&Facts::new(&usage, Answer::Status(200), NOW));
    assert_eq!(cost.unknown, Some(Unknown::NotStated));
}

#[test]
fn own_units_calls_and_bytes_have_prices_and_volume_makes_them_cheaper() {
    let text = r#"
        [[price]]
        vendor = "maps"
        call = "5 USD / 1k calls"
        sent = "1 USD / MB"
        received = "0.1 USD / GB"
        charges_errors = true
        [[price.unit]]
        header = "X-Credits-Used"
        price = "0.02 USD / unit"
        [[price.tier]]
        above_volume = "100"
        call = "4 USD / 1k calls"
    "#;
    let (own, errors) = crate::config::read_prices("f", text);
    assert!(errors.is_empty(), "{errors:?}");
    let prices = Prices::new(own);
    let price = prices.find("maps", "GET /route", "").unwrap();
    let mut reader = UsageReader::new(Some(price), Some("image/png"), None);
    reader.header(price, "x-credits-used", " 2.5 ");
    let usage = reader.finish(true);
    let cost = |volume, status| {
        let facts = Facts::new(&usage, Answer::Status(status), NOW).bytes(1_000, 1_000_000).volume(volume);
        price.settle(&facts)
    };
    assert_eq!(cost(100, 200).whole().unwrap().to_string(), "0.0561 USD");
    assert_eq!(cost(101, 200).whole().unwrap().to_string(), "0.0551 USD");
    assert_eq!(cost(0, 500).whole().unwrap().to_string(), "0.0561 USD");
    assert!(price.asks_volume() && price.asks_response() && !price.asks_body());
    let unstated = UsageReader::new(Some(price), Some("image/png"), None).finish(true);
    let cost = price.settle(&Facts::new(&unstated, Answer::Status(200), NOW));
    assert_eq!((cost.nanos, cost.unknown), (5_000_000, Some(Unknown::OtherContent)));
}

#[test]
fn the_months_volume_is_counted_as_calls_settle() {
    let text = r#"
        [[price]]
        vendor = "maps"
        call = "5 USD / call"
        [[price.tier]]
        above_volume = "1"
        call = "4 USD / call"
    "#;
    let prices = Prices::new(crate::config::read_prices("f", text).0);
    let usage = Usage::unknown(Unknown::OtherContent);
    let settle = |answer, at| {
        let cost = prices.settle("maps", "GET /x", "", &Facts::new(&usage, answer, at)).unwrap();
        cost.whole().unwrap().nanos() / 1_000_000_000
    };
    let estimate =
        |at| prices.estimate("maps", "GET /x", "", &Ahead::new(0, at)).unwrap().nanos() / 1_000_000_000;
    assert_eq!((settle(Answer::NotSent, NOW), estimate(NOW)), (0, 5));
    assert_eq!((settle(Answer::Status(200), NOW), settle(Answer::Status(200), NOW)), (5, 5));
    assert_eq!((estimate(NOW), settle(Answer::Status(200), NOW)), (4, 4));
    let next = NOW.plus_millis(86_400_000 * 15);
    assert_eq!((estimate(next), settle(Answer::Status(200), next)), (5, 5));
}

#[test]
fn the_narrowest_price_holds_and_own_ones_come_first() {
    let text = r#"
        [[price]]
        vendor = "openai"
        model = "gpt-4o*"
        call = "1 USD / call"
        [[price]]
        vendor = "openai"
        model = "gpt-4o-mini*"
        call = "2 USD / call"
        [[price]]
        vendor = "openai"
        model = "gpt-4o-mini*"
        endpoint = "POST /v1/embed*"
        call = "3 USD / call"
        [[price]]
        vendor = "openai"
        model = "gpt-4o-mini"
        call = "4 USD / call"
        [[price]]
        vendor = "openai"
        model = "gpt-4o-mini"
        call = "5 USD / call"
        [[price]]
        vendor = "openai"
        endpoint = "POST /v1/files"
        call = "6 USD / call"
    "#;
    let (own, _) = crate::config::read_prices("f", text);
    let prices = Prices::new(own);
    let call = |endpoint: &str, model: &str| {
        let price = prices.find("openai", endpoint, model)?;
        let usage = Usage::unknown(Unknown::NotStated);
        Some(price.settle(&Facts::new(&usage, Answer::Status(200), NOW)).nanos / 1_000_000_000)
    };
    assert_eq!(call("POST /v1/chat", "gpt-4o"), Some(1));
    assert_eq!(call("POST /v1/chat", "gpt-4o-2024-08-06"), Some(1));
    assert_eq!(call("POST /v1/chat", "gpt-4o-mini-2024-07-18"), Some(2));
    assert_eq!(call("POST /v1/embeddings", "gpt-4o-mini-2024-07-18"), Some(3));
    assert_eq!(call("POST /v1/chat", "gpt-4o-mini"), Some(5), "the later line");
    assert_eq!(call("POST /v1/files", ""), Some(6));
    assert_eq!(call("POST /v1/files", "gpt-5"), Some(0), "the catalogue's, which names the model");
    assert_eq!(call("GET /v1/files", ""), None);
    assert!(prices.has("openai") && !prices.has("stripe"));
}

#[test]
fn the_catalogue_prices_the_models_that_people_use() {
    let prices = Prices::default();
    for (vendor, models) in [
        (
            "openai",
            "gpt-4o gpt-4o-2024-08-06 gpt-4o-mini gpt-4.1 gpt-4.1-mini gpt-4.1-nano gpt-5 gpt-5-2025-08-07 gpt-5-mini gpt-5-nano gpt-5.1 gpt-5.2 gpt-5.4 gpt-5.4-mini gpt-5.5 gpt-6-luna o1 o3 o3-mini o3-pro o4-mini gpt-3.5-turbo gpt-4-turbo text-embedding-3-small text-embedding-3-large",
        ),
        (
            "anthropic",
            "claude-3-haiku-20240307 claude-3-5-haiku-latest claude-sonnet-4-5-20250929 claude-sonnet-5 claude-sonnet-5-5 claude-opus-4-1-20250805 claude-opus-4-5 claude-opus-5 claude-opus-5-5 claude-haiku-4-5-20251001 claude-haiku-5-5",
        ),
        (
            "gemini",
            "gemini-2.0-flash gemini-2.5-pro gemini-2.5-flash gemini-2.5-flash-lite gemini-3-flash-preview gemini-3.5-flash gemini-3.8-flash gemini-embedding-001 models/gemini-2.5-pro",
        ),
        (
            "mistral",
            "mistral-large-latest mistral-small-latest mistral-medium-latest codestral-latest mistral-embed",
        ),
        ("groq", "llama-3.3-70b-versatile llama-3.1-8b-instant openai/gpt-oss-120b"),
        ("deepseek", "deepseek-v4-flash deepseek-v4-pro deepseek-flash"),
        ("xai", "grok-3 grok-4-0709 grok-4.6"),
        ("cohere", "command-a-03-2025 command-r-plus command-r7b-12-2024 embed-v4.0"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("voyageai", "voyage-3.5"),
        ("moonshot", "kimi-k3"),
        (
            "bedrock",
            "amazon.nova-pro-v1:0 us.amazon.nova-lite-v1%3A0 global.anthropic.claude-sonnet-4-5-20250929-v1:0 us.anthropic.claude-opus-4-5-20251101-v1:0",
        ),
    ] {
        for model in models.split(' ') {
            assert!(prices.find(vendor, "POST /x", model).is_some(), "{vendor} {model}");
        }
    }
    assert!(prices.find("openai", "POST /x", "gpt-99").is_none(), "a model that nobody knows has no price");
}

#[test]
fn every_price_of_the_catalogue_is_dated_and_plausible() {
    let mut models = 0;
    for price in Prices::default().iter() {
        models += price.models.len();
        let stated = price.units.is_empty();
        assert_eq!(price.as_of.is_some(), stated, "{price:?}");
        assert_eq!(price.currency, Currency::USD);
        // Nothing is dearer than a thousand dollars for a million tokens.
        let most = Rate::parse("1000 USD / 1M tokens", Per::Token).unwrap().0;
        let kinds = price.rates.kinds.iter().enumerate().filter(|(kind, _)| *kind != Kind::Search as usize);
        for (_, rate) in kinds.filter_map(|(kind, rate)| Some((kind, (*rate)?))) {
            assert!(rate <= most, "{price:?}");
        }
        if stated {
            let (input, cached) = (price.rates.of(Kind::Input), price.rates.of(Kind::CachedInput));
            assert!(input.is_some() && cached <= input, "{price:?}");
        }
    }
    assert!(models >= 300, "{models}");
}

#[test]
fn an_estimate_allows_for_the_longest_answer() {
    let price = gpt_4o();
    let ahead = Ahead::new(4_000, NOW).asks(Some(500), ServiceTier::Standard);
    assert_eq!(price.estimate(&ahead).to_string(), "0.0075 USD");
    assert_eq!(
        price.estimate(&Ahead::new(4_000, NOW)).to_string(),
        "0.0125 USD",
        "a thousand tokens unless said"
    );
    let absurd = Ahead::new(u64::MAX, NOW).asks(Some(u64::MAX), ServiceTier::Standard);
    assert_eq!(price.estimate(&absurd).nanos(), i64::MAX);
}

fn corpus() -> Vec<(&'static str, String)> {
    let mut all = vec![("application/json", CHAT.to_owned()), ("application/json", GEMINI.to_owned())];
    for documents in [&CHAT_STREAM[..], &RESPONSES_STREAM[..], &ANTHROPIC_STREAM[..]] {
        all.push(("text/event-stream", events(documents)));
        all.push(("text/event-stream", events(documents).replace('\n', "\r\n")));
        all.push(("text/event-stream", events(documents).replace('\n', "\r")));
    }
    all.push(("application/json", format!("[{GEMINI},{GEMINI}]")));
    all
}

proptest! {
    #[test]
    fn no_split_makes_a_difference(which in 0usize..12, sizes in proptest::collection::vec(0usize..40, 1..60), whole: bool, cut in 0usize..3000) {
        let (kind, body) = &corpus()[which];
        let body = &body.as_bytes()[..body.len().min(if whole { body.len() } else { cut })];
        let mut once = UsageReader::new(None, Some(kind), None);
        once.push(body);
        let mut pieces = UsageReader::new(None, Some(kind), None);
        let (mut rest, mut sizes) = (body, sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, left) = rest.split_at(rest.len().min((*sizes.next().unwrap()).max(1)));
            pieces.push(piece);
            rest = left;
        }
        prop_assert_eq!(once.finish(whole), pieces.finish(whole));
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b'"'), Just(b':'), Just(b','), Just(b'\n'), Just(b'1'), any::<u8>()], 0..400),
        kind in prop_oneof![Just(Some("text/event-stream")), Just(Some("application/json")), Just(None)],
    ) {
        let mut reader = UsageReader::new(None, kind, None);
        reader.push(br#"{"usage":{"prompt_tokens":"#);
        reader.push(&bytes);
        let _ = reader.finish(true);
    }

    #[test]
    fn the_parts_of_a_usage_are_the_whole(input in 0u64..1_000_000, cached in 0u64..1_000_000, output in 0u64..1_000_000, reasoning in 0u64..1_000_000) {
        let usage = json(&format!(
            r#"{{"usage":{{"prompt_tokens":{input},"completion_tokens":{output},"prompt_tokens_details":{{"cached_tokens":{cached}}},"completion_tokens_details":{{"reasoning_tokens":{reasoning}}}}}}}"#
        ));
        if cached <= input && reasoning <= output {
            prop_assert_eq!(usage.tokens(), Some(input + output));
            prop_assert_eq!(usage.unknown, None);
        } else {
            prop_assert_eq!(usage.unknown, Some(Unknown::Contradictory));
        }
    }

    #[test]
    fn a_cost_is_the_exact_sum_rounded_once(input in 0u64..10_000_000, cached in 0u64..10_000_000, output in 0u64..10_000_000) {
        let usage = Usage::unknown(Unknown::NotStated).with(Kind::Input, input).with(Kind::CachedInput, cached).with(Kind::Output, output);
        let price = gpt_4o();
        let cost = price.settle(&Facts::new(&usage, Answer::Status(200), NOW)).whole().unwrap();
        // 2500, 1250 and 10000 nano-dollars a token.
        prop_assert_eq!(cost.nanos() as u64, input * 2_500 + cached * 1_250 + output * 10_000);
    }

    #[test]
    fn the_longest_pattern_is_found_as_by_looking_at_all(
        patterns in proptest::collection::vec("[ab]{0,5}", 1..12),
        model in "[abc]{1,7}",
    ) {
        let text: String = patterns.iter().enumerate().map(|(number, pattern)| {
            format!("[[price]]\nvendor = \"v\"\nmodel = \"{pattern}*\"\ncall = \"{number} USD / call\"\n")
        }).collect();
        let (own, errors) = crate::config::read_prices("f", &text);
        prop_assert!(errors.is_empty());
        let expected = patterns.iter().enumerate().filter(|(_, pattern)| model.starts_with(pattern.as_str()))
            .max_by_key(|(number, pattern)| (pattern.len(), *number)).map(|(_, pattern)| format!("{pattern}*"));
        let prices = Prices::new(own);
        let found = prices.find("v", "", &model).map(|price| price.models[0].clone());
        prop_assert_eq!(found, expected);
    }
}
