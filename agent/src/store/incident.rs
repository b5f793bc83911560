//! Incidents as the store keeps them.

use farcall::Timestamp;
use farcall::quota::{Answers, Kind, NamedIncident, NamedMix, NamedShare};
use serde_json::{Value, json};

/// What tells one incident of a process from another: reports of one window are of one incident.
pub(super) fn source(incident: &NamedIncident) -> String {
    let NamedIncident { vendor, credential, policy, partition, began, at, .. } = incident;
    let window = if *began == Timestamp::EPOCH { at } else { began };
    let partition = if partition.is_empty() { String::new() } else { format!("[{partition}]") };
    format!("{vendor}/{credential}/{policy}{partition}/{}", window.as_nanos())
}

/// Times in Unix nanoseconds; what is not known is null.
pub(super) fn to_json(incident: &NamedIncident) -> Value {
    let shares = |shares: &[NamedShare]| -> Vec<Value> { shares.iter().map(share).collect() };
    json!({
        "vendor": incident.vendor,
        "credential": incident.credential,
        "policy": incident.policy,
        "partition": incident.partition,
        "shared": incident.shared,
        "kind": incident.kind,
        "why": incident.why,
        "at": incident.at.as_nanos(),
        "count": incident.count,
        "answers": incident.answers.iter().map(answers).collect::<Vec<_>>(),
        "began": incident.began.as_nanos(),
        "ends": incident.ends.as_nanos(),
        "unit": incident.unit,
        "counted_in": incident.counted_in,
        "limit": incident.limit,
        "limit_window": incident.limit_window.map(|window| u64::try_from(window.as_nanos()).unwrap_or(u64::MAX)),
        "remaining": incident.remaining,
        "resets_at": incident.resets_at.map(Timestamp::as_nanos),
        "retry_at": incident.retry_at.map(Timestamp::as_nanos),
        "own": incident.own,
        "foreign": incident.foreign,
        "refused": incident.refused,
        "kept_back": shares(&incident.kept_back),
        "has": incident.has,
        "customers": shares(&incident.customers),
        "callers": shares(&incident.callers),
        "endpoints": shares(&incident.endpoints),
        "credentials": shares(&incident.credentials),
        "mixes": incident.mixes.iter().map(mix).collect::<Vec<_>>(),
    })
}

fn answers(answers: &Answers) -> Value {
    let kind = if answers.exhausted { Kind::Exhausted } else { Kind::Rate };
    json!({ "status": answers.status, "kind": kind.as_str(), "count": answers.count })
}

fn share(share: &NamedShare) -> Value {
    json!({ "name": share.name, "units": share.units, "at_least": share.at_least })
}

fn mix(mix: &NamedMix) -> Value {
    json!({
        "customer": mix.customer,
        "caller": mix.caller,
        "endpoint": mix.endpoint,
        "units": mix.units,
        "at_least": mix.at_least,
    })
}
