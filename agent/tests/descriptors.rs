//! A process that has no descriptor left while it reads its configuration: it reads it as soon as it can.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall::{Head, Step};
use farcall_agent::{Farcall, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use support::{child, counter, options, role, until};

/// The body of the child process of these tests; as a test of its own it has nothing to do.
#[test]
fn child_body() {
    let Some(role) = role() else { return };
    let home = PathBuf::from(std::env::var_os("FARCALL_HOME").unwrap());
    match role.as_str() {
        "begins-short" => begins_short(&home),
        "runs-short" => runs_short(&home),
        other => panic!("no such role: {other}"),
    }
}

fn deny(reason: &str) -> String {
    format!("[[policy]]\nmatch = {{ vendor = \"stripe\" }}\nverdict = \"deny\"\nreason = \"{reason}\"\n")
}

fn obeys(farcall: &Farcall, reason: &str) -> bool {
    let mut call = farcall.guard(farcall.begin(&Head::new("GET", "https://api.stripe.com/v1/balance")));
    matches!(call.step(), Step::Refuse(refusal) if *refusal.reason == *reason)
}

/// In a directory of its own: what changes beside it would have it looked at again.
fn file_of(home: &Path) -> PathBuf {
    home.join("conf/farcall.toml")
}

fn with_thread(home: &Path) -> Farcall {
    let config = Some(file_of(home));
    Farcall::start(Options { flush_every: Some(Duration::from_secs(1)), config, ..options(home) })
}

/// Long ago, so that nobody looks at the file again because it is new.
fn age(file: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(3_600);
    File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
}

/// No file can be opened until it is dropped.
struct Short(Rlimit);

impl Short {
    fn begin() -> Self {
        let before = getrlimit(Resource::Nofile);
        // The lowest that is free.
        let free = File::open("/dev/null").unwrap().as_raw_fd();
        let current = Some(u64::try_from(free).unwrap());
        setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
        assert_eq!(File::open("/dev/null").unwrap_err().raw_os_error(), Some(24));
        Self(before)
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).unwrap();
    }
}

fn begins_short(home: &Path) {
    let short = Short::begin();
    let farcall = with_thread(home);
    assert!(!obeys(&farcall, "good"));
    drop(short);
    until("the rules of the file", || obeys(&farcall, "good"));
    farcall.shutdown();
}

fn runs_short(home: &Path) {
    let farcall = with_thread(home);
    assert!(obeys(&farcall, "good"));
    let (file, next) = (file_of(home), home.join("next.toml"));
    fs::write(&next, deny("next")).unwrap();
    age(&next);
    let short = Short::begin();
    fs::rename(&next, &file).unwrap();
    until("a try to read it", || counter(&farcall, "rejected_reloads") == 1);
    assert!(obeys(&farcall, "good"), "the rules before it stay in force");
    drop(short);
    until("the rules of the next file", || obeys(&farcall, "next"));
    assert_eq!(counter(&farcall, "rejected_reloads"), 1, "said and counted once");
    farcall.shutdown();
}

fn said_by(role: &str) -> String {
    let home = tempfile::tempdir().unwrap();
    let file = file_of(home.path());
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, deny("good")).unwrap();
    age(&file);
    let output = child(role, home.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{} {said}", String::from_utf8_lossy(&output.stdout));
    said
}

#[test]
fn a_file_that_could_not_be_opened_at_the_start_is_read_once_it_can() {
    let said = said_by("begins-short");
    assert!(said.contains("Too many open files") && said.contains("going on without this file"), "{said}");
}

#[test]
fn a_change_that_could_not_be_opened_is_read_once_it_can() {
    let said = said_by("runs-short");
    assert_eq!(said.matches("was not taken over; the rules before it stay in force").count(), 1, "{said}");
    assert_eq!(said.matches("can be read now; its rules are in force").count(), 1, "{said}");
}
