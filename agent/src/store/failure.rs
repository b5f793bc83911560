//! What can go wrong with the ledger's file, in words.

use rusqlite::ErrorCode;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The ledger could not be written. What was to be written stays with the caller.
#[derive(Debug, Error)]
#[error("cannot write the ledger {file}: {what}", file = file.display())]
pub(crate) struct Failure {
    pub(crate) file: PathBuf,
    pub(crate) kind: Kind,
    what: String,
}

/// What kind of failure; each is said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// No room on the disk.
    Full,
    /// Not allowed to write there.
    Denied,
    /// A file stands where the directory should.
    NoDirectory,
    /// Another process holds it for too long.
    Busy,
    /// The file is no ledger, or damaged.
    Corrupt,
    /// A later version of Farcall wrote it.
    Newer,
    /// The process was forked while it was being written.
    Forked,
    /// Anything else.
    Other,
}

impl Failure {
    pub(crate) fn new(file: &Path, kind: Kind, what: impl Into<String>) -> Self {
        Self { file: file.into(), kind, what: what.into() }
    }

    pub(crate) fn io(file: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Kind::Full
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => Kind::NoDirectory,
            _ => Kind::Other,
        };
        Self::new(file, kind, error.to_string())
    }

    pub(crate) fn sqlite(file: &Path, error: &rusqlite::Error) -> Self {
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Kind::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => Kind::Denied,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Kind::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Kind::Corrupt,
            _ => Kind::Other,
        };
        Self::new(file, kind, error.to_string())
    }

    /// SQLite must not be used in this process: see [`Store`](super::Store).
    pub(crate) fn forked(store: &super::Store) -> Self {
        Self::new(store.file(), Kind::Forked, "the process was forked while the ledger was being written")
    }

    /// What happens to the calls meanwhile, and what helps.
    pub(crate) const fn remedy(&self) -> &'static str {
        match self.kind {
            Kind::Full => {
                "calls are kept in memory, up to a bound, and written once there is room on the disk"
            }
            Kind::Denied => {
                "calls are kept in memory, up to a bound; set FARCALL_HOME to a directory that this user may write"
            }
            Kind::NoDirectory => {
                "calls are kept in memory, up to a bound; remove the file that stands where the directory should, or set FARCALL_HOME to another one"
            }
            Kind::Newer => "calls are kept in memory, up to a bound; update farcall in this program",
            Kind::Forked => {
                "the calls of this process are not recorded; start Farcall after the fork, or call before_fork() ahead of it"
            }
            Kind::Busy | Kind::Corrupt | Kind::Other => {
                "calls are kept in memory, up to a bound, and written once it works again"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Store;

    #[test]
    fn a_home_that_is_a_file_or_lies_in_one_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("home");
        std::fs::write(&file, "").unwrap();
        for home in [file.clone(), file.join("below")] {
            let failure = Store::new(home).open().err().unwrap();
            assert!(failure.remedy().contains("remove the file"), "{failure}; {}", failure.remedy());
            assert!(failure.remedy().contains("FARCALL_HOME"), "{}", failure.remedy());
        }
    }
}
