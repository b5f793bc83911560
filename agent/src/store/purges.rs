//! What people want the caches of all processes to forget.

use super::write::int_time;
use super::{Failure, Store};
use farcall::Timestamp;
use rusqlite::{Connection, params};
use std::time::Duration;

/// Purges that are kept: a process reads them every second or so, and one that begins reads all, since a store beyond
/// this host may still have what nobody was there to remove. So long it has it at most.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Purges that are kept, and read at once.
const MAX_ROWS: i64 = 1_024;

/// A purge, and the conditions of the answers that are to be forgotten.
pub(crate) struct Purge {
    pub(crate) id: i64,
    pub(crate) at: Timestamp,
    pub(crate) conditions: Vec<(String, String)>,
}

impl Store {
    /// Notes a purge; how many programs will see it.
    pub(crate) fn add_purge(&self, conditions: &[(String, String)], now: Timestamp) -> Result<u64, Failure> {
        let open = self.open()?;
        write(&open.connection, conditions, now).map_err(|error| Failure::sqlite(self.file(), &error))
    }

    /// The purges after the one of this number, and the number of the last one. None where there is no ledger.
    pub(crate) fn purges(&self, after: i64) -> Result<Vec<Purge>, Failure> {
        if !self.file().exists() {
            return Ok(Vec::new());
        }
        let open = self.open()?;
        read(&open.connection, after).map_err(|error| Failure::sqlite(self.file(), &error))
    }
}

fn write(connection: &Connection, conditions: &[(String, String)], now: Timestamp) -> rusqlite::Result<u64> {
    let which: Vec<[&str; 2]> = conditions.iter().map(|(key, text)| [key.as_str(), text.as_str()]).collect();
    let which = serde_json::to_string(&which).unwrap_or_default();
    connection.execute("DELETE FROM purges WHERE at < ?1", [int_time(now.minus(KEPT))])?;
    connection.execute("INSERT INTO purges (at, which) VALUES (?1, ?2)", params![int_time(now), which])?;
    connection.execute("DELETE FROM purges WHERE id <= (SELECT max(id) FROM purges) - ?1", [MAX_ROWS])?;
    let recent = int_time(now.minus(Duration::from_secs(120)));
    connection.query_row(
        "SELECT count(*) FROM processes WHERE role = 'program' AND ended IS NULL AND last_flush >= ?1",
        [recent],
        |row| row.get::<_, i64>(0).map(i64::unsigned_abs),
    )
}

fn read(connection: &Connection, after: i64) -> rusqlite::Result<Vec<Purge>> {
    let mut query =
        connection.prepare_cached("SELECT id, at, which FROM purges WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let rows = query.query_map([after, MAX_ROWS], |row| {
        let (at, which): (i64, String) = (row.get(1)?, row.get(2)?);
        let at = Timestamp::from_nanos(at.unsigned_abs());
        Ok(Purge { id: row.get(0)?, at, conditions: serde_json::from_str(&which).unwrap_or_default() })
    })?;
    rows.collect()
}
