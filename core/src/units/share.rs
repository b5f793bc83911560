//! A part of a whole, and the draws that decide who belongs to it.

use std::fmt;

/// A part of all calls (customers, attempts), between nothing and everything, as a threshold on 64 random bits.
///
/// Growing a share keeps everybody who was in it: a draw below a threshold is below every higher one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Share(u64);

impl Share {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self(u64::MAX);

    /// A share from a ratio; `None` outside of 0 to 1, and for NaN.
    #[must_use]
    pub fn from_ratio(ratio: f64) -> Option<Self> {
        // The conversion saturates: 1.0 becomes `ALL`.
        (0.0..=1.0).contains(&ratio).then_some(Self((ratio * 2f64.powi(64)) as u64))
    }

    /// The share as a ratio between 0 and 1.
    #[must_use]
    pub fn ratio(self) -> f64 {
        self.0 as f64 / 2f64.powi(64)
    }

    /// Whether a draw of 64 evenly distributed bits belongs to the share.
    #[must_use]
    pub const fn covers(self, draw: u64) -> bool {
        draw < self.0 || self.0 == u64::MAX
    }

    /// The share of `whole`, rounded to the nearest.
    #[must_use]
    pub const fn of(self, whole: u64) -> u64 {
        ((whole as u128 * self.0 as u128 + (1 << 63)) >> 64) as u64
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.ratio() * 100.0)
    }
}

/// Spreads a number over all 64 bits (the finaliser of SplitMix64): close inputs give unrelated draws.
pub(crate) const fn spread(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A number for a text that is the same in every process, language and release (FNV-1a, spread). Not for
/// secrets.
pub(crate) const fn stable_hash(salt: u64, text: &[u8]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325 ^ salt;
    let mut at = 0;
    while at < text.len() {
        hash = (hash ^ text[at] as u64).wrapping_mul(0x0100_0000_01B3);
        at += 1;
    }
    spread(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ends_are_exact() {
        for draw in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(!Share::NONE.covers(draw));
            assert!(Share::ALL.covers(draw));
        }
        assert_eq!(Share::from_ratio(1.0), Some(Share::ALL));
        assert_eq!(Share::from_ratio(0.0), Some(Share::NONE));
        for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::from_ratio(wrong), None);
        }
        assert_eq!(Share::from_ratio(0.2).unwrap().of(1_000), 200);
        assert_eq!(Share::ALL.of(7), 7);
    }

    #[test]
    fn the_stable_hash_never_changes() {
        // Written down: customers would change sides if a release changed it.
        assert_eq!(stable_hash(0, b"acme"), 0x4279_CFB0_4F79_F3BF);
    }

    proptest! {
        #[test]
        fn who_is_in_a_share_is_in_every_larger_one(a in 0.0f64..=1.0, b in 0.0f64..=1.0, draw: u64) {
            let (small, large) = (a.min(b), a.max(b));
            let (small, large) = (Share::from_ratio(small).unwrap(), Share::from_ratio(large).unwrap());
            prop_assert!(!small.covers(draw) || large.covers(draw));
        }

        #[test]
        fn a_share_covers_its_part_of_the_draws(ratio in 0.0f64..=1.0, seed: u64) {
            let share = Share::from_ratio(ratio).unwrap();
            let hits = (0..4_000u64).filter(|n| share.covers(spread(seed.wrapping_add(*n)))).count();
            prop_assert!((hits as f64 / 4_000.0 - ratio).abs() < 0.05, "{hits} of 4000 at {ratio}");
        }
    }
}
