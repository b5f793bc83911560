//! Who explains the bytes of a connection: the library where the calls on it are its own, the kernel's tap where it read
//! them, or nobody.

use std::collections::{HashMap, VecDeque};

use farcall::ledger::Sighting as Wire;
use farcall_agent::ExplainedBy;

use super::{AGAIN, CAPACITY, Decision, GLANCE, HOLD, PATIENCE, Process, SLACK};
use crate::{
    coverage::Completeness,
    tap::{NameSource, Progress},
};

/// How long a connection is remembered of which nothing is heard: its end is reported, unless that was lost.
const IDLE: u64 = 3_600_000_000_000;

/// Reports of connections that wait, and what was decided of the exchanges on each.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Those that nobody looked at yet.
    fresh: VecDeque<Report>,
    /// Those that wait for a library.
    queue: VecDeque<Report>,
    marks: HashMap<u64, Mark>,
}

/// A report of a connection, with the bytes of those before it that were carried forward.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) progress: Progress,
    /// When it was made.
    pub(super) seen: u64,
    /// When the first one was made that is in it.
    since: u64,
    /// When to look at it.
    until: u64,
}

impl Report {
    /// Takes in the one before it.
    fn follow(&mut self, earlier: &Self) {
        self.progress.new_out += earlier.progress.new_out;
        self.progress.new_in += earlier.progress.new_in;
        self.since = self.since.min(earlier.since);
    }
}

/// What is known of one connection.
#[derive(Debug, Default)]
struct Mark {
    /// Exchanges that the library counted too.
    confirmed: u64,
    /// Exchanges that were decided, one way or the other.
    decided: u64,
    /// Whether the library made a call on it that the kernel could not read.
    of_library: bool,
    /// A report of which it is too early to say anything.
    carried: Option<Box<Report>>,
    touched: u64,
}

impl Connections {
    /// An exchange was decided: the library counted it, or did not.
    pub(super) fn decided(&mut self, connection: Option<u64>, confirmed: bool, at: u64) {
        let Some(id) = connection else { return };
        if let Some(mark) = self.mark(id, at) {
            mark.decided += 1;
            mark.confirmed += u64::from(confirmed);
        }
    }

    /// Takes a report, to be looked at once its exchanges are decided. Returns one that finds no room any more.
    pub(super) fn report(&mut self, progress: Progress, now: u64) -> Option<Report> {
        let until = now.saturating_add(GLANCE + SLACK);
        self.fresh.push_back(Report { progress, seen: now, since: now, until });
        if self.queue.len() + self.fresh.len() <= CAPACITY {
            return None;
        }
        self.queue.pop_front().or_else(|| self.fresh.pop_front())
    }

    /// A report to be looked at for the first time at `now`.
    pub(super) fn fresh(&mut self, now: u64) -> Option<Report> {
        self.fresh.front().is_some_and(|report| report.until <= now).then(|| self.fresh.pop_front())?
    }

    /// Takes back one of which a library may yet tell.
    pub(super) fn hold(&mut self, mut report: Report) {
        report.until = report.seen.saturating_add(HOLD + SLACK);
        self.queue.push_back(report);
    }

    /// A report that has waited long enough at `now`.
    pub(super) fn due(&mut self, now: u64) -> Option<Report> {
        self.queue.front().is_some_and(|report| report.until <= now).then(|| self.queue.pop_front())?
    }

    /// Takes back a report of which it is too early to say anything.
    pub(super) fn wait(&mut self, mut report: Report, now: u64) {
        // All but the last go with the next one of their connection: so they stay in order.
        if !report.progress.last
            && let Some(mark) = self.mark(report.progress.connection.id, report.seen)
        {
            if let Some(earlier) = &mark.carried {
                report.follow(earlier);
            }
            mark.carried = Some(Box::new(report));
        } else {
            report.until = now.saturating_add(AGAIN);
            self.queue.push_back(report);
        }
    }

    /// What was carried forward, to be looked at again.
    pub(super) fn carried(&mut self) -> Vec<Report> {
        self.marks.values_mut().filter_map(|mark| mark.carried.take()).map(|report| *report).collect()
    }

    /// Says who explains a report of a connection of `process`. `None` where it is too early: the connection's first call
    /// may be under way, of which a library tells only at its end, and until then the bytes are carried forward; but not
    /// for ever, nor when everything ends, with `now` at `u64::MAX`.
    pub(super) fn explain(
        &mut self,
        mut report: Report,
        process: Option<&Process>,
        now: u64,
    ) -> Option<Decision> {
        let id = report.progress.connection.id;
        if let Some(earlier) = self.marks.get_mut(&id).and_then(|mark| mark.carried.take()) {
            report.follow(&earlier);
        }
        let instrumented = process.is_some_and(Process::is_instrumented);
        let mark = self.marks.get(&id);
        let explained = explanation(&report.progress, process, mark, now);
        let is_undecided = mark.is_none_or(|mark| mark.decided == 0)
            && match report.progress.connection.verdict {
                Completeness::Complete => true,
                _ => explained == ExplainedBy::Nobody,
            };
        let is_early = !report.progress.last && now < report.since.saturating_add(PATIENCE);
        if instrumented && is_undecided && is_early {
            self.wait(report, now);
            return None;
        }
        if report.progress.last {
            self.marks.remove(&id);
        } else if explained == ExplainedBy::Library
            && let Some(mark) = self.mark(id, report.seen)
        {
            mark.of_library = true;
        }
        Some(Decision::Connection(report.progress, explained, instrumented))
    }

    /// Forgets connections of which nothing was heard for long.
    pub(super) fn forget(&mut self, now: u64) {
        self.marks.retain(|_, mark| mark.carried.is_some() || mark.touched.saturating_add(IDLE) > now);
    }

    fn mark(&mut self, id: u64, at: u64) -> Option<&mut Mark> {
        if self.marks.len() >= CAPACITY && !self.marks.contains_key(&id) {
            return None;
        }
        let mark = self.marks.entry(id).or_default();
        mark.touched = mark.touched.max(at);
        Some(mark)
    }
}

fn explanation(progress: &Progress, process: Option<&Process>, mark: Option<&Mark>, now: u64) -> ExplainedBy {
    let connection = &progress.connection;
    let until = if connection.closed == 0 { now } else { connection.closed };
    let (confirmed, of_library) = mark.map_or((0, false), |mark| (mark.confirmed, mark.of_library));
    match connection.verdict {
        Completeness::Complete if confirmed > 0 && confirmed >= connection.exchanges => {
            return ExplainedBy::Library;
        }
        Completeness::Complete => return ExplainedBy::Kernel,
        _ => {}
    }
    let Some(process) = process else { return ExplainedBy::Nobody };
    let name = connection.name.as_ref().map(|(name, _)| name);
    let mut hosts = name.into_iter().chain(&connection.tunnel);
    if matches!(connection.verdict, Completeness::Opaque { .. })
        && let Some(by) = hosts.find_map(|host| process.called_without_socket(host, connection.opened, until))
    {
        return by;
    }
    // Where the kernel cannot read, a call of the library to the same host at the time is the explanation.
    let called = |host: &str| process.library_called(Wire::host_key(host), connection.opened, until);
    let called_by_library = || match &connection.name {
        // Whoever has an address for a host needs no name, even where the hosts file has one.
        Some((name, NameSource::Hosts)) => called(name) || called(&connection.remote.0.to_string()),
        Some((name, _)) => called(name),
        None => called(&connection.remote.0.to_string()),
    };
    let called_through = || connection.tunnel.as_deref().is_some_and(called);
    if confirmed > 0 || of_library || called_by_library() || called_through() {
        ExplainedBy::Library
    } else {
        ExplainedBy::Nobody
    }
}
