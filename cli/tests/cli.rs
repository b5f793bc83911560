//! What the command line promises to people and scripts.
#![allow(clippy::unwrap_used, missing_docs)]

use farcall::{Head, Step};
use farcall_agent::{Farcall, Options};
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn farcall(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farcall"));
    command.args(arguments).env("FARCALL_HOME", home).env("COLUMNS", "80").current_dir(home);
    command.env_remove("FARCALL_CONFIG");
    command
}

fn run(home: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = farcall(home, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn ledger(home: &Path, calls: usize) {
    let farcall = Farcall::start(Options {
        home: Some(home.into()),
        service: Some("checkout".into()),
        flush_every: None,
        ..Options::default()
    });
    farcall.adapter_installed("requests");
    for n in 0..calls {
        let customer = format!("customer-{n:05}");
        let head = Head::new("GET", "https://api.stripe.com/v1/balance").customer(Some(&customer));
        let mut call = farcall.guard(farcall.begin(&head));
        assert!(matches!(call.step(), Step::Send(_)));
        call.head(200);
        call.body(1_500);
        call.end();
    }
    farcall.shutdown();
}

#[test]
fn a_table_has_units_totals_and_fits() {
    let home = tempfile::tempdir().unwrap();
    ledger(home.path(), 1_234);
    let (code, out, _) = run(home.path(), &["report", "vendors"]);
    assert_eq!(code, 0);
    assert!(out.contains("Stripe  1,234") && out.contains("1.9MB") && out.contains("total"), "{out}");
    assert!(!out.contains('\x1b'), "no colours in a pipe: {out}");
    assert!(out.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn json_is_what_the_documentation_says() {
    let home = tempfile::tempdir().unwrap();
    ledger(home.path(), 3);
    let documented = include_str!("../../docs/report.md");
    for question in [
        "vendors",
        "endpoints",
        "customers",
        "callers",
        "coverage",
        "calls",
        "incidents",
        "quotas",
        "budgets",
        "notices",
        "findings",
        "all",
    ] {
        let (code, out, err) = run(home.path(), &["report", question, "--json"]);
        assert_eq!(code, 0, "{err}");
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        if question != "all" {
            assert_eq!(json["report"], question);
        }
        keys(&json, &mut |key| {
            assert!(
                documented.contains(&format!("`{key}`")) || documented.contains(&format!("\"{key}\"")),
                "{question}: `{key}` is not documented"
            );
        });
    }
    let (_, out, _) = run(home.path(), &["doctor", "--json"]);
    keys(&serde_json::from_str(&out).unwrap(), &mut |key| {
        assert!(
            documented.contains(&format!("`{key}`")) || documented.contains(&format!("\"{key}\"")),
            "doctor: `{key}` is not documented"
        );
    });
}

fn keys(json: &serde_json::Value, each: &mut impl FnMut(&str)) {
    match json {
        serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| {
            each(key);
            keys(value, each);
        }),
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, each)),
        _ => {}
    }
}

#[test]
fn a_filter_that_no_row_matches_is_named_with_what_to_write_instead() {
    let home = tempfile::tempdir().unwrap();
    ledger(home.path(), 12);
    let said = |arguments: &[&str]| {
        let (code, out, err) = run(home.path(), arguments);
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
        out.replace('\n', " ").trim_end().to_owned()
    };
    let of = |filter: &str, more: &str| format!("No row of this window matches {filter}{more}");
    for (filter, says) in [
        ("vendor=stripe.com", ": stripe.com is a domain of the vendor stripe; write vendor=stripe."),
        ("vendor=strpie", "; did you mean vendor=stripe?"),
        ("vendor=twitch", "; there are stripe."),
        ("vendor!=stripe", "."),
        ("vendor.tag=paymnets", "; did you mean vendor.tag=payments?"),
        ("customer=custmer-00003", "; did you mean customer=customer-00003?"),
        (
            "customer=zz*",
            "; there are customer-00000, customer-00001, customer-00002, customer-00003, customer-00004, customer-00005, \
             customer-00006, customer-00007 and 4 more.",
        ),
        ("caller=chekout", "; did you mean caller=checkout?"),
        ("outcome=compelte", "; did you mean outcome=complete?"),
        ("endpoint=/v1/balance", "; did you mean 'endpoint=GET /v1/balance'?"),
    ] {
        for question in ["vendors", "endpoints", "customers", "callers", "calls", "findings", "all"] {
            let filter_said =
                if filter.contains(['*', '!']) { format!("'{filter}'") } else { filter.to_owned() };
            assert_eq!(said(&["report", question, filter]), of(&filter_said, says), "{question}");
        }
    }
    assert_eq!(said(&["report", "vendors", "status>=500"]), of("'status>=500'", "."));
    assert_eq!(
        said(&["report", "vendors", "vendor=strpie", "caller=chekout"]),
        of("vendor=strpie", "; did you mean vendor=stripe? ")
            + &of("caller=chekout", "; did you mean caller=checkout?")
    );
    assert_eq!(
        said(&["report", "vendors", "customer=customer-00001", "customer=customer-00002"]),
        of("customer=customer-00001", " and customer=customer-00002 together.")
    );
    assert_eq!(
        said(&["report", "incidents", "vendor=strpie"]),
        of("vendor=strpie", "; did you mean vendor=stripe?")
    );
    assert_eq!(said(&["report", "quotas", "vendor=stripe"]), of("vendor=stripe", "."));
    assert_eq!(said(&["advise", "--vendor", "strpie"]), of("vendor=strpie", "; did you mean vendor=stripe?"));
    // What is there, and what programs read, is as it was.
    assert!(said(&["report", "vendors", "vendor=stripe"]).contains("Stripe     12"));
    assert!(said(&["report", "findings", "vendor=stripe"]).contains("Nothing stands out."));
    let json: Value = serde_json::from_str(&said(&["report", "vendors", "vendor=strpie", "--json"])).unwrap();
    assert_eq!((&json["rows"], &json["notes"]), (&json!([]), &json!([])));
    let (_, out, err) = run(home.path(), &["policy", "recommend", "vendor=strpie"]);
    assert!(!out.contains("strpie") && err.contains("did you mean vendor=stripe?"), "{out}{err}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    // More than a pipe holds.
    ledger(home.path(), 3_000);
    let mut child = farcall(home.path(), &["report", "customers", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn exit_codes_tell_what_happened() {
    let home = tempfile::tempdir().unwrap();
    let (code, _, err) = run(home.path(), &["report", "vendors"]);
    assert_eq!(code, 3);
    assert!(err.contains("there is no ledger in") && err.contains("farcall installed"), "{err}");
    let (code, _, err) = run(home.path(), &["report", "vendors", "vendr=x"]);
    assert_eq!(code, 2);
    assert!(err.contains("`vendr` is not a key; the keys are vendor,"), "{err}");
    let (code, _, err) = run(home.path(), &["report", "vendors", "--since", "yesterday"]);
    assert_eq!(code, 2);
    assert!(err.contains("such as 30s, 15m, 1h or 7d"), "{err}");

    ledger(home.path(), 1);
    assert_eq!(run(home.path(), &["report", "coverage", "status=500"]).0, 2);
    assert_eq!(run(home.path(), &["doctor"]).0, 0);
    std::fs::write(home.path().join("ledger.db.corrupt-17"), "").unwrap();
    let (code, out, _) = run(home.path(), &["doctor"]);
    assert_eq!(code, 1);
    assert!(out.contains("moved aside to ledger.db.corrupt-17"), "{out}");
}

#[test]
fn help_teaches_by_example() {
    let home = tempfile::tempdir().unwrap();
    let (mut left, mut taught) = (vec![Vec::new()], 0);
    while let Some(command) = left.pop() {
        let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let (code, help, _) = run(home.path(), &arguments);
        assert_eq!(code, 0);
        let further = subcommands(&command, &help);
        // What only holds others leaves it to them.
        if further.is_empty() || command.is_empty() {
            let words = ["farcall".to_owned()].into_iter().chain(command).collect::<Vec<_>>().join(" ");
            let examples = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{words}: {help}")).1;
            let shown = |line: &str| line.strip_prefix("  ").is_some_and(|line| line.starts_with(&words));
            assert!(examples.lines().any(shown), "{words}: {help}");
            taught += 1;
        }
        left.extend(further);
    }
    assert!(taught > 20, "{taught}");
}

/// The subcommands that a help lists, each with its words from the beginning.
fn subcommands(of: &[String], help: &str) -> Vec<Vec<String>> {
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let names = list.lines().take_while(|line| !line.is_empty());
    let names = names.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !name.is_empty() && *name != "help");
    names.map(|name| of.iter().cloned().chain([name.to_owned()]).collect()).collect()
}

#[test]
fn the_files_that_help_names_are_there() {
    let home = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut left, mut asked, mut named) = (vec![Vec::new()], 0, 0);
    while let Some(command) = left.pop() {
        let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let (_, help, _) = run(home.path(), &arguments);
        left.extend(subcommands(&command, &help));
        asked += 1;
        let words = help.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | '`' | '\''));
        for word in words.map(|word| word.trim_end_matches('.')) {
            if word.starts_with("examples/") || word.starts_with("docs/") {
                assert!(root.join(word).is_file(), "{command:?} names {word}");
                named += 1;
            }
        }
    }
    assert!(asked > 15 && named > 2, "{asked} {named}");
}

#[test]
fn an_alarm_can_be_tried_and_says_what_did_not_go_out() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("farcall.toml");
    std::fs::write(&file, "service = \"shop\"\n").unwrap();
    let (code, out, _) = run(home.path(), &["alarm", "test"]);
    assert!(code == 1 && out.contains("names no way"), "{code} {out}");
    let log = home.path().join("alarms.log");
    std::fs::write(&file, format!("service = \"shop\"\n[alarm]\nlog = \"{}\"\n", log.display())).unwrap();
    let (code, out, _) = run(home.path(), &["alarm", "test"]);
    assert_eq!((code, out.as_str()), (0, "log: it went out\n"));
    assert!(
        std::fs::read_to_string(&log).unwrap().contains(r#""alarm":"test","rule":"test","service":"shop""#)
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let (code, _, why) = run(elsewhere.path(), &["alarm", "test"]);
    assert!(code == 2 && why.contains("farcall alarm test --config"), "{code} {why}");
    let (code, out, _) = run(elsewhere.path(), &["alarm", "test", "--home", home.path().to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (0, "log: it went out\n"));
    let critical = "[[vendor]]\nname = \"pager\"\nhosts = [\"127.0.0.1\"]\n\
                    [[outbox]]\nmatch = { vendor = \"pager\", endpoint = \"POST /x\" }\ncritical = true\n\
                    [alarm]\nwebhook = \"http://127.0.0.1:1/hook\"\ntimeout = \"200ms\"\n";
    std::fs::write(&file, critical).unwrap();
    let (code, out, _) = run(home.path(), &["alarm", "test", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, said["webhook_at_vendor"].as_str()), (1, Some("pager")), "{out}");
    assert!(said["ways"][0]["failure"].as_str().unwrap().starts_with("127.0.0.1: "), "{out}");
    let (_, out, _) = run(home.path(), &["config", "check"]);
    assert!(
        out.contains("1 outbox rule")
            && out.contains("farcall.toml:4:1: warning: the alarm's webhook goes to pager"),
        "{out}"
    );
}

#[test]
fn an_alarm_goes_to_the_collector_that_the_environment_names() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("farcall.toml"), "service = \"shop\"\n[otlp]\n").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/otlp", listener.local_addr().unwrap());
    let collector = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let (mut request, mut byte) = (Vec::new(), [0]);
        while !request.ends_with(b"\r\n\r\n") {
            connection.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        let mut head = String::from_utf8(request).unwrap();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        connection.read_exact(&mut body).unwrap();
        head += &String::from_utf8(body).unwrap();
        let taken = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        std::io::Write::write_all(&mut connection, taken.as_bytes()).unwrap();
        head
    });
    let mut command = farcall(home.path(), &["alarm", "test"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b");
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "event: it went out\n");
    let request = collector.join().unwrap();
    assert!(request.starts_with("POST /otlp/v1/logs HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\napi-key: a b\r\n") && request.contains(r#""eventName":"farcall.alarm""#));
    // By a protocol that is not spoken here nothing goes out, and that is said.
    let mut command = farcall(home.path(), &["alarm", "test"]);
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.code() == Some(1)
            && said.contains("event: it did not go out: ")
            && said.contains("grpc")
    );
}
