//! What readers are told where the ledger, its configuration or the clock is not in order.
#![allow(clippy::unwrap_used, missing_docs)]

use farcall::{Head, Step, Timestamp};
use farcall_agent::report::{self, Query, Question, Render, ReportError, Style};
use farcall_agent::{Farcall, Options};
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;

/// Calls that failed, and so are kept one by one.
fn failed_calls(home: &Path, count: usize) {
    let farcall = Farcall::start(Options {
        home: Some(home.into()),
        config: Some(home.join("farcall.toml")),
        service: Some("checkout".into()),
        flush_every: None,
        ..Options::default()
    });
    for n in 0..count {
        // Of each kind one is kept at least.
        let customer = format!("customer-{n}");
        let head = Head::new("GET", "https://api.stripe.com/v1/balance").customer(Some(&customer));
        let mut call = farcall.guard(farcall.begin(&head));
        assert!(matches!(call.step(), Step::Send(_)));
        call.head(500);
        call.end();
    }
    farcall.shutdown();
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("farcall.toml"), "").unwrap();
    home
}

fn sql(home: &Path, sql: &str) {
    Connection::open(home.join("ledger.db")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_configuration_with_errors_is_not_one_without_rules() {
    let home = home();
    failed_calls(home.path(), 1);
    let file = home.path().join("farcall.toml");
    std::fs::write(&file, "[[budget]]\nname = \"all\"\nlimit = \"5 request / day\"\n").unwrap();
    let query = Query::at(home.path());
    let said = format!("{} has 1 error, ", file.display());
    for notes in [report::budgets(&query).unwrap().notes, report::advise(&query).unwrap().notes] {
        assert!(notes[0].starts_with(&said) && notes[0].contains("farcall config check"), "{notes:?}");
        assert!(!notes.iter().any(|note| note.contains("has no [[budget]]")), "{notes:?}");
    }
    std::fs::write(&file, b"service = \"\xff\"").unwrap();
    let notes = report::budgets(&query).unwrap().notes;
    assert!(notes[0].contains("not UTF-8") && notes.len() == 1, "{notes:?}");
    std::fs::write(&file, "").unwrap();
    let notes = report::budgets(&query).unwrap().notes;
    assert!(notes[0].contains("has no [[budget]]"), "{notes:?}");
}

#[test]
fn a_limit_of_nothing_shows_all() {
    let home = home();
    failed_calls(home.path(), 60);
    let mut query = Query::at(home.path());
    assert_eq!(report::calls(&query).unwrap().rows.len(), 50);
    query.limit = 0;
    assert_eq!(report::calls(&query).unwrap().rows.len(), 60);
    assert!(!report::advise(&query).unwrap().rows.is_empty());
}

#[test]
fn after_the_clock_was_set_back_single_calls_and_totals_are_of_one_window() {
    let home = home();
    failed_calls(home.path(), 2);
    let mut query = Query::at(home.path());
    query.now = query.now.minus(Duration::from_secs(7_200));
    let calls = report::calls(&query).unwrap();
    assert_eq!((calls.rows.len(), calls.totals.calls), (0, 0), "{:?}", calls.notes);
}

#[test]
fn a_time_of_another_day_has_its_date() {
    let home = home();
    failed_calls(home.path(), 1);
    let mut query = Query::at(home.path()).since(Duration::from_secs(3 * 86_400));
    let rows = report::calls(&query).unwrap().rows;
    let begun = rows[0].begun[5..19].replace('T', " ");
    query.now =
        Timestamp::EPOCH.plus(Duration::from_nanos(query.now.as_nanos()) + Duration::from_secs(86_400));
    let page = report::calls(&query).unwrap().render(&Style::new(120, false));
    assert!(page.contains(&begun), "{begun}\n{page}");
    let doctor = report::doctor(&query).unwrap();
    let flushed = doctor.processes[0].last_flush[5..19].replace('T', " ");
    let page = doctor.render(&Style::new(120, false));
    assert!(page.contains(&flushed) && page.contains("last flush (UTC)"), "{flushed}\n{page}");
}

#[test]
fn numbers_of_a_damaged_ledger_stop_no_report() {
    let home = home();
    failed_calls(home.path(), 3);
    sql(
        home.path(),
        &format!(
            "CREATE TEMP TABLE more AS SELECT * FROM rollups;
             UPDATE rollups SET calls = {most}, attempts = {most}, answered = {most}, connections = {most},
                 cost = {most}, cost_unknown = {most}, duration = {most}, bytes_in = {most}, tokens_in = {most};
             UPDATE more SET status = 404, calls = {most}, attempts = -1, cost_unknown = {most};
             INSERT INTO rollups SELECT * FROM more;
             UPDATE more SET status = 429, outcome = 'refused-policy'; INSERT INTO rollups SELECT * FROM more;",
            most = i64::MAX
        ),
    );
    let query = Query::at(home.path());
    for name in [
        "vendors",
        "endpoints",
        "customers",
        "callers",
        "coverage",
        "calls",
        "findings",
        "budgets",
        "notices",
        "advise",
    ] {
        name.parse::<Question>().unwrap().ask(&query).unwrap().render(&Style::default());
    }
    report::doctor(&query).unwrap().render(&Style::default());
    report::policy_recommend(&query).unwrap();
}

#[test]
fn a_name_that_a_damaged_ledger_has_not_is_told_as_damage() {
    let home = home();
    failed_calls(home.path(), 1);
    sql(home.path(), "UPDATE rollups SET vendor = 9999");
    let why = report::vendors(&Query::at(home.path())).unwrap_err();
    assert!(matches!(why, ReportError::Unreadable(_)));
    assert!(why.to_string().starts_with("the ledger is damaged: "), "{why}");
    assert!(why.to_string().contains("9999") && why.to_string().contains("ledger.db-wal"), "{why}");
}
