//! Where shared quotas and canaries lie: in memory that the processes of a host map, and for a fleet in a store beside it.

pub(crate) mod memory;
#[cfg(feature = "redis")]
mod redis;

use farcall::config::ShareConfig;
#[cfg(feature = "redis")]
use farcall::quota::Shared;
use farcall::quota::{CellHome, OnError, Rule, SharesHome};
use farcall::rollout::CanaryHome;
use farcall::{QuotaHome, Timestamp};
use memory::Memory;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The shared quotas of one process.
#[derive(Debug, Default)]
pub(crate) struct Share {
    memory: Option<Arc<Memory>>,
    /// Quotas that other processes have a part in, and that this one keeps alone all the same.
    unshared: AtomicU64,
    /// The same of canaries.
    unshared_canaries: AtomicU64,
    #[cfg(feature = "redis")]
    fleet: Option<redis::Fleet>,
}

impl Share {
    /// The memory of a home directory, and nothing else.
    pub(crate) fn of(home: &Path) -> io::Result<Self> {
        Ok(Self { memory: Some(Memory::open(home)?), ..Self::default() })
    }

    /// Maps the memory of a home directory. Where that fails, quotas are each process's own, and what to say about
    /// that comes beside. `seed` differs from process to process.
    pub(crate) fn open(home: Option<&Path>, config: &ShareConfig, seed: u64) -> (Self, Option<String>) {
        let mut share = Self::default();
        let mut said = None;
        if let Some(home) = home {
            match Memory::open(home) {
                Ok(memory) => share.memory = Some(memory),
                Err(error) => {
                    let home = home.display();
                    said = Some(format!(
                        "cannot share quotas and canaries with other processes through {home}: {error}; each keeps them alone"
                    ));
                }
            }
        }
        #[cfg(feature = "redis")]
        if config.redis.is_some() {
            let host = share.memory.as_ref().map_or(seed, |memory| memory.host());
            share.fleet = Some(redis::Fleet::new(config, host, seed));
        }
        #[cfg(not(feature = "redis"))]
        let _ = (config, seed);
        (share, said)
    }

    /// Starts what has to run beside the calls, unless it does; `clock` is theirs.
    pub(crate) fn start(&self, clock: impl Fn() -> Timestamp + Send + 'static) -> io::Result<()> {
        #[cfg(feature = "redis")]
        if let Some(fleet) = &self.fleet {
            return fleet.start(clock);
        }
        drop(clock);
        Ok(())
    }

    /// Stops it, and waits for that.
    pub(crate) fn stop(&self) {
        #[cfg(feature = "redis")]
        if let Some(fleet) = &self.fleet {
            fleet.stop();
        }
    }

    #[cfg(feature = "redis")]
    fn fleet(&self, key: u64, rule: &Rule) -> Option<CellHome> {
        let fleet = self.fleet.as_ref().filter(|_| rule.shared == Shared::Fleet && rule.limit.is_some())?;
        let cell = match self.memory.as_ref().and_then(|memory| memory.cell(key)) {
            Some(cell) => redis::FleetCell::Shared(cell),
            None => redis::FleetCell::Own(memory::own_cell()),
        };
        fleet.register(key, rule, &cell);
        Some(match cell {
            redis::FleetCell::Shared(cell) => cell,
            redis::FleetCell::Own(cell) => cell,
        })
    }

    #[cfg(not(feature = "redis"))]
    fn fleet(&self, _: u64, _: &Rule) -> Option<CellHome> {
        None
    }

    /// What the clocks of the processes have agreed on, where they share memory.
    pub(crate) fn anchor(&self) -> Option<&AtomicU64> {
        self.memory.as_ref().map(|memory| memory.anchor())
    }

    /// To be called about once a second.
    pub(crate) fn tick(&self) {
        if let Some(memory) = &self.memory {
            memory.tick();
        }
    }

    /// Name and value of each counter.
    pub(crate) fn counters(&self) -> Vec<(String, u64)> {
        let evicted = self.memory.as_ref().map_or(0, |memory| memory.evicted());
        #[cfg(feature = "redis")]
        let fleet =
            self.fleet.as_ref().map_or([0; 3], |fleet| [fleet.failures(), fleet.broken(), fleet.unleased()]);
        #[cfg(not(feature = "redis"))]
        let fleet = [0; 3];
        vec![
            ("unanswered_leases".to_owned(), fleet[0]),
            ("broken_leases".to_owned(), fleet[1]),
            ("unleased_quotas".to_owned(), fleet[2]),
            ("unshared_quotas".to_owned(), self.unshared.load(Ordering::Relaxed)),
            ("evicted_quotas".to_owned(), evicted),
            ("unshared_canaries".to_owned(), self.unshared_canaries.load(Ordering::Relaxed)),
        ]
    }
}

impl QuotaHome for Share {
    fn quota(&self, key: u64, rule: &Rule) -> Option<(CellHome, Option<SharesHome>)> {
        let shared = || self.memory.as_ref()?.cell(key).map(|cell| cell as CellHome);
        let Some(cell) = self.fleet(key, rule).or_else(shared) else {
            self.unshared.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let shares = match rule.fair {
            false => None,
            true => match self.memory.as_ref().and_then(|memory| memory.shares(key)) {
                Some(shares) => Some(shares),
                None => {
                    self.unshared.fetch_add(1, Ordering::Relaxed);
                    if rule.on_error == OnError::Refuse {
                        return None;
                    }
                    Some(memory::own_shares())
                }
            },
        };
        Some((cell, shares))
    }

    fn canary(&self, key: u64) -> Option<CanaryHome> {
        let shared = self.memory.as_ref().and_then(|memory| memory.canary(key));
        if shared.is_none() {
            self.unshared_canaries.fetch_add(1, Ordering::Relaxed);
        }
        shared.map(|canary| canary as CanaryHome)
    }

    fn leases(&self) -> bool {
        #[cfg(feature = "redis")]
        return self.fleet.is_some();
        #[cfg(not(feature = "redis"))]
        false
    }

    fn keeps(&self, key: u64, rule: &Rule) {
        #[cfg(feature = "redis")]
        if let Some(fleet) = &self.fleet {
            fleet.keeps(key, rule);
        }
        #[cfg(not(feature = "redis"))]
        let _ = (key, rule);
    }
}
