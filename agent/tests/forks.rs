//! Forks: each process counts for itself, and nothing is lost or counted twice, whether the fork was announced or not.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall::Target;
use farcall_agent::{Farcall, Note, Options, Scope};
use rustix::process::{Pid, Signal, kill_process};
use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;
use support::{call, calls, child, counter, number, options, role};

/// The bodies of the child processes of these tests; as a test of its own it has nothing to do.
#[test]
fn child_body() {
    let Some(role) = role() else { return };
    let home = PathBuf::from(std::env::var_os("FARCALL_HOME").unwrap());
    match role.as_str() {
        "forks" => forks(&home),
        "forks-unannounced" => forks_unannounced(&home),
        "prefork" => prefork(&home),
        "forks-with-notes" => forks_with_notes(&home),
        "forks-with-notes-unannounced" => forks_with_notes_unannounced(&home),
        "forks-while-writing" => forks_while_writing(&home),
        "forks-after-reloads" => forks_after_reloads(&home),
        other => panic!("no such role: {other}"),
    }
}

fn start(role: &str, home: &Path) -> Child {
    child(role, home).spawn().unwrap()
}

/// Forks, runs `body` in the child, and waits for it.
fn fork(before: impl FnOnce(), in_parent: impl FnOnce(), body: impl FnOnce()) {
    before();
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            // A panic would end this thread, the only one here, and leave the process hanging.
            let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_ok();
            std::process::exit(i32::from(!fine));
        }
        fork::Fork::Parent(pid) => {
            in_parent();
            assert_eq!(fork::waitpid(pid).unwrap(), 0, "the child failed");
        }
    }
}

fn forks(home: &Path) {
    let every = Some(Duration::from_millis(20));
    let farcall = Farcall::start(Options { flush_every: every, ..options(home) });
    farcall.adapter_installed("requests");
    (0..5).for_each(|_| call(&farcall, "parent", 200));
    // Under way while the process forks: it stays the parent's.
    let head = farcall::Head::new("GET", "https://api.stripe.com/v1/balance").customer(Some("parent"));
    let begun = RefCell::new(Some(farcall.guard(farcall.begin(&head))));
    fork(
        || farcall.before_fork(),
        || farcall.after_fork_in_parent(),
        || {
            farcall.after_fork();
            drop(begun.take());
            (0..3).for_each(|_| call(&farcall, "child", 200));
            support::until("the child's flush thread", || calls_for(home, "child") == 3);
            fork(
                || farcall.before_fork(),
                || farcall.after_fork_in_parent(),
                || {
                    farcall.after_fork();
                    (0..2).for_each(|_| call(&farcall, "grandchild", 200));
                    farcall.shutdown();
                },
            );
            farcall.shutdown();
        },
    );
    drop(begun.take());
    (0..5).for_each(|_| call(&farcall, "parent", 200));
    support::until("the parent's flush thread", || calls_for(home, "parent") == 11);
    farcall.shutdown();
}

fn calls_for(home: &Path, customer: &str) -> i64 {
    let connection = rusqlite::Connection::open(home.join("ledger.db")).unwrap();
    connection.busy_timeout(support::PATIENCE).unwrap();
    let sql =
        "SELECT coalesce(sum(calls), 0) FROM rollups r JOIN names n ON n.id = r.customer WHERE n.name = ?1";
    connection.query_row(sql, [customer], |row| row.get(0)).unwrap_or(0)
}

#[test]
fn a_forked_child_counts_for_itself_and_the_parent_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let child = start("forks", home.path());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    for (customer, count) in [("parent", 11), ("child", 3), ("grandchild", 2)] {
        assert_eq!(calls_for(home.path(), customer), count, "{customer}");
    }
    assert_eq!(calls(home.path()), 16);
    assert_eq!(number(home.path(), "SELECT count(DISTINCT caller) FROM rollups"), 3);
    assert_eq!(number(home.path(), "SELECT count(*) FROM processes WHERE adapters = 'requests'"), 3);
}

fn forks_after_reloads(home: &Path) {
    let file = home.join("farcall.toml");
    let deny = "[[policy]]\nmatch = { vendor = \"stripe\" }\nverdict = \"deny\"\n";
    let every = Some(Duration::from_millis(20));
    let farcall = Farcall::start(Options { flush_every: every, ..options(home) });
    let denied = || {
        let head = farcall::Head::new("GET", "https://api.stripe.com/v1/balance");
        matches!(farcall.guard(farcall.begin(&head)).step(), farcall::Step::Refuse(_))
    };
    assert!(!denied());
    // As an editor does: a file that is half written is another one.
    let replace = |text| {
        std::fs::write(home.join("new"), text).unwrap();
        std::fs::rename(home.join("new"), &file).unwrap();
    };
    replace(deny);
    support::until("the rule to be in force", denied);
    replace("[[polciy]]\n");
    support::until("the file to be rejected", || counter(&farcall, "rejected_reloads") >= 1);
    assert!(denied());
    fork(
        || farcall.before_fork(),
        || farcall.after_fork_in_parent(),
        || {
            farcall.after_fork();
            assert!(denied(), "the rules of the start are in force in this process alone");
            farcall.shutdown();
        },
    );
    farcall.shutdown();
}

#[test]
fn a_forked_child_has_the_last_good_rules_and_not_those_of_the_start() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("farcall.toml"), "").unwrap();
    let output = start("forks-after-reloads", home.path()).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn forks_unannounced(home: &Path) {
    let every = Some(Duration::from_secs(3_600));
    let farcall = Farcall::start(Options { flush_every: every, ..options(home) });
    (0..5).for_each(|_| call(&farcall, "parent", 200));
    fork(
        || {},
        || {},
        || {
            // The parent's own counts are in this copy of its memory; nothing of them may be written.
            call(&farcall, "first", 200);
            assert_eq!(counter(&farcall, "late_forks"), 1);
            (0..3).for_each(|_| call(&farcall, "child", 200));
            farcall.shutdown();
        },
    );
    farcall.shutdown();
}

#[test]
fn a_fork_that_nobody_announced_is_noticed_and_counts_nothing_twice() {
    let home = tempfile::tempdir().unwrap();
    let output = start("forks-unannounced", home.path()).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((calls_for(home.path(), "parent"), calls_for(home.path(), "child")), (5, 3));
    assert_eq!(calls_for(home.path(), "first"), 1, "the call that notices it is counted as well");
    assert_eq!(number(home.path(), "SELECT sum(value) FROM counters WHERE name = 'late_forks'"), 1);
}

fn note(farcall: &Farcall, customer: &str) -> Note {
    let scope = Arc::new(Scope { customer: Some(customer.into()), tags: Vec::new() });
    farcall.note("GET", &Target::new(true, "one.example", 443, "/"), Some(&scope)).unwrap()
}

fn forks_with_notes(home: &Path) {
    let every = Some(Duration::from_secs(3_600));
    let farcall = Farcall::start(Options { flush_every: every, ..options(home) });
    (0..10).for_each(|_| note(&farcall, "parent").end(&farcall));
    // Under way while the process forks.
    let under_way = || [(); 3].map(|()| Some(note(&farcall, "parent")));
    let begun = RefCell::new(under_way());
    fork(
        || farcall.before_fork(),
        || farcall.after_fork_in_parent(),
        || {
            farcall.after_fork();
            let [end, abandon, refused] = begun.borrow_mut().each_mut().map(Option::take);
            end.unwrap().end(&farcall);
            abandon.unwrap().abandon(&farcall);
            assert!(refused.unwrap().begin(&farcall).is_none());
            (0..3).for_each(|_| note(&farcall, "child").end(&farcall));
            farcall.shutdown();
        },
    );
    begun.take().into_iter().flatten().for_each(|note| note.end(&farcall));
    farcall.shutdown();
}

fn forks_with_notes_unannounced(home: &Path) {
    let every = Some(Duration::from_secs(3_600));
    let farcall = Farcall::start(Options { flush_every: every, ..options(home) });
    (0..10).for_each(|_| note(&farcall, "parent").end(&farcall));
    fork(
        || {},
        || {},
        || {
            support::until("the fork to be noticed", || {
                // Full again and again, and told by nobody.
                note(&farcall, "early").end(&farcall);
                counter(&farcall, "late_forks") == 1
            });
            (0..3).for_each(|_| note(&farcall, "child").end(&farcall));
            farcall.shutdown();
        },
    );
    farcall.shutdown();
}

#[test]
fn what_the_parent_had_noted_at_a_fork_is_the_parents_alone() {
    let home = tempfile::tempdir().unwrap();
    let output = start("forks-with-notes", home.path()).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((calls_for(home.path(), "parent"), calls_for(home.path(), "child")), (13, 3));

    let home = tempfile::tempdir().unwrap();
    let output = start("forks-with-notes-unannounced", home.path()).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((calls_for(home.path(), "parent"), calls_for(home.path(), "child")), (10, 3));
    assert!(calls_for(home.path(), "early") <= 1, "only the call that noticed it");
}

fn forks_while_writing(home: &Path) {
    // No flush but those asked for here: one of the thread's own could end just as the process forks.
    let every = Some(Duration::from_secs(3_600));
    let farcall = Farcall::start(Options { flush_every: every, ..options(home) });
    let open = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        files.filter(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.ends_with("ledger.db"))).count()
    };
    // While somebody else makes the ledger, a flush waits with the file open: for as long as it takes.
    let making =
        std::fs::OpenOptions::new().create(true).append(true).open(home.join("ledger.lock")).unwrap();
    making.lock().unwrap();
    (0..2).for_each(|_| call(&farcall, "parent", 200));
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| farcall.flush());
        support::until("a flush under way", || open() == 1);
        fork(
            || {},
            || {},
            || {
                farcall.after_fork();
                call(&farcall, "child", 200);
                assert!(farcall.flush().pending > 0, "written with the parent's locks");
                assert!(counter(&farcall, "failed_flushes") > 0);
            },
        );
        making.unlock().unwrap();
        assert_eq!(blocked.join().unwrap().pending, 0);
    });
    farcall.shutdown();
}

#[test]
fn a_fork_in_the_middle_of_a_flush_does_not_touch_the_file_and_says_so() {
    let home = tempfile::tempdir().unwrap();
    let mut command = child("forks-while-writing", home.path());
    let output = command.stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}{stderr}", String::from_utf8_lossy(&output.stdout));
    assert!(stderr.contains("the calls of this process are not recorded"), "{stderr}");
    assert_eq!((calls_for(home.path(), "parent"), calls_for(home.path(), "child")), (2, 0));
    assert_eq!(
        number(home.path(), "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"),
        0
    );
}

/// A master that forks a worker and waits for it, as servers do.
fn prefork(home: &Path) {
    let every = Some(Duration::from_secs(3_600));
    let farcall = Farcall::start(Options { flush_every: every, handle_sigterm: true, ..options(home) });
    call(&farcall, "master", 200);
    farcall.before_fork();
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            farcall.after_fork();
            call(&farcall, "worker", 200);
            println!("worker {} ready", std::process::id());
            loop {
                std::thread::park();
            }
        }
        fork::Fork::Parent(pid) => {
            farcall.after_fork_in_parent();
            let status = std::process::ExitStatus::from_raw(fork::waitpid(pid).unwrap());
            println!("worker died by {:?}", status.signal());
            farcall.shutdown();
        }
    }
}

#[test]
fn sigterm_ends_a_forked_worker_after_its_last_flush_and_not_its_master() {
    let home = tempfile::tempdir().unwrap();
    let mut master = start("prefork", home.path());
    let mut lines = BufReader::new(master.stdout.take().unwrap()).lines().map(Result::unwrap);
    let ready = lines.find(|line| line.ends_with("ready")).unwrap();
    let worker: i32 = ready.rsplit(' ').nth(1).unwrap().parse().unwrap();
    kill_process(Pid::from_raw(worker).unwrap(), Signal::TERM).unwrap();
    assert_eq!(lines.find(|line| line.contains("worker died by")).unwrap(), "worker died by Some(15)");
    assert!(master.wait().unwrap().success());
    assert_eq!((calls_for(home.path(), "master"), calls_for(home.path(), "worker")), (1, 1));
}
