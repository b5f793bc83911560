//! What rules do on the wire: hyper's client and reqwest against a real TLS server.
#![cfg(feature = "hyper")]
#![allow(clippy::unwrap_used)]

mod support;
#[path = "support/vendor.rs"]
mod vendor;

use bytes::Bytes;
use farcall::{ErrorType, Outcome};
use farcall_tower::{Egress, EgressError, EgressLayer, RequestBody};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use support::{Ledger, failed};
use tokio::sync::Notify;
use tower::{Layer, ServiceExt, service_fn};
use vendor::{To, trusting, vendor};
use vendor_sim::Sim;

type HyperClient = Client<HttpsConnector<HttpConnector<To>>, RequestBody<Full<Bytes>>>;

fn hyper(sim: &Sim, ledger: &Ledger) -> Egress<HyperClient> {
    EgressLayer::with(ledger.farcall.clone()).layer(client(sim))
}

fn client<B>(sim: &Sim) -> Client<HttpsConnector<HttpConnector<To>>, B>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    let mut tcp = HttpConnector::new_with_resolver(To(sim.tls_addr()));
    tcp.enforce_http(false);
    let https = HttpsConnectorBuilder::new().with_tls_config(trusting(sim.ca_pem())).https_or_http();
    Client::builder(TokioExecutor::new()).build(https.enable_http1().wrap_connector(tcp))
}

#[cfg(feature = "reqwest")]
fn reqwest(sim: &Sim, ledger: &Ledger) -> reqwest_middleware::ClientWithMiddleware {
    let client = || {
        let client = reqwest::Client::builder().tls_backend_preconfigured(trusting(sim.ca_pem()));
        client.no_proxy().resolve("api.stripe.com", sim.tls_addr()).build().unwrap()
    };
    let middleware = farcall_tower::reqwest::EgressMiddleware::with(ledger.farcall.clone());
    reqwest_middleware::ClientBuilder::new(client()).with(middleware.shadows_through(client())).build()
}

const URL: &str = "https://api.stripe.com/scenario/bytes/321";
const HEDGED: &str =
    "[[resilience]]\nmatch = { vendor = \"stripe\" }\nhedge = { after = \"20ms\", budget = \"100%\" }\n";

fn get() -> Request<Full<Bytes>> {
    Request::get(URL).body(Full::default()).unwrap()
}

/// The first request to arrive, of whichever attempt, gets this; all others their answer.
fn first(sim: &Sim, effect: serde_json::Value) {
    sim.script(json!({ "match": { "host": "api.stripe.com" }, "count": 1, "effect": effect })).unwrap();
}

/// One call of two attempts that came out well, and what is told of it.
fn hedged(sim: &Sim, ledger: &Ledger) -> String {
    let batch = ledger.farcall.engine().drain(ledger.farcall.now());
    let row = &batch.rows[0];
    assert_eq!((batch.rows.len(), row.status, row.outcome), (1, 200, Outcome::Complete));
    assert_eq!((row.sums.calls, row.sums.attempts, row.sums.bytes_in), (1, 2, 321));
    assert_eq!(sim.counts().requests, 2);
    batch.exemplars[0].events.clone()
}

#[tokio::test]
async fn a_second_attempt_answers_for_a_first_one_that_hangs() {
    let (sim, ledger) = (vendor(), Ledger::under(HEDGED));
    first(&sim, json!({ "hang": true }));
    let response = hyper(&sim, &ledger).oneshot(get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 321);
    let events = hedged(&sim, &ledger);
    assert!(events.contains("a second attempt beside the first"), "{events}");
    assert!(events.contains("was given up: the other one counts"), "{events}");
}

/// Has the first attempt go out once the second one was answered.
#[derive(Default)]
struct Turns {
    begun: AtomicU32,
    answered: Notify,
}

impl Turns {
    async fn take<T>(&self, attempt: impl Future<Output = T>) -> T {
        let first = self.begun.fetch_add(1, Ordering::Relaxed) == 0;
        if first {
            self.answered.notified().await;
        }
        let answer = attempt.await;
        if !first {
            self.answered.notify_one();
        }
        answer
    }
}

#[tokio::test]
async fn a_second_attempt_that_fails_leaves_the_first_one_its_time() {
    let (sim, ledger) = (vendor(), Ledger::under(HEDGED));
    first(&sim, json!({ "status": 503 }));
    let (client, turns) = (client::<RequestBody<Full<Bytes>>>(&sim), Arc::new(Turns::default()));
    let in_turn = service_fn(move |request| {
        let (attempt, turns) = (client.request(request), Arc::clone(&turns));
        async move { turns.take(attempt).await }
    });
    let response = Egress::<_>::with(ledger.farcall.clone(), in_turn).oneshot(get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    drop(response.into_body().collect().await.unwrap());
    let events = hedged(&sim, &ledger);
    assert!(events.contains("answered 503: the other one counts"), "{events}");
}

#[tokio::test]
async fn nothing_is_sent_beside_an_attempt_that_must_not_be_repeated() {
    let (sim, ledger) = (vendor(), Ledger::under(HEDGED));
    first(&sim, json!({ "latency_ms": 200 }));
    let request =
        Request::post("https://api.stripe.com/scenario/echo").body(Full::from("twelve bytes")).unwrap();
    let response = hyper(&sim, &ledger).oneshot(request).await.unwrap();
    drop(response.into_body().collect().await.unwrap());
    assert_eq!((ledger.only().sums.attempts, sim.counts().requests), (1, 1));
}

fn cut_at(bytes: u64) -> Ledger {
    Ledger::under(&format!(
        "allow_faults = true\n[[fault]]\nmatch = {{ vendor = \"stripe\" }}\nshare = \"100%\"\n\
         truncate = \"{bytes}B\"\nexpires = \"2099-01-01T00:00:00Z\"\n"
    ))
}

#[tokio::test]
async fn an_injected_fault_breaks_a_response_off_after_its_bytes() {
    let (sim, ledger) = (vendor(), cut_at(100));
    let mut body = hyper(&sim, &ledger).oneshot(get()).await.unwrap().into_body();
    let mut got = 0;
    let error = loop {
        match body.frame().await {
            Some(Ok(frame)) => got += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(error)) => break error,
            None => panic!("it came to its end"),
        }
    };
    assert!(matches!(error, EgressError::Injected(ErrorType::Reset)), "{error:?}");
    assert_eq!(got, 100);
    assert!(body.frame().await.is_none(), "nothing follows");
    let row = ledger.only();
    assert_eq!((row.status, row.outcome, row.sums.bytes_in), (200, failed(ErrorType::Reset), 100));
}

#[tokio::test]
async fn a_response_that_is_short_enough_is_not_broken_off() {
    let (sim, ledger) = (vendor(), cut_at(321));
    let body = hyper(&sim, &ledger).oneshot(get()).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes().len(), 321);
    assert_eq!(ledger.only().outcome, Outcome::Complete);
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn reqwest_sends_a_second_attempt_too() {
    let (sim, ledger) = (vendor(), Ledger::under(HEDGED));
    first(&sim, json!({ "hang": true }));
    let response = reqwest(&sim, &ledger).get(URL).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.bytes().await.unwrap().len(), 321);
    let events = hedged(&sim, &ledger);
    assert!(events.contains("was given up: the other one counts"), "{events}");
}

#[cfg(feature = "reqwest")]
#[async_trait::async_trait]
impl reqwest_middleware::Middleware for Turns {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut http::Extensions,
        next: reqwest_middleware::Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        self.take(next.run(request, extensions)).await
    }
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn reqwest_waits_for_the_first_where_the_second_fails() {
    let (sim, ledger) = (vendor(), Ledger::under(HEDGED));
    first(&sim, json!({ "reset": {} }));
    let client = reqwest::Client::builder().tls_backend_preconfigured(trusting(sim.ca_pem()));
    let client = client.no_proxy().resolve("api.stripe.com", sim.tls_addr()).build().unwrap();
    let middleware = farcall_tower::reqwest::EgressMiddleware::with(ledger.farcall.clone());
    let in_turn = reqwest_middleware::ClientBuilder::new(client).with(middleware).with(Turns::default());
    let response = in_turn.build().get(URL).send().await.unwrap();
    assert_eq!(response.bytes().await.unwrap().len(), 321);
    let events = hedged(&sim, &ledger);
    assert!(events.contains("failed (reset): the other one counts"), "{events}");
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn a_response_of_reqwest_is_broken_off_too() {
    let (sim, ledger) = (vendor(), cut_at(100));
    let response = reqwest(&sim, &ledger).get(URL).send().await.unwrap();
    let error = response.bytes().await.unwrap_err();
    assert!(error.is_body() || error.is_decode(), "{error:?}");
    let row = ledger.only();
    assert_eq!((row.status, row.outcome, row.sums.bytes_in), (200, failed(ErrorType::Reset), 100));
}

#[tokio::test]
async fn a_hedge_is_given_up_with_its_call() {
    let (sim, ledger) = (vendor(), Ledger::under(HEDGED));
    sim.script(json!({ "match": { "host": "api.stripe.com" }, "effect": { "hang": true } })).unwrap();
    let call = tokio::spawn(hyper(&sim, &ledger).oneshot(get()));
    while sim.counts().requests < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let row = ledger.only();
    assert_eq!((row.outcome, row.sums.attempts), (failed(ErrorType::Cancelled), 2));
}

const SHADOWED: &str = "[[rollout]]\nname = \"v2\"\nmatch = { vendor = \"stripe\" }\nby = \"call\"\n\
     shadow = \"100%\"\nvariant = { path_prefix = \"/v2\", headers = { X-Variant = \"2\" } }\n";

/// The variant answers so.
fn variant(sim: &Sim, effect: serde_json::Value) {
    sim.script(json!({ "match": { "path_prefix": "/v2" }, "effect": effect })).unwrap();
}

/// Status and outcome of the call itself and of its copy, once both are over.
async fn call_and_copy(ledger: &Ledger) -> [(u16, Outcome); 2] {
    let (mut rows, begun) = (Vec::new(), std::time::Instant::now());
    while rows.len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{rows:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
        rows.extend(ledger.farcall.engine().drain(ledger.farcall.now()).rows);
    }
    rows.sort_by_key(|row| row.tags.clone());
    assert_eq!((&*rows[0].tags, &*rows[1].tags), ("", "shadow=v2"));
    assert!(rows.iter().all(|row| (row.sums.calls, row.sums.attempts) == (1, 1)));
    [0, 1].map(|at| (rows[at].status, rows[at].outcome))
}

fn shadowing(sim: &Sim, ledger: &Ledger) -> Egress<HyperClient> {
    let copies = client::<http_body_util::Empty<Bytes>>(sim);
    EgressLayer::with(ledger.farcall.clone()).shadows_through(copies).layer(client(sim))
}

#[tokio::test]
async fn a_copy_goes_to_the_variant_and_nobody_gets_its_answer() {
    let (sim, ledger) = (vendor(), Ledger::under(SHADOWED));
    variant(&sim, json!({ "status": 503 }));
    let response = shadowing(&sim, &ledger).oneshot(get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 321);
    assert_eq!(call_and_copy(&ledger).await, [(200, Outcome::Complete), (503, Outcome::Complete)]);
    let seen = sim.counts();
    assert_eq!((seen.requests, seen.rows.iter().filter(|row| row.path.starts_with("/v2/")).count()), (2, 1));
}

#[tokio::test]
async fn a_copy_that_breaks_or_hangs_is_nothing_to_the_caller() {
    let (sim, ledger) = (vendor(), Ledger::under(SHADOWED));
    variant(&sim, json!({ "reset": {} }));
    let response = shadowing(&sim, &ledger).oneshot(get()).await.unwrap();
    drop(response.into_body().collect().await.unwrap());
    assert_eq!(call_and_copy(&ledger).await, [(200, Outcome::Complete), (0, failed(ErrorType::Reset))]);

    let (sim, ledger) = (vendor(), Ledger::under(SHADOWED));
    variant(&sim, json!({ "hang": true }));
    let response = shadowing(&sim, &ledger).oneshot(get()).await.unwrap();
    drop(response.into_body().collect().await.unwrap());
    assert_eq!(ledger.only().outcome, Outcome::Complete, "the call is over, whatever its copy does");
}

#[tokio::test]
async fn without_a_client_for_them_and_of_unsafe_calls_no_copies_are_sent() {
    let (sim, ledger) = (vendor(), Ledger::under(SHADOWED));
    let response = hyper(&sim, &ledger).oneshot(get()).await.unwrap();
    drop(response.into_body().collect().await.unwrap());
    let request = Request::post(URL).body(Full::from("twelve bytes")).unwrap();
    let response = shadowing(&sim, &ledger).oneshot(request).await.unwrap();
    drop(response.into_body().collect().await.unwrap());
    let rows = ledger.farcall.engine().drain(ledger.farcall.now()).rows;
    assert_eq!(rows.iter().map(|row| row.sums.calls).sum::<u64>(), 2);
    assert!(rows.iter().all(|row| row.tags.is_empty()));
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn reqwest_sends_copies_too() {
    let (sim, ledger) = (vendor(), Ledger::under(SHADOWED));
    variant(&sim, json!({ "status": 404 }));
    let response = reqwest(&sim, &ledger).get(URL).send().await.unwrap();
    assert_eq!((response.status(), response.bytes().await.unwrap().len()), (StatusCode::OK, 321));
    assert_eq!(call_and_copy(&ledger).await, [(200, Outcome::Complete), (404, Outcome::Complete)]);
}
