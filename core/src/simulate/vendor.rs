//! A vendor that follows its script: how long it takes, when it fails, what it allows and what it says of it.

use super::dice::Dice;
use super::scenario::{Form, Limit, Shows, Vendor};
use super::what_if::times;
use crate::call::ErrorType;
use crate::catalogue::Catalogue;
use crate::quota::dialect::{self, Encoding};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

const MINUTE: u64 = 60_000_000_000;
const SECOND: u64 = 1_000_000_000;
/// How long a client without a timeout of its own waits for a vendor that does not answer.
const PATIENCE: u64 = 30 * SECOND;

/// What a vendor made of an exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Exchange {
    /// When the answer is there, in true time.
    pub(super) at: u64,
    pub(super) ending: Ending,
    pub(super) said: Said,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Status(u16),
    Error(ErrorType),
}

/// What an answer says of the limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    remaining: Option<u64>,
    resets_at: u64,
    retry_at: Option<u64>,
}

impl Default for Ending {
    fn default() -> Self {
        Self::Error(ErrorType::Cancelled)
    }
}

impl Said {
    /// When the vendor asked to come back, in true time.
    pub(super) const fn retry_at(&self) -> Option<u64> {
        self.retry_at
    }
}

/// What a vendor saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// Exchanges.
    pub exchanges: u64,
    /// Those that it answered with a 429.
    pub limited: u64,
    /// Those that it failed: 5xx, and those it never answered.
    pub failed: u64,
    /// Those that came while it was down.
    pub in_outages: u64,
    /// The most in a minute.
    pub busiest_minute: u64,
    /// The most of one credential in one window of the limit, refused ones included.
    pub busiest_window: u64,
}

pub(super) struct Scripted<'s> {
    script: &'s Vendor,
    limit: Option<Limit>,
    capacity: Option<usize>,
    /// Of the logarithm of latency in nanoseconds.
    median: f64,
    deviation: f64,
    seed: u64,
    start: u64,
    counts: Vec<Count>,
    under_way: BinaryHeap<Reverse<u64>>,
    minute: (u64, u64),
    words: Option<Words>,
    passed: u64,
    pub(super) seen: Seen,
}

/// What one credential used.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    window: u64,
    used: u64,
    asked: u64,
    /// When the bucket is full again.
    full_at: u64,
    /// Whether the credential was ever used.
    known: bool,
}

/// The headers by which it says what is left.
struct Words {
    limit: String,
    remaining: String,
    reset: String,
    reset_as: Encoding,
    named_by: Option<String>,
    amount: String,
}

/// Texts of one answer, kept to spare allocations.
#[derive(Debug, Default)]
pub(super) struct Texts {
    remaining: String,
    reset: String,
    retry: String,
}

impl<'s> Scripted<'s> {
    pub(super) fn new(
        script: &'s Vendor,
        catalogue: &Catalogue,
        credentials: usize,
        sample: f64,
        seed: u64,
        start: u64,
    ) -> Self {
        let limit = script.limit.map(|limit| Limit {
            units: times(limit.units, sample),
            burst: times(limit.burst, sample),
            ..limit
        });
        let median = (script.latency.p50.as_nanos() as f64).max(1.0).ln();
        // The normal distribution's quantile of 0.99.
        let deviation = ((script.latency.p99.as_nanos() as f64).max(1.0).ln() - median) / 2.326_347_874;
        Self {
            limit,
            capacity: script.capacity.map(|capacity| times(capacity as u64, sample) as usize),
            median,
            deviation,
            seed: crate::units::stable_hash(seed, script.name.as_bytes()),
            start,
            counts: vec![Count::default(); credentials],
            under_way: BinaryHeap::new(),
            minute: (0, 0),
            words: limit
                .filter(|limit| limit.states)
                .and_then(|limit| Words::of(catalogue, &script.host, &limit)),
            passed: 0,
            seen: Seen::default(),
            script,
        }
    }

    /// An exchange begins. `fate` is all chance that it has.
    pub(super) fn exchange(&mut self, credential: usize, fate: u64, now: u64) -> Exchange {
        let mut dice = Dice::new(self.seed, fate);
        let (luck, normal) = (dice.unit(), dice.normal());
        let takes = (self.median + self.deviation * normal).exp().clamp(1_000.0, 3.6e12) as u64;
        self.seen.exchanges += 1;
        let minute = now / MINUTE;
        self.minute = if self.minute.0 == minute { (minute, self.minute.1 + 1) } else { (minute, 1) };
        self.seen.busiest_minute = self.seen.busiest_minute.max(self.minute.1);

        let into = Duration::from_nanos(now - self.start);
        let down = self
            .script
            .outages
            .iter()
            .find(|outage| into >= outage.from && into < outage.from + outage.lasts);
        if let Some(outage) = down {
            self.seen.in_outages += 1;
            if dice.unit() < outage.share {
                self.seen.failed += 1;
                let (at, ending) = match outage.shows {
                    Shows::Status(status) => (now + takes / 4, Ending::Status(status)),
                    Shows::Error(error @ ErrorType::Timeout) => (now + PATIENCE, Ending::Error(error)),
                    Shows::Error(error) => (now + takes / 4, Ending::Error(error)),
                };
                return Exchange { at, ending, said: Said::default() };
            }
        }
        let (allowed, said) = self.count(credential, now);
        if !allowed {
            self.seen.limited += 1;
            return Exchange { at: now + takes / 4, ending: Ending::Status(429), said };
        }
        if let Some(capacity) = self.capacity {
            while self.under_way.peek().is_some_and(|Reverse(ends)| *ends <= now) {
                self.under_way.pop();
            }
            if self.under_way.len() >= capacity {
                self.seen.failed += 1;
                return Exchange { at: now + takes / 4, ending: Ending::Status(503), said };
            }
            self.under_way.push(Reverse(now + takes));
        }
        let failed = luck < self.script.errors;
        self.seen.failed += u64::from(failed);
        Exchange { at: now + takes, ending: Ending::Status(if failed { 500 } else { 200 }), said }
    }

    /// Counts a request; whether it is within the limit, and what its answer says.
    fn count(&mut self, credential: usize, now: u64) -> (bool, Said) {
        let Some(limit) = self.limit else { return (true, Said::default()) };
        let count = &mut self.counts[credential];
        let period = (limit.period.as_nanos() as u64).max(1);
        let window = now / period;
        if count.window != window {
            (count.window, count.used, count.asked) = (window, 0, 0);
        }
        count.asked += 1;
        count.known = true;
        self.seen.busiest_window = self.seen.busiest_window.max(count.asked);
        let (allowed, remaining, resets_at, free_at) = match limit.form {
            Form::Window => {
                let allowed = count.used < limit.units;
                count.used += u64::from(allowed);
                let ends = (window + 1) * period;
                (allowed, limit.units - count.used, ends, ends)
            }
            Form::Bucket => {
                let each = (period / limit.units).max(1);
                let behind = count.full_at.saturating_sub(now);
                let allowed = behind <= (limit.burst - 1) * each;
                if allowed {
                    count.full_at = count.full_at.max(now) + each;
                    count.used += 1;
                }
                let left = (limit.burst * each).saturating_sub(count.full_at - now.min(count.full_at)) / each;
                (allowed, left, count.full_at, count.full_at.saturating_sub((limit.burst - 1) * each))
            }
        };
        self.passed += u64::from(allowed);
        let said = Said {
            remaining: limit.states.then_some(remaining),
            resets_at,
            retry_at: (!allowed && limit.retry_after).then_some(free_at),
        };
        (allowed, said)
    }

    /// What it allowed in this time, to all who asked, and what of it was used.
    pub(super) fn allowed(&self, lasts: Duration) -> (Option<u64>, u64) {
        let known = self.counts.iter().filter(|count| count.known).count() as f64;
        let allowed = self.limit.map(|limit| {
            (limit.units as f64 * known * lasts.as_secs_f64() / limit.period.as_secs_f64()).round() as u64
        });
        (allowed, self.passed)
    }

    pub(super) fn name(&self) -> &str {
        &self.script.name
    }

    pub(super) fn host(&self) -> &str {
        &self.script.host
    }

    /// The headers of an answer.
    pub(super) fn headers<'t>(
        &'t self,
        said: &Said,
        texts: &'t mut Texts,
        now: u64,
    ) -> [(&'t str, &'t str); 5] {
        let mut headers = [("", ""); 5];
        let Texts { remaining, reset, retry } = texts;
        if let Some(at) = said.retry_at {
            retry.clear();
            let _ = write!(retry, "{}", at.saturating_sub(now).div_ceil(SECOND).max(1));
            headers[3] = ("retry-after", retry);
        }
        if let (Some(words), Some(left)) = (&self.words, said.remaining) {
            remaining.clear();
            reset.clear();
            let _ = write!(remaining, "{left}");
            let wait = said.resets_at.saturating_sub(now);
            let _ = match words.reset_as {
                Encoding::EpochMillis => write!(reset, "{}", said.resets_at / 1_000_000),
                Encoding::DeltaMillis => write!(reset, "{}", wait / 1_000_000),
                Encoding::DeltaSeconds | Encoding::DeltaSecondsOrDate => {
                    write!(reset, "{}", wait.div_ceil(SECOND))
                }
                Encoding::Duration => write!(reset, "{}ms", wait / 1_000_000),
                Encoding::Date => {
                    let at = UNIX_EPOCH + Duration::from_nanos(said.resets_at);
                    write!(reset, "{}", httpdate::fmt_http_date(at))
                }
                _ => write!(reset, "{}", said.resets_at.div_ceil(SECOND)),
            };
            headers[0] = (&words.limit, &words.amount);
            headers[1] = (&words.remaining, remaining);
            headers[2] = (&words.reset, reset);
            if let Some(named_by) = &words.named_by {
                headers[4] = (named_by, "core");
            }
        }
        headers
    }
}

impl Words {
    /// The vendor's own words where the catalogue has them in a form with a header for each number; the generic
    /// ones where it does not know the vendor; none where the vendor states nothing.
    fn of(catalogue: &Catalogue, host: &str, limit: &Limit) -> Option<Self> {
        let amount = limit.units.to_string();
        let Some(vendor) =
            catalogue.vendor_of(host).filter(|vendor| vendor.dialect != dialect::Spec::default())
        else {
            return Some(Self {
                limit: "x-ratelimit-limit".into(),
                remaining: "x-ratelimit-remaining".into(),
                reset: "x-ratelimit-reset".into(),
                reset_as: Encoding::EpochSeconds,
                named_by: None,
                amount,
            });
        };
        vendor.dialect.limits.iter().find_map(|spec| {
            let plain = spec.form == dialect::Form::Plain && spec.item.is_none();
            if !plain || spec.unit != dialect::Unit::Requests {
                return None;
            }
            Some(Self {
                limit: spec.limit.clone()?,
                remaining: spec.remaining.clone()?,
                reset: spec.reset.clone()?,
                reset_as: spec.reset_as,
                named_by: spec.named_by.clone(),
                amount: amount.clone(),
            })
        })
    }
}
