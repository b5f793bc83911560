//! What a call to a vendor costs: rates, the conditions under which other rates hold, and the arithmetic.

use super::fields::Fields;
use super::rate::nanos;
use super::usage::{Kind, MAX_UNITS, ServiceTier, Usage};
use super::{Ahead, Answer, Cost, Facts, Rate, Unknown};
use crate::units::{Currency, Money, Timestamp};
use std::sync::Arc;

/// Rates that hold together. A kind without one costs what the kind costs that it is a part of: cached input
/// like input, reasoning like output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rates {
    /// For one of each [`Kind`], in their order.
    pub kinds: [Option<Rate>; Kind::ALL.len()],
    /// For one call.
    pub call: Option<Rate>,
    /// For one byte of the request's body.
    pub sent: Option<Rate>,
    /// For one byte of the response's body.
    pub received: Option<Rate>,
}

impl Rates {
    /// The rate of a kind, or of the kind that it is a part of.
    #[must_use]
    pub fn of(&self, kind: Kind) -> Option<Rate> {
        let mut at = Some(kind);
        while let Some(kind) = at {
            if self.kinds[kind as usize].is_some() {
                return self.kinds[kind as usize];
            }
            at = kind.stands_for();
        }
        None
    }

    /// These rates, and where there is none the other's.
    fn or(&self, other: &Self) -> Self {
        let mut kinds = self.kinds;
        for (own, base) in kinds.iter_mut().zip(&other.kinds) {
            *own = own.or(*base);
        }
        Self {
            kinds,
            call: self.call.or(other.call),
            sent: self.sent.or(other.sent),
            received: self.received.or(other.received),
        }
    }
}

/// Other rates under a condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tier {
    /// Only calls that this service tier served.
    pub service_tier: Option<ServiceTier>,
    /// Only calls with more tokens in the prompt; all of the call's tokens cost the tier's rates.
    pub above_prompt: u64,
    /// Only calls before which the month's volume was larger.
    pub above_volume: u64,
    /// Only from one minute of the day to before another, UTC.
    pub minutes: Option<(u16, u16)>,
    /// Only on these days of the week: bit 0 is Monday, UTC. Zero is all.
    pub days: u8,
    /// What differs.
    pub rates: Rates,
}

/// The names of volumes begin so, where they stand beside those of budgets.
pub const VOLUME: &str = "volume: ";

/// What the month's volume is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum VolumeUnit {
    /// Calls.
    #[default]
    Calls,
    /// Tokens of prompt and answer.
    Tokens,
    /// Bytes of both bodies.
    Bytes,
}

/// Where a number of the price's own is found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A header of the response, in lower case.
    Header(String),
    /// A number in the response's JSON: keys joined by dots.
    Field(String),
}

/// A price, as the catalogue or `[[price]]` states it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Price {
    /// The vendor's name.
    pub vendor: String,
    /// Models that it holds for; a `*` at the end stands for anything. None: all that have no own price.
    pub models: Vec<String>,
    /// Endpoints that it holds for, as the catalogue writes them; a `*` at the end stands for anything.
    pub endpoints: Vec<String>,
    /// When the vendor asked this: `2026-11-09`.
    pub as_of: Option<String>,
    /// The currency of all rates.
    pub currency: Currency,
    /// What holds under no condition.
    pub rates: Rates,
    /// What holds under conditions.
    pub tiers: Vec<Tier>,
    /// The price of the vendor's own units. At most [`MAX_UNITS`].
    pub units: Vec<(Source, Rate)>,
    /// Whether the vendor charges for calls that it answers with an error.
    pub charges_errors: bool,
    /// The tokens that an answer is expected to have where the request sets no limit.
    pub typical_output: u64,
    /// What the month's volume is counted in.
    pub volume: VolumeUnit,
    fields: Arc<Fields>,
}

impl Price {
    /// A price of nothing yet, in a currency.
    #[must_use]
    pub fn new(vendor: &str, currency: Currency) -> Self {
        Self {
            vendor: vendor.to_owned(),
            models: Vec::new(),
            endpoints: Vec::new(),
            as_of: None,
            currency,
            rates: Rates::default(),
            tiers: Vec::new(),
            units: Vec::new(),
            charges_errors: false,
            typical_output: 1_000,
            volume: VolumeUnit::Calls,
            fields: Arc::clone(Fields::response()),
        }
    }

    /// Makes tiers complete and units findable; to be called once, after the last change.
    #[must_use]
    pub fn compiled(mut self) -> Self {
        for tier in &mut self.tiers {
            tier.rates = tier.rates.or(&self.rates);
        }
        self.units.truncate(MAX_UNITS);
        let paths = (0u8..).zip(&self.units).filter_map(|(number, (source, _))| match source {
            Source::Field(path) => Some((number, path.as_str())),
            Source::Header(_) => None,
        });
        if paths.clone().next().is_some() {
            self.fields = Fields::with_units(paths);
        }
        self
    }

    /// About what a call will cost, to reserve: a token for every four bytes of the request, and the most that
    /// the answer may have.
    #[must_use]
    pub fn estimate(&self, ahead: &Ahead) -> Money {
        let (prompt, output) = ahead.tokens(self.typical_output);
        let mut usage = Usage::unknown(Unknown::NotStated);
        usage.tier = ahead.tier;
        let usage = usage.with(Kind::Input, prompt).with(Kind::Output, output);
        let rates = self.rates_for(&usage, ahead.at, ahead.volume).unwrap_or(&self.rates);
        let kinds = [(Kind::Input, prompt), (Kind::Output, output)];
        let tokens: u128 =
            kinds.iter().filter_map(|(kind, count)| Some(rates.of(*kind)?.times(*count))).sum();
        let call = rates.call.map_or(0, |rate| rate.times(1));
        let sent = rates.sent.map_or(0, |rate| rate.times(ahead.bytes));
        Money::from_nanos(nanos(tokens + call + sent), self.currency)
    }

    /// What each call costs, where that is all there is to it: one rate for calls, no tokens, bytes, tiers or
    /// units, and nothing for errors.
    #[must_use]
    pub fn each(&self) -> Option<Money> {
        let call = self.rates.call?;
        let only = Rates { call: Some(call), ..Rates::default() };
        let alone =
            self.rates == only && self.tiers.is_empty() && self.units.is_empty() && !self.charges_errors;
        alone.then(|| Money::from_nanos(nanos(call.times(1)), self.currency))
    }

    /// What a call cost.
    #[must_use]
    pub fn settle(&self, facts: &Facts<'_>) -> Cost {
        let nothing = Cost::known(Money::zero(self.currency));
        let failed = match facts.answer {
            Answer::NotSent => return nothing,
            Answer::None => return Cost::unknown(Unknown::NoAnswer, self.currency),
            Answer::Status(status) => status >= 400,
        };
        // An error that states what it used (a stream that broke off) is charged for that.
        if failed && !self.charges_errors && facts.usage.tokens().is_none() {
            return nothing;
        }
        let Some(rates) = self.rates_for(facts.usage, facts.at, facts.volume) else {
            return Cost::unknown(Unknown::UnpricedTier, self.currency);
        };
        let mut sum = 0u128;
        let mut unknown = None;
        self.add_kinds(rates, facts.usage, failed, &mut sum, &mut unknown);
        for (number, (_, rate)) in self.units.iter().enumerate() {
            match facts.usage.unit(number) {
                Some(count) => sum = sum.saturating_add(rate.times_billionths(count)),
                None if failed => {}
                None => unknown = unknown.or(facts.usage.unknown).or(Some(Unknown::NotStated)),
            }
        }
        sum = sum.saturating_add(rates.call.map_or(0, |rate| rate.times(1)));
        sum = sum.saturating_add(rates.sent.map_or(0, |rate| rate.times(facts.sent)));
        sum = sum.saturating_add(rates.received.map_or(0, |rate| rate.times(facts.received)));
        Cost { nanos: nanos(sum), currency: self.currency, unknown }
    }

    fn add_kinds(
        &self,
        rates: &Rates,
        usage: &Usage,
        failed: bool,
        sum: &mut u128,
        unknown: &mut Option<Unknown>,
    ) {
        let (prompt, answer) = (rates.of(Kind::Input).is_some(), rates.of(Kind::Output).is_some());
        for kind in Kind::ALL {
            match (usage.get(kind), rates.of(kind)) {
                (Some(count), Some(rate)) => *sum = sum.saturating_add(rate.times(count)),
                // Something that costs, and nobody said what. Without any price for tokens it is no matter.
                (Some(1..), None) if prompt || answer => *unknown = unknown.or(Some(Unknown::UnpricedKind)),
                _ => {}
            }
        }
        if failed && usage.tokens().is_none() {
            return;
        }
        let missing = (prompt && usage.get(Kind::Input).is_none())
            || (answer && usage.get(Kind::Output).is_none() && !self.answers_nothing(usage));
        if missing {
            *unknown = usage.unknown.or(*unknown).or(Some(Unknown::NotStated));
        } else if prompt || answer {
            *unknown = usage.unknown.or(*unknown);
        }
    }

    /// Whether the vendor stated a prompt and rightly no answer: an embedding, at a price for all models.
    fn answers_nothing(&self, usage: &Usage) -> bool {
        usage.unknown.is_none() && usage.get(Kind::Input).is_some() && self.models.is_empty()
    }

    /// The rates of the narrowest tier whose conditions hold; `None` where the call was served in a tier that
    /// has no price here.
    fn rates_for(&self, usage: &Usage, at: Timestamp, volume: u64) -> Option<&Rates> {
        if self.tiers.is_empty() {
            return (usage.tier == ServiceTier::Standard).then_some(&self.rates);
        }
        let prompt = usage.prompt_tokens().unwrap_or(0);
        let holds = |tier: &&Tier| {
            tier.service_tier.unwrap_or_default() == usage.tier
                && (tier.above_prompt == 0 || prompt > tier.above_prompt)
                && (tier.above_volume == 0 || volume > tier.above_volume)
                && tier.minutes.is_none_or(|minutes| within(minutes, at))
                && (tier.days == 0 || tier.days & (1 << weekday(at)) != 0)
        };
        let narrowness = |tier: &&Tier| (tier.above_prompt, tier.above_volume, tier.minutes.is_some());
        let found = self.tiers.iter().filter(holds).max_by_key(narrowness);
        match found {
            Some(tier) => Some(&tier.rates),
            None => (usage.tier == ServiceTier::Standard).then_some(&self.rates),
        }
    }

    /// How much a call adds to the month's volume.
    #[must_use]
    pub fn volume_of(&self, facts: &Facts<'_>) -> u64 {
        match self.volume {
            VolumeUnit::Calls => 1,
            VolumeUnit::Tokens => facts.usage.tokens().unwrap_or(0),
            VolumeUnit::Bytes => facts.sent.saturating_add(facts.received),
        }
    }

    /// Whether a tier asks for the month's volume, so that the engine must keep one.
    #[must_use]
    pub fn asks_volume(&self) -> bool {
        self.tiers.iter().any(|tier| tier.above_volume > 0)
    }

    /// What the month's volume is known by between processes: what the price holds for, whatever it asks.
    pub(super) fn volume_name(&self) -> String {
        let of = |list: &[String]| if list.is_empty() { "*".to_owned() } else { list.join(",") };
        let unit = match self.volume {
            VolumeUnit::Calls => "calls",
            VolumeUnit::Tokens => "tokens",
            VolumeUnit::Bytes => "bytes",
        };
        format!("{VOLUME}{} {} {} {unit}", self.vendor, of(&self.models), of(&self.endpoints))
    }

    /// Whether the response's body must be read to know the cost.
    #[must_use]
    pub fn asks_body(&self) -> bool {
        let rates = std::iter::once(&self.rates).chain(self.tiers.iter().map(|tier| &tier.rates));
        rates.flat_map(|rates| rates.kinds).any(|rate| rate.is_some())
            || self.units.iter().any(|(source, _)| matches!(source, Source::Field(_)))
    }

    /// Whether the response must be looked at, its body or a header of it: whether to make a
    /// [`UsageReader`](super::UsageReader).
    #[must_use]
    pub fn asks_response(&self) -> bool {
        self.asks_body() || self.headers().next().is_some()
    }

    /// The headers of the response in which numbers of the price's own stand, in lower case.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.units.iter().filter_map(|(source, _)| match source {
            Source::Header(name) => Some(name.as_str()),
            Source::Field(_) => None,
        })
    }

    pub(super) fn unit_of_header(&self, name: &str) -> Option<u8> {
        let is =
            |source: &Source| matches!(source, Source::Header(known) if known.eq_ignore_ascii_case(name));
        let number = self.units.iter().position(|(source, _)| is(source))?;
        u8::try_from(number).ok()
    }

    pub(super) fn fields(&self) -> &Arc<Fields> {
        &self.fields
    }
}

/// The minute of the day, UTC.
fn within((from, to): (u16, u16), at: Timestamp) -> bool {
    let minute = at.minute() % 1_440;
    let (from, to) = (u64::from(from), u64::from(to));
    if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to }
}

/// The day of the week, Monday first: the epoch was a Thursday.
fn weekday(at: Timestamp) -> u64 {
    (at.as_secs() / 86_400 + 3) % 7
}
