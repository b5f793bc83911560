//! The narrowest policy that lets pass what was seen.

use super::Policy;
use super::places::Places;
use crate::catalogue::Catalogue;
use crate::config::{Rule, can_be_unnamed};
use crate::matcher::{Builder, Matcher, Subject, lower, toml_string};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Rules that allow exactly the combinations of caller, vendor and endpoint that were seen, and a final denial.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Recommendation {
    /// The rules: the allowing ones, then the final denial.
    pub rules: Vec<Rule<Policy>>,
    /// What no rule can say exactly, and so was widened: a sentence each.
    pub widened: Vec<String>,
    /// Hosts that were called and have no vendor's name yet; rules need one for them.
    pub unnamed: Vec<String>,
}

/// Who calls: what is known of the caller. What is not known is no condition.
type Who = (String, String, String);

/// Finds the narrowest rules over the caller (service, executable, user), the vendor and the endpoint that
/// allow each of these calls. Callers that make the same calls share a rule only if they are the same.
///
/// An endpoint is a template: the calls of one that was not seen, or by another caller, or to another vendor, are
/// denied. Texts are compared without regard to case, and a caller of whom a part is not known stands for all
/// with the same other parts. Where a path that no pattern of the catalogue names has more names in one place
/// than a process tells apart, the rule has `*` there: which of them are `{id}` depends on the order of calls.
///
/// `known` are further endpoints that vendors were seen with (vendor, endpoint), whenever and by whomever. They
/// are not allowed for that; they tell such places.
#[must_use]
pub fn recommend<'a>(
    catalogue: &Catalogue,
    rows: impl IntoIterator<Item = Subject<'a>>,
    known: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Recommendation {
    let rows: Vec<Subject<'a>> = rows.into_iter().collect();
    let mut learned: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (vendor, endpoint) in rows.iter().map(|row| (row.vendor, row.endpoint)).chain(known) {
        if !is_named(catalogue, vendor, endpoint) {
            learned.entry(fold(vendor)).or_default().insert(endpoint);
        }
    }
    let places: BTreeMap<String, Places> =
        learned.into_iter().map(|(vendor, endpoints)| (vendor, Places::new(endpoints))).collect();
    // For each caller and vendor the endpoints: folded, to tell them apart, and as written, for people.
    let mut seen: BTreeMap<(Who, String), BTreeMap<String, String>> = BTreeMap::new();
    for row in rows {
        let who = (fold(&row.caller.service), fold(&row.caller.executable), fold(&row.caller.user));
        let vendor = fold(row.vendor);
        let wide = places.get(&vendor).filter(|_| !is_named(catalogue, row.vendor, row.endpoint));
        let endpoint = wide.and_then(|places| places.widened(row.endpoint));
        let endpoint = endpoint.unwrap_or_else(|| row.endpoint.trim().to_owned());
        seen.entry((who, vendor)).or_default().entry(fold(&endpoint)).or_insert(endpoint);
    }
    let mut recommendation = Recommendation::default();
    let mut unnamed = BTreeSet::new();
    let mut allowed: Vec<(Matcher, bool)> = Vec::new();
    for ((who, vendor), endpoints) in &seen {
        let known = catalogue.vendors().iter().any(|known| known.name == *vendor);
        if !vendor.is_empty() && !known && !can_be_unnamed(vendor) {
            unnamed.insert(vendor.clone());
        }
        let mut builder = Builder::default();
        let mut widened = false;
        for (key, text) in
            [("caller.service", &who.0), ("caller.executable", &who.1), ("caller.user", &who.2)]
        {
            if !text.is_empty() {
                widened |= add(&mut builder, key, &[text]);
            }
        }
        widened |= add(&mut builder, "vendor", &[vendor]);
        let endpoints: Vec<&str> = endpoints.values().map(String::as_str).collect();
        widened |= add(&mut builder, "endpoint", &endpoints);
        allowed.push((builder.build(), widened));
    }
    // A caller of whom more is known needs no rule beside one of whom less is.
    let needed: Vec<bool> = (0..allowed.len())
        .map(|mine| {
            let covers = |a: usize, b: usize| allowed[a].0.covers(&allowed[b].0);
            !(0..allowed.len())
                .any(|other| other != mine && covers(other, mine) && (other < mine || !covers(mine, other)))
        })
        .collect();
    for ((matcher, widened), _) in allowed.into_iter().zip(needed).filter(|(_, needed)| *needed) {
        let name = format!("allow-{:03}", recommendation.rules.len() + 1);
        if widened {
            recommendation.widened.push(format!("`{name}` allows more than was seen: {matcher}"));
        }
        recommendation.rules.push(Rule::new(&name, matcher, Policy::new(super::Verdict::Allow)));
    }
    let mut denial = Policy::final_deny();
    denial.reason = Some("no rule allows this call".into());
    recommendation.rules.push(Rule::new("deny-the-rest", Matcher::default(), denial));
    recommendation.unnamed = unnamed.into_iter().collect();
    recommendation
}

/// Whether the endpoint is a pattern of the catalogue: the same in every process.
fn is_named(catalogue: &Catalogue, vendor: &str, endpoint: &str) -> bool {
    let vendor = catalogue.vendors().iter().find(|known| known.name == vendor);
    vendor.is_some_and(|vendor| vendor.endpoints.iter().any(|pattern| pattern.as_str() == endpoint))
}

/// Adds a condition that each of `texts` meets; says whether others meet it too. Rules have no words for an
/// empty text, a leading `!` and a star.
fn add(builder: &mut Builder, key: &str, texts: &[&str]) -> bool {
    if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
        return true;
    }
    let mut widened = false;
    let patterns: Vec<String> = texts
        .iter()
        .map(|text| {
            // The end of a template's braces: `{rest*}` stands for itself.
            widened |= text.replace("*}", "").contains('*') || text.starts_with('!');
            match text.strip_prefix('!') {
                Some(rest) => format!("*{rest}"),
                None => (*text).to_owned(),
            }
        })
        .collect();
    let borrowed: Vec<&str> = patterns.iter().map(String::as_str).collect();
    builder.add(key, &borrowed).is_err() || widened
}

/// As matchers compare texts: in lower case, without space around it.
fn fold(text: &str) -> String {
    lower(text.trim()).collect()
}

impl Recommendation {
    /// The rules as text for `farcall.toml`.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for sentence in &self.widened {
            _ = writeln!(text, "# {}", sentence.replace('\n', " "));
        }
        for host in &self.unnamed {
            let host = toml_string(host);
            _ = writeln!(text, "[[vendor]]\nname = {host}\nhosts = [{host}]");
        }
        for rule in &self.rules {
            if !text.is_empty() {
                text.push('\n');
            }
            _ = writeln!(text, "[[policy]]\nname = {}", toml_string(&rule.name));
            _ = writeln!(text, "match = {}", rule.matcher);
            _ = writeln!(text, "verdict = {}", toml_string(rule.then.verdict.as_str()));
            if rule.then.is_final {
                text.push_str("final = true\n");
            }
            if let Some(reason) = &rule.then.reason {
                _ = writeln!(text, "reason = {}", toml_string(reason));
            }
        }
        text
    }
}
