//! Single calls that are explained: what a rule did to them, and in which file it stands.

use super::*;
use farcall::{CallerId, Tap};

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
    let rules = "allow_faults = true\n[[fault]]\nname = \"outage\"\nmatch = { vendor = \"stripe\" }\nshare = \"40%\"\n\
                 status = 503\nexpires = \"2099-01-01T00:00:00Z\"\n\
                 [[resilience]]\nmatch = { vendor = \"stripe\" }\nattempts = 20\nbackoff = \"1ms..1ms\"\n\
                 retry_budget = \"100%\"\nretry_budget_least = 1000\n";
    let farcall = start(home.path(), rules);
    (0..200).for_each(|_| meet(&farcall, STRIPE));
    farcall.shutdown();
    let query = Query::at(home.path());
    let numbers = report::vendors(&query).unwrap().rows[0].numbers.clone();
    assert_eq!((numbers.calls, numbers.errors, numbers.refused, numbers.faulted), (200, 0, 0, 0));
    assert_eq!(numbers.attempts, 200, "exchanges on the wire");
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

#[test]
fn a_rule_stands_in_the_file_of_the_process_that_made_the_call() {
    let home = tempfile::tempdir().unwrap();
    let refuse = "[[rollout]]\nname = \"off\"\nmatch = { vendor = \"stripe\" }\nkill = true\n";
    let farcall = start(home.path(), refuse);
    assert!(!call(&farcall, STRIPE, "acme", 200));
    farcall.shutdown();
    // The process was one of another container, in which it had this pid.
    ledger(home.path()).execute("UPDATE callers SET pid_namespace = pid_namespace + 1", []).unwrap();
    let elsewhere = home.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let later = start_from(home.path(), &elsewhere.join("farcall.toml"), &format!("\n\n{refuse}"));
    assert!(!call(&later, STRIPE, "globex", 200));
    later.shutdown();

    let query = Query::at(home.path());
    for (customer, line, directory) in [("acme", 1, home.path()), ("globex", 3, &elsewhere)] {
        let of_customer = query.clone().filter(format!("customer={customer}").parse().unwrap());
        let id = report::calls(&of_customer).unwrap().rows[0].id.clone();
        let sentences = report::explain_call(&query, &id).unwrap().sentences;
        let file = directory.join("farcall.toml");
        assert_eq!(sentences[3], format!("The rule stands in line {line} of {}.", file.display()));
    }
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
fn a_call_whose_answer_the_sidecar_lost_is_unknown_and_no_error() {
    let home = tempfile::tempdir().unwrap();
    let farcall = start(home.path(), "");
    let head = Head::new("GET", STRIPE).seen(CallerId::SELF, Tap::Kernel);
    let mut lost = farcall.guard(farcall.begin(&head));
    assert!(matches!(lost.step(), Step::Send(_)));
    // As the sidecar tells of it.
    lost.head(0);
    lost.end();
    drop(lost);
    assert!(call(&farcall, STRIPE, "acme", 200));
    farcall.shutdown();
    let query = Query::at(home.path());
    let of = |filter: &str| report::calls(&query.clone().filter(filter.parse().unwrap())).unwrap().rows;
    let row = of("outcome=unknown")[0].clone();
    assert_eq!((row.status, row.outcome.as_str(), row.error), (0, "unknown", false));
    assert_eq!(of("outcome=complete").len(), 1, "that is the other one");
    assert_eq!(report::vendors(&query).unwrap().totals.errors, 0);
    let sentence = &report::explain_call(&query, &row.id).unwrap().sentences[1];
    assert!(sentence.starts_with("What it came to is not known after "), "{sentence}");
    assert!(sentence.ends_with(", for the sidecar lost its answer: one attempt."), "{sentence}");
}
