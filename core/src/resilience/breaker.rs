//! When to stop asking a vendor that fails, and when to ask again.
//!
//! Each signal alone misses failures that the other catches: consecutive failures react at once to a hard
//! outage but stay quiet under a partial one, a failure rate sees the partial one but needs its window. Either
//! opens the breaker. After `open` a limited number of probes decide: all of them well, and it closes; one of
//! them badly, and it opens again.
//!
//! A 429 says that the vendor works and wants fewer calls: it opens nothing, but a probe that gets one has
//! failed, for more calls would not be welcome.

use super::Ending;
use crate::units::{Share, Timestamp};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// `breaker = { consecutive = 5, failure_rate = "50%", window = 100, open = "30s", probes = 10 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerRule {
    /// `consecutive`: how many failures in a row open it.
    pub consecutive: u16,
    /// `failure_rate`: which share of failures among the last `window` calls opens it.
    pub failure_rate: Share,
    /// `window`: over how many calls the rate is taken; none is taken before there were so many. At most
    /// [`BreakerRule::MAX_WINDOW`].
    pub window: u16,
    /// `open`: how long it stays open before the first probe; also how long a probe may take before it counts
    /// as lost and another takes its place.
    pub open: Duration,
    /// `probes`: how many calls decide whether it closes. At most [`BreakerRule::MAX_PROBES`].
    pub probes: u16,
}

impl BreakerRule {
    /// The widest window.
    pub const MAX_WINDOW: u16 = 512;
    /// The most probes.
    pub const MAX_PROBES: u16 = 1_000;
}

impl Default for BreakerRule {
    fn default() -> Self {
        Self {
            consecutive: 5,
            failure_rate: Share::from_ratio(0.5).unwrap_or(Share::ALL),
            window: 100,
            open: Duration::from_secs(30),
            probes: 10,
        }
    }
}

/// What an attempt says about the vendor's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It answered.
    Good,
    /// It failed: a status of 500 and above, or no (whole) response.
    Bad,
    /// It answered 429.
    Throttled,
    /// Nothing was learned: the application cancelled, or the attempt was never sent.
    Unknown,
}

impl Judgement {
    /// What an ending says.
    #[must_use]
    pub const fn of(ending: Ending) -> Self {
        match ending {
            Ending::Status(429) => Self::Throttled,
            Ending::Status(500..) => Self::Bad,
            Ending::Status(_) => Self::Good,
            Ending::Error(crate::call::ErrorType::Cancelled) => Self::Unknown,
            Ending::Error(_) => Self::Bad,
        }
    }
}

/// How an attempt came past the breaker; given back to [`Breaker::after`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The breaker was closed.
    Normal,
    /// As a probe, of the round that began at this millisecond.
    Probe(u64),
}

/// What the breaker says to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum BreakerVerdict {
    /// Send it, and tell [`Breaker::after`] how it ended; [`Judgement::Unknown`] where a later step refuses it.
    Pass(Pass),
    /// Do not send it.
    Open {
        /// When to ask again.
        until: Timestamp,
    },
}

/// What state a breaker is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All attempts pass.
    Closed,
    /// None passes.
    Open,
    /// Some pass, as probes.
    HalfOpen,
}

impl Phase {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// The state of one breaker: 96 bytes, no lock.
#[derive(Debug)]
pub struct Breaker {
    /// See [`Word`]. All transitions are compare-and-swaps of this one word, so that each happens once and the
    /// probes are counted exactly.
    word: AtomicU64,
    /// The last calls as a ring of bits, 1 for a failure.
    ring: [AtomicU64; BreakerRule::MAX_WINDOW as usize / 64],
    /// Calls put into the ring since it was cleared.
    filled: AtomicU32,
    /// Failures since the last success.
    row: AtomicU16,
}

/// Phase, probes and a moment, unpacked.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word {
    phase: Phase,
    /// Probes of this round that passed, and those of them that came back well.
    issued: u16,
    good: u16,
    /// Open: until when. Half-open: since when this round runs. In milliseconds since the epoch; 42 bits last
    /// until 2109, and a clock beyond that finds every breaker half-open at once, which fails open.
    millis: u64,
}

const MILLIS_BITS: u32 = 42;
const MILLIS_MAX: u64 = (1 << MILLIS_BITS) - 1;

impl Word {
    const CLOSED: Self = Self { phase: Phase::Closed, issued: 0, good: 0, millis: 0 };

    const fn unpack(word: u64) -> Self {
        Self {
            phase: match word >> 62 {
                0 => Phase::Closed,
                1 => Phase::Open,
                _ => Phase::HalfOpen,
            },
            issued: (word >> 52 & 0x3FF) as u16,
            good: (word >> MILLIS_BITS & 0x3FF) as u16,
            millis: word & MILLIS_MAX,
        }
    }

    const fn pack(self) -> u64 {
        (self.phase as u64) << 62
            | (self.issued as u64) << 52
            | (self.good as u64) << MILLIS_BITS
            | self.millis
    }
}

fn millis(moment: Timestamp) -> u64 {
    (moment.as_nanos() / 1_000_000).min(MILLIS_MAX)
}

fn span(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

impl Breaker {
    /// A closed breaker that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            word: AtomicU64::new(Word::CLOSED.pack()),
            ring: [const { AtomicU64::new(0) }; BreakerRule::MAX_WINDOW as usize / 64],
            filled: AtomicU32::new(0),
            row: AtomicU16::new(0),
        }
    }

    /// Asks before an attempt is sent.
    pub fn before(&self, rule: &BreakerRule, now: Timestamp) -> BreakerVerdict {
        let seen = self.word.load(Relaxed);
        if Word::unpack(seen).phase == Phase::Closed {
            // As it is nearly always: nothing is to be computed for it.
            return BreakerVerdict::Pass(Pass::Normal);
        }
        self.before_opened(seen, rule, now)
    }

    #[cold]
    #[inline(never)]
    fn before_opened(&self, mut seen: u64, rule: &BreakerRule, now: Timestamp) -> BreakerVerdict {
        let (now, open) = (millis(now), span(rule.open));
        loop {
            let word = Word::unpack(seen);
            let next = match word.phase {
                Phase::Closed => return BreakerVerdict::Pass(Pass::Normal),
                // Nobody waits longer than `open`, even after the clock went backwards.
                Phase::Open if word.millis > now.saturating_add(open) => {
                    Word { millis: (now + open).min(MILLIS_MAX), ..word }
                }
                Phase::Open if now < word.millis => return until(word.millis),
                Phase::Open => Word { phase: Phase::HalfOpen, issued: 1, good: 0, millis: now },
                Phase::HalfOpen if word.issued < rule.probes => Word { issued: word.issued + 1, ..word },
                // Those that did not come back within `open` are lost: others take their places.
                Phase::HalfOpen if now >= word.millis.saturating_add(open) => {
                    Word { issued: word.good + 1, millis: now, ..word }
                }
                // The clock went far back: without this the round would not end before it is there again.
                Phase::HalfOpen if word.millis > now.saturating_add(open) => Word { millis: now, ..word },
                Phase::HalfOpen => return until(word.millis.min(now).saturating_add(open)),
            };
            match self.word.compare_exchange_weak(seen, next.pack(), Relaxed, Relaxed) {
                Err(other) => seen = other,
                Ok(_) if next.phase == Phase::HalfOpen && next.issued != word.issued => {
                    return BreakerVerdict::Pass(Pass::Probe(next.millis));
                }
                Ok(_) => seen = next.pack(),
            }
        }
    }

    /// Tells how an attempt ended. Returns the phase that the breaker went into, where it changed.
    pub fn after(
        &self,
        rule: &BreakerRule,
        pass: Pass,
        judgement: Judgement,
        now: Timestamp,
    ) -> Option<Phase> {
        match pass {
            Pass::Normal => self.count(rule, judgement, now),
            Pass::Probe(round) => self.judge(rule, round, judgement, now),
        }
    }

    /// The phase, without asking to pass.
    #[must_use]
    pub fn phase(&self) -> Phase {
        Word::unpack(self.word.load(Relaxed)).phase
    }

    /// What a normal attempt adds while the breaker is closed.
    fn count(&self, rule: &BreakerRule, judgement: Judgement, now: Timestamp) -> Option<Phase> {
        let bad = match judgement {
            Judgement::Good => false,
            Judgement::Bad => true,
            Judgement::Throttled | Judgement::Unknown => return None,
        };
        let seen = self.word.load(Relaxed);
        if Word::unpack(seen).phase != Phase::Closed {
            // It was sent before the breaker opened, and tells nothing about now.
            return None;
        }
        let window = u32::from(rule.window).clamp(1, u32::from(BreakerRule::MAX_WINDOW));
        match !bad && self.is_spotless(window) {
            true => None,
            false => self.put_in_ring(rule, (seen, window), bad, now),
        }
    }

    #[inline(never)]
    fn put_in_ring(
        &self,
        rule: &BreakerRule,
        (seen, window): (u64, u32),
        bad: bool,
        now: Timestamp,
    ) -> Option<Phase> {
        let place = self.filled.fetch_add(1, Relaxed);
        let (cell, bit) = (&self.ring[(place % window / 64) as usize], 1 << (place % window % 64));
        if !bad {
            if cell.load(Relaxed) & bit != 0 {
                cell.fetch_and(!bit, Relaxed);
            }
            if self.row.load(Relaxed) != 0 {
                self.row.store(0, Relaxed);
            }
            return None;
        }
        cell.fetch_or(bit, Relaxed);
        // Wraps only after 65,535 failures in a row that did not open it.
        let row = self.row.fetch_add(1, Relaxed).wrapping_add(1);
        let failures = self.failures(window);
        // At least one: a rate of 0% must not open it without a failure.
        let too_many = rule.failure_rate.of(u64::from(window)).max(1);
        let rate = place + 1 >= window && u64::from(failures) >= too_many;
        if row < rule.consecutive && !rate {
            return None;
        }
        self.open(rule, seen, now)
    }

    /// Whether another success changes nothing: the window is full of them. The usual case, and so threads that
    /// meet here only read.
    fn is_spotless(&self, window: u32) -> bool {
        // Of all rings that a wider rule may have left, not only the present one's.
        let ring = || self.ring.iter().all(|cell| cell.load(Relaxed) == 0);
        self.filled.load(Relaxed) >= window && self.row.load(Relaxed) == 0 && ring()
    }

    /// What a probe adds, if its round is still under way.
    #[cold]
    #[inline(never)]
    fn judge(&self, rule: &BreakerRule, round: u64, judgement: Judgement, now: Timestamp) -> Option<Phase> {
        let mut seen = self.word.load(Relaxed);
        loop {
            let word = Word::unpack(seen);
            if word.phase != Phase::HalfOpen || word.millis != round {
                return None;
            }
            let next = match judgement {
                Judgement::Bad | Judgement::Throttled => return self.open(rule, seen, now),
                // Its place is free again.
                Judgement::Unknown => Word { issued: word.issued.saturating_sub(1).max(word.good), ..word },
                Judgement::Good if word.good + 1 >= rule.probes => {
                    // Before the breaker closes: nobody counts while it is half-open.
                    self.forget();
                    Word::CLOSED
                }
                Judgement::Good => Word { good: word.good + 1, ..word },
            };
            match self.word.compare_exchange_weak(seen, next.pack(), Relaxed, Relaxed) {
                Ok(_) => return (next.phase != word.phase).then_some(next.phase),
                Err(other) => seen = other,
            }
        }
    }

    fn open(&self, rule: &BreakerRule, mut seen: u64, now: Timestamp) -> Option<Phase> {
        let (from, round) = (Word::unpack(seen).phase, Word::unpack(seen).millis);
        let until = millis(now).saturating_add(span(rule.open)).min(MILLIS_MAX);
        let next = Word { phase: Phase::Open, issued: 0, good: 0, millis: until }.pack();
        loop {
            match self.word.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return Some(Phase::Open),
                Err(other) => {
                    let word = Word::unpack(other);
                    if word.phase != from || word.millis != round {
                        return None;
                    }
                    seen = other;
                }
            }
        }
    }

    /// The failures among the last `window` calls. What lies beyond is from a rule with a wider window.
    fn failures(&self, window: u32) -> u32 {
        let cells = self.ring.iter().zip((0..window).step_by(64));
        let within =
            cells.map(|(cell, first)| cell.load(Relaxed) & u64::MAX >> (64 - (window - first).min(64)));
        within.map(u64::count_ones).sum()
    }

    fn forget(&self) {
        self.ring.iter().for_each(|cell| cell.store(0, Relaxed));
        self.filled.store(0, Relaxed);
        self.row.store(0, Relaxed);
    }
}

const fn until(millis: u64) -> BreakerVerdict {
    BreakerVerdict::Open { until: Timestamp::EPOCH.plus_millis(millis) }
}

#[cfg(test)]
mod tests;
