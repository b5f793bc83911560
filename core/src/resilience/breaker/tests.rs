use super::*;
use crate::call::ErrorType;
use proptest::prelude::*;
use std::sync::atomic::AtomicUsize;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000).plus_millis(millis)
}

fn rule() -> BreakerRule {
    BreakerRule::default()
}

fn send(breaker: &Breaker, judgement: Judgement, now: Timestamp) -> Option<Phase> {
    match breaker.before(&rule(), now) {
        BreakerVerdict::Pass(pass) => breaker.after(&rule(), pass, judgement, now),
        BreakerVerdict::Open { .. } => panic!("open at {now:?}"),
    }
}

/// A breaker that opened at `at(0)`.
fn opened() -> Breaker {
    let breaker = Breaker::new();
    for _ in 0..5 {
        send(&breaker, Judgement::Bad, at(0));
    }
    assert_eq!(breaker.phase(), Phase::Open);
    breaker
}

#[test]
fn it_fits_into_a_cache_line_and_a_half() {
    assert!(size_of::<Breaker>() <= 96);
}

#[test]
fn five_failures_in_a_row_open_it() {
    let breaker = Breaker::new();
    for _ in 0..4 {
        assert_eq!(send(&breaker, Judgement::Bad, at(0)), None);
    }
    assert_eq!(send(&breaker, Judgement::Good, at(0)), None);
    for _ in 0..4 {
        assert_eq!(send(&breaker, Judgement::Bad, at(0)), None);
    }
    assert_eq!(send(&breaker, Judgement::Bad, at(0)), Some(Phase::Open));
    assert_eq!(breaker.before(&rule(), at(29_999)), BreakerVerdict::Open { until: at(30_000) });
}

#[test]
fn half_of_the_last_hundred_opens_it_though_never_two_in_a_row() {
    let breaker = Breaker::new();
    let opened_at = (0..).find(|n| {
        let judgement = if n % 2 == 0 { Judgement::Bad } else { Judgement::Good };
        send(&breaker, judgement, at(*n)).is_some()
    });
    assert_eq!(opened_at, Some(100), "not before the window is full");
}

#[test]
fn a_rate_below_the_threshold_keeps_it_closed() {
    let breaker = Breaker::new();
    for n in 0..10_000 {
        let judgement = if n % 5 < 2 { Judgement::Bad } else { Judgement::Good };
        assert_eq!(send(&breaker, judgement, at(n)), None);
    }
}

#[test]
fn a_narrower_window_after_a_reload_forgets_what_lies_beyond_it() {
    let breaker = Breaker::new();
    let wide = BreakerRule { consecutive: 1_000, ..rule() };
    for n in 0..100 {
        let judgement = if (50..99).contains(&n) { Judgement::Bad } else { Judgement::Good };
        assert_eq!(breaker.after(&wide, Pass::Normal, judgement, at(n)), None);
    }
    let narrow = BreakerRule { window: 50, ..wide };
    for n in 0..10_000 {
        let judgement = if n % 5 == 0 { Judgement::Bad } else { Judgement::Good };
        assert_eq!(breaker.after(&narrow, Pass::Normal, judgement, at(n)), None);
    }
}

#[test]
fn being_throttled_opens_nothing_but_fails_a_probe() {
    let breaker = Breaker::new();
    for _ in 0..1_000 {
        assert_eq!(send(&breaker, Judgement::Throttled, at(0)), None);
    }
    let breaker = opened();
    assert_eq!(send(&breaker, Judgement::Throttled, at(30_000)), Some(Phase::Open));
    assert_eq!(breaker.before(&rule(), at(30_001)), BreakerVerdict::Open { until: at(60_000) });
}

#[test]
fn it_closes_after_all_probes_and_starts_from_nothing() {
    let breaker = opened();
    for _ in 0..9 {
        assert_eq!(send(&breaker, Judgement::Good, at(30_000)), None);
        assert_eq!(breaker.phase(), Phase::HalfOpen);
    }
    assert_eq!(send(&breaker, Judgement::Good, at(30_000)), Some(Phase::Closed));
    for _ in 0..4 {
        assert_eq!(send(&breaker, Judgement::Bad, at(30_000)), None);
    }
}

#[test]
fn a_cancelled_probe_gives_its_place_back() {
    let breaker = opened();
    for _ in 0..100 {
        assert_eq!(send(&breaker, Judgement::Unknown, at(30_000)), None);
    }
    assert_eq!(breaker.phase(), Phase::HalfOpen);
}

#[test]
fn lost_probes_time_out_and_are_not_believed_later() {
    let breaker = opened();
    let lost: Vec<Pass> = (0..10)
        .map(|_| match breaker.before(&rule(), at(30_000)) {
            BreakerVerdict::Pass(pass) => pass,
            BreakerVerdict::Open { .. } => panic!("a probe may pass"),
        })
        .collect();
    assert_eq!(breaker.before(&rule(), at(30_001)), BreakerVerdict::Open { until: at(60_000) });
    assert!(matches!(breaker.before(&rule(), at(60_000)), BreakerVerdict::Pass(Pass::Probe(_))));
    for pass in lost {
        assert_eq!(breaker.after(&rule(), pass, Judgement::Bad, at(60_000)), None);
    }
    assert_eq!(breaker.phase(), Phase::HalfOpen);
}

#[test]
fn good_probes_of_a_quiet_vendor_add_up_over_time() {
    let breaker = opened();
    let changes: Vec<_> =
        (0..10).map(|minute| send(&breaker, Judgement::Good, at(60_000 * (minute + 1)))).collect();
    assert_eq!(changes[9], Some(Phase::Closed));
}

#[test]
fn what_was_sent_before_it_opened_changes_nothing_later() {
    let breaker = Breaker::new();
    let BreakerVerdict::Pass(old) = breaker.before(&rule(), at(0)) else { panic!("closed") };
    for _ in 0..5 {
        send(&breaker, Judgement::Bad, at(0));
    }
    assert_eq!(breaker.after(&rule(), old, Judgement::Bad, at(29_000)), None);
    assert_eq!(breaker.before(&rule(), at(29_500)), BreakerVerdict::Open { until: at(30_000) });
}

#[test]
fn endings_are_judged_by_whose_fault_they_are() {
    assert_eq!(Judgement::of(Ending::Status(200)), Judgement::Good);
    assert_eq!(Judgement::of(Ending::Status(404)), Judgement::Good);
    assert_eq!(Judgement::of(Ending::Status(429)), Judgement::Throttled);
    assert_eq!(Judgement::of(Ending::Status(529)), Judgement::Bad);
    assert_eq!(Judgement::of(Ending::Error(ErrorType::Cancelled)), Judgement::Unknown);
    assert_eq!(Judgement::of(Ending::Error(ErrorType::Timeout)), Judgement::Bad);
}

proptest! {
    #[test]
    fn nobody_waits_longer_than_it_stays_open_whatever_the_clock_does(
        moments in prop::collection::vec((any::<u64>(), 0u8..4), 1..200)
    ) {
        let breaker = Breaker::new();
        for (nanos, what) in moments {
            let now = Timestamp::from_nanos(nanos);
            match breaker.before(&rule(), now) {
                BreakerVerdict::Open { until } => {
                    prop_assert!(until.since(now) <= rule().open + Duration::from_millis(1), "{until:?} at {now:?}");
                }
                BreakerVerdict::Pass(pass) => {
                    let judgement = [Judgement::Good, Judgement::Bad, Judgement::Throttled, Judgement::Unknown];
                    breaker.after(&rule(), pass, judgement[what as usize], now);
                }
            }
        }
    }
}

/// The breaker as one would write it without regard to speed: what it must agree with, one call after the other.
struct Plain {
    phase: Phase,
    last: std::collections::VecDeque<bool>,
    row: u16,
    until: Timestamp,
    good: u16,
}

impl Plain {
    /// Whether an attempt passes; what it adds.
    fn send(&mut self, rule: &BreakerRule, judgement: Judgement, now: Timestamp) -> bool {
        if self.phase == Phase::Open {
            if now < self.until {
                return false;
            }
            (self.phase, self.good) = (Phase::HalfOpen, 0);
        }
        let open = match (self.phase, judgement) {
            (_, Judgement::Unknown) | (Phase::Closed, Judgement::Throttled) => false,
            (Phase::HalfOpen, Judgement::Good) => {
                self.good += 1;
                if self.good == rule.probes {
                    (self.phase, self.row) = (Phase::Closed, 0);
                    self.last.clear();
                }
                false
            }
            (Phase::HalfOpen, _) => true,
            (_, judgement) => {
                let bad = judgement == Judgement::Bad;
                self.row = if bad { self.row + 1 } else { 0 };
                self.last.push_back(bad);
                if self.last.len() > usize::from(rule.window) {
                    self.last.pop_front();
                }
                let failures = self.last.iter().filter(|bad| **bad).count() as u64;
                let full = self.last.len() == usize::from(rule.window);
                let rate = full && failures >= rule.failure_rate.of(u64::from(rule.window)).max(1);
                bad && (rate || self.row >= rule.consecutive)
            }
        };
        if open {
            (self.phase, self.until) = (Phase::Open, now.plus(rule.open));
        }
        true
    }
}

proptest! {
    #[test]
    fn it_agrees_with_the_plain_one(
        consecutive in 1u16..8, rate in 0.05f64..=1.0, window in 10u16..150, probes in 1u16..5,
        events in prop::collection::vec((0u64..300, 0u8..20), 1..2_000),
    ) {
        let rule = BreakerRule {
            consecutive, failure_rate: Share::from_ratio(rate).unwrap(), window, probes, open: Duration::from_secs(1),
        };
        let (breaker, mut now) = (Breaker::new(), at(0));
        let mut plain = Plain { phase: Phase::Closed, last: [].into(), row: 0, until: now, good: 0 };
        for (millis, what) in events {
            now = now.plus_millis(millis);
            let judgement = match what {
                0..10 => Judgement::Good,
                10..18 => Judgement::Bad,
                18 => Judgement::Throttled,
                _ => Judgement::Unknown,
            };
            let verdict = breaker.before(&rule, now);
            let passes = matches!(verdict, BreakerVerdict::Pass(_));
            if let BreakerVerdict::Pass(pass) = verdict {
                breaker.after(&rule, pass, judgement, now);
            }
            prop_assert_eq!(passes, plain.send(&rule, judgement, now));
            prop_assert_eq!(breaker.phase(), plain.phase);
        }
    }

    /// Long stretches of successes between failures: the window is full of nothing else, again and again.
    #[test]
    fn it_agrees_with_the_plain_one_about_a_vendor_that_seldom_fails(
        rate in 0.02f64..=0.3, window in 10u16..150,
        stretches in prop::collection::vec((0usize..200, 1usize..12), 1..30),
    ) {
        let rule = BreakerRule {
            consecutive: 10, failure_rate: Share::from_ratio(rate).unwrap(), window, ..rule()
        };
        let (breaker, mut now) = (Breaker::new(), at(0));
        let mut plain = Plain { phase: Phase::Closed, last: [].into(), row: 0, until: now, good: 0 };
        for (good, bad) in stretches {
            let judgements = [(good, Judgement::Good), (bad, Judgement::Bad)];
            for judgement in judgements.into_iter().flat_map(|(times, judgement)| vec![judgement; times]) {
                now = now.plus_millis(100);
                let verdict = breaker.before(&rule, now);
                let passes = matches!(verdict, BreakerVerdict::Pass(_));
                if let BreakerVerdict::Pass(pass) = verdict {
                    breaker.after(&rule, pass, judgement, now);
                }
                prop_assert_eq!(passes, plain.send(&rule, judgement, now));
                prop_assert_eq!(breaker.phase(), plain.phase);
            }
        }
    }
}

/// Threads race for the probes of one round; none of them comes back before all have asked.
#[test]
fn exactly_as_many_probes_pass_as_the_rule_says() {
    for round in 0..300 {
        let (breaker, probes) = (opened(), AtomicUsize::new(0));
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..20 {
                        if let BreakerVerdict::Pass(pass) = breaker.before(&rule(), at(30_000 + round)) {
                            assert!(matches!(pass, Pass::Probe(_)));
                            probes.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(probes.into_inner(), 10);
    }
}

/// Threads fail together: the breaker opens once for each time it was closed or half-open.
#[test]
fn of_many_failures_at_once_one_opens_it() {
    for _ in 0..300 {
        let (breaker, opened) = (Breaker::new(), AtomicUsize::new(0));
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..10 {
                        let change = breaker.after(&rule(), Pass::Normal, Judgement::Bad, at(0));
                        opened.fetch_add(usize::from(change.is_some()), Relaxed);
                    }
                });
            }
        });
        assert_eq!(opened.into_inner(), 1);
    }
}
