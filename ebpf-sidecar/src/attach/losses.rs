//! What the kernel side could not deliver.

use serde::Serialize;

/// How often the kernel could not deliver something, by reason. All zero is the normal state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// The ring buffer was full.
    pub ring_full: u64,
    /// Payload was withheld so that connection records keep their room.
    pub ring_pressure: u64,
    /// An application's buffer could not be read.
    pub fault: u64,
    /// More connections at once than the kernel map holds.
    pub connection_map: u64,
    /// More threads inside a TLS call than the kernel map holds.
    pub call_map: u64,
    /// More TLS streams than the kernel map holds.
    pub stream_map: u64,
    /// Bytes in the middle of long operations, which were left out. Their number is known, so nothing is lost.
    pub cut_bytes: u64,
    /// Packets whose payload could not be read.
    pub packet: u64,
}

impl Losses {
    /// Name and value of each, as `farcall doctor` shows them.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("sidecar_ring_full", self.ring_full),
            ("sidecar_ring_pressure", self.ring_pressure),
            ("sidecar_unreadable_buffers", self.fault),
            ("sidecar_too_many_connections", self.connection_map),
            ("sidecar_too_many_tls_calls", self.call_map),
            ("sidecar_too_many_tls_streams", self.stream_map),
            ("sidecar_unreadable_packets", self.packet),
        ]
    }

    /// Whether nothing was lost. Bytes that were cut are none of it: their number is known.
    #[must_use]
    pub fn none(&self) -> bool {
        self.named().iter().all(|(_, count)| *count == 0)
    }
}
