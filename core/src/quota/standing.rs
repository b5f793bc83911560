//! How a vendor's quota stands, with the names under which people know it.

use super::{Limit, Standing};
use crate::units::Timestamp;
use std::sync::Arc;

/// What one process knows of a quota that a vendor stated, of a limit that was learned, or of one that a rule states.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NamedStanding {
    /// The vendor's name; empty where a rule limits calls to several of them together.
    pub vendor: Arc<str>,
    /// The credential's fingerprint; empty where none was seen, or the quota is not one credential's.
    pub credential: String,
    /// Whether it is about all calls to the vendor, whatever their credential.
    pub of_vendor: bool,
    /// What the vendor calls it; `unstated` where it refused calls and stated nothing. Of a rule's own limit the rule's
    /// name, and what it is kept apart by: `nightly (customer=acme)`.
    pub policy: Arc<str>,
    /// The rule that keeps to it or states it; empty where it is only watched.
    pub rule: Arc<str>,
    /// What is counted, as in the catalogue.
    pub unit: &'static str,
    /// Whether we count in that unit, too: what calls cost a vendor in points, only the vendor knows.
    pub countable: bool,
    /// Whether the numbers are those of all processes of the host.
    pub shared: bool,
    /// When it stood so.
    pub at: Timestamp,
    /// How it stood.
    pub standing: Standing,
    /// What a rule of ours states; then no vendor did.
    pub configured: Option<Configured>,
}

/// How a limit stands that a rule states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Configured {
    /// The limit.
    pub limit: Limit,
    /// How many units may go back to back.
    pub burst: u64,
    /// When all of these may, if nothing goes before; `None` where a fleet's store grants what may go.
    pub due_at: Option<Timestamp>,
}
