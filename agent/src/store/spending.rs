//! What all processes have spent of their budgets.

use super::write::int_time;
use super::{Failure, Store};
use farcall::Timestamp;
use farcall::ledger::Spent;
use rusqlite::Connection;
use std::time::Duration;

/// Rows that are read at once.
const MAX_ROWS: i64 = 65_536;
/// Clocks of the processes of one machine are closer together than this.
const OVERLAP: Duration = Duration::from_secs(10);

impl Store {
    /// The totals that changed since about `since`; all of them since the epoch. None where there is no ledger.
    pub(crate) fn spending(&self, since: Timestamp) -> Result<Vec<Spent>, Failure> {
        if !self.file().exists() {
            return Ok(Vec::new());
        }
        let open = self.open()?;
        read(&open.connection, since).map_err(|error| Failure::sqlite(self.file(), &error))
    }
}

fn read(connection: &Connection, since: Timestamp) -> rusqlite::Result<Vec<Spent>> {
    let mut query = connection.prepare_cached(
        "SELECT budget, partition, period, spent FROM spending WHERE at >= ?1 ORDER BY at DESC LIMIT ?2",
    )?;
    let rows = query.query_map([int_time(since.minus(OVERLAP)), MAX_ROWS], |row| {
        let number = |place| row.get::<_, i64>(place).map(|number| u64::try_from(number).unwrap_or(0));
        Ok(Spent::new(row.get(0)?, row.get(1)?, number(2)?, number(3)?))
    })?;
    rows.collect()
}
