//! Routes of a vendor file: method and path pattern to an answer made from a JSON template.
//!
//! Placeholders in template strings: `{name}` of a path segment, `{seq}` (requests to this vendor so
//! far), `{hex}` (32 hexadecimal digits, one for each `seq`), `{now}` (RFC 3339), `{epoch}` (seconds),
//! `{host}`, `{query.x}`, `{form.x}`, `{json.x}`. A string that is only `{#word}` becomes a number.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

use super::{Ask, form, tag, tagged, tagged_by_body};
use crate::answer::Answer;
use crate::clock;

/// One route.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// `GET /repos/{owner}/{repo}`; a last segment `{rest*}` takes all that is left.
    pub(super) on: String,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// Sent as JSON, or as it stands where it is a string.
    #[serde(default)]
    body: Value,
    /// Answer conditional requests.
    #[serde(default)]
    etag: bool,
    /// The body and its tag, where no request changes them.
    #[serde(skip)]
    fixed: OnceLock<Option<(Bytes, String)>>,
}

fn ok() -> u16 {
    200
}

impl Route {
    pub(super) fn answer(&self, ask: &Ask<'_>, seq: u64) -> Option<Answer> {
        let (method, pattern) = self.on.split_once(' ')?;
        let method_fits =
            method == ask.method.as_str() || method == "GET" && ask.method == "HEAD" || method == "*";
        let names = method_fits.then(|| matched(pattern, ask.path)).flatten()?;
        let status = StatusCode::from_u16(self.status).ok()?;
        let mut answer = match &self.body {
            Value::Null => Answer::new(status, ""),
            Value::String(template) => Answer::text(status, text(template, &names, ask, seq)),
            json => {
                let fill = || Bytes::from(filled(json, &names, ask, seq).to_string());
                let bytes = self.fixed().map_or_else(fill, |(bytes, _)| bytes.clone());
                Answer::new(status, bytes).with(header::CONTENT_TYPE, "application/json; charset=utf-8")
            }
        };
        for (name, template) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let value = HeaderValue::from_str(&text(template, &names, ask, seq)).ok()?;
            answer.headers.insert(name, value);
        }
        Some(match self.fixed() {
            _ if !self.etag => answer,
            Some((_, tag)) => tagged(answer, ask, tag),
            None => tagged_by_body(answer, ask),
        })
    }

    fn fixed(&self) -> Option<&(Bytes, String)> {
        let make = || {
            is_fixed(&self.body).then(|| {
                let bytes = Bytes::from(self.body.to_string());
                let tag = tag(&bytes);
                (bytes, tag)
            })
        };
        self.fixed.get_or_init(make).as_ref()
    }
}

/// JSON without a placeholder.
fn is_fixed(template: &Value) -> bool {
    match template {
        Value::String(text) => !text.contains('{'),
        Value::Array(list) => list.iter().all(is_fixed),
        Value::Object(map) => map.values().all(is_fixed),
        _ => true,
    }
}

/// The segments that the pattern names, where the path fits it.
pub(super) fn matched<'a>(pattern: &'a str, path: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
    let mut names = Vec::new();
    let (mut patterns, mut segments) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), segments.next()) {
            (None, None) => return Some(names),
            (Some(p), Some(segment)) if p.starts_with('{') && p.ends_with("*}") => {
                let start = segment.as_ptr() as usize - path.as_ptr() as usize;
                names.push((&p[1..p.len() - 2], &path[start..]));
                return Some(names);
            }
            (Some(p), Some(segment)) if p.starts_with('{') && p.ends_with('}') => {
                if segment.is_empty() {
                    return None;
                }
                names.push((&p[1..p.len() - 1], segment));
            }
            (Some(p), Some(segment)) if p == segment => {}
            _ => return None,
        }
    }
}

fn filled(template: &Value, names: &[(&str, &str)], ask: &Ask<'_>, seq: u64) -> Value {
    match template {
        Value::String(t) if t.starts_with("{#") => {
            let word = text(&t.replacen("{#", "{", 1), names, ask, seq);
            word.parse::<i64>().map_or(Value::String(word), Value::from)
        }
        Value::String(t) if t.contains('{') => Value::String(text(t, names, ask, seq)),
        Value::Array(list) => Value::Array(list.iter().map(|v| filled(v, names, ask, seq)).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(k, v)| (k.clone(), filled(v, names, ask, seq))).collect())
        }
        other => other.clone(),
    }
}

/// Fills the placeholders; a word that names nothing becomes empty.
pub(super) fn text(template: &str, names: &[(&str, &str)], ask: &Ask<'_>, seq: u64) -> String {
    let mut out = String::with_capacity(template.len() + 16);
    let mut rest = template;
    while let Some((before, (word, after))) =
        rest.split_once('{').and_then(|(b, a)| Some((b, a.split_once('}')?)))
    {
        out.push_str(before);
        out.push_str(&value(word, names, ask, seq));
        rest = after;
    }
    out.push_str(rest);
    out
}

fn value(word: &str, names: &[(&str, &str)], ask: &Ask<'_>, seq: u64) -> String {
    match word {
        "seq" => seq.to_string(),
        "hex" => hex(seq),
        "now" => clock::rfc3339(clock::now()),
        "epoch" => clock::now().as_secs().to_string(),
        "host" => ask.host.to_owned(),
        _ => match word.split_once('.') {
            Some(("query", name)) => ask.query(name).unwrap_or_default().into_owned(),
            Some(("form", name)) => {
                let body = String::from_utf8_lossy(ask.body);
                form(&body).find(|(n, _)| n == name).map(|(_, v)| v.into_owned()).unwrap_or_default()
            }
            Some(("json", name)) => match ask.json().get(name) {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => String::new(),
            },
            _ => names.iter().find(|(n, _)| *n == word).map(|(_, v)| (*v).to_owned()).unwrap_or_default(),
        },
    }
}

/// 32 hexadecimal digits that look random and are the same for the same number.
pub(super) fn hex(seq: u64) -> String {
    // splitmix64, twice.
    let mix = |x: u64| {
        let x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    };
    format!("{:016x}{:016x}", mix(seq), mix(!seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_segments_and_take_the_rest() {
        assert_eq!(matched("/a/{id}/c", "/a/7/c"), Some(vec![("id", "7")]));
        assert_eq!(matched("/a/{id}", "/a/"), None);
        assert_eq!(matched("/a/{id}", "/a/7/c"), None);
        assert_eq!(matched("/x/{rest*}", "/x/1/2"), Some(vec![("rest", "1/2")]));
    }
}
