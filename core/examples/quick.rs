#![allow(warnings)]
use farcall::{Call, Caller, Config, Engine, Head, Step, Target, Timestamp};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};
fn timed(work: impl FnOnce()) -> Duration { let s = Instant::now(); work(); s.elapsed() }
/// A clock as the agent's: one read of the monotonic clock.
#[derive(Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Timestamp {
        Timestamp::from_nanos(1_763_700_000_000_000_000).plus(self.0.elapsed())
    }
}

/// Runs `work` on each of `threads` threads at once, and times them together.
pub(crate) fn on_threads(threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    if threads == 1 {
        return timed(|| work(0));
    }
    let (ready, done) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (work, ready, done) = (&work, &ready, &done);
            scope.spawn(move || {
                ready.wait();
                work(thread);
                done.wait();
            });
        }
        ready.wait();
        timed(|| {
            done.wait();
        })
    })
}

const CUSTOMERS: [&str; 4] = ["acme", "globex", "initech", "umbrella"];
const URLS: [&str; 4] = [
    "https://api.warehouse.example/v1/stock/sku-11",
    "https://api.warehouse.example/v1/stock/sku-12",
    "https://api.warehouse.example/v1/reservations",
    "https://api.warehouse.example/v1/orders/latest",
];

fn rules() -> String {
    let mut text = String::from(
        r#"
        [[vendor]]
        name = "warehouse"
        hosts = ["api.warehouse.example"]
        endpoints = ["GET /v1/stock/{sku}", "GET /v1/reservations", "GET /v1/orders/latest"]
        [[price]]
        vendor = "warehouse"
        call = "0.0004 USD"
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
    let config = Config::parse("bench", &rules()).unwrap_or_else(|errors| panic!("{errors:?}"));
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
                ("x-ratelimit-limit", "1000000000"),
                ("x-ratelimit-remaining", "999999999"),
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
    let Step::Send(_attempt) = call.step(engine, now) else { panic!("the rules let it pass") };
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


fn main() {
    let clock = Clock::start();
    for threads in [1, 2] {
        let engine = engine(2);
        let mut all = vec![];
        for _ in 0..21 { let t = ours(&engine, clock, threads, 50_000); let _ = engine.drain(clock.now()); all.push(t.as_nanos() / 50_000); }
        all.sort(); println!("{threads}: median {} min {}", all[10], all[0]);
    }
}
