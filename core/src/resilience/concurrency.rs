//! How many calls may be under way at once: a fixed number, or one that follows the vendor's latency.
//!
//! The adaptive limit is the gradient of Envoy's adaptive concurrency filter: `limit * gradient + sqrt(limit)`
//! after each 32 answers, where the gradient is the latency of an unburdened vendor and a quarter, divided by the
//! present one. What the vendor takes unburdened is measured anew every 64 windows, with a quarter of the limit
//! for as long as it takes (Envoy goes down to 3). Answers that say "too much" (429, 503, timeouts) shrink the
//! limit by a tenth at once, at most ten times a second. It does not grow while it is not used.
//!
//! Whoever finds all places taken asks again when it is his turn. Turns are so far apart that about one in twelve
//! finds a place, however many wait; who is about to run out of patience has his sooner, and a call that comes leaves
//! as many places free as turns are ahead. Nothing has to be taken back for one that waits no more: its turn passes.

use super::Deadline;
use crate::units::{Timestamp, stable_hash};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// `concurrency = 20`, `"adaptive"`, or a table of these keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConcurrencyRule {
    /// `limit`.
    pub limit: Limit,
    /// `max_wait`: how long a call may wait for its turn. Zero: not at all.
    pub max_wait: Duration,
}

/// How many calls may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many.
    Fixed(u32),
    /// As many as the vendor takes without becoming slower.
    Adaptive {
        /// `least`: never fewer. 1.
        least: u32,
        /// `most`: never more. 200.
        most: u32,
    },
}

impl Limit {
    /// `"adaptive"`.
    pub const ADAPTIVE: Self = Self::Adaptive { least: 1, most: 200 };
}

impl ConcurrencyRule {
    /// A limit with the default wait of a second.
    #[must_use]
    pub const fn new(limit: Limit) -> Self {
        Self { limit, max_wait: Duration::from_secs(1) }
    }
}

/// Whether a call may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ConcurrencyVerdict {
    /// It counts as under way until [`Concurrency::after`].
    Pass,
    /// All places are taken, or for those who have waited; ask again then.
    Wait {
        /// When to ask again.
        until: Timestamp,
    },
    /// All places are taken, and a longer wait is not allowed.
    Full,
}

/// How a call gave its place back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It was answered, after this time.
    Answered(Duration),
    /// The vendor had too much to do: 429, 503, a timeout.
    Overloaded,
    /// It says nothing about the vendor: dropped, cancelled, refused by a later step, a fast failure.
    Nothing,
}

/// The calls that are under way, and the limit: 72 bytes.
#[derive(Debug)]
pub struct Concurrency {
    under_way: AtomicU32,
    /// The limit in 1/256 of a call.
    limit: AtomicU32,
    /// Answers of this window (16 bits) and the sum of their latencies in microseconds (48 bits).
    window: AtomicU64,
    /// From one turn of those who wait to the next, in nanoseconds.
    gap: AtomicU32,
    /// The last turn that was given.
    turns: AtomicU64,
    /// The tenth of a second in which the limit last shrank because of an overload.
    shrunk: AtomicU64,
    /// Taken once a window, by the thread with its last answer.
    gradient: Mutex<Gradient>,
}

/// What the adaptive limit remembers from window to window.
#[derive(Debug, Default)]
struct Gradient {
    /// The latency of the unburdened vendor in microseconds; 0 before the first window.
    base: f64,
    /// Windows since that was measured.
    windows: u32,
    /// The limit to go back to after a measurement; 0 while none is under way.
    held: f64,
    /// Windows to pass over first: their calls began under the old limit.
    draining: u32,
}

/// Where an adaptive limit starts.
const INITIAL: u32 = 20;
/// Answers per window.
const WINDOW: u64 = 32;
const ANSWER: u64 = 1 << 48;
/// How far the latency may rise before it counts as queueing.
const TOLERANCE: f64 = 1.25;
/// Windows between two measurements of the unburdened vendor.
const MEASURE: u32 = 64;
/// Nobody who waits asks again sooner than the first, nor later than the second, in nanoseconds.
const TURN: (u64, u64) = (1_000_000, 80_000_000);
/// The shortest and the longest time between two turns.
const GAP: (u32, u32) = (15_625, 10_000_000);

impl Default for Concurrency {
    fn default() -> Self {
        Self::new()
    }
}

impl Concurrency {
    /// Nothing under way, and the first adaptive limit.
    #[must_use]
    pub fn new() -> Self {
        Self {
            under_way: AtomicU32::new(0),
            limit: AtomicU32::new(INITIAL << 8),
            window: AtomicU64::new(0),
            gap: AtomicU32::new(TURN.0 as u32),
            turns: AtomicU64::new(0),
            shrunk: AtomicU64::new(0),
            gradient: Mutex::new(Gradient::default()),
        }
    }

    /// Asks for a place. `since` is when the call asked first.
    pub fn before(
        &self,
        rule: &ConcurrencyRule,
        since: Timestamp,
        deadline: Deadline,
        now: Timestamp,
    ) -> ConcurrencyVerdict {
        let limit = self.limit(rule);
        let comes = since >= now;
        let ahead = if comes { self.turns_ahead(now) } else { 0 };
        if self.take(limit.saturating_sub(ahead)) {
            if !comes {
                self.space(|gap| gap / 2);
            }
            return ConcurrencyVerdict::Pass;
        }
        if !comes {
            self.space(|gap| gap.saturating_add(gap / 16));
        }
        let left = rule.max_wait.saturating_sub(now.since(since));
        let left = deadline.at().map_or(left, |at| left.min(at.since(now)));
        let soonest = Duration::from_nanos(TURN.0);
        if left < soonest || !deadline.allows(now.plus(soonest)) {
            // Who cannot wait takes what is free.
            return match ahead > 0 && self.take(limit) {
                true => ConcurrencyVerdict::Pass,
                false => ConcurrencyVerdict::Full,
            };
        }
        let turn = scattered(self.turn(now), since, now).min(left / 8).max(soonest);
        ConcurrencyVerdict::Wait { until: now.plus(turn) }
    }

    /// Takes a place, where fewer than `limit` are taken.
    fn take(&self, limit: u32) -> bool {
        let more = |under_way: u32| (under_way < limit).then_some(under_way + 1);
        self.under_way.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// How many turns are ahead of a call that comes now: about as many wait, or more.
    fn turns_ahead(&self, now: Timestamp) -> u32 {
        let ahead = self.turns.load(Relaxed).saturating_sub(now.as_nanos());
        // Further ahead than any turn: the clock was set back.
        match ahead.min(TURN.1) {
            0 => 0,
            ahead => ahead.div_ceil(u64::from(self.gap.load(Relaxed)).max(1)) as u32,
        }
    }

    /// How long it is until the next turn that nobody has.
    fn turn(&self, now: Timestamp) -> Duration {
        let (now, gap) = (now.as_nanos(), u64::from(self.gap.load(Relaxed)));
        let next = |last: u64| {
            last.saturating_add(gap).clamp(now.saturating_add(TURN.0), now.saturating_add(TURN.1))
        };
        let given = self.turns.fetch_update(Relaxed, Relaxed, |last| Some(next(last)));
        let (Ok(last) | Err(last)) = given;
        Duration::from_nanos(next(last) - now)
    }

    /// Brings turns closer together, or further apart. One of two who do so at once may be overlooked.
    fn space(&self, by: impl Fn(u32) -> u32) {
        self.gap.store(by(self.gap.load(Relaxed)).clamp(GAP.0, GAP.1), Relaxed);
    }

    /// Gives a place back, once for each [`ConcurrencyVerdict::Pass`].
    pub fn after(&self, rule: &ConcurrencyRule, released: Released, now: Timestamp) {
        // Saturating: a place given back twice must not make the count wrap and close the vendor for ever.
        let under_way = self
            .under_way
            .fetch_update(Relaxed, Relaxed, |under_way| under_way.checked_sub(1))
            .unwrap_or_default();
        let Limit::Adaptive { least, most } = rule.limit else { return };
        match released {
            Released::Nothing => {}
            Released::Overloaded => {
                let (tenth, seen) = (now.as_nanos() / 100_000_000, self.shrunk.load(Relaxed));
                if tenth > seen && self.shrunk.compare_exchange(seen, tenth, Relaxed, Relaxed).is_ok() {
                    self.set(f64::from(self.limit.load(Relaxed)) / 256.0 * 0.9, least, most);
                    if let Ok(mut gradient) = self.gradient.try_lock() {
                        // So that the end of a measurement does not undo it.
                        gradient.held *= 0.9;
                    }
                }
            }
            Released::Answered(latency) => {
                let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(ANSWER / 64);
                let window = self.window.fetch_add(ANSWER + micros, Relaxed) + ANSWER + micros;
                if window / ANSWER == WINDOW {
                    // Exactly one answer is the last of a window; those that came since go with it.
                    let window = self.window.swap(0, Relaxed);
                    let mean = (window % ANSWER) as f64 / (window / ANSWER).max(1) as f64;
                    self.adapt(mean.max(1.0), f64::from(under_way), least, most);
                }
            }
        }
    }

    /// How many may be under way now. The rule's own words hold from the moment it is reloaded.
    #[must_use]
    pub fn limit(&self, rule: &ConcurrencyRule) -> u32 {
        match rule.limit {
            Limit::Fixed(limit) => limit,
            Limit::Adaptive { least, most } => (self.limit.load(Relaxed) >> 8).clamp(least, most.max(least)),
        }
    }

    /// How many are under way.
    #[must_use]
    pub fn under_way(&self) -> u32 {
        self.under_way.load(Relaxed)
    }

    fn adapt(&self, latency: f64, under_way: f64, least: u32, most: u32) {
        // Whoever finds it taken is a whole window late: its answers are left out.
        let Ok(mut gradient) = self.gradient.try_lock() else { return };
        let limit = f64::from(self.limit.load(Relaxed)) / 256.0;
        if gradient.held > 0.0 {
            if gradient.draining > 0 {
                gradient.draining -= 1;
                return;
            }
            self.set(gradient.held, least, most);
            *gradient = Gradient { base: latency, ..Gradient::default() };
            return;
        }
        if gradient.base == 0.0 || latency < gradient.base {
            gradient.base = latency;
        }
        if under_way < limit / 2.0 {
            return;
        }
        gradient.windows += 1;
        if gradient.windows >= MEASURE {
            gradient.held = limit;
            gradient.draining = 1 + (limit / WINDOW as f64) as u32;
            self.set(limit / 4.0, least, most);
            return;
        }
        let ratio = (TOLERANCE * gradient.base / latency).clamp(0.5, 1.0);
        self.set(limit * ratio + limit.sqrt(), least, most);
    }

    fn set(&self, limit: f64, least: u32, most: u32) {
        let limit = limit.clamp(f64::from(least), f64::from(most.max(least)));
        self.limit.store((limit * 256.0) as u32, Relaxed);
    }
}

/// Between half of a turn and the whole of it, so that nobody keeps step with places that become free at intervals.
fn scattered(turn: Duration, since: Timestamp, now: Timestamp) -> Duration {
    let part = stable_hash(since.as_nanos(), &now.as_nanos().to_le_bytes()) % 1_024;
    turn / 2 + turn / 2_048 * part as u32
}

#[cfg(test)]
mod tests;
