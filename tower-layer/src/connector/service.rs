use super::future::Connecting;
use super::layer::Role;
use super::{Parts, TimedConnection};
use http::Uri;
use http::uri::Scheme;
use std::task::{Context, Poll};
use std::time::Instant;
use tower_service::Service;

/// A connector whose time is measured. Made by [`ConnectTimesLayer`](super::ConnectTimesLayer).
#[derive(Clone, Debug)]
pub struct TimedConnector<C> {
    pub(super) inner: C,
    pub(super) role: Role,
}

impl<C> TimedConnector<C> {
    /// The connector inside.
    pub fn get_ref(&self) -> &C {
        &self.inner
    }

    /// The connector inside, to change.
    pub fn get_mut(&mut self) -> &mut C {
        &mut self.inner
    }

    /// The connector inside; it is no longer measured.
    pub fn into_inner(self) -> C {
        self.inner
    }
}

impl<C: Service<Uri>> Service<Uri> for TimedConnector<C> {
    type Response = TimedConnection<C::Response>;
    type Error = C::Error;
    type Future = Connecting<C::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = uri.scheme() != Some(&Scheme::HTTP);
        let parts = (self.role == Role::Whole).then(Parts::default);
        Connecting { began: Instant::now(), inner: self.inner.call(uri), tls, parts }
    }
}
