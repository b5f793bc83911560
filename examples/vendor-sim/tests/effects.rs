//! Each effect does on the wire what it says.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use common::{Client, SOON, WAYS, Way, by_hand, json, received, sim, split, until, whole};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vendor_sim::Sim;

/// A simulator in which every request to `a.test` meets this effect.
fn scripted(effect: Value) -> Sim {
    let sim = sim();
    sim.script(json!({"match": {"host": "a.test"}, "effect": effect})).unwrap();
    sim
}

#[tokio::test]
async fn latency_comes_before_the_answer() {
    let sim = scripted(json!({"latency_ms": 80}));
    for way in WAYS {
        let mut client = Client::connect(&sim, "a.test", way).await;
        let start = Instant::now();
        assert_eq!(client.get("/x").await.status(), 200);
        assert!(start.elapsed() >= Duration::from_millis(80), "{way:?}");
    }
}

#[tokio::test]
async fn status_headers_and_body_are_those_of_the_script() {
    let sim = scripted(json!({"status": 418, "headers": {"x-a": ["1", "2"]}, "body": {"tea": true}}));
    for way in WAYS {
        let answer = Client::connect(&sim, "a.test", way).await.get("/x").await;
        assert_eq!(answer.status(), 418);
        assert_eq!(answer.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(json(&answer), json!({"tea": true}));
    }
    // Another host is left alone.
    assert_eq!(Client::connect(&sim, "b.test", Way::Plain1).await.get("/x").await.status(), 200);
}

#[tokio::test]
async fn a_dialect_can_annotate_a_success_or_refuse() {
    let sim = sim();
    sim.script(json!([
        {"match": {"path": "/warn"}, "effect": {"dialect": "github", "status": 200,
            "numbers": {"limit": 60, "remaining": 7, "reset_after_ms": 30_000}}},
        {"match": {"path": "/refuse"}, "effect": {"dialect": "ietf", "numbers": {"limit": 100, "reset_after_ms": 1_500}}},
        {"match": {"path": "/odd"}, "effect": {"dialect": "openai", "numbers":
            {"limit": "-5", "remaining": "NaN", "reset": "1e400"}}},
    ]))
    .unwrap();
    let mut client = Client::connect(&sim, "a.test", Way::Tls2).await;
    let warned = client.get("/warn").await;
    assert_eq!(warned.status(), 200);
    assert_eq!(warned.headers()["x-ratelimit-remaining"], "7");
    assert_eq!(warned.headers()["x-ratelimit-used"], "53");
    assert_eq!(json(&warned)["path"], "/warn", "the vendor's own answer stays");
    let refused = client.get("/refuse").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["ratelimit-policy"], "\"default\";q=100;w=60");
    assert_eq!(refused.headers()["ratelimit"], "\"default\";r=0;t=2");
    assert_eq!(refused.headers()["retry-after"], "2");
    let odd = client.get("/odd").await;
    assert_eq!(odd.headers()["x-ratelimit-limit-requests"], "-5");
    assert_eq!(odd.headers()["x-ratelimit-remaining-requests"], "NaN");
    assert_eq!(odd.headers()["retry-after"], "1e400");
}

#[tokio::test]
async fn every_dialect_goes_over_the_wire() {
    let sim = sim();
    let mut client = Client::connect(&sim, "a.test", Way::Plain1).await;
    let dialects = json(&client.get("/_sim/dialects").await);
    let dialects = dialects.as_array().unwrap();
    assert!(dialects.len() >= 30);
    for dialect in dialects {
        let answer = client.get(&format!("/scenario/429/{}", dialect["name"].as_str().unwrap())).await;
        assert_eq!(answer.status(), dialect["status"].as_u64().unwrap() as u16, "{dialect}");
        json(&answer);
    }
}

#[tokio::test]
async fn a_burst_fails_n_of_m_and_a_count_ends() {
    let sim = sim();
    sim.script(json!({"burst": {"n": 2, "of": 3}, "count": 3, "effect": {"status": 503}})).unwrap();
    let mut client = Client::connect(&sim, "a.test", Way::Plain1).await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(client.get("/x").await.status().as_u16());
    }
    assert_eq!(statuses, [503, 503, 200, 503, 200, 200]);
}

#[tokio::test]
async fn a_reset_before_the_head_sends_rst_and_nothing_else() {
    let sim = scripted(json!({"reset": {}}));
    let (bytes, end) = by_hand(&sim, "a.test", "/x").await;
    assert_eq!((bytes.len(), end.unwrap_err().kind()), (0, ErrorKind::ConnectionReset));
    for way in WAYS {
        let mut client = Client::connect(&sim, "a.test", way).await;
        assert!(client.send("GET", "/x", &[], "").await.is_err(), "{way:?}");
    }
    let counts = sim.settled_counts(SOON);
    assert_eq!((counts.requests, counts.aborted), (5, 5));
    assert_eq!(counts.rows[0].status, None);
}

#[tokio::test]
async fn a_reset_strikes_after_exactly_so_many_body_bytes() {
    let sim = scripted(json!({"reset": {"after_bytes": 1_234}, "body": "y".repeat(200_000)}));
    let (bytes, end) = by_hand(&sim, "a.test", "/x").await;
    let (head, body) = split(&bytes);
    assert!(head.contains("content-length: 200000"), "{head}");
    assert_eq!((body.len(), end.unwrap_err().kind()), (1_234, ErrorKind::ConnectionReset));
    for way in WAYS {
        let mut client = Client::connect(&sim, "a.test", way).await;
        let response = client.send("GET", "/x", &[], "").await.unwrap();
        assert_eq!(response.status(), 200, "{way:?}");
        let (body, well) = received(response).await;
        assert_eq!((body.len(), well), (1_234, false), "{way:?}");
    }
    let counts = sim.settled_counts(SOON);
    assert_eq!((counts.requests, counts.aborted, counts.bytes_out), (5, 5, 5 * 1_234));
}

#[tokio::test]
async fn a_large_reset_lets_all_bytes_before_it_through() {
    let sim = scripted(json!({"reset": {"after_bytes": 150_000}, "body": "y".repeat(200_000)}));
    for way in WAYS {
        let mut client = Client::connect(&sim, "a.test", way).await;
        let (body, well) = received(client.send("GET", "/x", &[], "").await.unwrap()).await;
        assert_eq!((body.len(), well), (150_000, false), "{way:?}");
    }
}

#[tokio::test]
async fn a_truncated_answer_closes_in_order_short_of_its_length() {
    let sim = scripted(json!({"truncate": {"after_bytes": 40}, "body": "z".repeat(100)}));
    let (bytes, end) = by_hand(&sim, "a.test", "/x").await;
    let (head, body) = split(&bytes);
    assert!(head.contains("content-length: 100"), "{head}");
    assert_eq!(body.len(), 40);
    assert!(end.is_ok(), "FIN, not RST");
    for way in WAYS {
        let mut client = Client::connect(&sim, "a.test", way).await;
        let (body, well) = received(client.send("GET", "/x", &[], "").await.unwrap()).await;
        assert_eq!((body.len(), well), (40, false), "{way:?}");
        if !way.http1() {
            // On HTTP/2 the stream ends badly, its connection lives.
            assert_eq!(client.get("/_sim/health").await.status(), 200);
        }
    }
}

#[tokio::test]
async fn truncated_chunks_lack_the_last_one() {
    let sim = scripted(json!({"truncate": {"after_bytes": 40}, "chunked": true, "body": "z".repeat(100)}));
    let (bytes, end) = by_hand(&sim, "a.test", "/x").await;
    let (head, body) = split(&bytes);
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(String::from_utf8_lossy(body), format!("28\r\n{}\r\n", "z".repeat(40)));
    assert!(end.is_ok());
}

#[tokio::test]
async fn a_hanging_request_is_open_until_the_client_leaves_and_then_aborted() {
    for way in WAYS {
        let sim = scripted(json!({"hang": true}));
        let mut client = Client::connect(&sim, "a.test", way).await;
        let answer = tokio::spawn(async move { client.send("GET", "/x", &[], "").await.map(|_| ()) });
        until("counted at its head", || sim.counts().requests == 1).await;
        assert_eq!(sim.counts().open, 1, "{way:?}");
        answer.abort();
        until("marked aborted", || sim.counts().aborted == 1).await;
        assert_eq!(sim.counts().open, 0);
        assert_eq!(sim.counts().rows[0].status, None);
    }
}

#[tokio::test]
async fn a_stalled_body_keeps_the_connection_open_and_silent() {
    let sim = scripted(json!({"stall": {"after_bytes": 3}, "body": "abcdef"}));
    for way in WAYS {
        let mut client = Client::connect(&sim, "a.test", way).await;
        let mut body = client.send("GET", "/x", &[], "").await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, "abc");
        let more = tokio::time::timeout(Duration::from_millis(60), body.frame()).await;
        assert!(more.is_err(), "{way:?}: {more:?}");
    }
}

#[tokio::test]
async fn an_abandoned_stream_is_marked_aborted() {
    for way in WAYS {
        let sim = sim();
        let mut client = Client::connect(&sim, "a.test", way).await;
        let mut body = client.send("GET", "/scenario/endless?every_ms=1", &[], "").await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        assert_eq!(sim.counts().open, 1, "{way:?}");
        drop((body, client));
        until("marked aborted", || sim.counts().aborted == 1).await;
        let counts = sim.counts();
        assert_eq!((counts.open, counts.rows[0].status), (0, Some(200)), "{way:?}");
    }
}

#[tokio::test]
async fn a_drip_comes_in_pieces_with_time_between() {
    let sim = scripted(json!({"drip": {"chunk_bytes": 10, "every_ms": 15}, "body": "d".repeat(45)}));
    for way in WAYS {
        let mut client = Client::connect(&sim, "a.test", way).await;
        let start = Instant::now();
        let response = client.send("GET", "/x", &[], "").await.unwrap();
        assert_eq!(response.headers()["content-length"], "45", "{way:?}");
        let (body, well) = received(response).await;
        assert_eq!((body.len(), well), (45, true), "{way:?}");
        assert!(start.elapsed() >= Duration::from_millis(4 * 15), "{way:?}");
    }
}

#[tokio::test]
async fn gzip_encodes_and_says_so() {
    let sim = scripted(json!({"gzip": true, "body": "hello ".repeat(500)}));
    for way in WAYS {
        let answer = Client::connect(&sim, "a.test", way).await.get("/x").await;
        assert_eq!(answer.headers()["content-encoding"], "gzip");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&answer.body()[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello ".repeat(500), "{way:?}");
        assert!(answer.body().len() < 200);
    }
    let sent = sim.settled_counts(SOON).bytes_out;
    assert!(sent < 4 * 200, "bytes are counted as encoded, not {sent}");
}

#[tokio::test]
async fn a_gzipped_stream_still_arrives_event_by_event() {
    let sim = scripted(json!({"gzip": true}));
    let mut client = Client::connect(&sim, "a.test", Way::Plain1).await;
    let response = client.send("GET", "/scenario/sse?events=3&every_ms=30", &[], "").await.unwrap();
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let mut text = [0; 17];
    flate2::read::GzDecoder::new(&first[..]).read_exact(&mut text).unwrap();
    assert_eq!(&text, b"id: 0\nevent: tick");
}

#[tokio::test]
async fn wrong_heads_are_written_as_they_are() {
    let sim = sim();
    for (wrong, says) in [
        ("bad-content-length", "content-length: banana\r\n"),
        ("negative-content-length", "content-length: -5\r\n"),
        ("two-content-lengths", "content-length: 5\r\ncontent-length: 7\r\n"),
        ("bad-chunk-size", "\r\n\r\nZZ\r\nhello"),
        ("garbage-status", "HTP/9.9 banana ???\r\n\r\n"),
        ("nul-in-header", "x-odd: a\0b\r\n"),
        ("folded-header", "x-odd: one\r\n two\r\n"),
        ("bare-newlines", "HTTP/1.1 200 OK\ncontent-length: 2\n\nok"),
        ("http09", "hello from 1991"),
    ] {
        let (bytes, end) = by_hand(&sim, "a.test", &format!("/scenario/wrong/{wrong}")).await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains(says), "{wrong}: {text}");
        assert!(end.is_ok(), "{wrong}");
    }
    let (bytes, _) = by_hand(&sim, "a.test", "/scenario/wrong/garbage-bytes").await;
    assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
}

#[tokio::test]
async fn odd_header_values_reach_a_client_that_takes_them() {
    let sim = sim();
    for way in [Way::Plain1, Way::Tls1, Way::Tls2] {
        let mut client = Client::connect(&sim, "a.test", way).await;
        let answer = client.get("/scenario/wrong/non-utf8-header").await;
        assert_eq!(answer.headers()["x-odd"].as_bytes(), b"caf\xe9 \xff\xfe", "{way:?}");
        let answer = client.get("/scenario/wrong/nan-limits").await;
        assert_eq!(answer.headers()["x-ratelimit-reset"], "NaN", "{way:?}");
        assert_eq!(answer.headers()["anthropic-ratelimit-requests-reset"], "NaN");
        if way.http1() {
            let answer = client.get("/scenario/wrong/huge-header").await;
            assert_eq!(answer.headers()["x-odd"].len(), 1 << 20, "{way:?}");
            let answer = client.get("/scenario/wrong/many-headers").await;
            assert!(answer.headers().len() > 2_000, "{way:?}");
        }
    }
}

#[tokio::test]
async fn scripted_headers_can_hold_any_bytes_and_replace_framing() {
    let sim = sim();
    sim.script(json!([
        {"match": {"path": "/hex"}, "effect": {"headers": {"x-a": {"hex": "ff 80"}}}},
        {"match": {"path": "/long"}, "effect": {"headers": {"x-a": {"repeat": "ab", "times": 1000}}}},
        {"match": {"path": "/gone"}, "effect": {"headers": {"content-type": null}}},
        {"match": {"path": "/length"}, "effect": {"body": "12345678", "headers": {"content-length": "99"}}},
        {"match": {"path": "/raw"}, "effect": {"raw": "HTTP/1.1 200 OK\r\n\r\nuntil close"}},
        {"match": {"path": "/rawhex"}, "effect": {"raw_hex": "00ff"}},
        {"match": {"path": "/bodyhex"}, "effect": {"status": 200, "body_hex": "00 ff"}},
    ]))
    .unwrap();
    let mut client = Client::connect(&sim, "a.test", Way::Plain1).await;
    assert_eq!(client.get("/hex").await.headers()["x-a"].as_bytes(), [0xff, 0x80]);
    assert_eq!(client.get("/long").await.headers()["x-a"].len(), 2_000);
    assert!(!client.get("/gone").await.headers().contains_key("content-type"));
    let (bytes, _) = by_hand(&sim, "a.test", "/length").await;
    let (head, body) = split(&bytes);
    assert!(head.contains("content-length: 99") && !head.contains("content-length: 8"), "{head}");
    assert_eq!(body, b"12345678");
    let answer = client.get("/bodyhex").await;
    assert_eq!(answer.headers()["content-type"], "application/octet-stream");
    assert_eq!(answer.headers()["content-length"], "2");
    assert_eq!(answer.body().as_ref(), [0, 0xff]);
    assert_eq!(client.get("/raw").await.body(), "until close");
    assert_eq!(by_hand(&sim, "a.test", "/rawhex").await.0, [0, 0xff]);
}

#[tokio::test]
async fn ready_made_scenarios_need_no_script() {
    let sim = sim();
    for way in WAYS {
        let mut client = Client::connect(&sim, "api.stripe.com", way).await;
        for (path, status, length) in [
            ("/scenario/ok", 200, 17),
            ("/scenario/404", 404, 21),
            ("/scenario/500", 500, 26),
            ("/scenario/status/299", 299, 34),
            ("/scenario/redirect", 302, 0),
            ("/scenario/bytes/0", 200, 0),
            ("/scenario/bytes/1", 200, 1),
            ("/scenario/bytes/1000000", 200, 1_000_000),
            ("/scenario/chunked?bytes=1001&chunks=7", 200, 1_001),
            ("/scenario/chunked?bytes=0&chunks=7", 200, 0),
        ] {
            let answer = client.get(path).await;
            let got = (answer.status().as_u16(), answer.body().len());
            assert_eq!(got, (status, length), "{way:?} {path}");
        }
        let hop = client.get("/scenario/redirect/2").await;
        assert_eq!(hop.headers()["location"], "/scenario/redirect/1");
        let last = client.get("/scenario/redirect/0").await;
        assert_eq!(last.headers()["location"], "/scenario/ok");
        let echoed = client.post("/scenario/echo", "ping".repeat(50_000)).await;
        assert_eq!(echoed.body(), &"ping".repeat(50_000), "{way:?}");
        let events = client.get("/scenario/sse?events=2").await;
        let expected = "id: 0\nevent: tick\ndata: {\"n\":0}\n\nid: 1\nevent: tick\ndata: {\"n\":1}\n\n";
        assert_eq!(events.body(), expected, "{way:?}");
        assert_eq!(events.headers()["content-type"], "text/event-stream; charset=utf-8");
        let start = Instant::now();
        client.get("/scenario/slow?ms=40").await;
        assert!(start.elapsed() >= Duration::from_millis(40));
    }
    let (bytes, end) = by_hand(&sim, "a.test", "/scenario/reset-mid-body").await;
    assert_eq!((split(&bytes).1.len(), end.is_err()), (5_000, true));
    let (bytes, end) = by_hand(&sim, "a.test", "/scenario/truncate").await;
    assert_eq!((split(&bytes).1.len(), end.is_ok()), (5_000, true));
    let (bytes, _) = by_hand(&sim, "a.test", "/scenario/garbage").await;
    assert_eq!(bytes, b"HTP/9.9 banana ???\r\n\r\n");
}

#[tokio::test]
async fn chunks_arrive_as_many_as_asked() {
    let sim = sim();
    let mut tcp = TcpStream::connect(sim.plain_addr()).await.unwrap();
    let request = b"GET /scenario/chunked?bytes=50&chunks=5 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    tcp.write_all(request).await.unwrap();
    let mut bytes = Vec::new();
    tcp.read_to_end(&mut bytes).await.unwrap();
    let (head, body) = split(&bytes);
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(String::from_utf8_lossy(body), format!("{}0\r\n\r\n", "A\r\nxxxxxxxxxx\r\n".repeat(5)));
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let sim = sim();
    for way in WAYS {
        let mut client = Client::connect(&sim, "a.test", way).await;
        let answer = whole(client.send("HEAD", "/scenario/bytes/77", &[], "").await.unwrap()).await;
        assert_eq!((answer.body().len(), &answer.headers()["content-length"]), (0, &"77".parse().unwrap()));
        assert_eq!(client.get("/scenario/ok").await.status(), 200, "{way:?}: the connection goes on");
    }
    let counts = sim.counts();
    assert_eq!((counts.aborted, counts.open), (0, 0));
}
