//! `unattributed`: calls without a customer in a service that names customers elsewhere.

use super::{Finding, Scene, Series, evidence, words};
use crate::report::numbers::share;
use farcall::attribution::UNKNOWN;
use serde_json::json;

/// A smaller share is start-up and housekeeping.
const MIN_SHARE: f64 = 0.05;

pub(super) fn find(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let nameless = |series: &Series| !series.kernel && &*series.customer == UNKNOWN;
    for (service, unknown) in scene.by(nameless, |series| &series.caller.service) {
        let calls = scene.count(|series| !series.kernel && series.caller.service == service);
        if unknown == calls || share(unknown, calls) < MIN_SHARE {
            continue;
        }
        let endpoints = scene
            .by(|series| nameless(series) && series.caller.service == service, |series| &series.endpoint);
        let most = endpoints.first().map_or("", |(endpoint, _)| endpoint);
        findings.push(Finding {
            rule: "unattributed",
            sentence: format!(
                "{} of the calls of {service} ({} of {}) name no customer, though others do; most often {most}.",
                words::percent(unknown, calls),
                words::number(unknown),
                words::number(calls),
            ),
            vendor: None,
            endpoint: None,
            callers: vec![service.into()],
            evidence: evidence([
                ("unknown", json!(unknown)),
                ("calls", json!(calls)),
                ("endpoints", json!(endpoints.iter().take(10).map(|(name, calls)| json!({ "endpoint": name, "calls": calls })).collect::<Vec<_>>())),
            ]),
        });
    }
}
