//! Parcels and receipts as JSON: the form in which the bindings pass them.

use super::{OutboxError, Parcel, Receipt, Reference};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<(String, Header)>,
    customer: Option<String>,
    order_key: Option<String>,
    idempotency_key: Option<String>,
    idempotency_header: Option<String>,
    max_age_ms: Option<u64>,
    max_attempts: Option<u32>,
    timeout_ms: Option<u64>,
    delay_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Header {
    Text(String),
    From(From),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    env: Option<String>,
    file: Option<PathBuf>,
    callback: Option<String>,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    suffix: String,
}

#[derive(Serialize)]
struct WrittenReceipt<'a> {
    id: i64,
    idempotency_key: &'a str,
}

impl Parcel {
    /// A parcel from a JSON object with the names of the methods here: `method`, `url`, `headers` (pairs of a name
    /// and either a text, of which each character is a byte, or `{"env": ..}`, `{"file": ..}` or `{"callback": ..}` with
    /// `prefix` and `suffix`), `customer`, `order_key`, `idempotency_key`, `idempotency_header`, `max_age_ms`, `max_attempts`,
    /// `timeout_ms`, `delay_ms`.
    ///
    /// # Errors
    /// Where it is not such an object.
    pub fn from_json(text: &str, body: Vec<u8>) -> Result<Self, OutboxError> {
        let written: Written =
            serde_json::from_str(text).map_err(|error| OutboxError::Invalid(error.to_string()))?;
        let mut parcel = Self::new(written.method, written.url).body(body);
        for (name, value) in written.headers {
            parcel = match value {
                Header::Text(text) => {
                    let bytes: Option<Vec<u8>> =
                        text.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect();
                    let bytes = bytes.ok_or_else(|| {
                        OutboxError::Invalid(format!("the value of the header `{name}` cannot be sent"))
                    })?;
                    parcel.header(name, bytes)
                }
                Header::From(From { env, file, callback, prefix, suffix }) => {
                    let reference = match (env, file, callback) {
                        (Some(env), None, None) => Reference::env(env),
                        (None, Some(file), None) => Reference::file(file),
                        (None, None, Some(callback)) => Reference::callback(callback),
                        _ => {
                            let what = format!(
                                "the header `{name}` comes from an environment variable, a file or a callback"
                            );
                            return Err(OutboxError::Invalid(what));
                        }
                    };
                    parcel.secret(name, reference.prefix(prefix).suffix(suffix))
                }
            };
        }
        let given = |millis: Option<u64>, or: Duration| millis.map_or(or, Duration::from_millis);
        parcel.customer = written.customer;
        parcel.order_key = written.order_key;
        parcel.idempotency_key = written.idempotency_key;
        parcel.idempotency_header = written.idempotency_header;
        parcel.max_age = given(written.max_age_ms, parcel.max_age);
        parcel.max_attempts = written.max_attempts;
        parcel.timeout = given(written.timeout_ms, parcel.timeout);
        parcel.delay = given(written.delay_ms, parcel.delay);
        Ok(parcel)
    }
}

impl Receipt {
    /// As a JSON object: `id`, `idempotency_key`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let written = WrittenReceipt { id: self.id, idempotency_key: &self.idempotency_key };
        serde_json::to_string(&written).unwrap_or_default()
    }
}

impl super::Item {
    /// As the JSON object of `farcall outbox ls --json`.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl super::Answer {
    /// As a JSON object: `status`, `headers`, `cut`; not the body.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parcel_is_read_whole_or_refused() {
        let text = r#"{"method": "POST", "url": "https://a.example/", "headers": [["a", "é"], ["b", {"env": "X", "prefix": "Y "}]],
            "customer": "acme", "order_key": "k", "max_age_ms": 1000, "max_attempts": 3, "timeout_ms": 5, "delay_ms": 7}"#;
        let parcel = Parcel::from_json(text, b"body".to_vec()).unwrap();
        assert_eq!((parcel.customer.as_deref(), parcel.max_attempts), (Some("acme"), Some(3)));
        assert_eq!((parcel.max_age, parcel.timeout), (Duration::from_secs(1), Duration::from_millis(5)));
        assert_eq!((parcel.headers.len(), parcel.body.as_slice()), (2, &b"body"[..]));
        let rest = r#""method": "POST", "url": "https://a.example/""#;
        for wrong in [
            "{}".to_owned(),
            format!("{{{rest}, \"bogus\": 1}}"),
            format!(r#"{{{rest}, "headers": [["a", "\u0100"]]}}"#),
            format!(r#"{{{rest}, "headers": [["a", {{}}]]}}"#),
            format!(r#"{{{rest}, "headers": [["a", {{"env": "X", "file": "y"}}]]}}"#),
            format!(r#"{{{rest}, "headers": [["a", {{"env": "X", "callback": "y"}}]]}}"#),
        ] {
            assert!(matches!(Parcel::from_json(&wrong, Vec::new()), Err(OutboxError::Invalid(_))), "{wrong}");
        }
    }
}
