//! A million calls parked: what a process that finds them takes of memory and of time, and what a put costs beside
//! one into an empty file.

use super::{BODY, directory, put, start};
use crate::harness::{Row, median};
use rusqlite::Connection;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PARKED: u32 = 1_000_000;
const ROUNDS: usize = 5;
/// Long enough to look many times whether anything is due.
const LASTS: Duration = Duration::from_millis(1_000);
const ROLE: &str = "FARCALL_BENCH_PARKED";

pub(super) fn measure() -> [Row; 3] {
    let (full, empty) = (directory(), directory());
    for home in [&full, &empty] {
        let farcall = start(home.path());
        put(&farcall.outbox().unwrap(), &[b'x'; 64]);
        farcall.shutdown();
    }
    fill(full.path());
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(visit(full.path()));
        peer.push(visit(empty.path()));
    }
    let pick = |of: &[Visit], which: fn(&Visit) -> f64| median(of.iter().map(which).collect());
    let cost = |of: &[Visit]| pick(of, |visit| visit.micros);
    [
        Row::less(
            "outbox/put/at_1000000",
            "us per acknowledged put, one producer",
            cost(&ours),
            cost(&peer),
            "the same into an empty file",
        ),
        Row::less(
            "outbox/put/at_1000000/memory",
            "MiB of the whole process at its peak",
            pick(&ours, |visit| visit.mebibytes),
            64.0,
            "the bound",
        ),
        Row::less(
            "outbox/put/at_1000000/start",
            "ms from the start to the first acknowledged put",
            pick(&ours, |visit| visit.start),
            2_000.0,
            "the bound",
        ),
    ]
}

/// Parks a million calls like the one that is there, in one transaction: put one by one they would take a minute.
fn fill(home: &Path) {
    let connection = Connection::open(home.join("outbox.db")).unwrap();
    let columns: Vec<String> = connection
        .prepare("SELECT name FROM pragma_table_info('item') WHERE name NOT IN ('id', 'next_at')")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let columns = columns.join(", ");
    connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
    let added = connection
        .execute(
            &format!(
                "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1 - 1)
                INSERT INTO item (next_at, {columns}) SELECT item.next_at + n.n * 1000, {columns}
                FROM n CROSS JOIN (SELECT * FROM item LIMIT 1) AS item"
            ),
            [PARKED],
        )
        .unwrap();
    assert_eq!(added + 1, PARKED as usize);
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

/// What one process saw.
struct Visit {
    start: f64,
    micros: f64,
    mebibytes: f64,
}

/// In a process of its own, so that its memory is the outbox's.
fn visit(home: &Path) -> Visit {
    let output = Command::new(std::env::current_exe().unwrap()).env(ROLE, home).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [start, micros, mebibytes] = numbers[..] else { panic!("three numbers: {text}") };
    Visit { start, micros, mebibytes }
}

/// Plays that process, where this is it.
pub(crate) fn is_child() -> bool {
    let Some(home) = std::env::var_os(ROLE) else { return false };
    let begun = Instant::now();
    let farcall = start(Path::new(&home));
    let outbox = farcall.outbox().unwrap();
    let body = [b'x'; BODY];
    put(&outbox, &body);
    let start = begun.elapsed().as_secs_f64() * 1e3;
    let (begun, mut puts) = (Instant::now(), 0_u32);
    while begun.elapsed() < LASTS {
        put(&outbox, &body);
        puts += 1;
    }
    let micros = begun.elapsed().as_secs_f64() * 1e6 / f64::from(puts);
    farcall.shutdown();
    println!("{start} {micros} {}", peak());
    true
}

/// The most memory that this process had resident, in MiB.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1_024.0
}
