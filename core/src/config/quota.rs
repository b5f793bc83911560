//! `[[quota]]`: what a quota is and how it is kept to.

use super::duration::is_too_long;
use super::parse_duration;
use super::section::Section;
use crate::quota::{Limit, OnError, Pace, Priority, Reserve, Rule, Shared, Unit, Weight};
use std::time::Duration;

/// The most units of a limit: beyond them it would be no limit.
const MAX_UNITS: u64 = 1_000_000_000_000;
/// The longest period of a limit: quotas of a year exist.
const MAX_PERIOD: Duration = Duration::from_secs(366 * 86_400);
/// The longest that a rule may let a call wait.
const MAX_WAIT: Duration = Duration::from_secs(3_600);

/// Reads what follows from the match of one rule; `None` where nothing usable is said, which was reported.
pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Rule> {
    let default = Rule::default();
    let limit = section.checked_string("limit", parse_limit);
    let wrong_limit = section.has("limit") && limit.is_none();
    let burst = section.number("burst", 1..=1_000_000_000).map(|burst| burst as u64);
    let concurrency = section.number("concurrency", 1..=1_000_000).and_then(|most| u32::try_from(most).ok());
    let pace =
        section.choice("pace", &[("off", Pace::Off), ("smooth", Pace::Smooth), ("reserve", Pace::Reserve)]);
    let reserve = section.table("reserve").and_then(read_reserve);
    let fair = section.choice("fair", &[("customer", true), ("off", false)]);
    let (is_off, fair) = (fair == Some(false), fair.unwrap_or_default());
    let weights = section.table("weights").map(read_weights).unwrap_or_default();
    let max_wait = section.checked_string("max_wait", parse_wait).unwrap_or(default.max_wait);
    let shared = section
        .choice("shared", &[("process", Shared::Process), ("host", Shared::Host), ("fleet", Shared::Fleet)]);
    let on_error = section.choice("on_error", &[("pass", OnError::Pass), ("refuse", OnError::Refuse)]);

    let mut sound = !wrong_limit;
    let mut object = |yes: bool, message: &str| {
        if yes {
            section.wrong(message);
            sound = false;
        }
    };
    object(
        limit.zip(burst).is_some_and(|(limit, burst)| burst > limit.units),
        "`burst` is above `limit`; any period may see `limit` and `burst` units, so give at most the limit",
    );
    object(
        pace == Some(Pace::Reserve) && !section.has("reserve"),
        "`pace = \"reserve\"` does not say what to keep; write reserve = { priority = \"interactive\", share = \"20%\" }",
    );
    object(
        section.has("reserve") && pace != Some(Pace::Reserve),
        "`reserve` has no effect without `pace = \"reserve\"`; write both or none",
    );
    object(
        section.has("weights") && !fair,
        "`weights` have no effect without `fair = \"customer\"`; write both or none",
    );
    object(
        on_error == Some(OnError::Refuse) && shared == Some(Shared::Process),
        "`on_error` is about what is shared, and `shared = \"process\"` shares nothing; leave one of them out",
    );
    let no_limit = limit.is_none() && !wrong_limit;
    for (wants_one, message) in [
        (
            burst.is_some() && pace != Some(Pace::Smooth),
            "`burst` says nothing here; it goes with `limit` or with `pace = \"smooth\"`",
        ),
        (
            shared == Some(Shared::Fleet),
            "`shared = \"fleet\"` needs a `limit` to share out; what the vendor states reaches every host by itself",
        ),
    ] {
        if no_limit && wants_one {
            section.lacks_for("limit", message);
            sound = false;
        }
    }
    let says_something = limit.is_some()
        || concurrency.is_some()
        || pace.is_some()
        || fair
        || section.has("max_wait")
        || section.has("on_error");
    if !says_something && !wrong_limit {
        // Of what it says and is wrong, that is said.
        let is_wrong = section.has("concurrency") || section.has("pace") || section.has("fair") && !is_off;
        if !is_wrong {
            section.says_nothing(
                "this [[quota]] says nothing; give `limit`, `concurrency`, `pace`, `fair` or `max_wait`",
            );
        }
        sound = false;
    }
    sound.then_some(Rule {
        limit,
        burst,
        concurrency,
        pace: pace.unwrap_or_default(),
        reserve,
        fair,
        weights,
        max_wait,
        shared: shared.unwrap_or_default(),
        on_error: on_error.unwrap_or_default(),
    })
}

fn read_reserve(section: &mut Section<'_, '_>) -> Option<Reserve> {
    let priority = section.choice("priority", &[("interactive", Priority::Interactive)]);
    if priority.is_none() && !section.has("priority") {
        section.missing("priority", "write priority = \"interactive\"");
    }
    let share = section.share("share");
    if share.is_none() && !section.has("share") {
        section.missing("share", "say how much to keep, such as \"20%\"");
    }
    let per_mille = share.map(|share| (share * 1_000.0).round() as u16);
    if per_mille.is_some_and(|share| !(1..=999).contains(&share)) {
        section.wrong("`share` keeps nothing or everything; write a share between \"0.1%\" and \"99.9%\"");
        return None;
    }
    Some(Reserve { priority: priority?, per_mille: per_mille? })
}

fn read_weights(section: &mut Section<'_, '_>) -> Vec<(String, Weight)> {
    section.entries("a weight; write a number between 0.001 and 1000, such as 3", |number| {
        (0.001..=1_000.0).contains(&number).then(|| Weight((number * 1_000.0).round() as u32))
    })
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    if matches!(text.trim(), "0" | "0s" | "0ms") {
        return Ok(Duration::ZERO);
    }
    parse_duration(text).filter(|wait| *wait <= MAX_WAIT).ok_or_else(|| {
        "a wait; write a duration of at most an hour, such as \"2s\", or \"0s\" for none".into()
    })
}

/// Reads `"100 requests / 1s"`, `"150k tokens / minute"`, `"1_000_000 bytes per day"`.
pub(super) fn parse_limit(text: &str) -> Result<Limit, String> {
    const FORM: &str = "a limit; write a number, a unit and a period, such as \"100 requests / 1s\" or \
                        \"150k tokens / minute\"";
    let (amount, period) = text.split_once('/').or_else(|| text.split_once(" per ")).ok_or(FORM)?;
    let amount = amount.trim();
    let (number, unit) = amount.split_at(amount.find(|c: char| !c.is_ascii_digit() && c != '_').ok_or(FORM)?);
    let unit = unit.strip_prefix(['k', 'K']).filter(|rest| rest.starts_with(' ')).map_or_else(
        || {
            unit.strip_prefix('M')
                .filter(|rest| rest.starts_with(' '))
                .map_or((unit, 1), |rest| (rest, 1_000_000))
        },
        |rest| (rest, 1_000),
    );
    let (unit, factor) = unit;
    if amount.starts_with('-') {
        return Err("a limit; a limit is not negative".into());
    }
    if unit.starts_with('.') {
        return Err(part_of_a_unit(number, unit, period.trim()));
    }
    let digits = number.replace('_', "");
    if digits.is_empty() {
        return Err(FORM.into());
    }
    // What is no number is one with too many digits.
    let units = digits.parse::<u64>().ok().and_then(|units| units.checked_mul(factor));
    let units = units.filter(|units| *units <= MAX_UNITS);
    let units = units.ok_or("a limit; it is too large: more than 1,000,000,000,000 units limit nothing")?;
    if units == 0 {
        return Err("a limit; a limit of 0 forbids every call, which a [[policy]] with verdict = \"deny\" says better".into());
    }
    let unit = unit.trim();
    let unit = Unit::ALL
        .into_iter()
        .find(|known| unit == known.as_str() || Some(unit) == known.as_str().strip_suffix('s'))
        .ok_or("a limit; the units are requests, tokens, bytes and points")?;
    let period = period_of(period.trim())?;
    Ok(Limit { units, unit, period })
}

/// What is wrong with a limit such as `0.5 requests / 1s`, and the same in whole units.
fn part_of_a_unit(whole: &str, rest: &str, period: &str) -> String {
    let end = rest[1..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| end + 1);
    let (fraction, unit) = (&rest[1..end], rest[end..].trim());
    let same = || {
        let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let units = format!("{whole}{fraction}").parse::<u64>().ok().filter(|units| *units > 0)?;
        let (mut common, mut rest) = (units, scale);
        while rest > 0 {
            (common, rest) = (rest, common % rest);
        }
        let millis = u64::try_from(period_of(period).ok()?.as_millis()).ok()?.checked_mul(scale / common)?;
        let period = match millis {
            millis if millis % 60_000 == 0 => format!("{}m", millis / 60_000),
            millis if millis % 1_000 == 0 => format!("{}s", millis / 1_000),
            millis => format!("{millis}ms"),
        };
        let units = units / common;
        let unit = unit.strip_suffix('s').filter(|_| units == 1).unwrap_or(unit);
        let limit = format!("{units} {unit} / {period}");
        parse_limit(&limit).is_ok().then_some(limit)
    };
    match same() {
        Some(same) => format!("a limit in whole units; write \"{same}\""),
        None => "a limit in whole units; write a longer period, as in \"1 request / 2s\"".into(),
    }
}

fn period_of(text: &str) -> Result<Duration, String> {
    let period = match text {
        "ms" | "s" | "m" | "min" | "h" | "d" | "w" => parse_duration(&format!("1{text}")),
        "second" => Some(Duration::from_secs(1)),
        "minute" => Some(Duration::from_secs(60)),
        "hour" => Some(Duration::from_secs(3_600)),
        "day" => Some(Duration::from_secs(86_400)),
        "week" => Some(Duration::from_secs(604_800)),
        _ => parse_duration(text),
    };
    let too_long = "a limit; its period is longer than a year".to_owned();
    if period.is_none() && is_too_long(text) {
        return Err(too_long);
    }
    let period =
        period.ok_or("a limit; its period is a duration such as \"1s\", \"1m\", \"1h\" or \"day\"")?;
    if period > MAX_PERIOD {
        return Err(too_long);
    }
    Ok(period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::section;
    use proptest::prelude::*;

    fn read_text(text: &str) -> (Option<Rule>, Vec<String>) {
        let mut rule = None;
        let errors = section::read("f", text, |root| rule = read(root));
        (rule, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_whole_rule_is_read() {
        let (rule, errors) = read_text(
            "limit = \"150k tokens / minute\"\nburst = 500\nconcurrency = 8\npace = \"reserve\"\n\
             reserve = { priority = \"interactive\", share = \"20%\" }\nfair = \"customer\"\n\
             weights = { acme = 3, tiny = 0.5 }\nmax_wait = \"500ms\"\nshared = \"fleet\"\non_error = \"refuse\"\n",
        );
        assert_eq!(errors, [""; 0]);
        let rule = rule.unwrap();
        let limit = Limit { units: 150_000, unit: Unit::Tokens, period: Duration::from_secs(60) };
        assert_eq!(rule.limit, Some(limit));
        assert_eq!((rule.burst, rule.concurrency), (Some(500), Some(8)));
        assert_eq!(rule.reserve, Some(Reserve { priority: Priority::Interactive, per_mille: 200 }));
        assert_eq!(rule.weight("acme"), Weight(3_000));
        assert_eq!(rule.weight("tiny"), Weight(500));
        assert_eq!(rule.weight("anybody"), Weight(1_000));
        assert_eq!(rule.max_wait, Duration::from_millis(500));
        assert_eq!((rule.shared, rule.on_error), (Shared::Fleet, OnError::Refuse));
    }

    #[test]
    fn people_write_limits_in_these_ways() {
        for (text, units, unit, secs) in [
            ("100 requests / 1s", 100, Unit::Requests, 1),
            ("1 request / s", 1, Unit::Requests, 1),
            ("5_000 points per hour", 5_000, Unit::Points, 3_600),
            ("2M tokens/day", 2_000_000, Unit::Tokens, 86_400),
            ("10 bytes / 1h30m", 10, Unit::Bytes, 5_400),
        ] {
            let limit = parse_limit(text).unwrap();
            assert_eq!((limit.units, limit.unit, limit.period.as_secs()), (units, unit, secs), "{text}");
        }
    }

    #[test]
    fn a_key_that_is_misspelt_is_told_alone() {
        for text in
            ["limt = \"5 requests / 1s\"", "limt = \"5 requests / 1s\"\nburst = 2\nshared = \"fleet\""]
        {
            let (rule, errors) = read_text(text);
            assert!(rule.is_none());
            assert_eq!(errors, ["f:1:1: unknown key `limt`; did you mean `limit`?"], "{text}");
        }
        // Of a key that has nothing to do with it, both are told.
        let (_, errors) = read_text("shared = \"fleet\"\nfair = \"customer\"\nrserve = { share = 0.2 }");
        assert_eq!(errors.len(), 2, "{errors:?}");
    }

    #[test]
    fn absurd_and_contradictory_rules_are_refused_with_a_remedy() {
        for (text, says) in [
            ("limit = \"-1 requests / 1s\"", "not negative"),
            ("limit = \"0 requests / 1s\"", "[[policy]]"),
            ("limit = \"NaN requests / 1s\"", "such as \"100 requests / 1s\""),
            ("limit = \"99999999999999 requests / 1s\"", "it is too large: more than"),
            ("limit = \"99999999999999999999 requests / 1s\"", "it is too large: more than"),
            ("limit = \"_ requests / 1s\"", "write a number"),
            ("limit = \"5 apples / 1s\"", "the units are"),
            ("limit = \"5 requests / 0s\"", "its period is a duration"),
            ("limit = \"5 requests / 3000d\"", "longer than a year"),
            ("limit = \"5 requests / 99999999d\"", "its period is longer than a year"),
            (
                "limit = 5",
                "`limit` is a whole number, not a limit; write a number, a unit and a period, such as \"100",
            ),
            (
                "limit = \"0.5 requests / 1s\"",
                "`limit` is not a limit in whole units; write \"1 request / 2s\"",
            ),
            ("limit = \"1.5 tokens / minute\"", "write \"3 tokens / 2m\""),
            ("limit = \"0.0 requests / 1s\"", "in whole units; write a longer period"),
            ("limit = \"0.00000000000000000001 requests / 1s\"", "in whole units; write a longer period"),
            ("limit = \"5 requests / 1s\"\nburst = 50", "above `limit`"),
            ("fair = \"customer\"\nburst = 5", "`burst` says nothing here"),
            ("pace = \"reserve\"", "what to keep"),
            (
                "pace = \"smooth\"\nreserve = { priority = \"interactive\", share = 0.2 }",
                "write both or none",
            ),
            (
                "pace = \"reserve\"\nreserve = { priority = \"interactive\", share = \"100%\" }",
                "nothing or everything",
            ),
            ("pace = \"reserve\"\nreserve = { priority = \"batch\", share = 0.2 }", "\"interactive\""),
            ("limit = \"5 requests / 1s\"\nweights = { a = 2 }", "write both or none"),
            ("fair = \"customer\"\nweights = { a = -2 }", "a weight"),
            ("fair = \"customer\"\nweights = { a = nan }", "a weight"),
            ("fair = \"customer\"\nshared = \"fleet\"", "needs a `limit`"),
            ("shared = \"process\"\non_error = \"refuse\"", "shares nothing"),
            ("max_wait = \"2d\"", "at most an hour"),
            ("shared = \"host\"", "says nothing"),
            ("pace = \"fast\"", "\"smooth\""),
        ] {
            let (_, errors) = read_text(text);
            assert!(errors.iter().any(|error| error.contains(says)), "{text}: {errors:?}");
        }
    }

    #[test]
    fn a_wrong_value_is_told_alone() {
        for text in ["concurrency = 0", "pace = \"smoth\"", "fair = \"custmer\"", "limit = true"] {
            let (rule, errors) = read_text(text);
            assert!(
                rule.is_none() && errors.len() == 1 && errors[0].starts_with("f:1:"),
                "{text}: {errors:?}"
            );
        }
        let (_, errors) = read_text("fair = \"off\"");
        assert!(errors[0].contains("says nothing"), "{errors:?}");
    }

    proptest! {
        #[test]
        fn no_limit_makes_it_panic(text in "[0-9kM_/ a-z.-]{0,40}") {
            if let Ok(limit) = parse_limit(&text) {
                prop_assert!(limit.units > 0 && limit.period > Duration::ZERO);
            }
        }
    }
}
