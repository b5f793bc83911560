//! Answers that somebody wants to be rid of: gone in the process that says so, and a little later in the others.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall::{Head, Step};
use farcall_agent::Farcall;
use farcall_agent::report::ReportError;
use std::fs;
use std::path::Path;
use support::{counter, options};

/// A program of this home directory, which keeps what it gets.
fn program(home: &Path) -> Farcall {
    let rules = "[[cache]]\nname = \"all\"\nmatch = {}\nttl = \"1h\"\n";
    fs::write(home.join("farcall.toml"), rules).unwrap();
    Farcall::start(options(home))
}

/// Whether the vendor is asked.
fn asks(farcall: &Farcall, customer: &str) -> bool {
    let url = "https://api.stripe.com/v1/balance";
    let none: Vec<(String, Vec<u8>)> = Vec::new();
    let head = Head::new("GET", url).headers(&none).body(Some(0), true).caches(true).customer(Some(customer));
    let mut call = farcall.guard(farcall.begin(&head));
    match call.step() {
        Step::Send(_) => {
            call.answer(200, &none);
            assert!(matches!(call.step(), Step::Settled));
            call.read(b"body");
            call.end();
            true
        }
        Step::Respond(_) => false,
        other => panic!("{other:?}"),
    }
}

fn of(customer: &str) -> Vec<(String, String)> {
    vec![("customer".into(), customer.into())]
}

#[test]
fn a_purge_holds_in_its_own_process_when_it_returns_and_in_another_at_its_next_flush() {
    let home = tempfile::tempdir().unwrap();
    let (own, other) = (program(home.path()), program(home.path()));
    for program in [&own, &other] {
        assert!(asks(program, "one") && asks(program, "two"));
        assert!(!asks(program, "one") && !asks(program, "two"));
    }
    assert_eq!(own.purge_cache(&of("one")).unwrap(), 1, "of those that wrote to the ledger");
    assert!(asks(&own, "one"));
    assert!(!asks(&own, "two"), "nothing else is");
    assert!(!asks(&other, "one"));
    other.flush();
    assert!(asks(&other, "one"));
    // What was asked for since is not forgotten by the next look at the ledger.
    own.flush();
    assert!(!asks(&own, "one"));
    assert_eq!(counter(&own, "purged_answers"), 1);
}

#[test]
fn a_purge_that_nobody_else_can_be_told_of_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let own = program(home.path());
    let unknown = [("status".to_owned(), "200".to_owned())];
    assert!(matches!(own.purge_cache(&unknown), Err(ReportError::NotFound(_))));
    assert!(asks(&own, "one"));
    assert!(own.purge_cache(&[("vendor".into(), "strype".into())]).is_err());
    assert!(!asks(&own, "one"), "it is kept");
}
