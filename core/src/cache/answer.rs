//! An answer that is kept: what is read of it, who may have it, and how a 304 renews it.

mod freshness;

pub(crate) use freshness::Use;

use super::Rule;
use super::ask::Ask;
use super::control::{Control, seconds};
use super::status::Status;
use crate::call::{Headers, Stored};
use crate::matcher::{Matcher, Subject};
use crate::units::Timestamp;
use bytes::Bytes;
use http::header::{AGE, DATE, HeaderMap, HeaderName, HeaderValue};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

/// A response that was kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// Whose it is, for people who want to be rid of it.
    pub label: Arc<Label>,
    /// The status.
    pub status: u16,
    /// The headers, without those of the connection.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// What it cost, in nano-units; `None` where that is not known.
    pub cost: Option<i64>,
    /// The tokens that it used; 0 where none are known.
    pub tokens: u64,
    pub(super) uri: u64,
    control: Control,
    requested_at: Timestamp,
    received_at: Timestamp,
    /// RFC 9111, section 4.2.3: `corrected_initial_age`.
    initial_age: Duration,
    /// What the headers say of how long it is fresh; `None` where they say nothing.
    explicit: Option<Duration>,
    /// RFC 9111, section 4.2.2.
    heuristic: Option<Duration>,
    /// As it was last handed out.
    handed_out: HandedOut,
}

/// The last hit, which is the next one in the same second as well: of the same age, and as much is left.
#[derive(Debug, Default)]
pub(crate) struct HandedOut(Mutex<Option<(u64, Status, Arc<Stored>)>>);

impl Clone for HandedOut {
    /// Of a copy, which may get other headers, nothing was handed out.
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// When an answer came, and how long its headers say that it is fresh.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) requested_at: Timestamp,
    pub(super) received_at: Timestamp,
    pub(super) initial_age: Duration,
    pub(super) explicit: Option<Duration>,
    pub(super) heuristic: Option<Duration>,
}

/// What kept answers are called by people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Label {
    /// The vendor's name.
    pub vendor: Arc<str>,
    /// Method and URL template.
    pub endpoint: Arc<str>,
    /// The customer; `None` where nobody said.
    pub customer: Option<Arc<str>>,
}

impl Label {
    /// The words for these.
    #[must_use]
    pub fn new(vendor: Arc<str>, endpoint: Arc<str>, customer: Option<Arc<str>>) -> Self {
        Self { vendor, endpoint, customer }
    }

    /// Whether these conditions, on vendor, endpoint, method and customer, are about it.
    #[must_use]
    pub fn is_of(&self, which: &Matcher) -> bool {
        which.matches(&Subject {
            vendor: &self.vendor,
            endpoint: &self.endpoint,
            method: self.endpoint.split(' ').next().unwrap_or_default(),
            customer: self.customer.as_deref().unwrap_or(crate::attribution::UNKNOWN),
            ..Subject::default()
        })
    }
}

/// Why a response is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unkept(pub(crate) &'static str);

/// Statuses whose answers may be kept without anything being said (RFC 9110, section 15.1), but for 206: parts are
/// left alone.
const BY_DEFAULT: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];

/// Headers of the connection or of the exchange, which are not kept (RFC 9111, section 3.1).
const OF_CONNECTION: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that a 304 does not replace (RFC 9111, section 3.2): they describe the body that is kept.
const OF_BODY: [&str; 4] = ["content-encoding", "content-length", "content-range", "content-type"];

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Guesses go no further (RFC 9111, section 4.2.2, leaves that to us).
const LONGEST_GUESS: Duration = Duration::from_secs(86_400);

/// The head of a response, and when it was asked for and came.
pub(crate) struct Received<'a> {
    pub(crate) status: u16,
    pub(crate) headers: &'a dyn Headers,
    pub(crate) requested_at: Timestamp,
    pub(crate) received_at: Timestamp,
}

impl Answer {
    /// Reads the head of a response to `ask`. Its body is still to come.
    ///
    /// # Errors
    /// Why it is not to be kept (RFC 9111, section 3).
    pub(crate) fn read(
        rule: &Rule,
        ask: &Ask,
        got: &Received<'_>,
        label: &Arc<Label>,
    ) -> Result<Self, Unkept> {
        let Some(headers) = copy(got) else { return Err(Unkept("unseen")) };
        let mut answer = Self {
            label: Arc::clone(label),
            status: got.status,
            headers,
            body: Bytes::new(),
            cost: None,
            tokens: 0,
            uri: ask.uri(),
            control: Control::default(),
            requested_at: got.requested_at,
            received_at: got.received_at,
            initial_age: Duration::ZERO,
            explicit: None,
            heuristic: None,
            handed_out: HandedOut::default(),
        };
        answer.understand(rule);
        answer.may_be_kept(rule, ask)?;
        Ok(answer)
    }

    /// One that was read before, by a process that knew its rule.
    pub(super) fn of_record(
        label: Arc<Label>,
        status: u16,
        headers: HeaderMap,
        body: Bytes,
        (cost, tokens): (Option<i64>, u64),
        uri: u64,
        times: Times,
    ) -> Self {
        let Times { requested_at, received_at, initial_age, explicit, heuristic } = times;
        let control = Control::default();
        let mut answer = Self {
            label,
            status,
            headers,
            body,
            cost,
            tokens,
            uri,
            control,
            requested_at,
            received_at,
            initial_age,
            explicit,
            heuristic,
            handed_out: HandedOut::default(),
        };
        answer.read_control();
        answer
    }

    pub(super) fn times(&self) -> Times {
        let Self { requested_at, received_at, initial_age, explicit, heuristic, .. } = *self;
        Times { requested_at, received_at, initial_age, explicit, heuristic }
    }

    fn read_control(&mut self) {
        self.control = Control::default();
        for line in self.headers.get_all("cache-control") {
            self.control.add(line.as_bytes());
        }
    }

    /// Derives what the headers mean.
    fn understand(&mut self, rule: &Rule) {
        self.read_control();
        let date = self.date("date").unwrap_or(self.received_at);
        let told = self.headers.get("age").and_then(|age| seconds(Some(age.as_bytes().trim_ascii())));
        let delay = self.received_at.since(self.requested_at);
        self.initial_age = self.received_at.since(date).max(told.unwrap_or_default() + delay);
        // An `Expires` that is no date is in the past (section 5.3).
        let expires = || {
            let at = self.headers.get("expires")?;
            Some(http_date(at).map_or(Duration::ZERO, |at| at.since(date)))
        };
        let shared = self.control.s_maxage.filter(|_| rule.share_credentials);
        self.explicit = shared.or(self.control.max_age).or_else(expires);
        let guessed = self.control.public || BY_DEFAULT.contains(&self.status);
        let modified = self.date("last-modified").filter(|_| guessed && self.explicit.is_none());
        self.heuristic = modified.map(|modified| (date.since(modified) / 10).min(LONGEST_GUESS));
    }

    /// RFC 9111, section 3. Holds for one that a 304 confirmed as well: under its headers others may not have it.
    pub(crate) fn may_be_kept(&self, rule: &Rule, ask: &Ask) -> Result<(), Unkept> {
        let Control { no_store, must_understand, private, public, must_revalidate, s_maxage, .. } =
            self.control;
        let overridden = self.overridden(rule);
        let when = |not: bool, why| if not { Err(Unkept(why)) } else { Ok(()) };
        when(matches!(self.status, 0..200 | 206 | 304), "status")?;
        when(ask.control.no_store, "no-store")?;
        // One that must be understood may be kept by who understands its status (section 5.2.2.3).
        let understood = must_understand && BY_DEFAULT.contains(&self.status);
        when(no_store && !understood && !rule.ignore_no_store, "no-store")?;
        when(rule.share_credentials && private, "private")?;
        let open = public || must_revalidate || s_maxage.is_some();
        when(rule.share_credentials && ask.authorized && !open, "authorization")?;
        let shared = rule.share_credentials || rule.share_customers;
        when(shared && self.headers.contains_key("set-cookie"), "set-cookie")?;
        let anything = |line: &HeaderValue| line.as_bytes().contains(&b'*') || line.to_str().is_err();
        when(self.headers.get_all("vary").iter().any(anything), "vary")?;
        when(self.is_stream(), "stream")?;
        when(self.length().is_some_and(|length| length > rule.max_bytes), "too-large")?;
        let allowed = overridden.is_some()
            || self.explicit.is_some()
            || public
            || private
            || BY_DEFAULT.contains(&self.status);
        // An error is kept for as long as somebody says that it holds, and for nothing else.
        let error = self.status >= 400 && !BY_DEFAULT.contains(&self.status);
        when(!allowed || error && self.lifetime(rule).is_zero(), "status")?;
        // Kept for nothing otherwise: neither fresh, nor of use to ask by, nor when the vendor is down.
        let validator = self.headers.contains_key("etag") || self.headers.contains_key("last-modified");
        let useful = validator || self.lifetime(rule) > Duration::ZERO || self.spare(rule) > Duration::ZERO;
        when(!useful, "not-fresh")
    }

    fn is_stream(&self) -> bool {
        let kind = self.headers.get("content-type").map_or(&b""[..], HeaderValue::as_bytes);
        kind.get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
    }

    /// The length that the headers promise.
    pub(crate) fn length(&self) -> Option<u64> {
        self.headers.get("content-length")?.to_str().ok()?.trim().parse().ok()
    }

    /// The header names that requests must agree in to get this answer; sorted, in lower case. A coded body is only for
    /// who asked as the first one did, though nobody says so: servers compress without a `Vary` (nginx, by default).
    pub(crate) fn vary(&self) -> Vec<Box<str>> {
        let coding = |line: &HeaderValue| !line.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
        let coded = self.headers.get_all("content-encoding").iter().any(coding);
        let lines = self.headers.get_all("vary").iter().filter_map(|line| line.to_str().ok());
        let mut names: Vec<Box<str>> = lines
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(|name| name.to_ascii_lowercase().into())
            .chain(coded.then(|| "accept-encoding".into()))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// What a request gets that wants only what is kept, where nothing is (RFC 9111, section 5.2.1.7).
    pub(crate) fn gateway_timeout() -> Arc<Self> {
        Arc::new(Self {
            label: Arc::default(),
            status: 504,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            cost: None,
            tokens: 0,
            uri: 0,
            control: Control::default(),
            requested_at: Timestamp::EPOCH,
            received_at: Timestamp::EPOCH,
            initial_age: Duration::ZERO,
            explicit: None,
            heuristic: None,
            handed_out: HandedOut::default(),
        })
    }

    /// What a request gets now: with its age (RFC 9111, section 5.1), and why (RFC 9211).
    pub(crate) fn handed_out(&self, status: Status, now: Timestamp) -> Arc<Stored> {
        let age = self.age(now).as_secs();
        let last = self.handed_out.0.try_lock().ok();
        if let Some(Some((known, why, stored))) = last.as_deref()
            && (*known, *why) == (age, status)
        {
            return Arc::clone(stored);
        }
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 2);
        headers.extend(self.headers.clone());
        if self.has_age() {
            headers.insert(AGE, age.into());
        }
        if let Ok(value) = HeaderValue::try_from(status.to_string()) {
            headers.append(CACHE_STATUS, value);
        }
        let stored = Arc::new(Stored { status: self.status, headers, body: self.body.clone() });
        // Of those that a waiting call got, or that stand in for an error, there is but one, or not for long.
        if let Some(mut last) = last.filter(|_| status.forwarded.is_none()) {
            *last = Some((age, status, Arc::clone(&stored)));
        }
        stored
    }

    /// Whether it is a response of the vendor's, and not one of ours.
    pub(crate) fn has_age(&self) -> bool {
        self.received_at > Timestamp::EPOCH
    }

    /// When it came, or was last confirmed.
    #[must_use]
    pub fn received_at(&self) -> Timestamp {
        self.received_at
    }

    /// When it was asked for.
    #[must_use]
    pub fn requested_at(&self) -> Timestamp {
        self.requested_at
    }

    /// Bytes that it takes in memory, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        // Twice: as they came, and as they were last handed out.
        size_of::<Self>() + 2 * headers + self.body.len()
    }

    /// What to ask by whether it is still good (RFC 9111, section 4.3.1); empty where there is nothing.
    pub(crate) fn condition(&self) -> Vec<(&'static str, String)> {
        let text = |name: &str| Some(self.headers.get(name)?.to_str().ok()?.to_owned());
        let etag = text("etag").map(|etag| ("if-none-match", etag));
        let modified = text("last-modified").map(|modified| ("if-modified-since", modified));
        etag.into_iter().chain(modified).collect()
    }

    /// The vendor said 304: it is still good, under these headers (RFC 9111, sections 3.2 and 4.3.4). `None` where
    /// what is still good is something else.
    pub(crate) fn confirmed(&self, rule: &Rule, got: &Received<'_>) -> Option<Self> {
        let update = copy(got)?;
        if let Some(theirs) = update.get("etag").map(HeaderValue::as_bytes) {
            let ours = self.headers.get("etag").map(HeaderValue::as_bytes);
            let same = match theirs.strip_prefix(b"W/") {
                None => ours == Some(theirs),
                // One that is weak says nothing against an answer without any, which was asked about by its date.
                Some(theirs) => ours.is_none_or(|ours| ours.strip_prefix(b"W/").unwrap_or(ours) == theirs),
            };
            if !same {
                return None;
            }
        }
        let mut answer = self.clone();
        for name in update.keys().filter(|name| !OF_BODY.contains(&name.as_str())) {
            answer.headers.remove(name);
            for value in update.get_all(name) {
                answer.headers.append(name, value.clone());
            }
        }
        if !update.contains_key("age") {
            answer.headers.remove("age");
        }
        if !update.contains_key("date") {
            // It is as old as what says so, not as what it was first (RFC 9110, section 6.6.1).
            answer.headers.remove("date");
            let moment = UNIX_EPOCH + Duration::from_nanos(got.received_at.as_nanos());
            if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(moment)) {
                answer.headers.insert(DATE, date);
            }
        }
        (answer.requested_at, answer.received_at) = (got.requested_at, got.received_at);
        answer.understand(rule);
        Some(answer)
    }

    fn date(&self, name: &str) -> Option<Timestamp> {
        self.headers.get(name).and_then(http_date)
    }
}

impl Rule {
    /// Whether calls of this method are looked up.
    pub(crate) fn covers(&self, method: &str) -> bool {
        self.methods.contain(method)
    }
}

/// The headers of a response that are kept with it; `None` where not all are shown.
fn copy(got: &Received<'_>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let shown = got.headers.each(&mut |name, value| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    });
    let named: Vec<HeaderName> = headers
        .get_all("connection")
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    OF_CONNECTION.iter().for_each(|name| drop(headers.remove(*name)));
    named.iter().for_each(|name| drop(headers.remove(name)));
    shown.then_some(headers)
}

fn http_date(value: &HeaderValue) -> Option<Timestamp> {
    let moment = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
    let nanos = moment.duration_since(UNIX_EPOCH).ok()?.as_nanos();
    Some(Timestamp::from_nanos(u64::try_from(nanos).ok()?))
}
