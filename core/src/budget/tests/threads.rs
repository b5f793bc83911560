//! What it promises to many threads at once.

use super::*;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn many_threads_never_spend_more_than_the_limit_and_lose_nothing() {
    const LIMIT: u64 = 1_000_000;
    let rule = requests(LIMIT, Period::Day, Action::Refuse);
    let state = State::new();
    let (spent, highest) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (rule, state, spent, highest) = (&rule, &state, &spent, &highest);
            scope.spawn(move || {
                let mut seed = thread + 1;
                let mut open = Vec::new();
                let mut tally = state.tally(thread as usize);
                for n in 0..20_000 {
                    if n % 1_000 == 999 {
                        tally = state.tally(n % 3);
                    }
                    seed =
                        seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let amount = seed >> 33 & 0xff;
                    if let Verdict::Admit(admission) = state.reserve(rule, amount, NOW) {
                        open.push(admission.reservation);
                    }
                    highest.fetch_max(used(state, rule, NOW), Ordering::Relaxed);
                    if open.len() > 3 {
                        let call = open.swap_remove((seed >> 20) as usize % open.len());
                        // Never more than was reserved: then the limit holds to the unit. Half of them all of it.
                        let less =
                            if seed >> 50 & 1 == 0 { 0 } else { (seed >> 40) % (call.amount() + 1) / 2 };
                        let cost = call.amount() - less;
                        spent.fetch_add(cost, Ordering::Relaxed);
                        let _ = state.settle_by(&tally, rule, call, known(cost), NOW);
                    }
                }
                for call in open {
                    let _ = state.settle(rule, call, Spent::NOTHING, NOW);
                }
            });
        }
    });
    assert!(highest.into_inner() <= LIMIT);
    let spent = spent.into_inner();
    assert_eq!((used(&state, &rule, NOW), state.settled()), (spent, spent));
    assert!(spent > LIMIT / 2, "{spent}: the test did fill the budget");
}

/// Threads of one clock, of which none is further ahead of another than so many steps. A scheduler that lets one of them
/// rest while the others go on would be a clock that leaps back, which the account goes along with.
struct Pace {
    clock: AtomicU64,
    /// The step that each thread is at, or was at before.
    at: [AtomicU64; 4],
}

impl Pace {
    const AHEAD: u64 = 1_500;

    /// The next step.
    fn step(&self, thread: usize) -> u64 {
        let step = self.clock.fetch_add(1, Ordering::Relaxed);
        self.at[thread].store(step, Ordering::Release);
        while self.at.iter().any(|at| at.load(Ordering::Acquire) + Self::AHEAD < step) {
            std::thread::yield_now();
        }
        step
    }
}

/// That a thread is through, or has failed: nobody waits for it.
struct Through<'a>(&'a AtomicU64);

impl Drop for Through<'_> {
    fn drop(&mut self) {
        self.0.store(u64::MAX / 2, Ordering::Release);
    }
}

#[test]
fn many_threads_over_the_turn_of_many_periods_lose_nothing() {
    // All threads share the clock, but not the moment of reading it, so that they meet at every turn.
    const PERIODS: u64 = 100;
    const LIMIT: u64 = 40;
    let rule = requests(LIMIT, Period::Minute, Action::Refuse);
    let state = State::new();
    let spent = AtomicU64::new(0);
    let pace = Pace { clock: AtomicU64::new(0), at: Default::default() };
    let first = Period::Minute.number(NOW);
    std::thread::scope(|scope| {
        for thread in 0..pace.at.len() {
            let (rule, state, spent, pace) = (&rule, &state, &spent, &pace);
            scope.spawn(move || {
                let _through = Through(&pace.at[thread]);
                let tally = state.tally(thread);
                loop {
                    // Half a second a step: 120 for the 40 calls of a minute.
                    let now = NOW.plus_millis(pace.step(thread) * 500);
                    if Period::Minute.number(now) - first >= PERIODS {
                        return;
                    }
                    if let Verdict::Admit(admission) = state.reserve(rule, 1, now) {
                        spent.fetch_add(1, Ordering::Relaxed);
                        let _ = state.settle_by(&tally, rule, admission.reservation, known(1), now);
                    }
                }
            });
        }
    });
    let spent = spent.into_inner();
    assert_eq!(state.settled(), spent);
    // No period's account is opened twice.
    assert!(spent <= PERIODS * LIMIT, "{spent}");
    // A thread that reserved before a turn and settles after it counts in both: three of them at most, as somebody turned.
    assert!(spent >= PERIODS * (LIMIT - 3), "{spent}");
}
