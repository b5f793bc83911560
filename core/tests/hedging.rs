//! A second attempt beside a slow first one, through the engine alone.
#![allow(clippy::unwrap_used)]

use farcall::resilience::Ending;
use farcall::{Attempt, Call, Caller, Config, Engine, ErrorType, Head, Outcome, Step, Timestamp};
use std::time::Duration;

const T0: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);
const HEDGED: &str =
    "[[resilience]]\nmatch = { vendor = \"stripe\" }\nhedge = { after = \"100ms\", budget = \"50%\" }\n";

fn engine(rules: &str) -> Engine {
    let config = Config::parse("farcall.toml", rules).unwrap_or_else(|errors| panic!("{errors:?}"));
    Engine::new(config, Caller::new("checkout"), 1, 42)
}

fn at(millis: u64) -> Timestamp {
    T0.plus_millis(millis)
}

fn begin(engine: &Engine) -> (Call, Attempt) {
    let head = Head::new("GET", "https://api.stripe.com/v1/charges").body(Some(0), true);
    let mut call = engine.begin(&head, T0, 1);
    match call.step(engine, T0) {
        Step::Send(attempt) => (call, attempt),
        step => panic!("{step:?}"),
    }
}

#[test]
fn the_faster_of_two_attempts_is_the_calls_answer() {
    let engine = engine(HEDGED);
    let (mut call, first) = begin(&engine);
    assert_eq!((first.number, first.hedge_at), (1, Some(at(100))));
    let second = call.hedge(&engine, at(100)).unwrap();
    assert_eq!((second.number, second.hedge_at), (2, None));
    assert!(call.hedge(&engine, at(101)).is_none(), "two at a time");
    call.lost(&engine, 1, None, at(150));
    call.answer(&engine, 200, &[("x", "y")], at(150));
    assert_eq!(call.step(&engine, at(150)), Step::Settled);
    call.end(&engine, at(160));
    let batch = engine.drain(at(200));
    let row = &batch.rows[0];
    assert_eq!((row.status, row.sums.calls, row.sums.attempts), (200, 1, 2));
    assert_eq!(row.sums.ttfb, Duration::from_millis(150));
    let events: Vec<&str> = batch.exemplars[0].events.lines().collect();
    assert_eq!(events[0], "+100.0 ms  no answer yet: a second attempt beside the first");
    assert_eq!(events[1], "+150.0 ms  of the two the first was given up: the other one counts");
}

#[test]
fn one_that_fails_leaves_the_other_one_under_way() {
    let engine = engine(HEDGED);
    let (mut call, _) = begin(&engine);
    call.hedge(&engine, at(100)).unwrap();
    call.lost(&engine, 2, Some(Ending::Error(ErrorType::Connect)), at(110));
    call.answer(&engine, 200, &[("x", "y")], at(400));
    assert_eq!(call.step(&engine, at(400)), Step::Settled);
    call.end(&engine, at(400));
    let batch = engine.drain(at(500));
    assert_eq!((batch.rows[0].outcome, batch.rows[0].sums.attempts), (Outcome::Complete, 2));
    assert!(batch.exemplars[0].events.contains("the second failed (connect)"), "{:?}", batch.exemplars[0]);
}

#[test]
fn a_quota_without_room_allows_no_second_attempt_and_loses_nothing() {
    let quota = "[[quota]]\nmatch = { vendor = \"stripe\" }\nlimit = \"3 requests / 1h\"\nburst = 3\nmax_wait = \"5s\"\n";
    let engine = engine(&format!("{HEDGED}{quota}"));
    let (mut first, _) = begin(&engine);
    assert!(first.hedge(&engine, at(100)).is_some(), "that makes two of three");
    let (mut last, _) = begin(&engine);
    assert!(last.hedge(&engine, at(100)).is_none(), "there is no fourth");
    last.head(200, at(110));
    assert_eq!(last.step(&engine, at(110)), Step::Settled);
    last.end(&engine, at(110));
    first.end(&engine, at(110));
    assert!(engine.drain(at(200)).incidents.is_empty(), "nobody was refused");
}

const PRICED: &str = "[[price]]\nvendor = \"stripe\"\ncall = \"0.01 USD / call\"\n";

#[test]
fn what_a_lost_attempt_cost_is_on_the_call() {
    // Given up: the vendor may have charged for it, and nobody can tell.
    let unknown = engine(&format!("{HEDGED}{PRICED}"));
    let (mut call, _) = begin(&unknown);
    call.hedge(&unknown, at(100)).unwrap();
    call.lost(&unknown, 1, None, at(150));
    call.answer(&unknown, 200, &[("x", "y")], at(150));
    call.end(&unknown, at(160));
    let batch = unknown.drain(at(200));
    assert_eq!((batch.rows[0].sums.cost, batch.rows[0].sums.cost_unknown), (10_000_000, 1));
    assert!(
        batch.exemplars[0].events.contains("what that attempt cost is unknown (no_answer)"),
        "{:?}",
        batch.exemplars[0].events
    );
    // Answered by a vendor that charges for errors too: both are known.
    let known = engine(&format!("{HEDGED}{PRICED}charges_errors = true\n"));
    let (mut call, _) = begin(&known);
    call.hedge(&known, at(100)).unwrap();
    call.lost(&known, 1, Some(Ending::Status(503)), at(150));
    call.answer(&known, 200, &[("x", "y")], at(160));
    call.end(&known, at(160));
    let batch = known.drain(at(200));
    assert_eq!((batch.rows[0].sums.cost, batch.rows[0].sums.cost_unknown), (20_000_000, 0));
    assert!(
        batch.exemplars[0].events.contains("that attempt cost 0.01 USD"),
        "{:?}",
        batch.exemplars[0].events
    );
    // Never sent, or answered with an error that costs nothing.
    for ending in [Ending::Error(ErrorType::Connect), Ending::Status(503)] {
        let free = engine(&format!("{HEDGED}{PRICED}"));
        let (mut call, _) = begin(&free);
        call.hedge(&free, at(100)).unwrap();
        call.lost(&free, 2, Some(ending), at(110));
        call.answer(&free, 200, &[("x", "y")], at(120));
        call.end(&free, at(120));
        let batch = free.drain(at(200));
        assert_eq!((batch.rows[0].sums.cost, batch.rows[0].sums.cost_unknown), (10_000_000, 0), "{ending:?}");
    }
}

#[test]
fn an_attempt_without_an_answer_before_a_retry_is_a_cost_that_is_unknown() {
    let retried = "[[resilience]]\nmatch = { vendor = \"stripe\" }\nattempts = 2\nbackoff = \"1ms..1ms\"\n";
    let engine = engine(&format!("{retried}{PRICED}"));
    let (mut call, _) = begin(&engine);
    call.failed(ErrorType::Timeout);
    let Step::Wait(until) = call.step(&engine, at(10)) else { panic!("a retry follows") };
    assert!(matches!(call.step(&engine, until), Step::Send(_)));
    call.answer(&engine, 200, &[("x", "y")], at(20));
    assert_eq!(call.step(&engine, at(20)), Step::Settled);
    call.end(&engine, at(20));
    let sums = engine.drain(at(200)).rows[0].sums;
    assert_eq!((sums.cost, sums.cost_unknown, sums.attempts), (10_000_000, 1, 2));
}

#[test]
fn two_attempts_that_nobody_waited_for_are_unknown_once_for_the_call() {
    let engine = engine(&format!("{HEDGED}{PRICED}"));
    let (mut call, _) = begin(&engine);
    call.hedge(&engine, at(100)).unwrap();
    call.abandon(&engine, at(150));
    let batch = engine.drain(at(200));
    assert_eq!((batch.rows[0].sums.cost, batch.rows[0].sums.cost_unknown), (0, 1));
}

#[test]
fn a_budget_counts_both_attempts_and_pays_for_no_second_one_beyond_its_limit() {
    let budget = "[[budget]]\nname = \"b\"\nmatch = { vendor = \"stripe\" }\nlimit = \"0.03 USD / day\"\nover = \"refuse\"\n";
    let engine = engine(&format!("{HEDGED}{PRICED}{budget}"));
    let (mut call, _) = begin(&engine);
    call.hedge(&engine, at(100)).unwrap();
    call.lost(&engine, 1, None, at(150));
    call.answer(&engine, 200, &[("x", "y")], at(150));
    call.end(&engine, at(160));
    let spent = engine.drain(at(200)).budgets[0].used;
    assert_eq!(spent, 20_000_000, "the given-up one as what it may have cost");
    let (mut last, _) = begin(&engine);
    assert!(last.hedge(&engine, at(20_000)).is_none(), "the first attempt takes the last of it");
    last.answer(&engine, 200, &[("x", "y")], at(20_010));
    last.end(&engine, at(20_010));
    let batch = engine.drain(at(20_100));
    assert_eq!((batch.rows[0].outcome, batch.rows[0].sums.attempts), (Outcome::Complete, 1));
}

#[test]
fn a_hedge_that_a_quota_refuses_is_given_back_to_the_budget() {
    let hedged =
        "[[resilience]]\nmatch = { vendor = \"stripe\" }\nhedge = { after = \"100ms\", budget = \"1%\" }\n";
    let quota = "[[quota]]\nmatch = { vendor = \"stripe\" }\nlimit = \"1 requests / 1s\"\nburst = 1\nmax_wait = \"5s\"\n";
    let engine = engine(&format!("{hedged}{quota}"));
    let (mut call, _) = begin(&engine);
    for millis in [100, 200, 300] {
        assert!(call.hedge(&engine, at(millis)).is_none(), "the quota has no room");
    }
    assert!(call.hedge(&engine, at(1_200)).is_some(), "now it has, and no hedge was sent yet");
    call.abandon(&engine, at(1_300));
}

#[test]
fn a_second_attempt_beside_the_first_is_none_of_the_retries() {
    let engine = engine(&format!("{HEDGED}attempts = 2\nbackoff = \"1ms..1ms\"\nretry_on = [\"5xx\"]\n"));
    let (mut call, _) = begin(&engine);
    call.hedge(&engine, at(100)).unwrap();
    call.lost(&engine, 2, Some(Ending::Status(503)), at(110));
    call.answer(&engine, 503, &[("x", "y")], at(120));
    let Step::Wait(until) = call.step(&engine, at(120)) else { panic!("one of two tries was used") };
    let Step::Send(third) = call.step(&engine, until) else { panic!("it is due") };
    assert_eq!((third.number, third.hedge_at), (3, None));
    call.answer(&engine, 503, &[("x", "y")], at(140));
    assert_eq!(call.step(&engine, at(140)), Step::Settled, "both tries were used");
    call.end(&engine, at(140));
    assert_eq!(engine.drain(at(200)).rows[0].sums.attempts, 3);
}

const SLOW: &str = "allow_faults = true\n[[fault]]\nname = \"slow\"\nmatch = { vendor = \"stripe\" }\nshare = \"50%\"\nexpires = \"2099-01-01T00:00:00Z\"\n";

/// A call under a fault that meets half of all attempts, whose first step is this.
fn under(fault: &str, hedges: bool, first: impl Fn(&Step) -> bool) -> (Engine, Call, Step) {
    let engine = engine(&format!("{SLOW}{fault}\n{HEDGED}"));
    let head = Head::new("GET", "https://api.stripe.com/v1/charges").body(Some(0), true).hedges(hedges);
    for seed in 0.. {
        let mut call = engine.begin(&head, T0, seed);
        let step = call.step(&engine, T0);
        if first(&step) {
            let _others = engine.drain(T0);
            return (engine, call, step);
        }
        call.abandon(&engine, T0);
    }
    unreachable!("there is such a seed")
}

/// The first attempt is held back for four seconds, and the second one, which is due after 100 ms, meets no fault.
fn held(fault: &str) -> (Engine, Call) {
    let (engine, mut call, _) = under(fault, true, |step| *step == Step::Wait(at(100)));
    let Step::Send(second) = call.step(&engine, at(100)) else { panic!("no second attempt") };
    assert_eq!((second.number, second.hedge_at), (2, Some(at(4_000))));
    (engine, call)
}

fn ended(engine: &Engine, mut call: Call, now: Timestamp) -> (Outcome, u64, String) {
    assert_eq!(call.step(engine, now), Step::Settled);
    call.end(engine, now);
    let batch = engine.drain(now);
    let row = batch.rows.iter().find(|row| row.status == 200).unwrap();
    let told = batch.exemplars.iter().find(|told| told.events.contains("a second attempt")).unwrap();
    (row.outcome, row.sums.attempts, told.events.clone())
}

#[test]
fn a_second_attempt_is_sent_beside_one_that_a_fault_holds_back() {
    let (engine, mut call) = held("latency = \"4s\"");
    call.answer(&engine, 200, &[("x", "y")], at(150));
    let (outcome, attempts, events) = ended(&engine, call, at(150));
    assert_eq!((outcome, attempts), (Outcome::Complete, 1), "the first was never sent");
    let lines: Vec<&str> = events.lines().collect();
    assert_eq!(
        lines,
        [
            "+0.0 ms  attempt 1: fault `slow` injected: holds it back for 4000.0 ms, then lets it be sent",
            "+100.0 ms  no answer yet: a second attempt beside the first",
            "+150.0 ms  attempt 1: given up while it was held back",
            "+150.0 ms  of the two the first was given up: the other one counts",
        ]
    );
    // An adapter that makes one attempt at a time has to wait.
    let (..) = under("latency = \"4s\"", false, |step| *step == Step::Wait(at(4_000)));
}

#[test]
fn one_that_a_fault_holds_back_goes_out_beside_the_second_when_it_is_due() {
    let (engine, mut call) = held("latency = \"4s\"");
    let first = call.hedge(&engine, at(4_000)).unwrap();
    assert_eq!((first.number, first.hedge_at), (1, None));
    assert!(call.hedge(&engine, at(4_001)).is_none(), "two at a time");
    call.lost(&engine, 2, None, at(4_050));
    call.answer(&engine, 200, &[("x", "y")], at(4_050));
    let (outcome, attempts, events) = ended(&engine, call, at(4_050));
    assert_eq!((outcome, attempts), (Outcome::Complete, 2));
    assert!(events.contains("of the two the second was given up"), "{events}");
}

#[test]
fn one_that_a_fault_holds_back_is_waited_for_where_the_second_fails() {
    let (engine, mut call) = held("latency = \"4s\"");
    call.answer(&engine, 503, &[("x", "y")], at(150));
    assert_eq!(call.step(&engine, at(150)), Step::Wait(at(4_000)));
    let Step::Send(first) = call.step(&engine, at(4_000)) else { panic!("the first is not sent") };
    assert_eq!((first.number, first.hedge_at), (1, None));
    call.answer(&engine, 200, &[("x", "y")], at(4_010));
    let (outcome, attempts, events) = ended(&engine, call, at(4_010));
    assert_eq!((outcome, attempts), (Outcome::Complete, 2));
    assert!(
        events.contains("+150.0 ms  of the two the second answered 503: the other one counts"),
        "{events}"
    );
}

#[test]
fn a_fault_that_fails_the_first_leaves_the_second_under_way() {
    let (engine, mut call) = held("latency = \"4s\"\nstatus = 503");
    assert!(call.hedge(&engine, at(4_000)).is_none(), "it is not sent");
    call.answer(&engine, 200, &[("x", "y")], at(4_200));
    let (outcome, attempts, events) = ended(&engine, call, at(4_200));
    assert_eq!((outcome, attempts), (Outcome::Complete, 1));
    assert!(
        events.contains("+4000.0 ms  of the two the first answered 503: the other one counts"),
        "{events}"
    );
}

#[test]
fn a_second_attempt_meets_faults_like_any_other() {
    // It fails at once, and nothing goes out.
    let head = Head::new("GET", "https://api.stripe.com/v1/charges").body(Some(0), true).hedges(true);
    let met = |seed| {
        let engine = engine(&format!("{SLOW}status = 503\n{HEDGED}"));
        let mut call = engine.begin(&head, T0, seed);
        let sent = matches!(call.step(&engine, T0), Step::Send(_));
        (sent && call.hedge(&engine, at(100)).is_none()).then_some((engine, call))
    };
    let (engine, mut call) = (0..).find_map(met).unwrap();
    call.answer(&engine, 200, &[("x", "y")], at(150));
    let (outcome, attempts, events) = ended(&engine, call, at(150));
    assert_eq!((outcome, attempts), (Outcome::Complete, 1));
    assert!(events.contains("attempt 2: fault `slow` injected: answers 503"), "{events}");
    assert!(events.contains("of the two the second answered 503: the other one counts"), "{events}");
    // It is due so much later.
    let late = |step: &Step| matches!(step, Step::Send(first) if first.hedge_at == Some(at(130)));
    let (engine, mut call, _) = under("latency = \"30ms\"", true, late);
    assert_eq!(call.hedge(&engine, at(130)).unwrap().number, 2);
    call.abandon(&engine, at(131));
}
