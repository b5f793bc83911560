//! Metrics in OTLP's JSON.

use super::resource::Resource;
use super::scope;
use super::value::{Attributes, nanos};
use serde_json::{Value, json};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u8 = 2;

/// A number with what it is about.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) attributes: Attributes,
    pub(crate) value: Number,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Whole(u64),
    Broken(f64),
}

/// What a metric is: its name, its unit by UCUM, and a sentence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instrument {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) description: &'static str,
}

/// Metrics of one moment.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Since when sums are counted, and when these are, in nanoseconds since the Unix epoch.
    since: u64,
    now: u64,
    metrics: Vec<Value>,
}

impl Metrics {
    pub(crate) fn new(since: u64, now: u64) -> Self {
        Self { since: since.min(now), now, metrics: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    /// What is so; nothing where there are no points.
    pub(crate) fn gauge(&mut self, instrument: Instrument, points: Vec<Point>) {
        let points: Vec<_> = points.into_iter().map(|point| self.point(point, false)).collect();
        self.add(instrument, "gauge", &points, json!({ "dataPoints": points }));
    }

    /// What was counted since the start; nothing where there are no points.
    pub(crate) fn sum(&mut self, instrument: Instrument, points: Vec<Point>) {
        let points: Vec<_> = points.into_iter().map(|point| self.point(point, true)).collect();
        let sum = json!({
            "dataPoints": points, "aggregationTemporality": CUMULATIVE, "isMonotonic": true
        });
        self.add(instrument, "sum", &points, sum);
    }

    /// The request to a collector.
    pub(crate) fn into_json(self, resource: &Resource) -> Value {
        let of_scope = json!({ "scope": scope(), "metrics": self.metrics });
        json!({ "resourceMetrics": [{ "resource": resource.to_json(), "scopeMetrics": [of_scope] }] })
    }

    fn add(&mut self, instrument: Instrument, kind: &str, points: &[Value], value: Value) {
        if points.is_empty() {
            return;
        }
        let Instrument { name, unit, description } = instrument;
        self.metrics.push(json!({ "name": name, "unit": unit, "description": description, kind: value }));
    }

    fn point(&self, point: Point, since: bool) -> Value {
        let mut json = json!({ "attributes": point.attributes.into_json(), "timeUnixNano": nanos(self.now) });
        if since {
            json["startTimeUnixNano"] = nanos(self.since);
        }
        match point.value {
            Number::Whole(number) => json["asInt"] = Value::String(number.to_string()),
            Number::Broken(number) => json["asDouble"] = json!(number),
        }
        json
    }
}
