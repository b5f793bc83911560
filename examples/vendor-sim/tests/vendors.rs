//! The vendors answer as the real ones do.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, WAYS, Way, json, sim, whole};
use http::Response;
use serde_json::{Value, json};

#[tokio::test]
async fn every_vendor_answers_under_its_name() {
    let sim = sim();
    for (host, method, path, status) in [
        ("api.openai.com", "GET", "/v1/models/gpt-5", 200),
        ("api.anthropic.com", "GET", "/v1/models", 200),
        ("generativelanguage.googleapis.com", "POST", "/v1beta/models/gemini-2.5-flash:generateContent", 200),
        ("api.stripe.com", "GET", "/v1/customers", 401),
        ("api.github.com", "GET", "/repos/a/b/issues", 200),
        ("hooks.slack.com", "POST", "/services/T/B/x", 200),
        ("slack.com", "POST", "/api/chat.postMessage", 200),
        ("app.launchdarkly.com", "GET", "/sdk/latest-all", 200),
        ("events.launchdarkly.com", "POST", "/bulk", 202),
        ("api.twilio.com", "POST", "/2010-04-01/Accounts/AC1/Messages.json", 201),
        ("api.hubapi.com", "GET", "/crm/v3/objects/contacts", 200),
        ("acme.my.salesforce.com", "GET", "/services/data/v60.0/query", 200),
        ("acme.myshopify.com", "GET", "/admin/api/2025-10/orders.json", 200),
        ("discord.com", "POST", "/api/v10/channels/1/messages", 200),
        ("discord.com", "POST", "/api/webhooks/1/token", 204),
        ("api.linear.app", "POST", "/graphql", 200),
        ("acme.zendesk.com", "GET", "/api/v2/tickets/7", 200),
        ("api.notion.com", "POST", "/v1/search", 200),
        ("api.brevo.com", "POST", "/v3/smtp/email", 201),
        ("api.brevo.com", "GET", "/nothing/here", 404),
    ] {
        let mut client = Client::connect(&sim, host, Way::Tls1).await;
        let answer = whole(client.send(method, path, &[], "{}").await.unwrap()).await;
        assert_eq!(answer.status(), status, "{host} {path}");
        assert_eq!(sim.counts().requests_for(host, path), 1);
    }
}

#[tokio::test]
async fn limits_are_told_in_each_vendors_own_words() {
    let sim = sim();
    for (host, method, path, header) in [
        ("api.openai.com", "GET", "/v1/models", "x-ratelimit-reset-requests"),
        ("api.anthropic.com", "GET", "/v1/models", "anthropic-ratelimit-requests-reset"),
        ("api.github.com", "GET", "/user", "x-ratelimit-reset"),
        ("a.my.salesforce.com", "GET", "/services/data/v60.0/limits", "sforce-limit-info"),
        ("a.myshopify.com", "GET", "/admin/api/2025-10/shop.json", "x-shopify-shop-api-call-limit"),
        ("api.hubapi.com", "GET", "/crm/v3/objects/deals", "x-hubspot-ratelimit-daily-remaining"),
        ("a.zendesk.com", "GET", "/api/v2/tickets.json", "zendesk-ratelimit-tickets-index"),
        ("api.linear.app", "POST", "/graphql", "x-ratelimit-requests-reset"),
        ("discord.com", "GET", "/api/v10/users/@me", "x-ratelimit-reset-after"),
        ("api.brevo.com", "GET", "/v3/account", "x-sib-ratelimit-remaining"),
    ] {
        let mut client = Client::connect(&sim, host, Way::Plain1).await;
        let answer = whole(client.send(method, path, &[], "").await.unwrap()).await;
        assert!(answer.headers().contains_key(header), "{host}: {:?}", answer.headers());
    }
    let mut client = Client::connect(&sim, "api.github.com", Way::Plain1).await;
    let (first, second) = (client.get("/user").await, client.get("/user").await);
    let left =
        |r: &Response<_>| r.headers()["x-ratelimit-remaining"].to_str().unwrap().parse::<u32>().unwrap();
    assert_eq!(left(&first), left(&second) + 1);
}

#[tokio::test]
async fn an_idempotency_key_replays_the_first_answer() {
    let sim = sim();
    for way in WAYS {
        let mut client = Client::connect(&sim, "api.stripe.com", way).await;
        let key = format!("key-{way:?}");
        let headers = [("authorization", "Bearer sk_test"), ("idempotency-key", key.as_str())];
        let mut charge = async |headers: &[(&str, &str)], body: &'static str| {
            whole(client.send("POST", "/v1/charges", headers, body).await.unwrap()).await
        };
        let first = charge(&headers, "amount=100&currency=usd").await;
        let again = charge(&headers, "amount=100&currency=usd").await;
        assert_eq!(first.body(), again.body());
        assert!(!first.headers().contains_key("idempotent-replayed"));
        assert_eq!(again.headers()["idempotent-replayed"], "true");
        assert_ne!(first.headers()["request-id"], again.headers()["request-id"]);
        let other = charge(&headers, "amount=200&currency=usd").await;
        assert_eq!(other.status(), 400);
        assert_eq!(json(&other)["error"]["type"], "idempotency_error");
        let account = [("authorization", "Bearer sk_other"), ("idempotency-key", key.as_str())];
        let elsewhere = charge(&account, "amount=100&currency=usd").await;
        assert_ne!(json(&first)["id"], json(&elsewhere)["id"]);
        let unkeyed = charge(&headers[..1], "amount=100&currency=usd").await;
        assert_ne!(json(&first)["id"], json(&unkeyed)["id"]);
    }
}

#[tokio::test]
async fn stripe_remembers_what_was_created() {
    let sim = sim();
    let mut client = Client::connect(&sim, "api.stripe.com", Way::Tls2).await;
    let auth = [("authorization", "Bearer sk_test")];
    let mut ask = async |method: &str, path: &str, body: &'static str| {
        whole(client.send(method, path, &auth, body).await.unwrap()).await
    };
    let form = "email=ada%40example.com&metadata[plan]=gold&expand[]=a&expand[]=b";
    let created = json(&ask("POST", "/v1/customers", form).await);
    assert_eq!(
        (&created["email"], &created["metadata"]["plan"]),
        (&json!("ada@example.com"), &json!("gold"))
    );
    assert_eq!(created["expand"], json!(["a", "b"]));
    let path = format!("/v1/customers/{}", created["id"].as_str().unwrap());
    assert_eq!(json(&ask("GET", &path, "").await), created);
    assert_eq!(json(&ask("POST", &path, "name=Ada").await)["name"], "Ada");
    ask("POST", "/v1/customers", "").await;
    let page = json(&ask("GET", "/v1/customers?limit=1", "").await);
    assert_eq!(page["has_more"], true);
    let cursor = page["data"][0]["id"].as_str().unwrap();
    let next = json(&ask("GET", &format!("/v1/customers?limit=1&starting_after={cursor}"), "").await);
    assert_eq!((&next["data"][0]["id"], &next["has_more"]), (&created["id"], &json!(false)));
    assert_eq!(json(&ask("DELETE", &path, "").await)["deleted"], true);
    assert_eq!(ask("GET", &path, "").await.status(), 404);
    assert_eq!(ask("POST", "/v1/payment_intents", "").await.status(), 400);
    assert_eq!(ask("GET", "/v1/nonsense", "").await.status(), 404);
}

#[tokio::test]
async fn a_known_etag_is_answered_304_without_a_body() {
    let sim = sim();
    for (host, path) in [
        ("api.github.com", "/repos/a/b"),
        ("app.launchdarkly.com", "/sdk/latest-all"),
        ("any.test", "/scenario/etag"),
    ] {
        for way in WAYS {
            let mut client = Client::connect(&sim, host, way).await;
            let first = client.get(path).await;
            let tag = first.headers()["etag"].to_str().unwrap().to_owned();
            for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
                let headers = [("if-none-match", known.as_str())];
                let again = whole(client.send("GET", path, &headers, "").await.unwrap()).await;
                assert_eq!((again.status().as_u16(), again.body().len()), (304, 0), "{host} {way:?} {known}");
                assert_eq!(again.headers()["etag"], tag.as_str());
            }
            let stale = [("if-none-match", "\"x\"")];
            assert_eq!(client.send("GET", path, &stale, "").await.unwrap().status(), 200);
        }
    }
}

#[tokio::test]
async fn the_flag_vendor_says_nothing_about_caching() {
    let sim = sim();
    let flags = Client::connect(&sim, "sdk.launchdarkly.com", Way::Tls2).await.get("/sdk/latest-all").await;
    assert!(json(&flags)["flags"].as_object().unwrap().len() > 20);
    for header in ["cache-control", "expires", "age", "last-modified", "pragma"] {
        assert!(!flags.headers().contains_key(header), "{header}");
    }
}

/// The data of each event; `[DONE]` as it stands.
fn events(answer: &Response<bytes::Bytes>) -> Vec<String> {
    assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = std::str::from_utf8(answer.body()).unwrap();
    assert!(text.ends_with("\n\n"));
    let data = |event: &str| event.lines().find_map(|l| l.strip_prefix("data: ")).unwrap().to_owned();
    text.trim_end().split("\n\n").map(data).collect()
}

#[tokio::test]
async fn openai_streams_end_with_the_usage_that_was_asked_for() {
    let sim = sim();
    for way in WAYS {
        let mut client = Client::connect(&sim, "api.openai.com", way).await;
        let mut ask = json!({"model": "gpt-5", "messages": [{"role": "user", "content": "12345678"}]});
        let whole_answer = json(&client.post("/v1/chat/completions", ask.to_string()).await);
        ask["stream"] = json!(true);
        let bare = events(&client.post("/v1/chat/completions", ask.to_string()).await);
        assert_eq!(bare.last().unwrap(), "[DONE]");
        assert!(bare.iter().all(|e| !e.contains("usage")));
        ask["stream_options"] = json!({"include_usage": true});
        let with_usage = events(&client.post("/v1/chat/completions", ask.to_string()).await);
        let last: Value = serde_json::from_str(&with_usage[with_usage.len() - 2]).unwrap();
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["usage"], whole_answer["usage"], "{way:?}");
        let text: String = with_usage[..with_usage.len() - 1]
            .iter()
            .filter_map(|e| {
                serde_json::from_str::<Value>(e).unwrap()["choices"][0]["delta"]["content"]
                    .as_str()
                    .map(String::from)
            })
            .collect();
        assert_eq!(json!(text), whole_answer["choices"][0]["message"]["content"]);
        let refused = client.post("/v1/chat/completions", "{}").await;
        assert_eq!(refused.status(), 400);
    }
}

#[tokio::test]
async fn responses_and_messages_stream_their_usage_too() {
    let sim = sim();
    let mut openai = Client::connect(&sim, "api.openai.com", Way::Tls2).await;
    let ask = json!({"model": "gpt-5", "input": "hello", "stream": true});
    let answer = events(&openai.post("/v1/responses", ask.to_string()).await);
    let last: Value = serde_json::from_str(answer.last().unwrap()).unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["usage"]["output_tokens"]),
        (&json!("response.completed"), &json!(6))
    );
    let mut anthropic = Client::connect(&sim, "api.anthropic.com", Way::Tls2).await;
    let ask = json!({"model": "m", "max_tokens": 5, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let answer = events(&anthropic.post("/v1/messages", ask.to_string()).await);
    let kinds: Vec<Value> =
        answer.iter().map(|e| serde_json::from_str::<Value>(e).unwrap()["type"].clone()).collect();
    assert_eq!((&kinds[0], kinds.last().unwrap()), (&json!("message_start"), &json!("message_stop")));
    let delta: Value = serde_json::from_str(&answer[answer.len() - 2]).unwrap();
    assert_eq!(delta["usage"]["output_tokens"], 5);
}

#[tokio::test]
async fn a_stream_can_be_dripped_event_by_event() {
    let sim = sim();
    sim.script(json!({"effect": {"drip": {"every_ms": 10}}})).unwrap();
    let mut client = Client::connect(&sim, "api.openai.com", Way::Tls1).await;
    let ask = json!({"model": "gpt-5", "stream": true, "messages": []});
    let start = std::time::Instant::now();
    let count = events(&client.post("/v1/chat/completions", ask.to_string()).await).len();
    assert!(start.elapsed().as_millis() >= 10 * (count as u128 - 1));
}

#[tokio::test]
async fn an_unknown_host_echoes_the_request() {
    let sim = sim();
    for way in WAYS {
        let mut client = Client::connect(&sim, "unheard-of.test", way).await;
        let response = client.send("PUT", "/a/b?c=d", &[("x-y", "z")], "abc").await.unwrap();
        let echo = json(&whole(response).await);
        assert_eq!(echo["host"], "unheard-of.test", "{way:?}");
        assert_eq!(
            (&echo["method"], &echo["path"], &echo["query"]),
            (&json!("PUT"), &json!("/a/b"), &json!("c=d"))
        );
        assert!(echo["headers"].as_array().unwrap().contains(&json!(["x-y", "z"])));
        assert_eq!(echo["body_length"], 3);
        // SHA-256 of "abc" (FIPS 180-2, appendix B.1).
        assert_eq!(echo["body_sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
