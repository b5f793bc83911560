//! What a request asks of the cache, and the key that it is looked up under.
//!
//! Keys are made so that a mistake costs a miss and never a leak: every header of a request tells calls apart, but
//! for those that are known to say nothing about who asks for what. A credential is kept apart by that, whatever the
//! header it travels in.

use super::control::Control;
use super::key::{Key, Keyed};
use super::{Query, Rule, json};
use crate::call::{Head, HeaderNames, Target};
use std::sync::LazyLock;

/// Headers that, but for [`COUNTED`], do not tell calls apart by themselves: what an answer looks like may depend on
/// them, and then the answer says so (`Vary`), or they are about the exchange, its tracing or the cache itself.
const PASSED: [&str; 69] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "b3",
    "baggage",
    "cache-control",
    "cdn-loop",
    "client-request-id",
    "connection",
    "content-length",
    "correlation-id",
    "date",
    "dnt",
    "elastic-apm-traceparent",
    "expect",
    "forwarded",
    "from",
    "grpc-timeout",
    "host",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "max-forwards",
    "newrelic",
    "origin",
    "pragma",
    "priority",
    "range",
    "referer",
    "request-id",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sentry-trace",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "uber-trace-id",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "x-amzn-trace-id",
    "x-b3-flags",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-client-request-id",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-datadog-origin",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-tags",
    "x-datadog-trace-id",
    "x-forwarded-for",
    "x-ms-client-request-id",
    "x-request-id",
    "x-stainless-retry-count",
    "x-stainless-timeout",
    "x-trace-id",
];

/// Of [`PASSED`], those that say on whose behalf or from where somebody asks. They tell calls apart as a header does
/// that nobody knows; here they are known because answers vary by them.
const COUNTED: [&str; 5] = ["forwarded", "from", "origin", "referer", "x-forwarded-for"];

/// Headers by which some frameworks take another method than the request's own.
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];
const OVERRIDDEN: &str = "method-override";

/// Requests with more headers, or with so large ones, are not looked up.
const MAX_PASSED: usize = 32;
const MAX_VALUES: usize = 16 * 1024;

static NAMES: LazyLock<HeaderNames> = LazyLock::new(|| HeaderNames::new(PASSED));

/// Whether a header of a request tells calls apart by itself, where no rule says otherwise.
pub(crate) fn tells_apart(name: &[u8]) -> bool {
    NAMES.place(name).is_none_or(|place| COUNTED.contains(&PASSED[place]))
}

/// A request, as the cache sees it. Keeps its memory for the next one.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    pub(super) key: Key,
    /// What stands for the URI alone, whoever asks for it: for invalidation.
    uri: Keyed,
    /// The call's.
    number: u64,
    pub(super) control: Control,
    pub(super) authorized: bool,
    /// Why it is not looked up.
    pub(super) bypass: Option<&'static str>,
    /// The headers of [`PASSED`] that it has: their places there, and where their values end in `values`.
    passed: Vec<(u16, u32)>,
    values: Vec<u8>,
}

impl Ask {
    /// Reads a request, which has a credential where it is `authorized`. `secret` is the process's own, or that of all
    /// who share a store.
    pub(crate) fn read(
        &mut self,
        rule: &Rule,
        name: &str,
        head: &Head<'_>,
        authorized: bool,
        secret: &[u8; 16],
    ) {
        self.passed.clear();
        self.values.clear();
        self.control = Control::default();
        self.bypass = None;
        self.authorized = authorized;
        let mut key = Origin::of(&head.target, secret).at(head.target.path);
        self.uri = key.clone();
        key.part(name.as_bytes());
        key.part(head.method.as_bytes());
        // Processes that share a store may have different rules of one name. Where credentials are not shared, the
        // header of one is among those below.
        let shares = u64::from(rule.share_customers) | u64::from(rule.share_credentials) << 1;
        let customer = head.customer.filter(|_| !rule.share_customers);
        let client = Some(head.client_key).filter(|key| !key.is_empty() && !rule.share_credentials);
        let given = u64::from(customer.is_some()) << 2 | u64::from(client.is_some()) << 3;
        key.number(u64::from(head.client) << 4 | given | shares);
        write_query(&mut key, &rule.query, head.target.query);
        if let Some(customer) = customer {
            key.part(customer.as_bytes());
        }
        if let Some(client) = client {
            key.part(client);
        }
        let (mut others, mut pragma) = (Lines::new(&key), false);
        let shown = head.headers.each(&mut |header, value| {
            let Some(place) = NAMES.place(header) else {
                let named = || rule.headers.iter().any(|known| same(known.as_bytes(), header));
                if !rule.share_credentials || named() {
                    match header.iter().any(u8::is_ascii_uppercase) {
                        false => others.add(header, value),
                        true => others.add(&header.to_ascii_lowercase(), value),
                    }
                }
                self.authorized |= header.eq_ignore_ascii_case(b"authorization");
                if OVERRIDES.iter().any(|known| same(known.as_bytes(), header)) {
                    self.bypass = Some(OVERRIDDEN);
                }
                return;
            };
            match PASSED[place] {
                "cache-control" => self.control.add(value),
                "pragma" => pragma |= value.eq_ignore_ascii_case(b"no-cache"),
                "range" => self.bypass = Some("range"),
                "if-match" | "if-none-match" | "if-modified-since" | "if-unmodified-since" | "if-range" => {
                    // Whoever asks so keeps answers himself.
                    self.bypass = Some("conditional");
                }
                // A client that connects to an address and asks for a host there (RFC 9110, section 7.2).
                passed => {
                    let elsewhere = passed == "host" && !names(value.trim_ascii(), head.target.host);
                    let counts = !rule.share_credentials && COUNTED.contains(&passed);
                    if elsewhere || counts || rule.headers.iter().any(|known| known == passed) {
                        others.add(passed.as_bytes(), value.trim_ascii());
                    }
                }
            }
            if self.passed.len() >= MAX_PASSED || self.values.len() + value.len() > MAX_VALUES {
                self.bypass = Some("headers");
                return;
            }
            self.values.extend_from_slice(value.trim_ascii());
            let end = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
            self.passed.push((u16::try_from(place).unwrap_or(u16::MAX), end));
        });
        // Only a request without `Cache-Control` means it so (RFC 9111, section 5.4).
        self.control.no_cache |= pragma && self.control == Control::default();
        let mut key = others.end();
        write_content(&mut key, &rule.json, head.content);
        if head.body != Some(head.content.len() as u64) {
            // There is a body that is not known, or not as a whole.
            self.bypass = Some("body");
        }
        if !shown || head.target.host.is_empty() {
            self.bypass = Some("unseen");
        }
        if self.control.no_store {
            self.bypass = Some("no-store");
        }
        self.key = key.key();
    }

    /// The key of an answer that varies by these headers (RFC 9111, section 4.1). Those that are not of
    /// [`PASSED`] tell calls apart in any case, and so need not be looked at; where credentials are shared only those
    /// do that the rule names, and of others `None` is said.
    pub(super) fn varied(&self, vary: &[Box<str>], rule: &Rule, secret: &[u8; 16]) -> Option<Key> {
        let mut key = Keyed::new(secret);
        for name in vary {
            key.part(name.as_bytes());
            let Some(place) = NAMES.place(name.as_bytes()) else {
                let named = || rule.headers.iter().any(|known| same(known.as_bytes(), name.as_bytes()));
                if rule.share_credentials && !named() {
                    return None;
                }
                continue;
            };
            // Lines of one field are one value, in their order (RFC 9110, section 5.3).
            let mut start = 0;
            for (passed, end) in &self.passed {
                if usize::from(*passed) == place {
                    key.part(&self.values[start..*end as usize]);
                }
                start = *end as usize;
            }
        }
        // The sum of two keyed hashes is one of both.
        Some(Key(self.key.0.wrapping_add(key.key().0)))
    }

    /// Keeps the call apart from those that take another variant of a rollout, and names it.
    pub(crate) fn apart(&mut self, variant: Option<usize>, number: u64) {
        self.number = number;
        if let Some(variant) = variant {
            self.key = Key(self.key.0.wrapping_add(variant as u128 + 1));
        }
    }

    /// Stands for the URI that it is about.
    pub(super) fn uri(&self) -> u64 {
        self.uri.key().low()
    }

    /// The call's number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Why it is not looked up; `None` where it is.
    pub(crate) fn bypass(&self) -> Option<&'static str> {
        self.bypass
    }

    /// Whether it may change something, whatever its method says.
    pub(crate) fn is_overridden(&self) -> bool {
        self.bypass == Some(OVERRIDDEN)
    }

    /// Whether the vendor is not to be asked (RFC 9111, section 5.2.1.7).
    pub(crate) fn only_if_cached(&self) -> bool {
        self.control.only_if_cached
    }

    /// Whether it wants an answer of its own, and not that of an equal call that was made a little earlier.
    pub(crate) fn insists(&self) -> bool {
        self.control.no_cache || self.control.max_age.is_some_and(|age| age.is_zero())
    }

    /// Lets go of what may be a secret.
    pub(crate) fn forget(&mut self) {
        self.values.clear();
        self.passed.clear();
    }
}

/// A key to which header lines are added that tell calls apart, in whatever order they come.
///
/// The sum of their keyed hashes; the usual one line is hashed with what came before it.
struct Lines<'k> {
    before: &'k Keyed,
    first: Option<Keyed>,
    /// Of all lines, where there are more.
    sum: u128,
    lines: u64,
}

impl<'k> Lines<'k> {
    fn new(before: &'k Keyed) -> Self {
        Self { before, first: None, sum: 0, lines: 0 }
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        let mut line = self.before.clone();
        line.part(name);
        line.part(value);
        self.lines += 1;
        if self.lines == 1 {
            self.first = Some(line);
            return;
        }
        let first = self.first.take().map_or(0, |first| first.key().0);
        self.sum = self.sum.wrapping_add(first).wrapping_add(line.key().0);
    }

    /// The key with all of them.
    fn end(self) -> Keyed {
        let mut key = match self.first {
            Some(key) => key,
            None => {
                let mut key = self.before.clone();
                key.number(Key(self.sum).low());
                key.number(Key(self.sum >> 64).low());
                key
            }
        };
        key.number(self.lines);
        key
    }
}

/// Stands for an origin, and for a URI there without its query: what an unsafe method invalidates is all that is kept
/// of that path.
pub(super) fn uri_of(head: &Head<'_>, secret: &[u8; 16]) -> (Origin, u64) {
    let origin = Origin::of(&head.target, secret);
    let uri = origin.uri(head.target.path);
    (origin, uri)
}

/// Stands for scheme, host and port.
#[derive(Clone, Debug)]
pub(crate) struct Origin(Keyed);

impl Origin {
    pub(super) fn of(target: &Target<'_>, secret: &[u8; 16]) -> Self {
        let mut key = Keyed::new(secret);
        match target.mixed_case {
            false => key.part(target.host.as_bytes()),
            true => key.part(target.host.to_ascii_lowercase().as_bytes()),
        }
        key.number(u64::from(target.port) << 1 | u64::from(target.tls));
        Self(key)
    }

    /// Stands for a URI there.
    pub(super) fn uri(&self, path: &str) -> u64 {
        self.clone().at(path).key().low()
    }

    /// What stands for a URI there, to which more is to come.
    fn at(self, path: &str) -> Keyed {
        let mut key = self.0;
        key.part(path.as_bytes());
        key
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

fn write_content(key: &mut Keyed, fields: &[String], content: &[u8]) {
    if !fields.is_empty() && !content.is_empty() {
        let mut chosen = key.clone();
        chosen.number(1);
        if json::write(&mut chosen, content, fields) {
            *key = chosen;
            return;
        }
        key.number(0);
    }
    key.part(content);
}

fn write_query(key: &mut Keyed, rule: &Query, query: &str) {
    let (Query::Only(names) | Query::Without(names)) = rule else { return key.part(query.as_bytes()) };
    if has_broken_escape(query.as_bytes()) {
        // What its parameters are called is anybody's guess: it counts as a whole, and like none that can be read.
        key.number(u64::MAX);
        return key.part(query.as_bytes());
    }
    match rule {
        Query::Only(_) => {
            for name in names {
                key.part(name.as_bytes());
                for pair in query.split('&').filter(|pair| is_named(pair, name)) {
                    key.part(pair.as_bytes());
                }
            }
        }
        _ => {
            for pair in query.split('&').filter(|pair| !names.iter().any(|name| is_named(pair, name))) {
                key.part(pair.as_bytes());
            }
        }
    }
}

/// Whether a parameter is the one that a rule names, however either spells it: `filter[region]` is sent as
/// `filter%5Bregion%5D`.
fn is_named(pair: &str, known: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default();
    name == known || decoded(name).eq(known.bytes()) || decoded(name).eq(decoded(known))
}

/// A name of a query as it is meant (`application/x-www-form-urlencoded`).
fn decoded(name: &str) -> impl Iterator<Item = u8> {
    let mut rest = name.as_bytes();
    std::iter::from_fn(move || {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', &rest[1..]),
            },
            [b'+', after @ ..] => (b' ', after),
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        rest = after;
        Some(byte)
    })
}

fn has_broken_escape(query: &[u8]) -> bool {
    let whole = |rest: &[u8]| matches!(rest, [high, low, ..] if hex(*high).and(hex(*low)).is_some());
    query.iter().enumerate().any(|(at, byte)| *byte == b'%' && !whole(&query[at + 1..]))
}

fn hex(digit: u8) -> Option<u8> {
    #[expect(clippy::cast_possible_truncation, reason = "at most 15")]
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// Whether `authority`, with or without a port, is that of this host.
fn names(authority: &[u8], host: &str) -> bool {
    let digits = authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let name = match authority.split_at(authority.len() - digits).0 {
        [name @ .., b':'] if !name.ends_with(b":") => name,
        _ => authority,
    };
    let name = name.strip_prefix(b"[").and_then(|name| name.strip_suffix(b"]")).unwrap_or(name);
    same(name.strip_suffix(b".").unwrap_or(name), host.as_bytes())
}

fn same(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
}

#[cfg(test)]
mod tests {
    use super::NAMES;

    #[test]
    fn every_header_that_a_credential_travels_in_tells_calls_apart() {
        for name in crate::inspect::FIELDS {
            assert!(NAMES.place(name.as_bytes()).is_none(), "{name}");
        }
    }
}
