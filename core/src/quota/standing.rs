//! How a vendor's quota stands, with the names under which people know it.

use super::Standing;
use crate::units::Timestamp;
use std::sync::Arc;

/// What one process knows of a quota that a vendor stated, or of a limit that was learned.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NamedStanding {
    /// The vendor's name.
    pub vendor: Arc<str>,
    /// The credential's fingerprint; empty where none was seen, or the quota is not one credential's.
    pub credential: String,
    /// Whether it is about all calls to the vendor, whatever their credential.
    pub of_vendor: bool,
    /// What the vendor calls it; `unstated` where it refused calls and stated nothing.
    pub policy: Arc<str>,
    /// The `[[quota]]` rule that keeps to it; empty where it is only watched.
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
}
