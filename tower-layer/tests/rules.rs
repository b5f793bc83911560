//! What rules make of real calls: hyper against a real TLS server.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use farcall::{Outcome, RefusedBy};
use farcall_tower::{Egress, EgressError, EgressLayer, Farcall, Options, RequestBody};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tempfile::TempDir;
use tower::{Layer, Service, ServiceExt, service_fn};

struct Ruled {
    farcall: Farcall,
    _home: TempDir,
}

/// A handle under these rules.
fn under(rules: &str) -> Ruled {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("farcall.toml"), rules).unwrap();
    let options = Options {
        home: Some(home.path().to_owned()),
        config: Some(home.path().join("farcall.toml")),
        service: Some("test".into()),
        flush_every: None,
        hub: false,
        enabled: true,
        ..Options::default()
    };
    let farcall = Farcall::start(options);
    assert!(farcall.engine().decides(), "the rules are in force");
    Ruled { farcall, _home: home }
}

fn charge() -> Request<Full<Bytes>> {
    Request::post("https://api.stripe.com/v1/charges").body(Full::from("amount=1")).unwrap()
}

/// What a vendor got: the bodies and idempotency keys of its requests.
type Got = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A vendor without a network.
trait Vendor:
    Service<
        Request<RequestBody<Full<Bytes>>>,
        Response = Response<Full<Bytes>>,
        Error = Infallible,
        Future: Send,
    > + Clone
{
}

impl<S> Vendor for S where
    S: Service<
            Request<RequestBody<Full<Bytes>>>,
            Response = Response<Full<Bytes>>,
            Error = Infallible,
            Future: Send,
        > + Clone
{
}

/// A vendor that answers with these statuses in turn, the last one for ever.
fn vendor(statuses: &'static [u16]) -> (Got, impl Vendor) {
    let got = Got::default();
    let (turn, seen) = (Arc::new(AtomicU32::new(0)), Arc::clone(&got));
    let service = service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
        let (turn, seen) = (Arc::clone(&turn), Arc::clone(&seen));
        async move {
            let key = request.headers().get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            seen.lock().unwrap().push((String::from_utf8(body.to_vec()).unwrap(), key));
            let turn = turn.fetch_add(1, Ordering::Relaxed) as usize;
            let status = statuses[turn.min(statuses.len() - 1)];
            Ok(Response::builder().status(status).body(Full::from("ok")).unwrap())
        }
    });
    (got, service)
}

#[tokio::test(start_paused = true)]
async fn a_failed_charge_is_sent_again_whole_with_one_key_and_is_one_call() {
    let ruled = under("[[resilience]]\nmatch = { vendor = \"stripe\" }\nattempts = 3\n");
    let (got, service) = vendor(&[503, 200]);
    let mut service: Egress<_> = EgressLayer::with(ruled.farcall.clone()).layer(service);
    let response = service.ready().await.unwrap().call(charge()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    drop(response.into_body().collect().await.unwrap());
    let got = got.lock().unwrap().clone();
    assert_eq!(got.len(), 2);
    assert_eq!((got[0].0.as_str(), got[0].0 == got[1].0), ("amount=1", true), "the whole body, twice");
    assert!(got[0].1.is_some() && got[0].1 == got[1].1, "one key for both: {got:?}");
    let rows = ruled.farcall.engine().drain(ruled.farcall.now()).rows;
    let row = &rows[0];
    assert_eq!((rows.len(), row.status, row.sums.calls, row.sums.attempts), (1, 200, 1, 2));
}

#[tokio::test]
async fn a_denied_call_reaches_nobody_and_says_why() {
    let ruled = under(
        "[[policy]]\nname = \"no-stripe\"\nmatch = { vendor = \"stripe\" }\nverdict = \"deny\"\nreason = \"not here\"\n",
    );
    let (got, service) = vendor(&[200]);
    let service: Egress<_> = EgressLayer::with(ruled.farcall.clone()).layer(service);
    let error = service.oneshot(charge()).await.unwrap_err();
    let EgressError::Refused(refusal) = &error else { panic!("{error:?}") };
    assert_eq!((refusal.by, refusal.rule.as_ref()), (RefusedBy::Policy, "no-stripe"));
    assert!(error.to_string().contains("not here"), "{error}");
    assert!(got.lock().unwrap().is_empty());
    let rows = ruled.farcall.engine().drain(ruled.farcall.now()).rows;
    assert_eq!((rows[0].outcome, rows[0].sums.attempts), (Outcome::Refused(RefusedBy::Policy), 0));
}

#[tokio::test]
async fn a_call_that_nobody_polls_is_none() {
    let ruled =
        under("[[budget]]\nname = \"one\"\nmatch = {}\nlimit = \"1 requests / day\"\nover = \"refuse\"\n");
    let (got, service) = vendor(&[200]);
    let mut service: Egress<_> = EgressLayer::with(ruled.farcall.clone()).layer(service);
    drop(service.ready().await.unwrap().call(charge()));
    let response = service.ready().await.unwrap().call(charge()).await.unwrap();
    drop(response.into_body().collect().await.unwrap());
    assert_eq!(got.lock().unwrap().len(), 1);
    let rows = ruled.farcall.engine().drain(ruled.farcall.now()).rows;
    assert_eq!((rows.len(), rows[0].outcome, rows[0].sums.calls), (1, Outcome::Complete, 1));
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_their_slots() {
    let ruled = under(
        "[[quota]]\nmatch = { vendor = \"stripe\" }\nlimit = \"10 requests / 1s\"\nburst = 1\nmax_wait = \"10s\"\n",
    );
    let (got, service) = vendor(&[200]);
    let service: Egress<_> = EgressLayer::with(ruled.farcall.clone()).layer(service);
    for _ in 0..3 {
        let response = service.clone().oneshot(charge()).await.unwrap();
        drop(response.into_body().collect().await.unwrap());
    }
    assert_eq!(got.lock().unwrap().len(), 3);
    let rows = ruled.farcall.engine().drain(ruled.farcall.now()).rows;
    let waited: u128 = rows.iter().map(|row| row.sums.waited.as_millis()).sum();
    assert!(waited > 0, "the second and third had to wait");
}

#[tokio::test]
async fn an_injected_status_is_a_response_and_an_injected_error_an_error() {
    let fault = |what: &str| {
        format!(
            "allow_faults = true\n[[fault]]\nmatch = {{ vendor = \"stripe\" }}\nshare = \"100%\"\n{what}\nexpires = \"2099-01-01T00:00:00Z\"\n"
        )
    };
    let ruled = under(&fault("status = 429\nretry_after = \"7s\""));
    let (got, service) = vendor(&[200]);
    let service: Egress<_> = EgressLayer::with(ruled.farcall.clone()).layer(service);
    let response = service.oneshot(charge()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "7");
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    assert!(got.lock().unwrap().is_empty());

    let ruled = under(&fault("error = \"reset\""));
    let (_got, service) = vendor(&[200]);
    let service: Egress<_> = EgressLayer::with(ruled.farcall.clone()).layer(service);
    let error = service.oneshot(charge()).await.unwrap_err();
    assert!(matches!(error, EgressError::Injected(farcall::ErrorType::Reset)), "{error:?}");
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn reqwest_is_held_to_the_rules_too() {
    use farcall_tower::reqwest::EgressMiddleware;

    let client = |ruled: &Ruled| {
        rustls::crypto::ring::default_provider().install_default().ok();
        reqwest_middleware::ClientBuilder::new(reqwest::Client::builder().build().unwrap())
            .with(EgressMiddleware::with(ruled.farcall.clone()))
            .build()
    };
    let denied = under("[[policy]]\nmatch = { vendor = \"stripe\" }\nverdict = \"deny\"\n");
    let error = client(&denied).get("https://api.stripe.com/v1/charges").send().await.unwrap_err();
    let reqwest_middleware::Error::Middleware(error) = &error else { panic!("{error:?}") };
    assert!(error.downcast_ref::<EgressError>().unwrap().refusal().is_some(), "{error}");

    let faulty = under(
        "allow_faults = true\n[[fault]]\nmatch = { vendor = \"stripe\" }\nshare = \"100%\"\nstatus = 503\nexpires = \"2099-01-01T00:00:00Z\"\n",
    );
    let response = client(&faulty).get("https://api.stripe.com/v1/charges").send().await.unwrap();
    assert_eq!(response.status(), reqwest::StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.url().as_str(), "https://api.stripe.com/v1/charges");
}

/// Within this, every wait of the test below would last a minute.
fn without_timers(ruled: &Ruled) -> Vec<u64> {
    let (_, service) = vendor(&[503, 200]);
    let mut service: Egress<_> = EgressLayer::with(ruled.farcall.clone()).layer(service);
    let answer = async {
        let get = Request::get("https://api.stripe.com/v1/charges").body(Full::default()).unwrap();
        service.ready().await.unwrap().call(get).await.unwrap().status()
    };
    tokio_test::assert_ready_eq!(tokio_test::task::spawn(answer).poll(), StatusCode::OK);
    let rows = ruled.farcall.engine().drain(ruled.farcall.now()).rows;
    rows.iter().map(|row| row.sums.attempts).collect()
}

#[test]
fn where_there_are_no_timers_nobody_waits() {
    let ruled = under(
        "[[resilience]]\nmatch = { vendor = \"stripe\" }\nattempts = 2\nbackoff = \"60s..60s\"\ndeadline = \"10m\"\n",
    );
    assert_eq!(without_timers(&ruled), [2], "outside any runtime");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _within = runtime.enter();
    assert_eq!(without_timers(&ruled), [2], "in a runtime without timers");
    assert!(ruled.farcall.engine().counters().overlooked_calls >= 2);
}

/// A request that may cost 1 USD: 10 USD for a million tokens of the answer.
const DEAR: &str = r#"{"model":"gpt-4o","max_tokens":100000,"messages":[]}"#;

fn chat<B>(body: B) -> Request<B> {
    Request::post("https://api.openai.com/v1/chat/completions").body(body).unwrap()
}

/// A body that says how long it is, and comes after a while.
struct Late {
    body: Option<&'static str>,
    after: Pin<Box<tokio::time::Sleep>>,
}

impl Late {
    fn new(body: &'static str, after: Duration) -> Self {
        Self { body: Some(body), after: Box::pin(tokio::time::sleep(after)) }
    }
}

impl Body for Late {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.after.as_mut().poll(cx));
        Poll::Ready(self.body.take().map(|body| Ok(Frame::data(Bytes::from(body)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.map_or(0, |body| body.len() as u64))
    }
}

/// How many of these requests, all under way at once, arrive at a vendor that has not answered yet.
async fn arrive<B>(ruled: &Ruled, requests: impl Iterator<Item = Request<B>>) -> Vec<String>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let got = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&got);
    let service = service_fn(move |request: Request<RequestBody<B>>| {
        let seen = Arc::clone(&seen);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            seen.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("{}")))
        }
    });
    let service: Egress<_> = EgressLayer::with(ruled.farcall.clone()).layer(service);
    let calls = requests.map(|request| service.clone().oneshot(request));
    let calls: Vec<_> = calls.map(|call| Box::pin(async move { drop(call.await) })).collect();
    let mut calls: tokio::task::JoinSet<()> = calls.into_iter().collect();
    while calls.join_next().await.is_some() {}
    got.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn calls_under_way_cannot_spend_the_same_money() {
    let rules = "[[budget]]\nmatch = { vendor = \"openai\" }\nlimit = \"3.5 USD / day\"\nover = \"refuse\"\n";
    let at_once = arrive(&under(rules), (0..20).map(|_| chat(Full::<Bytes>::from(DEAR)))).await;
    assert_eq!(at_once, [DEAR; 3]);
    let ruled = under(rules);
    let passed_on = arrive(&ruled, (0..20).map(|_| chat(Late::new(DEAR, Duration::from_millis(50)))));
    assert_eq!(passed_on.await, [DEAR; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_looked_at_is_sent_as_it_is_and_counted() {
    let rules = "[[budget]]\nmatch = { vendor = \"openai\" }\nlimit = \"3.5 USD / day\"\nover = \"refuse\"\n";
    let unread = |ruled: &Ruled| ruled.farcall.engine().counters().unread_requests;
    let ruled = under(rules);
    let late = (0..4).map(|_| chat(Late::new(DEAR, Duration::from_secs(5))));
    assert_eq!((arrive(&ruled, late).await, unread(&ruled)), (vec![DEAR.to_owned(); 4], 4));
    let ruled = under(rules);
    let streamed = (0..4).map(|_| {
        let halves = [&DEAR[..20], &DEAR[20..]];
        let frames = halves.map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
        chat(StreamBody::new(tokio_stream::iter(frames)))
    });
    assert_eq!((arrive(&ruled, streamed).await, unread(&ruled)), (vec![DEAR.to_owned(); 4], 4));
}

#[tokio::test]
async fn a_budget_sends_the_cheaper_model_with_its_length() {
    let ruled = under(
        "[[budget]]\nmatch = { vendor = \"notion\" }\nlimit = \"1 requests / day\"\nover = \"downgrade\"\n\
         downgrade = { from = \"large\", to = \"tiny\" }\n\
         [[resilience]]\nmatch = {}\nattempts = 2\nnot_processed = [\"503\"]\nbackoff = \"1ms..1ms\"\n",
    );
    let got = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&got);
    let service = service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
        let seen = Arc::clone(&seen);
        async move {
            let said = request.headers()["content-length"].to_str().unwrap().to_owned();
            let known = request.body().size_hint().exact().unwrap().to_string();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!((said, known), (body.len().to_string(), body.len().to_string()));
            let mut seen = seen.lock().unwrap();
            seen.push(String::from_utf8(body.to_vec()).unwrap());
            let status = if seen.len() == 2 { 503 } else { 200 };
            Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::from("{}")).unwrap())
        }
    });
    let service: Egress<_> = EgressLayer::with(ruled.farcall.clone()).layer(service);
    for _ in 0..2 {
        let body = r#"{ "n": 1, "model": "large" }"#;
        let request = Request::post("https://api.notion.com/v1/search")
            .header("content-length", body.len())
            .body(Full::<Bytes>::from(body))
            .unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        drop(response.into_body().collect().await.unwrap());
    }
    let (large, tiny) = (r#"{ "n": 1, "model": "large" }"#, r#"{ "n": 1, "model": "tiny" }"#);
    assert_eq!(*got.lock().unwrap(), [large, tiny, tiny], "also when it is tried again");
}

#[tokio::test(start_paused = true)]
async fn as_much_of_a_body_is_kept_as_the_rules_say() {
    for (rule, size, attempts) in [
        ("", 64 << 10, 2),
        ("", (64 << 10) + 1, 1),
        ("replay_bytes = \"1MiB\"", 200_000, 2),
        ("replay_bytes = \"1KiB\"", 3_000, 1),
    ] {
        let ruled =
            under(&format!("[[resilience]]\nmatch = {{ vendor = \"stripe\" }}\nattempts = 2\n{rule}\n"));
        let (got, service) = vendor(&[503, 200]);
        let service: Egress<_> = EgressLayer::with(ruled.farcall.clone()).layer(service);
        let body = "x".repeat(size);
        let put = Request::put("https://api.stripe.com/v1/charges").body(Full::from(body.clone())).unwrap();
        drop(service.oneshot(put).await.unwrap().into_body().collect().await.unwrap());
        let got = got.lock().unwrap();
        assert_eq!((got.len(), got.iter().all(|(sent, _)| *sent == body)), (attempts, true), "{rule} {size}");
    }
}
