//! Who is told when a critical call fails.

use crate::units::Timestamp;
use std::fmt;
use std::panic::RefUnwindSafe;
use std::sync::Arc;

/// An attempt of a critical call that failed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Failed<'a> {
    /// The rule that says that it is critical.
    pub rule: &'a Arc<str>,
    /// Whom it went to.
    pub vendor: &'a str,
    /// What it asked.
    pub endpoint: &'a str,
    /// On whose behalf, where that is known.
    pub customer: Option<&'a str>,
    /// How it failed: `answered 503`.
    pub failure: &'a str,
    /// The call's id, as in `farcall explain`; 0 where none was made.
    pub call: u64,
    /// Whether it was a delivery from the outbox, which goes on; else it is the application's own call.
    pub delivery: bool,
    /// When.
    pub at: Timestamp,
}

impl<'a> Failed<'a> {
    /// A call of the application to `vendor` and `endpoint` that failed so.
    #[must_use]
    pub const fn new(
        rule: &'a Arc<str>,
        (vendor, endpoint): (&'a str, &'a str),
        failure: &'a str,
        call: u64,
        at: Timestamp,
    ) -> Self {
        Self { rule, vendor, endpoint, customer: None, failure, call, delivery: false, at }
    }
}

/// Where failures of critical calls are told. The agent has one.
pub trait Alarms: fmt::Debug + Send + Sync + RefUnwindSafe {
    /// A critical call failed; whether an alarm goes out for it, or others were enough. Called on the call's own path:
    /// it must neither wait nor fail.
    fn failed(&self, failed: &Failed<'_>) -> bool;
}
