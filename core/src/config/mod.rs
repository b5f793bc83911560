//! `farcall.toml`: parse, don't validate. What leaves this module is never checked again.
//!
//! All errors of a file are reported at once, each with its line and column and what to write instead. A file
//! with errors still gives everything in it that is right, so that a typing mistake in one vendor does not
//! switch off the others; whoever loads the file decides whether to accept that.

mod advise;
mod alarm;
mod budget;
mod cache;
mod changes;
mod data;
mod dialect;
mod duration;
mod elsewhere;
mod error;
mod fault;
mod ledger;
mod matcher;
mod nearest;
mod otlp;
mod outbox;
mod outbox_store;
mod policy;
mod price;
mod quota;
mod resilience;
mod rollout;
mod rule;
mod scenario;
mod section;
mod share;
mod text;
mod vendor;
mod warn;

pub use alarm::AlarmConfig;
pub use duration::parse_duration;
pub use error::{ConfigError, ConfigWarning};
pub use ledger::LedgerConfig;
pub use nearest::nearest_name;
pub use otlp::OtlpConfig;
pub use outbox_store::{OnMissingCopy, OutboxPlace, OutboxStore, outbox_places};
pub use rule::Rule;
pub use share::{ShareConfig, StoreAddress};
pub use text::text_of;

pub(crate) use matcher::can_be_unnamed;
pub(crate) use scenario::read as read_scenario;

use crate::advise::AdviseConfig;
use crate::catalogue::Vendor;
use crate::cost::Price;
use crate::inspect::Carried;
use crate::policy::{Mode, Policy};
use crate::units::Timestamp;
use crate::{
    budget as budgets, cache as caches, fault as faults, outbox as outboxes, quota as quotas,
    resilience as resiliences, rollout as rollouts,
};
use section::Section;
use std::time::Duration;

/// What `farcall.toml` says; [`Config::default`] is an empty file.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// `service`: the name under which this program's calls appear. Without it the agent derives one
    /// (`OTEL_SERVICE_NAME`, else the program's name).
    pub service: Option<String>,
    /// `[ledger]`: how much detail is kept, and how long.
    pub ledger: LedgerConfig,
    /// `[advise]`: what is remembered for `farcall advise`.
    pub advise: AdviseConfig,
    /// `[share]`: where the quotas lie that a fleet shares.
    pub share: ShareConfig,
    /// `[outbox_store]`: where calls that must not be lost are kept.
    pub outbox_store: OutboxStore,
    /// `[[vendor]]`: vendors beside the built-in ones, or instead of those with the same name.
    pub vendors: Vec<Vendor>,
    /// `policy_mode`: whether the rules of `[[policy]]` that have no `mode` of their own are enforced, as is the
    /// default, or only reported.
    pub policy_mode: Mode,
    /// `[[policy]]`: which calls may be made.
    pub policies: Vec<Rule<Policy>>,
    /// `[[rollout]]`: who takes which variant, and kill switches.
    pub rollouts: Vec<Rule<rollouts::Rule>>,
    /// `allow_faults`: whether `[[fault]]` is obeyed.
    pub allow_faults: bool,
    /// `[[fault]]`: what is injected.
    pub faults: Vec<Rule<faults::Rule>>,
    /// `[[budget]]`: what we allow ourselves.
    pub budgets: Vec<Rule<budgets::Rule>>,
    /// `[[quota]]`: how quotas are kept to.
    pub quotas: Vec<Rule<quotas::Rule>>,
    /// `[[resilience]]`: what is done about calls that fail.
    pub resilience: Vec<Rule<resiliences::Rule>>,
    /// `[[cache]]`: which answers are kept.
    pub caches: Vec<Rule<caches::Rule>>,
    /// `cache_memory`: how many bytes of answers are kept at most; `None` where it does not say.
    pub cache_memory: Option<u64>,
    /// `[[outbox]]`: which calls are parked when they fail, and which are critical.
    pub outbox: Vec<Rule<outboxes::Rule>>,
    /// `[alarm]`: who is told when a critical call fails.
    pub alarm: AlarmConfig,
    /// `[otlp]`: the collector that gets what is told by OpenTelemetry.
    pub otlp: OtlpConfig,
    /// `cache_disk`: how many bytes of answers the processes of a host keep together on its disk; `None`: none.
    pub cache_disk: Option<u64>,
    /// `cache_disk_wait`: how long a call waits for that disk at most; `None` where it does not say.
    pub cache_disk_wait: Option<Duration>,
    /// `cache_redis`: a Redis or Valkey that hosts share answers through, as `redis://127.0.0.1:6379`.
    pub cache_redis: Option<StoreAddress>,
    /// `cache_redis_wait`: how long a call waits for it at most; `None` where it does not say.
    pub cache_redis_wait: Option<Duration>,
    /// `[[data]]`: the kinds of data that requests carry.
    pub data: Vec<Rule<Carried>>,
    /// `[[price]]`: what vendors ask, instead of what the catalogue says.
    pub prices: Vec<Price>,
}

impl Config {
    /// The prices of this file, those within vendors first: the later one wins.
    #[must_use]
    pub fn own_prices(&self) -> Vec<Price> {
        self.vendors.iter().flat_map(|vendor| &vendor.prices).chain(&self.prices).cloned().collect()
    }

    /// Why no call can be to a vendor of this name, in words that help; `None` where one can: it is built in, in this
    /// file, or a domain that nobody named.
    #[must_use]
    pub fn objection_to_vendor(&self, name: &str) -> Option<String> {
        matcher::VendorNames::new(&self.vendors).objection(name)
    }

    /// The vendors that have hosts below a domain, the first three: calls to these are theirs, and not those of what
    /// nobody named of the domain. None below what is a vendor's name itself.
    #[must_use]
    pub fn vendors_below(&self, domain: &str) -> Vec<String> {
        warn::vendors_below(self, domain)
    }

    /// Reads the text of a configuration file; `file` is the name that errors show.
    ///
    /// # Errors
    /// All that is wrong with it, in the order of the file.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<ConfigError>> {
        let (config, errors) = Self::read(file, text);
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }

    /// What in the text that this was read from is allowed, and surely not meant, in the order of the file: a rule
    /// that no call can meet, or that another leaves nothing to do. `now` tells which faults have ended.
    #[must_use]
    pub fn warnings(&self, file: &str, text: &str, now: Timestamp) -> Vec<ConfigWarning> {
        warn::warnings(self, file, text, now)
    }

    /// Reads the text of a configuration file, and gives what is right in it beside what is wrong.
    #[must_use]
    pub fn read(file: &str, text: &str) -> (Self, Vec<ConfigError>) {
        let mut config = Self::default();
        let outline = |root: &mut Section<'_, '_>| Self::default().read_root(root);
        let errors = section::read_outlined(file, text, &outline, |root| config.read_root(root));
        (config, errors)
    }

    fn read_root(&mut self, root: &mut Section<'_, '_>) {
        self.service = root.string("service");
        if let Some(section) = root.table("ledger") {
            self.ledger = ledger::read(section);
        }
        if let Some(section) = root.table("advise") {
            self.advise = advise::read(section);
        }
        if let Some(section) = root.table("share") {
            self.share = share::read(section);
        }
        if let Some(section) = root.table("outbox_store") {
            self.outbox_store = outbox_store::read(section);
        }
        if let Some(section) = root.table("alarm") {
            self.alarm = alarm::read(section);
        }
        if let Some(section) = root.table("otlp") {
            self.otlp = otlp::read(section);
        }
        for section in root.tables("vendor") {
            self.vendors.extend(vendor::read(section));
        }
        let vendors = matcher::VendorNames::new(&self.vendors);
        self.policy_mode = root.choice("policy_mode", &policy::MODES).unwrap_or_default();
        let mode = self.policy_mode;
        self.policies = rule::rules(root, "policy", &vendors, |section| policy::read(section, mode));
        self.rollouts = rule::rules(root, "rollout", &vendors, rollout::read);
        self.allow_faults = root.boolean("allow_faults").unwrap_or_default();
        let allowed = self.allow_faults;
        self.faults = rule::rules(root, "fault", &vendors, |section| fault::read(section, allowed));
        self.budgets = rule::rules(root, "budget", &vendors, budget::read);
        self.quotas = rule::rules(root, "quota", &vendors, quota::read);
        self.resilience = rule::rules(root, "resilience", &vendors, resilience::read);
        self.caches = rule::rules(root, "cache", &vendors, cache::read);
        self.cache_memory = cache::bytes(root, "cache_memory", "64MiB");
        self.cache_disk = cache::bytes(root, "cache_disk", "1GiB");
        self.cache_redis = root.checked_string("cache_redis", share::address).map(StoreAddress::new);
        self.cache_redis_wait = cache::wait(root, "cache_redis_wait", "5ms");
        self.cache_disk_wait = cache::wait(root, "cache_disk_wait", "1s");
        self.outbox = rule::rules(root, "outbox", &vendors, outbox::read);
        self.data = rule::rules(root, "data", &vendors, data::read);
        self.prices = root
            .tables("price")
            .iter_mut()
            .filter_map(|section| price::read(section, Ok(&vendors)))
            .collect();
        // Their draws are salted with their names, so that two of them choose independently.
        self.rollouts.iter_mut().for_each(|rule| rule.then.name = rule.name.as_ref().into());
        self.faults.iter_mut().for_each(|rule| rule.then.name = rule.name.as_ref().into());
    }
}

/// Reads a file of the catalogue's prices: nothing but `[[price]]`.
pub(crate) fn read_prices(file: &str, text: &str) -> (Vec<Price>, Vec<ConfigError>) {
    let (config, errors) = Config::read(file, text);
    (config.prices, errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn errors(text: &str) -> Vec<String> {
        Config::parse("farcall.toml", text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_file_is_read() {
        let config = Config::parse(
            "farcall.toml",
            r#"
            service = "checkout"
            [ledger]
            retention = "7d"
            max_series = 2000
            [[vendor]]
            name = "internal-search"
            label = "Search team"
            hosts = ["search.internal", "*.Search.internal"]
            tags = ["internal"]
            endpoints = ["GET /q/{term}"]
            "#,
        )
        .unwrap();
        assert_eq!(config.service.as_deref(), Some("checkout"));
        assert_eq!(config.ledger.retention, Duration::from_secs(7 * 86_400));
        assert_eq!(config.ledger.max_series, 2000);
        assert_eq!(config.vendors[0].hosts, ["search.internal", "*.search.internal"]);
        assert_eq!(config.vendors[0].endpoints[0].as_str(), "GET /q/{term}");
    }

    #[test]
    fn the_example_file_is_right_and_says_the_defaults() {
        let text = include_str!("../../../farcall.example.toml");
        let config = Config::parse("farcall.example.toml", text).unwrap();
        assert_eq!(config.ledger, LedgerConfig::default());
        assert_eq!(config.advise, AdviseConfig::default());
        assert_eq!(config.vendors.len(), 1);
    }

    #[test]
    fn all_errors_come_at_once_with_place_and_remedy() {
        let errors = errors(
            "servcie = \"x\"\n[ledger]\nretention = \"7 fortnights\"\nmax_series = \"many\"\n[[vendor]]\nname = \"A B\"\nhosts = [\"a.example\", 7]\nendpoints = [\"FETCH\"]\n",
        );
        let expected = [
            "farcall.toml:1:1: unknown key `servcie`; did you mean `service`?",
            "farcall.toml:3:13: `retention` is not a duration; write a number and a unit, such as \"30s\", \"5m\", \"1h\" or \"7d\"",
            "farcall.toml:4:14: `max_series` is a string, not a whole number; write it without quotes",
            "farcall.toml:6:8: `name` is not a vendor's name; use lower case letters, digits and `-`",
            "farcall.toml:7:23: an entry of `hosts` is a whole number, not a string; write it in quotes: \"7\"",
            "farcall.toml:8:14: an entry of `endpoints` is not an endpoint; an endpoint starts with a method in capital letters or `*`, as in `GET /v1/items/{id}`",
        ];
        assert_eq!(errors, expected);
    }

    #[test]
    fn an_unknown_key_is_answered_with_each_known_one_once() {
        let tables = ["ledger", "advise", "share", "outbox_store", "alarm", "otlp"];
        let rules = [
            "vendor",
            "policy",
            "rollout",
            "fault",
            "budget",
            "quota",
            "resilience",
            "cache",
            "outbox",
            "data",
            "price",
        ];
        let headers = tables.map(|table| format!("[{table}]")).into_iter();
        for header in headers.chain(rules.map(|rule| format!("[[{rule}]]"))).chain([String::new()]) {
            let errors = errors(&format!("{header}\n0 = 1\n"));
            let known =
                errors.iter().find_map(|error| error.split_once("unknown key `0`; the keys here are "));
            let mut known: Vec<&str> = known.expect("the keys").1.split(", ").collect();
            let all = known.len();
            known.sort_unstable();
            known.dedup();
            assert!(all > 0 && known.len() == all, "{header}: {errors:?}");
        }
    }

    #[test]
    fn what_is_not_toml_says_where() {
        let errors = errors("a = [1,\nb = 2\n");
        assert!(errors[0].starts_with("farcall.toml:2:"), "{errors:?}");
    }

    #[test]
    fn a_vendor_without_a_name_or_host_is_an_error() {
        let errors = errors("[[vendor]]\nlabel = \"x\"\n");
        assert_eq!(
            errors,
            [
                "farcall.toml:1:1: `name` is missing; every [[vendor]] has one",
                "farcall.toml:1:1: `hosts` is missing; a vendor without a host is never called"
            ]
        );
    }

    #[test]
    fn absurd_numbers_are_refused() {
        let errors = errors("[ledger]\nmax_series = -1\nretention = \"0s\"\n");
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].contains("between 64 and 1000000"), "{errors:?}");
    }

    #[test]
    fn right_vendors_survive_a_wrong_one() {
        let (config, errors) = Config::read(
            "f",
            "[[vendor]]\nname=\"a\"\nhosts=[\"a.example\"]\n[[vendor]]\nname=\"b\"\nhots=[\"b.example\"]\n",
        );
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            ["f:6:1: unknown key `hots`; did you mean `hosts`?"],
            "and not that `hosts` is missing"
        );
        assert_eq!(config.vendors.len(), 1);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]a-z=\"{} \n0-9.é]{0,200}") {
            let _ = Config::read("f", &text);
        }
    }
}
