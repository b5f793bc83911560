//! A stale answer is handed out at once, and asked about beside the call.

use crate::support::{Pairs, World, at, kept};
use farcall::{Attempt, Call, Head, Step};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};

const HEADERS: Pairs<'_> = &[("cache-control", "max-age=5, stale-while-revalidate=10"), ("etag", "\"1\"")];

const NONE: Pairs<'_> = &[];

fn begin(world: &World, seconds: f64, seed: u64) -> Call {
    let head =
        Head::new("GET", "https://api.example.com/v1/rates?base=EUR").body(Some(0), true).headers(&NONE);
    world.engine.begin(&head.caches(true).refreshes(true).customer(Some("acme")), at(seconds), seed)
}

/// A world in which an answer was kept at 0 s.
fn world(more: &str) -> World {
    let world = World::of(&format!("[[cache]]\nname = \"all\"\nmatch = {{}}\n{more}"));
    let mut call = begin(&world, 0.0, 1);
    assert!(matches!(call.step(&world.engine, at(0.0)), Step::Send(_)));
    call.answer(&world.engine, 200, &HEADERS, at(0.0));
    assert!(call.refresh().is_none());
    call.read(b"first");
    call.end(&world.engine, at(0.0));
    world
}

/// A call that gets what is stale, and what it is to send beside.
fn stale(world: &World, seconds: f64, seed: u64) -> Option<(Call, Attempt)> {
    let mut call = begin(world, seconds, seed);
    let Step::Respond(stored) = call.step(&world.engine, at(seconds)) else { panic!("it waits for nobody") };
    assert_eq!(kept(&stored).body(), "first");
    assert!(kept(&stored).why().ends_with("detail=stale-while-revalidate"), "{}", kept(&stored).why());
    call.refresh()
}

#[test]
fn one_call_asks_beside_itself_and_all_have_the_stale_answer_until_there_is_a_new_one() {
    let world = world("");
    let (mut refresh, attempt) = stale(&world, 6.0, 2).unwrap();
    assert_eq!(*attempt.condition, [("if-none-match", "\"1\"".to_owned())]);
    assert!(stale(&world, 6.1, 3).is_none(), "one is enough");
    refresh.answer(&world.engine, 200, &HEADERS, at(6.2));
    assert!(matches!(refresh.step(&world.engine, at(6.2)), Step::Settled));
    refresh.read(b"second");
    assert!(stale(&world, 6.3, 4).is_none());
    refresh.end(&world.engine, at(6.4));
    let mut next = begin(&world, 7.0, 5);
    let Step::Respond(stored) = next.step(&world.engine, at(7.0)) else { panic!() };
    assert_eq!((kept(&stored).body(), kept(&stored).why()), ("second", "farcall; hit; ttl=4"));
    let rows = world.drain().rows;
    let refreshes: Vec<_> = rows.iter().filter(|row| row.tags.contains("refresh=all")).collect();
    assert_eq!((refreshes.len(), refreshes[0].sums.calls, refreshes[0].sums.attempts), (1, 1, 1));
    assert_eq!(&*refreshes[0].customer, "acme");
}

#[test]
fn what_is_asked_beside_a_call_is_not_booked_as_saved() {
    let world = world("");
    let (mut refresh, _) = stale(&world, 6.0, 2).unwrap();
    assert!(stale(&world, 6.1, 3).is_none());
    refresh.answer(&world.engine, 200, &HEADERS, at(6.2));
    assert!(matches!(refresh.step(&world.engine, at(6.2)), Step::Settled));
    refresh.read(b"second");
    refresh.end(&world.engine, at(6.4));
    let rows = world.drain().rows;
    let sum = |of: fn(&farcall::ledger::Sums) -> u64| rows.iter().map(|row| of(&row.sums)).sum::<u64>();
    assert_eq!((sum(|sums| sums.calls), sum(|sums| sums.attempts)), (4, 2));
    assert_eq!(sum(|sums| sums.saved_requests), 1, "four calls, two exchanges, one of them beside");
    assert_eq!(sum(|sums| sums.saved_bytes), 5);
}

#[test]
fn a_304_beside_a_call_makes_the_answer_fresh() {
    let world = world("");
    let (mut refresh, _) = stale(&world, 6.0, 2).unwrap();
    refresh.answer(&world.engine, 304, &[("etag", "\"1\"")], at(6.2));
    assert!(matches!(refresh.step(&world.engine, at(6.2)), Step::Respond(_)));
    let mut next = begin(&world, 7.0, 3);
    let Step::Respond(stored) = next.step(&world.engine, at(7.0)) else { panic!() };
    assert_eq!((kept(&stored).body(), kept(&stored).why()), ("first", "farcall; hit; ttl=4"));
}

#[test]
fn where_that_call_fails_or_is_let_go_of_the_next_one_asks() {
    let world = world("");
    let (mut refresh, _) = stale(&world, 6.0, 2).unwrap();
    refresh.failed(farcall::ErrorType::Connect);
    assert!(matches!(refresh.step(&world.engine, at(6.1)), Step::Settled));
    refresh.end(&world.engine, at(6.1));
    let (mut refresh, _) = stale(&world, 6.2, 3).unwrap();
    refresh.abandon(&world.engine, at(6.3));
    assert!(stale(&world, 6.4, 4).is_some());
}

#[test]
fn it_keeps_to_quotas_and_waits_for_none() {
    let world = world("[[quota]]\nname = \"q\"\nmatch = {}\nlimit = \"1 requests / 1h\"\n");
    assert!(stale(&world, 6.0, 2).is_none(), "the first call used it up");
    assert!(stale(&world, 6.1, 3).is_none(), "and nobody waits for what was not sent");
}

#[derive(Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn whoever_waits_is_woken_by_the_answer_and_one_of_them_by_a_failure() {
    for fails in [false, true] {
        let world = World::with("ttl = \"1h\"");
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut calls: Vec<Call> = (0..10).map(|seed| begin(&world, 0.0, seed + 1)).collect();
        assert!(matches!(calls[0].step(&world.engine, at(0.0)), Step::Send(_)));
        assert!(calls[0].wake(&world.engine, &waker, at(0.0)).is_none(), "it waits for nothing");
        for call in &mut calls[1..] {
            assert!(matches!(call.step(&world.engine, at(0.0)), Step::Wait(_)));
            assert!(call.wake(&world.engine, &waker, at(0.0)).is_some());
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        if fails {
            calls[0].abandon(&world.engine, at(0.1));
            assert_eq!(woken.0.load(Ordering::Relaxed), 1);
            assert!(matches!(calls[1].step(&world.engine, at(0.1)), Step::Send(_)));
            assert!(matches!(calls[2].step(&world.engine, at(0.1)), Step::Wait(_)));
            calls[1].answer(&world.engine, 200, &[("x", "y")], at(0.2));
            calls[1].end(&world.engine, at(0.2));
            assert_eq!(
                woken.0.load(Ordering::Relaxed),
                9,
                "those who waited for the first wait for the second"
            );
        } else {
            calls[0].answer(&world.engine, 200, &[("x", "y")], at(0.1));
            calls[0].end(&world.engine, at(0.1));
            assert_eq!(woken.0.load(Ordering::Relaxed), 9);
        }
        assert!(calls[3].wake(&world.engine, &waker, at(0.3)).is_some());
        assert_eq!(woken.0.load(Ordering::Relaxed), 10, "who comes late is woken at once");
        assert!(matches!(calls[3].step(&world.engine, at(0.3)), Step::Respond(_)));
    }
}
