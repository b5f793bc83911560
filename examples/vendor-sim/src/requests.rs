//! The last requests, as they were on the wire.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method, Uri, Version};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::counts::lock;

const RINGS: usize = 8;

/// One recorded request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Position in the order in which heads were parsed, from 1; never reused.
    pub seq: u64,
    /// Milliseconds since the Unix epoch at which the head was parsed.
    pub at_ms: u64,
    /// Host asked for, lower case, without port.
    pub host: String,
    /// Request method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Query without `?`; empty when there was none.
    pub query: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Came through TLS.
    pub tls: bool,
    /// The connection it came on, numbered from 1 in order of acceptance.
    pub connection: u64,
    /// Address of the client.
    pub peer: String,
    /// Headers, names in lower case, repeated names side by side; bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// Request body bytes received.
    pub body_length: u64,
    /// The first bytes of the request body, lossily as text.
    pub body: String,
    /// Status sent; `None` before a head was sent.
    pub status: Option<u16>,
    /// Response body bytes sent.
    pub bytes_out: u64,
    /// Settled or aborted.
    pub ended: bool,
    /// Ended before the answer was complete.
    pub aborted: bool,
}

impl Recorded {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// A request as kept while it may still be under way.
#[derive(Debug)]
pub(crate) struct Record {
    seq: u64,
    at_ms: u64,
    host: String,
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    tls: bool,
    connection: u64,
    peer: std::net::SocketAddr,
    body_head: usize,
    late: Mutex<Late>,
}

#[derive(Debug, Default)]
struct Late {
    body: Box<[u8]>,
    status: u16,
    ended: bool,
    aborted: bool,
    bytes_in: u64,
    bytes_out: u64,
}

/// What a record is made of, borrowed from the request.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) host: &'a str,
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) version: Version,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) tls: bool,
    pub(crate) connection: u64,
    pub(crate) peer: std::net::SocketAddr,
}

impl Record {
    pub(crate) fn keep_body(&self, body: &[u8]) {
        lock(&self.late).body = body[..body.len().min(self.body_head)].into();
    }

    pub(crate) fn end(&self, status: u16, aborted: bool, bytes_in: u64, bytes_out: u64) {
        let mut late = lock(&self.late);
        let body = std::mem::take(&mut late.body);
        *late = Late { body, status, ended: true, aborted, bytes_in, bytes_out };
    }

    fn read(&self) -> Recorded {
        let late = lock(&self.late);
        let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
        Recorded {
            seq: self.seq,
            at_ms: self.at_ms,
            host: self.host.clone(),
            method: self.method.to_string(),
            path: self.uri.path().to_owned(),
            query: self.uri.query().unwrap_or_default().to_owned(),
            version: format!("{:?}", self.version),
            tls: self.tls,
            connection: self.connection,
            peer: self.peer.to_string(),
            headers: self.headers.iter().map(|(n, v)| (n.to_string(), text(v))).collect(),
            body_length: late.bytes_in,
            body: String::from_utf8_lossy(&late.body).into_owned(),
            status: (late.status != 0).then_some(late.status),
            bytes_out: late.bytes_out,
            ended: late.ended,
            aborted: late.aborted,
        }
    }
}

/// A bounded ring of the last requests, spread over several locks.
#[derive(Debug)]
pub(crate) struct Recorder {
    next: AtomicU64,
    /// Rings take turns by sequence number, so that together they hold exactly the last ones.
    rings: [Mutex<VecDeque<Arc<Record>>>; RINGS],
    each: usize,
    body_head: usize,
}

impl Recorder {
    /// Keeps the last `keep` requests (rounded up) and the first `body_head` bytes of each body.
    pub(crate) fn new(keep: usize, body_head: usize) -> Self {
        Self { next: AtomicU64::new(1), rings: Default::default(), each: keep.div_ceil(RINGS), body_head }
    }

    pub(crate) fn record(&self, head: Head<'_>) -> Option<Arc<Record>> {
        if self.each == 0 {
            return None;
        }
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        let record = Arc::new(Record {
            seq,
            at_ms: clock::now().as_millis() as u64,
            host: head.host.to_owned(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers: head.headers.clone(),
            tls: head.tls,
            connection: head.connection,
            peer: head.peer,
            body_head: self.body_head,
            late: Mutex::default(),
        });
        let mut ring = lock(&self.rings[seq as usize % RINGS]);
        if ring.len() == self.each {
            ring.pop_front();
        }
        ring.push_back(Arc::clone(&record));
        Some(record)
    }

    pub(crate) fn clear(&self) {
        for ring in &self.rings {
            lock(ring).clear();
        }
    }

    /// The recorded requests in order, of one host or of all.
    pub(crate) fn last(&self, host: Option<&str>) -> Vec<Recorded> {
        let mut all: Vec<_> =
            self.rings.iter().flat_map(|r| lock(r).iter().cloned().collect::<Vec<_>>()).collect();
        all.retain(|r| host.is_none_or(|h| r.host == h));
        all.sort_by_key(|r| r.seq);
        all.iter().map(|r| r.read()).collect()
    }
}
