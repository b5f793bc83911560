//! Alarms: somebody is told when a critical call fails.
//!
//! They go by ways of their own: a client that is made for one alarm, a program, a file, stderr; never through the
//! engine, so that no quota, breaker, budget or policy stands in their way, and never over a connection that calls use.
//! The call itself only leaves a note in a bounded queue; a thread of its own does the rest, and ends when there is
//! nothing to do. What cannot be told is counted and said on stderr, and the next failure of that rule is told again.

mod message;
mod thread;
mod way;

pub use way::{Told, at_critical_vendor, test};

use crate::say;
use farcall::Timestamp;
use farcall::config::AlarmConfig;
use farcall::outbox::{Alarms, Failed};
use message::Message;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Alarms that wait for the thread.
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
    state: Mutex<State>,
    changed: Condvar,
    /// Alarms that no way took.
    failed: AtomicU64,
    /// Alarms that found the queue full.
    lost: AtomicU64,
}

#[derive(Debug)]
struct State {
    config: Arc<AlarmConfig>,
    rules: HashMap<Arc<str>, Last>,
    waiting: VecDeque<Message>,
    /// Whether a thread is there.
    runs: bool,
    /// Whether it is telling something.
    busy: bool,
}

/// The last alarm of a rule.
#[derive(Debug)]
struct Last {
    at: Timestamp,
    /// Failures since.
    since: u64,
}

impl Alarm {
    pub(crate) fn new(config: &AlarmConfig, service: &str, pid: u32) -> Arc<Self> {
        Arc::new(Self {
            service: service.to_owned(),
            pid,
            state: Mutex::new(State {
                config: Arc::new(config.clone()),
                rules: HashMap::new(),
                waiting: VecDeque::new(),
                runs: false,
                busy: false,
            }),
            changed: Condvar::new(),
            failed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        })
    }

    /// The file of the configuration says something else now.
    pub(crate) fn reload(&self, config: &AlarmConfig) {
        self.lock().config = Arc::new(config.clone());
    }

    /// Name and value of each counter.
    pub(crate) fn counters(&self) -> [(String, u64); 2] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("untold_alarms".to_owned(), read(&self.failed)), ("lost_alarms".to_owned(), read(&self.lost))]
    }

    /// Lets what is on its way arrive, if it does soon.
    pub(crate) fn wind_down(&self) {
        let state = self.lock();
        let _ = self.changed.wait_timeout_while(state, WIND_DOWN, |state| {
            state.runs && (state.busy || !state.waiting.is_empty())
        });
    }

    /// No way took an alarm of this rule: its next failure is told at once.
    fn not_told(&self, rule: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.lock().rules.remove(rule);
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
        let mut state = alarm.lock();
        let every = state.config.every;
        let mut earlier = 0;
        if let Some(last) = state.rules.get_mut(failed.rule) {
            if failed.at.since(last.at) < every {
                last.since += 1;
                return false;
            }
            earlier = last.since;
        }
        if state.waiting.len() >= MAX_WAITING || (state.rules.len() >= MAX_RULES && earlier == 0) {
            alarm.lost.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        state.rules.insert(Arc::clone(failed.rule), Last { at: failed.at, since: 0 });
        let message = Message::of(failed, &alarm.service, alarm.pid, earlier);
        state.waiting.push_back(message);
        if !state.runs {
            match thread::start(alarm) {
                Ok(()) => state.runs = true,
                Err(error) => {
                    state.waiting.pop_back();
                    state.rules.remove(failed.rule);
                    alarm.lost.fetch_add(1, Ordering::Relaxed);
                    drop(state);
                    say::say(&format!("cannot start the thread of the alarm: {error}"));
                    return false;
                }
            }
        }
        drop(state);
        alarm.changed.notify_all();
        true
    }
}

#[cfg(test)]
mod tests;
