//! Calls are added.

use super::super::clock::Ahead;
use super::New;
use rusqlite::{Connection, ToSql, params};
use std::sync::LazyLock;

/// Adds a call, with its moments by the clock of the file.
pub(in super::super) fn add(connection: &Connection, new: &New, clock: Ahead) -> rusqlite::Result<i64> {
    let moved = |moment| new.clock.moved(moment, clock);
    let sql = "INSERT INTO item (queue, order_key, blocked, put_at, next_at, expires_at, max_attempts, method, vendor,
            endpoint, host, customer, idempotency_key, bytes, request)
        VALUES (?1, ?2, ?2 IS NOT NULL AND EXISTS
            (SELECT 1 FROM item WHERE queue = ?1 AND order_key = ?2 AND state = 0),
            ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    connection.prepare_cached(sql)?.insert(params![
        new.queue,
        new.order_key,
        moved(new.put_at),
        moved(new.next_at),
        moved(new.expires_at),
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

/// How many calls [`add_together`] takes: each by a statement of its own.
const TOGETHER: [usize; 5] = [MOST_TOGETHER, 16, 8, 4, 2];
pub(in super::super) const MOST_TOGETHER: usize = 32;

/// As many calls as [`add_together`] takes of so many; 1 where there are too few for it.
pub(in super::super) fn together(of: usize) -> usize {
    TOGETHER.into_iter().find(|many| *many <= of).unwrap_or(1)
}

/// Adds calls without order keys, as many as [`together`] says, with their moments by the clock of the file: one statement,
/// since each statement by itself writes down the last number. The first one's number; the others have those that follow.
pub(in super::super) fn add_together(
    connection: &Connection,
    news: &[&New],
    clock: Ahead,
) -> rusqlite::Result<i64> {
    static SQL: LazyLock<[String; TOGETHER.len()]> = LazyLock::new(|| {
        TOGETHER.map(|many| {
            format!(
                "INSERT INTO item (id, queue, blocked, put_at, next_at, expires_at, max_attempts, method, vendor, endpoint,
                    host, customer, idempotency_key, bytes, request)
                VALUES {}",
                vec!["(?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"; many].join(", ")
            )
        })
    });
    let last = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'item'";
    let last: i64 = connection.prepare_cached(last)?.query_row([], |row| row.get(0))?;
    let sql = TOGETHER.iter().zip(SQL.iter()).find(|(many, _)| **many == news.len());
    let Some((_, sql)) = sql else {
        return Err(rusqlite::Error::InvalidParameterCount(news.len(), MOST_TOGETHER));
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut place = 0;
    for (new, id) in news.iter().zip(last + 1..) {
        let moved = |moment| new.clock.moved(moment, clock);
        let row: [&dyn ToSql; 14] = [
            &id,
            &new.queue,
            &moved(new.put_at),
            &moved(new.next_at),
            &moved(new.expires_at),
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
