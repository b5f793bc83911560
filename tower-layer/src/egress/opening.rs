use crate::scope::{Customer, Deadline, Scope, Tags, with_current};
use crate::watched::{Sent, Watched};
use farcall::advise::Marks;
use farcall::{Head, Priority, Step, Target};
use farcall_agent::Farcall;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, Uri, request};

/// A call that was made and not yet polled. It begins with the first poll, because that is where its scope is:
/// in `customer("acme").scope(client.call(request))` the call is made before the scope is entered.
#[derive(Debug)]
pub(super) struct Opening {
    farcall: Farcall,
    method: Method,
    uri: Uri,
    /// What the request itself says.
    customer: Option<Customer>,
    tags: Option<Tags>,
    /// The scope in which the call was made: for where there is none when it is polled.
    made_in: Option<Scope>,
    sent: Option<Sent>,
    /// What rules may ask for; empty where none decides.
    request: Asked,
    /// What the headers say, where nobody has them any more when the call begins.
    marks: Option<Marks>,
    begun: bool,
}

/// What rules may ask about a request.
#[derive(Debug, Default)]
pub(super) struct Asked {
    headers: HeaderMap,
    body: Option<u64>,
    replayable: bool,
    refreshes: bool,
    deadline: Option<Deadline>,
    priority: Priority,
}

impl Opening {
    pub(super) fn new(
        farcall: &Farcall,
        parts: &request::Parts,
        origin: Option<&Uri>,
        sent: Option<Sent>,
    ) -> Self {
        Self {
            farcall: farcall.clone(),
            method: parts.method.clone(),
            uri: absolute(&parts.uri, origin, &parts.headers),
            customer: parts.extensions.get().cloned(),
            tags: parts.extensions.get().cloned(),
            made_in: with_current(|scope| scope.cloned()),
            sent,
            request: Asked::of(farcall, parts),
            marks: marks_of(farcall, parts),
            begun: false,
        }
    }

    /// Tells how large the body is, whether it can be sent again, and whether there is a client for requests beside it.
    pub(super) fn describe(&mut self, bytes: Option<u64>, replayable: bool, refreshes: bool) {
        self.request.body = bytes;
        self.request.replayable = replayable;
        self.request.refreshes = refreshes;
    }

    /// Begins the call, once, and takes its first step, which is to send what the service below was given.
    pub(super) fn begin(&mut self) -> Option<Watched> {
        let mut watched = self.open()?;
        watched.count(self.sent.take());
        let _send: Step = watched.step(watched.begun());
        Some(watched)
    }

    /// Begins the call, once. The request's own word is closest, then the scope around the poll, then the scope
    /// in which the call was made.
    pub(super) fn open(&mut self) -> Option<Watched> {
        if std::mem::replace(&mut self.begun, true) {
            return None;
        }
        let target = Target::from_uri(&self.uri).unwrap_or(Target::UNREADABLE);
        with_current(|polled_in| {
            let polled_in = polled_in.or(self.made_in.as_ref());
            let outer = self.made_in.as_ref().and_then(|scope| scope.customer.as_ref());
            let around = polled_in.and_then(|scope| scope.customer.as_ref()).or(outer);
            let customer = self.customer.as_ref().or(around);
            let tags = self.tags.as_ref().or(polled_in.map(|scope| &scope.tags));
            let Asked { headers, body, replayable, refreshes, deadline, priority } = &self.request;
            let now = self.farcall.now();
            let head = Head::to(self.method.as_str(), target)
                .headers(headers)
                .body(*body, *replayable)
                .caches(true)
                .marks(self.marks)
                .parks(true)
                .refreshes(*refreshes)
                .deadline(deadline.map(|deadline| now.plus(deadline.0)))
                .priority(*priority);
            Watched::begin(&self.farcall, head, customer, tags, now)
        })
    }

    /// Where the request goes, as an absolute URI if that is known.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }
}

impl Asked {
    fn of(farcall: &Farcall, parts: &request::Parts) -> Self {
        if !farcall.engine().decides() {
            return Self::default();
        }
        Self {
            headers: parts.headers.clone(),
            body: None,
            replayable: false,
            refreshes: false,
            deadline: parts.extensions.get().copied(),
            priority: parts.extensions.get().copied().unwrap_or_default(),
        }
    }
}

/// Only where no rule decides: then the headers go to the service below before the call begins.
fn marks_of(farcall: &Farcall, parts: &request::Parts) -> Option<Marks> {
    let engine = farcall.engine();
    if engine.decides() { None } else { engine.marks(&parts.headers) }
}

impl Drop for Opening {
    /// A call that nobody polled may still have been sent by a service that does not wait for that.
    fn drop(&mut self) {
        drop(self.begin());
    }
}

/// Where a request goes: where its URI says, or the layer's origin, or its `Host` header (RFC 9112, section 3.2).
fn absolute(uri: &Uri, origin: Option<&Uri>, headers: &HeaderMap) -> Uri {
    if uri.authority().is_some() {
        return uri.clone();
    }
    let base = origin.and_then(|origin| Some((origin.scheme()?.clone(), origin.authority()?.clone())));
    let base = base.or_else(|| {
        let authority = Authority::try_from(headers.get(HOST)?.as_bytes()).ok()?;
        let tls = authority.port_u16() == Some(443);
        Some((if tls { Scheme::HTTPS } else { Scheme::HTTP }, authority))
    });
    let Some((scheme, authority)) = base else { return uri.clone() };
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
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
        assert_eq!(Target::from_uri(&absolute(&path, None, &headers)), None);
        headers.insert(HOST, HeaderValue::from_static("[::1]:8080"));
        assert_eq!(absolute(&path, None, &headers), "http://[::1]:8080/pets.Store/Find");
        assert_eq!(absolute(&path, Some(&origin), &headers), "https://grpc.example.com:8443/pets.Store/Find");
        let elsewhere = Uri::from_static("http://other.example.com/x");
        assert_eq!(absolute(&elsewhere, Some(&origin), &headers), elsewhere);
        headers.insert(HOST, HeaderValue::from_static("not a host"));
        assert_eq!(absolute(&path, None, &headers), path);
    }
}
