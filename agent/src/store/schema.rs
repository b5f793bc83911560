//! The tables of `ledger.db`.
//!
//! Times are whole numbers of nanoseconds, sizes of bytes. A rollup spans 1, 60 or 1,440 minutes from `minute`
//! on (minutes since the Unix epoch). Names that repeat are numbers of `names`; the view `ledger` shows them.

use super::{advice, quotas};
use rusqlite::{Connection, Transaction};

/// The version that this program writes; `PRAGMA user_version`.
pub(crate) const VERSION: i64 = 11;

/// One script for each version: what brings the version before to it.
const MIGRATIONS: [&str; VERSION as usize] = [
    FIRST,
    DECISIONS,
    CONFIG,
    CACHE,
    advice::SCHEMA,
    QUOTA_SAVED,
    quotas::SCHEMA,
    CONNECT_KNOWN,
    WARNED,
    COST_UNKNOWN,
    PID_NAMESPACE,
];

/// Which configuration file a process obeys; empty where there is none.
const CONFIG: &str = "ALTER TABLE processes ADD COLUMN config TEXT NOT NULL DEFAULT ''";

/// What rules decided: waits, cost, tokens, events of single calls, incidents, spending against budgets.
const DECISIONS: &str = r"
ALTER TABLE rollups ADD COLUMN waited INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN cost INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN cost_unknown INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN tokens_in INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN tokens_out INTEGER NOT NULL DEFAULT 0;
UPDATE rollups SET cost_unknown = calls;

ALTER TABLE exemplars ADD COLUMN waited INTEGER NOT NULL DEFAULT 0;
ALTER TABLE exemplars ADD COLUMN cost INTEGER;
ALTER TABLE exemplars ADD COLUMN events TEXT NOT NULL DEFAULT '';

CREATE TABLE incidents (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL UNIQUE,
    at INTEGER NOT NULL,
    vendor TEXT NOT NULL,
    incident TEXT NOT NULL
) STRICT;
CREATE INDEX incidents_by_time ON incidents (at);

CREATE TABLE spending (
    budget TEXT NOT NULL,
    partition TEXT NOT NULL,
    period INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (budget, partition, period)
) STRICT, WITHOUT ROWID;
CREATE INDEX spending_by_time ON spending (at);

CREATE TABLE notices (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    caller INTEGER NOT NULL,
    concept TEXT NOT NULL,
    rule TEXT NOT NULL,
    what TEXT NOT NULL
) STRICT;
CREATE INDEX notices_by_time ON notices (at);
";

/// What the cache saved, and what people want it to forget.
const CACHE: &str = r"
ALTER TABLE rollups ADD COLUMN saved_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN saved_cost INTEGER NOT NULL DEFAULT 0;

CREATE TABLE purges (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    which TEXT NOT NULL
) STRICT;
";

/// What the cache saved of quotas. An answer that came from it had no attempt, unless the vendor failed.
const QUOTA_SAVED: &str = r"
ALTER TABLE rollups ADD COLUMN saved_requests INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN saved_tokens INTEGER NOT NULL DEFAULT 0;
UPDATE rollups SET saved_requests = calls WHERE outcome = 'cached';
";

/// Of how many connections each part of their making is known. Rows from before say only of how many any part is: the
/// best that can be said of a part that took time.
const CONNECT_KNOWN: &str = r"
ALTER TABLE rollups ADD COLUMN dns_known INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN connect_known INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN tls_known INTEGER NOT NULL DEFAULT 0;
UPDATE rollups SET dns_known = iif(dns > 0, connections, 0), connect_known = iif(connect > 0, connections, 0),
    tls_known = iif(tls > 0, connections, 0)
WHERE connections > 0;
";

/// Calls that a rule of the policy let pass, and had something to tell of: it warned, or what it would have done, were
/// it not in report mode.
const WARNED: &str = r"
CREATE TABLE warned (
    span INTEGER NOT NULL,
    minute INTEGER NOT NULL,
    vendor INTEGER NOT NULL,
    endpoint INTEGER NOT NULL,
    rule INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    caller INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    PRIMARY KEY (span, minute, vendor, endpoint, rule, verdict, caller)
) STRICT, WITHOUT ROWID;
";

/// Why the cost of a single call is not known, or not wholly; of rows from before nobody wrote it down.
const COST_UNKNOWN: &str = "ALTER TABLE exemplars ADD COLUMN cost_unknown TEXT";

/// Of which PID namespace a caller's pid is: the first process of each container has the pid 1.
const PID_NAMESPACE: &str = r"
DROP VIEW ledger;
CREATE TABLE told_apart (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    executable TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started INTEGER NOT NULL,
    container TEXT NOT NULL,
    user TEXT NOT NULL,
    pid_namespace INTEGER NOT NULL DEFAULT 0,
    UNIQUE (pid, started, service, executable, pid_namespace)
) STRICT;
INSERT INTO told_apart (id, service, executable, pid, started, container, user)
SELECT id, service, executable, pid, started, container, user FROM callers;
DROP TABLE callers;
ALTER TABLE told_apart RENAME TO callers;

CREATE VIEW ledger AS
SELECT datetime(r.minute * 60, 'unixepoch') AS utc, r.span AS minutes, v.name AS vendor, e.name AS endpoint,
    c.name AS customer, t.name AS tags, p.service, p.pid, r.tap, r.status, r.outcome, r.calls,
    r.duration / 1000000.0 / r.calls AS mean_ms, r.bytes_out, r.bytes_in
FROM rollups r JOIN names v ON v.id = r.vendor JOIN names e ON e.id = r.endpoint
JOIN names c ON c.id = r.customer JOIN names t ON t.id = r.tags JOIN callers p ON p.id = r.caller;
";

/// The account of calls and connections.
const FIRST: &str = r"
CREATE TABLE names (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE callers (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    executable TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started INTEGER NOT NULL,
    container TEXT NOT NULL,
    user TEXT NOT NULL,
    UNIQUE (pid, started, service, executable)
) STRICT;

CREATE TABLE rollups (
    span INTEGER NOT NULL,
    minute INTEGER NOT NULL,
    vendor INTEGER NOT NULL,
    endpoint INTEGER NOT NULL,
    customer INTEGER NOT NULL,
    tags INTEGER NOT NULL,
    caller INTEGER NOT NULL,
    tap TEXT NOT NULL,
    status INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    calls INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    duration INTEGER NOT NULL,
    ttfb INTEGER NOT NULL,
    transfer INTEGER NOT NULL,
    answered INTEGER NOT NULL,
    connections INTEGER NOT NULL,
    dns INTEGER NOT NULL,
    connect INTEGER NOT NULL,
    tls INTEGER NOT NULL,
    latency BLOB NOT NULL,
    PRIMARY KEY (span, minute, vendor, endpoint, customer, tags, caller, tap, status, outcome)
) STRICT, WITHOUT ROWID;

CREATE TABLE confirmed (
    span INTEGER NOT NULL,
    minute INTEGER NOT NULL,
    vendor INTEGER NOT NULL,
    endpoint INTEGER NOT NULL,
    caller INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    PRIMARY KEY (span, minute, vendor, endpoint, caller)
) STRICT, WITHOUT ROWID;

CREATE TABLE connections (
    span INTEGER NOT NULL,
    minute INTEGER NOT NULL,
    caller INTEGER NOT NULL,
    vendor INTEGER NOT NULL,
    name INTEGER NOT NULL,
    address INTEGER NOT NULL,
    port INTEGER NOT NULL,
    library INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    reason INTEGER NOT NULL,
    explained_by TEXT NOT NULL,
    connections INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    rtt INTEGER NOT NULL,
    rtt_samples INTEGER NOT NULL,
    retransmits INTEGER NOT NULL,
    duration INTEGER NOT NULL,
    PRIMARY KEY (span, minute, caller, vendor, name, address, port, library, verdict, reason, explained_by)
) STRICT, WITHOUT ROWID;

CREATE TABLE exemplars (
    begun INTEGER NOT NULL,
    id INTEGER NOT NULL,
    caller INTEGER NOT NULL,
    vendor INTEGER NOT NULL,
    endpoint INTEGER NOT NULL,
    customer INTEGER NOT NULL,
    tags INTEGER NOT NULL,
    tap TEXT NOT NULL,
    status INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    duration INTEGER NOT NULL,
    ttfb INTEGER,
    bytes_out INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (begun, id, caller)
) STRICT, WITHOUT ROWID;

CREATE TABLE processes (
    caller INTEGER PRIMARY KEY,
    role TEXT NOT NULL,
    version TEXT NOT NULL,
    adapters TEXT NOT NULL,
    hub INTEGER NOT NULL,
    since INTEGER NOT NULL,
    last_flush INTEGER NOT NULL,
    ended INTEGER
) STRICT;

CREATE TABLE counters (
    caller INTEGER NOT NULL,
    name TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (caller, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE upkeep (
    task TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW ledger AS
SELECT datetime(r.minute * 60, 'unixepoch') AS utc, r.span AS minutes, v.name AS vendor, e.name AS endpoint,
    c.name AS customer, t.name AS tags, p.service, p.pid, r.tap, r.status, r.outcome, r.calls,
    r.duration / 1000000.0 / r.calls AS mean_ms, r.bytes_out, r.bytes_in
FROM rollups r JOIN names v ON v.id = r.vendor JOIN names e ON e.id = r.endpoint
JOIN names c ON c.id = r.customer JOIN names t ON t.id = r.tags JOIN callers p ON p.id = r.caller;
";

/// What the migrations filled a new column of old rows with, where that is not its default.
const FILLED: [(&str, &str, &str); 5] = [
    ("rollups", "dns_known", "iif(dns > 0, connections, 0)"),
    ("rollups", "connect_known", "iif(connect > 0, connections, 0)"),
    ("rollups", "tls_known", "iif(tls > 0, connections, 0)"),
    ("rollups", "cost_unknown", "calls"),
    ("rollups", "saved_requests", "CASE outcome WHEN 'cached' THEN calls ELSE 0 END"),
];

/// The version of a file; 0 for an empty one.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings a file from `version` to [`VERSION`]. To be called by one process at a time.
pub(super) fn migrate(transaction: &Transaction<'_>, version: i64) -> rusqlite::Result<()> {
    for script in &MIGRATIONS[usize::try_from(version).unwrap_or(0)..] {
        transaction.execute_batch(script)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)
}

/// Makes the tables of an earlier version in an empty file.
#[cfg(test)]
pub(super) fn make(connection: &Connection, version: i64) -> rusqlite::Result<()> {
    let scripts = &MIGRATIONS[..usize::try_from(version).unwrap_or(0)];
    scripts.iter().try_for_each(|script| connection.execute_batch(script))?;
    connection.pragma_update(None, "user_version", version)
}

/// Shows this connection the tables of an earlier version as those of [`VERSION`], and leaves the file as it is: the
/// processes that wrote it go on doing so, and could not in a file of a later version.
pub(super) fn show_as_present(connection: &Connection) -> rusqlite::Result<()> {
    let present = Connection::open_in_memory()?;
    MIGRATIONS.iter().try_for_each(|script| present.execute_batch(script))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    let mut tables = present
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?;
    let mut tables = tables.query([])?;
    while let Some(table) = tables.next()? {
        let (table, sql): (String, String) = (table.get(0)?, table.get(1)?);
        let known = columns(connection, &table)?;
        if known.is_empty() {
            connection.execute_batch(&sql.replacen("CREATE TABLE", "CREATE TEMP TABLE", 1))?;
            continue;
        }
        let wanted = columns(&present, &table)?;
        let is_known = |name: &String| known.iter().any(|(known, _)| known == name);
        if wanted.iter().all(|(name, _)| is_known(name)) {
            continue;
        }
        let shown = wanted.iter().map(|(name, default)| {
            let filled =
                FILLED.iter().find(|(of, column, _)| (*of, *column) == (table.as_str(), name.as_str()));
            match (is_known(name), filled) {
                (true, _) => name.clone(),
                (false, Some((.., with))) => format!("{with} AS {name}"),
                (false, None) => format!("{} AS {name}", default.as_deref().unwrap_or("NULL")),
            }
        });
        let shown = shown.collect::<Vec<_>>().join(", ");
        // What is temporary is found before what stands in the file.
        connection.execute_batch(&format!("CREATE TEMP VIEW {table} AS SELECT {shown} FROM main.{table}"))?;
    }
    Ok(())
}

/// The columns of a table in the file, each with its default as SQL; none where there is no such table.
fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let mut statement = connection.prepare("SELECT name, dflt_value FROM pragma_table_info(?1, 'main')")?;
    let columns = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
    columns.collect()
}
