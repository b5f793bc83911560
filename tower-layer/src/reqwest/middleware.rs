use super::acting::act;
use super::exchange::{Exchange, Exchanging};
use crate::egress::Counted;
use crate::shadows::{Beside, Shadows};
use ::reqwest::{Request, Response};
use ::reqwest_middleware::{Middleware, Next, Result};
use async_trait::async_trait;
use farcall::{HeaderNames, Headers};
use farcall_agent::Farcall;
use http::{Extensions, HeaderMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

/// Counts the calls of a `reqwest_middleware` client. See the [module](super) for what it sees.
///
/// The customer of a request is [`Customer`](crate::Customer) among its extensions
/// (`RequestBuilder::with_extension`), or else that of the [scope](crate::customer) around.
#[derive(Clone, Debug)]
pub struct EgressMiddleware {
    farcall: Farcall,
    beside: Beside,
    client: Client,
}

/// Stands for the client that a middleware is part of. What is kept is kept apart by it, since reqwest adds the client's
/// own headers and cookies, credentials among them, below every middleware.
#[derive(Debug)]
enum Client {
    /// Each copy is taken for another's, in this process and in others.
    Unnamed([u8; 16]),
    /// All of this name are alike.
    Named(Arc<str>),
}

impl Client {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        static PROCESS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Where processes share what they keep, no two of them may have the same.
        let process = PROCESS.hash_one((std::process::id(), number));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..].copy_from_slice(&process.to_le_bytes());
        Self::Unnamed(bytes)
    }

    fn bytes(&self) -> (&'static [u8], &[u8]) {
        match self {
            // No header has such a name.
            Self::Unnamed(bytes) => (b"reqwest client", bytes),
            Self::Named(name) => (b"reqwest client of this name", name.as_bytes()),
        }
    }
}

impl Clone for Client {
    fn clone(&self) -> Self {
        match self {
            Self::Unnamed(_) => Self::new(),
            Self::Named(name) => Self::Named(Arc::clone(name)),
        }
    }
}

/// The headers of a request, and the client that it is made with.
pub(super) struct OfClient<'a> {
    headers: &'a HeaderMap,
    client: (&'static [u8], &'a [u8]),
}

impl<'a> OfClient<'a> {
    pub(super) fn new(headers: &'a HeaderMap, client: (&'static [u8], &'a [u8])) -> Self {
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
        let (name, value) = self.client;
        see(name, value);
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
        Self { farcall, beside: Beside::default(), client: Client::new() }
    }

    /// Sends the shadow copies that a `[[rollout]]` asks for (`shadow = "10%"`) through this client, each in a task of
    /// Tokio's; without one, none are sent. A client of their own keeps them away from the connections of the calls.
    #[must_use]
    pub fn shadows_through(mut self, client: ::reqwest::Client) -> Self {
        self.beside.shadows = Some(Shadows::through_reqwest(client));
        self
    }

    /// Asks through this client for a new answer where a rule of the cache hands out a stale one meanwhile
    /// (`stale_while_revalidate`), in a task of Tokio's: then nobody waits for it. Without one, the call that finds the
    /// answer stale does. It has to add to a request what the middleware's own client adds, its default headers and
    /// cookies: give it a clone of that.
    #[must_use]
    pub fn refreshes_through(mut self, client: ::reqwest::Client) -> Self {
        self.beside.refreshes = Some(Shadows::through_reqwest(client));
        self
    }

    /// Shares what is kept with all middleware of this name: its copies, and where the cache is shared by processes
    /// (`cache_disk`), those of the service's other processes. Their clients have to add the same to a request, default
    /// headers and cookies: what was answered to one is handed out to all. Without a name each copy keeps its own.
    #[must_use]
    pub fn client_name(mut self, name: &str) -> Self {
        self.client = Client::Named(name.into());
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
                act(&self.farcall, &self.beside, self.client.bytes(), request, extensions, next).await;
            extensions.remove::<Counted>();
            return answer;
        }
        let exchange = Some(Exchange::begin(&self.farcall, self.client.bytes().1, &mut request, extensions));
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
