//! By which statuses a vendor refused, and what it meant by each: constant memory and no lock.

use super::Answers;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Pairs of a status and a meaning that are told apart, in a window of a quota. Further ones are in its totals only.
const MOST: usize = 4;
const COUNT: u64 = (1 << 40) - 1;

/// `[0: 7][exhausted: 1][status: 16][count: 40]` each; 0 where there is none yet.
#[derive(Debug, Default)]
pub(super) struct ByStatus([AtomicU64; MOST]);

impl ByStatus {
    pub(super) fn add(&self, status: u16, exhausted: bool) {
        let key = key(status, exhausted);
        for slot in &self.0 {
            let count = |seen: u64| match seen {
                0 => Some(key | 1),
                seen if seen & !COUNT == key && seen & COUNT < COUNT => Some(seen + 1),
                _ => None,
            };
            if slot.fetch_update(Relaxed, Relaxed, count).is_ok() {
                return;
            }
        }
    }

    /// One that was counted turned out to be another.
    pub(super) fn take(&self, status: u16, exhausted: bool) {
        let key = key(status, exhausted);
        let less = |seen: u64| (seen & !COUNT == key && seen & COUNT > 0).then(|| seen - 1);
        let _known = self.0.iter().any(|slot| slot.fetch_update(Relaxed, Relaxed, less).is_ok());
    }

    pub(super) fn clear(&self) {
        for slot in &self.0 {
            slot.store(0, Relaxed);
        }
    }

    /// By status, and what says that calls come too fast before what says that the quota is used up.
    pub(super) fn list(&self) -> Vec<Answers> {
        let all = self.0.iter().map(|slot| slot.load(Relaxed)).map(|seen| Answers {
            status: (seen >> 40) as u16,
            exhausted: seen >> 56 & 1 == 1,
            count: seen & COUNT,
        });
        let mut list: Vec<Answers> = all.filter(|answers| answers.count > 0).collect();
        list.sort_by_key(|answers| (answers.status, answers.exhausted));
        list
    }
}

fn key(status: u16, exhausted: bool) -> u64 {
    u64::from(exhausted) << 56 | u64::from(status) << 40
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_and_meaning_has_a_count_of_its_own_and_what_is_beyond_is_none() {
        let answers = ByStatus::default();
        for (status, exhausted) in [(429, false), (403, false), (429, true), (429, false), (400, true)] {
            answers.add(status, exhausted);
        }
        answers.add(500, false);
        answers.take(500, false);
        answers.take(403, false);
        let told = |answers: &ByStatus| {
            answers.list().iter().map(|one| (one.status, one.exhausted, one.count)).collect::<Vec<_>>()
        };
        assert_eq!(told(&answers), [(400, true, 1), (429, false, 2), (429, true, 1)]);
        answers.clear();
        assert_eq!(told(&answers), []);
    }
}
