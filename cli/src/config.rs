//! `farcall config`.

use crate::Exit;
use crate::output::{complain, print};
use clap::Subcommand;
use farcall::config::{OnMissingCopy, OutboxPlace, OutboxStore, text_of};
use farcall::policy::{Mode, PolicySet};
use farcall::{Config, Timestamp};
use farcall_agent::alarm::{at_critical_vendors, has_way};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a configuration file: every error with its line, its column and what to write instead
    #[command(after_help = "Examples:
  farcall config check
  farcall config check deploy/farcall.toml
  farcall config check --strict deploy/farcall.toml

Says which rules are in force, and warns of rules that contradict each other, are never reached or protect nothing.

Without FILE: $FARCALL_CONFIG, ./farcall.toml, then farcall.toml in $FARCALL_HOME. Ends with 1 where the file has \
                            errors\n(with --strict: or there are warnings), with 2 where there is none.")]
    Check {
        /// The file
        file: Option<PathBuf>,
        /// End with 1 where there are warnings, too
        #[arg(long)]
        strict: bool,
    },
}

pub(crate) fn run(command: &Command) -> Exit {
    let Command::Check { file, strict } = command;
    let (name, bytes) = match load(file.as_deref(), None, "farcall config check deploy/farcall.toml") {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let text = text_of(&name, bytes).map_err(|error| vec![error]);
    match text.and_then(|text| Config::parse(&name, &text).map(|config| (text, config))) {
        Ok((text, config)) => {
            let warnings = warnings(&name, &text, &config);
            let vendors = count(config.vendors.len(), "vendor", "vendors");
            let mut lines = format!("{name} is right: {vendors} of your own.\n{}\n", in_force(&config));
            warnings.iter().for_each(|warning| lines += &format!("{warning}\n"));
            print(&lines, if *strict && !warnings.is_empty() { Exit::Wrong } else { Exit::Fine })
        }
        Err(errors) => {
            let mut lines = String::new();
            for error in &errors {
                lines += &format!("{error}\n");
            }
            print(&lines, Exit::Wrong)
        }
    }
}

/// The name and the text of a configuration file: `file`, else the one that a program here would read whose home
/// directory is `home`, else the usual one.
///
/// # Errors
/// When there is none, or no text in it; said on stderr, with `example` as a way to name one.
pub(crate) fn read(
    file: Option<&Path>,
    home: Option<&Path>,
    example: &str,
) -> Result<(String, String), Exit> {
    let (name, bytes) = load(file, home, example)?;
    match text_of(&name, bytes) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            complain(&error.to_string());
            Err(Exit::Usage)
        }
    }
}

fn load(file: Option<&Path>, home: Option<&Path>, example: &str) -> Result<(String, Vec<u8>), Exit> {
    let home = farcall_agent::home(home);
    let Some(file) = farcall_agent::config_file(file, home.as_deref()) else {
        complain(&format!("there is no farcall.toml here; name one, as in: {example}"));
        return Err(Exit::Usage);
    };
    let name = file.display().to_string();
    match fs::read(&file) {
        Ok(bytes) => Ok((name, bytes)),
        Err(error) => {
            complain(&format!("cannot read {name}: {error}"));
            Err(Exit::Usage)
        }
    }
}

/// What is allowed and surely not meant, each with its line.
fn warnings(file: &str, text: &str, config: &Config) -> Vec<String> {
    let policy = PolicySet::new(config.policies.clone());
    let mut warnings: Vec<(usize, String)> = policy
        .check()
        .iter()
        .map(|warning| {
            let line = policy.rule(warning.rule).line;
            (line, format!("{file}:{line}: warning: {warning}"))
        })
        .collect();
    if let Some(rule) = config.outbox.iter().find(|rule| rule.then.critical == Some(true)) {
        let mut warn =
            |what: &str| warnings.push((rule.line, format!("{file}:{}: warning: {what}", rule.line)));
        if !has_way(config) {
            warn(
                "calls are critical, and [alarm] names no way beside stderr; `farcall alarm test` tries them",
            );
        }
        for (way, vendor) in at_critical_vendors(config) {
            warn(&format!("the alarm's {way} goes to {vendor}, whose critical calls it is to tell of"));
        }
    }
    let without_copies = config.outbox_store.on_missing_copy == OnMissingCopy::Alarm;
    if without_copies && !config.outbox_store.copies.is_empty() && !has_way(config) {
        let what = "on_missing_copy = \"alarm\", and [alarm] names no way beside stderr; `farcall alarm test` tries them";
        warnings.push((0, format!("{file}: warning: {what}")));
    }
    let of_file = config.warnings(file, text, now());
    warnings.extend(of_file.iter().map(|warning| (warning.line, warning.to_string())));
    warnings.sort();
    warnings.into_iter().map(|(_, text)| text).collect()
}

/// This moment, by the clock of the machine.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.plus(since)
}

/// Which rules are in force, in one line.
fn in_force(config: &Config) -> String {
    let reported = config.policies.iter().filter(|rule| rule.then.mode == Mode::Report).count();
    let mut policies = count(config.policies.len(), "policy rule", "policy rules");
    if reported > 0 {
        policies += &format!(" ({reported} of them in report mode)");
    }
    let kinds = [
        (config.policies.len(), policies),
        (config.rollouts.len(), count(config.rollouts.len(), "rollout", "rollouts")),
        (config.budgets.len(), count(config.budgets.len(), "budget", "budgets")),
        (config.quotas.len(), count(config.quotas.len(), "quota", "quotas")),
        (config.resilience.len(), count(config.resilience.len(), "resilience rule", "resilience rules")),
        (config.caches.len(), count(config.caches.len(), "cache rule", "cache rules")),
        (config.faults.len(), count(config.faults.len(), "fault", "faults")),
        (config.outbox.len(), count(config.outbox.len(), "outbox rule", "outbox rules")),
        (config.own_prices().len(), count(config.own_prices().len(), "price", "prices")),
    ];
    let words: Vec<String> =
        kinds.into_iter().filter(|(count, _)| *count > 0).map(|(_, words)| words).collect();
    let rules = match words.is_empty() {
        true => "No rules: every call is sent as it is, and counted.".to_owned(),
        false => format!("In force: {}.", words.join(", ")),
    };
    rules + &kept(&config.outbox_store)
}

/// Where the outbox is, where that is said.
fn kept(store: &OutboxStore) -> String {
    if store.store.is_none() && store.copies.is_empty() {
        return String::new();
    }
    let place = |place: &OutboxPlace| match place {
        OutboxPlace::File(path) => path.display().to_string(),
        OutboxPlace::Variable(name) => format!("${name}"),
        // Its address may hold a password.
        _ => "a PostgreSQL".to_owned(),
    };
    let own = store.store.as_ref().map_or_else(|| "outbox.db in the home directory".to_owned(), place);
    let copies: Vec<String> = store.copies.iter().map(place).collect();
    let beside = match copies.is_empty() {
        true => String::new(),
        false => format!(", with copies in {} ({} needed)", copies.join(" and "), store.needed("")),
    };
    format!("\nThe outbox: {own}{beside}.")
}

fn count(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
