//! One canary, many processes: they weigh their calls together, and what one finds out is at once true for all.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall::{Head, Step};
use farcall_agent::Farcall;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use support::{Children, child, counter, number, options, role};

/// The bodies of the child processes of these tests; as a test of its own it has nothing to do.
#[test]
fn child_body() {
    let Some(role) = role() else { return };
    let home = PathBuf::from(std::env::var_os("FARCALL_HOME").unwrap());
    match role.as_str() {
        "worker" => worker(&home),
        other => panic!("no such role: {other}"),
    }
}

const RULE: &str = r#"
    [[rollout]]
    name = "v2"
    match = { vendor = "stripe" }
    by = "call"
    variant = { path_prefix = "/v2" }
    canary = { steps = ["50%", "100%"], min_calls = 6000, hold = "1ms", max_error_rate_increase = "5%", max_p99_increase = "100%" }
"#;

/// Makes the calls that each line of its input asks for, `calls which-of-the-new-side-fail`, and says how many of them
/// took the new side.
fn worker(home: &Path) {
    let farcall = Farcall::start(options(home));
    assert_eq!(counter(&farcall, "unshared_homes"), 0);
    println!("\nstarted");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let Some((calls, fails)) = line.split_once(' ') else {
            farcall.flush();
            println!("flushed");
            continue;
        };
        let (calls, fails): (u64, u64) = (calls.parse().unwrap(), fails.parse().unwrap());
        let mut new = 0;
        for _ in 0..calls {
            let head = Head::new("GET", "https://api.stripe.com/v1/balance");
            let mut call = farcall.guard(farcall.begin(&head));
            let Step::Send(attempt) = call.step() else { panic!("nothing stands in its way") };
            let is_new = attempt.changes.is_some();
            new += u64::from(is_new);
            call.head(if is_new && fails != 0 && new.is_multiple_of(fails) { 500 } else { 200 });
            call.end();
        }
        println!("new {new}");
    }
}

struct Worker {
    place: usize,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Workers of one home directory.
struct Workers(Children, Vec<Worker>);

impl Workers {
    fn start(home: &Path, count: usize) -> Self {
        fs::write(home.join("farcall.toml"), RULE).unwrap();
        let start = |_| child("worker", home).stdin(Stdio::piped()).spawn().unwrap();
        let mut children = Children((0..count).map(start).collect());
        let worker = |(place, child): (usize, &mut Child)| {
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap().contains("started")));
            Worker { place, lines }
        };
        let workers = children.0.iter_mut().enumerate().map(worker).collect();
        Self(children, workers)
    }

    fn tell(&mut self, worker: usize, line: &str) -> String {
        let worker = &mut self.1[worker];
        let stdin = self.0.0[worker.place].stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        worker.lines.next().unwrap().unwrap()
    }

    /// Has a worker make so many calls, of which each `fails`th of the new side fails. How many took the new side.
    fn calls(&mut self, worker: usize, calls: u64, fails: u64) -> u64 {
        self.tell(worker, &format!("{calls} {fails}")).strip_prefix("new ").unwrap().parse().unwrap()
    }

    /// How often the ledger says that the canary came to this.
    fn notices(&mut self, home: &Path, what: &str) -> i64 {
        for worker in 0..self.1.len() {
            self.tell(worker, "flush");
        }
        number(home, &format!("SELECT count(*) FROM notices WHERE what LIKE '%{what}%'"))
    }
}

#[test]
fn eight_workers_roll_a_canary_back_together_and_it_stays_so_for_those_that_come() {
    const WORKERS: usize = 8;
    // What a worker by itself sees proves nothing.
    let alone = tempfile::tempdir().unwrap();
    let mut one = Workers::start(alone.path(), 1);
    one.calls(0, 30, 2);
    assert!(one.calls(0, 200, 0) > 0, "it is still in its step");
    assert_eq!(one.notices(alone.path(), "rolled back"), 0);
    drop(one);

    let home = tempfile::tempdir().unwrap();
    let mut workers = Workers::start(home.path(), WORKERS);
    for worker in 0..WORKERS {
        workers.calls(worker, 30, 2);
    }
    // Whoever found out: from then on nobody's call takes the new side, not even the next one.
    for worker in 0..WORKERS {
        assert_eq!(workers.calls(worker, 100, 5), 0, "worker {worker}");
    }
    assert_eq!(workers.notices(home.path(), "rolled back"), 1, "one of them tells it");
    // Killed, and started again.
    drop(workers);
    let mut workers = Workers::start(home.path(), 2);
    assert_eq!(workers.calls(0, 100, 0) + workers.calls(1, 100, 0), 0);
}

#[test]
fn eight_workers_take_a_canary_to_its_end_with_the_calls_that_all_of_them_made() {
    const WORKERS: usize = 8;
    let home = tempfile::tempdir().unwrap();
    let mut workers = Workers::start(home.path(), WORKERS);
    // 6,000 of the new side are asked for: a worker alone has some 800, or more where the machine is so busy that
    // answers seem slow.
    let mut new = [0; WORKERS];
    while !(0..WORKERS).all(|worker| workers.calls(worker, 50, 0) == 50) {
        for (worker, new) in new.iter_mut().enumerate() {
            *new += workers.calls(worker, 200, 0);
        }
        assert!(new.iter().all(|new| *new < 6_000), "{new:?}");
    }
    for worker in 0..WORKERS {
        assert_eq!(workers.calls(worker, 100, 0), 100, "worker {worker}");
    }
    assert_eq!(workers.notices(home.path(), "finished"), 1);
    assert_eq!(workers.notices(home.path(), "rolled back"), 0);
}
