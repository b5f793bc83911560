//! `[[resilience]]`: what is done about calls that fail.

use super::section::Section;
use super::{changes, parse_duration};
use crate::matcher::parse_bytes;
use crate::resilience::{
    Backoff, BreakerRule, BudgetRule, ConcurrencyRule, FailoverRule, HedgeAfter, HedgeRule, Limit, RetryRule,
    Rule, Triggers,
};
use crate::units::Share;
use std::time::Duration;
use toml::de::DeValue;

/// Reads what a rule says beside its match; `None` where something is wrong with it, which was reported: with a
/// part left out, it would say something else than was meant.
pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Rule> {
    let deadline = section.duration("deadline");
    let attempt_timeout = section.duration("attempt_timeout");
    let retry = retry(section);
    let breaker = section.has("breaker").then(|| breaker(section.table("breaker")?));
    let hedge = section.has("hedge").then(|| hedge(section.table("hedge")?));
    let failover = section.has("failover").then(|| failover(section.table("failover")?));
    let concurrency = section.has("concurrency").then(|| concurrency(section));

    let whole =
        whole(section, &[("deadline", deadline.is_some()), ("attempt_timeout", attempt_timeout.is_some())]);
    let rule = Rule {
        deadline,
        attempt_timeout,
        retry: retry?,
        breaker: all(breaker)?,
        hedge: all(hedge)?,
        failover: all(failover)?,
        concurrency: all(concurrency)?,
    };
    if !whole {
        return None;
    }
    if rule == Rule::default() {
        section.says_nothing(
            "the rule says nothing; write `deadline`, `attempts`, `breaker`, `hedge`, `failover` or `concurrency`",
        );
        return None;
    }
    if let (Some(deadline), Some(attempt)) = (deadline, attempt_timeout)
        && attempt > deadline
    {
        section.wrong("`attempt_timeout` is longer than `deadline`, and so means nothing; make it shorter");
        return None;
    }
    Some(rule)
}

/// A part that is not there is fine; one that is there and wrong is not.
fn all<T>(part: Option<Option<T>>) -> Option<Option<T>> {
    match part {
        None => Some(None),
        Some(Some(part)) => Some(Some(part)),
        Some(None) => None,
    }
}

/// Whether every key that is written could be read.
fn whole(section: &Section<'_, '_>, keys: &[(&str, bool)]) -> bool {
    keys.iter().all(|(key, read)| *read || !section.has(key))
}

fn retry(section: &mut Section<'_, '_>) -> Option<Option<RetryRule>> {
    const OTHERS: [&str; 9] = [
        "backoff",
        "retry_on",
        "not_processed",
        "retry_budget",
        "retry_budget_least",
        "max_wait",
        "replay_bytes",
        "idempotency_header",
        "over_sdk",
    ];
    let default = RetryRule::default();
    let attempts = section.number("attempts", 1..=20);
    let backoff = section.checked_string("backoff", |text| {
        let range = range(text).map(|(first, most)| Backoff { first, most });
        range.ok_or(r#"a range; write two durations, the shorter one first, as in "200ms..8s""#.into())
    });
    let on = triggers(section, "retry_on");
    let not_processed = triggers(section, "not_processed");
    let share = section.share("retry_budget");
    let least = section.number("retry_budget_least", 0..=1_000);
    let max_wait = section.duration("max_wait");
    let replay_bytes = section.checked_string("replay_bytes", |text| {
        let bytes = parse_bytes(text).filter(|bytes| *bytes <= 64 << 20);
        bytes.ok_or(r#"a size up to 64 MiB; write it as in "64KiB""#.into())
    });
    let idempotency_header = section.checked_string("idempotency_header", |text| {
        http::HeaderName::from_bytes(text.as_bytes())
            .map(|name| name.as_str().into())
            .map_err(|_| r#"a header field's name; write it as in "Idempotency-Key""#.into())
    });
    let over_sdk = section.boolean("over_sdk");

    let whole = whole(
        section,
        &[
            ("attempts", attempts.is_some()),
            ("backoff", backoff.is_some()),
            ("retry_on", on.is_some()),
            ("not_processed", not_processed.is_some()),
            ("retry_budget", share.is_some()),
            ("retry_budget_least", least.is_some()),
            ("max_wait", max_wait.is_some()),
            ("replay_bytes", replay_bytes.is_some()),
            ("idempotency_header", idempotency_header.is_some()),
            ("over_sdk", over_sdk.is_some()),
        ],
    );
    if !section.has("attempts") {
        if let Some(key) = OTHERS.into_iter().find(|key| section.has(key)) {
            section.wrong(format!("`{key}` is about further attempts; write `attempts = 3` as well"));
            return None;
        }
        return Some(None);
    }
    if !whole {
        return None;
    }
    let not_processed = not_processed.unwrap_or_default();
    if not_processed.has_errors() {
        section.wrong("`not_processed` is about statuses: after an error nobody knows; leave the words out");
        return None;
    }
    let attempts = attempts.and_then(|attempts| u32::try_from(attempts).ok())?;
    let budget = BudgetRule::new(
        share.map_or(Some(default.budget.share), Share::from_ratio)?,
        least.and_then(|least| u16::try_from(least).ok()).unwrap_or(default.budget.least),
    );
    if attempts > 1 && budget.share == Share::NONE && budget.least == 0 {
        section
            .wrong("a retry budget of nothing allows no further attempt; write `attempts = 1`, or a budget");
        return None;
    }
    Some(Some(RetryRule {
        attempts,
        backoff: backoff.unwrap_or(default.backoff),
        on: on.unwrap_or(default.on),
        not_processed,
        budget,
        max_wait: max_wait.unwrap_or(default.max_wait),
        replay_bytes,
        idempotency_header,
        over_sdk: over_sdk.unwrap_or(default.over_sdk),
    }))
}

/// `"200ms..8s"`, the shorter one first.
pub(super) fn range(text: &str) -> Option<(Duration, Duration)> {
    let (first, most) = text.split_once("..")?;
    let range = (parse_duration(first)?, parse_duration(most)?);
    (range.0 <= range.1).then_some(range)
}

/// A list of endings; `None` where one is none, or the key is not there.
fn triggers(section: &mut Section<'_, '_>, key: &'static str) -> Option<Triggers> {
    let words =
        words(section, key, |word| Triggers::NONE.word(word).map(|_| word.to_owned()).map_err(Into::into))?;
    words.iter().try_fold(Triggers::NONE, |set, word| set.word(word).ok())
}

/// A list of strings of which none is wrong; `None` where one is, or the key is not there.
pub(super) fn words<T>(
    section: &mut Section<'_, '_>,
    key: &'static str,
    check: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let good = section.list(key, check);
    let value = section.value(key)?;
    (value.get_ref().as_array().map(|list| list.len()) == Some(good.len())).then_some(good)
}

/// A share above zero.
fn some_share(section: &mut Section<'_, '_>, key: &'static str) -> Option<Share> {
    let share = section.share(key)?;
    if share == 0.0 {
        section.wrong(format!(
            "`{key}` of nothing makes the rest useless; write a share above 0%, or leave the table out"
        ));
    }
    Share::from_ratio(share).filter(|share| *share != Share::NONE)
}

fn breaker(section: &mut Section<'_, '_>) -> Option<BreakerRule> {
    let default = BreakerRule::default();
    let consecutive = section.number("consecutive", 1..=10_000);
    let failure_rate = some_share(section, "failure_rate");
    let window = section.number("window", 10..=usize::from(BreakerRule::MAX_WINDOW));
    let open = section.checked_string("open", |text| {
        let open = parse_duration(text);
        let open =
            open.filter(|open| (Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(open));
        open.ok_or(r#"a duration between 100ms and 1d; write it as in "30s""#.into())
    });
    let probes = section.number("probes", 1..=usize::from(BreakerRule::MAX_PROBES));
    let keys = [
        ("consecutive", consecutive.is_some()),
        ("failure_rate", failure_rate.is_some()),
        ("window", window.is_some()),
        ("open", open.is_some()),
        ("probes", probes.is_some()),
    ];
    let number =
        |number: Option<usize>, default| number.and_then(|n| u16::try_from(n).ok()).unwrap_or(default);
    whole(section, &keys).then(|| BreakerRule {
        consecutive: number(consecutive, default.consecutive),
        failure_rate: failure_rate.unwrap_or(default.failure_rate),
        window: number(window, default.window),
        open: open.unwrap_or(default.open),
        probes: number(probes, default.probes),
    })
}

fn hedge(section: &mut Section<'_, '_>) -> Option<HedgeRule> {
    let default = HedgeRule::default();
    let after = section.checked_string("after", |text| {
        if let Some(after) = parse_duration(text) {
            return Ok(HedgeAfter::Fixed(after));
        }
        let percent = text.strip_prefix('p').and_then(|number| number.parse::<f64>().ok());
        let percent = percent.filter(|percent| (50.0..=99.9).contains(percent));
        percent
            .map(|percent| HedgeAfter::Quantile((percent * 10.0).round() as u32))
            .ok_or(r#"a time; write "p95" (from p50 to p99.9) or a duration such as "300ms""#.into())
    });
    let budget = some_share(section, "budget");
    whole(section, &[("after", after.is_some()), ("budget", budget.is_some())]).then(|| HedgeRule {
        after: after.unwrap_or(default.after),
        budget: budget.map_or(default.budget, |share| BudgetRule::new(share, default.budget.least)),
    })
}

fn failover(section: &mut Section<'_, '_>) -> Option<FailoverRule> {
    let when = words(section, "when", |word| match word {
        "breaker" => Ok(word.to_owned()),
        _ => Triggers::NONE
            .word(word)
            .map(|_| word.to_owned())
            .map_err(|remedy| format!("{remedy} or \"breaker\"")),
    });
    let changes = changes::read(section, "failover");
    if section.has("when") && when.is_none() {
        return None;
    }
    let when = when.unwrap_or_else(|| vec!["breaker".to_owned()]);
    if when.is_empty() {
        section.wrong("`when` is empty, so nothing ever goes over; write `when = [\"breaker\"]`");
        return None;
    }
    let (breaker, endings): (Vec<_>, Vec<_>) = when.iter().partition(|word| *word == "breaker");
    let on = endings.iter().try_fold(Triggers::NONE, |set, word| set.word(word).ok())?;
    Some(FailoverRule { changes: changes?, on_breaker: !breaker.is_empty(), on })
}

fn concurrency(section: &mut Section<'_, '_>) -> Option<ConcurrencyRule> {
    let table =
        section.value("concurrency").is_some_and(|value| matches!(value.get_ref(), DeValue::Table(_)));
    if !table {
        return limit(section, "concurrency").map(ConcurrencyRule::new);
    }
    let section = section.table("concurrency")?;
    let limit = limit(section, "limit");
    if !section.has("limit") {
        section.missing("limit", "write a number or \"adaptive\"");
    }
    let least = section.number("least", 1..=100_000);
    let most = section.number("most", 1..=100_000);
    let max_wait = section.checked_string("max_wait", |text| {
        // Not to wait at all is a choice here, elsewhere a mistake.
        let wait = if text.trim() == "0s" { Some(Duration::ZERO) } else { parse_duration(text) };
        wait.ok_or(r#"a duration; write it as in "1s", or "0s" to wait not at all"#.into())
    });
    let keys = [("least", least.is_some()), ("most", most.is_some()), ("max_wait", max_wait.is_some())];
    let good = whole(section, &keys);
    let number =
        |number: Option<usize>, default| number.and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
    let mut rule = ConcurrencyRule::new(limit?);
    match &mut rule.limit {
        Limit::Fixed(_) if least.is_some() || most.is_some() => {
            section.wrong(
                "`least` and `most` bound an adaptive limit; write `limit = \"adaptive\"`, or leave them out",
            );
            return None;
        }
        Limit::Fixed(_) => {}
        Limit::Adaptive { least: low, most: high } => {
            (*low, *high) = (number(least, *low), number(most, (*high).max(number(least, 1))));
            if low > high {
                section.wrong("`least` is more than `most`; exchange them");
                return None;
            }
        }
    }
    rule.max_wait = max_wait.unwrap_or(rule.max_wait);
    good.then_some(rule)
}

/// A number or `"adaptive"`.
fn limit(section: &mut Section<'_, '_>, key: &'static str) -> Option<Limit> {
    if section.value(key)?.get_ref().is_str() {
        return section.choice(key, &[("adaptive", Limit::ADAPTIVE)]);
    }
    section.number(key, 1..=100_000).and_then(|limit| u32::try_from(limit).ok()).map(Limit::Fixed)
}

#[cfg(test)]
mod tests;
