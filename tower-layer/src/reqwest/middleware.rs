use super::acting::act;
use super::exchange::{Exchange, Exchanging};
use crate::client::{Client, Kind};
use crate::egress::Counted;
use crate::shadows::{Beside, Shadows};
use ::reqwest::{Request, Response};
use ::reqwest_middleware::{Middleware, Next, Result};
use async_trait::async_trait;
use farcall_agent::Farcall;
use http::Extensions;

/// Counts the calls of a `reqwest_middleware` client. See the [module](super) for what it sees.
///
/// The customer of a request is [`Customer`](crate::Customer) among its extensions
/// (`RequestBuilder::with_extension`), or else that of the [scope](crate::customer) around.
///
/// # One for each client
/// A middleware stands for the client that it is given to: reqwest adds the client's default headers and cookies below it,
/// and what was answered to one client is handed out to that one. **Do not give one `Arc` of it to several clients**
/// (`ClientBuilder::with_arc`) whose default headers or cookies differ: it cannot tell them apart, and where a rule of
/// `[[cache]]` is about their calls they get each other's answers. `ClientBuilder::with(egress.clone())` gives each its own.
#[derive(Debug)]
pub struct EgressMiddleware {
    farcall: Farcall,
    beside: Beside,
    client: Client,
}

/// reqwest adds the client's own headers and cookies, credentials among them, below every middleware: each copy is taken
/// for another client's.
impl Clone for EgressMiddleware {
    fn clone(&self) -> Self {
        let Self { farcall, beside, client } = self;
        Self { farcall: farcall.clone(), beside: beside.clone(), client: client.another() }
    }
}

impl EgressMiddleware {
    /// A middleware that counts with [`Farcall::global`], which starts on first use.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Farcall::global().clone())
    }

    /// A middleware that counts with this handle. One for each client: see [the type](Self#one-for-each-client).
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
    /// headers and cookies: what was answered to one is handed out to all. Without a name each copy keeps its own; an `Arc` that several clients
    /// have is one copy, as if they had a name in common.
    #[must_use]
    pub fn client_name(mut self, name: &str) -> Self {
        self.client = Client::named(Kind::Reqwest, name);
        self
    }
}

impl Default for EgressMiddleware {
    fn default() -> Self {
        Self::new()
    }
}

/// What a request carries beside it, marked as counted for as long as it is under way: a middleware above sends the next
/// attempt with the same extensions, also where it gave this one up.
struct Marked<'e>(&'e mut Extensions);

impl<'e> Marked<'e> {
    fn new(extensions: &'e mut Extensions) -> Self {
        extensions.insert(Counted);
        Self(extensions)
    }
}

impl Drop for Marked<'_> {
    fn drop(&mut self) {
        self.0.remove::<Counted>();
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
            let marked = Marked::new(extensions);
            return act(&self.farcall, &self.beside, &self.client, request, marked.0, next).await;
        }
        let exchange = Some(Exchange::begin(&self.farcall, self.client.bytes(), &mut request, extensions));
        let marked = Marked::new(extensions);
        let (answer, exchange) = Exchanging { inner: next.run(request, marked.0), exchange }.await;
        drop(marked);
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
