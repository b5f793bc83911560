//! The thread that asks the store.

use super::store::{self, Question, Store};
use super::{Leased, State, Tallies, lock};
use crate::say;
use farcall::Timestamp;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a host says that it is there.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// After a failure the store is left alone for so long, doubling up to the second number.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// So long a process keeps asking for its host without an answer; more than the pauses between that many questions.
const LEADS_IN_VAIN: Duration = Duration::from_secs(3);
/// After so many failures in a row a process leaves it to others of its host to ask, until the store answers it: perhaps
/// it is the only one that the store does not.
const GIVES_UP: u32 = 4;

pub(super) struct Worker {
    pub(super) store: Store,
    pub(super) process: u32,
    pub(super) state: Arc<(Mutex<State>, Condvar)>,
    pub(super) tallies: Arc<Tallies>,
    pub(super) clock: Box<dyn Fn() -> Timestamp + Send>,
    /// Never zero.
    pub(super) dice: u32,
    /// When the host has to say again that it is there.
    pub(super) beat: Instant,
    /// In a row.
    pub(super) failures: u32,
    pub(super) said: bool,
}

impl Worker {
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.state);
        let mut state = lock(&shared.0);
        while state.running {
            let now = Instant::now();
            let next = state
                .quotas
                .values()
                .filter(|leased| !leased.rests)
                .map(|leased| leased.due)
                .min()
                .map_or(self.beat, |due| due.min(self.beat));
            if let Some(wait) = next.checked_duration_since(now).filter(|wait| !wait.is_zero()) {
                state = shared.1.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let questions = self.questions(&mut state, now);
            drop(state);
            // The network is asked without the lock: a call that makes a quota known must not wait for it.
            let answers = self.store.ask(&questions);
            state = lock(&shared.0);
            self.take(&mut state, &questions, answers);
        }
    }

    pub(super) fn questions(&mut self, state: &mut State, now: Instant) -> Vec<Question> {
        let time = (self.clock)();
        let mut questions = Vec::new();
        for (key, leased) in &mut state.quotas {
            if leased.rests || leased.due > now {
                continue;
            }
            leased.due = now + about(leased.lease.interval(), &mut self.dice);
            // As long as what it asks for holds: when it dies, another asks before calls go by the share. While the
            // store does not answer it, which is asked less often then, no other one has to try as well.
            let lasts = if self.failures == 0 { leased.lease.hold() } else { LEADS_IN_VAIN };
            if self.failures < GIVES_UP && leased.cell.leads(self.process, time, lasts) {
                let wanted = leased.lease.wanted(leased.cell.cell(), time);
                questions.push(Question { key: *key, wanted, rate: leased.rate, asked: time });
            } else {
                leased.lease.stands_by(leased.cell.cell(), time);
            }
        }
        if self.beat <= now {
            self.beat = now + BEAT;
        }
        questions
    }

    pub(super) fn take(
        &mut self,
        state: &mut State,
        questions: &[Question],
        answers: redis::RedisResult<store::Answers>,
    ) {
        match answers {
            Ok(answers) => {
                if std::mem::take(&mut self.failures) >= GIVES_UP {
                    let now = Instant::now();
                    state.quotas.values_mut().for_each(|leased| leased.due = now);
                }
                match answers.hosts {
                    Some(hosts) => state.hosts = hosts,
                    None => {
                        self.broken(&mut state.said, &self.store.name_of_hosts(), "the hosts it knew last")
                    }
                }
                let hosts = state.hosts;
                for (question, grant) in questions.iter().zip(answers.grants) {
                    let Some(leased) = state.quotas.get_mut(&question.key) else { continue };
                    let Leased { cell, lease, said, .. } = leased;
                    match grant {
                        Some(grant) => {
                            let until = question.asked.plus(question.wanted.hold);
                            lease.granted(cell.cell(), grant, until, (self.clock)());
                        }
                        None => {
                            lease.failed();
                            // Of all that there are: nobody can say how many of them use this quota.
                            lease.shares_with(cell.cell(), hosts);
                            self.broken(said, &self.store.name(question.key), "its share of that quota");
                        }
                    }
                }
            }
            Err(error) => {
                self.tallies.failures.fetch_add(1, Ordering::Relaxed);
                let pause = (BACKOFF.0 * 2_u32.pow(self.failures.min(10))).min(BACKOFF.1);
                self.failures = self.failures.saturating_add(1);
                if self.failures < GIVES_UP {
                    for question in questions {
                        if let Some(leased) = state.quotas.get_mut(&question.key) {
                            leased.lease.failed();
                        }
                    }
                } else {
                    // Also of quotas that another asks for: when its turn comes, it knows that the store was away.
                    for leased in state.quotas.values_mut().filter(|leased| !leased.rests) {
                        leased.lease.failed();
                        leased.cell.resigns(self.process);
                    }
                }
                let next = Instant::now() + pause;
                self.beat = self.beat.max(next);
                state.quotas.values_mut().for_each(|leased| leased.due = leased.due.max(next));
                if !std::mem::replace(&mut self.said, true) {
                    // Without the address, which may hold a password.
                    say::say(&format!(
                        "the store of shared quotas does not answer ({}); this host goes on with its share, and refuses calls \
                         under quotas with on_error = \"refuse\"",
                        error.category()
                    ));
                }
            }
        }
    }

    /// Something else lies in the store under a name that begins so: counted each time, and said the first.
    fn broken(&self, said: &mut bool, name: &str, instead: &str) {
        self.tallies.broken.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(said, true) {
            say::say(&format!(
                "the store of shared quotas has something else under `{name}`; this host goes on with {instead}"
            ));
        }
    }
}

/// About this time, by an eighth more or less. Where hosts want more than there is, each gets what refilled since
/// another one asked: who always asked right after another would get nothing.
fn about(time: Duration, dice: &mut u32) -> Duration {
    // Xorshift (Marsaglia 2003).
    *dice ^= *dice << 13;
    *dice ^= *dice >> 17;
    *dice ^= *dice << 5;
    time * (224 + (*dice >> 26)) / 256
}
