//! The vendors by host: a table of JSON files, with code only where a vendor remembers or computes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Answer, Content};
use crate::clock;
use crate::script::dialect::{Dialect, Numbers, Word};

mod anthropic;
mod openai;
mod stripe;
mod table;

use table::Route;

/// The vendor files.
const FILES: &[&str] = &[
    include_str!("data/anthropic.json"),
    include_str!("data/brevo.json"),
    include_str!("data/discord.json"),
    include_str!("data/gemini.json"),
    include_str!("data/github.json"),
    include_str!("data/hubspot.json"),
    include_str!("data/launchdarkly.json"),
    include_str!("data/linear.json"),
    include_str!("data/notion.json"),
    include_str!("data/openai.json"),
    include_str!("data/salesforce.json"),
    include_str!("data/shopify.json"),
    include_str!("data/slack.json"),
    include_str!("data/stripe.json"),
    include_str!("data/twilio.json"),
    include_str!("data/zendesk.json"),
];

/// A request as a vendor sees it.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) host: &'a str,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a Bytes,
}

impl Ask<'_> {
    /// A query parameter, decoded.
    pub(crate) fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        form(self.query).find(|(n, _)| n == name).map(|(_, v)| v)
    }

    pub(crate) fn number(&self, name: &str, default: u64) -> u64 {
        self.query(name).and_then(|v| v.parse().ok()).unwrap_or(default)
    }

    pub(crate) fn count(&self, name: &str, default: usize) -> usize {
        self.query(name).and_then(|v| v.parse().ok()).unwrap_or(default)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The JSON body; `null` where there is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(self.body).unwrap_or(Value::Null)
    }
}

/// One vendor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vendor {
    name: String,
    hosts: Vec<String>,
    /// Offers HTTP/2 by ALPN.
    #[serde(default = "yes")]
    http2: bool,
    /// What every answer says about limits.
    #[serde(default)]
    limits: Option<Limits>,
    /// Sent with every answer; may hold placeholders.
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// The body of a 404.
    #[serde(default)]
    not_found: Value,
    #[serde(default)]
    routes: Vec<Route>,
    /// Code that is asked before the routes.
    #[serde(default)]
    plays: Plays,
    #[serde(skip)]
    asked: AtomicU64,
    #[serde(skip)]
    stripe: stripe::Store,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    dialect: String,
    limit: i64,
    window_s: u64,
    /// The window that is being counted in, and the answers of it so far.
    #[serde(skip)]
    used: Mutex<(u128, u64)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Plays {
    #[default]
    Nothing,
    OpenAi,
    Anthropic,
    Stripe,
}

fn yes() -> bool {
    true
}

/// All vendors.
#[derive(Debug)]
pub(crate) struct Vendors {
    vendors: Vec<Vendor>,
    exact: HashMap<String, usize>,
    below: Vec<(String, usize)>,
    http1_only: Vec<String>,
}

impl Vendors {
    /// Reads the built-in files. `http1_only` names more hosts (or `*.suffix`) without HTTP/2.
    ///
    /// # Errors
    /// A file does not follow the format: only possible in a build whose tests fail.
    pub(crate) fn load(http1_only: Vec<String>) -> Result<Self, serde_json::Error> {
        let vendors: Vec<Vendor> = FILES.iter().map(|f| serde_json::from_str(f)).collect::<Result<_, _>>()?;
        let (mut exact, mut below) = (HashMap::new(), Vec::new());
        for (i, vendor) in vendors.iter().enumerate() {
            for host in &vendor.hosts {
                match host.strip_prefix('*') {
                    Some(suffix) => below.push((suffix.to_owned(), i)),
                    None => {
                        exact.insert(host.clone(), i);
                    }
                }
            }
        }
        Ok(Self { vendors, exact, below, http1_only })
    }

    fn by_host(&self, host: &str) -> Option<&Vendor> {
        let below = || self.below.iter().find(|(s, _)| host.len() > s.len() && host.ends_with(s.as_str()));
        self.exact.get(host).or_else(|| below().map(|(_, i)| i)).map(|i| &self.vendors[*i])
    }

    /// Whether HTTP/2 is offered to this name.
    pub(crate) fn offers_http2(&self, host: &str) -> bool {
        !self.http1_only.iter().any(|p| crate::script::host_matches(p, host))
            && self.by_host(host).is_none_or(|v| v.http2)
    }

    /// The vendor's answer; hosts that nobody plays echo the request.
    pub(crate) fn answer(&self, ask: &Ask<'_>) -> Answer {
        match self.by_host(ask.host) {
            Some(vendor) => vendor.answer(ask),
            None => echo(ask),
        }
    }

    /// Name, hosts and protocol of each, for `/_sim/vendors`.
    pub(crate) fn list(&self) -> Value {
        let list = self.vendors.iter().map(|v| {
            let routes: Vec<_> = v.routes.iter().map(|r| r.on.as_str()).collect();
            json!({"name": v.name, "hosts": v.hosts, "http2": v.http2, "routes": routes})
        });
        Value::Array(list.collect())
    }
}

impl Vendor {
    fn answer(&self, ask: &Ask<'_>) -> Answer {
        let seq = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let played = match self.plays {
            Plays::Nothing => None,
            Plays::OpenAi => openai::answer(ask, seq),
            Plays::Anthropic => anthropic::answer(ask, seq),
            Plays::Stripe => Some(self.stripe.answer(ask, seq)),
        };
        let routed = || self.routes.iter().find_map(|r| r.answer(ask, seq));
        let mut answer = played.or_else(routed).unwrap_or_else(|| {
            let body =
                if self.not_found.is_null() { json!({"error": "not found"}) } else { self.not_found.clone() };
            Answer::json(StatusCode::NOT_FOUND, &body)
        });
        for (name, template) in &self.headers {
            if let (Ok(name), Ok(value)) = (
                http::HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_str(&table::text(template, &[], ask, seq)),
            ) {
                answer.headers.entry(name).or_insert(value);
            }
        }
        if let Some(limits) = &self.limits {
            limits.annotate(&mut answer);
        }
        answer
    }
}

impl Limits {
    /// Counts down in each window; a 200 never says that nothing is left, or clients would wait.
    fn annotate(&self, answer: &mut Answer) {
        let Some(dialect) = Dialect::named(&self.dialect) else { return };
        let window_ms = u128::from(self.window_s).max(1) * 1_000;
        let now = clock::now().as_millis();
        let (window, into_window) = (now / window_ms, now % window_ms);
        let asked = {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            *used = if used.0 == window { (window, used.1 + 1) } else { (window, 1) };
            used.1
        };
        let used = (asked % (self.limit.unsigned_abs().max(2) - 1)).cast_signed();
        let numbers = Numbers {
            limit: Some(Word::Number(self.limit)),
            remaining: Some(Word::Number(self.limit - used)),
            reset: None,
            reset_after_ms: u64::try_from(window_ms - into_window).ok(),
            window_s: Some(self.window_s),
        };
        dialect.annotate(answer, &numbers);
    }
}

/// A strong entity tag over a body.
fn tag(body: &[u8]) -> String {
    format!("\"{}\"", &digest(body)[..32])
}

/// Adds an `ETag` made from the body, and answers 304 to a client that has it.
pub(crate) fn tagged_by_body(answer: Answer, ask: &Ask<'_>) -> Answer {
    match &answer.body {
        Content::Whole(body) => {
            let tag = tag(body);
            tagged(answer, ask, &tag)
        }
        _ => answer,
    }
}

/// Adds an `ETag`, and answers 304 to a client that has it (RFC 9110 section 13.1.2).
fn tagged(mut answer: Answer, ask: &Ask<'_>, tag: &str) -> Answer {
    answer.set("etag", tag);
    let known = ask.header("if-none-match").is_some_and(|known| {
        known.split(',').map(|t| t.trim().trim_start_matches("W/")).any(|t| t == "*" || t == tag)
    });
    if known && matches!(*ask.method, Method::GET | Method::HEAD) {
        answer.status = StatusCode::NOT_MODIFIED;
        answer.headers.remove(header::CONTENT_TYPE);
        answer.body = Content::Whole(Bytes::new());
    }
    answer
}

fn echo(ask: &Ask<'_>) -> Answer {
    let headers: Vec<_> =
        ask.headers.iter().map(|(n, v)| json!([n.as_str(), String::from_utf8_lossy(v.as_bytes())])).collect();
    let value = json!({
        "host": ask.host,
        "method": ask.method.as_str(),
        "path": ask.path,
        "query": ask.query,
        "headers": headers,
        "body_length": ask.body.len(),
        "body_sha256": digest(ask.body),
    });
    Answer::json(StatusCode::OK, &value)
}

/// SHA-256 in hexadecimal.
fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// The pairs of a query or form (`application/x-www-form-urlencoded`), decoded.
fn form(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(name), percent_decoded(value))
    })
}

fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let hex = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
    let (bytes, mut out, mut i) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = bytes.get(i) {
        i += 1;
        match byte {
            b'+' => out.push(b' '),
            b'%' => match (hex(bytes.get(i)), hex(bytes.get(i + 1))) {
                (Some(high), Some(low)) => {
                    out.push((high << 4 | low) as u8);
                    i += 2;
                }
                _ => out.push(b'%'),
            },
            other => out.push(other),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_window_is_counted_down_from_its_own_beginning() {
        let limits = json!({"dialect": "github", "limit": 5_000, "window_s": 3_600});
        let limits: Limits = serde_json::from_value(limits).unwrap();
        // What is left of a window that is over.
        *limits.used.lock().unwrap() = (7, 4_000);
        let mut answer = Answer::json(StatusCode::OK, &json!({}));
        limits.annotate(&mut answer);
        assert_eq!(answer.headers["x-ratelimit-remaining"], "4999");
    }

    #[test]
    fn every_vendor_file_is_read_and_names_a_known_dialect() {
        let vendors = Vendors::load(Vec::new()).unwrap();
        for vendor in &vendors.vendors {
            assert!(!vendor.hosts.is_empty(), "{}", vendor.name);
            if let Some(limits) = &vendor.limits {
                assert!(Dialect::named(&limits.dialect).is_some(), "{}: {}", vendor.name, limits.dialect);
            }
        }
    }

    #[test]
    fn forms_decode_as_browsers_write_them() {
        let pairs: Vec<_> = form("a=1&metadata%5Bk%5D=x+y%21&flag&bad=%zz").collect();
        let expected = [("a", "1"), ("metadata[k]", "x y!"), ("flag", ""), ("bad", "%zz")];
        assert_eq!(pairs, expected.map(|(n, v)| (n.into(), v.into())));
    }
}
