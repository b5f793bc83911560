//! `rate-limited`: a vendor that said "too many", and who used it most.

use super::{Finding, Scene, Series, evidence, words};
use farcall::attribution::UNKNOWN;
use serde_json::json;

pub(super) fn find(scene: &Scene<'_>, findings: &mut Vec<Finding>) {
    for (vendor, refused) in scene.by(|series| series.status == 429, |series| &series.vendor) {
        let of_vendor = |series: &Series| &*series.vendor == vendor;
        let calls = scene.count(of_vendor);
        let services = scene.by(of_vendor, |series| &series.caller.service);
        let customers = scene.by(of_vendor, |series| &series.customer);
        let mut sentence = format!(
            "{} answered 429 (too many requests) to {} of {}",
            scene.source.label(vendor),
            words::number(refused),
            words::count(calls, "call"),
        );
        if let Some((service, count)) = services.first() {
            sentence += &format!("; {} of its calls came from {service}", words::percent(*count, calls));
        }
        if let Some((customer, count)) = customers.iter().find(|(customer, _)| *customer != UNKNOWN) {
            sentence += &format!(", {} were for {customer}", words::percent(*count, calls));
        }
        findings.push(Finding {
            rule: "rate-limited",
            sentence: sentence + ".",
            vendor: Some(vendor.into()),
            endpoint: None,
            callers: services.iter().map(|(service, _)| (*service).to_owned()).collect(),
            evidence: evidence([
                ("refused", json!(refused)),
                ("calls", json!(calls)),
                ("by_caller", json!(top(&services))),
                ("by_customer", json!(top(&customers))),
            ]),
        });
    }
}

/// The ten largest, in order.
fn top(shares: &[(&str, u64)]) -> Vec<serde_json::Value> {
    shares.iter().take(10).map(|(name, calls)| json!({ "name": name, "calls": calls })).collect()
}
