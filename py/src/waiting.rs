//! Calls that are over, and that the engine is told of together.
//!
//! Between two calls the application's own work empties the caches: then the engine's account of one costs microseconds,
//! and of thirty in a row little more. They wait for no longer than a flush: whatever ends the process without one
//! loses what the engine itself would lose.

use crate::handle::{Handle, handle};
use crate::scope::Words;
use crate::sent::{Facts, Lengths};
use farcall::{ConnectTimes, Engine, ErrorType, Head, Target, Timestamp};
use farcall_agent::Birth;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::time::Duration;

/// After so many calls the engine is told.
const FULL: usize = 32;
/// Hosts that are known by the number of their vendor; more take each other's place.
const HOSTS: usize = 16;
/// Host names up to this long are.
const HOST: usize = 58;

static FIRST: OnceLock<Waiting> = OnceLock::new();

/// What waits in one process. In the child of a fork another thread of the parent's may have held the lock for ever, and
/// the calls are the parent's: the child has one of its own.
struct Waiting {
    generation: usize,
    list: Mutex<List>,
    next: OnceLock<Box<Waiting>>,
}

struct List {
    entries: Vec<Entry>,
    /// Method, host and path of each entry, one after the other.
    text: Vec<u8>,
    hosts: [Known; HOSTS],
}

struct Entry {
    told: Told,
    tls: bool,
    port: u16,
    lengths: Lengths,
    scope: Option<Arc<Words>>,
}

/// How a call came out.
pub(crate) struct Told {
    pub(crate) birth: Birth,
    pub(crate) ended: Timestamp,
    pub(crate) head_at: Timestamp,
    /// 0 where no response began.
    pub(crate) status: u16,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) times: ConnectTimes,
    pub(crate) failed: Option<ErrorType>,
    pub(crate) abandoned: bool,
}

/// A host, and the number of its vendor.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Known {
    vendor: u32,
    length: u8,
    host: [u8; HOST],
}

impl Waiting {
    fn new(generation: usize) -> Self {
        let list = List {
            entries: Vec::with_capacity(FULL),
            text: Vec::with_capacity(FULL * 64),
            hosts: [Known { vendor: 0, length: 0, host: [0; HOST] }; HOSTS],
        };
        Self { generation, list: Mutex::new(list), next: OnceLock::new() }
    }

    fn of(generation: usize) -> &'static Self {
        let mut waiting = FIRST.get_or_init(|| Self::new(generation));
        while waiting.generation < generation {
            waiting = waiting.next.get_or_init(|| Box::new(Self::new(generation)));
        }
        waiting
    }

    /// Free but for the moment of a flush, and in the child of a fork that nobody announced perhaps never.
    fn try_lock(&self) -> Option<MutexGuard<'_, List>> {
        match self.list.try_lock() {
            Ok(list) => Some(list),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Puts a call to those that wait; tells the engine of all once they are many.
pub(crate) fn push(handle: &Handle, told: Told, facts: &mut Facts) {
    let entry =
        Entry { told, tls: facts.tls, port: facts.port, lengths: facts.lengths, scope: facts.scope.take() };
    let Some(mut list) = Waiting::of(entry.told.birth.generation()).try_lock() else {
        // Somebody tells the engine at this moment: then it is warm.
        tell(handle, &entry, facts.text());
        return;
    };
    list.text.extend_from_slice(facts.text());
    list.entries.push(entry);
    if list.entries.len() >= FULL {
        list.tell(handle);
    }
}

/// Tells the engine of all that wait: ahead of each flush, and before its counters are read.
pub(crate) fn tell_all() {
    let Some(handle) = handle() else { return };
    let waiting = Waiting::of(handle.farcall.birth_place());
    // Whoever holds it is done in some ten microseconds; who will never be is a thread that a fork left behind.
    for _ in 0..200 {
        if let Some(mut list) = waiting.try_lock() {
            list.tell(handle);
            return;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Whether the engine looks at the headers of every answer from this host.
pub(crate) fn reads_answers(handle: &Handle, birth: Birth, host: &str) -> bool {
    let engine = handle.farcall.engine();
    let vendor = match Waiting::of(birth.generation()).try_lock() {
        Some(mut list) => list.vendor(engine, host),
        None => engine.vendor_number(host),
    };
    engine.reads_answers(vendor)
}

impl List {
    fn tell(&mut self, handle: &Handle) {
        let mut rest = self.text.as_slice();
        for entry in self.entries.drain(..) {
            rest = &rest[tell(handle, &entry, rest)..];
        }
        self.text.clear();
    }

    fn vendor(&mut self, engine: &Engine, host: &str) -> u32 {
        let bytes = host.as_bytes();
        let (Some(first), Some(last)) = (bytes.first(), bytes.get(bytes.len() / 2)) else {
            return engine.vendor_number(host);
        };
        let place = usize::from(*first) ^ usize::from(*last).rotate_left(2) ^ bytes.len();
        let known = &mut self.hosts[place % HOSTS];
        if known.host.get(..known.length.into()) == Some(bytes) {
            return known.vendor;
        }
        let vendor = engine.vendor_number(host);
        if let (Some(room), Ok(length)) = (known.host.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            room.copy_from_slice(bytes);
            (known.length, known.vendor) = (length, vendor);
        }
        vendor
    }
}

/// Tells the engine of one call, event by event; returns how much of the text is about it.
fn tell(handle: &Handle, entry: &Entry, text: &[u8]) -> usize {
    let Entry { told, tls, port, lengths, scope } = entry;
    let ([method, host, path], length) = lengths.split(text);
    let head = Head::to(method, Target::new(*tls, host, *port, path));
    handle.farcall.tell(told.birth, |engine, seed| match scope {
        None => told.to(engine, &head, seed),
        Some(scope) => scope.with(head, |head| told.to(engine, head, seed)),
    });
    length
}

impl Told {
    fn to(&self, engine: &Engine, head: &Head<'_>, seed: u64) {
        let mut call = engine.begin_sent(head, self.birth.at(), seed);
        let _ = call.step(engine, self.birth.at());
        call.connected(self.times);
        call.sent(self.bytes_out);
        if self.status != 0 {
            call.head(self.status, self.head_at);
        }
        call.body(self.bytes_in);
        if let Some(error) = self.failed {
            call.failed(error);
        }
        match self.abandoned {
            true => call.abandon(engine, self.ended),
            false => call.end(engine, self.ended),
        }
    }
}
