//! `[outbox_store]`: where calls that must not be lost are kept.

use super::section::Section;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A place that keeps calls.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboxPlace {
    /// An SQLite file.
    File(PathBuf),
    /// A PostgreSQL, as `postgres://user@host/database`. May hold a password: not shown by `Debug`.
    Postgres(String),
    /// The environment variable that holds one of these.
    Variable(String),
}

impl OutboxPlace {
    /// Reads one; a file's path is absolute, and a variable is written as `$NAME`.
    ///
    /// # Errors
    /// Where it is none, completing the sentence "it is not ...".
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        if let Some(name) = text.strip_prefix('$') {
            let good = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            if !name.is_empty() && name.chars().all(good) {
                return Ok(Self::Variable(name.to_owned()));
            }
        }
        if text.starts_with('/') {
            return Ok(Self::File(text.into()));
        }
        Err("a place for the outbox; write \"postgres://user@host/database\", the absolute path of a file, or \"$NAME\" for what an environment variable holds".into())
    }
}

impl fmt::Debug for OutboxPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Postgres(_) => f.debug_tuple("Postgres").field(&"..").finish(),
            Self::Variable(name) => f.debug_tuple("Variable").field(name).finish(),
        }
    }
}

/// What is done where a call cannot be kept as asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnMissingCopy {
    /// It is not taken.
    #[default]
    Refuse,
    /// It is taken with the copies that there are, and an alarm says so.
    Alarm,
}

/// Where calls that must not be lost are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxStore {
    /// `store`: a PostgreSQL that a fleet shares; without it, `outbox.db` in the home directory.
    pub store: Option<OutboxPlace>,
    /// `timeout`: how long a PostgreSQL may take for what it is asked. 5 s.
    pub timeout: Duration,
    /// `on_unreachable = "spool"`: what the PostgreSQL does not take goes into `outbox.db` in the home directory,
    /// and from there to it later. Else such a call is refused.
    pub spool: bool,
    /// `copies`: further places that have each call before it is acknowledged.
    pub copies: Vec<OutboxPlace>,
    /// `copies_needed`: in how many of these a call must be; all, where it does not say.
    pub copies_needed: Option<usize>,
    /// `[outbox_store.vendor_copies]`: the same for the calls to some vendors.
    pub vendor_copies: Vec<(String, usize)>,
    /// `on_missing_copy`: what is done with a call that cannot be in so many.
    pub on_missing_copy: OnMissingCopy,
}

impl Default for OutboxStore {
    fn default() -> Self {
        Self {
            store: None,
            timeout: Duration::from_secs(5),
            spool: false,
            copies: Vec::new(),
            copies_needed: None,
            vendor_copies: Vec::new(),
            on_missing_copy: OnMissingCopy::default(),
        }
    }
}

impl OutboxStore {
    /// In how many of the copies a call to this vendor must be.
    #[must_use]
    pub fn needed(&self, vendor: &str) -> usize {
        let own = self.vendor_copies.iter().find(|(name, _)| name == vendor).map(|(_, many)| *many);
        own.or(self.copies_needed).unwrap_or(self.copies.len()).min(self.copies.len())
    }
}

/// Where a file names the places that keep calls (`store`, `copies`): each with its line and its column, from 1, in
/// characters. What is none is left out.
#[must_use]
pub fn outbox_places(text: &str) -> Vec<(OutboxPlace, usize, usize)> {
    let Ok(root) = DeTable::parse(text) else { return Vec::new() };
    let Some(DeValue::Table(section)) = root.get_ref().get("outbox_store").map(Spanned::get_ref) else {
        return Vec::new();
    };
    let copies = section.get("copies").and_then(|copies| copies.get_ref().as_array());
    let written = section.get("store").into_iter().chain(copies.into_iter().flat_map(|copies| copies.iter()));
    let place = |value: &Spanned<DeValue<'_>>| {
        let place = OutboxPlace::parse(value.get_ref().as_str()?).ok()?;
        let before = text.get(..value.span().start)?;
        let line_before = before.rsplit('\n').next().unwrap_or_default();
        Some((place, before.matches('\n').count() + 1, line_before.chars().count() + 1))
    };
    written.filter_map(place).collect()
}

/// More copies than these are a mistake.
const MAX_COPIES: usize = 8;

pub(super) fn read(section: &mut Section<'_, '_>) -> OutboxStore {
    let default = OutboxStore::default();
    let store = section.checked_string("store", |text| match OutboxPlace::parse(text)? {
        OutboxPlace::File(_) => Err("a store that hosts share; write \"postgres://user@host/database\" or \"$NAME\" (the file is in the home directory, which FARCALL_HOME says)".into()),
        place => Ok(place),
    });
    let timeout = section.duration("timeout").filter(|timeout| !timeout.is_zero());
    let spool = section.choice("on_unreachable", &[("refuse", false), ("spool", true)]);
    if spool == Some(true) && !section.has("store") {
        section.wrong("`on_unreachable` needs a `store` that can be out of reach");
    }
    let copies = section.list("copies", OutboxPlace::parse);
    if copies.len() > MAX_COPIES {
        section.wrong(format!("`copies` names at most {MAX_COPIES} places"));
    }
    let copies_needed = section.number("copies_needed", 0..=copies.len());
    let words = [("refuse", OnMissingCopy::Refuse), ("alarm", OnMissingCopy::Alarm)];
    let on_missing_copy = section.choice("on_missing_copy", &words);
    let most = copies.len();
    let vendor_copies = section.table("vendor_copies").map(|table| {
        let whole =
            |many: f64| (many.fract() == 0.0 && (0.0..=most as f64).contains(&many)).then_some(many as usize);
        table.entries(&format!("a number of copies between 0 and {most}"), whole)
    });
    OutboxStore {
        store,
        timeout: timeout.unwrap_or(default.timeout),
        spool: spool.unwrap_or(false),
        copies,
        copies_needed,
        vendor_copies: vendor_copies.unwrap_or_default(),
        on_missing_copy: on_missing_copy.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_store_and_its_copies_are_read_and_what_is_none_is_refused() {
        let text = "[outbox_store]\nstore = \"postgres://shop:secret@db/shop\"\non_unreachable = \"spool\"\n\
            copies = [\"/mnt/b/outbox.db\", \"$COPY\"]\non_missing_copy = \"alarm\"\n\
            [outbox_store.vendor_copies]\nstripe = 2\ncoffee = 0\n";
        let read = Config::parse("f", text).unwrap().outbox_store;
        assert!(read.spool && read.on_missing_copy == OnMissingCopy::Alarm);
        assert_eq!(["stripe", "coffee", "other"].map(|vendor| read.needed(vendor)), [2, 0, 2]);
        assert_eq!(read.copies[1], OutboxPlace::Variable("COPY".into()));
        assert!(!format!("{read:?}").contains("secret"));
        let places = outbox_places(text);
        let at: Vec<(usize, usize)> = places.iter().map(|(_, line, column)| (*line, *column)).collect();
        assert_eq!((at, &places[2].0), (vec![(2, 9), (4, 11), (4, 31)], &read.copies[1]));
        for bad in [
            "store = \"/mnt/a/outbox.db\"",
            "store = \"mysql://a\"",
            "store = \"$A B\"",
            "copies = [\"outbox.db\"]",
            "copies_needed = 1",
            "on_unreachable = \"spool\"",
            "on_missing_copy = \"wait\"",
            "vendor_copies = { stripe = 1 }",
        ] {
            assert!(Config::parse("f", &format!("[outbox_store]\n{bad}\n")).is_err(), "{bad}");
        }
    }
}
