//! What the reports say of rules: refusals, cost, incidents, budgets, single calls, policies.
#![allow(clippy::unwrap_used, missing_docs)]

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
    let config = home.join("farcall.toml");
    std::fs::write(&config, rules).unwrap();
    Farcall::start(Options {
        home: Some(home.into()),
        config: Some(config),
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

#[test]
fn a_policy_that_throttles_is_told_as_one_where_it_refuses_like_a_quota() {
    let home = tempfile::tempdir().unwrap();
    let rule = "[[policy]]\nname = \"slowly\"\nmatch = { vendor = \"stripe\" }\nverdict = \"throttle\"\nthrottle = \"1 request / 1h\"\n";
    let farcall = start(home.path(), rule);
    assert!(call(&farcall, STRIPE, "acme", 200) && !call(&farcall, STRIPE, "acme", 200));
    farcall.shutdown();
    let query = Query::at(home.path());
    let refused = query.clone().filter("outcome=refused-quota".parse().unwrap());
    let row = report::calls(&refused).unwrap().rows[0].clone();
    assert_eq!(row.rule.as_deref(), Some("slowly"));
    let sentences = report::explain_call(&query, &row.id).unwrap().sentences;
    let file = home.path().join("farcall.toml");
    let stands = format!("The rule is a policy that throttles; it stands in line 1 of {}.", file.display());
    assert_eq!(sentences[3], stands, "{sentences:?}");
    std::fs::write(&file, "").unwrap();
    let sentences = report::explain_call(&query, &row.id).unwrap().sentences;
    assert_eq!(sentences[3], format!("There is no rule of that name in {} any more.", file.display()));
    std::fs::write(&file, [rule.as_bytes(), b"# caf\xe9\n"].concat()).unwrap();
    let sentences = report::explain_call(&query, &row.id).unwrap().sentences;
    assert_eq!(
        sentences[3],
        format!(
            "Where the rule stands cannot be said: {}:6:6: this is not UTF-8: the byte 0xe9; save the file as UTF-8.",
            file.display()
        )
    );
}

#[test]
fn an_explained_refusal_says_by_which_line_why_and_when_the_call_would_have_passed() {
    // A rule each, in line 1, and what it makes of the second call.
    let rules = [
        (
            "[[quota]]\nmatch = { vendor = \"stripe\" }\nlimit = \"1 request / 1h\"\nmax_wait = \"0s\"\nshared = \"process\"\n",
            "Why: the limit that the rule states is used up; the same call would have passed at ",
        ),
        (
            "[[budget]]\nmatch = { vendor = \"stripe\" }\nlimit = \"1 request / month\"\nover = \"refuse\"\n",
            "Why: it would cost more than the limit leaves; the same call would have passed at ",
        ),
        (
            "[[resilience]]\nmatch = { vendor = \"stripe\" }\nattempts = 1\nbreaker = { consecutive = 1, open = \"30s\" }\n",
            "Why: the vendor has been failing, and the breaker is open; the same call would have passed at ",
        ),
        (
            "[[rollout]]\nname = \"off\"\nmatch = { vendor = \"stripe\" }\nkill = true\n",
            "Why: its kill switch is on.",
        ),
    ];
    for (rule, expected) in rules {
        let home = tempfile::tempdir().unwrap();
        let farcall = start(home.path(), rule);
        call(&farcall, STRIPE, "acme", 500);
        assert!(!call(&farcall, STRIPE, "acme", 200), "{rule}");
        farcall.shutdown();
        let query = Query::at(home.path());
        let refused = query.clone().filter("outcome=refused-*".parse().unwrap());
        let row = report::calls(&refused).unwrap().rows[0].clone();
        let sentences = report::explain_call(&query, &row.id).unwrap().sentences;
        assert!(sentences[2].starts_with(expected), "{sentences:?}");
        let timed = expected.ends_with(" at ");
        assert_eq!(sentences[2].contains(" UTC, in "), timed, "{sentences:?}");
        let file = home.path().join("farcall.toml");
        assert_eq!(sentences[3], format!("The rule stands in line 1 of {}.", file.display()));
        std::fs::write(&file, "").unwrap();
        let sentences = report::explain_call(&query, &row.id).unwrap().sentences;
        assert_eq!(sentences[3], format!("There is no rule of that name in {} any more.", file.display()));
    }
}

#[test]
fn an_explained_fault_says_what_it_did_and_whether_the_call_was_sent() {
    // What the fault does, how the call came out, what is said of both, and how it stands in the table.
    let faults = [
        (
            "latency = \"50ms\"",
            "complete",
            ("It was answered with 200 in ", ": one attempt."),
            "holds it back for 50.0 ms, then lets it be sent",
            "200",
        ),
        (
            "status = 503\nretry_after = \"2s\"",
            "refused-fault",
            ("It was answered with 503 by the fault `stumbles` in ", ": nothing was sent."),
            "answers 503 with Retry-After 2 s in the vendor's place",
            "503 fault: stumbles",
        ),
        (
            "error = \"reset\"",
            "refused-fault",
            ("It failed by the fault `stumbles` after ", ": nothing was sent."),
            "fails it (reset) in place of sending it",
            "fault: stumbles",
        ),
        (
            "truncate = \"10B\"",
            "reset",
            ("It was answered with 200 in ", ", and failed (reset) before its last byte: one attempt."),
            "lets it be sent, and breaks off the answer's body after 10 bytes",
            "200 reset",
        ),
    ];
    for (fault, outcome, (begins, ends), does, result) in faults {
        let home = tempfile::tempdir().unwrap();
        let rule = format!(
            "allow_faults = true\n[[fault]]\nname = \"stumbles\"\nmatch = {{ vendor = \"stripe\" }}\nshare = \"100%\"\n\
             expires = \"2099-01-01T00:00:00Z\"\n{fault}\n"
        );
        let farcall = start(home.path(), &rule);
        assert_eq!(Config::read("farcall.toml", &rule).1, [], "{fault}");
        meet(&farcall, STRIPE);
        farcall.shutdown();
        let query = Query::at(home.path());
        let row = report::calls(&query).unwrap().rows[0].clone();
        assert_eq!(row.outcome, outcome, "{row:?}");
        let table = report::calls(&query).unwrap().render(&Style::new(160, false));
        assert!(table.contains(&format!(" {result} ")), "{table}");
        let vendors = report::vendors(&query).unwrap();
        let (numbers, met) = (&vendors.rows[0].numbers, u64::from(outcome == "refused-fault"));
        assert_eq!((numbers.calls, numbers.refused, numbers.faulted), (1, 0, met), "{fault}");
        let told = "1 call met a [[fault]] that failed or answered it in the vendor's place, and is neither an error nor \
                    refused.";
        assert_eq!(vendors.notes.iter().any(|note| note == told), met == 1, "{:?}", vendors.notes);
        let sentences = report::explain_call(&query, &row.id).unwrap().sentences;
        assert!(sentences[1].starts_with(begins) && sentences[1].ends_with(ends), "{sentences:?}");
        assert_eq!(sentences[2], format!("The fault `stumbles` {does}."), "{sentences:?}");
        let file = home.path().join("farcall.toml");
        assert_eq!(sentences[3], format!("The rule stands in line 2 of {}.", file.display()));
    }
}

#[test]
fn an_explained_call_that_a_retry_took_past_a_fault_says_how_many_attempts_were_sent() {
    let home = tempfile::tempdir().unwrap();
    // A draw is each attempt's own: some of these calls meet the fault once and then no more.
    let rules = "allow_faults = true\n[[fault]]\nname = \"outage\"\nmatch = { vendor = \"stripe\" }\nshare = \"50%\"\n\
                 status = 503\nexpires = \"2099-01-01T00:00:00Z\"\n\
                 [[resilience]]\nmatch = { vendor = \"stripe\" }\nattempts = 9\nbackoff = \"1ms..1ms\"\n\
                 retry_budget = \"100%\"\nretry_budget_least = 1000\n";
    let farcall = start(home.path(), rules);
    (0..60).for_each(|_| meet(&farcall, STRIPE));
    farcall.shutdown();
    let query = Query::at(home.path());
    let numbers = report::vendors(&query).unwrap().rows[0].numbers.clone();
    assert_eq!((numbers.calls, numbers.errors, numbers.refused, numbers.faulted), (60, 0, 0, 0));
    assert_eq!(numbers.attempts, 60, "exchanges on the wire");
    let told = |times: usize| {
        let rows = report::calls(&query).unwrap().rows;
        let met = |events: &[String]| events.iter().filter(|line| line.contains(": fault `outage` ")).count();
        let row = rows.into_iter().find(|row| met(&row.events) == times).unwrap();
        assert_eq!((row.outcome.as_str(), row.status, row.attempts), ("complete", 200, 1));
        report::explain_call(&query, &row.id).unwrap().sentences
    };
    let once = told(1);
    assert!(once[1].ends_with(": 2 attempts, of which 1 was sent."), "{once:?}");
    assert_eq!(once[2], "The fault `outage` answers 503 in the vendor's place.");
    let twice = told(2);
    assert!(twice[1].ends_with(": 3 attempts, of which 1 was sent."), "{twice:?}");
    assert_eq!(
        twice[2],
        "The fault `outage` answers 503 in the vendor's place, or the like, in 2 of its attempts."
    );
}

/// Makes a call as an adapter does that keeps to what a fault asks for.
fn meet(farcall: &Farcall, url: &str) {
    let mut call = farcall.guard(farcall.begin(&Head::new("GET", url).body(Some(0), true)));
    loop {
        match call.step() {
            Step::Wait(until) => std::thread::sleep(until.since(call.now())),
            Step::Send(attempt) => {
                call.head(200);
                assert!(matches!(call.step(), Step::Settled));
                call.body(attempt.truncate.unwrap_or(100));
                return match attempt.truncate {
                    Some(_) => call.failed(ErrorType::Reset),
                    None => call.end(),
                };
            }
            _ => return,
        }
    }
}

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
fn a_call_is_explained_line_by_line() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let query = Query::at(home.path());
    let refused = query.clone().filter("vendor=slack".parse().unwrap());
    let id = report::calls(&refused).unwrap().rows[0].id.clone();
    let explained = report::explain_call(&query, &id[..12]).unwrap();
    assert_eq!(explained.call.id, id);
    assert!(explained.sentences[0].contains("asked Slack for "), "{:?}", explained.sentences);
    assert!(explained.sentences[1].starts_with("It was refused by the policy `no-slack` after "));
    assert!(explained.sentences[1].ends_with(": nothing was sent."));
    let file = home.path().join("farcall.toml");
    let rest = [
        "Why: nobody talks to slack.".to_owned(),
        format!("The rule stands in line 7 of {}.", file.display()),
    ];
    assert_eq!(explained.sentences[2..4], rest, "{:?}", explained.sentences);
    assert!(explained.call.events[0].ends_with("refused by policy `no-slack`"));
    assert_eq!(explained.call.why.as_deref(), Some("nobody talks to slack"));
    let text = explained.render(&Style::default());
    assert!(text.starts_with(&format!("Call {id}\n")) && text.contains("\n  +"), "{text}");

    ledger(home.path())
        .execute("UPDATE exemplars SET events = '+1.0 ms  waits 40.0 ms for `q`: paced' || char(10) || '+41.0 ms  the breaker is open now' || char(10), waited = 40000000 WHERE status = 500", [])
        .unwrap();
    let failed = query.clone().filter("status=500".parse().unwrap());
    let id = report::calls(&failed).unwrap().rows[0].id.clone();
    // As the table cuts it.
    let explained = report::explain_call(&query, &format!("{}…", &id[..10])).unwrap();
    assert_eq!(
        explained.call.events,
        ["+1.0 ms  waits 40.0 ms for `q`: paced", "+41.0 ms  the breaker is open now"]
    );
    assert!(explained.sentences[1].contains("answered with 500"), "{:?}", explained.sentences);
    assert!(explained.sentences[1].contains("40ms of it waiting because a rule said so"));
    assert_eq!(
        explained.sentences[2],
        "What it cost is not known (no_price: nobody stated a price); 0 bytes of body went out, 100 came in."
    );

    let why = |id: &str| report::explain_call(&query, id).unwrap_err().to_string();
    assert!(why("12345").contains("at least 6 of them") && why("xyzxyzxyz").contains("no call's id"));
    assert!(why("0123456789abcdef").contains("no call 0123456789abcdef is kept"));
}

#[test]
fn a_call_of_which_a_part_of_the_cost_is_known_shows_it_and_why_that_is_not_all() {
    let home = tempfile::tempdir().unwrap();
    let farcall = start(home.path(), "");
    let mut stream =
        farcall.guard(farcall.begin(&Head::new("POST", "https://api.anthropic.com/v1/messages")));
    assert!(matches!(stream.step(), Step::Send(_)));
    stream.answer(200, &[("content-type", "text/event-stream")].as_slice());
    assert!(matches!(stream.step(), Step::Settled));
    stream.read(
        b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-3-haiku-20240307\",\
        \"usage\":{\"input_tokens\":1000,\"output_tokens\":1}}}\n\n",
    );
    stream.abandon();
    drop(stream);
    farcall.shutdown();
    let query = Query::at(home.path());
    let row = report::calls(&query).unwrap().rows[0].clone();
    assert_eq!(row.cost_unknown.as_deref(), Some("abandoned"));
    let of_all = report::vendors(&query).unwrap().totals;
    assert!(row.cost.is_some() && row.cost == of_all.cost, "{row:?} {of_all:?}");
    let mut wide = Style::default();
    wide.width = 200;
    let table = report::calls(&query).unwrap().render(&wide);
    assert!(table.contains("≥ 0.000"), "{table}");
    let sentences = report::explain_call(&query, &row.id).unwrap().sentences;
    let said = format!(
        "It cost at least {} USD (abandoned: the application let go of the answer before the vendor's last statement); ",
        row.cost.unwrap()
    );
    assert!(sentences[2].starts_with(&said), "{sentences:?}");
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
