//! `errors`: a vendor whose calls often go wrong.

use super::{Finding, Scene, Series, evidence, words};
use crate::report::numbers::share;
use serde_json::json;

const MIN_ERRORS: u64 = 5;
const MIN_RATE: f64 = 0.05;

pub(super) fn find(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    // Being refused for too many calls has a rule of its own.
    let wrong = |series: &Series| series.error && series.status != 429;
    for (vendor, errors) in scene.by(wrong, |series| &series.vendor) {
        let calls = scene.count(|series| &*series.vendor == vendor);
        if errors < MIN_ERRORS || share(errors, calls) <= MIN_RATE {
            continue;
        }
        let here = |series: &Series| wrong(series) && &*series.vendor == vendor;
        let endpoints = scene.by(here, |series| &series.endpoint);
        let statuses = statuses(scene, &here);
        let mut sentence = format!(
            "{} failed {} of {} ({})",
            scene.source.label(vendor),
            words::number(errors),
            words::count(calls, "call"),
            words::percent(errors, calls)
        );
        if let (Some((status, count)), Some((endpoint, _))) = (statuses.first(), endpoints.first()) {
            let how = if *count == errors { "all with" } else { "mostly with" };
            sentence += &format!(", {how} {status}, most often {endpoint}");
        }
        let services = scene.by(here, |series| &series.caller.service);
        findings.push(Finding {
            rule: "errors",
            sentence: sentence + ".",
            vendor: Some(vendor.into()),
            endpoint: endpoints.first().map(|(endpoint, _)| (*endpoint).to_owned()),
            callers: services.iter().map(|(service, _)| (*service).to_owned()).collect(),
            evidence: evidence([
                ("errors", json!(errors)),
                ("calls", json!(calls)),
                ("error_rate", json!(share(errors, calls))),
                (
                    "by_status",
                    json!(
                        statuses
                            .iter()
                            .map(|(status, calls)| json!({ "status": status, "calls": calls }))
                            .collect::<Vec<_>>()
                    ),
                ),
            ]),
        });
    }
}

/// Calls by status, or `no response`, the most frequent first.
fn statuses(scene: &Scene<'_>, among: &impl Fn(&Series) -> bool) -> Vec<(String, u64)> {
    let mut sums = std::collections::BTreeMap::<u16, u64>::new();
    for series in scene.series.iter().filter(|series| among(series)) {
        *sums.entry(series.status).or_default() += series.calls;
    }
    let word = |status: u16| if status == 0 { "no response".to_owned() } else { status.to_string() };
    let mut sums: Vec<_> = sums.into_iter().map(|(status, calls)| (word(status), calls)).collect();
    sums.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
    sums
}
