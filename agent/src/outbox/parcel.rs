use super::OutboxError;
use super::content::{Value, bytes_of, credential_of, may_carry_credential};
use super::credential;
use super::reference::{Reference, Source};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Uri};
use std::fmt;
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

    /// How long delivery is tried: 3 days; a millisecond at least. Then it is a dead letter.
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
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return wrong("its URL holds a password; send it in a header".into());
        }
        let own = Place::of(authority, &uri);
        if own.is_none_or(|place| place.port == 0) {
            return wrong(format!("`{authority}` has no port of a network: they go from 1 to 65535"));
        }
        let named = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        if let Some((_, value)) = named
            && !matches!(value, Value::Plain(text) if Place::of(text, &uri) == own)
        {
            return wrong(format!(
                "its header `Host` names another host than its URL, and delivery goes to `{authority}`"
            ));
        }
        if self.max_age < Duration::from_millis(1) {
            return wrong("its maximum age is over at once; a millisecond is the least".into());
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
        for (_, value) in &self.headers {
            if let Value::From(Reference { source: Source::Callback(name), .. }) = value {
                credential::checked(name.clone())?;
                let first = credential_of(&self.headers).unwrap_or_default();
                if first != name {
                    return wrong(format!(
                        "its headers take what two callbacks have (`{first}` and `{name}`); one can be asked for a call"
                    ));
                }
            }
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

    /// The name of the callback that has its credential, where one has.
    pub(super) fn credential(&self) -> Option<&str> {
        credential_of(&self.headers)
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

/// A host and its port, as an authority or a `Host` header names it.
#[derive(Clone, Copy)]
struct Place<'a> {
    host: &'a str,
    port: u16,
}

impl<'a> Place<'a> {
    /// `None` where what stands for a port is none. Without one, it is that of the URL's scheme.
    fn of(authority: &'a str, uri: &Uri) -> Option<Self> {
        let behind = authority.rfind(']').map_or(0, |end| end + 1);
        let colon = authority[behind..].find(':').map(|at| behind + at);
        let (host, port) = colon.map_or((authority, ""), |at| (&authority[..at], &authority[at + 1..]));
        let port = match port {
            "" if uri.scheme_str() == Some("https") => 443,
            "" => 80,
            digits => digits.parse().ok()?,
        };
        Some(Self { host, port })
    }
}

/// Names of hosts are the same in any case (RFC 9110, section 4.2.3).
impl PartialEq for Place<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port && self.host.eq_ignore_ascii_case(other.host)
    }
}

/// Shows where it goes, never what it carries.
impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcel").field("method", &self.method).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_refused_before_it_is_kept() {
        let good = Parcel::new("POST", "https://api.example.com/v1");
        assert!(good.clone().checked().is_ok());
        let same = |parcel: Parcel| parcel.secret("a", Reference::callback("b"));
        assert_eq!(same(same(good.clone())).checked().unwrap().0.credential(), Some("b"));
        for wrong in [
            Parcel::new("A B", "https://a.example/"),
            Parcel::new("GET", "/v1/things"),
            Parcel::new("GET", "ftp://a.example/"),
            Parcel::new("GET", "https://user:pw@a.example/"),
            Parcel::new("GET", "https://a.example:65536/"),
            Parcel::new("GET", "http://[::1]:99999/"),
            Parcel::new("GET", "https://a.example:0/"),
            good.clone().header("Host", "b.example"),
            good.clone().header("host", "api.example.com:8443"),
            good.clone().header("host", "api.example.com:x"),
            good.clone().secret("host", Reference::env("A")),
            good.clone().header("a b", "c"),
            good.clone().header("a", "b\r\nc: d"),
            good.clone().idempotency_key("a\nb"),
            good.clone().order_key(""),
            good.clone().max_age(Duration::ZERO),
            good.clone().secret("a", Reference::env("A").prefix("b\r\nc: ")),
            good.clone().secret("a", Reference::env("A").suffix("b".repeat(MAX_HEADERS))),
            good.clone().secret("a", Reference::env("")),
            good.clone().secret("a", Reference::callback("")),
            good.clone().secret("a", Reference::callback("b\u{1f}c")),
            good.clone().secret("a", Reference::callback("b")).secret("c", Reference::callback("d")),
            (0..30_000).fold(good.clone(), |parcel, number| {
                parcel.secret(format!("h{number}"), Reference::env("A"))
            }),
            good.clone().body(vec![0; MAX_BODY + 1]),
        ] {
            assert!(matches!(wrong.checked(), Err(OutboxError::Invalid(_))));
        }
    }

    #[test]
    fn a_host_that_is_its_urls_is_no_word_of_another() {
        for (url, host) in [
            ("https://api.example.com/v1", "API.example.com"),
            ("https://api.example.com/v1", "api.example.com:443"),
            ("http://api.example.com:/v1", "api.example.com"),
            ("http://[::1]:8080/v1", "[::1]:8080"),
            ("http://[::1]/v1", "[::1]:80"),
        ] {
            let (parcel, _) = Parcel::new("POST", url).header("Host", host).checked().unwrap();
            assert!(parcel.headers.is_empty(), "the client writes its own");
        }
    }
}
