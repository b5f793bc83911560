use super::{AsIs, Egress, Mapped};
use farcall_agent::Farcall;
use http::Uri;
use std::fmt;
use std::marker::PhantomData;
use tower_layer::Layer;

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
/// It changes nothing of what it sees but the types of the bodies: [`RequestBody`](super::RequestBody) around
/// the request's, for which the service below must be ready (hyper-util's client is made for a body type;
/// [`request_body`](EgressLayer::request_body) turns it back for a service that insists on one), and
/// [`ResponseBody`](super::ResponseBody) around the response's. `M` tells how errors are looked into, and is
/// inferred.
pub struct EgressLayer<R = AsIs, M = super::service::PlainErrors> {
    farcall: Farcall,
    origin: Option<Uri>,
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
        Self { farcall, origin: None, rebody: AsIs, errors: PhantomData }
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

    /// Turns the counted body into the type that the service below takes, such as `tonic::body::Body::new` or
    /// `reqwest::Body::wrap`.
    pub fn request_body<F>(self, f: F) -> EgressLayer<Mapped<F>, M> {
        EgressLayer { farcall: self.farcall, origin: self.origin, rebody: Mapped(f), errors: self.errors }
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
        Egress::assemble(inner, self.farcall.clone(), self.origin.clone(), self.rebody.clone())
    }
}

impl<R: Clone, M> Clone for EgressLayer<R, M> {
    fn clone(&self) -> Self {
        Self {
            farcall: self.farcall.clone(),
            origin: self.origin.clone(),
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
