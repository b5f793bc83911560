//! What the catalogue says of a vendor.

use super::Pattern;
use crate::quota::dialect::Spec;

/// A vendor, as a file of the catalogue or a `[[vendor]]` of `farcall.toml` describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Vendor {
    /// The short name that rules, reports and filters use: lower case letters, digits, `-`.
    pub name: String,
    /// The name as the vendor writes it.
    pub label: String,
    /// Hosts in lower case: exact (`api.stripe.com`), wildcard (`*.my.salesforce.com`: any number of labels)
    /// or a registrable domain, which stands for all hosts below it that nobody else claims.
    pub hosts: Vec<String>,
    /// What kind of vendor it is (`llm`, `payments`, `flags`); rules and filters match on it.
    pub tags: Vec<String>,
    /// The country of its seat, as two capital letters (ISO 3166-1), where that is stated.
    pub country: Option<String>,
    /// Where the vendor tells how it is doing.
    pub status_page: Option<String>,
    /// Where its API is documented.
    pub docs: Option<String>,
    /// How it says what is left of a quota, and that it refuses.
    pub dialect: Spec,
    /// The request header by which the vendor recognises a call that is made again, so that even a POST may
    /// be; `None` where it honours none, or takes the key elsewhere than in a header.
    pub idempotency_header: Option<String>,
    /// The request header in which the vendor's own SDK says how many attempts came before this one.
    pub retry_count_header: Option<String>,
    /// Its endpoints.
    pub endpoints: Vec<Pattern>,
    /// `[[vendor.price]]`: what it asks.
    pub prices: Vec<crate::cost::Price>,
}
