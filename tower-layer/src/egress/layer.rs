use super::{AsIs, Egress, Mapped};
use crate::client::{Client, Kind};
use crate::error::Cause;
use crate::shadows::{Beside, Shadows};
use farcall_agent::Farcall;
use http::{Request, Response, Uri};
use http_body::Body;
use std::fmt;
use std::marker::PhantomData;
use tower_layer::Layer;
use tower_service::Service;

/// Counts every call that the service below makes.
///
/// ```
/// use farcall_tower::EgressLayer;
/// use tower::{Layer, Service};
///
/// # fn stack<S>(client: S) -> farcall_tower::Egress<S> {
/// let client = EgressLayer::new().layer(client);
/// # client
/// # }
/// ```
///
/// Its place is next to the transport. Retries and redirects belong above it, so that each exchange on the wire
/// is a call; a timeout belongs below it, since above it the call is dropped, and counted as cancelled.
///
/// What the service below adds to a request, such as a token, it does not see. So where a rule of `[[cache]]` keeps
/// answers, each service that it is put around keeps its own, as its clones do together, unless they have a
/// [name](EgressLayer::client_name). Put it around a client once, not anew for each request.
///
/// It changes nothing of what it sees but the types of the bodies: [`RequestBody`](super::RequestBody) around
/// the request's, for which the service below must be ready (hyper-util's client is made for a body type;
/// [`request_body`](EgressLayer::request_body) turns it back for a service that insists on one), and
/// [`ResponseBody`](super::ResponseBody) around the response's. `M` tells how errors are looked into, and is
/// inferred.
pub struct EgressLayer<R = AsIs, M = super::service::PlainErrors> {
    farcall: Farcall,
    origin: Option<Uri>,
    client: Client,
    beside: Beside,
    rebody: R,
    errors: PhantomData<fn() -> M>,
}

impl<M> EgressLayer<AsIs, M> {
    /// A layer that counts with [`Farcall::global`], which starts on first use.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Farcall::global().clone())
    }

    /// A layer that counts with this handle.
    #[must_use]
    pub fn with(farcall: Farcall) -> Self {
        farcall.adapter_installed("tower");
        let (client, beside) = (Client::new(), Beside::default());
        Self { farcall, origin: None, client, beside, rebody: AsIs, errors: PhantomData }
    }
}

impl<R, M> EgressLayer<R, M> {
    /// Where requests go whose URI has no authority, because the service below adds it, as tonic's `Channel`
    /// does. Without it such a request is taken to go where its `Host` header says, and without that it is
    /// counted under the vendor `unreadable`.
    #[must_use]
    pub fn origin(mut self, origin: Uri) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Has what is kept shared by all services of this name, those of the service's other processes included where the
    /// cache is shared by processes (`cache_disk`). The services below have to add the same to a request, such as a
    /// credential, or nothing: what was answered to one is handed out to all.
    ///
    /// Without a name each service that the layer is put around keeps its own, as its clones do together: what a service
    /// below adds, the layer does not see.
    #[must_use]
    pub fn client_name(mut self, name: &str) -> Self {
        self.client = Client::named(Kind::Tower, name);
        self
    }

    /// Sends the shadow copies that a `[[rollout]]` asks for (`shadow = "10%"`) through this client, each in a task of
    /// Tokio's; without one, none are sent. A client of their own keeps them away from the connections, limits and
    /// retries of the calls themselves. Copies have no body, so any type that can be empty does.
    #[must_use]
    pub fn shadows_through<C, B, ResB, Me, Mb>(mut self, client: C) -> Self
    where
        C: Service<Request<B>, Response = Response<ResB>> + Clone + Send + 'static,
        C::Future: Send,
        C::Error: Cause<Me>,
        B: Default + Send,
        ResB: Body + Send + 'static,
        ResB::Data: Send,
        ResB::Error: Cause<Mb>,
        Mb: 'static,
    {
        self.beside.shadows = Some(Shadows::through(client));
        self
    }

    /// Asks through this client for a new answer where a rule of the cache hands out a stale one meanwhile
    /// (`stale_while_revalidate`), in a task of Tokio's: then nobody waits for it. Without one, the call that finds the
    /// answer stale does. It has to add what the service below adds to a request, such as a credential: what it gets
    /// is kept for that service's calls.
    #[must_use]
    pub fn refreshes_through<C, B, ResB, Me, Mb>(mut self, client: C) -> Self
    where
        C: Service<Request<B>, Response = Response<ResB>> + Clone + Send + 'static,
        C::Future: Send,
        C::Error: Cause<Me>,
        B: Default + Send,
        ResB: Body + Send + 'static,
        ResB::Data: Send,
        ResB::Error: Cause<Mb>,
        Mb: 'static,
    {
        self.beside.refreshes = Some(Shadows::through(client));
        self
    }

    /// Turns the counted body into the type that the service below takes, such as `tonic::body::Body::new` or
    /// `reqwest::Body::wrap`.
    pub fn request_body<F>(self, f: F) -> EgressLayer<Mapped<F>, M> {
        let Self { farcall, origin, client, beside, errors, .. } = self;
        EgressLayer { farcall, origin, client, beside, rebody: Mapped(f), errors }
    }
}

impl<M> Default for EgressLayer<AsIs, M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S, R: Clone, M> Layer<S> for EgressLayer<R, M> {
    type Service = Egress<S, R, M>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { farcall, origin, client, beside, rebody, .. } = self.clone();
        Egress::assemble(inner, farcall, origin, client.another(), beside, rebody)
    }
}

impl<R: Clone, M> Clone for EgressLayer<R, M> {
    fn clone(&self) -> Self {
        Self {
            farcall: self.farcall.clone(),
            origin: self.origin.clone(),
            client: self.client.clone(),
            beside: self.beside.clone(),
            rebody: self.rebody.clone(),
            errors: PhantomData,
        }
    }
}

impl<R, M> fmt::Debug for EgressLayer<R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressLayer").field("origin", &self.origin).finish_non_exhaustive()
    }
}
