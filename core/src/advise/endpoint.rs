//! One endpoint: its sums, and the URLs of it that are remembered.

use super::look::{Look, Settlement};
use super::sums::Sums;
use super::url::{Got, Replayed, Url};
use hashbrown::HashTable;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// URLs of one endpoint; with more of them a smaller share is looked at.
pub(super) const MAX_URLS: usize = 256;
/// URLs of all endpoints.
pub(super) const MAX_ALL: usize = 16_384;
/// An endpoint keeps so many, however full it is.
const MIN_URLS: usize = 16;
/// What was not asked for within the longest lifetime says nothing any more.
pub(super) const FORGOTTEN: u64 = 86_400 * 1_000_000_000;
/// Who asks again so soon after a failure does because of it.
const REPEAT: u64 = 10 * 1_000_000_000;
const FAILED: usize = 8;
const TRACES: usize = 64;
/// Credentials of one endpoint that are told apart; where there are more they are the customers' own.
pub(super) const MAX_CREDENTIALS: usize = 8;

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) vendor: Arc<str>,
    pub(super) endpoint: Arc<str>,
    pub(super) sums: Sums,
    /// Of 2^level URLs one is looked at.
    pub(super) level: u8,
    urls: HashTable<Url>,
    /// URLs that failed, and when.
    failed: [(u64, u64); FAILED],
    traces: Recent<TRACES>,
    /// Fingerprints, and how often each was used.
    pub(super) credentials: Vec<(u64, u64)>,
    pub(super) last: u64,
}

/// Whether a URL is looked at.
pub(super) const fn is_chosen(url: u64, level: u8) -> bool {
    (url >> 16).trailing_zeros() >= level as u32
}

impl Endpoint {
    pub(super) fn new(vendor: &str, endpoint: &str) -> Self {
        Self {
            vendor: vendor.into(),
            endpoint: endpoint.into(),
            sums: Sums::default(),
            level: 0,
            urls: HashTable::new(),
            failed: [(0, 0); FAILED],
            traces: Recent::default(),
            credentials: Vec::new(),
            last: 0,
        }
    }

    /// How many URLs it remembers.
    pub(super) fn len(&self) -> usize {
        self.urls.len()
    }

    /// Counts a call; `run`: as the how manieth of a run of calls.
    pub(super) fn settle(&mut self, look: &Look, call: &Settlement, run: u64, all: &AtomicUsize) {
        let ended = call.ended.as_nanos();
        self.last = self.last.max(ended);
        let sums = &mut self.sums;
        let calls = 1_u64 << look.level;
        sums.weight = sums.weight.max(calls);
        sums.calls += calls;
        sums.deadlines += calls * u64::from(call.deadline);
        sums.fallbacks += calls * u64::from(call.fallback);
        let failed = call.failed();
        sums.failures += calls * u64::from(failed);
        if run == super::runs::LEAST {
            (sums.loops, sums.looped) = (sums.loops + 1, sums.looped + run);
        } else if run > super::runs::LEAST {
            sums.looped += 1;
        }
        if run >= super::runs::LEAST {
            sums.longest_loop = sums.longest_loop.max(run);
        }
        let marks = &look.asked.marks;
        if marks.trace != 0 {
            sums.traced += calls;
            sums.traces += calls * u64::from(self.traces.is_new(marks.trace));
        }
        if marks.credential != 0 {
            self.use_credential(marks.credential, calls);
        }
        let url = look.asked.url;
        if url != 0 {
            self.sums.repeats += calls * u64::from(self.repeats(url, call.begun.as_nanos(), ended, failed));
        }
        self.compare(look, call, all);
    }

    /// Up to one more than are told apart, so that it shows that there are too many.
    fn use_credential(&mut self, credential: u64, calls: u64) {
        if let Some((_, used)) = self.credentials.iter_mut().find(|(known, _)| *known == credential) {
            *used += calls;
        } else if self.credentials.len() <= MAX_CREDENTIALS {
            self.credentials.push((credential, calls));
        }
    }

    /// Whether a call asks once more what failed just before.
    fn repeats(&mut self, url: u64, begun: u64, ended: u64, failed: bool) -> bool {
        if let Some(place) = self.failed.iter().position(|(known, _)| *known == url) {
            let at = self.failed[place].1;
            self.failed[place] = if failed { (url, ended) } else { (0, 0) };
            return begun >= at && begun - at < REPEAT;
        }
        if failed {
            let oldest = (0..FAILED).min_by_key(|&place| self.failed[place].1).unwrap_or(0);
            self.failed[oldest] = (url, ended);
        }
        false
    }

    fn compare(&mut self, look: &Look, call: &Settlement, all: &AtomicUsize) {
        if look.apart {
            self.sums.apart += 1 << look.level;
            return;
        }
        let key = match look.key {
            // Nothing came that could say what it varies by.
            0 => look.asked.key(None).unwrap_or_default(),
            key => key,
        };
        if key == 0 || look.asked.url == 0 || !is_chosen(look.asked.url, self.level) {
            return;
        }
        if !self.remember(key, look.asked.url, all) {
            return;
        }
        let weight = 1 << (self.level + look.level);
        let got = look.got(call);
        let (begun, answered) = (call.begun.as_nanos(), call.answered.as_nanos());
        let Ok(mut entry) = self.urls.find_entry(key, |url| url.key == key) else { return };
        let replayed = entry.get_mut().with(look.asked.marks.others).replay(begun, answered, got);
        let sums = &mut self.sums;
        sums.weight = sums.weight.max(weight);
        sums.compared += weight;
        if let Got::Answer(_) = got {
            sums.roughly += weight * u64::from(look.digest.seen() < call.bytes_in);
            sums.forbidden += weight * u64::from(look.forbidden);
            sums.validators += weight * u64::from(look.validators);
            sums.dated += weight * u64::from(look.dated);
        }
        let times = u32::try_from(weight).unwrap_or(u32::MAX);
        for (at, replayed) in sums.at.iter_mut().zip(replayed) {
            let Replayed::Hit { stale } = replayed else { continue };
            at.hits += weight;
            at.stale += weight * u64::from(stale);
            at.cost = at.cost.saturating_add(call.cost.saturating_mul(weight.cast_signed()));
            at.cost_unknown += weight * u64::from(call.cost_unknown);
            at.duration = at.duration.saturating_add(call.ended.since(call.begun).saturating_mul(times));
            at.quota += weight * u64::from(call.quota);
            at.bytes = at.bytes.saturating_add(call.bytes_in.saturating_mul(weight));
        }
    }

    /// Whether a URL is remembered, from now on at least; not where it is none of those that are looked at.
    fn remember(&mut self, key: u64, url: u64, all: &AtomicUsize) -> bool {
        if self.urls.find(key, |known| known.key == key).is_some() {
            return true;
        }
        while self.urls.len() >= MAX_URLS
            || self.urls.len() >= MIN_URLS && all.load(Ordering::Relaxed) >= MAX_ALL
        {
            self.halve(all);
            if !is_chosen(url, self.level) {
                return false;
            }
        }
        self.urls.insert_unique(key, Url::new(key, url), |known| known.key);
        all.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Looks at half of the URLs from now on.
    fn halve(&mut self, all: &AtomicUsize) {
        self.level = (self.level + 1).min(MAX_LEVEL);
        let (level, before) = (self.level, self.urls.len());
        // At the last level whatever is there makes room.
        self.urls.retain(|known| level < MAX_LEVEL && is_chosen(known.url, level));
        all.fetch_sub(before - self.urls.len(), Ordering::Relaxed);
    }

    /// Forgets the URLs that were not asked for within the longest lifetime.
    pub(super) fn forget(&mut self, now: u64, all: &AtomicUsize) {
        let before = self.urls.len();
        self.urls.retain(|url| now.saturating_sub(url.last) < FORGOTTEN);
        all.fetch_sub(before - self.urls.len(), Ordering::Relaxed);
    }
}

const MAX_LEVEL: u8 = 32;

/// Numbers that were seen last, to count how many there are. One that another took the place of counts once more.
#[derive(Debug)]
pub(super) struct Recent<const N: usize>([u32; N]);

impl<const N: usize> Default for Recent<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> Recent<N> {
    /// `number` is a hash.
    #[expect(clippy::cast_possible_truncation, reason = "parts of a hash")]
    pub(super) fn is_new(&mut self, number: u64) -> bool {
        let place = &mut self.0[(number >> 32) as usize % N];
        let short = number as u32 | 1;
        std::mem::replace(place, short) != short
    }
}
