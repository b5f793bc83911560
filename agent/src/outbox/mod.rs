//! The outbox: calls accepted for delivery that must not be lost.
//!
//! A call is put; once that is acknowledged it is on the disk, encrypted, and some process of this home directory
//! and service delivers it: through the engine, again and again, until the vendor took it or it is given up as a
//! dead letter. docs/outbox.md says what exactly is promised.
//!
//! ```no_run
//! use farcall_agent::Farcall;
//! use farcall_agent::outbox::{Parcel, Reference};
//!
//! let outbox = Farcall::global().outbox()?;
//! let receipt = outbox.put(
//!     Parcel::new("POST", "https://api.stripe.com/v1/refunds")
//!         .secret("authorization", Reference::env("STRIPE_KEY").prefix("Bearer "))
//!         .body("charge=ch_1"),
//! )?;
//! println!("call {} is on the disk, and will be delivered", receipt.id);
//! # Ok::<(), farcall_agent::outbox::OutboxError>(())
//! ```
//!
//! One thread of each process writes ([`writer`]), one of them all delivers ([`deliver`]), chosen by [`lease`].

mod beside;
mod clock;
mod completion;
mod content;
mod credential;
mod deliver;
mod detour;
mod error;
mod file;
#[cfg(test)]
mod fixture;
mod json;
mod lease;
mod metrics;
mod operator;
mod parcel;
mod parking;
mod pending;
mod queue;
mod reference;
mod restore;
mod seal;
mod store;
mod table;
mod trust;
mod unreadable;
mod vendors;
mod writer;

pub use beside::{Beside, MissingCopy, StoppedCopy, Without};
pub use credential::Asked;
pub(crate) use credential::Credentials;
pub use detour::Detour;
pub use error::OutboxError;
pub(crate) use file::is_in;
pub use operator::{Awaited, Operator, Shown};
pub use parcel::Parcel;
pub use parking::Parking;
pub use pending::Pending;
pub use reference::Reference;
pub use restore::Restored;
pub use table::{Count, Filter, Item, State};
pub use trust::Untrusting;
pub use unreadable::Unreadable;
pub use vendors::VendorCount;

use crate::alarm::Alarm;
use crate::handle::WeakFarcall;
use clock::Ahead;
use completion::Completions;
use content::Content;
use deliver::Delivery;
use farcall::Engine;
use farcall::config::OutboxStore;
use http::{HeaderMap, Uri};
use seal::{Keys, Purpose};
use serde::{Deserialize, Serialize};
use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::Store;
use table::New;
use tokio::sync::Notify;

/// The fields in which clients send an idempotency key of their own, where nothing says by which one the vendor
/// takes it.
const USUAL_HEADER: &str = "idempotency-key";

/// The outbox of this process: calls are put here, and it delivers, if no other process of the service does.
/// Cheap to clone; from [`Farcall::outbox`](crate::Farcall::outbox).
#[derive(Clone, Debug)]
pub struct Outbox {
    inner: Arc<Inner>,
}

/// What one process has of the outbox.
#[derive(Debug)]
pub(crate) struct Inner {
    home: PathBuf,
    /// Its processes have the same credentials, but for those of callbacks, and deliver for each other.
    service: String,
    /// Or why there is none.
    store: Result<Arc<dyn Store>, OutboxError>,
    /// How long a PostgreSQL may take.
    timeout: Duration,
    keys: OnceLock<Arc<Keys>>,
    /// Rings after each commit, so that delivery looks again.
    wake: Arc<Notify>,
    delivery: Delivery,
    /// What they came to in this process.
    deliveries: metrics::ByVendor,
    /// Those who wait to hear of a call.
    completions: Completions,
    /// The callbacks of this process.
    credentials: Arc<Credentials>,
    /// Whether SQLite must not be used in this process, because of a fork.
    unusable: bool,
}

/// A call that is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Its number, for [`Outbox::item`] and `farcall outbox show`.
    pub id: i64,
    /// The idempotency key that all its attempts carry, where the vendor takes one.
    pub idempotency_key: String,
}

/// What the vendor answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body, as far as it was kept.
    #[serde(skip)]
    pub body: Vec<u8>,
    /// Whether the body was longer than what is kept.
    pub cut: bool,
}

impl Outbox {
    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Takes a call for delivery, and waits until it is on the disk. Async programs await
    /// [`submit`](Outbox::submit) instead.
    ///
    /// # Errors
    /// Where it was not taken: it is not on the disk, or nobody knows.
    pub fn put(&self, parcel: Parcel) -> Result<Receipt, OutboxError> {
        self.submit(parcel)?.wait()
    }

    /// Takes a call for delivery; it is acknowledged by what this returns, awaited or waited for.
    ///
    /// # Errors
    /// Where it cannot be taken at all.
    pub fn submit(&self, parcel: Parcel) -> Result<Pending<Receipt>, OutboxError> {
        let inner = &self.inner;
        if inner.unusable {
            return Err(OutboxError::Forked);
        }
        let Some(farcall) = inner.delivery.farcall() else { return Err(OutboxError::Disabled) };
        let new = inner.new_item(farcall.engine(), parcel)?;
        let pending = inner.store()?.add(Arc::new(new));
        inner.delivery.start(inner);
        Ok(pending)
    }

    /// A call, as it stands.
    ///
    /// # Errors
    /// Where the file cannot be read, or has no such call: those that were delivered are forgotten after a day.
    pub fn item(&self, id: i64) -> Result<Item, OutboxError> {
        Ok(self.inner.get(id)?.0)
    }

    /// What the vendor answered to a call that was delivered; `None` while it was not.
    ///
    /// # Errors
    /// As [`item`](Outbox::item), and where it cannot be decrypted.
    pub fn answer(&self, id: i64) -> Result<Option<Answer>, OutboxError> {
        let (item, _, response) = self.inner.get(id)?;
        self.inner.answer_of(&item, response)
    }

    /// Waits until a call was delivered or given up, or `timeout` has passed: how it stands then. An outbox that
    /// cannot be asked now ([`OutboxError::is_passing`]) is asked again.
    ///
    /// # Errors
    /// As [`item`](Outbox::item); where it cannot be asked when the time is up.
    pub fn wait(&self, id: i64, timeout: Duration) -> Result<Item, OutboxError> {
        const BETWEEN: Duration = Duration::from_millis(20);
        // Without an end where that is further away than any clock goes.
        let until = std::time::Instant::now().checked_add(timeout);
        loop {
            let item = self.item(id);
            let now = std::time::Instant::now();
            let left = until.map_or(BETWEEN, |until| until.saturating_duration_since(now));
            let waits = match &item {
                Ok(item) => item.state == State::Pending,
                Err(error) => error.is_passing(),
            };
            if !waits || left.is_zero() {
                return item;
            }
            std::thread::sleep(BETWEEN.min(left));
        }
    }
}

impl Inner {
    /// `unusable` where SQLite must not be used in this process; `settings` are missing where they cannot be read, with
    /// the reason.
    pub(crate) fn new(
        home: &Path,
        service: &str,
        farcall: Option<WeakFarcall>,
        alarm: Option<Arc<Alarm>>,
        credentials: Arc<Credentials>,
        unusable: bool,
        settings: Result<&OutboxStore, &String>,
    ) -> Arc<Self> {
        let wake = Arc::new(Notify::new());
        let store = settings.map_err(|why| OutboxError::Settings(why.clone()));
        Arc::new(Self {
            home: home.to_owned(),
            service: queue::service(service),
            store: store.and_then(|settings| store::open(home, settings, alarm, &wake)),
            timeout: settings.map_or_else(|_| OutboxStore::default().timeout, |settings| settings.timeout),
            keys: OnceLock::new(),
            wake,
            delivery: Delivery::new(farcall),
            deliveries: metrics::ByVendor::default(),
            completions: Completions::default(),
            credentials,
            unusable,
        })
    }

    fn store(&self) -> Result<&Arc<dyn Store>, OutboxError> {
        self.store.as_ref().map_err(Clone::clone)
    }

    /// Whether there is anything to deliver, as far as the file's existence tells.
    pub(crate) fn exists(&self) -> bool {
        !self.unusable && self.store().is_ok_and(|store| store.exists())
    }

    /// Whether other processes may count on this one to deliver, whatever there is.
    pub(crate) fn is_needed(&self) -> bool {
        self.credentials.are_there()
    }

    /// The queues from which this process can deliver.
    fn queues(&self) -> Vec<String> {
        let credentials = self.credentials.names();
        let with = credentials.iter().map(|credential| queue::name(&self.service, Some(credential)));
        std::iter::once(queue::name(&self.service, None)).chain(with).collect()
    }

    /// A callback was added.
    fn serve(self: &Arc<Self>) {
        self.start();
        self.wake.notify_one();
    }

    /// Starts to deliver, where another process does not.
    pub(crate) fn start(self: &Arc<Self>) {
        if !self.unusable {
            self.delivery.start(self);
            Completions::start(self);
        }
    }

    /// Ends all threads and closes the file; what is put later opens it again.
    pub(crate) fn pause(&self) {
        self.completions.pause();
        self.delivery.stop(self);
        if let Ok(store) = &self.store {
            store.pause();
        }
    }

    /// Whether SQLite has the file open: a child that is forked now must not use it.
    pub(crate) fn is_open(&self) -> bool {
        self.unusable || self.store().is_ok_and(|store| store.is_open())
    }

    fn new_item(&self, engine: &Engine, parcel: Parcel) -> Result<New, OutboxError> {
        let (mut parcel, uri) = parcel.checked()?;
        let keys = self.keys()?;
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        let vendor = engine.catalogue().vendor_of(&host);
        let endpoint = engine.catalogue().endpoint_of(&host, &parcel.method, uri.path());
        let known = vendor.and_then(|vendor| vendor.idempotency_header.as_deref());
        let own = parcel.idempotency_header.as_deref().or(known).unwrap_or(USUAL_HEADER);
        let fresh = keys.fresh()?;
        let idempotency_key = match (parcel.idempotency_key.take(), parcel.value_of(&[own, USUAL_HEADER])) {
            (Some(key), _) => key,
            (None, Some(key)) => key.to_owned(),
            (None, None) => fresh.name(),
        };
        let clock = Ahead::wall();
        let now = clock.now();
        Ok(New {
            clock,
            queue: queue::name(&self.service, parcel.credential()),
            order_key: parcel.order_key.take(),
            put_at: now,
            next_at: now.saturating_add(nanos(parcel.delay)),
            expires_at: now.saturating_add(nanos(parcel.max_age)),
            max_attempts: parcel.max_attempts,
            method: take(&mut parcel.method),
            vendor: vendor
                .map_or_else(|| farcall::catalogue::name_of_unknown(&host), |vendor| &vendor.name)
                .to_owned(),
            endpoint: endpoint.unwrap_or_default().to_owned(),
            host,
            customer: parcel.customer.take(),
            bytes: parcel.body.len(),
            request: Content::of(parcel)
                .in_parts(|parts| keys.seal_with(fresh, Purpose::Request, &idempotency_key, parts))?,
            idempotency_key,
        })
    }

    fn get(&self, id: i64) -> Result<table::Whole, OutboxError> {
        if self.unusable {
            return Err(OutboxError::Forked);
        }
        self.store()?.get(id).wait()?.ok_or(OutboxError::NotFound(id))
    }

    fn answer_of(&self, item: &Item, sealed: Option<Vec<u8>>) -> Result<Option<Answer>, OutboxError> {
        let Some(sealed) = sealed.filter(|sealed| !sealed.is_empty()) else { return Ok(None) };
        let bytes = self.keys()?.open(Purpose::Response, &item.idempotency_key, &sealed)?;
        Answer::from_bytes(&bytes).map(Some).ok_or_else(|| OutboxError::Key("it is damaged".into()))
    }

    fn keys(&self) -> Result<Arc<Keys>, OutboxError> {
        if let Some(keys) = self.keys.get() {
            return Ok(Arc::clone(keys));
        }
        if self.unusable {
            return Err(OutboxError::Forked);
        }
        std::fs::create_dir_all(&self.home).map_err(|error| OutboxError::unavailable(&self.home, error))?;
        let newest = self.store()?.newest_sealed().wait()?;
        let found = Keys::of(&self.home, newest.as_deref()).inspect_err(|error| {
            // What it would encrypt could be read by nobody.
            if let OutboxError::Stopped(why) = error {
                file::Place::new(&self.home).stop(why);
            }
        });
        let found = Arc::new(found?);
        // Whoever comes second finds the same ones.
        Ok(Arc::clone(self.keys.get_or_init(|| found)))
    }
}

impl Answer {
    fn new(status: u16, headers: &HeaderMap, body: Vec<u8>, cut: bool) -> Self {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers = headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())));
        Self { status, headers: headers.collect(), body, cut }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let head = serde_json::to_vec(self).unwrap_or_default();
        let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
        [length.to_be_bytes().as_slice(), &head, &self.body].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (head, body) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let mut answer: Self = serde_json::from_slice(head).ok()?;
        answer.body = body.to_vec();
        Some(answer)
    }
}

/// Nanoseconds since the Unix epoch: waits outlive the process, so they go by the wall clock.
fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    nanos(since)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The idempotency header that a request to this URL takes, if the vendor is known to take one.
fn header_of(engine: &Engine, content: &Content) -> Option<String> {
    content.idempotency_header.clone().or_else(|| {
        let uri = Uri::try_from(&content.url).ok()?;
        let host = uri.host()?.to_ascii_lowercase();
        engine.catalogue().vendor_of(&host)?.idempotency_header.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    #[test]
    fn a_fork_hears_of_the_file_that_a_caller_has_open() {
        let home = tempfile::tempdir().unwrap();
        drop(file::Place::new(home.path()).open().unwrap());
        let settings = OutboxStore::default();
        let inner = Inner::new(home.path(), "q", None, None, Arc::default(), false, Ok(&settings));
        let over = AtomicBool::new(false);
        assert!(!inner.is_open());
        let heard = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    assert!(matches!(inner.get(7), Err(OutboxError::NotFound(7))));
                }
            });
            let until = Instant::now() + Duration::from_secs(60);
            while !inner.is_open() && Instant::now() < until {
                std::thread::yield_now();
            }
            let heard = Instant::now() < until;
            over.store(true, Ordering::Release);
            heard
        });
        assert!(heard && !inner.is_open());
    }
}
