//! What all of these tests do.

use farcall::ledger::Batch;
use farcall::{Call, Caller, Config, Engine, Head, Outcome, Step, Timestamp};

pub(crate) const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);

pub(crate) fn engine(rules: &str) -> Engine {
    let config = Config::parse("farcall.toml", rules).unwrap_or_else(|errors| panic!("{errors:?}"));
    Engine::new(config, Caller::new("checkout"), 1, 42)
}

pub(crate) fn at(millis: u64) -> Timestamp {
    T0.plus_millis(millis)
}

pub(crate) fn get<'a>(customer: &'a str) -> Head<'a> {
    Head::new("GET", "https://api.stripe.com/v1/charges").customer(Some(customer)).body(Some(0), true)
}

pub(crate) fn sent(call: &mut Call, engine: &Engine, now: Timestamp) -> farcall::Attempt {
    match call.step(engine, now) {
        Step::Send(attempt) => attempt,
        step => panic!("{step:?}"),
    }
}

pub(crate) fn refused(call: &mut Call, engine: &Engine, now: Timestamp) -> farcall::Refusal {
    match call.step(engine, now) {
        Step::Refuse(refusal) => refusal,
        step => panic!("{step:?}"),
    }
}

/// Makes a call that is sent and answered at once.
pub(crate) fn pass(
    engine: &Engine,
    head: &Head<'_>,
    now: Timestamp,
    seed: u64,
    status: u16,
    headers: &[(&str, &str)],
) {
    let mut call = engine.begin(head, now, seed);
    let _ = sent(&mut call, engine, now);
    call.answer(engine, status, &headers, now);
    assert_eq!(call.step(engine, now), Step::Settled);
    call.end(engine, now);
}

pub(crate) fn calls(batch: &Batch, outcome: Outcome) -> u64 {
    batch.rows.iter().filter(|row| row.outcome == outcome).map(|row| row.sums.calls).sum()
}

/// Waits as long as the call is told to.
pub(crate) fn waited(call: &mut Call, engine: &Engine, now: Timestamp) -> Timestamp {
    match call.step(engine, now) {
        Step::Wait(until) => until,
        step => panic!("{step:?}"),
    }
}
