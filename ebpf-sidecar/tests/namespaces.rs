//! Outside the host's pid namespace calls would count twice, so `run` refuses there. Without a version 2 hierarchy nothing is
//! seen, and what the sidecar advises helps.
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

/// Runs a shell script in a mount namespace of its own, with the version 2 hierarchy unmounted wherever it was, and the
/// sidecar as `$0`.
fn without_cgroup2(script: &str) -> Output {
    let unmounted = "awk '/ - cgroup2 /{print $5}' /proc/self/mountinfo | while read point; do umount -l \"$point\"; done\n";
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &format!("{unmounted}{script}")])
        .arg(env!("CARGO_BIN_EXE_farcall-sidecar"))
        .output()
        .unwrap()
}

#[test]
fn where_no_hierarchy_of_version_2_is_mounted_the_advice_mounts_one_and_hides_nothing() {
    let before = without_cgroup2("\"$0\" check; ls /sys/fs/cgroup >&2");
    let said = String::from_utf8(before.stdout).unwrap();
    let finding = said.lines().find(|line| line.contains("cgroup version 2: "));
    let Some(finding) = finding.filter(|finding| finding.starts_with("MISSING")) else {
        println!("SKIPPED: this user may not unmount the hierarchy of version 2");
        return;
    };
    let (_, advice) = finding.rsplit_once(": ").unwrap();
    // In a /run of its own.
    let followed = without_cgroup2(&format!(
        "mount -t tmpfs none /run && {{ {}; }} && \"$0\" check; ls /sys/fs/cgroup >&2",
        advice
    ));
    let check = String::from_utf8(followed.stdout).unwrap();
    assert!(check.contains("cgroup version 2: mounted at /run/cgroup2"), "{check}");
    assert_eq!(before.stderr, followed.stderr, "what was there is there");
}
