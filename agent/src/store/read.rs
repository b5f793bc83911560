//! Opening the ledger to read it.

use super::schema::{self, VERSION};
use super::{Store, file};
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
    /// An earlier version of Farcall wrote it, and it cannot be brought up to date.
    #[error("{} was written by an earlier version of farcall (schema {found}), and cannot be brought to {VERSION}: {why}", .file.display())]
    Older {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: i64,
        /// Why.
        why: String,
    },
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
    let (mut connection, mut found) = connection.map_err(failed)?;
    if found > VERSION {
        return Err(ReadFailure::Newer { file, found });
    }
    if (1..VERSION).contains(&found) {
        // Written by an earlier version, and by nobody since.
        connection = Store::new(home.into())
            .open()
            .map_err(|failure| ReadFailure::Older { file: file.clone(), found, why: failure.to_string() })?
            .connection;
        found = VERSION;
    }
    connection.pragma_update(None, "query_only", true).map_err(failed)?;
    Ok((found == VERSION).then_some(connection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_of_the_first_version_is_brought_up_to_date_and_keeps_its_calls() {
        let home = tempfile::tempdir().unwrap();
        let connection = Connection::open(home.path().join(LEDGER)).unwrap();
        connection.execute_batch(schema::FIRST).unwrap();
        connection
            .execute_batch(
                "PRAGMA user_version = 1;
                 INSERT INTO rollups VALUES (1, 7, 1, 1, 1, 1, 1, 'library', 200, 'complete', 5, 5, 0, 0, 1, 1, 1,
                    5, 0, 0, 0, 0, x'')",
            )
            .unwrap();
        drop(connection);
        let connection = open(home.path()).unwrap().unwrap();
        let read = |column: &str| {
            let sql = format!("SELECT {column} FROM rollups");
            connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!((read("calls"), read("waited"), read("cost")), (5, 0, 0));
        assert_eq!(read("cost_unknown"), 5, "what the first version did not count is unknown, not free");
    }
}
