//! What one vendor said to one credential: a quota for each policy that it ever stated.

use super::states::Key;
use crate::quota::dialect::{Dialect, Statement, Unit};
use crate::quota::{self, State};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// Policies of one vendor and credential; vendors state up to four.
const MAX_POLICIES: usize = 6;

/// The quotas of one vendor and credential. Policies are found without a lock; the first statement of one makes
/// its quota.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) vendor: Arc<str>,
    /// Stands for the credential.
    pub(super) secret: u64,
    policies: [OnceLock<Stated>; MAX_POLICIES],
    /// Answers that said nothing, of a vendor that is not known to say anything.
    silent: AtomicU32,
}

/// After so many silent answers of an unknown vendor only one in 64 is looked at.
const SILENT: u32 = 16;

/// A policy that the vendor stated.
#[derive(Debug)]
pub(super) struct Stated {
    policy: u16,
    pub(super) unit: Option<Unit>,
    pub(super) name: Arc<str>,
    pub(super) state: Arc<State>,
}

/// The policy of refusals that belong to none that was stated.
const UNNAMED: u16 = u16::MAX;

impl Account {
    pub(super) fn new(vendor: &str, secret: u64) -> Self {
        Self {
            vendor: vendor.into(),
            secret,
            policies: [const { OnceLock::new() }; MAX_POLICIES],
            silent: AtomicU32::new(0),
        }
    }

    /// Whether an answer with a good status is worth a look, of a vendor that is not known to state its quotas.
    /// `draw` is any number that differs from call to call.
    pub(super) fn may_speak(&self, draw: u64) -> bool {
        if self.policies[0].get().is_some() {
            return true;
        }
        // Read before it is written: that threads write the same word costs more than the look does.
        let looks = self.silent.load(Ordering::Relaxed) < SILENT;
        if looks {
            self.silent.fetch_add(1, Ordering::Relaxed);
        }
        looks || draw.is_multiple_of(64)
    }

    /// The quotas that were stated so far.
    pub(super) fn stated(&self) -> impl Iterator<Item = &Stated> {
        self.policies.iter().map_while(OnceLock::get)
    }

    /// The quota that a statement is about; `None` where there are too many.
    pub(super) fn of(
        &self,
        statement: &Statement,
        dialect: &Dialect,
        make: impl Fn(Key) -> State,
    ) -> Option<&Stated> {
        let name = || match statement.name.as_str() {
            "" => dialect.policy(statement.policy).unwrap_or("default").to_owned(),
            name => name.to_owned(),
        };
        self.find(statement.policy.number(), Some(statement.unit), name, make)
    }

    /// The quota of calls in general: where a refusal belongs that states no policy.
    pub(super) fn unnamed(&self, make: impl Fn(Key) -> State) -> Option<&Stated> {
        self.find(UNNAMED, None, || "unstated".to_owned(), make)
    }

    fn find(
        &self,
        policy: u16,
        unit: Option<Unit>,
        name: impl Fn() -> String,
        make: impl Fn(Key) -> State,
    ) -> Option<&Stated> {
        for slot in &self.policies {
            let stated = slot.get_or_init(|| {
                let name = name();
                let key = Key::of("vendor").and(&self.vendor).and_number(self.secret).and(&name);
                Stated { policy, unit, name: name.into(), state: Arc::new(make(key)) }
            });
            if stated.policy == policy && stated.unit == unit {
                return Some(stated);
            }
        }
        None
    }
}

impl Stated {
    /// How many units of this quota a call uses that has so many tokens.
    pub(super) fn units(&self, tokens: u64) -> u64 {
        match self.unit {
            Some(Unit::Requests) | None => 1,
            Some(Unit::Tokens | Unit::InputTokens | Unit::OutputTokens) => tokens,
            Some(_) => 1,
        }
    }

    /// Whether it is counted in what calls use of it, and not in something that only the vendor knows.
    pub(super) fn is_countable(&self) -> bool {
        !matches!(self.unit, Some(Unit::Cost | Unit::Points | Unit::Bytes | Unit::Concurrency))
    }
}

/// The same in the words of the quota.
pub(super) fn stated(statement: &Statement) -> quota::Stated {
    quota::Stated {
        limit: statement.limit,
        remaining: statement.remaining,
        resets_at: statement.resets_at,
        window: statement.window,
    }
}
