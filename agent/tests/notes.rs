//! Calls that are noted while they are under way: none is lost, none counts twice, whoever reads and whoever forks.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall::{Config, ErrorType, Target};
use farcall_agent::report::{self, Query};
use farcall_agent::{Farcall, Note, Options, Scope};
use std::sync::Arc;
use std::time::Duration;
use support::{calls, counter, number, options};

const TARGET: Target<'_> = Target::UNREADABLE;

fn target(host: &str) -> Target<'_> {
    Target::new(true, host, 443, "/v1/things/1?key=secret")
}

fn begin(farcall: &Farcall, host: &str) -> Note {
    farcall.note("GET", &target(host), None).unwrap()
}

fn call(farcall: &Farcall, host: &str) {
    let mut note = begin(farcall, host);
    note.sent(10);
    note.head(farcall, 200);
    note.body(100);
    note.end(farcall);
}

fn told(farcall: &Farcall) -> u64 {
    farcall.engine().drain(farcall.now()).rows.iter().map(|row| row.sums.calls).sum()
}

#[test]
fn a_call_is_in_the_ledger_after_the_flush_that_follows_its_end() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    let scope = Scope { customer: Some("acme".into()), tags: vec![("region".into(), "eu".into())] };
    let mut note = farcall.note("POST", &target("One.Example"), Some(&Arc::new(scope))).unwrap();
    farcall.flush();
    assert_eq!(calls(home.path()), 0, "it is under way");
    note.sent(10);
    note.head(&farcall, 201);
    note.body(100);
    note.end(&farcall);
    farcall.flush();
    let is = |what: &str| {
        let sql = format!(
            "SELECT count(*) FROM rollups r JOIN names v ON v.id = vendor JOIN names e ON e.id = endpoint \
             JOIN names c ON c.id = customer JOIN names t ON t.id = tags WHERE calls = 1 AND {what}"
        );
        number(home.path(), &sql) == 1
    };
    assert!(is("v.name = 'one.example' AND e.name = 'POST /v1/things/{id}'"));
    assert!(is("c.name = 'acme' AND t.name LIKE '%region%eu%'"));
    assert!(is("status = 201 AND outcome = 'complete' AND bytes_out = 10 AND bytes_in = 100"));
}

#[test]
fn how_it_came_out_is_told_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    let host = "one.example";
    begin(&farcall, host).end(&farcall);
    begin(&farcall, host).abandon(&farcall);
    for answered in [false, true] {
        let mut note = begin(&farcall, host);
        if answered {
            note.head(&farcall, 200);
        }
        note.failed(ErrorType::Reset);
        note.abandon(&farcall);
    }
    let mut note = begin(&farcall, host);
    note.head(&farcall, 200);
    note.abandon(&farcall);
    farcall.flush();
    for (status, outcome, calls) in
        [(0, "cancelled", 2), (0, "reset", 1), (200, "reset", 1), (200, "abandoned", 1)]
    {
        let sql = format!("SELECT sum(calls) FROM rollups WHERE status = {status} AND outcome = '{outcome}'");
        assert_eq!(number(home.path(), &sql), calls, "{status} {outcome}");
    }
}

#[test]
fn no_more_than_sixty_four_wait_to_be_told_of() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    (0..63).for_each(|_| call(&farcall, "one.example"));
    assert_eq!(told(&farcall), 0);
    call(&farcall, "two.example");
    assert_eq!(told(&farcall), 64);
    call(&farcall, "one.example");
    assert_eq!(told(&farcall), 0);
    // Who asks what the engine counted is told of all.
    assert_eq!(counter(&farcall, "folded_series"), 0);
    assert_eq!(told(&farcall), 1);
}

#[test]
fn a_long_path_and_an_address_that_cannot_be_read_are_not_kept() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    let path = format!("/{}", "x".repeat(512));
    assert!(farcall.note("GET", &Target::new(true, "one.example", 443, &path), None).is_err());
    assert!(farcall.note("GET", &TARGET, None).is_err());
    let path = format!("/{}", "x".repeat(500));
    let note = farcall.note("GET", &Target::new(true, "one.example", 443, &path), None).unwrap();
    note.end(&farcall);
    farcall.flush();
    assert_eq!(calls(home.path()), 1);
}

#[test]
fn hosts_that_take_turns_are_told_apart() {
    const HOSTS: u16 = 150;
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    for n in (0..3 * HOSTS).map(|n| n % HOSTS) {
        let (host, method) = (format!("api-{n}.host-{n}.example"), if n % 2 == 0 { "GET" } else { "POST" });
        let mut note = farcall.note(method, &Target::new(n % 3 == 0, &host, n, "/"), None).unwrap();
        note.head(&farcall, 200);
        note.body(n.into());
        note.end(&farcall);
    }
    farcall.flush();
    let sql = "SELECT count(*) FROM (SELECT v.name, e.name FROM rollups r JOIN names v ON v.id = vendor JOIN names e \
               ON e.id = endpoint WHERE v.name = 'host-' || (bytes_in / calls) || '.example' AND e.name LIKE \
               CASE bytes_in / calls % 2 WHEN 0 THEN 'GET %' ELSE 'POST %' END GROUP BY 1, 2 HAVING sum(calls) = 3)";
    assert_eq!((calls(home.path()), number(home.path(), sql)), (3 * i64::from(HOSTS), i64::from(HOSTS)));
}

#[test]
fn a_refusal_has_the_call_begin_and_the_vendor_looked_at_from_there_on() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    call(&farcall, "api.stripe.com");
    let (mut note, other) = (begin(&farcall, "api.stripe.com"), begin(&farcall, "api.stripe.com"));
    note.sent(10);
    assert!(note.wants_headers(429) && !note.wants_headers(503));
    let mut guard = note.begin(&farcall).unwrap();
    assert!(guard.call().wants_headers(429));
    guard.answer(429, &[("retry-after", "30")].as_slice());
    guard.body(7);
    guard.end();
    assert!(farcall.note("GET", &target("api.stripe.com"), None).is_err());
    assert!(farcall.note("GET", &target("hooks.slack.com"), None).is_ok());
    // One that was under way is what it was when it began.
    other.end(&farcall);
    farcall.flush();
    assert_eq!(calls(home.path()), 3);
    let sql =
        "SELECT count(*) FROM rollups WHERE status = 429 AND calls = 1 AND bytes_out = 10 AND bytes_in = 7";
    assert_eq!(number(home.path(), sql), 1);
}

#[test]
fn calls_that_begin_under_rules_are_not_noted() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    let under_way = begin(&farcall, "one.example");
    let deny = "[[policy]]\nmatch = { vendor = \"one.example\" }\nverdict = \"deny\"\n";
    farcall.engine().reload(&Config::parse("farcall.toml", deny).unwrap());
    assert!(farcall.note("GET", &target("one.example"), None).is_err());
    under_way.end(&farcall);
    farcall.flush();
    assert_eq!((calls(home.path()), counter(&farcall, "overlooked_calls")), (1, 0));
    farcall.engine().reload(&Config::default());
    assert!(farcall.note("GET", &target("one.example"), None).is_ok());
}

#[test]
fn threads_that_call_at_once_lose_nothing_while_others_flush_and_read() {
    const THREADS: usize = 4;
    const CALLS: usize = 5_000;
    let home = tempfile::tempdir().unwrap();
    let every = Some(Duration::from_millis(5));
    let farcall = Farcall::start(Options { flush_every: every, ..options(home.path()) });
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let farcall = &farcall;
            scope.spawn(move || {
                for n in 0..CALLS {
                    call(farcall, ["one.example", "two.example", "three.example"][(n + thread) % 3]);
                    if n % 1_000 == 0 {
                        let before = farcall.flush();
                        assert_eq!(before.pending, 0);
                    }
                }
            });
        }
    });
    farcall.flush();
    assert_eq!(calls(home.path()), i64::try_from(THREADS * CALLS).unwrap());
}

#[test]
fn who_flushes_after_his_call_finds_it_whoever_tells_of_it() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (farcall, home) = (&farcall, home.path());
            scope.spawn(move || {
                let host = format!("host-{thread}.example");
                for n in 1..=40 {
                    (0..9).for_each(|_| call(farcall, &host));
                    farcall.flush();
                    let vendors = report::vendors(&Query::at(home)).unwrap();
                    let own = vendors.rows.iter().find(|row| row.label == host).unwrap();
                    assert_eq!(own.numbers.calls, 9 * n);
                }
            });
        }
    });
}
