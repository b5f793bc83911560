//! `[ledger]`: how much detail is kept, and how long.

use super::section::Section;
use std::time::Duration;

/// Bounds of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerConfig {
    /// `retention`: how long rollups stay on disk. 30 days.
    pub retention: Duration,
    /// `max_series`: how many different (vendor, endpoint, customer, ...) combinations a process tells apart
    /// between two flushes; further ones are added to `other`. 16,384, of at most 1 KiB each.
    pub max_series: usize,
    /// `max_rows_per_minute`: how many rollup rows one process may add to the store for one minute; further
    /// customers are added to `other`. 20,000.
    pub max_rows_per_minute: usize,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self { retention: Duration::from_secs(30 * 86_400), max_series: 16_384, max_rows_per_minute: 20_000 }
    }
}

pub(super) fn read(section: &mut Section<'_, '_>) -> LedgerConfig {
    let default = LedgerConfig::default();
    LedgerConfig {
        retention: section.duration("retention").unwrap_or(default.retention),
        max_series: section.number("max_series", 64..=1_000_000).unwrap_or(default.max_series),
        max_rows_per_minute: section
            .number("max_rows_per_minute", 64..=1_000_000)
            .unwrap_or(default.max_rows_per_minute),
    }
}
