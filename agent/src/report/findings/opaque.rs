//! `opaque`: connections that nobody can explain, with the reason.

use super::{Finding, Scene, evidence, words};
use crate::report::ReportError;
use crate::store::ExplainedBy;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
struct Dark {
    connections: u64,
    bytes: u64,
    places: BTreeSet<String>,
}

pub(super) fn find(scene: &Scene<'_>, findings: &mut Vec<Finding>) -> Result<(), ReportError> {
    if scene.source.query.filters.iter().any(|filter| filter.must_fit_connections().is_err()) {
        return Ok(());
    }
    let mut dark: BTreeMap<(String, String), Dark> = BTreeMap::new();
    scene.source.connections(|row| {
        if row.explained_by == ExplainedBy::Nobody.as_str() {
            let known = dark.entry((row.caller.service.clone(), row.reason.to_string())).or_default();
            known.connections += row.connections;
            known.bytes = known.bytes.saturating_add(row.bytes_out).saturating_add(row.bytes_in);
            known.places.insert(if row.name.is_empty() { row.address } else { row.name }.to_string());
        }
    })?;
    let mut dark: Vec<_> = dark.into_iter().collect();
    dark.sort_by_key(|(_, dark)| std::cmp::Reverse(dark.bytes));
    for ((service, reason), Dark { connections, bytes, places }) in dark {
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        let because =
            if reason.is_empty() { "and no reason was recorded".into() } else { format!("because {reason}") };
        findings.push(Finding {
            rule: "opaque",
            sentence: format!(
                "{} of {service} to {} ({}) cannot be explained, {because}.",
                words::count(connections, "connection"),
                words::list(&places),
                words::count(bytes, "byte"),
            ),
            vendor: None,
            endpoint: None,
            evidence: evidence([
                ("connections", json!(connections)),
                ("bytes", json!(bytes)),
                ("to", json!(places.iter().take(10).collect::<Vec<_>>())),
                ("reason", json!(reason)),
            ]),
            callers: vec![service],
        });
    }
    Ok(())
}
