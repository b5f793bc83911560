//! RFC 9111, section by section.

use crate::support::{Ask, Came, DATE, Pairs, Say, World, date, ok, say};
use farcall::{Outcome, RefusedBy};

/// An answer, and whether the same request is answered from the cache so many seconds later.
struct Row {
    section: &'static str,
    /// Of both requests.
    request: Pairs<'static>,
    answer: Say<'static>,
    after: f64,
    hit: bool,
}

const fn row(section: &'static str, answer: Say<'static>, after: f64, hit: bool) -> Row {
    Row { section, request: &[], answer, after, hit }
}

const fn asked(
    section: &'static str,
    request: Pairs<'static>,
    answer: Say<'static>,
    after: f64,
    hit: bool,
) -> Row {
    Row { section, request, answer, after, hit }
}

const fn with(headers: Pairs<'static>) -> Say<'static> {
    Say { status: 200, headers, body: "first" }
}

const fn of(status: u16, headers: Pairs<'static>) -> Say<'static> {
    Say { status, headers, body: "first" }
}

const EXPIRES_IN_A_MINUTE: (&str, &str) = ("expires", "Sat, 21 Nov 2026 10:01:00 GMT");
const MODIFIED_TEN_DAYS_AGO: (&str, &str) = ("last-modified", "Wed, 11 Nov 2026 10:00:00 GMT");

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // 3: storing.
    row("3: nothing said of a 200 without validator", with(&[]), 1.0, false),
    row("3: final statuses with max-age", of(418, &[("cache-control", "max-age=60")]), 1.0, true),
    row("3: no final status", of(102, &[("cache-control", "max-age=60")]), 1.0, false),
    row("3: no-store", with(&[("cache-control", "max-age=60, no-store")]), 1.0, false),
    row("3: private in a private cache", with(&[("cache-control", "private, max-age=60")]), 1.0, true),
    row("3: a 500 without a word", of(500, &[MODIFIED_TEN_DAYS_AGO]), 1.0, false),
    row("3.3: a part is left alone", of(206, &[("cache-control", "max-age=60"), ("content-range", "bytes 0-4/10")]), 1.0, false),
    row("3.3: one that broke off", with(&[("cache-control", "max-age=60"), ("content-length", "50")]), 1.0, false),
    row("3.5: Authorization in a private cache", with(&[("cache-control", "max-age=60")]), 1.0, true),
    asked("3: a range is left alone", &[("range", "bytes=0-1")], with(&[("cache-control", "max-age=60")]), 1.0, false),
    // 4.1: Vary.
    row("4.1: Vary: *", with(&[("cache-control", "max-age=60"), ("vary", "*")]), 1.0, false),
    asked("4.1: the same selecting header", &[("accept-language", "de")], with(&[("cache-control", "max-age=60"), ("vary", "Accept-Language")]), 1.0, true),
    // 4.2: freshness.
    row("4.2: before max-age", with(&[("cache-control", "max-age=60")]), 59.0, true),
    row("4.2: at max-age", with(&[("cache-control", "max-age=60")]), 60.0, false),
    row("4.2.1: max-age before Expires", with(&[("cache-control", "max-age=10"), EXPIRES_IN_A_MINUTE, DATE]), 11.0, false),
    row("4.2.1: s-maxage is for shared caches", with(&[("cache-control", "max-age=60, s-maxage=1")]), 11.0, true),
    row("4.2.1: Expires", with(&[EXPIRES_IN_A_MINUTE, DATE]), 59.0, true),
    row("4.2.1: Expires is over", with(&[EXPIRES_IN_A_MINUTE, DATE]), 61.0, false),
    row("4.2.1: max-age that is no number", with(&[("cache-control", "max-age=soon")]), 0.5, false),
    row("4.2.1: two max-age", with(&[("cache-control", "max-age=60"), ("cache-control", "max-age=5")]), 6.0, false),
    row("4.2.2: a guess from Last-Modified", with(&[DATE, MODIFIED_TEN_DAYS_AGO]), 86_399.0, true),
    row("4.2.2: a guess of a tenth, at most a day", with(&[DATE, MODIFIED_TEN_DAYS_AGO]), 86_401.0, false),
    row("4.2.2: no guess for a status that is not cacheable", of(418, &[DATE, MODIFIED_TEN_DAYS_AGO]), 1.0, false),
    row("4.2.2: a guess where it is public", of(418, &[DATE, MODIFIED_TEN_DAYS_AGO, ("cache-control", "public")]), 1.0, true),
    row("4.2.3: Age counts", with(&[("cache-control", "max-age=60"), ("age", "50")]), 11.0, false),
    row("4.2.3: and is in time", with(&[("cache-control", "max-age=60"), ("age", "50")]), 9.0, true),
    row("4.2.3: an old Date counts", with(&[("cache-control", "max-age=60"), ("date", "Sat, 21 Nov 2026 09:59:10 GMT")]), 11.0, false),
    row("4.2.4: no stale answer by itself", with(&[("cache-control", "max-age=5")]), 6.0, false),
    // 5.2.1: what requests say.
    asked("5.2.1.1: max-age", &[("cache-control", "max-age=5")], with(&[("cache-control", "max-age=60")]), 6.0, false),
    asked("5.2.1.1: max-age in time", &[("cache-control", "max-age=5")], with(&[("cache-control", "max-age=60")]), 4.0, true),
    asked("5.2.1.2: max-stale", &[("cache-control", "max-stale=10")], with(&[("cache-control", "max-age=5")]), 14.0, true),
    asked("5.2.1.2: too stale", &[("cache-control", "max-stale=10")], with(&[("cache-control", "max-age=5")]), 16.0, false),
    asked("5.2.1.2: as stale as you like", &[("cache-control", "max-stale")], with(&[("cache-control", "max-age=5")]), 9_999.0, true),
    asked("5.2.1.2: but not where that is forbidden", &[("cache-control", "max-stale")], with(&[("cache-control", "max-age=5, must-revalidate")]), 6.0, false),
    asked("5.2.1.3: min-fresh", &[("cache-control", "min-fresh=20")], with(&[("cache-control", "max-age=60")]), 45.0, false),
    asked("5.2.1.3: min-fresh in time", &[("cache-control", "min-fresh=20")], with(&[("cache-control", "max-age=60")]), 35.0, true),
    asked("5.2.1.4: no-cache", &[("cache-control", "no-cache")], with(&[("cache-control", "max-age=60")]), 1.0, false),
    asked("5.2.1.5: no-store", &[("cache-control", "no-store")], with(&[("cache-control", "max-age=60")]), 1.0, false),
    asked("5.4: Pragma without Cache-Control", &[("pragma", "no-cache")], with(&[("cache-control", "max-age=60")]), 1.0, false),
    asked("5.4: Pragma with Cache-Control", &[("pragma", "no-cache"), ("cache-control", "max-age=50")], with(&[("cache-control", "max-age=60")]), 1.0, true),
    // 5.2.2: what answers say.
    row("5.2.2.3: must-understand is understood", with(&[("cache-control", "max-age=60, must-understand, no-store")]), 1.0, true),
    row("5.2.2.3: must-understand is not", of(299, &[("cache-control", "max-age=60, must-understand, no-store")]), 1.0, false),
    row("5.2.2.4: no-cache", with(&[("cache-control", "no-cache, max-age=60"), ("etag", "\"a\"")]), 1.0, false),
    row("5.3: an Expires that is no date", with(&[("expires", "0"), DATE]), 0.5, false),
    // Of our own: what has no end is not kept.
    row("text/event-stream", with(&[("cache-control", "max-age=60"), ("content-type", "text/event-stream; charset=utf-8")]), 1.0, false),
];

#[test]
fn a_second_request_is_answered_as_each_section_says() {
    for Row { section, request, answer, after, hit } in ROWS {
        let mut world = World::with("");
        let first = world.call(Ask::get(request), *answer, 0.0);
        assert!(!first.is_hit(), "{section}: {first:?}");
        let second = world.call(Ask::get(request), say(200, &[], "second"), *after);
        assert_eq!(second.is_hit(), *hit, "{section}: {second:?}");
        if *hit {
            assert_eq!(second.body(), "first", "{section}");
        }
    }
}

#[test]
fn what_is_kept_comes_with_its_age_and_why() {
    let mut world = World::with("");
    world.call(Ask::get(&[]), ok(&[("cache-control", "max-age=60"), ("age", "7"), ("x-id", "1")]), 0.0);
    let Came::Kept { status, why, age, body } = world.call(Ask::get(&[]), ok(&[]), 10.0) else { panic!() };
    assert_eq!(
        (status, why.as_str(), age.as_deref(), body.as_str()),
        (200, "farcall; hit; ttl=43", Some("17"), "first")
    );
}

#[test]
fn requests_that_differ_in_a_header_of_vary_get_their_own_answer() {
    let mut world = World::with("");
    let answer = |body| Say {
        body,
        ..with(&[("cache-control", "max-age=60"), ("vary", "accept-language, x-region"), ("vary", "Accept")])
    };
    let de: Pairs<'_> = &[("accept-language", "de"), ("x-region", "eu")];
    let en: Pairs<'_> = &[("accept-language", "en"), ("x-region", "eu")];
    world.call(Ask::get(de), answer("deutsch"), 0.0);
    assert!(!world.call(Ask::get(en), answer("english"), 1.0).is_hit());
    assert_eq!(world.call(Ask::get(de), ok(&[]), 2.0).body(), "deutsch");
    assert_eq!(world.call(Ask::get(en), ok(&[]), 2.0).body(), "english");
    assert!(
        !world.call(Ask::get(&[("accept-language", "de"), ("x-region", "us")]), answer("us"), 3.0).is_hit()
    );
    assert!(!world.call(Ask::get(&[("x-region", "eu")]), answer("none"), 3.0).is_hit());
}

#[test]
fn a_stale_answer_is_asked_about_by_its_validators_and_304_makes_it_fresh() {
    let mut world = World::with("");
    let modified = date(-50);
    let first =
        [("cache-control", "max-age=5"), ("etag", "\"v1\""), ("last-modified", &modified), ("x-n", "1")];
    world.call(Ask::get(&[]), ok(&first), 0.0);
    // 4.3.1, 4.3.4, 3.2
    let not_modified = say(
        304,
        &[("cache-control", "max-age=30"), ("etag", "\"v1\""), ("x-n", "2"), ("content-length", "0")],
        "",
    );
    let mut call = world.begin(&Ask::get(&[]), 10.0);
    let farcall::Step::Send(attempt) = call.step(&world.engine, crate::support::at(10.0)) else { panic!() };
    assert_eq!(
        *attempt.condition,
        [("if-none-match", "\"v1\"".to_owned()), ("if-modified-since", modified.clone())]
    );
    call.answer(&world.engine, 304, &not_modified.headers, crate::support::at(10.0));
    let farcall::Step::Respond(stored) = call.step(&world.engine, crate::support::at(10.0)) else { panic!() };
    assert_eq!((stored.status, &stored.body[..]), (200, &b"first"[..]));
    assert_eq!(stored.headers["x-n"], "2");
    assert!(!stored.headers.contains_key("content-length"), "that of the 304 is of no use");
    assert_eq!(stored.headers["cache-status"], "farcall; fwd=stale; fwd-status=304; stored");
    assert!(call.is_settled());
    let again = world.call(Ask::get(&[]), ok(&[]), 39.0);
    assert_eq!((again.why(), again.body()), ("farcall; hit; ttl=1", "first"));
}

#[test]
fn a_304_without_a_date_is_as_old_as_its_receipt() {
    let mut world = World::with("");
    world.call(Ask::get(&[]), ok(&[("cache-control", "max-age=60"), ("etag", "\"v1\""), DATE]), 0.0);
    assert!(world.call(Ask::get(&[]), say(304, &[("etag", "\"v1\"")], ""), 3_600.0).is_hit());
    let again = world.call(Ask::get(&[]), ok(&[]), 3_601.0);
    assert_eq!(again.why(), "farcall; hit; ttl=59", "it is not an hour old, as its first date would make it");
}

#[test]
fn a_weak_validator_of_a_304_confirms_what_has_the_same() {
    for (ours, theirs, confirms) in [
        ("W/\"v1\"", "W/\"v1\"", true),
        ("\"v1\"", "W/\"v1\"", true),
        ("W/\"v1\"", "W/\"v2\"", false),
        ("\"v1\"", "W/\"v2\"", false),
        ("W/\"v1\"", "\"v1\"", false),
    ] {
        let mut world = World::with("");
        world.call(Ask::get(&[]), ok(&[("cache-control", "max-age=5"), ("etag", ours)]), 0.0);
        let mut call = world.begin(&Ask::get(&[]), 10.0);
        let now = crate::support::at(10.0);
        assert!(matches!(call.step(&world.engine, now), farcall::Step::Send(_)));
        call.answer(&world.engine, 304, &[("etag", theirs)], now);
        let step = call.step(&world.engine, now);
        assert_eq!(matches!(step, farcall::Step::Respond(_)), confirms, "{ours} {theirs}: {step:?}");
        call.abandon(&world.engine, now);
    }
}

#[test]
fn a_304_about_something_else_makes_the_call_ask_for_the_whole() {
    let mut world = World::with("");
    world.call(Ask::get(&[]), ok(&[("cache-control", "max-age=5"), ("etag", "\"v1\"")]), 0.0);
    let mut call = world.begin(&Ask::get(&[]), 10.0);
    let now = crate::support::at(10.0);
    let farcall::Step::Send(attempt) = call.step(&world.engine, now) else { panic!() };
    assert!(!attempt.condition.is_empty());
    call.answer(&world.engine, 304, &[("etag", "\"v2\"")], now);
    let farcall::Step::Send(attempt) = call.step(&world.engine, now) else { panic!() };
    assert_eq!((attempt.number, attempt.condition.len()), (2, 0));
    call.answer(&world.engine, 200, &[("etag", "\"v2\""), ("cache-control", "max-age=5")], now);
    assert!(matches!(call.step(&world.engine, now), farcall::Step::Settled));
    call.read(b"second");
    call.end(&world.engine, now);
    assert_eq!(world.call(Ask::get(&[]), ok(&[]), 11.0).body(), "second");
}

#[test]
fn who_asks_for_the_whole_after_a_304_asks_the_quota_again_and_is_no_304_if_that_fails() {
    let quota =
        "[[quota]]\nname = \"q\"\nmatch = {}\nlimit = \"2 requests / 100s\"\nburst = 2\nmax_wait = \"0s\"\n";
    let mut world = World::of(&format!("{quota}[[cache]]\nname = \"all\"\nmatch = {{}}\n"));
    world.call(Ask::get(&[]), ok(&[("cache-control", "max-age=5"), ("etag", "\"v1\"")]), 0.0);
    let mut call = world.begin(&Ask::get(&[]), 10.0);
    let now = crate::support::at(10.0);
    assert!(matches!(call.step(&world.engine, now), farcall::Step::Send(_)));
    call.answer(&world.engine, 304, &[("etag", "\"v2\"")], now);
    // The burst of two is used up by now: one came back in each 50 s.
    let farcall::Step::Refuse(refusal) = call.step(&world.engine, now) else { panic!() };
    assert_eq!(&*refusal.rule, "q");
    assert_eq!(world.engine.drain(now).rows.iter().filter(|row| row.status == 304).count(), 0);
}

#[test]
fn whoever_asks_with_a_condition_of_his_own_is_left_alone() {
    let mut world = World::with("");
    world.call(Ask::get(&[]), ok(&[("cache-control", "max-age=60"), ("etag", "\"v1\"")]), 0.0);
    for condition in ["if-none-match", "if-modified-since", "if-match", "if-unmodified-since"] {
        let sent = world.call(Ask::get(&[(condition, "\"v1\"")]), say(304, &[], ""), 1.0);
        assert_eq!(sent, Came::Sent { status: 304, condition: vec![] }, "{condition}");
    }
}

#[test]
fn only_if_cached_never_reaches_the_vendor() {
    let mut world = World::with("");
    let only: Pairs<'_> = &[("cache-control", "only-if-cached")];
    let Came::Kept { status, why, age, .. } = world.call(Ask::get(only), ok(&[]), 0.0) else { panic!() };
    // RFC 9211, 2.1 and 2.2: not from the cache, and not sent on.
    assert_eq!((status, why.as_str(), age), (504, "farcall; detail=only-if-cached", None));
    let rows = world.drain().rows;
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.outcome, row.status), (Outcome::Refused(RefusedBy::Cache), 504));
    assert_eq!((row.sums.attempts, row.sums.saved_requests), (0, 0));
    world.call(Ask::get(&[]), ok(&[("cache-control", "max-age=60")]), 0.0);
    assert_eq!(world.call(Ask::get(only), ok(&[]), 1.0).body(), "first");
}

#[test]
fn what_changes_something_makes_what_is_kept_of_it_useless() {
    // 4.4
    let fresh = || ok(&[("cache-control", "max-age=600")]);
    let item = "https://api.example.com/v1/items/7";
    let list = "https://api.example.com/v1/items";
    for method in ["POST", "PUT", "PATCH", "DELETE", "MOVE"] {
        let mut world = World::with("");
        world.call(Ask::get(&[]).url(item).customer("acme"), fresh(), 0.0);
        world.call(Ask::get(&[]).url(item), fresh(), 0.0);
        world.call(Ask::get(&[]).url(list), fresh(), 0.0);
        let refused = world.call(Ask::get(&[]).url(item).method(method), say(409, &[], ""), 1.0);
        assert!(!refused.is_hit());
        assert!(
            world.call(Ask::get(&[]).url(item), ok(&[]), 2.0).is_hit(),
            "{method}: an error changes nothing"
        );
        world.call(Ask::get(&[]).url(item).method(method), say(204, &[], ""), 3.0);
        assert!(!world.call(Ask::get(&[]).url(item).customer("acme"), ok(&[]), 4.0).is_hit(), "{method}");
        assert!(!world.call(Ask::get(&[]).url(item), ok(&[]), 4.0).is_hit(), "{method}");
        assert!(world.call(Ask::get(&[]).url(list), ok(&[]), 4.0).is_hit(), "{method}: another URI");
    }
    let mut world = World::with("");
    world.call(Ask::get(&[]).url(item), fresh(), 0.0);
    world.call(Ask::get(&[]).url("https://other.example.net/v1/items/7"), fresh(), 0.0);
    let places =
        [("location", "https://other.example.net/v1/items/7"), ("content-location", "/v1/items/7?full")];
    world.call(Ask::get(&[]).url(list).method("POST"), say(201, &places, ""), 1.0);
    assert!(
        !world.call(Ask::get(&[]).url(item), ok(&[]), 2.0).is_hit(),
        "what an answer names of its own origin"
    );
    let elsewhere = world.call(Ask::get(&[]).url("https://other.example.net/v1/items/7"), ok(&[]), 2.0);
    assert!(elsewhere.is_hit(), "nobody invalidates what is not his");
}

#[test]
fn an_answer_that_was_under_way_when_something_changed_is_not_kept() {
    let mut world = World::with("");
    let ask = Ask::get(&[]);
    let mut slow = world.begin(&ask, 0.0);
    assert!(matches!(slow.step(&world.engine, crate::support::at(0.0)), farcall::Step::Send(_)));
    world.call(ask.method("PUT"), say(200, &[], ""), 1.0);
    slow.answer(&world.engine, 200, &[("cache-control", "max-age=60")], crate::support::at(2.0));
    slow.read(b"old");
    slow.end(&world.engine, crate::support::at(2.0));
    assert!(!world.call(ask, ok(&[]), 3.0).is_hit());
}

#[test]
fn headers_of_the_connection_are_not_kept() {
    // 3.1
    let mut world = World::with("");
    let headers = [
        ("cache-control", "max-age=60"),
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("x-kept", "1"),
    ];
    world.call(Ask::get(&[]), ok(&headers), 0.0);
    let mut call = world.begin(&Ask::get(&[]), 1.0);
    let farcall::Step::Respond(stored) = call.step(&world.engine, crate::support::at(1.0)) else { panic!() };
    let mut names: Vec<&str> = stored.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["age", "cache-control", "cache-status", "x-kept"]);
}

#[test]
fn a_304_of_another_place_that_the_client_was_sent_on_to_confirms_nothing() {
    let mut world = World::with("");
    world.call(Ask::get(&[]), ok(&[("cache-control", "max-age=5"), ("etag", "\"1\"")]), 0.0);
    let (mut call, now) = (world.begin(&Ask::get(&[]), 10.0), crate::support::at(10.0));
    assert!(matches!(call.step(&world.engine, now), farcall::Step::Send(_)));
    // The client followed a redirect by itself, with the condition on it.
    call.uncacheable();
    call.answer(&world.engine, 304, &[("etag", "\"1\"")], now);
    let farcall::Step::Send(attempt) = call.step(&world.engine, now) else { panic!("not confirmed") };
    assert_eq!((attempt.number, attempt.condition.len()), (2, 0));
}

#[test]
fn a_coded_body_is_for_who_can_decode_it_though_the_vendor_names_nothing() {
    for (vary, coding) in [(None, "gzip"), (Some("Origin"), "br"), (Some("accept-encoding"), "gzip")] {
        let mut world = World::with("");
        let mut headers = vec![("cache-control", "max-age=600"), ("content-encoding", coding)];
        headers.extend(vary.map(|vary| ("vary", vary)));
        let (decodes, another): (Pairs<'_>, Pairs<'_>) =
            (&[("accept-encoding", "gzip, br")], &[("accept-encoding", "identity")]);
        world.call(Ask::get(decodes), ok(&headers), 0.0);
        assert!(world.call(Ask::get(decodes), ok(&[]), 1.0).is_hit(), "{vary:?}");
        let plain: Pairs<'_> = &[("cache-control", "max-age=600")];
        assert!(!world.call(Ask::get(another), ok(plain), 2.0).is_hit(), "{vary:?}");
    }
    let mut world = World::with("");
    world.call(Ask::get(&[("accept-encoding", "gzip")]), ok(&[("cache-control", "max-age=600")]), 0.0);
    assert!(world.call(Ask::get(&[]), ok(&[]), 1.0).is_hit(), "one that is not coded is for all");
}

#[test]
fn a_vary_that_cannot_be_read_names_whatever_there_is() {
    let mut world = World::with("");
    let headers: Pairs<'_> = &[("cache-control", "max-age=600"), ("vary", "accept-language, \u{e9}")];
    world.call(Ask::get(&[("accept-language", "de")]), ok(headers), 0.0);
    assert!(!world.call(Ask::get(&[("accept-language", "en")]), ok(&[]), 1.0).is_hit());
}
