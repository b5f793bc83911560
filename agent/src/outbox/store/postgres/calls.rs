//! What is asked of the tables. Moments are by the server's clock: hosts' clocks differ, and what one of them says is
//! moved by as much as it is off.
//!
//! Of the pending calls of one order key all but one are `blocked`, as in the file. Whoever adds to a line or takes
//! from it has the line's lock, so that nobody counts on a call that another is just settling.

use super::super::super::clock::{Ahead, rebased};
use super::super::super::metrics::{Standing, Standings};
use super::super::super::table::{Count, Filter, Item, New, Settlement, State, Whole};
use super::super::super::wall;
use super::super::moving::{NAMED, States};
use super::copy::new_of;
use super::job::Put;
use crate::outbox::{VendorCount, queue, seal};
use ring::digest::{SHA256, digest};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Postgres, QueryBuilder, Row};
use std::collections::HashMap;
use std::time::Duration;

/// The server's clock, in nanoseconds since the Unix epoch.
pub(super) const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000";
pub(super) const COLUMNS: &str =
    "id, queue, state, method, vendor, endpoint, host, customer, order_key, blocked,
    idempotency_key, attempts, put_at, next_at, expires_at, settled_at, status, error, bytes, max_attempts";

/// The lock of an order key's line.
pub(super) fn line(queue: &str, order_key: Option<&str>) -> Option<i32> {
    let key = order_key?;
    let length = u32::try_from(queue.len()).unwrap_or(0).to_be_bytes();
    let digest = digest(&SHA256, &[length.as_slice(), queue.as_bytes(), key.as_bytes()].concat());
    let (first, _) = digest.as_ref().split_first_chunk()?;
    // Negative numbers are other locks'.
    Some(i32::from_be_bytes(*first) & i32::MAX)
}

/// Locks these lines until the transaction ends, all in the same order as everybody does.
pub(super) async fn lock(db: &mut PgConnection, lines: impl Iterator<Item = i32>) -> sqlx::Result<()> {
    let mut lines: Vec<i32> = lines.collect();
    lines.sort_unstable();
    lines.dedup();
    if lines.is_empty() {
        return Ok(());
    }
    let sql = "SELECT pg_advisory_xact_lock(1717792632, line) FROM unnest($1::integer[]) AS line";
    sqlx::query(sql).bind(lines).execute(db).await.map(|_| ())
}

/// Adds calls in this order. One that was added before keeps its number.
pub(super) async fn add(db: &mut PgConnection, puts: &mut [&mut Put]) -> sqlx::Result<()> {
    if puts.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO farcall_outbox.item (uid, key_id, queue, order_key, blocked, put_at, next_at, expires_at,
            max_attempts, method, vendor, endpoint, host, customer, idempotency_key, bytes, request)
        SELECT uid, key_id, queue, order_key,
            order_key IS NOT NULL AND (row_number() OVER (PARTITION BY queue, order_key ORDER BY place) > 1
                OR EXISTS (SELECT 1 FROM farcall_outbox.item AS other WHERE other.queue = new.queue
                    AND other.order_key = new.order_key AND other.state = 0)),
            put_at + off, CASE WHEN next_at > {max} - abs(off) THEN {max} ELSE next_at + off END,
            CASE WHEN expires_at > {max} - abs(off) THEN {max} ELSE expires_at + off END,
            max_attempts, method, vendor, endpoint, host, customer, idempotency_key, bytes, request
        FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
            $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
            $15::bigint[], $16::bytea[]) WITH ORDINALITY
            AS new (uid, key_id, queue, order_key, put_at, next_at, expires_at, max_attempts, method, vendor,
                endpoint, host, customer, idempotency_key, bytes, request, place),
            (SELECT {NOW} - $17::bigint AS off) AS clock
        WHERE NOT EXISTS (SELECT 1 FROM farcall_outbox.item AS known WHERE known.uid = new.uid)
        ORDER BY place ON CONFLICT (uid) DO NOTHING RETURNING uid, id",
        max = i64::MAX,
    );
    let news = || puts.iter().map(|put| &*put.new);
    let uids: Vec<&[u8]> = news().map(|new| seal::name_of(&new.request)).collect();
    let texts = |field: fn(&New) -> &str| news().map(|new| field(new).to_owned()).collect::<Vec<String>>();
    let numbers = |field: fn(&New) -> i64| news().map(field).collect::<Vec<i64>>();
    let wall = Ahead::wall();
    let moments =
        |field: fn(&New) -> i64| news().map(|new| new.clock.moved(field(new), wall)).collect::<Vec<i64>>();
    let rows = sqlx::query(&sql)
        .bind(&uids)
        .bind(news().map(|new| seal::key_of(&new.request)).collect::<Vec<&[u8]>>())
        .bind(texts(|new| &new.queue))
        .bind(news().map(|new| new.order_key.clone()).collect::<Vec<Option<String>>>())
        .bind(moments(|new| new.put_at))
        .bind(moments(|new| new.next_at))
        .bind(moments(|new| new.expires_at))
        .bind(news().map(|new| new.max_attempts.map(i64::from)).collect::<Vec<Option<i64>>>())
        .bind(texts(|new| &new.method))
        .bind(texts(|new| &new.vendor))
        .bind(texts(|new| &new.endpoint))
        .bind(texts(|new| &new.host))
        .bind(news().map(|new| new.customer.clone()).collect::<Vec<Option<String>>>())
        .bind(texts(|new| &new.idempotency_key))
        .bind(numbers(|new| i64::try_from(new.bytes).unwrap_or(i64::MAX)))
        .bind(news().map(|new| new.request.as_slice()).collect::<Vec<&[u8]>>())
        .bind(wall.now())
        .fetch_all(&mut *db)
        .await?;
    let mut ids = Vec::with_capacity(puts.len());
    for row in rows {
        ids.push((row.try_get::<Vec<u8>, _>("uid")?, row.try_get::<i64, _>("id")?));
    }
    if ids.len() < puts.len() {
        let sql = "SELECT uid, id FROM farcall_outbox.item WHERE uid = ANY($1)";
        for row in sqlx::query(sql).bind(&uids).fetch_all(db).await? {
            ids.push((row.try_get("uid")?, row.try_get("id")?));
        }
    }
    let ids: HashMap<Vec<u8>, i64> = ids.into_iter().collect();
    for put in puts {
        put.id = ids.get(seal::name_of(&put.new.request)).copied();
    }
    Ok(())
}

/// Writes how an attempt came out, if the call is still claimed by the token under which it was made. Whether it is.
pub(super) async fn settle(
    db: &mut PgConnection,
    token: i64,
    item: &Item,
    settlement: &Settlement,
) -> sqlx::Result<bool> {
    let wall = wall();
    let (state, counts, at, status, error, response) = match settlement {
        Settlement::Delivered { status, response } => {
            (1_i64, true, None, Some(*status), None, Some(response))
        }
        Settlement::Later { at, now, counts, status, error } => {
            (0, *counts, Some(rebased(*at, *now, wall)), *status, Some(error), None)
        }
        Settlement::Dead { counts, status, error } => (2, *counts, None, *status, Some(error), None),
    };
    let sql = format!(
        "UPDATE farcall_outbox.item SET state = $2, attempts = attempts + $3,
            next_at = coalesce($4 - $5 + {NOW}, next_at), status = $6, error = $7, response = $8,
            settled_at = CASE $2 WHEN 0 THEN NULL ELSE {NOW} END, token = NULL
        WHERE id = $1 AND state = 0 AND token = $9"
    );
    let done = sqlx::query(&sql)
        .bind(item.id)
        .bind(state)
        .bind(i64::from(counts))
        .bind::<Option<i64>>(at)
        .bind(wall)
        .bind(status.map(i64::from))
        // What no text there may hold.
        .bind(error.map(|error| error.replace('\0', " ")))
        .bind(response)
        .bind(token)
        .execute(&mut *db)
        .await?
        .rows_affected()
        == 1;
    if done
        && state != 0
        && let Some(key) = &item.order_key
    {
        unblock(db, &item.queue(), key).await?;
    }
    Ok(done)
}

/// Lets the oldest pending call of a key go.
async fn unblock(db: &mut PgConnection, queue: &str, key: &str) -> sqlx::Result<()> {
    let sql = "UPDATE farcall_outbox.item SET blocked = FALSE WHERE id = (SELECT id FROM farcall_outbox.item
        WHERE queue = $1 AND order_key = $2 AND state = 0 ORDER BY id LIMIT 1)";
    sqlx::query(sql).bind(queue).bind(key).execute(db).await.map(|_| ())
}

/// Locks the lines of these calls.
async fn lock_lines_of(db: &mut PgConnection, ids: &[i64]) -> sqlx::Result<()> {
    let sql = "SELECT DISTINCT queue, order_key FROM farcall_outbox.item
        WHERE id = ANY($1) AND order_key IS NOT NULL";
    let rows = sqlx::query(sql).bind(ids).fetch_all(&mut *db).await?;
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        lines.extend(line(row.try_get("queue")?, Some(row.try_get("order_key")?)));
    }
    lock(db, lines.into_iter()).await
}

/// Delivers calls anew; how many there were that are not delivered.
pub(super) async fn retry(db: &mut PgConnection, ids: &[i64]) -> sqlx::Result<usize> {
    lock_lines_of(db, ids).await?;
    let sql = format!(
        "UPDATE farcall_outbox.item AS item SET state = 0, attempts = 0, next_at = clock.now,
            expires_at = CASE WHEN expires_at - put_at > {max} - clock.now THEN {max}
                ELSE clock.now + (expires_at - put_at) END,
            settled_at = NULL, blocked = (order_key IS NOT NULL AND EXISTS
                (SELECT 1 FROM farcall_outbox.item AS other WHERE other.queue = item.queue
                AND other.order_key = item.order_key AND other.state = 0 AND other.id <> item.id
                AND NOT other.blocked))
        FROM (SELECT {NOW} AS now) AS clock WHERE id = $1 AND state <> 1",
        max = i64::MAX,
    );
    let mut many = 0;
    // One by one: of two dead letters of one key the second must see that the first one goes.
    for id in ids {
        many += usize::from(sqlx::query(&sql).bind(id).execute(&mut *db).await?.rows_affected() == 1);
    }
    Ok(many)
}

/// Forgets calls; how many there were.
pub(super) async fn remove(db: &mut PgConnection, ids: &[i64]) -> sqlx::Result<usize> {
    lock_lines_of(db, ids).await?;
    let sql = "DELETE FROM farcall_outbox.item WHERE id = $1
        RETURNING queue, order_key, state = 0 AND NOT blocked AS first";
    let mut many = 0;
    for id in ids {
        let Some(row) = sqlx::query(sql).bind(id).fetch_optional(&mut *db).await? else { continue };
        many += 1;
        let key: Option<String> = row.try_get("order_key")?;
        // Where it was not the one to go next, that one still is: a second one beside it would overtake it.
        if let Some(key) = key
            && row.try_get("first")?
        {
            unblock(db, row.try_get("queue")?, &key).await?;
        }
    }
    Ok(many)
}

pub(super) async fn get(db: &mut PgConnection, id: i64) -> sqlx::Result<Option<Whole>> {
    let sql = format!("SELECT {COLUMNS}, request, response FROM farcall_outbox.item WHERE id = $1");
    match sqlx::query(&sql).bind(id).fetch_optional(db).await? {
        Some(row) => Ok(Some((item(&row)?, row.try_get("request")?, row.try_get("response")?))),
        None => Ok(None),
    }
}

pub(super) async fn list(db: &mut PgConnection, filter: &Filter) -> sqlx::Result<Vec<Item>> {
    let mut sql: QueryBuilder<'_, Postgres> =
        QueryBuilder::new(format!("SELECT {COLUMNS} FROM farcall_outbox.item WHERE TRUE"));
    if let Some(state) = filter.state {
        sql.push(" AND state = ").push_bind(state.number());
    }
    if let Some(service) = &filter.service {
        sql.push(" AND (queue = ").push_bind(service);
        sql.push(" OR starts_with(queue, ").push_bind(service).push(" || chr(31)))");
    }
    if let Some(vendor) = &filter.vendor {
        sql.push(" AND vendor = ").push_bind(vendor);
    }
    sql.push(" ORDER BY id");
    if filter.limit > 0 {
        sql.push(" LIMIT ").push_bind(i64::try_from(filter.limit).unwrap_or(i64::MAX));
    }
    sql.build().fetch_all(db).await?.iter().map(item).collect()
}

pub(super) async fn counts(db: &mut PgConnection) -> sqlx::Result<Vec<Count>> {
    let sql = "SELECT queue, state, count(*) AS calls, coalesce(sum(bytes), 0)::bigint AS bytes, min(put_at) AS oldest
        FROM farcall_outbox.item GROUP BY queue, state ORDER BY queue COLLATE \"C\", state";
    let read = |row: &PgRow| -> sqlx::Result<Count> {
        Ok(Count {
            service: row.try_get("queue")?,
            state: State::of(row.try_get("state")?),
            calls: unsigned(row.try_get("calls")?),
            bytes: unsigned(row.try_get("bytes")?),
            oldest: row.try_get("oldest")?,
        })
    };
    let mut counts = Vec::new();
    // Services alone come before their other queues.
    for row in sqlx::query(sql).fetch_all(db).await? {
        read(&row)?.add_to(&mut counts);
    }
    Ok(counts)
}

/// How many there are by service, vendor and endpoint, in no order.
pub(super) async fn vendors(db: &mut PgConnection) -> sqlx::Result<Vec<VendorCount>> {
    let sql = "SELECT queue, vendor, endpoint, count(*) FILTER (WHERE state = 0) AS pending,
            min(put_at) FILTER (WHERE state = 0) AS oldest, count(*) FILTER (WHERE state = 1) AS delivered,
            count(*) FILTER (WHERE state = 2) AS dead, coalesce(sum(attempts), 0)::bigint AS attempts
        FROM farcall_outbox.item GROUP BY queue, vendor, endpoint ORDER BY queue COLLATE \"C\"";
    let read = |row: &PgRow| -> sqlx::Result<VendorCount> {
        Ok(VendorCount {
            service: row.try_get("queue")?,
            vendor: row.try_get("vendor")?,
            endpoint: row.try_get("endpoint")?,
            pending: unsigned(row.try_get("pending")?),
            oldest: row.try_get("oldest")?,
            delivered: unsigned(row.try_get("delivered")?),
            dead: unsigned(row.try_get("dead")?),
            attempts: unsigned(row.try_get("attempts")?),
        })
    };
    let mut counts = Vec::new();
    for row in sqlx::query(sql).fetch_all(db).await? {
        read(&row)?.add_to(&mut counts);
    }
    Ok(counts)
}

/// What of a service is not delivered, by vendor; each part by the index that has it, so that what was delivered costs
/// nothing.
pub(super) async fn standings(db: &mut PgConnection, service: &str) -> sqlx::Result<Standings> {
    let sql = "SELECT vendor, count(*) FILTER (WHERE state = 0) AS pending, min(put_at) FILTER (WHERE state = 0) AS oldest,
            count(*) FILTER (WHERE state = 2) AS dead
        FROM (SELECT vendor, state, put_at FROM farcall_outbox.item
                WHERE (queue = $1 OR starts_with(queue, $1 || chr(31))) AND state = 0 AND NOT blocked AND token IS NULL
            UNION ALL SELECT vendor, state, put_at FROM farcall_outbox.item
                WHERE (queue = $1 OR starts_with(queue, $1 || chr(31))) AND state = 0 AND NOT blocked AND token IS NOT NULL
            UNION ALL SELECT vendor, state, put_at FROM farcall_outbox.item
                WHERE (queue = $1 OR starts_with(queue, $1 || chr(31))) AND state = 0 AND blocked AND order_key IS NOT NULL
            UNION ALL SELECT vendor, state, put_at FROM farcall_outbox.item
                WHERE (queue = $1 OR starts_with(queue, $1 || chr(31))) AND state = 2 AND state <> 0) AS call
        GROUP BY vendor";
    let mut standings = Standings::default();
    for row in sqlx::query(sql).bind(service).fetch_all(db).await? {
        let number = |name| row.try_get(name).map(unsigned);
        let one =
            Standing { pending: number("pending")?, dead: number("dead")?, since: row.try_get("oldest")? };
        standings.add(row.try_get("vendor")?, one);
    }
    Ok(standings)
}

/// Forgets what was delivered, or given up, so long ago; some at a time. Whether there may be more.
pub(super) async fn tidy(db: &mut PgConnection, delivered: Duration, dead: Duration) -> sqlx::Result<bool> {
    let sql = format!(
        "DELETE FROM farcall_outbox.item WHERE id IN (SELECT id FROM farcall_outbox.item
            WHERE state = $1 AND state <> 0 AND settled_at < {NOW} - $2
            ORDER BY settled_at LIMIT 1000 FOR UPDATE SKIP LOCKED)"
    );
    let mut more = false;
    for (state, age) in [(1_i64, delivered), (2, dead)] {
        let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        more |= sqlx::query(&sql).bind(state).bind(age).execute(&mut *db).await?.rows_affected() == 1_000;
    }
    Ok(more)
}

/// How the calls with these names stand that are there.
pub(super) async fn states(db: &mut PgConnection, names: &[Vec<u8>]) -> sqlx::Result<States> {
    let sql = "SELECT uid, state FROM farcall_outbox.item WHERE uid = ANY($1)";
    let rows = sqlx::query(sql).bind(names).fetch_all(db).await?;
    rows.iter().map(|row| Ok((row.try_get("uid")?, State::of(row.try_get("state")?)))).collect()
}

/// The pending calls with these names, as they were put, by the clock of this host.
pub(super) async fn named(db: &mut PgConnection, names: &[Vec<u8>]) -> sqlx::Result<Vec<New>> {
    let sql = format!(
        "SELECT *, {NOW} AS now FROM (SELECT *, sum(octet_length(request)) OVER (ORDER BY id)
                - octet_length(request) AS before FROM farcall_outbox.item WHERE uid = ANY($1) AND state = 0) AS found
            WHERE before <= {NAMED} ORDER BY id"
    );
    let rows = sqlx::query(&sql).bind(names).fetch_all(db).await?;
    let clock = Ahead::wall();
    let read = |row: &PgRow| {
        let off = clock.now().saturating_sub(row.try_get("now")?);
        let mut new = new_of(row, clock)?;
        for moment in [&mut new.put_at, &mut new.next_at, &mut new.expires_at] {
            *moment = moment.saturating_add(off);
        }
        Ok(new)
    };
    rows.iter().map(read).collect()
}

/// What tells these tables from all others.
pub(super) async fn identity(db: &mut PgConnection) -> sqlx::Result<String> {
    sqlx::query_scalar("SELECT id FROM farcall_outbox.identity").fetch_one(db).await
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn item(row: &PgRow) -> sqlx::Result<Item> {
    let small = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let status: Option<i64> = row.try_get("status")?;
    let most: Option<i64> = row.try_get("max_attempts")?;
    let (service, credential) = queue::parts(row.try_get("queue")?);
    Ok(Item {
        id: row.try_get("id")?,
        service: service.to_owned(),
        credential: credential.map(str::to_owned),
        state: State::of(row.try_get("state")?),
        method: row.try_get("method")?,
        vendor: row.try_get("vendor")?,
        endpoint: row.try_get("endpoint")?,
        host: row.try_get("host")?,
        customer: row.try_get("customer")?,
        order_key: row.try_get("order_key")?,
        blocked: row.try_get("blocked")?,
        idempotency_key: row.try_get("idempotency_key")?,
        attempts: small(row.try_get("attempts")?),
        put_at: row.try_get("put_at")?,
        next_at: row.try_get("next_at")?,
        expires_at: row.try_get("expires_at")?,
        settled_at: row.try_get("settled_at")?,
        status: status.and_then(|status| u16::try_from(status).ok()),
        error: row.try_get("error")?,
        bytes: unsigned(row.try_get("bytes")?),
        max_attempts: most.map(small),
    })
}
