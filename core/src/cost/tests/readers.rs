//! What was used: read from responses of all dialects, whatever their pieces.

use super::*;

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
}
