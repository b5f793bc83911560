//! `farcall rollout`.

use crate::config::read;
use crate::output::{complain, failed, json, print};
use crate::{Exit, Home};
use clap::Subcommand;
use farcall::Config;
use farcall_agent::canary::{self, Standing};
use farcall_agent::report::ReportError;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Where the canaries of farcall.toml stand in the programs of this home directory, and why one was rolled back
    #[command(after_help = "Examples:
  farcall rollout ls
  farcall rollout ls --json --config deploy/farcall.toml")]
    Ls(Ls),
    /// Have a canary start over: with its first step, in all programs of this home directory, at once
    #[command(after_help = "Examples:
  farcall rollout restart new-api-version

Ends with 1 where no rollout of this name has a canary that any call asked for.")]
    Restart {
        /// The rollout's name
        name: String,
        #[command(flatten)]
        from: Ls,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ls {
    /// The file; else $FARCALL_CONFIG, ./farcall.toml, farcall.toml in $FARCALL_HOME
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    home: Home,
}

/// Names that are offered in the place of an unknown one.
const MOST_NAMES: usize = 8;

pub(crate) fn run(command: &Command) -> Exit {
    let (Command::Ls(from) | Command::Restart { from, .. }) = command;
    let example = "farcall rollout ls --config deploy/farcall.toml";
    let (name, text) = match read(from.config.as_deref(), from.home.home.as_deref(), example) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let (config, errors) = Config::read(&name, &text);
    errors.iter().for_each(|error| complain(&error.to_string()));
    let Some(home) = farcall_agent::home(from.home.home.as_deref()) else {
        return failed(&ReportError::NoHome);
    };
    let wrong = |error: std::io::Error| failed(&ReportError::Unreadable(error.to_string()));
    match command {
        Command::Ls(_) => match canary::standings(&home, &config) {
            Ok(standings) if from.home.json => print(&json(&standings), Exit::Fine),
            Ok(standings) if standings.is_empty() => {
                print(&format!("No rollout of {name} has a canary.\n"), Exit::Fine)
            }
            Ok(standings) => print(&standings.iter().map(line).collect::<String>(), Exit::Fine),
            Err(error) => wrong(error),
        },
        Command::Restart { name: rollout, .. } => match canary::restart(&home, &config, rollout) {
            Ok(restarted) => {
                let exit = if restarted { Exit::Fine } else { Exit::Wrong };
                if let (false, Some(none)) = (restarted, no_canary(&config, &name, rollout)) {
                    return match from.home.json {
                        true => print(&json(&serde_json::json!({ "restarted": false, "why": none })), exit),
                        false => print(&format!("{none}\n"), exit),
                    };
                }
                match (from.home.json, restarted) {
                    (true, _) => print(&json(&serde_json::json!({ "restarted": restarted })), exit),
                    (false, true) => print(
                        &format!("{rollout} starts over in all programs of this home directory.\n"),
                        exit,
                    ),
                    (false, false) => {
                        print(&format!("No call asked for a canary {rollout} of {name} yet.\n"), exit)
                    }
                }
            }
            Err(error) => wrong(error),
        },
    }
}

/// Why no rollout of this name can start over by this file, and what to write instead; `None` where one can.
fn no_canary(config: &Config, file: &str, rollout: &str) -> Option<String> {
    let named = config.rollouts.iter().find(|rule| *rule.then.name == *rollout);
    if named.is_some_and(|rule| rule.then.canary.is_some()) {
        return None;
    }
    if named.is_some() {
        return Some(format!(
            "The rollout {rollout} of {file} has no canary: its `share` says how much it takes."
        ));
    }
    let with_canary = config.rollouts.iter().filter(|rule| rule.then.canary.is_some());
    let mut names: Vec<&str> = with_canary.map(|rule| &*rule.then.name).collect();
    let lower = rollout.to_lowercase();
    let likeness = |name: &&str| strsim::jaro_winkler(&lower, &name.to_lowercase());
    names.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)).then_with(|| a.cmp(b)));
    let hint = match names.as_slice() {
        [] => "none there has a canary".to_owned(),
        [nearest, ..] if likeness(nearest) > 0.7 => format!("did you mean {nearest}?"),
        names => format!("its canaries are {}", names[..names.len().min(MOST_NAMES)].join(", ")),
    };
    let end = if hint.ends_with('?') { "" } else { "." };
    Some(format!("No rollout of {file} is called {rollout}; {hint}{end}"))
}

fn line(standing: &Standing) -> String {
    let Standing { rollout, status, steps, old_calls, old_errors, new_calls, new_errors, .. } = standing;
    let Standing { old_timed, old_slow, new_timed, new_slow, .. } = standing;
    let share = standing.share * 100.0;
    let at = standing.step.map_or_else(|| (*status).to_owned(), |step| format!("step {step} of {steps}"));
    let because = standing.because.map_or(String::new(), |because| format!(" because {because}"));
    let slow = standing.slow_after_ms.map_or(String::new(), |limit| {
        format!("; slower than {limit:.0} ms: new {new_slow} of {new_timed}, old {old_slow} of {old_timed}")
    });
    format!(
        "{rollout}: {at}{because}, {share}% on the new side. In this step: new {new_errors} of {new_calls} failed, old \
         {old_errors} of {old_calls}{slow}\n"
    )
}
