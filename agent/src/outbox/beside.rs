//! What lies beside the store on one host.

use super::{Operator, OutboxError};
use serde::Serialize;

/// What this host has to do yet beside delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Beside {
    /// Calls that wait here until the PostgreSQL takes them.
    pub spooled: u64,
    /// How many of them it refused when it was asked last.
    pub refused: u64,
    /// Why it refused the oldest of those.
    pub why: Option<String>,
    /// Calls that were taken into fewer copies than they should be in, and are not copied yet. One that was settled
    /// since is counted for a minute longer.
    pub uncopied: u64,
    /// Copies that take nothing more, since their disk failed.
    pub stopped_copies: Vec<StoppedCopy>,
}

/// A copy that takes nothing more, since its disk failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoppedCopy {
    /// Where it is, without a password.
    pub name: String,
    /// What failed.
    pub why: String,
}

impl std::fmt::Display for StoppedCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, why } = self;
        write!(
            f,
            "the copy {name} has stopped, since its disk failed: {why}. No call is copied there until it was looked at: \
             check the disk, then `farcall outbox resume` and restart"
        )
    }
}

impl Operator {
    /// What lies beside the store on this host.
    ///
    /// # Errors
    /// Where the file of the home directory cannot be read.
    pub fn beside(&self) -> Result<Beside, OutboxError> {
        self.inner.store()?.beside()
    }
}
