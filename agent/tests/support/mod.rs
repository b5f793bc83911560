//! What the tests of the ledger share.
#![allow(dead_code, clippy::unwrap_used)]

use farcall::{Head, Step};
use farcall_agent::{Farcall, Options};
use rusqlite::Connection;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything is waited for, at most: more than it takes on the busiest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A handle without a thread of its own.
pub(crate) fn options(home: &Path) -> Options {
    Options { home: Some(home.into()), flush_every: None, ..Options::default() }
}

/// One call of 100 bytes.
pub(crate) fn call(farcall: &Farcall, customer: &str, status: u16) {
    let head = Head::new("GET", "https://api.stripe.com/v1/balance").customer(Some(customer));
    let mut call = farcall.guard(farcall.begin(&head));
    assert!(matches!(call.step(), Step::Send(_)));
    call.head(status);
    call.body(100);
    call.end();
}

/// Asks the ledger itself.
pub(crate) fn number(home: &Path, sql: &str) -> i64 {
    let connection = Connection::open(home.join("ledger.db")).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

pub(crate) fn calls(home: &Path) -> i64 {
    number(home, "SELECT coalesce(sum(calls), 0) FROM rollups")
}

pub(crate) fn counter(farcall: &Farcall, name: &str) -> u64 {
    farcall.counters().into_iter().find(|(known, _)| known == name).unwrap().1
}

/// This test program again, to run the part of `child_body` that `role` names; see there.
pub(crate) fn child(role: &str, home: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_body", "--nocapture", "--test-threads=1"]);
    command.env("FARCALL_TEST_ROLE", role).env("FARCALL_HOME", home).stdout(Stdio::piped());
    command
}

/// The role that this process plays, where it is a child.
pub(crate) fn role() -> Option<String> {
    std::env::var("FARCALL_TEST_ROLE").ok()
}

/// Waits for a condition, no longer than [`PATIENCE`].
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes that end with the test, however it ends: what they would go on to do loads the tests after it.
pub(crate) struct Children(pub(crate) Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ended_before = child.kill();
            let _ended_before = child.wait();
        }
    }
}
