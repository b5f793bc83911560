//! What the handle promises about the ledger, seen from outside.
#![allow(clippy::unwrap_used, missing_docs)]

use farcall::{Head, Step};
use farcall_agent::{Farcall, Options};
use rusqlite::Connection;
use std::path::Path;

fn options(home: &Path) -> Options {
    Options {
        home: Some(home.into()),
        config: Some(home.join("none.toml")),
        flush_every: None,
        ..Options::default()
    }
}

fn call(farcall: &Farcall, customer: &str, status: u16) {
    let head = Head::new("GET", "https://api.stripe.com/v1/balance").customer(Some(customer));
    let mut call = farcall.guard(farcall.begin(&head));
    assert!(matches!(call.step(), Step::Send(_)));
    call.head(status);
    call.body(100);
    call.end();
}

fn number(home: &Path, sql: &str) -> i64 {
    Connection::open(home.join("ledger.db")).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn calls_are_added_up_over_flushes() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    for _ in 0..10 {
        call(&farcall, "acme", 200);
        call(&farcall, "globex", 429);
        assert_eq!(farcall.flush().pending, 0);
    }
    assert_eq!(number(home.path(), "SELECT sum(calls) FROM rollups"), 20);
    assert_eq!(number(home.path(), "SELECT sum(bytes_in) FROM rollups"), 2_000);
    assert_eq!(number(home.path(), "SELECT count(*) FROM exemplars"), 20);
    drop(farcall);
    assert_eq!(number(home.path(), "SELECT count(*) FROM processes WHERE ended IS NOT NULL"), 1);
}
