//! Moments as vendors write them, put on our own clock, and checked for what is plausible.

use super::Encoding;
use super::date::date;
use super::read::DATE;
use super::value::{self, Ignored, MAX_VALUE, decimal, trim};
use crate::call::Headers;
use crate::units::Timestamp;
use std::time::Duration;

/// A reset may be this long past: the answer took its time, and clocks differ.
const SKEW: Duration = Duration::from_secs(5);
/// A difference to the vendor's `Date` up to here is the way's, from there on its clock's.
const CLOCKS_AGREE: Duration = Duration::from_secs(2);
/// A `Date` further off than this is no clock.
const NO_CLOCK: Duration = Duration::from_secs(86_400);
/// Nobody is told to wait for longer.
pub(super) const YEAR: Duration = Duration::from_secs(366 * 86_400);
/// What [`Encoding::Auto`] takes for seconds from now; more could as well be milliseconds.
const SURELY_SECONDS: u64 = 3_600;

/// Our clock and the vendor's, while one answer is read.
#[derive(Clone, Copy)]
pub(super) struct Clock<'a> {
    now: Timestamp,
    headers: &'a dyn Headers,
    /// By how many nanoseconds the vendor's clock is ahead of ours, once that was asked for.
    vendor_ahead: Option<i128>,
}

impl<'a> Clock<'a> {
    /// The answer's headers say what time it is there (`Date`: RFC 9110, section 6.6.1).
    pub(super) fn new(now: Timestamp, headers: &'a dyn Headers) -> Self {
        Self { now, headers, vendor_ahead: None }
    }

    /// The moment that a value means, on our own clock.
    pub(super) fn moment(&mut self, bytes: &[u8], encoding: Encoding) -> Result<Timestamp, Ignored> {
        const SECOND: u64 = 1_000_000_000;
        let number = |unit: u64| decimal(bytes).and_then(|number| value::nanos(number, unit));
        match encoding {
            Encoding::EpochSeconds => self.absolute(number(SECOND).map(Timestamp::from_nanos)),
            Encoding::EpochMillis => self.absolute(number(1_000_000).map(Timestamp::from_nanos)),
            Encoding::DeltaSeconds => self.ahead(number(SECOND)),
            Encoding::DeltaMillis => self.ahead(number(1_000_000)),
            Encoding::Duration => self.ahead(value::duration(bytes)),
            Encoding::Date => self.absolute(date(bytes)),
            Encoding::DeltaSecondsOrDate => match number(SECOND) {
                Some(nanos) => self.ahead(Some(nanos)),
                None => self.absolute(date(bytes)),
            },
            Encoding::Auto => match decimal(bytes) {
                Some((whole, _)) if whole <= SURELY_SECONDS => self.ahead(number(SECOND)),
                Some(_) => {
                    let seconds = self.absolute(number(SECOND).map(Timestamp::from_nanos));
                    seconds.or_else(|Ignored| self.absolute(number(1_000_000).map(Timestamp::from_nanos)))
                }
                None => match value::duration(bytes) {
                    Some(nanos) => self.ahead(Some(nanos)),
                    None => self.absolute(date(bytes)),
                },
            },
        }
    }

    /// The length of time that a value means.
    pub(super) fn length(&mut self, bytes: &[u8], encoding: Encoding) -> Result<Duration, Ignored> {
        let end = self.moment(bytes, encoding)?;
        let length = end.since(self.now);
        if length.is_zero() { Err(Ignored) } else { Ok(length) }
    }

    pub(super) fn ahead(&self, nanos: Option<u64>) -> Result<Timestamp, Ignored> {
        let ahead = Duration::from_nanos(nanos.ok_or(Ignored)?);
        if ahead <= YEAR { Ok(self.now.plus(ahead)) } else { Err(Ignored) }
    }

    /// A moment on the vendor's clock, put on ours; neither long past nor more than a year ahead.
    fn absolute(&mut self, moment: Option<Timestamp>) -> Result<Timestamp, Ignored> {
        let moment = i128::from(moment.ok_or(Ignored)?.as_nanos()) - self.vendor_ahead();
        let moment = Timestamp::from_nanos(u64::try_from(moment).map_err(|_| Ignored)?);
        if moment.since(self.now) > YEAR || self.now.since(moment) > SKEW {
            return Err(Ignored);
        }
        Ok(moment.max(self.now))
    }

    fn vendor_ahead(&mut self) -> i128 {
        if let Some(known) = self.vendor_ahead {
            return known;
        }
        let theirs = self.headers.get(DATE).filter(|date| date.len() <= MAX_VALUE).map(trim).and_then(date);
        let ahead =
            theirs.map_or(0, |theirs| i128::from(theirs.as_nanos()) - i128::from(self.now.as_nanos()));
        let apart = Duration::from_nanos(u64::try_from(ahead.unsigned_abs()).unwrap_or(u64::MAX));
        let ahead = if apart > CLOCKS_AGREE && apart < NO_CLOCK { ahead } else { 0 };
        self.vendor_ahead = Some(ahead);
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-21T10:00:00Z.
    const NOW: Timestamp = Timestamp::from_nanos(1_795_255_200_000_000_000);

    fn moment(text: &str, encoding: Encoding) -> Option<u64> {
        let moment = Clock::new(NOW, &[("", ""); 0]).moment(text.as_bytes(), encoding).ok()?;
        Some(moment.since(NOW).as_secs())
    }

    #[test]
    fn every_encoding_of_a_reset_means_the_same() {
        for (text, encoding) in [
            ("1795255260", Encoding::EpochSeconds),
            ("1795255260.000", Encoding::EpochSeconds),
            ("1795255260000", Encoding::EpochMillis),
            ("60", Encoding::DeltaSeconds),
            ("60000", Encoding::DeltaMillis),
            ("1m0s", Encoding::Duration),
            ("2026-11-21T10:01:00Z", Encoding::Date),
            ("Sat, 21 Nov 2026 10:01:00 GMT", Encoding::DeltaSecondsOrDate),
            ("60", Encoding::DeltaSecondsOrDate),
            ("60", Encoding::Auto),
            ("1795255260", Encoding::Auto),
            ("1795255260000", Encoding::Auto),
            ("1m0s", Encoding::Auto),
            ("2026-11-21T10:01:00Z", Encoding::Auto),
        ] {
            assert_eq!(moment(text, encoding), Some(60), "{text} as {encoding:?}");
        }
    }

    #[test]
    fn a_moment_that_cannot_be_is_none() {
        for (text, encoding) in [
            ("1795255190", Encoding::EpochSeconds),  // ten seconds ago
            ("1827000000", Encoding::EpochSeconds),  // more than a year ahead
            ("33325000000", Encoding::EpochSeconds), // in a thousand years
            ("1795255260000", Encoding::EpochSeconds),
            ("1795255260", Encoding::EpochMillis),
            ("60", Encoding::EpochSeconds),
            ("0", Encoding::EpochSeconds),
            ("1795255260", Encoding::DeltaSeconds),
            ("-1", Encoding::DeltaSeconds),
            ("NaN", Encoding::DeltaSeconds),
            ("1e3", Encoding::DeltaMillis),
            ("60", Encoding::Duration),
            ("2025-11-21T10:00:00Z", Encoding::Date),
            ("", Encoding::Auto),
            ("45000", Encoding::Auto), // half a day, or 45 seconds in milliseconds: unclear
        ] {
            assert_eq!(moment(text, encoding), None, "{text} as {encoding:?}");
        }
        assert_eq!(moment("1795255197", Encoding::EpochSeconds), Some(0), "a reset that just passed is now");
    }

    #[test]
    fn a_vendor_whose_clock_is_off_is_understood_by_its_date() {
        let ahead = |date: &str, reset: &str| {
            let headers = [("date", date)];
            let mut clock = Clock::new(NOW, &headers);
            clock.moment(reset.as_bytes(), Encoding::EpochSeconds).ok().map(|at| at.since(NOW).as_secs())
        };
        assert_eq!(ahead("Sat, 21 Nov 2026 11:00:00 GMT", "1795258860"), Some(60), "an hour ahead of us");
        assert_eq!(ahead("Sat, 21 Nov 2026 09:00:00 GMT", "1795251660"), Some(60), "an hour behind us");
        assert_eq!(ahead("Sat, 21 Nov 2026 10:00:01 GMT", "1795255260"), Some(60), "a second is the way's");
        assert_eq!(ahead("Sat, 21 Nov 1998 10:00:00 GMT", "1795255260"), Some(60), "no clock at all");
        assert_eq!(ahead("soon", "1795255260"), Some(60));
    }

    proptest! {
        #[test]
        fn whatever_is_believed_is_from_now_to_a_year_ahead(
            text in prop_oneof!["[0-9]{1,20}(\\.[0-9]{1,12})?", "[0-9a-z:TZ+. -]{0,40}", ".{0,40}"],
            date in "[A-Za-z0-9:, ]{0,32}",
            place in 0..8_usize,
            now in 0..u64::MAX,
        ) {
            let now = Timestamp::from_nanos(now);
            let headers = [("date", date)];
            let mut clock = Clock::new(now, &headers);
            if let Ok(moment) = clock.moment(text.as_bytes(), Encoding::WORDS[place].1) {
                prop_assert!(moment >= now && moment.since(now) <= YEAR);
            }
        }
    }
}
