//! `retry-storm`: calls that are repeated because they fail, until they are most of what the vendor gets.

use super::facts::{Facts, Seen};
use super::{Draft, config};
use crate::report::findings::{Finding, evidence, words};
use crate::report::numbers::share;
use crate::report::source::Source;
use serde_json::json;

const MIN_REPEATS: u64 = 10;
/// Of all that is sent so much is sent again.
const MIN_SHARE: f64 = 0.2;

pub(super) fn find(source: &Source<'_>, facts: &Facts, drafts: &mut Vec<Draft>) {
    for (vendor, seen) in &facts.vendors {
        let further = seen.attempts.saturating_sub(seen.calls);
        let repeats = further + seen.sums.repeats;
        if repeats >= MIN_REPEATS && share(repeats, seen.attempts) >= MIN_SHARE {
            drafts.push(describe(source, vendor, seen, further));
        }
    }
}

fn describe(source: &Source<'_>, vendor: &str, seen: &Seen, further: u64) -> Draft {
    let repeats = further + seen.sums.repeats;
    let finding = Finding {
        rule: "retry-storm",
        sentence: format!(
            "{} of {} to {} only repeated one that had failed: {} within a call, {} as a new call within ten seconds.",
            words::number(repeats),
            words::count(seen.attempts, "request"),
            source.label(vendor),
            words::number(further),
            words::number(seen.sums.repeats),
        ),
        vendor: Some(vendor.into()),
        endpoint: None,
        callers: seen.services.iter().cloned().collect(),
        evidence: evidence([
            ("calls", json!(seen.calls)),
            ("attempts", json!(seen.attempts)),
            ("attempts_per_call", json!((share(seen.attempts, seen.calls) * 100.0).round() / 100.0)),
            ("asked_again_within_10_s", json!(seen.sums.repeats)),
            ("failures", json!(seen.failures)),
        ]),
    };
    let mut draft = Draft::new(
        finding,
        repeats,
        "Let one place retry, within a budget that ends when everything fails, and open a breaker.",
    );
    draft.time = seen.mean().saturating_mul(u32::try_from(repeats).unwrap_or(u32::MAX));
    draft.risk = Some(
        "Loops of the application's own around its calls go on: `retry_budget` is about Farcall's retries, the breaker \
         about all."
            .into(),
    );
    let lines = [
        "attempts = 2".to_owned(),
        "retry_budget = \"10%\"".to_owned(),
        "breaker = { consecutive = 5, failure_rate = \"50%\" }".to_owned(),
    ];
    draft.config = config::rule("resilience", vendor, None, &lines);
    draft
}
