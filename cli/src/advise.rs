//! `farcall advise`.

use crate::output::{failed, print, table};
use crate::{Exit, Ledger};
use farcall_agent::report::{Filter, Query, Question, ReportError};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  farcall advise                        what to do, from the calls of the last hour
  farcall advise --since 7d --vendor launchdarkly
  farcall advise --json | jq -r '.rows[] | select(.config) | .config' > new.toml
  farcall config check new.toml

docs/advise.md says what each rule looks at, and what it cannot see.")]
pub(crate) struct Arguments {
    /// Only this vendor
    #[arg(long)]
    vendor: Option<String>,
    /// Only what matches: vendor=stripe caller=checkout
    #[arg(value_name = "FILTER")]
    filters: Vec<Filter>,
    /// The most findings to show; 0 for all
    #[arg(long, default_value_t = 20)]
    limit: usize,
    #[command(flatten)]
    ledger: Ledger,
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let Some(mut query) = Query::here(arguments.ledger.home.as_deref()) else {
        return failed(&ReportError::NoHome);
    };
    query.since = arguments.ledger.since;
    query.filters.clone_from(&arguments.filters);
    if let Some(vendor) = &arguments.vendor {
        match format!("vendor={vendor}").parse() {
            Ok(filter) => query.filters.push(filter),
            Err(error) => return failed(&ReportError::Filter(error)),
        }
    }
    query.limit = arguments.limit;
    match Question::Advise.ask(&query) {
        Ok(report) if arguments.ledger.json => print(&(report.to_json() + "\n"), Exit::Fine),
        Ok(report) => table(&report, &query),
        Err(error) => failed(&error),
    }
}
