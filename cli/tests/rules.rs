//! What the command line promises about rules: explained, tried before they are in force, checked.
#![allow(clippy::unwrap_used, missing_docs)]

use farcall::units::Period;
use farcall::{Head, Step};
use farcall_agent::report::Query;
use farcall_agent::{Farcall, Options};
use rusqlite::{Connection, params};
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

const RULES: &str = r#"
[[price]]
vendor = "stripe"
call = "0.01 USD / call"

[[policy]]
name = "no-slack"
match = { vendor = "slack" }
verdict = "deny"
reason = "nobody talks to slack"

[[budget]]
name = "money"
match = { vendor = "stripe", customer = "*" }
limit = "10 USD / month"
over = "refuse"
"#;

/// Thirty calls to Stripe, one to Slack that a rule refuses, and an incident.
fn ledger(home: &Path) {
    std::fs::write(home.join("farcall.toml"), RULES).unwrap();
    let farcall = Farcall::start(Options {
        home: Some(home.into()),
        config: Some(home.join("farcall.toml")),
        service: Some("checkout".into()),
        flush_every: None,
        ..Options::default()
    });
    farcall.adapter_installed("requests");
    let urls = (0..30)
        .map(|_| "https://api.stripe.com/v1/balance")
        .chain(["https://slack.com/api/chat.postMessage"]);
    for (n, url) in urls.enumerate() {
        let head = Head::new("GET", url).customer(Some(if n % 10 == 0 { "globex" } else { "acme" }));
        let mut call = farcall.guard(farcall.begin(&head));
        if matches!(call.step(), Step::Send(_)) {
            call.head(200);
            assert!(matches!(call.step(), Step::Settled));
            call.body(10);
            call.end();
        }
    }
    farcall.shutdown();
    let ledger = Connection::open(home.join("ledger.db")).unwrap();
    let month = Period::Month.number(Query::at(home).now);
    ledger
        .execute(
            "REPLACE INTO spending (budget, partition, period, spent, at) VALUES ('money, USD / month', 'customer=acme', ?1, 270000000, 1)",
            [i64::try_from(month).unwrap()],
        )
        .unwrap();
    let minute: i64 = ledger.query_row("SELECT min(minute) FROM rollups", [], |row| row.get(0)).unwrap();
    let at = minute * 60_000_000_000;
    let json = format!(
        r#"{{"vendor":"stripe","policy":"default","kind":"rate","at":{at},"count":2,"answers":[{{"status":403,"kind":"rate","count":2}}],"unit":"requests"}}"#
    );
    ledger
        .execute(
            "INSERT INTO incidents (id, source, at, vendor, incident) VALUES (7, 'a test', ?1, 'stripe', ?2)",
            params![at, json],
        )
        .unwrap();
}

#[test]
fn an_incident_and_a_call_are_explained_in_sentences() {
    let home = tempfile::tempdir().unwrap();
    ledger(home.path());
    let (code, out, err) = run(home.path(), &["report", "incidents"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("403: too fast") && out.contains("farcall explain incident 7"), "{out}");
    let (code, out, _) = run(home.path(), &["explain", "incident", "7"]);
    assert_eq!(code, 0);
    assert!(
        out.starts_with("Incident 7, Stripe\nAt 20")
            && out.contains("refused 2 calls of")
            && out.contains("(403)."),
        "{out}"
    );
    assert!(out.contains("These shares are by the minute") && out.contains("Customer acme used "), "{out}");
    let (code, _, err) = run(home.path(), &["explain", "incident", "8"]);
    assert_eq!(code, 2);
    assert!(err.contains("there is no incident 8") && err.contains("farcall report incidents"), "{err}");

    let (_, out, _) = run(home.path(), &["report", "calls", "vendor=slack", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let id = json["rows"][0]["id"].as_str().unwrap();
    let (code, out, _) = run(home.path(), &["explain", "call", id]);
    assert_eq!(code, 0);
    assert!(out.contains("It was refused by the policy") && out.contains("nothing was sent"), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
}

#[test]
fn budgets_are_shown_with_what_is_left_to_them() {
    let home = tempfile::tempdir().unwrap();
    ledger(home.path());
    let (code, out, _) = run(home.path(), &["report", "budgets", "customer=acme"]);
    assert_eq!(code, 0);
    let row = out.lines().find(|line| line.contains("customer=acme")).expect(&out);
    assert!(row.contains("0.27 of 10.00 USD/month") && row.contains("2.7%"), "{out}");
    assert!(row.contains("pass") && row.contains("refuse"), "{out}");
}

#[test]
fn a_policy_is_tested_backtested_and_recommended() {
    let home = tempfile::tempdir().unwrap();
    ledger(home.path());
    let (code, out, _) =
        run(home.path(), &["policy", "test", "GET", "https://slack.com/api/chat.postMessage"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("refused by `no-slack`") && out.contains("nobody talks to slack"), "{out}");
    let (code, out, _) = run(
        home.path(),
        &[
            "policy",
            "test",
            "--caller",
            "service=billing",
            "--tag",
            "team=core",
            "get",
            "https://api.stripe.com/v1/balance",
        ],
    );
    assert_eq!(code, 0, "{out}");
    assert!(
        out.contains("from billing,")
            && out.contains("team=core")
            && out.contains("- no-slack (line 6): vendor"),
        "{out}"
    );
    let (code, _, err) =
        run(home.path(), &["policy", "test", "--caller", "pid=7", "GET", "https://x.example/"]);
    assert_eq!(code, 2);
    assert!(err.contains("a caller has no `pid`; write --caller service=NAME"), "{err}");

    let (code, _, err) = run(home.path(), &["policy", "test", "", "https://x.example/"]);
    assert_eq!(code, 2);
    assert!(err.contains("a call has a method; write one such as GET or POST"), "{err}");

    std::fs::write(home.path().join("next.toml"), "[[policy]]\nname = \"stop\"\nmatch = { vendor = \"stripe\", customer = \"acme\" }\nverdict = \"deny\"\n").unwrap();
    let (code, out, _) = run(home.path(), &["policy", "backtest", "next.toml"]);
    assert_eq!(code, 0);
    let sentence = "Of 31 calls it would have refused 27 of acme, which cost 0.27 USD as far as";
    assert!(out.contains(sentence) && out.contains("stop"), "{out}");
    std::fs::write(home.path().join("bad.toml"), "[[policy]]\nverdict = \"deny\"\n").unwrap();
    let (code, _, err) = run(home.path(), &["policy", "backtest", "bad.toml"]);
    assert_eq!(code, 2);
    assert!(err.contains("bad.toml:1:1: `match` is missing"), "{err}");

    let (code, toml, _) = run(home.path(), &["policy", "recommend"]);
    assert_eq!(code, 0);
    assert!(
        toml.contains("[[policy]]") && toml.contains("final = true") && !toml.contains("slack"),
        "{toml}"
    );
    std::fs::write(home.path().join("policy.toml"), &toml).unwrap();
    let (code, out, _) = run(home.path(), &["config", "check", "--strict", "policy.toml"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("In force: 2 policy rules."), "{out}");
}

#[test]
fn a_host_in_a_vendors_place_is_told_of_wherever_it_is_named() {
    let home = tempfile::tempdir().unwrap();
    ledger(home.path());
    let remedy = "the vendor `partner.example.com` is not known: a host that nobody named goes by its domain; write \
                  `example.com`, or, for this host alone, match its `host`, or name it in a [[vendor]]";
    for rule in [
        "[[policy]]\nmatch = { vendor = \"partner.example.com\" }\nverdict = \"deny\"\n",
        "[[quota]]\nmatch = { vendor = [\"stripe\", \"partner.example.com\"] }\nlimit = \"5 requests / 1s\"\n",
        "[[price]]\nvendor = \"partner.example.com\"\ncall = \"1 USD / call\"\n",
    ] {
        std::fs::write(home.path().join("next.toml"), rule).unwrap();
        let (code, out, _) = run(home.path(), &["config", "check", "next.toml"]);
        assert!(code == 1 && out.starts_with("next.toml:2:") && out.contains(remedy), "{rule}: {out}");
    }
    for command in [&["report", "calls"][..], &["report", "vendors"], &["report", "quotas"]] {
        let arguments: Vec<&str> = command.iter().copied().chain(["vendor=partner.example.com"]).collect();
        let (code, _, why) = run(home.path(), &arguments);
        assert!(code == 2 && why.contains(remedy), "{arguments:?}: {code} {why}");
    }
    assert_eq!(run(home.path(), &["report", "calls", "vendor=example.com"]).0, 0);
}

#[test]
fn the_json_of_each_answer_is_documented() {
    let home = tempfile::tempdir().unwrap();
    ledger(home.path());
    let documented = include_str!("../../docs/report.md");
    let id = {
        let (_, out, _) = run(home.path(), &["report", "calls", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        json["rows"][0]["id"].as_str().unwrap().to_owned()
    };
    for arguments in [
        &["report", "incidents", "--json"][..],
        &["report", "budgets", "--json"],
        &["report", "calls", "--json"],
        &["explain", "incident", "7", "--json"],
        &["explain", "call", &id, "--json"],
        &["policy", "test", "GET", "https://slack.com/api/chat.postMessage", "--json"],
        &["policy", "test", "GET", "https://api.stripe.com/v1/balance", "--json"],
        &["policy", "backtest", "farcall.toml", "--json"],
        &["policy", "recommend", "--json"],
    ] {
        let (_, out, err) = run(home.path(), arguments);
        let json: serde_json::Value =
            serde_json::from_str(&out).unwrap_or_else(|_| panic!("{arguments:?}: {err}"));
        keys(&json, &mut |key| {
            let known =
                documented.contains(&format!("`{key}`")) || documented.contains(&format!("\"{key}\""));
            assert!(known, "{arguments:?}: `{key}` is not documented");
        });
    }
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
fn a_purge_says_whom_it_told_and_what_it_does_not_understand() {
    let home = tempfile::tempdir().unwrap();
    let (code, _, why) = run(home.path(), &["cache", "purge", "vendor=stripe"]);
    assert_eq!(code, 3, "{why}");
    ledger(home.path());
    let (code, said, _) = run(home.path(), &["cache", "purge", "vendor=stripe", "endpoint=GET /v1/*"]);
    assert!(
        code == 0 && said.starts_with("No program that runs here is known yet to have kept anything"),
        "{said}"
    );
    assert!(said.contains("only just begun forgets all the same"), "{said}");
    assert!(said.contains("What lies in a Redis stays there"), "{said}");
    let (code, said, _) = run(home.path(), &["cache", "purge", "--all", "--json"]);
    assert_eq!((code, said.as_str()), (0, "{\n  \"programs\": 0\n}\n"));
    let (code, _, why) = run(home.path(), &["cache", "purge", "vendor=stirpe"]);
    assert_eq!(code, 2, "{why}");
    assert!(why.contains("the vendor `stirpe` is not known; did you mean `stripe`?"), "{why}");
    let (code, _, why) = run(home.path(), &["cache", "purge", "vendor=rates.example.com"]);
    assert_eq!(code, 2, "{why}");
    assert!(why.contains("goes by its domain; write `example.com`"), "{why}");
    for known in ["vendor=str*", "vendor!=stripe", "vendor=STRIPE", "vendor=example.com"] {
        assert_eq!(run(home.path(), &["cache", "purge", known]).0, 0, "{known}");
    }
    let rules = std::fs::read_to_string(home.path().join("farcall.toml")).unwrap();
    let own = "[[vendor]]\nname = \"in-house\"\nhosts = [\"api.in-house.example\"]\n";
    std::fs::write(home.path().join("farcall.toml"), rules + own).unwrap();
    assert_eq!(run(home.path(), &["cache", "purge", "vendor=in-house"]).0, 0);
    // A file that cannot be read is said where it may be why a name is not known.
    std::fs::write(home.path().join("farcall.toml"), [own.as_bytes(), b"# caf\xe9\n"].concat()).unwrap();
    let (code, _, why) = run(home.path(), &["cache", "purge", "vendor=in-house"]);
    let place = "farcall.toml:4:6: this is not UTF-8: the byte 0xe9; save the file as UTF-8";
    assert!(code == 2 && why.contains("`in-house` is not known") && why.contains(place), "{code} {why}");
    assert_eq!(run(home.path(), &["cache", "purge", "vendor=stripe"]).0, 0);
    // Of all keys of a `match`, those that are known of an answer.
    for unknown in ["status=200", "foo=bar", "caller=checkout"] {
        let (code, _, why) = run(home.path(), &["cache", "purge", unknown]);
        assert_eq!(code, 2, "{why}");
        assert!(why.contains("known by vendor, endpoint, method and customer") && why.len() < 160, "{why}");
    }
    for wrong in [&["cache", "purge"][..], &["cache", "purge", "stripe"], &["cache", "purge", "vendr=stripe"]]
    {
        assert_eq!(run(home.path(), wrong).0, 2, "{wrong:?}");
    }
}

#[test]
fn a_canary_that_is_not_there_is_told_from_one_that_nobody_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let rule = |name: &str, share: &str| {
        format!(
            "[[rollout]]\nname = \"{name}\"\nmatch = {{ vendor = \"stripe\" }}\nvariant = {{ path_prefix = \"/v2\" }}\n{share}\n"
        )
    };
    let canary = "canary = { steps = [\"50%\", \"100%\"] }";
    let file = home.join("farcall.toml");
    std::fs::write(
        &file,
        rule("stripe-v2", canary) + &rule("eu", canary) + &rule("by-hand", "share = \"5%\""),
    )
    .unwrap();
    let restart = |name: &str| {
        let (code, said, _) = run(home, &["rollout", "restart", name]);
        assert_eq!(code, 1, "{said}");
        said
    };
    assert_eq!(
        restart("nope"),
        "No rollout of farcall.toml is called nope; its canaries are stripe-v2, eu.\n"
    );
    assert_eq!(
        restart("stripe-2"),
        "No rollout of farcall.toml is called stripe-2; did you mean stripe-v2?\n"
    );
    let by_hand = "The rollout by-hand of farcall.toml has no canary: its `share` says how much it takes.\n";
    assert_eq!(restart("by-hand"), by_hand);
    let (_, said, _) = run(home, &["rollout", "restart", "nope", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["restarted"], said["why"].is_string()), (&false.into(), true), "{said}");
    std::fs::write(&file, "").unwrap();
    assert_eq!(restart("nope"), "No rollout of farcall.toml is called nope; none there has a canary.\n");
}

#[test]
fn a_canary_that_was_rolled_back_starts_over_when_somebody_says_so() {
    const RULE: &str = "[[rollout]]\nname = \"v2\"\nmatch = { vendor = \"stripe\" }\nby = \"call\"\n\
        variant = { path_prefix = \"/v2\" }\ncanary = { steps = [\"50%\", \"100%\"] }\n";
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    std::fs::write(home.join("farcall.toml"), RULE).unwrap();
    let (code, said, _) = run(home, &["rollout", "ls"]);
    assert_eq!(
        (code, said.as_str()),
        (0, "v2: not begun, 50% on the new side. In this step: new 0 of 0 failed, old 0 of 0\n")
    );
    let (code, said, _) = run(home, &["rollout", "restart", "v2"]);
    assert_eq!((code, said.contains("No call asked for a canary v2")), (1, true), "{said}");
    let files = || {
        let entries = std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name());
        entries.map(|name| name.into_string().unwrap()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(files().into_iter().collect::<Vec<_>>(), ["farcall.toml"], "who asks makes no file");

    let farcall =
        Farcall::start(Options { home: Some(home.into()), flush_every: None, ..Options::default() });
    let call = || {
        let mut call = farcall.guard(farcall.begin(&Head::new("GET", "https://api.stripe.com/v1/balance")));
        let Step::Send(attempt) = call.step() else { panic!("nothing stands in its way") };
        call.head(if attempt.changes.is_some() { 500 } else { 200 });
        call.end();
        attempt.changes.is_some()
    };
    assert!((0..500).any(|n| !call() && n >= 499), "long since rolled back");
    let (code, said, _) = run(home, &["rollout", "ls"]);
    assert_eq!(code, 0);
    let because = "more of its calls fail than max_error_rate_increase allows";
    let start = format!("v2: rolled back because {because}, 0% on the new side. In this step: new ");
    assert!(said.starts_with(&start), "{said}");
    let (_, said, _) = run(home, &["rollout", "ls", "--json"]);
    let standings: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(standings[0]["reason"], "errors", "{said}");
    assert!(standings[0]["new_errors"].as_u64() > Some(0), "{said}");
    farcall.flush();
    // What made it go back can be read afterwards, too.
    let (code, said, _) = run(home, &["report", "notices"]);
    assert_eq!(code, 0);
    let told = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains(&format!("rollout v2 was rolled back: {because} (new ")), "{said}");
    assert!(!(0..100).any(|_| call()));
    let (code, said, _) = run(home, &["rollout", "restart", "v2"]);
    assert_eq!((code, said.as_str()), (0, "v2 starts over in all programs of this home directory.\n"));
    farcall.shutdown();
    std::fs::remove_file(home.join("quota.map")).unwrap();
    let before = files();
    let (_, said, _) = run(home, &["rollout", "ls", "--json"]);
    assert_eq!(files(), before, "who asks makes no file");
    let standings: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&standings[0]["status"], &standings[0]["step"]), (&"step".into(), &1.into()), "{said}");
    assert!((0..100).any(|_| call()), "in the program that runs, too");
}
