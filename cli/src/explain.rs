//! `farcall explain`.

use crate::output::{failed, json, print, style};
use crate::{Exit, Home};
use clap::Subcommand;
use farcall_agent::report::{Query, Render, ReportError, explain_call, explain_incident};
use serde::Serialize;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Why were we rate limited: who used the window, and what would help
    #[command(after_help = "Examples:
  farcall report incidents --since 1d         lists them, each with its number
  farcall explain incident 7
  farcall explain incident 7 --json | jq '.incident.customers[0]'

Shares are those of the quota's window. Where the incident was the first of its quota, nothing was counted before \
                            it:\nthen they are those of the ledger's minutes, and a sentence says so.")]
    Incident {
        /// Its number
        #[arg(value_name = "N")]
        id: i64,
        #[command(flatten)]
        home: Home,
    },
    /// What happened to one call: waits, attempts, refusals, with the rule behind each
    #[command(after_help = "Examples:
  farcall report calls 'outcome=refused-*'    lists single calls, each with its id
  farcall explain call 4c8f1d2b
  farcall explain call 4c8f1d2b09e37a65 --json | jq -r '.call.events[]'

Kept are calls without a whole response, those that a rule did something to, and the slowest of each kind and second: the
newest 20,000.")]
    Call {
        /// Its id, or how that begins: at least 6 hexadecimal digits
        id: String,
        #[command(flatten)]
        home: Home,
    },
}

pub(crate) fn run(command: &Command) -> Exit {
    match command {
        Command::Incident { id, home } => show(home, |query| explain_incident(query, *id)),
        Command::Call { id, home } => show(home, |query| explain_call(query, id)),
    }
}

fn show<A: Serialize + Render>(home: &Home, ask: impl Fn(&Query) -> Result<A, ReportError>) -> Exit {
    let Some(query) = Query::here(home.home.as_deref()) else { return failed(&ReportError::NoHome) };
    match ask(&query) {
        Ok(answer) => print(&if home.json { json(&answer) } else { answer.render(&style()) }, Exit::Fine),
        Err(error) => failed(&error),
    }
}
