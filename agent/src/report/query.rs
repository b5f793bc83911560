//! What every question has in common.

use super::{Filter, time};
use farcall::Timestamp;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Which ledger is asked, over which time, and about which calls.
#[derive(Clone, Debug)]
pub struct Query {
    /// The home directory of the ledger.
    pub home: PathBuf,
    /// How far back the window goes; it starts on a whole minute. An hour.
    pub since: Duration,
    /// The end of the window.
    pub now: Timestamp,
    /// Only what all of these match.
    pub filters: Vec<Filter>,
    /// The most rows of a list of single calls, quotas or notices, 0 for all; 50.
    pub limit: usize,
}

impl Query {
    /// The last hour of the ledger in `home`.
    #[must_use]
    pub fn at(home: impl Into<PathBuf>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            home: home.into(),
            since: Duration::from_secs(3_600),
            now: Timestamp::EPOCH.plus(now),
            filters: Vec::new(),
            limit: 50,
        }
    }

    /// The last hour of the ledger that this process would write; `None` where no home directory is known.
    #[must_use]
    pub fn here(home: Option<&Path>) -> Option<Self> {
        crate::home(home).map(Self::at)
    }

    /// Sets how far back the window goes.
    #[must_use]
    pub fn since(mut self, since: Duration) -> Self {
        self.since = since;
        self
    }

    /// Adds a filter.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filters.push(filter);
        self
    }

    /// The most rows that are wanted.
    pub(super) fn most(&self) -> usize {
        if self.limit == 0 { usize::MAX } else { self.limit }
    }

    pub(super) fn first_minute(&self) -> u64 {
        self.now.minus(self.since).minute()
    }

    pub(super) fn window(&self) -> Window {
        let from = self.first_minute() * 60;
        Window {
            from: time::rfc3339(from * 1_000_000_000),
            to: time::rfc3339(self.now.as_nanos()),
            seconds: self.now.as_secs().saturating_sub(from),
        }
    }
}

/// The time that a report covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Window {
    /// Its start, RFC 3339 in UTC, on a whole minute.
    pub from: String,
    /// Its end.
    pub to: String,
    /// Its length in seconds.
    pub seconds: u64,
}
