//! What goes wrong under the ledger never reaches the application, is said once, and costs no count.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall_agent::Farcall;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{call, calls, counter, number, options, role};

#[test]
fn a_damaged_ledger_is_moved_aside_and_a_new_one_begins() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("ledger.db"), b"this is not a database, by any means".repeat(400)).unwrap();
    let farcall = Farcall::start(options(home.path()));
    call(&farcall, "acme", 200);
    assert_eq!(farcall.flush().pending, 0);
    assert_eq!(calls(home.path()), 1);
    assert_eq!(counter(&farcall, "corrupt_ledgers"), 1);
    assert_eq!(aside(home.path()).len(), 1);
}

#[test]
fn upkeep_that_fails_is_counted_and_costs_no_call() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    call(&farcall, "acme", 200);
    farcall.flush();
    // What is old cannot leave any more, and the next flush is to make it.
    let ledger = rusqlite::Connection::open(home.path().join("ledger.db")).unwrap();
    let broken = "CREATE TRIGGER stay BEFORE DELETE ON spending BEGIN SELECT raise(ABORT, 'it stays'); END;
                  INSERT INTO spending (budget, partition, period, spent, at) VALUES ('all', '', 1, 1, 1);
                  DELETE FROM upkeep;";
    ledger.execute_batch(broken).unwrap();
    drop(ledger);
    call(&farcall, "acme", 200);
    assert_eq!(farcall.flush().pending, 0);
    assert_eq!((calls(home.path()), counter(&farcall, "failed_upkeep")), (2, 1));
}

#[test]
fn a_ledger_that_is_damaged_while_running_costs_only_what_was_in_it() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    for customer in 0..200 {
        call(&farcall, &format!("c{customer}"), 200);
    }
    farcall.flush();
    // All but the header: the tables are garbage now. The log would otherwise bring them back.
    let file = home.path().join("ledger.db");
    let size = usize::try_from(fs::metadata(&file).unwrap().len().max(40_000)).unwrap();
    fs::remove_file(home.path().join("ledger.db-wal")).unwrap();
    fs::remove_file(home.path().join("ledger.db-shm")).unwrap();
    let mut bytes = b"SQLite format 3\0".to_vec();
    bytes.resize(size, 0xA5);
    fs::write(&file, bytes).unwrap();
    call(&farcall, "acme", 200);
    assert_eq!(farcall.flush().pending, 0);
    assert_eq!(calls(home.path()), 1);
    assert_eq!((counter(&farcall, "corrupt_ledgers"), aside(home.path()).len()), (1, 1));
}

fn aside(home: &Path) -> Vec<String> {
    let names = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| {
            name.starts_with("ledger.db.corrupt-") && !name.contains("-wal") && !name.contains("-shm")
        })
        .collect()
}

#[test]
fn a_directory_that_is_removed_while_running_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let farcall = Farcall::start(options(&home));
    call(&farcall, "acme", 200);
    farcall.flush();
    fs::remove_dir_all(&home).unwrap();
    call(&farcall, "acme", 200);
    assert_eq!(farcall.flush().pending, 0);
    assert_eq!(calls(&home), 1);
    assert_eq!(counter(&farcall, "failed_flushes"), 0);
}

#[test]
fn a_home_that_cannot_be_made_keeps_the_calls_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let blocker = dir.path().join("blocker");
    fs::write(&blocker, "a file where a directory should be").unwrap();
    let home = blocker.join("home");
    let farcall = Farcall::start(options(&home));
    for _ in 0..3 {
        call(&farcall, "acme", 200);
        assert!(farcall.flush().pending > 0);
    }
    assert_eq!(counter(&farcall, "failed_flushes"), 3);
    fs::remove_file(&blocker).unwrap();
    assert_eq!(farcall.flush().pending, 0);
    assert_eq!(calls(&home), 3);
}

#[test]
fn a_ledger_that_somebody_holds_is_written_later() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    call(&farcall, "acme", 200);
    farcall.flush();
    let holder = rusqlite::Connection::open(home.path().join("ledger.db")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    call(&farcall, "acme", 200);
    assert!(farcall.flush().pending > 0);
    holder.execute_batch("COMMIT").unwrap();
    assert_eq!(farcall.flush().pending, 0);
    assert_eq!((calls(home.path()), counter(&farcall, "failed_flushes")), (2, 1));
}

#[test]
fn a_ledger_of_a_later_version_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let later = rusqlite::Connection::open(home.path().join("ledger.db")).unwrap();
    later.execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 99").unwrap();
    let farcall = Farcall::start(options(home.path()));
    call(&farcall, "acme", 200);
    assert!(farcall.flush().pending > 0);
    assert_eq!(number(home.path(), "SELECT count(*) FROM sqlite_schema"), 1);
    assert!(aside(home.path()).is_empty());
    drop(farcall);
}

/// The body of the child processes of these tests; as a test of its own it has nothing to do.
#[test]
fn child_body() {
    let Some(role) = role() else { return };
    let home = std::path::PathBuf::from(std::env::var_os("FARCALL_HOME").unwrap());
    let farcall = Farcall::start(options(&home));
    for line in BufReader::new(std::io::stdin()).lines() {
        match line.unwrap().as_str() {
            "calls" => (0..300).for_each(|n| call(&farcall, &format!("{role}-{n}"), 200)),
            "flush" => println!("pending {}", farcall.flush().pending),
            other => panic!("unknown order {other}"),
        }
        std::io::stdout().flush().unwrap();
    }
    println!("counted {}", calls(&home));
}

/// Runs a child on a tmpfs of its own in a mount namespace of its own; `None` where this user may not.
fn on_tmpfs(script: &str, home: &Path) -> Option<std::process::Output> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    let prelude = "set -e; mount -t tmpfs -o size=512k tmpfs \"$FARCALL_HOME\"; echo mounted";
    command.arg(format!("{prelude}; {script}"));
    command.env("CHILD", std::env::current_exe().unwrap());
    command.env("FARCALL_TEST_ROLE", "x").env("FARCALL_HOME", home);
    let output = command.stdin(Stdio::null()).output().ok()?;
    if !String::from_utf8_lossy(&output.stdout).contains("mounted") {
        eprintln!("skipped: this user may not mount: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some(output)
}

#[test]
fn a_full_disk_costs_no_count_and_is_said_once() {
    let home = tempfile::tempdir().unwrap();
    // The child flushes while the disk is full, again, and once more after there is room.
    let script = r#"
        head -c 600000 /dev/zero > "$FARCALL_HOME/filler" 2>/dev/null || true
        dir=$(mktemp -d); mkfifo "$dir/in" "$dir/out"
        "$CHILD" --exact child_body --nocapture --test-threads=1 < "$dir/in" > "$dir/out" &
        exec 3> "$dir/in" 4< "$dir/out"
        answer() { while read -r line <&4; do case "$line" in *pending*|*counted*) echo "$line"; return;; esac; done; }
        echo calls >&3; echo flush >&3; answer
        echo flush >&3; answer
        rm "$FARCALL_HOME/filler"
        echo calls >&3; echo flush >&3; answer
        exec 3>&-; answer; wait; rm -r "$dir"
    "#;
    let Some(output) = on_tmpfs(script, home.path()) else { return };
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let answers: Vec<&str> = stdout.lines().filter(|line| !line.contains("mounted")).collect();
    assert_eq!(answers.len(), 4, "{stdout}{stderr}");
    let pending = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    assert!(pending(answers[0]) >= 300 && pending(answers[1]) >= 300, "{stdout}");
    assert_eq!((answers[2], answers[3]), ("pending 0", "counted 600"), "{stdout}{stderr}");
    assert_eq!(stderr.matches("farcall: cannot write the ledger").count(), 1, "{stderr}");
    assert!(stderr.contains("once there is room on the disk"), "{stderr}");
}

#[test]
fn a_directory_that_may_only_be_read_is_said_once_with_the_remedy() {
    let home = tempfile::tempdir().unwrap();
    let script = r#"
        mount -o remount,ro "$FARCALL_HOME"
        printf 'calls\nflush\nflush\n' | FARCALL_TEST_ROLE=x "$CHILD" --exact child_body --nocapture --test-threads=1 || true
    "#;
    let Some(output) = on_tmpfs(script, home.path()) else { return };
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(stdout.matches("pending 30").count(), 2, "{stdout}{stderr}");
    assert_eq!(stderr.matches("farcall: cannot write the ledger").count(), 1, "{stderr}");
    assert!(stderr.contains("set FARCALL_HOME"), "{stderr}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_stopped_process_that_holds_the_ledgers_lock_holds_nobody_up() {
    let home = tempfile::tempdir().unwrap();
    let lock = fs::File::create(home.path().join("ledger.lock")).unwrap();
    lock.lock().unwrap();
    // Nothing has made the ledger yet: whoever does takes the lock.
    let farcall = Farcall::start(options(home.path()));
    call(&farcall, "acme", 200);
    farcall.flush();
    drop(lock);
    support::until("the ledger", || {
        farcall.flush();
        calls(home.path()) == 1
    });
}
