//! Incidents of the processes that share a quota: each writes down what it used of a window in which any of them was
//! refused, and together these are one incident.

use super::stored;
use farcall::quota::NamedIncident;
use std::collections::{BTreeSet, HashMap};

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
    /// Whether two rows are about one window.
    fn belongs_with(&self, other: &Self) -> bool {
        match self.process == other.process {
            true => self.incident.began == other.incident.began,
            false => self.incident.shares_window_with(&other.incident),
        }
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
    Some(Joined { id, incident: NamedIncident::sum(&incidents), processes, rows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use farcall::quota::Answers;

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
