//! Calls that fail and go into the outbox, through the layer and through reqwest.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "reqwest")]
#[path = "support/vendor.rs"]
mod vendor;

use bytes::Bytes;
use farcall_agent::outbox::State;
use farcall_agent::report;
use farcall_tower::{Egress, Farcall, Options, customer};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;
use tower::ServiceExt;
use vendor_sim::{Recorded, Sim};

/// Long enough for any machine; nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A vendor that takes idempotency keys, and calls to it that are parked.
struct Stage {
    sim: Sim,
    farcall: Farcall,
    home: TempDir,
}

impl Stage {
    fn new(rules: &str) -> Self {
        let sim = Sim::start(vendor_sim::Options::default()).unwrap();
        let home = tempfile::tempdir().unwrap();
        let vendor = "[[vendor]]\nname = \"recorder\"\nhosts = [\"127.0.0.1\", \"vendor.invalid\"]\n\
                      idempotency_header = \"Idempotency-Key\"\n";
        let park = "[[outbox]]\nname = \"orders\"\nmatch = { vendor = \"recorder\" }\npark = true\nmax_age = \"1d\"\n";
        std::fs::write(home.path().join("farcall.toml"), format!("{vendor}{park}{rules}")).unwrap();
        let options = Options {
            home: Some(home.path().to_owned()),
            config: Some(home.path().join("farcall.toml")),
            service: Some("test".into()),
            hub: false,
            enabled: true,
            ..Options::default()
        };
        let farcall = Farcall::start(options);
        Self { sim, farcall, home }
    }

    fn url(&self) -> String {
        format!("http://{}/v1/orders?x=1", self.sim.plain_addr())
    }

    /// The next request is answered so.
    fn once(&self, effect: &Value) {
        self.sim.script(json!({"match": {"path": "/v1/orders"}, "count": 1, "effect": effect})).unwrap();
    }

    fn got(&self) -> Vec<Recorded> {
        self.sim.requests(None).into_iter().filter(|request| request.path.starts_with("/v1/orders")).collect()
    }

    /// Waits until the call of this number is delivered; what the vendor got, the first attempt first.
    fn delivered(&self, id: i64) -> Vec<Recorded> {
        let item = self.farcall.outbox().unwrap().wait(id, PATIENCE).unwrap();
        assert_eq!(item.state, State::Delivered, "{item:?}");
        self.got()
    }

    /// The steps of the one call that the application made, as `farcall explain call` tells them.
    fn story(&self) -> String {
        self.farcall.flush();
        let calls = report::calls(&report::Query::at(self.home.path())).unwrap();
        let call =
            calls.rows.iter().find(|call| call.events.iter().any(|event| event.contains("parked"))).unwrap();
        call.events.join("\n")
    }
}

fn header(request: &Recorded, name: &str) -> Option<String> {
    request.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

/// The number under which the answer says that the call is parked.
fn number(header: &http::HeaderValue) -> i64 {
    header.to_str().unwrap().strip_prefix("parked; id=").unwrap().parse().unwrap()
}

async fn text<B: Body<Data = Bytes>>(response: Response<B>) -> String {
    let Ok(body) = response.into_body().collect().await else { panic!("the body ends") };
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

fn order(url: &str) -> Request<Full<Bytes>> {
    let request = Request::post(url).header("content-type", "text/plain").header("x-mine", "a");
    request.body(Full::from("amount=7")).unwrap()
}

#[tokio::test]
async fn a_call_that_fails_is_acknowledged_and_delivered_later_as_it_was_and_under_the_same_key() {
    let stage = Stage::new("");
    stage.once(&json!({"status": 503, "body": "down"}));
    let client: Client<_, farcall_tower::RequestBody<Full<Bytes>>> =
        Client::builder(TokioExecutor::new()).build_http();
    let client = Egress::<_>::with(stage.farcall.clone(), client);
    let response = customer("acme").scope(client.oneshot(order(&stage.url()))).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let id = number(&response.headers()["farcall-outbox"]);
    let body: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!((body["farcall"]["id"].as_i64(), &body["farcall"]["why"]), (Some(id), &json!("answered 503")));

    let [first, second] = stage.delivered(id).try_into().unwrap();
    let key = header(&first, "idempotency-key");
    assert!(key.is_some() && header(&second, "idempotency-key") == key, "{first:?} {second:?}");
    assert_eq!(body["farcall"]["idempotency_key"].as_str(), key.as_deref());
    for request in [&first, &second] {
        assert_eq!(header(request, "x-mine").as_deref(), Some("a"));
        assert_eq!(header(request, "content-type").as_deref(), Some("text/plain"));
        assert_eq!((request.method.as_str(), request.body.as_str()), ("POST", "amount=7"));
    }
    let item = stage.farcall.outbox().unwrap().item(id).unwrap();
    assert_eq!(item.customer.as_deref(), Some("acme"));
    let story = stage.story();
    assert!(story.contains("answered 503: `orders` has it parked in the outbox"), "{story}");
    assert!(story.contains(&format!("parked: call {id} of the outbox")), "{story}");
}

#[tokio::test]
async fn where_the_outbox_does_not_take_it_the_application_gets_what_the_vendor_said() {
    let stage = Stage::new("");
    std::fs::create_dir(stage.home.path().join("outbox.db")).unwrap();
    stage.once(&json!({"status": 503, "body": "down"}));
    let client: Client<_, farcall_tower::RequestBody<Full<Bytes>>> =
        Client::builder(TokioExecutor::new()).build_http();
    let client = Egress::<_>::with(stage.farcall.clone(), client);
    let response = client.oneshot(order(&stage.url())).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text(response).await, "down");
    assert!(stage.farcall.counters().contains(&("unparked_calls".to_owned(), 1)));
}

#[cfg(feature = "reqwest")]
mod through_reqwest {
    use super::*;
    use crate::vendor::trusting;
    use farcall_tower::reqwest::EgressMiddleware;
    use reqwest_middleware::ClientWithMiddleware;

    fn client(stage: &Stage) -> ClientWithMiddleware {
        let client = reqwest::Client::builder().tls_backend_preconfigured(trusting(stage.sim.ca_pem()));
        let client = client.no_proxy().build().unwrap();
        let middleware = EgressMiddleware::with(stage.farcall.clone());
        reqwest_middleware::ClientBuilder::new(client).with(middleware).build()
    }

    #[tokio::test]
    async fn a_call_that_breaks_off_is_delivered_later_under_the_same_key() {
        let stage = Stage::new("");
        stage.once(&json!({"reset": {}}));
        let request = client(&stage).post(stage.url()).header("x-mine", "a").body("amount=7");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 202);
        let id = number(&response.headers()["farcall-outbox"]);
        let got = stage.delivered(id);
        let key = header(&got[got.len() - 1], "idempotency-key").unwrap();
        assert!(got.iter().all(|request| header(request, "idempotency-key") == Some(key.clone())));
        assert_eq!(got[got.len() - 1].body, "amount=7");
        assert!(response.text().await.unwrap().contains(&key));
    }

    #[tokio::test]
    async fn a_vendor_that_cannot_be_found_has_its_calls_parked_after_the_last_attempt() {
        let rule =
            "[[resilience]]\nmatch = { vendor = \"recorder\" }\nattempts = 2\nbackoff = \"1ms..2ms\"\n";
        let stage = Stage::new(rule);
        let request = client(&stage).post("http://vendor.invalid/v1/orders").body("amount=7");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 202);
        let id = number(&response.headers()["farcall-outbox"]);
        let item = stage.farcall.outbox().unwrap().item(id).unwrap();
        assert_eq!((item.state, item.host.as_str(), item.bytes), (State::Pending, "vendor.invalid", 8));
        let story = stage.story();
        assert!(story.contains("tries again") && story.contains("no further attempt"), "{story}");
        assert!(story.contains("failed (dns): `orders` has it parked"), "{story}");
    }

    #[test]
    fn a_call_for_which_the_environment_names_a_proxy_is_not_parked() {
        const INSIDE: &str = "FARCALL_TEST_BEHIND_PROXY";
        if std::env::var_os(INSIDE).is_some() {
            return tokio::runtime::Runtime::new().unwrap().block_on(behind_a_proxy());
        }
        // In a program of its own: others read the environment as well.
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let this = "through_reqwest::a_call_for_which_the_environment_names_a_proxy_is_not_parked";
        child.args(["--exact", this, "--nocapture"]).env(INSIDE, "1");
        for name in ["NO_PROXY", "no_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy", "REQUEST_METHOD"] {
            child.env_remove(name);
        }
        let output = child.env("http_proxy", "http://127.0.0.1:1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    async fn behind_a_proxy() {
        let stage = Stage::new("");
        let middleware = EgressMiddleware::with(stage.farcall.clone());
        let plain = reqwest::Client::builder().tls_backend_preconfigured(trusting(stage.sim.ca_pem()));
        let client = reqwest_middleware::ClientBuilder::new(plain.build().unwrap()).with(middleware).build();
        assert!(client.post(stage.url()).body("amount=7").send().await.is_err());
        assert!(stage.farcall.counters().contains(&("unparkable_calls".to_owned(), 1)));
        assert!(stage.story().contains("goes through a proxy"), "{}", stage.story());
    }

    #[tokio::test]
    async fn a_get_and_an_answer_of_the_vendor_are_the_applications() {
        let stage = Stage::new("");
        for (effect, status) in [(json!({"status": 503}), 503), (json!({"status": 422}), 422)] {
            stage.once(&effect);
            let method = if status == 503 { reqwest::Method::GET } else { reqwest::Method::POST };
            let response = client(&stage).request(method, stage.url()).send().await.unwrap();
            assert_eq!(response.status().as_u16(), status);
        }
        assert_eq!(stage.got().len(), 2);
        assert!(!stage.home.path().join("outbox.db").exists());
    }
}
