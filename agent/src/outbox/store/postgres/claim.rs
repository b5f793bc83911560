//! Who delivers what. Each process that delivers is a worker with a lease by the server's clock, and its number is
//! the fencing token of the calls that it claims. Where its lease ends, its calls are let go; what it reports about
//! them then is refused.

use super::super::super::clock::Ahead;
use super::super::super::lease::{HOLDS, Lease, ends};
use super::super::super::wall;
use super::super::{Due, PATIENCE, Sealed, Unserved, Waits, Wanted};
use super::calls::{COLUMNS, NOW, item};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::time::Duration;

const NANOS: i64 = 1_000_000_000;

fn holds() -> i64 {
    i64::try_from(HOLDS.as_nanos()).unwrap_or(10 * NANOS)
}

/// Whether there is anything for who is no worker yet. As long as there is, everybody may be one.
pub(super) async fn waits(db: &mut PgConnection, queue: &str) -> sqlx::Result<Waits> {
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM farcall_outbox.item
                WHERE queue = $1 AND state = 0 AND NOT blocked AND token IS NULL)
            OR EXISTS (SELECT 1 FROM farcall_outbox.worker WHERE queue = $1 AND until <= {NOW})"
    );
    let pending = sqlx::query_scalar(&sql).bind(queue).fetch_one(db).await?;
    Ok(Waits { pending, held: false })
}

/// The queues of callbacks that have calls which are due for a while, and no worker.
pub(super) async fn unserved(db: &mut PgConnection) -> sqlx::Result<Vec<Unserved>> {
    let sql = format!(
        "SELECT queue, count(*) AS calls, min(put_at) - {NOW} AS age FROM farcall_outbox.item
        WHERE state = 0 AND strpos(queue, chr(31)) > 0
            AND NOT EXISTS (SELECT 1 FROM farcall_outbox.worker WHERE worker.queue = item.queue AND until > {NOW})
        GROUP BY queue HAVING min(next_at) FILTER (WHERE NOT blocked) <= {NOW} - $1 ORDER BY queue"
    );
    let late = i64::try_from(PATIENCE.as_nanos()).unwrap_or(NANOS);
    let read = |row: &PgRow| {
        Ok(Unserved {
            queue: row.try_get("queue")?,
            calls: row.try_get("calls").map(i64::unsigned_abs)?,
            oldest: wall().saturating_add(row.try_get("age")?),
        })
    };
    sqlx::query(&sql).bind(late).fetch_all(db).await?.iter().map(read).collect()
}

/// Under which keys calls are sealed that are due for a while, and that nobody has taken: other hosts may have other keys
/// than this one, and take theirs.
pub(super) async fn sealed(db: &mut PgConnection) -> sqlx::Result<Vec<Sealed>> {
    let sql = format!(
        "SELECT (array_agg(head))[1] AS head, sum(calls)::bigint AS calls FROM
            (SELECT key_id, substr(request, 1, 64) AS head,
                CASE WHEN order_key IS NULL THEN 1 ELSE (SELECT count(*) FROM farcall_outbox.item AS line
                    WHERE line.queue = item.queue AND line.order_key = item.order_key AND line.state = 0)
                END AS calls
            FROM farcall_outbox.item
            WHERE state = 0 AND NOT blocked AND token IS NULL AND next_at <= {NOW} - $1) AS waiting
        GROUP BY key_id"
    );
    let late = i64::try_from(PATIENCE.as_nanos()).unwrap_or(NANOS);
    let read = |row: &PgRow| Ok((row.try_get("head")?, row.try_get("calls").map(i64::unsigned_abs)?));
    sqlx::query(&sql).bind(late).fetch_all(db).await?.iter().map(read).collect()
}

/// Ends the leases that are over, and lets go what was claimed under them.
async fn sweep(db: &mut PgConnection) -> sqlx::Result<()> {
    let sql = format!(
        "DELETE FROM farcall_outbox.worker WHERE token IN (SELECT token FROM farcall_outbox.worker
            WHERE until <= {NOW} ORDER BY token FOR UPDATE SKIP LOCKED) RETURNING token"
    );
    let gone: Vec<i64> = sqlx::query_scalar(&sql).fetch_all(&mut *db).await?;
    if gone.is_empty() {
        return Ok(());
    }
    // A statement of its own, to see what they claimed until a moment ago.
    let sql = "UPDATE farcall_outbox.item SET token = NULL WHERE state = 0 AND token = ANY($1)";
    sqlx::query(sql).bind(gone).execute(db).await.map(|_| ())
}

/// Becomes a worker.
pub(super) async fn take(db: &mut PgConnection, queue: &str) -> sqlx::Result<Lease> {
    sweep(db).await?;
    // Read before the server's clock: the lease here never outlasts the one there.
    let until = ends();
    let sql = format!(
        "INSERT INTO farcall_outbox.worker (queue, holder, until) VALUES ($1, $2, {NOW} + $3) RETURNING token"
    );
    let holder =
        format!("{} (pid {})", rustix::system::uname().nodename().to_string_lossy(), std::process::id());
    let token = sqlx::query_scalar(&sql).bind(queue).bind(holder).bind(holds()).fetch_one(db).await?;
    Ok(Lease { token, until })
}

/// Renews a lease; `None` where it has ended.
pub(super) async fn renew(db: &mut PgConnection, token: i64) -> sqlx::Result<Option<Lease>> {
    let until = ends();
    let sql =
        format!("UPDATE farcall_outbox.worker SET until = {NOW} + $2 WHERE token = $1 AND until > {NOW}");
    let renewed = sqlx::query(&sql).bind(token).bind(holds()).execute(&mut *db).await?.rows_affected() == 1;
    sweep(db).await?;
    Ok(renewed.then_some(Lease { token, until }))
}

/// Is a worker no longer, and lets go what it claimed.
pub(super) async fn release(db: &mut PgConnection, token: i64) -> sqlx::Result<()> {
    let sql = "DELETE FROM farcall_outbox.worker WHERE token = $1";
    sqlx::query(sql).bind(token).execute(&mut *db).await?;
    let sql = "UPDATE farcall_outbox.item SET token = NULL WHERE state = 0 AND token = $1";
    sqlx::query(sql).bind(token).execute(db).await.map(|_| ())
}

/// Claims calls that are due and that this process can decrypt, or that have become too old. `None` where the lease
/// has ended.
pub(super) async fn due(db: &mut PgConnection, wanted: &Wanted) -> sqlx::Result<Option<Due>> {
    // Whoever ends the lease waits for this transaction, and then sees what it claimed.
    let sql = format!("SELECT token FROM farcall_outbox.worker WHERE token = $1 AND until > {NOW} FOR SHARE");
    if sqlx::query(&sql).bind(wanted.token).fetch_optional(&mut *db).await?.is_none() {
        return Ok(None);
    }
    // What was claimed by a transaction whose answer was lost, or given up without a word.
    let sql = "UPDATE farcall_outbox.item SET token = NULL
        WHERE state = 0 AND token = $1 AND NOT (id = ANY($2))";
    let under_way: Vec<i64> = wanted.under_way.iter().copied().collect();
    sqlx::query(sql).bind(wanted.token).bind(under_way).execute(&mut *db).await?;
    let mut due = Due { clock: Ahead::wall(), ..Due::default() };
    // As with the file: what waits for longer than anything does was put off before a clock was set back.
    for which in ["next_at <= clock.now", "next_at > clock.now + $5"] {
        let room = wanted.room.saturating_sub(due.calls.len());
        if room == 0 {
            break;
        }
        let sql = format!(
            "WITH clock AS MATERIALIZED (SELECT {NOW} AS now), due AS MATERIALIZED
                (SELECT id FROM farcall_outbox.item, clock
                WHERE queue = $1 AND state = 0 AND NOT blocked AND token IS NULL AND {which}
                    AND (key_id = ANY($2) OR expires_at <= clock.now)
                ORDER BY next_at, id LIMIT $3 FOR UPDATE OF item SKIP LOCKED),
            claimed AS (UPDATE farcall_outbox.item AS item SET token = $4 FROM due WHERE item.id = due.id
                RETURNING item.*)
            SELECT {COLUMNS}, request, clock.now AS now, $5 AS far FROM claimed, clock ORDER BY next_at, id"
        );
        let rows = sqlx::query(&sql)
            .bind(&wanted.queue)
            .bind(&wanted.keys)
            .bind(i64::try_from(room).unwrap_or(i64::MAX))
            .bind(wanted.token)
            .bind(2 * 86_400 * NANOS)
            .fetch_all(&mut *db)
            .await?;
        for row in rows {
            // Here, moments are by the clock of this host.
            let off = due.clock.now().saturating_sub(row.try_get("now")?);
            let mut item = item(&row)?;
            for moment in [&mut item.put_at, &mut item.next_at, &mut item.expires_at] {
                *moment = moment.saturating_add(off);
            }
            due.calls.push((item, row.try_get("request")?));
        }
    }
    let sql = format!(
        "SELECT min(next_at) - {NOW} FROM farcall_outbox.item
        WHERE queue = $1 AND state = 0 AND NOT blocked AND token IS NULL AND next_at > {NOW}"
    );
    let next: Option<i64> = sqlx::query_scalar(&sql).bind(&wanted.queue).fetch_one(db).await?;
    due.next = next.map(|nanos| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)));
    Ok(Some(due))
}
