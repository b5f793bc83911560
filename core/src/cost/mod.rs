//! Cost: what a call used, as its response states it, times what the vendor asks for that.
//!
//! Prices are data (`core/catalogue/prices/*.toml`, and `[[price]]` in `farcall.toml`). Usage is read from
//! bodies as they pass by, never by buffering them. What a vendor did not state is unknown and stays so: a
//! cost is a known part and, where that is not all, the reason.

mod facts;
mod fields;
mod price;
mod prompt;
mod rate;
mod reader;
mod request;
mod scan;
mod table;
mod usage;
mod volume;

pub use facts::{Ahead, Answer, Facts};
pub use price::{Price, Rates, Source, Tier, VOLUME, VolumeUnit};
pub use prompt::prompt_tokens;
pub use rate::{BadRate, Per, Rate};
pub use reader::UsageReader;
pub use request::{RequestReader, model_in_path, replace_model};
pub use table::Prices;
pub use usage::{Kind, MAX_UNITS, ModelName, ServiceTier, Usage};
pub use volume::Volume;

pub(crate) use rate::count_of;
pub(crate) use table::{builtin, is_for};

use crate::units::{Currency, Money};

/// What a call cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cost {
    /// The part that is known, in nano-units of the currency.
    pub nanos: i64,
    /// The currency.
    pub currency: Currency,
    /// Why that is not all; `None` where it is.
    pub unknown: Option<Unknown>,
}

impl Cost {
    /// A cost of which all is known.
    #[must_use]
    pub const fn known(money: Money) -> Self {
        Self { nanos: money.nanos(), currency: money.currency(), unknown: None }
    }

    /// A cost of which nothing is known.
    #[must_use]
    pub const fn unknown(why: Unknown, currency: Currency) -> Self {
        Self { nanos: 0, currency, unknown: Some(why) }
    }

    /// The cost, where all of it is known.
    #[must_use]
    pub fn whole(&self) -> Option<Money> {
        self.unknown.is_none().then(|| self.part())
    }

    /// The part that is known.
    #[must_use]
    pub const fn part(&self) -> Money {
        Money::from_nanos(self.nanos, self.currency)
    }
}

/// Why a cost is unknown, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Unknown {
    /// Nobody stated a price for this vendor, endpoint and model.
    NoPrice = 1,
    /// The body came to its end and stated no usage: a stream without `stream_options.include_usage`, say.
    NotStated = 2,
    /// The body was let go of before the vendor's last statement.
    Abandoned = 3,
    /// The body's `Content-Encoding` cannot be decoded here, or it did not decode to an end.
    Encoded = 4,
    /// The body is neither JSON nor a stream of events.
    OtherContent = 5,
    /// Numbers that are none, are negative or beyond belief, or a body that breaks off within a value.
    Malformed = 6,
    /// The parts that were stated are more than the whole.
    Contradictory = 7,
    /// No answer came; the vendor may charge all the same.
    NoAnswer = 8,
    /// The call was served in a tier (priority, say) that has no price here.
    UnpricedTier = 9,
    /// Something was used that has no price here, such as a search.
    UnpricedKind = 10,
    /// It was billed in another currency than the ledger's.
    OtherCurrency = 11,
}

impl Unknown {
    /// All reasons, in the order of their numbers, which start at 1.
    pub const ALL: [Self; 11] = [
        Self::NoPrice,
        Self::NotStated,
        Self::Abandoned,
        Self::Encoded,
        Self::OtherContent,
        Self::Malformed,
        Self::Contradictory,
        Self::NoAnswer,
        Self::UnpricedTier,
        Self::UnpricedKind,
        Self::OtherCurrency,
    ];

    /// The word for it, as in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoPrice => "no_price",
            Self::NotStated => "not_stated",
            Self::Abandoned => "abandoned",
            Self::Encoded => "encoded",
            Self::OtherContent => "other_content",
            Self::Malformed => "malformed",
            Self::Contradictory => "contradictory",
            Self::NoAnswer => "no_answer",
            Self::UnpricedTier => "unpriced_tier",
            Self::UnpricedKind => "unpriced_kind",
            Self::OtherCurrency => "other_currency",
        }
    }

    /// What it means, as the rest of a sentence.
    #[must_use]
    pub const fn because(self) -> &'static str {
        match self {
            Self::NoPrice => "nobody stated a price",
            Self::NotStated => "the answer stated no usage",
            Self::Abandoned => "the application let go of the answer before the vendor's last statement",
            Self::Encoded => "the answer is encoded as Farcall cannot decode it",
            Self::OtherContent => "the answer is neither JSON nor a stream of events",
            Self::Malformed => "the answer states numbers that are none, or breaks off within them",
            Self::Contradictory => "the parts that the answer states are more than the whole",
            Self::NoAnswer => "no answer came, and the vendor may charge all the same",
            Self::UnpricedTier => "it was served in a tier that has no price",
            Self::UnpricedKind => "something was used that has no price",
            Self::OtherCurrency => "it was billed in another currency than US dollars",
        }
    }
}

#[cfg(test)]
mod tests;
