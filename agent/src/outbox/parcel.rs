use super::OutboxError;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Bodies beyond this are not kept.
pub(super) const MAX_BODY: usize = 16 * 1024 * 1024;
const MAX_HEADERS: usize = 64 * 1024;
const MAX_NAME: usize = 256;
const DAY: Duration = Duration::from_secs(86_400);

/// A call to be delivered: what [`Outbox::put`](super::Outbox::put) takes.
///
/// ```
/// use farcall_agent::outbox::{Parcel, Reference};
/// let parcel = Parcel::new("POST", "https://api.stripe.com/v1/refunds")
///     .header("content-type", "application/x-www-form-urlencoded")
///     .secret("authorization", Reference::env("STRIPE_KEY").prefix("Bearer "))
///     .body("charge=ch_1")
///     .order_key("acme");
/// ```
#[derive(Clone)]
pub struct Parcel {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) headers: Vec<(String, Value)>,
    pub(super) body: Vec<u8>,
    pub(super) customer: Option<String>,
    pub(super) order_key: Option<String>,
    pub(super) idempotency_key: Option<String>,
    pub(super) idempotency_header: Option<String>,
    pub(super) max_age: Duration,
    pub(super) max_attempts: Option<u32>,
    pub(super) timeout: Duration,
    pub(super) delay: Duration,
}

/// A header's value, as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Value {
    /// Itself; each character is a byte.
    Plain(String),
    /// Where it is found at delivery.
    From(Reference),
}

/// Where a credential is found at delivery, so that one that was replaced meanwhile is not sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    source: Source,
    prefix: String,
    suffix: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Source {
    Env(String),
    File(PathBuf),
}

impl Source {
    fn len(&self) -> usize {
        match self {
            Self::Env(name) => name.len(),
            Self::File(path) => path.as_os_str().len(),
        }
    }
}

impl Reference {
    /// An environment variable of the process that delivers.
    pub fn env(name: impl Into<String>) -> Self {
        Self { source: Source::Env(name.into()), prefix: String::new(), suffix: String::new() }
    }

    /// A file, without the white space at its end; for the process that delivers to read.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { source: Source::File(path.into()), prefix: String::new(), suffix: String::new() }
    }

    /// What stands before it: `Bearer `.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What stands behind it.
    #[must_use]
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.suffix = suffix.into();
        self
    }

    /// The environment variable, if there is one, whose whole value is a part of this one: credentials mostly come
    /// from there. The longest wins.
    pub(super) fn found_in(value: &str) -> Option<Self> {
        const SHORTEST: usize = 12;
        let known = std::env::vars_os().filter_map(|(name, known)| {
            let (name, known) = (name.into_string().ok()?, known.into_string().ok()?);
            (known.len() >= SHORTEST).then(|| value.find(&known).map(|at| (known.len(), at, name)))?
        });
        let (length, at, name) = known.max_by(|a, b| (a.0, &b.2).cmp(&(b.0, &a.2)))?;
        Some(Self::env(name).prefix(&value[..at]).suffix(&value[at + length..]))
    }

    fn resolve(&self) -> Result<String, String> {
        let found = match &self.source {
            Source::Env(name) => std::env::var(name)
                .map_err(|_| format!("the environment variable {name} is not set in this process"))?,
            Source::File(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?
                .trim_end()
                .to_owned(),
        };
        if found.is_empty() {
            return Err(match &self.source {
                Source::Env(name) => format!("the environment variable {name} is empty"),
                Source::File(path) => format!("{} is empty", path.display()),
            });
        }
        Ok(format!("{}{found}{}", self.prefix, self.suffix))
    }
}

impl Parcel {
    /// A request to an absolute URL (`http` or `https`).
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            customer: None,
            order_key: None,
            idempotency_key: None,
            idempotency_header: None,
            max_age: 3 * DAY,
            max_attempts: None,
            timeout: Duration::from_secs(30),
            delay: Duration::ZERO,
        }
    }

    /// Adds a header. One that carries a credential which is also the value of an environment variable is kept as
    /// a reference to that; everything else is kept encrypted.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref().iter().map(|byte| char::from(*byte)).collect();
        self.headers.push((name.into(), Value::Plain(value)));
        self
    }

    /// Adds a header whose value is looked up at each delivery.
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>, value: Reference) -> Self {
        self.headers.push((name.into(), Value::From(value)));
        self
    }

    /// Sets the body: up to 16 MiB.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets on whose behalf the call is made.
    #[must_use]
    pub fn customer(mut self, customer: impl Into<String>) -> Self {
        self.customer = Some(customer.into());
        self
    }

    /// Calls of one key are delivered one after the other, in the order in which they were put. Kept as it is: not
    /// a place for secrets.
    #[must_use]
    pub fn order_key(mut self, key: impl Into<String>) -> Self {
        self.order_key = Some(key.into());
        self
    }

    /// The idempotency key. Without one, that of the request's own header is taken, else one is made.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// The header by which the vendor takes the idempotency key. Without it, what the catalogue says.
    #[must_use]
    pub fn idempotency_header(mut self, name: impl Into<String>) -> Self {
        self.idempotency_header = Some(name.into());
        self
    }

    /// How long delivery is tried: 3 days. Then it is a dead letter.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// How often delivery is tried: without a bound, until the maximum age.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// How long one attempt may take, to the response's last byte: 30 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long the first attempt waits.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The call as it is kept, if it can be.
    pub(super) fn checked(mut self) -> Result<(Self, Uri), OutboxError> {
        let wrong = |what: String| Err(OutboxError::Invalid(what));
        if Method::from_bytes(self.method.as_bytes()).is_err() || self.method == "CONNECT" {
            return wrong("its method is none".into());
        }
        let uri = match Uri::try_from(&self.url) {
            Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() => uri,
            _ => {
                return wrong(
                    "its URL is not an absolute one; write it as in https://api.example.com/v1".into(),
                );
            }
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return wrong("its URL holds a password; send it in a header".into());
        }
        if self.body.len() > MAX_BODY {
            return wrong(format!("its body is longer than {} MiB", MAX_BODY >> 20));
        }
        let names = [&self.customer, &self.order_key, &self.idempotency_key, &self.idempotency_header];
        if names.into_iter().flatten().any(|name| name.is_empty() || name.len() > MAX_NAME) {
            return wrong(format!("a name or key of it is empty, or longer than {MAX_NAME} bytes"));
        }
        if let Some(name) = &self.idempotency_header
            && HeaderName::try_from(name).is_err()
        {
            return wrong(format!("`{name}` is not a header's name"));
        }
        if self.idempotency_key.as_ref().is_some_and(|key| HeaderValue::try_from(key).is_err()) {
            return wrong("its idempotency key cannot be sent in a header".into());
        }
        let mut bytes = 0;
        for (name, value) in &mut self.headers {
            if HeaderName::try_from(name.as_str()).is_err() {
                return wrong(format!("`{name}` is not a header's name"));
            }
            name.make_ascii_lowercase();
            let (around, length) = match value {
                Value::Plain(text) => (bytes_of(text), text.len()),
                Value::From(Reference { source, prefix, suffix }) => {
                    if source.len() == 0 {
                        return wrong(format!("where the header `{name}` comes from has no name"));
                    }
                    let around = [prefix.as_bytes(), suffix.as_bytes()].concat();
                    let length = around.len() + source.len();
                    (around, length)
                }
            };
            bytes += name.len() + length;
            if HeaderValue::from_bytes(&around).is_err() {
                return wrong(format!("the value of the header `{name}` cannot be sent"));
            }
            if let Value::Plain(text) = value
                && may_carry_credential(name)
                && let Some(reference) = Reference::found_in(text)
            {
                *value = Value::From(reference);
            }
        }
        if bytes > MAX_HEADERS {
            return wrong(format!("its headers are longer than {} KiB", MAX_HEADERS >> 10));
        }
        // What the client says about its own connection, and to a proxy, which deliveries do not go through.
        let own = [CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE];
        let unnamed = ["keep-alive", "proxy-connection"];
        let is_own = |name: &str| own.iter().any(|own| own.as_str() == name) || unnamed.contains(&name);
        self.headers.retain(|(name, _)| !is_own(name));
        Ok((self, uri))
    }

    /// The value that the request itself has for the first of these headers that it has.
    pub(super) fn value_of(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|wanted| {
            let same = |name: &str| name.eq_ignore_ascii_case(wanted);
            self.headers.iter().find_map(|(name, value)| match value {
                Value::Plain(text) if same(name) => Some(text.as_str()),
                _ => None,
            })
        })
    }
}

/// Shows where it goes, never what it carries.
impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcel").field("method", &self.method).finish_non_exhaustive()
    }
}

/// What of a parcel is sealed.
#[derive(Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) url: String,
    headers: Vec<(String, Value)>,
    pub(super) idempotency_header: Option<String>,
    timeout_ms: u64,
    #[serde(skip)]
    pub(super) body: Vec<u8>,
}

impl Content {
    pub(super) fn of(parcel: Parcel) -> Self {
        Self {
            url: parcel.url,
            headers: parcel.headers,
            idempotency_header: parcel.idempotency_header,
            timeout_ms: u64::try_from(parcel.timeout.as_millis()).unwrap_or(u64::MAX).max(1),
            body: parcel.body,
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// The length of the head, the head as JSON, the body.
    pub(super) fn in_parts<T>(&self, take: impl FnOnce(&[&[u8]]) -> T) -> T {
        // Nothing in it can fail to be JSON: no maps, no floats.
        let head = serde_json::to_vec(self).unwrap_or_default();
        let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
        take(&[&length.to_be_bytes(), &head, &self.body])
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (head, body) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let mut content: Self = serde_json::from_slice(head).ok()?;
        content.body = body.to_vec();
        Some(content)
    }

    /// The headers, with credentials as they are now.
    pub(super) fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let (bytes, secret) = match value {
                Value::Plain(text) => (bytes_of(text), may_carry_credential(name)),
                Value::From(reference) => (reference.resolve()?.into_bytes(), true),
            };
            let wrong = |_| format!("the value of the header `{name}` cannot be sent");
            let header = HeaderName::try_from(name).map_err(|_| format!("`{name}` is no header"))?;
            let mut value = HeaderValue::from_bytes(&bytes).map_err(wrong)?;
            value.set_sensitive(secret);
            // Another version may have kept more than there is room for.
            headers
                .try_append(header, value)
                .map_err(|_| "it has more headers than can be sent".to_owned())?;
        }
        Ok(headers)
    }

    /// Names, and where values come from; for people to read.
    pub(super) fn shown_headers(&self) -> Vec<(String, String)> {
        let shown = |(name, value): &(String, Value)| {
            let value = match value {
                Value::Plain(_) if may_carry_credential(name) => "(encrypted)".to_owned(),
                Value::Plain(text) => text.clone(),
                Value::From(Reference { source: Source::Env(name), .. }) => format!("(from ${name})"),
                Value::From(Reference { source: Source::File(path), .. }) => {
                    format!("(from {})", path.display())
                }
            };
            (name.clone(), value)
        };
        self.headers.iter().map(shown).collect()
    }
}

fn bytes_of(text: &str) -> Vec<u8> {
    text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap_or(0)).collect()
}

fn may_carry_credential(name: &str) -> bool {
    let telling = ["auth", "key", "token", "secret", "cookie", "credential", "password", "signature"];
    !name.contains("idempotency") && telling.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_refused_before_it_is_kept() {
        let good = Parcel::new("POST", "https://api.example.com/v1");
        assert!(good.clone().checked().is_ok());
        for wrong in [
            Parcel::new("A B", "https://a.example/"),
            Parcel::new("GET", "/v1/things"),
            Parcel::new("GET", "ftp://a.example/"),
            Parcel::new("GET", "https://user:pw@a.example/"),
            good.clone().header("a b", "c"),
            good.clone().header("a", "b\r\nc: d"),
            good.clone().idempotency_key("a\nb"),
            good.clone().order_key(""),
            good.clone().secret("a", Reference::env("A").prefix("b\r\nc: ")),
            good.clone().secret("a", Reference::env("A").suffix("b".repeat(MAX_HEADERS))),
            good.clone().secret("a", Reference::env("")),
            (0..30_000).fold(good.clone(), |parcel, number| {
                parcel.secret(format!("h{number}"), Reference::env("A"))
            }),
            good.clone().body(vec![0; MAX_BODY + 1]),
        ] {
            assert!(matches!(wrong.checked(), Err(OutboxError::Invalid(_))));
        }
    }

    #[test]
    fn a_call_is_the_same_after_it_was_kept() {
        let parcel = Parcel::new("POST", "https://a.example/x?y=z")
            .header("X-Bytes", [0x61, 0xff])
            .header("Content-Length", "7")
            .header("Proxy-Authorization", "Basic c2VjcmV0")
            .body(vec![0, 1, 255])
            .timeout(Duration::from_millis(1_500));
        let content = Content::of(parcel.checked().unwrap().0);
        let kept = Content::from_bytes(&content.in_parts(|parts| parts.concat())).unwrap();
        assert_eq!((kept.url.as_str(), kept.body.as_slice()), ("https://a.example/x?y=z", &[0, 1, 255][..]));
        assert_eq!(kept.timeout(), Duration::from_millis(1_500));
        let headers = kept.headers().unwrap();
        assert_eq!(headers.len(), 1, "the client counts for itself, and knows of no proxy");
        assert_eq!(headers["x-bytes"].as_bytes(), [0x61, 0xff]);
    }

    #[test]
    fn more_headers_than_can_be_sent_are_an_error_of_that_call() {
        let headers = (0..40_000).map(|number| (format!("h{number}"), Value::Plain(String::new()))).collect();
        let parcel = Parcel { headers, ..Parcel::new("GET", "https://a.example/") };
        assert!(Content::of(parcel).headers().unwrap_err().contains("more headers than"));
    }

    #[test]
    fn a_credential_is_looked_up_at_delivery() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let parcel = Parcel::new("GET", "https://a.example/")
            .secret("authorization", Reference::file(file.path()).prefix("Bearer "));
        let content = Content::of(parcel.checked().unwrap().0);
        assert!(content.headers().unwrap_err().contains("is empty"));
        for key in ["first", "second"] {
            std::fs::write(file.path(), format!("{key}\n")).unwrap();
            assert_eq!(content.headers().unwrap()["authorization"], format!("Bearer {key}"));
        }
        assert!(!String::from_utf8_lossy(&content.in_parts(|parts| parts.concat())).contains("second"));
    }

    #[test]
    fn a_header_that_repeats_an_environment_variable_becomes_a_reference() {
        // Cargo sets it for every test, long enough to be taken for a credential.
        let (name, value) = ("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"));
        let found = Reference::found_in(&format!("Bearer {value};")).unwrap();
        assert_eq!(found.resolve().unwrap(), format!("Bearer {value};"));
        let Source::Env(found) = &found.source else { panic!("{found:?}") };
        assert_eq!(std::env::var(found).unwrap(), std::env::var(name).unwrap());
        assert_eq!(Reference::found_in("nothing that anybody has in the environment"), None);
    }
}
