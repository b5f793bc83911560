//! Disks that fail: a sync or a write with an error, a full one, one that writes less than it was asked to, power
//! that fails with any sectors unsynced; a log that is cut anywhere, a file that was copied back. Nothing that was
//! acknowledged is lost, nothing is delivered under two keys, the order of each key holds.
//!
//! The faults are by seed: 108 rounds, or as many as FARCALL_FAULT_ROUNDS says; FARCALL_FAULT_SEED repeats a run.
#![cfg(all(feature = "outbox", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

mod outbox_support;

use farcall_agent::outbox::{Filter, Item, Operator, OutboxError, Parcel, State};
use farcall_agent::{Farcall, Options};
use outbox_support::judge::{Process, home, judge, pending, random, until};
use outbox_support::{Vendor, shim};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(240);
/// What one process puts.
const PUTS: usize = 32;
/// Rounds that run at once, each lane with an outbox of its own.
const LANES: usize = 3;

/// What goes wrong in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    kind: &'static str,
    /// `any` of the outbox's files, or `db`: the moves from the log.
    file: &'static str,
    /// Operations before it, at most.
    within: u64,
    /// Of each body.
    padding: usize,
}

const fn fault(kind: &'static str, file: &'static str, within: u64, padding: usize) -> Fault {
    Fault { kind, file, within, padding }
}

/// A large body makes for a log that is moved into the file in each round.
const FAULTS: [Fault; 9] = [
    fault("sync", "any", 60, 10),
    fault("sync", "db", 40, 160_000),
    fault("write", "any", 120, 10),
    fault("write", "db", 300, 160_000),
    fault("full", "any", 24, 10),
    fault("full", "db", 300, 160_000),
    fault("short", "any", 60, 3_000),
    fault("power", "any", 150, 3_000),
    fault("power", "db", 300, 160_000),
];

/// This program again, as a process that puts calls under its name, on a disk that fails so.
fn child(name: &str, home: &Path, vendor: &Vendor, padding: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_body", "--nocapture", "--test-threads=1"]);
    command.env("OUTBOX_CHILD", name).env("FARCALL_HOME", home).env("OUTBOX_URL", vendor.url("/"));
    command.env("OUTBOX_PADDING", padding.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Not a test of its own: the body of the processes that others start. Each line of what it says is a put.
#[test]
fn child_body() {
    let Ok(name) = std::env::var("OUTBOX_CHILD") else { return };
    let url = std::env::var("OUTBOX_URL").unwrap();
    let padding = "x".repeat(std::env::var("OUTBOX_PADDING").unwrap().parse().unwrap());
    let farcall = Farcall::start(Options { service: Some("shop".into()), hub: false, ..Options::default() });
    let outbox = farcall.outbox().unwrap();
    let age = std::env::var("OUTBOX_MAX_AGE").ok().map(|age| Duration::from_secs(age.parse().unwrap()));
    for number in 0..PUTS {
        let key = [None, Some(name.clone()), Some("all".to_owned())][number % 3].clone();
        let body = format!("{name} {number} {} {padding}", key.as_deref().unwrap_or("-"));
        let mut parcel = Parcel::new("POST", &url).body(body);
        if let Some(key) = key {
            parcel = parcel.order_key(key);
        }
        if let Some(age) = age {
            parcel = parcel.max_age(age);
        }
        let line = match outbox.put(parcel) {
            Ok(receipt) => format!("acknowledged {name} {number} {}\n", receipt.idempotency_key),
            Err(OutboxError::Stopped(_)) => format!("stopped {number}\n"),
            Err(error) => format!("refused {number} {error}\n"),
        };
        let _ = std::io::stdout().write_all(line.as_bytes());
    }
    farcall.shutdown();
}

/// What a process said of its puts, and whether its disk failed.
#[derive(Debug)]
struct Said {
    acknowledged: Vec<(String, String)>,
    refused: Vec<String>,
    /// In the order of the puts.
    words: Vec<String>,
    failed: bool,
}

fn run(command: &mut Command) -> Said {
    let mut process = Process(command.spawn().unwrap());
    let mut stderr = process.stderr.take().unwrap();
    let errors = thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let mut text = String::new();
    process.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    process.wait().unwrap();
    let errors = errors.join().unwrap();
    let whole = text[..text.rfind('\n').map_or(0, |end| end + 1)].lines();
    let mut said =
        Said { acknowledged: vec![], refused: vec![], words: vec![], failed: errors.contains("fault: ") };
    for line in whole {
        // The first line of a test has its name before it.
        let Some(at) = ["acknowledged ", "stopped ", "refused "].iter().find_map(|word| line.find(word))
        else {
            assert!(!line.contains("panicked"), "{text}{errors}");
            continue;
        };
        let (word, rest) = line[at..].split_once(' ').unwrap();
        said.words.push(word.to_owned());
        match word {
            "acknowledged" => {
                let (call, key) = rest.rsplit_once(' ').unwrap();
                said.acknowledged.push((call.to_owned(), key.to_owned()));
            }
            "refused" => said.refused.push(rest.to_owned()),
            _ => {}
        }
    }
    assert!(!errors.contains("panicked"), "{errors}");
    said
}

/// What must hold of one process, and of the outbox that it leaves.
fn check(fault: Fault, said: &Said, home: &Path) {
    let first = |word: &str| said.words.iter().position(|said| said == word);
    let operator = Operator::at(home);
    match (fault.kind, said.failed) {
        ("sync" | "write", true) => {
            let after = &said.words[first("stopped").unwrap_or(said.words.len())..];
            assert!(after.iter().all(|word| word == "stopped"), "it accepts nothing more: {said:?}");
            let Some(OutboxError::Stopped(why)) = operator.stopped() else { panic!("{said:?}") };
            assert!(why.contains("outbox.db"), "{why}");
            // Nor does anybody else, until somebody has looked.
            let farcall = Farcall::start(Options {
                home: Some(home.into()),
                service: Some("other".into()),
                hub: false,
                ..Options::default()
            });
            let put = farcall.outbox().unwrap().put(Parcel::new("POST", "http://127.0.0.1:1/"));
            assert!(matches!(put, Err(OutboxError::Stopped(_))), "{put:?}");
            farcall.shutdown();
            operator.resume().unwrap();
        }
        ("full", true) => {
            assert_eq!(first("stopped"), None, "{said:?}");
            let last = said.words.last().map(String::as_str);
            assert!(
                fault.file == "db" || last == Some("acknowledged"),
                "it goes on when there is room: {said:?}"
            );
        }
        ("power", true) => {}
        _ => assert_eq!(said.acknowledged.len(), PUTS, "{said:?}"),
    }
    assert_eq!(operator.stopped(), None);
}

fn number(name: &str, or: u64) -> u64 {
    std::env::var(name).map_or(or, |text| text.parse().unwrap())
}

#[test]
fn nothing_acknowledged_is_lost_whatever_the_disk_does() {
    let (rounds, seed) = (number("FARCALL_FAULT_ROUNDS", 108), number("FARCALL_FAULT_SEED", 1));
    let library = tempfile::tempdir().unwrap();
    let shim = shim(library.path());
    let (happened, round) = (Mutex::new(BTreeMap::<_, usize>::new()), AtomicUsize::new(0));
    thread::scope(|scope| {
        for lane in 0..LANES as u64 {
            let (happened, round, shim) = (&happened, &round, &shim);
            scope.spawn(move || {
                let vendor = Vendor::start();
                let home = home(&vendor);
                let mut kept = Vec::new();
                loop {
                    let number = round.fetch_add(1, Ordering::Relaxed);
                    if number as u64 >= rounds {
                        break;
                    }
                    let mut dice =
                        ((seed << 32) | (number as u64 + 1)).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
                    let fault = FAULTS[number % FAULTS.len()];
                    let at = random(&mut dice) % fault.within + 1;
                    let text = format!("{}:{at}:{}:{}", fault.kind, random(&mut dice) >> 1, fault.file);
                    let mut command = child(&format!("p{number}"), home.path(), &vendor, fault.padding);
                    command.env("LD_PRELOAD", shim).env("FAULT_HOME", home.path()).env("FAULT", &text);
                    let said = run(&mut command);
                    println!("lane {lane} round {number} {text}: {}", said.words.len());
                    check(fault, &said, home.path());
                    *happened.lock().unwrap().entry((fault.kind, fault.file)).or_default() +=
                        usize::from(said.failed);
                    kept.extend(said.acknowledged);
                }
                let said = run(&mut child(&format!("last{lane}"), home.path(), &vendor, 10));
                assert_eq!(said.acknowledged.len(), PUTS, "{said:?}");
                kept.extend(said.acknowledged);
                deliver(home.path(), &vendor);
                judge(&vendor.got(), &kept);
            });
        }
    });
    let happened = happened.into_inner().unwrap();
    println!("seed {seed}, {rounds} rounds, faults that happened: {happened:?}");
    assert!(
        rounds < 100 || happened.len() == FAULTS.len() && happened.values().all(|many| *many > 0),
        "{happened:?}"
    );
}

#[test]
fn a_disk_that_fails_while_the_file_is_made_loses_nothing_and_spoils_nothing() {
    let library = tempfile::tempdir().unwrap();
    let shim = shim(library.path());
    let vendor = Vendor::start();
    let mut happened = BTreeMap::<_, usize>::new();
    for (kind, at) in
        ["sync", "write", "full", "power"].iter().flat_map(|kind| (1..=8).map(move |at| (*kind, at)))
    {
        let home = home(&vendor);
        let mut command = child(&format!("{kind}{at}"), home.path(), &vendor, 10);
        command.env("LD_PRELOAD", &shim).env("FAULT_HOME", home.path());
        let said = run(command.env("FAULT", format!("{kind}:{at}:7:any")));
        check(fault(kind, "any", at, 10), &said, home.path());
        *happened.entry(kind).or_default() += usize::from(said.failed);
        deliver(home.path(), &vendor);
        judge(&vendor.got(), &said.acknowledged);
    }
    assert!(happened.values().all(|many| *many > 4), "{happened:?}");
}

#[test]
fn where_the_names_of_its_files_cannot_be_synced_nothing_is_acknowledged() {
    let library = tempfile::tempdir().unwrap();
    let shim = shim(library.path());
    let vendor = Vendor::start();
    // With a key in the environment there is one file less to be named.
    for key in ["", &"0f".repeat(32)] {
        let home = home(&vendor);
        let run = |fault: bool| {
            let mut command = child("names", home.path(), &vendor, 10);
            if fault {
                command.env("LD_PRELOAD", &shim).env("FAULT_HOME", home.path()).env("FAULT", "dir:1:1:any");
            }
            run(command.env("FARCALL_OUTBOX_KEY", key))
        };
        for fault in [true, false] {
            let said = run(fault);
            assert_eq!((said.words, said.failed), (vec!["stopped".to_owned(); PUTS], fault));
        }
        let operator = Operator::at(home.path());
        assert!(matches!(operator.stopped(), Some(OutboxError::Stopped(why)) if why.contains("synced")));
        operator.resume().unwrap();
        assert_eq!(run(false).acknowledged.len(), PUTS);
    }
}

/// Delivers all that is there, from a process without faults: this one.
fn deliver(home: &Path, vendor: &Vendor) {
    let farcall = Farcall::start(Options {
        home: Some(home.into()),
        config: Some(home.join("farcall.toml")),
        service: Some("shop".into()),
        hub: false,
        ..Options::default()
    });
    let body = format!("end{} 0 -", random(&mut (vendor.got().len() as u64 + 1)));
    farcall.outbox().unwrap().put(Parcel::new("POST", vendor.url("/")).body(body)).unwrap();
    until("all to be delivered", PATIENCE, || pending(home) == 0);
    farcall.shutdown();
}

/// Puts calls that nobody delivers: their vendor is closed by a policy. `each` hears of it after each put.
fn park(home: &Path, many: usize, mut each: impl FnMut(usize, String)) {
    let deny = "[[policy]]\nmatch = { host = \"127.0.0.1\" }\nverdict = \"deny\"\n";
    let file = home.join("closed.toml");
    std::fs::write(&file, deny).unwrap();
    let farcall = Farcall::start(Options {
        home: Some(home.into()),
        config: Some(file),
        service: Some("parked".into()),
        hub: false,
        ..Options::default()
    });
    let outbox = farcall.outbox().unwrap();
    for number in 0..many {
        // Due in a day: nothing else is written meanwhile.
        let parcel = Parcel::new("POST", "http://127.0.0.1:1/").delay(Duration::from_secs(86_400));
        let parcel = parcel.body("x".repeat(number * 397 % 6_000)).order_key("all");
        each(number, outbox.put(parcel).unwrap().idempotency_key);
    }
    farcall.shutdown();
}

/// The idempotency keys that an outbox holds, in the order of the puts.
fn held(home: &Path) -> Vec<String> {
    let items = Operator::at(home).list(&Filter::default()).unwrap();
    items.into_iter().map(|item| item.idempotency_key).collect()
}

#[test]
fn whatever_byte_the_log_breaks_off_at_all_that_was_synced_before_it_is_there() {
    let home = tempfile::tempdir().unwrap();
    let log = |home: &Path| home.join("outbox.db-wal");
    // How long the log was when each put was acknowledged.
    let mut acknowledged = Vec::new();
    park(home.path(), 40, |_, key| {
        acknowledged.push((std::fs::metadata(log(home.path())).unwrap().len(), key));
    });
    let (whole, length) = (std::fs::read(log(home.path())).unwrap(), acknowledged.last().unwrap().0);
    let mut dice = number("FARCALL_FAULT_SEED", 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for round in 0..number("FARCALL_FAULT_ROUNDS", 108) {
        let torn = tempfile::tempdir().unwrap();
        for name in ["outbox.db", "outbox.key"] {
            std::fs::copy(home.path().join(name), torn.path().join(name)).unwrap();
        }
        let at = random(&mut dice) % (length + 1);
        let mut bytes = whole[..usize::try_from(at).unwrap()].to_vec();
        match round % 3 {
            0 => {}
            // Room was made for the rest of the page, and it was not written.
            1 => bytes.resize(bytes.len().next_multiple_of(4_096), 0),
            _ => bytes.extend((0..random(&mut dice) % 9_000).map(|_| random(&mut dice) as u8)),
        }
        std::fs::write(log(torn.path()), bytes).unwrap();
        let there = held(torn.path());
        let synced = acknowledged.iter().filter(|(length, _)| *length <= at).count();
        assert!(there.len() >= synced, "round {round}, cut at {at}: {} of {synced}", there.len());
        let keys: Vec<&String> = acknowledged.iter().map(|(_, key)| key).take(there.len()).collect();
        assert_eq!(
            there.iter().collect::<Vec<_>>(),
            keys,
            "round {round}, cut at {at}: in order, without a gap"
        );
        let operator = Operator::at(torn.path());
        operator.resume().unwrap();
        if let Some(last) = operator.list(&Filter::default()).unwrap().last() {
            assert!(operator.show(last.id, true).unwrap().url.ends_with(":1/"), "it can be read");
            assert_eq!(operator.remove(&[last.id]).unwrap(), 1, "and written");
        }
    }
}

#[test]
fn a_file_that_was_copied_back_delivers_the_calls_of_its_time_again_under_their_keys() {
    let library = tempfile::tempdir().unwrap();
    let mut twice = 0;
    // A vendor that takes longer than the end of a process waits leaves calls that were sent, and are pending.
    for (round, (wal, answers_after)) in
        [(true, 0), (true, 20), (true, 3_000), (false, 20)].into_iter().enumerate()
    {
        let vendor = Vendor::start();
        let home = home(&vendor);
        let files = if wal { &["outbox.db", "outbox.db-wal"][..] } else { &["outbox.db"][..] };
        let copy = |from: &Path, to: &Path| {
            for name in files {
                std::fs::copy(from.join(name), to.join(name)).unwrap();
            }
        };
        vendor.delay(Duration::from_millis(answers_after));
        let before = run(&mut child("before", home.path(), &vendor, 10));
        assert_eq!(before.acknowledged.len(), PUTS);
        if !wal {
            // All is in the file itself, as after a clean copy by SQLite's own means.
            let connection = rusqlite::Connection::open(home.path().join("outbox.db")).unwrap();
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        }
        copy(home.path(), library.path());
        let left = pending(home.path());
        twice += left;
        vendor.delay(Duration::ZERO);
        let since = run(&mut child("since", home.path(), &vendor, 10));
        assert_eq!(since.acknowledged.len(), PUTS);
        deliver(home.path(), &vendor);
        let first = vendor.got().len();
        for name in ["outbox.db", "outbox.db-wal", "outbox.db-shm"] {
            let _ = std::fs::remove_file(home.path().join(name));
        }
        copy(library.path(), home.path());
        deliver(home.path(), &vendor);
        let got = vendor.got();
        // The calls of its time, each once more where it was pending then, and nothing that was put since.
        let again: Vec<&str> = got[first..].iter().map(|got| got.body.split(' ').next().unwrap()).collect();
        let many = |name: &str| again.iter().filter(|body| **body == name).count() as u64;
        assert_eq!((many("before"), many("since")), (left, 0), "round {round}");
        judge(&got, &[before.acknowledged, since.acknowledged].concat());
    }
    assert!(twice > 0);
}

#[test]
fn a_clock_that_jumps_by_hours_neither_holds_up_nor_loses_a_call_nor_makes_it_too_old() {
    let library = tempfile::tempdir().unwrap();
    let (shim, clock, new) =
        (shim(library.path()), library.path().join("clock"), library.path().join("clock.new"));
    let vendor = Vendor::start();
    vendor.answer_next(&["200 OK", "503 Busy", "hang up"].repeat(20));
    let home = home(&vendor);
    let mut kept = Vec::new();
    let mut dice = number("FARCALL_FAULT_SEED", 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for round in 0..4 {
        let over = AtomicBool::new(false);
        let said = thread::scope(|scope| {
            let jumps = scope.spawn(|| {
                let mut jumps = 0;
                while !over.load(Ordering::Acquire) {
                    let hours = [0, 6, -6, 2, -1, 5, -3][usize::try_from(random(&mut dice) % 7).unwrap()];
                    std::fs::write(&new, (hours * 3_600).to_string()).unwrap();
                    std::fs::rename(&new, &clock).unwrap();
                    jumps += 1;
                    thread::sleep(Duration::from_millis(random(&mut dice) % 40));
                }
                jumps
            });
            let mut command = child(&format!("clock{round}"), home.path(), &vendor, 10);
            // Shorter than any jump, and longer than the test takes.
            command.env("OUTBOX_MAX_AGE", "1800");
            let said = run(command.env("LD_PRELOAD", &shim).env("FAULT_CLOCK", &clock));
            over.store(true, Ordering::Release);
            assert!(jumps.join().unwrap() > 1);
            said
        });
        assert_eq!(said.acknowledged.len(), PUTS, "{said:?}");
        kept.extend(said.acknowledged);
    }
    // This process has the right time.
    deliver(home.path(), &vendor);
    judge(&vendor.got(), &kept);
    let items = Operator::at(home.path()).list(&Filter::default()).unwrap();
    assert!(items.len() > 4 * PUTS && items.iter().all(|item| item.state == State::Delivered), "{items:?}");
    // Nor does one that was settled look as old as the clock was wrong.
    let now = i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
    let (old, half_an_hour) = (|item: &Item| now - item.put_at, 1_800_000_000_000);
    assert!(items.iter().all(|item| (-half_an_hour..half_an_hour).contains(&old(item))), "{items:?}");
}
