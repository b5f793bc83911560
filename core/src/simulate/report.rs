//! What came of a simulation, as figures with names: one source for tables, for JSON and for tests.

use super::Distribution;
use super::vendor::Seen;
use crate::call::RefusedBy;
use std::time::Duration;

/// What happened to calls.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Sums {
    /// Calls that the application made.
    pub calls: u64,
    /// Those that a vendor (or a cache) answered as asked: no 429, no 5xx.
    pub answered: u64,
    /// Those that were answered without the vendor.
    pub cached: u64,
    /// Those that ended with a 429.
    pub limited: u64,
    /// Those that ended with a 5xx, an error, or at their deadline.
    pub failed: u64,
    /// Those that rules refused, by concept, in the order of [`RefusedBy::ALL`].
    pub refused: [u64; RefusedBy::ALL.len()],
    /// Exchanges on the wire.
    pub attempts: u64,
    /// Second attempts that the engine made, hedges included.
    pub retries: u64,
    /// Second calls that SDKs above the engine made.
    pub sdk_retries: u64,
    /// Calls that a rule made wait before their first attempt.
    pub waited: u64,
    /// How long those waited.
    pub waits: Distribution,
    /// From begin to answer, of the answered calls.
    pub latency: Distribution,
    /// What they cost, in nano-units of USD, as far as known.
    pub cost: i64,
    /// Those whose cost is unknown, as the ledger has it.
    pub cost_unknown: u64,
    /// Calls in the ledger; SDK retries are calls of their own there unless the engine recognised them.
    pub in_ledger: u64,
}

impl Sums {
    /// Calls that rules refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Calls that this concept refused.
    #[must_use]
    pub fn refused_by(&self, by: RefusedBy) -> u64 {
        RefusedBy::ALL
            .iter()
            .zip(self.refused)
            .filter(|(known, _)| **known == by)
            .map(|(_, count)| count)
            .sum()
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.answered += other.answered;
        self.cached += other.cached;
        self.limited += other.limited;
        self.failed += other.failed;
        self.refused.iter_mut().zip(other.refused).for_each(|(mine, more)| *mine += more);
        self.attempts += other.attempts;
        self.retries += other.retries;
        self.sdk_retries += other.sdk_retries;
        self.waited += other.waited;
        self.waits.merge(&other.waits);
        self.latency.merge(&other.latency);
        self.cost += other.cost;
        self.cost_unknown += other.cost_unknown;
        self.in_ledger += other.in_ledger;
    }
}

/// What a vendor saw and what of its limit was used.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct VendorUse {
    /// Its name.
    pub name: String,
    /// What it saw.
    pub seen: Seen,
    /// What it allowed over the whole time, to all credentials that were used; `None` without a limit.
    pub allowed: Option<u64>,
    /// What of it was used.
    pub used: u64,
}

/// How a budget was used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BudgetUse {
    /// The rule's name.
    pub name: String,
    /// What it is kept apart by, as `customer=acme`.
    pub partition: String,
    /// The limit, in the budget's unit (nano-units for money).
    pub limit: u64,
    /// The most that was spent in one period.
    pub most: u64,
    /// The periods in which something was spent.
    pub periods: u64,
}

/// What came of one run.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The share of calls that was simulated. All counts here are those of the sample;
    /// [`figures`](Report::figures) scales them up.
    pub sample: f64,
    /// Everything.
    pub all: Sums,
    /// By customer, in the scenario's order.
    pub customers: Vec<(String, Sums)>,
    /// By vendor, in the scenario's order.
    pub vendors: Vec<VendorUse>,
    /// By budget and what it is kept apart by.
    pub budgets: Vec<BudgetUse>,
    /// Incidents: windows of a quota in which a vendor or a rule refused.
    pub incidents: u64,
    /// The gravest of them, explained.
    pub worst: Vec<String>,
    /// The most calls under way at a time.
    pub under_way: u64,
    /// What the engines could not do as asked, where not zero.
    pub counters: Vec<(&'static str, u64)>,
}

/// One figure of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is about: `all`, `customer acme`, `vendor github`, `budget llm`.
    pub about: String,
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
}

/// The value of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// So many.
    Count(u64),
    /// A part of a whole; 1 is all of it.
    Share(f64),
    /// So long; `None` where there was nothing to measure.
    Time(Option<Duration>),
    /// USD, in nano-units.
    Money(i64),
}

impl Report {
    /// All figures, scaled up to the whole where a sample was simulated.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        let mut add = |about: &str, name, value| figures.push(Figure { about: about.into(), name, value });
        let scale = |count: u64| Value::Count((count as f64 / self.sample).round() as u64);
        let money = |nanos: i64| Value::Money((nanos as f64 / self.sample).round() as i64);

        let sums = |add: &mut dyn FnMut(&str, &'static str, Value), about: &str, sums: &Sums, whole: bool| {
            add(about, "calls", scale(sums.calls));
            add(about, "answered", scale(sums.answered));
            if sums.cached > 0 || whole {
                add(about, "from cache", scale(sums.cached));
            }
            add(about, "limited (429)", scale(sums.limited));
            add(about, "failed", scale(sums.failed));
            add(about, "refused", scale(sums.refused()));
            for (by, count) in
                RefusedBy::ALL.iter().zip(sums.refused).filter(|(_, count)| *count > 0 && whole)
            {
                add(about, by.outcome(), scale(count));
            }
            add(about, "waited", scale(sums.waited));
            add(about, "wait p50", Value::Time(sums.waits.quantile(0.5)));
            add(about, "wait p99", Value::Time(sums.waits.quantile(0.99)));
            if whole {
                add(about, "attempts", scale(sums.attempts));
            }
            add(about, "retries", scale(sums.retries));
            if whole {
                add(about, "sdk retries", scale(sums.sdk_retries));
            }
            add(about, "latency p50", Value::Time(sums.latency.quantile(0.5)));
            add(about, "latency p99", Value::Time(sums.latency.quantile(0.99)));
            // Unknown is never 0.
            if sums.cost != 0 || sums.cost_unknown == 0 {
                add(about, "cost", money(sums.cost));
            }
            if whole {
                add(about, "cost unknown", scale(sums.cost_unknown));
            }
        };
        sums(&mut add, "all", &self.all, true);
        add("all", "incidents", Value::Count(self.incidents));
        add("all", "under way at once", scale(self.under_way));
        for vendor in &self.vendors {
            let about = format!("vendor {}", vendor.name);
            add(&about, "exchanges", scale(vendor.seen.exchanges));
            add(&about, "limited (429)", scale(vendor.seen.limited));
            add(&about, "failed", scale(vendor.seen.failed));
            add(&about, "during outages", scale(vendor.seen.in_outages));
            add(&about, "busiest minute", scale(vendor.seen.busiest_minute));
            if let Some(allowed) = vendor.allowed {
                add(&about, "quota used", Value::Share(vendor.used as f64 / allowed.max(1) as f64));
                add(&about, "busiest window", scale(vendor.seen.busiest_window));
            }
        }
        for budget in &self.budgets {
            let kept = if budget.partition.is_empty() { "" } else { " " };
            let about = format!("budget {}{kept}{}", budget.name, budget.partition);
            add(
                &about,
                "most of it in a period",
                Value::Share(budget.most as f64 / budget.limit.max(1) as f64),
            );
        }
        for (name, of_customer) in &self.customers {
            sums(&mut add, &format!("customer {name}"), of_customer, false);
        }
        for (name, count) in &self.counters {
            add("engine", name, Value::Count(*count));
        }
        figures
    }
}
