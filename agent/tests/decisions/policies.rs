//! Policies that are tried on calls: one that was not made, those of the ledger, and those that the ledger recommends.

use super::*;

#[test]
fn a_policy_is_tested_on_a_call_that_was_not_made() {
    let config = Config::parse(
        "farcall.toml",
        r#"
[[policy]]
name = "cards"
match = { vendor.tag = "llm", data = "card" }
verdict = "deny"
reason = "card numbers stay out of prompts"
[[policy]]
name = "billing"
match = { vendor = "stripe", caller.service = "billing" }
verdict = "allow"
[[policy]]
name = "no-other-payments"
match = { vendor.tag = "payments" }
verdict = "deny"
final = true
"#,
    )
    .unwrap();
    let asked = |service: &str, url: &str| Asked {
        method: "GET".into(),
        url: url.into(),
        caller: Caller::new(service),
        ..Asked::default()
    };
    let found =
        policy_test(&config, &asked("checkout", "https://api.stripe.com/v1/customers/cus_9s6XKzkNRiz8i3"))
            .unwrap();
    assert_eq!((found.vendor.as_str(), found.endpoint.as_str()), ("stripe", "GET /v1/customers/{customer}"));
    assert_eq!((found.verdict, found.rule.as_deref()), ("deny", Some("no-other-payments")));
    assert_eq!(found.sentence, "The call is refused by `no-other-payments` in line 11.");
    let others: Vec<_> = found.others.iter().map(|rule| (rule.rule.as_str(), rule.unmet.join(","))).collect();
    assert_eq!(others, [("cards", "vendor.tag,data".to_owned()), ("billing", "caller.service".to_owned())]);

    let found = policy_test(&config, &asked("billing", STRIPE)).unwrap();
    let rows: Vec<_> = found.rows.iter().map(|rule| (rule.rule.as_str(), rule.decided)).collect();
    assert_eq!(
        rows,
        [("billing", true), ("no-other-payments", false)],
        "in the order in which they are asked"
    );
    assert_eq!((found.verdict, found.customer.as_str()), ("allow", "unknown"));

    let card =
        Asked { data: vec!["card".into()], ..asked("x", "https://API.openai.com/v1/chat/completions") };
    assert!(policy_test(&config, &card).unwrap().sentence.contains("card numbers stay out of prompts"));
    let nobody = policy_test(&config, &asked("x", "https://api.github.com/user")).unwrap();
    assert_eq!((nobody.verdict, nobody.rule, nobody.rows.len()), ("allow", None, 0));
    assert!(matches!(policy_test(&config, &asked("x", "nonsense")), Err(ReportError::NotFound(_))));
}

#[test]
fn a_backtest_tells_calls_customers_and_money_by_rule() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let query = Query::at(home.path());
    let config = Config::parse(
        "next.toml",
        r#"
[[policy]]
name = "no-payments-for-acme"
match = { vendor.tag = "payments", customer = "acme" }
verdict = "deny"
[[policy]]
name = "watch-github"
match = { vendor = "github" }
verdict = "deny"
mode = "report"
[[policy]]
name = "by-host"
match = { host = "slack.com" }
verdict = "deny"
"#,
    )
    .unwrap();
    let found = policy_backtest(&query, &config).unwrap();
    assert_eq!((found.calls, found.denied, found.throttled), (107, 75, 0));
    assert_eq!(found.denied_cost.as_deref(), Some("0.9225"));
    assert_eq!(found.denied_customers, ["acme"]);
    let rows: Vec<_> = found
        .rows
        .iter()
        .map(|row| (row.rule.as_str(), row.mode, row.calls, row.customers.join(","), row.cost_unknown_calls))
        .collect();
    assert_eq!(
        rows,
        [
            ("no-payments-for-acme", "enforce", 75, "acme".to_owned(), 0),
            ("watch-github", "report", 5, "globex".to_owned(), 5),
            ("by-host", "enforce", 0, String::new(), 0),
        ]
    );
    assert!(found.notes[0].starts_with("Not tried as they are: `by-host`."), "{:?}", found.notes);
    let narrowed = query.filter("vendor=github".parse().unwrap());
    assert_eq!(policy_backtest(&narrowed, &config).unwrap().calls, 5);
}

#[test]
fn the_recommended_policy_allows_what_was_called_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    scene(home.path());
    let query = Query::at(home.path());
    let found = policy_recommend(&query).unwrap();
    assert_eq!(found.calls, 105, "what a policy refused is not recommended");
    let config = Config::parse("policy.toml", &found.toml).unwrap();
    assert_eq!(config.policies.len(), found.rules);
    let back = policy_backtest(&query, &config).unwrap();
    assert_eq!((back.calls, back.denied, back.denied_already), (107, 2, 2));
    let shown = back.render(&Style::new(100, false));
    assert!(
        shown.contains("refused 2 of acme (a policy refused them at the time, too), and throttled"),
        "{shown}"
    );
    let asked = Asked { method: "DELETE".into(), url: STRIPE.into(), ..Asked::default() };
    assert_eq!(policy_test(&config, &asked).unwrap().verdict, "deny");
}

#[test]
fn the_recommended_policy_allows_the_same_calls_in_another_order() {
    let home = tempfile::tempdir().unwrap();
    let letter = |n: usize| char::from(b'a' + (n % 26) as u8);
    let urls: Vec<String> = (0..200)
        .map(|n| format!("https://api.people.example/people/p{}{}/orders", letter(n), letter(n / 26)))
        .collect();
    let farcall = start(home.path(), "");
    for url in &urls {
        assert!(call(&farcall, url, "acme", 200));
    }
    farcall.shutdown();
    let found = policy_recommend(&Query::at(home.path())).unwrap();
    assert_eq!(found.widened.len(), 1, "{}", found.toml);
    assert!(found.toml.contains("endpoint = \"GET /people/*/orders\""), "{}", found.toml);
    let farcall = start(home.path(), &found.toml);
    let refused = urls.iter().rev().filter(|url| !call(&farcall, url, "acme", 200)).count();
    assert_eq!(refused, 0, "{}", found.toml);
    assert!(!call(&farcall, "https://api.people.example/teams/core/orders", "acme", 200));
    farcall.shutdown();
}

#[test]
fn a_rule_knows_which_variable_of_the_environment_holds_a_credential() {
    let home = tempfile::tempdir().unwrap();
    // Any variable that every process has will do for a credential.
    let variables: Vec<(String, String)> = std::env::vars().collect();
    let (_, value) = variables.iter().find(|(name, value)| name == "PATH" && value.len() >= 12).unwrap();
    let (holder, _) = variables.iter().filter(|(_, other)| other == value).min().unwrap();
    let farcall = start(
        home.path(),
        &format!(
            "[[policy]]\nname = \"from-there\"\nmatch = {{ credential.origin = \"{holder}\" }}\nverdict = \"deny\"\n"
        ),
    );
    let refused = |credential: &str| {
        let bearer = format!("Bearer {credential}");
        let headers = [("authorization", bearer.as_str())];
        let headers = headers.as_slice();
        let head = Head::new("GET", "https://api.stripe.com/v1/charges").headers(&headers);
        let mut call = farcall.guard(farcall.begin(&head));
        matches!(call.step(), Step::Refuse(refusal) if &*refusal.rule == "from-there")
    };
    assert!(refused(value));
    assert!(!refused("of-another-origin"));
}

#[test]
fn rules_that_warn_and_rules_in_report_mode_are_heard_of_by_the_reports() {
    let home = tempfile::tempdir().unwrap();
    let rules = r#"
        [[policy]]
        name = "no-other"
        match = { vendor = "slack" }
        verdict = "deny"
        mode = "report"
        [[policy]]
        name = "slow"
        match = { vendor = "github" }
        verdict = "throttle"
        throttle = "1 request / 1h"
        mode = "report"
        [[policy]]
        name = "look"
        match = { vendor = ["slack", "stripe"], customer = "acme" }
        verdict = "warn"
        "#;
    let farcall = start(home.path(), rules);
    for url in [STRIPE, SLACK, GITHUB] {
        for (customer, times) in [("acme", 3), ("globex", 2)] {
            (0..times).for_each(|_| assert!(call(&farcall, url, customer, 200), "each of them passes"));
        }
        farcall.flush();
    }
    farcall.shutdown();

    let query = |filter: Option<&str>| {
        let filters: Vec<Filter> = filter.into_iter().map(|filter| filter.parse().unwrap()).collect();
        Query { filters, ..Query::at(home.path()) }
    };
    let said = |filter: Option<&str>| -> Vec<String> {
        let rows = report::findings(&query(filter)).unwrap().rows;
        rows.into_iter().filter(|row| row.rule == "policy").map(|row| row.sentence).collect()
    };
    let slack = "Policy rule no-other would have refused 5 calls to Slack (mode = report), made by checkout, \
                 all of them * /api/{method}.";
    let github = "Policy rule slow would have throttled 5 calls to GitHub (mode = report), made by checkout, \
                  all of them GET /user.";
    let look = |vendor: &str, endpoint: &str| {
        format!("Policy rule look warned of 3 calls to {vendor}, made by checkout, all of them {endpoint}.")
    };
    let all = said(None);
    assert_eq!(all.len(), 4, "{all:#?}");
    assert_eq!(all[..2], [slack, github], "what would have been stopped comes first");
    assert_eq!(all[2], look("Slack", "* /api/{method}"));
    assert_eq!(all[3], look("Stripe", "GET /v1/balance"));
    assert_eq!(said(Some("vendor=slack")), [slack, &look("Slack", "* /api/{method}")]);
    assert_eq!(said(Some("endpoint=GET /user")), [github]);
    assert!(said(Some("caller=billing")).is_empty());
    let finding = report::findings(&query(None)).unwrap().rows.remove(0);
    let evidence = serde_json::Value::Object(finding.evidence);
    assert_eq!(
        (&evidence["name"], &evidence["verdict"], &evidence["calls"]),
        (&"no-other".into(), &"deny".into(), &5.into())
    );

    // Each of the calls is kept, and says so.
    let calls = report::calls(&query(Some("vendor=slack"))).unwrap();
    let words: Vec<_> = calls.rows[0].warned.iter().map(|told| (told.rule.as_str(), told.verdict)).collect();
    assert!(words.contains(&("no-other", "deny")), "{words:?}");
    let mut style = Style::default();
    style.width = 200;
    let page = calls.render(&style);
    assert!(page.contains("200, would deny: no-other"), "{page}");
    let page = report::calls(&query(Some("vendor=stripe"))).unwrap().render(&style);
    assert!(page.contains("200, warned: look"), "{page}");
}
