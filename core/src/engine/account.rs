//! What one vendor said to one credential: a quota for each policy that it ever stated, apart for each model or
//! endpoint where the policy counts those apart.

use super::states::Key;
use crate::cost::{Kind, Usage};
use crate::quota::dialect::{Dialect, Scope, Statement, Unit};
use crate::quota::{self, NamedStanding, State};
use crate::units::{Timestamp, stable_hash};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Policies of one vendor and credential; vendors state up to four.
const MAX_POLICIES: usize = 6;
/// Policies that count models or endpoints apart, of all of these together.
const MAX_SCOPED: usize = 64;
/// Policies that one call is asked about, of either kind.
pub(super) const MAX_ASKED: usize = 4;

/// The quotas of one vendor and credential. Policies are found without a lock; the first statement of one makes
/// its quota.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) vendor: Arc<str>,
    /// Stands for the credential.
    pub(super) secret: u64,
    /// The rule that says how they are kept to; empty where they are only watched.
    rule: Arc<str>,
    policies: [OnceLock<Stated>; MAX_POLICIES],
    /// Those that are not about all calls of the credential.
    scoped: OnceLock<Box<[OnceLock<Stated>; MAX_SCOPED]>>,
    /// Which of these the answers from an endpoint named last.
    named: OnceLock<Arc<Named>>,
    /// Answers that said nothing, of a vendor that is not known to say anything.
    silent: AtomicU32,
    /// Whether it is of other programs' calls, seen from outside: what these carry, nobody counts.
    overheard: bool,
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
    scope: ScopeOf,
    /// The mark of what was told of it last.
    told: AtomicU64,
    /// Whether a call of this engine asked it, or an answer spoke of it, since it was told of: others who share it tell of
    /// theirs.
    used: AtomicBool,
}

/// The policy of refusals that belong to none that was stated.
const UNNAMED: u16 = u16::MAX;

/// Which of a credential's calls a policy counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScopeOf {
    /// All of them.
    Credential,
    /// All calls to the vendor, whatever their credential.
    Vendor,
    /// Those for this model; of calls whose model nobody knows, those.
    Model(u64),
    /// Those to this endpoint.
    Endpoint(u64),
    /// Those to endpoints whose answers name the policy.
    Named,
}

/// What a call is, as far as scopes go.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// The model's number; that of the empty name where nobody knows it.
    pub(super) model: u64,
    /// The endpoint's number.
    pub(super) endpoint: u64,
    /// Which of the account's policies answers from there named last, when the call began: a bit for each.
    pub(super) named: u64,
}

impl Place {
    /// The number of a model or an endpoint.
    pub(super) fn number(name: &str) -> u64 {
        stable_hash(0, name.as_bytes())
    }

    fn scope(&self, scope: Scope) -> ScopeOf {
        match scope {
            Scope::Credential => ScopeOf::Credential,
            Scope::Vendor => ScopeOf::Vendor,
            Scope::Model => ScopeOf::Model(self.model),
            Scope::Endpoint => ScopeOf::Endpoint(self.endpoint),
            Scope::Named => ScopeOf::Named,
        }
    }

    fn is_in(&self, scope: ScopeOf, at: usize) -> bool {
        match scope {
            ScopeOf::Credential | ScopeOf::Vendor => true,
            ScopeOf::Model(number) => number == self.model,
            ScopeOf::Endpoint(number) => number == self.endpoint,
            ScopeOf::Named => self.named >> at & 1 == 1,
        }
    }
}

impl Account {
    pub(super) fn new(vendor: &str, secret: u64, rule: Option<&Arc<str>>) -> Self {
        Self {
            vendor: vendor.into(),
            secret,
            rule: rule.map_or_else(|| "".into(), Arc::clone),
            policies: [const { OnceLock::new() }; MAX_POLICIES],
            scoped: OnceLock::new(),
            named: OnceLock::new(),
            silent: AtomicU32::new(0),
            overheard: false,
        }
    }

    /// That of calls that were seen from outside, whatever their credentials.
    pub(super) fn overheard(vendor: &str) -> Self {
        Self { overheard: true, ..Self::new(vendor, 0, None) }
    }

    /// The same policies, of which nothing is known yet.
    pub(super) fn again(&self, make: impl Fn(Key, ScopeOf) -> Arc<State>) -> Self {
        let again = Self::new(&self.vendor, self.secret, Some(&self.rule));
        for stated in self.stated() {
            let name = || stated.name.to_string();
            again.find(stated.policy, stated.unit, stated.scope, name, &make);
        }
        if let Some(named) = self.named.get() {
            _ = again.named.set(Arc::clone(named));
        }
        again
    }

    /// Whether an answer with a good status is worth a look, of a vendor that is not known to state its quotas.
    /// `draw` is any number that differs from call to call.
    pub(super) fn may_speak(&self, draw: u64) -> bool {
        if self.is_stated() {
            return true;
        }
        // Read before it is written: that threads write the same word costs more than the look does.
        let looks = self.silent.load(Ordering::Relaxed) < SILENT;
        if looks {
            self.silent.fetch_add(1, Ordering::Relaxed);
        }
        looks || draw.is_multiple_of(64)
    }

    /// Whether any quota was stated.
    #[inline]
    pub(super) fn is_stated(&self) -> bool {
        self.policies[0].get().is_some() || self.scoped.get().is_some()
    }

    /// Whether calls are refused by it because what others share of it cannot be had.
    pub(super) fn is_cut_off(&self, rule: &quota::Rule) -> bool {
        rule.on_error == quota::OnError::Refuse && self.stated().any(|stated| stated.state.is_cut_off())
    }

    /// The quotas that were stated so far.
    pub(super) fn stated(&self) -> impl Iterator<Item = &Stated> {
        self.policies.iter().map_while(OnceLock::get).chain(self.scoped())
    }

    /// How those stand that changed since they were told of, and were not told more than `most` at once.
    pub(super) fn changed(&self, most: usize, now: Timestamp) -> impl Iterator<Item = NamedStanding> {
        let credential = crate::inspect::in_words(self.secret);
        let changed = self.stated().filter_map(move |stated| {
            if !stated.used.swap(false, Ordering::Relaxed) {
                return None;
            }
            let (mark, standing) = stated.state.glance(now)?;
            if stated.told.swap(mark, Ordering::Relaxed) == mark {
                return None;
            }
            let of_vendor = stated.is_of_vendor();
            Some(NamedStanding {
                vendor: Arc::clone(&self.vendor),
                credential: if of_vendor { String::new() } else { credential.clone() },
                of_vendor,
                policy: Arc::clone(&stated.name),
                rule: Arc::clone(&self.rule),
                unit: stated.unit(),
                countable: self.counts(stated),
                shared: stated.state.is_shared(),
                at: now,
                standing,
                configured: None,
            })
        });
        changed.take(most)
    }

    /// Whether we count what this quota counts, too.
    pub(super) fn counts(&self, stated: &Stated) -> bool {
        match self.overheard {
            true => matches!(stated.unit, Some(Unit::Requests) | None),
            false => stated.is_countable(),
        }
    }

    fn scoped(&self) -> impl Iterator<Item = &Stated> {
        self.scoped.get().into_iter().flat_map(|scoped| scoped.iter().map_while(OnceLock::get))
    }

    /// The quotas that a call at this place is asked about, each with the place of its claim. A quota that is
    /// stated later has a later place: that of the others stays.
    pub(super) fn asked(&self, place: Place) -> impl Iterator<Item = (usize, &Stated)> {
        let of_credential = self.policies.iter().map_while(OnceLock::get).enumerate().take(MAX_ASKED);
        let scoped = self.scoped().enumerate().filter(move |(at, stated)| place.is_in(stated.scope, *at));
        let scoped = scoped.map(|(_, stated)| stated);
        of_credential.chain((MAX_ASKED..2 * MAX_ASKED).zip(scoped))
    }

    /// Which policies answers from this endpoint named last, for [`Place::named`].
    pub(super) fn named_at(&self, endpoint: u64) -> u64 {
        self.named.get().map_or(0, |named| named.at(endpoint))
    }

    /// Notes which policies an answer from this endpoint named, if any, in the place of those that one named before:
    /// vendors move endpoints from one policy to another.
    pub(super) fn names<'a>(&'a self, endpoint: u64, policies: impl Iterator<Item = &'a Stated>) {
        let place = |stated: &Stated| self.scoped().position(|known| std::ptr::eq(known, stated));
        let named = policies.filter(|stated| stated.scope == ScopeOf::Named).filter_map(place);
        let bits = named.fold(0, |bits, at| bits | 1 << at);
        if bits != 0 && self.named_at(endpoint) != bits {
            self.named.get_or_init(Default::default).set(endpoint, bits);
        }
    }

    /// The quota that a statement is about which a call at this place brought; `None` where there are too many.
    /// `model` and `endpoint` are what people call the place.
    pub(super) fn of(
        &self,
        statement: &Statement,
        dialect: &Dialect,
        place: Place,
        (model, endpoint): (&str, &str),
        make: impl Fn(Key, ScopeOf) -> Arc<State>,
    ) -> Option<&Stated> {
        let scope = match place.scope(statement.scope) {
            ScopeOf::Named if !statement.policy.is_named_by_the_vendor() => {
                // Some leave the name out where they refuse: it is the one that they gave before.
                match self.scoped().nth(place.named.trailing_zeros() as usize) {
                    Some(stated) if stated.scope == ScopeOf::Named => return Some(stated),
                    _ => ScopeOf::Credential,
                }
            }
            scope => scope,
        };
        let name = || {
            let name = match statement.name.as_str() {
                "" => dialect.policy(statement.policy).unwrap_or("default"),
                name => name,
            };
            match scope {
                ScopeOf::Model(_) if !model.is_empty() => format!("{name} ({model})"),
                ScopeOf::Endpoint(_) => format!("{name} ({endpoint})"),
                _ => name.to_owned(),
            }
        };
        self.find(statement.policy.number(), Some(statement.unit), scope, name, make)
    }

    /// The quota of calls in general: where a refusal belongs that states no policy.
    pub(super) fn unnamed(&self, make: impl Fn(Key, ScopeOf) -> Arc<State>) -> Option<&Stated> {
        self.find(UNNAMED, None, ScopeOf::Credential, || "unstated".to_owned(), make)
    }

    fn find(
        &self,
        policy: u16,
        unit: Option<Unit>,
        scope: ScopeOf,
        name: impl Fn() -> String,
        make: impl Fn(Key, ScopeOf) -> Arc<State>,
    ) -> Option<&Stated> {
        let slots = match scope {
            ScopeOf::Credential => self.policies.as_slice(),
            _ => self.scoped.get_or_init(|| Box::new([const { OnceLock::new() }; MAX_SCOPED])).as_slice(),
        };
        for slot in slots {
            let stated = slot.get_or_init(|| {
                let name = name();
                let secret = if scope == ScopeOf::Vendor { 0 } else { self.secret };
                let key = Key::of("vendor").and(&self.vendor).and_number(secret).and(&name);
                let (name, state, told) = (name.into(), make(key, scope), AtomicU64::new(0));
                Stated { policy, unit, name, state, scope, told, used: AtomicBool::new(true) }
            });
            if (stated.policy, stated.unit, stated.scope) == (policy, unit, scope) {
                return Some(stated);
            }
        }
        None
    }
}

/// Endpoints whose answers name their policies.
const MAX_NAMED: usize = 128;

/// Which policies the answers from each endpoint named last: found without a lock, and never moved. Endpoints beyond
/// those that have room are held by none.
#[derive(Debug)]
struct Named {
    /// The endpoint's number, and the bits of the policies.
    endpoints: [(AtomicU64, AtomicU64); MAX_NAMED],
}

impl Default for Named {
    fn default() -> Self {
        Self { endpoints: [const { (AtomicU64::new(0), AtomicU64::new(0)) }; MAX_NAMED] }
    }
}

impl Named {
    /// The places where an endpoint may be, the likeliest first.
    fn places(&self, endpoint: u64) -> impl Iterator<Item = &(AtomicU64, AtomicU64)> {
        let first = endpoint as usize % MAX_NAMED;
        self.endpoints[first..].iter().chain(&self.endpoints[..first])
    }

    fn at(&self, endpoint: u64) -> u64 {
        let number = endpoint.max(1);
        let found = self.places(number).map(|(known, bits)| (known.load(Ordering::Acquire), bits));
        let mut found = found.take_while(|(known, _)| *known != 0);
        found.find(|(known, _)| *known == number).map_or(0, |(_, bits)| bits.load(Ordering::Relaxed))
    }

    fn set(&self, endpoint: u64, bits: u64) {
        let number = endpoint.max(1);
        for (known, place) in self.places(number) {
            let taken = known.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire);
            if taken.is_ok() || taken == Err(number) {
                place.store(bits, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// The tokens of a call, as vendors' limits count them: those that it will use at most, or those that it used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens {
    /// Of the prompt, without what the vendor's cache served: limits for input tokens leave that out.
    pub(super) prompt: u64,
    /// Of prompt and answer.
    pub(super) all: u64,
    /// Of the answer.
    pub(super) answer: u64,
}

impl Tokens {
    /// What a call will use with such a prompt and such an answer.
    pub(super) fn ahead(prompt: u64, answer: u64) -> Self {
        Self { prompt, all: prompt.saturating_add(answer), answer }
    }

    /// What the answer says that it used, as far as it says so.
    pub(super) fn used(usage: &Usage) -> Option<Self> {
        let all = usage.tokens()?;
        let prompt = usage.prompt_tokens().unwrap_or(0);
        let cached = [Kind::CachedInput, Kind::CachedAudio].iter().filter_map(|kind| usage.get(*kind));
        let cached = cached.fold(0, u64::saturating_add);
        Some(Self { prompt: prompt.saturating_sub(cached), all, answer: all.saturating_sub(prompt) })
    }
}

impl Stated {
    /// Notes that a call of this engine is about it. Read before it is written: threads share the line.
    pub(super) fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// What it counts, as in the catalogue.
    pub(super) fn unit(&self) -> &'static str {
        self.unit.unwrap_or(Unit::Requests).as_str()
    }

    /// Whether it is about all calls to the vendor, whatever their credential.
    pub(super) fn is_of_vendor(&self) -> bool {
        self.scope == ScopeOf::Vendor
    }

    /// How many units of this quota a call uses that has so many tokens.
    pub(super) fn units(&self, tokens: Tokens) -> u64 {
        match self.unit {
            Some(Unit::Requests) | None => 1,
            Some(Unit::Tokens) => tokens.all,
            Some(Unit::InputTokens) => tokens.prompt,
            Some(Unit::OutputTokens) => tokens.answer,
            Some(_) => 1,
        }
    }

    /// Whether answers name it, and it counts the calls to whose endpoints they do.
    pub(super) fn is_named(&self) -> bool {
        self.scope == ScopeOf::Named && self.unit == Some(Unit::Requests)
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
