//! How a file of SQLite's gets its write-ahead log.

use rusqlite::Connection;

/// Gives the file a write-ahead log, where it has none; says what kind of log it has then.
///
/// # Errors
/// Also where what was written could not be synced: SQLite gives its answer first and commits after it, so that who
/// reads no further hears of no failure.
pub(crate) fn switch_on(connection: &Connection) -> rusqlite::Result<String> {
    let mut statement = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = statement.query([])?;
    let mut mode = String::new();
    while let Some(row) = rows.next()? {
        mode = row.get(0)?;
    }
    Ok(mode)
}
