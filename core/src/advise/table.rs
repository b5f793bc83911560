//! All endpoints. A fixed number of places; a call finds its own without a lock, and takes one at its end.

use super::AdviseConfig;
use super::asked::Asked;
use super::endpoint::{Endpoint, FORGOTTEN, MAX_CREDENTIALS, Recent, is_chosen};
use super::look::{Look, Settlement};
use super::runs::Runs;
use super::sieve::Sieve;
use super::sums::{Observed, Sums};
use crate::units::Timestamp;
use foldhash::fast::FixedState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const PLACES: usize = 512;
/// An endpoint lies in one of so many places from the one on that its number says.
const PROBES: usize = 8;
/// A place whose endpoint was not called for so long is another's, where there is no other.
const IDLE: u64 = 600 * 1_000_000_000;
/// URLs are looked through for those that are to be forgotten now and then.
const FORGET_EVERY: u64 = 600 * 1_000_000_000;

/// What is remembered of the calls of a process.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) hasher: FixedState,
    seed: u64,
    enabled: AtomicBool,
    /// One for each shard.
    sieves: Box<[Sieve]>,
    places: Box<[Place]>,
    births: Mutex<()>,
    urls: AtomicUsize,
    runs: Runs,
    traces: Mutex<(Recent<1_024>, Sums)>,
    forgot: AtomicU64,
}

/// How often a credential was used, by its fingerprint.
pub(crate) struct Used {
    pub(crate) vendor: Arc<str>,
    pub(crate) secret: u64,
    pub(crate) calls: u64,
}

#[derive(Debug, Default)]
struct Place {
    /// Stands for vendor and endpoint; 0 where it is free.
    number: AtomicU64,
    level: AtomicU8,
    endpoint: Mutex<Option<Box<Endpoint>>>,
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, Option<Box<Endpoint>>> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// `threads`: into how many kinds [`Table::takes`] is told that there are.
    pub(crate) fn new(seed: u64, config: AdviseConfig, threads: usize) -> Self {
        Self {
            hasher: FixedState::with_seed(seed),
            seed,
            enabled: AtomicBool::new(config.enabled),
            sieves: (0..threads).map(|_| Sieve::new()).collect(),
            places: (0..PLACES).map(|_| Place::default()).collect(),
            births: Mutex::new(()),
            urls: AtomicUsize::new(0),
            runs: Runs::default(),
            traces: Mutex::default(),
            forgot: AtomicU64::new(0),
        }
    }

    /// What is remembered from now on.
    pub(crate) fn set(&self, config: AdviseConfig) {
        self.enabled.store(config.enabled, Ordering::Relaxed);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Whether a call is looked at; then it counts for two to the power of this. `endpoint` stands for its endpoint
    /// among the calls of this `thread`, `about` for what it asks for, and `lot` is any number that differs from call to
    /// call.
    pub(crate) fn takes(
        &self,
        thread: usize,
        endpoint: u64,
        about: u64,
        lot: u64,
        now: Timestamp,
    ) -> Option<u8> {
        self.sieves[thread].take(endpoint, about, lot, now)
    }

    /// What is known of a call that begins; `None` where there is no room for its endpoint. `exact`: whether its query
    /// and headers are known. `level`: it counts for two to the power of this.
    pub(crate) fn begin(
        &self,
        vendor: &str,
        endpoint: &str,
        mut asked: Asked,
        exact: bool,
        level: u8,
        now: Timestamp,
    ) -> Option<Look> {
        let number = self.hasher.hash_one((vendor, endpoint)).max(1);
        let at = self.find(number).or_else(|| self.settle_down(number, vendor, endpoint, now))?;
        let apart = asked.url != 0 && !exact;
        if apart {
            asked.url = 0;
        }
        let chosen = asked.url != 0 && is_chosen(asked.url, self.places[at].level.load(Ordering::Relaxed));
        let place = u16::try_from(at).unwrap_or(u16::MAX);
        Some(Look { place, endpoint: number, level, asked, chosen, apart, ..Look::default() })
    }

    /// What digests of bodies begin with.
    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    fn probes(number: u64) -> impl Iterator<Item = usize> {
        #[expect(clippy::cast_possible_truncation, reason = "places of a table")]
        let first = number as usize;
        (0..PROBES).map(move |step| first.wrapping_add(step) % PLACES)
    }

    fn find(&self, number: u64) -> Option<usize> {
        Self::probes(number).find(|&at| self.places[at].number.load(Ordering::Acquire) == number)
    }

    /// A place for an endpoint that has none.
    fn settle_down(&self, number: u64, vendor: &str, endpoint: &str, now: Timestamp) -> Option<usize> {
        let _one_at_a_time = self.births.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = self.find(number) {
            return Some(at);
        }
        let free = Self::probes(number).find(|&at| self.places[at].number.load(Ordering::Relaxed) == 0);
        let at = free.or_else(|| {
            Self::probes(number).find(|&at| {
                // One whose sums are not told yet stays.
                self.places[at].lock().as_ref().is_some_and(|known| {
                    known.sums.calls == 0 && now.as_nanos().saturating_sub(known.last) > IDLE
                })
            })
        })?;
        let place = &self.places[at];
        let mut new = Box::new(Endpoint::new(vendor, endpoint));
        new.last = now.as_nanos();
        let mut known = place.lock();
        if let Some(old) = known.replace(new) {
            self.urls.fetch_sub(old.len(), Ordering::Relaxed);
        }
        place.level.store(0, Ordering::Relaxed);
        place.number.store(number, Ordering::Release);
        Some(at)
    }

    /// A call is over that was made. `thread`: which one made it, about.
    pub(crate) fn settle(&self, look: &Look, call: &Settlement, thread: usize) {
        // Calls in a row are told by seeing each of them.
        let apart = look.asked.url == 0 || look.level > 0;
        let run = if apart { 0 } else { self.runs.settle(look, call, thread) };
        if look.asked.marks.trace != 0 {
            let mut traces = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
            let new = traces.0.is_new(look.asked.marks.trace);
            let calls = 1 << look.level;
            (traces.1.calls, traces.1.traced) = (traces.1.calls + calls, traces.1.traced + calls);
            traces.1.traces += calls * u64::from(new);
        }
        let Some(place) = self.places.get(usize::from(look.place)) else { return };
        let mut known = place.lock();
        if place.number.load(Ordering::Relaxed) != look.endpoint {
            return;
        }
        let Some(endpoint) = known.as_mut() else { return };
        endpoint.settle(look, call, run, &self.urls);
        place.level.store(endpoint.level, Ordering::Relaxed);
    }

    /// Takes all that was counted since the last time.
    pub(crate) fn drain(&self, now: Timestamp) -> (Vec<Observed>, Vec<Used>) {
        let (mut observed, mut credentials) = (Vec::new(), Vec::new());
        let minute = now.minute();
        let forgets = now.as_nanos().saturating_sub(self.forgot.load(Ordering::Relaxed)) > FORGET_EVERY;
        if forgets {
            self.forgot.store(now.as_nanos(), Ordering::Relaxed);
        }
        for place in &self.places {
            if place.number.load(Ordering::Acquire) == 0 {
                continue;
            }
            let mut known = place.lock();
            let Some(endpoint) = known.as_mut() else { continue };
            if endpoint.sums.calls > 0 {
                observed.push(Observed {
                    minute,
                    vendor: Arc::clone(&endpoint.vendor),
                    endpoint: Arc::clone(&endpoint.endpoint),
                    sums: std::mem::take(&mut endpoint.sums),
                });
            }
            let used = std::mem::take(&mut endpoint.credentials);
            if used.len() <= MAX_CREDENTIALS {
                let vendor = || Arc::clone(&endpoint.vendor);
                credentials.extend(used.into_iter().map(|(secret, calls)| Used {
                    vendor: vendor(),
                    secret,
                    calls,
                }));
            }
            if forgets {
                endpoint.forget(now.as_nanos(), &self.urls);
                if now.as_nanos().saturating_sub(endpoint.last) > FORGOTTEN {
                    *known = None;
                    place.number.store(0, Ordering::Release);
                }
            }
        }
        let traces = std::mem::take(&mut self.traces.lock().unwrap_or_else(PoisonError::into_inner).1);
        if traces.calls > 0 {
            observed.push(Observed { minute, vendor: "".into(), endpoint: "".into(), sums: traces });
        }
        (observed, credentials)
    }

    /// How many URLs are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.urls.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Marks;
    use super::super::endpoint::{MAX_ALL, MAX_URLS};
    use super::*;
    use crate::call::{NoHeaders, Target};

    fn call(table: &Table, endpoint: &str, path: &str, now: Timestamp) {
        let target = Target::new(true, "api.example.com", 443, path);
        let asked = Asked::new(&table.hasher, "GET", &target, None, Marks::default());
        let Some(look) = table.begin("example.com", endpoint, asked, true, 0, now) else { return };
        settle(table, look, 200, b"", now);
    }

    /// The vendor's answer has this status; the application gets 200, and this body.
    fn settle(table: &Table, mut look: Look, status: u16, body: &[u8], now: Timestamp) {
        look.answer(status, &NoHeaders, table.seed());
        if status == 200 {
            look.push(body);
        }
        let settlement = Settlement {
            begun: now,
            answered: now,
            ended: now,
            status: 200,
            whole: true,
            bytes_in: body.len() as u64,
            quota: 1,
            cost: 0,
            cost_unknown: false,
            deadline: false,
            fallback: false,
        };
        table.settle(&look, &settlement, 0);
    }

    #[test]
    fn what_our_own_cache_asks_about_and_hands_out_is_the_answer_that_was_there() {
        let table = Table::new(7, AdviseConfig::default(), 1);
        let now = Timestamp::from_nanos(1_790_000_000_000_000_000);
        let target = Target::new(true, "api.example.com", 443, "/x");
        for (n, status, body) in [(0, 200, "one"), (1, 304, "one"), (2, 200, "two"), (3, 304, "two")] {
            let asked = Asked::new(&table.hasher, "GET", &target, None, Marks::default());
            let now = now.plus_millis(n * 2_000);
            let look = table.begin("example.com", "GET /x", asked, true, 0, now).unwrap();
            settle(&table, look, status, body.as_bytes(), now);
        }
        let sums = table.drain(now).0[0].sums;
        assert_eq!((sums.compared, sums.at[1].hits, sums.at[1].stale), (4, 3, 2));
    }

    #[test]
    fn urls_are_bounded_for_each_endpoint_and_for_all_and_forgotten_after_the_longest_lifetime() {
        let table = Table::new(7, AdviseConfig::default(), 1);
        let now = Timestamp::from_nanos(1_790_000_000_000_000_000);
        for n in 0..10_000 {
            call(&table, "one", &format!("/one/{n}"), now);
            assert!(table.remembered() <= MAX_URLS);
        }
        for endpoint in 0..300 {
            for n in 0..200 {
                call(&table, &format!("e{endpoint}"), &format!("/{endpoint}/{n}"), now);
            }
        }
        // Beyond the bound an endpoint keeps a few all the same.
        assert!((MAX_ALL..MAX_ALL + 300 * 16).contains(&table.remembered()), "{}", table.remembered());
        let (observed, _) = table.drain(now);
        let calls: u64 = observed.iter().map(|seen| seen.sums.calls).sum();
        assert!(calls > 50_000, "{calls}");
        let later = Timestamp::from_nanos(now.as_nanos() + FORGOTTEN + FORGET_EVERY + 1);
        let _nothing_new = table.drain(later);
        assert_eq!(table.remembered(), 0);
        assert!(
            table.places.iter().all(|place| place.number.load(Ordering::Relaxed) == 0),
            "nor its endpoints"
        );
    }
}
