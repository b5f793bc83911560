//! Hedges and copies that nobody sends: rules all of whose calls are made by clients that make one attempt at a time.

use super::ReportError;
use super::filter::subject_of;
use super::findings::words;
use super::row::Row;
use super::source::Source;
use crate::home;
use farcall::config::Rule;
use farcall::matcher::Matcher;
use farcall::units::Share;
use farcall::{Caller, Config};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::rc::Rc;

/// The adapters under which a thread makes one attempt at a time, and nobody is there to send another beside it.
const ONE_AT_A_TIME: [&str; 2] = ["requests", "urllib3"];
/// Of these methods a second attempt or a copy may be sent.
const SAFE: [&str; 4] = ["GET", "HEAD", "OPTIONS", "TRACE"];

/// The processes of the window: the file that each obeys, and whether it can send one attempt at a
/// time only.
#[derive(Default)]
pub(super) struct Processes(HashMap<Rc<Caller>, (String, bool)>);

impl Processes {
    pub(super) fn add(&mut self, process: &Rc<Caller>, config: &str, adapters: &[String]) {
        let single =
            !adapters.is_empty() && adapters.iter().all(|name| ONE_AT_A_TIME.contains(&name.as_str()));
        self.0.insert(Rc::clone(process), (config.to_owned(), single));
    }

    /// What never happens by the rules of their files, a sentence for each.
    pub(super) fn problems(&self, source: &Source<'_>) -> Result<Vec<String>, ReportError> {
        let files: BTreeSet<&str> = self
            .0
            .values()
            .filter(|(file, single)| *single && !file.is_empty())
            .map(|(file, _)| &**file)
            .collect();
        let mut problems = Vec::new();
        for file in files {
            // A file that is gone or wrong is told of elsewhere.
            let Ok(text) = home::config_text(Path::new(file)) else { continue };
            let (config, _errors) = Config::read(file, &text);
            let hedges = config.resilience.iter().filter(|rule| rule.then.hedge.is_some());
            let hedges = hedges.map(|rule| Beside::new("hedge", rule));
            let copies = config.rollouts.iter().filter(|rule| rule.then.shadow != Share::NONE);
            let mut rules: Vec<Beside<'_>> =
                hedges.chain(copies.map(|rule| Beside::new("shadow", rule))).collect();
            if rules.is_empty() {
                continue;
            }
            source.rows(|row| {
                let by = self.0.get(row.caller).filter(|(known, _)| known == file);
                if let Some((_, single)) = by.filter(|_| !row.is_kernel()) {
                    rules.iter_mut().for_each(|rule| rule.see(row, *single));
                }
            })?;
            problems.extend(rules.iter().filter_map(|rule| rule.problem(file)));
        }
        Ok(problems)
    }
}

/// A rule that sends something beside a call.
struct Beside<'c> {
    key: &'static str,
    name: &'c str,
    line: usize,
    matcher: &'c Matcher,
    /// Calls of clients that cannot, by service, and whether others can.
    calls: u64,
    services: BTreeSet<String>,
    others_can: bool,
}

impl<'c> Beside<'c> {
    fn new<T>(key: &'static str, rule: &'c Rule<T>) -> Self {
        let Rule { name, line, matcher, .. } = rule;
        Self { key, name, line: *line, matcher, calls: 0, services: BTreeSet::new(), others_can: false }
    }

    fn see(&mut self, row: &Row<'_>, single: bool) {
        let subject = subject_of(row);
        // Of an endpoint that takes any method nobody can tell which it was.
        let may_be_safe = subject.method == "*" || SAFE.contains(&subject.method);
        if !may_be_safe || !self.matcher.matches(&subject) {
            return;
        }
        self.others_can |= !single;
        if subject.method == "*" {
            return;
        }
        self.calls += row.sums.calls;
        self.services.insert(row.caller.service.clone());
    }

    fn problem(&self, file: &str) -> Option<String> {
        let Self { key, name, line, calls, .. } = self;
        if self.others_can || *calls == 0 {
            return None;
        }
        let services: Vec<&str> = self.services.iter().map(String::as_str).collect();
        Some(format!(
            "`{key}` of the rule `{name}` (line {line} of {file}) never sends anything: all {} that it was about were made \
             by {} through requests or urllib3, where a thread makes one attempt at a time; use an async client of httpx \
             there, or remove it",
            words::count(*calls, "call"),
            words::list(&services)
        ))
    }
}
