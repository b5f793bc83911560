#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    mem::{offset_of, size_of},
    path::PathBuf,
    process::{Command, Stdio},
};

use super::*;
use crate::{attach::skeleton::types::fc_conn, tap::Connection, wire::record::Socket};

#[test]
fn both_sides_agree_on_the_layout_of_a_connection() {
    // The offsets that `Socket::decode` reads at.
    assert_eq!(size_of::<fc_conn>(), Socket::SIZE);
    assert_eq!(offset_of!(fc_conn, cookie), 0);
    assert_eq!(offset_of!(fc_conn, closed), 24);
    assert_eq!(offset_of!(fc_conn, bytes_in), 40);
    assert_eq!(offset_of!(fc_conn, cgroup), 56);
    assert_eq!(offset_of!(fc_conn, tgid), 64);
    assert_eq!(offset_of!(fc_conn, retransmits), 80);
    assert_eq!(offset_of!(fc_conn, lost), 100);
    assert_eq!(offset_of!(fc_conn, local), 104);
    assert_eq!(offset_of!(fc_conn, remote), 120);
    assert_eq!(offset_of!(fc_conn, local_port), 136);
    assert_eq!(offset_of!(fc_conn, family), 140);
    assert_eq!(offset_of!(fc_conn, proto), 142);
    assert_eq!(offset_of!(fc_conn, joined), 143);
    assert_eq!(offset_of!(fc_conn, comm), 144);
    assert_eq!(offset_of!(fc_conn, listed), 160);
    assert_eq!(offset_of!(fc_conn, ended), 164);
}

/// A cgroup of this test's own.
struct Scope(PathBuf);

impl Scope {
    fn new(name: &str) -> Self {
        let path = crate::attach::cgroup::mount_point().unwrap();
        let path = path.join(format!("farcall-unit-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(120);

/// Looks until so many connections are open.
fn until_open(capture: &mut Capture<'_>, seen: &mut Vec<Connection>, open: usize) {
    let deadline = Instant::now() + PATIENCE;
    while capture.open_connections() != open {
        assert!(Instant::now() < deadline, "waited in vain for {open} open connections");
        let observations =
            [capture.poll(Duration::from_millis(5)).unwrap(), capture.sweep().unwrap()].concat();
        seen.extend(observations.into_iter().filter_map(|observation| match observation {
            Observation::Connection(progress) if progress.last => Some(progress.connection),
            _ => None,
        }));
    }
}

#[test]
fn an_end_that_no_program_saw_is_found_with_its_bytes_and_said() {
    if !check::sufficient(&check::check()) {
        println!("SKIPPED (kernel): this machine lacks what `farcall-sidecar check` lists");
        eprintln!("SKIPPED (kernel): this machine lacks what `farcall-sidecar check` lists");
        return;
    }
    // Two connections: one is reset while the program holds it, the other one ends with the program.
    let script = r#"
import socket, struct, sys
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
held = socket.create_connection(listener.getsockname()); held_peer, _ = listener.accept()
last = socket.create_connection(listener.getsockname()); last_peer, _ = listener.accept()
for client, peer, up in ((held, held_peer, 700), (last, last_peer, 900)):
    client.sendall(b"\0" * up); peer.recv(up, socket.MSG_WAITALL)
    peer.sendall(b"\0" * 30); client.recv(30, socket.MSG_WAITALL)
print("ready", flush=True); sys.stdin.readline()
last.sendall(b"\0" * 50); last_peer.recv(50, socket.MSG_WAITALL)
held_peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); held_peer.close()
try: held.recv(1)
except ConnectionResetError: pass
print("reset", flush=True); sys.stdin.readline()
"#;
    let scope = Scope::new("missed");
    let cgroup = Cgroup::open(&scope.0).unwrap();
    let mut storage = MaybeUninit::uninit();
    let options = Options { include_loopback: true, ..Options::default() };
    let mut capture = Capture::start(&mut storage, &cgroup, &options).unwrap();
    let mut program = Command::new("sh")
        .args(["-c", "echo $$ > \"$0\" && exec python3 -c \"$1\""])
        .arg(scope.0.join("cgroup.procs"))
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut tell = program.stdin.take().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    until_open(&mut capture, &mut seen, 2);
    capture.links.clear();
    capture.scope_links.clear(); // no program runs from here on
    tell.write_all(b"go\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "reset");
    until_open(&mut capture, &mut seen, 1);
    assert_eq!((seen[0].bytes_out, seen[0].bytes_in), (700, 30), "the one that the program still holds");
    assert_eq!(capture.losses().unwrap().ends_found, 1);
    tell.write_all(b"go\n").unwrap();
    assert!(program.wait().unwrap().success());
    until_open(&mut capture, &mut seen, 0);
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|connection| connection.closed > connection.established));
    assert_ne!(seen[0].id, seen[1].id);
    let losses = capture.losses().unwrap();
    assert_eq!(losses.ends_found, 2);
    assert!(losses.none(), "made up for: {losses:?}");
    assert!(losses.named().contains(&("sidecar_ends_found_late", 2)), "and said");
}

#[test]
fn a_cgroup_that_is_made_anew_is_looked_at_again() {
    if !check::sufficient(&check::check()) {
        println!("SKIPPED (kernel): this machine lacks what `farcall-sidecar check` lists");
        eprintln!("SKIPPED (kernel): this machine lacks what `farcall-sidecar check` lists");
        return;
    }
    // It is opened before the sidecar looks again, and then used.
    let script = r#"
import socket, sys
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen()
early = socket.create_connection(listener.getsockname()); early_peer, _ = listener.accept()
print("ready", flush=True); sys.stdin.readline()
late = socket.create_connection(listener.getsockname()); late_peer, _ = listener.accept()
for client, peer, up in ((early, early_peer, 700), (late, late_peer, 900)):
    client.sendall(b"\0" * up); peer.recv(up, socket.MSG_WAITALL); client.close()
"#;
    let scope = Scope::new("anew");
    let cgroup = Cgroup::open(&scope.0).unwrap();
    let mut storage = MaybeUninit::uninit();
    let options = Options { include_loopback: true, ..Options::default() };
    let mut capture = Capture::start(&mut storage, &cgroup, &options).unwrap();
    for round in 1..=2 {
        // Processes that ended leave it a moment later.
        let deadline = Instant::now() + PATIENCE;
        while fs::remove_dir(&scope.0).is_err() {
            assert!(Instant::now() < deadline, "waited in vain for an empty cgroup");
        }
        assert!(capture.poll(Duration::from_millis(1)).unwrap().is_empty(), "there is none for a while");
        fs::create_dir(&scope.0).unwrap();
        let mut program = Command::new("sh")
            .args(["-c", "echo $$ > \"$0\" && exec python3 -c \"$1\""])
            .arg(scope.0.join("cgroup.procs"))
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let mut seen = Vec::new();
        until_open(&mut capture, &mut seen, 1);
        program.stdin.take().unwrap().write_all(b"go\n").unwrap();
        assert!(program.wait().unwrap().success());
        until_open(&mut capture, &mut seen, 0);
        let bytes: Vec<_> = seen.iter().map(|connection| connection.bytes_out).collect();
        assert_eq!(bytes, [700, 900]);
        let losses = capture.losses().unwrap();
        assert!(losses.named().contains(&("sidecar_cgroup_made_anew", round)), "{losses:?}");
    }
}
