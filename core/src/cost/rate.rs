//! What one of something costs.

use crate::units::{BadMoney, Currency, decimal};
use thiserror::Error;

/// The price of one token, call, byte or unit, in femto-units of a currency (10^-15): a price of 0.0028 USD for
/// a million tokens is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub(super) u64);

/// Femto-units in a nano-unit.
const FEMTOS: u128 = 1_000_000;

/// Why a text is no rate.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadRate {
    /// Not "amount / something".
    #[error("a price {0}; write it like \"{1}\"")]
    Form(&'static str, &'static str),
    /// The amount is none.
    #[error(transparent)]
    Money(#[from] BadMoney),
    /// More than any vendor asks.
    #[error("a plausible price; the most is 10000 for one of it. Did you forget \"1M\"?")]
    Absurd,
}

/// What a rate can be for: the words after the slash, each with how many of the base unit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// Tokens.
    Token,
    /// Calls.
    Call,
    /// Bytes; `kB`, `MB`, `GB`, `TB` are decimal, `KiB`, `MiB`, `GiB`, `TiB` binary.
    Byte,
    /// Searches.
    Search,
    /// Whatever a header or a field counts.
    Unit,
}

impl Per {
    const fn words(self) -> &'static [(&'static str, u64)] {
        match self {
            Self::Token => &[("token", 1), ("tokens", 1)],
            Self::Call => &[("call", 1), ("calls", 1), ("request", 1), ("requests", 1)],
            Self::Byte => &[
                ("byte", 1),
                ("bytes", 1),
                ("kB", 1_000),
                ("MB", 1_000_000),
                ("GB", 1_000_000_000),
                ("TB", 1_000_000_000_000),
                ("KiB", 1 << 10),
                ("MiB", 1 << 20),
                ("GiB", 1 << 30),
                ("TiB", 1 << 40),
            ],
            Self::Search => &[("search", 1), ("searches", 1)],
            Self::Unit => &[("unit", 1), ("units", 1)],
        }
    }

    const fn sample(self) -> BadRate {
        match self {
            Self::Token => BadRate::Form("per token", "2.50 USD / 1M tokens"),
            Self::Call => BadRate::Form("per call", "0.01 USD / call"),
            Self::Byte => BadRate::Form("per byte", "0.09 USD / GB"),
            Self::Search => BadRate::Form("per search", "10 USD / 1k searches"),
            Self::Unit => BadRate::Form("per unit", "0.001 USD / unit"),
        }
    }
}

impl Rate {
    /// Reads `"2.50 USD / 1M tokens"`, `"0.01 USD / call"`, `"0.09 USD / GB"`; rounded to the nearest
    /// femto-unit, which matters only per GiB and the like.
    ///
    /// # Errors
    /// Says what is wrong, as the end of the sentence "this is not ...".
    pub fn parse(text: &str, per: Per) -> Result<(Self, Currency), BadRate> {
        let (money, unit) = text.split_once('/').ok_or(per.sample())?;
        let (number, currency) = money.trim().rsplit_once(' ').ok_or(per.sample())?;
        // Finer than the result, so that what is divided afterwards is not cut first.
        let fine = decimal(number.trim(), 21)?;
        let currency = Currency::parse(currency).ok_or(BadMoney::Currency)?;
        let unit = unit.trim();
        let (count, word) = match unit.find(|c: char| c.is_ascii_alphabetic()) {
            Some(0) => (1, unit),
            Some(_) => {
                let (count, word) = unit.split_once(' ').ok_or(per.sample())?;
                (count_of(count).ok_or(per.sample())?, word.trim())
            }
            None => return Err(per.sample()),
        };
        let size = per.words().iter().find(|(known, _)| *known == word).ok_or(per.sample())?.1;
        let divisor = u128::from(count) * u128::from(size) * 1_000_000;
        let femtos = (fine + divisor / 2) / divisor;
        if femtos == 0 && fine > 0 {
            return Err(BadMoney::TooFine.into());
        }
        let femtos = u64::try_from(femtos).ok().filter(|femtos| *femtos <= 10_000 * 1_000_000_000_000_000);
        Ok((Self(femtos.ok_or(BadRate::Absurd)?), currency))
    }

    /// The cost of so many, in femto-units.
    pub(super) fn times(self, count: u64) -> u128 {
        u128::from(self.0) * u128::from(count)
    }

    /// The cost of so many billionths of one, in femto-units, to the nearest.
    pub(super) fn times_billionths(self, count: u64) -> u128 {
        (self.times(count) + 500_000_000) / 1_000_000_000
    }
}

/// Reads `1`, `1000`, `1_000`, `1k` or `1M`.
pub(crate) fn count_of(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 1_000),
        b'M' => (&text[..text.len() - 1], 1_000_000),
        b'B' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let count: u64 = u64::try_from(decimal(digits, 9).ok()?.checked_mul(factor)? / 1_000_000_000).ok()?;
    (1..=1_000_000_000_000_000).contains(&count).then_some(count)
}

/// Femto-units as nano-units, to the nearest, saturating: the one place where a call's cost is rounded.
pub(super) fn nanos(femtos: u128) -> i64 {
    i64::try_from(femtos.saturating_add(FEMTOS / 2) / FEMTOS).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn femtos(text: &str, per: Per) -> Result<u64, BadRate> {
        Rate::parse(text, per).map(|(rate, _)| rate.0)
    }

    #[test]
    fn prices_are_written_as_vendors_write_them_and_kept_exactly() {
        assert_eq!(femtos("2.50 USD / 1M tokens", Per::Token), Ok(2_500_000_000));
        assert_eq!(femtos("0.0028 USD / 1M tokens", Per::Token), Ok(2_800_000));
        assert_eq!(femtos("0.002 USD / 1k tokens", Per::Token), Ok(2_000_000_000));
        assert_eq!(femtos("0.01 USD / call", Per::Call), Ok(10_000_000_000_000));
        assert_eq!(femtos("5 EUR / 1_000 requests", Per::Call), Ok(5_000_000_000_000));
        assert_eq!(femtos("0.09 USD / GB", Per::Byte), Ok(90_000));
        assert_eq!(femtos("0.09 USD / GiB", Per::Byte), Ok(83_819));
        assert_eq!(femtos("10 USD / 1k searches", Per::Search), Ok(10_000_000_000_000));
        assert_eq!(femtos("0 USD / token", Per::Token), Ok(0));
    }

    #[test]
    fn prices_that_make_no_sense_are_refused() {
        let form = |per: Per| Err(per.sample());
        assert_eq!(femtos("2.50 USD", Per::Token), form(Per::Token));
        assert_eq!(femtos("2.50 / 1M tokens", Per::Token), form(Per::Token));
        assert_eq!(femtos("2.50 USD / 1M calls", Per::Token), form(Per::Token));
        assert_eq!(femtos("2.50 USD / 0 tokens", Per::Token), form(Per::Token));
        assert_eq!(femtos("2.50 USD / -1 tokens", Per::Token), form(Per::Token));
        assert_eq!(femtos("2.50 USD / 1Mtokens", Per::Token), form(Per::Token));
        assert_eq!(femtos("-1 USD / token", Per::Token), Err(BadMoney::Negative.into()));
        assert_eq!(femtos("NaN USD / token", Per::Token), Err(BadMoney::Form.into()));
        assert_eq!(femtos("1 XXX / token", Per::Token), Err(BadMoney::Currency.into()));
        assert_eq!(femtos("20000 USD / token", Per::Token), Err(BadRate::Absurd));
        assert_eq!(femtos("0.000000001 USD / 1B tokens", Per::Token), Err(BadMoney::TooFine.into()));
    }

    #[test]
    fn a_cost_is_rounded_once_to_the_nearest_nano_unit() {
        assert_eq!(nanos(499_999), 0);
        assert_eq!(nanos(500_000), 1);
        assert_eq!(nanos(u128::MAX), i64::MAX);
    }
}
