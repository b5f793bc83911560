//! `farcall config`.

use crate::Exit;
use crate::output::{complain, json, print};
use clap::Subcommand;
use farcall::config::{OnMissingCopy, OutboxPlace, OutboxStore, outbox_places, text_of};
use farcall::policy::{Mode, PolicySet};
use farcall::{Config, Timestamp};
use farcall_agent::alarm::{at_critical_vendors, has_way};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a configuration file: every error with its line, its column and what to write instead
    #[command(after_help = "Examples:
  farcall config check
  farcall config check deploy/farcall.toml
  farcall config check --strict deploy/farcall.toml
  farcall config check --json | jq -r '.errors[] | \"\\(.line): \\(.message)\"'

Says which rules are in force, and warns of rules that contradict each other, are never reached or protect nothing, and of
places for copies of the outbox that this machine or this environment has not: there --strict is not strict, as the
service may run elsewhere.

Without FILE: $FARCALL_CONFIG, ./farcall.toml, then farcall.toml in $FARCALL_HOME. Ends with 1 where the file has \
                            errors\n(with --strict: or there are warnings), with 2 where there is none.")]
    Check {
        /// The file
        file: Option<PathBuf>,
        /// End with 1 where there are warnings, too
        #[arg(long)]
        strict: bool,
        /// Print JSON (docs/report.md) instead of text
        #[arg(long)]
        json: bool,
    },
}

/// What is known of a file.
#[derive(Serialize)]
struct Checked {
    file: String,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    /// How many rules of each kind it has, vendors of the user's own included; none where it has errors.
    in_force: Vec<Kind>,
}

/// An error or a warning, where it stands and what to write instead.
#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// From 1; null where it is about the file as a whole.
    line: Option<usize>,
    /// From 1, in characters; null where it is about the file as a whole.
    column: Option<usize>,
    message: String,
    /// Whether it is about where this command runs, and not about the file.
    #[serde(skip)]
    only_here: bool,
}

#[derive(Serialize)]
struct Kind {
    kind: &'static str,
    rules: usize,
}

pub(crate) fn run(command: &Command) -> Exit {
    let Command::Check { file, strict, json: as_json } = command;
    let (name, bytes) = match load(file.as_deref(), None, "farcall config check deploy/farcall.toml") {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let text = text_of(&name, bytes).map_err(|error| vec![error]);
    let config = text.and_then(|text| Config::parse(&name, &text).map(|config| (text, config)));
    let (errors, warnings) = match &config {
        Ok((text, config)) => (Vec::new(), warnings(&name, text, config)),
        Err(errors) => (
            errors.iter().map(|error| Finding::at(error.line, error.column, &error.message)).collect(),
            Vec::new(),
        ),
    };
    let wrong = !errors.is_empty() || *strict && warnings.iter().any(|warning| !warning.only_here);
    let exit = if wrong { Exit::Wrong } else { Exit::Fine };
    if *as_json {
        let in_force = config.map(|(_, config)| kinds(&config)).unwrap_or_default();
        return print(&json(&Checked { file: name, errors, warnings, in_force }), exit);
    }
    let mut lines = String::new();
    if let Ok((_, config)) = &config {
        let vendors = count(config.vendors.len(), "vendor", "vendors");
        lines += &format!("{name} is right: {vendors} of your own.\n{}\n", in_force(config));
    }
    errors.iter().for_each(|error| lines += &error.line(&name, ""));
    warnings.iter().for_each(|warning| lines += &warning.line(&name, "warning: "));
    print(&lines, exit)
}

impl Finding {
    fn at(line: usize, column: usize, message: &str) -> Self {
        Self { line: Some(line), column: Some(column), message: message.to_owned(), only_here: false }
    }

    /// As compilers write it: `file:line:column: what`.
    fn line(&self, file: &str, kind: &str) -> String {
        let place: String =
            [self.line, self.column].iter().flatten().map(|part| format!(":{part}")).collect();
        format!("{file}{place}: {kind}{}\n", self.message)
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

/// What is allowed and surely not meant, by its line.
fn warnings(file: &str, text: &str, config: &Config) -> Vec<Finding> {
    // A rule begins where its line does.
    let of_line = |line: usize, message: String| {
        let indent = text
            .lines()
            .nth(line.saturating_sub(1))
            .map_or(0, |text| text.chars().take_while(|letter| letter.is_whitespace()).count());
        Finding::at(line, indent + 1, &message)
    };
    let policy = PolicySet::new(config.policies.clone());
    let mut warnings: Vec<Finding> = policy
        .check()
        .iter()
        .map(|warning| of_line(policy.rule(warning.rule).line, warning.to_string()))
        .collect();
    if let Some(rule) = config.outbox.iter().find(|rule| rule.then.critical == Some(true)) {
        if !has_way(config) {
            let what =
                "calls are critical, and [alarm] names no way beside stderr; `farcall alarm test` tries them";
            warnings.push(of_line(rule.line, what.to_owned()));
        }
        for (way, vendor) in at_critical_vendors(config) {
            let what = format!("the alarm's {way} goes to {vendor}, whose critical calls it is to tell of");
            warnings.push(of_line(rule.line, what));
        }
    }
    let without_copies = config.outbox_store.on_missing_copy == OnMissingCopy::Alarm;
    if without_copies && !config.outbox_store.copies.is_empty() && !has_way(config) {
        let what = "on_missing_copy = \"alarm\", and [alarm] names no way beside stderr; `farcall alarm test` tries them";
        warnings.push(Finding { line: None, column: None, message: what.to_owned(), only_here: false });
    }
    let of_file = config.warnings(file, text, now());
    warnings
        .extend(of_file.iter().map(|warning| Finding::at(warning.line, warning.column, &warning.message)));
    warnings.extend(not_here(text, &config.outbox_store));
    warnings.sort();
    warnings
}

/// Places for the outbox that are not there where this command runs. The service may run elsewhere.
fn not_here(text: &str, settings: &OutboxStore) -> Vec<Finding> {
    let else_without = match settings.on_missing_copy {
        OnMissingCopy::Alarm => "calls are taken without that copy",
        _ => "calls that need it are refused",
    };
    let finding = |(place, line, column): (OutboxPlace, usize, usize)| {
        let message = match &place {
            OutboxPlace::Variable(name) if env::var_os(name).is_none() => {
                let effect = match settings.store.as_ref() == Some(&place) {
                    true => "no call is taken",
                    false => else_without,
                };
                format!(
                    "the environment variable {name} is not set here; where the service runs it has to be, or {effect}"
                )
            }
            OutboxPlace::File(file) => {
                let directory = file.parent().filter(|directory| !directory.is_dir())?;
                format!(
                    "the directory {} is not there on this machine (is its volume mounted?); where the service runs it has to be, or {else_without}",
                    directory.display()
                )
            }
            _ => return None,
        };
        Some(Finding { line: Some(line), column: Some(column), message, only_here: true })
    };
    outbox_places(text).into_iter().filter_map(finding).collect()
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
    let counted = kinds(config).into_iter().filter(|kind| kind.rules > 0);
    let words: Vec<String> = counted
        .filter_map(|Kind { kind, rules }| match kind {
            "vendor" => None,
            "policy" => Some(policies.clone()),
            "price" => Some(count(rules, "price", "prices")),
            "rollout" | "budget" | "quota" | "fault" => Some(count(rules, kind, &format!("{kind}s"))),
            kind => Some(count(rules, &format!("{kind} rule"), &format!("{kind} rules"))),
        })
        .collect();
    let rules = match words.is_empty() {
        true => "No rules: every call is sent as it is, and counted.".to_owned(),
        false => format!("In force: {}.", words.join(", ")),
    };
    rules + &kept(&config.outbox_store)
}

/// How many rules of each kind there are.
fn kinds(config: &Config) -> Vec<Kind> {
    let kind = |kind, rules| Kind { kind, rules };
    vec![
        kind("vendor", config.vendors.len()),
        kind("policy", config.policies.len()),
        kind("rollout", config.rollouts.len()),
        kind("budget", config.budgets.len()),
        kind("quota", config.quotas.len()),
        kind("resilience", config.resilience.len()),
        kind("cache", config.caches.len()),
        kind("fault", config.faults.len()),
        kind("outbox", config.outbox.len()),
        kind("price", config.own_prices().len()),
    ]
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
