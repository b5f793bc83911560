//! What the sidecar adds to the ledger beside calls: connections, and calls that both taps saw.

use farcall::Caller;
use std::time::Duration;

/// The account of the connections of one kind over one minute: everything but the numbers is the key, and
/// rows of one key are added up, in the process and in the store.
///
/// ```
/// use farcall_agent::{ConnectionRollup, ExplainedBy, Verdict};
/// let row = ConnectionRollup {
///     minute: 29_000_000,
///     vendor: "stripe".into(),
///     name: "api.stripe.com".into(),
///     address: "203.0.113.7".into(),
///     port: 443,
///     library: "openssl 3".into(),
///     verdict: Verdict::Complete,
///     explained_by: ExplainedBy::Kernel,
///     connections: 1,
///     bytes_out: 1_800,
///     bytes_in: 5_200,
///     ..ConnectionRollup::default()
/// };
/// # assert_eq!(row.reason, "");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectionRollup {
    /// Minutes since the Unix epoch, by the connections' end (or by now, for the part of a long one so far).
    pub minute: u64,
    /// The program that connected.
    pub caller: Caller,
    /// The vendor by the catalogue (`Catalogue::vendor_of`), else the registrable domain or the address.
    pub vendor: String,
    /// The name connected to (DNS answer, SNI or `Host`), empty where none is known.
    pub name: String,
    /// The remote address, without port.
    pub address: String,
    /// The remote port.
    pub port: u16,
    /// The TLS library in words (`openssl 3`, `go`, `rustls`), `plaintext`, or empty where unknown.
    pub library: String,
    /// How completely the calls on it were seen.
    pub verdict: Verdict,
    /// Why the verdict is not [`Verdict::Complete`], in words that complete "because ..."; else empty.
    pub reason: String,
    /// Which tap accounts for the calls on it.
    pub explained_by: ExplainedBy,
    /// How many connections ended (0 for a later part of one that was counted before).
    pub connections: u64,
    /// Bytes sent on the socket, TLS and headers included.
    pub bytes_out: u64,
    /// Bytes received on the socket, TLS and headers included.
    pub bytes_in: u64,
    /// The smoothed round trip time, added up over `rtt_samples` connections.
    pub rtt: Duration,
    /// How many connections `rtt` was added up over.
    pub rtt_samples: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// From connect to close, added up.
    pub duration: Duration,
}

impl ConnectionRollup {
    /// Takes the numbers out; what is left is the key.
    pub(super) fn take_numbers(&mut self) -> Numbers {
        Numbers {
            connections: std::mem::take(&mut self.connections),
            bytes_out: std::mem::take(&mut self.bytes_out),
            bytes_in: std::mem::take(&mut self.bytes_in),
            rtt: std::mem::take(&mut self.rtt),
            rtt_samples: std::mem::take(&mut self.rtt_samples),
            retransmits: std::mem::take(&mut self.retransmits),
            duration: std::mem::take(&mut self.duration),
        }
    }
}

/// The numbers of a [`ConnectionRollup`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    pub(super) connections: u64,
    pub(super) bytes_out: u64,
    pub(super) bytes_in: u64,
    pub(super) rtt: Duration,
    pub(super) rtt_samples: u64,
    pub(super) retransmits: u64,
    pub(super) duration: Duration,
}

impl Numbers {
    pub(super) fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.rtt = self.rtt.saturating_add(other.rtt);
        self.rtt_samples += other.rtt_samples;
        self.retransmits += other.retransmits;
        self.duration = self.duration.saturating_add(other.duration);
    }
}

/// How completely the calls on a connection were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Verdict {
    /// Every byte was parsed.
    Complete,
    /// Parsing stopped at some byte.
    Truncated,
    /// Events were lost on the way out of the kernel.
    Lost,
    /// Nothing could be read.
    #[default]
    Opaque,
}

impl Verdict {
    /// The word for it, as in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::Lost => "lost",
            Self::Opaque => "opaque",
        }
    }
}

/// Which tap accounts for the calls on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ExplainedBy {
    /// The library inside the process.
    Library,
    /// The sidecar.
    Kernel,
    /// Nobody: the bytes are listed as unexplained, with the reason.
    #[default]
    Nobody,
}

impl ExplainedBy {
    /// The word for it, as in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Kernel => "kernel",
            Self::Nobody => "none",
        }
    }
}

/// Calls of the library that the kernel saw too, and that therefore were not counted again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Confirmation {
    /// Minutes since the Unix epoch, by the calls' end.
    pub minute: u64,
    /// The program that called, as the sidecar sees it (pid and start tell which one it is).
    pub caller: Caller,
    /// The vendor's name, as the engine gives it.
    pub vendor: String,
    /// Method and URL template, as the engine gives it; empty where the sidecar did not learn it.
    pub endpoint: String,
    /// How many calls.
    pub calls: u64,
}
