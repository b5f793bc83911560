//! What rules make of the redirects that reqwest follows, over real TLS.
#![cfg(feature = "reqwest")]
#![allow(clippy::unwrap_used)]

mod support;
#[path = "support/vendor.rs"]
mod vendor;

use bytes::Bytes;
use farcall::ledger::Rollup;
use farcall::{ErrorType, Outcome, RefusedBy};
use farcall_tower::reqwest::{EgressMiddleware, redirects};
use farcall_tower::{Customer, EgressError};
use reqwest::redirect::Policy;
use reqwest_middleware::{ClientWithMiddleware, Error};
use serde_json::json;
use std::time::{Duration, Instant};
use support::{Ledger, failed};
use vendor::{trusting, vendor};
use vendor_sim::Sim;

const ELSEWHERE: &str = "https://api.github.com/elsewhere";
const NO_STRIPE: &str =
    "[[policy]]\nname = \"no-stripe\"\nmatch = { vendor = \"stripe\" }\nverdict = \"deny\"\n";
/// In force, and of no consequence to any of these calls.
const HARMLESS: &str = "[[policy]]\nmatch = { vendor = \"openai\" }\nverdict = \"deny\"\n";

fn following(sim: &Sim, ledger: &Ledger, policy: Policy) -> ClientWithMiddleware {
    let builder = reqwest::Client::builder().tls_backend_preconfigured(trusting(sim.ca_pem())).no_proxy();
    let hosts = ["api.stripe.com", "api.github.com"];
    let builder = hosts.iter().fold(builder, |builder, host| builder.resolve(host, sim.tls_addr()));
    let client = builder.redirect(policy).build().unwrap();
    reqwest_middleware::ClientBuilder::new(client)
        .with(EgressMiddleware::with(ledger.farcall.clone()))
        .build()
}

fn client(sim: &Sim, ledger: &Ledger) -> ClientWithMiddleware {
    following(sim, ledger, redirects(Policy::default()))
}

/// From now on the first vendor sends its callers on to this path of the second.
fn sends_on(sim: &Sim, status: u16, path: &str) {
    sim.script(json!({
        "match": {"host": "api.github.com"},
        "effect": {
            "status": status,
            "body": "",
            "headers": {"location": format!("https://api.stripe.com/scenario/{path}")},
        },
    }))
    .unwrap();
}

/// The call to the first vendor and the one to the second, of which there are no more.
fn both(ledger: &Ledger) -> (Rollup, Rollup) {
    let mut rows = ledger.rows();
    rows.sort_by(|one, other| one.vendor.cmp(&other.vendor));
    let vendors: Vec<_> = rows.iter().map(|row| (row.vendor.as_ref(), row.sums.calls)).collect();
    assert_eq!(vendors, [("github", 1), ("stripe", 1)], "{rows:?}");
    let stripe = rows.remove(1);
    (rows.remove(0), stripe)
}

fn refusal(error: &Error) -> &farcall::Refusal {
    let Error::Middleware(inner) = error else { panic!("{error:?}") };
    inner.downcast_ref::<EgressError>().and_then(EgressError::refusal).unwrap_or_else(|| panic!("{error:?}"))
}

fn requests_to(sim: &Sim, host: &str) -> u64 {
    sim.counts().by_host.iter().filter(|known| known.host == host).map(|known| known.count).sum()
}

#[tokio::test]
async fn each_hop_is_a_call_of_its_own_for_the_same_customer() {
    let (sim, ledger) = (vendor(), Ledger::under(HARMLESS));
    sends_on(&sim, 302, "bytes/321");
    let request = client(&sim, &ledger).get(ELSEWHERE).with_extension(Customer::new("acme"));
    let response = request.send().await.unwrap();
    assert_eq!(response.url().as_str(), "https://api.stripe.com/scenario/bytes/321");
    assert_eq!(response.bytes().await.unwrap().len(), 321);
    let (github, stripe) = both(&ledger);
    assert_eq!((github.status, github.outcome, github.sums.bytes_in), (302, Outcome::Complete, 0));
    assert_eq!((stripe.status, stripe.outcome, stripe.sums.bytes_in), (200, Outcome::Complete, 321));
    assert_eq!((github.customer.as_ref(), stripe.customer.as_ref()), ("acme", "acme"));

    let chain = client(&sim, &ledger).get("https://api.stripe.com/scenario/redirect/2").send();
    chain.await.unwrap().bytes().await.unwrap();
    let rows = ledger.rows();
    let calls =
        |status| rows.iter().filter(|row| row.status == status).map(|row| row.sums.calls).sum::<u64>();
    assert_eq!((calls(302), calls(200)), (3, 1), "{rows:?}");
    assert!(!ledger.farcall.counters().iter().any(|(name, _)| name.starts_with("reqwest_")));
}

#[tokio::test]
async fn a_hop_to_a_denied_vendor_is_not_sent_and_says_why() {
    let (sim, ledger) = (vendor(), Ledger::under(NO_STRIPE));
    sends_on(&sim, 302, "ok");
    let error = client(&sim, &ledger).get(ELSEWHERE).send().await.unwrap_err();
    assert_eq!((refusal(&error).by, refusal(&error).rule.as_ref()), (RefusedBy::Policy, "no-stripe"));
    let (github, stripe) = both(&ledger);
    assert_eq!((github.status, github.outcome), (302, Outcome::Complete));
    assert_eq!((stripe.outcome, stripe.sums.attempts), (Outcome::Refused(RefusedBy::Policy), 0));
    assert_eq!((requests_to(&sim, "api.github.com"), requests_to(&sim, "api.stripe.com")), (1, 0));
}

#[tokio::test]
async fn a_denied_hop_does_not_leave_through_a_connection_that_stands_open() {
    let rules = "[[policy]]\nmatch = { vendor = \"stripe\", method = \"GET\" }\nverdict = \"deny\"\n";
    let (sim, ledger) = (vendor(), Ledger::under(rules));
    let client = client(&sim, &ledger);
    let post = |path: &str| client.post(format!("https://api.stripe.com/scenario/{path}")).body("12345");
    post("echo").send().await.unwrap().bytes().await.unwrap();
    // A POST that becomes a GET, to the host whose connection is in the pool.
    refusal(&post("redirect").send().await.unwrap_err());
    assert_eq!(sim.counts().requests, 2);
    let rows = ledger.rows();
    let refused = rows.iter().find(|row| row.outcome == Outcome::Refused(RefusedBy::Policy)).unwrap();
    assert!(refused.endpoint.starts_with("GET "), "{rows:?}");
}

#[tokio::test]
async fn where_the_applications_policy_stops_nothing_is_refused() {
    let (sim, ledger) = (vendor(), Ledger::under(NO_STRIPE));
    sends_on(&sim, 302, "ok");
    let careful = Policy::custom(|attempt| match attempt.url().host_str() {
        Some("api.stripe.com") => attempt.stop(),
        _ => attempt.follow(),
    });
    for stops in [Policy::none(), careful] {
        let response = following(&sim, &ledger, redirects(stops)).get(ELSEWHERE).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.url().as_str()), (302, ELSEWHERE));
        response.bytes().await.unwrap();
        let row = ledger.only();
        assert_eq!((row.status, row.outcome), (302, Outcome::Complete));
    }
    let error = following(&sim, &ledger, redirects(Policy::limited(0))).get(ELSEWHERE).send().await;
    assert!(matches!(error.unwrap_err(), Error::Reqwest(error) if error.is_redirect()));
    let row = ledger.only();
    assert_eq!((row.status, row.outcome), (302, Outcome::Complete), "the redirect arrived whole");
    assert_eq!(ledger.farcall.engine().counters().refused_calls, 0);
}

#[tokio::test]
async fn a_hop_waits_for_its_slot() {
    let quota = "[[quota]]\nmatch = { vendor = \"stripe\" }\nlimit = \"5 requests / 1s\"\nburst = 1\n\
                 max_wait = \"10s\"\n";
    let (sim, ledger) = (vendor(), Ledger::under(quota));
    let begun = Instant::now();
    client(&sim, &ledger).get("https://api.stripe.com/scenario/redirect/1").send().await.unwrap();
    assert!(
        begun.elapsed() >= Duration::from_millis(400),
        "the second and the third hop are 200 ms later each"
    );
    assert_eq!(sim.counts().requests, 3);
}

#[tokio::test]
async fn an_injected_fault_takes_the_place_of_a_hop() {
    let rules = "allow_faults = true\n[[fault]]\nmatch = { vendor = \"stripe\" }\nshare = \"100%\"\nstatus = 503\n\
                 expires = \"2099-01-01T00:00:00Z\"\n";
    let (sim, ledger) = (vendor(), Ledger::under(rules));
    sends_on(&sim, 302, "ok");
    let response = client(&sim, &ledger).get(ELSEWHERE).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.url().path()), (503, "/scenario/ok"));
    assert_eq!(requests_to(&sim, "api.stripe.com"), 0);
}

#[tokio::test]
async fn a_hop_that_fails_is_not_tried_again() {
    let rules = "[[resilience]]\nmatch = { vendor = \"*\" }\nattempts = 3\n";
    let (sim, ledger) = (vendor(), Ledger::under(rules));
    sends_on(&sim, 302, "status/503");
    let response = client(&sim, &ledger).get(ELSEWHERE).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 503);
    drop(response);
    let (github, stripe) = both(&ledger);
    assert_eq!((github.status, github.sums.attempts), (302, 1));
    assert_eq!((stripe.status, stripe.sums.attempts), (503, 1));
    assert_eq!(sim.counts().requests, 2);
}

#[tokio::test]
async fn an_attempt_that_is_tried_again_may_be_redirected() {
    let rules = "[[resilience]]\nmatch = { vendor = \"*\" }\nattempts = 3\n";
    let (sim, ledger) = (vendor(), Ledger::under(rules));
    sim.script(json!({"match": {"host": "api.github.com"}, "count": 1, "effect": {"status": 503}})).unwrap();
    sends_on(&sim, 302, "ok");
    let response = client(&sim, &ledger).get(ELSEWHERE).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    response.bytes().await.unwrap();
    let (github, stripe) = both(&ledger);
    assert_eq!((github.status, github.sums.attempts), (302, 2));
    assert_eq!((stripe.status, stripe.sums.attempts), (200, 1));
}

#[tokio::test]
async fn a_hop_that_takes_too_long_is_given_up() {
    let rules = "[[resilience]]\nmatch = { vendor = \"stripe\" }\nattempt_timeout = \"500ms\"\n";
    let (sim, ledger) = (vendor(), Ledger::under(rules));
    sends_on(&sim, 302, "hang");
    let error = client(&sim, &ledger).get(ELSEWHERE).send().await.unwrap_err();
    let Error::Middleware(inner) = &error else { panic!("{error:?}") };
    assert!(matches!(inner.downcast_ref(), Some(EgressError::TimedOut)), "{error:?}");
    let (github, stripe) = both(&ledger);
    assert_eq!((github.status, github.outcome), (302, Outcome::Complete));
    assert_eq!(stripe.outcome, failed(ErrorType::Timeout));
}

#[tokio::test]
async fn a_second_attempt_that_is_redirected_is_held_to_the_rules() {
    let hedged =
        "[[resilience]]\nmatch = { vendor = \"github\" }\nhedge = { after = \"20ms\", budget = \"100%\" }\n";
    let (sim, ledger) = (vendor(), Ledger::under(&format!("{NO_STRIPE}{hedged}")));
    sim.script(json!({"match": {"host": "api.github.com"}, "count": 1, "effect": {"hang": true}})).unwrap();
    sends_on(&sim, 302, "ok");
    let error = client(&sim, &ledger).get(ELSEWHERE).send().await.unwrap_err();
    assert_eq!(refusal(&error).rule.as_ref(), "no-stripe");
    let (github, stripe) = both(&ledger);
    assert_eq!((github.status, github.outcome, github.sums.attempts), (302, Outcome::Complete, 2));
    assert_eq!(stripe.outcome, Outcome::Refused(RefusedBy::Policy));
    assert_eq!(requests_to(&sim, "api.stripe.com"), 0);
}

#[tokio::test]
async fn a_chain_that_is_cancelled_ends_at_the_hop_under_way() {
    let (sim, ledger) = (vendor(), Ledger::under(HARMLESS));
    sends_on(&sim, 307, "hang");
    let call = tokio::spawn(client(&sim, &ledger).post(ELSEWHERE).body("12345").send());
    while requests_to(&sim, "api.stripe.com") == 0 {
        tokio::task::yield_now().await;
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let (github, stripe) = both(&ledger);
    assert_eq!((github.status, github.outcome), (307, Outcome::Complete));
    assert!(stripe.endpoint.starts_with("POST "), "a 307 keeps its method: {stripe:?}");
    assert_eq!(stripe.outcome, failed(ErrorType::Cancelled));
}

#[tokio::test]
async fn a_body_that_is_sent_again_counts_again_and_a_dropped_one_does_not() {
    for (status, method, second) in [(307, "POST", 5), (302, "GET", 0), (303, "GET", 0)] {
        let (sim, ledger) = (vendor(), Ledger::under(HARMLESS));
        sends_on(&sim, status, "echo");
        let request = client(&sim, &ledger).post(ELSEWHERE).body("12345");
        request.send().await.unwrap().bytes().await.unwrap();
        let (github, stripe) = both(&ledger);
        assert_eq!((github.sums.bytes_out, stripe.sums.bytes_out), (5, second), "{status}");
        assert_eq!(sim.counts().bytes_in, 5 + second, "{status}");
        assert!(stripe.endpoint.starts_with(method), "{status}: {stripe:?}");
    }
}

#[tokio::test]
async fn a_streaming_body_counts_what_was_sent() {
    let (sim, ledger) = (vendor(), Ledger::under(HARMLESS));
    let pieces =
        || ["one", "two", "three"].map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece.as_bytes())));
    let body = || reqwest::Body::wrap_stream(tokio_stream::iter(pieces()));
    let echo = client(&sim, &ledger).post("https://api.stripe.com/scenario/echo").body(body()).send().await;
    assert_eq!(echo.unwrap().text().await.unwrap(), "onetwothree");
    let row = ledger.only();
    assert_eq!((row.sums.bytes_out, row.sums.bytes_in), (11, 11));

    sends_on(&sim, 303, "ok");
    let followed = client(&sim, &ledger).post(ELSEWHERE).body(body()).send().await;
    followed.unwrap().bytes().await.unwrap();
    let (github, stripe) = both(&ledger);
    assert_eq!((github.sums.bytes_out, stripe.sums.bytes_out), (11, 0));
}

#[tokio::test]
async fn without_the_policy_a_chain_is_one_call_and_the_counters_say_so() {
    let (sim, ledger) = (vendor(), Ledger::under(HARMLESS));
    sends_on(&sim, 302, "ok");
    let bare = following(&sim, &ledger, Policy::default());
    bare.get(ELSEWHERE).send().await.unwrap().bytes().await.unwrap();
    let row = ledger.only();
    assert_eq!((row.vendor.as_ref(), row.status), ("github", 200));
    assert!(ledger.farcall.counters().contains(&("reqwest_unseen_redirects".into(), 1)));
}

#[tokio::test]
async fn what_a_rule_would_change_in_a_later_hop_is_counted() {
    let rules = "[[rollout]]\nname = \"next\"\nmatch = { vendor = \"stripe\" }\nshare = \"100%\"\n\
                 variant = { path_prefix = \"/next\" }\n";
    let (sim, ledger) = (vendor(), Ledger::under(rules));
    sends_on(&sim, 302, "ok");
    let response = client(&sim, &ledger).get(ELSEWHERE).send().await.unwrap();
    assert_eq!(response.url().path(), "/scenario/ok", "it goes as reqwest makes it");
    assert!(ledger.farcall.counters().contains(&("reqwest_unchanged_redirects".into(), 1)));
}
