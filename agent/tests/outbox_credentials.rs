//! Credentials that the program itself has: asked for at each delivery, by a process that knows the callback.
#![cfg(feature = "outbox")]
#![allow(clippy::unwrap_used)]

mod outbox_support;

use farcall_agent::outbox::{Filter, Item, Operator, Outbox, Parcel, Reference, State};
use farcall_agent::report::{self, Query};
use farcall_agent::{Farcall, Options};
use outbox_support::{Home, Vendor, config, on_each_store};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Long enough for any machine; nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

on_each_store! {
    a_callback_is_asked_anew_at_each_attempt_and_what_it_gives_is_kept_nowhere
    a_process_that_does_not_know_the_callback_leaves_the_call_to_one_that_does
    a_callback_that_fails_is_a_failed_attempt_that_says_so
    calls_of_one_key_and_one_callback_arrive_in_order
}

fn start(home: &Home, vendor: &Vendor) -> Farcall {
    let file = home.configure(&config(vendor));
    Farcall::start(Options {
        home: Some(home.path().into()),
        config: Some(file),
        service: Some("shop".into()),
        hub: false,
        ..Options::default()
    })
}

fn parcel(vendor: &Vendor) -> Parcel {
    let key = Reference::callback("stripe").prefix("Bearer ");
    Parcel::new("POST", vendor.url("/v1/refunds")).secret("authorization", key)
}

/// Gives another key each time.
fn rotates(outbox: &Outbox) {
    let times = AtomicU64::new(0);
    let rotate = move || Ok::<_, Infallible>(format!("sk_live_{}", times.fetch_add(1, Ordering::Relaxed)));
    outbox.credential("stripe", rotate).unwrap();
}

fn keys(vendor: &Vendor) -> Vec<String> {
    vendor.got().iter().map(|got| got.header("authorization").unwrap().to_owned()).collect()
}

/// Waits until an operator sees what is asked for.
fn seen(home: &Home, id: i64, is_it: impl Fn(&Item) -> bool) -> Item {
    let until = Instant::now() + PATIENCE;
    loop {
        let items = Operator::at(home.path()).list(&Filter::default()).unwrap();
        let item = items.into_iter().find(|item| item.id == id).unwrap();
        if is_it(&item) {
            return item;
        }
        assert!(Instant::now() < until, "{item:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn a_callback_is_asked_anew_at_each_attempt_and_what_it_gives_is_kept_nowhere(home: Home) {
    let vendor = Vendor::start();
    vendor.answer_next(&["503 Service Unavailable", "401 Unauthorized"]);
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    rotates(&outbox);
    let id = outbox.put(parcel(&vendor)).unwrap().id;
    let item = outbox.wait(id, PATIENCE).unwrap();
    assert_eq!((item.state, item.attempts), (State::Delivered, 3), "{item:?}");
    assert_eq!((item.service.as_str(), item.credential.as_deref()), ("shop", Some("stripe")));
    assert_eq!(keys(&vendor), [0, 1, 2].map(|turn| format!("Bearer sk_live_{turn}")));
    let shown = Operator::at(home.path()).show(id, true).unwrap();
    assert_eq!(shown.headers, [("authorization".to_owned(), "(from the callback `stripe`)".to_owned())]);
    farcall.shutdown();
    for entry in std::fs::read_dir(home.path()).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap();
        assert!(!bytes.windows(7).any(|part| part == b"sk_live"), "{:?}", entry.file_name());
    }
    #[cfg(feature = "postgres")]
    if let Some(server) = &home.server {
        let database = home.settings.split('"').nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
        let database = database.split('?').next().unwrap();
        let rows = server
            .ask(database, "SELECT encode(request, 'escape') || item::text FROM farcall_outbox.item AS item");
        assert!(rows.contains("stripe") && !rows.contains("sk_live"), "{rows}");
    }
}

fn a_process_that_does_not_know_the_callback_leaves_the_call_to_one_that_does(home: Home) {
    let vendor = Vendor::start();
    let stranger = start(&home, &vendor);
    let outbox = stranger.outbox().unwrap();
    let id = outbox.put(parcel(&vendor).max_attempts(1)).unwrap().id;
    let usual =
        outbox.put(Parcel::new("POST", vendor.url("/usual")).header("authorization", "a")).unwrap().id;
    assert_eq!(outbox.wait(usual, PATIENCE).unwrap().state, State::Delivered);

    let waits = "waits for a process that knows the credential `stripe`";
    let item = seen(&home, id, |item| item.error.as_deref() == Some(waits));
    assert_eq!((item.state, item.attempts), (State::Pending, 0));
    let operator = Operator::at(home.path());
    assert_eq!(operator.show(id, false).unwrap().item.error.as_deref(), Some(waits));
    let [awaited] = operator.awaited().unwrap().try_into().unwrap();
    assert_eq!((awaited.service.as_str(), awaited.credential.as_str(), awaited.calls), ("shop", "stripe", 1));
    let doctor = report::doctor(&Query::at(home.path())).unwrap();
    let said = format!("1 call of shop {waits}");
    assert!(doctor.problems.contains(&said), "{:?}", doctor.problems);
    let pending: u64 = operator.vendors().unwrap().iter().map(|count| count.pending).sum();
    assert_eq!((pending, operator.counts().unwrap().iter().map(|count| count.calls).sum()), (1, 2));

    let knows = start(&home, &vendor);
    rotates(&knows.outbox().unwrap());
    let item = outbox.wait(id, PATIENCE).unwrap();
    assert_eq!((item.state, item.attempts, item.error), (State::Delivered, 1, None));
    assert_eq!(keys(&vendor), ["a", "Bearer sk_live_0"]);
    assert!(operator.awaited().unwrap().is_empty());
    // Each goes on with what it can deliver.
    let usual =
        outbox.put(Parcel::new("POST", vendor.url("/usual")).header("authorization", "a")).unwrap().id;
    let second = outbox.put(parcel(&vendor)).unwrap().id;
    for id in [usual, second] {
        assert_eq!(outbox.wait(id, PATIENCE).unwrap().state, State::Delivered);
    }
}

fn a_callback_that_fails_is_a_failed_attempt_that_says_so(home: Home) {
    let vendor = Vendor::start();
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    outbox.credential("stripe", || Err::<String, _>("the vault is sealed")).unwrap();
    let id = outbox.put(parcel(&vendor)).unwrap().id;
    let why = "the callback of the credential `stripe` failed: the vault is sealed";
    let item = seen(&home, id, |item| item.error.as_deref() == Some(why));
    assert!(item.state == State::Pending && item.attempts >= 1, "{item:?}");
    assert!(vendor.got().is_empty());
    // One that cannot be sent is as bad.
    outbox.credential("stripe", || Ok::<_, Infallible>("a\r\nb: c".to_owned())).unwrap();
    seen(&home, id, |item| {
        item.error.as_deref().is_some_and(|why| why.contains("`authorization` cannot be sent"))
    });
    rotates(&outbox);
    let item = outbox.wait(id, PATIENCE).unwrap();
    assert!(item.state == State::Delivered && item.attempts >= 3, "{item:?}");
    assert_eq!(keys(&vendor), ["Bearer sk_live_0"]);
    farcall.flush();
    let failed = farcall.counters().into_iter().find(|(name, _)| name == "failed_deliveries").unwrap().1;
    assert_eq!(failed, u64::from(item.attempts) - 1);

    outbox.credential("stripe", || Err::<String, _>("gone")).unwrap();
    let last = outbox.put(parcel(&vendor).max_attempts(1)).unwrap().id;
    let item = outbox.wait(last, PATIENCE).unwrap();
    assert_eq!((item.state, item.attempts), (State::Dead, 1));
    assert_eq!(vendor.got().len(), 1);
}

fn calls_of_one_key_and_one_callback_arrive_in_order(home: Home) {
    let vendor = Vendor::start();
    vendor.answer_next(&["503 Service Unavailable"]);
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    rotates(&outbox);
    let put =
        |number: u32| outbox.put(parcel(&vendor).order_key("acme").body(number.to_string())).unwrap().id;
    let ids: Vec<i64> = (0..4).map(put).collect();
    for id in ids {
        assert_eq!(outbox.wait(id, PATIENCE).unwrap().state, State::Delivered);
    }
    let bodies: Vec<_> = vendor.got().into_iter().map(|got| got.body).collect();
    assert_eq!(bodies, ["0", "0", "1", "2", "3"]);
    assert_eq!(keys(&vendor)[4], "Bearer sk_live_4");
}

#[test]
fn a_child_that_is_forked_knows_the_callbacks_of_its_parent() {
    // In a program of its own: other tests here are in the middle of SQLite, whose locks a child would never get.
    if std::env::var_os("FARCALL_TEST_ALONE").is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", "a_child_that_is_forked_knows_the_callbacks_of_its_parent", "--nocapture"]);
        let output = alone.env("FARCALL_TEST_ALONE", "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        return;
    }
    let (home, vendor) = (Home::in_a_file(), Vendor::start());
    let farcall = start(&home, &vendor);
    rotates(&farcall.outbox().unwrap());
    farcall.before_fork();
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            farcall.after_fork();
            let put = || -> Option<State> {
                let outbox = farcall.outbox().ok()?;
                let id = outbox.put(parcel(&vendor)).ok()?.id;
                Some(outbox.wait(id, PATIENCE).ok()?.state)
            };
            std::process::exit(i32::from(put() != Some(State::Delivered)));
        }
        fork::Fork::Parent(child) => {
            assert_eq!(fork::waitpid(child).unwrap(), 0);
            assert_eq!(keys(&vendor), ["Bearer sk_live_0"]);
        }
    }
}

#[test]
fn what_is_no_name_is_refused() {
    let (home, vendor) = (Home::in_a_file(), Vendor::start());
    let farcall = start(&home, &vendor);
    let outbox = farcall.outbox().unwrap();
    assert!(outbox.credential("", || Ok::<_, Infallible>("x".to_owned())).is_err());
    assert!(
        outbox.put(Parcel::new("POST", vendor.url("/")).secret("a", Reference::callback("a\nb"))).is_err()
    );
}
