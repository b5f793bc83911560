//! Which client a call is made with: what is kept is kept apart by it, since what the service below a layer adds to
//! requests, credentials among it, the layer does not see.

use farcall::{HeaderNames, Headers};
use http::HeaderMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

/// Stands for a client. A clone stands for the same one.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    who: Who,
    number: u32,
}

#[derive(Clone, Debug)]
enum Who {
    /// There is no other like it, in this process or in others.
    Unnamed([u8; 16]),
    /// All of this name are alike.
    Named(Arc<str>),
}

impl Client {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        static PROCESS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Where processes share what they keep, no two of them may have the same.
        let process = PROCESS.hash_one((std::process::id(), number));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..].copy_from_slice(&process.to_le_bytes());
        Self::of(Who::Unnamed(bytes))
    }

    /// That of all clients of this name.
    pub(crate) fn named(name: &str) -> Self {
        Self::of(Who::Named(name.into()))
    }

    fn of(who: Who) -> Self {
        // FNV-1a, over some sixteen bytes.
        let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        let number = who.bytes().iter().fold(0x811c_9dc5, mix);
        Self { who, number }
    }

    /// Stands for another client that was made in the same way: the same one only where it has a name.
    pub(crate) fn another(&self) -> Self {
        match self.who {
            Who::Unnamed(_) => Self::new(),
            Who::Named(_) => self.clone(),
        }
    }

    /// A short number for it, the same in all processes; two clients may have the same one.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.who.bytes()
    }
}

impl Who {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Unnamed(bytes) => bytes,
            Self::Named(name) => name.as_bytes(),
        }
    }
}

/// What a client is told apart by beside its own bytes, where it has no name and where it has one. No header has such
/// names.
pub(crate) type Kind = (&'static str, &'static str);
pub(crate) const OF_TOWER: Kind = ("tower client", "tower client of this name");
#[cfg(feature = "reqwest")]
pub(crate) const OF_REQWEST: Kind = ("reqwest client", "reqwest client of this name");

/// The headers of a request, and the client that it is made with.
pub(crate) struct OfClient<'a> {
    headers: &'a HeaderMap,
    name: &'static str,
    value: &'a [u8],
}

impl<'a> OfClient<'a> {
    pub(crate) fn new(headers: &'a HeaderMap, client: &'a Client, kind: Kind) -> Self {
        let name = match client.who {
            Who::Unnamed(_) => kind.0,
            Who::Named(_) => kind.1,
        };
        Self { headers, name, value: client.bytes() }
    }
}

impl Headers for OfClient<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Headers::get(self.headers, name)
    }

    fn pick<'a>(&'a self, wanted: &HeaderNames, values: &mut [Option<&'a [u8]>]) {
        self.headers.pick(wanted, values);
    }

    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        see(self.name.as_bytes(), self.value);
        self.headers.each(see)
    }
}
