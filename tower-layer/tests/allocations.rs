//! What the layer allocates: nothing, once it is warm. In a file of its own, because other tests' layers count.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use farcall_tower::{Egress, customer};
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use support::Ledger;
use tower::{Service, service_fn};

const CALLS: u64 = 1_000;

/// The ledger opens a row when a minute begins, and widens a histogram when a call is slower than those before:
/// by the clock, not by the call.
const NOW_AND_THEN: u64 = CALLS / 100;

/// Answers at once, and lets go of the request's body as a transport does.
fn answer<B: Body>(request: Request<B>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    let mut body = pin!(request.into_body());
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(_)) = body.as_mut().poll_frame(&mut cx) {}
    ready(Ok(Response::new(Full::new(Bytes::from_static(b"ok")))))
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
            let body = Full::new(Bytes::from_static(b"amount=1"));
            let mut request = Request::new(body);
            *request.uri_mut() = http::Uri::from_static("https://api.stripe.com/v1/charges");
            let Poll::Ready(Ok(response)) = pin!(service.call(request)).poll(&mut cx) else {
                unreachable!("the service answers at once")
            };
            let mut body = pin!(response.into_body());
            while let Poll::Ready(Some(_)) = body.as_mut().poll_frame(&mut cx) {}
        }
    });
    used.count_total
}

#[test]
fn the_layer_allocates_nothing_once_warm_and_a_second_one_only_the_mark() {
    let ledger = Ledger::new();
    let bare = allocations(&mut service_fn(answer::<Full<Bytes>>));
    let mut layered = Egress::with(ledger.farcall.clone(), service_fn(answer));
    customer("acme").tags([("team", "growth")]).sync_scope(|| {
        allocations(&mut layered);
        let used = allocations(&mut layered);
        assert!(used <= bare + NOW_AND_THEN, "{used} for {CALLS} calls, {bare} without the layer");
    });

    let _another = Egress::<_>::with(ledger.farcall.clone(), service_fn(answer::<Full<Bytes>>));
    allocations(&mut layered);
    let marked = allocations(&mut layered);
    let expected = bare + CALLS..=bare + 2 * CALLS + NOW_AND_THEN;
    assert!(expected.contains(&marked), "{marked} with the mark, {bare} without");
    let calls: u64 = ledger.rows().iter().map(|row| row.sums.calls).sum();
    assert_eq!(calls, 4 * CALLS);
}
