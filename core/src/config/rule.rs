//! What all rules have: a match, what follows from it, and a name by which people know it.

use super::matcher::{VendorNames, read as read_match};
use super::section::Section;
use crate::matcher::Matcher;
use std::collections::HashMap;
use std::sync::Arc;

/// A rule of `farcall.toml`: `match`, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule<T> {
    /// Its `name`; where it has none its kind and line, as in `policy@12`.
    pub name: Arc<str>,
    /// Under this its state is kept, wherever it stands in the file: its `name`; where it has none its kind and its
    /// match, as in `budget { vendor = "openai" }`, with a number where several of a kind have the same.
    pub account: Arc<str>,
    /// The line where it begins, from 1; 0 where it was not read from a file.
    pub line: usize,
    /// Which calls it is about.
    pub matcher: Matcher,
    /// What follows for these.
    pub then: T,
}

impl<T> Rule<T> {
    /// A rule that was not read from a file.
    #[must_use]
    pub fn new(name: &str, matcher: Matcher, then: T) -> Self {
        let name: Arc<str> = name.into();
        Self { account: Arc::clone(&name), name, line: 0, matcher, then }
    }
}

/// Reads the rules `[[kind]]`: `match` and `name` here, the other keys by `read`. A rule whose match is wrong, or
/// for which `read` gives nothing, is left out; everything that is wrong in it is reported.
pub(super) fn rules<'t, 'd, T>(
    root: &mut Section<'t, 'd>,
    kind: &'static str,
    vendors: &VendorNames<'_>,
    read: impl Fn(&mut Section<'t, 'd>) -> Option<T>,
) -> Vec<Rule<T>> {
    let mut rules = Vec::new();
    let mut names: HashMap<Arc<str>, usize> = HashMap::new();
    let mut unnamed: HashMap<String, usize> = HashMap::new();
    for section in root.tables(kind) {
        let line = section.line();
        let name = section.checked_string("name", |name| {
            let good = !name.trim().is_empty() && name.len() <= 64 && !name.contains(char::is_control);
            good.then(|| Arc::from(name)).ok_or("a rule's name; write up to 64 characters".into())
        });
        let own_name = name.is_some();
        let name: Arc<str> = name.unwrap_or_else(|| format!("{kind}@{line}").into());
        let matcher = read_match(section, vendors);
        let then = read(section);
        if let Some(other) = names.insert(name.clone(), line) {
            section.wrong(format!("the name `{name}` is that of the rule in line {other} too; rename one"));
        } else if let (Some(matcher), Some(then)) = (matcher, then) {
            let account =
                if own_name { Arc::clone(&name) } else { unnamed_account(kind, &matcher, &mut unnamed) };
            rules.push(Rule { name, account, line, matcher, then });
        }
    }
    rules
}

/// What the state of a rule without a name is kept under: not its line, which changes with every comment above it.
fn unnamed_account(kind: &str, matcher: &Matcher, seen: &mut HashMap<String, usize>) -> Arc<str> {
    let account = format!("{kind} {matcher}");
    let before = seen.entry(account.clone()).or_default();
    *before += 1;
    if *before == 1 { account.into() } else { format!("{account} {before}").into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::section;
    use crate::matcher::{Fields, Subject};

    /// Reads `[[fault]]`s that say a `status`.
    fn read(text: &str) -> (Vec<Rule<usize>>, Vec<String>) {
        let mut found = Vec::new();
        let errors = section::read("f", text, |root| {
            let own: Vec<_> =
                root.tables("vendor").iter_mut().filter_map(crate::config::vendor::read).collect();
            let read = |section: &mut Section<'_, '_>| section.number("status", 100..=599);
            found = rules(root, "fault", &VendorNames::new(&own), read);
        });
        (found, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_match_is_read_in_all_its_forms() {
        let (rules, errors) = read(
            r#"
            [[fault]]
            match = { vendor.name = ["openai", "!az*"], vendor.tag = "llm", caller.service = "!billing", bytes = ">1MiB" }
            status = 500
            [[fault]]
            name = "second"
            match.vendor = { name = "openai", tag = "llm" }
            match.tag."cost center" = "x*"
            status = 501
            [[fault]]
            match = {}
            status = 502
            "#,
        );
        assert_eq!(errors, [""; 0]);
        let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_ref()).collect();
        assert_eq!(names, ["fault@2", "second", "fault@10"]);
        assert_eq!((rules[0].line, rules[1].line, rules[2].then), (2, 5, 502));
        assert_eq!(
            rules[0].matcher.depends(),
            Fields::VENDOR | Fields::VENDOR_TAG | Fields::SERVICE | Fields::BYTES
        );
        assert_eq!(rules[1].matcher.depends(), Fields::VENDOR | Fields::VENDOR_TAG | Fields::TAG);
        assert!(rules[2].matcher.matches(&Subject::default()));
    }

    #[test]
    fn a_rule_without_a_name_keeps_its_account_wherever_it_stands() {
        let rule =
            |then: &str| format!("[[fault]]\nmatch = {{ vendor = \"stripe\", method = \"GET\" }}\n{then}\n");
        let accounts = |text: &str| -> Vec<(String, usize)> {
            let (rules, errors) = read(text);
            assert_eq!(errors, [""; 0]);
            rules.iter().map(|rule| (rule.account.to_string(), rule.line)).collect()
        };
        let other = "[[fault]]\nmatch = {}\nstatus = 500\n";
        let before = accounts(&format!("{}{other}", rule("status = 500")));
        let after = accounts(&format!("# A comment.\n\n{other}{}", rule("status = 501")));
        assert_eq!(before[0].0, after[1].0);
        assert_eq!(before[1].0, after[0].0);
        assert_ne!(before[0].0, before[1].0);
        assert_ne!(before[0].1, after[1].1);
        let twice = accounts(&rule("status = 500").repeat(2));
        assert_ne!(twice[0].0, twice[1].0, "two of a kind do not share one");
        let named = accounts(&format!("{}name = \"mine\"\n", rule("status = 500")));
        assert_eq!(named[0].0, "mine");
    }

    #[test]
    fn a_wrong_match_takes_its_rule_with_it() {
        let (rules, errors) = read(
            r#"[[fault]]
match = { vendr = "stripe" }
status = 500
[[fault]]
match = { vendor = 7, method = ["GET", 8] }
status = 500
[[fault]]
status = 500
[[fault]]
match = "stripe"
status = 500
[[fault]]
match = { caller.usr = "x", customer = "" }
status = 500
[[fault]]
name = ""
match = {}
status = 500
"#,
        );
        let text = "not a text; write it in quotes, or a list of such texts in square brackets";
        let expected = [
            "f:2:11: unknown key `vendr`; did you mean `vendor`?".to_owned(),
            format!("f:5:20: `vendor` is a whole number, {text}"),
            format!("f:5:40: `method` is a whole number, {text}"),
            "f:7:1: `match` is missing; say which calls this is about, or write `match = {}` for all of them"
                .into(),
            r#"f:10:9: `match` is a string, not a table; write `match = { vendor = "..." }`"#.into(),
            "f:13:18: unknown key `caller.usr`; did you mean `caller.user`?".into(),
            r#"f:13:40: `customer` is empty; write a text, a pattern such as "a*", or leave the key out"#
                .into(),
            "f:16:8: `name` is not a rule's name; write up to 64 characters".into(),
        ];
        assert_eq!(errors, expected);
        assert_eq!(rules.len(), 1, "only the one with the wrong name is kept");
    }

    #[test]
    fn an_unknown_vendor_is_an_error_with_the_nearest_name() {
        let rule = |vendor: &str| {
            let own = "[[vendor]]\nname = \"in-house\"\nhosts = [\"search\"]\n";
            read(&format!("[[fault]]\nmatch = {{ vendor = \"{vendor}\" }}\nstatus = 500\n{own}")).1
        };
        let of_nobody = "name it in a [[vendor]] with its hosts, or write its domain, such as `example.com`";
        for (name, meant) in [("strpie", "stripe"), ("!in-huose", "in-house")] {
            let wrong = name.trim_start_matches('!');
            let says = format!("the vendor `{wrong}` is not known; did you mean `{meant}`? Else {of_nobody}");
            assert_eq!(rule(name), [format!("f:2:20: {says}")]);
        }
        assert_eq!(rule("qqq"), [format!("f:2:20: the vendor `qqq` is not known; {of_nobody}")]);
        let by_domain = "a host that nobody named goes by its domain; write `example.co.uk`, or, for this host alone, match \
                         its `host`, or name it in a [[vendor]]";
        for host in [
            "api.example.co.uk",
            "!API.Example.co.uk",
            "*.example.co.uk",
            "https://example.co.uk/v1",
            "example.co.uk:443",
        ] {
            let name = host.trim_start_matches('!');
            assert_eq!(rule(host), [format!("f:2:20: the vendor `{name}` is not known: {by_domain}")]);
        }
        for (host, vendor) in
            [("api.stripe.com", "stripe"), ("*.stripe.com", "stripe"), ("localhost:8080", "localhost")]
        {
            let said = rule(host);
            assert!(said.len() == 1 && said[0].contains(&format!("`{vendor}`")), "{said:?}");
        }
        for right in [
            "example.co.uk",
            "*.co.uk",
            "2001:db8::1",
            "my_host",
            "Example.com",
            "stripe",
            "Stripe",
            "in-house",
            "!stripe",
            "str*",
            "example.com",
            "10.0.0.1",
            "unreadable",
        ] {
            assert_eq!(rule(right), [""; 0], "{right}");
        }
    }

    #[test]
    fn two_rules_of_one_kind_cannot_share_a_name() {
        let rule = "[[fault]]\nname = \"a\"\nmatch = {}\nstatus = 500\n";
        assert_eq!(
            read(&rule.repeat(2)).1,
            ["f:5:1: the name `a` is that of the rule in line 1 too; rename one"]
        );
    }
}
