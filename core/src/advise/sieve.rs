//! Which calls are looked at: all of them, up to a rate; beyond it fewer and fewer, each for more of them.
//!
//! A look costs as much as all else that is done about a call. An endpoint that a thread calls a few hundred times a
//! second is seen whole. Of one that is called more often, each further [`LOOKS`] looks within a [`window`] halve the
//! share that is looked at, and each look counts for as many calls as it was one of. So what looking takes is bounded,
//! and the sums stay right on average. Where the calls are about many things, it is things that are chosen, by a hash:
//! whether a thing is asked for again shows only if all its calls are seen. Where they are about one, it is calls, by
//! lot.

use crate::units::{Timestamp, spread};
use std::sync::atomic::{AtomicU64, Ordering};

/// Endpoints that a thread calls at the same time, about. Each has the choice of two places: three that met in one
/// would all be seen whole, which costs those who call them often what it is to spare them.
const PLACES: usize = 128;
/// So many looks at an endpoint in a window, before half as many calls are looked at.
const LOOKS: u64 = 256;
/// The share of things, and that of calls, is halved so often at most.
const MAX_LEVEL: u64 = 15;

/// How often a thread has looked at each endpoint lately. Written by one thread as good as always: where two write at
/// once, a look is not counted, or one more is taken.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Sieve([Place; PLACES]);

#[derive(Debug)]
struct Place {
    endpoint: AtomicU64,
    /// A byte for each of eight things that calls were about lately.
    about: AtomicU64,
    state: AtomicU64,
}

impl Place {
    /// Whether a call is about something that none was lately; `about` is a hash.
    fn is_new(&self, about: u64) -> bool {
        let (shift, byte) = (8 * (about >> 40 & 7), about >> 48 & 0xff);
        let known = self.about.load(Ordering::Relaxed);
        let new = known >> shift & 0xff != byte;
        if new {
            self.about.store(known & !(0xff << shift) | byte << shift, Ordering::Relaxed);
        }
        new
    }
}

/// A place's state, in one word: 32 bits, twice 10, twice 4.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    window: u64,
    /// Looks in the window, since the share was halved last.
    looks: u64,
    /// Those of them that were about something new.
    new: u64,
    /// How often the share of things was halved.
    things: u64,
    /// How often that of calls was.
    calls: u64,
}

impl State {
    const fn of(word: u64) -> Self {
        let (looks, new) = (word >> 18 & 0x3ff, word >> 8 & 0x3ff);
        Self { window: word >> 32, looks, new, things: word >> 4 & 0xf, calls: word & 0xf }
    }

    const fn word(self) -> u64 {
        self.window << 32 | self.looks << 18 | self.new << 8 | self.things << 4 | self.calls
    }
}

/// The number of a moment's window of 268 ms.
const fn window(now: Timestamp) -> u64 {
    (now.as_nanos() >> 28) & 0xffff_ffff
}

impl Sieve {
    pub(super) const fn new() -> Self {
        Self(
            [const { Place { endpoint: AtomicU64::new(0), about: AtomicU64::new(0), state: AtomicU64::new(0) } };
                PLACES],
        )
    }

    /// An endpoint's place, or, of the two that it may have, that which nobody looked at for longer.
    fn place(&self, endpoint: u64, window: u64) -> &Place {
        let hash = spread(endpoint);
        let at = |shift: u32| &self.0[(hash >> shift) as usize % PLACES];
        let is_its = |place: &Place| place.endpoint.load(Ordering::Relaxed) == endpoint;
        let first = at(57);
        if is_its(first) {
            return first;
        }
        let second = at(50);
        let unused =
            |place: &Place| window.wrapping_sub(State::of(place.state.load(Ordering::Relaxed)).window);
        match !is_its(second) && unused(first) >= unused(second) {
            true => first,
            false => second,
        }
    }

    /// Whether a call is looked at; then it counts for two to the power of this. `about` stands for what it asks for,
    /// and `lot` is any number that differs from call to call.
    pub(super) fn take(&self, endpoint: u64, about: u64, lot: u64, now: Timestamp) -> Option<u8> {
        let window = window(now);
        let place = self.place(endpoint, window);
        let mut state = State::of(place.state.load(Ordering::Relaxed));
        if place.endpoint.load(Ordering::Relaxed) != endpoint {
            place.endpoint.store(endpoint, Ordering::Relaxed);
            state = State { window, ..State::default() };
        } else if state.window != window {
            // A clock that went back makes this as many as there can be.
            let passed = window.wrapping_sub(state.window);
            let (things, calls) = (state.things.saturating_sub(passed), state.calls.saturating_sub(passed));
            state = State { window, things, calls, ..State::default() };
            place.state.store(state.word(), Ordering::Relaxed);
        }
        let (things, calls) = ((1 << state.things) - 1, (1 << state.calls) - 1);
        let about = spread(about);
        if about & things != 0 || lot & calls != 0 {
            return None;
        }
        let level = state.things + state.calls;
        state.looks += 1;
        state.new += u64::from(place.is_new(about));
        if state.looks >= LOOKS {
            let halved = if state.new > LOOKS / 2 { &mut state.things } else { &mut state.calls };
            *halved = (*halved + 1).min(MAX_LEVEL);
            (state.looks, state.new) = (0, 0);
        }
        place.state.store(state.word(), Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "at most 30")]
        Some(level as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1_790_000_000_000_000_000).plus_millis(millis)
    }

    #[test]
    fn an_endpoint_that_is_called_now_and_then_is_seen_whole() {
        let sieve = Sieve::new();
        for n in 0..10_000 {
            assert_eq!(sieve.take(5, n, spread(n), at(n * 2)), Some(0));
        }
    }

    #[test]
    fn one_that_is_called_all_the_time_is_looked_at_seldom_and_the_looks_count_for_all_calls() {
        for things in [1, 3, 50_000] {
            let sieve = Sieve::new();
            let calls = 2_000_000;
            let (mut looks, mut counted) = (0_u64, 0_u64);
            for n in 0..calls {
                // Half a million a second.
                let now = Timestamp::from_nanos(at(0).as_nanos() + n * 2_000);
                if let Some(level) = sieve.take(5, spread(n) % things, spread(n), now) {
                    looks += 1;
                    counted += 1 << level;
                }
            }
            assert!(looks < calls / 50, "{things}: {looks}");
            assert!((calls * 7 / 10..calls * 14 / 10).contains(&counted), "{things}: {counted}");
            assert_eq!(sieve.take(5, 1, 1, at(60_000)), Some(0), "after a pause it is seen whole again");
        }
    }

    #[test]
    fn of_many_things_each_is_seen_at_all_its_calls_or_at_none() {
        let sieve = Sieve::new();
        // Until the share is settled.
        let mut now = at(0).as_nanos();
        let mut call = |n: u64| {
            now += 10_000;
            sieve.take(5, n % 10_000, spread(n), Timestamp::from_nanos(now))
        };
        for n in 0..200_000 {
            let _ = call(n);
        }
        let (mut looks, mut lots) = (0, 0);
        for n in 0..50_000 {
            if let Some(level) = call(n) {
                looks += 1;
                lots += u32::from(1 << level > 1 && spread(n % 10_000) & 1 != 0);
            }
        }
        assert!(looks > 0 && lots == 0, "{looks}, {lots}");
    }

    #[test]
    fn endpoints_that_would_meet_in_one_place_are_looked_at_as_seldom_as_others() {
        let first = |endpoint: u64| spread(endpoint) >> 57;
        let second = |endpoint: u64| spread(endpoint) >> 50 & 127;
        let with = |endpoint: u64| {
            let apart = |other: &u64| second(*other) != second(endpoint) && second(*other) != first(endpoint);
            (1..10_000).filter(apart).find(|other| *other != endpoint && first(*other) == first(endpoint))
        };
        for endpoint in 1..8_u64 {
            let Some(other) = with(endpoint) else { panic!("10,000 endpoints for 128 places") };
            let sieve = Sieve::new();
            let mut looks = 0;
            for n in 0..200_000_u64 {
                let now = Timestamp::from_nanos(at(0).as_nanos() + n * 1_000);
                let asked = if n % 2 == 0 { endpoint } else { other };
                looks += u64::from(sieve.take(asked, 1, spread(n), now).is_some());
            }
            assert!(looks < 10_000, "{endpoint} and {other}: {looks} looks");
        }
    }

    #[test]
    fn a_clock_that_jumps_makes_no_call_unseen_for_long() {
        let sieve = Sieve::new();
        for n in 0..100_000 {
            let _ = sieve.take(5, n, spread(n), at(1_000));
        }
        for now in [at(0), at(1_000_000), at(500)] {
            assert_eq!(sieve.take(5, 1, u64::MAX, now), Some(0));
        }
    }
}
