//! What there is when the vendor is down, or not to be asked; and what rules say instead of headers.

use crate::support::{Ask, Came, Pairs, World, at, kept, ok, say};
use farcall::{Config, Outcome, Step};

const SHORT: Pairs<'_> = &[("cache-control", "max-age=5")];

#[test]
fn a_vendor_that_fails_is_stood_in_for_as_long_as_a_rule_says() {
    for status in [500, 502, 503, 504, 520, 522, 526, 529, 429] {
        let mut world = World::with("stale_if_error = \"1h\"");
        world.call(Ask::get(&[]), ok(SHORT), 0.0);
        let came = world.call(Ask::get(&[]), say(status, &[], "sorry"), 60.0);
        assert_eq!(came.body(), "first", "{status}");
        let why = format!("farcall; fwd=stale; fwd-status={status}; ttl=-55; detail=stale-if-error");
        assert_eq!(came.why(), why);
        let late = world.call(Ask::get(&[]), say(status, &[], "sorry"), 3_606.0);
        assert_eq!(late, Came::Sent { status, condition: vec![] });
    }
    let mut world = World::with("stale_if_error = \"1h\"");
    world.call(Ask::get(&[]), ok(SHORT), 0.0);
    assert_eq!(world.fails(Ask::get(&[]), 60.0).body(), "first");
    assert_eq!(world.fails(Ask::get(&[]), 4_000.0), Came::Failed);
    for status in [404, 501] {
        let answered = world.call(Ask::get(&[]), say(status, &[], "gone"), 70.0);
        assert_eq!(answered, Came::Sent { status, condition: vec![] }, "that is an answer, and no failure");
    }
    let outcomes: Vec<_> =
        world.drain().rows.iter().map(|row| (row.outcome, row.status, row.sums.calls)).collect();
    assert!(outcomes.contains(&(Outcome::Stale, 200, 1)), "{outcomes:?}");
}

#[test]
fn a_fault_is_stood_in_for_like_the_vendors_own_failure_and_what_is_fresh_meets_none() {
    let cache = "[[cache]]\nname = \"c\"\nmatch = {}\nstale_if_error = \"1h\"\n";
    let mut world = World::of(cache);
    world.call(Ask::get(&[]), ok(SHORT), 0.0);
    let fault = "[[fault]]\nmatch = {}\nshare = \"100%\"\nstatus = 503\nexpires = \"2099-01-01T00:00:00Z\"\n";
    let rules = Config::parse("farcall.toml", &format!("allow_faults = true\n{fault}{cache}")).unwrap();
    world.engine.reload(&rules);
    assert!(world.call(Ask::get(&[]), ok(&[]), 1.0).is_hit(), "the vendor is not asked");
    assert!(world.open(Ask::get(&[]), ok(&[]), 1.0).is_hit());
    let came = world.call(Ask::get(&[]), ok(&[]), 60.0);
    assert_eq!(came.body(), "first");
    assert_eq!(came.why(), "farcall; fwd=stale; fwd-status=503; ttl=-55; detail=stale-if-error");
    let rows = world.drain().rows;
    let sums = rows.iter().find(|row| row.outcome == Outcome::Stale).unwrap().sums;
    assert_eq!((sums.calls, sums.attempts), (1, 0), "nothing was sent");
}

#[test]
fn headers_alone_stand_in_for_errors_as_rfc_5861_says() {
    let headers: Pairs<'_> = &[("cache-control", "max-age=5, stale-if-error=100")];
    for (status, after, hit) in
        [(503, 104.0, true), (503, 106.0, false), (429, 10.0, false), (529, 10.0, false), (404, 10.0, false)]
    {
        let mut world = World::with("");
        world.call(Ask::get(&[]), ok(headers), 0.0);
        assert_eq!(world.call(Ask::get(&[]), say(status, &[], ""), after).is_hit(), hit, "{status} {after}");
    }
    for control in ["max-age=5, stale-if-error=100, must-revalidate", "no-cache, stale-if-error=100"] {
        let mut world = World::with("stale_if_error = \"1h\"");
        world.call(Ask::get(&[]), ok(&[("cache-control", control), ("etag", "\"a\"")]), 0.0);
        assert!(!world.call(Ask::get(&[]), say(503, &[], ""), 10.0).is_hit(), "{control}");
        let mut world = World::with("stale_if_error = \"1h\"\nignore = [\"must-revalidate\"]");
        world.call(Ask::get(&[]), ok(&[("cache-control", control), ("etag", "\"a\"")]), 0.0);
        assert!(world.call(Ask::get(&[]), say(503, &[], ""), 10.0).is_hit(), "{control}, ignored");
    }
}

#[test]
fn a_spent_budget_and_an_open_breaker_are_stood_in_for_and_a_policy_is_not() {
    let budget = "[[cache]]\nname = \"c\"\nmatch = {}\nstale_if_error = \"1h\"\n[[budget]]\nname = \"b\"\nmatch = {}\nlimit = \"1 requests / day\"\nover = \"refuse\"\n";
    let mut world = World::of(budget);
    world.call(Ask::get(&[]), ok(SHORT), 0.0);
    let came = world.call(Ask::get(&[]), ok(&[]), 10.0);
    assert_eq!(came.why(), "farcall; fwd=stale; ttl=-5; detail=budget");
    let other = Ask::get(&[]).url("https://api.example.com/other");
    assert!(matches!(world.call(other, ok(&[]), 10.0), Came::Refused(_)));
    let rows = world.drain().rows;
    let sums = rows.iter().find(|row| row.outcome == Outcome::Stale).unwrap().sums;
    assert_eq!((sums.calls, sums.saved_bytes), (1, 5));
    assert_eq!((sums.saved_requests, sums.saved_cost), (0, 0), "a call that would not have been made");

    let breaker = "[[cache]]\nname = \"c\"\nmatch = {}\nstale_if_error = \"1h\"\n[[resilience]]\nmatch = {}\nbreaker = { consecutive = 2, open = \"1h\" }\n";
    let mut world = World::of(breaker);
    world.call(Ask::get(&[]), ok(SHORT), 0.0);
    for _ in 0..2 {
        assert_eq!(world.fails(Ask::get(&[]), 10.0).body(), "first");
    }
    let came = world.call(Ask::get(&[]), ok(&[]), 11.0);
    assert_eq!(came.why(), "farcall; fwd=stale; ttl=-6; detail=breaker");

    let policy = "[[cache]]\nname = \"c\"\nmatch = {}\nttl = \"1h\"\nstale_if_error = \"1h\"\n[[policy]]\nmatch = { customer = \"x\" }\nverdict = \"deny\"\n";
    let mut world = World::of(policy);
    assert!(matches!(world.call(Ask::get(&[]).customer("x"), ok(&[]), 1.0), Came::Refused(_)));
}

#[test]
fn a_call_whose_deadline_passes_while_it_waits_for_another_is_stood_in_for() {
    let rules = "[[cache]]\nname = \"c\"\nmatch = {}\nstale_if_error = \"1h\"\n[[resilience]]\nmatch = {}\ndeadline = \"2s\"\n";
    let mut world = World::of(rules);
    world.call(Ask::get(&[]), ok(SHORT), 0.0);
    let mut leader = world.begin(&Ask::get(&[]), 10.0);
    assert!(matches!(leader.step(&world.engine, at(10.0)), Step::Send(_)), "and its vendor hangs");
    let mut waits = world.begin(&Ask::get(&[]), 10.1);
    assert!(matches!(waits.step(&world.engine, at(10.1)), Step::Wait(_)));
    let Step::Respond(stored) = waits.step(&world.engine, at(12.2)) else { panic!("there is an answer") };
    let came = kept(&stored);
    assert_eq!((came.body(), came.why()), ("first", "farcall; fwd=stale; ttl=-7; detail=deadline"));
    leader.abandon(&world.engine, at(13.0));
    let rows = world.drain().rows;
    assert!(rows.iter().any(|row| row.outcome == Outcome::Stale && row.sums.calls == 1));
}

#[test]
fn an_error_is_never_what_stands_in_for_a_vendor_that_fails() {
    let keys = "stale_if_error = \"1h\"\nstale_while_revalidate = \"1h\"";
    for status in [401, 403, 404, 409, 429, 500, 503] {
        for control in ["private", "public", "max-age=0", "max-age=5", "max-age=5, stale-if-error=600"] {
            let mut world = World::with(keys);
            let headers: Pairs<'_> = &[("cache-control", control), ("etag", "\"a\"")];
            world.call(Ask::get(&[]), say(status, headers, "sorry"), 0.0);
            let fresh = world.call(Ask::get(&[]), say(status, headers, "sorry"), 4.0);
            assert_eq!(
                fresh.is_hit(),
                control.starts_with("max-age=5"),
                "{status} {control}: while it holds"
            );
            assert_eq!(world.fails(Ask::get(&[]), 10.0), Came::Failed, "{status} {control}");
            let mut leader = world.begin(&Ask::get(&[]), 10.0);
            assert!(matches!(leader.step(&world.engine, at(10.0)), Step::Send(_)));
            let mut beside = world.begin(&Ask::get(&[]), 10.0);
            assert!(matches!(beside.step(&world.engine, at(10.0)), Step::Wait(_)), "{status} {control}");
        }
    }
    // That there is nothing is an answer where a rule takes it for one.
    let mut world = World::with("negative_ttl = \"5s\"\nstale_if_error = \"1h\"");
    world.call(Ask::get(&[]), say(404, &[], "none"), 0.0);
    assert_eq!(world.fails(Ask::get(&[]), 10.0).body(), "none");
}

#[test]
fn what_was_made_useless_while_the_vendor_was_asked_stands_in_for_nothing() {
    let keys = "stale_if_error = \"1h\"\nstale_while_revalidate = \"1h\"\n";
    for purges in [true, false] {
        let mut world = World::with(keys);
        world.call(Ask::get(&[]), ok(SHORT), 0.0);
        let elsewhere = Ask::get(&[]).url("https://api.example.com/other");
        world.call(elsewhere, ok(SHORT), 0.0);
        let mut leader = world.begin(&Ask::get(&[]), 10.0);
        assert!(matches!(leader.step(&world.engine, at(10.0)), Step::Send(_)));
        match purges {
            true => {
                let all = farcall::matcher::Matcher::new([("endpoint", "GET /v1/rates")]).unwrap();
                assert_eq!(world.engine.purge_cache(&all, at(10.5)), 1);
            }
            false => _ = world.call(Ask::get(&[]).method("DELETE"), say(204, &[], ""), 10.5),
        }
        leader.failed(farcall::ErrorType::Connect);
        let step = leader.step(&world.engine, at(11.0));
        assert!(!matches!(step, Step::Respond(_)), "purges: {purges}: {step:?}");
        leader.end(&world.engine, at(13.0));
        assert_eq!(world.fails(elsewhere, 14.0).body(), "first", "the rest stands in as before");
    }
    // Who waits has looked before, and looks again.
    let mut world = World::with("stale_if_error = \"1h\"");
    world.call(Ask::get(&[]), ok(SHORT), 0.0);
    let mut leader = world.begin(&Ask::get(&[]), 10.0);
    assert!(matches!(leader.step(&world.engine, at(10.0)), Step::Send(_)));
    let mut waits = world.begin(&Ask::get(&[]), 10.0);
    assert!(matches!(waits.step(&world.engine, at(10.0)), Step::Wait(_)));
    world.call(Ask::get(&[]).method("DELETE"), say(204, &[], ""), 10.5);
    leader.abandon(&world.engine, at(11.0));
    let Step::Send(attempt) = waits.step(&world.engine, at(11.0)) else { panic!("it is its turn") };
    assert!(attempt.condition.is_empty(), "nor is it asked about");
    waits.failed(farcall::ErrorType::Connect);
    assert!(matches!(waits.step(&world.engine, at(11.0)), Step::Settled));
}

#[test]
fn what_is_kept_costs_no_budget_and_is_booked_as_saved() {
    let text = "[[vendor]]\nname = \"rates\"\nhosts = [\"api.example.com\"]\n[[cache]]\nname = \"c\"\nmatch = {}\nttl = \"1h\"\n[[price]]\nvendor = \"rates\"\ncall = \"10 USD / 1k calls\"\n[[budget]]\nname = \"b\"\nmatch = {}\nlimit = \"0.02 USD / day\"\nover = \"refuse\"\n";
    let mut world = World::of(text);
    let acme = || Ask::get(&[]).customer("acme");
    world.call(acme(), say(200, &[], "0123456789"), 0.0);
    for second in 1..=50 {
        assert!(world.call(acme(), ok(&[]), f64::from(second)).is_hit());
    }
    let rows = world.drain().rows;
    let row = rows.iter().find(|row| row.outcome == Outcome::Cached).unwrap();
    assert_eq!((row.customer.as_ref(), row.status), ("acme", 200));
    let sums = row.sums;
    assert_eq!((sums.calls, sums.attempts, sums.bytes_in, sums.cost, sums.cost_unknown), (50, 0, 0, 0, 0));
    assert_eq!((sums.saved_bytes, sums.saved_cost), (500, 500_000_000));
    assert_eq!((sums.saved_requests, sums.saved_tokens), (50, 0));
}

#[test]
fn rules_say_what_headers_do_not() {
    let poor: Pairs<'_> = &[("cache-control", "no-cache, max-age=0"), ("expires", "0")];
    let mut world = World::with("ttl = \"30s\"");
    world.call(Ask::get(&[]), ok(poor), 0.0);
    assert_eq!(world.call(Ask::get(&[]), ok(&[]), 29.0).why(), "farcall; hit; ttl=1");
    assert!(!world.call(Ask::get(&[]), ok(&[]), 31.0).is_hit());
    let never: Pairs<'_> = &[("cache-control", "no-store, no-cache, must-revalidate, max-age=0")];
    let mut world = World::with("ttl = \"30s\"");
    world.call(Ask::get(&[]), ok(never), 0.0);
    assert!(!world.call(Ask::get(&[]), ok(&[]), 1.0).is_hit(), "a ttl does not overrule no-store");
    let mut world = World::with("ttl = \"30s\"\nignore = [\"no-store\"]");
    world.call(Ask::get(&[]), ok(never), 0.0);
    assert!(world.call(Ask::get(&[]), ok(&[]), 1.0).is_hit());
    assert!(
        !world.call(Ask::get(&[("cache-control", "no-store")]), ok(&[]), 1.0).is_hit(),
        "nor the request's own"
    );
}

#[test]
fn a_ttl_keeps_no_errors_and_a_negative_ttl_those_that_say_there_is_nothing() {
    let mut world = World::with("ttl = \"30s\"");
    for status in [404, 410, 401, 403, 500, 503] {
        world.call(Ask::get(&[]), say(status, &[], ""), 0.0);
        assert!(!world.call(Ask::get(&[]), say(status, &[], ""), 1.0).is_hit(), "{status}");
    }
    for (status, hit) in [(404, true), (410, true), (401, false), (403, false), (500, false)] {
        let mut world = World::with("ttl = \"30s\"\nnegative_ttl = \"5s\"");
        world.call(Ask::get(&[]), say(status, &[], ""), 0.0);
        let never: Pairs<'_> = &[("cache-control", "no-store")];
        assert_eq!(world.call(Ask::get(&[]), ok(never), 4.0).is_hit(), hit, "{status}");
        assert!(!world.call(Ask::get(&[]), ok(never), 6.0).is_hit(), "{status}");
    }
}

#[test]
fn what_is_too_large_is_not_kept_and_not_gathered() {
    let mut world = World::with("ttl = \"1h\"\nmax_bytes = \"8B\"");
    let ask = Ask::get(&[]);
    world.call(ask, say(200, &[("content-length", "9")], "123456789"), 0.0);
    assert!(!world.call(ask, say(200, &[], "123456789"), 1.0).is_hit(), "its length was told");
    assert!(!world.call(ask, say(200, &[], "12345678"), 2.0).is_hit(), "its length showed");
    assert_eq!(world.call(ask, ok(&[]), 3.0).body(), "12345678");
    let mut call = world.begin(&ask.url("https://api.example.com/big"), 0.0);
    assert!(matches!(call.step(&world.engine, crate::support::at(0.0)), farcall::Step::Send(_)));
    call.answer(&world.engine, 200, &[("content-length", "9")], crate::support::at(0.0));
    assert!(!call.wants_body());
    call.abandon(&world.engine, crate::support::at(0.0));
}

#[test]
fn a_purge_forgets_what_matches_and_what_is_under_way() {
    let mut world = World::with("ttl = \"1h\"");
    let (a, b) = (Ask::get(&[]).customer("a"), Ask::get(&[]).customer("b"));
    world.call(a, ok(&[]), 0.0);
    world.call(b, ok(&[]), 0.0);
    let late = Ask::get(&[]).url("https://api.example.com/late");
    let mut slow = world.begin(&late, 0.5);
    assert!(matches!(slow.step(&world.engine, crate::support::at(0.5)), farcall::Step::Send(_)));
    let which = farcall::matcher::Matcher::new([("customer", "a")]).unwrap();
    assert_eq!(world.engine.purge_cache(&which, crate::support::at(1.0)), 1);
    slow.answer(&world.engine, 200, &[("x", "y")], crate::support::at(1.5));
    slow.end(&world.engine, crate::support::at(1.5));
    assert!(!world.call(a, ok(&[]), 2.0).is_hit());
    assert!(world.call(b, ok(&[]), 2.0).is_hit());
    assert!(!world.call(late, ok(&[]), 2.0).is_hit());
}

#[test]
fn an_adapter_that_cannot_hand_out_what_is_kept_is_counted() {
    let world = World::with("ttl = \"1h\"");
    let head = farcall::Head::new("GET", "https://api.example.com/").body(Some(0), true);
    let mut call = world.engine.begin(&head, crate::support::at(0.0), 1);
    assert!(matches!(call.step(&world.engine, crate::support::at(0.0)), farcall::Step::Send(_)));
    call.abandon(&world.engine, crate::support::at(0.0));
    assert_eq!(world.engine.counters().uncached_calls, 1);
}

#[test]
fn what_was_said_of_one_call_is_not_held_against_the_next_one() {
    let mut world = World::of("[[cache]]\nmatch = { vendor = \"stripe\" }\nttl = \"60s\"\n");
    let mut elsewhere = world.begin(&Ask::get(&[]), 0.0);
    elsewhere.uncacheable();
    assert!(matches!(elsewhere.step(&world.engine, at(0.0)), farcall::Step::Send(_)));
    elsewhere.answer(&world.engine, 200, &[("date", "x")].as_slice(), at(0.0));
    elsewhere.end(&world.engine, at(0.0));
    let ask = Ask::get(&[]).url("https://api.stripe.com/v1/prices");
    world.call(ask, ok(&[]), 1.0);
    assert_eq!(world.call(ask, say(500, &[], ""), 2.0).body(), "first");
}

#[test]
fn what_stands_in_for_a_failure_costs_nothing_and_hides_no_canary_that_fails() {
    let mut world = World::of(
        r#"
        [[price]]
        vendor = "example.com"
        call = "0.01 USD / call"

        [[cache]]
        match = { vendor = "example.com" }
        stale_if_error = "1h"

        [[rollout]]
        name = "new"
        match = { vendor = "example.com" }
        by = "call"
        canary = { steps = ["50%", "100%"] }
        variant = { headers = { "api-version" = "2" } }
        "#,
    );
    world.call(Ask::get(&[]), ok(SHORT), 0.0);
    let mut stale = 0;
    for n in 1..200_u32 {
        let seconds = 10.0 * f64::from(n);
        let (mut call, now) = (world.begin(&Ask::get(&[]), seconds), at(seconds));
        let Step::Send(attempt) = call.step(&world.engine, now) else { panic!("what is kept is stale") };
        call.answer(&world.engine, if attempt.changes.is_some() { 503 } else { 200 }, &SHORT, now);
        match call.step(&world.engine, now) {
            Step::Settled => call.end(&world.engine, now),
            Step::Respond(kept) => {
                assert_eq!(kept.status, 200);
                stale += 1;
            }
            step => panic!("{step:?}"),
        }
    }
    assert!((1..60).contains(&stale), "{stale} calls took the broken side before it was rolled back");
    let paid: i64 = world.drain().rows.iter().map(|row| row.sums.cost).sum();
    assert_eq!(paid, (200 - stale) * 10_000_000, "a 503 is free, whatever the application got for it");
}
