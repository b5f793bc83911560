//! Latencies as a DDSketch (Masson, Rim, Lee: "DDSketch", VLDB 2019): every quantile within 2% of the true
//! value, mergeable in any order, exactly.
//!
//! Not the `sketches-ddsketch` crate: its store starts at 2,048 bins of eight bytes, and a ledger series has
//! one KiB for everything.

use std::time::Duration;
use thiserror::Error;

/// The most bins that are kept: beyond them the smallest values are added up in the lowest bin, so that high
/// quantiles keep their accuracy. 160 bins span a factor of 600.
const MAX_BINS: usize = 160;
/// Bins grow by so many at a time.
const STEP: usize = 16;
/// The form in which a sketch is written.
const VERSION: u8 = 1;

/// A mergeable account of durations, from which quantiles can be read.
///
/// Resolution starts at a microsecond: shorter durations count as one. Grows to at most 160 bins of four
/// bytes; allocates only while it grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    /// The number of the first bin.
    first: i32,
    bins: Vec<u32>,
    count: u64,
}

/// A stored sketch could not be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("these bytes are not a stored sketch of version {VERSION}")]
pub struct BadSketch;

impl Sketch {
    /// An empty sketch; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: 0, bins: Vec::new(), count: 0 }
    }

    /// Reads a sketch that [`Sketch::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are not such a sketch; nothing in them can make it panic or allocate more than a sketch
    /// may hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadSketch> {
        let mut sketch = Self::new();
        let Some((&VERSION, rest)) = bytes.split_first() else {
            return if bytes.is_empty() { Ok(sketch) } else { Err(BadSketch) };
        };
        let (first, mut rest) = rest.split_first_chunk::<2>().ok_or(BadSketch)?;
        let mut bin = i32::from(i16::from_le_bytes(*first));
        let mut read = 0;
        while !rest.is_empty() {
            let (count, after) = read_varint(rest).ok_or(BadSketch)?;
            read += 1;
            if read > MAX_BINS {
                return Err(BadSketch);
            }
            sketch.add_to_bin(bin, u32::try_from(count).map_err(|_| BadSketch)?);
            (bin, rest) = (bin + 1, after);
        }
        Ok(sketch)
    }

    /// The sketch as bytes, about one for each bin.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (Some(start), Some(end)) =
            (self.bins.iter().position(|&n| n > 0), self.bins.iter().rposition(|&n| n > 0))
        else {
            return Vec::new();
        };
        let mut bytes = Vec::with_capacity(8 + 2 * (end - start));
        bytes.push(VERSION);
        let first = self.first + i32::try_from(start).unwrap_or(0);
        bytes.extend(i16::try_from(first).unwrap_or(i16::MAX).to_le_bytes());
        for &count in &self.bins[start..=end] {
            write_varint(&mut bytes, count.into());
        }
        bytes
    }

    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        self.record_nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The same for one in nanoseconds.
    pub(crate) fn record_nanos(&mut self, nanos: u64) {
        self.add_to_bin(bin_of(nanos), 1);
    }

    /// Adds all of another sketch.
    pub fn merge(&mut self, other: &Self) {
        // From the top, so that a collapse of the low bins happens once, at the end.
        for (place, &count) in other.bins.iter().enumerate().rev() {
            if count > 0 {
                self.add_to_bin(other.first + i32::try_from(place).unwrap_or(0), count);
            }
        }
    }

    /// Empties the sketch and keeps its memory.
    pub fn clear(&mut self) {
        self.bins.fill(0);
        self.count = 0;
    }

    /// How many durations were added.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The duration below which the share `q` (0 to 1) of all lies, within 2%; `None` for an empty sketch.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = (q.clamp(0.0, 1.0) * (self.count - 1) as f64).round() as u64;
        let mut below = 0;
        for (place, &count) in self.bins.iter().enumerate() {
            below += u64::from(count);
            if below > rank {
                return Some(middle_of(self.first + i32::try_from(place).unwrap_or(0)));
            }
        }
        None
    }

    fn add_to_bin(&mut self, bin: i32, count: u32) {
        if count == 0 {
            return;
        }
        if self.count == 0 {
            // Emptied or new: the bins start anew around what comes first.
            self.first = bin - i32::try_from(STEP / 2).unwrap_or(0);
            if self.bins.is_empty() {
                self.bins.resize(STEP, 0);
            }
        }
        self.count += u64::from(count);
        let mut place = bin - self.first;
        if place < 0 {
            place = self.grow_down(place.unsigned_abs() as usize);
        } else if place as usize >= self.bins.len() {
            place = self.grow_up(place as usize);
        }
        if let Some(slot) = self.bins.get_mut(usize::try_from(place).unwrap_or(0)) {
            *slot = slot.saturating_add(count);
        }
    }

    /// Makes room below; the place of the bin that was `missing` places below the first. Where there is no
    /// more room, that is the lowest bin.
    #[cold]
    fn grow_down(&mut self, missing: usize) -> i32 {
        // What is empty above is worth less than room below.
        let used = self.bins.iter().rposition(|&n| n > 0).map_or(0, |place| place + 1);
        let room = MAX_BINS - used.min(MAX_BINS);
        if room == 0 {
            // One slow call among many quick ones: each of these comes by here.
            return 0;
        }
        let more = missing.next_multiple_of(STEP).min(room);
        self.bins.truncate(MAX_BINS - more);
        self.bins.splice(0..0, std::iter::repeat_n(0, more));
        self.first -= i32::try_from(more).unwrap_or(0);
        i32::try_from(more.saturating_sub(missing)).unwrap_or(0)
    }

    /// Makes room above; the place of the bin that was at `place`. Where there is no more room, the lowest
    /// bins are joined.
    #[cold]
    fn grow_up(&mut self, place: usize) -> i32 {
        if place < MAX_BINS {
            let bins = (place + 1).next_multiple_of(STEP).min(MAX_BINS);
            self.bins.reserve_exact(bins - self.bins.len());
            self.bins.resize(bins, 0);
            return i32::try_from(place).unwrap_or(0);
        }
        let shift = place + 1 - MAX_BINS;
        let joined = self.bins.iter().take(shift + 1).fold(0_u32, |sum, &n| sum.saturating_add(n));
        self.bins.drain(..shift.min(self.bins.len()));
        self.bins.resize(MAX_BINS, 0);
        self.bins[0] = joined;
        self.first += i32::try_from(shift).unwrap_or(0);
        i32::try_from(MAX_BINS - 1).unwrap_or(0)
    }
}

/// The width of a bin on the logarithmic scale: ln(1.02 / 0.98), for a relative error of 2%.
const GAMMA_LN: f64 = 0.040_005_334_613_699_24;

/// The bin of a duration: the logarithm of its microseconds to the base gamma, rounded up.
fn bin_of(nanos: u64) -> i32 {
    if nanos <= 1_000 {
        // What a cache answers takes no longer, and needs no logarithm.
        return 0;
    }
    // At most 2^64 nanoseconds: bin 937.
    #[allow(clippy::cast_precision_loss)]
    let micros = nanos as f64 / 1e3;
    let place = micros.ln() * (1.0 / GAMMA_LN);
    // Never negative, so this rounds up, and without a call where the processor's own instruction is not assumed.
    #[allow(clippy::cast_possible_truncation)]
    let whole = place as i32;
    whole + i32::from(place > f64::from(whole))
}

/// The value that differs from all in a bin by the promised error at most.
fn middle_of(bin: i32) -> Duration {
    let gamma = GAMMA_LN.exp();
    let micros = 2.0 * (f64::from(bin) * GAMMA_LN).exp() / (gamma + 1.0);
    Duration::try_from_secs_f64(micros / 1e6).unwrap_or(Duration::MAX)
}

fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap_or(0));
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (place, &byte) in bytes.iter().enumerate().take(6) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[place + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promised relative error of a quantile.
    const ACCURACY: f64 = 0.02;
    use proptest::prelude::*;

    fn of(micros: &[u64]) -> Sketch {
        let mut sketch = Sketch::new();
        micros.iter().for_each(|&n| sketch.record(Duration::from_micros(n)));
        sketch
    }

    proptest! {
        #[test]
        fn quantiles_are_within_two_percent(mut micros in proptest::collection::vec(10_u64..5_000, 1..300), q in 0.0_f64..=1.0) {
            let sketch = of(&micros);
            micros.sort_unstable();
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let rank = (q * (micros.len() - 1) as f64).round() as usize;
            #[allow(clippy::cast_precision_loss)]
            let truth = micros[rank] as f64;
            let found = sketch.quantile(q).unwrap().as_secs_f64() * 1e6;
            prop_assert!((found - truth).abs() <= truth * (ACCURACY + 1e-4), "{found} for {truth}");
        }

        #[test]
        fn merging_in_any_order_is_as_good_as_recording(a in proptest::collection::vec(1_u64..200, 0..100), b in proptest::collection::vec(50_u64..900, 0..100)) {
            let whole = of(&[a.clone(), b.clone()].concat());
            let mut left = of(&a);
            left.merge(&of(&b));
            let mut right = of(&b);
            right.merge(&of(&a));
            prop_assert_eq!(left.to_bytes(), whole.to_bytes());
            prop_assert_eq!(right.to_bytes(), whole.to_bytes());
        }

        #[test]
        fn high_quantiles_survive_any_spread(mut nanos in proptest::collection::vec(0_u64..u64::MAX, 1..200)) {
            let mut sketch = Sketch::new();
            nanos.iter().for_each(|&n| sketch.record(Duration::from_nanos(n)));
            prop_assert_eq!(sketch.count(), nanos.len() as u64);
            prop_assert!(sketch.bins.len() <= MAX_BINS);
            nanos.sort_unstable();
            #[allow(clippy::cast_precision_loss)]
            let truth = (*nanos.last().unwrap() as f64 / 1e9).max(1e-6);
            let found = sketch.quantile(1.0).unwrap().as_secs_f64();
            prop_assert!((found - truth).abs() <= truth * (ACCURACY + 1e-4), "{found} for {truth}");
        }

        #[test]
        fn stored_sketches_come_back(micros in proptest::collection::vec(1_u64..10_000_000, 0..300)) {
            let sketch = of(&micros);
            let back = Sketch::from_bytes(&sketch.to_bytes()).unwrap();
            prop_assert_eq!(back.to_bytes(), sketch.to_bytes());
            prop_assert_eq!(back.count(), sketch.count());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(sketch) = Sketch::from_bytes(&bytes) {
                let mut sum = sketch.clone();
                sum.merge(&sketch);
                let _ = (sum.quantile(0.5), sum.to_bytes());
            }
        }
    }

    #[test]
    fn an_emptied_sketch_has_forgotten_where_its_bins_were() {
        let mut sketch = of(&[60_000_000]);
        sketch.clear();
        sketch.record(Duration::from_millis(1));
        let found = sketch.quantile(1.0).unwrap().as_secs_f64();
        assert!((found - 1e-3).abs() <= 1e-3 * ACCURACY, "{found}");
    }

    #[test]
    fn an_emptied_sketch_allocates_no_more() {
        let mut sketch = of(&[100, 200, 300]);
        let capacity = sketch.bins.capacity();
        sketch.clear();
        assert_eq!((sketch.count(), sketch.quantile(0.5)), (0, None));
        sketch.record(Duration::from_micros(250));
        assert_eq!(sketch.bins.capacity(), capacity);
        assert_eq!(Sketch::new().to_bytes(), Vec::<u8>::new());
    }
}
