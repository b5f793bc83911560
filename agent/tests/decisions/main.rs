//! What the reports say of rules: refusals, cost, incidents, budgets, single calls, policies.
#![allow(clippy::unwrap_used, missing_docs)]

mod explained;
mod incidents;
mod policies;

use farcall::units::Period;
use farcall::{Caller, Config, ErrorType, Head, Step, Timestamp};
use farcall_agent::report::{
    self, Asked, Filter, Query, Question, Render, ReportError, Style, policy_backtest, policy_recommend,
    policy_test,
};
use farcall_agent::{Farcall, Options};
use rusqlite::{Connection, params};
use std::path::Path;

/// Stripe costs, Slack is forbidden, GitHub's price is not known for what is asked of it.
const RULES: &str = r#"
[[price]]
vendor = "stripe"
as_of = "2026-11-01"
call = "0.0123 USD / call"

[[policy]]
name = "no-slack"
match = { vendor = "slack" }
verdict = "deny"
reason = "nobody talks to slack"

[[budget]]
name = "stripe-money"
match = { vendor = "stripe", customer = "*" }
limit = "10 USD / month"
at_80_percent = "warn"
over = "refuse"

[[budget]]
name = "all-calls"
match = {}
limit = "1000 requests / day"
"#;

fn start(home: &Path, rules: &str) -> Farcall {
    start_from(home, &home.join("farcall.toml"), rules)
}

/// Starts with the rules in a file of its own.
fn start_from(home: &Path, config: &Path, rules: &str) -> Farcall {
    std::fs::write(config, rules).unwrap();
    Farcall::start(Options {
        home: Some(home.into()),
        config: Some(config.into()),
        service: Some("checkout".into()),
        flush_every: None,
        ..Options::default()
    })
}

/// Makes a call, and says whether it was sent.
fn call(farcall: &Farcall, url: &str, customer: &str, status: u16) -> bool {
    let head = Head::new("GET", url).customer(Some(customer));
    let mut call = farcall.guard(farcall.begin(&head));
    let sent = matches!(call.step(), Step::Send(_));
    if sent {
        call.head(status);
        // The answer is the last one: no rule here tries again.
        assert!(matches!(call.step(), Step::Settled));
        call.body(100);
        call.end();
    }
    sent
}

const STRIPE: &str = "https://api.stripe.com/v1/balance";
const SLACK: &str = "https://slack.com/api/chat.postMessage";
const GITHUB: &str = "https://api.github.com/user";

/// 100 calls to Stripe (75 for acme), two to Slack that are refused, five to GitHub of which one fails.
fn scene(home: &Path) {
    let farcall = start(home, RULES);
    farcall.adapter_installed("requests");
    for n in 0..100 {
        assert!(call(&farcall, STRIPE, if n % 4 == 0 { "globex" } else { "acme" }, 200));
    }
    for _ in 0..2 {
        assert!(!call(&farcall, SLACK, "acme", 200));
    }
    for n in 0..5 {
        assert!(call(&farcall, GITHUB, "globex", if n == 0 { 500 } else { 200 }));
    }
    farcall.shutdown();
    // As the engine writes it; the reports are asked here, not the flush.
    ledger(home)
        .execute(
            "UPDATE exemplars SET events = '+0.0 ms  refused by policy `no-slack`' || char(10)
             WHERE outcome = 'refused-policy' AND events = ''",
            [],
        )
        .unwrap();
}

fn ledger(home: &Path) -> Connection {
    Connection::open(home.join("ledger.db")).unwrap()
}

fn incident(home: &Path, source: &str, at: Timestamp, vendor: &str, json: &str) -> i64 {
    let ledger = ledger(home);
    let at = i64::try_from(at.as_nanos()).unwrap();
    ledger
        .execute(
            "INSERT INTO incidents (source, at, vendor, incident) VALUES (?1, ?2, ?3, ?4)",
            params![source, at, vendor, json],
        )
        .unwrap();
    ledger.last_insert_rowid()
}

/// An incident with shares, as the agent writes it.
fn counted(home: &Path, query: &Query) -> i64 {
    let at = query.now.as_nanos() - 5_000_000_000;
    let json = format!(
        r#"{{"vendor":"stripe","credential":"9f86d081","policy":"per-minute","kind":"rate","why":"","at":{at},
        "count":3,"answers":[{{"status":429,"kind":"rate","count":3}}],"began":{},"ends":{},"unit":"requests","limit":500,"remaining":0,"resets_at":null,
        "retry_at":{},"own":500,"foreign":0,"refused":4,
        "customers":[{{"name":"acme","units":455,"at_least":455}},{{"name":"globex","units":45,"at_least":45}}],
        "callers":[{{"name":"worker-7","units":500,"at_least":500}}],
        "endpoints":[{{"name":"GET /v1/search","units":455,"at_least":455}}],
        "credentials":[],
        "mixes":[{{"customer":"acme","endpoint":"GET /v1/search","caller":"worker-7","units":450,"at_least":450}}]}}"#,
        at - 30_000_000_000,
        at + 30_000_000_000,
        at + 30_000_000_000,
    );
    incident(home, "1", Timestamp::from_nanos(at), "stripe", &json)
}

#[test]
fn cost_has_its_currency_and_what_is_unknown_is_not_nothing() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let query = Query::at(home.path());
    let vendors = report::vendors(&query).unwrap();
    let named: Vec<_> = vendors
        .rows
        .iter()
        .map(|row| (row.vendor.as_str(), row.numbers.cost.as_deref(), row.numbers.cost_unknown_calls))
        .collect();
    assert_eq!(named, [("stripe", Some("1.23"), 0), ("github", None, 5), ("slack", Some("0.00"), 0)]);
    assert_eq!((vendors.totals.cost.as_deref(), vendors.totals.cost_unknown_calls), (Some("1.23"), 5));
    let text = vendors.render(&Style::default());
    assert!(text.contains(" 1.23 USD") && text.contains("≥ 1.23 USD"), "{text}");
    assert!(!text.contains("tokens"), "a column without a number is not there: {text}");

    let customers = report::customers(&query).unwrap();
    let acme = customers.rows.iter().find(|row| row.customer == "acme").unwrap();
    assert_eq!(
        (acme.numbers.cost.as_deref(), acme.numbers.calls, acme.numbers.refused),
        (Some("0.9225"), 77, 2)
    );
    let endpoints = report::endpoints(&query).unwrap();
    assert_eq!(endpoints.rows[0].numbers.cost.as_deref(), Some("1.23"));
}

#[test]
fn a_refused_call_shows_its_rule_and_is_no_error_of_its_vendor() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let query = Query::at(home.path());
    let vendors = report::vendors(&query).unwrap();
    let slack = vendors.rows.iter().find(|row| row.vendor == "slack").unwrap();
    assert_eq!((slack.numbers.calls, slack.numbers.errors, slack.numbers.refused), (2, 0, 2));
    assert_eq!((slack.numbers.p99_ms, slack.numbers.attempts), (None, 0));
    assert_eq!((vendors.totals.errors, vendors.totals.refused), (1, 2));

    let refused = query.clone().filter("outcome=refused-*".parse().unwrap());
    let calls = report::calls(&refused).unwrap();
    assert_eq!(calls.rows.len(), 2);
    assert!(calls.rows.iter().all(|row| row.rule.as_deref() == Some("no-slack") && !row.error));
    let text = calls.render(&Style::default());
    // What `explain call` needs of the id is shown at 80 columns, too.
    assert!(text.contains(&calls.rows[0].id[..7]), "{text}");
    assert!(text.contains("refused: no-slack"), "{text}");
    assert!(
        report::findings(&query)
            .unwrap()
            .rows
            .iter()
            .all(|finding| finding.vendor.as_deref() != Some("slack"))
    );
}

#[test]
fn doctor_says_in_words_what_rules_did_and_does_not_worry_about_it() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let doctor = report::doctor(&Query::at(home.path())).unwrap();
    let refused = doctor.counters.iter().find(|counter| counter.name == "refused_calls").unwrap();
    assert_eq!((refused.value, doctor.healthy), (2, true), "{:?}", doctor.problems);
    let text = doctor.render(&Style::default());
    assert!(
        text.contains("- 2 refused_calls in checkout (") && text.contains("calls that a rule refused"),
        "{text}"
    );
    // What somebody should look at still is.
    ledger(home.path())
        .execute("UPDATE counters SET name = 'unchanged_settings' WHERE value = 2", [])
        .unwrap();
    let doctor = report::doctor(&Query::at(home.path())).unwrap();
    assert!(!doctor.healthy);
    let text = doctor.render(&Style::new(200, false));
    assert!(text.contains("take a restart"), "{text}");
}

#[test]
fn budgets_show_what_is_spent_of_what_and_what_they_do_now() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let query = Query::at(home.path());
    let ledger = ledger(home.path());
    ledger.execute("DELETE FROM spending", []).unwrap();
    let spend = |budget: &str, partition: &str, period: u64, spent: i64| {
        let sql = "INSERT INTO spending (budget, partition, period, spent, at) VALUES (?1, ?2, ?3, ?4, 1)";
        ledger.execute(sql, params![budget, partition, i64::try_from(period).unwrap(), spent]).unwrap();
    };
    let month = Period::Month.number(query.now);
    spend("stripe-money, USD / month", "customer=acme", month, 8_500_000_000);
    spend("stripe-money, USD / month", "customer=Big Corp", month, 12_300_000_015);
    spend("stripe-money, USD / month", "customer=globex", month - 1, 9_000_000_000);
    spend("removed", "", month, 1);
    let budgets = report::budgets(&query).unwrap();
    let rows: Vec<_> = budgets
        .rows
        .iter()
        .map(|row| (row.budget.as_str(), row.partition.as_str(), row.spent.as_str(), row.now.as_str()))
        .collect();
    assert_eq!(
        rows,
        [
            ("stripe-money", "customer=Big Corp", "12.300000015", "refuse"),
            ("stripe-money", "customer=acme", "8.50", "warn"),
            ("all-calls", "", "0", "pass"),
        ],
        "the month before is over"
    );
    assert_eq!((budgets.rows[1].share, budgets.rows[1].limit.as_str()), (0.85, "10.00"));
    assert_eq!((budgets.rows[2].unit.as_str(), budgets.rows[2].period.as_str()), ("requests", "day"));
    assert!(budgets.notes[0].contains("removed"), "{:?}", budgets.notes);
    let text = budgets.render(&Style::default());
    assert!(text.contains("12.30 of 10.00 USD/month") && text.contains("123%"), "{text}");
    assert!(text.contains(" of 1,000 requests/day"), "{text}");

    let ask = |filter: &str| {
        let filter: Filter = filter.parse().unwrap();
        report::budgets(&query.clone().filter(filter)).map(|found| found.rows.len())
    };
    assert_eq!((ask("customer=big corp").unwrap(), ask("vendor=stripe").unwrap()), (1, 2));
    assert!(ask("status=200").is_err());
}

#[test]
fn tables_of_decisions_fit_into_eighty_columns() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let query = Query::at(home.path());
    let id = counted(home.path(), &query);
    ledger(home.path())
        .execute("UPDATE rollups SET waited = 185000000000, tokens_in = 12345678, cost = cost * 98765", [])
        .unwrap();
    let config = Config::parse("f", RULES).unwrap();
    let asked = Asked { method: "GET".into(), url: SLACK.into(), ..Asked::default() };
    for width in [60, 80, 132] {
        let style = Style::new(width, false);
        let mut pages: Vec<String> =
            ["vendors", "endpoints", "customers", "calls", "incidents", "budgets", "notices"]
                .map(|name| name.parse::<Question>().unwrap().ask(&query).unwrap().render(&style))
                .into();
        pages.push(report::explain_incident(&query, id).unwrap().render(&style));
        pages.push(policy_test(&config, &asked).unwrap().render(&style));
        pages.push(policy_backtest(&query, &config).unwrap().render(&style));
        for page in pages {
            assert!(page.lines().count() > 2, "{page}");
            for line in page.lines() {
                assert!(line.chars().count() <= width, "at {width}: {line}\n{page}");
            }
        }
    }
    // What a customer costs is the last to go.
    let narrow = report::customers(&query).unwrap().render(&Style::new(60, false));
    assert!(narrow.contains("USD"), "{narrow}");
}
