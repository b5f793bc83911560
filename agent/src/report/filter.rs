//! Filters: `vendor=stripe`, `status>=500`, `caller.service=!billing`, the words of the rules in
//! `farcall.toml`.

use super::row::Row;
use farcall::Caller;
use farcall::matcher::{Field, Fields, Matcher, Subject, Text};
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
    test: Test,
    /// As it was written: its key and its operator, and its value.
    written: (String, String),
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
    /// One that rules have too; the matcher knows it.
    Rule(Field),
    Pid,
    Tap,
    Status,
    Outcome,
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
enum Test {
    Rule(Matcher),
    Text(Text),
    Number(Operator, u64),
}

/// The keys as people write them; the first name of each is the one that is shown.
const KEYS: [(&str, Key); 16] = [
    ("vendor", Key::Rule(Field::Vendor)),
    ("vendor.tag", Key::Rule(Field::VendorTag)),
    ("endpoint", Key::Rule(Field::Endpoint)),
    ("method", Key::Rule(Field::Method)),
    ("customer", Key::Rule(Field::Customer)),
    ("caller", Key::Rule(Field::Service)),
    ("caller.service", Key::Rule(Field::Service)),
    ("caller.executable", Key::Rule(Field::Executable)),
    ("caller.user", Key::Rule(Field::User)),
    ("caller.container", Key::Rule(Field::Container)),
    ("caller.pid", Key::Pid),
    ("tap", Key::Tap),
    ("status", Key::Status),
    ("outcome", Key::Outcome),
    ("tag", Key::Rule(Field::Tag)),
    (ONE_TAG, Key::Rule(Field::Tag)),
];

/// Stands for the keys of all tags.
const ONE_TAG: &str = "tag.<key>";

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
        let (known, key) = KEYS
            .into_iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name) || (*known == ONE_TAG && is_one_tag(name)))
            .ok_or_else(|| {
                let names: Vec<&str> = KEYS.iter().map(|(name, _)| *name).collect();
                bad(format!("`{name}` is not a key; the keys are {}", names.join(", ")))
            })?;
        let value = rest[sign.len()..].trim();
        let (bare, operator) = match (value.strip_prefix('!'), operator) {
            (Some(value), Operator::Equal) => (value.trim(), Operator::NotEqual),
            _ => (value, operator),
        };
        if bare.is_empty() {
            return Err(bad(format!("a value is missing after `{sign}`")));
        }
        let written = (format!("{name}{sign}"), value.to_owned());
        if let Key::Status | Key::Pid = key {
            let number = bare.parse().map_err(|_| bad(format!("`{bare}` is not a whole number")))?;
            return Ok(Self { key, test: Test::Number(operator, number), written });
        }
        let text = match operator {
            Operator::Equal => bare.to_owned(),
            Operator::NotEqual => format!("!{bare}"),
            _ => return Err(bad(format!("`{name}` is text; it goes with = and != only"))),
        };
        let test = match key {
            Key::Rule(_) => {
                let written = match known {
                    ONE_TAG => format!("tag.{}", &name[ONE_TAG_START.len()..]),
                    known => known.to_owned(),
                };
                let matcher = Matcher::new([(written.as_str(), text.as_str())]);
                Test::Rule(matcher.map_err(|error| bad(error.to_string()))?)
            }
            _ => Test::Text(Text::new(&text)),
        };
        Ok(Self { key, test, written })
    }
}

const ONE_TAG_START: &str = "tag.";

fn is_one_tag(name: &str) -> bool {
    name.get(..ONE_TAG_START.len()).is_some_and(|start| start.eq_ignore_ascii_case(ONE_TAG_START))
        && name.len() > ONE_TAG_START.len()
}

/// What a rule may be about in a row of calls.
pub(super) fn subject_of<'r>(row: &Row<'r>) -> Subject<'r> {
    let mut subject = Subject::default();
    subject.vendor = row.vendor;
    subject.vendor_tags = row.vendor_tags;
    subject.endpoint = row.endpoint;
    // A rollup knows the method by its endpoint; `*` where that takes any.
    subject.method = row.endpoint.split_once(' ').map_or("", |(method, _)| method);
    subject.customer = row.customer;
    subject.tags = row.tags;
    subject.caller = row.caller;
    subject
}

impl Filter {
    /// Whether a row of calls matches.
    pub(super) fn matches(&self, row: &Row<'_>) -> bool {
        match &self.test {
            Test::Rule(matcher) => matcher.matches(&subject_of(row)),
            Test::Text(text) => match self.key {
                Key::Tap => text.matches(row.tap),
                _ => text.matches(row.outcome),
            },
            Test::Number(operator, wanted) => match self.key {
                Key::Status => operator.holds(row.status.into(), *wanted),
                _ => operator.holds(row.caller.pid.into(), *wanted),
            },
        }
    }

    /// Whether a connection matches, of which no more is known than this.
    pub(super) fn matches_connection(&self, vendor: &str, tags: &[String], caller: &Caller) -> bool {
        match &self.test {
            Test::Rule(matcher) if self.is_about_connections() => {
                let mut subject = Subject::default();
                subject.vendor = vendor;
                subject.vendor_tags = tags;
                subject.caller = caller;
                matcher.matches(&subject)
            }
            Test::Number(operator, wanted) if self.key == Key::Pid => {
                operator.holds(caller.pid.into(), *wanted)
            }
            _ => true,
        }
    }

    /// Connections have no status, customer or endpoint: a filter by these would silently show nothing.
    pub(super) fn must_fit_connections(&self) -> Result<(), BadFilter> {
        if self.is_about_connections() {
            return Ok(());
        }
        Err(BadFilter {
            filter: self.name().into(),
            why: "connections have none; coverage can be filtered by vendor and caller".into(),
        })
    }

    pub(super) fn is_about_connections(&self) -> bool {
        matches!(
            self.key,
            Key::Pid
                | Key::Rule(
                    Field::Vendor
                        | Field::VendorTag
                        | Field::Service
                        | Field::Executable
                        | Field::User
                        | Field::Container
                )
        )
    }

    /// The name that it gives for a vendor; `None` for a pattern.
    pub(super) fn vendor(&self) -> Option<&str> {
        let (Test::Rule(matcher), Key::Rule(Field::Vendor)) = (&self.test, self.key) else { return None };
        let (_, texts) = matcher.written().next()?;
        let name = texts.first()?.trim_start_matches('!').trim();
        (!name.contains('*')).then_some(name)
    }

    /// The text that it asks for; `None` where it asks for a number, or for any other text.
    pub(super) fn wanted(&self) -> Option<&str> {
        let (start, value) = &self.written;
        let asks =
            !matches!(self.test, Test::Number(..)) && !start.ends_with("!=") && !value.starts_with('!');
        asks.then_some(value.as_str())
    }

    /// What a row has of that which it asks for.
    pub(super) fn values<'r>(&self, subject: &Subject<'r>, tap: &'r str, outcome: &'r str) -> Vec<&'r str> {
        let tags = || subject.tags.split(',');
        vec![match self.key {
            Key::Pid | Key::Status => return Vec::new(),
            Key::Tap => tap,
            Key::Outcome => outcome,
            Key::Rule(Field::Vendor) => subject.vendor,
            Key::Rule(Field::VendorTag) => return subject.vendor_tags.iter().map(String::as_str).collect(),
            Key::Rule(Field::Endpoint) => subject.endpoint,
            Key::Rule(Field::Method) => subject.method,
            Key::Rule(Field::Customer) => subject.customer,
            Key::Rule(Field::Service) => &subject.caller.service,
            Key::Rule(Field::Executable) => &subject.caller.executable,
            Key::Rule(Field::User) => &subject.caller.user,
            Key::Rule(Field::Container) => &subject.caller.container,
            Key::Rule(Field::Tag) => match self.tag_key() {
                Some(key) => {
                    return tags().filter_map(|tag| tag.strip_prefix(key)?.strip_prefix('=')).collect();
                }
                None => return tags().collect(),
            },
            Key::Rule(_) => return Vec::new(),
        }]
    }

    /// The key of the tag whose value it asks for.
    fn tag_key(&self) -> Option<&str> {
        let name = self.written.0.trim_end_matches(['=', '!']);
        is_one_tag(name).then(|| &name[ONE_TAG_START.len()..])
    }

    pub(super) fn is_about_vendors(&self) -> bool {
        self.key == Key::Rule(Field::Vendor)
    }

    /// As a shell takes it.
    pub(super) fn quoted(&self) -> String {
        quoted(format!("{}{}", self.written.0, self.written.1))
    }

    /// The same filter for another text, as a shell takes it.
    pub(super) fn asking_for(&self, value: &str) -> String {
        quoted(format!("{}{value}", self.written.0))
    }

    /// That it can match nothing, and why.
    pub(super) fn idle(&self, why: String) -> BadFilter {
        BadFilter { filter: format!("vendor={}", self.vendor().unwrap_or_default()), why }
    }

    /// Whether something matches that is no call, and of which only `known` is known.
    pub(super) fn matches_other(
        &self,
        subject: &Subject<'_>,
        known: Fields,
        what: &str,
    ) -> Result<bool, BadFilter> {
        match (&self.test, self.key) {
            (Test::Rule(matcher), Key::Rule(field)) if known.contains(Fields::of(field)) => {
                Ok(matcher.matches(subject))
            }
            _ => Err(BadFilter {
                filter: self.name().into(),
                why: format!("{what} have none; they can be filtered by {}", words(known)),
            }),
        }
    }

    fn name(&self) -> &'static str {
        KEYS.iter().find(|(_, key)| *key == self.key).map_or("", |(name, _)| name)
    }

    /// Whether it asks for more than vendor, endpoint and caller: what only single calls have.
    pub(super) fn is_about_single_calls(&self) -> bool {
        matches!(self.key, Key::Rule(Field::Customer | Field::Tag) | Key::Tap | Key::Status | Key::Outcome)
    }
}

/// In quotes where a shell would take it apart.
fn quoted(filter: String) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "=.,:/@%+-_".contains(letter);
    match filter.chars().all(is_plain) {
        true => filter,
        false => format!("'{}'", filter.replace('\'', "'\\''")),
    }
}

/// The keys of these fields, as people write them.
fn words(fields: Fields) -> String {
    let known = |key: &Key| matches!(key, Key::Rule(field) if fields.contains(Fields::of(*field)));
    let mut names: Vec<&str> = KEYS.iter().filter(|(_, key)| known(key)).map(|(name, _)| *name).collect();
    let last = names.pop().unwrap_or_default();
    if names.is_empty() { last.to_owned() } else { format!("{} and {last}", names.join(", ")) }
}

impl Operator {
    fn holds(self, number: u64, wanted: u64) -> bool {
        match self {
            Self::Equal => number == wanted,
            Self::NotEqual => number != wanted,
            Self::AtLeast => number >= wanted,
            Self::AtMost => number <= wanted,
            Self::Above => number > wanted,
            Self::Below => number < wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farcall::ledger::{Sketch, Sums};
    use std::rc::Rc;

    /// Whether a row with this text everywhere matches.
    fn finds(filter: &str, text: &str) -> bool {
        let text: Rc<str> = text.into();
        let caller = Rc::new(Caller { pid: 7, ..Caller::new(text.as_ref()) });
        let row = Row {
            span: 1,
            vendor: &text,
            vendor_tags: &["llm".to_owned()],
            endpoint: &text,
            customer: &text,
            tags: "env=prod,team=core",
            caller: &caller,
            tap: "kernel",
            status: 503,
            outcome: "complete",
            sums: Sums::default(),
            latency: Sketch::default(),
        };
        filter.parse::<Filter>().unwrap().matches(&row)
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
        assert!(finds("method=get", "GET /v1/x") && !finds("method=POST", "GET /v1/x"));
    }

    #[test]
    fn tags_taps_and_outcomes_are_text_too() {
        assert!(finds("tag=team=core", "") && finds("tag=!team=web", "") && !finds("tag=team", ""));
        assert!(finds("tag.team=c*", "") && finds("TAG.team!=web", "") && !finds("tag.region=*", ""));
        assert!(finds("tap=Kern*", "") && !finds("tap!=kernel", "") && finds("outcome=!reset", ""));
    }

    #[test]
    fn vendors_are_found_by_their_kind() {
        assert!(finds("vendor.tag=LL*", "") && !finds("vendor.tag=payments", ""));
        assert!(finds("vendor.tag!=payments", "") && !finds("vendor.tag=!llm", ""));
    }

    #[test]
    fn numbers_are_compared() {
        assert!(finds("status >= 500", "") && finds("status=503", "") && !finds("status>503", ""));
        assert!(!finds("status<400", "") && finds("status!=200", "") && finds("caller.pid<=7", ""));
    }

    #[test]
    fn a_bad_filter_says_what_would_be_right() {
        let why = |text: &str| text.parse::<Filter>().unwrap_err().to_string();
        assert!(why("stripe").contains("`vendor=stripe`"));
        assert!(why("vendr=x").contains("`vendr` is not a key; the keys are vendor, vendor.tag, endpoint"));
        assert!(why("status>=many").contains("`many` is not a whole number"));
        assert!(why("vendor>stripe").contains("`vendor` is text"));
        assert!(why("vendor=").contains("a value is missing"));
        assert!(why("vendor!stripe").contains("the operators are"));
        assert!(why("vendor!=*").contains("matches nothing"));
        assert!(why("tag.=x").contains("`tag.` is not a key"));
    }
}
