//! One flush: everything that waits, in one transaction.

use super::connection::{ConnectionRollup, Numbers};
use super::file::Open;
use super::pending::{Key, Row};
use super::{Failure, Kind, Pending, Store, compact, incident};
use crate::home::LEDGER;
use farcall::cost::Unknown;
use farcall::ledger::{Exemplar, Notice};
use farcall::{Caller, Timestamp};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::collections::HashMap;
use std::time::Duration;

/// The most that one number of a row holds: 73 years of nanoseconds, 2 EiB. Sums of two are still an `i64`, and sums
/// in the store stop here (`add_up`): beyond an `i64`, SQLite would go on in floating point, which a STRICT
/// table refuses, and the flush would fail for ever.
pub(super) const MOST: i64 = i64::MAX / 4;

/// What a process says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    pub(crate) caller: Caller,
    pub(crate) role: &'static str,
    /// Adapter names, separated by commas.
    pub(crate) adapters: String,
    /// Whether a sidecar is connected.
    pub(crate) hub: bool,
    /// The configuration file in force; empty where there is none.
    pub(crate) config: String,
    pub(crate) since: Timestamp,
    pub(crate) now: Timestamp,
    pub(crate) ended: bool,
    pub(crate) counters: Vec<(String, u64)>,
}

/// What else came of a flush.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// The name under which a damaged ledger is now.
    pub(crate) aside: Option<String>,
    /// Why old rows could not be added up or removed.
    pub(crate) upkeep: Option<Failure>,
    /// The notices that no process of this home had told before.
    pub(crate) told: Vec<Notice>,
}

impl Store {
    /// Writes everything that waits, or nothing. A damaged file is moved aside first; its new name comes
    /// beside the result.
    pub(crate) fn write(
        &self,
        pending: &Pending,
        presence: &Presence,
        retention: Duration,
        beside: &mut Beside,
    ) -> Result<(), Failure> {
        let before = self.inode();
        match self.try_write(pending, presence, retention, beside) {
            Err(failure) if failure.kind == Kind::Corrupt => {
                match self.set_aside(before.or_else(|| self.inode())) {
                    Ok(name) => beside.aside = name.map(|name| name.display().to_string()),
                    Err(error) => {
                        return Err(Failure::new(
                            self.file(),
                            Kind::Corrupt,
                            format!("{LEDGER} is damaged, and cannot be moved aside: {error}"),
                        ));
                    }
                }
                self.try_write(pending, presence, retention, beside)
            }
            result => result,
        }
    }

    fn try_write(
        &self,
        pending: &Pending,
        presence: &Presence,
        retention: Duration,
        beside: &mut Beside,
    ) -> Result<(), Failure> {
        let mut open = self.open()?;
        beside.told =
            write_all(&mut open, pending, presence).map_err(|error| Failure::sqlite(self.file(), &error))?;
        // What was written is written: upkeep that fails is due again an hour later, and must not make the
        // caller write the same counts twice.
        let upkeep = compact::when_due(&mut open.connection, presence.now, retention);
        let failed = upkeep.err().map(|error| Failure::sqlite(self.file(), &error));
        // Where another process writes for long, there is nothing wrong.
        beside.upkeep = failed.filter(|failure| failure.kind != Kind::Busy);
        self.tidy(&open);
        Ok(())
    }
}

/// Gives the notices that are thereby told for the first time.
fn write_all(open: &mut Open, pending: &Pending, presence: &Presence) -> rusqlite::Result<Vec<Notice>> {
    // Immediate: two writers that both began by reading could not both go on.
    let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut names = Names { connection: &transaction, known: HashMap::new(), callers: HashMap::new() };
    for (key, row) in &pending.rows {
        write_row(&mut names, key, row)?;
    }
    for (key, exemplar) in &pending.exemplars {
        write_exemplar(&mut names, key, exemplar)?;
    }
    for (key, numbers) in &pending.connections {
        write_connection(&mut names, key, numbers)?;
    }
    for (key, calls) in &pending.confirmed {
        let (vendor, endpoint) = (names.number(&key.vendor)?, names.number(&key.endpoint)?);
        let caller = names.caller(&key.caller)?;
        transaction
            .prepare_cached(
                "INSERT INTO confirmed VALUES (1, ?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET calls = add_up(calls, excluded.calls)",
            )?
            .execute(params![int(key.minute), vendor, endpoint, caller, int(*calls)])?;
    }
    super::advice::write(&mut names, pending, presence)?;
    super::quotas::write(&mut names, pending, presence)?;
    write_events(&mut names, pending, presence)?;
    let told = super::notices::write(&mut names, pending, presence)?;
    write_presence(&mut names, presence)?;
    transaction.commit()?;
    Ok(told)
}

fn write_row(names: &mut Names<'_>, key: &Key, row: &Row) -> rusqlite::Result<()> {
    let sums = &row.sums;
    let (vendor, endpoint) = (names.number(&key.vendor)?, names.number(&key.endpoint)?);
    let (customer, tags) = (names.number(&key.customer)?, names.number(&key.tags)?);
    let caller = names.caller(&key.caller)?;
    names
        .connection
        .prepare_cached(
            "INSERT INTO rollups VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,
                ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34)
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
        )?
        .execute(params![
            int(key.minute),
            vendor,
            endpoint,
            customer,
            tags,
            caller,
            key.tap.as_str(),
            key.status,
            key.outcome.as_str(),
            int(sums.calls),
            int(sums.attempts),
            int(sums.bytes_out),
            int(sums.bytes_in),
            nanos(sums.duration),
            nanos(sums.ttfb),
            nanos(sums.transfer),
            int(sums.answered),
            int(sums.connections),
            nanos(sums.dns),
            nanos(sums.connect),
            nanos(sums.tls),
            row.latency.to_bytes(),
            nanos(sums.waited),
            sums.cost.clamp(-MOST, MOST),
            int(sums.cost_unknown),
            int(sums.tokens_in),
            int(sums.tokens_out),
            int(sums.saved_bytes),
            sums.saved_cost.clamp(-MOST, MOST),
            int(sums.saved_requests),
            int(sums.saved_tokens),
            int(sums.dns_known),
            int(sums.connect_known),
            int(sums.tls_known),
        ])?;
    Ok(())
}

fn write_exemplar(names: &mut Names<'_>, key: &Key, exemplar: &Exemplar) -> rusqlite::Result<()> {
    let (vendor, endpoint) = (names.number(&key.vendor)?, names.number(&key.endpoint)?);
    let (customer, tags) = (names.number(&key.customer)?, names.number(&key.tags)?);
    let caller = names.caller(&key.caller)?;
    names
        .connection
        .prepare_cached(
            "INSERT INTO exemplars VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,
                ?16, ?17, ?18, ?19)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            i64::try_from(exemplar.begun.as_nanos()).unwrap_or(i64::MAX),
            exemplar.id.cast_signed(),
            caller,
            vendor,
            endpoint,
            customer,
            tags,
            key.tap.as_str(),
            key.status,
            key.outcome.as_str(),
            nanos(exemplar.duration),
            exemplar.ttfb.map(nanos),
            int(exemplar.bytes_out),
            int(exemplar.bytes_in),
            exemplar.attempts,
            nanos(exemplar.waited),
            exemplar.cost,
            exemplar.events,
            exemplar.cost_unknown.map(Unknown::as_str),
        ])?;
    Ok(())
}

fn write_connection(
    names: &mut Names<'_>,
    key: &ConnectionRollup,
    numbers: &Numbers,
) -> rusqlite::Result<()> {
    let caller = names.caller(&key.caller)?;
    let (vendor, name) = (names.number(&key.vendor)?, names.number(&key.name)?);
    let (address, library) = (names.number(&key.address)?, names.number(&key.library)?);
    let reason = names.number(&key.reason)?;
    names
        .connection
        .prepare_cached(
            "INSERT INTO connections VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,
                ?15, ?16, ?17)
             ON CONFLICT DO UPDATE SET connections = add_up(connections, excluded.connections),
                bytes_out = add_up(bytes_out, excluded.bytes_out), bytes_in = add_up(bytes_in, excluded.bytes_in),
                rtt = add_up(rtt, excluded.rtt), rtt_samples = add_up(rtt_samples, excluded.rtt_samples),
                retransmits = add_up(retransmits, excluded.retransmits),
                duration = add_up(duration, excluded.duration)",
        )?
        .execute(params![
            int(key.minute),
            caller,
            vendor,
            name,
            address,
            key.port,
            library,
            key.verdict.as_str(),
            reason,
            key.explained_by.as_str(),
            int(numbers.connections),
            int(numbers.bytes_out),
            int(numbers.bytes_in),
            nanos(numbers.rtt),
            int(numbers.rtt_samples),
            int(numbers.retransmits),
            nanos(numbers.duration),
        ])?;
    Ok(())
}

/// Incidents, and what was spent of budgets.
fn write_events(names: &mut Names<'_>, pending: &Pending, presence: &Presence) -> rusqlite::Result<()> {
    for (source, incident) in &pending.incidents {
        let Caller { pid_namespace, pid, started, .. } = &presence.caller;
        let source = format!("{pid}:{pid_namespace}/{started}/{source}");
        names
            .connection
            .prepare_cached(
                "INSERT INTO incidents (source, at, vendor, incident) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (source) DO UPDATE SET incident = excluded.incident",
            )?
            .execute(params![
                source,
                int_time(incident.at),
                incident.vendor,
                incident::to_json(incident).to_string()
            ])?;
    }
    for ((budget, partition, period), spent) in &pending.spending {
        names
            .connection
            .prepare_cached(
                "INSERT INTO spending VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET spent = add_up(spent, excluded.spent), at = excluded.at",
            )?
            .execute(params![budget, partition, int(*period), int(*spent), int_time(presence.now)])?;
        // Nobody asks for the periods before the last one.
        names
            .connection
            .prepare_cached("DELETE FROM spending WHERE budget = ?1 AND partition = ?2 AND period < ?3")?
            .execute(params![budget, partition, int(period.saturating_sub(1))])?;
    }
    Ok(())
}

fn write_presence(names: &mut Names<'_>, presence: &Presence) -> rusqlite::Result<()> {
    let caller = names.caller(&presence.caller)?;
    let now = int_time(presence.now);
    names
        .connection
        .prepare_cached(
            "INSERT INTO processes (caller, role, version, adapters, hub, since, last_flush, ended, config)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT DO UPDATE SET adapters = excluded.adapters, hub = excluded.hub,
                last_flush = excluded.last_flush, ended = excluded.ended, config = excluded.config",
        )?
        .execute(params![
            caller,
            presence.role,
            env!("CARGO_PKG_VERSION"),
            presence.adapters,
            presence.hub,
            int_time(presence.since),
            now,
            presence.ended.then_some(now),
            presence.config,
        ])?;
    for (name, value) in presence.counters.iter().filter(|(_, value)| *value > 0) {
        names
            .connection
            .prepare_cached(
                "INSERT INTO counters VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET value = excluded.value",
            )?
            .execute(params![caller, name, int(*value)])?;
    }
    Ok(())
}

/// Names and callers as their numbers, for the length of one transaction: a later one may find them gone.
pub(super) struct Names<'t> {
    pub(super) connection: &'t Connection,
    known: HashMap<String, i64>,
    callers: HashMap<Caller, i64>,
}

impl Names<'_> {
    pub(super) fn number(&mut self, name: &str) -> rusqlite::Result<i64> {
        if let Some(&number) = self.known.get(name) {
            return Ok(number);
        }
        let mut find = self.connection.prepare_cached("SELECT id FROM names WHERE name = ?1")?;
        let number = match find.query_row([name], |row| row.get(0)).optional()? {
            Some(number) => number,
            None => self.connection.prepare_cached("INSERT INTO names (name) VALUES (?1)")?.insert([name])?,
        };
        self.known.insert(name.to_owned(), number);
        Ok(number)
    }

    pub(super) fn caller(&mut self, caller: &Caller) -> rusqlite::Result<i64> {
        if let Some(&number) = self.callers.get(caller) {
            return Ok(number);
        }
        let key = params![
            caller.pid,
            int(caller.started),
            caller.service,
            caller.executable,
            int(caller.pid_namespace)
        ];
        let mut find = self.connection.prepare_cached(
            "SELECT id FROM callers
             WHERE pid = ?1 AND started = ?2 AND service = ?3 AND executable = ?4 AND pid_namespace = ?5",
        )?;
        let number = match find.query_row(key, |row| row.get(0)).optional()? {
            Some(number) => number,
            None => self
                .connection
                .prepare_cached(
                    "INSERT INTO callers (service, executable, pid, started, container, user, pid_namespace)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .insert(params![
                    caller.service,
                    caller.executable,
                    caller.pid,
                    int(caller.started),
                    caller.container,
                    caller.user,
                    int(caller.pid_namespace)
                ])?,
        };
        self.callers.insert(caller.clone(), number);
        Ok(number)
    }
}

pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(MOST).min(MOST)
}

pub(super) fn int_time(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

pub(super) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(MOST).min(MOST)
}
