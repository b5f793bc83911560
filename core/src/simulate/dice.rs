//! Chance, from a seed. Each customer, vendor and call has dice of its own, so that a change in one place leaves
//! the luck of the others as it was: before and after differ by the change alone.

use crate::units::spread;
use std::f64::consts::TAU;

/// A sequence of draws (SplitMix64).
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// Dice of this seed, for one purpose.
    pub(super) const fn new(seed: u64, purpose: u64) -> Self {
        Self(spread(seed ^ spread(purpose)))
    }

    pub(super) const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        spread(self.0)
    }

    /// Evenly from 0 (included) to 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponentially, with the mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Normally, around 0, with the deviation 1 (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.unit(), self.unit());
        (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_moments_of_their_distributions() {
        let mut dice = Dice::new(1, 2);
        let n = 100_000;
        let mean = |draw: &mut dyn FnMut() -> f64| (0..n).map(|_| draw()).sum::<f64>() / f64::from(n);
        assert!((mean(&mut || dice.unit()) - 0.5).abs() < 0.01);
        assert!((mean(&mut || dice.exponential()) - 1.0).abs() < 0.02);
        assert!(mean(&mut || dice.normal()).abs() < 0.02);
        assert!((mean(&mut || dice.normal().powi(2)) - 1.0).abs() < 0.02);
    }

    #[test]
    fn the_same_seed_gives_the_same_draws_and_another_purpose_others() {
        let draws = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            [dice.draw(), dice.draw(), dice.draw()]
        };
        assert_eq!(draws(1, 2), draws(1, 2));
        assert_ne!(draws(1, 2), draws(1, 3));
    }
}
