//! Engines of one host, each as another process has it, and what lies on the disk between them.
#![allow(clippy::unwrap_used)]

use super::shared::{Beyond, Shared};
use super::{DEFAULT_BYTES, Memory};
use crate::clock::Clock;
use farcall::matcher::Matcher;
use farcall::{Caller, Config, Engine, Head, Step, Timestamp};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

pub(super) const URL: &str = "https://api.example.com/v1/rates?base=EUR";
const SECRET: &str = "sk_live_51HxJ2eKZvKYlo2C0";
const MIB: u64 = 1 << 20;
/// However slow the machine is, what is to be written is.
const PATIENT: Duration = Duration::from_secs(120);

pub(super) fn now() -> Timestamp {
    Clock::new().now()
}

/// A process.
pub(super) struct Process {
    pub(super) engine: Engine,
    pub(super) shared: Arc<Shared>,
}

impl Process {
    fn start(home: &Path, service: &str, disk: u64) -> Self {
        Self::with(
            home,
            service,
            &Beyond { disk: Some((disk, Duration::from_secs(60))), ..Beyond::default() },
        )
    }

    pub(super) fn with(home: &Path, service: &str, beyond: &Beyond<'_>) -> Self {
        let rules = "[[cache]]\nname = \"all\"\nmatch = {}\nttl = \"1h\"\nmax_bytes = \"64MiB\"\ncoalesce = \"60s\"\n";
        let engine = Engine::new(Config::parse("f", rules).unwrap(), Caller::new(service), 1, 7);
        let shared = Shared::open(home, service, Memory::new(DEFAULT_BYTES), beyond, Box::new(now)).unwrap();
        let shared = Arc::new(shared);
        shared.start().unwrap();
        engine.set_cache_store(Arc::clone(&shared) as _);
        Self { engine, shared }
    }

    /// What a call gets: the body, and whether the vendor was asked, which says `fresh`.
    pub(super) fn get(&self, url: &str, customer: Option<&str>, fresh: &[u8]) -> (Vec<u8>, bool) {
        let headers = [("authorization", format!("Bearer {SECRET}"))];
        let headers: Vec<(String, Vec<u8>)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into_bytes())).collect();
        let head =
            Head::new("GET", url).headers(&headers).body(Some(0), true).caches(true).customer(customer);
        let mut call = self.engine.begin(&head, now(), 1);
        loop {
            match call.step(&self.engine, now()) {
                Step::Wait(until) => std::thread::sleep(until.since(now())),
                Step::Respond(stored) => return (stored.body.to_vec(), false),
                Step::Send(_) => break,
                other => panic!("{other:?}"),
            }
        }
        let vary = vec![("vary".to_owned(), b"accept".to_vec())];
        call.answer(&self.engine, 200, &vary, now());
        assert!(matches!(call.step(&self.engine, now()), Step::Settled));
        call.read(fresh);
        call.end(&self.engine, now());
        (fresh.to_vec(), true)
    }

    /// Changes something there.
    pub(super) fn delete(&self, url: &str) {
        let head = Head::new("DELETE", url).body(Some(0), true).caches(true);
        let mut call = self.engine.begin(&head, now(), 1);
        assert!(matches!(call.step(&self.engine, now()), Step::Send(_)));
        call.answer(&self.engine, 204, &Vec::<(String, Vec<u8>)>::new(), now());
        call.end(&self.engine, now());
    }

    /// All is written, and it goes on.
    pub(super) fn settle(&self) {
        self.shared.stop(PATIENT);
        self.shared.start().unwrap();
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        self.shared.counters().into_iter().find(|(known, _)| known == name).unwrap().1
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shared.stop(PATIENT);
    }
}

fn files(home: &Path) -> Vec<PathBuf> {
    let parts = fs::read_dir(home.join("cache/1")).unwrap().map(|entry| entry.unwrap().path());
    let parts = parts.filter(|path| path.is_dir());
    parts.flat_map(|part| fs::read_dir(part).unwrap().map(|entry| entry.unwrap().path())).collect()
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn what_one_process_keeps_another_one_has_and_so_does_the_next_after_both() {
    let home = home();
    let (one, other) =
        (Process::start(home.path(), "shop", 64 * MIB), Process::start(home.path(), "shop", 64 * MIB));
    assert_eq!(one.get(URL, None, b"a"), (b"a".to_vec(), true));
    assert_eq!(other.get(URL, None, b"b"), (b"a".to_vec(), false));
    drop((one, other));
    let next = Process::start(home.path(), "shop", 64 * MIB);
    assert_eq!(next.get(URL, None, b"c"), (b"a".to_vec(), false));
    assert_eq!(next.get(URL, Some("acme"), b"d"), (b"d".to_vec(), true), "another customer's");
    let stranger = Process::start(home.path(), "billing", 64 * MIB);
    assert_eq!(stranger.get(URL, None, b"e"), (b"e".to_vec(), true), "another service's");
}

#[test]
fn what_lies_on_the_disk_is_for_its_owner_alone_and_says_nothing() {
    let home = home();
    let process = Process::start(home.path(), "shop", 64 * MIB);
    process.get(URL, Some("acme"), b"the body of an answer");
    process.settle();
    let files = files(home.path());
    assert_eq!(files.len(), 2, "an answer, and by what it varies");
    let mut all =
        vec![home.path().join("cache"), home.path().join("cache/1"), home.path().join("cache/1/map")];
    all.extend(files.iter().flat_map(|file| [file.clone(), file.parent().unwrap().to_owned()]));
    for path in &all {
        let metadata = fs::metadata(path).unwrap();
        let allowed = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o777, allowed, "{}", path.display());
        if metadata.is_file() {
            let bytes = fs::read(path).unwrap();
            for word in ["body", "rates", "example", "acme", "accept", &SECRET[..8]] {
                assert!(!bytes.windows(word.len()).any(|part| part == word.as_bytes()), "{word}");
            }
        }
    }
}

#[test]
fn a_torn_or_changed_file_is_never_taken_for_an_answer() {
    let home = home();
    Process::start(home.path(), "shop", 64 * MIB).get(URL, None, b"the right one");
    let whole: Vec<(PathBuf, Vec<u8>)> =
        files(home.path()).into_iter().map(|file| (file.clone(), fs::read(&file).unwrap())).collect();
    for (file, bytes) in &whole {
        for cut in [0, 1, 16, 17, bytes.len() / 2, bytes.len() - 1] {
            for (file, bytes) in &whole {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, bytes).unwrap();
            }
            let torn = if cut % 2 == 0 { bytes[..cut].to_vec() } else { flipped(bytes, cut) };
            fs::write(file, torn).unwrap();
            let process = Process::start(home.path(), "shop", 64 * MIB);
            assert_eq!(process.get(URL, None, b"asked anew"), (b"asked anew".to_vec(), true), "{cut}");
            assert_eq!(process.count("unreadable_answers"), 1);
            process.settle();
            let next = Process::start(home.path(), "shop", 64 * MIB);
            assert_eq!(next.get(URL, None, b""), (b"asked anew".to_vec(), false), "and it is replaced");
        }
    }
}

fn flipped(bytes: &[u8], place: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[place] ^= 1;
    bytes
}

#[test]
fn the_disk_takes_no_more_than_it_may_and_keeps_what_was_read_last() {
    let home = home();
    let process = Process::start(home.path(), "shop", MIB);
    let body = vec![7; 30_000];
    for number in 0..100 {
        process.get(&format!("https://api.example.com/v1/rates/{number}"), None, &body);
        process.settle();
        let lies: u64 = files(home.path()).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(lies <= MIB, "{lies} bytes after {number}");
    }
    assert_eq!(process.count("unwritten_answers"), 0);
    assert!(files(home.path()).len() > 20, "what there is room for stays: {}", files(home.path()).len());
    let next = Process::start(home.path(), "shop", MIB);
    assert!(!next.get("https://api.example.com/v1/rates/99", None, b"x").1);
    process.get("https://api.example.com/v1/large", None, &vec![1; 300_000]);
    process.settle();
    assert_eq!(process.count("unwritten_answers"), 1, "no answer takes more than its part");
}

#[test]
fn what_a_process_that_died_left_half_written_goes_and_counts_for_nothing() {
    let home = home();
    let process = Process::start(home.path(), "shop", MIB);
    process.get(URL, None, b"a");
    process.settle();
    let part = files(home.path())[0].parent().unwrap().to_owned();
    let left = part.join("new-1-0");
    let file = fs::File::create(&left).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(3_600)).unwrap();
    Shared::purge_disk(home.path(), now(), Arc::new(|_| false)).unwrap();
    assert!(!left.exists());
    assert_eq!(process.get(URL, None, b"b"), (b"a".to_vec(), false));
}

#[test]
fn a_purge_takes_it_from_the_disk_and_from_what_comes_from_there() {
    let home = home();
    let (one, other) = (Process::start(home.path(), "shop", MIB), Process::start(home.path(), "shop", MIB));
    for customer in ["acme", "globex"] {
        one.get(URL, Some(customer), b"old");
    }
    one.settle();
    let kept: Vec<(PathBuf, Vec<u8>)> =
        files(home.path()).into_iter().map(|file| (file.clone(), fs::read(&file).unwrap())).collect();
    let which = Matcher::new([("customer", "acme")]).unwrap();
    let of_acme = which.clone();
    let gone = Shared::purge_disk(home.path(), now(), Arc::new(move |answer| answer.label.is_of(&of_acme)));
    assert_eq!(gone.unwrap(), 1);
    assert_eq!(other.get(URL, Some("globex"), b"new"), (b"old".to_vec(), false));
    // What is written after it although it was asked for before.
    other.engine.purge_cache(&which, now());
    other.settle();
    for (file, bytes) in &kept {
        fs::write(file, bytes).unwrap();
    }
    assert_eq!(other.get(URL, Some("acme"), b"new"), (b"new".to_vec(), true));
}

#[test]
fn what_one_process_changes_no_other_one_hands_out() {
    let home = home();
    let (one, other) = (Process::start(home.path(), "shop", MIB), Process::start(home.path(), "shop", MIB));
    one.get(URL, None, b"old");
    assert_eq!(other.get(URL, None, b""), (b"old".to_vec(), false));
    one.delete("https://api.example.com/v1/rates");
    assert_eq!(other.get(URL, None, b"new"), (b"new".to_vec(), true));
    drop((one, other));
    let next = Process::start(home.path(), "shop", MIB);
    assert_eq!(next.get(URL, None, b""), (b"new".to_vec(), false));
}

#[test]
fn a_disk_that_fails_costs_a_call_nothing_but_what_it_would_have_saved() {
    let home = home();
    let process = Process::start(home.path(), "shop", MIB);
    process.get(URL, None, b"old");
    process.settle();
    for file in files(home.path()) {
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
    }
    let next = Process::start(home.path(), "shop", MIB);
    assert_eq!(next.get(URL, None, b"new"), (b"new".to_vec(), true));
    assert!(next.count("failed_cache_reads") > 0);
    assert_eq!(next.get(URL, None, b""), (b"new".to_vec(), false), "in memory");
    next.settle();
    assert!(next.count("unwritten_answers") > 0);
}
