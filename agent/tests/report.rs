//! What the reports promise, over a ledger that was written by the handle itself.
#![allow(clippy::unwrap_used, missing_docs)]

use farcall::{Caller, CallerId, ConnectTimes, Head, Step, Tap, Target};
use farcall_agent::report::{self, Filter, Query, Question, Render, ReportError, Style};
use farcall_agent::{Confirmation, ConnectionRollup, ExplainedBy, Farcall, Options, Role, Verdict};
use std::path::Path;
use std::time::Duration;

fn start(home: &Path, service: &str, role: Role) -> Farcall {
    let config = home.join("farcall.toml");
    std::fs::write(&config, "").unwrap();
    Farcall::start(Options {
        home: Some(home.into()),
        config: Some(config),
        service: Some(service.into()),
        flush_every: None,
        role,
        ..Options::default()
    })
}

struct Made<'m> {
    method: &'m str,
    url: &'m str,
    customer: Option<&'m str>,
    status: u16,
    bytes: u64,
}

fn make(farcall: &Farcall, made: &Made<'_>, caller: CallerId, tap: Tap) {
    let target = Target::parse(made.url).unwrap();
    let head = Head::to(made.method, target).customer(made.customer).seen(caller, tap);
    let mut call = farcall.guard(farcall.begin(&head));
    assert!(matches!(call.step(), Step::Send(_)));
    call.sent(10);
    call.head(made.status);
    call.body(made.bytes);
    call.end();
}

fn get<'m>(url: &'m str, customer: Option<&'m str>, status: u16, bytes: u64) -> Made<'m> {
    Made { method: "GET", url, customer, status, bytes }
}

const FLAGS: &str = "https://sdk.launchdarkly.com/sdk/latest-all";
const STRIPE: &str = "https://api.stripe.com/v1/balance";
const OPENAI: &str = "https://api.openai.com/v1/models";
const SLACK: &str = "https://hooks.slack.com/services/T0/B0/x";

/// An instrumented service, and a sidecar that sees it and a script besides.
fn scene(home: &Path) {
    let app = start(home, "checkout", Role::Program);
    app.adapter_installed("requests");
    for n in 0..30_u64 {
        let customer = ["acme", "globex", "initech"][(n % 3) as usize];
        make(&app, &get(FLAGS, None, 200, 1_204), CallerId::SELF, Tap::Library);
        make(
            &app,
            &get(STRIPE, Some(customer), if n < 3 { 429 } else { 200 }, 100 + n),
            CallerId::SELF,
            Tap::Library,
        );
    }
    for n in 0..6 {
        make(
            &app,
            &get(OPENAI, Some("acme"), if n < 5 { 500 } else { 200 }, 300 + n),
            CallerId::SELF,
            Tap::Library,
        );
    }
    app.flush();

    let sidecar = start(home, "farcall-sidecar", Role::Sidecar);
    let script = Caller {
        service: "notify.sh".into(),
        executable: "/usr/bin/curl".into(),
        pid: 4_000_000,
        pid_namespace: 0,
        started: 77,
        container: String::new(),
        user: "ops".into(),
    };
    let known = sidecar.engine().add_caller(script.clone());
    for _ in 0..4 {
        make(&sidecar, &get(SLACK, None, 200, 2), known, Tap::Kernel);
    }
    let minute = sidecar.now().minute();
    let me = Caller {
        pid: std::process::id(),
        started: app.engine().caller(CallerId::SELF).unwrap().started,
        ..Caller::new("exe-name")
    };
    sidecar.record_confirmed(vec![Confirmation {
        minute,
        caller: me.clone(),
        vendor: "stripe".into(),
        endpoint: "GET /v1/balance".into(),
        calls: 25,
    }]);
    let connection =
        |caller: &Caller, vendor: &str, explained_by, bytes: u64, reason: &str| ConnectionRollup {
            minute,
            caller: caller.clone(),
            vendor: vendor.into(),
            name: format!("api.{vendor}.example"),
            address: "203.0.113.7".into(),
            port: 443,
            library: "go".into(),
            verdict: if reason.is_empty() { Verdict::Complete } else { Verdict::Opaque },
            reason: reason.into(),
            explained_by,
            connections: 1,
            bytes_out: bytes,
            bytes_in: bytes,
            ..ConnectionRollup::default()
        };
    sidecar.record_connections(vec![
        connection(&me, "stripe", ExplainedBy::Library, 3_000, ""),
        connection(&script, "slack", ExplainedBy::Kernel, 1_000, ""),
        connection(&script, "example.org", ExplainedBy::Nobody, 500, "its TLS library cannot be tapped"),
        connection(&script, "example.org", ExplainedBy::Nobody, 500, "its TLS library cannot be tapped"),
    ]);
    for name in ["sidecar_skipped_programs", "sidecar_skipped_programs", "sidecar_ends_found_late"] {
        sidecar.count_failure(name);
    }
    app.count_failure("sidecar_is_no_business_of_a_program");
    sidecar.shutdown();
    app.shutdown();
}

#[test]
fn processes_that_are_not_told_apart_are_not_counted() {
    let home = tempfile::tempdir().unwrap();
    let app = start(home.path(), "checkout", Role::Program);
    make(&app, &get(STRIPE, None, 200, 1), CallerId::SELF, Tap::Library);
    app.flush();
    let sidecar = start(home.path(), "farcall-sidecar", Role::Sidecar);
    let curl = Caller { executable: "/usr/bin/curl".into(), pid: 0, started: 0, ..Caller::new("notify.sh") };
    let curl = sidecar.engine().add_caller(curl);
    for _ in 0..2 {
        make(&sidecar, &get(SLACK, None, 200, 2), curl, Tap::Kernel);
    }
    sidecar.shutdown();
    app.shutdown();

    let callers = report::callers(&Query::at(home.path())).unwrap();
    let known: Vec<_> = callers
        .rows
        .iter()
        .map(|row| (row.service.as_str(), row.pids.as_slice(), row.process_count))
        .collect();
    let me = [std::process::id()];
    assert_eq!(known, [("notify.sh", &[][..], None), ("checkout", &me[..], Some(1))]);
    let json = serde_json::to_value(&callers.rows[0]).unwrap();
    assert!(json["process_count"].is_null() && json["pids"] == serde_json::json!([]), "{json}");
    let table = callers.render(&Style::new(200, false));
    let line = table.lines().find(|line| line.contains("notify.sh")).unwrap();
    assert!(line.split_whitespace().nth(2) == Some("-"), "{table}");
}

#[test]
fn each_call_counts_once_and_each_question_has_its_answer() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let query = Query::at(home.path());

    let vendors = report::vendors(&query).unwrap();
    assert_eq!(vendors.totals.calls, 70);
    let named: Vec<(&str, u64, &str)> =
        vendors.rows.iter().map(|row| (row.label.as_str(), row.numbers.calls, row.numbers.tap)).collect();
    assert_eq!(
        named,
        [
            ("LaunchDarkly", 30, "library"),
            ("Stripe", 30, "library+kernel"),
            ("OpenAI", 6, "library"),
            ("Slack", 4, "kernel")
        ]
    );
    assert_eq!(vendors.rows[1].numbers.confirmed_calls, 25);
    assert_eq!(vendors.rows[1].customers, ["acme", "globex", "initech"]);
    assert_eq!((vendors.rows[0].numbers.bytes_in, vendors.rows[0].numbers.bytes_out), (30 * 1_204, 300));

    let customers = report::customers(&query).unwrap();
    assert_eq!(customers.rows[0].customer, "unknown");
    assert!((customers.rows.iter().map(|row| row.share).sum::<f64>() - 1.0).abs() < 1e-9);

    let callers = report::callers(&query).unwrap();
    let named: Vec<(&str, u64, bool)> =
        callers.rows.iter().map(|row| (row.service.as_str(), row.numbers.calls, row.instrumented)).collect();
    assert_eq!(named, [("checkout", 66, true), ("notify.sh", 4, false)]);

    let endpoints = report::endpoints(&query).unwrap();
    assert_eq!(endpoints.rows[0].endpoint, "GET /sdk/latest-all");
    assert!(endpoints.rows[0].ttfb_ms.is_some() && endpoints.rows[0].dns_ms.is_none());
    let table = endpoints.render(&Style::new(300, false));
    assert!(table.contains("(means: ttfb, transfer, dns, connect, tls; percentiles: p50"), "{table}");

    let calls = report::calls(&query).unwrap();
    assert_eq!(calls.rows.iter().filter(|call| call.error).count(), 4, "the slowest of each kind is kept");
    assert!(calls.rows.is_sorted_by(|a, b| a.begun >= b.begun));
}

#[test]
fn a_client_that_hides_a_part_of_connecting_leaves_the_others_mean_of_it_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let app = start(home.path(), "checkout", Role::Program);
    let ms = |millis| Some(Duration::from_millis(millis));
    let all = ConnectTimes { dns: ms(8), connect: ms(4), tls: ms(20) };
    let handshake = ConnectTimes { tls: ms(10), ..ConnectTimes::default() };
    let connect = |url: &str, times: ConnectTimes| {
        let mut call = app.guard(app.begin(&Head::to("GET", Target::parse(url).unwrap())));
        assert!(matches!(call.step(), Step::Send(_)));
        call.connected(times);
        call.head(200);
        call.end();
    };
    for times in [all, handshake, handshake, handshake, ConnectTimes::default()] {
        connect(STRIPE, times);
    }
    // Known, and too short to be seen.
    connect(OPENAI, ConnectTimes { dns: ms(0), ..ConnectTimes::default() });
    app.shutdown();

    let endpoints = report::endpoints(&Query::at(home.path())).unwrap();
    let [stripe, openai] = &endpoints.rows[..] else { panic!("two endpoints: {:?}", endpoints.rows) };
    let means = (stripe.dns_ms, stripe.connect_ms, stripe.tls_ms, stripe.connections);
    assert_eq!(means, (Some(8.0), Some(4.0), Some(12.5), 4));
    let means = (openai.dns_ms, openai.connect_ms, openai.tls_ms, openai.connections);
    assert_eq!(means, (Some(0.0), None, None, 1));
}

#[test]
fn coverage_says_what_is_explained_and_why_not() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let coverage = report::coverage(&Query::at(home.path())).unwrap();
    assert_eq!(coverage.totals.connections_percent, Some(50.0));
    assert_eq!(coverage.totals.bytes_percent, Some(80.0));
    assert_eq!(coverage.sentence, "50% of the connections and 80% of the bytes are explained");
    let dark = &coverage.rows[0];
    assert_eq!((dark.service.as_str(), dark.vendor.as_str()), ("notify.sh", "example.org"));
    assert_eq!((dark.unexplained.connections, dark.unexplained.bytes), (2, 2_000));
    assert_eq!(dark.reasons[0].reason, "its TLS library cannot be tapped");
    let gaps: Vec<_> = coverage.gaps.iter().map(|gap| (gap.name.as_str(), gap.count)).collect();
    assert_eq!(gaps, [("sidecar_skipped_programs", 2), ("sidecar_ends_found_late", 1)]);
    let mut wide = Style::default();
    wide.width = 400;
    let shown = coverage.render(&wide);
    assert!(
        shown.contains("- 2 times that the kernel skipped a program") && shown.contains("recursion_misses"),
        "{shown}"
    );
    // What the sidecar calls by its executable goes under the name that the program gives itself.
    assert!(coverage.rows.iter().any(|row| row.service == "checkout"));
}

#[test]
fn without_a_sidecar_coverage_says_so() {
    let home = tempfile::tempdir().unwrap();
    let app = start(home.path(), "checkout", Role::Program);
    make(&app, &get(STRIPE, None, 200, 1), CallerId::SELF, Tap::Library);
    drop(app);
    let coverage = report::coverage(&Query::at(home.path())).unwrap();
    assert!(!coverage.sidecar);
    assert_eq!(
        coverage.sentence,
        "no sidecar has run in this window: coverage unknown; start one with farcall-sidecar run"
    );
}

#[test]
fn findings_are_sentences_with_their_evidence() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let findings = report::findings(&Query::at(home.path())).unwrap();
    let rules: Vec<&str> = findings.rows.iter().map(|finding| finding.rule).collect();
    assert_eq!(
        rules,
        ["uncached-polling", "rate-limited", "errors", "uninstrumented", "opaque", "unattributed"]
    );
    let polling = &findings.rows[0];
    assert!(polling.sentence.starts_with("LaunchDarkly was asked 30 times "), "{}", polling.sentence);
    assert!(
        polling.sentence.ends_with(
            "GET /sdk/latest-all, as often as checkout asks for anything else; every answer had the same size \
             (1,204 bytes); nothing caches it."
        ),
        "{}",
        polling.sentence
    );
    assert_eq!(polling.evidence["calls"], 30);
    assert_eq!(polling.evidence["busiest_other_calls"], 30);
    assert_eq!(
        findings.rows[1].sentence,
        "Stripe answered 429 (too many requests) to 3 of 30 calls; 100% of its calls came from checkout, 33.3% \
         were for acme."
    );
    assert_eq!(
        findings.rows[2].sentence,
        "OpenAI failed 5 of 6 calls (83.3%), all with 500, most often GET /v1/models."
    );
    assert_eq!(
        findings.rows[4].sentence,
        "2 connections of notify.sh to api.example.org.example (2,000 bytes) cannot be explained, because its \
         TLS library cannot be tapped."
    );
}

#[test]
fn answers_of_different_sizes_are_not_polling() {
    let home = tempfile::tempdir().unwrap();
    let app = start(home.path(), "checkout", Role::Program);
    for n in 0..40 {
        make(&app, &get(OPENAI, None, 200, 100 * (n % 7 + 1)), CallerId::SELF, Tap::Library);
        make(&app, &get(STRIPE, None, 200, 50 + 90 * (n % 3)), CallerId::SELF, Tap::Library);
        if n % 10 == 0 {
            app.flush();
        }
    }
    drop(app);
    let findings = report::findings(&Query::at(home.path())).unwrap();
    assert!(findings.rows.is_empty(), "{:?}", findings.rows);
}

#[test]
fn filters_narrow_every_question() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let ask = |filter: &str| {
        let filter: Filter = filter.parse().unwrap();
        report::vendors(&Query::at(home.path()).filter(filter)).unwrap().totals.calls
    };
    assert_eq!(ask("vendor=stripe"), 30);
    assert_eq!(ask("status>=400"), 8);
    assert_eq!(ask("status=429"), 3);
    assert_eq!(ask("customer=!unknown"), 36);
    assert_eq!(ask("tap=kernel"), 4);
    assert_eq!(ask("caller=checkout"), 66);
    assert_eq!(ask("caller.executable=*/curl"), 4);
    assert_eq!(ask("endpoint=GET /v1/*"), 36);
    let refused = report::coverage(&Query::at(home.path()).filter("status=500".parse().unwrap()));
    assert!(matches!(refused, Err(ReportError::Filter(_))));
}

#[test]
fn all_tables_fit_into_eighty_columns() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let query = Query::at(home.path());
    for name in ["vendors", "endpoints", "customers", "callers", "coverage", "calls", "findings", "all"] {
        let report = name.parse::<Question>().unwrap().ask(&query).unwrap();
        for width in [60, 80, 132] {
            let text = report.render(&Style::new(width, false));
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{name} at {width}: {line}");
            }
            assert!(text.lines().count() > 2, "{name}: {text}");
        }
    }
}

#[test]
fn an_empty_window_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    drop(start(home.path(), "idle", Role::Program));
    let text = report::vendors(&Query::at(home.path())).unwrap().render(&Style::default());
    assert!(text.contains("No calls in this window."), "{text}");
    let absent = report::vendors(&Query::at(home.path().join("nowhere")));
    assert!(matches!(absent, Err(ReportError::NoLedger(_))));
}
