//! `farcall`: the read side at the command line. Each command prints a table, or the stable JSON that
//! docs/report.md describes.

mod advise;
mod alarm;
mod cache;
mod config;
mod doctor;
mod explain;
mod outbox;
mod output;
mod policy;
mod report;
mod rollout;
mod simulate;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// How commands end; `farcall --help` documents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// It worked, and nothing is wrong.
    Fine = 0,
    /// It worked, and found something that somebody should look at.
    Wrong = 1,
    /// The command was not understood.
    Usage = 2,
    /// There is no ledger, or it cannot be read.
    NoLedger = 3,
}

/// See what your services ask of other people's APIs.
#[derive(Debug, Parser)]
#[command(
    name = "farcall",
    version,
    after_help = "Examples:
  farcall report vendors                      whom we called in the last hour
  farcall report endpoints vendor=stripe      what we asked of Stripe
  farcall report calls 'status>=500' --since 1d
  farcall report customers vendor=openai      who caused which calls, and which cost
  farcall report all --json > report.json
  farcall advise --since 1d                   what to cache and to protect, with the lines to paste
  farcall explain incident 7                  who used the quota when Stripe said 429?
  farcall policy test GET https://api.stripe.com/v1/balance
  farcall doctor                              is farcall attached, and well?
  farcall outbox ls --state dead              which calls were given up, and why?
  farcall alarm test                          does the alarm for critical calls go out?
  farcall config check farcall.toml
  farcall cache purge vendor=stripe           forget what is kept of Stripe's answers
  farcall rollout ls                          how far is the canary, and what did it see?

The ledger is looked for in --home, $FARCALL_HOME, $XDG_STATE_HOME/farcall, ~/.local/state/farcall.

Exit codes: 0 fine; 1 something to look at (doctor, config check, policy test, outbox, alarm); 2 the command was not understood;
3 there is no ledger, or it cannot be read."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask the ledger a question
    Report(report::Arguments),
    /// What to do: calls that need not be made, calls that nothing protects
    Advise(advise::Arguments),
    /// What happened: to a quota, to a call
    #[command(subcommand)]
    Explain(explain::Command),
    /// Try rules before they are in force
    #[command(subcommand)]
    Policy(policy::Command),
    /// Is farcall attached everywhere, and well?
    Doctor(doctor::Arguments),
    /// The calls that must not be lost: which wait, which were given up
    #[command(subcommand)]
    Outbox(outbox::Command),
    /// Who is told when a critical call fails
    #[command(subcommand)]
    Alarm(alarm::Command),
    /// What the cache keeps
    #[command(subcommand)]
    Cache(cache::Command),
    /// Canaries: where they stand, and how one starts over
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// Check the configuration file
    #[command(subcommand)]
    Config(config::Command),
    /// What if: run the engine against scripted customers and vendors
    Simulate(simulate::Arguments),
}

/// What all commands that read the ledger know.
#[derive(Debug, clap::Args)]
struct Ledger {
    /// How far back to look: 90s, 15m, 1h, 7d
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration)]
    since: std::time::Duration,
    /// Print JSON (docs/report.md) instead of a table
    #[arg(long)]
    json: bool,
    /// Where the ledger is
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

/// What commands about one thing in the ledger know.
#[derive(Debug, clap::Args)]
struct Home {
    /// Print JSON (docs/report.md) instead of sentences
    #[arg(long)]
    json: bool,
    /// Where the ledger is
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    farcall::config::parse_duration(text)
        .ok_or_else(|| "write a number and a unit, such as 30s, 15m, 1h or 7d".into())
}

fn main() -> ExitCode {
    let exit = match Cli::parse().command {
        Command::Report(arguments) => report::run(&arguments),
        Command::Advise(arguments) => advise::run(&arguments),
        Command::Explain(command) => explain::run(&command),
        Command::Policy(command) => policy::run(&command),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Outbox(command) => outbox::run(&command),
        Command::Alarm(command) => alarm::run(&command),
        Command::Cache(command) => cache::run(&command),
        Command::Rollout(command) => rollout::run(&command),
        Command::Config(command) => config::run(&command),
        Command::Simulate(arguments) => simulate::run(&arguments),
    };
    ExitCode::from(exit as u8)
}
