//! What was found the long way before.

use crate::units::same;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Numbers found the long way before, by the text that was looked up. Holds no reference: it is emptied when
/// a name leaves.
#[derive(Debug)]
pub(crate) struct Cache {
    table: HashTable<Cached>,
    hasher: FixedState,
    cap: usize,
}

#[derive(Debug)]
struct Cached {
    hash: u64,
    scope: u32,
    text: Box<str>,
    number: u32,
}

impl Cache {
    pub(crate) fn new(cap: usize, seed: u64) -> Self {
        Self { table: HashTable::new(), hasher: FixedState::with_seed(seed), cap }
    }

    pub(crate) fn get(&self, scope: u32, text: &str) -> Option<u32> {
        let hash = self.hash(scope, text);
        let found = self.table.find(hash, |cached| {
            cached.hash == hash && cached.scope == scope && same(cached.text.as_bytes(), text.as_bytes())
        });
        found.map(|cached| cached.number)
    }

    pub(crate) fn insert(&mut self, scope: u32, text: &str, number: u32) {
        if self.table.len() >= self.cap {
            self.table.clear();
        }
        let hash = self.hash(scope, text);
        self.table
            .insert_unique(hash, Cached { hash, scope, text: text.into(), number }, |cached| cached.hash);
    }

    pub(crate) fn clear(&mut self) {
        self.table.clear();
    }

    fn hash(&self, scope: u32, text: &str) -> u64 {
        self.hasher.hash_one(text) ^ u64::from(scope).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}
