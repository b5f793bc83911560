//! What a collector gets by OTLP over HTTP with JSON, read strictly.
#![cfg(feature = "outbox")]
#![allow(clippy::unwrap_used)]

mod outbox_support;

use farcall_agent::outbox::{Parcel, State};
use farcall_agent::{Farcall, Options};
use outbox_support::otlp::{AnyValue, Logs, Metric, Metrics};
use outbox_support::{Got, Vendor, config};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Long enough for any machine; nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);
const CRITICAL: &str = "[[outbox]]\nname = \"orders\"\nmatch = { vendor = \"recorder\" }\ncritical = true\n[alarm]\nevery = \"1h\"\n";

fn started(home: &Path, rules: &str, vendor: &Vendor) -> Farcall {
    let file = home.join("farcall.toml");
    std::fs::write(&file, format!("{rules}{}", config(vendor))).unwrap();
    Farcall::start(Options {
        home: Some(home.into()),
        config: Some(file),
        service: Some("shop".into()),
        hub: false,
        ..Options::default()
    })
}

/// Waits until so many requests came to this path, and gives them.
fn requests(collector: &Vendor, line: &str, many: usize) -> Vec<Got> {
    let until = Instant::now() + PATIENCE;
    loop {
        let got: Vec<_> = collector.got().into_iter().filter(|got| got.line.starts_with(line)).collect();
        if got.len() >= many {
            return got;
        }
        assert!(Instant::now() < until, "{line}: {got:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn counter(farcall: &Farcall, name: &str) -> u64 {
    farcall.counters().iter().find(|(known, _)| known == name).unwrap().1
}

#[test]
fn the_first_failure_of_a_critical_call_is_an_event_at_the_collector() {
    let (home, vendor, collector) = (tempfile::tempdir().unwrap(), Vendor::start(), Vendor::start());
    // Busy at first, as the protocol says that it may be.
    collector.answer_next(&["503 Service Unavailable\r\nretry-after: 1"]);
    let rules = format!(
        "{CRITICAL}[otlp]\nendpoint = \"{}\"\nheaders = {{ api-key = \"k1\" }}\nmetrics = false\n",
        collector.url("/below")
    );
    let farcall = started(home.path(), &rules, &vendor);
    vendor.answer_next(&["503 Service Unavailable", "422 Unprocessable Content"]);
    let outbox = farcall.outbox().unwrap();
    let receipt = outbox.put(Parcel::new("POST", vendor.url("/")).customer("acme\n1")).unwrap();
    outbox.wait(receipt.id, PATIENCE).unwrap();
    let got = requests(&collector, "POST /below/v1/logs ", 2);
    farcall.shutdown();
    assert_eq!(got.len(), 2, "one alarm, tried again once");
    assert!(got[1].at - got[0].at >= Duration::from_secs(1), "not before the collector wants it");
    assert_eq!(
        (got[1].header("content-type"), got[1].header("api-key")),
        (Some("application/json"), Some("k1"))
    );
    assert_eq!(got[0].body, got[1].body);
    let mut logs: Logs = serde_json::from_str(&got[1].body).unwrap();
    let mut of = logs.resource_logs.remove(0);
    assert_eq!(of.resource.attributes["service.name"], "shop".into());
    assert_eq!(of.resource.attributes["process.pid"], AnyValue::Number(u64::from(std::process::id())));
    let scope = of.scope_logs.remove(0);
    assert_eq!((scope.scope.name.as_str(), scope.log_records.len()), ("farcall", 1));
    let record = &scope.log_records[0];
    assert_eq!((record.event_name.as_str(), record.severity_number), ("farcall.alarm", 17));
    assert_eq!(record.severity_text, "ERROR");
    assert!(record.time_unix_nano <= record.observed_time_unix_nano);
    assert!(record.time_unix_nano > 1_700_000_000_000_000_000);
    assert!(
        record
            .body
            .text()
            .contains("critical `orders`: a delivery from the outbox of shop for acme\u{FFFD}1")
    );
    let call = record.attributes["farcall.call.id"].text();
    assert!(call.len() == 16 && call.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let expected: [(&str, AnyValue); 7] = [
        ("farcall.alarm.kind", "critical".into()),
        ("farcall.rule", "orders".into()),
        ("farcall.vendor", "recorder".into()),
        ("farcall.customer", "acme\n1".into()),
        ("farcall.alarm.failure", "answered 503".into()),
        ("farcall.alarm.delivery", AnyValue::Truth(true)),
        ("farcall.alarm.held_back", AnyValue::Number(0)),
    ];
    for (key, value) in expected {
        assert_eq!(record.attributes[key], value, "{key}");
    }
    assert_eq!((counter(&farcall, "told_alarms"), counter(&farcall, "untold_alarms")), (1, 0));
}

#[test]
fn a_collector_that_refuses_an_event_is_not_asked_again_and_is_counted() {
    let (home, vendor, collector) = (tempfile::tempdir().unwrap(), Vendor::start(), Vendor::start());
    collector.answer_next(&["400 Bad Request"; 8]);
    let rules = format!("{CRITICAL}[otlp]\nendpoint = \"{}\"\nmetrics = false\n", collector.url(""));
    let farcall = started(home.path(), &rules, &vendor);
    vendor.answer_next(&["422 Unprocessable Content"]);
    let outbox = farcall.outbox().unwrap();
    let receipt = outbox.put(Parcel::new("POST", vendor.url("/"))).unwrap();
    outbox.wait(receipt.id, PATIENCE).unwrap();
    requests(&collector, "POST /v1/logs ", 1);
    farcall.shutdown();
    assert_eq!(collector.got().len(), 1, "OTLP: what is no 429, 502, 503 or 504 must not be retried");
    let counted = ["told_alarms", "untold_alarms", "failed_alarm_ways"].map(|name| counter(&farcall, name));
    assert_eq!(counted, [0, 1, 1]);
}

/// What was told of, by name and attributes, with the units.
fn told(got: &Got) -> BTreeMap<String, f64> {
    let message: Metrics =
        serde_json::from_str(&got.body).unwrap_or_else(|error| panic!("{error}: {}", got.body));
    let mut told = BTreeMap::new();
    for of in &message.resource_metrics {
        assert_eq!(of.resource.attributes["service.name"], "shop".into());
        assert!(!of.resource.attributes["service.instance.id"].text().is_empty());
        for metric in of.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            points(metric, &mut told);
        }
    }
    told
}

fn points(metric: &Metric, told: &mut BTreeMap<String, f64>) {
    assert!(!metric.description.is_empty());
    let (points, counted) = match (&metric.gauge, &metric.sum) {
        (Some(gauge), None) => (&gauge.data_points, false),
        (None, Some(sum)) => {
            assert!(sum.is_monotonic && sum.aggregation_temporality == 2, "{metric:?}");
            (&sum.data_points, true)
        }
        _ => panic!("it is one of both: {metric:?}"),
    };
    assert!(!points.is_empty());
    for point in points {
        assert_eq!(point.start_time_unix_nano.is_some(), counted);
        assert!(point.start_time_unix_nano.is_none_or(|since| since <= point.time_unix_nano));
        let value = match (point.as_int, point.as_double) {
            (Some(number), None) => number as f64,
            (None, Some(number)) => number,
            _ => panic!("it is one of both: {point:?}"),
        };
        let about: Vec<_> =
            point.attributes.iter().map(|(key, value)| format!("{key}={}", value.text())).collect();
        let name = format!("{} {} {}", metric.name, metric.unit, about.join(" "));
        assert!(told.insert(name.clone(), value).is_none(), "{name} is there twice");
    }
}

/// Waits for a message that has all of these.
fn message_with(collector: &Vendor, expected: &[(&str, f64)]) -> BTreeMap<String, f64> {
    let until = Instant::now() + PATIENCE;
    loop {
        let got: Vec<_> = collector
            .got()
            .iter()
            .filter(|got| got.line.starts_with("POST /v1/metrics "))
            .map(told)
            .collect();
        let is_it = |told: &&BTreeMap<String, f64>| {
            expected.iter().all(|(name, value)| told.get(*name) == Some(value))
        };
        if let Some(found) = got.iter().find(is_it) {
            return found.clone();
        }
        assert!(Instant::now() < until, "{expected:?} is not among {got:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_collector_gets_how_the_outbox_stands_and_what_became_of_its_calls() {
    let (home, vendor, collector) = (tempfile::tempdir().unwrap(), Vendor::start(), Vendor::start());
    let rules = format!(
        "{CRITICAL}[otlp]\nendpoint = \"{}\"\nevents = false\ninterval = \"1s\"\n",
        collector.url("/")
    );
    let farcall = started(home.path(), &rules, &vendor);
    vendor.answer_next(&["422 Unprocessable Content"]);
    let outbox = farcall.outbox().unwrap();
    let put = |parcel: Parcel| outbox.put(parcel).unwrap().id;
    let dead = put(Parcel::new("POST", vendor.url("/")));
    assert_eq!(outbox.wait(dead, PATIENCE).unwrap().state, State::Dead);
    for _ in 0..2 {
        let delivered = put(Parcel::new("POST", vendor.url("/")));
        assert_eq!(outbox.wait(delivered, PATIENCE).unwrap().state, State::Delivered);
    }
    put(Parcel::new("POST", vendor.url("/")).delay(Duration::from_secs(3_600)));
    let about = "farcall.vendor=recorder";
    let calls = |state: &str| format!("farcall.outbox.calls {{call}} farcall.outbox.state={state} {about}");
    let expected = [
        (calls("pending"), 1.0),
        (calls("dead"), 1.0),
        (format!("farcall.outbox.delivered {{call}} {about}"), 2.0),
        (format!("farcall.outbox.failed_attempts {{attempt}} {about}"), 1.0),
        (format!("farcall.outbox.given_up {{call}} {about}"), 1.0),
        ("farcall.alarms {alarm} farcall.alarm.outcome=told".to_owned(), 1.0),
        ("farcall.alarms {alarm} farcall.alarm.outcome=untold".to_owned(), 0.0),
        ("farcall.alarms {alarm} farcall.alarm.outcome=lost".to_owned(), 0.0),
    ];
    let expected: Vec<_> = expected.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let told = message_with(&collector, &expected);
    let age = told[&format!("farcall.outbox.oldest_age s {about}")];
    assert!((0.0..PATIENCE.as_secs_f64()).contains(&age), "{age}");
    assert_eq!(told.len(), expected.len() + 1, "{told:#?}");
    farcall.shutdown();
    let counted = ["delivered_calls", "failed_deliveries", "given_up_calls", "told_alarms", "failed_exports"];
    assert_eq!(counted.map(|name| counter(&farcall, name)), [2, 1, 1, 1, 0]);
}

#[test]
fn what_was_counted_since_the_last_message_goes_out_at_the_end() {
    let (home, vendor, collector) = (tempfile::tempdir().unwrap(), Vendor::start(), Vendor::start());
    let rules = format!("[otlp]\nendpoint = \"{}\"\ninterval = \"1h\"\n", collector.url(""));
    let farcall = started(home.path(), &rules, &vendor);
    let outbox = farcall.outbox().unwrap();
    let id = outbox.put(Parcel::new("POST", vendor.url("/"))).unwrap().id;
    outbox.wait(id, PATIENCE).unwrap();
    farcall.shutdown();
    farcall.shutdown();
    let got = collector.got();
    assert_eq!(got.len(), 1, "once, and nothing that was told already");
    let told = told(&got[0]);
    assert_eq!(told["farcall.outbox.delivered {call} farcall.vendor=recorder"], 1.0);
    assert!(
        !told.keys().any(|name| name.starts_with("farcall.outbox.calls")),
        "the state is for who goes on"
    );
}

#[test]
fn messages_that_a_collector_refuses_are_counted_and_counters_lose_nothing() {
    let (home, vendor, collector) = (tempfile::tempdir().unwrap(), Vendor::start(), Vendor::start());
    collector.answer_next(&["400 Bad Request"; 2]);
    let rules = format!("[otlp]\nendpoint = \"{}\"\ninterval = \"1s\"\n", collector.url(""));
    let farcall = started(home.path(), &rules, &vendor);
    let outbox = farcall.outbox().unwrap();
    let id = outbox.put(Parcel::new("POST", vendor.url("/"))).unwrap().id;
    outbox.wait(id, PATIENCE).unwrap();
    let got = requests(&collector, "POST /v1/metrics ", 3);
    let delivered = "farcall.outbox.delivered {call} farcall.vendor=recorder";
    farcall.shutdown();
    assert_eq!(counter(&farcall, "failed_exports"), 2);
    assert_eq!(told(got.last().unwrap())[delivered], 1.0);
}
