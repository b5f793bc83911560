use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why the outbox did not do what was asked. A put that ends so was not acknowledged: the call is still the
/// application's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboxError {
    /// There is no directory to keep it in.
    #[error("there is no home directory for the outbox; set FARCALL_HOME")]
    NoHome,
    /// Farcall is switched off in this process.
    #[error("farcall is switched off in this process, and keeps nothing; unset FARCALL_DISABLED")]
    Disabled,
    /// The call is none that could be delivered.
    #[error("the call cannot be kept: {0}")]
    Invalid(String),
    /// What the configuration says about it cannot be done.
    #[error("the outbox is not set up right: {0}")]
    Settings(String),
    /// More is waiting for the disk than is kept in memory.
    #[error("the outbox is busy: too much waits for the disk; try again")]
    Busy,
    /// What was written last may not be on the disk. Nothing is accepted or delivered any more.
    #[error(
        "the outbox has stopped, since the disk failed: {0}. Nothing is accepted until it was looked at: check the disk, then `farcall outbox resume` and restart"
    )]
    Stopped(String),
    /// What was written last to a copy may not be on its disk. No call is copied there any more.
    #[error(
        "the copy {copy} has stopped, since its disk failed: {why}. No call is copied there until it was looked at: check the disk, then `farcall outbox resume` and restart"
    )]
    CopyStopped {
        /// Where it is, without a password.
        copy: String,
        /// What failed.
        why: String,
    },
    /// The process was forked while the outbox was open, and SQLite must not be used in it.
    #[error(
        "the process was forked while the outbox was open; start Farcall after the fork, or call before_fork() ahead of it"
    )]
    Forked,
    /// The file cannot be used right now; what was asked was not done.
    #[error("cannot use the outbox {file}: {what}", file = file.display())]
    Unavailable {
        /// Its file.
        file: PathBuf,
        /// What went wrong, in words.
        what: String,
    },
    /// The PostgreSQL that keeps it cannot be reached. Whether a call was taken whose commit was under way is not
    /// known.
    #[error("cannot reach the outbox {place}: {what}")]
    Unreachable {
        /// Its address, without a password.
        place: String,
        /// What went wrong, in words.
        what: String,
    },
    /// Too few copies could be written; the call was not taken.
    #[error(
        "the call was not taken: {has} of the {needed} copies that are asked for could be written ({why})"
    )]
    Copies {
        /// In how many it could be.
        has: usize,
        /// How many the configuration asks for.
        needed: usize,
        /// Why the others failed.
        why: String,
    },
    /// A copy has calls of other outboxes than the one that was asked for, or of several.
    #[error("{0}")]
    Whose(String),
    /// It was encrypted with a key that is not here.
    #[error("a call in the outbox cannot be decrypted: {0}")]
    Key(String),
    /// The key itself can be neither made nor used; says nothing of any call.
    #[error("the key of the outbox {0}")]
    NoKey(String),
    /// What lies in the place of its file is something else, or was destroyed from its beginning on.
    #[error(
        "{file} is not a database: nobody can read what is in it, and no call is put or delivered. Stop all programs and move {file}, {file}-wal and {file}-shm away; the next call makes a new one. Calls that waited in there are not in the new one: put them back from a copy, if it has any (farcall outbox restore --from COPY), or the right file in its place",
        file = file.display()
    )]
    NotADatabase {
        /// Its file.
        file: PathBuf,
    },
    /// There is no such call, or no longer.
    #[error("there is no call {0} in the outbox")]
    NotFound(i64),
}

impl OutboxError {
    /// Whether the outbox cannot be asked now, and may be later, as where it is busy or its server cannot be reached:
    /// that says nothing about a call that was put before.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable { .. } | Self::Unreachable { .. })
    }

    /// Whether a disk failed, and nothing is written there any more.
    pub(super) fn is_stop(&self) -> bool {
        matches!(self, Self::Stopped(_) | Self::CopyStopped { .. })
    }

    /// What is wrong with a copy of this name.
    pub(super) fn of_copy(&self, name: &str) -> String {
        match self {
            Self::CopyStopped { .. } => self.to_string(),
            other => format!("{name}: {}", other.reason()),
        }
    }

    /// The same of what is in the environment, for who only looks.
    pub(super) fn as_seen_from_here(&self) -> Self {
        let what = self.reason();
        Self::Settings(format!("{what} (programs may have that variable where this command has not)"))
    }

    /// What is wrong, without where.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Settings(what) | Self::Unavailable { what, .. } | Self::Unreachable { what, .. } => {
                what.clone()
            }
            Self::CopyStopped { why, .. } => why.clone(),
            Self::Busy => "it is busy: too much waits for its disk".into(),
            other => other.to_string(),
        }
    }

    pub(super) fn unavailable(file: &Path, what: impl ToString) -> Self {
        Self::Unavailable { file: file.into(), what: what.to_string() }
    }
}
