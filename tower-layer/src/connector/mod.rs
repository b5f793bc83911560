//! Times of name resolution, TCP and TLS, around a connector of hyper-util.
//!
//! A pool connects in the background, for whichever call comes first, so the times travel on the connection:
//! hyper-util copies what a connection brings along into the extensions of each of its responses
//! ([`Connected::extra`](hyper_util::client::legacy::connect::Connected::extra)), and the first response takes
//! them. A call on a reused connection finds them taken, and reports none.
//!
//! The parts are seen at three places. [`TimedResolver`] goes around the resolver and
//! [`ConnectTimesLayer::tcp`] around the TCP connector; [`ConnectTimesLayer::new`] goes around everything and
//! puts the parts together. What has no layer of its own is not guessed.
//!
//! ```
//! use farcall_tower::connector::{ConnectTimesLayer, TimedResolver};
//! use farcall_tower::{EgressLayer, RequestBody};
//! use http_body_util::Full;
//! use hyper_rustls::HttpsConnectorBuilder;
//! use hyper_util::client::legacy::{Client, connect::{HttpConnector, dns::GaiResolver}};
//! use hyper_util::rt::TokioExecutor;
//! use tower::Layer;
//!
//! # fn client(tls: rustls::ClientConfig) {
//! let mut tcp = HttpConnector::new_with_resolver(TimedResolver::new(GaiResolver::new()));
//! tcp.enforce_http(false); // the URLs are https
//! let tcp = ConnectTimesLayer::tcp().layer(tcp);
//! let tls = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
//! let connector = ConnectTimesLayer::new().layer(tls);
//!
//! let client: Client<_, RequestBody<Full<bytes::Bytes>>> = Client::builder(TokioExecutor::new()).build(connector);
//! let client = EgressLayer::<_, (_, farcall_tower::Plain)>::new().layer(client);
//! # let _ = tower::ServiceExt::<http::Request<Full<bytes::Bytes>>>::oneshot(client, http::Request::default());
//! # }
//! ```

mod connection;
mod future;
mod layer;
mod resolver;
mod service;

pub use connection::TimedConnection;
pub use future::Connecting;
pub use layer::ConnectTimesLayer;
pub use resolver::{Resolving, TimedResolver};
pub use service::TimedConnector;

use crate::local::Slot;
use farcall::ConnectTimes;
use http::Extensions;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

thread_local! {
    /// The parts, as far as known, of the connection that is being made in the future being polled.
    static MAKING: Slot<Parts> = const { RefCell::new(None) };
}

/// What the inner layers have seen of a connection in the making.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    dns: Option<Duration>,
    /// With name resolution.
    tcp: Option<Duration>,
}

/// The times of a new connection, until its first call takes them.
#[derive(Clone, Debug)]
struct Fresh(Arc<(ConnectTimes, AtomicBool)>);

impl Fresh {
    fn new(times: ConnectTimes) -> Self {
        Self(Arc::new((times, AtomicBool::new(false))))
    }

    fn take(&self) -> Option<ConnectTimes> {
        let (times, taken) = &*self.0;
        // Reading first keeps the calls of a shared connection from fighting over the line.
        let mine = !taken.load(Ordering::Relaxed) && !taken.swap(true, Ordering::Relaxed);
        mine.then_some(*times)
    }
}

/// The times of the connection that a response came on, if it is the first to ask.
pub(crate) fn first_use(extensions: &Extensions) -> Option<ConnectTimes> {
    extensions.get::<Fresh>().and_then(Fresh::take)
}
