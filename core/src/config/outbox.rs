//! `[[outbox]]`: which calls are parked when they fail, and which are critical.

use super::resilience::words;
use super::section::Section;
use crate::outbox::{OrderedBy, Park, Refusals, Rule};
use crate::resilience::Triggers;

/// Reads what follows from the match of a rule; `None` where something is wrong with it, which was reported.
pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Rule> {
    let default = Park::default();
    let park = section.boolean("park");
    let critical = section.boolean("critical");
    let on = words(section, "park_on", |word| match Refusals::NONE.word(word) {
        Some(_) => Ok(word.to_owned()),
        None => Triggers::NONE.word(word).map(|_| word.to_owned()).map_err(|remedy| {
            format!(r#"{remedy}, or "breaker", "quota", "budget", "concurrency" or "deadline""#)
        }),
    });
    let duplicates = section.boolean("duplicates");
    let safe_methods = section.boolean("safe_methods");
    let idempotency_header = section.checked_string("idempotency_header", |text| {
        http::HeaderName::from_bytes(text.as_bytes())
            .map(|name| name.as_str().into())
            .map_err(|_| r#"a header field's name; write it as in "Idempotency-Key""#.into())
    });
    let ordered_by =
        section.choice("ordered_by", &[("customer", OrderedBy::Customer), ("rule", OrderedBy::Rule)]);
    let max_age = section.duration("max_age");
    let max_attempts = section.number("max_attempts", 1..=1_000_000);
    let answer = section.number("answer", 200..=299);

    let keys = [
        ("park_on", on.is_some()),
        ("duplicates", duplicates.is_some()),
        ("safe_methods", safe_methods.is_some()),
        ("idempotency_header", idempotency_header.is_some()),
        ("ordered_by", ordered_by.is_some()),
        ("max_age", max_age.is_some()),
        ("max_attempts", max_attempts.is_some()),
        ("answer", answer.is_some()),
    ];
    let own = [("park", park.is_some()), ("critical", critical.is_some())];
    if keys.iter().chain(&own).any(|(key, read)| section.has(key) && !read) {
        return None;
    }
    let said = keys.iter().find(|(key, _)| section.has(key)).map(|(key, _)| *key);
    match (park, said) {
        (Some(false), Some(key)) => {
            section.wrong(format!("`{key}` is about calls that are parked; leave it out, or `park = false`"));
            return None;
        }
        (None, Some(key)) => {
            section.wrong(format!("`{key}` is about calls that are parked; write `park = true` as well"));
            return None;
        }
        (None | Some(false), None) => {
            if critical.is_none() {
                section.says_nothing("the rule says nothing; write `park = true` or `critical = true`");
                return None;
            }
            return Some(Rule::new(None, critical));
        }
        (Some(true), _) => {}
    }
    let (on, refused) =
        match on {
            None => (default.on, default.refused),
            Some(words) if words.is_empty() => {
                section.wrong("`park_on` is empty, so that nothing is parked; leave it out, or the rule");
                return None;
            }
            Some(words) => words.iter().fold((Triggers::NONE, Refusals::NONE), |(on, refused), word| {
                match refused.word(word) {
                    Some(refused) => (on, refused),
                    None => (on.word(word).unwrap_or(on), refused),
                }
            }),
        };
    let park = Park {
        on,
        refused,
        duplicates: duplicates.unwrap_or(default.duplicates),
        safe_methods: safe_methods.unwrap_or(default.safe_methods),
        idempotency_header,
        ordered_by: ordered_by.unwrap_or(default.ordered_by),
        max_age,
        max_attempts: max_attempts.and_then(|number| u32::try_from(number).ok()),
        answer: answer.and_then(|number| u16::try_from(number).ok()).unwrap_or(default.answer),
    };
    Some(Rule::new(Some(park), critical))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{ErrorType, RefusedBy};
    use crate::config::section;
    use crate::resilience::Ending;
    use std::time::Duration;

    fn read(text: &str) -> Result<Rule, Vec<String>> {
        let mut rule = None;
        let errors = section::read("f", text, |root| rule = super::read(root));
        match (rule, errors.is_empty()) {
            (Some(rule), true) => Ok(rule),
            _ => Err(errors.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn what_is_no_boolean_and_no_ending_is_told_what_is() {
        let why = |text: &str| read(text).unwrap_err().remove(0);
        assert!(
            why("critical = 1")
                .ends_with("`critical` is a whole number, not true or false; write one of these words")
        );
        assert!(
            why("critical = \"true\"")
                .ends_with("`critical` is a string, not true or false; write it without quotes")
        );
        let said = why("park = true\npark_on = [\"5xy\"]");
        assert!(said.contains("write \"5xx\", a status such as \"503\"") && !said.contains("591"), "{said}");
    }

    #[test]
    fn the_examples_of_the_documentation_are_right() {
        let text = include_str!("../../../docs/outbox.md");
        let examples: Vec<&str> =
            text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(examples.len() > 1);
        for example in examples {
            let config = crate::Config::parse("docs/outbox.md", example).unwrap();
            assert_eq!(config.outbox.len(), example.matches("[[outbox]]").count());
            let tells = example.lines().any(|line| line.starts_with("[alarm]"));
            assert_eq!(config.alarm.has_way(), tells, "{example}");
        }
    }

    #[test]
    fn the_shortest_rule_parks_what_usually_passes() {
        assert_eq!(read("park = true").unwrap(), Rule::new(Some(Park::default()), None));
        assert_eq!(read("critical = true").unwrap(), Rule::new(None, Some(true)));
    }

    #[test]
    fn everything_that_can_be_said_is_read() {
        let rule = read(
            r#"
            park = true
            critical = true
            park_on = ["connect", "503", "breaker", "deadline"]
            duplicates = true
            safe_methods = true
            idempotency_header = "X-Request-Id"
            ordered_by = "customer"
            max_age = "1d"
            max_attempts = 50
            answer = 200
            "#,
        )
        .unwrap();
        let park = rule.park.unwrap();
        assert_eq!(rule.critical, Some(true));
        assert!(park.on.has(Ending::Error(ErrorType::Dns)) && park.on.has(Ending::Status(503)));
        assert!(!park.on.has(Ending::Status(500)));
        assert_eq!(park.refused, Refusals::NONE.with(RefusedBy::Breaker).with(RefusedBy::Deadline));
        assert!(park.duplicates && park.safe_methods);
        assert_eq!(park.idempotency_header.as_deref(), Some("x-request-id"));
        assert_eq!((park.ordered_by, park.max_age), (OrderedBy::Customer, Some(Duration::from_secs(86_400))));
        assert_eq!((park.max_attempts, park.answer), (Some(50), 200));
    }

    #[test]
    fn what_is_wrong_says_what_would_be_right() {
        let why = |text: &str| read(text).unwrap_err().join("\n");
        assert!(why("").contains("write `park = true` or `critical = true`"));
        assert!(why("park_on = [\"5xx\"]").contains("write `park = true` as well"));
        assert!(why("park = false\nduplicates = true").contains("leave it out"));
        assert!(why("park = true\npark_on = [\"policy\"]").contains("\"breaker\""));
        assert!(why("park = true\npark_on = []").contains("nothing is parked"));
        assert!(why("park = true\nanswer = 500").contains("between 200 and 299"));
        assert!(why("park = true\nordered_by = \"host\"").contains("\"customer\""));
        assert!(why("prak = true").contains("did you mean `park`?"));
    }
}
