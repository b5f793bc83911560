//! What is not delivered, by vendor: row by row from the indexes of what waits and of what was settled, so that nothing
//! is sorted, what was delivered costs nothing, and whoever asks can be stopped at each row.

use super::super::metrics::{Standing, Standings};
use super::super::queue;
use super::read::{number, text};
use rusqlite::{Connection, Row};
use std::sync::atomic::{AtomicBool, Ordering};

/// Calls that may be delivered, those that wait behind another of their key, and dead letters; of all queues of a service.
/// `state <> 0` adds nothing but the index.
pub(super) const STANDING: [&str; 3] = [
    "SELECT queue, vendor, put_at FROM item INDEXED BY item_due 
        WHERE queue >= ?1 AND queue < ?1 || ' ' AND state = 0 AND blocked = 0",
    "SELECT queue, vendor, put_at FROM item INDEXED BY item_line
        WHERE queue >= ?1 AND queue < ?1 || ' ' AND state = 0 AND order_key IS NOT NULL AND blocked <> 0",
    "SELECT queue, vendor, NULL FROM item INDEXED BY item_settled WHERE ?1 = ?1 AND state = 2 AND state <> 0",
];

pub(in super::super) fn standings(
    connection: &Connection,
    service: &str,
    stop: &AtomicBool,
) -> rusqlite::Result<Standings> {
    let mut standings = Standings::default();
    for sql in STANDING {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([service])?;
        while let Some(row) = rows.next()? {
            if stop.load(Ordering::Relaxed) {
                return Ok(standings);
            }
            if queue::parts(&text(row, 0)?).0 == service {
                standings.add(&text(row, 1)?, standing(row)?);
            }
        }
    }
    Ok(standings)
}

fn standing(row: &Row<'_>) -> rusqlite::Result<Standing> {
    Ok(match row.get_ref(2)? {
        rusqlite::types::ValueRef::Null => Standing { dead: 1, ..Standing::default() },
        _ => Standing { pending: 1, since: Some(number(row, 2)?), ..Standing::default() },
    })
}
