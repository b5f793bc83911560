//! What rules remember from call to call: one state for each rule and whatever it is kept apart by.

use super::account::Account;
use super::warned::Warned;
use crate::matcher::{Partition, Subject};
use crate::resilience::{Breaker, Budget, Concurrency, Hedge};
use crate::rollout::Rollout;
use crate::units::stable_hash;
use crate::{budget, quota};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

/// States of one kind that are kept at a time. Those that no plan holds leave first; a rule that finds no room is not
/// asked, and counted (`unkept_rules`).
const MAX_STATES: usize = 65_536;
/// From so many notes on, a drain lets go of those that no plan holds.
const CROWD: usize = MAX_STATES / 4 * 3;

/// The states of all kinds.
#[derive(Debug, Default)]
pub(super) struct AllStates {
    pub(super) rollouts: States<Rollout>,
    pub(super) budgets: States<budget::State>,
    pub(super) quotas: States<quota::State>,
    pub(super) accounts: States<Account>,
    pub(super) retries: States<Budget>,
    pub(super) breakers: States<Breaker>,
    pub(super) hedges: States<Hedge>,
    pub(super) concurrency: States<Concurrency>,
    pub(super) warned: States<Warned>,
    /// What the agent told of budgets, and of prices that fall with the month's volume.
    pub(super) spent: Mutex<Known>,
    /// With which of the accounts the next drain begins to tell how their quotas stand.
    pub(super) told_standings: AtomicUsize,
    /// With which of the limits that rules state it begins.
    pub(super) told_limits: AtomicUsize,
    /// For the drain.
    pub(super) noted_budgets: Noted<budget::Rule, budget::State>,
    pub(super) noted_quotas: Noted<quota::Rule, quota::State>,
}

/// By name, then by partition: the period and the total.
pub(super) type Known = HashMap<String, HashMap<String, (u64, u64), FixedState>, FixedState>;

/// The states of one kind, by key. Asked when a plan is made, not for each call.
#[derive(Debug)]
pub(super) struct States<T> {
    kept: Mutex<HashMap<u64, Arc<T>, FixedState>>,
}

impl<T> Default for States<T> {
    fn default() -> Self {
        Self { kept: Mutex::new(HashMap::default()) }
    }
}

impl<T> States<T> {
    /// The state of a key, made on first use. `None` where there are too many in use.
    pub(super) fn get(&self, key: Key, make: impl FnOnce() -> T) -> Option<Arc<T>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = kept.get(&key.0) {
            return Some(Arc::clone(state));
        }
        if kept.len() >= MAX_STATES {
            kept.retain(|_, state| Arc::strong_count(state) > 1);
            if kept.len() >= MAX_STATES {
                return None;
            }
        }
        let state = Arc::new(make());
        kept.insert(key.0, Arc::clone(&state));
        Some(state)
    }

    /// Another state in the place of the one that is there.
    pub(super) fn replace(&self, key: Key, state: T) -> Arc<T> {
        let state = Arc::new(state);
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(key.0, Arc::clone(&state));
        state
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<T>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.values().map(Arc::clone).collect()
    }
}

/// What a drain has to say of a state, by its key: replaced whenever a plan is made, since rules change.
#[derive(Debug)]
pub(super) struct Noted<R, S> {
    list: Mutex<HashMap<u64, Note<R, S>, FixedState>>,
}

/// A state, its rule and how people know it.
#[derive(Debug)]
pub(super) struct Note<R, S> {
    pub(super) rule: Arc<str>,
    pub(super) of: Of,
    pub(super) then: Arc<R>,
    pub(super) state: Arc<S>,
    /// What was told of it before.
    pub(super) told: u64,
    /// In which period, and how much of that was of it.
    pub(super) told_in: (u64, u64),
}

/// What a state is about.
#[derive(Clone, Debug)]
pub(super) struct Of {
    /// What it is kept apart by, in words.
    pub(super) partition: Arc<str>,
    /// The vendor of the call that it was made for.
    pub(super) vendor: Arc<str>,
    /// Whether it is about that vendor alone.
    pub(super) one_vendor: bool,
}

impl<R, S> Default for Noted<R, S> {
    fn default() -> Self {
        Self { list: Mutex::new(HashMap::default()) }
    }
}

impl<R: PartialEq, S> Noted<R, S> {
    /// Whether it was not noted before.
    pub(super) fn note(&self, key: Key, rule: &Arc<str>, of: Of, then: &Arc<R>, state: &Arc<S>) -> bool {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(note) = list.get_mut(&key.0) {
            if note.then != *then {
                note.then = Arc::clone(then);
            }
            if !Arc::ptr_eq(&note.state, state) {
                note.state = Arc::clone(state);
            }
            return false;
        }
        let note = Note {
            rule: Arc::clone(rule),
            of,
            then: Arc::clone(then),
            state: Arc::clone(state),
            told: 0,
            told_in: (0, 0),
        };
        list.insert(key.0, note);
        true
    }

    /// Does something with each.
    pub(super) fn each(&self, mut f: impl FnMut(&mut Note<R, S>)) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.values_mut().for_each(&mut f);
    }

    /// Drains each; `f` says whether there was anything to tell. Where there are many, those leave that no plan holds any
    /// more and of which there was nothing, together with their state: a note that is made anew takes it for unheard of.
    pub(super) fn drain(&self, states: &States<S>, mut f: impl FnMut(&mut Note<R, S>) -> bool) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() < CROWD {
            list.values_mut().for_each(|note| _ = f(note));
            return;
        }
        let mut kept = states.kept.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|key, note| {
            // Nobody can take it from the states meanwhile.
            let held = Arc::strong_count(&note.state) > 2;
            let leaves = !f(note) && !held;
            if leaves && kept.get(key).is_some_and(|state| Arc::ptr_eq(state, &note.state)) {
                kept.remove(key);
            }
            !leaves
        });
    }
}

/// What a state is kept under: the same in every process that reads the same rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) u64);

impl Key {
    /// The state of a rule of this name.
    pub(super) fn of(rule: &str) -> Self {
        Self(stable_hash(0, rule.as_bytes()))
    }

    /// Kept apart by this, too.
    pub(super) fn and(self, text: &str) -> Self {
        Self(stable_hash(self.0, text.as_bytes()))
    }

    /// Kept apart by this number, too.
    pub(super) fn and_number(self, number: u64) -> Self {
        Self(stable_hash(self.0, &number.to_le_bytes()))
    }

    /// What the state of a quota is kept under here: a reload that shares it with others, or fairly, makes another state
    /// of it. Where its cell lies, all of them find the same one under the key itself.
    pub(super) fn kept_as(self, rule: &quota::Rule) -> Self {
        self.and_number(rule.shared as u64 | u64::from(rule.fair) << 2)
    }

    /// Kept apart by what the rule's `*` stand for in this call.
    pub(super) fn and_partition(self, partition: &Partition, subject: &Subject<'_>) -> Self {
        match partition.is_empty() {
            true => self,
            false => partition.values(subject).fold(self, Self::and),
        }
    }
}
