//! Where the answers of the cache lie: in the memory of this process, bounded in bytes.

mod vendors;

use crate::clock::Clock;
use crate::home::LEDGER;
use crate::report::ReportError;
use crate::store::Store as Ledger;
use farcall::cache::{Answer, Kept, Key, Store};
use farcall::matcher::{Fields, Matcher};
use moka::sync::Cache;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::Path;

/// How many bytes of answers are kept, unless `cache_memory` says so.
pub(crate) const DEFAULT_BYTES: u64 = 64 << 20;
/// Moka makes room a little later than it takes something in: with large answers that would be much too late.
const LARGE: usize = 32 * 1024;

/// Tells the caches of all programs of this home directory to forget the answers that these conditions, as those of a
/// `match`, are about: `vendor`, `endpoint`, `method`, `customer`; all answers where there are none. They do within a
/// second or so. Returns how many programs there are.
///
/// # Errors
/// When a condition cannot be understood or is about a vendor that nobody knows, or there is no ledger, through which
/// they are told.
pub fn purge_cache(home: &Path, conditions: &[(String, String)]) -> Result<u64, ReportError> {
    let pairs = conditions.iter().map(|(key, text)| (key.as_str(), text.as_str()));
    let which = Matcher::new(pairs).map_err(|error| ReportError::NotFound(error.to_string()))?;
    let known = Fields::VENDOR | Fields::ENDPOINT | Fields::METHOD | Fields::CUSTOMER;
    if let Some(other) = which.depends().without(known).iter().next() {
        return Err(ReportError::NotFound(format!(
            "what is kept is known by vendor, endpoint, method and customer, not by `{}`",
            other.as_str()
        )));
    }
    if !home.join(LEDGER).exists() {
        return Err(ReportError::NoLedger(home.to_owned()));
    }
    for (_, text) in conditions.iter().filter(|(key, _)| matches!(key.as_str(), "vendor" | "vendor.name")) {
        if let Some(objection) = vendors::objection(home, text)? {
            return Err(ReportError::NotFound(objection));
        }
    }
    let ledger = Ledger::new(home.to_owned());
    ledger
        .add_purge(conditions, Clock::new().now())
        .map_err(|failure| ReportError::Unreadable(failure.to_string()))
}

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
