//! A small client on hyper and rustls, and another one on bare sockets.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use vendor_sim::{Options, Sim};

/// Nothing in these tests takes this long.
pub const SOON: Duration = Duration::from_secs(60);

pub fn sim() -> Sim {
    Sim::start(Options { threads: 2, ..Options::default() }).unwrap()
}

/// How to reach the simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Plain1,
    Plain2,
    Tls1,
    Tls2,
}

pub const WAYS: [Way; 4] = [Way::Plain1, Way::Plain2, Way::Tls1, Way::Tls2];

impl Way {
    pub fn http1(self) -> bool {
        matches!(self, Self::Plain1 | Self::Tls1)
    }

    fn tls(self) -> bool {
        matches!(self, Self::Tls1 | Self::Tls2)
    }
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// One connection.
pub struct Client {
    sender: Sender,
    host: String,
    scheme: &'static str,
}

pub async fn handshake(
    sim: &Sim,
    host: &str,
    alpn: &[&[u8]],
    version: &'static SupportedProtocolVersion,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(sim.ca_pem().as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let tcp = TcpStream::connect(sim.tls_addr()).await?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

async fn sender<IO>(io: IO, http1: bool) -> Sender
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(io);
    if http1 {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(8 << 20).max_headers(4_000).handshake(io).await.unwrap();
        tokio::spawn(connection);
        Sender::One(sender)
    } else {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(8 << 20)
            .handshake(io)
            .await
            .unwrap();
        tokio::spawn(connection);
        Sender::Two(sender)
    }
}

impl Client {
    pub async fn connect(sim: &Sim, host: &str, way: Way) -> Self {
        let sender = if way.tls() {
            let alpn: &[u8] = if way.http1() { b"http/1.1" } else { b"h2" };
            let tls = handshake(sim, host, &[alpn], &version::TLS13).await.unwrap();
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(alpn));
            sender(tls, way.http1()).await
        } else {
            sender(TcpStream::connect(sim.plain_addr()).await.unwrap(), way.http1()).await
        };
        Self { sender, host: host.to_owned(), scheme: if way.tls() { "https" } else { "http" } }
    }

    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> hyper::Result<Response<Incoming>> {
        let uri = match self.sender {
            Sender::One(_) => path.to_owned(),
            Sender::Two(_) => format!("{}://{}{path}", self.scheme, self.host),
        };
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(uri);
        if matches!(self.sender, Sender::One(_)) {
            request = request.header("host", &self.host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let answered = async {
            match &mut self.sender {
                Sender::One(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Two(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        timeout(SOON, answered).await.expect("no answer in time")
    }

    pub async fn get(&mut self, path: &str) -> Response<Bytes> {
        let response = self.send("GET", path, &[], "").await.unwrap();
        whole(response).await
    }

    pub async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Response<Bytes> {
        let response = self.send("POST", path, &[], body).await.unwrap();
        whole(response).await
    }
}

pub async fn whole(response: Response<Incoming>) -> Response<Bytes> {
    let (parts, body) = response.into_parts();
    let body = timeout(SOON, body.collect()).await.expect("no end in time").unwrap().to_bytes();
    Response::from_parts(parts, body)
}

/// What of the body arrived, and whether it ended well.
pub async fn received(response: Response<Incoming>) -> (Bytes, bool) {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    loop {
        match timeout(SOON, body.frame()).await.expect("no end in time") {
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().unwrap()),
            Some(Err(_)) => return (bytes.into(), false),
            None => return (bytes.into(), true),
        }
    }
}

pub fn json(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

/// Sends a GET by hand and reads until the connection ends: what came, and how it ended.
pub async fn by_hand(sim: &Sim, host: &str, path: &str) -> (Vec<u8>, io::Result<()>) {
    let mut tcp = TcpStream::connect(sim.plain_addr()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let mut piece = [0; 65_536];
    loop {
        match timeout(SOON, tcp.read(&mut piece)).await.expect("no end in time") {
            Ok(0) => return (bytes, Ok(())),
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
            Err(e) => return (bytes, Err(e)),
        }
    }
}

/// Head and body of an answer read by hand.
pub fn split(answer: &[u8]) -> (String, &[u8]) {
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer has a head");
    (String::from_utf8_lossy(&answer[..at]).into_owned(), &answer[at + 4..])
}

/// Waits until the condition holds; fails the test when it never does.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let held = timeout(SOON, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(held.await.is_ok(), "never: {what}");
}
