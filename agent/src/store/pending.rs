//! What was counted and is not on disk yet. Bounded: when nothing can be written for long, detail goes first
//! (the customer), then counts, and what goes is counted.

use super::connection::{Confirmation, ConnectionRollup, Numbers};
use super::{incident, quotas};
use crate::tally::Tallies;
use farcall::advise::{CredentialUse, Observed, Sums as Advice};
use farcall::ledger::{Batch, Exemplar, Notice, OTHER, Rollup, Sketch, Sums, Warned};
use farcall::policy::Verdict;
use farcall::quota::{NamedIncident, NamedStanding};
use farcall::{Caller, Engine, Outcome, Tap};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Rows that are kept while nothing can be written, up to about a KiB each.
const MAX_ROWS: usize = 32_768;
/// Exemplars that one flush writes; of more, those that did not fail go first.
const MAX_EXEMPLARS: usize = 2_000;
const MAX_CONNECTIONS: usize = 16_384;
/// Incidents, and notices, that one flush writes.
const MAX_INCIDENTS: usize = 1_024;
/// Quotas whose standing waits for one flush.
const MAX_QUOTAS: usize = 8_192;
/// Budgets and customers whose spending waits for one flush.
const MAX_SPENDING: usize = 65_536;
/// Endpoints and minutes, and credentials and minutes, that wait while nothing can be written.
const MAX_ADVICE: usize = 8_192;

/// What the store adds up calls by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) minute: u64,
    pub(super) vendor: Arc<str>,
    pub(super) endpoint: Arc<str>,
    pub(super) customer: Arc<str>,
    pub(super) tags: Arc<str>,
    pub(super) caller: Arc<Caller>,
    pub(super) tap: Tap,
    pub(super) status: u16,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) sums: Sums,
    pub(super) latency: Sketch,
}

/// Minute, vendor, endpoint, rule of the policy and what it says.
pub(super) type WarnedOf = (u64, Arc<str>, Arc<str>, Arc<str>, Verdict);

/// Everything that waits for the next flush.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(super) rows: HashMap<Key, Row>,
    pub(super) exemplars: Vec<(Key, Exemplar)>,
    pub(super) connections: HashMap<ConnectionRollup, Numbers>,
    pub(super) confirmed: HashMap<Confirmation, u64>,
    /// By what makes two reports one: a later one replaces an earlier.
    pub(super) incidents: HashMap<String, NamedIncident>,
    pub(super) notices: Vec<Notice>,
    /// How quotas stand: a later word replaces an earlier.
    pub(super) quotas: HashMap<quotas::Key, NamedStanding>,
    /// By budget, partition and period.
    pub(super) spending: HashMap<(Arc<str>, Arc<str>, u64), u64>,
    /// By minute, vendor and endpoint.
    pub(super) advice: HashMap<(u64, Arc<str>, Arc<str>), Advice>,
    /// By minute, vendor and fingerprint.
    pub(super) credentials: HashMap<(u64, Arc<str>, String), u64>,
    pub(super) warned: HashMap<WarnedOf, u64>,
    seen: Seen,
    max_rows_per_minute: usize,
    hasher: RandomState,
    other: Arc<str>,
    none: Arc<str>,
}

impl Pending {
    pub(crate) fn new(max_rows_per_minute: usize) -> Self {
        Self {
            rows: HashMap::new(),
            exemplars: Vec::new(),
            connections: HashMap::new(),
            confirmed: HashMap::new(),
            incidents: HashMap::new(),
            notices: Vec::new(),
            quotas: HashMap::new(),
            spending: HashMap::new(),
            advice: HashMap::new(),
            credentials: HashMap::new(),
            warned: HashMap::new(),
            seen: Seen::default(),
            max_rows_per_minute,
            hasher: RandomState::new(),
            other: OTHER.into(),
            none: "".into(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.exemplars.is_empty()
            && self.connections.is_empty()
            && self.confirmed.is_empty()
            && self.incidents.is_empty()
            && self.notices.is_empty()
            && self.quotas.is_empty()
            && self.spending.is_empty()
            && self.advice.is_empty()
            && self.credentials.is_empty()
            && self.warned.is_empty()
    }

    /// How many rows wait.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() + self.connections.len() + self.confirmed.len() + self.incidents.len()
    }

    /// Adds what an engine drained.
    pub(crate) fn add(&mut self, batch: Batch, engine: &Engine, tallies: &Tallies) {
        let mut keys = Vec::with_capacity(batch.rows.len());
        for row in &batch.rows {
            let key = self.key(row, engine, tallies);
            if self.rows.len() < MAX_ROWS || self.rows.contains_key(&key) {
                let known = self.rows.entry(key.clone()).or_default();
                known.sums.add(&row.sums);
                known.latency.merge(&row.latency);
            } else {
                Tallies::add(&tallies.lost_calls, row.sums.calls);
            }
            keys.push(key);
        }
        for exemplar in batch.exemplars {
            if let Some(key) = keys.get(exemplar.row) {
                self.exemplars.push((key.clone(), exemplar));
            }
        }
        if self.exemplars.len() > MAX_EXEMPLARS {
            // The newest failures are worth most, then the newest of the others.
            let failed = |key: &Key| matches!(key.outcome, Outcome::Failed(_)) || key.status >= 400;
            self.exemplars.sort_by_key(|(key, exemplar)| {
                (std::cmp::Reverse(failed(key)), std::cmp::Reverse(exemplar.begun))
            });
            let left_out = self.exemplars.split_off(MAX_EXEMPLARS);
            let lost = left_out.iter().filter(|(key, _)| failed(key)).count();
            Tallies::add(&tallies.lost_exemplars, lost as u64);
        }
        self.add_events(batch.incidents, batch.notices, tallies);
        self.add_quotas(batch.quotas, tallies);
        let none: Arc<str> = Arc::from("");
        let volumes =
            batch.volumes.into_iter().map(|used| ((used.price, Arc::clone(&none), used.month), used.amount));
        let budgets = batch
            .budgets
            .into_iter()
            .map(|budget| ((budget.budget, budget.partition, budget.period), budget.spent));
        self.add_spending(budgets.chain(volumes), tallies);
        self.add_advice(batch.advice, batch.credentials, tallies);
        self.add_warned(batch.warned, tallies);
    }

    fn add_warned(&mut self, warned: Vec<Warned>, tallies: &Tallies) {
        for Warned { minute, vendor, endpoint, rule, verdict, calls, .. } in warned {
            let key = (minute, vendor, endpoint, rule, verdict);
            match self.warned.len() < MAX_ADVICE || self.warned.contains_key(&key) {
                true => *self.warned.entry(key).or_default() += calls,
                false => Tallies::add(&tallies.lost_advice, calls),
            }
        }
    }

    fn add_advice(&mut self, advice: Vec<Observed>, credentials: Vec<CredentialUse>, tallies: &Tallies) {
        for Observed { minute, vendor, endpoint, sums, .. } in advice {
            let key = (minute, vendor, endpoint);
            match self.advice.len() < MAX_ADVICE || self.advice.contains_key(&key) {
                true => self.advice.entry(key).or_default().add(&sums),
                false => Tallies::add(&tallies.lost_advice, sums.calls),
            }
        }
        for CredentialUse { minute, vendor, credential, calls, .. } in credentials {
            let key = (minute, vendor, credential);
            match self.credentials.len() < MAX_ADVICE || self.credentials.contains_key(&key) {
                true => *self.credentials.entry(key).or_default() += calls,
                false => Tallies::add(&tallies.lost_advice, calls),
            }
        }
    }

    fn add_events(&mut self, incidents: Vec<NamedIncident>, notices: Vec<Notice>, tallies: &Tallies) {
        for incident in incidents {
            let source = incident::source(&incident);
            if self.incidents.len() < MAX_INCIDENTS || self.incidents.contains_key(&source) {
                self.incidents.insert(source, incident);
            } else {
                Tallies::add(&tallies.lost_incidents, 1);
            }
        }
        let room = MAX_INCIDENTS.saturating_sub(self.notices.len()).min(notices.len());
        Tallies::add(&tallies.lost_incidents, (notices.len() - room) as u64);
        self.notices.extend(notices.into_iter().take(room));
    }

    /// What should be heard and cannot wait until it is written; it is not given twice.
    pub(crate) fn take_urgent(&mut self) -> Vec<Notice> {
        let urgent = self.notices.iter_mut().filter(|notice| notice.urgent);
        urgent.map(|notice| (notice.clone(), notice.urgent = false).0).collect()
    }

    fn add_quotas(&mut self, quotas: Vec<NamedStanding>, tallies: &Tallies) {
        for quota in quotas {
            let key = quotas::key(&quota);
            if self.quotas.len() < MAX_QUOTAS || self.quotas.contains_key(&key) {
                self.quotas.insert(key, quota);
            } else {
                Tallies::add(&tallies.lost_quotas, 1);
            }
        }
    }

    /// Adds what was spent of budgets and used of prices, each with its period.
    fn add_spending(
        &mut self,
        spent: impl Iterator<Item = ((Arc<str>, Arc<str>, u64), u64)>,
        tallies: &Tallies,
    ) {
        for (key, spent) in spent.filter(|(_, spent)| *spent > 0) {
            if self.spending.len() < MAX_SPENDING || self.spending.contains_key(&key) {
                let sum = self.spending.entry(key).or_default();
                *sum = sum.saturating_add(spent);
            } else {
                Tallies::add(&tallies.lost_spending, 1);
            }
        }
    }

    /// Adds connections.
    pub(crate) fn add_connections(&mut self, connections: Vec<ConnectionRollup>, lost: &AtomicU64) {
        for mut connection in connections {
            let numbers = connection.take_numbers();
            if self.connections.len() < MAX_CONNECTIONS || self.connections.contains_key(&connection) {
                self.connections.entry(connection).or_default().add(&numbers);
            } else {
                Tallies::add(lost, numbers.connections);
            }
        }
    }

    /// Adds confirmations.
    pub(crate) fn add_confirmed(&mut self, confirmed: Vec<Confirmation>, lost: &AtomicU64) {
        for mut confirmation in confirmed {
            let calls = std::mem::take(&mut confirmation.calls);
            if self.confirmed.len() < MAX_CONNECTIONS || self.confirmed.contains_key(&confirmation) {
                *self.confirmed.entry(confirmation).or_default() += calls;
            } else {
                Tallies::add(lost, calls);
            }
        }
    }

    /// Forgets what was written; what each minute had already stays known.
    pub(crate) fn written(&mut self) {
        let Self {
            rows,
            exemplars,
            connections,
            confirmed,
            incidents,
            notices,
            quotas,
            spending,
            advice,
            credentials,
            warned,
            ..
        } = self;
        rows.clear();
        exemplars.clear();
        connections.clear();
        confirmed.clear();
        incidents.clear();
        notices.clear();
        quotas.clear();
        spending.clear();
        advice.clear();
        credentials.clear();
        warned.clear();
        // After a flood, give its memory back.
        rows.shrink_to(1_024);
        exemplars.shrink_to(256);
    }

    fn key(&mut self, row: &Rollup, engine: &Engine, tallies: &Tallies) -> Key {
        let caller = engine.caller(row.caller).or_else(|| engine.caller(farcall::CallerId::SELF));
        let mut key = Key {
            minute: row.minute,
            vendor: Arc::clone(&row.vendor),
            endpoint: Arc::clone(&row.endpoint),
            customer: Arc::clone(&row.customer),
            tags: Arc::clone(&row.tags),
            caller: caller.unwrap_or_default(),
            tap: row.tap,
            status: row.status,
            outcome: row.outcome,
        };
        let room = self.has_room(&key) && self.rows.len() < MAX_ROWS / 2;
        if !room && !self.rows.contains_key(&key) {
            Tallies::add(&tallies.folded_rows, row.sums.calls);
            key.customer = Arc::clone(&self.other);
            key.tags = Arc::clone(&self.none);
        }
        key
    }

    /// Whether the key's minute has it already, or has room for it.
    fn has_room(&mut self, key: &Key) -> bool {
        let seen = self.seen.of(key.minute);
        let hash = self.hasher.hash_one(key);
        seen.contains(&hash) || seen.len() < self.max_rows_per_minute && seen.insert(hash)
    }
}

/// Hashes of the rows that this process has: those of the last two minutes, and those of all minutes before in one
/// set. A minute that comes late (a bundle of an adapter's, a clock that was set back) must neither get a whole
/// minute's room each time, nor take that of the minutes that are full of life.
#[derive(Debug, Default)]
struct Seen {
    minutes: [(u64, HashSet<u64>); 2],
    before: HashSet<u64>,
}

impl Seen {
    fn of(&mut self, minute: u64) -> &mut HashSet<u64> {
        let place = self.minutes.iter().position(|(known, _)| *known == minute);
        let older = usize::from(self.minutes[1].0 < self.minutes[0].0);
        match place {
            Some(place) => &mut self.minutes[place].1,
            // Later than either of the two, or than one, where the other is of a clock that ran ahead.
            None if minute > self.minutes[older].0 => {
                self.minutes[older] = (minute, HashSet::new());
                self.before = HashSet::new();
                &mut self.minutes[older].1
            }
            None => &mut self.before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farcall::{Config, Head, Timestamp};
    use std::sync::atomic::Ordering;

    fn add(pending: &mut Pending, tallies: &Tallies, minute: u64, customers: std::ops::Range<u32>) {
        let engine = Engine::new(Config::default(), Caller::new("checkout"), 1, 1);
        let time = Timestamp::from_nanos(minute * 60_000_000_000);
        for customer in customers {
            let name = format!("c{customer}");
            let head = Head::new("GET", "https://api.stripe.com/v1/balance").customer(Some(&name));
            let mut call = engine.begin(&head, time, customer.into());
            let _ = call.step(&engine, time);
            call.head(200, time);
            call.end(&engine, time);
        }
        pending.add(engine.drain(time), &engine, tallies);
    }

    fn calls(pending: &Pending) -> u64 {
        pending.rows.values().map(|row| row.sums.calls).sum()
    }

    #[test]
    fn what_cannot_be_written_stays_bounded_and_no_call_goes_uncounted() {
        let (mut pending, tallies) = (Pending::new(20_000), Tallies::default());
        // Half an hour of nothing but new customers, and nowhere to write them.
        for minute in 0..30 {
            add(&mut pending, &tallies, minute, minute as u32 * 3_000..(minute as u32 + 1) * 3_000);
        }
        assert!(pending.rows.len() <= MAX_ROWS, "{}", pending.rows.len());
        assert!(pending.exemplars.len() <= MAX_EXEMPLARS);
        assert_eq!(calls(&pending) + tallies.lost_calls.load(Ordering::Relaxed), 90_000);
        assert_eq!(tallies.lost_calls.load(Ordering::Relaxed), 0, "detail goes before counts");
        assert!(tallies.folded_rows.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn spending_beyond_the_bound_is_counted_as_lost() {
        let (mut pending, tallies) = (Pending::new(100), Tallies::default());
        let rules = "[[budget]]\nname = \"all\"\nmatch = {}\nlimit = \"5 requests / day\"\n";
        let engine = Engine::new(Config::parse("f", rules).unwrap(), Caller::new("checkout"), 1, 1);
        let mut call =
            engine.begin(&Head::new("GET", "https://api.stripe.com/v1/balance"), Timestamp::EPOCH, 1);
        let _ = call.step(&engine, Timestamp::EPOCH);
        call.head(200, Timestamp::EPOCH);
        call.end(&engine, Timestamp::EPOCH);
        let spent =
            engine.drain(Timestamp::EPOCH).budgets.into_iter().find(|budget| budget.spent > 0).unwrap();
        let periods = 0..MAX_SPENDING as u64 + 3;
        let all = periods
            .map(|period| ((Arc::clone(&spent.budget), Arc::clone(&spent.partition), period), spent.spent));
        pending.add_spending(all, &tallies);
        assert_eq!(
            (pending.spending.len(), tallies.lost_spending.load(Ordering::Relaxed)),
            (MAX_SPENDING, 3)
        );
    }

    #[test]
    fn the_detail_of_a_minute_is_bounded_over_all_its_flushes() {
        let (mut pending, tallies) = (Pending::new(100), Tallies::default());
        for flush in 0..5 {
            add(&mut pending, &tallies, 7, flush * 60..(flush + 1) * 60);
            if flush < 4 {
                pending.written();
            }
        }
        assert_eq!(pending.rows.len(), 1, "all of them `other`");
        assert_eq!(tallies.folded_rows.load(Ordering::Relaxed), 200);
        // What the minute had already goes on under its own name.
        add(&mut pending, &tallies, 7, 0..60);
        assert_eq!(pending.rows.len(), 61);
        // The next minute has room again.
        add(&mut pending, &tallies, 8, 0..100);
        assert_eq!(pending.rows.len(), 161);
    }

    #[test]
    fn a_minute_that_comes_late_takes_no_room_from_others_and_gets_none_anew() {
        let (mut pending, tallies) = (Pending::new(100), Tallies::default());
        for minute in [100, 101] {
            add(&mut pending, &tallies, minute, 0..100);
        }
        let rows = |pending: &Pending, minute| pending.rows.keys().filter(|key| key.minute == minute).count();
        // Minutes of long ago, again and again, each time with customers that nobody knows.
        for round in 1..=5 {
            for minute in [10, 11, 12, 100, 101] {
                add(&mut pending, &tallies, minute, round * 1_000..round * 1_000 + 60);
            }
        }
        // `other` is one row more.
        assert_eq!((rows(&pending, 100), rows(&pending, 101)), (101, 101));
        let late: usize = [10, 11, 12].into_iter().map(|minute| rows(&pending, minute)).sum();
        assert!((100..=103).contains(&late), "{late}");
        assert_eq!(calls(&pending), 200 + 5 * 5 * 60);
        // The minute that was the last but one still goes on under the names that it had.
        let folded = tallies.folded_rows.load(Ordering::Relaxed);
        add(&mut pending, &tallies, 100, 0..100);
        assert_eq!(tallies.folded_rows.load(Ordering::Relaxed), folded);
    }

    #[test]
    fn a_clock_that_ran_ahead_leaves_room_for_the_minutes_after_it_was_set_right() {
        let (mut pending, tallies) = (Pending::new(100), Tallies::default());
        for minute in [100, 1_000_000, 101, 102, 103] {
            add(&mut pending, &tallies, minute, 0..100);
        }
        assert_eq!((pending.rows.len(), tallies.folded_rows.into_inner()), (500, 0));
    }

    #[test]
    fn confirmations_that_find_no_room_are_counted() {
        let mut pending = Pending::new(100);
        let lost = AtomicU64::new(0);
        let many = MAX_CONNECTIONS as u64 + 10;
        let of = |minute| Confirmation { minute, calls: 2, ..Confirmation::default() };
        pending.add_confirmed((0..many).map(of).collect(), &lost);
        // What has a row already always finds room.
        pending.add_confirmed(vec![of(0)], &lost);
        assert_eq!(pending.confirmed.len(), MAX_CONNECTIONS);
        assert_eq!(lost.into_inner(), 20);
        assert_eq!(pending.confirmed.values().sum::<u64>(), (many - 10 + 1) * 2);
    }

    #[test]
    fn connections_of_one_kind_are_added_up() {
        let mut pending = Pending::new(100);
        let lost = AtomicU64::new(0);
        let connection = |port, bytes_out| ConnectionRollup {
            port,
            bytes_out,
            connections: 1,
            ..ConnectionRollup::default()
        };
        pending.add_connections(vec![connection(443, 5), connection(443, 7), connection(80, 1)], &lost);
        assert_eq!(pending.connections.len(), 2);
        let numbers = pending.connections[&ConnectionRollup { port: 443, ..ConnectionRollup::default() }];
        assert_eq!((numbers.connections, numbers.bytes_out), (2, 12));
        for port in 0..u16::MAX {
            pending.add_connections(vec![connection(port, 1)], &lost);
        }
        assert_eq!(pending.connections.len(), MAX_CONNECTIONS);
        assert_eq!(
            pending.connections.values().map(|numbers| numbers.connections).sum::<u64>() + lost.into_inner(),
            3 + 65_535
        );
    }
}
