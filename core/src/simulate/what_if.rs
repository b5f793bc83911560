//! `[what_if]`: a change to the scenario or to the rules, so that before and after stand side by side.

use super::scenario::{Cache, Form, Scenario};
use crate::Config;
use crate::call::Priority;
use std::time::Duration;
use thiserror::Error;

/// What changes.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct WhatIf {
    /// `engines`.
    pub engines: Option<usize>,
    /// `customer.NAME.rate`, `.priority`.
    pub customers: Vec<(String, CustomerChange)>,
    /// `vendor.NAME.limit`, `.errors`, `.latency`, `.capacity`.
    pub vendors: Vec<(String, VendorChange)>,
    /// `quota.NAME.limit`; without a name of every `[[quota]]` that has a limit.
    pub quotas: Vec<(Option<String>, Change<Allowance>)>,
    /// `cache`.
    pub caches: Vec<Cache>,
}

/// So many units in a period.
pub type Allowance = (u64, Duration);

/// Another value, or a multiple of the present one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change<T> {
    /// `"x3"`.
    Times(f64),
    /// This.
    To(T),
}

/// What changes about a customer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CustomerChange {
    /// `rate`.
    pub rate: Option<Change<f64>>,
    /// `priority`.
    pub priority: Option<Priority>,
}

/// What changes about a vendor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct VendorChange {
    /// `limit`.
    pub limit: Option<Change<Allowance>>,
    /// `errors`.
    pub errors: Option<f64>,
    /// `latency`, as a multiple.
    pub latency: Option<f64>,
    /// `capacity`.
    pub capacity: Option<usize>,
}

/// A scenario and a configuration do not fit together.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unfit {
    /// `[what_if]` names a rule that is not there.
    #[error(
        "[what_if] changes the quota `{name}`, but no [[quota]] with a limit has this name; there are: {known}"
    )]
    NoSuchQuota {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// `[what_if]` changes a limit that is not there.
    #[error(
        "[what_if] multiplies the limit of the vendor `{name}`, which has none; write it as in \"100 requests / 1s\""
    )]
    NoLimit {
        /// The vendor.
        name: String,
    },
}

impl WhatIf {
    /// The scenario and the configuration with the change made.
    ///
    /// # Errors
    /// Where the change is of something that is not there.
    pub fn apply(&self, scenario: &Scenario, config: &Config) -> Result<(Scenario, Config), Unfit> {
        let (mut scenario, mut config) = (scenario.clone(), config.clone());
        scenario.what_if = None;
        scenario.engines = self.engines.unwrap_or(scenario.engines);
        scenario.caches.extend(self.caches.iter().cloned());
        for (name, change) in &self.customers {
            for customer in scenario.customers.iter_mut().filter(|customer| customer.name == *name) {
                customer.priority = change.priority.unwrap_or(customer.priority);
                match change.rate {
                    Some(Change::Times(factor)) => customer.rate *= factor,
                    Some(Change::To(rate)) => customer.rate = rate,
                    None => {}
                }
            }
        }
        for (name, change) in &self.vendors {
            for vendor in scenario.vendors.iter_mut().filter(|vendor| vendor.name == *name) {
                vendor.errors = change.errors.unwrap_or(vendor.errors);
                vendor.capacity = change.capacity.or(vendor.capacity);
                if let Some(factor) = change.latency {
                    vendor.latency.p50 = vendor.latency.p50.mul_f64(factor);
                    vendor.latency.p99 = vendor.latency.p99.mul_f64(factor);
                }
                let Some(limit) = change.limit else { continue };
                let known = vendor.limit.as_ref();
                let (units, period) = match (limit, known) {
                    (Change::Times(factor), Some(known)) => (times(known.units, factor), known.period),
                    (Change::Times(_), None) => return Err(Unfit::NoLimit { name: name.clone() }),
                    (Change::To(to), _) => to,
                };
                vendor.limit = Some(super::Limit {
                    units,
                    period,
                    form: known.map_or(Form::Window, |known| known.form),
                    burst: known
                        .filter(|known| known.burst != known.units)
                        .map_or(units, |known| known.burst),
                    states: known.is_none_or(|known| known.states),
                    retry_after: known.is_none_or(|known| known.retry_after),
                });
            }
        }
        for (name, change) in &self.quotas {
            let mut found = false;
            for rule in &mut config.quotas {
                let Some(limit) = &mut rule.then.limit else { continue };
                if name.as_ref().is_some_and(|name| **name != *rule.name) {
                    continue;
                }
                found = true;
                match change {
                    Change::Times(factor) => limit.units = times(limit.units, *factor),
                    Change::To((units, period)) => (limit.units, limit.period) = (*units, *period),
                }
                rule.then.burst = rule.then.burst.map(|burst| burst.min(limit.units));
            }
            if !found {
                let known = config.quotas.iter().filter(|rule| rule.then.limit.is_some());
                let known: Vec<&str> = known.map(|rule| rule.name.as_ref()).collect();
                return Err(Unfit::NoSuchQuota {
                    name: name.clone().unwrap_or_else(|| "(any)".into()),
                    known: if known.is_empty() { "none".into() } else { known.join(", ") },
                });
            }
        }
        Ok((scenario, config))
    }
}

/// A multiple of a limit, at least 1.
pub(super) fn times(units: u64, factor: f64) -> u64 {
    ((units as f64 * factor).round() as u64).max(1)
}
