//! One cell, asked and told at moments of the tests' own.

mod limited;
mod own;
mod pace;
mod stated;
mod waits;
mod whatever;

use crate::quota::*;
use crate::units::Timestamp;
use proptest::prelude::*;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const T0: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
const SECOND: u64 = 1_000_000_000;

fn at(millis: u64) -> Timestamp {
    T0.plus_millis(millis)
}

fn says(limit: u64, remaining: u64, resets_at: Timestamp) -> Stated {
    Stated { limit: Some(limit), remaining: Some(remaining), resets_at: Some(resets_at), window: None }
}

fn pass(cell: &Cell, rule: &Rule, now: Timestamp) -> Claim {
    let mut claim = Claim::new();
    assert_eq!(cell.before(rule, &mut claim, &Ask::one(), now), Verdict::Pass);
    claim
}

fn ask(cell: &Cell, rule: &Rule, now: Timestamp) -> Verdict {
    cell.before(rule, &mut Claim::new(), &Ask::one(), now)
}

fn patient(seconds: u64) -> Rule {
    Rule { max_wait: Duration::from_secs(seconds), ..Rule::default() }
}
