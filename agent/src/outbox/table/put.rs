//! Calls are added.

use super::super::clock::rebased;
use super::New;
use rusqlite::{Connection, ToSql, params};
use std::sync::LazyLock;

/// Adds a call, at a moment of which `now` is the name.
pub(in super::super) fn add(connection: &Connection, new: &New, now: i64) -> rusqlite::Result<i64> {
    let rebased = |moment| rebased(moment, new.put_at, now);
    let sql = "INSERT INTO item (queue, order_key, blocked, put_at, next_at, expires_at, max_attempts, method, vendor,
            endpoint, host, customer, idempotency_key, bytes, request)
        VALUES (?1, ?2, ?2 IS NOT NULL AND EXISTS
            (SELECT 1 FROM item WHERE queue = ?1 AND order_key = ?2 AND state = 0),
            ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    connection.prepare_cached(sql)?.insert(params![
        new.queue,
        new.order_key,
        rebased(new.put_at),
        rebased(new.next_at),
        rebased(new.expires_at),
        new.max_attempts,
        new.method,
        new.vendor,
        new.endpoint,
        new.host,
        new.customer,
        new.idempotency_key,
        i64::try_from(new.bytes).unwrap_or(i64::MAX),
        new.request,
    ])
}

/// How many calls [`add_together`] takes.
pub(in super::super) const TOGETHER: usize = 8;

/// Adds so many calls without order keys, at a moment of which `now` is the name: one statement, since each
/// statement by itself writes down the last number. The first one's number; the others have those that follow.
pub(in super::super) fn add_together<'a>(
    connection: &Connection,
    news: impl Iterator<Item = &'a New>,
    now: i64,
) -> rusqlite::Result<i64> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "INSERT INTO item (id, queue, blocked, put_at, next_at, expires_at, max_attempts, method, vendor, endpoint,
                host, customer, idempotency_key, bytes, request)
            VALUES {}",
            ["(?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"; TOGETHER].join(", ")
        )
    });
    let last = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'item'";
    let last: i64 = connection.prepare_cached(last)?.query_row([], |row| row.get(0))?;
    let mut statement = connection.prepare_cached(&SQL)?;
    let mut place = 0;
    for (new, id) in news.zip(last + 1..) {
        let rebased = |moment| rebased(moment, new.put_at, now);
        let row: [&dyn ToSql; 14] = [
            &id,
            &new.queue,
            &rebased(new.put_at),
            &rebased(new.next_at),
            &rebased(new.expires_at),
            &new.max_attempts,
            &new.method,
            &new.vendor,
            &new.endpoint,
            &new.host,
            &new.customer,
            &new.idempotency_key,
            &i64::try_from(new.bytes).unwrap_or(i64::MAX),
            &new.request,
        ];
        for value in row {
            place += 1;
            statement.raw_bind_parameter(place, value)?;
        }
    }
    statement.raw_execute()?;
    Ok(last + 1)
}
