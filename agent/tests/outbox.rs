//! What the outbox promises, against a vendor that writes down what it got.
#![cfg(feature = "outbox")]
#![allow(clippy::unwrap_used)]

mod outbox_support;

use farcall_agent::outbox::{Filter, Operator, OutboxError, Parcel, Reference, State};
use farcall_agent::report::{self, Query};
use farcall_agent::{Farcall, Options};
use outbox_support::judge::until;
use outbox_support::{Home, Vendor, config, on_each_store};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Long enough for any machine; nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

on_each_store! {
    a_call_that_was_put_is_delivered_through_the_engine_and_its_answer_kept
    whoever_waits_for_a_call_is_told_once_it_is_delivered_or_given_up
    what_waits_for_whom_is_counted_by_vendor_and_told_by_the_doctor
    a_vendor_that_is_down_gets_it_later_under_the_same_key
    what_the_vendor_will_never_take_is_a_dead_letter_until_somebody_retries_it
    a_call_that_no_rule_lets_through_becomes_a_dead_letter_at_its_maximum_age_unsent
    a_dead_letter_counts_what_the_vendor_got_of_it_and_no_more
    an_attempt_that_a_rule_would_repeat_much_later_counts_and_says_what_the_vendor_did
    calls_of_one_key_arrive_in_order_whatever_happens_to_the_first
    a_second_process_finds_what_the_first_one_left
    a_credential_that_is_missing_holds_the_call_and_a_new_one_is_used
    a_vendor_that_took_a_call_is_not_asked_again_because_its_answer_does_not_end
    a_fork_is_not_held_up_by_those_who_put_meanwhile
}

fn start(home: &Home, vendor: &Vendor) -> Farcall {
    start_with(home, &config(vendor))
}

fn start_with(home: &Home, config: &str) -> Farcall {
    let file = home.configure(config);
    Farcall::start(Options {
        home: Some(home.path().into()),
        config: Some(file),
        service: Some("shop".into()),
        hub: false,
        ..Options::default()
    })
}

fn a_call_that_was_put_is_delivered_through_the_engine_and_its_answer_kept(home: Home) {
    let vendor = Vendor::start();
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let parcel = Parcel::new("POST", vendor.url("/v1/refunds?x=1")).header("x-mine", "a").body("amount=7");
    let receipt = outbox.put(parcel.customer("acme")).unwrap();
    let item = outbox.wait(receipt.id, PATIENCE).unwrap();
    assert_eq!((item.state, item.status, item.attempts), (State::Delivered, Some(200), 1), "{item:?}");
    let [got] = vendor.got().try_into().unwrap();
    assert_eq!((got.line.as_str(), got.body.as_str()), ("POST /v1/refunds?x=1 HTTP/1.1", "amount=7"));
    assert_eq!(got.header("x-mine"), Some("a"));
    assert_eq!(got.header("idempotency-key"), Some(receipt.idempotency_key.as_str()));
    let answer = outbox.answer(receipt.id).unwrap().unwrap();
    assert_eq!((answer.status, answer.body.as_slice(), answer.cut), (200, &b"thanks"[..], false));
    farcall.shutdown();
    let customers = report::customers(&Query::at(home.path())).unwrap();
    assert_eq!(customers.rows[0].customer, "acme", "the ledger has it like any call");
}

fn whoever_waits_for_a_call_is_told_once_it_is_delivered_or_given_up(home: Home) {
    let vendor = Vendor::start();
    vendor.answer_next(&["422 Unprocessable Content"]);
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let (sender, told) = std::sync::mpsc::channel();
    let ids = [0, 1].map(|number: u8| {
        let parcel = Parcel::new("POST", vendor.url("/")).order_key("k").body(number.to_string());
        outbox.put(parcel).unwrap().id
    });
    for id in ids {
        let sender = sender.clone();
        outbox.on_done(id, move |item| sender.send(item.unwrap().state).unwrap());
    }
    assert_eq!(outbox.done(ids[1]).wait().unwrap().state, State::Delivered);
    let mut states = [told.recv_timeout(PATIENCE).unwrap(), told.recv_timeout(PATIENCE).unwrap()];
    states.sort_by_key(|state| *state == State::Dead);
    assert_eq!(states, [State::Delivered, State::Dead]);
    assert_eq!(outbox.done(999).wait(), Err(OutboxError::NotFound(999)));
    assert_eq!(outbox.answer(ids[1]).unwrap().unwrap().body, b"thanks");
}

fn what_waits_for_whom_is_counted_by_vendor_and_told_by_the_doctor(home: Home) {
    let vendor = Vendor::start();
    vendor.answer_next(&["422 Unprocessable Content"]);
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let dead = outbox.put(Parcel::new("POST", vendor.url("/"))).unwrap().id;
    assert_eq!(outbox.wait(dead, PATIENCE).unwrap().state, State::Dead);
    outbox.put(Parcel::new("POST", vendor.url("/")).delay(Duration::from_secs(3_600))).unwrap();
    let [count] = Operator::at(home.path()).vendors().unwrap().try_into().unwrap();
    assert_eq!((count.service.as_str(), count.vendor.as_str()), ("shop", "recorder"));
    assert_eq!((count.pending, count.dead, count.delivered, count.attempts), (1, 1, 0, 1));
    assert!(count.oldest.is_some());
    farcall.shutdown();
    let mut query = Query::at(home.path());
    let doctor = report::doctor(&query).unwrap();
    let health = doctor.outbox.unwrap();
    assert_eq!((health.pending, health.dead), (Some(1), Some(1)));
    let problems = |problems: &[String]| problems.iter().filter(|problem| problem.contains("outbox")).count();
    assert_eq!(problems(&doctor.problems), 1, "{:?}", doctor.problems);
    query.now = query.now.plus(Duration::from_secs(3 * 3_600));
    let doctor = report::doctor(&query).unwrap();
    assert!(
        doctor.problems.iter().any(|problem| problem.contains("has been there for 3 h")),
        "{:?}",
        doctor.problems
    );
}

fn a_vendor_that_is_down_gets_it_later_under_the_same_key(home: Home) {
    let vendor = Vendor::start();
    vendor.answer_next(&["503 Service Unavailable", "hang up", "429 Too Many Requests\r\nretry-after: 1"]);
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let receipt = outbox.put(Parcel::new("POST", vendor.url("/"))).unwrap();
    let item = outbox.wait(receipt.id, PATIENCE).unwrap();
    assert_eq!((item.state, item.attempts), (State::Delivered, 4), "{item:?}");
    let got = vendor.got();
    assert_eq!(got.len(), 4);
    assert!(got.iter().all(|got| got.header("idempotency-key") == Some(&receipt.idempotency_key)));
    assert!(got[3].at - got[2].at >= Duration::from_millis(990), "the vendor's Retry-After is kept to");
}

fn what_the_vendor_will_never_take_is_a_dead_letter_until_somebody_retries_it(home: Home) {
    let vendor = Vendor::start();
    vendor.answer_next(&["422 Unprocessable Content"]);
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let id = outbox.put(Parcel::new("POST", vendor.url("/"))).unwrap().id;
    let item = outbox.wait(id, PATIENCE).unwrap();
    assert_eq!((item.state, item.error.as_deref()), (State::Dead, Some("the vendor answered 422")));
    let operator = Operator::at(home.path());
    assert_eq!(operator.retry(&[id]).unwrap(), 1);
    assert_eq!(outbox.wait(id, PATIENCE).unwrap().state, State::Delivered);
    assert_eq!(operator.retry(&[id]).unwrap(), 0);
    assert_eq!(operator.remove(&[id]).unwrap(), 1);
    assert_eq!(outbox.item(id), Err(OutboxError::NotFound(id)));
}

fn a_call_that_no_rule_lets_through_becomes_a_dead_letter_at_its_maximum_age_unsent(home: Home) {
    let vendor = Vendor::start();
    let deny = "[[policy]]\nname = \"closed\"\nmatch = { vendor = \"recorder\" }\nverdict = \"deny\"\n";
    let farcall = start_with(&home, &format!("{}{deny}", config(&vendor)));
    let outbox = farcall.outbox().unwrap();
    let id = outbox.put(Parcel::new("POST", vendor.url("/"))).unwrap().id;
    let until = std::time::Instant::now() + PATIENCE;
    while outbox.item(id).unwrap().error.is_none() {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(Duration::from_millis(10));
    }
    let item = outbox.item(id).unwrap();
    assert_eq!((item.state, item.attempts), (State::Pending, 0));
    assert!(item.error.as_ref().unwrap().contains("policy `closed` denies it"), "{item:?}");
    // Whether it was tried before depends on how busy the machine is.
    let parcel = Parcel::new("POST", vendor.url("/")).max_age(Duration::from_millis(300));
    let id = outbox.put(parcel).unwrap().id;
    let item = outbox.wait(id, PATIENCE).unwrap();
    assert_eq!((item.state, item.attempts), (State::Dead, 0));
    assert!(item.error.as_ref().unwrap().contains("older than its maximum age"), "{item:?}");
    assert_eq!(vendor.got().len(), 0);
}

fn a_dead_letter_counts_what_the_vendor_got_of_it_and_no_more(home: Home) {
    let vendor = Vendor::start();
    vendor.answer_next(&["503 Busy"; 20]);
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let parcel = Parcel::new("POST", vendor.url("/")).max_age(Duration::from_millis(1_500));
    let item = outbox.wait(outbox.put(parcel).unwrap().id, PATIENCE).unwrap();
    assert_eq!(item.state, State::Dead);
    assert!(item.error.as_ref().unwrap().contains("older than its maximum age"), "{item:?}");
    assert_eq!(item.attempts as usize, vendor.got().len());
}

fn an_attempt_that_a_rule_would_repeat_much_later_counts_and_says_what_the_vendor_did(home: Home) {
    let vendor = Vendor::start();
    vendor.answer_next(&["503 Busy\r\nretry-after: 20"; 2]);
    let rule = "[[resilience]]\nmatch = { vendor = \"recorder\" }\nattempts = 3\n";
    let farcall = start_with(&home, &format!("{}{rule}", config(&vendor)));
    let outbox = farcall.outbox().unwrap();
    let parcel = Parcel::new("POST", vendor.url("/")).max_attempts(1);
    let item = outbox.wait(outbox.put(parcel).unwrap().id, PATIENCE).unwrap();
    assert_eq!((item.state, item.attempts, item.status), (State::Dead, 1, Some(503)), "{item:?}");
    assert_eq!(item.error.as_deref(), Some("the vendor answered 503"));
    assert_eq!(vendor.got().len(), 1);
    // Where it may be tried again, it is when the vendor says.
    let id = outbox.put(Parcel::new("POST", vendor.url("/"))).unwrap().id;
    until("the attempt", PATIENCE, || outbox.item(id).unwrap().attempts == 1);
    let item = outbox.item(id).unwrap();
    let wait = Duration::from_nanos(u64::try_from(item.next_at - item.put_at).unwrap());
    assert!(item.state == State::Pending && wait >= Duration::from_secs(19), "{item:?}");
}

fn calls_of_one_key_arrive_in_order_whatever_happens_to_the_first(home: Home) {
    let vendor = Vendor::start();
    vendor.answer_next(&["500 Oh", "hang up"]);
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let ids: Vec<i64> = (0..20)
        .map(|number| {
            let parcel = Parcel::new("POST", vendor.url("/")).order_key("acme").body(number.to_string());
            outbox.put(parcel).unwrap().id
        })
        .collect();
    assert_eq!(outbox.wait(*ids.last().unwrap(), PATIENCE).unwrap().state, State::Delivered);
    let bodies: Vec<String> = vendor.got().iter().map(|got| got.body.clone()).collect();
    let expected: Vec<String> =
        [0, 0].into_iter().chain(0..20).map(|number: u32| number.to_string()).collect();
    assert_eq!(bodies, expected);
}

#[test]
fn neither_secrets_nor_bodies_are_in_any_file_of_the_outbox() {
    let (home, vendor) = (Home::in_a_file(), Vendor::start());
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let secret_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret_file.path(), "sk_live_in_a_file\n").unwrap();
    let parcel = Parcel::new("POST", vendor.url("/hook/t0ken-in-the-path?api_key=k3y-in-the-query"))
        .header("authorization", "Bearer sk_live_literal")
        .secret("x-api-key", Reference::file(secret_file.path()))
        .header("x-note", "a-plain-header")
        .body("card=4242424242424242");
    let id = outbox.put(parcel).unwrap().id;
    assert_eq!(outbox.wait(id, PATIENCE).unwrap().state, State::Delivered);
    let [got] = vendor.got().try_into().unwrap();
    assert_eq!(got.header("authorization"), Some("Bearer sk_live_literal"));
    assert_eq!(got.header("x-api-key"), Some("sk_live_in_a_file"));
    let hidden = ["sk_live", "t0ken", "k3y-in", "a-plain-header", "4242424242", "thanks", "Bearer"];
    let look = || {
        let mut files = 0;
        for entry in std::fs::read_dir(home.path()).unwrap().flatten() {
            if !entry.file_name().to_string_lossy().starts_with("outbox") {
                continue;
            }
            files += 1;
            let bytes = std::fs::read(entry.path()).unwrap();
            for word in hidden {
                let found = bytes.windows(word.len()).any(|part| part == word.as_bytes());
                assert!(!found, "{word} in {:?}", entry.file_name());
            }
        }
        files
    };
    assert!(look() >= 3, "the file, its log and its key");
    farcall.shutdown();
    look();
    let shown = Operator::at(home.path()).show(id, true).unwrap();
    assert_eq!(shown.body.as_deref(), Some("card=4242424242424242"), "with the key it can be read");
    assert!(!format!("{shown:?}").contains("sk_live"), "credentials are shown to nobody");
}

fn a_second_process_finds_what_the_first_one_left(home: Home) {
    let vendor = Vendor::start();
    let id = {
        let deny = "[[policy]]\nmatch = { vendor = \"recorder\" }\nverdict = \"deny\"\n";
        let farcall = start_with(&home, &format!("{}{deny}", config(&vendor)));
        farcall.outbox().unwrap().put(Parcel::new("PUT", vendor.url("/left"))).unwrap().id
    };
    let listed = Operator::at(home.path()).list(&Filter::default()).unwrap();
    assert_eq!((listed.len(), listed[0].state), (1, State::Pending));
    let farcall = start(&home, &vendor);
    assert_eq!(farcall.outbox().unwrap().wait(id, PATIENCE).unwrap().state, State::Delivered);
}

fn a_credential_that_is_missing_holds_the_call_and_a_new_one_is_used(home: Home) {
    let vendor = Vendor::start();
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let secret = home.path().join("secret");
    let parcel = Parcel::new("POST", vendor.url("/")).secret("x-api-key", Reference::file(&secret));
    let id = outbox.put(parcel).unwrap().id;
    let until = std::time::Instant::now() + PATIENCE;
    while outbox.item(id).unwrap().error.is_none() {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(vendor.got().len(), 0);
    std::fs::write(&secret, "rotated").unwrap();
    assert_eq!(outbox.wait(id, PATIENCE).unwrap().state, State::Delivered);
    assert_eq!(vendor.got()[0].header("x-api-key"), Some("rotated"));
}

#[test]
fn an_outbox_whose_disk_failed_refuses_and_says_what_to_do() {
    let (home, vendor) = (Home::in_a_file(), Vendor::start());
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let mark = home.path().join("outbox.stopped");
    std::fs::write(&mark, format!("{}\ndisk I/O error\n", boot.trim())).unwrap();
    let farcall = start(&home, &vendor);
    let parcel = Parcel::new("POST", vendor.url("/"));
    let error = farcall.outbox().unwrap().put(parcel.clone()).unwrap_err();
    assert!(matches!(&error, OutboxError::Stopped(why) if why == "disk I/O error"), "{error}");
    assert!(error.to_string().contains("farcall outbox resume"));
    drop(farcall);
    assert!(Operator::at(home.path()).stopped().is_some());
    Operator::at(home.path()).resume().unwrap();
    let id = start(&home, &vendor).outbox().unwrap().put(parcel).unwrap().id;
    assert!(id > 0 && !mark.exists());
}

#[test]
fn a_handle_that_is_switched_off_keeps_nothing_and_says_so() {
    let home = tempfile::tempdir().unwrap();
    let farcall =
        Farcall::start(Options { home: Some(home.path().into()), enabled: false, ..Options::default() });
    assert!(matches!(farcall.outbox(), Err(OutboxError::Disabled)));
}

fn a_vendor_that_took_a_call_is_not_asked_again_because_its_answer_does_not_end(home: Home) {
    let vendor = Vendor::start();
    vendor.answer_next(&["stall"; 100]);
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let parcel = Parcel::new("POST", vendor.url("/")).timeout(Duration::from_secs(2));
    let id = outbox.put(parcel).unwrap().id;
    let item = outbox.wait(id, PATIENCE).unwrap();
    assert_eq!((item.state, item.status), (State::Delivered, Some(200)), "{item:?}");
    let answer = outbox.answer(id).unwrap().unwrap();
    assert_eq!((answer.body.as_slice(), answer.cut), (&b"thanks"[..], true));
    assert_eq!(outbox.wait(id, Duration::MAX).unwrap().state, State::Delivered);
}

fn a_fork_is_not_held_up_by_those_who_put_meanwhile(home: Home) {
    let vendor = Vendor::start();
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let putters: Vec<_> = (0..4)
        .map(|_| {
            let (outbox, over, url) = (outbox.clone(), Arc::clone(&over), vendor.url("/"));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let parcel = Parcel::new("POST", &url).delay(Duration::from_secs(86_400));
                    let _ = outbox.put(parcel);
                }
            })
        })
        .collect();
    let (done, hears) = std::sync::mpsc::channel();
    let forker = farcall.clone();
    std::thread::spawn(move || {
        for _ in 0..10 {
            forker.before_fork();
            forker.after_fork_in_parent();
        }
        let _ = done.send(());
    });
    hears.recv_timeout(2 * PATIENCE).expect("a fork waited for a thread that was told to go on");
    over.store(true, Ordering::Relaxed);
    putters.into_iter().for_each(|putter| putter.join().unwrap());
}

#[test]
fn calls_are_forgotten_as_fast_as_they_grow_old() {
    let (home, vendor) = (Home::in_a_file(), Vendor::start());
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    let id = outbox.put(Parcel::new("POST", vendor.url("/"))).unwrap().id;
    outbox.wait(id, PATIENCE).unwrap();
    farcall.shutdown();
    let db = rusqlite::Connection::open(home.path().join("outbox.db")).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    let old = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT 3500)
        INSERT INTO item (queue, state, blocked, put_at, next_at, expires_at, method, vendor, endpoint, host,
            idempotency_key, bytes, settled_at, request)
        SELECT 'shop', 1, 0, 1, 1, 1, 'POST', 'v', '', 'h', 'k', 0, 1, x'' FROM numbers";
    assert_eq!(db.execute(old, []).unwrap(), 3_500);
    let farcall = start(&home, &vendor);
    let parcel = Parcel::new("POST", vendor.url("/")).delay(Duration::from_secs(86_400));
    farcall.outbox().unwrap().put(parcel).unwrap();
    let left =
        || db.query_row("SELECT count(*) FROM item WHERE settled_at = 1", [], |row| row.get::<_, i64>(0));
    let until = std::time::Instant::now() + PATIENCE;
    while left().unwrap() > 0 {
        assert!(std::time::Instant::now() < until, "{} are left", left().unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nothing_is_put_beside_calls_whose_key_is_gone_until_it_is_back() {
    let (home, vendor) = (Home::in_a_file(), Vendor::start());
    let parcel = || Parcel::new("POST", vendor.url("/")).delay(Duration::from_secs(86_400));
    let farcall = start(&home, &vendor);
    let id = farcall.outbox().unwrap().put(parcel()).unwrap().id;
    farcall.shutdown();
    let (key, away) = (home.path().join("outbox.key"), home.path().join("away"));
    std::fs::rename(&key, &away).unwrap();
    for wrong in [None, Some([7_u8; 32])] {
        if let Some(wrong) = wrong {
            std::fs::write(&key, wrong).unwrap();
        }
        let farcall = start(&home, &vendor);
        let Err(OutboxError::Key(why)) = farcall.outbox().unwrap().put(parcel()) else { panic!("{wrong:?}") };
        assert!(why.contains("put back the one that belongs to outbox.db"), "{why}");
        assert!(matches!(Operator::at(home.path()).show(id, false), Err(OutboxError::Key(_))));
        assert_eq!(std::fs::read(&key).ok().as_deref(), wrong.as_ref().map(<[u8; 32]>::as_slice));
        farcall.shutdown();
    }
    std::fs::rename(&away, &key).unwrap();
    let farcall = start(&home, &vendor);
    farcall.outbox().unwrap().put(parcel()).unwrap();
    assert_eq!(Operator::at(home.path()).show(id, false).unwrap().url, vendor.url("/"));
}
