//! `[[data]]`: the kinds of data that requests carry, as people declare them.

use crate::config::Rule;
use crate::matcher::Subject;

/// What follows from the match of a `[[data]]` rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Carried {
    /// `kinds`: what the requests hold: `card`, `email`, or any other word.
    pub kinds: Vec<String>,
}

/// The kinds of data that all rules which match declare of a call, each once, in the order of the file.
#[must_use]
pub fn carried<'r>(rules: &'r [Rule<Carried>], subject: &Subject<'_>) -> Vec<&'r str> {
    let mut kinds = Vec::new();
    for rule in rules.iter().filter(|rule| rule.matcher.matches(subject)) {
        for kind in &rule.then.kinds {
            if !kinds.contains(&kind.as_str()) {
                kinds.push(kind.as_str());
            }
        }
    }
    kinds
}
