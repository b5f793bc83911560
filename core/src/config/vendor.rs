//! `[[vendor]]`: the form of the catalogue's own files.

use super::dialect;
use super::section::Section;
use crate::catalogue::{Pattern, Vendor};

/// Reads one vendor; `None` where it has no usable name or host, which was reported.
pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Vendor> {
    let name = section.checked_string("name", |name| {
        let good = !name.is_empty() && name.len() <= 64;
        let good = good
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
        good.then(|| name.to_owned()).ok_or("a vendor's name; use lower case letters, digits and `-`".into())
    });
    if name.is_none() && !section.has("name") {
        section.missing("name", "every [[vendor]] has one");
    }
    let hosts = section.list("hosts", |host| {
        let lower = host.to_ascii_lowercase();
        let bare = lower.strip_prefix("*.").unwrap_or(&lower);
        let good = !bare.is_empty() && bare.len() <= 253;
        let good =
            good && bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'));
        good.then_some(lower.clone())
            .ok_or("a host; write `api.example.com`, `*.example.com` or `example.com`".into())
    });
    if !section.has("hosts") {
        section.missing("hosts", "a vendor without a host is never called");
    }
    let endpoints = section
        .list("endpoints", |text| Pattern::parse(text).map_err(|error| format!("an endpoint; {error}")));
    let vendor = Vendor {
        label: section.string("label").or_else(|| name.clone()).unwrap_or_default(),
        tags: section.list("tags", |tag| Ok(tag.to_owned())),
        country: section.checked_string("country", |code| {
            let good = code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphabetic());
            good.then(|| code.to_ascii_uppercase())
                .ok_or("a country; write its two letters, such as \"DE\" (ISO 3166-1)".into())
        }),
        status_page: section.string("status_page"),
        docs: section.string("docs"),
        dialect: dialect::read(section),
        idempotency_header: dialect::header(section, "idempotency_header"),
        retry_count_header: dialect::header(section, "retry_count_header"),
        prices: {
            let name = name.as_deref().unwrap_or_default();
            section
                .tables("price")
                .iter_mut()
                .filter_map(|section| super::price::read(section, Err(name)))
                .collect()
        },
        name: name.unwrap_or_default(),
        hosts,
        endpoints,
    };
    (!vendor.name.is_empty() && !vendor.hosts.is_empty()).then_some(vendor)
}
