//! What the engines' ledgers say: costs, incidents, budgets.

use super::report::{BudgetUse, Sums};
use crate::Engine;
use crate::ledger::{self, Batch, Spending};
use crate::quota::{NamedIncident, explain};
use crate::units::Timestamp;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Explanations that a report shows.
const WORST: usize = 3;
/// Windows of a quota that engines may tell of at a time: the present one, the one before, and one that is late.
const MOST_WINDOWS: usize = 3;

/// The name of a budget, and what it is kept apart by.
type BudgetKey = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Account {
    customers: BTreeMap<String, usize>,
    budgets: BTreeMap<BudgetKey, Spent>,
    /// What was used of prices that fall with the month's volume, by price and month.
    volumes: BTreeMap<(Arc<str>, u64), u64>,
    /// Each quota, by the engine whose own it is.
    quotas: BTreeMap<(Option<usize>, [String; 4]), Quota>,
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

#[derive(Debug, Default)]
struct Quota {
    /// The last windows that somebody told of: engines that share a quota tell of one window one after the other.
    windows: VecDeque<Window>,
    /// The gravest incident of all windows.
    worst: NamedIncident,
}

/// A window in which a call was refused.
#[derive(Debug, Default)]
struct Window {
    /// What each engine tells of it.
    parts: BTreeMap<usize, NamedIncident>,
    /// It was counted: some part has a refusal.
    counted: bool,
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
        for incident in batch.incidents {
            let own = (!incident.shared).then_some(engine);
            let NamedIncident { vendor, credential, policy, partition, .. } = &incident;
            let quota = [vendor, credential, policy, partition].map(String::clone);
            self.incidents += u64::from(self.quotas.entry((own, quota)).or_default().take(engine, incident));
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
        let mut all: Vec<&NamedIncident> =
            self.quotas.values().map(|quota| &quota.worst).filter(|worst| worst.count > 0).collect();
        all.sort_by_key(|incident| Reverse(incident.count));
        all.truncate(WORST);
        all.into_iter().map(|incident| explain(incident).trim_end().to_owned()).collect()
    }
}

impl Quota {
    /// Adds what an engine tells of a window, and says whether that makes an incident. Without a refusal it is what the
    /// engine used of a window in which another one was refused.
    fn take(&mut self, engine: usize, incident: NamedIncident) -> bool {
        let known = self.windows.iter().position(|window| window.is_of(engine, &incident));
        let place = known.unwrap_or_else(|| {
            if self.windows.len() == MOST_WINDOWS {
                self.windows.pop_front();
            }
            self.windows.push_back(Window::default());
            self.windows.len() - 1
        });
        let window = &mut self.windows[place];
        window.parts.insert(engine, incident);
        let count: u64 = window.parts.values().map(|part| part.count).sum();
        if count > 0 && count >= self.worst.count {
            let parts: Vec<NamedIncident> = window.parts.values().cloned().collect();
            let all = if let [part] = &parts[..] { part.clone() } else { NamedIncident::sum(&parts) };
            if all.count >= self.worst.count {
                self.worst = all;
            }
        }
        count > 0 && !std::mem::replace(&mut window.counted, count > 0)
    }
}

impl Window {
    fn is_of(&self, engine: usize, incident: &NamedIncident) -> bool {
        self.parts.iter().all(|(teller, part)| match *teller == engine {
            true => part.began == incident.began,
            false => part.shares_window_with(incident),
        })
    }
}
