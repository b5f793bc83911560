//! The clock: monotonic, anchored to the wall clock, so that differences are exact and the values still say
//! when something happened.

use farcall::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU64, Ordering};

/// The wall clock may drift from the monotonic one by so much before the anchor moves: steps of NTP and
/// suspended machines, not its everyday slewing.
const TOLERANCE: u64 = 1_000_000_000;

#[derive(Debug)]
pub(crate) struct Clock {
    /// Wall nanoseconds less monotonic nanoseconds, wrapping.
    anchor: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { anchor: AtomicU64::new(wall()) }
    }

    /// This moment, by one clock read.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(nanos(ClockId::Monotonic).wrapping_add(self.anchor()))
    }

    /// Unix nanoseconds less those of CLOCK_MONOTONIC, wrapping: what the hub calls the anchor.
    pub(crate) fn anchor(&self) -> u64 {
        self.anchor.load(Ordering::Relaxed)
    }

    /// Follows the wall clock where it moved away by more than a second. Whether it did.
    pub(crate) fn follow(&self) -> bool {
        self.follow_wall(wall())
    }

    /// Takes over the anchor that the processes of this host have agreed on; where there is none yet, or the wall
    /// clock moved away from it, offers this one's. Quotas that processes share need one clock, and those of
    /// processes that started weeks apart differ by what was slewed since. Whether this clock moved.
    pub(crate) fn agree(&self, shared: &AtomicU64) -> bool {
        self.agree_on(shared, wall())
    }

    fn agree_on(&self, shared: &AtomicU64, wall: u64) -> bool {
        let mut seen = shared.load(Ordering::Relaxed);
        if seen == 0 || wall.abs_diff(seen) > TOLERANCE {
            seen = match shared.compare_exchange(seen, wall, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => wall,
                Err(other) => other,
            };
        }
        // Another time namespace has another monotonic clock: its anchor is not for us.
        wall.abs_diff(seen) <= TOLERANCE && self.anchor.swap(seen, Ordering::Relaxed) != seen
    }

    fn follow_wall(&self, anchor: u64) -> bool {
        let moved = anchor.abs_diff(self.anchor()) > TOLERANCE;
        if moved {
            self.anchor.store(anchor, Ordering::Relaxed);
        }
        moved
    }
}

/// What the wall clock is ahead of the monotonic one, in nanoseconds, wrapping.
///
/// Read between two reads of the monotonic clock: a process that had to stand aside in between would else take that
/// for a step of the wall clock, and have all who share an anchor follow it.
fn wall() -> u64 {
    const ENOUGH: u64 = 50_000;
    const TRIES: usize = 20;
    let read = || {
        let (before, wall, after) =
            (nanos(ClockId::Monotonic), nanos(ClockId::Realtime), nanos(ClockId::Monotonic));
        (after.wrapping_sub(before), wall.wrapping_sub(after))
    };
    let mut best = read();
    for _ in 1..TRIES {
        if best.0 <= ENOUGH {
            break;
        }
        best = best.min(read());
    }
    best.1
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    secs.wrapping_mul(1_000_000_000).wrapping_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    #[test]
    fn it_tells_the_wall_time_and_never_goes_back() {
        let wall = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let before = wall();
        let clock = Clock::new();
        let first = Duration::from_nanos(clock.now().as_nanos());
        // Between two reads of the wall clock, however long this thread has to wait in between.
        let apart = Duration::from_secs(1);
        assert!(before < first + apart && first < wall() + apart, "{first:?} after {before:?}");
        let first = clock.now();
        let mut last = first;
        for _ in 0..1_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn it_follows_a_step_of_the_wall_clock_and_ignores_its_slewing() {
        let clock = Clock::new();
        let anchor = clock.anchor();
        assert!(!clock.follow_wall(anchor.wrapping_add(900_000_000)));
        assert_eq!(clock.anchor(), anchor);
        assert!(clock.follow_wall(anchor.wrapping_sub(2_000_000_000)));
        assert_eq!(clock.anchor(), anchor.wrapping_sub(2_000_000_000));
    }

    #[test]
    fn processes_that_share_an_anchor_have_one_clock_and_follow_a_step_together() {
        let shared = AtomicU64::new(0);
        let (first, second) = (Clock::new(), Clock::new());
        let wall = first.anchor();
        assert!(!first.agree_on(&shared, wall));
        // The second one started when the clock had been slewed by 0.4 s.
        second.anchor.store(wall + 400_000_000, Ordering::Relaxed);
        assert!(second.agree_on(&shared, wall + 400_000_000));
        assert_eq!(second.anchor(), wall);
        // A step: whoever notices first says so to all.
        assert!(second.agree_on(&shared, wall + 5_000_000_000));
        assert!(first.agree_on(&shared, wall + 5_100_000_000));
        assert_eq!((first.anchor(), second.anchor()), (wall + 5_000_000_000, wall + 5_000_000_000));
    }
}
