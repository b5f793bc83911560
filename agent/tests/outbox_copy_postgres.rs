//! A copy of the outbox in a PostgreSQL: what is promised of it. Each promise is kept in a process of its own, which
//! has the key in its environment.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used)]

mod outbox_support;

use farcall::config::OutboxPlace;
use farcall_agent::outbox::{Filter, Operator, OutboxError, Parcel, State};
use farcall_agent::{Farcall, Options};
use outbox_support::postgres::Server;
use outbox_support::{Home, Vendor, config};
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for any machine; nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(120);
const KEY: &str = "FARCALL_OUTBOX_KEY";
const DATABASE: &str = "FARCALL_TEST_DATABASE";

/// Keeps the promise that the test of this name makes, where the key is in the environment, and with a database.
fn with_a_key(test: &str, promise: impl FnOnce(&str)) {
    if let Ok(database) = env::var(DATABASE) {
        return promise(&database);
    }
    let Some(server) = Server::shared() else { return };
    let kept = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(KEY, "5".repeat(64))
        .env(DATABASE, server.database())
        .status()
        .unwrap();
    assert!(kept.success(), "{test}: {kept}");
}

fn home(copies: &[&str], more: &str) -> Home {
    let mut home = Home::in_a_file();
    home.settings = format!("[outbox_store]\ncopies = {copies:?}\ntimeout = \"30s\"\n{more}\n");
    home
}

fn start(home: &Home, vendor: &Vendor) -> Farcall {
    Farcall::start(Options {
        home: Some(home.path().into()),
        config: Some(home.configure(&config(vendor))),
        service: Some("shop".into()),
        hub: false,
        ..Options::default()
    })
}

fn later(vendor: &Vendor) -> Parcel {
    Parcel::new("POST", vendor.url("/")).delay(Duration::from_secs(86_400))
}

/// What the database answers, as psql prints it.
fn ask(database: &str, sql: &str) -> String {
    let done = Command::new("psql").args(["-X", "-A", "-t", "-q", "-c", sql, database]).output().unwrap();
    assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// The idempotency keys of its calls, in their order.
fn keys(database: &str) -> Vec<String> {
    let keys = ask(database, "SELECT idempotency_key FROM farcall_outbox_copy.item ORDER BY id");
    keys.lines().map(str::to_owned).collect()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn place(database: &str) -> OutboxPlace {
    OutboxPlace::parse(database).unwrap()
}

#[test]
fn a_call_is_in_the_database_when_it_is_acknowledged_and_gone_from_it_once_it_was_delivered() {
    let test = "a_call_is_in_the_database_when_it_is_acknowledged_and_gone_from_it_once_it_was_delivered";
    with_a_key(test, |database| {
        let (home, vendor) = (home(&[database], ""), Vendor::start());
        let farcall = start(&home, &vendor);
        let outbox = farcall.outbox().unwrap();
        let waits = outbox.put(later(&vendor).body("no body in the clear")).unwrap().idempotency_key;
        let goes = outbox.put(later(&vendor)).unwrap();
        assert_eq!(keys(database), [waits.clone(), goes.idempotency_key.clone()]);
        let all = ask(database, "SELECT encode(request, 'escape') FROM farcall_outbox_copy.item");
        assert!(!all.contains("in the clear"), "it is encrypted");
        assert_eq!(Operator::at(home.path()).retry(&[goes.id]).unwrap(), 1);
        assert_eq!(outbox.wait(goes.id, PATIENCE).unwrap().state, State::Delivered);
        farcall.shutdown();
        // Whoever takes the lease compares them first.
        let _farcall = start(&home, &vendor);
        until("the copy to hear of the delivery", || keys(database) == [waits.clone()]);
    });
}

#[test]
fn what_a_lost_outbox_had_is_delivered_from_the_database_under_its_keys() {
    let test = "what_a_lost_outbox_had_is_delivered_from_the_database_under_its_keys";
    with_a_key(test, |database| {
        let (lost, vendor) = (home(&[database], ""), Vendor::start());
        let farcall = start(&lost, &vendor);
        let outbox = farcall.outbox().unwrap();
        let put = |body: &str| {
            let parcel = later(&vendor).order_key("acme").body(body.to_owned());
            outbox.put(parcel).unwrap().idempotency_key
        };
        let known = ["1", "2", "3"].map(put);
        drop((outbox, farcall, lost));
        let home = home(&[database], "");
        home.configure(&config(&vendor));
        let operator = Operator::at(home.path());
        let done = operator.restore(&place(database), None, false).unwrap();
        assert_eq!((done.restored, done.known, done.dead), (3, 0, 0));
        let again = operator.restore(&place(database), None, false).unwrap();
        assert_eq!((again.restored, again.known), (0, 3), "they are this outbox's now, once each");
        let items = operator.list(&Filter::default()).unwrap();
        assert_eq!(items.iter().map(|item| item.idempotency_key.clone()).collect::<Vec<_>>(), known);
        let ids: Vec<i64> = items.iter().map(|item| item.id).collect();
        assert_eq!(operator.retry(&ids).unwrap(), 3);
        drop(operator);
        let farcall = start(&home, &vendor);
        for id in ids {
            assert_eq!(farcall.outbox().unwrap().wait(id, PATIENCE).unwrap().state, State::Delivered);
        }
        let mut got: Vec<(String, String)> = vendor
            .got()
            .into_iter()
            .map(|got| (got.body.clone(), got.header("idempotency-key").unwrap().to_owned()))
            .collect();
        got.dedup();
        let expected = ["1", "2", "3"].map(str::to_owned).into_iter().zip(known);
        assert_eq!(got, expected.collect::<Vec<_>>());
    });
}

#[test]
fn a_restore_that_fails_takes_nothing_out_of_the_copy_that_it_reads() {
    let test = "a_restore_that_fails_takes_nothing_out_of_the_copy_that_it_reads";
    with_a_key(test, |database| {
        let volumes = tempfile::tempdir().unwrap();
        let (mounted, away) = (volumes.path().join("mounted"), volumes.path().join("away"));
        fs::create_dir(&mounted).unwrap();
        let file = mounted.join("outbox.db");
        let (home, vendor) = (home(&[database, file.to_str().unwrap()], ""), Vendor::start());
        let put = |many: usize| {
            let farcall = start(&home, &vendor);
            for _ in 0..many {
                let _receipt = farcall.outbox().unwrap().put(later(&vendor)).unwrap();
            }
            farcall.shutdown();
        };
        put(1);
        // An older file is copied back.
        let copy = |from: &Path, to: &Path| {
            let _none_now = fs::remove_file(to.join("outbox.db-shm"));
            for name in ["outbox.db", "outbox.db-wal"] {
                let _there_may_be_none = fs::remove_file(to.join(name));
                let _there_may_be_none = fs::copy(from.join(name), to.join(name));
            }
        };
        copy(home.path(), volumes.path());
        put(2);
        copy(volumes.path(), home.path());
        fs::rename(&mounted, &away).unwrap();
        let operator = Operator::at(home.path());
        let failed = operator.restore(&place(database), None, false).unwrap_err();
        assert!(matches!(failed, OutboxError::Copies { .. }), "{failed}");
        assert_eq!(keys(database).len(), 3);
        fs::rename(&away, &mounted).unwrap();
        let done = Operator::at(home.path()).restore(&place(database), None, false).unwrap();
        assert_eq!((done.restored, done.known), (2, 1));
        assert_eq!(keys(database).len(), 3);
    });
}

#[test]
fn copies_of_several_outboxes_in_one_database_are_told_apart() {
    with_a_key("copies_of_several_outboxes_in_one_database_are_told_apart", |database| {
        let vendor = Vendor::start();
        let put = |home: &Home| {
            let farcall = start(home, &vendor);
            farcall.outbox().unwrap().put(later(&vendor)).unwrap().idempotency_key
        };
        let (lost, other) = (home(&[database], ""), home(&[database], ""));
        let (wanted, _) = (put(&lost), put(&other));
        let lost_place = lost.path().display().to_string();
        drop(lost);
        let fresh = home(&[], "");
        fresh.configure(&config(&vendor));
        let operator = Operator::at(fresh.path());
        let error = operator.restore(&place(database), None, false).unwrap_err();
        assert!(matches!(error, OutboxError::Whose(_)), "{error}");
        let text = error.to_string();
        let line = text.lines().find(|line| line.contains(&lost_place)).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains("1 pending"), "{line}");
        let of = line.split_whitespace().next().unwrap();
        assert_eq!(operator.restore(&place(database), Some(of), false).unwrap().restored, 1);
        let restored = operator.list(&Filter::default()).unwrap();
        assert_eq!(restored.iter().map(|item| item.idempotency_key.clone()).collect::<Vec<_>>(), [wanted]);
        let error = operator.restore(&place(database), Some("nobody"), false).unwrap_err();
        assert!(error.to_string().contains("no calls of the outbox nobody"), "{error}");
    });
}

#[test]
fn a_server_that_does_not_sync_or_is_gone_takes_no_copy_and_the_call_is_nowhere() {
    let test = "a_server_that_does_not_sync_or_is_gone_takes_no_copy_and_the_call_is_nowhere";
    with_a_key(test, |_| {
        let Some(careless) = Server::start_with(&["fsync=off"]) else { return };
        let vendor = Vendor::start();
        let home = home(&[&careless.database()], "");
        let farcall = start(&home, &vendor);
        let error = farcall.outbox().unwrap().put(later(&vendor)).unwrap_err();
        assert!(matches!(&error, OutboxError::Copies { has: 0, needed: 1, .. }), "{error}");
        assert!(error.to_string().contains("fsync is off"), "{error}");
        assert!(Operator::at(home.path()).list(&Filter::default()).unwrap().is_empty());
        careless.kill();
        let error = farcall.outbox().unwrap().put(later(&vendor)).unwrap_err();
        assert!(matches!(&error, OutboxError::Copies { has: 0, needed: 1, .. }), "{error}");
        assert!(Operator::at(home.path()).list(&Filter::default()).unwrap().is_empty());
    });
}

#[test]
fn commits_of_a_copy_are_synced_although_the_database_has_that_off() {
    with_a_key("commits_of_a_copy_are_synced_although_the_database_has_that_off", |database| {
        let name = database.rsplit('/').next().unwrap();
        ask(database, &format!("ALTER DATABASE {name} SET synchronous_commit = off"));
        // The server writes down what the session that adds a call has.
        let vendor = Vendor::start();
        let first = home(&[database], "");
        start(&first, &vendor).outbox().unwrap().put(later(&vendor)).unwrap();
        ask(
            database,
            "CREATE TABLE public.seen (setting text);
            CREATE FUNCTION public.see() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN INSERT INTO public.seen VALUES (current_setting(''synchronous_commit'')); RETURN NEW; END';
            CREATE TRIGGER see BEFORE INSERT ON farcall_outbox_copy.item FOR EACH ROW EXECUTE FUNCTION public.see()",
        );
        let second = home(&[database], "");
        start(&second, &vendor).outbox().unwrap().put(later(&vendor)).unwrap();
        assert_eq!(ask(database, "SELECT setting FROM public.seen"), "on");
    });
}

#[test]
fn what_could_be_read_by_nobody_after_the_loss_of_its_key_is_no_copy() {
    let Some(server) = Server::shared() else { return };
    if env::var_os(KEY).is_some() {
        return;
    }
    let (home, vendor) = (home(&[&server.database()], ""), Vendor::start());
    let error = start(&home, &vendor).outbox().unwrap().put(later(&vendor)).unwrap_err();
    assert!(matches!(&error, OutboxError::Copies { has: 0, needed: 1, .. }), "{error}");
    assert!(error.to_string().contains("FARCALL_OUTBOX_KEY"), "{error}");
    assert!(Operator::at(home.path()).list(&Filter::default()).unwrap().is_empty());
}
