//! Two numbers in one atomic word, so that one compare-exchange changes both.

/// A moment in 32 bits: 16.8 ms steps that wrap every 2.28 years. Read next to a present moment, it means the
/// nearest moment of that number, so it is right within 1.14 years on either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick(pub(super) u32);

const SHIFT: u32 = 24;

impl Tick {
    /// The last tick at or before `nanos`.
    pub(super) const fn floor(nanos: u64) -> Self {
        Self::step(nanos >> SHIFT)
    }

    /// The first tick at or after `nanos`.
    pub(super) const fn ceil(nanos: u64) -> Self {
        Self::step(nanos.saturating_add((1 << SHIFT) - 1) >> SHIFT)
    }

    /// Zero is kept free: a word of zeroes says nothing.
    const fn step(step: u64) -> Self {
        let step = step as u32;
        Self(if step == 0 { 1 } else { step })
    }

    /// The moment in nanoseconds, as seen from `now`.
    pub(super) const fn nanos(self, now: u64) -> u64 {
        let present = now >> SHIFT;
        let distance = self.0.wrapping_sub(present as u32) as i32;
        present.saturating_add_signed(distance as i64) << SHIFT
    }
}

pub(super) const fn pack(high: u32, low: u32) -> u64 {
    ((high as u64) << 32) | low as u64
}

pub(super) const fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_tick_is_found_again_within_a_year(
            now in 0u64..4_000_000_000_000_000_000,
            ahead in -30_000_000_000_000_000i64..30_000_000_000_000_000,
        ) {
            let at = now.saturating_add_signed(ahead);
            let floor = Tick::floor(at).nanos(now);
            let ceil = Tick::ceil(at).nanos(now);
            // Step zero of each turn is spoken of as step one.
            prop_assert!(floor <= at + (1 << SHIFT) && at - floor.min(at) < (1 << SHIFT));
            prop_assert!(ceil >= at && ceil - at <= (2 << SHIFT));
        }
    }
}
