//! The control interface under `/_sim/`, on every host and both listeners; never counted.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::body::SimBody;
use crate::counts::Counts;
use crate::script::dialect::DIALECTS;
use crate::service::World;
use crate::vendors::Ask;

const HELP: &str = "\
POST   /_sim/script             add rules; DELETE removes all, GET lists them with how often they struck
DELETE /_sim/script/{id}        remove one rule
GET    /_sim/counts             totals and rows; ?settled_ms=N waits up to N ms until none is open
DELETE /_sim/counts             forget counts and recorded requests
GET    /_sim/requests           the last requests; ?host=H, ?after=SEQ, ?last=N
GET    /_sim/vendors            vendors, hosts and routes
GET    /_sim/dialects           rate-limit dialects
GET    /_sim/ca.pem             the authority's certificate
GET    /_sim/health             200
";
const MAX_SCRIPT: usize = 32 << 20;
const MAX_WAIT_MS: u64 = 60_000;

/// Answers a control request; `command` is the path behind `/_sim`.
pub(crate) async fn answer(world: &World, command: &str, parts: &Parts, body: Incoming) -> Response<SimBody> {
    let body = match Limited::new(body, MAX_SCRIPT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => return refused(StatusCode::BAD_REQUEST, &e.to_string()),
    };
    let ask = Ask {
        host: "",
        method: &parts.method,
        path: command,
        query: parts.uri.query().unwrap_or_default(),
        headers: &parts.headers,
        body: &body,
    };
    match (&parts.method, command) {
        (&Method::GET, "" | "/") => text(HELP.to_owned(), "text/plain"),
        (&Method::GET, "/health") => json_of(&json!({"ok": true})),
        (&Method::GET, "/ca.pem") => text(world.ca_pem.clone(), "application/x-pem-file"),
        (&Method::GET, "/vendors") => json_of(&world.vendors.list()),
        (&Method::GET, "/dialects") => {
            let list: Vec<_> = DIALECTS.iter().map(|d| json!({"name": d.name, "status": d.status})).collect();
            json_of(&list)
        }
        (&Method::POST, "/script") => add(world, &body),
        (&Method::GET, "/script") => json_of(&world.script.list()),
        (&Method::DELETE, "/script") => json_of(&json!({"removed": world.script.remove(None)})),
        (&Method::DELETE, path) if path.starts_with("/script/") => match path["/script/".len()..].parse() {
            Ok(id) => json_of(&json!({"removed": world.script.remove(Some(id))})),
            Err(_) => refused(StatusCode::BAD_REQUEST, "a rule's id is a number"),
        },
        (&Method::GET, "/counts") => json_of(&settled(world, ask.number("settled_ms", 0)).await),
        (&Method::DELETE, "/counts") => {
            world.tallies.clear();
            world.recorder.clear();
            json_of(&json!({"ok": true}))
        }
        (&Method::GET, "/requests") => {
            let host = ask.query("host");
            let mut requests = world.recorder.last(host.as_deref());
            let after = ask.number("after", 0);
            requests.retain(|r| r.seq > after);
            let last = ask.count("last", requests.len());
            json_of(&requests[requests.len().saturating_sub(last)..])
        }
        _ => refused(StatusCode::NOT_FOUND, &format!("no such command; GET /_sim/ lists them\n{HELP}")),
    }
}

fn add(world: &World, body: &Bytes) -> Response<SimBody> {
    let script = match serde_json::from_slice::<Value>(body) {
        Ok(script) => script,
        Err(e) => return refused(StatusCode::BAD_REQUEST, &format!("not JSON: {e}")),
    };
    match world.script.add(script) {
        Ok(ids) => json_of(&json!({"ids": ids})),
        Err(e) => refused(StatusCode::BAD_REQUEST, &e.to_string()),
    }
}

/// The counts, once no exchange is open or the time is up.
async fn settled(world: &World, within_ms: u64) -> Counts {
    let end = Instant::now() + Duration::from_millis(within_ms.min(MAX_WAIT_MS));
    loop {
        let counts = world.tallies.snapshot();
        if counts.open == 0 || Instant::now() >= end {
            return counts;
        }
        sleep(Duration::from_millis(2)).await;
    }
}

fn json_of<T: Serialize + ?Sized>(value: &T) -> Response<SimBody> {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            text(bytes, "application/json")
        }
        Err(e) => refused(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

fn refused(status: StatusCode, why: &str) -> Response<SimBody> {
    let mut response = text(format!("{}\n", json!({"error": why})), "application/json");
    *response.status_mut() = status;
    response
}

fn text(body: impl Into<Bytes>, content_type: &'static str) -> Response<SimBody> {
    let mut response = Response::new(SimBody::uncounted(body.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
