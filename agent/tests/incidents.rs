//! One quota, many processes: a window in which one of them is refused is one incident, and says who of all used it.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall::{Head, Step};
use farcall_agent::Farcall;
use farcall_agent::report::{Query, explain_incident, incidents};
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Stdio};
use support::{Children, child, options, role};

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

/// Makes the calls that each line of its input asks for, `customer calls`, and says how many went; `flush` flushes.
fn worker(home: &Path) {
    let farcall = Farcall::start(options(home));
    println!("\nstarted");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let Some((customer, calls)) = line.split_once(' ') else {
            farcall.flush();
            println!("flushed");
            continue;
        };
        let mut went = 0;
        for _ in 0..calls.parse::<u64>().unwrap() {
            let head = Head::new("GET", "https://api.stripe.com/v1/balance").customer(Some(customer));
            let mut call = farcall.guard(farcall.begin(&head));
            if matches!(call.step(), Step::Send(_)) {
                call.head(200);
                call.end();
                went += 1;
            }
        }
        println!("went {went}");
    }
}

struct Workers(Children, Vec<Lines<BufReader<ChildStdout>>>);

impl Workers {
    fn start(home: &Path, rules: &str, count: usize) -> Self {
        fs::write(home.join("farcall.toml"), rules).unwrap();
        let start = |_| child("worker", home).stdin(Stdio::piped()).spawn().unwrap();
        let mut children = Children((0..count).map(start).collect());
        let outputs = children.0.iter_mut().map(|child| {
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap().contains("started")));
            lines
        });
        let outputs = outputs.collect();
        Self(children, outputs)
    }

    fn tell(&mut self, worker: usize, line: &str) -> String {
        writeln!(self.0.0[worker].stdin.as_mut().unwrap(), "{line}").unwrap();
        self.1[worker].next().unwrap().unwrap()
    }
}

fn quota(shared: &str) -> String {
    // As long a window as none of these tests sees the end of.
    format!(
        "[[quota]]\nname = \"q\"\nmatch = {{ vendor = \"stripe\" }}\nlimit = \"20 requests / 7d\"\nburst = 20\n\
         max_wait = \"0s\"\nshared = \"{shared}\"\n"
    )
}

#[test]
fn a_worker_that_is_refused_names_those_that_used_the_quota_up_in_one_incident() {
    const WORKERS: usize = 8;
    let home = tempfile::tempdir().unwrap();
    let mut workers = Workers::start(home.path(), &quota("host"), WORKERS);
    // Seven use it up, and two of them and the eighth are refused.
    for worker in 0..6 {
        assert_eq!(workers.tell(worker, "acme 3"), "went 3");
    }
    assert_eq!(workers.tell(6, "globex 3"), "went 2");
    assert_eq!(workers.tell(7, "initech 2"), "went 0");
    assert_eq!(workers.tell(0, "acme 1"), "went 0");
    for worker in (0..WORKERS).chain(0..WORKERS) {
        assert_eq!(workers.tell(worker, "flush"), "flushed");
    }
    let found = incidents(&Query::at(home.path())).unwrap();
    let [incident] = &found.rows[..] else { panic!("one, not {}: {found:?}", found.rows.len()) };
    assert_eq!((incident.own, incident.refused, incident.count), (Some(20), 4, 4));
    // Who only was refused has used nothing, and says what it met.
    assert_eq!(incident.processes, 8);
    let customers: Vec<(&str, u64)> =
        incident.customers.iter().map(|share| (share.name.as_str(), share.units)).collect();
    assert_eq!(customers, [("acme", 18), ("globex", 2)]);
    let explained = explain_incident(&Query::at(home.path()), incident.id).unwrap();
    let text = explained.sentences.join("\n");
    assert!(text.contains("Customer acme used 90% of the 20 requests"), "{text}");
    assert!(text.contains("those of all 8 processes"), "{text}");
}

#[test]
fn processes_that_keep_a_quota_alone_have_an_incident_each() {
    let home = tempfile::tempdir().unwrap();
    let mut workers = Workers::start(home.path(), &quota("process"), 2);
    for worker in 0..2 {
        assert_eq!(workers.tell(worker, "acme 21"), "went 20");
        assert_eq!(workers.tell(worker, "flush"), "flushed");
    }
    let found = incidents(&Query::at(home.path())).unwrap();
    let own: Vec<(u64, u64)> = found.rows.iter().map(|row| (row.counted, row.processes)).collect();
    assert_eq!(own, [(20, 1), (20, 1)]);
}
