//! What the order of decisions makes of calls: who is denied, where a call goes instead, and what a reload changes.

use crate::support::{T0, at, calls, engine, get, pass, refused, sent};
use farcall::{Caller, Config, Engine, Head, Outcome, RefusedBy, Step};

#[test]
fn what_the_policy_denies_is_refused_with_its_reason_and_counted() {
    let engine = engine(
        r#"
        [[policy]]
        name = "only-billing"
        match = { vendor = "stripe", caller.service = "!billing" }
        verdict = "deny"
        reason = "only billing talks to Stripe"
        "#,
    );
    assert!(engine.decides());
    let mut call = engine.begin(&get("acme"), T0, 1);
    let refusal = refused(&mut call, &engine, T0);
    assert_eq!((refusal.by, refusal.rule.as_ref()), (RefusedBy::Policy, "only-billing"));
    assert!(refusal.to_string().contains("only billing talks to Stripe"), "{refusal}");
    assert!(call.is_settled());
    let batch = engine.drain(T0);
    assert_eq!(calls(&batch, Outcome::Refused(RefusedBy::Policy)), 1);
    assert_eq!(batch.rows[0].sums.attempts, 0, "nothing went out");
    assert!(batch.exemplars[0].events.contains("refused by policy `only-billing`"), "{:?}", batch.exemplars);
    pass(&engine, &Head::new("GET", "https://api.github.com/user"), T0, 2, 200, &[]);
    assert_eq!(calls(&engine.drain(T0), Outcome::Complete), 1);
}

#[test]
fn a_reload_holds_for_the_next_call_and_not_for_those_under_way() {
    let engine = engine("");
    assert!(!engine.decides());
    let mut under_way = engine.begin(&get("acme"), T0, 1);
    let deny = "[[policy]]\nmatch = { vendor = \"stripe\" }\nverdict = \"deny\"\n";
    engine.reload(&Config::parse("f", deny).unwrap());
    let _ = sent(&mut under_way, &engine, T0);
    under_way.abandon(&engine, T0);
    let mut next = engine.begin(&get("acme"), T0, 2);
    assert_eq!(refused(&mut next, &engine, T0).by, RefusedBy::Policy);
    engine.reload(&Config::default());
    pass(&engine, &get("acme"), T0, 3, 200, &[]);
    assert_eq!(engine.counters().reloads, 2);
}

#[test]
fn a_kill_switch_refuses_and_a_variant_goes_elsewhere() {
    let engine = engine(
        r#"
        [[rollout]]
        name = "off"
        match = { vendor = "slack" }
        kill = true
        [[rollout]]
        name = "eu"
        match = { vendor = "stripe" }
        share = "100%"
        variant = { host = "eu.stripe.example", keep_credentials = true }
        "#,
    );
    let slack = Head::new("POST", "https://slack.com/api/chat.postMessage");
    let mut call = engine.begin(&slack, T0, 1);
    assert_eq!(refused(&mut call, &engine, T0).by, RefusedBy::Rollout);
    let mut call = engine.begin(&get("acme"), T0, 2);
    let attempt = sent(&mut call, &engine, T0);
    assert_eq!(attempt.changes.as_ref().unwrap().host.as_deref(), Some("eu.stripe.example"));
}

#[test]
fn a_kill_switch_stops_the_variant_of_a_rollout_before_it_too() {
    let engine = engine(
        r#"
        [[rollout]]
        name = "eu"
        match = { vendor = "stripe" }
        share = "100%"
        variant = { host = "eu.stripe.example", keep_credentials = true }
        [[rollout]]
        name = "old"
        match = { vendor = "stripe" }
        kill = true
        variant = { path_prefix = "/v0" }
        [[rollout]]
        name = "no-charges"
        match = { vendor = "stripe", endpoint = "GET /v1/charges" }
        kill = true
        "#,
    );
    let mut call = engine.begin(&get("acme"), T0, 1);
    let refusal = refused(&mut call, &engine, T0);
    assert_eq!((refusal.by, refusal.rule.as_ref()), (RefusedBy::Rollout, "no-charges"));
    // What it is not about goes as before; a switch of a variant is one of its own rule's alone.
    let balance = Head::new("GET", "https://api.stripe.com/v1/balance");
    let mut call = engine.begin(&balance, T0, 2);
    let changes = sent(&mut call, &engine, T0).changes.unwrap();
    assert_eq!((changes.host.as_deref(), changes.path_prefix.as_deref()), (Some("eu.stripe.example"), None));
}

#[test]
fn a_fault_is_injected_only_where_the_file_allows_it() {
    let fault = r#"
        [[fault]]
        match = { vendor = "stripe" }
        share = "100%"
        latency = "50ms"
        status = 503
        expires = "2030-01-01T00:00:00Z"
        "#;
    let engine = engine(&format!("allow_faults = true\n{fault}"));
    let mut call = engine.begin(&get("acme"), T0, 1);
    assert_eq!(call.step(&engine, T0), Step::Wait(at(50)));
    let Step::Respond(stored) = call.step(&engine, at(50)) else { panic!("no fault") };
    assert_eq!(stored.status, 503);
    drop(call);
    let told = engine.drain(at(51)).exemplars;
    let injected = "injected: holds it back for 50.0 ms, then answers 503 in the vendor's place";
    assert!(told.iter().any(|call| call.events.contains(injected)), "{told:?}");
    let (config, _errors) = Config::read("f", fault);
    let off = Engine::new(config, Caller::new("x"), 1, 1);
    pass(&off, &get("acme"), T0, 1, 200, &[]);
}

#[test]
fn rules_find_the_country_the_kinds_of_data_and_where_a_credential_came_from() {
    let engine = engine(
        r#"
        [[vendor]]
        name = "werk"
        hosts = ["api.werk.example"]
        country = "de"
        [[data]]
        match = { vendor = "werk", endpoint = "POST *" }
        kinds = ["card", "email"]
        [[data]]
        match = { vendor = "werk" }
        kinds = ["email"]
        [[policy]]
        name = "abroad"
        match = { country = "!DE" }
        verdict = "deny"
        [[policy]]
        name = "no-cards"
        match = { data = "card" }
        verdict = "deny"
        [[policy]]
        name = "not-that-key"
        match = { credential.origin = "LIVE_*" }
        verdict = "deny"
        "#,
    );
    engine.set_environment([("LIVE_KEY", "sk-live-0123456789"), ("TEST_KEY", "sk-test-0123456789")]);
    let decided = |method: &str, url: &str, key: &str| {
        let headers = [("authorization", key)];
        let headers = headers.as_slice();
        let mut call = engine.begin(&Head::new(method, url).headers(&headers), T0, 7);
        match call.step(&engine, T0) {
            Step::Send(_) => {
                call.abandon(&engine, T0);
                None
            }
            Step::Refuse(refusal) => Some(refusal.rule.to_string()),
            step => panic!("{step:?}"),
        }
    };
    let werk = "https://api.werk.example/v1/orders";
    assert_eq!(decided("GET", werk, "Bearer sk-test-0123456789"), None);
    assert_eq!(decided("POST", werk, "Bearer sk-test-0123456789").as_deref(), Some("no-cards"));
    assert_eq!(decided("GET", werk, "Bearer sk-live-0123456789").as_deref(), Some("not-that-key"));
    assert_eq!(decided("GET", werk, "Bearer from-a-file-0123"), None);
    assert_eq!(decided("GET", "https://api.stripe.com/v1/charges", "").as_deref(), Some("abroad"));
    assert_eq!(
        decided("GET", "https://who.example/v1", "").as_deref(),
        Some("abroad"),
        "not known is not DE"
    );
}

/// What is told of the calls since it was asked last.
fn told(engine: &Engine) -> String {
    let batch = engine.drain(T0);
    batch.exemplars.iter().map(|call| call.events.as_str()).collect()
}

#[cfg(feature = "cel")]
#[test]
fn a_condition_that_cannot_be_told_is_counted_and_an_event_of_the_call() {
    let team = |rest: &str| {
        engine(&format!(
            "[[policy]]\nname = \"team\"\nmatch = {{ vendor = \"stripe\" }}\nwhen = \"tags.team == 'x'\"\n{rest}\n"
        ))
    };
    let open = team("verdict = \"deny\"");
    pass(&open, &get("acme"), T0, 1, 200, &[]);
    assert_eq!(open.counters().untold_conditions, 1);
    assert_eq!(told(&open), "+0.0 ms  policy `team` cannot tell its condition, and lets it pass\n");
    // What can be told is not counted, nor what the rule is not about.
    pass(&open, &get("acme").tags(&[("team", "y")]), T0, 2, 200, &[]);
    pass(&open, &Head::new("GET", "https://api.github.com/user"), T0, 3, 200, &[]);
    assert_eq!((open.counters().untold_conditions, told(&open)), (1, String::new()));

    // Who refuses what cannot be told says that, whatever the rule would have done.
    let shut = team("verdict = \"warn\"\non_error = \"refuse\"");
    let mut call = shut.begin(&get("acme"), T0, 1);
    let refusal = refused(&mut call, &shut, T0);
    assert_eq!(&*refusal.reason, "its condition could not be told");
    let events = told(&shut);
    assert!(events.contains("because its condition could not be told"), "{events}");
    assert_eq!(shut.counters().untold_conditions, 1);
    let mut call = shut.begin(&get("acme").tags(&[("team", "x")]), T0, 2);
    let _ = sent(&mut call, &shut, T0);
    call.abandon(&shut, T0);
    assert_eq!(told(&shut), "+0.0 ms  policy `team` warns of it\n");

    // What the rule's owner wants the reader to know stays, and one that denies for its own sake says no more.
    let denies = team("verdict = \"deny\"\non_error = \"refuse\"\nreason = \"ask us\"");
    let reasons = [&[][..], &[("team", "x")]].map(|tags| {
        let mut call = denies.begin(&get("acme").tags(tags), T0, 1);
        refused(&mut call, &denies, T0).reason.to_string()
    });
    assert_eq!(reasons, ["ask us; its condition could not be told", "ask us"]);
}

#[test]
fn a_rule_in_report_mode_is_told_with_what_it_would_have_done() {
    for (verdict, more, told_as) in
        [("deny", "", "deny"), ("throttle", "throttle = \"1 request / 1h\"", "throttle")]
    {
        let engine = engine(&format!(
            "[[policy]]\nname = \"t\"\nmode = \"report\"\nmatch = {{ vendor = \"stripe\" }}\nverdict = \"{verdict}\"\n{more}\n"
        ));
        pass(&engine, &get("acme"), T0, 1, 200, &[]);
        assert_eq!(told(&engine), format!("+0.0 ms  policy `t` would {told_as} it, in report mode\n"));
    }
}

#[test]
fn what_a_rule_warns_of_or_would_refuse_is_counted_by_rule() {
    let engine = engine(
        r#"
        [[policy]]
        name = "look"
        match = { vendor = "stripe" }
        verdict = "warn"
        [[policy]]
        name = "soon"
        match = { vendor = "stripe", customer = "acme" }
        verdict = "deny"
        mode = "report"
        [[policy]]
        name = "off"
        match = { vendor = "stripe", customer = "none" }
        verdict = "deny"
        "#,
    );
    (1..=3).for_each(|n| pass(&engine, &get("acme"), T0, n, 200, &[]));
    pass(&engine, &get("globex"), T0, 4, 200, &[]);
    // What was refused was not let pass, and what no rule is about is nobody's.
    let _ = refused(&mut engine.begin(&get("none"), T0, 5), &engine, T0);
    pass(&engine, &Head::new("GET", "https://api.github.com/user"), T0, 6, 200, &[]);
    let drained = || {
        let mut warned = engine.drain(T0).warned;
        warned.sort_by(|a, b| a.rule.cmp(&b.rule));
        warned
    };
    let warned = drained();
    let told: Vec<_> =
        warned.iter().map(|told| (&*told.rule, told.verdict.as_str(), &*told.vendor, told.calls)).collect();
    assert_eq!(told, [("look", "warn", "stripe", 4), ("soon", "deny", "stripe", 3)]);
    assert!(warned.iter().all(|told| &*told.endpoint == "GET /v1/charges" && told.minute == T0.minute()));
    assert!(drained().is_empty(), "told once");
}
