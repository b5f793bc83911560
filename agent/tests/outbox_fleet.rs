//! The outbox in a PostgreSQL that hosts share: what is promised beyond what outbox.rs shows on both stores.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used)]

mod outbox_support;

use farcall_agent::outbox::{Filter, Operator, OutboxError, Parcel, State};
use farcall_agent::{Farcall, Options};
use outbox_support::postgres::Server;
use outbox_support::{Home, Vendor, config};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for any machine; nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(120);

fn start(home: &Home, vendor: &Vendor) -> Farcall {
    Farcall::start(Options {
        home: Some(home.path().into()),
        config: Some(home.configure(&config(vendor))),
        service: Some("shop".into()),
        hub: false,
        ..Options::default()
    })
}

/// Another host: with the same key, as `FARCALL_OUTBOX_KEY` gives it to a fleet.
fn beside(home: &Home) -> Home {
    let other = home.beside();
    std::fs::copy(home.path().join("outbox.key"), other.path().join("outbox.key")).unwrap();
    other
}

/// On a server of its own, which may take so long.
fn on(server: &Server, timeout: &str) -> Home {
    let mut home = Home::in_a_file();
    home.settings = format!("[outbox_store]\nstore = \"{}\"\ntimeout = \"{timeout}\"\n", server.database());
    home
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn later(vendor: &Vendor) -> Parcel {
    Parcel::new("POST", vendor.url("/")).delay(Duration::from_secs(86_400))
}

#[test]
fn hosts_deliver_what_any_of_them_put_and_no_call_under_two_keys() {
    let Some(home) = Home::in_postgres() else { return };
    let vendor = Vendor::start();
    let first = start(&home, &vendor);
    let here = first.outbox().unwrap();
    let id = here.put(Parcel::new("POST", vendor.url("/")).body("first")).unwrap().id;
    let other = beside(&home);
    let second = start(&other, &vendor);
    let there = second.outbox().unwrap();
    let mut put: HashMap<String, i64> = HashMap::from([("first".to_owned(), id)]);
    for number in 0..40 {
        let (outbox, body) = ([&here, &there][number % 2], number.to_string());
        let mut parcel = Parcel::new("POST", vendor.url("/")).body(body.clone());
        if number % 3 == 0 {
            parcel = parcel.order_key("acme");
        }
        put.insert(body, outbox.put(parcel).unwrap().id);
    }
    for id in put.values() {
        assert_eq!(there.wait(*id, PATIENCE).unwrap().state, State::Delivered);
    }
    let (mut keys, mut ordered) = (HashMap::new(), Vec::new());
    for got in vendor.got() {
        let key = got.header("idempotency-key").unwrap().to_owned();
        assert_eq!(*keys.entry(got.body.clone()).or_insert_with(|| key.clone()), key, "{got:?}");
        ordered.extend(got.body.parse::<usize>().ok().filter(|number| number % 3 == 0));
    }
    assert_eq!(keys.keys().collect::<HashSet<_>>(), put.keys().collect());
    ordered.dedup();
    assert!(ordered.is_sorted(), "{ordered:?}");
    // An operator on any host sees them all.
    assert_eq!(Operator::at(other.path()).counts().unwrap()[0].calls, 41);
    assert_eq!(Operator::at(other.path()).show(id, true).unwrap().body.as_deref(), Some("first"));
}

#[test]
fn whoever_comes_first_makes_the_tables_also_where_all_do() {
    let Some(home) = Home::in_postgres() else { return };
    let vendor = Vendor::start();
    let homes: Vec<Home> = (0..6).map(|_| home.beside()).collect();
    thread::scope(|scope| {
        for home in &homes {
            scope.spawn(|| start(home, &vendor).outbox().unwrap().put(later(&vendor)).unwrap());
        }
    });
    let counts = Operator::at(homes[0].path()).counts().unwrap();
    assert_eq!((counts.len(), counts[0].calls), (1, 6));
}

#[test]
fn tables_of_a_later_version_are_left_alone() {
    let Some(server) = Server::shared() else { return };
    let (home, vendor) = (on(&server, "30s"), Vendor::start());
    let farcall = start(&home, &vendor);
    farcall.outbox().unwrap().put(later(&vendor)).unwrap();
    farcall.shutdown();
    let database = home.settings.split('"').nth(1).unwrap().rsplit_once('/').unwrap().1.to_owned();
    server.ask(&database, "INSERT INTO farcall_outbox.version VALUES (99)");
    let error = start(&home, &vendor).outbox().unwrap().put(later(&vendor)).unwrap_err().to_string();
    assert!(error.contains("a later version of farcall") && error.contains("99"), "{error}");
}

#[test]
fn a_server_that_does_not_sync_is_refused() {
    let Some(server) = Server::start_with(&["fsync=off"]) else { return };
    let (home, vendor) = (on(&server, "30s"), Vendor::start());
    let error = start(&home, &vendor).outbox().unwrap().put(later(&vendor)).unwrap_err().to_string();
    assert!(error.contains("fsync is off") && error.contains("set fsync = on"), "{error}");
}

#[test]
fn calls_are_synced_although_the_database_has_that_off() {
    let Some(server) = Server::shared() else { return };
    let (home, vendor) = (on(&server, "30s"), Vendor::start());
    let database = home.settings.split('"').nth(1).unwrap().rsplit_once('/').unwrap().1.to_owned();
    server.ask(&database, &format!("ALTER DATABASE {database} SET synchronous_commit = off"));
    assert_eq!(server.ask(&database, "SHOW synchronous_commit"), "off");
    let farcall = start(&home, &vendor);
    farcall.outbox().unwrap().put(later(&vendor)).unwrap();
    server.ask(
        &database,
        "CREATE TABLE public.seen (setting text);
        CREATE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO public.seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
        CREATE TRIGGER look AFTER INSERT ON farcall_outbox.item FOR EACH ROW EXECUTE FUNCTION public.look()",
    );
    farcall.outbox().unwrap().put(later(&vendor)).unwrap();
    assert_eq!(server.ask(&database, "SELECT setting FROM public.seen"), "on");
}

#[test]
fn a_server_that_is_gone_or_stands_still_is_an_error_and_used_again_when_it_is_back() {
    let Some(server) = Server::start() else { return };
    let (home, vendor) = (on(&server, "10s"), Vendor::start());
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    until("the server, on a machine however slow", || outbox.put(later(&vendor)).is_ok());
    server.kill();
    // By the put itself, not by a timeout of this test.
    let error = outbox.put(later(&vendor)).unwrap_err();
    assert!(error.to_string().contains("postgres://"), "{error}");
    server.run();
    until("the server to be used again", || outbox.put(later(&vendor)).is_ok());
    let signal = |signal: Signal| {
        for pid in server.pids() {
            let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal);
        }
    };
    signal(Signal::STOP);
    let error = outbox.put(later(&vendor)).unwrap_err();
    signal(Signal::CONT);
    assert!(error.to_string().contains("postgres://"), "{error}");
    until("the server to be used again", || outbox.put(later(&vendor)).is_ok());
}

#[test]
fn what_a_host_had_on_its_way_when_it_died_is_delivered_by_another() {
    let Some(home) = Home::in_postgres() else { return };
    let (server, vendor) = (home.server.clone().unwrap(), Vendor::start());
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    // Nobody answers the first one for as long as this test runs.
    vendor.answer_next(&["stall"]);
    let slow = Parcel::new("POST", vendor.url("/")).timeout(Duration::from_secs(86_400));
    let receipt = outbox.put(slow).unwrap();
    until("the call to be on its way", || vendor.got().len() == 1);
    let other = beside(&home);
    let second = start(&other, &vendor);
    second.outbox().unwrap().item(receipt.id).unwrap();
    // As if its host had died: its lease ends.
    let database = home.settings.split('"').nth(1).unwrap().rsplit_once('/').unwrap().1.to_owned();
    until("another to deliver it", || {
        server.ask(&database, "UPDATE farcall_outbox.worker SET until = 0 WHERE token = 1");
        vendor.got().len() > 1
    });
    assert_eq!(outbox.wait(receipt.id, PATIENCE).unwrap().state, State::Delivered);
    assert!(vendor.got().iter().all(|got| got.header("idempotency-key") == Some(&receipt.idempotency_key)));
}

#[test]
fn what_the_server_did_not_take_is_kept_here_and_goes_on_in_its_order() {
    let Some(server) = Server::start() else { return };
    let (mut home, vendor, copies) = (on(&server, "10s"), Vendor::start(), tempfile::tempdir().unwrap());
    let copy = copies.path().join("copy.db");
    home.settings += &format!("on_unreachable = \"spool\"\ncopies = [\"{}\"]\n", copy.display());
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let put = |body: &str| {
        let parcel = Parcel::new("POST", vendor.url("/")).order_key("acme").body(body.to_owned());
        outbox.put(parcel).unwrap()
    };
    let first = put("0");
    until("the first one, on a machine however slow", || {
        outbox.item(first.id).is_ok_and(|item| item.state == State::Delivered)
    });
    server.kill();
    let spooled = [put("1"), put("2"), put("3")];
    for receipt in &spooled {
        assert!(receipt.id < 0, "it is not in the PostgreSQL");
        let item = outbox.item(receipt.id).unwrap();
        assert_eq!((item.id, item.state), (receipt.id, State::Pending));
    }
    server.run();
    // Behind those that wait here, wherever it is kept.
    let last = put("4");
    for receipt in spooled.iter().chain([&last]) {
        until("the call to go on and to be delivered", || {
            outbox.item(receipt.id).is_ok_and(|item| item.state == State::Delivered)
        });
        let item = outbox.item(receipt.id).unwrap();
        assert_eq!(item.idempotency_key, receipt.idempotency_key);
    }
    let mut bodies: Vec<String> = vendor.got().iter().map(|got| got.body.clone()).collect();
    bodies.dedup();
    assert_eq!(bodies, ["0", "1", "2", "3", "4"]);
    let operator = Operator::at(home.path());
    let listed = operator.list(&Filter::default()).unwrap();
    assert!(listed.len() == 5 && listed.iter().all(|item| item.id > 0), "{listed:?}");
    let db = rusqlite::Connection::open(&copy).unwrap();
    let many = db.query_row("SELECT count(*) FROM item", [], |row| row.get::<_, i64>(0)).unwrap();
    assert!(many > 0, "what was put is in the copy, wherever else it is");
}

#[test]
fn what_a_server_that_is_reached_does_not_take_is_kept_here_and_goes_on_too() {
    let Some(server) = Server::start() else { return };
    let (mut home, vendor) = (on(&server, "30s"), Vendor::start());
    home.settings += "on_unreachable = \"spool\"\n";
    let database = home.settings.split('"').nth(1).unwrap().rsplit_once('/').unwrap().1.to_owned();
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let delivered = |id| {
        until("the call to be delivered", || {
            outbox.item(id).is_ok_and(|item| item.state == State::Delivered)
        });
    };
    delivered(outbox.put(Parcel::new("POST", vendor.url("/"))).unwrap().id);
    server.ask(
        &database,
        "CREATE FUNCTION public.full() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RAISE EXCEPTION ''no space is left'' USING ERRCODE = ''disk_full''; END';
        CREATE TRIGGER full_disk BEFORE INSERT ON farcall_outbox.item
            FOR EACH ROW EXECUTE FUNCTION public.full()",
    );
    let full = outbox.put(Parcel::new("POST", vendor.url("/full"))).unwrap();
    assert!(full.id < 0, "it is not in the PostgreSQL");
    server.ask(&database, "DROP FUNCTION public.full() CASCADE");
    delivered(full.id);
    server.stand_by();
    let standby = outbox.put(Parcel::new("POST", vendor.url("/standby"))).unwrap();
    assert!(standby.id < 0, "it is not in the PostgreSQL");
    assert_eq!(outbox.item(standby.id).unwrap().state, State::Pending);
    server.promote();
    delivered(standby.id);
    let paths: Vec<String> = vendor.got().iter().map(|got| got.line.clone()).collect();
    for path in ["/full", "/standby"] {
        assert!(paths.iter().any(|line| line.contains(path)), "{path}: {paths:?}");
    }
}

#[test]
fn a_call_that_the_server_refuses_is_overtaken_by_none_of_its_key_and_holds_up_no_other() {
    let Some(server) = Server::shared() else { return };
    let (mut home, vendor) = (on(&server, "60s"), Vendor::start());
    home.settings += "on_unreachable = \"spool\"\n";
    let database = home.settings.split('"').nth(1).unwrap().rsplit_once('/').unwrap().1.to_owned();
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let operator = Operator::at(home.path());
    let call = |body: &str| Parcel::new("POST", vendor.url("/")).body(body.to_owned()).idempotency_key(body);
    outbox.put(later(&vendor)).unwrap();
    server.ask(
        &database,
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN RAISE EXCEPTION ''no space is left'' USING ERRCODE = ''disk_full''; END';
        CREATE TRIGGER refuse BEFORE INSERT ON farcall_outbox.item FOR EACH ROW
            WHEN (new.idempotency_key IN ('0', 'free')) EXECUTE FUNCTION public.refuse()",
    );
    // All are on their way before anything is known of the first one.
    let refused = outbox.submit(call("free")).unwrap();
    let line = ["0", "1", "2", "3"].map(|body| outbox.submit(call(body).order_key("acme")).unwrap());
    let line = line.map(|pending| pending.wait().unwrap());
    let refused = refused.wait().unwrap();
    assert!(refused.id < 0 && line.iter().all(|receipt| receipt.id < 0), "{line:?}");
    let other = outbox.put(call("other").order_key("bolt")).unwrap();
    assert_eq!(outbox.wait(other.id, PATIENCE).unwrap().state, State::Delivered);
    until("the operator to hear why they wait", || operator.beside().unwrap().refused == 2);
    let beside = operator.beside().unwrap();
    assert_eq!((beside.spooled, beside.uncopied), (5, 0));
    assert!(beside.why.is_some_and(|why| why.contains("no space is left")));
    let listed = operator.list(&Filter::default()).unwrap();
    let told = listed.iter().find(|item| item.id == refused.id).unwrap();
    assert!(told.error.as_ref().is_some_and(|error| error.contains("no space is left")), "{told:?}");
    server.ask(&database, "DROP FUNCTION public.refuse() CASCADE");
    for receipt in line.iter().chain([&refused]) {
        until("the call to be delivered", || {
            outbox.item(receipt.id).is_ok_and(|item| item.state == State::Delivered)
        });
    }
    let bodies = vendor.got().into_iter().map(|got| got.body).filter(|body| body.parse::<u8>().is_ok());
    let mut bodies: Vec<String> = bodies.collect();
    bodies.dedup();
    assert_eq!(bodies, ["0", "1", "2", "3"]);
}

#[test]
fn calls_whose_key_is_gone_are_told_of_once_they_are_due_and_nobody_takes_them() {
    let Some(home) = Home::in_postgres() else { return };
    let vendor = Vendor::start();
    let database = home.settings.split('"').nth(1).unwrap().rsplit_once('/').unwrap().1.to_owned();
    let ask = |sql: &str| home.server.as_ref().unwrap().ask(&database, sql);
    let put = |home: &Home, parcels: Vec<Parcel>| {
        let farcall = start(home, &vendor);
        for parcel in parcels {
            farcall.outbox().unwrap().put(parcel).unwrap();
        }
        farcall.shutdown();
    };
    // Of those of one key the second one waits for the first.
    let ordered = || later(&vendor).order_key("acme");
    put(&home, vec![later(&vendor), later(&vendor), ordered(), ordered()]);
    let gone = |home: &Home| Operator::at(home.path()).unreadable().unwrap();
    assert_eq!(gone(&home), None);
    let (key, away) = (home.path().join("outbox.key"), home.path().join("away"));
    std::fs::rename(&key, &away).unwrap();
    assert_eq!(gone(&home), None, "a host that has the key may take them yet");
    ask("UPDATE farcall_outbox.item SET next_at = 1");
    let told = gone(&home).unwrap();
    assert_eq!(told.calls, 4);
    assert!(
        told.to_string().starts_with("4 calls in the outbox wait for a key: it is neither in "),
        "{told}"
    );
    ask("UPDATE farcall_outbox.item SET token = 7 WHERE id = 1");
    assert_eq!(gone(&home).unwrap().calls, 3, "another host has it on its way");
    ask("UPDATE farcall_outbox.item SET token = NULL");
    // A host with a key of its own can read what it put itself.
    let other = home.beside();
    put(&other, vec![later(&vendor)]);
    ask("UPDATE farcall_outbox.item SET next_at = 1");
    assert_eq!(gone(&other).unwrap().calls, 4);
    assert_eq!(gone(&home).unwrap().calls, 5);
    std::fs::rename(&away, &key).unwrap();
    assert_eq!(gone(&home).unwrap().calls, 1);
    ask("DELETE FROM farcall_outbox.item WHERE id = 5");
    assert_eq!(gone(&home), None);
}

#[test]
fn nothing_is_put_beside_calls_that_wait_here_and_whose_key_is_gone() {
    let vendor = Vendor::start();
    let mut home = Home::in_a_file();
    // Nobody listens there.
    home.settings = "[outbox_store]\nstore = \"postgres://nobody@127.0.0.1:1/none\"\ntimeout = \"60s\"\n\
         on_unreachable = \"spool\"\n"
        .into();
    let put = || {
        let farcall = start(&home, &vendor);
        let put = farcall.outbox().unwrap().put(later(&vendor));
        farcall.shutdown();
        put
    };
    assert!(put().unwrap().id < 0);
    let (key, away) = (home.path().join("outbox.key"), home.path().join("away"));
    std::fs::rename(&key, &away).unwrap();
    let error = put().unwrap_err();
    assert!(matches!(&error, OutboxError::Key(why) if why.contains("outbox.key is not there")), "{error}");
    assert!(!key.exists(), "none is made that could not read them");
    std::fs::rename(&away, &key).unwrap();
    assert!(put().unwrap().id < 0);
}

#[test]
fn an_address_that_is_not_there_is_said_at_each_put() {
    let vendor = Vendor::start();
    let mut home = Home::in_a_file();
    home.settings = "[outbox_store]\nstore = \"$FARCALL_TEST_NO_SUCH_VARIABLE\"\n".into();
    let error = start(&home, &vendor).outbox().unwrap().put(later(&vendor)).unwrap_err();
    assert!(
        matches!(&error, OutboxError::Settings(why) if why.contains("FARCALL_TEST_NO_SUCH_VARIABLE")),
        "{error}"
    );
    assert!(Operator::at(home.path()).counts().is_err());
}
