//! One window of a quota that several use: each of them tells of its own part.

use super::{Answers, NamedIncident, NamedMix, NamedShare};
use crate::units::Timestamp;
use std::collections::{BTreeMap, HashMap};

/// Names that are told, as many as each of them tells of.
const MOST: usize = 16;

impl NamedIncident {
    /// Whether somebody else who shares the quota tells of the same window: where a vendor says when it ends, they learn of
    /// it at different times, so their windows are not equal to the last nanosecond.
    #[must_use]
    pub fn shares_window_with(&self, other: &Self) -> bool {
        let began = self.began.max(other.began);
        let both = self.ends.min(other.ends).since(began);
        let shorter = self.ends.since(self.began).min(other.ends.since(other.began));
        both * 2 >= shorter && !both.is_zero()
    }

    /// The incident of one window that several tell of who share the quota; each of them was told by another one.
    #[must_use]
    pub fn sum(parts: &[Self]) -> Self {
        let gravity = |part: &Self| match (part.count, part.kind.as_str()) {
            (0, _) => 0,
            (_, "own") => 1,
            (_, "rate") => 2,
            _ => 3,
        };
        let gravest = parts.iter().max_by_key(|part| (gravity(part), std::cmp::Reverse(part.at)));
        let mut sum = gravest.cloned().unwrap_or_default();
        let of_kind =
            parts.iter().filter(|part| part.count > 0 && (part.kind == "own") == (sum.kind == "own"));
        sum.at = of_kind.clone().map(|part| part.at).min().unwrap_or(sum.at);
        sum.count = of_kind.clone().map(|part| part.count).sum();
        sum.answers = answers(of_kind.flat_map(|part| &part.answers));
        sum.refused = parts.iter().map(|part| part.refused).sum();
        let moment = |of: fn(&Self) -> Timestamp| parts.iter().map(of);
        sum.began = moment(|part| part.began).min().unwrap_or(sum.began);
        sum.ends = moment(|part| part.ends).max().unwrap_or(sum.ends);
        sum.retry_at = parts.iter().filter_map(|part| part.retry_at).max();
        sum.own = parts.iter().map(|part| part.own).sum();
        // The vendor's count less that of all who share: each of them knows all of it.
        // What one of them cannot tell, nobody can.
        let foreign = parts.iter().map(|part| part.foreign).collect::<Option<Vec<_>>>();
        sum.foreign = foreign.and_then(|foreign| foreign.into_iter().max());
        let shares = |of: fn(&Self) -> &Vec<NamedShare>| {
            let lists = parts.iter().map(|part| {
                of(part).iter().map(|share| (share.name.clone(), share.units, share.at_least)).collect()
            });
            let top = top(lists.collect()).into_iter();
            top.map(|(name, units, at_least)| NamedShare { name, units, at_least }).collect::<Vec<_>>()
        };
        sum.kept_back = shares(|part| &part.kept_back);
        sum.customers = shares(|part| &part.customers);
        sum.callers = shares(|part| &part.callers);
        sum.endpoints = shares(|part| &part.endpoints);
        sum.credentials = shares(|part| &part.credentials);
        let lists = parts.iter().map(|part| {
            let key = |mix: &NamedMix| (mix.customer.clone(), mix.endpoint.clone(), mix.caller.clone());
            part.mixes.iter().map(|mix| (key(mix), mix.units, mix.at_least)).collect()
        });
        let top = top(lists.collect()).into_iter();
        sum.mixes = top
            .map(|((customer, endpoint, caller), units, at_least)| NamedMix {
                customer,
                endpoint,
                caller,
                units,
                at_least,
            })
            .collect();
        sum
    }
}

/// How many there were of each status and meaning.
fn answers<'p>(parts: impl Iterator<Item = &'p Answers>) -> Vec<Answers> {
    let mut sums = BTreeMap::<(u16, bool), u64>::new();
    for Answers { status, exhausted, count } in parts {
        *sums.entry((*status, *exhausted)).or_default() += count;
    }
    let alike = |((status, exhausted), count)| Answers { status, exhausted, count };
    sums.into_iter().map(alike).collect()
}

/// The sums of several lists of those who used most, the largest first. Whoever is not in a list that is full may have
/// used as much as its last, so that no sum is too low.
fn top<N: Clone + Eq + std::hash::Hash + Ord>(lists: Vec<Vec<(N, u64, u64)>>) -> Vec<(N, u64, u64)> {
    let missed = |list: &[(N, u64, u64)]| match list.len() < MOST {
        true => 0,
        false => list.iter().map(|(_, units, _)| *units).min().unwrap_or(0),
    };
    let most: u64 = lists.iter().map(|list| missed(list)).sum();
    // Beside its units, what it may have used of lists that it is not in.
    let mut sums = HashMap::<N, (u64, u64)>::new();
    for list in &lists {
        let missed = missed(list);
        for (name, units, at_least) in list {
            let sum = sums.entry(name.clone()).or_insert((most, 0));
            sum.0 = (sum.0 - missed).saturating_add(*units);
            sum.1 = sum.1.saturating_add(*at_least);
        }
    }
    let mut sums: Vec<(N, u64, u64)> =
        sums.into_iter().map(|(name, (units, at_least))| (name, units, at_least)).collect();
    sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    sums.truncate(MOST);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[(&'static str, u64)]) -> Vec<(&'static str, u64, u64)> {
        names.iter().map(|(name, units)| (*name, *units, *units)).collect()
    }

    #[test]
    fn sums_of_whole_lists_are_exact_and_those_of_full_ones_never_too_low() {
        let whole = top(vec![list(&[("a", 5), ("b", 3)]), list(&[("b", 4), ("c", 1)])]);
        assert_eq!(whole, [("b", 7, 7), ("a", 5, 5), ("c", 1, 1)]);
        let names: Vec<String> = (0..MOST).map(|n| format!("n{n:02}")).collect();
        let full = names.iter().map(|name| (name.as_str(), 10, 8)).collect();
        let sums = top(vec![full, vec![("x", 9, 9), ("n00", 1, 1)]]);
        assert_eq!((sums[0], sums.len()), (("x", 19, 9), MOST), "x may have had ten of the full list");
        assert_eq!(sums[1], ("n00", 11, 9));
    }
}
