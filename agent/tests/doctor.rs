//! What `farcall doctor` promises: what never was attached, is not obeyed, was lost or is never sent is told.
#![allow(clippy::unwrap_used, missing_docs)]

use farcall::Head;
use farcall_agent::report::{self, Query, Render, Style};
use farcall_agent::{Confirmation, Farcall, Options, Role};
use std::path::Path;

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

#[test]
fn doctor_tells_never_attached_from_no_calls() {
    let home = tempfile::tempdir().unwrap();
    let app = start(home.path(), "attached", Role::Program);
    app.adapter_installed("requests");
    app.flush();
    let query = Query::at(home.path());
    let doctor = report::doctor(&query).unwrap();
    assert!(doctor.healthy, "{:?}", doctor.problems);
    assert_eq!(doctor.processes[0].adapters, ["requests"]);
    assert_eq!(doctor.processes[0].state, "running");
    app.shutdown();
    assert_eq!(report::doctor(&query).unwrap().processes[0].state, "ended");

    let other = tempfile::tempdir().unwrap();
    let bare = start(other.path(), "bare", Role::Program);
    bare.flush();
    let doctor = report::doctor(&Query::at(other.path())).unwrap();
    assert!(!doctor.healthy);
    assert!(doctor.problems[0].contains("bare") && doctor.problems[0].contains("no adapter in place"));
    let text = doctor.render(&Style::default());
    assert!(text.contains("none"), "{text}");
}

#[test]
fn doctor_says_which_file_a_process_obeys() {
    let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let named = elsewhere.path().join("rules.toml");
    for file in [&named, &home.path().join("farcall.toml")] {
        std::fs::write(file, "").unwrap();
    }
    let start = |service: &str, config| {
        let app = Farcall::start(Options {
            home: Some(home.path().into()),
            config,
            service: Some(service.into()),
            flush_every: None,
            ..Options::default()
        });
        app.flush();
        app
    };
    let _apps = [start("checkout", None), start("worker", Some(named.clone()))];
    let mut wide = Style::default();
    wide.width = 200;
    let text = report::doctor(&Query::at(home.path())).unwrap().render(&wide);
    let not_obeyed = ", and not the farcall.toml of this home directory";
    assert!(text.contains(&format!("{}{not_obeyed}", named.display())), "{text}");
    assert_eq!(text.matches(not_obeyed).count(), 1, "{text}");
    for (service, file) in [("checkout", home.path().join("farcall.toml")), ("worker", named)] {
        let line = format!("Configuration of {service}: {}", file.display());
        assert!(text.contains(&line), "{line}: {text}");
    }
}

#[test]
fn doctor_shows_confirmations_that_were_lost() {
    let home = tempfile::tempdir().unwrap();
    let sidecar = start(home.path(), "farcall-sidecar", Role::Sidecar);
    let minute = sidecar.now().minute();
    let of = |n| Confirmation { minute, vendor: format!("v{n}"), calls: 1, ..Confirmation::default() };
    sidecar.record_confirmed((0..70_000).map(of).collect());
    sidecar.flush();
    let doctor = report::doctor(&Query::at(home.path())).unwrap();
    let lost = doctor.counters.iter().find(|counter| counter.name == "lost_confirmations").unwrap();
    let ledger = rusqlite::Connection::open(home.path().join("ledger.db")).unwrap();
    let sum = "SELECT sum(calls) FROM confirmed";
    let written: i64 = ledger.query_row(sum, [], |row| row.get(0)).unwrap();
    assert_eq!(lost.value + written.unsigned_abs(), 70_000);
    assert!(!doctor.healthy);
}

#[test]
fn doctor_names_hedges_and_copies_that_no_client_of_theirs_can_send() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("farcall.toml");
    let rules = r#"[[resilience]]
name = "quick"
match = { vendor = "stripe" }
hedge = { after = "p95" }

[[rollout]]
name = "next"
match = { vendor = "stripe" }
shadow = "10%"
variant = { host = "next.example", keep_credentials = true }

[[resilience]]
name = "other"
match = { vendor = "github" }
hedge = { after = "p95" }
"#;
    std::fs::write(&config, rules).unwrap();
    let app = Farcall::start(Options {
        home: Some(home.path().into()),
        config: Some(config.clone()),
        service: Some("shop".into()),
        flush_every: None,
        ..Options::default()
    });
    app.adapter_installed("urllib3");
    app.adapter_installed("requests");
    let make = |method: &str, times: usize| {
        for _ in 0..times {
            let mut call = app.guard(app.begin(&Head::new(method, "https://api.stripe.com/v1/charges")));
            let _ = call.step();
            call.head(200);
            call.end();
        }
        app.flush();
    };
    let problems = || report::doctor(&Query::at(home.path())).unwrap().problems;
    make("POST", 2);
    assert_eq!(problems(), [""; 0], "of these nothing is sent twice by anybody");
    make("GET", 3);
    let said = |key: &str, rule: &str, line: usize| {
        format!(
            "`{key}` of the rule `{rule}` (line {line} of {}) never sends anything: all 3 calls that it was about were made \
             by shop through requests or urllib3, where a thread makes one attempt at a time; use an async client of \
             httpx there, or remove it",
            config.display()
        )
    };
    assert_eq!(problems(), [said("hedge", "quick", 1), said("shadow", "next", 6)]);
    // Under httpx it is the client that decides.
    app.adapter_installed("httpx");
    app.flush();
    assert_eq!(problems(), [""; 0]);
    app.shutdown();
}
