//! The layer and the connector layer around hyper-util's client, over real TLS.
#![cfg(feature = "hyper")]
#![allow(clippy::unwrap_used)]

mod support;
#[path = "support/vendor.rs"]
mod vendor;

use bytes::Bytes;
use farcall::ledger::Rollup;
use farcall::{ErrorType, Outcome};
use farcall_tower::connector::{ConnectTimesLayer, TimedConnector, TimedResolver};
use farcall_tower::{Egress, EgressLayer, RequestBody, customer};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::collections::BTreeMap;
use std::time::Duration;
use support::{Ledger, closed, failed};
use tower::{Layer, Service, ServiceExt};
use vendor::{To, trusting, vendor};
use vendor_sim::Sim;

type Tcp = TimedConnector<HttpConnector<TimedResolver<To>>>;
type HyperClient = Client<TimedConnector<HttpsConnector<Tcp>>, RequestBody<Full<Bytes>>>;

enum Speaking {
    Http1,
    Http2,
}

fn client(sim: &Sim, ledger: &Ledger, speaking: &Speaking) -> Egress<HyperClient> {
    let mut tcp = HttpConnector::new_with_resolver(TimedResolver::new(To(sim.tls_addr())));
    tcp.enforce_http(false);
    let https = HttpsConnectorBuilder::new().with_tls_config(trusting(sim.ca_pem())).https_or_http();
    let https = match speaking {
        Speaking::Http1 => https.enable_http1().wrap_connector(ConnectTimesLayer::tcp().layer(tcp)),
        Speaking::Http2 => https.enable_http2().wrap_connector(ConnectTimesLayer::tcp().layer(tcp)),
    };
    let client = Client::builder(TokioExecutor::new()).build(ConnectTimesLayer::new().layer(https));
    EgressLayer::with(ledger.farcall.clone()).layer(client)
}

fn get(url: &str) -> Request<Full<Bytes>> {
    Request::get(url).body(Full::default()).unwrap()
}

/// Makes a call and reads its response to the end.
async fn whole(client: &Egress<HyperClient>, request: Request<Full<Bytes>>) -> (StatusCode, usize) {
    let response = client.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes().len())
}

fn sum(rows: &[Rollup], part: impl Fn(&Rollup) -> u64) -> u64 {
    rows.iter().map(part).sum()
}

#[tokio::test]
async fn a_call_counts_with_its_bytes_both_ways_over_http1_and_http2() {
    for speaking in [Speaking::Http1, Speaking::Http2] {
        let (sim, ledger) = (vendor(), Ledger::new());
        let client = client(&sim, &ledger, &speaking);
        let request =
            Request::post("https://api.stripe.com/scenario/echo").body(Full::from("twelve bytes")).unwrap();
        assert_eq!(whole(&client, request).await, (StatusCode::OK, 12));
        let row = ledger.only();
        assert_eq!((row.vendor.as_ref(), row.status, row.outcome), ("stripe", 200, Outcome::Complete));
        assert_eq!((row.sums.bytes_out, row.sums.bytes_in), (12, 12));
        assert!(row.sums.ttfb > Duration::ZERO && row.sums.ttfb <= row.sums.duration);
        assert_eq!(sim.counts().requests, 1);
    }
}

#[tokio::test]
async fn the_first_call_on_a_connection_reports_its_making_and_the_next_ones_none() {
    for speaking in [Speaking::Http1, Speaking::Http2] {
        let (sim, ledger) = (vendor(), Ledger::new());
        let client = client(&sim, &ledger, &speaking);
        whole(&client, get("https://api.github.com/scenario/ok")).await;
        let first = ledger.only().sums;
        assert_eq!(first.connections, 1);
        assert!(first.dns > Duration::ZERO, "{first:?}");
        assert!(first.connect > Duration::ZERO, "{first:?}");
        assert!(first.tls > Duration::ZERO, "{first:?}");
        assert!(first.dns + first.connect + first.tls <= first.ttfb, "{first:?}");
        for _ in 0..3 {
            whole(&client, get("https://api.github.com/scenario/ok")).await;
            let next = ledger.only().sums;
            assert_eq!((next.connections, next.dns, next.connect, next.tls), Default::default());
        }
        assert_eq!(sim.counts().connections, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_parallel_calls_are_a_hundred_and_no_connection_reports_twice() {
    for speaking in [Speaking::Http1, Speaking::Http2] {
        let (sim, ledger) = (vendor(), Ledger::new());
        let client = client(&sim, &ledger, &speaking);
        let calls: Vec<_> = (0..100)
            .map(|number| {
                let client = client.clone();
                let name = ["acme", "globex"][number % 2];
                let call =
                    async move { whole(&client, get("https://api.stripe.com/scenario/bytes/1000")).await };
                tokio::spawn(customer(name).scope(call))
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), (StatusCode::OK, 1_000));
        }
        let rows = ledger.rows();
        let mut of_customers = BTreeMap::new();
        for row in &rows {
            *of_customers.entry(row.customer.as_ref()).or_insert(0) += row.sums.calls;
        }
        assert_eq!(of_customers, BTreeMap::from([("acme", 50), ("globex", 50)]));
        assert_eq!(sum(&rows, |row| row.sums.bytes_in), 100_000);
        let counts = sim.counts();
        assert_eq!(counts.requests, 100);
        let reported = sum(&rows, |row| row.sums.connections);
        assert!((1..=counts.connections).contains(&reported), "{reported} of {}", counts.connections);
    }
}

#[tokio::test]
async fn a_stream_counts_when_it_is_let_go_of() {
    let (sim, ledger) = (vendor(), Ledger::new());
    let client = client(&sim, &ledger, &Speaking::Http1);
    let request = get("https://api.openai.com/scenario/endless?every_ms=1&bytes=64");
    let mut response = client.clone().oneshot(request).await.unwrap();
    let first = response.body_mut().frame().await.unwrap().unwrap();
    assert!(ledger.rows().is_empty());
    let length = first.data_ref().map_or(0, Bytes::len) as u64;
    drop(response);
    let row = ledger.only();
    assert_eq!((row.outcome, row.status, row.sums.bytes_in), (Outcome::Abandoned, 200, length));
}

#[tokio::test]
async fn each_way_to_fail_has_its_type() {
    let (sim, ledger) = (vendor(), Ledger::new());
    let client = client(&sim, &ledger, &Speaking::Http1);
    let (_held, closed) = closed();
    let plain = sim.plain_addr();
    for (url, error) in [
        ("https://api.stripe.invalid/".into(), ErrorType::Dns),
        (format!("http://{closed}/"), ErrorType::Connect),
        ("https://bad-cert.example.com/".into(), ErrorType::Tls),
        ("https://unknown-ca.example.com/".into(), ErrorType::Tls),
        ("https://reset-handshake.example.com/".into(), ErrorType::Tls),
        ("https://api.stripe.com/scenario/reset".into(), ErrorType::Reset),
        (format!("http://{plain}/scenario/garbage"), ErrorType::Protocol),
    ] {
        client.clone().oneshot(get(&url)).await.unwrap_err();
        let row = ledger.only();
        assert_eq!((row.status, row.outcome, row.sums.bytes_out), (0, failed(error), 0), "{url}");
    }
    for path in ["reset-mid-body?after=5000", "truncate?after=5000"] {
        let url = format!("https://api.stripe.com/scenario/{path}");
        let response = client.clone().oneshot(get(&url)).await.unwrap();
        response.into_body().collect().await.unwrap_err();
        let row = ledger.only();
        assert_eq!((row.status, row.outcome), (200, failed(ErrorType::Reset)), "{path}");
        assert!(row.sums.bytes_in <= 5_000, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_over_http2_is_a_reset_and_one_that_is_not_http_a_protocol_error() {
    let (sim, ledger) = (vendor(), Ledger::new());
    let client = client(&sim, &ledger, &Speaking::Http2);
    // The socket's error races the stream's, and sometimes the head; all are the vendor hanging up.
    for _ in 0..20 {
        let url = "https://api.stripe.com/scenario/reset-mid-body?after=5000";
        let error = match client.clone().oneshot(get(url)).await {
            Ok(response) => response.into_body().collect().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(ledger.only().outcome, failed(ErrorType::Reset), "{error:?}");
    }
    let url = format!("http://{}/scenario/wrong/bad-chunk-size", sim.plain_addr());
    let client = self::client(&sim, &ledger, &Speaking::Http1);
    client.clone().oneshot(get(&url)).await.unwrap().into_body().collect().await.unwrap_err();
    assert_eq!(ledger.only().outcome, failed(ErrorType::Protocol));
}

#[tokio::test]
async fn a_timeout_below_the_layer_is_a_timeout_and_above_it_a_cancellation() {
    let (sim, ledger) = (vendor(), Ledger::new());
    let client = client(&sim, &ledger, &Speaking::Http1).into_inner();
    let url = "https://api.stripe.com/scenario/hang";
    let soon = Duration::from_millis(50);

    let bounded = tower::timeout::Timeout::new(client.clone(), soon);
    let mut inside = EgressLayer::with(ledger.farcall.clone()).layer(bounded);
    assert!(inside.call(get(url)).await.is_err());
    assert_eq!(ledger.only().outcome, failed(ErrorType::Timeout));

    let counted: Egress<HyperClient> = EgressLayer::with(ledger.farcall.clone()).layer(client);
    let mut outside = tower::timeout::Timeout::new(counted, soon);
    assert!(outside.call(get(url)).await.is_err());
    assert_eq!(ledger.only().outcome, failed(ErrorType::Cancelled));
}
