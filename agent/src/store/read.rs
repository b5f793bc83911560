//! Opening the ledger to read it.

use super::file::{self, with_suffix};
use super::schema::{self, VERSION};
use crate::home::LEDGER;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
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
    /// This user may not read it, or the system cannot.
    #[error("cannot read {}: {error}{owner}", .file.display())]
    Forbidden {
        /// The ledger.
        file: PathBuf,
        /// Why.
        error: io::Error,
        /// Whose it is, as the end of a sentence.
        owner: String,
    },
    /// It can be read only by who may write beside it.
    #[error(
        "cannot read {} here: programs wrote into its log lately, and reading along takes a file beside it that may \
         not be made. Ask as a user who may write there, or copy {LEDGER} and {LEDGER}-wal together and ask with \
         --home",
        .0.display()
    )]
    Log(PathBuf),
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
    if let Err(error) = File::open(&file) {
        return Err(match error.kind() {
            io::ErrorKind::NotFound => ReadFailure::Absent(home.into()),
            _ => ReadFailure::Forbidden { owner: owner(&file, &error), file, error },
        });
    }
    let failed = |error| ReadFailure::Sqlite { file: file.clone(), error };
    // Writing along is what WAL mode wants even of readers; where that is not allowed, only reading may be.
    let connection = file::connect(&file, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .and_then(|connection| schema::version(&connection).map(|version| (connection, version)))
        .or_else(|_| {
            let connection = file::connect(&file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            schema::version(&connection).map(|version| (connection, version))
        });
    let connection = match connection {
        Err(error) if may_not_write(&file, &error) => match is_empty(&with_suffix(&file, "-wal")) {
            true => as_it_is(&file).map_err(failed)?,
            false => return Err(ReadFailure::Log(file)),
        },
        connection => connection.map_err(failed)?,
    };
    let (connection, found) = connection;
    if found > VERSION {
        return Err(ReadFailure::Newer { file, found });
    }
    if (1..VERSION).contains(&found) {
        // Those who write it may still be of that version, too.
        schema::show_as_present(&connection).map_err(failed)?;
    }
    connection.pragma_update(None, "query_only", true).map_err(failed)?;
    Ok((found > 0).then_some(connection))
}

/// Whether it is only what WAL mode wants of readers, too, that is not allowed: a file beside the ledger.
fn may_not_write(file: &Path, error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, ReadOnly};
    let refused = matches!(error.sqlite_error_code(), Some(CannotOpen | ReadOnly));
    // As this process is now, not as who started it.
    let writable = |home| accessat(CWD, home, Access::WRITE_OK, AtFlags::EACCESS);
    let beside = file.parent().map(writable);
    refused && beside.is_some_and(|allowed| allowed.is_err())
}

fn is_empty(log: &Path) -> bool {
    fs::metadata(log).map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |log| log.len() == 0)
}

/// The ledger without its log, and without a lock: all there is of it where nobody writes.
fn as_it_is(file: &Path) -> rusqlite::Result<(Connection, i64)> {
    let name = file.as_os_str().as_bytes().iter().map(|&byte| match byte {
        b'/' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    let uri = format!("file:{}?mode=ro&immutable=1", name.collect::<String>());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = file::connect(Path::new(&uri), flags)?;
    let version = schema::version(&connection)?;
    Ok((connection, version))
}

fn owner(file: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    // Of a directory that may not be entered, at least whose it is.
    let known = file.ancestors().find_map(|path| fs::metadata(path).ok());
    known.map_or(String::new(), |known| {
        format!("; it belongs to the user of number {}: ask as that user, or as root", known.uid())
    })
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    use std::os::unix::fs::PermissionsExt;

    /// What this thread may not do while `f` runs, whoever runs the tests: go past the permissions of files.
    fn as_anybody<T>(f: impl FnOnce() -> T) -> T {
        let before = capabilities(None).unwrap();
        let mut fewer = before;
        fewer.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        set_capabilities(None, fewer).unwrap();
        let result = f();
        set_capabilities(None, before).unwrap();
        result
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A ledger of one row as a writer leaves it, and the connection that holds its log open.
    fn written(home: &Path) -> Connection {
        let connection = Store::new(home.into()).open().unwrap().connection;
        connection.execute("INSERT INTO names (id, name) VALUES (7, 'stripe')", []).unwrap();
        connection
    }

    fn name(connection: &Connection) -> String {
        connection.query_row("SELECT name FROM names WHERE id = 7", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_ledger_that_may_not_be_read_is_not_absent_and_tells_whose_it_is() {
        let home = tempfile::tempdir().unwrap();
        written(home.path());
        for forbidden in [home.path().join(LEDGER), home.path().to_owned()] {
            mode(&forbidden, 0o000);
            let failure = as_anybody(|| open(home.path())).unwrap_err();
            mode(&forbidden, 0o700);
            let uid = fs::metadata(home.path()).unwrap().uid();
            let whose = format!("it belongs to the user of number {uid}");
            assert!(failure.to_string().contains(&whose), "{failure}");
        }
        assert!(matches!(open(&home.path().join("elsewhere")), Err(ReadFailure::Absent(_))));
    }

    #[test]
    fn a_ledger_beside_which_nothing_may_be_written_is_read_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().join("a?b#c %41");
        let connection = written(&home);
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(connection);
        let _ = fs::remove_file(home.join("ledger.db-shm"));
        let read_only = |f: &dyn Fn()| {
            mode(&home, 0o500);
            mode(&home.join(LEDGER), 0o400);
            as_anybody(f);
            mode(&home, 0o700);
            mode(&home.join(LEDGER), 0o600);
        };
        read_only(&|| assert_eq!(name(&open(&home).unwrap().unwrap()), "stripe"));
        // With a log that nobody reads along, it would be an older state of the ledger than it says.
        fs::write(home.join("ledger.db-wal"), b"not yet in the ledger").unwrap();
        read_only(&|| assert!(matches!(open(&home), Err(ReadFailure::Log(_)))));
    }

    #[test]
    fn a_ledger_of_an_earlier_version_is_read_as_one_of_this_and_stays_as_it_is_for_those_who_write_it() {
        for earlier in 1..VERSION {
            let home = tempfile::tempdir().unwrap();
            let writer = Connection::open(home.path().join(LEDGER)).unwrap();
            schema::make(&writer, earlier).unwrap();
            let of_the_first = "span, minute, vendor, endpoint, customer, tags, caller, tap, status, outcome, calls,
                attempts, bytes_out, bytes_in, duration, ttfb, transfer, answered, connections, dns, connect, tls,
                latency";
            let write = |minute: i64, outcome: &str| {
                let row = format!(
                    "INSERT INTO rollups ({of_the_first}) VALUES (1, {minute}, 1, 1, 1, 1, 1, 'library', 200,
                        '{outcome}', 5, 5, 0, 0, 1, 1, 1, 5, 3, 0, 6, 9, x'')"
                );
                writer.execute(&row, []).unwrap()
            };
            write(7, "complete");
            let connection = open(home.path()).unwrap().unwrap();
            let read = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
            assert_eq!(
                read("SELECT sum(calls) + sum(waited) + sum(cost) + sum(saved_bytes) FROM rollups"),
                5
            );
            if earlier < 8 {
                assert_eq!(read("SELECT dns_known * 100 + connect_known * 10 + tls_known FROM rollups"), 33);
            }
            if earlier == 1 {
                // What the first version did not count is unknown, not free.
                assert_eq!(read("SELECT cost_unknown FROM rollups"), 5);
            }
            for table in ["quotas", "advice", "credentials", "warned", "incidents", "purges"] {
                assert_eq!(read(&format!("SELECT count(*) FROM {table}")), 0);
            }
            assert_eq!(read("SELECT count(*) FROM processes WHERE config != ''"), 0);
            // Whoever wrote it goes on.
            assert_eq!(schema::version(&writer).unwrap(), earlier);
            write(8, "cached");
            let saved = if earlier < 6 { 5 } else { 0 };
            assert_eq!(read("SELECT sum(calls) * 100 + sum(saved_requests) FROM rollups"), 1_000 + saved);
        }
    }

    #[test]
    fn a_ledger_of_the_first_version_is_brought_up_to_date_by_a_writer_and_keeps_its_calls() {
        let home = tempfile::tempdir().unwrap();
        let connection = Connection::open(home.path().join(LEDGER)).unwrap();
        schema::make(&connection, 1).unwrap();
        connection
            .execute_batch(
                "INSERT INTO names VALUES (1, 'stripe');
                 INSERT INTO callers VALUES (1, 'shop', 'python3', 1, 100, '', '')",
            )
            .unwrap();
        connection
            .execute(
                "INSERT INTO rollups VALUES (1, 7, 1, 1, 1, 1, 1, 'library', 200, 'complete', 5, 5, 0, 0, 1, 1, 1,
                    5, 3, 0, 6, 9, x'')",
                [],
            )
            .unwrap();
        drop(connection);
        let connection = Store::new(home.path().into()).open().unwrap().connection;
        // Two first processes of containers that started within one tick: there was room for one of them.
        let container =
            "INSERT INTO callers (service, executable, pid, started, container, user, pid_namespace)
            VALUES ('shop', 'python3', 1, 100, '', '', ?1)";
        [8, 9]
            .iter()
            .for_each(|namespace| assert_eq!(connection.execute(container, [namespace]).unwrap(), 1));
        let shown = "SELECT group_concat(p.service || p.id || p.pid_namespace, ' ')
            FROM ledger JOIN callers p USING (service)";
        let shown: String = connection.query_row(shown, [], |row| row.get(0)).unwrap();
        assert_eq!(shown, "shop10 shop28 shop39");
        let read = |column: &str| {
            let sql = format!("SELECT {column} FROM rollups");
            connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!((read("calls"), read("waited"), read("cost")), (5, 0, 0));
        assert_eq!(read("cost_unknown"), 5, "what the first version did not count is unknown, not free");
        assert_eq!((read("dns_known"), read("connect_known"), read("tls_known")), (0, 3, 3));
    }
}
