//! Anthropic's messages, whole or as a stream of events.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Ask;
use super::openai::tokens;
use super::table::hex;
use crate::answer::Answer;

const WORDS: [&str; 5] = ["The", " simulator", " answers", " you", "."];

pub(super) fn answer(ask: &Ask<'_>, seq: u64) -> Option<Answer> {
    if ask.method != Method::POST {
        return None;
    }
    let asked = ask.json();
    let input = tokens(&asked["messages"]) + tokens(&asked["system"]);
    match ask.path {
        "/v1/messages" => Some(messages(&asked, input, seq)),
        "/v1/messages/count_tokens" => Some(Answer::json(StatusCode::OK, &json!({"input_tokens": input}))),
        _ => None,
    }
}

fn messages(ask: &Value, input: u64, seq: u64) -> Answer {
    let (Some(model), Some(_)) = (ask["model"].as_str(), ask["max_tokens"].as_u64()) else {
        let error = json!({"type": "error", "error": {
            "type": "invalid_request_error", "message": "model and max_tokens: Field required"}});
        return Answer::json(StatusCode::BAD_REQUEST, &error);
    };
    let message = |content: Value, stop: Value, output: u64| {
        json!({
            "id": format!("msg_{}", hex(seq)), "type": "message", "role": "assistant", "model": model,
            "content": content, "stop_reason": stop, "stop_sequence": null,
            "usage": {"input_tokens": input, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0, "output_tokens": output, "service_tier": "standard"}})
    };
    let output = WORDS.len() as u64;
    if ask["stream"] != true {
        let content = json!([{"type": "text", "text": WORDS.concat()}]);
        return Answer::json(StatusCode::OK, &message(content, json!("end_turn"), output));
    }
    let mut events = vec![
        json!({"type": "message_start", "message": message(json!([]), Value::Null, 1)}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
    ];
    events.extend(WORDS.iter().map(
        |w| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": w}}),
    ));
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": output}}),
        json!({"type": "message_stop"}),
    ]);
    let framed = events.into_iter().map(|event| {
        Bytes::from(format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default()))
    });
    Answer::events(framed.collect())
}
