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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1_700_000_000_000_000_000).plus_millis(millis)
    }

    fn fixed(limit: u32) -> ConcurrencyRule {
        ConcurrencyRule::new(Limit::Fixed(limit))
    }

    fn ask(state: &Concurrency, rule: &ConcurrencyRule) -> ConcurrencyVerdict {
        state.before(rule, at(0), Deadline::NONE, at(0))
    }

    /// Asks as one who has waited.
    fn ask_again(state: &Concurrency, rule: &ConcurrencyRule) -> ConcurrencyVerdict {
        state.before(rule, at(0), Deadline::NONE, at(1))
    }

    #[test]
    fn a_fixed_limit_holds_and_a_dropped_call_gives_its_place_back() {
        let rule = fixed(2);
        let state = Concurrency::new();
        assert_eq!(ask(&state, &rule), ConcurrencyVerdict::Pass);
        assert_eq!(ask(&state, &rule), ConcurrencyVerdict::Pass);
        assert_eq!(ask(&state, &rule), ConcurrencyVerdict::Wait { until: at(1) });
        state.after(&rule, Released::Nothing, at(0));
        assert_eq!(ask_again(&state, &rule), ConcurrencyVerdict::Pass);
        assert_eq!(state.under_way(), 2);
    }

    #[test]
    fn a_reloaded_rule_holds_at_once() {
        let (state, wide, narrow) = (Concurrency::new(), fixed(100), fixed(2));
        for _ in 0..10 {
            assert_eq!(ask(&state, &wide), ConcurrencyVerdict::Pass);
        }
        assert_ne!(ask(&state, &narrow), ConcurrencyVerdict::Pass);
        let bounded = ConcurrencyRule::new(Limit::Adaptive { least: 1, most: 5 });
        assert_eq!(state.limit(&bounded), 5);
    }

    #[test]
    fn nobody_waits_longer_than_the_rule_or_the_deadline_says() {
        let rule = fixed(1);
        let state = Concurrency::new();
        let _ = ask(&state, &rule);
        let (mut now, mut asked) = (at(0), 0);
        while let ConcurrencyVerdict::Wait { until } = state.before(&rule, at(0), Deadline::NONE, now) {
            (now, asked) = (until, asked + 1);
        }
        assert!(now.since(at(0)) <= rule.max_wait && asked <= 1_000);
        let deadline = Deadline::new(at(0), Some(Duration::from_millis(1)), None);
        assert_eq!(state.before(&rule, at(0), deadline, at(0)), ConcurrencyVerdict::Full);
        let patient = ConcurrencyRule { max_wait: Duration::ZERO, ..rule };
        assert_eq!(ask(&state, &patient), ConcurrencyVerdict::Full);
    }

    #[test]
    fn a_call_that_comes_leaves_the_place_to_one_that_waits() {
        let rule = fixed(1);
        let state = Concurrency::new();
        let _ = ask(&state, &rule);
        let ConcurrencyVerdict::Wait { until } = ask(&state, &rule) else { panic!("it is taken") };
        state.after(&rule, Released::Nothing, at(0));
        assert!(matches!(ask(&state, &rule), ConcurrencyVerdict::Wait { .. }), "it is somebody else's turn");
        assert_eq!(state.before(&rule, at(0), Deadline::NONE, until), ConcurrencyVerdict::Pass);
        state.after(&rule, Released::Nothing, until);
        // Who may not wait takes what is free, and nobody who waits no more keeps it from others for long.
        let impatient = ConcurrencyRule { max_wait: Duration::ZERO, ..rule };
        assert_eq!(ask(&state, &impatient), ConcurrencyVerdict::Pass);
        state.after(&rule, Released::Nothing, until);
        let later = until.plus_millis(80);
        assert_eq!(state.before(&rule, later, Deadline::NONE, later), ConcurrencyVerdict::Pass);
    }

    /// What comes of `callers`, each of whom makes one call after another, of `millis` each, for a minute: how many
    /// calls were made in all, by him who made fewest, how often places were asked for, and the longest wait.
    fn a_minute_of(callers: usize, rule: &ConcurrencyRule, millis: u64) -> (u64, u64, u64, Duration) {
        use std::{cmp::Reverse, collections::BinaryHeap};
        let state = Concurrency::new();
        let (mut made, mut asks, mut longest) = (vec![0; callers], 0, Duration::ZERO);
        // Whose moment it is, and since when he waits; one who has a place gives it back.
        let mut moments: BinaryHeap<_> = (0..callers).map(|who| Reverse((at(0), who, Some(at(0))))).collect();
        while let Some(Reverse((now, who, since))) = moments.pop()
            && now < at(60_000)
        {
            if since.is_none() {
                state.after(rule, Released::Answered(Duration::from_millis(millis)), now);
                made[who] += 1;
            }
            let since = since.unwrap_or(now);
            asks += 1;
            moments.push(Reverse(match state.before(rule, since, Deadline::NONE, now) {
                ConcurrencyVerdict::Pass => {
                    longest = longest.max(now.since(since));
                    (now.plus_millis(millis), who, None)
                }
                ConcurrencyVerdict::Wait { until } => (until, who, Some(since)),
                ConcurrencyVerdict::Full => panic!("{who} ran out of patience at {now:?}"),
            }));
        }
        (made.iter().sum(), made.into_iter().min().unwrap(), asks, longest)
    }

    #[test]
    fn many_who_wait_ask_seldom_and_each_of_them_gets_his_turn() {
        for (callers, limit, millis) in [(200, 40, 1_000), (44, 4, 20), (2, 1, 500), (200, 8, 4)] {
            let rule = ConcurrencyRule { max_wait: Duration::from_secs(60), ..fixed(limit) };
            let (made, fewest, asks, longest) = a_minute_of(callers, &rule, millis);
            let told = format!("{callers} over {limit}, {millis} ms: {made}, {fewest}, {asks}, {longest:?}");
            let could = 60_000 / millis * u64::from(limit);
            assert!(made * 4 >= could * 3, "places stand empty: {told}");
            assert!(fewest * callers as u64 * 3 >= made, "some go before others: {told}");
            assert!(asks <= made * 100, "{told}");
        }
    }

    #[test]
    fn a_place_given_back_twice_opens_no_second_one() {
        let rule = fixed(1);
        let state = Concurrency::new();
        state.after(&rule, Released::Nothing, at(0));
        assert_eq!(state.under_way(), 0);
        assert_eq!(ask(&state, &rule), ConcurrencyVerdict::Pass);
        assert!(matches!(ask(&state, &rule), ConcurrencyVerdict::Wait { .. }));
    }

    /// A vendor that serves `capacity` calls at once in 100 ms each, and queues what is beyond.
    fn settle_at(capacity: u32, rule: &ConcurrencyRule) -> u32 {
        let state = Concurrency::new();
        for round in 0..3_000 {
            let mut sent = 0;
            while ask_again(&state, rule) == ConcurrencyVerdict::Pass {
                sent += 1;
            }
            let latency = 100.0 * (f64::from(sent) / f64::from(capacity)).max(1.0);
            for _ in 0..sent {
                state.after(rule, Released::Answered(Duration::from_secs_f64(latency / 1e3)), at(round));
            }
        }
        // What it goes back to, where a measurement is under way at the end.
        state.limit(rule).max(state.gradient.lock().unwrap().held as u32)
    }

    #[test]
    fn an_adaptive_limit_finds_about_what_the_vendor_takes() {
        let rule = ConcurrencyRule::new(Limit::ADAPTIVE);
        assert_eq!(settle_at(100_000, &rule), 200, "a vendor that never slows down is limited by `most`");
        for capacity in [2, 10, 60] {
            let limit = settle_at(capacity, &rule);
            assert!((capacity..=capacity * 2 + 2).contains(&limit), "{limit} for {capacity}");
        }
    }

    #[test]
    fn answers_of_too_much_shrink_it_but_not_to_nothing() {
        let rule = ConcurrencyRule::new(Limit::ADAPTIVE);
        let state = Concurrency::new();
        (0..100).for_each(|_| state.after(&rule, Released::Overloaded, at(0)));
        assert_eq!(state.limit(&rule), 18, "once in a tenth of a second");
        (0..100_000).for_each(|millis| state.after(&rule, Released::Overloaded, at(millis)));
        assert_eq!(state.limit(&rule), 1);
    }

    #[test]
    fn it_does_not_grow_while_it_is_not_used() {
        let rule = ConcurrencyRule::new(Limit::ADAPTIVE);
        let state = Concurrency::new();
        for millis in 0..10_000 {
            let _ = ask(&state, &rule);
            state.after(&rule, Released::Answered(Duration::from_millis(1)), at(millis));
        }
        assert_eq!(state.limit(&rule), INITIAL);
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds(
            least in 1u32..50, more in 0u32..500, events in prop::collection::vec((0u8..3, any::<u64>()), 1..500)
        ) {
            let rule = ConcurrencyRule::new(Limit::Adaptive { least, most: least + more });
            let state = Concurrency::new();
            for (what, number) in events {
                let _ = state.before(&rule, at(0), Deadline::NONE, Timestamp::from_nanos(number));
                let released = match what {
                    0 => Released::Answered(Duration::from_micros(number)),
                    1 => Released::Overloaded,
                    _ => Released::Nothing,
                };
                state.after(&rule, released, Timestamp::from_nanos(number));
                prop_assert!((least..=least + more).contains(&state.limit(&rule)), "{}", state.limit(&rule));
            }
        }
    }

    #[test]
    fn many_threads_never_exceed_the_limit_and_lose_no_place() {
        let rule = fixed(3);
        let (state, inside) = (Concurrency::new(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if ask_again(&state, &rule) == ConcurrencyVerdict::Pass {
                            assert!(inside.fetch_add(1, Relaxed) < 3);
                            std::hint::spin_loop();
                            inside.fetch_sub(1, Relaxed);
                            state.after(&rule, Released::Answered(Duration::from_millis(1)), at(0));
                        }
                    }
                });
            }
        });
        assert_eq!(state.under_way(), 0);
    }
}
