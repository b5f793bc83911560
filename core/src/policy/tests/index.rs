//! What the index finds, however many rules there are, against asking each of them.

use super::*;

/// One rule: its conditions, kind and mode.
type Written = (Vec<(&'static str, String)>, u8);

fn written() -> impl Strategy<Value = Written> {
    let word = "[aAb]{1,2}";
    let text = prop_oneof![
        word,
        "!?[abé]{1,2}\\*?",
        "[ab]{1,2}\\|[ab]",
        "\\*?[abc]{4,9}\\*?",
        "GET /a{1,6}\\*?",
        "GET /a{1,3}/\\{[ab*]\\}(/b\\*?)?"
    ];
    let key = prop_oneof![
        Just("vendor"),
        Just("customer"),
        Just("endpoint"),
        Just("vendor.tag"),
        Just("tag.k"),
        Just("caller"),
        Just("host"),
        Just("data"),
        Just("method"),
    ];
    (prop::collection::vec((key, text), 0..4), 0_u8..8)
}

fn rule((conditions, kind): &Written) -> Rule<Policy> {
    let mut builder = Builder::default();
    for (key, texts) in conditions {
        // A key that is given twice is left at its first.
        _ = builder.add(key, &texts.split('|').collect::<Vec<_>>());
    }
    let mut policy = Policy::new(match kind {
        0..=2 => Verdict::Deny,
        3 | 4 => Verdict::Throttle,
        5 => Verdict::Warn,
        _ => Verdict::Allow,
    });
    policy.is_final = *kind == 1;
    policy.mode = if matches!(kind, 2 | 4) { Mode::Report } else { Mode::Enforce };
    Rule::new("", builder.build(), policy)
}

/// The decision as its documentation says it, one rule after the other.
fn plainly(rules: &[Rule<Policy>], subject: &Subject<'_>) -> (Verdict, Option<usize>) {
    let first = |is: &dyn Fn(&Policy) -> bool| {
        let matching =
            rules.iter().enumerate().filter(|(_, rule)| is(&rule.then) && rule.matcher.matches(subject));
        matching
            .max_by_key(|(place, rule)| (rule.matcher.specificity(), Reverse(*place)))
            .map(|(place, _)| place)
    };
    let of = |verdict, is_final| {
        first(&move |policy| {
            let enforced = policy.mode == Mode::Enforce || matches!(verdict, Verdict::Warn | Verdict::Allow);
            policy.verdict == verdict && policy.is_final == is_final && enforced
        })
    };
    if let Some(rule) = of(Verdict::Deny, false) {
        return (Verdict::Deny, Some(rule));
    }
    let throttle = of(Verdict::Throttle, false);
    let allow = of(Verdict::Allow, false);
    if throttle.is_none()
        && allow.is_none()
        && let Some(rule) = of(Verdict::Deny, true)
    {
        return (Verdict::Deny, Some(rule));
    }
    if let Some(rule) = throttle {
        return (Verdict::Throttle, Some(rule));
    }
    match of(Verdict::Warn, false) {
        Some(rule) => (Verdict::Warn, Some(rule)),
        None => (Verdict::Allow, allow),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_index_finds_what_asking_every_rule_finds(
        rules in prop::collection::vec(written(), 0..60),
        vendor in "[aAbé]{1,2}", customer in "[abc]{0,9}", endpoint in "(GET /|\\* /|)a{1,6}(/\\{c\\}(/b)?)?", host in "[abcÉé]{0,9}",
        tags in prop::collection::vec("[aB]{1,2}", 0..3), tag in "(k=[ab]{1,2})?", service in "[ab]{0,2}",
    ) {
        let rules: Vec<Rule<Policy>> = rules.iter().map(rule).collect();
        let caller = Caller::new(service);
        let subject = Subject {
            vendor: &vendor, customer: &customer, endpoint: &endpoint, host: &host, method: "GET",
            vendor_tags: &tags, tags: &tag, caller: &caller, data: &["a"],
            ..Subject::default()
        };
        let index = Index::new(&rules.iter().map(|rule| &rule.matcher).collect::<Vec<_>>());
        let mut visited = vec![false; rules.len()];
        index.each_bucket(&subject, |bucket| bucket.iter().for_each(|place| visited[*place as usize] = true));
        for (rule, visited) in rules.iter().zip(visited) {
            prop_assert!(visited || !rule.matcher.matches(&subject), "{} is missed", rule.matcher);
        }
        let set = PolicySet::new(rules);
        let decision = set.decide(&subject);
        let (verdict, rule) = plainly(set.rules(), &subject);
        prop_assert_eq!(decision.verdict, verdict);
        prop_assert_eq!(decision.rule.map(RuleIndex::get), rule);
        let (explained, all) = set.explain(&subject);
        prop_assert_eq!(explained, decision);
        let matching = set.rules().iter().filter(|rule| rule.matcher.matches(&subject)).count();
        prop_assert_eq!(all.len(), matching);
    }

    #[test]
    fn what_is_reported_as_unreachable_never_decides(
        rules in prop::collection::vec(written(), 0..12),
        vendor in "[ab]{1,2}", customer in "[ab]{0,2}", endpoint in "(GET /|\\* /|)[ab]{1,2}",
    ) {
        let set = PolicySet::new(rules.iter().map(rule).collect());
        let subject = Subject {
            vendor: &vendor, customer: &customer, endpoint: &endpoint, method: "GET", ..Subject::default()
        };
        let decision = set.decide(&subject);
        for warning in set.check() {
            prop_assert_ne!(decision.rule, Some(warning.rule), "{}", warning);
            prop_assert_ne!(decision.would, Some(warning.rule), "{}", warning);
        }
    }
}

#[test]
fn ten_thousand_rules_of_any_kind_are_asked_as_few_as_a_hundred_are() {
    // Counted instead of timed: how many rules a lookup asks.
    let asked = |rules: &[Matcher], subject: &Subject<'_>| {
        let index = Index::new(&rules.iter().collect::<Vec<_>>());
        let mut asked = 0;
        index.each_bucket(subject, |bucket| asked += bucket.len());
        asked
    };
    let make: [fn(usize) -> Matcher; 6] = [
        |n| Matcher::new([("customer", format!("customer-{n}").as_str())]).unwrap(),
        |n| {
            Matcher::new([("vendor", "openai"), ("endpoint", format!("GET /v{}/{n:05}/*", n % 3).as_str())])
                .unwrap()
        },
        |n| Matcher::new([("vendor.tag", "llm"), ("tag.team", format!("team-{n}").as_str())]).unwrap(),
        |n| Matcher::new([("host", format!("*.tenant-{n:05}.example.com").as_str())]).unwrap(),
        |n| {
            Matcher::new([
                ("vendor", format!("v{}", n % 100).as_str()),
                ("customer", format!("c{}", n / 100).as_str()),
            ])
            .unwrap()
        },
        |n| Matcher::new([("endpoint", format!("GET /v1/{{id}}/parts/{n:05}").as_str())]).unwrap(),
    ];
    let tags = ["llm".to_owned()];
    for (kind, make) in make.into_iter().enumerate() {
        let subject = Subject {
            vendor: if kind == 4 { "v7" } else { "openai" },
            customer: if kind == 4 { "c0" } else { "customer-7" },
            endpoint: if kind == 5 { "GET /v1/{item}/parts/00007" } else { "GET /v1/00007/x" },
            host: "a.tenant-00007.example.com",
            tags: "team=team-7",
            vendor_tags: &tags,
            ..Subject::default()
        };
        let many: Vec<Matcher> = (0..10_000).map(make).collect();
        assert!(many.iter().any(|rule| rule.matches(&subject)), "{kind}");
        assert!(asked(&many, &subject) <= 10, "{kind}: {}", asked(&many, &subject));
    }
}
