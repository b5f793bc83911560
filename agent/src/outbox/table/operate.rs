//! What operators ask and do.

use super::deliver::unblock;
use super::{COLUMNS, Count, Filter, Item, State, Whole, item, unsigned};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

/// The beginning of what was sealed last; `None` where nothing is there.
pub(in super::super) fn newest_sealed(connection: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT coalesce(substr(request, 1, 64), x'') FROM item ORDER BY id DESC LIMIT 1";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()
}

/// Delivers a call anew: at once, with its age and attempts counted from now. Whether there is one that is not
/// delivered.
pub(in super::super) fn retry(connection: &Connection, id: i64, now: i64) -> rusqlite::Result<bool> {
    let sql = "UPDATE item SET state = 0, attempts = 0, next_at = ?2,
            expires_at = CASE WHEN expires_at - put_at > ?3 - ?2 THEN ?3 ELSE ?2 + (expires_at - put_at) END,
            settled_at = NULL, blocked = (order_key IS NOT NULL AND EXISTS (SELECT 1 FROM item AS other
                WHERE other.queue = item.queue AND other.order_key = item.order_key AND other.state = 0
                AND other.id <> item.id AND NOT other.blocked))
        WHERE id = ?1 AND state <> 1";
    Ok(connection.execute(sql, params![id, now, i64::MAX])? == 1)
}

/// Forgets a call. Whether there was one.
pub(in super::super) fn remove(connection: &Connection, id: i64) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM item WHERE id = ?1 RETURNING queue, order_key, state = 0 AND blocked = 0";
    let line: Option<(String, Option<String>, bool)> =
        connection.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    // Where it was not the one to go next, that one still is: a second one beside it would overtake it.
    if let Some((queue, Some(key), true)) = &line {
        unblock(connection, queue, key)?;
    }
    Ok(line.is_some())
}

pub(in super::super) fn list(connection: &Connection, filter: &Filter) -> rusqlite::Result<Vec<Item>> {
    let mut sql = format!("SELECT {COLUMNS} FROM item WHERE 1");
    let mut values = Vec::new();
    if let Some(state) = filter.state {
        sql += " AND state = ?";
        values.push(Value::Integer(state.number()));
    }
    for (column, value) in [("queue", &filter.service), ("vendor", &filter.vendor)] {
        if let Some(value) = value {
            sql += &format!(" AND {column} = ?");
            values.push(Value::Text(value.clone()));
        }
    }
    sql += " ORDER BY id";
    if filter.limit > 0 {
        sql += &format!(" LIMIT {}", filter.limit);
    }
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(values), item)?;
    rows.collect()
}

pub(in super::super) fn get(connection: &Connection, id: i64) -> rusqlite::Result<Option<Whole>> {
    let sql = format!("SELECT {COLUMNS}, request, response FROM item WHERE id = ?1");
    let read = |row: &Row<'_>| Ok((item(row)?, row.get("request")?, row.get("response")?));
    connection.prepare_cached(&sql)?.query_row([id], read).optional()
}

pub(in super::super) fn counts(connection: &Connection) -> rusqlite::Result<Vec<Count>> {
    let sql = "SELECT queue, state, count(*), sum(bytes), min(put_at) FROM item GROUP BY queue, state ORDER BY 1, 2";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(Count {
            service: row.get(0)?,
            state: State::of(row.get(1)?),
            calls: unsigned(row.get(2)?),
            bytes: unsigned(row.get(3)?),
            oldest: row.get(4)?,
        })
    })?;
    rows.collect()
}
