//! Processes of several PID namespaces in one ledger, as containers that share a home: each may be pid 1, and several
//! may have started within one tick.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall::{Caller, CallerId};
use farcall_agent::report::{self, Query, Table};
use farcall_agent::{Confirmation, Farcall, Options, Role};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{Children, call, child, number, options, role};

/// Programs of one round; the first half are services of their own, the others are one service.
const PROGRAMS: usize = 12;

/// The bodies of the child processes of these tests; as a test of its own it has nothing to do.
#[test]
fn child_body() {
    let Some(service) = role() else { return };
    let home = PathBuf::from(std::env::var_os("FARCALL_HOME").unwrap());
    let farcall = Farcall::start(Options { service: Some(service), ..options(&home) });
    (0..10).for_each(|_| call(&farcall, "acme", 200));
    farcall.flush();
    println!("counted");
    // Until the test has seen it alive.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    farcall.shutdown();
}

/// The child as the first process of a PID namespace.
fn contained(service: &str, home: &Path) -> Command {
    let child = child(service, home);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]).arg(child.get_program());
    command.args(child.get_args()).envs(child.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

#[test]
fn programs_that_are_each_pid_1_of_a_namespace_keep_their_calls_and_are_seen_alive() {
    let mut able = Command::new("unshare");
    able.args(["--user", "--map-root-user", "--pid", "--fork", "true"]);
    if !able.status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: this user may not make a PID namespace");
        return;
    }
    // Some of them start within one tick of the clock, mostly in the first round.
    let met = (0..20).any(|_| {
        let home = tempfile::tempdir().unwrap();
        let mut programs = Children(Vec::new());
        for n in 0..PROGRAMS {
            let service = if n < PROGRAMS / 2 { format!("box{n}") } else { "fleet".into() };
            programs.0.push(contained(&service, home.path()).spawn().unwrap());
        }
        for program in &mut programs.0 {
            let mut lines = BufReader::new(program.stdout.as_mut().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap().contains("counted")), "a program did not count");
        }
        let query = Query::at(home.path());
        let callers = report::callers(&query).unwrap();
        let doctor = report::doctor(&query).unwrap();
        for n in 0..PROGRAMS / 2 {
            assert_eq!(of(&callers, &format!("box{n}")), (10, Some(1)));
        }
        assert_eq!(of(&callers, "fleet"), (10 * PROGRAMS as u64 / 2, Some(PROGRAMS / 2)));
        assert_eq!(callers.totals.calls, 10 * PROGRAMS as u64);
        let seen: Vec<_> = doctor.processes.iter().map(|seen| (seen.pid, seen.calls, seen.state)).collect();
        assert_eq!(seen, [(1, 10, "running"); PROGRAMS]);
        number(home.path(), "SELECT count(DISTINCT started) < count(*) FROM callers") == 1
    });
    assert!(met, "no two programs ever started within one tick");
}

/// The calls and processes of a service.
fn of(callers: &Table<report::CallerRow>, service: &str) -> (u64, Option<usize>) {
    let row = callers.rows.iter().find(|row| row.service == service);
    row.map_or((0, None), |row| (row.numbers.calls, row.process_count))
}

fn program(home: &Path, service: &str) -> Farcall {
    let farcall = Farcall::start(Options { service: Some(service.into()), ..options(home) });
    (0..10).for_each(|_| call(&farcall, "acme", 200));
    farcall.flush();
    farcall
}

/// Says that the sidecar saw three of the calls of `caller`.
fn confirm(sidecar: &Farcall, caller: &Caller) {
    sidecar.record_confirmed(vec![Confirmation {
        minute: sidecar.now().minute(),
        caller: caller.clone(),
        vendor: "stripe".into(),
        endpoint: "GET /v1/balance".into(),
        calls: 3,
    }]);
}

#[test]
fn what_the_sidecar_saw_goes_under_the_program_of_its_own_namespace_alone() {
    let home = tempfile::tempdir().unwrap();
    let shop = program(home.path(), "shop");
    let sidecar = Farcall::start(Options {
        service: Some("farcall-sidecar".into()),
        role: Role::Sidecar,
        ..options(home.path())
    });
    let seen =
        Caller { service: "python3".into(), ..(*shop.engine().caller(CallerId::SELF).unwrap()).clone() };
    confirm(&sidecar, &seen);
    // Of another container, with the same pid and start.
    confirm(&sidecar, &Caller { pid_namespace: seen.pid_namespace + 1, ..seen.clone() });
    // It was gone before the sidecar could ask for its namespace.
    confirm(&sidecar, &Caller { pid_namespace: 0, container: String::new(), ..seen });
    sidecar.shutdown();
    shop.shutdown();

    let callers = report::callers(&Query::at(home.path())).unwrap();
    let row = callers.rows.iter().find(|row| row.service == "shop").unwrap();
    assert_eq!((row.numbers.calls, row.numbers.confirmed_calls), (10, 6));
}

#[test]
fn a_ledger_that_names_no_namespace_shows_each_program_with_its_own_calls() {
    let home = tempfile::tempdir().unwrap();
    // Two programs of one pid and one start.
    let programs = [program(home.path(), "shop"), program(home.path(), "billing")];
    programs.iter().for_each(Farcall::shutdown);
    let ledger = rusqlite::Connection::open(home.path().join("ledger.db")).unwrap();
    ledger.execute("UPDATE callers SET pid_namespace = 0", []).unwrap();
    drop(ledger);

    let query = Query::at(home.path());
    let callers = report::callers(&query).unwrap();
    assert_eq!((of(&callers, "shop"), of(&callers, "billing")), ((10, Some(1)), (10, Some(1))));
    let doctor = report::doctor(&query).unwrap();
    let seen: Vec<_> = doctor.processes.iter().map(|seen| seen.calls).collect();
    assert_eq!(seen, [10, 10]);
}
