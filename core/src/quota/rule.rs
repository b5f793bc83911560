//! What follows from the match of a `[[quota]]` rule.

pub(super) use crate::call::Priority;
use std::time::Duration;

/// How a quota is kept to. [`Rule::default`] states no limit of its own, refuses or delays only what the vendor
/// would refuse, and lets nothing wait for more than two seconds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// `limit`: a rate that we impose on ourselves or that a contract states. Without it the vendor's own
    /// statements hold, and a learned limit where the vendor makes none.
    pub limit: Option<Limit>,
    /// `burst`: how many units may go back to back, in units of `limit`. Any period sees at most `limit` and
    /// `burst` units. Without it a hundredth of `limit`, at least one. For `pace = "smooth"`: how far use may
    /// run ahead of an even spread; without it a tenth of the time until the reset.
    pub burst: Option<u64>,
    /// `concurrency`: the most calls under way at once.
    pub concurrency: Option<u32>,
    /// `pace`: what happens before the quota is used up.
    pub pace: Pace,
    /// `reserve`: the share that is kept for a priority; with `pace = "reserve"` only.
    pub reserve: Option<Reserve>,
    /// `fair = "customer"`: when demand exceeds the quota, customers share it by weighted max-min.
    pub fair: bool,
    /// `weights`: customers that count for more or less than one.
    pub weights: Vec<(String, Weight)>,
    /// `max_wait`: the longest that a call waits for this quota. 2 seconds.
    pub max_wait: Duration,
    /// `shared`: who uses the quota together.
    pub shared: Shared,
    /// `on_error`: what happens to a call when the shared state cannot be had.
    pub on_error: OnError,
}

/// A rate: so many units in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many; at least 1.
    pub units: u64,
    /// Of what.
    pub unit: Unit,
    /// In which time; longer than zero.
    pub period: Duration,
}

/// What a quota counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Calls on the wire.
    #[default]
    Requests,
    /// Tokens of a language model.
    Tokens,
    /// Bytes of bodies.
    Bytes,
    /// What the vendor calls points, credits, cost or complexity.
    Points,
}

impl Unit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Requests, Self::Tokens, Self::Bytes, Self::Points];

    /// The word for it, as in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Bytes => "bytes",
            Self::Points => "points",
        }
    }
}

/// What happens before a quota is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pace {
    /// Nothing.
    #[default]
    Off,
    /// What is left is spread until the reset.
    Smooth,
    /// A share is kept for a priority.
    Reserve,
}

/// The share that only calls of a priority may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reserve {
    /// The least priority that may use it.
    pub priority: Priority,
    /// Which share, in thousandths; between 1 and 999.
    pub per_mille: u16,
}

/// A customer's weight in the fair share, in thousandths: 1,000 is the weight of everybody who is not named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(pub u32);

impl Default for Weight {
    fn default() -> Self {
        Self(1_000)
    }
}

/// Who uses a quota together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shared {
    /// This process alone.
    Process,
    /// The processes of this host.
    #[default]
    Host,
    /// All hosts, through Redis or Valkey.
    Fleet,
}

/// What happens to a call when the shared state of its quota cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnError {
    /// It goes on, under this process's own account of the quota.
    #[default]
    Pass,
    /// It is refused: nothing goes that others might not know of.
    Refuse,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            limit: None,
            burst: None,
            concurrency: None,
            pace: Pace::default(),
            reserve: None,
            fair: false,
            weights: Vec::new(),
            max_wait: Duration::from_secs(2),
            shared: Shared::default(),
            on_error: OnError::default(),
        }
    }
}

impl Rule {
    /// The rule that says nothing but `limit`.
    #[must_use]
    pub fn limit(units: u64, unit: Unit, period: Duration) -> Self {
        Self { limit: Some(Limit { units, unit, period }), ..Self::default() }
    }

    /// The weight of a customer of this name. A linear search: for whoever resolves names, once.
    #[must_use]
    pub fn weight(&self, customer: &str) -> Weight {
        self.weights
            .iter()
            .find(|(name, _)| name == customer)
            .map_or_else(Weight::default, |(_, weight)| *weight)
    }

    /// How many units of this limit may go back to back.
    pub(crate) fn burst_of(&self, limit: &Limit) -> u64 {
        self.burst.unwrap_or_else(|| limit.default_burst()).max(1)
    }

    pub(super) fn max_wait_nanos(&self) -> u64 {
        nanos(self.max_wait)
    }

    /// The share, in thousandths, that calls of `priority` leave alone.
    pub(super) fn kept_from(&self, priority: Priority) -> u16 {
        match self.reserve {
            Some(reserve) if self.pace == Pace::Reserve && priority < reserve.priority => reserve.per_mille,
            _ => 0,
        }
    }
}

/// A limit as calls of one unit see it, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// How long the quota needs to make up for one.
    pub(super) cost: u64,
    /// How far ahead of an even spread one may come.
    pub(super) tolerance: u64,
}

/// Half a minute: who stands still so long, and pays for it as long, has kept the limit over a minute.
const OWED: u64 = 30_000_000_000;

impl Limit {
    /// How long `units` take at this rate, in nanoseconds, rounded up.
    pub(super) fn time_of(&self, units: u64) -> u64 {
        let (period, limit) = (nanos(self.period), self.units.max(1));
        if units == 1 {
            return period.div_ceil(limit);
        }
        match units.checked_mul(period) {
            Some(product) => product.div_ceil(limit),
            None => {
                let product = u128::from(units) * u128::from(period);
                u64::try_from(product.div_ceil(u128::from(limit))).unwrap_or(u64::MAX)
            }
        }
    }

    /// What a call of one unit needs at this rate, worked out once for all of them; `burst` as in [`Rule`].
    pub(crate) fn rate(&self, burst: Option<u64>) -> Rate {
        let burst = burst.unwrap_or_else(|| self.default_burst());
        // Who asks for more than the limit can never have it; a period without anybody else is what that costs.
        let cost = self.time_of(1).min(nanos(self.period));
        Rate { cost, tolerance: if burst <= 1 { 0 } else { self.time_of(burst - 1) } }
    }

    /// How often a host asks the fleet for its part, in nanoseconds: ten times a period, between 20 times a second
    /// and once a second.
    pub(super) fn renewal(&self) -> u64 {
        (nanos(self.period) / 10).clamp(50_000_000, 1_000_000_000)
    }

    /// What a host may owe its fleet at most, and a fleet its limit: what the limit allows in half a minute, or once.
    /// No number, right or wrong, keeps a fleet from its quota for longer.
    #[must_use]
    pub fn most_owed(&self) -> u64 {
        let time = nanos(self.period).max(1);
        let units = u128::from(self.units) * u128::from(OWED) / u128::from(time);
        self.units.max(u64::try_from(units).unwrap_or(u64::MAX))
    }

    pub(super) fn default_burst(&self) -> u64 {
        (self.units / 100).max(1)
    }
}

pub(super) const fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos() as u64)
}
