//! How far are the budgets spent?

use super::numbers::share;
use super::source::Source;
use super::{Query, ReportError, Window, time};
use farcall::budget::{Action, Limit, Unit};
use farcall::config::Rule;
use farcall::cost::VOLUME;
use farcall::matcher::{Fields, Subject};
use farcall::{Caller, Money, Timestamp, budget};
use serde::Serialize;
use std::collections::HashMap;

/// Budgets in their present periods.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Budgets {
    /// Which report this is: `budgets`.
    pub report: &'static str,
    /// The time that it covers; each row has a period of its own.
    pub window: Window,
    /// A row for each budget and each thing that it is kept apart by, what is most used first.
    pub rows: Vec<BudgetRow>,
    /// What a reader should know, in sentences.
    pub notes: Vec<String>,
}

/// One budget, for one of what it is kept apart by, in its present period.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BudgetRow {
    /// The rule's name.
    pub budget: String,
    /// The line of the rule in the configuration.
    pub line: usize,
    /// What it is kept apart by, as `customer=acme`; empty for one budget for all.
    pub partition: String,
    /// Spent in the period, in `unit`, as an exact decimal number.
    pub spent: String,
    /// The limit, likewise.
    pub limit: String,
    /// `requests`, `tokens`, or a currency.
    pub unit: String,
    /// `spent` by `limit`; above 1 where more was spent.
    pub share: f64,
    /// `minute`, `hour`, `day`, `week`, `month`.
    pub period: String,
    /// When the period began, RFC 3339 in UTC.
    pub from: String,
    /// When it ends.
    pub to: String,
    /// What the rule does with calls now: `pass`, `warn`, `throttle`, `downgrade`, `refuse`.
    pub now: String,
    /// What it does beyond the limit.
    pub over: String,
}

/// How far are the budgets spent: those of the configuration that programs of this home read, in their present
/// periods, over all processes that share the ledger.
///
/// # Errors
/// When there is no ledger, it cannot be read, or a filter asks for what budgets do not have.
pub fn budgets(query: &Query) -> Result<Budgets, ReportError> {
    let source = Source::open(query)?;
    let spending = spending(&source)?;
    let mut rows: Vec<(f64, BudgetRow)> = Vec::new();
    for rule in &source.config.budgets {
        let period = rule.then.limit.period.number(query.now);
        let account = rule.then.account(&rule.account);
        let mut found: Vec<(&str, u64)> = spending
            .iter()
            .filter(|((name, _, number), _)| *name == account && *number == period)
            .map(|((_, partition, _), spent)| (partition.as_str(), *spent))
            .collect();
        if found.is_empty() && rule.matcher.partition().is_empty() {
            found.push(("", 0));
        }
        for (partition, spent) in found {
            if fits(&source, rule, partition)? {
                let row = BudgetRow::new(rule, partition, spent, query.now);
                rows.push((row.share, row));
            }
        }
    }
    rows.sort_by(|a, b| {
        b.0.total_cmp(&a.0).then_with(|| (&a.1.budget, &a.1.partition).cmp(&(&b.1.budget, &b.1.partition)))
    });
    let rows: Vec<BudgetRow> = rows.into_iter().map(|(_, row)| row).collect();
    let mut notes: Vec<String> = source.config_problem.clone().into_iter().collect();
    if !notes.is_empty() && source.config.budgets.is_empty() {
        // Whether it has any is not known.
    } else if source.config.budgets.is_empty() {
        notes.push(
            "The farcall.toml here has no [[budget]]; docs/budget.md shows one. Programs that read another file \
             keep to the budgets of that."
                .to_owned(),
        );
    } else if rows.is_empty() {
        notes.push("Nothing was spent in the present periods yet.".to_owned());
    }
    let known =
        |name: &str| source.config.budgets.iter().any(|rule| rule.then.account(&rule.account) == *name);
    let mut gone: Vec<&str> = spending
        .keys()
        .map(|(name, ..)| name.as_str())
        .filter(|name| !known(name) && !name.starts_with(VOLUME))
        .collect();
    gone.sort_unstable();
    gone.dedup();
    if !gone.is_empty() {
        notes.push(format!(
            "Spent before under names that the configuration does not have (any more): {}.",
            gone.join(", ")
        ));
    }
    Ok(Budgets { report: "budgets", window: query.window(), rows, notes })
}

/// By budget, partition and period.
type Spending = HashMap<(String, String, u64), u64>;

fn spending(source: &Source<'_>) -> Result<Spending, ReportError> {
    let mut spending = Spending::new();
    let Some(connection) = source.connection() else { return Ok(spending) };
    let mut statement = connection.prepare("SELECT budget, partition, period, spent FROM spending")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let period = row.get::<_, i64>(2)?.unsigned_abs();
        spending
            .insert((row.get(0)?, row.get(1)?, period), u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0));
    }
    Ok(spending)
}

/// Whether the filters let a row through: by what it is kept apart by, else by what its rule's match says in
/// one exact word.
fn fits(source: &Source<'_>, rule: &Rule<budget::Rule>, partition: &str) -> Result<bool, ReportError> {
    let mut words: HashMap<&str, &str> = rule
        .matcher
        .written()
        .filter_map(|(key, texts)| match texts {
            [text] if !text.contains('*') && !text.starts_with('!') => Some((key, text.as_ref())),
            _ => None,
        })
        .collect();
    words.extend(parts(rule, partition));
    let word = |key: &str| words.get(key).copied().unwrap_or_default();
    let tags: Vec<String> = words
        .iter()
        .filter_map(|(key, value)| Some(format!("{}={value}", key.strip_prefix("tag.")?)))
        .collect();
    let tags = tags.join(",");
    let caller = Caller {
        service: word("caller.service").into(),
        executable: word("caller.executable").into(),
        user: word("caller.user").into(),
        container: word("caller.container").into(),
        ..Caller::default()
    };
    let mut subject = Subject::default();
    subject.vendor = word("vendor");
    subject.vendor_tags = source.tags(subject.vendor);
    subject.country = source.country(subject.vendor);
    subject.endpoint = word("endpoint");
    subject.customer = word("customer");
    subject.tags = &tags;
    subject.caller = &caller;
    let known = Fields::VENDOR
        | Fields::VENDOR_TAG
        | Fields::ENDPOINT
        | Fields::CUSTOMER
        | Fields::TAG
        | Fields::CALLER;
    for filter in &source.query.filters {
        if !filter.matches_other(&subject, known, "budgets")? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A partition in words, `customer=acme tag.team=core`, taken apart again. Its keys are known, so that values
/// may hold spaces.
fn parts<'p>(rule: &'p Rule<budget::Rule>, partition: &'p str) -> Vec<(&'p str, &'p str)> {
    let starred = rule.matcher.written().filter(|(_, texts)| texts.iter().any(|text| &**text == "*"));
    let mut starts: Vec<(usize, &str)> = starred
        .filter_map(|(key, _)| {
            let mut places = partition.match_indices(key).map(|(place, _)| place);
            let place = places.find(|&place| {
                (place == 0 || partition[..place].ends_with(' '))
                    && partition[place + key.len()..].starts_with('=')
            })?;
            Some((place, key))
        })
        .collect();
    starts.sort_unstable();
    let ends = starts.iter().skip(1).map(|(place, _)| place - 1).chain([partition.len()]);
    let ends: Vec<usize> = ends.collect();
    starts
        .into_iter()
        .zip(ends)
        .map(|((place, key), end)| (key, partition.get(place + key.len() + 1..end).unwrap_or_default()))
        .collect()
}

impl BudgetRow {
    fn new(rule: &Rule<budget::Rule>, partition: &str, spent: u64, now: Timestamp) -> Self {
        let Limit { amount, unit, period, .. } = rule.then.limit;
        let number = period.number(now);
        let words = |units: u64| match unit {
            Unit::Money(currency) => {
                let money = Money::from_nanos(i64::try_from(units).unwrap_or(i64::MAX), currency).to_string();
                money.split(' ').next().unwrap_or_default().to_owned()
            }
            _ => units.to_string(),
        };
        Self {
            budget: rule.name.to_string(),
            line: rule.line,
            partition: partition.to_owned(),
            spent: words(spent),
            limit: words(amount),
            unit: unit.to_string(),
            share: share(spent, amount),
            period: period.as_str().to_owned(),
            from: time::rfc3339(period.start(number).as_nanos()),
            to: time::rfc3339(period.start(number + 1).as_nanos()),
            now: acts(&rule.then, spent).to_owned(),
            over: word(rule.then.over).to_owned(),
        }
    }
}

/// What a rule does with calls when so much is spent.
fn acts(rule: &budget::Rule, spent: u64) -> &'static str {
    let Limit { amount, .. } = rule.limit;
    if spent >= amount {
        return word(rule.over);
    }
    let reached = |percent: u8| u128::from(spent) * 100 >= u128::from(amount) * u128::from(percent);
    rule.at.iter().rev().find(|(percent, _)| reached(*percent)).map_or("pass", |(_, action)| word(*action))
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Throttle => "throttle",
        Action::Downgrade => "downgrade",
        Action::Refuse => "refuse",
        _ => "warn",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farcall::Config;

    #[test]
    fn a_partition_is_taken_apart_by_its_keys() {
        let text =
            "[[budget]]\nmatch = { customer = \"*\", tag.team = \"*\" }\nlimit = \"5 requests / day\"\n";
        let config = Config::parse("f", text).unwrap();
        let rule = &config.budgets[0];
        assert_eq!(
            parts(rule, "customer=Big Corp tag.team=core"),
            [("customer", "Big Corp"), ("tag.team", "core")]
        );
        assert_eq!(parts(rule, "customer=a=b tag.team="), [("customer", "a=b"), ("tag.team", "")]);
        assert_eq!(parts(rule, ""), []);
    }

    #[test]
    fn the_highest_mark_that_is_reached_acts() {
        let text = "[[budget]]\nmatch = {}\nlimit = \"100 requests / day\"\nat_50_percent = \"warn\"\nat_80_percent = \"throttle\"\nover = \"refuse\"\n";
        let config = Config::parse("f", text).unwrap();
        let words = [0, 49, 50, 80, 99, 100, u64::MAX].map(|spent| acts(&config.budgets[0].then, spent));
        assert_eq!(words, ["pass", "pass", "warn", "throttle", "throttle", "refuse", "refuse"]);
    }
}
