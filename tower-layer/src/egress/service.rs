use super::{AsIs, Counted, EgressFuture, Rebody, RequestBody, ResponseBody};
use crate::error::{Cause, Plain};
use crate::watched::Watched;
use farcall::{Step, Target};
use farcall_agent::Farcall;
use http::header::HOST;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Body;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tower_service::Service;

/// How errors are looked into where both the service's and the response body's are ordinary ones.
pub(super) type PlainErrors = (Plain, Plain);

/// How many of these services this process made, clones aside. A request needs no mark where there is no second
/// one to read it, and an empty set of extensions costs two allocations to put the first one in. Whoever is below
/// another was made before that one is called.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// A service whose calls are counted. Made by [`EgressLayer`](super::EgressLayer).
///
/// A call begins when [`Service::call`] is called and is counted at the last byte of the response's body, at an
/// error, or when the future or the body is dropped before.
pub struct Egress<S, R = AsIs, M = PlainErrors> {
    pub(super) inner: S,
    pub(super) farcall: Farcall,
    pub(super) origin: Option<Uri>,
    pub(super) rebody: R,
    pub(super) errors: PhantomData<fn() -> M>,
}

impl<S, M> Egress<S, AsIs, M> {
    /// Counts the calls of `inner` with [`Farcall::global`].
    pub fn new(inner: S) -> Self {
        Self::with(Farcall::global().clone(), inner)
    }

    /// Counts the calls of `inner` with this handle.
    pub fn with(farcall: Farcall, inner: S) -> Self {
        farcall.adapter_installed("tower");
        Self::assemble(inner, farcall, None, AsIs)
    }
}

impl<S, R, M> Egress<S, R, M> {
    pub(super) fn assemble(inner: S, farcall: Farcall, origin: Option<Uri>, rebody: R) -> Self {
        MADE.fetch_add(1, Ordering::Relaxed);
        Self { inner, farcall, origin, rebody, errors: PhantomData }
    }

    /// The service below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service below, to change.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service below; further calls are not counted.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, R, B, ResB, Me, Mb> Service<Request<B>> for Egress<S, R, (Me, Mb)>
where
    S: Service<Request<R::Body>, Response = Response<ResB>>,
    S::Error: Cause<Me>,
    R: Rebody<B>,
    B: Body,
    ResB: Body,
    ResB::Error: Cause<Mb>,
{
    type Response = Response<ResponseBody<ResB, Mb>>;
    type Error = S::Error;
    type Future = EgressFuture<S::Future, (Me, Mb)>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let watched = match parts.extensions.get::<Counted>() {
            Some(Counted) => None,
            None => {
                let target = target(&parts.uri, self.origin.as_ref(), &parts.headers);
                Watched::begin(&self.farcall, parts.method.as_str(), target, &parts.extensions)
            }
        };
        let Some(mut watched) = watched else {
            let request = Request::from_parts(parts, self.rebody.rebody(RequestBody::uncounted(body)));
            return EgressFuture::new(self.inner.call(request), None, false);
        };
        if MADE.load(Ordering::Relaxed) > 1 {
            parts.extensions.insert(Counted);
        }
        let body = match body.is_end_stream() {
            true => RequestBody::uncounted(body),
            false => RequestBody::counted(body, watched.count_sent()),
        };
        let bodiless = parts.method == Method::HEAD;
        // The service below was made ready for one request, and the first step is to send it.
        let _send: Step = watched.step(watched.begun());
        let request = Request::from_parts(parts, self.rebody.rebody(body));
        EgressFuture::new(self.inner.call(request), Some(watched), bodiless)
    }
}

/// Where a request goes: where its URI says, or the layer's origin, or its `Host` header (RFC 9112, section 3.2).
fn target<'a>(uri: &'a Uri, origin: Option<&'a Uri>, headers: &'a HeaderMap) -> Target<'a> {
    if let Some(target) = Target::from_uri(uri) {
        return target;
    }
    let base = origin.and_then(Target::from_uri).or_else(|| {
        let host = headers.get(HOST)?.to_str().ok()?;
        let (name, port) = match host.rsplit_once(':') {
            Some((name, digits)) if !digits.ends_with(']') => (name, digits.parse().ok()?),
            _ => (host, 80),
        };
        Some(Target::new(port == 443, name, port, "/"))
    });
    base.map_or(Target::UNREADABLE, |base| Target::new(base.tls, base.host, base.port, uri.path()))
}

impl<S: Clone, R: Clone, M> Clone for Egress<S, R, M> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            farcall: self.farcall.clone(),
            origin: self.origin.clone(),
            rebody: self.rebody.clone(),
            errors: PhantomData,
        }
    }
}

impl<S: fmt::Debug, R, M> fmt::Debug for Egress<S, R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress")
            .field("inner", &self.inner)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_uri_without_authority_goes_to_the_origin_and_else_to_the_host_header() {
        let path = Uri::from_static("/pets.Store/Find");
        let origin = Uri::from_static("https://grpc.example.com:8443");
        let mut headers = HeaderMap::new();
        assert_eq!(target(&path, None, &headers), Target::UNREADABLE);
        headers.insert(HOST, HeaderValue::from_static("[::1]:8080"));
        assert_eq!(target(&path, None, &headers), Target::new(false, "::1", 8080, "/pets.Store/Find"));
        let from_origin = target(&path, Some(&origin), &headers);
        assert_eq!(from_origin, Target::new(true, "grpc.example.com", 8443, "/pets.Store/Find"));
        let absolute = Uri::from_static("http://other.example.com/x");
        assert_eq!(target(&absolute, Some(&origin), &headers).host, "other.example.com");
    }
}
