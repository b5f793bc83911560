//! What delivery asks and says.

use super::super::clock::rebased;
use super::read::{bytes, item};
use super::{COLUMNS, Item, Settlement};
use rusqlite::{Connection, OptionalExtension, params};

/// What may be delivered now. `far` is further away than any wait: a call that waits for
/// longer was put off before the clock was set back.
pub(in super::super) fn due(
    connection: &Connection,
    queue: &str,
    now: i64,
    far: i64,
    many: usize,
) -> rusqlite::Result<Vec<Item>> {
    let mut rows = Vec::new();
    for (which, than) in [(DUE, now), (PUT_OFF, far)] {
        let many = i64::try_from(many - rows.len()).unwrap_or(i64::MAX);
        let mut statement = connection.prepare_cached(&select_due(which))?;
        for row in statement.query_map(params![queue, than, many], item)? {
            rows.push(row?);
        }
    }
    Ok(rows)
}

pub(super) const DUE: &str = "next_at <= ?2";
pub(super) const PUT_OFF: &str = "next_at > ?2";

/// Each condition is a statement of its own: with both in one, joined by `OR`, SQLite walks through all that is
/// parked.
pub(super) fn select_due(which: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM item WHERE queue = ?1 AND state = 0 AND blocked = 0 AND {which}
            ORDER BY next_at, id LIMIT ?3"
    )
}

/// What is sealed of a pending call; `None` where there is none any more.
pub(in super::super) fn request(connection: &Connection, id: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT request FROM item WHERE id = ?1 AND state = 0";
    connection.prepare_cached(sql)?.query_row([id], |row| bytes(row, 0)).optional()
}

/// When the next call is due that may be delivered at all; `None` where there is none.
pub(in super::super) fn next_due(
    connection: &Connection,
    queue: &str,
    after: i64,
) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT min(next_at) FROM item WHERE queue = ?1 AND state = 0 AND blocked = 0 AND next_at > ?2";
    connection.prepare_cached(sql)?.query_row(params![queue, after], |row| row.get(0))
}

pub(in super::super) fn has_pending(connection: &Connection, queue: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM item WHERE queue = ?1 AND state = 0 AND blocked = 0)";
    connection.prepare_cached(sql)?.query_row([queue], |row| row.get(0))
}

/// Writes how an attempt came out, if the lease is still the one under which it was made. Whether it is. In a file that
/// was copied back meanwhile the number may be another call's: it is told by its idempotency key.
pub(in super::super) fn settle(
    connection: &Connection,
    (queue, token): (&str, i64),
    (id, key): (i64, &str),
    settlement: &Settlement,
    now: i64,
) -> rusqlite::Result<bool> {
    let holds = "SELECT EXISTS (SELECT 1 FROM lease WHERE queue = ?1 AND token = ?2)";
    if !connection.prepare_cached(holds)?.query_row(params![queue, token], |row| row.get(0))? {
        return Ok(false);
    }
    let (state, counts, at, status, error, response) = match settlement {
        Settlement::Delivered { status, response } => (1, true, None, Some(*status), None, Some(response)),
        Settlement::Later { at, now: then, counts, status, error } => {
            (0, *counts, Some(rebased(*at, *then, now)), *status, Some(error.as_str()), None)
        }
        Settlement::Dead { counts, status, error } => (2, *counts, None, *status, Some(error.as_str()), None),
    };
    // One that is no text was read as another.
    let key = Some(key).filter(|key| !key.contains(char::REPLACEMENT_CHARACTER));
    let sql =
        "UPDATE item SET state = ?2, attempts = attempts + ?3, next_at = coalesce(?4, next_at), status = ?5,
            error = ?6, response = ?7, settled_at = CASE ?2 WHEN 0 THEN NULL ELSE ?8 END, token = ?9
        WHERE id = ?1 AND state = 0 AND (?10 IS NULL OR idempotency_key = ?10)";
    let row = params![id, state, i64::from(counts), at, status, error, response, now, token, key];
    if connection.prepare_cached(sql)?.execute(row)? == 1 && state != 0 {
        unblock_behind(connection, id)?;
    }
    Ok(true)
}

/// Lets the oldest pending call of this one's key go, other than this one. By the rows themselves: what they hold may
/// be no text.
pub(in super::super) fn unblock_behind(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE item SET blocked = 0 WHERE id = (SELECT other.id FROM item AS this JOIN item AS other
            ON other.queue = this.queue AND other.order_key = this.order_key
        WHERE this.id = ?1 AND other.id <> ?1 AND other.state = 0 AND other.order_key IS NOT NULL
        ORDER BY other.id LIMIT 1)";
    connection.prepare_cached(sql)?.execute([id]).map(|_| ())
}

/// `state <> 0` adds nothing but the index: without it SQLite reads all that is parked.
pub(super) const TIDY: &str = "DELETE FROM item WHERE id IN (SELECT id FROM item
    WHERE state = ?1 AND state <> 0 AND settled_at < ?2 ORDER BY settled_at LIMIT 1000)";

/// Forgets delivered calls that were delivered before `delivered`, and dead letters from before `dead`; some at a
/// time. Whether there may be more.
pub(in super::super) fn tidy(connection: &Connection, delivered: i64, dead: i64) -> rusqlite::Result<bool> {
    let mut more = false;
    for (state, before) in [(1, delivered), (2, dead)] {
        more |= connection.prepare_cached(TIDY)?.execute(params![state, before])? == 1_000;
    }
    Ok(more)
}
