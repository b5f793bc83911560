//! Reading an answer by a dialect.

use super::forms::Reader;
use super::value::{Ignored, MAX_VALUE, decimal, once, trim};
use super::{Form, LimitSpec, Meaning, PolicyIndex, Reading, Refusal, RetrySource, Scope, Spec, generic};
use crate::call::{HeaderNames, Headers};
use crate::units::Timestamp;
use std::fmt;

/// How many bytes of a body are looked at, at most, where headers don't tell what an answer means.
pub const BODY_PREFIX: usize = 4_096;

const AGE: &str = "age";
const CACHE_STATUS: &str = "cache-status";
const CF_CACHE_STATUS: &str = "cf-cache-status";
pub(super) const DATE: &str = "date";
pub(super) const RETRY_AFTER: &str = "retry-after";
pub(super) const RETRY_AFTER_MS: &str = "retry-after-ms";
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
    /// For each limit of `spec`.
    places: Box<[Places]>,
    wanted: HeaderNames,
}

/// Where the headers of one limit are among those that are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) limit: Option<u16>,
    pub(super) remaining: Option<u16>,
    pub(super) used: Option<u16>,
    pub(super) reset: Option<u16>,
    pub(super) header: Option<u16>,
    pub(super) named_by: Option<u16>,
    pub(super) window_header: Option<u16>,
}

impl Places {
    fn new(limit: &LimitSpec, wanted: &HeaderNames) -> Self {
        let place = |name: &Option<String>| {
            name.as_ref()
                .and_then(|name| wanted.place(name.as_bytes()))
                .and_then(|place| place.try_into().ok())
        };
        Self {
            limit: place(&limit.limit),
            remaining: place(&limit.remaining),
            used: place(&limit.used),
            reset: place(&limit.reset),
            header: place(&limit.header),
            named_by: place(&limit.named_by),
            window_header: place(&limit.window_header),
        }
    }
}

impl Dialect {
    /// The dialect that `spec` describes.
    #[must_use]
    pub fn new(spec: &Spec) -> Self {
        let mut spec = spec.clone();
        if spec.limits.is_empty() {
            spec.limits = generic::limits();
        }
        let mut wanted: Vec<&str> =
            vec![AGE, CACHE_STATUS, CF_CACHE_STATUS, DATE, RETRY_AFTER, RETRY_AFTER_MS, X_CACHE];
        for limit in &spec.limits {
            let inside = matches!(limit.form, Form::Fraction | Form::Pairs);
            let numbers = [&limit.limit, &limit.remaining, &limit.used, &limit.reset];
            let numbers = numbers.into_iter().flatten().filter(|_| !inside);
            let others = [&limit.header, &limit.named_by, &limit.window_header].into_iter().flatten();
            wanted.extend(numbers.chain(others).map(String::as_str));
        }
        for retry in &spec.retries {
            if let RetrySource::Header(name) = &retry.source {
                wanted.push(name);
            }
        }
        wanted.extend(spec.refusals.iter().filter_map(|rule| rule.header.as_deref()));
        let wanted = HeaderNames::new(wanted);
        let places = spec.limits.iter().map(|limit| Places::new(limit, &wanted)).collect();
        Self { spec, places, wanted }
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
        self.wanted.names()
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

    /// Whether any of its limits is about a part of a credential's calls, or about more than those.
    #[must_use]
    pub fn has_scopes(&self) -> bool {
        self.spec.limits.iter().any(|limit| limit.scope != Scope::Credential || limit.named_by.is_some())
    }

    /// Whether any of its limits counts the calls for each model apart.
    #[must_use]
    pub fn asks_model(&self) -> bool {
        self.spec.limits.iter().any(|limit| limit.scope == Scope::Model)
    }

    /// Reads an answer that arrived at `now`. Allocates nothing; takes bounded time whatever the headers hold.
    #[must_use]
    pub fn read(&self, answer: &Answer<'_>, now: Timestamp) -> Reading {
        let wanted = Wanted::new(&self.wanted, answer.headers);
        let mut reader = Reader::new(answer, &wanted, now);
        for (index, (limit, places)) in self.spec.limits.iter().zip(&self.places).enumerate() {
            if limit.fallback && !reader.reading.statements().is_empty() {
                continue;
            }
            let read = match limit.form {
                Form::Plain => reader.plain(index, limit, places),
                Form::Fraction => reader.fraction(index, limit, places),
                Form::Pairs => reader.pairs(index, limit, places),
                Form::Ietf => reader.ietf(index, limit, places),
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
        if !reader.reading.is_empty() && from_cache(&wanted) {
            return Reading::CACHED;
        }
        reader.reading
    }
}

/// More headers than any vendor of the catalogue needs; what is beyond is asked for by name.
const ROOM: usize = 24;

/// The headers that a dialect wants, picked out of an answer in one walk through it.
pub(super) struct Wanted<'a> {
    names: &'a HeaderNames,
    values: [Option<&'a [u8]>; ROOM],
    /// Which of them were there again with another value, by bits.
    others: u64,
    all: &'a dyn Headers,
}

impl<'a> Wanted<'a> {
    fn new(names: &'a HeaderNames, all: &'a dyn Headers) -> Self {
        let mut values = [None; ROOM];
        let others = all.pick(names, &mut values);
        Self { names, values, others, all }
    }

    /// The value of a header that may be a list, without the spaces around it: its first line. One that is too long to be
    /// any vendor's is ignored.
    pub(super) fn get(&self, name: &str) -> Result<Option<&'a [u8]>, Ignored> {
        self.list(self.names.place(name.as_bytes()))
    }

    /// The value of a header that has one; of several that are not equal, nobody knows which is meant.
    pub(super) fn one(&self, name: &str) -> Result<Option<&'a [u8]>, Ignored> {
        self.at(self.names.place(name.as_bytes()))
    }

    /// The same by the header's place.
    pub(super) fn at(&self, place: Option<impl Into<usize>>) -> Result<Option<&'a [u8]>, Ignored> {
        let place = place.map(Into::into);
        if place.is_some_and(|place| self.is_contradicted(place)) {
            return Err(Ignored);
        }
        Ok(self.list(place)?.map(once))
    }

    fn is_contradicted(&self, place: usize) -> bool {
        if place < ROOM {
            return self.others >> place & 1 == 1;
        }
        let Some(name) = self.names.names().get(place) else { return false };
        let (first, mut others) = (self.all.get(name).map(trim), false);
        self.all.each(&mut |known, value| {
            others |= known.eq_ignore_ascii_case(name.as_bytes())
                && first.is_some_and(|first| first != trim(value));
        });
        others
    }

    /// Whether a header is there in several lines that are not equal.
    pub(super) fn is_repeated(&self, place: Option<u16>) -> bool {
        place.is_some_and(|place| self.is_contradicted(place.into()))
    }

    /// All lines of a header that is a list, joined by commas in `room` (RFC 9110, section 5.3). What is together too long
    /// to be any vendor's is ignored.
    pub(super) fn lines<'r>(
        &self,
        place: Option<u16>,
        room: &'r mut [u8; MAX_VALUE],
    ) -> Result<Option<&'r [u8]>, Ignored>
    where
        'a: 'r,
    {
        let name = place
            .filter(|_| self.is_repeated(place))
            .and_then(|place| self.names.names().get(usize::from(place)));
        let Some(name) = name else { return self.list(place) };
        let (mut length, mut fits) = (0, true);
        self.all.each(&mut |known, value| {
            let value = trim(value);
            if !known.eq_ignore_ascii_case(name.as_bytes()) || value.is_empty() {
                return;
            }
            let comma: &[u8] = if length == 0 { b"" } else { b", " };
            match room.get_mut(length..length + comma.len() + value.len()) {
                Some(part) => {
                    let (before, line) = part.split_at_mut(comma.len());
                    before.copy_from_slice(comma);
                    line.copy_from_slice(value);
                    length += comma.len() + value.len();
                }
                None => fits = false,
            }
        });
        if fits { Ok(Some(&room[..length])) } else { Err(Ignored) }
    }

    /// The value of a header that may be a list, by its place.
    pub(super) fn list(&self, place: Option<impl Into<usize>>) -> Result<Option<&'a [u8]>, Ignored> {
        let value = match place.map(Into::into) {
            Some(place) if place < ROOM => self.values[place],
            Some(place) => self.names.names().get(place).and_then(|name| self.all.get(name)),
            None => None,
        };
        match value {
            Some(value) if value.len() > MAX_VALUE => Err(Ignored),
            value => Ok(value.map(trim)),
        }
    }
}

/// Whether the answer came out of a cache on the way: then it says what was, not what is.
fn from_cache(headers: &Wanted<'_>) -> bool {
    let value = |name: &str| headers.get(name).ok().flatten();
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

#[cfg(test)]
mod tests;
