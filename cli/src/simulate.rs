//! `farcall simulate`.

use crate::Exit;
use crate::output::{complain, print};
use farcall::Config;
use farcall::config::text_of;
use farcall::simulate::{Progress, Report, Scenario, Value, render, simulate};
use farcall::units::grouped;
use serde_json::{Map, json};
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  farcall simulate examples/scenarios/acme-triples.toml
  farcall simulate scenario.toml --config farcall.toml --json
  farcall simulate scenario.toml --seed 7

A scenario names vendors, customers and a time (docs/simulate.md). With [what_if] in it, before and after stand \
                        side by side. The\nsame scenario and seed give the same report, to the byte. Ends with 2 where a file cannot be \
                        read or has errors.")]
pub(crate) struct Arguments {
    /// The scenario
    scenario: PathBuf,
    /// The farcall.toml whose rules are in force; without it the one that the scenario names, if any
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// The seed of all chance, instead of the scenario's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    match simulated(arguments) {
        Ok(text) => print(&text, Exit::Fine),
        Err(sentences) => {
            sentences.iter().for_each(|sentence| complain(sentence));
            Exit::Usage
        }
    }
}

fn simulated(arguments: &Arguments) -> Result<String, Vec<String>> {
    let (name, text) = read(&arguments.scenario)?;
    let scenario = Scenario::parse(&name, &text).map_err(sentences)?;
    let beside = arguments.scenario.parent().unwrap_or(Path::new(""));
    let config = arguments.config.clone().or_else(|| Some(beside.join(scenario.config.as_ref()?)));
    let config = match config {
        None => Config::default(),
        Some(file) => {
            let (name, text) = read(&file)?;
            Config::parse(&name, &text).map_err(sentences)?
        }
    };
    let seed = arguments.seed.unwrap_or(scenario.seed);
    let after = match &scenario.what_if {
        None => None,
        Some(what_if) => Some(what_if.apply(&scenario, &config).map_err(|error| vec![error.to_string()])?),
    };
    let before =
        simulate(&scenario, &config, seed, &mut progress(if after.is_some() { "before" } else { "" }));
    let after = after.map(|(scenario, config)| simulate(&scenario, &config, seed, &mut progress("after")));
    if arguments.json {
        let all = match &after {
            None => figures(&before),
            Some(after) => json!({ "before": figures(&before), "after": figures(after) }),
        };
        let all = json!({ "schema": "farcall.simulate/1", "seed": seed, "sample": scenario.sample, "figures": all });
        return Ok(format!("{all:#}\n"));
    }
    Ok(render(&before, after.as_ref()))
}

fn read(file: &Path) -> Result<(String, String), Vec<String>> {
    let name = file.display().to_string();
    let bytes = fs::read(file).map_err(|error| vec![format!("cannot read {name}: {error}")])?;
    let text = text_of(&name, bytes).map_err(|error| vec![error.to_string()])?;
    Ok((name, text))
}

fn sentences(errors: Vec<farcall::config::ConfigError>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Says on a terminal's stderr how far it is.
fn progress(of: &'static str) -> impl FnMut(Progress) {
    let shown = io::stderr().is_terminal();
    move |progress| {
        if shown {
            let _ = write!(io::stderr(), "{}", line(of, progress));
        }
    }
}

/// One line that takes the place of the one before; nothing once it is over.
fn line(of: &str, Progress { share, calls, .. }: Progress) -> String {
    if share >= 1.0 {
        return "\r\x1b[K".to_owned();
    }
    let of = if of.is_empty() { String::new() } else { format!(" {of}") };
    format!("\rsimulating{of}: {:.0}% of the time, {} calls\x1b[K", (share * 100.0).floor(), grouped(calls))
}

/// Durations in milliseconds, money in USD, shares as parts of 1; `null` where there was nothing to measure.
fn figures(report: &Report) -> serde_json::Value {
    let mut groups: Map<String, serde_json::Value> = Map::new();
    for figure in report.figures() {
        let mut name: String =
            figure.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        name.truncate(name.trim_end_matches('_').len());
        let value = match figure.value {
            Value::Count(count) => json!(count),
            Value::Share(share) => json!((share * 1e6).round() / 1e6),
            Value::Time(time) => {
                name += "_ms";
                json!(time.map(|time| (time.as_secs_f64() * 1e6).round() / 1e3))
            }
            Value::Money(nanos) => {
                name += "_usd";
                json!(nanos as f64 / 1e9)
            }
            _ => serde_json::Value::Null,
        };
        let group = groups.entry(figure.about).or_insert_with(|| json!({}));
        if let Some(group) = group.as_object_mut() {
            group.insert(name.replace("__", "_"), value);
        }
    }
    if !report.worst.is_empty() {
        groups.insert("incidents".into(), json!(report.worst));
    }
    groups.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use farcall::Config;

    #[test]
    fn a_terminal_is_told_how_far_it_is_and_the_line_goes_at_the_end() {
        // Enough for several words.
        let text = r#"
            duration = "2h"
            [[vendor]]
            name = "github"
            [[customer]]
            name = "acme"
            rate = "20 / s"
            calls = [{ vendor = "github", endpoint = "GET /user" }]
        "#;
        let scenario = Scenario::parse("s.toml", text).unwrap();
        let mut said: Vec<(Progress, String)> = Vec::new();
        let report = simulate(&scenario, &Config::default(), 1, &mut |progress| {
            said.push((progress, line("before", progress)));
        });
        let (last, words) = said.pop().unwrap();
        assert_eq!((last.share, last.calls, words.as_str()), (1.0, report.all.calls, "\r\x1b[K"));
        assert!(said.len() >= 2, "{said:?}");
        assert!(said.is_sorted_by(|(a, _), (b, _)| a.share < b.share && a.calls < b.calls), "{said:?}");
        for (progress, words) in &said {
            let percent = (progress.share * 100.0).floor();
            assert!(words.starts_with(&format!("\rsimulating before: {percent}% of the time, ")), "{words}");
            assert!(words.ends_with(" calls\x1b[K"), "{words}");
        }
        assert!(said[0].1.contains(','), "its thousands stand apart: {}", said[0].1);
        assert!(line("", said[0].0).starts_with("\rsimulating: "));
    }
}
