//! The matrix scenario x adapter.
//!
//! `FARCALL_MATRIX_ADAPTERS=fetch,http` and `FARCALL_MATRIX_SCENARIOS=gzip,sse` run a part of it.

use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use farcall_scenarios::{Adapters, Cell, Exemptions, Grid, Rules, Runtime, Scenarios, run};

#[test]
fn every_adapter_counts_every_scenario_as_the_vendor_did() {
    play(Rules::None);
}

#[test]
fn rules_that_forbid_nothing_change_nothing() {
    play(Rules::Harmless);
}

fn play(rules: Rules) {
    // One matrix after the other: the machine is busy enough with one.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let scenarios = Scenarios::load().expect("the list of scenarios");
    let adapters = Adapters::load().expect("the list of adapters");
    let names: Vec<String> = adapters.all.iter().map(|a| a.name.clone()).collect();
    let exemptions = Exemptions::load(&scenarios, &names).expect("the exemptions");
    let wanted_adapters = wanted("FARCALL_MATRIX_ADAPTERS", &names);
    let rows: Vec<String> = scenarios.all.iter().map(|s| s.name.clone()).collect();
    let wanted_scenarios = wanted("FARCALL_MATRIX_SCENARIOS", &rows);
    let chosen: Vec<_> = adapters.all.iter().filter(|a| wanted_adapters.contains(&a.name)).collect();
    let played: Vec<_> = scenarios.all.iter().filter(|s| wanted_scenarios.contains(&s.name)).collect();

    let mut runtimes: BTreeMap<&str, Runtime> = BTreeMap::new();
    for adapter in &chosen {
        runtimes.entry(&adapter.shim).or_insert_with(|| adapters.prepare(&adapter.shim));
    }

    let begun = Instant::now();
    // Two columns at a time: each mostly waits, for a timeout or for the other side.
    let next = AtomicUsize::new(0);
    let columns = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(adapter) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let cells = run(adapter, &runtimes[adapter.shim.as_str()], &played, rules);
                    columns.lock().expect("no column panics").insert(adapter.name.clone(), cells);
                }
            });
        }
    });

    let columns = columns.into_inner().expect("no column panics");
    let mut grid = Grid::default();
    for adapter in &chosen {
        let cells = columns[&adapter.name].iter().map(|(scenario, cell)| {
            let cell = match exemptions.reason(&adapter.name, scenario, rules) {
                Some(reason) => cell.clone().exempt(reason),
                None => cell.clone(),
            };
            (scenario.clone(), cell)
        });
        grid.push(&adapter.name, cells.collect::<Vec<(String, Cell)>>());
    }
    // Written around the test harness, which would keep the matrix of a passing test to itself.
    let took = begun.elapsed().as_secs_f64();
    let _ = writeln!(
        std::io::stderr(),
        "{grid}\nthe matrix with rules {rules:?} took {took:.1} s, without building the shims"
    );

    let strict = env::var_os("FARCALL_MATRIX_ALLOW_MISSING").is_none_or(|value| value != "1");
    let holes = grid.holes(strict);
    assert!(holes == 0, "the matrix has {holes} holes; the reasons are below it");
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
