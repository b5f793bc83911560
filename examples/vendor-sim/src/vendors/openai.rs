//! OpenAI: what depends on the request (streams, token counts); the rest is in the vendor file.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::Ask;
use super::table::hex;
use crate::answer::Answer;
use crate::clock;

const WORDS: [&str; 6] = ["The", " vendor", " simulator", " answers", " you", "."];

/// OpenAI's own bound on the inputs of one embeddings request.
const MAX_INPUTS: usize = 2_048;

pub(super) fn answer(ask: &Ask<'_>, seq: u64) -> Option<Answer> {
    if ask.method != Method::POST {
        return None;
    }
    let answer = match ask.path {
        "/v1/chat/completions" => chat(&ask.json(), seq),
        "/v1/responses" => responses(&ask.json(), seq),
        "/v1/embeddings" => embeddings(&ask.json()),
        _ => return None,
    };
    Some(answer.unwrap_or_else(|| {
        let error = json!({"error": {
            "message": "you must provide a model parameter", "type": "invalid_request_error",
            "param": null, "code": null}});
        Answer::json(StatusCode::BAD_REQUEST, &error)
    }))
}

fn chat(ask: &Value, seq: u64) -> Option<Answer> {
    let model = ask["model"].as_str()?;
    let prompt = tokens(&ask["messages"]);
    let completion = WORDS.len() as u64;
    let usage = json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    });
    let id = format!("chatcmpl-{}", hex(seq));
    let created = clock::now().as_secs();
    if ask["stream"] != true {
        return Some(Answer::json(
            StatusCode::OK,
            &json!({
                "id": id, "object": "chat.completion", "created": created, "model": model,
                "choices": [{"index": 0, "logprobs": null, "finish_reason": "stop", "message": {
                    "role": "assistant", "content": WORDS.concat(), "refusal": null, "annotations": []}}],
                "usage": usage, "service_tier": "default", "system_fingerprint": "fp_vendorsim",
            }),
        ));
    }
    let with_usage = ask["stream_options"]["include_usage"] == true;
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": model,
            "service_tier": "default", "system_fingerprint": "fp_vendorsim", "choices": choices});
        if with_usage {
            chunk["usage"] = usage;
        }
        Bytes::from(format!("data: {chunk}\n\n"))
    };
    let delta = |delta: Value, finish: Value| {
        chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]), Value::Null)
    };
    let mut events = vec![delta(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null)];
    events.extend(WORDS.iter().map(|w| delta(json!({"content": w}), Value::Null)));
    events.push(delta(json!({}), json!("stop")));
    if with_usage {
        events.push(chunk(json!([]), usage));
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    Some(Answer::events(events))
}

fn responses(ask: &Value, seq: u64) -> Option<Answer> {
    let model = ask["model"].as_str()?;
    let (input, output) = (tokens(&ask["input"]), WORDS.len() as u64);
    let item = format!("msg_{}", hex(seq));
    let part = |text: String| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
    let message = |status: &str, content: Value| json!({"id": item, "type": "message", "role": "assistant", "status": status, "content": content});
    let response = |status: &str, output_items: Value, usage: Value| {
        json!({
            "id": format!("resp_{}", hex(seq)), "object": "response", "created_at": clock::now().as_secs(),
            "status": status, "error": null, "incomplete_details": null, "instructions": null,
            "max_output_tokens": null, "model": model, "output": output_items, "parallel_tool_calls": true,
            "previous_response_id": null, "reasoning": {"effort": null, "summary": null}, "store": true,
            "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
            "top_p": 1.0, "truncation": "disabled", "usage": usage, "user": null, "metadata": {}})
    };
    let usage = json!({
        "input_tokens": input, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input + output});
    let full = message("completed", json!([part(WORDS.concat())]));
    let complete = response("completed", json!([full]), usage);
    if ask["stream"] != true {
        return Some(Answer::json(StatusCode::OK, &complete));
    }
    let begun = response("in_progress", json!([]), Value::Null);
    let mut events = vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.in_progress", "response": begun}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": message("in_progress", json!([]))}),
        json!({"type": "response.content_part.added", "item_id": item, "output_index": 0, "content_index": 0,
            "part": part(String::new())}),
    ];
    events.extend(WORDS.iter().map(|w| {
        json!({"type": "response.output_text.delta", "item_id": item, "output_index": 0, "content_index": 0,
            "delta": w, "logprobs": []})
    }));
    events.extend([
        json!({"type": "response.output_text.done", "item_id": item, "output_index": 0, "content_index": 0,
            "text": WORDS.concat(), "logprobs": []}),
        json!({"type": "response.content_part.done", "item_id": item, "output_index": 0, "content_index": 0,
            "part": part(WORDS.concat())}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": full}),
        json!({"type": "response.completed", "response": complete}),
    ]);
    let framed = events.into_iter().enumerate().map(|(i, mut event)| {
        event["sequence_number"] = json!(i);
        Bytes::from(format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default()))
    });
    Some(Answer::events(framed.collect()))
}

fn embeddings(ask: &Value) -> Option<Answer> {
    let model = ask["model"].as_str()?;
    let inputs = ask["input"].as_array().map_or(1, Vec::len).min(MAX_INPUTS);
    let size = ask["dimensions"].as_u64().unwrap_or(8).clamp(1, 3_072);
    let vector: Value = if ask["encoding_format"] == "base64" {
        json!(base64_floats(size))
    } else {
        (0..size).map(|i| json!(component(i))).collect()
    };
    let data: Vec<_> =
        (0..inputs).map(|i| json!({"object": "embedding", "index": i, "embedding": vector})).collect();
    let tokens = tokens(&ask["input"]);
    Some(Answer::json(
        StatusCode::OK,
        &json!({
        "object": "list", "data": data, "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}),
    ))
}

fn component(i: u64) -> f32 {
    (i % 17) as f32 / 16.0 - 0.5
}

/// Little-endian `f32`s in base64 (RFC 4648), as the official clients ask for them.
fn base64_floats(size: u64) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = (0..size).flat_map(|i| component(i).to_le_bytes()).collect();
    let mut out = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for i in 0..4 {
            let six = (bits >> (18 - 6 * i) & 63) as usize;
            out.push(if i <= three.len() { char::from(ALPHABET[six]) } else { '=' });
        }
    }
    out
}

/// About four characters of text make a token.
pub(super) fn tokens(text: &Value) -> u64 {
    match text {
        Value::String(text) => text.chars().count().div_ceil(4) as u64,
        Value::Array(list) => list.iter().map(tokens).sum(),
        Value::Object(map) => {
            3 + ["content", "text", "input"].iter().filter_map(|k| map.get(*k)).map(tokens).sum::<u64>()
        }
        Value::Number(_) => 1,
        Value::Null | Value::Bool(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_like_the_specification() {
        // -0.5_f32 is 00 00 00 bf.
        assert_eq!(base64_floats(1), "AAAAvw==");
        assert_eq!(base64_floats(3).len(), 16);
    }
}
