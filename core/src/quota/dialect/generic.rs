//! What is read of a vendor that has no dialect of its own.
//!
//! The names in use beyond any one vendor, in the order in which the better defined come first. Their resets
//! are read by what is plausible: half of the vendors that send `x-ratelimit-reset` mean seconds from now, the
//! other half seconds since the epoch.

use super::{Encoding, Form, LimitSpec, Unit};

/// `(policy, unit, limit, remaining, reset)`.
const PLAIN: [(&str, Unit, &str, &str, &str); 5] = [
    ("requests", Unit::Requests, "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
    ("requests", Unit::Requests, "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
    ("requests", Unit::Requests, "x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset"),
    (
        "requests",
        Unit::Requests,
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ),
    // Beside the one before, not instead of it: gateways that speak as OpenAI does send both.
    (
        "tokens",
        Unit::Tokens,
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
    ),
];

/// The limits of the generic dialect.
pub(super) fn limits() -> Vec<LimitSpec> {
    let ietf = LimitSpec {
        policy: "requests".into(),
        form: Form::Ietf,
        limit: Some("ratelimit-policy".into()),
        remaining: Some("ratelimit".into()),
        ..LimitSpec::default()
    };
    let plain = PLAIN.iter().map(|&(policy, unit, limit, remaining, reset)| LimitSpec {
        policy: policy.into(),
        unit,
        limit: Some(limit.into()),
        remaining: Some(remaining.into()),
        reset: Some(reset.into()),
        reset_as: Encoding::Auto,
        fallback: unit == Unit::Requests,
        ..LimitSpec::default()
    });
    std::iter::once(ietf).chain(plain).collect()
}
