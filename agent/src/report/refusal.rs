//! Why a rule refused a call, warned of it or injected a fault into it: as its events tell, and where that rule stands.

use super::row::is_refused;
use super::source::Source;
use super::{CallRow, ReportError};
use crate::home;
use farcall::config::Rule;
use farcall::{Caller, Config};
use rusqlite::{OptionalExtension, params};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// The rule that the events of a refused call name, or whose fault took the place of its last attempt.
pub(super) fn rule(outcome: &str, events: &str) -> Option<String> {
    if !is_refused(outcome) {
        return None;
    }
    if outcome == "refused-fault" {
        return events.lines().rev().find_map(injected).map(|fault| fault.rule.to_owned());
    }
    let line = events.lines().rev().find(|line| line.contains("  refused by "))?;
    let (_, rest) = line.split_once('`')?;
    // A name may itself hold the sign that ends it.
    let (name, _) = rest.rsplit_once('`')?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// What the events of a refused call say after the rule's name.
pub(super) fn why(outcome: &str, events: &str) -> Option<String> {
    let mut lines = events.lines().rev().take_while(|line| !line.contains("  refused by "));
    let why = lines.find_map(|line| Some(line.split_once("  because ")?.1.to_owned()));
    why.filter(|_| is_refused(outcome))
}

/// What a rule of the policy told of a call that it let pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Warning {
    /// The rule.
    pub rule: String,
    /// `warn`, or what it would have done, were it not in report mode: `deny` or `throttle`.
    pub verdict: &'static str,
}

/// What rules of the policy told of a call that they let pass, as its events say.
pub(super) fn warned(events: &str) -> Vec<Warning> {
    const SAYS: [(&str, &str); 3] = [
        ("` would deny it, in report mode", "deny"),
        ("` would throttle it, in report mode", "throttle"),
        ("` warns of it", "warn"),
    ];
    let of_line = |line: &str| {
        let (_, told) = line.split_once("  policy `")?;
        let told = SAYS.into_iter().find_map(|(says, verdict)| Some((told.strip_suffix(says)?, verdict)));
        told.map(|(rule, verdict)| Warning { rule: rule.to_owned(), verdict })
    };
    let mut warned: Vec<Warning> = Vec::new();
    for warning in events.lines().filter_map(of_line) {
        // What an SDK tries again is asked again.
        if !warned.contains(&warning) {
            warned.push(warning);
        }
    }
    warned
}

/// What an event tells of a fault: its rule, and what it does.
struct Injected<'e> {
    rule: &'e str,
    does: &'e str,
}

/// What an event tells of an attempt, and its number.
fn of_attempt(line: &str) -> Option<(u32, &str)> {
    let (_, told) = line.split_once("  ")?;
    match told.strip_prefix("attempt ") {
        Some(told) => told.split_once(": ").and_then(|(number, told)| Some((number.parse().ok()?, told))),
        // As it was told where calls, and not attempts, met faults.
        None => Some((1, told)),
    }
}

fn injected(line: &str) -> Option<Injected<'_>> {
    let (rule, does) = of_attempt(line)?.1.strip_prefix("fault `")?.rsplit_once("` injected: ")?;
    Some(Injected { rule, does })
}

/// How many attempts of a call a fault took the vendor's place in, as far as its events go.
pub(super) fn stood_in(events: &[String]) -> usize {
    let mut attempts = BTreeSet::new();
    for (line, (attempt, told)) in events.iter().filter_map(|line| Some((line, of_attempt(line)?))) {
        let stands_in =
            |does: &str| does.ends_with("in the vendor's place") || does.ends_with("in place of sending it");
        if injected(line).is_some_and(|fault| stands_in(fault.does))
            || told.starts_with("given up while it was held back")
        {
            attempts.insert(attempt);
        } else if told.starts_with("sent, as the fault has expired") {
            attempts.remove(&attempt);
        }
    }
    attempts.len()
}

/// Why a call was refused, which fault it met, and where the rule stands that did; `caller` is the process that made it.
pub(super) fn sentences(
    source: &Source<'_>,
    call: &CallRow,
    caller: &Caller,
) -> Result<Vec<String>, ReportError> {
    let mut sentences = Vec::new();
    let mut met: Vec<(Injected<'_>, usize)> = Vec::new();
    for fault in call.events.iter().filter_map(|line| injected(line)) {
        match met.iter_mut().find(|(known, _)| known.rule == fault.rule) {
            Some((_, times)) => *times += 1,
            None => met.push((fault, 1)),
        }
    }
    for (Injected { rule, does }, times) in met {
        let often =
            if times > 1 { format!(", or the like, in {times} of its attempts") } else { String::new() };
        sentences.push(format!("The fault `{rule}` {does}{often}."));
        sentences.extend(stands(source, caller, "fault", rule)?);
    }
    if let Some(why) = &call.why {
        let why = why.replace("the same call would pass at", "the same call would have passed at");
        sentences.push(format!("Why: {why}."));
    }
    if let (Some(concept), Some(rule)) = (call.outcome.strip_prefix("refused-"), &call.rule)
        && concept != "fault"
    {
        sentences.extend(stands(source, caller, concept, rule)?);
    }
    Ok(sentences)
}

/// Where the rule stands, in the file that the process obeys; `None` where no file is known or there, or it is no
/// rule of one.
fn stands(
    source: &Source<'_>,
    caller: &Caller,
    concept: &str,
    name: &str,
) -> Result<Option<String>, ReportError> {
    let Some(connection) = source.connection() else { return Ok(None) };
    // One of another container may have the same pid.
    let Caller { service, executable, pid, .. } = caller;
    let [started, namespace] = [caller.started, caller.pid_namespace].map(u64::cast_signed);
    let file: Option<String> = connection
        .query_row(
            "SELECT p.config FROM processes p JOIN callers c ON c.id = p.caller
             WHERE c.pid = ?1 AND c.started = ?2 AND c.service = ?3 AND c.executable = ?4 AND c.pid_namespace = ?5",
            params![pid, started, service, executable, namespace],
            |row| row.get(0),
        )
        .optional()?;
    let Some(file) = file.filter(|file| !file.is_empty()) else { return Ok(None) };
    if !Path::new(&file).exists() {
        return Ok(None);
    }
    let text = match home::config_text(Path::new(&file)) {
        Ok(text) => text,
        Err(error) => return Ok(Some(format!("Where the rule stands cannot be said: {error}."))),
    };
    let (config, _errors) = Config::read(&file, &text);
    if concept == "quota" && line(&config.quotas, name).is_none() {
        // What throttles is kept to as a quota is, and refuses as one.
        let throttles = line(&config.policies, name)
            .map(|line| format!("The rule is a policy that throttles; it stands in line {line} of {file}."));
        return Ok(Some(throttles.unwrap_or_else(|| gone(&file))));
    }
    let line = match concept {
        "policy" => line(&config.policies, name),
        "rollout" => line(&config.rollouts, name),
        "budget" => line(&config.budgets, name),
        "quota" => line(&config.quotas, name),
        "breaker" | "concurrency" => line(&config.resilience, name),
        "fault" => line(&config.faults, name),
        _ => return Ok(None),
    };
    Ok(Some(match line {
        Some(line) => format!("The rule stands in line {line} of {file}."),
        None => gone(&file),
    }))
}

fn gone(file: &str) -> String {
    format!("There is no rule of that name in {file} any more.")
}

fn line<T>(rules: &[Rule<T>], name: &str) -> Option<usize> {
    rules.iter().find(|rule| *rule.name == *name).map(|rule| rule.line)
}
