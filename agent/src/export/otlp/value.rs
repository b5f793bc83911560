//! Attributes and numbers in OTLP's JSON.

use serde_json::{Value, json};

/// Names with values, as a list of `KeyValue`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes(Vec<Value>);

impl Attributes {
    /// A text; one that is empty says nothing, and is left out.
    pub(crate) fn text(mut self, key: &str, text: &str) -> Self {
        if !text.is_empty() {
            self.0.push(json!({ "key": key, "value": { "stringValue": text } }));
        }
        self
    }

    /// A whole number.
    pub(crate) fn number(mut self, key: &str, number: u64) -> Self {
        self.0.push(json!({ "key": key, "value": { "intValue": number.to_string() } }));
        self
    }

    pub(crate) fn truth(mut self, key: &str, truth: bool) -> Self {
        self.0.push(json!({ "key": key, "value": { "boolValue": truth } }));
        self
    }

    pub(crate) fn into_json(self) -> Value {
        Value::Array(self.0)
    }
}

/// A moment: a `fixed64` is a string of decimal digits.
pub(crate) fn nanos(nanos: u64) -> Value {
    Value::String(nanos.to_string())
}
