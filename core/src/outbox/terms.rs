//! How a call is parked, and what the application is told.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use std::time::Duration;

/// The terms on which the outbox is to take a call, beside the request itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// The rule that says so.
    pub rule: Arc<str>,
    /// Why: `answered 503`.
    pub why: String,
    /// On whose behalf, where that is known.
    pub customer: Option<Arc<str>>,
    /// Calls of one key are delivered one after the other.
    pub order_key: Option<String>,
    /// The field by which the vendor takes an idempotency key, where one is known.
    pub idempotency_header: Option<Arc<str>>,
    /// The idempotency key that the attempts carried, where the engine chose it. Where not, the request's own holds.
    pub idempotency_key: Option<String>,
    /// How long delivery is not worth a try.
    pub delay: Duration,
    /// How long it is tried; `None` for as long as the outbox does by itself.
    pub max_age: Option<Duration>,
    /// How often it is tried; `None` without a bound.
    pub max_attempts: Option<u32>,
}

/// A call that the outbox took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked<'a> {
    /// Its number there.
    pub id: i64,
    /// The idempotency key of its delivery.
    pub idempotency_key: &'a str,
}

const FARCALL_OUTBOX: HeaderName = HeaderName::from_static("farcall-outbox");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Parked<'_> {
    /// What the application gets in the vendor's place: headers, and a body of JSON.
    pub(crate) fn answer(&self, why: &str) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, JSON);
        if let Ok(value) = HeaderValue::try_from(format!("parked; id={}", self.id)) {
            headers.insert(FARCALL_OUTBOX, value);
        }
        let key: String = self.idempotency_key.chars().flat_map(escaped).collect();
        let why: String = why.chars().flat_map(escaped).collect();
        let body = format!(
            r#"{{"farcall":{{"outbox":"parked","id":{},"idempotency_key":"{key}","why":"{why}"}}}}"#,
            self.id
        );
        (headers, body.into())
    }
}

/// A character in a string of JSON (RFC 8259, section 7).
fn escaped(letter: char) -> impl Iterator<Item = char> {
    let text = match letter {
        '"' | '\\' => format!("\\{letter}"),
        letter if u32::from(letter) < 0x20 => format!("\\u{:04x}", u32::from(letter)),
        letter => letter.to_string(),
    };
    text.chars().collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_the_call_in_its_header_and_its_body() {
        let (headers, body) = Parked { id: 17, idempotency_key: "a\"b\\c\n" }.answer("answered 503");
        assert_eq!(headers["farcall-outbox"], "parked; id=17");
        let expected = r#"{"farcall":{"outbox":"parked","id":17,"idempotency_key":"a\"b\\c\u000a","why":"answered 503"}}"#;
        assert_eq!(body, expected);
    }
}
