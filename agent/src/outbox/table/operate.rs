//! What operators ask and do.

use super::deliver::unblock_behind;
use super::read::{bytes, item, maybe_number, number, text, unsigned};
use super::{COLUMNS, Count, Filter, Item, Line, State, Whole};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

/// The beginning of what was sealed last; `None` where nothing is there.
pub(in super::super) fn newest_sealed(connection: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT coalesce(substr(request, 1, 64), x'') FROM item ORDER BY id DESC LIMIT 1";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()
}

/// How what waits begins, as far as that tells the key, and how many calls begin so, with those that wait for them.
pub(in super::super) fn sealed(connection: &Connection) -> rusqlite::Result<Vec<(Vec<u8>, u64)>> {
    // Of those that wait for an earlier one of their key that one stands here.
    let sql = "SELECT coalesce(substr(request, 1, 64), x'') AS head, sum(calls) FROM
            (SELECT request, iif(order_key IS NULL, 1, (SELECT count(*) FROM item AS line
                WHERE line.queue = item.queue AND line.order_key = item.order_key AND line.state = 0
                    AND line.order_key IS NOT NULL)) AS calls
            FROM item INDEXED BY item_due WHERE state = 0 AND blocked = 0
            ORDER BY queue, next_at LIMIT 10000)
        GROUP BY substr(head, 1, 5)";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((bytes(row, 0)?, unsigned(number(row, 1)?))))?;
    rows.collect()
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
    // Where it is not the one to go next, that one still is: a second one beside it would overtake it.
    let sql = "SELECT EXISTS (SELECT 1 FROM item WHERE id = ?1 AND state = 0 AND blocked = 0)";
    if connection.prepare_cached(sql)?.query_row([id], |row| row.get(0))? {
        unblock_behind(connection, id)?;
    }
    Ok(connection.prepare_cached("DELETE FROM item WHERE id = ?1")?.execute([id])? == 1)
}

pub(in super::super) fn list(connection: &Connection, filter: &Filter) -> rusqlite::Result<Vec<Item>> {
    let mut sql = format!("SELECT {COLUMNS} FROM item WHERE 1");
    let mut values = Vec::new();
    if let Some(state) = filter.state {
        sql += " AND state = ?";
        values.push(Value::Integer(state.number()));
    }
    if let Some(service) = &filter.service {
        // What comes between a service and a credential is char(31), and a space behind it.
        sql += " AND (queue = ? OR (queue > ? || char(31) AND queue < ? || ' '))";
        values.extend([(); 3].map(|()| Value::Text(service.clone())));
    }
    if let Some(vendor) = &filter.vendor {
        sql += " AND vendor = ?";
        values.push(Value::Text(vendor.clone()));
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
    let read = |row: &Row<'_>| Ok((item(row)?, bytes(row, "request")?, row.get("response")?));
    connection.prepare_cached(&sql)?.query_row([id], read).optional()
}

pub(in super::super) fn counts(connection: &Connection) -> rusqlite::Result<Vec<Count>> {
    let sql = "SELECT queue, state, count(*), CAST(total(bytes) AS INTEGER), min(put_at) FROM item GROUP BY queue, state ORDER BY 1, 2";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(Count {
            service: text(row, 0)?,
            state: State::of(number(row, 1)?),
            calls: unsigned(number(row, 2)?),
            bytes: unsigned(number(row, 3)?),
            oldest: number(row, 4)?,
        })
    })?;
    let mut counts = Vec::new();
    for row in rows {
        row?.add_to(&mut counts);
    }
    Ok(counts)
}

/// The queues of callbacks that have pending calls, with how many there are, the oldest moment of which one is due, and
/// when the oldest was put.
pub(in super::super) fn lines_of_callbacks(connection: &Connection) -> rusqlite::Result<Vec<Line>> {
    let sql = "SELECT queue, count(*), min(CASE blocked WHEN 0 THEN next_at END), min(put_at) FROM item
        WHERE state = 0 AND instr(queue, char(31)) > 0 GROUP BY queue ORDER BY queue";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(Line {
            queue: text(row, 0)?,
            calls: unsigned(number(row, 1)?),
            due: maybe_number(row, 2)?,
            oldest: number(row, 3)?,
        })
    })?;
    rows.collect()
}
