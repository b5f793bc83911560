use crate::client::Client;
use crate::scope::{Customer, Deadline, Scope, Tags, with_current};
use crate::watched::{Opened, Sent, Watched};
use farcall::advise::Marks;
use farcall::{Head, Priority, Step, Target, Timestamp};
use farcall_agent::Farcall;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, Uri, request};
use std::time::Duration;

/// A body that is in memory comes at once, and one that is passed on mostly with its head.
const PATIENCE: Duration = Duration::from_millis(500);

/// A call that was made and not yet polled. It begins with the first poll, because that is where its scope is:
/// in `customer("acme").scope(client.call(request))` the call is made before the scope is entered.
#[derive(Debug)]
pub(super) struct Opening<A: Asked> {
    farcall: Farcall,
    pub(super) asked: A,
    /// The scope in which the call was made: for where there is none when it is polled.
    made_in: Option<Scope>,
    begun: bool,
}

/// A request, as far as its call has to know it.
pub(super) trait Asked {
    /// Whether the service below has it from the beginning, so that it may be sent although nobody polls.
    const HANDED_ON: bool;

    /// What the request itself says of its customer.
    fn customer(&self) -> Option<&Customer>;

    /// What it says of its tags.
    fn tags(&self) -> Option<&Tags>;

    /// Shows its head.
    fn show<R>(&self, now: Timestamp, see: impl FnOnce(Head<'_>) -> R) -> R;

    /// What counts the bytes of its body, where those are under way already.
    fn take_sent(&mut self) -> Option<Sent> {
        None
    }
}

/// A request that the service below has by now, since no rule decides: what is still to be known of it.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) method: Method,
    uri: Uri,
    customer: Option<Customer>,
    tags: Option<Tags>,
    marks: Option<Marks>,
    sent: Option<Sent>,
}

/// A request that waits for what the rules say.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) parts: request::Parts,
    /// Where it goes, where its own URI does not say.
    elsewhere: Option<Uri>,
    client: Client,
    body: Option<u64>,
    replayable: bool,
    refreshes: bool,
}

impl Handed {
    pub(super) fn new(
        farcall: &Farcall,
        parts: &request::Parts,
        origin: Option<&Uri>,
        client: &Client,
        sent: Option<Sent>,
    ) -> Self {
        Self {
            method: parts.method.clone(),
            uri: elsewhere(&parts.uri, origin, &parts.headers).unwrap_or_else(|| parts.uri.clone()),
            customer: parts.extensions.get().cloned(),
            tags: parts.extensions.get().cloned(),
            marks: marks(farcall, &parts.headers, client),
            sent,
        }
    }
}

impl Held {
    /// `body`: how large it is; `replayable`: whether it can be sent again; `refreshes`: whether there is a client for
    /// requests beside it. Inlined, so that it is made where it stays: it is large.
    #[inline]
    pub(super) fn new(
        parts: request::Parts,
        origin: Option<&Uri>,
        client: Client,
        body: Option<u64>,
        replayable: bool,
        refreshes: bool,
    ) -> Self {
        let elsewhere = elsewhere(&parts.uri, origin, &parts.headers);
        Self { parts, elsewhere, client, body, replayable, refreshes }
    }

    /// How long its body may take to come, for those who look at it first.
    pub(super) fn patience(&self) -> Duration {
        let deadline: Option<&Deadline> = self.parts.extensions.get();
        deadline.map_or(PATIENCE, |deadline| deadline.0.min(PATIENCE))
    }

    /// Where it goes, as an absolute URI if that is known.
    pub(super) fn uri(&self) -> &Uri {
        self.elsewhere.as_ref().unwrap_or(&self.parts.uri)
    }
}

impl Asked for Handed {
    const HANDED_ON: bool = true;

    fn customer(&self) -> Option<&Customer> {
        self.customer.as_ref()
    }

    fn tags(&self) -> Option<&Tags> {
        self.tags.as_ref()
    }

    fn show<R>(&self, _now: Timestamp, see: impl FnOnce(Head<'_>) -> R) -> R {
        let target = Target::from_uri(&self.uri).unwrap_or(Target::UNREADABLE);
        see(Head::to(self.method.as_str(), target).caches(true).marks(self.marks).parks(true))
    }

    fn take_sent(&mut self) -> Option<Sent> {
        self.sent.take()
    }
}

impl Asked for Held {
    const HANDED_ON: bool = false;

    fn customer(&self) -> Option<&Customer> {
        self.parts.extensions.get()
    }

    fn tags(&self) -> Option<&Tags> {
        self.parts.extensions.get()
    }

    fn show<R>(&self, now: Timestamp, see: impl FnOnce(Head<'_>) -> R) -> R {
        let request::Parts { method, headers, extensions, .. } = &self.parts;
        let deadline: Option<&Deadline> = extensions.get();
        let priority: Option<&Priority> = extensions.get();
        let target = Target::from_uri(self.uri()).unwrap_or(Target::UNREADABLE);
        see(Head::to(method.as_str(), target)
            .headers(headers)
            .client(self.client.number())
            .client_key(self.client.bytes())
            .body(self.body, self.replayable)
            .caches(true)
            .parks(true)
            .refreshes(self.refreshes)
            .hedges(true)
            .deadline(deadline.map(|deadline| now.plus(deadline.0)))
            .priority(priority.copied().unwrap_or_default()))
    }
}

impl<A: Asked> Opening<A> {
    /// Inlined, so that it is made where it stays.
    #[inline]
    pub(super) fn new(farcall: &Farcall, asked: A) -> Self {
        let made_in = with_current(|scope| scope.cloned());
        Self { farcall: farcall.clone(), asked, made_in, begun: false }
    }

    /// Begins the call, once, and takes its first step, which is to send what the service below was given.
    pub(super) fn begin(&mut self, watched: &mut Option<Watched>) {
        let _send: Option<Step> = self.open(watched);
        if let Some(watched) = watched {
            watched.count(self.asked.take_sent());
        }
    }

    /// Begins the call, once, and asks what to do. The request's own word is closest, then the scope around the poll,
    /// then the scope in which the call was made. The call goes into `watched` unless that was all.
    pub(super) fn open(&mut self, watched: &mut Option<Watched>) -> Option<Step> {
        self.as_asked(|farcall, head, (customer, tags), now| {
            Watched::open(farcall, head, customer, tags, now, watched)
        })
    }

    /// Shows the request once, and in whose name it is made.
    #[inline]
    fn as_asked<T>(
        &mut self,
        begin: impl FnOnce(&Farcall, Head<'_>, (Option<&Customer>, Option<&Tags>), Timestamp) -> Option<T>,
    ) -> Option<T> {
        if std::mem::replace(&mut self.begun, true) {
            return None;
        }
        with_current(|polled_in| {
            let polled_in = polled_in.or(self.made_in.as_ref());
            let outer = self.made_in.as_ref().and_then(|scope| scope.customer.as_ref());
            let around = polled_in.and_then(|scope| scope.customer.as_ref()).or(outer);
            let customer = self.asked.customer().or(around);
            let tags = self.asked.tags().or(polled_in.map(|scope| &scope.tags));
            let now = self.farcall.now();
            self.asked.show(now, |head| begin(&self.farcall, head, (customer, tags), now))
        })
    }
}

impl Opening<Held> {
    /// As [`Opening::open`], of a request with a body of so many bytes at most.
    pub(super) fn open_with_body(
        &mut self,
        most: Option<u64>,
        watched: &mut Option<Watched>,
    ) -> Option<Opened> {
        self.as_asked(|farcall, head, whose, now| {
            Watched::open_with_body(farcall, head, whose, most, now, watched)
        })
    }
}

impl<A: Asked> Drop for Opening<A> {
    /// A call that nobody polled may still have been sent by a service that does not wait for that. One that was not
    /// handed on is none.
    fn drop(&mut self) {
        if A::HANDED_ON {
            self.begin(&mut None);
        }
    }
}

/// What its headers say, and which client they go through: another may add others below.
fn marks(farcall: &Farcall, headers: &HeaderMap, client: &Client) -> Option<Marks> {
    farcall.engine().marks(headers).map(|marks| marks.of_client(client.bytes()))
}

/// Where a request goes whose URI does not say: to the layer's origin, or where its `Host` header says (RFC 9112, section
/// 3.2). `None` where the URI says, or nothing does.
fn elsewhere(uri: &Uri, origin: Option<&Uri>, headers: &HeaderMap) -> Option<Uri> {
    if uri.authority().is_some() {
        return None;
    }
    let base = origin.and_then(|origin| Some((origin.scheme()?.clone(), origin.authority()?.clone())));
    let base = base.or_else(|| {
        let authority = Authority::try_from(headers.get(HOST)?.as_bytes()).ok()?;
        let tls = authority.port_u16() == Some(443);
        Some((if tls { Scheme::HTTPS } else { Scheme::HTTP }, authority))
    });
    let (scheme, authority) = base?;
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_uri_without_authority_goes_to_the_origin_and_else_to_the_host_header() {
        let path = Uri::from_static("/pets.Store/Find");
        let origin = Uri::from_static("https://grpc.example.com:8443");
        let at = |uri: &Uri, origin: Option<&Uri>, headers: &HeaderMap| {
            elsewhere(uri, origin, headers).map(|uri| uri.to_string())
        };
        let mut headers = HeaderMap::new();
        assert_eq!(at(&path, None, &headers), None);
        headers.insert(HOST, HeaderValue::from_static("[::1]:8080"));
        assert_eq!(at(&path, None, &headers).unwrap(), "http://[::1]:8080/pets.Store/Find");
        let there = "https://grpc.example.com:8443/pets.Store/Find";
        assert_eq!(at(&path, Some(&origin), &headers).unwrap(), there);
        let absolute = Uri::from_static("http://other.example.com/x");
        assert_eq!(at(&absolute, Some(&origin), &headers), None);
        headers.insert(HOST, HeaderValue::from_static("not a host"));
        assert_eq!(at(&path, None, &headers), None);
    }
}
