//! A delivery that fails is told, by a way that the vendor has no part in.
#![cfg(feature = "outbox")]
#![allow(clippy::unwrap_used)]

mod outbox_support;

use farcall_agent::outbox::{Parcel, State};
use farcall_agent::report::{self, Query};
use farcall_agent::{Farcall, Options};
use outbox_support::{Vendor, config};
use std::time::{Duration, Instant};

/// Long enough for any machine; nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

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
