//! The way out of a shard: its series become the rows of a batch, and those that nobody uses leave.

use super::{FOLDED, LEARNED, NONE, Series, SeriesKey, Shard};
use crate::attribution::{CallerId, UNKNOWN};
use crate::catalogue::Catalogue;
use crate::ledger::{Batch, OTHER, Rollup};
use hashbrown::HashTable;
use std::sync::Arc;

/// Series that are drained under one hold of the lock.
pub(in super::super) const STRIDE: usize = 64;
/// Drains after which a series without calls leaves.
const IDLE: u32 = 120;

/// A row of the batch that is being drained.
pub(in super::super) struct Row {
    pub(in super::super) key: SeriesKey,
    pub(in super::super) row: usize,
    /// The call that is its exemplar already.
    pub(in super::super) slowest: u64,
}

impl Shard {
    /// Moves one series into a batch, as a row and its slowest call.
    pub(in super::super) fn move_row(&self, catalogue: &Catalogue, series: &Series, batch: &mut Batch) {
        batch.exemplars.push(series.slowest.exemplar(batch.rows.len()));
        batch.rows.push(self.rollup(catalogue, series));
    }

    /// Moves up to [`STRIDE`] series from `cursor` on into a batch; the next cursor, `None` at the end.
    pub(in super::super) fn drain_some(
        &mut self,
        catalogue: &Catalogue,
        cursor: usize,
        rows: &mut Vec<Row>,
        batch: &mut Batch,
    ) -> Option<usize> {
        let mut place = cursor;
        let crowded = self.series.len() >= self.max_series * 3 / 4;
        let mut steps = 0;
        while place < self.series.len() && steps < STRIDE {
            steps += 1;
            let series = &self.series[place];
            if series.is_empty() {
                self.series[place].idle += 1;
            } else {
                rows.push(Row { key: series.key, row: batch.rows.len(), slowest: series.slowest.id });
                self.move_row(catalogue, series, batch);
                self.series[place].clear();
            }
            if crowded || self.series[place].idle >= IDLE {
                // The last one takes this place, and is looked at next.
                self.remove_series(place);
            } else {
                place += 1;
            }
        }
        (place < self.series.len()).then_some(place)
    }

    /// Ends a drain: the names that nobody uses leave.
    pub(in super::super) fn sweep(&mut self) {
        if self.vendors.sweep() {
            // The cache may name a vendor that just left.
            self.hosts.clear();
            self.requests.clear();
        }
        if self.endpoints.sweep() {
            self.paths.clear();
            self.requests.clear();
        }
        self.customers.sweep();
        self.tags.sweep();
        if self.series.is_empty() && self.series.capacity() > 256 {
            self.series = Vec::new();
            self.index = HashTable::new();
        }
    }

    fn rollup(&self, catalogue: &Catalogue, series: &Series) -> Rollup {
        let key = series.key;
        Rollup {
            minute: series.minute,
            vendor: Arc::from(self.vendor_name(catalogue, key.vendor)),
            endpoint: match key.endpoint {
                FOLDED => Arc::from(OTHER),
                learned if learned >= LEARNED => Arc::clone(self.endpoints.name(learned - LEARNED)),
                known => Arc::clone(catalogue.endpoint(known)),
            },
            customer: match key.customer {
                FOLDED => Arc::from(OTHER),
                NONE => Arc::from(UNKNOWN),
                number => Arc::clone(self.customers.name(number - LEARNED)),
            },
            tags: match key.tags {
                FOLDED => Arc::from(OTHER),
                NONE => Arc::from(""),
                number => Arc::clone(self.tags.name(number - LEARNED)),
            },
            caller: CallerId(key.caller),
            tap: key.tap(),
            status: key.status,
            outcome: key.outcome(),
            sums: series.sums(),
            latency: series.latency.clone(),
        }
    }
}
