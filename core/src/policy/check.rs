//! Rules that contradict each other, or never speak.

use super::{Kind, Mode, Policy, PolicySet, RuleIndex, Verdict};
use crate::config::Rule;
use crate::matcher::{Condition, Field, Matcher};
use std::collections::HashMap;
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
    /// Finds rules that contradict each other or never speak, at most one warning for each rule. Meant for the
    /// moment when a file is loaded; of the rules that could stand in the way of one, the first 256 without any
    /// exact text and the first 256 for each of its exact texts are looked at.
    #[must_use]
    pub fn check(&self) -> Vec<Warning> {
        let suspects = Suspects::new(self);
        let mut warnings: Vec<Warning> = Vec::new();
        for (place, &mine) in self.order.iter().enumerate() {
            let rule = &self.rules[mine as usize];
            let hidden = suspects
                .of(rule, place)
                // Where the other one's condition does not hold, this one speaks.
                .filter(|other| self.ordered(*other).then.when.is_none())
                .filter(|other| silences(self.kinds[*other], self.kinds[place]))
                .filter(|other| self.ordered(*other).matcher.covers(&rule.matcher))
                .min();
            if let Some(other) = hidden {
                warnings.push(warning(mine, rule, self.order[other], self.ordered(other)));
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

    fn ordered(&self, place: usize) -> &Rule<Policy> {
        &self.rules[self.order[place] as usize]
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

/// How many rules without any exact text, and how many that share one, are looked at for each rule.
const MAX_SUSPECTS: usize = 256;

/// The rules that may cover another. One that demands exact texts only covers rules that demand some of the same:
/// it is filed under the rarest of its things.
struct Suspects<'p> {
    /// By thing and text, the places in the order, ascending.
    by_text: HashMap<(Field, &'p str), Vec<usize>>,
    loose: Vec<usize>,
}

impl<'p> Suspects<'p> {
    fn new(set: &'p PolicySet) -> Self {
        let mut counts: HashMap<(Field, &str), usize> = HashMap::new();
        for rule in &set.rules {
            for (field, texts) in exact(&rule.matcher) {
                for text in texts {
                    *counts.entry((field, text)).or_default() += 1;
                }
            }
        }
        let mut suspects = Self { by_text: HashMap::new(), loose: Vec::new() };
        for place in 0..set.order.len() {
            let commonness = |texts: &[&str], field| {
                texts.iter().map(|text| counts.get(&(field, *text)).copied().unwrap_or(0)).sum::<usize>()
            };
            let rarest =
                exact(&set.ordered(place).matcher).min_by_key(|(field, texts)| commonness(texts, *field));
            match rarest {
                Some((field, texts)) => {
                    for text in texts {
                        suspects.by_text.entry((field, text)).or_default().push(place);
                    }
                }
                None => suspects.loose.push(place),
            }
        }
        suspects
    }

    /// The places before `place` of rules that may cover `rule`.
    fn of<'a>(&'a self, rule: &'a Rule<Policy>, place: usize) -> impl Iterator<Item = usize> + 'a {
        // Whoever covers this rule takes in each of its texts; the first is as good as any.
        let shared = exact(&rule.matcher)
            .filter_map(|(field, texts)| Some((field, *texts.first()?)))
            .filter_map(|key| self.by_text.get(&key))
            .flat_map(|places| places.iter().take(MAX_SUSPECTS));
        self.loose.iter().take(MAX_SUSPECTS).chain(shared).copied().filter(move |other| *other < place)
    }
}

/// The things of which a match demands an exact text, and those texts.
fn exact(matcher: &Matcher) -> impl Iterator<Item = (Field, Vec<&str>)> {
    matcher.conditions().iter().filter_map(|condition| match condition {
        Condition::One(field, test) => Some((*field, test.exactly()?.collect())),
        _ => None,
    })
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
