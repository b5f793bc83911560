use super::*;
use crate::call::ErrorType;
use crate::config::section;
use crate::resilience::Ending;
use proptest::prelude::*;

fn read(text: &str) -> Result<Rule, Vec<String>> {
    let mut rule = None;
    let errors = section::read("f", text, |root| rule = super::read(root));
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(rule.is_some() || !errors.is_empty(), "a rule is not left out in silence");
    if errors.is_empty() { rule.ok_or(errors) } else { Err(errors) }
}

#[test]
fn a_whole_rule_is_read() {
    let rule = read(
        r#"
        deadline = "10s"
        attempt_timeout = "3s"
        attempts = 4
        backoff = "100ms..2s"
        retry_on = ["5xx", "429", "connect"]
        not_processed = ["429"]
        retry_budget = "10%"
        retry_budget_least = 5
        max_wait = "30s"
        replay_bytes = "128KiB"
        idempotency_header = "Idempotency-Key"
        over_sdk = true
        breaker = { consecutive = 3, failure_rate = "40%", window = 50, open = "10s", probes = 2 }
        hedge = { after = "p99", budget = "2%" }
        failover = { host = "Backup.example.com", when = ["breaker", "503"], headers = { authorization = "Bearer x" } }
        concurrency = { limit = "adaptive", least = 2, most = 50, max_wait = "0s" }
        "#,
    )
    .unwrap();
    let retry = rule.retry.unwrap();
    assert_eq!((retry.attempts, retry.budget.least, retry.replay_bytes), (4, 5, Some(128 << 10)));
    assert!(
        retry.on.has(Ending::Error(ErrorType::Connect)) && !retry.on.has(Ending::Error(ErrorType::Reset))
    );
    assert!(retry.not_processed.has(Ending::Status(429)) && retry.over_sdk);
    assert_eq!(retry.idempotency_header.as_deref(), Some("idempotency-key"));
    assert_eq!(rule.breaker.unwrap().window, 50);
    assert_eq!(rule.hedge.unwrap().after, HedgeAfter::Quantile(990));
    let failover = rule.failover.unwrap();
    assert!(failover.on_breaker && failover.on.has(Ending::Status(503)));
    assert_eq!(failover.changes.host.as_deref(), Some("backup.example.com"));
    let concurrency = rule.concurrency.unwrap();
    assert_eq!(
        (concurrency.limit, concurrency.max_wait),
        (Limit::Adaptive { least: 2, most: 50 }, Duration::ZERO)
    );
}

#[test]
fn each_part_has_the_documented_defaults() {
    assert_eq!(read("attempts = 3").unwrap().retry, Some(RetryRule::default()));
    assert_eq!(read("breaker = {}").unwrap().breaker, Some(BreakerRule::default()));
    assert_eq!(read("hedge = {}").unwrap().hedge, Some(HedgeRule::default()));
    assert_eq!(read("concurrency = 20").unwrap().concurrency.unwrap().limit, Limit::Fixed(20));
    assert_eq!(read("concurrency = \"adaptive\"").unwrap().concurrency.unwrap().limit, Limit::ADAPTIVE);
    let rule = read("deadline = \"10s\"").unwrap();
    assert_eq!(rule, Rule { deadline: Some(Duration::from_secs(10)), ..Rule::default() });
    let adaptive = read("concurrency = { limit = \"adaptive\", least = 500 }").unwrap().concurrency.unwrap();
    assert_eq!(adaptive.limit, Limit::Adaptive { least: 500, most: 500 });
}

#[test]
fn what_contradicts_itself_says_what_to_write() {
    for (text, says) in [
        ("", "the rule says nothing"),
        ("backoff = \"1s..2s\"", "write `attempts = 3` as well"),
        ("attempts = 0", "between 1 and 20"),
        ("attempts = -1", "between 1 and 20"),
        ("attempts = 3\nbackoff = \"8s..200ms\"", "the shorter one first"),
        ("attempts = 3\nbackoff = \"1s\"", "two durations"),
        ("attempts = 3\nretry_on = [\"4xx\"]", "name those you mean"),
        ("attempts = 3\nretry_on = [\"often\"]", "an ending"),
        ("attempts = 3\nretry_on = \"5xx\"", "not a list"),
        ("attempts = 3\nnot_processed = [\"reset\"]", "about statuses"),
        ("attempts = 3\nretry_budget = \"0%\"\nretry_budget_least = 0", "write `attempts = 1`"),
        ("attempts = 3\nretry_budget = nan", "is not a share"),
        ("attempts = 3\nreplay_bytes = \"1GiB\"", "up to 64 MiB"),
        ("attempts = 3\nidempotency_header = \"a b\"", "a header field's name"),
        ("deadline = \"1s\"\nattempt_timeout = \"2s\"", "longer than `deadline`"),
        ("deadline = \"0s\"", "a deadline of zero would refuse all; write one such as \"30s\""),
        ("attempt_timeout = \"0m\"", "is not a duration above zero"),
        ("breaker = { window = 5 }", "between 10 and 512"),
        ("breaker = { failure_rate = \"0%\" }", "above 0%"),
        ("breaker = { open = \"1ms\" }", "between 100ms and 1d"),
        ("breaker = { probes = 0 }", "between 1 and 1000"),
        ("breaker = { prboes = 3 }", "did you mean `probes`?"),
        ("breaker = 5", "not a table"),
        ("hedge = { after = \"p100\" }", "from p50 to p99.9"),
        ("hedge = { after = \"pNaN\" }", "from p50 to p99.9"),
        ("hedge = { budget = \"0%\" }", "above 0%"),
        ("failover = { when = [\"5xx\"] }", "changes nothing"),
        ("failover = { host = \"b.example\" }", "keep_credentials = true"),
        ("failover = { host = \"b.example\", keep_credentials = false }", "no credentials of its own"),
        ("failover = { path_prefix = \"/b\", when = [] }", "nothing ever goes over"),
        ("failover = { path_prefix = \"/b\", when = [\"sometimes\"] }", "\"breaker\""),
        ("concurrency = 0", "between 1 and 100000"),
        ("concurrency = \"elastic\"", "\"adaptive\""),
        ("concurrency = { limit = 5, least = 2 }", "bound an adaptive limit"),
        ("concurrency = { limit = \"adaptive\", least = 9, most = 3 }", "exchange them"),
        ("concurrency = { most = 3 }", "`limit` is missing"),
    ] {
        match read(text) {
            Err(errors) => assert!(errors.iter().any(|error| error.contains(says)), "{text}: {errors:?}"),
            Ok(rule) => panic!("{text} was read as {rule:?}"),
        }
    }
}

/// The examples of the documents that concern the three kinds of rules read here.
#[test]
fn the_documented_examples_are_right() {
    let documents = [
        include_str!("../../../../docs/resilience.md"),
        include_str!("../../../../docs/rollout.md"),
        include_str!("../../../../docs/fault.md"),
    ];
    for document in documents {
        let (_, example) = document.split_once("```toml\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let mut rules = 0;
        let errors = section::read("f", example, |root| {
            let allowed = root.boolean("allow_faults").unwrap_or(false);
            for section in root.tables("resilience") {
                section.value("match");
                rules += usize::from(super::read(section).is_some());
            }
            for section in root.tables("rollout") {
                section.value("match");
                rules += usize::from(crate::config::rollout::read(section).is_some());
            }
            for section in root.tables("fault") {
                section.value("match");
                rules += usize::from(crate::config::fault::read(section, allowed).is_some());
            }
        });
        assert_eq!(errors, [], "{example}");
        assert_eq!(rules, example.matches("[[").count());
    }
}

proptest! {
    #[test]
    fn no_value_makes_it_panic(
        key in prop::sample::select(vec!["deadline", "attempts", "backoff", "retry_on", "breaker", "hedge", "failover", "concurrency"]),
        value in prop::sample::select(vec!["1", "-1", "nan", "\"x\"", "[]", "[1]", "{}", "{ limit = [] }", "true", "\"..\"", "2026-01-01", "99999999999999999999"]),
    ) {
        let _ = section::read("f", &format!("{key} = {value}"), |root| { super::read(root); });
    }
}
