//! The one matcher: what every rule of `farcall.toml` says after `match =`, and every filter of the command
//! line.
//!
//! A match is a list of conditions that must all hold. Each is a key and one text, or a list of texts of which
//! any may hold. A text may contain `*` for any text, and begin with `!` for its opposite; in a list the
//! opposites must all hold. Case does not matter. A bare `*` is no condition, but makes the rule's state one
//! for each value ([`Matcher::partition`]).
//!
//! ```
//! use farcall::matcher::{Matcher, Subject};
//!
//! let banks = Matcher::new([("vendor.tag", "banking"), ("caller.service", "!billing")])?;
//! let tags = ["banking".to_owned()];
//! let checkout = farcall::Caller::new("checkout");
//! let mut call = Subject::default();
//! call.vendor = "plaid";
//! call.vendor_tags = &tags;
//! call.caller = &checkout;
//! assert!(banks.matches(&call));
//! assert_eq!(banks.to_string(), r#"{ vendor.tag = "banking", caller.service = "!billing" }"#);
//! # Ok::<(), farcall::matcher::BadMatch>(())
//! ```

mod build;
mod bytes;
mod cover;
mod fields;
mod subject;
mod text;

pub use build::{BadMatch, Builder, KEYS};
pub use bytes::parse_bytes;
pub use fields::{Field, Fields, Partition, Specificity};
pub use subject::Subject;
pub use text::Text;

pub(crate) use build::toml_string;
pub(crate) use text::{Pattern, Test, lower, unnamed};

use bytes::Comparison;
use std::fmt;

/// Conditions on a call, compiled. [`Matcher::default`] matches every call.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Matcher {
    /// The cheapest and most telling first.
    conditions: Box<[Condition]>,
    fields: Fields,
    partition: Partition,
    specificity: Specificity,
    /// What was written, for people to read again.
    written: Box<[Written]>,
}

/// A key, and its texts.
type Written = (Box<str>, Box<[Box<str>]>);

/// One of the conditions that must all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// A thing of which a call has one.
    One(Field, Test),
    /// The vendor's tags.
    VendorTag(Test),
    /// The kinds of data in the call.
    Data(Test),
    /// `key=value` of any tag.
    AnyTag(Test),
    /// The value of one tag.
    Tag(Box<str>, Test),
    Bytes(Comparison),
}

impl Condition {
    fn field(&self) -> Field {
        match self {
            Self::One(field, _) => *field,
            Self::VendorTag(_) => Field::VendorTag,
            Self::Data(_) => Field::Data,
            Self::AnyTag(_) | Self::Tag(..) => Field::Tag,
            Self::Bytes(_) => Field::Bytes,
        }
    }

    fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::One(Field::Endpoint, test) => test.endpoint(subject.endpoint, subject.method),
            Self::One(field, test) => test.one(subject.text(*field)),
            Self::VendorTag(test) => test.many(subject.vendor_tags.iter().map(String::as_str)),
            Self::Data(test) => test.many(subject.data.iter().copied()),
            Self::AnyTag(test) => test.many(subject.tags.split(',')),
            Self::Tag(key, test) => test.many(subject.tag(key).into_iter()),
            Self::Bytes(comparison) => subject.bytes.is_some_and(|bytes| comparison.holds(bytes)),
        }
    }
}

impl Matcher {
    /// A matcher of these keys and texts, as a rule writes them: `("vendor.tag", "banking")`. [`Builder`] also
    /// takes lists.
    ///
    /// # Errors
    /// A key that is not known, a text that is empty, or a key that is given twice.
    pub fn new<'a>(conditions: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, BadMatch> {
        let mut builder = Builder::default();
        for (key, text) in conditions {
            builder.add(key, &[text])?;
        }
        Ok(builder.build())
    }

    /// Whether the call matches. Allocates nothing. What is not known of a call is an empty text, so that
    /// `country = "!DE"` matches a call whose country is not known; an unknown number of bytes matches no
    /// comparison.
    #[must_use]
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        self.conditions.iter().all(|condition| condition.holds(subject))
    }

    /// The keys whose conditions do not hold for the call, for people to read: empty where it matches.
    #[must_use]
    pub fn unmet(&self, subject: &Subject<'_>) -> Vec<Field> {
        let unmet = self.conditions.iter().filter(|condition| !condition.holds(subject));
        unmet.map(Condition::field).collect()
    }

    /// What it looks at: two calls that agree in these get the same answer.
    #[must_use]
    pub fn depends(&self) -> Fields {
        self.fields
    }

    /// What a bare `*` was written for: the rule's state (a budget, a quota) is one for each value of these.
    #[must_use]
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// How narrow it is; of two rules the more specific one speaks first.
    #[must_use]
    pub fn specificity(&self) -> Specificity {
        self.specificity
    }

    pub(crate) fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// The keys and texts as they were written.
    pub fn written(&self) -> impl Iterator<Item = (&str, &[Box<str>])> {
        self.written.iter().map(|(key, texts)| (key.as_ref(), texts.as_ref()))
    }
}

/// As a rule writes it: an inline table of TOML.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.written.is_empty() {
            return f.write_str("{}");
        }
        for (place, (key, texts)) in self.written.iter().enumerate() {
            f.write_str(if place == 0 { "{ " } else { ", " })?;
            let among = |start: &str| self.written.iter().any(|(key, _)| key.starts_with(start));
            match key.as_ref() {
                // TOML has no value and table under one key.
                "vendor" if among("vendor.") => f.write_str("vendor.name")?,
                "credential" if among("credential.") => f.write_str("credential.fingerprint")?,
                key => build::write_key(f, key)?,
            }
            f.write_str(" = ")?;
            match texts.as_ref() {
                [text] => f.write_str(&toml_string(text))?,
                texts => {
                    let texts: Vec<String> = texts.iter().map(|text| toml_string(text)).collect();
                    write!(f, "[{}]", texts.join(", "))?;
                }
            }
        }
        f.write_str(" }")
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matcher {self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Caller;

    fn call() -> Subject<'static> {
        static TAGS: std::sync::LazyLock<Vec<String>> =
            std::sync::LazyLock::new(|| vec!["llm".into(), "ai".into()]);
        static CALLER: std::sync::LazyLock<Caller> = std::sync::LazyLock::new(|| Caller {
            service: "checkout".into(),
            executable: "/usr/bin/python3".into(),
            container: "c0ffee".into(),
            user: "www-data".into(),
            ..Caller::default()
        });
        Subject {
            vendor: "openai",
            vendor_tags: &TAGS,
            endpoint: "POST /v1/chat/completions",
            method: "POST",
            host: "api.openai.com",
            customer: "Acme",
            tags: "env=prod,team=core",
            caller: &CALLER,
            credential: "9f86d081",
            origin: "OPENAI_API_KEY",
            country: "US",
            data: &["email", "card"],
            bytes: Some(2 << 20),
        }
    }

    fn matches(key: &str, text: &str) -> bool {
        Matcher::new([(key, text)]).unwrap().matches(&call())
    }

    #[test]
    fn every_key_is_matched_and_its_opposite_is_not() {
        let right = [
            ("vendor", "openai"),
            ("vendor.name", "OpenAI"),
            ("vendor.tag", "llm"),
            ("endpoint", "POST /v1/chat/*"),
            ("method", "post"),
            ("host", "*.openai.com"),
            ("customer", "acme"),
            ("tag.team", "core"),
            ("tag.env", "p*"),
            ("tag", "team=*"),
            ("caller", "checkout"),
            ("caller.service", "check*"),
            ("caller.executable", "*/python3"),
            ("caller.user", "www-data"),
            ("caller.container", "c0ff*"),
            ("credential", "9f86*"),
            ("credential.fingerprint", "9f86d081"),
            ("credential.origin", "OPENAI_*"),
            ("country", "us"),
            ("data", "card"),
        ];
        for (key, text) in right {
            assert!(matches(key, text), "{key} = {text}");
            assert!(!matches(key, &format!("!{text}")), "{key} = !{text}");
            assert!(!matches(key, "something else"), "{key}");
            assert!(matches(key, "!something else"), "{key}");
        }
        for key in KEYS {
            let found = right.iter().any(|(tried, _)| {
                tried == key || key.strip_suffix("<key>").is_some_and(|start| tried.starts_with(start))
            });
            assert!(found || *key == "bytes", "{key} is not tried here");
        }
    }

    #[test]
    fn bytes_are_compared_and_unknown_ones_match_nothing() {
        assert!(matches("bytes", ">1MiB") && matches("bytes", ">= 2 MiB") && matches("bytes", "<3MB"));
        assert!(!matches("bytes", ">2MiB") && !matches("bytes", "<=1000"));
        let unknown = Subject { bytes: None, ..call() };
        assert!(!Matcher::new([("bytes", ">0")]).unwrap().matches(&unknown));
        assert!(!Matcher::new([("bytes", "<=1GiB")]).unwrap().matches(&unknown));
    }

    #[test]
    fn a_list_is_any_of_and_none_of() {
        let list = |texts: &[&str]| {
            let mut builder = Builder::default();
            builder.add("endpoint", texts).unwrap();
            builder.build().matches(&call())
        };
        assert!(list(&["GET /*", "POST /*"]));
        assert!(!list(&["GET /*", "PUT /*"]));
        assert!(!list(&["POST /*", "!*/chat/*"]));
        assert!(!list(&["!POST *", "!GET *"]), "each of the opposites must hold");
        assert!(list(&["!PUT *", "!GET *"]));
    }

    #[test]
    fn all_conditions_must_hold() {
        let both =
            |customer| Matcher::new([("vendor", "openai"), ("customer", customer)]).unwrap().matches(&call());
        assert!(both("acme") && !both("globex"));
        let none = Matcher::new([("vendor", "openai"), ("customer", "x"), ("tag.team", "y")]).unwrap();
        assert_eq!(none.unmet(&call()), [Field::Customer, Field::Tag]);
        assert!(Matcher::default().matches(&call()) && Matcher::default().matches(&Subject::default()));
    }

    #[test]
    fn a_named_method_finds_an_endpoint_that_takes_any() {
        let any = Subject { endpoint: "* /v1/items/{id}", method: "GET", ..call() };
        let matches = |text| Matcher::new([("endpoint", text)]).unwrap().matches(&any);
        assert!(matches("GET /v1/items/*") && matches("* /v1/*") && matches("get /v1/items/{id}"));
        assert!(!matches("POST /v1/items/*") && !matches("!GET /v1/items/*") && matches("!POST /v1/*"));
    }

    #[test]
    fn a_placeholder_is_one_whatever_it_is_called() {
        let matches = |text: &str, endpoint: &str| {
            let call = Subject { endpoint, method: "GET", ..call() };
            Matcher::new([("endpoint", text)]).unwrap().matches(&call)
        };
        let customer = "GET /v1/customers/{customer}";
        for text in [
            "GET /v1/customers/{id}",
            "get /v1/Customers/{ID}",
            "* /v1/customers/{x}",
            "GET /v1/customers/{cus*",
            "GET /v1/customers/{*}",
            "GET /v1/customers/{rest*}",
            "*/{customer}",
            "*customer}",
        ] {
            assert!(matches(text, customer), "{text}");
            assert!(!matches(&format!("!{text}"), customer), "!{text}");
        }
        for text in [
            "GET /v1/{id}/customers",
            "GET /v1/customers/id",
            "POST /v1/customers/{id}",
            "GET /v1/customers/{id}/*",
        ] {
            assert!(!matches(text, customer), "{text}");
        }
        assert!(matches("GET /v1/customers/{id}/*", "GET /v1/customers/{customer}/sources/{source}"));
        assert!(matches("POST /v1/m/{id}:copy", "POST /v1/m/{model}:copy"));
        assert!(!matches("POST /v1/m/{id}:copy", "POST /v1/m/{model}:move"));
        assert!(
            matches("GET /api/{name}", "* /api/{method}") && !matches("POST /api/{name}", "* /api/{method}")
        );
        assert!(
            !Matcher::new([("customer", "{a}")]).unwrap().matches(&Subject { customer: "{b}", ..call() })
        );
    }

    #[test]
    fn a_missing_tag_equals_no_text() {
        assert!(!matches("tag.region", "*"), "one for each region: this call has none");
        assert!(matches("tag.region", "!eu"));
        assert!(!matches("data", "phone") && matches("data", "*"));
        assert!(!Matcher::new([("data", "*")]).unwrap().matches(&Subject { data: &[], ..call() }));
    }

    #[test]
    fn a_bare_star_partitions_and_is_no_condition() {
        let matcher =
            Matcher::new([("vendor", "openai"), ("customer", "*"), ("credential", "*"), ("tag.team", "*")])
                .unwrap();
        assert!(matcher.matches(&call()));
        assert_eq!(matcher.depends(), Fields::VENDOR | Fields::TAG);
        assert_eq!(matcher.partition().fields(), Fields::CUSTOMER | Fields::CREDENTIAL | Fields::TAG);
        assert_eq!(matcher.partition().values(&call()).collect::<Vec<_>>(), ["Acme", "9f86d081", "core"]);
        assert!(Matcher::new([("customer", "a*")]).unwrap().partition().is_empty());
    }

    #[test]
    fn exact_is_more_specific_than_a_pattern_and_that_than_none() {
        let of =
            |conditions: &[(&str, &str)]| Matcher::new(conditions.iter().copied()).unwrap().specificity();
        let order = [
            of(&[("customer", "*")]),
            of(&[("endpoint", "GET *")]),
            of(&[("endpoint", "GET /v1/*")]),
            of(&[("endpoint", "GET /v1/*"), ("caller.service", "!billing")]),
            of(&[("vendor", "openai")]),
            of(&[("vendor", "openai"), ("endpoint", "GET *")]),
            of(&[("vendor", "openai"), ("customer", "acme")]),
        ];
        assert!(order.is_sorted_by(|a, b| a < b), "{order:?}");
        assert_eq!(of(&[]), of(&[("vendor", "*")]));
    }

    #[test]
    fn what_was_written_reads_back() {
        let mut builder = Builder::default();
        builder.add("vendor", &["openai", "!az*"]).unwrap();
        builder.add("tag.cost center", &["a\"b\\c\n"]).unwrap();
        builder.add("tag.cost.center", &["x"]).unwrap();
        builder.add("bytes", &[">1MiB"]).unwrap();
        let text = builder.build().to_string();
        assert_eq!(
            text,
            "{ vendor = [\"openai\", \"!az*\"], tag.\"cost center\" = \"a\\\"b\\\\c\\n\", tag.\"cost.center\" = \"x\", bytes = \">1MiB\" }"
        );
    }

    #[test]
    fn a_thing_with_parts_is_written_as_toml_has_it() {
        let both = [("vendor.name", "openai"), ("vendor.tag", "llm"), ("credential.origin", "K*")];
        let text = r#"{ vendor.name = "openai", vendor.tag = "llm", credential.origin = "K*" }"#;
        assert_eq!(Matcher::new(both).unwrap().to_string(), text);
        assert_eq!(Matcher::new([("caller", "x")]).unwrap().to_string(), r#"{ caller.service = "x" }"#);
    }

    #[test]
    fn a_bad_condition_says_what_would_be_right() {
        let why = |key: &str, text: &str| Matcher::new([(key, text)]).unwrap_err().to_string();
        assert_eq!(why("vendr", "x"), "unknown key `vendr`; did you mean `vendor`?");
        assert_eq!(why("caller.servic", "x"), "unknown key `caller.servic`; did you mean `caller.service`?");
        assert!(why("zzz", "x").contains("the keys here are `vendor`, `vendor.tag`"));
        assert!(why("vendor", "").contains("`vendor` is empty"));
        assert!(why("vendor", "!").contains("`vendor` is empty"));
        assert!(why("vendor", "!*").contains("matches nothing"));
        assert!(why("bytes", "many").contains("\">1MiB\""));
        assert!(why("tag.", "x").contains("tag's key"));
        let twice = Matcher::new([("vendor", "a"), ("vendor.name", "b")]).unwrap_err();
        assert!(twice.to_string().contains("given twice"), "{twice}");
        let mut builder = Builder::default();
        let never = builder.add("vendor", &["a", "!A"]).unwrap_err();
        assert!(never.to_string().contains("matches nothing"), "{never}");
        assert!(builder.add("vendor", &[]).is_err());
    }
}
