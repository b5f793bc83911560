//! Calls put into the outbox, acknowledged when they are on the disk; beside SQLite by itself, with group commit and
//! with one commit a row, and beside nothing but the sync. And into a file in which a million calls are parked.

mod bare;
mod parked;

pub(crate) use parked::is_child;

use crate::harness::{Row, median};
use bare::{EachRow, Group};
use farcall_agent::outbox::{Outbox, Parcel};
use farcall_agent::{Farcall, Options};
use std::fs::OpenOptions;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const LASTS: Duration = Duration::from_millis(300);
const BODY: usize = 1_024;
/// The log of a file starts over at about so many bytes.
const LOG: u64 = 4 << 20;

pub(crate) fn measure() -> Vec<Row> {
    let mut rows = Vec::new();
    for (producers, names) in [
        (1, ["outbox/put/1", "outbox/put/1/each_row", "outbox/put/1/same_row"]),
        (16, ["outbox/put/16", "outbox/put/16/each_row", "outbox/put/16/same_row"]),
        (128, ["outbox/put/128", "outbox/put/128/each_row", "outbox/put/128/same_row"]),
    ] {
        rows.extend(puts(producers, names));
    }
    rows.push(tail());
    rows.extend(parked::measure());
    rows
}

/// A directory on the disk that this is built on: `/tmp` may be memory, which syncs nothing.
fn directory() -> tempfile::TempDir {
    let built = std::env::current_exe().unwrap();
    tempfile::tempdir_in(built.parent().unwrap()).unwrap()
}

fn start(home: &Path) -> Farcall {
    let config = home.join("farcall.toml");
    std::fs::write(&config, "").unwrap();
    Farcall::start(Options {
        home: Some(home.into()),
        config: Some(config),
        service: Some("bench".into()),
        hub: false,
        ..Options::default()
    })
}

/// Not due while this runs: nothing is delivered.
fn put(outbox: &Outbox, body: &[u8]) {
    let parcel = Parcel::new("POST", "https://api.stripe.com/v1/refunds")
        .header("content-type", "application/json")
        .delay(Duration::from_secs(86_400))
        .body(body);
    outbox.put(parcel).unwrap();
}

/// Acknowledged puts in a second, of all producers together.
fn per_second(producers: usize, put: impl Fn() + Sync) -> f64 {
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    let many: u64 = std::thread::scope(|scope| {
        let all: Vec<_> = (0..producers)
            .map(|_| {
                scope.spawn(|| {
                    let mut many = 0_u64;
                    while !over.load(Ordering::Relaxed) {
                        put();
                        many += 1;
                    }
                    many
                })
            })
            .collect();
        std::thread::sleep(LASTS);
        over.store(true, Ordering::Relaxed);
        all.into_iter().map(|producer| producer.join().unwrap()).sum()
    });
    #[allow(clippy::cast_precision_loss)]
    let many = many as f64;
    many / begun.elapsed().as_secs_f64()
}

fn puts(producers: usize, [name, each_row, same_row]: [&'static str; 3]) -> [Row; 3] {
    let home = directory();
    let farcall = start(home.path());
    let outbox = farcall.outbox().unwrap();
    let body = [b'x'; BODY];
    put(&outbox, &body);
    let group = Group::start(home.path());
    let each = EachRow::open(home.path());
    let calls = Group::of_calls(home.path());
    let mut all = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        all[0].push(per_second(producers, || put(&outbox, &body)));
        all[1].push(per_second(producers, || group.put(&body)));
        all[2].push(per_second(producers, || each.put(&body)));
        all[3].push(per_second(producers, || calls.put(&body)));
    }
    farcall.shutdown();
    let [ours, group, each, calls] = all.map(median);
    let unit = "acknowledged puts per second";
    [
        Row::more(name, unit, ours, group, "SQLite by itself, group commit"),
        Row::more(each_row, unit, ours, each, "SQLite by itself, one commit a row"),
        Row::more(same_row, unit, ours, calls, "SQLite by itself, group commit, the same columns and bytes"),
    ]
}

/// The slowest of a hundred puts of one producer, beside the slowest of a hundred syncs.
fn tail() -> Row {
    let home = directory();
    let farcall = start(home.path());
    let outbox = farcall.outbox().unwrap();
    let mut log = OpenOptions::new().create_new(true).write(true).open(home.path().join("bare")).unwrap();
    let body = [b'x'; BODY];
    let mut sync = || {
        if log.stream_position().unwrap() >= LOG {
            log.rewind().unwrap();
        }
        log.write_all(&body).unwrap();
        log.sync_data().unwrap();
    };
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(p99(|| put(&outbox, &body)));
        peer.push(p99(&mut sync));
    }
    farcall.shutdown();
    let [ours, peer] = [ours, peer].map(median);
    Row::less("outbox/put/1/p99", "us per acknowledged put", ours, peer, "1 KiB and fdatasync")
}

/// In microseconds.
fn p99(mut put: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut took = Vec::new();
    while begun.elapsed() < LASTS {
        let one = Instant::now();
        put();
        took.push(one.elapsed().as_secs_f64() * 1e6);
    }
    took.sort_by(f64::total_cmp);
    took[(took.len() - 1) * 99 / 100]
}
