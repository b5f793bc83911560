//! Filters: `vendor=stripe`, `status>=500`, `caller.service=!billing`, the words of the rules in
//! `farcall.toml`.

use super::source::Row;
use farcall::Caller;
use std::str::FromStr;
use thiserror::Error;

/// One condition, `key op value`. The operators are `=`, `!=`, and for numbers `>=`, `<=`, `>`, `<`. A value may
/// hold `*` for any text, and start with `!` for its opposite; case does not matter.
///
/// ```
/// use farcall_agent::report::Filter;
/// assert!("vendor=stripe".parse::<Filter>().is_ok());
/// let error = "vendr=stripe".parse::<Filter>().unwrap_err();
/// assert!(error.to_string().contains("`vendr` is not a key"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    key: Key,
    operator: Operator,
    value: Value,
}

/// A filter that cannot be understood, or asks for what the report does not know.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("filter `{filter}`: {why}")]
pub struct BadFilter {
    filter: String,
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Vendor,
    Endpoint,
    Customer,
    Service,
    Executable,
    User,
    Container,
    Pid,
    Tap,
    Status,
    Outcome,
    Tag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    AtLeast,
    AtMost,
    Above,
    Below,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Number(u64),
    /// The parts between the `*`, in lower case; two of them at least where there is a `*`.
    Pattern(Vec<String>),
}

/// The keys as people write them; the first name of each is the one that is shown.
const KEYS: [(&str, Key); 13] = [
    ("vendor", Key::Vendor),
    ("endpoint", Key::Endpoint),
    ("customer", Key::Customer),
    ("caller", Key::Service),
    ("caller.service", Key::Service),
    ("caller.executable", Key::Executable),
    ("caller.user", Key::User),
    ("caller.container", Key::Container),
    ("caller.pid", Key::Pid),
    ("tap", Key::Tap),
    ("status", Key::Status),
    ("outcome", Key::Outcome),
    ("tag", Key::Tag),
];

/// Longest first: `>=` is not `>`.
const OPERATORS: [(&str, Operator); 6] = [
    ("!=", Operator::NotEqual),
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("=", Operator::Equal),
    (">", Operator::Above),
    ("<", Operator::Below),
];

impl FromStr for Filter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let bad = |why: String| BadFilter { filter: text.into(), why };
        let split = text.find(['=', '!', '<', '>']).ok_or_else(|| {
            bad("write a key, an operator and a value, as in `vendor=stripe` or `status>=500`".into())
        })?;
        let (name, rest) = text.split_at(split);
        let (sign, operator) = OPERATORS
            .into_iter()
            .find(|(sign, _)| rest.starts_with(sign))
            .ok_or_else(|| bad("the operators are = != >= <= > <".into()))?;
        let name = name.trim();
        let key = KEYS.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let (_, key) = key.ok_or_else(|| {
            let names: Vec<&str> = KEYS.iter().map(|(name, _)| *name).collect();
            bad(format!("`{name}` is not a key; the keys are {}", names.join(", ")))
        })?;
        let value = rest[sign.len()..].trim();
        let (value, operator) = match (value.strip_prefix('!'), operator) {
            (Some(value), Operator::Equal) => (value.trim(), Operator::NotEqual),
            _ => (value, operator),
        };
        if value.is_empty() {
            return Err(bad(format!("a value is missing after `{sign}`")));
        }
        let value = match key {
            Key::Status | Key::Pid => {
                Value::Number(value.parse().map_err(|_| bad(format!("`{value}` is not a whole number")))?)
            }
            _ if !matches!(operator, Operator::Equal | Operator::NotEqual) => {
                return Err(bad(format!("`{name}` is text; it goes with = and != only")));
            }
            _ => Value::Pattern(value.to_lowercase().split('*').map(str::to_owned).collect()),
        };
        Ok(Self { key, operator, value })
    }
}

impl Filter {
    /// Whether a row of calls matches.
    pub(super) fn matches(&self, row: &Row<'_>) -> bool {
        match self.key {
            Key::Vendor => self.text(row.vendor),
            Key::Endpoint => self.text(row.endpoint),
            Key::Customer => self.text(row.customer),
            Key::Tap => self.text(row.tap),
            Key::Outcome => self.text(row.outcome),
            Key::Status => self.number(row.status.into()),
            Key::Tag => {
                let found = row.tags.split(',').any(|tag| self.pattern(tag));
                found == (self.operator == Operator::Equal)
            }
            _ => self.matches_caller(row.caller),
        }
    }

    /// Whether a connection matches, of which no more is known than this.
    pub(super) fn matches_connection(&self, vendor: &str, caller: &Caller) -> bool {
        if self.key == Key::Vendor { self.text(vendor) } else { self.matches_caller(caller) }
    }

    /// Connections have no status, customer or endpoint: a filter by these would silently show nothing.
    pub(super) fn must_fit_connections(&self) -> Result<(), BadFilter> {
        let name = KEYS.iter().find(|(_, key)| *key == self.key).map_or("", |(name, _)| name);
        match self.key {
            Key::Vendor | Key::Service | Key::Executable | Key::User | Key::Container | Key::Pid => Ok(()),
            _ => Err(BadFilter {
                filter: name.into(),
                why: "connections have none; coverage can be filtered by vendor and caller".into(),
            }),
        }
    }

    /// Whether it asks for more than vendor, endpoint and caller: what only single calls have.
    pub(super) fn is_about_single_calls(&self) -> bool {
        matches!(self.key, Key::Customer | Key::Tap | Key::Status | Key::Outcome | Key::Tag)
    }

    fn matches_caller(&self, caller: &Caller) -> bool {
        match self.key {
            Key::Service => self.text(&caller.service),
            Key::Executable => self.text(&caller.executable),
            Key::User => self.text(&caller.user),
            Key::Container => self.text(&caller.container),
            Key::Pid => self.number(caller.pid.into()),
            _ => true,
        }
    }

    fn text(&self, text: &str) -> bool {
        self.pattern(text) == (self.operator == Operator::Equal)
    }

    fn pattern(&self, text: &str) -> bool {
        let Value::Pattern(parts) = &self.value else { return false };
        let text = text.to_lowercase();
        let [first, middle @ .., last] = parts.as_slice() else {
            return parts.first().is_some_and(|whole| *whole == text);
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        for part in middle {
            match rest.find(part.as_str()) {
                Some(place) => rest = &rest[place + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last.as_str())
    }

    fn number(&self, number: u64) -> bool {
        let Value::Number(wanted) = self.value else { return false };
        match self.operator {
            Operator::Equal => number == wanted,
            Operator::NotEqual => number != wanted,
            Operator::AtLeast => number >= wanted,
            Operator::AtMost => number <= wanted,
            Operator::Above => number > wanted,
            Operator::Below => number < wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(filter: &str, text: &str) -> bool {
        filter.parse::<Filter>().unwrap().text(text)
    }

    #[test]
    fn text_is_matched_with_stars_and_opposites() {
        assert!(finds("vendor=Stripe", "stripe"));
        assert!(!finds("vendor=strip", "stripe"));
        assert!(finds("vendor=s*p*", "stripe"));
        assert!(!finds("vendor=s*x*", "stripe"));
        assert!(finds("vendor=*", ""));
        assert!(!finds("endpoint=a*a", "a"), "the parts do not overlap");
        assert!(finds("caller=!billing", "checkout") && !finds("caller!=billing", "billing"));
        assert!(finds("endpoint = GET /v1/*", "GET /v1/x"));
    }

    #[test]
    fn numbers_are_compared() {
        let filter: Filter = "status >= 500".parse().unwrap();
        assert!(filter.number(500) && filter.number(503) && !filter.number(499));
        assert!("status<400".parse::<Filter>().unwrap().number(200));
    }

    #[test]
    fn a_bad_filter_says_what_would_be_right() {
        let why = |text: &str| text.parse::<Filter>().unwrap_err().to_string();
        assert!(why("stripe").contains("`vendor=stripe`"));
        assert!(why("vendr=x").contains("`vendr` is not a key; the keys are vendor, endpoint"));
        assert!(why("status>=many").contains("`many` is not a whole number"));
        assert!(why("vendor>stripe").contains("`vendor` is text"));
        assert!(why("vendor=").contains("a value is missing"));
        assert!(why("vendor!stripe").contains("the operators are"));
    }
}
