//! Opening the ledger to read it.

use super::file;
use super::schema::{self, VERSION};
use crate::home::LEDGER;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The ledger could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ReadFailure {
    /// There is none.
    #[error("there is no ledger in {}", .0.display())]
    Absent(PathBuf),
    /// A later version of Farcall wrote it.
    #[error("{} was written by a later version of farcall (schema {found}, this one knows {VERSION}); update farcall", .file.display())]
    Newer {
        /// The ledger.
        file: PathBuf,
        /// The version of its tables.
        found: i64,
    },
    /// SQLite could not read it.
    #[error("cannot read {}: {error}", .file.display())]
    Sqlite {
        /// The ledger.
        file: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
}

/// Opens the ledger of a home directory to read it; `None` for one that nothing was ever written to.
pub(crate) fn open(home: &Path) -> Result<Option<Connection>, ReadFailure> {
    let file = home.join(LEDGER);
    if !file.exists() {
        return Err(ReadFailure::Absent(home.into()));
    }
    let failed = |error| ReadFailure::Sqlite { file: file.clone(), error };
    // Writing along is what WAL mode wants even of readers; where that is not allowed, only reading may be.
    let connection = file::connect(&file, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .and_then(|connection| schema::version(&connection).map(|version| (connection, version)))
        .or_else(|_| {
            let connection = file::connect(&file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            schema::version(&connection).map(|version| (connection, version))
        });
    let (connection, found) = connection.map_err(failed)?;
    if found > VERSION {
        return Err(ReadFailure::Newer { file, found });
    }
    connection.pragma_update(None, "query_only", true).map_err(failed)?;
    Ok((found == VERSION).then_some(connection))
}
