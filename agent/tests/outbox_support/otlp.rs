//! OTLP's JSON, read strictly: by the JSON mapping of Protobuf with OTLP's own exceptions (OTLP 1.5, "JSON Protobuf
//! Encoding"): names in lowerCamelCase and none beside, 64-bit integers as strings of digits, enumerations as numbers.

use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Logs {
    pub(crate) resource_logs: Vec<ResourceLogs>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ResourceLogs {
    pub(crate) resource: Resource,
    pub(crate) scope_logs: Vec<ScopeLogs>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ScopeLogs {
    pub(crate) scope: Scope,
    pub(crate) log_records: Vec<LogRecord>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LogRecord {
    #[serde(deserialize_with = "digits")]
    pub(crate) time_unix_nano: u64,
    #[serde(deserialize_with = "digits")]
    pub(crate) observed_time_unix_nano: u64,
    pub(crate) severity_number: u8,
    pub(crate) severity_text: String,
    pub(crate) event_name: String,
    pub(crate) body: AnyValue,
    #[serde(deserialize_with = "attributes")]
    pub(crate) attributes: BTreeMap<String, AnyValue>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Metrics {
    pub(crate) resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ResourceMetrics {
    pub(crate) resource: Resource,
    pub(crate) scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ScopeMetrics {
    pub(crate) scope: Scope,
    pub(crate) metrics: Vec<Metric>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) unit: String,
    #[serde(default)]
    pub(crate) gauge: Option<Gauge>,
    #[serde(default)]
    pub(crate) sum: Option<Sum>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Gauge {
    pub(crate) data_points: Vec<DataPoint>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Sum {
    pub(crate) data_points: Vec<DataPoint>,
    pub(crate) aggregation_temporality: u8,
    pub(crate) is_monotonic: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DataPoint {
    #[serde(deserialize_with = "attributes")]
    pub(crate) attributes: BTreeMap<String, AnyValue>,
    #[serde(default, deserialize_with = "some_digits")]
    pub(crate) start_time_unix_nano: Option<u64>,
    #[serde(deserialize_with = "digits")]
    pub(crate) time_unix_nano: u64,
    #[serde(default, deserialize_with = "some_digits")]
    pub(crate) as_int: Option<u64>,
    #[serde(default)]
    pub(crate) as_double: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Resource {
    #[serde(deserialize_with = "attributes")]
    pub(crate) attributes: BTreeMap<String, AnyValue>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Scope {
    pub(crate) name: String,
    pub(crate) version: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) enum AnyValue {
    #[serde(rename = "stringValue")]
    Text(String),
    #[serde(rename = "boolValue")]
    Truth(bool),
    #[serde(rename = "intValue", deserialize_with = "digits")]
    Number(u64),
}

impl AnyValue {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }
}

impl From<&str> for AnyValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyValue {
    key: String,
    value: AnyValue,
}

fn attributes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, AnyValue>, D::Error> {
    let pairs = Vec::<KeyValue>::deserialize(deserializer)?;
    let many = pairs.len();
    let map: BTreeMap<_, _> = pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
    if map.len() == many { Ok(map) } else { Err(serde::de::Error::custom("a key is there twice")) }
}

fn digits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().map_err(serde::de::Error::custom),
        false => Err(serde::de::Error::custom(format!("{text} is not decimal"))),
    }
}

fn some_digits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    digits(deserializer).map(Some)
}
