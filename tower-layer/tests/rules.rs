//! What rules make of real calls: hyper against a real TLS server.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use farcall::{Outcome, RefusedBy};
use farcall_tower::{Egress, EgressError, EgressLayer, Farcall, Options, RequestBody};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
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
