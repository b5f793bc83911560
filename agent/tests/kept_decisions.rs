//! What rules decided, in the ledger: events, incidents, notices, and budgets that hold across processes.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall::{ErrorType, Head, Step};
use farcall_agent::Farcall;
use std::fs;
use std::path::{Path, PathBuf};
use support::{child, counter, number, options, role};

/// The bodies of the child processes of these tests; as a test of its own it has nothing to do.
#[test]
fn child_body() {
    let Some(role) = role() else { return };
    let home = PathBuf::from(std::env::var_os("FARCALL_HOME").unwrap());
    assert_eq!(role, "spends");
    let farcall = Farcall::start(options(&home));
    println!("\nspent {}", spend(&farcall, 100));
    farcall.shutdown();
}

/// Makes calls until one is refused, at most so many; gives how many went.
fn spend(farcall: &Farcall, most: usize) -> usize {
    (0..most).take_while(|_| call(farcall)).count()
}

/// Whether the call went.
fn call(farcall: &Farcall) -> bool {
    let head = Head::new("GET", "https://api.stripe.com/v1/balance").customer(Some("acme"));
    let mut call = farcall.guard(farcall.begin(&head));
    let went = matches!(call.step(), Step::Send(_));
    if went {
        call.head(200);
    }
    call.end();
    went
}

const BUDGET: &str = r#"
[[budget]]
name = "calls"
match = { vendor = "stripe", customer = "*" }
limit = "10 requests / month"
at_80_percent = "warn"
over = "refuse"
"#;

#[test]
fn a_budget_holds_across_processes_and_restarts() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("farcall.toml"), BUDGET).unwrap();
    let first = Farcall::start(options(home.path()));
    assert_eq!(spend(&first, 6), 6);
    first.flush();
    // Another process has what the first one left.
    let output = child("spends", home.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("spent 4\n"), "{said}");
    // The first one learns of it with its next flush, though it has nothing to write.
    first.flush();
    assert_eq!(spend(&first, 100), 0);
    first.shutdown();
    // And a restart gives nothing anew, from the first call on.
    let again = Farcall::start(options(home.path()));
    assert_eq!(spend(&again, 100), 0);
    again.shutdown();
    let sql = "SELECT sum(spent) FROM spending WHERE budget = 'calls, requests / month' AND partition = 'customer=acme'";
    assert_eq!(number(home.path(), sql), 10, "each call once, whoever made it");
    assert!(number(home.path(), "SELECT count(*) FROM notices WHERE concept = 'budget'") > 0);
}

#[test]
fn what_two_processes_spend_at_the_same_time_adds_up() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("farcall.toml"), BUDGET).unwrap();
    let (one, other) = (Farcall::start(options(home.path())), Farcall::start(options(home.path())));
    for _ in 0..4 {
        assert!(call(&one) && call(&other));
        one.flush();
        // What was not written yet is neither counted twice nor forgotten.
        assert!(counter(&other, "failed_flushes") == 0);
        other.flush();
        one.flush();
    }
    assert_eq!(spend(&one, 100), 2);
    one.flush();
    other.flush();
    assert_eq!(spend(&other, 100), 0);
}

fn text(home: &Path, sql: &str) -> String {
    let connection = rusqlite::Connection::open(home.join("ledger.db")).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_broken_quota_is_one_incident_however_often_it_is_told() {
    let home = tempfile::tempdir().unwrap();
    let quota = "[[quota]]\nname = \"slow\"\nmatch = { vendor = \"stripe\" }\nlimit = \"1 request / 1h\"\nmax_wait = \"0s\"\nshared = \"process\"\n";
    fs::write(home.path().join("farcall.toml"), quota).unwrap();
    let farcall = Farcall::start(options(home.path()));
    assert!(call(&farcall));
    for _ in 0..3 {
        assert!(!call(&farcall) && !call(&farcall));
        farcall.flush();
    }
    assert_eq!(number(home.path(), "SELECT count(*) FROM incidents WHERE vendor = 'stripe'"), 1);
    let incident = text(home.path(), "SELECT incident FROM incidents");
    let incident: serde_json::Value = serde_json::from_str(&incident).unwrap();
    assert_eq!((&incident["policy"], &incident["kind"]), (&"slow".into(), &"own".into()), "{incident}");
    assert_eq!(incident["refused"], 6, "{incident}");
    assert_eq!(incident["customers"][0]["name"], "acme", "{incident}");
    // Why a single call was refused is told with it.
    let events = text(home.path(), "SELECT events FROM exemplars WHERE events <> '' LIMIT 1");
    assert!(events.contains("refused by quota `slow`"), "{events}");
}

#[test]
fn without_a_key_of_its_own_an_installation_goes_on_and_says_so() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("key")).unwrap();
    let farcall = Farcall::start(options(home.path()));
    assert_eq!(counter(&farcall, "missing_keys"), 1);
    let mut call = farcall.guard(farcall.begin(&Head::new("GET", "https://api.stripe.com/v1/balance")));
    call.failed(ErrorType::Connect);
    call.end();
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    assert_eq!(counter(&farcall, "missing_keys"), 0);
    assert_eq!(fs::read(home.path().join("key")).unwrap().len(), 16);
}
