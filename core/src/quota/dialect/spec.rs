//! A dialect as data: what a vendor's file in the catalogue says about its limits.

use std::time::Duration;

/// The most limits that one vendor's dialect may describe.
pub const MAX_LIMITS: usize = 16;

/// A vendor's dialect, as its file describes it. Header names are in lower case. An empty one stands for the
/// generic dialect: the IETF draft's headers in both generations, the usual `x-ratelimit-*`, `Retry-After`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spec {
    /// `limit`: what the vendor states, one entry for each window or policy.
    pub limits: Vec<LimitSpec>,
    /// `refusal`: by which answers it refuses, and how; the first that matches decides.
    pub refusals: Vec<RefusalSpec>,
    /// `retry`: where it says when to come back, if neither `retry-after-ms` nor `Retry-After` does.
    pub retries: Vec<RetrySpec>,
}

/// One window or policy that a vendor states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitSpec {
    /// `policy`: its name in reports.
    pub policy: String,
    /// `named_by`: the header whose value tells apart the policies that share these headers (GitHub's
    /// `x-ratelimit-resource`).
    pub named_by: Option<String>,
    /// `unit`: what is counted.
    pub unit: Unit,
    /// `scope`: whose calls are counted together.
    pub scope: Scope,
    /// `form`: how the headers hold the numbers.
    pub form: Form,
    /// `header`: the one header of the forms `fraction` and `pairs`.
    pub header: Option<String>,
    /// `key`: the key before the fraction, where the header has several.
    pub key: Option<String>,
    /// `limit`: the header, or in the form `pairs` the key, of the limit.
    pub limit: Option<String>,
    /// `limit_is`: the limit itself, where the vendor documents but does not send it.
    pub limit_is: Option<u64>,
    /// `remaining`: the header or key of what is left.
    pub remaining: Option<String>,
    /// `used`: the header or key of what is used, where the vendor says that instead.
    pub used: Option<String>,
    /// `item`: the place, from 0, in a header that lists several windows (`1, 15000`).
    pub item: Option<usize>,
    /// `reset`: the header or key of when the window ends.
    pub reset: Option<String>,
    /// `reset_as`: its encoding.
    pub reset_as: Encoding,
    /// `window`: the window's length, where it is known and fixed.
    pub window: Option<Duration>,
    /// `window_header`: the header of its length.
    pub window_header: Option<String>,
    /// `window_as`: the encoding of that.
    pub window_as: Encoding,
    /// `fallback`: read only where no entry above it said anything.
    pub fallback: bool,
}

/// An answer that is a refusal, or is not one although its status suggests it. What is not given matches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusalSpec {
    /// `status`: any of these; never empty.
    pub status: Vec<u16>,
    /// `header`: this header is there.
    pub header: Option<String>,
    /// `value`: and has this value, whatever its case, and whatever follows it after a `:` or `;`.
    pub value: Option<String>,
    /// `body`: the first [`BODY_PREFIX`](super::BODY_PREFIX) bytes of the body hold any of these.
    pub body: Vec<String>,
    /// `means`: what it says.
    pub means: Meaning,
    /// `wait`: how long the vendor asks to wait where the answer does not say it.
    pub wait: Option<Duration>,
}

/// What an answer that matches a [`RefusalSpec`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// `rate`: too many calls for now.
    Rate,
    /// `exhausted`: nothing is left until tomorrow, next month, or a payment.
    Exhausted,
    /// `other`: something else than a limit.
    Other,
}

/// Where a vendor says when to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetrySpec {
    /// `header` or `body`: in which header, or after which key of the body.
    pub source: RetrySource,
    /// `as`: its encoding.
    pub encoding: Encoding,
}

/// See [`RetrySpec::source`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetrySource {
    /// A header, in lower case.
    Header(String),
    /// A key in the body's prefix, as in `"retryDelay": "34s"`.
    Body(String),
}

impl RetrySpec {
    pub(crate) fn new(source: RetrySource, encoding: Encoding) -> Self {
        Self { source, encoding }
    }
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// `requests`.
    #[default]
    Requests,
    /// `tokens`: of a language model, in and out together.
    Tokens,
    /// `input-tokens`.
    InputTokens,
    /// `output-tokens`.
    OutputTokens,
    /// `points`: the vendor's own weights (complexity, credits, percent).
    Points,
    /// `cost`: money in the vendor's own unit.
    Cost,
    /// `bytes`.
    Bytes,
    /// `concurrency`: calls at the same time.
    Concurrency,
}

impl Unit {
    /// All of them with the word for each, as in the catalogue.
    pub const WORDS: [(&str, Self); 8] = [
        ("requests", Self::Requests),
        ("tokens", Self::Tokens),
        ("input-tokens", Self::InputTokens),
        ("output-tokens", Self::OutputTokens),
        ("points", Self::Points),
        ("cost", Self::Cost),
        ("bytes", Self::Bytes),
        ("concurrency", Self::Concurrency),
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::WORDS[self as usize].0
    }
}

/// Whose calls a limit counts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// `credential`: all calls with one credential.
    #[default]
    Credential,
    /// `endpoint`: all calls with one credential to one endpoint.
    Endpoint,
    /// `model`: all calls with one credential for one model (or deployment of a model), which is named in the
    /// request.
    Model,
    /// `vendor`: all calls to the vendor from here, whatever their credential (by address, by account).
    Vendor,
    /// All calls with one credential to those endpoints whose answers name the policy: what a limit with a `named_by`
    /// and without a narrower scope counts. There is no word for it.
    Named,
}

impl Scope {
    /// All of them with the word for each, as in the catalogue.
    pub const WORDS: [(&str, Self); 4] = [
        ("credential", Self::Credential),
        ("endpoint", Self::Endpoint),
        ("model", Self::Model),
        ("vendor", Self::Vendor),
    ];
}

/// How headers hold the numbers of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// `plain`: a header for each number.
    #[default]
    Plain,
    /// `fraction`: one header with used/limit, as in `1/40` or `api-usage=18/5000`.
    Fraction,
    /// `pairs`: one header with keys and values, as in `total=100; remaining=99` or a JSON object.
    Pairs,
    /// `ietf`: the structured fields `RateLimit-Policy` and `RateLimit` of
    /// draft-ietf-httpapi-ratelimit-headers-10, and the dictionary of its draft 07.
    Ietf,
}

impl Form {
    /// All of them with the word for each, as in the catalogue.
    pub const WORDS: [(&str, Self); 4] =
        [("plain", Self::Plain), ("fraction", Self::Fraction), ("pairs", Self::Pairs), ("ietf", Self::Ietf)];
}

/// How a moment or a length of time is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Encoding {
    /// `auto`: told by its form and by what is plausible; a number that could be two things is nothing.
    #[default]
    Auto,
    /// `epoch-s`: seconds since the epoch, with or without a fraction.
    EpochSeconds,
    /// `epoch-ms`: milliseconds since the epoch.
    EpochMillis,
    /// `delta-s`: seconds from now, with or without a fraction.
    DeltaSeconds,
    /// `delta-ms`: milliseconds from now.
    DeltaMillis,
    /// `duration`: a number and a unit, `6m0s`, `7.66s`, `12ms`.
    Duration,
    /// `date`: RFC 3339, HTTP-date (RFC 9110, section 5.6.7), or as JavaScript writes one.
    Date,
    /// `delta-s-or-date`: what `Retry-After` is (RFC 9110, section 10.2.3).
    DeltaSecondsOrDate,
}

impl Encoding {
    /// All of them with the word for each, as in the catalogue.
    pub const WORDS: [(&str, Self); 8] = [
        ("auto", Self::Auto),
        ("epoch-s", Self::EpochSeconds),
        ("epoch-ms", Self::EpochMillis),
        ("delta-s", Self::DeltaSeconds),
        ("delta-ms", Self::DeltaMillis),
        ("duration", Self::Duration),
        ("date", Self::Date),
        ("delta-s-or-date", Self::DeltaSecondsOrDate),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_has_the_word_that_the_catalogue_uses() {
        for (word, unit) in Unit::WORDS {
            assert_eq!(unit.as_str(), word);
        }
    }
}
