//! What the engine remembers for advice: as exact as a cache that had really been there, and bounded.
#![allow(clippy::unwrap_used)]

use farcall::advise::{Sums, TTLS};
use farcall::{Caller, Config, Engine, ErrorType, Head, Step, Timestamp};
use proptest::prelude::*;
use std::collections::HashMap;
use std::time::Duration;

const HOST: &str = "https://flags.example.com";

fn engine(config: &str) -> Engine {
    Engine::new(Config::parse("f", config).unwrap(), Caller::new("checkout"), 2, 7)
}

fn start() -> Timestamp {
    Timestamp::from_nanos(1_790_000_000_000_000_000)
}

/// How one call goes.
#[derive(Clone, Debug)]
struct Made {
    url: String,
    customer: Option<&'static str>,
    begun: Timestamp,
    took: Duration,
    status: u16,
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
    request: Vec<(&'static str, String)>,
}

impl Made {
    fn get(url: impl Into<String>, begun: Timestamp, body: impl Into<Vec<u8>>) -> Self {
        Self {
            url: url.into(),
            customer: None,
            begun,
            took: Duration::from_millis(20),
            status: 200,
            body: body.into(),
            headers: Vec::new(),
            request: Vec::new(),
        }
    }

    fn by(mut self, engine: &Engine) {
        let head = Head::new("GET", &self.url).customer(self.customer).headers(&self.request).exact(true);
        let mut call = engine.begin(&head, self.begun, self.begun.as_nanos());
        assert!(matches!(call.step(engine, self.begun), Step::Send(_)));
        let ended = self.begun.plus(self.took);
        match self.status {
            0 => call.failed(ErrorType::Timeout),
            status => {
                self.headers.push(("content-type", "text/plain".into()));
                call.answer(engine, status, &self.headers, ended);
                for piece in self.body.chunks(7) {
                    call.read(piece);
                }
            }
        }
        call.end(engine, ended);
    }
}

/// The sums of all endpoints.
fn drained(engine: &Engine, now: Timestamp) -> Sums {
    let mut sums = Sums::default();
    for observed in engine.drain(now).advice.iter().filter(|observed| !observed.vendor.is_empty()) {
        sums.add(&observed.sums);
    }
    sums
}

/// Hits and stale hits of a cache that is really there, at one lifetime.
fn replayed(calls: &[Made], ttl: Duration) -> (u64, u64) {
    let mut kept = HashMap::<_, (Timestamp, Vec<u8>)>::new();
    let (mut hits, mut stale) = (0, 0);
    for call in calls {
        let key = (call.url.clone(), call.customer);
        let fresh = kept.get(&key).filter(|(since, _)| call.begun.since(*since) < ttl);
        match fresh {
            Some((_, body)) => {
                hits += 1;
                let says_something = call.status != 0 && call.status < 500;
                stale += u64::from(says_something && (call.status != 200 || *body != call.body));
            }
            None if call.status == 200 => {
                kept.insert(key, (call.begun.plus(call.took), call.body.clone()));
            }
            None => {}
        }
    }
    (hits, stale)
}

fn calls() -> impl Strategy<Value = Vec<Made>> {
    let gap = prop_oneof![0..2_000_u64, 500..20_000_u64, 10_000..4_000_000_u64, 1_000_000..100_000_000_u64];
    let status = prop_oneof![8 => Just(200_u16), 1 => Just(404), 1 => Just(503), 1 => Just(0)];
    let one = (0..4_u8, 0..3_usize, gap, status, 0..3_u8, 1..3_000_u64);
    proptest::collection::vec(one, 1..120).prop_map(|all| {
        let mut now = start();
        let one = |(url, customer, gap, status, body, took)| {
            now = now.plus_millis(gap);
            Made {
                customer: [None, Some("acme"), Some("globex")][customer],
                status,
                took: Duration::from_millis(took),
                ..Made::get(format!("{HOST}/sdk/latest?q={url}"), now, vec![body; 40])
            }
        };
        all.into_iter().map(one).collect()
    })
}

proptest! {
    #[test]
    fn hits_and_stale_hits_at_each_lifetime_are_those_of_a_cache_that_was_there(calls in calls()) {
        let engine = engine("");
        for call in calls.clone() {
            call.by(&engine);
        }
        let sums = drained(&engine, calls.last().unwrap().begun);
        prop_assert_eq!((sums.calls, sums.compared, sums.weight), (calls.len() as u64, calls.len() as u64, 1));
        for (at, ttl) in sums.at.iter().zip(TTLS) {
            prop_assert_eq!((at.hits, at.stale), replayed(&calls, ttl), "at {:?}", ttl);
        }
    }
}

#[test]
fn what_is_saved_is_told_in_money_time_and_quota() {
    let config = "[[price]]\nvendor = \"example.com\"\ncall = \"0.005 USD / call\"\n\
                  [[quota]]\nmatch = { vendor = \"example.com\" }\nlimit = \"100000 requests / 1h\"\n";
    let engine = engine(config);
    for n in 0..1_000 {
        // One a second, and every fifth answer is another.
        Made::get(format!("{HOST}/sdk/latest"), start().plus_millis(n * 1_000), format!("v{}", n / 5))
            .by(&engine);
    }
    let sums = drained(&engine, start().plus_millis(1_000_000));
    let ten = sums.at[1];
    // An answer that came at 0.02 s is good for the calls at 1 to 10 s: one call in eleven is made.
    assert_eq!((sums.calls, ten.hits), (1_000, 909));
    assert_eq!(ten.cost, 909 * 5_000_000);
    assert_eq!((ten.cost_unknown, ten.quota), (0, 909));
    assert_eq!(ten.duration, Duration::from_millis(909 * 20));
    assert!((sums.at[0].hits, sums.at[0].stale) == (500, 100) && ten.stale == 725, "{sums:?}");
}

#[test]
fn a_304_is_the_answer_that_was_there() {
    let engine = engine("");
    let at = |seconds: u64| start().plus_millis(seconds * 1_000);
    Made::get(format!("{HOST}/x"), at(0), "one").by(&engine);
    Made { status: 304, ..Made::get(format!("{HOST}/x"), at(20), "") }.by(&engine);
    Made::get(format!("{HOST}/x"), at(25), "one").by(&engine);
    let sums = drained(&engine, at(30));
    assert_eq!(sums.at.map(|at| (at.hits, at.stale)), [(0, 0), (1, 0), (2, 0), (2, 0), (2, 0), (2, 0)]);
}

#[test]
fn what_an_answer_varies_by_keeps_requests_apart_and_what_is_not_known_is_not_compared() {
    let engine = engine("");
    let ask = |n: u64, language: &str, vary: &str| Made {
        request: vec![("accept-language", language.into())],
        headers: vec![("vary", vary.into())],
        ..Made::get(format!("{HOST}/{vary}"), start().plus_millis(n * 100), language.to_owned())
    };
    for (n, language) in (0..).zip(["de", "fr", "de", "fr"]) {
        ask(n, language, "accept-language").by(&engine);
        ask(n, language, "x-region").by(&engine);
    }
    let sums = drained(&engine, start());
    assert_eq!((sums.calls, sums.compared, sums.apart), (8, 4, 4));
    assert_eq!((sums.at[1].hits, sums.at[1].stale), (2, 0));
}

#[test]
fn a_header_that_differs_each_time_makes_no_call_one_that_a_cache_would_have_saved() {
    let of = |header: &'static str, value: fn(u64) -> String| {
        let engine = engine("");
        for n in 0..20 {
            let request = vec![("accept", "*/*".into()), (header, value(n)), ("x-team", "shop".into())];
            Made { request, ..Made::get(format!("{HOST}/x"), start().plus_millis(n * 100), "same") }
                .by(&engine);
        }
        let sums = drained(&engine, start());
        assert_eq!(sums.compared, 20, "{header}");
        sums.at[5].hits
    };
    for header in ["x-timestamp", "X-Signature", "authorization", "amz-sdk-invocation-id"] {
        assert_eq!(of(header, |n| format!("v{n}")), 0, "{header}");
        assert_eq!(of(header, |_| "v".to_owned()), 19, "{header}");
        // As of two programs in one: each finds its own.
        assert_eq!(of(header, |n| ["a", "b"][n as usize % 2].to_owned()), 18, "{header}");
    }
    for header in ["x-request-id", "traceparent", "date", "User-Agent"] {
        assert_eq!(of(header, |n| format!("v{n}")), 19, "{header} says nothing of who asks for what");
    }
}

#[test]
fn a_header_that_differs_each_time_takes_no_more_room_than_a_few_that_do_not() {
    let engine = engine("");
    for n in 0..20_000 {
        let request = vec![("x-nonce", n.to_string())];
        Made { request, ..Made::get(format!("{HOST}/x"), start().plus_millis(n * 100), "same") }.by(&engine);
    }
    let sums = drained(&engine, start());
    assert_eq!((sums.calls, sums.compared, sums.weight), (20_000, 20_000, 1), "all of them are looked at");
    assert_eq!(sums.at[5].hits, 0);
}

#[test]
fn credentials_and_customers_do_not_answer_for_each_other() {
    let engine = engine("");
    let ask = |n: u64, key: &str, customer| Made {
        request: vec![("authorization", format!("Bearer {key}"))],
        customer,
        ..Made::get(format!("{HOST}/x"), start().plus_millis(n * 100), "same")
    };
    ask(0, "one", None).by(&engine);
    ask(1, "two", None).by(&engine);
    ask(2, "one", Some("acme")).by(&engine);
    ask(3, "one", None).by(&engine);
    let batch = engine.drain(start());
    assert_eq!(batch.advice[0].sums.at[5].hits, 1);
    let mut uses: Vec<(&str, u64)> =
        batch.credentials.iter().map(|used| (used.vendor.as_ref(), used.calls)).collect();
    uses.sort_unstable();
    assert_eq!(uses, [("example.com", 1), ("example.com", 3)]);
    assert!(batch.credentials.iter().all(|used| used.credential.len() == 12), "fingerprints only");
}

#[test]
fn who_shows_no_query_and_no_headers_is_counted_and_not_compared() {
    let engine = engine("");
    let head = Head::new("GET", "https://flags.example.com/x");
    for n in 0..3 {
        let mut call = engine.begin(&head, start().plus_millis(n), n);
        let _ = call.step(&engine, start());
        assert!(!call.wants_body() && !call.wants_headers(200));
        call.head(200, start().plus_millis(n));
        call.end(&engine, start().plus_millis(n));
    }
    let sums = drained(&engine, start());
    assert_eq!((sums.calls, sums.compared, sums.apart), (3, 0, 3));
}

#[test]
fn switched_off_it_notes_nothing_and_a_reload_switches_it() {
    let engine = engine("[advise]\nenabled = false\ncompare = \"all\"\n");
    assert!(!engine.decides(), "adapters need not show calls whole");
    let head = Head::new("GET", "https://flags.example.com/x").exact(true);
    let mut call = engine.begin(&head, start(), 1);
    let _ = call.step(&engine, start());
    assert!(!call.wants_headers(200));
    call.end(&engine, start());
    assert!(engine.drain(start()).advice.is_empty());
    engine.reload(&Config::parse("f", "[advise]\ncompare = \"all\"\n").unwrap());
    assert!(engine.decides());
    Made::get(format!("{HOST}/x"), start(), "x").by(&engine);
    assert_eq!(drained(&engine, start()).compared, 1);
}

#[test]
fn of_very_many_urls_a_part_stands_for_all_of_them_within_bounded_memory() {
    let engine = engine("");
    let (urls, rounds) = (6_000_u64, 4_u64);
    for round in 0..rounds {
        for url in 0..urls {
            let now = start().plus_millis(round * 60_000 + url);
            Made::get(format!("{HOST}/users?id={url}"), now, format!("{}", round / 2)).by(&engine);
        }
    }
    let sums = drained(&engine, start().plus_millis(rounds * 60_000));
    // A thousand a second are a few more than are looked at one by one.
    assert!(sums.calls.abs_diff(urls * rounds) < urls * rounds / 10, "{}", sums.calls);
    assert!(sums.weight >= 16, "{}", sums.weight);
    // Each URL is asked four times, a minute apart: three of four are hits at an hour, of which two are stale.
    let near = |estimate: u64, truth: u64| (truth / 2..truth * 2).contains(&estimate);
    assert!(near(sums.compared, urls * rounds), "{sums:?}");
    assert!(near(sums.at[4].hits, urls * 3) && near(sums.at[4].stale, urls * 2), "{sums:?}");
    assert_eq!(sums.at[1].hits, 0);
}

#[test]
fn a_url_that_is_asked_often_is_not_lost_beside_an_endpoint_of_many() {
    let engine = engine("");
    for n in 0..5_000_u64 {
        let now = start().plus_millis(n * 10);
        Made::get(format!("{HOST}/v1/users/{}", 1_000_000 + n), now, "x").by(&engine);
        Made::get(format!("{HOST}/sdk/latest"), now, "flags").by(&engine);
    }
    let batch = engine.drain(start().plus_millis(60_000));
    let of = |name: &str| batch.advice.iter().find(|seen| seen.endpoint.contains(name)).unwrap().sums;
    let flags = of("/sdk/latest");
    assert_eq!((flags.calls, flags.weight, flags.at[2].hits), (5_000, 1, 4_999));
    assert_eq!(of("/v1/users").at[5].hits, 0);
}

#[test]
fn more_endpoints_than_there_is_room_for_are_counted_and_bounded() {
    let engine = engine("");
    for n in 0..3_000_u64 {
        Made::get(format!("https://host-{n}.example.org/x"), start(), "x").by(&engine);
    }
    let batch = engine.drain(start());
    let calls: u64 = batch.advice.iter().map(|seen| seen.sums.calls).sum();
    assert!(batch.advice.len() <= 512);
    // All at once: of those beyond the vendors that are told apart, a part stands for all.
    assert!((calls + engine.counters().unadvised_calls).abs_diff(3_000) < 300, "{calls}");
    // Once they are idle, others have their room.
    let later = start().plus_millis(3_600_000);
    Made::get("https://another.example.net/x", later, "x").by(&engine);
    assert_eq!(drained(&engine, later).calls, 1);
}

#[test]
fn a_loop_over_ids_is_one_and_the_same_calls_at_once_are_none() {
    let made = |n: u64, millis: u64| {
        Made::get(format!("{HOST}/v1/orders/{}", 10_000 + n), start().plus_millis(millis), "x")
    };
    let one_by_one = engine("");
    for n in 0..25 {
        made(n, n * 22).by(&one_by_one);
    }
    let sums = drained(&one_by_one, start());
    assert_eq!((sums.loops, sums.looped, sums.longest_loop), (1, 25, 25));
    let (at_once, far_apart, the_same) = (engine(""), engine(""), engine(""));
    for n in 0..25 {
        made(n, n * 10).by(&at_once);
        made(n, n * 200).by(&far_apart);
        made(7, n * 22).by(&the_same);
    }
    for engine in [&at_once, &far_apart, &the_same] {
        assert_eq!(drained(engine, start()).loops, 0);
    }
}

#[test]
fn calls_of_a_trace_are_told_apart_though_traces_overlap() {
    let engine = engine("");
    for n in 0..30_u64 {
        for trace in 0..3_u64 {
            let mut made = Made::get(
                format!("{HOST}/v1/orders/{}", 10_000 + n * 3 + trace),
                start().plus_millis(n * 50 + trace * 5),
                "x",
            );
            made.request = vec![("traceparent", format!("00-{:032x}-00f067aa0ba902b7-01", trace + 1))];
            made.by(&engine);
        }
    }
    let sums = drained(&engine, start());
    assert_eq!((sums.loops, sums.looped, sums.longest_loop), (3, 90, 30));
    assert_eq!((sums.traced, sums.traces), (90, 3));
}

#[test]
fn asking_again_what_just_failed_is_counted() {
    let engine = engine("");
    let at = |n: u64, status| Made {
        status,
        ..Made::get(format!("{HOST}/x"), start().plus_millis(n * 1_000), "x")
    };
    for (n, status) in [(0, 503), (1, 503), (2, 0), (3, 200), (4, 200), (30, 429), (50, 200)] {
        at(n, status).by(&engine);
    }
    let sums = drained(&engine, start());
    assert_eq!((sums.calls, sums.failures, sums.repeats), (7, 4, 3));
}
