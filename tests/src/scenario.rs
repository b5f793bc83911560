//! `scenarios.toml`: the rows of the matrix, as data.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The root of the workspace, which the paths in the data files are relative to.
#[must_use]
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// Reads one of this crate's data files.
pub(crate) fn load<T: DeserializeOwned>(file: &str) -> Result<T, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// The list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenarios {
    /// In the order in which they run and are printed.
    #[serde(rename = "scenario")]
    pub all: Vec<Scenario>,
}

impl Scenarios {
    /// Reads `scenarios.toml`.
    ///
    /// # Errors
    /// Says where the file is wrong.
    pub fn load() -> Result<Self, String> {
        load("scenarios.toml")
    }
}

/// One row of the matrix.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The row's name.
    pub name: String,
    /// What it shows, in a sentence; printed where it does not hold.
    pub promise: String,
    /// Where it is sent; once to each.
    #[serde(default = "everywhere")]
    pub(crate) over: Vec<Over>,
    /// Rules for vendor-sim while it runs; `{tls}` and `{plain}` stand for the listeners' origins.
    #[serde(default)]
    pub(crate) script: Vec<serde_json::Value>,
    /// What is sent, one after the other.
    pub(crate) send: Vec<Send>,
    /// What each call hands to the application.
    pub(crate) answer: Answer,
    /// What of it reached the vendor.
    #[serde(default)]
    pub(crate) arrived: Arrived,
    /// How many connections it makes.
    #[serde(default)]
    pub(crate) new_connections: Option<Bounds>,
    /// What the ledger says then, and nothing else.
    pub(crate) ledger: Vec<Row>,
}

impl Scenario {
    /// Whether it is the client's own timeout that ends its calls.
    pub(crate) fn ends_by_timeout(&self) -> bool {
        self.ledger.iter().any(|row| row.outcome.contains(&"timeout".to_owned()))
    }

    /// Whether it matters that the client sees the head as soon as it arrives.
    pub(crate) fn times_the_body(&self) -> bool {
        self.ledger.iter().any(|row| row.transfer_ms.is_some())
    }
}

fn everywhere() -> Vec<Over> {
    vec![Over::Tls, Over::Plain]
}

/// Where a scenario is sent.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Over {
    /// `https://localhost`, where HTTP/2 is offered.
    Tls,
    /// `http://127.0.0.1`.
    Plain,
    /// `http://127.0.0.1`, on a port that refuses connections.
    Refused,
    /// `https://localhost`, with a certificate of an authority that the client does not trust.
    Untrusted,
}

impl Over {
    /// The vendor in `farcall.toml` that it belongs to.
    pub(crate) const fn vendor(self) -> &'static str {
        match self {
            Self::Tls | Self::Untrusted => "sim-tls",
            Self::Plain | Self::Refused => "sim-plain",
        }
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "tls",
            Self::Plain => "plain",
            Self::Refused => "refused",
            Self::Untrusted => "untrusted",
        })
    }
}

/// One or more equal calls.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Send {
    /// The request's method.
    #[serde(default = "get")]
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// The text of the request's body.
    #[serde(default)]
    pub(crate) body: Option<String>,
    /// How often that text is repeated in the body.
    #[serde(default = "once")]
    pub(crate) body_times: usize,
    /// The client's own timeout for the whole call.
    #[serde(default = "a_minute")]
    pub(crate) timeout_ms: u64,
    /// How much of the response is read.
    #[serde(default)]
    pub(crate) read: Read,
    /// Whether the client follows redirects.
    #[serde(default = "yes")]
    pub(crate) follow_redirects: bool,
    /// Where redirects lead, the first request included: what a client that does not follow them is sent.
    #[serde(default)]
    pub(crate) hops: Vec<String>,
    /// The scope around it.
    #[serde(default)]
    pub(crate) customer: Option<String>,
    /// How many at the same time.
    #[serde(default = "one")]
    pub(crate) parallel: u64,
    /// With `parallel`: the customers that take turns.
    #[serde(default)]
    pub(crate) customers: Option<Vec<String>>,
    /// How often, one after the other.
    #[serde(default = "one")]
    pub(crate) repeat: u64,
}

fn get() -> String {
    "GET".to_owned()
}

const fn once() -> usize {
    1
}

const fn one() -> u64 {
    1
}

const fn a_minute() -> u64 {
    60_000
}

const fn yes() -> bool {
    true
}

/// How much of a response is read.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Read {
    /// To its end.
    #[default]
    All,
    /// One piece, and then it is let go of.
    FirstChunk,
    /// Nothing.
    None,
}

impl Read {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::FirstChunk => "first-chunk",
            Self::None => "none",
        }
    }
}

/// What a call hands to the application.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    /// Whether it is an answer, and not an error.
    #[serde(default = "yes")]
    pub(crate) ok: bool,
    /// Whether either will do: clients differ in what they put up with.
    #[serde(default)]
    pub(crate) either: bool,
    /// Its status.
    pub(crate) status: Option<u16>,
    /// The bytes of its body.
    pub(crate) bytes: Option<u64>,
    /// Whether these are counted after decoding, where the client decodes.
    #[serde(default)]
    pub(crate) encoded: bool,
}

/// What of a scenario reached the vendor.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// Every request, every byte, and every answer left whole.
    #[default]
    #[serde(rename = "whole")]
    Whole,
    /// Every request, but the answers broke off: the vendor sent at least the bytes that arrived.
    #[serde(rename = "in part")]
    InPart,
    /// Every request; the answers are not HTTP, and what was sent of them says nothing.
    #[serde(rename = "request")]
    Request,
    /// No request.
    #[serde(rename = "nothing")]
    Nothing,
}

/// One line that the ledger must show: a sum over calls that came out alike.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// The vendor, where it is not the one that the scenario is sent to.
    pub(crate) vendor: Option<String>,
    /// Method and template.
    pub(crate) endpoint: String,
    /// The status; 0 where no response came. Any of several.
    pub(crate) status: AnyOf<u16>,
    /// How the calls came out; any of several.
    #[serde(default = "complete")]
    pub(crate) outcome: AnyOf<String>,
    /// On whose behalf.
    #[serde(default = "unknown")]
    pub(crate) customer: String,
    /// How many calls, with one attempt each.
    pub(crate) calls: u64,
    /// Bytes of request bodies.
    #[serde(default)]
    pub(crate) bytes_out: Bounds,
    /// Bytes of response bodies.
    #[serde(default)]
    pub(crate) bytes_in: Bounds,
    /// From begin to head, summed over the calls.
    pub(crate) ttfb_ms: Option<Bounds>,
    /// From head to the last byte, summed over the calls.
    pub(crate) transfer_ms: Option<Bounds>,
}

fn complete() -> AnyOf<String> {
    AnyOf::One("complete".to_owned())
}

fn unknown() -> String {
    farcall::attribution::UNKNOWN.to_owned()
}

/// A value, or several that will do.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum AnyOf<T> {
    /// This one.
    One(T),
    /// Any of these.
    Any(Vec<T>),
}

impl<T: PartialEq> AnyOf<T> {
    pub(crate) fn contains(&self, value: &T) -> bool {
        self.all().contains(value)
    }
}

impl<T> AnyOf<T> {
    pub(crate) fn all(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Any(any) => any,
        }
    }
}

impl<T: fmt::Display> fmt::Display for AnyOf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, one) in self.all().iter().enumerate() {
            write!(f, "{}{one}", if place == 0 { "" } else { " or " })?;
        }
        Ok(())
    }
}

/// A number, or the bounds of one.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub(crate) enum Bounds {
    /// Exactly so many.
    Exactly(u64),
    /// No less and no more than.
    Within(Within),
}

/// The two ends, each included.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Within {
    #[serde(default)]
    at_least: u64,
    #[serde(default = "unbounded")]
    at_most: u64,
}

const fn unbounded() -> u64 {
    u64::MAX
}

impl Default for Bounds {
    fn default() -> Self {
        Self::Exactly(0)
    }
}

impl Bounds {
    pub(crate) fn contain(self, value: u64) -> bool {
        match self {
            Self::Exactly(exactly) => value == exactly,
            Self::Within(Within { at_least, at_most }) => (at_least..=at_most).contains(&value),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(exactly) => write!(f, "{exactly}"),
            Self::Within(Within { at_least, at_most: u64::MAX }) => write!(f, "{at_least} or more"),
            Self::Within(Within { at_least, at_most }) => write!(f, "{at_least} to {at_most}"),
        }
    }
}
