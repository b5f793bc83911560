//! The ledger as the file has it: read without the adapter's process, and without the agent's own reports, so
//! that neither can hide a fault of the other.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// What the calls of one sum have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// The vendor's name.
    pub vendor: String,
    /// Method and template.
    pub endpoint: String,
    /// On whose behalf.
    pub customer: String,
    /// The status; 0 where no response came.
    pub status: u16,
    /// How they came out.
    pub outcome: String,
    /// What the application said of them.
    pub tags: String,
    /// Where they were seen.
    pub tap: String,
    /// The service that made them.
    pub service: String,
}

/// The sums over some calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Calls.
    pub calls: u64,
    /// Exchanges on the wire.
    pub attempts: u64,
    /// Bytes of request bodies.
    pub bytes_out: u64,
    /// Bytes of response bodies.
    pub bytes_in: u64,
    /// Calls that had the head of a response.
    pub answered: u64,
    /// Calls that made a connection.
    pub connections: u64,
    /// From begin to end.
    pub duration: Duration,
    /// From begin to head.
    pub ttfb: Duration,
    /// From head to end.
    pub transfer: Duration,
    /// How long rules made them wait.
    pub waited: Duration,
    /// What they cost as far as known, in nano-units.
    pub cost: u64,
}

impl Sums {
    /// What was added since `earlier`.
    #[must_use]
    fn since(&self, earlier: &Self) -> Self {
        Self {
            calls: self.calls - earlier.calls,
            attempts: self.attempts - earlier.attempts,
            bytes_out: self.bytes_out - earlier.bytes_out,
            bytes_in: self.bytes_in - earlier.bytes_in,
            answered: self.answered - earlier.answered,
            connections: self.connections - earlier.connections,
            duration: self.duration - earlier.duration,
            ttfb: self.ttfb - earlier.ttfb,
            transfer: self.transfer - earlier.transfer,
            waited: self.waited - earlier.waited,
            cost: self.cost - earlier.cost,
        }
    }

    pub(crate) fn add(&mut self, more: &Self) {
        self.calls += more.calls;
        self.attempts += more.attempts;
        self.bytes_out += more.bytes_out;
        self.bytes_in += more.bytes_in;
        self.answered += more.answered;
        self.connections += more.connections;
        self.duration += more.duration;
        self.ttfb += more.ttfb;
        self.transfer += more.transfer;
        self.waited += more.waited;
        self.cost += more.cost;
    }
}

/// All that a ledger says, over all minutes.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The sums of each series.
    pub rows: BTreeMap<Series, Sums>,
}

impl Account {
    /// What was added since `earlier`; `None` where something went missing, which a ledger never does.
    pub(crate) fn since(&self, earlier: &Self) -> Option<Self> {
        let grown = |series: &Series, sums: &Sums| sums.calls >= earlier.sums(series).calls;
        let kept = earlier.rows.keys().all(|series| self.rows.contains_key(series));
        if !kept || !self.rows.iter().all(|(series, sums)| grown(series, sums)) {
            return None;
        }
        let news = self.rows.iter().map(|(series, sums)| (series.clone(), sums.since(&earlier.sums(series))));
        Some(Self { rows: news.filter(|(_, sums)| sums.calls > 0).collect() })
    }

    fn sums(&self, series: &Series) -> Sums {
        self.rows.get(series).copied().unwrap_or_default()
    }

    /// The sums over everything.
    #[must_use]
    pub fn total(&self) -> Sums {
        let mut total = Sums::default();
        self.rows.values().for_each(|sums| total.add(sums));
        total
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (series, sums) in &self.rows {
            let Series { vendor, endpoint, customer, status, outcome, tags, .. } = series;
            let Sums { calls, attempts, bytes_out, bytes_in, .. } = sums;
            write!(f, "\n    {vendor} {endpoint} {status} {outcome} customer={customer} {tags}: ")?;
            write!(f, "{calls} calls, {attempts} attempts, {bytes_out} bytes out, {bytes_in} in, ")?;
            write!(f, "ttfb {:.1?}, transfer {:.1?}", sums.ttfb, sums.transfer)?;
            if sums.waited > Duration::ZERO || sums.cost > 0 {
                write!(f, ", waited {:.1?}, cost {}", sums.waited, sums.cost)?;
            }
        }
        if self.rows.is_empty() { f.write_str(" nothing") } else { Ok(()) }
    }
}

/// Reads the ledger in `home`; an empty account where there is none yet.
///
/// # Errors
/// The file is not a ledger.
pub fn read(home: &Path) -> Result<Account, String> {
    let file = home.join("ledger.db");
    if !file.exists() {
        return Ok(Account::default());
    }
    rows(&file).map_err(|e| format!("{}: {e}", file.display()))
}

/// What processes that have ended left behind: each counter that is not zero (something was not done as asked),
/// and each process that did not say goodbye.
///
/// # Errors
/// The file is not a ledger.
pub(crate) fn remains(home: &Path) -> Result<Vec<String>, String> {
    let file = home.join("ledger.db");
    let remains = || -> rusqlite::Result<Vec<String>> {
        let connection = open(&file)?;
        let mut statement = connection.prepare(
            // What an adapter cannot look up goes to the vendor, as docs/cache.md says of each: nothing was left undone.
            "SELECT name || ' = ' || value FROM counters WHERE value <> 0 AND name <> 'uncached_calls'
            UNION ALL SELECT 'the process did not say that it ended' FROM processes WHERE ended IS NULL",
        )?;
        let lines = statement.query_map([], |row| row.get(0))?;
        lines.collect()
    };
    remains().map_err(|e| format!("{}: {e}", file.display()))
}

fn open(file: &Path) -> rusqlite::Result<Connection> {
    // Not read-only: who reads a ledger in WAL mode may have to recover it first.
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    // Who moves the log into the file as he goes keeps all others from writing meanwhile.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

fn rows(file: &Path) -> rusqlite::Result<Account> {
    let connection = open(file)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        // Its first writer is about to make the tables.
        return Ok(Account::default());
    }
    let mut statement = connection.prepare(
        "SELECT v.name, e.name, c.name, r.status, r.outcome, r.tap, p.service, sum(r.calls), sum(r.attempts),
            sum(r.bytes_out), sum(r.bytes_in), sum(r.answered), sum(r.connections), sum(r.duration), sum(r.ttfb),
            sum(r.transfer), coalesce(t.name, ''), sum(r.waited), sum(r.cost)
        FROM rollups r JOIN names v ON v.id = r.vendor JOIN names e ON e.id = r.endpoint
        JOIN names c ON c.id = r.customer JOIN callers p ON p.id = r.caller LEFT JOIN names t ON t.id = r.tags
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 17",
    )?;
    let rows = statement.query_map([], |row| {
        let count = |column: usize| row.get::<_, i64>(column).map(i64::unsigned_abs);
        let nanos = |column: usize| count(column).map(Duration::from_nanos);
        let series = Series {
            vendor: row.get(0)?,
            endpoint: row.get(1)?,
            customer: row.get(2)?,
            status: row.get(3)?,
            outcome: row.get(4)?,
            tap: row.get(5)?,
            service: row.get(6)?,
            tags: row.get(16)?,
        };
        let sums = Sums {
            calls: count(7)?,
            attempts: count(8)?,
            bytes_out: count(9)?,
            bytes_in: count(10)?,
            answered: count(11)?,
            connections: count(12)?,
            duration: nanos(13)?,
            ttfb: nanos(14)?,
            transfer: nanos(15)?,
            waited: nanos(17)?,
            cost: count(18)?,
        };
        Ok((series, sums))
    })?;
    Ok(Account { rows: rows.collect::<rusqlite::Result<_>>()? })
}
