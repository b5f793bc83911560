//! One column of the matrix of rules: every behaviour through one adapter.
//!
//! Each behaviour has a vendor of its own, at an address of its own, so that one file of rules and one process hold
//! all of them and none meets what another left behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use farcall::Config;
use serde_json::json;
use tempfile::TempDir;
use vendor_sim::{Options, Sim};

use crate::adapter::{Adapter, Runtime};
use crate::behaviour::judge;
use crate::behaviour::{Behaviour, Step};
use crate::grid::Cell;
use crate::ledger::{self, Account};
use crate::run::{AT_EXIT, CONFIG, reports_agree, start};
use crate::shim::{Reply, Shim};

/// How long the accounts may take to agree: deliveries and copies come after their calls.
const AGREEMENT: Duration = Duration::from_secs(30);

/// The same where the cell may fail.
const EXEMPT_AGREEMENT: Duration = Duration::from_secs(1);

/// How long a step is repeated until what it waits for comes.
const UNTIL: Duration = Duration::from_secs(60);

/// How long the application waits between two calls of such a step.
const BETWEEN: Duration = Duration::from_millis(20);

/// Counters of what rules did, and not of what somebody could not do.
const DONE: [&str; 5] = ["breaker_refusals", "delivered_calls", "refused_calls", "reloads", "told_alarms"];

/// A client's own timeout; no behaviour is about it.
const TIMEOUT_MS: u64 = 30_000;

/// Plays `behaviours` through `adapter`, in order, and says how each came out; one cell more, `totals-at-exit`, says
/// whether all of it still holds after the process has ended. `may_fail` names the cells that are not waited for.
#[must_use]
pub fn behave(
    adapter: &Adapter,
    runtime: &Runtime,
    behaviours: &[&Behaviour],
    may_fail: impl Fn(&str) -> bool,
) -> Vec<(String, Cell)> {
    let names = || behaviours.iter().map(|b| b.name.clone()).chain([AT_EXIT.to_owned()]);
    let run = match runtime {
        Runtime::Missing(reason) => {
            return names().map(|name| (name, Cell::Missing(reason.clone()))).collect();
        }
        Runtime::Ready(run) => run,
    };
    match Column::start(adapter, run, behaviours) {
        Err(reason) => names().map(|name| (name, Cell::Fail(reason.clone()))).collect(),
        Ok(mut column) => {
            for number in 0..behaviours.len() {
                column.acts[number].outcome = column.play(number);
            }
            column.agree(may_fail);
            let said = |act: &Act<'_>| {
                let behaviour = act.behaviour;
                let outcome = act.outcome.clone();
                let outcome = outcome.map_err(|wrong| format!("{wrong}\n  promise: {}", behaviour.promise));
                (behaviour.name.clone(), Cell::of(outcome))
            };
            let mut cells: Vec<(String, Cell)> = column.acts.iter().map(said).collect();
            cells.push((AT_EXIT.to_owned(), Cell::of(column.finish())));
            cells
        }
    }
}

/// A behaviour with its servers.
struct Act<'a> {
    behaviour: &'a Behaviour,
    vendor: Sim,
    backup: Option<Sim>,
    /// The rules that are in force.
    rules: &'a str,
    outcome: Result<(), String>,
}

struct Column<'a> {
    adapter: &'a Adapter,
    run: &'a [String],
    home: TempDir,
    shim: Shim,
    acts: Vec<Act<'a>>,
    /// Whether a shim was lost on the way, and with it what it had not flushed.
    restarted: bool,
}

impl<'a> Column<'a> {
    fn start(adapter: &'a Adapter, run: &'a [String], behaviours: &[&'a Behaviour]) -> Result<Self, String> {
        let home = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let acts = behaviours.iter().zip(1..).map(|(behaviour, number)| Act::start(behaviour, number));
        let acts = acts.collect::<Result<Vec<_>, _>>()?;
        write(home.path(), &acts)?;
        let shim = start(run, home.path(), &authority(home.path(), &acts)?, adapter)?;
        Ok(Self { adapter, run, home, shim, acts, restarted: false })
    }

    /// Does what the behaviour says, and looks at what the application gets.
    fn play(&mut self, number: usize) -> Result<(), String> {
        // A shim that was lost in the behaviour before is started anew, so that one failure stays one cell.
        if self.shim.flush().is_err() {
            let ca = authority(self.home.path(), &self.acts)?;
            self.shim = start(self.run, self.home.path(), &ca, self.adapter)?;
            self.restarted = true;
        }
        let behaviour = self.acts[number].behaviour;
        for (step, place) in behaviour.play.iter().zip(1..) {
            if let Some(rules) = &step.rules {
                self.acts[number].rules = rules;
                write(self.home.path(), &self.acts)?;
            }
            let wrong = self.step(number, step)?;
            if !wrong.is_empty() {
                let _ = self.shim.flush();
                return Err(format!("step {place}: {}{}", wrong.join("\n  "), self.account(number)));
            }
        }
        Ok(())
    }

    /// Has the ledger and the vendors agree on all that the applications got: what comes after its call, a delivery
    /// say, comes beside the calls of the other behaviours.
    fn agree(&mut self, may_fail: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        let mut open: Vec<usize> = (0..self.acts.len()).filter(|n| self.acts[*n].outcome.is_ok()).collect();
        while !open.is_empty() {
            let account = self.shim.flush().and_then(|()| ledger::read(self.home.path()));
            let waited = begun.elapsed();
            open.retain(|number| {
                let act = &self.acts[*number];
                let patience = if may_fail(&act.behaviour.name) { EXEMPT_AGREEMENT } else { AGREEMENT };
                let wrong = account.as_ref().map(|account| act.judge(account, self.adapter));
                let wrong = wrong.unwrap_or_else(|e| vec![e.clone()]);
                let over = waited >= patience || account.is_err();
                if over && !wrong.is_empty() {
                    let outcome = Err(format!("{}{}", wrong.join("\n  "), self.account(*number)));
                    self.acts[*number].outcome = outcome;
                }
                !over && !wrong.is_empty()
            });
            std::thread::sleep(BETWEEN);
        }
    }

    /// Makes the calls of a step; what is wrong with what the application got.
    fn step(&mut self, number: usize, step: &Step) -> Result<Vec<String>, String> {
        let Some(until) = &step.until else {
            let (mut got, mut values) = (BTreeMap::new(), BTreeMap::new());
            let (mut bytes, mut error) = (0, None);
            for _ in 0..step.repeat {
                let reply = self.tell(number, step)?;
                reply.got.into_iter().for_each(|(word, times)| *got.entry(word).or_default() += times);
                reply
                    .values
                    .into_iter()
                    .for_each(|(value, times)| *values.entry(value).or_default() += times);
                bytes += reply.bytes;
                error = reply.error.or(error);
            }
            let mut wrong = judge::step(step, &got, bytes, error.as_deref());
            wrong.extend(judge::values(step, &values));
            return Ok(wrong);
        };
        let deadline = Instant::now() + UNTIL;
        let mut before = BTreeMap::new();
        loop {
            let Reply { got, error, .. } = self.tell(number, step)?;
            if got.contains_key(until) {
                return Ok(judge::step(step, &before, 0, error.as_deref()));
            }
            got.into_iter().for_each(|(word, times)| *before.entry(word).or_default() += times);
            if Instant::now() >= deadline {
                return Ok(vec![format!("the application waited for {until}, and got {before:?}")]);
            }
            std::thread::sleep(BETWEEN);
        }
    }

    fn tell(&mut self, number: usize, step: &Step) -> Result<Reply, String> {
        let reply = self.shim.tell(json!({
            "client": self.adapter.client,
            "method": step.method,
            "url": format!("http://{}{}", self.acts[number].vendor.plain_addr(), step.path),
            "headers": step.headers,
            "body": step.body,
            "timeout_ms": TIMEOUT_MS,
            "read": "all",
            "follow_redirects": true,
            "customer": step.customer,
            "priority": step.priority,
            "header": step.header.as_ref().map(|header| &header.name),
            "parallel": step.parallel,
            "customers": step.customers,
        }))?;
        let told: u64 = reply.got.values().sum();
        match told == step.parallel {
            true => Ok(reply),
            false => Err(format!("the shim tells of {told} calls, not of {}", step.parallel)),
        }
    }

    /// Both sides of what a behaviour did, for who has to find out why.
    fn account(&self, number: usize) -> String {
        let act = &self.acts[number];
        let account = ledger::read(self.home.path()).map(|account| act.own(&account)).unwrap_or_default();
        let mut text = format!("\n  the ledger has:{account}");
        for request in act.vendor.requests(None) {
            let (method, path, status) = (request.method, request.path, request.status);
            text.push_str(&format!("\n  the vendor saw: {method} {path} {status:?} {:?}", request.headers));
        }
        text
    }

    /// What came late, or twice, after the cell that it belongs to, shows here.
    fn finish(self) -> Result<(), String> {
        let Self { adapter, home, shim, acts, restarted, .. } = self;
        shim.finish()?;
        let account = ledger::read(home.path())?;
        let mut wrong = Vec::new();
        for act in acts.iter().filter(|act| act.outcome.is_ok()) {
            let name = &act.behaviour.name;
            wrong.extend(act.judge(&account, adapter).into_iter().map(|wrong| format!("{name}: {wrong}")));
        }
        let known = |vendor: &str| acts.iter().any(|act| act.behaviour.name == vendor);
        for series in account.rows.keys().filter(|series| !known(&series.vendor)) {
            wrong.push(format!("the ledger knows a vendor {}", series.vendor));
        }
        let left = ledger::remains(home.path())?.into_iter().filter(|left| {
            let name = left.split(" = ").next().unwrap_or_default();
            let said = |act: &Act<'_>| act.behaviour.counters.iter().any(|known| known == name);
            !restarted && !DONE.contains(&name) && !acts.iter().any(said)
        });
        wrong.extend(left.map(|left| format!("left behind: {left}")));
        if !wrong.is_empty() {
            return Err(format!("after the end of the process:\n  {}", wrong.join("\n  ")));
        }
        reports_agree(home.path(), &account.total())
    }
}

impl<'a> Act<'a> {
    /// `number` makes its address.
    fn start(behaviour: &'a Behaviour, number: u8) -> Result<Self, String> {
        let sim = |place: u8| {
            let plain = ([127, 1, place, number], 0).into();
            Sim::start(Options { plain, ..Options::default() })
                .map_err(|e| format!("vendor-sim cannot start: {e}"))
        };
        let vendor = sim(0)?;
        let backup = behaviour.has_backup().then(|| sim(1)).transpose()?;
        vendor
            .script(behaviour.script.clone().into())
            .map_err(|e| format!("{}: vendor-sim does not take the script: {e}", behaviour.name))?;
        Ok(Self { behaviour, vendor, backup, rules: &behaviour.rules, outcome: Ok(()) })
    }

    /// Its part of the configuration.
    fn config(&self) -> String {
        let Behaviour { name, vendor, .. } = self.behaviour;
        let host = self.vendor.plain_addr().ip();
        let backup = self.backup.as_ref().map(|backup| backup.plain_addr().to_string()).unwrap_or_default();
        let rules = self.rules.replace("{vendor}", name).replace("{backup}", &backup);
        format!("[[vendor]]\nname = \"{name}\"\nhosts = [\"{host}\"]\n{vendor}\n{rules}\n")
    }

    /// What is wrong with what the ledger says and with what the servers saw.
    fn judge(&self, account: &Account, adapter: &Adapter) -> Vec<String> {
        judge::accounts(self.behaviour, adapter, &self.own(account), &self.vendor, self.backup.as_ref())
    }

    /// What the ledger says of it.
    fn own(&self, account: &Account) -> Account {
        let own = account.rows.iter().filter(|(series, _)| series.vendor == self.behaviour.name);
        Account { rows: own.map(|(series, sums)| (series.clone(), *sums)).collect() }
    }
}

/// Puts the configuration in its place, whole: a running shim looks at it at any moment.
fn write(home: &Path, acts: &[Act<'_>]) -> Result<(), String> {
    const HEAD: &str = "allow_faults = true\n\n";
    let read =
        |text: &str| Config::read(CONFIG, text).1.first().map_or(Ok(()), |error| Err(error.to_string()));
    let mut text = HEAD.to_owned();
    for act in acts {
        // By itself, an error has a line that somebody can find.
        let own = act.config();
        read(&format!("{HEAD}{own}")).map_err(|error| format!("{}: {error}", act.behaviour.name))?;
        text.push_str(&own);
    }
    read(&text)?;
    let (next, place) = (home.join("farcall.next"), home.join(CONFIG));
    fs::write(&next, text).and_then(|()| fs::rename(&next, &place)).map_err(|e| format!("{CONFIG}: {e}"))
}

/// Writes the authority that clients are to trust: every call here is plain, and one of the servers' will do.
fn authority(home: &Path, acts: &[Act<'_>]) -> Result<std::path::PathBuf, String> {
    let place = home.join("ca.pem");
    let pem = acts.first().map(|act| act.vendor.ca_pem()).unwrap_or_default();
    fs::write(&place, pem).map_err(|e| format!("{}: {e}", place.display()))?;
    Ok(place)
}
