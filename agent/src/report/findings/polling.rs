//! `uncached-polling`: an answer that hardly ever changes, asked for again and again.

use super::{Example, Finding, Scene, Series, evidence, words};
use crate::report::numbers::share;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Fewer calls are nobody's problem.
const MIN_CALLS: u64 = 20;
/// Polling is what is asked about as often as the busiest of all else that a service asks: once for each piece
/// of its work.
const MIN_RATIO: f64 = 0.8;
/// Where answers differ by more than this, they are not the same answer.
const MAX_SPREAD: f64 = 0.02;

pub(super) fn find(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let mut asked: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for series in &scene.series {
        asked.entry((&series.vendor, &series.endpoint)).or_default().insert(series.caller.service.as_str());
    }
    for ((vendor, endpoint), services) in asked {
        let flags = scene.source.has_tag(vendor, "flags");
        // Behind a template are many resources; a flag vendor's are all the same kind of answer.
        if !endpoint.starts_with("GET ") || (endpoint.contains('{') && !flags) {
            continue;
        }
        let pollers: Vec<&str> =
            services.into_iter().filter(|service| polls(scene, vendor, endpoint, service, flags)).collect();
        if !pollers.is_empty() {
            findings.extend(describe(scene, vendor, endpoint, &pollers, flags));
        }
    }
}

/// Whether a service asks so often that it must be asking on behalf of something else each time.
fn polls(scene: &Scene<'_>, vendor: &str, endpoint: &str, service: &str, flags: bool) -> bool {
    let (asked, busiest) = counts(scene, vendor, endpoint, &[service]);
    // Alone, a service may be a poller by profession; a flag SDK never needs to be one.
    asked >= MIN_CALLS && if busiest == 0 { flags } else { share(asked, busiest) >= MIN_RATIO }
}

/// How often the services ask this endpoint, and how often each its busiest other one, added up.
fn counts(scene: &Scene<'_>, vendor: &str, endpoint: &str, services: &[&str]) -> (u64, u64) {
    let mut asked = 0;
    let mut others: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for series in scene.series.iter().filter(|one| services.contains(&one.caller.service.as_str())) {
        if &*series.vendor == vendor && &*series.endpoint == endpoint {
            asked += series.calls;
        } else {
            *others.entry((&series.caller.service, &series.vendor, &series.endpoint)).or_default() +=
                series.calls;
        }
    }
    let busiest = |service: &&str| {
        others.iter().filter(|((of, ..), _)| of == service).map(|(_, calls)| *calls).max().unwrap_or_default()
    };
    (asked, services.iter().map(busiest).sum())
}

fn describe(
    scene: &Scene<'_>,
    vendor: &str,
    endpoint: &str,
    services: &[&str],
    flags: bool,
) -> Option<Finding> {
    let ours = |series: &&Series| {
        &*series.vendor == vendor
            && &*series.endpoint == endpoint
            && services.contains(&series.caller.service.as_str())
    };
    let series: Vec<&Series> = scene.series.iter().filter(ours).collect();
    let examples: Vec<&Example> = scene
        .examples
        .iter()
        .filter(|example| {
            &*example.vendor == vendor
                && &*example.endpoint == endpoint
                && services.contains(&example.service.as_str())
        })
        .collect();
    let (asked, busiest) = counts(scene, vendor, endpoint, services);
    let fine: u64 = series.iter().filter(|one| one.status == 200 && one.complete).map(|one| one.calls).sum();
    let revalidated: u64 = series.iter().filter(|one| one.status == 304).map(|one| one.calls).sum();
    let size = size_of_answers(&series, &examples);
    if revalidated > 0 || share(fine, asked) < 0.9 || (size.is_none() && !flags) {
        return None;
    }
    let seconds = seconds_of(&examples);
    let time = match seconds {
        Some(seconds) => format!("in {} s", words::number(seconds)),
        None => "in this window".into(),
    };
    let mut sentence = format!(
        "{} was asked {} {time}, {endpoint}",
        scene.source.label(vendor),
        words::count(asked, "time"),
    );
    let (who, asks) = (words::list(services), if services.len() == 1 { "asks" } else { "ask" });
    sentence += &match share(asked, busiest) {
        _ if busiest == 0 => format!(" by {who}; "),
        ..1.25 => format!(", as often as {who} {asks} for anything else; "),
        times => format!(", {times:.1} times as often as {who} {asks} for anything else; "),
    };
    sentence += &match size {
        Some(Size { bytes, exact: true }) => {
            format!("every answer had the same size ({}); ", words::count(bytes, "byte"))
        }
        Some(Size { bytes, exact: false }) => {
            format!("the answers hardly differ in size ({} on average); ", words::count(bytes, "byte"))
        }
        None => String::new(),
    };
    sentence += "nothing caches it.";
    Some(Finding {
        rule: "uncached-polling",
        sentence,
        vendor: Some(vendor.into()),
        endpoint: Some(endpoint.into()),
        callers: services.iter().map(|service| (*service).to_owned()).collect(),
        evidence: evidence([
            ("calls", json!(asked)),
            ("busiest_other_calls", json!(busiest)),
            ("seconds", json!(seconds)),
            ("revalidated", json!(revalidated)),
            ("bytes_in", json!(series.iter().map(|one| one.bytes_in).sum::<u64>())),
            ("bytes_per_answer", json!(size.map(|size| size.bytes))),
            ("same_size", json!(size.is_some_and(|size| size.exact))),
        ]),
    })
}

#[derive(Clone, Copy)]
struct Size {
    bytes: u64,
    /// Whether nothing speaks against each answer having exactly this size.
    exact: bool,
}

/// The size that all answers have, or nearly; `None` where they differ, or have no body.
fn size_of_answers(series: &[&Series], examples: &[&Example]) -> Option<Size> {
    let whole: Vec<&&Series> = series.iter().filter(|one| one.status == 200 && one.complete).collect();
    let calls: u64 = whole.iter().map(|one| one.calls).sum();
    let bytes: u64 = whole.iter().map(|one| one.bytes_in).sum();
    let mean = bytes.checked_div(calls).filter(|mean| *mean > 0)?;
    let answers: Vec<u64> =
        examples.iter().filter(|example| example.status == 200).map(|example| example.bytes_in).collect();
    // Sums over each minute, customer and caller, and the single calls that were kept, must all say the same.
    let exact = whole.iter().all(|one| one.bytes_in == mean * one.calls)
        && answers.iter().all(|answer| *answer == mean);
    #[allow(clippy::cast_precision_loss)]
    let near = |bytes: u64, calls: u64| {
        (bytes as f64 / calls as f64 - mean as f64).abs() <= mean as f64 * MAX_SPREAD
    };
    let close = whole.iter().all(|one| near(one.bytes_in, one.calls))
        && answers.iter().all(|answer| near(*answer, 1));
    (exact || close).then_some(Size { bytes: mean, exact })
}

/// From the first to the last call that was kept: one is kept each second.
fn seconds_of(examples: &[&Example]) -> Option<u64> {
    let first = examples.iter().map(|example| example.begun).min()?;
    let last = examples.iter().map(|example| example.begun).max()?;
    (last > first).then(|| (last - first).div_ceil(1_000_000_000))
}
