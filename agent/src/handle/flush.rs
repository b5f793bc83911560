//! One flush: engine -> sidecar and ledger.

use super::Setup;
use super::heard::Heard;
use super::process::{Process, caught};
use crate::cache::purge_cache;
use crate::home::SOCKET;
use crate::hub::Hub;
use crate::report::ReportError;
use crate::say;
use crate::store::{Beside, Failure, Kind, Pending, Presence, Store};
use crate::tally::Tallies;
use farcall::Timestamp;
use farcall::matcher::Matcher;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A process without calls says so often that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// How long the last flush goes on asking for a ledger that others hold: there is none after it.
const LAST: Duration = Duration::from_secs(5);

/// What a flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flush {
    /// Rows (calls of one kind, connections, confirmations) that it wrote.
    pub written: usize,
    /// Rows that could not be written, and wait for the next flush.
    pub pending: usize,
}

/// Everything that one flush at a time touches.
#[derive(Debug)]
pub(super) struct Writer {
    pending: Pending,
    store: Option<Store>,
    hub: Option<Hub>,
    retention: Duration,
    said: HashSet<&'static str>,
    heard: Heard,
    last_written: Timestamp,
    /// Adapters, hub and end, as they were written last.
    last_presence: (usize, bool, bool, String),
    has_called: bool,
    greeted: bool,
    sightings_from: Timestamp,
    /// Up to when it is known what other processes spent.
    spending_from: Timestamp,
    /// The last purge that is known; `None` before the first look.
    purged: Option<i64>,
}

impl Writer {
    pub(super) fn new(setup: &Setup) -> Self {
        let home = setup.home.as_deref().filter(|_| setup.options.enabled);
        Self {
            pending: Pending::new(setup.config.ledger.max_rows_per_minute),
            store: home.map(|home| Store::new(home.into())),
            hub: home.filter(|_| setup.options.hub).map(|home| Hub::new(Path::join(home, SOCKET))),
            retention: setup.config.ledger.retention,
            said: HashSet::new(),
            heard: Heard::default(),
            last_written: Timestamp::EPOCH,
            last_presence: (0, false, false, String::new()),
            has_called: false,
            greeted: false,
            sightings_from: Timestamp::EPOCH,
            spending_from: Timestamp::EPOCH,
            purged: None,
        }
    }

    /// Says a sentence on stderr, the first time that this happens.
    pub(super) fn say_once(&mut self, what: &'static str, sentence: &str) {
        if self.said.insert(what) {
            say::say(sentence);
        }
    }

    /// Tells the engine what all processes have spent, once everything of this one is written.
    pub(super) fn learn_spending(&mut self, process: &Process) {
        let Some(store) = self.store.as_ref().filter(|_| !process.unusable) else { return };
        if !self.pending.is_empty() || !process.engine.asks_spending() {
            return;
        }
        let now = process.clock.now();
        process.writing.store(true, Ordering::Release);
        let totals = store.spending(self.spending_from);
        process.writing.store(false, Ordering::Release);
        match totals {
            Ok(totals) => {
                process.engine.tell_spending(totals, now);
                self.spending_from = now;
            }
            Err(failure) => {
                Tallies::add(&process.tallies.failed_flushes, 1);
                self.say_once(failure.kind.as_str(), &format!("{failure}; {}", failure.remedy()));
            }
        }
    }

    /// Forgets what people want the cache to forget. What was wanted before this process began it never had, but may be
    /// given by who shares with it: of that nothing is taken which was asked for before somebody wanted to be rid of it.
    /// Whether they could be read.
    pub(super) fn learn_purges(&mut self, process: &Process) -> bool {
        let Some(store) = self.store.as_ref().filter(|_| !process.unusable) else { return false };
        if !process.engine.has_caches() {
            return false;
        }
        process.writing.store(true, Ordering::Release);
        let purges = store.purges(self.purged.unwrap_or(0));
        process.writing.store(false, Ordering::Release);
        match purges {
            Ok(purges) => {
                let first = self.purged.is_none();
                for purge in &purges {
                    self.purged = Some(purge.id);
                    let conditions = purge.conditions.iter().map(|(key, text)| (key.as_str(), text.as_str()));
                    if let Ok(which) = Matcher::new(conditions) {
                        let at = if first { purge.at } else { process.clock.now() };
                        let forgotten = process.engine.purge_cache(&which, at);
                        Tallies::add(&process.tallies.purged_answers, forgotten);
                    }
                }
                self.purged.get_or_insert(0);
                true
            }
            Err(failure) => {
                Tallies::add(&process.tallies.failed_flushes, 1);
                self.say_once(failure.kind.as_str(), &format!("{failure}; {}", failure.remedy()));
                false
            }
        }
    }

    pub(super) fn leave_hub(&mut self) {
        if let Some(hub) = &mut self.hub {
            hub.leave();
        }
    }

    /// Looks for a sidecar, and asks the engine for sightings once there is one.
    pub(super) fn look_for_hub(&mut self, process: &Process) {
        let Some(hub) = &mut self.hub else { return };
        if hub.look() {
            process.engine.record_sightings(true);
            self.sightings_from = process.clock.now();
            self.greeted = false;
        }
    }

    /// Tells the sidecar of the calls. Only once there is an adapter or a call: a process that said hello
    /// claims that its library sees everything.
    fn tell_hub(&mut self, process: &Process, sightings: &[farcall::ledger::Sighting]) {
        self.look_for_hub(process);
        let Some(hub) = self.hub.as_mut().filter(|hub| hub.is_connected()) else { return };
        let adapters = process.adapters();
        if !self.greeted {
            if adapters.names.is_empty() && !self.has_called {
                return;
            }
            let since = adapters.since.unwrap_or(process.since);
            hub.hello(process.clock.anchor(), since, self.sightings_from.max(since));
            self.greeted = true;
        }
        hub.tell(sightings, &process.tallies);
        if !hub.is_connected() {
            process.engine.record_sightings(false);
        }
    }

    fn presence(&self, process: &Process, ended: bool) -> Presence {
        Presence {
            caller: process.caller.clone(),
            role: process.setup.options.role.as_str(),
            adapters: process.adapters().names.join(","),
            hub: self.hub.as_ref().is_some_and(Hub::is_connected),
            config: process.watch.in_force().map_or_else(String::new, |file| file.display().to_string()),
            since: process.since,
            now: process.clock.now(),
            // Whoever ended stays so, whatever is written after.
            ended: ended || process.has_ended(),
            counters: process.counters(),
        }
    }

    fn write(&mut self, process: &Process, ended: bool) -> Flush {
        let presence = self.presence(process, ended);
        let state = (presence.adapters.len(), presence.hub, presence.ended, presence.config.clone());
        // One that ended has nothing more to say of itself, once that is written.
        let due = match presence.ended {
            true => ended || !self.last_presence.2,
            false => state != self.last_presence || presence.now.since(self.last_written) > HEARTBEAT,
        };
        if self.pending.is_empty() && !due {
            return Flush { written: 0, pending: 0 };
        }
        let rows = self.pending.len();
        let mut beside = Beside::default();
        let result = match &self.store {
            None => {
                // Said at the start: there is nowhere to write, and there will not be.
                self.heard.tell(&self.pending.take_urgent(), presence.now);
                self.pending.written();
                return Flush { written: 0, pending: 0 };
            }
            Some(store) if process.unusable => Err(Failure::forked(store)),
            Some(store) => {
                process.writing.store(true, Ordering::Release);
                let begun = Instant::now();
                let mut result = store.write(&self.pending, &presence, self.retention, &mut beside);
                while ended
                    && matches!(&result, Err(failure) if failure.kind == Kind::Busy)
                    && begun.elapsed() < LAST
                {
                    result = store.write(&self.pending, &presence, self.retention, &mut beside);
                }
                process.writing.store(false, Ordering::Release);
                result
            }
        };
        if let Some(failure) = beside.upkeep {
            Tallies::add(&process.tallies.failed_upkeep, 1);
            let sentence =
                format!("old rows of the ledger stay as they are: {failure}; {}", failure.remedy());
            self.say_once("upkeep", &sentence);
        }
        if let Some(aside) = beside.aside {
            Tallies::add(&process.tallies.corrupt_ledgers, 1);
            self.say_once(
                "aside",
                &format!("the ledger was damaged; it is now {aside}, and a new one begins"),
            );
        }
        match result {
            Ok(()) => {
                self.heard.tell(&beside.told, presence.now);
                self.pending.written();
                self.last_written = presence.now;
                self.last_presence = state;
                Flush { written: rows, pending: 0 }
            }
            Err(failure) => {
                Tallies::add(&process.tallies.failed_flushes, 1);
                self.say_once(failure.kind.as_str(), &format!("{failure}; {}", failure.remedy()));
                // Whether others told it is not known. Where they only hold the ledger, it soon will be.
                if ended || failure.kind != Kind::Busy {
                    self.heard.tell(&self.pending.take_urgent(), presence.now);
                }
                Flush { written: 0, pending: rows }
            }
        }
    }
}

impl Process {
    /// Has all programs of the ledger forget the answers that these conditions are about, and this one before it
    /// returns. How many programs there are.
    pub(super) fn purge_cache(&self, conditions: &[(String, String)]) -> Result<u64, ReportError> {
        let told = purge_cache(self.setup.home.as_deref().ok_or(ReportError::NoHome)?, conditions)?;
        // As the next flush would; where that cannot read it, what is wanted is known here all the same.
        if !self.writer().learn_purges(self) {
            let conditions = conditions.iter().map(|(key, text)| (key.as_str(), text.as_str()));
            if let Ok(which) = Matcher::new(conditions) {
                let forgotten = self.engine.purge_cache(&which, self.clock.now());
                Tallies::add(&self.tallies.purged_answers, forgotten);
            }
        }
        Ok(told)
    }

    /// Drains the engine, tells the sidecar, writes the ledger. With `ended` also that the process ended. A panic
    /// in here is ours, and stays here.
    pub(super) fn flush(&self, ended: bool) -> Flush {
        catch_unwind(AssertUnwindSafe(|| self.flush_once(ended))).unwrap_or_else(|_| {
            caught(self);
            Flush { written: 0, pending: 0 }
        })
    }

    fn flush_once(&self, ended: bool) -> Flush {
        if ended {
            self.mark_ended();
        }
        let mut writer = self.writer();
        // A fork may have been in between: what is counted here is the parent's.
        if !self.is_current() {
            return Flush { written: 0, pending: 0 };
        }
        // Both: the one alone does not follow, where the other does not agree.
        if self.clock.follow() | self.agree_on_clock() {
            // The sidecar was told how the clocks stand to each other: it must be told again.
            writer.leave_hub();
        }
        self.tick_share();
        let now = self.clock.now();
        self.tended.store(now.as_nanos(), Ordering::Relaxed);
        if !self.setup.options.enabled {
            return Flush { written: 0, pending: 0 };
        }
        self.tell();
        if self.has_ended() {
            // Whatever an SDK still tries, it is not certain that there will be another flush.
            self.engine.finish();
        }
        let mut batch = self.engine.drain(now);
        // Shard by shard is no order; where equal calls overlap, the sidecar matches in the order in which they come.
        batch.sightings.sort_unstable_by_key(|sighting| sighting.ended);
        writer.has_called |= !batch.rows.is_empty() || !batch.sightings.is_empty();
        writer.tell_hub(self, &batch.sightings);
        writer.pending.add(batch, &self.engine, &self.tallies);
        self.drains.fetch_add(1, Ordering::Release);
        self.take_incoming(&mut writer.pending);
        let flush = writer.write(self, ended);
        if !ended {
            writer.learn_spending(self);
            writer.learn_purges(self);
        }
        flush
    }
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Denied => "denied",
            Self::NoDirectory => "no_directory",
            Self::Busy => "busy",
            Self::Corrupt => "corrupt",
            Self::Newer => "newer",
            Self::Forked => "forked",
            Self::Other => "other",
        }
    }
}
