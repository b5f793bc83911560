//! Answers that are kept, through the layer and through reqwest.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use farcall::Outcome;
use farcall_agent::report;
use farcall_tower::{Egress, EgressLayer, Farcall, Options, customer};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tower::{Layer, Service, ServiceExt, service_fn};

struct Kept {
    farcall: Farcall,
    home: TempDir,
}

/// A handle with this rule of the cache for all calls.
fn keeping(keys: &str) -> Kept {
    let home = tempfile::tempdir().unwrap();
    let rules = format!("[[cache]]\nname = \"all\"\nmatch = {{}}\n{keys}\n");
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
    Kept { farcall: Farcall::start(options), home }
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("https://api.example.com/v1/rates?base=EUR").body(Empty::new()).unwrap()
}

async fn text<B: Body<Data = Bytes>>(response: Response<B>) -> String {
    let Ok(body) = response.into_body().collect().await else { panic!("the body ends") };
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_second_call_is_answered_without_the_vendor_and_told_of() {
    let Kept { farcall, home } = keeping("ttl = \"1h\"");
    let asked = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&asked);
    let vendor = service_fn(move |request: Request<_>| {
        let number = seen.fetch_add(1, Ordering::Relaxed);
        drop(request);
        let answer = Response::builder().header("x-id", number).body(Full::<Bytes>::from("rates")).unwrap();
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut client = Egress::<_>::with(farcall.clone(), vendor);
    for call in 0..3 {
        let response = customer("acme").scope(client.ready().await.unwrap().call(get())).await.unwrap();
        assert_eq!(
            (response.status(), response.headers()["x-id"].to_str().unwrap()),
            (http::StatusCode::OK, "0")
        );
        assert_eq!(response.headers().contains_key("cache-status"), call > 0);
        assert_eq!(text(response).await, "rates");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    farcall.shutdown();
    let query = report::Query::at(home.path());
    let customers = report::customers(&query).unwrap();
    let numbers = &customers.rows[0].numbers;
    assert_eq!((numbers.calls, numbers.attempts, numbers.cached, numbers.stale), (3, 1, 2, 0));
    assert_eq!((numbers.bytes_in, numbers.saved_bytes, numbers.errors), (5, 10, 0));
    assert_eq!((numbers.saved_requests, numbers.saved_tokens), (2, 0));
    let calls = report::calls(&query).unwrap();
    let told: Vec<&str> = calls
        .rows
        .iter()
        .flat_map(|row| row.events.iter().filter_map(|event| Some(event.split_once("  ")?.1)))
        .collect();
    assert!(told.contains(&"cache `all`: farcall; fwd=uri-miss; stored"), "{told:?}");
    assert!(told.iter().any(|event| event.starts_with("cache `all`: farcall; hit; ttl=3")), "{told:?}");
}

#[tokio::test]
async fn a_purge_through_the_ledger_makes_it_forget_what_matches() {
    let Kept { farcall, home } = keeping("ttl = \"1h\"");
    let asked = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&asked);
    let vendor = service_fn(move |_: Request<_>| {
        seen.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("rates"))) }
    });
    let client = Egress::<_>::with(farcall.clone(), vendor);
    let call = |name: &'static str| {
        let client = client.clone();
        async move { text(customer(name).scope(client.oneshot(get())).await.unwrap()).await }
    };
    for name in ["acme", "globex", "acme", "globex"] {
        assert_eq!(call(name).await, "rates");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    farcall.flush();
    let which = [("customer".to_owned(), "acme".to_owned())];
    assert_eq!(farcall_agent::purge_cache(home.path(), &which).unwrap(), 1, "one program is told");
    farcall.flush();
    call("globex").await;
    assert_eq!(asked.load(Ordering::Relaxed), 2, "what does not match stays");
    call("acme").await;
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    assert!(farcall.counters().contains(&("purged_answers".to_owned(), 1)));
    let why = farcall_agent::purge_cache(home.path(), &[("status".into(), "200".into())]).unwrap_err();
    assert!(why.to_string().contains("not by `status`"), "{why}");
    let why = farcall_agent::purge_cache(home.path(), &[("host".into(), "a".into())]).unwrap_err();
    assert!(why.to_string().contains("not by `host`"), "{why}");
}

#[tokio::test]
async fn a_stampede_asks_once_even_where_leaders_are_cancelled() {
    const CALLS: usize = 1_000;
    let Kept { farcall, .. } = keeping("ttl = \"1h\"\ncoalesce = \"60s\"");
    let asked = Arc::new(AtomicU32::new(0));
    let (seen, open) = (Arc::clone(&asked), Arc::new(tokio::sync::Semaphore::new(0)));
    let gate = Arc::clone(&open);
    let vendor = service_fn(move |request: Request<_>| {
        let number = seen.fetch_add(1, Ordering::Relaxed);
        let gate = Arc::clone(&gate);
        drop(request);
        async move {
            if number == 0 {
                // The first one never gets an answer.
                std::future::pending::<()>().await;
            }
            let _open = gate.acquire().await.unwrap();
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("rates")))
        }
    });
    let client = Egress::<_>::with(farcall.clone(), vendor);
    let mut calls = tokio::task::JoinSet::new();
    let first = tokio::spawn(client.clone().oneshot(get()));
    while asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..CALLS {
        let client = client.clone();
        calls.spawn(async move { text(client.oneshot(get()).await.unwrap()).await });
    }
    tokio::task::yield_now().await;
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    while asked.load(Ordering::Relaxed) == 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    open.add_permits(CALLS);
    let got = calls.join_all().await;
    assert!(got.iter().all(|body| body == "rates") && got.len() == CALLS);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let rows = farcall.engine().drain(farcall.now()).rows;
    let cached: u64 =
        rows.iter().filter(|row| row.outcome == Outcome::Cached).map(|row| row.sums.calls).sum();
    assert_eq!(cached, CALLS as u64 - 1);
}

#[tokio::test]
async fn a_stream_passes_piece_by_piece_and_is_not_kept() {
    for (kind, keys) in
        [("text/event-stream", "ttl = \"1h\""), ("text/plain", "ttl = \"1h\"\nmax_bytes = \"1B\"")]
    {
        let Kept { farcall, .. } = keeping(keys);
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let vendor = service_fn(move |_: Request<_>| {
            let (body, channel) = Channel::<Bytes, Infallible>::new(1);
            let mut response = Response::new(channel);
            response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
            sender.send(body).unwrap();
            async move { Ok::<_, Infallible>(response) }
        });
        let mut receiver = receiver;
        let mut client = Egress::<_>::with(farcall.clone(), vendor);
        for _ in 0..2 {
            let response = client.ready().await.unwrap().call(get()).await.unwrap();
            let mut body = response.into_body();
            let mut vendor = receiver.recv().await.expect("the vendor is asked each time");
            for piece in ["data: 1\n\n", "data: 2\n\n"] {
                vendor.send(Frame::data(piece.into())).await.unwrap();
                let frame = body.frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), piece);
            }
            drop(vendor);
            assert!(body.frame().await.is_none());
        }
    }
}

#[tokio::test]
async fn an_answer_that_the_application_lets_go_of_is_not_kept() {
    let Kept { farcall, .. } = keeping("ttl = \"1h\"");
    let asked = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&asked);
    let vendor = service_fn(move |_: Request<_>| {
        seen.fetch_add(1, Ordering::Relaxed);
        let (mut body, channel) = Channel::<Bytes, Infallible>::new(2);
        tokio::spawn(async move {
            let _ = body.send(Frame::data("half ".into())).await;
            let _ = body.send(Frame::data("and half".into())).await;
        });
        async move { Ok::<_, Infallible>(Response::new(channel)) }
    });
    let mut client = Egress::<_>::with(farcall.clone(), vendor);
    let mut half = client.ready().await.unwrap().call(get()).await.unwrap().into_body();
    assert_eq!(half.frame().await.unwrap().unwrap().into_data().unwrap(), "half ");
    drop(half);
    for _ in 0..2 {
        let response = client.ready().await.unwrap().call(get()).await.unwrap();
        assert_eq!(text(response).await, "half and half");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_stale_answer_is_asked_about_beside_the_call_where_there_is_a_client_for_that() {
    let Kept { farcall, .. } = keeping("ttl = \"1ms\"\nstale_while_revalidate = \"1h\"");
    let (asked, open) = (Arc::new(AtomicU32::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
    let (seen, gate) = (Arc::clone(&asked), Arc::clone(&open));
    let beside = service_fn(move |_: Request<Empty<Bytes>>| {
        let (number, gate) = (seen.fetch_add(1, Ordering::Relaxed), Arc::clone(&gate));
        async move {
            let _open = gate.acquire().await.unwrap();
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(format!("answer {number}"))))
        }
    });
    let seen = Arc::clone(&asked);
    let vendor = service_fn(move |_: Request<_>| {
        let number = seen.fetch_add(1, Ordering::Relaxed);
        async move { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(format!("answer {number}")))) }
    });
    let layer = EgressLayer::<_, _>::with(farcall.clone()).refreshes_through(beside);
    let client = layer.layer(vendor);
    let call = || {
        let client = client.clone();
        async move { text(client.oneshot(get()).await.unwrap()).await }
    };
    assert_eq!(call().await, "answer 0");
    // Stale after a millisecond: nobody waits for the vendor, who does not answer.
    while asked.load(Ordering::Relaxed) == 1 {
        assert_eq!(call().await, "answer 0");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(call().await, "answer 0");
    open.add_permits(1_000);
    loop {
        match call().await.as_str() {
            "answer 0" => tokio::time::sleep(Duration::from_millis(1)).await,
            other => break assert_eq!(other, "answer 1"),
        }
    }
}

#[tokio::test]
async fn a_long_answer_is_refreshed_beside_the_call_as_a_short_one_is() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 6;
    let Kept { farcall, .. } =
        keeping("ttl = \"1ms\"\nstale_while_revalidate = \"1h\"\nmax_bytes = \"16MiB\"");
    let asked = Arc::new(AtomicU32::new(0));
    let vendor = |asked: &Arc<AtomicU32>| {
        let seen = Arc::clone(asked);
        move |_: ()| {
            let letter = b'a' + u8::try_from(seen.fetch_add(1, Ordering::Relaxed)).unwrap();
            let piece = move |_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![letter; PIECE])));
            let pieces = (0..PIECES).map(piece);
            let body = StreamBody::new(tokio_stream::iter(pieces));
            std::future::ready(Ok::<_, Infallible>(Response::new(body)))
        }
    };
    let beside = service_fn(vendor(&asked)).map_request(|_: Request<Empty<Bytes>>| ());
    let client = service_fn(vendor(&asked)).map_request(|_: Request<_>| ());
    let layer = EgressLayer::<_, _>::with(farcall.clone()).refreshes_through(beside);
    let client = layer.layer(client);
    let call = || {
        let client = client.clone();
        async move {
            let body = client.oneshot(get()).await.unwrap().into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), PIECES * PIECE);
            body[0]
        }
    };
    assert_eq!(call().await, b'a');
    loop {
        match call().await {
            b'a' => tokio::time::sleep(Duration::from_millis(1)).await,
            other => break assert_eq!(other, b'b', "nobody waited for the vendor"),
        }
    }
}

type Sent = Request<farcall_tower::RequestBody<Empty<Bytes>>>;
type Answered = std::future::Ready<Result<Response<Full<Bytes>>, Infallible>>;

/// A vendor who answers with the token that was sent, and what asks him with one that the application does not see.
fn with_token(
    token: &'static str,
    asked: &Arc<AtomicU32>,
) -> impl Service<Sent, Response = Response<Full<Bytes>>, Error = Infallible, Future = Answered> + Clone {
    let asked = Arc::clone(asked);
    service_fn(move |request: Sent| {
        asked.fetch_add(1, Ordering::Relaxed);
        let seen: &http::HeaderValue = &request.headers()["authorization"];
        std::future::ready(Ok(Response::new(Full::from(Bytes::copy_from_slice(seen.as_bytes())))))
    })
    .map_request(move |mut request: Sent| {
        request.headers_mut().insert("authorization", http::HeaderValue::from_static(token));
        request
    })
}

#[tokio::test]
async fn what_a_service_below_the_layer_adds_keeps_answers_apart_and_a_name_joins_them() {
    let Kept { farcall, .. } = keeping("ttl = \"1h\"");
    let asked = Arc::new(AtomicU32::new(0));
    let layer = EgressLayer::<_>::with(farcall.clone());
    let (alice, bob) = (layer.layer(with_token("alice", &asked)), layer.layer(with_token("bob", &asked)));
    for _ in 0..2 {
        assert_eq!(text(alice.clone().oneshot(get()).await.unwrap()).await, "alice");
        assert_eq!(text(bob.clone().oneshot(get()).await.unwrap()).await, "bob");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2, "clones of one have the same answers");

    let layer = layer.client_name("carol");
    for _ in 0..2 {
        // Made anew each time, as for each request.
        let carol = layer.clone().layer(with_token("carol", &asked));
        assert_eq!(text(carol.oneshot(get()).await.unwrap()).await, "carol");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3, "all of one name have the same answers");
    let dave = layer.client_name("dave").layer(with_token("dave", &asked));
    assert_eq!(text(dave.oneshot(get()).await.unwrap()).await, "dave");
}

#[cfg(feature = "reqwest")]
mod reqwest {
    use super::{Kept, keeping};
    use farcall_tower::reqwest::EgressMiddleware;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    /// The heads of the requests that an origin got.
    type Got = Arc<Mutex<Vec<String>>>;

    /// An origin that answers by path, one request a connection.
    async fn origin() -> (String, Got) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = format!("http://{}", listener.local_addr().unwrap());
        let seen = Got::default();
        let got = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.unwrap() > 0 {}
                    let answer = answer_to(&head.to_ascii_lowercase());
                    seen.lock().unwrap().push(head);
                    let _ = stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        (place, got)
    }

    fn answer_to(head: &str) -> String {
        let path = head.split(' ').nth(1).unwrap();
        match path {
            "/tagged" if head.contains("if-none-match: \"v1\"") => {
                "304 Not Modified\r\netag: \"v1\"\r\ncache-control: max-age=60\r\nconnection: close\r\n\r\n".into()
            }
            "/tagged" => "200 OK\r\netag: \"v1\"\r\ncache-control: no-cache\r\ncontent-length: 6\r\nconnection: close\r\n\r\ntagged".into(),
            "/moved" => "302 Found\r\nlocation: /fresh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into(),
            _ => "200 OK\r\ncache-control: max-age=60\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 5\r\nconnection: close\r\n\r\nfresh".into(),
        }
    }

    fn client(kept: &Kept) -> reqwest_middleware::ClientWithMiddleware {
        // Installed already where another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = ::reqwest::Client::builder().build().unwrap();
        reqwest_middleware::ClientBuilder::new(client)
            .with(EgressMiddleware::with(kept.farcall.clone()))
            .build()
    }

    #[tokio::test]
    async fn fresh_answers_come_from_memory_and_stale_ones_are_asked_about() {
        let kept = keeping("");
        let (place, got) = origin().await;
        let client = client(&kept);
        for call in 0..3 {
            let response = client.get(format!("{place}/fresh")).send().await.unwrap();
            assert_eq!(response.url().path(), "/fresh");
            let twice: Vec<_> =
                response.headers().get_all("x-a").iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(twice, ["1", "2"]);
            assert_eq!(response.headers().contains_key("age"), call > 0);
            assert_eq!(response.text().await.unwrap(), "fresh");
        }
        assert_eq!(got.lock().unwrap().len(), 1);
        for _ in 0..3 {
            let response = client.get(format!("{place}/tagged")).send().await.unwrap();
            assert_eq!(
                (response.status().as_u16(), response.text().await.unwrap().as_str()),
                (200, "tagged")
            );
        }
        let heads = got.lock().unwrap().clone();
        assert_eq!(heads.len(), 3, "the second was confirmed for a minute: {heads:?}");
        assert!(heads[2].to_ascii_lowercase().contains("if-none-match: \"v1\""), "{heads:?}");
    }

    #[tokio::test]
    async fn clients_do_not_share_answers_since_reqwest_adds_credentials_unseen() {
        let kept = keeping("ttl = \"1h\"");
        let (place, got) = origin().await;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let middleware = EgressMiddleware::with(kept.farcall.clone());
        for key in ["Bearer a", "Bearer b"] {
            let headers = [(http::header::AUTHORIZATION, key.parse().unwrap())].into_iter().collect();
            let client = ::reqwest::Client::builder().default_headers(headers).build().unwrap();
            let client = reqwest_middleware::ClientBuilder::new(client).with(middleware.clone()).build();
            for _ in 0..2 {
                let response = client.get(format!("{place}/fresh")).send().await.unwrap();
                assert_eq!(response.text().await.unwrap(), "fresh");
            }
        }
        let heads = got.lock().unwrap().clone();
        assert!(heads.len() == 2 && heads[1].contains("Bearer b"), "{heads:?}");
    }

    #[tokio::test]
    async fn what_reqwest_followed_elsewhere_is_not_kept_as_the_answer_to_what_was_asked() {
        let kept = keeping("ttl = \"1h\"");
        let (place, got) = origin().await;
        let client = client(&kept);
        for _ in 0..2 {
            let response = client.get(format!("{place}/moved")).send().await.unwrap();
            assert_eq!(response.url().path(), "/fresh");
            assert_eq!(response.text().await.unwrap(), "fresh");
        }
        assert_eq!(got.lock().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn a_vendor_that_is_down_is_stood_in_for() {
        let kept = keeping("stale_if_error = \"1h\"\nttl = \"1ms\"");
        let client = client(&kept);
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = dead.local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}/fresh");
        let serve = tokio::spawn(async move {
            let (stream, _) = dead.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.unwrap() > 0 {}
            stream.write_all(format!("HTTP/1.1 {}", answer_to("get /fresh ")).as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            // Held on to, so that nobody else answers here.
            while let Ok((stream, _)) = dead.accept().await {
                drop(stream);
            }
        });
        assert_eq!(client.get(&url).send().await.unwrap().text().await.unwrap(), "fresh");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let response = client.get(&url).send().await.unwrap();
        let why = response.headers()["cache-status"].to_str().unwrap().to_owned();
        assert!(
            why.starts_with("farcall; fwd=stale; ttl=") && why.ends_with("detail=stale-if-error"),
            "{why}"
        );
        assert_eq!(response.text().await.unwrap(), "fresh");
        serve.abort();
    }
}
