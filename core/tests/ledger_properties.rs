//! What the ledger promises, whatever happens and in whatever order: totals exact, memory bounded, the same
//! inputs giving the same outputs. Time is a number here; nothing sleeps.
#![allow(clippy::unwrap_used)]

use farcall::ledger::{Batch, OTHER, Rollup};
use farcall::{Call, Caller, Config, Engine, ErrorType, Head, Outcome, Step, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const START: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);

fn engine(toml: &str, shards: usize) -> Engine {
    Engine::new(Config::parse("farcall.toml", toml).unwrap(), Caller::new("test"), shards, 7)
}

/// One thing that happens to one of a few calls under way.
#[derive(Clone, Debug)]
enum Event {
    Begin { slot: usize, url: usize, customer: Option<u8> },
    Step { slot: usize },
    Sent { slot: usize, bytes: u32 },
    Head { slot: usize, status: u16 },
    Body { slot: usize, bytes: u32 },
    Failed { slot: usize },
    End { slot: usize },
    Abandon { slot: usize },
    Drain,
    Pass { millis: u32 },
}

fn event() -> impl Strategy<Value = Event> {
    let slot = 0..4_usize;
    prop_oneof![
        4 => (slot.clone(), 0..URLS.len(), proptest::option::of(0..6_u8)).prop_map(|(slot, url, customer)| Event::Begin { slot, url, customer }),
        4 => slot.clone().prop_map(|slot| Event::Step { slot }),
        2 => (slot.clone(), 0..5_000_u32).prop_map(|(slot, bytes)| Event::Sent { slot, bytes }),
        3 => (slot.clone(), prop_oneof![Just(200_u16), Just(404), Just(503), any::<u16>()]).prop_map(|(slot, status)| Event::Head { slot, status }),
        3 => (slot.clone(), any::<u32>()).prop_map(|(slot, bytes)| Event::Body { slot, bytes }),
        1 => slot.clone().prop_map(|slot| Event::Failed { slot }),
        3 => slot.clone().prop_map(|slot| Event::End { slot }),
        1 => slot.prop_map(|slot| Event::Abandon { slot }),
        1 => Just(Event::Drain),
        1 => (0..90_000_u32).prop_map(|millis| Event::Pass { millis }),
    ]
}

const URLS: [&str; 6] = [
    "https://api.stripe.com/v1/customers/cus_9s6XKzkNRiz8i3",
    "https://API.openai.com/v1/chat/completions",
    "http://10.0.0.7:8080/",
    "https://eu.shop.acme.co.uk/things/42/parts",
    "not a url",
    "https://[2001:db8::1]/a/b/c",
];

#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Totals {
    calls: u64,
    attempts: u64,
    bytes_out: u64,
    bytes_in: u64,
    by_customer: BTreeMap<String, u64>,
}

fn totals(rows: &[Rollup]) -> Totals {
    let mut totals = Totals::default();
    for row in rows {
        totals.calls += row.sums.calls;
        totals.attempts += row.sums.attempts;
        totals.bytes_out += row.sums.bytes_out;
        totals.bytes_in += row.sums.bytes_in;
        *totals.by_customer.entry(row.customer.to_string()).or_default() += row.sums.calls;
        assert_eq!(row.latency.count(), row.sums.calls, "the sketch and the sums count the same calls");
    }
    totals
}

/// A call under way, and what the model knows of it: customer, attempts, bytes out and in.
type Slot = Option<(Call, String, u64, u64, u64)>;

/// Plays events against an engine and, in plain arithmetic, against a model of what it promises.
fn play(events: &[Event], toml: &str) -> (Vec<Rollup>, Totals) {
    let engine = engine(toml, 3);
    let mut now = START;
    let mut rows = Vec::new();
    let mut model = Totals::default();
    let mut slots: [Slot; 4] = [const { None }; 4];
    let settle = |slot: &mut Slot, model: &mut Totals, end: bool, now| {
        let Some((mut call, customer, attempts, out, received)) = slot.take() else { return };
        if end {
            call.end(&engine, now)
        } else {
            call.abandon(&engine, now)
        }
        assert!(call.is_settled());
        call.abandon(&engine, now);
        model.calls += 1;
        model.attempts += attempts;
        model.bytes_out += out;
        model.bytes_in += received;
        *model.by_customer.entry(customer).or_default() += 1;
    };
    for (seed, event) in events.iter().enumerate() {
        now = now.plus_millis(1);
        match *event {
            Event::Begin { slot, url, customer } => {
                settle(&mut slots[slot], &mut model, false, now);
                let name = customer.map(|n| format!("customer-{n}"));
                let head = Head::new("GET", URLS[url]).customer(name.as_deref());
                let call = engine.begin(&head, now, seed as u64);
                slots[slot] = Some((call, name.unwrap_or_else(|| "unknown".into()), 0, 0, 0));
            }
            Event::Step { slot } => {
                if let Some((call, _, attempts, ..)) = &mut slots[slot]
                    && let Step::Send(attempt) = call.step(&engine, now)
                {
                    *attempts += 1;
                    assert_eq!(u64::from(attempt.number), *attempts);
                }
            }
            Event::Sent { slot, bytes } => {
                if let Some((call, _, _, out, _)) = &mut slots[slot] {
                    call.sent(bytes.into());
                    *out += u64::from(bytes);
                }
            }
            Event::Head { slot, status } => {
                slots[slot].iter_mut().for_each(|(call, ..)| call.head(status, now))
            }
            Event::Body { slot, bytes } => {
                if let Some((call, _, _, _, received)) = &mut slots[slot] {
                    call.body(bytes.into());
                    *received += u64::from(bytes);
                }
            }
            Event::Failed { slot } => {
                slots[slot].iter_mut().for_each(|(call, ..)| call.failed(ErrorType::Reset))
            }
            Event::End { slot } => settle(&mut slots[slot], &mut model, true, now),
            Event::Abandon { slot } => settle(&mut slots[slot], &mut model, false, now),
            Event::Drain => rows.extend(engine.drain(now).rows),
            Event::Pass { millis } => now = now.plus_millis(millis.into()),
        }
    }
    slots.iter_mut().for_each(|slot| settle(slot, &mut model, true, now));
    rows.extend(engine.drain(now).rows);
    assert!(engine.drain(now).rows.is_empty(), "a drain takes everything");
    (rows, model)
}

proptest! {
    #[test]
    fn totals_are_exact_whatever_happens(events in proptest::collection::vec(event(), 0..300)) {
        let (rows, model) = play(&events, "");
        prop_assert_eq!(totals(&rows), model);
    }

    #[test]
    fn the_same_inputs_give_the_same_outputs(events in proptest::collection::vec(event(), 0..200)) {
        let (first, _) = play(&events, "");
        let (second, _) = play(&events, "");
        prop_assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }

    #[test]
    fn no_head_can_make_it_panic(method in ".{0,20}", url in ".{0,300}", customer in ".{0,200}", key in ".{0,150}") {
        let engine = engine("", 1);
        let tags = [(key.as_str(), customer.as_str())];
        let mut call = engine.begin(&Head::new(&method, &url).customer(Some(&customer)).tags(&tags), START, 0);
        call.end(&engine, START);
        prop_assert_eq!(engine.drain(START).rows.len(), 1);
    }
}

fn one(engine: &Engine, head: &Head<'_>, status: u16, now: Timestamp) {
    let mut call = engine.begin(head, now, 0);
    let _ = call.step(engine, now);
    call.head(status, now.plus_millis(2));
    call.body(10);
    call.end(engine, now.plus_millis(5));
}

#[test]
fn too_many_customers_are_added_to_other_and_the_total_stays_exact() {
    let engine = engine("[ledger]\nmax_series = 64\n", 1);
    for n in 0..1_000 {
        one(
            &engine,
            &Head::new("GET", "https://api.github.com/user").customer(Some(&format!("c{n}"))),
            200,
            START,
        );
    }
    let rows = engine.drain(START).rows;
    assert_eq!(totals(&rows).calls, 1_000);
    assert!(rows.len() <= 64 + 16, "{}", rows.len());
    let other = rows.iter().find(|row| row.customer.as_ref() == OTHER).unwrap();
    assert_eq!(other.sums.calls, 1_000 - 64);
    assert!(engine.counters().folded_customers > 0);
}

#[test]
fn a_flood_of_names_leaves_no_memory_behind_and_detail_returns() {
    let engine = engine("[ledger]\nmax_series = 256\n", 1);
    for n in 0..2_000 {
        let url = format!("https://host{n}.example{n}.com/p{n}/x{n}");
        one(&engine, &Head::new("GET", &url).customer(Some(&format!("c{n}"))), 200, START);
    }
    let _ = engine.drain(START);
    one(&engine, &Head::new("GET", "https://api.github.com/user").customer(Some("acme")), 200, START);
    let rows = engine.drain(START).rows;
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].vendor.as_ref(), rows[0].customer.as_ref()), ("github", "acme"));
}

#[test]
fn customers_are_told_apart_while_others_come_and_leave() {
    let engine = engine("", 1);
    for round in 0..4_u64 {
        // More than are known without a search, another part of them each time: those that stay away leave.
        let names = || (0..600_u64).filter(|n| n % 4 != round).map(|n| (n, format!("c{n}")));
        let now = START.plus(Duration::from_secs(3_600 * round));
        for _again in 0..2 {
            for (n, name) in names() {
                for _call in 0..=n % 3 {
                    let head = Head::new("GET", "https://api.github.com/user").customer(Some(&name));
                    one(&engine, &head, 200, now);
                }
            }
        }
        let counted = totals(&engine.drain(now).rows).by_customer;
        let expected: BTreeMap<String, u64> = names().map(|(n, name)| (name, 2 * (n % 3 + 1))).collect();
        assert_eq!(counted, expected, "round {round}");
        for _drain in 0..130 {
            let _nothing = engine.drain(now);
        }
    }
}

#[test]
fn a_call_under_way_keeps_its_names_through_drains() {
    let engine = engine("[ledger]\nmax_series = 64\n", 1);
    let mut stream = engine.begin(
        &Head::new("GET", "https://slow.example.com/stream").customer(Some("patient")),
        START,
        1,
    );
    let _ = stream.step(&engine, START);
    stream.head(200, START);
    for minute in 0..200 {
        let now = START.plus(Duration::from_secs(60 * minute));
        for n in 0..100 {
            one(
                &engine,
                &Head::new("GET", "https://api.github.com/user").customer(Some(&format!("c{minute}-{n}"))),
                200,
                now,
            );
        }
        let _ = engine.drain(now);
    }
    let end = START.plus(Duration::from_secs(60 * 200));
    stream.abandon(&engine, end);
    let rows = engine.drain(end).rows;
    let row = rows.iter().find(|row| row.outcome == Outcome::Abandoned).unwrap();
    assert_eq!((row.vendor.as_ref(), row.customer.as_ref()), ("example.com", "patient"));
    assert_eq!(row.sums.duration, Duration::from_secs(12_000));
}

#[test]
fn a_minute_that_turns_between_two_drains_gives_two_rows() {
    let engine = engine("", 1);
    let head = Head::new("GET", "https://api.github.com/user");
    one(&engine, &head, 200, START);
    one(&engine, &head, 200, START.plus(Duration::from_secs(60)));
    let rows = engine.drain(START).rows;
    let minutes: Vec<u64> = rows.iter().map(|row| row.minute).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(minutes.iter().max().unwrap() - minutes.iter().min().unwrap(), 1);
}

#[test]
fn timings_are_split_where_they_are_known() {
    let engine = engine("", 1);
    let mut call = engine.begin(&Head::new("POST", "https://api.stripe.com/v1/refunds"), START, 1);
    let _ = call.step(&engine, START);
    call.connected(farcall::ConnectTimes {
        dns: Some(Duration::from_millis(3)),
        connect: Some(Duration::from_millis(7)),
        tls: None,
    });
    call.sent(12);
    call.head(200, START.plus_millis(50));
    call.body(34);
    call.end(&engine, START.plus_millis(80));
    let Batch { rows, exemplars, .. } = engine.drain(START);
    let sums = rows[0].sums;
    assert_eq!(
        (sums.dns, sums.connect, sums.tls),
        (Duration::from_millis(3), Duration::from_millis(7), Duration::ZERO)
    );
    assert_eq!((sums.ttfb, sums.transfer), (Duration::from_millis(50), Duration::from_millis(30)));
    assert_eq!((sums.connections, sums.answered, sums.bytes_out, sums.bytes_in), (1, 1, 12, 34));
    assert_eq!(exemplars.len(), 1);
    assert_eq!(exemplars[0].duration, Duration::from_millis(80));
}

#[test]
fn a_clock_that_goes_backwards_gives_zero_not_a_panic() {
    let engine = engine("", 1);
    let mut call = engine.begin(&Head::new("GET", "https://a.example/"), START, 1);
    call.head(200, START.minus(Duration::from_secs(5)));
    call.end(&engine, START.minus(Duration::from_secs(9)));
    assert_eq!(engine.drain(START).rows[0].sums.duration, Duration::ZERO);
}

#[test]
fn every_failure_keeps_an_exemplar() {
    let engine = engine("", 1);
    for n in 0..10 {
        let mut call = engine.begin(&Head::new("GET", "https://a.example/"), START, n);
        let _ = call.step(&engine, START);
        call.failed(ErrorType::Connect);
        call.end(&engine, START.plus_millis(n));
    }
    let batch = engine.drain(START);
    assert_eq!(batch.rows[0].outcome, Outcome::Failed(ErrorType::Connect));
    assert_eq!(batch.exemplars.len(), 10);
}

#[test]
fn sightings_are_recorded_only_where_somebody_listens() {
    let engine = engine("", 1);
    let head = Head::new("GET", "https://API.github.com/user?x=1");
    one(&engine, &head, 200, START);
    assert!(engine.drain(START).sightings.is_empty());
    engine.record_sightings(true);
    one(&engine, &head, 204, START);
    let sightings = engine.drain(START).sightings;
    assert_eq!(sightings.len(), 1);
    assert_eq!(sightings[0].key, farcall::ledger::Sighting::key("GET", "api.github.com", "/user"));
    assert_eq!(sightings[0].status, 204);
}

#[test]
fn threads_that_count_at_once_lose_nothing() {
    let engine = engine("", 2);
    let rows = std::thread::scope(|scope| {
        let drainer = scope.spawn(|| {
            let mut rows = Vec::new();
            while totals(&rows).calls < 40_000 {
                rows.extend(engine.drain(START).rows);
            }
            rows
        });
        for thread in 0..4_u64 {
            let engine = &engine;
            scope.spawn(move || {
                for n in 0..10_000_u64 {
                    let customer = format!("c{}", (n * 7 + thread) % 50);
                    one(
                        engine,
                        &Head::new("GET", "https://api.github.com/user").customer(Some(&customer)),
                        200,
                        START.plus_millis(n),
                    );
                }
            });
        }
        drainer.join().unwrap()
    });
    assert_eq!(totals(&rows).calls, 40_000);
    assert_eq!(totals(&rows).bytes_in, 400_000);
}
