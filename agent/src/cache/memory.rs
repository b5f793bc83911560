//! Answers in the memory of this process.

use farcall::cache::{Answer, Kept, Key, Store};
use moka::sync::Cache;
use std::hash::{BuildHasherDefault, Hasher};

/// Moka makes room a little later than it takes something in: with large answers that would be much too late.
const LARGE: usize = 32 * 1024;

/// Answers in memory; those that are seldom asked for make room for others (W-TinyLFU).
#[derive(Debug)]
pub(crate) struct Memory {
    answers: Cache<u128, Kept, BuildHasherDefault<Folded>>,
}

/// Keys are keyed hashes already: half of one will do.
#[derive(Debug, Default)]
pub(crate) struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, number: u128) {
        #[allow(clippy::cast_possible_truncation)] // That is what is asked for.
        let folded = (number ^ (number >> 64)) as u64;
        self.0 = folded;
    }
}

impl Memory {
    pub(crate) fn new(bytes: u64) -> Self {
        let weight = |_: &u128, kept: &Kept| u32::try_from(kept.weight()).unwrap_or(u32::MAX);
        let answers = Cache::builder()
            .max_capacity(bytes)
            .weigher(weight)
            .build_with_hasher(BuildHasherDefault::default());
        Self { answers }
    }
}

impl Store for Memory {
    fn get(&self, key: Key) -> Option<Kept> {
        self.answers.get(&key.number())
    }

    fn put(&self, key: Key, kept: Kept) {
        let large = kept.weight() >= LARGE;
        self.answers.insert(key.number(), kept);
        if large {
            self.answers.run_pending_tasks();
        }
    }

    fn remove(&self, key: Key) {
        self.answers.invalidate(&key.number());
    }

    fn purge(&self, which: &dyn Fn(&Answer) -> bool) -> u64 {
        let mut purged = 0;
        for (key, kept) in &self.answers {
            if let Kept::Answer(answer) = kept
                && which(&answer)
            {
                self.answers.invalidate(&*key);
                purged += 1;
            }
        }
        purged
    }
}
