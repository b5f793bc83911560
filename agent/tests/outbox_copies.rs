//! Copies of the outbox in further files: what is promised of them.
#![cfg(feature = "outbox")]
#![allow(clippy::unwrap_used)]

mod outbox_support;

use farcall::config::OutboxPlace;
use farcall_agent::outbox::{Filter, Item, Operator, OutboxError, Parcel, State};
use farcall_agent::{Farcall, Options};
#[cfg(feature = "postgres")]
use outbox_support::copies::with_a_key;
use outbox_support::copies::{Copy, PATIENCE, home, keys, later, on_each_copy, start, until};
use outbox_support::{Home, Vendor, config, shim};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(86_400);

on_each_copy! {
    a_call_is_in_the_copy_when_it_is_acknowledged_and_gone_from_it_once_it_was_delivered
    what_a_lost_outbox_had_is_delivered_from_the_copy_under_its_keys
    what_was_taken_without_the_copy_is_copied_when_that_is_back
    what_an_earlier_process_took_without_the_copy_is_copied_when_that_is_back
    what_was_copied_late_is_put_back_in_its_turn
    what_is_put_back_is_as_old_as_it_is_however_the_clock_was_set_meanwhile
    a_dead_letter_that_is_put_back_is_delivered_at_once_and_its_age_counts_from_then
    what_a_file_that_was_copied_back_lacks_stays_in_the_copy_until_it_is_put_back
}

fn a_call_is_in_the_copy_when_it_is_acknowledged_and_gone_from_it_once_it_was_delivered(copy: &Copy) {
    let second = Copy::in_a_file();
    let (home, vendor) = (home(&[copy.name(), second.name()], ""), Vendor::start());
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let waits = outbox.put(later(&vendor).body("no body in the clear")).unwrap().idempotency_key;
    let goes = outbox.put(later(&vendor)).unwrap();
    for copy in [copy, &second] {
        assert_eq!(copy.keys(), [waits.clone(), goes.idempotency_key.clone()]);
    }
    assert_eq!(Operator::at(home.path()).retry(&[goes.id]).unwrap(), 1);
    assert_eq!(outbox.wait(goes.id, PATIENCE).unwrap().state, State::Delivered);
    farcall.shutdown();
    // Whoever takes the lease compares them first.
    let _farcall = start(&home, &vendor);
    for copy in [copy, &second] {
        until("the copy to hear of the delivery", || copy.keys() == [waits.clone()]);
    }
}

fn what_a_lost_outbox_had_is_delivered_from_the_copy_under_its_keys(copy: &Copy) {
    let second = Copy::in_a_file();
    let copies = [copy.name(), second.name()];
    let (lost, vendor) = (home(&copies, ""), Vendor::start());
    let farcall = start(&lost, &vendor);
    let outbox = farcall.outbox().unwrap();
    let put = |body: &str| {
        let parcel = later(&vendor).order_key("acme").body(body.to_owned());
        outbox.put(parcel).unwrap().idempotency_key
    };
    let known = ["1", "2", "3"].map(put);
    // The volume is gone, with the key.
    drop((outbox, farcall, lost));
    let home = home(&copies, "");
    home.configure(&config(&vendor));
    let operator = Operator::at(home.path());
    let done = operator.restore(&copy.place(), None, false).unwrap();
    assert_eq!((done.restored, done.known, done.dead), (3, 0, 0));
    for copy in [copy, &second] {
        let again = operator.restore(&copy.place(), None, false).unwrap();
        assert_eq!((again.restored, again.known), (0, 3), "they are this outbox's now, once each");
    }
    let items = operator.list(&Filter::default()).unwrap();
    assert_eq!(items.iter().map(|item| item.idempotency_key.clone()).collect::<Vec<_>>(), known);
    let ids: Vec<i64> = items.iter().map(|item| item.id).collect();
    assert_eq!(operator.retry(&ids).unwrap(), 3);
    drop(operator);
    let farcall = start(&home, &vendor);
    for id in ids {
        assert_eq!(farcall.outbox().unwrap().wait(id, PATIENCE).unwrap().state, State::Delivered);
    }
    // At least once, each.
    let mut got: Vec<(String, String)> = vendor
        .got()
        .into_iter()
        .map(|got| (got.body.clone(), got.header("idempotency-key").unwrap().to_owned()))
        .collect();
    got.dedup();
    let expected = ["1", "2", "3"].map(str::to_owned).into_iter().zip(known);
    assert_eq!(got, expected.collect::<Vec<_>>());
}

const ALARM: &str = "on_missing_copy = \"alarm\"";

fn what_was_taken_without_the_copy_is_copied_when_that_is_back(copy: &Copy) {
    let (home, vendor) = (home(&[copy.name()], ALARM), Vendor::start());
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let put = || outbox.put(later(&vendor)).unwrap().idempotency_key;
    let uncopied = || Operator::at(home.path()).beside().unwrap().uncopied;
    let before = put();
    assert_eq!(uncopied(), 0);
    copy.lose();
    let missed = [put(), put()];
    assert_eq!(uncopied(), 2);
    copy.bring_back();
    // Nobody asks for it: the next call finds that it is back.
    let last = put();
    until("the calls to be copied", || uncopied() == 0);
    let (mut there, mut all) = (copy.keys(), vec![before, last]);
    all.extend(missed);
    there.sort();
    all.sort();
    assert_eq!(there, all, "each once");
}

fn what_an_earlier_process_took_without_the_copy_is_copied_when_that_is_back(copy: &Copy) {
    let (home, vendor) = (home(&[copy.name()], ALARM), Vendor::start());
    let farcall = start(&home, &vendor);
    let put = || farcall.outbox().unwrap().put(later(&vendor)).unwrap();
    let uncopied = || Operator::at(home.path()).beside().unwrap().uncopied;
    let before = put().idempotency_key;
    copy.lose();
    let (missed, delivered) = (put().idempotency_key, put());
    assert_eq!(Operator::at(home.path()).retry(&[delivered.id]).unwrap(), 1);
    assert_eq!(farcall.outbox().unwrap().wait(delivered.id, PATIENCE).unwrap().state, State::Delivered);
    farcall.shutdown();
    assert!(uncopied() >= 1);
    copy.bring_back();
    let _farcall = start(&home, &vendor);
    until("the call to be copied", || uncopied() == 0);
    assert_eq!(copy.keys(), [before, missed], "what was delivered needs no copy");
}

fn what_was_copied_late_is_put_back_in_its_turn(copy: &Copy) {
    let (lost, vendor) = (home(&[copy.name()], ALARM), Vendor::start());
    let farcall = start(&lost, &vendor);
    let put = || farcall.outbox().unwrap().put(later(&vendor).order_key("acme")).unwrap().idempotency_key;
    let mut known = vec![put()];
    copy.lose();
    known.extend([put(), put()]);
    copy.bring_back();
    known.push(put());
    until("the calls to be copied", || Operator::at(lost.path()).beside().unwrap().uncopied == 0);
    farcall.shutdown();
    drop((farcall, lost));
    let home = home(&[], "");
    home.configure(&config(&vendor));
    let operator = Operator::at(home.path());
    assert_eq!(operator.restore(&copy.place(), None, false).unwrap().restored, 4);
    let items = operator.list(&Filter::default()).unwrap();
    assert_eq!(items.into_iter().map(|item| item.idempotency_key).collect::<Vec<_>>(), known);
}

/// Not a test of its own: the body of a process that puts one call.
#[test]
fn child_body() {
    let Ok(url) = std::env::var("OUTBOX_URL") else { return };
    let farcall = Farcall::start(Options { service: Some("shop".into()), hub: false, ..Options::default() });
    let parcel = Parcel::new("POST", url).delay(DAY).order_key("acme");
    farcall.outbox().unwrap().put(parcel).unwrap();
    farcall.shutdown();
}

/// When a call was put, is due and is too old, by the hour.
fn hours(item: &Item) -> [i64; 3] {
    let now = i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
    [item.put_at, item.next_at, item.expires_at].map(|at| (at - now).div_euclid(3_600_000_000_000))
}

fn what_is_put_back_is_as_old_as_it_is_however_the_clock_was_set_meanwhile(copy: &Copy) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let (lost, vendor, library) = (home(&[copy.name()], ""), Vendor::start(), tempfile::tempdir().unwrap());
    lost.configure(&config(&vendor));
    let (shim, clock) = (shim(library.path()), library.path().join("clock"));
    for off in [6, -6, 3, -3] {
        std::fs::write(&clock, (off * 3_600).to_string()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "child_body"]).env("FARCALL_HOME", lost.path());
        child.env("LD_PRELOAD", &shim).env("FAULT_CLOCK", &clock).env("OUTBOX_URL", vendor.url("/"));
        assert!(child.status().unwrap().success());
    }
    // This process has the right time.
    let known = copy.keys();
    assert_eq!(known.len(), 4);
    drop(lost);
    copy.grow_older(Duration::from_secs(5 * 3_600 + 900));
    let home = home(&[], "");
    home.configure(&config(&vendor));
    let operator = Operator::at(home.path());
    assert_eq!(operator.restore(&copy.place(), None, false).unwrap().restored, 4);
    let items = operator.list(&Filter::default()).unwrap();
    assert_eq!(items.iter().map(|item| item.idempotency_key.clone()).collect::<Vec<_>>(), known);
    for item in items {
        assert_eq!(hours(&item), [-6, 24 - 6, 72 - 6], "{item:?}");
    }
}

fn a_dead_letter_that_is_put_back_is_delivered_at_once_and_its_age_counts_from_then(copy: &Copy) {
    let (lost, vendor) = (home(&[copy.name()], ""), Vendor::start());
    let farcall = start(&lost, &vendor);
    farcall.outbox().unwrap().put(later(&vendor)).unwrap();
    farcall.shutdown();
    drop((farcall, lost));
    copy.grow_older(100 * DAY);
    copy.bury();
    let home = home(&[], "");
    home.configure(&config(&vendor));
    let operator = Operator::at(home.path());
    assert_eq!(operator.restore(&copy.place(), None, false).unwrap().dead, 1);
    assert_eq!(operator.restore(&copy.place(), None, true).unwrap().restored, 1);
    let items = operator.list(&Filter::default()).unwrap();
    assert_eq!(hours(&items[0])[1..], [-1, 71]);
    let farcall = start(&home, &vendor);
    assert_eq!(farcall.outbox().unwrap().wait(items[0].id, PATIENCE).unwrap().state, State::Delivered);
}

fn what_a_file_that_was_copied_back_lacks_stays_in_the_copy_until_it_is_put_back(copy: &Copy) {
    let (home, vendor) = (home(&[copy.name()], ""), Vendor::start());
    let put = || {
        let farcall = start(&home, &vendor);
        let receipt = farcall.outbox().unwrap().put(later(&vendor)).unwrap();
        farcall.shutdown();
        receipt.idempotency_key
    };
    let library = tempfile::tempdir().unwrap();
    let files = |from: &Path, to: &Path| {
        for name in ["outbox.db", "outbox.db-wal", "outbox.db-shm"] {
            let _there_may_be_none = std::fs::remove_file(to.join(name));
        }
        for name in ["outbox.db", "outbox.db-wal"] {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    };
    let first = put();
    files(home.path(), library.path());
    let second = put();
    // As old as what was never acknowledged.
    copy.put_long_ago(&second);
    files(library.path(), home.path());
    let identity = || {
        let db = Connection::open(home.path().join("outbox.db")).unwrap();
        db.busy_timeout(PATIENCE).unwrap();
        let sql = "SELECT holder FROM lease WHERE queue = char(1) || 'identity'";
        db.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    let was = identity();
    let farcall = start(&home, &vendor);
    until("the outbox to see that it is an older one", || identity() != was);
    farcall.shutdown();
    start(&home, &vendor).shutdown();
    assert_eq!(copy.keys(), [first.clone(), second.clone()]);
    let operator = Operator::at(home.path());
    assert_eq!(operator.restore(&copy.place(), Some(&was), false).unwrap().restored, 1);
    let items = operator.list(&Filter::default()).unwrap();
    assert_eq!(items.into_iter().map(|item| item.idempotency_key).collect::<Vec<_>>(), [first, second]);
    let third = put();
    assert_eq!(copy.keys().last(), Some(&third));
}

fn two_files() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let volumes = tempfile::tempdir().unwrap();
    let (first, second) = (volumes.path().join("a.db"), volumes.path().join("b.db"));
    (volumes, first, second)
}

/// A home directory with copies in these files.
fn beside(copies: &[&Path], more: &str) -> Home {
    let copies: Vec<&str> = copies.iter().map(|copy| copy.to_str().unwrap()).collect();
    home(&copies, more)
}

#[test]
fn a_copy_in_a_file_has_the_key_beside_it() {
    let (_volumes, first, second) = two_files();
    let (home, vendor) = (beside(&[&first, &second], ""), Vendor::start());
    start(&home, &vendor).outbox().unwrap().put(later(&vendor)).unwrap();
    for copy in [&first, &second] {
        let key = std::fs::read(copy.with_extension("db.key")).unwrap();
        assert_eq!(key, std::fs::read(home.path().join("outbox.key")).unwrap());
    }
}

#[test]
fn calls_that_another_key_encrypted_are_restored_under_the_one_that_is_there() {
    let (_volumes, copy, _) = two_files();
    let (lost, vendor) = (beside(&[&copy], ""), Vendor::start());
    let farcall = start(&lost, &vendor);
    let receipt = farcall.outbox().unwrap().put(later(&vendor).body("from before")).unwrap();
    drop(farcall);
    drop(lost);
    let fresh = beside(&[], "");
    let farcall = start(&fresh, &vendor);
    farcall.outbox().unwrap().put(later(&vendor)).unwrap();
    drop(farcall);
    let operator = Operator::at(fresh.path());
    assert_eq!(operator.restore(&OutboxPlace::File(copy), None, false).unwrap().restored, 1);
    let id = operator.list(&Filter::default()).unwrap().last().unwrap().id;
    let shown = operator.show(id, true).unwrap();
    assert_eq!(shown.item.idempotency_key, receipt.idempotency_key);
    assert_eq!(shown.body.as_deref(), Some("from before"));
}

#[test]
fn a_call_that_cannot_be_in_as_many_copies_as_asked_is_refused_and_nowhere() {
    let (volumes, good, _) = two_files();
    let missing = volumes.path().join("not mounted").join("outbox.db");
    let (home, vendor) = (beside(&[&good, &missing], ""), Vendor::start());
    let farcall = start(&home, &vendor);
    let error = farcall.outbox().unwrap().put(later(&vendor)).unwrap_err();
    assert!(matches!(&error, OutboxError::Copies { has: 1, needed: 2, .. }), "{error}");
    assert!(!missing.parent().unwrap().exists(), "no directory is made where a volume belongs");
    assert!(Operator::at(home.path()).list(&Filter::default()).unwrap().is_empty());
    until("the copy that had it to give it back", || keys(&good).is_empty());
}

#[test]
fn a_call_that_cannot_be_in_as_many_copies_is_taken_where_an_alarm_is_enough_or_fewer_are_asked_for() {
    let (volumes, good, _) = two_files();
    let missing = volumes.path().join("not mounted").join("outbox.db");
    let vendor = Vendor::start();
    for more in [
        "on_missing_copy = \"alarm\"",
        "copies_needed = 1",
        "[outbox_store.vendor_copies]\nrecorder = 1",
        "vendor_copies = { recorder = 0 }",
    ] {
        let home = beside(&[&good, &missing], more);
        let farcall = start(&home, &vendor);
        farcall.outbox().unwrap().put(later(&vendor)).unwrap_or_else(|error| panic!("{more}: {error}"));
    }
    assert_eq!(keys(&good).len(), 3, "where none is asked for there is none");
}

#[test]
fn a_call_that_is_taken_without_its_copies_rings_the_alarm_and_later_ones_are_counted() {
    let (volumes, good, _) = two_files();
    let missing = volumes.path().join("not mounted").join("outbox.db");
    let (log, vendor) = (volumes.path().join("alarms.log"), Vendor::start());
    let alarm = format!("on_missing_copy = \"alarm\"\n[alarm]\nlog = {log:?}\nevery = \"1h\"");
    let home = beside(&[&good, &missing], &alarm);
    // Two processes after one another: the host is told once.
    for _ in 0..2 {
        let farcall = start(&home, &vendor);
        for _ in 0..3 {
            farcall.outbox().unwrap().put(later(&vendor).customer("acme")).unwrap();
        }
        // Waits for the alarm that is on its way.
        farcall.shutdown();
    }
    let mut told = String::new();
    until("somebody to be told", || {
        told = std::fs::read_to_string(&log).unwrap_or_default();
        told.ends_with('\n')
    });
    let [line] = told.lines().collect::<Vec<_>>().try_into().unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let fields = &line["farcall"];
    assert_eq!(
        ["alarm", "service", "vendor", "customer"].map(|name| fields[name].as_str().unwrap()),
        ["copies", "shop", "recorder", "acme"]
    );
    let failure = fields["failure"].as_str().unwrap();
    assert!(
        failure.starts_with("it is in 1 copy instead of 2: ") && failure.contains("not mounted"),
        "{failure}"
    );
}

#[test]
fn a_copy_whose_disk_failed_is_told_of_as_a_copy_while_the_outbox_goes_on() {
    let (volumes, copy, _) = two_files();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let mark = format!("{}\ndisk I/O error\n", boot.trim());
    std::fs::write(volumes.path().join("outbox.stopped"), mark).unwrap();
    let (log, vendor) = (volumes.path().join("alarms.log"), Vendor::start());
    let said = format!("the copy {} has stopped, since its disk failed: disk I/O error", copy.display());
    let home = beside(&[&copy], &format!("{ALARM}\n[alarm]\nlog = {log:?}"));
    let farcall = start(&home, &vendor);
    farcall.outbox().unwrap().put(later(&vendor)).unwrap();
    farcall.shutdown();
    let mut told = String::new();
    until("somebody to be told", || {
        told = std::fs::read_to_string(&log).unwrap_or_default();
        told.ends_with('\n')
    });
    assert!(told.contains(&said) && !told.contains("outbox has stopped"), "{told}");
    assert!(Operator::at(home.path()).stopped().is_none());
    let error = start(&beside(&[&copy], ""), &vendor).outbox().unwrap().put(later(&vendor)).unwrap_err();
    let error = error.to_string();
    assert!(error.contains(&said) && !error.contains("outbox has stopped"), "{error}");
}

#[test]
fn a_copy_whose_place_cannot_be_told_takes_nothing_and_hides_no_call() {
    let (_volumes, good, _) = two_files();
    let vendor = Vendor::start();
    let unknown = Path::new("$FARCALL_TEST_NOT_SET");
    let home = beside(&[&good, unknown], "");
    let error = start(&home, &vendor).outbox().unwrap().put(later(&vendor)).unwrap_err();
    assert!(matches!(&error, OutboxError::Copies { has: 1, needed: 2, .. }), "{error}");
    assert!(error.to_string().contains("FARCALL_TEST_NOT_SET"), "{error}");
    let home = beside(&[&good, unknown], "copies_needed = 1");
    start(&home, &vendor).outbox().unwrap().put(later(&vendor)).unwrap();
    assert_eq!(Operator::at(home.path()).list(&Filter::default()).unwrap().len(), 1);
}

#[test]
fn a_copy_of_another_outbox_keeps_its_calls() {
    let (_volumes, others, own) = two_files();
    let (lost, vendor) = (beside(&[&others], ""), Vendor::start());
    let farcall = start(&lost, &vendor);
    let precious = farcall.outbox().unwrap().put(later(&vendor)).unwrap().idempotency_key;
    drop(farcall);
    drop(lost);
    let home = beside(&[&others, &own], "");
    let farcall = start(&home, &vendor);
    farcall.outbox().unwrap().put(later(&vendor)).unwrap();
    farcall.shutdown();
    // Older than any put that is under way, and in none of the copies known to the outbox: in its own copy that is
    // what was never acknowledged, in the other's it may be all that is left.
    for copy in [&others, &own] {
        let db = Connection::open(copy).unwrap();
        db.busy_timeout(PATIENCE).unwrap();
        db.execute("UPDATE item SET put_at = 1, request = zeroblob(64) WHERE id = 1", []).unwrap();
    }
    let _farcall = start(&home, &vendor);
    until("the copies to be compared", || keys(&own).is_empty());
    assert!(keys(&others).contains(&precious));
}
