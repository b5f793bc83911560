//! Copies of the calls of other stores, in a schema of its own: each call beside the identity of the store that it
//! is in. Moments are by the server's clock: hosts' clocks differ, and may be set while a call is here. Nobody delivers
//! from here.

use super::super::super::clock::Ahead;
use super::super::super::pending::Pending;
use super::super::super::seal;
use super::super::super::table::{New, State};
use super::super::super::{OutboxError, Receipt};
use super::super::copy::{Belonging, CopyStore, Owner};
use super::super::moving::{Copied, NAMED};
use super::clock::ServerClock;
use super::job::Put;
use super::schema::Tables;
use super::server;
use super::thread::Thread;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Tables of one database. Many stores may have their copies there.
#[derive(Debug)]
pub(in super::super) struct PostgresCopy {
    thread: Thread,
    /// The store whose calls are added.
    owner: RwLock<Option<Arc<str>>>,
}

impl PostgresCopy {
    pub(in super::super) fn new(url: &str, timeout: Duration) -> Result<Self, OutboxError> {
        let server = server(url, timeout, Tables::Copy)?;
        Ok(Self { thread: Thread::new(server, Arc::default()), owner: RwLock::default() })
    }

    fn owner(&self) -> Option<Arc<str>> {
        self.owner.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_of(&self, store: &str) {
        *self.owner.write().unwrap_or_else(PoisonError::into_inner) = Some(store.into());
    }
}

/// An error where what is copied could be read by nobody once the home directory is lost.
fn has_key() -> Result<(), OutboxError> {
    if seal::has_common_key() {
        return Ok(());
    }
    Err(OutboxError::Settings(format!(
        "a copy in PostgreSQL needs a key in ${}: outbox.key would be lost with the home directory, and is \
         not kept beside what it encrypts in a database; `openssl rand -hex 32` makes one",
        seal::VARIABLE
    )))
}

impl CopyStore for PostgresCopy {
    fn name(&self) -> String {
        self.thread.name().to_owned()
    }

    fn add(&self, new: &Arc<New>) -> Pending<Receipt> {
        let Some(owner) = self.owner() else {
            let what = "whose copy it is cannot be told before the outbox itself and it were reached";
            return Pending::ready(Err(OutboxError::unavailable(self.name().as_ref(), what)));
        };
        if let Err(error) = has_key() {
            return Pending::ready(Err(error));
        }
        self.thread.put(Arc::clone(new), Some(owner))
    }

    fn belong(&self, store: &str, home: &Path) -> Pending<Belonging> {
        // It is known from now on, also where the server cannot be reached to write it down.
        self.is_of(store);
        let store = store.to_owned();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let home = home.display().to_string();
        self.thread.ask(async move |db| belong(db, &store, &host, &home).await)
    }

    fn assume(&self, store: &str, home: &Path) {
        drop(self.belong(store, home));
    }

    fn adopt(&self, lost: &str, store: &str) -> Pending<()> {
        let (lost, store) = (lost.to_owned(), store.to_owned());
        self.thread.ask(async move |db| adopt(db, &lost, &store).await)
    }

    fn copied(&self, after: i64, many: i64) -> Pending<Vec<Copied>> {
        let owner = self.owner().map(|owner| owner.to_string()).unwrap_or_default();
        let clock = self.thread.clock();
        self.thread.ask(async move |db| copied(db, &clock, &owner, after, many).await)
    }

    fn mark(&self, changes: Vec<(i64, Option<State>)>) -> Pending<()> {
        self.thread.ask(async move |db| mark(db, &changes).await)
    }

    fn heard(&self, store: &str) -> Pending<i64> {
        let store = store.to_owned();
        self.thread.ask(async move |db| {
            let sql = "SELECT coalesce(max(reached), 0) FROM farcall_outbox_copy.owner WHERE store = $1";
            sqlx::query_scalar(sql).bind(&store).fetch_one(db).await
        })
    }

    fn hear(&self, store: &str, reached: i64) -> Pending<()> {
        let store = store.to_owned();
        self.thread.ask(async move |db| {
            let sql = "UPDATE farcall_outbox_copy.owner SET reached = $2 WHERE store = $1 AND reached < $2";
            sqlx::query(sql).bind(&store).bind(reached).execute(db).await.map(|_| ())
        })
    }

    fn there(&self) -> Result<(), OutboxError> {
        Ok(())
    }

    fn can_be_written(&self) -> Pending<()> {
        match has_key() {
            Ok(()) => self.thread.ask(async |_| Ok(())),
            Err(error) => Pending::ready(Err(error.as_seen_from_here())),
        }
    }

    fn owners(&self) -> Pending<Vec<Owner>> {
        self.thread.ask(owners)
    }

    fn last(&self) -> Pending<i64> {
        self.thread.ask(async |db| {
            let sql = "SELECT coalesce(max(id), 0) FROM farcall_outbox_copy.item";
            sqlx::query_scalar(sql).fetch_one(db).await
        })
    }

    fn in_order(&self, owner: &str, state: State) -> Pending<Vec<i64>> {
        let owner = owner.to_owned();
        self.thread.ask(async move |db| {
            let sql = "SELECT id FROM farcall_outbox_copy.item WHERE store = $1 AND state = $2
                ORDER BY put_at, id";
            sqlx::query_scalar(sql).bind(&owner).bind(state.number()).fetch_all(db).await
        })
    }

    fn these(&self, ids: &[i64]) -> Pending<Vec<(i64, New)>> {
        let (ids, clock) = (ids.to_vec(), self.thread.clock());
        self.thread.ask(async move |db| these(db, &clock, &ids).await)
    }

    /// One that was added before stays as it is.
    fn add_missing(&self, news: &[Arc<New>]) -> Vec<Result<(), OutboxError>> {
        let asked: Vec<_> = news.iter().map(|new| self.add(new)).collect();
        asked.into_iter().map(|pending| pending.wait().map(drop)).collect()
    }

    fn pause(&self) {
        self.thread.pause();
    }

    /// A child has a connection of its own.
    fn is_open(&self) -> bool {
        false
    }

    /// The server itself stops where its disk fails.
    fn resume(&self) -> Result<(), OutboxError> {
        Ok(())
    }
}

/// Adds calls in this order. One that was there before gets the number 0, which is no call's: whoever takes back what he
/// added must not take away what was there.
pub(super) async fn add(
    db: &mut PgConnection,
    clock: &ServerClock,
    puts: &mut [&mut Put],
) -> sqlx::Result<()> {
    let clock = clock.ask(db).await?;
    let sql = "INSERT INTO farcall_outbox_copy.item (store, uid, queue, order_key, put_at, next_at, expires_at,
            max_attempts, method, vendor, endpoint, host, customer, idempotency_key, bytes, request)
        SELECT store, uid, queue, order_key, put_at, next_at, expires_at, max_attempts, method, vendor, endpoint,
            host, customer, idempotency_key, bytes, request
        FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
            $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
            $15::bigint[], $16::bytea[]) WITH ORDINALITY
            AS new (store, uid, queue, order_key, put_at, next_at, expires_at, max_attempts, method, vendor,
                endpoint, host, customer, idempotency_key, bytes, request, place)
        ORDER BY place ON CONFLICT (store, uid) DO NOTHING RETURNING uid, id";
    let news = || puts.iter().map(|put| &*put.new);
    let texts = |field: fn(&New) -> &str| news().map(|new| field(new).to_owned()).collect::<Vec<String>>();
    let moments =
        |field: fn(&New) -> i64| news().map(|new| new.clock.exactly(field(new), clock)).collect::<Vec<i64>>();
    let owners = puts.iter().map(|put| put.owner.as_deref().unwrap_or_default().to_owned());
    let rows = sqlx::query(sql)
        .bind(owners.collect::<Vec<String>>())
        .bind(news().map(|new| seal::name_of(&new.request)).collect::<Vec<&[u8]>>())
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
        .bind(news().map(|new| i64::try_from(new.bytes).unwrap_or(i64::MAX)).collect::<Vec<i64>>())
        .bind(news().map(|new| new.request.as_slice()).collect::<Vec<&[u8]>>())
        .fetch_all(db)
        .await?;
    let mut ids: HashMap<Vec<u8>, i64> = HashMap::with_capacity(rows.len());
    for row in rows {
        ids.insert(row.try_get("uid")?, row.try_get("id")?);
    }
    for put in puts {
        put.id = ids.get(seal::name_of(&put.new.request)).copied().or(Some(0));
    }
    Ok(())
}

async fn belong(db: &mut PgConnection, store: &str, host: &str, home: &str) -> sqlx::Result<Belonging> {
    let sql = "INSERT INTO farcall_outbox_copy.owner (store, host, home) VALUES ($1, $2, $3)
        ON CONFLICT (store) DO NOTHING";
    sqlx::query(sql).bind(store).bind(host).bind(home).execute(&mut *db).await?;
    let sql = "SELECT store FROM farcall_outbox_copy.owner AS other
        WHERE store <> $1 AND host = $2 AND home = $3 AND EXISTS
            (SELECT 1 FROM farcall_outbox_copy.item WHERE item.store = other.store AND state = 0)
        ORDER BY since DESC LIMIT 1";
    let other = sqlx::query_scalar(sql).bind(store).bind(host).bind(home).fetch_optional(db).await?;
    Ok(other.map_or(Belonging::Ours, Belonging::OursAfter))
}

async fn adopt(db: &mut PgConnection, lost: &str, store: &str) -> sqlx::Result<()> {
    if lost == store {
        return Ok(());
    }
    // What was put back is there under this store already.
    let sql = "DELETE FROM farcall_outbox_copy.item AS old WHERE store = $1 AND EXISTS
        (SELECT 1 FROM farcall_outbox_copy.item AS new WHERE new.store = $2 AND new.uid = old.uid)";
    sqlx::query(sql).bind(lost).bind(store).execute(&mut *db).await?;
    let sql = "UPDATE farcall_outbox_copy.item SET store = $2 WHERE store = $1";
    sqlx::query(sql).bind(lost).bind(store).execute(&mut *db).await?;
    sqlx::query("DELETE FROM farcall_outbox_copy.owner WHERE store = $1")
        .bind(lost)
        .execute(db)
        .await
        .map(|_| ())
}

/// When they were put by the clock on the wall here.
async fn copied(
    db: &mut PgConnection,
    clock: &ServerClock,
    owner: &str,
    after: i64,
    many: i64,
) -> sqlx::Result<Vec<Copied>> {
    let (clock, wall) = (clock.ask(db).await?, Ahead::wall());
    let sql = "SELECT id, uid, state, put_at FROM farcall_outbox_copy.item
        WHERE store = $1 AND id > $2 ORDER BY id LIMIT $3";
    let read = |row: &PgRow| {
        Ok(Copied {
            id: row.try_get("id")?,
            name: row.try_get("uid")?,
            state: State::of(row.try_get("state")?),
            put_at: clock.exactly(row.try_get("put_at")?, wall),
        })
    };
    sqlx::query(sql).bind(owner).bind(after).bind(many).fetch_all(db).await?.iter().map(read).collect()
}

async fn mark(db: &mut PgConnection, changes: &[(i64, Option<State>)]) -> sqlx::Result<()> {
    let gone: Vec<i64> = changes.iter().filter(|(_, state)| state.is_none()).map(|(id, _)| *id).collect();
    let sql = "DELETE FROM farcall_outbox_copy.item WHERE id = ANY($1)";
    sqlx::query(sql).bind(gone).execute(&mut *db).await?;
    let (ids, states): (Vec<i64>, Vec<i64>) =
        changes.iter().filter_map(|(id, state)| state.map(|state| (*id, state.number()))).unzip();
    let sql = "UPDATE farcall_outbox_copy.item SET state = new.state
        FROM unnest($1::bigint[], $2::bigint[]) AS new (id, state) WHERE item.id = new.id";
    sqlx::query(sql).bind(ids).bind(states).execute(db).await.map(|_| ())
}

async fn owners(db: &mut PgConnection) -> sqlx::Result<Vec<Owner>> {
    let sql = "SELECT item.store, min(home || ' on ' || owner.host) AS place,
            count(*) FILTER (WHERE state = 0) AS pending, count(*) FILTER (WHERE state = 2) AS dead
        FROM farcall_outbox_copy.item LEFT JOIN farcall_outbox_copy.owner USING (store)
        GROUP BY item.store ORDER BY min(since), item.store";
    let read = |row: &PgRow| {
        let many = |number: i64| u64::try_from(number).unwrap_or(0);
        let place: Option<String> = row.try_get("place")?;
        Ok(Owner {
            store: row.try_get("store")?,
            place: place.unwrap_or_default(),
            pending: many(row.try_get("pending")?),
            dead: many(row.try_get("dead")?),
        })
    };
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

async fn these(db: &mut PgConnection, clock: &ServerClock, ids: &[i64]) -> sqlx::Result<Vec<(i64, New)>> {
    let clock = clock.ask(db).await?;
    let sql = format!(
        "SELECT * FROM (SELECT item.*, place, sum(octet_length(request)) OVER (ORDER BY place)
                - octet_length(request) AS before
            FROM farcall_outbox_copy.item AS item
                JOIN unnest($1::bigint[]) WITH ORDINALITY AS wanted (id, place) USING (id)) AS found
            WHERE before <= {NAMED} ORDER BY place"
    );
    let rows = sqlx::query(&sql).bind(ids).fetch_all(db).await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, new_of(row, clock)?))).collect()
}

/// A call as it was put. `clock`: by which its moments are.
pub(super) fn new_of(row: &PgRow, clock: Ahead) -> sqlx::Result<New> {
    let (bytes, most): (i64, Option<i64>) = (row.try_get("bytes")?, row.try_get("max_attempts")?);
    Ok(New {
        clock,
        queue: row.try_get("queue")?,
        order_key: row.try_get("order_key")?,
        put_at: row.try_get("put_at")?,
        next_at: row.try_get("next_at")?,
        expires_at: row.try_get("expires_at")?,
        max_attempts: most.map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
        method: row.try_get("method")?,
        vendor: row.try_get("vendor")?,
        endpoint: row.try_get("endpoint")?,
        host: row.try_get("host")?,
        customer: row.try_get("customer")?,
        idempotency_key: row.try_get("idempotency_key")?,
        bytes: usize::try_from(bytes).unwrap_or(0),
        request: row.try_get("request")?,
    })
}
