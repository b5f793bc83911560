//! Quotas and canaries that the processes of a host share: files that all of them map.
//!
//! Every transition in them is one compare-exchange or one store, so a process may die at any instruction and leave
//! them valid. A quota is found by its key in a directory of fixed size; what was not used for a day makes room.

mod map;
#[cfg(test)]
mod tests;

#[cfg(feature = "redis")]
use farcall::quota::CellHome;
use farcall::quota::{Cell, Shares, SharesHome};
use farcall::rollout::Canary;
pub(crate) use map::Words;
use map::{CANARIES, Map, Table};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// Places in which a key may be.
const PROBES: usize = 64;
/// A quota that nobody used for so long makes room for another, in minutes.
const UNUSED: u64 = 24 * 60;
/// How long a process that asks the fleet keeps doing so at most without saying so again, in milliseconds.
#[cfg(feature = "redis")]
const LEADS: u64 = 3_000;

/// The quotas of this host.
#[derive(Debug)]
pub(crate) struct Memory {
    map: Map,
    /// This moment, in minutes; read by calls, which read no clock for that.
    minute: AtomicU64,
    /// Quotas whose place went to another while a process still had them.
    evicted: AtomicU64,
}

impl Memory {
    /// The quotas of a home directory.
    ///
    /// # Errors
    /// Where they cannot be shared: no room on the disk, nothing may be written there.
    pub(crate) fn open(home: &Path) -> io::Result<Arc<Self>> {
        let memory = Self { map: Map::open(home)?, minute: AtomicU64::new(0), evicted: AtomicU64::new(0) };
        memory.tick();
        Ok(Arc::new(memory))
    }

    /// The canaries of a home directory alone, to look at or (`write`) to change; makes no file. `None` where no process
    /// made any.
    pub(crate) fn of_canaries(home: &Path, write: bool) -> io::Result<Option<Self>> {
        let map = Map::of_canaries(home, write)?;
        Ok(map.map(|map| Self { map, minute: AtomicU64::new(0), evicted: AtomicU64::new(0) }))
    }

    /// To be called now and then: once a minute is enough.
    pub(crate) fn tick(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.minute.store(now.as_secs() / 60, Ordering::Relaxed);
    }

    /// Stands for this machine among others.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) const fn host(&self) -> u64 {
        self.map.host()
    }

    /// How the host's clock stands to the monotonic one, as all who share quotas have agreed.
    pub(crate) fn anchor(&self) -> &AtomicU64 {
        self.map.anchor()
    }

    /// Quotas whose place went to another while this process still had them.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// The cell of a quota; `None` where there is no room.
    pub(crate) fn cell(self: &Arc<Self>, key: u64) -> Option<Arc<SharedCell>> {
        Some(Arc::new(SharedCell(self.place(Table::Cells, key)?, OnceLock::new())))
    }

    /// The shares of a quota; `None` where there is no room.
    pub(crate) fn shares(self: &Arc<Self>, key: u64) -> Option<SharesHome> {
        Some(Arc::new(SharedShares(self.place(Table::Shares, key)?, OnceLock::new())))
    }

    /// The canary of a rollout; `None` where there is no room.
    pub(crate) fn canary(self: &Arc<Self>, key: u64) -> Option<Arc<SharedCanary>> {
        let place = self.map.shares_canaries().then(|| self.place(Table::Canaries, key))??;
        Some(Arc::new(SharedCanary(place, OnceLock::new())))
    }

    /// The canary of this key, where there is one.
    pub(crate) fn known_canary(&self, key: u64) -> Option<&Canary> {
        let key = key.max(1);
        let mut places = (0..CANARIES)
            .filter(|place| self.map.entry(Table::Canaries, *place).key.load(Ordering::Acquire) == key);
        places.next().map(|place| self.map.canary(place))
    }

    fn place(self: &Arc<Self>, table: Table, key: u64) -> Option<Place> {
        let key = key.max(1);
        let place = self.find(table, key)?;
        Some(Place { memory: Arc::clone(self), table, place, key })
    }

    /// Where the key is, or can be from now on. A key is always in the first place of its row that was free when
    /// it came, so whoever else looks for it at the same time finds the same one.
    fn find(&self, table: Table, key: u64) -> Option<usize> {
        let now = self.minute.load(Ordering::Relaxed);
        let mut tries = 0;
        'again: while tries < 16 {
            tries += 1;
            let mut stale = None;
            for probe in 0..PROBES.min(table.len()) {
                let place = (key as usize).wrapping_add(probe) % table.len();
                let entry = self.map.entry(table, place);
                match entry.key.load(Ordering::Acquire) {
                    known if known == key => {
                        entry.used.store(now, Ordering::Relaxed);
                        return Some(place);
                    }
                    0 => {
                        entry.used.store(now, Ordering::Relaxed);
                        if entry.key.compare_exchange(0, key, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                            return Some(place);
                        }
                        continue 'again;
                    }
                    known if stale.is_none() && is_unused(entry.used.load(Ordering::Relaxed), now) => {
                        stale = Some((place, known));
                    }
                    _ => {}
                }
            }
            let (place, known) = stale?;
            // Before it has its new key: who dies in between leaves an old quota anew, never a new one old.
            self.map.words(table, place).iter().for_each(|word| word.store(0, Ordering::Relaxed));
            let entry = self.map.entry(table, place);
            if entry.key.compare_exchange(known, key, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                entry.used.store(now, Ordering::Relaxed);
                return Some(place);
            }
        }
        None
    }
}

/// A clock that was a day ahead has nobody's word.
const fn is_unused(used: u64, now: u64) -> bool {
    used.saturating_add(UNUSED) < now || used > now.saturating_add(UNUSED)
}

/// A place in the map that was the key's when it was found.
#[derive(Debug)]
struct Place {
    memory: Arc<Memory>,
    table: Table,
    place: usize,
    key: u64,
}

impl Place {
    /// Whether it still is the key's; notes that it is used.
    fn is_ours(&self) -> bool {
        let entry = self.memory.map.entry(self.table, self.place);
        let minute = self.memory.minute.load(Ordering::Relaxed);
        if entry.used.load(Ordering::Relaxed) != minute {
            entry.used.store(minute, Ordering::Relaxed);
        }
        entry.key.load(Ordering::Acquire) == self.key
    }

    /// After a day without a call the place may be another's: from then on the process has its own.
    fn lost<T>(&self, own: impl FnOnce() -> T) -> T {
        self.memory.evicted.fetch_add(1, Ordering::Relaxed);
        own()
    }
}

/// A cell in the map.
#[derive(Debug)]
pub(crate) struct SharedCell(Place, OnceLock<Cell>);

impl AsRef<Cell> for SharedCell {
    fn as_ref(&self) -> &Cell {
        match self.0.is_ours() {
            true => self.0.memory.map.cell(self.0.place),
            false => self.1.get_or_init(|| self.0.lost(Cell::new)),
        }
    }
}

impl SharedCell {
    /// Whether the process of this number (24 bits) is the one of its host that asks the fleet for grants; it is
    /// from `now` on, `lasts` long and no longer than [`LEADS`], if nobody else was. Both in milliseconds.
    #[cfg(feature = "redis")]
    pub(crate) fn leads(&self, process: u32, now: u64, lasts: u64) -> bool {
        const UNTIL: u64 = (1 << 40) - 1;
        let leader = &self.0.memory.map.entry(self.0.table, self.0.place).leader;
        let seen = leader.load(Ordering::Relaxed);
        let (known, until) = (seen >> 40, seen & UNTIL);
        let left = until.wrapping_sub(now) & UNTIL;
        if seen != 0 && known != u64::from(process) && left <= LEADS {
            return false;
        }
        let mine = (u64::from(process) << 40) | (now.wrapping_add(lasts.min(LEADS)) & UNTIL);
        leader.compare_exchange(seen, mine, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The process of this number does not ask any more, and another one may at once.
    #[cfg(feature = "redis")]
    pub(crate) fn resigns(&self, process: u32) {
        let leader = &self.0.memory.map.entry(self.0.table, self.0.place).leader;
        let seen = leader.load(Ordering::Relaxed);
        if seen >> 40 == u64::from(process) {
            let _another_does = leader.compare_exchange(seen, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// A canary in the map.
#[derive(Debug)]
pub(crate) struct SharedCanary(Place, OnceLock<Canary>);

impl AsRef<Canary> for SharedCanary {
    fn as_ref(&self) -> &Canary {
        match self.0.is_ours() {
            true => self.0.memory.map.canary(self.0.place),
            false => self.1.get_or_init(|| self.0.lost(Canary::new)),
        }
    }
}

struct SharedShares(Place, OnceLock<Box<Shares>>);

impl AsRef<Shares> for SharedShares {
    fn as_ref(&self) -> &Shares {
        match self.0.is_ours() {
            true => self.0.memory.map.shares(self.0.place),
            false => self.1.get_or_init(|| self.0.lost(Shares::new)),
        }
    }
}

/// Shares of this process alone.
struct OwnShares(Box<Shares>);

impl AsRef<Shares> for OwnShares {
    fn as_ref(&self) -> &Shares {
        &self.0
    }
}

/// Shares of this process alone.
pub(crate) fn own_shares() -> SharesHome {
    Arc::new(OwnShares(Shares::new()))
}

/// A cell of this process alone.
#[cfg(feature = "redis")]
pub(crate) fn own_cell() -> CellHome {
    Arc::new(Cell::new())
}
