//! A copy of the outbox in a PostgreSQL: what is promised of it. Each promise is kept in a process of its own, which
//! has the key in its environment.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used)]

mod outbox_support;

use farcall::config::OutboxPlace;
use farcall_agent::outbox::{Filter, Operator, OutboxError, Without};
use outbox_support::copies::{Copy, ask, home, later, start, until, with_a_key, with_a_key_saying};
use outbox_support::postgres::Server;
use outbox_support::{Home, Vendor, config};
use std::env;
use std::fs;
use std::path::Path;

fn keys(database: &str) -> Vec<String> {
    Copy::Postgres(database.into()).keys()
}

fn place(database: &str) -> OutboxPlace {
    OutboxPlace::parse(database).unwrap()
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
fn a_database_that_does_not_answer_is_a_copy_that_cannot_be_written() {
    with_a_key("a_database_that_does_not_answer_is_a_copy_that_cannot_be_written", |database| {
        let (vendor, away) = (Vendor::start(), "postgres://127.0.0.1:1/none");
        let beside = |copies: &[&str]| {
            let home = home(copies, "");
            home.configure(&config(&vendor));
            Operator::at(home.path()).beside().unwrap()
        };
        assert_eq!(beside(&[database]).wrong_with_copies(), [""; 0]);
        let beside = beside(&[database, away]);
        assert_eq!(beside.without_copies, Some(Without::Refused));
        let [missing] = &beside.missing_copies[..] else { panic!("{beside:?}") };
        assert!(missing.name == away && missing.why.contains("refused"), "{missing}");
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
    if env::var_os("FARCALL_OUTBOX_KEY").is_some() {
        return;
    }
    let (home, vendor) = (home(&[&server.database()], ""), Vendor::start());
    let error = start(&home, &vendor).outbox().unwrap().put(later(&vendor)).unwrap_err();
    assert!(matches!(&error, OutboxError::Copies { has: 0, needed: 1, .. }), "{error}");
    assert!(error.to_string().contains("FARCALL_OUTBOX_KEY"), "{error}");
    assert!(Operator::at(home.path()).list(&Filter::default()).unwrap().is_empty());
}

#[test]
fn what_a_process_takes_that_never_reached_its_store_is_in_the_copy_and_becomes_the_stores() {
    let test = "what_a_process_takes_that_never_reached_its_store_is_in_the_copy_and_becomes_the_stores";
    let promise = |database: &str| {
        let Some(away) = Server::start() else { return };
        let (store, vendor) = (away.database(), Vendor::start());
        away.kill();
        let more = format!("store = \"{store}\"\non_unreachable = \"spool\"");
        let home = home(&[database], &more);
        let put = |number: i32| {
            let farcall = start(&home, &vendor);
            let receipt = farcall.outbox().unwrap().put(later(&vendor)).unwrap();
            farcall.shutdown();
            assert_eq!(receipt.id < 0, number < 2, "{number}: {receipt:?}");
            receipt.idempotency_key
        };
        let mut known: Vec<String> = (0..2).map(put).collect();
        assert_eq!(keys(database), known);
        let owners = || ask(database, "SELECT count(DISTINCT store) FROM farcall_outbox_copy.item");
        assert_eq!(owners(), "1", "two processes that know of nothing but their directory");
        let fresh = beside_nothing(&vendor);
        let lost = Operator::at(fresh.path()).restore(&place(database), None, false).unwrap();
        assert_eq!(lost.restored, 2, "what is only in the copy can be had from it");
        drop(fresh);
        away.run();
        let _farcall = start(&home, &vendor);
        let server = |sql: &str| away.ask(store.rsplit_once('/').unwrap().1, sql);
        until("the calls to go on", || {
            Operator::at(home.path()).beside().is_ok_and(|beside| beside.spooled == 0)
        });
        let identity = server("SELECT id FROM farcall_outbox.identity");
        let owner = format!("SELECT count(*) FROM farcall_outbox_copy.item WHERE store = '{identity}'");
        until("the copy to be the store's", || ask(database, &owner) == "2");
        assert_eq!(owners(), "1");
        // From now on its name is known, wherever it is.
        away.kill();
        let farcall = start(&home, &vendor);
        known.push(farcall.outbox().unwrap().put(later(&vendor)).unwrap().idempotency_key);
        assert_eq!(ask(database, &owner), "3");
        assert_eq!(keys(database), known);
    };
    with_a_key_saying(test, promise, |said| {
        assert!(said.contains("calls are kept in"), "{said}");
        assert!(!said.contains("was it lost"), "it is nobody else's: {said}");
    });
}

/// A home directory without copies.
fn beside_nothing(vendor: &Vendor) -> Home {
    let home = home(&[], "");
    home.configure(&config(vendor));
    home
}
