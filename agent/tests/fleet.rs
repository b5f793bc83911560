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
use support::{Children, PATIENCE, child, counter, options, role, until};

const HOSTS: usize = 8;
/// Units a second: so few that a machine without time for us can make as many calls.
const LIMIT: u64 = 200;
/// What may come late, by a second.
const BURST: u64 = LIMIT;
/// Of the limit, in seconds: grants are asked for ten times in it, and hold for three tenths.
const PERIOD: u64 = 4;

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
        "[share]\nredis = \"redis://127.0.0.1:{port}\"\nprefix = \"test:\"\n[[quota]]\nname = \"q\"\nmatch = {{ vendor = \"stripe\" }}\nlimit = \"{} requests / {PERIOD}s\"\nburst = {BURST}\nshared = \"fleet\"\n{more}\n",
        LIMIT * PERIOD
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
            ended || redis.answers()
        });
        (!ended).then_some(redis)
    }

    /// Whether it is there; another one that was faster to take the port is not meant.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mine = format!("process_id:{}", self.server.id());
        stream.write_all(b"INFO server\r\nQUIT\r\n").is_ok()
            && BufReader::new(stream).lines().map_while(Result::ok).any(|line| line.trim() == mine)
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

/// What was used of the quota during a while, in shares of the limit.
fn window(went: &Path) -> (f64, Duration) {
    let (begun, already) = (Instant::now(), size(went));
    std::thread::sleep(Duration::from_secs(6));
    // The clock after the count: a break between them must not look like use.
    let used = size(went) - already;
    let lasted = begun.elapsed();
    (used as f64 / (LIMIT as f64 * lasted.as_secs_f64()), lasted)
}

/// Looks on until the hosts use at least `least` of the limit, and no more than it and `bursts`.
///
/// A host that gets no time to ask for its grants goes on with its share beside what the others were granted: that is
/// as promised, and a busy machine makes it happen. So single windows may be below and above, within the sum of all
/// grants and all shares.
fn used(what: &str, went: &Path, least: f64, bursts: u64) {
    let mut seen = Vec::new();
    for _ in 0..20 {
        let (share, lasted) = window(went);
        let allowed = |limits: f64, bursts: u64| {
            1.01 * (limits + (bursts * BURST) as f64 / (LIMIT as f64 * lasted.as_secs_f64()))
        };
        assert!(share <= allowed(2.0, bursts + 1), "{what}: {share} in {lasted:?}");
        seen.push(share);
        if share >= least && share <= allowed(1.0, bursts) {
            println!(
                "{what}: {:.1} % of what is allowed is used (at least {:.0} %)",
                share * 100.0,
                least * 100.0
            );
            return;
        }
    }
    panic!("{what}: never at least {least} and no more than allowed: {seen:?}");
}

#[test]
fn hosts_share_a_quota_and_go_on_when_the_store_dies_and_recover_when_it_is_back() {
    let home = tempfile::tempdir().unwrap();
    let redis = Redis::start(home.path());
    let went = home.path().join("went");
    File::create(&went).unwrap();
    let names: [String; HOSTS] = std::array::from_fn(|host| format!("host-{host}"));
    let mut hammers = hammers(home.path(), &redis, &names.each_ref().map(|name| (name.as_str(), 1)));
    let_go(&mut hammers);
    used("8 hosts", &went, 0.95, 1);
    used("8 hosts, later", &went, 0.95, 0);

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
    used("after its restart", &went, 0.95, 2);
    // Wiped while it runs.
    assert_eq!(redis.ask("FLUSHALL"), "+OK");
    used("after it was wiped", &went, 0.95, 2);
}

#[test]
fn the_processes_of_one_host_ask_as_one_and_another_takes_over_when_the_one_that_asks_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let redis = Redis::start(home.path());
    let went = home.path().join("went");
    File::create(&went).unwrap();
    let mut hammers = hammers(home.path(), &redis, &[("a", 3), ("b", 1)]);
    let_go(&mut hammers);
    used("two hosts, four processes", &went, 0.95, 1);
    // One of these two was the one that asked, if it was not the third.
    for child in hammers.0.drain(..2) {
        drop(Children(vec![child]));
        // Until another may lead, its host has its share of the limit, beside what the other host takes of it all.
        used("after a kill", &went, 0.95, 2);
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
    // Who waited for the store would be asleep whenever its time is over.
    let (mut went, mut failures, mut sleeps, mut awake) = (0, 0, slept(), 0);
    let begun = Instant::now();
    while awake < 2 {
        assert!(begun.elapsed() < PATIENCE, "asleep at each of {failures} failures");
        let mut call = begin(&farcall);
        if matches!(call.step(), Step::Send(_)) {
            went += 1;
            call.head(200);
        }
        call.end();
        let now = (counter(&farcall, "unanswered_leases"), slept());
        awake += u32::from(now.0 > failures && now.1 == sleeps);
        (failures, sleeps) = now;
    }
    println!("{went} calls went, {failures} questions were not answered");
    assert!(went > 0);
    // A quarter of the limit and of the burst is this host's share, as the configuration says.
    let rate = || {
        let (begun, mut went) = (Instant::now(), 0_u64);
        while begun.elapsed() < Duration::from_secs(2) {
            went += u64::from(matches!(begin(&farcall).step(), Step::Send(_)));
            std::thread::yield_now();
        }
        let share = LIMIT as f64 / 4.0 * begun.elapsed().as_secs_f64();
        assert!(went as f64 <= 1.01 * share + (BURST / 4) as f64 + 1.0, "{went} of {share}");
        went as f64 / share
    };
    let mut rates = std::iter::repeat_with(rate).take(20);
    assert!(rates.any(|rate| rate >= 0.8), "less than its share");
}

#[test]
fn a_rule_may_say_that_nothing_goes_while_the_store_is_away() {
    let home = tempfile::tempdir().unwrap();
    let redis = Redis::start(home.path());
    let config = config(redis.port, "on_error = \"refuse\"\nmax_wait = \"0s\"");
    fs::write(home.path().join("farcall.toml"), config).unwrap();
    let farcall = Farcall::start(options(home.path()));
    let refused = || match begin(&farcall).step() {
        Step::Send(_) => None,
        Step::Refuse(refusal) => Some(refusal.reason.to_string()),
        step => panic!("{step:?}"),
    };
    until("a grant", || refused().is_none());
    let port = redis.port;
    drop(redis);
    until("the grant to run out", || refused().is_some_and(|reason| reason == "unshared"));
    let mut again = None;
    until("the port", || {
        again = Redis::start_on(home.path(), port);
        again.is_some()
    });
    until("a grant again", || refused().is_none());
}
