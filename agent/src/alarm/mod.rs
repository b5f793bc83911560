//! Alarms: somebody is told when a critical call fails.
//!
//! They go by ways of their own: a client that is made for one alarm, to a webhook or a collector; a program, a file, stderr; never through the
//! engine, so that no quota, breaker, budget or policy stands in their way, and never over a connection that calls use.
//! The call itself only leaves a note in a bounded queue; threads of their own do the rest, one for each way, and end
//! when there is nothing to do. What cannot be told is counted and said on stderr, and the next failure of that rule is told again.

mod event;
mod message;
mod thread;
mod way;

pub use way::{Told, at_critical_vendors, has_way, test};

use crate::export::otlp::{Attributes, Instrument, Metrics, Number, Point};
use crate::say;
use crate::turn::{self, Turn};
use farcall::outbox::{Alarms, Failed};
use farcall::{Config, Timestamp};
use message::Message;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use thread::Lane;
use way::{Way, Ways};

const FILE: &str = "alarms.json";
const ALARMS: Instrument = Instrument {
    name: "farcall.alarms",
    unit: "{alarm}",
    description: "Alarms of this process: that went out, that no way took, and that found too many waiting",
};
/// Alarms that wait to be handed on, and with them those that wait for a way.
const MAX_WAITING: usize = 64;
/// Rules whose last alarm is remembered; there are no more of them in any file that people write.
const MAX_RULES: usize = 1_024;
/// How long the end of the process waits for alarms that are on their way.
const WIND_DOWN: Duration = Duration::from_secs(3);

/// The alarms of one process.
#[derive(Debug)]
pub(crate) struct Alarm {
    service: String,
    pid: u32,
    /// The file in which the processes of this host say what they told.
    told: Option<PathBuf>,
    state: Mutex<State>,
    changed: Condvar,
    /// Alarms that a way took, or that had none but stderr.
    heard: AtomicU64,
    /// Alarms that no way took.
    failed: AtomicU64,
    /// Ways that did not take an alarm, whether or not another did.
    failed_ways: AtomicU64,
    /// Alarms that found the queue full.
    lost: AtomicU64,
}

#[derive(Debug)]
struct State {
    ways: Arc<Ways>,
    rules: HashMap<Arc<str>, Last>,
    waiting: VecDeque<(Message, Instant)>,
    /// Whether a thread is there.
    runs: bool,
    /// Whether it is handing something on.
    busy: bool,
    /// What each way has to tell, by its number.
    lanes: [Lane; Way::ALL.len()],
}

impl State {
    /// How many wait, as the way has it that is ahead of the others.
    fn backlog(&self) -> usize {
        let by_way = self.ways.all.iter().map(|way| self.lanes[*way as usize].waiting.len());
        self.waiting.len() + usize::from(self.busy) + by_way.min().unwrap_or(0)
    }

    /// Whether nothing is on its way.
    fn rests(&self) -> bool {
        (!self.runs || (!self.busy && self.waiting.is_empty())) && self.lanes.iter().all(Lane::rests)
    }
}

/// The last alarm of a rule.
#[derive(Debug)]
struct Last {
    at: Timestamp,
    /// Failures since.
    since: u64,
}

impl Alarm {
    pub(crate) fn new(config: &Config, service: &str, pid: u32, home: Option<&Path>) -> Arc<Self> {
        Arc::new(Self {
            service: service.to_owned(),
            pid,
            told: home.map(|home| home.join(FILE)),
            state: Mutex::new(State {
                ways: Arc::new(Ways::of(config)),
                rules: HashMap::new(),
                waiting: VecDeque::new(),
                runs: false,
                busy: false,
                lanes: Default::default(),
            }),
            changed: Condvar::new(),
            heard: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            failed_ways: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        })
    }

    /// The file of the configuration says something else now.
    pub(crate) fn reload(&self, config: &Config) {
        self.lock().ways = Arc::new(Ways::of(config));
    }

    /// Name and value of each counter.
    pub(crate) fn counters(&self) -> [(String, u64); 4] {
        let read = |name: &str, counter: &AtomicU64| (name.to_owned(), counter.load(Ordering::Relaxed));
        [
            read("told_alarms", &self.heard),
            read("untold_alarms", &self.failed),
            read("lost_alarms", &self.lost),
            read("failed_alarm_ways", &self.failed_ways),
        ]
    }

    /// Adds the alarms of this process, by what became of them; nothing while there was none.
    pub(crate) fn count(&self, metrics: &mut Metrics) {
        let outcomes = [("told", &self.heard), ("untold", &self.failed), ("lost", &self.lost)];
        let outcomes = outcomes.map(|(outcome, counter)| (outcome, counter.load(Ordering::Relaxed)));
        if outcomes.iter().all(|(_, count)| *count == 0) {
            return;
        }
        let point = |(outcome, count)| Point {
            attributes: Attributes::default().text("farcall.alarm.outcome", outcome),
            value: Number::Whole(count),
        };
        metrics.sum(ALARMS, outcomes.map(point).into());
    }

    /// Lets what is on its way arrive, if it does soon.
    pub(crate) fn wind_down(&self) {
        let state = self.lock();
        let _ = self.changed.wait_timeout_while(state, WIND_DOWN, |state| !state.rests());
    }

    /// A call was taken into too few copies of the outbox.
    pub(crate) fn missing_copy(self: &Arc<Self>, missing: &MissingCopy<'_>) {
        let message = Message::of_copies(missing, &self.service, self.pid);
        let at = Timestamp::from_nanos(message.farcall.at_ms.saturating_mul(1_000_000));
        let rule: Arc<str> = message.farcall.rule.as_str().into();
        self.raise(&rule, at, || message);
    }

    /// Leaves a message for the thread, if it is time for one. Whether it is.
    fn raise(self: &Arc<Self>, rule: &Arc<str>, at: Timestamp, message: impl FnOnce() -> Message) -> bool {
        let mut state = self.lock();
        let every = state.ways.alarm.every;
        let mut earlier = 0;
        if let Some(last) = state.rules.get_mut(rule) {
            // One that is in the future was told before a clock was set back.
            if last.at <= at && at.since(last.at) < every {
                last.since += 1;
                return false;
            }
            earlier = last.since;
        }
        if state.backlog() >= MAX_WAITING || (state.rules.len() >= MAX_RULES && earlier == 0) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        state.rules.insert(Arc::clone(rule), Last { at, since: 0 });
        state.waiting.push_back((message().after(earlier), Instant::now()));
        if !state.runs {
            match thread::start(self) {
                Ok(()) => state.runs = true,
                Err(error) => {
                    state.waiting.pop_back();
                    state.rules.remove(rule);
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    drop(state);
                    say::say(&format!("cannot start the thread of the alarm: {error}"));
                    return false;
                }
            }
        }
        drop(state);
        self.changed.notify_all();
        true
    }

    /// The message as it is to be told within `lease`; `None` where another process of this host told of its rule a
    /// moment ago, or is telling.
    fn turn(&self, message: Message, every: Duration, lease: Duration) -> Option<Message> {
        let Some(file) = self.told.as_deref().filter(|_| !every.is_zero()) else { return Some(message) };
        let (held_back, at_ms) = (message.farcall.held_back, message.farcall.at_ms);
        let name = self.name_on_host(&message.farcall.rule);
        match turn::turn(file, &name, (every, lease), held_back, at_ms) {
            Turn::Tell { held_back } => Some(message.after(held_back)),
            Turn::NotBefore { at_ms } => {
                // The next failure from then on is left to the thread again.
                let at = Timestamp::from_nanos(at_ms.saturating_mul(1_000_000)).minus(every);
                if let Some(last) = self.lock().rules.get_mut(message.farcall.rule.as_str()) {
                    last.at = at;
                }
                None
            }
        }
    }

    /// Somebody was told of the alarm that had its turn then.
    fn told(&self, message: &Message) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        if let Some(file) = &self.told {
            turn::told(file, &self.name_on_host(&message.farcall.rule), message.farcall.at_ms);
        }
    }

    fn name_on_host(&self, rule: &str) -> String {
        format!("{}/{rule}", self.service)
    }

    /// No way took an alarm of this rule: its next failure is told at once.
    fn not_told(&self, rule: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.lock().rules.remove(rule);
        if let Some(file) = &self.told {
            turn::forget(file, &self.name_on_host(rule));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The alarms, as the engine has them.
#[derive(Debug)]
pub(crate) struct Bell(pub(crate) Arc<Alarm>);

impl Alarms for Bell {
    fn failed(&self, failed: &Failed<'_>) -> bool {
        let alarm = &self.0;
        alarm.raise(failed.rule, failed.at, || Message::of(failed, &alarm.service, alarm.pid))
    }
}

/// A call that is in too few copies of the outbox, and was taken all the same.
#[derive(Debug)]
pub(crate) struct MissingCopy<'a> {
    pub(crate) vendor: &'a str,
    pub(crate) endpoint: &'a str,
    pub(crate) customer: Option<&'a str>,
    /// How many copies have it.
    pub(crate) has: usize,
    /// How many should.
    pub(crate) needed: usize,
    pub(crate) why: &'a str,
}

#[cfg(test)]
mod tests;
