//! `[[cache]]`: which answers are kept, and how.

use super::duration::parse_duration;
use super::resilience::words;
use super::section::Section;
use crate::cache::{Methods, Query, Rule};
use crate::matcher::parse_bytes;
use std::time::Duration;

/// Names of one list.
const MAX_NAMES: usize = 32;
/// The longest body that a rule may have kept.
const MOST_BYTES: u64 = 64 << 20;

/// Reads what follows from the match of a cache rule; `None` where something is wrong with it, which was reported.
pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Rule> {
    let mut rule = Rule::default();
    let ttl = section.duration("ttl");
    let negative_ttl = section.duration("negative_ttl");
    let meanwhile = section.duration("stale_while_revalidate");
    let on_error = section.duration("stale_if_error");
    let ignore = words(section, "ignore", |word| match word {
        "no-store" | "must-revalidate" => Ok(word.to_owned()),
        _ => Err(r#"a directive that can be ignored; write "no-store" or "must-revalidate""#.into()),
    });
    let methods = words(section, "methods", |word| match word {
        "GET" | "POST" => Ok(word.to_owned()),
        _ => Err(r#"a method whose answers can be kept; write "GET" or "POST""#.into()),
    });
    let share = words(section, "share", |word| match word {
        "customers" | "credentials" => Ok(word.to_owned()),
        _ => Err(r#"something that answers can be shared across; write "customers" or "credentials""#.into()),
    });
    let key = section.has("key").then(|| key(section.table("key")?));
    let max_bytes = section.checked_string("max_bytes", |text| {
        let bytes = parse_bytes(text).filter(|bytes| (1..=MOST_BYTES).contains(bytes));
        bytes.ok_or(r#"a size up to 64MiB; write it as in "1MiB""#.into())
    });
    let coalesce = section.checked_string("coalesce", |text| {
        let wait = parse_duration(text).or(matches!(text.trim(), "0" | "0s").then_some(Duration::ZERO));
        let wait = wait.filter(|wait| *wait <= Duration::from_secs(60));
        wait.ok_or(r#"a duration up to 60s; write it as in "10s", or "0s" to switch it off"#.into())
    });
    let keys = [
        ("ttl", ttl.is_some()),
        ("negative_ttl", negative_ttl.is_some()),
        ("stale_while_revalidate", meanwhile.is_some()),
        ("stale_if_error", on_error.is_some()),
        ("ignore", ignore.is_some()),
        ("methods", methods.is_some()),
        ("share", share.is_some()),
        ("key", key.as_ref().is_none_or(Option::is_some)),
        ("max_bytes", max_bytes.is_some()),
        ("coalesce", coalesce.is_some()),
    ];
    if keys.iter().any(|(key, read)| section.has(key) && !read) {
        return None;
    }
    let has = |list: &Option<Vec<String>>, word: &str| list.iter().flatten().any(|known| known == word);
    rule.methods = match (has(&methods, "GET"), has(&methods, "POST")) {
        (true, true) => Methods::GetAndPost,
        (false, true) => Methods::Post,
        (true, false) => Methods::Get,
        (false, false) if methods.is_some() => {
            section.wrong("`methods` is empty, so that nothing is kept; leave it out, or the rule");
            return None;
        }
        (false, false) => Methods::Get,
    };
    (rule.ttl, rule.negative_ttl) = (ttl, negative_ttl);
    (rule.stale_while_revalidate, rule.stale_if_error) = (meanwhile, on_error);
    rule.ignore_no_store = has(&ignore, "no-store");
    rule.ignore_must_revalidate = has(&ignore, "must-revalidate");
    rule.share_customers = has(&share, "customers");
    rule.share_credentials = has(&share, "credentials");
    if let Some((query, headers, json)) = key.flatten() {
        if !json.is_empty() && rule.methods == Methods::Get {
            section
                .wrong("`key` names fields of a body, and a GET has none; write `methods = [\"POST\"]` too");
            return None;
        }
        (rule.query, rule.headers, rule.json) = (query, headers, json);
    }
    rule.max_bytes = max_bytes.unwrap_or(Rule::MAX_BYTES);
    rule.coalesce = coalesce.unwrap_or(Rule::COALESCE);
    Some(rule)
}

/// What tells calls apart.
fn key(section: &mut Section<'_, '_>) -> Option<(Query, Vec<String>, Vec<String>)> {
    let name = |text: &str| {
        let good = !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| text.to_owned()).ok_or_else(|| "a name; write up to 64 characters".to_owned())
    };
    let only = words(section, "query", name);
    let without = words(section, "without_query", name);
    let headers = words(section, "headers", |text| name(text).map(|name| name.to_ascii_lowercase()));
    let json = words(section, "json", |text| {
        let path = name(text)?;
        let good = path.split('.').all(|name| !name.is_empty() && !name.contains(['"', '\\']));
        good.then_some(path)
            .ok_or_else(|| "a field; write its name, or names with dots between them".to_owned())
    });
    let lists = [("query", &only), ("without_query", &without), ("headers", &headers), ("json", &json)];
    for (key, list) in lists {
        if section.has(key) && list.is_none() {
            return None;
        }
        if list.as_ref().is_some_and(|list| list.len() > MAX_NAMES) {
            section.wrong(format!("`{key}` names more than {MAX_NAMES}"));
            return None;
        }
    }
    let query = match (only, without) {
        (Some(_), Some(_)) => {
            section.wrong("`query` says what counts and `without_query` what does not; write one of them");
            return None;
        }
        (Some(only), None) => Query::Only(only),
        (None, Some(without)) => Query::Without(without),
        (None, None) => Query::All,
    };
    Some((query, headers.unwrap_or_default(), json.unwrap_or_default()))
}

/// Bytes of all answers together, from `cache_memory` or `cache_disk`.
pub(super) fn bytes(root: &mut Section<'_, '_>, key: &'static str, example: &str) -> Option<u64> {
    root.checked_string(key, |text| {
        let bytes = parse_bytes(text).filter(|bytes| (1 << 20..=64 << 30).contains(bytes));
        bytes.ok_or(format!(r#"a size from 1MiB to 64GiB; write it as in "{example}""#))
    })
}

/// How long a call waits for what lies beyond memory.
pub(super) fn wait(root: &mut Section<'_, '_>, key: &'static str, example: &str) -> Option<Duration> {
    root.checked_string(key, |text| {
        let wait = parse_duration(text).filter(|wait| *wait <= Duration::from_secs(60));
        wait.ok_or(format!(r#"a duration up to 60s; write it as in "{example}""#))
    })
}

#[cfg(test)]
mod tests {
    use crate::cache::{Methods, Query, Rule};
    use crate::config::section;
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
    fn the_example_of_the_documentation_is_right() {
        let text = include_str!("../../../docs/cache.md");
        let (_, example) = text.split_once("```toml\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let config = crate::Config::parse("docs/cache.md", example).unwrap();
        assert_eq!(config.caches.len(), example.matches("[[cache]]").count());
    }

    #[test]
    fn an_empty_rule_keeps_to_the_headers() {
        assert_eq!(read("").unwrap(), Rule::default());
    }

    #[test]
    fn everything_that_can_be_said_is_read() {
        let rule = read(
            r#"
            ttl = "30s"
            negative_ttl = "5s"
            stale_while_revalidate = "10s"
            stale_if_error = "1h"
            ignore = ["no-store", "must-revalidate"]
            methods = ["GET", "POST"]
            share = ["customers", "credentials"]
            key = { query = ["q", "page"], headers = ["X-Region"], json = ["model", "filter.region"] }
            max_bytes = "256KiB"
            coalesce = "2s"
            "#,
        )
        .unwrap();
        let s = |seconds| Some(Duration::from_secs(seconds));
        let expected = Rule {
            ttl: s(30),
            negative_ttl: s(5),
            stale_while_revalidate: s(10),
            stale_if_error: s(3_600),
            ignore_no_store: true,
            ignore_must_revalidate: true,
            methods: Methods::GetAndPost,
            share_customers: true,
            share_credentials: true,
            query: Query::Only(vec!["q".into(), "page".into()]),
            headers: vec!["x-region".into()],
            json: vec!["model".into(), "filter.region".into()],
            max_bytes: 256 * 1024,
            coalesce: Duration::from_secs(2),
        };
        assert_eq!(rule, expected);
    }

    #[test]
    fn what_is_wrong_says_what_would_be_right() {
        let why = |text: &str| read(text).unwrap_err().join("\n");
        assert!(why("ttl = \"soon\"").contains("`ttl` is not a duration"));
        assert!(why("ignore = [\"private\"]").contains("\"must-revalidate\""));
        assert!(why("methods = [\"DELETE\"]").contains("write \"GET\" or \"POST\""));
        assert!(why("methods = []").contains("nothing is kept"));
        assert!(why("share = [\"everyone\"]").contains("write \"customers\" or \"credentials\""));
        assert!(why("key = { query = [\"a\"], without_query = [\"b\"] }").contains("write one of them"));
        assert!(why("key = { json = [\"a\"] }").contains("a GET has none"));
        assert!(why("methods = [\"POST\"]\nkey = { json = [\"a..b\"] }").contains("dots between them"));
        assert!(why("max_bytes = \"1TB\"").contains("up to 64MiB"));
        assert!(why("coalesce = \"2h\"").contains("up to 60s"));
        assert!(why("tll = \"30s\"").contains("did you mean `ttl`?"));
    }
}
