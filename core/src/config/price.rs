//! `[[price]]`: what a vendor asks. The catalogue's own prices have the same form.

use super::matcher::VendorNames;
use super::section::Section;
use crate::cost::{
    Kind, MAX_UNITS, Per, Price, Rate, Rates, ServiceTier, Source, Tier, VolumeUnit, count_of,
};
use crate::units::Currency;
use std::cell::Cell;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Reads one price of the vendor that it names, or in whose `[[vendor]]` it stands. `None` where it names no vendor or
/// nothing that costs, which was reported.
pub(super) fn read(section: &mut Section<'_, '_>, vendor: Result<&VendorNames<'_>, &str>) -> Option<Price> {
    let name = match vendor {
        Err(name) => Some(name.to_owned()),
        Ok(names) => named(section, names),
    };
    if name.is_none() && !section.has("vendor") {
        section.missing("vendor", "a price is one vendor's; write its name as in the catalogue");
    }
    let mut price = Price::new(&name.unwrap_or_default(), Currency::USD);
    let currency = Cell::new(None);
    price.models = section.list("models", pattern);
    price.models.extend(section.checked_string("model", pattern));
    price.endpoints = section.list("endpoints", endpoint);
    price.endpoints.extend(section.checked_string("endpoint", endpoint));
    price.as_of = section.checked_string("as_of", |text| {
        is_date(text).then(|| text.to_owned()).ok_or("a date; write it like \"2026-11-01\"".into())
    });
    price.rates = rates(section, &currency);
    price.charges_errors = section.boolean("charges_errors").unwrap_or(false);
    price.typical_output =
        section.number("typical_output", 0..=10_000_000).map_or(price.typical_output, |number| number as u64);
    let volumes =
        [("calls", VolumeUnit::Calls), ("tokens", VolumeUnit::Tokens), ("bytes", VolumeUnit::Bytes)];
    price.volume = section.choice("volume", &volumes).unwrap_or_default();
    for section in section.tables("tier") {
        price.tiers.extend(tier(section, &currency));
    }
    for section in section.tables("unit") {
        price.units.extend(unit(section, &currency));
    }
    if price.units.len() > MAX_UNITS {
        section.wrong(format!("a price has at most {MAX_UNITS} [[price.unit]]"));
    }
    let costs = currency.get().is_some();
    let rates = Kind::ALL.iter().map(|kind| kind.as_str()).chain(["call", "sent", "received"]);
    // Of a rate that is there and wrong, that is said.
    let tried = rates.into_iter().any(|key| section.has(key));
    if !costs && !tried {
        section.wrong("this price asks nothing; write `input`, `output`, `call` or another of its keys");
    }
    price.currency = currency.get().unwrap_or(Currency::USD);
    (costs && !price.vendor.is_empty()).then(|| price.compiled())
}

/// The vendor as the engine writes it; prices are found by that.
fn named(section: &mut Section<'_, '_>, names: &VendorNames<'_>) -> Option<String> {
    let name = section.string("vendor")?;
    let objection = names.objection(&name);
    if let (Some(objection), Some(value)) = (&objection, section.value("vendor")) {
        section.wrong_at(value.span().start, objection.clone());
    }
    objection.is_none().then(|| name.to_lowercase())
}

fn rates(section: &mut Section<'_, '_>, currency: &Cell<Option<Currency>>) -> Rates {
    let mut rates = Rates::default();
    for kind in Kind::ALL {
        let per = if kind == Kind::Search { Per::Search } else { Per::Token };
        rates.kinds[kind as usize] = rate(section, kind.as_str(), per, currency);
    }
    rates.call = rate(section, "call", Per::Call, currency);
    rates.sent = rate(section, "sent", Per::Byte, currency);
    rates.received = rate(section, "received", Per::Byte, currency);
    rates
}

fn rate(
    section: &mut Section<'_, '_>,
    key: &'static str,
    per: Per,
    currency: &Cell<Option<Currency>>,
) -> Option<Rate> {
    section.checked_string(key, |text| {
        let (rate, of) = Rate::parse(text, per).map_err(|error| error.to_string())?;
        match currency.replace(Some(of)) {
            Some(known) if known != of => {
                currency.set(Some(known));
                Err(format!("in {known}, like the rest of this price; write one price for each currency"))
            }
            _ => Ok(rate),
        }
    })
}

fn tier(section: &mut Section<'_, '_>, currency: &Cell<Option<Currency>>) -> Option<Tier> {
    let mut tier = Tier {
        service_tier: section.choice("service_tier", &ServiceTier::WORDS),
        above_prompt: count(section, "above_prompt"),
        above_volume: count(section, "above_volume"),
        minutes: section.checked_string("hours", |text| {
            hours(text).ok_or("a part of the day; write it like \"01:00-04:00\", in UTC".into())
        }),
        rates: rates(section, currency),
        ..Tier::default()
    };
    let days = section.list("days", |text| {
        let day = DAYS.iter().position(|day| *day == text);
        day.ok_or_else(|| format!("a day; write one of {}", DAYS.join(", ")))
    });
    tier.days = days.iter().fold(0, |days, day| days | 1 << day);
    let conditional = tier.service_tier.is_some()
        || tier.above_prompt > 0
        || tier.above_volume > 0
        || tier.minutes.is_some()
        || tier.days != 0;
    if !conditional {
        section.wrong(
            "this tier holds always; write `service_tier`, `above_prompt`, `above_volume`, `hours` or `days`",
        );
    }
    conditional.then_some(tier)
}

fn unit(section: &mut Section<'_, '_>, currency: &Cell<Option<Currency>>) -> Option<(Source, Rate)> {
    let header = section.checked_string("header", |text| {
        let name = http::HeaderName::from_bytes(text.as_bytes());
        name.map(|name| name.as_str().to_owned()).map_err(|_| "the name of a header".into())
    });
    let field = section.checked_string("field", |text| {
        let good =
            !text.is_empty() && text.split('.').count() <= 8 && text.split('.').all(|key| !key.is_empty());
        good.then(|| text.to_owned())
            .ok_or("keys joined by dots, at most eight, such as \"usage.credits\"".into())
    });
    let rate = rate(section, "price", Per::Unit, currency);
    if !section.has("price") {
        section.missing("price", "write what one costs, such as \"0.001 USD / unit\"");
    }
    let source = match (header, field) {
        (Some(header), None) => Some(Source::Header(header)),
        (None, Some(field)) => Some(Source::Field(field)),
        (None, None) if section.has("header") || section.has("field") => None,
        _ => {
            section
                .wrong("a unit is counted in a `header` or in a `field` of the response; write one of them");
            None
        }
    };
    Some((source?, rate?))
}

/// A whole number, or one such as `"200k"`.
fn count(section: &mut Section<'_, '_>, key: &'static str) -> u64 {
    section
        .checked_string(key, |text| {
            count_of(text).ok_or("a number above zero; write it like \"200k\" or \"272_000\"".into())
        })
        .unwrap_or(0)
}

fn pattern(text: &str) -> Result<String, String> {
    match text.strip_suffix('*').unwrap_or(text) {
        start if start.contains('*') => Err("a name; a `*` can only stand at its end".into()),
        _ if text.is_empty() => Err("a name; it is empty".into()),
        _ => Ok(text.to_owned()),
    }
}

/// An endpoint as the catalogue writes it (`* /api/{method}`, `GET /v1/{rest*}`), or the start of one.
fn endpoint(text: &str) -> Result<String, String> {
    pattern(&text.strip_prefix("* ").unwrap_or(text).replace("*}", "}"))?;
    Ok(text.to_owned())
}

fn is_date(text: &str) -> bool {
    let mut parts = text.split('-').map(|part| (part.len(), part.parse::<u32>().ok()));
    matches!(
        (parts.next(), parts.next(), parts.next(), parts.next()),
        (Some((4, Some(2000..=2999))), Some((2, Some(1..=12))), Some((2, Some(1..=31))), None)
    )
}

/// `"01:00-04:00"` as minutes of the day.
fn hours(text: &str) -> Option<(u16, u16)> {
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (minute < 60 && hour * 60 + minute <= 1_440).then_some(hour * 60 + minute)
    };
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minute(from)?, minute(to)?);
    (from != to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn errors(text: &str) -> Vec<String> {
        Config::parse("f", text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_price_may_use_every_key() {
        let config = Config::parse(
            "f",
            r#"
            [[vendor]]
            name = "maps"
            hosts = ["maps.example.com"]
            [[vendor.price]]
            endpoint = "GET /v1/route/*"
            call = "5 USD / 1k calls"
            volume = "calls"
            [[vendor.price.tier]]
            above_volume = "100k"
            call = "4 USD / 1k calls"

            [[price]]
            vendor = "openai"
            models = ["gpt-x", "gpt-x-2026-*"]
            as_of = "2026-11-01"
            input = "2.50 EUR / 1M tokens"
            cached_input = "0.25 EUR / 1M tokens"
            output = "10 EUR / 1M tokens"
            sent = "0.01 EUR / GB"
            charges_errors = true
            typical_output = 300
            [[price.tier]]
            service_tier = "flex"
            above_prompt = "272k"
            hours = "22:00-06:30"
            days = ["sat", "sun"]
            input = "1 EUR / 1M tokens"
            [[price.unit]]
            header = "X-Credits"
            price = "0.001 EUR / unit"
            [[price.unit]]
            field = "usage.searches"
            price = "0.01 EUR / unit"
            "#,
        )
        .unwrap();
        assert_eq!(config.vendors[0].prices[0].vendor, "maps");
        assert_eq!(config.vendors[0].prices[0].tiers[0].above_volume, 100_000);
        let price = &config.prices[0];
        assert_eq!(price.currency.to_string(), "EUR");
        assert_eq!(price.tiers[0].minutes, Some((1_320, 390)));
        assert_eq!(price.tiers[0].days, 0b110_0000);
        assert_eq!(price.tiers[0].above_prompt, 272_000);
        assert_eq!(price.headers().collect::<Vec<_>>(), ["x-credits"]);
        assert_eq!(price.typical_output, 300);
    }

    #[test]
    fn the_example_of_the_documentation_is_right() {
        let text = include_str!("../../../docs/cost.md");
        let example = text.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let config = Config::parse("docs/cost.md", example).unwrap();
        assert_eq!(config.own_prices().len(), 2);
    }

    #[test]
    fn absurd_and_contradictory_prices_are_errors_with_the_remedy() {
        for (body, error) in [
            (
                "input = \"-1 USD / 1M tokens\"",
                "`input` is not zero or more; nobody is paid for being called",
            ),
            (
                "input = \"NaN USD / token\"",
                "`input` is not an amount of money; write a number and a currency, such as \"50 USD\" or \"0.000015 USD\"",
            ),
            ("input = \"1 USD\"", "`input` is not a price per token; write it like \"2.50 USD / 1M tokens\""),
            (
                "input = \"1 DOGE / 1M tokens\"",
                "`input` is not in a currency of ISO 4217; write its code in capital letters, such as USD or EUR",
            ),
            (
                "input = \"250000 USD / token\"",
                "`input` is not a plausible price; the most is 10000 for one of it. Did you forget \"1M\"?",
            ),
            (
                "input = 2.5",
                "`input` is a number with a fraction, not a price per token; write it like \"2.50 USD / 1M tokens\"",
            ),
            (
                "input = \"1 USD / 1M tokens\"\noutput = \"1 EUR / 1M tokens\"",
                "`output` is not in USD, like the rest of this price; write one price for each currency",
            ),
            (
                "call = \"1 USD / call\"\nmodel = \"gpt-*-mini\"",
                "`model` is not a name; a `*` can only stand at its end",
            ),
            (
                "call = \"1 USD / call\"\nas_of = \"1.11.2026\"",
                "`as_of` is not a date; write it like \"2026-11-01\"",
            ),
            (
                "model = \"x\"",
                "this price asks nothing; write `input`, `output`, `call` or another of its keys",
            ),
            (
                "call = \"1 USD / call\"\n[[price.tier]]\ncall = \"2 USD / call\"",
                "this tier holds always; write `service_tier`, `above_prompt`, `above_volume`, `hours` or `days`",
            ),
            (
                "call = \"1 USD / call\"\n[[price.tier]]\nhours = \"25:00-26:00\"",
                "`hours` is not a part of the day; write it like \"01:00-04:00\", in UTC",
            ),
            (
                "call = \"1 USD / call\"\n[[price.unit]]\nprice = \"1 USD / unit\"",
                "a unit is counted in a `header` or in a `field` of the response; write one of them",
            ),
            (
                "call = \"1 USD / call\"\n[[price.unit]]\nheader = \"a b\"\nprice = \"1 USD / unit\"",
                "`header` is not the name of a header",
            ),
        ] {
            let errors = errors(&format!("[[price]]\nvendor = \"openai\"\n{body}\n"));
            assert!(errors.iter().any(|found| found.ends_with(error)), "{body}: {errors:?}");
        }
        for (vendor, says) in [
            ("strpie", "the vendor `strpie` is not known; did you mean `stripe`?"),
            ("partner.example.com", "a host that nobody named goes by its domain; write `example.com`, or"),
        ] {
            let errors = errors(&format!("[[price]]\nvendor = \"{vendor}\"\ncall = \"1 USD / call\"\n"));
            assert!(
                errors.len() == 1 && errors[0].starts_with("f:2:10: ") && errors[0].contains(says),
                "{errors:?}"
            );
        }
        let config = Config::parse("f", "[[price]]\nvendor = \"Stripe\"\ncall = \"1 USD / call\"\n").unwrap();
        assert_eq!(config.prices[0].vendor, "stripe", "as the engine writes it");
        assert!(errors("[[price]]\ncall = \"1 USD / call\"\n")[0].contains("`vendor` is missing"));
        assert_eq!(errors("[[price]]\nvendor = \"openai\"\ncall = \"x\"\n").len(), 1, "said once");
    }
}
