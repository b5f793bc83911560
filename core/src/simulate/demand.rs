//! When a customer calls: a Poisson process whose rate follows day, week and bursts.

use super::dice::Dice;
use super::scenario::Customer;
use crate::units::Timestamp;

const MINUTE: u64 = 60_000_000_000;
const DAY: u64 = 86_400_000_000_000;

/// The calls of one customer, one after the other.
///
/// The rate is constant within a slice (five minutes, or until a burst begins or ends). A draw of the unit
/// exponential is used up along the way at the rate in force, which is exact for such a rate: nothing is thinned.
#[derive(Debug)]
pub(super) struct Demand<'s> {
    customer: &'s Customer,
    dice: Dice,
    /// Of the whole rate, in calls a nanosecond.
    base: f64,
    start: u64,
    at: u64,
    rate: f64,
    slice_ends: u64,
}

impl<'s> Demand<'s> {
    pub(super) fn new(customer: &'s Customer, sample: f64, seed: u64, start: Timestamp) -> Self {
        let start = start.as_nanos();
        let dice = Dice::new(seed, crate::units::stable_hash(1, customer.name.as_bytes()));
        let base = customer.rate * sample / 1e9;
        Self { customer, dice, base, start, at: start, rate: 0.0, slice_ends: start }
    }

    /// When the next call begins, and what its chances are drawn from; `None` where that is not before `end`.
    pub(super) fn next(&mut self, end: u64) -> Option<(u64, u64)> {
        let mut left = self.dice.exponential();
        while self.at < end {
            if self.at >= self.slice_ends {
                self.slice();
            }
            let room = (self.slice_ends - self.at) as f64 * self.rate;
            if left < room {
                self.at = self.at.saturating_add(((left / self.rate) as u64).max(1));
                return (self.at < end).then(|| (self.at, self.dice.draw()));
            }
            left -= room;
            self.at = self.slice_ends;
        }
        None
    }

    /// The rate from now on, and until when.
    fn slice(&mut self) {
        let customer = self.customer;
        let mut ends = self.at - self.at % (5 * MINUTE) + 5 * MINUTE;
        let middle = self.at + (ends - self.at) / 2;
        let mut rate = self.base;
        if customer.swing > 0.0 {
            let from_peak = (middle % DAY) as f64 - customer.peak.as_nanos() as f64;
            rate *= 1.0 + customer.swing * (from_peak / DAY as f64 * std::f64::consts::TAU).cos();
        }
        // The epoch was a Thursday.
        if matches!((middle / DAY + 3) % 7, 5 | 6) {
            rate *= customer.weekend;
        }
        if let Some(bursts) = customer.bursts {
            let (every, lasts) = (bursts.every.as_nanos() as u64, bursts.lasts.as_nanos() as u64);
            let into = (self.at - self.start) % every.max(1);
            // Each period ends with its burst.
            let quiet = every.saturating_sub(lasts);
            let next = if into < quiet { quiet - into } else { every - into };
            if into >= quiet {
                rate *= bursts.factor;
            }
            ends = ends.min(self.at + next.max(1));
        }
        (self.rate, self.slice_ends) = (rate, ends);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Scenario;

    const START: Timestamp = Timestamp::from_nanos(1_772_409_600_000_000_000); // A Monday, midnight.

    fn calls(keys: &str, from_hours: u64, hours: u64) -> usize {
        let text = format!(
            "duration = \"1d\"\n[[vendor]]\nname = \"stripe\"\n[[customer]]\nname = \"acme\"\nrate = \"1 / s\"\n{keys}\n\
             calls = [{{ vendor = \"stripe\", endpoint = \"GET /v1/balance\" }}]\n"
        );
        let scenario = Scenario::parse("s", &text).unwrap();
        let hour = 60 * MINUTE;
        let (from, end) =
            (START.as_nanos() + from_hours * hour, START.as_nanos() + (from_hours + hours) * hour);
        let mut demand = Demand::new(&scenario.customers[0], 1.0, 7, START);
        std::iter::from_fn(|| demand.next(end)).filter(|(at, _)| *at >= from).count()
    }

    fn near(calls: usize, expected: f64) -> bool {
        (calls as f64 - expected).abs() < 5.0 * expected.sqrt()
    }

    #[test]
    fn a_customer_calls_at_its_rate() {
        assert!(near(calls("", 0, 24), 86_400.0));
    }

    #[test]
    fn day_and_weekend_and_bursts_shape_it() {
        let day = "swing = \"80%\"\npeak = \"14:00\"";
        assert!(near(calls(day, 0, 24), 86_400.0), "the average stays");
        assert!(calls(day, 13, 2) > 6 * calls(day, 1, 2), "1.8 against 0.2");
        assert!(near(calls("weekend = \"10%\"", 5 * 24, 24), 8_640.0), "Saturday");
        let bursts = "bursts = { every = \"1h\", for = \"6m\", factor = 10 }";
        assert!(near(calls(bursts, 0, 10), 10.0 * (3_240.0 + 3_600.0)));
    }
}
