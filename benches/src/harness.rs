//! Rounds in turns, medians, and one row of the result.

use serde::Serialize;
use std::time::{Duration, Instant};

/// One row of `target/bench/results.json`. `ratio` above 1 always means that ours is better.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) peer: f64,
    pub(crate) peer_name: &'static str,
    pub(crate) ratio: f64,
}

impl Row {
    /// A row in which less is better.
    pub(crate) fn less(
        name: &'static str,
        unit: &'static str,
        ours: f64,
        peer: f64,
        peer_name: &'static str,
    ) -> Self {
        Self { name, unit, ours, peer, peer_name, ratio: peer / ours }
    }

    /// A row in which more is better.
    pub(crate) fn more(
        name: &'static str,
        unit: &'static str,
        ours: f64,
        peer: f64,
        peer_name: &'static str,
    ) -> Self {
        Self { name, unit, ours, peer, peer_name, ratio: ours / peer }
    }
}

const ROUNDS: usize = 31;

/// Medians of both, measured in turns; each gives the time of one round of `calls` calls.
pub(crate) fn in_turns(
    calls: u32,
    mut ours: impl FnMut(u32) -> Duration,
    mut peer: impl FnMut(u32) -> Duration,
) -> (f64, f64) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    ours(calls);
    peer(calls);
    for _ in 0..ROUNDS {
        a.push(ours(calls).as_secs_f64() * 1e9 / f64::from(calls));
        b.push(peer(calls).as_secs_f64() * 1e9 / f64::from(calls));
    }
    (median(a), median(b))
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How long `work` takes.
pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
