use super::acting::act;
use super::exchange::{Exchange, Exchanging};
use crate::egress::Counted;
use crate::shadows::Shadows;
use ::reqwest::{Request, Response};
use ::reqwest_middleware::{Middleware, Next, Result};
use async_trait::async_trait;
use farcall::{HeaderNames, Headers};
use farcall_agent::Farcall;
use http::{Extensions, HeaderMap};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the calls of a `reqwest_middleware` client. See the [module](super) for what it sees.
///
/// The customer of a request is [`Customer`](crate::Customer) among its extensions
/// (`RequestBuilder::with_extension`), or else that of the [scope](crate::customer) around.
#[derive(Clone, Debug)]
pub struct EgressMiddleware {
    farcall: Farcall,
    shadows: Option<Shadows>,
    client: Client,
}

/// Stands for the client that a middleware is part of: each copy is taken for another's. What is kept is kept apart by
/// it, since reqwest adds the client's own headers and cookies, credentials among them, below every middleware.
#[derive(Debug)]
struct Client([u8; 8]);

impl Client {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes())
    }
}

impl Clone for Client {
    fn clone(&self) -> Self {
        Self::new()
    }
}

/// The headers of a request, and the client that it is made with.
pub(super) struct OfClient<'a> {
    headers: &'a HeaderMap,
    client: &'a [u8],
}

impl<'a> OfClient<'a> {
    pub(super) fn new(headers: &'a HeaderMap, client: &'a [u8]) -> Self {
        Self { headers, client }
    }
}

impl Headers for OfClient<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Headers::get(self.headers, name)
    }

    fn pick<'a>(&'a self, wanted: &HeaderNames, values: &mut [Option<&'a [u8]>]) {
        self.headers.pick(wanted, values);
    }

    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        // No header has such a name.
        see(b"reqwest client", self.client);
        self.headers.each(see)
    }
}

impl EgressMiddleware {
    /// A middleware that counts with [`Farcall::global`], which starts on first use.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Farcall::global().clone())
    }

    /// A middleware that counts with this handle.
    #[must_use]
    pub fn with(farcall: Farcall) -> Self {
        farcall.adapter_installed("reqwest");
        Self { farcall, shadows: None, client: Client::new() }
    }

    /// Sends the shadow copies that a `[[rollout]]` asks for (`shadow = "10%"`) through this client, each in a task of
    /// Tokio's; without one, none are sent. A client of their own keeps them away from the connections of the calls.
    #[must_use]
    pub fn shadows_through(mut self, client: ::reqwest::Client) -> Self {
        self.shadows = Some(Shadows::through_reqwest(client));
        self
    }
}

impl Default for EgressMiddleware {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Middleware for EgressMiddleware {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        if extensions.get::<Counted>().is_some() {
            return next.run(request, extensions).await;
        }
        if self.farcall.is_enabled() && self.farcall.engine().decides() {
            extensions.insert(Counted);
            let answer =
                act(&self.farcall, self.shadows.as_ref(), &self.client.0, request, extensions, next).await;
            extensions.remove::<Counted>();
            return answer;
        }
        let exchange = Some(Exchange::begin(&self.farcall, &self.client.0, &mut request, extensions));
        extensions.insert(Counted);
        let (answer, exchange) = Exchanging { inner: next.run(request, extensions), exchange }.await;
        // A retry middleware above sends the next attempt with the same extensions.
        extensions.remove::<Counted>();
        match (answer, exchange) {
            (Ok(response), Some(exchange)) => Ok(exchange.answered(response)),
            (Err(error), Some(exchange)) => {
                exchange.failed(&error);
                Err(error)
            }
            (answer, None) => answer,
        }
    }
}
