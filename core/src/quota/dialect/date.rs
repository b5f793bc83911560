//! Dates as vendors write them: RFC 3339, HTTP-date, and what JavaScript prints.

use crate::units::Timestamp;
use std::time::UNIX_EPOCH;

const DAY: i64 = 86_400;

/// A date in any of these forms:
/// - RFC 3339: `2026-11-21T10:00:00Z`, with a fraction, an offset (`+01:00`, ` +0100`), a space for the `T`, or
///   without seconds. Without an offset it could be any time zone, and is none.
/// - HTTP-date (RFC 9110, section 5.6.7), also in its two obsolete forms.
/// - `Sat Nov 21 2026 11:00:00 GMT+0100 (CET)`, as JavaScript's `Date` prints itself.
pub(super) fn date(bytes: &[u8]) -> Option<Timestamp> {
    match bytes.first()? {
        b'0'..=b'9' => rfc_3339(bytes),
        _ if bytes.len() > 128 => None,
        _ => javascript(bytes).or_else(|| {
            let moment = httpdate::parse_http_date(std::str::from_utf8(bytes).ok()?).ok()?;
            let nanos = moment.duration_since(UNIX_EPOCH).ok()?.as_nanos();
            Some(Timestamp::from_nanos(u64::try_from(nanos).ok()?))
        }),
    }
}

fn rfc_3339(bytes: &[u8]) -> Option<Timestamp> {
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

fn javascript(bytes: &[u8]) -> Option<Timestamp> {
    let mut text = Cursor(bytes.get(3..)?);
    text.skip(b" ")?;
    let name = text.0.get(..3)?;
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let month = 1 + MONTHS.iter().position(|month| *month == name)? as i64;
    text.0 = &text.0[3..];
    text.skip(b" ")?;
    let day = text.number(2)?;
    text.skip(b" ")?;
    let year = text.number(4)?;
    text.skip(b" ")?;
    let hour = text.number(2)?;
    text.skip(b":")?;
    let minute = text.number(2)?;
    text.skip(b":")?;
    let second = text.number(2)?;
    text.0 = text.0.strip_prefix(b" GMT")?;
    if text.0.first() == Some(&b' ') {
        return None;
    }
    let offset = text.offset()?;
    moment((year, month, day), (hour, minute, second), offset, 0)
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        let number = number
            .iter()
            .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))?;
        self.0 = rest;
        Some(number)
    }

    fn skip(&mut self, any: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        any.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    /// Seconds east of Greenwich.
    fn offset(&mut self) -> Option<i64> {
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

fn moment(
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
    fn every_way_to_write_a_moment_gives_the_same_moment() {
        for text in [
            "2026-11-21T10:00:00Z",
            "2026-11-21t10:00:00z",
            "2026-11-21 10:00:00Z",
            "2026-11-21T10:00Z",
            "2026-11-21T10:00:00.000Z",
            "2026-11-21T11:00:00+01:00",
            "2026-11-21T11:00:00+0100",
            "2026-11-21T04:30:00-05:30",
            "2026-11-21 03:00:00 -0700",
            "Sat, 21 Nov 2026 10:00:00 GMT",
            "Saturday, 21-Nov-26 10:00:00 GMT",
            "Sat Nov 21 10:00:00 2026",
            "Sat Nov 21 2026 11:00:00 GMT+0100 (Central European Standard Time)",
        ] {
            assert_eq!(
                date(text.as_bytes()),
                Some(Timestamp::from_nanos(1_795_255_200_000_000_000)),
                "{text}"
            );
        }
        assert_eq!(date(b"2026-11-21T10:00:00.25Z"), Some(Timestamp::from_nanos(1_795_255_200_250_000_000)));
        assert_eq!(date(b"1970-01-01T00:00:00Z"), Some(Timestamp::EPOCH));
        assert_eq!(date(b"2024-02-29T00:00:00Z"), Some(Timestamp::from_nanos(1_709_164_800_000_000_000)));
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T10:00:00",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-31T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T10:00:00.Z",
            "2026-11-21T10:00:00Zz",
            "9999-12-31T23:59:59Z",
            "1969-12-31T23:59:59Z",
            "tomorrow",
            "Sat Nov 21 2026 11:00:00",
            "1700000000",
        ] {
            assert_eq!(date(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = date(&bytes);
        }

        #[test]
        fn days_follow_each_other(day in 0_i64..200_000) {
            // Against a count of whole years and months, the slow way.
            let (mut year, mut left) = (1970, day);
            let length = |year: i64| 365 + i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
            while left >= length(year) { left -= length(year); year += 1; }
            let mut month = 1;
            let days = |month: i64| match month { 2 => length(year) - 337, 4 | 6 | 9 | 11 => 30, _ => 31 };
            while left >= days(month) { left -= days(month); month += 1; }
            let text = format!("{year:04}-{month:02}-{:02}T00:00:00Z", left + 1);
            prop_assert_eq!(date(text.as_bytes()), Some(Timestamp::from_nanos(day as u64 * 86_400_000_000_000)));
        }
    }
}
