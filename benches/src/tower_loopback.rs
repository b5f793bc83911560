//! The tower stack around a hyper client over loopback, with and without Farcall's layer.

use crate::harness::{Row, in_turns};
use bytes::Bytes;
use farcall_tower::{Egress, EgressLayer, Farcall, Options, RequestBody};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt};

const CALLS: u32 = 2_000;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A server that answers at once, on a thread of its own that ends with the process.
fn serve() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let answer = hyper::service::service_fn(|_| async {
                    Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"{\"ok\":true}"))))
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
    });
    address
}

/// `calls` calls one after the other, each body read to its end.
async fn call<S, B, R>(client: &mut S, uri: &http::Uri, body: impl Fn() -> B, calls: u32) -> Duration
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Error: std::fmt::Debug,
    R: http_body::Body + Unpin,
    R::Error: std::fmt::Debug,
{
    let start = std::time::Instant::now();
    for _ in 0..calls {
        let request = http::Request::get(uri.clone()).body(body()).unwrap();
        let response = client.ready().await.unwrap().call(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    start.elapsed()
}

pub(crate) fn measure() -> Vec<Row> {
    let home = tempfile::tempdir().unwrap();
    let farcall = Farcall::start(Options { home: Some(home.path().into()), ..Options::default() });
    let uri: http::Uri = format!("http://{}/v1/things/42", serve()).parse().unwrap();
    let runtime = runtime();

    let mut bare: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let inner: Client<HttpConnector, RequestBody<Full<Bytes>>> =
        Client::builder(TokioExecutor::new()).build_http();
    let mut watched: Egress<_> = EgressLayer::with(farcall.clone()).layer(inner);

    let (ours, peer) = in_turns(
        CALLS,
        |calls| runtime.block_on(call(&mut watched, &uri, Full::<Bytes>::default, calls)),
        |calls| runtime.block_on(call(&mut bare, &uri, Full::<Bytes>::default, calls)),
    );
    farcall.shutdown();
    vec![Row::less(
        "tower/loopback",
        "us per call, wall",
        ours / 1e3,
        peer / 1e3,
        "the same client without the layer",
    )]
}
