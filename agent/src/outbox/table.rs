//! What is asked of the tables.
//!
//! Of the pending calls of one order key all but one are `blocked`: whoever settles or drops a call unblocks the
//! oldest that is left, in the same transaction. So a delivery finds what is due without looking at the rest.

use super::clock::rebased;
use crate::report::time::rfc3339;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde::{Serialize, Serializer};

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// It will be delivered.
    Pending,
    /// The vendor took it.
    Delivered,
    /// It was given up: a dead letter.
    Dead,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    pub(super) const fn number(self) -> i64 {
        match self {
            Self::Pending => 0,
            Self::Delivered => 1,
            Self::Dead => 2,
        }
    }

    pub(super) const fn of(number: i64) -> Self {
        match number {
            0 => Self::Pending,
            1 => Self::Delivered,
            _ => Self::Dead,
        }
    }
}

/// A call in the outbox, without what it carries. Moments are nanoseconds since the Unix epoch; in JSON, RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Item {
    /// Its number in this outbox; later calls have higher ones.
    pub id: i64,
    /// The service whose processes deliver it.
    pub service: String,
    /// Where it stands.
    pub state: State,
    /// The request method.
    pub method: String,
    /// The vendor's name.
    pub vendor: String,
    /// Method and URL template, where the catalogue knows it; else empty.
    pub endpoint: String,
    /// The host.
    pub host: String,
    /// On whose behalf it is made, where somebody said so.
    pub customer: Option<String>,
    /// What orders it among others, where somebody said so.
    pub order_key: Option<String>,
    /// Whether an earlier call of its key has to be delivered first.
    pub blocked: bool,
    /// Its idempotency key.
    pub idempotency_key: String,
    /// How often delivery was tried.
    pub attempts: u32,
    /// When it was put.
    #[serde(serialize_with = "moment")]
    pub put_at: i64,
    /// When delivery is tried next, where it is pending.
    #[serde(serialize_with = "moment")]
    pub next_at: i64,
    /// When it becomes a dead letter.
    #[serde(serialize_with = "moment")]
    pub expires_at: i64,
    /// When it was delivered or given up.
    #[serde(serialize_with = "maybe_moment")]
    pub settled_at: Option<i64>,
    /// The status of the last answer.
    pub status: Option<u16>,
    /// Why the last attempt came to nothing.
    pub error: Option<String>,
    /// How many bytes its body has.
    pub bytes: u64,
    #[serde(skip)]
    pub(super) max_attempts: Option<u32>,
}

fn moment<S: Serializer>(nanos: &i64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339(unsigned(*nanos)))
}

fn maybe_moment<S: Serializer>(nanos: &Option<i64>, to: S) -> Result<S::Ok, S::Error> {
    match nanos {
        Some(nanos) => moment(nanos, to),
        None => to.serialize_none(),
    }
}

const COLUMNS: &str = "id, queue, state, method, vendor, endpoint, host, customer, order_key, blocked, \
    idempotency_key, attempts, put_at, next_at, expires_at, settled_at, status, error, bytes, max_attempts";

/// A call to be added.
pub(super) struct New {
    pub(super) queue: String,
    pub(super) order_key: Option<String>,
    pub(super) put_at: i64,
    pub(super) next_at: i64,
    pub(super) expires_at: i64,
    pub(super) max_attempts: Option<u32>,
    pub(super) method: String,
    pub(super) vendor: String,
    pub(super) endpoint: String,
    pub(super) host: String,
    pub(super) customer: Option<String>,
    pub(super) idempotency_key: String,
    pub(super) bytes: usize,
    pub(super) request: Vec<u8>,
}

/// How an attempt came out.
pub(super) enum Settlement {
    Delivered {
        status: u16,
        response: Vec<u8>,
    },
    /// To be tried again at a moment; `counts` where it was an attempt at all.
    Later {
        at: i64,
        /// When that was said.
        now: i64,
        counts: bool,
        status: Option<u16>,
        error: String,
    },
    Dead {
        status: Option<u16>,
        error: String,
    },
}

/// Adds a call, at a moment of which `now` is the name.
pub(super) fn add(connection: &Connection, new: &New, now: i64) -> rusqlite::Result<i64> {
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

/// What may be delivered now. `far` is further away than any wait: a call that waits for
/// longer was put off before the clock was set back.
pub(super) fn due(
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

const DUE: &str = "next_at <= ?2";
const PUT_OFF: &str = "next_at > ?2";

/// Each condition is a statement of its own: with both in one, joined by `OR`, SQLite walks through all that is
/// parked.
fn select_due(which: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM item WHERE queue = ?1 AND state = 0 AND blocked = 0 AND {which}
            ORDER BY next_at, id LIMIT ?3"
    )
}

/// What is sealed of a pending call; `None` where there is none any more.
pub(super) fn request(connection: &Connection, id: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT request FROM item WHERE id = ?1 AND state = 0";
    connection.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()
}

/// The beginning of what was sealed last; `None` where nothing is there.
pub(super) fn newest_sealed(connection: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT coalesce(substr(request, 1, 64), x'') FROM item ORDER BY id DESC LIMIT 1";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()
}

/// When the next call is due that may be delivered at all; `None` where there is none.
pub(super) fn next_due(connection: &Connection, queue: &str, after: i64) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT min(next_at) FROM item WHERE queue = ?1 AND state = 0 AND blocked = 0 AND next_at > ?2";
    connection.prepare_cached(sql)?.query_row(params![queue, after], |row| row.get(0))
}

pub(super) fn has_pending(connection: &Connection, queue: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM item WHERE queue = ?1 AND state = 0 AND blocked = 0)";
    connection.prepare_cached(sql)?.query_row([queue], |row| row.get(0))
}

/// Writes how an attempt came out, if the lease is still the one under which it was made. Whether it is.
pub(super) fn settle(
    connection: &Connection,
    (queue, token): (&str, i64),
    id: i64,
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
        Settlement::Dead { status, error } => (2, true, None, *status, Some(error.as_str()), None),
    };
    let sql =
        "UPDATE item SET state = ?2, attempts = attempts + ?3, next_at = coalesce(?4, next_at), status = ?5,
            error = ?6, response = ?7, settled_at = CASE ?2 WHEN 0 THEN NULL ELSE ?8 END, token = ?9
        WHERE id = ?1 AND state = 0";
    let row = params![id, state, i64::from(counts), at, status, error, response, now, token];
    if connection.prepare_cached(sql)?.execute(row)? == 1 && state != 0 {
        unblock_after(connection, id)?;
    }
    Ok(true)
}

/// Lets the oldest pending call of this one's key go.
fn unblock_after(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    let sql = "SELECT queue, order_key FROM item WHERE id = ?1 AND order_key IS NOT NULL";
    let line: Option<(String, String)> =
        connection.prepare_cached(sql)?.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match line {
        Some((queue, key)) => unblock(connection, &queue, &key),
        None => Ok(()),
    }
}

fn unblock(connection: &Connection, queue: &str, key: &str) -> rusqlite::Result<()> {
    let sql = "UPDATE item SET blocked = 0 WHERE id = (SELECT id FROM item
        WHERE queue = ?1 AND order_key = ?2 AND state = 0 ORDER BY id LIMIT 1)";
    connection.prepare_cached(sql)?.execute([queue, key]).map(|_| ())
}

/// Delivers a call anew: at once, with its age and attempts counted from now. Whether there is one that is not
/// delivered.
pub(super) fn retry(connection: &Connection, id: i64, now: i64) -> rusqlite::Result<bool> {
    let sql = "UPDATE item SET state = 0, attempts = 0, next_at = ?2,
            expires_at = CASE WHEN expires_at - put_at > ?3 - ?2 THEN ?3 ELSE ?2 + (expires_at - put_at) END,
            settled_at = NULL, blocked = (order_key IS NOT NULL AND EXISTS (SELECT 1 FROM item AS other
                WHERE other.queue = item.queue AND other.order_key = item.order_key AND other.state = 0
                AND other.id <> item.id AND NOT other.blocked))
        WHERE id = ?1 AND state <> 1";
    Ok(connection.execute(sql, params![id, now, i64::MAX])? == 1)
}

/// Forgets a call. Whether there was one.
pub(super) fn remove(connection: &Connection, id: i64) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM item WHERE id = ?1 RETURNING queue, order_key, state = 0 AND blocked = 0";
    let line: Option<(String, Option<String>, bool)> =
        connection.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    // Where it was not the one to go next, that one still is: a second one beside it would overtake it.
    if let Some((queue, Some(key), true)) = &line {
        unblock(connection, queue, key)?;
    }
    Ok(line.is_some())
}

/// `state <> 0` adds nothing but the index: without it SQLite reads all that is parked.
const TIDY: &str = "DELETE FROM item WHERE id IN (SELECT id FROM item
    WHERE state = ?1 AND state <> 0 AND settled_at < ?2 ORDER BY settled_at LIMIT 1000)";

/// Forgets delivered calls that were delivered before `delivered`, and dead letters from before `dead`; some at a
/// time. Whether there may be more.
pub(super) fn tidy(connection: &Connection, delivered: i64, dead: i64) -> rusqlite::Result<bool> {
    let mut more = false;
    for (state, before) in [(1, delivered), (2, dead)] {
        more |= connection.prepare_cached(TIDY)?.execute(params![state, before])? == 1_000;
    }
    Ok(more)
}

/// Which calls to list.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Filter {
    /// Only those that stand so.
    pub state: Option<State>,
    /// Only those of this service.
    pub service: Option<String>,
    /// Only those to this vendor.
    pub vendor: Option<String>,
    /// At most so many; 0 for all.
    pub limit: usize,
}

pub(super) fn list(connection: &Connection, filter: &Filter) -> rusqlite::Result<Vec<Item>> {
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

/// A call and what is sealed of it: its request, and its response where there is one.
pub(super) type Whole = (Item, Vec<u8>, Option<Vec<u8>>);

pub(super) fn get(connection: &Connection, id: i64) -> rusqlite::Result<Option<Whole>> {
    let sql = format!("SELECT {COLUMNS}, request, response FROM item WHERE id = ?1");
    let read = |row: &Row<'_>| Ok((item(row)?, row.get("request")?, row.get("response")?));
    connection.prepare_cached(&sql)?.query_row([id], read).optional()
}

/// The outbox in numbers, for one service and state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Count {
    /// The service.
    pub service: String,
    /// Where these calls stand.
    pub state: State,
    /// How many there are.
    pub calls: u64,
    /// How many bytes their bodies have.
    pub bytes: u64,
    /// When the oldest was put, in nanoseconds since the Unix epoch.
    #[serde(serialize_with = "moment")]
    pub oldest: i64,
}

pub(super) fn counts(connection: &Connection) -> rusqlite::Result<Vec<Count>> {
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

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn item(row: &Row<'_>) -> rusqlite::Result<Item> {
    Ok(Item {
        id: row.get("id")?,
        service: row.get("queue")?,
        state: State::of(row.get("state")?),
        method: row.get("method")?,
        vendor: row.get("vendor")?,
        endpoint: row.get("endpoint")?,
        host: row.get("host")?,
        customer: row.get("customer")?,
        order_key: row.get("order_key")?,
        blocked: row.get("blocked")?,
        idempotency_key: row.get("idempotency_key")?,
        attempts: row.get("attempts")?,
        put_at: row.get("put_at")?,
        next_at: row.get("next_at")?,
        expires_at: row.get("expires_at")?,
        settled_at: row.get("settled_at")?,
        status: row.get("status")?,
        error: row.get("error")?,
        bytes: unsigned(row.get("bytes")?),
        max_attempts: row.get("max_attempts")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::file::{Open, Place};
    use crate::outbox::lease;
    use rusqlite::StatementStatus;

    fn open() -> (tempfile::TempDir, Open, i64) {
        let home = tempfile::tempdir().unwrap();
        let open = Place::new(home.path()).open().unwrap();
        let token = lease::take(&open.connection, home.path(), "q", "me").unwrap().unwrap().0.token;
        (home, open, token)
    }

    fn put(connection: &Connection, key: Option<&str>) -> i64 {
        let new = New {
            queue: "q".into(),
            order_key: key.map(str::to_owned),
            put_at: 0,
            next_at: 0,
            expires_at: 100,
            max_attempts: None,
            method: "POST".into(),
            vendor: "v".into(),
            endpoint: String::new(),
            host: "h".into(),
            customer: None,
            idempotency_key: "k".into(),
            bytes: 0,
            request: Vec::new(),
        };
        add(connection, &new, 0).unwrap()
    }

    fn due_ids(connection: &Connection) -> Vec<i64> {
        due(connection, "q", 0, i64::MAX, 9).unwrap().iter().map(|item| item.id).collect()
    }

    fn delivered() -> Settlement {
        Settlement::Delivered { status: 200, response: Vec::new() }
    }

    fn later(at: i64) -> Settlement {
        Settlement::Later { at, now: 0, counts: true, status: Some(503), error: "no".into() }
    }

    #[test]
    fn of_one_key_only_the_oldest_is_due_whatever_becomes_of_it() {
        let (_home, open, token) = open();
        let db = &open.connection;
        let [a1, b1, a2, free, a3, a4] =
            [Some("a"), Some("b"), Some("a"), None, Some("a"), Some("a")].map(|key| put(db, key));
        assert_eq!(due_ids(db), [a1, b1, free]);
        assert!(settle(db, ("q", token), a1, &later(50), 0).unwrap());
        assert_eq!(due_ids(db), [b1, free], "a call that waits holds back its key");
        assert!(settle(db, ("q", token), a1, &delivered(), 0).unwrap());
        assert_eq!(due_ids(db), [b1, a2, free]);
        assert!(
            settle(db, ("q", token), a2, &Settlement::Dead { status: None, error: "x".into() }, 0).unwrap()
        );
        assert_eq!(due_ids(db), [b1, free, a3], "a dead letter lets the next one go");
        assert!(remove(db, a3).unwrap() && !remove(db, a3).unwrap());
        assert_eq!(due_ids(db), [b1, free, a4]);
        assert!(retry(db, a2, 0).unwrap());
        assert_eq!(due_ids(db), [b1, free, a4], "one of the key at a time");
        assert!(settle(db, ("q", token), a4, &delivered(), 0).unwrap());
        assert_eq!(due_ids(db), [b1, a2, free]);
    }

    #[test]
    fn what_is_reported_under_a_lease_that_passed_on_is_refused() {
        let (home, open, token) = open();
        let db = &open.connection;
        let id = put(db, None);
        lease::release(db, "q", token).unwrap();
        let next = lease::take(db, home.path(), "q", "other").unwrap().unwrap().0.token;
        assert!(!settle(db, ("q", token), id, &delivered(), 0).unwrap());
        assert_eq!(get(db, id).unwrap().unwrap().0.state, State::Pending);
        assert!(settle(db, ("q", next), id, &delivered(), 0).unwrap());
        assert_eq!(get(db, id).unwrap().unwrap().0.state, State::Delivered);
        assert!(!retry(db, id, 0).unwrap(), "what was delivered is not delivered again");
    }

    #[test]
    fn a_call_that_was_put_off_before_the_clock_was_set_back_is_due() {
        let (_home, open, token) = open();
        let db = &open.connection;
        let id = put(db, None);
        settle(db, ("q", token), id, &later(5_000), 0).unwrap();
        assert_eq!(due_ids(db), [0_i64; 0]);
        assert_eq!(next_due(db, "q", 0).unwrap(), Some(5_000));
        assert_eq!(due(db, "q", 0, 4_000, 9).unwrap().len(), 1);
    }

    #[test]
    fn what_is_parked_costs_nothing_when_looking_for_what_is_due_or_may_be_forgotten() {
        let (_home, open, token) = open();
        let db = &open.connection;
        let steps = |parked: usize| {
            for _ in 0..parked {
                let id = put(db, None);
                settle(db, ("q", token), id, &later(5_000), 0).unwrap();
            }
            let statements = [select_due(DUE), select_due(PUT_OFF), TIDY.to_owned()];
            let status = |sql: &String| db.prepare_cached(sql).unwrap().reset_status(StatementStatus::VmStep);
            for sql in &statements {
                status(sql);
            }
            assert_eq!(due(db, "q", 10, 9_000, 9).unwrap().len(), 1);
            tidy(db, 9_000, 9_000).unwrap();
            statements.iter().map(status).sum::<i32>()
        };
        put(db, None);
        let few = steps(10);
        assert!(few > 0);
        assert_eq!(steps(1_000), few);
    }

    #[test]
    fn dropping_a_call_that_waits_for_its_key_lets_no_second_one_go() {
        let (_home, open, token) = open();
        let db = &open.connection;
        let [dead, under_way, waits] = [(); 3].map(|()| put(db, Some("a")));
        let gave_up = Settlement::Dead { status: None, error: "x".into() };
        assert!(settle(db, ("q", token), dead, &gave_up, 0).unwrap());
        assert!(retry(db, dead, 0).unwrap());
        assert_eq!(due_ids(db), [under_way]);
        assert!(remove(db, waits).unwrap());
        assert_eq!(due_ids(db), [under_way], "one of the key at a time");
        assert!(remove(db, under_way).unwrap());
        assert_eq!(due_ids(db), [dead]);
    }

    #[test]
    fn a_call_that_never_grows_too_old_can_be_retried() {
        let (_home, open, token) = open();
        let db = &open.connection;
        let id = put(db, None);
        db.execute("UPDATE item SET put_at = 5, expires_at = ?1", [i64::MAX]).unwrap();
        settle(db, ("q", token), id, &Settlement::Dead { status: None, error: "x".into() }, 0).unwrap();
        assert!(retry(db, id, 1_000).unwrap());
        assert_eq!(get(db, id).unwrap().unwrap().0.expires_at, i64::MAX);
    }
}
