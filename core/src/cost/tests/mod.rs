//! What the concept promises, over all of its parts.

mod prices;
mod readers;

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

fn gpt_4o() -> Price {
    Prices::default().find("openai", "POST /v1/chat/completions", "gpt-4o").unwrap().clone()
}
