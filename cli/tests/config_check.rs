//! What `farcall config check` promises: every error with its place, and rules that are surely not meant.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::{Value, json};
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

#[test]
fn config_check_shows_every_error_with_its_place() {
    let home = tempfile::tempdir().unwrap();
    let (code, _, err) = run(home.path(), &["config", "check"]);
    assert_eq!(code, 2);
    assert!(err.contains("there is no farcall.toml here"), "{err}");

    std::fs::write(home.path().join("farcall.toml"), "servce = \"x\"\n[ledger]\nretention = 7\n").unwrap();
    let (code, out, _) = run(home.path(), &["config", "check"]);
    assert_eq!(code, 1);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert_eq!(lines[0], "farcall.toml:1:1: unknown key `servce`; did you mean `service`?");

    std::fs::write(home.path().join("latin.toml"), b"# ours\nservice = \"caf\xe9\"\n").unwrap();
    let (code, out, _) = run(home.path(), &["config", "check", "latin.toml"]);
    let wrong = "latin.toml:2:15: this is not UTF-8: the byte 0xe9; save the file as UTF-8\n";
    assert_eq!((code, out.as_str()), (1, wrong));
    let (code, _, err) = run(home.path(), &["simulate", "latin.toml"]);
    assert!(code == 2 && err.contains(wrong), "{code} {err}");
    let (code, _, err) = run(home.path(), &["rollout", "ls", "--config", "latin.toml"]);
    assert!(code == 2 && err.contains(wrong), "{code} {err}");

    std::fs::write(home.path().join("right.toml"), "service = \"x\"\n").unwrap();
    let (code, out, _) = run(home.path(), &["config", "check", "right.toml"]);
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "right.toml is right: 0 vendors of your own.\nNo rules: every call is sent as it is, and counted.\n"
        )
    );
}

#[test]
fn config_check_says_the_same_in_json() {
    let home = tempfile::tempdir().unwrap();
    let checked = |text: &str, arguments: &[&str]| {
        std::fs::write(home.path().join("farcall.toml"), text).unwrap();
        let (code, out, _) = run(home.path(), &[&["config", "check", "--json"], arguments].concat());
        (code, serde_json::from_str::<Value>(&out).unwrap())
    };
    let (code, wrong) = checked("servce = \"x\"\n", &[]);
    let what = "unknown key `servce`; did you mean `service`?";
    let errors = json!([{"line": 1, "column": 1, "message": what}]);
    assert_eq!(
        (code, wrong),
        (1, json!({"file": "farcall.toml", "errors": errors, "warnings": [], "in_force": []}))
    );

    let twice = "[[policy]]\nname = \"a\"\nmatch = { vendor = \"stripe\" }\nverdict = \"deny\"\n";
    let (code, warned) = checked(&format!("{twice}{}", twice.replace("\"a\"", "\"b\"")), &[]);
    let (_, text, _) = run(home.path(), &["config", "check"]);
    let [warning] = warned["warnings"].as_array().unwrap().as_slice() else { panic!("{warned}") };
    let line =
        format!("farcall.toml:{}:1: warning: {}\n", warning["line"], warning["message"].as_str().unwrap());
    assert_eq!(warning["column"], 1);
    assert!(code == 0 && text.ends_with(&line), "{text} {line}");
    assert_eq!(warned["in_force"][1], json!({"kind": "policy", "rules": 2}));
    assert_eq!(checked(twice, &["--strict"]).0, 0);
    assert_eq!(checked(&format!("{twice}{twice}"), &["--strict"]).0, 1);
}

#[test]
fn config_check_warns_of_rules_that_are_surely_not_meant() {
    let home = tempfile::tempdir().unwrap();
    let rule =
        |verdict: &str| format!("[[policy]]\nmatch = {{ vendor = \"stripe\" }}\nverdict = \"{verdict}\"\n");
    let text = format!(
        "{}{}[[budget]]\nmatch = {{}}\nlimit = \"5 USD / day\"\n[[quota]]\nmatch = {{ vendor = \"stripe\" }}\nlimit = \"5 requests / 1s\"\n[[cache]]\nmatch = {{}}\nttl = \"1h\"\n",
        rule("deny"),
        rule("allow")
    );
    std::fs::write(home.path().join("farcall.toml"), text).unwrap();
    let (code, out, _) = run(home.path(), &["config", "check"]);
    assert_eq!(code, 0, "a warning is no error: {out}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[1], "In force: 2 policy rules, 1 budget, 1 quota, 1 cache rule.");
    assert!(
        lines[2].contains("farcall.toml:4:1: warning: ")
            && lines[2].contains("one says allow, the other deny, and deny holds"),
        "{out}"
    );
    assert_eq!((lines.len(), run(home.path(), &["config", "check", "--strict"]).0), (3, 1));
}

#[test]
fn config_check_warns_of_places_for_the_outbox_that_are_not_there_and_is_not_strict_about_them() {
    let home = tempfile::tempdir().unwrap();
    let there = home.path().join("outbox-copy.db");
    let away = home.path().join("away").join("outbox.db");
    let config = format!(
        "[outbox_store]\nstore = \"$FARCALL_TEST_NO_STORE\"\ncopies = [{there:?}, {away:?},\n  \"$FARCALL_TEST_NO_COPY\"]\n"
    );
    std::fs::write(home.path().join("farcall.toml"), &config).unwrap();
    let (code, out, _) = run(home.path(), &["config", "check", "--strict"]);
    assert_eq!(code, 0, "{out}");
    let column = 13 + format!("{there:?}").chars().count();
    for said in [
        "farcall.toml:2:9: warning: the environment variable FARCALL_TEST_NO_STORE is not set here; where the service runs it has to be, or no call is taken".to_owned(),
        format!("farcall.toml:3:{column}: warning: the directory {} is not there on this machine", away.parent().unwrap().display()),
        "farcall.toml:4:3: warning: the environment variable FARCALL_TEST_NO_COPY is not set here; where the service runs it has to be, or calls that need it are refused".to_owned(),
    ] {
        assert!(out.lines().any(|line| line.starts_with(&said)), "{said}\n{out}");
    }
    assert_eq!(out.matches("warning: ").count(), 3, "{out}");
}

#[test]
fn config_check_warns_of_rules_that_protect_nothing() {
    let home = tempfile::tempdir().unwrap();
    let text = "allow_faults = true\n\
        [[policy]]\nmatch = { vendor.tag = \"paymnets\" }\nverdict = \"deny\"\n\
        [[fault]]\nmatch = {}\nshare = \"5%\"\nstatus = 503\nexpires = \"2020-01-01T00:00:00Z\"\n";
    std::fs::write(home.path().join("farcall.toml"), text).unwrap();
    let (code, out, _) = run(home.path(), &["config", "check"]);
    assert_eq!(code, 0, "a warning is no error: {out}");
    let tag = "farcall.toml:3:24: warning: no vendor has the tag `paymnets`; did you mean `payments`?";
    let fault = "farcall.toml:9:11: warning: the rule `fault@5` in line 5 has ended";
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines.len(), lines[1]), (4, "In force: 1 policy rule, 1 fault."), "{out}");
    assert!(lines[2].ends_with(tag) && lines[3].contains(fault), "{out}");
    assert_eq!(run(home.path(), &["config", "check", "--strict"]).0, 1);
}

#[test]
fn an_endpoint_is_matched_whatever_its_placeholders_are_called_and_told_where_no_call_has_it() {
    let home = tempfile::tempdir().unwrap();
    let verdict = |endpoint: &str| {
        let text = format!(
            "[[policy]]\nmatch = {{ vendor = \"stripe\", endpoint = \"{endpoint}\" }}\nverdict = \"deny\"\n"
        );
        std::fs::write(home.path().join("farcall.toml"), text).unwrap();
        let url = "https://api.stripe.com/v1/customers/cus_123";
        let (_, checked, _) = run(home.path(), &["config", "check"]);
        (run(home.path(), &["policy", "test", "GET", url]).0, checked)
    };
    let (denied, checked) = verdict("GET /v1/customers/{id}");
    assert_eq!((denied, checked.contains("warning")), (1, false), "{checked}");
    let (denied, checked) = verdict("GET /v1/customers/cus_123");
    assert_eq!(denied, 0);
    assert!(
        checked.contains("Stripe has `GET /v1/customers/{customer}` for it in the catalogue"),
        "{checked}"
    );
}

#[test]
fn a_named_vendors_domain_and_a_price_of_no_endpoint_are_warned_of() {
    let home = tempfile::tempdir().unwrap();
    let check = |vendor: &str, endpoint: &str| {
        let text = format!(
            "[[policy]]\nmatch = {{ vendor = \"{vendor}\" }}\nverdict = \"deny\"\n\
             [[price]]\nvendor = \"stripe\"\nendpoint = \"{endpoint}\"\ncall = \"1 USD / 1k calls\"\n"
        );
        std::fs::write(home.path().join("next.toml"), text).unwrap();
        run(home.path(), &["config", "check", "--strict", "next.toml"])
    };
    let (code, out, _) = check("stripe.com", "POST /v1/chargez");
    assert!(
        code == 1 && out.contains("next.toml:2:20: warning: `stripe.com` is only what nobody named"),
        "{out}"
    );
    assert!(out.contains("next.toml:6:12: warning: Stripe has no endpoint `POST /v1/chargez`"), "{out}");
    // It is as they say.
    let test = |config: &str| {
        std::fs::rename(home.path().join("next.toml"), home.path().join(config)).unwrap();
        run(home.path(), &["policy", "test", "GET", "https://api.stripe.com/v1/balance"]).0
    };
    assert_eq!(test("farcall.toml"), 0, "no rule is about it");
    let (code, out, _) = check("stripe", "POST /v1/charges");
    assert!(code == 0 && !out.contains("warning"), "{out}");
    assert_eq!(test("farcall.toml"), 1, "denied");
}
