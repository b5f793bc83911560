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
    /// Copies that cannot be written now, as far as can be told from here: the programs may have an environment variable
    /// that this process has not.
    pub missing_copies: Vec<MissingCopy>,
    /// What is done with calls for lack of copies; null where none is missing and none has stopped.
    pub without_copies: Option<Without>,
    /// How many copies can be written.
    #[serde(skip)]
    pub(super) written: usize,
    /// How many a call has to be in whose vendor has no number of its own.
    #[serde(skip)]
    pub(super) needed: usize,
}

/// What is done with a call that cannot be in all copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Without {
    /// No call is taken, but those to vendors that need fewer copies.
    Refused,
    /// Calls to some vendors are refused, which need more copies than others.
    SomeRefused,
    /// It is taken into fewer copies than asked for, and an alarm tells of it.
    TakenWithAlarm,
    /// It is taken: enough other copies can be written.
    Taken,
}

/// A copy that cannot be written now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MissingCopy {
    /// Where it is, without a password; the variable that says so, as `$NAME`, where that says none.
    pub name: String,
    /// Why it cannot be.
    pub why: String,
}

impl std::fmt::Display for MissingCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "The copy {} cannot be written: {}", self.name, self.why)
    }
}

impl Beside {
    /// What is wrong with the copies, in sentences.
    #[must_use]
    pub fn wrong_with_copies(&self) -> Vec<String> {
        let stopped = self.stopped_copies.iter().map(ToString::to_string);
        let (written, needed) = (self.written, self.needed);
        let effect = match self.without_copies {
            Some(Without::Refused) => {
                format!(
                    "no call is taken: it would be in {written} of the {needed} copies that are asked for"
                )
            }
            Some(Without::SomeRefused) => {
                format!("no call is taken that has to be in more than {written} of the copies")
            }
            Some(Without::TakenWithAlarm) => format!(
                "calls are taken into {written} of the {needed} copies that are asked for, and [alarm] tells of it"
            ),
            Some(Without::Taken) if !self.missing_copies.is_empty() => {
                "calls are taken: enough other copies can be written".to_owned()
            }
            _ => return stopped.collect(),
        };
        let missing: String = self.missing_copies.iter().map(|copy| format!(". {copy}")).collect();
        stopped.chain([effect + &missing]).collect()
    }
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
        OutboxError::CopyStopped { copy: self.name.clone(), why: self.why.clone() }.fmt(f)
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
