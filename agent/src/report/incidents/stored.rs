//! An incident as the ledger holds it: JSON, with the fields of [`NamedIncident`] and times in nanoseconds.

use farcall::Timestamp;
use farcall::quota::{Answers, Kind, NamedIncident, NamedMix, NamedShare};
use serde::Deserialize;
use std::time::Duration;

/// What is missing is empty: a later version may say more, an earlier one less.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stored {
    vendor: String,
    credential: String,
    policy: String,
    partition: String,
    shared: bool,
    kind: String,
    why: String,
    at: u64,
    count: u64,
    answers: Vec<Alike>,
    began: u64,
    ends: u64,
    unit: String,
    counted_in: Option<String>,
    limit: Option<u64>,
    limit_window: Option<u64>,
    remaining: Option<u64>,
    resets_at: Option<u64>,
    retry_at: Option<u64>,
    own: u64,
    foreign: Option<u64>,
    refused: u64,
    kept_back: Vec<Share>,
    has: Vec<String>,
    customers: Vec<Share>,
    callers: Vec<Share>,
    endpoints: Vec<Share>,
    credentials: Vec<Share>,
    mixes: Vec<Mix>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Alike {
    status: u16,
    kind: String,
    count: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Share {
    name: String,
    units: u64,
    at_least: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mix {
    customer: String,
    endpoint: String,
    caller: String,
    units: u64,
    at_least: u64,
}

/// Reads an incident of the ledger.
///
/// # Errors
/// When it is not JSON, or of other types.
pub(super) fn read(text: &str) -> Result<NamedIncident, serde_json::Error> {
    let stored: Stored = serde_json::from_str(text)?;
    let shares = |shares: Vec<Share>| -> Vec<NamedShare> {
        let named =
            |share: Share| NamedShare { name: share.name, units: share.units, at_least: share.at_least };
        shares.into_iter().map(named).collect()
    };
    let mixes = stored.mixes.into_iter().map(|mix| NamedMix {
        customer: mix.customer,
        endpoint: mix.endpoint,
        caller: mix.caller,
        units: mix.units,
        at_least: mix.at_least,
    });
    let mut incident = NamedIncident::default();
    incident.vendor = stored.vendor;
    incident.credential = stored.credential;
    incident.policy = stored.policy;
    incident.partition = stored.partition;
    incident.shared = stored.shared;
    incident.kind = stored.kind;
    incident.why = stored.why;
    incident.at = Timestamp::from_nanos(stored.at);
    incident.count = stored.count;
    incident.answers = stored
        .answers
        .into_iter()
        .map(|alike| Answers {
            status: alike.status,
            exhausted: alike.kind == Kind::Exhausted.as_str(),
            count: alike.count,
        })
        .collect();
    incident.began = Timestamp::from_nanos(stored.began);
    incident.ends = Timestamp::from_nanos(stored.ends);
    // Earlier versions counted in the unit itself.
    incident.counted_in = stored.counted_in.unwrap_or_else(|| stored.unit.clone());
    incident.unit = stored.unit;
    incident.limit = stored.limit;
    incident.limit_window = stored.limit_window.map(Duration::from_nanos);
    incident.remaining = stored.remaining;
    incident.resets_at = stored.resets_at.map(Timestamp::from_nanos);
    incident.retry_at = stored.retry_at.map(Timestamp::from_nanos);
    incident.own = stored.own;
    incident.foreign = stored.foreign;
    incident.refused = stored.refused;
    incident.kept_back = shares(stored.kept_back);
    incident.has = stored.has;
    incident.customers = shares(stored.customers);
    incident.callers = shares(stored.callers);
    incident.endpoints = shares(stored.endpoints);
    incident.credentials = shares(stored.credentials);
    incident.mixes = mixes.collect();
    Ok(incident)
}
