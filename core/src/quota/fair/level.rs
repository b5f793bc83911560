//! Water-filling: the level up to which all are served alike.

/// The level, in units per second for each weight of one, so that the sum of min(demand, level * weight) is
/// `budget`; `u64::MAX` where all demand fits. `members` gives (demand, weight in thousandths) each time it is
/// asked. Demands, levels and budget are in thousandths.
pub(super) fn fill<I: Iterator<Item = (u64, u64)>>(budget: u64, members: impl Fn() -> I) -> u64 {
    let (demand, weights) =
        members().fold((0u64, 0u64), |(demand, weights), (d, w)| (demand.saturating_add(d), weights + w));
    if demand <= budget || weights == 0 {
        return u64::MAX;
    }
    let mut level = share(budget, weights);
    // Each pass satisfies at least one more member or ends; the level only rises. Few passes get close enough.
    for _ in 0..32 {
        let (served, weights) = members().fold((0u64, 0u64), |(served, weights), (demand, weight)| {
            if demand <= level.saturating_mul(weight) / 1_000 {
                (served + demand, weights)
            } else {
                (served, weights + weight)
            }
        });
        if weights == 0 {
            break;
        }
        let higher = share(budget.saturating_sub(served), weights);
        if higher <= level {
            break;
        }
        level = higher;
    }
    level.max(1)
}

/// An equal share for each weight of one.
fn share(budget: u64, weights: u64) -> u64 {
    u64::try_from(u128::from(budget) * 1_000 / u128::from(weights.max(1))).unwrap_or(u64::MAX - 1)
}

/// How many nanoseconds `units` take at `rate` thousandths per second; or, the other way round, thousandths per
/// second when `units` come in so many nanoseconds.
pub(super) fn per_second(units: u64, rate: u64) -> u64 {
    let product = u128::from(units) * 1_000_000_000_000;
    u64::try_from(product / u128::from(rate.max(1))).unwrap_or(u64::MAX)
}

/// How many nanoseconds `units` take at `rate` thousandths per second.
pub(super) fn time_of(units: u64, rate: u64) -> u64 {
    per_second(units, rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_level_is_max_min_fair(
            members in proptest::collection::vec((0u64..1_000_000, 100u64..5_000), 1..60),
            budget in 1_000u64..5_000_000,
        ) {
            let level = fill(budget, || members.iter().copied());
            let demand: u64 = members.iter().map(|(demand, _)| demand).sum();
            if demand <= budget {
                prop_assert_eq!(level, u64::MAX);
            } else {
                let given: u64 = members.iter().map(|&(demand, weight)| demand.min(level * weight / 1_000)).sum();
                // All of the budget is given away, but for rounding.
                prop_assert!(given <= budget + 1, "{given} of {budget}");
                prop_assert!(given + 10 * members.len() as u64 >= budget, "{given} of {budget}");
            }
        }
    }
}
