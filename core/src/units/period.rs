//! The periods that limits are stated for, in the calendar of UTC.

use super::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};

/// A period of the calendar, UTC. Weeks begin on Monday (ISO 8601).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// Sixty seconds.
    Minute,
    /// Sixty minutes.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday.
    Week,
    /// From the first to the first.
    Month,
}

const DAY: u64 = 86_400;
/// The day that was asked about last, since the epoch, and the number of its month: what is the same for all who ask.
static LAST: AtomicU64 = AtomicU64::new(u64::MAX);
/// From the first of March of the year 0 to the epoch.
const EPOCH_DAYS: u64 = 719_468;
/// In 400 years.
const ERA_DAYS: u64 = 146_097;

impl Period {
    /// All periods, with their words.
    pub const WORDS: [(&'static str, Self); 5] = [
        ("minute", Self::Minute),
        ("hour", Self::Hour),
        ("day", Self::Day),
        ("week", Self::Week),
        ("month", Self::Month),
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The number of the period that a moment is in; the next one has the next number.
    #[must_use]
    #[inline]
    pub fn number(self, at: Timestamp) -> u64 {
        let secs = at.as_secs();
        match self {
            Self::Minute => secs / 60,
            Self::Hour => secs / 3_600,
            Self::Day => secs / DAY,
            // The epoch was a Thursday.
            Self::Week => (secs / DAY + 3) / 7,
            Self::Month => {
                let day = secs / DAY;
                // Calls ask about one day, again and again.
                let last = LAST.load(Ordering::Relaxed);
                if last >> 32 == day {
                    return last & u64::from(u32::MAX);
                }
                let (year, month) = year_and_month(day);
                let number = year * 12 + month - 1;
                if let (Ok(_), Ok(_)) = (u32::try_from(day), u32::try_from(number)) {
                    LAST.store(day << 32 | number, Ordering::Relaxed);
                }
                number
            }
        }
    }

    /// When the period of this number begins.
    #[must_use]
    pub const fn start(self, number: u64) -> Timestamp {
        let secs = match self {
            Self::Minute => number.saturating_mul(60),
            Self::Hour => number.saturating_mul(3_600),
            Self::Day => number.saturating_mul(DAY),
            Self::Week => number.saturating_mul(7).saturating_sub(3).saturating_mul(DAY),
            Self::Month => first_day(number / 12, number % 12 + 1).saturating_mul(DAY),
        };
        Timestamp::from_nanos(secs.saturating_mul(1_000_000_000))
    }

    /// When the period that a moment is in ends, which is when the next one begins.
    #[must_use]
    pub fn end(self, at: Timestamp) -> Timestamp {
        self.start(self.number(at) + 1)
    }
}

/// Year and month (from 1) of a day since the epoch, in the proleptic Gregorian calendar, where years begin in
/// March so that the leap day is their last. Divisions as multiplications, by Neri and Schneider, "Euclidean
/// affine functions and their application to calendar algorithms" (2023).
const fn year_and_month(day: u64) -> (u64, u64) {
    let shifted = 4 * (day + EPOCH_DAYS) + 3;
    let century = shifted / ERA_DAYS;
    let of_century = (shifted % ERA_DAYS) | 3;
    let product = 2_939_745 * of_century;
    let year = 100 * century + (product >> 32);
    let of_year = (product & 0xffff_ffff) / 2_939_745 / 4;
    let month = (2_141 * of_year + 197_913) >> 16;
    // The last two months of such a year are the first two of the next.
    if of_year >= 306 { (year + 1, month - 12) } else { (year, month) }
}

/// The day since the epoch on which a month (from 1) begins; the epoch for earlier ones.
const fn first_day(year: u64, month: u64) -> u64 {
    let year = year.saturating_sub((month <= 2) as u64);
    let (era, of_era) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5;
    let days = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    (era.saturating_mul(ERA_DAYS).saturating_add(days)).saturating_sub(EPOCH_DAYS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn secs(secs: u64) -> Timestamp {
        Timestamp::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn months_begin_and_end_where_the_calendar_says() {
        // From `date -u -d ... +%s`.
        for (at, start, end) in [
            (1_763_700_000, 1_761_955_200, 1_764_547_200), // 2025-11-21: November has 30 days
            (1_709_164_800, 1_706_745_600, 1_709_251_200), // 2024-02-29: a leap year
            (1_740_787_199, 1_738_368_000, 1_740_787_200), // 2025-02-28 23:59:59: none
            (951_782_400, 949_363_200, 951_868_800),       // 2000-02-29: divisible by 400
            (4_107_455_999, 4_105_123_200, 4_107_542_400), // 2100-02-27: divisible by 100
            (1_767_225_599, 1_764_547_200, 1_767_225_600), // 2025-12-31 23:59:59: the year ends
            (0, 0, 2_678_400),
        ] {
            let number = Period::Month.number(secs(at));
            assert_eq!(Period::Month.start(number), secs(start), "{at}");
            assert_eq!(Period::Month.end(secs(at)), secs(end), "{at}");
        }
    }

    #[test]
    fn every_day_until_the_end_of_nanoseconds_is_in_its_month() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for number in 0..u64::MAX / 1_000_000_000 / DAY {
            assert_eq!(year_and_month(number), (year, month), "day {number}");
            if day == 1 {
                assert_eq!(first_day(year, month), number);
            }
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > last {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn weeks_begin_on_monday() {
        // 2026-11-16 was a Monday.
        let monday = 1_794_787_200;
        assert_eq!(Period::Week.start(Period::Week.number(secs(monday))), secs(monday));
        assert_eq!(Period::Week.number(secs(monday - 1)) + 1, Period::Week.number(secs(monday)));
        assert_eq!(Period::Week.end(secs(monday + 86_400)), secs(monday + 7 * 86_400));
    }

    proptest! {
        #[test]
        fn a_moment_lies_in_its_period_and_periods_join(nanos in any::<u64>(), which in 0usize..5) {
            let period = Period::WORDS[which].1;
            let at = Timestamp::from_nanos(nanos);
            let number = period.number(at);
            prop_assert!(period.start(number) <= at);
            prop_assert!(at < period.end(at) || period.end(at) == Timestamp::from_nanos(u64::MAX));
            if period.end(at) < Timestamp::from_nanos(u64::MAX) {
                prop_assert_eq!(period.number(period.end(at)), number + 1);
            }
        }
    }
}
