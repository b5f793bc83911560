//! Which client a call is made with: what is kept is kept apart by it, since what the service below a layer adds to
//! requests, credentials among it, the layer does not see.

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
    /// All of this kind and name are alike; the letter of the kind comes first.
    Named(Arc<str>),
}

/// What a client of a name is one of: those of one kind alone are alike.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Tower,
    #[cfg(feature = "reqwest")]
    Reqwest,
}

impl Client {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        static PROCESS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Where processes share what they keep, no two of them may have the same.
        let process = PROCESS.hash_one((std::process::id(), number));
        let mut bytes = [0; 16];
        // No client of a name begins with a zero.
        bytes[1..8].copy_from_slice(&number.to_le_bytes()[..7]);
        bytes[8..].copy_from_slice(&process.to_le_bytes());
        Self::of(Who::Unnamed(bytes))
    }

    /// That of all clients of this kind and name.
    pub(crate) fn named(kind: Kind, name: &str) -> Self {
        let kind = match kind {
            Kind::Tower => 't',
            #[cfg(feature = "reqwest")]
            Kind::Reqwest => 'r',
        };
        Self::of(Who::Named(format!("{kind}{name}").into()))
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
