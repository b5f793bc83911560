//! A quantile of latencies that follows the present, in 136 bytes and one atomic addition a call.
//!
//! Four buckets an octave from 1 ms to 67 s, so a bucket is at most 25% wide, and the value is interpolated
//! within it. Every `KEEP` records all buckets are halved: what happened `KEEP` calls ago counts half.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

const BUCKETS: usize = 64;
/// The width of everything below the first bucket's end, in microseconds: about a millisecond.
const FLOOR_BITS: u32 = 10;

/// A log-linear histogram of latencies with decay.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Latencies<const KEEP: u32> {
    buckets: [AtomicU16; BUCKETS],
    seen: AtomicU32,
}

impl<const KEEP: u32> Latencies<KEEP> {
    pub(crate) const fn new() -> Self {
        const { assert!(KEEP <= 16_384, "a bucket counts up to twice as many, in 16 bits") };
        Self { buckets: [const { AtomicU16::new(0) }; BUCKETS], seen: AtomicU32::new(0) }
    }

    /// Forgets all of them.
    pub(crate) fn clear(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Relaxed));
        self.seen.store(0, Relaxed);
    }

    /// Counts one latency, and says how many were counted since the beginning (wrapping).
    pub(crate) fn record(&self, latency: Duration) -> u32 {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(1, Relaxed);
        let seen = self.seen.fetch_add(1, Relaxed).wrapping_add(1);
        if seen.is_multiple_of(KEEP) {
            for bucket in &self.buckets {
                // Not a plain store: what others add meanwhile stays.
                let _ = bucket.fetch_update(Relaxed, Relaxed, |count| Some(count - count / 2));
            }
        }
        seen
    }

    /// The latency below which `per_mille` of the calls stay; `None` before `least` of them were counted.
    pub(crate) fn quantile(&self, per_mille: u32, least: u32) -> Option<Duration> {
        let counts: [u64; BUCKETS] = std::array::from_fn(|at| u64::from(self.buckets[at].load(Relaxed)));
        let total: u64 = counts.iter().sum();
        if total == 0 || total < u64::from(least) {
            return None;
        }
        // In thousandths of a call, so that the rank is exact.
        let rank = total * u64::from(per_mille);
        let mut below = 0;
        for (at, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let here = count * 1_000;
            if below + here >= rank {
                let (low, high) = (lower(at), lower(at + 1));
                let micros = low + (high - low) * (rank - below) / here;
                return Some(Duration::from_micros(micros));
            }
            below += here;
        }
        None
    }
}

fn bucket(micros: u64) -> usize {
    let micros = micros.max(1 << FLOOR_BITS);
    let octave = micros.ilog2();
    let quarter = (micros >> (octave - 2)) & 3;
    ((octave - FLOOR_BITS) as usize * 4 + quarter as usize).min(BUCKETS - 1)
}

/// Where a bucket begins, in microseconds.
fn lower(bucket: usize) -> u64 {
    if bucket == 0 {
        return 0;
    }
    let (octave, quarter) = (bucket / 4, bucket as u64 % 4);
    ((1 << FLOOR_BITS) << octave) / 4 * (4 + quarter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_small_and_takes_any_latency() {
        assert!(size_of::<Latencies<1024>>() <= 136);
        let latencies = Latencies::<1024>::new();
        assert_eq!(latencies.quantile(950, 1), None);
        for latency in [Duration::ZERO, Duration::from_secs(1), Duration::MAX] {
            latencies.record(latency);
        }
        assert!(latencies.quantile(1_000, 1).unwrap() >= Duration::from_secs(58));
        assert_eq!(latencies.quantile(950, 4), None, "too few to say");
    }

    #[test]
    fn it_follows_a_vendor_that_became_slower() {
        let latencies = Latencies::<1024>::new();
        for _ in 0..10_000 {
            latencies.record(Duration::from_millis(20));
        }
        assert!(latencies.quantile(950, 1).unwrap() < Duration::from_millis(30));
        for _ in 0..1_500 {
            latencies.record(Duration::from_millis(900));
        }
        assert!(latencies.quantile(950, 1).unwrap() > Duration::from_millis(700));
    }

    proptest! {
        #[test]
        fn the_quantile_is_within_a_bucket_of_the_true_one(
            mut millis in prop::collection::vec(2u64..30_000, 50..500), per_mille in 500u32..=999
        ) {
            let latencies = Latencies::<1024>::new();
            for value in &millis {
                latencies.record(Duration::from_millis(*value));
            }
            millis.sort_unstable();
            let rank = (millis.len() * per_mille as usize).div_ceil(1_000).max(1) - 1;
            let exact = millis[rank] as f64;
            let told = latencies.quantile(per_mille, 1).unwrap().as_secs_f64() * 1e3;
            prop_assert!(told >= exact * 0.79 && told <= exact * 1.26, "{told} for {exact}");
        }
    }
}
