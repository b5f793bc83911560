//! Moments that people and vendors write down.

use super::Timestamp;

const DAY: i64 = 86_400;

/// `2026-11-21 09:15:02 UTC` (civil from days, Howard Hinnant).
pub(crate) fn in_words(at: Timestamp) -> String {
    let seconds = at.as_secs();
    let (days, time) = ((seconds / 86_400) as i64, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", time / 3_600, time / 60 % 60, time % 60)
}

/// A moment as in RFC 3339, section 5.6: `2026-11-21T10:00:00Z`, with a fraction, an offset (`+01:00`, ` +0100`), a
/// space for the `T`, or without seconds. `None` for anything else, also for days that do not exist, for years before
/// 1970 and beyond what a [`Timestamp`] holds. Without an offset it could be any time zone, and is none.
pub(crate) fn rfc_3339(bytes: &[u8]) -> Option<Timestamp> {
    let mut text = Cursor(bytes);
    let year = text.number(4)?;
    text.skip(b"-")?;
    let month = text.number(2)?;
    text.skip(b"-")?;
    let day = text.number(2)?;
    text.skip(b"Tt ")?;
    let hour = text.number(2)?;
    text.skip(b":")?;
    let minute = text.number(2)?;
    let second = if text.skip(b":").is_some() { text.number(2)? } else { 0 };
    let mut nanos = 0;
    if text.skip(b".,").is_some() {
        let digits = text.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for place in 0..9 {
            nanos = nanos * 10 + if place < digits { u64::from(text.0[place] - b'0') } else { 0 };
        }
        text.0 = &text.0[digits..];
    }
    let offset = text.offset()?;
    if !text.0.is_empty() {
        return None;
    }
    moment((year, month, day), (hour, minute, second), offset, nanos)
}

/// Reads a date from its beginning.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl Cursor<'_> {
    /// So many digits.
    pub(crate) fn number(&mut self, digits: usize) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        let number = number
            .iter()
            .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))?;
        self.0 = rest;
        Some(number)
    }

    /// One of these bytes.
    pub(crate) fn skip(&mut self, any: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        any.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    /// Seconds east of Greenwich.
    pub(crate) fn offset(&mut self) -> Option<i64> {
        let _ = self.skip(b" ");
        match self.skip(b"Zz+-")? {
            sign @ (b'+' | b'-') => {
                let hours = self.number(2)?;
                let _ = self.skip(b":");
                let minutes = self.number(2)?;
                let east = hours * 3_600 + minutes * 60;
                (hours < 24 && minutes < 60).then_some(if sign == b'-' { -east } else { east })
            }
            _ => Some(0),
        }
    }
}

/// The moment of a date and a time, so many seconds east of Greenwich.
pub(crate) fn moment(
    (year, month, day): (i64, i64, i64),
    (hour, minute, second): (i64, i64, i64),
    offset: i64,
    nanos: u64,
) -> Option<Timestamp> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second (60) is allowed by RFC 3339, and counts as the next second.
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since the epoch in the proleptic Gregorian calendar, counted in eras of 400 years from 1 March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let days =
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = days * DAY + hour * 3_600 + minute * 60 + second - offset;
    let seconds = u64::try_from(seconds).ok()?;
    Some(Timestamp::from_nanos(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-12-01T02:00:00+02:00", 1_796_083_200),
            ("2026-11-30T19:30:00.5-04:30", 1_796_083_200),
            ("2100-03-01t00:00:00z", 4_107_542_400),
        ] {
            assert_eq!(rfc_3339(text.as_bytes()).map(Timestamp::as_secs), Some(seconds), "{text}");
        }
        for text in [
            "2026-12-01",
            "2026-12-01T00:00:00",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "9999-12-31T23:59:59Z",
            "2026-12-01T24:00:00Z",
            "2026-12-1T00:00:00Z",
            "2026-12-01T00:00:00+2:00",
            "2026-12-01T00:00:00.Z",
            "-026-12-01T00:00:00Z",
            "",
        ] {
            assert_eq!(rfc_3339(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_moment_makes_it_panic(text in "[0-9TZ:+.é -]{0,40}") {
            let _ = rfc_3339(text.as_bytes());
        }
    }
}
