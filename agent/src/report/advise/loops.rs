//! `n-plus-one`: one call for each id of a list, one after the other.

use super::Draft;
use super::facts::Facts;
use crate::report::findings::{Finding, evidence, words};
use crate::report::source::Source;
use serde_json::json;

const MIN_CALLS: u64 = 20;

pub(super) fn find(source: &Source<'_>, facts: &Facts, drafts: &mut Vec<Draft>) {
    for ((vendor, endpoint), seen) in &facts.endpoints {
        let sums = &seen.sums;
        if sums.looped < MIN_CALLS {
            continue;
        }
        let per_loop = sums.looped / sums.loops.max(1);
        let traced = sums.traced > 0;
        let finding = Finding {
            rule: "n-plus-one",
            sentence: format!(
                "{} to {} {endpoint} came in {}, one after the other and each about something else: about {} each, {} \
                 at most.",
                words::count(sums.looped, "call"),
                source.label(vendor),
                words::count(sums.loops, "run"),
                words::number(per_loop),
                words::number(sums.longest_loop),
            ),
            vendor: Some(vendor.to_string()),
            endpoint: Some(endpoint.to_string()),
            callers: seen.services.iter().cloned().collect(),
            evidence: evidence([
                ("calls", json!(sums.calls)),
                ("calls_in_runs", json!(sums.looped)),
                ("runs", json!(sums.loops)),
                ("longest_run", json!(sums.longest_loop)),
                ("known_by", json!(if traced { "trace" } else { "timing" })),
                ("mean_ms", json!(crate::report::numbers::millis(seen.mean()))),
            ]),
        };
        let saved = sums.looped.saturating_sub(sums.loops);
        let mut draft = Draft::new(
            finding,
            saved,
            "Ask for all of them at once, where the vendor has a call that lists or takes many ids; else ask at the \
             same time rather than in turn, within a limit (`concurrency` of [[quota]]).",
        );
        draft.time = seen.mean().saturating_mul(u32::try_from(saved).unwrap_or(u32::MAX));
        draft.risk = (!traced).then(|| {
            "Without traces a run is known by its timing: no gap, no overlap, no other call between. A worker that is \
             busy all the time with one call for each piece of its work looks the same."
                .into()
        });
        drafts.push(draft);
    }
}
