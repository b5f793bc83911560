//! Whatever happens to a cell: threads, clocks, any bytes, a vendor with answers that overtake each other.

use super::*;

#[test]
fn a_clock_that_jumps_back_forgets_what_was_noted_under_the_other_clock() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let ahead = 3_600_000;
    let claim = pass(&cell, &rule, at(ahead));
    cell.state(&claim, &says(10, 0, at(ahead + 60_000)), at(ahead));
    assert!(matches!(ask(&cell, &rule, at(ahead)), Verdict::Refuse { .. }));
    pass(&cell, &rule, at(0));
    cell.limited(&claim, Limited::Rate, Some(at(ahead + 60_000)), at(ahead));
    assert!(matches!(ask(&cell, &rule, at(ahead)), Verdict::Refuse { .. }));
    pass(&cell, &rule, at(0));
}

#[test]
fn eight_threads_on_one_cell_never_get_more_than_the_limit() {
    let rule =
        Rule { max_wait: Duration::ZERO, ..Rule::limit(1_000, Unit::Requests, Duration::from_secs(1)) };
    let (cell, window) = (Cell::new(), Cell::new());
    let first = pass(&window, &Rule::default(), at(0));
    window.state(&first, &says(1_000, 700, at(60_000)), at(0));
    let (paced, counted): (Vec<u64>, Vec<u64>) = std::thread::scope(|scope| {
        let work = |thread: u64| {
            let (cell, window, rule) = (&cell, &window, &rule);
            move || {
                let (mut paced, mut counted) = (0, 0);
                for milli in 0..1_000 {
                    for _ in 0..3 {
                        paced += u64::from(ask(cell, rule, at(milli)) == Verdict::Pass);
                    }
                    let mut claim = Claim::new();
                    let verdict = window.before(&Rule::default(), &mut claim, &Ask::one(), at(milli));
                    counted += u64::from(verdict == Verdict::Pass);
                    if (milli + thread).is_multiple_of(3) && verdict == Verdict::Pass {
                        window.undo(&mut claim);
                        counted -= 1;
                    }
                }
                (paced, counted)
            }
        };
        let threads: Vec<_> = (0..8).map(|thread| scope.spawn(work(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).unzip()
    });
    let (paced, counted) = (paced.iter().sum::<u64>(), counted.iter().sum::<u64>());
    // A thread that lags behind sees an earlier time, which counts as the latest one seen.
    assert!((990..=1_011).contains(&paced), "{paced}");
    assert_eq!(counted, 700);
}

proptest! {
    /// Whatever a dying process left in a cell, or somebody wrote there: nothing panics, no wait is longer than
    /// allowed, and within a minute of the vendor's answers all is well again.
    #[test]
    fn any_words_are_a_state_that_heals(
        words in proptest::collection::vec(any::<u64>(), 16),
        zeroed in 0u16..,
        millis in 0u64..100_000,
        smooth in any::<bool>(),
    ) {
        let cell = Cell::new();
        for (index, (word, value)) in cell.words().into_iter().zip(words).enumerate() {
            word.store(if zeroed >> index & 1 == 1 { 0 } else { value }, Relaxed);
        }
        let limited = Rule::limit(10, Unit::Requests, Duration::from_secs(1));
        let pace = if smooth { Pace::Smooth } else { Pace::Off };
        let rule = Rule { pace, concurrency: Some(1 << 25), shared: Shared::Fleet, ..limited };
        let mut now = at(millis);
        for _ in 0..50 {
            let mut claim = Claim::new();
            match cell.before(&rule, &mut claim, &Ask::one(), now) {
                Verdict::Wait { until, .. } => prop_assert!(until <= now.plus(rule.max_wait)),
                Verdict::Pass | Verdict::Refuse { .. } => {}
            }
            let _ = cell.standing(now);
            cell.state(&claim, &says(100, 90, now.plus_millis(30_000)), now);
            cell.limited(&claim, Limited::Rate, None, now);
            cell.end(&mut claim);
            now = now.plus_millis(7);
        }
        // An hour later the vendor speaks twice, and calls go.
        let hour = at(3_600_000 + millis);
        let mut went = 0;
        for second in 0..1_200 {
            let now = hour.plus_millis(second * 1_000);
            let mut claim = Claim::new();
            if cell.before(&Rule::default(), &mut claim, &Ask::one(), now) == Verdict::Pass {
                went += 1;
                cell.state(&claim, &says(100, 90, now.plus_millis(30_000)), now);
            }
        }
        prop_assert!(went > 0, "{cell:?} {:?} {:?}", cell.standing(hour), ask(&cell, &Rule::default(), hour));
    }

    /// A vendor with a fixed window, answers that overtake each other, and somebody else on the credential.
    #[test]
    fn the_vendors_window_is_kept_to_and_used(
        limit in 20u64..200,
        latency in 1u64..120,
        foreign_every in prop_oneof![Just(0u64), 200u64..2_000],
        seed in any::<u64>(),
        smooth in any::<bool>(),
    ) {
        let (length, windows) = (2_000u64, 6u64);
        let cell = Cell::new();
        let rule = Rule { pace: if smooth { Pace::Smooth } else { Pace::Off }, max_wait: Duration::ZERO, ..Rule::default() };
        let mut random = seed | 1;
        let mut under_way: Vec<(u64, Claim, Stated)> = Vec::new();
        let (mut refused, mut used) = (0u64, vec![0u64; windows as usize + 1]);
        for milli in 0..windows * length {
            let window = (milli / length) as usize;
            for (_, mut claim, stated) in under_way.extract_if(.., |(due, ..)| *due <= milli) {
                cell.state(&claim, &stated, at(milli));
                cell.end(&mut claim);
            }
            if foreign_every > 0 && milli % foreign_every == 0 && used[window] < limit {
                used[window] += 1;
            }
            // Twice as many calls as may go.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (random >> 33) % length >= (2 * limit).min(length) {
                continue;
            }
            let mut claim = Claim::new();
            if cell.before(&rule, &mut claim, &Ask::one(), at(milli)) != Verdict::Pass {
                continue;
            }
            // The vendor counts at once, its answer takes a while.
            if used[window] < limit { used[window] += 1 } else if window > 0 { refused += 1 }
            let stated = Stated {
                limit: Some(limit),
                remaining: Some(limit - used[window]),
                resets_at: Some(at((window as u64 + 1) * length)),
                window: Some(Duration::from_millis(length)),
            };
            under_way.push((milli + 1 + (random >> 20) % latency, claim, stated));
        }
        let whole: u64 = used[1..windows as usize].iter().sum();
        let allowed = limit * (windows - 1);
        // Somebody else's calls are seen one answer late.
        let unseen = length.checked_div(foreign_every).map_or(0, |calls| (windows - 1) * (1 + calls));
        prop_assert!(refused <= unseen, "{refused} refused");
        prop_assert!(whole * 100 >= allowed * 90, "{whole} of {allowed} used");
    }
}
