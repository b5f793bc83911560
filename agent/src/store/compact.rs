//! Upkeep: minutes become hours, hours become days, what is older than the retention leaves. Done by whichever
//! process comes first after it is due, in short transactions, so that no other waits long.

use super::write::int_time;
use super::{advice, notices, quotas};
use farcall::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::time::Duration;

/// How many single calls are kept, the newest.
const MAX_EXEMPLARS: i64 = 20_000;
const EXEMPLARS_EVERY: Duration = Duration::from_secs(60);
const ROLLUPS_EVERY: Duration = Duration::from_secs(3_600);
/// Minutes stay for two days, hours for two weeks.
const SPANS: [(i64, i64, Duration); 2] =
    [(1, 60, Duration::from_secs(2 * 86_400)), (60, 1_440, Duration::from_secs(14 * 86_400))];
/// What was spent of a budget stays for longer than its period can be.
const SPENDING: Duration = Duration::from_secs(62 * 86_400);
/// The tables with a row for each span of time.
const TABLES: [&str; 3] = ["rollups", "connections", "confirmed"];
/// Steps of one hour's upkeep: a ledger that lay still for long catches up over some hours.
const MAX_STEPS: usize = 200;

pub(super) fn when_due(
    connection: &mut Connection,
    now: Timestamp,
    retention: Duration,
) -> rusqlite::Result<()> {
    if claim(connection, "exemplars", now, EXEMPLARS_EVERY)? {
        connection.execute(
            "DELETE FROM exemplars WHERE begun < (SELECT begun FROM exemplars ORDER BY begun DESC LIMIT 1 OFFSET ?1)",
            [MAX_EXEMPLARS - 1],
        )?;
        quotas::bound(connection)?;
        notices::bound(connection)?;
    }
    if claim(connection, "rollups", now, ROLLUPS_EVERY)? {
        for (from, to, keep) in SPANS {
            compact(connection, from, to, minute(now.minus(keep)))?;
        }
        retain(connection, minute(now.minus(retention)), int_time(now.minus(retention)))?;
        connection.execute("DELETE FROM spending WHERE at < ?1", [int_time(now.minus(SPENDING))])?;
    }
    Ok(())
}

/// Whether a task is due and this process is the one to do it.
fn claim(connection: &Connection, task: &str, now: Timestamp, every: Duration) -> rusqlite::Result<bool> {
    let due = int_time(now.minus(every));
    let last: Option<i64> = connection
        .prepare_cached("SELECT at FROM upkeep WHERE task = ?1")?
        .query_row([task], |row| row.get(0))
        .optional()?;
    // A time in the future is that of a clock that was wrong.
    if last.is_some_and(|last| last > due && last <= int_time(now)) {
        return Ok(false);
    }
    let claimed = connection.execute(
        "INSERT INTO upkeep VALUES (?1, ?2) ON CONFLICT DO UPDATE SET at = excluded.at WHERE at IS ?3",
        params![task, int_time(now), last],
    )?;
    Ok(claimed == 1)
}

/// Adds up the rows of span `from` that began before `before` in rows of span `to`.
fn compact(connection: &mut Connection, from: i64, to: i64, before: i64) -> rusqlite::Result<()> {
    // Only whole target spans.
    let before = before - before.rem_euclid(to);
    for _ in 0..MAX_STEPS {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let oldest: Option<i64> = transaction.query_row(
            "SELECT min(minute) FROM (
                SELECT minute FROM rollups WHERE span = ?1 AND minute < ?2
                UNION ALL SELECT minute FROM connections WHERE span = ?1 AND minute < ?2
                UNION ALL SELECT minute FROM confirmed WHERE span = ?1 AND minute < ?2
                UNION ALL SELECT minute FROM advice WHERE span = ?1 AND minute < ?2
                UNION ALL SELECT minute FROM credentials WHERE span = ?1 AND minute < ?2)",
            [from, before],
            |row| row.get(0),
        )?;
        let Some(oldest) = oldest else { return Ok(()) };
        let start = oldest - oldest.rem_euclid(to);
        fold(&transaction, from, to, start)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Replaces the rows of span `from` within one span `to` from `start` on by their sum.
fn fold(transaction: &Transaction<'_>, from: i64, to: i64, start: i64) -> rusqlite::Result<()> {
    let range = params![from, to, start, start + to];
    transaction.execute(
        "INSERT INTO rollups SELECT ?2, ?3, vendor, endpoint, customer, tags, caller, tap, status, outcome,
            calls, attempts, bytes_out, bytes_in, duration, ttfb, transfer, answered, connections, dns, connect,
            tls, latency, waited, cost, cost_unknown, tokens_in, tokens_out,
            saved_bytes, saved_cost, saved_requests, saved_tokens, dns_known, connect_known, tls_known
         FROM rollups WHERE span = ?1 AND minute >= ?3 AND minute < ?4
         ON CONFLICT DO UPDATE SET calls = add_up(calls, excluded.calls),
            attempts = add_up(attempts, excluded.attempts),
            bytes_out = add_up(bytes_out, excluded.bytes_out), bytes_in = add_up(bytes_in, excluded.bytes_in),
            duration = add_up(duration, excluded.duration), ttfb = add_up(ttfb, excluded.ttfb),
            transfer = add_up(transfer, excluded.transfer), answered = add_up(answered, excluded.answered),
            connections = add_up(connections, excluded.connections), dns = add_up(dns, excluded.dns),
            connect = add_up(connect, excluded.connect), tls = add_up(tls, excluded.tls),
            waited = add_up(waited, excluded.waited), cost = add_up(cost, excluded.cost),
            cost_unknown = add_up(cost_unknown, excluded.cost_unknown),
            tokens_in = add_up(tokens_in, excluded.tokens_in),
            tokens_out = add_up(tokens_out, excluded.tokens_out),
            saved_bytes = add_up(saved_bytes, excluded.saved_bytes),
            saved_cost = add_up(saved_cost, excluded.saved_cost),
            saved_requests = add_up(saved_requests, excluded.saved_requests),
            saved_tokens = add_up(saved_tokens, excluded.saved_tokens),
            dns_known = add_up(dns_known, excluded.dns_known),
            connect_known = add_up(connect_known, excluded.connect_known),
            tls_known = add_up(tls_known, excluded.tls_known),
            latency = sketch_merge(latency, excluded.latency)",
        range,
    )?;
    transaction.execute(
        "INSERT INTO connections SELECT ?2, ?3, caller, vendor, name, address, port, library, verdict, reason,
            explained_by, connections, bytes_out, bytes_in, rtt, rtt_samples, retransmits, duration
         FROM connections WHERE span = ?1 AND minute >= ?3 AND minute < ?4
         ON CONFLICT DO UPDATE SET connections = add_up(connections, excluded.connections),
            bytes_out = add_up(bytes_out, excluded.bytes_out), bytes_in = add_up(bytes_in, excluded.bytes_in),
            rtt = add_up(rtt, excluded.rtt), rtt_samples = add_up(rtt_samples, excluded.rtt_samples),
            retransmits = add_up(retransmits, excluded.retransmits),
            duration = add_up(duration, excluded.duration)",
        range,
    )?;
    transaction.execute(
        "INSERT INTO confirmed SELECT ?2, ?3, vendor, endpoint, caller, calls
         FROM confirmed WHERE span = ?1 AND minute >= ?3 AND minute < ?4
         ON CONFLICT DO UPDATE SET calls = add_up(calls, excluded.calls)",
        range,
    )?;
    advice::fold(transaction, from, to, start)?;
    for table in TABLES.into_iter().chain(advice::TABLES) {
        transaction.execute(
            &format!("DELETE FROM {table} WHERE span = ?1 AND minute >= ?2 AND minute < ?3"),
            [from, start, start + to],
        )?;
    }
    Ok(())
}

/// Forgets what is older than the retention, and names and callers that nothing refers to any more.
fn retain(connection: &mut Connection, before_minute: i64, before: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for table in TABLES.into_iter().chain(advice::TABLES) {
        transaction.execute(&format!("DELETE FROM {table} WHERE minute + span <= ?1"), [before_minute])?;
    }
    transaction.execute("DELETE FROM exemplars WHERE begun < ?1", [before])?;
    transaction.execute("DELETE FROM incidents WHERE at < ?1", [before])?;
    transaction.execute("DELETE FROM notices WHERE at < ?1", [before])?;
    transaction.execute("DELETE FROM quotas WHERE at < ?1", [before])?;
    transaction.execute("DELETE FROM processes WHERE last_flush < ?1", [before])?;
    transaction.execute_batch(
        "DELETE FROM counters WHERE caller NOT IN (SELECT caller FROM processes);
         DELETE FROM callers WHERE id NOT IN (SELECT caller FROM rollups UNION SELECT caller FROM connections
            UNION SELECT caller FROM confirmed UNION SELECT caller FROM exemplars UNION SELECT caller FROM processes
            UNION SELECT caller FROM notices UNION SELECT caller FROM quotas UNION SELECT caller FROM advice
            UNION SELECT caller FROM credentials UNION SELECT caller FROM warned);
         DELETE FROM names WHERE id NOT IN (
            SELECT vendor FROM rollups UNION SELECT endpoint FROM rollups UNION SELECT customer FROM rollups
            UNION SELECT tags FROM rollups UNION SELECT vendor FROM exemplars UNION SELECT endpoint FROM exemplars
            UNION SELECT customer FROM exemplars UNION SELECT tags FROM exemplars
            UNION SELECT vendor FROM connections UNION SELECT name FROM connections
            UNION SELECT address FROM connections UNION SELECT library FROM connections
            UNION SELECT reason FROM connections UNION SELECT vendor FROM confirmed
            UNION SELECT endpoint FROM confirmed UNION SELECT vendor FROM advice UNION SELECT endpoint FROM advice
            UNION SELECT vendor FROM credentials UNION SELECT credential FROM credentials
            UNION SELECT vendor FROM warned UNION SELECT endpoint FROM warned UNION SELECT rule FROM warned);",
    )?;
    transaction.commit()
}

fn minute(time: Timestamp) -> i64 {
    i64::try_from(time.minute()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Beside, Confirmation, ConnectionRollup, Pending, Presence, Store};
    use crate::tally::Tallies;
    use farcall::{Caller, Config, Engine, Head};
    use std::sync::atomic::AtomicU64;

    const DAY: u64 = 86_400_000;
    const RETENTION: Duration = Duration::from_secs(30 * 86_400);

    /// Midday of some day, so that whole hours and days lie on both sides.
    fn noon() -> Timestamp {
        Timestamp::from_nanos(1_790_000_000_000_000_000 / 86_400_000_000_000 * 86_400_000_000_000)
            .plus_millis(DAY / 2)
    }

    /// One call, one connection and one confirmation at each of the times.
    fn write(store: &Store, times: &[Timestamp], now: Timestamp) {
        let engine = Engine::new(Config::default(), Caller::new("checkout"), 1, 1);
        let (mut pending, tallies) = (Pending::new(20_000), Tallies::default());
        for &time in times {
            let head = Head::new("GET", "https://api.stripe.com/v1/balance").customer(Some("acme"));
            let mut call = engine.begin(&head, time, time.as_nanos());
            let _ = call.step(&engine, time);
            call.head(200, time);
            call.body(100);
            call.end(&engine, time);
            pending.add(engine.drain(time), &engine, &tallies);
            let minute = time.minute();
            let caller = Caller::new("checkout");
            pending.add_connections(
                vec![ConnectionRollup {
                    minute,
                    caller: caller.clone(),
                    connections: 1,
                    ..Default::default()
                }],
                &AtomicU64::new(0),
            );
            pending.add_confirmed(
                vec![Confirmation { minute, caller, calls: 1, ..Default::default() }],
                &AtomicU64::new(0),
            );
        }
        let presence = Presence {
            caller: Caller::new("checkout"),
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

    fn rows(store: &Store, sql: &str) -> Vec<i64> {
        let open = store.open().unwrap();
        let mut statement = open.connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn minutes_become_hours_and_days_and_every_sum_stays() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().into());
        let now = noon();
        // Ten minutes each: of today, of four days ago, and of twenty days ago.
        let times: Vec<Timestamp> = [0, 4, 20]
            .into_iter()
            .flat_map(|days| {
                (0..10).map(move |minute| now.minus(Duration::from_millis(days * DAY + minute * 60_000)))
            })
            .collect();
        write(&store, &times, now);
        assert_eq!(rows(&store, "SELECT sum(calls) FROM rollups GROUP BY span ORDER BY span"), [10, 10, 10]);
        // The ten minutes before noon are two hours, since noon itself is one of them.
        assert_eq!(rows(&store, "SELECT count(*) FROM rollups GROUP BY span ORDER BY span"), [10, 2, 1]);
        assert_eq!(rows(&store, "SELECT sum(bytes_in) FROM rollups"), [3_000]);
        assert_eq!(rows(&store, "SELECT sum(connections) FROM connections GROUP BY span"), [10, 10, 10]);
        assert_eq!(rows(&store, "SELECT sum(calls) FROM confirmed GROUP BY span"), [10, 10, 10]);
        assert_eq!(rows(&store, "SELECT minute % 1440 FROM rollups WHERE span = 1440"), [0]);
        let query = crate::report::Query {
            now: now.plus_millis(1_000),
            ..crate::report::Query::at(home.path()).since(Duration::from_secs(25 * 86_400))
        };
        let vendors = crate::report::vendors(&query).unwrap();
        assert_eq!(vendors.totals.calls, 30);
        assert_eq!(crate::report::coverage(&query).unwrap().totals.connections, 30);
    }

    #[test]
    fn what_is_older_than_the_retention_leaves_with_its_names() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().into());
        let now = noon();
        write(&store, &[now], now);
        assert_eq!(rows(&store, "SELECT count(*) FROM names WHERE name = 'acme'"), [1]);
        let later = now.plus(RETENTION).plus_millis(2 * DAY);
        write(&store, &[], later);
        for table in ["rollups", "connections", "confirmed", "exemplars", "names"] {
            assert_eq!(rows(&store, &format!("SELECT count(*) FROM {table}")), [0], "{table}");
        }
        assert_eq!(rows(&store, "SELECT count(*) FROM callers"), [1], "the process that just wrote");
    }

    #[test]
    fn upkeep_is_done_once_an_hour_by_one_process() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().into());
        let now = noon();
        write(&store, &[], now);
        let connection = store.open().unwrap().connection;
        assert!(!claim(&connection, "rollups", now.plus_millis(3_599_000), ROLLUPS_EVERY).unwrap());
        assert!(claim(&connection, "rollups", now.plus_millis(3_601_000), ROLLUPS_EVERY).unwrap());
        assert!(!claim(&connection, "rollups", now.plus_millis(3_602_000), ROLLUPS_EVERY).unwrap());
        // A clock that ran ahead and was set right does not stop upkeep.
        assert!(claim(&connection, "rollups", now, ROLLUPS_EVERY).unwrap());
    }

    #[test]
    fn single_calls_are_bounded_to_the_newest() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path().into());
        let mut connection = store.open().unwrap().connection;
        connection
            .execute_batch(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20010)
                 INSERT INTO exemplars SELECT x, x, 1, 1, 1, 1, 1, 'library', 200, 'complete', 1, 1, 0, 0, 1, 0, NULL, '', NULL FROM n",
            )
            .unwrap();
        when_due(&mut connection, Timestamp::from_nanos(1_000_000_000_000), RETENTION).unwrap();
        assert_eq!(rows(&store, "SELECT count(*) FROM exemplars"), [20_000]);
        assert_eq!(rows(&store, "SELECT min(begun) FROM exemplars"), [11]);
    }
}
