//! What waits for whom, and for how long.

use super::Operator;
use super::table::text;
use super::{OutboxError, wall};
use rusqlite::Connection;
use serde::Serialize;
use std::time::Duration;

/// The calls of one service to one endpoint of one vendor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VendorCount {
    /// The service.
    pub service: String,
    /// Whom they go to.
    pub vendor: String,
    /// What they ask; empty where the catalogue does not know.
    pub endpoint: String,
    /// Calls that wait.
    pub pending: u64,
    /// When the oldest of them was put, RFC 3339; null where none waits.
    #[serde(serialize_with = "moment")]
    pub oldest: Option<i64>,
    /// Calls that the vendor took, as far as they are remembered.
    pub delivered: u64,
    /// Calls that were given up.
    pub dead: u64,
    /// Attempts of all of them.
    pub attempts: u64,
}

impl Operator {
    /// How many calls there are, by service, vendor and endpoint; those of which the oldest waits longest first.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn vendors(&self) -> Result<Vec<VendorCount>, OutboxError> {
        let mut counts = self.inner.store()?.vendors().wait()?;
        VendorCount::sort(&mut counts);
        Ok(counts)
    }
}

impl VendorCount {
    /// How long the oldest of those that wait has waited; `None` where none waits.
    #[must_use]
    pub fn oldest_age(&self) -> Option<Duration> {
        self.oldest.map(|at| Duration::from_nanos(wall().saturating_sub(at).max(0).unsigned_abs()))
    }

    /// Those of which the oldest waits longest first.
    pub(super) fn sort(counts: &mut [Self]) {
        counts.sort_by(|one, other| {
            let longest = (one.oldest.is_none(), one.oldest).cmp(&(other.oldest.is_none(), other.oldest));
            let name = |count: &Self| [count.service.clone(), count.vendor.clone(), count.endpoint.clone()];
            longest.then_with(|| other.dead.cmp(&one.dead)).then_with(|| name(one).cmp(&name(other)))
        });
    }
}

/// What the file has, in no order.
pub(super) fn of_file(connection: &Connection) -> rusqlite::Result<Vec<VendorCount>> {
    let count = |row: &rusqlite::Row<'_>, place| row.get::<_, i64>(place).map(i64::unsigned_abs);
    let mut statement = connection.prepare(
        "SELECT queue, vendor, endpoint, sum(state = 0), min(CASE state WHEN 0 THEN put_at END), sum(state = 1),
                sum(state = 2), sum(attempts)
         FROM item GROUP BY 1, 2, 3",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(VendorCount {
            service: text(row, 0)?,
            vendor: text(row, 1)?,
            endpoint: text(row, 2)?,
            pending: count(row, 3)?,
            oldest: row.get(4)?,
            delivered: count(row, 5)?,
            dead: count(row, 6)?,
            attempts: count(row, 7)?,
        })
    })?;
    rows.collect()
}

fn moment<S: serde::Serializer>(at: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| crate::report::time::rfc3339(at.unsigned_abs())).serialize(serializer)
}
