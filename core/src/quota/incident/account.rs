//! Who used the present window of a quota, and the one before: constant memory and no lock, but for the list of
//! tallies, which grows with the number of those who keep one.

use super::answers::ByStatus;
use super::heavy::Heavy;
use super::tally::{Left, Tally, short};
use super::{Incident, Kind, Mix, Share, User};
use crate::quota::rule::{Limit, Rule, nanos};
use crate::quota::{CellHome, Standing, Why};
use crate::units::{Timestamp, stable_hash};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SECOND: u64 = 1_000_000_000;
/// Without a known window, use is told by the minute.
const DEFAULT_WINDOW: u64 = 60 * SECOND;
/// A window in which something happened waits so long to be fetched, before the one after is added to it.
const LONGEST_DELAY: u64 = 60 * SECOND;
const FIELD: u32 = 21;
const FIELD_MASK: u64 = (1 << FIELD) - 1;

/// Something to make an incident of.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Breach {
    pub(in super::super) kind: Kind,
    /// The vendor's status, where it was the vendor.
    pub(in super::super) status: u16,
    pub(in super::super) why: Why,
    pub(in super::super) retry_at: u64,
    /// Whose call it was, where it was refused here.
    pub(in super::super) customer: u32,
}

#[derive(Debug, Default)]
struct Window {
    began: AtomicU64,
    ends: AtomicU64,
    own: AtomicU64,
    refused: AtomicU64,
    limited: AtomicU64,
    exhausted: AtomicU64,
    answers: ByStatus,
    /// 429s and refusals that an incident told of.
    told: AtomicU64,
    at: AtomicU64,
    why: AtomicU64,
    retry_at: AtomicU64,
    /// When somebody else who shares the quota was refused in this window; 0 where nobody is known to have been.
    asked: AtomicU64,
    /// Units that were told of since, and one; 0 before anything was.
    told_own: AtomicU64,
    customers: Heavy,
    callers: Heavy,
    endpoints: Heavy,
    credentials: Heavy,
    mixes: Heavy,
    /// Calls that were refused here, by customer.
    kept_back: Heavy,
}

/// The present window and the one before.
#[derive(Debug, Default)]
pub(in super::super) struct Account {
    windows: [Window; 2],
    turn: AtomicU64,
    tallies: Mutex<Tallies>,
    /// What others use too, and note there that they were refused.
    cell: Beside,
}

/// A cell that is not the account's own.
#[derive(Default)]
struct Beside(Option<CellHome>);

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Beside").field(&self.0.is_some()).finish()
    }
}

/// What was added up elsewhere: for as long as somebody may add to it, and until it was collected.
#[derive(Debug, Default)]
struct Tallies {
    kept: Vec<Arc<Tally>>,
    /// At so many, those that nobody adds to any more leave.
    crowd: usize,
}

impl Account {
    /// The account of a quota that others use too: it also tells who used a window in which they were refused.
    pub(in super::super) fn beside(cell: CellHome) -> Self {
        Self { cell: Beside(Some(cell)), ..Self::default() }
    }

    /// Looks whether somebody else was refused in this window.
    fn hear(&self, window: &Window) {
        let Some(cell) = &self.cell.0 else { return };
        let (at, began, ends) =
            ((**cell).as_ref().breached_at(), window.began.load(Relaxed), window.ends.load(Relaxed));
        if at != 0 && began <= at && at < ends && ends != u64::MAX {
            let _ = window.asked.compare_exchange(0, at, Relaxed, Relaxed);
        }
    }

    /// A tally for one user, or for one of several places that make its calls.
    pub(in super::super) fn tally(&self, user: User) -> Arc<Tally> {
        let tally = Arc::new(Tally::new(user));
        let mut tallies = self.tallies();
        if tallies.kept.len() >= tallies.crowd {
            tallies.kept.retain(|tally| {
                let used = Arc::strong_count(tally) > 1;
                if !used {
                    self.collect(tally.user(), tally.take());
                }
                used
            });
            tallies.crowd = (tallies.kept.len() * 2).max(16);
        }
        tallies.kept.push(Arc::clone(&tally));
        tally
    }

    /// Counts a call that goes, in the tally of whoever makes it.
    pub(in super::super) fn went_by(
        &self,
        tally: &Tally,
        units: u64,
        rule: &Rule,
        resets_at: Option<u64>,
        now: u64,
    ) {
        self.present(rule, resets_at, now);
        self.collect(tally.user(), tally.add(self.turn.load(Relaxed), units));
    }

    /// Stands for what those who keep tallies used; `None` where they used nothing yet.
    pub(in super::super) fn mark(&self) -> Option<u64> {
        let tallies = self.tallies();
        let words = || tallies.kept.iter().map(|tally| tally.mark());
        let used = words().any(|word| word != 0);
        used.then(|| words().fold(0, |mark, word| stable_hash(mark, &word.to_le_bytes())))
    }

    fn tallies(&self) -> MutexGuard<'_, Tallies> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what a tally let go of, if somebody may still ask for its window.
    fn collect(&self, user: &User, left: Left) {
        if left.units > 0 {
            self.take_in(user, left);
        }
    }

    #[cold]
    #[inline(never)]
    fn take_in(&self, user: &User, Left { turn, units }: Left) {
        let present = self.turn.load(Relaxed);
        let (now, before) =
            (&self.windows[(present & 1) as usize], &self.windows[(present & 1 ^ 1) as usize]);
        if turn == short(present) {
            now.add(user, units);
        } else if turn == short(present.wrapping_sub(1))
            && (before.is_untold() || before.asked.load(Relaxed) != 0)
        {
            // One that is told of becomes the next one at any moment.
            before.add(user, units);
        }
    }

    /// Counts a call that goes.
    pub(in super::super) fn went(
        &self,
        user: &User,
        units: u64,
        rule: &Rule,
        resets_at: Option<u64>,
        now: u64,
    ) {
        self.present(rule, resets_at, now).add(user, units);
    }

    /// Notes a 429 or a refusal.
    pub(in super::super) fn breached(&self, breach: Breach, rule: &Rule, resets_at: Option<u64>, now: u64) {
        let window = self.present(rule, resets_at, now);
        window.count(breach.kind).fetch_add(1, Relaxed);
        let _ = window.at.compare_exchange(0, now, Relaxed, Relaxed);
        window.retry_at.fetch_max(breach.retry_at, Relaxed);
        match breach.kind {
            Kind::Own => {
                window.why.store(breach.why as u64 + 1, Relaxed);
                window.kept_back.add(u64::from(breach.customer) + 1, 1);
            }
            kind => window.answers.add(breach.status, kind == Kind::Exhausted),
        }
    }

    /// A 429 that was noted as one kind turned out to be another.
    pub(in super::super) fn recount(&self, status: u16, (from, to): (Kind, Kind), retry_at: u64) {
        let window = &self.windows[(self.turn.load(Relaxed) & 1) as usize];
        window.retry_at.fetch_max(retry_at, Relaxed);
        let less = |count: u64| count.checked_sub(1);
        // In a window before, it stays what it was taken for.
        if from != to && window.count(from).fetch_update(Relaxed, Relaxed, less).is_ok() {
            window.count(to).fetch_add(1, Relaxed);
            window.answers.take(status, from == Kind::Exhausted);
            window.answers.add(status, to == Kind::Exhausted);
            let _not_told_yet = window.told.fetch_update(Relaxed, Relaxed, less);
        }
    }

    /// What happened since it was last asked; the earlier window first.
    pub(in super::super) fn tell(
        &self,
        standing: impl Fn() -> Standing,
        limit: Option<&Limit>,
    ) -> Option<Incident> {
        let present = (self.turn.load(Relaxed) & 1) as usize;
        [1 - present, present].into_iter().find_map(|index| {
            let window = &self.windows[index];
            self.hear(window);
            if !window.is_untold() && window.asked.load(Relaxed) == 0 {
                return None;
            }
            for tally in &self.tallies().kept {
                self.collect(tally.user(), tally.take());
            }
            let (untold, asked) = (window.is_untold(), window.is_asked());
            let own = window.own.load(Relaxed);
            window.told.store(window.breaches(), Relaxed);
            window.told_own.store(own.wrapping_add(1), Relaxed);
            if !untold && (!asked || own == 0) {
                return None;
            }
            // What the vendor says now is about the present window.
            let standing = if index == present { standing() } else { standing().of_an_earlier_window() };
            Some(window.incident(&standing, limit))
        })
    }

    fn present(&self, rule: &Rule, resets_at: Option<u64>, now: u64) -> &Window {
        let turn = self.turn.load(Relaxed);
        let window = &self.windows[(turn & 1) as usize];
        let ends = window.ends.load(Relaxed);
        let jumped = ends != u64::MAX && window.began.load(Relaxed) > now.saturating_add(2 * SECOND);
        match now < ends && !jumped {
            true => window,
            false => self.turn_page((turn, ends, jumped), rule, resets_at, now),
        }
    }

    /// The window is over, and another one begins, where the one before is told of or long gone.
    #[cold]
    #[inline(never)]
    fn turn_page(
        &self,
        (turn, ends, jumped): (u64, u64, bool),
        rule: &Rule,
        resets_at: Option<u64>,
        now: u64,
    ) -> &Window {
        let window = &self.windows[(turn & 1) as usize];
        let next = &self.windows[(turn.wrapping_add(1) & 1) as usize];
        self.hear(window);
        if (next.is_untold() || next.is_asked())
            && now < next.ends.load(Relaxed).saturating_add(LONGEST_DELAY)
            && ends != 0
            && !jumped
        {
            return window;
        }
        // Whoever wins turns the page; the others go on writing on the old one until it is turned.
        if window.ends.compare_exchange(ends, u64::MAX, Relaxed, Relaxed).is_err() {
            return window;
        }
        let length = rule.limit.map_or(DEFAULT_WINDOW, |limit| nanos(limit.period)).max(SECOND);
        let aligned = now - now % length;
        let new_ends = resets_at.filter(|at| *at > now).unwrap_or_else(|| aligned.saturating_add(length));
        // Who used what is known from the first call on, or since the last window ended.
        let began = if resets_at.is_some() && ends > 0 && ends <= now && now - ends < new_ends - now {
            ends
        } else if resets_at.is_none() {
            aligned
        } else {
            now
        };
        next.clear();
        next.began.store(began, Relaxed);
        next.ends.store(new_ends, Relaxed);
        self.turn.store(turn.wrapping_add(1), Relaxed);
        window.ends.store(ends, Relaxed);
        next
    }

    /// The vendor said when the present window ends. What it says later in a window counts only if it is sooner:
    /// there are buckets whose reset is always ahead.
    pub(in super::super) fn ends(&self, resets_at: u64, now: u64) {
        let window = &self.windows[(self.turn.load(Relaxed) & 1) as usize];
        let _ = window.ends.fetch_update(Relaxed, Relaxed, |ends| {
            let young = now.saturating_sub(window.began.load(Relaxed)) < 5 * SECOND;
            (ends != 0 && ends != u64::MAX && resets_at > now && (resets_at < ends || young))
                .then_some(resets_at)
        });
    }
}

impl Window {
    fn add(&self, user: &User, units: u64) {
        self.own.fetch_add(units, Relaxed);
        self.customers.add(u64::from(user.customer) + 1, units);
        self.callers.add(u64::from(user.caller) + 1, units);
        self.endpoints.add(u64::from(user.endpoint) + 1, units);
        self.credentials.add(u64::from(user.credential) + 1, units);
        let field = |id: u32| (u64::from(id) + 1).min(FIELD_MASK);
        let mix = field(user.customer) << (2 * FIELD) | field(user.endpoint) << FIELD | field(user.caller);
        self.mixes.add(mix, units);
    }

    const fn count(&self, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Rate => &self.limited,
            Kind::Exhausted => &self.exhausted,
            Kind::Own => &self.refused,
        }
    }

    /// Whether something happened that no incident told of.
    fn is_untold(&self) -> bool {
        self.breaches() != self.told.load(Relaxed)
    }

    /// Whether somebody else was refused in it, and what was used here was not told of since.
    fn is_asked(&self) -> bool {
        self.asked.load(Relaxed) != 0 && self.own.load(Relaxed).wrapping_add(1) != self.told_own.load(Relaxed)
    }

    fn breaches(&self) -> u64 {
        self.limited.load(Relaxed) + self.exhausted.load(Relaxed) + self.refused.load(Relaxed)
    }

    fn clear(&self) {
        let Self { began, ends, own, refused, limited, exhausted, told, at, .. } = self;
        let Self { why, retry_at, asked, told_own, .. } = self;
        let words = [began, ends, own, refused, limited, exhausted, told, at, why, retry_at, asked, told_own];
        for word in words {
            word.store(0, Relaxed);
        }
        self.answers.clear();
        let Self { customers, callers, endpoints, credentials, mixes, kept_back, .. } = self;
        for heavy in [customers, callers, endpoints, credentials, mixes, kept_back] {
            heavy.clear();
        }
    }

    fn incident(&self, standing: &Standing, limit: Option<&Limit>) -> Incident {
        let moment = |word: &AtomicU64| Timestamp::from_nanos(word.load(Relaxed));
        let (limited, exhausted) = (self.limited.load(Relaxed), self.exhausted.load(Relaxed));
        let refused = self.refused.load(Relaxed);
        let kind = match (exhausted, limited) {
            (0, 0) => Kind::Own,
            (0, _) => Kind::Rate,
            _ => Kind::Exhausted,
        };
        let shares = |heavy: &Heavy| {
            let top = heavy.top().into_iter();
            top.map(|(key, units, at_least)| Share { id: (key - 1) as u32, units, at_least }).collect()
        };
        let field = |key: u64, number: u32| match key >> (number * FIELD) & FIELD_MASK {
            FIELD_MASK | 0 => u32::MAX,
            id => (id - 1) as u32,
        };
        let mixes = self.mixes.top().into_iter().map(|(key, units, at_least)| Mix {
            customer: field(key, 2),
            endpoint: field(key, 1),
            caller: field(key, 0),
            units,
            at_least,
        });
        let why = self.why.load(Relaxed);
        let retry_at = self.retry_at.load(Relaxed);
        Incident {
            kind,
            why: if kind == Kind::Own {
                Why::ALL.into_iter().find(|known| *known as u64 + 1 == why)
            } else {
                None
            },
            shared: false,
            at: if self.at.load(Relaxed) == 0 { moment(&self.asked) } else { moment(&self.at) },
            count: if kind == Kind::Own { refused } else { limited + exhausted },
            answers: self.answers.list(),
            began: moment(&self.began),
            ends: moment(&self.ends),
            unit: limit.map(|limit| limit.unit).unwrap_or_default(),
            limit: standing.limit.or(limit.map(|limit| limit.units)),
            limit_window: match standing.limit {
                Some(_) => standing.window,
                None => limit.map(|limit| limit.period),
            },
            remaining: standing.remaining,
            resets_at: standing.resets_at,
            retry_at: (retry_at != 0).then(|| Timestamp::from_nanos(retry_at)),
            own: self.own.load(Relaxed),
            foreign: standing.foreign,
            refused,
            kept_back: shares(&self.kept_back),
            customers: shares(&self.customers),
            callers: shares(&self.callers),
            endpoints: shares(&self.endpoints),
            credentials: shares(&self.credentials),
            mixes: mixes.collect(),
        }
    }
}
