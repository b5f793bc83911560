//! Calls one after the other, to one endpoint and each about something else: what a loop over ids looks like.

use super::look::{Look, Settlement};
use std::sync::{Mutex, PoisonError};

/// So many calls in a row are no chance.
pub(super) const LEAST: u64 = 10;
/// The next call of a loop begins that soon after the one before: at least this, and half of what that one took.
const GAP: u64 = 5_000_000;
/// Within one trace it may take its time.
const GAP_OF_TRACE: u64 = 1_000_000_000;
const STRIPES: usize = 8;
const PLACES: usize = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Run {
    /// Who makes it: a trace, else a customer, else a thread.
    by: u64,
    endpoint: u64,
    path: u64,
    ended: u64,
    length: u64,
}

/// The runs that are under way, by who makes them.
#[derive(Debug, Default)]
pub(super) struct Runs([Mutex<[Run; PLACES]>; STRIPES]);

impl Runs {
    /// The how manieth call of a run this one is; 1 where it begins one.
    ///
    /// Calls that overlap are no loop. Where nobody traces, calls that only happen to follow each other look like one;
    /// that ten do so, without a gap, an overlap or another call between, is rare.
    #[expect(clippy::cast_possible_truncation, reason = "places of a table")]
    pub(super) fn settle(&self, look: &Look, call: &Settlement, thread: usize) -> u64 {
        let (trace, customer) = (look.asked.marks.trace, look.asked.customer);
        let by = match (trace, customer) {
            (0, 0) => crate::units::spread(thread as u64 + 1).max(1),
            (0, customer) => customer,
            (trace, _) => trace,
        };
        let (begun, ended) = (call.begun.as_nanos(), call.ended.as_nanos());
        let mut runs = self.0[by as usize % STRIPES].lock().unwrap_or_else(PoisonError::into_inner);
        let run = &mut runs[(by >> 8) as usize % PLACES];
        let gap = if trace == 0 { GAP.max(ended.saturating_sub(begun) / 2) } else { GAP_OF_TRACE };
        let follows = run.by == by
            && run.endpoint == look.endpoint
            && run.path != look.asked.path
            && begun >= run.ended
            && begun - run.ended <= gap;
        let length = if follows { run.length + 1 } else { 1 };
        *run =
            Run { by, endpoint: look.endpoint, path: look.asked.path, ended: ended.max(run.ended), length };
        length
    }
}
