//! What a rule does to the answer that the vendor would have given.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ScriptError;
use super::dialect::{DIALECTS, Dialect, Numbers};
use super::wrong;
use crate::answer::{Answer, Content, Ending};

/// The longest header value that a rule may ask for.
const MAX_HEADER: usize = 16 << 20;

/// One effect; its parts combine and are applied in the order of [`Effect::apply`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Effect {
    #[serde(skip_serializing_if = "is_default")]
    latency_ms: u64,
    #[serde(skip_serializing_if = "is_default")]
    hang: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// `null` removes the header.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Option<HeaderText>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dialect: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    numbers: Numbers,
    #[serde(skip_serializing_if = "Option::is_none")]
    drip: Option<Drip>,
    #[serde(skip_serializing_if = "is_default")]
    chunked: bool,
    #[serde(skip_serializing_if = "is_default")]
    gzip: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<Cut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<Cut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stall: Option<Cut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_hex: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drip {
    /// 0 keeps the pieces that the answer has (the events of a stream).
    #[serde(default)]
    chunk_bytes: usize,
    every_ms: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Cut {
    #[serde(skip_serializing_if = "Option::is_none")]
    after_bytes: Option<u64>,
}

/// A header value, also one that JSON text cannot hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum HeaderText {
    Text(String),
    Hex { hex: String },
    Repeat { repeat: String, times: usize },
    Many(Vec<HeaderText>),
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Effect {
    /// The effect of a `wrong` alone.
    pub(crate) fn wrong(name: &str) -> Result<Self, ScriptError> {
        let effect = Self { wrong: Some(name.to_owned()), ..Self::default() };
        effect.check().map(|()| effect)
    }

    /// Finds what cannot work before a request meets it.
    pub(super) fn check(&self) -> Result<(), ScriptError> {
        if self.status.is_some_and(|s| !(200..=999).contains(&s)) {
            return Err(ScriptError::new("`status` must lie in 200..=999"));
        }
        if let Some(name) = &self.dialect
            && Dialect::named(name).is_none()
        {
            let known: Vec<_> = DIALECTS.iter().map(|d| d.name).collect();
            return Err(ScriptError::new(format!("no dialect `{name}`; there are {}", known.join(", "))));
        }
        if let Some(name) = &self.wrong
            && !wrong::known(name)
        {
            return Err(ScriptError::new(format!("no `wrong` named `{name}`; there are {}", wrong::names())));
        }
        for (name, text) in &self.headers {
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| ScriptError::new(format!("`{name}` is not a header name")))?;
            if let Some(text) = text {
                text.values().map_err(|e| ScriptError::new(format!("header `{name}`: {e}")))?;
            }
        }
        let endings = [self.reset, self.truncate, self.stall].iter().flatten().count();
        if endings > 1 {
            return Err(ScriptError::new("an answer ends once: choose one of reset, truncate, stall"));
        }
        self.body_bytes()?;
        self.raw_bytes().map(|_| ())
    }

    /// Time to wait before the answer.
    pub(crate) fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms)
    }

    /// Never answer.
    pub(crate) fn hangs(&self) -> bool {
        self.hang
    }

    /// The effect needs no answer of the vendor: it has its own.
    pub(crate) fn replaces(&self) -> bool {
        self.dialect.is_some() && self.status != Some(200)
            || self.status.is_some() && self.has_body()
            || self.raw.is_some()
            || self.raw_hex.is_some()
    }

    /// Changes the vendor's answer. `http1` says whether bytes can be written by hand.
    pub(crate) fn apply(&self, mut answer: Answer, http1: bool) -> Answer {
        self.apply_words(&mut answer);
        if let Some(name) = &self.wrong {
            wrong::apply(name, &mut answer, &self.numbers);
        }
        self.apply_shape(&mut answer);
        self.apply_headers(&mut answer);
        if let Ok(Some(raw)) = self.raw_bytes() {
            answer.raw = Some(raw);
        }
        if !http1 {
            return answer;
        }
        // hyper would correct or refuse these.
        if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION]
            .iter()
            .any(|h| answer.headers.contains_key(h))
        {
            answer.verbatim = true;
        }
        answer
    }

    /// Status, body and rate-limit words.
    fn apply_words(&self, answer: &mut Answer) {
        if let Some(dialect) = self.dialect.as_deref().and_then(Dialect::named) {
            match self.status {
                Some(200) => dialect.annotate(answer, &self.numbers),
                _ => dialect.refuse(answer, &self.numbers),
            }
        }
        if let Some(status) = self.status.and_then(|s| StatusCode::from_u16(s).ok()) {
            let was_success = answer.status.is_success();
            answer.status = status;
            // A vendor's failure does not carry its answer to a success.
            if !self.has_body() && self.dialect.is_none() && was_success && !status.is_success() {
                let value =
                    serde_json::json!({"error": {"message": "scripted failure", "code": status.as_u16()}});
                *answer = Answer::json(status, &value);
            }
        }
        if let Ok(Some((content_type, bytes))) = self.body_bytes() {
            answer.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            answer.body = Content::Whole(bytes);
            answer.sized = true;
        }
    }

    /// Encoding, pace and ending.
    fn apply_shape(&self, answer: &mut Answer) {
        if self.gzip {
            gzip(answer);
        }
        if let Some(drip) = self.drip {
            pace(answer, drip);
        }
        if self.chunked {
            answer.sized = false;
        }
        let half = || answer.body.len().map_or(1_024, |n| n / 2);
        answer.ending = match (self.reset, self.truncate, self.stall) {
            (Some(cut), ..) => cut.after_bytes.map_or(Ending::ResetBeforeHead, Ending::Reset),
            (_, Some(cut), _) => Ending::Close(cut.after_bytes.unwrap_or_else(half)),
            (.., Some(cut)) => Ending::Stall(cut.after_bytes.unwrap_or_else(half)),
            _ => answer.ending,
        };
    }

    fn apply_headers(&self, answer: &mut Answer) {
        for (name, text) in &self.headers {
            let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
            answer.headers.remove(&name);
            let values = text.as_ref().and_then(|t| t.values().ok()).unwrap_or_default();
            for value in values {
                answer.headers.append(name.clone(), value);
            }
        }
    }

    fn has_body(&self) -> bool {
        self.body.is_some() || self.body_hex.is_some()
    }

    /// The body that replaces the vendor's, and its type.
    fn body_bytes(&self) -> Result<Option<(&'static str, Bytes)>, ScriptError> {
        Ok(match (&self.body, &self.body_hex) {
            (Some(_), Some(_)) => return Err(ScriptError::new("choose one of `body` and `body_hex`")),
            (Some(Value::String(text)), None) => Some(("text/plain; charset=utf-8", text.clone().into())),
            (Some(json), None) => Some(("application/json", json.to_string().into())),
            (None, Some(hex)) => Some(("application/octet-stream", unhex(hex)?.into())),
            (None, None) => None,
        })
    }

    fn raw_bytes(&self) -> Result<Option<Bytes>, ScriptError> {
        match (&self.raw, &self.raw_hex) {
            (Some(_), Some(_)) => Err(ScriptError::new("choose one of `raw` and `raw_hex`")),
            (Some(text), None) => Ok(Some(Bytes::from(text.clone()))),
            (None, Some(hex)) => Ok(Some(unhex(hex)?.into())),
            (None, None) => Ok(None),
        }
    }
}

impl HeaderText {
    fn values(&self) -> Result<Vec<HeaderValue>, ScriptError> {
        let bytes = match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Hex { hex } => unhex(hex)?,
            Self::Repeat { repeat, times } if repeat.len().saturating_mul(*times) <= MAX_HEADER => {
                repeat.repeat(*times).into_bytes()
            }
            Self::Repeat { .. } => return Err(ScriptError::new("longer than 16 MiB")),
            Self::Many(many) => {
                let values: Result<Vec<_>, _> = many.iter().map(Self::values).collect();
                return values.map(|v| v.into_iter().flatten().collect());
            }
        };
        let value = HeaderValue::from_maybe_shared(Bytes::from(bytes));
        value.map(|v| vec![v]).map_err(|_| ScriptError::new("control characters cannot be sent; use `raw`"))
    }
}

fn unhex(text: &str) -> Result<Vec<u8>, ScriptError> {
    let digits: Option<Vec<u8>> = text
        .bytes()
        .filter(|b| !b.is_ascii_whitespace())
        .map(|b| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => Ok(digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()),
        _ => Err(ScriptError::new("hexadecimal text has an even number of digits 0-9, a-f")),
    }
}

/// Compresses the body (RFC 1952); the pieces of a stream stay apart, each flushed.
pub(crate) fn gzip(answer: &mut Answer) {
    let every = answer.body.every();
    let pieces: Vec<Bytes> = match &answer.body {
        // An endless body cannot be compressed ahead of time.
        Content::Repeat { total: None, .. } => return,
        body => body.clone().into_pieces().collect(),
    };
    let one = pieces.len() <= 1;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut out = Vec::with_capacity(pieces.len() + 1);
    for piece in pieces {
        // Writing to a Vec cannot fail.
        let _ = encoder.write_all(&piece);
        if !one {
            let _ = encoder.flush();
            out.push(Bytes::from(std::mem::take(encoder.get_mut())));
        }
    }
    out.push(encoder.finish().unwrap_or_default().into());
    answer.body = match out.len() {
        1 => Content::Whole(out.remove(0)),
        _ => Content::Pieces { pieces: out, every },
    };
    answer.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
}

fn pace(answer: &mut Answer, drip: Drip) {
    let every = Duration::from_millis(drip.every_ms);
    let body = std::mem::replace(&mut answer.body, Content::Whole(Bytes::new()));
    answer.body = match body {
        Content::Repeat { piece, total, .. } => {
            let piece =
                if drip.chunk_bytes == 0 { piece } else { piece.slice(..piece.len().min(drip.chunk_bytes)) };
            Content::Repeat { piece, total, every }
        }
        body if drip.chunk_bytes == 0 => Content::Pieces { pieces: body.into_pieces().collect(), every },
        body => {
            let whole: Vec<u8> = body.into_pieces().flatten().collect();
            let whole = Bytes::from(whole);
            let starts = (0..whole.len()).step_by(drip.chunk_bytes);
            let end = |start: usize| whole.len().min(start.saturating_add(drip.chunk_bytes));
            Content::Pieces { pieces: starts.map(|s| whole.slice(s..end(s))).collect(), every }
        }
    };
}
