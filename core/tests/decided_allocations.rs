//! A call that every concept has a say in allocates nothing once its rules are resolved. Counted by the allocator,
//! on this thread.
#![allow(clippy::unwrap_used)]

use farcall::{Caller, Config, Engine, Head, Step, Timestamp};
use std::fmt::Write as _;

const START: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);
const CALLS: u64 = 5_000;
const RULES: &str = r#"
[[price]]
vendor = "warehouse"
call = "0.0004 USD / call"

[[vendor]]
name = "warehouse"
hosts = ["api.warehouse.example"]
endpoints = ["GET /v1/stock/{sku}", "POST /v1/orders"]

[[quota]]
match = { vendor = "warehouse" }
limit = "1000000000 requests / 1s"
fair = "customer"

[[quota]]
match = { vendor = "github" }
pace = "smooth"

[[budget]]
match = { vendor = "warehouse", customer = "*" }
limit = "900000000 USD / month"
over = "refuse"

[[resilience]]
match = {}
deadline = "10s"
attempts = 3
breaker = { consecutive = 5, failure_rate = "50%", window = 100 }
concurrency = { limit = 100 }
"#;

fn engine() -> Engine {
    let mut rules = String::from(RULES);
    for n in 0..100 {
        writeln!(
            rules,
            "[[policy]]\nmatch = {{ vendor = \"warehouse\", customer = \"b{n}\" }}\nverdict = \"deny\""
        )
        .unwrap();
    }
    let config = Config::parse("test", &rules).unwrap_or_else(|errors| panic!("{errors:?}"));
    Engine::new(config, Caller::new("test"), 1, 1)
}

const STOCK: &str = "https://api.warehouse.example/v1/stock/sku-11";
const ORDERS: &str = "https://api.warehouse.example/v1/orders";
/// Of a vendor that states its quotas.
const ISSUE: &str = "https://api.github.com/repos/acme/shop/issues/42";

fn one(engine: &Engine, n: u64, now: Timestamp) {
    let request = [
        ("authorization", "Bearer sk_live_51HxJ2eKZvKYlo2C0aaaaaaa"),
        ("accept", "application/json"),
        ("user-agent", "test/1.0"),
    ];
    let answer = [
        ("content-type", "application/json"),
        ("x-ratelimit-limit", "5000"),
        ("x-ratelimit-remaining", "4000"),
        ("x-ratelimit-reset", "1763703600"),
    ];
    // So seldom that no pace holds a call back.
    let (method, url) = match n % 400 {
        0 => ("GET", ISSUE),
        odd if odd % 2 == 1 => ("POST", ORDERS),
        _ => ("GET", STOCK),
    };
    let head = Head::new(method, url)
        .customer(Some(["acme", "globex"][usize::try_from(n % 2).unwrap()]))
        .headers(&request)
        .body(Some(0), true);
    let mut call = engine.begin(&head, now, n);
    let Step::Send(_) = call.step(engine, now) else { panic!("nothing stands in its way") };
    let now = now.plus_millis(20);
    call.answer(engine, 200, &answer, now);
    assert!(matches!(call.step(engine, now), Step::Settled));
    call.body(512);
    call.end(engine, now.plus_millis(1));
}

/// Three of them last less than a minute: a new minute is a new row of the ledger.
fn round(engine: &Engine, from: u64) {
    (from..from + CALLS).for_each(|n| one(engine, n, START.plus_millis(n * 3)));
}

#[test]
fn the_steady_state_of_all_concepts_together_allocates_nothing() {
    let engine = engine();
    round(&engine, 0);
    let _ = engine.drain(START);
    round(&engine, CALLS);
    let counted = allocation_counter::measure(|| round(&engine, 2 * CALLS));
    assert_eq!(counted.count_total, 0);
}
