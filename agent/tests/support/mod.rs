//! What the tests of the ledger share.
#![allow(dead_code, clippy::unwrap_used)]

use farcall::{Head, Step};
use farcall_agent::{Farcall, Options};
use rusqlite::Connection;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
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

/// Waits for a condition, half a minute at most.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain for {what}");
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

/// What was used of a quota during a while.
#[derive(Debug)]
pub(crate) struct Window {
    /// Of what the limit allows in that time; 1 is all.
    pub(crate) share: f64,
    pub(crate) lasted: Duration,
    /// By how much the system let this process oversleep, at worst. What others did in the same window was as late.
    pub(crate) late: Duration,
}

impl Window {
    /// Looks on for `time`, as `used` grows; `limit` is in units a second.
    pub(crate) fn over(time: Duration, limit: u64, used: impl Fn() -> u64) -> Self {
        const NAP: Duration = Duration::from_millis(5);
        let (begun, already) = (Instant::now(), used());
        let mut late = Duration::ZERO;
        while begun.elapsed() < time {
            let nap = Instant::now();
            std::thread::sleep(NAP);
            late = late.max(nap.elapsed().saturating_sub(NAP));
        }
        // The clock after the count: a break between them must not look like use.
        let used = used() - already;
        let lasted = begun.elapsed();
        Self { share: used as f64 / (limit as f64 * lasted.as_secs_f64()), lasted, late }
    }
}

/// The window of `look` in which most was used: the first that reaches `least`, or the best of three.
///
/// A machine that has no time for the processes can only lower what they use. A window in which this process was let
/// down for longer than `patience` therefore says nothing, and is repeated, a dozen times at most.
pub(crate) fn best_window(least: f64, patience: Duration, mut look: impl FnMut() -> Window) -> Window {
    let (mut tried, mut best) = (0, None::<Window>);
    for _ in 0..12 {
        let window = look();
        tried += usize::from(window.late <= patience);
        best = Some(best.filter(|best| best.share >= window.share).unwrap_or(window));
        match &best {
            Some(window) if window.share >= least => break,
            window if tried == 3 => {
                println!("three windows below {:.1} %: {window:?}", least * 100.0);
                break;
            }
            _ => {}
        }
    }
    best.unwrap()
}
