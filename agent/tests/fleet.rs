//! One quota, many hosts: together they use what it allows, and no call waits for the store that they share it by.
#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall::{Head, Step};
use farcall_agent::Farcall;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{child, counter, options, role, until};

const HOSTS: usize = 8;
const LIMIT: u64 = 2_000;
const BURST: u64 = 200;

/// The bodies of the child processes of these tests; as a test of its own it has nothing to do.
#[test]
fn child_body() {
    let Some(role) = role() else { return };
    assert_eq!(role, "hammers");
    let home = PathBuf::from(std::env::var_os("FARCALL_HOME").unwrap());
    let farcall = Farcall::start(options(&home));
    let mut went = OpenOptions::new().append(true).open(home.parent().unwrap().join("went")).unwrap();
    println!("\nstarted");
    // All begin at the same time.
    std::io::stdin().read_exact(&mut [0]).unwrap();
    loop {
        let mut call = begin(&farcall);
        loop {
            match call.step() {
                Step::Wait(until) => std::thread::sleep(until.since(call.now())),
                Step::Send(_) => {
                    went.write_all(b".").unwrap();
                    call.head(200);
                    call.end();
                    break;
                }
                _ => break,
            }
        }
    }
}

fn begin(farcall: &Farcall) -> farcall_agent::CallGuard {
    farcall.guard(farcall.begin(&Head::new("GET", "https://api.stripe.com/v1/balance")))
}

fn config(port: u16, more: &str) -> String {
    format!(
        "[share]\nredis = \"redis://127.0.0.1:{port}\"\nprefix = \"test:\"\n[[quota]]\nname = \"q\"\nmatch = {{ vendor = \"stripe\" }}\nlimit = \"{LIMIT} requests / 1s\"\nburst = {BURST}\nshared = \"fleet\"\n{more}\n"
    )
}

/// A Redis of this test alone.
struct Redis {
    server: Child,
    port: u16,
}

impl Redis {
    fn start(directory: &Path, port: u16) -> Self {
        let server = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(directory)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server, which scripts/setup-system installs");
        until("the server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { server, port }
    }

    fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

struct Hammers(Vec<Child>);

impl Drop for Hammers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Calls that went in that time, as a share of what the limit allows in it.
fn share_over(went: &Path, time: Duration) -> f64 {
    let size = || fs::metadata(went).unwrap().len();
    let (begun, already) = (Instant::now(), size());
    std::thread::sleep(time);
    (size() - already) as f64 / (LIMIT as f64 * begun.elapsed().as_secs_f64())
}

#[test]
fn hosts_share_a_quota_and_go_on_when_the_store_dies_and_recover_when_it_is_back() {
    let home = tempfile::tempdir().unwrap();
    let redis = Redis::start(home.path(), free_port());
    let went = home.path().join("went");
    File::create(&went).unwrap();
    let mut hammers = Hammers(
        (0..HOSTS)
            .map(|host| {
                let home = home.path().join(format!("host-{host}"));
                fs::create_dir(&home).unwrap();
                fs::write(home.join("farcall.toml"), config(redis.port, "")).unwrap();
                child("hammers", &home).stdin(Stdio::piped()).spawn().unwrap()
            })
            .collect(),
    );
    for child in &mut hammers.0 {
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("started")));
    }
    until("all hosts", || redis.ask("ZCARD test:hosts") == format!(":{HOSTS}"));
    let begun = Instant::now();
    for child in &mut hammers.0 {
        child.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    let used = share_over(&went, Duration::from_secs(10));
    let most = LIMIT as f64 * begun.elapsed().as_secs_f64() + BURST as f64;
    let over = fs::metadata(&went).unwrap().len() as f64 / most;
    println!(
        "{HOSTS} hosts: {:.1} % of what is allowed is used (at least 97 %), over all {:.1} % (at most 101 %)",
        used * 100.0,
        over * 100.0
    );
    assert!(used >= 0.97, "{used}");
    assert!(over <= 1.01, "{over}");

    // Dead, and all that it knew with it.
    let port = redis.port;
    drop(redis);
    std::thread::sleep(Duration::from_secs(1));
    let alone = share_over(&went, Duration::from_secs(3));
    println!("without the store: {:.1} %", alone * 100.0);
    assert!((0.5..=1.1).contains(&alone), "{alone}");

    let redis = Redis::start(home.path(), port);
    until("all hosts again", || redis.ask("ZCARD test:hosts") == format!(":{HOSTS}"));
    std::thread::sleep(Duration::from_secs(2));
    let again = share_over(&went, Duration::from_secs(5));
    println!("after its restart: {:.1} %", again * 100.0);
    assert!((0.97..=1.03).contains(&again), "{again}");
    // Wiped while it runs.
    assert_eq!(redis.ask("FLUSHALL"), "+OK");
    let wiped = share_over(&went, Duration::from_secs(5));
    println!("after it was wiped: {:.1} %", wiped * 100.0);
    assert!((0.97..=1.05).contains(&wiped), "{wiped}");
}

#[test]
fn the_processes_of_one_host_ask_as_one_and_another_takes_over_when_the_one_that_asks_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let redis = Redis::start(home.path(), free_port());
    let went = home.path().join("went");
    File::create(&went).unwrap();
    // Three on one host, one on another.
    // The files first: a process that starts while its file is written anew would read half of it.
    for host in ["a", "b"] {
        let home = home.path().join(host);
        fs::create_dir(&home).unwrap();
        fs::write(home.join("farcall.toml"), config(redis.port, "")).unwrap();
    }
    let mut hammers = Hammers(
        ["a", "a", "a", "b"]
            .into_iter()
            .map(|host| child("hammers", &home.path().join(host)).stdin(Stdio::piped()).spawn().unwrap())
            .collect(),
    );
    for child in &mut hammers.0 {
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("started")));
    }
    until("both hosts", || redis.ask("ZCARD test:hosts") == ":2");
    for child in &mut hammers.0 {
        child.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    let used = share_over(&went, Duration::from_secs(4));
    assert!((0.97..=1.05).contains(&used), "{used}");
    // One of these two was the one that asked, if it was not the third.
    for child in hammers.0.drain(..2) {
        drop(Hammers(vec![child]));
        std::thread::sleep(Duration::from_secs(4));
        let used = share_over(&went, Duration::from_secs(3));
        println!("after a kill: {:.1} %", used * 100.0);
        assert!((0.97..=1.05).contains(&used), "{used}");
    }
    assert_eq!(redis.ask("ZCARD test:hosts"), ":2");
}

#[test]
fn no_call_waits_for_a_store_that_does_not_answer() {
    // Accepts, and says nothing.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let home = tempfile::tempdir().unwrap();
    let config = config(silent.local_addr().unwrap().port(), "max_wait = \"0s\"")
        .replace("[share]", "[share]\nhosts = 4");
    fs::write(home.path().join("farcall.toml"), config).unwrap();
    let farcall = Farcall::start(options(home.path()));
    let mut slowest = Duration::ZERO;
    let mut went = 0;
    until("the failure to be noticed", || {
        let begun = Instant::now();
        let mut call = begin(&farcall);
        let sent = matches!(call.step(), Step::Send(_));
        slowest = slowest.max(begun.elapsed());
        if sent {
            went += 1;
            call.head(200);
        }
        call.end();
        counter(&farcall, "unanswered_leases") >= 2
    });
    println!("{went} calls went, the slowest step took {slowest:?}");
    // Far below the time that an answer of the store may take.
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
    assert!(went > 0);
    // A quarter of the limit is this host's share, as the configuration says.
    let (begun, before) = (Instant::now(), went);
    while begun.elapsed() < Duration::from_secs(2) {
        if matches!(begin(&farcall).step(), Step::Send(_)) {
            went += 1;
        }
        std::thread::yield_now();
    }
    let rate = f64::from(went - before) / begun.elapsed().as_secs_f64() / LIMIT as f64;
    assert!((0.15..=0.30).contains(&rate), "{rate}");
}
