//! The account of one combination of everything that calls are told apart by.

use super::{Exemplar, Sketch, Sums};
use crate::call::{ConnectTimes, ErrorType, Outcome, RefusedBy, Tap};
use crate::cost::Unknown;
use crate::units::Timestamp;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::time::Duration;

/// What a series is known by, as numbers of its shard.
#[derive(Clone, Copy, Debug, Eq)]
pub(crate) struct SeriesKey {
    pub(crate) vendor: u32,
    pub(crate) endpoint: u32,
    pub(crate) customer: u32,
    pub(crate) tags: u32,
    pub(crate) caller: u32,
    pub(crate) status: u16,
    pub(crate) outcome: u8,
    pub(crate) tap: u8,
}

impl PartialEq for SeriesKey {
    fn eq(&self, other: &Self) -> bool {
        self.words() == other.words()
    }
}

impl Hash for SeriesKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words().into_iter().for_each(|word| state.write_u64(word));
    }
}

/// Outcomes above this number are refusals.
const REFUSED: u8 = 128;
/// That of the outbox, and those of the cache; errors are far below.
const PARKED: u8 = 125;
const CACHED: u8 = 126;
const STALE: u8 = 127;

impl SeriesKey {
    /// All of it in as few words as it fits into: a hasher takes a byte no faster than eight.
    fn words(&self) -> [u64; 3] {
        let Self { vendor, endpoint, customer, tags, caller, status, outcome, tap } = *self;
        let rest = u64::from(status) << 16 | u64::from(outcome) << 8 | u64::from(tap);
        [
            u64::from(vendor) << 32 | u64::from(endpoint),
            u64::from(customer) << 32 | u64::from(tags),
            u64::from(caller) << 32 | rest,
        ]
    }

    /// A byte that differs for most keys, found with one multiplication. What counts up from small numbers (endpoint,
    /// customer, status, caller) is moved apart first. Whoever makes keys that have the same gains nothing but a longer
    /// way to their series.
    pub(super) fn quick(&self) -> u8 {
        let [one, two, three] = self.words();
        let mixed = one ^ two.rotate_left(37) ^ three.rotate_left(11);
        (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
    }

    pub(crate) fn outcome(self) -> Outcome {
        match self.outcome {
            0 => Outcome::Complete,
            1 => Outcome::Abandoned,
            CACHED => Outcome::Cached,
            STALE => Outcome::Stale,
            PARKED => Outcome::Parked,
            number if number > REFUSED => Outcome::Refused(RefusedBy::from_number(number - REFUSED)),
            number => Outcome::Failed(ErrorType::from_number(number - 1)),
        }
    }

    /// Whether the call failed.
    pub(super) const fn has_failed(&self) -> bool {
        // Behind the two that say that it came through.
        2 <= self.outcome && self.outcome < PARKED
    }

    pub(crate) fn outcome_number(outcome: Outcome) -> u8 {
        match outcome {
            Outcome::Complete => 0,
            Outcome::Abandoned => 1,
            Outcome::Failed(error) => error as u8 + 1,
            Outcome::Refused(by) => by as u8 + REFUSED,
            Outcome::Cached => CACHED,
            Outcome::Stale => STALE,
            Outcome::Parked => PARKED,
        }
    }

    pub(crate) fn tap(self) -> Tap {
        if self.tap == Tap::Kernel as u8 { Tap::Kernel } else { Tap::Library }
    }
}

/// A call as its series accounts for it; durations in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) begun: Timestamp,
    pub(crate) duration: u64,
    pub(crate) ttfb: Option<NonZeroU64>,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) attempts: u32,
    /// Waited before and between attempts, because a rule said so.
    pub(crate) waited: u64,
    /// In nano-units of the account's currency.
    pub(crate) cost: i64,
    /// Why that is not all: a price was missing for a part of the call, or its usage.
    pub(crate) cost_unknown: Option<Unknown>,
    pub(crate) tokens_in: u64,
    pub(crate) tokens_out: u64,
    /// Of the answer's body, where it came from the cache.
    pub(crate) saved_bytes: u64,
    /// What the answer cost that the cache had.
    pub(crate) saved_cost: i64,
    /// Exchanges that it spared.
    pub(crate) saved_requests: u64,
    /// Tokens that the answer used that the cache had.
    pub(crate) saved_tokens: u64,
}

impl Entry {
    /// Whether it neither waited nor cost nor saved anything, as most calls of most programs.
    const fn is_plain(&self) -> bool {
        let saved =
            self.saved_bytes | self.saved_requests | self.saved_tokens | self.saved_cost.cast_unsigned();
        let used =
            self.tokens_in | self.tokens_out | self.cost.cast_unsigned() | self.cost_unknown.is_some() as u64;
        saved | used | self.waited == 0
    }

    pub(crate) fn exemplar(&self, row: usize) -> Exemplar {
        Exemplar {
            id: self.id,
            begun: self.begun,
            duration: Duration::from_nanos(self.duration),
            ttfb: self.ttfb.map(|ttfb| Duration::from_nanos(ttfb.get())),
            bytes_out: self.bytes_out,
            bytes_in: self.bytes_in,
            attempts: self.attempts,
            waited: Duration::from_nanos(self.waited),
            // Nothing that is not all is no statement.
            cost: (self.cost_unknown.is_none() || self.cost != 0).then_some(self.cost),
            cost_unknown: self.cost_unknown,
            events: String::new(),
            row,
        }
    }
}

/// [`Sums`] with durations in nanoseconds: half the size, and cheaper to add to.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    calls: u64,
    attempts: u64,
    bytes_out: u64,
    bytes_in: u64,
    answered: u64,
    connections: u64,
    dns_known: u64,
    connect_known: u64,
    tls_known: u64,
    duration: u64,
    ttfb: u64,
    transfer: u64,
    dns: u64,
    connect: u64,
    tls: u64,
    waited: u64,
    cost: i64,
    cost_unknown: u64,
    tokens_in: u64,
    tokens_out: u64,
    saved_bytes: u64,
    saved_cost: i64,
    saved_requests: u64,
    saved_tokens: u64,
}

/// The account itself. Emptied at each drain, with its memory kept.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) key: SeriesKey,
    /// Drains since the last call.
    pub(crate) idle: u32,
    pub(crate) minute: u64,
    account: Account,
    pub(crate) latency: Sketch,
    pub(crate) slowest: Entry,
}

impl Series {
    pub(crate) fn new(key: SeriesKey) -> Self {
        Self {
            key,
            idle: 0,
            minute: 0,
            account: Account::default(),
            latency: Sketch::new(),
            slowest: Entry::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.account.calls == 0
    }

    pub(crate) fn add(&mut self, entry: &Entry, times: ConnectTimes) {
        let account = &mut self.account;
        account.calls += 1;
        account.attempts += u64::from(entry.attempts);
        account.bytes_out = account.bytes_out.saturating_add(entry.bytes_out);
        account.bytes_in = account.bytes_in.saturating_add(entry.bytes_in);
        account.duration = account.duration.saturating_add(entry.duration);
        if !entry.is_plain() {
            account.waited = account.waited.saturating_add(entry.waited);
            account.cost = account.cost.saturating_add(entry.cost);
            account.cost_unknown += u64::from(entry.cost_unknown.is_some());
            account.tokens_in = account.tokens_in.saturating_add(entry.tokens_in);
            account.tokens_out = account.tokens_out.saturating_add(entry.tokens_out);
            account.saved_bytes = account.saved_bytes.saturating_add(entry.saved_bytes);
            account.saved_cost = account.saved_cost.saturating_add(entry.saved_cost);
            account.saved_requests = account.saved_requests.saturating_add(entry.saved_requests);
            account.saved_tokens = account.saved_tokens.saturating_add(entry.saved_tokens);
        }
        if let Some(ttfb) = entry.ttfb {
            account.answered += 1;
            account.ttfb = account.ttfb.saturating_add(ttfb.get());
            account.transfer = account.transfer.saturating_add(entry.duration.saturating_sub(ttfb.get()));
        }
        if times != ConnectTimes::default() {
            account.connections += 1;
            for (known, sum, part) in [
                (&mut account.dns_known, &mut account.dns, times.dns),
                (&mut account.connect_known, &mut account.connect, times.connect),
                (&mut account.tls_known, &mut account.tls, times.tls),
            ] {
                if let Some(took) = part {
                    *known += 1;
                    *sum = sum.saturating_add(nanos(took));
                }
            }
        }
        self.latency.record_nanos(entry.duration);
        if account.calls == 1 || entry.duration > self.slowest.duration {
            self.slowest = *entry;
        }
    }

    pub(crate) fn sums(&self) -> Sums {
        let account = &self.account;
        Sums {
            calls: account.calls,
            attempts: account.attempts,
            bytes_out: account.bytes_out,
            bytes_in: account.bytes_in,
            answered: account.answered,
            connections: account.connections,
            dns_known: account.dns_known,
            connect_known: account.connect_known,
            tls_known: account.tls_known,
            duration: Duration::from_nanos(account.duration),
            ttfb: Duration::from_nanos(account.ttfb),
            transfer: Duration::from_nanos(account.transfer),
            dns: Duration::from_nanos(account.dns),
            connect: Duration::from_nanos(account.connect),
            tls: Duration::from_nanos(account.tls),
            waited: Duration::from_nanos(account.waited),
            cost: account.cost,
            cost_unknown: account.cost_unknown,
            tokens_in: account.tokens_in,
            tokens_out: account.tokens_out,
            saved_bytes: account.saved_bytes,
            saved_cost: account.saved_cost,
            saved_requests: account.saved_requests,
            saved_tokens: account.saved_tokens,
        }
    }

    /// What was counted so far, as a series of its own; this one is left empty.
    pub(crate) fn split_off(&mut self) -> Self {
        let old = Self {
            key: self.key,
            idle: 0,
            minute: self.minute,
            account: self.account,
            latency: self.latency.clone(),
            slowest: self.slowest,
        };
        self.clear();
        old
    }

    pub(crate) fn clear(&mut self) {
        self.account = Account::default();
        self.latency.clear();
        self.idle = 0;
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call that came out so, whatever its status.
    fn key(outcome: u8, status: u16) -> SeriesKey {
        SeriesKey { vendor: 1, endpoint: 1, customer: 1, tags: 1, caller: 1, status, outcome, tap: 0 }
    }

    #[test]
    fn a_call_has_failed_where_its_outcome_says_so() {
        let others =
            [Outcome::Complete, Outcome::Abandoned, Outcome::Cached, Outcome::Stale, Outcome::Parked];
        let failed = ErrorType::ALL.map(Outcome::Failed);
        let refused = RefusedBy::ALL.map(Outcome::Refused);
        for status in (0..=999).chain([u16::MAX]) {
            for outcome in others.iter().chain(&failed).chain(&refused) {
                let key = key(SeriesKey::outcome_number(*outcome), status);
                assert_eq!(key.outcome(), *outcome, "{status}");
                let has_failed = matches!(outcome, Outcome::Failed(_));
                assert_eq!(key.has_failed(), has_failed, "{outcome:?}, {status}");
            }
        }
        // Numbers that no outcome has today are read as one, and must be told as that.
        for number in (0..=u8::MAX).filter(|number| *number != REFUSED) {
            let key = key(number, 200);
            assert_eq!(key.has_failed(), matches!(key.outcome(), Outcome::Failed(_)), "{number}");
        }
    }
}
