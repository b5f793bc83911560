//! What real answers of a real TLS server advise, where no rule decides anything.
#![cfg(all(feature = "hyper", feature = "reqwest"))]
#![allow(clippy::unwrap_used)]

#[path = "support/vendor.rs"]
mod vendor;

use bytes::Bytes;
use farcall::Config;
use farcall_agent::report::{self, Query};
use farcall_tower::reqwest::EgressMiddleware;
use farcall_tower::{EgressLayer, Farcall, Options, RequestBody};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tempfile::TempDir;
use tower::{Layer, ServiceExt};
use vendor::{To, trusting, vendor};
use vendor_sim::Sim;

const CALLS: u32 = 50;

/// A vendor whose `/steady` is always the same, and whose `/moving` is another after five answers.
fn changing() -> Sim {
    let sim = vendor();
    let host = "app.launchdarkly.com";
    let moving = |n: u32| json!({ "match": { "host": host, "path": "/moving" }, "count": 5, "effect": { "status": 200, "body": { "version": n } } });
    sim.script(json!((0..CALLS / 5).map(moving).collect::<Vec<_>>())).unwrap();
    sim.script(
        json!({ "match": { "host": host, "path": "/steady" }, "effect": { "status": 200, "body": { "flags": "on" } } }),
    )
    .unwrap();
    sim
}

struct Watched {
    farcall: Farcall,
    home: TempDir,
}

fn watched() -> Watched {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(Options {
        home: Some(home.path().to_owned()),
        service: Some("checkout".into()),
        flush_every: None,
        hub: false,
        enabled: true,
        ..Options::default()
    });
    assert!(!farcall.engine().decides());
    Watched { farcall, home }
}

#[tokio::test]
async fn hyper_shows_what_never_changes_and_what_does() {
    let (sim, watched) = (changing(), watched());
    let mut tcp = HttpConnector::new_with_resolver(To(sim.tls_addr()));
    tcp.enforce_http(false);
    let https = HttpsConnectorBuilder::new().with_tls_config(trusting(sim.ca_pem())).https_or_http();
    let client: Client<_, RequestBody<Full<Bytes>>> =
        Client::builder(TokioExecutor::new()).build(https.enable_http1().wrap_connector(tcp));
    let client = EgressLayer::with(watched.farcall.clone()).layer(client);
    for _ in 0..CALLS {
        for path in ["steady", "moving"] {
            let url = format!("https://app.launchdarkly.com/{path}");
            let request = Request::get(url).body(Full::<Bytes>::default()).unwrap();
            let response = client.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let _whole = response.into_body().collect().await.unwrap();
        }
    }
    let mut seen = watched.farcall.engine().drain(watched.farcall.now()).advice;
    seen.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    let within_a_day: Vec<_> = seen
        .iter()
        .map(|seen| (&*seen.endpoint, seen.sums.compared, seen.sums.at[5].hits, seen.sums.at[5].stale))
        .collect();
    // All but the first are saved; of what moves all but the first five have changed by then.
    assert_eq!(within_a_day, [("GET /moving", 50, 49, 45), ("GET /steady", 50, 49, 0)]);
    assert!(seen.iter().all(|seen| seen.sums.roughly == 0), "their bodies were seen whole: {seen:?}");
}

#[tokio::test]
async fn answers_to_two_clients_are_not_compared_unless_they_have_one_name() {
    // Stands for clients that add credentials of their own below the layer.
    let account = |name: &'static str| {
        tower::service_fn(move |_: Request<RequestBody<Full<Bytes>>>| async move {
            Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from_static(
                name.as_bytes(),
            ))))
        })
    };
    let stale_hits = async |named: Option<&str>| {
        let watched = watched();
        let layer = EgressLayer::with(watched.farcall.clone());
        let layer = match named {
            Some(name) => layer.client_name(name),
            None => layer,
        };
        let clients = ["of acme", "of bolt"].map(|name| layer.layer(account(name)));
        for _ in 0..CALLS {
            for client in &clients {
                let request = Request::get("https://app.launchdarkly.com/account");
                let response =
                    client.clone().oneshot(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
                let _whole = response.into_body().collect().await.unwrap();
            }
        }
        let seen = watched.farcall.engine().drain(watched.farcall.now()).advice;
        let [seen] = &seen[..] else { panic!("one endpoint: {seen:?}") };
        (seen.sums.compared, seen.sums.at[5].hits, seen.sums.at[5].stale)
    };
    let all = u64::from(2 * CALLS);
    assert_eq!(stale_hits(None).await, (all, all - 2, 0), "each has its own, which never changes");
    let (compared, hits, stale) = stale_hits(Some("one")).await;
    assert_eq!((compared, hits), (all, all - 1));
    assert!(stale > 0, "under one name they are said to be alike");
}

#[tokio::test]
async fn reqwest_shows_what_never_changes_and_what_does() {
    let (sim, watched) = (changing(), watched());
    let client = reqwest::Client::builder().tls_backend_preconfigured(trusting(sim.ca_pem()));
    let client = client.no_proxy().resolve("app.launchdarkly.com", sim.tls_addr()).build().unwrap();
    let middleware = EgressMiddleware::with(watched.farcall.clone());
    let client = reqwest_middleware::ClientBuilder::new(client).with(middleware).build();
    for _ in 0..CALLS {
        for path in ["steady", "moving"] {
            let response = client.get(format!("https://app.launchdarkly.com/{path}")).send().await.unwrap();
            assert_eq!(response.status(), 200);
            let _whole = response.bytes().await.unwrap();
        }
    }
    watched.farcall.flush();
    let advice = report::advise(&Query::at(watched.home.path())).unwrap();
    assert_eq!((advice.answers.calls, advice.answers.compared), (100, 100));
    let cacheable = |path: &str| {
        advice.rows.iter().find(|row| row.rule == "cacheable" && row.endpoint.as_deref() == Some(path))
    };
    let steady = cacheable("GET /steady").expect("it never changes");
    let within_a_day = &steady.evidence["at"][5];
    assert_eq!((&within_a_day["calls"], &within_a_day["stale"]), (&json!(49), &json!(0)));
    let config = Config::parse("f", steady.config.as_deref().unwrap()).unwrap();
    assert_eq!(config.caches.len(), 1);
    // However long its five equal answers take, to keep it for a day is never advised.
    let moving = cacheable("GET /moving");
    assert!(moving.is_none_or(|row| row.evidence["ttl_s"].as_u64().unwrap() < 86_400), "{moving:?}");
}
