//! What the layer promises, with a mock on both sides and no network.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use farcall::{ErrorType, Outcome};
use farcall_tower::{
    Customer, Egress, EgressError, EgressLayer, Farcall, Options, RequestBody, ResponseBody, Scope, Tags,
    customer,
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use support::{Ledger, failed};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_test::mock;

type Error = Box<dyn std::error::Error + Send + Sync>;
type MockService = mock::Mock<Request<RequestBody<Full<Bytes>>>, Response<Script>>;
type MockHandle = mock::Handle<Request<RequestBody<Full<Bytes>>>, Response<Script>>;

/// A body that yields what the test wrote down, then ends; `Wait` stays pending once.
#[derive(Debug, Default)]
struct Script {
    lines: VecDeque<Line>,
    knows_its_end: bool,
}

#[derive(Debug)]
enum Line {
    Data(&'static str),
    Trailers,
    Wait,
    Error(io::ErrorKind),
}

impl Script {
    fn new(lines: impl IntoIterator<Item = Line>) -> Self {
        Self { lines: lines.into_iter().collect(), knows_its_end: false }
    }

    /// A body that says that it is over with its last frame, as one with a `Content-Length` does.
    fn with_known_end(mut self) -> Self {
        self.knows_its_end = true;
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(match self.lines.pop_front() {
            Some(Line::Data(text)) => Some(Ok(Frame::data(Bytes::from_static(text.as_bytes())))),
            Some(Line::Trailers) => Some(Ok(Frame::trailers(HeaderMap::new()))),
            Some(Line::Error(kind)) => Some(Err(kind.into())),
            Some(Line::Wait) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end && self.lines.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let bytes = self.lines.iter().map(|line| match line {
            Line::Data(text) => text.len() as u64,
            _ => 0,
        });
        SizeHint::with_exact(bytes.sum())
    }
}

fn mocked<M>(ledger: &Ledger) -> (Egress<MockService, farcall_tower::AsIs, M>, MockHandle) {
    let (service, handle) = mock::pair();
    (EgressLayer::with(ledger.farcall.clone()).layer(service), handle)
}

fn charge() -> Request<Full<Bytes>> {
    Request::post("https://api.stripe.com/v1/charges").body(Full::from("amount=1")).unwrap()
}

/// Sends `request`, answers it with `response`, and returns what the layer made of that.
fn exchange(
    ledger: &Ledger,
    request: Request<Full<Bytes>>,
    response: Response<Script>,
) -> Response<ResponseBody<Script>> {
    let (service, mut handle) = mocked(ledger);
    let mut service = service;
    let mut call = task::spawn(async move { service.ready().await?.call(request).await });
    assert_pending!(call.poll());
    let (_request, answer) = assert_ready!(task::spawn(handle.next_request()).poll()).unwrap();
    answer.send_response(response);
    assert_ready_ok!(call.poll())
}

/// Reads a body to its end, whatever it yields.
fn read<B: Body + Unpin>(body: &mut B) -> Result<(), B::Error> {
    tokio_test::block_on(async {
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(())
    })
}

fn next_frame<B: Body + Unpin>(body: &mut B) -> Option<Result<Frame<B::Data>, B::Error>> {
    tokio_test::block_on(body.frame())
}

#[test]
fn a_call_is_counted_at_the_last_byte_and_not_before() {
    let ledger = Ledger::new();
    let script = Script::new([Line::Data("one"), Line::Wait, Line::Data("three")]);
    let mut response = exchange(&ledger, charge(), Response::new(script));
    assert!(ledger.rows().is_empty(), "the head of a response is not its end");
    next_frame(response.body_mut()).unwrap().unwrap();
    next_frame(response.body_mut()).unwrap().unwrap();
    assert!(ledger.rows().is_empty(), "this body does not know that it is over");
    assert!(next_frame(response.body_mut()).is_none());
    let row = ledger.only();
    assert_eq!((row.vendor.as_ref(), row.endpoint.as_ref()), ("stripe", "POST /v1/charges"));
    assert_eq!((row.status, row.outcome, row.sums.bytes_in), (200, Outcome::Complete, 8));
    drop(response);
    assert!(ledger.rows().is_empty(), "a call is counted once");
}

#[test]
fn a_body_that_knows_its_end_is_counted_with_its_last_frame() {
    let ledger = Ledger::new();
    let script = Script::new([Line::Data("one"), Line::Data("three")]).with_known_end();
    let mut response = exchange(&ledger, charge(), Response::new(script));
    next_frame(response.body_mut()).unwrap().unwrap();
    assert!(ledger.rows().is_empty());
    next_frame(response.body_mut()).unwrap().unwrap();
    assert_eq!(
        ledger.only().outcome,
        Outcome::Complete,
        "many readers never ask for the frame after the last"
    );
}

#[test]
fn trailers_are_the_end() {
    let ledger = Ledger::new();
    let mut response =
        exchange(&ledger, charge(), Response::new(Script::new([Line::Data("x"), Line::Trailers])));
    next_frame(response.body_mut()).unwrap().unwrap();
    next_frame(response.body_mut()).unwrap().unwrap();
    assert_eq!((ledger.only().outcome, ledger.rows().len()), (Outcome::Complete, 0));
}

#[test]
fn an_empty_body_is_counted_at_the_head() {
    let ledger = Ledger::new();
    let response = exchange(&ledger, charge(), Response::new(Script::default().with_known_end()));
    assert_eq!((ledger.only().outcome, response.body().is_end_stream()), (Outcome::Complete, true));
}

#[test]
fn head_204_and_304_are_counted_at_the_head_whatever_their_body_says() {
    let ledger = Ledger::new();
    for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
        let response = Response::builder().status(status).body(Script::default()).unwrap();
        let _unread = exchange(&ledger, charge(), response);
        let row = ledger.only();
        assert_eq!((row.status, row.outcome), (status.as_u16(), Outcome::Complete));
    }
    let request = Request::head("https://api.stripe.com/v1/charges").body(Full::default()).unwrap();
    let _unread = exchange(&ledger, request, Response::new(Script::default()));
    assert_eq!(ledger.only().outcome, Outcome::Complete);
}

#[test]
fn a_body_dropped_before_its_end_is_abandoned() {
    let ledger = Ledger::new();
    let script = Script::new([Line::Data("data: 1\n\n"), Line::Data("data: 2\n\n")]);
    let mut response = exchange(&ledger, charge(), Response::new(script));
    next_frame(response.body_mut()).unwrap().unwrap();
    drop(response);
    let row = ledger.only();
    assert_eq!((row.status, row.outcome, row.sums.bytes_in), (200, Outcome::Abandoned, 9));
}

#[test]
fn a_body_that_breaks_fails_the_call_with_the_bytes_so_far() {
    let ledger = Ledger::new();
    let script = Script::new([Line::Data("half"), Line::Error(io::ErrorKind::ConnectionReset)]);
    let mut response = exchange(&ledger, charge(), Response::new(script));
    let error = read(response.body_mut()).unwrap_err();
    let error: &io::Error = error.downcast_ref().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the body's own error is inside");
    let row = ledger.only();
    assert_eq!((row.status, row.outcome, row.sums.bytes_in), (200, failed(ErrorType::Reset), 4));
}

#[test]
fn a_failed_call_is_counted_with_its_kind_and_its_error_arrives_as_it_is() {
    let ledger = Ledger::new();
    let (mut service, mut handle) = mocked(&ledger);
    let mut call = task::spawn(async move { service.ready().await?.call(charge()).await });
    assert_pending!(call.poll());
    let (_request, answer) = assert_ready!(task::spawn(handle.next_request()).poll()).unwrap();
    answer.send_error(io::Error::from(io::ErrorKind::ConnectionRefused));
    let error = assert_ready_err!(call.poll());
    assert!(error.downcast_ref::<io::Error>().is_some());
    let row = ledger.only();
    assert_eq!((row.status, row.outcome), (0, failed(ErrorType::Connect)));
}

#[test]
fn a_call_dropped_while_pending_is_cancelled() {
    let ledger = Ledger::new();
    let (mut service, _handle) = mocked(&ledger);
    let mut call = task::spawn(async move { service.ready().await?.call(charge()).await });
    assert_pending!(call.poll());
    assert!(ledger.rows().is_empty());
    drop(call);
    assert_eq!(ledger.only().outcome, failed(ErrorType::Cancelled));
}

#[test]
fn readiness_is_that_of_the_service_below() {
    let ledger = Ledger::new();
    let (service, mut handle) = mocked::<(farcall_tower::Boxed, farcall_tower::Plain)>(&ledger);
    let mut service = mock::Spawn::new(service);
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    handle.send_error(Error::from("full"));
    let mut other = service.clone();
    assert_eq!(assert_ready_err!(other.poll_ready()).to_string(), "full");
    assert!(ledger.rows().is_empty(), "what was not called is not counted");
}

#[test]
fn two_layers_count_a_call_once() {
    let ledger = Ledger::new();
    let (service, mut handle) =
        mock::pair::<Request<RequestBody<RequestBody<Full<Bytes>>>>, Response<Script>>();
    let layer = |farcall| EgressLayer::with(farcall);
    let service = layer(ledger.farcall.clone()).layer(service);
    let service = tower::timeout::Timeout::new(service, std::time::Duration::from_secs(60));
    let mut service = layer(ledger.farcall.clone()).layer(service);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let call = tokio::spawn(async move { service.ready().await?.call(charge()).await });
        let (request, answer) = handle.next_request().await.unwrap();
        let sent = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(sent, "amount=1");
        answer.send_response(Response::new(Script::new([Line::Data("ok")])));
        let response = call.await.unwrap().unwrap();
        response.into_body().collect().await.unwrap();
    });
    let row = ledger.only();
    assert_eq!((row.outcome, row.sums.bytes_in, row.sums.bytes_out), (Outcome::Complete, 2, 8));
}

#[test]
fn what_a_service_in_between_asks_of_others_is_counted_as_well() {
    let ledger = Ledger::new();
    let answer = |_request: Request<_>| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) };
    let transport = Egress::with(ledger.farcall.clone(), service_fn(answer));
    // Fetches a token on its own before it passes the request on.
    let authenticated = service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
        let transport = transport.clone();
        async move {
            let token = Request::post("https://acme.auth0.com/oauth/token").body(Full::default()).unwrap();
            transport.clone().oneshot(token.map(|body: Full<Bytes>| body.boxed())).await?;
            transport.oneshot(request.map(BodyExt::boxed)).await
        }
    });
    let service = Egress::with(ledger.farcall.clone(), authenticated);
    tokio_test::block_on(service.oneshot(charge())).unwrap();
    let mut vendors: Vec<_> =
        ledger.rows().iter().map(|row| (row.vendor.to_string(), row.sums.calls)).collect();
    vendors.sort();
    assert_eq!(vendors, [("auth0".to_owned(), 1), ("stripe".to_owned(), 1)]);
}

#[test]
fn the_bytes_of_a_request_are_those_that_the_transport_took() {
    let ledger = Ledger::new();
    let (mut service, mut handle) = mocked(&ledger);
    let mut call = task::spawn(async move { service.ready().await?.call(charge()).await });
    assert_pending!(call.poll());
    let (request, answer) = assert_ready!(task::spawn(handle.next_request()).poll()).unwrap();
    assert_eq!(request.body().size_hint().exact(), Some(8), "the length is still known");
    let mut body = request.into_body();
    next_frame(&mut body).unwrap().unwrap();
    answer.send_response(Response::new(Script::default().with_known_end()));
    assert_ready_ok!(call.poll());
    assert_eq!(ledger.only().sums.bytes_out, 8);

    let refused = exchange_refused(&ledger);
    assert_eq!(refused, 0, "a body that nobody took was not sent");
}

fn exchange_refused(ledger: &Ledger) -> u64 {
    let refuse = |_request: Request<_>| async {
        Err::<Response<Empty<Bytes>>, _>(io::Error::from(io::ErrorKind::ConnectionRefused))
    };
    let service = Egress::with(ledger.farcall.clone(), service_fn(refuse));
    tokio_test::block_on(service.oneshot(charge())).unwrap_err();
    ledger.only().sums.bytes_out
}

#[test]
fn the_length_of_a_response_is_still_known() {
    let ledger = Ledger::new();
    let script = Script::new([Line::Data("12345")]).with_known_end();
    let response = exchange(&ledger, charge(), Response::new(script));
    assert_eq!(response.body().size_hint().exact(), Some(5));
    assert!(!response.body().is_end_stream());
}

#[test]
fn the_customer_is_that_of_the_request_or_else_of_the_scope_at_the_beginning() {
    let ledger = Ledger::new();
    let done = || Response::new(Script::default().with_known_end());
    let mut named = charge();
    named.extensions_mut().insert(Customer::new("acme"));
    named.extensions_mut().insert(Tags::new([("team", "growth")]));

    exchange(&ledger, charge(), done());
    assert_eq!(ledger.only().customer.as_ref(), "unknown");
    exchange(&ledger, named.clone(), done());
    let row = ledger.only();
    assert_eq!((row.customer.as_ref(), row.tags.as_ref()), ("acme", "team=growth"));
    customer("globex").tags([("env", "prod")]).sync_scope(|| exchange(&ledger, charge(), done()));
    let row = ledger.only();
    assert_eq!((row.customer.as_ref(), row.tags.as_ref()), ("globex", "env=prod"));
    customer("globex").sync_scope(|| exchange(&ledger, named, done()));
    assert_eq!(ledger.only().customer.as_ref(), "acme", "the request's own word is the closer one");

    let stream = Response::new(Script::new([Line::Data("x")]));
    let mut response = customer("initech").sync_scope(|| exchange(&ledger, charge(), stream));
    customer("hooli").sync_scope(|| read(response.body_mut())).unwrap();
    assert_eq!(ledger.only().customer.as_ref(), "initech", "a stream belongs to whoever began it");
}

#[test]
fn a_call_made_on_the_way_into_a_scope_belongs_to_it() {
    let ledger = Ledger::new();
    let answer = |_request: Request<_>| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) };
    let mut service = Egress::with(ledger.farcall.clone(), service_fn(answer));
    // The argument is made before the scope is entered.
    tokio_test::block_on(customer("acme").scope(service.call(charge()))).unwrap();
    assert_eq!(ledger.only().customer.as_ref(), "acme");
    let nested = customer("outer").scope(async { customer("inner").scope(service.call(charge())).await });
    tokio_test::block_on(nested).unwrap();
    assert_eq!(ledger.only().customer.as_ref(), "inner");
    let made_inside = customer("acme").sync_scope(|| service.call(charge()));
    tokio_test::block_on(made_inside).unwrap();
    assert_eq!(ledger.only().customer.as_ref(), "acme", "where the poll has no scope, the making's holds");
}

#[test]
fn a_call_that_nobody_polls_is_cancelled() {
    let ledger = Ledger::new();
    let answer = |_request: Request<_>| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) };
    drop(Egress::with(ledger.farcall.clone(), service_fn(answer)).call(charge()));
    assert_eq!(ledger.only().outcome, failed(ErrorType::Cancelled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn customers_do_not_mix_when_their_calls_run_at_the_same_time() {
    let ledger = Ledger::new();
    let answer = |_request: Request<_>| async {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok")))
    };
    let service = Egress::with(ledger.farcall.clone(), service_fn(answer));
    let calls = (0..300).map(|number| {
        let service = service.clone();
        let name = ["acme", "globex", "initech"][number % 3];
        tokio::spawn(customer(name).scope(async move {
            tokio::task::yield_now().await;
            let inner = service.clone().oneshot(charge()).await.unwrap();
            inner.into_body().collect().await.unwrap();
            // A task of its own takes the scope along when it is told to.
            let carried = Scope::current().scope(service.oneshot(charge()));
            let inner = tokio::spawn(carried).await.unwrap().unwrap();
            inner.into_body().collect().await.unwrap();
        }))
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    let mut counts = std::collections::BTreeMap::new();
    for row in ledger.rows() {
        *counts.entry(row.customer.to_string()).or_insert(0) += row.sums.calls;
    }
    let expected = ["acme", "globex", "initech"].map(|name| (name.to_owned(), 200));
    assert_eq!(counts, std::collections::BTreeMap::from(expected));
}

#[test]
fn a_handle_that_is_switched_off_counts_nothing_and_changes_nothing() {
    let farcall = Farcall::start(Options { enabled: false, flush_every: None, ..Options::default() });
    let answer = |request: Request<RequestBody<Full<Bytes>>>| async move {
        assert!(request.extensions().is_empty());
        Ok::<_, Infallible>(Response::new(request.into_body()))
    };
    let service = Egress::with(farcall.clone(), service_fn(answer));
    let response = tokio_test::block_on(service.oneshot(charge())).unwrap();
    let echoed = tokio_test::block_on(response.into_body().collect()).unwrap().to_bytes();
    assert_eq!(echoed, "amount=1");
    assert!(farcall.engine().drain(farcall.now()).rows.is_empty());
}

#[test]
fn absurd_requests_are_counted_and_passed_on() {
    let ledger = Ledger::new();
    let done = || Response::new(Script::default().with_known_end());
    for uri in ["/no/authority", "*", "https://a_b..c/%ff%00?x=\"", "urn:isbn:1"] {
        let Ok(request) = Request::builder().method("WEIRD-METHOD").uri(uri).body(Full::default()) else {
            continue;
        };
        exchange(&ledger, request, done());
        assert_eq!(ledger.only().outcome, Outcome::Complete, "{uri}");
    }
    let long = format!("https://api.stripe.com/{}", "x".repeat(60_000));
    exchange(&ledger, Request::get(long).body(Full::default()).unwrap(), done());
    assert_eq!(ledger.only().vendor.as_ref(), "stripe");
}

#[test]
fn a_panic_below_is_the_applications_own_and_the_call_is_still_counted() {
    let ledger = Ledger::new();
    let panicking = service_fn(|_request: Request<RequestBody<Full<Bytes>>>| -> std::future::Ready<Result<Response<Empty<Bytes>>, Infallible>> {
        panic!("the application's own")
    });
    let service = Egress::with(ledger.farcall.clone(), panicking);
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tokio_test::block_on(service.oneshot(charge()))
    }));
    assert!(unwound.is_err());
    assert_eq!(ledger.only().outcome, failed(ErrorType::Cancelled));
}

/// Compiles where the types are spelled without the parameters that are inferred.
#[allow(dead_code)]
fn ordinary_types_need_no_parameters(
    service: Egress<
        hyper_util::client::legacy::Client<
            hyper_util::client::legacy::connect::HttpConnector,
            RequestBody<Full<Bytes>>,
        >,
    >,
) -> impl Future<Output = Result<Response<ResponseBody<hyper::body::Incoming>>, EgressError>> {
    service.oneshot(charge())
}
