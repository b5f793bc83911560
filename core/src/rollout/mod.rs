//! Who takes which variant of a call, and the switch that ends it.
//!
//! [`Rule`] is one `[[rollout]]` of `farcall.toml`, [`Rollout`] its state. A share of the customers, or of the
//! calls, takes the new variant, chosen by a stable hash: the same customer always takes the same side, a larger
//! share keeps everybody who was in the smaller one, and two rollouts choose independently, for each is salted
//! with its name. A canary moves its share itself, by a sequential test ([`canary`](CanaryRule)).

mod canary;
mod evidence;

pub use canary::{Canary, CanaryHome, CanaryRule, CanaryStatus, Change, Evidence, RollbackReason, Sample};

use crate::call::Changes;
use crate::units::{Share, Timestamp, spread, stable_hash};
use std::fmt;
use std::sync::{Arc, Mutex};

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

    /// What its canary is kept under: the same in every process that reads this rule. A canary is another one, and
    /// starts over, with another name, variant, deal or other steps; whether it is killed, and how much it must prove,
    /// may change while it goes on.
    #[must_use]
    pub fn key(&self) -> u64 {
        // Each part ends where no part can: `a`, `bc` is not `ab`, `c`.
        let and = |key: u64, part: &str| stable_hash(stable_hash(key, part.as_bytes()), &[0xFF]);
        let Changes { host, path_prefix, headers, model } = &self.variant;
        let mut key = and(stable_hash(0, b"canary"), &self.name);
        key = and(key, if self.by == By::Call { "call" } else { "customer" });
        for part in [host, path_prefix, model] {
            key = and(key, part.as_deref().unwrap_or("\0"));
        }
        for (name, value) in headers {
            key = and(and(key, name), value);
        }
        let steps = self.canary.iter().flat_map(|canary| &canary.steps);
        steps.fold(key, |key, step| stable_hash(key, &step.ratio().to_bits().to_le_bytes()))
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

/// The side a call took, by default the old one, and in which step of the canary: what it says counts only while that
/// step lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    pub(super) new: bool,
    pub(super) step: u8,
    /// How often the canary had started over.
    pub(super) start: u16,
}

impl Side {
    /// Whether it is the new one.
    #[must_use]
    pub const fn is_new(self) -> bool {
        self.new
    }
}

/// The state of one rollout.
pub struct Rollout {
    salt: u64,
    canary: Option<CanaryHome>,
    /// Held by the thread that weighs the evidence of the canary.
    weighs: Mutex<()>,
}

impl Rollout {
    /// The state of a rollout that begins at `now`.
    #[must_use]
    pub fn new(rule: &Rule, now: Timestamp) -> Self {
        Self::at(Arc::new(Canary::new()), rule, now)
    }

    /// A rollout whose canary, if it has one, lies where other processes use it too: it goes on where it stands.
    #[must_use]
    pub fn at(canary: CanaryHome, rule: &Rule, now: Timestamp) -> Self {
        (*canary).as_ref().begin(now);
        let canary = rule.canary.is_some().then_some(canary);
        Self { salt: stable_hash(0, rule.name.as_bytes()), canary, weighs: Mutex::new(()) }
    }

    /// Chooses a side for a call. `seed` is the call's; `safe` is whether its method is
    /// ([RFC 9110, section 9.2.1](https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1)) and it has no body to
    /// copy.
    pub fn before(&self, rule: &Rule, customer: Option<&str>, seed: u64, safe: bool) -> RolloutVerdict {
        match rule.kill {
            Some(Kill::Calls) => return RolloutVerdict::Refuse,
            Some(Kill::Variant) => {
                return RolloutVerdict::Old { shadow: false, side: Side::default() };
            }
            None => {}
        }
        let (share, side) = match (self.canary(), &rule.canary) {
            (Some(canary), Some(canary_rule)) => canary.deal(canary_rule),
            _ => (rule.share, Side::default()),
        };
        let own = spread(seed ^ self.salt);
        let new = match (rule.by, customer) {
            (By::Customer, Some(customer)) => share.covers(stable_hash(self.salt, customer.as_bytes())),
            (By::Customer, None) => share == Share::ALL,
            (By::Call, _) => share.covers(own),
        };
        let side = Side { new, ..side };
        if new {
            return RolloutVerdict::New { side };
        }
        // A draw of its own: otherwise the shadows would be those that the next step takes over.
        let shadow = safe && rule.shadow.covers(spread(own));
        RolloutVerdict::Old { shadow, side }
    }

    /// Tells how a call ended. Returns what the canary does about it, once for each change.
    pub fn after(&self, rule: &Rule, side: Side, sample: Sample, now: Timestamp) -> Option<Change> {
        let (canary, rule) = (self.canary()?, rule.canary.as_ref()?);
        if !canary.record(rule, side, sample) {
            return None;
        }
        // Another thread is at it: the next look sees this call as well.
        let _weighs = self.weighs.try_lock().ok()?;
        canary.weigh(rule, side, now)
    }

    /// The canary, where the rule has one.
    #[must_use]
    pub fn canary(&self) -> Option<&Canary> {
        self.canary.as_ref().map(|canary| (**canary).as_ref())
    }
}

impl fmt::Debug for Rollout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let canary = self.canary();
        f.debug_struct("Rollout").field("salt", &self.salt).field("canary", &canary).finish_non_exhaustive()
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
    fn a_canary_is_the_same_as_long_as_its_name_variant_and_steps_are() {
        let canary = |path: &str| Rule {
            variant: Changes { path_prefix: Some(path.into()), ..Changes::default() },
            canary: Some(CanaryRule::default()),
            ..Rule::new("a", By::Call)
        };
        let (rule, mut stricter) = (canary("/v2"), canary("/v2"));
        stricter.canary.as_mut().unwrap().min_calls = 5_000;
        stricter.kill = Some(Kill::Variant);
        assert_eq!(rule.key(), stricter.key());
        let renamed = Rule { name: "b".into(), ..canary("/v2") };
        let by_customer = Rule { by: By::Customer, ..canary("/v2") };
        let header = |name: &str, value: &str| Rule {
            variant: Changes { headers: vec![(name.into(), value.into())], ..rule.variant.clone() },
            ..canary("/v2")
        };
        let host =
            Rule { variant: Changes { host: Some("/v2".into()), ..Changes::default() }, ..canary("/v2") };
        let mut shorter = canary("/v2");
        shorter.canary.as_mut().unwrap().steps.pop();
        let all = [
            rule.clone(),
            canary("/v3"),
            renamed,
            by_customer,
            header("a", "bc"),
            header("ab", "c"),
            host,
            shorter,
        ];
        let keys: std::collections::BTreeSet<u64> = all.iter().map(Rule::key).collect();
        assert_eq!(keys.len(), all.len());
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
