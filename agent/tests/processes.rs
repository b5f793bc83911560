//! Many processes, one ledger: nothing is lost and nothing is counted twice, whoever dies.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall_agent::report::{self, Query};
use farcall_agent::{Farcall, Options};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Children, call, calls, child, number, options, role};

const THREADS: usize = 4;
const CALLS: usize = 3_000;

/// The bodies of the child processes of these tests; as a test of its own it has nothing to do.
#[test]
fn child_body() {
    let Some(role) = role() else { return };
    let home = PathBuf::from(std::env::var_os("FARCALL_HOME").unwrap());
    match role.as_str() {
        "worker" => worker(&home, CALLS),
        "endless" => worker(&home, usize::MAX),
        "terminated" => terminated(&home),
        "handles-sigterm" => handles_sigterm(&home),
        "executes" => executes(&home),
        "executed" => executed(&home),
        other => panic!("no such role: {other}"),
    }
}

fn start(role: &str, home: &Path) -> Child {
    child(role, home).spawn().unwrap()
}

/// Waits until the child says a word on stdout.
fn says(child: &mut Child, word: &str) {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(word)), "the child never said {word}");
}

fn worker(home: &Path, count: usize) {
    let every = Some(Duration::from_millis(20));
    let service = Some(format!("worker-{}", std::process::id()));
    let farcall = Farcall::start(Options { flush_every: every, service, ..options(home) });
    println!("started");
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let farcall = farcall.clone();
            std::thread::spawn(move || {
                for n in 0..count {
                    call(&farcall, &format!("c{}", (n + thread) % 7), if n % 10 == 0 { 500 } else { 200 });
                    if n % 100 == 0 {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    farcall.shutdown();
}

#[test]
fn totals_are_exact_whatever_dies_beside_them() {
    const WORKERS: i64 = 4;
    let home = tempfile::tempdir().unwrap();
    let mut workers = Children((0..WORKERS).map(|_| start("worker", home.path())).collect());
    let mut doomed = Children(vec![start("endless", home.path())]);
    let doomed = &mut doomed.0[0];
    let killed = format!("worker-{}", doomed.id());
    says(doomed, "started");
    support::until("a flush of the doomed one", || {
        home.path().join("ledger.db").exists() && calls_of(home.path(), &killed) > 0
    });
    // SIGKILL, at whatever point it is.
    doomed.kill().unwrap();
    doomed.wait().unwrap();
    for worker in &mut workers.0 {
        let mut output = String::new();
        worker.stdout.as_mut().unwrap().read_to_string(&mut output).unwrap();
        assert!(worker.wait().unwrap().success(), "{output}");
    }
    let each = i64::try_from(THREADS * CALLS).unwrap();
    for worker in &workers.0 {
        assert_eq!(calls_of(home.path(), &format!("worker-{}", worker.id())), each);
    }
    let others = calls(home.path()) - calls_of(home.path(), &killed);
    assert_eq!(others, WORKERS * each);
    let failed = format!(
        "SELECT sum(calls) FROM rollups r JOIN callers c ON c.id = r.caller WHERE status = 500 AND service <> '{killed}'"
    );
    assert_eq!(number(home.path(), &failed), WORKERS * each / 10);
    assert_eq!(
        number(home.path(), "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"),
        0
    );
    assert_eq!(number(home.path(), "SELECT count(*) FROM processes WHERE ended IS NULL"), 1);
    // Each latency is in a sketch exactly once, too.
    let vendors = report::vendors(&Query::at(home.path())).unwrap();
    assert!(vendors.rows[0].numbers.p50_ms.is_some());
    assert_eq!(number(home.path(), "SELECT count(*) FROM rollups WHERE typeof(calls) <> 'integer'"), 0);
}

fn calls_of(home: &Path, service: &str) -> i64 {
    let connection = rusqlite::Connection::open(home.join("ledger.db")).unwrap();
    connection.busy_timeout(support::PATIENCE).unwrap();
    let sql =
        "SELECT coalesce(sum(calls), 0) FROM rollups r JOIN callers c ON c.id = r.caller WHERE service = ?1";
    // Before the first flush there is no table.
    connection.query_row(sql, [service], |row| row.get(0)).unwrap_or(0)
}

fn terminated(home: &Path) {
    let options =
        Options { flush_every: Some(Duration::from_secs(3_600)), handle_sigterm: true, ..options(home) };
    let farcall = Farcall::start(options);
    (0..100).for_each(|_| call(&farcall, "acme", 200));
    println!("ready");
    loop {
        std::thread::park();
    }
}

#[test]
fn sigterm_writes_the_rest_and_kills_as_before() {
    let home = tempfile::tempdir().unwrap();
    let mut child = start("terminated", home.path());
    says(&mut child, "ready");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(15), "{status}");
    assert_eq!(calls(home.path()), 100);
    assert_eq!(number(home.path(), "SELECT count(*) FROM processes WHERE ended IS NOT NULL"), 1);
}

fn handles_sigterm(home: &Path) {
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&asked)).unwrap();
    let options =
        Options { flush_every: Some(Duration::from_secs(3_600)), handle_sigterm: true, ..options(home) };
    let farcall = Farcall::start(options);
    call(&farcall, "acme", 200);
    println!("ready");
    support::until("SIGTERM", || asked.load(Ordering::Acquire));
    // Its graceful way out takes a while, and makes calls of its own.
    (0..10).for_each(|_| call(&farcall, "acme", 200));
    farcall.shutdown();
    std::process::exit(7);
}

#[test]
fn an_application_that_handles_sigterm_keeps_its_own_way_out() {
    let home = tempfile::tempdir().unwrap();
    let mut child = start("handles-sigterm", home.path());
    says(&mut child, "ready");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert_eq!(calls(home.path()), 11);
}

/// Executes a copy of this program, as a launcher executes what it is there for.
fn executes(home: &Path) {
    let farcall = Farcall::start(Options { service: Some("launcher".into()), ..options(home) });
    call(&farcall, "acme", 200);
    farcall.flush();
    let copy = home.join("shop");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let error = Command::new(copy).args(std::env::args().skip(1)).env("FARCALL_TEST_ROLE", "executed").exec();
    panic!("{error}");
}

fn executed(home: &Path) {
    let farcall = Farcall::start(Options { service: Some("shop".into()), ..options(home) });
    (0..2).for_each(|_| call(&farcall, "acme", 200));
    farcall.flush();
    println!("executed");
    // Until the test has seen it alive.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    farcall.shutdown();
}

#[test]
fn of_a_process_that_executes_another_program_only_that_one_runs() {
    let home = tempfile::tempdir().unwrap();
    let mut process = Children(vec![child("executes", home.path()).stdin(Stdio::piped()).spawn().unwrap()]);
    says(&mut process.0[0], "executed");
    let pid = process.0[0].id();
    let seen = || {
        let doctor = report::doctor(&Query::at(home.path())).unwrap();
        assert!(!doctor.problems.iter().any(|problem| problem.contains("launcher")), "{:?}", doctor.problems);
        let row = |row: &report::ProcessRow| (row.service.clone(), row.pid, row.calls, row.state);
        let mut rows: Vec<_> = doctor.processes.iter().map(row).collect();
        rows.sort_unstable();
        rows
    };
    let row = |service: &str, calls, state| (service.to_owned(), pid, calls, state);
    assert_eq!(seen(), [row("launcher", 1, "replaced"), row("shop", 2, "running")]);
    drop(process.0[0].stdin.take());
    assert!(process.0[0].wait().unwrap().success());
    assert_eq!(seen(), [row("launcher", 1, "replaced"), row("shop", 2, "ended")]);
    // Each has its own calls, though it is one process.
    let callers = report::callers(&Query::at(home.path())).unwrap();
    let mut counted: Vec<_> = callers.rows.iter().map(|row| (&*row.service, row.numbers.calls)).collect();
    counted.sort_unstable();
    assert_eq!(counted, [("launcher", 1), ("shop", 2)]);
}
