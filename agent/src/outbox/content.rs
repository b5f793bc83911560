//! What of a call is sealed: where it goes and what it carries.

use super::Parcel;
use super::reference::{Reference, Source};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A header's value, as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Value {
    /// Itself; each character is a byte.
    Plain(String),
    /// Where it is found at delivery.
    From(Reference),
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

    /// The name of the callback that has its credential, where one has.
    pub(super) fn credential(&self) -> Option<&str> {
        credential_of(&self.headers)
    }

    /// The headers, with credentials as they are now; `given` is the callback's.
    pub(super) fn headers(&self, given: Option<&str>) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let (bytes, secret) = match value {
                Value::Plain(text) => (bytes_of(text), may_carry_credential(name)),
                Value::From(reference) => (reference.resolve(given)?.into_bytes(), true),
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
                Value::From(Reference { source: Source::Callback(name), .. }) => {
                    format!("(from the callback `{name}`)")
                }
            };
            (name.clone(), value)
        };
        self.headers.iter().map(shown).collect()
    }
}

/// The name of the callback that has a value of these, where one has.
pub(super) fn credential_of(headers: &[(String, Value)]) -> Option<&str> {
    headers.iter().find_map(|(_, value)| match value {
        Value::From(Reference { source: Source::Callback(name), .. }) => Some(name.as_str()),
        _ => None,
    })
}

/// What a header's value is, of which each character is a byte.
pub(super) fn bytes_of(text: &str) -> Vec<u8> {
    text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap_or(0)).collect()
}

/// Whether a header of this name may carry a credential.
pub(super) fn may_carry_credential(name: &str) -> bool {
    let telling = ["auth", "key", "token", "secret", "cookie", "credential", "password", "signature"];
    !name.contains("idempotency") && telling.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let headers = kept.headers(None).unwrap();
        assert_eq!(headers.len(), 1, "the client counts for itself, and knows of no proxy");
        assert_eq!(headers["x-bytes"].as_bytes(), [0x61, 0xff]);
    }

    #[test]
    fn more_headers_than_can_be_sent_are_an_error_of_that_call() {
        let headers = (0..40_000).map(|number| (format!("h{number}"), Value::Plain(String::new()))).collect();
        let parcel = Parcel { headers, ..Parcel::new("GET", "https://a.example/") };
        assert!(Content::of(parcel).headers(None).unwrap_err().contains("more headers than"));
    }

    #[test]
    fn a_credential_is_looked_up_at_delivery() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let parcel = Parcel::new("GET", "https://a.example/")
            .secret("authorization", Reference::file(file.path()).prefix("Bearer "));
        let content = Content::of(parcel.checked().unwrap().0);
        assert!(content.headers(None).unwrap_err().contains("is empty"));
        for key in ["first", "second"] {
            std::fs::write(file.path(), format!("{key}\n")).unwrap();
            assert_eq!(content.headers(None).unwrap()["authorization"], format!("Bearer {key}"));
        }
        assert!(!String::from_utf8_lossy(&content.in_parts(|parts| parts.concat())).contains("second"));
    }
}
