//! `uninstrumented`: a program that only the kernel saw. `bypass`: calls that went past the library of a
//! program that has one.

use super::{Finding, Scene, Series, evidence, words};
use serde_json::json;
use std::collections::BTreeSet;

pub(super) fn find(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    let own = |series: &Series| !series.kernel || scene.source.is_instrumented(&series.caller);
    let with_library: BTreeSet<&str> = scene
        .series
        .iter()
        .filter(|series| own(series))
        .map(|series| series.caller.service.as_str())
        .collect();
    for (service, calls) in scene.by(|series| series.kernel, |series| &series.caller.service) {
        let here = |series: &Series| series.kernel && series.caller.service == service;
        let vendors = scene.by(here, |series| &series.vendor);
        let labels: Vec<String> = vendors.iter().map(|(vendor, _)| scene.source.label(vendor)).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let (rule, sentence) = if with_library.contains(service) {
            (
                "bypass",
                format!(
                    "{service} made {} to {} past its library: only the kernel saw them, so they have no \
                     customer.",
                    words::count(calls, "call"),
                    words::list(&labels)
                ),
            )
        } else {
            (
                "uninstrumented",
                format!(
                    "{service} is not instrumented: only the kernel saw its {} to {}, so they have no customer.",
                    words::count(calls, "call"),
                    words::list(&labels)
                ),
            )
        };
        let executables: BTreeSet<&str> = scene
            .series
            .iter()
            .filter(|series| here(series))
            .map(|series| series.caller.executable.as_str())
            .collect();
        findings.push(Finding {
            rule,
            sentence,
            vendor: None,
            endpoint: None,
            callers: vec![service.into()],
            evidence: evidence([
                ("calls", json!(calls)),
                ("executables", json!(executables)),
                ("vendors", json!(vendors.iter().map(|(vendor, _)| vendor).collect::<Vec<_>>())),
            ]),
        });
    }
}
