//! `farcall advise`: from calls to lines of configuration that can be pasted.
#![allow(clippy::unwrap_used, missing_docs)]

use farcall::{ErrorType, Head, Step, Timestamp};
use farcall_agent::{Farcall, Options};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn run(home: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farcall"));
    command.args(arguments).env("FARCALL_HOME", home).env("COLUMNS", "80").current_dir(home);
    command.env_remove("FARCALL_CONFIG");
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A program that makes calls, at whatever time the test says.
struct Program {
    farcall: Farcall,
    begun: Timestamp,
}

/// A call as the wire shows it.
struct Wire<'a> {
    url: &'a str,
    key: &'a str,
    trace: Option<u64>,
    status: u16,
    body: &'a str,
    headers: &'a [(&'static str, &'static str)],
    millis: u64,
}

impl Default for Wire<'_> {
    fn default() -> Self {
        Self { url: "", key: "", trace: None, status: 200, body: "same", headers: &[], millis: 100 }
    }
}

impl Program {
    fn start(home: &Path, service: &str) -> Self {
        let farcall = Farcall::start(Options {
            home: Some(home.into()),
            config: Some(home.join("farcall.toml")).filter(|file| file.exists()),
            service: Some(service.into()),
            flush_every: None,
            hub: false,
            ..Options::default()
        });
        // Half an hour ago, so that all of it lies in the last hour.
        let begun = farcall.now().minus(std::time::Duration::from_secs(1_800));
        Self { farcall, begun }
    }

    fn call(&self, at_millis: u64, wire: &Wire<'_>) {
        let begun = self.begun.plus_millis(at_millis);
        let mut headers = vec![("authorization", format!("Bearer {}", wire.key))];
        if let Some(trace) = wire.trace {
            headers.push(("traceparent", format!("00-{trace:032x}-00f067aa0ba902b7-01")));
        }
        let head = Head::new("GET", wire.url).headers(&headers).exact(true);
        let mut call = self.farcall.guard(self.farcall.begin_at(&head, begun));
        assert!(matches!(call.step_at(begun), Step::Send(_)));
        let ended = begun.plus_millis(wire.millis);
        match wire.status {
            0 => call.failed(ErrorType::Connect),
            status => {
                call.answer_at(status, &wire.headers, ended);
                call.read(wire.body.as_bytes());
            }
        }
        call.end_at(ended);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.farcall.shutdown();
    }
}

const FLAGS: &str = "https://app.launchdarkly.com/sdk/latest-all";

fn json(home: &Path, arguments: &[&str]) -> Value {
    let (code, out, err) = run(home, &[&["advise", "--json"], arguments].concat());
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

fn found<'j>(json: &'j Value, rule: &str) -> &'j Value {
    let rows = json["rows"].as_array().unwrap();
    rows.iter().find(|row| row["rule"] == rule).unwrap_or_else(|| panic!("no {rule} in {json:#}"))
}

/// A service with most things wrong that there are.
fn careless(home: &Path) {
    std::fs::write(
        home.join("farcall.toml"),
        "[[price]]\nvendor = \"launchdarkly\"\ncall = \"0.005 USD / call\"\n",
    )
    .unwrap();
    let checkout = Program::start(home, "checkout");
    for n in 0..1_000 {
        // Flags for each request that comes in, once a second: they never change.
        let flags = Wire {
            url: FLAGS,
            key: "flags",
            trace: Some(n + 1),
            headers: &[("cache-control", "no-store")],
            ..Wire::default()
        };
        checkout.call(n * 1_000, &flags);
        // Rates, whose every fifth answer is another.
        let rates = format!("rates {}", n / 5);
        let rates = Wire { url: "https://api.rates.example/v1/latest", body: &rates, ..Wire::default() };
        checkout.call(n * 1_000 + 300, &rates);
    }
    for n in 0..40 {
        let url = format!("https://api.stripe.com/v1/customers/cus_{:014}", n * 7_919);
        let body = n.to_string();
        let customer = Wire { url: &url, key: "stripe", body: &body, millis: 50, ..Wire::default() };
        checkout.call(1_200_000 + n * 51, &customer);
    }
    for n in 0..60 {
        let failing =
            Wire { url: "https://api.search.example/q?x=1", status: 503, millis: 30, ..Wire::default() };
        checkout.call(1_300_000 + n * 500, &failing);
    }
    drop(checkout);
    let billing = Program::start(home, "billing");
    billing.call(0, &Wire { url: "https://api.stripe.com/v1/balance", key: "stripe", ..Wire::default() });
}

#[test]
fn it_says_what_caching_would_have_saved_at_which_lifetime_and_risk() {
    let home = tempfile::tempdir().unwrap();
    careless(home.path());
    let all = json(home.path(), &[]);
    let flags = found(&all, "cacheable");
    assert_eq!(
        (flags["vendor"].as_str(), flags["endpoint"].as_str()),
        (Some("launchdarkly"), Some("GET /sdk/latest-all"))
    );
    // An answer that came at 0.1 s is good for an hour: one call of a thousand is made.
    // An answer that came at 0.1 s is good for the calls up to 60 s: 17 of 1,000 are made.
    let worth = &flags["worth"];
    assert_eq!((&worth["calls"], worth["cost"].as_str()), (&Value::from(983), Some("4.915")));
    assert_eq!((worth["seconds"].as_f64(), &worth["quota"]), (Some(98.3), &Value::from(983)));
    let sentence = flags["sentence"].as_str().unwrap();
    assert!(sentence.contains("would have saved 983 of 1,000 calls, 4.915 USD"), "{sentence}");
    assert!(sentence.ends_with("none of them would have been stale."), "{sentence}");
    assert!(flags["risk"].as_str().unwrap().contains("no-store"), "{flags:#}");
    let at: Vec<(u64, u64, u64)> = flags["evidence"]["at"]
        .as_array()
        .unwrap()
        .iter()
        .map(|at| ["ttl_s", "calls", "stale"].map(|key| at[key].as_u64().unwrap()).into())
        .collect();
    assert_eq!(
        at,
        [(1, 500, 0), (10, 909, 0), (60, 983, 0), (600, 998, 0), (3_600, 999, 0), (86_400, 999, 0)]
    );
    // What changes with every fifth call is not to be kept: at one second a fifth of the answers would be stale.
    let rows = all["rows"].as_array().unwrap();
    assert!(!rows.iter().any(|row| row["rule"] == "cacheable" && row["vendor"] == "rates.example"));
    assert_eq!(all["answers"]["compared"], all["answers"]["calls"]);
}

#[test]
fn answers_that_were_compared_and_differ_are_not_to_be_kept_however_alike_in_size() {
    let home = tempfile::tempdir().unwrap();
    let checkout = Program::start(home.path(), "checkout");
    for n in 0..200 {
        let body = format!("rate {n:05}");
        let rates = Wire { url: "https://api.rates.example/v1/latest", body: &body, ..Wire::default() };
        checkout.call(n * 5_000, &rates);
        let orders = format!("{n} of many");
        let orders = Wire { url: "https://api.stripe.com/v1/charges", body: &orders, ..Wire::default() };
        checkout.call(n * 5_000 + 400, &orders);
    }
    drop(checkout);
    let (code, out, err) = run(home.path(), &["report", "findings", "--json"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("uncached-polling"), "{out}");
    let all = json(home.path(), &[]);
    let rows = all["rows"].as_array().unwrap();
    assert!(
        rows.iter().all(|row| row["rule"] != "uncached-polling" && row["rule"] != "cacheable"),
        "{all:#}"
    );
}

#[test]
fn what_is_wrong_besides_is_said_with_its_evidence() {
    let home = tempfile::tempdir().unwrap();
    careless(home.path());
    let all = json(home.path(), &[]);
    let evidence = |rule: &str, key: &str| found(&all, rule)["evidence"][key].clone();
    assert_eq!(
        (evidence("n-plus-one", "calls_in_runs"), evidence("n-plus-one", "runs")),
        (40.into(), 1.into())
    );
    assert_eq!(evidence("retry-storm", "asked_again_within_10_s"), 59);
    assert_eq!(evidence("no-fallback", "failures"), 60);
    assert_eq!(evidence("no-timeout", "without_deadline"), 1_000);
    assert_eq!(
        (evidence("lockstep", "traces"), evidence("lockstep", "calls_per_trace")),
        (1_000.into(), 1.0.into())
    );
    // What has most to give comes first, and one vendor can be asked about.
    assert_eq!(all["rows"][0]["rule"], "cacheable");
    let stripe = json(home.path(), &["--vendor", "stripe"]);
    assert!(stripe["rows"].as_array().unwrap().iter().all(|row| row["vendor"] == "stripe"));
    assert_eq!(found(&stripe, "n-plus-one"), found(&all, "n-plus-one"));
    let one = json(home.path(), &["--limit", "1"]);
    assert_eq!(one["rows"].as_array().unwrap().len(), 1);
    assert!(one["notes"][0].as_str().unwrap().contains("--limit"), "{one:#}");
}

#[test]
fn the_lines_can_be_pasted_and_end_what_they_are_about() {
    let home = tempfile::tempdir().unwrap();
    careless(home.path());
    let all = json(home.path(), &[]);
    let lines: Vec<&str> =
        all["rows"].as_array().unwrap().iter().filter_map(|row| row["config"].as_str()).collect();
    assert!(lines.len() >= 5, "{all:#}");
    for config in lines.iter().copied().chain([lines.join("\n").as_str()]) {
        let file = home.path().join("pasted.toml");
        std::fs::write(&file, config).unwrap();
        let (code, out, err) = run(home.path(), &["config", "check", file.to_str().unwrap()]);
        assert_eq!(code, 0, "{config}\n{out}{err}");
    }
}

#[test]
fn what_is_kept_for_a_failing_vendor_is_of_an_endpoint_that_failed_and_has_no_lines_yet() {
    let home = tempfile::tempdir().unwrap();
    let service = Program::start(home.path(), "checkout");
    for n in 0..200 {
        let (body, at) = (n.to_string(), n * 1_500);
        let status = if n % 10 == 0 { 503 } else { 200 };
        service
            .call(at, &Wire { url: "https://api.rates.example/v1/latest", body: &body, ..Wire::default() });
        if n % 2 == 0 {
            let url = "https://api.rates.example/v1/history";
            service.call(at + 500, &Wire { url, body: &body, status, ..Wire::default() });
        }
        service.call(at + 1_000, &Wire { url: FLAGS, status, ..Wire::default() });
    }
    drop(service);
    let lines = |rule: &str, vendor: &str| {
        let all = json(home.path(), &["--vendor", vendor]);
        found(&all, rule)["config"].as_str().unwrap().to_owned()
    };
    let rates = lines("no-fallback", "rates.example");
    assert!(rates.contains("GET /v1/history") && !rates.contains("GET /v1/latest"), "{rates}");
    assert!(lines("cacheable", "launchdarkly").contains("stale_if_error"));
    let flags = lines("no-fallback", "launchdarkly");
    assert!(flags.contains("breaker = ") && !flags.contains("[[cache]]"), "{flags}");
}

#[test]
fn people_read_it_in_80_columns() {
    let home = tempfile::tempdir().unwrap();
    careless(home.path());
    let (code, out, _) = run(home.path(), &["advise"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("What to do, last "), "{out}");
    assert!(out.contains(" 1. cacheable: 4.91 USD, 1m38s, 983 calls\n"), "{out}");
    assert!(out.contains("\n    [[cache]]\n    match = { vendor = \"launchdarkly\""), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    assert!(!out.contains('\x1b'), "no colours in a pipe");
}

#[test]
fn the_json_is_what_the_documentation_says() {
    let home = tempfile::tempdir().unwrap();
    careless(home.path());
    let documented = include_str!("../../docs/advise.md");
    let all = json(home.path(), &[]);
    fn each(json: &Value, see: &mut impl FnMut(&str)) {
        match json {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                see(key);
                each(value, see);
            }),
            Value::Array(items) => items.iter().for_each(|item| each(item, see)),
            _ => {}
        }
    }
    each(&all, &mut |key| assert!(documented.contains(&format!("`{key}`")), "`{key}` is not documented"));
    for row in all["rows"].as_array().unwrap() {
        let rule = row["rule"].as_str().unwrap();
        assert!(documented.contains(&format!("`{rule}`")), "`{rule}` is not documented");
    }
}

#[test]
fn where_there_is_nothing_to_say_it_says_so() {
    let home = tempfile::tempdir().unwrap();
    drop(Program::start(home.path(), "idle"));
    let (code, out, _) = run(home.path(), &["advise"]);
    assert_eq!(code, 0);
    assert!(out.contains("No calls in this window"), "{out}");
    let program = Program::start(home.path(), "busy");
    program.call(0, &Wire { url: FLAGS, ..Wire::default() });
    drop(program);
    let (code, out, _) = run(home.path(), &["advise"]);
    assert_eq!(code, 0);
    assert!(out.contains("Nothing stands out."), "{out}");
    let nowhere = tempfile::tempdir().unwrap();
    assert_eq!(run(nowhere.path(), &["advise"]).0, 3);
}

#[test]
fn what_changes_from_call_to_call_gets_no_lines_and_what_gets_lines_says_how_old_it_can_be() {
    let home = tempfile::tempdir().unwrap();
    let service = Program::start(home.path(), "checkout");
    for n in 0..60 {
        let body = n.to_string();
        let asked = |url, body| Wire { url, body, trace: Some(n + 1), ..Wire::default() };
        service.call(n * 1_500, &asked("https://api.rates.example/v1/latest", &body));
        service.call(n * 1_500 + 500, &asked(FLAGS, "same"));
    }
    drop(service);
    let all = json(home.path(), &[]);
    let rows = all["rows"].as_array().unwrap();
    let row = |rule: &str, vendor: &str| {
        let found = rows.iter().find(|row| row["rule"] == rule && row["vendor"] == vendor);
        found.unwrap_or_else(|| panic!("no {rule} of {vendor} in {all:#}"))
    };
    let changes = row("lockstep", "rates.example");
    assert!(changes["config"].is_null(), "{changes:#}");
    let risk = changes["risk"].as_str().unwrap();
    assert!(risk.contains("within 10s") && risk.contains("(100%) would have been stale"), "{risk}");
    let cacheable = row("cacheable", "launchdarkly");
    assert!(cacheable["config"].as_str().unwrap().contains("stale_if_error = \"1h\""), "{cacheable:#}");
    let risk = cacheable["risk"].as_str().unwrap();
    assert!(risk.contains("When the vendor fails or refuses it can be an hour older"), "{risk}");
}
