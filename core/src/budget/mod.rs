//! Budgets: what we allow ourselves, in money, calls or tokens, in a period of the calendar.
//!
//! A call reserves what it may cost before it is sent and settles what it did cost after its last byte, so
//! that calls under way at the same time cannot spend the same money. See [`State`].

mod state;
mod tally;

pub use state::{Admission, Reservation, Settled, State, Status, Then, Verdict};
pub use tally::Tally;

use crate::units::{Currency, Money, Period};
use std::fmt;

/// What follows from a `[[budget]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// `limit`: how much, in which period.
    pub limit: Limit,
    /// `at_80_percent` and the like: what happens from a share of the limit on, in rising order. At most
    /// [`MAX_MARKS`].
    pub at: Vec<(u8, Action)>,
    /// `over`: what happens to calls beyond the limit.
    pub over: Action,
    /// `downgrade`: cheaper models.
    pub downgrades: Vec<Downgrade>,
}

/// Shares of the limit that one budget can name.
pub const MAX_MARKS: usize = 8;

/// An amount in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Nano-units of money, calls or tokens. At most [`Limit::MAX`].
    pub amount: u64,
    /// What of.
    pub unit: Unit,
    /// In which period.
    pub period: Period,
}

impl Limit {
    /// The largest amount: a billion dollars, or 10^18 calls.
    pub const MAX: u64 = 1_000_000_000_000_000_000;
}

impl fmt::Display for Limit {
    /// As it is written in a rule: `1000 requests / day`, `50.00 USD / month`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Money(currency) => {
                Money::from_nanos(i64::try_from(self.amount).unwrap_or(i64::MAX), currency).fmt(f)?;
            }
            unit => write!(f, "{} {unit}", self.amount)?,
        }
        write!(f, " / {}", self.period.as_str())
    }
}

/// What a budget is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Money of one currency. Calls that cost another are not counted, but tallied as unknown.
    Money(Currency),
    /// Calls.
    Requests,
    /// Tokens of prompt and answer.
    Tokens,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Money(currency) => currency.fmt(f),
            Self::Requests => f.write_str("requests"),
            Self::Tokens => f.write_str("tokens"),
        }
    }
}

/// What happens at a share of a budget, or beyond all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// One warning a period; calls pass.
    Warn,
    /// What is left is spread over the rest of the period: calls wait for their turn. Nothing left is spread as
    /// waiting for the next period.
    Throttle,
    /// Calls are sent with a cheaper model, where one is named; others pass.
    Downgrade,
    /// Calls are refused until the period ends. Only beyond the limit.
    Refuse,
}

/// A cheaper model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downgrade {
    /// The model asked for; a `*` at the end stands for anything.
    pub from: String,
    /// The model to ask for instead: the adapter writes it into the request's `model`.
    pub to: String,
}

/// What a call spent of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// What is known of it.
    pub known: u64,
    /// Whether that is all. If not, what was reserved is taken for the rest.
    pub all: bool,
}

impl Spent {
    /// Nothing: the call was not sent.
    pub const NOTHING: Self = Self { known: 0, all: true };
}

impl Rule {
    /// A rule with a limit and nothing but warnings.
    #[must_use]
    pub const fn new(limit: Limit) -> Self {
        Self { limit, at: Vec::new(), over: Action::Warn, downgrades: Vec::new() }
    }

    /// What is spent under a rule is kept under this: its own account, and what of and in which period, for amounts of
    /// another unit or period are not to be taken for these.
    #[must_use]
    pub fn account(&self, rule: &str) -> String {
        format!("{rule}, {} / {}", self.limit.unit, self.limit.period.as_str())
    }

    /// What to reserve for a call that will cost about so much, and so many tokens. Nothing where it costs
    /// another currency.
    #[must_use]
    pub fn amount(&self, cost: Money, tokens: u64) -> u64 {
        match self.limit.unit {
            Unit::Money(currency) if currency == cost.currency() => u64::try_from(cost.nanos()).unwrap_or(0),
            Unit::Money(_) => 0,
            Unit::Requests => 1,
            Unit::Tokens => tokens,
        }
    }

    /// What a call spent that cost so much (`whole`: all is known of that), and so many tokens.
    #[must_use]
    pub fn spent(&self, cost: Money, whole: bool, tokens: Option<u64>) -> Spent {
        match self.limit.unit {
            Unit::Money(currency) if currency == cost.currency() || cost.nanos() == 0 => {
                Spent { known: u64::try_from(cost.nanos()).unwrap_or(0), all: whole }
            }
            Unit::Money(_) => Spent { known: 0, all: false },
            Unit::Requests => Spent { known: 1, all: true },
            Unit::Tokens => Spent { known: tokens.unwrap_or(0), all: whole && tokens.is_some() },
        }
    }

    /// Whether a share of the limit has calls ask a cheaper model: then one that would be refused for its price does.
    #[must_use]
    pub fn downgrades_in_time(&self) -> bool {
        matches!(self.limit.unit, Unit::Money(_))
            && self.at.iter().any(|(_, action)| *action == Action::Downgrade)
    }

    /// The cheaper model for one, by the longest match; `None` where none is named, or a version of the cheaper
    /// one is asked for already.
    #[must_use]
    pub fn cheaper(&self, model: &str) -> Option<&str> {
        let matches = |known: &&Downgrade| match known.from.strip_suffix('*') {
            Some(start) => model.starts_with(start) && !model.starts_with(&known.to),
            None => known.from == model,
        };
        let found = self.downgrades.iter().filter(matches).max_by_key(|known| known.from.len());
        found.map(|found| found.to.as_str())
    }

    /// The limit's part that a share in percent is.
    pub(crate) fn part(&self, percent: u8) -> u64 {
        let (amount, percent) = (self.limit.amount, u64::from(percent));
        if percent == 100 {
            return amount;
        }
        match amount.checked_mul(percent) {
            Some(product) => product / 100,
            // The same, piece by piece.
            None => (amount / 100).saturating_mul(percent).saturating_add(amount % 100 * percent / 100),
        }
    }
}

#[cfg(test)]
mod tests;
