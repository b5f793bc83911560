//! `[[vendor.limit]]`, `[[vendor.refusal]]` and `[[vendor.retry]]`: how a vendor says what is left.

use super::section::Section;
use crate::quota::dialect::{
    Encoding, Form, LimitSpec, MAX_LIMITS, Meaning, RefusalSpec, RetrySource, RetrySpec, Scope, Spec, Unit,
};

/// Reads the dialect of one vendor; what is wrong in it was reported and is left out.
pub(super) fn read(section: &mut Section<'_, '_>) -> Spec {
    let mut spec = Spec::default();
    for (place, section) in section.tables("limit").iter_mut().enumerate() {
        let limit = limit(section);
        if place == MAX_LIMITS {
            section
                .wrong(format!("a vendor has at most {MAX_LIMITS} limits; leave out those that bind last"));
        }
        if place < MAX_LIMITS {
            spec.limits.extend(limit);
        }
    }
    for section in section.tables("refusal") {
        spec.refusals.extend(refusal(section));
    }
    for section in section.tables("retry") {
        spec.retries.extend(retry(section));
    }
    spec
}

/// A header's name, in lower case.
pub(super) fn header(section: &mut Section<'_, '_>, key: &'static str) -> Option<String> {
    section.checked_string(key, |name| {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let good = !name.is_empty() && name.len() <= 100 && name.bytes().all(token);
        good.then(|| name.to_ascii_lowercase())
            .ok_or("a header's name; write it as in `x-ratelimit-limit`".into())
    })
}

fn text(section: &mut Section<'_, '_>, key: &'static str) -> Option<String> {
    section.checked_string(key, |text| {
        let good = !text.is_empty() && text.len() <= 100;
        good.then(|| text.to_owned()).ok_or("a text of 1 to 100 bytes; write what the vendor sends".into())
    })
}

fn limit(section: &mut Section<'_, '_>) -> Option<LimitSpec> {
    let form = section.choice("form", &Form::WORDS).unwrap_or_default();
    // Inside one header the numbers have keys; else each has a header of its own.
    let number = if form == Form::Pairs { text } else { header };
    let unit = section.choice("unit", &Unit::WORDS).unwrap_or_default();
    let limit = LimitSpec {
        policy: text(section, "policy").unwrap_or_else(|| unit.as_str().to_owned()),
        named_by: header(section, "named_by"),
        unit,
        scope: section.choice("scope", &Scope::WORDS).unwrap_or_default(),
        form,
        header: header(section, "header"),
        key: text(section, "key"),
        limit: number(section, "limit"),
        limit_is: section.number("limit_is", 1..=1_000_000_000).map(|limit| limit as u64),
        remaining: number(section, "remaining"),
        used: number(section, "used"),
        item: section.number("item", 0..=15),
        reset: number(section, "reset"),
        reset_as: section.choice("reset_as", &Encoding::WORDS).unwrap_or_default(),
        window: section.duration("window"),
        window_header: header(section, "window_header"),
        window_as: section.choice("window_as", &Encoding::WORDS).unwrap_or_default(),
        fallback: section.boolean("fallback").unwrap_or(false),
    };
    check(section, limit)
}

/// Whether the keys fit the form.
fn check(section: &Section<'_, '_>, mut limit: LimitSpec) -> Option<LimitSpec> {
    let mut good = true;
    let mut wrong = |message: &str| {
        section.wrong(message);
        good = false;
    };
    let one_header = matches!(limit.form, Form::Fraction | Form::Pairs);
    let numbers = section.has("limit") || section.has("remaining") || section.has("used");
    if one_header && !section.has("header") {
        wrong("`header` is missing; a fraction and pairs are in one header, name it");
    }
    if !one_header && section.has("header") {
        wrong("`header` is for the forms \"fraction\" and \"pairs\"; name `limit`, `remaining` and `reset`");
    }
    match limit.form {
        Form::Plain if !numbers => {
            wrong("a limit without numbers; name at least one of `limit`, `remaining` and `used`")
        }
        Form::Pairs if !(section.has("remaining") || section.has("used")) => {
            wrong("a limit without numbers; name the key of `remaining` or of `used`");
        }
        Form::Fraction if numbers || section.has("reset") => {
            wrong(
                "a fraction holds used/limit and no more; leave out `limit`, `remaining`, `used` and `reset`",
            );
        }
        Form::Ietf if !numbers => {
            limit.limit = Some("ratelimit-policy".to_owned());
            limit.remaining = Some("ratelimit".to_owned());
        }
        _ => {}
    }
    if section.has("key") && limit.form != Form::Fraction {
        wrong("`key` is for the form \"fraction\"; leave it out");
    }
    if section.has("item") && limit.form != Form::Plain {
        wrong("`item` is for the form \"plain\"; leave it out");
    }
    if section.has("remaining") && section.has("used") {
        wrong("`remaining` and `used` say the same; keep the one that the vendor sends");
    }
    if section.has("used") && !section.has("limit") && !section.has("limit_is") {
        wrong("`used` says nothing without a limit; name `limit`, or write `limit_is`");
    }
    if section.has("limit") && section.has("limit_is") {
        wrong("`limit` and `limit_is` are two limits; keep the header where there is one");
    }
    if limit.form != Form::Ietf && section.has("reset") != section.has("reset_as") {
        wrong("`reset` and `reset_as` belong together; write both, such as reset_as = \"epoch-s\"");
    }
    if section.has("window_header") != section.has("window_as") {
        wrong("`window_header` and `window_as` belong together; write both, such as window_as = \"delta-s\"");
    }
    if matches!(limit.window_as, Encoding::EpochSeconds | Encoding::EpochMillis | Encoding::Date) {
        wrong("`window_as` is a length of time; write \"delta-s\", \"delta-ms\" or \"duration\"");
    }
    good.then_some(limit)
}

fn refusal(section: &mut Section<'_, '_>) -> Option<RefusalSpec> {
    let before = section.has("status");
    let status = section.numbers("status", 200..=599);
    if !before {
        section.missing("status", "a refusal is told by its status first, as in status = [429]");
    }
    let means = section.choice(
        "means",
        &[("rate", Meaning::Rate), ("exhausted", Meaning::Exhausted), ("other", Meaning::Other)],
    );
    if !section.has("means") {
        section.missing("means", "write \"rate\", \"exhausted\" or \"other\"");
    }
    let header = header(section, "header");
    let value = text(section, "value");
    if value.is_some() && !section.has("header") {
        section.missing("header", "`value` is the value of a header");
    }
    let body = section.list("body", |text| {
        let good = !text.is_empty() && text.len() <= 100;
        good.then(|| text.to_owned()).ok_or("a text of 1 to 100 bytes; write what the vendor sends".into())
    });
    let wait = section.duration("wait");
    let status: Vec<u16> = status.into_iter().filter_map(|status| u16::try_from(status).ok()).collect();
    // A rule that lost a condition to an error would match too much.
    let whole = section.has("header") == header.is_some()
        && section.has("value") == value.is_some()
        && section.has("body") != body.is_empty();
    match means {
        Some(means) if whole && !status.is_empty() => {
            Some(RefusalSpec { status, header, value, body, means, wait })
        }
        _ => None,
    }
}

fn retry(section: &mut Section<'_, '_>) -> Option<RetrySpec> {
    let (header, body) = (header(section, "header"), text(section, "body"));
    let encoding = section.choice("as", &Encoding::WORDS);
    if !section.has("as") {
        section.missing("as", "write how the time is written, such as as = \"delta-s\"");
    }
    let source = match (header, body) {
        (Some(header), None) => RetrySource::Header(header),
        (None, Some(body)) => RetrySource::Body(body),
        _ => {
            if section.has("header") == section.has("body") {
                section.wrong("a [[vendor.retry]] is in a header or in the body; name `header` or `body`");
            }
            return None;
        }
    };
    Some(RetrySpec::new(source, encoding?))
}
