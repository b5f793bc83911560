//! How each vendor says "you have n left": the table, and the numbers that fill it.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Content};
use crate::clock;

mod table;

pub(crate) use table::DIALECTS;

/// One dialect.
#[derive(Debug)]
pub(crate) struct Dialect {
    pub(crate) name: &'static str,
    /// The status of a refusal; some vendors do not use 429.
    pub(crate) status: u16,
    /// Sent with every answer.
    always: &'static [(&'static str, &'static str)],
    /// Sent only with a refusal.
    refusal: &'static [(&'static str, &'static str)],
    body: &'static str,
}

/// The numbers behind a dialect. A text replaces the computed value as it stands, so that negative,
/// absurd and non-numbers can be sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Numbers {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remaining: Option<Word>,
    /// Stands for every form of the reset and of `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reset: Option<Word>,
    /// Milliseconds until the reset; 1,000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reset_after_ms: Option<u64>,
    /// Seconds of the window; 60 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window_s: Option<u64>,
}

/// A number, or any text in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Word {
    Number(i64),
    Text(String),
}

impl Word {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Number(n) => Cow::Owned(n.to_string()),
            Self::Text(t) => Cow::Borrowed(t),
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Self::Number(n) => Some(*n),
            Self::Text(_) => None,
        }
    }
}

impl Dialect {
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        DIALECTS.iter().find(|d| d.name == name)
    }

    /// Adds the headers that every answer of this vendor carries.
    pub(crate) fn annotate(&self, answer: &mut Answer, numbers: &Numbers) {
        write(self.always, answer, numbers);
    }

    /// Turns the answer into this vendor's refusal.
    pub(crate) fn refuse(&self, answer: &mut Answer, numbers: &Numbers) {
        answer.status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
        answer.headers.clear();
        answer.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        write(self.always, answer, numbers);
        write(self.refusal, answer, numbers);
        answer.body = Content::Whole(fill(self.body, numbers).into());
        answer.sized = true;
    }
}

fn write(rows: &'static [(&'static str, &'static str)], answer: &mut Answer, numbers: &Numbers) {
    for (name, template) in rows {
        if let Ok(value) = HeaderValue::from_str(&fill(template, numbers)) {
            answer.headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn fill(template: &str, numbers: &Numbers) -> String {
    let mut text = String::with_capacity(template.len() + 16);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        // JSON bodies are full of braces that name nothing: these stay.
        match after.split_once('}').and_then(|(word, rest)| Some((value(word, numbers)?, rest))) {
            Some((value, after)) => {
                text.push_str(&value);
                rest = after;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

fn value<'a>(word: &str, numbers: &'a Numbers) -> Option<Cow<'a, str>> {
    let limit = || numbers.limit.as_ref().and_then(Word::number).unwrap_or(100);
    let remaining = || numbers.remaining.as_ref().and_then(Word::number).unwrap_or(0);
    let after = Duration::from_millis(numbers.reset_after_ms.unwrap_or(1_000));
    let whole_seconds = after.as_millis().div_ceil(1_000);
    let reset_at = || clock::now() + after;
    let computed = match word {
        "limit" => numbers.limit.as_ref().map_or_else(|| "100".into(), Word::text),
        "remaining" => numbers.remaining.as_ref().map_or_else(|| "0".into(), Word::text),
        "used" => match &numbers.remaining {
            Some(Word::Text(text)) => text.into(),
            _ => limit().saturating_sub(remaining()).to_string().into(),
        },
        "window" => numbers.window_s.unwrap_or(60).to_string().into(),
        "retry" | "retry_ms" | "epoch_s" | "epoch_ms" | "delta_s" | "delta_ms" | "duration" | "rfc3339"
        | "http_date"
            if numbers.reset.is_some() =>
        {
            numbers.reset.as_ref().map_or(Cow::Borrowed(""), Word::text)
        }
        "retry" => whole_seconds.to_string().into(),
        "retry_ms" | "delta_ms" => after.as_millis().to_string().into(),
        "epoch_s" => reset_at().as_millis().div_ceil(1_000).to_string().into(),
        "epoch_ms" => reset_at().as_millis().to_string().into(),
        "delta_s" => format!("{:.3}", after.as_secs_f64()).into(),
        "duration" => clock::go_duration(after).into(),
        "rfc3339" => clock::rfc3339(reset_at() + Duration::from_millis(999)).into(),
        "http_date" => clock::http_date(reset_at() + Duration::from_millis(999)).into(),
        _ => return None,
    };
    Some(computed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_dialect_refuses_with_headers_and_a_json_body() {
        for dialect in DIALECTS {
            let mut answer = Answer::text(StatusCode::OK, "ignored");
            dialect.refuse(&mut answer, &Numbers::default());
            assert_eq!(answer.status.as_u16(), dialect.status, "{}", dialect.name);
            let Content::Whole(body) = &answer.body else { panic!("{}", dialect.name) };
            serde_json::from_slice::<serde_json::Value>(body).unwrap();
            for (name, _) in dialect.always.iter().chain(dialect.refusal) {
                let value = answer.headers[*name].to_str().unwrap();
                assert!(!value.contains('{') && !value.is_empty(), "{}: {name}: {value}", dialect.name);
            }
        }
    }

    #[test]
    fn numbers_may_be_nonsense() {
        let numbers = Numbers {
            limit: Some(Word::Number(-5)),
            remaining: Some(Word::Text("NaN".into())),
            reset: Some(Word::Text("1e400".into())),
            ..Numbers::default()
        };
        let mut answer = Answer::text(StatusCode::OK, "");
        Dialect::named("github").unwrap().refuse(&mut answer, &numbers);
        assert_eq!(answer.headers["x-ratelimit-limit"], "-5");
        assert_eq!(answer.headers["x-ratelimit-remaining"], "NaN");
        assert_eq!(answer.headers["x-ratelimit-reset"], "1e400");
    }
}
