//! The narrowest policy that the ledger supports.

use super::{alike, open};
use crate::report::render::grouped;
use crate::report::{Query, ReportError, Window};
use farcall::policy::recommend;
use serde::Serialize;
use std::fmt::Write as _;

/// Rules that allow what was seen, and nothing else.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RecommendedPolicy {
    /// Which report this is: `policy-recommend`.
    pub report: &'static str,
    /// The time that it covers.
    pub window: Window,
    /// The calls that it rests on.
    pub calls: u64,
    /// How many rules it has, the final denial included.
    pub rules: usize,
    /// What no rule can say exactly and so was widened, a sentence each.
    pub widened: Vec<String>,
    /// Hosts that rules need a `[[vendor]]` for, which the text has.
    pub unnamed: Vec<String>,
    /// The rules as text for `farcall.toml`, ending in a line break.
    pub toml: String,
}

/// The narrowest policy that allows all calls of the window that the filters let through, but for those that a
/// policy refused.
///
/// # Errors
/// When there is no ledger, or it cannot be read.
pub fn policy_recommend(query: &Query) -> Result<RecommendedPolicy, ReportError> {
    let source = open(query)?;
    let alike = alike(&source, false)?;
    let calls = alike.iter().map(|calls| calls.calls).sum();
    let known = source.all_endpoints()?;
    let found = recommend(
        source.catalogue(),
        alike.iter().map(|calls| calls.subject(source.find_vendor(&calls.vendor))),
        known.iter().map(|(vendor, endpoint)| (&**vendor, &**endpoint)),
    );
    let window = query.window();
    let mut toml = format!(
        "# The narrowest policy that allows the {} calls of the ledger from {} to {}.\n",
        grouped(calls),
        &window.from[..16],
        &window.to[..16]
    );
    if calls == 0 {
        toml += "# There are none: it denies every call. Look further back with --since 7d.\n";
    }
    toml += "# Try it first: policy_mode = \"report\" at the top of farcall.toml enforces nothing.\n";
    let _ = write!(toml, "\n{}", found.to_toml());
    Ok(RecommendedPolicy {
        report: "policy-recommend",
        window,
        calls,
        rules: found.rules.len(),
        widened: found.widened,
        unnamed: found.unnamed,
        toml,
    })
}
