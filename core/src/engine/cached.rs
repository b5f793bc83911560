//! The cache's part of a call: looked up before anything is asked or paid for, kept on the way back ([`answered`]), and
//! the last resort where the vendor fails or may not be asked.

mod answered;

use super::plan::{CachePart, Plan, Standing};
use super::{Call, Engine};
use crate::cache::{Answer, Ask, Cache, Fetch, Forwarded, Key, Landing, Origin, Status, Store};
use crate::call::{Head, Outcome};
use crate::matcher::Matcher;
use crate::resilience::is_safe;
use crate::units::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

/// How far a call has come with the cache. Nothing in it has memory of its own where no rule is about the call.
#[derive(Debug, Default)]
pub(super) struct Cached {
    pub(super) stage: Stage,
    pub(super) ask: Ask,
    /// Under which the call leads.
    pub(super) key: Key,
    /// Origin and URI of a request that changes something there.
    changes: Option<(Origin, u64)>,
    /// Set while others wait for this call.
    pub(super) leads: Option<Arc<Cache>>,
    /// Set while other processes of the host wait for it, too.
    pub(super) hosted: bool,
    pub(super) waits_since: Option<Timestamp>,
    /// How long its client would wait for an answer.
    pub(super) patience: Option<Duration>,
    /// The flight that it waits for.
    pub(super) waits_for: Option<Key>,
    /// Whether it waited for an equal call.
    pub(super) joined: bool,
    /// What is not at hand is looked for.
    pub(super) fetch: Option<Fetch>,
    /// What was last looked for so, and whether others of the host waited for this call then.
    pub(super) fetched: Option<(Key, bool)>,
    pub(super) fetches: u8,
    /// What was found, and is not fresh.
    pub(super) found: Option<Arc<Answer>>,
    /// When it was.
    pub(super) looked: Timestamp,
    /// Whether the vendor is asked whether it is still good.
    conditional: bool,
    declined: bool,
    /// Whether the adapter can ask for a new answer beside the call.
    pub(super) refreshes: bool,
    /// Whether it is to do so now.
    pub(super) refreshing: bool,
    /// The vendor said that it is.
    confirmed: Option<Arc<Answer>>,
    storing: Option<Box<Storing>>,
    pub(super) status: Status,
    pub(super) saved: Saved,
}

/// What did not have to be spent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Saved {
    pub(super) bytes: u64,
    /// In nano-units.
    pub(super) cost: i64,
    pub(super) requests: u64,
    pub(super) tokens: u64,
}

impl Saved {
    /// What a call that was never made would have got and used.
    pub(super) fn by(answer: &Answer) -> Self {
        let bytes = answer.body.len() as u64;
        match answer.has_age() {
            true => Self { bytes, cost: answer.cost.unwrap_or_default(), requests: 1, tokens: answer.tokens },
            false => Self { bytes, ..Self::default() },
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// No rule is about it.
    #[default]
    Off,
    /// It is to be looked up.
    Asks,
    /// It goes to the vendor.
    Sent,
    /// Nothing more is done about it.
    Done,
}

/// An answer whose body is on its way to the application.
#[derive(Debug)]
struct Storing {
    answer: Answer,
    body: Vec<u8>,
    limit: usize,
}

impl Cached {
    /// Makes it that of a call that begins.
    pub(super) fn begin(&mut self, engine: &Engine, plan: &Plan, head: &Head<'_>, authorized: bool) {
        if self.stage != Stage::Off || self.changes.is_some() {
            self.forget();
        }
        if !plan.caches || !engine.cache.has_store() {
            return;
        }
        let Some(part) = &plan.cache else {
            self.changes = (!is_safe(head.method)).then(|| engine.cache.uri_of(head));
            return;
        };
        if !part.rule.covers(head.method) {
            self.changes = (!is_safe(head.method)).then(|| engine.cache.uri_of(head));
            return;
        }
        if !head.caches {
            engine.tallies.uncached_calls.fetch_add(1, Ordering::Relaxed);
            return;
        }
        engine.cache.read(&mut self.ask, &part.rule, &part.name, head, authorized);
        self.changes = self.ask.is_overridden().then(|| engine.cache.uri_of(head));
        self.patience = head.patience;
        self.refreshes = head.refreshes && head.method == "GET" && head.content.is_empty();
        self.stage = Stage::Asks;
    }

    /// What the attempt is sent with, so that the vendor need not send again what is here.
    pub(super) fn condition(&mut self, failed_over: bool) -> Box<[(&'static str, String)]> {
        self.conditional = false;
        match self.found.is_some() && self.stage == Stage::Sent && !failed_over {
            true => self.condition_of_found(),
            false => Box::default(),
        }
    }

    #[inline(never)]
    fn condition_of_found(&mut self) -> Box<[(&'static str, String)]> {
        let condition = self.found.as_ref().map(|found| found.condition()).unwrap_or_default();
        self.conditional = !condition.is_empty();
        condition.into_boxed_slice()
    }

    /// The answer that comes belongs to another request.
    pub(super) fn decline(&mut self) {
        // Where no rule is about the call, nothing may be left for the next one.
        self.declined = self.stage != Stage::Off;
    }

    /// Whether the body is to be shown.
    pub(super) fn wants_body(&self) -> bool {
        self.storing.is_some()
    }

    /// More of the body.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        let Some(storing) = &mut self.storing else { return };
        if storing.body.len() + chunk.len() <= storing.limit {
            storing.body.extend_from_slice(chunk);
            return;
        }
        let at = storing.answer.received_at();
        self.storing = None;
        self.status.detail = Some("too-large");
        self.land(Landing::Unshared, at);
    }

    /// Lets those who wait for it go on.
    pub(super) fn land(&mut self, landing: Landing, now: Timestamp) {
        if let Some(cache) = self.leads.take() {
            let hosted = std::mem::take(&mut self.hosted);
            cache.land(self.key, self.ask.number(), hosted, landing, now);
        }
    }

    /// Has this woken when it is time to look again; `false` where nobody can say, and it is to look by itself.
    pub(super) fn wake(&self, engine: &Engine, waker: &Waker) -> bool {
        match (&self.fetch, self.waits_for) {
            (Some(fetch), _) => {
                fetch.wake(waker);
                true
            }
            (None, Some(key)) => engine.cache.flights.wake(key, waker),
            (None, None) => false,
        }
    }

    /// When it has waited for an equal call for as long as its client would for an answer.
    pub(super) fn patient_until(&self) -> Option<Timestamp> {
        Some(self.waits_since?.plus(self.patience?))
    }

    /// The call is over.
    pub(super) fn finish(
        &mut self,
        engine: &Engine,
        part: &CachePart,
        (outcome, hung): (Outcome, bool),
        (cost, tokens): (Option<i64>, Option<u64>),
        now: Timestamp,
    ) {
        // Those who waited for one that hung have waited for long enough: one after the other would for each one's time.
        let mut landing = if hung { Landing::Unshared } else { Landing::Over };
        if let Some(storing) = self.storing.take() {
            let Storing { mut answer, mut body, .. } = *storing;
            // One that broke off is none (RFC 9111, section 3.3).
            let promised = answer.length().is_none_or(|length| length == body.len() as u64);
            if outcome == Outcome::Complete && promised {
                // Room that is not used would be held beside what is weighed.
                body.shrink_to_fit();
                (answer.body, answer.cost, answer.tokens) = (body.into(), cost, tokens.unwrap_or(0));
                let shareable = answer.is_of_use(&part.rule, now);
                self.status.stored = engine.cache.keep(&self.ask, &part.rule, Arc::new(answer));
                landing = if self.status.stored && shareable { Landing::Kept } else { Landing::Unshared };
            }
        }
        self.land(landing, now);
    }

    /// That of a call beside this one, which asks whether what was found is still good, and leads from now on.
    pub(super) fn take_to_refresh(&mut self) -> Self {
        Self {
            stage: Stage::Sent,
            ask: std::mem::take(&mut self.ask),
            key: self.key,
            leads: self.leads.take(),
            hosted: std::mem::take(&mut self.hosted),
            found: self.found.take(),
            looked: self.looked,
            status: Status { forwarded: Some(Forwarded::Stale), ..Status::default() },
            ..Self::default()
        }
    }

    /// Of a call that was answered with what [`Cached::begin`] had looked up: nothing else was noted.
    pub(super) fn let_go(&mut self) {
        self.ask.forget();
        (self.stage, self.changes, self.refreshes, self.patience) = (Stage::Off, None, false, None);
    }

    /// Of a call before. In place: what is kept of it is its memory, and it is large.
    pub(super) fn forget(&mut self) {
        let Self {
            stage,
            ask,
            key,
            changes,
            leads,
            hosted,
            waits_since,
            patience,
            waits_for,
            joined,
            fetch,
            fetched,
            fetches,
            found,
            looked,
            conditional,
            declined,
            refreshes,
            refreshing,
            confirmed,
            storing,
            status,
            saved,
        } = self;
        ask.forget();
        (*stage, *key, *changes, *status, *saved) =
            (Stage::Off, Key::default(), None, Status::default(), Saved::default());
        (*leads, *hosted, *waits_since, *waits_for, *joined) = (None, false, None, None, false);
        *patience = None;
        (*fetch, *fetched, *fetches, *found, *confirmed, *storing) = (None, None, 0, None, None, None);
        *looked = Timestamp::default();
        (*conditional, *declined, *refreshes, *refreshing) = (false, false, false, false);
    }
}

impl Call {
    /// Whether the answer's body is kept as it is read, which it is only where all of it is.
    #[must_use]
    pub fn keeps_body(&self) -> bool {
        self.flow.as_ref().is_some_and(|Standing { flow, .. }| flow.cached.wants_body())
    }
}

impl Engine {
    /// Where answers lie from now on; without one nothing is kept. Said once.
    pub fn set_cache_store(&self, store: Arc<dyn Store>) {
        self.cache.set_store(store);
    }

    /// Forgets the answers that a matcher says, by vendor, endpoint, method and customer, and does not keep those
    /// that are under way; returns how many there were.
    pub fn purge_cache(&self, which: &Matcher, now: Timestamp) -> u64 {
        let purges = |answer: &Answer| answer.label.is_of(which);
        let purged = self.cache.purge(&purges, now);
        if let Some(store) = self.cache.shared() {
            let which = which.clone();
            store.purge_beyond(Arc::new(move |answer| answer.label.is_of(&which)), now);
        }
        purged
    }

    /// Whether any rule keeps answers.
    #[must_use]
    pub fn has_caches(&self) -> bool {
        let rules = self.rules.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        !rules.caches.is_empty()
    }
}
