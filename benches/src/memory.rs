//! What the ledger holds, in bytes of heap, counted by the allocator; beside the bounds that the design sets.

use crate::decision::engine;
use crate::harness::Row;
use farcall::{Engine, Head, Step, Timestamp};
use std::time::Duration;

const START: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);

fn call(engine: &Engine, customer: &str, now: Timestamp, n: u64) {
    let head =
        Head::new("GET", "https://api.stripe.com/v1/customers/cus_9s6XKzkNRiz8i3").customer(Some(customer));
    let mut call = engine.begin(&head, now, n);
    if let Step::Send(_) = call.step(engine, now) {
        call.head(200, now);
    }
    // Latencies over two orders of magnitude, as in life.
    call.end(engine, now.plus(Duration::from_micros(2_000 + n.wrapping_mul(7_919) % 200_000)));
}

pub(crate) fn measure() -> Vec<Row> {
    let mut rows = Vec::new();

    let held = engine(1);
    let names: Vec<String> = (0..10_000).map(|n| format!("customer-{n:05}")).collect();
    let used = allocation_counter::measure(|| {
        for round in 0..50_u64 {
            for (n, name) in names.iter().enumerate() {
                call(&held, name, START, round * 10_000 + n as u64);
            }
        }
    });
    #[allow(clippy::cast_precision_loss)]
    let each = used.bytes_current as f64 / names.len() as f64;
    rows.push(Row::less("memory/series", "bytes per series", each, 1_024.0, "the bound"));

    let flooded = engine(1);
    let mut calls = 0_u64;
    let used = allocation_counter::measure(|| {
        let mut now = START;
        for n in 0..1_000_000_u64 {
            call(&flooded, &format!("customer-{n}"), now, n);
            if n % 50_000 == 49_999 {
                now = now.plus_millis(1_000);
                calls += flooded.drain(now).rows.iter().map(|row| row.sums.calls).sum::<u64>();
            }
        }
    });
    calls += flooded.drain(START).rows.iter().map(|row| row.sums.calls).sum::<u64>();
    assert_eq!(calls, 1_000_000, "the total is exact");
    #[allow(clippy::cast_precision_loss)]
    let peak = used.bytes_max as f64 / f64::from(1 << 20);
    rows.push(Row::less("memory/1000000_customers", "MiB of heap at the peak", peak, 64.0, "the bound"));

    // The same latencies again and again: a sketch grows only where a latency is new to its series.
    let steady = engine(1);
    let again =
        |engine: &Engine| (0..100_000).for_each(|n| call(engine, &names[n as usize % 100], START, n % 1_000));
    again(&steady);
    let used = allocation_counter::measure(|| again(&steady));
    eprintln!("bench: {} heap allocations in 100,000 calls of the steady state", used.count_total);
    assert_eq!(used.count_total, 0, "the steady state allocates nothing");
    rows
}
