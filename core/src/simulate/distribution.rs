//! Durations as a histogram of fixed size: 32 buckets an octave from a microsecond on, so that a quantile is within
//! 2% of the true one, however far apart the values lie.

use std::time::Duration;

const FIRST: u32 = 10;
const LAST: u32 = 50;
const PARTS: usize = 32;

/// The distribution of many durations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    buckets: Box<[u64]>,
    count: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { buckets: vec![0; (LAST - FIRST) as usize * PARTS].into(), count: 0 }
    }
}

impl Distribution {
    pub(super) fn record(&mut self, nanos: u64) {
        let nanos = nanos.max(1 << FIRST);
        let octave = nanos.ilog2();
        let part = (nanos >> (octave - 5)) as usize & (PARTS - 1);
        let place = (octave - FIRST) as usize * PARTS + part;
        self.buckets[place.min(self.buckets.len() - 1)] += 1;
        self.count += 1;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, more)| *mine += more);
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The duration below which the share `q` (0 to 1) of all lies; `None` where there are none.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let rank = (q.clamp(0.0, 1.0) * self.count.checked_sub(1)? as f64).round() as u64;
        let mut below = 0;
        for (place, count) in self.buckets.iter().enumerate() {
            below += count;
            if below > rank {
                let low = ((PARTS + place % PARTS) as u64) << (FIRST as usize + place / PARTS) >> 5;
                // The middle of the bucket.
                return Some(Duration::from_nanos(low + low / (2 * PARTS as u64)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quantile_is_within_two_percent(mut nanos in prop::collection::vec(2_000u64..1 << 45, 1..300), q in 0.0f64..=1.0) {
            let mut all = Distribution::default();
            nanos.iter().for_each(|nanos| all.record(*nanos));
            nanos.sort_unstable();
            let exact = nanos[(q * (nanos.len() - 1) as f64).round() as usize] as f64;
            let told = all.quantile(q).unwrap().as_nanos() as f64;
            prop_assert!((told / exact - 1.0).abs() < 0.03, "{told} for {exact}");
        }
    }
}
