//! A service of ours: it bills three customers for their open GitHub issues with Stripe, and tells Slack.
//!
//! Farcall needs three things of it: the middleware on reqwest, the layer on the hyper client, and the customer's
//! name around each unit of work; and two lines, so that its last second is written however it ends: at the begin
//! and at the end of `main`. The rest is an ordinary service.

use bytes::Bytes;
use clap::Parser;
use farcall_tower::connector::{ConnectTimesLayer, TimedConnector, TimedResolver};
use farcall_tower::reqwest::{EgressMiddleware, redirects};
use farcall_tower::{Egress, EgressLayer, Farcall, Options, RequestBody};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, dns::GaiResolver};
use hyper_util::rt::TokioExecutor;
use reqwest::redirect::Policy;
use reqwest_middleware::ClientWithMiddleware;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tower::{Layer, ServiceExt};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// hyper's client with times of name resolution, TCP and TLS, below the layer that counts its calls.
type HyperClient = Egress<Client<TimedConnector<HttpsConnector<Tcp>>, RequestBody<Full<Bytes>>>>;
type Tcp = TimedConnector<HttpConnector<TimedResolver<GaiResolver>>>;

#[derive(Parser)]
struct Arguments {
    /// How long to work.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    // It leaves SIGTERM to the system, so Farcall may write what is left before it dies of that.
    Farcall::start_global(|| Options { handle_sigterm: true, ..Options::default() });
    let end = Instant::now() + Duration::from_secs(Arguments::parse().seconds);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut service = Service { reqwest: reqwest()?, hyper: hyper()?, made: BTreeMap::new() };

    let mut failed = 0;
    for customer in ["acme", "globex", "initech"].into_iter().cycle() {
        if Instant::now() >= end {
            break;
        }
        if let Err(error) = farcall_tower::customer(customer).scope(service.work(customer)).await {
            failed += 1;
            eprintln!("{customer}: {error}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    Farcall::global().shutdown();
    println!("{}", json!({"service": "rust-service", "calls": service.made, "failed": failed}));
    Ok(())
}

/// reqwest, its calls counted, each hop of a redirect for itself.
fn reqwest() -> Result<ClientWithMiddleware, Error> {
    let client = reqwest::Client::builder().user_agent("rust-service").redirect(redirects(Policy::default()));
    Ok(reqwest_middleware::ClientBuilder::new(client.build()?).with(EgressMiddleware::new()).build())
}

/// hyper's client, its calls counted. The connector's layers are only there for the times of its connections.
fn hyper() -> Result<HyperClient, Error> {
    let mut tcp = HttpConnector::new_with_resolver(TimedResolver::new(GaiResolver::new()));
    tcp.enforce_http(false);
    let https = HttpsConnectorBuilder::new()
        .with_native_roots()?
        .https_only()
        .enable_all_versions()
        .wrap_connector(ConnectTimesLayer::tcp().layer(tcp));
    let client = Client::builder(TokioExecutor::new()).build(ConnectTimesLayer::new().layer(https));
    Ok(EgressLayer::new().layer(client))
}

struct Service {
    reqwest: ClientWithMiddleware,
    hyper: HyperClient,
    /// What this program itself knows of its calls, to be compared with what Farcall says.
    made: BTreeMap<&'static str, u64>,
}

impl Service {
    async fn work(&mut self, customer: &str) -> Result<(), Error> {
        // Asked anew for every unit of work: this is what Farcall will point out.
        let flags = self.flags().await?;
        let issues = self.issues(customer).await?;
        if flags["flags"]["flag-00"]["on"] == json!(true) {
            self.bill(customer, issues).await?;
        }
        self.tell(&format!("{customer} has {issues} open issues")).await
    }

    /// Which features are on.
    async fn flags(&mut self) -> Result<Value, Error> {
        let request =
            Request::get("https://app.launchdarkly.com/sdk/latest-all").header(AUTHORIZATION, "sdk-demo");
        let body = self.send("app.launchdarkly.com", request.body(Full::default())?).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    async fn issues(&mut self, customer: &str) -> Result<usize, Error> {
        self.count("api.github.com");
        let url = format!("https://api.github.com/repos/{customer}/shop/issues?state=open");
        let response = self.reqwest.get(url).send().await?.error_for_status()?;
        let issues: Value = serde_json::from_slice(&response.bytes().await?)?;
        Ok(issues.as_array().map_or(0, Vec::len))
    }

    async fn bill(&mut self, customer: &str, issues: usize) -> Result<(), Error> {
        self.count("api.stripe.com");
        let item = [
            ("customer", format!("cus_{customer}")),
            ("amount", (issues * 100).to_string()),
            ("currency", "usd".into()),
        ];
        let request = self.reqwest.post("https://api.stripe.com/v1/charges").bearer_auth("sk_test_demo");
        request.form(&item).send().await?.error_for_status()?.bytes().await?;
        Ok(())
    }

    async fn tell(&mut self, text: &str) -> Result<(), Error> {
        let request = Request::builder()
            .method(Method::POST)
            .uri("https://hooks.slack.com/services/T0DEMO/B0DEMO/demo")
            .header(CONTENT_TYPE, "application/json");
        let message = json!({"text": text}).to_string();
        self.send("hooks.slack.com", request.body(Full::from(message))?).await?;
        Ok(())
    }

    /// Sends a request through hyper's client, and reads the whole answer.
    async fn send(&mut self, host: &'static str, request: Request<Full<Bytes>>) -> Result<Bytes, Error> {
        self.count(host);
        let response = self.hyper.clone().oneshot(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(format!("{host} answered {status}").into()) }
    }

    fn count(&mut self, host: &'static str) {
        *self.made.entry(host).or_default() += 1;
    }
}
