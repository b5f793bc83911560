//! What leaves the engine about once a second.

use super::Engine;
use super::names::Names;
use crate::ledger::{Batch, Notice, Spending};
use crate::quota::Names as QuotaNames;
use crate::rollout::Change;
use crate::units::Timestamp;
use std::sync::{Arc, PoisonError};

/// Notices that wait for one drain.
const MAX_NOTICES: usize = 256;

impl Engine {
    /// Takes all that was counted since the last drain. To be called about once a second, by one at a time:
    /// two at once lose nothing, but each gets a part.
    pub fn drain(&self, now: Timestamp) -> Batch {
        let mut batch = Batch::default();
        for number in 0..self.shards.len() {
            self.shards.drain(number, &self.catalogue, &mut batch);
        }
        self.drain_incidents(now, &mut batch);
        self.states.noted_budgets.each(|note| {
            let settled = note.state.settled();
            let status = note.state.status(&note.then, now);
            batch.budgets.push(Spending {
                budget: Arc::clone(&note.rule),
                partition: Arc::clone(&note.detail),
                period: note.then.limit.period.number(now),
                spent: settled.saturating_sub(note.told),
                used: status.used.saturating_add(status.elsewhere),
                limit: status.limit,
            });
            note.told = settled;
        });
        batch.notices = std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner));
        batch
    }

    /// Tells what all processes together have spent of a budget in its present period, this one included.
    pub fn tell_spending(&self, budget: &str, partition: &str, total: u64, now: Timestamp) {
        self.states.noted_budgets.each(|note| {
            if *note.rule == *budget && *note.detail == *partition {
                // What is not told yet is counted here only.
                let own = note.state.used_in_period(&note.then, now);
                note.state.set_elsewhere(&note.then, total.saturating_sub(own), now);
            }
        });
    }

    fn drain_incidents(&self, now: Timestamp, batch: &mut Batch) {
        self.states.noted_quotas.each(|note| {
            while let Some(incident) = note.state.incident(&note.then, now) {
                batch.incidents.push(incident.named(&note.detail, "", &note.rule, &self.names));
            }
        });
        for account in self.states.accounts.all() {
            let credential = crate::inspect::in_words(account.secret);
            for policy in account.stated() {
                while let Some(incident) = policy.state.incident(&self.watch_rule, now) {
                    batch.incidents.push(incident.named(
                        &account.vendor,
                        &credential,
                        &policy.name,
                        &self.names,
                    ));
                }
            }
        }
    }

    pub(super) fn warn_of_budget(&self, rule: &Arc<str>, percent: u8, now: Timestamp) {
        self.notice("budget", rule, format!("reached {percent}% of its limit"), now);
    }

    pub(super) fn note_rollout(&self, rule: &Arc<str>, change: Change, now: Timestamp) {
        let what = match change {
            Change::Promoted { share } => format!("went on to {share:?} of its calls"),
            Change::Finished { share } => format!("finished, at {share:?} of its calls"),
            Change::RolledBack { reason } => format!("was rolled back: {reason:?}"),
        };
        self.notice("rollout", rule, what, now);
    }

    fn notice(&self, concept: &'static str, rule: &Arc<str>, what: String, at: Timestamp) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() < MAX_NOTICES {
            notices.push(Notice { at, concept, rule: Arc::clone(rule), what });
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
