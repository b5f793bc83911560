//! Sightings: the least that has to be known of a single call so that the other tap's account of it can be
//! recognised, and the call counted once.

use crate::units::Timestamp;
use foldhash::fast::FixedState;
use std::hash::BuildHasher;

/// One call, as the library saw it; compared with the kernel's account of the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sighting {
    /// When it began.
    pub begun: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// [`Sighting::key`] of method, host and path.
    pub key: u64,
    /// [`Sighting::host_key`] of the host.
    pub host: u64,
    /// The HTTP status; 0 where no response came.
    pub status: u16,
    /// Exchanges on the wire.
    pub attempts: u16,
}

impl Sighting {
    /// How many bytes one takes when it is written.
    pub const SIZE: usize = 36;

    /// The hash by which two taps recognise the same request. Equal in every process on every machine: part
    /// of the hub's protocol. `host` in any case, `path` without query.
    #[must_use]
    pub fn key(method: &str, host: &str, path: &str) -> u64 {
        RequestKeys::new(method, super::Text::<256>::lower(host).as_str(), path).request
    }

    /// The hash by which two taps recognise the same host. `host` in any case.
    #[must_use]
    pub fn host_key(host: &str) -> u64 {
        hasher().hash_one(super::Text::<256>::lower(host).as_str().as_bytes())
    }

    /// The sighting as bytes, little-endian, in the order of its fields.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..8].copy_from_slice(&self.begun.as_nanos().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.ended.as_nanos().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.key.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.host.to_le_bytes());
        bytes[32..34].copy_from_slice(&self.status.to_le_bytes());
        bytes[34..36].copy_from_slice(&self.attempts.to_le_bytes());
        bytes
    }

    /// Reads what [`Sighting::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            begun: Timestamp::from_nanos(long(0)),
            ended: Timestamp::from_nanos(long(8)),
            key: long(16),
            host: long(24),
            status: short(32),
            attempts: short(34),
        }
    }
}

/// What a call carries so that its sighting can be made when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestKeys {
    pub(crate) request: u64,
    pub(crate) host: u64,
}

impl RequestKeys {
    /// `host` in lower case.
    pub(crate) fn new(method: &str, host: &str, path: &str) -> Self {
        let hasher = hasher();
        let host = hasher.hash_one(host.as_bytes());
        let request = (hasher.hash_one(path.as_bytes()).rotate_left(23) ^ host).rotate_left(23);
        Self { request: request ^ hasher.hash_one(method.as_bytes()), host }
    }

    /// The sighting of the call that carries them.
    pub(crate) fn sighting(self, begun: Timestamp, ended: Timestamp, status: u16, attempts: u16) -> Sighting {
        Sighting { begun, ended, key: self.request, host: self.host, status, attempts }
    }
}

/// With a fixed seed: the hashes are compared across processes.
fn hasher() -> FixedState {
    FixedState::with_seed(0x0066_6172_6361_6C6C)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sighting_survives_the_wire() {
        let sighting = Sighting {
            begun: Timestamp::from_nanos(1),
            ended: Timestamp::from_nanos(u64::MAX),
            key: Sighting::key("GET", "API.example.com", "/x"),
            host: Sighting::host_key("api.example.com"),
            status: 200,
            attempts: 2,
        };
        assert_eq!(Sighting::from_bytes(&sighting.to_bytes()), sighting);
    }

    #[test]
    fn the_key_is_the_same_everywhere() {
        const KEY: u64 = 17_632_682_977_117_254_194;
        const HOST: u64 = 5_138_236_314_583_212_034;
        // Stored values: another hash in one of two processes would make every call count twice.
        assert_eq!(Sighting::key("GET", "API.example.com", "/x"), KEY);
        assert_eq!(Sighting::host_key("Api.Example.com"), HOST);
        assert_ne!(Sighting::key("POST", "api.example.com", "/x"), KEY);
    }
}
