//! What happened to rules, in the ledger: a budget that warns, a canary that was promoted or rolled back.

use super::write::{Names, int_time};
use super::{Pending, Presence};
use farcall::Timestamp;
use farcall::ledger::Notice;
use rusqlite::{Connection, params};
use std::collections::HashMap;
use std::time::Duration;

/// How many notices are kept, the newest.
const MAX_NOTICES: i64 = 10_000;
/// What is told of later than that is of a clock that was wrong, and was not told yet.
const AHEAD: Duration = Duration::from_secs(60);

/// Writes what waits, but what another process told already; gives what is thereby told for the first time.
pub(super) fn write(
    names: &mut Names<'_>,
    pending: &Pending,
    presence: &Presence,
) -> rusqlite::Result<Vec<Notice>> {
    let mut told = told_since(names.connection, pending, presence.now)?;
    let mut new = Vec::new();
    for notice in &pending.notices {
        let (at, key) = (int_time(notice.at), (notice.rule.to_string(), notice.what.clone()));
        if let Some(since) = notice.same_since.map(int_time) {
            if told.get(&key).is_some_and(|told| *told >= since) {
                continue;
            }
            told.insert(key, at);
        }
        let caller = names.caller(&presence.caller)?;
        names
            .connection
            .prepare_cached(
                "INSERT INTO notices (at, caller, concept, rule, what) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![at, caller, notice.concept, notice.rule, notice.what])?;
        new.push(notice.clone());
    }
    Ok(new)
}

/// By rule and what it says, when it was told last: as far back as any that waits asks for.
fn told_since(
    connection: &Connection,
    pending: &Pending,
    now: Timestamp,
) -> rusqlite::Result<HashMap<(String, String), i64>> {
    let Some(since) = pending.notices.iter().filter_map(|notice| notice.same_since).min() else {
        return Ok(HashMap::new());
    };
    let mut statement = connection.prepare_cached(
        "SELECT rule, what, max(at) FROM notices WHERE at >= ?1 AND at <= ?2 GROUP BY rule, what",
    )?;
    let times = [int_time(since), int_time(now.plus(AHEAD))];
    let rows = statement.query_map(times, |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    rows.collect()
}

/// Keeps the newest.
pub(super) fn bound(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute(
        "DELETE FROM notices WHERE id <= (SELECT id FROM notices ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        [MAX_NOTICES],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn notices_are_bounded_to_the_newest() {
        let home = tempfile::tempdir().unwrap();
        let connection = Store::new(home.path().into()).open().unwrap().connection;
        connection
            .execute_batch(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 10010)
                 INSERT INTO notices (at, caller, concept, rule, what) SELECT x, 1, 'budget', 'b', 'w' FROM n",
            )
            .unwrap();
        assert_eq!(bound(&connection).unwrap(), 10);
        let kept: (i64, i64) = connection
            .query_row("SELECT count(*), min(at) FROM notices", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!(kept, (MAX_NOTICES, 11));
        assert_eq!(bound(&connection).unwrap(), 0);
    }
}
