//! Answers in the memory of this process.

use farcall::cache::{Answer, Kept, Key, Store};
use moka::sync::Cache;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Moka makes room a little later than it takes something in: with large answers that would be much too late.
const LARGE: usize = 32 * 1024;

/// Answers in memory; those that are seldom asked for make room for others (W-TinyLFU).
#[derive(Debug)]
pub(crate) struct Memory {
    answers: Cache<u128, Kept, BuildHasherDefault<Folded>>,
    /// What was asked for last, in front of all. Empty where there is no room for that.
    hot: Box<[Mutex<Hot>]>,
}

/// A place for what is asked for again and again; keys share it.
#[derive(Debug, Default)]
struct Hot {
    kept: Option<(u128, Kept)>,
    /// Raised with every change of what may lie here.
    version: u32,
    hits: u32,
}

const PLACES: usize = 256;
/// Larger ones have no place in front, which so takes no more than a MiB.
const SMALL: usize = 4 * 1024;
const IN_FRONT: u64 = (PLACES * SMALL) as u64;
/// One hit in so many is told to those behind, so that they know what is asked for.
const TOLD: u32 = 32;

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
    /// Of so many bytes, what lies in front included.
    pub(crate) fn new(bytes: u64) -> Self {
        let weight = |_: &u128, kept: &Kept| u32::try_from(kept.weight()).unwrap_or(u32::MAX);
        let in_front = if bytes >= 8 * IN_FRONT { IN_FRONT } else { 0 };
        let answers = Cache::builder()
            .max_capacity(bytes - in_front)
            .weigher(weight)
            .build_with_hasher(BuildHasherDefault::default());
        let places = if in_front > 0 { PLACES } else { 0 };
        Self { answers, hot: (0..places).map(|_| Mutex::default()).collect() }
    }

    fn place(&self, key: Key) -> Option<&Mutex<Hot>> {
        self.hot.get((key.number() >> 32) as usize % PLACES)
    }

    /// Changes what lies behind. What lies in front may be what was there before, and so may what a reader is about to
    /// put there; whoever reads meanwhile looks behind.
    fn change(&self, key: Key, change: impl FnOnce()) {
        let mut hot = self.place(key).map(lock);
        if let Some(hot) = &mut hot {
            hot.version = hot.version.wrapping_add(1);
            hot.kept = None;
        }
        change();
    }
}

impl Store for Memory {
    fn get(&self, key: Key) -> Option<Kept> {
        // Nobody waits for a place: behind it is the same.
        let Some(mut hot) = self.place(key).and_then(|place| place.try_lock().ok()) else {
            return self.answers.get(&key.number());
        };
        let known = hot.kept.as_ref().filter(|(known, _)| *known == key.number());
        if let Some(kept) = known.map(|(_, kept)| kept.clone()) {
            hot.hits = hot.hits.wrapping_add(1);
            if hot.hits.is_multiple_of(TOLD) {
                drop(hot);
                drop(self.answers.get(&key.number()));
            }
            return Some(kept);
        }
        let version = hot.version;
        drop(hot);
        let kept = self.answers.get(&key.number())?;
        if kept.weight() <= SMALL
            && let Some(mut hot) = self.place(key).and_then(|place| place.try_lock().ok())
            && hot.version == version
        {
            hot.kept = Some((key.number(), kept.clone()));
        }
        Some(kept)
    }

    fn put(&self, key: Key, kept: Kept) {
        let large = kept.weight() >= LARGE;
        self.change(key, || self.answers.insert(key.number(), kept));
        if large {
            self.answers.run_pending_tasks();
        }
    }

    fn takes(&self, kept: &Kept) -> bool {
        self.answers.policy().max_capacity().is_none_or(|most| kept.weight() as u64 <= most)
    }

    fn remove(&self, key: Key) {
        self.change(key, || self.answers.invalidate(&key.number()));
    }

    fn purge(&self, which: &dyn Fn(&Answer) -> bool) -> u64 {
        let mut purged = 0;
        for (key, kept) in &self.answers {
            if let Kept::Answer(answer) = kept
                && which(&answer)
            {
                self.remove(Key::of(*key));
                purged += 1;
            }
        }
        // Those that had to make room behind.
        for place in &self.hot {
            let mut hot = lock(place);
            hot.version = hot.version.wrapping_add(1);
            if matches!(&hot.kept, Some((_, Kept::Answer(answer))) if which(answer)) {
                hot.kept = None;
            }
        }
        purged
    }
}

fn lock(place: &Mutex<Hot>) -> MutexGuard<'_, Hot> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(kept: Option<Kept>) -> Option<String> {
        match kept {
            Some(Kept::Varies(names)) => Some(names.concat()),
            _ => None,
        }
    }

    fn kept(name: &str) -> Kept {
        Kept::Varies([name.into()].into())
    }

    #[test]
    fn what_lies_in_front_is_never_older_than_what_lies_behind() {
        let memory = Memory::new(64 << 20);
        assert_eq!(memory.hot.len(), PLACES);
        // Two that share a place.
        let (one, other) = (Key::of(1), Key::of(2));
        for round in 0..100 {
            memory.put(one, kept(&format!("one {round}")));
            memory.put(other, kept(&format!("other {round}")));
            for _ in 0..3 {
                assert_eq!(names(memory.get(one)), Some(format!("one {round}")));
                assert_eq!(names(memory.get(other)), Some(format!("other {round}")));
            }
        }
        memory.remove(one);
        assert_eq!((names(memory.get(one)), memory.get(other).is_some()), (None, true));
    }

    #[test]
    fn threads_that_read_and_write_see_no_answer_again_that_was_replaced() {
        let memory = Memory::new(64 << 20);
        let key = Key::of(7);
        memory.put(key, kept("0"));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = 0;
                    while last < 2_000 {
                        let seen = names(memory.get(key)).unwrap().parse().unwrap();
                        assert!(seen >= last, "{seen} after {last}");
                        last = seen;
                    }
                });
            }
            for round in 1..=2_000 {
                memory.put(key, kept(&round.to_string()));
            }
        });
    }

    #[test]
    fn what_is_larger_than_all_memory_is_not_taken() {
        let memory = Memory::new(1 << 10);
        assert!(memory.takes(&kept("name")));
        assert!(!memory.takes(&kept(&"x".repeat(2 << 10))));
    }

    #[test]
    fn a_small_memory_has_nothing_in_front() {
        assert!(Memory::new(1 << 20).hot.is_empty());
    }
}
