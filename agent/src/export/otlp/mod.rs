//! OTLP over HTTP with JSON (OpenTelemetry Protocol 1.5): to the collector that `[otlp]` names, else to the one that
//! the environment names as OpenTelemetry's specification says. Sent by a client of its own for each message.
//!
//! The JSON mapping of Protobuf holds, with OTLP's own exceptions: names in lowerCamelCase, 64-bit integers as strings,
//! enumerations as numbers. docs/otlp.md has the names of all that is sent.

mod destination;
mod metric;
mod resource;
mod value;

pub(crate) use destination::{Destination, Signal, Whither, process_environment};
pub(crate) use metric::{Instrument, Metrics, Number, Point};
pub(crate) use resource::Resource;
pub(crate) use value::{Attributes, nanos};

use crate::post::{Post, post};
use http::StatusCode;
use serde_json::{Value, json};

/// Sends what belongs to one signal, `{"resourceLogs": ...}` and the like.
///
/// # Errors
/// Why it was not taken, or not all of it.
pub(crate) fn send(to: &Destination, signal: Signal, message: &Value) -> Result<(), String> {
    let json = message.to_string();
    let (headers, timeout) = (to.headers.as_slice(), to.timeout);
    let answer = post(&Post { url: &to.url, headers, json: &json, timeout, passes, answered: true })?;
    refused(signal, &answer)
        .map_or(Ok(()), |why| Err(format!("{}: it took not all: {why}", to.url.host().unwrap_or_default())))
}

/// Who wrote it, as each scope says.
pub(crate) fn scope() -> Value {
    json!({ "name": "farcall", "version": env!("CARGO_PKG_VERSION") })
}

/// OTLP, "Failures": these may pass, and no other does.
fn passes(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// Why something was refused of a message that was taken otherwise (OTLP, "Partial Success").
fn refused(signal: Signal, answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let partial = answer.get("partialSuccess")?;
    let many = partial.get(signal.rejected())?;
    let many = many.as_u64().or_else(|| many.as_str()?.parse().ok()).filter(|many| *many > 0)?;
    let why = partial.get("errorMessage").and_then(Value::as_str).unwrap_or_default();
    Some(format!("{many} refused: {}", crate::say::plain(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_collector_refuses_of_a_message_that_it_took_is_a_failure() {
        let refused = |answer: &str| refused(Signal::Logs, answer.as_bytes());
        for taken in ["", "{}", "not JSON", r#"{"partialSuccess":{}}"#, r#"{"partialSuccess":null}"#] {
            assert_eq!(refused(taken), None, "{taken}");
        }
        assert_eq!(refused(r#"{"partialSuccess":{"rejectedLogRecords":"0","errorMessage":"slow"}}"#), None);
        assert_eq!(refused(r#"{"partialSuccess":{"rejectedDataPoints":"1"}}"#), None, "another signal's");
        let two = r#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"no\nroom"}}"#;
        assert_eq!(refused(two).unwrap(), "2 refused: no\u{FFFD}room");
        assert!(refused(r#"{"partialSuccess":{"rejectedLogRecords":1}}"#).is_some(), "as some write it");
    }

    #[test]
    fn only_what_the_protocol_calls_retryable_is_tried_again() {
        let retried = (100..600).filter(|code| passes(StatusCode::from_u16(*code).unwrap()));
        assert_eq!(retried.collect::<Vec<_>>(), [429, 502, 503, 504]);
    }
}
