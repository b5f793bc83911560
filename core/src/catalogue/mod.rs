//! The catalogue: whom a call goes to (vendor) and what it asks there (endpoint).
//!
//! A host finds its vendor by the longest match: exact host, wildcard host, then the registrable domain
//! (public suffix list). A path finds its endpoint by the vendor's patterns, else by what was learned from
//! the traffic itself. Built-in vendors are the files in `core/catalogue/`; `farcall.toml` adds or replaces
//! vendors in the same form.

mod learned;
mod pattern;
mod vendor;

pub use pattern::{BadPattern, Pattern};
pub use vendor::Vendor;

pub(crate) use learned::{FAN_OUT, ID, Learner, normalise};
pub(crate) use pattern::PatternSet;

use crate::call::HeaderNames;
use crate::quota::Dialect;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::{Arc, LazyLock};

include!(concat!(env!("OUT_DIR"), "/builtin_files.rs"));

/// The vendor of a call whose URL could not be read.
pub const UNREADABLE: &str = "unreadable";

/// A vendor of the catalogue, by its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct VendorIndex(pub(crate) u32);

/// Vendors, and the tables that find them.
#[derive(Debug)]
pub struct Catalogue {
    vendors: Vec<Vendor>,
    patterns: Vec<PatternSet>,
    exact: HashMap<Box<str>, VendorIndex, FixedState>,
    /// Keyed by what follows `*.`.
    wildcard: HashMap<Box<str>, VendorIndex, FixedState>,
    /// For every vendor the number of its first endpoint among all of the catalogue's.
    first_endpoint: Vec<u32>,
    endpoints: Vec<Arc<str>>,
    dialects: Vec<Dialect>,
    generic: Dialect,
}

impl Catalogue {
    /// The built-in vendors.
    #[must_use]
    pub fn builtin() -> Self {
        Self::new(Vec::new())
    }

    /// The built-in vendors, with `own` ones added; a vendor of the same name as a built-in one replaces it,
    /// and a host that two vendors claim belongs to the later one.
    #[must_use]
    pub fn new(own: Vec<Vendor>) -> Self {
        let mut vendors: Vec<Vendor> = BUILTIN.clone();
        for vendor in own {
            match vendors.iter_mut().find(|known| known.name == vendor.name) {
                Some(known) => *known = vendor,
                None => vendors.push(vendor),
            }
        }
        let mut catalogue = Self {
            patterns: Vec::with_capacity(vendors.len()),
            exact: HashMap::default(),
            wildcard: HashMap::default(),
            first_endpoint: Vec::with_capacity(vendors.len()),
            endpoints: Vec::new(),
            dialects: vendors.iter().map(|vendor| Dialect::new(&vendor.dialect)).collect(),
            generic: Dialect::generic(),
            vendors,
        };
        for (index, vendor) in catalogue.vendors.iter().enumerate() {
            let index = VendorIndex(u32::try_from(index).unwrap_or(u32::MAX));
            for host in &vendor.hosts {
                match host.strip_prefix("*.") {
                    Some(suffix) => catalogue.wildcard.insert(suffix.into(), index),
                    None => catalogue.exact.insert(host.as_str().into(), index),
                };
            }
            catalogue.first_endpoint.push(u32::try_from(catalogue.endpoints.len()).unwrap_or(u32::MAX));
            catalogue.endpoints.extend(vendor.endpoints.iter().map(|pattern| Arc::from(pattern.as_str())));
            catalogue.patterns.push(PatternSet::new(&vendor.endpoints));
        }
        catalogue
    }

    /// How a vendor, by its number, states its quotas; others speak the generic dialect.
    pub(crate) fn dialect(&self, vendor: u32) -> &Dialect {
        self.dialects.get(vendor as usize).unwrap_or(&self.generic)
    }

    /// Whether a vendor is known to state its quotas in the headers of its answers.
    pub(crate) fn states_quotas(&self, vendor: u32) -> bool {
        self.vendors.get(vendor as usize).is_some_and(|vendor| !vendor.dialect.limits.is_empty())
    }

    /// The headers of answers by which vendors state their quotas, those of all vendors together: what is worth keeping of
    /// an answer before anybody knows whose it is.
    #[must_use]
    pub fn quota_headers(&self) -> HeaderNames {
        let dialects = self.dialects.iter().chain([&self.generic]);
        HeaderNames::new(dialects.flat_map(Dialect::headers).map(|name| &**name))
    }

    /// The tags of a vendor.
    pub(crate) fn tags(&self, vendor: u32) -> &[String] {
        self.vendors.get(vendor as usize).map_or(&[], |vendor| &vendor.tags)
    }

    /// The country of a vendor's seat; empty where nobody states it.
    pub(crate) fn country(&self, vendor: u32) -> &str {
        self.vendors.get(vendor as usize).and_then(|vendor| vendor.country.as_deref()).unwrap_or("")
    }

    /// All vendors, built-in and own.
    #[must_use]
    pub fn vendors(&self) -> &[Vendor] {
        &self.vendors
    }

    /// The vendor that a host belongs to, if the catalogue names one. `host` in lower case.
    #[must_use]
    pub fn vendor_of(&self, host: &str) -> Option<&Vendor> {
        self.find(host).map(|index| self.vendor(index))
    }

    /// The endpoint of the catalogue that a request to `host` asks for, in its written form.
    #[must_use]
    pub fn endpoint_of(&self, host: &str, method: &str, path: &str) -> Option<&str> {
        let vendor = self.find(host)?;
        self.find_endpoint(vendor, method, path).map(|number| self.endpoint(number).as_ref())
    }

    /// The vendor of this name.
    pub(crate) fn named(&self, name: &str) -> Option<VendorIndex> {
        let place = self.vendors.iter().position(|vendor| vendor.name.eq_ignore_ascii_case(name))?;
        u32::try_from(place).ok().map(VendorIndex)
    }

    pub(crate) fn find(&self, host: &str) -> Option<VendorIndex> {
        if let Some(index) = self.exact.get(host) {
            return Some(*index);
        }
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(index) = self.wildcard.get(suffix) {
                return Some(*index);
            }
            rest = suffix;
        }
        registrable_domain(host).and_then(|domain| self.exact.get(domain)).copied()
    }

    pub(crate) fn vendor(&self, index: VendorIndex) -> &Vendor {
        &self.vendors[index.0 as usize]
    }

    pub(crate) fn vendor_count(&self) -> u32 {
        u32::try_from(self.vendors.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn find_endpoint(&self, vendor: VendorIndex, method: &str, path: &str) -> Option<u32> {
        let place = vendor.0 as usize;
        self.patterns[place].find(method, path).map(|number| self.first_endpoint[place] + number)
    }

    pub(crate) fn endpoint(&self, number: u32) -> &Arc<str> {
        &self.endpoints[number as usize]
    }
}

/// The vendor's name for a host that the catalogue does not know: its registrable domain, or the host itself
/// where it has none (an address, a single label, a public suffix).
#[must_use]
pub fn name_of_unknown(host: &str) -> &str {
    registrable_domain(host).unwrap_or(host)
}

/// Whether a text is the registrable domain of host names.
pub(crate) fn is_domain(text: &str) -> bool {
    registrable_domain(text) == Some(text)
}

/// The registrable domain of a host name by the public suffix list; `None` for an address, a single label or
/// a bare suffix.
fn registrable_domain(host: &str) -> Option<&str> {
    if host.contains(':') || host.ends_with(|c: char| c.is_ascii_digit()) {
        return None; // An IPv6 or IPv4 literal: no top-level domain ends in a digit.
    }
    psl::domain_str(host)
}

/// The built-in vendors as their files describe them. Not to be asked for while one of these is read.
pub(crate) fn builtin() -> &'static [Vendor] {
    &BUILTIN
}

static BUILTIN: LazyLock<Vec<Vendor>> = LazyLock::new(|| {
    BUILTIN_FILES
        .iter()
        .flat_map(|(file, text)| {
            let (config, errors) = crate::config::Config::read(file, text);
            debug_assert!(errors.is_empty(), "{errors:?}");
            config.vendors
        })
        .collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_file_is_valid_and_names_what_its_file_says() {
        for (file, text) in BUILTIN_FILES {
            let (config, errors) = crate::config::Config::read(file, text);
            assert!(errors.is_empty(), "{file}: {errors:?}");
            assert_eq!(config.vendors.len(), 1, "{file}");
            assert_eq!(format!("{}.toml", config.vendors[0].name), *file);
            let vendor = &config.vendors[0];
            assert!(!vendor.hosts.is_empty() && !vendor.endpoints.is_empty(), "{file}");
            assert!(vendor.docs.as_ref().is_some_and(|docs| docs.starts_with("https://")), "{file}");
            let country = vendor.tags.last().unwrap();
            assert!(
                vendor.tags.len() >= 2 && country.len() == 2,
                "{file}: kinds, then a country: {:?}",
                vendor.tags
            );
        }
        assert!(BUILTIN_FILES.len() >= 60);
    }

    #[test]
    fn no_two_built_in_vendors_claim_one_host() {
        let mut seen = std::collections::HashMap::new();
        for vendor in Catalogue::builtin().vendors() {
            for host in &vendor.hosts {
                assert_eq!(seen.insert(host.clone(), vendor.name.clone()), None, "{host}");
            }
        }
    }

    #[test]
    fn the_longest_match_finds_the_vendor() {
        let vendor = |name: &str, hosts: &[&str]| Vendor {
            name: name.into(),
            hosts: hosts.iter().map(|host| (*host).into()).collect(),
            ..Vendor::default()
        };
        let catalogue = Catalogue::new(vec![
            vendor("wide", &["*.example.com"]),
            vendor("narrow", &["*.eu.example.com"]),
            vendor("exact", &["api.eu.example.com"]),
            vendor("domain", &["example.co.uk"]),
        ]);
        let name = |host: &str| catalogue.vendor_of(host).map(|vendor| vendor.name.as_str());
        assert_eq!(name("api.eu.example.com"), Some("exact"));
        assert_eq!(name("b.eu.example.com"), Some("narrow"));
        assert_eq!(name("a.b.us.example.com"), Some("wide"));
        assert_eq!(name("example.com"), None);
        assert_eq!(name("deep.down.example.co.uk"), Some("domain"));
        assert_eq!(name("co.uk"), None);
    }

    #[test]
    fn an_unknown_host_is_named_by_its_registrable_domain() {
        assert_eq!(name_of_unknown("api.eu.acme.co.uk"), "acme.co.uk");
        assert_eq!(name_of_unknown("localhost"), "localhost");
        assert_eq!(name_of_unknown("10.1.2.3"), "10.1.2.3");
        assert_eq!(name_of_unknown("2001:db8::1"), "2001:db8::1");
    }
}
