//! `match = { ... }`: the conditions of a rule.

use super::section::{Section, nearest};
use crate::catalogue::{Catalogue, UNREADABLE, Vendor, builtin, is_domain, name_of_unknown};
use crate::matcher::{BadMatch, Builder, Matcher};
use std::cell::OnceCell;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// How a vendor is written that nobody named.
const OF_NOBODY: &str = "name it in a [[vendor]] with its hosts, or write its domain, such as `example.com`";

/// The names that a rule may give for a vendor.
pub(super) struct VendorNames<'v> {
    own: &'v [Vendor],
    /// Made when the first name that is none of a vendor is looked for.
    catalogue: OnceCell<Catalogue>,
}

impl<'v> VendorNames<'v> {
    /// Those of the catalogue, of these, and domains.
    pub(super) fn new(own: &'v [Vendor]) -> Self {
        Self { own, catalogue: OnceCell::new() }
    }

    /// Why this can be no vendor's name; `None` where it can.
    pub(super) fn objection(&self, name: &str) -> Option<String> {
        let names = || self.own.iter().chain(builtin()).map(|vendor| vendor.name.as_str());
        if names().any(|known| known.eq_ignore_ascii_case(name)) {
            return None;
        }
        if can_be_unnamed(name) {
            return self.of_host(name);
        }
        let hint = match nearest(&name.to_lowercase(), names()) {
            Some(nearest) => format!("did you mean `{nearest}`? Else {OF_NOBODY}"),
            None => OF_NOBODY.into(),
        };
        Some(format!("the vendor `{name}` is not known; {hint}"))
    }

    /// What the vendor of a host is called, where that is not the host.
    fn of_host(&self, name: &str) -> Option<String> {
        let lower = name.to_lowercase();
        // Whatever stands in front of a domain belongs to it: no vendor has more of it in its name.
        let host = match lower.strip_prefix("*.") {
            Some(rest) if is_domain(rest) => rest,
            Some(_) => return None,
            None => bare_host(&lower),
        };
        let catalogue = self.catalogue.get_or_init(|| Catalogue::new(self.own.to_vec()));
        let known = catalogue.vendor_of(host).or_else(|| only_below(catalogue, lower.strip_prefix('*')?));
        let known = known.map(|vendor| vendor.name.as_str());
        let vendor = known.unwrap_or_else(|| name_of_unknown(host));
        (vendor != lower).then(|| match known {
            Some(_) => format!("the vendor `{name}` is not known; its calls are those of `{vendor}`: write that"),
            None => format!(
                "the vendor `{name}` is not known: a host that nobody named goes by its domain; write `{vendor}`, or, \
                 for this host alone, match its `host`, or name it in a [[vendor]]"
            ),
        })
    }
}

/// The vendor that alone has hosts which end so.
fn only_below<'c>(catalogue: &'c Catalogue, end: &str) -> Option<&'c Vendor> {
    let has_such = |vendor: &&Vendor| vendor.hosts.iter().any(|host| host.ends_with(end));
    let mut vendors = catalogue.vendors().iter().filter(has_such);
    vendors.next().filter(|_| vendors.next().is_none())
}

/// Whether a rule may write this for a vendor that nobody named: a registrable domain or the address of a host.
/// A single word could as well be a name with a typing mistake in it.
pub(crate) fn can_be_unnamed(vendor: &str) -> bool {
    vendor.contains(['.', ':', '_']) || [UNREADABLE, "other", "localhost"].contains(&vendor)
}

/// The host in what may be a URL, have a port, or end in a dot.
pub(super) fn bare_host(text: &str) -> &str {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match (authority.strip_prefix('['), authority.split_once(':')) {
        (Some(rest), _) => rest.split(']').next().unwrap_or_default(),
        (None, Some((host, port))) if !port.contains(':') => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// Reads `match`; `None` where a condition in it is wrong, which was reported: without that condition the rule
/// would match more than was meant.
pub(super) fn read(section: &mut Section<'_, '_>, vendors: &VendorNames<'_>) -> Option<Matcher> {
    if !section.has("match") {
        section.missing("match", "say which calls this is about, or write `match = {}` for all of them");
    }
    let value = section.value("match")?;
    let DeValue::Table(table) = value.get_ref() else {
        section.wrong_type(value, "`match`", "a table", "write `match = { vendor = \"...\" }`");
        return None;
    };
    let mut reader = Reader { section, vendors, builder: Builder::default(), good: true };
    reader.table("", table);
    reader.good.then(|| reader.builder.build())
}

struct Reader<'r, 't, 'd> {
    section: &'r Section<'t, 'd>,
    vendors: &'r VendorNames<'r>,
    builder: Builder,
    good: bool,
}

impl Reader<'_, '_, '_> {
    /// `vendor.tag = ".."` and `vendor = { tag = ".." }` are the same.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => self.table(&format!("{key}."), inner),
                _ => self.condition(&key, name.span().start, value),
            }
        }
    }

    fn condition(&mut self, key: &str, place: usize, value: &Spanned<DeValue<'_>>) {
        let texts: Vec<(&str, usize)> = match value.get_ref() {
            DeValue::Array(items) => items.iter().filter_map(|item| self.text(key, item)).collect(),
            _ => self.text(key, value).into_iter().collect(),
        };
        if texts.is_empty() && !self.good {
            return; // Reported.
        }
        let plain: Vec<&str> = texts.iter().map(|(text, _)| *text).collect();
        match self.builder.add(key, &plain) {
            Err(error @ (BadMatch::UnknownKey { .. } | BadMatch::NoTagKey | BadMatch::Twice(_))) => {
                self.wrong(place, error.to_string());
            }
            Err(error) => self.wrong(value.span().start, error.to_string()),
            Ok(_) if matches!(key, "vendor" | "vendor.name") => {
                for (text, place) in texts {
                    let name = text.strip_prefix('!').unwrap_or(text).trim();
                    if !name.trim_start_matches("*.").contains('*')
                        && let Some(objection) = self.vendors.objection(name)
                    {
                        self.wrong(place, objection);
                    }
                }
            }
            Ok(_) => {}
        }
    }

    fn text<'d>(&mut self, key: &str, value: &'d Spanned<DeValue<'_>>) -> Option<(&'d str, usize)> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            let remedy = "write it in quotes, or a list of such texts in square brackets";
            self.section.wrong_type(value, &format!("`{key}`"), "a text", remedy);
            self.good = false;
        }
        text.map(|text| (text, value.span().start))
    }

    fn wrong(&mut self, place: usize, message: String) {
        self.section.wrong_at(place, message);
        self.good = false;
    }
}
