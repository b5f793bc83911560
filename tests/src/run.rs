//! One column of the matrix: every scenario through one adapter.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use farcall::Config;
use farcall_agent::report;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::adapter::{Adapter, Runtime};
use crate::grid::Cell;
use crate::judge;
use crate::ledger::{self, Account, Sums};
use crate::scenario::{Over, Scenario, Send};
use crate::shim::{Reply, Shim, Surroundings};
use crate::vendor::Vendor;

/// How long the accounts may take to agree: a stream that was let go of settles when its client gets to it.
const AGREEMENT: Duration = Duration::from_secs(30);

/// The name of the last cell, which compares the totals after the process has ended.
pub(crate) const AT_EXIT: &str = "totals-at-exit";

/// Runs `scenarios` through `adapter`, in order, and says how each came out; one cell more, `totals-at-exit`,
/// says whether the ledger still adds up after the process has ended.
#[must_use]
pub fn run(
    adapter: &Adapter,
    runtime: &Runtime,
    scenarios: &[&Scenario],
    rules: Rules,
) -> Vec<(String, Cell)> {
    let names = || scenarios.iter().map(|s| s.name.clone()).chain([AT_EXIT.to_owned()]);
    let run = match runtime {
        Runtime::Missing(reason) => {
            return names().map(|name| (name, Cell::Missing(reason.clone()))).collect();
        }
        Runtime::Ready(run) => run,
    };
    match Column::start(adapter, run, rules) {
        Err(reason) => names().map(|name| (name, Cell::Fail(reason.clone()))).collect(),
        Ok(mut column) => {
            let mut cells: Vec<(String, Cell)> =
                scenarios.iter().map(|s| (s.name.clone(), Cell::of(column.play(s)))).collect();
            cells.push((AT_EXIT.to_owned(), Cell::of(column.finish())));
            cells
        }
    }
}

/// What the programs run under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// `farcall.toml` alone: Farcall only watches.
    None,
    /// `rules.toml` as well: every call is decided on, and none is refused, delayed or repeated.
    Harmless,
}

pub(crate) const CONFIG: &str = "farcall.toml";

impl Rules {
    fn write(self, home: &Path) -> Result<(), String> {
        let mut text = include_str!("../farcall.toml").to_owned();
        if self == Self::Harmless {
            text += include_str!("../rules.toml");
        }
        let (_, errors) = Config::read(CONFIG, &text);
        match errors.first() {
            Some(error) => Err(error.to_string()),
            None => fs::write(home.join(CONFIG), text).map_err(|e| format!("{CONFIG}: {e}")),
        }
    }
}

struct Column<'a> {
    adapter: &'a Adapter,
    run: &'a [String],
    vendor: Vendor,
    home: TempDir,
    shim: Shim,
    /// What the ledger gained in all cells together.
    calls: u64,
    /// Whether a shim was lost on the way, and with it what it had not flushed.
    restarted: bool,
}

impl<'a> Column<'a> {
    fn start(adapter: &'a Adapter, run: &'a [String], rules: Rules) -> Result<Self, String> {
        let home = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let vendor = Vendor::start(home.path())?;
        rules.write(home.path())?;
        let shim = start(run, home.path(), vendor.ca(), adapter)?;
        Ok(Self { adapter, run, vendor, home, shim, calls: 0, restarted: false })
    }

    fn play(&mut self, scenario: &Scenario) -> Result<(), String> {
        for over in &scenario.over {
            // On a machine that is busy a client's timeout of a fraction of a second may strike too early, and a
            // client may see the first byte and the last at the same time.
            let slower: &[u64] = match scenario {
                _ if scenario.ends_by_timeout() => &[1, 5, 20, 100],
                _ if scenario.times_the_body() => &[1; 4],
                _ => &[1],
            };
            let mut outcome = Ok(());
            for slower in slower {
                outcome = self.play_over(scenario, *over, *slower);
                if outcome.is_ok() {
                    break;
                }
            }
            outcome.map_err(|wrong| format!("over {over}: {wrong}\n  promise: {}", scenario.promise))?;
        }
        Ok(())
    }

    fn play_over(&mut self, scenario: &Scenario, over: Over, slower: u64) -> Result<(), String> {
        self.vendor.script(&scenario.script)?;
        // A shim that was lost in the scenario before is started anew, so that one failure stays one cell.
        if self.shim.flush().is_err() {
            self.shim = start(self.run, self.home.path(), self.vendor.ca(), self.adapter)?;
            self.restarted = true;
        }
        let before = ledger::read(self.home.path())?;
        let arrived_before = self.vendor.counts();
        let mut replies = Vec::new();
        for send in &scenario.send {
            for _ in 0..send.repeat {
                replies.push((send, self.send(send, over, slower)?));
            }
        }
        let deadline = Instant::now() + AGREEMENT;
        loop {
            self.shim.flush()?;
            let after = ledger::read(self.home.path())?;
            let gained = after.since(&before).ok_or("the ledger lost what it had")?;
            let arrived = self.vendor.counts().since(&arrived_before);
            let mut wrong: Vec<String> = replies
                .iter()
                .flat_map(|(send, reply)| {
                    judge::answer(scenario, self.adapter, send, reply, arrived.bytes_out)
                })
                .collect();
            wrong.extend(judge::ledger(scenario, self.adapter, over, &gained));
            wrong.extend(judge::vendor(scenario, &gained, &arrived));
            if wrong.is_empty() {
                self.calls += gained.total().calls;
                return Ok(());
            }
            if Instant::now() >= deadline {
                self.calls += gained.total().calls;
                return Err(explain(&wrong, &gained, &arrived, &replies));
            }
        }
    }

    /// Sends one command; for a client that leaves redirects to its user, one for each hop.
    fn send(&mut self, send: &Send, over: Over, slower: u64) -> Result<Reply, String> {
        if send.hops.is_empty() || self.adapter.follows_redirects {
            return self.shim.tell(self.command(send, over, &send.path, slower));
        }
        let mut last = Err("a redirect without hops".to_owned());
        for hop in &send.hops {
            last = self.shim.tell(self.command(send, over, hop, slower));
        }
        last
    }

    fn command(&self, send: &Send, over: Over, path: &str, slower: u64) -> Value {
        let path = self.vendor.fill(path);
        let url = if path.starts_with('/') { self.vendor.origin(over) + &path } else { path };
        json!({
            "client": self.adapter.client,
            "method": send.method,
            "url": url,
            "headers": {},
            "body": send.body.as_ref().map(|body| body.repeat(send.body_times)),
            "timeout_ms": send.timeout_ms * slower,
            "read": send.read.as_str(),
            "follow_redirects": send.follow_redirects,
            "customer": send.customer,
            "parallel": send.parallel,
            "customers": send.customers,
        })
    }

    /// What came late, or twice, after the cell that it belongs to, shows here.
    fn finish(self) -> Result<(), String> {
        self.shim.finish()?;
        let account = ledger::read(self.home.path())?;
        let total = account.total();
        if total.calls != self.calls {
            return Err(format!(
                "after the end of the process the ledger has {} calls; the cells saw {}",
                total.calls, self.calls
            ));
        }
        reports_agree(self.home.path(), &total)?;
        let remains = ledger::remains(self.home.path())?;
        if !remains.is_empty() && !self.restarted {
            return Err(format!("left behind: {}", remains.join(", ")));
        }
        // A client may open a connection in one scenario and first use it in another: only their sum is certain.
        let accepted = self.vendor.counts().connections();
        let answered = account.rows.values().filter(|sums| sums.answered > 0);
        let known: u64 = answered.map(|sums| sums.connections).sum();
        if known > accepted {
            return Err(format!("the ledger has {known} new connections, the vendor accepted {accepted}"));
        }
        Ok(())
    }
}

/// The read side's tables come to the same sums as the file.
pub(crate) fn reports_agree(home: &Path, total: &Sums) -> Result<(), String> {
    let query = report::Query::at(home);
    let vendors = report::vendors(&query).map_err(|e| format!("the vendors' report: {e}"))?;
    let customers = report::customers(&query).map_err(|e| format!("the customers' report: {e}"))?;
    let by_vendor: u64 = vendors.rows.iter().map(|row| row.numbers.calls).sum();
    let by_customer: u64 = customers.rows.iter().map(|row| row.numbers.calls).sum();
    let said = vendors.totals;
    let checks = [
        ("calls in total", said.calls, total.calls),
        ("attempts", said.attempts, total.attempts),
        ("bytes out", said.bytes_out, total.bytes_out),
        ("bytes in", said.bytes_in, total.bytes_in),
        ("calls over the vendors", by_vendor, total.calls),
        ("calls over the customers", by_customer, total.calls),
    ];
    match checks.into_iter().find(|(_, said, is)| said != is) {
        Some((what, said, is)) => Err(format!("the reports say {said} {what}, the ledger {is}")),
        None => Ok(()),
    }
}

/// Starts the shim behind an adapter, under the configuration in `home`.
pub(crate) fn start(run: &[String], home: &Path, ca: &Path, adapter: &Adapter) -> Result<Shim, String> {
    let stderr = home.join("stderr.txt");
    let config = home.join(CONFIG).display().to_string();
    let surroundings = Surroundings {
        home,
        ca,
        service: &adapter.name,
        environment: &[("FARCALL_CONFIG", &config)],
        stderr: &stderr,
    };
    let mut shim = Shim::start(run, &surroundings)?;
    shim.flush().map_err(|e| format!("it does not start: {e}"))?;
    Ok(shim)
}

fn explain(
    wrong: &[String],
    gained: &Account,
    arrived: &crate::vendor::Arrived,
    replies: &[(&Send, Reply)],
) -> String {
    let mut text = wrong.join("\n  ");
    text.push_str(&format!("\n  the ledger gained:{gained}"));
    text.push_str(&format!("\n  the vendor counted: {arrived:?}"));
    if let Some((_, last)) = replies.last() {
        text.push_str(&format!("\n  the last answer: {last:?}"));
    }
    text
}
