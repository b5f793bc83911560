//! All shards: each thread counts in one of its own, so that threads do not wait for each other; whoever drains
//! takes one lock at a time, for a few series at a time.

use super::Batch;
use super::shard::{Entry, MAX_FAILURES, Row, STRIDE, SeriesKey, Shard, found_of};
use crate::catalogue::Catalogue;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
}
static NEXT_SLOT: AtomicUsize = AtomicUsize::new(0);

/// The shards of an engine, each with what the engine keeps beside it under the same lock.
#[derive(Debug)]
pub(crate) struct Shards<B> {
    shards: Box<[Padded<B>]>,
}

/// On cache lines of its own: two threads' locks must not share one.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<B>(Mutex<Held<B>>);

/// What one lock holds.
#[derive(Debug)]
pub(crate) struct Held<B> {
    pub(crate) shard: Shard,
    pub(crate) beside: B,
}

impl<B> Shards<B> {
    pub(crate) fn new(count: usize, max_series: usize, seed: u64, beside: impl Fn(u64) -> B) -> Self {
        let count = count.clamp(1, 64);
        let each = (max_series / count).max(64);
        let shard = |number: usize| {
            let seed = seed ^ number as u64;
            Padded(Mutex::new(Held { shard: Shard::new(each, seed), beside: beside(seed) }))
        };
        Self { shards: (0..count).map(shard).collect() }
    }

    /// The shard of the thread that asks. Which one that is changes nothing but who waits for whom.
    pub(crate) fn own(&self) -> usize {
        SLOT.with(|slot| {
            if slot.get() == usize::MAX {
                slot.set(NEXT_SLOT.fetch_add(1, Ordering::Relaxed));
            }
            let (slot, count) = (slot.get(), self.shards.len());
            // Mostly there are as many as threads, and to divide takes as long as to lock.
            if slot < count { slot } else { slot % count }
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.len()
    }

    /// A panic while the lock was held (there is none known) leaves counts that are at most one call off, so
    /// poisoning is ignored: the host goes on.
    pub(crate) fn lock(&self, number: usize) -> MutexGuard<'_, Held<B>> {
        self.shards[number].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves all that one shard has counted into a batch, a few series at each hold of its lock.
    pub(crate) fn drain(&self, number: usize, catalogue: &Catalogue, batch: &mut Batch) {
        let mut turned = {
            let shard = &mut self.lock(number).shard;
            batch.sightings.append(&mut shard.sightings);
            std::mem::take(&mut shard.turned)
        };
        while !turned.is_empty() {
            let shard = &mut self.lock(number).shard;
            for series in turned.drain(turned.len().saturating_sub(STRIDE)..) {
                shard.move_row(catalogue, &series, batch);
                shard.release_names(found_of(series.key));
            }
        }
        let mut rows = Vec::new();
        let mut cursor = Some(0);
        while let Some(place) = cursor {
            cursor = self.lock(number).shard.drain_some(catalogue, place, &mut rows, batch);
        }
        let (failures, stories) = {
            let shard = &mut self.lock(number).shard;
            (std::mem::take(&mut shard.failures), std::mem::take(&mut shard.stories))
        };
        let late = join_failures(failures, &rows, batch);
        for (id, story) in stories {
            if let Some(exemplar) = batch.exemplars.iter_mut().rfind(|exemplar| exemplar.id == id) {
                exemplar.events = story;
            }
        }
        let shard = &mut self.lock(number).shard;
        for (key, entry) in late {
            // It came after its series was drained: the next row is its own, unless the series left.
            if shard.failures.len() < MAX_FAILURES && shard.find(key).is_some() {
                shard.failures.push((key, entry));
            }
        }
        shard.sweep();
    }
}

/// Puts failed calls beside the rows of their series; those without a row come back.
fn join_failures(
    failures: Vec<(SeriesKey, Entry)>,
    rows: &[Row],
    batch: &mut Batch,
) -> Vec<(SeriesKey, Entry)> {
    if failures.is_empty() {
        return failures;
    }
    let by_key: HashMap<SeriesKey, &Row, FixedState> = rows.iter().map(|row| (row.key, row)).collect();
    let mut late = Vec::new();
    for (key, entry) in failures {
        match by_key.get(&key) {
            Some(row) if row.slowest == entry.id => {}
            Some(row) => batch.exemplars.push(entry.exemplar(row.row)),
            None => late.push((key, entry)),
        }
    }
    late
}
