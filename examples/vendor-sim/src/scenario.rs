//! Ready-made behaviours under `/scenario/`, on every host: no script needed.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::answer::{Answer, Content, Ending};
use crate::script::dialect::{Dialect, Numbers};
use crate::script::{Effect, ScriptError};
use crate::vendors::Ask;

/// One block of what large bodies are made of; `Bytes` shares it.
static BLOCK: [u8; 65_536] = [b'x'; 65_536];

/// Bytes of the bodies that break off, as announced.
const BROKEN: usize = 10_000;

/// The answer to `/scenario/<path>`, and how long it takes; `None` where no such scenario exists.
pub(crate) fn play(path: &str, ask: &Ask<'_>) -> Option<(Duration, Answer)> {
    if path == "slow" {
        let answer = Answer::json(StatusCode::OK, &json!({"scenario": "slow"}));
        return Some((Duration::from_millis(ask.number("ms", 500)), answer));
    }
    let (name, rest) = path.split_once('/').unwrap_or((path, ""));
    Some((Duration::ZERO, at_once(name, rest, ask)?))
}

fn at_once(name: &str, rest: &str, ask: &Ask<'_>) -> Option<Answer> {
    let every = Duration::from_millis(ask.number("every_ms", 0));
    Some(match name {
        "ok" => Answer::json(StatusCode::OK, &json!({"scenario": "ok"})),
        "redirect" => redirect(rest),
        "status" => {
            let status = StatusCode::from_u16(rest.parse().ok()?).ok().filter(|s| s.as_u16() >= 200)?;
            Answer::json(status, &json!({"scenario": "status", "status": status.as_u16()}))
        }
        "404" => Answer::json(StatusCode::NOT_FOUND, &json!({"error": "not found"})),
        "500" => Answer::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "internal error"})),
        "429" => refusal(if rest.is_empty() { "retry-after" } else { rest })?,
        "reset" => ending(Ending::ResetBeforeHead),
        "reset-mid-body" => ending(Ending::Reset(ask.number("after", BROKEN as u64 / 2))),
        "truncate" => ending(Ending::Close(ask.number("after", BROKEN as u64 / 2))),
        "stall" => ending(Ending::Stall(ask.number("after", BROKEN as u64 / 2))),
        "hang" => ending(Ending::Stall(u64::MAX)),
        "endless" => {
            let piece = Bytes::from_static(&BLOCK).slice(..ask.count("bytes", 64).clamp(1, BLOCK.len()));
            stream(piece, None, Duration::from_millis(ask.number("every_ms", 10)))
        }
        "gzip" => {
            let text =
                "All work and no play makes Jack a dull boy.\n".repeat(ask.count("lines", 100).min(100_000));
            let mut answer = Answer::text(StatusCode::OK, text);
            crate::script::gzip(&mut answer);
            answer
        }
        "chunked" => {
            let (bytes, chunks) = (ask.count("bytes", 10_000).min(1 << 26), ask.count("chunks", 10));
            pieces(bytes, chunks.clamp(1, bytes.clamp(1, 1_000_000)), every)
        }
        "sse" => {
            let events = ask.count("events", 10).min(1_000_000);
            let event = |i| Bytes::from(format!("id: {i}\nevent: tick\ndata: {{\"n\":{i}}}\n\n"));
            let mut answer = Answer::events((0..events).map(event).collect());
            if let Content::Pieces { every: pace, .. } = &mut answer.body {
                *pace = every;
            }
            answer
        }
        "bytes" => {
            let total = rest.parse().ok()?;
            let mut answer = stream(Bytes::from_static(&BLOCK), Some(total), every);
            answer.sized = true;
            answer
        }
        "echo" => {
            let mut answer = Answer::new(StatusCode::OK, ask.body.clone());
            let default = HeaderValue::from_static("application/octet-stream");
            let content_type = ask.headers.get(header::CONTENT_TYPE).cloned().unwrap_or(default);
            answer.headers.insert(header::CONTENT_TYPE, content_type);
            answer
        }
        "etag" => crate::vendors::tagged_by_body(Answer::text(StatusCode::OK, "the same as ever"), ask),
        "garbage" => wrong("garbage-status"),
        "wrong" => wrong_named(rest).ok()?,
        _ => return None,
    })
}

/// `/scenario/redirect/3` leads over 2, 1 and 0 to `/scenario/ok`; without a number, straight there.
fn redirect(rest: &str) -> Answer {
    let target = match rest.parse::<u64>() {
        Ok(n) if n > 0 => format!("/scenario/redirect/{}", n - 1),
        _ => "/scenario/ok".to_owned(),
    };
    let mut answer = Answer::text(StatusCode::FOUND, "");
    answer.set("location", &target);
    answer
}

fn refusal(dialect: &str) -> Option<Answer> {
    let mut answer = Answer::text(StatusCode::TOO_MANY_REQUESTS, "");
    Dialect::named(dialect)?.refuse(&mut answer, &Numbers::default());
    Some(answer)
}

fn ending(ending: Ending) -> Answer {
    let mut answer = Answer::text(StatusCode::OK, &BLOCK[..BROKEN]);
    answer.ending = ending;
    answer
}

fn wrong(name: &'static str) -> Answer {
    wrong_named(name).unwrap_or_else(|_| Answer::text(StatusCode::NOT_FOUND, ""))
}

fn wrong_named(name: &str) -> Result<Answer, ScriptError> {
    Effect::wrong(name).map(|e| e.apply(Answer::text(StatusCode::OK, "hello"), true))
}

fn stream(piece: Bytes, total: Option<u64>, every: Duration) -> Answer {
    let mut answer = Answer::new(StatusCode::OK, "").with(header::CONTENT_TYPE, "application/octet-stream");
    answer.body = Content::Repeat { piece, total, every };
    answer.sized = false;
    answer
}

/// `bytes` in `chunks` pieces of nearly the same size.
fn pieces(bytes: usize, chunks: usize, every: Duration) -> Answer {
    let mut answer = stream(Bytes::new(), Some(0), every);
    let piece = |i: usize| {
        let size = bytes / chunks + usize::from(i < bytes % chunks);
        if size <= BLOCK.len() { Bytes::from_static(&BLOCK[..size]) } else { Bytes::from(vec![b'x'; size]) }
    };
    answer.body = Content::Pieces { pieces: (0..chunks).map(piece).collect(), every };
    answer
}
