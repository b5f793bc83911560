//! Is Farcall itself well? "Never attached" must not look like "no calls".

use super::alive::{Written, states};
use super::counters::{Weight, meaning};
use super::source::Source;
use super::unsent::Processes;
use super::{Query, ReportError, Window, time};
use crate::home::{LEDGER, SOCKET};
use farcall::Caller;
use rusqlite::Connection;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;

/// What `farcall doctor` shows.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Doctor {
    /// Which report this is: `doctor`.
    pub report: &'static str,
    /// The time that it covers; processes that ended before are left out.
    pub window: Window,
    /// Whether there is nothing that somebody should look at.
    pub healthy: bool,
    /// What somebody should look at, in sentences.
    pub problems: Vec<String>,
    /// The ledger's file.
    pub ledger: LedgerHealth,
    /// The sidecar.
    pub sidecar: SidecarHealth,
    /// The outbox of this home directory; null where there is none.
    pub outbox: Option<OutboxHealth>,
    /// The `farcall.toml` of this home directory, which programs read that have none in their working directory and are
    /// told of no other; null where there is none.
    pub config: Option<String>,
    /// Each process that Farcall started in.
    pub processes: Vec<ProcessRow>,
    /// Counters that are not zero: what could not be done as asked.
    pub counters: Vec<Counter>,
}

/// The ledger's file.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct LedgerHealth {
    /// Where it is.
    pub path: String,
    /// Its size with its log, in bytes.
    pub bytes: u64,
    /// Rollup rows.
    pub rollups: u64,
    /// Single calls that were kept.
    pub exemplars: u64,
    /// When its oldest rollup starts, RFC 3339; null where there is none.
    pub oldest: Option<String>,
    /// Damaged ledgers that were moved aside.
    pub moved_aside: Vec<String>,
}

/// The sidecar of this home directory.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct SidecarHealth {
    /// Whether one answers on the socket.
    pub listening: bool,
    /// When one last wrote into the ledger; null where none ever did.
    pub last_seen: Option<String>,
}

/// The outbox.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct OutboxHealth {
    /// Calls that wait for delivery; null, as the further counts, where the outbox cannot be read.
    pub pending: Option<u64>,
    /// When the oldest of them was put, RFC 3339; null where none waits.
    pub oldest: Option<String>,
    /// Calls that were delivered, as far as they are remembered.
    pub delivered: Option<u64>,
    /// Calls that were given up.
    pub dead: Option<u64>,
    /// Why nothing is accepted any more, where the disk failed.
    pub stopped: Option<String>,
    /// Nanoseconds since the oldest was put.
    #[serde(skip)]
    waits: u64,
}

/// A process that Farcall started in.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ProcessRow {
    /// The service's name.
    pub service: String,
    /// The executable's path.
    pub executable: String,
    /// The process id.
    pub pid: u32,
    /// The user that it runs as.
    pub user: String,
    /// `program` or `sidecar`.
    pub role: String,
    /// `running`, `ended`, `replaced` where another program took its place in the same process, or `vanished` where it went
    /// without a last flush.
    pub state: &'static str,
    /// The adapters that are in place. None means that no call of it can be counted by the library.
    pub adapters: Vec<String>,
    /// The configuration file whose rules are in force in it; null where there is none.
    pub config: Option<String>,
    /// Whether it is connected to a sidecar.
    pub hub: bool,
    /// Calls in the window, seen by either tap.
    pub calls: u64,
    /// When Farcall started in it, RFC 3339.
    pub since: String,
    /// When it last wrote.
    pub last_flush: String,
    /// The version of Farcall in it.
    pub version: String,
}

/// A counter of a process that is not zero.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Counter {
    /// The service's name.
    pub service: String,
    /// The process id.
    pub pid: u32,
    /// The counter's name.
    pub name: String,
    /// Its value.
    pub value: u64,
    /// What it counts, in words; empty for one that this version does not know.
    pub meaning: &'static str,
}

/// A delivery that takes longer is worth a look.
const LONG_WAIT: u64 = 3_600_000_000_000;

/// `3 h`, `2 d`.
fn in_words(nanos: u64) -> String {
    match nanos / 3_600_000_000_000 {
        hours @ 0..48 => format!("{hours} h"),
        hours => format!("{} d", hours / 24),
    }
}

/// Is Farcall itself well? The filters of the query are not used.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn doctor(query: &Query) -> Result<Doctor, ReportError> {
    let source = Source::open(query)?;
    let mut problems = Vec::new();
    let file = crate::home::find_config(None, Some(&query.home));
    let unreadable = file.and_then(|file| crate::home::config_text(&file).err());
    let is_readable = unreadable.is_none();
    problems.extend(unreadable.map(|why| {
        format!(
            "{why}: programs that start now have no rules, and whether calls wait in an outbox that it names is not known"
        )
    }));
    let outbox = outbox(query, is_readable, &mut problems);
    let mut doctor = Doctor {
        report: "doctor",
        window: query.window(),
        healthy: true,
        ledger: ledger_file(query),
        sidecar: SidecarHealth {
            listening: UnixStream::connect(query.home.join(SOCKET)).is_ok(),
            last_seen: None,
        },
        outbox,
        config: home_config(query),
        processes: Vec::new(),
        counters: Vec::new(),
        problems,
    };
    if let Some(connection) = source.connection() {
        doctor.read_ledger(connection)?;
        doctor.read_processes(&source, connection)?;
        doctor.counters = read_counters(&source, connection)?;
    }
    doctor.judge();
    Ok(doctor)
}

/// What the programs counted that wrote to the ledger within the window, the highest first; what is zero is left out.
/// The filters of the query are not used.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn counters(query: &Query) -> Result<Vec<Counter>, ReportError> {
    let source = Source::open(query)?;
    source.connection().map_or(Ok(Vec::new()), |connection| read_counters(&source, connection))
}

fn read_counters(source: &Source<'_>, connection: &Connection) -> Result<Vec<Counter>, ReportError> {
    let from = i64::try_from(source.query.first_minute() * 60_000_000_000).unwrap_or(i64::MAX);
    let mut statement = connection.prepare(
        "SELECT c.caller, c.name, c.value FROM counters c JOIN processes p ON p.caller = c.caller
         WHERE p.last_flush >= ?1 AND c.value > 0 ORDER BY c.value DESC",
    )?;
    let (mut rows, mut counters) = (statement.query([from])?, Vec::new());
    while let Some(row) = rows.next()? {
        let Some(caller) = source.caller(row.get(0)?) else { continue };
        let name: String = row.get(1)?;
        counters.push(Counter {
            service: caller.service.clone(),
            pid: caller.pid,
            meaning: meaning(&name).map_or("", |(meaning, _)| meaning),
            name,
            value: row.get::<_, i64>(2)?.unsigned_abs(),
        });
    }
    Ok(counters)
}

fn home_config(query: &Query) -> Option<String> {
    let file = std::path::absolute(query.home.join(crate::home::CONFIG)).ok()?;
    file.is_file().then(|| file.display().to_string())
}

fn ledger_file(query: &Query) -> LedgerHealth {
    let path = query.home.join(LEDGER);
    let size = |suffix: &str| {
        let file = query.home.join(format!("{LEDGER}{suffix}"));
        fs::metadata(file).map_or(0, |metadata| metadata.len())
    };
    let mut moved_aside: Vec<String> = fs::read_dir(&query.home)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            name.starts_with(&format!("{LEDGER}.corrupt-"))
                && !name.ends_with("-wal")
                && !name.ends_with("-shm")
        })
        .collect();
    moved_aside.sort_unstable();
    LedgerHealth {
        path: path.display().to_string(),
        bytes: size("") + size("-wal"),
        moved_aside,
        ..LedgerHealth::default()
    }
}

/// How the outbox stands, and what is wrong with it.
#[cfg(feature = "outbox")]
fn outbox(query: &Query, is_configured: bool, problems: &mut Vec<String>) -> Option<OutboxHealth> {
    // Without a configuration that says otherwise it would be here.
    if !is_configured && !crate::outbox::is_in(&query.home) {
        return None;
    }
    let operator = crate::outbox::Operator::at(&query.home);
    // What cannot be read for this cannot be read for the counts either, which say so.
    let beside = operator.beside().unwrap_or_default();
    let wrong_with_copies = beside.wrong_with_copies();
    // For lack of copies there may be no call yet.
    if !operator.may_have_calls() && wrong_with_copies.is_empty() {
        return None;
    }
    let mut health =
        OutboxHealth { stopped: operator.stopped().map(|why| why.to_string()), ..OutboxHealth::default() };
    // What stops it may be what each question ends in.
    let mut tell = |problem: String| {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    };
    if let Some(why) = &health.stopped {
        tell(why.clone());
    }
    wrong_with_copies.into_iter().for_each(&mut tell);
    let vendors = match operator.vendors() {
        Ok(vendors) => vendors,
        Err(error) => {
            tell(error.to_string());
            return Some(health);
        }
    };
    match operator.awaited() {
        Ok(awaited) => awaited.iter().for_each(|awaited| tell(awaited.to_string())),
        Err(error) => tell(error.to_string()),
    }
    match operator.unreadable() {
        Ok(unreadable) => unreadable.iter().for_each(|unreadable| tell(unreadable.to_string())),
        Err(error) => tell(error.to_string()),
    }
    match operator.untrusting() {
        Ok(untrusting) => untrusting.iter().for_each(|untrusting| tell(untrusting.to_string())),
        Err(error) => tell(error.to_string()),
    }
    let oldest = vendors.iter().filter_map(|count| count.oldest).min();
    health.pending = Some(vendors.iter().map(|count| count.pending).sum());
    health.delivered = Some(vendors.iter().map(|count| count.delivered).sum());
    health.dead = Some(vendors.iter().map(|count| count.dead).sum());
    health.oldest = oldest.map(|at| time::rfc3339(at.unsigned_abs()));
    health.waits = oldest.map_or(0, |at| query.now.as_nanos().saturating_sub(at.unsigned_abs()));
    Some(health)
}

#[cfg(not(feature = "outbox"))]
fn outbox(_: &Query, _: bool, _: &mut Vec<String>) -> Option<OutboxHealth> {
    None
}

impl Doctor {
    fn read_ledger(&mut self, connection: &Connection) -> Result<(), ReportError> {
        let count = |table: &str| -> rusqlite::Result<u64> {
            let sql = format!("SELECT count(*) FROM {table}");
            connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
        };
        self.ledger.rollups = count("rollups")?;
        self.ledger.exemplars = count("exemplars")?;
        let oldest: Option<i64> =
            connection.query_row("SELECT min(minute) FROM rollups", [], |row| row.get(0))?;
        self.ledger.oldest = oldest.map(|minute| time::rfc3339(minute.unsigned_abs() * 60_000_000_000));
        let sidecar: Option<i64> = connection.query_row(
            "SELECT max(last_flush) FROM processes WHERE role = 'sidecar'",
            [],
            |row| row.get(0),
        )?;
        self.sidecar.last_seen = sidecar.map(|nanos| time::rfc3339(nanos.unsigned_abs()));
        Ok(())
    }

    fn read_processes(&mut self, source: &Source<'_>, connection: &Connection) -> Result<(), ReportError> {
        let mut calls = HashMap::<Rc<Caller>, u64>::new();
        source.rows(|row| {
            *calls.entry(Rc::clone(row.caller)).or_default() += row.sums.calls;
        })?;
        let from = i64::try_from(source.query.first_minute() * 60_000_000_000).unwrap_or(i64::MAX);
        let mut statement = connection.prepare(
            "SELECT caller, role, version, adapters, hub, since, last_flush, ended, config FROM processes
             WHERE last_flush >= ?1 ORDER BY ended IS NOT NULL, since DESC",
        )?;
        let mut rows = statement.query([from])?;
        let (mut known, mut written) = (Processes::default(), Vec::new());
        while let Some(row) = rows.next()? {
            let Some(caller) = source.caller(row.get(0)?) else { continue };
            let adapters: String = row.get(3)?;
            let adapters: Vec<String> =
                adapters.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            let last_flush = row.get::<_, i64>(6)?.unsigned_abs();
            let since = row.get::<_, i64>(5)?.unsigned_abs();
            let ended = row.get::<_, Option<i64>>(7)?.is_some();
            written.push(Written { caller: Rc::clone(caller), since, last_flush, ended });
            let config: String = row.get(8)?;
            known.add(caller, &config, &adapters);
            self.processes.push(ProcessRow {
                service: caller.service.clone(),
                executable: caller.executable.clone(),
                pid: caller.pid,
                user: caller.user.clone(),
                role: row.get(1)?,
                state: "",
                adapters,
                config: (!config.is_empty()).then_some(config),
                hub: row.get(4)?,
                calls: calls.get(caller).copied().unwrap_or(0),
                since: time::rfc3339(since),
                last_flush: time::rfc3339(last_flush),
                version: row.get(2)?,
            });
        }
        let states = states(&written, source.query.now.as_nanos());
        self.processes.iter_mut().zip(states).for_each(|(process, state)| process.state = state);
        self.problems.extend(known.problems(source)?);
        Ok(())
    }

    /// Files whose rules are in force in programs that run, and that are none any more.
    fn judge_files(&mut self) {
        let mut gone = BTreeMap::<&str, Vec<String>>::new();
        for process in self.processes.iter().filter(|process| process.state == "running") {
            if let Some(file) = process.config.as_deref().filter(|file| !Path::new(file).is_file()) {
                gone.entry(file).or_default().push(format!("{} (pid {})", process.service, process.pid));
            }
        }
        let told = gone.into_iter().map(|(file, programs)| {
            format!(
                "{file} was removed, or is no file any more: its rules stay in force in {} until the program ends, and \
                 programs that start now do not have them; to end them everywhere, write an empty file there",
                programs.join(", ")
            )
        });
        let told: Vec<String> = told.collect();
        self.problems.extend(told);
    }

    fn judge(&mut self) {
        self.judge_files();
        for process in &self.processes {
            let ProcessRow { service, pid, .. } = process;
            if process.role == "program" && process.adapters.is_empty() && process.state == "running" {
                self.problems.push(format!(
                    "{service} (pid {pid}) has no adapter in place: it counts no call, however many it makes"
                ));
            }
            if process.state == "vanished" {
                self.problems.push(format!(
                    "{service} (pid {pid}) went without a last flush (killed?): up to a second of its calls is \
                     missing"
                ));
            }
        }
        if self.processes.is_empty() {
            self.problems.push(
                "no process with farcall was seen in this window: it was never attached, or attached with \
                 another FARCALL_HOME"
                    .into(),
            );
        }
        if let Some(outbox) = &self.outbox {
            if let Some(dead) = outbox.dead.filter(|dead| *dead > 0) {
                let calls = if dead == 1 { "call" } else { "calls" };
                self.problems
                    .push(format!("the outbox has given up {dead} {calls}: farcall outbox ls --state dead"));
            }
            if let Some(pending) = outbox.pending
                && outbox.waits > LONG_WAIT
            {
                self.problems.push(format!(
                    "of {pending} waiting in the outbox the oldest has been there for {}: farcall outbox ls --state pending",
                    in_words(outbox.waits)
                ));
            }
        }
        for file in &self.ledger.moved_aside {
            self.problems.push(format!("a damaged ledger was moved aside to {file}"));
        }
        // Detail that went into `other` is as it should be, and so is what rules did.
        let harmless = |name: &str| {
            name.starts_with("folded_") || meaning(name).is_some_and(|(_, weight)| weight == Weight::Fine)
        };
        self.healthy =
            self.problems.is_empty() && self.counters.iter().all(|counter| harmless(&counter.name));
    }
}
