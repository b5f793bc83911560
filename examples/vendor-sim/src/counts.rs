//! Who asked for what, how often, and how it ended.
//!
//! A request counts the moment its head was parsed; it settles with a status when its last body
//! byte was handed to the transport, or as aborted. Keys are bounded: what comes after the cap is
//! folded into `(other)`, so that totals stay exact.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::requests::Record;

const SHARDS: usize = 16;
const MAX_KEYS: usize = 20_000;
const OTHER: &str = "(other)";

/// Totals since the start or the last `DELETE /_sim/counts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests whose head was parsed.
    pub requests: u64,
    /// Of these, the ones still under way.
    pub open: u64,
    /// Of these, the ones that ended before the answer was complete, whoever ended them.
    pub aborted: u64,
    /// Request body bytes received (content, without HTTP framing).
    pub bytes_in: u64,
    /// Response body bytes sent (content as encoded, without HTTP framing).
    pub bytes_out: u64,
    /// Connections accepted, control connections included.
    pub connections: u64,
    /// TLS handshakes that failed.
    pub tls_failures: u64,
    /// One row for each (host, method, path, status, aborted).
    pub rows: Vec<CountRow>,
    /// Totals for each host.
    pub by_host: Vec<GroupRow>,
    /// Totals for each (host, `user-agent`).
    pub by_user_agent: Vec<GroupRow>,
    /// Totals for each (host, client hint): the header `x-sim-client`, else the peer's address
    /// where it is not 127.0.0.1, else empty.
    pub by_client: Vec<GroupRow>,
}

/// Requests for one path that ended alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountRow {
    /// Host asked for, lower case, without port.
    pub host: String,
    /// Request method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Status sent; `None` while the exchange is under way or when it ended before a head was sent.
    pub status: Option<u16>,
    /// Ended before the answer was complete.
    pub aborted: bool,
    /// Still under way.
    pub open: bool,
    /// How many.
    pub count: u64,
    /// Request body bytes.
    pub bytes_in: u64,
    /// Response body bytes.
    pub bytes_out: u64,
}

/// Requests grouped by host and one more word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Host asked for.
    pub host: String,
    /// The user agent or client hint; empty in `by_host`.
    pub key: String,
    /// How many.
    pub count: u64,
    /// Of these, aborted.
    pub aborted: u64,
    /// Request body bytes.
    pub bytes_in: u64,
    /// Response body bytes.
    pub bytes_out: u64,
}

impl Counts {
    /// Requests to `host`, on any path, whatever became of them.
    pub fn requests_to(&self, host: &str) -> u64 {
        self.by_host.iter().filter(|g| g.host == host).map(|g| g.count).sum()
    }

    /// Requests to `path` on `host`, whatever became of them.
    pub fn requests_for(&self, host: &str, path: &str) -> u64 {
        self.rows.iter().filter(|r| r.host == host && r.path == path).map(|r| r.count).sum()
    }
}

/// The words that name one tally.
#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
pub(crate) struct Key<'a> {
    pub(crate) host: &'a str,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) user_agent: &'a str,
    pub(crate) client: &'a str,
}

/// All tallies.
#[derive(Debug)]
pub(crate) struct Tallies {
    hasher: RandomState,
    shards: [Mutex<HashMap<u64, Vec<Arc<Tally>>>>; SHARDS],
    keys: AtomicUsize,
    pub(crate) connections: AtomicU64,
    pub(crate) tls_failures: AtomicU64,
}

#[derive(Debug)]
struct Tally {
    host: String,
    method: String,
    path: String,
    user_agent: String,
    client: String,
    started: AtomicU64,
    ended: Mutex<Vec<Ended>>,
}

#[derive(Debug, Clone, Copy)]
struct Ended {
    status: u16,
    aborted: bool,
    count: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Tally {
    fn key(&self) -> Key<'_> {
        Key {
            host: &self.host,
            method: &self.method,
            path: &self.path,
            user_agent: &self.user_agent,
            client: &self.client,
        }
    }
}

impl Tallies {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: Default::default(),
            keys: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
            tls_failures: AtomicU64::new(0),
        }
    }

    /// Counts a request whose head was just parsed.
    pub(crate) fn begin(&self, key: Key<'_>, record: Option<Arc<Record>>) -> Exchange {
        let tally = self.tally(key);
        tally.started.fetch_add(1, Ordering::Relaxed);
        Exchange { tally, record, status: 0, bytes_in: 0, bytes_out: 0, settled: false }
    }

    fn tally(&self, key: Key<'_>) -> Arc<Tally> {
        let hash = self.hasher.hash_one(key);
        let mut shard = lock(&self.shards[hash as usize % SHARDS]);
        if let Some(found) = shard.get(&hash).and_then(|b| b.iter().find(|t| t.key() == key)) {
            return Arc::clone(found);
        }
        if self.keys.load(Ordering::Relaxed) >= MAX_KEYS && key.path != OTHER {
            drop(shard);
            return self.tally(Key {
                path: OTHER,
                method: OTHER,
                user_agent: OTHER,
                client: OTHER,
                host: OTHER,
            });
        }
        self.keys.fetch_add(1, Ordering::Relaxed);
        let tally = Arc::new(Tally {
            host: key.host.to_owned(),
            method: key.method.to_owned(),
            path: key.path.to_owned(),
            user_agent: key.user_agent.to_owned(),
            client: key.client.to_owned(),
            started: AtomicU64::new(0),
            ended: Mutex::default(),
        });
        shard.entry(hash).or_default().push(Arc::clone(&tally));
        tally
    }

    /// Forgets all; exchanges under way settle nowhere.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            lock(shard).clear();
        }
        self.keys.store(0, Ordering::Relaxed);
        self.connections.store(0, Ordering::Relaxed);
        self.tls_failures.store(0, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Counts {
        let mut counts = Counts {
            connections: self.connections.load(Ordering::Relaxed),
            tls_failures: self.tls_failures.load(Ordering::Relaxed),
            ..Counts::default()
        };
        let mut rows = BTreeMap::new();
        let mut groups: [BTreeMap<(String, String), GroupRow>; 3] = Default::default();
        for shard in &self.shards {
            let tallies: Vec<_> = lock(shard).values().flatten().cloned().collect();
            for tally in tallies {
                add(&tally, &mut counts, &mut rows, &mut groups);
            }
        }
        counts.rows = rows.into_values().collect();
        let [by_host, by_user_agent, by_client] = groups.map(|g| g.into_values().collect());
        (counts.by_host, counts.by_user_agent, counts.by_client) = (by_host, by_user_agent, by_client);
        counts
    }
}

type Rows = BTreeMap<(String, String, String, Option<u16>, bool, bool), CountRow>;

fn add(
    tally: &Tally,
    counts: &mut Counts,
    rows: &mut Rows,
    groups: &mut [BTreeMap<(String, String), GroupRow>; 3],
) {
    // Ended first: a request that settles meanwhile shows as open, never as settled twice.
    let ended = lock(&tally.ended).clone();
    let started = tally.started.load(Ordering::Relaxed);
    let settled: u64 = ended.iter().map(|e| e.count).sum();
    let open = started.saturating_sub(settled);
    let under_way = Ended { status: 0, aborted: false, count: open, bytes_in: 0, bytes_out: 0 };
    let all = ended.iter().map(|e| (e, false)).chain((open > 0).then_some((&under_way, true)));
    for (e, open) in all {
        counts.requests += e.count;
        counts.open += if open { e.count } else { 0 };
        counts.aborted += if e.aborted { e.count } else { 0 };
        counts.bytes_in += e.bytes_in;
        counts.bytes_out += e.bytes_out;
        let status = (e.status != 0).then_some(e.status);
        let key = (tally.host.clone(), tally.path.clone(), tally.method.clone(), status, e.aborted, open);
        let row = rows.entry(key).or_insert_with(|| CountRow {
            host: tally.host.clone(),
            method: tally.method.clone(),
            path: tally.path.clone(),
            status,
            aborted: e.aborted,
            open,
            ..CountRow::default()
        });
        row.count += e.count;
        row.bytes_in += e.bytes_in;
        row.bytes_out += e.bytes_out;
        for (group, word) in groups.iter_mut().zip(["", &tally.user_agent, &tally.client]) {
            let row = group.entry((tally.host.clone(), word.to_owned())).or_insert_with(|| GroupRow {
                host: tally.host.clone(),
                key: word.to_owned(),
                ..GroupRow::default()
            });
            row.count += e.count;
            row.aborted += if e.aborted { e.count } else { 0 };
            row.bytes_in += e.bytes_in;
            row.bytes_out += e.bytes_out;
        }
    }
}

/// One request under way. Dropped before [`Exchange::settle`], it counts as aborted.
#[derive(Debug)]
pub(crate) struct Exchange {
    tally: Arc<Tally>,
    record: Option<Arc<Record>>,
    status: u16,
    bytes_in: u64,
    bytes_out: u64,
    settled: bool,
}

impl Exchange {
    pub(crate) fn received(&mut self, bytes: u64) {
        self.bytes_in += bytes;
    }

    pub(crate) fn sent(&mut self, bytes: u64) {
        self.bytes_out += bytes;
    }

    /// The head is about to go out.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = status;
    }

    pub(crate) fn keep_body(&self, body: &[u8]) {
        if let Some(record) = &self.record {
            record.keep_body(body);
        }
    }

    /// The whole answer was handed to the transport. Called before the last flush, so that a client
    /// that has seen the end also finds it counted.
    pub(crate) fn settle(&mut self) {
        self.end(false);
    }

    fn end(&mut self, aborted: bool) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        if let Some(record) = &self.record {
            record.end(self.status, aborted, self.bytes_in, self.bytes_out);
        }
        let mut ended = lock(&self.tally.ended);
        let slot = ended.iter_mut().find(|e| e.status == self.status && e.aborted == aborted);
        match slot {
            Some(e) => {
                e.count += 1;
                e.bytes_in += self.bytes_in;
                e.bytes_out += self.bytes_out;
            }
            None => ended.push(Ended {
                status: self.status,
                aborted,
                count: 1,
                bytes_in: self.bytes_in,
                bytes_out: self.bytes_out,
            }),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end(true);
    }
}

/// A poisoned lock only means that another task panicked between two additions.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
