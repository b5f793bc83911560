//! One of equal calls asks, and the others take its answer.

use crate::support::{Ask, Came, Pairs, World, at, kept, ok};
use farcall::{Call, ErrorType, Step, Timestamp};
use std::task::Waker;

const FRESH: Pairs<'_> = &[("cache-control", "max-age=600")];

fn is_send(step: &Step) -> bool {
    matches!(step, Step::Send(_))
}

/// Steps of all calls at one moment: how many were sent, and how many wait.
fn steps(world: &World, calls: &mut [Call], now: Timestamp) -> (usize, usize) {
    let steps: Vec<Step> = calls.iter_mut().map(|call| call.step(&world.engine, now)).collect();
    let waits = steps.iter().filter(|step| matches!(step, Step::Wait(until) if *until > now)).count();
    (steps.iter().filter(|step| is_send(step)).count(), waits)
}

fn begin(world: &mut World, count: usize) -> Vec<Call> {
    (0..count).map(|_| world.begin(&Ask::get(&[]), 0.0)).collect()
}

#[test]
fn a_thousand_equal_calls_ask_once() {
    let mut world = World::with("");
    let mut calls = begin(&mut world, 1_000);
    assert_eq!(steps(&world, &mut calls, at(0.0)), (1, 999));
    calls[0].answer(&world.engine, 200, &FRESH, at(0.1));
    assert!(matches!(calls[0].step(&world.engine, at(0.1)), Step::Settled));
    assert_eq!(steps(&world, &mut calls[1..], at(0.1)), (0, 999), "the body is still to come");
    calls[0].read(b"once");
    calls[0].end(&world.engine, at(0.2));
    for call in &mut calls[1..] {
        let Step::Respond(stored) = call.step(&world.engine, at(0.21)) else { panic!() };
        let came = kept(&stored);
        assert_eq!((came.body(), came.why()), ("once", "farcall; fwd=uri-miss; ttl=600; collapsed"));
    }
}

#[test]
fn a_leader_that_fails_or_lets_go_hands_over() {
    for lets_go in [false, true] {
        let mut world = World::with("");
        let mut calls = begin(&mut world, 100);
        assert_eq!(steps(&world, &mut calls, at(0.0)), (1, 99));
        match lets_go {
            true => calls[0].abandon(&world.engine, at(0.1)),
            false => {
                calls[0].failed(ErrorType::Reset);
                assert!(matches!(calls[0].step(&world.engine, at(0.1)), Step::Settled));
                calls[0].end(&world.engine, at(0.1));
            }
        }
        assert_eq!(steps(&world, &mut calls[1..], at(0.2)), (1, 98));
    }
}

#[test]
fn those_who_waited_for_one_that_hung_do_not_wait_for_the_next_one_to_hang() {
    for gives_up in [false, true] {
        let mut world = World::with("");
        let mut calls = begin(&mut world, 100);
        assert_eq!(steps(&world, &mut calls, at(0.0)), (1, 99));
        match gives_up {
            true => calls[0].abandon(&world.engine, at(1.5)),
            false => {
                calls[0].failed(ErrorType::Timeout);
                assert!(matches!(calls[0].step(&world.engine, at(1.5)), Step::Settled));
                calls[0].end(&world.engine, at(1.5));
            }
        }
        assert_eq!(steps(&world, &mut calls[1..], at(1.5)), (99, 0), "gives up: {gives_up}");
    }
}

#[test]
fn nobody_waits_longer_than_a_rule_says_even_for_one_that_is_never_heard_of_again() {
    let mut world = World::with("coalesce = \"2s\"");
    let mut calls = begin(&mut world, 10);
    assert_eq!(steps(&world, &mut calls, at(0.0)), (1, 9));
    assert_eq!(steps(&world, &mut calls[1..], at(1.9)), (0, 9));
    assert_eq!(steps(&world, &mut calls[1..], at(2.0)), (9, 0));
}

#[test]
fn nobody_waits_longer_than_its_own_client_would_for_an_answer() {
    let mut world = World::with("");
    let ask = |patience| Ask { patience, ..Ask::get(&[]) };
    let mut calls = [None, Some(1.0), Some(600.0)].map(|patience| world.begin(&ask(patience), 0.0));
    let mut leader = world.begin(&Ask::get(&[]), 0.0);
    assert!(is_send(&leader.step(&world.engine, at(0.0))));
    assert_eq!(steps(&world, &mut calls, at(0.0)), (0, 3));
    assert_eq!(steps(&world, &mut calls, at(0.95)), (0, 3));
    let Step::Wait(until) = calls[1].step(&world.engine, at(0.99)) else { panic!("it waits") };
    assert_eq!(until, at(1.0), "and not beyond");
    let woken = calls[1].wake(&world.engine, Waker::noop(), at(0.99));
    assert_eq!(woken, Some(at(1.0)), "nor where it is to be woken");
    assert_eq!(steps(&world, &mut calls, at(1.0)), (1, 2), "it asks for itself");
    assert_eq!(steps(&world, &mut calls[2..], at(9.9)), (0, 1));
    assert_eq!(steps(&world, &mut calls[2..], at(10.0)), (1, 0), "the rule's own bound holds as well");
}

#[test]
fn an_answer_that_may_not_be_shared_makes_the_others_ask_at_once() {
    let mut world = World::with("");
    let mut calls = begin(&mut world, 10);
    assert_eq!(steps(&world, &mut calls, at(0.0)), (1, 9));
    calls[0].answer(&world.engine, 200, &[("cache-control", "no-store")], at(0.1));
    assert_eq!(steps(&world, &mut calls[1..], at(0.1)), (9, 0), "its body is not waited for");
}

#[test]
fn an_error_makes_one_of_the_others_try_and_not_all_of_them() {
    let mut world = World::with("");
    let mut calls = begin(&mut world, 10);
    assert_eq!(steps(&world, &mut calls, at(0.0)), (1, 9));
    calls[0].answer(&world.engine, 503, &[("x", "y")], at(0.1));
    assert_eq!(steps(&world, &mut calls[1..], at(0.1)), (1, 8));
}

#[test]
fn while_one_asks_whether_it_is_still_good_the_others_have_it_for_as_long_as_allowed() {
    let while_asking: [(&str, Pairs<'_>); 2] = [
        ("", &[("cache-control", "max-age=5, stale-while-revalidate=10")]),
        ("stale_while_revalidate = \"10s\"", &[("cache-control", "max-age=5")]),
    ];
    for (keys, headers) in while_asking {
        let mut world = World::with(keys);
        world.call(Ask::get(&[]), ok(headers), 0.0);
        let mut leader = world.begin(&Ask::get(&[]), 14.0);
        assert!(is_send(&leader.step(&world.engine, at(14.0))));
        let came = world.call(Ask::get(&[]), ok(&[]), 14.5);
        let why = "farcall; hit; ttl=-9; detail=stale-while-revalidate";
        assert_eq!((came.body(), came.why()), ("first", why));
        let mut late = world.begin(&Ask::get(&[]), 15.5);
        assert!(matches!(late.step(&world.engine, at(15.5)), Step::Wait(_)), "too stale for that");
        late.abandon(&world.engine, at(15.5));
        leader.abandon(&world.engine, at(16.0));
    }
}

#[test]
fn an_answer_that_was_never_fresh_is_asked_about_by_one_while_the_others_have_it() {
    let mut world = World::with("stale_while_revalidate = \"10s\"");
    let never_fresh: Pairs<'_> = &[("cache-control", "max-age=0"), ("etag", "\"one\"")];
    world.call(Ask::get(&[]), ok(never_fresh), 0.0);
    for (begun, confirmed) in [(1.1, true), (2.3, false), (3.5, true)] {
        let mut calls: Vec<Call> = (0..10).map(|_| world.begin(&Ask::get(&[]), begun)).collect();
        assert!(is_send(&calls[0].step(&world.engine, at(begun))), "somebody has to ask");
        for call in &mut calls[1..] {
            let Step::Respond(stored) = call.step(&world.engine, at(begun)) else { panic!() };
            assert_eq!(kept(&stored).why(), "farcall; hit; ttl=-1; detail=stale-while-revalidate");
        }
        calls[0].answer(&world.engine, if confirmed { 304 } else { 200 }, &never_fresh, at(begun + 0.1));
        let _ = calls[0].step(&world.engine, at(begun + 0.1));
        calls[0].read(b"first");
        calls[0].end(&world.engine, at(begun + 0.1));
    }
}

#[test]
fn who_wants_an_answer_of_his_own_waits_for_nobody() {
    let mut world = World::with("");
    let mut calls = begin(&mut world, 1);
    assert_eq!(steps(&world, &mut calls, at(0.0)), (1, 0));
    let own = world.call(Ask::get(&[("cache-control", "no-cache")]), ok(FRESH), 0.0);
    assert!(matches!(own, Came::Sent { .. }));
    let mut world = World::with("coalesce = \"0s\"");
    let mut calls = begin(&mut world, 5);
    assert_eq!(steps(&world, &mut calls, at(0.0)), (5, 0));
}

#[test]
fn threads_that_ask_the_same_at_once_ask_once_and_all_get_it() {
    let world = World::with("");
    let engine = &world.engine;
    // It stands still: however long a thread is kept from running, nobody waits in vain.
    let now = || at(0.0);
    let sent = std::sync::atomic::AtomicU32::new(0);
    let one = |seed: u64| {
        let head = farcall::Head::new("GET", "https://api.example.com/v1/rates")
            .body(Some(0), true)
            .headers(&[("accept", "*/*")] as &[(&str, &str); 1])
            .caches(true);
        let mut call = engine.begin(&head, now(), seed);
        loop {
            match call.step(engine, now()) {
                Step::Send(_) => {
                    let number = sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if number < 3 {
                        // The first ones are cancelled in all ways.
                        match number {
                            0 => call.abandon(engine, now()),
                            // After one that hung each would ask for itself.
                            1 => call.failed(ErrorType::Reset),
                            _ => call.answer(engine, 200, &FRESH, now()),
                        }
                        call.abandon(engine, now());
                        return None;
                    }
                    call.answer(engine, 200, &FRESH, now());
                    call.read(b"once");
                    call.end(engine, now());
                    return Some("once".to_owned());
                }
                Step::Wait(_) => std::thread::yield_now(),
                Step::Respond(stored) => return Some(kept(&stored).body().to_owned()),
                step => panic!("{step:?}"),
            }
        }
    };
    let got: Vec<Option<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8_u64)
            .map(|thread| {
                scope.spawn(move || (0..125).map(|n| one(thread * 1_000 + n + 1)).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(sent.into_inner(), 4);
    assert_eq!(got.iter().filter(|got| got.as_deref() == Some("once")).count(), 997);
}

#[test]
fn who_went_by_itself_is_not_woken_for_the_answer_that_it_waited_for() {
    let mut world =
        World::with("[[resilience]]\nmatch = { vendor = \"*\" }\nattempts = 2\nbackoff = \"10s..20s\"\n");
    let mut leader = world.begin(&Ask::get(&[]), 0.0);
    assert!(is_send(&leader.step(&world.engine, at(0.0))));
    let mut call = world.begin(&Ask { patience: Some(1.0), ..Ask::get(&[]) }, 0.0);
    assert!(matches!(call.step(&world.engine, at(0.0)), Step::Wait(_)));
    let woken = call.wake(&world.engine, Waker::noop(), at(0.1));
    assert!(woken.is_some_and(|until| until > at(0.1) && until <= at(1.0)), "{woken:?}");
    assert!(is_send(&call.step(&world.engine, at(1.0))));
    call.failed(ErrorType::Reset);
    assert!(matches!(call.step(&world.engine, at(1.1)), Step::Wait(until) if until > at(5.0)));
    assert_eq!(call.wake(&world.engine, Waker::noop(), at(1.1)), None);
    call.abandon(&world.engine, at(1.2));
    leader.abandon(&world.engine, at(1.2));
}
