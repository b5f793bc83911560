//! `farcall policy`.

use crate::config::read;
use crate::output::{complain, failed, json, print, style};
use crate::{Exit, duration};
use clap::Subcommand;
use farcall::{Caller, Config};
use farcall_agent::report::{
    Asked, Filter, Query, Render, ReportError, policy_backtest, policy_recommend, policy_test, unmatched,
};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What would the rules say to this call?
    #[command(after_help = "Examples:
  farcall policy test GET https://api.stripe.com/v1/balance
  farcall policy test --caller service=billing --customer acme POST https://api.openai.com/v1/chat/completions
  farcall policy test --file next.toml --tag team=core --data card POST https://api.openai.com/v1/responses

Shows every rule that is about the call, in the order in which they are asked, which one decides, and why the others \
                            are not\nabout it. What is not said (a caller, a credential) is not known: caller.service = \
                            \"!billing\" matches a call\nof which no caller is known. Ends with 1 where the call \
                            would be refused.")]
    Test(Test),
    /// What would this file have done to the calls of the ledger: per rule calls, customers, money
    #[command(after_help = "Examples:
  farcall policy backtest next.toml
  farcall policy backtest next.toml --since 30d vendor=openai
  farcall policy backtest next.toml --json | jq '.denied'

The rules are asked about the rollups of the ledger, by vendor, endpoint, customer, tags and caller. The ledger keeps \
                            no host,\ncredential, data or size of single calls; rules that look at these are \
                            named. Nothing is changed.")]
    Backtest(Backtest),
    /// The narrowest policy that the ledger supports, as TOML
    #[command(after_help = "Examples:
  farcall policy recommend > policy.toml
  farcall policy recommend --since 30d caller=checkout > checkout.toml
  farcall config check policy.toml && farcall policy backtest policy.toml --since 30d

One rule for each caller and vendor with the endpoints that were called, and a last one that denies the rest. Try it \
                            with\npolicy_mode = \"report\" at the top of farcall.toml before it refuses anything.")]
    Recommend(Recommend),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// The method
    method: String,
    /// The absolute URL
    url: String,
    /// Who calls: service=NAME, executable=PATH, user=NAME, container=ID
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    caller: Vec<(String, String)>,
    /// On whose behalf
    #[arg(long)]
    customer: Option<String>,
    /// A tag of the call
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    tag: Vec<(String, String)>,
    /// A kind of data in the request: card, email
    #[arg(long, value_name = "KIND")]
    data: Vec<String>,
    /// The length of the request's body in bytes
    #[arg(long)]
    bytes: Option<u64>,
    /// The fingerprint of the credential
    #[arg(long, default_value = "")]
    credential: String,
    /// The environment variable that holds the credential
    #[arg(long, value_name = "NAME", default_value = "")]
    origin: String,
    /// The country of the vendor's seat, two letters, instead of the catalogue's
    #[arg(long, default_value = "")]
    country: String,
    /// The file with the rules, instead of the farcall.toml that a program here would read
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print JSON (docs/report.md) instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Backtest {
    /// The file with the rules
    file: PathBuf,
    /// Only calls that match: vendor=stripe
    #[arg(value_name = "FILTER")]
    filters: Vec<Filter>,
    #[command(flatten)]
    ledger: Week,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Recommend {
    /// Only calls that match: caller=checkout
    #[arg(value_name = "FILTER")]
    filters: Vec<Filter>,
    #[command(flatten)]
    ledger: Week,
}

/// As [`Ledger`], over a week.
#[derive(Debug, clap::Args)]
struct Week {
    /// How far back to look: 90s, 15m, 1h, 7d
    #[arg(long, default_value = "7d", value_name = "DURATION", value_parser = duration)]
    since: Duration,
    /// Print JSON (docs/report.md) instead of text
    #[arg(long)]
    json: bool,
    /// Where the ledger is
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("write a key and a value, such as service=billing".to_owned()),
    }
}

pub(crate) fn run(command: &Command) -> Exit {
    match command {
        Command::Test(arguments) => test(arguments),
        Command::Backtest(arguments) => backtest(arguments),
        Command::Recommend(arguments) => recommend(arguments),
    }
}

fn test(arguments: &Test) -> Exit {
    let mut caller = Caller::default();
    for (key, value) in &arguments.caller {
        let place = match key.strip_prefix("caller.").unwrap_or(key) {
            "service" => &mut caller.service,
            "executable" => &mut caller.executable,
            "user" => &mut caller.user,
            "container" => &mut caller.container,
            other => {
                complain(&format!(
                    "a caller has no `{other}`; write --caller service=NAME, executable=PATH, user=NAME or container=ID"
                ));
                return Exit::Usage;
            }
        };
        place.clone_from(value);
    }
    let config = match rules(arguments.file.as_deref()) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let asked = Asked {
        method: arguments.method.to_ascii_uppercase(),
        url: arguments.url.clone(),
        customer: arguments.customer.clone(),
        tags: arguments.tag.clone(),
        caller,
        bytes: arguments.bytes,
        data: arguments.data.clone(),
        credential: arguments.credential.clone(),
        origin: arguments.origin.clone(),
        country: arguments.country.clone(),
    };
    match policy_test(&config, &asked) {
        Ok(answer) => {
            let exit = if answer.verdict == "deny" { Exit::Wrong } else { Exit::Fine };
            let text = if arguments.json { json(&answer) } else { answer.render(&style()) };
            print(&text, exit)
        }
        Err(error) => failed(&error),
    }
}

fn backtest(arguments: &Backtest) -> Exit {
    let config = match rules(Some(&arguments.file)) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    ask(
        &arguments.ledger,
        &arguments.filters,
        |query| policy_backtest(query, &config),
        |backtest| backtest.calls,
    )
}

fn recommend(arguments: &Recommend) -> Exit {
    ask(&arguments.ledger, &arguments.filters, policy_recommend, |recommended| recommended.calls)
}

fn ask<A: serde::Serialize + Render>(
    ledger: &Week,
    filters: &[Filter],
    ask: impl Fn(&Query) -> Result<A, ReportError>,
    calls: impl Fn(&A) -> u64,
) -> Exit {
    let Some(mut query) = Query::here(ledger.home.as_deref()) else { return failed(&ReportError::NoHome) };
    query.since = ledger.since;
    query.filters = filters.to_vec();
    match ask(&query) {
        Ok(answer) if ledger.json => print(&json(&answer), Exit::Fine),
        Ok(answer) => {
            // A policy may be on its way into a file.
            if let (0, Ok(Some(unmatched))) = (calls(&answer), unmatched(&query)) {
                complain(&unmatched.to_string());
            }
            print(&answer.render(&style()), Exit::Fine)
        }
        Err(error) => failed(&error),
    }
}

/// The rules of a file without errors: with some left out they would say something else.
fn rules(file: Option<&std::path::Path>) -> Result<Config, Exit> {
    let (name, text) = read(file, None, "farcall policy test --file deploy/farcall.toml")?;
    Config::parse(&name, &text).map_err(|errors| {
        for error in &errors {
            complain(&error.to_string());
        }
        Exit::Usage
    })
}
