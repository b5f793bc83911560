//! One ledger, many processes, each with many threads, one of them killed in the middle.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use farcall_scenarios::{Sums, read};
use rusqlite::Connection;
use tempfile::tempdir;

const BYTES_OUT: u64 = 7;
const BYTES_IN: u64 = 13;

fn writer(home: &Path, customer: &str, threads: u64, calls: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ledger-writer"))
        .arg(home)
        .args([customer, &threads.to_string(), calls])
        .env_remove("FARCALL_DISABLED")
        .env_remove("FARCALL_CONFIG")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The sums of each customer; every row must be whole in itself.
fn by_customer(home: &Path) -> BTreeMap<String, Sums> {
    let mut customers: BTreeMap<String, Sums> = BTreeMap::new();
    for (series, sums) in read(home).unwrap().rows {
        assert_eq!(sums.attempts, sums.calls, "{series:?}");
        assert_eq!(sums.answered, sums.calls, "{series:?}");
        assert_eq!(sums.bytes_out, sums.calls * BYTES_OUT, "{series:?}");
        assert_eq!(sums.bytes_in, sums.calls * BYTES_IN, "{series:?}");
        let customer = customers.entry(series.customer).or_default();
        customer.calls += sums.calls;
        customer.bytes_in += sums.bytes_in;
    }
    customers
}

fn assert_sound(home: &Path) {
    let ledger = Connection::open(home.join("ledger.db")).unwrap();
    let verdict: String = ledger.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

#[test]
fn totals_are_exact_with_many_processes_and_threads_writing_at_once() {
    let (processes, threads, calls) = (6, 4, 5_000);
    let home = tempdir().unwrap();
    let writers: Vec<(String, Child)> = (0..processes)
        .map(|number| {
            let customer = format!("customer-{number}");
            let child = writer(home.path(), &customer, threads, &calls.to_string());
            (customer, child)
        })
        .collect();
    let customers: Vec<String> = writers
        .into_iter()
        .map(|(customer, mut child)| {
            assert!(child.wait().unwrap().success());
            customer
        })
        .collect();

    let sums = by_customer(home.path());
    assert_eq!(sums.len(), customers.len());
    for customer in customers {
        assert_eq!(sums[&customer].calls, threads * calls, "{customer}");
    }
    assert_sound(home.path());
}

#[test]
fn a_process_killed_while_it_writes_costs_only_what_it_had_not_flushed() {
    let (threads, calls) = (3, 20_000);
    let home = tempdir().unwrap();
    let mut others: Vec<(String, Child)> = (0..3)
        .map(|number| {
            let customer = format!("lives-{number}");
            let child = writer(home.path(), &customer, threads, &calls.to_string());
            (customer, child)
        })
        .collect();

    // Each victim is killed after another number of flushes, so that the kill meets another moment of the next.
    let mut victims = Vec::new();
    for (number, flushes) in [3_usize, 10, 25, 60].into_iter().enumerate() {
        let customer = format!("dies-{number}");
        let mut child = writer(home.path(), &customer, threads, "endless");
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut lines = said.lines();
        let mut last = String::new();
        for _ in 0..flushes {
            last = lines.next().expect("the writer goes on").unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said while the signal was on its way counts as well.
        for line in lines.map_while(Result::ok) {
            last = line;
        }
        let written: u64 = last.parse().unwrap();
        victims.push((customer, written));
    }
    for (_, child) in &mut others {
        assert!(child.wait().unwrap().success());
    }

    let sums = by_customer(home.path());
    for (customer, _) in others {
        assert_eq!(sums[&customer].calls, threads * calls, "{customer}");
    }
    for (customer, written) in victims {
        let calls = sums[&customer].calls;
        assert!(calls >= written, "{customer}: {written} calls were flushed, and {calls} are in the ledger");
    }
    assert_sound(home.path());

    // And the ledger goes on: the next process writes as if nothing had been.
    let mut next = writer(home.path(), "next", 1, "100");
    assert!(next.wait().unwrap().success());
    assert_eq!(by_customer(home.path())["next"].calls, 100);
}
