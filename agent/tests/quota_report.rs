//! What `farcall report quotas` says: what vendors stated, what the processes of a home used of it, and what
//! somebody else did.
#![allow(clippy::unwrap_used, missing_docs)]

use farcall::{Head, Step};
use farcall_agent::report::{Filter, Query, QuotaRow, Quotas, Render, Style, quotas};
use farcall_agent::{Farcall, Options};
use rusqlite::{Connection, params};
use std::path::Path;
use std::time::Duration;

const URL: &str = "https://api.example.com/v1/things";

/// A vendor of which it is known what it states.
const VENDOR: &str = r#"
[[vendor]]
name = "example"
label = "Example"
hosts = ["api.example.com"]
limit = [
    { policy = "per-minute", limit = "x-limit", remaining = "x-left", reset = "x-reset", reset_as = "delta-s", window = "1m" },
]
"#;

fn start(home: &Path, service: &str, rules: &str) -> Farcall {
    let config = home.join("farcall.toml");
    std::fs::write(&config, format!("{VENDOR}{rules}")).unwrap();
    Farcall::start(Options {
        home: Some(home.into()),
        config: Some(config),
        service: Some(service.into()),
        flush_every: None,
        ..Options::default()
    })
}

/// Makes a call, which is answered so.
fn call(farcall: &Farcall, url: &str, status: u16, headers: &[(&str, &str)]) {
    let credential: &[(&str, &str)] = &[("authorization", "Bearer one")];
    let head = Head::new("GET", url).headers(&credential).body(Some(0), true);
    let mut call = farcall.guard(farcall.begin(&head));
    assert!(matches!(call.step(), Step::Send(_)));
    call.answer(status, &headers);
    assert!(matches!(call.step(), Step::Settled));
    call.end();
}

/// The vendor says that so many of a hundred a minute are left, for the next half minute.
fn left(farcall: &Farcall, remaining: u32) {
    let remaining = remaining.to_string();
    call(farcall, URL, 200, &[("x-limit", "100"), ("x-left", &remaining), ("x-reset", "30")]);
}

/// The first two calls of each: 99 down.
fn begin(all: &[&Farcall]) {
    let mut remaining = (0..100).rev();
    for farcall in all {
        remaining.by_ref().take(2).for_each(|remaining| left(farcall, remaining));
    }
}

fn report(home: &Path) -> Quotas {
    quotas(&Query::at(home)).unwrap()
}

/// The quota that the vendor calls so.
fn row(report: &Quotas, policy: &str) -> QuotaRow {
    report.rows.iter().find(|row| row.policy == policy).unwrap_or_else(|| panic!("{report:?}")).clone()
}

fn used(row: &QuotaRow) -> (Option<u64>, Option<u64>, Option<u64>) {
    (row.left, row.own, row.foreign)
}

#[test]
fn what_the_vendor_states_and_what_we_counted_stand_beside_what_somebody_else_used() {
    let home = tempfile::tempdir().unwrap();
    let farcall = start(home.path(), "checkout", "");
    begin(&[&farcall]);
    for remaining in [97, 96, 95] {
        left(&farcall, remaining);
    }
    farcall.flush();
    let row = row(&report(home.path()), "per-minute");
    assert_eq!(used(&row), (Some(95), Some(5), Some(0)));
    assert_eq!((row.vendor.as_str(), row.unit.as_str(), row.limit), ("example", "requests", Some(100)));
    assert_eq!((row.window_seconds, row.remaining, row.now), (Some(60.0), Some(95), "open"));
    assert_eq!((row.service.as_str(), row.pid, row.processes), ("checkout", std::process::id(), 1));
    assert_eq!(row.credential.len(), 12, "its fingerprint: {}", row.credential);
    assert!(row.resets_at.unwrap() > row.seen && row.rules.is_empty() && row.blocked_until.is_none());

    // Forty of the next forty-one are not ours.
    left(&farcall, 54);
    farcall.flush();
    let report = report(home.path());
    assert_eq!(used(&self::row(&report, "per-minute")), (Some(54), Some(6), Some(40)));
    assert!(report.notes[0].starts_with("Somebody else asks Example"), "{:?}", report.notes);
    farcall.shutdown();
}

#[test]
fn the_processes_of_a_home_are_nobody_else_to_each_other() {
    let home = tempfile::tempdir().unwrap();
    let (one, other) = (start(home.path(), "checkout", ""), start(home.path(), "billing", ""));
    begin(&[&one, &other]);
    (86..96).rev().for_each(|remaining| left(&one, remaining));
    (81..86).rev().for_each(|remaining| left(&other, remaining));
    one.flush();
    other.flush();
    let all = row(&report(home.path()), "per-minute");
    assert_eq!((used(&all), all.processes), ((Some(81), Some(19), Some(0)), 1));
    // Twenty more than the two of them know of.
    left(&one, 60);
    one.flush();
    let all = row(&report(home.path()), "per-minute");
    assert_eq!(used(&all), (Some(60), Some(20), Some(20)));
    assert_eq!(all.service, "checkout", "it heard last");
    // Filters find it by whoever uses it.
    let of = |filter: &str| {
        quotas(&Query::at(home.path()).filter(filter.parse::<Filter>().unwrap())).unwrap().rows.len()
    };
    assert_eq!([of("caller=billing"), of("caller=search"), of("vendor=example")], [1, 0, 1]);
    one.shutdown();
    other.shutdown();
}

#[test]
fn what_processes_count_together_is_not_added_up() {
    let home = tempfile::tempdir().unwrap();
    let rules = "[[quota]]\nname = \"keep\"\nmatch = { vendor = \"example\" }\nmax_wait = \"2s\"\n";
    let (one, other) = (start(home.path(), "checkout", rules), start(home.path(), "billing", rules));
    begin(&[&one, &other]);
    (86..96).rev().for_each(|remaining| left(&one, remaining));
    (81..86).rev().for_each(|remaining| left(&other, remaining));
    one.flush();
    other.flush();
    let row = row(&report(home.path()), "per-minute");
    assert_eq!(used(&row), (Some(81), Some(19), Some(0)));
    assert_eq!(row.rules, ["keep"]);
    one.shutdown();
    other.shutdown();
}

#[test]
fn a_429_is_shown_with_its_end_and_the_limit_that_it_taught() {
    let home = tempfile::tempdir().unwrap();
    let farcall = start(home.path(), "checkout", "");
    // The first one begins the count that the second teaches from.
    call(&farcall, URL, 429, &[("retry-after", "1")]);
    for _ in 0..30 {
        call(&farcall, URL, 200, &[]);
    }
    call(&farcall, URL, 429, &[("retry-after", "60")]);
    farcall.flush();
    let report = report(home.path());
    let row = row(&report, "unstated");
    assert_eq!((row.now, row.blocked_why, row.limit), ("blocked", Some("rate"), None));
    assert!(row.blocked_until.unwrap() > row.seen);
    assert!(row.learned_per_second.unwrap() > 1.0, "{:?}", row.learned_per_second);
    assert_eq!((row.own, row.foreign), (None, None), "no window is known");
    let table = report.render(&Style::default());
    assert!(table.contains("429: too fast") && table.contains(" requests/s"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    farcall.shutdown();
}

#[test]
fn only_what_changed_is_written_and_what_is_over_goes_when_somebody_speaks_again() {
    let home = tempfile::tempdir().unwrap();
    let farcall = start(home.path(), "checkout", "");
    begin(&[&farcall]);
    farcall.flush();
    let ledger = Connection::open(home.path().join("ledger.db")).unwrap();
    let count = |sql: &str| ledger.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    ledger.execute("UPDATE quotas SET at = at - 1", []).unwrap();
    let marked = count("SELECT at FROM quotas");
    farcall.flush();
    assert_eq!(count("SELECT at FROM quotas"), marked, "nothing happened to it");

    // What processes before this one left: of a window that is over, and of one that lasts.
    ledger
        .execute(
            "INSERT INTO quotas SELECT vendor, credential, policy, rule, caller + 1000, at, at - 1, standing
             FROM quotas UNION ALL SELECT vendor, credential, policy, rule, caller + 2000, at, ends, standing
             FROM quotas",
            [],
        )
        .unwrap();
    left(&farcall, 97);
    farcall.flush();
    assert!(count("SELECT max(at) FROM quotas") > marked);
    assert_eq!(count("SELECT count(*) FROM quotas WHERE caller > 2000"), 1);
    assert_eq!(count("SELECT count(*) FROM quotas"), 2);

    // However many there are, the newest stay.
    for n in 0..300 {
        ledger
            .execute(
                "INSERT INTO quotas SELECT vendor, credential, policy, rule, ?1, at + ?1, ends, standing
                 FROM quotas WHERE caller > 2000 AND caller < 3000",
                params![4_000 + n],
            )
            .unwrap();
    }
    left(&farcall, 96);
    farcall.flush();
    assert_eq!(count("SELECT count(*) FROM quotas"), 256);
    let row = row(&report(home.path()), "per-minute");
    assert_eq!(row.left, Some(96));
    farcall.shutdown();
}

#[test]
fn a_window_that_is_over_says_so_and_leaves_with_the_reports_window() {
    let home = tempfile::tempdir().unwrap();
    let farcall = start(home.path(), "checkout", "");
    begin(&[&farcall]);
    left(&farcall, 40);
    farcall.flush();
    let mut later = Query::at(home.path());
    later.now = later.now.plus(Duration::from_secs(120));
    let row = row(&quotas(&later).unwrap(), "per-minute");
    assert_eq!((row.now, row.left, row.remaining, row.limit), ("over", None, None, Some(100)));
    later.now = later.now.plus(Duration::from_secs(7_200));
    let report = quotas(&later).unwrap();
    assert_eq!(report.rows.len(), 0);
    assert!(report.notes[0].contains("--since 7d"), "{:?}", report.notes);
    farcall.shutdown();
}
