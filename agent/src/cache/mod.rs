//! Where the answers of the cache lie: in the memory of this process, bounded in bytes; and, where the configuration
//! says so, on a disk that the processes of the host share, and in a Redis beyond it.

#[cfg(feature = "shared-cache")]
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "there is nobody to tell"))]
mod changes;
#[cfg(feature = "shared-cache")]
mod common;
#[cfg(feature = "shared-cache")]
mod disk;
#[cfg(feature = "shared-cache")]
mod leases;
mod memory;
#[cfg(all(feature = "shared-cache", feature = "redis"))]
mod redis;
#[cfg(feature = "shared-cache")]
mod seal;
#[cfg(feature = "shared-cache")]
mod shared;
#[cfg(all(test, feature = "shared-cache"))]
mod tests;
#[cfg(feature = "shared-cache")]
mod tier;
mod vendors;
#[cfg(feature = "shared-cache")]
mod worker;

pub(crate) use memory::Memory;
#[cfg(feature = "shared-cache")]
pub(crate) use shared::{Beyond, Shared};

use crate::clock::Clock;
use crate::home::LEDGER;
use crate::report::ReportError;
use crate::store::Store as Ledger;
use farcall::matcher::Matcher;
use std::path::Path;
use std::time::Duration;

/// How many bytes of answers are kept, unless `cache_memory` says so.
pub(crate) const DEFAULT_BYTES: u64 = 64 << 20;

/// A disk that takes longer than this is done without, unless `cache_disk_wait` says how long.
pub(crate) const DISK_WAIT: Duration = Duration::from_secs(1);

/// A store beyond the host that takes longer than this is done without, unless `cache_redis_wait` says how long.
pub(crate) const REDIS_WAIT: Duration = Duration::from_millis(5);

/// What is known of an answer that is kept.
const KEYS: [&str; 5] = ["vendor", "vendor.name", "endpoint", "method", "customer"];

/// Tells the caches of all programs of this home directory to forget the answers that these conditions, as those of a
/// `match`, are about: `vendor`, `endpoint`, `method`, `customer`; all answers where there are none. They do within a
/// second or so; what lies on the disk of this machine is gone when this returns. Returns how many programs there are.
/// A program that is to forget by itself at once asks its handle: [`Farcall::purge_cache`](crate::Farcall::purge_cache).
///
/// # Errors
/// When a condition cannot be understood or is about a vendor that nobody knows, or there is no ledger, through which
/// they are told.
pub fn purge_cache(home: &Path, conditions: &[(String, String)]) -> Result<u64, ReportError> {
    let pairs = conditions.iter().map(|(key, text)| (key.as_str(), text.as_str()));
    // Before what the matcher would say of a key: it has more than there is to know of an answer.
    if let Some((key, _)) = pairs.clone().find(|(key, _)| !KEYS.contains(key)) {
        return Err(ReportError::NotFound(format!(
            "what is kept is known by vendor, endpoint, method and customer, not by `{key}`"
        )));
    }
    let which = Matcher::new(pairs).map_err(|error| ReportError::NotFound(error.to_string()))?;
    if !home.join(LEDGER).exists() {
        return Err(ReportError::NoLedger(home.to_owned()));
    }
    for (_, text) in conditions.iter().filter(|(key, _)| matches!(key.as_str(), "vendor" | "vendor.name")) {
        if let Some(objection) = vendors::objection(home, text)? {
            return Err(ReportError::NotFound(objection));
        }
    }
    let (ledger, now) = (Ledger::new(home.to_owned()), Clock::new().now());
    let told =
        ledger.add_purge(conditions, now).map_err(|failure| ReportError::Unreadable(failure.to_string()))?;
    // What lies on the disk goes at once, whether or not a program runs.
    #[cfg(feature = "shared-cache")]
    Shared::purge_disk(home, now, std::sync::Arc::new(move |answer| answer.label.is_of(&which)))
        .map_err(|error| ReportError::Unreadable(error.to_string()))?;
    Ok(told)
}
