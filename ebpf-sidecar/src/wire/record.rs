//! The records that the BPF programs write into the ring buffer (`bpf/types.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::exchange::End;

/// Which way bytes travel, as seen from the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the process to the vendor.
    Out,
    /// From the vendor to the process.
    In,
}

/// What the first bytes that the client sent say about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// No payload was sent yet.
    Unseen,
    /// A TLS handshake record.
    Tls,
    /// A request line of HTTP/1.
    Http1,
    /// The preface of HTTP/2 without TLS.
    Http2,
    /// Anything else.
    Other,
}

/// One TCP connection as the kernel counts it. Times are `CLOCK_MONOTONIC` nanoseconds, 0 where it has not happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The socket's cookie: unique until the machine restarts.
    pub cookie: u64,
    /// When `connect` was called.
    pub opened: u64,
    /// When the handshake was complete.
    pub established: u64,
    /// When the socket was closed.
    pub closed: u64,
    /// Payload bytes put on the wire, retransmissions not counted again.
    pub bytes_out: u64,
    /// Payload bytes received in order.
    pub bytes_in: u64,
    /// Start of the process that connected, `CLOCK_BOOTTIME` nanoseconds.
    pub started: u64,
    /// Identifier of that process's cgroup (version 2 hierarchy).
    pub cgroup: u64,
    /// Process identifier, outside any pid namespace.
    pub tgid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its real user identifier.
    pub uid: u32,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Records and pieces of this connection that the kernel could not deliver.
    pub lost: u32,
    /// Address and port on this machine.
    pub local: (IpAddr, u16),
    /// The vendor's address and port. An IPv4 address in IPv6 form is reported as IPv4.
    pub remote: (IpAddr, u16),
    /// What the first bytes looked like.
    pub protocol: Protocol,
    /// Whether the connection was open before it was followed.
    pub joined: bool,
    /// Whether the socket was made outside of the scope, before its process was moved there: no packets of it are shown.
    pub foreign: bool,
    /// The thread's name at `connect`.
    pub comm: String,
    /// Whether the kernel lists the socket for as long as it exists.
    pub listed: bool,
    /// Who ended it first.
    pub ended: End,
    /// Whether the vendor ended it, and the program closed it without reading all that had come.
    pub unread: bool,
}

/// A process that executed a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// Process identifier.
    pub tgid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its real user identifier.
    pub uid: u32,
    /// Start, `CLOCK_BOOTTIME` nanoseconds.
    pub started: u64,
    /// Identifier of its cgroup.
    pub cgroup: u64,
    /// Its name.
    pub comm: String,
    /// The path given to `execve`.
    pub path: String,
}

/// A piece of payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The socket's cookie, 0 where the kernel does not know it.
    pub cookie: u64,
    /// Identifier of the stream: the TLS library's, or the socket cookie.
    pub stream: u64,
    /// Process, where the record was made in its context.
    pub tgid: u32,
    /// Position of the first byte in its direction of the stream.
    pub offset: u64,
    /// When the operation began.
    pub begun: u64,
    /// When its bytes were seen.
    pub at: u64,
    /// Length of the whole operation, of which this may be a part.
    pub total: u32,
    /// Pieces of this stream that could not be delivered so far.
    pub lost: u32,
    /// Whether the operation begins with this piece.
    pub first: bool,
    /// Which way it travels.
    pub direction: Direction,
    /// `FC_DNS`: identifier of the receiving socket's cgroup. `FC_TLS`: the library's connection object.
    pub library: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// One record of the ring buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// `connect` was called.
    Open(Socket),
    /// The TCP handshake is complete.
    Up(Socket),
    /// The socket was closed; its counters are final.
    Close(Socket),
    /// A process of the scope executed a program.
    Exec(Execution),
    /// A process was put into a cgroup of the scope; it has executed its program, without a path here, before.
    Moved(Execution),
    /// The last thread of a process ended.
    Exit {
        /// Process identifier.
        tgid: u32,
        /// When.
        at: u64,
    },
    /// A DNS response arrived.
    Dns(Piece<'a>),
    /// Payload of a TCP connection as it travels: plain HTTP.
    Plain(Piece<'a>),
    /// The first payload of a TLS connection.
    Hello(Piece<'a>),
    /// Plaintext of one call into a TLS library.
    Tls(Piece<'a>),
    /// The TLS library freed this stream, or uses its object for another one.
    TlsEnd {
        /// Identifier of the stream.
        stream: u64,
        /// When.
        at: u64,
    },
}

const HEAD: usize = 32;
const PIECE: usize = 80;

/// Reads native-endian fields at fixed places of a record. Out of range reads give `None`.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at + N)?.try_into().ok()
    }
    fn u16(&self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_ne_bytes)
    }
    fn u32(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_ne_bytes)
    }
    fn u64(&self, at: usize) -> Option<u64> {
        self.bytes(at).map(u64::from_ne_bytes)
    }
    fn text(&self, at: usize, len: usize) -> Option<String> {
        let field = self.0.get(at..at + len)?;
        let end = field.iter().position(|&byte| byte == 0).unwrap_or(len);
        Some(String::from_utf8_lossy(&field[..end]).into_owned())
    }
}

fn address(bytes: [u8; 16], family: u16) -> IpAddr {
    if family == libc::AF_INET as u16 {
        IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
    } else {
        IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
    }
}

impl Socket {
    /// Size of `struct fc_conn`.
    pub const SIZE: usize = 168;

    /// Where `joined` is in it.
    pub const JOINED: usize = 143;

    /// Decodes `struct fc_conn`, in a record or as a value of the map `fc_conns`. `None` when too short.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes.get(..Self::SIZE)?);
        let family = fields.u16(140)?;
        Some(Self {
            cookie: fields.u64(0)?,
            opened: fields.u64(8)?,
            established: fields.u64(16)?,
            closed: fields.u64(24)?,
            bytes_out: fields.u64(32)?,
            bytes_in: fields.u64(40)?,
            started: fields.u64(48)?,
            cgroup: fields.u64(56)?,
            tgid: fields.u32(64)?,
            parent: fields.u32(68)?,
            uid: fields.u32(72)?,
            rtt_us: fields.u32(76)?,
            retransmits: fields.u32(80)?,
            lost: fields.u32(100)?,
            local: (address(fields.bytes(104)?, family), fields.u16(136)?),
            remote: (address(fields.bytes(120)?, family), fields.u16(138)?),
            protocol: match fields.bytes::<1>(142)?[0] {
                0 => Protocol::Unseen,
                1 => Protocol::Tls,
                2 => Protocol::Http1,
                3 => Protocol::Http2,
                _ => Protocol::Other,
            },
            joined: fields.bytes::<1>(Self::JOINED)?[0] != 0,
            foreign: fields.bytes::<1>(Self::JOINED)?[0] == 3,
            comm: fields.text(144, 16)?,
            listed: fields.u32(160)? != 0,
            ended: match fields.u32(164)? {
                0 => End::Unknown,
                2 => End::Program,
                4 => End::Broken,
                _ => End::Vendor,
            },
            unread: fields.u32(164)? == 3,
        })
    }
}

impl<'a> Record<'a> {
    /// Decodes one record. `None` for a kind that we do not know or a record shorter than its kind: both mean that
    /// programs and user space are of different builds.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let fields = Fields(bytes);
        let (kind, tgid, at, id) = (fields.u32(0)?, fields.u32(4)?, fields.u64(16)?, fields.u64(24)?);
        Some(match kind {
            1 => Self::Open(Socket::decode(bytes.get(HEAD..)?)?),
            2 => Self::Up(Socket::decode(bytes.get(HEAD..)?)?),
            3 => Self::Close(Socket::decode(bytes.get(HEAD..)?)?),
            4 => Self::Exec(execution(&fields, tgid)?),
            5 => Self::Exit { tgid, at },
            6 => Self::Dns(piece(bytes, tgid, at, id)?),
            7 => Self::Plain(piece(bytes, tgid, at, id)?),
            8 => Self::Hello(piece(bytes, tgid, at, id)?),
            9 => Self::Tls(piece(bytes, tgid, at, id)?),
            10 => Self::TlsEnd { stream: id, at },
            11 => Self::Moved(execution(&fields, tgid)?),
            _ => return None,
        })
    }
}

fn execution(fields: &Fields<'_>, tgid: u32) -> Option<Execution> {
    Some(Execution {
        tgid,
        started: fields.u64(32)?,
        cgroup: fields.u64(40)?,
        parent: fields.u32(48)?,
        uid: fields.u32(52)?,
        comm: fields.text(56, 16)?,
        path: fields.text(72, 256)?,
    })
}

fn piece(bytes: &[u8], tgid: u32, at: u64, stream: u64) -> Option<Piece<'_>> {
    let fields = Fields(bytes);
    let len = fields.u32(64)? as usize;
    Some(Piece {
        cookie: fields.u64(32)?,
        stream,
        tgid,
        offset: fields.u64(40)?,
        begun: fields.u64(48)?,
        at,
        library: fields.u64(56)?,
        total: fields.u32(68)?,
        lost: fields.u32(72)?,
        direction: if fields.bytes::<1>(76)?[0] == 0 { Direction::Out } else { Direction::In },
        first: fields.bytes::<1>(78)?[0] != 0,
        bytes: bytes.get(PIECE..PIECE + len)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_socket_decodes_from_the_layout_of_types_h() {
        let mut bytes = vec![0u8; Socket::SIZE];
        bytes[..8].copy_from_slice(&7u64.to_ne_bytes());
        bytes[32..40].copy_from_slice(&1234u64.to_ne_bytes());
        bytes[120..136].copy_from_slice(&"::ffff:10.1.2.3".parse::<Ipv6Addr>().unwrap().octets());
        bytes[138..140].copy_from_slice(&443u16.to_ne_bytes());
        bytes[140..142].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        bytes[142] = 1;
        bytes[144..148].copy_from_slice(b"curl");
        let socket = Socket::decode(&bytes).unwrap();
        assert_eq!(socket.cookie, 7);
        assert_eq!(socket.bytes_out, 1234);
        assert_eq!(socket.remote, ("10.1.2.3".parse().unwrap(), 443));
        assert_eq!(socket.protocol, Protocol::Tls);
        assert_eq!(socket.comm, "curl");
    }

    #[test]
    fn a_short_or_unknown_record_is_none() {
        assert_eq!(Record::decode(&[]), None);
        assert_eq!(Record::decode(&[0; HEAD]), None);
        let mut close = vec![0u8; HEAD + Socket::SIZE - 1];
        close[0] = 3;
        assert_eq!(Record::decode(&close), None);
        let mut tls = vec![0u8; PIECE];
        tls[0] = 9;
        tls[64] = 1; // one byte promised, none there
        assert_eq!(Record::decode(&tls), None);
    }
}
