//! What a process provides its engine with when it begins: the key of its fingerprints, the variables that may hold
//! credentials, the memory of quotas and the store of answers that it shares with others.

use super::key;
use super::process::Process;
#[cfg(feature = "shared-cache")]
use crate::cache::{Beyond, Shared};
use crate::cache::{DEFAULT_BYTES, Memory};
use crate::share::Share;
use crate::tally::Tallies;
use farcall::QuotaHome;
#[cfg(feature = "shared-cache")]
use farcall::Timestamp;
use farcall::cache::Store;
use farcall::inspect::Fingerprinter;
#[cfg(feature = "shared-cache")]
use std::io;
use std::sync::Arc;

impl Process {
    /// Where answers lie: in memory, and beyond it where the configuration says so.
    pub(super) fn cache_store(self: &Arc<Self>) -> Arc<dyn Store> {
        let memory = || Memory::new(self.setup.config.cache_memory.unwrap_or(DEFAULT_BYTES));
        #[cfg(feature = "shared-cache")]
        if let Some(beyond) = Beyond::of(&self.setup.config) {
            let process = Arc::downgrade(self);
            let clock = move || process.upgrade().map_or(Timestamp::EPOCH, |process| process.clock.now());
            let service = &self.caller.service;
            let home = self.setup.home.as_deref();
            let opened = home
                .ok_or_else(|| io::Error::other("there is no home directory"))
                .and_then(|home| Shared::open(home, service, memory(), &beyond, Box::new(clock)));
            match opened {
                Ok(shared) => return Arc::clone(self.cache.get_or_init(|| Arc::new(shared))) as _,
                Err(error) => {
                    Tallies::add(&self.tallies.unshared_caches, 1);
                    self.writer().say_once(
                        "cache",
                        &format!(
                            "cannot share the cache with other processes: {error}; it is this process's own"
                        ),
                    );
                }
            }
        }
        Arc::new(memory())
    }

    pub(super) fn share_quotas(&self) {
        let (share, said) = Share::open(self.setup.home.as_deref(), &self.setup.config.share, self.salt);
        if let Some(said) = said {
            Tallies::add(&self.tallies.unshared_homes, 1);
            // Without rules nobody misses it; `farcall doctor` shows it all the same.
            if self.engine.decides() {
                self.writer().say_once("share", &said);
            }
        }
        let share = self.share.get_or_init(|| Arc::new(share));
        self.agree_on_clock();
        self.engine.set_quota_home(Arc::clone(share) as Arc<dyn QuotaHome>);
    }

    pub(super) fn take_key(&self) {
        let Some(home) = &self.setup.home else { return };
        let key = key::of_installation(home).ok().or_else(|| {
            Tallies::add(&self.tallies.missing_keys, 1);
            key::of_process()
        });
        if let Some(key) = key {
            self.engine.set_fingerprinter(Fingerprinter::new(key));
        }
    }

    /// So that rules can tell which variable holds a credential. Read once, while the application starts: it may
    /// change the environment later, and nobody else must look then.
    pub(super) fn read_environment(&self) {
        let variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        self.engine.set_environment(variables.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }
}
