//! Names as numbers that hold in the whole engine, for accounts of who used a quota.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Names that are told apart; further ones are `other`.
const MAX_NAMES: usize = 65_536;

/// Asked when a plan is made, and when an incident is told.
#[derive(Debug)]
pub(super) struct Names {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    numbers: HashMap<Arc<str>, u32, FixedState>,
    names: Vec<Arc<str>>,
}

impl Names {
    pub(super) fn new() -> Self {
        let other: Arc<str> = crate::ledger::OTHER.into();
        let mut numbers = HashMap::default();
        numbers.insert(Arc::clone(&other), 0);
        Self { known: Mutex::new(Known { numbers, names: vec![other] }) }
    }

    pub(super) fn number(&self, name: &str) -> u32 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.numbers.get(name) {
            return *number;
        }
        if known.names.len() >= MAX_NAMES {
            return 0;
        }
        let (number, name) = (u32::try_from(known.names.len()).unwrap_or(0), Arc::<str>::from(name));
        known.names.push(Arc::clone(&name));
        known.numbers.insert(name, number);
        number
    }

    pub(super) fn name(&self, number: u32) -> Arc<str> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.names.get(number as usize).unwrap_or(&known.names[0]))
    }
}
