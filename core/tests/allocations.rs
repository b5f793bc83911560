//! The hot path allocates nothing once its names are known. Counted by the allocator, on this thread.
#![allow(clippy::unwrap_used)]

use farcall::{Caller, Config, ConnectTimes, Engine, ErrorType, Head, Step, Timestamp};
use std::time::Duration;

const START: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);
const URLS: [&str; 5] = [
    "https://API.stripe.com/v1/customers/cus_9s6XKzkNRiz8i3",
    "https://acme.my.salesforce.com/services/data/v59.0/query?q=SELECT",
    "https://eu.search.example.com/v2/items/3f2a9c01e4/offers",
    "http://[2001:db8::1]:8080/metrics",
    "not a url at all",
];

fn one(engine: &Engine, n: u64) {
    let url = URLS[usize::try_from(n).unwrap() % URLS.len()];
    let tags = [("team", "growth"), ("env", "prod")];
    let head = Head::new("POST", url)
        .customer((!n.is_multiple_of(3)).then_some("acme"))
        .tags(&tags[..usize::try_from(n % 3).unwrap()]);
    let now = START.plus_millis(n % 50);
    let mut call = engine.begin(&head, now, n);
    if let Step::Send(_) = call.step(engine, now) {
        call.connected(ConnectTimes { tls: Some(Duration::from_millis(4)), ..ConnectTimes::default() });
        call.sent(100);
        match n % 7 {
            0 => call.failed(ErrorType::Timeout),
            _ => call.head(200, now.plus_millis(n % 20)),
        }
    }
    call.body(1_000);
    call.end(engine, now.plus_millis(30 + n % 40));
}

#[test]
fn the_steady_state_allocates_nothing() {
    let engine = Engine::new(Config::default(), Caller::new("test"), 1, 1);
    let round = |engine: &Engine| (0..10_000).for_each(|n| one(engine, n));
    round(&engine);
    let _ = engine.drain(START);
    // A drain keeps what the next second needs, but for the list of failures, which it hands out.
    round(&engine);
    let counted = allocation_counter::measure(|| round(&engine));
    assert_eq!(counted.count_total, 0);
}
