//! `farcall doctor`.

use crate::output::{failed, json, print, style};
use crate::{Exit, Ledger};
use farcall_agent::report::{Query, Render, ReportError, doctor};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Lists every process that farcall started in, with the adapters in place: a process without \
                        any counts no call,\nhowever many it makes. The configuration is told of those that run. Ends with 1 where there is something to look at.

Examples:
  farcall doctor
  farcall doctor --since 1d
  farcall doctor --json | jq '.processes[] | select(.adapters == [])'"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    ledger: Ledger,
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let Some(mut query) = Query::here(arguments.ledger.home.as_deref()) else {
        return failed(&ReportError::NoHome);
    };
    query.since = arguments.ledger.since;
    match doctor(&query) {
        Ok(doctor) => {
            let exit = if doctor.healthy { Exit::Fine } else { Exit::Wrong };
            let text = match arguments.ledger.json {
                true => json(&doctor),
                false => doctor.render(&style()),
            };
            print(&text, exit)
        }
        Err(error) => failed(&error),
    }
}
