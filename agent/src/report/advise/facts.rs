//! What the rules look at: the ledger's rows of one window, added up.

use crate::report::ReportError;
use crate::report::findings::Finding;
use crate::report::row::{Row, get};
use crate::report::source::Source;
use farcall::advise::{Sums, TTLS};
use farcall::ledger::{Sketch, Sums as Calls};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// An endpoint, by vendor and name.
pub(super) type Place = (Rc<str>, Rc<str>);

/// What is known of an endpoint, or of a vendor.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) sums: Sums,
    pub(super) services: BTreeSet<String>,
    /// The calls that were made, of the ledger.
    pub(super) calls: u64,
    pub(super) attempts: u64,
    pub(super) failures: u64,
    /// Calls that ended because their client's time for them was over.
    pub(super) timeouts: u64,
    pub(super) duration: Duration,
    pub(super) latency: Sketch,
}

/// One credential of a vendor.
#[derive(Default)]
pub(super) struct Credential {
    /// By service, within the window.
    pub(super) used_by: BTreeMap<String, u64>,
    /// By service, before it.
    pub(super) used_before: BTreeMap<String, u64>,
    /// The minute up to which its last use can have been.
    pub(super) last: u64,
}

#[derive(Default)]
pub(super) struct Facts {
    pub(super) endpoints: BTreeMap<Place, Seen>,
    pub(super) vendors: BTreeMap<Rc<str>, Seen>,
    /// All calls that were part of a trace, and how many traces there were, by service.
    pub(super) traces: BTreeMap<String, (u64, u64)>,
    pub(super) credentials: BTreeMap<(Rc<str>, Rc<str>), Credential>,
}

impl Seen {
    fn add(&mut self, row: &Row<'_>) {
        let Calls { calls, attempts, duration, .. } = row.sums;
        self.calls += calls;
        self.attempts += attempts;
        self.duration = self.duration.saturating_add(duration);
        let failed = row.status >= 500 || row.status == 429 || row.status == 0;
        self.failures += if failed { calls } else { 0 };
        self.timeouts += if row.outcome == "timeout" { calls } else { 0 };
        self.latency.merge(&row.latency);
        self.services.insert(row.caller.service.clone());
    }

    /// The mean time of a call.
    pub(super) fn mean(&self) -> Duration {
        self.duration.checked_div(u32::try_from(self.calls).unwrap_or(u32::MAX)).unwrap_or_default()
    }
}

impl Facts {
    pub(super) fn read(source: &Source<'_>) -> Result<Self, ReportError> {
        let mut facts = Self::default();
        source.rows(|row| {
            if row.is_refused() || row.is_cached() || row.is_kernel() {
                return;
            }
            let place = (Rc::clone(row.vendor), Rc::clone(row.endpoint));
            facts.endpoints.entry(place).or_default().add(row);
            facts.vendors.entry(Rc::clone(row.vendor)).or_default().add(row);
        })?;
        source.of_endpoints("advice", |row, vendor, endpoint, caller| {
            let mut sums = Sums::default();
            let names: Vec<&str> = sums.counts().into_iter().map(|(name, _)| name).collect();
            let counts: Result<Vec<u64>, _> = names.into_iter().map(|name| get(row, name)).collect();
            sums.set_counts(counts?);
            sums.longest_loop = get(row, "longest_loop")?;
            sums.weight = get(row, "weight")?;
            if vendor.is_empty() {
                let (traced, traces) = facts.traces.entry(caller.service.clone()).or_default();
                (*traced, *traces) = (*traced + sums.traced, *traces + sums.traces);
                return Ok(());
            }
            for seen in facts.both(vendor, endpoint) {
                seen.sums.add(&sums);
                seen.services.insert(caller.service.clone());
            }
            Ok(())
        })?;
        source.of_endpoints("replays", |row, vendor, endpoint, _| {
            let ttl: u64 = get(row, "ttl")?;
            let Some(place) = TTLS.iter().position(|known| known.as_secs() == ttl) else { return Ok(()) };
            let mut sums = Sums::default();
            let at = &mut sums.at[place];
            (at.hits, at.stale) = (get(row, "hits")?, get(row, "stale")?);
            (at.cost, at.cost_unknown) = (row.get("cost")?, get(row, "cost_unknown")?);
            at.duration = Duration::from_nanos(get(row, "duration")?);
            (at.quota, at.bytes) = (get(row, "quota")?, get(row, "bytes")?);
            for seen in facts.both(vendor, endpoint) {
                seen.sums.add(&sums);
            }
            Ok(())
        })?;
        facts.read_credentials(source)?;
        Ok(facts)
    }

    /// Whether most answers of a finding's endpoint were compared with earlier ones: then it is known what keeping them
    /// would save, and how many would be stale.
    pub(super) fn compared(&self, finding: &Finding) -> bool {
        let (Some(vendor), Some(endpoint)) = (finding.vendor.as_deref(), finding.endpoint.as_deref()) else {
            return false;
        };
        let seen = self.endpoints.get(&(Rc::from(vendor), Rc::from(endpoint)));
        seen.is_some_and(|seen| seen.sums.compared > 0 && seen.sums.compared * 2 >= seen.calls)
    }

    fn both(&mut self, vendor: &Rc<str>, endpoint: &Rc<str>) -> [&mut Seen; 2] {
        let place = (Rc::clone(vendor), Rc::clone(endpoint));
        [self.endpoints.entry(place).or_default(), self.vendors.entry(Rc::clone(vendor)).or_default()]
    }

    /// Of the whole ledger: what was used before the window, and is not any more, matters too.
    fn read_credentials(&mut self, source: &Source<'_>) -> Result<(), ReportError> {
        let from = source.query.first_minute();
        source.credentials(|vendor, credential, service, minutes, calls| {
            let key = (Rc::clone(vendor), Rc::clone(credential));
            let known = self.credentials.entry(key).or_default();
            known.last = known.last.max(minutes.end);
            let uses = if minutes.end > from { &mut known.used_by } else { &mut known.used_before };
            *uses.entry(service.to_owned()).or_default() += calls;
        })
    }
}
