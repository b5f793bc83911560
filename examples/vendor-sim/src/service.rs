//! One request from its head to its answer.

use std::borrow::Cow;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::sleep;

use crate::answer::{Answer, Content, Ending};
use crate::body::{BrokenOff, SimBody};
use crate::control;
use crate::counts::{Exchange, Key, Tallies, lock};
use crate::raw::Takeover;
use crate::requests::{Head, Recorder};
use crate::scenario;
use crate::script::Script;
use crate::vendors::{Ask, Vendors};
use crate::wire::Fate;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) vendors: Vendors,
    pub(crate) script: Script,
    pub(crate) tallies: Tallies,
    pub(crate) recorder: Recorder,
    pub(crate) connections: AtomicU64,
    pub(crate) max_body: usize,
    pub(crate) ca_pem: String,
}

/// What the requests of one connection share.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) sni: Option<String>,
    pub(crate) tls: bool,
    pub(crate) http1: bool,
    pub(crate) fate: Arc<Fate>,
    /// HTTP/1.1: set by a request that wants the connection for itself.
    pub(crate) takeover: Mutex<Option<Takeover>>,
}

/// Answers one request. Dropping the future is how hyper tells that the client went away.
pub(crate) async fn serve(
    world: Arc<World>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<SimBody>, BrokenOff> {
    let (parts, body) = request.into_parts();
    let host = host(&parts, &connection);
    let path = parts.uri.path();
    if let Some(command) = path.strip_prefix("/_sim") {
        return Ok(control::answer(&world, command, &parts, body).await);
    }
    let mut exchange = begin(&world, &connection, &host, &parts);
    let effect = world.script.strike(&host, parts.method.as_str(), path);
    let body = match receive(body, world.max_body, &mut exchange).await {
        Ok(body) => body,
        // The error ends the connection or stream, of which the client has left anyway.
        Err(Unreceived::Gone) => return Err(BrokenOff),
        Err(Unreceived::TooLong) => {
            let answer = Answer::text(StatusCode::PAYLOAD_TOO_LARGE, "");
            return deliver(answer, exchange, &connection, &parts).await;
        }
    };
    let ask = Ask {
        host: &host,
        method: &parts.method,
        path,
        query: parts.uri.query().unwrap_or_default(),
        headers: &parts.headers,
        body: &body,
    };
    if let Some(effect) = &effect {
        if !effect.latency().is_zero() {
            sleep(effect.latency()).await;
        }
        if effect.hangs() {
            pending::<()>().await;
        }
    }
    let scenario = path.strip_prefix("/scenario/").and_then(|p| scenario::play(p, &ask));
    let answer = match scenario {
        Some((latency, answer)) => {
            if !latency.is_zero() {
                sleep(latency).await;
            }
            answer
        }
        None if effect.as_ref().is_some_and(|e| e.replaces()) => Answer::text(StatusCode::OK, ""),
        None => world.vendors.answer(&ask),
    };
    let answer = match &effect {
        Some(effect) => effect.apply(answer, connection.http1),
        None => answer,
    };
    deliver(answer, exchange, &connection, &parts).await
}

/// The host asked for: `:authority` or the absolute form, else `Host`, else the SNI.
fn host<'a>(parts: &'a Parts, connection: &'a Connection) -> Cow<'a, str> {
    let header = || parts.headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let named = parts.uri.authority().map(|a| a.as_str()).or_else(header);
    let host = match named {
        Some(authority) => {
            let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            match authority.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
                _ => authority,
            }
        }
        None => connection.sni.as_deref().unwrap_or_default(),
    };
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn begin(world: &World, connection: &Connection, host: &str, parts: &Parts) -> Exchange {
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok());
    let peer_hint = match connection.peer.ip() {
        ip if ip == std::net::Ipv4Addr::LOCALHOST => String::new(),
        ip => ip.to_string(),
    };
    let key = Key {
        host,
        method: parts.method.as_str(),
        path: parts.uri.path(),
        user_agent: header("user-agent").unwrap_or_default(),
        client: header("x-sim-client").unwrap_or(&peer_hint),
    };
    let record = world.recorder.record(Head {
        host,
        method: &parts.method,
        uri: &parts.uri,
        version: parts.version,
        headers: &parts.headers,
        tls: connection.tls,
        connection: connection.number,
        peer: connection.peer,
    });
    world.tallies.begin(key, record)
}

enum Unreceived {
    Gone,
    TooLong,
}

async fn receive(mut body: Incoming, max: usize, exchange: &mut Exchange) -> Result<Bytes, Unreceived> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Unreceived::Gone) };
        let Ok(data) = frame.into_data() else { continue };
        exchange.received(data.len() as u64);
        if first.len() + rest.len() + data.len() > max {
            return Err(Unreceived::TooLong);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&data);
        }
    }
    let body = if rest.is_empty() { first } else { rest.freeze() };
    exchange.keep_body(&body);
    Ok(body)
}

/// Hands the answer to hyper, or takes the connection from it where hyper would not send it so.
async fn deliver(
    answer: Answer,
    mut exchange: Exchange,
    connection: &Connection,
    parts: &Parts,
) -> Result<Response<SimBody>, BrokenOff> {
    if answer.ending == Ending::Stall(u64::MAX) {
        pending::<()>().await;
    }
    let by_hand = answer.raw.is_some() || answer.verbatim || answer.ending != Ending::Complete;
    if by_hand && connection.http1 {
        *lock(&connection.takeover) = Some(Takeover { answer, exchange });
        return pending().await;
    }
    if answer.ending == Ending::ResetBeforeHead || answer.raw.is_some() {
        connection.fate.reset();
        return pending().await;
    }
    exchange.answered(answer.status.as_u16());
    let bodiless = parts.method == http::Method::HEAD
        || matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let mut response = Response::new(());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    if bodiless {
        if parts.method == http::Method::HEAD
            && answer.sized
            && let Some(length) = answer.body.len()
        {
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        exchange.settle();
        return Ok(response.map(|()| SimBody::uncounted(Bytes::new())));
    }
    // HTTP/1.0 knows no chunks: there the end of the connection is the end of the body.
    let sized = answer.sized || parts.version == Version::HTTP_10 && matches!(answer.body, Content::Whole(_));
    let body = SimBody::new(answer.body, sized, answer.ending, exchange, Arc::clone(&connection.fate));
    Ok(response.map(|()| body))
}
