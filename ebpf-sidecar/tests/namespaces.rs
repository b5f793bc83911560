//! Outside the host's pid namespace calls would count twice, so `run` refuses there.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::{Command, Output};

/// Runs the sidecar as the first process of a pid namespace; `None` where this user may not make one.
fn in_a_pid_namespace(arguments: &[&str]) -> Option<Output> {
    let unshare = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--pid", "--fork", program]);
        command
    };
    if !unshare("true").status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: this user may not make a pid namespace");
        return None;
    }
    Some(unshare(env!("CARGO_BIN_EXE_farcall-sidecar")).args(arguments).output().unwrap())
}

#[test]
fn run_refuses_outside_the_hosts_pid_namespace_with_the_remedy_of_check() {
    let home = tempfile::tempdir().unwrap();
    let arguments = ["run", "--cgroup", "/", "--home", home.path().to_str().unwrap()];
    let Some(refused) = in_a_pid_namespace(&arguments) else { return };
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("calls would count twice"), "{said}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing was begun");

    let check = String::from_utf8(in_a_pid_namespace(&["check"]).unwrap().stdout).unwrap();
    let line = check.lines().find(|line| line.contains("host process identifiers")).unwrap();
    let remedy = line.split_once("host process identifiers: ").unwrap().1;
    assert!(line.starts_with("MISSING") && said.contains(remedy), "{line}\n{said}");
}
