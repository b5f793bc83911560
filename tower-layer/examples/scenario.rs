//! The Rust shim of the scenario matrix: makes calls as `tests/PROTOCOL.md` says, one JSON command a line.
//!
//! It is also an example of both stacks: a hyper-util client below [`EgressLayer`], and reqwest below the middleware.

use bytes::Bytes;
use farcall_tower::connector::{ConnectTimesLayer, TimedConnector, TimedResolver};
use farcall_tower::reqwest::{EgressMiddleware, redirects};
use farcall_tower::{EgressLayer, Farcall, Priority, Refusal, RequestBody, Scope};
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, dns::GaiResolver};
use hyper_util::rt::TokioExecutor;
use reqwest::redirect::Policy;
use reqwest_middleware::ClientWithMiddleware;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tower::{Layer, Service, service_fn};

type BoxError = Box<dyn Error + Send + Sync>;
type Tcp = TimedConnector<HttpConnector<TimedResolver<GaiResolver>>>;
type Hyper<B> = Client<TimedConnector<HttpsConnector<Tcp>>, B>;

#[derive(Clone, Debug, Deserialize)]
struct Command {
    id: u64,
    #[serde(default)]
    flush: bool,
    #[serde(default)]
    client: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    read: Read,
    #[serde(default = "yes")]
    follow_redirects: bool,
    customer: Option<String>,
    parallel: Option<usize>,
    customers: Option<Vec<String>>,
    priority: Option<Urgency>,
    /// The field of the answers that is to be told of.
    header: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Urgency {
    Interactive,
    Batch,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Read {
    #[default]
    All,
    FirstChunk,
    None,
}

fn get() -> String {
    "GET".into()
}

const fn yes() -> bool {
    true
}

#[derive(Debug, Serialize)]
struct Reply {
    id: u64,
    ok: bool,
    status: Option<u16>,
    bytes: usize,
    error: Option<String>,
    /// How many calls came to what: a status, `refused-` and the concept that refused, or `failed`.
    got: BTreeMap<String, usize>,
    /// How many answers had what in the field that was named.
    values: BTreeMap<String, usize>,
}

impl Reply {
    fn to(command: u64) -> Self {
        let (got, values) = Default::default();
        Self { id: command, ok: true, status: None, bytes: 0, error: None, got, values }
    }
}

#[derive(Clone)]
struct Clients {
    hyper: Hyper<RequestBody<Full<Bytes>>>,
    /// Sends the shadow copies of hyper's calls.
    copies: Hyper<Full<Bytes>>,
    following: ClientWithMiddleware,
    staying: ClientWithMiddleware,
}

fn main() -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let clients = runtime.block_on(async { Clients::new() })?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let command: Command = serde_json::from_str(&line?)?;
        let reply = match command.flush {
            true => {
                Farcall::global().flush();
                Reply::to(command.id)
            }
            false => runtime.block_on(obey(clients.clone(), command)),
        };
        serde_json::to_writer(&mut out, &reply)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Farcall::global().shutdown();
    Ok(())
}

/// Makes the calls of a command, each in a task of its own.
async fn obey(clients: Clients, command: Command) -> Reply {
    let tasks: Vec<_> = (0..command.parallel.unwrap_or(1).max(1))
        .map(|number| {
            let names = command.customers.as_deref().unwrap_or_default();
            let name = names.get(number % names.len().max(1)).or(command.customer.as_ref());
            let scope = name.map_or_else(Scope::current, |name| farcall_tower::customer(name.as_str()));
            let (clients, command) = (clients.clone(), command.clone());
            tokio::spawn(scope.scope(async move {
                match command.client.as_str() {
                    "hyper" => clients.through_hyper(&command).await,
                    _ => clients.through_reqwest(&command).await,
                }
            }))
        })
        .collect();
    let mut reply = Reply::to(command.id);
    for task in tasks {
        let result = task.await.map_err(BoxError::from).and_then(|result| result);
        let word =
            result.as_ref().map_or_else(|error| failure(error.as_ref()), |(status, ..)| status.to_string());
        *reply.got.entry(word).or_default() += 1;
        match result {
            Ok((status, bytes, value)) => {
                reply.status = Some(status);
                reply.bytes += bytes;
                *reply.values.entry(value).or_default() += 1;
            }
            Err(error) => {
                reply.ok = false;
                reply.error = Some(format!("{error:?}"));
            }
        }
    }
    reply
}

/// Whether a rule refused it, and which; clients wrap errors in errors.
fn failure(error: &(dyn Error + 'static)) -> String {
    let mut link = Some(error);
    while let Some(error) = link {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return format!("refused-{}", refusal.by.as_str());
        }
        link = error.source();
    }
    "failed".into()
}

impl Clients {
    fn new() -> Result<Self, BoxError> {
        let tls = trusting(&std::env::var("FARCALL_TEST_CA")?)?;
        let mut tcp = HttpConnector::new_with_resolver(TimedResolver::new(GaiResolver::new()));
        tcp.enforce_http(false);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(ConnectTimesLayer::tcp().layer(tcp));
        let https = ConnectTimesLayer::new().layer(https);
        let hyper = Client::builder(TokioExecutor::new()).build(https.clone());
        let copies = Client::builder(TokioExecutor::new()).build(https);
        let reqwest = |policy| -> Result<_, BoxError> {
            let client = reqwest::Client::builder().tls_backend_preconfigured(tls.clone());
            let client = client.redirect(redirects(policy)).build()?;
            let egress = EgressMiddleware::new().shadows_through(client.clone());
            Ok(reqwest_middleware::ClientBuilder::new(client).with(egress).build())
        };
        Ok(Self { hyper, copies, following: reqwest(Policy::default())?, staying: reqwest(Policy::none())? })
    }

    async fn through_hyper(self, command: &Command) -> Result<(u16, usize, String), BoxError> {
        let mut request = Request::builder().method(command.method.as_str()).uri(&command.url);
        for (name, value) in &command.headers {
            request = request.header(name, value);
        }
        if let Some(priority) = command.priority() {
            request = request.extension(priority);
        }
        let request = request.body(Full::<Bytes>::from(command.body.clone().unwrap_or_default()))?;
        let deadline = command.deadline();
        // The deadline sits below the layer, so that it is seen as the client's timeout and not as a cancellation.
        let layer = EgressLayer::new().client_name("hyper").shadows_through(self.copies);
        let transport = service_fn(move |request| {
            let answer = timeout_at(deadline, self.hyper.request(request));
            async move { Ok::<_, BoxError>(answer.await??.map(|body| InTime::new(body, deadline))) }
        });
        let response = layer.layer(transport).call(request).await?;
        let (status, value) = (response.status().as_u16(), command.value(response.headers()));
        Ok((status, read(response.into_body(), command.read).await?, value))
    }

    async fn through_reqwest(self, command: &Command) -> Result<(u16, usize, String), BoxError> {
        let client = if command.follow_redirects { self.following } else { self.staying };
        let mut request = client.request(command.method.parse()?, &command.url);
        for (name, value) in &command.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &command.body {
            request = request.body(body.clone());
        }
        if let Some(priority) = command.priority() {
            request = request.with_extension(priority);
        }
        let response = request.timeout(command.timeout()).send().await?;
        let (status, value) = (response.status().as_u16(), command.value(response.headers()));
        Ok((status, read(reqwest::Body::from(response), command.read).await?, value))
    }
}

impl Command {
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.unwrap_or(30_000))
    }

    fn priority(&self) -> Option<Priority> {
        self.priority.map(|urgency| match urgency {
            Urgency::Interactive => Priority::Interactive,
            Urgency::Batch => Priority::Batch,
        })
    }

    /// What an answer has in the field that is to be told of.
    fn value(&self, headers: &HeaderMap) -> String {
        let value = self.header.as_deref().and_then(|name| headers.get(name));
        value.map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout()
    }
}

fn trusting(ca: &str) -> Result<ClientConfig, BoxError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// Reads as much as the command says, then lets go; how many bytes that was.
async fn read<B>(mut body: B, how: Read) -> Result<usize, BoxError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let pieces = match how {
        Read::All => usize::MAX,
        Read::FirstChunk => 1,
        Read::None => 0,
    };
    let mut bytes = 0;
    for _ in 0..pieces {
        let Some(frame) = body.frame().await else { break };
        bytes += frame.map_err(Into::into)?.data_ref().map_or(0, Bytes::len);
    }
    Ok(bytes)
}

/// A body that must be over in time.
struct InTime<B> {
    body: B,
    over: Pin<Box<Sleep>>,
}

impl<B> InTime<B> {
    fn new(body: B, deadline: Instant) -> Self {
        Self { body, over: Box::pin(sleep_until(deadline)) }
    }
}

impl<B: Body<Error: Into<BoxError>> + Unpin> Body for InTime<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(self.over.as_mut().poll(cx));
        Poll::Ready(Some(Err(tower::timeout::error::Elapsed::new().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
