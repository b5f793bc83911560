//! What waits for whom, and for how long.

use super::Operator;
use super::table::text;
use super::{OutboxError, queue, wall};
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

    /// Adds those of a queue, whose name stands for the service, to the others of its service.
    pub(super) fn add_to(mut self, counts: &mut Vec<Self>) {
        let (service, credential) = queue::parts(&self.service);
        // A service alone comes once for each endpoint.
        if credential.is_some() {
            self.service = service.to_owned();
            self.merge_into(counts);
        } else {
            counts.push(self);
        }
    }

    pub(super) fn merge_into(self, counts: &mut Vec<Self>) {
        let same = |known: &&mut Self| {
            (&known.service, &known.vendor, &known.endpoint) == (&self.service, &self.vendor, &self.endpoint)
        };
        match counts.iter_mut().find(same) {
            Some(known) => {
                known.pending += self.pending;
                known.delivered += self.delivered;
                known.dead += self.dead;
                known.attempts += self.attempts;
                known.oldest = known.oldest.into_iter().chain(self.oldest).min();
            }
            None => counts.push(self),
        }
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
         FROM item GROUP BY 1, 2, 3 ORDER BY 1",
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
    let mut counts = Vec::new();
    // Services alone come before their other queues.
    for row in rows {
        row?.add_to(&mut counts);
    }
    Ok(counts)
}

fn moment<S: serde::Serializer>(at: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| crate::report::time::rfc3339(at.unsigned_abs())).serialize(serializer)
}
