//! What rules remember from call to call: one state for each rule and whatever it is kept apart by.

use crate::matcher::{Partition, Subject};
use crate::units::stable_hash;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// States of one kind that are kept at a time. Those that no plan holds leave first; beyond that, calls share one.
const MAX_STATES: usize = 65_536;

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

    /// All of them.
    pub(super) fn all(&self) -> Vec<(u64, Arc<T>)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|(key, state)| (*key, Arc::clone(state))).collect()
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

    /// Kept apart by what the rule's `*` stand for in this call.
    pub(super) fn and_partition(self, partition: &Partition, subject: &Subject<'_>) -> Self {
        match partition.is_empty() {
            true => self,
            false => partition.values(subject).fold(self, Self::and),
        }
    }
}
