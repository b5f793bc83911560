//! `[share]`: where the quotas lie that a fleet shares.

use super::section::Section;
use std::fmt;

/// The store that hosts share quotas through.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShareConfig {
    /// `redis`: a Redis or Valkey, as `redis://127.0.0.1:6379`. Without it `shared = "fleet"` is `"host"` with a
    /// part of the limit. May hold a password: not shown by `Debug`.
    pub redis: Option<String>,
    /// `prefix`: what the names of all keys in it begin with. `farcall:`.
    pub prefix: String,
    /// `hosts`: how many hosts share the quotas, while the store cannot be asked. 1.
    pub hosts: u32,
}

impl fmt::Debug for ShareConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareConfig")
            .field("redis", &self.redis.as_ref().map(|_| ".."))
            .field("prefix", &self.prefix)
            .field("hosts", &self.hosts)
            .finish()
    }
}

impl Default for ShareConfig {
    fn default() -> Self {
        Self { redis: None, prefix: "farcall:".to_owned(), hosts: 1 }
    }
}

/// Where a store is. May hold a password: not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreAddress(String);

impl StoreAddress {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// As it was written, with its password.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// Checks the address of a Redis.
pub(super) fn address(text: &str) -> Result<String, String> {
    let known = ["redis://", "redis+unix://", "unix://"].iter().any(|scheme| text.starts_with(scheme));
    known.then(|| text.to_owned()).ok_or(
        "the address of a Redis; write one such as \"redis://127.0.0.1:6379\" (without TLS: put a tunnel before it)"
            .to_owned(),
    )
}

pub(super) fn read(section: &mut Section<'_, '_>) -> ShareConfig {
    let default = ShareConfig::default();
    let redis = section.checked_string("redis", address);
    let prefix = section.checked_string("prefix", |text| {
        let good = text.len() <= 64
            && !text.contains(|letter: char| letter.is_whitespace() || "{}".contains(letter));
        good.then(|| text.to_owned())
            .ok_or("a prefix; write up to 64 characters without spaces and braces".to_owned())
    });
    let hosts = section.number("hosts", 1..=100_000).and_then(|hosts| u32::try_from(hosts).ok());
    ShareConfig { redis, prefix: prefix.unwrap_or(default.prefix), hosts: hosts.unwrap_or(default.hosts) }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn what_is_no_store_is_refused_with_a_remedy_and_a_password_is_not_shown() {
        let text = "[share]\nredis = \"redis://:secret@10.0.0.1:6379/2\"\nprefix = \"shop:\"\nhosts = 3\n";
        let share = Config::parse("f", text).unwrap().share;
        assert_eq!((share.prefix.as_str(), share.hosts), ("shop:", 3));
        assert!(
            share.redis.as_deref().unwrap().contains("secret") && !format!("{share:?}").contains("secret")
        );
        for bad in
            ["redis = \"127.0.0.1\"", "redis = \"rediss://a\"", "prefix = \"a b\"", "hosts = 0", "hots = 1"]
        {
            assert!(Config::parse("f", &format!("[share]\n{bad}\n")).is_err(), "{bad}");
        }
    }
}
