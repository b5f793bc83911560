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
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use support::{Children, Window, best_window, child, counter, options, role, until};

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
    /// On a port that nobody else gets by chance: below those that the system hands out.
    fn start(directory: &Path) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        for _ in 0..100 {
            let number = (std::process::id() as u16)
                .wrapping_mul(31)
                .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            if let Some(redis) = Self::start_on(directory, 10_000 + number % 20_000) {
                return redis;
            }
        }
        panic!("no port for a redis-server");
    }

    /// `None` where the port is not free.
    fn start_on(directory: &Path, port: u16) -> Option<Self> {
        TcpListener::bind(("127.0.0.1", port)).ok()?;
        let server = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(directory)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server, which scripts/setup-system installs");
        let mut redis = Self { server, port };
        let mut ended = false;
        until("the server", || {
            ended = redis.server.try_wait().unwrap().is_some();
            ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        (!ended).then_some(redis)
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

/// Hammers on several hosts, each a name and how many processes it has, that wait for the word.
fn hammers(home: &Path, redis: &Redis, hosts: &[(&str, usize)]) -> Children {
    // The files first: a process that starts while its file is written anew would read half of it.
    for (host, _) in hosts {
        fs::create_dir(home.join(host)).unwrap();
        fs::write(home.join(host).join("farcall.toml"), config(redis.port, "")).unwrap();
    }
    let all = hosts.iter().flat_map(|(host, processes)| std::iter::repeat_n(host, *processes));
    let spawn = |host: &&str| child("hammers", &home.join(host)).stdin(Stdio::piped()).spawn().unwrap();
    let mut hammers = Children(all.map(spawn).collect());
    for child in &mut hammers.0 {
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("started")));
    }
    until("all hosts", || redis.ask("ZCARD test:hosts") == format!(":{}", hosts.len()));
    hammers
}

fn let_go(hammers: &mut Children) {
    for child in &mut hammers.0 {
        child.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    }
}

fn size(went: &Path) -> u64 {
    fs::metadata(went).unwrap().len()
}

/// What the hosts use at their best of what is allowed, at least `least`; in no window more than `bursts` explain.
fn used(what: &str, went: &Path, least: f64, bursts: u64) -> f64 {
    let best = best_window(least, Duration::from_millis(1_000 * BURST / LIMIT / 2), || {
        let window = Window::over(Duration::from_secs(4), LIMIT, || size(went));
        let most = 1.01 * (1.0 + (bursts * BURST) as f64 / (LIMIT as f64 * window.lasted.as_secs_f64()));
        assert!(window.share <= most, "{what}: {window:?}, more than {most}");
        window
    });
    println!(
        "{what}: {:.1} % of what is allowed is used (at least {:.0} %)",
        best.share * 100.0,
        least * 100.0
    );
    assert!(best.share >= least, "{what}: {best:?}");
    best.share
}

#[test]
fn hosts_share_a_quota_and_go_on_when_the_store_dies_and_recover_when_it_is_back() {
    let home = tempfile::tempdir().unwrap();
    let redis = Redis::start(home.path());
    let went = home.path().join("went");
    File::create(&went).unwrap();
    let names: [String; HOSTS] = std::array::from_fn(|host| format!("host-{host}"));
    let mut hammers = hammers(home.path(), &redis, &names.each_ref().map(|name| (name.as_str(), 1)));
    let begun = Instant::now();
    let_go(&mut hammers);
    used("8 hosts", &went, 0.97, 1);
    used("8 hosts, later", &went, 0.97, 1);
    let (went_in_all, lasted) = (size(&went), begun.elapsed());
    let over = went_in_all as f64 / (LIMIT as f64 * lasted.as_secs_f64() + BURST as f64);
    println!("over all {:.1} % (at most 101 %)", over * 100.0);
    assert!(over <= 1.01, "{over}");

    // Dead, and all that it knew with it.
    let port = redis.port;
    drop(redis);
    used("without the store", &went, 0.5, 2);

    let mut again = None;
    until("the port", || {
        again = Redis::start_on(home.path(), port);
        again.is_some()
    });
    let redis = again.unwrap();
    until("all hosts again", || redis.ask("ZCARD test:hosts") == format!(":{HOSTS}"));
    used("after its restart", &went, 0.97, 2);
    // Wiped while it runs.
    assert_eq!(redis.ask("FLUSHALL"), "+OK");
    used("after it was wiped", &went, 0.97, 2);
}

#[test]
fn the_processes_of_one_host_ask_as_one_and_another_takes_over_when_the_one_that_asks_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let redis = Redis::start(home.path());
    let went = home.path().join("went");
    File::create(&went).unwrap();
    let mut hammers = hammers(home.path(), &redis, &[("a", 3), ("b", 1)]);
    let_go(&mut hammers);
    used("two hosts, four processes", &went, 0.97, 1);
    // One of these two was the one that asked, if it was not the third.
    for child in hammers.0.drain(..2) {
        drop(Children(vec![child]));
        // Until another may lead, its host has its share of the limit, beside what the other host takes of it all.
        let lost = Window::over(Duration::from_secs(4), LIMIT, || size(&went));
        assert!(lost.share <= 1.6, "half the limit besides, at most: {lost:?}");
        used("after a kill", &went, 0.97, 2);
    }
    until("both hosts still", || redis.ask("ZCARD test:hosts") == ":2");
}

/// How often this thread has gone to sleep by itself, as it would to wait for somebody.
fn slept() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
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
        let (before, begun) = (slept(), Instant::now());
        let mut call = begin(&farcall);
        let sent = matches!(call.step(), Step::Send(_));
        let took = begun.elapsed();
        // Where it did not sleep, it was the machine that had no time for it.
        if slept() > before {
            slowest = slowest.max(took);
        }
        if sent {
            went += 1;
            call.head(200);
        }
        call.end();
        counter(&farcall, "unanswered_leases") >= 2
    });
    println!("{went} calls went, the slowest step that waited for anything took {slowest:?}");
    // Far below the time that an answer of the store may take.
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
    assert!(went > 0);
    // A quarter of the limit is this host's share, as the configuration says.
    let rate = || {
        let (begun, mut went) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(2) {
            went += u64::from(matches!(begin(&farcall).step(), Step::Send(_)));
            std::thread::yield_now();
        }
        let rate = went as f64 / begun.elapsed().as_secs_f64() / LIMIT as f64;
        assert!(rate <= 0.30, "{rate}");
        rate
    };
    let rates: Vec<f64> = std::iter::repeat_with(rate).take(3).collect();
    assert!(rates.iter().any(|rate| *rate >= 0.2), "{rates:?}");
}
