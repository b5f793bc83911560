//! What an answer out of the cache allocates: the response's map of headers, and nothing beside it.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use farcall_tower::{Egress, Farcall, Options, customer};
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::Full;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use tower::{Service, service_fn};

const CALLS: u64 = 1_000;

/// The map's table and its entries; a name that repeats takes a third.
const OF_A_MAP: u64 = 2;

/// By the clock, not by the call: a hit is told of in full each 10 ms, the age of an answer is written anew each second,
/// and the ledger opens a row when a minute begins.
fn now_and_then(since: Instant) -> u64 {
    const EACH: u64 = 20;
    EACH * (1 + since.elapsed().as_secs() * 100 + u64::from(since.elapsed().subsec_millis()) / 10)
}

fn request() -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = Uri::from_static("https://api.example.com/v1/rates?base=EUR");
    let headers = request.headers_mut();
    headers.insert("accept", http::HeaderValue::from_static("application/json"));
    headers.insert("authorization", http::HeaderValue::from_static("Bearer sk_live_51HxJ2eKZvKYlo2C0"));
    request
}

fn answer<B>(_: Request<B>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    let answer = Response::builder()
        .header("content-type", "application/json")
        .header("cache-control", "private, max-age=86400")
        .header("etag", "\"33a64df551425fcc55e4d42a148795d9\"")
        .header("vary", "accept")
        .header("x-request-id", "req_123")
        .body(Full::new(Bytes::from_static(&[b'x'; 512])));
    ready(Ok(answer.unwrap()))
}

/// Makes the calls, each read to its end, and says how many allocations that took.
fn allocations<S, R>(service: &mut S) -> u64
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>>,
    R: Body,
{
    let mut cx = Context::from_waker(Waker::noop());
    let used = allocation_counter::measure(|| {
        for _ in 0..CALLS {
            let Poll::Ready(Ok(response)) = pin!(service.call(request())).poll(&mut cx) else {
                unreachable!("it is answered at once")
            };
            let mut body = pin!(response.into_body());
            while let Poll::Ready(Some(_)) = body.as_mut().poll_frame(&mut cx) {}
        }
    });
    used.count_total
}

#[test]
fn a_hit_allocates_the_headers_of_its_response_and_no_more() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("farcall.toml");
    std::fs::write(&config, "[[cache]]\nname = \"all\"\nmatch = {}\n").unwrap();
    let farcall = Farcall::start(Options {
        home: Some(home.path().to_owned()),
        config: Some(config),
        service: Some("test".into()),
        flush_every: None,
        hub: false,
        enabled: true,
        ..Options::default()
    });
    let of_requests = allocation_counter::measure(|| (0..CALLS).for_each(|_| drop(request()))).count_total;
    let mut kept = Egress::<_>::with(farcall.clone(), service_fn(answer));
    customer("acme").tags([("team", "growth")]).sync_scope(|| {
        allocations(&mut kept);
        let begun = Instant::now();
        let used = allocations(&mut kept) - of_requests;
        assert!(used <= OF_A_MAP * CALLS + now_and_then(begun), "{used} for {CALLS} hits");
    });
    farcall.shutdown();
}
