//! What the handle promises about the ledger, seen from outside.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall_agent::report::{self, Query};
use farcall_agent::{ConnectionRollup, Farcall, Options};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use support::{call, calls, counter, number, options};

#[test]
fn calls_are_added_up_over_flushes() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    for _ in 0..10 {
        call(&farcall, "acme", 200);
        call(&farcall, "globex", 429);
        assert_eq!(farcall.flush().pending, 0);
    }
    assert_eq!(calls(home.path()), 20);
    assert_eq!(number(home.path(), "SELECT sum(bytes_in) FROM rollups"), 2_000);
    assert_eq!(number(home.path(), "SELECT count(*) FROM exemplars"), 20);
    assert!(number(home.path(), "SELECT count(*) FROM rollups") <= 4, "two kinds, two minutes at most");
    drop(farcall);
    assert_eq!(number(home.path(), "SELECT count(*) FROM processes WHERE ended IS NOT NULL"), 1);
}

#[test]
fn latencies_survive_being_merged_in_the_store() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    for _ in 0..5 {
        call(&farcall, "acme", 200);
        farcall.flush();
    }
    let vendors = report::vendors(&Query::at(home.path())).unwrap();
    assert_eq!(vendors.rows[0].numbers.calls, 5);
    assert!(vendors.rows[0].numbers.p99_ms.is_some());
}

#[test]
fn nobody_else_may_read_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("new/home");
    let farcall = Farcall::start(options(&home));
    call(&farcall, "acme", 200);
    farcall.flush();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home), 0o700);
    for file in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        assert_eq!(mode(&home.join(file)), 0o600, "{file}");
    }
}

#[test]
fn the_thread_writes_without_being_asked_and_the_last_handle_writes_the_rest() {
    let home = tempfile::tempdir().unwrap();
    let every = Some(std::time::Duration::from_millis(20));
    let farcall = Farcall::start(Options { flush_every: every, ..options(home.path()) });
    let other = farcall.clone();
    call(&farcall, "acme", 200);
    support::until("the flush thread", || {
        home.path().join("ledger.db").exists() && read_calls(home.path()) == 1
    });
    drop(farcall);
    call(&other, "acme", 200);
    drop(other);
    assert_eq!(calls(home.path()), 2);
}

/// Like `calls`, before the tables are sure to be there.
fn read_calls(home: &std::path::Path) -> u64 {
    report::vendors(&Query::at(home)).map_or(0, |vendors| vendors.totals.calls)
}

#[test]
fn calls_after_the_shutdown_are_written_by_another() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(Options {
        flush_every: Some(std::time::Duration::from_secs(60)),
        ..options(home.path())
    });
    call(&farcall, "acme", 200);
    farcall.shutdown();
    call(&farcall, "acme", 200);
    farcall.shutdown();
    drop(farcall);
    assert_eq!(calls(home.path()), 2);
}

#[test]
fn a_process_that_ended_stays_so_and_its_last_handle_writes_the_rest() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    let alive = || number(home.path(), "SELECT count(*) FROM processes WHERE ended IS NULL");
    call(&farcall, "acme", 200);
    farcall.shutdown();
    assert_eq!(alive(), 0);
    call(&farcall, "acme", 200);
    farcall.flush();
    assert_eq!((calls(home.path()), alive()), (2, 0));
    call(&farcall, "acme", 200);
    drop(farcall);
    assert_eq!((calls(home.path()), alive()), (3, 0));
}

#[test]
fn a_handle_that_goes_after_the_shutdown_with_nothing_new_touches_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let farcall = Farcall::start(options(&home));
    call(&farcall, "acme", 200);
    farcall.shutdown();
    fs::remove_dir_all(&home).unwrap();
    drop(farcall);
    assert!(!home.exists());
}

#[test]
fn a_call_that_is_dropped_is_counted() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    let head = farcall::Head::new("GET", "https://api.stripe.com/v1/balance");
    drop(farcall.guard(farcall.begin(&head)));
    farcall.flush();
    assert_eq!(number(home.path(), "SELECT calls FROM rollups WHERE outcome = 'cancelled'"), 1);
}

#[test]
fn too_many_customers_of_a_minute_become_other_and_the_total_stays() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("farcall.toml");
    fs::write(&config, "[ledger]\nmax_rows_per_minute = 64\n").unwrap();
    let farcall = Farcall::start(Options { config: Some(config), ..options(home.path()) });
    for round in 0..3 {
        for customer in 0..500 {
            call(&farcall, &format!("c{customer}"), 200);
        }
        farcall.flush();
        assert_eq!(calls(home.path()), (round + 1) * 500);
    }
    // The minute may have turned once.
    let rows = number(home.path(), "SELECT count(*) FROM rollups");
    assert!((64..=2 * 65).contains(&rows), "{rows}");
    assert!(counter(&farcall, "folded_rows") >= 3 * (500 - 2 * 64));
    let other = "SELECT sum(calls) FROM rollups r JOIN names n ON n.id = r.customer WHERE n.name = 'other'";
    assert_eq!(number(home.path(), other), i64::try_from(counter(&farcall, "folded_rows")).unwrap());
}

#[test]
fn all_errors_of_the_configuration_are_counted_and_the_right_parts_used() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("farcall.toml");
    fs::write(&config, "servce = \"x\"\nservice = \"checkout\"\n[ledger]\nretention = 7\n").unwrap();
    let farcall = Farcall::start(Options { config: Some(config), ..options(home.path()) });
    call(&farcall, "acme", 200);
    farcall.flush();
    assert_eq!(counter(&farcall, "config_errors"), 2);
    assert_eq!(number(home.path(), "SELECT count(*) FROM callers WHERE service = 'checkout'"), 1);
    assert_eq!(number(home.path(), "SELECT value FROM counters WHERE name = 'config_errors'"), 2);
}

#[test]
fn switched_off_it_leaves_no_trace_and_holds_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let farcall = Farcall::start(Options { enabled: false, ..options(&home) });
    assert!(!farcall.is_enabled());
    call(&farcall, "acme", 200);
    assert_eq!(farcall.flush().written, 0);
    farcall.shutdown();
    assert!(!home.exists());
    assert!(farcall.engine().drain(farcall.now()).rows.is_empty(), "what was counted was let go of");
}

#[test]
fn seeds_differ_between_calls_and_threads() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let farcall = farcall.clone();
            std::thread::spawn(move || (0..10_000).map(|_| farcall.seed()).collect::<Vec<_>>())
        })
        .collect();
    let mut seeds: Vec<u64> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 40_000);
}

#[test]
fn absurd_numbers_saturate_and_never_keep_a_flush_from_being_written() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    let minute = farcall.now().minute();
    for round in 1..=6 {
        let head = farcall::Head::new("GET", "https://api.stripe.com/v1/balance");
        let mut call = farcall.guard(farcall.begin(&head));
        assert!(matches!(call.step(), farcall::Step::Send(_)));
        call.head(200);
        call.body(u64::MAX);
        call.end();
        farcall.record_connections(vec![ConnectionRollup {
            minute,
            connections: 1,
            bytes_out: u64::MAX,
            duration: std::time::Duration::MAX,
            ..ConnectionRollup::default()
        }]);
        assert_eq!(farcall.flush().pending, 0, "flush {round}");
    }
    assert_eq!(counter(&farcall, "failed_flushes"), 0);
    assert_eq!(calls(home.path()), 6);
    const MOST: i64 = i64::MAX / 4;
    assert_eq!(number(home.path(), "SELECT min(duration) FROM connections"), MOST);
    assert_eq!(number(home.path(), "SELECT min(bytes_out) FROM connections"), MOST);
    assert_eq!(number(home.path(), "SELECT min(bytes_in) FROM rollups"), MOST);
    assert_eq!(number(home.path(), "SELECT count(*) FROM rollups WHERE typeof(bytes_in) <> 'integer'"), 0);
    assert!(report::vendors(&Query::at(home.path())).is_ok());
}

#[test]
fn a_stream_that_was_open_for_years_keeps_its_duration() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    let years = std::time::Duration::from_secs(5 * 366 * 86_400);
    for _ in 0..3 {
        let (engine, now) = (farcall.engine(), farcall.now());
        let head = farcall::Head::new("GET", "https://api.stripe.com/v1/events");
        let mut call = engine.begin(&head, now.minus(years), farcall.seed());
        let _send = call.step(engine, now.minus(years));
        call.head(200, now);
        call.end(engine, now);
        farcall.flush();
    }
    let sum = number(home.path(), "SELECT sum(duration) FROM rollups");
    assert_eq!(sum, i64::try_from(3 * years.as_nanos()).unwrap());
}

#[test]
fn every_counter_is_explained() {
    let home = tempfile::tempdir().unwrap();
    let documented = include_str!("../../docs/report.md");
    for (name, _) in Farcall::start(options(home.path())).counters() {
        assert!(documented.contains(&format!("`{name}`")), "`{name}` is not in docs/report.md");
    }
}

#[test]
fn the_log_stays_short_however_many_flushes_there_are() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    let mut longest = 0;
    for n in 0..150 {
        for customer in 0..10 {
            call(&farcall, &format!("c{customer}"), 200);
        }
        farcall.flush();
        let length = fs::metadata(home.path().join("ledger.db-wal")).map_or(0, |log| log.len());
        longest = longest.max(length);
        assert!(length < 1_000_000, "{length} after {n} flushes");
    }
    assert!(longest > 400_000, "long enough to prove something: {longest}");
    assert_eq!(calls(home.path()), 1_500);
}
