//! Why a question could not be answered.

use super::filter::BadFilter;
use crate::store::ReadFailure;
use std::path::PathBuf;
use thiserror::Error;

/// A question could not be answered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReportError {
    /// There is no home directory to look in.
    #[error("there is no home directory to look for the ledger in; set FARCALL_HOME")]
    NoHome,
    /// There is no ledger yet.
    #[error("there is no ledger in {} yet; run a program with farcall installed, or point FARCALL_HOME at its home", .0.display())]
    NoLedger(PathBuf),
    /// The ledger could not be read.
    #[error("{0}")]
    Unreadable(String),
    /// A filter that cannot be understood, or does not fit the question.
    #[error(transparent)]
    Filter(#[from] BadFilter),
    /// The ledger does not hold what was asked for, or never did.
    #[error("{0}")]
    NotFound(String),
    /// There is no such report.
    #[error("there is no report `{0}`; there are {names}", names = super::Question::names())]
    NoSuchReport(String),
}

impl From<ReadFailure> for ReportError {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Absent(home) => Self::NoLedger(home),
            failure => Self::Unreadable(failure.to_string()),
        }
    }
}

impl From<rusqlite::Error> for ReportError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let damage = match &error {
            rusqlite::Error::IntegralValueOutOfRange(_, number) => {
                Some(format!("it speaks of a name of number {number}, and has none"))
            }
            error if matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)) => {
                Some(error.to_string())
            }
            _ => None,
        };
        Self::Unreadable(match damage {
            Some(damage) => format!(
                "the ledger is damaged: {damage}. Move ledger.db, ledger.db-wal and ledger.db-shm away; programs make \
                 a new one"
            ),
            None => format!("cannot read the ledger: {error}"),
        })
    }
}
