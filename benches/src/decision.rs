//! The decision path: begin to end, ledger included, clock reads included, no export; beside a stack of
//! breaker, bulkhead and rate limiter of tower-resilience around a service that does nothing.

use crate::harness::{Row, in_turns, on_threads};
use crate::tower_stack::{self, PEER, SHARED};
use farcall::{Caller, Config, Engine, Head, Step, Target, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::Duration;

const CALLS: u32 = 100_000;

const URLS: [&str; 8] = [
    "https://api.stripe.com/v1/customers/cus_9s6XKzkNRiz8i3",
    "https://api.stripe.com/v1/payment_intents",
    "https://api.openai.com/v1/chat/completions",
    "https://api.github.com/repos/acme/shop/issues/42",
    "https://app.launchdarkly.com/sdk/latest-all",
    "https://hooks.slack.com/services/T024BE7LD/B024BE7LH/abcdefghijklmnop",
    "https://eu.search.example.com/v2/items/3f2a9c01e4/offers",
    "https://internal-billing.example.net/invoices/2026-11/lines",
];
const CUSTOMERS: [&str; 4] = ["acme", "globex", "initech", "umbrella"];

pub(crate) fn engine(shards: usize) -> Engine {
    Engine::new(Config::default(), Caller::new("bench"), shards, 42)
}

/// A clock as the agent's: one read of the monotonic clock, anchored to the wall clock.
#[derive(Clone, Copy)]
pub(crate) struct Clock;

impl Clock {
    pub(crate) fn start() -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "as the agent's, which has its anchor there")]
    pub(crate) fn now(self) -> Timestamp {
        let now = clock_gettime(ClockId::Monotonic);
        let (secs, nanos) = (now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned());
        Timestamp::from_nanos(1_763_700_000_000_000_000 + secs * 1_000_000_000 + nanos)
    }
}

/// One call as an adapter makes it: three clock reads.
fn decide(engine: &Engine, clock: Clock, uris: &[http::Uri], n: u32) {
    let uri = black_box(&uris[n as usize % URLS.len()]);
    let customer = CUSTOMERS[(n / 8) as usize % CUSTOMERS.len()];
    let now = clock.now();
    let mut call = engine.begin(
        &Head::to("GET", Target::from_uri(uri).unwrap()).customer(Some(customer)),
        now,
        n.into(),
    );
    if let Step::Send(_) = call.step(engine, now) {
        call.sent(0);
        call.head(200, clock.now());
    }
    call.body(512);
    call.end(engine, clock.now());
}

fn ours(engine: &Engine, clock: Clock, threads: usize, calls: u32) -> Duration {
    // As a client has them: parsed when the request was built.
    let uris: Vec<http::Uri> = URLS.iter().map(|url| url.parse().unwrap()).collect();
    on_threads(threads, |thread| {
        for n in 0..calls / u32::try_from(threads).unwrap() {
            decide(engine, clock, &uris, n + u32::try_from(thread).unwrap());
        }
    })
}

pub(crate) fn measure() -> Vec<Row> {
    let clock = Clock::start();
    let mut rows = Vec::new();
    let mut medians = Vec::new();
    for (threads, name) in [(1, "decision_path/1"), (2, "decision_path/2")] {
        let engine = engine(2);
        let stacks: [_; 2] = std::array::from_fn(|_| tower_stack::new!());
        let mine = |calls| {
            let time = ours(&engine, clock, threads, calls);
            // Once a second in life; here after each round, outside the timing.
            black_box(engine.drain(clock.now()));
            time
        };
        let (mine, theirs) =
            in_turns(CALLS, mine, |calls| tower_stack::run(threads, calls, &stacks[..threads]));
        rows.push(Row::less(name, "ns per call, wall", mine, theirs, PEER));
        medians.push((mine, theirs));
        if threads == 2 {
            let shared = in_turns(
                CALLS / 20,
                |calls| ours(&engine, clock, threads, calls),
                |calls| tower_stack::run(threads, calls, &stacks[..1]),
            );
            rows.push(Row::less("decision_path/2/shared", "ns per call, wall", shared.0, shared.1, SHARED));
        }
    }
    let scaling = |pick: fn(&(f64, f64)) -> f64| pick(&medians[0]) / pick(&medians[1]);
    rows.push(Row::more(
        "decision_path/scaling",
        "throughput on 2 threads / on 1",
        scaling(|m| m.0),
        scaling(|m| m.1),
        PEER,
    ));
    rows
}
