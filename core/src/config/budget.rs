//! `[[budget]]`: what we allow ourselves.

use super::section::Section;
use crate::budget::{Action, Downgrade, Limit, MAX_MARKS, Rule, Unit};
use crate::cost::count_of;
use crate::units::{Money, Period};

/// The keys for shares of the limit.
const SHARES: [(&str, u8); 20] = [
    ("at_5_percent", 5),
    ("at_10_percent", 10),
    ("at_15_percent", 15),
    ("at_20_percent", 20),
    ("at_25_percent", 25),
    ("at_30_percent", 30),
    ("at_35_percent", 35),
    ("at_40_percent", 40),
    ("at_45_percent", 45),
    ("at_50_percent", 50),
    ("at_55_percent", 55),
    ("at_60_percent", 60),
    ("at_65_percent", 65),
    ("at_70_percent", 70),
    ("at_75_percent", 75),
    ("at_80_percent", 80),
    ("at_85_percent", 85),
    ("at_90_percent", 90),
    ("at_95_percent", 95),
    ("at_99_percent", 99),
];

/// Reads what follows from the match of a budget; `None` where it has no usable limit, which was reported.
pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Rule> {
    let limit = section.checked_string("limit", limit);
    if !section.has("limit") {
        section.missing("limit", "write how much and in which period, such as \"50 USD / month\"");
    }
    let words = [("warn", Action::Warn), ("throttle", Action::Throttle), ("downgrade", Action::Downgrade)];
    let mut at = Vec::new();
    for (key, percent) in SHARES {
        // The usual ones are asked for in any case, so that a typing mistake finds them.
        if matches!(percent, 50 | 80 | 90) || section.has(key) {
            at.extend(section.choice(key, &words).map(|action| (percent, action)));
        }
    }
    section.refuse(|key| {
        let percent: u64 = key.strip_prefix("at_")?.strip_suffix("_percent")?.parse().ok()?;
        let known = SHARES.iter().any(|(known, _)| *known == key);
        (!known).then(|| match percent {
            0..=99 => format!("no share is called `{key}`; they are 5, 10, 15 and so on to 95, and 99 percent"),
            _ => format!("`{key}` is not below the limit; name a share from 5 to 99 percent, and what is to be at the limit under `over`"),
        })
    });
    if at.len() > MAX_MARKS {
        section.wrong(format!("a budget names at most {MAX_MARKS} shares of its limit"));
        at.truncate(MAX_MARKS);
    }
    let [warn, throttle, downgrade] = words;
    let over = section.choice("over", &[warn, throttle, downgrade, ("refuse", Action::Refuse)]);
    let over = over.unwrap_or(Action::Warn);
    let mut downgrades = Vec::new();
    for section in section.some_tables("downgrade") {
        downgrades.extend(self::downgrade(section));
    }
    let downgraded = over == Action::Downgrade || at.iter().any(|(_, action)| *action == Action::Downgrade);
    if downgraded && !section.has("downgrade") {
        section.missing(
            "downgrade",
            "say to which model, such as downgrade = { from = \"gpt-4o\", to = \"gpt-4o-mini\" }",
        );
    }
    if !downgraded && section.has("downgrade") {
        section.wrong("`downgrade` names a cheaper model that nothing asks for; write over = \"downgrade\"");
    }
    let throttled = at.iter().any(|(_, action)| *action == Action::Throttle);
    if throttled && matches!(over, Action::Warn | Action::Downgrade) {
        section.wrong(
            "this budget throttles below its limit and lets calls pass beyond it; write over = \"throttle\" or over = \"refuse\"",
        );
    }
    let mut rule = Rule::new(limit?);
    rule.at = at;
    rule.over = over;
    rule.downgrades = downgrades;
    Some(rule)
}

/// Reads `"50 USD / month"`, `"1000 requests / day"` or `"2M tokens / day"`.
fn limit(text: &str) -> Result<Limit, String> {
    let form = "a limit; write it like \"50 USD / month\", \"1000 requests / day\" or \"2M tokens / day\"";
    let (amount, period) = text.split_once('/').ok_or(form)?;
    let (amount, period) = (amount.trim(), period.trim());
    let period = Period::WORDS.iter().find(|(word, _)| *word == period).map(|(_, period)| *period);
    let period = period.ok_or("for a period; write minute, hour, day, week or month after the slash")?;
    let (number, what) = amount.rsplit_once(' ').ok_or(form)?;
    let counted = |unit| {
        let number = number.trim();
        let amount = count_of(number).ok_or(match is_large(number) {
            true => "a plausible limit; it is too large, the most is 1000000000000000",
            false => "a whole number of at least one, such as 1000 or 2M",
        })?;
        Ok::<_, String>((amount, unit))
    };
    let (amount, unit) = match what {
        "request" | "requests" | "call" | "calls" => counted(Unit::Requests)?,
        "token" | "tokens" => counted(Unit::Tokens)?,
        _ => {
            let money = Money::parse(amount).map_err(|error| error.to_string())?;
            (u64::try_from(money.nanos()).unwrap_or(0), Unit::Money(money.currency()))
        }
    };
    if amount == 0 {
        return Err("more than nothing; to forbid calls write a [[policy]] with verdict = \"deny\"".into());
    }
    if amount > Limit::MAX {
        return Err("a plausible limit; it is too large, the most is 1000000000 of a currency".into());
    }
    Ok(Limit { amount, unit, period })
}

/// Whether a text that is no amount is a whole number, then one beyond all amounts.
fn is_large(number: &str) -> bool {
    let digits = number.strip_suffix(['k', 'M', 'B']).unwrap_or(number);
    digits.starts_with(|c: char| ('1'..='9').contains(&c))
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

fn downgrade(section: &mut Section<'_, '_>) -> Option<Downgrade> {
    let from = section.checked_string("from", |text| {
        let good = !text.is_empty() && !text.strip_suffix('*').unwrap_or(text).contains('*');
        good.then(|| text.to_owned()).ok_or("a model; a `*` can only stand at its end".into())
    });
    let to = section.checked_string("to", |text| {
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'*');
        let good = !text.is_empty() && text.len() <= 100 && text.bytes().all(plain);
        good.then(|| text.to_owned()).ok_or("the name of one model".into())
    });
    for key in ["from", "to"] {
        if !section.has(key) {
            section.missing(key, "a downgrade leads from one model to another");
        }
    }
    if from.is_some() && from == to {
        section.wrong("this downgrade leads to the model that it comes from; name a cheaper one");
        return None;
    }
    Some(Downgrade { from: from?, to: to? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Currency;

    fn read_one(body: &str) -> (Option<Rule>, Vec<String>) {
        let mut rule = None;
        let text = format!("[budget]\n{body}\n");
        let errors = super::super::section::read("f", &text, |root| {
            rule = root.table("budget").and_then(read);
        });
        (rule, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_budget_is_read_in_the_words_of_the_design() {
        let (rule, errors) = read_one(
            "limit = \"50 USD / month\"\nat_50_percent = \"warn\"\nat_80_percent = \"downgrade\"\nover = \"refuse\"\ndowngrade = { from = \"gpt-4o*\", to = \"gpt-4o-mini\" }",
        );
        assert_eq!(errors, Vec::<String>::new());
        let rule = rule.unwrap();
        assert_eq!(
            rule.limit,
            Limit { amount: 50_000_000_000, unit: Unit::Money(Currency::USD), period: Period::Month }
        );
        assert_eq!(rule.at, [(50, Action::Warn), (80, Action::Downgrade)]);
        assert_eq!(rule.cheaper("gpt-4o-2024-08-06"), Some("gpt-4o-mini"));
        assert_eq!(rule.cheaper("gpt-4o-mini"), None, "already there");
        assert_eq!(rule.cheaper("gpt-4o-mini-2024-07-18"), None, "and a version of it");
        assert_eq!(rule.cheaper("o3"), None);
    }

    #[test]
    fn the_examples_of_the_documentation_are_right() {
        let text = include_str!("../../../docs/budget.md");
        let example = text.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let rules: Vec<_> = example.split("[[budget]]").skip(1).collect();
        assert_eq!(rules.len(), 2);
        for rule in rules {
            // What follows from the match; the match itself is read elsewhere.
            let body: String = rule
                .lines()
                .filter(|line| !line.starts_with("match"))
                .map(|line| format!("{line}\n"))
                .collect();
            let (rule, errors) = read_one(&body);
            assert!(rule.is_some() && errors.is_empty(), "{body}: {errors:?}");
        }
    }

    #[test]
    fn limits_may_be_money_calls_or_tokens() {
        for (text, amount, unit, period) in [
            ("0.5 EUR / minute", 500_000_000, Unit::Money(Currency::EUR), Period::Minute),
            ("1000 requests / day", 1_000, Unit::Requests, Period::Day),
            ("2M tokens / week", 2_000_000, Unit::Tokens, Period::Week),
            ("1.5k tokens/hour", 1_500, Unit::Tokens, Period::Hour),
        ] {
            assert_eq!(limit(text), Ok(Limit { amount, unit, period }), "{text}");
        }
    }

    #[test]
    fn absurd_and_contradictory_budgets_are_errors_with_the_remedy() {
        for (body, error) in [
            ("", "`limit` is missing; write how much and in which period, such as \"50 USD / month\""),
            (
                "limit = \"50 USD\"",
                "`limit` is not a limit; write it like \"50 USD / month\", \"1000 requests / day\" or \"2M tokens / day\"",
            ),
            (
                "limit = \"50 USD / fortnight\"",
                "`limit` is not for a period; write minute, hour, day, week or month after the slash",
            ),
            ("limit = \"-50 USD / month\"", "`limit` is not zero or more; nobody is paid for being called"),
            (
                "limit = \"NaN USD / month\"",
                "`limit` is not an amount of money; write a number and a currency, such as \"50 USD\" or \"0.000015 USD\"",
            ),
            (
                "limit = \"50 QQQ / month\"",
                "`limit` is not in a currency of ISO 4217; write its code in capital letters, such as USD or EUR",
            ),
            (
                "limit = \"0 USD / month\"",
                "`limit` is not more than nothing; to forbid calls write a [[policy]] with verdict = \"deny\"",
            ),
            (
                "limit = \"0 requests / month\"",
                "`limit` is not a whole number of at least one, such as 1000 or 2M",
            ),
            (
                "limit = \"99999999999999999999 requests / month\"",
                "`limit` is not a plausible limit; it is too large, the most is 1000000000000000",
            ),
            (
                "limit = \"9000000000M tokens / month\"",
                "`limit` is not a plausible limit; it is too large, the most is 1000000000000000",
            ),
            (
                "limit = \"0.5 requests / month\"",
                "`limit` is not a whole number of at least one, such as 1000 or 2M",
            ),
            (
                "limit = \"5000000000 USD / month\"",
                "`limit` is not a plausible limit; it is too large, the most is 1000000000 of a currency",
            ),
            (
                "limit = \"1 USD / day\"\nover = \"downgrade\"",
                "`downgrade` is missing; say to which model, such as downgrade = { from = \"gpt-4o\", to = \"gpt-4o-mini\" }",
            ),
            (
                "limit = \"1 USD / day\"\ndowngrade = { from = \"a\", to = \"b\" }",
                "`downgrade` names a cheaper model that nothing asks for; write over = \"downgrade\"",
            ),
            (
                "limit = \"1 USD / day\"\nover = \"downgrade\"\ndowngrade = { from = \"a\", to = \"a\" }",
                "this downgrade leads to the model that it comes from; name a cheaper one",
            ),
            (
                "limit = \"1 USD / day\"\nat_80_percent = \"throttle\"",
                "this budget throttles below its limit and lets calls pass beyond it; write over = \"throttle\" or over = \"refuse\"",
            ),
            (
                "limit = \"1 USD / day\"\nat_80_percent = \"refuse\"",
                "`at_80_percent` is not one of \"warn\", \"throttle\", \"downgrade\"",
            ),
            (
                "limit = \"1 USD / day\"\nat_120_percent = \"warn\"",
                "`at_120_percent` is not below the limit; name a share from 5 to 99 percent, and what is to be at the limit under `over`",
            ),
            (
                "limit = \"1 USD / day\"\nat_33_percent = \"warn\"",
                "no share is called `at_33_percent`; they are 5, 10, 15 and so on to 95, and 99 percent",
            ),
            (
                "limit = \"1 USD / day\"\nat_80_percnt = \"warn\"",
                "unknown key `at_80_percnt`; did you mean `at_80_percent`?",
            ),
        ] {
            let (_, errors) = read_one(body);
            assert!(errors.iter().any(|found| found.ends_with(error)), "{body}: {errors:?}");
        }
    }
}
