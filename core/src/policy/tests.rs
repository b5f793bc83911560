//! What rules say, and what is said of them.

mod index;

use super::*;
use crate::matcher::{Builder, Matcher};
use crate::{Caller, Config};
use proptest::prelude::*;

fn set(text: &str) -> PolicySet {
    PolicySet::new(Config::parse("f", text).unwrap().policies)
}

fn call(vendor: &'static str, customer: &'static str) -> Subject<'static> {
    Subject { vendor, customer, endpoint: "GET /v1/x", method: "GET", ..Subject::default() }
}

fn said(set: &PolicySet, subject: &Subject<'_>) -> (Verdict, &'static str) {
    let decision = set.decide(subject);
    let name = decision.rule.map_or("", |rule| set.rule(rule).name.as_ref());
    (decision.verdict, String::leak(name.to_owned()))
}

#[test]
fn deny_comes_first_and_the_most_specific_of_each_kind_decides() {
    let set = set(r#"
        [[policy]]
        name = "allow-acme"
        match = { vendor = "stripe", customer = "acme", method = "GET" }
        verdict = "allow"
        [[policy]]
        name = "deny-vendor"
        match = { vendor = "stripe" }
        verdict = "deny"
        [[policy]]
        name = "deny-acme"
        match = { vendor = "stripe", customer = "acme" }
        verdict = "deny"
        [[policy]]
        name = "deny-acme-too"
        match = { vendor = "stripe", customer = "Acme" }
        verdict = "deny"
        [[policy]]
        name = "warn"
        match = { vendor = "s*" }
        verdict = "warn"
        [[policy]]
        name = "slow"
        match = { vendor = "slack" }
        verdict = "throttle"
        throttle = "10 requests / 1s"
        "#);
    assert_eq!(
        said(&set, &call("stripe", "acme")),
        (Verdict::Deny, "deny-acme"),
        "the earlier of equal ones"
    );
    assert_eq!(said(&set, &call("stripe", "globex")), (Verdict::Deny, "deny-vendor"));
    assert_eq!(said(&set, &call("sentry", "acme")), (Verdict::Warn, "warn"));
    assert_eq!(said(&set, &call("openai", "acme")), (Verdict::Allow, ""));
    let slow = set.decide(&call("slack", "acme"));
    assert_eq!((slow.verdict, slow.warned), (Verdict::Throttle, Some(RuleIndex(4))), "both are told");
    assert_eq!(set.rule(slow.rule.unwrap()).then.throttle, Rate::parse("10 / s"));
}

#[test]
fn a_final_denial_holds_where_nothing_allows() {
    let set = set(r#"
        [[policy]]
        name = "rest"
        match = {}
        verdict = "deny"
        final = true
        [[policy]]
        name = "stripe"
        match = { vendor = "stripe" }
        verdict = "allow"
        [[policy]]
        name = "slack"
        match = { vendor = "slack" }
        verdict = "throttle"
        throttle = "1 / s"
        [[policy]]
        match = { vendor = "openai" }
        verdict = "warn"
        "#);
    assert_eq!(said(&set, &call("stripe", "")), (Verdict::Allow, "stripe"));
    assert_eq!(said(&set, &call("slack", "")), (Verdict::Throttle, "slack"));
    assert_eq!(said(&set, &call("openai", "")), (Verdict::Deny, "rest"), "a warning is no permission");
    assert_eq!(said(&set, &call("github", "")), (Verdict::Deny, "rest"));
}

#[test]
fn a_rule_in_report_mode_only_says_what_it_would_do() {
    let set = set(r#"
        policy_mode = "report"
        [[policy]]
        name = "reported"
        match = { vendor = "stripe" }
        verdict = "deny"
        [[policy]]
        match = { vendor = "slack" }
        verdict = "deny"
        mode = "enforce"
        [[policy]]
        name = "rest"
        match = {}
        verdict = "deny"
        final = true
        [[policy]]
        match = { vendor = "github" }
        verdict = "allow"
        "#);
    let would = |vendor| {
        let decision = set.decide(&call(vendor, ""));
        (decision.verdict, decision.would.map_or("", |rule| set.rule(rule).name.as_ref()).to_owned())
    };
    assert_eq!(would("stripe"), (Verdict::Allow, "reported".into()));
    assert_eq!(would("slack"), (Verdict::Deny, String::new()));
    assert_eq!(would("sentry"), (Verdict::Allow, "rest".into()));
    assert_eq!(would("github"), (Verdict::Allow, String::new()));
}

#[cfg(feature = "cel")]
#[test]
fn a_condition_is_asked_after_the_match_and_its_error_fails_open_unless_told_otherwise() {
    let rule = |on_error: &str, verdict: &str| {
        set(&format!(
            "[[policy]]\nmatch = {{ vendor = \"stripe\" }}\nverdict = \"{verdict}\"\nwhen = \"tags.team == 'core'\"\n\
             on_error = \"{on_error}\"\n[[policy]]\nname = \"rest\"\nmatch = {{}}\nverdict = \"deny\"\nfinal = true\nmode = \"report\"\n"
        ))
    };
    let tagged = |tags| Subject { tags, ..call("stripe", "") };
    let deny = rule("allow", "deny");
    assert_eq!(deny.decide(&tagged("team=core")).verdict, Verdict::Deny);
    assert_eq!(deny.decide(&tagged("team=web")).verdict, Verdict::Allow);
    let open = deny.decide(&tagged(""));
    assert_eq!((open.verdict, open.errors), (Verdict::Allow, 1));
    let closed = rule("refuse", "allow").decide(&tagged(""));
    assert_eq!((closed.verdict, closed.rule, closed.errors), (Verdict::Deny, Some(RuleIndex(0)), 1));
    let untold = deny.decide(&Subject { tags: "", ..call("slack", "") });
    assert_eq!((open.untold, closed.untold), (Some(RuleIndex(0)), Some(RuleIndex(0))));
    // The rule that decided, not one before it that cannot be told either.
    let both = set(
        "[[policy]]\nmatch = { vendor = \"stripe\", host = \"*\" }\nverdict = \"deny\"\nwhen = \"tags.team == 'x'\"\n\
                    [[policy]]\nmatch = { vendor = \"stripe\" }\nverdict = \"deny\"\nwhen = \"tags.team == 'x'\"\non_error = \"refuse\"\n",
    );
    let decided = both.decide(&tagged(""));
    assert_eq!((decided.rule, decided.untold), (Some(RuleIndex(1)), Some(RuleIndex(1))));
    assert_eq!(untold.errors, 0, "where the match does not hold, nobody asks");
    let lifted = rule("allow", "allow").decide(&tagged(""));
    assert_eq!(lifted.would, None, "a fault of ours does not refuse what would be allowed");
    assert!(deny.depends().contains(Fields::TAG));
}

#[test]
fn explain_shows_every_rule_that_matches_in_the_order_of_the_decision() {
    let set = set(r#"
        [[policy]]
        name = "allow"
        match = { vendor = "stripe" }
        verdict = "allow"
        [[policy]]
        name = "deny"
        match = { customer = "acme" }
        verdict = "deny"
        [[policy]]
        match = { vendor = "slack" }
        verdict = "deny"
        [[policy]]
        name = "warn"
        match = {}
        verdict = "warn"
        "#);
    let (decision, all) = set.explain(&call("stripe", "acme"));
    assert_eq!(decision.verdict, Verdict::Deny);
    let names: Vec<(&str, bool)> =
        all.iter().map(|one| (set.rule(one.rule).name.as_ref(), one.decided)).collect();
    assert_eq!(names, [("deny", true), ("warn", false), ("allow", false)]);
    let one = |name| set.explain_rule(set.find(name).unwrap(), &call("stripe", "acme"));
    assert_eq!(one("warn").unwrap().verdict, Verdict::Warn);
    assert_eq!(one("policy@10"), None, "it is about another vendor");
    assert_eq!(
        set.rule(set.find("policy@10").unwrap()).matcher.unmet(&call("stripe", "")),
        [crate::matcher::Field::Vendor]
    );
}

#[test]
fn contradictory_and_unreachable_rules_are_reported_with_both_lines() {
    let warnings =
        |text: &str| -> Vec<String> { set(text).check().iter().map(ToString::to_string).collect() };
    let rule = |matches: &str, rest: &str| format!("[[policy]]\nmatch = {matches}\n{rest}\n");
    let deny = "verdict = \"deny\"";
    let allow = "verdict = \"allow\"";
    assert_eq!(
        warnings(&(rule("{ vendor = \"stripe\" }", allow) + &rule("{ vendor = \"Stripe\" }", deny))),
        [
            "the rule `policy@1` in line 1 and the rule `policy@4` in line 4 are about the same calls: one says allow, the other deny, and deny holds; remove one"
        ]
    );
    assert_eq!(
        warnings(
            &(rule("{ vendor = \"s*\" }", deny)
                + &rule("{ vendor = \"stripe\", customer = \"acme\" }", allow))
        ),
        [
            "the rule `policy@4` in line 4 is never reached: the rule `policy@1` in line 1, which says deny, decides all of its calls first; remove it, or narrow the other"
        ]
    );
    assert_eq!(warnings(&rule("{ vendor = \"stripe\" }", deny).repeat(2)).len(), 1, "said twice");
    // These all have something to say.
    for text in [
        rule("{ vendor = \"s*\" }", deny) + &rule("{ vendor = \"openai\" }", allow),
        rule("{ vendor = \"stripe\", customer = \"acme\" }", deny) + &rule("{ vendor = \"stripe\" }", deny),
        rule("{ vendor = \"stripe\" }", "verdict = \"deny\"\nmode = \"report\"")
            + &rule("{ vendor = \"stripe\" }", allow),
        rule("{ vendor = \"stripe\" }", "verdict = \"warn\"") + &rule("{ vendor = \"stripe\" }", allow),
        rule("{ vendor = \"stripe\" }", allow) + &rule("{}", "verdict = \"deny\"\nfinal = true"),
    ] {
        assert_eq!(warnings(&text), [""; 0], "{text}");
    }
    let never = rule("{ vendor = \"s*\" }", allow)
        + &rule("{ vendor = \"stripe\" }", "verdict = \"deny\"\nfinal = true");
    assert!(warnings(&never)[0].contains("never denies anything"), "{never}");
}

#[test]
fn what_is_wrong_in_a_rule_is_told_with_its_remedy_and_the_rule_is_left_out() {
    let (config, errors) = Config::read(
        "f",
        r#"policy_mode = "on"
[[policy]]
match = {}
[[policy]]
match = {}
verdict = "forbid"
[[policy]]
match = {}
verdict = "throttle"
[[policy]]
match = {}
verdict = "allow"
throttle = "10 / s"
final = true
[[policy]]
match = {}
verdict = "throttle"
throttle = "-1 / s"
[[policy]]
match = {}
verdict = "deny"
on_error = "refuse"
[[policy]]
match = {}
verdict = "deny"
mode = "reports"
"#,
    );
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let expected = [
        r#"f:1:15: `policy_mode` is not one of "report", "enforce""#,
        r#"f:2:1: `verdict` is missing; write "allow", "warn", "deny" or "throttle""#,
        r#"f:6:11: `verdict` is not one of "allow", "warn", "deny", "throttle""#,
        r#"f:7:1: `throttle` is missing; say to which rate, as in "10 requests / 1s""#,
        r#"f:10:1: `throttle` goes with `verdict = "throttle"` only; change the verdict, or leave it out"#,
        r#"f:10:1: `final` goes with `verdict = "deny"` only; change the verdict, or leave it out"#,
        r#"f:18:12: `throttle` is not a rate; write a number and a time, such as "10 requests / 1s""#,
        "f:19:1: `on_error` is about `when`, which is not here; leave it out",
        r#"f:26:8: `mode` is not one of "report", "enforce""#,
    ];
    assert_eq!(errors, expected);
    assert!(config.policies.is_empty());
}

#[cfg(feature = "cel")]
#[test]
fn a_wrong_condition_is_an_error_at_its_place() {
    let text = "[[policy]]\nmatch = {}\nverdict = \"deny\"\nwhen = \"vendr == 'x'\"\n";
    let errors = Config::parse("f", text).unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "f:4:8: `when` is not a condition in CEL: line 1, column 1: unknown name `vendr`; did you mean `vendor`?"
    );
    for (when, says) in [
        ("", "line 1, column 1: it is empty; write one such as `bytes > 1000`, or leave it out"),
        (" ", "line 1, column 1: it is empty; write one such as `bytes > 1000`, or leave it out"),
        ("bytes >", "it ends too soon; write what follows"),
    ] {
        let errors = Config::parse("f", &text.replace("vendr == 'x'", when)).unwrap_err();
        assert!(errors[0].to_string().ends_with(says), "{when}: {errors:?}");
    }
}

#[cfg(not(feature = "cel"))]
#[test]
fn without_cel_a_condition_is_an_error_not_ignored() {
    let text = "[[policy]]\nmatch = {}\nverdict = \"deny\"\nwhen = \"true\"\n";
    let (config, errors) = Config::read("f", text);
    assert!(config.policies.is_empty() && errors[0].to_string().contains("feature `cel`"));
}

#[test]
fn a_backtest_adds_up_what_each_rule_would_have_done() {
    let set = set(r#"
        [[policy]]
        match = { vendor = "stripe" }
        verdict = "deny"
        [[policy]]
        match = { vendor = "slack" }
        verdict = "deny"
        mode = "report"
        [[policy]]
        match = { vendor = "github" }
        verdict = "warn"
        "#);
    let rows = [
        Observed::new(call("stripe", "acme"), 10).cost(5, "USD"),
        Observed::new(call("stripe", "globex"), 1),
        Observed::new(call("stripe", "acme"), 2).cost(7, "USD"),
        Observed::new(call("slack", "acme"), 100).cost(1, "EUR"),
        Observed::new(call("openai", "acme"), 1_000),
    ];
    let (verdicts, rules) = backtest(&set, rows);
    assert_eq!((verdicts[&Verdict::Deny].calls, verdicts[&Verdict::Allow].calls), (13, 1_100));
    let denied = &rules[&RuleIndex(0)].decided;
    assert_eq!((denied.calls, denied.calls_of_unknown_cost, denied.cost["USD"]), (13, 1, 12));
    assert_eq!(denied.customers.iter().collect::<Vec<_>>(), ["acme", "globex"]);
    let reported = &rules[&RuleIndex(1)];
    assert_eq!((reported.decided.calls, reported.reported.calls), (0, 100));
    assert_eq!(reported.reported.vendors.iter().collect::<Vec<_>>(), ["slack"]);
    assert!(!rules.contains_key(&RuleIndex(2)));
}

#[cfg(feature = "cel")]
#[test]
fn the_examples_of_the_documentation_are_right() {
    for text in [include_str!("../../../docs/policy.md"), include_str!("../../../docs/matching.md")] {
        let examples = text.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```"));
        for (example, _) in examples {
            let config = Config::parse("docs", example).unwrap();
            assert!(!config.policies.is_empty());
            assert_eq!(PolicySet::new(config.policies).check(), []);
        }
    }
}

/// Calls as a ledger has them: (service, executable, vendor, endpoint).
type Seen = (String, String, String, String);

fn seen() -> impl Strategy<Value = Seen> {
    let vendor = prop_oneof![
        Just("stripe".to_owned()),
        Just("example.com".to_owned()),
        Just("search".to_owned()),
        Just("my_host".to_owned()),
        Just("10.0.0.7".to_owned()),
    ];
    let endpoint = prop_oneof!["GET /v1/[ab]{1,2}", "POST /\\{id\\}/[ab]", Just("GET /f/{rest*}".to_owned())];
    ("[aB]{0,2}", "(/bin/[ab])?", vendor, endpoint)
}

proptest! {
    #[test]
    fn a_recommendation_allows_what_was_seen_and_denies_everything_else(
        rows in prop::collection::vec(seen(), 0..12), other in seen(),
    ) {
        let caller = |row: &Seen| Caller { service: row.0.clone(), executable: row.1.clone(), ..Caller::default() };
        let callers: Vec<Caller> = rows.iter().map(caller).collect();
        let subjects: Vec<Subject<'_>> = rows.iter().zip(&callers).map(|(row, caller)| Subject {
            vendor: &row.2, endpoint: &row.3, method: "GET", caller, ..Subject::default()
        }).collect();
        let recommendation = recommend(&crate::catalogue::Catalogue::builtin(), subjects.iter().copied(), []);
        prop_assert!(recommendation.widened.is_empty());
        let text = recommendation.to_toml();
        let config = Config::parse("f", &text).map_err(|errors| TestCaseError::fail(format!("{errors:?}\n{text}")))?;
        let set = PolicySet::new(config.policies);
        for subject in &subjects {
            prop_assert_eq!(set.decide(subject).verdict, Verdict::Allow, "{:?}\n{}", subject, text);
        }
        let caller = caller(&other);
        let subject = Subject { vendor: &other.2, endpoint: &other.3, method: "GET", caller: &caller, ..Subject::default() };
        let part = |seen: &str, now: &str| seen.is_empty() || seen.eq_ignore_ascii_case(now);
        let known = rows.iter().any(|row| {
            part(&row.0, &other.0) && part(&row.1, &other.1) && row.2 == other.2 && row.3 == other.3
        });
        let expected = if known { Verdict::Allow } else { Verdict::Deny };
        prop_assert_eq!(set.decide(&subject).verdict, expected, "{:?}\n{}", subject, text);
        prop_assert_eq!(set.check(), [], "{}", text);
    }
}

#[test]
fn a_recommendation_says_what_it_could_not_say_exactly() {
    let caller = Caller::new("!odd");
    let row = Subject {
        vendor: "stripe",
        endpoint: "* /v1/x",
        method: "GET",
        caller: &caller,
        ..Subject::default()
    };
    let recommendation = recommend(&crate::catalogue::Catalogue::builtin(), [row], []);
    assert_eq!(recommendation.widened.len(), 1);
    assert!(recommendation.to_toml().starts_with("# `allow-001` allows more than was seen: {"));
    let set = PolicySet::new(recommendation.rules);
    assert_eq!(set.decide(&row).verdict, Verdict::Allow);
}
