//! The agent's end of docs/hub.md, against a listener that stands for the sidecar.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use farcall::ledger::Sighting;
use farcall_agent::{Farcall, Options};
use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;
use support::{call, counter, number, options};

fn listen(home: &Path) -> UnixListener {
    UnixListener::bind(home.join("sidecar.sock")).unwrap()
}

fn accept(listener: &UnixListener) -> UnixStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

fn read<const N: usize>(stream: &mut UnixStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn long(stream: &mut UnixStream) -> u64 {
    u64::from_le_bytes(read(stream))
}

fn frame(stream: &mut UnixStream) -> Vec<Sighting> {
    let count = u32::from_le_bytes(read(stream));
    (0..count).map(|_| Sighting::from_bytes(&read(stream))).collect()
}

#[test]
fn the_sidecar_learns_of_every_call_from_the_first_on() {
    let home = tempfile::tempdir().unwrap();
    let listener = listen(home.path());
    let before = farcall_now();
    let farcall = Farcall::start(options(home.path()));
    farcall.adapter_installed("requests");
    call(&farcall, "acme", 200);
    call(&farcall, "acme", 404);
    farcall.flush();

    let mut sidecar = accept(&listener);
    assert_eq!(&read::<8>(&mut sidecar), b"FARCALL1");
    let (anchor, since, sightings_from) = (long(&mut sidecar), long(&mut sidecar), long(&mut sidecar));
    // Anchor and CLOCK_MONOTONIC give Unix time.
    let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let monotonic = u64::try_from(monotonic.tv_sec * 1_000_000_000 + monotonic.tv_nsec).unwrap();
    // As far as two clocks can be read at the same time.
    const APART: u64 = 10_000_000_000;
    let wall = anchor.wrapping_add(monotonic);
    assert!(before <= wall + APART && wall <= farcall_now() + APART);
    assert!(before <= since + APART && since <= sightings_from && sightings_from <= farcall_now() + APART);

    let sightings = frame(&mut sidecar);
    assert_eq!(sightings.len(), 2);
    assert_eq!(sightings[0].key, Sighting::key("GET", "api.stripe.com", "/v1/balance"));
    assert_eq!((sightings[0].status, sightings[1].status, sightings[0].attempts), (200, 404, 1));
    assert!(sightings[0].begun.as_nanos() >= sightings_from && sightings[0].ended >= sightings[0].begun);

    farcall.flush();
    assert!(frame(&mut sidecar).is_empty(), "a flush without calls is a heartbeat");
    assert_eq!(number(home.path(), "SELECT hub FROM processes"), 1);
}

#[test]
fn calls_of_all_threads_are_told_in_the_order_of_their_ends() {
    let home = tempfile::tempdir().unwrap();
    let listener = listen(home.path());
    let farcall = Farcall::start(options(home.path()));
    farcall.adapter_installed("requests");
    farcall.flush();
    let mut sidecar = accept(&listener);
    read::<32>(&mut sidecar);
    assert!(frame(&mut sidecar).is_empty());
    // Threads take turns, so that each shard's calls lie between those of the others.
    let (rounds, threads) = (5, 8);
    let turn = std::sync::Barrier::new(threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (farcall, turn) = (&farcall, &turn);
            scope.spawn(move || {
                for at in 0..rounds * threads {
                    if at % threads == thread {
                        call(farcall, "acme", 200);
                    }
                    turn.wait();
                }
            });
        }
    });
    farcall.flush();
    let sightings = frame(&mut sidecar);
    assert_eq!(sightings.len(), rounds * threads);
    assert!(sightings.is_sorted_by_key(|sighting| sighting.ended));
}

fn farcall_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

#[test]
fn a_process_that_neither_hooks_nor_calls_claims_nothing() {
    let home = tempfile::tempdir().unwrap();
    let listener = listen(home.path());
    let farcall = Farcall::start(options(home.path()));
    farcall.flush();
    let mut sidecar = accept(&listener);
    sidecar.set_nonblocking(true).unwrap();
    assert_eq!(
        sidecar.read(&mut [0; 32]).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "no hello: the sidecar counts what it sees of this process"
    );
    call(&farcall, "acme", 200);
    farcall.flush();
    sidecar.set_nonblocking(false).unwrap();
    assert_eq!(&read::<32>(&mut sidecar)[..8], b"FARCALL1");
    assert_eq!(frame(&mut sidecar).len(), 1);
}

#[test]
fn a_sidecar_that_comes_late_or_again_is_found() {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(options(home.path()));
    farcall.adapter_installed("requests");
    call(&farcall, "acme", 200);
    farcall.flush();
    for _ in 0..2 {
        let listener = listen(home.path());
        farcall.flush();
        call(&farcall, "acme", 200);
        farcall.flush();
        let mut sidecar = accept(&listener);
        let hello = read::<32>(&mut sidecar);
        let field = |at: usize| u64::from_le_bytes(hello[at..at + 8].try_into().unwrap());
        assert!(field(16) < field(24), "calls before `sightings_from` are not sent again");
        assert!(frame(&mut sidecar).is_empty());
        assert_eq!(frame(&mut sidecar).len(), 1);
        drop((sidecar, listener));
        std::fs::remove_file(home.path().join("sidecar.sock")).unwrap();
        // The first flush that finds nobody listening lets go.
        farcall.flush();
        farcall.flush();
    }
    assert_eq!(support::calls(home.path()), 3);
}

#[test]
fn a_sidecar_that_does_not_read_or_accept_delays_nothing() {
    let home = tempfile::tempdir().unwrap();
    let listener = listen(home.path());
    // Its queue fills up: connecting would wait now.
    let mut queue = Vec::new();
    while let Some(stream) = try_connect(home.path()) {
        queue.push(stream);
    }
    let farcall = Farcall::start(options(home.path()));
    farcall.adapter_installed("requests");
    call(&farcall, "acme", 200);
    assert_eq!(farcall.flush().pending, 0);
    drop(queue);
    let mut accepted = Vec::new();
    support::until("a place in the queue", || {
        listener.set_nonblocking(true).unwrap();
        accepted.extend(listener.accept().map(|(stream, _)| stream));
        farcall.flush();
        number(home.path(), "SELECT hub FROM processes") == 1
    });
    // Connected, and nobody reads: what does not fit is counted.
    for _ in 0..60 {
        (0..2_000).for_each(|_| call(&farcall, "acme", 200));
        farcall.flush();
    }
    assert!(counter(&farcall, "untold_sightings") > 0);
    assert_eq!(support::calls(home.path()), 120_001);
}

/// One more connection in the listener's queue, unless it is full.
fn try_connect(home: &Path) -> Option<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(home.join("sidecar.sock")).unwrap()).ok()?;
    Some(socket)
}

#[test]
fn without_the_hub_nobody_is_asked() {
    let home = tempfile::tempdir().unwrap();
    let listener = listen(home.path());
    listener.set_nonblocking(true).unwrap();
    let farcall = Farcall::start(Options { hub: false, ..options(home.path()) });
    call(&farcall, "acme", 200);
    farcall.flush();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}
