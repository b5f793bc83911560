//! All prices, and the one that holds for a call.

use super::{Ahead, Answer, Cost, Facts, Price, Unknown, Volume};
use crate::ledger::Used;
use crate::matcher::unnamed;
use crate::units::{Currency, Money};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::{Arc, LazyLock};

include!(concat!(env!("OUT_DIR"), "/builtin_prices.rs"));

/// Prices by vendor, endpoint and model.
///
/// A price that names the model comes before one for all models. Of these, own ones come before built-in ones.
/// Of either, a model's exact name comes before a pattern, and a longer pattern before a shorter one; a price
/// for an endpoint before one for all; a later line of the file before an earlier one.
#[derive(Debug)]
pub struct Prices {
    own: Layer,
    builtin: Layer,
}

#[derive(Debug, Default)]
struct Layer {
    prices: Vec<Price>,
    /// Of each price, what was used this month.
    volumes: Vec<Arc<Volume>>,
    /// The prices that fall with it, and what others know them by.
    falling: Vec<(Arc<str>, usize)>,
    vendors: HashMap<Box<str>, Vendor, FixedState>,
}

type Found<'a> = (&'a Price, &'a Arc<Volume>);

/// Numbers of prices of one vendor.
#[derive(Debug, Default)]
struct Vendor {
    exact: HashMap<Box<str>, Vec<usize>, FixedState>,
    /// Sorted by what precedes the `*`.
    patterns: Vec<ModelPattern>,
    /// For all models.
    any: Vec<usize>,
}

#[derive(Debug)]
struct ModelPattern {
    start: Box<str>,
    /// The longest other pattern that everything matches that matches this one.
    wider: Option<usize>,
    prices: Vec<usize>,
}

impl Default for Prices {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

static BUILTIN: LazyLock<Vec<Price>> = LazyLock::new(|| {
    BUILTIN_PRICES
        .iter()
        .flat_map(|(file, text)| {
            let (prices, errors) = crate::config::read_prices(file, text);
            debug_assert!(errors.is_empty(), "{errors:?}");
            prices
        })
        .collect()
});

/// The built-in prices.
pub(crate) fn builtin() -> &'static [Price] {
    &BUILTIN
}

impl Prices {
    /// The built-in prices, with `own` ones before them.
    #[must_use]
    pub fn new(own: Vec<Price>) -> Self {
        Self { own: Layer::new(own), builtin: Layer::new(BUILTIN.clone()) }
    }

    /// The price of a call; `model` is empty where none is known.
    #[must_use]
    pub fn find(&self, vendor: &str, endpoint: &str, model: &str) -> Option<&Price> {
        self.look_up(vendor, endpoint, model).map(|(price, _)| price)
    }

    fn look_up(&self, vendor: &str, endpoint: &str, model: &str) -> Option<Found<'_>> {
        let model = model.strip_prefix("models/").unwrap_or(model);
        let layers = [&self.own, &self.builtin];
        let named = layers.iter().filter(|_| !model.is_empty());
        named
            .filter_map(|layer| layer.by_model(vendor, endpoint, model))
            .chain(layers.iter().filter_map(|layer| layer.for_all(vendor, endpoint)))
            .next()
    }

    /// About what a call will cost, to reserve; `None` where it has no price.
    #[must_use]
    pub fn estimate(&self, vendor: &str, endpoint: &str, model: &str, ahead: &Ahead) -> Option<Money> {
        let (price, volume) = self.look_up(vendor, endpoint, model)?;
        let volume = if price.asks_volume() { volume.so_far(ahead.at) } else { 0 };
        Some(price.estimate(&ahead.volume(volume)))
    }

    /// What a call cost, counted to the month's volume; once for each call. `None` where it costs nothing that
    /// anybody asks money for: it has no price, named no model and used no tokens, such as a list of models.
    /// `model` is the one that the request names, or its path; the one that the response names comes first. Where
    /// nobody saw the request, and the response could not be read to its end, it may have named one.
    #[must_use]
    pub fn settle(&self, vendor: &str, endpoint: &str, model: &str, facts: &Facts<'_>) -> Option<Cost> {
        let stated = facts.usage.model.as_str();
        let other = !stated.is_empty() && stated != model;
        let by_stated = other.then(|| self.look_up(vendor, endpoint, stated)).flatten();
        let named = |found: &Found<'_>| !found.0.models.is_empty();
        let found = by_stated.filter(named).or_else(|| self.look_up(vendor, endpoint, model)).or(by_stated);
        match found {
            Some((price, volume)) if price.asks_volume() && facts.answer != Answer::NotSent => {
                let before = volume.add(price.volume_of(facts), facts.at);
                Some(price.settle(&facts.volume(before)))
            }
            Some((price, _)) => Some(price.settle(facts)),
            None if facts.answer == Answer::NotSent => None,
            None if facts.usage.tokens().is_none() && model.is_empty() => {
                match (facts.answer, facts.usage.unknown) {
                    // Nobody charges for a question that names no model in its path.
                    _ if endpoint.starts_with("GET ") => None,
                    (Answer::None, _) => Some(Cost::unknown(Unknown::NoAnswer, Currency::USD)),
                    (
                        Answer::Status(..400),
                        Some(why @ (Unknown::Encoded | Unknown::Abandoned | Unknown::Malformed)),
                    ) => Some(Cost::unknown(why, Currency::USD)),
                    _ => None,
                }
            }
            // Without a price nobody says that errors are charged for.
            None if matches!(facts.answer, Answer::Status(400..)) && facts.usage.tokens().is_none() => None,
            None => Some(Cost::unknown(Unknown::NoPrice, Currency::USD)),
        }
    }

    /// Whether any price falls with the month's volume.
    #[must_use]
    pub fn ask_volume(&self) -> bool {
        self.falling().next().is_some()
    }

    /// Goes on with what was used of these prices, where other ones hold from now on: a month that has begun is not
    /// begun anew.
    pub(crate) fn keep_volumes(&mut self, of: &Self) {
        for layer in [&mut self.own, &mut self.builtin] {
            for (name, number) in &layer.falling {
                if let Some((_, volume)) = of.falling().find(|(known, _)| *known == name) {
                    layer.volumes[*number] = Arc::clone(volume);
                }
            }
        }
    }

    /// What was used of each price that falls with the month's volume, since this was asked last.
    pub(crate) fn used(&self) -> impl Iterator<Item = Used> {
        self.falling().filter_map(|(name, volume)| {
            volume.untold().map(|(month, amount)| Used { price: Arc::clone(name), month, amount })
        })
    }

    /// The prices that fall with the month's volume: what others know them by, and what was used of them.
    pub(crate) fn falling(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Volume>)> {
        let layers = [&self.own, &self.builtin].into_iter();
        layers.flat_map(|layer| layer.falling.iter().map(|(name, number)| (name, &layer.volumes[*number])))
    }

    /// Whether anything of this vendor has a price: if not, its calls need not be looked at.
    #[must_use]
    pub fn has(&self, vendor: &str) -> bool {
        self.own.vendors.contains_key(vendor) || self.builtin.vendors.contains_key(vendor)
    }

    /// The prices of one vendor, own ones first.
    pub fn of(&self, vendor: &str) -> impl Iterator<Item = &Price> {
        self.iter().filter(move |price| price.vendor == vendor)
    }

    /// All prices, own ones first.
    pub fn iter(&self) -> impl Iterator<Item = &Price> {
        self.own.prices.iter().chain(&self.builtin.prices)
    }
}

impl Layer {
    fn new(prices: Vec<Price>) -> Self {
        let mut layer = Self::default();
        for (number, price) in prices.iter().enumerate() {
            let vendor = layer.vendors.entry(price.vendor.as_str().into()).or_default();
            for model in &price.models {
                match model.strip_suffix('*') {
                    Some(start) => match vendor.patterns.iter_mut().find(|known| *known.start == *start) {
                        Some(known) => known.prices.push(number),
                        None => vendor.patterns.push(ModelPattern {
                            start: start.into(),
                            wider: None,
                            prices: vec![number],
                        }),
                    },
                    None => vendor.exact.entry(model.as_str().into()).or_default().push(number),
                }
            }
            if price.models.is_empty() {
                vendor.any.push(number);
            }
        }
        for vendor in layer.vendors.values_mut() {
            vendor.sort(&prices);
        }
        layer.volumes = prices.iter().map(|_| Arc::default()).collect();
        let falling = prices.iter().enumerate().filter(|(_, price)| price.asks_volume());
        layer.falling = falling.map(|(number, price)| (price.volume_name().into(), number)).collect();
        layer.prices = prices;
        layer
    }

    /// The price that names the model.
    fn by_model(&self, vendor: &str, endpoint: &str, model: &str) -> Option<Found<'_>> {
        let vendor = self.vendors.get(vendor)?;
        if let Some(price) = vendor.exact.get(model).and_then(|numbers| self.first(numbers, endpoint)) {
            return Some(price);
        }
        let mut at = vendor.patterns.partition_point(|known| *known.start <= *model).checked_sub(1);
        while let Some(place) = at {
            let known = &vendor.patterns[place];
            if model.starts_with(known.start.as_ref())
                && let Some(price) = self.first(&known.prices, endpoint)
            {
                return Some(price);
            }
            at = known.wider;
        }
        None
    }

    /// The price for all models.
    fn for_all(&self, vendor: &str, endpoint: &str) -> Option<Found<'_>> {
        self.first(&self.vendors.get(vendor)?.any, endpoint)
    }

    fn first(&self, numbers: &[usize], endpoint: &str) -> Option<Found<'_>> {
        let mut prices = numbers.iter().map(|number| (&self.prices[*number], &self.volumes[*number]));
        prices.find(|(price, _)| {
            price.endpoints.is_empty() || price.endpoints.iter().any(|known| is_for(known, endpoint))
        })
    }
}

impl Vendor {
    fn sort(&mut self, prices: &[Price]) {
        self.patterns.sort_by(|a, b| a.start.cmp(&b.start));
        for place in 0..self.patterns.len() {
            let start = &self.patterns[place].start;
            self.patterns[place].wider =
                (0..place).rev().find(|other| start.starts_with(&*self.patterns[*other].start));
        }
        let lists = self.exact.values_mut();
        let lists = lists.chain(self.patterns.iter_mut().map(|known| &mut known.prices));
        for list in lists.chain(std::iter::once(&mut self.any)) {
            // The narrowest endpoint first, then the latest line.
            let width = |number: &usize| prices[*number].endpoints.iter().map(String::len).max().unwrap_or(0);
            list.sort_by_key(|number| (std::cmp::Reverse(width(number)), std::cmp::Reverse(*number)));
        }
    }
}

/// Whether what a price writes for an endpoint stands for this one.
pub(crate) fn is_for(known: &str, endpoint: &str) -> bool {
    let start = known.strip_suffix('*');
    if known.contains('{') {
        // As in matches, a placeholder is one whatever it is called.
        let (mut wanted, mut letters) = (unnamed(start.unwrap_or(known)), unnamed(endpoint));
        return wanted.all(|letter| letters.next() == Some(letter))
            && (start.is_some() || letters.next().is_none());
    }
    match start {
        Some(start) => endpoint.starts_with(start),
        None => known == endpoint,
    }
}
