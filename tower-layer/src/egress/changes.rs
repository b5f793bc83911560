//! What an attempt changes in the request.

use farcall::Attempt;
use http::header::{HOST, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Request, Uri};

/// Applies what the attempt asks for. What cannot be applied (a header that is none) is left out: rules were
/// checked when they were read.
pub(super) fn apply<B>(request: &mut Request<B>, attempt: &Attempt) {
    if let Some((name, value)) = attempt.idempotency_header()
        && let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
    {
        request.headers_mut().insert(name, value);
    }
    for (name, value) in &attempt.condition {
        if let Ok(value) = HeaderValue::try_from(value) {
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    let Some(changes) = &attempt.changes else { return };
    for (name, value) in &changes.headers {
        if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()))
        {
            request.headers_mut().insert(name, value);
        }
    }
    let mut parts = request.uri().clone().into_parts();
    if let Some(host) = &changes.host
        && let Ok(authority) = Authority::try_from(host.as_str())
    {
        if request.headers().contains_key(HOST)
            && let Ok(value) = HeaderValue::try_from(authority.as_str())
        {
            request.headers_mut().insert(HOST, value);
        }
        parts.authority = Some(authority);
    }
    if let Some(prefix) = &changes.path_prefix {
        let path = parts.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
        parts.path_and_query =
            PathAndQuery::try_from(format!("{prefix}{path}")).ok().or(parts.path_and_query);
    }
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}
