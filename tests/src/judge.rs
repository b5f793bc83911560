//! Whether three accounts of the same traffic agree: the application's, the ledger's and the vendor's.

use crate::adapter::Adapter;
use crate::ledger::{Account, Series, Sums};
use crate::scenario::{Arrived, Bounds, Over, Row, Scenario, Send};
use crate::shim::Reply;
use crate::vendor;

/// What is wrong with an answer that the application got; nothing where all is well. `wire` are the bytes that
/// the vendor sent for the whole scenario.
pub(crate) fn answer(
    scenario: &Scenario,
    adapter: &Adapter,
    send: &Send,
    reply: &Reply,
    wire: u64,
) -> Vec<String> {
    let expected = &scenario.answer;
    let mut wrong = Vec::new();
    if reply.ok != expected.ok && !expected.either {
        let error = reply.error.as_deref().unwrap_or("no error");
        wrong.push(format!("the application got ok={} ({error}), not ok={}", reply.ok, expected.ok));
    }
    if !reply.ok || expected.either {
        return wrong;
    }
    if expected.status.is_some() && reply.status != expected.status {
        let status = expected.status.unwrap_or_default();
        wrong.push(format!("the application got status {:?}, not {status}", reply.status));
    }
    let bytes = match expected.bytes {
        Some(_) if expected.encoded && !adapter.decodes => Some(wire),
        bytes => bytes.map(|bytes| bytes * send.parallel),
    };
    if let Some(bytes) = bytes
        && bytes != reply.bytes
    {
        wrong.push(format!("the application got {} bytes, not {bytes}", reply.bytes));
    }
    wrong
}

/// What is wrong with what the ledger gained.
pub(crate) fn ledger(scenario: &Scenario, adapter: &Adapter, over: Over, gained: &Account) -> Vec<String> {
    let mut left = gained.rows.clone();
    let mut wrong = Vec::new();
    for row in &scenario.ledger {
        let vendor = row.vendor.as_deref().unwrap_or(over.vendor());
        let found = left.keys().find(|series| is_of(series, row, vendor)).cloned();
        match found.and_then(|series| left.remove_entry(&series)) {
            Some((series, sums)) => wrong.extend(differences(row, &series, &sums)),
            None => wrong.push(format!(
                "the ledger lacks: {vendor} {} {} {} customer={}, {} calls",
                row.endpoint, row.status, row.outcome, row.customer, row.calls
            )),
        }
    }
    if !left.is_empty() {
        wrong.push(format!("the ledger has besides:{}", Account { rows: left }));
    }
    for series in gained.rows.keys().filter(|s| s.tap != "library" || s.service != adapter.name) {
        wrong.push(format!("tap {} and service {} are wrong", series.tap, series.service));
    }
    wrong
}

fn is_of(series: &Series, row: &Row, vendor: &str) -> bool {
    series.vendor == vendor
        && series.endpoint == row.endpoint
        && row.status.contains(&series.status)
        && series.customer == row.customer
        && row.outcome.contains(&series.outcome)
        && series.tags.is_empty()
}

fn differences(row: &Row, series: &Series, sums: &Sums) -> Vec<String> {
    let answered = if series.status == 0 { 0 } else { row.calls };
    let checks = [
        ("calls", Some(Bounds::Exactly(row.calls)), sums.calls),
        ("attempts", Some(Bounds::Exactly(row.calls)), sums.attempts),
        ("answered calls", Some(Bounds::Exactly(answered)), sums.answered),
        ("bytes out", Some(row.bytes_out), sums.bytes_out),
        ("bytes in", Some(row.bytes_in), sums.bytes_in),
        ("ms to the head", row.ttfb_ms, millis(sums.ttfb)),
        ("ms of transfer", row.transfer_ms, millis(sums.transfer)),
    ];
    let wrong = checks.into_iter().filter_map(|(what, expected, got)| {
        let expected = expected?;
        let endpoint = &row.endpoint;
        (!expected.contain(got)).then(|| format!("{endpoint}: the ledger has {got} {what}, not {expected}"))
    });
    let mut wrong: Vec<String> = wrong.collect();
    if sums.ttfb + sums.transfer > sums.duration {
        wrong.push(format!("{}: the parts take longer than the whole", row.endpoint));
    }
    wrong
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Where the ledger and the vendor disagree.
pub(crate) fn vendor(scenario: &Scenario, gained: &Account, arrived: &vendor::Arrived) -> Vec<String> {
    let total = gained.total();
    let mut wrong = Vec::new();
    let mut same = |what: &str, ledger: u64, vendor: u64| {
        if ledger != vendor {
            wrong.push(format!("the ledger has {ledger} {what}, the vendor {vendor}"));
        }
    };
    match scenario.arrived {
        Arrived::Whole => {
            same("calls", total.calls, arrived.requests);
            same("aborted calls", 0, arrived.aborted);
            same("bytes out", total.bytes_out, arrived.bytes_in);
            same("bytes in", total.bytes_in, arrived.bytes_out);
        }
        Arrived::InPart => {
            same("calls", total.calls, arrived.requests);
            same("calls that broke off", total.calls, arrived.aborted);
            same("bytes out", total.bytes_out, arrived.bytes_in);
            if total.bytes_in > arrived.bytes_out {
                wrong.push(format!(
                    "the ledger has {} bytes in, and the vendor sent only {}",
                    total.bytes_in, arrived.bytes_out
                ));
            }
        }
        Arrived::Request => {
            same("calls", total.calls, arrived.requests);
            same("bytes out", total.bytes_out, arrived.bytes_in);
        }
        Arrived::Nothing => same("calls that arrived", 0, arrived.requests),
    }
    if arrived.open > 0 {
        wrong.push(format!("{} exchanges are still open at the vendor", arrived.open));
    }
    if scenario.over.contains(&Over::Untrusted) && arrived.refused_handshakes == 0 {
        wrong.push("the vendor saw no handshake fail".into());
    }
    if let Some(connections) = scenario.new_connections
        && !connections.contain(arrived.connections)
    {
        wrong.push(format!("{} new connections, not {connections}", arrived.connections));
    }
    wrong
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::adapter::Adapters;
    use crate::scenario::Scenarios;
    use std::time::Duration;

    fn scenario(text: &str) -> Scenario {
        toml::from_str::<Scenarios>(&format!("[[scenario]]\nname = \"s\"\npromise = \"p\"\n{text}"))
            .unwrap()
            .all
            .remove(0)
    }

    fn one_call() -> Scenario {
        scenario(
            r#"
            send = [{ path = "/x" }]
            answer = { status = 200, bytes = 9 }
            ledger = [{ endpoint = "GET /x", status = 200, customer = "acme", calls = 1, bytes_in = 9 }]
            "#,
        )
    }

    fn gained(change: impl FnOnce(&mut Series, &mut Sums)) -> Account {
        let mut series = Series {
            vendor: "sim-tls".into(),
            endpoint: "GET /x".into(),
            customer: "acme".into(),
            status: 200,
            outcome: "complete".into(),
            tags: String::new(),
            tap: "library".into(),
            service: "fetch".into(),
        };
        let mut sums = Sums {
            calls: 1,
            attempts: 1,
            bytes_in: 9,
            answered: 1,
            duration: Duration::from_millis(2),
            ..Sums::default()
        };
        change(&mut series, &mut sums);
        Account { rows: [(series, sums)].into() }
    }

    fn fetch() -> Adapter {
        Adapters::load().unwrap().all.into_iter().find(|a| a.name == "fetch").unwrap()
    }

    fn wrong(gained: &Account) -> String {
        ledger(&one_call(), &fetch(), Over::Tls, gained).join("\n")
    }

    #[test]
    fn a_ledger_that_says_what_the_scenario_says_is_right() {
        assert_eq!(wrong(&gained(|_, _| {})), "");
    }

    #[test]
    fn every_word_and_number_of_a_ledger_row_is_judged() {
        let cases: [fn(&mut Series, &mut Sums); 13] = [
            |series, _| series.vendor = "sim-plain".into(),
            |series, _| series.endpoint = "GET /y".into(),
            |series, _| series.customer = "globex".into(),
            |series, _| series.status = 201,
            |series, _| series.outcome = "abandoned".into(),
            |series, _| series.tags = "shadow=next".into(),
            |series, _| series.tap = "kernel".into(),
            |series, _| series.service = "node".into(),
            |_, sums| sums.calls = 2,
            |_, sums| sums.attempts = 2,
            |_, sums| sums.bytes_in = 8,
            |_, sums| sums.bytes_out = 1,
            |_, sums| sums.transfer = Duration::from_secs(1),
        ];
        for (number, change) in cases.into_iter().enumerate() {
            assert_ne!(wrong(&gained(change)), "", "case {number}");
        }
    }

    #[test]
    fn a_call_that_is_in_the_ledger_besides_is_wrong() {
        let mut twice = gained(|_, _| {});
        twice.rows.extend(gained(|series, _| series.outcome = "abandoned".into()).rows);
        assert!(wrong(&twice).contains("besides"), "{}", wrong(&twice));
    }

    #[test]
    fn a_ledger_that_differs_from_what_arrived_is_wrong() {
        let arrived = vendor::Arrived { requests: 1, bytes_out: 9, connections: 1, ..Default::default() };
        let right = |arrived: vendor::Arrived| vendor(&one_call(), &gained(|_, _| {}), &arrived).is_empty();
        assert!(right(arrived));
        assert!(!right(vendor::Arrived { requests: 2, ..arrived }));
        assert!(!right(vendor::Arrived { bytes_out: 10, ..arrived }));
        assert!(!right(vendor::Arrived { bytes_in: 1, ..arrived }));
        assert!(!right(vendor::Arrived { aborted: 1, ..arrived }));
        assert!(!right(vendor::Arrived { open: 1, ..arrived }));
    }

    #[test]
    fn an_answer_that_the_application_did_not_get_is_wrong() {
        let scenario = one_call();
        let judged = |reply: &str, wire| {
            answer(&scenario, &fetch(), &scenario.send[0], &serde_json::from_str(reply).unwrap(), wire)
        };
        assert!(judged(r#"{"id": 1, "ok": true, "status": 200, "bytes": 9}"#, 9).is_empty());
        assert!(!judged(r#"{"id": 1, "ok": true, "status": 200, "bytes": 8}"#, 9).is_empty());
        assert!(!judged(r#"{"id": 1, "ok": true, "status": 404, "bytes": 9}"#, 9).is_empty());
        assert!(!judged(r#"{"id": 1, "ok": false, "error": "no"}"#, 9).is_empty());
    }
}
