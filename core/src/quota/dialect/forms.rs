//! The forms in which headers hold their numbers, each read into one claim; and what makes a claim believed.

use super::clock::{Clock, YEAR};
use super::read::{Answer, BODY_PREFIX, Places, RETRY_AFTER, RETRY_AFTER_MS, Wanted};
use super::reading::Statement;
use super::value::{self, Ignored, decimal, pair, trim};
use super::value::{MAX_VALUE, only_pair};
use super::{
    Encoding, LimitSpec, PolicyIndex, PolicyName, Reading, RefusalSpec, RetrySource, Scope, Spec, Unit,
    structured,
};
use crate::units::Timestamp;
use std::time::Duration;

/// The numbers of one statement before they are believed.
#[derive(Clone, Copy, Default)]
struct Claim {
    limit: Option<u64>,
    remaining: Option<u64>,
    used: Option<u64>,
    resets_at: Option<Timestamp>,
    window: Option<Duration>,
}

/// One answer while it is read.
pub(super) struct Reader<'a> {
    answer: &'a Answer<'a>,
    wanted: &'a Wanted<'a>,
    clock: Clock<'a>,
    pub(super) reading: Reading,
}

impl<'a> Reader<'a> {
    pub(super) fn new(answer: &'a Answer<'a>, wanted: &'a Wanted<'a>, now: Timestamp) -> Self {
        Self { answer, wanted, clock: Clock::new(now, answer.headers), reading: Reading::NOTHING }
    }

    fn header(&self, name: &str) -> Result<Option<&'a [u8]>, Ignored> {
        self.wanted.one(name)
    }

    /// A header of a limit: one value, or, where the limit is one of several that the header lists, that list.
    fn value(&self, spec: &LimitSpec, place: Option<u16>) -> Result<Option<&'a [u8]>, Ignored> {
        match spec.item {
            Some(_) => self.wanted.list(place),
            None => self.wanted.at(place),
        }
    }

    pub(super) fn plain(&mut self, index: usize, spec: &LimitSpec, places: &Places) -> Result<(), Ignored> {
        let nth = |value: Option<&'a [u8]>| match (value, spec.item) {
            (Some(value), Some(place)) => value::item(value, place).map(trim).map(Some).ok_or(Ignored),
            (value, _) => Ok(value),
        };
        let count = |value: Option<&'a [u8]>| nth(value)?.map(value::count).transpose();
        let (remaining, used) = (self.value(spec, places.remaining)?, self.value(spec, places.used)?);
        if remaining.is_none() && used.is_none() && (spec.remaining.is_some() || spec.used.is_some()) {
            return Ok(());
        }
        let stated = self.value(spec, places.limit)?;
        let window = match nth(self.value(spec, places.window_header)?)? {
            Some(value) => self.clock.length(value, spec.window_as).map(Some)?,
            None => stated.and_then(window_of_draft_03),
        };
        let claim = Claim {
            limit: count(stated)?,
            remaining: count(remaining)?,
            used: count(used)?,
            resets_at: match nth(self.value(spec, places.reset)?)? {
                Some(value) => Some(self.clock.moment(value, spec.reset_as)?),
                None => None,
            },
            window,
        };
        self.claim(index, spec, places, claim)
    }

    pub(super) fn fraction(
        &mut self,
        index: usize,
        spec: &LimitSpec,
        places: &Places,
    ) -> Result<(), Ignored> {
        let Some(value) = (match &spec.key {
            // The policies are told apart by their keys.
            Some(_) => self.wanted.list(places.header)?,
            None => self.wanted.at(places.header)?,
        }) else {
            return Ok(());
        };
        let value = match &spec.key {
            // Another policy's key may be there instead of this one.
            Some(key) => match pair(value, key.as_bytes()) {
                Some(value) => value,
                None => return Ok(()),
            },
            None => value,
        };
        let slash = value.iter().position(|byte| *byte == b'/').ok_or(Ignored)?;
        if value[slash + 1..].contains(&b'/') {
            return Err(Ignored); // Two that differ: nobody knows which is meant.
        }
        let claim = Claim {
            used: Some(value::count(&value[..slash])?),
            limit: Some(value::count(&value[slash + 1..])?),
            ..Claim::default()
        };
        self.claim(index, spec, places, claim)
    }

    pub(super) fn pairs(&mut self, index: usize, spec: &LimitSpec, places: &Places) -> Result<(), Ignored> {
        let Some(header) = self.wanted.list(places.header)? else { return Ok(()) };
        let find = |key: &Option<String>| key.as_ref().and_then(|key| pair(header, key.as_bytes()));
        let count = |key: &Option<String>| find(key).map(value::count).transpose();
        let claim = Claim {
            limit: count(&spec.limit)?,
            remaining: count(&spec.remaining)?,
            used: count(&spec.used)?,
            resets_at: match find(&spec.reset) {
                Some(value) => Some(self.clock.moment(value, spec.reset_as)?),
                None => None,
            },
            window: None,
        };
        if claim.remaining.is_none() && claim.used.is_none() {
            return Err(Ignored);
        }
        self.claim(index, spec, places, claim)
    }

    /// draft-ietf-httpapi-ratelimit-headers-10: what is left in `RateLimit`, joined by name with the quota in
    /// `RateLimit-Policy`. Draft 07 wrote a dictionary instead: `limit=100, remaining=50, reset=30`.
    pub(super) fn ietf(&mut self, index: usize, spec: &LimitSpec, places: &Places) -> Result<(), Ignored> {
        if self.wanted.is_repeated(places.remaining) || self.wanted.is_repeated(places.limit) {
            return self.ietf_lines(index, spec, places);
        }
        let (left, policies) = (self.wanted.list(places.remaining)?, self.wanted.list(places.limit)?);
        self.ietf_fields(index, spec, places, (left, policies))
    }

    /// The same of fields that have several lines.
    #[cold]
    #[inline(never)]
    fn ietf_lines(&mut self, index: usize, spec: &LimitSpec, places: &Places) -> Result<(), Ignored> {
        let (mut one, mut other) = ([0; MAX_VALUE], [0; MAX_VALUE]);
        let left = self.wanted.lines(places.remaining, &mut one)?;
        let policies = self.wanted.lines(places.limit, &mut other)?;
        self.ietf_fields(index, spec, places, (left, policies))
    }

    fn ietf_fields(
        &mut self,
        index: usize,
        spec: &LimitSpec,
        places: &Places,
        (left, policies): (Option<&[u8]>, Option<&[u8]>),
    ) -> Result<(), Ignored> {
        if let Some(left) = left
            && let Some(remaining) = only_pair(left, b"remaining")?
        {
            let claim = Claim {
                remaining: Some(value::count(remaining)?),
                limit: only_pair(left, b"limit")?.map(value::count).transpose()?,
                resets_at: match only_pair(left, b"reset")? {
                    Some(value) => Some(self.clock.moment(value, Encoding::DeltaSeconds)?),
                    None => None,
                },
                window: policies.and_then(window_of_draft_03),
                ..Claim::default()
            };
            return self.claim(index, spec, places, claim);
        }
        // One field may be ignored and the other believed.
        let policies = match policies.map(structured::items).transpose() {
            Ok(policies) => policies,
            Err(Ignored) => {
                self.reading.ignore();
                None
            }
        };
        let is_unclear = |policy: &structured::Item<'_>| {
            policies.is_some_and(|mut policies| policies.any(|other| other.contradicts(policy)))
        };
        let left = left.map(structured::items).transpose()?;
        for item in left.iter().flat_map(|items| *items).take(super::MAX_STATEMENTS) {
            if left.is_some_and(|mut left| left.any(|other| other.contradicts(&item))) {
                self.reading.ignore();
                continue;
            }
            let mut policies = policies.into_iter().flatten();
            let policy = policies.find(|policy| policy.name == item.name && !is_unclear(policy));
            self.ietf_item(index, spec, item.name, Some(item), policy);
        }
        // A policy of which nothing is said has a limit all the same.
        for policy in policies.iter().flat_map(|items| *items).take(super::MAX_STATEMENTS) {
            if is_unclear(&policy) {
                self.reading.ignore();
                continue;
            }
            if !left.is_some_and(|mut left| left.any(|item| item.name == policy.name)) {
                self.ietf_item(index, spec, policy.name, None, Some(policy));
            }
        }
        Ok(())
    }

    fn ietf_item(
        &mut self,
        index: usize,
        spec: &LimitSpec,
        name: &[u8],
        left: Option<structured::Item<'_>>,
        policy: Option<structured::Item<'_>>,
    ) {
        let number = |item: Option<structured::Item<'_>>, key: &[u8]| match item {
            Some(item) => item.integer(key),
            None => Ok(None),
        };
        let mut read = || {
            let unit = match policy.and_then(|policy| policy.text(b"qu")) {
                None => spec.unit,
                Some(b"requests") => Unit::Requests,
                Some(b"content-bytes") => Unit::Bytes,
                Some(b"concurrent-requests") => Unit::Concurrency,
                Some(_) => return Err(Ignored), // Numbers of something that we don't know.
            };
            let claim = Claim {
                limit: number(policy, b"q")?,
                remaining: number(left, b"r")?,
                used: None,
                resets_at: match number(left, b"t")? {
                    Some(seconds) => Some(self.clock.ahead(seconds.checked_mul(1_000_000_000))?),
                    None => None,
                },
                window: number(policy, b"w")?.map(Duration::from_secs).filter(|window| !window.is_zero()),
            };
            if left.is_some() && claim.remaining.is_none() {
                return Err(Ignored); // `r` must be there (section 4.1 of the draft).
            }
            self.believe(PolicyIndex::named(index, name), PolicyName::new(name), unit, spec, claim)
        };
        if read().is_err() {
            self.reading.ignore();
        }
    }

    fn claim(
        &mut self,
        index: usize,
        spec: &LimitSpec,
        places: &Places,
        claim: Claim,
    ) -> Result<(), Ignored> {
        let name = self.wanted.at(places.named_by)?.filter(|name| !name.is_empty());
        let (policy, name) = match name {
            Some(name) => (PolicyIndex::named(index, name), PolicyName::new(name)),
            None => (PolicyIndex::fixed(index), PolicyName::NONE),
        };
        self.believe(policy, name, spec.unit, spec, claim)
    }

    /// The plausibility check: a limit is at least 1, and no more is left than that. (Times were checked when
    /// they were read.)
    fn believe(
        &mut self,
        policy: PolicyIndex,
        name: PolicyName,
        unit: Unit,
        spec: &LimitSpec,
        claim: Claim,
    ) -> Result<(), Ignored> {
        let limit = claim.limit.or(spec.limit_is);
        if limit == Some(0) {
            return Err(Ignored); // A placeholder: who allows nothing refuses.
        }
        // More may have been used than is allowed: then nothing is left.
        let unused = |used: u64| limit.map(|limit| limit.saturating_sub(used));
        let remaining = claim.remaining.or_else(|| claim.used.and_then(unused));
        if let (Some(remaining), Some(limit)) = (remaining, limit)
            && remaining > limit
        {
            return Err(Ignored);
        }
        if limit.is_none() && remaining.is_none() {
            return Ok(());
        }
        let window = claim.window.filter(|window| *window <= YEAR).or(spec.window);
        let resets_at = claim.resets_at;
        self.reading.push(Statement {
            policy,
            name,
            unit,
            scope: match spec.scope {
                Scope::Credential if spec.named_by.is_some() => Scope::Named,
                scope => scope,
            },
            limit,
            remaining,
            resets_at,
            window,
        });
        Ok(())
    }

    /// When to come back: `retry-after-ms`, `Retry-After`, then the vendor's own places.
    pub(super) fn retry(&mut self, spec: &Spec) -> Option<Timestamp> {
        for (name, encoding) in
            [(RETRY_AFTER_MS, Encoding::DeltaMillis), (RETRY_AFTER, Encoding::DeltaSecondsOrDate)]
        {
            let value = self.header(name);
            if let Some(moment) = self.retry_from(value, encoding) {
                return Some(moment);
            }
        }
        spec.retries.iter().find_map(|retry| {
            let value = match &retry.source {
                RetrySource::Header(name) => self.header(name),
                RetrySource::Body(key) => Ok(pair(self.body(), key.as_bytes())),
            };
            self.retry_from(value, retry.encoding)
        })
    }

    fn retry_from(&mut self, value: Result<Option<&[u8]>, Ignored>, encoding: Encoding) -> Option<Timestamp> {
        match value.and_then(|value| value.map(|value| self.clock.moment(value, encoding)).transpose()) {
            Ok(moment) => moment,
            Err(Ignored) => {
                self.reading.ignore();
                None
            }
        }
    }

    fn body(&self) -> &'a [u8] {
        let body = self.answer.body_prefix;
        &body[..body.len().min(BODY_PREFIX)]
    }

    pub(super) fn matches(&self, rule: &RefusalSpec) -> bool {
        rule.status.contains(&self.answer.status)
            && rule.header.as_ref().is_none_or(|name| match (self.wanted.get(name), &rule.value) {
                (Ok(Some(value)), Some(wanted)) => says(value, wanted.as_bytes()),
                (Ok(Some(_)), None) => true,
                _ => false,
            })
            && (rule.body.is_empty()
                || rule.body.iter().any(|text| value::find(self.body(), text.as_bytes()).is_some()))
    }
}

/// Whether a header has a value, whatever its case and whatever follows it after a `:` or `;`
/// (`ThrottlingException:http://...`).
fn says(value: &[u8], wanted: &[u8]) -> bool {
    value.split_at_checked(wanted.len()).is_some_and(|(value, rest)| {
        value.eq_ignore_ascii_case(wanted) && matches!(rest.first(), None | Some(b':' | b';'))
    })
}

/// Drafts 03 to 06 of the IETF's headers put the window into the limit: `100, 100;w=60`.
fn window_of_draft_03(limit: &[u8]) -> Option<Duration> {
    let first = value::count(limit).ok()?;
    limit.split(|byte| *byte == b',').find_map(|policy| {
        let seconds = pair(policy, b"w").or_else(|| pair(policy, b"window"))?;
        let same = value::count(policy).ok()? == first;
        same.then(|| decimal(seconds))?
            .map(|(seconds, _)| Duration::from_secs(seconds))
            .filter(|w| !w.is_zero())
    })
}
