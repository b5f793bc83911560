//! What `[[outbox]]` says of the calls that it matches.

use crate::call::RefusedBy;
use crate::resilience::Triggers;
use std::time::Duration;

/// What a rule says.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// Which of its calls are parked when they fail; `None` where the rule says nothing about that.
    pub park: Option<Park>,
    /// `critical`: whether somebody is told of the first failed attempt; `None` where it says nothing about that.
    pub critical: Option<bool>,
}

impl Rule {
    /// A rule that says so.
    #[must_use]
    pub const fn new(park: Option<Park>, critical: Option<bool>) -> Self {
        Self { park, critical }
    }
}

/// Which calls are parked, and on what terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Park {
    /// `park_on`: the endings of a last attempt after which a call is parked.
    pub on: Triggers,
    /// `park_on`: the refusals after which it is.
    pub refused: Refusals,
    /// `duplicates`: whether it is parked even where the vendor may act on it twice.
    pub duplicates: bool,
    /// `safe_methods`: whether GET, HEAD, OPTIONS and TRACE are parked as well.
    pub safe_methods: bool,
    /// `idempotency_header`: the field that this vendor takes as an idempotency key, where the catalogue does not know
    /// one.
    pub idempotency_header: Option<Box<str>>,
    /// `ordered_by`: which parked calls are delivered one after the other.
    pub ordered_by: OrderedBy,
    /// `max_age`: how long delivery is tried; `None` for as long as the outbox does by itself.
    pub max_age: Option<Duration>,
    /// `max_attempts`: how often.
    pub max_attempts: Option<u32>,
    /// `answer`: the status that the application gets.
    pub answer: u16,
}

impl Default for Park {
    fn default() -> Self {
        Self {
            on: Triggers::TRANSIENT.error(crate::call::ErrorType::Tls),
            refused: Refusals::PASSING,
            duplicates: false,
            safe_methods: false,
            idempotency_header: None,
            ordered_by: OrderedBy::Nothing,
            max_age: None,
            max_attempts: None,
            answer: 202,
        }
    }
}

/// Which parked calls are delivered one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrderedBy {
    /// None: each when it is due.
    #[default]
    Nothing,
    /// Those of one customer and rule.
    Customer,
    /// All of the rule.
    Rule,
}

/// A set of concepts that refuse calls.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals(u16);

impl Refusals {
    /// No refusal.
    pub const NONE: Self = Self(0);
    /// Those that pass with time: breaker, quota, budget and concurrency.
    pub const PASSING: Self = Self::NONE
        .with(RefusedBy::Breaker)
        .with(RefusedBy::Quota)
        .with(RefusedBy::Budget)
        .with(RefusedBy::Concurrency);

    /// With this one.
    #[must_use]
    pub const fn with(self, by: RefusedBy) -> Self {
        Self(self.0 | 1 << by as u16)
    }

    /// Whether it is one of them.
    #[must_use]
    pub const fn has(self, by: RefusedBy) -> bool {
        self.0 & 1 << by as u16 != 0
    }

    /// With what a word of the configuration stands for; `None` for a word that stands for no refusal that passes.
    #[must_use]
    pub fn word(self, word: &str) -> Option<Self> {
        let all = [
            RefusedBy::Breaker,
            RefusedBy::Quota,
            RefusedBy::Budget,
            RefusedBy::Concurrency,
            RefusedBy::Deadline,
        ];
        all.into_iter().find(|by| by.as_str() == word).map(|by| self.with(by))
    }
}

impl std::fmt::Debug for Refusals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let them = RefusedBy::ALL.into_iter().filter(|by| self.has(*by));
        f.debug_set().entries(them.map(RefusedBy::as_str)).finish()
    }
}
