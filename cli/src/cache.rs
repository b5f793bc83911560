//! `farcall cache`.

use crate::output::{failed, json, print};
use crate::{Exit, Home};
use clap::Subcommand;
use farcall_agent::report::ReportError;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Forget what is kept: in all programs of this home directory, within a second or so
    #[command(after_help = "Examples:
  farcall cache purge vendor=stripe
  farcall cache purge vendor=stripe 'endpoint=GET /v1/prices*' customer=acme
  farcall cache purge --all

The keys are vendor, endpoint, method and customer, with the patterns of docs/matching.md. An answer that is on its way \
                            is not\nkept either.")]
    Purge(Purge),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Purge {
    /// Which answers: vendor=stripe, endpoint='GET /v1/*', customer=acme
    #[arg(value_name = "KEY=VALUE", required_unless_present = "all", value_parser = condition)]
    which: Vec<(String, String)>,
    /// All of them
    #[arg(long, conflicts_with = "which")]
    all: bool,
    #[command(flatten)]
    home: Home,
}

fn condition(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        // As in the filters of reports.
        Some((key, value)) => match key.strip_suffix('!') {
            Some(key) => Ok((key.trim().into(), format!("!{value}"))),
            None => Ok((key.trim().into(), value.into())),
        },
        None => Err("write a key and a value, as in vendor=stripe".into()),
    }
}

/// Where no program was told.
const NOBODY: &str = "No program that runs here is known yet to have kept anything; one that has only just begun forgets \
    all the same. What lies in a Redis stays there; those that begin here within seven days do not hand it out.\n";

pub(crate) fn run(command: &Command) -> Exit {
    let Command::Purge(Purge { which, home, .. }) = command;
    let Some(place) = farcall_agent::home(home.home.as_deref()) else { return failed(&ReportError::NoHome) };
    match farcall_agent::purge_cache(&place, which) {
        Ok(programs) if home.json => print(&json(&json!({ "programs": programs })), Exit::Fine),
        Ok(0) => print(NOBODY, Exit::Fine),
        Ok(1) => print("Told the program that runs here; it forgets within a second or so.\n", Exit::Fine),
        Ok(programs) => {
            print(&format!("Told {programs} programs; they forget within a second or so.\n"), Exit::Fine)
        }
        Err(error) => failed(&error),
    }
}
