//! The account of one combination of everything that calls are told apart by.

use super::{Sketch, Sums};
use crate::call::{ErrorType, Outcome, Tap};
use crate::units::Timestamp;
use std::time::Duration;

/// What a series is known by, as numbers of its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SeriesKey {
    pub(crate) vendor: u32,
    pub(crate) endpoint: u32,
    pub(crate) customer: u32,
    pub(crate) tags: u32,
    pub(crate) caller: u32,
    pub(crate) status: u16,
    pub(crate) outcome: u8,
    pub(crate) tap: u8,
}

impl SeriesKey {
    pub(crate) fn outcome(self) -> Outcome {
        match self.outcome {
            0 => Outcome::Complete,
            1 => Outcome::Abandoned,
            number => Outcome::Failed(ErrorType::from_number(number - 1)),
        }
    }

    pub(crate) fn outcome_number(outcome: Outcome) -> u8 {
        match outcome {
            Outcome::Complete => 0,
            Outcome::Abandoned => 1,
            Outcome::Failed(error) => error as u8 + 1,
        }
    }

    pub(crate) fn tap(self) -> Tap {
        if self.tap == Tap::Kernel as u8 { Tap::Kernel } else { Tap::Library }
    }
}

/// A call as its series accounts for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) begun: Timestamp,
    pub(crate) ended: Timestamp,
    pub(crate) duration: Duration,
    pub(crate) ttfb: Option<Duration>,
    pub(crate) connected: bool,
    pub(crate) dns: Duration,
    pub(crate) connect: Duration,
    pub(crate) tls: Duration,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) attempts: u32,
    pub(crate) sighting: u64,
}

/// The account itself. Emptied at each drain, with its memory kept.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) key: SeriesKey,
    pub(crate) minute: u64,
    pub(crate) sums: Sums,
    pub(crate) latency: Sketch,
    pub(crate) slowest: Entry,
    /// Drains since the last call.
    pub(crate) idle: u32,
}

impl Series {
    pub(crate) fn new(key: SeriesKey) -> Self {
        Self {
            key,
            minute: 0,
            sums: Sums::default(),
            latency: Sketch::new(),
            slowest: Entry::default(),
            idle: 0,
        }
    }

    pub(crate) fn add(&mut self, entry: &Entry) {
        let sums = &mut self.sums;
        sums.calls += 1;
        sums.attempts += u64::from(entry.attempts);
        sums.bytes_out = sums.bytes_out.saturating_add(entry.bytes_out);
        sums.bytes_in = sums.bytes_in.saturating_add(entry.bytes_in);
        sums.duration = sums.duration.saturating_add(entry.duration);
        if let Some(ttfb) = entry.ttfb {
            sums.answered += 1;
            sums.ttfb = sums.ttfb.saturating_add(ttfb);
            sums.transfer = sums.transfer.saturating_add(entry.duration.saturating_sub(ttfb));
        }
        if entry.connected {
            sums.connections += 1;
            sums.dns = sums.dns.saturating_add(entry.dns);
            sums.connect = sums.connect.saturating_add(entry.connect);
            sums.tls = sums.tls.saturating_add(entry.tls);
        }
        self.latency.record(entry.duration);
        if sums.calls == 1 || entry.duration > self.slowest.duration {
            self.slowest = *entry;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.sums = Sums::default();
        self.latency.clear();
        self.idle = 0;
    }
}
