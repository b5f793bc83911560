//! Money, exact: an integer of nano-units and a currency. No float touches it.

use std::fmt;
use thiserror::Error;

/// The currencies of ISO 4217 that people pay in; anything else is refused, so that a typing mistake cannot
/// make a budget that nothing ever counts against.
const KNOWN: &str = "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP \
    BYN BZD CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD \
    GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP \
    LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN \
    PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS \
    TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG";

/// A currency of ISO 4217, as a small number: its three letters in base 26.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency(u16);

impl Currency {
    /// The US dollar, in which most vendors bill.
    pub const USD: Self = Self::of(*b"USD");
    /// The euro.
    pub const EUR: Self = Self::of(*b"EUR");

    const fn of(letters: [u8; 3]) -> Self {
        let [a, b, c] = letters;
        Self((a - b'A') as u16 * 676 + (b - b'A') as u16 * 26 + (c - b'A') as u16)
    }

    /// Reads a code such as `USD`; `None` for what ISO 4217 does not list.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        let letters: [u8; 3] = code.as_bytes().try_into().ok()?;
        // Four bytes each; every price of the catalogue asks this at every start.
        let known = KNOWN.as_bytes().chunks(4).any(|known| known.starts_with(&letters));
        known.then(|| Self::of(letters))
    }

    /// Its number, which the ledger stores.
    #[must_use]
    pub const fn index(self) -> u16 {
        self.0
    }

    /// The currency of a number that [`index`](Self::index) gave.
    #[must_use]
    pub fn from_index(index: u16) -> Option<Self> {
        let currency = (index < 26 * 676).then_some(Self(index))?;
        Self::parse(std::str::from_utf8(&currency.letters()).ok()?)
    }

    fn letters(self) -> [u8; 3] {
        let letter = |number: u16| b'A' + u8::try_from(number % 26).unwrap_or(0);
        [letter(self.0 / 676), letter(self.0 / 26), letter(self.0)]
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.letters().iter().try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An amount of money: a whole number of nano-units (a billionth of a dollar, say) of one currency.
///
/// Between minus and plus 9,223,372,036 units; what would lie beyond saturates there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    nanos: i64,
    currency: Currency,
}

/// Why a text is no amount of money.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadMoney {
    /// Not "number currency".
    #[error("an amount of money; write a number and a currency, such as \"50 USD\" or \"0.000015 USD\"")]
    Form,
    /// No such currency.
    #[error("in a currency of ISO 4217; write its code in capital letters, such as USD or EUR")]
    Currency,
    /// Below zero.
    #[error("zero or more; nobody is paid for being called")]
    Negative,
    /// More than nine decimals.
    #[error("a whole number of billionths of the currency; write at most nine decimals")]
    TooFine,
    /// Beyond what [`Money`] holds.
    #[error("a plausible amount; it is too large, the most is 9000000000")]
    TooLarge,
}

/// Nano-units in a unit.
const NANOS: i64 = 1_000_000_000;

impl Money {
    /// An amount from nano-units.
    #[must_use]
    pub const fn from_nanos(nanos: i64, currency: Currency) -> Self {
        Self { nanos, currency }
    }

    /// Nothing, in a currency.
    #[must_use]
    pub const fn zero(currency: Currency) -> Self {
        Self { nanos: 0, currency }
    }

    /// Nano-units.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.nanos
    }

    /// The currency.
    #[must_use]
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// The sum, saturating; `None` where the currencies differ, since nobody here knows a rate of exchange.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        (self.currency == other.currency)
            .then(|| Self { nanos: self.nanos.saturating_add(other.nanos), currency: self.currency })
    }

    /// Reads `"50 USD"` or `"0.000015 USD"`.
    ///
    /// # Errors
    /// Says what is wrong, as the end of the sentence "this is not ...".
    pub fn parse(text: &str) -> Result<Self, BadMoney> {
        let (number, currency) = text.trim().rsplit_once(' ').ok_or(BadMoney::Form)?;
        let scaled = decimal(number.trim(), 9)?;
        let currency = Currency::parse(currency).ok_or(BadMoney::Currency)?;
        let nanos = i64::try_from(scaled).ok().filter(|nanos| *nanos <= 9 * NANOS * NANOS);
        Ok(Self { nanos: nanos.ok_or(BadMoney::TooLarge)?, currency })
    }
}

/// Reads a number such as `0.15`, `1_000` or `1.5e-7` as a whole number of `10^-places`.
pub(crate) fn decimal(text: &str, places: u32) -> Result<u128, BadMoney> {
    if text.starts_with('-') {
        return Err(BadMoney::Negative);
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| BadMoney::Form)?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes()).filter(|byte| *byte != b'_');
    if !whole.starts_with(|c: char| c.is_ascii_digit())
        || (mantissa.contains('.') && !fraction.starts_with(|c: char| c.is_ascii_digit()))
        || !digits().all(|byte| byte.is_ascii_digit())
    {
        return Err(BadMoney::Form);
    }
    let mut value: u128 = 0;
    for digit in digits() {
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u128::from(digit - b'0')))
            .ok_or(BadMoney::TooLarge)?;
    }
    let decimals = fraction.bytes().filter(|byte| *byte != b'_').count();
    let decimals = i32::try_from(decimals).map_err(|_| BadMoney::TooFine)?;
    let places = i32::try_from(places).map_err(|_| BadMoney::TooFine)?;
    let mut shift = places.saturating_add(exponent).saturating_sub(decimals);
    while shift > 0 && value > 0 {
        value = value.checked_mul(10).ok_or(BadMoney::TooLarge)?;
        shift -= 1;
    }
    while shift < 0 && value > 0 {
        if !value.is_multiple_of(10) {
            return Err(BadMoney::TooFine);
        }
        value /= 10;
        shift += 1;
    }
    Ok(value)
}

impl fmt::Display for Money {
    /// For people: at least two decimals, and no more than there are: `50.00 USD`, `0.000015 USD`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.nanos < 0 { "-" } else { "" };
        let nanos = self.nanos.unsigned_abs();
        let (whole, rest) = (nanos / NANOS.unsigned_abs(), nanos % NANOS.unsigned_abs());
        let mut places = 9;
        let mut digits = rest;
        while places > 2 && digits.is_multiple_of(10) {
            digits /= 10;
            places -= 1;
        }
        write!(f, "{sign}{whole}.{digits:0places$} {}", self.currency)
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn people_write_money_in_these_ways() {
        let nanos = |text| Money::parse(text).map(Money::nanos);
        assert_eq!(nanos("50 USD"), Ok(50 * NANOS));
        assert_eq!(nanos("0.000015 USD"), Ok(15_000));
        assert_eq!(nanos("1_000.50 EUR"), Ok(1_000_500_000_000));
        assert_eq!(nanos("1.5e-7 USD"), Ok(150));
        assert_eq!(nanos("0.10000000000000000000 USD"), Ok(100_000_000));
    }

    #[test]
    fn what_is_no_money_is_refused_with_the_reason() {
        for (text, error) in [
            ("50", BadMoney::Form),
            ("USD 50", BadMoney::Form),
            ("NaN USD", BadMoney::Form),
            ("inf USD", BadMoney::Form),
            (".5 USD", BadMoney::Form),
            ("5. USD", BadMoney::Form),
            ("1,5 USD", BadMoney::Form),
            ("+5 USD", BadMoney::Form),
            ("", BadMoney::Form),
            ("50 usd", BadMoney::Currency),
            ("50 BTC", BadMoney::Currency),
            ("50 USDT", BadMoney::Currency),
            ("-1 USD", BadMoney::Negative),
            ("0.0000000001 USD", BadMoney::TooFine),
            ("1e-2000000000 USD", BadMoney::TooFine),
            ("9000000001 USD", BadMoney::TooLarge),
            ("1e2000000000 USD", BadMoney::TooLarge),
        ] {
            assert_eq!(Money::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn sums_are_exact_saturate_and_never_mix_currencies() {
        let usd = |nanos| Money::from_nanos(nanos, Currency::USD);
        assert_eq!(usd(1).plus(usd(2)), Some(usd(3)));
        assert_eq!(usd(i64::MAX).plus(usd(1)), Some(usd(i64::MAX)));
        assert_eq!(usd(1).plus(Money::zero(Currency::EUR)), None);
    }

    #[test]
    fn every_currency_survives_its_number() {
        for code in KNOWN.split_whitespace() {
            let currency = Currency::parse(code).unwrap();
            assert_eq!(Currency::from_index(currency.index()), Some(currency));
            assert_eq!(currency.to_string(), code);
        }
        assert_eq!(Currency::from_index(0), None, "AAA is no currency");
        assert_eq!(Currency::from_index(u16::MAX), None);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_the_same(nanos in 0..=9 * NANOS * NANOS) {
            let money = Money::from_nanos(nanos, Currency::EUR);
            prop_assert_eq!(Money::parse(&money.to_string()), Ok(money));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9eE._ UDSN]{0,60}") {
            let _ = Money::parse(&text);
        }
    }
}
