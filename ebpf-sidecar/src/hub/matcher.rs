//! Which exchanges of the kernel are calls that the library counted. All times are `CLOCK_MONOTONIC` nanoseconds.
//!
//! An exchange waits until a sighting can no longer come. Everything is bounded: what finds no room is decided at once.

mod connections;

use std::collections::{HashMap, VecDeque};

use farcall::ledger::Sighting as Wire;
use farcall_agent::ExplainedBy;

use crate::{
    tap::{Exchange, Progress},
    wire::exchange::{self, Outcome},
};
use connections::{Connections, Report};

/// How long an exchange waits for the library, from its end: two flushes of the library and some.
const HOLD: u64 = 3_000_000_000;
/// How long it waits where nothing shows that there is a library in its process: one connects before its first call.
const GLANCE: u64 = 500_000_000;
/// After so long every library that ran before we listened has connected: each tries once a second.
const GATHERING: u64 = 10_000_000_000;
/// How far the intervals of one call may be apart: the two taps read their clocks at different moments.
const SLACK: u64 = 50_000_000;
/// How long a sighting waits for its exchange. An abandoned response ends for the kernel when its connection does.
const PATIENCE: u64 = 600_000_000_000;
/// How long after its end a call may stay untold by a library that speaks: from the moment when it gathered its calls to
/// the one when we read of them.
const LAG: u64 = 500_000_000;
/// How long a library that is connected may be silent (a stopped process, a slow disk) until its calls are decided
/// without it.
const SILENCE: u64 = 60_000_000_000;
/// How long what a library said is remembered after it left: its last calls and connections are decided by it.
const FAREWELL: u64 = 5_000_000_000;
/// When to look again at what waits for a silent library.
const AGAIN: u64 = 1_000_000_000;
/// Exchanges, sightings and connections that wait, each.
const CAPACITY: usize = 65_536;
/// Sightings that each process may keep even so.
const FAIR_SHARE: usize = 64;

/// What a library said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// From when on it saw every call.
    pub(super) since: u64,
    /// From when on it tells of every call that ends.
    pub(super) sightings_from: u64,
    /// When it said so.
    pub(super) at: u64,
}

/// A call that a library counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) begun: u64,
    pub(super) ended: u64,
    pub(super) key: u64,
    pub(super) host: u64,
    pub(super) status: u16,
    /// Exchanges that it may still match.
    pub(super) attempts: u16,
    /// Whether it was one exchange only, which must then have the same status, where that is known.
    pub(super) single: bool,
}

/// What becomes of what was seen. The flag says whether the process has a library.
#[derive(Clone, Debug)]
pub(super) enum Decision {
    /// The kernel alone saw this call.
    Count(Exchange, bool),
    /// The library counted this call.
    Confirm(Exchange),
    /// Bytes of a connection, and who explains them.
    Connection(Progress, ExplainedBy, bool),
}

#[derive(Debug)]
struct Held {
    exchange: Exchange,
    key: u64,
    number: u64,
}

/// What is known of one process.
#[derive(Debug, Default)]
struct Process {
    hellos: Vec<Hello>,
    sightings: VecDeque<Sighting>,
    held: VecDeque<Held>,
    /// Calls whose socket is unknown, by host: they explain a connection to that host.
    loose: VecDeque<Loose>,
    /// From when to when the library called a host, by [`Wire::host_key`].
    hosts: HashMap<u64, (u64, u64)>,
    last_word: u64,
    /// Connections to the hub that are open, whether they said hello or not.
    came: usize,
    /// Those that said hello.
    connected: usize,
    /// When the last of them went.
    left: u64,
}

#[derive(Debug)]
struct Loose {
    host: String,
    begun: u64,
    ended: u64,
    by: ExplainedBy,
}

/// Calls without a socket that are remembered of one process.
const MAX_LOOSE: usize = 1_024;
/// Hosts that are remembered of one process.
const MAX_HOSTS: usize = 4_096;

impl Process {
    /// Whether there is a library in it.
    fn is_instrumented(&self) -> bool {
        !self.hellos.is_empty()
    }

    /// Whether there is a library in it, as far as can be told, which may not have said so yet.
    fn has_library(&self) -> bool {
        self.came > 0 || self.is_instrumented()
    }

    /// Whether the library may still tell of a call that ended at `ended`.
    fn may_tell_of(&self, ended: u64) -> bool {
        self.connected > 0 && ended.saturating_add(LAG) > self.last_word
    }

    /// Whether the library called the host between the two moments.
    fn library_called(&self, host: u64, from: u64, until: u64) -> bool {
        self.hosts.get(&host).is_some_and(|(first, last)| {
            *first <= until.saturating_add(SLACK) && last.saturating_add(SLACK) >= from
        })
    }

    /// Who explains a call to the host between the two moments whose socket is unknown, if there was one.
    fn called_without_socket(&self, host: &str, from: u64, until: u64) -> Option<ExplainedBy> {
        let during = |call: &&Loose| {
            call.host == host && call.begun >= from && call.ended <= until.saturating_add(SLACK)
        };
        self.loose.iter().find(during).map(|call| call.by)
    }

    fn decided(&mut self, exchange: &Exchange, by: ExplainedBy) {
        if exchange.connection.is_none() {
            if self.loose.len() == MAX_LOOSE {
                self.loose.pop_front();
            }
            let (begun, ended) = (exchange.http.begun, exchange.http.ended);
            self.loose.push_back(Loose { host: exchange.host.clone(), begun, ended, by });
        }
    }
}

/// Matches exchanges with sightings.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    processes: HashMap<u32, Process>,
    /// When we began to listen for libraries, last.
    since: u64,
    /// Exchanges in order of arrival, by process and number, with the time at which they are looked at first.
    fresh: VecDeque<(u64, u32, u64)>,
    /// Those that wait for a library, with the time at which they are decided.
    due: VecDeque<(u64, u32, u64)>,
    connections: Connections,
    decided: Vec<Decision>,
    numbers: u64,
    sightings: usize,
    forgotten: u64,
}

impl Matcher {
    /// One for libraries that can be heard from `now` on.
    pub(super) fn new(now: u64) -> Self {
        Self { since: now, ..Self::default() }
    }

    /// From `now` on libraries can connect again that could not.
    pub(super) fn gather(&mut self, now: u64) {
        self.since = now;
    }

    /// A library connected.
    pub(super) fn came(&mut self, pid: u32) {
        self.processes.entry(pid).or_default().came += 1;
    }

    /// A library said hello.
    pub(super) fn hello(&mut self, pid: u32, hello: Hello) {
        let process = self.processes.entry(pid).or_default();
        process.last_word = process.last_word.max(hello.at);
        process.connected += 1;
        if process.hellos.len() < 16 {
            process.hellos.push(hello);
        }
        // What is held may have ended before the library began to tell.
        let held = std::mem::take(&mut process.held);
        for held in held {
            self.place(held.exchange, held.key, held.number);
        }
    }

    /// A library's connection ended, or its process did; whether it had said hello.
    pub(super) fn left(&mut self, pid: u32, at: u64, greeted: bool) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.came = process.came.saturating_sub(1);
            if greeted {
                process.connected = process.connected.saturating_sub(1);
                process.left = at;
            }
        }
    }

    /// Whether a library in this process may be about to tell, or nobody can say yet that there is none.
    fn may_have_library(&self, pid: u32, now: u64) -> bool {
        now < self.since.saturating_add(GATHERING)
            || self.processes.get(&pid).is_some_and(Process::has_library)
    }

    /// A library has told of every call that ended before `at`.
    pub(super) fn told(&mut self, pid: u32, at: u64) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.last_word = process.last_word.max(at);
        }
    }

    /// A library counted calls. It tells those of one core after those of another; they are taken as they ended.
    pub(super) fn sightings(&mut self, pid: u32, mut told: Vec<Sighting>) {
        told.sort_by_key(|sighting| sighting.ended);
        for sighting in told {
            self.sighting(pid, sighting);
        }
    }

    fn sighting(&mut self, pid: u32, mut sighting: Sighting) {
        let process = self.processes.entry(pid).or_default();
        if process.hosts.len() < MAX_HOSTS || process.hosts.contains_key(&sighting.host) {
            let called = process.hosts.entry(sighting.host).or_insert((sighting.begun, sighting.ended));
            *called = (called.0.min(sighting.begun), called.1.max(sighting.ended));
        }
        while sighting.attempts > 0 {
            let held = process.held.iter().enumerate();
            let matching = held.filter(|(_, held)| matches(&sighting, &held.exchange, held.key));
            let Some((place, _)) = matching.min_by_key(|(_, held)| held.exchange.http.ended) else { break };
            let Some(held) = process.held.remove(place) else { break };
            sighting.attempts -= 1;
            process.decided(&held.exchange, ExplainedBy::Library);
            confirm(&mut self.decided, &mut self.connections, held.exchange);
        }
        if sighting.attempts == 0 {
            return;
        }
        // Where the kernel cannot read, no sighting is ever matched: such a process loses its own oldest, nobody else's.
        if self.sightings >= CAPACITY && process.sightings.len() >= FAIR_SHARE {
            process.sightings.pop_front();
            self.sightings -= 1;
        }
        process.sightings.push_back(sighting);
        self.sightings += 1;
    }

    /// The kernel saw an exchange.
    pub(super) fn exchange(&mut self, exchange: Exchange) {
        let host = exchange.http.host.trim_start_matches('[').trim_end_matches(']');
        let host = if host.is_empty() { exchange.host.as_str() } else { host };
        let key = Wire::key(&exchange.http.method, host.trim_end_matches('.'), &exchange.http.path);
        self.numbers += 1;
        let number = self.numbers;
        self.fresh.push_back((exchange.http.ended, exchange.process.tgid, number));
        self.place(exchange, key, number);
        while self.fresh.len() + self.due.len() > CAPACITY {
            let Some((_, pid, number)) = self.due.pop_front().or_else(|| self.fresh.pop_front()) else {
                break;
            };
            self.decide(pid, number);
        }
    }

    /// Confirms an exchange where that can be said now, or holds it.
    fn place(&mut self, exchange: Exchange, key: u64, number: u64) {
        let process = self.processes.entry(exchange.process.tgid).or_default();
        let ended = exchange.http.ended;
        if process.hellos.iter().any(|hello| hello.since <= ended && ended < hello.sightings_from) {
            process.decided(&exchange, ExplainedBy::Library);
            return confirm(&mut self.decided, &mut self.connections, exchange);
        }
        let sightings = process.sightings.iter().enumerate();
        let matching = sightings.filter(|(_, sighting)| matches(sighting, &exchange, key));
        let first = matching.min_by_key(|(_, sighting)| sighting.ended);
        match first.map(|(place, _)| place) {
            Some(place) => {
                process.sightings[place].attempts -= 1;
                if process.sightings[place].attempts == 0 {
                    process.sightings.remove(place);
                    self.sightings -= 1;
                }
                process.decided(&exchange, ExplainedBy::Library);
                confirm(&mut self.decided, &mut self.connections, exchange);
            }
            None => process.held.push_back(Held { exchange, key, number }),
        }
    }

    /// The kernel saw bytes on a connection. Who explains them shows later.
    pub(super) fn connection(&mut self, progress: Progress, now: u64) {
        if let Some(surplus) = self.connections.report(progress, now) {
            self.explain(surplus, now);
        }
    }

    /// Decides what has waited long enough at `now`.
    pub(super) fn due(&mut self, now: u64) -> Vec<Decision> {
        while let Some(&(ended, pid, number)) =
            self.fresh.front().filter(|(ended, ..)| ended.saturating_add(GLANCE) <= now)
        {
            self.fresh.pop_front();
            match self.may_have_library(pid, now) {
                true => self.due.push_back((ended.saturating_add(HOLD), pid, number)),
                false => self.decide(pid, number),
            }
        }
        while let Some(&(_, pid, number)) = self.due.front().filter(|(until, ..)| *until <= now) {
            self.due.pop_front();
            match self.must_wait(pid, number, now) {
                true => self.due.push_back((now.saturating_add(AGAIN), pid, number)),
                false => self.decide(pid, number),
            }
        }
        while let Some(report) = self.connections.fresh(now) {
            match self.may_have_library(report.progress.connection.process.tgid, now) {
                true => self.connections.hold(report),
                false => self.explain(report, now),
            }
        }
        while let Some(report) = self.connections.due(now) {
            self.explain(report, now);
        }
        if now.saturating_sub(self.forgotten) > SLACK * 20 {
            self.forgotten = now;
            for report in self.connections.carried() {
                self.explain(report, now);
            }
            self.forget(now);
        }
        std::mem::take(&mut self.decided)
    }

    /// Whether the library has not spoken since the call, but will.
    fn must_wait(&self, pid: u32, number: u64, now: u64) -> bool {
        let Some(process) = self.processes.get(&pid) else { return false };
        let Some(held) = process.held.iter().find(|held| held.number == number) else { return false };
        let ended = held.exchange.http.ended;
        process.may_tell_of(ended) && now < ended.saturating_add(SILENCE)
    }

    /// Decides everything. A call that its library has not had the time to tell of is taken for the library's: it will
    /// be in the ledger either way, and must not be there twice.
    pub(super) fn finish(&mut self) -> Vec<Decision> {
        let due = std::mem::take(&mut self.due);
        for (_, pid, number) in due.into_iter().chain(std::mem::take(&mut self.fresh)) {
            let Some(process) = self.processes.get_mut(&pid) else { continue };
            let place = process.held.iter().position(|held| held.number == number);
            let untold = place.filter(|place| process.may_tell_of(process.held[*place].exchange.http.ended));
            if let Some(held) = untold.and_then(|place| process.held.remove(place)) {
                confirm(&mut self.decided, &mut self.connections, held.exchange);
            } else {
                self.decide(pid, number);
            }
        }
        while let Some(report) = self.connections.due(u64::MAX).or_else(|| self.connections.fresh(u64::MAX)) {
            self.explain(report, u64::MAX);
        }
        for report in self.connections.carried() {
            self.explain(report, u64::MAX);
        }
        std::mem::take(&mut self.decided)
    }

    /// Counts an exchange that nobody confirmed.
    fn decide(&mut self, pid: u32, number: u64) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if let Some(place) = process.held.iter().position(|held| held.number == number)
            && let Some(held) = process.held.remove(place)
        {
            process.decided(&held.exchange, ExplainedBy::Kernel);
            self.connections.decided(held.exchange.connection, false, held.exchange.http.ended);
            self.decided.push(Decision::Count(held.exchange, process.is_instrumented()));
        }
    }

    fn explain(&mut self, report: Report, now: u64) {
        let process = self.processes.get(&report.progress.connection.process.tgid);
        // Its exchanges wait just as long.
        let must_wait = process.is_some_and(|process| process.may_tell_of(report.seen));
        if must_wait && now < report.seen.saturating_add(SILENCE) {
            return self.connections.wait(report, now);
        }
        self.decided.extend(self.connections.explain(report, process, now));
    }

    fn forget(&mut self, now: u64) {
        let mut sightings = 0;
        self.processes.retain(|_, process| {
            process.sightings.retain(|sighting| sighting.ended.saturating_add(PATIENCE) > now);
            sightings += process.sightings.len();
            process.loose.retain(|call| call.ended.saturating_add(PATIENCE) > now);
            let gone = process.connected == 0 && process.left.saturating_add(FAREWELL) < now;
            if gone && process.held.is_empty() {
                process.hellos.clear();
                process.hosts.clear();
            }
            !(process.came == 0
                && process.hellos.is_empty()
                && process.sightings.is_empty()
                && process.held.is_empty()
                && process.loose.is_empty())
        });
        self.sightings = sightings;
        self.connections.forget(now);
    }
}

fn confirm(decided: &mut Vec<Decision>, connections: &mut Connections, exchange: Exchange) {
    connections.decided(exchange.connection, true, exchange.http.ended);
    decided.push(Decision::Confirm(exchange));
}

/// Whether the status that we read may not be the one that the client read: of an answer that breaks or bends the rules
/// each reads what it can, and of one that we lost before its head we read none.
fn is_status_open(http: &exchange::Exchange) -> bool {
    match http.outcome {
        _ if http.bent => true,
        Outcome::Malformed => true,
        Outcome::Unknown => http.status == 0,
        _ => false,
    }
}

/// Whether the two may be the same call: same request, and they overlap. Of several that may, the one that ended first
/// is taken, since it has the fewest others to be matched with: so as many as can be are, which of equal calls it was
/// matters to nobody.
fn matches(sighting: &Sighting, exchange: &Exchange, key: u64) -> bool {
    let http = &exchange.http;
    sighting.attempts > 0
        && sighting.key == key
        && (!sighting.single || sighting.status == http.status || is_status_open(http))
        && http.begun <= sighting.ended.saturating_add(SLACK)
        && sighting.begun <= http.ended.saturating_add(SLACK)
}

#[cfg(test)]
mod tests;
