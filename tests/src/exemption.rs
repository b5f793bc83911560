//! `exemptions.toml`: the cells that may fail, each with its reason.

use serde::Deserialize;

use crate::behaviour::Behaviours;
use crate::run::Rules;
use crate::scenario::{AnyOf, Scenarios, load};

/// The cells that may fail.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exemptions {
    #[serde(default, rename = "exempt")]
    all: Vec<Exemption>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exemption {
    adapter: AnyOf<String>,
    #[serde(default = "none")]
    scenario: AnyOf<String>,
    #[serde(default = "none")]
    behaviour: AnyOf<String>,
    /// Only where rules are in force.
    #[serde(default)]
    with_rules: bool,
    reason: String,
}

const fn none() -> AnyOf<String> {
    AnyOf::Any(Vec::new())
}

impl Exemptions {
    /// Reads `exemptions.toml`, and checks that each names cells that exist.
    ///
    /// # Errors
    /// Says where the file is wrong, or which exemption names no cell.
    pub fn load(scenarios: &Scenarios, behaviours: &Behaviours, adapters: &[String]) -> Result<Self, String> {
        let exemptions: Self = load("exemptions.toml")?;
        for Exemption { adapter, scenario, behaviour, reason, .. } in &exemptions.all {
            let is_scenario = |name: &String| scenarios.all.iter().any(|s| s.name == *name);
            let is_behaviour = |name: &String| behaviours.all.iter().any(|b| b.name == *name);
            let rows = scenario.all().len() + behaviour.all().len();
            let known = adapter.all().iter().all(|name| adapters.contains(name))
                && scenario.all().iter().all(is_scenario)
                && behaviour.all().iter().all(is_behaviour);
            if !known || rows == 0 || adapter.all().is_empty() {
                return Err(format!("exemptions.toml: no cell is {scenario}{behaviour} x {adapter}"));
            }
            if reason.trim().is_empty() {
                return Err(format!("exemptions.toml: {scenario}{behaviour} x {adapter} has no reason"));
            }
        }
        Ok(exemptions)
    }

    /// Why this scenario may fail under these rules, where it may.
    #[must_use]
    pub fn of_scenario(&self, adapter: &str, scenario: &str, rules: Rules) -> Option<&str> {
        let (adapter, scenario) = (adapter.to_owned(), scenario.to_owned());
        self.find(|e| {
            e.adapter.contains(&adapter)
                && e.scenario.contains(&scenario)
                && (!e.with_rules || rules != Rules::None)
        })
    }

    /// Why this behaviour may fail, where it may.
    #[must_use]
    pub fn of_behaviour(&self, adapter: &str, behaviour: &str) -> Option<&str> {
        let (adapter, behaviour) = (adapter.to_owned(), behaviour.to_owned());
        self.find(|e| e.adapter.contains(&adapter) && e.behaviour.contains(&behaviour))
    }

    fn find(&self, of_cell: impl Fn(&Exemption) -> bool) -> Option<&str> {
        self.all.iter().find(|e| of_cell(e)).map(|e| e.reason.as_str())
    }
}
