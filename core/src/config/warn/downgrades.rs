//! Budgets that would have calls ask a model that costs more, one that no vendor is known to have, or none.

use super::conditions::hint;
use super::{Found, name, named_vendors};
use crate::budget::{self, Downgrade};
use crate::config::Config;
use crate::cost::{Kind, Price, Prices};
use std::collections::BTreeSet;

pub(super) fn downgrades(config: &Config, found: &mut Found) {
    if config.budgets.iter().all(|rule| rule.then.downgrades.is_empty()) {
        return;
    }
    let prices = Prices::new(config.own_prices());
    for rule in &config.budgets {
        let named = named_vendors(&rule.matcher);
        let of = |price: &&Price| {
            named.is_empty() || named.iter().any(|vendor| vendor.eq_ignore_ascii_case(&price.vendor))
        };
        let asked: Vec<&Price> = prices.iter().filter(of).collect();
        for downgrade in &rule.then.downgrades {
            if let Some(objection) = idle(downgrade) {
                found.say("budget", rule, format!("{} {objection}", name(rule)));
            } else if let Some(objection) = objection(&prices, &asked, &rule.then, downgrade) {
                found.say("budget", rule, format!("{} {objection}", name(rule)));
            }
        }
    }
}

/// What is asked for and begins like the cheaper model is taken for a version of it, and stays
/// ([`budget::Rule::cheaper`]).
fn idle(Downgrade { from, to }: &Downgrade) -> Option<String> {
    let start = from.strip_suffix('*')?;
    start.starts_with(to).then(|| {
        format!(
            "goes over from `{from}` to `{to}`, which does nothing: what begins with `{to}` counts as a version of it; \
             name a cheaper model"
        )
    })
}

/// What speaks against a downgrade by the prices of the vendors that it is for. Nothing where they know none of the
/// models that it leads from, or leave it open.
fn objection(
    prices: &Prices,
    asked: &[&Price],
    rule: &budget::Rule,
    Downgrade { from, to }: &Downgrade,
) -> Option<String> {
    let vendors: BTreeSet<&str> = asked.iter().map(|price| price.vendor.as_str()).collect();
    // What a pattern stands for are the models that prices name.
    let names: BTreeSet<&str> = match from.strip_suffix('*') {
        Some(_) => models(asked).map(|model| model.strip_suffix('*').unwrap_or(model)).collect(),
        None => [from.as_str()].into(),
    };
    let by_model =
        |vendor: &str, model: &str| prices.find(vendor, "", model).filter(|price| !price.models.is_empty());
    let pairs = vendors.iter().flat_map(|vendor| names.iter().map(move |model| (*vendor, *model)));
    let leads = pairs.filter(|(_, model)| rule.cheaper(model) == Some(to.as_str()));
    let leads: Vec<_> =
        leads.filter_map(|(vendor, model)| Some((vendor, by_model(vendor, model)?))).collect();
    if leads.is_empty() {
        return None;
    }
    let priced = |price: &&Price| {
        let is_it = |model: &String| match model.strip_suffix('*') {
            Some(start) => to.starts_with(start),
            None => model == to,
        };
        // A price for all models is one for this, too.
        leads.iter().any(|(vendor, _)| price.vendor == *vendor)
            && (price.models.is_empty() || price.models.iter().any(is_it))
    };
    if !asked.iter().any(priced) {
        let known = models(asked).filter(|model| !model.ends_with('*'));
        let hint = hint(to, known.collect::<Vec<_>>().into_iter()).flatten();
        let hint = hint.unwrap_or_else(|| "name a model of the vendor's, or write a [[price]] for it".into());
        return Some(format!("goes over to the model `{to}`, which has no price; {hint}"));
    }
    let costs_more = |(vendor, from): &(&str, &Price)| {
        by_model(vendor, to).is_some_and(|to| to.currency == from.currency && is_dearer(to, from))
    };
    leads
        .iter()
        .all(costs_more)
        .then(|| format!("goes over from `{from}` to `{to}`, which costs more; name a cheaper model"))
}

/// Whether prompt or answer cost more by one price than by the other, and neither less.
fn is_dearer(price: &Price, other: &Price) -> bool {
    let rates = |price: &Price| [Kind::Input, Kind::Output].map(|kind| price.rates.of(kind));
    let (these, others) = (rates(price), rates(other));
    let known = these.iter().chain(&others).all(Option::is_some);
    known && these != others && these.iter().zip(&others).all(|(this, other)| this >= other)
}

/// The models that prices name.
fn models<'p>(prices: &'p [&Price]) -> impl Iterator<Item = &'p str> {
    prices.iter().flat_map(|price| &price.models).map(String::as_str)
}
