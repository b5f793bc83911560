//! `behaviours.toml`: rules that act, and what has to come of each.

mod judge;
mod play;

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::scenario::{AnyOf, Bounds, load};

pub use play::behave;

/// The list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviours {
    /// In the order in which they are played and printed.
    #[serde(rename = "behaviour")]
    pub all: Vec<Behaviour>,
}

impl Behaviours {
    /// Reads `behaviours.toml`.
    ///
    /// # Errors
    /// Says where the file is wrong.
    pub fn load() -> Result<Self, String> {
        load("behaviours.toml")
    }
}

/// One row of the matrix: a vendor of its own, rules about it, and what they make of the calls to it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// The row's name, and its vendor's.
    pub name: String,
    /// What it shows, in a sentence; printed where it does not hold.
    pub promise: String,
    /// The rules, as in `farcall.toml`. `{vendor}` stands for the vendor's name, `{backup}` for host and port of a
    /// second server.
    pub(crate) rules: String,
    /// More of the vendor's entry, as in `farcall.toml`.
    #[serde(default)]
    pub(crate) vendor: String,
    /// Rules for vendor-sim.
    #[serde(default)]
    pub(crate) script: Vec<serde_json::Value>,
    /// How many of the second server's requests are Farcall's own, such as alarms: they are in no ledger.
    #[serde(default)]
    pub(crate) alarms: u64,
    /// Which counters of failures may be above zero because of it.
    #[serde(default)]
    pub(crate) counters: Vec<String>,
    /// What is done, one after the other.
    pub(crate) play: Vec<Step>,
    /// How many requests reach the vendor.
    pub(crate) arrived: Bounds,
    /// How many reach the second server.
    #[serde(default)]
    pub(crate) at_backup: Bounds,
    /// What the vendor's requests look like, in the order of their arrival; left out: anyhow.
    #[serde(default)]
    pub(crate) requests: Vec<Request>,
    /// A header of which all requests carry the same value.
    #[serde(default)]
    pub(crate) one_value: Option<String>,
    /// What the ledger says then, and nothing else.
    pub(crate) ledger: Vec<Entry>,
}

impl Behaviour {
    /// Whether it has a second server.
    pub(crate) fn has_backup(&self) -> bool {
        self.rules.contains("{backup}")
    }
}

/// One or more equal calls.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Rules that stand in the place of the earlier ones from here on.
    #[serde(default)]
    pub(crate) rules: Option<String>,
    /// The request's method.
    #[serde(default = "get")]
    pub(crate) method: String,
    /// Path and query.
    #[serde(default = "ok")]
    pub(crate) path: String,
    /// Header fields.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// The text of the request's body.
    #[serde(default)]
    pub(crate) body: Option<String>,
    /// The scope around it.
    #[serde(default)]
    pub(crate) customer: Option<String>,
    /// `interactive` or `batch`.
    #[serde(default)]
    pub(crate) priority: Option<String>,
    /// How many at the same time.
    #[serde(default = "one")]
    pub(crate) parallel: u64,
    /// With `parallel`: the customers that take turns.
    #[serde(default)]
    pub(crate) customers: Option<Vec<String>>,
    /// How often, one after the other.
    #[serde(default = "one")]
    pub(crate) repeat: u64,
    /// It is repeated until a call comes to this.
    #[serde(default)]
    pub(crate) until: Option<String>,
    /// What the application gets: all the same, or how often what. With `until`: what may come before that.
    pub(crate) got: Got,
    /// A header of the answers, and how its value begins in each of them.
    #[serde(default)]
    pub(crate) header: Option<Value>,
    /// The bytes of all bodies that it gets.
    #[serde(default)]
    pub(crate) bytes: Option<u64>,
}

fn get() -> String {
    "GET".to_owned()
}

fn ok() -> String {
    "/scenario/ok".to_owned()
}

const fn one() -> u64 {
    1
}

/// What the application gets of some calls: a status, `refused-` and the concept that refused, or `failed`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Got {
    /// This, of each call.
    Each(String),
    /// So often this, and so often that, and nothing else.
    Tally(BTreeMap<String, Bounds>),
}

/// How the value of a header begins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Value {
    /// The header's name, in lower case.
    pub(crate) name: String,
    /// The beginning of its value.
    pub(crate) begins: String,
}

/// One request as the vendor saw it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// Path without query.
    pub(crate) path: Option<String>,
    /// What its body is.
    pub(crate) body: Option<String>,
    /// Header fields that it has.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// What it was answered.
    pub(crate) status: Option<u16>,
}

/// One line of the ledger: a sum over calls that came out alike, whatever their endpoints.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// The status; 0 where nobody answered.
    #[serde(default = "success")]
    pub(crate) status: u16,
    /// How they came out; any of several.
    #[serde(default = "complete")]
    pub(crate) outcome: AnyOf<String>,
    /// On whose behalf.
    #[serde(default = "unknown")]
    pub(crate) customer: String,
    /// With which tags.
    #[serde(default)]
    pub(crate) tags: String,
    /// How many calls.
    pub(crate) calls: Bounds,
    /// How many exchanges with the vendor; as many as calls, unless it says otherwise.
    #[serde(default)]
    pub(crate) attempts: Option<Bounds>,
    /// What they cost, in nano-units.
    #[serde(default)]
    pub(crate) cost: Option<u64>,
    /// How long rules made them wait, summed.
    #[serde(default)]
    pub(crate) waited_ms: Option<Bounds>,
    /// How long they took, summed.
    #[serde(default)]
    pub(crate) duration_ms: Option<Bounds>,
}

const fn success() -> u16 {
    200
}

fn complete() -> AnyOf<String> {
    AnyOf::One("complete".to_owned())
}

fn unknown() -> String {
    farcall::attribution::UNKNOWN.to_owned()
}
