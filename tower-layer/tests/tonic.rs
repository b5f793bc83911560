//! The layer over tonic's channel, with a hand-written client and a gRPC server that is only HTTP/2 and frames.
#![cfg(feature = "hyper")]
#![allow(clippy::unwrap_used)]

mod support;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use farcall::{ErrorType, Outcome};
use farcall_tower::EgressLayer;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use support::{Ledger, closed, failed};
use tokio_stream::StreamExt;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tower::Layer;

/// Messages that are bytes and nothing more.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// A message in its frame: not compressed, its length, itself.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

/// Answers `Watch` with the messages `one` and `three`, any other method with `one`, then the trailers of success.
async fn answer(
    request: Request<Incoming>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let messages: &[&[u8]] = match request.uri().path().ends_with("/Watch") {
        true => &[b"one", b"three"],
        false => &[b"one"],
    };
    let _ = request.into_body().collect().await;
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    let mut frames: Vec<_> = messages.iter().map(|message| Ok(Frame::data(framed(message)))).collect();
    frames.push(Ok(Frame::trailers(trailers)));
    let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

async fn serve() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(answer);
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// The channel as an application has it, below the layer.
macro_rules! client {
    ($ledger:expr, $uri:expr) => {{
        let channel = Channel::builder($uri.clone()).connect_lazy();
        let layer =
            EgressLayer::with($ledger.farcall.clone()).origin($uri).request_body(tonic::body::Body::new);
        Grpc::new(layer.layer(channel))
    }};
}

fn uri(address: SocketAddr) -> Uri {
    format!("http://{address}").parse().unwrap()
}

#[tokio::test]
async fn a_unary_call_is_counted_with_its_bytes() {
    let ledger = Ledger::new();
    let mut client = client!(ledger, uri(serve().await));
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/pets.Store/Find");
    let response = client.unary(tonic::Request::new(Bytes::from_static(b"hello")), path, Raw).await.unwrap();
    assert_eq!(response.into_inner(), "one");
    let row = ledger.only();
    assert_eq!((row.outcome, row.endpoint.as_ref()), (Outcome::Complete, "POST /pets.Store/Find"));
    assert_eq!((row.sums.bytes_out, row.sums.bytes_in), (5 + 5, 5 + 3));
}

#[tokio::test]
async fn a_stream_of_messages_is_counted_at_its_trailers() {
    let ledger = Ledger::new();
    let mut client = client!(ledger, uri(serve().await));
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/pets.Store/Watch");
    let request = tonic::Request::new(Bytes::from_static(b"hello"));
    let response = client.server_streaming(request, path, Raw).await.unwrap();
    assert!(ledger.rows().is_empty(), "the head is not the end");
    let messages: Vec<_> = response.into_inner().map(|message| message.unwrap()).collect().await;
    assert_eq!(messages, ["one", "three"]);
    let row = ledger.only();
    assert_eq!((row.endpoint.as_ref(), row.status), ("POST /pets.Store/Watch", 200));
    assert_eq!((row.outcome, row.vendor.as_ref()), (Outcome::Complete, "127.0.0.1"));
    assert_eq!((row.sums.bytes_out, row.sums.bytes_in), (5 + 5, 5 + 3 + 5 + 5));
}

#[tokio::test]
async fn a_stream_that_is_let_go_of_is_abandoned() {
    let ledger = Ledger::new();
    let mut client = client!(ledger, uri(serve().await));
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/pets.Store/Watch");
    let asked = tokio_stream::iter([Bytes::from_static(b"a"), Bytes::from_static(b"bc")]);
    let response = client.streaming(tonic::Request::new(asked), path, Raw).await.unwrap();
    let mut messages = response.into_inner();
    assert_eq!(messages.next().await.unwrap().unwrap(), "one");
    drop(messages);
    let row = ledger.only();
    assert_eq!((row.outcome, row.sums.bytes_out), (Outcome::Abandoned, 5 + 1 + 5 + 2));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_failed_call_of_type_connect() {
    let ledger = Ledger::new();
    let (_held, nobody) = closed();
    let mut client = client!(ledger, uri(nobody));
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/pets.Store/Find");
    let status = client.unary(tonic::Request::new(Bytes::from_static(b"x")), path, Raw).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let row = ledger.only();
    assert_eq!((row.outcome, row.sums.bytes_out), (failed(ErrorType::Connect), 0));
}
