//! The post-mortem of a 429: who used the window.

mod account;
mod answers;
mod explain;
mod heavy;
mod sum;
mod tally;

pub(super) use account::{Account, Breach};
pub use explain::{NamedIncident, NamedMix, NamedShare, Names, explain};
pub use tally::Tally;

use super::{Limited, Unit, Why};
use crate::units::Timestamp;
use std::time::Duration;

/// Who makes a call, in the engine's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// The customer.
    pub customer: u32,
    /// The caller.
    pub caller: u32,
    /// The endpoint.
    pub endpoint: u32,
    /// The credential.
    pub credential: u32,
}

/// What was broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The vendor said: too fast.
    #[default]
    Rate,
    /// The vendor said: used up.
    Exhausted,
    /// Calls were refused here, before the vendor would have.
    Own,
}

impl From<Limited> for Kind {
    fn from(how: Limited) -> Self {
        match how {
            Limited::Rate => Self::Rate,
            Limited::Exhausted => Self::Exhausted,
        }
    }
}

impl Kind {
    /// The word for it, as in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Exhausted => "exhausted",
            Self::Own => "own",
        }
    }
}

/// What happened to one quota in one window; all 429s and refusals of a window are one incident.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Incident {
    /// Whether others may have used the quota too: then theirs are incidents of the same window, and their shares are to
    /// be added to these.
    pub shared: bool,
    /// What was broken; the gravest, where several things were.
    pub kind: Kind,
    /// Why calls were refused here, where `kind` is [`Kind::Own`].
    pub why: Option<Why>,
    /// The first 429 or refusal.
    pub at: Timestamp,
    /// How many there were: 429s, or refusals. None where somebody else who shares the quota met them.
    pub count: u64,
    /// What the vendor's refusals were, by status. Of more than four pairs of a status and a meaning, some are only in
    /// `count`.
    pub answers: Vec<Answers>,
    /// When the window began. Together with the quota it identifies the incident: a later report of the same
    /// window replaces an earlier one.
    pub began: Timestamp,
    /// When the window ends, or ended.
    pub ends: Timestamp,
    /// What is counted.
    pub unit: Unit,
    /// The limit that was in force, as the vendor or the rule states it.
    pub limit: Option<u64>,
    /// In which time that many may go; `None` where nobody stated it.
    pub limit_window: Option<Duration>,
    /// What the vendor said was left.
    pub remaining: Option<u64>,
    /// When the vendor said it resets.
    pub resets_at: Option<Timestamp>,
    /// When calls may go again.
    pub retry_at: Option<Timestamp>,
    /// Units of this process in the window, of which all shares are shares.
    pub own: u64,
    /// Units that the vendor counted, and no process that shares this quota did.
    pub foreign: u64,
    /// Calls that were refused here.
    pub refused: u64,
    /// Whose calls these were, by the customers' numbers; the units are calls.
    pub kept_back: Vec<Share>,
    /// The customers that used most, by their numbers.
    pub customers: Vec<Share>,
    /// The callers that used most.
    pub callers: Vec<Share>,
    /// The endpoints that were used most.
    pub endpoints: Vec<Share>,
    /// The credentials that were used most.
    pub credentials: Vec<Share>,
    /// Who asked for what through whom.
    pub mixes: Vec<Mix>,
}

/// Refusals of a vendor that are alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Their status: not every vendor says by a 429 that calls come too fast.
    pub status: u16,
    /// Whether they said that the quota is used up; else, that calls come too fast.
    pub exhausted: bool,
    /// How many there were.
    pub count: u64,
}

/// What one of many used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Its number.
    pub id: u32,
    /// Units: never too few.
    pub units: u64,
    /// Units that it used for certain: equal to `units` unless there were more than sixteen.
    pub at_least: u64,
}

/// What one customer used of one endpoint through one caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    /// The customer; `u32::MAX` where the number is above 2,097,150.
    pub customer: u32,
    /// The endpoint; the same.
    pub endpoint: u32,
    /// The caller; the same.
    pub caller: u32,
    /// Units: never too few.
    pub units: u64,
    /// Units for certain.
    pub at_least: u64,
}

#[cfg(test)]
mod tests;
