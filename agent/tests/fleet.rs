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
const LIMIT: u64 = 400;
/// Of the limit, in seconds: grants are asked for ten times in it, hold for three tenths, and are waited for two more.
const PERIOD: u64 = 2;
/// What may come late, by a period: what the machine has no time for now stays for later, so nothing is lost but by an
/// error.
const BURST: u64 = LIMIT * PERIOD;
/// What is looked at as one.
const WINDOW: Duration = Duration::from_secs(4);

/// The bodies of the child processes of these tests; as a test of its own it has nothing to do.
#[test]
fn child_body() {
    let Some(role) = role() else { return };
    assert_eq!(role, "hammers");
    let home = PathBuf::from(std::env::var_os("FARCALL_HOME").unwrap());
    let farcall = Farcall::start(options(&home));
    let mut went = OpenOptions::new().append(true).open(home.parent().unwrap().join("went")).unwrap();
    // Each host has a letter.
    let letter = *home.as_os_str().as_encoded_bytes().last().unwrap();
    println!("\nstarted");
    // All begin at the same time.
    std::io::stdin().read_exact(&mut [0]).unwrap();
    loop {
        let mut call = begin(&farcall);
        loop {
            match call.step() {
                Step::Wait(until) => std::thread::sleep(until.since(call.now())),
                Step::Send(_) => {
                    went.write_all(&[letter]).unwrap();
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
    hammers_by(&config(redis.port, ""), home, redis, hosts)
}

fn hammers_by(config: &str, home: &Path, redis: &Redis, hosts: &[(&str, usize)]) -> Children {
    // The files first: a process that starts while its file is written anew would read half of it.
    for (host, _) in hosts {
        fs::create_dir(home.join(host)).unwrap();
        fs::write(home.join(host).join("farcall.toml"), config).unwrap();
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

/// How many calls went until when. A break between the two must look neither like use nor like time without any.
fn count(went: &Path) -> (u64, Instant) {
    loop {
        let (before, used) = (Instant::now(), size(went));
        if before.elapsed() < Duration::from_millis(5) {
            return (used, before);
        }
    }
}

/// Lets what was left of bursts go; what follows is the limit alone.
fn without_bursts(went: &Path) {
    let enough = size(went) + BURST + 2 * LIMIT;
    until("the bursts to be used up", || size(went) >= enough);
}

/// No window of those oversteps the limit by more than 1 %, and together they use at least 97 %.
fn keeps_to_the_limit(what: &str, went: &Path, windows: usize) {
    let used = keeps_to(LIMIT as f64, BURST as f64, what, went, windows);
    assert!(used >= 0.97, "{what}: {used:.3} of the limit");
}

/// Looks on for so many windows, of which none may overstep `rate` (a second) by more than 1 %; gives what they use of it
/// together.
///
/// What a window leaves may come in a later one, up to a burst: that is what a burst means. So where the machine stood
/// still there are some more, in which it comes, unless it is lost. The first may have what refills between two questions.
fn keeps_to(rate: f64, burst: f64, what: &str, went: &Path, windows: usize) -> f64 {
    let mut left = rate * PERIOD as f64 / 10.0 + 1.0;
    let burst = burst.max(left);
    let (before, began) = count(went);
    let (mut used, mut now) = (before, began);
    let mut shares = Vec::new();
    let mut all = 0.0;
    for window in 0..windows * 4 {
        if window >= windows && all >= 0.97 {
            break;
        }
        std::thread::sleep(WINDOW);
        let (then, start) = (used, now);
        (used, now) = count(went);
        let limit = rate * (now - start).as_secs_f64();
        let went = (used - then) as f64;
        shares.push(went / limit);
        assert!(went <= 1.01 * limit + left, "{what}: {went} of {limit:.0} and {left:.0}; {shares:.3?}");
        left = (left + limit - went).clamp(0.0, burst);
        all = (used - before) as f64 / (rate * (now - began).as_secs_f64());
    }
    println!("{what}: {:.1} % of the limit is used, {shares:.3?}", all * 100.0);
    all
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
    without_bursts(&went);
    let before = fs::read(&went).unwrap().len();
    // So long that chance alone gives no host so little.
    keeps_to_the_limit("8 hosts", &went, 10);
    let went_since = fs::read(&went).unwrap().split_off(before);
    let of =
        |host: &String| went_since.iter().filter(|letter| host.as_bytes().last() == Some(letter)).count();
    let each: Vec<usize> = names.iter().map(of).collect();
    println!("each of 8 hosts: {each:?}");
    // All want more than there is, and none gets far less than the others.
    assert!(each.iter().all(|calls| calls * HOSTS * 2 >= went_since.len()), "{each:?}");

    // Dead, and all that it knew with it.
    let port = redis.port;
    drop(redis);
    without_bursts(&went);
    keeps_to_the_limit("without the store", &went, 2);

    let mut again = None;
    until("the port", || {
        again = Redis::start_on(home.path(), port);
        again.is_some()
    });
    let redis = again.unwrap();
    until("all hosts again", || redis.ask("ZCARD test:hosts") == format!(":{HOSTS}"));
    without_bursts(&went);
    keeps_to_the_limit("after its restart", &went, 2);
    // Wiped while it runs.
    assert_eq!(redis.ask("FLUSHALL"), "+OK");
    without_bursts(&went);
    keeps_to_the_limit("after it was wiped", &went, 2);
}

#[test]
fn the_processes_of_one_host_ask_as_one_and_another_takes_over_when_the_one_that_asks_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let redis = Redis::start(home.path());
    let went = home.path().join("went");
    File::create(&went).unwrap();
    let mut hammers = hammers(home.path(), &redis, &[("a", 3), ("b", 1)]);
    let_go(&mut hammers);
    without_bursts(&went);
    keeps_to_the_limit("two hosts, four processes", &went, 2);
    // One of these two was the one that asked, if it was not the third.
    for child in hammers.0.drain(..2) {
        drop(Children(vec![child]));
        keeps_to_the_limit("after a kill", &went, 2);
    }
    until("both hosts still", || redis.ask("ZCARD test:hosts") == ":2");
}

#[test]
fn a_host_that_is_alone_uses_the_whole_of_a_limit_that_is_no_round_number() {
    let home = tempfile::tempdir().unwrap();
    let redis = Redis::start(home.path());
    let went = home.path().join("went");
    File::create(&went).unwrap();
    // A question brings one unit and a half.
    let config = config(redis.port, "")
        .replace(&format!("{} requests", LIMIT * PERIOD), "15 requests")
        .replace(&format!("burst = {BURST}"), "burst = 1");
    let mut hammers = hammers_by(&config, home.path(), &redis, &[("a", 2)]);
    let_go(&mut hammers);
    until("the first calls", || size(&went) >= 15);
    let used = keeps_to(15.0 / PERIOD as f64, 1.0, "one host, 15 in two seconds", &went, 3);
    // With so small a burst, what refills while the machine has no time for a question is lost.
    assert!(used >= 0.9, "{used}");
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
    // The first has its part of the burst.
    let mut rates = std::iter::repeat_with(rate).skip(1).take(20);
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

#[test]
fn what_is_not_ours_under_a_key_of_one_quota_degrades_that_quota_alone_until_it_is_gone() {
    let home = tempfile::tempdir().unwrap();
    let redis = Redis::start(home.path());
    let refuses = "on_error = \"refuse\"\nmax_wait = \"0s\"";
    let other = "[[quota]]\nname = \"other\"\nmatch = { vendor = \"github\" }\nlimit = \"1000 requests / 1s\"\nburst = 100\nshared = \"fleet\"\n";
    let config = format!("{}{other}{refuses}\n", config(redis.port, refuses));
    fs::write(home.path().join("farcall.toml"), config).unwrap();
    let farcall = Farcall::start(options(home.path()));
    let refused = |url: &str| match farcall.guard(farcall.begin(&Head::new("GET", url))).step() {
        Step::Send(_) => None,
        Step::Refuse(refusal) => Some(refusal.reason.to_string()),
        step => panic!("{step:?}"),
    };
    let (broken, whole) = ("https://api.stripe.com/v1/balance", "https://api.github.com/meta");
    until("a grant", || refused(broken).is_none());
    // That of the one quota that was asked for.
    let script = "local k = redis.call('KEYS', 'test:{*}:level') redis.call('SET', k[1], 'x') return #k";
    assert_eq!(redis.ask(&format!("EVAL \"{script}\" 0")), ":1");
    until("its grant to run out", || refused(broken).is_some_and(|reason| reason == "unshared"));
    until("a grant of the other", || refused(whole).is_none());
    // As many questions as a grant outlasts, and more.
    let asked = counter(&farcall, "broken_leases");
    until("more questions", || counter(&farcall, "broken_leases") > asked + 20);
    let mut went = 0;
    until("calls of the other", || {
        assert_ne!(refused(whole).as_deref(), Some("unshared"));
        went += 1;
        went > 20
    });
    assert_eq!(counter(&farcall, "unanswered_leases"), 0);
    let script = "local n = 0 for _, k in ipairs(redis.call('KEYS', 'test:*')) do if redis.call('TYPE', k).ok == 'string' then n = n + redis.call('DEL', k) end end return n";
    assert_eq!(redis.ask(&format!("EVAL \"{script}\" 0")), ":1");
    until("a grant again", || refused(broken).is_none());
}
