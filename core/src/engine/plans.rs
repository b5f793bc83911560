//! Plans that were made before, by shard.

use super::plan::Plan;
use crate::inspect::{Fingerprinter, Recent};
use crate::ledger::{Found, Shard};
use crate::matcher::Fields;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

/// Plans that one shard keeps. Beyond that it starts anew: customers that come once would fill any cache.
const MAX_PLANS: usize = 4_096;

/// What one shard's threads keep; under the shard's lock.
#[derive(Debug)]
pub(super) struct Plans {
    kept: Vec<Kept>,
    /// Where in `kept` the plan of a key lies.
    index: HashTable<u16>,
    /// Where plans were found last, by a quick hash of their keys: looked at before the index is.
    recent: [u16; RECENT],
    hasher: FixedState,
    /// Of the rules that the plans were made by.
    generation: u32,
    /// What those rules look at.
    depends: Fields,
    /// Of the credentials that its threads send.
    pub(super) fingerprints: Recent,
}

/// Plans of which the place is known without a look into the index: one for each [`PlanKey::quick`].
const RECENT: usize = 1 << u8::BITS;

/// A plan, and the hold on it that the last call gave back: the next one takes that, and the count of holders, which
/// other threads may be changing, stays as it is.
#[derive(Debug)]
struct Kept {
    key: PlanKey,
    plan: Arc<Plan>,
    spare: Option<Arc<Plan>>,
}

impl Kept {
    fn lend(&mut self) -> Arc<Plan> {
        self.spare.take().unwrap_or_else(|| Arc::clone(&self.plan))
    }
}

/// What tells plans apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlanKey {
    pub(super) found: Found,
    pub(super) caller: u32,
    pub(super) secret: u64,
    pub(super) extra: u64,
}

impl PlanKey {
    /// All of it in as few words as it fits into.
    fn words(&self) -> [u64; 5] {
        let Self { found: Found { vendor, endpoint, customer, tags }, caller, secret, extra } = *self;
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        [pair(vendor, endpoint), pair(customer, tags), caller.into(), secret, extra]
    }

    /// A byte that differs for most keys, found with one multiplication. Whoever makes keys that have the same gains
    /// nothing but a longer way to their plans.
    fn quick(&self) -> u8 {
        let [one, two, three, four, five] = self.words();
        let mixed = one ^ two.rotate_left(37) ^ three.rotate_left(11) ^ four ^ five.rotate_left(23);
        (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
    }
}

impl PartialEq for PlanKey {
    fn eq(&self, other: &Self) -> bool {
        // Word by word: of as many in one piece the compiler makes a call.
        self.words().into_iter().zip(other.words()).fold(0, |all, (one, other)| all | (one ^ other)) == 0
    }
}

impl Hash for PlanKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words().into_iter().for_each(|word| state.write_u64(word));
    }
}

impl Plans {
    pub(super) fn new(seed: u64, by: Fingerprinter) -> Self {
        Self {
            kept: Vec::new(),
            index: HashTable::new(),
            recent: [0; RECENT],
            hasher: FixedState::with_seed(seed),
            generation: 0,
            depends: Fields::NONE,
            fingerprints: Recent::new(by),
        }
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
        let recent = key.quick();
        match self.kept.get_mut(usize::from(self.recent[usize::from(recent)])) {
            Some(kept) if kept.key == key => kept.lend(),
            _ => self.look_up(recent, key, shard, make),
        }
    }

    /// A call is over that had this plan. Where nothing is to be kept of that, the plan comes back: to be dropped when
    /// the lock is not held.
    pub(super) fn give_back(&mut self, plan: Arc<Plan>) -> Option<Arc<Plan>> {
        match self.kept.get_mut(usize::from(plan.place)) {
            Some(kept) if kept.spare.is_none() && Arc::ptr_eq(&kept.plan, &plan) => {
                kept.spare = Some(plan);
                None
            }
            _ => Some(plan),
        }
    }

    #[inline(never)]
    fn look_up(
        &mut self,
        recent: u8,
        key: PlanKey,
        shard: &mut Shard,
        make: impl FnOnce(&Shard) -> Plan,
    ) -> Arc<Plan> {
        let Self { kept, index, hasher, .. } = self;
        let found = index.find(hasher.hash_one(key), |place| kept[usize::from(*place)].key == key);
        let place = match found {
            Some(place) => *place,
            None => self.add(key, shard, make),
        };
        self.recent[usize::from(recent)] = place;
        self.kept[usize::from(place)].lend()
    }

    #[cold]
    #[inline(never)]
    fn add(&mut self, key: PlanKey, shard: &mut Shard, make: impl FnOnce(&Shard) -> Plan) -> u16 {
        if self.kept.len() >= MAX_PLANS {
            self.forget(shard);
        }
        // At most `MAX_PLANS`.
        let place = u16::try_from(self.kept.len()).unwrap_or(u16::MAX);
        let plan = Arc::new(Plan { place, ..make(shard) });
        self.depends = plan.rules.depends;
        shard.keep(key.found);
        self.kept.push(Kept { key, plan, spare: None });
        let Self { kept, index, hasher, .. } = self;
        let hash = |place: &u16| hasher.hash_one(kept[usize::from(*place)].key);
        index.insert_unique(hash(&place), place, hash);
        place
    }

    #[cold]
    #[inline(never)]
    fn forget(&mut self, shard: &mut Shard) {
        self.index.clear();
        for Kept { key, .. } in self.kept.drain(..) {
            shard.release(key.found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Call, Engine};
    use crate::attribution::Caller;
    use crate::call::Head;
    use crate::config::Config;
    use crate::units::Timestamp;
    use std::sync::Arc;

    const NOW: Timestamp = Timestamp::from_nanos(1_763_700_000_000_000_000);

    fn engine() -> Engine {
        Engine::new(rules("1s"), Caller::new("test"), 1, 1)
    }

    fn rules(deadline: &str) -> Config {
        let rules = format!("[[resilience]]\nmatch = {{ customer = \"*\" }}\ndeadline = \"{deadline}\"");
        Config::parse("test", &rules).unwrap()
    }

    fn begin(engine: &Engine, customer: &str) -> Call {
        let head = Head::new("GET", "https://api.example.com/v1").customer(Some(customer));
        engine.begin(&head, NOW, 1)
    }

    fn holders(call: &Call) -> usize {
        Arc::strong_count(&call.flow.as_ref().unwrap().plan)
    }

    #[test]
    fn a_hold_on_a_plan_goes_from_call_to_call_and_one_at_most_is_kept() {
        let engine = engine();
        for _ in 0..3 {
            let (mut one, mut other) = (begin(&engine, "acme"), begin(&engine, "acme"));
            assert_eq!(holders(&one), 3);
            one.end(&engine, NOW);
            assert_eq!(holders(&other), 3, "the next call has it");
            let third = begin(&engine, "acme");
            assert_eq!(holders(&third), 3, "it is the first one's");
            other.end(&engine, NOW);
            let mut third = third;
            assert_eq!(holders(&third), 3);
            third.end(&engine, NOW);
        }
        let mut last = begin(&engine, "acme");
        assert_eq!(holders(&last), 2, "the plans', and this call's");
        last.end(&engine, NOW);
    }

    #[test]
    fn of_more_keys_than_there_are_quick_places_each_has_its_own_plan() {
        let engine = engine();
        for _ in 0..2 {
            for n in 0..1_000 {
                let name = format!("customer-{n}");
                let mut call = begin(&engine, &name);
                let plan = &call.flow.as_ref().unwrap().plan;
                assert_eq!(plan.customer_name.as_deref(), Some(name.as_str()));
                call.end(&engine, NOW);
            }
        }
    }

    #[test]
    fn new_rules_make_new_plans_and_what_an_old_call_gives_back_is_let_go() {
        let engine = engine();
        let mut old = begin(&engine, "acme");
        let plan = Arc::clone(&old.flow.as_ref().unwrap().plan);
        engine.reload(&rules("2s"));
        let mut new = begin(&engine, "acme");
        assert!(!Arc::ptr_eq(&plan, &new.flow.as_ref().unwrap().plan));
        old.end(&engine, NOW);
        assert_eq!(Arc::strong_count(&plan), 1, "nothing else holds it");
        new.end(&engine, NOW);
    }
}
