//! Policy: which calls may be made at all.
//!
//! A [`PolicySet`] holds the `[[policy]]` rules of a file and says for a call which of them decides:
//!
//! 1. A rule that denies comes first,
//! 2. then one that throttles,
//! 3. then one that warns,
//! 4. then one that allows,
//! 5. then one that denies with `final = true`, which only speaks where none of 2 and 4 did.
//!
//! Among rules of one kind the most specific match decides ([`Specificity`](crate::matcher::Specificity)), and
//! among equally specific ones the earlier in the file. Where no rule matches, the call passes. A rule in report
//! mode decides nothing; the decision says what it would have done.

mod backtest;
mod check;
mod condition;
mod index;
mod places;
mod recommend;
mod rule;

pub use backtest::{Effects, Observed, RuleEffects, backtest};
pub use check::{Problem, Warning};
pub use condition::{BadCondition, Condition, Untold};
pub use recommend::{Recommendation, recommend};
pub use rule::{Mode, OnError, Policy, Rate, Verdict};

use crate::config::Rule;
use crate::matcher::{Fields, Subject};
use index::Index;
use std::cmp::Reverse;

/// A rule by its place in the file, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIndex(u32);

impl RuleIndex {
    /// The place.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// What the policy says of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// What becomes of it.
    pub verdict: Verdict,
    /// The rule that decided; none where no rule is about this call.
    pub rule: Option<RuleIndex>,
    /// A rule that warns of the call, whatever else was decided.
    pub warned: Option<RuleIndex>,
    /// A rule in report mode that would have denied or throttled the call.
    pub would: Option<RuleIndex>,
    /// What that rule would have done; [`Verdict::Allow`] where there is none.
    pub would_be: Verdict,
    /// How many conditions could not be told.
    pub errors: u32,
    /// A rule whose condition could not be told: the one that decided, where it refuses for that; else the first.
    pub untold: Option<RuleIndex>,
}

impl Decision {
    /// Whether there is nothing to do or to say: the call passes, and no rule has anything to tell of it.
    pub(crate) fn is_silent(&self) -> bool {
        self.verdict != Verdict::Deny && self.warned.or(self.would).or(self.untold).is_none()
    }
}

/// A rule that matches a call, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explained {
    /// The rule.
    pub rule: RuleIndex,
    /// What it says of this call; a denial where its condition could not be told and it refuses then.
    pub verdict: Verdict,
    /// Whether it decided.
    pub decided: bool,
    /// Whether its condition could not be told.
    pub untold: bool,
}

/// The rules of `[[policy]]`, made ready for lookups.
#[derive(Clone, Debug)]
pub struct PolicySet {
    rules: Box<[Rule<Policy>]>,
    /// The places of the rules in the order in which they are asked.
    order: Box<[u32]>,
    /// For each of `order` what it decides.
    kinds: Box<[Kind]>,
    index: Index,
    depends: Fields,
}

/// What a rule decides, in the order of the decision. Of each kind the first rule that matches counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Deny,
    Throttle,
    Warn,
    Allow,
    FinalDeny,
    ReportedDeny,
    ReportedThrottle,
    ReportedFinalDeny,
}

const KINDS: usize = 8;

impl Kind {
    fn of(policy: &Policy) -> Self {
        match (policy.verdict, policy.mode) {
            (Verdict::Deny, Mode::Enforce) if policy.is_final => Self::FinalDeny,
            (Verdict::Deny, Mode::Enforce) => Self::Deny,
            (Verdict::Deny, Mode::Report) if policy.is_final => Self::ReportedFinalDeny,
            (Verdict::Deny, Mode::Report) => Self::ReportedDeny,
            (Verdict::Throttle, Mode::Enforce) => Self::Throttle,
            (Verdict::Throttle, Mode::Report) => Self::ReportedThrottle,
            // These stop nothing, so that there is nothing to report instead.
            (Verdict::Warn, _) => Self::Warn,
            (Verdict::Allow, _) => Self::Allow,
        }
    }
}

/// What rules were found for a call, by their places in the order.
struct Found {
    /// For each kind the first that matched.
    first: [u32; KINDS],
    /// How many conditions could not be told.
    errors: u32,
    /// The first of these.
    untold: u32,
    /// The first of these that refuses the call for it.
    refuses: u32,
}

impl Found {
    const NONE: u32 = u32::MAX;

    fn new() -> Self {
        Self { first: [Self::NONE; KINDS], errors: 0, untold: Self::NONE, refuses: Self::NONE }
    }

    fn get(&self, kind: Kind) -> u32 {
        self.first[kind as usize]
    }

    fn note(&mut self, kind: Kind, place: u32) {
        let slot = &mut self.first[kind as usize];
        *slot = (*slot).min(place);
    }

    fn note_untold(&mut self, place: u32) {
        self.errors += 1;
        self.untold = self.untold.min(place);
    }

    fn has(&self, kind: Kind) -> bool {
        self.get(kind) != Self::NONE
    }
}

impl Default for PolicySet {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl PolicySet {
    /// Makes rules ready.
    #[must_use]
    pub fn new(rules: Vec<Rule<Policy>>) -> Self {
        let mut order: Vec<u32> = (0..u32::try_from(rules.len()).unwrap_or(u32::MAX)).collect();
        order.sort_by_key(|&place| {
            let rule = &rules[place as usize];
            (Kind::of(&rule.then), Reverse(rule.matcher.specificity()), place)
        });
        let in_order = || order.iter().map(|&place| &rules[place as usize]);
        let kinds = in_order().map(|rule| Kind::of(&rule.then)).collect();
        let index = Index::new(&in_order().map(|rule| &rule.matcher).collect::<Vec<_>>());
        let depends = rules.iter().fold(Fields::NONE, |all, rule| {
            let condition = rule.then.when.as_ref().map_or(Fields::NONE, Condition::depends);
            all | rule.matcher.depends() | condition
        });
        Self { order: order.into(), kinds, index, depends, rules: rules.into() }
    }

    /// The rules, in the order of the file.
    #[must_use]
    pub fn rules(&self) -> &[Rule<Policy>] {
        &self.rules
    }

    /// The rule of a decision.
    ///
    /// # Panics
    /// For an index from another set with more rules.
    #[must_use]
    pub fn rule(&self, index: RuleIndex) -> &Rule<Policy> {
        &self.rules[index.get()]
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What its decisions look at: two calls that agree in these get the same one.
    #[must_use]
    pub fn depends(&self) -> Fields {
        self.depends
    }

    /// What the rules say of a call. Allocates nothing, unless a rule with a condition is asked. What it costs
    /// depends on the number of rules about calls like this one, not on the number of all rules.
    #[must_use]
    pub fn decide(&self, subject: &Subject<'_>) -> Decision {
        let mut found = Found::new();
        self.index.each_bucket(subject, |bucket| {
            for &place in bucket {
                // Nothing that is asked later than an enforced denial can change the decision.
                if place > found.get(Kind::Deny) {
                    return;
                }
                let kind = self.kinds[place as usize];
                if place < found.get(kind) {
                    self.ask(place, kind, subject, &mut found);
                }
            }
        });
        self.conclude(&found)
    }

    /// Every rule that matches a call, in the order in which they are asked; the decision is that of
    /// [`PolicySet::decide`].
    #[must_use]
    pub fn explain(&self, subject: &Subject<'_>) -> (Decision, Vec<Explained>) {
        let decision = self.decide(subject);
        let places = 0..u32::try_from(self.order.len()).unwrap_or(u32::MAX);
        let explained = places.filter_map(|place| self.explain_at(place, subject, &decision)).collect();
        (decision, explained)
    }

    /// What one rule says of a call; `None` where it is not about the call. Its matcher's
    /// [`unmet`](crate::matcher::Matcher::unmet) tells why.
    #[must_use]
    pub fn explain_rule(&self, rule: RuleIndex, subject: &Subject<'_>) -> Option<Explained> {
        let place = self.order.iter().position(|place| *place == rule.0)?;
        self.explain_at(u32::try_from(place).ok()?, subject, &self.decide(subject))
    }

    /// The rule of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<RuleIndex> {
        let place = self.rules.iter().position(|rule| rule.name.as_ref() == name)?;
        u32::try_from(place).ok().map(RuleIndex)
    }

    fn explain_at(&self, place: u32, subject: &Subject<'_>, decision: &Decision) -> Option<Explained> {
        let mut found = Found::new();
        let kind = self.kinds[place as usize];
        let rule = RuleIndex(self.order[place as usize]);
        self.ask(place, kind, subject, &mut found);
        let errors = found.errors;
        let verdict = if found.has(kind) && errors == 0 {
            self.rule(rule).then.verdict
        } else if found.has(Kind::Deny) || found.has(Kind::ReportedDeny) {
            Verdict::Deny
        } else if errors > 0 {
            Verdict::Allow
        } else {
            return None;
        };
        Some(Explained { rule, verdict, decided: decision.rule == Some(rule), untold: errors > 0 })
    }

    /// Asks one rule, and notes under its kind that it matches.
    fn ask(&self, place: u32, kind: Kind, subject: &Subject<'_>, found: &mut Found) {
        let rule = &self.rules[self.order[place as usize] as usize];
        if !rule.matcher.matches(subject) {
            return;
        }
        let Some(condition) = &rule.then.when else {
            found.note(kind, place);
            return;
        };
        match condition.holds(subject) {
            Ok(true) => found.note(kind, place),
            Ok(false) => {}
            Err(_) => {
                found.note_untold(place);
                match (rule.then.on_error, rule.then.mode) {
                    (OnError::Refuse, Mode::Enforce) => {
                        found.note(Kind::Deny, place);
                        found.refuses = found.refuses.min(place);
                    }
                    (OnError::Refuse, Mode::Report) => found.note(Kind::ReportedDeny, place),
                    // What would have lifted a final denial does: a fault of ours refuses nothing.
                    (OnError::Allow, _) if matches!(kind, Kind::Allow | Kind::Throttle) => {
                        found.note(Kind::Allow, place);
                    }
                    (OnError::Allow, _) => {}
                }
            }
        }
    }

    fn conclude(&self, found: &Found) -> Decision {
        let rule_at = |place: u32| self.order.get(place as usize).map(|&place| RuleIndex(place));
        let rule = |kind| rule_at(found.get(kind));
        let lifted = found.has(Kind::Throttle) || found.has(Kind::Allow);
        let (verdict, decided_by) = if found.has(Kind::Deny) {
            (Verdict::Deny, rule(Kind::Deny))
        } else if found.has(Kind::FinalDeny) && !lifted {
            (Verdict::Deny, rule(Kind::FinalDeny))
        } else if found.has(Kind::Throttle) {
            (Verdict::Throttle, rule(Kind::Throttle))
        } else if found.has(Kind::Warn) {
            (Verdict::Warn, rule(Kind::Warn))
        } else {
            (Verdict::Allow, rule(Kind::Allow))
        };
        let would = match verdict {
            Verdict::Deny => None,
            _ if found.has(Kind::ReportedDeny) => Some((Kind::ReportedDeny, Verdict::Deny)),
            _ if found.has(Kind::ReportedFinalDeny) && !lifted && !found.has(Kind::ReportedThrottle) => {
                Some((Kind::ReportedFinalDeny, Verdict::Deny))
            }
            Verdict::Throttle => None,
            _ => Some((Kind::ReportedThrottle, Verdict::Throttle)),
        };
        let would = would.and_then(|(kind, would_be)| Some((rule(kind)?, would_be)));
        let (would, would_be) = would.map_or((None, Verdict::Allow), |(rule, be)| (Some(rule), be));
        let warned = if verdict == Verdict::Deny { None } else { rule(Kind::Warn) };
        let refuses = found.has(Kind::Deny) && found.refuses == found.get(Kind::Deny);
        let untold = rule_at(if refuses { found.refuses } else { found.untold });
        Decision { verdict, rule: decided_by, warned, would, would_be, errors: found.errors, untold }
    }
}

#[cfg(test)]
mod tests;
