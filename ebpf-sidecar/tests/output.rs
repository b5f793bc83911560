//! The sidecar where nobody reads what it prints, or it cannot be written: it does its work all the same.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "stage/mod.rs"]
#[allow(dead_code)]
mod stage;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, pipe},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

fn sidecar() -> Command {
    Command::new(env!("CARGO_BIN_EXE_farcall-sidecar"))
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (_, writer) = pipe().unwrap();
    writer.into()
}

fn check(to: Stdio) -> Output {
    sidecar().arg("check").stdout(to).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn check_ends_with_its_finding_where_nobody_reads_and_says_what_it_cannot_write() {
    let read = check(Stdio::piped());
    assert!(!read.stdout.is_empty());
    let unread = check(closed());
    assert_eq!((unread.status.code(), &*unread.stderr), (read.status.code(), &*read.stderr));
    let unwritten = check(full().into());
    assert_eq!(unwritten.status.code(), Some(1));
    let said = String::from_utf8(unwritten.stderr).unwrap();
    assert!(said.contains("farcall-sidecar: cannot write to stdout: "), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn an_error_that_nobody_can_read_is_an_exit_code() {
    for stderr in [full().into(), closed()] {
        let status =
            sidecar().args(["watch", "--cgroup", "/no/such/cgroup"]).stderr(stderr).status().unwrap();
        assert_eq!(status.code(), Some(1));
    }
}

#[test]
fn run_and_watch_go_on_where_what_they_say_cannot_be_written() {
    let stage = stage!();
    let home = stage.folder.path().join("home");
    for (number, (command, stderr)) in
        [("run", full().into()), ("run", closed()), ("watch", full().into())].into_iter().enumerate()
    {
        let ready = stage.folder.path().join(format!("ready-{number}"));
        let mut sidecar = sidecar();
        sidecar
            .args([command, "--only-mapped", "--cgroup"])
            .arg(stage.cgroup())
            .arg("--ready-file")
            .arg(&ready);
        if command == "run" {
            sidecar.arg("--home").arg(&home);
        }
        let mut sidecar = sidecar.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while fs::metadata(&ready).is_err() {
            assert_eq!(sidecar.try_wait().unwrap(), None, "{command} ended");
            assert!(Instant::now() < deadline, "{command} did not start");
            std::thread::yield_now();
        }
        let id = sidecar.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(sidecar.wait().unwrap().success(), "{command}");
    }
}

#[test]
fn watch_ends_without_an_error_where_its_reader_has_seen_enough() {
    let stage = stage!();
    let ready = stage.folder.path().join("ready");
    let mut watch = sidecar()
        .args(["watch", "--include-loopback", "--only-mapped", "--cgroup"])
        .arg(stage.cgroup())
        .arg("--ready-file")
        .arg(&ready)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while fs::metadata(&ready).is_err() {
        assert_eq!(watch.try_wait().unwrap(), None);
        assert!(Instant::now() < deadline, "watch did not start");
        std::thread::yield_now();
    }
    // Nobody listens at the port; that it was tried is a line.
    let try_to_connect = || stage.inside("curl", &["--silent", "http://127.0.0.1:9"]).status().unwrap();
    let mut reader = BufReader::new(watch.stdout.take().unwrap());
    try_to_connect();
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with('{'), "{line}");
    drop(reader);
    while watch.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "watch goes on");
        try_to_connect();
    }
    let output = watch.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !said.contains("pipe"), "{said}");
}
