//! `cacheable`: an endpoint that answers the same again and again. `lockstep`: one that is asked the same once for each
//! request that comes in.

use super::facts::{Facts, Place, Seen};
use super::{Draft, config};
use crate::report::findings::{Finding, evidence, words};
use crate::report::numbers::{decimal, share};
use crate::report::source::Source;
use farcall::advise::{AtTtl, TTLS};
use serde_json::{Value, json};
use std::time::Duration;

/// Fewer needless calls are nobody's problem.
const MIN_HITS: u64 = 20;
/// A smaller share of an endpoint's calls is not worth a rule.
const MIN_SHARE: f64 = 0.2;
/// Of a hundred answers from the cache one may be older than what the vendor has.
const MAX_STALE: f64 = 0.01;
/// A lifetime ten times as long must save that much more than a shorter one.
const WORTH_IT: f64 = 1.02;
/// Of all traces so many go through an endpoint that is in step with them.
const IN_STEP: f64 = 0.8;

/// What `stale_if_error = "1h"` adds.
const OLDER: &str = " When the vendor fails or refuses it can be an hour older.";
/// What `ttl = "1s"` with `stale_while_revalidate = "9s"` comes to: its place in [`TTLS`].
const TEN_SECONDS: usize = 1;

pub(super) fn find(source: &Source<'_>, facts: &Facts, drafts: &mut Vec<Draft>) {
    for (place, seen) in &facts.endpoints {
        if !place.1.starts_with("GET ") {
            continue;
        }
        let chosen = choose(seen);
        if let Some((ttl, at)) = chosen {
            drafts.push(cacheable(source, place, seen, ttl, at));
        }
        drafts.extend(lockstep(source, facts, place, seen, chosen));
    }
}

/// The lifetime that saves most at next to no staleness; the shortest of those that save about as much.
fn choose(seen: &Seen) -> Option<(Duration, &AtTtl)> {
    let mut best: Option<(Duration, &AtTtl)> = None;
    for (ttl, at) in TTLS.into_iter().zip(&seen.sums.at) {
        let good = at.hits >= MIN_HITS
            && share(at.hits, seen.sums.compared) >= MIN_SHARE
            && share(at.stale, at.hits) <= MAX_STALE;
        #[allow(clippy::cast_precision_loss)]
        let more = best.is_none_or(|(_, best)| at.hits as f64 > best.hits as f64 * WORTH_IT);
        if good && more {
            best = Some((ttl, at));
        }
    }
    best
}

fn cacheable(
    source: &Source<'_>,
    (vendor, endpoint): &Place,
    seen: &Seen,
    ttl: Duration,
    at: &AtTtl,
) -> Draft {
    let sums = &seen.sums;
    let label = source.label(vendor);
    let written = config::duration(ttl);
    let mut sentence = format!(
        "{label} gives the same answers to {endpoint} again and again: kept for {written}, they would have saved {} of \
         {}",
        words::number(at.hits),
        words::count(sums.compared, "call"),
    );
    if let Some(cost) = cost(at) {
        sentence += &format!(", {} USD", decimal(cost));
    }
    if at.quota > 0 {
        sentence += &format!(", {} of quota", words::count(at.quota, "request"));
    }
    sentence += &format!(" and {} of waiting; ", words::seconds(at.duration));
    sentence += &match at.stale {
        0 => "none of them would have been stale.".to_owned(),
        stale => format!("{} of them would have been stale.", words::number(stale)),
    };
    let mut risk = match at.stale {
        0 => format!("An answer can be up to {written} old; in this window none had changed by then."),
        stale => format!(
            "An answer can be up to {written} old: {} of {} ({}) had changed by then.",
            words::number(stale),
            words::number(at.hits),
            words::percent(stale, at.hits)
        ),
    };
    risk += OLDER;
    if sums.forbidden > 0 {
        risk += " The vendor asks not to keep these answers (`no-store`): see that you may.";
    }
    if sums.roughly > 0 {
        risk += &format!(
            " {} of the answers were compared by their length and their beginning alone.",
            words::percent(sums.roughly, sums.compared)
        );
    }
    if sums.weight > 1 {
        risk += &format!(" Estimated from one URL or call in {}.", words::number(sums.weight));
    }
    let mut lines = vec![format!("ttl = {}", config::quoted(&written)), "stale_if_error = \"1h\"".to_owned()];
    if sums.forbidden > 0 {
        lines.push("ignore = [\"no-store\"]".to_owned());
    }
    let finding = Finding {
        rule: "cacheable",
        sentence,
        vendor: Some(vendor.to_string()),
        endpoint: Some(endpoint.to_string()),
        callers: seen.services.iter().cloned().collect(),
        evidence: evidence([
            ("calls", json!(sums.calls)),
            ("compared", json!(sums.compared)),
            ("ttl_s", json!(ttl.as_secs())),
            ("at", at_each(seen)),
            ("one_url_in", json!(sums.weight.max(1))),
            ("compared_roughly", json!(sums.roughly)),
            ("no_store", json!(sums.forbidden)),
            ("with_validator", json!(sums.validators)),
            ("with_lifetime", json!(sums.dated)),
        ]),
    };
    let remedy = match sums.dated * 2 > sums.compared {
        true => "Keep its answers. The vendor says for how long they are good: without `ttl` that holds.",
        false => "Keep its answers.",
    };
    let mut draft = Draft::new(finding, at.hits, remedy);
    (draft.cost, draft.time, draft.quota) = (cost(at), at.duration, at.quota);
    draft.risk = Some(risk);
    draft.config = config::rule("cache", vendor, Some(endpoint), &lines);
    draft
}

/// What would have been saved at each lifetime.
fn at_each(seen: &Seen) -> Value {
    let rows = TTLS.into_iter().zip(&seen.sums.at).map(|(ttl, at)| {
        json!({
            "ttl_s": ttl.as_secs(),
            "calls": at.hits,
            "stale": at.stale,
            "cost": cost(at).map(decimal),
            "cost_unknown_calls": at.cost_unknown,
            "seconds": (at.duration.as_secs_f64() * 1e3).round() / 1e3,
            "quota": at.quota,
            "bytes": at.bytes,
        })
    });
    Value::Array(rows.collect())
}

/// What calls cost as far as known; `None` where nothing is.
fn cost(at: &AtTtl) -> Option<i64> {
    (at.cost != 0 || at.cost_unknown < at.hits).then_some(at.cost)
}

fn lockstep(
    source: &Source<'_>,
    facts: &Facts,
    (vendor, endpoint): &Place,
    seen: &Seen,
    chosen: Option<(Duration, &AtTtl)>,
) -> Option<Draft> {
    let sums = &seen.sums;
    let all: u64 = facts
        .traces
        .iter()
        .filter(|(service, _)| seen.services.contains(*service))
        .map(|(_, (_, traces))| traces)
        .sum();
    let minute = &sums.at[2];
    if sums.traces < MIN_HITS
        || share(sums.traces, all) < IN_STEP
        || share(minute.hits, sums.compared) < IN_STEP
    {
        return None;
    }
    let sentence = format!(
        "{} is asked {endpoint} in step with what comes in: {} in {} of {}, though {} of them asked what had been asked \
         within the minute before.",
        source.label(vendor),
        words::count(sums.traced, "call"),
        words::number(sums.traces),
        words::count(all, "trace"),
        words::percent(minute.hits, sums.compared),
    );
    let finding = Finding {
        rule: "lockstep",
        sentence,
        vendor: Some(vendor.to_string()),
        endpoint: Some(endpoint.to_string()),
        callers: seen.services.iter().cloned().collect(),
        evidence: evidence([
            ("traced_calls", json!(sums.traced)),
            ("traces_with_it", json!(sums.traces)),
            ("traces", json!(all)),
            ("calls_per_trace", json!((share(sums.traced, sums.traces) * 100.0).round() / 100.0)),
            ("asked_within_the_minute", json!(minute.hits)),
            ("compared", json!(sums.compared)),
        ]),
    };
    let mut draft = Draft::new(
        finding,
        minute.hits,
        "Ask for it once and keep it, beside the requests that come in: in the background, or through the cache.",
    );
    draft.time = minute.duration;
    let mut risk =
        "Traces are counted by `traceparent` headers; a service that sends none is not seen.".to_owned();
    if chosen.is_none() {
        // The cache's own advice has the lines otherwise, and what it is worth.
        let (at, written) = (&sums.at[TEN_SECONDS], config::duration(TTLS[TEN_SECONDS]));
        if at.hits > 0 {
            risk += &format!(
                " Of {} that a cache would have answered within {written}, {} ({}) would have been stale.",
                words::count(at.hits, "call"),
                words::number(at.stale),
                words::percent(at.stale, at.hits),
            );
        }
        if at.hits > 0 && share(at.stale, at.hits) <= MAX_STALE && sums.forbidden == 0 {
            let lines = ["ttl = \"1s\"".to_owned(), "stale_while_revalidate = \"9s\"".to_owned()];
            draft.config = config::rule("cache", vendor, Some(endpoint), &lines);
        }
    }
    draft.risk = Some(risk);
    Some(draft)
}
