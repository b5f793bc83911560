//! Advice: what the calls that were made say about calls that need not have been.
//!
//! Answers are not kept. Of each URL the engine remembers, for each of a few lifetimes, when a cache with that lifetime
//! would have asked last and a digest of what it got; so a later call is known to have been needless at that lifetime,
//! and whether what the cache would have handed out had changed by then. Requests are told apart by what the cache tells
//! them apart by, their headers included: one that has another timestamp each time is a hit of no cache. That is a replay of the cache, as exact as the
//! calls are, and not a guess from the times between them.
//!
//! Of an endpoint with many URLs a part is looked at that is chosen by the URL, so that all calls to a chosen URL are
//! seen; each then counts for as many as there are for one that is chosen. The share halves whenever there are too many
//! URLs, which bounds the memory and keeps the sums right on average. And of an endpoint that is called all the time
//! not all calls are looked at, which bounds what looking takes.

mod asked;
mod digest;
mod endpoint;
mod look;
mod runs;
mod sieve;
mod sums;
mod table;
mod url;

pub use asked::Marks;
pub(crate) use asked::{Asked, FIELDS};
pub(crate) use look::{Look, Settlement};
pub use sums::{AtTtl, CredentialUse, Observed, Sums};
pub(crate) use table::Table;

use std::time::Duration;

/// The lifetimes at which the cache is replayed.
pub const TTLS: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
    Duration::from_secs(3_600),
    Duration::from_secs(86_400),
];

/// `[advise]`: what is remembered for `farcall advise`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdviseConfig {
    /// `enabled`: whether anything is. It is.
    pub enabled: bool,
    /// `compare`: whose answers are compared.
    pub compare: Compare,
}

impl Default for AdviseConfig {
    fn default() -> Self {
        Self { enabled: true, compare: Compare::Passing }
    }
}

impl AdviseConfig {
    /// Whether calls are to be shown whole for this alone.
    pub(crate) fn compares_all(self) -> bool {
        self.enabled && self.compare == Compare::All
    }
}

/// Whose answers are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compare {
    /// `passing`: of calls that an adapter shows whole anyway. In Rust that is each call, in Python and Node each one
    /// once there is a rule about any.
    #[default]
    Passing,
    /// `all`: of each call. Adapters show calls whole for this alone, which costs what rules cost.
    All,
}
