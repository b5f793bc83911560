//! Farcall beside its peers, in one run: each pair is measured in turns, so that a drift of the machine's
//! speed meets both, and the result is their ratio.
//!
//! `make bench` runs this with `cargo run --release -p farcall-benches -- OUT.json`; the Python and Node rows
//! come from the scripts beside it.
#![allow(clippy::unwrap_used)]

mod cached;
mod decision;
mod harness;
mod memory;
mod outbox;
mod pipeline;
mod policy;
mod quota;
mod tower_loopback;
mod tower_stack;

use harness::Row;

fn main() {
    if quota::is_child() || outbox::is_child() {
        return;
    }
    let out = std::env::args().nth(1).expect("usage: farcall-benches OUT.json [NAME]");
    let only = std::env::args().nth(2);
    let mut rows: Vec<Row> = Vec::new();
    for (name, measure) in [
        ("cache", cached::measure as fn() -> Vec<Row>),
        ("decision_path", decision::measure),
        ("memory", memory::measure),
        ("outbox", outbox::measure),
        ("pipeline", pipeline::measure),
        ("policy", policy::measure),
        ("quota", quota::measure),
        ("tower", tower_loopback::measure),
    ] {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        eprintln!("bench: {name} ...");
        rows.extend(measure());
    }
    std::fs::write(&out, serde_json::to_string_pretty(&rows).unwrap()).unwrap();
}
