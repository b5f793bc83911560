//! Plans that were made before, by shard.

use super::plan::Plan;
use crate::inspect::{Fingerprinter, Recent};
use crate::ledger::{Found, Shard};
use crate::matcher::Fields;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::Arc;

/// Plans that one shard keeps. Beyond that it starts anew: customers that come once would fill any cache.
const MAX_PLANS: usize = 4_096;

/// What one shard's threads keep; under the shard's lock.
#[derive(Debug)]
pub(super) struct Plans {
    plans: HashMap<PlanKey, Arc<Plan>, FixedState>,
    /// Of the rules that the plans were made by.
    generation: u32,
    /// What those rules look at.
    depends: Fields,
    /// Of the credentials that its threads send.
    pub(super) fingerprints: Recent,
}

/// What tells plans apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PlanKey {
    pub(super) found: Found,
    pub(super) caller: u32,
    pub(super) secret: u64,
    pub(super) extra: u64,
}

impl Plans {
    pub(super) fn new(seed: u64, by: Fingerprinter) -> Self {
        let plans = HashMap::with_hasher(FixedState::with_seed(seed));
        Self { plans, generation: 0, depends: Fields::NONE, fingerprints: Recent::new(by) }
    }

    /// What the rules look at by which the last plan was made.
    pub(super) fn depends(&self) -> Fields {
        self.depends
    }

    /// The plan of a key, made by `make` on first use. The names of the key are held for as long as it is kept.
    pub(super) fn get(
        &mut self,
        key: PlanKey,
        generation: u32,
        shard: &mut Shard,
        make: impl FnOnce(&Shard) -> Plan,
    ) -> Arc<Plan> {
        if self.generation != generation {
            self.forget(shard);
            self.generation = generation;
        }
        if let Some(plan) = self.plans.get(&key) {
            return Arc::clone(plan);
        }
        self.add(key, shard, make)
    }

    #[cold]
    #[inline(never)]
    fn add(&mut self, key: PlanKey, shard: &mut Shard, make: impl FnOnce(&Shard) -> Plan) -> Arc<Plan> {
        if self.plans.len() >= MAX_PLANS {
            self.forget(shard);
        }
        let plan = Arc::new(make(shard));
        self.depends = plan.rules.depends;
        shard.keep(key.found);
        self.plans.insert(key, Arc::clone(&plan));
        plan
    }

    #[cold]
    #[inline(never)]
    fn forget(&mut self, shard: &mut Shard) {
        for (key, _) in self.plans.drain() {
            shard.release(key.found);
        }
    }
}
