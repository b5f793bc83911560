//! The middleware of reqwest, over real TLS.
#![cfg(feature = "reqwest")]
#![allow(clippy::unwrap_used)]

mod support;
#[path = "support/vendor.rs"]
mod vendor;

use bytes::Bytes;
use farcall::ledger::Rollup;
use farcall::{ErrorType, Outcome};
use farcall_tower::reqwest::{EgressMiddleware, redirects};
use farcall_tower::{Customer, customer};
use reqwest::redirect::Policy;
use reqwest::{Body, ClientBuilder};
use reqwest_middleware::{ClientWithMiddleware, Middleware, Next};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Ledger, closed, failed};
use vendor::{trusting, vendor};
use vendor_sim::Sim;

/// Every host that these tests name, at the simulator.
const HOSTS: [&str; 3] = ["api.stripe.com", "api.github.com", "unknown-ca.example.com"];

fn builder(sim: &Sim) -> ClientBuilder {
    let builder = reqwest::Client::builder().tls_backend_preconfigured(trusting(sim.ca_pem()));
    HOSTS.iter().fold(builder.no_proxy(), |builder, host| builder.resolve(host, sim.tls_addr()))
}

fn counted(builder: ClientBuilder, ledger: &Ledger) -> ClientWithMiddleware {
    let middleware = EgressMiddleware::with(ledger.farcall.clone());
    reqwest_middleware::ClientBuilder::new(builder.build().unwrap()).with(middleware).build()
}

fn client(sim: &Sim, ledger: &Ledger) -> ClientWithMiddleware {
    counted(builder(sim).redirect(redirects(Policy::default())), ledger)
}

/// Vendor, endpoint, status, outcome and number of each series, in order.
fn series(mut rows: Vec<Rollup>) -> Vec<(String, u16, Outcome, u64)> {
    rows.sort_by_key(|row| std::cmp::Reverse(row.status));
    rows.iter()
        .map(|row| (format!("{} {}", row.vendor, row.endpoint), row.status, row.outcome, row.sums.calls))
        .collect()
}

#[tokio::test]
async fn a_response_is_the_same_with_the_middleware_as_without() {
    let (sim, ledger) = (vendor(), Ledger::new());
    let url = "https://api.stripe.com/scenario/bytes/321?page=2";
    let bare = builder(&sim).build().unwrap().get(url).send().await.unwrap();
    let ours = client(&sim, &ledger).get(url).send().await.unwrap();
    assert_eq!(ours.url(), bare.url());
    assert_eq!((ours.status(), ours.version()), (bare.status(), bare.version()));
    assert_eq!(ours.remote_addr(), bare.remote_addr());
    assert_eq!(ours.content_length(), Some(321));
    assert_eq!(ours.headers().keys().collect::<Vec<_>>(), bare.headers().keys().collect::<Vec<_>>());
    assert!(ledger.rows().is_empty(), "the body is still to come");
    assert_eq!(ours.bytes().await.unwrap(), bare.bytes().await.unwrap());
    let row = ledger.only();
    assert_eq!((row.outcome, row.sums.bytes_in, row.sums.bytes_out), (Outcome::Complete, 321, 0));
}

#[tokio::test]
async fn each_hop_of_a_redirect_is_a_call_of_its_own_for_the_same_customer() {
    let (sim, ledger) = (vendor(), Ledger::new());
    sim.script(json!({
        "match": {"host": "api.github.com", "path": "/elsewhere"},
        "effect": {"status": 302, "body": "", "headers": {"location": "https://api.stripe.com/scenario/slow?ms=50"}},
    }))
    .unwrap();
    let request = client(&sim, &ledger).get("https://api.github.com/elsewhere");
    let response = request.with_extension(Customer::new("acme")).send().await.unwrap();
    assert_eq!(response.url().as_str(), "https://api.stripe.com/scenario/slow?ms=50");
    response.bytes().await.unwrap();
    let rows = ledger.rows();
    assert!(rows.iter().all(|row| row.customer.as_ref() == "acme"));
    let slow = rows.iter().find(|row| row.vendor.as_ref() == "stripe").unwrap();
    let fast = rows.iter().find(|row| row.vendor.as_ref() == "github").unwrap();
    assert!(slow.sums.ttfb >= Duration::from_millis(50), "the wait is the second vendor's");
    assert_eq!((slow.status, fast.status, slow.sums.calls, fast.sums.calls), (200, 302, 1, 1));

    let response = customer("globex")
        .scope(client(&sim, &ledger).get("https://api.stripe.com/scenario/redirect/3").send());
    response.await.unwrap().bytes().await.unwrap();
    let rows = ledger.rows();
    assert!(rows.iter().all(|row| row.customer.as_ref() == "globex"));
    assert_eq!(rows.iter().map(|row| row.sums.calls).sum::<u64>(), 5);
    assert_eq!(sim.counts().requests, 7);
}

#[tokio::test]
async fn without_the_policy_a_redirect_chain_is_one_call_to_its_first_url() {
    let (sim, ledger) = (vendor(), Ledger::new());
    let client = counted(builder(&sim), &ledger);
    client.get("https://api.stripe.com/scenario/redirect/1").send().await.unwrap().bytes().await.unwrap();
    let row = ledger.only();
    assert_eq!((row.status, row.outcome), (200, Outcome::Complete));
    assert!(row.endpoint.contains("redirect"), "{}", row.endpoint);
    assert!(ledger.farcall.counters().contains(&("reqwest_unseen_redirects".into(), 1)), "and says so");
}

#[tokio::test]
async fn a_redirect_that_the_policy_does_not_follow_is_one_call() {
    let (sim, ledger) = (vendor(), Ledger::new());
    let url = "https://api.stripe.com/scenario/redirect/2";
    let stays = counted(builder(&sim).redirect(redirects(Policy::none())), &ledger);
    let response = stays.get(url).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.url().as_str()), (302, url));
    response.bytes().await.unwrap();
    let row = ledger.only();
    assert_eq!((row.status, row.outcome), (302, Outcome::Complete));

    let gives_up = counted(builder(&sim).redirect(redirects(Policy::limited(1))), &ledger);
    assert!(gives_up.get(url).send().await.is_err());
    let rows = ledger.rows();
    assert!(rows.iter().all(|row| (row.status, row.outcome) == (302, Outcome::Complete)), "{rows:?}");
    assert_eq!(rows.iter().map(|row| row.sums.calls).sum::<u64>(), 2, "both redirects arrived whole");
}

#[tokio::test]
async fn a_chain_that_is_cancelled_ends_at_the_hop_under_way() {
    let (sim, ledger) = (vendor(), Ledger::new());
    sim.script(json!({
        "match": {"host": "api.github.com"},
        "effect": {"status": 307, "body": "", "headers": {"location": "https://api.stripe.com/scenario/hang"}},
    }))
    .unwrap();
    let client = client(&sim, &ledger);
    let call = tokio::spawn(client.post("https://api.github.com/x").body("12345").send());
    // The second vendor has the request: the call to the first is over.
    while sim.counts().by_host.iter().all(|host| host.host != "api.stripe.com") {
        tokio::task::yield_now().await;
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let rows = series(ledger.rows());
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!((rows[0].1, rows[0].2), (307, Outcome::Complete));
    assert!(rows[1].0.starts_with("stripe POST"), "a 307 keeps its method: {rows:?}");
    assert_eq!(rows[1].2, failed(ErrorType::Cancelled));
}

#[tokio::test]
async fn a_body_that_is_sent_again_counts_again_and_a_dropped_one_does_not() {
    let (sim, ledger) = (vendor(), Ledger::new());
    for (status, method, bytes_out) in [(307, "POST", 10), (302, "GET", 5), (303, "GET", 5)] {
        sim.clear_script();
        sim.clear_counts();
        sim.script(json!({
            "match": {"host": "api.github.com"},
            "effect": {"status": status, "body": "", "headers": {"location": "https://api.stripe.com/scenario/echo"}},
        }))
        .unwrap();
        let request = client(&sim, &ledger).post("https://api.github.com/x").body("12345");
        request.send().await.unwrap().bytes().await.unwrap();
        let rows = ledger.rows();
        assert_eq!(rows.iter().map(|row| row.sums.bytes_out).sum::<u64>(), bytes_out, "{status}");
        assert_eq!(sim.counts().bytes_in, bytes_out, "{status}");
        assert!(rows.iter().any(|row| row.endpoint.starts_with(&format!("{method} /scenario"))), "{rows:?}");
    }
}

#[tokio::test]
async fn a_streaming_body_counts_what_was_sent() {
    let (sim, ledger) = (vendor(), Ledger::new());
    let pieces =
        ["one", "two", "three"].map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece.as_bytes())));
    let body = Body::wrap_stream(tokio_stream::iter(pieces));
    let response = client(&sim, &ledger).post("https://api.stripe.com/scenario/echo").body(body).send().await;
    assert_eq!(response.unwrap().text().await.unwrap(), "onetwothree");
    let row = ledger.only();
    assert_eq!((row.sums.bytes_out, row.sums.bytes_in), (11, 11));
}

#[tokio::test]
async fn failures_have_their_type_and_send_nothing_before_a_connection() {
    let (sim, ledger) = (vendor(), Ledger::new());
    let client = counted(builder(&sim), &ledger);
    let (_held, closed) = closed();
    for (url, error, bytes_out) in [
        (format!("http://{closed}/"), ErrorType::Connect, 0),
        ("https://unknown-ca.example.com/".into(), ErrorType::Tls, 0),
        ("https://api.stripe.com/scenario/reset".into(), ErrorType::Reset, 5),
    ] {
        assert!(client.post(&url).body("12345").send().await.is_err());
        let row = ledger.only();
        assert_eq!((row.status, row.outcome, row.sums.bytes_out), (0, failed(error), bytes_out), "{url}");
    }
    let response = client.get("https://api.stripe.com/scenario/reset-mid-body").send().await.unwrap();
    assert!(response.bytes().await.is_err());
    let row = ledger.only();
    assert_eq!((row.status, row.outcome), (200, failed(ErrorType::Reset)));
}

/// Stops the timers of this runtime until `condition` holds; from then on each passes as soon as nothing else happens.
/// So no timeout strikes early on a busy machine.
fn no_timeout_until(condition: impl Fn() -> bool + Send + 'static) {
    tokio::time::pause();
    // The clock of a paused runtime leaps ahead when there is nothing to do, but not while a blocking task runs.
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        while !condition() && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

#[tokio::test]
async fn a_timeout_before_the_head_is_told_from_one_within_the_body() {
    let (sim, ledger) = (Arc::new(vendor()), Ledger::new());
    let client = counted(builder(&sim), &ledger);
    let soon = Duration::from_millis(300);
    let arrived = Arc::clone(&sim);
    no_timeout_until(move || arrived.counts().requests == 1);
    let hanging = client.post("https://api.stripe.com/scenario/hang").body("12345").timeout(soon);
    assert!(hanging.send().await.is_err());
    let row = ledger.only();
    assert_eq!((row.status, row.outcome, row.sums.bytes_out), (0, failed(ErrorType::Timeout), 5));

    tokio::time::resume();
    let answered = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&answered);
    no_timeout_until(move || seen.load(Ordering::Relaxed));
    let stalling = client.get("https://api.stripe.com/scenario/stall?after=5000").timeout(soon);
    let response = stalling.send().await.unwrap();
    answered.store(true, Ordering::Relaxed);
    assert!(response.bytes().await.is_err());
    let row = ledger.only();
    assert_eq!((row.status, row.outcome), (200, failed(ErrorType::Timeout)));
}

#[tokio::test]
async fn a_response_let_go_of_is_abandoned() {
    let (sim, ledger) = (vendor(), Ledger::new());
    let url = "https://api.stripe.com/scenario/endless?every_ms=1";
    let mut response = client(&sim, &ledger).get(url).send().await.unwrap();
    let length = response.chunk().await.unwrap().unwrap().len() as u64;
    drop(response);
    let row = ledger.only();
    assert_eq!((row.outcome, row.sums.bytes_in), (Outcome::Abandoned, length));
}

#[tokio::test]
async fn the_middleware_twice_counts_once_and_a_retry_above_it_counts_each_attempt() {
    let (sim, ledger) = (vendor(), Ledger::new());
    let middleware = || EgressMiddleware::with(ledger.farcall.clone());
    let twice = reqwest_middleware::ClientBuilder::new(builder(&sim).build().unwrap());
    let twice = twice.with(middleware()).with(middleware()).build();
    twice.get("https://api.stripe.com/scenario/ok").send().await.unwrap().bytes().await.unwrap();
    assert_eq!(ledger.only().sums.bytes_in, 17);

    let client = reqwest_middleware::ClientBuilder::new(builder(&sim).build().unwrap());
    let client = client.with(Again).with(middleware()).build();
    client.get("https://api.stripe.com/scenario/ok").send().await.unwrap().bytes().await.unwrap();
    assert_eq!(ledger.rows().iter().map(|row| row.sums.calls).sum::<u64>(), 2);
}

/// Makes each request twice, as a retry middleware does.
struct Again;

#[async_trait::async_trait]
impl Middleware for Again {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut http::Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let again = request.try_clone().unwrap();
        next.clone().run(request, extensions).await?.bytes().await?;
        next.run(again, extensions).await
    }
}

#[tokio::test]
async fn an_attempt_that_is_given_up_above_hides_none_of_those_that_follow() {
    for rules in ["", "[[policy]]\nmatch = { vendor = \"stripe\" }\nverdict = \"warn\"\n"] {
        let (sim, ledger) = (vendor(), Ledger::under(rules));
        let client = reqwest_middleware::ClientBuilder::new(builder(&sim).build().unwrap());
        let client = client.with(Impatient).with(EgressMiddleware::with(ledger.farcall.clone())).build();
        client.get("https://api.stripe.com/scenario/ok").send().await.unwrap().bytes().await.unwrap();
        let rows = ledger.rows();
        let whole = |row: &&Rollup| row.outcome == Outcome::Complete;
        let calls = |rows: &[&Rollup]| rows.iter().map(|row| row.sums.calls).sum::<u64>();
        let (whole, others): (Vec<_>, Vec<_>) = rows.iter().partition(whole);
        assert_eq!((calls(&others), calls(&whole)), (1, 1), "{rules}: {rows:?}");
    }
}

/// Gives the first attempt up as soon as it is under way, as a timeout above the middleware does.
struct Impatient;

#[async_trait::async_trait]
impl Middleware for Impatient {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut http::Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let again = request.try_clone().unwrap();
        tokio::select! {
            biased;
            _ = next.clone().run(request, extensions) => panic!("a connection takes a moment"),
            () = std::future::ready(()) => {}
        }
        next.run(again, extensions).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_parallel_calls_are_a_hundred() {
    let (sim, ledger) = (vendor(), Ledger::new());
    let client = client(&sim, &ledger);
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let call = client.get("https://api.stripe.com/scenario/redirect").send();
            tokio::spawn(
                customer(format!("customer-{}", number % 10))
                    .scope(async move { call.await.unwrap().bytes().await.unwrap().len() }),
            )
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 17);
    }
    let mut calls = BTreeMap::new();
    for row in ledger.rows() {
        *calls.entry((row.customer.to_string(), row.status)).or_insert(0) += row.sums.calls;
    }
    let names = (0..10).map(|number| format!("customer-{number}"));
    let expected = names.flat_map(|name| [((name.clone(), 200), 10), ((name, 302), 10)]);
    assert_eq!(calls, expected.collect(), "a redirect and its target for each");
    assert_eq!(sim.counts().requests, 200);
}
