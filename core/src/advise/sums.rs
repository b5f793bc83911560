//! What leaves: sums by endpoint.

use super::TTLS;
use std::sync::Arc;
use std::time::Duration;

/// What a cache with one lifetime would have done about the calls to an endpoint. Estimates where [`Sums::weight`] is
/// more than one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AtTtl {
    /// Calls that need not have been made.
    pub hits: u64,
    /// Of these, calls to which the answer had changed by then.
    pub stale: u64,
    /// What they cost, as far as known, in nano-units of the configured currency.
    pub cost: i64,
    /// Of these, calls whose cost is not known.
    pub cost_unknown: u64,
    /// How long they took.
    pub duration: Duration,
    /// Requests of the vendor's quota that they used, where it is known to have one.
    pub quota: u64,
    /// Bytes of their answers.
    pub bytes: u64,
}

macro_rules! sums {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What was seen of an endpoint's calls. Those that the cache answered or a rule refused are not among them.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Sums {
            $($(#[$doc])* pub $name: u64,)*
            /// The longest run of [`Sums::loops`].
            pub longest_loop: u64,
            /// The most calls that one of those that were compared stands for.
            pub weight: u64,
            /// At each of [`TTLS`].
            pub at: [AtTtl; TTLS.len()],
        }

        impl Sums {
            /// Adds another account to this one.
            pub fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)*
                self.longest_loop = self.longest_loop.max(other.longest_loop);
                self.weight = self.weight.max(other.weight);
                for (mine, more) in self.at.iter_mut().zip(&other.at) {
                    mine.add(more);
                }
            }

            /// Name and value of each sum that is a count of calls or of what they are part of.
            #[must_use]
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// The counts of these values, in the order of [`Sums::counts`].
            pub fn set_counts(&mut self, values: impl IntoIterator<Item = u64>) {
                let mut values = values.into_iter();
                $(self.$name = values.next().unwrap_or_default();)*
            }
        }
    };
}

sums! {
    /// Calls.
    calls,
    /// Calls that were given up after a time that a rule or the application had said.
    deadlines,
    /// Calls that had something to fall back on: a breaker, another host, or a kept answer.
    fallbacks,
    /// Calls that failed, or were answered with 429 or 5xx.
    failures,
    /// Calls that asked again, within ten seconds, what had just failed.
    repeats,
    /// Runs of ten calls or more, one after the other, to this endpoint and always about something else.
    loops,
    /// Calls of such runs.
    looped,
    /// Calls that were part of a trace.
    traced,
    /// How many traces there were.
    traces,
    /// Calls that were compared with earlier ones.
    compared,
    /// Of these, calls whose answers were compared by nothing but their status and length, or a part of their body.
    roughly,
    /// Of these, calls whose answer says that it may not be kept (`no-store`).
    forbidden,
    /// Of these, calls whose answer can be asked about (`ETag`, `Last-Modified`).
    validators,
    /// Of these, calls whose answer says for how long it is good.
    dated,
    /// Calls that could not be compared: nobody showed their query and headers, or their answer varies by more than is
    /// known.
    apart,
}

impl AtTtl {
    /// Adds another account to this one.
    pub fn add(&mut self, other: &Self) {
        self.hits = self.hits.saturating_add(other.hits);
        self.stale = self.stale.saturating_add(other.stale);
        self.cost = self.cost.saturating_add(other.cost);
        self.cost_unknown = self.cost_unknown.saturating_add(other.cost_unknown);
        self.duration = self.duration.saturating_add(other.duration);
        self.quota = self.quota.saturating_add(other.quota);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What was seen of one endpoint since the last drain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Observed {
    /// The minute of the drain.
    pub minute: u64,
    /// The vendor's name; empty for all calls of the process together, of which only the traces are counted.
    pub vendor: Arc<str>,
    /// Method and URL template.
    pub endpoint: Arc<str>,
    /// The sums.
    pub sums: Sums,
}

/// How often a credential was used since the last drain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CredentialUse {
    /// The minute of the drain.
    pub minute: u64,
    /// The vendor's name.
    pub vendor: Arc<str>,
    /// The fingerprint, 12 hexadecimal digits.
    pub credential: String,
    /// Calls.
    pub calls: u64,
}

impl CredentialUse {
    pub(crate) const fn new(minute: u64, vendor: Arc<str>, credential: String, calls: u64) -> Self {
        Self { minute, vendor, credential, calls }
    }
}
