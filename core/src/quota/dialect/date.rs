//! Dates as vendors write them: RFC 3339, HTTP-date, and what JavaScript prints.

use crate::units::Timestamp;
use crate::units::moment::{Cursor, moment, rfc_3339};
use std::time::UNIX_EPOCH;

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
