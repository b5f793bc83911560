//! Who waits for a reset: in which order, until when, and for how long at most.

use super::*;

#[test]
fn an_exhausted_window_refuses_with_the_time_of_its_reset() {
    let (cell, rule) = (Cell::new(), Rule::default());
    let claim = pass(&cell, &rule, at(0));
    assert_eq!(cell.state(&claim, &says(100, 1, at(60_000)), at(50)), Reading::Taken);
    pass(&cell, &rule, at(60));
    let Verdict::Refuse { until, why } = ask(&cell, &rule, at(70)) else { panic!("it passed") };
    assert_eq!(why, Why::Exhausted);
    assert!(until >= at(60_000) && until <= at(60_100), "{until:?}");
    pass(&cell, &rule, at(60_100));
}

#[test]
fn those_who_wait_for_a_reset_get_slots_of_their_own_and_pass_at_them() {
    let (cell, rule) = (Cell::new(), patient(2));
    let claim = pass(&cell, &rule, at(0));
    cell.state(&claim, &Stated { window: Some(Duration::from_secs(1)), ..says(50, 0, at(1_000)) }, at(1));
    let mut claims = [Claim::new(); 30];
    let mut slots = Vec::new();
    for claim in &mut claims {
        let Verdict::Wait { until, .. } = cell.before(&rule, claim, &Ask::one(), at(10)) else { panic!() };
        assert!(until >= at(1_000) && until < at(2_010));
        slots.push(until);
    }
    assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "{slots:?}");
    // Asked early, the answer is the same; fresh calls of the new window leave the booked slots alone.
    let early = cell.before(&rule, &mut claims[3], &Ask::one(), at(20));
    assert!(matches!(early, Verdict::Wait { until, .. } if until == slots[3]));
    let mut fresh = 0;
    let now = at(1_020);
    while matches!(ask(&cell, &rule, now), Verdict::Pass) {
        fresh += 1;
    }
    assert!((15..=22).contains(&fresh), "{fresh} beside 30 booked of 50");
    for (claim, slot) in claims.iter_mut().zip(slots) {
        assert_eq!(cell.before(&rule, claim, &Ask::one(), slot.max(now)), Verdict::Pass);
    }
}

#[test]
fn more_waiting_calls_than_a_window_holds_go_to_the_window_after_it() {
    let (cell, rule) = (Cell::new(), patient(600));
    let claim = pass(&cell, &rule, at(0));
    cell.state(&claim, &Stated { window: Some(Duration::from_secs(60)), ..says(5, 0, at(30_000)) }, at(1));
    let mut per_window = [0; 3];
    for _ in 0..15 {
        let Verdict::Wait { until, .. } = ask(&cell, &rule, at(10)) else { panic!() };
        per_window[(until.since(at(30_000)).as_secs() / 60) as usize] += 1;
    }
    assert_eq!(per_window, [5, 5, 5]);
}

#[test]
fn a_wait_never_exceeds_the_deadline_nor_max_wait() {
    let (cell, rule) = (Cell::new(), patient(10));
    let claim = pass(&cell, &rule, at(0));
    cell.state(&claim, &says(100, 0, at(5_000)), at(1));
    let soon = Ask::one().deadline(Some(at(3_000)));
    let verdict = cell.before(&rule, &mut Claim::new(), &soon, at(2));
    assert!(matches!(verdict, Verdict::Refuse { until, .. } if until >= at(5_000)), "{verdict:?}");
    let later = Ask::one().deadline(Some(at(6_000)));
    assert!(matches!(cell.before(&rule, &mut Claim::new(), &later, at(2)), Verdict::Wait { .. }));
    let impatient = Rule { max_wait: Duration::ZERO, ..Rule::default() };
    assert!(matches!(ask(&cell, &impatient, at(2)), Verdict::Refuse { .. }));
}

#[test]
fn a_call_above_the_stated_limit_takes_a_whole_window_and_not_forever() {
    for (rule, why) in
        [(Rule { max_wait: Duration::ZERO, ..Rule::default() }, "refused"), (patient(120), "waits")]
    {
        let cell = Cell::new();
        let window = Some(Duration::from_secs(60));
        let mut first = pass(&cell, &rule, at(0));
        cell.state(&first, &Stated { window, ..says(8_000, 7_900, at(60_000)) }, at(500));
        cell.end(&mut first);
        let (mut went, mut now) = (0, at(1_000));
        while now < at(600_000) {
            let mut claim = Claim::new();
            loop {
                match cell.before(&rule, &mut claim, &Ask::one().units(14_000), now) {
                    Verdict::Wait { until, .. } => now = until,
                    Verdict::Refuse { until, .. } => {
                        assert!(until > now, "{why}");
                        break;
                    }
                    Verdict::Pass => {
                        went += 1;
                        cell.end(&mut claim);
                        break;
                    }
                }
            }
            now = now.plus_millis(1_000);
        }
        // One in each window but the first, of which a part was used already.
        assert!((9..=10).contains(&went), "{why}: {went} in ten minutes");
    }
}
