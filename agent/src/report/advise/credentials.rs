//! `unused-credential`: one that was used, and is not any more. `shared-credential`: one that several services use.

use super::Draft;
use super::facts::{Credential, Facts};
use crate::report::findings::{Finding, evidence, words};
use crate::report::source::Source;
use crate::report::time::rfc3339;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What was not used for a week is not used; a nightly job's is.
const UNUSED_MINUTES: u64 = 7 * 1_440;

pub(super) fn find(source: &Source<'_>, facts: &Facts, drafts: &mut Vec<Draft>) {
    let unused_since =
        source.query.first_minute().min(source.query.now.minute().saturating_sub(UNUSED_MINUTES));
    for ((vendor, name), credential) in &facts.credentials {
        let label = source.label(vendor);
        if credential.used_by.is_empty() && credential.last <= unused_since {
            drafts.push(unused(vendor, &label, name, credential));
        }
        if credential.used_by.len() > 1 {
            drafts.push(shared(vendor, &label, name, credential));
        }
    }
}

fn by(uses: &BTreeMap<String, u64>) -> Value {
    uses.iter().map(|(service, calls)| json!({ "service": service, "calls": calls })).collect()
}

fn unused(vendor: &str, label: &str, name: &str, credential: &Credential) -> Draft {
    let services: Vec<&str> = credential.used_before.keys().map(String::as_str).collect();
    let calls: u64 = credential.used_before.values().sum();
    let last = rfc3339(credential.last * 60 * 1_000_000_000);
    let finding = Finding {
        rule: "unused-credential",
        sentence: format!(
            "The credential {name} of {label} was not used since {last}; before, {} made {} with it.",
            words::list(&services),
            words::count(calls, "call"),
        ),
        vendor: Some(vendor.into()),
        endpoint: None,
        callers: credential.used_before.keys().cloned().collect(),
        evidence: evidence([
            ("credential", json!(name)),
            ("not_used_since", json!(last)),
            ("used_before_by", by(&credential.used_before)),
        ]),
    };
    let mut draft = Draft::new(finding, 0, "Revoke it at the vendor, if nothing else holds it.");
    draft.risk =
        Some("Only programs with farcall installed are seen, as far back as the ledger goes.".into());
    draft
}

fn shared(vendor: &str, label: &str, name: &str, credential: &Credential) -> Draft {
    let services: Vec<&str> = credential.used_by.keys().map(String::as_str).collect();
    let calls: u64 = credential.used_by.values().sum();
    let finding = Finding {
        rule: "shared-credential",
        sentence: format!(
            "{} use one credential of {label} ({name}): who used up its quota, or leaked it, cannot be told apart \
             by the vendor.",
            words::list(&services),
        ),
        vendor: Some(vendor.into()),
        endpoint: None,
        callers: credential.used_by.keys().cloned().collect(),
        evidence: evidence([("credential", json!(name)), ("used_by", by(&credential.used_by))]),
    };
    Draft::new(finding, calls, "Give each service a credential of its own.")
}
