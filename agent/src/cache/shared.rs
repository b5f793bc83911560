//! The cache of a process that shares with others: memory first, then the disk of the host, then a store beyond it.

use super::changes::Changes;
use super::common::{Common, Which};
use super::disk::Disk;
use super::leases::Leases;
use super::seal::Seal;
use super::worker::{Job, Worker};
use super::{DISK_WAIT, Memory};
use farcall::cache::{Answer, Fetch, Kept, Key, Landing, Place, Store};
use farcall::{Config, Timestamp};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Where it is to lie beside memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beyond<'a> {
    /// Bytes on the disk, and how long a call waits for it; `None`: none.
    pub(crate) disk: Option<(u64, Duration)>,
    /// A Redis and what its keys begin with, and how long a call waits for it.
    pub(crate) redis: Option<(&'a str, &'a str, Duration)>,
}

impl<'a> Beyond<'a> {
    /// As the configuration says; `None` where that is nowhere.
    pub(crate) fn of(config: &'a Config) -> Option<Self> {
        let disk = config.cache_disk.map(|most| (most, config.cache_disk_wait.unwrap_or(DISK_WAIT)));
        #[cfg(feature = "redis")]
        let wait = config.cache_redis_wait.unwrap_or(super::REDIS_WAIT);
        #[cfg(feature = "redis")]
        let redis = config.cache_redis.as_ref().map(|url| (url.as_str(), config.share.prefix.as_str(), wait));
        #[cfg(not(feature = "redis"))]
        let redis = None;
        let beyond = Self { disk, redis };
        (beyond.disk.is_some() || beyond.redis.is_some()).then_some(beyond)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    common: Arc<Common>,
    secret: [u8; 16],
    leases: Option<Arc<Leases>>,
    /// The first is asked first, and so long a call waits for it.
    workers: Vec<(Arc<Worker>, Duration)>,
}

impl Shared {
    /// The cache of a service's processes.
    ///
    /// # Errors
    /// Where nothing can be kept in the home directory.
    pub(crate) fn open(
        home: &Path,
        service: &str,
        memory: Memory,
        beyond: &Beyond<'_>,
        clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> io::Result<Self> {
        let seal = Seal::of(home)?;
        let secret = seal.secret(service).ok_or_else(|| io::Error::other("no keys can be made"))?;
        let patience = beyond.disk.map_or(DISK_WAIT, |(_, patience)| patience);
        let disk = beyond.disk.map(|(most, _)| Disk::open(home, most)).transpose()?;
        let mut common = Common::new(memory, seal, clock);
        common.changes = beyond.redis.is_some().then(Changes::new);
        let common = Arc::new(common);
        let mut workers: Vec<(Arc<Worker>, Duration)> = Vec::new();
        #[cfg(feature = "redis")]
        if let Some((url, prefix, patience)) = beyond.redis {
            // Not a part of the secret that keys are made with: everybody who sees the store sees it.
            let table = common.seal.secret(&format!("{service}\0changes"));
            let table = table.ok_or_else(|| io::Error::other("no keys can be made"))?;
            let redis = Box::new(super::redis::Redis::new(url, prefix, u128::from_le_bytes(table)));
            let worker = Worker::new("farcall-redis", Arc::clone(&common), None, redis, None, patience);
            workers.push((Arc::new(worker), patience));
        }
        let leases = disk.as_ref().map(|disk| Arc::clone(disk.leases()));
        if let Some(disk) = disk {
            let next = workers.first().cloned();
            let worker = Worker::new(
                "farcall-cache",
                Arc::clone(&common),
                leases.clone(),
                Box::new(disk),
                next,
                patience,
            );
            workers.insert(0, (Arc::new(worker), patience));
        }
        Ok(Self { common, secret, leases, workers })
    }

    /// Removes what lies on the disk of a home directory and `which` says; how many those were.
    pub(crate) fn purge_disk(home: &Path, now: Timestamp, which: Which) -> io::Result<u64> {
        use super::tier::Tier;
        if !Disk::is_in(home) {
            return Ok(0);
        }
        let seal = Seal::of(home)?;
        Disk::open(home, u64::MAX)?.walk(&mut |key, sealed| match seal.open(key, sealed) {
            Some(Kept::Answer(answer)) => answer.requested_at() <= now && which(&answer),
            Some(_) => false,
            None => true,
        })
    }

    /// Starts its threads, unless they run.
    pub(crate) fn start(&self) -> io::Result<()> {
        self.workers.iter().try_for_each(|(worker, _)| worker.start())
    }

    /// Stops them when all is written that is to be, and waits for that, but no longer than `patience`: what is not
    /// written by then is lost.
    pub(crate) fn stop(&self, patience: Duration) {
        let until = Instant::now() + patience;
        self.workers.iter().for_each(|(worker, _)| worker.wind_down(until));
        self.workers.iter().for_each(|(worker, _)| worker.stop(until));
    }

    /// Name and value of each counter.
    pub(crate) fn counters(&self) -> Vec<(String, u64)> {
        let counts = &self.common.counts;
        [
            ("unwritten_answers", &counts.unwritten),
            ("unreadable_answers", &counts.unreadable),
            ("failed_cache_reads", &counts.failed),
            ("untold_changes", &counts.untold),
        ]
        .map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed)))
        .into()
    }

    fn give_all(&self, job: impl Fn() -> Job) {
        for (worker, _) in &self.workers {
            let job = job();
            let puts = matches!(job, Job::Put(..));
            if !worker.give(job) && puts {
                self.common.counts.unwritten.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Store for Shared {
    fn get(&self, key: Key) -> Option<Kept> {
        self.common.memory.get(key)
    }

    fn put(&self, key: Key, kept: Kept) {
        self.put_for(key, kept, Duration::MAX);
    }

    fn put_for(&self, key: Key, kept: Kept, useful_for: Duration) {
        self.common.memory.put(key, kept.clone());
        self.give_all(|| Job::Put(key, kept.clone(), useful_for));
    }

    fn takes(&self, kept: &Kept) -> bool {
        self.common.memory.takes(kept)
    }

    fn remove(&self, key: Key) {
        self.common.memory.remove(key);
        self.give_all(|| Job::Remove(key));
    }

    fn purge(&self, which: &dyn Fn(&Answer) -> bool) -> u64 {
        self.common.memory.purge(which)
    }

    fn secret(&self) -> Option<[u8; 16]> {
        Some(self.secret)
    }

    fn fetch(&self, key: Key, now: Timestamp) -> Option<Fetch> {
        self.workers.iter().find_map(|(worker, patience)| {
            let fetch = Fetch::new(now.plus(*patience));
            worker.give(Job::Fetch(key, fetch.clone())).then_some(fetch)
        })
    }

    fn join(&self, key: Key, now: Timestamp) -> Place {
        self.leases.as_ref().map_or(Place::Lead, |leases| leases.join(key, now))
    }

    fn land(&self, key: Key, landing: Landing, now: Timestamp) {
        let Some(leases) = &self.leases else { return };
        if leases.land(key)
            && !self.workers.iter().take(1).any(|(worker, _)| worker.give(Job::Land(key, landing, now)))
        {
            leases.release(key, landing, now);
        }
    }

    fn changed(&self, uri: u64, now: Timestamp) {
        if let Some(leases) = &self.leases {
            leases.changed(uri, now);
        }
        if let Some(changes) = &self.common.changes
            && changes.add(uri)
        {
            self.give_all(|| Job::Changed);
        }
    }

    fn last_change(&self, uri: u64) -> Timestamp {
        let of_host = self.leases.as_ref().map_or(Timestamp::EPOCH, |leases| leases.last_change(uri));
        let of_others = self.common.changes.as_ref().map_or(Timestamp::EPOCH, |changes| changes.last(uri));
        of_host.max(of_others)
    }

    fn purge_beyond(&self, which: Which, now: Timestamp) {
        self.common.purge(Arc::clone(&which), now);
        self.give_all(|| Job::Purge(Arc::clone(&which), now));
    }
}
