use super::acting::Asking;
use super::opening::{Handed, Opening};
use super::{AsIs, Counted, EgressError, EgressFuture, Rebody, RequestBody, ResponseBody};
use crate::client::Client;
use crate::error::{Cause, Plain};
use crate::shadows::Beside;
use crate::watched::Sent;
use farcall_agent::Farcall;
use http::{Request, Response, Uri};
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
/// Where rules decide (`[[quota]]`, `[[policy]]`, ...), a call may wait, be sent again (a body of up to `replay_bytes`) or be
/// refused; its request is then sent when its future is first polled.
///
/// A call begins when its future is first polled, and is counted at the last byte of the response's body, at an
/// error, or when the future or the body is dropped before.
pub struct Egress<S, R = AsIs, M = PlainErrors> {
    pub(super) inner: S,
    pub(super) farcall: Farcall,
    pub(super) origin: Option<Uri>,
    pub(super) client: Client,
    pub(super) beside: Beside,
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
        Self::assemble(inner, farcall, None, Client::new(), Beside::default(), AsIs)
    }
}

impl<S, R, M> Egress<S, R, M> {
    pub(super) fn assemble(
        inner: S,
        farcall: Farcall,
        origin: Option<Uri>,
        client: Client,
        beside: Beside,
        rebody: R,
    ) -> Self {
        MADE.fetch_add(1, Ordering::Relaxed);
        Self { inner, farcall, origin, client, beside, rebody, errors: PhantomData }
    }

    /// The service below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service below, to change: from now on it may add something else than its clones do, so that this one keeps
    /// its own answers, unless it has a name.
    pub fn get_mut(&mut self) -> &mut S {
        self.client = self.client.another();
        &mut self.inner
    }

    /// The service below; further calls are not counted.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, R, B, ResB, Me, Mb> Service<Request<B>> for Egress<S, R, (Me, Mb)>
where
    S: Service<Request<R::Body>, Response = Response<ResB>> + Clone,
    S::Error: Cause<Me>,
    R: Rebody<B> + Clone,
    B: Body,
    ResB: Body,
    ResB::Error: Cause<Mb>,
{
    type Response = Response<ResponseBody<ResB, Mb>>;
    type Error = EgressError;
    type Future = EgressFuture<S, R, B, (Me, Mb)>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), EgressError>> {
        self.inner.poll_ready(cx).map_err(|error| EgressError::Service(error.into_boxed()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        if !self.farcall.is_enabled() || parts.extensions.get::<Counted>().is_some() {
            let request = Request::from_parts(parts, self.rebody.rebody(RequestBody::uncounted(body)));
            return EgressFuture::watching(self.inner.call(request), None);
        }
        if self.farcall.engine().decides() {
            // The service that was made ready makes the first attempt; its clone is made ready for the next call.
            let clone = self.inner.clone();
            let ready = std::mem::replace(&mut self.inner, clone);
            let (beside, rebody) = (self.beside.clone(), self.rebody.clone());
            let whom = (self.origin.as_ref(), self.client.clone());
            let asking = Asking::new(&self.farcall, ready, beside, rebody, (parts, body), whom);
            return EgressFuture::asking(asking);
        }
        let (body, sent) = match body.is_end_stream() {
            true => (RequestBody::uncounted(body), None),
            false => {
                let sent = Sent::take();
                (RequestBody::counted(body, sent.clone()), Some(sent))
            }
        };
        let handed = Handed::new(&self.farcall, &parts, self.origin.as_ref(), &self.client, sent);
        let opening = Opening::new(&self.farcall, handed);
        if MADE.load(Ordering::Relaxed) > 1 {
            parts.extensions.insert(Counted);
        }
        let request = Request::from_parts(parts, self.rebody.rebody(body));
        EgressFuture::watching(self.inner.call(request), Some(opening))
    }
}

impl<S: Clone, R: Clone, M> Clone for Egress<S, R, M> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            farcall: self.farcall.clone(),
            origin: self.origin.clone(),
            // The service below is a clone, too, and adds the same to requests.
            client: self.client.clone(),
            beside: self.beside.clone(),
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
