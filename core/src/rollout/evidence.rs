//! What a count of events proves about their rate, however often one looks.
//!
//! A test that is repeated after each call sooner or later finds "significance" in nothing. These intervals may
//! be looked at after every call, and stopped at any time: with probability `1 - alpha` the true rate lies in
//! all of them at once. They come from the mixture martingale of Robbins (1970; the mixture SPRT): under the rate
//! `p`, the likelihood of the data averaged over a Beta prior of rates, divided by their likelihood under `p`, is
//! a martingale with mean 1, and exceeds `1/alpha` with probability at most `alpha` at any time (Ville). All `p`
//! for which it has not are the interval. Exact for Bernoulli events at any sample size, and a function of two
//! counts only (Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
//! sequences", Annals of Statistics 2021, proposition 7).

/// The prior: Beta(1/2, 20), made for rates of a few percent. Any prior is valid; this one finds failures of
/// rare events soonest.
const PRIOR: (f64, f64) = (0.5, 20.0);

/// The rates between which the truth lies after `hits` of `calls`, unless something happened whose probability
/// over all looks together is `alpha`.
pub(super) fn interval(hits: u64, calls: u64, alpha: f64) -> (f64, f64) {
    if calls == 0 {
        return (0.0, 1.0);
    }
    let (hits, calls) = (hits.min(calls) as f64, calls as f64);
    let misses = calls - hits;
    let mixture = ln_beta(PRIOR.0 + hits, PRIOR.1 + misses) - ln_beta(PRIOR.0, PRIOR.1);
    // The logarithm of the martingale less that of 1/alpha: convex in p, and least at hits/calls.
    let excess = |p: f64| {
        let likelihood = term(hits, p) + term(misses, 1.0 - p);
        mixture - likelihood + alpha.ln()
    };
    let mean = hits / calls;
    let low = if hits == 0.0 { 0.0 } else { edge(0.0, mean, &excess) };
    let high = if misses == 0.0 { 1.0 } else { edge(1.0, mean, &excess) };
    (low, high)
}

/// `count * ln(p)`, where nothing of something impossible is possible.
fn term(count: f64, p: f64) -> f64 {
    if count == 0.0 { 0.0 } else { count * p.ln() }
}

/// Where `excess` crosses zero between `outside`, where it is positive, and `inside`, to 2^-40. The answer is on
/// the outer side, so that rounding widens the interval.
fn edge(mut outside: f64, mut inside: f64, excess: &impl Fn(f64) -> f64) -> f64 {
    for _ in 0..40 {
        let middle = outside.midpoint(inside);
        if excess(middle) > 0.0 { outside = middle } else { inside = middle }
    }
    outside
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// Stirling's series after moving the argument above 10 (Abramowitz and Stegun 6.1.41); to about 1e-13.
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    shift + (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Share, spread};
    use proptest::prelude::*;

    #[test]
    fn the_gamma_function_is_right() {
        // ln 9!, ln(sqrt(pi)), ln 99!
        for (x, known) in [
            (10.0, 12.801_827_480_081_469),
            (0.5, 0.572_364_942_924_700_1),
            (1.0, 0.0),
            (100.0, 359.134_205_369_575_4),
        ] {
            assert!((ln_gamma(x) - known).abs() < 1e-10, "{x}: {}", ln_gamma(x));
        }
    }

    #[test]
    fn nothing_seen_proves_nothing() {
        assert_eq!(interval(0, 0, 0.05), (0.0, 1.0));
        let (low, high) = interval(1, 1, 0.05);
        assert!(low < 0.01 && high == 1.0, "{low} {high}");
    }

    #[test]
    fn looking_after_every_call_errs_within_alpha() {
        for rate in [0.002, 0.02, 0.3] {
            let share = Share::from_ratio(rate).unwrap();
            let wrong = (0..300u64).filter(|run| {
                let mut hits = 0;
                (1..=2_000u64).any(|call| {
                    hits += u64::from(share.covers(spread(run << 32 | call)));
                    // Every twentieth look is enough to catch an excursion, and quick.
                    let (low, high) = if call % 20 == 0 { interval(hits, call, 0.05) } else { (0.0, 1.0) };
                    rate < low || rate > high
                })
            });
            let wrong = wrong.count();
            assert!(wrong <= 15, "{wrong} of 300 at {rate}");
        }
    }

    proptest! {
        #[test]
        fn the_interval_holds_what_was_measured_and_narrows(calls in 1u64..100_000, part in 0.0f64..=1.0) {
            let hits = (calls as f64 * part) as u64;
            let mean = hits as f64 / calls as f64;
            let (low, high) = interval(hits, calls, 0.05);
            prop_assert!(0.0 <= low && low <= mean && mean <= high && high <= 1.0, "{low} {mean} {high}");
            let (lower, higher) = interval(hits * 10, calls * 10, 0.05);
            prop_assert!(higher - lower <= high - low + 1e-9);
            let (wider_low, wider_high) = interval(hits, calls, 0.01);
            prop_assert!(wider_low <= low && high <= wider_high);
        }
    }
}
