//! `no-timeout`: a vendor that could hold calls up for ever. `no-fallback`: one that fails, and then there is nothing.

use super::facts::{Facts, Seen};
use super::{Draft, config};
use crate::report::findings::{Finding, evidence, words};
use crate::report::numbers::{millis, share};
use crate::report::source::Source;
use serde_json::json;
use std::time::Duration;

const MIN_CALLS: u64 = 20;
const MIN_FAILURES: u64 = 5;
const MIN_RATE: f64 = 0.01;
/// A deadline lets pass what takes three times as long as nearly all calls.
const ROOM: u32 = 3;
/// Longer than the timeouts of most clients that set one: a call that took so long had none, or one that hardly helps.
const LONG: Duration = Duration::from_secs(30);
const DEADLINES: [u64; 9] = [1, 2, 5, 10, 20, 30, 60, 120, 300];

pub(super) fn find(source: &Source<'_>, facts: &Facts, drafts: &mut Vec<Draft>) {
    for (vendor, seen) in &facts.vendors {
        let sums = &seen.sums;
        if sums.calls < MIN_CALLS {
            continue;
        }
        // A client that gave up once has a timeout.
        if sums.deadlines * 2 < sums.calls && seen.timeouts == 0 {
            drafts.push(no_timeout(source, vendor, seen));
        }
        if sums.fallbacks * 2 < sums.calls
            && seen.failures >= MIN_FAILURES
            && share(seen.failures, seen.calls) >= MIN_RATE
        {
            let draft = no_fallback(source, facts, vendor, seen, drafts);
            drafts.push(draft);
        }
    }
}

fn no_timeout(source: &Source<'_>, vendor: &str, seen: &Seen) -> Draft {
    let bare = seen.sums.calls - seen.sums.deadlines;
    let [p99, slowest] = [0.99, 1.0].map(|quantile| seen.latency.quantile(quantile).unwrap_or_default());
    let wanted = p99 * ROOM;
    let deadline = DEADLINES.map(Duration::from_secs).into_iter().find(|deadline| *deadline >= wanted);
    let deadline = deadline.unwrap_or(Duration::from_secs(600));
    let finding = Finding {
        rule: "no-timeout",
        sentence: format!(
            "Nothing is known to limit how long {} of {} to {} may take; the slowest took {}.",
            words::number(bare),
            words::count(seen.sums.calls, "call"),
            source.label(vendor),
            words::time(slowest),
        ),
        vendor: Some(vendor.into()),
        endpoint: None,
        callers: seen.services.iter().cloned().collect(),
        evidence: evidence([
            ("calls", json!(seen.sums.calls)),
            ("without_deadline", json!(bare)),
            ("ended_in_a_timeout", json!(seen.timeouts)),
            ("p99_ms", json!(millis(p99))),
            ("slowest_ms", json!(millis(slowest))),
        ]),
    };
    let mut draft = Draft::new(finding, bare, "Give its calls a deadline.");
    draft.risk = Some(
        "A timeout of the client's own that has not run out yet cannot be seen: where the program sets one, this is done \
         already. Calls that take longer than the \
         deadline fail."
            .into(),
    );
    draft.uncertain = slowest <= LONG;
    let line = format!("deadline = {}", config::quoted(&config::duration(deadline)));
    draft.config = config::rule("resilience", vendor, None, &[line]);
    draft
}

fn no_fallback(source: &Source<'_>, facts: &Facts, vendor: &str, seen: &Seen, drafts: &[Draft]) -> Draft {
    let bare = seen.sums.calls - seen.sums.fallbacks;
    let finding = Finding {
        rule: "no-fallback",
        sentence: format!(
            "{} failed {} of {} ({}), and {} had nothing to fall back on: no breaker, no other host, no kept answer.",
            source.label(vendor),
            words::number(seen.failures),
            words::count(seen.calls, "call"),
            words::percent(seen.failures, seen.calls),
            words::number(bare),
        ),
        vendor: Some(vendor.into()),
        endpoint: None,
        callers: seen.services.iter().cloned().collect(),
        evidence: evidence([
            ("calls", json!(seen.sums.calls)),
            ("failures", json!(seen.failures)),
            ("without_fallback", json!(bare)),
        ]),
    };
    // Of the endpoints that failed, and whose answers were good else, the one that is asked most. Where an answer is to
    // be kept anyway the lines are there already: none are given for the same `match` again.
    let has_lines = |endpoint: &str| {
        drafts.iter().any(|Draft { finding, config, .. }| {
            finding.vendor.as_deref() == Some(vendor)
                && finding.endpoint.as_deref() == Some(endpoint)
                && config.as_ref().is_some_and(|lines| lines.starts_with("[[cache]]"))
        })
    };
    let most = facts
        .endpoints
        .iter()
        .filter(|((of, endpoint), seen)| {
            **of == *vendor
                && endpoint.starts_with("GET ")
                && seen.sums.compared > seen.sums.forbidden
                && seen.failures > 0
                && seen.failures * 2 < seen.calls
                && !has_lines(endpoint)
        })
        .max_by_key(|(_, seen)| seen.sums.compared);
    let kept = most.and_then(|((_, endpoint), _)| {
        config::rule("cache", vendor, Some(endpoint), &["stale_if_error = \"1h\"".to_owned()])
    });
    let (remedy, risk) = match kept {
        Some(_) => (
            "Stop asking while it fails, and answer with what is kept where that will do.",
            "While the breaker is open calls fail at once; an old answer can be up to an hour old.",
        ),
        None => ("Stop asking while it fails.", "While the breaker is open calls fail at once."),
    };
    let mut draft = Draft::new(finding, bare, remedy);
    draft.risk = Some(risk.into());
    draft.time = seen.mean().saturating_mul(u32::try_from(seen.failures).unwrap_or(u32::MAX));
    let breaker = "breaker = { consecutive = 5, failure_rate = \"50%\" }".to_owned();
    let breaker = config::rule("resilience", vendor, None, &[breaker]);
    draft.config =
        breaker.map(|lines| [Some(lines), kept].into_iter().flatten().collect::<Vec<_>>().join("\n"));
    draft
}
