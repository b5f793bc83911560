//! Incidents of the processes that share a quota: each writes down what it used of a window in which any of them was
//! refused, and together these are one incident.

use super::stored;
use farcall::Timestamp;
use farcall::quota::{Answers, NamedIncident, NamedMix, NamedShare};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Names that are told, as many as a process tells of.
const MOST: usize = 16;
/// Windows of a quota that rows written one after the other may be of.
const NEAR: usize = 64;

/// One incident, of one process or of several.
#[derive(Debug)]
pub(super) struct Joined {
    /// The lowest number of a row in which somebody was refused.
    pub(super) id: i64,
    pub(super) incident: NamedIncident,
    /// How many processes used the window, as far as they told.
    pub(super) processes: u64,
    /// The numbers of all rows that it was made of.
    pub(super) rows: BTreeSet<i64>,
}

/// What one process wrote down.
struct Part {
    id: i64,
    process: String,
    incident: NamedIncident,
}

/// What is told apart, before windows are.
type Quota = (String, String, String, String, String);

/// Rows of the ledger, and what becomes of them.
#[derive(Default)]
pub(super) struct Rows {
    groups: Vec<Vec<Part>>,
    /// The groups of a quota that processes share.
    shared: HashMap<Quota, Vec<usize>>,
    /// Rows that could not be read.
    pub(super) unread: u64,
}

impl Rows {
    /// Adds a row. `source` begins with the process that wrote it.
    pub(super) fn add(&mut self, id: i64, source: &str, text: &str) {
        let Ok(incident) = stored::read(text) else {
            self.unread += 1;
            return;
        };
        let process = source.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
        let part = Part { id, process, incident };
        if !part.incident.shared {
            self.groups.push(vec![part]);
            return;
        }
        let NamedIncident { vendor, credential, policy, partition, unit, .. } = &part.incident;
        let quota = (vendor.clone(), credential.clone(), policy.clone(), partition.clone(), unit.clone());
        let groups = self.shared.entry(quota).or_default();
        // Rows come as they were written, so those of one window are close together.
        match groups
            .iter()
            .rev()
            .take(NEAR)
            .find(|group| self.groups[**group].iter().all(|known| known.belongs_with(&part)))
        {
            Some(group) => self.groups[*group].push(part),
            None => {
                groups.push(self.groups.len());
                self.groups.push(vec![part]);
            }
        }
    }

    /// The incidents, the newest first. What was used of a window whose refusals are not among the rows is none.
    pub(super) fn join(self) -> Vec<Joined> {
        let mut joined: Vec<Joined> = self.groups.into_iter().filter_map(join).collect();
        joined.sort_by_key(|joined| std::cmp::Reverse((joined.incident.at, joined.id)));
        joined
    }
}

impl Part {
    /// Whether two rows are about one window: where a vendor says when it ends, processes learn of it at different
    /// times, so their windows are not equal to the last nanosecond.
    fn belongs_with(&self, other: &Self) -> bool {
        let (one, other_one) = (&self.incident, &other.incident);
        if self.process == other.process {
            return one.began == other_one.began;
        }
        let began = one.began.max(other_one.began);
        let both = one.ends.min(other_one.ends).since(began);
        let shorter = one.ends.since(one.began).min(other_one.ends.since(other_one.began));
        both * 2 >= shorter && !both.is_zero()
    }

    /// A later one tells more of the same window.
    fn tells(&self) -> (u64, u64) {
        (self.incident.own, self.incident.count)
    }
}

fn join(mut parts: Vec<Part>) -> Option<Joined> {
    let rows: BTreeSet<i64> = parts.iter().map(|part| part.id).collect();
    let id = parts.iter().filter(|part| part.incident.count > 0).map(|part| part.id).min()?;
    // Of one process the row that tells most: its kind may have changed while the window lasted.
    parts.sort_by(|a, b| a.process.cmp(&b.process).then_with(|| b.tells().cmp(&a.tells())));
    parts.dedup_by(|later, kept| later.process == kept.process);
    let processes = parts.len() as u64;
    let mut incidents: Vec<NamedIncident> = parts.into_iter().map(|part| part.incident).collect();
    if let [_] = incidents[..] {
        return Some(Joined { id, incident: incidents.remove(0), processes, rows });
    }
    Some(Joined { id, incident: add_up(&incidents), processes, rows })
}

fn add_up(parts: &[NamedIncident]) -> NamedIncident {
    let gravity = |part: &NamedIncident| match (part.count, part.kind.as_str()) {
        (0, _) => 0,
        (_, "own") => 1,
        (_, "rate") => 2,
        _ => 3,
    };
    let gravest = parts.iter().max_by_key(|part| (gravity(part), std::cmp::Reverse(part.at)));
    let mut sum = gravest.cloned().unwrap_or_default();
    let of_kind = parts.iter().filter(|part| part.count > 0 && (part.kind == "own") == (sum.kind == "own"));
    sum.at = of_kind.clone().map(|part| part.at).min().unwrap_or(sum.at);
    sum.count = of_kind.clone().map(|part| part.count).sum();
    sum.answers = answers(of_kind.flat_map(|part| &part.answers));
    sum.refused = parts.iter().map(|part| part.refused).sum();
    let moment = |of: fn(&NamedIncident) -> Timestamp| parts.iter().map(of);
    sum.began = moment(|part| part.began).min().unwrap_or(sum.began);
    sum.ends = moment(|part| part.ends).max().unwrap_or(sum.ends);
    sum.retry_at = parts.iter().filter_map(|part| part.retry_at).max();
    sum.own = parts.iter().map(|part| part.own).sum();
    // The vendor's count less that of all who share: each of them knows all of it.
    sum.foreign = parts.iter().map(|part| part.foreign).max().unwrap_or(0);
    let shares = |of: fn(&NamedIncident) -> &Vec<NamedShare>| {
        let lists = parts.iter().map(|part| {
            of(part).iter().map(|share| (share.name.clone(), share.units, share.at_least)).collect()
        });
        let top = top(lists.collect()).into_iter();
        top.map(|(name, units, at_least)| NamedShare { name, units, at_least }).collect::<Vec<_>>()
    };
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

    fn part(rows: &mut Rows, id: i64, process: &str, began: u64, own: u64, count: u64, shared: bool) {
        let text = format!(
            r#"{{"vendor":"v","policy":"p","unit":"requests","kind":"rate","at":{},"count":{count},"refused":{count},
                "answers":[{{"status":403,"kind":"rate","count":{count}}}],"began":{},"ends":{},"own":{own},"shared":{shared},
                "customers":[{{"name":"acme","units":{own},"at_least":{own}}}]}}"#,
            began + 5,
            began,
            began + 1_000_000_000
        );
        rows.add(id, &format!("{process}/1/v//p/own/{began}"), &text);
    }

    #[test]
    fn processes_that_share_a_quota_have_one_incident_in_each_window_and_others_their_own() {
        let (window, next) = (1_000_000_000_000, 1_001_000_000_000);
        let mut rows = Rows::default();
        part(&mut rows, 1, "10", window, 40, 0, true);
        part(&mut rows, 2, "11", window + 80_000_000, 10, 3, true);
        part(&mut rows, 3, "12", window, 0, 2, true);
        part(&mut rows, 4, "10", next, 7, 1, true);
        // Alone with a quota of the same name.
        part(&mut rows, 5, "13", window, 9, 1, false);
        part(&mut rows, 6, "14", window, 9, 1, false);
        // Used something of a window in which nobody told of a refusal.
        part(&mut rows, 7, "15", next + 5_000_000_000, 9, 0, true);
        // The same window of a process that told of it under another kind before.
        part(&mut rows, 8, "11", window + 80_000_000, 4, 1, true);
        let joined = rows.join();
        let told: Vec<_> = joined
            .iter()
            .map(|joined| (joined.id, joined.processes, joined.incident.own, joined.incident.count))
            .collect();
        assert_eq!(told, [(4, 1, 7, 1), (6, 1, 9, 1), (5, 1, 9, 1), (2, 3, 50, 5)]);
        assert_eq!(joined[3].rows, BTreeSet::from([1, 2, 3, 8]));
        assert_eq!(joined[3].incident.customers[0].units, 50);
        assert_eq!(joined[3].incident.answers, [Answers { status: 403, exhausted: false, count: 5 }]);
    }
}
