//! What was seen of endpoints and credentials, for `farcall advise`, and what rules of the policy told of calls that they
//! let pass.

use super::pending::Pending;
use super::write::{MOST, Names, Presence, int, nanos};
use farcall::advise::{Sums, TTLS};
use rusqlite::types::Value;
use rusqlite::{Transaction, params, params_from_iter};
use std::fmt::Write;
use std::sync::LazyLock;

/// The tables with a row for each span of time.
pub(super) const TABLES: [&str; 4] = ["advice", "replays", "credentials", "warned"];

/// `advice`: an endpoint's calls. `replays`: what a cache would have done about them that keeps answers for `ttl`
/// seconds. `credentials`: how often each was used.
pub(super) const SCHEMA: &str = r"
CREATE TABLE advice (
    span INTEGER NOT NULL,
    minute INTEGER NOT NULL,
    vendor INTEGER NOT NULL,
    endpoint INTEGER NOT NULL,
    caller INTEGER NOT NULL,
    longest_loop INTEGER NOT NULL,
    weight INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    deadlines INTEGER NOT NULL,
    fallbacks INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    repeats INTEGER NOT NULL,
    loops INTEGER NOT NULL,
    looped INTEGER NOT NULL,
    traced INTEGER NOT NULL,
    traces INTEGER NOT NULL,
    compared INTEGER NOT NULL,
    roughly INTEGER NOT NULL,
    forbidden INTEGER NOT NULL,
    validators INTEGER NOT NULL,
    dated INTEGER NOT NULL,
    apart INTEGER NOT NULL,
    PRIMARY KEY (span, minute, vendor, endpoint, caller)
) STRICT, WITHOUT ROWID;

CREATE TABLE replays (
    span INTEGER NOT NULL,
    minute INTEGER NOT NULL,
    vendor INTEGER NOT NULL,
    endpoint INTEGER NOT NULL,
    caller INTEGER NOT NULL,
    ttl INTEGER NOT NULL,
    hits INTEGER NOT NULL,
    stale INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    cost_unknown INTEGER NOT NULL,
    duration INTEGER NOT NULL,
    quota INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (span, minute, vendor, endpoint, caller, ttl)
) STRICT, WITHOUT ROWID;

CREATE TABLE credentials (
    span INTEGER NOT NULL,
    minute INTEGER NOT NULL,
    vendor INTEGER NOT NULL,
    credential INTEGER NOT NULL,
    caller INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    PRIMARY KEY (span, minute, vendor, credential, caller)
) STRICT, WITHOUT ROWID;
";

/// Tables, and the columns that a row is found by and that it has besides.
struct Shape {
    table: &'static str,
    key: &'static str,
    largest: &'static [&'static str],
    sums: Vec<&'static str>,
}

impl Shape {
    /// What becomes of a row that is there already.
    fn conflict(&self) -> String {
        let mut sql = "ON CONFLICT DO UPDATE SET ".to_owned();
        for column in self.largest {
            let _ = write!(sql, "{column} = max({column}, excluded.{column}), ");
        }
        for column in &self.sums {
            let _ = write!(sql, "{column} = add_up({column}, excluded.{column}), ");
        }
        sql.truncate(sql.len() - 2);
        sql
    }

    fn columns(&self) -> String {
        let columns: Vec<&str> = self.largest.iter().chain(&self.sums).copied().collect();
        columns.join(", ")
    }

    fn insert(&self) -> String {
        let Self { table, key, .. } = self;
        let columns = self.columns();
        let places = 2 + key.split(", ").count() + columns.split(", ").count();
        let places = vec!["?"; places].join(", ");
        format!("INSERT INTO {table} (span, minute, {key}, {columns}) VALUES ({places}) {}", self.conflict())
    }

    /// Adds up the rows of span ?1 from minute ?3 to ?4 in rows of span ?2.
    fn fold(&self) -> String {
        let Self { table, key, .. } = self;
        let columns = self.columns();
        format!(
            "INSERT INTO {table} (span, minute, {key}, {columns}) SELECT ?2, ?3, {key}, {columns} FROM {table}
             WHERE span = ?1 AND minute >= ?3 AND minute < ?4 {}",
            self.conflict()
        )
    }
}

static SHAPES: LazyLock<[Shape; 4]> = LazyLock::new(|| {
    [
        Shape {
            table: "advice",
            key: "vendor, endpoint, caller",
            largest: &["longest_loop", "weight"],
            sums: Sums::default().counts().into_iter().map(|(name, _)| name).collect(),
        },
        Shape {
            table: "replays",
            key: "vendor, endpoint, caller, ttl",
            largest: &[],
            sums: vec!["hits", "stale", "cost", "cost_unknown", "duration", "quota", "bytes"],
        },
        Shape { table: "credentials", key: "vendor, credential, caller", largest: &[], sums: vec!["calls"] },
        Shape {
            table: "warned",
            key: "vendor, endpoint, rule, verdict, caller",
            largest: &[],
            sums: vec!["calls"],
        },
    ]
});

/// How each table's rows come in.
static INSERTS: LazyLock<[String; 4]> = LazyLock::new(|| std::array::from_fn(|n| SHAPES[n].insert()));

pub(super) fn write(names: &mut Names<'_>, pending: &Pending, presence: &Presence) -> rusqlite::Result<()> {
    let [advice, replays, credentials, warned] = &*INSERTS;
    for ((minute, vendor, endpoint), sums) in &pending.advice {
        let (vendor, endpoint) = (names.number(vendor)?, names.number(endpoint)?);
        let caller = names.caller(&presence.caller)?;
        let key = [1, int(*minute), vendor, endpoint, caller];
        let counts = sums.counts().into_iter().map(|(_, value)| int(value));
        let values = key.into_iter().chain([int(sums.longest_loop), int(sums.weight)]).chain(counts);
        let values = values.map(Value::Integer);
        names.connection.prepare_cached(advice)?.execute(params_from_iter(values))?;
        for (at, ttl) in sums.at.iter().zip(TTLS).filter(|(at, _)| at.hits > 0) {
            let cost = at.cost.clamp(-MOST, MOST);
            let (hits, stale, unknown) = (int(at.hits), int(at.stale), int(at.cost_unknown));
            let row = [int(ttl.as_secs()), hits, stale, cost, unknown, nanos(at.duration)];
            let row = row.into_iter().chain([int(at.quota), int(at.bytes)]);
            let values = key.into_iter().chain(row).map(Value::Integer);
            names.connection.prepare_cached(replays)?.execute(params_from_iter(values))?;
        }
    }
    for ((minute, vendor, credential), calls) in &pending.credentials {
        // An hour is fine enough to tell since when one is not used.
        let hour = int(*minute / 60 * 60);
        let (vendor, credential) = (names.number(vendor)?, names.number(credential)?);
        let caller = names.caller(&presence.caller)?;
        let values = params![60, hour, vendor, credential, caller, int(*calls)];
        names.connection.prepare_cached(credentials)?.execute(values)?;
    }
    for ((minute, vendor, endpoint, rule, verdict), calls) in &pending.warned {
        let (vendor, endpoint) = (names.number(vendor)?, names.number(endpoint)?);
        let (rule, caller) = (names.number(rule)?, names.caller(&presence.caller)?);
        let values = params![1, int(*minute), vendor, endpoint, rule, verdict.as_str(), caller, int(*calls)];
        names.connection.prepare_cached(warned)?.execute(values)?;
    }
    Ok(())
}

/// Replaces the rows of span `from` within one span `to` from `start` on by their sum.
pub(super) fn fold(transaction: &Transaction<'_>, from: i64, to: i64, start: i64) -> rusqlite::Result<()> {
    for shape in &*SHAPES {
        transaction.execute(&shape.fold(), [from, to, start, start + to])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Beside, Store};
    use crate::tally::Tallies;
    use farcall::{Caller, Config, Engine, Head, Timestamp};
    use std::time::Duration;

    const RETENTION: Duration = Duration::from_secs(30 * 86_400);

    /// A call each five seconds for a minute, by a process of its own, written once.
    fn write_minute(store: &Store, pid: u32, now: Timestamp) {
        write_minute_of(store, Caller { pid, ..Caller::new("checkout") }, "key", now);
    }

    fn write_minute_of(store: &Store, caller: Caller, key: &str, now: Timestamp) {
        let engine = Engine::new(Config::default(), caller.clone(), 1, 1);
        for n in 0..12 {
            let at = now.plus_millis(n * 5_000);
            let headers = [("authorization", key)];
            let head = Head::new("GET", "https://api.stripe.com/v1/balance").exact(true).headers(&headers);
            let mut call = engine.begin(&head, at, n);
            let _ = call.step(&engine, at);
            call.answer(&engine, 200, &farcall::call::NoHeaders, at.plus_millis(10));
            call.read(b"same");
            call.end(&engine, at.plus_millis(10));
        }
        let (mut pending, tallies) = (Pending::new(20_000), Tallies::default());
        pending.add(engine.drain(now), &engine, &tallies);
        let presence = Presence {
            caller,
            role: "program",
            adapters: String::new(),
            hub: false,
            config: String::new(),
            since: now,
            now,
            ended: false,
            counters: Vec::new(),
        };
        store.write(&pending, &presence, RETENTION, &mut Beside::default()).unwrap();
    }

    fn sum(store: &Store, sql: &str) -> i64 {
        store.open().unwrap().connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn what_several_processes_saw_adds_up_and_survives_hours_days_and_no_longer_than_the_retention() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().into());
        let now = Timestamp::from_nanos(1_790_000_000_000_000_000 / 3_600_000_000_000 * 3_600_000_000_000);
        for process in 1..=3 {
            write_minute(&store, process, now);
        }
        let hits = "SELECT sum(hits) FROM replays WHERE ttl = 60";
        let calls = "SELECT sum(calls) FROM advice";
        let uses = "SELECT sum(calls) FROM credentials";
        let (three, spans) = ((33, 36, 36), "SELECT max(span) FROM replays");
        let all = || (sum(&store, hits), sum(&store, calls), sum(&store, uses));
        assert_eq!((all(), sum(&store, spans)), (three, 1));
        // Upkeep comes with whoever writes next.
        let day = Duration::from_secs(86_400);
        for (days, span) in [(3, 60), (16, 1_440)] {
            let later = now.plus(day * days);
            let presence = Presence {
                caller: Caller::new("upkeep"),
                role: "program",
                adapters: String::new(),
                hub: false,
                config: String::new(),
                since: later,
                now: later,
                ended: false,
                counters: Vec::new(),
            };
            store.write(&Pending::new(100), &presence, RETENTION, &mut Beside::default()).unwrap();
            assert_eq!((all(), sum(&store, spans)), (three, span), "after {days} days");
        }
        write_minute(&store, 9, now.plus(day * 33));
        assert_eq!(all(), (11, 12, 12), "only the new ones");
    }

    #[test]
    fn credentials_that_services_share_and_that_nobody_uses_any_more_are_told() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().into());
        let now = Timestamp::from_nanos(1_790_000_000_000_000_000);
        let ago = |days: u64| now.minus(Duration::from_secs(days * 86_400));
        write_minute_of(&store, Caller { pid: 1, ..Caller::new("checkout") }, "old", ago(20));
        write_minute_of(&store, Caller { pid: 2, ..Caller::new("nightly") }, "nightly", ago(1));
        write_minute_of(&store, Caller { pid: 3, ..Caller::new("checkout") }, "shared", now);
        write_minute_of(&store, Caller { pid: 4, ..Caller::new("billing") }, "shared", now);
        let query = crate::report::Query { now, ..crate::report::Query::at(home.path()) };
        let rows = crate::report::advise(&query).unwrap().rows;
        let found = |rule: &str| rows.iter().filter(|row| row.rule == rule).collect::<Vec<_>>();
        let (unused, shared) = (found("unused-credential"), found("shared-credential"));
        assert_eq!((unused.len(), shared.len()), (1, 1), "a nightly job's is used: {rows:#?}");
        assert_eq!(unused[0].callers, ["checkout"]);
        assert_eq!(unused[0].evidence["used_before_by"][0]["calls"], 12);
        assert_eq!(shared[0].callers, ["billing", "checkout"]);
        assert_eq!(shared[0].worth.calls, 24);
        let credentials = [unused[0], shared[0]].map(|row| row.evidence["credential"].as_str().unwrap());
        assert!(credentials.iter().all(|name| name.len() == 12) && credentials[0] != credentials[1]);
    }

    #[test]
    fn the_tables_have_a_column_for_each_sum() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().into());
        let open = store.open().unwrap();
        for (shape, table) in SHAPES.iter().zip(TABLES) {
            assert_eq!(shape.table, table);
            let mut statement = open.connection.prepare("SELECT name FROM pragma_table_info(?1)").unwrap();
            let columns: Vec<String> =
                statement.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            let known = format!("span, minute, {}, {}", shape.key, shape.columns());
            assert_eq!(columns.join(", "), known);
        }
    }
}
