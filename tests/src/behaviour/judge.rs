//! Whether the application, the ledger and the vendor agree on what rules made of some calls.

use std::collections::BTreeMap;
use std::time::Duration;

use vendor_sim::{Counts, Recorded, Sim};

use super::{Behaviour, Entry, Got, Step, Value};
use crate::adapter::Adapter;
use crate::ledger::{Account, Sums};
use crate::scenario::Bounds;

/// What is wrong with what the application got of a step's calls.
pub(super) fn step(step: &Step, got: &BTreeMap<String, u64>, bytes: u64, error: Option<&str>) -> Vec<String> {
    let right = match &step.got {
        Got::Each(word) => got.keys().all(|each| each == word),
        Got::Tally(tally) => {
            let known = got.keys().all(|word| tally.contains_key(word));
            let times = |word: &str| got.get(word).copied().unwrap_or_default();
            known && tally.iter().all(|(word, bounds)| bounds.contain(times(word)))
        }
    };
    let mut wrong = Vec::new();
    if !right {
        wrong.push(format!("the application got {got:?} ({error:?}), not {:?}", step.got));
    }
    if let Some(expected) = step.bytes.filter(|expected| *expected != bytes) {
        wrong.push(format!("the application got {bytes} bytes, not {expected}"));
    }
    wrong
}

/// What is wrong with the header that a step names, of which `values` says how often it was what.
pub(super) fn values(step: &Step, values: &BTreeMap<String, u64>) -> Option<String> {
    let Value { name, begins } = step.header.as_ref()?;
    let right = !values.is_empty() && values.keys().all(|value| value.starts_with(begins.as_str()));
    (!right).then(|| format!("the application got {name} as {values:?}, not as {begins:?}"))
}

/// What is wrong with what the ledger says, and with what reached the vendor and the second server.
pub(super) fn accounts(
    behaviour: &Behaviour,
    adapter: &Adapter,
    ledger: &Account,
    vendor: &Sim,
    backup: Option<&Sim>,
) -> Vec<String> {
    let counts = [vendor.counts(), backup.map(Sim::counts).unwrap_or_default()];
    let mut wrong = entries(behaviour, ledger);
    wrong.extend(requests(behaviour, &vendor.requests(None)));
    for series in ledger.rows.keys().filter(|s| s.tap != "library" || s.service != adapter.name) {
        wrong.push(format!("tap {} and service {} are wrong", series.tap, series.service));
    }
    let expected = [("vendor", behaviour.arrived), ("backup", behaviour.at_backup)];
    for ((what, expected), Counts { requests, .. }) in expected.into_iter().zip(&counts) {
        if !expected.contain(*requests) {
            wrong.push(format!("{requests} requests reached the {what}, not {expected}"));
        }
    }
    wrong.extend(disagreements(&ledger.total(), &counts, behaviour.alarms));
    wrong
}

/// Where the ledger's sums and the servers' differ. `alarms` of their requests are no calls.
fn disagreements(ledger: &Sums, servers: &[Counts], alarms: u64) -> Vec<String> {
    let sum = |of: fn(&Counts) -> u64| servers.iter().map(of).sum::<u64>();
    let mut wrong = Vec::new();
    let mut same = |what: &str, ledger: u64, servers: u64| {
        if ledger != servers {
            wrong.push(format!("the ledger has {ledger} {what}, the vendor {servers}"));
        }
    };
    same("attempts and alarms", ledger.attempts + alarms, sum(|counts| counts.requests));
    // Of an exchange that broke off, each side may know another part; how long an alarm is, nobody says.
    if sum(|counts| counts.aborted) == 0 && alarms == 0 {
        same("bytes out", ledger.bytes_out, sum(|counts| counts.bytes_in));
    }
    same("exchanges that are under way", 0, sum(|counts| counts.open));
    wrong
}

/// What is wrong with what the ledger says.
fn entries(behaviour: &Behaviour, ledger: &Account) -> Vec<String> {
    let mut left = ledger.rows.clone();
    let mut wrong = Vec::new();
    for entry in &behaviour.ledger {
        let mut sums = Sums::default();
        left.retain(|series, more| {
            let of_entry = series.status == entry.status
                && entry.outcome.contains(&series.outcome)
                && series.customer == entry.customer
                && series.tags == entry.tags;
            if of_entry {
                sums.add(more);
            }
            !of_entry
        });
        wrong.extend(differences(entry, &sums));
    }
    if !left.is_empty() {
        wrong.push(format!("the ledger has besides:{}", Account { rows: left }));
    }
    wrong
}

/// What is wrong with what the vendor saw.
fn requests(behaviour: &Behaviour, seen: &[Recorded]) -> Vec<String> {
    let mut wrong = Vec::new();
    if !behaviour.requests.is_empty() && behaviour.requests.len() != seen.len() {
        wrong.push(format!("the vendor saw {} requests, not {}", seen.len(), behaviour.requests.len()));
    }
    for (place, (expected, seen)) in behaviour.requests.iter().zip(seen).enumerate() {
        let mut expect = |what: &str, expected: Option<&str>, got: Option<&str>| {
            if expected.is_some() && expected != got {
                wrong.push(format!("request {}: {what} is {got:?}, not {expected:?}", place + 1));
            }
        };
        expect("the path", expected.path.as_deref(), Some(&seen.path));
        expect("the body", expected.body.as_deref(), Some(&seen.body));
        let status = |status: Option<u16>| status.map(|status| status.to_string());
        expect("the answer", status(expected.status).as_deref(), status(seen.status).as_deref());
        for (name, value) in &expected.headers {
            expect(name, Some(value), seen.header(name));
        }
    }
    if let Some(name) = &behaviour.one_value {
        let values: Vec<Option<&str>> = seen.iter().map(|request| request.header(name)).collect();
        if !values.iter().all(|value| value.is_some() && *value == values[0]) {
            wrong.push(format!("the values of {name} are not one: {values:?}"));
        }
    }
    wrong
}

fn differences(entry: &Entry, sums: &Sums) -> Vec<String> {
    let Entry { status, outcome, customer, .. } = entry;
    let exactly = |cost| Bounds::Exactly(cost);
    let checks = [
        ("calls", Some(entry.calls), sums.calls),
        ("attempts", Some(entry.attempts.unwrap_or(exactly(sums.calls))), sums.attempts),
        ("nano-units of cost", entry.cost.map(exactly), sums.cost),
        ("ms of waits", entry.waited_ms, millis(sums.waited)),
        ("ms", entry.duration_ms, millis(sums.duration)),
    ];
    let wrong = checks.into_iter().filter_map(|(what, expected, got)| {
        let expected = expected.filter(|expected| !expected.contain(got))?;
        Some(format!("{status} {outcome} customer={customer}: the ledger has {got} {what}, not {expected}"))
    });
    wrong.collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Behaviours;
    use super::*;
    use crate::ledger::Series;

    fn behaviour() -> Behaviour {
        let text = r#"
            [[behaviour]]
            name = "b"
            promise = "p"
            rules = ""
            play = [{ got = "200" }]
            arrived = 2
            requests = [{ path = "/x", body = "one", headers = { k = "v" } }, { status = 200 }]
            one_value = "k"
            ledger = [{ customer = "acme", calls = 1, attempts = 2, cost = 5, waited_ms = { at_least = 1 } }]
        "#;
        toml::from_str::<Behaviours>(text).unwrap().all.remove(0)
    }

    fn account(change: impl FnOnce(&mut Series, &mut Sums)) -> Account {
        let mut series = Series {
            vendor: "b".into(),
            endpoint: "GET /x".into(),
            customer: "acme".into(),
            status: 200,
            outcome: "complete".into(),
            tags: String::new(),
            tap: "library".into(),
            service: "fetch".into(),
        };
        let waited = Duration::from_millis(3);
        let mut sums = Sums { calls: 1, attempts: 2, cost: 5, waited, ..Sums::default() };
        change(&mut series, &mut sums);
        Account { rows: [(series, sums)].into() }
    }

    #[test]
    fn every_word_and_number_of_a_ledger_entry_is_judged() {
        assert_eq!(entries(&behaviour(), &account(|_, _| {})), Vec::<String>::new());
        assert_eq!(entries(&behaviour(), &account(|series, _| series.endpoint = "GET /y".into())).len(), 0);
        let cases: [fn(&mut Series, &mut Sums); 8] = [
            |series, _| series.customer = "globex".into(),
            |series, _| series.status = 503,
            |series, _| series.outcome = "cached".into(),
            |series, _| series.tags = "shadow=next".into(),
            |_, sums| sums.calls = 2,
            |_, sums| sums.attempts = 1,
            |_, sums| sums.cost = 4,
            |_, sums| sums.waited = Duration::ZERO,
        ];
        for (number, change) in cases.into_iter().enumerate() {
            assert_ne!(entries(&behaviour(), &account(change)).len(), 0, "case {number}");
        }
        let mut besides = account(|_, _| {});
        besides.rows.extend(account(|series, _| series.outcome = "stale".into()).rows);
        assert_ne!(entries(&behaviour(), &besides).len(), 0);
    }

    #[test]
    fn every_request_that_the_vendor_saw_is_judged() {
        let request = |path: &str, body: &str, key: &str| Recorded {
            path: path.into(),
            body: body.into(),
            headers: vec![("k".into(), key.into())],
            status: Some(200),
            ..Recorded::default()
        };
        let judged = |seen: &[Recorded]| requests(&behaviour(), seen).len();
        assert_eq!(judged(&[request("/x", "one", "v"), request("/y", "", "v")]), 0);
        assert_ne!(judged(&[request("/x", "one", "v")]), 0);
        assert_ne!(judged(&[request("/y", "one", "v"), request("/y", "", "v")]), 0);
        assert_ne!(judged(&[request("/x", "two", "v"), request("/y", "", "v")]), 0);
        assert_ne!(judged(&[request("/x", "one", "v"), request("/y", "", "w")]), 0);
        let failed = Recorded { status: Some(503), ..request("/y", "", "v") };
        assert_ne!(judged(&[request("/x", "one", "v"), failed]), 0);
    }

    #[test]
    fn what_the_application_got_is_judged() {
        let play = |got: &str| {
            let text = format!(
                "[[behaviour]]\nname = \"b\"\npromise = \"p\"\nrules = \"\"\narrived = 0\nledger = []\nplay = [{{ got = {got}, bytes = 7 }}]"
            );
            toml::from_str::<Behaviours>(&text).unwrap().all.remove(0).play.remove(0)
        };
        let tally = |words: &[(&str, u64)]| words.iter().map(|(word, n)| ((*word).to_owned(), *n)).collect();
        let wrong = |expected: &str, words: &[(&str, u64)], bytes| {
            step(&play(expected), &tally(words), bytes, None).len()
        };
        assert_eq!(wrong("\"200\"", &[("200", 3)], 7), 0);
        assert_ne!(wrong("\"200\"", &[("200", 3)], 8), 0);
        assert_ne!(wrong("\"200\"", &[("200", 3), ("failed", 1)], 7), 0);
        assert_eq!(wrong("{ 200 = 2, refused-quota = { at_least = 0 } }", &[("200", 2)], 7), 0);
        assert_ne!(wrong("{ 200 = 2, refused-quota = 1 }", &[("200", 2)], 7), 0);
        assert_ne!(wrong("{ 200 = 2 }", &[("200", 2), ("503", 1)], 7), 0);
    }

    #[test]
    fn the_header_of_every_answer_is_judged() {
        let header = "header = { name = \"cache-status\", begins = \"farcall; hit\" }";
        let text = format!(
            "[[behaviour]]\nname = \"b\"\npromise = \"p\"\nrules = \"\"\narrived = 0\nledger = []\nplay = [{{ got = \"200\", {header} }}]"
        );
        let step = toml::from_str::<Behaviours>(&text).unwrap().all.remove(0).play.remove(0);
        let wrong = |seen: &[&str]| {
            values(&step, &seen.iter().map(|value| ((*value).to_owned(), 1)).collect()).is_some()
        };
        assert!(!wrong(&["farcall; hit", "farcall; hit; ttl=3"]));
        assert!(wrong(&["farcall; hit", "farcall; fwd=uri-miss"]));
        assert!(wrong(&["farcall; hit", ""]) && wrong(&[]));
    }

    #[test]
    fn a_ledger_that_differs_from_what_the_servers_counted_is_wrong() {
        let ledger = Sums { attempts: 3, bytes_out: 10, ..Sums::default() };
        let [vendor, backup] =
            [(2, 10), (1, 0)].map(|(requests, bytes_in)| Counts { requests, bytes_in, ..Counts::default() });
        assert_eq!(disagreements(&ledger, &[vendor.clone(), backup.clone()], 0).len(), 0);
        assert_ne!(disagreements(&ledger, &[vendor.clone(), backup.clone()], 1).len(), 0);
        let fewer = Sums { attempts: 2, ..ledger };
        assert_eq!(disagreements(&fewer, &[vendor.clone(), backup.clone()], 1).len(), 0);
        let cases = [
            Counts { requests: 3, ..vendor.clone() },
            Counts { bytes_in: 9, ..vendor.clone() },
            Counts { open: 1, ..vendor },
        ];
        for changed in cases {
            assert_ne!(disagreements(&ledger, &[changed, backup.clone()], 0).len(), 0);
        }
    }
}
