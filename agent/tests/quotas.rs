//! One quota, many processes: together they use what it allows, and no more, whoever dies.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall::{Head, Step};
use farcall_agent::{Farcall, Options};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};
use support::{Children, child, counter, options, role, until};

/// The bodies of the child processes of these tests; as a test of its own it has nothing to do.
#[test]
fn child_body() {
    let Some(role) = role() else { return };
    let home = PathBuf::from(std::env::var_os("FARCALL_HOME").unwrap());
    match role.as_str() {
        "hammers" => hammers(&home),
        "forks" => forks(&home),
        other => panic!("no such role: {other}"),
    }
}

/// Units a second: so few that a machine without time for us can make as many calls. What it has no time for now stays
/// for later, since a minute's worth may gather; so nothing is lost but by an error.
const LIMIT: u64 = 100;
const BURST: u64 = 60 * LIMIT;

fn quota(limit: &str, burst: u64, more: &str) -> String {
    format!(
        "[[quota]]\nname = \"q\"\nmatch = {{ vendor = \"stripe\" }}\nlimit = \"{limit}\"\nburst = {burst}\n{more}\n"
    )
}

fn begin(farcall: &Farcall) -> farcall_agent::CallGuard {
    farcall.guard(farcall.begin(&Head::new("GET", "https://api.stripe.com/v1/balance")))
}

/// Calls as fast as the quota lets it, and adds a byte to `went` for each call that went, until it is killed.
fn hammers(home: &Path) {
    let farcall = Farcall::start(Options { flush_every: Some(Duration::from_secs(1)), ..options(home) });
    assert_eq!(counter(&farcall, "unshared_homes"), 0);
    let mut went = OpenOptions::new().append(true).open(home.join("went")).unwrap();
    println!("\nstarted");
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

fn start(home: &Path) -> Child {
    let mut child = child("hammers", home).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("started")));
    child
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).unwrap().len()
}

#[test]
fn a_quota_neither_oversteps_nor_is_lost_when_processes_are_killed() {
    const PROCESSES: usize = 8;
    const KILLS: u64 = 60;
    let home = tempfile::tempdir().unwrap();
    let went = home.path().join("went");
    File::create(&went).unwrap();
    let rules = quota(&format!("{BURST} requests / 60s"), BURST, "max_wait = \"10s\"");
    fs::write(home.path().join("farcall.toml"), rules).unwrap();
    let begun = Instant::now();
    let mut children = Children((0..PROCESSES).map(|_| start(home.path())).collect());
    until("the first call", || size(&went) > 0);
    let first = Instant::now();
    for kill in 0..KILLS {
        // The first ones while there is something left of the burst, the others while all wait for their slots.
        let mark = (BURST + BURST / 10) * kill / KILLS;
        until("so many calls", || size(&went) >= mark);
        // SIGKILL, at whatever instruction it is.
        let victim = &mut children.0[kill as usize * 5 % PROCESSES];
        victim.kill().unwrap();
        victim.wait().unwrap();
        *victim = start(home.path());
    }
    // Who is killed takes at most one unit along, and who waits has a slot that is to come yet.
    let lost = KILLS + PROCESSES as u64 + 1;
    until("all that is allowed to be used", || {
        let allowed = BURST + LIMIT * first.elapsed().as_secs();
        size(&went) + lost >= allowed
    });
    let (used, lasted) = (size(&went), begun.elapsed());
    drop(children);
    let allowed = BURST as f64 + LIMIT as f64 * lasted.as_secs_f64();
    println!("{used} of {allowed:.0} that are allowed in {lasted:.1?}, with {KILLS} kills");
    assert!(used as f64 <= allowed + 1.0, "{used} of {allowed}");
}

fn forks(home: &Path) {
    let farcall = Farcall::start(options(home));
    let went =
        |farcall: &Farcall| (0..100).take_while(|_| matches!(begin(farcall).step(), Step::Send(_))).count();
    let before = (0..4).filter(|_| matches!(begin(&farcall).step(), Step::Send(_))).count();
    farcall.before_fork();
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            farcall.after_fork();
            std::process::exit(i32::try_from(went(&farcall)).unwrap());
        }
        fork::Fork::Parent(pid) => {
            farcall.after_fork_in_parent();
            let child = std::process::ExitStatus::from_raw(fork::waitpid(pid).unwrap());
            println!("\nwent {before} {} {}", child.code().unwrap(), went(&farcall));
        }
    }
}

#[test]
fn forks_share_a_quota() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("farcall.toml"), quota("10 requests / 1h", 10, "max_wait = \"0s\"")).unwrap();
    let output = child("forks", home.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("went 4 6 0"), "{said}");
}

#[test]
fn a_quota_of_one_process_is_its_own() {
    let home = tempfile::tempdir().unwrap();
    let own = quota("10 requests / 1h", 10, "max_wait = \"0s\"\nshared = \"process\"");
    fs::write(home.path().join("farcall.toml"), own).unwrap();
    for _ in 0..2 {
        let farcall = Farcall::start(options(home.path()));
        let went = (0..100).take_while(|_| matches!(begin(&farcall).step(), Step::Send(_))).count();
        assert_eq!(went, 10);
    }
}

#[test]
fn where_memory_cannot_be_shared_each_process_keeps_to_the_quota_alone_and_says_so() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("quota.map")).unwrap();
    fs::write(home.path().join("farcall.toml"), quota("10 requests / 1h", 10, "max_wait = \"0s\"")).unwrap();
    let farcall = Farcall::start(options(home.path()));
    let went = (0..100).take_while(|_| matches!(begin(&farcall).step(), Step::Send(_))).count();
    assert_eq!((went, counter(&farcall, "unshared_homes")), (10, 1));
    assert!(counter(&farcall, "unshared_quotas") > 0);
    until("a flush", || farcall.flush().pending == 0);
}

#[test]
fn where_memory_cannot_be_shared_a_rule_may_say_that_nothing_goes() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("quota.map")).unwrap();
    fs::write(home.path().join("farcall.toml"), quota("10 requests / 1h", 10, "on_error = \"refuse\""))
        .unwrap();
    let farcall = Farcall::start(options(home.path()));
    let step = begin(&farcall).step();
    let Step::Refuse(refusal) = step else { panic!("{step:?}") };
    assert_eq!((&*refusal.rule, &*refusal.reason), ("q", "unshared"));

    let sound = tempfile::tempdir().unwrap();
    fs::write(sound.path().join("farcall.toml"), quota("10 requests / 1h", 10, "on_error = \"refuse\""))
        .unwrap();
    assert!(matches!(begin(&Farcall::start(options(sound.path()))).step(), Step::Send(_)));
}
