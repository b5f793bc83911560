//! What is done for a queue, over and over: keep the lease, look what is due, send it, write down how it came out.

use super::super::clock::Ahead;
use super::super::lease::{Alive, Permit, RENEWED};
use super::super::seal::Purpose;
use super::super::store::{Grant, Store, Wanted};
use super::super::table::{Item, Settlement};
use super::super::{Inner, OutboxError};
use super::attempt::deliver;
use super::client::{Client, client};
use super::outcome::Outcome;
use super::shift::Shift;
use super::under_way::{Ended, UnderWay};
use crate::handle::WeakFarcall;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What is said of a call whose delivery panicked.
const OURS: &str = "an error of farcall's own (please report it)";
/// Calls on their way at once.
const AT_ONCE: usize = 16;
/// How often the holder looks for calls of other processes.
const LOOK: Duration = Duration::from_millis(200);
/// How often the others look whether the lease is free.
const WATCH: Duration = Duration::from_millis(500);
/// The same, where hosts share the store: asking costs more there. Calls that this process put wake it at once.
const LOOK_FAR: Duration = Duration::from_secs(1);
/// And where there was nothing for a while.
const LOOK_SELDOM: Duration = Duration::from_secs(5);
/// How long the end waits for calls that are on their way.
const WIND_DOWN: Duration = Duration::from_secs(2);
const TIDIED: Duration = Duration::from_secs(60);
/// How long delivered calls are kept, with their answers, and dead letters.
const DELIVERED: Duration = Duration::from_secs(86_400);
/// How long a call waits where there was nothing to trust.
const UNTRUSTING: Duration = Duration::from_secs(5);
pub(in crate::outbox) const DEAD: Duration = Duration::from_secs(30 * 86_400);

pub(super) struct Round {
    shift: Arc<Shift>,
    /// From which calls are delivered.
    queue: String,
    /// Rings where there may be more of them.
    wake: Arc<Notify>,
    permit: Arc<Permit>,
    held: Option<Held>,
    /// Or why there is none.
    client: Option<Result<Client, String>>,
    under_way: UnderWay,
    tidied: Option<Instant>,
    /// Whether more is left to be tidied away.
    untidy: Arc<AtomicBool>,
}

struct Held {
    token: i64,
    renewed: Instant,
    /// Shows others that this process lives.
    alive: Option<Alive>,
}

impl Round {
    pub(super) fn new(shift: Arc<Shift>, queue: String, wake: Arc<Notify>) -> Self {
        Self {
            shift,
            queue,
            wake,
            permit: Arc::default(),
            held: None,
            client: None,
            under_way: UnderWay::default(),
            tidied: None,
            untidy: Arc::default(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            if self.shift.is_over() {
                break;
            }
            let wait = match self.look().await {
                Ok(wait) => wait,
                Err(OutboxError::Stopped(_)) => break,
                Err(error) => {
                    self.shift.say(error.to_string());
                    self.store().rest();
                    self.watch()
                }
            };
            tokio::select! {
                Some(ended) = self.under_way.next() => self.ended(ended),
                // With all hands full it is enough to look when one of them is free.
                () = self.wake.notified(), if self.under_way.len() < AT_ONCE => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.wind_down().await;
    }

    /// Does what there is to do. How long nothing will be.
    async fn look(&mut self) -> Result<Duration, OutboxError> {
        while let Some(ended) = self.under_way.try_next() {
            self.ended(ended);
        }
        let waits = self.store().waits(&self.queue, self.held.is_some()).await?;
        if waits.pending {
            self.shift.works();
        } else if self.held.is_none() {
            return Ok(self.watch());
        }
        if self.held.is_none() && waits.held {
            return Ok(self.watch());
        }
        if !self.keep_lease().await? {
            return Ok(self.watch());
        }
        let wait = self.launch().await?;
        self.rest_if_idle().await;
        Ok(wait)
    }

    /// Takes the lease, or renews it when it is time. Whether it is ours.
    async fn keep_lease(&mut self) -> Result<bool, OutboxError> {
        let (store, queue) = (&self.shift.store, &self.queue);
        let kept = match self.held.take() {
            Some(held) if held.renewed.elapsed() < RENEWED => {
                self.held = Some(held);
                return Ok(self.permit.is_good());
            }
            Some(held) => match store.renew(queue, held.token).await {
                Ok(lease) => lease.map(|lease| Grant { lease, alive: held.alive }),
                Err(error) => {
                    // It may hold for a while yet; the permit knows.
                    self.held = Some(held);
                    return Err(error);
                }
            },
            None => store.take(queue).await?,
        };
        match kept {
            Some(Grant { lease, alive }) => {
                self.permit.extend(lease.until);
                self.held = Some(Held { token: lease.token, renewed: Instant::now(), alive });
            }
            None => self.lose(),
        }
        Ok(self.permit.is_good())
    }

    /// The lease passed to another process: nothing more goes out, and what was out is that one's to decide.
    fn lose(&mut self) {
        self.permit.end();
        self.held = None;
        self.under_way.tasks.abort_all();
    }

    /// Sends what is due. How long nothing else will be.
    async fn launch(&mut self) -> Result<Duration, OutboxError> {
        let Some(token) = self.held.as_ref().map(|held| held.token) else { return Ok(self.watch()) };
        let store = Arc::clone(&self.shift.store);
        let room = AT_ONCE.saturating_sub(self.under_way.len());
        let wanted = Wanted {
            queue: self.queue.clone(),
            token,
            under_way: self.under_way.ids(),
            room,
            keys: self.shift.inner.keys().map(|keys| keys.ids()).unwrap_or_default(),
        };
        let Some(due) = store.due(wanted).await? else {
            self.lose();
            return Ok(self.watch());
        };
        let (due_now, clock) = (due.calls.len(), due.clock);
        if due_now > 0 && self.client.is_none() {
            self.client = Some(client(&self.permit));
        }
        // Looked for again with the next calls: it may be put right.
        let client = match &self.client {
            Some(Ok(_)) => self.client.clone(),
            _ => self.client.take(),
        };
        if let Some(Err(why)) = &client {
            self.shift.say(format!("nothing is delivered from the outbox: {why}"));
        }
        for (item, sealed) in due.calls {
            let Some(client) = client.clone() else { break };
            let (task, item) = (self.task(token, clock), Arc::new(item));
            self.under_way.add(Arc::clone(&item), task.run(client, item, sealed));
        }
        let untidy = self.untidy.swap(false, Ordering::AcqRel);
        if untidy || self.tidied.is_none_or(|tidied| tidied.elapsed() > TIDIED) {
            self.tidied = Some(Instant::now());
            let (pending, more) = (store.tidy(DELIVERED, DEAD), Arc::clone(&self.untidy));
            // Nobody waits for it.
            tokio::spawn(async move { more.store(pending.await.unwrap_or(false), Ordering::Release) });
        }
        if due_now > 0 || self.under_way.len() > 0 {
            self.shift.works();
        }
        let most = if store.is_shared() { LOOK_FAR } else { LOOK };
        Ok(due.next.unwrap_or(most).clamp(Duration::from_millis(1), most))
    }

    /// Gives the lease back where there was nothing for a while, and this is not to end: who waits asks less.
    async fn rest_if_idle(&mut self) {
        if self.shift.is_idle()
            && let Some(held) = self.held.take()
        {
            self.permit.end();
            let _ = self.store().release(&self.queue, held.token).await;
        }
    }

    /// How long who does not deliver waits before it looks again.
    fn watch(&self) -> Duration {
        match (self.store().is_shared(), self.shift.is_idle()) {
            (false, false) => WATCH,
            (true, false) => LOOK_FAR,
            (_, true) => {
                // Open files are for who has something to do.
                self.store().rest();
                LOOK_SELDOM
            }
        }
    }

    /// `clock`: by which the call's moments are.
    fn task(&self, token: i64, clock: Ahead) -> Task {
        Task {
            inner: Arc::clone(&self.shift.inner),
            store: Arc::clone(&self.shift.store),
            farcall: self.shift.farcall.clone(),
            permit: Arc::clone(&self.permit),
            token,
            clock,
        }
    }

    fn ended(&mut self, ended: Ended) {
        self.shift.works();
        // Tried again later, as any call that failed: an error of ours must not be met over and over at once.
        if let Ended::Panicked(item) = ended
            && let Some(token) = self.held.as_ref().map(|held| held.token)
        {
            let (task, failed) = (self.task(token, Ahead::wall()), Outcome::failed(OURS.to_owned()));
            self.under_way.add(Arc::clone(&item), async move { task.settle(failed, &item, 0).await });
        }
    }

    fn store(&self) -> &dyn Store {
        &*self.shift.store
    }

    /// Lets what is on its way arrive, if it does soon, then gives the lease back.
    async fn wind_down(mut self) {
        let all = async { while self.under_way.next().await.is_some() {} };
        let _ = tokio::time::timeout(WIND_DOWN, all).await;
        self.permit.end();
        self.under_way.tasks.shutdown().await;
        self.store().rest();
        if let Some(held) = self.held.take() {
            let _ = self.store().release(&self.queue, held.token).await;
        }
    }
}

/// A call on its way.
struct Task {
    inner: Arc<Inner>,
    store: Arc<dyn Store>,
    farcall: WeakFarcall,
    permit: Arc<Permit>,
    token: i64,
    /// By which the call's moments are. The wall clock may have jumped since it was read.
    clock: Ahead,
}

impl Task {
    async fn run(self, client: Result<Client, String>, item: Arc<Item>, sealed: Vec<u8>) {
        let Some(farcall) = self.farcall.upgrade() else { return };
        let outcome = match self.clock.now() >= item.expires_at {
            true => {
                let last = item.error.as_deref().unwrap_or("it was never tried");
                Outcome::Hopeless(format!("it was older than its maximum age; the last time: {last}"))
            }
            false => match client {
                Ok(client) => {
                    let call = (&*item, sealed.as_slice());
                    deliver(&self.inner, &farcall, &client, &self.permit, call).await
                }
                Err(why) => Outcome::NotSent { why, wait: Some(UNTRUSTING) },
            },
        };
        let seed = farcall.seed();
        drop(farcall);
        self.settle(outcome, &item, seed).await;
    }

    async fn settle(&self, outcome: Outcome, item: &Item, seed: u64) {
        let keys = self.inner.keys();
        let wall = Ahead::wall();
        let expires_at = self.clock.moved(item.expires_at, wall);
        let settlement = outcome.settle(item, expires_at, wall.now(), seed, |answer| {
            let sealed = keys
                .and_then(|keys| keys.seal(Purpose::Response, &item.idempotency_key, &[&answer.to_bytes()]));
            sealed.unwrap_or_default()
        });
        self.record(item, Arc::new(settlement)).await;
    }

    /// Writes it down, however long that takes while the lease is ours: until then nobody sends the call again.
    async fn record(&self, item: &Item, settlement: Arc<Settlement>) {
        const AGAIN: Duration = Duration::from_millis(500);
        loop {
            match self.store.settle(self.token, item, Arc::clone(&settlement)).await {
                Ok(ours) => return self.count(item, &settlement, ours),
                Err(OutboxError::Stopped(_)) => return,
                Err(_) if !self.permit.is_good() => return,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// What another process decided since is its to count.
    fn count(&self, item: &Item, settlement: &Settlement, ours: bool) {
        if !ours {
            return;
        }
        self.inner.deliveries.count(&item.vendor, |of| match settlement {
            Settlement::Delivered { .. } => of.delivered += 1,
            Settlement::Later { counts, .. } => of.failed_attempts += u64::from(*counts),
            Settlement::Dead { counts, .. } => {
                of.failed_attempts += u64::from(*counts);
                of.given_up += 1;
            }
        });
    }
}
