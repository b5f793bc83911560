//! What every version of HTTP yields: a request and what came back.

use super::{http1, http2, record::Direction};

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Both messages were complete.
    Complete,
    /// The connection ended before the response began.
    NoResponse,
    /// The connection, or the vendor, ended in the middle of a message.
    Aborted,
    /// The program let go of it before the response began: it did not wait any longer.
    Cancelled,
    /// The program let go of the response before its last byte.
    Abandoned,
    /// The response turned the connection into something else (a tunnel, WebSocket); what follows is not HTTP/1.
    Switched,
    /// What was answered broke the rules of HTTP where they have a client give up.
    Malformed,
    /// Bytes are missing, or were beyond our bounds, before it ended: we do not know how.
    Unknown,
}

/// One request and what came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The method, as sent.
    pub method: String,
    /// Host of the `Host` field or the request target, in lower case, without port. Empty if there was none.
    pub host: String,
    /// Port, where one was written.
    pub port: Option<u16>,
    /// Path without query, at most 16 KiB.
    pub path: String,
    /// Status of the response, 0 without one.
    pub status: u16,
    /// When the request began to be sent, in the caller's nanoseconds.
    pub begun: u64,
    /// When the head of the response was complete, 0 without one.
    pub head: u64,
    /// When the exchange ended.
    pub ended: u64,
    /// Content bytes of the request, without framing.
    pub body_out: u64,
    /// Content bytes of the response, without framing.
    pub body_in: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What the response says of the vendor's quotas: its fields that may, names in lower case.
    pub stated: Vec<(&'static str, String)>,
    /// Whether the head of the response bent the rules so that some clients read it and some give up.
    pub bent: bool,
}

impl Exchange {
    /// The host that it says its connection leads to: none where it has none, or opens a tunnel.
    pub(super) fn said_host(&self) -> Option<&str> {
        (self.method != "CONNECT" && !self.host.is_empty()).then_some(self.host.as_str())
    }
}

/// Bytes of one direction, in order.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// When the operation that moved them began, in nanoseconds.
    pub begun: u64,
    /// When they were seen.
    pub at: u64,
    /// Whether the program began an operation with them. Only there can a lost conversation resume.
    pub boundary: bool,
}

/// Who ended a connection, or an exchange on it, first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// Nobody saw.
    #[default]
    Unknown,
    /// The vendor.
    Vendor,
    /// The vendor or the network between, with an error: a reset, or silence for too long.
    Broken,
    /// The program.
    Program,
}

impl End {
    /// How an exchange comes out that ended so before its response was complete, with the status of what there is of it.
    pub(super) fn cut_off(self, status: u16) -> Outcome {
        match (self, status) {
            (Self::Program, 0) => Outcome::Cancelled,
            (Self::Program, _) => Outcome::Abandoned,
            (Self::Vendor | Self::Broken | Self::Unknown, 0) => Outcome::NoResponse,
            (Self::Vendor | Self::Broken, _) => Outcome::Aborted,
            // Of a response that began, letting go is as likely.
            (Self::Unknown, _) => Outcome::Unknown,
        }
    }
}

/// How much of a conversation is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Understanding {
    /// All of it, so far.
    Whole,
    /// Not the bytes around this offset: missing, or no HTTP.
    Broken {
        /// Offset in its direction where understanding ended first.
        at: u64,
    },
    /// It is no HTTP, or no longer.
    Opaque(&'static str),
}

/// Both directions of one connection, in the version of HTTP that its first bytes show.
#[derive(Debug)]
pub struct Conversation {
    version: Version,
}

/// Bytes that came before the version was known, with what [`Chunk`] says of them.
#[derive(Debug)]
struct Early {
    direction: Direction,
    bytes: Vec<u8>,
    begun: u64,
    at: u64,
    boundary: bool,
}

#[derive(Debug)]
enum Version {
    Unknown { early: Vec<Early>, kept: usize },
    Http1(Box<http1::Conversation>),
    Http2(Box<http2::Conversation>),
}

/// Bytes kept until the client has sent enough to tell the version.
const MAX_EARLY: usize = 64 * 1024;
/// So many bytes tell the preface of HTTP/2 from every method.
const TELLING: usize = 4;

impl Default for Conversation {
    fn default() -> Self {
        Self { version: Version::Unknown { early: Vec::new(), kept: 0 } }
    }
}

impl Conversation {
    /// Takes the next bytes of one direction.
    pub fn feed(&mut self, direction: Direction, chunk: Chunk<'_>) {
        match &mut self.version {
            Version::Http1(conversation) => conversation.feed(direction, chunk),
            Version::Http2(conversation) => conversation.feed(direction, chunk),
            Version::Unknown { early, kept } => {
                *kept += chunk.bytes.len();
                let Chunk { bytes, begun, at, boundary } = chunk;
                early.push(Early { direction, bytes: bytes.to_vec(), begun, at, boundary });
                let sent: Vec<u8> = early
                    .iter()
                    .filter(|early| early.direction == Direction::Out)
                    .flat_map(|early| early.bytes.iter().copied())
                    .take(TELLING)
                    .collect();
                if sent.len() == TELLING || *kept > MAX_EARLY {
                    self.decide(http2::PREFACE.starts_with(&sent) && sent.len() == TELLING);
                }
            }
        }
    }

    /// Says that the next bytes of one direction were not seen.
    pub fn skip(&mut self, direction: Direction, missing: u64, at: u64) {
        if missing == 0 {
            return;
        }
        // The version of a conversation whose beginning is missing is not HTTP/2 to us: its header tables are lost.
        if matches!(self.version, Version::Unknown { .. }) {
            self.decide(false);
        }
        match &mut self.version {
            Version::Http1(conversation) => conversation.skip(direction, missing, at),
            Version::Http2(conversation) => conversation.skip(direction, missing, at),
            Version::Unknown { .. } => {}
        }
    }

    /// Says that the connection has ended, and by whom.
    pub fn close(&mut self, at: u64, by: End) {
        if matches!(self.version, Version::Unknown { .. }) {
            self.decide(false);
        }
        match &mut self.version {
            Version::Http1(conversation) => conversation.close(at, by),
            Version::Http2(conversation) => conversation.close(at, by),
            Version::Unknown { .. } => {}
        }
    }

    /// The exchanges that ended since the last time.
    pub fn exchanges(&mut self) -> Vec<Exchange> {
        match &mut self.version {
            Version::Http1(conversation) => conversation.exchanges(),
            Version::Http2(conversation) => conversation.exchanges(),
            Version::Unknown { .. } => Vec::new(),
        }
    }

    /// Host of the oldest request under way that says one. Opening a tunnel is none: its host is not whom the connection
    /// leads to.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.version {
            Version::Http1(conversation) => conversation.host(),
            Version::Http2(conversation) => conversation.host(),
            Version::Unknown { .. } => None,
        }
    }

    /// Whether a request waits for its answer, or the rest of it.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        match &self.version {
            Version::Http1(conversation) => conversation.is_under_way(),
            Version::Http2(conversation) => conversation.is_under_way(),
            Version::Unknown { kept, .. } => *kept > 0,
        }
    }

    /// How much is understood so far.
    #[must_use]
    pub fn understanding(&self) -> Understanding {
        match &self.version {
            Version::Http1(conversation) => conversation.understanding(),
            Version::Http2(conversation) => conversation.understanding(),
            Version::Unknown { .. } => Understanding::Whole,
        }
    }

    fn decide(&mut self, http2: bool) {
        let version = if http2 { Version::Http2(Box::default()) } else { Version::Http1(Box::default()) };
        if let Version::Unknown { early, .. } = std::mem::replace(&mut self.version, version) {
            for Early { direction, bytes, begun, at, boundary } in early {
                self.feed(direction, Chunk { bytes: &bytes, begun, at, boundary });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{In, Out};

    fn feed(conversation: &mut Conversation, direction: Direction, bytes: &[u8]) {
        for piece in bytes.chunks(1) {
            conversation.feed(direction, Chunk { bytes: piece, begun: 0, at: 0, boundary: true });
        }
    }

    #[test]
    fn the_version_is_known_by_the_first_bytes_that_the_client_sends() {
        let mut one = Conversation::default();
        feed(&mut one, Out, b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        feed(&mut one, In, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(one.exchanges().len(), 1);
        let mut two = Conversation::default();
        // The server may greet first.
        feed(&mut two, In, b"\0\0\0\x04\0\0\0\0\0");
        feed(&mut two, Out, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        assert!(matches!(two.version, Version::Http2(_)));
        assert_eq!(two.understanding(), Understanding::Whole);
    }

    #[test]
    fn a_server_that_only_talks_is_not_kept_for_ever() {
        let mut conversation = Conversation::default();
        for _ in 0..10 {
            conversation.feed(In, Chunk { bytes: &[b'x'; 16 * 1024], begun: 0, at: 0, boundary: true });
        }
        assert!(matches!(conversation.version, Version::Http1(_)));
        assert!(matches!(conversation.understanding(), Understanding::Broken { .. }));
    }
}
