//! Rules that contradict each other, or never speak.

use super::{Kind, Mode, Policy, PolicySet, RuleIndex, Verdict};
use crate::config::Rule;
use std::fmt;

/// Something about the rules that is allowed, and surely not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// The rule that it is about.
    pub rule: RuleIndex,
    /// The rule that is in its way.
    pub by: RuleIndex,
    /// What is the matter.
    pub problem: Problem,
    text: String,
}

/// What can be the matter with two rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Problem {
    /// The same calls are allowed by one and denied by the other.
    Contradiction,
    /// Whatever calls one is about, the other speaks before it.
    Unreachable,
}

/// What is the matter, with the lines of both rules and a remedy.
impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PolicySet {
    /// Finds rules that contradict each other or never speak, at most one warning for each rule. Takes time
    /// that grows with the square of the number of rules; meant for the moment when a file is loaded.
    #[must_use]
    pub fn check(&self) -> Vec<Warning> {
        let mut warnings: Vec<Warning> = Vec::new();
        for (place, &mine) in self.order.iter().enumerate() {
            let rule = &self.rules[mine as usize];
            let before = self.order.iter().zip(&self.kinds).take(place);
            let hidden = before
                // Where the other one's condition does not hold, this one speaks.
                .filter(|(other, kind)| {
                    self.rules[**other as usize].then.when.is_none() && silences(**kind, self.kinds[place])
                })
                .map(|(other, _)| *other)
                .find(|other| self.rules[*other as usize].matcher.covers(&rule.matcher));
            if let Some(other) = hidden {
                warnings.push(warning(mine, rule, other, &self.rules[other as usize]));
            } else if self.kinds[place] == Kind::FinalDeny
                && let Some(other) = self.lifted_by(rule)
            {
                let text = format!(
                    "{} never denies anything: {} allows all of its calls; narrow one of them",
                    name(rule),
                    name(&self.rules[other as usize])
                );
                let (rule, by) = (RuleIndex(mine), RuleIndex(other));
                warnings.push(Warning { rule, by, problem: Problem::Unreachable, text });
            }
        }
        warnings.sort_by_key(|warning| warning.rule);
        warnings
    }

    /// A rule that allows all that a final denial is about.
    fn lifted_by(&self, denial: &Rule<Policy>) -> Option<u32> {
        let mut others = self.order.iter().zip(&self.kinds);
        others
            .find(|(other, kind)| {
                let other = &self.rules[**other as usize];
                matches!(kind, Kind::Allow | Kind::Throttle)
                    && other.then.when.is_none()
                    && other.matcher.covers(&denial.matcher)
            })
            .map(|(other, _)| *other)
    }
}

/// Whether a rule of kind `first` that is asked before one of kind `second`, about all the same calls, leaves
/// the other nothing to decide.
fn silences(first: Kind, second: Kind) -> bool {
    match first {
        Kind::Deny => true,
        // Other rules still warn, allow or are reported beside these.
        Kind::Throttle | Kind::Warn | Kind::Allow => first == second,
        Kind::FinalDeny | Kind::ReportedDeny | Kind::ReportedThrottle | Kind::ReportedFinalDeny => {
            first == second
        }
    }
}

fn warning(mine: u32, rule: &Rule<Policy>, other: u32, by: &Rule<Policy>) -> Warning {
    let allows = matches!(rule.then.verdict, Verdict::Allow | Verdict::Throttle);
    let contradiction = allows && by.then.verdict == Verdict::Deny && rule.matcher.covers(&by.matcher);
    let (problem, text) = if contradiction {
        let text = format!(
            "{} and {} are about the same calls: one says {}, the other deny, and deny holds; remove one",
            name(rule),
            name(by),
            rule.then.verdict.as_str(),
        );
        (Problem::Contradiction, text)
    } else {
        let mode = if by.then.mode == Mode::Report { " in report mode" } else { "" };
        let text = format!(
            "{} is never reached: {}, which says {}{mode}, decides all of its calls first; remove it, or narrow the other",
            name(rule),
            name(by),
            by.then.verdict.as_str(),
        );
        (Problem::Unreachable, text)
    };
    Warning { rule: RuleIndex(mine), by: RuleIndex(other), problem, text }
}

fn name(rule: &Rule<Policy>) -> String {
    if rule.line == 0 {
        return format!("the rule `{}`", rule.name);
    }
    format!("the rule `{}` in line {}", rule.name, rule.line)
}
