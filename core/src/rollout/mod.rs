//! Who takes which variant of a call, and the switch that ends it.
//!
//! [`Rule`] is one `[[rollout]]` of `farcall.toml`, [`Rollout`] its state. A share of the customers, or of the
//! calls, takes the new variant, chosen by a stable hash: the same customer always takes the same side, a larger
//! share keeps everybody who was in the smaller one, and two rollouts choose independently, for each is salted
//! with its name. A canary moves its share itself, by a sequential test ([`canary`](CanaryRule)).

mod canary;
mod evidence;

pub use canary::{Canary, CanaryRule, CanaryStatus, Change, Evidence, RollbackReason, Sample};

use crate::call::Changes;
use crate::units::{Share, Timestamp, spread, stable_hash};

/// One `[[rollout]]`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// `name`: what it is called, and the salt of its hash. Renaming a rollout deals customers anew.
    pub name: Box<str>,
    /// `by`: what is dealt out.
    pub by: By,
    /// `share`: how much takes the new variant; the first step of a canary.
    pub share: Share,
    /// `variant`: what the new variant changes in a request.
    pub variant: Changes,
    /// `canary`: how the share grows by itself.
    pub canary: Option<CanaryRule>,
    /// `shadow`: which share of the safe calls on the old side is also sent, as a copy, to the variant.
    pub shadow: Share,
    /// `kill`.
    pub kill: Option<Kill>,
}

impl Rule {
    /// A rollout of this name to nobody.
    #[must_use]
    pub fn new(name: &str, by: By) -> Self {
        Self {
            name: name.into(),
            by,
            share: Share::NONE,
            variant: Changes::default(),
            canary: None,
            shadow: Share::NONE,
            kill: None,
        }
    }
}

/// What a rollout deals out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Customers: each takes one side with all its calls. Calls without a customer stay on the old side until
    /// the share is 100%.
    Customer,
    /// Calls.
    Call,
}

/// What a kill switch does with the calls that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// All take the old side, and no shadows are sent: `kill = true` in a rule with a variant.
    Variant,
    /// None is sent: `kill = true` in a rule without one.
    Calls,
}

/// What a rollout says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RolloutVerdict {
    /// The call stays as it is.
    Old {
        /// Whether a copy of it goes to the variant as well. Its answer is measured and thrown away.
        shadow: bool,
        /// To be given back with the call's [`Sample`].
        side: Side,
    },
    /// The call takes the rule's variant.
    New {
        /// To be given back with the call's [`Sample`].
        side: Side,
    },
    /// The call is not sent: its vendor or endpoint is switched off.
    Refuse,
}

/// The side a call took, and in which step of the canary: what it says counts only while that step lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    pub(super) new: bool,
    pub(super) step: u8,
}

impl Side {
    /// Whether it is the new one.
    #[must_use]
    pub const fn is_new(self) -> bool {
        self.new
    }
}

/// The state of one rollout.
#[derive(Debug)]
pub struct Rollout {
    salt: u64,
    canary: Option<Canary>,
}

impl Rollout {
    /// The state of a rollout that begins at `now`.
    #[must_use]
    pub fn new(rule: &Rule, now: Timestamp) -> Self {
        Self {
            salt: stable_hash(0, rule.name.as_bytes()),
            canary: rule.canary.as_ref().map(|canary| Canary::new(canary, now)),
        }
    }

    /// The state after a reload at `now` that replaced the rule `old` by `rule`. A canary goes on where it was,
    /// also where that is rolled back, as long as it is the same: of the same name, variant and steps. Otherwise
    /// it starts over.
    #[must_use]
    pub fn reloaded(&self, old: &Rule, rule: &Rule, now: Timestamp) -> Self {
        let new = Self::new(rule, now);
        let steps = |rule: &Rule| rule.canary.as_ref().map(|canary| canary.steps.clone());
        let same = old.name == rule.name && old.variant == rule.variant && steps(old) == steps(rule);
        if let (true, Some(before), Some(after)) = (same, &self.canary, &new.canary) {
            after.resume(before.status(), now);
        }
        new
    }

    /// Chooses a side for a call. `seed` is the call's; `safe` is whether its method is
    /// ([RFC 9110, section 9.2.1](https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1)) and it has no body to
    /// copy.
    pub fn before(&self, rule: &Rule, customer: Option<&str>, seed: u64, safe: bool) -> RolloutVerdict {
        match rule.kill {
            Some(Kill::Calls) => return RolloutVerdict::Refuse,
            Some(Kill::Variant) => {
                return RolloutVerdict::Old { shadow: false, side: Side { new: false, step: 0 } };
            }
            None => {}
        }
        let (share, step) = match (&self.canary, &rule.canary) {
            (Some(canary), Some(canary_rule)) => canary.share(canary_rule),
            _ => (rule.share, 0),
        };
        let own = spread(seed ^ self.salt);
        let new = match (rule.by, customer) {
            (By::Customer, Some(customer)) => share.covers(stable_hash(self.salt, customer.as_bytes())),
            (By::Customer, None) => share == Share::ALL,
            (By::Call, _) => share.covers(own),
        };
        let side = Side { new, step };
        if new {
            return RolloutVerdict::New { side };
        }
        // A draw of its own: otherwise the shadows would be those that the next step takes over.
        let shadow = safe && rule.shadow.covers(spread(own));
        RolloutVerdict::Old { shadow, side }
    }

    /// Tells how a call ended. Returns what the canary does about it, once for each change.
    pub fn after(&self, rule: &Rule, side: Side, sample: Sample, now: Timestamp) -> Option<Change> {
        let (canary, rule) = (self.canary.as_ref()?, rule.canary.as_ref()?);
        canary.record(rule, side, sample, now)
    }

    /// The canary, where the rule has one.
    #[must_use]
    pub fn canary(&self) -> Option<&Canary> {
        self.canary.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(name: &str, by: By, share: f64) -> Rule {
        Rule { share: Share::from_ratio(share).unwrap(), ..Rule::new(name, by) }
    }

    fn takes_new(rule: &Rule, customer: Option<&str>, seed: u64) -> bool {
        let rollout = Rollout::new(rule, Timestamp::EPOCH);
        matches!(rollout.before(rule, customer, seed, true), RolloutVerdict::New { .. })
    }

    #[test]
    fn a_share_of_the_customers_takes_the_new_side() {
        let rule = rule("eu-host", By::Customer, 0.05);
        let new = (0..20_000).filter(|n| takes_new(&rule, Some(&format!("customer-{n}")), 0)).count();
        assert!((850..=1_150).contains(&new), "{new}");
    }

    #[test]
    fn rollouts_choose_independently_of_each_other() {
        let (a, b) = (rule("a", By::Customer, 0.5), rule("b", By::Customer, 0.5));
        let both = (0..20_000).map(|n| format!("customer-{n}"));
        let both = both.filter(|name| takes_new(&a, Some(name), 0) && takes_new(&b, Some(name), 0)).count();
        assert!((4_750..=5_250).contains(&both), "{both}");
    }

    #[test]
    fn calls_without_a_customer_stay_until_the_end() {
        assert!(!takes_new(&rule("a", By::Customer, 0.999), None, 3));
        assert!(takes_new(&rule("a", By::Customer, 1.0), None, 3));
    }

    #[test]
    fn shadows_are_copies_of_safe_calls_only() {
        let rule = Rule { shadow: Share::from_ratio(0.1).unwrap(), ..rule("a", By::Call, 0.2) };
        let rollout = Rollout::new(&rule, Timestamp::EPOCH);
        let (mut shadows, mut old) = (0, 0);
        for seed in 0..20_000 {
            assert!(!matches!(
                rollout.before(&rule, None, seed, false),
                RolloutVerdict::Old { shadow: true, .. }
            ));
            if let RolloutVerdict::Old { shadow, .. } = rollout.before(&rule, None, seed, true) {
                (shadows, old) = (shadows + u32::from(shadow), old + 1);
            }
        }
        let share = f64::from(shadows) / f64::from(old);
        assert!((0.09..=0.11).contains(&share), "{share}");
    }

    #[test]
    fn the_kill_switch_ends_the_variant_or_the_calls() {
        let killed = Rule { kill: Some(Kill::Variant), shadow: Share::ALL, ..rule("a", By::Call, 1.0) };
        let rollout = Rollout::new(&killed, Timestamp::EPOCH);
        assert!(matches!(rollout.before(&killed, None, 1, true), RolloutVerdict::Old { shadow: false, .. }));
        let refused = Rule { kill: Some(Kill::Calls), ..killed };
        assert_eq!(rollout.before(&refused, None, 1, true), RolloutVerdict::Refuse);
    }

    #[test]
    fn a_reload_keeps_the_step_of_the_same_canary_and_starts_another_one_over() {
        let canary = |path: &str| Rule {
            variant: Changes { path_prefix: Some(path.into()), ..Changes::default() },
            canary: Some(CanaryRule::default()),
            ..Rule::new("a", By::Call)
        };
        let (rule, other, now) = (canary("/v2"), canary("/v3"), Timestamp::EPOCH);
        let rollout = Rollout::new(&rule, now);
        for status in [CanaryStatus::Step(2), CanaryStatus::RolledBack, CanaryStatus::Finished] {
            rollout.canary().unwrap().resume(status, now);
            let killed = Rule { kill: Some(Kill::Variant), ..rule.clone() };
            assert_eq!(rollout.reloaded(&rule, &killed, now).canary().unwrap().status(), status);
            let over = rollout.reloaded(&rule, &other, now);
            assert_eq!(over.canary().unwrap().status(), CanaryStatus::Step(0));
        }
    }

    proptest! {
        #[test]
        fn who_is_in_stays_in_as_the_share_grows(
            customer in "\\PC{0,20}", seed: u64, a in 0.0f64..=1.0, b in 0.0f64..=1.0,
            by in prop::sample::select(vec![By::Customer, By::Call]),
        ) {
            let (small, large) = (rule("x", by, a.min(b)), rule("x", by, a.max(b)));
            prop_assert!(!takes_new(&small, Some(&customer), seed) || takes_new(&large, Some(&customer), seed));
        }

        #[test]
        fn a_customer_never_changes_sides_by_itself(customer in "\\PC{0,20}", one: u64, other: u64) {
            let rule = rule("x", By::Customer, 0.5);
            prop_assert_eq!(takes_new(&rule, Some(&customer), one), takes_new(&rule, Some(&customer), other));
        }
    }
}
