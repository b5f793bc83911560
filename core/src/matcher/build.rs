//! From keys and texts to a matcher.

use super::bytes::Comparison;
use super::text::{Pattern, Test, unnamed_pattern};
use super::{Condition, Field, Fields, Matcher, Partition, Specificity, Written};
use std::fmt;
use thiserror::Error;

/// The keys that a match can have, as people write them. `vendor.name`, `caller` and `credential.fingerprint`
/// mean `vendor`, `caller.service` and `credential`.
pub const KEYS: &[&str] = &[
    "vendor",
    "vendor.tag",
    "endpoint",
    "method",
    "host",
    "customer",
    "caller.service",
    "caller.executable",
    "caller.user",
    "caller.container",
    "credential",
    "credential.origin",
    "country",
    "tag",
    "tag.<key>",
    "data",
    "bytes",
];

/// Why a condition cannot be understood; its text says what would be right.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadMatch {
    /// No such key.
    #[error("unknown key `{key}`; {hint}")]
    UnknownKey {
        /// The key that was given.
        key: String,
        /// The nearest key, or all.
        hint: String,
    },
    /// A tag without a key.
    #[error("a tag's key is missing; write `tag.team = \"core\"` or `tag = \"team=core\"`")]
    NoTagKey,
    /// A key that already has a condition.
    #[error("`{0}` is given twice; write one list, as in [\"a\", \"b\"]")]
    Twice(String),
    /// No text, or an empty one.
    #[error("`{0}` is empty; write a text, a pattern such as \"a*\", or leave the key out")]
    Empty(String),
    /// A condition that no call can meet.
    #[error("`{0}` matches nothing; what one of its texts asks for, another forbids")]
    Never(String),
    /// Not a comparison of bytes.
    #[error("`bytes` is not a comparison; write one such as \">1MiB\", \"<=500\" or \">=10KB\"")]
    Bytes,
}

/// Gathers the conditions of a [`Matcher`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    conditions: Vec<Condition>,
    partition: Fields,
    partition_tags: Vec<Box<str>>,
    specificity: Specificity,
    written: Vec<Written>,
    seen: Vec<(Field, Box<str>)>,
}

impl Builder {
    /// Adds the condition that `key` is any of `texts`, and none of those that begin with `!`.
    ///
    /// # Errors
    /// Says what is wrong; the builder is as it was.
    pub fn add(&mut self, key: &str, texts: &[&str]) -> Result<&mut Self, BadMatch> {
        let (field, tag) = field_of(key)?;
        if self.seen.iter().any(|(seen, seen_tag)| *seen == field && seen_tag.as_ref() == tag) {
            return Err(BadMatch::Twice(key.into()));
        }
        if texts.is_empty()
            || texts.iter().any(|text| text.strip_prefix('!').unwrap_or(text).trim().is_empty())
        {
            return Err(BadMatch::Empty(key.into()));
        }
        if field == Field::Bytes {
            let [text] = texts else { return Err(BadMatch::Bytes) };
            self.conditions.push(Condition::Bytes(Comparison::parse(text).ok_or(BadMatch::Bytes)?));
            self.specificity.patterns += 1;
        } else {
            self.add_text(field, tag, key, texts)?;
        }
        self.seen.push((field, tag.into()));
        let key = if tag.is_empty() { field.as_str() } else { key };
        self.written.push((key.into(), texts.iter().map(|text| Box::from(*text)).collect()));
        Ok(self)
    }

    fn add_text(&mut self, field: Field, tag: &str, key: &str, texts: &[&str]) -> Result<(), BadMatch> {
        let trimmed: Vec<&str> = texts.iter().map(|text| text.trim()).collect();
        let (none_of, any_of): (Vec<&str>, Vec<&str>) =
            trimmed.iter().partition(|text| text.starts_with('!'));
        let none_of: Vec<&str> = none_of.iter().map(|text| text[1..].trim()).collect();
        let test = match field {
            // Tags are kept with these characters replaced, so that one cannot forge another.
            Field::Tag if !tag.is_empty() => {
                let clean = |texts: &[&str]| -> Vec<String> {
                    texts.iter().map(|text| text.replace([',', '='], "_")).collect()
                };
                let (any_of, none_of) = (clean(&any_of), clean(&none_of));
                Test::new(&any_of, &none_of)
            }
            Field::Endpoint => {
                let unnamed = |texts: &[&str]| -> Vec<String> {
                    texts.iter().map(|text| unnamed_pattern(text)).collect()
                };
                Test::new(&unnamed(&any_of), &unnamed(&none_of))
            }
            _ => Test::new(&any_of, &none_of),
        };
        let forbidden = |wanted: &Pattern| test.none_of.iter().any(|not| not.covers(wanted));
        if test.none_of.iter().any(Pattern::is_any)
            || (!test.any_of.is_empty() && test.any_of.iter().all(forbidden))
        {
            return Err(BadMatch::Never(key.into()));
        }
        let single =
            !matches!(field, Field::VendorTag | Field::Data) && (field != Field::Tag || !tag.is_empty());
        if trimmed == ["*"] && single {
            self.partition = self.partition | Fields::of(field);
            if field != Field::Tag {
                return Ok(()); // True of every call.
            }
            self.partition_tags.push(tag.into());
        }
        if test.none_of.is_empty() && test.exactly().is_some() {
            self.specificity.exact += 1;
        } else {
            self.specificity.patterns += 1;
            let patterns = test.any_of.iter().chain(&test.none_of);
            // The widest of several decides.
            let letters = patterns.map(Pattern::letters).min().unwrap_or(0);
            self.specificity.letters += u32::try_from(letters).unwrap_or(u32::MAX / 32).min(u32::MAX / 32);
        }
        self.conditions.push(match field {
            Field::VendorTag => Condition::VendorTag(test),
            Field::Data => Condition::Data(test),
            Field::Tag if tag.is_empty() => Condition::AnyTag(test),
            Field::Tag => Condition::Tag(tag.replace([',', '='], "_").into(), test),
            field => Condition::One(field, test),
        });
        Ok(())
    }

    /// The matcher of all conditions.
    #[must_use]
    pub fn build(mut self) -> Matcher {
        self.conditions
            .sort_by_key(|condition| (condition.field(), matches!(condition, Condition::AnyTag(_))));
        let fields = self.conditions.iter().fold(Fields::NONE, |all, one| all | Fields::of(one.field()));
        self.partition_tags.sort();
        Matcher {
            conditions: self.conditions.into(),
            fields,
            partition: Partition { fields: self.partition, tags: self.partition_tags.into() },
            specificity: self.specificity,
            written: self.written.into(),
        }
    }
}

/// The field of a key, and the tag's key where it is one of a single tag.
fn field_of(key: &str) -> Result<(Field, &str), BadMatch> {
    if let Some((start, tag)) = key.split_once('.')
        && start == "tag"
    {
        return if tag.is_empty() { Err(BadMatch::NoTagKey) } else { Ok((Field::Tag, tag)) };
    }
    let name = match key {
        "vendor.name" => "vendor",
        "caller" => "caller.service",
        "credential.fingerprint" => "credential",
        key => key,
    };
    Field::ALL.iter().find(|field| field.as_str() == name).map(|field| (*field, "")).ok_or_else(|| {
        let nearest = KEYS
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)));
        let hint = match nearest {
            Some(nearest) if strsim::jaro_winkler(name, nearest) > 0.7 => {
                format!("did you mean `{nearest}`?")
            }
            _ => {
                let keys: Vec<String> = KEYS.iter().map(|key| format!("`{key}`")).collect();
                format!("the keys here are {}", keys.join(", "))
            }
        };
        BadMatch::UnknownKey { key: key.into(), hint }
    })
}

/// A text as TOML's basic string.
pub(crate) fn toml_string(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => _ = write!(out, "\\u{:04X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A key with its dots as TOML writes it; the key of a tag is one word, whatever is in it.
pub(super) fn write_key(f: &mut fmt::Formatter<'_>, key: &str) -> fmt::Result {
    match key.split_once('.') {
        Some(("tag", tag)) => {
            let bare = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            if bare { write!(f, "tag.{tag}") } else { write!(f, "tag.{}", toml_string(tag)) }
        }
        _ => f.write_str(key),
    }
}
