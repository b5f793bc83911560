//! Rounds in turns, medians, and one row of the result.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;
use std::sync::Barrier;
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

/// Runs `work` on each of `threads` threads at once, and times them together: from when the first of them begins until
/// the last one ends, by their own clocks. Each has a core of its own where there are as many: what is asked is what
/// threads cost each other, and not where the scheduler happens to put them.
pub(crate) fn on_threads(threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let ready = Barrier::new(threads);
    let times: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
        let start = |thread: usize| {
            let (work, ready, core) = (&work, &ready, cores.get(thread).filter(|_| cores.len() >= threads));
            scope.spawn(move || {
                if let Some(core) = core {
                    let mut own = CpuSet::new();
                    own.set(*core);
                    // Where that is not allowed, the scheduler's choice will do.
                    let _ = sched_setaffinity(None, &own);
                }
                ready.wait();
                let begun = Instant::now();
                work(thread);
                (begun, Instant::now())
            })
        };
        let all: Vec<_> = (0..threads).map(start).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let begun = times.iter().map(|(begun, _)| *begun).min().unwrap();
    times.iter().map(|(_, ended)| *ended).max().unwrap() - begun
}
