//! Reading an answer by a dialect.

use super::date::date;
use super::reading::Statement;
use super::value::{self, Ignored, MAX_VALUE, decimal, pair, trim};
use super::{
    Encoding, Form, LimitSpec, Meaning, PolicyIndex, PolicyName, Reading, Refusal, RetrySource, Spec, Unit,
    generic, structured,
};
use crate::call::Headers;
use crate::units::Timestamp;
use std::fmt;
use std::time::Duration;

/// How many bytes of a body are looked at, at most, where headers don't tell what an answer means.
pub const BODY_PREFIX: usize = 4_096;

/// A reset may be this long past: the answer took its time, and clocks differ.
const SKEW: Duration = Duration::from_secs(5);
/// A difference to the vendor's `Date` up to here is the way's, from there on its clock's.
const CLOCKS_AGREE: Duration = Duration::from_secs(2);
/// A `Date` further off than this is no clock.
const NO_CLOCK: Duration = Duration::from_secs(86_400);
/// Nobody is told to wait for longer.
const YEAR: Duration = Duration::from_secs(366 * 86_400);
/// What [`Encoding::Auto`] takes for seconds from now; more could as well be milliseconds.
const SURELY_SECONDS: u64 = 3_600;

const AGE: &str = "age";
const CACHE_STATUS: &str = "cache-status";
const CF_CACHE_STATUS: &str = "cf-cache-status";
const DATE: &str = "date";
const RETRY_AFTER: &str = "retry-after";
const RETRY_AFTER_MS: &str = "retry-after-ms";
const X_CACHE: &str = "x-cache";

/// An answer, as far as a dialect wants to see it.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Answer<'a> {
    /// The status code.
    pub status: u16,
    /// At least the headers of [`Dialect::headers`], where they are there.
    pub headers: &'a dyn Headers,
    /// How the body begins, where [`Dialect::wants_body`]; empty where it is not at hand. No more than
    /// [`BODY_PREFIX`] bytes are looked at.
    pub body_prefix: &'a [u8],
}

impl<'a> Answer<'a> {
    /// An answer of which no body is at hand.
    #[must_use]
    pub fn new(status: u16, headers: &'a dyn Headers) -> Self {
        Self { status, headers, body_prefix: &[] }
    }

    /// The same with the beginning of its body.
    #[must_use]
    pub fn body_prefix(self, body_prefix: &'a [u8]) -> Self {
        Self { body_prefix, ..self }
    }
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// How one vendor says what is left; made once from its [`Spec`], then only read.
#[derive(Clone, Debug)]
pub struct Dialect {
    spec: Spec,
    wanted: Box<[Box<str>]>,
}

impl Dialect {
    /// The dialect that `spec` describes.
    #[must_use]
    pub fn new(spec: &Spec) -> Self {
        let mut spec = spec.clone();
        if spec.limits.is_empty() {
            spec.limits = generic::limits();
        }
        let mut wanted: Vec<Box<str>> =
            [AGE, CACHE_STATUS, CF_CACHE_STATUS, DATE, RETRY_AFTER, RETRY_AFTER_MS, X_CACHE]
                .map(Into::into)
                .into();
        for limit in &spec.limits {
            let inside = matches!(limit.form, Form::Fraction | Form::Pairs);
            let numbers = [&limit.limit, &limit.remaining, &limit.used, &limit.reset];
            let numbers = numbers.into_iter().flatten().filter(|_| !inside);
            let others = [&limit.header, &limit.named_by, &limit.window_header].into_iter().flatten();
            wanted.extend(numbers.chain(others).map(|name| name.as_str().into()));
        }
        for retry in &spec.retries {
            if let RetrySource::Header(name) = &retry.source {
                wanted.push(name.as_str().into());
            }
        }
        wanted.extend(spec.refusals.iter().filter_map(|rule| rule.header.as_deref()).map(Into::into));
        wanted.sort();
        wanted.dedup();
        Self { spec, wanted: wanted.into() }
    }

    /// The dialect of vendors that have none of their own: the IETF draft's headers in both generations, the
    /// usual `x-ratelimit-*`, `Retry-After`.
    #[must_use]
    pub fn generic() -> Self {
        Self::new(&Spec::default())
    }

    /// The headers that it wants to see, in lower case and in order.
    #[must_use]
    pub fn headers(&self) -> &[Box<str>] {
        &self.wanted
    }

    /// Whether it wants to see how the body of an answer with this status begins.
    #[must_use]
    pub fn wants_body(&self, status: u16) -> bool {
        let told_in_body = |rule: &super::RefusalSpec| !rule.body.is_empty() && rule.status.contains(&status);
        let when_in_body = self.spec.retries.iter().any(|retry| matches!(retry.source, RetrySource::Body(_)));
        self.spec.refusals.iter().any(told_in_body) || (when_in_body && (status == 429 || status >= 500))
    }

    /// The catalogue's name of a policy; a vendor's own name for it is [`Statement::name`].
    #[must_use]
    pub fn policy(&self, index: PolicyIndex) -> Option<&str> {
        self.spec.limits.get(usize::from(index.number())).map(|limit| limit.policy.as_str())
    }

    /// Reads an answer that arrived at `now`. Allocates nothing; takes bounded time whatever the headers hold.
    #[must_use]
    pub fn read(&self, answer: &Answer<'_>, now: Timestamp) -> Reading {
        let mut reader = Reader { answer, now, vendor_ahead: None, reading: Reading::NOTHING };
        for (place, limit) in self.spec.limits.iter().enumerate() {
            if limit.fallback && !reader.reading.statements().is_empty() {
                continue;
            }
            let read = match limit.form {
                Form::Plain => reader.plain(place, limit),
                Form::Fraction => reader.fraction(place, limit),
                Form::Pairs => reader.pairs(place, limit),
                Form::Ietf => reader.ietf(place, limit),
            };
            if read.is_err() {
                reader.reading.ignore();
            }
        }
        let rule = self.spec.refusals.iter().find(|rule| reader.matches(rule));
        reader.reading.refusal = match rule.map(|rule| rule.means) {
            Some(Meaning::Rate) => Some(Refusal::Rate),
            Some(Meaning::Exhausted) => Some(Refusal::Exhausted),
            Some(Meaning::Other) => None,
            None => (answer.status == 429).then_some(Refusal::Rate),
        };
        if reader.reading.refusal.is_some() || answer.status >= 500 {
            let wait = rule.and_then(|rule| rule.wait);
            reader.reading.retry_at = reader.retry(&self.spec).or_else(|| wait.map(|wait| now.plus(wait)));
        }
        if !reader.reading.is_empty() && from_cache(answer.headers) {
            return Reading::CACHED;
        }
        reader.reading
    }
}

/// The numbers of one statement before they are believed.
#[derive(Clone, Copy, Default)]
struct Claim {
    limit: Option<u64>,
    remaining: Option<u64>,
    used: Option<u64>,
    resets_at: Option<Timestamp>,
    window: Option<Duration>,
}

struct Reader<'a> {
    answer: &'a Answer<'a>,
    now: Timestamp,
    /// By how many nanoseconds the vendor's clock is ahead of ours, once it was asked for.
    vendor_ahead: Option<i128>,
    reading: Reading,
}

impl<'a> Reader<'a> {
    /// The value of a header; one that is too long to be any vendor's is ignored.
    fn header(&self, name: &str) -> Result<Option<&'a [u8]>, Ignored> {
        match self.answer.headers.get(name) {
            Some(value) if value.len() > MAX_VALUE => Err(Ignored),
            value => Ok(value.map(trim)),
        }
    }

    fn named(&self, name: &Option<String>) -> Result<Option<&'a [u8]>, Ignored> {
        name.as_ref().map_or(Ok(None), |name| self.header(name))
    }

    fn plain(&mut self, place: usize, spec: &LimitSpec) -> Result<(), Ignored> {
        let nth = |value: Option<&'a [u8]>| match (value, spec.item) {
            (Some(value), Some(place)) => value::item(value, place).map(trim).map(Some).ok_or(Ignored),
            (value, _) => Ok(value),
        };
        let count = |value: Option<&'a [u8]>| nth(value)?.map(value::count).transpose();
        let (remaining, used) = (self.named(&spec.remaining)?, self.named(&spec.used)?);
        if remaining.is_none() && used.is_none() && (spec.remaining.is_some() || spec.used.is_some()) {
            return Ok(());
        }
        let stated = self.named(&spec.limit)?;
        let window = match nth(self.named(&spec.window_header)?)? {
            Some(value) => self.length(value, spec.window_as).map(Some)?,
            None => stated.and_then(window_of_draft_03),
        };
        let claim = Claim {
            limit: count(stated)?,
            remaining: count(remaining)?,
            used: count(used)?,
            resets_at: match nth(self.named(&spec.reset)?)? {
                Some(value) => Some(self.moment(value, spec.reset_as)?),
                None => None,
            },
            window,
        };
        self.claim(place, spec, claim)
    }

    fn fraction(&mut self, place: usize, spec: &LimitSpec) -> Result<(), Ignored> {
        let Some(value) = self.named(&spec.header)? else { return Ok(()) };
        let value = match &spec.key {
            // Another policy's key may be there instead of this one.
            Some(key) => match pair(value, key.as_bytes()) {
                Some(value) => value,
                None => return Ok(()),
            },
            None => value,
        };
        let slash = value.iter().position(|byte| *byte == b'/').ok_or(Ignored)?;
        let claim = Claim {
            used: Some(value::count(&value[..slash])?),
            limit: Some(value::count(&value[slash + 1..])?),
            ..Claim::default()
        };
        self.claim(place, spec, claim)
    }

    fn pairs(&mut self, place: usize, spec: &LimitSpec) -> Result<(), Ignored> {
        let Some(header) = self.named(&spec.header)? else { return Ok(()) };
        let find = |key: &Option<String>| key.as_ref().and_then(|key| pair(header, key.as_bytes()));
        let count = |key: &Option<String>| find(key).map(value::count).transpose();
        let claim = Claim {
            limit: count(&spec.limit)?,
            remaining: count(&spec.remaining)?,
            used: count(&spec.used)?,
            resets_at: match find(&spec.reset) {
                Some(value) => Some(self.moment(value, spec.reset_as)?),
                None => None,
            },
            window: None,
        };
        if claim.remaining.is_none() && claim.used.is_none() {
            return Err(Ignored);
        }
        self.claim(place, spec, claim)
    }

    /// draft-ietf-httpapi-ratelimit-headers-10: what is left in `RateLimit`, joined by name with the quota in
    /// `RateLimit-Policy`. Draft 07 wrote a dictionary instead: `limit=100, remaining=50, reset=30`.
    fn ietf(&mut self, place: usize, spec: &LimitSpec) -> Result<(), Ignored> {
        let left = self.named(&spec.remaining)?;
        if let Some(left) = left
            && let Some(remaining) = pair(left, b"remaining")
        {
            let claim = Claim {
                remaining: Some(value::count(remaining)?),
                limit: pair(left, b"limit").map(value::count).transpose()?,
                resets_at: match pair(left, b"reset") {
                    Some(value) => Some(self.moment(value, Encoding::DeltaSeconds)?),
                    None => None,
                },
                window: self.named(&spec.limit)?.and_then(window_of_draft_03),
                ..Claim::default()
            };
            return self.claim(place, spec, claim);
        }
        // One field may be ignored and the other believed.
        let policies = match self.named(&spec.limit)?.map(structured::items).transpose() {
            Ok(policies) => policies,
            Err(Ignored) => {
                self.reading.ignore();
                None
            }
        };
        let left = left.map(structured::items).transpose()?;
        for item in left.iter().flat_map(|items| *items).take(super::MAX_STATEMENTS) {
            let policy = policies.and_then(|mut policies| policies.find(|policy| policy.name == item.name));
            self.ietf_item(place, spec, item.name, Some(item), policy);
        }
        // A policy of which nothing is said has a limit all the same.
        for policy in policies.iter().flat_map(|items| *items).take(super::MAX_STATEMENTS) {
            if !left.is_some_and(|mut left| left.any(|item| item.name == policy.name)) {
                self.ietf_item(place, spec, policy.name, None, Some(policy));
            }
        }
        Ok(())
    }

    fn ietf_item(
        &mut self,
        place: usize,
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
                    Some(seconds) => Some(self.ahead(seconds.checked_mul(1_000_000_000))?),
                    None => None,
                },
                window: number(policy, b"w")?.map(Duration::from_secs).filter(|window| !window.is_zero()),
            };
            if left.is_some() && claim.remaining.is_none() {
                return Err(Ignored); // `r` must be there (section 4.1 of the draft).
            }
            self.believe(PolicyIndex::named(place, name), PolicyName::new(name), unit, spec, claim)
        };
        if read().is_err() {
            self.reading.ignore();
        }
    }

    fn claim(&mut self, place: usize, spec: &LimitSpec, claim: Claim) -> Result<(), Ignored> {
        let name = self.named(&spec.named_by)?.filter(|name| !name.is_empty());
        let (index, name) = match name {
            Some(name) => (PolicyIndex::named(place, name), PolicyName::new(name)),
            None => (PolicyIndex::fixed(place), PolicyName::NONE),
        };
        self.believe(index, name, spec.unit, spec, claim)
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
            scope: spec.scope,
            limit,
            remaining,
            resets_at,
            window,
        });
        Ok(())
    }

    /// When to come back: `retry-after-ms`, `Retry-After`, then the vendor's own places.
    fn retry(&mut self, spec: &Spec) -> Option<Timestamp> {
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
        match value.and_then(|value| value.map(|value| self.moment(value, encoding)).transpose()) {
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

    fn matches(&self, rule: &super::RefusalSpec) -> bool {
        rule.status.contains(&self.answer.status)
            && rule.header.as_ref().is_none_or(|name| match (self.header(name), &rule.value) {
                (Ok(Some(value)), Some(wanted)) => value.eq_ignore_ascii_case(wanted.as_bytes()),
                (Ok(Some(_)), None) => true,
                _ => false,
            })
            && (rule.body.is_empty()
                || rule.body.iter().any(|text| value::find(self.body(), text.as_bytes()).is_some()))
    }

    /// The moment that a value means, on our own clock.
    fn moment(&mut self, bytes: &[u8], encoding: Encoding) -> Result<Timestamp, Ignored> {
        const SECOND: u64 = 1_000_000_000;
        let number = |unit: u64| decimal(bytes).and_then(|number| value::nanos(number, unit));
        match encoding {
            Encoding::EpochSeconds => self.absolute(number(SECOND).map(Timestamp::from_nanos)),
            Encoding::EpochMillis => self.absolute(number(1_000_000).map(Timestamp::from_nanos)),
            Encoding::DeltaSeconds => self.ahead(number(SECOND)),
            Encoding::DeltaMillis => self.ahead(number(1_000_000)),
            Encoding::Duration => self.ahead(value::duration(bytes)),
            Encoding::Date => self.absolute(date(bytes)),
            Encoding::DeltaSecondsOrDate => match number(SECOND) {
                Some(nanos) => self.ahead(Some(nanos)),
                None => self.absolute(date(bytes)),
            },
            Encoding::Auto => match decimal(bytes) {
                Some((whole, _)) if whole <= SURELY_SECONDS => self.ahead(number(SECOND)),
                Some(_) => {
                    let seconds = self.absolute(number(SECOND).map(Timestamp::from_nanos));
                    seconds.or_else(|Ignored| self.absolute(number(1_000_000).map(Timestamp::from_nanos)))
                }
                None => match value::duration(bytes) {
                    Some(nanos) => self.ahead(Some(nanos)),
                    None => self.absolute(date(bytes)),
                },
            },
        }
    }

    /// The length of time that a value means.
    fn length(&mut self, bytes: &[u8], encoding: Encoding) -> Result<Duration, Ignored> {
        let end = self.moment(bytes, encoding)?;
        let length = end.since(self.now);
        if length.is_zero() { Err(Ignored) } else { Ok(length) }
    }

    fn ahead(&self, nanos: Option<u64>) -> Result<Timestamp, Ignored> {
        let ahead = Duration::from_nanos(nanos.ok_or(Ignored)?);
        if ahead <= YEAR { Ok(self.now.plus(ahead)) } else { Err(Ignored) }
    }

    /// A moment on the vendor's clock, put on ours; neither long past nor more than a year ahead.
    fn absolute(&mut self, moment: Option<Timestamp>) -> Result<Timestamp, Ignored> {
        let moment = i128::from(moment.ok_or(Ignored)?.as_nanos()) - self.vendor_ahead();
        let moment = Timestamp::from_nanos(u64::try_from(moment).map_err(|_| Ignored)?);
        if moment.since(self.now) > YEAR || self.now.since(moment) > SKEW {
            return Err(Ignored);
        }
        Ok(moment.max(self.now))
    }

    fn vendor_ahead(&mut self) -> i128 {
        if let Some(known) = self.vendor_ahead {
            return known;
        }
        let theirs = self.header(DATE).ok().flatten().and_then(date);
        let ahead =
            theirs.map_or(0, |theirs| i128::from(theirs.as_nanos()) - i128::from(self.now.as_nanos()));
        let apart = Duration::from_nanos(u64::try_from(ahead.unsigned_abs()).unwrap_or(u64::MAX));
        let ahead = if apart > CLOCKS_AGREE && apart < NO_CLOCK { ahead } else { 0 };
        self.vendor_ahead = Some(ahead);
        ahead
    }
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

/// Whether the answer came out of a cache on the way: then it says what was, not what is.
fn from_cache(headers: &dyn Headers) -> bool {
    let value = |name: &str| headers.get(name).filter(|value| value.len() <= MAX_VALUE).map(trim);
    let holds = |name: &str, words: &[&[u8]]| {
        value(name).is_some_and(|value| {
            let mut parts = value.split(|byte| matches!(byte, b',' | b';' | b' '));
            parts.any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
        })
    };
    // Any `Age` but 0 means stored (RFC 9111, section 5.1); `Cache-Status` is RFC 9211.
    value(AGE).and_then(decimal).is_some_and(|(age, _)| age > 0)
        || holds(X_CACHE, &[b"hit", b"tcp_hit", b"tcp_mem_hit"])
        || holds(CF_CACHE_STATUS, &[b"hit", b"stale", b"updating"])
        || holds(CACHE_STATUS, &[b"hit"])
}
