//! What is asked of a file whose calls belong elsewhere: a spool, whose calls go on to the store that hosts share,
//! and a copy, whose calls are those of another store. What tells a call there from all others is its name: the salt
//! under which it was sealed.

use super::super::clock::Ahead;
use super::super::seal::{NAME_AT, NAME_LENGTH, name_of};
use super::super::table::{self, New, State, bytes, maybe_number, maybe_text, number, text};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashMap;
use std::sync::Arc;

/// Calls by their names.
pub(in crate::outbox) type States = HashMap<Vec<u8>, State>;

/// A call in a copy, without what it carries.
pub(in crate::outbox) struct Copied {
    pub(in crate::outbox) id: i64,
    pub(in crate::outbox) name: Vec<u8>,
    pub(in crate::outbox) state: State,
    pub(in crate::outbox) put_at: i64,
}

const WHOLE: &str =
    "id, queue, order_key, put_at, next_at, expires_at, max_attempts, method, vendor, endpoint,
    host, customer, idempotency_key, bytes, request";

/// `clock`: that of the file.
fn read_whole(row: &Row<'_>, clock: Ahead) -> rusqlite::Result<(i64, New)> {
    let most = maybe_number(row, "max_attempts")?;
    let new = New {
        clock,
        queue: text(row, "queue")?,
        order_key: maybe_text(row, "order_key")?,
        put_at: number(row, "put_at")?,
        next_at: number(row, "next_at")?,
        expires_at: number(row, "expires_at")?,
        max_attempts: most.map(|most| u32::try_from(most.max(0)).unwrap_or(u32::MAX)),
        method: text(row, "method")?,
        vendor: text(row, "vendor")?,
        endpoint: text(row, "endpoint")?,
        host: text(row, "host")?,
        customer: maybe_text(row, "customer")?,
        idempotency_key: text(row, "idempotency_key")?,
        bytes: usize::try_from(number(row, "bytes")?).unwrap_or(0),
        request: bytes(row, "request")?,
    };
    Ok((row.get("id")?, new))
}

/// The numbers of the calls that stand so, in the order in which they were taken.
pub(in crate::outbox) fn in_order(db: &Connection, state: State) -> rusqlite::Result<Vec<i64>> {
    let sql = "SELECT id FROM item WHERE state = ?1 ORDER BY put_at, id";
    db.prepare(sql)?.query_map([state.number()], |row| row.get(0))?.collect()
}

/// Calls by these numbers, whole; of the last ones none where there are more than `most` bytes already. To be asked in a
/// transaction: calls and clock are as of one commit.
pub(in crate::outbox) fn these(
    db: &Connection,
    ids: &[i64],
    most: usize,
) -> rusqlite::Result<Vec<(i64, New)>> {
    some(db, ids, most, "")
}

/// Those of them that are pending. In a transaction, too.
pub(in crate::outbox) fn pending(
    db: &Connection,
    ids: &[i64],
    most: usize,
) -> rusqlite::Result<Vec<(i64, New)>> {
    some(db, ids, most, "AND state = 0")
}

fn some(db: &Connection, ids: &[i64], most: usize, which: &str) -> rusqlite::Result<Vec<(i64, New)>> {
    let sql = format!("SELECT {WHOLE} FROM item WHERE id = ?1 {which}");
    let clock = Ahead::of(db)?;
    let mut statement = db.prepare_cached(&sql)?;
    let (mut calls, mut room) = (Vec::with_capacity(ids.len()), most);
    for id in ids {
        let call = statement.query_row([id], |row| read_whole(row, clock)).optional()?;
        let Some((id, new)) = call else { continue };
        let left = room.checked_sub(new.request.len());
        calls.push((id, new));
        match left {
            Some(left) => room = left,
            None => break,
        }
    }
    Ok(calls)
}

/// Whether any call is pending. Each half has an index: what was settled is not walked through.
pub(in crate::outbox) fn any_pending(db: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM item WHERE state = 0 AND blocked = 0)
        OR EXISTS (SELECT 1 FROM item WHERE state = 0 AND order_key IS NOT NULL)";
    db.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// The beginning of what was sealed last of what is pending; `None` where nothing is.
pub(in crate::outbox) fn newest_sealed(db: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT substr(request, 1, 64) FROM item WHERE id = (SELECT max(id) FROM (
            SELECT max(id) AS id FROM item WHERE state = 0 AND blocked = 0
            UNION ALL SELECT max(id) FROM item WHERE state = 0 AND order_key IS NOT NULL))";
    db.query_row(sql, [], |row| bytes(row, 0)).optional()
}

/// The numbers above `after` of pending calls that no earlier one of their key waits before.
pub(in crate::outbox) fn heads(db: &Connection, after: i64, many: usize) -> rusqlite::Result<Vec<i64>> {
    let sql = "SELECT id FROM item AS head WHERE state = 0 AND id > ?1 AND (order_key IS NULL OR NOT EXISTS
            (SELECT 1 FROM item AS earlier WHERE earlier.queue = head.queue AND earlier.order_key = head.order_key
                AND earlier.order_key IS NOT NULL AND earlier.state = 0 AND earlier.id < head.id))
        ORDER BY id LIMIT ?2";
    let many = i64::try_from(many).unwrap_or(i64::MAX);
    db.prepare_cached(sql)?.query_map([after, many], |row| row.get(0))?.collect()
}

/// The pending call of this one's key that comes next.
pub(in crate::outbox) fn behind(
    db: &Connection,
    queue: &str,
    key: &str,
    id: i64,
) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT min(id) FROM item WHERE queue = ?1 AND order_key = ?2 AND order_key IS NOT NULL
        AND state = 0 AND id > ?3";
    db.prepare_cached(sql)?.query_row(params![queue, key, id], |row| row.get(0))
}

/// Writes why a call could not go on, where that is not known of it.
pub(in crate::outbox) fn refused(db: &Connection, id: i64, error: &str) -> rusqlite::Result<()> {
    let sql = "UPDATE item SET error = ?2 WHERE id = ?1 AND state = 0 AND error IS NOT ?2";
    db.prepare_cached(sql)?.execute(params![id, error]).map(|_| ())
}

/// How many are pending, how many of them could not go on, and why the oldest of those could not.
pub(in crate::outbox) fn waiting(db: &Connection) -> rusqlite::Result<(u64, u64, Option<String>)> {
    let sql = "SELECT count(*), count(error), (SELECT error FROM item WHERE state = 0 AND error IS NOT NULL
            ORDER BY id LIMIT 1) FROM item WHERE state = 0";
    let many = |number: i64| number.unsigned_abs();
    db.query_row(sql, [], |row| Ok((many(row.get(0)?), many(row.get(1)?), maybe_text(row, 2)?)))
}

/// The highest number that a call has.
pub(in crate::outbox) fn last(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT coalesce(max(id), 0) FROM item", [], |row| row.get(0))
}

/// Whether calls of this key wait in a spool: later ones must not overtake them.
pub(in crate::outbox) fn has_line(db: &Connection, queue: &str, order_key: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM item WHERE queue = ?1 AND order_key = ?2 AND state = 0)";
    db.prepare_cached(sql)?.query_row([queue, order_key], |row| row.get(0))
}

/// Says that a call went on, and has another number there. The next of its key is the first one then, for the case that
/// the file is the store itself again.
pub(in crate::outbox) fn went(db: &Connection, id: i64, there: i64, now: i64) -> rusqlite::Result<()> {
    let sql =
        "UPDATE item SET state = 1, blocked = 0, settled_at = ?3, token = ?2, request = x'' WHERE id = ?1";
    db.prepare_cached(sql)?.execute(params![id, there, now])?;
    table::unblock_behind(db, id)
}

/// The number that a call has where it went on to.
pub(in crate::outbox) fn number_there(db: &Connection, id: i64) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT token FROM item WHERE id = ?1 AND state = 1";
    db.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional().map(Option::flatten)
}

/// Gives up a call that cannot go on.
pub(in crate::outbox) fn give_up(db: &Connection, id: i64, error: &str, now: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE item SET state = 2, blocked = 0, settled_at = ?3, error = ?2 WHERE id = ?1";
    db.prepare_cached(sql)?.execute(params![id, error, now])?;
    table::unblock_behind(db, id)
}

/// Lets calls be found by their names. Only a file that has copies needs it.
pub(in crate::outbox) fn index_names(db: &Connection) -> rusqlite::Result<()> {
    let sql =
        format!("CREATE INDEX IF NOT EXISTS item_name ON item (substr(request, {NAME_AT}, {NAME_LENGTH}))");
    db.execute_batch(&sql)
}

/// How the calls with these names stand that are here.
pub(in crate::outbox) fn states(db: &Connection, names: &[Vec<u8>]) -> rusqlite::Result<States> {
    let sql = format!("SELECT state FROM item WHERE substr(request, {NAME_AT}, {NAME_LENGTH}) = ?1");
    let mut statement = db.prepare_cached(&sql)?;
    let mut states = States::new();
    for name in names {
        if let Some(state) = statement.query_row([name], |row| row.get(0)).optional()? {
            states.insert(name.clone(), State::of(state));
        }
    }
    Ok(states)
}

/// What a copy has above a number.
pub(in crate::outbox) fn copied(db: &Connection, after: i64, many: i64) -> rusqlite::Result<Vec<Copied>> {
    let sql = format!(
        "SELECT id, substr(request, {NAME_AT}, {NAME_LENGTH}), state, put_at FROM item
        WHERE id > ?1 ORDER BY id LIMIT ?2"
    );
    let read = |row: &Row<'_>| {
        // One that went on from a spool has no name any more.
        let (id, name, state, put_at) = (row.get(0)?, bytes(row, 1)?, number(row, 2)?, number(row, 3)?);
        Ok(Copied { id, name, state: State::of(state), put_at })
    };
    db.prepare_cached(&sql)?.query_map([after, many], read)?.collect()
}

/// Marks calls of a copy: `None` forgets them.
pub(in crate::outbox) fn mark(db: &Connection, changes: &[(i64, Option<State>)]) -> rusqlite::Result<()> {
    for (id, state) in changes {
        match state {
            Some(state) => {
                let sql = "UPDATE item SET state = ?2 WHERE id = ?1";
                db.prepare_cached(sql)?.execute([*id, state.number()])?;
            }
            None => {
                db.prepare_cached("DELETE FROM item WHERE id = ?1")?.execute([id])?;
            }
        }
    }
    Ok(())
}

/// Beside the leases, under a name that no service has.
const IDENTITY: &str = "\u{1}identity";

/// What tells a store from all others: in a copy, from the one whose calls it has.
pub(in crate::outbox) fn identity(db: &Connection) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT holder FROM lease WHERE queue = ?1", [IDENTITY], |row| row.get(0)).optional()
}

/// Makes one where there is none.
pub(in crate::outbox) fn own_identity(db: &Connection) -> rusqlite::Result<String> {
    let sql = "INSERT INTO lease (queue, token, holder, boot, until)
        VALUES (?1, 0, lower(hex(randomblob(16))), '', 0) ON CONFLICT (queue) DO NOTHING";
    db.execute(sql, [IDENTITY])?;
    Ok(identity(db)?.unwrap_or_default())
}

/// Makes another one, where it still is this one.
pub(in crate::outbox) fn rename(db: &Connection, was: &str) -> rusqlite::Result<()> {
    let sql = "UPDATE lease SET holder = lower(hex(randomblob(16))) WHERE queue = ?1 AND holder = ?2";
    db.execute(sql, [IDENTITY, was]).map(|_| ())
}

/// Says whose copy a file is.
pub(in crate::outbox) fn adopt(db: &Connection, identity: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO lease (queue, token, holder, boot, until) VALUES (?1, 0, ?2, '', 0)
        ON CONFLICT (queue) DO UPDATE SET holder = ?2, token = 0";
    db.execute(sql, [IDENTITY, identity]).map(|_| ())
}

/// The highest number that was ever given to a call here.
pub(in crate::outbox) fn reached(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'item'", [], |row| {
        row.get(0)
    })
}

/// The highest number that the store of this name had given to a call, as far as its copy here has heard.
pub(in crate::outbox) fn heard(db: &Connection, store: &str) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce(max(token), 0) FROM lease WHERE queue = ?1 AND holder = ?2";
    db.query_row(sql, [IDENTITY, store], |row| row.get(0))
}

/// Lets a copy hear of it.
pub(in crate::outbox) fn hear(db: &Connection, store: &str, reached: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE lease SET token = ?3 WHERE queue = ?1 AND holder = ?2 AND token < ?3";
    db.execute(sql, params![IDENTITY, store, reached]).map(|_| ())
}

/// Beside it, under whose name calls are copied while the store was never reached.
const ASSUMED: &str = "\u{1}assumed";

/// The name under which calls are copied while the store was never reached.
pub(in crate::outbox) fn assumed(db: &Connection) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT holder FROM lease WHERE queue = ?1", [ASSUMED], |row| row.get(0)).optional()
}

/// Makes one where there is none.
pub(in crate::outbox) fn assume(db: &Connection) -> rusqlite::Result<String> {
    let sql = "INSERT INTO lease (queue, token, holder, boot, until)
        VALUES (?1, 0, lower(hex(randomblob(16))), '', 0) ON CONFLICT (queue) DO NOTHING";
    db.execute(sql, [ASSUMED])?;
    Ok(assumed(db)?.unwrap_or_default())
}

/// Beside it, who the store is that hosts share: its name, and its identity.
const STORE: &str = "\u{1}store";

/// Remembers who the store of this name is.
pub(in crate::outbox) fn remember_store(db: &Connection, name: &str, identity: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO lease (queue, token, holder, boot, until) VALUES (?1, 0, ?3, ?2, 0)
        ON CONFLICT (queue) DO UPDATE SET holder = ?3, boot = ?2 WHERE holder <> ?3 OR boot <> ?2";
    db.execute(sql, [STORE, name, identity]).map(|_| ())
}

/// Who the store of this name was when it was reached last.
pub(in crate::outbox) fn known_store(db: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT holder FROM lease WHERE queue = ?1 AND boot = ?2";
    db.query_row(sql, [STORE, name], |row| row.get(0)).optional()
}

const UNCOPIED: &str =
    "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'uncopied')";

/// Writes down that calls are about to be taken into fewer copies than they should be in. Only a file beside copies
/// needs the table.
pub(in crate::outbox) fn note_uncopied(db: &Connection, names: &[Vec<u8>], now: i64) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS uncopied (name BLOB PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    )?;
    let mut statement = db.prepare_cached("INSERT OR IGNORE INTO uncopied VALUES (?1, ?2)")?;
    names.iter().try_for_each(|name| statement.execute(params![name, now]).map(drop))
}

/// Some of these with names after this one, and when they were written down.
pub(in crate::outbox) fn uncopied(
    db: &Connection,
    after: &[u8],
    many: usize,
) -> rusqlite::Result<Vec<(Vec<u8>, i64)>> {
    if !db.query_row(UNCOPIED, [], |row| row.get(0))? {
        return Ok(Vec::new());
    }
    let sql = "SELECT name, at FROM uncopied WHERE name > ?1 ORDER BY name LIMIT ?2";
    let many = i64::try_from(many).unwrap_or(i64::MAX);
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    db.prepare_cached(sql)?.query_map(params![after, many], read)?.collect()
}

/// How many there are.
pub(in crate::outbox) fn many_uncopied(db: &Connection) -> rusqlite::Result<u64> {
    if !db.query_row(UNCOPIED, [], |row| row.get(0))? {
        return Ok(0);
    }
    db.query_row("SELECT count(*) FROM uncopied", [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

/// They are copied now, or nobody needs them any more.
pub(in crate::outbox) fn copied_now(db: &Connection, names: &[Vec<u8>]) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached("DELETE FROM uncopied WHERE name = ?1")?;
    names.iter().try_for_each(|name| statement.execute([name]).map(drop))
}

/// So many bytes of requests are read by names at once, and one request more.
pub(in crate::outbox) const NAMED: usize = 16 * 1024 * 1024;

/// The pending calls with these names, whole: as many as [`NAMED`] allows. In a transaction, too.
pub(in crate::outbox) fn named(db: &Connection, names: &[Vec<u8>]) -> rusqlite::Result<Vec<New>> {
    let sql = format!(
        "SELECT {WHOLE} FROM item WHERE substr(request, {NAME_AT}, {NAME_LENGTH}) = ?1 AND state = 0 ORDER BY id"
    );
    let clock = Ahead::of(db)?;
    let mut statement = db.prepare_cached(&sql)?;
    let (mut calls, mut bytes) = (Vec::with_capacity(names.len()), 0);
    for name in names {
        let call = statement.query_row([name], |row| read_whole(row, clock)).optional()?;
        bytes += call.as_ref().map_or(0, |(_, new)| new.request.len());
        calls.extend(call);
        if bytes > NAMED {
            break;
        }
    }
    calls.sort_by_key(|(id, _)| *id);
    Ok(calls.into_iter().map(|(_, new)| new).collect())
}

/// Adds those of these calls that are not there.
pub(in crate::outbox) fn add_missing(db: &Connection, news: &[Arc<New>]) -> rusqlite::Result<()> {
    index_names(db)?;
    let sql =
        format!("SELECT EXISTS (SELECT 1 FROM item WHERE substr(request, {NAME_AT}, {NAME_LENGTH}) = ?1)");
    let clock = Ahead::of(db)?;
    let mut statement = db.prepare_cached(&sql)?;
    for new in news {
        if !statement.query_row([name_of(&new.request)], |row| row.get(0))? {
            table::add(db, new, clock)?;
        }
    }
    Ok(())
}
