//! A fault takes the vendor's place in one attempt: what follows an attempt meets it as it would meet the vendor's own
//! failure, and nothing of it goes out.

use crate::support::{T0, at, calls, engine, get, refused, sent, waited};
use farcall::{Engine, ErrorType, Head, Outcome, RefusedBy, Step};
use proptest::prelude::*;
use std::time::Duration;

const FAULT: &str = "allow_faults = true\n[[fault]]\nname = \"outage\"\nmatch = { vendor = \"stripe\" }\nexpires = \"2099-01-01T00:00:00Z\"\n";
const ALL: &str = "share = \"100%\"\n";

fn under(fault: &str, others: &str) -> Engine {
    engine(&format!("{FAULT}{fault}{others}"))
}

fn resilience(keys: &str) -> String {
    format!("[[resilience]]\nmatch = {{ vendor = \"stripe\" }}\n{keys}\n")
}

/// Makes a call whose vendor answers 200 at once, and waits for nothing: what came out, when, and how many requests the
/// vendor got.
fn made(engine: &Engine, head: &Head<'_>, mut now: farcall::Timestamp, seed: u64) -> (Step, u64, u32) {
    let mut call = engine.begin(head, now, seed);
    let mut requests = 0;
    loop {
        match call.step(engine, now) {
            Step::Wait(until) => now = until,
            Step::Send(_) => {
                requests += 1;
                call.answer(engine, 200, &[("x", "y")], now);
            }
            step => {
                if !call.is_settled() {
                    call.end(engine, now);
                }
                return (step, now.since(T0).as_millis() as u64, requests);
            }
        }
    }
}

#[test]
fn a_retry_meets_a_fault_and_each_attempt_has_a_draw_of_its_own() {
    let engine = under(
        "share = \"50%\"\nstatus = 503\n",
        &resilience("attempts = 2\nretry_budget = \"100%\"\nretry_budget_least = 1000"),
    );
    let (mut at_once, mut at_second, mut never) = (0, 0, 0);
    for seed in 0..2_000 {
        match made(&engine, &get("acme"), T0, seed) {
            (Step::Settled, 0, 1) => at_once += 1,
            (Step::Settled, _, 1) => at_second += 1,
            (Step::Respond(stored), _, 0) => {
                assert_eq!(stored.status, 503);
                never += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    for (count, about) in [(at_once, 1_000), (at_second, 500), (never, 500)] {
        assert!((about - 120..=about + 120).contains(&count), "{at_once} {at_second} {never}");
    }
    let batch = engine.drain(at(60_000));
    // What came to the vendor's answer is none of the fault's calls, however it came there.
    assert_eq!(calls(&batch, Outcome::Complete), at_once as u64 + at_second as u64);
    assert_eq!(calls(&batch, Outcome::Refused(RefusedBy::Fault)), never as u64);
    let requests: u64 = batch.rows.iter().map(|row| row.sums.attempts).sum();
    assert_eq!(requests, at_once as u64 + at_second as u64, "what is an exchange on the wire");
    let again = batch.exemplars.iter().find(|call| call.attempts == 1 && !call.events.is_empty());
    let lines: Vec<&str> = again.unwrap().events.lines().collect();
    assert_eq!(lines[0], "+0.0 ms  attempt 1: fault `outage` injected: answers 503 in the vendor's place");
    assert!(lines[1].contains("  answered 503: tries again in "), "{lines:?}");
    assert!(lines[1].ends_with("after the rule's backoff"), "{lines:?}");
}

#[test]
fn attempts_end_with_the_rules_and_retry_after_is_heeded() {
    let engine = under(
        &format!("{ALL}status = 429\nretry_after = \"2s\"\n"),
        &resilience("attempts = 3\nretry_budget_least = 9"),
    );
    let (step, took, requests) = made(&engine, &get("acme"), T0, 1);
    let Step::Respond(stored) = step else { panic!("{step:?}") };
    assert_eq!((stored.status, requests), (429, 0));
    assert_eq!(stored.headers["retry-after"], "2");
    assert_eq!(stored.headers["x-farcall-fault"], "outage");
    assert!((4_000..4_500).contains(&took), "{took}");
    let batch = engine.drain(at(10_000));
    let row = &batch.rows[0];
    assert_eq!((row.status, row.sums.calls, row.sums.attempts), (429, 1, 0));
    let events = &batch.exemplars[0].events;
    for line in [
        "attempt 1: fault",
        "attempt 2: fault",
        "attempt 3: fault",
        "no further attempt, all attempts are used",
    ] {
        assert!(events.contains(line), "{events}");
    }
}

#[test]
fn what_is_not_safe_to_repeat_is_not_repeated_after_a_fault_either() {
    let rules = resilience("attempts = 3");
    let post = Head::new("POST", "https://api.github.com/markdown").body(Some(9), true);
    let github = rules.replace("stripe", "github");
    for (fault, again) in
        [("status = 503", false), ("error = \"reset\"", false), ("error = \"connect\"", true)]
    {
        let fault = format!("{FAULT}{ALL}{fault}\n").replace("stripe", "github");
        let engine = engine(&format!("{fault}{github}"));
        let mut call = engine.begin(&post, T0, 1);
        assert_eq!(matches!(call.step(&engine, T0), Step::Wait(_)), again, "{fault}");
        call.abandon(&engine, at(1));
    }
}

#[test]
fn a_breaker_opens_by_faults_and_closes_when_they_have_ended() {
    let engine = engine(
        &format!(
            "{FAULT}{ALL}status = 503\n{}",
            resilience("breaker = { consecutive = 3, open = \"1s\", probes = 1 }")
        )
        .replace("2099-01-01T00:00:00Z", "2025-11-21T04:40:05Z"),
    );
    for seed in 1..=3 {
        assert!(matches!(made(&engine, &get("acme"), T0, seed).0, Step::Respond(_)));
    }
    let mut call = engine.begin(&get("acme"), at(10), 4);
    assert_eq!(refused(&mut call, &engine, at(10)).by, RefusedBy::Breaker);
    // The fault's answer fails the probe as well.
    assert!(matches!(made(&engine, &get("acme"), at(1_100), 5).0, Step::Respond(_)));
    let mut call = engine.begin(&get("acme"), at(1_200), 6);
    assert_eq!(refused(&mut call, &engine, at(1_200)).by, RefusedBy::Breaker);
    // 5 s after T0 it has ended.
    assert_eq!(made(&engine, &get("acme"), at(5_100), 7).0, Step::Settled);
    assert_eq!(made(&engine, &get("acme"), at(5_200), 8).0, Step::Settled);
    assert_eq!(engine.counters().breaker_refusals, 2);
}

#[test]
fn a_backup_is_asked_and_meets_no_fault_of_the_first() {
    let failover =
        resilience("failover = { host = \"backup.example.com\", when = [\"5xx\"], keep_credentials = true }");
    let engine = under(&format!("{ALL}status = 503\n"), &failover);
    let mut call = engine.begin(&get("acme"), T0, 1);
    let attempt = sent(&mut call, &engine, T0);
    assert_eq!((attempt.number, attempt.changes.unwrap().host.as_deref()), (2, Some("backup.example.com")));
    call.answer(&engine, 200, &[("x", "y")], at(5));
    assert_eq!(call.step(&engine, at(5)), Step::Settled);
    call.end(&engine, at(6));
    let batch = engine.drain(at(10));
    assert_eq!((batch.rows[0].outcome, batch.rows[0].sums.attempts), (Outcome::Complete, 1));
    assert!(batch.exemplars[0].events.contains("answered 503: goes to the backup `backup.example.com`"));
}

#[test]
fn latency_is_a_part_of_its_attempt() {
    // Who gives an attempt up does so here as well, and tries again.
    let rules = resilience("attempt_timeout = \"300ms\"\nattempts = 2\nbackoff = \"1ms..1ms\"");
    let engine = under(&format!("{ALL}latency = \"4s\"\nstatus = 503\n"), &rules);
    let mut call = engine.begin(&get("acme"), T0, 1);
    assert_eq!(call.step(&engine, T0), Step::Wait(at(300)));
    assert_eq!(call.step(&engine, at(100)), Step::Wait(at(300)), "asked again before its time");
    let Step::Wait(next) = call.step(&engine, at(300)) else { panic!("no second attempt") };
    assert!(next <= at(301), "{next:?}");
    assert_eq!(call.step(&engine, next), Step::Wait(next.plus_millis(300)));
    assert_eq!(call.step(&engine, next.plus_millis(300)), Step::Fail(ErrorType::Timeout));
    let batch = engine.drain(at(1_000));
    let row = &batch.rows[0];
    assert_eq!((row.outcome, row.status), (Outcome::Refused(RefusedBy::Fault), 0));
    assert!(row.sums.waited >= Duration::from_millis(600), "{:?}", row.sums);
    let events = &batch.exemplars[0].events;
    assert!(events.contains("attempt 1: given up while it was held back"), "{events}");
    assert!(events.contains("failed (timeout): tries again"), "{events}");

    // One that is let go has what is left of its time.
    let engine = under(&format!("{ALL}latency = \"100ms\"\n"), &rules);
    let mut call = engine.begin(&get("acme"), T0, 1);
    assert_eq!(call.step(&engine, T0), Step::Wait(at(100)));
    assert_eq!(sent(&mut call, &engine, at(100)).give_up_at, Some(at(300)));
    call.abandon(&engine, at(101));
}

#[test]
fn a_call_that_is_held_back_is_given_up_at_its_deadline() {
    let engine = under(&format!("{ALL}latency = \"4s\"\n"), &resilience("deadline = \"500ms\""));
    let mut call = engine.begin(&get("acme"), T0, 1);
    assert_eq!(call.step(&engine, T0), Step::Wait(at(500)));
    assert_eq!(call.step(&engine, at(500)), Step::Fail(ErrorType::Timeout));
}

#[test]
fn a_fault_that_expires_lets_go_of_what_it_holds_back() {
    let rules = format!("{FAULT}{ALL}latency = \"1h\"\nstatus = 503\n")
        .replace("2099-01-01T00:00:00Z", "2025-11-21T04:40:05Z");
    let engine = engine(&rules);
    let mut call = engine.begin(&get("acme"), T0, 1);
    assert_eq!(call.step(&engine, T0), Step::Wait(at(5_000)));
    let _ = sent(&mut call, &engine, at(5_000));
    call.head(200, at(5_010));
    assert_eq!(call.step(&engine, at(5_010)), Step::Settled);
    call.end(&engine, at(5_010));
    let batch = engine.drain(at(6_000));
    assert_eq!(batch.rows[0].outcome, Outcome::Complete);
    assert!(batch.exemplars[0].events.contains("attempt 1: sent, as the fault has expired"));
}

#[test]
fn a_faults_attempt_takes_nothing_of_a_quota_or_a_budget_and_costs_nothing() {
    let rules = format!(
        "[[quota]]\nmatch = {{ vendor = \"stripe\" }}\nlimit = \"2 requests / 1h\"\nburst = 2\nmax_wait = \"0s\"\n\
         [[budget]]\nname = \"few\"\nmatch = {{ vendor = \"stripe\" }}\nlimit = \"2 requests / day\"\nover = \"refuse\"\n\
         [[price]]\nvendor = \"stripe\"\ncall = \"0.01 USD / call\"\ncharges_errors = true\n{}",
        resilience("attempts = 3\nbackoff = \"1ms..1ms\"\nretry_budget_least = 99")
    );
    let engine = under(&format!("{ALL}status = 500\n"), &rules);
    for seed in 1..=5 {
        let (step, _, requests) = made(&engine, &get("acme"), at(seed), seed);
        assert!(matches!(step, Step::Respond(_)) && requests == 0, "{step:?}");
    }
    let batch = engine.drain(at(1_000));
    assert_eq!(batch.budgets.iter().map(|budget| budget.spent).sum::<u64>(), 0);
    let row = &batch.rows[0].sums;
    assert_eq!((row.calls, row.cost, row.cost_unknown), (5, 0, 0));
}

#[test]
fn an_sdk_goes_on_from_a_fault_as_from_the_vendors_own_failure() {
    let engine = engine(
        &format!("{FAULT}{ALL}status = 503\n").replace("\"stripe\"", "\"openai\", customer = \"acme\""),
    );
    let ask = |customer: &'static str, count: &'static str, now: u64| {
        let sent = [("x-stainless-retry-count", count)];
        let headers = sent.as_slice();
        let head = Head::new("POST", "https://api.openai.com/v1/responses").customer(Some(customer));
        let mut call = engine.begin(&head.headers(&headers).body(Some(10), true), at(now), now);
        match call.step(&engine, at(now)) {
            Step::Respond(stored) => stored.status,
            Step::Send(_) => {
                call.answer(&engine, 200, &[("x", "y")], at(now));
                assert_eq!(call.step(&engine, at(now)), Step::Settled);
                call.end(&engine, at(now));
                200
            }
            step => panic!("{step:?}"),
        }
    };
    assert_eq!((ask("acme", "0", 0), ask("acme", "1", 500)), (503, 503));
    assert!(engine.drain(at(600)).rows.is_empty(), "the SDK may go on");
    assert_eq!(ask("globex", "0", 700), 200);
    engine.finish();
    let batch = engine.drain(at(1_000));
    let rows: Vec<_> =
        batch.rows.iter().map(|row| (row.outcome, row.sums.calls, row.sums.attempts)).collect();
    assert!(rows.contains(&(Outcome::Refused(RefusedBy::Fault), 1, 0)), "{rows:?}");
    assert!(rows.contains(&(Outcome::Complete, 1, 1)), "{rows:?}");
}

#[test]
fn who_saw_the_wire_is_told_of_what_went_over_it() {
    let rules = resilience("attempts = 2\nretry_budget_least = 9");
    let half = |seed| {
        let engine = under("share = \"50%\"\nstatus = 503\n", &rules);
        engine.record_sightings(true);
        let mut call = engine.begin(&get("acme"), T0, seed);
        let Step::Send(_) = call.step(&engine, T0) else { return None };
        call.answer(&engine, 500, &[("x", "y")], T0);
        let until = waited(&mut call, &engine, T0);
        matches!(call.step(&engine, until), Step::Respond(_)).then(|| engine.drain(until))
    };
    let batch = (0..).find_map(half).unwrap();
    assert_eq!((batch.rows[0].status, batch.rows[0].outcome), (503, Outcome::Refused(RefusedBy::Fault)));
    let seen: Vec<_> = batch.sightings.iter().map(|seen| (seen.attempts, seen.status)).collect();
    assert_eq!(seen, [(1, 500)], "one exchange, and how it was answered");
}

#[test]
fn a_body_that_breaks_off_is_drawn_for_each_attempt() {
    let engine =
        under("share = \"50%\"\ntruncate = \"10B\"\n", &resilience("attempts = 2\nretry_budget_least = 999"));
    let mut seen = [0; 4];
    for seed in 0..400 {
        let mut call = engine.begin(&get("acme"), T0, seed);
        let first = sent(&mut call, &engine, T0).truncate;
        call.answer(&engine, 503, &[("x", "y")], T0);
        let until = waited(&mut call, &engine, T0);
        let second = sent(&mut call, &engine, until).truncate;
        seen[usize::from(first.is_some()) * 2 + usize::from(second.is_some())] += 1;
        call.abandon(&engine, until);
    }
    assert!(seen.iter().all(|count| (60..=140).contains(count)), "{seen:?}");
}

/// What comes of a call: its waits, and its last word. A request that is not to the backup `fails` so.
fn played(
    engine: &Engine,
    head: &Head<'_>,
    seed: u64,
    fails: Result<u16, ErrorType>,
) -> (Vec<Duration>, String) {
    let mut call = engine.begin(head, T0, seed);
    let (mut now, mut waits, mut last) = (T0, Vec::new(), String::new());
    let word = |came: Result<u16, ErrorType>| {
        came.map_or_else(|error| error.as_str().to_owned(), |status| status.to_string())
    };
    loop {
        match call.step(engine, now) {
            Step::Wait(until) => {
                waits.push(until.since(now));
                now = until;
            }
            Step::Send(attempt) => {
                let came = if attempt.changes.is_some() { Ok(200) } else { fails };
                match came {
                    Ok(status) => call.answer(engine, status, &[("x", "y")], now),
                    Err(error) => call.failed(error),
                }
                last = word(came);
            }
            Step::Respond(stored) => return (waits, word(Ok(stored.status))),
            Step::Fail(error) => return (waits, word(Err(error))),
            Step::Refuse(refusal) => return (waits, refusal.to_string()),
            Step::Settled => {
                call.end(engine, now);
                return (waits, last);
            }
            step => panic!("{step:?}"),
        }
    }
}

proptest! {
    /// Rules tell no fault from the vendor's own failure: same waits, same backup, same breaker, same last word.
    #[test]
    fn what_follows_a_fault_is_what_follows_the_vendors_own_failure(
        seeds in proptest::collection::vec(any::<u64>(), 1..12),
        status in prop_oneof![Just(None), (400u16..600).prop_map(Some)],
        error in prop_oneof![Just("connect"), Just("reset"), Just("timeout"), Just("tls"), Just("protocol"), Just("dns")],
        method in prop_oneof![Just("GET"), Just("POST"), Just("PUT")],
        attempts in 1u32..5,
        parts in 0u8..8,
    ) {
        let mut keys = format!("attempts = {attempts}\nbackoff = \"5ms..40ms\"\nretry_budget_least = 7\n");
        if parts & 1 != 0 {
            keys += "breaker = { consecutive = 3, open = \"1h\" }\n";
        }
        if parts & 2 != 0 {
            keys += "failover = { host = \"b.example.com\", when = [\"breaker\", \"5xx\", \"connect\"], keep_credentials = true }\n";
        }
        if parts & 4 != 0 {
            keys += "concurrency = 3\n";
        }
        let rules = resilience(&format!("name = \"all\"\n{keys}")).replace("stripe", "github");
        let effect = status.map_or_else(|| format!("error = \"{error}\"\n"), |status| format!("status = {status}\n"));
        let fault = format!("{FAULT}{ALL}{effect}").replace("stripe", "github");
        let (faulty, real) = (engine(&format!("{fault}{rules}")), engine(&rules));
        let fails = status.map_or_else(
            || Err(ErrorType::ALL.into_iter().find(|known| known.as_str() == error).unwrap()),
            Ok,
        );
        let head = Head::new(method, "https://api.github.com/user").body(Some(3), true);
        for seed in seeds {
            prop_assert_eq!(played(&faulty, &head, seed, Ok(200)), played(&real, &head, seed, fails));
        }
        prop_assert_eq!(faulty.counters().breaker_refusals, real.counters().breaker_refusals);
    }
}
