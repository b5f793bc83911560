//! Which calls the client may have made through a proxy, which a delivery from the outbox would not.

use farcall_agent::outbox::Detour;
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;

/// What the environment has the client do, unless it was told otherwise (`no_proxy`). What its builder was told by hand, a
/// middleware does not see.
pub(super) fn detour_of(url: &Url) -> Option<Detour> {
    let uri: Uri = url.as_str().parse().ok()?;
    Matcher::from_env().intercept(&uri).map(|_| Detour::Proxy)
}
