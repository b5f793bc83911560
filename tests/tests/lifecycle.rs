//! Starts and ends, and homes that nothing can be written to: what every adapter owes its application whatever
//! calls it makes.
//!
//! `FARCALL_MATRIX_ADAPTERS` and `FARCALL_MATRIX_ALLOW_MISSING` hold here as for the matrix.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use farcall_scenarios::{Adapter, Adapters, Home, Program, Runtime};

const SIGTERM: i32 = 15;

/// Does something with each adapter, and fails with all that went wrong.
fn with_each(adapters: &[&Adapter], all: &Adapters, act: impl Fn(&Adapter, &[String]) -> Result<(), String>) {
    let strict = env::var_os("FARCALL_MATRIX_ALLOW_MISSING").is_none_or(|value| value != "1");
    let wanted = env::var("FARCALL_MATRIX_ADAPTERS").ok();
    let wanted =
        |name: &str| wanted.as_ref().is_none_or(|list| list.split(',').any(|one| one.trim() == name));
    let mut wrong = Vec::new();
    for adapter in adapters.iter().filter(|adapter| wanted(&adapter.name)) {
        match all.prepare(&adapter.shim) {
            Runtime::Ready(run) => {
                wrong.extend(act(adapter, &run).err().map(|reason| format!("{}: {reason}", adapter.name)));
            }
            Runtime::Missing(reason) if strict => wrong.push(format!("{}: MISSING: {reason}", adapter.name)),
            Runtime::Missing(reason) => eprintln!("MISSING {}: {reason}", adapter.name),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One adapter of each shim, for what the language decides and not the client.
fn one_of_each_shim(adapters: &Adapters) -> Vec<&Adapter> {
    let mut seen: BTreeMap<&str, &Adapter> = BTreeMap::new();
    for adapter in &adapters.all {
        seen.entry(&adapter.shim).or_insert(adapter);
    }
    seen.into_values().collect()
}

fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

#[test]
fn a_home_that_cannot_be_written_never_disturbs_the_calls_and_is_said_once() {
    let adapters = Adapters::load().unwrap();
    with_each(&adapters.all.iter().collect::<Vec<_>>(), &adapters, |adapter, run| {
        let mut program = Program::start(adapter, run, Home::Broken, &[])?;
        for _ in 0..3 {
            program.call()?;
            program.flush()?;
        }
        expect(program.arrived() == 3, || format!("{} of 3 requests arrived", program.arrived()))?;
        let said = program.complaints();
        let home = program.home().display().to_string();
        let lines = said.lines().filter(|line| line.contains("farcall") && line.contains(&home)).count();
        expect(lines == 1, || format!("it is to complain once, and said {lines} times:\n{said}"))?;
        program.finish().map(drop)
    });
}

#[test]
fn switched_off_it_writes_nothing_and_the_calls_go_through() {
    let adapters = Adapters::load().unwrap();
    with_each(&adapters.all.iter().collect::<Vec<_>>(), &adapters, |adapter, run| {
        let mut program = Program::start(adapter, run, Home::Fresh, &[("FARCALL_DISABLED", "1")])?;
        program.call()?;
        program.flush()?;
        expect(program.arrived() == 1, || "the request did not arrive".into())?;
        expect(program.complaints().is_empty(), || format!("it said {:?}", program.complaints()))?;
        let home = program.home().to_owned();
        expect(!home.exists(), || "it made its home".into())?;
        program.finish()?;
        expect(!home.exists(), || "it made its home at its end".into())
    });
}

#[test]
fn calls_are_in_the_ledger_after_a_second_without_being_asked_for() {
    let adapters = Adapters::load().unwrap();
    with_each(&one_of_each_shim(&adapters), &adapters, |adapter, run| {
        let mut program = Program::start(adapter, run, Home::Fresh, &[])?;
        program.call()?;
        // Far more than the second that it is to take: the machine may be busy.
        let deadline = Instant::now() + Duration::from_secs(60);
        while program.ledger()?.total().calls != 1 {
            expect(Instant::now() < deadline, || "the call is not in the ledger after a minute".into())?;
        }
        program.finish().map(drop)
    });
}

#[test]
fn the_last_calls_before_sigterm_are_in_the_ledger_and_the_program_dies_of_it() {
    let adapters = Adapters::load().unwrap();
    // A Rust program decides for itself what SIGTERM does (`Options::handle_sigterm`).
    let bindings: Vec<&Adapter> =
        one_of_each_shim(&adapters).into_iter().filter(|adapter| adapter.shim != "rust").collect();
    with_each(&bindings, &adapters, |adapter, run| {
        let mut program = Program::start(adapter, run, Home::Fresh, &[])?;
        for _ in 0..5 {
            program.call()?;
        }
        let (status, ledger) = program.terminate()?;
        expect(status.signal() == Some(SIGTERM), || format!("it ended with {status}"))?;
        let calls = ledger.total().calls;
        expect(calls == 5, || format!("{calls} of 5 calls are in the ledger"))
    });
}

#[test]
fn the_last_calls_before_the_end_are_in_the_ledger() {
    let adapters = Adapters::load().unwrap();
    with_each(&one_of_each_shim(&adapters), &adapters, |adapter, run| {
        let mut program = Program::start(adapter, run, Home::Fresh, &[])?;
        for _ in 0..5 {
            program.call()?;
        }
        let calls = program.finish()?.total().calls;
        expect(calls == 5, || format!("{calls} of 5 calls are in the ledger"))
    });
}
