//! Parcels and receipts as JSON: the form in which the bindings pass them.

use super::{OutboxError, Parcel, Receipt, Reference};
use serde::Serialize;
use serde_json::{Map, Value};
use std::time::Duration;

/// What is left to be read of an object. Its errors name keys and never show a value, which may be a secret.
struct Written(Map<String, Value>);

impl Written {
    /// What a key has, where it has anything; `kind` says what that is to be.
    fn take<T>(
        &mut self,
        key: &str,
        kind: &str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Option<T>, OutboxError> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => wrong(format!("its `{key}` is not {kind}")),
            },
        }
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, OutboxError> {
        self.take(key, "a text", text)
    }

    fn needed(&mut self, key: &str) -> Result<String, OutboxError> {
        self.text(key)?.map_or_else(|| wrong(format!("its `{key}` is missing")), Ok)
    }

    fn millis(&mut self, key: &str) -> Result<Option<Duration>, OutboxError> {
        let millis = self.take(key, "a whole number of milliseconds", |value| value.as_u64())?;
        Ok(millis.map(Duration::from_millis))
    }

    /// Whatever it has beyond that is a mistake.
    fn end(self) -> Result<(), OutboxError> {
        self.0.keys().next().map_or(Ok(()), |key| wrong(format!("`{key}` is not a key of it")))
    }
}

fn wrong<T>(what: String) -> Result<T, OutboxError> {
    Err(OutboxError::Invalid(what))
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// The methods that clients know in any letters, as they are sent.
const USUAL: [&str; 8] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

fn method(written: String) -> Result<String, OutboxError> {
    if written.eq_ignore_ascii_case("CONNECT") {
        return wrong(
            "its method is CONNECT, which asks a proxy for a tunnel and no vendor for anything".into(),
        );
    }
    let usual = USUAL.into_iter().find(|usual| written.eq_ignore_ascii_case(usual));
    Ok(usual.map_or(written, str::to_owned))
}

fn url(written: String) -> Result<String, OutboxError> {
    match written.split_once("://") {
        Some((scheme, _)) if !["http", "https"].iter().any(|good| scheme.eq_ignore_ascii_case(good)) => {
            wrong("its URL begins with neither http:// nor https://, by which deliveries go".into())
        }
        _ => Ok(written),
    }
}

fn pairs(value: Value) -> Option<Vec<(String, Value)>> {
    serde_json::from_value(value).ok()
}

fn with_header(parcel: Parcel, name: String, value: Value) -> Result<Parcel, OutboxError> {
    match value {
        Value::String(text) => {
            let bytes: Option<Vec<u8>> =
                text.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect();
            match bytes {
                Some(bytes) => Ok(parcel.header(name, bytes)),
                None => wrong(format!("the value of the header `{name}` cannot be sent")),
            }
        }
        Value::Object(object) => match reference(Written(object)) {
            Ok(reference) => Ok(parcel.secret(name, reference)),
            Err(OutboxError::Invalid(what)) => wrong(format!("where the header `{name}` comes from: {what}")),
            Err(error) => Err(error),
        },
        _ => wrong(format!(
            "the header `{name}` is neither a text nor an object that says where it comes from"
        )),
    }
}

fn reference(mut written: Written) -> Result<Reference, OutboxError> {
    let (env, file, callback) = (written.text("env")?, written.text("file")?, written.text("callback")?);
    let (prefix, suffix) = (written.text("prefix")?, written.text("suffix")?);
    written.end()?;
    let reference = match (env, file, callback) {
        (Some(env), None, None) => Reference::env(env),
        (None, Some(file), None) => Reference::file(file),
        (None, None, Some(callback)) => Reference::callback(callback),
        _ => return wrong("it has one of `env`, `file` and `callback`".into()),
    };
    Ok(reference.prefix(prefix.unwrap_or_default()).suffix(suffix.unwrap_or_default()))
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
    /// `timeout_ms`, `delay_ms`. A usual method in other letters is taken for it, as the clients of Python and Node do.
    ///
    /// # Errors
    /// Where it is not such an object.
    pub fn from_json(text: &str, body: Vec<u8>) -> Result<Self, OutboxError> {
        let Ok(Value::Object(object)) = serde_json::from_str(text) else {
            return wrong("it is not a JSON object".into());
        };
        let mut written = Written(object);
        let (method, url) = (method(written.needed("method")?)?, url(written.needed("url")?)?);
        let mut parcel = Self::new(method, url).body(body);
        for (name, value) in
            written.take("headers", "pairs of a name and a value", pairs)?.unwrap_or_default()
        {
            parcel = with_header(parcel, name, value)?;
        }
        parcel.customer = written.text("customer")?;
        parcel.order_key = written.text("order_key")?;
        parcel.idempotency_key = written.text("idempotency_key")?;
        parcel.idempotency_header = written.text("idempotency_header")?;
        parcel.max_age = written.millis("max_age_ms")?.unwrap_or(parcel.max_age);
        parcel.max_attempts = written.take("max_attempts", "a whole number of attempts", |value| {
            value.as_u64().and_then(|many| u32::try_from(many).ok())
        })?;
        parcel.timeout = written.millis("timeout_ms")?.unwrap_or(parcel.timeout);
        parcel.delay = written.millis("delay_ms")?.unwrap_or(parcel.delay);
        written.end()?;
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

    #[test]
    fn a_parcel_that_is_refused_says_which_key_is_missing_or_wrong_and_shows_no_value() {
        let rest = r#""method": "POST", "url": "https://a.example/""#;
        let header = |value: &str| format!(r#"{{{rest}, "headers": [["a", {value}]]}}"#);
        for (text, named) in [
            ("s3cret".to_owned(), "a JSON object"),
            (r#"{"url": "s3cret"}"#.to_owned(), "`method` is missing"),
            (r#"{"method": "POST", "url": null}"#.to_owned(), "`url` is missing"),
            (format!(r#"{{{rest}, "order_key": ["s3cret"]}}"#), "`order_key` is not a text"),
            (format!(r#"{{{rest}, "max_age_ms": "s3cret"}}"#), "`max_age_ms`"),
            (format!(r#"{{{rest}, "max_attempts": 4294967296}}"#), "`max_attempts`"),
            (format!(r#"{{{rest}, "headers": {{"a": "s3cret"}}}}"#), "`headers`"),
            (format!(r#"{{{rest}, "max_agee": "s3cret"}}"#), "`max_agee`"),
            (header(r#"["s3cret"]"#), "`a`"),
            (header(r#"{"evn": "s3cret"}"#), "`evn`"),
            (header(r#"{"env": "X", "prefix": 7}"#), "`prefix` is not a text"),
            (header(r#"{"prefix": "s3cret"}"#), "`env`, `file` and `callback`"),
        ] {
            let error = Parcel::from_json(&text, Vec::new()).unwrap_err().to_string();
            assert!(error.contains(named) && !error.contains("s3cret"), "{text}: {error}");
        }
    }
}
