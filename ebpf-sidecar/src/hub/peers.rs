//! The libraries' end of the hub: a Unix socket on which each tells of the calls that it counted (docs/hub.md).

use std::{
    io::{ErrorKind, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use farcall::ledger::Sighting as Wire;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    HubError,
    matcher::{Hello, Sighting},
    socket::Socket,
};
use crate::clock;

/// Processes connected at once; more are turned away, and their calls may then count twice.
const MAX_PEERS: usize = 4_096;
/// Bytes taken from one peer at a time, so that none keeps the others waiting.
const TURN: usize = 256 * 1024;
/// Sightings in one frame; a peer that announces more does not speak our protocol.
const MAX_FRAME: u32 = 1_000_000;

const MAGIC: &[u8; 8] = b"FARCALL1";
const HELLO: usize = 32;

/// What a peer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// It connected: there is a library in it, which may say hello.
    Came,
    Hello(Hello),
    Sighting(Sighting),
    /// Everything that ended before this moment has been told.
    Told(u64),
    /// It will say no more: the connection ended, or the process.
    Left {
        at: u64,
        /// Whether it had said hello.
        greeted: bool,
    },
}

/// The listening socket and the processes connected to it.
#[derive(Debug)]
pub(super) struct Peers {
    socket: Socket,
    peers: Vec<Peer>,
    turned_away: u64,
}

#[derive(Debug)]
struct Peer {
    stream: UnixStream,
    pid: u32,
    /// Readable once the process has ended, whoever else holds its socket. `None` where it has ended already.
    life: Option<OwnedFd>,
    decoder: Decoder,
}

/// How a peer is after what it said was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// There is more.
    More,
    /// It has said all for now.
    Silent,
    /// It will say no more.
    Closed,
}

impl Peers {
    pub(super) fn listen(path: &Path) -> Result<Self, HubError> {
        Ok(Self { socket: Socket::listen(path)?, peers: Vec::new(), turned_away: 0 })
    }

    /// Listens anew where the socket was removed. Returns whether it was.
    pub(super) fn renew(&mut self) -> bool {
        self.socket.renew()
    }

    /// How many were turned away since the last time: there were too many, or nobody can say who they are.
    pub(super) fn turned_away(&mut self) -> u64 {
        std::mem::take(&mut self.turned_away)
    }

    /// What has been said since the last time, without waiting, by process.
    pub(super) fn messages(&mut self) -> Vec<(u32, Message)> {
        let mut messages = Vec::new();
        while let Some(stream) = self.socket.accept() {
            match pid_of(&stream) {
                Some(pid) if self.peers.len() < MAX_PEERS && stream.set_nonblocking(true).is_ok() => {
                    self.peers.push(Peer::new(stream, pid));
                    messages.push((pid, Message::Came));
                }
                _ => self.turned_away += 1,
            }
        }
        // Asked before reading: what it said before its end is in the socket by then.
        let mut ended = self.ended().into_iter();
        self.peers.retain_mut(|peer| {
            let ended = ended.next().unwrap_or(false);
            let stays = match peer.read(&mut messages) {
                Reading::More => true,
                Reading::Silent => !ended,
                Reading::Closed => false,
            };
            if !stays {
                let (at, greeted) = (clock::monotonic(), peer.decoder.anchor.is_some());
                messages.push((peer.pid, Message::Left { at, greeted }));
            }
            stays
        });
        messages
    }

    /// Of each peer, whether its process has ended.
    fn ended(&self) -> Vec<bool> {
        let lives = self.peers.iter().filter_map(|peer| peer.life.as_ref());
        let mut polled: Vec<PollFd<'_>> = lives.map(|life| PollFd::new(life, PollFlags::IN)).collect();
        let asked = poll(&mut polled, Some(&Timespec::default())).is_ok();
        let mut answers = polled.iter().map(|life| asked && life.revents().contains(PollFlags::IN));
        let ended = self.peers.iter().map(|peer| peer.life.is_none() || answers.next().unwrap_or(false));
        ended.collect()
    }
}

/// The process at the other end, by its number in our own pid namespace (`SO_PEERCRED`, unix(7)). `None` for one that has
/// none here, of which the kernel says 0: none of its calls can be told from others'.
fn pid_of(stream: &UnixStream) -> Option<u32> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // Not through rustix, in whose `Pid` there is no 0.
    // SAFETY: the descriptor is open, and both pointers lead to what the option says: a `ucred` and its size.
    #[allow(unsafe_code)]
    let answer = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut size,
        )
    };
    u32::try_from(credentials.pid).ok().filter(|pid| answer == 0 && *pid != 0)
}

impl Peer {
    fn new(stream: UnixStream, pid: u32) -> Self {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let life = number.and_then(|number| pidfd_open(number, PidfdFlags::empty()).ok());
        Self { stream, pid, life, decoder: Decoder::default() }
    }

    /// Reads what there is.
    fn read(&mut self, messages: &mut Vec<(u32, Message)>) -> Reading {
        let mut buffer = [0; 16 * 1024];
        let mut taken = 0;
        while taken < TURN {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Reading::Closed,
                Ok(len) => {
                    taken += len;
                    let pid = self.pid;
                    let understood = self.decoder.feed(&buffer[..len], clock::monotonic(), |message| {
                        messages.push((pid, message));
                    });
                    if !understood {
                        return Reading::Closed;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Reading::Silent,
                Err(_) => return Reading::Closed,
            }
        }
        Reading::More
    }
}

/// Reads the bytes of one peer, in whatever pieces they come.
#[derive(Debug, Default)]
struct Decoder {
    pending: Vec<u8>,
    anchor: Option<u64>,
    left: u32,
}

impl Decoder {
    /// Takes bytes that arrived at `now`. Returns `false` where they are not our protocol.
    fn feed(&mut self, bytes: &[u8], now: u64, mut say: impl FnMut(Message)) -> bool {
        self.pending.extend_from_slice(bytes);
        let mut rest = self.pending.as_slice();
        let understood = loop {
            let Some(anchor) = self.anchor else {
                let Some((hello, tail)) = rest.split_first_chunk::<HELLO>() else { break true };
                rest = tail;
                if !hello.starts_with(MAGIC) {
                    break false;
                }
                let field = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| hello[at + n]));
                let anchor = field(8);
                self.anchor = Some(anchor);
                let hello = Hello {
                    since: monotonic(field(16), anchor),
                    sightings_from: monotonic(field(24), anchor),
                    at: now,
                };
                say(Message::Hello(hello));
                continue;
            };
            if self.left == 0 {
                let Some((count, tail)) = rest.split_first_chunk::<4>() else { break true };
                rest = tail;
                self.left = u32::from_le_bytes(*count);
                if self.left > MAX_FRAME {
                    break false;
                }
            } else {
                let Some((sighting, tail)) = rest.split_first_chunk::<{ Wire::SIZE }>() else { break true };
                rest = tail;
                self.left -= 1;
                let wire = Wire::from_bytes(sighting);
                say(Message::Sighting(Sighting {
                    begun: monotonic(wire.begun.as_nanos(), anchor),
                    ended: monotonic(wire.ended.as_nanos(), anchor),
                    key: wire.key,
                    host: wire.host,
                    status: wire.status,
                    attempts: wire.attempts,
                    single: wire.attempts <= 1,
                }));
            }
            if self.left == 0 {
                say(Message::Told(now));
            }
        };
        let consumed = self.pending.len() - rest.len();
        self.pending.drain(..consumed);
        understood
    }
}

/// A moment of the peer's wall clock on our monotonic clock; before the machine's start is its start.
fn monotonic(unix: u64, anchor: u64) -> u64 {
    let moment = unix.wrapping_sub(anchor);
    if moment > u64::MAX / 2 { 0 } else { moment }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    fn hello(anchor: u64, since: u64, from: u64) -> Vec<u8> {
        [&MAGIC[..], &anchor.to_le_bytes(), &since.to_le_bytes(), &from.to_le_bytes()].concat()
    }

    fn sighting(begun: u64, key: u64) -> [u8; Wire::SIZE] {
        let mut bytes = [0; Wire::SIZE];
        bytes[0..8].copy_from_slice(&begun.to_le_bytes());
        bytes[8..16].copy_from_slice(&(begun + 5).to_le_bytes());
        bytes[16..24].copy_from_slice(&key.to_le_bytes());
        bytes[24..32].copy_from_slice(&3u64.to_le_bytes());
        bytes[32..34].copy_from_slice(&200u16.to_le_bytes());
        bytes[34..36].copy_from_slice(&1u16.to_le_bytes());
        bytes
    }

    fn said(pieces: impl IntoIterator<Item = Vec<u8>>) -> (Vec<Message>, bool) {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        let understood =
            pieces.into_iter().all(|piece| decoder.feed(&piece, 7, |message| messages.push(message)));
        (messages, understood)
    }

    #[test]
    fn times_are_put_on_our_clock_and_frames_end_with_what_was_told() {
        let wire = [hello(1_000, 1_010, 500), 2u32.to_le_bytes().to_vec()];
        let wire =
            [wire.concat(), sighting(1_020, 9).to_vec(), sighting(1_030, 8).to_vec(), vec![0; 4]].concat();
        let expected = |begun, key| {
            Message::Sighting(Sighting {
                begun,
                ended: begun + 5,
                key,
                host: 3,
                status: 200,
                attempts: 1,
                single: true,
            })
        };
        let whole = said([wire.clone()]);
        assert_eq!(
            whole.0,
            [
                Message::Hello(Hello { since: 10, sightings_from: 0, at: 7 }),
                expected(20, 9),
                expected(30, 8),
                Message::Told(7),
                Message::Told(7),
            ]
        );
        assert!(whole.1);
        assert_eq!(said(wire.chunks(1).map(<[u8]>::to_vec)), whole);
    }

    #[test]
    fn a_peer_that_speaks_something_else_is_dropped() {
        assert!(!said([b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()]).1);
        assert!(!said([hello(0, 0, 0), u32::MAX.to_le_bytes().to_vec()]).1);
    }

    #[test]
    fn a_process_is_known_by_its_credentials_and_a_second_hub_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sidecar.sock");
        let mut peers = Peers::listen(&path).unwrap();
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(&hello(0, 1, 2)).unwrap();
        let messages = peers.messages();
        assert!(matches!(messages[..], [(_, Message::Came), (_, Message::Hello(_))]), "{messages:?}");
        assert!(messages.iter().all(|(pid, _)| *pid == std::process::id()));
        assert!(matches!(Peers::listen(&path), Err(HubError::Taken(_))));
        drop(stream);
        let messages = peers.messages();
        // The second hub's question is a peer, too, that came and left.
        let greeted: Vec<_> = messages
            .iter()
            .filter(|(_, message)| matches!(message, Message::Left { greeted: true, .. }))
            .collect();
        assert!(matches!(greeted[..], [(pid, _)] if *pid == std::process::id()), "{messages:?}");
        assert!(peers.peers.iter().all(|peer| peer.decoder.anchor.is_none()));
        drop(peers);
        assert!(!path.exists());
    }

    /// The body of the process of the next test; as a test of its own it has nothing to do.
    #[test]
    fn child_that_leaves_its_socket_to_another() {
        let Some(path) = std::env::var_os("FARCALL_TEST_LEFT") else { return };
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(&hello(0, 1, 2)).unwrap();
        // It becomes another program's standard input, which outlives this process, and ends when the hub lets go.
        std::process::Command::new("cat")
            .stdin(OwnedFd::from(stream))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::process::exit(0);
    }

    #[test]
    fn a_process_leaves_when_it_ends_whoever_holds_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sidecar.sock");
        let mut peers = Peers::listen(&path).unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "hub::peers::tests::child_that_leaves_its_socket_to_another",
                "--test-threads=1",
            ])
            .env("FARCALL_TEST_LEFT", &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut messages = Vec::new();
        while !messages.iter().any(|(_, message)| matches!(message, Message::Left { .. })) {
            assert!(std::time::Instant::now() < deadline, "{messages:?}");
            messages.extend(peers.messages());
            std::thread::yield_now();
        }
        assert!(messages.iter().all(|(pid, _)| *pid == child.id()), "{messages:?}");
        assert!(matches!(messages[1].1, Message::Hello(_)), "what it said before comes first: {messages:?}");
        assert!(child.wait().unwrap().success());
    }

    /// The body of the process in a pid namespace of its own of the next test; as a test of its own it has nothing to do.
    #[test]
    fn child_body() {
        let Some(path) = std::env::var_os("FARCALL_TEST_SOCKET") else { return };
        let mut peers = Peers::listen(Path::new(&path)).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        // Nobody but the test outside connects; it is dropped when it is turned away, or with this process.
        while peers.turned_away() == 0 {
            assert!(std::time::Instant::now() < deadline, "nobody was turned away");
            assert_eq!(peers.messages(), []);
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_without_a_number_here_is_turned_away_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sidecar.sock");
        let mut child = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--pid", "--fork"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "hub::peers::tests::child_body", "--test-threads=1"])
            .env("FARCALL_TEST_SOCKET", &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(&path) {
                break Some(stream);
            }
            if child.try_wait().unwrap().is_some() {
                break None;
            }
            std::thread::yield_now();
        };
        let Some(mut stream) = stream else {
            println!("SKIPPED: this user may not make a pid namespace");
            return;
        };
        // Whatever it says is not taken for anybody's word.
        let _refused = stream.write_all(&hello(0, 1, 2));
        assert!(child.wait().unwrap().success());
    }
}
