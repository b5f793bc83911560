//! What `farcall report findings` says, each with what to do about it.

use super::facts::Facts;
use super::{Draft, config};
use crate::report::findings::Finding;
use crate::report::{Query, ReportError, findings};

pub(super) fn find(query: &Query, facts: &Facts, drafts: &mut Vec<Draft>) -> Result<(), ReportError> {
    for finding in findings::findings(query)?.rows {
        // What was compared answer by answer says more than what was compared by size.
        let said = |rule: &str, endpoint: bool| {
            drafts.iter().any(|draft| {
                let known = &draft.finding;
                known.rule == rule
                    && known.vendor == finding.vendor
                    && (!endpoint || known.endpoint == finding.endpoint)
            })
        };
        let known = match finding.rule {
            "uncached-polling" => said("cacheable", true) || facts.compared(&finding),
            "errors" => said("no-fallback", false),
            _ => false,
        };
        if known {
            continue;
        }
        let calls = ["calls", "connections"]
            .into_iter()
            .find_map(|name| finding.evidence.get(name).and_then(serde_json::Value::as_u64))
            .unwrap_or_default();
        let vendor = finding.vendor.clone();
        let rule = |kind: &str, endpoint: Option<&str>, lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            config::rule(kind, vendor.as_deref()?, endpoint, &lines)
        };
        let (remedy, risk, lines) = match finding.rule {
            "uncached-polling" => (
                "Keep its answer for a while.",
                Some(
                    "Answers were compared by their sizes alone; one can be up to 30 s old, and an hour older \
                     when the vendor fails or refuses.",
                ),
                rule("cache", finding.endpoint.as_deref(), &["ttl = \"30s\"", "stale_if_error = \"1h\""]),
            ),
            "rate-limited" => (
                "Keep to what the vendor says is left, and let no customer take all of it.",
                Some("Calls may wait up to two seconds, and are refused where that would not do."),
                rule("quota", None, &["pace = \"smooth\"", "fair = \"customer\""]),
            ),
            "errors" if asked_wrongly(&finding) => (
                "Mend the requests: the vendor answers, and says that they are wrong. `farcall report calls` shows which.",
                None,
                None,
            ),
            "errors" => (
                "Stop asking while it fails; `farcall report calls` shows which calls failed.",
                Some("While the breaker is open calls fail at once. It counts 5xx and errors, not 4xx."),
                rule("resilience", None, &["breaker = { consecutive = 5, failure_rate = \"50%\" }"]),
            ),
            "bypass" | "uninstrumented" => {
                ("Install farcall in it, so that its calls have a customer and keep to rules.", None, None)
            }
            "opaque" => ("See `farcall report coverage` for what would explain them.", None, None),
            "unattributed" => ("Name the customer around these calls too.", None, None),
            _ => ("See the evidence.", None, None),
        };
        // The lines that another advice has for the same `match` would leave these idle.
        let taken = lines.as_deref().is_some_and(|lines| {
            let of = |lines: &str| lines.lines().take(2).map(str::to_owned).collect::<Vec<_>>();
            drafts.iter().filter_map(|draft| draft.config.as_deref()).any(|known| of(known) == of(lines))
        });
        let lines = lines.filter(|_| !taken);
        let mut draft = Draft::new(finding, calls, remedy);
        draft.risk = risk.map(str::to_owned);
        draft.config = lines;
        drafts.push(draft);
    }
    Ok(())
}

/// Statuses that may be others when the same is asked again.
const MAY_PASS: [&str; 5] = ["408", "409", "421", "423", "425"];

/// Whether all that went wrong is what was asked, which no breaker helps.
fn asked_wrongly(finding: &Finding) -> bool {
    let statuses = finding.evidence.get("by_status").and_then(serde_json::Value::as_array);
    let wrong = |status: &serde_json::Value| {
        let status = status["status"].as_str().unwrap_or_default();
        status.len() == 3 && status.starts_with('4') && !MAY_PASS.contains(&status)
    };
    statuses.is_some_and(|statuses| statuses.iter().all(wrong))
}
