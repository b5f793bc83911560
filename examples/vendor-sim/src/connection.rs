//! Accepting connections and choosing their protocol.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::counts::lock;
use crate::raw;
use crate::service::{Connection, World, serve};
use crate::wire::{Fate, Transport, Wire};

/// How HTTP/2 begins where both sides know (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HANDSHAKE: Duration = Duration::from_secs(30);

/// The two ways of offering TLS: the choice depends on the name in the ClientHello.
#[derive(Debug)]
pub(crate) struct TlsChoice {
    pub(crate) http2: Arc<ServerConfig>,
    pub(crate) http1: Arc<ServerConfig>,
}

/// Accepts for ever. With `tls`, every connection begins with a handshake.
pub(crate) async fn accept(listener: TcpListener, world: Arc<World>, tls: Option<Arc<TlsChoice>>) {
    loop {
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                // Out of descriptors, or the client left the queue: neither ends the listener.
                sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // Latency counts here; a socket that refuses the option still works.
        let _ = tcp.set_nodelay(true);
        let number = world.connections.fetch_add(1, Ordering::Relaxed) + 1;
        world.tallies.connections.fetch_add(1, Ordering::Relaxed);
        let (world, tls) = (Arc::clone(&world), tls.clone());
        tokio::spawn(async move {
            match tls {
                Some(tls) => encrypted(tcp, peer, number, world, &tls).await,
                None => plain(tcp, peer, number, world).await,
            }
        });
    }
}

async fn encrypted(tcp: TcpStream, peer: SocketAddr, number: u64, world: Arc<World>, tls: &TlsChoice) {
    let offers = |name: Option<&str>| name.is_none_or(|n| world.vendors.offers_http2(n));
    let handshake = timeout(HANDSHAKE, async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
        let sni = hello.client_hello().server_name().map(str::to_ascii_lowercase);
        let hello = trouble(hello, sni.as_deref()).await?;
        let config = if offers(sni.as_deref()) { &tls.http2 } else { &tls.http1 };
        let stream = StartHandshake::into_stream(hello, Arc::clone(config)).await?;
        io::Result::Ok((stream, sni))
    });
    let Ok(Ok((stream, sni))) = handshake.await else {
        world.tallies.tls_failures.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let http1 = stream.get_ref().1.alpn_protocol() != Some(b"h2");
    let connection = connection(number, peer, sni, true, http1);
    run(Transport::Tls(Box::new(stream)), Bytes::new(), connection, world).await;
}

/// Hosts named for it get no handshake: `reset-handshake.*` an RST, `hang-handshake.*` silence.
async fn trouble(
    mut hello: StartHandshake<TcpStream>,
    sni: Option<&str>,
) -> io::Result<StartHandshake<TcpStream>> {
    match sni.and_then(|s| s.split('.').next()) {
        Some("reset-handshake") => hello.io.set_zero_linger()?,
        Some("hang-handshake") => {
            let mut sink = [0; 1_024];
            while hello.io.read(&mut sink).await? > 0 {}
        }
        _ => return Ok(hello),
    }
    Err(io::ErrorKind::ConnectionAborted.into())
}

async fn plain(mut tcp: TcpStream, peer: SocketAddr, number: u64, world: Arc<World>) {
    let mut ahead = BytesMut::with_capacity(1_024);
    // Any method but PRI differs from the preface within three bytes.
    while ahead.len() < PREFACE.len() && PREFACE.starts_with(&ahead) {
        match tcp.read_buf(&mut ahead).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
    let http1 = !ahead.starts_with(PREFACE);
    let connection = connection(number, peer, None, false, http1);
    run(Transport::Plain(tcp), ahead.freeze(), connection, world).await;
}

fn connection(number: u64, peer: SocketAddr, sni: Option<String>, tls: bool, http1: bool) -> Connection {
    Connection { number, peer, sni, tls, http1, fate: Arc::new(Fate::default()), takeover: Mutex::default() }
}

async fn run(transport: Transport, ahead: Bytes, connection: Connection, world: Arc<World>) {
    let connection = Arc::new(connection);
    let wire = TokioIo::new(Wire::new(transport, ahead, Arc::clone(&connection.fate)));
    if connection.http1 {
        http1(wire, connection, world).await;
    } else {
        http2(wire, connection, world).await;
    }
}

async fn http1(wire: TokioIo<Wire>, connection: Arc<Connection>, world: Arc<World>) {
    let shared = Arc::clone(&connection);
    let service = service_fn(move |request| serve(Arc::clone(&world), Arc::clone(&shared), request));
    let mut hyper = http1::Builder::new().serve_connection(wire, service);
    let taken = poll_fn(|cx| {
        let polled = Pin::new(&mut hyper).poll(cx);
        // The request ran inside this poll, so its wish is there now or not at all.
        match (lock(&connection.takeover).take(), polled) {
            (Some(takeover), _) => Poll::Ready(Some(takeover)),
            (None, Poll::Ready(_)) => Poll::Ready(None),
            (None, Poll::Pending) => Poll::Pending,
        }
    });
    if let Some(takeover) = taken.await {
        let wire = hyper.into_parts().io.into_inner();
        // A client that is gone already needs no answer; the exchange is marked aborted.
        let _ = raw::play(wire, takeover).await;
    }
}

async fn http2(wire: TokioIo<Wire>, connection: Arc<Connection>, world: Arc<World>) {
    let fate = Arc::clone(&connection.fate);
    let service = service_fn(move |request| serve(Arc::clone(&world), Arc::clone(&connection), request));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(1_000).max_header_list_size(4 << 20);
    let hyper = builder.serve_connection(wire, service);
    tokio::select! {
        // A protocol error of the client ends its connection; its exchanges are marked aborted.
        _ = hyper => {}
        () = fate.killed() => {}
    }
}
