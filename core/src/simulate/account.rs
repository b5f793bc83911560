//! What the engines' ledgers say: costs, incidents, budgets.

use super::report::{BudgetUse, Sums};
use crate::Engine;
use crate::ledger::{self, Batch, Spending};
use crate::quota::{NamedIncident, explain};
use crate::units::Timestamp;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Explanations that a report shows.
const WORST: usize = 3;

/// The name of a budget, and what it is kept apart by.
type BudgetKey = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Account {
    customers: BTreeMap<String, usize>,
    budgets: BTreeMap<BudgetKey, Spent>,
    /// What was used of prices that fall with the month's volume, by price and month.
    volumes: BTreeMap<(Arc<str>, u64), u64>,
    /// The last window of each quota of each engine, and the gravest incident of it.
    quotas: BTreeMap<(usize, String, String, String), Quota>,
    pub(super) incidents: u64,
}

#[derive(Debug, Default)]
struct Spent {
    period: u64,
    total: u64,
    limit: u64,
    most: u64,
    periods: u64,
}

#[derive(Debug)]
struct Quota {
    began: Timestamp,
    worst: NamedIncident,
}

impl Account {
    pub(super) fn new<'n>(customers: impl Iterator<Item = &'n str>) -> Self {
        Self {
            customers: customers.enumerate().map(|(place, name)| (name.to_owned(), place)).collect(),
            ..Self::default()
        }
    }

    /// Adds what an engine counted since the last time.
    pub(super) fn take(&mut self, engine: usize, batch: Batch, sums: &mut [Sums]) {
        for row in &batch.rows {
            if let Some(sums) =
                self.customers.get(row.customer.as_ref()).and_then(|place| sums.get_mut(*place))
            {
                sums.cost = sums.cost.saturating_add(row.sums.cost);
                sums.cost_unknown += row.sums.cost_unknown;
                sums.in_ledger += row.sums.calls;
            }
        }
        // What an engine used of a window in which another one was refused is no incident of its own.
        for incident in batch.incidents.into_iter().filter(|incident| incident.count > 0) {
            let key = (engine, incident.vendor.clone(), incident.policy.clone(), incident.credential.clone());
            match self.quotas.get_mut(&key) {
                None => {
                    self.incidents += 1;
                    self.quotas.insert(key, Quota { began: incident.began, worst: incident });
                }
                Some(quota) => {
                    self.incidents += u64::from(quota.began != incident.began);
                    quota.began = incident.began;
                    if incident.count >= quota.worst.count {
                        quota.worst = incident;
                    }
                }
            }
        }
        for spending in batch.budgets {
            self.spend(spending);
        }
        for used in batch.volumes {
            let sum = self.volumes.entry((used.price, used.month)).or_default();
            *sum = sum.saturating_add(used.amount);
        }
    }

    fn spend(&mut self, spending: Spending) {
        let spent = self.budgets.entry((spending.budget, spending.partition)).or_default();
        spent.limit = spending.limit;
        if spending.period > spent.period {
            (spent.period, spent.total) = (spending.period, 0);
        }
        spent.periods += u64::from(spent.total == 0 && spending.spent > 0);
        spent.total = spent.total.saturating_add(spending.spent);
        spent.most = spent.most.max(spent.total);
    }

    /// Tells engines what all of them have spent, as the agent does.
    pub(super) fn tell(&self, engine: &Engine, now: Timestamp) {
        let totals = self.budgets.iter().map(|((budget, partition), spent)| {
            ledger::Spent::new(budget.to_string(), partition.to_string(), spent.period, spent.total)
        });
        let volumes = self.volumes.iter().map(|((price, month), used)| {
            ledger::Spent::new(price.to_string(), String::new(), *month, *used)
        });
        engine.tell_spending(totals.chain(volumes), now);
    }

    /// Whether an engine looks at what the others have spent.
    pub(super) fn asks_spending(&self) -> bool {
        !(self.budgets.is_empty() && self.volumes.is_empty())
    }

    pub(super) fn budgets(&self) -> Vec<BudgetUse> {
        self.budgets
            .iter()
            .map(|((name, partition), spent)| BudgetUse {
                name: name.to_string(),
                partition: partition.to_string(),
                limit: spent.limit,
                most: spent.most,
                periods: spent.periods,
            })
            .collect()
    }

    /// The gravest incidents, explained.
    pub(super) fn worst(&self) -> Vec<String> {
        let mut all: Vec<&NamedIncident> = self.quotas.values().map(|quota| &quota.worst).collect();
        all.sort_by_key(|incident| Reverse(incident.count));
        all.truncate(WORST);
        all.into_iter().map(|incident| explain(incident).trim_end().to_owned()).collect()
    }
}
