//! The whole pipeline: a call under a quota with fair shares, a breaker, 100 rules of policy, a budget and a price,
//! with the headers of its request and answer read; beside two stacks of what people put together instead.

use crate::decision::Clock;
use crate::harness::{Row, in_turns, on_threads};
use crate::tower_stack::{self, PEER};
use failsafe::CircuitBreaker as _;
use farcall::{Call, Caller, Config, Engine, Head, Step, Target};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

const CALLS: u32 = 50_000;
const PARTS: &str = "governor 0.10 + failsafe 1.3 + reqwest-retry's policy";

const CUSTOMERS: [&str; 4] = ["acme", "globex", "initech", "umbrella"];
const URLS: [&str; 4] = [
    "https://api.warehouse.example/v1/stock/sku-11",
    "https://api.warehouse.example/v1/stock/sku-12",
    "https://api.warehouse.example/v1/reservations",
    "https://api.warehouse.example/v1/orders/latest",
];

const VENDOR: &str = r#"
    [[vendor]]
    name = "warehouse"
    hosts = ["api.warehouse.example"]
    endpoints = ["GET /v1/stock/{sku}", "GET /v1/reservations", "GET /v1/orders/latest"]
"#;

/// What governor, failsafe and reqwest-retry do as well, and no more as far as that can be said: a rate for each
/// customer, a breaker, retries. Calls are found in the catalogue, counted in the ledger, and their credentials told
/// apart all the same.
fn same_parts() -> String {
    let rules = r#"
        [advise]
        enabled = false
        [[quota]]
        match = { vendor = "warehouse", customer = "*" }
        limit = "1000000000 requests / 1s"
        [[resilience]]
        match = { vendor = "warehouse" }
        attempts = 3
        breaker = { consecutive = 5, failure_rate = "50%", window = 100 }
    "#;
    format!("{rules}{VENDOR}")
}

fn rules() -> String {
    let mut text = String::from(
        r#"
        [[price]]
        vendor = "warehouse"
        call = "0.0004 USD / call"
        [[quota]]
        match = { vendor = "warehouse" }
        limit = "1000000000 requests / 1s"
        fair = "customer"
        [[budget]]
        match = { vendor = "warehouse", customer = "*" }
        limit = "900000000 USD / month"
        over = "refuse"
        [[resilience]]
        match = { vendor = "warehouse" }
        deadline = "10s"
        attempts = 3
        breaker = { consecutive = 5, failure_rate = "50%", window = 100 }
        "#,
    );
    text += VENDOR;
    for n in 0..100 {
        let _ = writeln!(
            text,
            "[[policy]]\nmatch = {{ vendor = \"{}\", customer = \"{}\" }}\nverdict = \"deny\"",
            ["stripe", "openai", "github", "slack", "warehouse"][n % 5],
            format_args!("blocked-{n}"),
        );
    }
    text
}

pub(crate) fn engine(shards: usize) -> Engine {
    engine_of(&rules(), shards)
}

fn engine_of(rules: &str, shards: usize) -> Engine {
    let config = Config::parse("bench", rules).unwrap_or_else(|errors| panic!("{errors:?}"));
    Engine::new(config, Caller::new("bench"), shards, 42)
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs =
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    pairs.collect()
}

struct Wire {
    uris: Vec<http::Uri>,
    request: HeaderMap,
    answer: HeaderMap,
}

impl Wire {
    fn new() -> Self {
        Self {
            uris: URLS.iter().map(|url| url.parse().unwrap()).collect(),
            request: headers(&[
                ("authorization", "Bearer sk_live_51HxJ2eKZvKYlo2C0aaaaaaaaaaaaaaaaaaaaaaaa"),
                ("accept", "application/json"),
                ("user-agent", "bench/1.0"),
            ]),
            answer: headers(&[
                ("content-type", "application/json"),
                ("content-length", "512"),
                ("cache-control", "no-store"),
                ("vary", "accept-encoding"),
                ("x-request-id", "req_123"),
            ]),
        }
    }
}

fn call(engine: &Engine, clock: Clock, wire: &Wire, n: u32) {
    let uri = black_box(&wire.uris[n as usize % URLS.len()]);
    let now = clock.now();
    let head = Head::to("GET", Target::from_uri(uri).unwrap())
        .customer(Some(CUSTOMERS[(n / 4) as usize % CUSTOMERS.len()]))
        .headers(&wire.request)
        .body(Some(0), true);
    let mut call: Call = engine.begin(&head, now, n.into());
    let mut step = call.step(engine, now);
    // A thread that was put aside between its clock and its question sees a quota that is ahead of it.
    while let Step::Wait(_) = step {
        step = call.step(engine, clock.now());
    }
    let Step::Send(_attempt) = step else { panic!("the rules let it pass: {step:?}") };
    let now = clock.now();
    call.answer(engine, 200, &wire.answer, now);
    let Step::Settled = call.step(engine, now) else { panic!("a 200 is final") };
    call.body(512);
    call.end(engine, clock.now());
}

fn ours(engine: &Engine, clock: Clock, threads: usize, calls: u32) -> Duration {
    let wire = Wire::new();
    on_threads(threads, |thread| {
        for n in 0..calls / u32::try_from(threads).unwrap() {
            call(engine, clock, &wire, n + u32::try_from(thread).unwrap());
        }
    })
}

pub(crate) fn measure() -> Vec<Row> {
    let clock = Clock::start();
    let mut rows = Vec::new();
    let mut medians = Vec::new();
    for (threads, name) in [(1, "pipeline/full/1"), (2, "pipeline/full/2")] {
        let engine = engine(2);
        let stacks: [_; 2] = std::array::from_fn(|_| tower_stack::new!());
        let (mine, theirs) = in_turns(
            CALLS,
            |calls| drained(&engine, clock, threads, calls),
            |calls| tower_stack::run(threads, calls, &stacks[..threads]),
        );
        rows.push(Row::less(name, "ns per call, wall", mine, theirs, PEER));
        medians.push(mine);
    }
    rows.push(Row::more(
        "pipeline/full/scaling",
        "throughput on 2 threads / on 1",
        medians[0] / medians[1],
        1.7,
        "what is asked",
    ));
    rows.push(parts("pipeline/full/parts", &engine(2), clock));
    rows.push(parts("pipeline/same_parts/1", &engine_of(&same_parts(), 2), clock));
    rows
}

/// A round of ours, and outside its time what happens once a second in life.
fn drained(engine: &Engine, clock: Clock, threads: usize, calls: u32) -> Duration {
    let time = ours(engine, clock, threads, calls);
    black_box(engine.drain(clock.now()));
    time
}

/// Beside a keyed rate limiter, a breaker and a retry policy, as a service puts them together by hand.
fn parts(name: &'static str, engine: &Engine, clock: Clock) -> Row {
    use reqwest_retry::RetryPolicy as _;
    let limiter = governor::RateLimiter::keyed(governor::Quota::per_second(NonZeroU32::MAX));
    let breaker = failsafe::Config::new().build();
    let policy = reqwest_retry::policies::ExponentialBackoff::builder().build_with_max_retries(2);
    let (mine, theirs) = in_turns(
        CALLS,
        |calls| drained(engine, clock, 1, calls),
        |calls| {
            on_threads(1, |_| {
                for n in 0..calls {
                    let customer = CUSTOMERS[n as usize % CUSTOMERS.len()].to_owned();
                    let start = std::time::SystemTime::now();
                    let _ = black_box(limiter.check_key(&customer));
                    let _ = black_box(breaker.call(|| Ok::<u32, Infallible>(black_box(n))));
                    black_box(policy.should_retry(start, 0));
                }
            })
        },
    );
    Row::less(name, "ns per call, wall", mine, theirs, PARTS)
}
