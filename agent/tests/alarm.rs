//! A delivery that fails is told, by a way that the vendor has no part in.
#![cfg(feature = "outbox")]
#![allow(clippy::unwrap_used)]

mod outbox_support;

use farcall_agent::outbox::{Parcel, Reference, State};
use farcall_agent::report::{self, Query};
use farcall_agent::{Farcall, Options};
use outbox_support::{Vendor, config};
use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for any machine; nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

fn started(home: &std::path::Path, vendor: &Vendor, way: &str) -> Farcall {
    let rules = format!(
        "[alarm]\n{way}\nevery = \"1h\"\ntimeout = \"1s\"\n\
         [[outbox]]\nname = \"orders\"\nmatch = {{ vendor = \"recorder\" }}\ncritical = true\n"
    );
    let file = home.join("farcall.toml");
    std::fs::write(&file, format!("{rules}{}", config(vendor))).unwrap();
    start_at(home, file)
}

fn start_at(home: &std::path::Path, config: std::path::PathBuf) -> Farcall {
    Farcall::start(Options {
        home: Some(home.into()),
        config: Some(config),
        service: Some("shop".into()),
        hub: false,
        ..Options::default()
    })
}

/// Not a test of its own: a process that has an alarm to tell, by a webhook that does not answer.
#[test]
fn child_body() {
    let Ok(url) = std::env::var("ALARM_URL") else { return };
    let home = std::path::PathBuf::from(std::env::var("FARCALL_HOME").unwrap());
    let farcall = start_at(&home, home.join("farcall.toml"));
    farcall.outbox().unwrap().put(Parcel::new("POST", url)).unwrap();
    std::thread::sleep(PATIENCE);
}

#[test]
fn what_a_process_was_telling_when_it_was_killed_is_told_by_another() {
    let (home, vendor) = (tempfile::tempdir().unwrap(), Vendor::start());
    vendor.answer_next(&["503 Service Unavailable"; 1_000]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let webhook = format!("webhook = \"http://{}/\"", listener.local_addr().unwrap());
    started(home.path(), &vendor, &webhook).shutdown();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_body", "--nocapture"])
        .env("ALARM_URL", vendor.url("/"))
        .env("FARCALL_HOME", home.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // It has its turn, and tells.
    listener.set_nonblocking(true).unwrap();
    let until = Instant::now() + PATIENCE;
    let mut connection = loop {
        match listener.accept() {
            Ok((connection, _)) => break connection,
            Err(error) => assert!(Instant::now() < until, "no alarm came: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    connection.set_nonblocking(false).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(connection.read(&mut [0; 16]).unwrap() > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    drop((connection, listener));
    // Nobody heard of it. Another process of the service delivers now, which fails as well.
    let log = home.path().join("alarms.log");
    let farcall = started(home.path(), &vendor, &format!("log = \"{}\"", log.display()));
    let outbox = farcall.outbox().unwrap();
    let until = Instant::now() + 2 * PATIENCE;
    let told = loop {
        outbox.put(Parcel::new("POST", vendor.url("/"))).unwrap();
        match std::fs::read_to_string(&log) {
            Ok(told) if told.ends_with('\n') => break told,
            _ => assert!(Instant::now() < until, "nobody was told"),
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    farcall.shutdown();
    let [line] = told.lines().collect::<Vec<_>>().try_into().unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let fields = &line["farcall"];
    assert_eq!((fields["rule"].as_str(), fields["service"].as_str()), (Some("orders"), Some("shop")));
    assert_ne!(fields["pid"].as_u64().unwrap(), u64::from(child.id()));
    assert!(fields["held_back"].as_u64().unwrap() >= 1, "it counts the one that nobody heard of: {line}");
}

#[test]
fn the_first_failed_delivery_of_a_critical_call_is_told_and_delivery_goes_on() {
    let (home, vendor) = (tempfile::tempdir().unwrap(), Vendor::start());
    let log = home.path().join("alarms.log");
    let rules = format!(
        "[alarm]\nlog = \"{}\"\nevery = \"1h\"\n\
         [[outbox]]\nname = \"orders\"\nmatch = {{ vendor = \"recorder\" }}\ncritical = true\n",
        log.display()
    );
    let file = home.path().join("farcall.toml");
    std::fs::write(&file, format!("{rules}{}", config(&vendor))).unwrap();
    let farcall = Farcall::start(Options {
        home: Some(home.path().into()),
        config: Some(file),
        service: Some("shop".into()),
        hub: false,
        ..Options::default()
    });
    vendor.answer_next(&["503 Service Unavailable", "409 Conflict", "422 Unprocessable Content"]);
    let outbox = farcall.outbox().unwrap();
    let receipt = outbox.put(Parcel::new("POST", vendor.url("/")).customer("acme")).unwrap();
    let item = outbox.wait(receipt.id, PATIENCE).unwrap();
    assert_eq!((item.state, item.attempts), (State::Dead, 3), "{item:?}");
    // Its thread may be slower than the deliveries.
    let until = Instant::now() + PATIENCE;
    let told = loop {
        match std::fs::read_to_string(&log) {
            Ok(told) if told.ends_with('\n') => break told,
            _ => assert!(Instant::now() < until, "nobody was told"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    farcall.shutdown();
    let [line] = told.lines().collect::<Vec<_>>().try_into().unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let fields = &line["farcall"];
    assert_eq!((fields["rule"].as_str(), fields["customer"].as_str()), (Some("orders"), Some("acme")));
    assert_eq!(
        (fields["failure"].as_str(), fields["delivery"].as_bool()),
        (Some("answered 503"), Some(true))
    );
    let calls = report::calls(&Query::at(home.path())).unwrap();
    let call = calls.rows.iter().find(|row| fields["call"].as_str() == Some(&row.id)).unwrap();
    assert!(
        call.events.iter().any(|event| event.ends_with("critical by `orders`: the alarm is told")),
        "{:?}",
        call.events
    );
    assert!(farcall.counters().contains(&("untold_alarms".to_owned(), 0)));
}

#[test]
fn a_callback_that_fails_is_told_by_its_name_and_one_that_nobody_here_knows_is_none() {
    let (home, vendor) = (tempfile::tempdir().unwrap(), Vendor::start());
    let log = home.path().join("alarms.log");
    let farcall = started(home.path(), &vendor, &format!("log = \"{}\"", log.display()));
    let outbox = farcall.outbox().unwrap();
    let parcel = |name: &str| {
        Parcel::new("POST", vendor.url("/"))
            .customer("acme")
            .secret("authorization", Reference::callback(name).prefix("Bearer "))
    };
    let awaits = outbox.put(parcel("elsewhere")).unwrap().id;
    // A usual call is delivered by the round that found nobody for that one.
    let usual = outbox.put(Parcel::new("POST", vendor.url("/"))).unwrap().id;
    assert_eq!(outbox.wait(usual, PATIENCE).unwrap().state, State::Delivered);
    outbox.credential("stripe", || Err::<String, _>("no lease for sk_live_1")).unwrap();
    let fails = outbox.put(parcel("stripe").max_attempts(1)).unwrap().id;
    assert_eq!(outbox.wait(fails, PATIENCE).unwrap().state, State::Dead);
    let until = Instant::now() + PATIENCE;
    let told = loop {
        match std::fs::read_to_string(&log) {
            Ok(told) if told.ends_with('\n') => break told,
            _ => assert!(Instant::now() < until, "nobody was told"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(outbox.item(awaits).unwrap().state, State::Pending);
    farcall.shutdown();
    assert!(!told.contains("sk_live"), "{told}");
    let [line] = told.lines().collect::<Vec<_>>().try_into().unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let fields = &line["farcall"];
    let field = |name: &str| fields[name].as_str().unwrap();
    assert_eq!((field("rule"), field("customer"), field("call")), ("orders", "acme", ""));
    assert_eq!(field("failure"), "got no credential: the callback `stripe` failed");
    assert_eq!((fields["delivery"].as_bool(), fields["held_back"].as_u64()), (Some(true), Some(0)));
    assert!(line["text"].as_str().unwrap().contains("got no credential"), "{line}");
    // No call was made, so none is counted but the one that was delivered.
    let vendors = report::vendors(&Query::at(home.path())).unwrap();
    assert_eq!(vendors.rows.iter().map(|row| row.numbers.calls).sum::<u64>(), 1);
    assert_eq!(vendor.got().len(), 1);
}
