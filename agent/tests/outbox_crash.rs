//! Processes that put and deliver are killed at any moment, and stopped: nothing that was acknowledged is lost,
//! nothing is delivered twice without the same idempotency key, the order of each key holds.
//!
//! 100 kills; FARCALL_CRASH_ROUNDS says how many else.
#![cfg(feature = "outbox")]
#![allow(clippy::unwrap_used)]

mod outbox_support;

use farcall_agent::outbox::Parcel;
use farcall_agent::{Farcall, Options};
use outbox_support::judge::{Process, acknowledged, home, judge, judge_between, pending, random, until};
use outbox_support::{Got, Home, Vendor, config, on_each_store};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeSet, HashSet};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// What one process puts, at most, before it only delivers.
const PUTS: usize = 40;
const SLOTS: usize = 3;

/// This program again, as a process that puts calls under its name and delivers everybody's, until its stdin ends.
fn child(name: &str, puts: usize, home: &Path, vendor: &Vendor) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_body", "--nocapture", "--test-threads=1"]);
    command.env("OUTBOX_CHILD", name).env("OUTBOX_PUTS", puts.to_string()).env("FARCALL_HOME", home);
    command.env("OUTBOX_URL", vendor.url("/"));
    Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
}

/// Not a test of its own: the body of the processes that others start.
#[test]
fn child_body() {
    let Ok(name) = std::env::var("OUTBOX_CHILD") else { return };
    let (url, puts) = (std::env::var("OUTBOX_URL").unwrap(), std::env::var("OUTBOX_PUTS").unwrap());
    let farcall = Farcall::start(Options { service: Some("shop".into()), hub: false, ..Options::default() });
    let outbox = farcall.outbox().unwrap();
    let told_to_end = thread::spawn(|| std::io::stdin().read(&mut [0]));
    let (puts, mut taken): (usize, usize) = (puts.parse().unwrap(), 0);
    // What was refused may have been taken after all: each try has a number of its own.
    for number in 0.. {
        if taken == puts {
            break;
        }
        // Every third call goes without an order, the others in one of their process or in one of all.
        let key = [None, Some(name.clone()), Some("all".to_owned())][number % 3].clone();
        let mut parcel =
            Parcel::new("POST", &url).body(format!("{name} {number} {}", key.as_deref().unwrap_or("-")));
        if let Some(key) = key {
            parcel = parcel.order_key(key);
        }
        if let Ok(receipt) = outbox.put(parcel) {
            // Only now does the application know.
            let line = format!("acknowledged {name} {number} {}\n", receipt.idempotency_key);
            let _ = std::io::stdout().write_all(line.as_bytes());
            taken += 1;
        } else {
            // Until a server that is down is up again, or nobody waits for that any longer.
            if number >= puts && told_to_end.is_finished() {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
    let _ = told_to_end.join();
    farcall.shutdown();
}

fn rounds(usual: usize) -> usize {
    std::env::var("FARCALL_CRASH_ROUNDS").map_or(usual, |rounds| rounds.parse().unwrap())
}

#[derive(Default)]
struct Known {
    /// Calls that processes were told are safe, with their keys.
    acknowledged: Vec<(String, String)>,
    /// How many these were when each process began.
    begun: Vec<(String, usize)>,
}

impl Known {
    fn begins(&mut self, name: &str) {
        self.begun.push((name.to_owned(), self.acknowledged.len()));
    }
}

type Kept = Mutex<Known>;

/// A request of `name`, the first one under the key of all.
fn first_of(name: &str) -> Got {
    Got {
        line: "POST / HTTP/1.1".into(),
        headers: vec![("idempotency-key".into(), name.into())],
        body: format!("{name} 2 all"),
        at: Duration::ZERO,
        port: 1,
    }
}

#[test]
fn the_judge_knows_the_order_between_processes() {
    let mut known = Known::default();
    known.begins("p0");
    known.acknowledged.push(("p0 2".into(), "p0".into()));
    known.begins("p1");
    let judged = |order: [&str; 2]| judge_between(&order.map(first_of), &known.acknowledged, &known.begun);
    assert_eq!(judged(["p0", "p1"]), 1);
    assert!(std::panic::catch_unwind(|| judged(["p1", "p0"])).is_err());
}

/// Has all the others end as well when the thread that holds it ends, well or not.
#[cfg(feature = "postgres")]
struct Ends<'a>(&'a AtomicBool);

#[cfg(feature = "postgres")]
impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Starts processes and kills them, several at once, for so many rounds or until it is over.
fn kill_many(rounds: usize, home: &Path, vendor: &Vendor, kept: &Kept, over: &AtomicBool) {
    let round = AtomicUsize::new(0);
    let seed = u64::from(std::process::id());
    println!("seed {seed}, {rounds} rounds");
    thread::scope(|scope| {
        for slot in 0..SLOTS as u64 {
            let round = &round;
            scope.spawn(move || {
                let mut dice: u64 = (seed + slot + 1) * 0x9E37_79B9;
                loop {
                    let number = round.fetch_add(1, Ordering::Relaxed);
                    if number >= rounds || over.load(Ordering::Acquire) {
                        return;
                    }
                    let name = format!("p{number}");
                    kept.lock().unwrap().begins(&name);
                    let mut child = child(&name, PUTS, home, vendor);
                    let stdout = child.stdout.take().unwrap();
                    let (first, hears) = channel();
                    let reader = thread::spawn(move || acknowledged(stdout, &first));
                    // Every second one dies at any moment of its life, the others in the midst of their work, where
                    // it comes to any.
                    if number % 2 == 1 {
                        let _ = hears.recv_timeout(Duration::from_secs(60));
                    }
                    thread::sleep(Duration::from_micros(random(&mut dice) % 200_000));
                    child.kill().unwrap();
                    child.wait().unwrap();
                    let told = reader.join().unwrap();
                    kept.lock().unwrap().acknowledged.extend(told);
                }
            });
        }
    });
}

/// Delivers the rest, and looks at all that the vendor got. How many calls were acknowledged, and how many processes
/// put under an order key under which others had put before.
fn deliver_and_judge(home: &Path, vendor: &Vendor, kept: Kept) -> (usize, usize) {
    let mut last = child("last", 1, home, vendor);
    until("the rest to be delivered", Duration::from_secs(600), || pending(home) == 0);
    drop(last.stdin.take());
    last.wait().unwrap();
    let (got, Known { acknowledged: kept, begun }) = (vendor.got(), kept.into_inner().unwrap());
    judge(&got, &kept);
    let pairs = judge_between(&got, &kept, &begun);
    println!("{pairs} pairs of a process and what was acknowledged before it, in order");
    let different: BTreeSet<&str> = got.iter().map(|got| got.body.as_str()).collect();
    println!("{} acknowledged, {} delivered, {} requests", kept.len(), different.len(), got.len());
    (kept.len(), pairs)
}

/// A vendor that does not make it easy.
fn vendor() -> Vendor {
    let vendor = Vendor::start();
    vendor.answer_next(&vec!["200 OK"; 20].into_iter().chain(["hang up", "503 Busy"]).collect::<Vec<_>>());
    vendor
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_comes_twice_under_two_keys_whoever_is_killed_when() {
    let (rounds, vendor, kept) = (rounds(100), vendor(), Kept::default());
    let home = home(&vendor);
    kill_many(rounds, home.path(), &vendor, &kept, &AtomicBool::new(false));
    let (kept, pairs) = deliver_and_judge(home.path(), &vendor, kept);
    assert!(rounds < 20 || pairs > 0, "the order between processes was never put to the test");
    assert!(kept >= rounds / 2, "every second process lived long enough to put some: {kept}");
}

#[cfg(feature = "postgres")]
#[test]
fn the_same_holds_in_a_postgres_that_is_killed_itself_now_and_then() {
    use outbox_support::postgres::Server;

    let Some(server) = Server::start() else { return };
    let (rounds, vendor, kept) = (rounds(40), vendor(), Kept::default());
    let mut home = Home::in_a_file();
    home.settings = format!("[outbox_store]\nstore = \"{}\"\ntimeout = \"10s\"\n", server.database());
    home.configure(&config(&vendor));
    let (over, kills) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ends = Ends(&over);
            let (mut dice, mut known) = (u64::from(std::process::id()) | 1, 0);
            loop {
                // Between two of its deaths some calls are acknowledged, however slow the machine is.
                let news = || kept.lock().unwrap().acknowledged.len() > known || over.load(Ordering::Acquire);
                until("a call to be acknowledged", Duration::from_secs(600), news);
                if over.load(Ordering::Acquire) {
                    return;
                }
                thread::sleep(Duration::from_micros(random(&mut dice) % 1_000_000));
                server.kill();
                kills.fetch_add(1, Ordering::Relaxed);
                server.run();
                known = kept.lock().unwrap().acknowledged.len();
            }
        });
        let _ends = Ends(&over);
        kill_many(rounds, home.path(), &vendor, &kept, &over);
    });
    let (kept, _) = deliver_and_judge(home.path(), &vendor, kept);
    let kills = kills.into_inner();
    println!("the server was killed {kills} times");
    assert!(kept >= kills && kills > 0, "{kept} acknowledged, {kills} kills of the server");
}

fn is_stopped(pid: Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok())
        .all(|status| status.lines().any(|line| line.starts_with("State:") && line.contains('T')))
}

/// Stops a process. Where the outbox is a file, at a moment at which it is not writing: one that is keeps all others
/// from writing until it goes on, as docs/outbox.md says. A PostgreSQL ends the session of who is.
fn stop(pid: Pid, home: &Home) {
    let all_stand_still = || {
        kill_process(pid, Signal::STOP).unwrap();
        until("all threads to stand still", Duration::from_secs(60), || is_stopped(pid));
    };
    if !home.settings.is_empty() {
        return all_stand_still();
    }
    let connection = rusqlite::Connection::open(home.path().join("outbox.db")).unwrap();
    connection.busy_timeout(Duration::from_millis(300)).unwrap();
    until("a moment between commits", Duration::from_secs(120), || {
        all_stand_still();
        if connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok() {
            return true;
        }
        kill_process(pid, Signal::CONT).unwrap();
        false
    });
}

fn a_holder_that_was_stopped_sends_nothing_after_its_lease_passed_on(home: Home) {
    let vendor = Vendor::start();
    home.configure(&config(&vendor));
    vendor.delay(Duration::from_millis(20));
    let mut first = child("first", 300, home.path(), &vendor);
    until("the first process to deliver", Duration::from_secs(120), || vendor.got().len() > 20);
    let pid = Pid::from_child(&first);
    stop(pid, &home);
    let stopped = vendor.got().len();
    let mut second = child("second", 3, home.path(), &vendor);
    until("the second one to take over", Duration::from_secs(120), || {
        let got = vendor.got();
        got[stopped.min(got.len())..].iter().any(|got| got.body.starts_with("second"))
    });
    until("all to be delivered", Duration::from_secs(300), || pending(home.path()) == 0);
    let before = vendor.got();
    kill_process(pid, Signal::CONT).unwrap();
    // The first one goes on: it has calls to put yet, and those it may not deliver itself.
    drop(first.stdin.take());
    let told = acknowledged(first.stdout.take().unwrap(), &channel().0);
    first.wait().unwrap();
    until("what the first one put since", Duration::from_secs(300), || pending(home.path()) == 0);
    drop(second.stdin.take());
    second.wait().unwrap();
    let got = vendor.got();
    judge(&got, &told);
    let known: HashSet<&str> = before.iter().map(|got| got.body.as_str()).collect();
    let again: Vec<&Got> =
        got[before.len()..].iter().filter(|got| known.contains(got.body.as_str())).collect();
    // One thread sends, and asks before each write. Where it was stopped right between the two, that one write comes
    // late, as docs/outbox.md says.
    assert!(again.len() <= 1, "sent by a holder whose lease had passed on: {again:?}");
}

on_each_store! {
    a_holder_that_was_stopped_sends_nothing_after_its_lease_passed_on
}
