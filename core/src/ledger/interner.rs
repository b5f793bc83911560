//! Names as numbers, bounded, with the unused ones leaving.

use crate::units::same;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Names of one kind in one shard. A name stays for as long as a call or a series refers to it.
#[derive(Debug)]
pub(crate) struct Interner {
    table: HashTable<u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    cap: usize,
    hasher: FixedState,
    /// Slots whose last reference went, until they are swept.
    unused: usize,
}

#[derive(Debug)]
struct Slot {
    /// What the name belongs to: the same path is another endpoint at another vendor.
    scope: u32,
    name: Arc<str>,
    refs: u32,
    hash: u64,
}

impl Interner {
    pub(crate) fn new(cap: usize, seed: u64) -> Self {
        Self {
            table: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            cap,
            hasher: FixedState::with_seed(seed),
            unused: 0,
        }
    }

    /// The number of a name, with one more reference to it; `None` where it is not known.
    pub(crate) fn get(&mut self, scope: u32, name: &str) -> Option<u32> {
        let hash = self.hash(scope, name);
        let number = *self.table.find(hash, |&number| {
            let slot = &self.slots[number as usize];
            slot.hash == hash && slot.scope == scope && same(slot.name.as_bytes(), name.as_bytes())
        })?;
        self.keep(number);
        Some(number)
    }

    /// The number of a name, with one more reference to it; `None` where it is new and there is no room.
    pub(crate) fn insert(&mut self, scope: u32, name: &str) -> Option<u32> {
        match self.get(scope, name) {
            Some(number) => Some(number),
            None => self.add(scope, name),
        }
    }

    #[cold]
    #[inline(never)]
    fn add(&mut self, scope: u32, name: &str) -> Option<u32> {
        if self.table.len() >= self.cap {
            return None;
        }
        let hash = self.hash(scope, name);
        let slot = Slot { scope, name: name.into(), refs: 1, hash };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).ok()?
            }
        };
        let slots = &self.slots;
        self.table.insert_unique(hash, number, |&number| slots[number as usize].hash);
        Some(number)
    }

    pub(crate) fn name(&self, number: u32) -> &Arc<str> {
        &self.slots[number as usize].name
    }

    /// One more reference to a name that has one already.
    pub(crate) fn keep(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        if slot.refs == 0 {
            self.unused -= 1;
        }
        slot.refs += 1;
    }

    /// One reference less.
    pub(crate) fn release(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        slot.refs -= 1;
        if slot.refs == 0 {
            self.unused += 1;
        }
    }

    /// Forgets the names that nobody refers to; whether there were any.
    pub(crate) fn sweep(&mut self) -> bool {
        if self.unused == 0 {
            return false;
        }
        let Self { table, slots, free, .. } = self;
        table.retain(|&mut number| {
            let slot = &mut slots[number as usize];
            let used = slot.refs > 0;
            if !used {
                slot.name = Arc::from("");
                free.push(number);
            }
            used
        });
        self.unused = 0;
        if self.table.is_empty() {
            // After a flood, give its memory back.
            self.slots = Vec::new();
            self.free = Vec::new();
            self.table = HashTable::new();
        }
        true
    }

    fn hash(&self, scope: u32, name: &str) -> u64 {
        self.hasher.hash_one(name) ^ u64::from(scope).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_while_it_is_referred_to_and_its_number_is_used_again() {
        let mut names = Interner::new(2, 1);
        let a = names.insert(0, "a").unwrap();
        let b = names.insert(0, "b").unwrap();
        assert_eq!(names.insert(0, "c"), None, "full");
        names.release(a);
        assert_eq!(names.insert(0, "c"), None, "not swept yet");
        assert_eq!(names.get(0, "a"), Some(a), "still warm");
        names.release(a);
        assert!(names.sweep());
        assert_eq!(names.insert(0, "c"), Some(a));
        assert_eq!(names.name(b).as_ref(), "b");
    }

    #[test]
    fn one_name_in_two_scopes_is_two() {
        let mut names = Interner::new(8, 1);
        assert_ne!(names.insert(1, "GET /"), names.insert(2, "GET /"));
    }
}
