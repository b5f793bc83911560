//! Shared quotas: a check in memory that processes share, beside governor, which is one process's own; and calls
//! under a quota that a fleet shares, beside a round trip to Redis for each call.

use crate::decision::Clock;
use crate::harness::{Row, in_turns, timed};
use farcall::quota::{Ask, Claim, Rule, Unit, Verdict};
use farcall::{Head, Step};
use farcall_agent::{Farcall, Options, quota_home};
use governor::{Quota, RateLimiter};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CHECKS: u32 = 100_000;
const PROCESSES: usize = 8;
const ROUNDS: usize = 3;
const LASTS: Duration = Duration::from_secs(2);
const ROLE: &str = "FARCALL_BENCH_ROLE";

pub(crate) fn measure() -> Vec<Row> {
    let mut rows = vec![shared_memory()];
    match Redis::start() {
        Some(redis) => rows.push(redis_8_processes(&redis)),
        None => eprintln!("bench: quota/redis_8_processes left out: there is no redis-server (make setup)"),
    }
    rows
}

fn shared_memory() -> Row {
    let home = tempfile::tempdir().unwrap();
    let rule = Rule::limit(1_000_000_000, Unit::Requests, Duration::from_secs(1));
    let (cell, _) = quota_home(home.path()).unwrap().quota(7, &rule).unwrap();
    let clock = Clock::start();
    let governor = RateLimiter::direct(Quota::per_second(NonZeroU32::new(1_000_000_000).unwrap()));
    let (ours, peer) = in_turns(
        CHECKS,
        |checks| {
            timed(|| {
                for _ in 0..checks {
                    let mut claim = Claim::new();
                    // Found anew for each check, as the engine does: its place may have gone to another.
                    let cell = (*cell).as_ref();
                    let verdict = cell.before(&rule, &mut claim, &Ask::one(), clock.now());
                    assert!(matches!(black_box(verdict), Verdict::Pass));
                    cell.end(&mut claim);
                }
            })
        },
        |checks| {
            timed(|| {
                for _ in 0..checks {
                    assert!(black_box(governor.check()).is_ok());
                }
            })
        },
    );
    Row::less("quota/shared_memory", "ns per check", ours, peer, "governor 0.10, in one process")
}

/// Whole calls under a fleet's quota, ledger and clock reads included, beside nothing but the round trip.
fn redis_8_processes(redis: &Redis) -> Row {
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(per_call("ours", redis.port));
        peer.push(per_call("peer", redis.port));
    }
    let [ours, peer] = [ours, peer].map(crate::harness::median);
    Row::less(
        "quota/redis_8_processes",
        "ns per call",
        ours,
        peer,
        "INCR and EXPIRE in one round trip for each call",
    )
}

/// Nanoseconds of wall time for each call of one of eight processes.
fn per_call(role: &str, port: u16) -> f64 {
    let homes: Vec<_> = (0..PROCESSES).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut children: Vec<Child> = homes
        .iter()
        .map(|home| {
            Command::new(std::env::current_exe().unwrap())
                .env(ROLE, role)
                .env("FARCALL_HOME", home.path())
                .env("FARCALL_BENCH_PORT", port.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut word = [0; 1];
    for child in &mut children {
        child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
    }
    for child in &mut children {
        child.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    }
    let calls: u64 = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().parse::<u64>().unwrap()
        })
        .sum();
    LASTS.as_nanos() as f64 * PROCESSES as f64 / calls as f64
}

/// Plays the part of one of the eight processes, where this is one.
pub(crate) fn is_child() -> bool {
    let Ok(role) = std::env::var(ROLE) else { return false };
    let home = std::env::var_os("FARCALL_HOME").unwrap();
    let port: u16 = std::env::var("FARCALL_BENCH_PORT").unwrap().parse().unwrap();
    let calls = match role.as_str() {
        "ours" => calls_under_a_fleets_quota(Path::new(&home), port),
        _ => round_trips(port),
    };
    println!("{calls}");
    true
}

/// Says that this process is ready, and waits for the others.
fn ready() {
    std::io::stdout().write_all(b"\n").unwrap();
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_exact(&mut [0]).unwrap();
}

fn calls_under_a_fleets_quota(home: &Path, port: u16) -> u64 {
    let config = format!(
        "[share]\nredis = \"redis://127.0.0.1:{port}\"\n[[quota]]\nname = \"q\"\nmatch = {{ vendor = \"stripe\" }}\nlimit = \"100M requests / 1s\"\nshared = \"fleet\"\n"
    );
    std::fs::write(home.join("farcall.toml"), config).unwrap();
    let farcall = Farcall::start(Options { home: Some(home.into()), ..Options::default() });
    let head = Head::new("GET", "https://api.stripe.com/v1/balance");
    let call = || {
        let mut call = farcall.guard(farcall.begin(&head));
        loop {
            match call.step() {
                Step::Wait(until) => std::thread::sleep(until.since(call.now())),
                Step::Send(_) => {
                    call.head(200);
                    call.end();
                    return true;
                }
                _ => return false,
            }
        }
    };
    // The first grants.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        call();
    }
    ready();
    let (begun, mut calls) = (Instant::now(), 0);
    while begun.elapsed() < LASTS {
        calls += u64::from(call());
    }
    farcall.shutdown();
    calls
}

fn round_trips(port: u16) -> u64 {
    let mut connection =
        redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap().get_connection().unwrap();
    ready();
    let (begun, mut calls) = (Instant::now(), 0_u64);
    while begun.elapsed() < LASTS {
        let window = begun.elapsed().as_secs();
        let (count, _): (u64, bool) = redis::pipe()
            .cmd("INCR")
            .arg(format!("quota:{window}"))
            .cmd("EXPIRE")
            .arg(format!("quota:{window}"))
            .arg(2)
            .query(&mut connection)
            .unwrap();
        calls += u64::from(black_box(count) > 0);
    }
    calls
}

struct Redis {
    server: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Redis {
    fn start() -> Option<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0)).ok()?.local_addr().ok()?.port();
        let directory = tempfile::tempdir().ok()?;
        let server = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
            ])
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let redis = Self { server, port, _directory: directory };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > Duration::from_secs(10) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
