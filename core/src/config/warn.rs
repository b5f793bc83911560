//! What a file says that is allowed, and surely not meant: a match that no call can meet, and a rule that another
//! one, the time, or a missing price leaves nothing to do.

mod conditions;
mod downgrades;
mod endpoints;
mod prices;
mod quotas;
mod vendors;

use super::{Config, ConfigWarning, Rule};
use crate::budget::Unit;
use crate::cost;
use crate::matcher::Matcher;
use crate::resilience;
use crate::rollout::{self, Kill};
use crate::units::{Currency, Timestamp};
use conditions::{Known, each_text};
use std::cmp::Reverse;
use std::collections::HashMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The sections whose tables have a `match`.
const KINDS: [&str; 9] =
    ["policy", "rollout", "fault", "budget", "quota", "resilience", "cache", "outbox", "data"];

/// How many rules that precede one are looked at: a file of thousands is read in no time, too.
const MAX_SUSPECTS: usize = 256;

/// See [`Config::warnings`].
pub(super) fn warnings(config: &Config, file: &str, text: &str, now: Timestamp) -> Vec<ConfigWarning> {
    let Ok(root) = DeTable::parse(text) else { return Vec::new() };
    let mut found = Found { places: HashMap::new(), said: Vec::new() };
    let breaks = text.match_indices('\n').map(|(place, _)| place + 1);
    let lines: Vec<usize> = std::iter::once(0).chain(breaks).collect();
    let line_of = |place: usize| lines.partition_point(|begin| *begin <= place);
    let known = Known::new(config);
    for kind in KINDS {
        let Some(DeValue::Array(tables)) = root.get_ref().get(kind).map(Spanned::get_ref) else { continue };
        for item in tables.iter() {
            let DeValue::Table(table) = item.get_ref() else { continue };
            let begin = item.span().start;
            let expires = table.get("expires").filter(|_| kind == "fault");
            let place = expires.map_or(begin, |value| value.span().start);
            found.places.insert((kind, line_of(begin)), place);
            if let Some(DeValue::Table(table)) = table.get("match").map(Spanned::get_ref) {
                conditions(table, &known, &mut found);
            }
        }
    }
    prices::prices(root.get_ref(), &known, &mut found);
    resilience(config, &mut found);
    rollouts(config, &mut found);
    faults(config, now, &mut found);
    budgets(config, &mut found);
    downgrades::downgrades(config, &mut found);
    quotas::quotas(config, &mut found);
    found.said.sort();
    let said = found.said.into_iter();
    said.map(|(place, message)| {
        let line = line_of(place);
        let before = text.get(lines[line - 1]..place).unwrap_or_default();
        ConfigWarning { file: file.into(), line, column: before.chars().count() + 1, message }
    })
    .collect()
}

/// See [`Config::vendors_below`].
pub(super) fn vendors_below(config: &Config, domain: &str) -> Vec<String> {
    Known::new(config).below(domain).into_iter().map(|(_, vendor)| vendor.to_owned()).collect()
}

struct Found {
    /// Where the rule of a kind and a line stands.
    places: HashMap<(&'static str, usize), usize>,
    said: Vec<(usize, String)>,
}

impl Found {
    fn say<T>(&mut self, kind: &'static str, rule: &Rule<T>, message: String) {
        let place = self.places.get(&(kind, rule.line)).copied();
        self.said.extend(place.map(|place| (place, message)));
    }
}

/// Conditions of one `match` that no call can meet, or not as they are meant.
fn conditions(table: &DeTable<'_>, known: &Known<'_>, found: &mut Found) {
    let (mut vendors, mut hosts, mut endpoints) = (Vec::new(), Vec::new(), Vec::new());
    each_text("", table, &mut |key, text, place| {
        match key {
            "vendor" | "vendor.name" => vendors.push((text.trim().to_owned(), place)),
            "host" => hosts.push(text.trim().to_owned()),
            "endpoint" => endpoints.push((text.trim().to_owned(), place)),
            _ => {}
        }
        found.said.extend(known.objection(key, text).map(|objection| (place, objection)));
    });
    let names: Vec<&str> = vendors.iter().map(|(name, _)| name.as_str()).collect();
    for (name, place) in &vendors {
        found.said.extend(known.beside(name, &names).map(|objection| (*place, objection)));
    }
    let whose = known.whose(&names, &hosts);
    for (endpoint, place) in &endpoints {
        let wanted = endpoint.strip_prefix('!').unwrap_or(endpoint).trim();
        let objection = known.no_endpoint(&names, wanted);
        let objection = objection.or_else(|| known.named_otherwise(&whose, wanted));
        found.said.extend(objection.map(|objection| (*place, objection)));
    }
}

/// Parts that a rule before has for all of its calls.
fn resilience(config: &Config, found: &mut Found) {
    let mut order: Vec<_> = config.resilience.iter().collect();
    // The engine's order: the most specific first, of equals the earlier one.
    order.sort_by_key(|rule| Reverse(rule.matcher.specificity()));
    for (place, rule) in order.iter().enumerate() {
        let mut before = order[..place].iter().take(MAX_SUSPECTS);
        let hidden = before.find_map(|other| {
            let (ours, theirs) = (parts(&rule.then), parts(&other.then));
            let both = ours.into_iter().zip(theirs).filter(|((_, ours), (_, theirs))| *ours && *theirs);
            let both: Vec<&str> = both.map(|((word, _), _)| word).collect();
            (!both.is_empty() && other.matcher.covers(&rule.matcher)).then_some((other, both))
        });
        if let Some((other, parts)) = hidden {
            let message = format!(
                "{} of {} never hold: {} has its own for all of these calls and comes first; join the two, or narrow \
                 this match",
                parts.join(" and "),
                name(rule),
                name(other),
            );
            found.say("resilience", rule, message);
        }
    }
}

fn parts(rule: &resilience::Rule) -> [(&'static str, bool); 7] {
    let resilience::Rule { deadline, attempt_timeout, retry, breaker, hedge, failover, concurrency } = rule;
    [
        ("`deadline`", deadline.is_some()),
        ("`attempt_timeout`", attempt_timeout.is_some()),
        ("`attempts`", retry.is_some()),
        ("`breaker`", breaker.is_some()),
        ("`hedge`", hedge.is_some()),
        ("`failover`", failover.is_some()),
        ("`concurrency`", concurrency.is_some()),
    ]
}

/// Rollouts whose calls a kill switch refuses: it is asked first, wherever it stands. Of two switches the first.
fn rollouts(config: &Config, found: &mut Found) {
    let stops = |rule: &Rule<rollout::Rule>| rule.then.kill == Some(Kill::Calls);
    let switches = config.rollouts.iter().enumerate().filter(|(_, rule)| stops(rule));
    let switches: Vec<_> = switches.take(MAX_SUSPECTS).collect();
    for (place, rule) in config.rollouts.iter().enumerate() {
        let first = |at: usize| at < place || at > place && !stops(rule);
        let kill = switches.iter().find(|(at, kill)| first(*at) && kill.matcher.covers(&rule.matcher));
        if let Some((_, kill)) = kill {
            let message = format!(
                "{} is never reached: {} refuses all of its calls first; remove one of them, or narrow the kill switch",
                name(rule),
                name(kill)
            );
            found.say("rollout", rule, message);
        }
    }
}

/// Faults that have ended.
fn faults(config: &Config, now: Timestamp, found: &mut Found) {
    for rule in config.faults.iter().filter(|rule| rule.then.expires <= now) {
        let message = format!("{} has ended; write a later `expires`, or remove the rule", name(rule));
        found.say("fault", rule, message);
    }
}

/// Budgets in money for vendors none of whose calls has a price in it.
fn budgets(config: &Config, found: &mut Found) {
    let own = config.own_prices();
    for rule in &config.budgets {
        let Unit::Money(currency) = rule.then.limit.unit else { continue };
        let vendors = named_vendors(&rule.matcher);
        let Some(vendor) = vendors.first() else { continue };
        let (mut same, mut other) = (false, None);
        for priced in own.iter().chain(cost::builtin()) {
            if vendors.iter().any(|vendor| vendor.eq_ignore_ascii_case(&priced.vendor)) {
                same |= priced.currency == currency;
                other = other.or(Some(priced.currency));
            }
        }
        if !same {
            found.say("budget", rule, unpriced(rule, vendor, currency, other));
        }
    }
}

fn unpriced<T>(rule: &Rule<T>, vendor: &str, currency: Currency, other: Option<Currency>) -> String {
    let remedy = match other {
        None => "write what it asks in a [[price]], or a limit in requests".to_owned(),
        Some(other) => {
            format!("its prices are in {other}: write a limit in {other}, or a [[price]] in {currency}")
        }
    };
    format!("{} counts nothing: no call to {vendor} has a price in {currency}; {remedy}", name(rule))
}

/// The vendors that a match gives by their names, if nothing else matches.
fn named_vendors(matcher: &Matcher) -> Vec<&str> {
    let texts = matcher.written().find(|(key, _)| *key == "vendor").map_or(&[][..], |(_, texts)| texts);
    let names: Vec<&str> =
        texts.iter().map(|text| text.trim()).filter(|text| !text.starts_with('!')).collect();
    if names.iter().any(|name| name.contains('*')) { Vec::new() } else { names }
}

fn name<T>(rule: &Rule<T>) -> String {
    format!("the rule `{}` in line {}", rule.name, rule.line)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::units::Timestamp;

    /// 2026-11-22.
    const NOW: Timestamp = Timestamp::from_nanos(1_795_305_600_000_000_000);

    pub(super) fn warnings(text: &str) -> Vec<String> {
        let config = Config::parse("f", text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        config.warnings("f", text, NOW).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_resilience_rule_that_another_precedes_is_told() {
        let rule =
            |conditions: &str, then: &str| format!("[[resilience]]\nmatch = {{ {conditions} }}\n{then}\n");
        let stripe = "vendor = \"stripe\"";
        let twice =
            rule(stripe, "attempts = 2\ndeadline = \"5s\"") + &rule("vendor = \"Stripe\"", "attempts = 5");
        assert_eq!(
            warnings(&twice),
            [
                "f:5:1: warning: `attempts` of the rule `resilience@5` in line 5 never hold: the rule `resilience@1` in \
              line 1 has its own for all of these calls and comes first; join the two, or narrow this match"
            ]
        );
        for fine in [
            rule(stripe, "attempts = 2") + &rule(stripe, "deadline = \"5s\""),
            rule(stripe, "attempts = 2") + &rule("vendor = \"stripe\", method = \"GET\"", "attempts = 5"),
            rule("", "attempts = 2") + &rule(stripe, "attempts = 5"),
            rule(stripe, "attempts = 2") + &rule("vendor = \"openai\"", "attempts = 5"),
        ] {
            assert_eq!(warnings(&fine), [""; 0], "{fine}");
        }
    }

    #[test]
    fn a_rollout_behind_a_kill_switch_is_told() {
        let kill = "[[rollout]]\nname = \"stop\"\nmatch = { vendor = \"openai\" }\nkill = true\n";
        let share = |more: &str| {
            format!(
                "[[rollout]]\nname = \"new\"\nmatch = {{ vendor = \"openai\"{more} }}\nshare = \"5%\"\n\
                 variant = {{ path_prefix = \"/v2\" }}\n"
            )
        };
        for more in ["", ", method = \"GET\""] {
            assert_eq!(
                warnings(&format!("{kill}{}", share(more))),
                [
                    "f:5:1: warning: the rule `new` in line 5 is never reached: the rule `stop` in line 1 refuses all of \
                  its calls first; remove one of them, or narrow the kill switch"
                ]
            );
        }
        let behind = warnings(&format!("{}{kill}", share("")));
        assert!(behind.len() == 1 && behind[0].contains("`new` in line 1 is never reached"), "{behind:?}");
        let twice = warnings(&format!("{kill}{}", kill.replace("stop", "again")));
        assert!(twice.len() == 1 && twice[0].contains("`again` in line 5 is never reached"), "{twice:?}");
        let narrow = kill.replace("vendor = \"openai\"", "vendor = \"openai\", customer = \"acme\"");
        assert_eq!(warnings(&format!("{narrow}{}", share(""))), [""; 0]);
        let variant = share("").replace("name = \"new\"", "name = \"old\"\nkill = true");
        assert_eq!(warnings(&format!("{variant}{}", share(""))), [""; 0], "that one kills its variant only");
    }

    #[test]
    fn a_fault_that_has_ended_is_told() {
        let fault = |expires: &str| {
            format!(
                "allow_faults = true\n[[fault]]\nmatch = {{}}\nshare = 1\nstatus = 503\nexpires = \"{expires}\"\n"
            )
        };
        assert_eq!(
            warnings(&fault("2026-11-21T00:00:00Z")),
            [
                "f:6:11: warning: the rule `fault@2` in line 2 has ended; write a later `expires`, or remove the rule"
            ]
        );
        assert_eq!(warnings(&fault("2026-12-01T00:00:00Z")), [""; 0]);
    }

    #[test]
    fn a_budget_in_money_that_no_price_feeds_is_told() {
        let budget = |conditions: &str, limit: &str| {
            format!("[[budget]]\nmatch = {{ {conditions} }}\nlimit = \"{limit} / month\"\n")
        };
        let begin = "f:1:1: warning: the rule `budget@1` in line 1 counts nothing: ";
        assert_eq!(
            warnings(&budget("vendor = \"slack\", customer = \"*\"", "5 USD")),
            [format!(
                "{begin}no call to slack has a price in USD; write what it asks in a [[price]], or a limit in requests"
            )]
        );
        assert_eq!(
            warnings(&budget("vendor = \"openai\"", "5 EUR")),
            [format!(
                "{begin}no call to openai has a price in EUR; its prices are in USD: write a limit in USD, or a [[price]] in EUR"
            )]
        );
        let price = "[[price]]\nvendor = \"slack\"\ncall = \"0.01 USD / call\"\n";
        for fine in [
            budget("vendor = \"slack\"", "5 requests"),
            budget("vendor = \"slack\"", "5 USD") + price,
            budget("vendor = [\"slack\", \"openai\"]", "5 USD"),
            budget("vendor = \"OpenAI\"", "5 USD"),
            budget("vendor = \"sl*\"", "5 USD"),
            budget("vendor = \"!openai\"", "5 USD"),
            budget("", "5 USD"),
        ] {
            assert_eq!(warnings(&fine), [""; 0], "{fine}");
        }
    }

    #[test]
    fn a_downgrade_to_a_dearer_model_or_to_one_without_a_price_is_told() {
        let budget = |conditions: &str, from: &str, to: &str| {
            format!(
                "[[budget]]\nname = \"b\"\nmatch = {{ {conditions} }}\nlimit = \"5 requests / month\"\nover = \"downgrade\"\n\
                 downgrade = {{ from = \"{from}\", to = \"{to}\" }}\n"
            )
        };
        let openai = "vendor = \"openai\"";
        let begin = "f:1:1: warning: the rule `b` in line 1 goes over";
        for (conditions, from, to, says) in [
            (
                openai,
                "gpt-4o-mini",
                "gpt-4o",
                " from `gpt-4o-mini` to `gpt-4o`, which costs more; name a cheaper model",
            ),
            (
                "",
                "gpt-4.1-nano*",
                "gpt-4o",
                " from `gpt-4.1-nano*` to `gpt-4o`, which costs more; name a cheaper model",
            ),
            (
                openai,
                "gpt-4o-mini*",
                "gpt-4o",
                " from `gpt-4o-mini*` to `gpt-4o`, which does nothing: what begins with `gpt-4o` counts as a version of it; name a cheaper model",
            ),
            (
                "vendor = \"slack\"",
                "our-own-*",
                "our-own",
                " from `our-own-*` to `our-own`, which does nothing: what begins with `our-own` counts as a version of it; name a cheaper model",
            ),
            (
                openai,
                "gpt-4o*",
                "gpt-4o-mni",
                " to the model `gpt-4o-mni`, which has no price; did you mean `gpt-4o-mini`?",
            ),
            (
                openai,
                "gpt-4o",
                "xyzzy",
                " to the model `xyzzy`, which has no price; name a model of the vendor's, or write a [[price]] for it",
            ),
            (
                openai,
                "gpt-4o",
                "claude-haiku-4-5",
                " to the model `claude-haiku-4-5`, which has no price; name a model of the vendor's, or write a [[price]] for it",
            ),
        ] {
            assert_eq!(warnings(&budget(conditions, from, to)), [format!("{begin}{says}")], "{from} {to}");
        }
        let own = |to: &str, input: &str| {
            format!(
                "[[price]]\nvendor = \"openai\"\nmodel = \"{to}\"\ninput = \"{input} / 1M tokens\"\noutput = \"0.1 USD / 1M tokens\"\n"
            )
        };
        for fine in [
            budget(openai, "gpt-4o", "gpt-4o-mini"),
            budget("", "gpt-4o*", "gpt-4o-mini"),
            // Some of what the pattern stands for costs more.
            budget(openai, "gpt-4*", "gpt-4o"),
            budget(openai, "gpt-4o", "gpt-4o-mini-2024-07-18"),
            budget(openai, "gpt-4o", "xyzzy") + &own("xyzzy", "0.1 USD"),
            // Nobody can tell what costs less.
            budget(openai, "gpt-4o-mini", "xyzzy") + &own("xyzzy", "9 USD"),
            budget(openai, "our-own", "our-small"),
            budget("vendor = \"slack\"", "gpt-4o-mini", "gpt-4o"),
        ] {
            assert_eq!(warnings(&fine), [""; 0], "{fine}");
        }
    }

    #[test]
    fn a_file_that_is_wrong_in_places_is_warned_of_in_the_others() {
        let text = "servce = \"x\"\n[[policy]]\nmatch = { method = \"GTE\" }\nverdict = \"deny\"\n";
        let (config, errors) = Config::read("f", text);
        assert_eq!((errors.len(), config.warnings("f", text, NOW).len()), (1, 1));
        assert!(Config::default().warnings("f", "[[policy", NOW).is_empty());
    }

    #[test]
    fn the_examples_of_the_documentation_are_meant() {
        for page in [
            include_str!("../../../docs/matching.md"),
            include_str!("../../../docs/policy.md"),
            include_str!("../../../docs/quota.md"),
            include_str!("../../../docs/budget.md"),
            include_str!("../../../docs/resilience.md"),
            include_str!("../../../docs/cache.md"),
            include_str!("../../../docs/cost.md"),
            include_str!("../../../README.md"),
        ] {
            for example in page.split("```toml").skip(1).filter_map(|rest| rest.split("```").next()) {
                let (config, _) = Config::read("f", example);
                let said = config.warnings("f", example, NOW);
                // Pages declare their data where they explain it.
                let said: Vec<_> = said.iter().filter(|said| !said.message.contains("[[data]]")).collect();
                assert!(said.is_empty(), "{example}: {said:?}");
            }
        }
    }
}
