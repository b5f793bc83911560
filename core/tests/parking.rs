//! Calls that fail, and go into the outbox instead of to nowhere.

use farcall::outbox::{Alarms, Failed, Parked, Terms};
use farcall::{Call, Caller, Config, Engine, ErrorType, Head, Outcome, Step, Stored, Timestamp};
use http::HeaderMap;
use std::sync::{Arc, Mutex};

const T0: Timestamp = Timestamp::from_nanos(1_795_255_200_000_000_000);
const REFUNDS: &str = "https://api.stripe.com/v1/refunds";
/// A vendor that nobody knows an idempotency header of.
const PLAIN: &str = "https://api.example.com/v1/orders";

fn engine(text: &str) -> Engine {
    let config = Config::parse("farcall.toml", text).expect("the rules are right");
    Engine::new(config, Caller::new("checkout"), 1, 42)
}

fn begin(engine: &Engine, method: &str, url: &str) -> Call {
    let head = Head::new(method, url).body(Some(5), true).customer(Some("acme")).parks(true);
    engine.begin(&head, T0, 7)
}

/// What comes of a call whose only attempt ends so: the key that it carried, and the step after it.
fn after(engine: &Engine, call: &mut Call, ending: Result<u16, ErrorType>) -> (Option<String>, Step) {
    let Step::Send(attempt) = call.step(engine, T0) else { panic!("it is not sent") };
    match ending {
        Ok(status) => call.answer(engine, status, &HeaderMap::new(), T0.plus_millis(5)),
        Err(error) => call.failed(error),
    }
    let key = attempt.idempotency_header().map(|(_, key)| key);
    (key, call.step(engine, T0.plus_millis(6)))
}

fn terms(step: Step) -> Terms {
    match step {
        Step::Park(terms) => *terms,
        other => panic!("not parked: {other:?}"),
    }
}

/// The outcomes of all calls, and the stories of those that have one.
fn drained(engine: &Engine) -> (Vec<(Outcome, u16, u64)>, String) {
    let batch = engine.drain(T0.plus_millis(2_000));
    let outcomes = batch.rows.iter().map(|row| (row.outcome, row.status, row.sums.calls)).collect();
    (outcomes, batch.exemplars.iter().map(|known| known.events.as_str()).collect::<Vec<_>>().join("--\n"))
}

const RULE: &str = "[[outbox]]\nname = \"refunds\"\nmatch = { vendor = \"stripe\" }\npark = true\n";

#[test]
fn a_parked_call_answers_with_its_number_and_its_delivery_has_the_key_that_the_attempt_had() {
    let engine = engine(RULE);
    let mut call = begin(&engine, "POST", REFUNDS);
    let (key, step) = after(&engine, &mut call, Ok(503));
    let terms = terms(step);
    assert_eq!(&*terms.rule, "refunds");
    assert_eq!(terms.idempotency_header.as_deref(), Some("idempotency-key"));
    assert!(key.is_some() && terms.idempotency_key == key);
    assert_eq!(terms.customer.as_deref(), Some("acme"));

    let key = key.unwrap();
    call.parked(&engine, Ok(Parked { id: 17, idempotency_key: &key }), T0.plus_millis(8));
    let Step::Respond(stored) = call.step(&engine, T0.plus_millis(8)) else { panic!("no answer") };
    let Stored { status, headers, body, .. } = &*stored;
    assert_eq!((*status, headers["farcall-outbox"].to_str().unwrap()), (202, "parked; id=17"));
    assert!(std::str::from_utf8(body).unwrap().contains(&key));
    assert!(call.is_settled());
    let (outcomes, story) = drained(&engine);
    assert_eq!(outcomes, [(Outcome::Parked, 503, 1)]);
    assert!(story.contains("answered 503: `refunds` has it parked"), "{story}");
    assert!(story.contains("parked: call 17 of the outbox"), "{story}");
}

#[test]
fn a_call_that_the_outbox_does_not_take_fails_as_if_there_were_no_rule() {
    let engine = engine(RULE);
    let mut call = begin(&engine, "POST", REFUNDS);
    let (_, step) = after(&engine, &mut call, Ok(503));
    let _terms = terms(step);
    call.parked(&engine, Err("the disk is full"), T0.plus_millis(8));
    assert_eq!(call.step(&engine, T0.plus_millis(8)), Step::Settled);
    assert_eq!(call.step(&engine, T0.plus_millis(8)), Step::Settled, "and it stays so");
    call.end(&engine, T0.plus_millis(9));
    let (outcomes, story) = drained(&engine);
    assert_eq!(outcomes, [(Outcome::Complete, 503, 1)]);
    assert!(story.contains("would have it parked, but the disk is full"), "{story}");
    assert!(!story.contains("has it parked"), "nobody parked it: {story}");
    assert_eq!(engine.counters().unparked_calls, 1);
}

#[test]
fn an_adapter_that_says_nothing_of_the_outbox_gets_the_failure() {
    let engine = engine(RULE);
    let mut call = begin(&engine, "POST", REFUNDS);
    let (_, step) = after(&engine, &mut call, Err(ErrorType::Timeout));
    let _terms = terms(step);
    assert_eq!(call.step(&engine, T0.plus_millis(8)), Step::Settled);
    call.end(&engine, T0.plus_millis(9));
    let (outcomes, story) = drained(&engine);
    assert_eq!(outcomes, [(Outcome::Failed(ErrorType::Timeout), 0, 1)]);
    assert!(
        story.contains("would have it parked, but the adapter") && !story.contains("has it parked"),
        "{story}"
    );
    assert_eq!(engine.counters().unparked_calls, 1);
}

#[test]
fn without_a_key_only_what_never_arrived_is_parked() {
    let rule = "[[outbox]]\nmatch = { host = \"api.example.com\" }\npark = true\n";
    let engine = engine(rule);
    let mut lost = begin(&engine, "POST", PLAIN);
    let (key, step) = after(&engine, &mut lost, Err(ErrorType::Timeout));
    assert_eq!((key, step), (None, Step::Settled), "the vendor may have acted on it");
    lost.end(&engine, T0.plus_millis(9));
    let (_, story) = drained(&engine);
    assert!(story.contains("would not know a second delivery"), "{story}");
    for ending in [Err(ErrorType::Connect), Err(ErrorType::Dns), Ok(429)] {
        let mut call = begin(&engine, "POST", PLAIN);
        let (_, step) = after(&engine, &mut call, ending);
        assert_eq!(terms(step).idempotency_key, None, "{ending:?}");
        call.abandon(&engine, T0.plus_millis(9));
    }
    let willing = self::engine(&format!("{rule}duplicates = true\n"));
    let mut call = begin(&willing, "POST", PLAIN);
    let (_, step) = after(&willing, &mut call, Err(ErrorType::Timeout));
    let _terms = terms(step);
    call.abandon(&willing, T0.plus_millis(9));
}

#[test]
fn an_attempt_that_may_have_arrived_counts_for_the_one_after_it() {
    let rules = "[[outbox]]\nmatch = { host = \"api.example.com\" }\npark = true\n\
                 [[resilience]]\nmatch = { host = \"api.example.com\" }\nattempts = 2\n\
                 retry_on = [\"5xx\", \"connect\"]\nnot_processed = [\"503\"]\nbackoff = \"1ms..1ms\"\n";
    let engine = engine(rules);
    let mut call = begin(&engine, "POST", PLAIN);
    let (_, step) = after(&engine, &mut call, Ok(503));
    assert!(matches!(step, Step::Wait(_)), "{step:?}");
    let Step::Send(_) = call.step(&engine, T0.plus_millis(100)) else { panic!() };
    call.failed(ErrorType::Connect);
    assert_eq!(call.step(&engine, T0.plus_millis(101)), Step::Settled);
    call.end(&engine, T0.plus_millis(102));
}

#[test]
fn the_key_that_the_application_sent_is_the_one() {
    let engine = engine(RULE);
    let headers = [("idempotency-key", "mine")];
    let head = Head::new("POST", REFUNDS).headers(&headers).body(Some(5), true).parks(true);
    let mut call = engine.begin(&head, T0, 7);
    let (key, step) = after(&engine, &mut call, Err(ErrorType::Reset));
    assert_eq!((key, terms(step).idempotency_key), (None, None), "the request has its own");
    call.abandon(&engine, T0.plus_millis(9));
}

#[test]
fn a_refusal_is_parked_until_it_would_pass_and_refused_where_that_fails() {
    let rules = format!(
        "{RULE}[[resilience]]\nmatch = {{ vendor = \"stripe\" }}\nbreaker = {{ consecutive = 1, open = \"30s\" }}\n"
    );
    let engine = engine(&rules);
    let mut first = begin(&engine, "POST", REFUNDS);
    let (_, step) = after(&engine, &mut first, Ok(500));
    let _terms = terms(step);
    first.abandon(&engine, T0.plus_millis(9));
    for taken in [true, false] {
        let mut call = begin(&engine, "POST", REFUNDS);
        let terms = terms(call.step(&engine, T0.plus_millis(10)));
        assert!(terms.delay.as_secs() >= 29, "{terms:?}");
        match taken {
            true => {
                call.parked(&engine, Ok(Parked { id: 3, idempotency_key: "k" }), T0.plus_millis(11));
                assert!(matches!(call.step(&engine, T0.plus_millis(11)), Step::Respond(_)));
            }
            false => {
                call.parked(&engine, Err("busy"), T0.plus_millis(11));
                assert!(matches!(call.step(&engine, T0.plus_millis(11)), Step::Refuse(_)));
            }
        }
        assert!(call.is_settled());
    }
    assert_eq!(engine.counters().refused_calls, 1);
}

#[test]
fn only_what_a_rule_is_about_and_an_adapter_can_is_parked() {
    let engine = engine(RULE);
    for (method, status) in [("POST", 402), ("GET", 503), ("POST", 200)] {
        let mut call = begin(&engine, method, REFUNDS);
        assert_eq!(after(&engine, &mut call, Ok(status)).1, Step::Settled, "{method} {status}");
        call.end(&engine, T0.plus_millis(9));
    }
    let head = Head::new("POST", REFUNDS).body(Some(5), true);
    let mut call = engine.begin(&head, T0, 7);
    let (key, step) = after(&engine, &mut call, Err(ErrorType::Connect));
    assert_eq!((key, step), (None, Step::Settled));
    call.end(&engine, T0.plus_millis(9));
    assert_eq!(engine.counters().unparkable_calls, 1);
    let head = Head::new("POST", REFUNDS).body(None, false).parks(true);
    let mut streamed = engine.begin(&head, T0, 7);
    assert_eq!(after(&engine, &mut streamed, Err(ErrorType::Connect)).1, Step::Settled);
    streamed.end(&engine, T0.plus_millis(9));
}

#[test]
fn what_an_adapter_cannot_hand_over_this_time_is_not_parked_and_counted() {
    let engine = engine(RULE);
    let mut call = begin(&engine, "POST", REFUNDS);
    call.unparkable("for a reason");
    assert!(call.may_be_parked(), "somebody has to be told why it is not");
    assert_eq!(after(&engine, &mut call, Err(ErrorType::Connect)).1, Step::Settled);
    call.end(&engine, T0.plus_millis(9));
    assert_eq!(engine.counters().unparkable_calls, 1);
    let mut next = begin(&engine, "POST", REFUNDS);
    let (_, step) = after(&engine, &mut next, Err(ErrorType::Connect));
    assert!(matches!(step, Step::Park(_)), "it said so of one call, not of those after it");
    next.abandon(&engine, T0.plus_millis(9));
    let mut other = engine.begin(&Head::new("POST", PLAIN).parks(true), T0, 7);
    assert!(!other.may_be_parked());
    other.abandon(&engine, T0.plus_millis(9));
}

#[test]
fn what_an_adapter_finds_that_it_cannot_hand_over_is_not_parked_and_counted() {
    let engine = engine(RULE);
    let mut call = begin(&engine, "POST", REFUNDS);
    call.not_parked(&engine, "before anybody asked", T0);
    let (_, step) = after(&engine, &mut call, Err(ErrorType::Connect));
    assert!(matches!(step, Step::Park(_)));
    call.not_parked(&engine, "for a reason", T0.plus_millis(2));
    call.not_parked(&engine, "said twice", T0.plus_millis(2));
    assert_eq!(call.step(&engine, T0.plus_millis(3)), Step::Settled);
    call.end(&engine, T0.plus_millis(9));
    let counters = engine.counters();
    assert_eq!((counters.unparkable_calls, counters.unparked_calls), (1, 0));
}

#[test]
fn a_delivery_that_fails_counts_for_no_call_that_could_not_be_parked() {
    let engine = engine(RULE);
    let head = Head::new("POST", REFUNDS).body(Some(5), true).delivers(true);
    let mut call = engine.begin(&head, T0, 7);
    assert_eq!(after(&engine, &mut call, Err(ErrorType::Connect)).1, Step::Settled);
    call.end(&engine, T0.plus_millis(9));
    assert_eq!(engine.counters().unparkable_calls, 0);
}

#[test]
fn a_body_that_is_whole_only_when_its_call_failed_is_parked() {
    let engine = engine(RULE);
    for whole in [true, false] {
        let head = Head::new("POST", REFUNDS).body(None, false).parks(true);
        let mut call = engine.begin(&head, T0, 7);
        let Step::Send(attempt) = call.step(&engine, T0) else { panic!("it is not sent") };
        assert!(attempt.idempotency_header().is_some());
        call.answer(&engine, 503, &HeaderMap::new(), T0.plus_millis(5));
        call.keeps(whole);
        assert_eq!(matches!(call.step(&engine, T0.plus_millis(5)), Step::Park(_)), whole);
        call.abandon(&engine, T0.plus_millis(9));
    }
}

#[test]
fn an_injected_fault_is_parked_like_the_failure_that_it_plays() {
    let engine = engine(&format!(
        "allow_faults = true\n{RULE}[[fault]]\nmatch = {{ vendor = \"stripe\" }}\nstatus = 503\nshare = \"100%\"\nexpires = \"2099-01-01T00:00:00Z\"\n"
    ));
    let mut call = begin(&engine, "POST", REFUNDS);
    let why = terms(call.step(&engine, T0)).why;
    assert!(why.starts_with("answered 503 by the fault `fault@"), "{why}");
    call.parked(&engine, Err("busy"), T0);
    assert!(matches!(call.step(&engine, T0), Step::Respond(stored) if stored.status == 503));
}

#[test]
fn calls_of_one_customer_can_be_kept_in_order() {
    let engine = engine(&format!("{RULE}ordered_by = \"customer\"\n"));
    let mut call = begin(&engine, "POST", REFUNDS);
    let (_, step) = after(&engine, &mut call, Ok(503));
    assert_eq!(terms(step).order_key.as_deref(), Some("refunds/acme"));
    call.abandon(&engine, T0.plus_millis(9));
}

#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Alarms for Told {
    fn failed(&self, failed: &Failed<'_>) -> bool {
        let Failed { rule, vendor, endpoint, failure, .. } = failed;
        self.0.lock().expect("nobody panicked").push(format!("{rule}: {endpoint} of {vendor} {failure}"));
        true
    }
}

#[test]
fn each_failed_attempt_of_a_critical_call_is_told_and_no_answer_that_is_one() {
    let engine = engine("[[outbox]]\nname = \"refunds\"\nmatch = { vendor = \"stripe\" }\ncritical = true\n");
    let told = Arc::new(Told::default());
    engine.set_alarms(Arc::clone(&told) as _);
    for ending in [Ok(200), Ok(402), Ok(404), Ok(503), Err(ErrorType::Connect), Err(ErrorType::Cancelled)] {
        let mut call = begin(&engine, "POST", REFUNDS);
        assert_eq!(
            after(&engine, &mut call, ending).1,
            Step::Settled,
            "a rule that only tells parks nothing"
        );
        call.end(&engine, T0.plus_millis(9));
    }
    assert_eq!(
        *told.0.lock().unwrap(),
        [
            "refunds: POST /v1/refunds of stripe answered 503",
            "refunds: POST /v1/refunds of stripe failed (connect)"
        ]
    );
    assert!(drained(&engine).1.contains("critical by `refunds`: the alarm is told"));
}

#[test]
fn an_alarm_of_an_injected_fault_says_so() {
    let engine = engine(
        "allow_faults = true\n[[outbox]]\nname = \"refunds\"\nmatch = { vendor = \"stripe\" }\ncritical = true\n\
         [[fault]]\nname = \"outage\"\nmatch = { vendor = \"stripe\" }\nstatus = 503\nshare = \"100%\"\nexpires = \"2099-01-01T00:00:00Z\"\n",
    );
    let told = Arc::new(Told::default());
    engine.set_alarms(Arc::clone(&told) as _);
    let mut call = begin(&engine, "POST", REFUNDS);
    assert!(matches!(call.step(&engine, T0), Step::Respond(_)));
    assert_eq!(
        *told.0.lock().unwrap(),
        ["refunds: POST /v1/refunds of stripe answered 503 by the fault `outage`"]
    );
}

#[test]
fn a_critical_call_is_told_of_once_by_an_adapter_that_asks_nothing_more_and_where_its_answer_breaks_off() {
    let engine = engine("[[outbox]]\nname = \"refunds\"\nmatch = { vendor = \"stripe\" }\ncritical = true\n");
    let told = Arc::new(Told::default());
    engine.set_alarms(Arc::clone(&told) as _);
    for (asks, status, breaks) in
        [(false, 200, false), (false, 501, false), (false, 200, true), (true, 200, true), (true, 503, true)]
    {
        let mut call = begin(&engine, "POST", REFUNDS);
        assert!(matches!(call.step(&engine, T0), Step::Send(_)));
        call.answer(&engine, status, &HeaderMap::new(), T0.plus_millis(5));
        if asks {
            assert_eq!(call.step(&engine, T0.plus_millis(6)), Step::Settled);
        }
        if breaks {
            call.failed(ErrorType::Reset);
        }
        call.end(&engine, T0.plus_millis(9));
    }
    // Who lets go of a call has not failed.
    let mut call = begin(&engine, "POST", REFUNDS);
    assert!(matches!(call.step(&engine, T0), Step::Send(_)));
    call.abandon(&engine, T0.plus_millis(9));
    // Nor has one that never went out.
    begin(&engine, "POST", REFUNDS).end(&engine, T0.plus_millis(9));
    assert_eq!(
        *told.0.lock().unwrap(),
        [
            "refunds: POST /v1/refunds of stripe answered 501",
            "refunds: POST /v1/refunds of stripe failed (reset)",
            "refunds: POST /v1/refunds of stripe failed (reset)",
            "refunds: POST /v1/refunds of stripe answered 503",
        ]
    );
}
