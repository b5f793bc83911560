//! What is counted, and what is recorded.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Client, SOON, WAYS, Way, json, sim, until, whole};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use vendor_sim::{Counts, Options, Recorded, Sim};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_exact_under_two_hundred_parallel_requests() {
    let sim = sim();
    let mut tasks = Vec::new();
    for way in WAYS {
        for i in 0..50 {
            let mut client = Client::connect(&sim, "a.test", way).await;
            tasks.push(tokio::spawn(async move {
                let path = format!("/scenario/echo?{i}");
                let agent = [("user-agent", if i % 2 == 0 { "even" } else { "odd" })];
                let response = client.send("POST", &path, &agent, "x".repeat(i)).await.unwrap();
                assert_eq!(whole(response).await.body().len(), i);
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    // Whoever has seen the end of an answer finds it counted: no waiting here.
    let counts = sim.counts();
    let bytes = 4 * (0..50).sum::<u64>();
    assert_eq!((counts.requests, counts.open, counts.aborted), (200, 0, 0));
    assert_eq!((counts.bytes_in, counts.bytes_out), (bytes, bytes));
    assert_eq!(counts.rows.len(), 1);
    assert_eq!(counts.rows[0].count, 200);
    let agents: Vec<_> = counts.by_user_agent.iter().map(|g| (g.key.as_str(), g.count)).collect();
    assert_eq!(agents, [("even", 100), ("odd", 100)]);
    assert_eq!(sim.requests(None).len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_streams_on_one_connection_are_two_hundred_requests() {
    let sim = sim();
    let mut client = Client::connect(&sim, "a.test", Way::Tls2).await;
    let mut bodies = Vec::new();
    for _ in 0..200 {
        bodies.push(client.send("GET", "/scenario/chunked?bytes=100&chunks=3", &[], "").await.unwrap());
    }
    for body in bodies {
        assert_eq!(whole(body).await.body().len(), 100);
    }
    let counts = sim.counts();
    assert_eq!((counts.requests, counts.bytes_out, counts.connections), (200, 20_000, 1));
}

#[tokio::test]
async fn control_requests_are_not_counted() {
    let sim = sim();
    let mut client = Client::connect(&sim, "api.stripe.com", Way::Tls2).await;
    for path in ["/_sim/", "/_sim/counts", "/_sim/requests", "/_sim/vendors", "/_sim/health", "/_sim/ca.pem"]
    {
        assert_eq!(client.get(path).await.status(), 200, "{path}");
    }
    assert_eq!(client.get("/_sim/none").await.status(), 404);
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn counts_and_requests_over_http_are_those_of_the_library() {
    let sim = sim();
    let mut client = Client::connect(&sim, "api.openai.com", Way::Tls1).await;
    client.get("/v1/models?x=1").await;
    let response = client.send("POST", "/v1/none", &[("x-sim-client", "go")], "body").await.unwrap();
    assert_eq!(whole(response).await.status(), 404);
    let counts: Counts = serde_json::from_slice(client.get("/_sim/counts").await.body()).unwrap();
    assert_eq!(counts, sim.counts());
    assert_eq!(counts.requests_to("api.openai.com"), 2);
    assert_eq!(counts.requests_for("api.openai.com", "/v1/models"), 1);
    assert_eq!(counts.by_client.iter().find(|g| g.key == "go").unwrap().bytes_in, 4);
    let requests: Vec<Recorded> =
        serde_json::from_slice(client.get("/_sim/requests?host=api.openai.com").await.body()).unwrap();
    assert_eq!(requests, sim.requests(Some("api.openai.com")));
    assert_eq!((requests[0].query.as_str(), requests[0].status, requests[0].tls), ("x=1", Some(200), true));
    assert_eq!((requests[1].body.as_str(), requests[1].header("x-sim-client")), ("body", Some("go")));
    assert_eq!(requests[0].connection, requests[1].connection);
    let later = client.get(&format!("/_sim/requests?after={}", requests[0].seq)).await;
    assert_eq!(json(&later).as_array().unwrap().len(), 1);

    let forgot = client.send("DELETE", "/_sim/counts", &[], "").await.unwrap();
    assert_eq!(forgot.status(), 200);
    assert_eq!(sim.counts(), Counts::default());
    assert_eq!(sim.requests(None), []);
}

#[tokio::test]
async fn a_request_counts_when_its_head_was_parsed() {
    let sim = sim();
    let mut tcp = TcpStream::connect(sim.plain_addr()).await.unwrap();
    tcp.write_all(b"POST /upload HTTP/1.1\r\nhost: A.Test:80\r\ncontent-length: 100\r\n").await.unwrap();
    assert_eq!(sim.counts().requests, 0);
    tcp.write_all(b"\r\nten bytes!").await.unwrap();
    until("counted", || sim.counts().requests_for("a.test", "/upload") == 1).await;
    assert_eq!(sim.counts().open, 1);
    drop(tcp);
    until("aborted", || sim.counts().aborted == 1).await;
    assert_eq!(sim.counts().bytes_in, 10);
}

#[tokio::test]
async fn garbage_from_a_client_is_no_request() {
    let sim = sim();
    for garbage in [&b"PRI * HTTP/2.0\r\n\r\nXX"[..], b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"PR", b""] {
        let mut tcp = TcpStream::connect(sim.plain_addr()).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut rest).await;
    }
    assert_eq!(sim.counts().requests, 0);
    assert_eq!(Client::connect(&sim, "a.test", Way::Plain1).await.get("/x").await.status(), 200);
}

#[tokio::test]
async fn only_the_last_requests_are_kept_but_all_are_counted() {
    let sim = Sim::start(Options { keep: 16, keep_body: 4, ..Options::default() }).unwrap();
    let mut client = Client::connect(&sim, "a.test", Way::Plain1).await;
    for i in 0..100 {
        client.post(&format!("/{i}"), "longer than four").await;
    }
    let kept = sim.requests(None);
    let paths: Vec<_> = kept.iter().map(|r| r.path.clone()).collect();
    assert_eq!(paths, (84..100).map(|i| format!("/{i}")).collect::<Vec<_>>());
    assert_eq!((kept[0].body.as_str(), kept[0].body_length), ("long", 16));
    assert_eq!(sim.counts().requests, 100);
}

#[tokio::test]
async fn totals_stay_exact_when_paths_run_out_of_room() {
    let sim = Sim::start(Options { keep: 0, threads: 2, ..Options::default() }).unwrap();
    let mut client = Client::connect(&sim, "a.test", Way::Plain1).await;
    for i in 0..20_100 {
        client.get(&format!("/{i}")).await;
    }
    let counts = sim.counts();
    assert_eq!(counts.requests, 20_100);
    assert_eq!(counts.requests_to("(other)"), 100);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let sim = Sim::start(Options { max_body: 1_000, ..Options::default() }).unwrap();
    for way in WAYS {
        let mut client = Client::connect(&sim, "a.test", way).await;
        assert_eq!(client.post("/x", "x".repeat(1_000)).await.status(), 200);
        // A server that stops reading may reset before its answer is read.
        match client.send("POST", "/x", &[], "x".repeat(1_001)).await {
            Ok(response) => assert_eq!(response.status(), 413, "{way:?}"),
            Err(e) => println!("{way:?}: {e}"),
        }
    }
    let counts = sim.settled_counts(SOON);
    let by_status =
        |status| counts.rows.iter().filter(|r| r.status == Some(status)).map(|r| r.count).sum::<u64>();
    assert_eq!((by_status(200), by_status(413)), (4, 4));
}

#[tokio::test]
async fn scripts_come_over_http_and_are_refused_with_a_reason() {
    let sim = sim();
    let mut client = Client::connect(&sim, "a.test", Way::Plain2).await;
    let rule = json!({"match": {"host": "a.test", "path": "/x"}, "count": 1, "effect": {"status": 502}});
    let added = client.post("/_sim/script", rule.to_string()).await;
    assert_eq!(json(&added), json!({"ids": [1]}));
    assert_eq!(client.get("/x").await.status(), 502);
    assert_eq!(client.get("/x").await.status(), 200);
    let standing = json(&client.get("/_sim/script").await);
    assert_eq!((&standing[0]["struck"], &standing[0]["seen"]), (&json!(1), &json!(2)));
    for (bad, says) in
        [("{", "not JSON"), ("{\"efect\":{}}", "efect"), ("[{\"effect\":{\"status\":1}}]", "rule 1")]
    {
        let refused = client.post("/_sim/script", bad).await;
        assert_eq!(refused.status(), 400);
        assert!(json(&refused)["error"].as_str().unwrap().contains(says), "{bad}");
    }
    let removed = whole(client.send("DELETE", "/_sim/script/1", &[], "").await.unwrap()).await;
    assert_eq!(json(&removed), json!({"removed": 1}));
    client.post("/_sim/script", json!([rule, rule]).to_string()).await;
    let removed = whole(client.send("DELETE", "/_sim/script", &[], "").await.unwrap()).await;
    assert_eq!(json(&removed), json!({"removed": 2}));
    assert_eq!(client.get("/x").await.status(), 200);
}

#[tokio::test]
async fn settled_counts_wait_for_what_is_open() {
    let sim = sim();
    let mut slow = TcpStream::connect(sim.plain_addr()).await.unwrap();
    slow.write_all(b"POST /x HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\n\r\nhal").await.unwrap();
    until("under way", || sim.counts().open == 1).await;
    let mut other = Client::connect(&sim, "a.test", Way::Plain1).await;
    let asked = tokio::spawn(async move { other.get("/_sim/counts?settled_ms=60000").await });
    // Time enough for the question to arrive; where it was not, there is nothing for it to wait for.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!asked.is_finished(), "an exchange is open");
    slow.write_all(b"ve").await.unwrap();
    let counts: Counts = serde_json::from_slice(asked.await.unwrap().body()).unwrap();
    assert_eq!((counts.requests, counts.open, counts.bytes_in), (1, 0, 5));
    assert_eq!(sim.settled_counts(SOON), counts_without_connections(&sim, counts));
}

fn counts_without_connections(sim: &Sim, counts: Counts) -> Counts {
    Counts { connections: sim.counts().connections, ..counts }
}
