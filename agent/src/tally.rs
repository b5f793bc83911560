//! What the agent could not do as asked, counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many different names a binding may count failures under.
const MAX_NAMED: usize = 64;

macro_rules! tallies {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of the agent; `farcall doctor` shows what is not zero.
        #[derive(Debug, Default)]
        pub(crate) struct Tallies {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
            named: Mutex<BTreeMap<String, u64>>,
        }

        impl Tallies {
            /// Name and value of each, those of the bindings included.
            pub(crate) fn all(&self) -> Vec<(String, u64)> {
                let mut all = vec![$((stringify!($name).to_owned(), self.$name.load(Ordering::Relaxed)),)*];
                let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend(named.iter().map(|(name, count)| (name.clone(), *count)));
                all
            }
        }
    };
}

tallies! {
    /// Flushes that could not be written, and were tried again later.
    failed_flushes,
    /// Times that old rows of the ledger could not be added up or removed; tried again an hour later.
    failed_upkeep,
    /// Calls that were dropped, because nothing could be written for too long.
    lost_calls,
    /// Failed calls that are not kept one by one, because there were too many; they are counted.
    lost_exemplars,
    /// Incidents and notices that were dropped for the same reason.
    lost_incidents,
    /// Sums of budgets that were dropped for the same reason: other processes do not learn of them.
    lost_spending,
    /// Changes of quotas that reports do not show, for the same reason.
    lost_quotas,
    /// Calls that advice says nothing of, for the same reason.
    lost_advice,
    /// Connections of the sidecar that were dropped for the same reason.
    lost_connections,
    /// Calls of a library that the sidecar saw too, and could not confirm for the same reason.
    lost_confirmations,
    /// Calls whose customer was added to `other`, because one minute had too many rows.
    folded_rows,
    /// Damaged ledger files that were moved aside.
    corrupt_ledgers,
    /// Errors in the configuration file.
    config_errors,
    /// Changes of the configuration file that were not put in force, because of errors in it.
    rejected_reloads,
    /// Settings that were changed in the configuration file, and hold from the next start on.
    unchanged_settings,
    /// Answers that the cache was told to forget.
    purged_answers,
    /// Starts without the installation's key: this process tells credentials apart by a key of its own.
    missing_keys,
    /// Starts in which the memory that processes share quotas through could not be had.
    unshared_homes,
    /// Starts in which the cache could not be shared as the configuration says.
    unshared_caches,
    /// Calls that the sidecar was not told of, because it did not read fast enough.
    untold_sightings,
    /// Forks that were noticed late: calls of the first second after are not counted.
    late_forks,
    /// Panics inside Farcall that were caught.
    panics,
}

impl Tallies {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts under a name of the binding's; beyond 64 names, under `other_failures`.
    pub(crate) fn count(&self, name: &str, count: u64) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = named.get_mut(name) {
            *known += count;
            return;
        }
        let name = if named.len() < MAX_NAMED { farcall_name(name) } else { "other_failures".to_owned() };
        *named.entry(name).or_default() += count;
    }
}

/// A name as short as all names in the ledger.
fn farcall_name(name: &str) -> String {
    name[..name.floor_char_boundary(farcall::attribution::MAX_NAME)].to_owned()
}
