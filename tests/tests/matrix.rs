//! The matrices scenario x adapter and behaviour x adapter.
//!
//! `FARCALL_MATRIX_ADAPTERS=fetch,http`, `FARCALL_MATRIX_SCENARIOS=gzip,sse` and `FARCALL_MATRIX_BEHAVIOURS=retry`
//! run a part of them.

use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use farcall_scenarios::{
    Adapter, Adapters, Behaviours, Cell, Exemptions, Grid, Rules, Runtime, Scenarios, behave, run,
};

#[test]
fn every_adapter_counts_every_scenario_as_the_vendor_did() {
    play(Rules::None);
}

#[test]
fn rules_that_forbid_nothing_change_nothing() {
    play(Rules::Harmless);
}

#[test]
fn rules_act_alike_in_every_adapter() {
    let lists = Lists::load();
    let rows: Vec<String> = lists.behaviours.all.iter().map(|b| b.name.clone()).collect();
    let wanted = wanted("FARCALL_MATRIX_BEHAVIOURS", &rows);
    let played: Vec<_> = lists.behaviours.all.iter().filter(|b| wanted.contains(&b.name)).collect();
    let reason = |adapter: &Adapter, name: &str| lists.exemptions.of_behaviour(&adapter.name, name);
    // Their time is spent waiting, for a deadline, a turn or a breaker.
    lists.fill("behaviours", 4, |adapter, runtime| {
        let cells = behave(adapter, runtime, &played, |name| reason(adapter, name).is_some());
        cells.into_iter().map(|(name, cell)| exempted(reason(adapter, &name), name, cell)).collect()
    });
}

fn play(rules: Rules) {
    let lists = Lists::load();
    let rows: Vec<String> = lists.scenarios.all.iter().map(|s| s.name.clone()).collect();
    let wanted = wanted("FARCALL_MATRIX_SCENARIOS", &rows);
    let played: Vec<_> = lists.scenarios.all.iter().filter(|s| wanted.contains(&s.name)).collect();
    // Each mostly waits, for a timeout or for the other side.
    lists.fill(&format!("scenarios with rules {rules:?}"), 2, |adapter, runtime| {
        let reason = |name: &str| lists.exemptions.of_scenario(&adapter.name, name, rules);
        let cells = run(adapter, runtime, &played, rules);
        cells.into_iter().map(|(name, cell)| exempted(reason(&name), name, cell)).collect()
    });
}

fn exempted(reason: Option<&str>, name: String, cell: Cell) -> (String, Cell) {
    (name, reason.map_or(cell.clone(), |reason| cell.exempt(reason)))
}

/// What all matrices are made of.
struct Lists {
    scenarios: Scenarios,
    behaviours: Behaviours,
    adapters: Adapters,
    exemptions: Exemptions,
}

impl Lists {
    fn load() -> Self {
        let scenarios = Scenarios::load().expect("the list of scenarios");
        let behaviours = Behaviours::load().expect("the list of behaviours");
        let adapters = Adapters::load().expect("the list of adapters");
        let names: Vec<String> = adapters.all.iter().map(|a| a.name.clone()).collect();
        let exemptions = Exemptions::load(&scenarios, &behaviours, &names).expect("the exemptions");
        Self { scenarios, behaviours, adapters, exemptions }
    }

    /// Fills a matrix, `at_once` columns at the same time, prints it, and fails where it has holes.
    fn fill(
        &self,
        what: &str,
        at_once: usize,
        column: impl Fn(&Adapter, &Runtime) -> Vec<(String, Cell)> + Sync,
    ) {
        // One matrix after the other: the machine is busy enough with one.
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<String> = self.adapters.all.iter().map(|a| a.name.clone()).collect();
        let wanted = wanted("FARCALL_MATRIX_ADAPTERS", &names);
        let chosen: Vec<_> = self.adapters.all.iter().filter(|a| wanted.contains(&a.name)).collect();
        let mut runtimes: BTreeMap<&str, Runtime> = BTreeMap::new();
        for adapter in &chosen {
            runtimes.entry(&adapter.shim).or_insert_with(|| self.adapters.prepare(&adapter.shim));
        }

        let begun = Instant::now();
        let next = AtomicUsize::new(0);
        let columns = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while let Some(adapter) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let cells = column(adapter, &runtimes[adapter.shim.as_str()]);
                        columns.lock().expect("no column panics").insert(adapter.name.clone(), cells);
                    }
                });
            }
        });

        let mut columns = columns.into_inner().expect("no column panics");
        let mut grid = Grid::default();
        for adapter in &chosen {
            grid.push(&adapter.name, columns.remove(&adapter.name).unwrap_or_default());
        }
        // Written around the test harness, which would keep the matrix of a passing test to itself.
        let took = begun.elapsed().as_secs_f64();
        let _ = writeln!(
            std::io::stderr(),
            "{grid}\nthe matrix of {what} took {took:.1} s, without building the shims"
        );

        let strict = env::var_os("FARCALL_MATRIX_ALLOW_MISSING").is_none_or(|value| value != "1");
        let holes = grid.holes(strict);
        assert!(holes == 0, "the matrix of {what} has {holes} holes; the reasons are below it");
    }
}

/// The names that a variable lists, all where it is not set.
fn wanted(variable: &str, all: &[String]) -> Vec<String> {
    let Ok(list) = env::var(variable) else { return all.to_vec() };
    let wanted: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        panic!("{variable} names `{unknown}`; there are: {}", all.join(", "));
    }
    wanted
}
