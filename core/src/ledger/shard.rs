//! What one thread counts: its names and series, and what it tells of single calls.

mod drain;

pub(super) use drain::{Row, STRIDE};

use super::cache::Cache;
use super::interner::Interner;
use super::requests::Requests;
use super::series::Series;
use super::{OTHER, Sighting};
use crate::attribution::UNKNOWN;
use crate::call::ConnectTimes;
use crate::catalogue::{Catalogue, VendorIndex};
use crate::engine::Tallies;
use crate::units::Timestamp;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::Ordering;

pub(crate) use super::series::{Entry, SeriesKey};

/// The first number of a learned name; below it the catalogue's own.
const LEARNED: u32 = 1 << 31;
/// Stands for [`OTHER`], whatever the kind.
const FOLDED: u32 = u32::MAX;
/// Stands for a customer that nobody named, and for no tags.
const NONE: u32 = u32::MAX - 1;

const MAX_VENDORS: usize = 2_048;
const MAX_HOSTS: usize = 4_096;
const MAX_PATHS: usize = 8_192;
const MAX_ENDPOINTS: usize = 8_192;
const MAX_TAG_SETS: usize = 2_048;
/// Failed calls that are kept one by one between two drains.
pub(super) const MAX_FAILURES: usize = 128;
/// Sightings between two drains; further ones are counted as lost.
const MAX_SIGHTINGS: usize = 65_536;
/// A call that came to its end.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) found: Found,
    pub(crate) key: SeriesKey,
    pub(crate) entry: Entry,
    pub(crate) times: ConnectTimes,
    pub(crate) ended: Timestamp,
    /// `None` where nobody listens, and where it was told before.
    pub(crate) sighting: Option<Sighting>,
    /// What happened to it besides being sent and answered; `None` where nothing did.
    pub(crate) story: Option<String>,
}

/// Where a call's names were found; each is held until the call settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) vendor: u32,
    pub(crate) endpoint: u32,
    pub(crate) customer: u32,
    pub(crate) tags: u32,
}

impl Hash for Found {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { vendor, endpoint, customer, tags } = *self;
        state.write_u64(u64::from(vendor) << 32 | u64::from(endpoint));
        state.write_u64(u64::from(customer) << 32 | u64::from(tags));
    }
}

/// The names and series of one shard.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) hosts: Cache,
    pub(crate) paths: Cache,
    pub(crate) requests: Requests,
    vendors: Interner,
    endpoints: Interner,
    customers: Interner,
    tags: Interner,
    index: HashTable<u32>,
    /// Where series were found last, by a quick hash of their keys: looked at before the index is.
    recent: [u32; RECENT],
    series: Vec<Series>,
    max_series: usize,
    hasher: FixedState,
    pub(super) failures: Vec<(SeriesKey, Entry)>,
    /// Rows of a minute that ended before they were drained.
    pub(super) turned: Vec<Series>,
    pub(super) sightings: Vec<Sighting>,
    /// What the learner had merged when [`Shard::paths`] was last filled.
    pub(crate) generation: u32,
    /// Calls whose events are worth telling, since the last drain.
    pub(super) stories: Vec<(u64, String)>,
}

/// Series of which the place is known without a look into the index: one for each [`SeriesKey::quick`].
const RECENT: usize = 1 << u8::BITS;

/// Calls of which one drain tells the events.
const MAX_STORIES: usize = 128;

impl Shard {
    pub(super) fn new(max_series: usize, seed: u64) -> Self {
        Self {
            hosts: Cache::new(MAX_HOSTS, seed),
            paths: Cache::new(MAX_PATHS, seed),
            requests: Requests::default(),
            vendors: Interner::new(MAX_VENDORS, seed),
            endpoints: Interner::new(MAX_ENDPOINTS, seed),
            customers: Interner::new(max_series, seed),
            tags: Interner::new(MAX_TAG_SETS, seed),
            index: HashTable::new(),
            recent: [0; RECENT],
            series: Vec::new(),
            max_series,
            hasher: FixedState::with_seed(seed),
            failures: Vec::new(),
            turned: Vec::new(),
            sightings: Vec::new(),
            generation: 0,
            stories: Vec::new(),
        }
    }

    /// The number of a vendor that the catalogue does not know.
    pub(crate) fn learned_vendor(&mut self, name: &str, tallies: &Tallies) -> u32 {
        numbered(self.vendors.insert(0, name), &tallies.folded_vendors)
    }

    /// The number of a vendor of the catalogue.
    pub(crate) fn known_vendor(vendor: VendorIndex) -> u32 {
        vendor.0
    }

    /// One more reference to a vendor that the host cache named.
    pub(crate) fn keep_vendor(&mut self, vendor: u32, tallies: &Tallies) {
        if is_learned(vendor) {
            self.vendors.keep(vendor - LEARNED);
        } else if vendor == FOLDED {
            tallies.folded_vendors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The name of a vendor.
    pub(crate) fn vendor_name<'a>(&'a self, catalogue: &'a Catalogue, vendor: u32) -> &'a str {
        match vendor {
            FOLDED => OTHER,
            learned if learned >= LEARNED => self.vendors.name(learned - LEARNED),
            known => &catalogue.vendor(VendorIndex(known)).name,
        }
    }

    /// One more reference to an endpoint that the cache of paths named.
    pub(crate) fn keep_endpoint(&mut self, endpoint: u32, tallies: &Tallies) {
        if is_learned(endpoint) {
            self.endpoints.keep(endpoint - LEARNED);
        } else if endpoint == FOLDED {
            tallies.folded_endpoints.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of a learned endpoint.
    pub(crate) fn learned_endpoint(&mut self, vendor: u32, template: &str, tallies: &Tallies) -> u32 {
        numbered(self.endpoints.insert(vendor, template), &tallies.folded_endpoints)
    }

    pub(crate) fn customer(&mut self, name: Option<&str>, tallies: &Tallies) -> u32 {
        match name {
            None | Some("" | UNKNOWN) => NONE,
            Some(OTHER) => FOLDED,
            Some(name) => numbered(self.customers.insert(0, name), &tallies.folded_customers),
        }
    }

    pub(crate) fn tag_set(&mut self, text: &str, tallies: &Tallies) -> u32 {
        if text.is_empty() { NONE } else { numbered(self.tags.insert(0, text), &tallies.folded_tags) }
    }

    /// Whether it is the number of those that were too many.
    pub(crate) const fn is_folded(customer: u32) -> bool {
        customer == FOLDED
    }

    pub(crate) const fn no_tags() -> u32 {
        NONE
    }

    /// Counts a call and lets go of its names.
    pub(crate) fn settle(&mut self, settled: &Settled, tallies: &Tallies) {
        let Settled { found, key, entry, times, ended, sighting, .. } = settled;
        let place = self.place_of(*key, tallies);
        let minute = ended.minute();
        if self.series[place].minute != minute {
            self.turn(place, minute);
        }
        self.series[place].add(entry, *times);
        if settled.story.is_some() || key.has_failed() {
            self.tell(place, settled);
        }
        if let Some(sighting) = sighting {
            self.sight(*sighting, tallies);
        }
        self.release_names(*found);
    }

    /// The minute turned between two drains: what belongs to the old one leaves first.
    #[cold]
    #[inline(never)]
    fn turn(&mut self, place: usize, minute: u64) {
        let series = &mut self.series[place];
        if !series.is_empty() {
            let old = series.split_off();
            self.keep_names(found_of(old.key));
            self.turned.push(old);
        }
        self.series[place].minute = minute;
    }

    /// Keeps a call of the series at `place` that failed, or of which there is something to tell.
    #[cold]
    #[inline(never)]
    fn tell(&mut self, place: usize, settled: &Settled) {
        let Settled { key, entry, story, .. } = settled;
        let telling = story.is_some() && self.stories.len() < MAX_STORIES;
        if (key.has_failed() || telling) && self.failures.len() < MAX_FAILURES {
            self.failures.push((self.series[place].key, *entry));
        }
        if telling && let Some(story) = story {
            self.stories.push((entry.id, story.clone()));
        }
    }

    /// Tells the sidecar of a call, or of a part of one, at the next drain.
    pub(crate) fn sight(&mut self, sighting: Sighting, tallies: &Tallies) {
        match self.sightings.len() < MAX_SIGHTINGS {
            true => self.sightings.push(sighting),
            false => _ = tallies.lost_sightings.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The series of a key; where there is no room for a new one, the series that it is added to instead.
    #[inline]
    fn place_of(&mut self, key: SeriesKey, tallies: &Tallies) -> usize {
        let recent = key.quick();
        let place = self.recent[usize::from(recent)] as usize;
        match self.series.get(place) {
            Some(series) if series.key == key => place,
            _ => self.look_up(recent, key, tallies),
        }
    }

    #[inline(never)]
    fn look_up(&mut self, recent: u8, key: SeriesKey, tallies: &Tallies) -> usize {
        let place = match self.find(key) {
            Some(place) => place,
            None => self.make_place(key, tallies),
        };
        // Bounded, so it fits.
        self.recent[usize::from(recent)] = u32::try_from(place).unwrap_or(u32::MAX);
        place
    }

    #[cold]
    #[inline(never)]
    fn make_place(&mut self, mut key: SeriesKey, tallies: &Tallies) -> usize {
        // Detail goes in steps: first the customer, then the endpoint, then the vendor and caller, whose last
        // resort is bounded by the number of statuses alone.
        for (step, room) in
            [self.max_series, self.max_series + self.max_series / 8, self.max_series + self.max_series / 4]
                .into_iter()
                .enumerate()
        {
            if step > 0 {
                key.customer = FOLDED;
                key.tags = NONE;
            }
            if step > 1 {
                key.endpoint = FOLDED;
            }
            if step > 0 {
                tallies.folded_series.fetch_add(u64::from(step == 1), Ordering::Relaxed);
                if let Some(place) = self.find(key) {
                    return place;
                }
            }
            if self.series.len() < room {
                return self.add_series(key);
            }
        }
        key.vendor = FOLDED;
        key.caller = 0;
        self.find(key).unwrap_or_else(|| self.add_series(key))
    }

    pub(super) fn find(&self, key: SeriesKey) -> Option<usize> {
        let found =
            self.index.find(self.hasher.hash_one(key), |&place| self.series[place as usize].key == key);
        found.map(|&place| place as usize)
    }

    fn add_series(&mut self, key: SeriesKey) -> usize {
        let place = self.series.len();
        if place == self.series.capacity() {
            // By a quarter, not by doubling: series are large, and their number settles soon.
            self.series.reserve_exact((place / 4).max(16));
        }
        self.series.push(Series::new(key));
        self.keep_names(found_of(key));
        let Self { index, series, hasher, .. } = self;
        // Bounded by `max_series` and the statuses, so it fits.
        let number = u32::try_from(place).unwrap_or(u32::MAX);
        index.insert_unique(hasher.hash_one(key), number, |&place| {
            hasher.hash_one(series[place as usize].key)
        });
        place
    }

    fn remove_series(&mut self, place: usize) {
        let removed = self.series[place].key;
        let last = self.series.len() - 1;
        let number_of = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(removed), |&n| n == number_of(place)) {
            entry.remove();
        }
        if place != last {
            let moved = self.series[last].key;
            if let Some(number) = self.index.find_mut(self.hasher.hash_one(moved), |&n| n == number_of(last))
            {
                *number = number_of(place);
            }
        }
        self.series.swap_remove(place);
        self.release_names(found_of(removed));
    }

    /// The names of a call, for the rules. To be given back as soon as they are read.
    pub(crate) fn names<'a>(
        &'a self,
        catalogue: &'a Catalogue,
        found: Found,
    ) -> (&'a str, &'a str, &'a str, &'a str) {
        let endpoint = match found.endpoint {
            FOLDED => OTHER,
            learned if learned >= LEARNED => self.endpoints.name(learned - LEARNED),
            known => catalogue.endpoint(known),
        };
        let customer = match found.customer {
            FOLDED => OTHER,
            NONE => UNKNOWN,
            number => self.customers.name(number - LEARNED),
        };
        let tags = match found.tags {
            FOLDED => OTHER,
            NONE => "",
            number => self.tags.name(number - LEARNED),
        };
        (self.vendor_name(catalogue, found.vendor), endpoint, customer, tags)
    }

    /// One more reference to each name of a call.
    pub(crate) fn keep(&mut self, found: Found) {
        self.keep_names(found);
    }

    /// One reference less to each name of a call.
    pub(crate) fn release(&mut self, found: Found) {
        self.release_names(found);
    }

    /// Forgets which requests were found where.
    #[cold]
    #[inline(never)]
    pub(crate) fn forget_found(&mut self) {
        self.paths.clear();
        self.requests.clear();
    }

    fn keep_names(&mut self, found: Found) {
        for (interner, number) in [
            (&mut self.vendors, found.vendor),
            (&mut self.endpoints, found.endpoint),
            (&mut self.customers, found.customer),
            (&mut self.tags, found.tags),
        ] {
            if is_learned(number) {
                interner.keep(number - LEARNED);
            }
        }
    }

    pub(super) fn release_names(&mut self, found: Found) {
        for (interner, number) in [
            (&mut self.vendors, found.vendor),
            (&mut self.endpoints, found.endpoint),
            (&mut self.customers, found.customer),
            (&mut self.tags, found.tags),
        ] {
            if is_learned(number) {
                interner.release(number - LEARNED);
            }
        }
    }
}

fn is_learned(number: u32) -> bool {
    (LEARNED..NONE).contains(&number)
}

fn numbered(slot: Option<u32>, folded: &std::sync::atomic::AtomicU64) -> u32 {
    match slot {
        Some(number) => number + LEARNED,
        None => {
            folded.fetch_add(1, Ordering::Relaxed);
            FOLDED
        }
    }
}

pub(super) fn found_of(key: SeriesKey) -> Found {
    Found { vendor: key.vendor, endpoint: key.endpoint, customer: key.customer, tags: key.tags }
}
