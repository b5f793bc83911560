//! The tables, made and migrated by whoever comes first, and what the server must promise before it is used.

use super::super::super::OutboxError;
use crate::say;
use sqlx::{PgConnection, Row};
use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

/// What is kept in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tables {
    /// A store, from which calls are delivered.
    Store,
    /// Copies of calls that other stores have. Nobody delivers from there.
    Copy,
}

impl Tables {
    const fn schema(self) -> &'static str {
        match self {
            Self::Store => "farcall_outbox",
            Self::Copy => "farcall_outbox_copy",
        }
    }

    /// Each entry makes the version with its number, from 1, out of the one before.
    const fn steps(self) -> &'static [&'static str] {
        match self {
            Self::Store => STORE,
            Self::Copy => COPY,
        }
    }
}

const STORE: &[&str] = &["
CREATE TABLE farcall_outbox.item (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uid bytea NOT NULL UNIQUE,
    key_id bytea NOT NULL,
    queue text NOT NULL,
    order_key text,
    state bigint NOT NULL DEFAULT 0,
    blocked boolean NOT NULL,
    put_at bigint NOT NULL,
    next_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    attempts bigint NOT NULL DEFAULT 0,
    max_attempts bigint,
    method text NOT NULL,
    vendor text NOT NULL,
    endpoint text NOT NULL,
    host text NOT NULL,
    customer text,
    idempotency_key text NOT NULL,
    bytes bigint NOT NULL,
    settled_at bigint,
    status bigint,
    error text,
    token bigint,
    request bytea NOT NULL,
    response bytea
);
CREATE INDEX item_due ON farcall_outbox.item (queue, next_at) WHERE state = 0 AND NOT blocked AND token IS NULL;
CREATE INDEX item_line ON farcall_outbox.item (queue, order_key, id) WHERE state = 0 AND order_key IS NOT NULL;
CREATE INDEX item_settled ON farcall_outbox.item (state, settled_at) WHERE state <> 0;
CREATE INDEX item_claimed ON farcall_outbox.item (token) WHERE state = 0 AND token IS NOT NULL;
CREATE TABLE farcall_outbox.worker (
    token bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL,
    holder text NOT NULL,
    until bigint NOT NULL
);
", "
CREATE TABLE farcall_outbox.identity (id text NOT NULL);
INSERT INTO farcall_outbox.identity VALUES (replace(gen_random_uuid()::text, '-', ''));
"];

const COPY: &[&str] = &[
    "
CREATE TABLE farcall_outbox_copy.owner (
    store text PRIMARY KEY,
    host text NOT NULL,
    home text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE farcall_outbox_copy.item (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    store text NOT NULL,
    uid bytea NOT NULL,
    queue text NOT NULL,
    order_key text,
    state bigint NOT NULL DEFAULT 0,
    put_at bigint NOT NULL,
    next_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    max_attempts bigint,
    method text NOT NULL,
    vendor text NOT NULL,
    endpoint text NOT NULL,
    host text NOT NULL,
    customer text,
    idempotency_key text NOT NULL,
    bytes bigint NOT NULL,
    request bytea NOT NULL,
    UNIQUE (store, uid)
);
CREATE INDEX item_order ON farcall_outbox_copy.item (store, id);
",
    "
ALTER TABLE farcall_outbox_copy.owner ADD COLUMN reached bigint NOT NULL DEFAULT 0;
",
];

/// Whatever the database's own default is: each statement sees what was committed before it.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
/// One process at a time makes the tables.
const MAKING: &str = "SELECT pg_advisory_xact_lock(1717792632, -1)";

/// What is asked of each new connection: that it syncs, that nothing hangs forever, that it may write.
///
/// # Errors
/// Where the server does not sync, is a standby, or has tables of a later version.
pub(super) async fn prepare(
    db: &mut PgConnection,
    name: &str,
    timeout: Duration,
    tables: Tables,
) -> sqlx::Result<Result<(), OutboxError>> {
    let wrong = |what: String| Ok(Err(OutboxError::unavailable(name.as_ref(), what)));
    let sql = "SELECT current_setting('fsync'), current_setting('synchronous_commit'),
        current_setting('full_page_writes'), pg_is_in_recovery()";
    let row = sqlx::query(sql).fetch_one(&mut *db).await?;
    let [fsync, commit, pages]: [String; 3] = [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
    if row.try_get(3)? {
        return wrong("it is a standby, which takes no calls; name the primary".into());
    }
    if fsync != "on" {
        return wrong(format!(
            "its fsync is {fsync}: what it acknowledges would be lost when its machine fails; set fsync = on there"
        ));
    }
    if pages != "on" {
        say_once(format!(
            "the outbox {name} has full_page_writes = {pages}: its machine's failure may damage it, unless its file system writes pages whole"
        ));
    }
    // Whoever hangs in the midst of a transaction must not keep others from the keys that it has locked.
    let limit = timeout.as_millis().clamp(1, 2_147_483_647);
    let sql = format!(
        "SET statement_timeout = {limit}; SET lock_timeout = {limit};
        SET idle_in_transaction_session_timeout = {limit}; SET search_path = pg_catalog"
    );
    sqlx::raw_sql(&sql).execute(&mut *db).await?;
    if commit == "off" {
        sqlx::raw_sql("SET synchronous_commit = on").execute(&mut *db).await?;
    }
    let sql = "SELECT current_setting('synchronous_commit')";
    let commit: String = sqlx::query_scalar(sql).fetch_one(&mut *db).await?;
    if commit == "off" {
        return wrong("it does not sync what it commits (synchronous_commit = off)".into());
    }
    let known = tables.steps().len();
    match version(db, tables).await? {
        Some(version) if version == known => Ok(Ok(())),
        Some(version) if version > known => wrong(format!(
            "a later version of farcall made its tables (schema {version}, this one knows {known})"
        )),
        _ => make(db, tables).await.map(Ok),
    }
}

async fn version(db: &mut PgConnection, tables: Tables) -> sqlx::Result<Option<usize>> {
    // By the catalogue's tables: what functions such as to_regclass say is cached until the transaction ends, and so
    // may be older than the lock.
    let there = "SELECT EXISTS (SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = $1 AND relname = 'version')";
    if !sqlx::query_scalar(there).bind(tables.schema()).fetch_one(&mut *db).await? {
        return Ok(None);
    }
    let sql = format!("SELECT max(version) FROM {}.version", tables.schema());
    let version: Option<i32> = sqlx::query_scalar(&sql).fetch_one(db).await?;
    Ok(version.and_then(|version| usize::try_from(version).ok()))
}

async fn make(db: &mut PgConnection, tables: Tables) -> sqlx::Result<()> {
    sqlx::raw_sql(BEGIN).execute(&mut *db).await?;
    sqlx::raw_sql(MAKING).execute(&mut *db).await?;
    // Another process may have done it since.
    let schema = tables.schema();
    let done = version(db, tables).await?.unwrap_or(0);
    if done == 0 {
        // Asked first: who may not make a schema may use one that is there.
        let there = "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)";
        if !sqlx::query_scalar(there).bind(schema).fetch_one(&mut *db).await? {
            sqlx::raw_sql(&format!("CREATE SCHEMA {schema}")).execute(&mut *db).await?;
        }
        let sql = format!("CREATE TABLE {schema}.version (version integer NOT NULL)");
        sqlx::raw_sql(&sql).execute(&mut *db).await?;
    }
    for (number, step) in (1_i32..).zip(tables.steps()).skip(done) {
        sqlx::raw_sql(step).execute(&mut *db).await?;
        let sql = format!("INSERT INTO {schema}.version VALUES ($1)");
        sqlx::query(&sql).bind(number).execute(&mut *db).await?;
    }
    sqlx::raw_sql("COMMIT").execute(db).await.map(|_| ())
}

/// Each connection finds it anew.
fn say_once(sentence: String) {
    static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if said.get_or_insert_default().insert(sentence.clone()) {
        say::say(&sentence);
    }
}
