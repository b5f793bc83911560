//! The units that cross the engine's border.

mod bytes;
pub(crate) mod moment;
mod money;
mod number;
mod period;
mod share;

pub use money::{BadMoney, Currency, Money};
pub use number::grouped;
pub use period::Period;
pub use share::Share;

pub(crate) use bytes::same;
pub(crate) use money::decimal;
pub(crate) use share::{spread, stable_hash};

use std::fmt;
use std::time::Duration;

/// A moment, in nanoseconds since the Unix epoch.
///
/// The engine never reads a clock: whoever calls it does, preferably a monotonic one that was anchored to the
/// wall clock once, so that differences are exact and the values still say when something happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch itself.
    pub const EPOCH: Self = Self(0);

    /// A moment from nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Whole minutes since the Unix epoch: the finest step of a rollup.
    #[must_use]
    pub const fn minute(self) -> u64 {
        self.0 / 60_000_000_000
    }

    /// The time that passed since `earlier`; zero where the clock went backwards.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment and `millis` milliseconds, saturating.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1_000_000)))
    }

    /// This moment and `duration`, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        // Without the 128 bits of `as_nanos`.
        let nanos =
            duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into());
        Self(self.0.saturating_add(nanos))
    }

    /// This moment less `duration`, not before the epoch.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
