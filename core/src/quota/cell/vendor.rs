//! The vendor's window: what it stated, what we used since, and what others did.

use super::super::stated::{Plausible, Reading, Stated};
use super::super::tick::{Tick, pack, unpack};
use super::super::{Limited, Why};
use super::{Cell, Claim, flight, learned};
use crate::units::{Timestamp, stable_hash};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
/// A vendor that says to stay away for longer is asked again once a day.
const LONGEST_BLOCK: u64 = 86_400 * SECOND;
/// How far a clock may go back before what was noted counts as noted by another clock.
const SLACK: u64 = 2 * SECOND;
/// Where a 429 does not say for how long.
const DEFAULT_BLOCK: u64 = SECOND;
/// A window whose length nobody stated is taken to last so long, until an answer says more.
const PROVISIONAL: u64 = SECOND;

/// What is left of the vendor's window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    /// Units that may still go; negative where more went than may.
    pub(super) units: i64,
    pub(super) resets_at: u64,
    pub(super) limit: u32,
}

impl Left {
    /// What is kept for others, of this share in thousandths.
    pub(super) fn floor(&self, kept: u64) -> i64 {
        (u64::from(self.limit) * kept / 1_000) as i64
    }

    /// How many units must be there for a call that asks for so many. Who asks for more than there ever is can have it
    /// all: vendors let a window go into debt, and the estimate is the most that it can come to.
    pub(super) fn needs(&self, units: u32, kept: u64) -> i64 {
        let most = i64::from(self.limit) - self.floor(kept);
        i64::from(units).min(most.max(1))
    }
}

/// How a quota stands, for reports and incidents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The vendor's limit, as last stated.
    pub limit: Option<u64>,
    /// The vendor's remainder, as last stated.
    pub remaining: Option<u64>,
    /// When the vendor's answer that stated it came, within 17 ms.
    pub stated_at: Option<Timestamp>,
    /// When the window began, as far as we know.
    pub opened_at: Option<Timestamp>,
    /// When the window ends.
    pub resets_at: Option<Timestamp>,
    /// How long the vendor's windows are.
    pub window: Option<Duration>,
    /// Units of ours since the window began, calls under way included.
    pub own: u64,
    /// Those of `own` that we counted: the rest was used before we began to.
    pub counted: u64,
    /// Units that the vendor counted and we did not: somebody else uses this credential. Answers that overtake
    /// each other blur it by the number of calls under way.
    pub foreign: u64,
    /// Units that we believe to be left.
    pub left: Option<u64>,
    /// The vendor said to stay away until then.
    pub blocked_until: Option<Timestamp>,
    /// What it meant by that, where it did: [`Why::Exhausted`] or [`Why::RateLimited`].
    pub blocked_why: Option<Why>,
    /// The learned limit, in thousandths of a unit per second.
    pub learned_per_second: Option<u64>,
    /// When that is forgotten, unless another 429 comes.
    pub learned_until: Option<Timestamp>,
    /// Calls under way, where the rule limits them.
    pub under_way: u64,
    /// What the fleet granted may be used until then.
    pub leased_until: Option<Timestamp>,
}

impl Standing {
    /// When the vendor will answer again, as far as it said: after its block, and not before the reset where
    /// nothing is left.
    pub(crate) fn free_at(&self) -> Option<Timestamp> {
        let reset = self.resets_at.filter(|_| self.remaining == Some(0));
        self.blocked_until.max(reset)
    }

    /// What still holds for a window that is over.
    pub(in super::super) const fn of_an_earlier_window(self) -> Self {
        Self { remaining: None, resets_at: None, foreign: 0, own: 0, counted: 0, left: None, ..self }
    }
}

impl Cell {
    /// Takes what the answer to a call said about the quota. An answer to an older call never raises what is
    /// left: answers overtake each other.
    pub fn state(&self, claim: &Claim, stated: &Stated, now: Timestamp) -> Reading {
        let Some(said) = stated.check(now) else { return Reading::Implausible };
        let at = now.as_nanos();
        self.roll(at);
        if let Some(window) = said.window {
            let (_, share) = unpack(self.terms.load(Relaxed));
            self.terms.store(pack(window, share), Relaxed);
        }
        let ticket = claim.ticket_or(self.begun.load(Relaxed) as u32);
        if self.take(&said, ticket, at) {
            return Reading::Taken;
        }
        self.lower(&said, at);
        Reading::Older
    }

    /// The vendor refused a call: with a 429, or whatever it means by one.
    pub fn limited(&self, claim: &Claim, how: Limited, retry_at: Option<Timestamp>, now: Timestamp) {
        let at = now.as_nanos();
        let until = match retry_at {
            Some(retry_at) => retry_at.as_nanos().min(at.saturating_add(LONGEST_BLOCK)),
            None => match (how, self.left(at)) {
                (Limited::Exhausted, Some(left)) => left.resets_at.min(at.saturating_add(LONGEST_BLOCK)),
                (Limited::Exhausted, None) => at.saturating_add(60 * SECOND),
                (Limited::Rate, _) => at.saturating_add(DEFAULT_BLOCK),
            },
        };
        // What was refused in one burst: an answer without a time takes none from one that had it.
        let longer = retry_at.is_none() && self.block_heard_amid(claim, at).is_some_and(|held| held > until);
        if until > at && !longer {
            let since = (Tick::floor(at).0 & !1) | u32::from(how == Limited::Exhausted);
            self.blocked.store(pack(Tick::ceil(until).0, since), Relaxed);
        }
        if how == Limited::Rate && self.stated.load(Relaxed) == 0 {
            let begun = claim.asked_at().unwrap_or(at);
            learned::decrease(&self.learned, self.observed(at), begun, at);
        }
    }

    /// How the quota stands.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        self.roll(now.as_nanos());
        self.as_left(now)
    }

    /// How it stood when a call last asked or was answered: a window that is over since is not followed by another.
    pub(in super::super) fn as_left(&self, now: Timestamp) -> Standing {
        let at = now.as_nanos();
        let moment = |tick: u32| Timestamp::from_nanos(Tick(tick).nanos(at));
        let (limit, remaining) = unpack(self.stated.load(Relaxed));
        let (newest, stated_at) = unpack(self.newest.load(Relaxed));
        let opened = self.opened.load(Relaxed);
        let (opened_at, first) = unpack(opened);
        let known = stated_at != 0 && limit != 0;
        let own_then = newest.wrapping_sub(first) as i32;
        let used = limit.saturating_sub(remaining);
        let left = self.left(at);
        let (leased, _) = unpack(self.lease.load(Relaxed));
        let window = self.window_length();
        let begun = self.begun.load(Relaxed);
        let own = u64::try_from((begun as u32).wrapping_sub(first) as i32).unwrap_or(0);
        let (blocked_until, blocked_why) = self.block(at).unzip();
        let learned = self.learned.load(Relaxed);
        Standing {
            limit: known.then_some(u64::from(limit)),
            remaining: known.then_some(u64::from(remaining)),
            stated_at: (stated_at != 0).then(|| moment(stated_at)),
            opened_at: (opened != 0).then(|| moment(opened_at)),
            resets_at: left.map(|left| Timestamp::from_nanos(left.resets_at)),
            window: (window != 0).then(|| Duration::from_nanos(window)),
            own,
            counted: own.min(begun),
            foreign: if known && opened != 0 && own_then >= 0 {
                u64::from(used.saturating_sub(own_then as u32))
            } else {
                0
            },
            left: left.map(|left| left.units.max(0) as u64),
            blocked_until: blocked_until.map(Timestamp::from_nanos),
            blocked_why,
            learned_per_second: learned::rate(learned, at),
            learned_until: learned::until(learned, at).map(Timestamp::from_nanos),
            under_way: flight::count(&self.flying, at),
            leased_until: (leased != 0).then(|| moment(leased)).filter(|until| *until > now),
        }
    }

    /// Stands for all that calls and answers did to it; 0 where nobody said anything about it yet.
    pub(in super::super) fn mark(&self) -> u64 {
        let Self { begun, opened, stated, newest, blocked, learned, .. } = self;
        if [stated, newest, blocked, learned].iter().all(|word| word.load(Relaxed) == 0) {
            return 0;
        }
        let words = [begun, opened, stated, newest, blocked, learned];
        words.iter().fold(1, |mark, word| stable_hash(mark, &word.load(Relaxed).to_le_bytes())).max(1)
    }

    /// The vendor said to stay away, until when and why.
    pub(super) fn block(&self, now: u64) -> Option<(u64, Why)> {
        let word = self.blocked.load(Relaxed);
        if word == 0 {
            return None;
        }
        let (until, since) = unpack(word);
        let until = Tick(until).nanos(now);
        // Said in the future: the clock went back, and how far is anybody's guess.
        let jumped = Tick(since).nanos(now) > now.saturating_add(SLACK);
        let why = if since & 1 == 1 { Why::Exhausted } else { Why::RateLimited };
        (until > now && !jumped).then_some((until, why))
    }

    /// Until when the vendor said to stay away, where it did so while this call was under way.
    fn block_heard_amid(&self, claim: &Claim, now: u64) -> Option<u64> {
        let (until, _) = self.block(now)?;
        let (_, since) = unpack(self.blocked.load(Relaxed));
        let heard = Tick((since | 1).wrapping_add(1)).nanos(now);
        let sane = until.saturating_sub(heard) <= LONGEST_BLOCK;
        (sane && claim.asked_at().is_some_and(|asked| asked < heard)).then_some(until)
    }

    /// What is left of the window; `None` where the vendor stated none.
    pub(super) fn left(&self, now: u64) -> Option<Left> {
        let window = self.window.load(Relaxed);
        if window == 0 {
            return None;
        }
        let (reset, horizon) = unpack(window);
        let units = i64::from(horizon.wrapping_sub(self.begun.load(Relaxed) as u32) as i32);
        let limit = self.stated_limit();
        Some(Left { units, resets_at: Tick(reset).nanos(now), limit })
    }

    /// The vendor's limit as last stated; 0 where it stated none.
    pub(super) fn stated_limit(&self) -> u32 {
        unpack(self.stated.load(Relaxed)).0.min(i32::MAX as u32)
    }

    /// The length of the vendor's windows in nanoseconds; 0 where it is not known.
    pub(super) fn window_length(&self) -> u64 {
        u64::from(unpack(self.terms.load(Relaxed)).0) * 1_000_000
    }

    /// The time until the reset in nanoseconds; `None` where none was stated.
    pub(in super::super) fn time_left(&self, now: u64) -> Option<u64> {
        self.left(now).map(|left| left.resets_at.saturating_sub(now)).filter(|time| *time > 0)
    }

    /// Opens the next window where the last one is over.
    pub(super) fn roll(&self, now: u64) {
        let seen = self.window.load(Relaxed);
        if seen != 0 {
            self.roll_from(seen, now);
        }
    }

    fn roll_from(&self, mut seen: u64, now: u64) {
        while seen != 0 {
            let (reset, _) = unpack(seen);
            let resets_at = Tick(reset).nanos(now);
            let (opened_at, _) = unpack(self.opened.load(Relaxed));
            let jumped = opened_at != 0 && Tick(opened_at).nanos(now) > now.saturating_add(SLACK);
            if resets_at > now && !jumped {
                return;
            }
            let limit = self.stated_limit();
            let begun = self.begun.load(Relaxed) as u32;
            let next = if limit == 0 || jumped {
                0
            } else {
                let length = self.window_length();
                let windows = (now.saturating_sub(resets_at)).checked_div(length);
                let ends = windows.map_or(now.saturating_add(PROVISIONAL), |windows| {
                    resets_at.saturating_add(windows.saturating_add(1).saturating_mul(length))
                });
                pack(Tick::ceil(ends).0, begun.wrapping_add(limit))
            };
            match self.window.compare_exchange(seen, next, Relaxed, Relaxed) {
                Ok(_) => {
                    self.opened.store(pack(Tick::floor(now).0, begun), Relaxed);
                    return;
                }
                Err(other) => seen = other,
            }
        }
    }

    /// Whether no newer call has spoken; then this one is the newest.
    fn is_newest(&self, ticket: u32, now: u64) -> bool {
        let newest = self.newest.fetch_update(Relaxed, Relaxed, |seen| {
            let (newest, heard) = unpack(seen);
            let older = seen != 0 && (ticket.wrapping_sub(newest) as i32) < 0;
            // A minute later, or before it was said by this clock, the order of then says nothing.
            let heard = Tick(heard).nanos(now);
            let stale = now.saturating_sub(heard) > 60 * SECOND || heard > now.saturating_add(SLACK);
            (!older || stale).then(|| pack(ticket, Tick::floor(now).0))
        });
        newest.is_ok()
    }

    /// Takes a statement, if it is that of the newest call so far.
    fn take(&self, said: &Plausible, ticket: u32, now: u64) -> bool {
        loop {
            let seen = self.window.load(Relaxed);
            if !self.is_newest(ticket, now) {
                return false;
            }
            self.note(said, ticket, now);
            let (Some(remaining), Some(resets_at)) = (said.remaining, said.resets_at) else { return true };
            let new = pack(Tick::ceil(resets_at).0, ticket.wrapping_add(remaining));
            if self.window.compare_exchange(seen, new, Relaxed, Relaxed).is_ok() {
                let raised = seen != 0 && (unpack(seen).1.wrapping_sub(unpack(new).1) as i32) < 0;
                if raised && !self.is_newest(ticket, now) {
                    // A newer answer came in between, and said what stood there before.
                    let _ = self.window.compare_exchange(new, seen, Relaxed, Relaxed);
                } else if seen != 0 && self.is_next((unpack(seen).0, resets_at), now) {
                    self.open_next(ticket, now);
                }
                return true;
            }
        }
    }

    /// Whether a statement is that of the next window, though by this clock the last one is not over: clocks differ, and
    /// resets are rounded to seconds. The last reset is due about now, and the next one is half a window later or more;
    /// one that moves ahead with each answer does that only after as long a silence.
    fn is_next(&self, (reset, next): (u32, u64), now: u64) -> bool {
        let reset = Tick(reset).nanos(now);
        let length = self.window_length().max(next.saturating_sub(now));
        reset.saturating_sub(now) <= SLACK.min(length / 2) && next.saturating_sub(reset) >= length / 2
    }

    /// Begins the next window with an answer that spoke of it. What is used of it may all be ours, as far as we made as
    /// many calls; of the calls before that, none are of this window.
    fn open_next(&self, ticket: u32, now: u64) {
        let (limit, remaining) = unpack(self.stated.load(Relaxed));
        let seen = self.opened.load(Relaxed);
        let own = ticket.wrapping_sub(unpack(seen).1);
        // An answer to a call of before the window was opened.
        if (own as i32) < 0 {
            return;
        }
        let first = ticket.wrapping_sub(own.min(limit.saturating_sub(remaining)));
        let opened = pack(Tick::floor(now).0, first);
        // Who opened it meanwhile knows as much.
        let _ = self.opened.compare_exchange(seen, opened, Relaxed, Relaxed);
    }

    /// Keeps the numbers as they were stated.
    fn note(&self, said: &Plausible, ticket: u32, now: u64) {
        let (limit, remaining) = unpack(self.stated.load(Relaxed));
        match (said.limit, said.remaining) {
            (Some(limit), None) => self.stated.store(pack(limit, remaining.min(limit)), Relaxed),
            (None, None) => {}
            (stated, Some(remaining)) => {
                let limit = stated.unwrap_or(limit.max(remaining));
                self.stated.store(pack(limit, remaining), Relaxed);
                if self.opened.load(Relaxed) == 0 {
                    // Who used what is gone already cannot be known: it counts as nobody's.
                    let used = limit.saturating_sub(remaining);
                    self.opened.store(pack(Tick::floor(now).0, ticket.wrapping_sub(used)), Relaxed);
                }
            }
        }
    }

    /// Takes only bad news: what an older answer saw left, there cannot be more of now.
    fn lower(&self, said: &Plausible, now: u64) {
        let Some(remaining) = said.remaining else { return };
        let begun = self.begun.load(Relaxed) as u32;
        let length = self.window_length();
        let slack = if length == 0 { SLACK } else { SLACK.min(length / 2) };
        let _ = self.window.fetch_update(Relaxed, Relaxed, |seen| {
            let (reset, horizon) = unpack(seen);
            // Of the window before this one it says nothing that still holds.
            let same = said.resets_at.is_none_or(|at| at.abs_diff(Tick(reset).nanos(now)) <= slack);
            let lower = begun.wrapping_add(remaining);
            (same && seen != 0 && (lower.wrapping_sub(horizon) as i32) < 0).then(|| pack(reset, lower))
        });
    }

    /// Calls that went out per second lately, in thousandths.
    pub(super) fn observed(&self, now: u64) -> u64 {
        let (since, first) = unpack(self.pulse.load(Relaxed));
        let elapsed = now.saturating_sub(Tick(since).nanos(now)).max(SECOND);
        let units = (self.begun.load(Relaxed) as u32).wrapping_sub(first);
        let present = if since == 0 { 0 } else { per_second(units, elapsed) };
        present.max(self.rate.load(Relaxed))
    }

    /// Measures the rate of use, a second at a time.
    pub(super) fn beat(&self, now: u64) {
        let seen = self.pulse.load(Relaxed);
        let (since, first) = unpack(seen);
        let since_nanos = Tick(since).nanos(now);
        let elapsed = now.saturating_sub(since_nanos);
        if since != 0 && elapsed < SECOND && since_nanos <= now.saturating_add(SLACK) {
            return;
        }
        self.measure((seen, since, first), elapsed, now);
    }

    #[cold]
    #[inline(never)]
    fn measure(&self, (seen, since, first): (u64, u32, u32), elapsed: u64, now: u64) {
        let begun = self.begun.load(Relaxed) as u32;
        let next = pack(Tick::floor(now).0, begun);
        if self.pulse.compare_exchange(seen, next, Relaxed, Relaxed).is_ok() && since != 0 {
            self.rate.store(per_second(begun.wrapping_sub(first), elapsed.max(SECOND)), Relaxed);
        }
    }
}

fn per_second(units: u32, nanos: u64) -> u64 {
    (u128::from(units) * u128::from(1_000 * SECOND) / u128::from(nanos.max(1))) as u64
}
