//! `farcall alarm`.

use crate::Exit;
use crate::config::read;
use crate::output::{complain, json, print};
use clap::Subcommand;
use farcall::Config;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send an alarm that is none, by each way of [alarm] in farcall.toml, and as an event to the collector
    #[command(after_help = "Examples:
  farcall alarm test
  farcall alarm test --config deploy/farcall.toml
  farcall alarm test --home /var/lib/farcall

Ends with 1 where a way did not take it, where there is none, or where webhook or collector are at a vendor whose critical
calls they are to tell of. Environment variables (webhook = \"$NAME\", OTEL_EXPORTER_OTLP_ENDPOINT) are those of this shell.")]
    Test {
        /// The file; else $FARCALL_CONFIG, ./farcall.toml, farcall.toml in $FARCALL_HOME
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The home directory whose farcall.toml is read, where no other is named or here
        #[arg(long, value_name = "DIR")]
        home: Option<PathBuf>,
        /// Print JSON (docs/outbox.md) instead of sentences
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(command: &Command) -> Exit {
    let Command::Test { config, home, json: as_json } = command;
    let example = "farcall alarm test --config deploy/farcall.toml";
    let (name, text) = match read(config.as_deref(), home.as_deref(), example) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let (config, errors) = Config::read(&name, &text);
    errors.iter().for_each(|error| complain(&error.to_string()));
    let service = config.service.clone().unwrap_or_else(|| "farcall alarm test".to_owned());
    let told = farcall_agent::alarm::test(&config, &service);
    let shared = farcall_agent::alarm::at_critical_vendors(&config);
    let wrong = told.is_empty() || told.iter().any(|told| told.failure.is_some()) || !shared.is_empty();
    let exit = if wrong { Exit::Wrong } else { Exit::Fine };
    if *as_json {
        let ways: Vec<_> =
            told.iter().map(|told| json!({ "way": told.way, "failure": told.failure })).collect();
        let at = |way: &str| shared.iter().find(|(name, _)| *name == way).map(|(_, vendor)| vendor);
        let said =
            json!({ "ways": ways, "webhook_at_vendor": at("webhook"), "event_at_vendor": at("event") });
        return print(&json(&said), exit);
    }
    let mut lines = String::new();
    if told.is_empty() {
        lines += &format!(
            "{name} names no way: alarms go to stderr alone. Write `webhook`, `command` or `log` in [alarm], or `endpoint` in [otlp].\n"
        );
    }
    for told in &told {
        lines += &match &told.failure {
            None => format!("{}: it went out\n", told.way),
            Some(why) => format!("{}: it did not go out: {why}\n", told.way),
        };
    }
    for (way, vendor) in shared {
        lines += &format!(
            "The {way} goes to {vendor}, whose critical calls it is to tell of: when {vendor} is down, so is the alarm.\n"
        );
    }
    print(&lines, exit)
}
