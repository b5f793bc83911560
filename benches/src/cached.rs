//! What need not be asked for: an answer out of the cache through the tower layer, beside the same made of
//! http-cache-semantics and moka; and a stampede of equal requests, beside the same client without the layer.

use crate::harness::{Row, in_turns, median, timed};
use bytes::Bytes;
use farcall_tower::{Egress, Farcall, Options};
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty, Full};
use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy};
use moka::sync::Cache;
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tower::{Service, ServiceExt, service_fn};

const HITS: u32 = 5_120;
/// Requests that are made at a time, before they are asked: few enough to stay in the first cache.
const AT_A_TIME: u32 = 16;
const EQUAL: u32 = 1_000;
const STAMPEDES: usize = 9;
/// How long the vendor takes in a stampede.
const TAKES: Duration = Duration::from_millis(20);
const URL: &str = "https://api.rates.example/v1/rates?base=EUR&at=2026-11-21";

pub(crate) fn measure() -> Vec<Row> {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("farcall.toml");
    let rules = "[[cache]]\nname = \"all\"\nmatch = {}\ncoalesce = \"60s\"\n";
    std::fs::write(&config, rules).unwrap();
    let farcall = Farcall::start(Options {
        home: Some(home.path().into()),
        config: Some(config),
        hub: false,
        ..Options::default()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut rows = vec![hit(&runtime, &farcall)];
    rows.extend(stampede(&runtime, &farcall));
    farcall.shutdown();
    rows
}

fn request(uri: &Uri) -> Request<Empty<Bytes>> {
    Request::get(uri.clone())
        .header(header::ACCEPT, "application/json")
        .header(header::AUTHORIZATION, "Bearer sk_live_51HxJ2eKZvKYlo2C0aaaaaaaaaaaaaaaaaaaaaaaa")
        .body(Empty::new())
        .unwrap()
}

fn answer() -> Response<Full<Bytes>> {
    Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CACHE_CONTROL, "private, max-age=86400")
        .header(header::ETAG, "\"33a64df551425fcc55e4d42a148795d9\"")
        .header(header::VARY, "accept")
        .header("x-request-id", "req_123")
        .body(Full::new(Bytes::from_static(&[b'x'; 512])))
        .unwrap()
}

/// One answer, its body read to its end.
async fn ask<S, B>(client: &mut S, request: Request<Empty<Bytes>>)
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let response = client.ready().await.unwrap().call(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(black_box(body).len(), 512);
}

/// What the answers take, request by request: from a request that is made until the last byte of its body. To make
/// requests is the application's, whatever answers them, and is not in the time.
fn answers<S, B>(runtime: &Runtime, client: &mut S, uri: &Uri, calls: u32) -> Duration
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let mut time = Duration::ZERO;
    for _ in 0..calls / AT_A_TIME {
        let requests: [_; AT_A_TIME as usize] = std::array::from_fn(|_| request(uri));
        let each = async {
            for request in requests {
                ask(client, request).await;
            }
        };
        time += timed(|| runtime.block_on(each));
    }
    time
}

fn hit(runtime: &Runtime, farcall: &Farcall) -> Row {
    let uri: Uri = URL.parse().unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&asked);
    let mut kept = Egress::<_>::with(
        farcall.clone(),
        service_fn(move |_: Request<_>| {
            seen.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, Infallible>(answer()) }
        }),
    );
    let parts = Arc::new(Parts::new());
    let mut peer = service_fn(move |request: Request<Empty<Bytes>>| {
        let parts = Arc::clone(&parts);
        async move { Ok::<_, Infallible>(parts.answer(&request)) }
    });
    let (ours, peer) = in_turns(
        HITS,
        |calls| answers(runtime, &mut kept, &uri, calls),
        |calls| answers(runtime, &mut peer, &uri, calls),
    );
    assert_eq!(asked.load(Ordering::Relaxed), 1, "all but the first are answered from the cache");
    Row::less("cache/hit/rust", "ns per call, wall", ours, peer, "http-cache-semantics 3 over moka 0.12")
}

/// What people put together: a policy and a body for each method and URI.
struct Parts {
    answers: Cache<String, Arc<(CachePolicy, Bytes)>>,
}

impl Parts {
    fn new() -> Self {
        Self { answers: Cache::new(10_000) }
    }

    fn answer(&self, request: &Request<Empty<Bytes>>) -> Response<Full<Bytes>> {
        let key = format!("{} {}", request.method(), request.uri());
        let now = SystemTime::now();
        if let Some(kept) = self.answers.get(&key)
            && let BeforeRequest::Fresh(parts) = kept.0.before_request(request, now)
        {
            return Response::from_parts(parts, Full::new(kept.1.clone()));
        }
        let response = answer();
        let private = CacheOptions { shared: false, ..CacheOptions::default() };
        let policy = CachePolicy::new_options(request, &response, now, private);
        assert!(policy.is_storable());
        self.answers.insert(key, Arc::new((policy, Bytes::from_static(&[b'x'; 512]))));
        response
    }
}

fn stampede(runtime: &Runtime, farcall: &Farcall) -> [Row; 2] {
    const PEER: &str = "the same client without the layer";
    let asked = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&asked);
    let kept = Egress::<_>::with(farcall.clone(), service_fn(move |_: Request<_>| slow(&seen)));
    let seen = Arc::clone(&asked);
    let bare = service_fn(move |_: Request<_>| slow(&seen));

    let mut calls = [Vec::new(), Vec::new()];
    let mut walls = [Vec::new(), Vec::new()];
    let mut note = |which: usize, wall: Duration| {
        calls[which].push(f64::from(asked.swap(0, Ordering::Relaxed)));
        walls[which].push(wall.as_secs_f64() * 1e3);
    };
    for round in 0..STAMPEDES {
        // One that nobody asked for before.
        let uri: Uri = format!("https://api.rates.example/v1/stampede/{round}").parse().unwrap();
        note(0, timed(|| runtime.block_on(all_at_once(&kept, &uri))));
        note(1, timed(|| runtime.block_on(all_at_once(&bare, &uri))));
    }
    let [ours, peer] = calls.map(median);
    let calls = Row::less("cache/stampede_1000", "calls that reach the vendor", ours, peer, PEER);
    let [ours, peer] = walls.map(median);
    let unit = "ms until all have their answer; the vendor takes 20";
    [calls, Row::less("cache/stampede_1000/wall", unit, ours, peer, PEER)]
}

/// The vendor in a stampede: as fast for a thousand as for one, which no vendor is.
fn slow(asked: &AtomicU32) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> + use<> {
    asked.fetch_add(1, Ordering::Relaxed);
    async {
        tokio::time::sleep(TAKES).await;
        Ok(answer())
    }
}

async fn all_at_once<S, B>(client: &S, uri: &Uri)
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: std::fmt::Debug,
    S::Future: Send,
    B: http_body::Body + Send,
    B::Error: std::fmt::Debug,
    B::Data: Send,
{
    let mut calls = JoinSet::new();
    for _ in 0..EQUAL {
        let (mut client, uri) = (client.clone(), uri.clone());
        calls.spawn(async move { ask(&mut client, request(&uri)).await });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
}
