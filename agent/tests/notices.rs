//! What happens to rules is heard and found: on stderr once, in the report, and among what to look at.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall::{Head, Step};
use farcall_agent::Farcall;
use farcall_agent::report::{self, Filter, Query, Question, Render, Style};
use std::fs;
use std::path::{Path, PathBuf};
use support::{child, options, role};

/// The bodies of the child processes of these tests; as a test of its own it has nothing to do.
#[test]
fn child_body() {
    let Some(role) = role() else { return };
    let home = PathBuf::from(std::env::var_os("FARCALL_HOME").unwrap());
    let farcall = Farcall::start(options(&home));
    // `8 acme globex`: so many calls of each.
    let mut words = role.split(' ');
    let calls: usize = words.next().unwrap().parse().unwrap();
    for customer in words {
        (0..calls).for_each(|_| call(&farcall, customer));
    }
    farcall.flush();
    farcall.flush();
    farcall.shutdown();
}

/// A call that is answered, unless it takes the new side of a rollout.
fn call(farcall: &Farcall, customer: &str) {
    let head = Head::new("GET", "https://api.stripe.com/v1/balance").customer(Some(customer));
    let mut call = farcall.guard(farcall.begin(&head));
    let Step::Send(attempt) = call.step() else { panic!("nothing stands in its way") };
    call.head(if attempt.changes.is_some() { 500 } else { 200 });
    call.end();
}

const BUDGET: &str = r#"
[[budget]]
name = "calls"
match = { vendor = "stripe", customer = "*" }
limit = "10 requests / month"
at_80_percent = "warn"
over = "warn"
"#;

/// What a process says on stderr that makes these calls.
fn said(home: &Path, calls: &str) -> Vec<String> {
    let output = child(calls, home).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    said.lines().filter(|line| line.starts_with("farcall: ")).map(str::to_owned).collect()
}

#[test]
fn a_budget_that_reaches_a_mark_is_heard_once_whichever_processes_meet_it() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("farcall.toml"), BUDGET).unwrap();
    assert!(said(home.path(), "7 acme").is_empty(), "that is less than 80%");
    let warning = "farcall: budget `calls` reached 80% of its limit of 10 requests / month for customer=acme";
    assert_eq!(said(home.path(), "1 acme"), [warning]);
    // It finds the budget beyond its mark, too; that was said.
    assert!(said(home.path(), "1 acme").is_empty());
    let over = "farcall: budget `calls` reached 100% of its limit of 10 requests / month for customer=globex";
    assert_eq!(said(home.path(), "12 globex").last().map(String::as_str), Some(over));

    let query = Query::at(home.path());
    let notices = report::notices(&query).unwrap();
    let told: Vec<_> = notices.rows.iter().map(|row| (row.rule.as_str(), row.what.as_str())).collect();
    assert_eq!(
        told,
        [
            ("calls", "reached 100% of its limit of 10 requests / month for customer=globex"),
            ("calls", "reached 80% of its limit of 10 requests / month for customer=globex"),
            ("calls", "reached 80% of its limit of 10 requests / month for customer=acme"),
        ]
    );
    assert!(notices.rows.iter().all(|row| row.concept == "budget" && row.pid > 0), "{notices:?}");
    let page = notices.render(&Style::default());
    assert!(page.contains("budget calls reached 80% of its limit"), "{page}");
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    // It is among what to look at, by its last word.
    let findings = report::findings(&query).unwrap();
    let finding = findings.rows.iter().find(|finding| finding.rule == "budget").unwrap();
    assert!(finding.sentence.starts_with("Budget calls reached 100% of its limit"), "{}", finding.sentence);
    assert_eq!(finding.evidence["times"], 3);
}

#[test]
fn what_a_clock_that_ran_ahead_told_silences_nobody() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("farcall.toml"), BUDGET).unwrap();
    assert_eq!(said(home.path(), "8 acme").len(), 1);
    let ledger = rusqlite::Connection::open(home.path().join("ledger.db")).unwrap();
    ledger.execute("UPDATE notices SET at = at + 86400000000000", []).unwrap();
    drop(ledger);
    assert_eq!(said(home.path(), "1 acme").len(), 1, "of the month it is the first word");
}

#[test]
fn many_budgets_that_warn_at_once_flood_nobody_and_are_all_in_the_report() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("farcall.toml"), BUDGET).unwrap();
    let customers: Vec<String> = (0..40).map(|n| format!("customer-{n}")).collect();
    let said = said(home.path(), &format!("8 {}", customers.join(" ")));
    let (budgets, rest): (Vec<_>, Vec<_>) = said.iter().partition(|line| line.contains("reached 80%"));
    // A minute may have ended in between.
    assert!((5..=10).contains(&budgets.len()), "{said:?}");
    assert!(rest.iter().all(|line| line.ends_with("farcall report notices")) && !rest.is_empty(), "{said:?}");

    let query = |limit| Query { limit, ..Query::at(home.path()) };
    let few = report::notices(&query(5)).unwrap();
    assert_eq!(
        (few.rows.len(), few.notes.as_slice()),
        (5, &["35 earlier ones with --limit 40.".to_owned()][..])
    );
    assert_eq!(report::notices(&query(0)).unwrap().rows.len(), 40);
    let of = |filter: &str| {
        let filter: Filter = filter.parse().unwrap();
        "notices".parse::<Question>().unwrap().ask(&query(0).filter(filter)).map(|report| report.to_json())
    };
    assert!(of("caller=nobody").unwrap().contains("\"rows\": []"));
    assert!(of("caller.executable=*notices*").is_ok_and(|json| json.contains("customer=customer-7")));
    assert!(of("vendor=stripe").is_err_and(|why| why.to_string().contains("notices have none")));
}

#[test]
fn a_warning_that_cannot_be_written_is_heard_all_the_same() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("farcall.toml"), BUDGET).unwrap();
    fs::create_dir(home.path().join("ledger.db")).unwrap();
    let said = said(home.path(), "8 acme");
    assert_eq!(said.iter().filter(|line| line.contains("reached 80%")).count(), 1, "{said:?}");
    assert_eq!(said.len(), 2, "and why it is not written: {said:?}");
}

#[test]
fn a_rollback_is_heard_with_its_reason_and_a_promotion_is_only_found() {
    let home = tempfile::tempdir().unwrap();
    let rule = r#"
        [[rollout]]
        name = "v2"
        match = { vendor = "stripe" }
        by = "call"
        variant = { path_prefix = "/v2" }
        canary = { steps = ["50%", "100%"], max_error_rate_increase = "5%" }
    "#;
    fs::write(home.path().join("farcall.toml"), rule).unwrap();
    let said = said(home.path(), "500 acme");
    assert_eq!(said.len(), 1, "{said:?}");
    let why = "was rolled back: more of its calls fail than max_error_rate_increase allows (new ";
    assert!(said[0].starts_with(&format!("farcall: rollout `v2` {why}")), "{said:?}");
    assert!(said[0].contains(" failed, old 0 of "), "{said:?}");

    let query = Query::at(home.path());
    let notices = report::notices(&query).unwrap();
    assert_eq!(notices.rows.len(), 1);
    assert!(notices.rows[0].what.starts_with(why), "{notices:?}");
    let rolled_back = || {
        let findings = report::findings(&query).unwrap();
        findings.rows.iter().filter(|finding| finding.rule == "rolled-back").count()
    };
    assert_eq!(rolled_back(), 1);
    // What it came to since is what counts.
    let ledger = rusqlite::Connection::open(home.path().join("ledger.db")).unwrap();
    ledger
        .execute(
            "INSERT INTO notices (at, caller, concept, rule, what)
             SELECT at + 1, caller, concept, rule, 'went on to 100% of its calls' FROM notices",
            [],
        )
        .unwrap();
    assert_eq!(rolled_back(), 0);
    assert_eq!(report::notices(&query).unwrap().rows[0].what, "went on to 100% of its calls");
}

#[test]
fn a_ledger_of_before_there_were_notices_has_none() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("farcall.toml"), BUDGET).unwrap();
    said(home.path(), "1 acme");
    let ledger = rusqlite::Connection::open(home.path().join("ledger.db")).unwrap();
    ledger.execute_batch("DROP TABLE notices; PRAGMA user_version = 1").unwrap();
    let notices = report::notices(&Query::at(home.path())).unwrap();
    assert!(notices.rows.is_empty());
    assert!(notices.render(&Style::default()).contains("Nothing in this window"));
}
