//! What leaves the engine about once a second.

use super::Engine;
use super::account::Account;
use super::names::Names;
use super::states::{Known, Of};
use crate::config::Rule;
use crate::cost::Prices;
use crate::ledger::{Batch, Notice, Spending, Spent};
use crate::matcher::{Field, Matcher, Subject};
use crate::quota::{NamedIncident, NamedStanding, Names as QuotaNames, Standing};
use crate::rollout::{Change, Evidence};
use crate::units::Timestamp;
use crate::{budget, quota};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Notices that wait for one drain.
const MAX_NOTICES: usize = 256;
/// Incidents of one quota that a drain takes: of both windows that are kept, and what came meanwhile. The rest is told by
/// the next one, so that calls that go on cannot hold it up.
const WINDOWS: usize = 3;
/// Quotas of vendors that one drain tells of. Where more changed, the next one goes on with the rest.
const MAX_STANDINGS: usize = 1_024;
/// Partitions of one budget whose totals are kept for calls to come.
const MAX_SPENT: usize = 65_536;

impl Engine {
    /// Takes all that was counted since the last drain. To be called about once a second, by one at a time:
    /// two at once lose nothing, but each gets a part.
    pub fn drain(&self, now: Timestamp) -> Batch {
        let mut batch = Batch::default();
        self.count_expired(now);
        for number in 0..self.shards.len() {
            self.shards.drain(number, &self.catalogue, &mut batch);
        }
        let accounts = self.states.accounts.all();
        self.drain_incidents(&accounts, now, &mut batch);
        self.drain_standings(accounts, now, &mut batch);
        self.drain_limits(now, &mut batch);
        self.drain_advice(now, &mut batch);
        batch.warned = self.drain_warned(now);
        if self.cut_off.swap(false, Ordering::Relaxed) {
            // Plans are made anew, and their quotas looked for once more.
            self.generation.fetch_add(1, Ordering::Release);
        }
        self.states.noted_budgets.drain(&self.states.budgets, |note| {
            let settled = note.state.settled();
            let status = note.state.status(&note.then, now);
            let period = note.then.limit.period.number(now);
            let spent = settled.saturating_sub(note.told);
            batch.budgets.push(Spending {
                budget: Arc::clone(&note.rule),
                partition: Arc::clone(&note.of.partition),
                period,
                spent,
                used: status.used.saturating_add(status.elsewhere),
                limit: status.limit,
            });
            let before = if note.told_in.0 == period { note.told_in.1 } else { 0 };
            (note.told, note.told_in) = (settled, (period, before.saturating_add(spent)));
            spent > 0
        });
        batch.volumes.extend(self.rules.read().unwrap_or_else(PoisonError::into_inner).prices.used());
        batch.notices = std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner));
        batch
    }

    /// Tells what all processes together have spent of budgets, this one included, as far as it was drained. What
    /// belongs to another period than the present one is ignored; budgets and partitions that no call asked for
    /// yet begin with it.
    pub fn tell_spending(&self, totals: impl IntoIterator<Item = Spent>, now: Timestamp) {
        let rules = Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner));
        let mut known = self.states.spent.lock().unwrap_or_else(PoisonError::into_inner);
        for Spent { budget, partition, period, total } in totals {
            let known = known.entry(budget).or_default();
            // Who asks for all gets those of earlier periods, too.
            if known.get(&partition).is_some_and(|(of, _)| *of > period) {
                continue;
            }
            if known.len() >= MAX_SPENT && !known.contains_key(&partition) {
                known.clear();
            }
            known.insert(partition, (period, total));
        }
        recall_volumes(&rules.prices, &known);
        self.states.noted_budgets.each(|note| {
            let period = note.then.limit.period.number(now);
            if let Some((of, total)) = known.get(&*note.rule).and_then(|known| known.get(&*note.of.partition))
                && *of == period
            {
                // What is not told yet is counted here only.
                let told = if note.told_in.0 == period { note.told_in.1 } else { 0 };
                note.state.set_elsewhere(&note.then, total.saturating_sub(told), now);
            }
        });
    }

    /// A budget that this process has not spent of before begins with what others have.
    pub(super) fn recall_spending(
        &self,
        rule: &str,
        partition: &str,
        then: &budget::Rule,
        state: &budget::State,
        now: Timestamp,
    ) {
        let known = self.states.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((period, total)) = known.get(rule).and_then(|known| known.get(partition))
            && *period == then.limit.period.number(now)
        {
            state.set_elsewhere(then, *total, now);
        }
    }

    /// Whether anything looks at what all have spent: a budget, or a price that falls with the month's volume.
    #[must_use]
    pub fn asks_spending(&self) -> bool {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        !rules.budgets.is_empty() || rules.prices.ask_volume()
    }

    /// Prices of other rules go on with what was used of those before them, else with what others said.
    pub(super) fn carry_volumes(&self, prices: &mut Prices) {
        let rules = Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner));
        recall_volumes(prices, &self.states.spent.lock().unwrap_or_else(PoisonError::into_inner));
        prices.keep_volumes(&rules.prices);
    }

    /// What rules about such calls have already, so that no advice names it: as far as the account of the window tells
    /// which calls these are.
    fn had(&self, incident: &NamedIncident) -> Vec<String> {
        let rules = Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner));
        let vendor = self.catalogue.vendors().iter().find(|vendor| *vendor.name == *incident.vendor);
        let endpoint = incident.endpoints.first().map_or("", |first| first.name.as_str());
        let mut subject = Subject { vendor: &incident.vendor, endpoint, ..Subject::default() };
        subject.method = endpoint.split_once(' ').map_or("", |(method, _)| method);
        subject.vendor_tags = vendor.map_or(&[], |vendor| &vendor.tags);
        // A condition on anything else may hold.
        let may = |matcher: &Matcher| {
            let unmet = matcher.unmet(&subject);
            !unmet.iter().any(|field| {
                matches!(field, Field::Vendor | Field::VendorTag | Field::Endpoint | Field::Method)
            })
        };
        let quotas = || rules.quotas.iter().filter(|rule| may(&rule.matcher)).map(|rule| &rule.then);
        let has = [
            ("limit", quotas().any(|rule| rule.limit.is_some())),
            ("fair", quotas().any(|rule| rule.fair)),
            ("pace", quotas().any(|rule| rule.limit.is_none() && rule.pace == quota::Pace::Smooth)),
            ("cache", rules.caches.iter().any(|rule| may(&rule.matcher))),
        ];
        has.iter().filter(|(_, has)| *has).map(|(word, _)| (*word).to_owned()).collect()
    }

    fn drain_incidents(&self, accounts: &[Arc<Account>], now: Timestamp, batch: &mut Batch) {
        let first = batch.incidents.len();
        self.states.noted_quotas.drain(&self.states.quotas, |note| {
            let before = batch.incidents.len();
            let told = (0..WINDOWS).map_while(|_| note.state.incident(&note.then, now));
            for incident in told {
                let named = incident.named(&note.of.vendor, "", &note.rule, &self.names);
                batch.incidents.push(NamedIncident { partition: note.of.partition.to_string(), ..named });
            }
            batch.incidents.len() > before
        });
        for account in accounts {
            let credential = crate::inspect::in_words(account.secret);
            for policy in account.stated() {
                let credential = if policy.is_of_vendor() { "" } else { &*credential };
                for incident in (0..WINDOWS).map_while(|_| policy.state.incident(&self.watch_rule, now)) {
                    let named = incident.named(&account.vendor, credential, &policy.name, &self.names);
                    batch.incidents.push(named.in_unit(policy.unit(), account.counts(policy)));
                }
            }
        }
        for incident in &mut batch.incidents[first..] {
            incident.has = self.had(incident);
        }
    }

    /// How the vendors' quotas stand that changed since the last drain.
    fn drain_standings(&self, mut accounts: Vec<Arc<Account>>, now: Timestamp, batch: &mut Batch) {
        if accounts.is_empty() {
            return;
        }
        // Those that come last of too many come first the next time.
        let first = self.states.told_standings.load(Ordering::Relaxed) % accounts.len();
        accounts.rotate_left(first);
        for (place, account) in accounts.iter().enumerate() {
            let room = MAX_STANDINGS - batch.quotas.len();
            if room == 0 {
                self.states.told_standings.store(first + place, Ordering::Relaxed);
                break;
            }
            batch.quotas.extend(account.changed(room, now));
        }
    }

    /// How the limits stand that rules state and that were used since the last drain.
    fn drain_limits(&self, now: Timestamp, batch: &mut Batch) {
        let first = self.states.told_limits.load(Ordering::Relaxed);
        let (mut place, mut room, mut next) = (0, MAX_STANDINGS, 0);
        self.states.noted_quotas.each(|note| {
            place += 1;
            if place <= first {
                return;
            }
            if room == 0 {
                // The next drain goes on with this one.
                next = if next == 0 { place - 1 } else { next };
                return;
            }
            let Some((mark, configured)) = note.state.glance_at_limit(&note.then, now) else { return };
            if std::mem::replace(&mut note.told, mark) == mark {
                return;
            }
            room -= 1;
            let Of { partition, vendor, one_vendor } = &note.of;
            let policy = match &**partition {
                "" => Arc::clone(&note.rule),
                partition => format!("{} ({partition})", note.rule).into(),
            };
            batch.quotas.push(NamedStanding {
                vendor: if *one_vendor { Arc::clone(vendor) } else { "".into() },
                credential: String::new(),
                of_vendor: false,
                policy,
                rule: Arc::clone(&note.rule),
                unit: configured.limit.unit.as_str(),
                countable: false,
                shared: note.state.is_shared(),
                at: now,
                standing: Standing::default(),
                configured: Some(configured),
            });
        });
        self.states.told_limits.store(next, Ordering::Relaxed);
    }

    pub(super) fn warn_of_budget(
        &self,
        rule: &Rule<budget::Rule>,
        partition: &str,
        percent: u8,
        now: Timestamp,
    ) {
        let limit = rule.then.limit;
        let of = if partition.is_empty() { String::new() } else { format!(" for {partition}") };
        self.notice(Notice {
            at: now,
            concept: "budget",
            rule: Arc::clone(&rule.name),
            what: format!("reached {percent}% of its limit of {limit}{of}"),
            urgent: true,
            // Each process finds out by itself, and means the same.
            same_since: Some(limit.period.start(limit.period.number(now))),
        });
    }

    /// Tells what a canary did, and the evidence of the step in which it did it.
    pub(super) fn note_rollout(&self, rule: &Arc<str>, change: Change, seen: &Evidence, now: Timestamp) {
        let (rule, urgent) = (Arc::clone(rule), matches!(change, Change::RolledBack { .. }));
        self.notice(Notice {
            at: now,
            concept: "rollout",
            rule,
            what: change.in_words(seen),
            urgent,
            same_since: None,
        });
    }

    pub(super) fn notice(&self, notice: Notice) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() < MAX_NOTICES {
            notices.push(notice);
        }
    }
}

fn recall_volumes(prices: &Prices, known: &Known) {
    for (name, volume) in prices.falling() {
        if let Some((month, total)) = known.get(&**name).and_then(|known| known.get("")) {
            volume.tell(*month, *total);
        }
    }
}

impl QuotaNames for Names {
    fn customer(&self, number: u32) -> String {
        self.name(number).to_string()
    }

    fn caller(&self, number: u32) -> String {
        self.name(number).to_string()
    }

    fn endpoint(&self, number: u32) -> String {
        self.name(number).to_string()
    }

    fn credential(&self, number: u32) -> String {
        self.name(number).to_string()
    }
}
