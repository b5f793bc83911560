//! A simulation: real engines, on a virtual clock, between customers and vendors that follow a script.
//!
//! Nothing of the engine is imitated: calls go through [`Engine::begin`](crate::Engine::begin),
//! [`Call::step`](crate::Call::step) and the rest as in any adapter, and obey what these answer. All chance comes
//! from a seed, so the same scenario gives the same report, to the last byte (on one platform: the logarithms are
//! those of its mathematical library). Customers, vendors and calls draw from dice of their own, so that before and
//! after differ by the change alone, not by luck.
//!
//! ```
//! use farcall::simulate::{Scenario, simulate};
//! use farcall::Config;
//!
//! let scenario = Scenario::parse("scenario.toml", r#"
//!     duration = "10m"
//!     [[vendor]]
//!     name = "github"
//!     limit = "60 requests / 1m"
//!     [[customer]]
//!     name = "acme"
//!     rate = "2 / s"
//!     calls = [{ vendor = "github", endpoint = "GET /user" }]
//! "#).unwrap();
//! let report = simulate(&scenario, &Config::default(), scenario.seed, &mut |_| ());
//! assert!(report.all.limited > 0, "twice what GitHub allows");
//! ```

mod account;
mod demand;
mod dice;
mod distribution;
mod flight;
mod home;
mod render;
mod report;
mod scenario;
mod vendor;
mod what_if;
mod world;

pub use distribution::Distribution;
pub use render::render;
pub use report::{BudgetUse, Figure, Report, Sums, Value, VendorUse};
pub use scenario::{
    Asked, Bursts, Cache, ClockJump, Customer, Form, Latency, Limit, Model, Outage, Scenario, Shows, Vendor,
};
pub use vendor::Seen;
pub use what_if::{Allowance, Change, CustomerChange, Unfit, VendorChange, WhatIf};

use crate::Config;
use crate::quota::Shared;
use crate::resilience::Limit as Places;
use what_if::times;

/// How far a simulation is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Which share of the time is over, 0 to 1.
    pub share: f64,
    /// Calls that were made and are over.
    pub calls: u64,
}

/// Runs a scenario under these rules; its `what_if` is left out of account ([`WhatIf::apply`] makes it so).
/// `progress` is told now and then how far it is, and once at the end.
#[must_use]
pub fn simulate(
    scenario: &Scenario,
    config: &Config,
    seed: u64,
    progress: &mut dyn FnMut(Progress),
) -> Report {
    world::World::new(scenario, &sampled(scenario, config), seed).run(progress)
}

/// The rules for a sample: of every limit and budget the same share as of the calls. What the simulation cannot
/// tell apart is made the same: the engines stand on one host, so a fleet is that host.
fn sampled(scenario: &Scenario, config: &Config) -> Config {
    let mut config = config.clone();
    let sample = scenario.sample;
    for rule in &mut config.quotas {
        let rule = &mut rule.then;
        if rule.shared == Shared::Fleet {
            rule.shared = Shared::Host;
        }
        if let Some(limit) = &mut rule.limit {
            limit.units = times(limit.units, sample);
        }
        let limit = rule.limit.map_or(u64::MAX, |limit| limit.units);
        rule.burst = rule.burst.map(|burst| times(burst, sample).min(limit));
        rule.concurrency = rule.concurrency.map(|most| times(most.into(), sample) as u32);
        if rule.fair {
            let weights = scenario
                .customers
                .iter()
                .filter_map(|customer| Some((customer.name.clone(), customer.weight?)));
            let weights: Vec<_> =
                weights.filter(|(name, _)| rule.weights.iter().all(|(known, _)| known != name)).collect();
            rule.weights.extend(weights);
        }
    }
    for rule in &mut config.budgets {
        rule.then.limit.amount = times(rule.then.limit.amount, sample);
    }
    for rule in &mut config.resilience {
        let Some(concurrency) = &mut rule.then.concurrency else { continue };
        let scaled = |most: u32| times(most.into(), sample) as u32;
        concurrency.limit = match concurrency.limit {
            Places::Fixed(most) => Places::Fixed(scaled(most)),
            Places::Adaptive { least, most } => Places::Adaptive { least: scaled(least), most: scaled(most) },
        };
    }
    config
}
