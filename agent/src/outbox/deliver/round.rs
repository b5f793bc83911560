//! What the thread does, over and over: keep the lease, look what is due, send it, write down how it came out.

use super::super::lease::{self, Alive, Permit, RENEWED};
use super::super::seal::Purpose;
use super::super::table::{self, Item, Settlement};
use super::super::{Inner, OutboxError, nanos, wall};
use super::attempt::deliver;
use super::client::{Client, client};
use super::outcome::{FARTHEST, Outcome};
use crate::handle::WeakFarcall;
use crate::say;
use rusqlite::Connection;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Calls on their way at once.
const AT_ONCE: usize = 16;
/// How often the holder looks for calls of other processes.
const LOOK: Duration = Duration::from_millis(200);
/// How often the others look whether the lease is free.
const WATCH: Duration = Duration::from_millis(500);
/// How long the end waits for calls that are on their way.
const WIND_DOWN: Duration = Duration::from_secs(2);
/// With nothing to do for so long, the thread ends; the next put starts it again.
const IDLE: Duration = Duration::from_secs(60);
const TIDIED: Duration = Duration::from_secs(60);
/// How long delivered calls are kept, with their answers, and dead letters.
const DELIVERED: Duration = Duration::from_secs(86_400);
const DEAD: Duration = Duration::from_secs(30 * 86_400);

pub(super) struct Round<'a> {
    inner: &'a Arc<Inner>,
    farcall: &'a WeakFarcall,
    /// Whether this thread is to end; another one may run already.
    ending: &'a AtomicBool,
    /// Whether it is counted among those that have the file open.
    reading: bool,
    permit: Arc<Permit>,
    held: Option<Held>,
    reader: Option<Connection>,
    client: Option<Client>,
    under_way: JoinSet<i64>,
    ids: HashSet<i64>,
    worked: Instant,
    tidied: Option<Instant>,
    /// Whether more is left to be tidied away.
    untidy: Arc<AtomicBool>,
    said: Option<String>,
}

struct Held {
    token: i64,
    renewed: Instant,
    /// Shows others that this process lives.
    _alive: Option<Alive>,
}

impl<'a> Round<'a> {
    pub(super) fn new(inner: &'a Arc<Inner>, farcall: &'a WeakFarcall, ending: &'a AtomicBool) -> Self {
        Self {
            inner,
            farcall,
            ending,
            reading: false,
            permit: Arc::default(),
            held: None,
            reader: None,
            client: None,
            under_way: JoinSet::new(),
            ids: HashSet::new(),
            worked: Instant::now(),
            tidied: None,
            untidy: Arc::default(),
            said: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let ending = self.ending.load(Ordering::Acquire);
            if ending || self.worked.elapsed() > IDLE || !self.farcall.is_alive() {
                break;
            }
            let wait = match self.look().await {
                Ok(wait) => wait,
                Err(OutboxError::Stopped(_)) => break,
                Err(error) => {
                    self.say(error.to_string());
                    self.close();
                    WATCH
                }
            };
            tokio::select! {
                Some(done) = self.under_way.join_next() => self.ended(done),
                // With all hands full it is enough to look when one of them is free.
                () = self.inner.wake.notified(), if self.ids.len() < AT_ONCE => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.wind_down().await;
    }

    /// Does what there is to do. How long nothing will be.
    async fn look(&mut self) -> Result<Duration, OutboxError> {
        while let Some(done) = self.under_way.try_join_next() {
            self.ended(done);
        }
        let place = &self.inner.place;
        if self.reader.is_none() {
            self.set_reading(true);
            self.reader = place.open_for_reading()?;
        }
        let Some(reader) = &self.reader else {
            self.set_reading(false);
            return Ok(WATCH);
        };
        let queue = &self.inner.queue;
        let wrong = |error: rusqlite::Error| place.failure(&error);
        if table::has_pending(reader, queue).map_err(wrong)? {
            self.worked = Instant::now();
        } else if self.held.is_none() {
            return Ok(WATCH);
        }
        if self.held.is_none() && lease::is_held(reader, place.home(), queue).map_err(wrong)? {
            return Ok(WATCH);
        }
        if !self.keep_lease().await? {
            return Ok(WATCH);
        }
        self.launch()
    }

    /// Takes the lease, or renews it when it is time. Whether it is ours.
    async fn keep_lease(&mut self) -> Result<bool, OutboxError> {
        let queue = self.inner.queue.clone();
        let kept = match self.held.take() {
            Some(held) if held.renewed.elapsed() < RENEWED => {
                self.held = Some(held);
                return Ok(self.permit.is_good());
            }
            Some(held) => {
                let token = held.token;
                let work = move |db: &rusqlite::Transaction<'_>| lease::renew(db, &queue, token);
                let kept = self.inner.writer.submit(0, work).await;
                if kept.is_err() {
                    // It may hold for a while yet; the permit knows.
                    self.held = Some(held);
                    return kept.map(|_| false);
                }
                kept.map(|lease| lease.map(|lease| (lease, held._alive)))
            }
            None => {
                let home = self.inner.place.home().to_owned();
                let holder = format!("{queue} (pid {})", std::process::id());
                let work = move |db: &rusqlite::Transaction<'_>| lease::take(db, &home, &queue, &holder);
                self.inner.writer.submit(0, work).await
            }
        }?;
        match kept {
            Some((lease, alive)) => {
                self.permit.extend(lease.until);
                self.held = Some(Held { token: lease.token, renewed: Instant::now(), _alive: alive });
            }
            None => {
                // It passed to another process: nothing more goes out, and what was out is that one's to decide.
                self.permit.end();
                self.under_way.abort_all();
            }
        }
        Ok(self.permit.is_good())
    }

    /// Sends what is due. How long nothing else will be.
    fn launch(&mut self) -> Result<Duration, OutboxError> {
        let (Some(reader), Some(held)) = (&self.reader, &self.held) else { return Ok(WATCH) };
        let token = held.token;
        let (place, queue, now) = (&self.inner.place, &self.inner.queue, wall());
        let wrong = |error: rusqlite::Error| place.failure(&error);
        let room = AT_ONCE.saturating_sub(self.ids.len());
        if room > 0 {
            let far = now.saturating_add(2 * nanos(FARTHEST));
            // Those on their way are due all the same; of these no body is read.
            let due = table::due(reader, queue, now, far, room + self.ids.len()).map_err(wrong)?;
            let due: Vec<_> = due.into_iter().filter(|item| !self.ids.contains(&item.id)).collect();
            for item in due.into_iter().take(room) {
                let Some(sealed) = table::request(reader, item.id).map_err(wrong)? else { continue };
                let client = match &self.client {
                    Some(client) => client.clone(),
                    None => {
                        let made = client(&self.permit).map_err(|error| {
                            place.unavailable(format!("no certificates to trust: {error}"))
                        })?;
                        self.client.insert(made).clone()
                    }
                };
                self.ids.insert(item.id);
                let task = Task {
                    inner: Arc::clone(self.inner),
                    farcall: self.farcall.clone(),
                    permit: Arc::clone(&self.permit),
                    client,
                    token,
                };
                self.under_way.spawn(task.run(item, sealed));
            }
        }
        let untidy = self.untidy.swap(false, Ordering::AcqRel);
        if untidy || self.tidied.is_none_or(|tidied| tidied.elapsed() > TIDIED) {
            self.tidied = Some(Instant::now());
            let before = move |age| now.saturating_sub(nanos(age));
            let more = Arc::clone(&self.untidy);
            let work = move |db: &rusqlite::Transaction<'_>| {
                let left = table::tidy(db, before(DELIVERED), before(DEAD))?;
                more.store(left, Ordering::Release);
                Ok(())
            };
            // Nobody waits for it.
            drop(self.inner.writer.submit(0, work));
        }
        let next = table::next_due(reader, queue, now).map_err(wrong)?;
        let until =
            next.map_or(LOOK, |at| Duration::from_nanos(u64::try_from(at.saturating_sub(now)).unwrap_or(0)));
        Ok(until.clamp(Duration::from_millis(1), LOOK))
    }

    fn ended(&mut self, done: Result<i64, tokio::task::JoinError>) {
        self.worked = Instant::now();
        match done {
            Ok(id) => {
                self.ids.remove(&id);
            }
            // Aborted, or an error of ours: which one it was is not known, so the rest goes on being theirs until
            // all have ended.
            Err(_) if self.under_way.is_empty() => self.ids.clear(),
            Err(_) => {}
        }
    }

    fn close(&mut self) {
        self.reader = None;
        self.set_reading(false);
    }

    fn set_reading(&mut self, reading: bool) {
        if std::mem::replace(&mut self.reading, reading) != reading {
            self.inner.delivery.count_reader(reading);
        }
    }

    fn say(&mut self, sentence: String) {
        if self.said.as_ref() != Some(&sentence) {
            say::say(&sentence);
            self.said = Some(sentence);
        }
    }

    /// Lets what is on its way arrive, if it does soon, then gives the lease back.
    async fn wind_down(mut self) {
        let all = async { while self.under_way.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(WIND_DOWN, all).await;
        self.permit.end();
        self.under_way.shutdown().await;
        self.close();
        if let Some(Held { token, _alive, .. }) = self.held.take() {
            let queue = self.inner.queue.clone();
            let _ = self.inner.writer.submit(0, move |db| lease::release(db, &queue, token)).await;
        }
    }
}

/// A call on its way.
struct Task {
    inner: Arc<Inner>,
    farcall: WeakFarcall,
    permit: Arc<Permit>,
    client: Client,
    token: i64,
}

impl Task {
    async fn run(self, item: Item, sealed: Vec<u8>) -> i64 {
        let id = item.id;
        let Some(farcall) = self.farcall.upgrade() else { return id };
        let outcome = match wall() >= item.expires_at {
            true => {
                let last = item.error.as_deref().unwrap_or("it was never tried");
                Outcome::Hopeless(format!("it was older than its maximum age; the last time: {last}"))
            }
            false => {
                let call = (&item, sealed.as_slice());
                deliver(&self.inner, &farcall, &self.client, &self.permit, call).await
            }
        };
        let seed = farcall.seed();
        drop(farcall);
        let keys = self.inner.keys();
        let settlement = outcome.settle(&item, wall(), seed, |answer| {
            let sealed =
                keys.and_then(|keys| keys.seal(Purpose::Response, &item.idempotency_key, &answer.to_bytes()));
            sealed.unwrap_or_default()
        });
        self.record(id, Arc::new(settlement)).await;
        id
    }

    /// Writes it down, however long that takes while the lease is ours: until then nobody sends the call again.
    async fn record(&self, id: i64, settlement: Arc<Settlement>) {
        const AGAIN: Duration = Duration::from_millis(500);
        let bytes = match &*settlement {
            Settlement::Delivered { response, .. } => response.len(),
            _ => 0,
        };
        loop {
            let (queue, token, settlement) = (self.inner.queue.clone(), self.token, Arc::clone(&settlement));
            let work = move |db: &rusqlite::Transaction<'_>| {
                table::settle(db, (&queue, token), id, &settlement, wall())
            };
            match self.inner.writer.submit(bytes, work).await {
                Ok(_) | Err(OutboxError::Stopped(_)) => return,
                Err(_) if !self.permit.is_good() => return,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}
