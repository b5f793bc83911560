//! How many puts to wait for.

use std::time::Duration;

/// How many puts to wait for. Each group costs a sync, and producers that were answered together come back together:
/// it is worth a part of a sync to have half of them in the next group. To wait for all would leave the other
/// processors idle while this group is written; so one half prepares its puts while the other's are synced.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How many producers there are, as far as the last group tells.
    producers: usize,
    /// How long a transaction takes.
    took: Duration,
    /// For so many groups nobody is waited for, since the last time it was in vain.
    rest: u32,
    in_vain: u32,
}

impl Pace {
    /// The longest that anybody is waited for.
    const MOST: Duration = Duration::from_micros(500);

    /// For how many to wait, and for how long.
    pub(super) fn wait(&mut self) -> Option<(usize, Duration)> {
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        (self.producers > 1).then(|| (self.wanted(), (self.took / 2).min(Self::MOST)))
    }

    fn wanted(&self) -> usize {
        self.producers.div_ceil(2)
    }

    pub(super) fn waited(&mut self, came: usize) {
        if came >= self.wanted() - self.wanted() / 4 {
            self.in_vain = 0;
        } else {
            self.in_vain = (self.in_vain + 1).min(6);
            self.rest = (1 << self.in_vain) - 1;
        }
    }

    pub(super) fn wrote(&mut self, producers: usize, took: Duration) {
        self.producers = producers;
        self.took = if self.took.is_zero() { took } else { (self.took * 7 + took) / 8 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_waited_for_where_one_producer_puts_and_seldom_where_it_was_in_vain() {
        let mut pace = Pace::default();
        pace.wrote(1, Duration::from_millis(1));
        assert_eq!(pace.wait(), None);
        pace.wrote(16, Duration::from_millis(1));
        let (wanted, patience) = pace.wait().unwrap();
        assert_eq!((wanted, patience), (8, Pace::MOST));
        pace.waited(8);
        assert!(pace.wait().is_some());
        let mut waits = 0;
        for _ in 0..1_000 {
            if pace.wait().is_some() {
                pace.waited(1);
                waits += 1;
            }
        }
        assert!(waits < 30, "{waits}");
    }
}
